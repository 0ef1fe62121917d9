//! Functions that see gradients as they pass.

use super::engine::{accumulate, queue_callback};
use super::node::Node;
use crate::tensor::Tensor;
use smallvec::SmallVec;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, Weak};
use std::thread::ThreadId;

pub(super) type Hook = Arc<dyn Fn(&Tensor) -> Option<Tensor> + Send + Sync>;
pub(super) type PostHook = Arc<dyn Fn(&Tensor) + Send + Sync>;
type Grads = Vec<Option<Tensor>>;
/// Sees the gradients of a node's results, and may replace them.
pub(super) type PreHook = Arc<dyn Fn(&[Option<Tensor>]) -> Option<Grads> + Send + Sync>;
/// Sees the gradients of a node's operands and of its results, and may replace the
/// former.
pub(super) type NodeHook =
    Arc<dyn Fn(&[Option<Tensor>], &[Option<Tensor>]) -> Option<Grads> + Send + Sync>;

/// The hooks of a leaf tensor or of a node.
#[derive(Default)]
pub(crate) struct Hooks {
    next: u64,
    /// Which result (0 for a leaf), number, function.
    on_grad: Vec<(u16, u64, Hook)>,
    after: Vec<(u64, PostHook)>,
    pre: Vec<(u64, PreHook)>,
    post: Vec<(u64, NodeHook)>,
    /// Of nodes: where results' gradients are also kept.
    keep: Vec<Keep>,
    /// Of results: the gradient that is kept.
    kept: Option<Kept>,
}

type Kept = Arc<Mutex<Option<Tensor>>>;

/// The place belongs to the result: the node must not own a gradient, whose history may
/// lead to the node.
struct Keep {
    output: u16,
    into: Weak<Mutex<Option<Tensor>>>,
}

impl Hooks {
    /// The gradient after the hooks of that result.
    pub(super) fn run(hooks: &[(u16, Hook)], output: u16, mut grad: Tensor) -> Tensor {
        for (_, h) in hooks.iter().filter(|h| h.0 == output) {
            if let Some(g) = h(&grad) {
                fits(&g, &grad);
                grad = g;
            }
        }
        grad
    }

    fn snapshot(&self) -> Vec<(u16, Hook)> {
        self.on_grad.iter().map(|(o, _, h)| (*o, h.clone())).collect()
    }

    fn after_accumulation(&self) -> Vec<PostHook> {
        self.after.iter().map(|(_, h)| h.clone()).collect()
    }

    fn keeper(&self, output: u16) -> Option<Kept> {
        self.keep.iter().find(|k| k.output == output)?.into.upgrade()
    }
}

fn fits(new: &Tensor, old: &Tensor) {
    assert!(
        new.shape() == old.shape() && new.dtype() == old.dtype(),
        "hook: returned a {} {:?} for a gradient {} {:?}",
        new.dtype(),
        new.shape(),
        old.dtype(),
        old.shape()
    );
}

/// Puts gradients that a hook returned in place of those it saw.
fn replace(slots: &mut [Option<Tensor>], new: Option<Grads>) {
    let Some(new) = new else { return };
    assert!(new.len() == slots.len(), "hook: returned {} gradients for {}", new.len(), slots.len());
    for (slot, g) in slots.iter_mut().zip(new) {
        if let (Some(old), Some(g)) = (&*slot, &g) {
            fits(g, old);
        }
        *slot = g;
    }
}

