//! The backward pass.

use super::hooks::{self, Hooks};
use super::node::{Node, Rule};
use super::parts::{self, Part, Parts};
use super::{Edge, mode, sum_to, vjp};
use crate::tensor::Tensor;
use rustc_hash::{FxHashMap, FxHashSet};
use sinter_runtime::op::BinaryOp;
use sinter_runtime::{Op, eager};
use smallvec::SmallVec;
use std::cell::RefCell;
use std::collections::BinaryHeap;
use std::sync::Arc;

/// What is to be called when a pass is done.
type Queue = Vec<Box<dyn FnOnce()>>;

thread_local! {
    /// One for each pass on this thread: a hook may start another.
    static CALLBACKS: RefCell<Vec<Queue>> = const { RefCell::new(Vec::new()) };
}

/// Has `f` called when the backward pass that runs on this thread is done: from a
/// hook.
///
/// # Panics
/// If no backward pass runs on this thread.
#[track_caller]
pub fn queue_callback(f: impl FnOnce() + 'static) {
    let queued = CALLBACKS.with_borrow_mut(|c| c.last_mut().map(|c| c.push(Box::new(f))));
    if queued.is_none() {
        panic!("queue_callback: no backward pass runs on this thread");
    }
}

/// Calls what was queued when the pass is done; forgets it when the pass panics.
struct Callbacks;

impl Callbacks {
    fn new() -> Callbacks {
        CALLBACKS.with_borrow_mut(|c| c.push(Vec::new()));
        Callbacks
    }

    fn call(&self) {
        while let Some(f) = CALLBACKS.with_borrow_mut(|c| {
            let queue = c.last_mut()?;
            (!queue.is_empty()).then(|| queue.remove(0))
        }) {
            f();
        }
    }
}

impl Drop for Callbacks {
    fn drop(&mut self) {
        CALLBACKS.with_borrow_mut(|c| c.pop());
    }
}

#[derive(PartialEq, Eq, Hash, Clone, Copy)]
pub(super) enum Target {
    Leaf(usize),
    Result(usize, u16),
}

/// Where gradients go.
pub(super) enum Goal {
    /// Into every leaf.
    Leaves,
    /// To the tensors asked for.
    Some {
        /// Their places among the inputs.
        captured: FxHashMap<Target, SmallVec<[usize; 1]>>,
        /// The nodes worth visiting.
        wanted: FxHashSet<usize>,
        /// Whether leaves keep theirs.
        accumulate: bool,
    },
}

impl Goal {
    #[track_caller]
    pub(super) fn some(
        op: &str,
        roots: &[(Edge, Tensor)],
        inputs: &[&Tensor],
        accumulate: bool,
    ) -> Goal {
        let mut captured: FxHashMap<Target, SmallVec<[usize; 1]>> = FxHashMap::default();
        for (i, t) in inputs.iter().enumerate() {
            let target = match t.edge() {
                Edge::None => panic!(
                    "{op}: input {i}, {} {:?}, does not require a gradient",
                    t.dtype(),
                    t.shape()
                ),
                Edge::Node(n, o) => Target::Result(Arc::as_ptr(&n) as usize, o),
                Edge::Leaf(t) => Target::Leaf(t.id()),
            };
            captured.entry(target).or_default().push(i);
        }
        let edges: Vec<Edge> = roots.iter().map(|r| r.0.clone()).collect();
        let wanted = wanted(&edges, &captured);
        Goal::Some { captured, wanted, accumulate }
    }
}

/// Every node that the roots came from, operands before their users.
pub(super) fn nodes_below<'a>(roots: impl Iterator<Item = &'a Edge>) -> Vec<Arc<Node>> {
    let mut nodes: FxHashMap<usize, Arc<Node>> = FxHashMap::default();
    let mut todo: Vec<Arc<Node>> = Vec::new();
    let mut visit = |edge: &Edge, todo: &mut Vec<Arc<Node>>| {
        if let Edge::Node(n, _) = edge
            && nodes.insert(Arc::as_ptr(n) as usize, n.clone()).is_none()
        {
            todo.push(n.clone());
        }
    };
    roots.for_each(|e| visit(e, &mut todo));
    while let Some(n) = todo.pop() {
        n.operands.iter().for_each(|o| visit(&o.edge, &mut todo));
    }
    let mut order: Vec<Arc<Node>> = nodes.into_values().collect();
    order.sort_unstable_by_key(|n| n.seq);
    order
}

/// Whether any of the results depends on a leaf besides those given.
pub(crate) fn depends_on_others(results: &[&Tensor], leaves: &[&Tensor]) -> bool {
    let roots: Vec<Edge> = results.iter().map(|t| t.edge()).collect();
    let other = |e: &Edge| match e {
        Edge::Leaf(t) => !leaves.iter().any(|l| l.is_same(t)),
        _ => false,
    };
    roots.iter().any(other)
        || nodes_below(roots.iter()).iter().any(|n| n.operands.iter().any(|o| other(&o.edge)))
}

