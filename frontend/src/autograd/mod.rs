//! The tape: each recorded op is a node that points to the nodes of its
//! operands and keeps what its derivative needs.
//!
//! Derivatives are written in the same ops ([`vjp`]), so a backward pass run
//! with `create_graph` is recorded like anything else, and can be
//! differentiated again.
//!
//! Nothing recurses on the depth of the tape: not [`backward`](Tensor::backward),
//! and not dropping it.

mod check;
mod engine;
mod hooks;
pub(crate) mod mode;
mod vjp;

pub use check::{GradCheck, GradCheckError, gradcheck, gradgradcheck};
pub use engine::{Backward, grad};
pub use hooks::HookHandle;
pub use mode::{GradGuard, enable_grad, enable_grad_guard, grad_enabled, no_grad, no_grad_guard};
pub(crate) use vjp::has_rule;

use crate::tensor::Tensor;
use hooks::Hooks;
use sinter_kernels::mem::Block;
use sinter_runtime::op::TensorType;
use sinter_runtime::{Array, Op, Shape};
use smallvec::SmallVec;
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::panic::Location;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

/// What a tensor knows of autograd.
#[derive(Default)]
pub(crate) struct Meta {
    /// The node that made the tensor, and which of its results it is.
    pub(crate) grad_fn: Option<(Arc<Node>, u8)>,
    pub(crate) grad: Option<Tensor>,
    /// Of views: the version of the memory when the view was taken.
    pub(crate) view_version: u64,
    pub(crate) hooks: Option<Box<Hooks>>,
    pub(crate) name: Option<Arc<str>>,
}

/// Where the gradient of an operand goes.
#[derive(Clone)]
pub(crate) enum Edge {
    /// Nowhere: the operand is a constant.
    None,
    /// To the node whose result it is.
    Node(Arc<Node>, u8),
    /// Into the gradient of a leaf.
    Leaf(Tensor),
}

struct Operand {
    edge: Edge,
    /// The operand's shape, where it was broadcast.
    reduce_to: Option<Box<[usize]>>,
}

/// A recorded op.
pub(crate) struct Node {
    /// Grows with every recorded op, so an operand's is always smaller.
    seq: u64,
    op: Op,
    location: &'static Location<'static>,
    operands: SmallVec<[Operand; 2]>,
    outputs: u8,
    saved: Mutex<Saved>,
    hooks: Mutex<Option<Box<Hooks>>>,
}

/// What the derivative needs.
struct Saved {
    /// Cleared by a backward pass that does not retain the graph.
    freed: bool,
    inputs: SmallVec<[Option<Kept>; 2]>,
    output: Option<Kept>,
    /// The other results of ops that have several.
    others: Box<[Kept]>,
    /// Types of the operands, where their values are not needed.
    types: Option<Box<[TensorType]>>,
}

struct Kept {
    value: KeptValue,
    version: u64,
}

enum KeptValue {
    /// An operand, with its history.
    Input(Tensor),
    /// The node's own result: without history, since the node would own itself.
    /// Boxed: nodes are moved to their place, and few keep a result.
    Output(Box<Array>),
}

