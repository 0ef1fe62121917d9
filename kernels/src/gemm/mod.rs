//! Matrix products.
//!
//! Single precision is built around one register tile (`kernel`) of 8 rows by
//! 48 columns. Each output element is one chain of fused multiply-adds in the
//! order of `k`, whatever the shape, strides, packing, number of threads or
//! instruction set: a row of a product does not depend on the rows beside it.
//! Blocking follows Goto and van de Geijn, "Anatomy of High-Performance Matrix
//! Multiplication" (2008), and the BLIS framework's loops.

#[cfg(target_arch = "x86_64")]
mod amx;
mod cut;
pub(crate) mod driver;
mod exact;
pub(crate) mod kernel;
mod of;
pub(crate) mod pack;
pub(crate) mod pairs;
pub(crate) mod quads;
pub(crate) mod simd;
mod split;
mod tile;
pub(crate) mod units;

pub use cut::Cut;
pub use exact::{Integer, gemm_batch_f64, gemm_batch_int};
pub use pairs::{gemm_packed_bf16, pack_b_bf16, packed_len_bf16};
pub use quads::{Affine, LONGEST_INT8, gemm_packed_int8, pack_b_int8, packed_len_int8};
pub use split::{gemm_packed_bf16x3, pack_b_bf16x3, packed_len_bf16x3};

use crate::scratch::Scratch;
use crate::view::{Dst, Src};
use driver::{Lhs, Out, Product, Rhs};
use kernel::{Kernel, LANES, MR, NR, Scales};
use pack::{pack_panel, panel_width};

/// Floats of an output finished before a hook sees them: 32 KiB.
pub(crate) const HOOKED: usize = 8 << 10;
/// Multiply-adds worth a thread's attention: some 5 µs.
pub(crate) const JOB: usize = 1 << 19;
/// With fewer rows than these a product waits for its right operand: a number
/// takes as long to arrive as so many multiply-adds.
pub(crate) const WAIT: usize = 4;

/// Whether this processor multiplies matrices of bf16 (AMX) and this process may use that:
/// where products of bf16 are several times as fast as those of f32, and
/// [`gemm_packed_bf16x3`] pays.
pub fn tiles_available() -> bool {
    #[cfg(target_arch = "x86_64")]
    return amx::available();
    #[cfg(not(target_arch = "x86_64"))]
    false
}

/// What is applied to every element of a result at last.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Act {
    /// Nothing.
    #[default]
    None,
    /// `max(x, 0)`, NaN staying NaN.
    Relu,
}

/// A finished rectangle of the output, still in a near cache.
#[derive(Clone, Copy, Debug)]
pub struct Tile {
    /// Item of the batch.
    pub batch: usize,
    /// First row.
    pub row: usize,
    /// First column.
    pub col: usize,
    /// Number of rows.
    pub rows: usize,
    /// Number of columns.
    pub cols: usize,
    /// Address of the first element. Columns lie side by side.
    pub ptr: *mut f32,
    /// Distance between rows, in elements.
    pub ld: isize,
}

/// What happens to the output while it is still in registers or a near cache:
/// `min(act(x + bias_col + bias_row), most)`, then the hook.
#[derive(Clone, Copy, Default)]
pub struct Epilogue<'a> {
    /// Added to every row: one number for each column.
    pub bias_col: Option<&'a [f32]>,
    /// Added to every column: one number for each row.
    pub bias_row: Option<&'a [f32]>,
    /// Applied after the biases.
    pub act: Act,
    /// No result is larger. NaN stays NaN.
    pub most: Option<f32>,
    /// Called with each finished rectangle, every element being covered once. It
    /// may change the elements. Calls come from several threads.
    pub hook: Option<&'a (dyn Fn(Tile) + Sync)>,
    /// How the product before it is cut.
    pub cut: Cut,
}

impl Epilogue<'_> {
    /// No bias, no activation, no hook.
    pub const NONE: Epilogue<'static> = Epilogue {
        bias_col: None,
        bias_row: None,
        act: Act::None,
        most: None,
        hook: None,
        cut: Cut::RULE,
    };

    /// What no result exceeds.
    pub(crate) fn ceiling(&self) -> f32 {
        self.most.unwrap_or(f32::INFINITY)
    }

    pub(crate) fn check(&self, m: usize, n: usize) {
        assert!(
            self.bias_col.is_none_or(|b| b.len() == n),
            "a column bias has one number a column"
        );
        assert!(self.bias_row.is_none_or(|b| b.len() == m), "a row bias has one number a row");
    }
}