/// The nodes on a path from the roots to a captured tensor.
fn wanted(roots: &[Edge], captured: &FxHashMap<Target, SmallVec<[usize; 1]>>) -> FxHashSet<usize> {
    let mut out: FxHashSet<usize> = FxHashSet::default();
    for n in nodes_below(roots.iter()) {
        let leads = n.operands.iter().any(|o| match &o.edge {
            Edge::None => false,
            Edge::Leaf(t) => captured.contains_key(&Target::Leaf(t.id())),
            Edge::Node(m, i) => {
                let p = Arc::as_ptr(m) as usize;
                captured.contains_key(&Target::Result(p, *i)) || out.contains(&p)
            }
        });
        if leads {
            out.insert(Arc::as_ptr(&n) as usize);
        }
    }
    out
}

pub(super) struct Pass {
    pub(super) create: bool,
    pub(super) retain: bool,
    pub(super) goal: Goal,
}

/// A node that gradients have reached.
struct Ready {
    node: Arc<Node>,
    grads: SmallVec<[Option<Tensor>; 1]>,
    /// Of the first result, beside the whole ones.
    parts: Parts,
}

/// Leaves with hooks, which see the sum of all a pass brings.
#[derive(Default)]
struct Leaves {
    index: FxHashMap<usize, usize>,
    /// In the order in which they were reached.
    list: Vec<Waiting>,
    /// How many gradients each leaf will get at most.
    uses: Option<FxHashMap<usize, usize>>,
}

struct Waiting {
    leaf: Tensor,
    grad: Option<Tensor>,
    arrived: usize,
}

#[derive(Default)]
struct Frontier {
    leaves: Leaves,
    /// Leaves whose gradients came in parts, in the order in which they were reached.
    parts: Vec<(Tensor, Parts)>,
    parts_of: FxHashMap<usize, usize>,
    /// By sequence number: when a node comes to the top, every user of its
    /// results has been there before.
    heap: BinaryHeap<(u64, usize)>,
    slots: Vec<Option<Ready>>,
    free: Vec<usize>,
    by_node: FxHashMap<usize, usize>,
}

impl Frontier {
    fn add(&mut self, node: &Arc<Node>, output: u16, g: Tensor) {
        accumulate(&mut self.ready(node).grads[output as usize], g);
    }

    /// What has come to a node so far.
    fn ready(&mut self, node: &Arc<Node>) -> &mut Ready {
        let key = Arc::as_ptr(node) as usize;
        let slot = *self.by_node.entry(key).or_insert_with(|| {
            let ready = Ready {
                node: node.clone(),
                grads: SmallVec::from_elem(None, node.outputs as usize),
                parts: Parts::default(),
            };
            let slot = match self.free.pop() {
                Some(s) => {
                    self.slots[s] = Some(ready);
                    s
                }
                None => {
                    self.slots.push(Some(ready));
                    self.slots.len() - 1
                }
            };
            self.heap.push((node.seq, slot));
            slot
        });
        self.slots[slot].as_mut().expect("a slot in the map is filled")
    }

    fn pop(&mut self) -> Option<Ready> {
        let (_, slot) = self.heap.pop()?;
        let ready = self.slots[slot].take().expect("a slot in the heap is filled");
        self.by_node.remove(&(Arc::as_ptr(&ready.node) as usize));
        self.free.push(slot);
        Some(ready)
    }
}

/// Adds `g` to what is there, in place where nobody else can see it.
pub(super) fn accumulate(slot: &mut Option<Tensor>, g: Tensor) {
    let Some(old) = slot.take() else {
        *slot = Some(g);
        return;
    };
    *slot = Some(sum(old, &g));
}

fn sum(old: Tensor, g: &Tensor) -> Tensor {
    let own = !mode::grad_enabled() && old.owns_dense() && g.has_data() && old.shape() == g.shape();
    if own {
        let a = old.array();
        let done = eager::run_into(&Op::Binary(BinaryOp::Add), &[a, g.array()], &[a]);
        if done.is_ok() {
            return old;
        }
    }
    &old + g
}

/// Adds `g` into a tensor's gradient. Another thread may do the same: whoever finds
/// something takes it out, adds its own and puts the sum back; who finds the place
/// taken meanwhile, takes that too. Nothing is locked while ops run.
pub(super) fn accumulate_into(t: &Tensor, g: Tensor) {
    // A gradient is dense memory of its own: not a broadcast view, and not shared
    // with another leaf's.
    let g = if g.device() == t.device() { g } else { g.to(t.device()) };
    let dense = |g: Tensor| if g.owns_dense() || g.is_traced() { g } else { g.copy() };
    let mut total = match t.take_grad() {
        Some(old) => sum(old, &g),
        None => dense(g),
    };
    while let Some((mine, theirs)) = t.put_grad(total) {
        total = sum(theirs, &mine);
    }
}

