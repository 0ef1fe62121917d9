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
pub use select::{SelectKernels, kthvalue, topk};

use crate::lines::Lines;
use crate::scratch::Scratch;
use crate::view::{Dst, Src};
use entry::{Entry, fits_narrow};

/// Cost of an element in tenths of a nanosecond.
const COST: usize = 100;
crate::instances::instances!(SortKernels for f32, f64, i64, i32, u8 => {
    fn sort_kernel(x: Src<Self>, axis: usize, descending: bool, values: Option<Dst<Self>>, index: Option<Dst<i64>>) = sort_of;
    fn argsort_kernel(x: Src<Self>, axis: usize, descending: bool, index: Dst<i64>) = argsort_of;
});

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
    T::sort_kernel(x, axis, descending, values, index)
}

fn sort_of<T: Sortable>(
    x: Src<T>,
    axis: usize,
    descending: bool,
    values: Option<Dst<T>>,
    index: Option<Dst<i64>>,
) {
    if fits_narrow::<T>(x.shape[axis]) {
        sort_as::<T, u64>(x, axis, descending, values, index);
    } else {
        sort_as::<T, u128>(x, axis, descending, values, index);
    }
}

/// The places of the elements in sorted order along `axis`, as [`sort`] gives them.
///
/// # Panics
/// As [`sort`].
pub fn argsort<T: Sortable>(x: Src<T>, axis: usize, descending: bool, index: Dst<i64>) {
    T::argsort_kernel(x, axis, descending, index)
}

fn argsort_of<T: Sortable>(x: Src<T>, axis: usize, descending: bool, index: Dst<i64>) {
    sort(x, axis, descending, None, Some(index));
}

fn sort_as<T: Sortable, E: Entry>(
    x: Src<T>,
    axis: usize,
    descending: bool,
    values: Option<Dst<T>>,
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
            let from = g.read(0, x.ptr(), n, &mut rooms[0]);
            let value_rows = values.map(|v| g.room(1, v.ptr(), n, &mut rooms[1]));
            let index_rows = index.map(|i| g.room(2, i.ptr(), n, &mut rooms[2]));
            for l in 0..g.lines {
                let line = std::slice::from_raw_parts(from.row(l), n);
                let [.., entries, spare, taken] = &mut *rooms;
                let (entries, spare) = (entry::room::<E>(entries, n), entry::room(spare, n));
                entry::of_line(line, descending, entries);
                let sorted = entry::sort::<T, E>(entries, spare);
                if let Some(rows) = index_rows {
                    let to = rows.row(l);
                    for (i, e) in sorted.iter().enumerate() {
                        *to.add(i) = e.place() as i64;
                    }
                }
                if let Some(rows) = value_rows {
                    // Not straight to the output, which may be the input.
                    let taken = taken.room::<T>(n);
                    for (i, e) in sorted.iter().enumerate() {
                        *taken.add(i) = line[e.place()];
                    }
                    rows.row(l).copy_from_nonoverlapping(taken, n);
                }
            }
            if let (Some(v), Some(rows)) = (values, value_rows) {
                g.put(1, v.ptr(), n, rows);
            }
            if let (Some(i), Some(rows)) = (index, index_rows) {
                g.put(2, i.ptr(), n, rows);
            }
        }
    });
}

#[cfg(test)]
mod tests;
