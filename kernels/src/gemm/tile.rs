//! The register tile: a few rows of `A B` held in registers over all of `k`.
//!
//! Every output element is one chain of fused multiply-adds in the order of `k`,
//! at any tile shape and instruction set, so results depend on neither.

use super::kernel::{LANES, Micro, NR, Rows, Scales};
use super::simd::Simd;
use crate::simd::unroll::{copies, unroll};

/// How far ahead, in floats, panels are fetched: some hundred cycles of a full
/// tile, enough to hide a visit to the third-level cache.
const AHEAD: usize = 8 * NR;
/// How many rows ahead an operand that is not packed is fetched.
const AHEAD_ROWS: isize = 16;

const PANELS: u8 = Rows::Panels as u8;
const EVEN: u8 = Rows::Even as u8;
const TABLE: u8 = Rows::Table as u8;
const KEEP: u8 = Rows::Keep as u8;
const COLUMNS: u8 = Rows::Columns as u8;
const SPREAD: u8 = Rows::Spread as u8;

/// Computes `R` rows and at most `V` vectors of columns; `KIND` says how the
/// rows of `B` follow each other.
///
/// # Safety
/// As [`Kernel::tile`](super::kernel::Kernel::tile), for `R` rows and more than
/// `V - 1` vectors of columns, and the instruction set of `S`.
#[inline(always)]
pub(super) unsafe fn tile<S: Simd, const R: usize, const V: usize, const KIND: u8>(t: &Micro) {
    // SAFETY: the caller's contract.
    unsafe {
        let mut acc = start::<S, R, V>(t);
        match KIND {
            // Wider tiles of this kind are never asked for: see `vectors`.
            COLUMNS if V > 2 => {}
            COLUMNS => turn::<S, R, V>(t, &mut acc),
            _ => sweep::<S, R, V, KIND>(t, &mut acc),
        }
        finish::<S, R, V, KIND>(t, acc);
    }
}

/// What the chains start with.
#[inline(always)]
unsafe fn start<S: Simd, const R: usize, const V: usize>(t: &Micro) -> [[S; V]; R] {
    // SAFETY: C is readable at the tile's rows and columns; the last vector is
    // masked.
    unsafe {
        let last = S::mask(t.cols - (V - 1) * S::LANES);
        let mut acc: [[S; V]; R] = copies(copies(S::zero()));
        unroll!(for r in 0..R {
            let c = t.c.offset(r as isize * t.ldc).cast_const();
            if t.load_c {
                unroll!(for v in 0..V {
                    let p = c.add(v * S::LANES);
                    acc[r][v] = if v == V - 1 { S::load_mask(p, last) } else { S::load(p) };
                });
            }
            if R > 2 {
                // The tile below will most likely be next.
                let below = c.wrapping_offset(R as isize * t.ldc);
                unroll!(for v in 0..V {
                    if (v * S::LANES).is_multiple_of(LANES) {
                        S::prefetch(below.wrapping_add(v * S::LANES));
                    }
                });
            }
        });
        acc
    }
}

/// Carries the chains through `k` with vectors of B as they lie in memory.
#[inline(always)]
unsafe fn sweep<S: Simd, const R: usize, const V: usize, const KIND: u8>(
    t: &Micro,
    acc: &mut [[S; V]; R],
) {
    // SAFETY: A and B are readable at the tile's rows, columns and steps. Of
    // panels, whole vectors are; otherwise the last one is masked. `keep` is
    // writable at all steps.
    unsafe {
        let last = S::mask(t.cols - (V - 1) * S::LANES);
        let (mut a, mut b, mut next, mut keep) = (t.a, t.b, t.table, t.keep);
        let mut bv: [S; V] = copies(S::zero());
        for _ in 0..t.k {
            let row = if KIND == TABLE { t.b.add(*next as usize) } else { b };
            let step = if KIND == SPREAD { t.a.add(*next as usize) } else { a };
            unroll!(for v in 0..V {
                let col = v * S::LANES;
                let p = row.offset((col / NR) as isize * t.b_panel + (col % NR) as isize);
                let masked = KIND != PANELS && KIND != SPREAD && v == V - 1;
                bv[v] = if masked { S::load_mask(p, last) } else { S::load(p) };
                if KIND == KEEP {
                    bv[v].store(keep.add(v * S::LANES));
                }
                if (v * S::LANES).is_multiple_of(LANES) {
                    match KIND {
                        PANELS => S::prefetch(p.wrapping_add(AHEAD)),
                        EVEN | KEEP => S::prefetch(p.wrapping_offset(AHEAD_ROWS * t.b_k)),
                        _ => {}
                    }
                }
            });
            unroll!(for r in 0..R {
                let x = S::splat(*step.offset(r as isize * t.a_row));
                unroll!(for v in 0..V {
                    acc[r][v] = x.fma(bv[v], acc[r][v]);
                });
            });
            // Wrapping: after the last round these may point past the operands.
            a = a.wrapping_offset(t.a_k);
            b = b.wrapping_offset(t.b_k);
            next = next.wrapping_add(1);
            keep = keep.wrapping_add(NR);
        }
    }
}