impl Kept {
    fn array(&self) -> &Array {
        match &self.value {
            KeptValue::Input(t) => t.array(),
            KeptValue::Output(a) => a,
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
    let node = make_node(op, inputs, &outs, 0, location);
    outs.into_iter()
        .enumerate()
        .map(|(i, a)| {
            // Indices and truth values have no gradient.
            if a.dtype().is_differentiable() {
                Tensor::recorded(a, node.clone(), i as u8, false)
            } else {
                Tensor::from_array(a)
            }
        })
        .collect()
}

/// The node of an op with one result.
pub(crate) fn node_for(
    op: Op,
    inputs: &[&Tensor],
    out: &Array,
    location: &'static Location<'static>,
) -> Arc<Node> {
    make_node(op, inputs, std::slice::from_ref(out), 0, location)
}

/// The node of an op that is about to change `target` in place: the tensor's old
/// history is the operand's.
pub(crate) fn node_in_place(
    op: Op,
    target: &Tensor,
    inputs: &[&Tensor],
    location: &'static Location<'static>,
) -> Arc<Node> {
    make_node(op, inputs, std::slice::from_ref(target.array()), 1, location)
}

thread_local! {
    static LINE: Cell<Option<&'static Location<'static>>> = const { Cell::new(None) };
}

/// Records what `f` does as done by another line: that of the composite whose
/// parts it applies.
pub(crate) fn at<R>(location: &'static Location<'static>, f: impl FnOnce() -> R) -> R {
    let before = LINE.replace(Some(location));
    let r = f();
    LINE.set(before);
    r
}

/// `age`: how many changes in place lie between now and the result's own version.
fn make_node(
    op: Op,
    inputs: &[&Tensor],
    outs: &[Array],
    age: u64,
    location: &'static Location<'static>,
) -> Arc<Node> {
    let location = LINE.get().unwrap_or(location);
    let out = &outs[0];
    let wanted = |(i, t): (usize, &&Tensor)| u32::from(t.requires_grad()) << i;
    let needs = vjp::saves(&op, inputs.len(), inputs.iter().enumerate().map(wanted).sum());
    let operand = |t: &&Tensor| {
        let edge = t.edge();
        let spread = op.is_pointwise() && !matches!(edge, Edge::None) && t.shape() != out.shape();
        Operand { edge, reduce_to: spread.then(|| t.shape().into()) }
    };
    let keep = |(i, t): (usize, &&Tensor)| {
        (needs.inputs >> i & 1 == 1).then(|| Kept {
            version: t.array().block().version(),
            value: KeptValue::Input((*t).clone()),
        })
    };
    let result = |a: &Array| Kept {
        version: a.block().version() + age,
        value: KeptValue::Output(Box::new(a.clone())),
    };
    let saved = Saved {
        freed: false,
        inputs: if needs.inputs == 0 {
            SmallVec::new()
        } else {
            inputs.iter().enumerate().map(keep).collect()
        },
        output: needs.output.then(|| result(out)),
        others: if needs.output { outs[1..].iter().map(result).collect() } else { Box::default() },
        types: needs.types.then(|| {
            inputs
                .iter()
                .map(|t| TensorType { dtype: t.dtype(), shape: t.shape().into() })
                .collect()
        }),
    };
    Arc::new(Node {
        seq: SEQUENCE.fetch_add(1, Ordering::Relaxed),
        operands: inputs.iter().map(operand).collect(),
        op,
        location,
        outputs: outs.len() as u8,
        saved: Mutex::new(saved),
        hooks: Mutex::new(None),
    })
}

/// A view whose memory was changed after it was taken has a history that no
/// longer tells how its values came about: an error, never a wrong gradient.
pub(crate) fn check_views(inputs: &[&Tensor], op: &Op, location: &'static Location<'static>) {
    for t in inputs.iter().filter(|t| t.is_view()) {
        let taken = t.meta().view_version;
        let block = t.array().block();
        let stale =
            block.version() > taken && (t.requires_grad() || block.recorded_version() > taken);
        if stale {
            panic!(
                "{}: an operand is a view whose memory was modified in place after the view was taken{}; \
                 take the view again after the modification (used at {location})",
                op.name(),
                written_at(block),
            );
        }
    }
}

impl Node {
    fn saved(&self) -> MutexGuard<'_, Saved> {
        self.saved.lock().unwrap_or_else(|e| e.into_inner())
    }

    fn hooks(&self) -> MutexGuard<'_, Option<Box<Hooks>>> {
        self.hooks.lock().unwrap_or_else(|e| e.into_inner())
    }

