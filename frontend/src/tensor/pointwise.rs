//! Element-wise functions that are made of others.

use super::arith::{binary, unary};
use super::{Operand, Tensor, apply, default_dtype, full_like, ones_like, zeros_like};
use sinter_runtime::op::{BinaryOp, UnaryOp};
use sinter_runtime::{DType, Op};

/// How [`div_rounding`](Tensor::div_rounding) rounds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Rounding {
    /// Towards zero, as C's integer division.
    Trunc,
    /// Down, as Python's `//`.
    Floor,
}

impl Tensor {
    /// The tensor in a float (or complex) type: integers in the default one.
    #[track_caller]
    pub(crate) fn floating(&self) -> Tensor {
        self.to_dtype(self.float_dtype())
    }

    /// The tensor in the type in which composites are computed: half precision in f32, to
    /// be rounded once at the end.
    #[track_caller]
    pub(crate) fn wide(&self) -> Tensor {
        if self.dtype().is_half() { self.to_dtype(DType::F32) } else { self.floating() }
    }

    /// The type of the result of a float function.
    pub(crate) fn float_dtype(&self) -> DType {
        if self.dtype().is_differentiable() { self.dtype() } else { default_dtype() }
    }

    /// Both operands in the type they meet in, a float one.
    #[track_caller]
    fn meeting(&self, other: &impl Operand) -> (Tensor, Tensor) {
        let mut dtype = other.meet(self);
        if !dtype.is_differentiable() {
            dtype = default_dtype();
        }
        (self.to_dtype(dtype), other.as_tensor(dtype).into_owned())
    }

    /// The tensor itself.
    pub fn positive(&self) -> Tensor {
        self.clone()
    }

    /// `other - self`.
    #[track_caller]
    pub fn rsub(&self, other: impl Operand) -> Tensor {
        let dtype = other.meet(self);
        &*other.as_tensor(dtype) - self
    }

    /// `other` to the power of the tensor.
    #[track_caller]
    pub fn rpow(&self, other: impl Operand) -> Tensor {
        let dtype = other.meet(self);
        other.as_tensor(dtype).pow(self)
    }

    /// `other / self`.
    #[track_caller]
    pub fn rdiv(&self, other: impl Operand) -> Tensor {
        let dtype = other.meet(self);
        other.as_tensor(dtype).div(self)
    }

    /// The exact quotient: [`div`](Tensor::div) by PyTorch's other name.
    #[track_caller]
    pub fn true_divide(&self, other: impl Operand) -> Tensor {
        self.div(other)
    }

    /// The quotient rounded, in the operands' type.
    ///
    /// ```
    /// use sinter::{Rounding, tensor};
    /// let x = tensor([-7i64, 7]);
    /// assert_eq!(x.div_rounding(2, Rounding::Trunc).to_vec::<i64>(), [-3, 3]);
    /// assert_eq!(x.div_rounding(2, Rounding::Floor).to_vec::<i64>(), [-4, 3]);
    /// ```
    ///
    /// # Panics
    /// If an integer is divided by zero.
    #[track_caller]
    pub fn div_rounding(&self, other: impl Operand, rounding: Rounding) -> Tensor {
        if rounding == Rounding::Floor {
            return self.floor_divide(other);
        }
        let dtype = other.meet(self);
        let (a, b) = (self.as_tensor(dtype), other.as_tensor(dtype));
        if dtype.is_float() {
            return (&*a / &*b).trunc();
        }
        // Without the remainder the division is exact.
        (&*a - a.fmod(&*b)).floor_divide(&*b)
    }

    /// `self + value * a * b`.
    #[track_caller]
    pub fn addcmul(&self, a: &Tensor, b: &Tensor, value: f64) -> Tensor {
        let product = a * b;
        self + if value == 1.0 { product } else { product.scaled(value) }
    }

    /// `self + value * a / b`.
    #[track_caller]
    pub fn addcdiv(&self, a: &Tensor, b: &Tensor, value: f64) -> Tensor {
        let quotient = a / b;
        self + if value == 1.0 { quotient } else { quotient * value }
    }

