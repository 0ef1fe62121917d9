//! Conversions between types of number.

use super::{Layout, Piece};
use crate::simd::vectorize;
use crate::view::{Dst, Element, Ends, Src, numel};
use half::{bf16, f16};

/// Conversion of one number to type `U`.
///
/// * To a floating-point type: the nearest number, halves to even. `f16` and
///   `bf16` are reached through `f32`, so `f64` and integers beyond 2^24 round
///   twice, as they do in PyTorch.
/// * From a floating-point type to an integer: towards zero; what the integer
///   cannot hold becomes the nearest it can, and NaN becomes 0.
/// * Between integers: the low bits.
///
/// Types that are only stored (`i8`, `u16`, `i16`, `u32`, `u64`) convert directly from
/// floats and to and from `i32` or `i64`.
pub trait Cast<U>: Element {
    /// The number as a `U`.
    fn cast(self) -> U;
    /// [`cast`](fn@cast), compiled in this crate.
    #[doc(hidden)]
    fn cast_all(x: Src<Self>, out: Dst<U>);
}

macro_rules! casts {
    ($($from:ty => $($to:ty),*;)*) => {$($(
        impl Cast<$to> for $from {
            #[inline(always)]
            fn cast(self) -> $to {
                self as $to
            }
            #[inline(never)]
            fn cast_all(x: Src<Self>, out: Dst<$to>) {
                convert(x, out, <Self as Cast<$to>>::cast);
            }
        }
    )*)*};
}
casts! {
    f32 => f32, f64;
    f64 => f32, f64;
    i64 => f32, f64, i64, i32, u8;
    i32 => f32, f64, i64, i32, u8;
    u8 => f32, f64, i64, i32, u8;
    // Types that are only stored, from and to the types that are computed in.
    i8 => i64, i32;
    i16 => i64, i32;
    u16 => i64, i32;
    u32 => i64;
    u64 => i64, f64;
    i32 => i8, i16, u16;
    i64 => i8, i16, u16, u32, u64;
}

/// What `as` does, in operations that the compiler turns into vectors.
macro_rules! float_to_int {
    ($($from:ty => $($to:ty: $low:expr, $beyond:expr),*;)*) => {$($(
        impl Cast<$to> for $from {
            #[inline(always)]
            fn cast(self) -> $to {
                // NaN is not below anything and becomes zero.
                let inside = if self < $beyond { self } else { 0.0 };
                let inside = if inside > $low { inside } else { $low };
                // SAFETY: not NaN, and within the integer's range.
                let v = unsafe { inside.to_int_unchecked::<$to>() };
                if self >= $beyond { <$to>::MAX } else { v }
            }
            #[inline(never)]
            fn cast_all(x: Src<Self>, out: Dst<$to>) {
                convert(x, out, <Self as Cast<$to>>::cast);
            }
        }
    )*)*};
}
float_to_int! {
    f32 => i64: -TWO_63 as f32, TWO_63 as f32, i32: -TWO_31 as f32, TWO_31 as f32, u8: 0.0, 256.0;
    f64 => i64: -TWO_63, TWO_63, i32: -TWO_31, TWO_31, u8: 0.0, 256.0;
    f32 => i8: -128.0, 128.0, i16: -32768.0, 32768.0, u16: 0.0, 65536.0;
    f32 => u32: 0.0, TWO_32 as f32, u64: 0.0, TWO_64 as f32;
    f64 => i8: -128.0, 128.0, i16: -32768.0, 32768.0, u16: 0.0, 65536.0;
    f64 => u32: 0.0, TWO_32, u64: 0.0, TWO_64;
}
const TWO_32: f64 = (1u64 << 32) as f64;
const TWO_64: f64 = TWO_32 * TWO_32;
const TWO_31: f64 = (1u64 << 31) as f64;
const TWO_63: f64 = (1u64 << 63) as f64;

macro_rules! half_casts {
    ($half:ty, $widen:ident, $narrow:ident: $($t:ty),*) => {$(
        impl Cast<$t> for $half {
            #[inline(always)]
            fn cast(self) -> $t {
                <f32 as Cast<$t>>::cast($widen(self))
            }
            #[inline(never)]
            fn cast_all(x: Src<Self>, out: Dst<$t>) {
                convert(x, out, <Self as Cast<$t>>::cast);
            }
        }
        impl Cast<$half> for $t {
            #[inline(always)]
            fn cast(self) -> $half {
                $narrow(self as f32)
            }
            #[inline(never)]
            fn cast_all(x: Src<Self>, out: Dst<$half>) {
                convert(x, out, <Self as Cast<$half>>::cast);
            }
        }
    )*};
}
half_casts!(f16, widen_f16, narrow_f16: f32, f64, i64, i32, u8);
half_casts!(bf16, widen_bf16, narrow_bf16: f32, f64, i64, i32, u8);

impl Cast<f16> for f16 {
    #[inline(always)]
    fn cast(self) -> f16 {
        self
    }
    #[inline(never)]
    fn cast_all(x: Src<Self>, out: Dst<f16>) {
        convert(x, out, <Self as Cast<f16>>::cast);
    }
}

impl Cast<bf16> for bf16 {
    #[inline(always)]
    fn cast(self) -> bf16 {
        self
    }
    #[inline(never)]
    fn cast_all(x: Src<Self>, out: Dst<bf16>) {
        convert(x, out, <Self as Cast<bf16>>::cast);
    }
}

