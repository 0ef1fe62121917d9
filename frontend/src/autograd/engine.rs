//! The backward pass.

use super::hooks::Hooks;
use super::{Edge, Node, mode, sum_to, vjp};
use crate::tensor::Tensor;
use rustc_hash::FxHashMap;
use sinter_runtime::op::BinaryOp;
use sinter_runtime::{Op, eager};
use smallvec::SmallVec;
use std::collections::BinaryHeap;
use std::sync::Arc;

/// A backward pass and its options.
///
/// ```
/// use sinter::{Backward, tensor};
/// let x = tensor([3.0f64]).requires_grad_(true);
/// let y = (&x * &x * &x).sum();
/// Backward::new().create_graph(true).run(&y);
/// let g = x.grad().unwrap(); // 3x², itself on the tape
/// x.zero_grad();
/// g.sum().backward();
/// assert_eq!(x.grad().unwrap().item::<f64>(), 18.0); // 6x
/// ```
#[derive(Default)]
pub struct Backward {
    retain: Option<bool>,
    create: bool,
    gradient: Option<Tensor>,
}

impl Backward {
    /// The pass that [`Tensor::backward`] makes.
    pub fn new() -> Backward {
        Backward::default()
    }

    /// Keeps what the graph saved, for another pass. Default: as `create_graph`.
    pub fn retain_graph(mut self, on: bool) -> Backward {
        self.retain = Some(on);
        self
    }

    /// Records the pass itself, so that gradients can be differentiated.
    pub fn create_graph(mut self, on: bool) -> Backward {
        self.create = on;
        self
    }

    /// The gradient of the result; needed where it has more than one element.
    pub fn gradient(mut self, g: &Tensor) -> Backward {
        self.gradient = Some(g.clone());
        self
    }

    /// Adds the gradients of `root` into the `grad` of every leaf it came from.
    ///
    /// # Panics
    /// If `root` has no history, has several elements and no gradient is given,
    /// or a saved value was freed or changed in place since.
    #[track_caller]
    pub fn run(self, root: &Tensor) {
        let seed = seed("backward", root, self.gradient.as_ref());
        let pass = Pass {
            create: self.create,
            retain: self.retain.unwrap_or(self.create),
            captured: FxHashMap::default(),
            wanted: None,
        };
        pass.run(vec![(root.clone(), seed)], &mut Vec::new());
    }

    /// The gradients of `outputs` (each a scalar) with respect to `inputs`,
    /// leaving every `grad` alone. `None` where an input played no part.
    ///
    /// # Panics
    /// As [`Backward::run`]; and where an input does not require a gradient.
    #[track_caller]
    pub fn grad(self, outputs: &[&Tensor], inputs: &[&Tensor]) -> Vec<Option<Tensor>> {
        let mut captured: FxHashMap<Target, SmallVec<[usize; 1]>> = FxHashMap::default();
        for (i, t) in inputs.iter().enumerate() {
            let target = match t.edge() {
                Edge::None => panic!("grad: input {i} does not require a gradient"),
                Edge::Node(n, o) => Target::Result(Arc::as_ptr(&n) as usize, o),
                Edge::Leaf(t) => Target::Leaf(t.id()),
            };
            captured.entry(target).or_default().push(i);
        }
        let roots: Vec<(Tensor, Tensor)> = outputs
            .iter()
            .map(|t| ((*t).clone(), seed("grad", t, self.gradient.as_ref())))
            .collect();
        let wanted = Some(wanted(&roots, &captured));
        let pass = Pass {
            create: self.create,
            retain: self.retain.unwrap_or(self.create),
            captured,
            wanted,
        };
        let mut out = vec![None; inputs.len()];
        pass.run(roots, &mut out);
        out
    }
}

/// The gradients of `outputs` (each a scalar) with respect to `inputs`, as
/// [`Backward::grad`] gives them.
///
/// ```
/// use sinter::{grad, tensor};
/// let x = tensor([2.0f64]).requires_grad_(true);
/// let y = x.square().sum();
/// let dy = grad(&[&y], &[&x], true); // recorded: can be differentiated again
/// let d2y = grad(&[dy[0].as_ref().unwrap()], &[&x], false);
/// assert_eq!(d2y[0].as_ref().unwrap().item::<f64>(), 2.0);
/// ```
#[track_caller]
pub fn grad(outputs: &[&Tensor], inputs: &[&Tensor], create_graph: bool) -> Vec<Option<Tensor>> {
    Backward::new().create_graph(create_graph).grad(outputs, inputs)
}