/// Carries the chains through `k` with columns of B that are turned into rows in
/// registers, eight steps at a time.
#[inline(always)]
unsafe fn turn<S: Simd, const R: usize, const V: usize>(t: &Micro, acc: &mut [[S; V]; R]) {
    // SAFETY: A and B are readable at the tile's rows, columns and steps; columns
    // past the last are not read.
    unsafe {
        let left = t.cols - (V - 1) * S::LANES;
        for step in (0..t.k & !7).step_by(8) {
            unroll!(for v in 0..V {
                turn_eight(t, acc, v, step, left)
            });
        }
        for step in t.k & !7..t.k {
            unroll!(for v in 0..V {
                let mut row = [0.0; LANES];
                for lane in 0..if v == V - 1 { left } else { S::LANES } {
                    let col = (v * S::LANES + lane) as isize;
                    row[lane] = *t.b.offset(col * t.b_k).add(step);
                }
                let row = S::load(row.as_ptr());
                unroll!(for r in 0..R {
                    let x = *t.a.offset(r as isize * t.a_row + step as isize * t.a_k);
                    acc[r][v] = S::splat(x).fma(row, acc[r][v]);
                });
            });
        }
    }
}

/// Eight steps of the `v`-th vector of columns; `left` columns are in the last.
#[inline(always)]
unsafe fn turn_eight<S: Simd, const R: usize, const V: usize>(
    t: &Micro,
    acc: &mut [[S; V]; R],
    v: usize,
    step: usize,
    left: usize,
) {
    // SAFETY: the caller's contract.
    unsafe {
        let b = t.b.offset((v * S::LANES) as isize * t.b_k).add(step);
        let a = t.a.offset(step as isize * t.a_k);
        let top = if v == V - 1 { left - 1 } else { S::LANES - 1 };
        let rows = S::columns(b, t.b_k, top);
        unroll!(for j in 0..8 {
            unroll!(for r in 0..R {
                let x = *a.offset(r as isize * t.a_row + j as isize * t.a_k);
                acc[r][v] = S::splat(x).fma(rows[j], acc[r][v]);
            });
        });
    }
}

/// Makes numbers of integers, adds the biases, applies the activation and stores.
#[inline(always)]
unsafe fn finish<S: Simd, const R: usize, const V: usize, const KIND: u8>(
    t: &Micro,
    mut acc: [[S; V]; R],
) {
    // SAFETY: the biases are readable and C is writable at the tile's rows and
    // columns; the last vector is masked.
    unsafe {
        let last = S::mask(t.cols - (V - 1) * S::LANES);
        if S::INTEGERS && !t.scales.scale.is_null() {
            let Scales { scale, offset } = t.scales;
            if KIND == TABLE {
                unroll!(for r in 0..R {
                    let (offset, scale) = (S::splat(*offset.add(r)), S::splat(*scale.add(r)));
                    unroll!(for v in 0..V {
                        acc[r][v] = acc[r][v].scaled(offset, scale);
                    });
                });
            } else {
                unroll!(for v in 0..V {
                    let mask = if v == V - 1 { last } else { S::mask(S::LANES) };
                    let offset = S::load_mask(offset.add(v * S::LANES), mask);
                    let scale = S::load_mask(scale.add(v * S::LANES), mask);
                    unroll!(for r in 0..R {
                        acc[r][v] = acc[r][v].scaled(offset, scale);
                    });
                });
            }
        }
        if !t.bias_col.is_null() {
            unroll!(for v in 0..V {
                let p = t.bias_col.add(v * S::LANES);
                let y = if v == V - 1 { S::load_mask(p, last) } else { S::load(p) };
                unroll!(for r in 0..R {
                    acc[r][v] = acc[r][v].add(y);
                });
            });
        }
        if !t.bias_row.is_null() {
            unroll!(for r in 0..R {
                let y = S::splat(*t.bias_row.add(r));
                unroll!(for v in 0..V {
                    acc[r][v] = acc[r][v].add(y);
                });
            });
        }
        if t.relu {
            unroll!(for r in 0..R {
                unroll!(for v in 0..V {
                    acc[r][v] = acc[r][v].relu();
                });
            });
        }
        if t.most < f32::INFINITY {
            let most = S::splat(t.most);
            unroll!(for r in 0..R {
                unroll!(for v in 0..V {
                    acc[r][v] = acc[r][v].at_most(most);
                });
            });
        }
        unroll!(for r in 0..R {
            let c = t.c.offset(r as isize * t.ldc);
            unroll!(for v in 0..V {
                let p = c.add(v * S::LANES);
                if v == V - 1 { acc[r][v].store_mask(p, last) } else { acc[r][v].store(p) }
            });
        });
    }
}
