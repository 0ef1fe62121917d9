//! Nodes of the tape: what a recorded op keeps, and how it is let go.

use super::function::Applied;
use super::hooks::Hooks;
use super::saved::{self, Packed};
use super::{Edge, mode, vjp, written_at};
use crate::tensor::Tensor;
use sinter_runtime::op::TensorType;
use sinter_runtime::{Array, Op, eager};
use smallvec::SmallVec;
use std::cell::{Cell, RefCell};
use std::panic::Location;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

pub(super) struct Operand {
    pub(super) edge: Edge,
    /// The operand's shape, where it was broadcast.
    pub(super) reduce_to: Option<Box<[usize]>>,
}

/// How a node turns gradients of its results into those of its operands.
pub(super) enum Rule {
    /// An op of the vocabulary.
    Op(Op),
    /// The user's own.
    Function(Box<Applied>),
    /// Not at all: the derivative of a function that can be differentiated once.
    Once(&'static str),
}

/// A recorded op.
pub(crate) struct Node {
    /// Grows with every recorded op, so an operand's is always smaller.
    pub(super) seq: u64,
    pub(super) rule: Rule,
    pub(super) location: &'static Location<'static>,
    pub(super) operands: SmallVec<[Operand; 2]>,
    pub(super) outputs: u16,
    saved: Mutex<Saved>,
    hooks: Mutex<Option<Box<Hooks>>>,
}

/// What the derivative needs.
#[derive(Default)]
pub(super) struct Saved {
    /// Cleared by a backward pass that does not retain the graph.
    pub(super) freed: bool,
    pub(super) inputs: SmallVec<[Option<Kept>; 2]>,
    pub(super) output: Option<Kept>,
    /// The other results of ops that have several.
    pub(super) others: Box<[Kept]>,
    /// Types of the operands, where their values are not needed.
    pub(super) types: Option<Box<[TensorType]>>,
}

pub(super) struct Kept {
    value: KeptValue,
    version: u64,
}

enum KeptValue {
    /// An operand, with its history.
    Input(Tensor),
    /// The node's own result: without history, since the node would own itself.
    /// Boxed: nodes are moved to their place, and few keep a result.
    Output(Box<(Array, u16)>),
    /// The node's own result while tracing, without history, and which it is.
    Traced(Box<(Tensor, u16)>),
    /// What a hook made of the value.
    Packed(Arc<Packed>),
}

/// The operands' values, as far as they were kept, the results', and the operands' types.
type Unpacked = (SmallVec<[Option<Tensor>; 3]>, SmallVec<[Tensor; 1]>, Option<Box<[TensorType]>>);

/// A kept value on its way out.
enum Restored {
    Ready(Tensor),
    Packed(Arc<Packed>),
}

impl Kept {
    /// An operand's value, or any other tensor's.
    pub(super) fn input(t: &Tensor) -> Kept {
        if t.is_traced() {
            return Kept::traced_input(t);
        }
        if mode::get() & mode::PACK != 0
            && let Some(p) = saved::pack(&t.detach(), saved::Origin::Edge(t.edge()))
        {
            return Kept { value: KeptValue::Packed(p), version: 0 };
        }
        Kept::unhooked(t)
    }

    /// A traced operand as it is now: a later change in place makes the tensor stand for
    /// another value.
    fn traced_input(t: &Tensor) -> Kept {
        let now = match t.edge() {
            Edge::Node(node, output) => Tensor::traced_recorded(t, node, output),
            Edge::Leaf(t) => t,
            Edge::None => t.traced_copy(),
        };
        Kept { version: 0, value: KeptValue::Input(now) }
    }

    /// A traced result of the node that keeps it.
    pub(super) fn traced_output(t: &Tensor, output: u16) -> Kept {
        Kept { version: 0, value: KeptValue::Traced(Box::new((t.traced_copy(), output))) }
    }

    /// An operand's value that no hook sees.
    fn unhooked(t: &Tensor) -> Kept {
        Kept { version: t.array().block().version(), value: KeptValue::Input(t.clone()) }
    }

    /// The value of result `output`, as it is after `age` more changes in place.
    pub(super) fn output(a: &Array, output: u16, age: u64) -> Kept {
        // Hooks see values: not one that is about to be changed.
        if age == 0
            && mode::get() & mode::PACK != 0
            && let Some(p) =
                saved::pack(&Tensor::from_array(a.clone()), saved::Origin::Output(output))
        {
            return Kept { value: KeptValue::Packed(p), version: 0 };
        }
        Kept {
            version: a.block().version() + age,
            value: KeptValue::Output(Box::new((a.clone(), output))),
        }
    }