    /// Times a number that must be whole where the tensor is.
    #[track_caller]
    pub(crate) fn scaled(&self, by: f64) -> Tensor {
        if by == 1.0 {
            self.clone()
        } else if self.dtype().is_differentiable() || by.fract() != 0.0 {
            self * by
        } else {
            self * by as i64
        }
    }

    /// `self + weight * (end - self)`, exact at both ends.
    #[track_caller]
    pub fn lerp(&self, end: &Tensor, weight: impl Operand) -> Tensor {
        let d = end - self;
        let w = weight.as_tensor(d.dtype());
        // From the nearer end.
        let near = self + &*w * &d;
        let far = end - (1.0 - &*w) * &d;
        w.abs().lt(0.5).where_(&near, &far)
    }

    /// Limited by tensors that broadcast; either bound may be absent.
    ///
    /// # Panics
    /// If both are.
    #[track_caller]
    pub fn clamp_tensor(&self, min: Option<&Tensor>, max: Option<&Tensor>) -> Tensor {
        if min.is_none() && max.is_none() {
            panic!("clamp: at least one bound is needed");
        }
        let low = match min {
            Some(m) => self.maximum(m),
            None => self.clone(),
        };
        match max {
            Some(m) => low.minimum(m),
            None => low,
        }
    }

    /// At least `min`.
    #[track_caller]
    pub fn clamp_min(&self, min: impl Operand) -> Tensor {
        self.maximum(min)
    }

    /// At most `max`.
    #[track_caller]
    pub fn clamp_max(&self, max: impl Operand) -> Tensor {
        self.minimum(max)
    }

    /// The larger; where one is NaN, the other.
    #[track_caller]
    pub fn fmax(&self, other: impl Operand) -> Tensor {
        self.extreme_number(other, BinaryOp::Max)
    }

    /// The smaller; where one is NaN, the other.
    #[track_caller]
    pub fn fmin(&self, other: impl Operand) -> Tensor {
        self.extreme_number(other, BinaryOp::Min)
    }

    #[track_caller]
    fn extreme_number(&self, other: impl Operand, op: BinaryOp) -> Tensor {
        let dtype = other.meet(self);
        let (a, b) = (self.as_tensor(dtype), other.as_tensor(dtype));
        let both = binary(op, &a, &*b);
        if !dtype.is_float() {
            return both;
        }
        let rest = a.isnan().where_(&b, &*a);
        a.isnan().logical_or(&b.isnan()).where_(&rest, &both)
    }

    /// What is behind the point, with the sign of the number.
    #[track_caller]
    pub fn frac(&self) -> Tensor {
        self - self.trunc()
    }

    /// Whether the sign is negative, also of -0 and NaN.
    #[track_caller]
    pub fn signbit(&self) -> Tensor {
        if self.dtype() == DType::Bool {
            return self.ne(self);
        }
        if !self.dtype().is_float() {
            return self.lt(0);
        }
        let x = self.detach();
        ones_like(&x).copysign(&x).lt(0.0)
    }

    /// `ln(x / (1 - x))`; with `eps`, of `x` limited to `[eps, 1 - eps]`.
    #[track_caller]
    pub fn logit(&self, eps: impl Into<Option<f64>>) -> Tensor {
        let x = match eps.into() {
            Some(e) => self.wide().clamp(e, 1.0 - e),
            None => self.wide(),
        };
        (&x / (1.0 - &x)).ln().to_dtype(self.float_dtype())
    }

    /// `sin(πx) / πx`, 1 at zero.
    #[track_caller]
    pub fn sinc(&self) -> Tensor {
        let x = self.wide() * std::f64::consts::PI;
        let zero = x.eq(0.0);
        // The derivative at zero is that of 1 - x²/6, of any order that is asked for.
        let safe = zero.where_(&ones_like(&x), &x);
        let y = zero.where_(&(1.0 - x.square() / 6.0), safe.sin() / &safe);
        y.to_dtype(self.float_dtype())
    }

