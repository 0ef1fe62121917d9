//! Arithmetic, comparisons and element-wise functions, with PyTorch's type promotion.

use super::{Tensor, apply, default_dtype};
use num_complex::Complex;
use sinter_runtime::op::{BinaryDomain, BinaryOp, CompareOp, UnaryOp};
use sinter_runtime::{Category, DType, Dims, Op, Scalar};
use std::borrow::Cow;

/// What may stand beside a tensor in an op: another tensor or a number.
pub trait Operand {
    /// The operand's element type beside a tensor of type `beside`.
    #[doc(hidden)]
    fn meet(&self, beside: &Tensor) -> DType;
    /// The operand as a tensor of type `dtype`.
    #[doc(hidden)]
    fn as_tensor(&self, dtype: DType) -> Cow<'_, Tensor>;
}

/// The type two tensors meet in: a 0-d tensor does not widen one with
/// dimensions of its own category.
fn meet(a: &Tensor, b: &Tensor) -> DType {
    let (da, db) = (a.dtype(), b.dtype());
    if da == db {
        return da;
    }
    match (a.rank() == 0, b.rank() == 0) {
        // A complex number makes complex, but not wide.
        (true, false) if da.is_complex() && db.is_float() => db.complex(),
        (false, true) if db.is_complex() && da.is_float() => da.complex(),
        (true, false) if da.category() <= db.category() => db,
        (false, true) if db.category() <= da.category() => da,
        _ => da.promote(db),
    }
}

impl Operand for Tensor {
    fn meet(&self, beside: &Tensor) -> DType {
        meet(self, beside)
    }
    #[track_caller]
    fn as_tensor(&self, dtype: DType) -> Cow<'_, Tensor> {
        if self.dtype() == dtype { Cow::Borrowed(self) } else { Cow::Owned(self.to_dtype(dtype)) }
    }
}

impl Operand for &Tensor {
    fn meet(&self, beside: &Tensor) -> DType {
        meet(self, beside)
    }
    #[track_caller]
    fn as_tensor(&self, dtype: DType) -> Cow<'_, Tensor> {
        (*self).as_tensor(dtype)
    }
}

impl Operand for Scalar {
    fn meet(&self, beside: &Tensor) -> DType {
        self.promote_with(beside.dtype(), default_dtype())
    }
    #[track_caller]
    fn as_tensor(&self, dtype: DType) -> Cow<'_, Tensor> {
        Cow::Owned(apply(Op::Full { value: *self, dtype, shape: Dims::new() }, &[]))
    }
}

macro_rules! operand_number {
    ($($t:ty),*) => {$(
        impl Operand for $t {
            fn meet(&self, beside: &Tensor) -> DType {
                Scalar::from(*self).meet(beside)
            }
            #[track_caller]
            fn as_tensor(&self, dtype: DType) -> Cow<'_, Tensor> {
                Cow::Owned(apply(
                    Op::Full { value: Scalar::from(*self), dtype, shape: Dims::new() },
                    &[],
                ))
            }
        }
    )*};
}
operand_number!(f32, f64, i32, i64, bool, Complex<f32>, Complex<f64>);

#[track_caller]
#[inline]
pub(crate) fn binary(op: BinaryOp, a: &Tensor, b: &impl Operand) -> Tensor {
    let mut dtype = b.meet(a);
    if op.domain() == BinaryDomain::Float && !dtype.is_differentiable() {
        dtype = default_dtype();
    }
    apply(Op::Binary(op), &[&a.as_tensor(dtype), &b.as_tensor(dtype)])
}

#[track_caller]
fn reversed(op: BinaryOp, a: &impl Operand, b: &Tensor) -> Tensor {
    let mut dtype = a.meet(b);
    if op.domain() == BinaryDomain::Float && !dtype.is_differentiable() {
        dtype = default_dtype();
    }
    apply(Op::Binary(op), &[&a.as_tensor(dtype), &b.as_tensor(dtype)])
}

#[track_caller]
fn compare(op: CompareOp, a: &Tensor, b: &impl Operand) -> Tensor {
    let dtype = b.meet(a);
    apply(Op::Compare(op), &[&a.as_tensor(dtype), &b.as_tensor(dtype)])
}

