//! What a tensor knows of autograd: whether gradients are asked for, where it came
//! from, and what it is a view of.

use super::{BARRED, INFERENCE, RECORDED, REQUIRES_GRAD, Repr, Tensor, UNTRACKED, VIEW};
use crate::autograd::{self, Edge, Node, mode};
use std::sync::Arc;
use std::sync::atomic::Ordering;

impl Tensor {
    /// Whether gradients with respect to this tensor are, or can be, computed.
    #[inline]
    pub fn requires_grad(&self) -> bool {
        self.flags() & REQUIRES_GRAD != 0
    }

    /// The tensor's flags, those of a view as of now: a change of its memory may have
    /// given it a history.
    #[inline]
    pub(crate) fn flags(&self) -> u8 {
        let f = self.0.flags.load(Ordering::Relaxed);
        if f & (VIEW | UNTRACKED) == VIEW && self.array().block().version() != self.view_version() {
            return self.refresh();
        }
        f
    }

    /// Takes a view's history from its base again, after a change of their memory.
    #[cold]
    fn refresh(&self) -> u8 {
        if let Some(base) = &self.0.base {
            let version = self.array().block().version();
            let base_fn = base.meta().grad_fn.clone();
            let mut old = None;
            if let Some((node, output)) = base_fn {
                let at = node.location();
                let edge = Edge::Node(node, output);
                let history = autograd::view_history(edge, base.array(), self.array(), at);
                if history.is_none() {
                    panic!(
                        "a view, {:?} with strides {:?}, that leaves the elements of the {:?} tensor \
                         it was taken of was used after a recorded change of that; take it again",
                        self.shape(),
                        self.array().strides(),
                        base.shape()
                    );
                }
                if let Some(Edge::Node(node, output)) = history {
                    let mut meta = self.meta();
                    // Another thread may have been here.
                    if self.view_version() != version {
                        old = meta.grad_fn.replace((node, output));
                        self.0.flags.fetch_or(REQUIRES_GRAD | RECORDED, Ordering::Relaxed);
                        self.0.view_version.store(version, Ordering::Relaxed);
                    }
                }
            }
            self.0.view_version.store(version, Ordering::Relaxed);
            // Not under the lock: a history may be long.
            drop(old);
        }
        self.0.flags.load(Ordering::Relaxed)
    }

    /// Of a view: the version of the memory that its history is about.
    #[inline]
    pub(crate) fn view_version(&self) -> u64 {
        self.0.view_version.load(Ordering::Relaxed)
    }

    /// The tensor whose memory this is a view of, where autograd follows it.
    pub fn base(&self) -> Option<Tensor> {
        self.0.base.clone()
    }

    /// The base of a view, any other tensor itself.
    #[inline]
    pub(crate) fn anchor(&self) -> &Tensor {
        self.0.base.as_ref().unwrap_or(self)
    }

    /// Whether this is a view that autograd does not follow.
    pub(crate) fn is_untracked_view(&self) -> bool {
        self.0.flags.load(Ordering::Relaxed) & UNTRACKED != 0
    }

    /// Whether this is such a view of a tensor with a history, which a change through
    /// the view would falsify.
    pub(crate) fn is_barred(&self) -> bool {
        self.0.flags.load(Ordering::Relaxed) & BARRED != 0
    }

    /// Whether the tensor was made in [`inference_mode`](crate::autograd::inference_mode).
    pub fn is_inference(&self) -> bool {
        self.0.flags.load(Ordering::Relaxed) & INFERENCE != 0
    }

    /// Whether the tensor was made as a view of another's memory.
    pub fn is_view(&self) -> bool {
        self.flags() & VIEW != 0
    }

    /// Whether the tensor was made by the user, not by a recorded op.
    pub fn is_leaf(&self) -> bool {
        self.flags() & RECORDED == 0
    }

    /// Asks for gradients with respect to this tensor (or stops asking), and
    /// returns it.
    ///
    /// # Panics
    /// If it is neither floating point nor complex, or is the result of a recorded op.
    #[track_caller]
    pub fn requires_grad_(self, on: bool) -> Tensor {
        if on && !self.dtype().is_differentiable() {
            panic!(
                "requires_grad_: only floating-point and complex tensors have gradients, this is {}",
                self.dtype()
            );
        }
        if !self.is_leaf() {
            panic!(
                "requires_grad_: the tensor is the result of a recorded op; use `detach` for a constant"
            );
        }
        if on && self.is_inference() && !mode::inference_mode_enabled() {
            panic!(
                "requires_grad_: the tensor was made in inference mode; ask for gradients with \
                 respect to a `copy` of it"
            );
        }
        if let Some((value, _)) = self.as_batched() {
            let _ = value.clone().requires_grad_(on);
        }
        if on {
            self.0.flags.fetch_or(REQUIRES_GRAD, Ordering::Relaxed);
        } else {
            self.0.flags.fetch_and(!REQUIRES_GRAD, Ordering::Relaxed);
        }
        self
    }

    /// The gradient accumulated by `backward`, for leaves and where
    /// [`retain_grad`](Tensor::retain_grad) asked for it.
    pub fn grad(&self) -> Option<Tensor> {
        if let Some(other) = self.stood_for() {
            return other.grad();
        }
        if let Some((value, level)) = self.as_batched() {
            return value.grad().map(|g| Tensor::batched(g, level));
        }
        let t = self.behind();
        let own = t.meta().grad.clone();
        own.or_else(|| t.kept_grad()?.lock().unwrap_or_else(|e| e.into_inner()).clone())
    }

