//! A look at the tape: nodes, what they keep, and a drawing.

use super::Edge;
use super::engine::nodes_below;
use super::hooks::{HookHandle, on_node_after, on_node_before};
use super::node::{Node, Rule};
use crate::tensor::Tensor;
use rustc_hash::FxHashMap;
use sinter_runtime::{DType, Op};
use std::fmt::Write;
use std::panic::Location;
use std::sync::Arc;

/// A node of the tape: the op that made a tensor.
///
/// ```
/// use sinter::{autograd::NextFunction, tensor};
/// let x = tensor([1.0f32, 2.0]).requires_grad_(true);
/// let y = (&x * &x).exp();
/// let f = y.grad_fn().unwrap();
/// assert_eq!((f.name(), f.saved_bytes()), ("exp", 8));
/// let NextFunction::Node(mul, _) = &f.next_functions()[0] else { panic!() };
/// assert_eq!(mul.name(), "mul");
/// assert!(f.to_dot().contains("exp"));
/// ```
#[derive(Clone)]
pub struct GradFn(Arc<Node>);

/// Where the gradient of an operand goes.
#[derive(Clone)]
#[non_exhaustive]
pub enum NextFunction {
    /// Nowhere: the operand is a constant.
    None,
    /// To the op that made the operand, as that one of its results.
    Node(GradFn, usize),
    /// Into the `grad` of a leaf.
    Leaf(Tensor),
}

impl Tensor {
    /// The op that made the tensor, when it is on the tape. A view whose base was
    /// changed has its new history.
    pub fn grad_fn(&self) -> Option<GradFn> {
        self.grad_node().map(|(n, _)| GradFn(n))
    }
}

impl GradFn {
    /// Name of the op, or of the user's [`Function`](super::Function).
    pub fn name(&self) -> &'static str {
        self.0.op_name()
    }

    /// The op; `None` for a function of the user's.
    pub fn op(&self) -> Option<&Op> {
        match &self.0.rule {
            Rule::Op(op) => Some(op),
            _ => None,
        }
    }

    /// The line that recorded it.
    pub fn location(&self) -> &'static Location<'static> {
        self.0.location()
    }

    /// Its place in the order in which ops were recorded.
    pub fn sequence_nr(&self) -> u64 {
        self.0.seq
    }

    /// Where the gradient of each operand goes.
    pub fn next_functions(&self) -> Vec<NextFunction> {
        let next = |e: &Edge| match e {
            Edge::None => NextFunction::None,
            Edge::Node(n, i) => NextFunction::Node(GradFn(n.clone()), usize::from(*i)),
            Edge::Leaf(t) => NextFunction::Leaf(t.clone()),
        };
        self.0.operands.iter().map(|o| next(&o.edge)).collect()
    }

    /// Types and shapes of the values kept for the derivative; those that a hook has
    /// taken are not among them.
    pub fn saved(&self) -> Vec<(DType, Vec<usize>)> {
        let saved = self.0.saved();
        let kept = saved.inputs.iter().flatten().chain(&saved.output).chain(&saved.others);
        kept.filter_map(|k| k.array()).map(|a| (a.dtype(), a.shape().to_vec())).collect()
    }

    /// How many bytes these values have. Several nodes may keep the same.
    pub fn saved_bytes(&self) -> usize {
        self.saved().iter().map(|(d, s)| d.size() * s.iter().product::<usize>()).sum()
    }

    /// Calls `f` with the gradients of the op's results, before they are used; what it
    /// returns takes their place.
    pub fn register_prehook(
        &self,
        f: impl Fn(&[Option<Tensor>]) -> Option<Vec<Option<Tensor>>> + Send + Sync + 'static,
    ) -> HookHandle {
        on_node_before(&self.0, Arc::new(f))
    }

    /// Calls `f` with the gradients of the op's operands and of its results; what it
    /// returns takes the place of the former. (Those of operands that were broadcast
    /// still have the result's shape.)
    pub fn register_hook(
        &self,
        f: impl Fn(&[Option<Tensor>], &[Option<Tensor>]) -> Option<Vec<Option<Tensor>>>
        + Send
        + Sync
        + 'static,
    ) -> HookHandle {
        on_node_after(&self.0, Arc::new(f))
    }

    /// The graph below this op in the DOT language of Graphviz: every op with its
    /// line and what it keeps, and the leaves.
    pub fn to_dot(&self) -> String {
        let root = Edge::Node(self.0.clone(), 0);
        let nodes = nodes_below(std::iter::once(&root));
        let mut out = String::from("digraph tape {\n  node [shape=box, fontname=monospace];\n");
        let mut numbers: FxHashMap<usize, usize> = FxHashMap::default();
        for (i, n) in nodes.iter().enumerate() {
            numbers.insert(Arc::as_ptr(n) as usize, i);
            let f = GradFn(n.clone());
            let mut label = format!("{}\\n{}", f.name(), quoted(&f.location().to_string()));
            for (dtype, shape) in f.saved() {
                let bytes = dtype.size() * shape.iter().product::<usize>();
                // Writing to a string cannot fail.
                let _ = write!(label, "\\nkeeps {dtype} {shape:?}, {bytes} bytes");
            }
            let _ = writeln!(out, "  n{i} [label=\"{label}\"];");
        }
        let mut leaves: FxHashMap<usize, usize> = FxHashMap::default();
        for (i, n) in nodes.iter().enumerate() {
            for o in &n.operands {
                match &o.edge {
                    Edge::None => {}
                    Edge::Node(m, _) => {
                        let _ =
                            writeln!(out, "  n{i} -> n{};", numbers[&(Arc::as_ptr(m) as usize)]);
                    }
                    Edge::Leaf(t) => {
                        let k = leaves.len();
                        let k = *leaves.entry(t.id()).or_insert_with(|| {
                            let name = t.name().map_or(String::new(), |n| format!("{n}\\n"));
                            let name = quoted(&name).replace("\\\\n", "\\n");
                            let _ = writeln!(
                                out,
                                "  l{k} [shape=ellipse, label=\"{name}{} {:?}\"];",
                                t.dtype(),
                                t.shape()
                            );
                            k
                        });
                        let _ = writeln!(out, "  n{i} -> l{k};");
                    }
                }
            }
        }
        out.push_str("}\n");
        out
    }
}

impl std::fmt::Debug for GradFn {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "GradFn({} at {})", self.name(), self.location())
    }
}

/// Text inside quotes.
fn quoted(s: &str) -> String {
    s.replace('\\', "\\\\").replace('"', "\\\"")
}