#[track_caller]
pub(crate) fn unary(op: UnaryOp, x: &Tensor) -> Tensor {
    use sinter_runtime::op::Domain;
    if op.domain() == Domain::Float && !x.dtype().is_differentiable() {
        let rounds = matches!(op, UnaryOp::Floor | UnaryOp::Ceil | UnaryOp::Round | UnaryOp::Trunc);
        if rounds && x.dtype().category() == Category::Int {
            return x.clone();
        }
        return apply(Op::Unary(op), &[&x.to_dtype(default_dtype())]);
    }
    apply(Op::Unary(op), &[x])
}

macro_rules! unary_methods {
    ($($(#[$doc:meta])* $method:ident = $op:ident;)*) => {
        /// Element-wise functions. Integer operands of float functions are
        /// converted to the default float type first.
        impl Tensor {
            $($(#[$doc])*
            #[track_caller]
            pub fn $method(&self) -> Tensor {
                unary(UnaryOp::$op, self)
            })*
        }
    };
}
unary_methods! {
    /// `|x|`
    abs = Abs;
    /// -1, 0 or 1 by sign.
    sign = Sign;
    /// `1 / x`
    reciprocal = Reciprocal;
    /// Square root.
    sqrt = Sqrt;
    /// `1 / sqrt(x)`
    rsqrt = Rsqrt;
    /// `x * x`
    square = Square;
    /// `e^x`
    exp = Exp;
    /// `2^x`
    exp2 = Exp2;
    /// `e^x - 1`, without cancellation near zero.
    expm1 = Expm1;
    /// Natural logarithm.
    ln = Log;
    /// Base-two logarithm.
    log2 = Log2;
    /// Base-ten logarithm.
    log10 = Log10;
    /// `ln(1 + x)`, without cancellation near zero.
    log1p = Log1p;
    /// `-x`.
    neg = Neg;
    /// Sine.
    sin = Sin;
    /// Cosine.
    cos = Cos;
    /// Tangent.
    tan = Tan;
    /// Inverse sine.
    asin = Asin;
    /// Inverse cosine.
    acos = Acos;
    /// Inverse tangent.
    atan = Atan;
    /// Hyperbolic sine.
    sinh = Sinh;
    /// Hyperbolic cosine.
    cosh = Cosh;
    /// Hyperbolic tangent.
    tanh = Tanh;
    /// Inverse hyperbolic sine.
    asinh = Asinh;
    /// Inverse hyperbolic cosine.
    acosh = Acosh;
    /// Inverse hyperbolic tangent.
    atanh = Atanh;
    /// Logistic function `1 / (1 + e^-x)`.
    sigmoid = Sigmoid;
    /// Error function.
    erf = Erf;
    /// `1 - erf(x)`, without cancellation.
    erfc = Erfc;
    /// The inverse of [`erf`](Tensor::erf).
    erfinv = Erfinv;
    /// Logarithm of `|Γ(x)|`.
    lgamma = Lgamma;
    /// Derivative of `ln Γ`.
    digamma = Digamma;
    /// Modified Bessel function of the first kind, order 0.
    i0 = I0;
    /// Largest integer not above.
    floor = Floor;
    /// Smallest integer not below.
    ceil = Ceil;
    /// Nearest integer, halves to even.
    round = Round;
    /// Integer next towards zero.
    trunc = Trunc;
    /// `max(x, 0)`
    relu = Relu;
    /// `x sigmoid(x)`
    silu = Silu;
    /// `x Φ(x)` with the exact normal distribution function.
    gelu = Gelu;
    /// GELU by its tanh approximation.
    gelu_tanh = GeluTanh;
    /// `ln(1 + e^x)`
    softplus = Softplus;
    /// Where NaN.
    isnan = IsNan;
    /// Where infinite.
    isinf = IsInf;
    /// Where finite.
    isfinite = IsFinite;
    /// Where zero (or false).
    logical_not = LogicalNot;
    /// Bits inverted; of a bool, its opposite.
    bitwise_not = BitNot;
}

macro_rules! binary_methods {
    ($($(#[$doc:meta])* $method:ident = $op:ident;)*) => {
        /// Element-wise functions with a tensor or number; operands broadcast
        /// and meet in PyTorch's promoted type.
        impl Tensor {
            $($(#[$doc])*
            #[track_caller]
            pub fn $method(&self, other: impl Operand) -> Tensor {
                binary(BinaryOp::$op, self, &other)
            })*
        }
    };
}
binary_methods! {
    /// The larger; NaN where either is NaN.
    maximum = Max;
    /// The smaller; NaN where either is NaN.
    minimum = Min;
    /// Remainder with the sign of the divisor.
    remainder = Rem;
    /// Quotient rounded down.
    floor_divide = FloorDiv;
    /// Angle of the point `(other, self)`.
    atan2 = Atan2;
    /// Remainder with the sign of the dividend.
    fmod = Fmod;
    /// `|self|` with the sign of `other`.
    copysign = CopySign;
    /// `sqrt(self² + other²)`, without overflow on the way.
    hypot = Hypot;
    /// The number after `self` in the direction of `other`.
    nextafter = NextAfter;
    /// Regularised lower incomplete gamma function `P(self, other)`; no derivative by
    /// `self`.
    igamma = Igamma;
    /// Regularised upper incomplete gamma function `Q(self, other)`; no derivative by
    /// `self`.
    igammac = Igammac;
    /// Greatest common divisor.
    gcd = Gcd;
    /// `self + other`.
    add = Add;
    /// `self - other`.
    sub = Sub;
    /// `self * other`.
    mul = Mul;
    /// `self / other`.
    div = Div;
    /// Bitwise and; of bools, logical.
    bitwise_and = And;
    /// Bitwise or; of bools, logical.
    bitwise_or = Or;
    /// Bitwise exclusive or; of bools, logical.
    bitwise_xor = Xor;
    /// Bits shifted left.
    bitwise_left_shift = Shl;
    /// Bits shifted right, keeping the sign.
    bitwise_right_shift = Shr;
}

macro_rules! compare_methods {
    ($($(#[$doc:meta])* $method:ident = $op:ident;)*) => {
        /// Comparisons with a tensor or number; the result is bool.
        impl Tensor {
            $($(#[$doc])*
            #[track_caller]
            pub fn $method(&self, other: impl Operand) -> Tensor {
                compare(CompareOp::$op, self, &other)
            })*
        }
    };
}
compare_methods! {
    /// `self == other`
    eq = Eq;
    /// `self != other`
    ne = Ne;
    /// `self < other`
    lt = Lt;
    /// `self <= other`
    le = Le;
    /// `self > other`
    gt = Gt;
    /// `self >= other`
    ge = Ge;
}

impl Tensor {
    /// `self` to the power `exponent`. The exponents 0.5, 1, 2 and -1 take the
    /// direct way.
    #[track_caller]
    pub fn pow(&self, exponent: impl Operand) -> Tensor {
        binary(BinaryOp::Pow, self, &exponent)
    }

    /// `self` to a fixed power.
    #[track_caller]
    pub fn powf(&self, exponent: f64) -> Tensor {
        match exponent {
            0.5 => self.sqrt(),
            1.0 => self.clone(),
            2.0 => self.square(),
            -1.0 => self.reciprocal(),
            e if self.dtype().category() == Category::Int => self.to_dtype(default_dtype()).pow(e),
            e => self.pow(e),
        }
    }

    /// `self + other * alpha`
    #[track_caller]
    pub fn add_scaled(&self, other: &Tensor, alpha: f64) -> Tensor {
        self + other * alpha
    }

    /// Limited to `[min, max]`; either bound may be absent.
    #[track_caller]
    pub fn clamp(&self, min: impl Into<Option<f64>>, max: impl Into<Option<f64>>) -> Tensor {
        let bound = |b: f64| {
            if self.dtype().is_float() { Scalar::Float(b) } else { Scalar::Int(b as i64) }
        };
        let low = match min.into() {
            Some(b) => self.maximum(bound(b)),
            None => self.clone(),
        };
        match max.into() {
            Some(b) => low.minimum(bound(b)),
            None => low,
        }
    }

    /// Where both are true (not zero).
    #[track_caller]
    pub fn logical_and(&self, other: &Tensor) -> Tensor {
        self.to_dtype(DType::Bool).bitwise_and(other.to_dtype(DType::Bool))
    }

    /// Where either is true (not zero).
    #[track_caller]
    pub fn logical_or(&self, other: &Tensor) -> Tensor {
        self.to_dtype(DType::Bool).bitwise_or(other.to_dtype(DType::Bool))
    }

    /// Where exactly one is true (not zero).
    #[track_caller]
    pub fn logical_xor(&self, other: &Tensor) -> Tensor {
        self.to_dtype(DType::Bool).bitwise_xor(other.to_dtype(DType::Bool))
    }

    /// `on_true` where this bool tensor is true, else `on_false`; the three broadcast.
    ///
    /// ```
    /// use sinter::tensor;
    /// let x = tensor([-1.0f32, 2.0]);
    /// let y = x.gt(0.0).where_(&x, 0.0);
    /// assert_eq!(y.to_vec::<f32>(), [0.0, 2.0]);
    /// ```
    #[track_caller]
    pub fn where_(&self, on_true: &Tensor, on_false: impl Operand) -> Tensor {
        let dtype = on_false.meet(on_true);
        apply(Op::Select {}, &[self, &on_true.as_tensor(dtype), &on_false.as_tensor(dtype)])
    }

    /// `value` where `mask` is true, else this tensor.
    #[track_caller]
    pub fn masked_fill(&self, mask: &Tensor, value: impl Into<Scalar>) -> Tensor {
        let fill = value.into();
        apply(Op::Select {}, &[mask, &fill.as_tensor(self.dtype()), self])
    }

    /// The values in another element type; the tensor itself when it has that type.
    #[track_caller]
    pub fn to_dtype(&self, dtype: DType) -> Tensor {
        if self.dtype() == dtype {
            return self.clone();
        }
        apply(Op::Cast { dtype }, &[self])
    }
}

macro_rules! operators {
    ($($trait:ident $method:ident $op:ident;)*) => {$(
        impl<R: Operand> std::ops::$trait<R> for &Tensor {
            type Output = Tensor;
            #[track_caller]
            #[inline]
            fn $method(self, other: R) -> Tensor {
                binary(BinaryOp::$op, self, &other)
            }
        }
        impl<R: Operand> std::ops::$trait<R> for Tensor {
            type Output = Tensor;
            #[track_caller]
            #[inline]
            fn $method(self, other: R) -> Tensor {
                binary(BinaryOp::$op, &self, &other)
            }
        }
        // On the left stand f64 and i64 alone: with a second float type, the type of
        // `1.0` in `(1.0 - x).sqrt()` would be ambiguous.
        operators!(@left $trait $method $op; f64 i64);
    )*};
    (@left $trait:ident $method:ident $op:ident; $($t:ty)*) => {$(
        impl std::ops::$trait<&Tensor> for $t {
            type Output = Tensor;
            #[track_caller]
            fn $method(self, other: &Tensor) -> Tensor {
                reversed(BinaryOp::$op, &self, other)
            }
        }
        impl std::ops::$trait<Tensor> for $t {
            type Output = Tensor;
            #[track_caller]
            fn $method(self, other: Tensor) -> Tensor {
                reversed(BinaryOp::$op, &self, &other)
            }
        }
    )*};
}
operators! {
    Add add Add;
    Sub sub Sub;
    Mul mul Mul;
    Div div Div;
    Rem rem Rem;
}

impl std::ops::Neg for &Tensor {
    type Output = Tensor;
    #[track_caller]
    fn neg(self) -> Tensor {
        unary(UnaryOp::Neg, self)
    }
}

impl std::ops::Neg for Tensor {
    type Output = Tensor;
    #[track_caller]
    fn neg(self) -> Tensor {
        unary(UnaryOp::Neg, &self)
    }
}
