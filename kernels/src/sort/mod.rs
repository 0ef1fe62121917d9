//! Sorting, selecting and searching along an axis.
//!
//! Numbers are compared by integer keys that have their order: NaN above
//! everything, as in PyTorch, and the two zeros equal. A key and the place of its
//! element make one integer, so that equal elements stay in their order without a
//! stable algorithm.
//!
//! A kernel that takes an axis wants at least one dimension; a single number is a
//! line of one.

mod entry;
mod search;
mod select;

pub use entry::Sortable;
pub use search::searchsorted;
pub use select::{kthvalue, topk};

use crate::lines::Lines;
use crate::scratch::Scratch;
use crate::view::{Dst, Raw, Src};
use entry::{Entry, Kind, Line};

/// Cost of an element in tenths of a nanosecond.
const COST: usize = 100;

/// Sorts along `axis`, equal elements staying in their order: the sorted elements and
/// the places they come from, each if wanted. `values` may be `x`.
///
/// # Panics
/// If the shapes differ or there is no such axis.
pub fn sort<T: Sortable>(
    x: Src<T>,
    axis: usize,
    descending: bool,
    values: Option<Dst<T>>,
    index: Option<Dst<i64>>,
) {
    let (kind, values) = (T::kind(), values.map(|v| v.raw()));
    if kind.fits_narrow(x.shape[axis]) {
        sort_as::<u64>(kind, x.raw(), axis, descending, values, index);
    } else {
        sort_as::<u128>(kind, x.raw(), axis, descending, values, index);
    }
}

/// The places of the elements in sorted order along `axis`, as [`sort`] gives them.
///
/// # Panics
/// As [`sort`].
pub fn argsort<T: Sortable>(x: Src<T>, axis: usize, descending: bool, index: Dst<i64>) {
    sort(x, axis, descending, None, Some(index));
}

fn sort_as<E: Entry>(
    kind: Kind,
    x: Raw,
    axis: usize,
    descending: bool,
    values: Option<Raw>,
    index: Option<Dst<i64>>,
) {
    values.iter().for_each(|v| assert_eq!(v.shape, x.shape, "outputs have the input's shape"));
    index.iter().for_each(|i| assert_eq!(i.shape, x.shape, "outputs have the input's shape"));
    let n = x.shape[axis];
    let strides = [
        x.strides,
        values.map_or(x.strides, |v| v.strides),
        index.map_or(x.strides, |i| i.strides),
    ];
    let lines = Lines::new(x.shape, axis, strides, [true, values.is_some(), index.is_some()]);
    lines.for_groups(n * COST, |g, rooms: &mut [Scratch; 6]| {
        // SAFETY: lines lie within the views and have `n` elements.
        unsafe {
            let from = g.read_raw(0, x.ptr(), kind.size, n, &mut rooms[0]);
            let value_rows = values.map(|v| g.room_raw(1, v.ptr(), kind.size, n, &mut rooms[1]));
            let index_rows = index.map(|i| g.room(2, i.ptr(), n, &mut rooms[2]));
            for l in 0..g.lines {
                let line = Line::new(kind, from.row(l), n);
                let [.., entries, spare, taken] = &mut *rooms;
                let (entries, spare) = (entry::room::<E>(entries, n), entry::room(spare, n));
                E::of_line(line, descending, entries);
                let sorted = entry::sort(kind, entries, spare);
                if let Some(rows) = index_rows {
                    let to = rows.row(l);
                    for (i, e) in sorted.iter().enumerate() {
                        *to.add(i) = e.place() as i64;
                    }
                }
                if let Some(rows) = value_rows {
                    // Not straight to the output, which may be the input.
                    let taken = taken.room::<u8>(n * kind.size);
                    line.take(sorted, taken, 1);
                    rows.row(l).copy_from_nonoverlapping(taken, n * kind.size);
                }
            }
            if let (Some(v), Some(rows)) = (values, value_rows) {
                g.put_raw(1, v.ptr(), kind.size, n, rows);
            }
            if let (Some(i), Some(rows)) = (index, index_rows) {
                g.put(2, i.ptr(), n, rows);
            }
        }
    });
}

#[cfg(test)]
mod tests;
