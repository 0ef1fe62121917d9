//! The tensor: a handle to shared memory with a shape, an element type and,
//! where asked for, a place on the autograd tape.

mod apply;
mod arith;
mod convert;
mod create;
mod einsum;
mod gathers;
mod histogram;
mod index;
mod inplace;
mod join;
mod layout;
mod options;
mod order;
mod pointwise;
mod print;
mod product;
mod reduce;
mod shape;
mod statistics;
mod views;

pub use apply::apply_op;
pub(crate) use apply::{apply, apply_all, fail};
pub use arith::Operand;
pub(crate) use arith::{binary, unary};
pub use convert::{Destination, MemoryFormat, with_default_dtype};
pub use create::{
    AsArray, IntoTensor, arange, asarray, bernoulli, default_dtype, empty, empty_permuted,
    empty_strided, eye, from_slice, frombuffer, full, full_like, linspace, logspace, ones,
    ones_like, rand, rand_like, randint, randn, randn_like, randperm, scalar, set_default_dtype,
    tensor, tril_indices, triu_indices, zeros, zeros_like,
};
pub use einsum::einsum;
pub use gathers::ScatterReduce;
pub(crate) use gathers::{highest, lowest};
pub use histogram::histogramdd;
pub use index::{Ellipsis, Index, IndexItem, NewAxis, s};
pub use join::{
    Indexing, block_diag, cartesian_prod, column_stack, dstack, hstack, meshgrid, vstack,
};
pub use layout::{cat, stack};
pub use options::TensorOptions;
pub use order::{Interpolation, Unique, searchsorted};
pub use pointwise::{Rounding, can_cast, promote_types, result_type, where_};
pub use print::{PrintOptions, print_options, set_print_options};
pub use product::{chain_matmul, tensordot};
pub use reduce::IntoAxes;
pub use shape::{broadcast_shapes, broadcast_tensors};

use crate::autograd::{Edge, Meta, Node};
use crate::trace::Traced;
use sinter_runtime::{Array, DType, Device, Number, Scalar};
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

/// An n-dimensional array that remembers, when asked, how it was computed.
///
/// Cloning a tensor is cheap and gives another handle to the same tensor. Views
/// (slices, transposes, broadcasts) are tensors of their own that share memory.
///
/// A programmer's mistake (shapes that do not fit, types that do not mix)
/// panics at the caller's line with the op, the shapes and the rule broken.
///
/// ```
/// use sinter::tensor;
/// let x = tensor([[1.0f32, 2.0], [3.0, 4.0]]).requires_grad_(true);
/// let y = (&x * &x).sum();
/// y.backward();
/// assert_eq!(x.grad().unwrap().to_vec::<f32>(), [2.0, 4.0, 6.0, 8.0]);
/// ```
#[derive(Clone)]
pub struct Tensor(Arc<Inner>);

struct Inner {
    repr: Repr,
    flags: AtomicU8,
    /// Touched only where autograd is involved.
    meta: Mutex<Meta>,
}

/// A gradient is asked for, or some operand's was.
pub(crate) const REQUIRES_GRAD: u8 = 1;
/// Made by a view op: shares memory with another tensor.
pub(crate) const VIEW: u8 = 2;
/// The result of a recorded op: its [`Meta`] has a node.
const RECORDED: u8 = 4;

enum Repr {
    Eager(Array),
    /// A value of a graph being traced: a type without data.
    Traced(Mutex<Traced>, DType, sinter_runtime::Shape),
}

impl Tensor {
    /// Wraps an array of the runtime.
    #[inline]
    pub fn from_array(array: Array) -> Tensor {
        Tensor(Arc::new(Inner {
            repr: Repr::Eager(array),
            flags: AtomicU8::new(0),
            meta: Mutex::new(Meta::default()),
        }))
    }

    /// A view of another tensor's memory.
    #[inline]
    pub(crate) fn view_from_array(array: Array) -> Tensor {
        let version = array.block().version();
        Tensor(Arc::new(Inner {
            repr: Repr::Eager(array),
            flags: AtomicU8::new(VIEW),
            meta: Mutex::new(Meta { view_version: version, ..Meta::default() }),
        }))
    }

