//! Reductions whose nearest elements join one another.

use super::{Axis, BLOCK, GRAIN, Join, Plan, SHARED, Steps};
use crate::par;
use crate::simd::row::{Lanes64, Pairwise, join_row, read};
use crate::simd::{self, Number, Task, Vector};
use crate::view::{Dst, Src};
use std::marker::PhantomData;
use std::ops::Range;

/// How the elements of one output are cut into blocks: rows shorter than a block
/// are taken several at a time, longer ones in pieces.
#[derive(Clone, Copy)]
struct Cut<'a> {
    /// Axes of which the rows are the elements.
    outer: &'a [Axis],
    row: Axis,
    rows: usize,
    rows_per_block: usize,
    pieces_per_row: usize,
}

impl<'a> Cut<'a> {
    fn new(reduced: &'a [Axis]) -> Cut<'a> {
        let one = Axis { n: 1, x: 1, out: 0 };
        let (&row, outer) = reduced.split_last().unwrap_or((&one, &[]));
        Cut {
            outer,
            row,
            rows: super::count(outer),
            rows_per_block: (BLOCK / row.n).max(1),
            pieces_per_row: row.n.div_ceil(BLOCK),
        }
    }

    fn blocks(&self) -> usize {
        self.rows.div_ceil(self.rows_per_block) * self.pieces_per_row
    }
}

/// Joins `n` dense elements.
///
/// # Safety
/// They are there to read.
#[inline(always)]
unsafe fn one_block<V: Vector, J: Join>(x: *const V::Elem, n: usize) -> V::Elem {
    let [v] = join_row::<V, 1>(
        n,
        J::identity(),
        J::many,
        #[inline(always)]
        |i, k| {
            // SAFETY: `i..i + k` lies within the `n` elements.
            [unsafe { read(x, i, k, J::identity()) }]
        },
    );
    v
}

/// Joins the blocks in a range of one output, or all blocks of several outputs.
struct Blocks<'a, T, J> {
    x: *const T,
    cut: Cut<'a>,
    blocks: Range<usize>,
    join: PhantomData<J>,
}

impl<T: Number, J: Join> Blocks<'_, T, J> {
    /// # Safety
    /// `self.x` is the first element of an output that the plan was made for.
    #[inline(always)]
    unsafe fn total<V: Vector<Elem = T>>(&self, spare: &mut Vec<T>) -> T {
        let Cut { row, rows, rows_per_block, pieces_per_row, .. } = self.cut;
        let mut total = Pairwise::new();
        let first = self.blocks.start / pieces_per_row * rows_per_block;
        let mut steps = Steps::new(self.cut.outer, first);
        let mut row_at = steps.next().0;
        for b in self.blocks.clone() {
            let mut lanes = Lanes64::<V, 1>::new(J::identity());
            let piece = b % pieces_per_row;
            let (start, len) = (piece * BLOCK, BLOCK.min(row.n - piece * BLOCK));
            let last = piece + 1 == pieces_per_row;
            let together = rows_per_block.min(rows - b / pieces_per_row * rows_per_block);
            for _ in 0..together {
                // SAFETY: offsets of the plan lie within the view.
                let mut p = unsafe { self.x.offset(row_at + start as isize * row.x) };
                if row.x != 1 {
                    spare.clear();
                    // SAFETY: as above, for each of the `len` elements.
                    spare.extend((0..len).map(|i| unsafe { *p.offset(i as isize * row.x) }));
                    p = spare.as_ptr();
                }
                lanes.row(
                    len,
                    J::many,
                    #[inline(always)]
                    |i, k| {
                        // SAFETY: `i..i + k` lies within the row of `len`.
                        [unsafe { read::<V>(p, i, k, J::identity()) }]
                    },
                );
                if last {
                    row_at = steps.next().0;
                }
            }
            total.push(lanes.finish(J::many)[0], J::one);
        }
        total.finish(J::one).unwrap_or(J::identity())
    }
}

impl<T: Number, J: Join> Task<T> for Blocks<'_, T, J> {
    type Out = T;
    #[inline(always)]
    fn run<V: Vector<Elem = T>>(self) -> T {
        // SAFETY: as `reduce` set it up.
        unsafe { self.total::<V>(&mut Vec::new()) }
    }
}

/// Whole outputs.
struct Outputs<'a, T, J> {
    first: Blocks<'a, T, J>,
    out: *mut T,
    kept: &'a [Axis],
    outputs: Range<usize>,
}

impl<T: Number, J: Join> Task<T> for Outputs<'_, T, J> {
    type Out = ();
    #[inline(always)]
    fn run<V: Vector<Elem = T>>(mut self) {
        let x = self.first.x;
        let mut steps = Steps::new(self.kept, self.outputs.start);
        let Cut { row, rows, .. } = self.first.cut;
        if row.x == 1 && rows == 1 && row.n <= BLOCK {
            // One dense block an output: nothing to set up.
            for _ in self.outputs {
                let (ox, oo) = steps.next();
                // SAFETY: as below.
                unsafe { *self.out.offset(oo) = one_block::<V, J>(x.offset(ox), row.n) };
            }
            return;
        }
        let mut spare = Vec::new();
        for _ in self.outputs {
            let (ox, oo) = steps.next();
            // SAFETY: offsets of the plan lie within both views.
            unsafe {
                self.first.x = x.offset(ox);
                *self.out.offset(oo) = self.first.total::<V>(&mut spare);
            }
        }
    }
}

pub(super) fn reduce<T: Number, J: Join>(x: &Src<T>, plan: &Plan, out: &Dst<T>) {
    let cut = Cut::new(&plan.reduced);
    let (outputs, depth, all) = (plan.outputs(), plan.depth(), cut.blocks());
    let blocks = |offset: isize, blocks| {
        // SAFETY: an offset of the plan.
        let x = unsafe { x.ptr().offset(plan.x + offset) };
        Blocks { x, cut, blocks, join: PhantomData::<J> }
    };
    // SAFETY: the plan's offset of the first element lies within the view.
    let out_at = |offset: isize| unsafe { out.ptr().offset(plan.out + offset) };
    if all <= SHARED || outputs >= SHARED || outputs * depth < GRAIN {
        par::for_range(outputs, GRAIN.div_ceil(depth), |outputs| {
            let first = blocks(0, 0..all);
            simd::run(Outputs { first, out: out_at(0), kept: &plan.kept, outputs });
        });
        return;
    }
    // Few outputs of many blocks: threads share the blocks of each.
    let mut steps = Steps::new(&plan.kept, 0);
    for _ in 0..outputs {
        let (ox, oo) = steps.next();
        let parts = par::map_blocks(all, SHARED, true, |r| Some(simd::run(blocks(ox, r))));
        let mut total = Pairwise::new();
        parts.into_iter().flatten().for_each(|part| total.push(part, J::one));
        // SAFETY: an output's offset.
        unsafe { *out_at(oo) = total.finish(J::one).unwrap_or(J::identity()) };
    }
}
