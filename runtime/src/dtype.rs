//! Element types and the rule by which two of them meet.

use num_complex::Complex;
use serde::{Deserialize, Serialize};
use std::fmt;

/// The type of a tensor's elements.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[repr(u8)]
pub enum DType {
    /// True or false, one byte each.
    Bool,
    /// Unsigned 8-bit integer.
    U8,
    /// Signed 8-bit integer.
    I8,
    /// Unsigned 16-bit integer.
    U16,
    /// Signed 16-bit integer.
    I16,
    /// Unsigned 32-bit integer.
    U32,
    /// Signed 32-bit integer.
    I32,
    /// Unsigned 64-bit integer.
    U64,
    /// Signed 64-bit integer.
    I64,
    /// IEEE 754 half precision.
    F16,
    /// Brain floating point: f32's range, 8 bits of precision.
    BF16,
    /// IEEE 754 single precision.
    F32,
    /// IEEE 754 double precision.
    F64,
    /// Complex number of two f32: real part, imaginary part.
    C64,
    /// Complex number of two f64: real part, imaginary part.
    C128,
}

use DType::*;

/// What kind of number a type holds; promotion never goes down this order.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Category {
    /// Truth values.
    Bool,
    /// Integers.
    Int,
    /// Floating-point numbers.
    Float,
    /// Complex numbers.
    Complex,
}

impl DType {
    /// Every type, by category, there by width.
    pub const ALL: [DType; 15] =
        [Bool, U8, I8, U16, I16, U32, I32, U64, I64, F16, BF16, F32, F64, C64, C128];

    /// Bytes per element.
    #[inline]
    pub const fn size(self) -> usize {
        match self {
            Bool | U8 | I8 => 1,
            U16 | I16 | F16 | BF16 => 2,
            U32 | I32 | F32 => 4,
            U64 | I64 | F64 | C64 => 8,
            C128 => 16,
        }
    }

    /// The short name: `f32`, `i64`, `bool`, …
    pub const fn name(self) -> &'static str {
        match self {
            Bool => "bool",
            U8 => "u8",
            I8 => "i8",
            U16 => "u16",
            I16 => "i16",
            U32 => "u32",
            I32 => "i32",
            U64 => "u64",
            I64 => "i64",
            F16 => "f16",
            BF16 => "bf16",
            F32 => "f32",
            F64 => "f64",
            C64 => "c64",
            C128 => "c128",
        }
    }

    /// The type of that short name.
    pub fn from_name(name: &str) -> Option<DType> {
        DType::ALL.into_iter().find(|d| d.name() == name)
    }

    /// What kind of number it is.
    #[inline]
    pub const fn category(self) -> Category {
        match self {
            Bool => Category::Bool,
            U8 | I8 | U16 | I16 | U32 | I32 | U64 | I64 => Category::Int,
            F16 | BF16 | F32 | F64 => Category::Float,
            C64 | C128 => Category::Complex,
        }
    }

    /// Whether it is a floating-point type.
    #[inline]
    pub const fn is_float(self) -> bool {
        matches!(self, F16 | BF16 | F32 | F64)
    }

    /// Whether arithmetic on it is done in f32 and rounded once at the end.
    #[inline]
    pub const fn is_half(self) -> bool {
        matches!(self, F16 | BF16)
    }

    /// Whether it is a complex type.
    #[inline]
    pub const fn is_complex(self) -> bool {
        matches!(self, C64 | C128)
    }

    /// Whether tensors of this type have gradients.
    #[inline]
    pub const fn is_differentiable(self) -> bool {
        self.is_float() || self.is_complex()
    }

    /// Whether it is an integer type without negative numbers.
    #[inline]
    pub const fn is_unsigned(self) -> bool {
        matches!(self, U8 | U16 | U32 | U64)
    }

    /// The type that kernels compute in for this one. Types that are not their own are
    /// stored and moved as they are, and converted for arithmetic: half precision is
    /// rounded once an op, integers keep their low bits.
    #[inline]
    pub const fn computed_in(self) -> DType {
        match self {
            F16 | BF16 => F32,
            I8 | U16 | I16 => I32,
            U32 | U64 => I64,
            d => d,
        }
    }

    /// Of a complex type, the type of its parts; any other type itself.
    #[inline]
    pub const fn real(self) -> DType {
        match self {
            C64 => F32,
            C128 => F64,
            d => d,
        }
    }

    /// The complex type whose parts hold numbers of this type: of f64, c128, else c64.
    #[inline]
    pub const fn complex(self) -> DType {
        match self {
            F64 | C128 => C128,
            _ => C64,
        }
    }

    /// The type two operands meet in, as PyTorch's `promote_types`: the higher
    /// category wins, then the wider type; `f16` and `bf16` meet in `f32`, signed and
    /// unsigned integers in a signed type that holds both. For `u16`, `u32` and `u64`
    /// beside other integers, which PyTorch refuses, NumPy's rule: `u64` and a signed
    /// integer meet in `f64`.
    ///
    /// ```
    /// use sinter_runtime::DType;
    /// assert_eq!(DType::I64.promote(DType::F16), DType::F16);
    /// assert_eq!(DType::F16.promote(DType::BF16), DType::F32);
    /// assert_eq!(DType::U8.promote(DType::I8), DType::I16);
    /// assert_eq!(DType::F64.promote(DType::C64), DType::C128);
    /// ```
    pub fn promote(self, other: DType) -> DType {
        if self == other {
            return self;
        }
        let (low, high) = if self < other { (self, other) } else { (other, self) };
        if high.is_complex() {
            return if low == F64 { C128 } else { high };
        }
        if (low, high) == (F16, BF16) {
            return F32;
        }
        let mixed = low.category() == Category::Int && high.category() == Category::Int;
        if mixed && low.is_unsigned() != high.is_unsigned() {
            let unsigned = if low.is_unsigned() { low } else { high };
            let holds = match unsigned {
                U8 => I16,
                U16 => I32,
                U32 => I64,
                _ => return F64,
            };
            return holds.max(high);
        }
        high
    }
}

