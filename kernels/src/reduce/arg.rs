//! Where along an axis the largest or smallest element is.
//!
//! The smallest is the largest of the numbers turned around. One driver serves all
//! types; single-precision numbers have a kernel with vectors.

use super::{BLOCK, GRAIN};
use crate::index::for_linear;
use crate::lines::without;
use crate::par;
use crate::simd::row::{join_row, read};
use crate::simd::{self, Number, Task, Vector, vectorize};
use crate::sort::Sortable;
use crate::strided::Walk;
use crate::view::{Dst, Raw, Src, numel};
use std::ops::Range;

/// `out = index of the largest element of x` along `axis`: the first of equals; a
/// NaN counts as the largest.
///
/// # Panics
/// If the axis has no elements, or `out` has not the shape of `x` without it.
pub fn argmax<T: Number>(x: Src<T>, axis: usize, out: Dst<i64>) {
    arg(T::finding(false), x.raw(), axis, out);
}

/// `out = index of the smallest element of x` along `axis`: the first of equals; a
/// NaN counts as the smallest.
///
/// # Panics
/// As [`argmax`].
pub fn argmin<T: Number>(x: Src<T>, axis: usize, out: Dst<i64>) {
    arg(T::finding(true), x.raw(), axis, out);
}

/// How to find the best element of a type.
#[doc(hidden)]
#[derive(Clone, Copy)]
pub struct Finding {
    /// Whether the smallest is the best.
    smallest: bool,
    /// The best of a range of a row whose elements are so far apart: a number in its
    /// order, and its place.
    ///
    /// Unsafe: the elements are there and of the type.
    row: unsafe fn(*const u8, isize, Range<usize>, bool) -> (u64, usize),
    /// The place of the best of each column, whose elements are so far apart and so
    /// many.
    ///
    /// Unsafe: as above, the columns lying next to each other.
    columns: unsafe fn(*const u8, isize, usize, bool, &mut Strip, &mut [i64]),
}

/// The best elements of columns that are taken together.
type Strip = [u64; STRIP];
const STRIP: usize = 512;

/// What is known of how to find the best by type.
#[doc(hidden)]
pub trait ArgKernels: Sized {
    #[allow(missing_docs)]
    fn finding(smallest: bool) -> Finding;
}

impl ArgKernels for f32 {
    #[inline(never)]
    fn finding(smallest: bool) -> Finding {
        Finding { smallest, row: in_row_f32, columns: in_columns_f32 }
    }
}

/// A number that can be turned around.
trait Turn: Sortable + PartialOrd {
    /// A number in the opposite order; NaN remains NaN.
    fn turned(self) -> Self;

    #[inline(always)]
    fn turned_if(self, smallest: bool) -> Self {
        if smallest { self.turned() } else { self }
    }
}

macro_rules! turn {
    ($($t:ty = $turned:expr),*) => {$(
        impl Turn for $t {
            #[inline(always)]
            fn turned(self) -> $t {
                $turned(self)
            }
        }
    )*};
}
turn!(f32 = |v: f32| -v, f64 = |v: f64| -v, i64 = |v: i64| !v, i32 = |v: i32| !v, u8 = |v: u8| !v);

macro_rules! plain {
    ($($t:ty),*) => {$(
        impl ArgKernels for $t {
            #[inline(never)]
            fn finding(smallest: bool) -> Finding {
                Finding { smallest, row: in_row::<$t>, columns: in_columns::<$t> }
            }
        }
    )*};
}
plain!(f64, i64, i32, u8);

/// # Safety
/// See [`Finding`].
unsafe fn in_row<T: Turn>(
    x: *const u8,
    step: isize,
    range: Range<usize>,
    smallest: bool,
) -> (u64, usize) {
    let x = x.cast::<T>();
    let (mut best, mut place) = (T::LOWEST, range.start);
    for i in range {
        // SAFETY: as the caller vouches.
        let v = unsafe { *x.offset(i as isize * step) }.turned_if(smallest);
        // No NaN is.
        if v <= best {
            continue;
        }
        (best, place) = (v, i);
        if v.is_nan() {
            break;
        }
    }
    (best.key(), place)
}

/// # Safety
/// See [`Finding`].
#[inline(always)]
unsafe fn in_columns<T: Turn>(
    x: *const u8,
    step: isize,
    rows: usize,
    smallest: bool,
    strip: &mut Strip,
    index: &mut [i64],
) {
    const { assert!(size_of::<T>() <= size_of::<u64>()) };
    let (x, width) = (x.cast::<T>(), index.len());
    assert!(width <= STRIP);
    // SAFETY: the strip has room for as many elements, all of whose bits are valid.
    let best = unsafe { std::slice::from_raw_parts_mut(strip.as_mut_ptr().cast::<T>(), width) };
    best.fill(T::LOWEST);
    index.fill(0);
    for r in 0..rows {
        // SAFETY: a row of columns that lie next to each other.
        let row = unsafe { std::slice::from_raw_parts(x.offset(r as isize * step), width) };
        for ((&v, b), i) in row.iter().zip(&mut *best).zip(&mut *index) {
            let v = v.turned_if(smallest);
            let better = b.less(v) | (v.is_nan() & !b.is_nan());
            *b = if better { v } else { *b };
            *i = if better { r as i64 } else { *i };
        }
    }
}

/// # Safety
/// See [`Finding`].
unsafe fn in_columns_f32(
    x: *const u8,
    step: isize,
    rows: usize,
    smallest: bool,
    strip: &mut Strip,
    index: &mut [i64],
) {
    vectorize(
        #[inline(always)]
        move || {
            // SAFETY: as the caller vouches.
            unsafe { in_columns::<f32>(x, step, rows, smallest, strip, index) }
        },
    );
}