    /// Replaces the gradient; `None` clears it.
    pub fn set_grad(&self, grad: Option<Tensor>) {
        if let Some(other) = self.stood_for() {
            return other.set_grad(grad);
        }
        let t = self.behind();
        let grad = grad.map(|g| g.behind().clone());
        // The old gradient is dropped after the lock is gone: its history may be long.
        let old = std::mem::replace(&mut t.meta().grad, grad);
        let kept = t.kept_grad().and_then(|k| k.lock().unwrap_or_else(|e| e.into_inner()).take());
        drop((old, kept));
    }

    /// Takes the gradient out.
    pub(crate) fn take_grad(&self) -> Option<Tensor> {
        self.meta().grad.take()
    }

    /// Puts a gradient where there is none; where there is one, gives both back.
    pub(crate) fn put_grad(&self, grad: Tensor) -> Option<(Tensor, Tensor)> {
        let mut meta = self.meta();
        match meta.grad.take() {
            None => {
                meta.grad = Some(grad);
                None
            }
            Some(other) => Some((grad, other)),
        }
    }

    /// Forgets the gradient.
    pub fn zero_grad(&self) {
        self.set_grad(None);
    }

    /// The same memory as a constant: no history, no gradient.
    pub fn detach(&self) -> Tensor {
        if let Some(other) = self.stood_for() {
            return other.detach();
        }
        match &self.0.repr {
            Repr::Eager(a) => {
                let t = Tensor::from_array(a.clone());
                if self.is_inference() {
                    t.0.flags.fetch_or(INFERENCE, Ordering::Relaxed);
                }
                t
            }
            Repr::Traced(v, dtype, shape) if self.requires_grad() => {
                let v = v.lock().unwrap_or_else(|e| e.into_inner());
                Tensor::traced(crate::trace::detached(&v), *dtype, shape.clone())
            }
            Repr::Traced(..) => self.clone(),
            Repr::Batched(value, level) => Tensor::batched(value.detach(), *level),
            Repr::Deferred(d) => crate::batch::value(d).detach(),
        }
    }

    /// Makes the tensor itself a constant: forgets its history.
    ///
    /// # Panics
    /// If it is a view: the tensor that it is a view of would keep the history.
    #[track_caller]
    pub fn detach_(&self) -> &Tensor {
        if self.is_view() {
            panic!("detach_: the tensor is a view of shape {:?}; use `detach`", self.shape());
        }
        if !std::ptr::eq(self.behind(), self) {
            self.behind().detach_();
        }
        let old = self.meta().grad_fn.take();
        self.0.flags.fetch_and(!(REQUIRES_GRAD | RECORDED), Ordering::Relaxed);
        drop(old);
        self
    }

    /// The tensor that has the history: the one that stands behind an element of a
    /// batch or the result of an op that waits, any other itself.
    pub(crate) fn behind(&self) -> &Tensor {
        match &self.0.repr {
            Repr::Eager(_) | Repr::Traced(..) => self,
            Repr::Batched(value, _) => value.behind(),
            Repr::Deferred(d) => crate::batch::value(d),
        }
    }

    /// What stands for the tensor on this thread now, where something does.
    pub(crate) fn stood_for(&self) -> Option<Tensor> {
        if mode::get() & mode::REPLACE == 0 {
            return None;
        }
        let other = autograd::replaced(&[self])?.swap_remove(0);
        (!other.is_same(self)).then_some(other)
    }

    /// Gives a traced tensor, which stands for another value now, that value's history.
    pub(crate) fn take_history_of(&self, value: &Tensor) {
        match value.edge() {
            Edge::None => {
                self.detach_();
            }
            edge => self.set_history(edge),
        }
    }

    /// The edge along which a gradient for this tensor travels.
    pub(crate) fn edge(&self) -> Edge {
        let t = self.behind();
        match t.flags() & (REQUIRES_GRAD | RECORDED) {
            REQUIRES_GRAD => Edge::Leaf(t.clone()),
            f if f & RECORDED != 0 => match &t.meta().grad_fn {
                Some((node, output)) => Edge::Node(node.clone(), *output),
                None => unreachable!("a recorded tensor has a node"),
            },
            _ => Edge::None,
        }
    }

    /// Gives the tensor, which was changed in place, the history `new`; if it is a
    /// view, the tensor that it is a view of as well.
    pub(crate) fn rebase(&self, new: Edge, at: &'static std::panic::Location<'static>) {
        if let Some(base) = &self.0.base {
            let (b, v) = (base.array(), self.array());
            let history = autograd::base_history(base.edge(), b, new.clone(), v, at)
                .expect("a change through a view outside its base is refused");
            base.set_history(history);
            self.0.view_version.store(v.block().version(), Ordering::Relaxed);
        }
        self.set_history(new);
    }

    fn set_history(&self, new: Edge) {
        let Edge::Node(node, output) = new else { return };
        let new = (node, output);
        let old = self.meta().grad_fn.replace(new.clone());
        self.0.flags.fetch_or(REQUIRES_GRAD | RECORDED, Ordering::Relaxed);
        if let Some(old) = &old {
            autograd::move_keeper(old, &new);
        }
        // Not under the lock: a history may be long.
        drop(old);
    }

    /// The node that made the tensor, and which of its results it is.
    pub(crate) fn grad_node(&self) -> Option<(Arc<Node>, u16)> {
        let t = self.behind();
        if t.flags() & RECORDED == 0 {
            return None;
        }
        t.meta().grad_fn.clone()
    }

    /// The op that made the tensor, when it is on the tape.
    pub fn grad_fn_name(&self) -> Option<&'static str> {
        self.grad_node().map(|(n, _)| n.op_name())
    }

    /// A name for messages: parameters are named by their module.
    pub fn name(&self) -> Option<Arc<str>> {
        self.meta().name.clone()
    }

    /// Gives the tensor a name for messages.
    pub fn set_name(&self, name: &str) {
        self.meta().name = Some(name.into());
    }
}
