//! Matrix products of double precision and of integers.

use super::batch_shape;
use crate::for_each_isa;
use crate::isa;
use crate::par;
use crate::simd::unroll::unroll;
use crate::view::{Dst, Element, Src};

/// Rows and columns of a tile: 6 x 8 sums fill 12 AVX2 or 6 AVX-512 registers.
const ROWS: usize = 6;
const COLS: usize = 8;
/// Multiply-adds worth a thread's attention.
const JOB: usize = 1 << 19;

/// `k`, `A` (elements of a step side by side, padded to `ROWS`), `B` (likewise,
/// to `COLS`), and the tile of sums.
type Fun = unsafe fn(usize, *const f64, *const f64, &mut [[f64; COLS]; ROWS]);

static TILE: [Fun; 3] = for_each_isa!(fn(k: usize, a: *const f64, b: *const f64, c: &mut [[f64; COLS]; ROWS]) {
    // SAFETY: the caller has `k` padded steps of A and B.
    unsafe { tile(k, a, b, c) }
});

#[inline(always)]
unsafe fn tile(k: usize, a: *const f64, b: *const f64, c: &mut [[f64; COLS]; ROWS]) {
    let mut acc = *c;
    for i in 0..k {
        // SAFETY: the caller has `k` padded steps of A and B.
        let (a, b) = unsafe {
            (*a.add(i * ROWS).cast::<[f64; ROWS]>(), *b.add(i * COLS).cast::<[f64; COLS]>())
        };
        unroll!(for r in 0..ROWS {
            unroll!(for j in 0..COLS {
                acc[r][j] = a[r].mul_add(b[j], acc[r][j]);
            });
        });
    }
    *c = acc;
}

/// `c = [c +] a b` in double precision for each item of a batch: `a` is
/// `[b, m, k]`, `b` `[b, k, n]`, `c` `[b, m, n]`, with any strides. Each element
/// is one chain of fused multiply-adds in the order of `k`.
///
/// # Panics
/// If shapes do not fit.
pub fn gemm_batch_f64(a: Src<f64>, b: Src<f64>, c: Dst<f64>, accumulate: bool) {
    let [batch, m, k, n] = batch_shape(a.shape, b.shape, c.shape);
    let tile = TILE[isa::active() as usize];
    let panels = n.div_ceil(COLS);
    let grain = JOB.div_ceil((m * k * COLS).max(1));
    par::for_range(batch * panels, grain, |jobs| {
        let mut left = vec![0.0; if jobs.is_empty() { 0 } else { m.next_multiple_of(ROWS) * k }];
        let mut right = vec![0.0; k * COLS];
        let mut packed = usize::MAX;
        for job in jobs {
            let (item, col) = (job / panels, job % panels * COLS);
            let cols = (n - col).min(COLS);
            let at = |s: &[isize], i: usize, j: usize| {
                item as isize * s[0] + i as isize * s[1] + j as isize * s[2]
            };
            // SAFETY: indices stay below the views' extents, checked at construction.
            // Jobs own their columns of C.
            unsafe {
                if packed != item {
                    for row in 0..m {
                        let to = row / ROWS * ROWS * k + row % ROWS;
                        for i in 0..k {
                            left[to + i * ROWS] = *a.ptr().offset(at(a.strides, row, i));
                        }
                    }
                    packed = item;
                }
                for i in 0..k {
                    for j in 0..cols {
                        right[i * COLS + j] = *b.ptr().offset(at(b.strides, i, col + j));
                    }
                }
                for row in (0..m).step_by(ROWS) {
                    let mut sums = [[0.0; COLS]; ROWS];
                    let rows = (m - row).min(ROWS);
                    if accumulate {
                        for (r, sums) in sums.iter_mut().enumerate().take(rows) {
                            for (j, s) in sums.iter_mut().enumerate().take(cols) {
                                *s = *c.ptr().offset(at(c.strides, row + r, col + j));
                            }
                        }
                    }
                    tile(k, left.as_ptr().add(row * k), right.as_ptr(), &mut sums);
                    for (r, sums) in sums.iter().enumerate().take(rows) {
                        for (j, s) in sums.iter().enumerate().take(cols) {
                            *c.ptr().offset(at(c.strides, row + r, col + j)) = *s;
                        }
                    }
                }
            }
        }
    });
}

/// An integer type, with arithmetic that wraps as two's complement.
pub trait Integer: Element {
    /// `self * m + a`.
    fn mul_add_wrapping(self, m: Self, a: Self) -> Self;
}

macro_rules! integer {
    ($($t:ty),*) => {$(
        impl Integer for $t {
            #[inline(always)]
            fn mul_add_wrapping(self, m: $t, a: $t) -> $t {
                self.wrapping_mul(m).wrapping_add(a)
            }
        }
    )*};
}
integer!(i64, i32, u64, u32, u8);

/// `c = [c +] a b` in integers that wrap, for each item of a batch: shapes as
/// for [`gemm_batch_f64`].
///
/// # Panics
/// If shapes do not fit.
pub fn gemm_batch_int<T: Integer>(a: Src<T>, b: Src<T>, c: Dst<T>, accumulate: bool) {
    let [batch, m, k, n] = batch_shape(a.shape, b.shape, c.shape);
    let grain = JOB.div_ceil((k * n).max(1));
    par::for_range(batch * m, grain, |rows| {
        let mut sums = vec![T::ZERO; n];
        for row in rows {
            let (item, i) = ((row / m) as isize, (row % m) as isize);
            let base = |s: &[isize], i: isize| item * s[0] + i * s[1];
            // SAFETY: indices stay below the views' extents, checked at construction.
            // Each job owns its rows of C.
            unsafe {
                let c_row = c.ptr().offset(base(c.strides, i));
                for (j, s) in sums.iter_mut().enumerate() {
                    *s =
                        if accumulate { *c_row.offset(j as isize * c.strides[2]) } else { T::ZERO };
                }
                for l in 0..k as isize {
                    let x = *a.ptr().offset(base(a.strides, i) + l * a.strides[2]);
                    let b_row = b.ptr().offset(base(b.strides, l));
                    if b.strides[2] == 1 {
                        for (j, s) in sums.iter_mut().enumerate() {
                            *s = x.mul_add_wrapping(*b_row.add(j), *s);
                        }
                    } else {
                        for (j, s) in sums.iter_mut().enumerate() {
                            *s = x.mul_add_wrapping(*b_row.offset(j as isize * b.strides[2]), *s);
                        }
                    }
                }
                for (j, s) in sums.iter().enumerate() {
                    *c_row.offset(j as isize * c.strides[2]) = *s;
                }
            }
        }
    });
}