/// # Safety
/// See [`Finding`].
unsafe fn in_row_f32(
    x: *const u8,
    step: isize,
    range: Range<usize>,
    smallest: bool,
) -> (u64, usize) {
    let x = x.cast::<f32>();
    let (v, place) = if smallest {
        simd::run(InRow::<true> { x, step, range })
    } else {
        simd::run(InRow::<false> { x, step, range })
    };
    (v.turned_if(smallest).key(), place)
}

/// The best of `range` of a row and where it is.
struct InRow<const SMALLEST: bool> {
    x: *const f32,
    step: isize,
    range: Range<usize>,
}

impl<const SMALLEST: bool> Task<f32> for InRow<SMALLEST> {
    type Out = (f32, usize);
    #[inline(always)]
    fn run<V: Vector<Elem = f32>>(self) -> (f32, usize) {
        let mut spare = Vec::new();
        let worst = if SMALLEST { f32::HIGHEST } else { f32::LOWEST };
        // Blocks are compared by their best; only the winner is searched.
        let mut best = None;
        let mut at = self.range.start;
        while at < self.range.end {
            let n = BLOCK.min(self.range.end - at);
            let p = self.block(at, n, &mut spare);
            let [v] = join_row::<V, 1>(
                n,
                worst,
                #[inline(always)]
                |a: V, b: V| if SMALLEST { a.min(b) } else { a.max(b) },
                #[inline(always)]
                |i, k| {
                    // SAFETY: `i..i + k` lies within the block.
                    [unsafe { read(p, i, k, worst) }]
                },
            );
            let beats =
                |b: f32| (if SMALLEST { v < b } else { b < v }) | (v.is_nan() & !b.is_nan());
            if best.is_none_or(|(b, _, _)| beats(b)) {
                best = Some((v, at, n));
            }
            at += n;
        }
        let (v, at, n) = best.expect("there is an element");
        let p = self.block(at, n, &mut spare);
        // SAFETY: the block holds `n` elements.
        let block = unsafe { std::slice::from_raw_parts(p, n) };
        let is_it = |&e: &f32| (e == v) | (e.is_nan() & v.is_nan());
        // Sixty-four at a time without a branch, then the one among them.
        let skip = block
            .chunks(64)
            .position(|c| c.iter().fold(false, |found, e| found | is_it(e)))
            .unwrap_or(0);
        let within = block[skip * 64..].iter().position(is_it);
        (v, at + skip * 64 + within.unwrap_or(0))
    }
}

impl<const SMALLEST: bool> InRow<SMALLEST> {
    #[inline(always)]
    fn block(&self, at: usize, n: usize, spare: &mut Vec<f32>) -> *const f32 {
        // SAFETY: elements of the row, which the caller found within its view.
        let element = |i: usize| unsafe { self.x.offset(i as isize * self.step) };
        if self.step == 1 {
            return element(at);
        }
        spare.clear();
        // SAFETY: as above.
        spare.extend((at..at + n).map(|i| unsafe { *element(i) }));
        spare.as_ptr()
    }
}

fn arg(by: Finding, x: Raw, axis: usize, out: Dst<i64>) {
    let (n, step) = (x.shape[axis], x.strides[axis]);
    let shape = without(x.shape, axis);
    assert_eq!(shape[..], *out.shape, "the axis is reduced");
    let outputs = numel(out.shape);
    if outputs == 0 {
        return;
    }
    assert!(n > 0, "an axis without elements has no largest or smallest");
    let walk = Walk::new(&shape, [&without(x.strides, axis), out.strides]);
    let (len, [sx, so]) = (walk.row_len(), walk.row_strides());
    // SAFETY: offsets of the walk lie within the views.
    let line_at = |offset: isize| unsafe { x.ptr().cast_const().offset(offset * x.size as isize) };
    // SAFETY: as above.
    let put = |offset: isize, i: i64| unsafe { *out.ptr().offset(offset) = i };
    // SAFETY: as above; a row has `n` elements.
    let in_row = |at: isize, range| unsafe { (by.row)(line_at(at), step, range, by.smallest) };
    if outputs == 1 {
        let parts = par::map_blocks(n, GRAIN, true, |range| Some(in_row(0, range)));
        let best = parts.into_iter().flatten();
        let best = best.reduce(|a, b| if b.0 > a.0 { b } else { a });
        put(0, best.expect("there is an element").1 as i64);
    } else if sx == 1 && step.unsigned_abs() != 1 {
        let strips = len.div_ceil(STRIP);
        par::for_range(walk.rows() * strips, GRAIN.div_ceil(n * STRIP), |range| {
            let (mut best, mut index) = ([0; STRIP], [0; STRIP]);
            for t in range {
                let first = t % strips * STRIP;
                let index = &mut index[..STRIP.min(len - first)];
                walk.for_rows(t / strips..t / strips + 1, |[ax, ao]| {
                    let at = line_at(ax + first as isize);
                    // SAFETY: as above; the columns have `n` elements each.
                    unsafe { (by.columns)(at, step, n, by.smallest, &mut best, index) };
                    for (c, &i) in index.iter().enumerate() {
                        put(ao + (first + c) as isize * so, i);
                    }
                });
            }
        });
    } else {
        par::for_range(outputs, GRAIN.div_ceil(n), |range| {
            for_linear(&walk, range, |_, [ax, ao], columns| {
                for c in columns {
                    let c = c as isize;
                    put(ao + c * so, in_row(ax + c * sx, 0..n).1 as i64);
                }
            });
        });
    }
}