impl Pass {
    #[track_caller]
    pub(super) fn run(&self, roots: Vec<(Edge, Tensor)>, out: &mut [Option<Tensor>]) {
        let _mode = mode::set_grad(self.create);
        let callbacks = Callbacks::new();
        let mut frontier = Frontier::default();
        let mut edges = Vec::with_capacity(roots.len());
        for (edge, g) in roots {
            edges.push(edge.clone());
            self.send(&edge, g, &edges, &mut frontier, out);
        }
        while let Some(Ready { node, mut grads, mut parts }) = frontier.pop() {
            if !parts.is_empty() {
                if self.is_free(&node)
                    && grads[0].is_none()
                    && parts::transposes(&node)
                    && let Some(turned) = parts.transposed()
                {
                    for p in turned {
                        self.send_part(&node.operands[0].edge, p, &edges, &mut frontier, out);
                    }
                    continue;
                }
                parts.join(&mut grads[0]);
            }
            if matches!(node.rule, Rule::Function(_)) || node.hooks().is_some() {
                self.settle(&mut frontier, out);
            }
            let (grads, hooked) = hooks::before(&node, grads);
            if let Goal::Some { captured, wanted, .. } = &self.goal {
                let key = Arc::as_ptr(&node) as usize;
                for (o, g) in grads.iter().enumerate() {
                    let places = captured.get(&Target::Result(key, o as u16));
                    if let (Some(places), Some(g)) = (places, g) {
                        places.iter().for_each(|&i| accumulate(&mut out[i], g.clone()));
                    }
                }
                if !wanted.contains(&key) {
                    continue;
                }
            }
            let results = match &node.rule {
                Rule::Op(op) => {
                    let mut ctx = node.context(self.create);
                    // Hooks and the search for NaN see whole gradients.
                    if !self.create
                        && !hooked
                        && mode::get() & mode::CHECK_NAN == 0
                        && let Some((i, part)) = parts::split(op, &mut ctx, &grads)
                    {
                        let edge = &node.operands[i].edge;
                        self.send_part(edge, part, &edges, &mut frontier, out);
                    }
                    vjp::vjp(op, &ctx, &grads)
                }
                Rule::Function(f) => f.backward(&node, &grads, self.create),
                Rule::Once(name) => panic!(
                    "backward: the derivative of `{name}` recorded at {} is marked \
                     once-differentiable and cannot be differentiated again",
                    node.location
                ),
            };
            if mode::get() & mode::CHECK_NAN != 0 {
                check_nan(&node, &grads, &results);
            }
            let results = if hooked { hooks::after(&node, results, grads) } else { results };
            if !self.retain {
                node.free();
            }
            for (operand, g) in node.operands.iter().zip(results) {
                let Some(g) = g else { continue };
                let g = match &operand.reduce_to {
                    Some(shape) => sum_to(&g, shape),
                    None => g,
                };
                self.send(&operand.edge, g, &edges, &mut frontier, out);
            }
        }
        self.settle(&mut frontier, out);
        for w in std::mem::take(&mut frontier.leaves.list) {
            if let Some(g) = w.grad {
                self.deliver(&w.leaf, g, true, out);
            }
        }
        callbacks.call();
    }

    /// Sends a gradient along an edge.
    fn send(
        &self,
        edge: &Edge,
        g: Tensor,
        roots: &[Edge],
        frontier: &mut Frontier,
        out: &mut [Option<Tensor>],
    ) {
        let leaf = match edge {
            Edge::None => return,
            Edge::Node(n, o) => return frontier.add(n, *o, g),
            Edge::Leaf(t) => t,
        };
        if leaf.meta().hooks.is_none() {
            return self.deliver(leaf, g, false, out);
        }
        let leaves = &mut frontier.leaves;
        let uses = leaves.uses.get_or_insert_with(|| self.uses(roots));
        let expected = uses.get(&leaf.id()).copied().unwrap_or(0);
        let at = *leaves.index.entry(leaf.id()).or_insert_with(|| {
            leaves.list.push(Waiting { leaf: leaf.clone(), grad: None, arrived: 0 });
            leaves.list.len() - 1
        });
        let w = &mut leaves.list[at];
        w.arrived += 1;
        accumulate(&mut w.grad, g);
        if w.arrived >= expected
            && let Some(g) = w.grad.take()
        {
            self.settle(frontier, out);
            self.deliver(leaf, g, true, out);
        }
    }

