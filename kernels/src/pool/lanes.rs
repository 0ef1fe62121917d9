//! Pooling of images whose channels lie side by side: sixteen channels at a time.
//!
//! Windows are reduced along their rows, then along their columns, as the other way of
//! computing them does: the numbers are the same.

use super::{Pool, Real, count_of};
use crate::simd::row::{for_vectors, read, write};
use crate::simd::{RealTask, RealVector};
use std::ops::Range;

/// Some rows of windows, numbered through the batch.
pub(super) struct Lanes<'a, T, const MAX: bool> {
    pub(super) pool: &'a Pool<T>,
    pub(super) y: *mut T,
    pub(super) counts: &'a [T],
    pub(super) lines: Range<usize>,
}

impl<T: Real, const MAX: bool> RealTask<T> for Lanes<'_, T, MAX> {
    type Out = ();

    #[inline(always)]
    fn run<V: RealVector<Elem = T>>(self) {
        let (p, rows, cols) = (self.pool, self.pool.rows, self.pool.cols);
        let rest = if MAX { T::LOWEST } else { T::ZERO };
        let join = |a: V, b: V| if MAX { a.max(b) } else { a.add(b) };
        let [n, _, row, col] = p.x_strides;
        let [yn, _, y_row, y_col] = p.y_strides;
        for line in self.lines {
            let (image, i) = ((line / rows.output) as isize, line % rows.output);
            let taps = rows.valid(i, 0);
            let first = i * rows.stride;
            let at = |a: usize| (first + a * rows.dilation - rows.padding) as isize * row;
            let x = p.x.wrapping_offset(image * n);
            let y = self.y.wrapping_offset(image * yn + i as isize * y_row);
            for j in 0..cols.output {
                let across = cols.valid(j, 0);
                let outside = across.len() < cols.size;
                let to = y.wrapping_offset(j as isize * y_col);
                for_vectors(
                    p.channels,
                    #[inline(always)]
                    |c, k| {
                        // What lies outside counts as nothing.
                        let mut all = V::splat(rest);
                        for b in across.clone() {
                            let from =
                                (j * cols.stride + b * cols.dilation - cols.padding) as isize;
                            let from = x.wrapping_offset(from * col);
                            let mut v = V::splat(rest);
                            for a in taps.clone() {
                                // SAFETY: valid rows and columns lie inside the images,
                                // which the views vouch for.
                                v = join(v, unsafe { read(from.offset(at(a)), c, k, rest) });
                            }
                            all = if b == across.start && !outside { v } else { join(all, v) };
                        }
                        if !MAX {
                            all = all.div(V::splat(count_of(self.counts, rows.output, i, j)));
                        }
                        // SAFETY: the results' place, which is this job's.
                        unsafe { write(all, to, c, k) };
                    },
                );
            }
        }
    }
}
