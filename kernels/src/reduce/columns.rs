//! Reductions whose nearest elements belong to different outputs.

use super::{Axis, Cell, GRAIN, Join, Loops, Plan, SHARED, Steps, count};
use crate::isa::Isa;
use crate::par;
use crate::simd::row::{Pairwise, for_vectors, read, write};
use crate::simd::{self, Number, Task, Vector, prefetch};
use crate::view::Ends;
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

/// A strip of columns, of which the blocks of rows in a range are joined.
pub(super) struct Strip<'a> {
    x: *const u8,
    width: usize,
    /// Distance between columns.
    step: isize,
    rows: &'a [Axis],
    blocks: Range<usize>,
    /// Where the results go, side by side.
    out: *mut u8,
}

/// Joins the rows of a strip of numbers of type `T`.
///
/// # Safety
/// All elements that it speaks of are there to read, its results to write.
pub(super) unsafe fn run<T: Number, J: Join>(s: &Strip<'_>) {
    simd::run(Run::<T, J>(s, PhantomData));
}

struct Run<'a, T, J>(&'a Strip<'a>, PhantomData<(T, J)>);

#[inline(always)]
fn join_into<V: Vector, J: Join>(mut a: Vec<V::Elem>, b: &[V::Elem]) -> Vec<V::Elem> {
    let (p, q) = (a.as_mut_ptr(), b.as_ptr());
    for_vectors(
        a.len().min(b.len()),
        #[inline(always)]
        |i, k| {
            // SAFETY: `i..i + k` lies within both.
            unsafe {
                let rest = J::identity();
                write(J::many(read::<V>(p, i, k, rest), read::<V>(q, i, k, rest)), p, i, k);
            }
        },
    );
    a
}

impl<T: Number, J: Join> Task<T> for Run<'_, T, J> {
    const WIDEST: Isa = J::WIDEST;
    type Out = ();
    #[inline(always)]
    fn run<V: Vector<Elem = T>>(self) {
        let Strip { width, step, rows, .. } = *self.0;
        let (x, out) = (self.0.x.cast::<T>(), self.0.out.cast::<T>());
        let depth = count(rows);
        let mut steps = Steps::new(rows, self.0.blocks.start * ROWS);
        let mut gathered = vec![T::ZERO; if step == 1 { 0 } else { 4 * width }];
        // The next row: where it lies, or a copy where its elements are apart.
        let mut next = |slot: usize| {
            // SAFETY: offsets of the plan lie within the view.
            let p = unsafe { x.offset(steps.next().0) };
            if step == 1 {
                return p;
            }
            let copy = &mut gathered[slot * width..(slot + 1) * width];
            for (i, v) in copy.iter_mut().enumerate() {
                // SAFETY: as above, for each column.
                *v = unsafe { *p.offset(i as isize * step) };
            }
            copy.as_ptr()
        };
        let rows_ahead = (AHEAD / (width * size_of::<T>())).max(4) as isize;
        let mut total = Pairwise::new();
        for b in self.0.blocks.clone() {
            let mut acc = vec![J::identity::<T>(); width];
            let p = acc.as_mut_ptr();
            let rows = ROWS.min(depth - b * ROWS);
            for _ in 0..rows / 4 {
                let (r0, r1, r2, r3) = (next(0), next(1), next(2), next(3));
                // The hardware follows a row, not the leap to the next ones.
                let ahead = (r1 as isize - r0 as isize) / size_of::<T>() as isize * rows_ahead;
                for_vectors(
                    width,
                    #[inline(always)]
                    |i, k| {
                        let rest = J::identity();
                        for r in [r0, r1, r2, r3] {
                            prefetch(r.wrapping_offset(ahead).wrapping_add(i));
                        }
                        // SAFETY: `i..i + k` lies within the strip.
                        unsafe {
                            let a = J::many(read::<V>(r0, i, k, rest), read(r1, i, k, rest));
                            let b = J::many(read::<V>(r2, i, k, rest), read(r3, i, k, rest));
                            write(J::many(read(p, i, k, rest), J::many(a, b)), p, i, k);
                        }
                    },
                );
            }
            for _ in 0..rows % 4 {
                let r = next(0);
                for_vectors(
                    width,
                    #[inline(always)]
                    |i, k| {
                        let rest = J::identity();
                        // SAFETY: as above.
                        unsafe {
                            let v = J::many(read::<V>(p, i, k, rest), read(r, i, k, rest));
                            write(v, p, i, k);
                        }
                    },
                );
            }
            total.push(acc, |a, b| join_into::<V, J>(a, &b));
        }
        let total = total.finish(|a, b| join_into::<V, J>(a, &b));
        let total = total.unwrap_or_else(|| vec![J::identity(); width]);
        // SAFETY: the caller gives room for the strip's results.
        unsafe { std::ptr::copy_nonoverlapping(total.as_ptr(), out, width) };
    }
}

