//! The invariants of a graph, checked after every pass.

use super::{Graph, Kind, NodeId};
use petgraph::Direction::Incoming;
use petgraph::visit::EdgeRef;
use sinter_runtime::op::{TypeRef, infer};
use sinter_runtime::{Dim, Extent};
use smallvec::SmallVec;
use thiserror::Error;

/// An invariant that does not hold: a mistake in the compiler, or in a graph
/// written by hand.
#[derive(Debug, Clone, PartialEq, Error)]
#[error("invalid graph `{graph}`: {node}{reason}")]
pub struct VerifyError {
    /// Name of the graph.
    pub graph: String,
    /// The node, where there is one.
    pub node: String,
    /// What is wrong.
    pub reason: String,
}

/// Checks that operands are numbered without gaps, types follow from operands,
/// symbols are declared, constants have their types, and there is no cycle.
///
/// # Errors
/// The first invariant that does not hold.
pub fn verify(g: &Graph) -> Result<(), VerifyError> {
    let fail = |node: Option<NodeId>, reason: String| {
        Err(VerifyError {
            graph: g.name.clone(),
            node: node.map_or(String::new(), |n| format!("node {} ", n.index())),
            reason,
        })
    };
    if g.topological().len() != g.len() {
        return fail(None, "there is a cycle".into());
    }
    for n in g.dag.node_indices() {
        let node = &g.dag[n];
        let mut slots: SmallVec<[u16; 4]> =
            g.dag.edges_directed(n, Incoming).map(|e| e.weight().operand).collect();
        slots.sort_unstable();
        if slots.iter().enumerate().any(|(i, &s)| i != s as usize) {
            return fail(Some(n), format!("has operands {slots:?}"));
        }
        for e in g.dag.edges_directed(n, Incoming) {
            if e.weight().output as usize >= g.dag[e.source()].types.len() {
                return fail(Some(n), "uses a result that does not exist".into());
            }
        }
        for t in &node.types {
            for d in &t.shape {
                if !declared(d, g.symbols.len()) {
                    return fail(Some(n), format!("has extent {d} with an undeclared symbol"));
                }
            }
        }
        match &node.kind {
            Kind::Input { name } => {
                if !slots.is_empty() || !g.inputs.contains(&n) {
                    return fail(Some(n), format!("input `{name}` is not a plain input"));
                }
            }
            Kind::Constant(i) => {
                let Some(c) = g.constants.get(*i) else {
                    return fail(Some(n), format!("constant {i} does not exist"));
                };
                let fits = node.types.len() == 1
                    && node.types[0].dtype == c.ty.dtype
                    && node.types[0].shape.len() == c.ty.shape.len()
                    && node.types[0].shape.iter().zip(&c.ty.shape).all(|(a, &b)| a.is(b));
                if !fits || !slots.is_empty() {
                    return fail(
                        Some(n),
                        format!("does not have the type of constant `{}`", c.name),
                    );
                }
                if c.data.as_ref().is_some_and(|data| data.ty() != c.ty) {
                    return fail(Some(n), format!("constant `{}` holds another type", c.name));
                }
            }
            Kind::Op(op) => {
                let operands = g.operands(n);
                let refs: SmallVec<[TypeRef<'_, Dim>; 4]> =
                    operands.iter().map(|v| g.type_of(*v).as_ref()).collect();
                match infer(op, &refs) {
                    Err(e) => return fail(Some(n), format!("breaks its rule: {e}")),
                    Ok(types) if types != node.types => {
                        return fail(Some(n), format!("has types {:?}, not {types:?}", node.types));
                    }
                    Ok(_) => {}
                }
            }
        }
    }
    for (i, v) in g.outputs.iter().enumerate() {
        let exists = g.dag.node_weight(v.node).is_some_and(|n| (v.output as usize) < n.types.len());
        if !exists {
            return fail(None, format!("output {i} does not exist"));
        }
    }
    for (&o, &i) in &g.updates {
        let fits = g.outputs.get(o).zip(g.inputs.get(i));
        if fits.is_none_or(|(v, n)| g.type_of(*v) != &g.node(*n).types[0])
            || g.updates.values().filter(|j| **j == i).count() > 1
        {
            return fail(None, format!("output {o} is no new value for input {i}"));
        }
    }
    for s in &g.symbols {
        if s.min > s.max || s.hint < s.min || s.hint > s.max {
            return fail(None, format!("symbol {} has range {}..={}", s.name, s.min, s.max));
        }
    }
    Ok(())
}

fn declared(d: &Dim, symbols: usize) -> bool {
    d.terms().all(|(_, powers)| powers.iter().skip(symbols).all(|&p| p == 0))
}
