//! The graph: what a traced model becomes.
//!
//! A directed acyclic graph in [`petgraph`]: a node is an input, a constant or an
//! op with the types of its results; an edge says which result goes into which
//! operand. The textual form ([`text`]) prints and parses back, [`verify`] checks
//! every invariant, and [`interpret`] runs the graph on the eager runtime, which
//! makes it the oracle for everything the compiler does.

mod build;
mod constant;
mod cut;
mod interpret;
pub mod text;
mod verify;

pub use build::Builder;
pub use constant::{Computed, Constant, Data};
pub(crate) use cut::sink_side;
pub(crate) use interpret::interpret_with;
pub use interpret::{InterpretError, interpret};
pub use sinter_runtime::program::Symbol;
pub use verify::{VerifyError, verify};

use petgraph::Direction::{Incoming, Outgoing};
use petgraph::stable_graph::{NodeIndex, StableDiGraph};
use petgraph::visit::EdgeRef;
use sinter_runtime::op::{TensorType, TypeRef, infer};
use sinter_runtime::program::Port;
use sinter_runtime::{Dim, Op, OpError};
use smallvec::SmallVec;
use std::sync::Arc;

/// A node of a [`Graph`].
pub type NodeId = NodeIndex<u32>;

/// One result of a node.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Value {
    /// The node.
    pub node: NodeId,
    /// Which of its results.
    pub output: u8,
}

/// Where a node comes from.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Origin {
    /// The user's line.
    pub line: Option<Arc<str>>,
    /// The module whose parameters it uses, such as `encoder.3.fc1`.
    pub module: Option<Arc<str>>,
    /// The pass or rewrite rule that made it, when the user did not.
    pub made_by: Option<Arc<str>>,
    /// Nodes that one op of the user was expanded into share a number. With
    /// fusion off they are compiled together, and nothing else is.
    pub group: Option<u32>,
}

impl std::fmt::Display for Origin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let parts: Vec<String> = [
            self.module.as_ref().map(|m| m.to_string()),
            self.line.as_ref().map(|l| l.to_string()),
            self.made_by.as_ref().map(|r| format!("by {r}")),
        ]
        .into_iter()
        .flatten()
        .collect();
        f.write_str(&parts.join(", "))
    }
}

/// What a node is.
#[derive(Clone, PartialEq, Debug)]
pub enum Kind {
    /// An input of the program.
    Input {
        /// Its name.
        name: String,
    },
    /// A constant, by its place in [`Graph::constants`].
    Constant(usize),
    /// An op.
    Op(Op<Dim>),
}

/// A node: what it is, the types of its results, where it comes from.
#[derive(Clone, Debug)]
pub struct Node {
    /// What it is.
    pub kind: Kind,
    /// Types of its results.
    pub types: SmallVec<[TensorType<Dim>; 1]>,
    /// Where it comes from.
    pub origin: Origin,
}

#[derive(Clone, Copy, Debug)]
struct Edge {
    output: u8,
    operand: u16,
}

/// A program as a graph of ops.
#[derive(Clone, Debug, Default)]
pub struct Graph {
    /// Its name in text.
    pub name: String,
    /// Named sizes; [`Dim::symbol`] counts in this list.
    pub symbols: Vec<Symbol>,
    /// Constants.
    pub constants: Vec<Constant>,
    dag: StableDiGraph<Node, Edge>,
    inputs: Vec<NodeId>,
    outputs: Vec<Value>,
    /// Outputs, by their places, that become the new values of inputs.
    updates: std::collections::BTreeMap<usize, usize>,
}

impl Graph {
    /// An empty graph.
    pub fn new(name: impl Into<String>) -> Graph {
        Graph { name: name.into(), ..Graph::default() }
    }

    /// An empty graph with the same name, symbols and constants.
    pub(crate) fn like(&self) -> Graph {
        Graph {
            name: self.name.clone(),
            symbols: self.symbols.clone(),
            constants: self.constants.clone(),
            ..Graph::default()
        }
    }

    /// Adds an input.
    pub fn add_input(&mut self, name: impl Into<String>, ty: TensorType<Dim>) -> Value {
        let node = self.dag.add_node(Node {
            kind: Kind::Input { name: name.into() },
            types: smallvec::smallvec![ty],
            origin: Origin::default(),
        });
        self.inputs.push(node);
        Value { node, output: 0 }
    }

