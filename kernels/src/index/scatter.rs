//! Writing by index.

use super::gather::across;
use super::{GRAIN, IndexError, Negative, check, resolve};
use crate::copy::fill;
use crate::lines::without;
use crate::par;
use crate::simd::{Number, vectorize};
use crate::strided::Walk;
use crate::view::{Dst, Element, Raw, Src, numel, with_size};
use smallvec::SmallVec;
use std::ops::Range;

/// How what is written joins what is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Combine {
    /// Their sum.
    Add,
    /// Their product.
    Multiply,
    /// The larger; NaN where either is NaN.
    Max,
    /// The smaller; NaN where either is NaN.
    Min,
}
crate::instances::instances!(CombineKernels for f32, f64, i64, i32, u8 => {
    fn combining(how: Combine) -> WriteLines = combining_of;
});

fn combining_of<T: Number>(how: Combine) -> WriteLines {
    macro_rules! joining {
        ($join:ident) => {{
            unsafe fn lines<T: Number>(lines: Lines, lanes: Range<usize>) {
                // SAFETY: as the caller vouches.
                unsafe { join_lines(lines, lanes, T::$join) }
            }
            lines::<T>
        }};
    }
    match how {
        Combine::Add => joining!(plus),
        Combine::Multiply => joining!(times),
        Combine::Max => joining!(larger),
        Combine::Min => joining!(smaller),
    }
}

/// `out[…, index[…, i, …], …] = x[…, i, …]`: `i`, and what `index` gives, stand at
/// `axis`. In the other axes `out` is at least as large as `index`. Of several
/// elements that go to one place the last stays.
///
/// # Errors
/// The first index that is out of range.
///
/// # Panics
/// If `index` and `x` differ in shape, or `out` is too small.
pub fn scatter<T: Element>(
    out: Dst<T>,
    axis: usize,
    index: Src<i64>,
    negative: Negative,
    x: Src<T>,
) -> Result<(), IndexError> {
    assert_eq!(index.shape, x.shape, "one index for each element that is written");
    write(out.raw(), axis, index, index.strides, negative, x.raw(), None)
}

/// As [`scatter`], but joins what is there and each element that goes there, in
/// order.
///
/// # Errors
/// The first index that is out of range.
///
/// # Panics
/// If `index` and `x` differ in shape, or `out` is too small.
pub fn scatter_combine<T: Number>(
    out: Dst<T>,
    axis: usize,
    index: Src<i64>,
    negative: Negative,
    x: Src<T>,
    how: Combine,
) -> Result<(), IndexError> {
    assert_eq!(index.shape, x.shape, "one index for each element that is written");
    let how = T::combining(how);
    write(out.raw(), axis, index, index.strides, negative, x.raw(), Some(how))
}

/// `out[…, index[i], …] = x[…, i, …]` for a vector of indices: whole slices across
/// `axis`. Of several slices that go to one place the last stays.
///
/// # Errors
/// The first index that is out of range.
///
/// # Panics
/// If `x` has not the shape of `out`, with as many elements along `axis` as there
/// are indices.
pub fn index_copy<T: Element>(
    out: Dst<T>,
    axis: usize,
    index: Src<i64>,
    negative: Negative,
    x: Src<T>,
) -> Result<(), IndexError> {
    let strides = across(&index, axis, x.shape);
    write(out.raw(), axis, index, &strides, negative, x.raw(), None)
}

/// As [`index_copy`], but joins what is there and each slice that goes there, in
/// order.
///
/// # Errors
/// The first index that is out of range.
///
/// # Panics
/// If `x` has not the shape of `out`, with as many elements along `axis` as there
/// are indices.
pub fn index_combine<T: Number>(
    out: Dst<T>,
    axis: usize,
    index: Src<i64>,
    negative: Negative,
    x: Src<T>,
    how: Combine,
) -> Result<(), IndexError> {
    let strides = across(&index, axis, x.shape);
    let how = T::combining(how);
    write(out.raw(), axis, index, &strides, negative, x.raw(), Some(how))
}

