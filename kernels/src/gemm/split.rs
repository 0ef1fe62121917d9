//! Products of operands split in two numbers of bf16, summed up in f32: "bf16×3".
//!
//! `x ≈ h + l` with `h` the nearest bf16 number and `l` the nearest to what is left: 16
//! bits of the 24. Of the product of two such sums, `h h' + h l' + l h'` are computed; each
//! term is off by at most `3 · 2⁻¹⁶` of its magnitude, besides the roundings of the sum. It
//! pays where a processor multiplies matrices of bf16 ([`super::tiles_available`]), and
//! nowhere else; what other processors compute are the same products by pairs, in the order
//! of two longer chains. A number that rounds to infinity, or is, may give NaN.

use super::pairs::{residual, round_row};
use super::units::{self, Units};
use super::{Epilogue, pack_b, packed_len};
use crate::scratch::{At, block};
use crate::view::{Dst, Src};

/// Number of floats of a right operand packed by [`pack_b_bf16x3`].
pub fn packed_len_bf16x3(k: usize, n: usize) -> usize {
    packed_len(2 * k.div_ceil(2), n)
}

/// Splits `b` of shape `[k, n]`, any strides, and packs it for [`gemm_packed_bf16x3`]: as
/// [`pack_b_bf16`](super::pack_b_bf16) the nearest numbers, then what is left of them, in
/// each panel.
///
/// # Panics
/// If `out` does not hold [`packed_len_bf16x3`] floats.
pub fn pack_b_bf16x3(b: Src<f32>, out: &mut [f32]) {
    let &[k, n] = b.shape else { panic!("a matrix has two dimensions") };
    let rows = k.div_ceil(2);
    let both = block::<f32>(2 * rows * n);
    let (all, strides) = ([2 * rows, n], [1, 2 * rows as isize]);
    let to = At(both.as_ptr().cast());
    columns(b, |j, column| {
        let to = to.after(2 * j * rows);
        let left: Vec<f32> = column.iter().map(|&x| residual(x)).collect();
        // SAFETY: the column's place in the block.
        unsafe {
            round_row(column.as_ptr(), 1, k, to.cast());
            round_row(left.as_ptr(), 1, k, to.add(rows).cast());
        }
    });
    pack_b(both.src(0, &all, &strides), out);
}

/// Calls `f` with each column of a matrix.
fn columns(b: Src<f32>, f: impl Fn(usize, &[f32]) + Sync) {
    let &[k, n] = b.shape else { panic!("a matrix has two dimensions") };
    let mut column = vec![0.0; k];
    for j in 0..n {
        for (i, x) in column.iter_mut().enumerate() {
            let at = i as isize * b.strides[0] + j as isize * b.strides[1];
            // SAFETY: an element of the view, which was checked at construction.
            *x = unsafe { *b.ptr().wrapping_offset(at) };
        }
        f(j, &column);
    }
}

/// `c = act(a b + bias)` as [`gemm_packed_f32`](super::gemm_packed_f32), from operands
/// split in two, `b` packed by [`pack_b_bf16x3`]. Biases and results are f32.
///
/// # Panics
/// As [`gemm_f32`](super::gemm_f32).
pub fn gemm_packed_bf16x3(a: Src<f32>, packed: &[f32], n: usize, c: Dst<f32>, ep: &Epilogue) {
    let &[_, k] = a.shape else { panic!("matrices have two dimensions") };
    assert_eq!(packed.len(), packed_len_bf16x3(k, n), "the packed operand has its own size");
    units::product(Units::split(), a, packed, n, c, ep);
}