    /// NaN replaced by `nan`, infinities by the numbers given, by default by the largest
    /// of the type.
    #[track_caller]
    pub fn nan_to_num(
        &self,
        nan: f64,
        posinf: impl Into<Option<f64>>,
        neginf: impl Into<Option<f64>>,
    ) -> Tensor {
        let (posinf, neginf) = (posinf.into(), neginf.into());
        if self.is_complex() {
            return self.view_as_real().nan_to_num(nan, posinf, neginf).view_as_complex();
        }
        if !self.dtype().is_float() {
            return self.clone();
        }
        let largest = super::gathers::largest(self.dtype());
        let high = self.isposinf().where_(&full_like(self, posinf.unwrap_or(largest)), self);
        let low = self.isneginf().where_(&full_like(self, neginf.unwrap_or(-largest)), &high);
        self.isnan().where_(&full_like(self, nan), &low)
    }

    /// Degrees as radians.
    #[track_caller]
    pub fn deg2rad(&self) -> Tensor {
        self.floating() * (std::f64::consts::PI / 180.0)
    }

    /// Radians as degrees.
    #[track_caller]
    pub fn rad2deg(&self) -> Tensor {
        self.floating() * (180.0 / std::f64::consts::PI)
    }

    /// `(m, e)` with `self = m 2^e` and `0.5 <= |m| < 1`; `e` is i32. Zeros, infinities
    /// and NaN are their own mantissa.
    ///
    /// # Panics
    /// If the tensor is not of a float type.
    #[track_caller]
    pub fn frexp(&self) -> (Tensor, Tensor) {
        if !self.dtype().is_float() {
            panic!("frexp: needs a floating-point tensor, this is {}", self.dtype());
        }
        let e = unary(UnaryOp::Exponent, &self.detach());
        // In two steps: 2^e may be beyond the type's range.
        let half = (&e * 0.5).floor();
        let mantissa = self * (-&half).exp2() * (&half - &e).exp2();
        (mantissa, e.to_dtype(DType::I32))
    }

    /// `self * 2^exponent`.
    #[track_caller]
    pub fn ldexp(&self, exponent: impl Operand) -> Tensor {
        let (x, e) = self.meeting(&exponent);
        x * e.exp2()
    }

    /// Rounded to this many decimals, halves to even; negative ones count places before
    /// the point.
    #[track_caller]
    pub fn round_decimals(&self, decimals: i32) -> Tensor {
        if decimals == 0 || !self.dtype().is_float() {
            return self.round();
        }
        // Powers of ten are whole: one rounding less than with their inverses.
        let ten = 10f64.powi(decimals.abs());
        if decimals > 0 { (self * ten).round() / ten } else { (self / ten).round() * ten }
    }

    /// Raised to a power in f64, or c128 where an operand is complex.
    #[track_caller]
    pub fn float_power(&self, exponent: impl Operand) -> Tensor {
        let dtype = if exponent.meet(self).is_complex() { DType::C128 } else { DType::F64 };
        self.to_dtype(dtype).pow(&*exponent.as_tensor(dtype))
    }

    /// `ln(e^self + e^other)`, without overflow.
    #[track_caller]
    pub fn logaddexp(&self, other: impl Operand) -> Tensor {
        let (a, b) = self.meeting(&other);
        let dtype = a.dtype();
        let (a, b) = (a.wide(), b.wide());
        // a + ln(1 + e^(b - a)), from the larger of the two.
        let d = &a - &b;
        let smooth = d.gt(0.0).where_(&((-&d).softplus() + &a), &(d.softplus() + &b));
        // Infinities have no difference.
        d.isfinite().where_(&smooth, a.maximum(&b)).to_dtype(dtype)
    }

