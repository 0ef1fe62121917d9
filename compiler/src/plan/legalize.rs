//! Ops in types for which neither generated code nor the library has a form, as ops
//! in types for which one of them has.
//!
//! Half precision is computed in f32 and rounded once an op, narrow integers in wider
//! ones of which the low bits are kept, as the eager kernels do.

use crate::graph::{Graph, NodeId, Value};
use sinter_runtime::{DType, Dim, Op, OpError, eager};
use smallvec::SmallVec;

/// Rewrites every op that needs it.
///
/// # Errors
/// When an op has no form in compiled programs for its types.
pub(super) fn legalize(g: &mut Graph) -> Result<(), OpError> {
    for n in g.topological() {
        let Some(op) = g.op(n) else { continue };
        let types: SmallVec<[DType; 4]> =
            g.operands(n).iter().map(|v| g.type_of(*v).dtype).collect();
        let result = g.node(n).types[0].dtype;
        let all = || types.iter().copied().chain([result]);
        if all().any(DType::is_complex) {
            return Err(OpError::unsupported(
                op.name(),
                "compiled programs hold no complex numbers",
            ));
        }
        if op.is_view() {
            continue;
        }
        if types.contains(&DType::U64) && eager::orders_u64(op)? {
            return Err(OpError::unsupported(op.name(), "compiled programs do not compare u64"));
        }
        let indirect = match op {
            Op::Cast { .. } => all().any(DType::is_half),
            _ => all().any(|d| d.computed_in() != d),
        };
        if indirect && !eager::is_library(op, &types, result) {
            let wide = widened(g, n)?;
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

/// Computes an op in the types that its own are computed in, and converts its results;
/// returns the op in those types.
fn widened(g: &mut Graph, n: NodeId) -> Result<NodeId, OpError> {
    let mut wide: SmallVec<[Value; 4]> = SmallVec::new();
    for v in g.operands(n) {
        let is = g.type_of(v).dtype;
        let dtype = is.computed_in();
        wide.push(match g.op(v.node).cloned() {
            _ if is == dtype => v,
            // Kernels hold such numbers as immediates, if they are of their type.
            Some(Op::Full { value, shape, .. }) => {
                add(g, n, Op::Full { value: value.cast(is), dtype, shape }, &[])?
            }
            _ => add(g, n, Op::Cast { dtype }, &[v])?,
        });
    }
    let mut op = g.op(n).cloned().expect("called on ops");
    match &mut op {
        Op::Full { value, dtype: d, .. } => (*value, *d) = (value.cast(*d), d.computed_in()),
        Op::Iota { dtype: d, .. } | Op::Random { dtype: d, .. } | Op::Cast { dtype: d } => {
            *d = d.computed_in();
        }
        _ => {}
    }
    let y = match op {
        Op::Cast { dtype } if g.type_of(wide[0]).dtype == dtype => wide[0],
        op => add(g, n, op, &wide)?,
    };
    for (k, ty) in g.node(n).types.clone().into_iter().enumerate() {
        let mut r = Value { output: k as u8, ..y };
        if ty.dtype != g.type_of(r).dtype {
            r = add(g, n, Op::Cast { dtype: ty.dtype }, &[r])?;
        }
        g.replace_uses(Value { node: n, output: k as u8 }, r);
    }
    g.remove_node(n);
    Ok(y.node)
}