/// `c = act([c +] a b + bias)` for `a` of shape `[m, k]`, `b` of `[k, n]` and `c`
/// of `[m, n]`, with any strides. `accumulate` adds to what `c` holds.
///
/// # Panics
/// If shapes do not fit, or if there is a hook and `c`'s columns do not lie side
/// by side.
pub fn gemm_f32(a: Src<f32>, b: Src<f32>, c: Dst<f32>, accumulate: bool, ep: &Epilogue) {
    let (&[m, k], &[kb, n], &[mc, nc]) = (a.shape, b.shape, c.shape) else {
        panic!("matrices have two dimensions");
    };
    assert!((kb, mc, nc) == (k, m, n), "shapes of a matrix product must fit");
    let p = Product {
        batch: 1,
        m,
        k,
        n,
        a: Lhs { ptr: a.ptr(), strides: [0, a.strides[0], a.strides[1]] },
        b: Rhs::Strided(b.ptr(), [0, b.strides[0], b.strides[1]]),
        c: Out { ptr: c.ptr(), batch: 0, ld: c.strides[0] },
        accumulate,
        ep,
        kernel: Kernel::active(),
        scales: Scales::NONE,
    };
    // SAFETY: the views were checked at construction and their shapes fit.
    unsafe { any_output(p, c.strides[1]) }
}

/// [`gemm_f32`] for each item of a batch: `a` is `[b, m, k]`, `b` `[b, k, n]` and
/// `c` `[b, m, n]`. Batch strides of `a` and `b` may be zero. Biases are the same
/// for every item.
///
/// # Panics
/// As [`gemm_f32`].
pub fn gemm_batch_f32(a: Src<f32>, b: Src<f32>, c: Dst<f32>, accumulate: bool, ep: &Epilogue) {
    let [batch, m, k, n] = batch_shape(a.shape, b.shape, c.shape);
    let triple = |s: &[isize]| [s[0], s[1], s[2]];
    let (sa, sb, sc) = (triple(a.strides), triple(b.strides), triple(c.strides));
    let mut p = Product {
        batch,
        m,
        k,
        n,
        a: Lhs { ptr: a.ptr(), strides: sa },
        b: Rhs::Strided(b.ptr(), sb),
        c: Out { ptr: c.ptr(), batch: sc[0], ld: sc[1] },
        accumulate,
        ep,
        kernel: Kernel::active(),
        scales: Scales::NONE,
    };
    // One matrix on the right for all: the items' rows are the rows of one product.
    let rows = m as isize;
    let one = sb[0] == 0 && sa[0] == rows * sa[1] && sc[0] == rows * sc[1];
    if one && ep.bias_row.is_none() && ep.hook.is_none() {
        (p.batch, p.m) = (1, batch * m);
    }
    // SAFETY: the views were checked at construction and their shapes fit.
    unsafe { any_output(p, sc[2]) }
}

fn batch_shape(a: &[usize], b: &[usize], c: &[usize]) -> [usize; 4] {
    let (&[batch, m, k], &[bb, kb, n], &[bc, mc, nc]) = (a, b, c) else {
        panic!("batches of matrices have three dimensions");
    };
    assert!((bb, bc, kb, mc, nc) == (batch, batch, k, m, n), "shapes of a matrix product must fit");
    [batch, m, k, n]
}

/// Runs a product whose output's columns are `c_n` apart.
///
/// # Safety
/// As [`Product::run`].
unsafe fn any_output(p: Product, c_n: isize) {
    p.ep.check(p.m, p.n);
    let hook = p.ep.hook.is_some();
    assert!(!hook || c_n == 1 || p.n <= 1, "a hook needs columns that lie side by side");
    // C^T = B^T A^T: for an output that lies in columns, or has but few.
    let turn = (c_n != 1 && p.c.ld == 1) || (p.n <= MR && p.m >= 4 * p.n);
    let biases = p.ep.bias_row.is_some() && p.ep.bias_col.is_some();
    match p.b {
        // Two biases would be added in another order.
        Rhs::Strided(b, [b_batch, b_k, b_n]) if turn && !hook && !biases => {
            let [a_batch, a_m, a_k] = p.a.strides;
            let ep = Epilogue { bias_col: p.ep.bias_row, bias_row: p.ep.bias_col, ..*p.ep };
            let turned = Product {
                m: p.n,
                n: p.m,
                a: Lhs { ptr: b, strides: [b_batch, b_n, b_k] },
                b: Rhs::Strided(p.a.ptr, [a_batch, a_k, a_m]),
                c: Out { ld: c_n, ..p.c },
                ep: &ep,
                ..p
            };
            // SAFETY: the same operands and the same output.
            unsafe { dense_output(turned, p.c.ld) }
        }
        // SAFETY: the caller's contract.
        _ => unsafe { dense_output(p, c_n) },
    }
}

