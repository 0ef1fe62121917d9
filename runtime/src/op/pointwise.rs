//! The element-wise members of the vocabulary: one table row per op.
//!
//! A row names the op, its f32 definition over [`Lane`] (shared by the eager
//! kernels and every code generator; absent where only a library function
//! exists), the eager f32 kernel, and the f64 definition. To add an op, add a
//! row here, a kernel if it has one, and its derivative in the frontend's
//! `autograd` rules; everything else derives from these.

use super::special;
use sinter_kernels::math::{self, Lane};
use sinter_kernels::pointwise::{Loop1, f32s};

/// How a unary op is evaluated on f32.
pub enum Kernel32 {
    /// A vectorised loop.
    Loop(&'static Loop1<f32, f32>),
    /// A scalar library function, evaluated in f64 and rounded once.
    Library,
}

/// Which element types an op takes, and which it gives.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Domain {
    /// Floats to the same float.
    Float,
    /// Any number (not bool) to the same type.
    Number,
    /// Anything to bool.
    ToBool,
    /// Integers and bool to the same type.
    Bits,
}

macro_rules! unary_ops {
    ($($(#[$doc:meta])* $op:ident = $name:literal, $domain:ident,
        lane: $lane:expr, f32: $k32:expr, f64: $f64:expr;)*) => {
        /// An element-wise function of one operand.
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
        #[derive(serde::Serialize, serde::Deserialize)]
        pub enum UnaryOp {
            $($(#[$doc])* $op,)*
        }

        impl UnaryOp {
            /// Every unary op.
            pub const ALL: &[UnaryOp] = &[$(UnaryOp::$op),*];

            /// The op's name.
            pub const fn name(self) -> &'static str {
                match self { $(UnaryOp::$op => $name),* }
            }

            /// Which types it takes and gives.
            pub const fn domain(self) -> Domain {
                match self { $(UnaryOp::$op => Domain::$domain),* }
            }

            /// The f32 definition over any lane; `None` where only a library
            /// function exists, or the result is no number.
            pub fn lane<V: Lane>(self, x: V) -> Option<V> {
                let f: Option<fn(V) -> V> = match self { $(UnaryOp::$op => $lane),* };
                f.map(|f| f(x))
            }

            /// The eager f32 kernel.
            pub fn kernel32(self) -> Kernel32 {
                match self { $(UnaryOp::$op => $k32),* }
            }

            /// The value in f64.
            pub fn eval64(self, x: f64) -> f64 {
                let f: fn(f64) -> f64 = match self { $(UnaryOp::$op => $f64),* };
                f(x)
            }
        }
    };
}

const LIB: Kernel32 = Kernel32::Library;
const fn k(l: &'static Loop1<f32, f32>) -> Kernel32 {
    Kernel32::Loop(l)
}
fn truth(b: bool) -> f64 {
    if b { 1.0 } else { 0.0 }
}
fn softplus64(x: f64) -> f64 {
    if x.is_nan() { x } else { x.max(0.0) + (-x.abs()).exp().ln_1p() }
}
fn gelu64(x: f64) -> f64 {
    0.5 * x * (1.0 + libm::erf(x * std::f64::consts::FRAC_1_SQRT_2))
}
fn gelu_tanh64(x: f64) -> f64 {
    let u = (2.0 / std::f64::consts::PI).sqrt() * (x + 0.044_715 * x * x * x);
    0.5 * x * (1.0 + u.tanh())
}
fn sign64(x: f64) -> f64 {
    if x > 0.0 {
        1.0
    } else if x < 0.0 {
        -1.0
    } else {
        x.abs()
    }
}

unary_ops! {
    /// `-x`
    Neg = "neg", Number, lane: Some(|x| x.neg()), f32: k(&f32s::NEG), f64: |x| -x;
    /// `|x|`
    Abs = "abs", Number, lane: Some(|x| x.abs()), f32: k(&f32s::ABS), f64: f64::abs;
    /// -1, 0 or 1 by sign
    Sign = "sign", Number, lane: Some(math::sign), f32: k(&f32s::SIGN), f64: sign64;
    /// `1 / x`
    Reciprocal = "reciprocal", Float, lane: Some(|x| x.lit(1.0).div(x)), f32: k(&f32s::RECIPROCAL), f64: |x| 1.0 / x;
    /// Square root
    Sqrt = "sqrt", Float, lane: Some(|x| x.sqrt()), f32: k(&f32s::SQRT), f64: f64::sqrt;
    /// `1 / sqrt(x)`
    Rsqrt = "rsqrt", Float, lane: Some(math::rsqrt), f32: k(&f32s::RSQRT), f64: |x| 1.0 / x.sqrt();
    /// `x * x`
    Square = "square", Number, lane: Some(|x| x.mul(x)), f32: k(&f32s::SQUARE), f64: |x| x * x;
    /// `e^x`
    Exp = "exp", Float, lane: Some(math::exp), f32: k(&f32s::EXP), f64: f64::exp;
    /// `2^x`
    Exp2 = "exp2", Float, lane: Some(math::exp2), f32: k(&f32s::EXP2), f64: f64::exp2;
    /// `e^x - 1`
    Expm1 = "expm1", Float, lane: Some(math::expm1), f32: k(&f32s::EXPM1), f64: f64::exp_m1;
    /// Natural logarithm
    Log = "log", Float, lane: Some(math::log), f32: k(&f32s::LOG), f64: f64::ln;
    /// Base-two logarithm
    Log2 = "log2", Float, lane: Some(math::log2), f32: k(&f32s::LOG2), f64: f64::log2;
    /// Base-ten logarithm
    Log10 = "log10", Float, lane: Some(math::log10), f32: k(&f32s::LOG10), f64: f64::log10;
    /// `ln(1 + x)`
    Log1p = "log1p", Float, lane: Some(math::log1p), f32: k(&f32s::LOG1P), f64: f64::ln_1p;
    /// Sine
    Sin = "sin", Float, lane: None, f32: LIB, f64: f64::sin;
    /// Cosine
    Cos = "cos", Float, lane: None, f32: LIB, f64: f64::cos;
    /// Tangent
    Tan = "tan", Float, lane: None, f32: LIB, f64: f64::tan;
    /// Inverse sine
    Asin = "asin", Float, lane: None, f32: LIB, f64: f64::asin;
    /// Inverse cosine
    Acos = "acos", Float, lane: None, f32: LIB, f64: f64::acos;
    /// Inverse tangent
    Atan = "atan", Float, lane: None, f32: LIB, f64: f64::atan;
    /// Hyperbolic sine
    Sinh = "sinh", Float, lane: Some(math::sinh), f32: k(&f32s::SINH), f64: f64::sinh;
    /// Hyperbolic cosine
    Cosh = "cosh", Float, lane: Some(math::cosh), f32: k(&f32s::COSH), f64: f64::cosh;
    /// Hyperbolic tangent
    Tanh = "tanh", Float, lane: Some(math::tanh), f32: k(&f32s::TANH), f64: f64::tanh;
    /// Inverse hyperbolic sine
    Asinh = "asinh", Float, lane: None, f32: LIB, f64: f64::asinh;
    /// Inverse hyperbolic cosine
    Acosh = "acosh", Float, lane: None, f32: LIB, f64: f64::acosh;
    /// Inverse hyperbolic tangent
    Atanh = "atanh", Float, lane: None, f32: LIB, f64: libm::atanh;
    /// Logistic function
    Sigmoid = "sigmoid", Float, lane: Some(math::sigmoid), f32: k(&f32s::SIGMOID), f64: |x| 1.0 / (1.0 + (-x).exp());
    /// Error function
    Erf = "erf", Float, lane: Some(math::erf), f32: k(&f32s::ERF), f64: libm::erf;
    /// Largest integer not above
    Floor = "floor", Float, lane: Some(|x| x.floor()), f32: k(&f32s::FLOOR), f64: f64::floor;
    /// Smallest integer not below
    Ceil = "ceil", Float, lane: Some(|x| x.ceil()), f32: k(&f32s::CEIL), f64: f64::ceil;
    /// Nearest integer, halves to even
    Round = "round", Float, lane: Some(|x| x.round()), f32: k(&f32s::ROUND), f64: f64::round_ties_even;
    /// Integer next towards zero
    Trunc = "trunc", Float, lane: Some(|x| x.trunc()), f32: k(&f32s::TRUNC), f64: f64::trunc;
    /// `max(x, 0)`
    Relu = "relu", Number, lane: Some(math::relu), f32: k(&f32s::RELU), f64: |x| if x < 0.0 { 0.0 } else { x };
    /// `x sigmoid(x)`
    Silu = "silu", Float, lane: Some(math::silu), f32: k(&f32s::SILU), f64: |x| x / (1.0 + (-x).exp());
    /// Exact GELU
    Gelu = "gelu", Float, lane: Some(math::gelu), f32: k(&f32s::GELU), f64: gelu64;
    /// GELU, tanh form
    GeluTanh = "gelu_tanh", Float, lane: Some(math::gelu_tanh), f32: k(&f32s::GELU_TANH), f64: gelu_tanh64;
    /// `ln(1 + e^x)`
    Softplus = "softplus", Float, lane: Some(math::softplus), f32: k(&f32s::SOFTPLUS), f64: softplus64;
    /// Whether NaN
    IsNan = "isnan", ToBool, lane: None, f32: LIB, f64: |x| truth(x.is_nan());
    /// Whether infinite
    IsInf = "isinf", ToBool, lane: None, f32: LIB, f64: |x| truth(x.is_infinite());
    /// Whether finite
    IsFinite = "isfinite", ToBool, lane: None, f32: LIB, f64: |x| truth(x.is_finite());
    /// Whether zero
    LogicalNot = "logical_not", ToBool, lane: None, f32: LIB, f64: |x| truth(x == 0.0);
    /// Bits inverted; of a bool, its opposite
    BitNot = "bitwise_not", Bits, lane: None, f32: LIB, f64: |x| x;
    /// `1 - erf(x)`, without cancellation
    Erfc = "erfc", Float, lane: None, f32: LIB, f64: libm::erfc;
    /// Inverse of the error function
    Erfinv = "erfinv", Float, lane: None, f32: LIB, f64: special::erfinv;
    /// `e^(x²) erfc(x)`
    Erfcx = "erfcx", Float, lane: None, f32: LIB, f64: special::erfcx;
    /// Inverse of the normal distribution function
    Ndtri = "ndtri", Float, lane: None, f32: LIB, f64: special::ndtri;
    /// Logarithm of the normal distribution function
    LogNdtr = "log_ndtr", Float, lane: None, f32: LIB, f64: special::log_ndtr;
    /// Logarithm of `|Γ(x)|`
    Lgamma = "lgamma", Float, lane: None, f32: LIB, f64: libm::lgamma;
    /// Derivative of `ln Γ`
    Digamma = "digamma", Float, lane: None, f32: LIB, f64: special::digamma;
    /// Modified Bessel function of the first kind, order 0
    I0 = "i0", Float, lane: None, f32: LIB, f64: special::i0;
    /// `e^-|x| I_0(x)`
    I0e = "i0e", Float, lane: None, f32: LIB, f64: special::i0e;
    /// Modified Bessel function of the first kind, order 1
    I1 = "i1", Float, lane: None, f32: LIB, f64: special::i1;
    /// `e^-|x| I_1(x)`
    I1e = "i1e", Float, lane: None, f32: LIB, f64: special::i1e;
    /// Modified Bessel function of the second kind, order 0
    K0 = "modified_bessel_k0", Float, lane: None, f32: LIB, f64: special::k0;
    /// `e^x K_0(x)`
    K0e = "scaled_modified_bessel_k0", Float, lane: None, f32: LIB, f64: special::k0e;
    /// Modified Bessel function of the second kind, order 1
    K1 = "modified_bessel_k1", Float, lane: None, f32: LIB, f64: special::k1;
    /// `e^x K_1(x)`
    K1e = "scaled_modified_bessel_k1", Float, lane: None, f32: LIB, f64: special::k1e;
    /// Bessel function of the first kind, order 0
    J0 = "bessel_j0", Float, lane: None, f32: LIB, f64: libm::j0;
    /// Bessel function of the first kind, order 1
    J1 = "bessel_j1", Float, lane: None, f32: LIB, f64: libm::j1;
    /// Bessel function of the second kind, order 0
    Y0 = "bessel_y0", Float, lane: None, f32: LIB, f64: libm::y0;
    /// Bessel function of the second kind, order 1
    Y1 = "bessel_y1", Float, lane: None, f32: LIB, f64: libm::y1;
    /// `e` of `x = m 2^e` with `0.5 <= |m| < 1`; 0 of 0, infinities and NaN
    Exponent = "exponent", Float, lane: None, f32: LIB, f64: special::exponent;
}

macro_rules! binary_ops {
    ($($(#[$doc:meta])* $op:ident = $name:literal, $domain:ident;)*) => {
        /// An element-wise function of two operands, which broadcast.
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
        #[derive(serde::Serialize, serde::Deserialize)]
        pub enum BinaryOp {
            $($(#[$doc])* $op,)*
        }

        impl BinaryOp {
            /// Every binary op.
            pub const ALL: &[BinaryOp] = &[$(BinaryOp::$op),*];

            /// The op's name.
            pub const fn name(self) -> &'static str {
                match self { $(BinaryOp::$op => $name),* }
            }

            /// Which types it takes and gives.
            pub const fn domain(self) -> BinaryDomain {
                match self { $(BinaryOp::$op => BinaryDomain::$domain),* }
            }
        }
    };
}

/// Which element types a binary op takes; it gives the same type.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum BinaryDomain {
    /// Anything; on bool, sum and maximum mean "or", product and minimum "and".
    Any,
    /// Any number, not bool.
    Number,
    /// Floats.
    Float,
    /// Integers and bool.
    Bits,
    /// Integers.
    Int,
    /// f32 and f64: what is about single bits of a number has no form in f32 for half
    /// precision.
    Full,
}

binary_ops! {
    /// `a + b`
    Add = "add", Any;
    /// `a - b`
    Sub = "sub", Number;
    /// `a * b`
    Mul = "mul", Any;
    /// `a / b`
    Div = "div", Float;
    /// The larger; NaN where either is NaN
    Max = "maximum", Any;
    /// The smaller; NaN where either is NaN
    Min = "minimum", Any;
    /// `a^b`
    Pow = "pow", Number;
    /// Remainder with the sign of the divisor, as Python's `%`
    Rem = "remainder", Number;
    /// Quotient rounded down
    FloorDiv = "floor_divide", Number;
    /// Angle of the point `(b, a)`
    Atan2 = "atan2", Float;
    /// Bitwise and
    And = "bitwise_and", Bits;
    /// Bitwise or
    Or = "bitwise_or", Bits;
    /// Bitwise exclusive or
    Xor = "bitwise_xor", Bits;
    /// Bits shifted left
    Shl = "bitwise_left_shift", Int;
    /// Bits shifted right, keeping the sign
    Shr = "bitwise_right_shift", Int;
    /// `a` where `b > 0`, else 0: the derivative of `relu` applied to `a`
    Gate = "gate", Number;
    /// Remainder with the sign of the dividend, as C's `fmod`
    Fmod = "fmod", Number;
    /// `|a|` with the sign of `b`
    CopySign = "copysign", Float;
    /// `sqrt(a² + b²)` without overflow on the way
    Hypot = "hypot", Float;
    /// The number after `a` in the direction of `b`
    NextAfter = "nextafter", Full;
    /// Regularised lower incomplete gamma function `P(a, b)`
    Igamma = "igamma", Float;
    /// Regularised upper incomplete gamma function `Q(a, b)`
    Igammac = "igammac", Float;
    /// Hurwitz' zeta function `Σ (b + k)^-a`
    Zeta = "zeta", Float;
    /// Greatest common divisor
    Gcd = "gcd", Int;
}

impl UnaryOp {
    /// Whether the function has no elementary form: its accuracy is a few units.
    pub fn is_special(self) -> bool {
        self >= UnaryOp::Erfc && self <= UnaryOp::Y1
    }
}

impl BinaryOp {
    /// The f32 definition over any lane; `None` where only a library function exists.
    pub fn lane<V: Lane>(self, a: V, b: V) -> Option<V> {
        Some(match self {
            BinaryOp::Add => a.add(b),
            BinaryOp::Sub => a.sub(b),
            BinaryOp::Mul => a.mul(b),
            BinaryOp::Div => a.div(b),
            BinaryOp::Max => math::maximum(a, b),
            BinaryOp::Min => math::minimum(a, b),
            BinaryOp::Gate => math::gate(a, b),
            _ => return None,
        })
    }

    /// The value in f64, for float operands.
    pub fn eval64(self, a: f64, b: f64) -> f64 {
        match self {
            BinaryOp::Add => a + b,
            BinaryOp::Sub => a - b,
            BinaryOp::Mul => a * b,
            BinaryOp::Div => a / b,
            BinaryOp::Max if a.is_nan() || b.is_nan() => f64::NAN,
            BinaryOp::Max => a.max(b),
            BinaryOp::Min if a.is_nan() || b.is_nan() => f64::NAN,
            BinaryOp::Min => a.min(b),
            BinaryOp::Pow => a.powf(b),
            BinaryOp::Rem => {
                let r = a % b;
                if r != 0.0 && (r < 0.0) != (b < 0.0) { r + b } else { r }
            }
            BinaryOp::FloorDiv => floor_div64(a, b),
            BinaryOp::Atan2 => a.atan2(b),
            BinaryOp::Gate => {
                if b > 0.0 {
                    a
                } else {
                    0.0
                }
            }
            BinaryOp::Fmod => a % b,
            BinaryOp::CopySign => a.copysign(b),
            BinaryOp::Hypot => a.hypot(b),
            BinaryOp::NextAfter => special::nextafter(a, b),
            BinaryOp::Igamma => special::igamma(a, b),
            BinaryOp::Igammac => special::igammac(a, b),
            BinaryOp::Zeta => special::zeta(a, b),
            BinaryOp::And
            | BinaryOp::Or
            | BinaryOp::Xor
            | BinaryOp::Shl
            | BinaryOp::Shr
            | BinaryOp::Gcd => f64::NAN,
        }
    }

    /// The value in f32 of an op for which that in f64, rounded, is another.
    pub(crate) fn eval32(self) -> Option<fn(f32, f32) -> f32> {
        (self == BinaryOp::NextAfter).then_some(special::nextafter32)
    }

    /// Whether it divides, and so fails on integers where the divisor is zero.
    pub fn divides_integers(self) -> bool {
        matches!(self, BinaryOp::Rem | BinaryOp::FloorDiv | BinaryOp::Fmod)
    }

    /// The value for integer operands. Division by zero and such are refused
    /// before; shifts beyond the width give what infinitely many bits would.
    pub fn eval_int(self, a: i64, b: i64) -> i64 {
        match self {
            BinaryOp::Add => a.wrapping_add(b),
            BinaryOp::Sub => a.wrapping_sub(b),
            BinaryOp::Mul => a.wrapping_mul(b),
            BinaryOp::Max => a.max(b),
            BinaryOp::Min => a.min(b),
            BinaryOp::Pow => int_pow(a, b),
            BinaryOp::Rem => {
                a.checked_rem_euclid(b).map_or(0, |r| if r != 0 && b < 0 { r + b } else { r })
            }
            BinaryOp::FloorDiv => int_floor_div(a, b),
            BinaryOp::And => a & b,
            BinaryOp::Or => a | b,
            BinaryOp::Xor => a ^ b,
            BinaryOp::Shl => u32::try_from(b).ok().and_then(|s| a.checked_shl(s)).unwrap_or(0),
            BinaryOp::Shr => a >> b.clamp(0, 63),
            BinaryOp::Gate => {
                if b > 0 {
                    a
                } else {
                    0
                }
            }
            BinaryOp::Fmod => a.checked_rem(b).unwrap_or(0),
            BinaryOp::Gcd => special::gcd(a, b),
            BinaryOp::Div
            | BinaryOp::Atan2
            | BinaryOp::CopySign
            | BinaryOp::Hypot
            | BinaryOp::NextAfter
            | BinaryOp::Igamma
            | BinaryOp::Igammac
            | BinaryOp::Zeta => 0,
        }
    }
}

/// `floor(a / b)` without the rounding error of dividing first, as Python's `//`.
fn floor_div64(a: f64, b: f64) -> f64 {
    if b == 0.0 {
        return a / b;
    }
    let r = a % b;
    let q = (a - r) / b;
    let q = if r != 0.0 && (r < 0.0) != (b < 0.0) { q - 1.0 } else { q };
    // q is integral up to rounding.
    let f = q.floor();
    if q - f > 0.5 { f + 1.0 } else { f }
}

fn int_floor_div(a: i64, b: i64) -> i64 {
    let q = a.wrapping_div(b);
    if a.wrapping_rem(b) != 0 && (a < 0) != (b < 0) { q - 1 } else { q }
}

/// `a^b`, wrapping; a negative power is zero except for ±1, as in PyTorch.
fn int_pow(a: i64, b: i64) -> i64 {
    if b < 0 {
        return match a {
            1 => 1,
            -1 if b % 2 == 0 => 1,
            -1 => -1,
            _ => 0,
        };
    }
    let (mut base, mut power, mut out) = (a, b, 1i64);
    while power > 0 {
        if power & 1 == 1 {
            out = out.wrapping_mul(base);
        }
        base = base.wrapping_mul(base);
        power >>= 1;
    }
    out
}

/// An element-wise comparison of two operands, which broadcast. Gives bool.
#[derive(
    Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, serde::Serialize, serde::Deserialize,
)]
pub enum CompareOp {
    /// `a == b`
    Eq,
    /// `a != b`
    Ne,
    /// `a < b`
    Lt,
    /// `a <= b`
    Le,
    /// `a > b`
    Gt,
    /// `a >= b`
    Ge,
}

impl CompareOp {
    /// Every comparison.
    pub const ALL: &[CompareOp] =
        &[CompareOp::Eq, CompareOp::Ne, CompareOp::Lt, CompareOp::Le, CompareOp::Gt, CompareOp::Ge];

    /// The op's name.
    pub const fn name(self) -> &'static str {
        match self {
            CompareOp::Eq => "eq",
            CompareOp::Ne => "ne",
            CompareOp::Lt => "lt",
            CompareOp::Le => "le",
            CompareOp::Gt => "gt",
            CompareOp::Ge => "ge",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn python_division() {
        for (a, b, q, r) in [(7, 2, 3, 1), (-7, 2, -4, 1), (7, -2, -4, -1), (-7, -2, 3, -1)] {
            assert_eq!(BinaryOp::FloorDiv.eval_int(a, b), q);
            assert_eq!(BinaryOp::Rem.eval_int(a, b), r);
            assert_eq!(BinaryOp::FloorDiv.eval64(a as f64, b as f64), q as f64);
            assert_eq!(BinaryOp::Rem.eval64(a as f64, b as f64), r as f64);
        }
        assert_eq!(BinaryOp::FloorDiv.eval_int(i64::MIN, -1), i64::MIN);
        assert_eq!(BinaryOp::Rem.eval_int(i64::MIN, -1), 0);
        assert_eq!(BinaryOp::Pow.eval_int(3, 5), 243);
        assert_eq!(BinaryOp::Pow.eval_int(2, -1), 0);
        assert_eq!(BinaryOp::Shl.eval_int(1, 64), 0);
        assert_eq!(BinaryOp::Shr.eval_int(-8, 200), -1);
    }

    #[test]
    fn lane_and_double_definitions_agree() {
        for &op in UnaryOp::ALL {
            for x in [-2.5f32, -1.0, -0.3, 0.0, 0.2, 0.9, 1.0, 3.7] {
                if let Some(y) = op.lane(x) {
                    let want = op.eval64(f64::from(x)) as f32;
                    let close = (y - want).abs() <= 1e-6 * want.abs().max(1.0);
                    assert!(
                        close || (y.is_nan() && want.is_nan()) || y == want,
                        "{op:?} {x}: {y} {want}"
                    );
                }
            }
        }
    }
}
