//! Reading by index.

use super::{GRAIN, IndexError, Negative, check, resolve};
use crate::par;
use crate::strided::Walk;
use crate::view::{Dst, Element, Raw, Src, numel, with_size};
use smallvec::SmallVec;
use std::ops::Range;

/// `out[…, i, …] = x[…, index[…, i, …], …]`: `i`, and what `index` gives, stand at
/// `axis`. In the other axes `x` is at least as large as `index`.
///
/// # Errors
/// The first index that is out of range.
///
/// # Panics
/// If `index` and `out` differ in shape, or `x` is too small.
pub fn gather<T: Element>(
    x: Src<T>,
    axis: usize,
    index: Src<i64>,
    negative: Negative,
    out: Dst<T>,
) -> Result<(), IndexError> {
    assert_eq!(index.shape, out.shape, "one index for each element of the output");
    read(x.raw(), axis, index, index.strides, negative, out.raw())
}

/// `out[…, i, …] = x[…, index[i], …]` for a vector of indices: whole slices of `x`
/// across `axis`.
///
/// # Errors
/// The first index that is out of range.
///
/// # Panics
/// If `out` has not the shape of `x`, with as many elements along `axis` as there
/// are indices.
pub fn index_select<T: Element>(
    x: Src<T>,
    axis: usize,
    index: Src<i64>,
    negative: Negative,
    out: Dst<T>,
) -> Result<(), IndexError> {
    let strides = across(&index, axis, out.shape);
    read(x.raw(), axis, index, &strides, negative, out.raw())
}

/// Strides that repeat a vector of indices along all axes of `shape` but `axis`.
pub(super) fn across(index: &Src<i64>, axis: usize, shape: &[usize]) -> SmallVec<[isize; 6]> {
    assert_eq!(*index.shape, [shape[axis]], "a vector with one index for each slice");
    let mut strides = SmallVec::from_elem(0, shape.len());
    strides[axis] = index.strides[0];
    strides
}

/// Reads by index; `strides` are those of `index` in the shape of `out`.
#[inline(never)]
fn read(
    x: Raw,
    axis: usize,
    index: Src<i64>,
    strides: &[isize],
    negative: Negative,
    out: Raw,
) -> Result<(), IndexError> {
    check(index, x.shape[axis], negative)?;
    assert_eq!(x.shape.len(), out.shape.len(), "operands have the same number of axes");
    let inside = (0..x.shape.len()).all(|d| d == axis || x.shape[d] >= out.shape[d]);
    assert!(inside, "{:?} does not hold what {:?} wants", x.shape, out.shape);
    if numel(out.shape) == 0 {
        return Ok(());
    }
    let mut origins: SmallVec<[isize; 6]> = x.strides.into();
    origins[axis] = 0;
    let walk = Walk::new(out.shape, [&origins, strides, out.strides]);
    let (rows, len, si) = (walk.rows(), walk.row_len(), walk.row_strides()[1]);
    let reading = Reading { x, axis, index, out, walk };
    let f: unsafe fn(&Reading, Range<usize>, Range<usize>) =
        with_size!(x.size, T => read_rows::<T>);
    let grain = if si == 0 { GRAIN * 8 } else { GRAIN };
    // SAFETY: the walk stays within `index` and `out`; checked indices, and extents that
    // suffice in the other axes, stay within `x`.
    let read = |rows, columns| unsafe { f(&reading, rows, columns) };
    if rows == 1 {
        par::for_range(len, grain, |columns| read(0..1, columns));
    } else {
        par::for_range(rows, grain.div_ceil(len), |rows| read(rows, 0..len));
    }
    Ok(())
}

/// Rows of the output, and what they are read from.
struct Reading<'a> {
    x: Raw<'a>,
    axis: usize,
    index: Src<'a, i64>,
    out: Raw<'a>,
    /// Over `x`, `index` and `out`.
    walk: Walk<3>,
}

/// # Safety
/// `T` has the size of the operands' elements, which lie within them.
unsafe fn read_rows<T: Copy>(r: &Reading, rows: Range<usize>, columns: Range<usize>) {
    let (size, step) = (r.x.shape[r.axis], r.x.strides[r.axis]);
    let [sx, si, so] = r.walk.row_strides();
    let (x, index, out) = (r.x.ptr().cast::<T>(), r.index.ptr(), r.out.ptr().cast::<T>());
    // What the closure owns the compiler can tell from the memory that is written.
    let row = move |[ox, oi, oo]: [isize; 3]| {
        // SAFETY: as the caller vouches.
        unsafe {
            let (x, index, out) = (x.offset(ox), index.offset(oi), out.offset(oo));
            if (sx, si, so) == (1, 0, 1) {
                let from = x.offset(resolve(*index, size) * step).add(columns.start);
                std::ptr::copy_nonoverlapping(from, out.add(columns.start), columns.len());
            } else {
                for i in columns.clone() {
                    let i = i as isize;
                    let j = resolve(*index.offset(i * si), size);
                    *out.offset(i * so) = *x.offset(i * sx + j * step);
                }
            }
        }
    };
    r.walk.for_rows(rows, row);
}
