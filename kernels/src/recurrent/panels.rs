//! Recurrent weights in panels, and products with them.

use crate::gemm::kernel::{Kernel, LANES, MR, Micro, NR, Rows, row_tiles, width};
use crate::gemm::pack::{pack_panel, panel_width, transpose};
use crate::gemm::pairs::{self, round_row};
use crate::simd::{Real, vectorize};
use std::ops::Range;

/// `out = [out +] a b` for some columns of a packed `b` of `[k, n]`.
pub struct Product<T> {
    pub(super) rows: usize,
    pub(super) k: usize,
    /// All columns of `b`.
    pub(super) n: usize,
    pub(super) a: *const T,
    /// Distance of the rows of `a`.
    pub(super) a_row: usize,
    pub(super) packed: *const T,
    /// The columns that are wanted, from the beginning of a panel on.
    pub(super) cols: Range<usize>,
    /// Where the first of them goes.
    pub(super) out: *mut T,
    /// Distance of the rows of `out`.
    pub(super) ld: usize,
    pub(super) accumulate: bool,
    /// Whether a step of `k` is a pair of bf16 numbers.
    pub(super) pairs: bool,
}

/// Numbers that recurrent weights consist of.
#[doc(hidden)]
#[allow(missing_docs)]
pub trait Panels: Real {
    /// Packs `[gates * units, k]`, turned: the columns of sixteen units' gates stand
    /// together, those of units that do not exist are zero.
    ///
    /// # Safety
    /// `w` is dense, `out` has room.
    unsafe fn pack_gates(w: *const Self, gates: [usize; 2], k: usize, out: *mut Self);

    /// Rounds rows of `k` numbers to bf16, in pairs. Only f32 is ever rounded.
    ///
    /// # Safety
    /// Rows lie side by side; `out` has room for as many of pairs.
    unsafe fn round_rows(x: *const Self, rows: usize, k: usize, out: *mut Self);

    /// Packs `[k, n]` as it is.
    ///
    /// # Safety
    /// `w` is dense, `out` has room for `k` times `n`, rounded up to [`LANES`].
    unsafe fn pack_plain(w: *const Self, k: usize, n: usize, out: *mut Self) {
        let mut col = 0;
        while col < n {
            let width = panel_width(n, col);
            for i in 0..k {
                for j in 0..width {
                    // SAFETY: a column of the weight, and its place in the panel.
                    unsafe {
                        let v = if col + j < n { *w.add(i * n + col + j) } else { Self::ZERO };
                        *out.add(col * k + i * width + j) = v;
                    }
                }
            }
            col += width;
        }
    }

    /// Computes a product.
    ///
    /// # Safety
    /// Its addresses are readable and writable at its extents.
    unsafe fn product(p: &Product<Self>);
}

/// For each sixteen columns of the packed weight: the first row of the weight that they
/// are, how many of them there are, and where they go, with `k` steps to a panel, and at
/// which distance.
fn groups(
    [gates, units]: [usize; 2],
    k: usize,
) -> impl Iterator<Item = (usize, usize, usize, usize)> {
    let n = gates * units.next_multiple_of(LANES);
    (0..n).step_by(LANES).map(move |col| {
        let (gate, unit) = (col / LANES % gates, col / LANES / gates * LANES);
        let panel = col / NR * NR;
        let count = (units - unit).min(LANES);
        (gate * units + unit, count, panel * k + col - panel, panel_width(n, panel))
    })
}

impl Panels for f32 {
    unsafe fn pack_gates(w: *const f32, gates: [usize; 2], k: usize, out: *mut f32) {
        for (row, count, at, width) in groups(gates, k) {
            // SAFETY: rows of the weight, and their places in the panels.
            unsafe {
                let (from, to) = (w.add(row * k), out.add(at));
                transpose(from, k as isize, (count, k), to, width);
                for i in 0..if count < LANES { k } else { 0 } {
                    to.add(i * width + count).write_bytes(0, LANES - count);
                }
            }
        }
    }