impl fmt::Display for DType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// A Rust number type that can be a tensor's element.
pub trait Number: sinter_kernels::view::Element {
    /// The element type it stands for.
    const DTYPE: DType;
    /// Its value as a scalar.
    fn to_scalar(self) -> Scalar;
}

macro_rules! number {
    ($($t:ty: $d:ident, |$x:ident| $s:expr);* $(;)?) => {$(
        impl Number for $t {
            const DTYPE: DType = $d;
            fn to_scalar(self) -> Scalar {
                let $x = self;
                $s
            }
        }
    )*};
}
number! {
    f32: F32, |x| Scalar::Float(x.into());
    f64: F64, |x| Scalar::Float(x);
    half::f16: F16, |x| Scalar::Float(x.into());
    half::bf16: BF16, |x| Scalar::Float(x.into());
    i64: I64, |x| Scalar::Int(x);
    i32: I32, |x| Scalar::Int(x.into());
    i16: I16, |x| Scalar::Int(x.into());
    i8: I8, |x| Scalar::Int(x.into());
    // Beyond the range of i64, the nearest float.
    u64: U64, |x| i64::try_from(x).map_or(Scalar::Float(x as f64), Scalar::Int);
    u32: U32, |x| Scalar::Int(x.into());
    u16: U16, |x| Scalar::Int(x.into());
    u8: U8, |x| Scalar::Int(x.into());
    Complex<f32>: C64, |x| Scalar::Complex(x.re.into(), x.im.into());
    Complex<f64>: C128, |x| Scalar::Complex(x.re, x.im);
}

/// Runs `$body` with `$t` standing for the Rust type of elements of type `$dtype`
/// (`u8` for bool). Only for what depends on the numbers themselves: code that moves
/// elements goes by their size, [`with_storage!`](crate::with_storage).
#[macro_export]
macro_rules! with_number {
    ($dtype:expr, $t:ident => $body:expr) => {
        $crate::with_number!(@ $dtype, $t, $body;
            Bool u8, U8 u8, I8 i8, U16 u16, I16 i16, U32 u32, I32 i32, U64 u64, I64 i64,
            F16 half::f16, BF16 half::bf16, F32 f32, F64 f64,
            C64 num_complex::Complex<f32>, C128 num_complex::Complex<f64>)
    };
    (@ $dtype:expr, $t:ident, $body:expr; $($name:ident $rust:ty),*) => {
        match $dtype {
            $($crate::DType::$name => {
                type $t = $rust;
                $body
            })*
        }
    };
}

/// Runs `$body` with `$t` standing for the unsigned integer (or the pair) with the size
/// of elements of type `$dtype`: enough to move them.
#[macro_export]
macro_rules! with_storage {
    ($dtype:expr, $t:ident => $body:expr) => {
        match $dtype.size() {
            1 => {
                type $t = u8;
                $body
            }
            2 => {
                type $t = u16;
                $body
            }
            4 => {
                type $t = u32;
                $body
            }
            8 => {
                type $t = u64;
                $body
            }
            _ => {
                type $t = [u64; 2];
                $body
            }
        }
    };
}

