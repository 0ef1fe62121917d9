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
    check(index, x.shape[axis], negative)?;
    read(x.raw(), axis, index, index.strides, out.raw());
    Ok(())
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
    check(index, x.shape[axis], negative)?;
    read(x.raw(), axis, index, &strides, out.raw());
    Ok(())
}

/// Strides that repeat a vector of indices along all axes of `shape` but `axis`.
pub(super) fn across(index: &Src<i64>, axis: usize, shape: &[usize]) -> SmallVec<[isize; 6]> {
    assert_eq!(*index.shape, [shape[axis]], "a vector with one index for each slice");
    let mut strides = SmallVec::from_elem(0, shape.len());
    strides[axis] = index.strides[0];
    strides
}

/// Reads by indices that are known to be in range; `strides` are those of `index` in
/// the shape of `out`.
fn read(x: Raw, axis: usize, index: Src<i64>, strides: &[isize], out: Raw) {
    assert_eq!(x.shape.len(), out.shape.len(), "operands have the same number of axes");
    let inside = (0..x.shape.len()).all(|d| d == axis || x.shape[d] >= out.shape[d]);
    assert!(inside, "{:?} does not hold what {:?} wants", x.shape, out.shape);
    if numel(out.shape) == 0 {
        return;
    }
    let mut origins: SmallVec<[isize; 6]> = x.strides.into();
    origins[axis] = 0;
    let walk = Walk::new(out.shape, [&origins, strides, out.strides]);
    let (len, steps) = (walk.row_len(), walk.row_strides());
    let by = Line { size: x.shape[axis], step: x.strides[axis], steps };
    let line: ReadLine = with_size!(x.size, T => read_line::<T>);
    let row = |at: [isize; 3], r: Range<usize>| {
        // SAFETY: the walk stays within `index` and `out`; checked indices, and
        // extents that suffice in the other axes, stay within `x`.
        unsafe { line(x, index, out, at, r, by) }
    };
    let grain = if steps[1] == 0 { GRAIN * 8 } else { GRAIN };
    if walk.rows() == 1 {
        par::for_range(len, grain, |r| row([0; 3], r));
    } else {
        par::for_range(walk.rows(), grain.div_ceil(len), |rows| {
            walk.for_rows(rows, |at| row(at, 0..len));
        });
    }
}

/// How a line of the output is read: the size of the axis and the distance along it
/// in `x`, and how far `x`, `index` and `out` move on with each element.
#[derive(Clone, Copy)]
struct Line {
    size: usize,
    step: isize,
    steps: [isize; 3],
}

type ReadLine = unsafe fn(Raw, Src<i64>, Raw, [isize; 3], Range<usize>, Line);

/// # Safety
/// `T` has the size of the operands' elements, which lie within them.
unsafe fn read_line<T: Copy>(
    x: Raw,
    index: Src<i64>,
    out: Raw,
    [ox, oi, oo]: [isize; 3],
    r: Range<usize>,
    Line { size, step, steps: [sx, si, so] }: Line,
) {
    // SAFETY: as the caller vouches.
    unsafe {
        let (x, out) = (x.ptr().cast::<T>().offset(ox), out.ptr().cast::<T>().offset(oo));
        let index = index.ptr().offset(oi);
        if (sx, si, so) == (1, 0, 1) {
            let from = x.offset(resolve(*index, size) * step).add(r.start);
            std::ptr::copy_nonoverlapping(from, out.add(r.start), r.len());
        } else {
            for i in r {
                let i = i as isize;
                let j = resolve(*index.offset(i * si), size);
                *out.offset(i * so) = *x.offset(i * sx + j * step);
            }
        }
    }
}