    /// Adds a constant and the node that stands for it. The name is made unique.
    pub fn add_constant(&mut self, name: impl Into<String>, data: impl Into<Data>) -> Value {
        let data = data.into();
        let ty = data.ty();
        let name = self.free_name(name.into());
        self.constants.push(Constant { name, ty, data: Some(data) });
        self.constant_node(self.constants.len() - 1)
    }

    fn free_name(&self, name: String) -> String {
        let taken = |n: &str| self.constants.iter().any(|c| c.name == n);
        if !taken(&name) {
            return name;
        }
        (1..).map(|i| format!("{name}_{i}")).find(|n| !taken(n)).expect("numbers do not end")
    }

    /// Adds a node for a constant of the list.
    pub fn constant_node(&mut self, index: usize) -> Value {
        let ty = &self.constants[index].ty;
        let shape = ty.shape.iter().map(|&d| Dim::from(d)).collect();
        let ty = TensorType { dtype: ty.dtype, shape };
        let node = self.dag.add_node(Node {
            kind: Kind::Constant(index),
            types: smallvec::smallvec![ty],
            origin: Origin::default(),
        });
        Value { node, output: 0 }
    }

    /// Adds an op; its results' types follow from its operands.
    ///
    /// # Errors
    /// When the operands break the op's rule.
    pub fn add_op(
        &mut self,
        op: Op<Dim>,
        operands: &[Value],
        origin: Origin,
    ) -> Result<NodeId, OpError> {
        let types = {
            let refs: SmallVec<[TypeRef<'_, Dim>; 4]> =
                operands.iter().map(|v| self.type_of(*v).as_ref()).collect();
            infer(&op, &refs)?
        };
        let node = self.dag.add_node(Node { kind: Kind::Op(op), types, origin });
        for (i, v) in operands.iter().enumerate() {
            self.dag.add_edge(v.node, node, Edge { output: v.output, operand: i as u16 });
        }
        Ok(node)
    }

    /// Makes `v` the next output.
    pub fn add_output(&mut self, v: Value) {
        self.outputs.push(v);
    }

    /// Makes `v` the next output, and the new value of input `input`: the program does
    /// not give it but writes it into the input's memory.
    pub fn add_update(&mut self, input: usize, v: Value) {
        self.updates.insert(self.outputs.len(), input);
        self.outputs.push(v);
    }

    /// The input whose new value an output is.
    pub fn updates(&self, output: usize) -> Option<usize> {
        self.updates.get(&output).copied()
    }

    /// The inputs that have new values afterwards.
    pub fn updated(&self) -> impl Iterator<Item = usize> + '_ {
        self.updates.values().copied()
    }

    /// The inputs, in order.
    pub fn inputs(&self) -> &[NodeId] {
        &self.inputs
    }

    /// Names and types of the inputs, in order.
    pub fn input_ports(&self) -> Vec<Port> {
        let port = |n: &NodeId| {
            let node = self.node(*n);
            let Kind::Input { name } = &node.kind else { unreachable!("inputs are inputs") };
            Port { name: name.clone(), ty: node.types[0].clone() }
        };
        self.inputs.iter().map(port).collect()
    }

    /// Names and types of the outputs that are no updates, in order: `y`, or `y0`, `y1`
    /// and so on.
    pub fn output_ports(&self) -> Vec<Port> {
        let single = self.outputs.len() - self.updates.len() == 1;
        let given = (0..self.outputs.len()).filter(|i| !self.updates.contains_key(i));
        let port = |(i, k): (usize, usize)| {
            let name = if single { "y".to_string() } else { format!("y{i}") };
            Port { name, ty: self.type_of(self.outputs[k]).clone() }
        };
        given.enumerate().map(port).collect()
    }

    /// The outputs, updates among them, in order.
    pub fn outputs(&self) -> &[Value] {
        &self.outputs
    }

    /// A node.
    ///
    /// # Panics
    /// If it was removed.
    pub fn node(&self, id: NodeId) -> &Node {
        &self.dag[id]
    }

    pub(crate) fn node_mut(&mut self, id: NodeId) -> &mut Node {
        &mut self.dag[id]
    }

    /// The op of a node, if it is one.
    pub fn op(&self, id: NodeId) -> Option<&Op<Dim>> {
        match &self.dag[id].kind {
            Kind::Op(op) => Some(op),
            _ => None,
        }
    }

    /// The type of a value.
    pub fn type_of(&self, v: Value) -> &TensorType<Dim> {
        &self.dag[v.node].types[v.output as usize]
    }

