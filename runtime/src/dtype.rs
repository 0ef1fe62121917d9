//! Element types and the rule by which two of them meet.

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
    /// Signed 32-bit integer.
    I32,
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
}

impl DType {
    /// Every type, narrowest first within its category.
    pub const ALL: [DType; 8] = [Bool, U8, I32, I64, F16, BF16, F32, F64];

    /// Bytes per element.
    #[inline]
    pub const fn size(self) -> usize {
        match self {
            Bool | U8 => 1,
            F16 | BF16 => 2,
            I32 | F32 => 4,
            I64 | F64 => 8,
        }
    }

    /// The short name: `f32`, `i64`, `bool`, …
    pub const fn name(self) -> &'static str {
        match self {
            Bool => "bool",
            U8 => "u8",
            I32 => "i32",
            I64 => "i64",
            F16 => "f16",
            BF16 => "bf16",
            F32 => "f32",
            F64 => "f64",
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
            U8 | I32 | I64 => Category::Int,
            F16 | BF16 | F32 | F64 => Category::Float,
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

    /// The type two operands meet in, as PyTorch's `promote_types`: the higher
    /// category wins, then the wider type; `f16` and `bf16` meet in `f32`.
    ///
    /// ```
    /// use sinter_runtime::DType;
    /// assert_eq!(DType::I64.promote(DType::F16), DType::F16);
    /// assert_eq!(DType::F16.promote(DType::BF16), DType::F32);
    /// assert_eq!(DType::U8.promote(DType::I32), DType::I32);
    /// ```
    pub fn promote(self, other: DType) -> DType {
        if self == other {
            return self;
        }
        let (low, high) = if self < other { (self, other) } else { (other, self) };
        if (low, high) == (F16, BF16) { F32 } else { high }
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
    u8: U8, |x| Scalar::Int(x.into());
}

/// Runs `$body` with `$t` standing for the Rust type that stores elements of
/// type `$dtype` (`u8` for bool).
#[macro_export]
macro_rules! with_number {
    ($dtype:expr, $t:ident => $body:expr) => {
        match $dtype {
            $crate::DType::Bool | $crate::DType::U8 => {
                type $t = u8;
                $body
            }
            $crate::DType::I32 => {
                type $t = i32;
                $body
            }
            $crate::DType::I64 => {
                type $t = i64;
                $body
            }
            $crate::DType::F16 => {
                type $t = half::f16;
                $body
            }
            $crate::DType::BF16 => {
                type $t = half::bf16;
                $body
            }
            $crate::DType::F32 => {
                type $t = f32;
                $body
            }
            $crate::DType::F64 => {
                type $t = f64;
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
}

impl Scalar {
    /// What kind of number it is.
    pub fn category(self) -> Category {
        match self {
            Scalar::Bool(_) => Category::Bool,
            Scalar::Int(_) => Category::Int,
            Scalar::Float(_) => Category::Float,
        }
    }

    /// As f64 (integers above 2^53 round).
    pub fn as_f64(self) -> f64 {
        match self {
            Scalar::Bool(b) => f64::from(u8::from(b)),
            Scalar::Int(i) => i as f64,
            Scalar::Float(f) => f,
        }
    }

    /// As i64: floats truncate towards zero and saturate, NaN is 0.
    pub fn as_i64(self) -> i64 {
        match self {
            Scalar::Bool(b) => i64::from(b),
            Scalar::Int(i) => i,
            Scalar::Float(f) => f as i64,
        }
    }

    /// As bool: zero is false, all else true.
    pub fn as_bool(self) -> bool {
        match self {
            Scalar::Bool(b) => b,
            Scalar::Int(i) => i != 0,
            Scalar::Float(f) => f != 0.0,
        }
    }

    /// The value as it would be stored in an element of `dtype`.
    pub fn cast(self, dtype: DType) -> Scalar {
        match dtype {
            Bool => Scalar::Bool(self.as_bool()),
            U8 => Scalar::Int(i64::from(match self {
                Scalar::Float(f) => f as u8,
                s => s.as_i64() as u8,
            })),
            I32 => Scalar::Int(i64::from(match self {
                Scalar::Float(f) => f as i32,
                s => s.as_i64() as i32,
            })),
            I64 => Scalar::Int(self.as_i64()),
            F16 => Scalar::Float(half::f16::from_f64(self.as_f64()).into()),
            BF16 => Scalar::Float(half::bf16::from_f64(self.as_f64()).into()),
            F32 => Scalar::Float(f64::from(self.as_f64() as f32)),
            F64 => Scalar::Float(self.as_f64()),
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
        }
    }

    fn key(self) -> (u8, u64) {
        match self {
            Scalar::Bool(b) => (0, u64::from(b)),
            Scalar::Int(i) => (1, i as u64),
            Scalar::Float(f) => (2, f.to_bits()),
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
        s.parse().map(Scalar::Float).map_err(|_| format!("`{s}` is not a number"))
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
    u8 => |x| Scalar::Int(x.into());
    f32 => |x| Scalar::Float(x.into());
    f64 => |x| Scalar::Float(x);
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