impl Tensor {
    /// Adds the gradient of this scalar into the `grad` of every leaf it was
    /// computed from, and frees what the graph saved.
    ///
    /// # Panics
    /// As [`Backward::run`].
    #[track_caller]
    pub fn backward(&self) {
        Backward::new().run(self);
    }
}

#[track_caller]
fn seed(op: &str, root: &Tensor, gradient: Option<&Tensor>) -> Tensor {
    if !root.requires_grad() {
        panic!("{op}: the tensor has no history: nothing it was computed from requires a gradient");
    }
    match gradient {
        Some(g) if g.shape() != root.shape() || g.dtype() != root.dtype() => panic!(
            "{op}: the gradient is {} {:?}, the tensor {} {:?}",
            g.dtype(),
            g.shape(),
            root.dtype(),
            root.shape()
        ),
        Some(g) => g.clone(),
        None if root.numel() == 1 => crate::tensor::ones_like(root),
        None => panic!(
            "{op}: a tensor of shape {:?} needs a gradient to start from; only scalars have an obvious one",
            root.shape()
        ),
    }
}

#[derive(PartialEq, Eq, Hash, Clone, Copy)]
enum Target {
    Leaf(usize),
    Result(usize, u8),
}

/// The nodes on a path from the roots to a captured tensor.
fn wanted(
    roots: &[(Tensor, Tensor)],
    captured: &FxHashMap<Target, SmallVec<[usize; 1]>>,
) -> FxHashMap<usize, bool> {
    let mut nodes: FxHashMap<usize, Arc<Node>> = FxHashMap::default();
    let mut todo: Vec<Arc<Node>> = Vec::new();
    let mut visit = |edge: &Edge, todo: &mut Vec<Arc<Node>>| {
        if let Edge::Node(n, _) = edge
            && nodes.insert(Arc::as_ptr(n) as usize, n.clone()).is_none()
        {
            todo.push(n.clone());
        }
    };
    for (r, _) in roots {
        visit(&r.edge(), &mut todo);
    }
    while let Some(n) = todo.pop() {
        for o in &n.operands {
            visit(&o.edge, &mut todo);
        }
    }
    // Operands come before their users.
    let mut order: Vec<Arc<Node>> = nodes.into_values().collect();
    order.sort_unstable_by_key(|n| n.seq);
    let mut out: FxHashMap<usize, bool> = FxHashMap::default();
    for n in order {
        let leads = n.operands.iter().any(|o| match &o.edge {
            Edge::None => false,
            Edge::Leaf(t) => captured.contains_key(&Target::Leaf(t.id())),
            Edge::Node(m, i) => {
                let p = Arc::as_ptr(m) as usize;
                captured.contains_key(&Target::Result(p, *i))
                    || out.get(&p).copied().unwrap_or(false)
            }
        });
        out.insert(Arc::as_ptr(&n) as usize, leads);
    }
    out
}

struct Pass {
    create: bool,
    retain: bool,
    /// Tensors whose gradients are handed out instead of accumulated.
    captured: FxHashMap<Target, SmallVec<[usize; 1]>>,
    /// With captures: the nodes worth visiting.
    wanted: Option<FxHashMap<usize, bool>>,
}

/// A node that gradients have reached.
struct Ready {
    node: Arc<Node>,
    grads: SmallVec<[Option<Tensor>; 1]>,
}

#[derive(Default)]
struct Frontier {
    /// By sequence number: when a node comes to the top, every user of its
    /// results has been there before.
    heap: BinaryHeap<(u64, usize)>,
    slots: Vec<Option<Ready>>,
    free: Vec<usize>,
    by_node: FxHashMap<usize, usize>,
}

