//! The tensor: a handle to shared memory with a shape, an element type and,
//! where asked for, a place on the autograd tape.

mod apply;
mod arith;
mod complex;
mod convert;
mod create;
mod einsum;
mod gathers;
mod histogram;
mod history;
mod index;
mod inplace;
mod join;
mod layout;
mod options;
mod order;
mod pointwise;
mod print;
mod product;
mod random;
mod reduce;
mod shape;
mod statistics;
mod views;

pub use apply::apply_op;
pub(crate) use apply::{
    apply, apply_all, apply_traced, decomposed, decomposed_attention_grad, fail, fail_as,
};
pub use arith::Operand;
pub(crate) use arith::{binary, unary};
pub use complex::{complex, polar};
pub use convert::{Destination, MemoryFormat, with_default_dtype};
pub(crate) use create::random as random_tensor;
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
pub use inplace::apply_op_into;
pub(crate) use inplace::{in_place, store};
pub use join::{
    Indexing, block_diag, cartesian_prod, column_stack, dstack, hstack, meshgrid, vstack,
};
pub use layout::{cat, stack};
pub use options::TensorOptions;
pub use order::{Interpolation, Unique, searchsorted};
pub use pointwise::{Rounding, can_cast, promote_types, result_type, where_};
pub use print::{PrintOptions, print_options, set_print_options};
pub use product::{chain_matmul, tensordot};
pub use random::normal;
pub use reduce::IntoAxes;
pub use shape::{broadcast_shapes, broadcast_tensors};

use crate::autograd::{Meta, Node, grad_enabled, mode};
use crate::batch::Deferred;
use crate::trace::Traced;
use sinter_runtime::{Array, DType, Device, Number, Scalar};
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
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
    /// Of views: the version of the memory that the history is about.
    view_version: AtomicU64,
    /// Of views that autograd follows: the tensor whose memory it is, itself no view.
    base: Option<Tensor>,
    /// Touched only where autograd is involved.
    meta: Mutex<Meta>,
}

/// A gradient is asked for, or some operand's was.
pub(crate) const REQUIRES_GRAD: u8 = 1;
/// Made by a view op: shares memory with another tensor.
pub(crate) const VIEW: u8 = 2;
/// The result of a recorded op: its [`Meta`] has a node.
const RECORDED: u8 = 4;
/// A view that autograd does not follow.
pub(crate) const UNTRACKED: u8 = 8;
/// Made in inference mode.
pub(crate) const INFERENCE: u8 = 16;

/// A view that autograd does not follow, of a tensor with a history.
const BARRED: u8 = 32;
/// Stands for the elements of a batch.
pub(crate) const BATCHED: u8 = 64;
/// The result of an op that waited, or still does.
pub(crate) const DEFERRED: u8 = 128;

enum Repr {
    Eager(Array),
    /// A value of a graph being traced: a type without data.
    Traced(Mutex<Traced>, DType, sinter_runtime::Shape),
    /// One of the elements that lie along the first dimension of a tensor, whichever,
    /// and the level of the batch.
    Batched(Tensor, usize),
    /// The result of an op that waits to be run in a batch.
    Deferred(Deferred),
}

impl Tensor {
    #[inline]
    fn make(repr: Repr, flags: u8, version: u64, base: Option<Tensor>, meta: Meta) -> Tensor {
        Tensor(Arc::new(Inner {
            repr,
            flags: AtomicU8::new(flags),
            view_version: AtomicU64::new(version),
            base,
            meta: Mutex::new(meta),
        }))
    }

    /// Wraps an array of the runtime.
    #[inline]
    pub fn from_array(array: Array) -> Tensor {
        Tensor::made(array, mode::get())
    }

    /// A tensor made under `mode`.
    #[inline]
    fn made(array: Array, mode: u16) -> Tensor {
        let flags = if mode & mode::INFERENCE != 0 { INFERENCE } else { 0 };
        Tensor::make(Repr::Eager(array), flags, 0, None, Meta::default())
    }

    /// A view of `of`, without history of its own.
    #[inline]
    pub(crate) fn view_from_array(array: Array, of: &Tensor) -> Tensor {
        Tensor::view_of(array, of, grad_enabled())
    }

    /// A view without history of its own, which autograd follows if `tracked`.
    #[inline]
    fn view_of(array: Array, of: &Tensor, tracked: bool) -> Tensor {
        let version = array.block().version();
        let (base, flags) = of.lend(tracked);
        // A view of what was made in inference mode is nothing else.
        let flags = flags | of.0.flags.load(Ordering::Relaxed) & INFERENCE;
        Tensor::make(Repr::Eager(array), flags, version, base, Meta::default())
    }

    /// An eager result recorded on the tape as output `output` of `node`.
    #[inline]
    pub(crate) fn recorded(array: Array, node: Arc<Node>, output: u16) -> Tensor {
        let meta = Meta { grad_fn: Some((node, output)), ..Meta::default() };
        Tensor::make(Repr::Eager(array), REQUIRES_GRAD | RECORDED, 0, None, meta)
    }

    /// A recorded view of `of`.
    #[inline]
    pub(crate) fn recorded_view(array: Array, node: Arc<Node>, of: &Tensor) -> Tensor {
        let version = array.block().version();
        let (base, flags) = of.lend(true);
        let meta = Meta { grad_fn: Some((node, 0)), ..Meta::default() };
        Tensor::make(Repr::Eager(array), flags | REQUIRES_GRAD | RECORDED, version, base, meta)
    }

    /// A recorded result that lies in the memory of another tensor in a way that
    /// autograd does not follow.
    pub(crate) fn recorded_untracked(array: Array, node: Arc<Node>, output: u16) -> Tensor {
        let version = array.block().version();
        let meta = Meta { grad_fn: Some((node, output)), ..Meta::default() };
        let flags = REQUIRES_GRAD | RECORDED | VIEW | UNTRACKED;
        Tensor::make(Repr::Eager(array), flags, version, None, meta)
    }

