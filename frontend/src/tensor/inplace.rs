//! Ops that change a tensor in place.
//!
//! Each raises the version of the tensor's memory, so that a backward pass that
//! needs the old values finds out. A recorded change gives the tensor a new history;
//! one through a view gives it to the tensor that is viewed, too. What autograd
//! cannot follow is refused, and so is writing where several elements share a place.
//!
//! There is no `+=`: it would stand for a change that other handles and views see, where
//! readers of Rust (and clippy) take it for another way to write `a = a + b`.

mod composites;

use super::{Operand, ScatterReduce, Tensor, apply, default_dtype, fail_as};
use crate::autograd::{self, Edge, mode};
use crate::trace;
use sinter_runtime::op::{BinaryOp, ScatterKind, UnaryOp, complex};
use sinter_runtime::{Array, DType, Op, Scalar, eager};
use smallvec::SmallVec;
use std::panic::Location;

/// Runs `op` on `inputs`, the first of which may be `target`, into `target`.
#[track_caller]
pub(crate) fn in_place(name: &'static str, op: Op, target: &Tensor, inputs: &[&Tensor]) {
    let at = Location::caller();
    if mode::get() & mode::REPLACE != 0 {
        let all: SmallVec<[&Tensor; 5]> =
            std::iter::once(target).chain(inputs.iter().copied()).collect();
        if let Some(others) = autograd::replaced(&all) {
            let _off = mode::set(mode::REPLACE, 0);
            let refs: SmallVec<[&Tensor; 5]> = others.iter().collect();
            return in_place(name, op, refs[0], &refs[1..]);
        }
    }
    if target.as_batched().is_some() || inputs.iter().any(|t| t.as_batched().is_some()) {
        return crate::batch::in_place_batched(name, op, target, inputs);
    }
    crate::batch::before_write();
    if target.as_deferred().is_some() || inputs.iter().any(|t| t.as_deferred().is_some()) {
        let all: SmallVec<[&Tensor; 5]> =
            std::iter::once(target).chain(inputs.iter().copied()).collect();
        let values = crate::batch::resolved(&all);
        let refs: SmallVec<[&Tensor; 5]> = values.iter().collect();
        return in_place(name, op, refs[0], &refs[1..]);
    }
    if trace::is_active() {
        trace::in_place(name, &op, target, inputs, at);
        return;
    }
    let recording = autograd::grad_enabled()
        && (target.requires_grad() || inputs.iter().any(|t| t.requires_grad()));
    check_target(name, target, recording);
    check_overlap(name, target, inputs);
    if recording && complex::concerns(&op, inputs.iter().map(|t| t.dtype())) {
        // Derivatives on complex numbers are those of the op's parts.
        let old = target.copy();
        let inputs: SmallVec<[&Tensor; 4]> =
            inputs.iter().map(|t| if t.is_same(target) { &old } else { *t }).collect();
        store(name, target, &apply(op, &inputs));
        return;
    }
    // The node notes what it keeps at the versions of before.
    let node = recording.then(|| autograd::node_in_place(op.clone(), target, inputs, at));
    let arrays: SmallVec<[&Array; 4]> = inputs.iter().map(|t| t.array()).collect();
    if let Err(e) = eager::run_into(&op, &arrays, &[target.array()]) {
        fail_as(name, &op, &e, inputs);
    }
    if !target.is_inference() {
        autograd::note_write(target.array().block(), name, at, recording);
    }
    if let Some(node) = node {
        target.rebase(Edge::Node(node, 0), autograd::line(at));
    }
}