    /// `log2(2^self + 2^other)`, without overflow.
    #[track_caller]
    pub fn logaddexp2(&self, other: impl Operand) -> Tensor {
        let (a, b) = self.meeting(&other);
        let ln2 = std::f64::consts::LN_2;
        let y = (a.wide() * ln2).logaddexp(&(b.wide() * ln2)) * (1.0 / ln2);
        y.to_dtype(a.dtype())
    }

    /// `self * ln(other)`, 0 where `self` is 0 and `other` is not NaN.
    #[track_caller]
    pub fn xlogy(&self, other: impl Operand) -> Tensor {
        let (x, y) = self.meeting(&other);
        let dtype = x.dtype();
        let (x, y) = (x.wide(), y.wide());
        let zero = x.eq(0.0).logical_and(&y.isnan().logical_not());
        let edge = y.le(0.0).logical_or(&y.isinf());
        let safe = zero.logical_and(&edge).where_(&ones_like(&y), &y);
        (x * safe.ln()).to_dtype(dtype)
    }

    /// 0 where negative, 1 where positive, `values` where zero; NaN stays.
    #[track_caller]
    pub fn heaviside(&self, values: &Tensor) -> Tensor {
        let (x, values) = (self.detach(), values.detach());
        let step = x.gt(0).to_dtype(x.dtype());
        let step = if x.dtype().is_float() { x.isnan().where_(&x, &step) } else { step };
        x.eq(0).where_(&values, &step)
    }

    /// Least common multiple.
    #[track_caller]
    pub fn lcm(&self, other: impl Operand) -> Tensor {
        let dtype = other.meet(self);
        let (a, b) = (self.as_tensor(dtype), other.as_tensor(dtype));
        let g = a.gcd(&*b);
        let g = g.eq(0).where_(&ones_like(&g), &g);
        (a.floor_divide(&g) * &*b).abs()
    }

    /// The elementary modulus of a real number: [`abs`](Tensor::abs) by NumPy's name.
    #[track_caller]
    pub fn absolute(&self) -> Tensor {
        self.abs()
    }

    /// Where `+∞`.
    #[track_caller]
    pub fn isposinf(&self) -> Tensor {
        self.infinite(f64::INFINITY)
    }

    /// Where `-∞`.
    #[track_caller]
    pub fn isneginf(&self) -> Tensor {
        self.infinite(f64::NEG_INFINITY)
    }

    #[track_caller]
    fn infinite(&self, value: f64) -> Tensor {
        if self.dtype().is_float() { self.eq(value) } else { self.isinf() }
    }

    /// Where a real number: everywhere but where a complex one has an imaginary part.
    #[track_caller]
    pub fn isreal(&self) -> Tensor {
        if self.is_complex() {
            return self.imag().eq(0.0);
        }
        self.eq(self).logical_or(&self.ne(self))
    }

    /// Where within `atol + rtol |other|`, or equal; NaN is close to NaN if `equal_nan`.
    ///
    /// # Panics
    /// If the types differ.
    #[track_caller]
    pub fn isclose(&self, other: &Tensor, rtol: f64, atol: f64, equal_nan: bool) -> Tensor {
        if self.dtype() != other.dtype() {
            panic!("isclose: types {} and {} differ", self.dtype(), other.dtype());
        }
        let equal = self.eq(other);
        let (a, b) = (self.detach().floating(), other.detach().floating());
        let allowed = b.abs() * rtol + atol;
        let near = (&a - &b).abs().le(&allowed).logical_and(&b.abs().isfinite());
        let close = equal.logical_or(&near);
        if !equal_nan {
            return close;
        }
        close.logical_or(&a.ne(&a).logical_and(&b.ne(&b)))
    }

    /// Whether shapes and all elements are equal.
    ///
    /// # Panics
    /// If the types differ; and while tracing: it depends on values.
    #[track_caller]
    pub fn equal(&self, other: &Tensor) -> bool {
        if self.dtype() != other.dtype() {
            panic!("equal: types {} and {} differ", self.dtype(), other.dtype());
        }
        self.shape() == other.shape() && self.eq(other).all().item_scalar().as_bool()
    }

