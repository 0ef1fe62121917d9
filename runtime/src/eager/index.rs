//! Gathering and scattering by index.

use super::layout;
use crate::op::ScatterKind;
use crate::{Array, DType, Op, OpError, with_storage};
use sinter_kernels::index::{
    Combine, IndexError, Negative, gather, index_combine, index_select, scatter, scatter_combine,
};

pub(super) fn exec(op: &Op, inputs: &[&Array], out: &Array) -> Result<(), OpError> {
    let (result, axis) = match op {
        Op::Gather { axis } => {
            let (x, i) = (inputs[0], inputs[1]);
            let r = with_storage!(out.dtype(), T => {
                gather::<T>(x.src(), *axis, i.src(), Negative::Refused, out.dst())
            });
            (r, *axis)
        }
        Op::IndexSelect { axis } => {
            let (x, i) = (inputs[0], inputs[1]);
            let r = with_storage!(out.dtype(), T => {
                index_select::<T>(x.src(), *axis, i.src(), Negative::Refused, out.dst())
            });
            (r, *axis)
        }
        Op::Scatter { axis, kind } => {
            layout::copy(inputs[0], out);
            let (i, v) = (inputs[1], inputs[2]);
            let r = match kind {
                ScatterKind::Set => with_storage!(out.dtype(), T => {
                    scatter::<T>(out.dst(), *axis, i.src(), Negative::Refused, v.src())
                }),
                _ => join(op, *kind, out, |out, how| {
                    macro_rules! run {
                        ($t:ty) => {
                            scatter_combine::<$t>(
                                out.dst(),
                                *axis,
                                i.src(),
                                Negative::Refused,
                                v.src(),
                                how,
                            )
                        };
                    }
                    for_sums!(out.dtype(), run)
                })?,
            };
            (r, *axis)
        }
        Op::IndexAdd { axis } => {
            layout::copy(inputs[0], out);
            let (i, v) = (inputs[1], inputs[2]);
            let r = join(op, ScatterKind::Add, out, |out, how| {
                macro_rules! run {
                    ($t:ty) => {
                        index_combine::<$t>(
                            out.dst(),
                            *axis,
                            i.src(),
                            Negative::Refused,
                            v.src(),
                            how,
                        )
                    };
                }
                for_sums!(out.dtype(), run)
            })?;
            (r, *axis)
        }
        _ => unreachable!("{} takes no index", op.name()),
    };
    result.map_err(|IndexError { position, index, size }| OpError::Index {
        op: op.name().to_string(),
        index,
        position,
        axis,
        size,
    })
}

macro_rules! for_sums {
    ($dtype:expr, $run:ident) => {
        match $dtype {
            DType::F32 => $run!(f32),
            DType::F64 => $run!(f64),
            DType::I64 => $run!(i64),
            DType::I32 => $run!(i32),
            _ => $run!(u8),
        }
    };
}
use for_sums;

/// Joining needs numbers: not truth values.
fn join<R>(
    op: &Op,
    kind: ScatterKind,
    out: &Array,
    f: impl FnOnce(&Array, Combine) -> R,
) -> Result<R, OpError> {
    if out.dtype() == DType::Bool {
        return Err(OpError::dtype(op.name(), "cannot join bool values"));
    }
    let how = match kind {
        ScatterKind::Set | ScatterKind::Add => Combine::Add,
        ScatterKind::Prod => Combine::Multiply,
        ScatterKind::Max => Combine::Max,
        ScatterKind::Min => Combine::Min,
    };
    Ok(f(out, how))
}