/// Applies any op of the vocabulary and writes its results into tensors that exist, as
/// PyTorch does with `out=`: their types and shapes must be those of the results.
///
/// ```
/// use sinter::{Op, apply_op_into, op::BinaryOp, tensor, zeros};
/// let (x, sum) = (tensor([1.0f32, 2.0]), zeros([2]));
/// apply_op_into(Op::Binary(BinaryOp::Add), &[&x, &x], &[&sum]);
/// assert_eq!(sum.to_vec::<f32>(), [2.0, 4.0]);
/// ```
///
/// # Panics
/// If the operands break the op's rule, a result does not fit, shares part of its memory
/// with an operand, or a gradient is wanted: what is written has no history.
#[track_caller]
pub fn apply_op_into(op: Op, inputs: &[&Tensor], outs: &[&Tensor]) {
    let name = op.name();
    let wanted = inputs.iter().chain(outs).any(|t| t.requires_grad());
    if autograd::grad_enabled() && wanted {
        panic!(
            "{name}: results that are written into tensors have no history, and a tensor here \
             requires a gradient; use the out-of-place op, or `no_grad`"
        );
    }
    if trace::is_active() {
        trace::refuse_write(name, Location::caller());
    }
    let all = || inputs.iter().chain(outs);
    if let Some(t) = all().find(|t| !t.has_data() && t.as_deferred().is_none()) {
        panic!(
            "{name}: results cannot be written into tensors while tracing or in a batch ({t:?})"
        );
    }
    crate::batch::before_write();
    for out in outs {
        check_target(name, out, false);
        check_overlap(name, out, inputs);
    }
    if outs
        .iter()
        .enumerate()
        .any(|(i, a)| outs[..i].iter().any(|b| a.array().may_overlap(b.array())))
    {
        panic!("{name}: tensors for several results share memory");
    }
    let [inputs_of, outs_of] =
        [inputs, outs].map(|l| l.iter().map(|t| t.array()).collect::<SmallVec<[&Array; 4]>>());
    if let Err(e) = eager::run_into(&op, &inputs_of, &outs_of) {
        fail_as(name, &op, &e, inputs);
    }
    for out in outs.iter().filter(|t| !t.is_inference()) {
        autograd::note_write(out.array().block(), name, Location::caller(), false);
    }
}

/// Refuses to change what must not change.
#[track_caller]
fn check_target(name: &str, target: &Tensor, recording: bool) {
    if target.is_inference() && !autograd::inference_mode_enabled() {
        panic!(
            "{name}: the {} {:?} tensor was made in inference mode and cannot change in place \
             outside of it; change a `copy`",
            target.dtype(),
            target.shape()
        );
    }
    if !(recording || target.is_barred() && autograd::grad_enabled()) {
        return;
    }
    let root = target.anchor();
    if root.requires_grad() && root.is_leaf() {
        let what = if target.is_same(root) {
            "a leaf that requires a gradient"
        } else {
            "a view of a leaf that requires a gradient"
        };
        panic!(
            "{name}: {what} cannot change in place while ops are recorded (shape {:?}); \
             wrap the update in `no_grad`",
            target.shape()
        );
    }
    if target.is_untracked_view() {
        panic!(
            "{name}: a recorded change through a view of shape {:?} that was made without \
             recording, or by a custom function: the history of the tensor it views would not \
             know; make view and change both where ops are recorded, or wrap the change in `no_grad`",
            target.shape()
        );
    }
    if !target.dtype().is_differentiable() {
        panic!("{name}: a {} tensor cannot carry a gradient", target.dtype());
    }
    if !autograd::lies_within(root.array(), target.array()) {
        panic!(
            "{name}: a recorded change through a view, {:?} with strides {:?}, that leaves the \
             elements of the {:?} tensor it is taken of cannot be followed",
            target.shape(),
            target.strides(),
            root.shape()
        );
    }
}

/// Whether each place between an array's first and its last holds one element.
fn is_dense(a: &Array) -> bool {
    a.byte_range().len() == a.numel() * a.dtype().size() && !a.overlaps_itself()
}