    /// An eager result recorded on the tape as output `output` of `node`.
    #[inline]
    pub(crate) fn recorded(array: Array, node: Arc<Node>, output: u8, view: bool) -> Tensor {
        let view_version = array.block().version();
        let flags = REQUIRES_GRAD | RECORDED | if view { VIEW } else { 0 };
        Tensor(Arc::new(Inner {
            repr: Repr::Eager(array),
            flags: AtomicU8::new(flags),
            meta: Mutex::new(Meta {
                grad_fn: Some((node, output)),
                view_version,
                ..Meta::default()
            }),
        }))
    }

    /// A value of the graph being traced.
    pub(crate) fn traced(value: Traced, dtype: DType, shape: sinter_runtime::Shape) -> Tensor {
        Tensor(Arc::new(Inner {
            repr: Repr::Traced(Mutex::new(value), dtype, shape),
            flags: AtomicU8::new(0),
            meta: Mutex::new(Meta::default()),
        }))
    }

    pub(crate) fn meta(&self) -> MutexGuard<'_, Meta> {
        // No user code runs under this lock, so it cannot be poisoned half-way.
        self.0.meta.lock().unwrap_or_else(|e| e.into_inner())
    }

    /// The memory and layout behind an eager tensor.
    ///
    /// # Panics
    /// While tracing, when the tensor is a traced value: it has no data.
    #[track_caller]
    #[inline]
    pub fn array(&self) -> &Array {
        match &self.0.repr {
            Repr::Eager(a) => a,
            Repr::Traced(..) => crate::trace::no_data(),
        }
    }

    pub(crate) fn as_traced(&self) -> Option<Traced> {
        match &self.0.repr {
            Repr::Eager(_) => None,
            Repr::Traced(t, ..) => Some(t.lock().unwrap_or_else(|e| e.into_inner()).clone()),
        }
    }

    /// Makes a traced tensor stand for another value of the graph: what an
    /// in-place op means while tracing.
    pub(crate) fn rebind_traced(&self, value: Traced) {
        if let Repr::Traced(t, ..) = &self.0.repr {
            *t.lock().unwrap_or_else(|e| e.into_inner()) = value;
        }
    }

    /// Whether this is a value of a graph being traced.
    pub fn is_traced(&self) -> bool {
        matches!(self.0.repr, Repr::Traced(..))
    }

    /// Whether both are handles to one tensor.
    pub fn is_same(&self, other: &Tensor) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// A number that identifies the tensor among those alive.
    pub fn id(&self) -> usize {
        Arc::as_ptr(&self.0) as usize
    }

    /// Whether no other handle to the tensor exists.
    pub(crate) fn is_unique(&self) -> bool {
        Arc::strong_count(&self.0) == 1
    }

    /// Extent of each dimension.
    #[inline]
    pub fn shape(&self) -> &[usize] {
        match &self.0.repr {
            Repr::Eager(a) => a.shape(),
            Repr::Traced(_, _, shape) => shape,
        }
    }

    /// Extent of dimension `dim`; negative counts from the end.
    #[track_caller]
    pub fn size(&self, dim: i64) -> usize {
        self.shape()[self.axis("size", dim)]
    }

    /// Number of dimensions.
    #[inline]
    pub fn rank(&self) -> usize {
        self.shape().len()
    }

    /// Number of elements.
    #[inline]
    pub fn numel(&self) -> usize {
        self.shape().iter().product()
    }

    /// The element type.
    #[inline]
    pub fn dtype(&self) -> DType {
        match &self.0.repr {
            Repr::Eager(a) => a.dtype(),
            Repr::Traced(_, dtype, _) => *dtype,
        }
    }

    /// Where the tensor lies.
    pub fn device(&self) -> Device {
        match &self.0.repr {
            Repr::Eager(a) => a.device(),
            Repr::Traced(..) => Device::Cpu,
        }
    }

    /// Distance between neighbours in each dimension, in elements.
    #[track_caller]
    pub fn strides(&self) -> &[isize] {
        self.array().strides()
    }

    /// Whether elements lie densely in row-major order.
    #[track_caller]
    pub fn is_contiguous(&self) -> bool {
        self.array().is_contiguous()
    }

    /// How often the memory behind the tensor was changed in place.
    #[track_caller]
    pub fn version(&self) -> u64 {
        self.array().block().version()
    }

    /// The axis that `dim` names; negative counts from the end.
    #[track_caller]
    pub(crate) fn axis(&self, op: &str, dim: i64) -> usize {
        crate::tensor::layout::resolve(op, dim, self.rank())
    }

    // ------------------------------------------------------------ values out

    /// The elements in row-major order, converted to `T` where they are of
    /// another type.
    ///
    /// # Panics
    /// While tracing, when the tensor is a traced value.
    #[track_caller]
    pub fn to_vec<T: Number>(&self) -> Vec<T> {
        let a = self.array();
        if a.dtype() == T::DTYPE {
            a.to_vec()
        } else {
            self.detach().to_dtype(T::DTYPE).array().to_vec()
        }
    }

    /// The only element as a number of type `T`.
    ///
    /// # Panics
    /// If there is not exactly one element.
    #[track_caller]
    pub fn item<T: Number>(&self) -> T {
        if self.numel() != 1 {
            panic!("item: needs exactly one element, the shape is {:?}", self.shape());
        }
        self.to_vec::<T>()[0]
    }

    /// The only element, whatever its type.
    ///
    /// # Panics
    /// If there is not exactly one element.
    #[track_caller]
    pub fn item_scalar(&self) -> Scalar {
        if self.numel() != 1 {
            panic!("item: needs exactly one element, the shape is {:?}", self.shape());
        }
        self.array().item()
    }

    // ------------------------------------------------------------ autograd

    /// Whether gradients with respect to this tensor are, or can be, computed.
    #[inline]
    pub fn requires_grad(&self) -> bool {
        self.flags() & REQUIRES_GRAD != 0
    }

    #[inline]
    pub(crate) fn flags(&self) -> u8 {
        self.0.flags.load(Ordering::Relaxed)
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
    /// If it is not floating point, or is the result of a recorded op.
    #[track_caller]
    pub fn requires_grad_(self, on: bool) -> Tensor {
        if on && !self.dtype().is_float() {
            panic!(
                "requires_grad_: only floating-point tensors have gradients, this is {}",
                self.dtype()
            );
        }
        if !self.is_leaf() {
            panic!(
                "requires_grad_: the tensor is the result of a recorded op; use `detach` for a constant"
            );
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
        self.meta().grad.clone()
    }

    /// Replaces the gradient; `None` clears it.
    pub fn set_grad(&self, grad: Option<Tensor>) {
        // The old gradient is dropped after the lock is gone: its history may be long.
        let old = std::mem::replace(&mut self.meta().grad, grad);
        drop(old);
    }

    /// Forgets the gradient.
    pub fn zero_grad(&self) {
        self.set_grad(None);
    }

    /// The same memory as a constant: no history, no gradient.
    pub fn detach(&self) -> Tensor {
        match &self.0.repr {
            Repr::Eager(a) => Tensor::from_array(a.clone()),
            Repr::Traced(..) => self.clone(),
        }
    }

    /// The edge along which a gradient for this tensor travels.
    pub(crate) fn edge(&self) -> Edge {
        match self.flags() & (REQUIRES_GRAD | RECORDED) {
            REQUIRES_GRAD => Edge::Leaf(self.clone()),
            f if f & RECORDED != 0 => match &self.meta().grad_fn {
                Some((node, output)) => Edge::Node(node.clone(), *output),
                None => unreachable!("a recorded tensor has a node"),
            },
            _ => Edge::None,
        }
    }

    /// Makes `node` the tensor's history, in place of any it had.
    pub(crate) fn set_history(&self, node: Arc<Node>) {
        let old = self.meta().grad_fn.replace((node, 0));
        self.0.flags.fetch_or(REQUIRES_GRAD | RECORDED, Ordering::Relaxed);
        // Not under the lock: a history may be long.
        drop(old);
    }

    /// The op that made the tensor, when it is on the tape.
    pub fn grad_fn_name(&self) -> Option<&'static str> {
        self.meta().grad_fn.as_ref().map(|(n, _)| n.op_name())
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