/// One number, before it has a precise element type. Equality and order compare
/// bits, so that scalars can be keys.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub enum Scalar {
    /// A truth value.
    Bool(bool),
    /// An integer.
    Int(i64),
    /// A floating-point number.
    Float(f64),
    /// A complex number: real part, imaginary part.
    Complex(f64, f64),
}

impl Scalar {
    /// What kind of number it is.
    pub fn category(self) -> Category {
        match self {
            Scalar::Bool(_) => Category::Bool,
            Scalar::Int(_) => Category::Int,
            Scalar::Float(_) => Category::Float,
            Scalar::Complex(..) => Category::Complex,
        }
    }

    /// As f64 (integers above 2^53 round; of a complex number, the real part).
    pub fn as_f64(self) -> f64 {
        match self {
            Scalar::Bool(b) => f64::from(u8::from(b)),
            Scalar::Int(i) => i as f64,
            Scalar::Float(f) | Scalar::Complex(f, _) => f,
        }
    }

    /// As i64: floats truncate towards zero and saturate, NaN is 0.
    pub fn as_i64(self) -> i64 {
        match self {
            Scalar::Bool(b) => i64::from(b),
            Scalar::Int(i) => i,
            Scalar::Float(f) | Scalar::Complex(f, _) => f as i64,
        }
    }

    /// The imaginary part: zero unless complex.
    pub fn imag(self) -> f64 {
        match self {
            Scalar::Complex(_, im) => im,
            _ => 0.0,
        }
    }

    /// As bool: zero is false, all else true.
    pub fn as_bool(self) -> bool {
        match self {
            Scalar::Bool(b) => b,
            Scalar::Int(i) => i != 0,
            Scalar::Float(f) => f != 0.0,
            Scalar::Complex(re, im) => re != 0.0 || im != 0.0,
        }
    }

    /// The value as it would be stored in an element of `dtype`.
    pub fn cast(self, dtype: DType) -> Scalar {
        macro_rules! int {
            ($t:ty) => {
                Scalar::Int(match self {
                    Scalar::Float(f) | Scalar::Complex(f, _) => i64::from(f as $t),
                    s => i64::from(s.as_i64() as $t),
                })
            };
        }
        match dtype {
            Bool => Scalar::Bool(self.as_bool()),
            U8 => int!(u8),
            I8 => int!(i8),
            U16 => int!(u16),
            I16 => int!(i16),
            U32 => int!(u32),
            I32 => int!(i32),
            U64 => match self {
                Scalar::Float(f) | Scalar::Complex(f, _) => (f as u64).to_scalar(),
                s => (s.as_i64() as u64).to_scalar(),
            },
            I64 => Scalar::Int(self.as_i64()),
            F16 => Scalar::Float(half::f16::from_f64(self.as_f64()).into()),
            BF16 => Scalar::Float(half::bf16::from_f64(self.as_f64()).into()),
            F32 => Scalar::Float(f64::from(self.as_f64() as f32)),
            F64 => Scalar::Float(self.as_f64()),
            C64 => Scalar::Complex(self.as_f64() as f32 as f64, self.imag() as f32 as f64),
            C128 => Scalar::Complex(self.as_f64(), self.imag()),
        }
    }

    /// The type a tensor of type `tensor` takes when it meets this scalar: a
    /// scalar never widens a tensor of its own category.
    pub fn promote_with(self, tensor: DType, default_float: DType) -> DType {
        if self.category() <= tensor.category() {
            return tensor;
        }
        match self.category() {
            Category::Bool => Bool,
            Category::Int => I64,
            Category::Float => default_float,
            Category::Complex if tensor.is_float() => tensor.complex(),
            Category::Complex => default_float.complex(),
        }
    }

    fn key(self) -> (u8, u64, u64) {
        match self {
            Scalar::Bool(b) => (0, u64::from(b), 0),
            Scalar::Int(i) => (1, i as u64, 0),
            Scalar::Float(f) => (2, f.to_bits(), 0),
            Scalar::Complex(re, im) => (3, re.to_bits(), im.to_bits()),
        }
    }
}