/// Gradient of selecting rows `index: [m]` of a table with respect to the table:
/// each row of `gtable: [rows, d]` is the sum, in order, of those rows of `gy: [m, d]`
/// that were read from it; the row `padding`, if any, stays zero.
///
/// # Errors
/// The first index that is out of range; negative ones are.
///
/// # Panics
/// If shapes do not match, or there is no row `padding`.
pub fn embedding_grad<T: Number>(
    gy: Src<T>,
    index: Src<i64>,
    padding: Option<usize>,
    gtable: Dst<T>,
) -> Result<(), IndexError> {
    let strides = across(&index, 0, gy.shape);
    // Before the table is cleared.
    check(index, gtable.shape[0], Negative::Refused)?;
    fill(gtable, T::ZERO);
    let add = T::combining(Combine::Add);
    write(gtable.raw(), 0, index, &strides, Negative::Refused, gy.raw(), Some(add))?;
    if let Some(row) = padding {
        assert!(row < gtable.shape[0], "the padding is a row of the table");
        for i in 0..gtable.shape[1] as isize {
            let offset = row as isize * gtable.strides[0] + i * gtable.strides[1];
            // SAFETY: within the table.
            unsafe { *gtable.ptr().offset(offset) = T::ZERO };
        }
    }
    Ok(())
}

/// `out[…, c] = 1` where `c` is the index at `[…]`, else 0. The last axis of `out` is
/// that of the classes.
///
/// # Errors
/// The first index that is out of range; negative ones are.
///
/// # Panics
/// If `out` without its last axis has not the shape of `index`.
pub fn one_hot<T: Number>(index: Src<i64>, out: Dst<T>) -> Result<(), IndexError> {
    let (&classes, shape) = out.shape.split_last().expect("the last axis is that of classes");
    assert_eq!(index.shape, shape, "one index for each row of the output");
    check(index, classes, Negative::Refused)?;
    fill(out, T::ZERO);
    if numel(shape) == 0 {
        return Ok(());
    }
    let step = out.strides[shape.len()];
    let walk = Walk::new(shape, [index.strides, &out.strides[..shape.len()]]);
    let (len, [si, so]) = (walk.row_len(), walk.row_strides());
    walk.for_rows(0..walk.rows(), |[oi, oo]| {
        for i in 0..len as isize {
            // SAFETY: the walk stays within both views, a checked index within the
            // last axis.
            unsafe {
                let class = *index.ptr().offset(oi + i * si) as isize;
                *out.ptr().offset(oo + i * so + class * step) = T::ONE;
            }
        }
    });
    Ok(())
}

/// Lines along the axis that lie in one row: the `n` elements of a line are written in
/// order, different lines by any thread.
#[doc(hidden)]
#[derive(Clone, Copy)]
pub struct Lines {
    out: *mut u8,
    index: *const i64,
    x: *const u8,
    n: usize,
    /// Elements of the axis.
    size: usize,
    /// Distances along the axis, and from line to line, in `out`, `index` and `x`.
    step: [isize; 3],
    lane: [isize; 3],
}

/// Writes those of the lines that are in the range.
///
/// Unsafe: all the elements that it reaches are there and of its type, those of `out`
/// to write.
type WriteLines = unsafe fn(Lines, Range<usize>);

/// Writes by index; `strides` are those of `index` in the shape of `x`. `how` joins
/// elements of the operands' type with what is there, which is else replaced.
#[inline(never)]
fn write(
    out: Raw,
    axis: usize,
    index: Src<i64>,
    strides: &[isize],
    negative: Negative,
    x: Raw,
    how: Option<WriteLines>,
) -> Result<(), IndexError> {
    check(index, out.shape[axis], negative)?;
    assert_eq!(x.shape.len(), out.shape.len(), "operands have the same number of axes");
    let inside = (0..x.shape.len()).all(|d| d == axis || x.shape[d] <= out.shape[d]);
    assert!(inside, "{:?} does not hold what {:?} brings", out.shape, x.shape);
    if numel(x.shape) == 0 {
        return Ok(());
    }
    let f: WriteLines = match how {
        Some(f) => f,
        None => with_size!(x.size, T => set_lines::<T>),
    };
    let all = [out.strides, strides, x.strides];
    let rest: [SmallVec<[isize; 6]>; 3] = all.map(|s| without(s, axis));
    let shape = without(x.shape, axis);
    let walk = Walk::new(&shape, [&rest[0], &rest[1], &rest[2]]);
    let (lanes, lane) = (walk.row_len(), walk.row_strides());
    let (n, size, step) = (x.shape[axis], out.shape[axis], all.map(|s| s[axis]));
    let bytes = x.size as isize;
    let piece = |[oo, oi, ox]: [isize; 3], lanes: Range<usize>| {
        // SAFETY: the walk stays within `index` and `x`; checked indices, and extents
        // that suffice in the other axes, stay within `out`.
        unsafe {
            let (out, x) = (out.ptr().offset(oo * bytes), x.ptr().offset(ox * bytes));
            let index = index.ptr().offset(oi);
            f(Lines { out, index, x, n, size, step, lane }, lanes);
        }
    };
    let line_cost = n * if lane[1] == 0 { 1 } else { 8 };
    let grain = (GRAIN * 8).div_ceil(line_cost);
    if walk.rows() == 1 {
        // At least a few cache lines for each thread.
        par::for_range(lanes, grain.max(64), |r| piece([0; 3], r));
    } else {
        par::for_range(walk.rows(), grain.div_ceil(lanes), |rows| {
            walk.for_rows(rows, |at| piece(at, 0..lanes));
        });
    }
    Ok(())
}