/// Refuses writes where several elements share a place, and operands that certainly
/// share some of the places, but not as the same view. (PyTorch's rules. Operands
/// that may share places are copied first.)
#[track_caller]
fn check_overlap(name: &str, target: &Tensor, inputs: &[&Tensor]) {
    let out = target.array();
    if out.overlaps_itself() {
        panic!(
            "{name}: several elements of the tensor to be changed, {} {:?} with strides {:?}, lie \
             in one place of memory (is it broadcast?); `copy` it first",
            out.dtype(),
            out.shape(),
            out.strides()
        );
    }
    for (i, t) in inputs.iter().enumerate() {
        let x = t.array();
        let shared = x.may_overlap(out) && !x.is_same_view(out) && is_dense(x) && is_dense(out);
        if shared {
            panic!(
                "{name}: the tensor to be changed, {} {:?} with strides {:?}, and operand {i}, {} \
                 {:?} with strides {:?}, share part of their memory; `copy` the operand first",
                out.dtype(),
                out.shape(),
                out.strides(),
                x.dtype(),
                x.shape(),
                x.strides()
            );
        }
    }
}

/// Refuses a result that the tensor's type cannot hold.
#[track_caller]
fn check_fits(name: &str, target: &Tensor, result: DType) {
    if result.category() > target.dtype().category() {
        panic!(
            "{name}: the result, {result}, cannot be stored in a {} tensor; use the out-of-place op",
            target.dtype()
        );
    }
}

#[track_caller]
fn binary_in_place(name: &'static str, op: BinaryOp, target: &Tensor, other: &impl Operand) {
    let meet = other.meet(target);
    let result =
        if op == BinaryOp::Div && !meet.is_differentiable() { default_dtype() } else { meet };
    check_fits(name, target, result);
    let other = other.as_tensor(target.dtype());
    in_place(name, Op::Binary(op), target, &[target, &other]);
}

/// What a composite reads in place of the tensor that it will change: a copy where
/// a derivative may need the old values.
#[track_caller]
fn original(target: &Tensor, others: &[&Tensor]) -> Tensor {
    let recording = autograd::grad_enabled()
        && (target.requires_grad() || others.iter().any(|t| t.requires_grad()));
    if recording && target.has_data() { target.copy() } else { target.clone() }
}

/// Makes `value` the tensor's value: the last step of a composite.
#[track_caller]
pub(crate) fn store<'a>(name: &'static str, target: &'a Tensor, value: &Tensor) -> &'a Tensor {
    check_fits(name, target, value.dtype());
    let value = value.to((target.device(), target.dtype()));
    in_place(name, Op::Broadcast { shape: target.shape().into() }, target, &[&value]);
    target
}

