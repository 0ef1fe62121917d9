//! Selecting by mask.

use super::for_linear;
use crate::par;
use crate::strided::Walk;
use crate::view::{Dst, Element, Src, numel};
use std::ops::Range;

/// Elements that one thread counts, and later writes, at a time.
const BLOCK: usize = 1 << 16;
/// Elements of which the chosen ones are listed at a time.
const CHUNK: usize = 1024;

/// How many elements are not zero (NaN is not).
pub fn count_nonzero<T: Element>(x: Src<T>) -> usize {
    blocks(x).iter().sum()
}

/// The places of the elements that are not zero, in row-major order: a row of
/// `out: [count, axes of x]` for each, its index in every axis.
///
/// # Panics
/// If `out` has not that shape, `count` being [`count_nonzero`].
pub fn nonzero<T: Element>(x: Src<T>, out: Dst<i64>) {
    let rank = x.shape.len();
    assert_eq!(out.shape.get(1), Some(&rank), "one column for each axis");
    let (so, sa) = (out.strides[0], out.strides[1]);
    selected([x.strides], x, out.shape[0], |row, position, _| {
        let mut rest = position;
        for (d, &n) in x.shape.iter().enumerate().rev() {
            let at = row as isize * so + d as isize * sa;
            // SAFETY: `row` is less than the first extent, `d` than the second.
            unsafe { *out.ptr().offset(at) = (rest % n) as i64 };
            rest /= n;
        }
    });
}

/// `out: [count]` gets the elements of `x` where `mask` is not zero, in row-major
/// order.
///
/// # Panics
/// If `x` and `mask` differ in shape, or `out` does not have as many elements as
/// `mask` selects.
pub fn masked_select<T: Element>(x: Src<T>, mask: Src<u8>, out: Dst<T>) {
    assert_eq!(x.shape, mask.shape, "the mask has the shape of what it selects from");
    let &[n] = out.shape else { panic!("what is selected is a vector") };
    selected([mask.strides, x.strides], mask, n, |i, _, [_, at]| {
        // SAFETY: `i` is less than the vector's extent; the walk stays within `x`.
        unsafe { *out.ptr().offset(i as isize * out.strides[0]) = *x.ptr().offset(at) };
    });
}

/// The elements of `out` where `mask` is not zero get those of the vector `x`, in
/// row-major order.
///
/// # Panics
/// If `out` and `mask` differ in shape, or `x` has fewer elements than `mask` selects.
pub fn masked_scatter<T: Element>(out: Dst<T>, mask: Src<u8>, x: Src<T>) {
    assert_eq!(out.shape, mask.shape, "the mask has the shape of what it selects from");
    let &[n] = x.shape else { panic!("what is written is a vector") };
    let count = count_nonzero(mask);
    assert!(count <= n, "{n} elements are fewer than the {count} that are selected");
    selected([mask.strides, out.strides], mask, count, |i, _, [_, at]| {
        // SAFETY: `i` is less than the vector's extent; the walk stays within `out`.
        unsafe { *out.ptr().offset(at) = *x.ptr().offset(i as isize * x.strides[0]) };
    });
}

/// How many elements are not zero in each block of positions.
fn blocks<T: Element>(x: Src<T>) -> Vec<usize> {
    let walk = Walk::new(x.shape, [x.strides]);
    let [step] = walk.row_strides();
    par::map_blocks(numel(x.shape), BLOCK, true, |range| {
        let mut count = 0;
        for_linear(&walk, range, |_, [at], r| count += count_row(&x, at, step, r));
        count
    })
}

#[inline(always)]
fn count_row<T: Element>(x: &Src<T>, at: isize, step: isize, r: Range<usize>) -> usize {
    let x = x.ptr();
    crate::simd::vectorize(
        #[inline(always)]
        move || {
            let mut count = 0;
            if step == 1 {
                for i in r {
                    // SAFETY: the caller's walk stays within the view.
                    count += usize::from(unsafe { *x.offset(at + i as isize) } != T::ZERO);
                }
            } else {
                for i in r {
                    // SAFETY: as above.
                    let v = unsafe { *x.offset(at + i as isize * step) };
                    count += usize::from(v != T::ZERO);
                }
            }
            count
        },
    )
}

/// Calls `f(ordinal, position, offsets)` for each element that is not zero; the first
/// of the strides, and so of the offsets, are those of `x`.
fn selected<T: Element, const K: usize>(
    strides: [&[isize]; K],
    x: Src<T>,
    expected: usize,
    f: impl Fn(usize, usize, [isize; K]) + Sync,
) {
    let counts = blocks(x);
    let total: usize = counts.iter().sum();
    assert_eq!(total, expected, "as many places as elements that are selected");
    let mut next = 0;
    let first: Vec<usize> = counts.iter().map(|c| (next, next += c).0).collect();
    let walk = Walk::new(x.shape, strides);
    let step = walk.row_strides();
    par::map_blocks(numel(x.shape), BLOCK, true, |range| {
        let mut ordinal = first[range.start / BLOCK];
        for_linear(&walk, range, |position, at, r| {
            for start in r.clone().step_by(CHUNK) {
                let mut chosen = [0; CHUNK];
                let n = CHUNK.min(r.end - start);
                // Without a branch, which half of the time would be mispredicted.
                let mut count = 0;
                for i in 0..n {
                    // SAFETY: the walk stays within the view.
                    let v = unsafe { *x.ptr().offset(at[0] + (start + i) as isize * step[0]) };
                    chosen[count] = i;
                    count += usize::from(v != T::ZERO);
                }
                for &i in &chosen[..count] {
                    let i = start + i;
                    let here = std::array::from_fn(|k| at[k] + i as isize * step[k]);
                    f(ordinal, position + i - r.start, here);
                    ordinal += 1;
                }
            }
        });
    });
}