    /// Where the element is one of `elements`.
    #[track_caller]
    pub fn isin(&self, elements: &Tensor) -> Tensor {
        let dtype = self.dtype().promote(elements.dtype());
        let (x, e) = (self.to_dtype(dtype).detach(), elements.to_dtype(dtype).detach());
        let n = e.numel();
        if n == 0 {
            return x.ne(&x).logical_and(&x.eq(&x));
        }
        // The first of the sorted elements that is not less is the only candidate.
        let sorted = e.reshape([-1]).sort(0, false).0;
        let place = super::order::searchsorted(&sorted, &x, false).clamp(None, (n - 1) as f64);
        sorted.take(&place).eq(&x)
    }

    /// [`masked_fill`](Tensor::masked_fill) with a number that is a tensor, through which
    /// a gradient flows.
    ///
    /// # Panics
    /// If the value has dimensions.
    #[track_caller]
    pub fn masked_fill_tensor(&self, mask: &Tensor, value: &Tensor) -> Tensor {
        if value.rank() != 0 {
            panic!("masked_fill: the value has shape {:?}, expected a number", value.shape());
        }
        mask.where_(&value.to_dtype(self.dtype()), self)
    }

    /// The values where the mask is false replaced by zeros that pass no gradient.
    #[track_caller]
    pub(crate) fn kept_where(&self, mask: &Tensor) -> Tensor {
        apply(Op::Select {}, &[mask, self, &zeros_like(self)])
    }

    /// The tensor as bool.
    #[track_caller]
    pub fn to_bool(&self) -> Tensor {
        self.to_dtype(DType::Bool)
    }

    /// The values in f32.
    #[track_caller]
    pub fn float(&self) -> Tensor {
        self.to_dtype(DType::F32)
    }

    /// The values in f64.
    #[track_caller]
    pub fn double(&self) -> Tensor {
        self.to_dtype(DType::F64)
    }

    /// The values in f16.
    #[track_caller]
    pub fn half(&self) -> Tensor {
        self.to_dtype(DType::F16)
    }

    /// The values in bf16.
    #[track_caller]
    pub fn bfloat16(&self) -> Tensor {
        self.to_dtype(DType::BF16)
    }

    /// The values in i64.
    #[track_caller]
    pub fn long(&self) -> Tensor {
        self.to_dtype(DType::I64)
    }

    /// The values in i32.
    #[track_caller]
    pub fn int(&self) -> Tensor {
        self.to_dtype(DType::I32)
    }

    /// The values in the type of another tensor.
    #[track_caller]
    pub fn type_as(&self, other: &Tensor) -> Tensor {
        self.to_dtype(other.dtype())
    }
}

/// `a` where the condition holds, else `b`; the three broadcast.
///
/// ```
/// use sinter::{tensor, where_};
/// let y = where_(&tensor([true, false]), &tensor([1.0f32, 2.0]), 0.0);
/// assert_eq!(y.to_vec::<f32>(), [1.0, 0.0]);
/// ```
#[track_caller]
pub fn where_(condition: &Tensor, a: &Tensor, b: impl Operand) -> Tensor {
    condition.where_(a, b)
}

/// The type in which numbers of two types meet.
pub fn promote_types(a: DType, b: DType) -> DType {
    a.promote(b)
}

/// The type of the result of an op on the operands.
///
/// ```
/// use sinter::{DType, result_type, tensor};
/// assert_eq!(result_type(&tensor([1i64]), 0.5), DType::F32);
/// ```
pub fn result_type(a: &Tensor, b: impl Operand) -> DType {
    b.meet(a)
}

/// Whether PyTorch allows a result of type `from` to be stored in one of type `to`: not
/// where that would lose its category (a float in an integer, a number in a bool).
pub fn can_cast(from: DType, to: DType) -> bool {
    from.category() <= to.category() && (to != DType::Bool || from == DType::Bool)
}