macro_rules! binary_in_place {
    ($($(#[$doc:meta])* $method:ident = $op:ident;)*) => {
        /// Changes in place. Each panics if it would lose part of a gradient's
        /// history: on a leaf that requires one, or a view of one.
        impl Tensor {
            $($(#[$doc])*
            #[track_caller]
            pub fn $method(&self, other: impl Operand) -> &Tensor {
                binary_in_place(stringify!($method), BinaryOp::$op, self, &other);
                self
            })*
        }
    };
}
binary_in_place! {
    /// `self += other`
    ///
    /// ```
    /// use sinter::tensor;
    /// let x = tensor([[1.0f32, 2.0], [3.0, 4.0]]).requires_grad_(true);
    /// let y = &x * 1.0;
    /// y.select(1, 0).add_(10.0).mul_(&y.select(1, 1)); // through a view
    /// assert_eq!(y.to_vec::<f32>(), [22.0, 2.0, 52.0, 4.0]);
    /// y.sum().backward();
    /// assert_eq!(x.grad().unwrap().to_vec::<f32>(), [2.0, 12.0, 4.0, 14.0]);
    /// ```
    add_ = Add;
    /// `self -= other`
    sub_ = Sub;
    /// `self *= other`
    mul_ = Mul;
    /// `self /= other`
    div_ = Div;
    /// `self = max(self, other)`
    maximum_ = Max;
    /// `self = min(self, other)`
    minimum_ = Min;
    /// `self = self^other`
    pow_ = Pow;
    /// `self = self - other floor(self / other)`
    remainder_ = Rem;
    /// `self = floor(self / other)`
    floor_divide_ = FloorDiv;
    /// `self` = angle of the point `(other, self)`
    atan2_ = Atan2;
    /// `self &= other`
    bitwise_and_ = And;
    /// `self |= other`
    bitwise_or_ = Or;
    /// `self ^= other`
    bitwise_xor_ = Xor;
    /// `self <<= other`
    bitwise_left_shift_ = Shl;
    /// `self >>= other`
    bitwise_right_shift_ = Shr;
    /// `self` = remainder of `self / other` with the sign of `self`
    fmod_ = Fmod;
    /// `self = |self|` with the sign of `other`
    copysign_ = CopySign;
    /// `self = sqrt(self² + other²)`
    hypot_ = Hypot;
    /// `self` = the next number towards `other`
    nextafter_ = NextAfter;
    /// `self` = the lower regularised incomplete gamma function of `(self, other)`
    igamma_ = Igamma;
    /// `self` = the upper regularised incomplete gamma function of `(self, other)`
    igammac_ = Igammac;
    /// `self` = the greatest common divisor
    gcd_ = Gcd;
}

macro_rules! unary_in_place {
    ($($method:ident = $of:ident $op:ident;)*) => {
        /// Element-wise functions in place.
        impl Tensor {
            $(#[doc = concat!("[`", stringify!($of), "`](Tensor::", stringify!($of), ") in place.")]
            #[track_caller]
            pub fn $method(&self) -> &Tensor {
                in_place(stringify!($method), Op::Unary(UnaryOp::$op), self, &[self]);
                self
            })*
        }
    };
}
unary_in_place! {
    neg_ = neg Neg;
    abs_ = abs Abs;
    sign_ = sign Sign;
    reciprocal_ = reciprocal Reciprocal;
    sqrt_ = sqrt Sqrt;
    rsqrt_ = rsqrt Rsqrt;
    square_ = square Square;
    exp_ = exp Exp;
    exp2_ = exp2 Exp2;
    expm1_ = expm1 Expm1;
    log_ = ln Log;
    log2_ = log2 Log2;
    log10_ = log10 Log10;
    log1p_ = log1p Log1p;
    sin_ = sin Sin;
    cos_ = cos Cos;
    tan_ = tan Tan;
    asin_ = asin Asin;
    acos_ = acos Acos;
    atan_ = atan Atan;
    sinh_ = sinh Sinh;
    cosh_ = cosh Cosh;
    tanh_ = tanh Tanh;
    asinh_ = asinh Asinh;
    acosh_ = acosh Acosh;
    atanh_ = atanh Atanh;
    sigmoid_ = sigmoid Sigmoid;
    erf_ = erf Erf;
    floor_ = floor Floor;
    ceil_ = ceil Ceil;
    round_ = round Round;
    trunc_ = trunc Trunc;
    relu_ = relu Relu;
    silu_ = silu Silu;
    bitwise_not_ = bitwise_not BitNot;
    erfc_ = erfc Erfc;
    erfinv_ = erfinv Erfinv;
    lgamma_ = lgamma Lgamma;
    digamma_ = digamma Digamma;
    i0_ = i0 I0;
}

/// Values from elsewhere, in place.
impl Tensor {
    /// Fills with a number.
    #[track_caller]
    pub fn fill_(&self, value: impl Into<Scalar>) -> &Tensor {
        let op = Op::Full { value: value.into(), dtype: self.dtype(), shape: self.shape().into() };
        in_place("fill_", op, self, &[]);
        self
    }

    /// Fills with zeros.
    #[track_caller]
    pub fn zero_(&self) -> &Tensor {
        self.fill_(0.0)
    }

    /// Copies another tensor's values, broadcast to this shape and converted to
    /// this type.
    ///
    /// ```
    /// use sinter::{tensor, zeros};
    /// let x = zeros([2, 2]);
    /// x.select(0, 1).copy_(&tensor([1.0f32, 2.0]));
    /// assert_eq!(x.to_vec::<f32>(), [0.0, 0.0, 1.0, 2.0]);
    /// ```
    #[track_caller]
    pub fn copy_(&self, source: &Tensor) -> &Tensor {
        let source = source.to((self.device(), self.dtype()));
        in_place("copy_", Op::Broadcast { shape: self.shape().into() }, self, &[&source]);
        self
    }

    /// Writes `value` where `mask`, which broadcasts to this shape, is true.
    #[track_caller]
    pub fn masked_fill_(&self, mask: &Tensor, value: impl Into<Scalar>) -> &Tensor {
        let value = value.into().as_tensor(self.dtype()).into_owned();
        in_place("masked_fill_", Op::Select {}, self, &[mask, &value, self]);
        self
    }

    /// Writes `values` where `index` says along `dim`: the converse of
    /// [`gather`](Tensor::gather).
    #[track_caller]
    pub fn scatter_(&self, dim: i64, index: &Tensor, values: &Tensor) -> &Tensor {
        let axis = self.axis("scatter_", dim);
        let op = Op::Scatter { axis, kind: ScatterKind::Set };
        in_place("scatter_", op, self, &[self, index, values]);
        self
    }

    /// Adds `values` where `index` says along `dim`.
    #[track_caller]
    pub fn scatter_add_(&self, dim: i64, index: &Tensor, values: &Tensor) -> &Tensor {
        let axis = self.axis("scatter_add_", dim);
        let op = Op::Scatter { axis, kind: ScatterKind::Add };
        in_place("scatter_add_", op, self, &[self, index, values]);
        self
    }

    /// Adds the slabs of `values` along `dim` to those that a 1-d `index` names.
    #[track_caller]
    pub fn index_add_(&self, dim: i64, index: &Tensor, values: &Tensor) -> &Tensor {
        let axis = self.axis("index_add_", dim);
        in_place("index_add_", Op::IndexAdd { axis }, self, &[self, index, values]);
        self
    }

    /// Writes the slabs of `values` along `dim` over those that a 1-d `index` names.
    #[track_caller]
    pub fn index_copy_(&self, dim: i64, index: &Tensor, values: &Tensor) -> &Tensor {
        store("index_copy_", self, &self.index_copy(dim, index, values))
    }

    /// Fills the slabs along `dim` that a 1-d `index` names.
    #[track_caller]
    pub fn index_fill_(&self, dim: i64, index: &Tensor, value: impl Into<Scalar>) -> &Tensor {
        store("index_fill_", self, &self.index_fill(dim, index, value))
    }

    /// Has `values` join the elements that `index` names along `dim`, as
    /// [`scatter_reduce`](Tensor::scatter_reduce) does.
    #[track_caller]
    pub fn scatter_reduce_(
        &self,
        dim: i64,
        index: &Tensor,
        values: &Tensor,
        reduce: ScatterReduce,
        include_self: bool,
    ) -> &Tensor {
        let x = original(self, &[values]);
        let new = x.scatter_reduce(dim, index, values, reduce, include_self);
        store("scatter_reduce_", self, &new)
    }

    /// Writes the first elements of `values` where `mask` is true.
    #[track_caller]
    pub fn masked_scatter_(&self, mask: &Tensor, values: &Tensor) -> &Tensor {
        store("masked_scatter_", self, &self.masked_scatter(mask, values))
    }

    /// Fills with uniform random numbers on [low, high).
    #[track_caller]
    pub fn uniform_(&self, low: f64, high: f64) -> &Tensor {
        let u = super::rand_like(&self.detach()) * (high - low) + low;
        store("uniform_", self, &u)
    }

    /// Fills with normal random numbers.
    #[track_caller]
    pub fn normal_(&self, mean: f64, std: f64) -> &Tensor {
        let z = super::randn_like(&self.detach()) * std + mean;
        store("normal_", self, &z)
    }

    /// Fills with ones, with probability `p`, and zeros.
    #[track_caller]
    pub fn bernoulli_(&self, p: f64) -> &Tensor {
        let u = super::rand(self.shape()).lt(p);
        store("bernoulli_", self, &u)
    }

    /// Fills with whole random numbers of [low, high).
    #[track_caller]
    pub fn random_(&self, low: i64, high: i64) -> &Tensor {
        let r = super::randint(low, high, self.shape()).to_dtype(self.dtype());
        store("random_", self, &r)
    }
}
