//! Ops that make arrays from nothing, and dropout.
//!
//! [`count`] fills with numbers that are known, [`draw`] with random ones.

use super::layout;
use super::pointwise::with_core;
use crate::op::RandomKind;
use crate::{Array, DType, Op, OpError, with_storage};
use sinter_kernels::copy as copies;
use sinter_kernels::rng::Philox;

pub(super) fn count(op: &Op, out: &Array) -> Result<(), OpError> {
    match op {
        Op::Full { value, dtype, .. } => {
            let one = Array::scalar(*value, *dtype)?;
            with_storage!(*dtype, T => {
                copies::fill(out.dst::<T>(), one.src::<T>().at(&[]));
            });
        }
        Op::Iota { axis, dtype, .. } => {
            // One line of indices, repeated along the other axes.
            let n = out.shape()[*axis];
            let line = Array::empty(&[n], *dtype)?;
            with_core!(*dtype, T => copies::iota(line.dst::<T>(), 0, 1));
            if *dtype == DType::Bool {
                copies::to_bool(line.src::<u8>(), line.dst::<u8>());
            }
            let mut shape = vec![1; out.rank()];
            shape[*axis] = n;
            let line = line.view(&shape).and_then(|l| l.broadcast_to(out.shape()));
            layout::copy(&line.expect("a line of ones and n repeats to any shape"), out);
        }
        _ => unreachable!("{} makes nothing from nothing", op.name()),
    }
    Ok(())
}

pub(super) fn draw(op: &Op, inputs: &[&Array], out: &Array) {
    match op {
        Op::Random { kind, seed, offset, .. } => {
            let g = Philox::new(*seed);
            match (kind, out.dtype()) {
                (RandomKind::Uniform, DType::F32) => {
                    g.uniform::<f32>(*offset, 0.0, 1.0, out.dst());
                }
                (RandomKind::Uniform, _) => {
                    g.uniform::<f64>(*offset, 0.0, 1.0, out.dst());
                }
                (RandomKind::Normal, DType::F32) => {
                    g.normal::<f32>(*offset, 0.0, 1.0, out.dst());
                }
                (RandomKind::Normal, _) => {
                    g.normal::<f64>(*offset, 0.0, 1.0, out.dst());
                }
            }
        }
        Op::Dropout { p, seed, offset } => {
            let (g, x) = (Philox::new(*seed), inputs[0]);
            if out.dtype() == DType::F32 {
                g.dropout::<f32>(*offset, p.get(), x.src(), out.dst());
            } else {
                g.dropout::<f64>(*offset, p.get(), x.src(), out.dst());
            }
        }
        _ => unreachable!("{} draws nothing", op.name()),
    }
}
