//! A part of a graph as a graph of its own, to be measured alone.

use crate::cost;
use crate::graph::{Graph, Kind, NodeId, Origin, Value};
use rustc_hash::FxHashMap;
use sinter_runtime::op::TensorType;
use sinter_runtime::{Dim, Extent, Op};

/// Some ops of a graph, at the sizes it is planned for. Values from outside are inputs;
/// constants are themselves, since kernels pack them.
pub(super) struct Region {
    /// The ops as a graph.
    pub(super) graph: Graph,
    /// The ops in the graph they are from.
    pub(super) from: Vec<NodeId>,
    /// The same ops in [`Region::graph`].
    pub(super) ops: Vec<NodeId>,
    /// What it costs by estimate, in nanoseconds.
    pub(super) cost: f64,
}

struct Copy<'a> {
    g: &'a Graph,
    sizes: Vec<usize>,
    into: Graph,
    known: FxHashMap<NodeId, NodeId>,
    inputs: FxHashMap<Value, Value>,
}

impl Region {
    /// Takes ops, in topological order, with one result each. `None` where something has
    /// no size.
    pub(super) fn new(g: &Graph, nodes: &[NodeId]) -> Option<Region> {
        let mut copy = Copy {
            g,
            sizes: g.hints(),
            into: Graph::new("region"),
            known: FxHashMap::default(),
            inputs: FxHashMap::default(),
        };
        let mut ops = vec![];
        let mut cost = 0.0;
        for &n in nodes {
            if g.node(n).types.len() != 1 {
                return None;
            }
            for v in g.operands(n) {
                if !nodes.contains(&v.node) {
                    copy.outside(v)?;
                }
            }
            let types: Vec<_> = g.operands(n).iter().map(|v| g.type_of(*v).clone()).collect();
            let refs: Vec<_> = types.iter().collect();
            cost += cost::estimate(g.op(n)?, &refs, &g.node(n).types, &copy.sizes);
            ops.push(copy.op(n)?);
        }
        for (&n, &op) in nodes.iter().zip(&ops) {
            let outside = |u: &NodeId| !nodes.contains(u);
            if g.is_output(Value { node: n, output: 0 }) || g.users(n).iter().any(outside) {
                copy.into.add_output(Value { node: op, output: 0 });
            }
        }
        Some(Region { graph: copy.into, from: nodes.to_vec(), ops, cost })
    }

    /// The ops and their types, for people: `matmul f32[128, 384], f32[384, 1536]; relu`.
    pub(super) fn describe(&self) -> String {
        let g = &self.graph;
        let Some(&first) = self.ops.first() else { return String::new() };
        let name = |n: &NodeId| g.op(*n).map_or("", |o| o.name()).to_string();
        let types: Vec<String> =
            g.operands(first).iter().map(|v| g.type_of(*v).text(&[])).collect();
        let mut text = format!("{} {}", name(&first), types.join(", "));
        let rest: Vec<String> = self.ops[1..].iter().map(name).collect();
        if rest.len() > 4 {
            text += &format!("; {} and {} more", rest[..3].join(" "), rest.len() - 3);
        } else if !rest.is_empty() {
            text += &format!("; {}", rest.join(" "));
        }
        text
    }
}

impl Copy<'_> {
    fn value(&self, v: Value) -> Option<Value> {
        let known = |n: &NodeId| Value { node: *n, output: v.output };
        self.inputs.get(&v).copied().or_else(|| self.known.get(&v.node).map(known))
    }

    /// The op and its operands, which are there.
    fn op(&mut self, n: NodeId) -> Option<NodeId> {
        let op = self.g.op(n)?.eval(&self.sizes)?.to_graph();
        let operands: Option<Vec<Value>> =
            self.g.operands(n).iter().map(|v| self.value(*v)).collect();
        let node = self.into.add_op(op, &operands?, Origin::default()).ok()?;
        self.known.insert(n, node);
        Some(node)
    }

    /// A value from outside, and the views it is seen through.
    fn outside(&mut self, v: Value) -> Option<()> {
        if self.value(v).is_some() {
            return Some(());
        }
        match &self.g.node(v.node).kind {
            Kind::Constant(i) => {
                let data = self.g.constants[*i].data.clone()?;
                let name = format!("w{}", self.into.constants.len());
                let at = self.into.add_constant(name, data);
                self.known.insert(v.node, at.node);
            }
            Kind::Op(op) if op.is_view() || matches!(op, Op::Full { .. }) => {
                for x in self.g.operands(v.node) {
                    self.outside(x)?;
                }
                self.op(v.node)?;
            }
            _ => {
                let ty = self.g.type_of(v).eval(&self.sizes)?;
                let shape = ty.shape.iter().map(|&d| Dim::of(d)).collect();
                let name = format!("x{}", self.inputs.len());
                let ty = TensorType { dtype: ty.dtype, shape };
                let at = self.into.add_input(name, ty);
                self.inputs.insert(v, at);
            }
        }
        Some(())
    }
}