    pub(super) fn array(&self) -> Option<&Array> {
        match &self.value {
            KeptValue::Input(t) if t.is_traced() => None,
            KeptValue::Input(t) => Some(t.array()),
            KeptValue::Output(a) => Some(&a.0),
            KeptValue::Traced(_) | KeptValue::Packed(_) => None,
        }
    }
}

static SEQUENCE: AtomicU64 = AtomicU64::new(0);

/// Records an op of several results as the origin of `outs`.
pub(crate) fn record_all(
    op: Op,
    inputs: &[&Tensor],
    outs: SmallVec<[Array; 1]>,
    location: &'static Location<'static>,
) -> SmallVec<[Tensor; 1]> {
    let node = make_node(op, inputs, &outs, None, location);
    outs.into_iter()
        .enumerate()
        .map(|(i, a)| {
            // Indices and truth values have no gradient.
            if a.dtype().is_differentiable() {
                Tensor::recorded(a, node.clone(), i as u16)
            } else {
                Tensor::from_array(a)
            }
        })
        .collect()
}

/// Records a traced op as the origin of its results.
pub(crate) fn record_traced(
    op: &Op,
    inputs: &[&Tensor],
    outs: SmallVec<[Tensor; 1]>,
    location: &'static Location<'static>,
) -> SmallVec<[Tensor; 1]> {
    let node = make_node(op.clone(), inputs, outs.as_slice(), None, location);
    let wrap = |(i, t): (usize, Tensor)| {
        if !t.dtype().is_differentiable() {
            return t;
        }
        Tensor::traced_recorded(&t, node.clone(), i as u16)
    };
    outs.into_iter().enumerate().map(wrap).collect()
}

/// A result of an op, as the tape sees it.
trait Made {
    fn extents(&self) -> &[usize];
    /// Keeps it, as it is after `age` more changes in place.
    fn keep(&self, output: u16, age: u64) -> Kept;
}

impl Made for Array {
    fn extents(&self) -> &[usize] {
        self.shape()
    }
    fn keep(&self, output: u16, age: u64) -> Kept {
        Kept::output(self, output, age)
    }
}

impl Made for Tensor {
    fn extents(&self) -> &[usize] {
        self.shape()
    }
    fn keep(&self, output: u16, _: u64) -> Kept {
        Kept::traced_output(self, output)
    }
}

/// The node of an op with one result.
pub(crate) fn node_for(
    op: Op,
    inputs: &[&Tensor],
    out: &Array,
    location: &'static Location<'static>,
) -> Arc<Node> {
    make_node(op, inputs, std::slice::from_ref(out), None, location)
}

/// The node of an op that is about to change `target` in place: the tensor's old
/// history is the operand's. Old values that the derivative needs are copied.
pub(crate) fn node_in_place(
    op: Op,
    target: &Tensor,
    inputs: &[&Tensor],
    location: &'static Location<'static>,
) -> Arc<Node> {
    make_node(op, inputs, std::slice::from_ref(target.array()), Some(target), location)
}

thread_local! {
    static LINE: Cell<Option<&'static Location<'static>>> = const { Cell::new(None) };
}

/// Records what `f` does as done by another line: that of the composite whose
/// parts it applies.
pub(crate) fn at<R>(location: &'static Location<'static>, f: impl FnOnce() -> R) -> R {
    struct Back(Option<&'static Location<'static>>);
    impl Drop for Back {
        fn drop(&mut self) {
            LINE.set(self.0);
        }
    }
    let _back = Back(LINE.replace(Some(location)));
    f()
}

/// The line to note for something done at `location`.
pub(crate) fn line(location: &'static Location<'static>) -> &'static Location<'static> {
    LINE.get().unwrap_or(location)
}

fn type_of(t: &Tensor) -> TensorType {
    TensorType { dtype: t.dtype(), shape: t.shape().into() }
}

fn make_node<R: Made>(
    op: Op,
    inputs: &[&Tensor],
    outs: &[R],
    written: Option<&Tensor>,
    location: &'static Location<'static>,
) -> Arc<Node> {
    let out = &outs[0];
    let needs = vjp::saves(&op, inputs.len(), vjp::wanted(inputs));
    let operand = |t: &&Tensor| {
        let edge = t.edge();
        let spread = op.is_pointwise() && !matches!(edge, Edge::None) && t.shape() != out.extents();
        Operand { edge, reduce_to: spread.then(|| t.shape().into()) }
    };
    let keep = |(i, t): (usize, &&Tensor)| {
        (needs.inputs >> i & 1 == 1).then(|| match written {
            // The version is that of the whole memory.
            Some(w) if t.array().block().same(w.array().block()) => Kept::input(&before(t)),
            _ => Kept::input(t),
        })
    };
    let types = needs.types || mode::get() & mode::ANOMALY != 0;
    let saved = Saved {
        freed: false,
        inputs: if needs.inputs == 0 {
            SmallVec::new()
        } else {
            inputs.iter().enumerate().map(keep).collect()
        },
        output: needs.output.then(|| out.keep(0, u64::from(written.is_some()))),
        others: if needs.output && outs.len() > 1 {
            (1..outs.len()).map(|i| outs[i].keep(i as u16, 0)).collect()
        } else {
            Box::default()
        },
        types: types.then(|| inputs.iter().map(|t| type_of(t)).collect()),
    };
    let operands = inputs.iter().map(operand).collect();
    Arc::new(Node::new(Rule::Op(op), operands, outs.len() as u16, saved, line(location)))
}

/// A copy of a tensor that is about to change, with the history it has now.
fn before(t: &Tensor) -> Tensor {
    let a = t.array();
    let copied =
        Array::empty_on(a.device(), a.shape(), a.dtype()).inspect(|copy| eager::copy_into(a, copy));
    let copy = copied.unwrap_or_else(|e| panic!("{e}"));
    match t.edge() {
        Edge::Node(node, output) => Tensor::recorded(copy, node, output),
        // A leaf that shares memory with what changes keeps its own value, whose
        // version tells.
        Edge::Leaf(t) => t,
        Edge::None => Tensor::from_array(copy),
    }
}

/// A node of an op that only moves elements and that nothing was computed for:
/// histories of views are made of them. Operands that are constants are left out
/// by giving no edge. `index` is kept for ops that move by index.
pub(super) fn moving(
    op: Op,
    operands: &[(Edge, TensorType)],
    index: Option<&Tensor>,
    location: &'static Location<'static>,
) -> Edge {
    if operands.iter().all(|(e, _)| matches!(e, Edge::None)) {
        return Edge::None;
    }
    let types = operands.iter().map(|(_, t)| t.clone()).collect();
    let saved = Saved {
        inputs: match index {
            // When views are looked at is nobody's business: no hook sees the index.
            Some(i) => (0..operands.len()).map(|k| (k == 1).then(|| Kept::unhooked(i))).collect(),
            None => SmallVec::new(),
        },
        types: Some(types),
        ..Saved::default()
    };
    let operands =
        operands.iter().map(|(e, _)| Operand { edge: e.clone(), reduce_to: None }).collect();
    Edge::Node(Arc::new(Node::new(Rule::Op(op), operands, 1, saved, location)), 0)
}

/// The node of a function that can be differentiated once, as the origin of its
/// gradients: a pass that comes there panics.
pub(super) fn once(
    name: &'static str,
    edges: impl Iterator<Item = Edge>,
    outputs: usize,
    location: &'static Location<'static>,
) -> Arc<Node> {
    let operands = edges.map(|edge| Operand { edge, reduce_to: None }).collect();
    Arc::new(Node::new(Rule::Once(name), operands, outputs as u16, Saved::default(), location))
}

impl Node {
    pub(super) fn new(
        rule: Rule,
        operands: SmallVec<[Operand; 2]>,
        outputs: u16,
        saved: Saved,
        location: &'static Location<'static>,
    ) -> Node {
        Node {
            seq: SEQUENCE.fetch_add(1, Ordering::Relaxed),
            rule,
            location,
            operands,
            outputs,
            saved: Mutex::new(saved),
            hooks: Mutex::new(None),
        }
    }

