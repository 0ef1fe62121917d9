//! Reductions whose nearest elements join one another.

use super::{Axis, BLOCK, Cell, GRAIN, Join, Loops, Plan, SHARED, Steps};
use crate::isa::Isa;
use crate::par;
use crate::simd::row::{Lanes64, Pairwise, join_row, read};
use crate::simd::{self, Number, Task, Vector};
use crate::view::Ends;
use std::marker::PhantomData;
use std::ops::Range;

/// How the elements of one output are cut into blocks: rows shorter than a block
/// are taken several at a time, longer ones in pieces.
#[derive(Clone, Copy)]
pub(super) struct Cut<'a> {
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

/// Outputs to compute from all their blocks, or from some.
pub(super) struct Rows<'a> {
    x: *const u8,
    out: *mut u8,
    cut: Cut<'a>,
    blocks: Range<usize>,
    kept: &'a [Axis],
    outputs: Range<usize>,
}

/// Computes outputs with numbers of type `T`.
///
/// # Safety
/// All elements that it speaks of are there to read, its outputs to write.
pub(super) unsafe fn run<T: Number, J: Join>(r: &Rows<'_>) {
    simd::run(Run::<T, J>(r, PhantomData));
}

struct Run<'a, T, J>(&'a Rows<'a>, PhantomData<(T, J)>);

impl<T: Number, J: Join> Run<'_, T, J> {
    /// Joins the blocks of the output whose first element is `x`.
    ///
    /// # Safety
    /// As [`run`].
    #[inline(always)]
    unsafe fn total<V: Vector<Elem = T>>(&self, x: *const T, spare: &mut Vec<T>) -> T {
        let Cut { row, rows, rows_per_block, pieces_per_row, .. } = self.0.cut;
        let mut total = Pairwise::new();
        let first = self.0.blocks.start / pieces_per_row * rows_per_block;
        let mut steps = Steps::new(self.0.cut.outer, first);
        let mut row_at = steps.next().0;
        for b in self.0.blocks.clone() {
            let mut lanes = Lanes64::<V, 1>::new(J::identity());
            let piece = b % pieces_per_row;
            let (start, len) = (piece * BLOCK, BLOCK.min(row.n - piece * BLOCK));
            let last = piece + 1 == pieces_per_row;
            let together = rows_per_block.min(rows - b / pieces_per_row * rows_per_block);
            for _ in 0..together {
                // SAFETY: offsets of the plan lie within the view.
                let mut p = unsafe { x.offset(row_at + start as isize * row.x) };
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

impl<T: Number, J: Join> Task<T> for Run<'_, T, J> {
    const WIDEST: Isa = J::WIDEST;
    type Out = ();
    #[inline(always)]
    fn run<V: Vector<Elem = T>>(self) {
        let Rows { x, out, kept, ref outputs, .. } = *self.0;
        let (x, out) = (x.cast::<T>(), out.cast::<T>());
        let mut steps = Steps::new(kept, outputs.start);
        let Cut { row, rows, .. } = self.0.cut;
        // One dense block an output: nothing to set up.
        let dense = row.x == 1 && rows == 1 && row.n <= BLOCK;
        let mut spare = Vec::new();
        for _ in outputs.clone() {
            let (ox, oo) = steps.next();
            // SAFETY: offsets of the plan lie within both views.
            unsafe {
                let x = x.offset(ox);
                *out.offset(oo) = if dense {
                    let [v] = join_row::<V, 1>(
                        row.n,
                        J::identity(),
                        J::many,
                        #[inline(always)]
                        |i, k| [read(x, i, k, J::identity())],
                    );
                    v
                } else {
                    self.total::<V>(x, &mut spare)
                };
            }
        }
    }
}

/// Joins parts of one output, each in a cell of its own.
///
/// # Safety
/// The cells hold numbers of type `T`, for one of which there is room at `out`.
pub(super) unsafe fn join_parts<T: Number, J: Join>(parts: &[Cell], out: *mut u8) {
    let mut total = Pairwise::new();
    for part in parts {
        // SAFETY: the caller's contract; a cell is large and aligned enough.
        total.push(unsafe { std::ptr::from_ref(part).cast::<T>().read() }, J::one);
    }
    // SAFETY: the caller's contract.
    unsafe { *out.cast::<T>() = total.finish(J::one).unwrap_or(J::identity()) };
}

pub(super) fn reduce(plan: &Plan, ends: Ends, loops: &Loops) {
    let cut = Cut::new(&plan.reduced);
    let (outputs, depth, all) = (plan.outputs(), plan.depth(), cut.blocks());
    if all <= SHARED || outputs >= SHARED || outputs * depth < GRAIN {
        par::for_range(outputs, GRAIN.div_ceil(depth), |outputs| {
            let Ends { x, out } = { ends };
            // SAFETY: the plan stays within the views.
            unsafe {
                (loops.rows)(&Rows { x, out, cut, blocks: 0..all, kept: &plan.kept, outputs });
            }
        });
        return;
    }
    // Few outputs of many blocks: threads share the blocks of each.
    let size = loops.size as isize;
    let mut steps = Steps::new(&plan.kept, 0);
    for _ in 0..outputs {
        let (ox, oo) = steps.next();
        let parts = par::map_blocks(all, SHARED, true, |blocks| {
            let mut part: Cell = 0;
            let out = std::ptr::from_mut(&mut part).cast();
            // SAFETY: an offset of the plan; a cell has room for a number.
            unsafe {
                let x = { ends }.x.offset(ox * size);
                (loops.rows)(&Rows { x, out, cut, blocks, kept: &[], outputs: 0..1 });
            }
            part
        });
        // SAFETY: an output's offset.
        unsafe { (loops.parts)(&parts, ends.out.offset(oo * size)) };
    }
}
