//! What a step of training keeps for its backward pass, and what it computes again.
//!
//! Of what the loss is computed from, the backward pass reads some values. Ones that cost
//! little, made element by element or by views from others that are kept, need not lie in
//! memory all the while: they are computed again beside what reads them. Which values to
//! keep is a minimum cut through the forward pass, between what is there anyway or is not
//! computed twice (inputs, contractions, reductions) and what the backward pass reads;
//! a value weighs what it takes in memory. (PyTorch's `min_cut_rematerialization_partition`;
//! He and Yu, "Transcending runtime-memory tradeoffs in checkpointing by being fusion
//! aware", 2023.)
//!
//! This comes after rewriting, which would make one of the two computations again, and no
//! kernel of the forward pass takes in what belongs to the backward pass. What is computed
//! again is the same bits.
//!
//! The backward pass comes after the forward pass, what depends on as many contractions
//! together, so that the derivative by a weight follows that by the values beside it; and
//! what is cheap comes just before its first use.

use crate::cost;
use crate::graph::{Graph, Kind, NodeId, Value, sink_side};
use petgraph::graph::{DiGraph, NodeIndex};
use rustc_hash::{FxHashMap, FxHashSet};
use sinter_runtime::op::TensorType;
use sinter_runtime::{Dim, Op, OpError};
use smallvec::SmallVec;

/// More than anything weighs.
const NEVER: u64 = 1 << 50;
/// Nanoseconds of writing or reading a byte; having it in memory is worth as much.
const BYTE: f64 = 0.02;

/// In which order ops are looked at, and what is computed again.
pub(super) struct Again {
    /// All nodes, every operand before its users.
    pub(super) order: Vec<NodeId>,
    /// Nodes that do what others did before.
    pub(super) late: FxHashSet<NodeId>,
    /// Of a step of training, what the loss is computed from: apart from all else.
    pub(super) forward: FxHashSet<NodeId>,
}

impl Again {
    /// Nothing is, and nothing is apart.
    pub(super) fn nothing(g: &Graph) -> Again {
        Again { order: g.topological(), late: FxHashSet::default(), forward: FxHashSet::default() }
    }
}

/// Puts what is computed again into the graph of a step of training.
///
/// # Errors
/// When an op breaks its rule: a mistake in this pass.
pub(super) fn recompute(g: &mut Graph) -> Result<Again, OpError> {
    let forward = forward(g);
    let order = schedule(g, &forward);
    let lost = lost(g, &order, &forward);
    let mut again = Again { order: vec![], late: FxHashSet::default(), forward };
    let mut copies: FxHashMap<NodeId, NodeId> = FxHashMap::default();
    for n in order {
        if g.op(n).is_some() && !again.forward.contains(&n) {
            let operands = g.operands(n);
            let moved = operands.iter().map(|&v| copy(g, v, &lost, &mut copies, &mut again));
            let moved = moved.collect::<Result<SmallVec<[Value; 3]>, OpError>>()?;
            if moved != operands {
                g.set_operands(n, &moved);
            }
        }
        again.order.push(n);
    }
    Ok(again)
}

/// All nodes in order: the forward pass, then the backward pass.
fn schedule(g: &Graph, forward: &FxHashSet<NodeId>) -> Vec<NodeId> {
    let all = g.topological();
    let first = |n: &NodeId| forward.contains(n) || g.op(*n).is_none();
    let mut order: Vec<NodeId> = all.iter().copied().filter(first).collect();
    let mut placed: FxHashSet<NodeId> = order.iter().copied().collect();
    // How many ops that are not cheap each waits for.
    let mut level: FxHashMap<NodeId, usize> = FxHashMap::default();
    let outputs: FxHashSet<NodeId> = g.outputs().iter().map(|v| v.node).collect();
    let mut drivers: Vec<(usize, NodeId)> = Vec::new();
    for &n in all.iter().filter(|n| !placed.contains(n)) {
        let before = g.operands(n).iter().filter_map(|v| level.get(&v.node).copied()).max();
        let heavy = g.op(n).is_some_and(|op| !cheap(op));
        let now = before.unwrap_or(0) + usize::from(heavy);
        level.insert(n, now);
        if heavy || outputs.contains(&n) {
            drivers.push((now, n));
        }
    }
    // Stable: of equals, the first in the graph.
    drivers.sort_by_key(|d| d.0);
    for (_, n) in drivers {
        let mut todo = vec![n];
        while let Some(&n) = todo.last() {
            let behind = todo.len();
            if !placed.contains(&n) {
                todo.extend(g.operands(n).iter().map(|v| v.node).filter(|m| !placed.contains(m)));
            }
            if todo.len() == behind {
                todo.pop();
                if placed.insert(n) {
                    order.push(n);
                }
            }
        }
    }
    // What nothing needs.
    order.extend(all.into_iter().filter(|n| placed.insert(*n)));
    order
}