    pub(crate) fn op_name(&self) -> &'static str {
        self.op.name()
    }

    /// The op and the line that recorded it.
    fn describe(&self) -> String {
        format!("`{}` recorded at {}", self.op.name(), self.location)
    }

    /// What the derivative needs, checked: freed buffers and values changed in
    /// place since are errors, never wrong gradients.
    #[track_caller]
    fn unpack(self: &Arc<Node>, graph: bool) -> vjp::Context {
        let saved = self.saved();
        if saved.freed {
            panic!(
                "backward: the values kept for {} were freed by an earlier backward pass; \
                 call the first one with `retain_graph` to go through the graph again",
                self.describe()
            );
        }
        for k in saved.inputs.iter().flatten().chain(&saved.output).chain(&saved.others) {
            let block = k.array().block();
            if block.version() != k.version {
                panic!(
                    "backward: {} needs the values of a {} {:?} tensor that was modified in place since{}: \
                     it is at version {}, expected {}; use the out-of-place op, or `copy` the tensor before it",
                    self.describe(),
                    k.array().dtype(),
                    k.array().shape(),
                    written_at(block),
                    block.version(),
                    k.version,
                );
            }
        }
        let restore = |i: usize, k: &Kept| match &k.value {
            KeptValue::Input(t) => t.clone(),
            KeptValue::Output(a) if graph && a.dtype().is_float() => {
                Tensor::recorded(a.as_ref().clone(), self.clone(), i as u8, false)
            }
            KeptValue::Output(a) => Tensor::from_array(a.as_ref().clone()),
        };
        vjp::Context {
            inputs: saved.inputs.iter().map(|k| k.as_ref().map(|k| restore(0, k))).collect(),
            outputs: saved
                .output
                .iter()
                .chain(&saved.others)
                .enumerate()
                .map(|(i, k)| restore(i, k))
                .collect(),
            types: saved.types.clone(),
            needs: self.operands.iter().map(|o| !matches!(o.edge, Edge::None)).collect(),
        }
    }

    fn free(&self) {
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

// ---------------------------------------------------------------- who wrote

/// Lines that changed memory in place, by the number noted in the block.
static WRITERS: Mutex<Writers> = Mutex::new(Writers { lines: Vec::new(), index: None });

struct Writers {
    lines: Vec<(&'static str, &'static Location<'static>)>,
    index: Option<HashMap<(usize, usize), u32>>,
}

/// Notes a change in place, the line that made it, and whether it was recorded.
pub(crate) fn note_write(
    block: &Block,
    op: &'static str,
    at: &'static Location<'static>,
    recorded: bool,
) {
    let mut w = WRITERS.lock().unwrap_or_else(|e| e.into_inner());
    let w = &mut *w;
    let key = (op.as_ptr() as usize, std::ptr::from_ref(at) as usize);
    let lines = &mut w.lines;
    let n = *w.index.get_or_insert_default().entry(key).or_insert_with(|| {
        lines.push((op, at));
        lines.len() as u32
    });
    block.bump_version(n, recorded);
}

fn written_at(block: &Block) -> String {
    let w = WRITERS.lock().unwrap_or_else(|e| e.into_inner());
    let line = (block.last_writer() as usize).checked_sub(1).and_then(|i| w.lines.get(i));
    line.map_or(String::new(), |(op, at)| format!(" by `{op}` at {at}"))
}

/// Sums a gradient down to the shape of an operand that was broadcast.
pub(crate) fn sum_to(g: &Tensor, shape: &[usize]) -> Tensor {
    if g.shape() == shape {
        return g.clone();
    }
    let lead = g.rank() - shape.len();
    let axes: Shape = (0..g.rank())
        .filter(|&i| i < lead || (shape[i - lead] == 1 && g.shape()[i] != 1))
        .collect();
    let op = Op::Reduce { kind: sinter_runtime::op::ReduceKind::Sum, axes, keep: true };
    let summed = crate::tensor::apply(op, &[g]);
    if lead == 0 { summed } else { summed.reshape(shape) }
}