impl PartialEq for Scalar {
    fn eq(&self, o: &Scalar) -> bool {
        self.key() == o.key()
    }
}
impl Eq for Scalar {}
impl std::hash::Hash for Scalar {
    fn hash<H: std::hash::Hasher>(&self, h: &mut H) {
        self.key().hash(h);
    }
}
impl PartialOrd for Scalar {
    fn partial_cmp(&self, o: &Scalar) -> Option<std::cmp::Ordering> {
        Some(self.cmp(o))
    }
}
impl Ord for Scalar {
    fn cmp(&self, o: &Scalar) -> std::cmp::Ordering {
        self.key().cmp(&o.key())
    }
}

impl fmt::Display for Scalar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Scalar::Bool(b) => write!(f, "{b}"),
            Scalar::Int(i) => write!(f, "{i}"),
            Scalar::Float(x) => write!(f, "{x:?}"),
            Scalar::Complex(re, im) => {
                let plus = if im.is_sign_negative() && !im.is_nan() { "" } else { "+" };
                write!(f, "{re:?}{plus}{im:?}i")
            }
        }
    }
}

impl std::str::FromStr for Scalar {
    type Err = String;
    fn from_str(s: &str) -> Result<Scalar, String> {
        if let Ok(b) = s.parse() {
            return Ok(Scalar::Bool(b));
        }
        if let Ok(i) = s.parse() {
            return Ok(Scalar::Int(i));
        }
        let bad = || format!("`{s}` is not a number");
        let Some(parts) = s.strip_suffix('i') else {
            return s.parse().map(Scalar::Float).map_err(|_| bad());
        };
        // The sign of the imaginary part: not that of an exponent.
        let sign = |(at, c): (usize, char)| {
            at > 0 && matches!(c, '+' | '-') && !matches!(parts.as_bytes()[at - 1], b'e' | b'E')
        };
        let (at, _) = parts.char_indices().rfind(|&x| sign(x)).ok_or_else(bad)?;
        let number = |t: &str| t.parse().map_err(|_| bad());
        Ok(Scalar::Complex(number(&parts[..at])?, number(&parts[at..])?))
    }
}

macro_rules! scalar_from {
    ($($t:ty => |$x:ident| $s:expr);* $(;)?) => {$(
        impl From<$t> for Scalar {
            fn from($x: $t) -> Scalar {
                $s
            }
        }
    )*};
}
scalar_from! {
    bool => |x| Scalar::Bool(x);
    i32 => |x| Scalar::Int(x.into());
    i64 => |x| Scalar::Int(x);
    i8 => |x| Scalar::Int(x.into());
    i16 => |x| Scalar::Int(x.into());
    u8 => |x| Scalar::Int(x.into());
    u16 => |x| Scalar::Int(x.into());
    u32 => |x| Scalar::Int(x.into());
    f32 => |x| Scalar::Float(x.into());
    f64 => |x| Scalar::Float(x);
    Complex<f32> => |x| Scalar::Complex(x.re.into(), x.im.into());
    Complex<f64> => |x| Scalar::Complex(x.re, x.im);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn promotion_is_symmetric_idempotent_and_matches_the_table() {
        for a in DType::ALL {
            assert_eq!(a.promote(a), a);
            for b in DType::ALL {
                assert_eq!(a.promote(b), b.promote(a));
                assert!(a.promote(b).category() >= a.category().max(b.category()));
            }
        }
        assert_eq!(Bool.promote(U8), U8);
        assert_eq!(I64.promote(F16), F16);
        assert_eq!(BF16.promote(F64), F64);
    }

    #[test]
    fn scalars_print_and_parse_back() {
        for s in [
            Scalar::Bool(true),
            Scalar::Int(-3),
            Scalar::Float(0.1),
            Scalar::Float(1.0),
            Scalar::Float(1e30),
            Scalar::Float(f64::NEG_INFINITY),
            Scalar::Float(-0.0),
            Scalar::Complex(1.5, -0.25),
            Scalar::Complex(-1e-30, 2e10),
            Scalar::Complex(0.0, f64::INFINITY),
        ] {
            assert_eq!(s.to_string().parse::<Scalar>().unwrap(), s);
        }
        assert!("x".parse::<Scalar>().is_err());
    }

    #[test]
    fn scalars_do_not_widen_within_their_category() {
        assert_eq!(Scalar::Float(2.0).promote_with(F16, F32), F16);
        assert_eq!(Scalar::Float(2.0).promote_with(I32, F32), F32);
        assert_eq!(Scalar::Int(2).promote_with(U8, F32), U8);
        assert_eq!(Scalar::Int(2).promote_with(Bool, F32), I64);
    }
}