/// The gradients of a node's results, after the hooks on them, and whether there were any.
pub(super) fn before(
    node: &Node,
    mut grads: SmallVec<[Option<Tensor>; 1]>,
) -> (SmallVec<[Option<Tensor>; 1]>, bool) {
    let (hooks, pre, keepers) = {
        let guard = node.hooks();
        let Some(h) = &*guard else { return (grads, false) };
        let keepers: Vec<_> = (0..node.outputs).map(|o| h.keeper(o)).collect();
        let pre: Vec<PreHook> = h.pre.iter().map(|p| p.1.clone()).collect();
        (h.snapshot(), pre, keepers)
    };
    for (o, slot) in grads.iter_mut().enumerate() {
        if let Some(g) = slot.take() {
            let g = Hooks::run(&hooks, o as u16, g);
            if let Some(k) = &keepers[o] {
                // Not under the lock: adding runs ops.
                let mut kept = k.lock().unwrap_or_else(|e| e.into_inner()).take();
                accumulate(&mut kept, g.clone());
                *k.lock().unwrap_or_else(|e| e.into_inner()) = kept;
            }
            *slot = Some(g);
        }
    }
    for h in pre {
        let new = h(&grads);
        replace(&mut grads, new);
    }
    (grads, true)
}

/// The gradients of a node's operands, after the hooks on the node.
pub(super) fn after(
    node: &Node,
    mut results: SmallVec<[Option<Tensor>; 3]>,
    grads: SmallVec<[Option<Tensor>; 1]>,
) -> SmallVec<[Option<Tensor>; 3]> {
    let post: Vec<NodeHook> = match &*node.hooks() {
        None => return results,
        Some(h) => h.post.iter().map(|p| p.1.clone()).collect(),
    };
    for h in post {
        let new = h(&results, &grads);
        replace(&mut results, new);
    }
    results
}

/// Removes its hook when asked to; dropping it leaves the hook in place.
pub struct HookHandle {
    places: Vec<(u64, Place)>,
}

enum Place {
    Leaf(Tensor),
    Node(Weak<Node>),
}

impl HookHandle {
    /// Takes the hook off.
    pub fn remove(self) {
        for (number, place) in &self.places {
            let strip = |h: &mut Option<Box<Hooks>>| {
                if let Some(h) = h {
                    h.on_grad.retain(|x| x.1 != *number);
                    h.after.retain(|x| x.0 != *number);
                    h.pre.retain(|x| x.0 != *number);
                    h.post.retain(|x| x.0 != *number);
                }
            };
            match place {
                Place::Leaf(t) => strip(&mut t.meta().hooks),
                Place::Node(n) => {
                    if let Some(n) = n.upgrade() {
                        strip(&mut n.hooks());
                    }
                }
            }
        }
    }
}

fn add(slot: &mut Option<Box<Hooks>>, f: impl FnOnce(&mut Hooks, u64)) -> u64 {
    let hooks = slot.get_or_insert_default();
    hooks.next += 1;
    let n = hooks.next;
    f(hooks, n);
    n
}

/// Adds a hook to a node.
fn on_node(node: &Arc<Node>, f: impl FnOnce(&mut Hooks, u64)) -> HookHandle {
    let number = add(&mut node.hooks(), f);
    HookHandle { places: vec![(number, Place::Node(Arc::downgrade(node)))] }
}

pub(super) fn on_node_before(node: &Arc<Node>, f: PreHook) -> HookHandle {
    on_node(node, |h, n| h.pre.push((n, f)))
}

pub(super) fn on_node_after(node: &Arc<Node>, f: NodeHook) -> HookHandle {
    on_node(node, |h, n| h.post.push((n, f)))
}

/// Adds a hook to a leaf or a recorded result.
#[track_caller]
fn on_tensor(t: &Tensor, f: Hook) -> (u64, Place) {
    refuse_batched("register_hook", t);
    let t = t.behind();
    let grad_fn = t.grad_node();
    match grad_fn {
        Some((node, output)) => {
            let number = add(&mut node.hooks(), |h, n| h.on_grad.push((output, n, f)));
            (number, Place::Node(Arc::downgrade(&node)))
        }
        None => {
            let number = add(&mut t.meta().hooks, |h, n| h.on_grad.push((0, n, f)));
            (number, Place::Leaf(t.clone()))
        }
    }
}

