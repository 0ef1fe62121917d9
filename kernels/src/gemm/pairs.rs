//! Products of operands rounded to bf16, summed up in f32.
//!
//! Two neighbouring steps of `k` are a pair: two bf16 numbers in the place of one f32,
//! so that the tiles, blocking and packing of single precision serve, with half the
//! steps; only the multiply-add is another one, that of pairs. A product of two bf16
//! numbers is exact in f32: a chain adds the second product of a pair, then the first,
//! each rounded once, as the instruction `vdpbf16ps` does. (That instruction takes
//! subnormal numbers for zero; without it they count.) Processors that multiply whole
//! matrices sum up in another order: see `amx`.

use super::kernel::{Fun, Kernel, Micro, Rows, SLOTS, asked, kernel, slot};
use super::of::{Lanes, Of};
use super::simd::{Quad, Simd};
#[cfg(target_arch = "x86_64")]
use super::simd::{Ymm, Zmm};
use super::units::{self, Units};
use super::{Epilogue, pack_b, packed_len, tile};
use crate::isa;
use crate::scratch::block;
use crate::simd::vectorize;
use crate::view::{Dst, Src};

/// Lanes of two bf16 numbers: `a + x₁ m₁ + x₀ m₀`.
struct Pairs;

#[cfg(target_arch = "x86_64")]
impl Lanes<Zmm> for Pairs {
    #[inline(always)]
    unsafe fn dot(x: Zmm, m: Zmm, a: Zmm) -> Zmm {
        // SAFETY: the caller has AVX-512 with bf16.
        unsafe { x.dot_pairs(m, a) }
    }
}

// By unpacking: the halves of a pair are the upper halves of two f32 numbers.
#[cfg(target_arch = "x86_64")]
impl Lanes<Ymm> for Pairs {
    #[inline(always)]
    unsafe fn dot(x: Ymm, m: Ymm, a: Ymm) -> Ymm {
        // SAFETY: the caller has AVX2 and FMA.
        unsafe { x.lower().fma(m.lower(), x.upper().fma(m.upper(), a)) }
    }
}

impl Lanes<Quad> for Pairs {
    #[inline(always)]
    unsafe fn dot(x: Quad, m: Quad, a: Quad) -> Quad {
        // SAFETY: lanes are plain numbers.
        unsafe { x.lower().fma(m.lower(), x.upper().fma(m.upper(), a)) }
    }
}

// Only packed operands; where there is no instruction for pairs, what serves with the
// least code.
kernel!(baseline, Of<Quad, Pairs>, rows 1, vectors 1, kinds Panels Table);
#[cfg(target_arch = "x86_64")]
kernel!(v3, Of<Ymm, Pairs>, rows 4, vectors 3, kinds Panels Table, "avx2,fma,bmi2,f16c");
#[cfg(target_arch = "x86_64")]
kernel!(
    v4, Of<Zmm, Pairs>, rows 8, vectors 12, kinds Panels Table,
    "avx512bf16,avx512f,avx512bw,avx512cd,avx512dq,avx512vl,avx2,fma,bmi2,f16c"
);

/// The tiles of pairs of the instruction set in use.
pub(crate) fn active() -> &'static Kernel {
    #[cfg(target_arch = "x86_64")]
    match isa::active() {
        isa::Isa::Avx512 if is_x86_feature_detected!("avx512bf16") => return &v4::KERNEL,
        isa::Isa::Avx512 | isa::Isa::Avx2 => return &v3::KERNEL,
        isa::Isa::Baseline => {}
    }
    &baseline::KERNEL
}

/// The nearest bf16 number, ties to even; NaN stays NaN.
#[inline(always)]
pub(super) fn round(x: f32) -> u16 {
    let bits = x.to_bits();
    let nearest = (bits + (0x7fff + (bits >> 16 & 1))) >> 16;
    let nan = bits >> 16 | 0x40;
    (if x.is_nan() { nan } else { nearest }) as u16
}

/// What rounding leaves of a number, exactly; nothing of what becomes infinite or is no
/// number.
#[inline(always)]
pub(super) fn residual(x: f32) -> f32 {
    let left = x - f32::from_bits(u32::from(round(x)) << 16);
    if left.is_finite() { left } else { 0.0 }
}

