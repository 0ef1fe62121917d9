//! Reductions whose nearest elements belong to different outputs.

use super::{Apart, Axis, Cell, GRAIN, Join, Loops, Plan, SHARED, Steps, cells, copy_apart, count};
use crate::isa::Isa;
use crate::par;
use crate::simd::row::{Pairwise, for_vectors, read, write};
use crate::simd::{self, Number, Task, Vector, prefetch};
use crate::view::Ends;
use smallvec::SmallVec;
use std::marker::PhantomData;
use std::ops::Range;

/// Rows joined one after another before the result joins others in pairs.
const ROWS: usize = 64;
/// Columns taken together: their running results stay in the L1 cache.
const STRIP: usize = 2048;
/// Bytes by which reading is announced to the cache.
const AHEAD: usize = 8192;
/// Rows narrower than this are laid side by side where memory allows it.
const NARROW: usize = 128;

/// Rows of a strip of columns, to join with what is there.
pub(super) struct Strip<'a> {
    /// Results so far, side by side.
    pub(super) acc: *mut u8,
    pub(super) width: usize,
    /// Their elements lie side by side, too.
    pub(super) rows: &'a [*const u8],
    /// Whether nothing is there yet.
    pub(super) begin: bool,
}

/// Joins rows of numbers of type `T`.
///
/// # Safety
/// All elements that it speaks of are there to read, its results to write.
pub(super) unsafe fn run<T: Number, J: Join>(s: &Strip<'_>) {
    simd::run(Run::<T, J>(s, PhantomData));
}

struct Run<'a, T, J>(&'a Strip<'a>, PhantomData<(T, J)>);

impl<T: Number, J: Join> Task<T> for Run<'_, T, J> {
    const WIDEST: Isa = J::WIDEST;
    type Out = ();
    #[inline(always)]
    fn run<V: Vector<Elem = T>>(self) {
        let Strip { acc, width, rows, begin } = *self.0;
        let acc = acc.cast::<T>();
        let rest = J::identity();
        if begin {
            for_vectors(
                width,
                #[inline(always)]
                |i, k| {
                    // SAFETY: `i..i + k` lies within the strip.
                    unsafe { write(V::splat(rest), acc, i, k) }
                },
            );
        }
        let rows_ahead = (AHEAD / (width * size_of::<T>())).max(4) as isize;
        let fours = rows.chunks_exact(4);
        let left = fours.remainder();
        for four in fours {
            let [r0, r1, r2, r3] = std::array::from_fn(|i| four[i].cast::<T>());
            // The hardware follows a row, not the leap to the next ones.
            let ahead = (r1 as isize - r0 as isize) / size_of::<T>() as isize * rows_ahead;
            for_vectors(
                width,
                #[inline(always)]
                |i, k| {
                    for r in [r0, r1, r2, r3] {
                        prefetch(r.wrapping_offset(ahead).wrapping_add(i));
                    }
                    // SAFETY: as above.
                    unsafe {
                        let a = J::many(read::<V>(r0, i, k, rest), read(r1, i, k, rest));
                        let b = J::many(read::<V>(r2, i, k, rest), read(r3, i, k, rest));
                        write(J::many(read(acc, i, k, rest), J::many(a, b)), acc, i, k);
                    }
                },
            );
        }
        for r in left {
            let r = r.cast::<T>();
            for_vectors(
                width,
                #[inline(always)]
                |i, k| {
                    // SAFETY: as above.
                    unsafe {
                        let v = J::many(read::<V>(acc, i, k, rest), read(r, i, k, rest));
                        write(v, acc, i, k);
                    }
                },
            );
        }
    }
}

/// The reduction of a strip, wherever it lies in the columns.
struct Part<'a> {
    loops: &'a Loops,
    rows: &'a [Axis],
    /// Distance between columns.
    step: isize,
}

impl Part<'_> {
    /// Joins the row at `b` with that at `a`.
    ///
    /// # Safety
    /// Both are `width` wide.
    unsafe fn join(&self, a: *mut u8, b: *const u8, width: usize) {
        // SAFETY: the caller's contract.
        unsafe { (self.loops.strip)(&Strip { acc: a, width, rows: &[b], begin: false }) };
    }

    /// Reduces the blocks of rows in a range to one row at `out`.
    ///
    /// # Safety
    /// The rows are at the plan's distances from `x`; there is room at `out`.
    unsafe fn total(&self, x: *const u8, width: usize, blocks: Range<usize>, out: *mut u8) {
        let size = self.loops.size;
        let depth = count(self.rows);
        let mut steps = Steps::new(self.rows, blocks.start * ROWS);
        let mut spare = cells(if self.step == 1 { 0 } else { 4 * width * size });
        let spare: *mut u8 = spare.as_mut_ptr().cast();
        let join = |mut a: Vec<Cell>, b: Vec<Cell>| {
            // SAFETY: both were made for a row.
            unsafe { self.join(a.as_mut_ptr().cast(), b.as_ptr().cast(), width) };
            a
        };
        let mut total = Pairwise::new();
        for b in blocks {
            let mut acc = cells(width * size);
            let rows = ROWS.min(depth - b * ROWS);
            let mut list: SmallVec<[*const u8; ROWS]> = SmallVec::new();
            let mut done = 0;
            while done < rows {
                let together = (rows - done).min(if self.step == 1 { ROWS } else { 4 });
                list.clear();
                for i in 0..together {
                    // SAFETY: offsets of the plan lie within the view; there is room
                    // for four rows.
                    unsafe {
                        let at = x.offset(steps.next().0 * size as isize);
                        if self.step == 1 {
                            list.push(at);
                            continue;
                        }
                        let copy = spare.add(i * width * size);
                        let from = Apart { at, step: self.step };
                        copy_apart(size, width, from, Apart { at: copy, step: 1 });
                        list.push(copy);
                    }
                }
                let acc = acc.as_mut_ptr().cast();
                // SAFETY: as above.
                unsafe {
                    (self.loops.strip)(&Strip { acc, width, rows: &list, begin: done == 0 });
                }
                done += together;
            }
            total.push(acc, join);
        }
        let total = total.finish(join).expect("a range of blocks is not empty");
        // SAFETY: the caller's contract.
        unsafe { out.copy_from_nonoverlapping(total.as_ptr().cast(), width * size) };
    }
}