impl Lines {
    /// Whether all lines have the same indices and lie side by side, so that slices go
    /// from place to place.
    fn are_slices(&self) -> bool {
        self.lane == [1, 0, 1]
    }

    /// Calls `f(to, from)` for line zero's element of each slice.
    ///
    /// # Safety
    /// As for [`WriteLines`]; the lines are slices.
    #[inline(always)]
    unsafe fn for_slices<T>(self, f: impl Fn(*mut T, *const T)) {
        let [so, si, sx] = self.step;
        for i in 0..self.n as isize {
            // SAFETY: as the caller vouches.
            unsafe {
                let j = resolve(*self.index.offset(i * si), self.size);
                f(self.out.cast::<T>().offset(j * so), self.x.cast::<T>().offset(i * sx));
            }
        }
    }

    /// Joins what is there and each element that goes there.
    ///
    /// # Safety
    /// As for [`WriteLines`].
    #[inline(always)]
    unsafe fn one_by_one<T: Copy>(self, lanes: Range<usize>, join: impl Fn(T, T) -> T) {
        let Lines { n, size, step: [so, si, sx], lane: [lo, li, lx], index, .. } = self;
        let (out, x) = (self.out.cast::<T>(), self.x.cast::<T>());
        // SAFETY: as the caller vouches.
        let one = move |l: isize, i: isize| unsafe {
            let j = resolve(*index.offset(i * si + l * li), size);
            let to = out.offset(j * so + l * lo);
            *to = join(*to, *x.offset(i * sx + l * lx));
        };
        // Inside, what is nearer in memory.
        if lo.abs() < so.abs() {
            for i in 0..n as isize {
                for l in lanes.clone() {
                    one(l as isize, i);
                }
            }
        } else {
            for l in lanes {
                for i in 0..n as isize {
                    one(l as isize, i);
                }
            }
        }
    }
}

/// # Safety
/// As for [`WriteLines`], with elements of the size of `T`.
unsafe fn set_lines<T: Copy>(lines: Lines, lanes: Range<usize>) {
    // SAFETY: as the caller vouches.
    unsafe {
        if lines.are_slices() {
            lines.for_slices::<T>(|to, from| {
                let to = to.add(lanes.start);
                to.copy_from_nonoverlapping(from.add(lanes.start), lanes.len());
            });
        } else {
            lines.one_by_one(lanes, |_: T, new| new);
        }
    }
}

/// # Safety
/// As for [`WriteLines`], with elements of type `T`.
#[inline(always)]
unsafe fn join_lines<T: Copy>(lines: Lines, lanes: Range<usize>, join: impl Fn(T, T) -> T + Copy) {
    if !lines.are_slices() {
        // SAFETY: as the caller vouches.
        return unsafe { lines.one_by_one(lanes, join) };
    }
    vectorize(
        #[inline(always)]
        move || {
            // SAFETY: as the caller vouches.
            unsafe {
                lines.for_slices::<T>(
                    #[inline(always)]
                    |to, from| {
                        for l in lanes.clone() {
                            *to.add(l) = join(*to.add(l), *from.add(l));
                        }
                    },
                );
            }
        },
    );
}
