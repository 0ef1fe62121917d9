//! The first few elements in sorted order.

use super::entry::{self, Entry, Sortable, fits_narrow};
use crate::lines::Lines;
use crate::scratch::Scratch;
use crate::simd::vectorize;
use crate::view::{Dst, Src};
use smallvec::SmallVec;

/// Cost of an element in tenths of a nanosecond.
const COST: usize = 20;
/// Elements looked at together: most blocks have none that is wanted.
const BLOCK: usize = 256;
crate::instances::instances!(SelectKernels for f32, f64, i64, i32, u8 => {
    fn topk_kernel(x: Src<Self>, axis: usize, largest: bool, values: Dst<Self>, index: Dst<i64>) = topk_of;
});

/// The `k` largest (or smallest) elements along `axis`, best first, and their places;
/// `k` is the extent of the outputs along `axis`. Of equal elements the first comes
/// first. NaN counts as the largest.
///
/// # Panics
/// If there are fewer than `k` elements, or shapes do not match.
pub fn topk<T: Sortable>(x: Src<T>, axis: usize, largest: bool, values: Dst<T>, index: Dst<i64>) {
    T::topk_kernel(x, axis, largest, values, index)
}

fn topk_of<T: Sortable>(x: Src<T>, axis: usize, largest: bool, values: Dst<T>, index: Dst<i64>) {
    let (n, k) = (x.shape[axis], values.shape[axis]);
    assert!(k <= n, "{k} elements are wanted of {n}");
    assert_eq!(values.shape, index.shape, "the outputs have one shape");
    let mut shape: SmallVec<[usize; 6]> = x.shape.into();
    shape[axis] = k;
    assert_eq!(shape[..], *values.shape, "an output has the input's other axes");
    if k == 0 {
        return;
    }
    if fits_narrow::<T>(n) {
        run::<T, u64>(x, axis, values, index, k, |line, room| best(line, largest, k, room));
    } else {
        run::<T, u128>(x, axis, values, index, k, |line, room| best(line, largest, k, room));
    }
}

/// The `k`-th smallest element along `axis`, counted from one, and its place. Of equal
/// elements the first comes first. NaN counts as the largest. The outputs have the
/// input's shape with one element along `axis`.
///
/// # Panics
/// If there is no `k`-th element, or shapes do not match.
pub fn kthvalue<T: Sortable>(x: Src<T>, axis: usize, k: usize, values: Dst<T>, index: Dst<i64>) {
    let n = x.shape[axis];
    assert!((1..=n).contains(&k), "there is no element number {k} of {n}");
    assert_eq!(values.shape, index.shape, "the outputs have one shape");
    let mut shape: SmallVec<[usize; 6]> = x.shape.into();
    shape[axis] = 1;
    assert_eq!(shape[..], *values.shape, "an output has the input's other axes");
    if fits_narrow::<T>(n) {
        run::<T, u64>(x, axis, values, index, 1, |line, room| nth(line, k, room));
    } else {
        run::<T, u128>(x, axis, values, index, 1, |line, room| nth(line, k, room));
    }
}

/// Calls `f` for each line along `axis`; it returns the `k` entries of the results.
fn run<T: Sortable, E: Entry>(
    x: Src<T>,
    axis: usize,
    values: Dst<T>,
    index: Dst<i64>,
    k: usize,
    f: impl for<'a> Fn(&[T], &'a mut Scratch) -> &'a [E] + Sync,
) {
    let n = x.shape[axis];
    let strides = [x.strides, values.strides, index.strides];
    let lines = Lines::new(x.shape, axis, strides, [true, false, false]);
    lines.for_groups(n * COST, |g, [room, entries]: &mut [Scratch; 2]| {
        // SAFETY: lines lie within the views, those of `x` with `n` elements, those
        // of the outputs with `k`.
        unsafe {
            let rows = g.read(0, x.ptr(), n, room);
            for l in 0..g.lines {
                let line = std::slice::from_raw_parts(rows.row(l), n);
                for (i, e) in f(line, entries)[..k].iter().enumerate() {
                    let (v, p) = (line[e.place()], e.place() as i64);
                    *values.ptr().offset(g.line(1, l) + i as isize * values.strides[axis]) = v;
                    *index.ptr().offset(g.line(2, l) + i as isize * index.strides[axis]) = p;
                }
            }
        }
    });
}

/// The entry number `k`, counted from one, alone.
fn nth<'a, T: Sortable, E: Entry>(line: &[T], k: usize, scratch: &'a mut Scratch) -> &'a [E] {
    let entries = entry::room(scratch, line.len());
    entry::of_line(line, false, entries);
    std::slice::from_ref(entries.select_nth_unstable(k - 1).1)
}

/// The first `k` entries in order.
fn best<'a, T: Sortable, E: Entry>(
    line: &[T],
    largest: bool,
    k: usize,
    scratch: &'a mut Scratch,
) -> &'a [E] {
    let most = 2 * k + 2 * BLOCK;
    let all = line.len() <= most;
    let entries = entry::room::<E>(scratch, most.min(line.len()));
    let mut len = line.len();
    if all {
        entry::of_line(line, largest, entries);
    } else {
        // Collect what beats the worst of the best so far, and thin out now and then.
        len = 0;
        let mut limit = u64::MAX;
        let mut keys = [0; BLOCK];
        for (b, block) in line.chunks(BLOCK).enumerate() {
            if !any_below(block, largest, limit, &mut keys) && len >= k {
                continue;
            }
            for (i, &key) in keys[..block.len()].iter().enumerate() {
                if key < limit || len < k {
                    entries[len] = E::new(key, b * BLOCK + i);
                    len += 1;
                }
            }
            if len > most - BLOCK {
                limit = entries[..len].select_nth_unstable(k - 1).1.key();
                len = k;
            }
        }
    }
    let entries = &mut entries[..len];
    if len > k {
        entries.select_nth_unstable(k - 1);
    }
    entries[..k].sort_unstable();
    &entries[..k]
}

/// Computes the keys of a block; whether one is below `limit`.
fn any_below<T: Sortable>(block: &[T], largest: bool, limit: u64, keys: &mut [u64; BLOCK]) -> bool {
    vectorize(
        #[inline(always)]
        move || {
            let mut any = false;
            for (k, &v) in keys.iter_mut().zip(block) {
                *k = entry::key(v, largest);
                any |= *k < limit;
            }
            any
        },
    )
}