impl Cast<bf16> for f16 {
    #[inline(always)]
    fn cast(self) -> bf16 {
        narrow_bf16(widen_f16(self))
    }
    #[inline(never)]
    fn cast_all(x: Src<Self>, out: Dst<bf16>) {
        convert(x, out, <Self as Cast<bf16>>::cast);
    }
}

impl Cast<f16> for bf16 {
    #[inline(always)]
    fn cast(self) -> f16 {
        narrow_f16(widen_bf16(self))
    }
    #[inline(never)]
    fn cast_all(x: Src<Self>, out: Dst<f16>) {
        convert(x, out, <Self as Cast<f16>>::cast);
    }
}

// Conversions of the half types in integer arithmetic, which vectorises at every
// level and needs no instruction that a machine may lack.

#[inline(always)]
fn widen_bf16(v: bf16) -> f32 {
    f32::from_bits(u32::from(v.to_bits()) << 16)
}

#[inline(always)]
fn narrow_bf16(v: f32) -> bf16 {
    let bits = v.to_bits();
    let rounded = bits.wrapping_add(0x7fff + ((bits >> 16) & 1));
    // NaN stays NaN: quiet, whatever its low bits were.
    bf16::from_bits(if v.is_nan() { (bits >> 16) as u16 | 0x40 } else { (rounded >> 16) as u16 })
}

#[inline(always)]
fn widen_f16(v: f16) -> f32 {
    let bits = u32::from(v.to_bits());
    let (sign, magnitude) = ((bits & 0x8000) << 16, bits & 0x7fff);
    let exponent_gap = match magnitude {
        // Infinity and NaN keep the highest exponent.
        0x7c00.. => 224 << 23,
        _ => 112 << 23,
    };
    let normal = (magnitude << 13) + exponent_gap;
    // Below 2^-14 the number is a count of 2^-24.
    let small = (magnitude as i32 as f32 * f32::from_bits(0x3380_0000)).to_bits();
    f32::from_bits(sign | if magnitude < 0x400 { small } else { normal })
}

#[inline(always)]
fn narrow_f16(v: f32) -> f16 {
    let bits = v.to_bits();
    let (sign, magnitude) = ((bits >> 16) & 0x8000, bits & 0x7fff_ffff);
    // Shift the exponent's bias by 112 and drop 13 bits; from 65520 on this
    // rounds up to infinity by itself, up to 2^16.
    let odd = (magnitude >> 13) & 1;
    let normal = magnitude.wrapping_add(0xfff + odd).wrapping_sub(112 << 23) >> 13;
    // Below 2^-14: beside 0.5 the last place of an f32 is 2^-24, that of an f16.
    let half = 0.5f32.to_bits();
    let small = (f32::from_bits(magnitude) + 0.5).to_bits().wrapping_sub(half);
    let large = if magnitude > 0x7f80_0000 { 0x7e00 } else { 0x7c00 };
    let rounded = if magnitude >= 0x4780_0000 {
        large
    } else if magnitude < 0x3880_0000 {
        small
    } else {
        normal
    };
    f16::from_bits((sign | rounded) as u16)
}

/// `out = x`, each number converted as [`Cast`] says. A boolean is a `u8` of 0 or 1.
///
/// # Panics
/// If the shapes differ.
pub fn cast<T: Cast<U>, U: Element>(x: Src<T>, out: Dst<U>) {
    T::cast_all(x, out);
}

/// `out = 1` where `x` is not zero (NaN is not), else 0. Integers go by the unsigned
/// integer of their size.
///
/// # Panics
/// If the shapes differ.
pub fn to_bool<T: Element + CastKernels>(x: Src<T>, out: Dst<u8>) {
    T::to_bool_kernel(x, out)
}

crate::instances::instances!(CastKernels for f32, f64, f16, bf16, u8, u16, u32, u64 => {
    fn to_bool_kernel(x: Src<Self>, out: Dst<u8>) = to_bool_of;
});

fn to_bool_of<T: Element>(x: Src<T>, out: Dst<u8>) {
    convert(
        x,
        out,
        #[inline(always)]
        |v| u8::from(v != T::ZERO),
    );
}

#[inline(always)]
fn convert<T: Element, U: Element>(x: Src<T>, out: Dst<U>, f: impl Fn(T) -> U + Copy + Sync) {
    let l = Layout::of(&x, &out);
    if numel(out.shape) == 0 {
        return;
    }
    l.for_pieces([size_of::<T>(), size_of::<U>()], Ends::of(&x, &out), &|p: Piece| {
        let (x, out, n) = (p.at.x.cast::<T>(), p.at.out.cast::<U>(), p.len);
        let (sx, so) = (p.step_x, p.step_out);
        vectorize(
            #[inline(always)]
            move || {
                // SAFETY: `n` elements at these strides lie within the views.
                unsafe {
                    if (sx, so) == (1, 1) {
                        for i in 0..n {
                            *out.add(i) = f(*x.add(i));
                        }
                    } else {
                        for i in 0..n as isize {
                            *out.offset(i * so) = f(*x.offset(i * sx));
                        }
                    }
                }
            },
        );
    });
}
