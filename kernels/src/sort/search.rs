//! Where numbers belong in sorted lines.

use super::Sortable;
use crate::par;
use crate::strided::Walk;
use crate::view::{Dst, Src};

/// For each of the `values: [..., m]` the first place in the corresponding line of
/// `sorted: [..., n]` at which it could be inserted, or the last one if `right`; a NaN
/// belongs at the end. `out` has the shape of `values`.
///
/// # Panics
/// If shapes do not match.
pub fn searchsorted<T: Sortable>(sorted: Src<T>, values: Src<T>, right: bool, out: Dst<i64>) {
    assert_eq!(values.shape, out.shape, "one result for each value");
    let (Some((&n, lines)), Some((&m, value_lines))) =
        (sorted.shape.split_last(), values.shape.split_last())
    else {
        panic!("lines are the last axis")
    };
    assert_eq!(lines, value_lines, "as many lines of values as sorted lines");
    if n == 0 || m == 0 {
        return crate::copy::fill(out, 0);
    }
    let d = lines.len();
    let walk = Walk::new(lines, [&sorted.strides[..d], &values.strides[..d], &out.strides[..d]]);
    let (per_row, lane) = (walk.row_len(), walk.row_strides());
    let (ss, sv, so) = (sorted.strides[d], values.strides[d], out.strides[d]);
    let cost = 20 * (n.max(1).ilog2() as usize + 1);
    par::for_range(walk.rows() * per_row * m, (par::SHARE_NS * 10).div_ceil(cost), |range| {
        for (line, r) in pieces(range, m) {
            walk.for_rows(line / per_row..line / per_row + 1, |at| {
                let l = (line % per_row) as isize;
                let [at_sorted, at_values, at_out] = std::array::from_fn(|k| at[k] + l * lane[k]);
                for i in r.clone() {
                    let i = i as isize;
                    // SAFETY: the walk stays within the views, `i` below their extent,
                    // and `before` asks only for places below `n`.
                    unsafe {
                        let line = sorted.ptr().offset(at_sorted);
                        let v = *values.ptr().offset(at_values + i * sv);
                        let at = |i: usize| *line.offset(i as isize * ss);
                        let place = match right {
                            // Not above and not below, spelt so that NaN goes last.
                            true => before(n, |i| !v.less(at(i))),
                            false => before(n, |i| !(v.less(at(i)) || at(i) == v)),
                        };
                        *out.ptr().offset(at_out + i * so) = place as i64;
                    }
                }
            });
        }
    });
}

/// The rows of `m` that make up a range, and the columns of each.
fn pieces(
    range: std::ops::Range<usize>,
    m: usize,
) -> impl Iterator<Item = (usize, std::ops::Range<usize>)> {
    let (first, last) = (range.start / m, range.end.div_ceil(m));
    (first..last).map(move |row| {
        let start = range.start.max(row * m) - row * m;
        (row, start..(range.end - row * m).min(m))
    })
}

/// How many of `0..n` come before, for a property that the first ones have.
#[inline(always)]
fn before(n: usize, is_before: impl Fn(usize) -> bool) -> usize {
    let (mut start, mut len) = (0, n);
    while len > 0 {
        let half = len / 2;
        if is_before(start + half) {
            start += half + 1;
            len -= half + 1;
        } else {
            len = half;
        }
    }
    start
}
