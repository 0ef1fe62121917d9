//! Reductions whose nearest elements join one another.

use super::columns::Strip;
use super::{
    Apart, Axis, BLOCK, Cell, GRAIN, Join, Loops, Plan, SHARED, Steps, cells, copy_apart, count,
};
use crate::isa::Isa;
use crate::par;
use crate::simd::row::{Lanes64, Pairwise, read};
use crate::simd::{self, Number, Task, Vector};
use crate::view::Ends;
use smallvec::SmallVec;
use std::marker::PhantomData;
use std::ops::Range;

/// Rows that are named in one call.
const TOGETHER: usize = 64;

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
            rows: count(outer),
            rows_per_block: (BLOCK / row.n).max(1),
            pieces_per_row: row.n.div_ceil(BLOCK),
        }
    }

    fn blocks(&self) -> usize {
        self.rows.div_ceil(self.rows_per_block) * self.pieces_per_row
    }
}

/// Rows to join, for each of several outputs.
pub(super) struct Rows<'a> {
    /// The first output's rows; the others' lie `x_step` elements further on each.
    rows: &'a [*const u8],
    x_step: isize,
    /// Elements of a row, side by side.
    len: usize,
    outputs: usize,
    /// Where the outputs go, once all their rows are there; lanes wait until then.
    out: Option<Apart<*mut u8>>,
    lanes: &'a mut [Cell; 64],
    /// Whether the lanes are fresh.
    begin: bool,
}

/// Joins rows of numbers of type `T`.
///
/// # Safety
/// All elements that it speaks of are there to read, its outputs to write.
pub(super) unsafe fn run<T: Number, J: Join>(r: &mut Rows<'_>) {
    simd::run(Run::<T, J>(r, PhantomData));
}

struct Run<'a, 'b, T, J>(&'a mut Rows<'b>, PhantomData<(T, J)>);

impl<T: Number, J: Join> Task<T> for Run<'_, '_, T, J> {
    const WIDEST: Isa = J::WIDEST;
    type Out = ();
    #[inline(always)]
    fn run<V: Vector<Elem = T>>(self) {
        let Rows { rows, x_step, len, outputs, out, begin, .. } = *self.0;
        let waiting = self.0.lanes.as_mut_ptr().cast::<T>();
        for o in 0..outputs as isize {
            let mut lanes = Lanes64::<V, 1>::new(J::identity());
            if !begin {
                // SAFETY: there is room for 64 numbers of any type.
                lanes = unsafe { Lanes64::load(waiting) };
            }
            for row in rows {
                // SAFETY: the caller's contract.
                let p = unsafe { row.cast::<T>().offset(o * x_step) };
                lanes.row(
                    len,
                    J::many,
                    #[inline(always)]
                    |i, k| {
                        // SAFETY: `i..i + k` lies within the row of `len`.
                        [unsafe { read::<V>(p, i, k, J::identity()) }]
                    },
                );
            }
            // SAFETY: the caller's contract, and as above.
            unsafe {
                match out {
                    Some(out) => {
                        let [v] = lanes.finish(J::many);
                        *out.at.cast::<T>().offset(o * out.step) = v;
                    }
                    None => lanes.store(waiting),
                }
            }
        }
    }
}

/// The parts of one output, joined in pairs.
fn join(loops: &Loops, mut a: Cell, b: Cell) -> Cell {
    let acc = std::ptr::from_mut(&mut a).cast();
    let row = std::ptr::from_ref(&b).cast();
    // SAFETY: a cell has room for a number.
    unsafe { (loops.strip)(&Strip { acc, width: 1, rows: &[row], begin: false }) };
    a
}

/// One output from the blocks in a range.
struct Output<'a> {
    loops: &'a Loops,
    cut: Cut<'a>,
    lanes: [Cell; 64],
    /// Elements that lay apart.
    spare: Vec<Cell>,
}