impl Frontier {
    fn add(&mut self, node: &Arc<Node>, output: u8, g: Tensor) {
        let key = Arc::as_ptr(node) as usize;
        let slot = *self.by_node.entry(key).or_insert_with(|| {
            let ready = Ready {
                node: node.clone(),
                grads: SmallVec::from_elem(None, node.outputs as usize),
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
        let ready = self.slots[slot].as_mut().expect("a slot in the map is filled");
        accumulate(&mut ready.grads[output as usize], g);
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
fn accumulate(slot: &mut Option<Tensor>, g: Tensor) {
    let Some(old) = slot.take() else {
        *slot = Some(g);
        return;
    };
    let own = old.is_unique()
        && !old.is_traced()
        && !mode::grad_enabled()
        && old.array().block().handles() == 1
        && old.is_contiguous()
        && old.shape() == g.shape();
    if own {
        let a = old.array();
        let done = eager::run_into(&Op::Binary(BinaryOp::Add), &[a, g.array()], &[a]);
        if done.is_ok() {
            *slot = Some(old);
            return;
        }
    }
    *slot = Some(&old + &g);
}

impl Pass {
    #[track_caller]
    fn run(&self, roots: Vec<(Tensor, Tensor)>, out: &mut [Option<Tensor>]) {
        let _mode = mode::set_grad(self.create);
        let mut frontier = Frontier::default();
        for (root, g) in roots {
            self.send(&root.edge(), g, &mut frontier, out);
        }
        while let Some(Ready { node, grads }) = frontier.pop() {
            let grads = run_hooks(&node, grads);
            if let Some(w) = &self.wanted
                && !w.get(&(Arc::as_ptr(&node) as usize)).copied().unwrap_or(false)
            {
                continue;
            }
            let ctx = node.unpack(self.create);
            let results = vjp::vjp(&node.op, &ctx, &grads);
            drop((ctx, grads));
            if !self.retain {
                node.free();
            }
            for (operand, g) in node.operands.iter().zip(results) {
                let Some(g) = g else { continue };
                let g = match &operand.reduce_to {
                    Some(shape) => sum_to(&g, shape),
                    None => g,
                };
                self.send(&operand.edge, g, &mut frontier, out);
            }
        }
    }

    /// Delivers a gradient along an edge.
    fn send(&self, edge: &Edge, g: Tensor, frontier: &mut Frontier, out: &mut [Option<Tensor>]) {
        match edge {
            Edge::None => {}
            Edge::Node(n, o) => {
                self.capture(Target::Result(Arc::as_ptr(n) as usize, *o), &g, out);
                frontier.add(n, *o, g);
            }
            Edge::Leaf(t) => {
                let (hooks, after) = {
                    let meta = t.meta();
                    match &meta.hooks {
                        Some(h) => (h.snapshot(), h.after()),
                        None => (vec![], vec![]),
                    }
                };
                let g = Hooks::run(&hooks, 0, g);
                if self.wanted.is_some() {
                    self.capture(Target::Leaf(t.id()), &g, out);
                    return;
                }
                let mut slot = t.grad();
                t.set_grad(None);
                // A gradient is dense memory of its own: not a broadcast view,
                // and not shared with another leaf's.
                let shared = !g.is_unique() || g.array().block().handles() > 1;
                let g = if slot.is_none() && (shared || !g.is_contiguous()) { g.copy() } else { g };
                accumulate(&mut slot, g);
                t.set_grad(slot);
                for h in after {
                    h(t);
                }
            }
        }
    }

    fn capture(&self, target: Target, g: &Tensor, out: &mut [Option<Tensor>]) {
        for &i in self.captured.get(&target).into_iter().flatten() {
            accumulate(&mut out[i], g.clone());
        }
    }
}

fn run_hooks(
    node: &Node,
    mut grads: SmallVec<[Option<Tensor>; 1]>,
) -> SmallVec<[Option<Tensor>; 1]> {
    let (hooks, keepers) = match &*node.hooks() {
        None => return grads,
        Some(h) => {
            let keepers: Vec<_> = (0..node.outputs).map(|o| h.keeper(o)).collect();
            (h.snapshot(), keepers)
        }
    };
    for (o, slot) in grads.iter_mut().enumerate() {
        if let Some(g) = slot.take() {
            let g = Hooks::run(&hooks, o as u8, g);
            if let Some(k) = &keepers[o] {
                *k.lock().unwrap_or_else(|e| e.into_inner()) = Some(g.clone());
            }
            *slot = Some(g);
        }
    }
    grads
}
