//! Views, and ops that move elements without computing.

use crate::array::Strides;
use crate::{Array, Op, OpError, Scalar, with_storage};
use sinter_kernels::copy as copies;

/// Copies elements; both have one type and shape.
pub(super) fn copy(x: &Array, out: &Array) {
    if x.is_same_view(out) {
        return;
    }
    with_storage!(x.dtype(), T => copies::copy(x.src::<T>(), out.dst::<T>()));
}

/// [`copy`], wherever both lie.
pub(super) fn put(x: &Array, out: &Array) -> Result<(), OpError> {
    #[cfg(feature = "cuda")]
    if out.device() != crate::Device::Cpu {
        return super::on_device::put(x, out);
    }
    copy(x, out);
    Ok(())
}

/// A dense copy.
pub(super) fn copy_of(x: &Array) -> Result<Array, OpError> {
    let out = x.empty_like()?;
    put(x, &out)?;
    Ok(out)
}

/// Fills an array, wherever it lies.
fn fill(value: Scalar, out: &Array) -> Result<(), OpError> {
    #[cfg(feature = "cuda")]
    if let crate::Device::Cuda(index) = out.device() {
        return super::on_device::fill(index, value, out.dtype(), out);
    }
    let one = Array::scalar(value, out.dtype())?;
    with_storage!(out.dtype(), T => copies::fill(out.dst::<T>(), one.src::<T>().at(&[])));
    Ok(())
}

/// The result of a view op, its rule being kept: shared memory wherever strides
/// can express it.
pub(super) fn view(op: &Op, x: &Array) -> Result<Array, OpError> {
    Ok(match op {
        Op::Reshape { shape } => match x.view(shape) {
            Some(v) => v,
            None => copy_of(x)?.view(shape).ok_or_else(|| {
                OpError::shape(op.name(), format!("{:?} to {shape:?}", x.shape()))
            })?,
        },
        Op::Permute { perm } => x.permute(perm),
        Op::Broadcast { shape } => x
            .broadcast_to(shape)
            .ok_or_else(|| OpError::shape(op.name(), format!("{:?} to {shape:?}", x.shape())))?,
        Op::Slice { axis, start, len, step } => x.slice(*axis, *start, *len, *step),
        Op::Flip { axes } => x.flip(axes),
        Op::ViewAsReal {} => x.view_as_real(),
        Op::ViewAsComplex {} => match x.view_as_complex() {
            Some(v) => v,
            None => copy_of(x)?.view_as_complex().expect("dense pairs are neighbours"),
        },
        Op::Diagonal { axis1, axis2, row, col, len } => {
            x.diagonal([*axis1, *axis2], [*row, *col], *len)
        }
        Op::Unfold { axis, size, step, count } => x.unfold(*axis, *size, *step, *count),
        Op::AsStrided { shape, strides, offset } => {
            let dense = super::dense(x)?;
            let strides: Strides = strides.iter().map(|&s| s as isize).collect();
            dense.as_strided(shape, &strides, dense.offset().saturating_add(*offset))?
        }
        _ => unreachable!("{} is no view", op.name()),
    })
}

pub(super) fn exec(op: &Op, inputs: &[&Array], out: &Array) -> Result<(), OpError> {
    match op {
        Op::SliceAssign { axis, start, step } => {
            put(inputs[0], out)?;
            let len = inputs[1].shape()[*axis];
            put(inputs[1], &out.slice(*axis, *start, len, *step))?;
        }
        Op::Pad { low, value, .. } => {
            fill(*value, out)?;
            let mut inner = out.clone();
            for (axis, &l) in low.iter().enumerate() {
                inner = inner.slice(axis, l, inputs[0].shape()[axis], 1);
            }
            put(inputs[0], &inner)?;
        }
        Op::Concat { axis } => {
            let mut at = 0;
            for x in inputs {
                let n = x.shape()[*axis];
                put(x, &out.slice(*axis, at, n, 1))?;
                at += n;
            }
        }
        _ => unreachable!("{} moves no elements", op.name()),
    }
    Ok(())
}