impl<'a> Output<'a> {
    fn new(loops: &'a Loops, cut: Cut<'a>) -> Output<'a> {
        let spare = if cut.row.x == 1 { 0 } else { cut.row.n.min(BLOCK) };
        Output { loops, cut, lanes: [0; 64], spare: cells(spare * loops.size) }
    }

    /// # Safety
    /// The output whose first element is at `x` has these blocks.
    unsafe fn total(&mut self, x: *const u8, blocks: Range<usize>) -> Cell {
        let Cut { outer, rows_per_block, pieces_per_row, .. } = self.cut;
        let mut steps = Steps::new(outer, blocks.start / pieces_per_row * rows_per_block);
        let mut row_at = steps.next().0;
        let mut total = Pairwise::new();
        for b in blocks {
            // SAFETY: the caller's contract.
            let part = unsafe { self.block(x, b, &mut steps, &mut row_at) };
            total.push(part, |a, b| join(self.loops, a, b));
        }
        total.finish(|a, b| join(self.loops, a, b)).expect("a range of blocks is not empty")
    }

    /// # Safety
    /// As [`Output::total`]; `row_at` is where the block's first row is, `steps` gives
    /// the next one.
    unsafe fn block(
        &mut self,
        x: *const u8,
        b: usize,
        steps: &mut Steps<'_>,
        row_at: &mut isize,
    ) -> Cell {
        let Cut { row, rows, rows_per_block, pieces_per_row, .. } = self.cut;
        let size = self.loops.size;
        let piece = b % pieces_per_row;
        let (start, len) = (piece * BLOCK, BLOCK.min(row.n - piece * BLOCK));
        let all = rows_per_block.min(rows - b / pieces_per_row * rows_per_block);
        let mut part: Cell = 0;
        let at = std::ptr::from_mut(&mut part).cast();
        let mut list: SmallVec<[*const u8; TOGETHER]> = SmallVec::new();
        let mut done = 0;
        while done < all {
            list.clear();
            let together = if row.x == 1 { TOGETHER.min(all - done) } else { 1 };
            for _ in 0..together {
                let offset = (*row_at + start as isize * row.x) * size as isize;
                // SAFETY: offsets of the plan lie within the view.
                list.push(unsafe { x.offset(offset) });
                if piece + 1 == pieces_per_row {
                    *row_at = steps.next().0;
                }
            }
            if row.x != 1 {
                let to = self.spare.as_mut_ptr().cast();
                let from = Apart { at: list[0], step: row.x };
                // SAFETY: as above, for each of the `len` elements; there is room.
                unsafe { copy_apart(size, len, from, Apart { at: to, step: 1 }) };
                list[0] = to;
            }
            let begin = done == 0;
            done += together;
            // SAFETY: as above.
            unsafe {
                (self.loops.rows)(&mut Rows {
                    rows: &list,
                    x_step: 0,
                    len,
                    outputs: 1,
                    out: (done == all).then_some(Apart { at, step: 0 }),
                    lanes: &mut self.lanes,
                    begin,
                });
            }
        }
        part
    }
}

pub(super) fn reduce(plan: &Plan, ends: Ends, loops: &Loops) {
    let cut = Cut::new(&plan.reduced);
    let (outputs, depth, all) = (plan.outputs(), plan.depth(), cut.blocks());
    let size = loops.size as isize;
    if all <= SHARED || outputs >= SHARED || outputs * depth < GRAIN {
        par::for_range(outputs, GRAIN.div_ceil(depth), |outputs| {
            if cut.rows == 1 && cut.row.x == 1 && all == 1 {
                dense(plan, ends, loops, cut.row.n, outputs);
                return;
            }
            let mut output = Output::new(loops, cut);
            let mut steps = Steps::new(&plan.kept, outputs.start);
            for _ in outputs {
                let (ox, oo) = steps.next();
                // SAFETY: the plan stays within the views.
                unsafe {
                    let at = { ends }.offset(ox * size, oo * size);
                    let total = output.total(at.x, 0..all);
                    at.out.copy_from_nonoverlapping((&raw const total).cast(), loops.size);
                }
            }
        });
        return;
    }
    // Few outputs of many blocks: threads share the blocks of each.
    let mut steps = Steps::new(&plan.kept, 0);
    for _ in 0..outputs {
        let (ox, oo) = steps.next();
        let parts = par::map_blocks(all, SHARED, true, |blocks| {
            // SAFETY: an offset of the plan.
            unsafe { Output::new(loops, cut).total({ ends }.x.offset(ox * size), blocks) }
        });
        let mut total = Pairwise::new();
        parts.into_iter().for_each(|part| total.push(part, |a, b| join(loops, a, b)));
        let total = total.finish(|a, b| join(loops, a, b)).expect("there are blocks");
        // SAFETY: an output's offset.
        unsafe {
            let out = ends.out.offset(oo * size);
            out.copy_from_nonoverlapping((&raw const total).cast(), loops.size);
        }
    }
}

/// Outputs of one dense row each, not longer than a block: as many in a call as lie
/// at equal steps.
fn dense(plan: &Plan, ends: Ends, loops: &Loops, len: usize, outputs: Range<usize>) {
    let one = Axis { n: 1, x: 0, out: 0 };
    let (&inner, outer) = plan.kept.split_last().unwrap_or((&one, &[]));
    let size = loops.size as isize;
    let mut steps = Steps::new(outer, outputs.start / inner.n);
    let mut o = outputs.start;
    while o < outputs.end {
        let i = o % inner.n;
        let n = (inner.n - i).min(outputs.end - o);
        let (ox, oo) = steps.next();
        let i = i as isize;
        // SAFETY: the plan stays within the views.
        unsafe {
            let at = ends.offset((ox + i * inner.x) * size, (oo + i * inner.out) * size);
            (loops.rows)(&mut Rows {
                rows: &[at.x],
                x_step: inner.x,
                len,
                outputs: n,
                out: Some(Apart { at: at.out, step: inner.out }),
                lanes: &mut [0; 64],
                begin: true,
            });
        }
        o += n;
    }
}
