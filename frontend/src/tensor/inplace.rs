//! Ops that change a tensor in place.
//!
//! Each raises the version of the tensor's memory, so that a backward pass that
//! needs the old values finds out. What autograd cannot follow is refused.

use super::{Operand, Tensor, default_dtype, fail};
use crate::autograd::{self, mode};
use crate::trace;
use sinter_runtime::op::{BinaryOp, UnaryOp};
use sinter_runtime::{Array, Op, Scalar, eager};
use smallvec::SmallVec;
use std::panic::Location;

/// Runs `op` on `inputs`, the first of which may be `target`, into `target`.
#[track_caller]
fn in_place(name: &'static str, op: Op, target: &Tensor, inputs: &[&Tensor]) {
    let at = Location::caller();
    if trace::is_active() {
        trace::in_place(name, &op, target, inputs, at);
        return;
    }
    let recording = mode::grad_enabled()
        && (target.requires_grad() || inputs.iter().any(|t| t.requires_grad()));
    if recording {
        if target.requires_grad() && target.is_leaf() {
            panic!(
                "{name}: a leaf that requires a gradient cannot change in place while ops are recorded; \
                 wrap the update in `no_grad`"
            );
        }
        if target.is_view() {
            panic!(
                "{name}: a recorded change through a view is not supported: the tensor it views would not \
                 know; build the new tensor with `slice_assign` or `cat`, or wrap the change in `no_grad`"
            );
        }
        if !target.dtype().is_differentiable() {
            panic!("{name}: a {} tensor cannot carry a gradient", target.dtype());
        }
    }
    // The node notes what it keeps at the versions of before.
    let node = recording.then(|| autograd::node_in_place(op.clone(), target, inputs, at));
    let arrays: SmallVec<[&Array; 4]> = inputs.iter().map(|t| t.array()).collect();
    if let Err(e) = eager::run_into(&op, &arrays, &[target.array()]) {
        fail(&e, inputs);
    }
    autograd::note_write(target.array().block(), name, at, recording);
    if let Some(node) = node {
        target.set_history(node);
    }
}

#[track_caller]
fn binary_in_place(name: &'static str, op: BinaryOp, target: &Tensor, other: &impl Operand) {
    let meet = other.meet(target);
    let result =
        if op == BinaryOp::Div && !meet.is_differentiable() { default_dtype() } else { meet };
    if result.category() > target.dtype().category() {
        panic!(
            "{name}: the result, {result}, cannot be stored in a {} tensor; use the out-of-place op",
            target.dtype()
        );
    }
    let other = other.as_tensor(target.dtype());
    in_place(name, Op::Binary(op), target, &[target, &other]);
}

macro_rules! binary_in_place {
    ($($(#[$doc:meta])* $method:ident = $op:ident;)*) => {
        /// Changes in place. Each panics if it would lose part of a gradient's
        /// history: on a leaf that requires one, or through a recorded view.
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
}

macro_rules! unary_in_place {
    ($($(#[$doc:meta])* $method:ident = $op:ident;)*) => {
        /// Element-wise functions in place.
        impl Tensor {
            $($(#[$doc])*
            #[track_caller]
            pub fn $method(&self) -> &Tensor {
                in_place(stringify!($method), Op::Unary(UnaryOp::$op), self, &[self]);
                self
            })*
        }
    };
}
unary_in_place! {
    /// `self = -self`
    neg_ = Neg;
    /// `self = |self|`
    abs_ = Abs;
    /// `self = e^self`
    exp_ = Exp;
    /// `self = sqrt(self)`
    sqrt_ = Sqrt;
    /// `self = max(self, 0)`
    relu_ = Relu;
    /// `self = tanh(self)`
    tanh_ = Tanh;
    /// `self = 1 / (1 + e^-self)`
    sigmoid_ = Sigmoid;
}

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
        let source = source.to_dtype(self.dtype());
        in_place("copy_", Op::Broadcast { shape: self.shape().into() }, self, &[&source]);
        self
    }

    /// `self += other * alpha`
    #[track_caller]
    pub fn add_scaled_(&self, other: &Tensor, alpha: f64) -> &Tensor {
        self.add_(other * alpha)
    }

    /// Limits to `[min, max]`.
    #[track_caller]
    pub fn clamp_(&self, min: f64, max: f64) -> &Tensor {
        self.maximum_(min);
        self.minimum_(max)
    }

    /// Fills with uniform random numbers on [low, high).
    #[track_caller]
    pub fn uniform_(&self, low: f64, high: f64) -> &Tensor {
        let u = super::rand_like(self) * (high - low) + low;
        self.copy_(&u)
    }

    /// Fills with normal random numbers.
    #[track_caller]
    pub fn normal_(&self, mean: f64, std: f64) -> &Tensor {
        let z = super::randn_like(self) * std + mean;
        self.copy_(&z)
    }
}
