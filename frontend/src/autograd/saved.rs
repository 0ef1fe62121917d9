//! What becomes of values that wait for a backward pass: functions of the user's
//! may take them and give them back.

use super::node::{Node, moving};
use super::{Edge, mode};
use crate::tensor::Tensor;
use sinter_runtime::Op;
use sinter_runtime::op::TensorType;
use std::any::Any;
use std::cell::RefCell;
use std::marker::PhantomData;
use std::sync::Arc;

type Data = Box<dyn Any + Send + Sync>;

/// A pair of functions that take a value and give it back.
struct Pair {
    pack: Box<dyn Fn(&Tensor) -> Data>,
    unpack: Unpack,
}

type Unpack = Arc<dyn Fn(&(dyn Any + Send + Sync)) -> Tensor + Send + Sync>;

#[derive(Clone)]
enum Entry {
    Pair(std::rc::Rc<Pair>),
    Disabled(Arc<str>),
}

thread_local! {
    static STACK: RefCell<Vec<Entry>> = const { RefCell::new(Vec::new()) };
}

/// Where a packed value stood in the graph.
pub(super) enum Origin {
    /// It is the value that this edge leads to.
    Edge(Edge),
    /// It is a result of the node that keeps it.
    Output(u16),
}

/// A value in the keeping of a hook.
pub(super) struct Packed {
    data: Data,
    unpack: Unpack,
    ty: TensorType,
    origin: Origin,
}

/// Hands a value to the innermost hooks; `None` where there are none.
pub(super) fn pack(value: &Tensor, origin: Origin) -> Option<Arc<Packed>> {
    let top = STACK.with_borrow(|s| s.last().cloned())?;
    let pair = match top {
        Entry::Pair(p) => p,
        Entry::Disabled(why) => panic!("saved_tensors_hooks: disabled here: {why}"),
    };
    let _plain = mode::set(mode::PACK | mode::GRAD, 0);
    let data = (pair.pack)(value);
    let ty = TensorType { dtype: value.dtype(), shape: value.shape().into() };
    Some(Arc::new(Packed { data, unpack: pair.unpack.clone(), ty, origin }))
}

impl Packed {
    pub(super) fn unpack(&self, node: &Arc<Node>, graph: bool) -> Tensor {
        let t = {
            let _plain = mode::set(mode::PACK | mode::GRAD, 0);
            (self.unpack)(&*self.data)
        };
        assert!(
            t.dtype() == self.ty.dtype && t.shape() == self.ty.shape.as_slice(),
            "saved_tensors_hooks: a {} {:?} tensor was packed for {}, a {} {:?} one came back",
            self.ty.dtype,
            self.ty.shape,
            node.describe(),
            t.dtype(),
            t.shape(),
        );
        let array = t.array().clone();
        let (origin, output) = match &self.origin {
            _ if !graph => return Tensor::from_array(array),
            Origin::Output(output) => (node.clone(), *output),
            Origin::Edge(Edge::None) => return Tensor::from_array(array),
            Origin::Edge(Edge::Node(n, output)) => (n.clone(), *output),
            // A leaf has no node to lead to: one that changes nothing.
            Origin::Edge(leaf) => {
                let op = Op::Reshape { shape: self.ty.shape.clone() };
                match moving(op, &[(leaf.clone(), self.ty.clone())], None, node.location) {
                    Edge::Node(n, output) => (n, output),
                    _ => unreachable!("a leaf has an edge"),
                }
            }
        };
        Tensor::recorded(array, origin, output)
    }
}

/// Takes its hooks away again when it is dropped. Made by [`saved_tensors_hooks`],
/// [`save_on_cpu`] and [`disable_saved_tensors_hooks`].
#[must_use = "the hooks last as long as the guard"]
pub struct SavedHooksGuard {
    _mode: mode::GradGuard,
    _here: PhantomData<*const ()>,
}

impl Drop for SavedHooksGuard {
    fn drop(&mut self) {
        STACK.with_borrow_mut(|s| s.pop());
    }
}

fn push(e: Entry) -> SavedHooksGuard {
    STACK.with_borrow_mut(|s| s.push(e));
    SavedHooksGuard { _mode: mode::set(mode::PACK, mode::PACK), _here: PhantomData }
}

/// Until the guard is dropped, every value that an op recorded on this thread keeps
/// for its derivative goes through `pack`, and what that returns is kept instead;
/// `unpack` gives the value back in a backward pass. Neither is recorded. The
/// innermost pair counts.
///
/// ```
/// use sinter::{DType, Tensor, autograd::saved_tensors_hooks, tensor};
/// let x = tensor([3.0f32]).requires_grad_(true);
/// let y = {
///     // Kept in half the memory.
///     let _guard = saved_tensors_hooks(
///         |t| t.to_dtype(DType::BF16),
///         |kept: &Tensor| kept.to_dtype(DType::F32),
///     );
///     x.square()
/// };
/// y.sum().backward();
/// assert_eq!(x.grad().unwrap().item::<f32>(), 6.0);
/// ```
///
/// # Panics
/// The backward pass, if `unpack` gives a tensor of another shape or type.
pub fn saved_tensors_hooks<P: Send + Sync + 'static>(
    pack: impl Fn(&Tensor) -> P + 'static,
    unpack: impl Fn(&P) -> Tensor + Send + Sync + 'static,
) -> SavedHooksGuard {
    let pack = move |t: &Tensor| -> Data { Box::new(pack(t)) };
    let unpack = move |d: &(dyn Any + Send + Sync)| {
        unpack(d.downcast_ref().expect("the hook's own value comes back"))
    };
    push(Entry::Pair(std::rc::Rc::new(Pair { pack: Box::new(pack), unpack: Arc::new(unpack) })))
}

/// Keeps values for derivatives in the processor's memory, as copies of their own:
/// a later change in place of the original does not matter.
pub fn save_on_cpu() -> SavedHooksGuard {
    saved_tensors_hooks(|t| t.copy(), Tensor::clone)
}

/// Makes every op that keeps a value for its derivative panic with `why` where hooks
/// would see it, until the guard is dropped.
pub fn disable_saved_tensors_hooks(why: &str) -> SavedHooksGuard {
    push(Entry::Disabled(why.into()))
}
