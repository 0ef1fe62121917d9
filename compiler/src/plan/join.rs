//! Products of one operand with several weights become one product with the weights
//! side by side: the projections of queries, keys and values, say.
//!
//! What reads the results then reads slices of one, whose rows lie further apart; so
//! only products are joined that are read through views and by attention alone, which
//! take any strides. The weights are put together when constants are folded.

use crate::graph::{Graph, Kind, NodeId, Value};
use rustc_hash::FxHashMap;
use sinter_runtime::op::Act;
use sinter_runtime::{DType, Dim, Extent, Op, OpError};
use smallvec::SmallVec;

/// What products have in common that can be joined.
type Likeness = (Value, Act, usize);

/// Joins them.
///
/// # Errors
/// When a joined op breaks a rule: a mistake in this pass.
pub(super) fn join_products(g: &mut Graph) -> Result<(), OpError> {
    let mut known: FxHashMap<NodeId, bool> = FxHashMap::default();
    let mut order: Vec<Likeness> = vec![];
    let mut groups: FxHashMap<Likeness, Vec<NodeId>> = FxHashMap::default();
    for n in g.topological() {
        let operands = g.operands(n);
        let weight = match &g.node(n).kind {
            Kind::Input { .. } => false,
            Kind::Constant(_) => true,
            Kind::Op(op) => op.is_view() && operands.iter().all(|v| known[&v.node]),
        };
        known.insert(n, weight);
        let Some(Op::MatMul { act }) = g.op(n) else { continue };
        let (x, rest) = (operands[0], &operands[1..]);
        let fits = !known[&x.node]
            && rest.iter().all(|v| known[&v.node])
            && g.type_of(rest[0]).shape.len() == 2
            && rest.get(1).is_none_or(|b| g.type_of(*b).shape.len() == 1)
            && g.node(n).types[0].dtype == DType::F32
            && read_by_strides(g, n);
        if fits {
            let like = (x, *act, operands.len());
            let group = groups.entry(like).or_default();
            if group.is_empty() {
                order.push(like);
            }
            group.push(n);
        }
    }
    for like in order {
        let group = &groups[&like];
        if group.len() > 1 {
            join(g, like, group)?;
        }
    }
    g.remove_dead();
    Ok(())
}

/// Whether strides are all the same to everything that reads the result.
fn read_by_strides(g: &Graph, n: NodeId) -> bool {
    let users = g.users(n);
    let takes = |u: &NodeId| {
        g.op(*u).is_some_and(|op| match op {
            Op::Attention { .. } | Op::AttentionGrad { .. } => true,
            op => op.is_view() && read_by_strides(g, *u),
        })
    };
    !g.is_output(Value { node: n, output: 0 }) && !users.is_empty() && users.iter().all(takes)
}

fn join(g: &mut Graph, (x, act, operands): Likeness, group: &[NodeId]) -> Result<(), OpError> {
    let mut origin = g.node(group[0]).origin.clone();
    origin.made_by = Some("join-products".into());
    let parts: Vec<SmallVec<[Value; 3]>> = group.iter().map(|&n| g.operands(n)).collect();
    let mut all: SmallVec<[Value; 3]> = smallvec::smallvec![x];
    for (i, axis) in (1..operands).zip([1, 0]) {
        let values: Vec<Value> = parts.iter().map(|p| p[i]).collect();
        let node = g.add_op(Op::Concat { axis }, &values, origin.clone())?;
        all.push(Value { node, output: 0 });
    }
    let node = g.add_op(Op::MatMul { act }, &all, origin.clone())?;
    let y = Value { node, output: 0 };
    let axis = g.type_of(y).shape.len() - 1;
    let mut start = Dim::of(0);
    for &n in group {
        let len = g.node(n).types[0].shape[axis].clone();
        let slice = Op::Slice { axis, step: 1, start: start.clone(), len: len.clone() };
        let node = g.add_op(slice, &[y], origin.clone())?;
        g.replace_uses(Value { node: n, output: 0 }, Value { node, output: 0 });
        start = start.plus(&len);
    }
    for &n in group {
        g.remove_node(n);
    }
    Ok(())
}