/// Rounds `n` numbers that are `step` apart.
///
/// # Safety
/// `x` is readable at `n` such places, `out` writable for `n` numbers.
#[inline(always)]
pub(super) unsafe fn round_numbers(x: *const f32, step: isize, n: usize, out: *mut [u8; 2]) {
    // SAFETY: within the caller's extents.
    unsafe {
        if step == 1 {
            for i in 0..n {
                *out.add(i) = round(*x.add(i)).to_ne_bytes();
            }
        } else {
            for i in 0..n {
                *out.add(i) = round(*x.offset(i as isize * step)).to_ne_bytes();
            }
        }
    }
}

/// Rounds `n` numbers that are `step` apart into pairs, of which the last may be half
/// empty.
///
/// # Safety
/// `x` is readable at `n` such places, `out` writable for `n` numbers, rounded up to an
/// even number.
#[inline(always)]
pub(crate) unsafe fn round_row(x: *const f32, step: isize, n: usize, out: *mut u16) {
    // SAFETY: within the caller's extents.
    unsafe {
        round_numbers(x, step, n, out.cast());
        if n % 2 == 1 {
            *out.add(n) = 0;
        }
    }
}

/// Pairs each of `n` numbers of `low` with one of `high`, or with zero where that is
/// null.
///
/// # Safety
/// Both are readable, `out` writable for `n` numbers; it overlaps neither.
pub(crate) unsafe fn join(low: *const f32, high: *const f32, n: usize, out: *mut f32) {
    let out = out.cast::<u32>();
    vectorize(
        #[inline(always)]
        move || {
            // SAFETY: within the caller's extents.
            unsafe {
                if high.is_null() {
                    for i in 0..n {
                        *out.add(i) = round(*low.add(i)).into();
                    }
                } else {
                    for i in 0..n {
                        let (low, high) = (round(*low.add(i)), round(*high.add(i)));
                        *out.add(i) = u32::from(low) | u32::from(high) << 16;
                    }
                }
            }
        },
    );
}

/// Number of floats of a right operand packed in pairs.
pub fn packed_len_bf16(k: usize, n: usize) -> usize {
    packed_len(k.div_ceil(2), n)
}

/// Rounds `b` of shape `[k, n]`, any strides, to bf16 and packs it for
/// [`gemm_packed_bf16`]: as [`pack_b`](super::pack_b), with two rows in one.
///
/// # Panics
/// If `out` does not hold [`packed_len_bf16`] floats.
pub fn pack_b_bf16(b: Src<f32>, out: &mut [f32]) {
    let &[k, n] = b.shape else { panic!("a matrix has two dimensions") };
    assert_eq!(out.len(), packed_len_bf16(k, n), "the packed operand has its own size");
    let rows = k.div_ceil(2);
    let pairs = block::<f32>(rows * n);
    let to: *mut f32 = pairs.as_ptr().cast();
    let [down, right] = [b.strides[0], b.strides[1]];
    if right == 1 {
        for i in 0..rows {
            // SAFETY: one or two rows of the view, and the row of their pairs.
            unsafe {
                let low = b.ptr().wrapping_offset(2 * i as isize * down);
                let high = if 2 * i + 1 < k { low.wrapping_offset(down) } else { std::ptr::null() };
                join(low, high, n, to.add(i * n));
            }
        }
        return pack_b(pairs.src(0, &[rows, n], &[n as isize, 1]), out);
    }
    vectorize(|| {
        for j in 0..n {
            // SAFETY: a column of the view, and that of its pairs.
            unsafe {
                round_row(
                    b.ptr().wrapping_offset(j as isize * right),
                    down,
                    k,
                    to.add(j * rows).cast(),
                );
            }
        }
    });
    pack_b(pairs.src(0, &[rows, n], &[1, rows as isize]), out);
}

/// `c = act(a b + bias)` for `a` of shape `[m, k]`, rounded to bf16, `c` of `[m, n]` and
/// `b` of `[k, n]`, rounded and packed by [`pack_b_bf16`]. Sums, biases and results are
/// f32.
///
/// # Panics
/// As [`gemm_f32`](super::gemm_f32).
pub fn gemm_packed_bf16(a: Src<f32>, packed: &[f32], n: usize, c: Dst<f32>, ep: &Epilogue) {
    let &[_, k] = a.shape else { panic!("matrices have two dimensions") };
    assert_eq!(packed.len(), packed_len_bf16(k, n), "the packed operand has its own size");
    units::product(Units::pairs(), a, packed, n, c, ep);
}
