//! Ops that make arrays from nothing, and dropout.
//!
//! [`count`] fills with numbers that are known, [`draw`] with random ones.

use super::layout;
use super::pointwise::with_core;
use crate::op::{RandomKind, SampleKind};
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

/// Seed and offset of an op, with what `place` adds to them.
fn begin(seed: u64, offset: u64, place: Option<&&Array>) -> (u64, u64) {
    let Some(place) = place else { return (seed, offset) };
    let add = place.to_vec::<i64>();
    (seed.wrapping_add(add[0] as u64), offset.wrapping_add(add[1] as u64))
}

pub(super) fn draw(op: &Op, inputs: &[&Array], out: &Array) {
    match op {
        Op::Random { kind, seed, offset, .. } => {
            let (seed, offset) = &begin(*seed, *offset, inputs.first());
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
            let (seed, offset) = &begin(*seed, *offset, inputs.get(1));
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

/// Draws by rejection, in f64.
pub(super) fn sample(op: &Op, inputs: &[&Array], out: &Array) -> Result<(), OpError> {
    let Op::Sample { kind, seed, offset } = op else {
        unreachable!("{} is no distribution", op.name())
    };
    let params = inputs
        .iter()
        .map(|x| Ok(super::pointwise::in_type(x, DType::F64)?.to_vec::<f64>()))
        .collect::<Result<Vec<Vec<f64>>, OpError>>()?;
    let g = Philox::new(*seed);
    let mut values = match kind {
        SampleKind::Gamma => g.gamma(*offset, &params[0]),
        SampleKind::Poisson => g.poisson(*offset, &params[0]),
        SampleKind::Binomial => g.binomial(*offset, &params[0], &params[1]),
    };
    if *kind == SampleKind::Gamma {
        // Gamma numbers are not zero, however small their shape: logarithms stay finite.
        let least =
            if out.dtype() == DType::F64 { f64::MIN_POSITIVE } else { f32::MIN_POSITIVE.into() };
        values.iter_mut().for_each(|v| *v = v.max(least));
    }
    let drawn = Array::from_slice(&values, out.shape())?;
    super::pointwise::exec(&Op::Cast { dtype: out.dtype() }, &[&drawn], out)
}