    /// Operands of a node, in order.
    pub fn operands(&self, id: NodeId) -> SmallVec<[Value; 3]> {
        // petgraph yields the newest edge first: sort by operand.
        let mut edges: SmallVec<[(u16, Value); 3]> = self
            .dag
            .edges_directed(id, Incoming)
            .map(|e| (e.weight().operand, Value { node: e.source(), output: e.weight().output }))
            .collect();
        edges.sort_unstable_by_key(|e| e.0);
        edges.into_iter().map(|e| e.1).collect()
    }

    /// Nodes that use a result of this one, each once, in order of creation.
    pub fn users(&self, id: NodeId) -> SmallVec<[NodeId; 4]> {
        let mut users: SmallVec<[NodeId; 4]> = self.dag.neighbors_directed(id, Outgoing).collect();
        users.sort_unstable();
        users.dedup();
        users
    }

    /// Whether the value is an output of the graph.
    pub fn is_output(&self, v: Value) -> bool {
        self.outputs.contains(&v)
    }

    /// Number of nodes.
    pub fn len(&self) -> usize {
        self.dag.node_count()
    }

    /// Whether there are no nodes.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// All nodes, every operand before its users; ties go by age, so the order is
    /// the same every time.
    pub fn topological(&self) -> Vec<NodeId> {
        let mut waiting: rustc_hash::FxHashMap<NodeId, usize> = self
            .dag
            .node_indices()
            .map(|n| (n, self.dag.edges_directed(n, Incoming).count()))
            .collect();
        let mut ready: std::collections::BinaryHeap<std::cmp::Reverse<NodeId>> =
            waiting.iter().filter(|(_, w)| **w == 0).map(|(n, _)| std::cmp::Reverse(*n)).collect();
        let mut order = Vec::with_capacity(self.len());
        while let Some(std::cmp::Reverse(n)) = ready.pop() {
            order.push(n);
            for e in self.dag.edges_directed(n, Outgoing) {
                let w = waiting.get_mut(&e.target()).expect("every node is counted");
                *w -= 1;
                if *w == 0 {
                    ready.push(std::cmp::Reverse(e.target()));
                }
            }
        }
        order
    }

    /// Replaces every use of `old` by `new`.
    pub fn replace_uses(&mut self, old: Value, new: Value) {
        let edges: Vec<_> = self
            .dag
            .edges_directed(old.node, Outgoing)
            .filter(|e| e.weight().output == old.output && e.target() != new.node)
            .map(|e| (e.id(), e.target(), e.weight().operand))
            .collect();
        for (edge, user, operand) in edges {
            self.dag.remove_edge(edge);
            self.dag.add_edge(new.node, user, Edge { output: new.output, operand });
        }
        for o in &mut self.outputs {
            if *o == old {
                *o = new;
            }
        }
    }

    /// Gives an op other operands of the same types.
    pub(crate) fn set_operands(&mut self, id: NodeId, operands: &[Value]) {
        let old: Vec<_> = self.dag.edges_directed(id, Incoming).map(|e| e.id()).collect();
        old.into_iter().for_each(|e| {
            self.dag.remove_edge(e);
        });
        for (i, v) in operands.iter().enumerate() {
            self.dag.add_edge(v.node, id, Edge { output: v.output, operand: i as u16 });
        }
    }

    /// Removes a node that nothing uses.
    pub(crate) fn remove_node(&mut self, id: NodeId) {
        debug_assert!(self.users(id).is_empty());
        self.dag.remove_node(id);
    }

    /// Removes nodes that no output depends on (inputs stay).
    pub fn remove_dead(&mut self) {
        let mut alive: rustc_hash::FxHashSet<NodeId> = self.inputs.iter().copied().collect();
        let mut todo: Vec<NodeId> = self.outputs.iter().map(|v| v.node).collect();
        while let Some(n) = todo.pop() {
            if alive.insert(n) || self.inputs.contains(&n) {
                todo.extend(
                    self.dag.neighbors_directed(n, Incoming).filter(|p| !alive.contains(p)),
                );
            }
        }
        self.dag.retain_nodes(|_, n| alive.contains(&n));
    }

    /// The user's names for symbols.
    pub fn symbol_names(&self) -> Vec<String> {
        self.symbols.iter().map(|s| s.name.clone()).collect()
    }

    /// The sizes for which costs are estimated.
    pub fn hints(&self) -> Vec<usize> {
        self.symbols.iter().map(|s| s.hint).collect()
    }
}