/// Runs a product whose output's columns are `c_n` apart, through scratch where
/// they do not lie side by side.
///
/// # Safety
/// As [`Product::run`].
unsafe fn dense_output(p: Product, c_n: isize) {
    // SAFETY: the caller's contract; the scratch has room for the output.
    unsafe {
        if c_n == 1 || p.n <= 1 {
            return p.run();
        }
        let dense = Scratch::new(p.batch * p.m * p.n);
        let c = Out { ptr: dense.ptr(), batch: (p.m * p.n) as isize, ld: p.n as isize };
        let each = |f: &dyn Fn(*mut f32, *mut f32)| {
            for (i, r) in (0..p.batch).flat_map(|i| (0..p.m).map(move |r| (i, r))) {
                let theirs = p.c.ptr.offset(i as isize * p.c.batch + r as isize * p.c.ld);
                let ours = dense.ptr().add((i * p.m + r) * p.n);
                for j in 0..p.n {
                    f(theirs.offset(j as isize * c_n), ours.add(j));
                }
            }
        };
        if p.accumulate {
            each(&|theirs, ours| *ours = *theirs);
        }
        Product { c, ..p }.run();
        each(&|theirs, ours| *theirs = *ours);
    }
}

/// Number of floats of a packed right operand.
pub fn packed_len(k: usize, n: usize) -> usize {
    k * n.next_multiple_of(LANES)
}

/// Packs `b` of shape `[k, n]`, any strides, for [`gemm_packed_f32`].
///
/// The layout is the same for every instruction set: panels of 48 columns, one
/// after the other, each storing its rows one after the other; the last panel is
/// as wide as its columns need, rounded up to 16 and padded with zeros. Aligning
/// `out` to 64 bytes makes tiles faster.
///
/// # Panics
/// If `out` does not hold [`packed_len`] floats.
pub fn pack_b(b: Src<f32>, out: &mut [f32]) {
    let &[k, n] = b.shape else { panic!("a matrix has two dimensions") };
    assert_eq!(out.len(), packed_len(k, n), "the packed operand has its own size");
    for col in (0..n).step_by(NR) {
        let width = panel_width(n, col);
        // SAFETY: columns of the view, which was checked at construction; panels
        // before this one take `col * k` floats of `out`.
        unsafe {
            let from = b.ptr().wrapping_offset(col as isize * b.strides[1]);
            let to = out.as_mut_ptr().add(col * k);
            pack_panel(from, (b.strides[0], b.strides[1]), (k, (n - col).min(NR), width), to);
        }
    }
}

/// `c = act(a b + bias)` for `a` of shape `[m, k]`, `c` of `[m, n]` and `b` of
/// `[k, n]` packed by [`pack_b`]. The same numbers as from [`gemm_f32`].
///
/// # Panics
/// As [`gemm_f32`].
pub fn gemm_packed_f32(a: Src<f32>, packed: &[f32], n: usize, c: Dst<f32>, ep: &Epilogue) {
    let (&[m, k], &[mc, nc]) = (a.shape, c.shape) else { panic!("matrices have two dimensions") };
    assert!((mc, nc) == (m, n), "shapes of a matrix product must fit");
    assert_eq!(packed.len(), packed_len(k, n), "the packed operand has its own size");
    let p = Product {
        batch: 1,
        m,
        k,
        n,
        a: Lhs { ptr: a.ptr(), strides: [0, a.strides[0], a.strides[1]] },
        b: Rhs::Packed(packed.as_ptr(), k),
        c: Out { ptr: c.ptr(), batch: 0, ld: c.strides[0] },
        accumulate: false,
        ep,
        kernel: Kernel::active(),
        scales: Scales::NONE,
    };
    // SAFETY: the views were checked at construction, the packed operand just now.
    unsafe { any_output(p, c.strides[1]) }
}

#[cfg(test)]
pub(crate) mod tests;
