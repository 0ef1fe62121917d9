//! Recurrent sequences.

use super::{dense, layout};
use crate::op::CellKind;
use crate::{Array, DType, Op, OpError};
use sinter_kernels::recurrent::{self, Cell, Forward, Panels, Saved, Sequence, Wanted, Weight};
use smallvec::SmallVec;

/// What the kernels of recurrent sequences call a kind of unit.
pub fn cell(kind: CellKind) -> Cell {
    match kind {
        CellKind::Tanh => Cell::Tanh,
        CellKind::Relu => Cell::Relu,
        CellKind::Gru => Cell::Gru,
        CellKind::Lstm => Cell::Lstm,
    }
}

/// A sequence of `[T, N, H]`.
fn sequence(kind: CellKind, reverse: bool, shape: &[usize]) -> Sequence {
    let cell = cell(kind);
    Sequence { cell, reverse, steps: shape[0], rows: shape[1], units: shape[2] }
}

/// Runs a sequence or its derivative.
pub(super) fn exec(op: &Op, inputs: &[&Array], outs: &[&Array]) -> Result<(), OpError> {
    // Kernels write densely; strided outputs are filled by copies.
    if outs.iter().any(|o| !o.is_contiguous()) {
        let own = outs
            .iter()
            .map(|o| if o.is_contiguous() { Ok((*o).clone()) } else { o.empty_like() })
            .collect::<Result<SmallVec<[Array; 3]>, _>>()?;
        exec(op, inputs, &own.iter().collect::<SmallVec<[&Array; 3]>>())?;
        for (own, out) in own.iter().zip(outs).filter(|(_, o)| !o.is_contiguous()) {
            layout::copy(own, out);
        }
        return Ok(());
    }
    match (op, outs[0].dtype()) {
        (Op::Recurrent { kind, reverse, .. }, DType::F32) => {
            let w = dense(inputs[1])?;
            forward::<f32>(*kind, *reverse, inputs[0], Weight::Plain(w.src()), &inputs[2..], outs)
        }
        (Op::Recurrent { kind, reverse, .. }, DType::F64) => {
            let w = dense(inputs[1])?;
            forward::<f64>(*kind, *reverse, inputs[0], Weight::Plain(w.src()), &inputs[2..], outs)
        }
        (Op::RecurrentGrad { kind, reverse }, DType::F32) => {
            backward::<f32>(*kind, *reverse, inputs, outs)
        }
        (Op::RecurrentGrad { kind, reverse }, DType::F64) => {
            backward::<f64>(*kind, *reverse, inputs, outs)
        }
        (_, d) => Err(OpError::unsupported(op.name(), format!("operands of type {d}"))),
    }
}

/// Runs a sequence in f32 with a weight that the kernel has packed, which the operands
/// lack, into dense results.
pub(crate) fn run_packed(
    op: &Op,
    gates: &Array,
    weight: Weight<f32>,
    rest: &[&Array],
    outs: &[&Array],
) -> Result<(), OpError> {
    match op {
        Op::Recurrent { kind, reverse, .. } if outs.iter().all(|o| o.is_contiguous()) => {
            forward(*kind, *reverse, gates, weight, rest, outs)
        }
        _ => Err(OpError::unsupported(op.name(), "no sequence into dense results")),
    }
}

fn forward<T: Panels>(
    kind: CellKind,
    reverse: bool,
    gates: &Array,
    weight: Weight<T>,
    rest: &[&Array],
    outs: &[&Array],
) -> Result<(), OpError> {
    let lstm = kind == CellKind::Lstm;
    let rest = rest.iter().map(|a| dense(a)).collect::<Result<SmallVec<[Array; 2]>, _>>()?;
    // Gates of a row side by side are enough: inputs whose first dimension is the batch
    // give them in another order.
    let side_by_side = gates.strides()[2] == 1 || gates.shape()[2] <= 1;
    let gates = if side_by_side { gates.clone() } else { dense(gates)? };
    let kept = outs.get(if lstm { 2 } else { 1 });
    let extra = rest.get(1).map(|a| a.src());
    recurrent::forward::<T>(
        &sequence(kind, reverse, outs[0].shape()),
        &Forward {
            gates: gates.src(),
            weight,
            h0: rest[0].src(),
            c0: extra.filter(|_| lstm),
            bias: extra.filter(|_| !lstm),
            y: outs[0].dst(),
            c: lstm.then(|| outs[1].dst()),
            kept: kept.map(|k| k.dst()),
        },
    );
    Ok(())
}

fn backward<T: Panels>(
    kind: CellKind,
    reverse: bool,
    inputs: &[&Array],
    outs: &[&Array],
) -> Result<(), OpError> {
    let lstm = kind == CellKind::Lstm;
    let all = inputs.iter().map(|a| dense(a)).collect::<Result<SmallVec<[Array; 7]>, _>>()?;
    let src = |i: usize| all.get(i).map(|a| a.src::<T>());
    recurrent::backward::<T>(
        &sequence(kind, reverse, inputs[1].shape()),
        &Saved {
            weight: all[0].src(),
            states: all[1].src(),
            gy: all[2].src(),
            start: src(3),
            kept: src(4),
            gc: src(5).filter(|_| lstm),
            gkept: src(if lstm { 6 } else { 5 }),
        },
        &Wanted {
            gates: outs[0].dst(),
            hidden: (kind == CellKind::Gru).then(|| outs[1].dst()),
            h0: outs[if kind == CellKind::Gru { 2 } else { 1 }].dst(),
            c0: lstm.then(|| outs[2].dst()),
        },
    );
    Ok(())
}