/// A hook would be called with the gradients of a whole batch, not of an element.
#[track_caller]
fn refuse_batched(name: &str, t: &Tensor) {
    if t.as_batched().is_some() {
        panic!(
            "{name}: the {} {:?} tensor stands for the elements of a batch inside `vmap`, whose \
             gradients exist only together; hook the tensor outside",
            t.dtype(),
            t.shape()
        );
    }
}

/// When a hook on several tensors is called.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum MultiGrad {
    /// Once a pass, with all gradients: when the last of them is there, or at the end
    /// of the pass with `None` for tensors that played no part.
    All,
    /// Once a pass, with the first gradient that is there.
    Any,
}

/// Calls `f` once a backward pass that reaches any of `tensors`, with their gradients
/// in order. The tensors' histories at this moment count.
///
/// ```
/// use sinter::autograd::{MultiGrad, register_multi_grad_hook};
/// use sinter::tensor;
/// use std::sync::{Arc, Mutex};
/// let a = tensor([1.0f32]).requires_grad_(true);
/// let b = tensor([2.0f32]).requires_grad_(true);
/// let seen = Arc::new(Mutex::new(0));
/// let count = seen.clone();
/// let _handle = register_multi_grad_hook(&[&a, &b], MultiGrad::All, move |grads| {
///     *count.lock().unwrap() += grads.iter().flatten().count();
/// });
/// (&a * &b).sum().backward();
/// assert_eq!(*seen.lock().unwrap(), 2);
/// ```
///
/// # Panics
/// If a tensor does not require a gradient.
#[track_caller]
pub fn register_multi_grad_hook(
    tensors: &[&Tensor],
    mode: MultiGrad,
    f: impl Fn(&[Option<Tensor>]) + Send + Sync + 'static,
) -> HookHandle {
    for (i, t) in tensors.iter().enumerate() {
        if !t.requires_grad() {
            panic!("register_multi_grad_hook: tensor {i} does not require a gradient");
        }
    }
    /// What the passes that run on a thread have brought so far.
    type Parts = HashMap<ThreadId, Grads>;
    let parts: Arc<Mutex<Parts>> = Arc::default();
    let f = Arc::new(f);
    let n = tensors.len();
    let mut places = Vec::with_capacity(n);
    for (i, t) in tensors.iter().enumerate() {
        let (parts, f) = (parts.clone(), f.clone());
        let hook = move |g: &Tensor| -> Option<Tensor> {
            let me = std::thread::current().id();
            let (first, due) = {
                let mut all = parts.lock().unwrap_or_else(|e| e.into_inner());
                let first = !all.contains_key(&me);
                let grads = all.entry(me).or_insert_with(|| vec![None; n]);
                grads[i] = Some(g.clone());
                let due = match mode {
                    MultiGrad::All => grads.iter().all(Option::is_some),
                    MultiGrad::Any => first,
                };
                (first, due.then(|| grads.clone()))
            };
            // Called once: what is left at the end of a pass was not called.
            if first {
                let (parts, f) = (parts.clone(), f.clone());
                queue_callback(move || {
                    let left = parts.lock().unwrap_or_else(|e| e.into_inner()).remove(&me);
                    if let (Some(grads), MultiGrad::All) = (left, mode)
                        && grads.iter().any(Option::is_none)
                    {
                        f(&grads);
                    }
                });
            }
            if let Some(grads) = due {
                f(&grads);
            }
            None
        };
        places.push(on_tensor(t, Arc::new(hook)));
    }
    HookHandle { places }
}

