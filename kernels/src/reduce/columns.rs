//! Reductions whose nearest elements belong to different outputs.

use super::{Axis, GRAIN, Join, Plan, SHARED, Steps, count};
use crate::par;
use crate::simd::row::{Pairwise, for_vectors, read, write};
use crate::simd::{self, Number, Task, Vector, prefetch};
use crate::view::{Dst, Src};
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

/// Joins the blocks of rows in a range, for a strip of columns.
struct Strip<'a, T, J> {
    x: *const T,
    width: usize,
    /// Distance between columns.
    step: isize,
    rows: &'a [Axis],
    blocks: Range<usize>,
    join: PhantomData<J>,
}

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

impl<T: Number, J: Join> Task<T> for Strip<'_, T, J> {
    type Out = Vec<T>;
    #[inline(always)]
    fn run<V: Vector<Elem = T>>(self) -> Vec<T> {
        let Strip { width, step, rows, .. } = self;
        let depth = count(rows);
        let mut steps = Steps::new(rows, self.blocks.start * ROWS);
        let mut gathered = vec![T::ZERO; if step == 1 { 0 } else { 4 * width }];
        // The next row: where it lies, or a copy where its elements are apart.
        let mut next = |slot: usize| {
            // SAFETY: offsets of the plan lie within the view.
            let p = unsafe { self.x.offset(steps.next().0) };
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
        for b in self.blocks {
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
        total.unwrap_or_else(|| vec![J::identity(); width])
    }
}

pub(super) fn reduce<T: Number, J: Join>(x: &Src<T>, plan: &Plan, out: &Dst<T>) {
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
    let columns_of = |s: usize| s * STRIP..((s + 1) * STRIP).min(wide.n);
    let run = |ox: isize, s: usize, part: usize| {
        let cols = columns_of(s);
        simd::run(Strip::<T, J> {
            // SAFETY: offsets of the plan lie within the view.
            x: unsafe { x.ptr().offset(plan.x + ox + cols.start as isize * wide.x) },
            width: cols.len(),
            step: wide.x,
            rows: &reduced,
            blocks: part * SHARED..((part + 1) * SHARED).min(blocks),
            join: PhantomData,
        })
    };
    let finish = |ox: isize, oo: isize, s: usize, totals: &mut dyn Iterator<Item = Vec<T>>| {
        let mut total = Pairwise::new();
        let join = |mut a: Vec<T>, b: Vec<T>| {
            a.iter_mut().zip(b).for_each(|(a, b)| *a = J::one(*a, b));
            a
        };
        totals.for_each(|t| total.push(t, join));
        let mut total = total.finish(join).expect("every strip has a part");
        let mut width = total.len();
        while width > columns.n && side_by_side > 1 {
            width /= 2;
            for i in 0..width {
                total[i] = J::one(total[i], total[i + width]);
            }
        }
        for r in depth - rows_left..depth {
            for (i, t) in total[..width].iter_mut().enumerate() {
                // SAFETY: the row lies within the view.
                let v = unsafe { *x.ptr().offset(plan.x + ox + (r * width + i) as isize) };
                *t = J::one(*t, v);
            }
        }
        let first = oo + (s * STRIP) as isize * columns.out;
        for (i, &v) in total[..width].iter().enumerate() {
            // SAFETY: offsets of the plan lie within the view.
            unsafe { *out.ptr().offset(plan.out + first + i as isize * columns.out) = v };
        }
    };

    let many = count(outer);
    let work = columns.n * depth;
    if parts == 1 || many * strips >= SHARED || many * work < GRAIN {
        par::for_range(many * strips, (GRAIN * strips).div_ceil(work), |r| {
            let mut steps = Steps::new(outer, r.start / strips);
            let mut at = (0, 0);
            for t in r.clone() {
                if t == r.start || t.is_multiple_of(strips) {
                    at = steps.next();
                }
                let (ox, oo) = at;
                finish(ox, oo, t % strips, &mut (0..parts).map(|p| run(ox, t % strips, p)));
            }
        });
        return;
    }
    // Few strips of many rows: threads share the rows of each.
    let mut steps = Steps::new(outer, 0);
    for _ in 0..many {
        let (ox, oo) = steps.next();
        // Parts outermost, so that neighbouring strips are read at about one time.
        let all = par::map_blocks(parts * strips, 1, true, |t| {
            run(ox, t.start % strips, t.start / strips)
        });
        let mut all: Vec<Option<Vec<T>>> = all.into_iter().map(Some).collect();
        for s in 0..strips {
            let totals = (0..parts).map(|p| all[p * strips + s].take().expect("taken once"));
            finish(ox, oo, s, &mut { totals });
        }
    }
}