pub(super) fn reduce(plan: &Plan, ends: Ends, loops: &Loops) {
    let (&columns, outer) = plan.kept.split_last().expect("columns are a kept axis");
    let depth = plan.depth();
    // Narrow rows without gaps: take several as one row, whose parts join last.
    let side_by_side = match plan.reduced[..] {
        [r] if columns.n < NARROW && columns.x == 1 && r.x == columns.n as isize => {
            let fit = (2 * NARROW / columns.n).min(r.n);
            1 << fit.ilog2()
        }
        _ => 1,
    };
    let wide = Axis { n: columns.n * side_by_side, ..columns };
    let reduced: super::Axes = match side_by_side {
        1 => plan.reduced.clone(),
        k => [Axis { n: depth / k, x: wide.n as isize, out: 0 }].into_iter().collect(),
    };
    let rows_left = depth % side_by_side;

    let strips = wide.n.div_ceil(STRIP);
    let blocks = count(&reduced).div_ceil(ROWS);
    let parts = blocks.div_ceil(SHARED);
    let size = loops.size;
    let offset = |n: isize| n * size as isize;
    let strip = Part { loops, rows: &reduced, step: wide.x };
    let width_of = |s: usize| STRIP.min(wide.n - s * STRIP);
    let run = |ox: isize, s: usize, part: usize, out: *mut u8| {
        let blocks = part * SHARED..((part + 1) * SHARED).min(blocks);
        // SAFETY: offsets of the plan lie within the view; `out` is as wide.
        unsafe {
            let x = { ends }.x.offset(offset(ox + (s * STRIP) as isize * wide.x));
            strip.total(x, width_of(s), blocks, out);
        }
    };
    // Joins the parts of a strip, which lie one after another, and writes it.
    let finish = |ox: isize, oo: isize, s: usize, totals: *mut u8| {
        let mut width = width_of(s);
        // SAFETY: there are as many parts; offsets of the plan lie within the views.
        unsafe {
            // The first part is the first of every pair that it is in.
            let join = |a: *mut u8, b: *mut u8| {
                strip.join(a, b, width);
                a
            };
            let mut total = Pairwise::new();
            for p in 0..parts {
                total.push(totals.add(p * width * size), join);
            }
            total.finish(join);
            if side_by_side > 1 {
                while width > columns.n {
                    width /= 2;
                    strip.join(totals, totals.add(width * size), width);
                }
                let first = { ends }.x.offset(offset(ox));
                let rows: SmallVec<[*const u8; 16]> =
                    (depth - rows_left..depth).map(|r| first.add(r * width * size)).collect();
                (loops.strip)(&Strip { acc: totals, width, rows: &rows, begin: false });
            }
            let at = { ends }.out.offset(offset(oo + (s * STRIP) as isize * columns.out));
            let to = Apart { at, step: columns.out };
            copy_apart(size, width, Apart { at: totals, step: 1 }, to);
        }
    };

    let many = count(outer);
    let work = columns.n * depth;
    if parts == 1 || many * strips >= SHARED || many * work < GRAIN {
        par::for_range(many * strips, (GRAIN * strips).div_ceil(work), |r| {
            let mut steps = Steps::new(outer, r.start / strips);
            let mut at = (0, 0);
            let mut totals = cells(parts * width_of(0) * size);
            let totals: *mut u8 = totals.as_mut_ptr().cast();
            for t in r.clone() {
                if t == r.start || t.is_multiple_of(strips) {
                    at = steps.next();
                }
                let (ox, oo) = at;
                let s = t % strips;
                for p in 0..parts {
                    run(ox, s, p, totals.wrapping_add(p * width_of(s) * size));
                }
                finish(ox, oo, s, totals);
            }
        });
        return;
    }
    // Few strips of many rows: threads share the rows of each.
    let mut steps = Steps::new(outer, 0);
    for _ in 0..many {
        let (ox, oo) = steps.next();
        let mut totals = cells(parts * wide.n * size);
        let at = Ends { x: ends.x, out: totals.as_mut_ptr().cast() };
        // Those of a strip lie together.
        let totals_of = |s: usize| { at }.out.wrapping_add(s * STRIP * parts * size);
        // Parts outermost, so that neighbouring strips are read at about one time.
        par::for_each(parts * strips, &|t: usize| {
            let (part, s) = (t / strips, t % strips);
            run(ox, s, part, totals_of(s).wrapping_add(part * width_of(s) * size));
        });
        for s in 0..strips {
            finish(ox, oo, s, totals_of(s));
        }
    }
}
