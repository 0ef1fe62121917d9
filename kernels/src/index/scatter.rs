//! Writing by index.

use super::gather::across;
use super::{GRAIN, IndexError, Negative, check, resolve};
use crate::copy::fill;
use crate::lines::without;
use crate::par;
use crate::simd::{Number, vectorize};
use crate::strided::Walk;
use crate::view::{Dst, Element, Src, numel};
use half::{bf16, f16};
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
crate::instances::instances!(ScatterKernels for f32, f64, f16, bf16, i64, i32, u32, u64, u8 => {
    fn scatter_kernel(out: Dst<Self>, axis: usize, index: Src<i64>, negative: Negative, x: Src<Self>) -> Result<(), IndexError> = scatter_of;
    fn index_copy_kernel(out: Dst<Self>, axis: usize, index: Src<i64>, negative: Negative, x: Src<Self>) -> Result<(), IndexError> = index_copy_of;
});

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
    T::scatter_kernel(out, axis, index, negative, x)
}

fn scatter_of<T: Element>(
    out: Dst<T>,
    axis: usize,
    index: Src<i64>,
    negative: Negative,
    x: Src<T>,
) -> Result<(), IndexError> {
    assert_eq!(index.shape, x.shape, "one index for each element that is written");
    check(index, out.shape[axis], negative)?;
    write(out, axis, index, index.strides, x, |_, new| new);
    Ok(())
}
crate::instances::instances!(CombineKernels for f32, f64, i64, i32, u8 => {
    fn scatter_combine_kernel(out: Dst<Self>, axis: usize, index: Src<i64>, negative: Negative, x: Src<Self>, how: Combine) -> Result<(), IndexError> = scatter_combine_of;
    fn index_combine_kernel(out: Dst<Self>, axis: usize, index: Src<i64>, negative: Negative, x: Src<Self>, how: Combine) -> Result<(), IndexError> = index_combine_of;
});

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
    T::scatter_combine_kernel(out, axis, index, negative, x, how)
}

fn scatter_combine_of<T: Number>(
    out: Dst<T>,
    axis: usize,
    index: Src<i64>,
    negative: Negative,
    x: Src<T>,
    how: Combine,
) -> Result<(), IndexError> {
    assert_eq!(index.shape, x.shape, "one index for each element that is written");
    check(index, out.shape[axis], negative)?;
    combine(out, axis, index, index.strides, x, how);
    Ok(())
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
    T::index_copy_kernel(out, axis, index, negative, x)
}

fn index_copy_of<T: Element>(
    out: Dst<T>,
    axis: usize,
    index: Src<i64>,
    negative: Negative,
    x: Src<T>,
) -> Result<(), IndexError> {
    let strides = across(&index, axis, x.shape);
    check(index, out.shape[axis], negative)?;
    write(out, axis, index, &strides, x, |_, new| new);
    Ok(())
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
    T::index_combine_kernel(out, axis, index, negative, x, how)
}

fn index_combine_of<T: Number>(
    out: Dst<T>,
    axis: usize,
    index: Src<i64>,
    negative: Negative,
    x: Src<T>,
    how: Combine,
) -> Result<(), IndexError> {
    let strides = across(&index, axis, x.shape);
    check(index, out.shape[axis], negative)?;
    combine(out, axis, index, &strides, x, how);
    Ok(())
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
    check(index, gtable.shape[0], Negative::Refused)?;
    fill(gtable, T::ZERO);
    combine(gtable, 0, index, &strides, gy, Combine::Add);
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

fn combine<T: Number>(
    out: Dst<T>,
    axis: usize,
    index: Src<i64>,
    strides: &[isize],
    x: Src<T>,
    how: Combine,
) {
    match how {
        Combine::Add => write(out, axis, index, strides, x, T::plus),
        Combine::Multiply => write(out, axis, index, strides, x, T::times),
        Combine::Max => write(out, axis, index, strides, x, T::larger),
        Combine::Min => write(out, axis, index, strides, x, T::smaller),
    }
}

/// Lines along `axis`: the `n` elements of a line are written in order, different
/// lines by any thread.
#[derive(Clone, Copy)]
struct Plan {
    n: usize,
    size: usize,
    /// Distances along the axis, and from line to line, in `out`, `index` and `x`.
    step: [isize; 3],
    lane: [isize; 3],
}

/// Writes by indices that are known to be in range; `strides` are those of `index` in
/// the shape of `x`.
#[inline(always)]
fn write<T: Element>(
    out: Dst<T>,
    axis: usize,
    index: Src<i64>,
    strides: &[isize],
    x: Src<T>,
    join: impl Fn(T, T) -> T + Copy + Sync,
) {
    assert_eq!(x.shape.len(), out.shape.len(), "operands have the same number of axes");
    let inside = (0..x.shape.len()).all(|d| d == axis || x.shape[d] <= out.shape[d]);
    assert!(inside, "{:?} does not hold what {:?} brings", out.shape, x.shape);
    if numel(x.shape) == 0 {
        return;
    }
    let all = [out.strides, strides, x.strides];
    let rest: [SmallVec<[isize; 6]>; 3] = all.map(|s| without(s, axis));
    let shape = without(x.shape, axis);
    let walk = Walk::new(&shape, [&rest[0], &rest[1], &rest[2]]);
    let plan = Plan {
        n: x.shape[axis],
        size: out.shape[axis],
        step: all.map(|s| s[axis]),
        lane: walk.row_strides(),
    };
    let lanes = walk.row_len();
    let piece = |[oo, oi, ox]: [isize; 3], lanes: Range<usize>| {
        // SAFETY: the walk stays within `index` and `x`; checked indices, and extents
        // that suffice in the other axes, stay within `out`.
        unsafe {
            let (out, index) = (out.ptr().offset(oo), index.ptr().offset(oi));
            write_lines(out, index, x.ptr().offset(ox), plan, lanes, join);
        }
    };
    let line_cost = plan.n * if plan.lane[1] == 0 { 1 } else { 8 };
    let grain = (GRAIN * 8).div_ceil(line_cost);
    if walk.rows() == 1 {
        // At least a few cache lines for each thread.
        par::for_range(lanes, grain.max(64), |r| piece([0; 3], r));
    } else {
        par::for_range(walk.rows(), grain.div_ceil(lanes), |rows| {
            walk.for_rows(rows, |at| piece(at, 0..lanes));
        });
    }
}

/// # Safety
/// All the elements that the plan reaches are there, those of `out` to write.
#[inline(always)]
unsafe fn write_lines<T: Element>(
    out: *mut T,
    index: *const i64,
    x: *const T,
    plan: Plan,
    lanes: Range<usize>,
    join: impl Fn(T, T) -> T + Copy,
) {
    let Plan { n, size, step: [so, si, sx], lane: [lo, li, lx] } = plan;
    vectorize(
        #[inline(always)]
        move || {
            // SAFETY: as the caller vouches.
            unsafe {
                if li == 0 && lo == 1 && lx == 1 {
                    // Slices: one index for all lines.
                    for i in 0..n as isize {
                        let j = resolve(*index.offset(i * si), size);
                        let (to, from) = (out.offset(j * so), x.offset(i * sx));
                        for l in lanes.clone() {
                            *to.add(l) = join(*to.add(l), *from.add(l));
                        }
                    }
                    return;
                }
                let one = |l: isize, i: isize| {
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
        },
    );
}
