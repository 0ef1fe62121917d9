//! Functions that see gradients as they pass.

use super::Node;
use crate::tensor::Tensor;
use std::sync::{Arc, Mutex, Weak};

type Hook = Arc<dyn Fn(&Tensor) -> Option<Tensor> + Send + Sync>;
type PostHook = Arc<dyn Fn(&Tensor) + Send + Sync>;

/// The hooks of a leaf tensor or of a node's results.
#[derive(Default)]
pub(crate) struct Hooks {
    next: u64,
    /// Which result (0 for a leaf), number, function.
    on_grad: Vec<(u8, u64, Hook)>,
    after: Vec<(u64, PostHook)>,
    /// Where a result's gradient is also kept.
    keep: Option<Keep>,
}

struct Keep {
    output: u8,
    into: Arc<Mutex<Option<Tensor>>>,
}

impl Hooks {
    /// The gradient after the hooks of that result.
    pub(super) fn run(hooks: &[(u8, Hook)], output: u8, mut grad: Tensor) -> Tensor {
        for (_, h) in hooks.iter().filter(|h| h.0 == output) {
            if let Some(g) = h(&grad) {
                assert!(
                    g.shape() == grad.shape() && g.dtype() == grad.dtype(),
                    "hook: returned a {} {:?} for a gradient {} {:?}",
                    g.dtype(),
                    g.shape(),
                    grad.dtype(),
                    grad.shape()
                );
                grad = g;
            }
        }
        grad
    }

    pub(super) fn snapshot(&self) -> Vec<(u8, Hook)> {
        self.on_grad.iter().map(|(o, _, h)| (*o, h.clone())).collect()
    }

    pub(super) fn after(&self) -> Vec<PostHook> {
        self.after.iter().map(|(_, h)| h.clone()).collect()
    }

    pub(super) fn keeper(&self, output: u8) -> Option<Arc<Mutex<Option<Tensor>>>> {
        self.keep.as_ref().filter(|k| k.output == output).map(|k| k.into.clone())
    }
}

/// Removes its hook when asked to; dropping it leaves the hook in place.
pub struct HookHandle {
    number: u64,
    place: Place,
}

enum Place {
    Leaf(Tensor),
    Node(Weak<Node>),
}

impl HookHandle {
    /// Takes the hook off.
    pub fn remove(self) {
        let strip = |h: &mut Option<Box<Hooks>>| {
            if let Some(h) = h {
                h.on_grad.retain(|x| x.1 != self.number);
                h.after.retain(|x| x.0 != self.number);
            }
        };
        match &self.place {
            Place::Leaf(t) => strip(&mut t.meta().hooks),
            Place::Node(n) => {
                if let Some(n) = n.upgrade() {
                    strip(&mut n.hooks());
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

impl Tensor {
    /// Calls `f` with the gradient of this tensor each time one is computed; what
    /// it returns replaces the gradient.
    ///
    /// ```
    /// use sinter::tensor;
    /// let x = tensor([1.0f32]).requires_grad_(true);
    /// x.register_hook(|g| Some(g * 10.0));
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
            panic!("register_hook: the tensor does not require a gradient");
        }
        let f: Hook = Arc::new(f);
        let grad_fn = self.meta().grad_fn.clone();
        match grad_fn {
            Some((node, output)) => {
                let number = add(&mut node.hooks(), |h, n| h.on_grad.push((output, n, f)));
                HookHandle { number, place: Place::Node(Arc::downgrade(&node)) }
            }
            None => {
                let number = add(&mut self.meta().hooks, |h, n| h.on_grad.push((0, n, f)));
                HookHandle { number, place: Place::Leaf(self.clone()) }
            }
        }
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
        if !self.requires_grad() || !self.is_leaf() {
            panic!("register_post_accumulate_grad_hook: needs a leaf that requires a gradient");
        }
        let f: PostHook = Arc::new(f);
        let number = add(&mut self.meta().hooks, |h, n| h.after.push((n, f)));
        HookHandle { number, place: Place::Leaf(self.clone()) }
    }

    /// Has `backward` keep the gradient of this result too, where
    /// [`retained_grad`](Tensor::retained_grad) finds it. Leaves keep theirs anyway.
    ///
    /// # Panics
    /// If the tensor does not require a gradient.
    #[track_caller]
    pub fn retain_grad(&self) {
        if !self.requires_grad() {
            panic!("retain_grad: the tensor does not require a gradient");
        }
        let grad_fn = self.meta().grad_fn.clone();
        if let Some((node, output)) = grad_fn {
            node.hooks().get_or_insert_default().keep = Some(Keep { output, into: Arc::default() });
        }
    }

    /// The gradient kept for a result by [`retain_grad`](Tensor::retain_grad), or a
    /// leaf's gradient.
    pub fn retained_grad(&self) -> Option<Tensor> {
        let grad_fn = self.meta().grad_fn.clone();
        match grad_fn {
            None => self.grad(),
            Some((node, output)) => {
                let kept = node.hooks().as_ref()?.keeper(output)?;
                let kept = kept.lock().unwrap_or_else(|e| e.into_inner());
                kept.clone()
            }
        }
    }
}