    unsafe fn pack_plain(w: *const f32, k: usize, n: usize, out: *mut f32) {
        for col in (0..n).step_by(NR) {
            let shape = (k, (n - col).min(NR), panel_width(n, col));
            // SAFETY: columns of the weight, and their panel.
            unsafe { pack_panel(w.add(col), (n as isize, 1), shape, out.add(col * k)) };
        }
    }

    unsafe fn round_rows(x: *const f32, rows: usize, k: usize, out: *mut f32) {
        vectorize(
            #[inline(always)]
            move || {
                for r in 0..rows {
                    // SAFETY: a row, and its place.
                    unsafe { round_row(x.add(r * k), 1, k, out.add(r * k.div_ceil(2)).cast()) }
                }
            },
        );
    }

    unsafe fn product(p: &Product<f32>) {
        let kernel = if p.pairs { pairs::active() } else { Kernel::active() };
        let mut col = p.cols.start;
        while col < p.cols.end {
            // Few rows span several panels, a narrower last one stands alone.
            let whole = (p.n - col) / NR * NR;
            let across = if whole == 0 { NR } else { width(p.rows.min(MR)).min(whole) };
            let cols = across.min(p.cols.end - col);
            for (at, rows) in row_tiles(p.rows, MR) {
                // SAFETY: rows and columns of the product.
                unsafe {
                    let tile = Micro {
                        rows,
                        cols,
                        k: p.k,
                        a: p.a.add(at * p.a_row),
                        a_row: p.a_row as isize,
                        a_k: 1,
                        b: p.packed.add(col * p.k),
                        b_k: panel_width(p.n, col) as isize,
                        b_panel: (NR * p.k) as isize,
                        c: p.out.add(at * p.ld + col - p.cols.start),
                        ldc: p.ld as isize,
                        load_c: p.accumulate,
                        ..Micro::NONE
                    };
                    kernel.tile(Rows::Panels, &tile);
                }
            }
            col += cols;
        }
    }
}

impl Panels for f64 {
    unsafe fn pack_gates(w: *const f64, gates: [usize; 2], k: usize, out: *mut f64) {
        for (row, count, at, width) in groups(gates, k) {
            for i in 0..k {
                for j in 0..LANES {
                    // SAFETY: rows of the weight, and their places in the panels.
                    unsafe {
                        let v = if j < count { *w.add((row + j) * k + i) } else { 0.0 };
                        *out.add(at + i * width + j) = v;
                    }
                }
            }
        }
    }

    unsafe fn round_rows(_: *const f64, _: usize, _: usize, _: *mut f64) {
        unreachable!("a weight in f64 is never rounded");
    }

    unsafe fn product(p: &Product<f64>) {
        for col in p.cols.clone().step_by(LANES) {
            let cols = (p.cols.end - col).min(LANES);
            let panel = col / NR * NR;
            let width = panel_width(p.n, panel);
            for row in 0..p.rows {
                // SAFETY: a row and columns of the product.
                unsafe {
                    let (a, k, accumulate) = (p.a.add(row * p.a_row), p.k, p.accumulate);
                    let b = p.packed.add(panel * k + col - panel);
                    let out = p.out.add(row * p.ld + col - p.cols.start);
                    vectorize(
                        #[inline(always)]
                        move || {
                            let mut sums = [0.0f64; LANES];
                            if accumulate {
                                std::ptr::copy_nonoverlapping(out, sums.as_mut_ptr(), cols);
                            }
                            for i in 0..k {
                                let x = *a.add(i);
                                let row = b.add(i * width).cast::<[f64; LANES]>().read_unaligned();
                                for j in 0..LANES {
                                    sums[j] = x.mul_add(row[j], sums[j]);
                                }
                            }
                            std::ptr::copy_nonoverlapping(sums.as_ptr(), out, cols);
                        },
                    );
                }
            }
        }
    }
}
