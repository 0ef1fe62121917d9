//! Where along an axis the largest or smallest element is.

use super::{BLOCK, GRAIN, Join, Max, Min, Plan, Steps};
use crate::par;
use crate::simd::row::{join_row, read};
use crate::simd::{self, Number, Task, Vector};
use crate::view::{Dst, Src};
use std::marker::PhantomData;
use std::ops::Range;
crate::instances::instances!(ArgKernels for f32, f64, i64, i32, u8 => {
    fn argmax_kernel(x: Src<Self>, axis: usize, out: Dst<i64>) = argmax_of;
    fn argmin_kernel(x: Src<Self>, axis: usize, out: Dst<i64>) = argmin_of;
});

/// `out = index of the largest element of x` along `axis`: the first of equals; a
/// NaN counts as the largest.
///
/// # Panics
/// If the axis has no elements, or `out` has not the shape of `x` without it.
pub fn argmax<T: Number>(x: Src<T>, axis: usize, out: Dst<i64>) {
    T::argmax_kernel(x, axis, out)
}

fn argmax_of<T: Number>(x: Src<T>, axis: usize, out: Dst<i64>) {
    arg::<T, Max>(x, axis, out);
}

/// `out = index of the smallest element of x` along `axis`: the first of equals; a
/// NaN counts as the smallest.
///
/// # Panics
/// As [`argmax`].
pub fn argmin<T: Number>(x: Src<T>, axis: usize, out: Dst<i64>) {
    T::argmin_kernel(x, axis, out)
}

fn argmin_of<T: Number>(x: Src<T>, axis: usize, out: Dst<i64>) {
    arg::<T, Min>(x, axis, out);
}

trait Extreme: Join {
    /// Whether `v` stands before `best`, were `best` found first.
    fn beats<T: Number>(v: T, best: T) -> bool;
}

impl Extreme for Max {
    #[inline(always)]
    fn beats<T: Number>(v: T, best: T) -> bool {
        best.less(v) | (v.is_nan() & !best.is_nan())
    }
}

impl Extreme for Min {
    #[inline(always)]
    fn beats<T: Number>(v: T, best: T) -> bool {
        v.less(best) | (v.is_nan() & !best.is_nan())
    }
}

/// The best of `range` of a row and where it is.
struct InRow<T, J> {
    x: *const T,
    step: isize,
    range: Range<usize>,
    join: PhantomData<J>,
}

impl<T: Number, J: Extreme> Task<T> for InRow<T, J> {
    type Out = (T, usize);
    #[inline(always)]
    fn run<V: Vector<Elem = T>>(self) -> (T, usize) {
        let mut spare = Vec::new();
        // Blocks are compared by their best; only the winner is searched.
        let mut best = None;
        let mut at = self.range.start;
        while at < self.range.end {
            let n = BLOCK.min(self.range.end - at);
            let p = self.block(at, n, &mut spare);
            let [v] = join_row::<V, 1>(
                n,
                J::identity(),
                J::many,
                #[inline(always)]
                |i, k| {
                    // SAFETY: `i..i + k` lies within the block.
                    [unsafe { read(p, i, k, J::identity()) }]
                },
            );
            if best.is_none_or(|(b, _, _)| J::beats(v, b)) {
                best = Some((v, at, n));
            }
            at += n;
        }
        let (v, at, n) = best.expect("there is an element");
        let p = self.block(at, n, &mut spare);
        // SAFETY: the block holds `n` elements.
        let block = unsafe { std::slice::from_raw_parts(p, n) };
        let is_it = |&e: &T| (e == v) | (e.is_nan() & v.is_nan());
        // Sixty-four at a time without a branch, then the one among them.
        let skip = block
            .chunks(64)
            .position(|c| c.iter().fold(false, |found, e| found | is_it(e)))
            .unwrap_or(0);
        let within = block[skip * 64..].iter().position(is_it);
        (v, at + skip * 64 + within.unwrap_or(0))
    }
}

