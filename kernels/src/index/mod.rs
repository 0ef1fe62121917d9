//! Reading and writing by index.
//!
//! Indices are checked before anything is written: a kernel here either does all
//! of its work or none, and reports the first index that is out of range.
//! Where several elements go to one place they do so in the order in which they
//! stand along the axis, whatever the number of threads.

mod gather;
mod mask;
mod scatter;

pub use gather::{gather, index_select};
pub use mask::{count_nonzero, masked_scatter, masked_select, nonzero};
pub use scatter::{
    Combine, CombineKernels, embedding_grad, index_combine, index_copy, one_hot, scatter,
    scatter_combine,
};

use crate::par;
use crate::simd::vectorize;
use crate::strided::Walk;
use crate::view::{Dst, Src, numel};
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};

/// Elements below which work is not shared, at a nanosecond each.
const GRAIN: usize = par::SHARE_NS;

/// An index that is out of range.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IndexError {
    /// Where it stands among the indices, in row-major order.
    pub position: usize,
    /// The index.
    pub index: i64,
    /// The size of the axis it should lie in.
    pub size: usize,
}

impl std::fmt::Display for IndexError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let IndexError { position, index, size } = self;
        write!(f, "index {index} at position {position} is out of range for size {size}")
    }
}

impl std::error::Error for IndexError {}

/// What a negative index means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Negative {
    /// It counts from the end: -1 is the last element.
    FromEnd,
    /// It is out of range.
    Refused,
}

/// Whether all indices lie in an axis of `size` elements; if not, the first that
/// does not.
pub fn check(index: Src<i64>, size: usize, negative: Negative) -> Result<(), IndexError> {
    if numel(index.shape) == 0 {
        return Ok(());
    }
    let end = i64::try_from(size).unwrap_or(i64::MAX);
    let start = if negative == Negative::FromEnd { -end } else { 0 };
    let is_bad = |i: i64| (i < start) | (i >= end);
    let walk = Walk::new(index.shape, [index.strides]);
    let (len, [step]) = (walk.row_len(), walk.row_strides());
    let any_bad = |at: isize, r: Range<usize>| {
        vectorize(
            #[inline(always)]
            move || {
                let mut bad = false;
                for i in r {
                    // SAFETY: the walk stays within the view.
                    bad |= is_bad(unsafe { *index.ptr().offset(at + i as isize * step) });
                }
                bad
            },
        )
    };
    let bad = AtomicBool::new(false);
    par::for_range(walk.rows() * len, GRAIN * 10, |all| {
        for_linear(&walk, all, |_, [at], r| {
            if any_bad(at, r) {
                bad.store(true, Ordering::Relaxed);
            }
        });
    });
    if !bad.into_inner() {
        return Ok(());
    }
    let mut first = None;
    for_linear(&walk, 0..walk.rows() * len, |position, [at], r| {
        for i in r.clone() {
            // SAFETY: as above.
            let index = unsafe { *index.ptr().offset(at + i as isize * step) };
            if first.is_none() && is_bad(index) {
                first = Some(IndexError { position: position + i - r.start, index, size });
            }
        }
    });
    first.map_or(Ok(()), Err)
}

/// `out = (…(i₀ s₁ + i₁) s₂ + …)`: the position, in row-major order, of elements
/// given by one index for each axis, `sizes` being the sizes of the axes.
///
/// # Errors
/// The number of the axis with the first index that is out of range, and that index.
///
/// # Panics
/// If an index does not have the output's shape.
pub fn flatten_index(
    indices: &[Src<i64>],
    sizes: &[usize],
    negative: Negative,
    out: Dst<i64>,
) -> Result<(), (usize, IndexError)> {
    assert_eq!(indices.len(), sizes.len(), "one size for each index");
    for (axis, (index, &size)) in indices.iter().zip(sizes).enumerate() {
        assert_eq!(index.shape, out.shape, "indices have the output's shape");
        check(*index, size, negative).map_err(|e| (axis, e))?;
    }
    crate::copy::fill(out, 0);
    for (index, &size) in indices.iter().zip(sizes) {
        crate::pointwise::map2_with(10, out.as_src(), *index, out, |flat: i64, i| {
            flat * size as i64 + resolve(i, size) as i64
        });
    }
    Ok(())
}

/// The element that a checked index means.
#[inline(always)]
fn resolve(index: i64, size: usize) -> isize {
    index as isize + if index < 0 { size as isize } else { 0 }
}

/// Calls `f(position, row's offsets, columns)` for the pieces of rows that make up
/// a range of positions in row-major order.
pub(crate) fn for_linear<const K: usize>(
    walk: &Walk<K>,
    range: Range<usize>,
    mut f: impl FnMut(usize, [isize; K], Range<usize>),
) {
    if range.is_empty() {
        return;
    }
    let len = walk.row_len();
    let mut at = range.start;
    walk.for_rows(range.start / len..range.end.div_ceil(len), |offsets| {
        let first = at % len;
        let n = (len - first).min(range.end - at);
        f(at, offsets, first..first + n);
        at += n;
    });
}

#[cfg(test)]
mod tests;