/// The value as it is computed again, if it is.
fn copy(
    g: &mut Graph,
    v: Value,
    lost: &FxHashSet<NodeId>,
    copies: &mut FxHashMap<NodeId, NodeId>,
    again: &mut Again,
) -> Result<Value, OpError> {
    if !lost.contains(&v.node) {
        return Ok(v);
    }
    if let Some(&node) = copies.get(&v.node) {
        return Ok(Value { node, ..v });
    }
    let operands = g.operands(v.node).into_iter().map(|x| copy(g, x, lost, copies, again));
    let operands = operands.collect::<Result<SmallVec<[Value; 3]>, OpError>>()?;
    let op = g.op(v.node).cloned().expect("inputs are not computed");
    let origin = g.node(v.node).origin.clone();
    let node = g.add_op(op, &operands, origin)?;
    copies.insert(v.node, node);
    again.late.insert(node);
    again.order.push(node);
    Ok(Value { node, ..v })
}

/// What the results depend on that are no new values of inputs: the loss.
fn forward(g: &Graph) -> FxHashSet<NodeId> {
    let given = (0..g.outputs().len()).filter(|&i| g.updates(i).is_none());
    let mut todo: Vec<NodeId> = given.map(|i| g.outputs()[i].node).collect();
    let mut seen = FxHashSet::default();
    while let Some(n) = todo.pop() {
        if seen.insert(n) {
            todo.extend(g.operands(n).iter().map(|v| v.node));
        }
    }
    seen
}

/// Whether an op may be computed twice: it goes element by element, moves nothing, or
/// draws what it drew.
fn cheap(op: &Op<Dim>) -> bool {
    let draws = matches!(op, Op::Dropout { .. } | Op::Random { .. } | Op::Iota { .. });
    op.is_pointwise() || op.is_view() || draws || matches!(op, Op::Full { .. })
}

/// Nanoseconds as a weight, in picoseconds.
fn weight(ns: f64) -> u64 {
    (ns * 1e3).min(NEVER as f64 / 2.0) as u64
}

/// Nodes of the forward pass whose values the backward pass computes again.
fn lost(g: &Graph, order: &[NodeId], forward: &FxHashSet<NodeId>) -> FxHashSet<NodeId> {
    let hints = g.hints();
    let nodes: Vec<NodeId> = order.iter().copied().filter(|n| forward.contains(n)).collect();
    let mut net: DiGraph<(), u64> = DiGraph::new();
    let (source, sink) = (net.add_node(()), net.add_node(()));
    // Each value has two ends, and between them what it costs to keep it.
    let ends: FxHashMap<NodeId, [NodeIndex; 2]> =
        nodes.iter().map(|&n| (n, [net.add_node(()), net.add_node(())])).collect();
    let mut read = false;
    for &n in &nodes {
        let [from, to] = ends[&n];
        let (free, twice) = match &g.node(n).kind {
            Kind::Op(op) => (matches!(op, Op::Full { .. }), cheap(op)),
            _ => (true, false),
        };
        let bytes = |t: &TensorType<Dim>| cost::elements(t, &hints) * t.dtype.size() as f64;
        let bytes: f64 = g.node(n).types.iter().map(bytes).sum();
        // Whether a kernel on either side reads it from memory.
        let whole = |inside: bool| {
            let mut users = g.users(n).into_iter();
            users.any(|u| ends.contains_key(&u) == inside && !g.op(u).is_some_and(cheap))
        };
        let passes = if whole(true) { 2.0 } else { 3.0 };
        let kept = match g.op(n) {
            _ if free => 0,
            // What it is a view of is kept in its place.
            Some(op) if op.is_view() => NEVER,
            _ => weight(bytes * BYTE * passes),
        };
        net.add_edge(from, to, kept);
        let again = match g.op(n) {
            _ if !twice => NEVER,
            Some(op) if op.is_view() || free => 0,
            Some(op) => {
                let written = if whole(false) { bytes * BYTE } else { 0.0 };
                weight(
                    cost::element_wise_ns(op) * cost::elements(&g.node(n).types[0], &hints)
                        + written,
                )
            }
            None => 0,
        };
        if again > 0 {
            net.add_edge(source, from, again);
        }
        let mut behind = false;
        for u in g.users(n) {
            match ends.get(&u) {
                Some([user, _]) if g.op(u).is_some_and(cheap) => {
                    net.add_edge(to, *user, NEVER);
                }
                Some(_) => {}
                None => behind = true,
            }
        }
        if behind {
            net.add_edge(to, sink, NEVER);
            read = true;
        }
    }
    if !read {
        return FxHashSet::default();
    }
    // Of all minimum cuts the one that computes the least again.
    let behind = sink_side(&net, source, sink);
    nodes.into_iter().filter(|n| behind.contains(&ends[n][0])).collect()
}