impl<T: Number, J> InRow<T, J> {
    #[inline(always)]
    fn block(&self, at: usize, n: usize, spare: &mut Vec<T>) -> *const T {
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

/// The best of each column of a strip.
struct InColumns<'a, T, J> {
    x: *const T,
    /// Distance between rows.
    step: isize,
    rows: usize,
    best: &'a mut [T],
    index: &'a mut [i64],
    join: PhantomData<J>,
}

impl<T: Number, J: Extreme> Task<T> for InColumns<'_, T, J> {
    type Out = ();
    #[inline(always)]
    fn run<V: Vector<Elem = T>>(self) {
        let width = self.best.len();
        for r in 0..self.rows {
            // SAFETY: a row of the strip, whose columns lie next to each other.
            let row =
                unsafe { std::slice::from_raw_parts(self.x.offset(r as isize * self.step), width) };
            if r == 0 {
                self.best.copy_from_slice(row);
                self.index.fill(0);
                continue;
            }
            for ((&v, b), i) in row.iter().zip(&mut *self.best).zip(&mut *self.index) {
                let better = J::beats(v, *b);
                *b = if better { v } else { *b };
                *i = if better { r as i64 } else { *i };
            }
        }
    }
}

/// Columns taken together.
const STRIP: usize = 512;

fn arg<T: Number, J: Extreme>(x: Src<T>, axis: usize, out: Dst<i64>) {
    let n = x.shape[axis];
    let step = x.strides[axis];
    let marks: smallvec::SmallVec<[bool; 6]> = (0..x.shape.len()).map(|d| d == axis).collect();
    let plan = Plan::new(x.shape, x.strides, &marks, out.shape, out.strides);
    let outputs = plan.outputs();
    if outputs == 0 {
        return;
    }
    assert!(n > 0, "an axis without elements has no largest or smallest");
    // The plan may have turned the reduced axis around; its order matters here.
    let turned = if n > 1 && step < 0 { (n - 1) as isize * step } else { 0 };
    // SAFETY: an offset of the plan lies within the view.
    let row_at = |offset: isize| unsafe { x.ptr().offset(plan.x - turned + offset) };
    // SAFETY: as above.
    let put = |offset: isize, i: usize| unsafe {
        *out.ptr().offset(plan.out + offset) = i as i64;
    };
    match plan.kept.split_last() {
        Some((columns, outer)) if columns.x == 1 && step.unsigned_abs() != 1 => {
            let strips = columns.n.div_ceil(STRIP);
            par::for_range(outputs / columns.n * strips, GRAIN.div_ceil(n * STRIP), |r| {
                let (mut best, mut index) = ([T::ZERO; STRIP], [0; STRIP]);
                let mut steps = Steps::new(outer, r.start / strips);
                let mut at = (0, 0);
                for t in r.clone() {
                    if t == r.start || t.is_multiple_of(strips) {
                        at = steps.next();
                    }
                    let first = t % strips * STRIP;
                    let width = STRIP.min(columns.n - first);
                    simd::run(InColumns {
                        x: row_at(at.0 + first as isize),
                        step,
                        rows: n,
                        best: &mut best[..width],
                        index: &mut index[..width],
                        join: PhantomData::<J>,
                    });
                    for (c, &i) in index[..width].iter().enumerate() {
                        put(at.1 + (first + c) as isize * columns.out, i as usize);
                    }
                }
            });
        }
        _ if outputs == 1 => {
            let parts = par::map_blocks(n, GRAIN, true, |range| {
                Some(simd::run(InRow { x: row_at(0), step, range, join: PhantomData::<J> }))
            });
            let best = parts.into_iter().flatten();
            let best = best.reduce(|a, b| if J::beats(b.0, a.0) { b } else { a });
            put(0, best.expect("there is an element").1);
        }
        _ => par::for_range(outputs, GRAIN.div_ceil(n), |r| {
            let mut steps = Steps::new(&plan.kept, r.start);
            for _ in r {
                let (ox, oo) = steps.next();
                let row = InRow { x: row_at(ox), step, range: 0..n, join: PhantomData::<J> };
                put(oo, simd::run(row).1);
            }
        }),
    }
}