    /// Whether nobody looks at the gradients of a node's results.
    fn is_free(&self, node: &Arc<Node>) -> bool {
        let asked = match &self.goal {
            Goal::Leaves => false,
            Goal::Some { .. } => true,
        };
        !asked && node.hooks().is_none()
    }

    /// Sends a gradient that is part of a sum to be made later.
    fn send_part(
        &self,
        edge: &Edge,
        part: Part,
        roots: &[Edge],
        frontier: &mut Frontier,
        out: &mut [Option<Tensor>],
    ) {
        match edge {
            Edge::Node(n, 0) => {
                let ready = frontier.ready(n);
                if ready.parts.push(part) {
                    std::mem::take(&mut ready.parts).join(&mut ready.grads[0]);
                }
            }
            Edge::Leaf(leaf) if leaf.meta().hooks.is_none() => {
                let at = *frontier.parts_of.entry(leaf.id()).or_insert_with(|| {
                    frontier.parts.push((leaf.clone(), Parts::default()));
                    frontier.parts.len() - 1
                });
                let waiting = &mut frontier.parts[at].1;
                if waiting.push(part) {
                    let parts = std::mem::take(waiting);
                    self.deliver_parts(leaf, parts, out);
                }
            }
            edge => {
                let mut parts = Parts::default();
                parts.push(part);
                let mut g = None;
                parts.join(&mut g);
                if let Some(g) = g {
                    self.send(edge, g, roots, frontier, out);
                }
            }
        }
    }

    /// Puts together what waits, before code of the user's runs: it may change in place
    /// what the parts are made of.
    fn settle(&self, frontier: &mut Frontier, out: &mut [Option<Tensor>]) {
        for ready in frontier.slots.iter_mut().flatten() {
            std::mem::take(&mut ready.parts).join(&mut ready.grads[0]);
        }
        frontier.parts_of.clear();
        for (leaf, parts) in std::mem::take(&mut frontier.parts) {
            self.deliver_parts(&leaf, parts, out);
        }
    }

    fn deliver_parts(&self, leaf: &Tensor, parts: Parts, out: &mut [Option<Tensor>]) {
        let mut g = None;
        parts.join(&mut g);
        if let Some(g) = g {
            self.deliver(leaf, g, false, out);
        }
    }

    /// How many edges of this pass lead to each leaf.
    fn uses(&self, roots: &[Edge]) -> FxHashMap<usize, usize> {
        let mut uses = FxHashMap::default();
        let mut count = |e: &Edge| {
            if let Edge::Leaf(t) = e {
                *uses.entry(t.id()).or_insert(0) += 1;
            }
        };
        roots.iter().for_each(&mut count);
        for n in nodes_below(roots.iter()) {
            let visited = match &self.goal {
                Goal::Leaves => true,
                Goal::Some { wanted, .. } => wanted.contains(&(Arc::as_ptr(&n) as usize)),
            };
            if visited {
                n.operands.iter().for_each(|o| count(&o.edge));
            }
        }
        uses
    }

    /// Gives a leaf its gradient.
    fn deliver(&self, leaf: &Tensor, g: Tensor, hooked: bool, out: &mut [Option<Tensor>]) {
        let captured = match &self.goal {
            Goal::Leaves => None,
            Goal::Some { captured, accumulate, .. } => {
                let places = captured.get(&Target::Leaf(leaf.id()));
                if *accumulate && places.is_none() {
                    return;
                }
                places.filter(|_| !accumulate)
            }
        };
        let (hooks, after) = match hooked {
            true => leaf.leaf_hooks(),
            false => (vec![], vec![]),
        };
        let g = Hooks::run(&hooks, 0, g);
        if let Goal::Some { accumulate: false, .. } = self.goal {
            captured.into_iter().flatten().for_each(|&i| accumulate(&mut out[i], g.clone()));
            return;
        }
        accumulate_into(leaf, g);
        for h in after {
            h(leaf);
        }
    }
}

/// Anomaly mode: a NaN is reported where it was made.
#[track_caller]
#[cold]
fn check_nan(node: &Node, grads: &[Option<Tensor>], results: &[Option<Tensor>]) {
    for (i, g) in results.iter().enumerate() {
        let Some(g) = g else { continue };
        if !g.has_data() || !has_nan(g) {
            continue;
        }
        let came =
            if grads.iter().flatten().any(has_nan) { ", from one that has NaN, too" } else { "" };
        let operands = node.operand_types().map_or(String::new(), |t| format!(" on ({t})"));
        panic!(
            "backward: the derivative of {}{operands} by operand {i} has NaN (gradient {} {:?}{came})",
            node.describe(),
            g.dtype(),
            g.shape(),
        );
    }
}

/// Whether a value is NaN.
pub(crate) fn has_nan(t: &Tensor) -> bool {
    t.dtype().is_differentiable()
        && super::no_grad(|| t.detach().isnan().any().item_scalar().as_bool())
}