    /// The base and flags of a view of this tensor.
    #[inline]
    fn lend(&self, tracked: bool) -> (Option<Tensor>, u8) {
        let flags = self.0.flags.load(Ordering::Relaxed);
        if !tracked || flags & (UNTRACKED | INFERENCE) != 0 {
            let barred = flags & (REQUIRES_GRAD | BARRED) != 0;
            return (None, VIEW | UNTRACKED | if barred { BARRED } else { 0 });
        }
        (Some(self.anchor().clone()), VIEW)
    }

    /// A value of the graph being traced.
    pub(crate) fn traced(value: Traced, dtype: DType, shape: sinter_runtime::Shape) -> Tensor {
        let repr = Repr::Traced(Mutex::new(value), dtype, shape);
        Tensor::make(repr, 0, 0, None, Meta::default())
    }

    /// Another handle to a traced value, without history, that no change in place concerns.
    pub(crate) fn traced_copy(&self) -> Tensor {
        let Some(value) = self.as_traced() else { unreachable!("called on traced tensors") };
        Tensor::traced(value, self.dtype(), self.shape().into())
    }

    /// A value of the graph being traced that is output `output` of `node` of the tape.
    pub(crate) fn traced_recorded(of: &Tensor, node: Arc<Node>, output: u16) -> Tensor {
        let Some(value) = of.as_traced() else { unreachable!("called on traced tensors") };
        let meta = Meta { grad_fn: Some((node, output)), ..Meta::default() };
        let repr = Repr::Traced(Mutex::new(value), of.dtype(), of.shape().into());
        Tensor::make(repr, REQUIRES_GRAD | RECORDED, 0, None, meta)
    }

    /// A tensor that stands for the elements of `value` along its first dimension.
    pub(crate) fn batched(value: Tensor, level: usize) -> Tensor {
        let flags = BATCHED | value.flags() & (REQUIRES_GRAD | RECORDED);
        Tensor::make(Repr::Batched(value, level), flags, 0, None, Meta::default())
    }

    /// The result of an op that waits.
    pub(crate) fn deferred(d: Deferred, requires_grad: bool) -> Tensor {
        // What requires a gradient is the result of a recorded op.
        let flags = DEFERRED | if requires_grad { REQUIRES_GRAD | RECORDED } else { 0 };
        Tensor::make(Repr::Deferred(d), flags, 0, None, Meta::default())
    }

    pub(crate) fn as_deferred(&self) -> Option<&Deferred> {
        match &self.0.repr {
            Repr::Deferred(d) => Some(d),
            _ => None,
        }
    }

    /// The batch that the tensor stands for, and its level.
    pub(crate) fn as_batched(&self) -> Option<(&Tensor, usize)> {
        match &self.0.repr {
            Repr::Batched(value, level) => Some((value, *level)),
            _ => None,
        }
    }

    /// Whether there are elements to look at: neither while tracing nor in a batch, nor
    /// before an op that waits has been run.
    pub(crate) fn has_data(&self) -> bool {
        matches!(self.0.repr, Repr::Eager(_))
    }

    /// Whether nobody else sees the tensor's memory, which is dense.
    pub(crate) fn owns_dense(&self) -> bool {
        self.is_unique()
            && self.has_data()
            && self.array().block().handles() == 1
            && self.is_contiguous()
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
            Repr::Batched(..) => crate::batch::no_data(),
            Repr::Deferred(d) => crate::batch::value(d).array(),
        }
    }

    pub(crate) fn as_traced(&self) -> Option<Traced> {
        match &self.0.repr {
            Repr::Eager(_) | Repr::Batched(..) | Repr::Deferred(_) => None,
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
            Repr::Batched(value, _) => &value.shape()[1..],
            Repr::Deferred(d) => d.shape(),
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
            Repr::Batched(value, _) => value.dtype(),
            Repr::Deferred(d) => d.dtype(),
        }
    }

    /// Where the tensor lies.
    pub fn device(&self) -> Device {
        match &self.0.repr {
            Repr::Eager(a) => a.device(),
            Repr::Traced(..) | Repr::Deferred(_) => Device::Cpu,
            Repr::Batched(value, _) => value.device(),
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
    ///
    /// # Panics
    /// If the tensor was made in inference mode, where changes are not counted.
    #[track_caller]
    pub fn version(&self) -> u64 {
        if self.is_inference() {
            panic!("version: changes of a tensor made in inference mode are not counted");
        }
        self.array().block().version()
    }

    /// The axis that `dim` names; negative counts from the end.
    #[track_caller]
    pub(crate) fn axis(&self, op: &str, dim: i64) -> usize {
        match crate::tensor::layout::find_axis(op, dim, self.rank()) {
            Some(axis) => axis,
            None => {
                panic!(
                    "{op}: dimension {dim} does not exist in a tensor of shape {:?}",
                    self.shape()
                )
            }
        }
    }

    // ------------------------------------------------------------ values out

    /// The elements in row-major order, converted to `T` where they are of
    /// another type.
    ///
    /// # Panics
    /// While tracing, when the tensor is a traced value.
    #[track_caller]
    pub fn to_vec<T: Number>(&self) -> Vec<T> {
        let other = self.stood_for();
        let a = other.as_ref().unwrap_or(self).array();
        if a.dtype() == T::DTYPE {
            a.to_vec()
        } else {
            Tensor::from_array(a.here().into_owned()).to_dtype(T::DTYPE).array().to_vec()
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
        self.stood_for().as_ref().unwrap_or(self).array().item()
    }
}