/// The parts of one strip, and what is left to do to them.
pub(super) struct Finish {
    /// `parts` times `width` results, one part after another.
    totals: *mut u8,
    parts: usize,
    width: usize,
    /// Columns of the output: fewer than `width` where rows were laid side by side.
    columns: usize,
    /// Rows of the input, `columns` wide and dense, that no part has seen.
    rest: *const u8,
    rows_left: usize,
    out: *mut u8,
    /// Distance between columns of the output.
    step: isize,
}

/// Joins the parts of a strip of numbers of type `T`, and writes the results.
///
/// # Safety
/// All elements that it speaks of are there, the output's to write.
pub(super) unsafe fn finish<T: Number, J: Join>(f: &Finish) {
    let (totals, rest, out) = (f.totals.cast::<T>(), f.rest.cast::<T>(), f.out.cast::<T>());
    // SAFETY: the caller's contract.
    unsafe {
        let join_at = |a: usize, b: usize, n: usize| {
            for i in 0..n {
                let a = totals.add(a + i);
                *a = J::one(*a, *totals.add(b + i));
            }
        };
        let mut total = Pairwise::new();
        for part in 0..f.parts {
            total.push(part * f.width, |a, b| {
                join_at(a, b, f.width);
                a
            });
        }
        // The first part is the first of every pair it is in.
        total.finish(|a, b| {
            join_at(a, b, f.width);
            a
        });
        let mut width = f.width;
        while width > f.columns {
            width /= 2;
            join_at(0, width, width);
        }
        for r in 0..f.rows_left {
            for i in 0..width {
                let t = totals.add(i);
                *t = J::one(*t, *rest.add(r * width + i));
            }
        }
        for i in 0..width {
            *out.offset(i as isize * f.step) = *totals.add(i);
        }
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
    let size = loops.size as isize;
    let columns_of = |s: usize| s * STRIP..((s + 1) * STRIP).min(wide.n);
    let run = |ox: isize, s: usize, part: usize, out: *mut u8| {
        let cols = columns_of(s);
        // SAFETY: offsets of the plan lie within the view; `out` is as wide.
        unsafe {
            (loops.strip)(&Strip {
                x: { ends }.x.offset((ox + cols.start as isize * wide.x) * size),
                width: cols.len(),
                step: wide.x,
                rows: &reduced,
                blocks: part * SHARED..((part + 1) * SHARED).min(blocks),
                out,
            });
        }
    };
    let finish = |ox: isize, oo: isize, s: usize, totals: *mut u8| {
        let first = oo + (s * STRIP) as isize * columns.out;
        let rest = ox + ((depth - rows_left) * columns.n) as isize;
        let width = columns_of(s).len();
        // Strips of wide rows are not laid side by side.
        let columns = if side_by_side == 1 { width } else { columns.n };
        // SAFETY: offsets of the plan lie within the views.
        unsafe {
            (loops.finish)(&Finish {
                totals,
                parts,
                width,
                columns,
                rest: { ends }.x.wrapping_offset(rest * size),
                rows_left,
                out: { ends }.out.offset(first * size),
                step: plan.kept[plan.kept.len() - 1].out,
            });
        }
    };
    let bytes = |s: usize| columns_of(s).len() * loops.size;
    let memory = |bytes: usize| vec![0 as Cell; bytes.div_ceil(size_of::<Cell>())];

    let many = count(outer);
    let work = columns.n * depth;
    if parts == 1 || many * strips >= SHARED || many * work < GRAIN {
        par::for_range(many * strips, (GRAIN * strips).div_ceil(work), |r| {
            let mut steps = Steps::new(outer, r.start / strips);
            let mut at = (0, 0);
            let mut totals = memory(parts * bytes(0));
            let totals: *mut u8 = totals.as_mut_ptr().cast();
            for t in r.clone() {
                if t == r.start || t.is_multiple_of(strips) {
                    at = steps.next();
                }
                let (ox, oo) = at;
                let s = t % strips;
                for p in 0..parts {
                    run(ox, s, p, totals.wrapping_add(p * bytes(s)));
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
        let mut totals = memory(parts * wide.n * loops.size);
        let at = Ends { x: ends.x, out: totals.as_mut_ptr().cast() };
        // Those of a strip lie together.
        let totals_of = |s: usize| { at }.out.wrapping_add(s * STRIP * parts * loops.size);
        // Parts outermost, so that neighbouring strips are read at about one time.
        par::for_each(parts * strips, &|t: usize| {
            let (part, s) = (t / strips, t % strips);
            run(ox, s, part, totals_of(s).wrapping_add(part * bytes(s)));
        });
        for s in 0..strips {
            finish(ox, oo, s, totals_of(s));
        }
    }
}
