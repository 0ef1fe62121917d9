//! The first few elements in sorted order.

use super::entry::{self, Entry, Kind, Line, Sortable};
use crate::lines::Lines;
use crate::scratch::Scratch;
use crate::view::{Dst, Raw, Src};
use smallvec::SmallVec;

/// Cost of an element in tenths of a nanosecond.
const COST: usize = 20;
/// Elements looked at together: most blocks have none that is wanted.
const BLOCK: usize = 256;

/// The `k` largest (or smallest) elements along `axis`, best first, and their places;
/// `k` is the extent of the outputs along `axis`. Of equal elements the first comes
/// first. NaN counts as the largest.
///
/// # Panics
/// If there are fewer than `k` elements, or shapes do not match.
pub fn topk<T: Sortable>(x: Src<T>, axis: usize, largest: bool, values: Dst<T>, index: Dst<i64>) {
    let (n, k) = (x.shape[axis], values.shape[axis]);
    assert!(k <= n, "{k} elements are wanted of {n}");
    assert_eq!(values.shape, index.shape, "the outputs have one shape");
    let mut shape: SmallVec<[usize; 6]> = x.shape.into();
    shape[axis] = k;
    assert_eq!(shape[..], *values.shape, "an output has the input's other axes");
    if k == 0 {
        return;
    }
    run(T::kind(), x.raw(), axis, values.raw(), index, Wanted::First { k, largest });
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
    run(T::kind(), x.raw(), axis, values.raw(), index, Wanted::Nth(k));
}

/// Entries of a line in sorted order.
#[derive(Clone, Copy)]
enum Wanted {
    /// The first `k`.
    First { k: usize, largest: bool },
    /// This one alone, counted from one.
    Nth(usize),
}

fn run(kind: Kind, x: Raw, axis: usize, values: Raw, index: Dst<i64>, wanted: Wanted) {
    if kind.fits_narrow(x.shape[axis]) {
        run_as::<u64>(kind, x, axis, values, index, wanted);
    } else {
        run_as::<u128>(kind, x, axis, values, index, wanted);
    }
}

fn run_as<E: Entry>(kind: Kind, x: Raw, axis: usize, values: Raw, index: Dst<i64>, wanted: Wanted) {
    let n = x.shape[axis];
    let strides = [x.strides, values.strides, index.strides];
    let lines = Lines::new(x.shape, axis, strides, [true, false, false]);
    lines.for_groups(n * COST, |g, [room, entries]: &mut [Scratch; 2]| {
        // SAFETY: lines lie within the views, those of `x` with `n` elements, those
        // of the outputs with as many as are wanted.
        unsafe {
            let rows = g.read_raw(0, x.ptr(), kind.size, n, room);
            for l in 0..g.lines {
                let line = Line::new(kind, rows.row(l), n);
                let chosen: &[E] = match wanted {
                    Wanted::First { k, largest } => best(line, largest, k, entries),
                    Wanted::Nth(k) => nth(line, k, entries),
                };
                let to = values.ptr().offset(g.line(1, l) * kind.size as isize);
                line.take(chosen, to, values.strides[axis]);
                let to = index.ptr().offset(g.line(2, l));
                for (i, e) in chosen.iter().enumerate() {
                    *to.offset(i as isize * index.strides[axis]) = e.place() as i64;
                }
            }
        }
    });
}

/// The entry number `k`, counted from one, alone.
fn nth<E: Entry>(line: Line, k: usize, scratch: &mut Scratch) -> &[E] {
    let entries = entry::room(scratch, line.len);
    E::of_line(line, false, entries);
    std::slice::from_ref(entries.select_nth_unstable(k - 1).1)
}

/// The first `k` entries in order.
fn best<E: Entry>(line: Line, largest: bool, k: usize, scratch: &mut Scratch) -> &[E] {
    let most = 2 * k + 2 * BLOCK;
    let all = line.len <= most;
    let entries = entry::room::<E>(scratch, most.min(line.len));
    let mut len = line.len;
    if all {
        E::of_line(line, largest, entries);
    } else {
        // Collect what beats the worst of the best so far, and thin out now and then.
        len = 0;
        let mut limit = u64::MAX;
        let mut keys = [0; BLOCK];
        for start in (0..line.len).step_by(BLOCK) {
            let keys = &mut keys[..BLOCK.min(line.len - start)];
            if !line.keys(start, largest, limit, keys) && len >= k {
                continue;
            }
            for (i, &key) in keys.iter().enumerate() {
                if key < limit || len < k {
                    entries[len] = E::new(key, start + i);
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