    pub(super) fn saved(&self) -> MutexGuard<'_, Saved> {
        self.saved.lock().unwrap_or_else(|e| e.into_inner())
    }

    pub(super) fn hooks(&self) -> MutexGuard<'_, Option<Box<Hooks>>> {
        self.hooks.lock().unwrap_or_else(|e| e.into_inner())
    }

    pub(crate) fn location(&self) -> &'static Location<'static> {
        self.location
    }

    pub(crate) fn op_name(&self) -> &'static str {
        match &self.rule {
            Rule::Op(op) => op.name(),
            Rule::Function(f) => f.name(),
            Rule::Once(name) => name,
        }
    }

    /// The op and the line that recorded it.
    pub(super) fn describe(&self) -> String {
        format!("`{}` recorded at {}", self.op_name(), self.location)
    }

    /// Types of the operands as far as the node remembers them.
    pub(super) fn operand_types(&self) -> Option<String> {
        let saved = self.saved();
        let show = |dtype, shape: &[usize]| format!("{dtype} {shape:?}");
        let list: Vec<String> = match &saved.types {
            Some(types) => types.iter().map(|t| show(t.dtype, &t.shape)).collect(),
            None => {
                let known = saved.inputs.iter().map(|k| k.as_ref()?.array());
                known.map(|a| a.map_or("?".into(), |a| show(a.dtype(), a.shape()))).collect()
            }
        };
        (!list.is_empty()).then(|| list.join(", "))
    }

    pub(super) fn needs(&self) -> SmallVec<[bool; 3]> {
        self.operands.iter().map(|o| !matches!(o.edge, Edge::None)).collect()
    }

    /// The kept values, checked: freed buffers and values changed in place since
    /// are errors, never wrong gradients.
    #[track_caller]
    fn unpack(self: &Arc<Node>, graph: bool) -> Unpacked {
        let saved = self.saved();
        if saved.freed {
            drop(saved);
            panic!(
                "backward: the values kept for {} were freed by an earlier backward pass; \
                 call the first one with `retain_graph` to go through the graph again",
                self.describe()
            );
        }
        for k in saved.inputs.iter().flatten().chain(&saved.output).chain(&saved.others) {
            let Some(array) = k.array() else { continue };
            let block = array.block();
            if block.version() != k.version {
                panic!(
                    "backward: {} needs the values of a {} {:?} tensor that was modified in place since{}: \
                     it is at version {}, expected {}; use the out-of-place op, or `copy` the tensor before it",
                    self.describe(),
                    array.dtype(),
                    array.shape(),
                    written_at(block),
                    block.version(),
                    k.version,
                );
            }
        }
        let restore = |k: &Kept| match &k.value {
            KeptValue::Input(t) => Restored::Ready(t.clone()),
            KeptValue::Output(a) if graph && a.0.dtype().is_differentiable() => {
                Restored::Ready(Tensor::recorded(a.0.clone(), self.clone(), a.1))
            }
            KeptValue::Output(a) => Restored::Ready(Tensor::from_array(a.0.clone())),
            KeptValue::Traced(t) if graph && t.0.dtype().is_differentiable() => {
                Restored::Ready(Tensor::traced_recorded(&t.0, self.clone(), t.1))
            }
            KeptValue::Traced(t) => Restored::Ready(t.0.clone()),
            KeptValue::Packed(p) => Restored::Packed(p.clone()),
        };
        let inputs: SmallVec<[Option<Restored>; 3]> =
            saved.inputs.iter().map(|k| k.as_ref().map(restore)).collect();
        let outputs: SmallVec<[Restored; 1]> =
            saved.output.iter().chain(&saved.others).map(restore).collect();
        let types = saved.types.clone();
        drop(saved);
        // Without the lock: a hook is the user's code.
        let ready = |r: Restored| match r {
            Restored::Ready(t) => t,
            Restored::Packed(p) => p.unpack(self, graph),
        };
        (
            inputs.into_iter().map(|r| r.map(ready)).collect(),
            outputs.into_iter().map(ready).collect(),
            types,
        )
    }

    /// What the rule of an op needs.
    #[track_caller]
    pub(super) fn context(self: &Arc<Node>, graph: bool) -> vjp::Context {
        let (inputs, outputs, types) = self.unpack(graph);
        vjp::Context { inputs, outputs, types, needs: self.needs() }
    }

    /// What the user's function kept.
    #[track_caller]
    pub(super) fn saved_tensors(self: &Arc<Node>, graph: bool) -> Vec<Tensor> {
        self.unpack(graph).0.into_iter().flatten().collect()
    }

    pub(super) fn free(&self) {
        let (inputs, output, others) = {
            let mut saved = self.saved();
            saved.freed |= !saved.inputs.is_empty() || saved.output.is_some();
            let others = std::mem::take(&mut saved.others);
            (std::mem::take(&mut saved.inputs), saved.output.take(), others)
        };
        // Dropped without the lock: an input's history may be long.
        drop((inputs, output, others));
    }
}

// ---------------------------------------------------------------- dropping

/// What a dropped node leaves to be dropped.
type Remains = (SmallVec<[Operand; 2]>, SmallVec<[Option<Kept>; 2]>);

thread_local! {
    /// Whether this thread is already dropping nodes, and what is still to drop.
    static DROPPING: Cell<bool> = const { Cell::new(false) };
    static REMAINS: RefCell<Vec<Remains>> = const { RefCell::new(Vec::new()) };
}

impl Drop for Node {
    fn drop(&mut self) {
        let saved = self.saved.get_mut().unwrap_or_else(|e| e.into_inner());
        let remains = (std::mem::take(&mut self.operands), std::mem::take(&mut saved.inputs));
        if DROPPING.replace(true) {
            // An outer drop on this thread will come to it: depth stays one.
            // (Not while the thread itself is ending; then the rest recurses.)
            let mut remains = Some(remains);
            let _ = REMAINS.try_with(|r| r.borrow_mut().extend(remains.take()));
            return;
        }
        drop(remains);
        while let Ok(Some(next)) = REMAINS.try_with(|r| r.borrow_mut().pop()) {
            drop(next);
        }
        DROPPING.set(false);
    }
}
