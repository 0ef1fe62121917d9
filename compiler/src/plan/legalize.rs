//! Ops in types for which neither generated code nor the library has a form, as ops
//! in types for which one of them has.
//!
//! Half precision is computed in f32 and rounded once an op, as the eager kernels do.

use crate::graph::{Graph, NodeId, Value};
use sinter_runtime::{DType, Dim, Op, OpError, eager};
use smallvec::SmallVec;

/// Rewrites every op that needs it.
///
/// # Errors
/// When a rewritten op breaks a rule: a mistake in the vocabulary.
pub(super) fn legalize(g: &mut Graph) -> Result<(), OpError> {
    for n in g.topological() {
        let Some(op) = g.op(n).filter(|op| !op.is_view()) else { continue };
        let half = |d: &DType| d.is_half();
        let types: SmallVec<[DType; 4]> =
            g.operands(n).iter().map(|v| g.type_of(*v).dtype).collect();
        let result = g.node(n).types[0].dtype;
        let halves = result.is_half() || types.iter().any(half);
        if halves && !eager::is_library(op, &types, result) {
            let wide = in_f32(g, n)?;
            convert_operand(g, wide)?;
        } else {
            convert_operand(g, n)?;
        }
    }
    g.remove_dead();
    Ok(())
}

/// Makes the conversion that a reduction begins with an op of its own.
fn convert_operand(g: &mut Graph, n: NodeId) -> Result<(), OpError> {
    let Some(op) = g.op(n).cloned() else { return Ok(()) };
    let [x] = g.operands(n)[..] else { return Ok(()) };
    let is = g.type_of(x).dtype;
    let dtype = eager::adds_in(&op, is, g.node(n).types[0].dtype);
    if dtype != is {
        let x = add(g, n, Op::Cast { dtype }, &[x])?;
        let y = add(g, n, op, &[x])?;
        g.replace_uses(Value { node: n, output: 0 }, y);
        g.remove_node(n);
    }
    Ok(())
}

/// Adds an op in the place of `n`.
fn add(g: &mut Graph, n: NodeId, op: Op<Dim>, operands: &[Value]) -> Result<Value, OpError> {
    let origin = g.node(n).origin.clone();
    Ok(Value { node: g.add_op(op, operands, origin)?, output: 0 })
}

/// Computes an op in f32 and rounds its results; returns the op in f32.
fn in_f32(g: &mut Graph, n: NodeId) -> Result<NodeId, OpError> {
    let dtype = DType::F32;
    let mut wide: SmallVec<[Value; 4]> = SmallVec::new();
    for v in g.operands(n) {
        let is = g.type_of(v).dtype;
        wide.push(match g.op(v.node).cloned() {
            _ if !is.is_half() => v,
            // Kernels hold such numbers as immediates, if they are of their type.
            Some(Op::Full { value, shape, .. }) => {
                add(g, n, Op::Full { value: value.cast(is), dtype, shape }, &[])?
            }
            _ => add(g, n, Op::Cast { dtype }, &[v])?,
        });
    }
    let mut op = g.op(n).cloned().expect("called on ops");
    match &mut op {
        Op::Full { value, dtype: d, .. } => (*value, *d) = (value.cast(*d), dtype),
        Op::Iota { dtype: d, .. } | Op::Random { dtype: d, .. } => *d = dtype,
        Op::Cast { dtype: d } if d.is_half() => *d = dtype,
        _ => {}
    }
    let y = match op {
        Op::Cast { dtype } if g.type_of(wide[0]).dtype == dtype => wide[0],
        op => add(g, n, op, &wide)?,
    };
    for (k, ty) in g.node(n).types.clone().into_iter().enumerate() {
        let mut r = Value { output: k as u8, ..y };
        if ty.dtype.is_half() {
            r = add(g, n, Op::Cast { dtype: ty.dtype }, &[r])?;
        }
        g.replace_uses(Value { node: n, output: k as u8 }, r);
    }
    g.remove_node(n);
    Ok(y.node)
}