impl Tensor {
    /// Calls `f` with the gradient of this tensor each time one is computed; what
    /// it returns replaces the gradient.
    ///
    /// ```
    /// use sinter::tensor;
    /// let x = tensor([1.0f32]).requires_grad_(true);
    /// let _handle = x.register_hook(|g| Some(g * 10.0));
    /// (&x * 2.0).sum().backward();
    /// assert_eq!(x.grad().unwrap().item::<f32>(), 20.0);
    /// ```
    ///
    /// # Panics
    /// If the tensor does not require a gradient.
    #[track_caller]
    pub fn register_hook(
        &self,
        f: impl Fn(&Tensor) -> Option<Tensor> + Send + Sync + 'static,
    ) -> HookHandle {
        if !self.requires_grad() {
            panic!(
                "register_hook: the {} {:?} tensor does not require a gradient",
                self.dtype(),
                self.shape()
            );
        }
        HookHandle { places: vec![on_tensor(self, Arc::new(f))] }
    }

    /// Calls `f` with this leaf after a gradient was added into its `grad`: an
    /// optimizer can step and free it on the spot.
    ///
    /// # Panics
    /// If the tensor is not a leaf that requires a gradient.
    #[track_caller]
    pub fn register_post_accumulate_grad_hook(
        &self,
        f: impl Fn(&Tensor) + Send + Sync + 'static,
    ) -> HookHandle {
        refuse_batched("register_post_accumulate_grad_hook", self);
        if !self.requires_grad() || !self.is_leaf() {
            panic!("register_post_accumulate_grad_hook: needs a leaf that requires a gradient");
        }
        let f: PostHook = Arc::new(f);
        let number = add(&mut self.meta().hooks, |h, n| h.after.push((n, f)));
        HookHandle { places: vec![(number, Place::Leaf(self.clone()))] }
    }

    /// Has `backward` keep the gradient of this result too, where
    /// [`grad`](Tensor::grad) finds it. Leaves keep theirs anyway. The result keeps
    /// doing so when it is changed in place: the gradient is that of the new value.
    ///
    /// # Panics
    /// If the tensor does not require a gradient.
    #[track_caller]
    pub fn retain_grad(&self) {
        if !self.requires_grad() {
            panic!(
                "retain_grad: the {} {:?} tensor does not require a gradient",
                self.dtype(),
                self.shape()
            );
        }
        if let Some((node, output)) = self.grad_node()
            && self.kept_grad().is_none()
        {
            let place = Kept::default();
            let into = Arc::downgrade(&place);
            self.behind().meta().hooks.get_or_insert_default().kept = Some(place);
            node.hooks().get_or_insert_default().keep.push(Keep { output, into });
        }
    }

    /// The hooks on a leaf: those that see its gradient, and those that are called
    /// when it was added.
    pub(super) fn leaf_hooks(&self) -> (Vec<(u16, Hook)>, Vec<PostHook>) {
        match &self.meta().hooks {
            Some(h) => (h.snapshot(), h.after_accumulation()),
            None => (vec![], vec![]),
        }
    }

    /// Whether [`retain_grad`](Tensor::retain_grad) was asked for. Not of leaves.
    pub fn retains_grad(&self) -> bool {
        self.kept_grad().is_some()
    }

    /// Whether hooks hang on the gradient of this leaf or result.
    pub(crate) fn has_hooks(&self) -> bool {
        match self.grad_node() {
            Some((node, _)) => node.hooks().is_some(),
            None => self.meta().hooks.is_some(),
        }
    }

    /// The place of a result's gradient, if it keeps one.
    pub(crate) fn kept_grad(&self) -> Option<Arc<Mutex<Option<Tensor>>>> {
        self.behind().meta().hooks.as_ref()?.kept.clone()
    }
}

/// Has the new node of a result that was changed in place keep its gradient where the
/// old one did.
pub(crate) fn move_keeper(from: &(Arc<Node>, u16), to: &(Arc<Node>, u16)) {
    let keep = match &mut *from.0.hooks() {
        None => return,
        Some(h) => {
            let at = h.keep.iter().position(|k| k.output == from.1);
            at.map(|i| h.keep.swap_remove(i))
        }
    };
    if let Some(k) = keep {
        let mut hooks = to.0.hooks();
        hooks.get_or_insert_default().keep.push(Keep { output: to.1, into: k.into });
    }
}
