//! Sixteen `f32` in AVX-512 and AVX2 registers.

use super::{RealVector, Vector};
use crate::math::{self, Lane};
use std::arch::x86_64::*;

/// One AVX-512 register.
#[derive(Clone, Copy)]
pub struct F32x16V4(__m512);

/// Two AVX2 registers.
#[derive(Clone, Copy)]
pub struct F32x16V3(__m256, __m256);

/// An expression of intrinsics.
macro_rules! x86 {
    ($e:expr) => {
        // SAFETY: vectors are created only by tasks, which `run` compiles for and
        // runs at a level that has these instructions; for memory, the caller vouches.
        unsafe { $e }
    };
}

/// Mask of the first `n` < 16 lanes.
#[inline(always)]
fn first_lanes(n: usize) -> __mmask16 {
    ((1u32 << n) - 1) as __mmask16
}

/// `r`, but NaN where `a` is. The hardware's maximum gives its second operand
/// where either is NaN, so only a NaN in the first is lost.
#[inline(always)]
fn keep_nan(r: __m512, a: __m512) -> __m512 {
    // Two bits... for each class of `a`: for NaN, the quieted `a`; else `r`.
    x86!(_mm512_fixupimm_ps::<0>(r, a, _mm512_set1_epi32(0x22)))
}

impl Vector for F32x16V4 {
    type Elem = f32;
    const REGISTERS: usize = 1;

    #[inline(always)]
    fn splat(v: f32) -> Self {
        x86!(Self(_mm512_set1_ps(v)))
    }
    #[inline(always)]
    unsafe fn load(p: *const f32) -> Self {
        x86!(Self(_mm512_loadu_ps(p)))
    }
    #[inline(always)]
    unsafe fn load_part(p: *const f32, n: usize, rest: f32) -> Self {
        x86!(Self(_mm512_mask_loadu_ps(_mm512_set1_ps(rest), first_lanes(n), p)))
    }
    #[inline(always)]
    unsafe fn store(self, p: *mut f32) {
        x86!(_mm512_storeu_ps(p, self.0))
    }
    #[inline(always)]
    unsafe fn store_part(self, p: *mut f32, n: usize) {
        x86!(_mm512_mask_storeu_ps(p, first_lanes(n), self.0))
    }
    #[inline(always)]
    fn down<const K: usize>(self) -> Self {
        let v = self.0;
        x86!(Self(match K {
            8 => _mm512_shuffle_f32x4::<0b11_10_11_10>(v, v),
            4 => _mm512_shuffle_f32x4::<0b11_11_11_01>(v, v),
            2 => _mm512_permute_ps::<0b11_10_11_10>(v),
            _ => _mm512_permute_ps::<0b11_11_11_01>(v),
        }))
    }
    #[inline(always)]
    fn first(self) -> f32 {
        x86!(_mm512_cvtss_f32(self.0))
    }
    #[inline(always)]
    fn add(self, o: Self) -> Self {
        Lane::add(self, o)
    }
    #[inline(always)]
    fn mul(self, o: Self) -> Self {
        Lane::mul(self, o)
    }
    #[inline(always)]
    fn max(self, o: Self) -> Self {
        x86!(Self(keep_nan(_mm512_max_ps(self.0, o.0), self.0)))
    }
    #[inline(always)]
    fn min(self, o: Self) -> Self {
        x86!(Self(keep_nan(_mm512_min_ps(self.0, o.0), self.0)))
    }
    #[inline(always)]
    fn even(self, o: Self) -> Self {
        x86!({
            let at = _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
            Self(_mm512_permutex2var_ps(self.0, at, o.0))
        })
    }
    #[inline(always)]
    fn interleave(self, o: Self) -> (Self, Self) {
        x86!({
            let low = _mm512_setr_epi32(0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
            let high = _mm512_add_epi32(low, _mm512_set1_epi32(8));
            let mix = |at| Self(_mm512_permutex2var_ps(self.0, at, o.0));
            (mix(low), mix(high))
        })
    }
    #[inline(always)]
    fn if_above(self, o: Self, a: Self, b: Self) -> Self {
        x86!({
            let above = _mm512_cmp_ps_mask::<_CMP_GT_OQ>(self.0, o.0);
            let nan = _mm512_cmp_ps_mask::<_CMP_UNORD_Q>(self.0, self.0);
            Self(_mm512_mask_blend_ps(above | nan, b.0, a.0))
        })
    }
    #[inline(always)]
    fn if_equal(self, o: Self, a: Self, b: Self) -> Self {
        x86!({
            let equal = _mm512_cmp_ps_mask::<_CMP_EQ_OQ>(self.0, o.0);
            Self(_mm512_mask_blend_ps(equal, b.0, a.0))
        })
    }
}

impl Vector for F32x16V3 {
    type Elem = f32;
    const REGISTERS: usize = 2;

    #[inline(always)]
    fn splat(v: f32) -> Self {
        x86!(Self(_mm256_set1_ps(v), _mm256_set1_ps(v)))
    }
    #[inline(always)]
    unsafe fn load(p: *const f32) -> Self {
        x86!(Self(_mm256_loadu_ps(p), _mm256_loadu_ps(p.add(8))))
    }
    #[inline(always)]
    unsafe fn load_part(p: *const f32, n: usize, rest: f32) -> Self {
        x86!({
            let rest = _mm256_set1_ps(rest);
            let part = |p, from| {
                let m = lanes_below(n, from);
                _mm256_blendv_ps(rest, _mm256_maskload_ps(p, m), _mm256_castsi256_ps(m))
            };
            Self(part(p, 0), part(p.wrapping_add(8), 8))
        })
    }
    #[inline(always)]
    unsafe fn store(self, p: *mut f32) {
        x86!({
            _mm256_storeu_ps(p, self.0);
            _mm256_storeu_ps(p.add(8), self.1);
        })
    }
    #[inline(always)]
    unsafe fn store_part(self, p: *mut f32, n: usize) {
        x86!({
            _mm256_maskstore_ps(p, lanes_below(n, 0), self.0);
            _mm256_maskstore_ps(p.wrapping_add(8), lanes_below(n, 8), self.1);
        })
    }
    #[inline(always)]
    fn down<const K: usize>(self) -> Self {
        let Self(a, b) = self;
        x86!(match K {
            8 => Self(b, b),
            4 => Self(_mm256_permute2f128_ps::<0x11>(a, a), b),
            2 => Self(_mm256_permute_ps::<0b11_10_11_10>(a), b),
            _ => Self(_mm256_permute_ps::<0b11_11_11_01>(a), b),
        })
    }
    #[inline(always)]
    fn first(self) -> f32 {
        x86!(_mm256_cvtss_f32(self.0))
    }
    #[inline(always)]
    fn add(self, o: Self) -> Self {
        Lane::add(self, o)
    }
    #[inline(always)]
    fn mul(self, o: Self) -> Self {
        Lane::mul(self, o)
    }
    #[inline(always)]
    fn max(self, o: Self) -> Self {
        math::maximum(self, o)
    }
    #[inline(always)]
    fn min(self, o: Self) -> Self {
        math::minimum(self, o)
    }
    #[inline(always)]
    fn even(self, o: Self) -> Self {
        let half = |a, b| {
            x86!({
                // Quarters of a, b, a, b.
                let v = _mm256_shuffle_ps::<0b10_00_10_00>(a, b);
                _mm256_castpd_ps(_mm256_permute4x64_pd::<0b11_01_10_00>(_mm256_castps_pd(v)))
            })
        };
        Self(half(self.0, self.1), half(o.0, o.1))
    }
    #[inline(always)]
    fn interleave(self, o: Self) -> (Self, Self) {
        let both = |a, b| {
            x86!({
                let (low, high) = (_mm256_unpacklo_ps(a, b), _mm256_unpackhi_ps(a, b));
                Self(
                    _mm256_permute2f128_ps::<0x20>(low, high),
                    _mm256_permute2f128_ps::<0x31>(low, high),
                )
            })
        };
        (both(self.0, o.0), both(self.1, o.1))
    }
    #[inline(always)]
    fn if_above(self, o: Self, a: Self, b: Self) -> Self {
        let half = |v, o, a, b| {
            x86!({
                let above = _mm256_cmp_ps::<_CMP_GT_OQ>(v, o);
                let nan = _mm256_cmp_ps::<_CMP_UNORD_Q>(v, v);
                _mm256_blendv_ps(b, a, _mm256_or_ps(above, nan))
            })
        };
        Self(half(self.0, o.0, a.0, b.0), half(self.1, o.1, a.1, b.1))
    }
    #[inline(always)]
    fn if_equal(self, o: Self, a: Self, b: Self) -> Self {
        let half = |v, o, a, b| x86!(_mm256_blendv_ps(b, a, _mm256_cmp_ps::<_CMP_EQ_OQ>(v, o)));
        Self(half(self.0, o.0, a.0, b.0), half(self.1, o.1, a.1, b.1))
    }
}

/// All ones in those of the lanes `from`..`from + 8` that are below `n`.
#[inline(always)]
fn lanes_below(n: usize, from: i32) -> __m256i {
    x86!({
        let lane = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
        _mm256_cmpgt_epi32(_mm256_set1_epi32(n as i32 - from), lane)
    })
}

macro_rules! real_vector {
    ($($t:ty),*) => {$(
        impl RealVector for $t {
            #[inline(always)]
            fn sub(self, o: Self) -> Self {
                Lane::sub(self, o)
            }
            #[inline(always)]
            fn div(self, o: Self) -> Self {
                Lane::div(self, o)
            }
            #[inline(always)]
            fn fma(self, m: Self, a: Self) -> Self {
                Lane::fma(self, m, a)
            }
            #[inline(always)]
            fn sqrt(self) -> Self {
                Lane::sqrt(self)
            }
            #[inline(always)]
            fn exp(self) -> Self {
                math::exp(self)
            }
            #[inline(always)]
            fn tanh(self) -> Self {
                math::tanh(self)
            }
            #[inline(always)]
            fn sigmoid(self) -> Self {
                math::sigmoid(self)
            }
        }
    )*};
}
real_vector!(F32x16V4, F32x16V3);

const SIGN: i32 = i32::MIN;

impl Lane for F32x16V4 {
    type Mask = __mmask16;

    #[inline(always)]
    fn lit(self, v: f32) -> Self {
        Self::splat(v)
    }
    #[inline(always)]
    fn add(self, o: Self) -> Self {
        x86!(Self(_mm512_add_ps(self.0, o.0)))
    }
    #[inline(always)]
    fn sub(self, o: Self) -> Self {
        x86!(Self(_mm512_sub_ps(self.0, o.0)))
    }
    #[inline(always)]
    fn mul(self, o: Self) -> Self {
        x86!(Self(_mm512_mul_ps(self.0, o.0)))
    }
    #[inline(always)]
    fn div(self, o: Self) -> Self {
        x86!(Self(_mm512_div_ps(self.0, o.0)))
    }
    #[inline(always)]
    fn fma(self, m: Self, a: Self) -> Self {
        x86!(Self(_mm512_fmadd_ps(self.0, m.0, a.0)))
    }
    #[inline(always)]
    fn fnma(self, m: Self, a: Self) -> Self {
        x86!(Self(_mm512_fnmadd_ps(self.0, m.0, a.0)))
    }
    #[inline(always)]
    fn min(self, o: Self) -> Self {
        x86!(Self(_mm512_min_ps(self.0, o.0)))
    }
    #[inline(always)]
    fn max(self, o: Self) -> Self {
        x86!(Self(_mm512_max_ps(self.0, o.0)))
    }
    #[inline(always)]
    fn neg(self) -> Self {
        x86!(Self(_mm512_xor_ps(self.0, _mm512_castsi512_ps(_mm512_set1_epi32(SIGN)))))
    }
    #[inline(always)]
    fn abs(self) -> Self {
        x86!(Self(_mm512_andnot_ps(_mm512_castsi512_ps(_mm512_set1_epi32(SIGN)), self.0)))
    }
    #[inline(always)]
    fn copysign(self, s: Self) -> Self {
        x86!({
            let sign = _mm512_castsi512_ps(_mm512_set1_epi32(SIGN));
            Self(_mm512_or_ps(_mm512_andnot_ps(sign, self.0), _mm512_and_ps(sign, s.0)))
        })
    }
    #[inline(always)]
    fn round(self) -> Self {
        x86!(Self(_mm512_roundscale_ps::<_MM_FROUND_TO_NEAREST_INT>(self.0)))
    }
    #[inline(always)]
    fn floor(self) -> Self {
        x86!(Self(_mm512_roundscale_ps::<_MM_FROUND_TO_NEG_INF>(self.0)))
    }
    #[inline(always)]
    fn ceil(self) -> Self {
        x86!(Self(_mm512_roundscale_ps::<_MM_FROUND_TO_POS_INF>(self.0)))
    }
    #[inline(always)]
    fn trunc(self) -> Self {
        x86!(Self(_mm512_roundscale_ps::<_MM_FROUND_TO_ZERO>(self.0)))
    }
    #[inline(always)]
    fn sqrt(self) -> Self {
        x86!(Self(_mm512_sqrt_ps(self.0)))
    }
    #[inline(always)]
    fn ldexp(self, n: Self) -> Self {
        x86!(Self(_mm512_scalef_ps(self.0, n.0)))
    }
    #[inline(always)]
    fn split(self) -> (Self, Self) {
        x86!({
            let bits = _mm512_castps_si512(self.0);
            let e = _mm512_srai_epi32::<23>(_mm512_sub_epi32(bits, _mm512_set1_epi32(0x3f2a_aaab)));
            let m = _mm512_sub_epi32(bits, _mm512_slli_epi32::<23>(e));
            (Self(_mm512_castsi512_ps(m)), Self(_mm512_cvtepi32_ps(e)))
        })
    }
    #[inline(always)]
    fn lt(self, o: Self) -> __mmask16 {
        x86!(_mm512_cmp_ps_mask::<_CMP_LT_OQ>(self.0, o.0))
    }
    #[inline(always)]
    fn eq(self, o: Self) -> __mmask16 {
        x86!(_mm512_cmp_ps_mask::<_CMP_EQ_OQ>(self.0, o.0))
    }
    #[inline(always)]
    fn select(m: __mmask16, a: Self, b: Self) -> Self {
        x86!(Self(_mm512_mask_blend_ps(m, b.0, a.0)))
    }
}

/// Applies an intrinsic to both halves.
macro_rules! both {
    (|$($v:ident),*| $e:expr) => {
        x86!(Self({ $(let $v = $v.0;)* $e }, { $(let $v = $v.1;)* $e }))
    };
}

impl Lane for F32x16V3 {
    type Mask = (__m256, __m256);

    #[inline(always)]
    fn lit(self, v: f32) -> Self {
        Self::splat(v)
    }
    #[inline(always)]
    fn add(self, o: Self) -> Self {
        let a = self;
        both!(|a, o| _mm256_add_ps(a, o))
    }
    #[inline(always)]
    fn sub(self, o: Self) -> Self {
        let a = self;
        both!(|a, o| _mm256_sub_ps(a, o))
    }
    #[inline(always)]
    fn mul(self, o: Self) -> Self {
        let a = self;
        both!(|a, o| _mm256_mul_ps(a, o))
    }
    #[inline(always)]
    fn div(self, o: Self) -> Self {
        let a = self;
        both!(|a, o| _mm256_div_ps(a, o))
    }
    #[inline(always)]
    fn fma(self, m: Self, c: Self) -> Self {
        let a = self;
        both!(|a, m, c| _mm256_fmadd_ps(a, m, c))
    }
    #[inline(always)]
    fn fnma(self, m: Self, c: Self) -> Self {
        let a = self;
        both!(|a, m, c| _mm256_fnmadd_ps(a, m, c))
    }
    #[inline(always)]
    fn min(self, o: Self) -> Self {
        let a = self;
        both!(|a, o| _mm256_min_ps(a, o))
    }
    #[inline(always)]
    fn max(self, o: Self) -> Self {
        let a = self;
        both!(|a, o| _mm256_max_ps(a, o))
    }
    #[inline(always)]
    fn neg(self) -> Self {
        let a = self;
        both!(|a| _mm256_xor_ps(a, _mm256_castsi256_ps(_mm256_set1_epi32(SIGN))))
    }
    #[inline(always)]
    fn abs(self) -> Self {
        let a = self;
        both!(|a| _mm256_andnot_ps(_mm256_castsi256_ps(_mm256_set1_epi32(SIGN)), a))
    }
    #[inline(always)]
    fn copysign(self, s: Self) -> Self {
        let a = self;
        both!(|a, s| {
            let sign = _mm256_castsi256_ps(_mm256_set1_epi32(SIGN));
            _mm256_or_ps(_mm256_andnot_ps(sign, a), _mm256_and_ps(sign, s))
        })
    }
    #[inline(always)]
    fn round(self) -> Self {
        let a = self;
        both!(|a| _mm256_round_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(a))
    }
    #[inline(always)]
    fn floor(self) -> Self {
        let a = self;
        both!(|a| _mm256_floor_ps(a))
    }
    #[inline(always)]
    fn ceil(self) -> Self {
        let a = self;
        both!(|a| _mm256_ceil_ps(a))
    }
    #[inline(always)]
    fn trunc(self) -> Self {
        let a = self;
        both!(|a| _mm256_round_ps::<{ _MM_FROUND_TO_ZERO | _MM_FROUND_NO_EXC }>(a))
    }
    #[inline(always)]
    fn sqrt(self) -> Self {
        let a = self;
        both!(|a| _mm256_sqrt_ps(a))
    }
    #[inline(always)]
    fn ldexp(self, n: Self) -> Self {
        let a = self;
        // As for a single number: two factors, so that only the second rounds.
        both!(|a, n| {
            let n = _mm256_cvtps_epi32(n);
            let h = _mm256_srai_epi32::<1>(n);
            let bias = _mm256_set1_epi32(127);
            let power = |e| _mm256_castsi256_ps(_mm256_slli_epi32::<23>(_mm256_add_epi32(e, bias)));
            _mm256_mul_ps(_mm256_mul_ps(a, power(h)), power(_mm256_sub_epi32(n, h)))
        })
    }
    #[inline(always)]
    fn split(self) -> (Self, Self) {
        let a = self;
        let e = both!(|a| {
            let above = _mm256_sub_epi32(_mm256_castps_si256(a), _mm256_set1_epi32(0x3f2a_aaab));
            _mm256_castsi256_ps(_mm256_srai_epi32::<23>(above))
        });
        let m = both!(|a, e| {
            let power = _mm256_slli_epi32::<23>(_mm256_castps_si256(e));
            _mm256_castsi256_ps(_mm256_sub_epi32(_mm256_castps_si256(a), power))
        });
        (m, both!(|e| _mm256_cvtepi32_ps(_mm256_castps_si256(e))))
    }
    #[inline(always)]
    fn lt(self, o: Self) -> (__m256, __m256) {
        let a = self;
        let m: Self = both!(|a, o| _mm256_cmp_ps::<_CMP_LT_OQ>(a, o));
        (m.0, m.1)
    }
    #[inline(always)]
    fn eq(self, o: Self) -> (__m256, __m256) {
        let a = self;
        let m: Self = both!(|a, o| _mm256_cmp_ps::<_CMP_EQ_OQ>(a, o));
        (m.0, m.1)
    }
    #[inline(always)]
    fn select(m: (__m256, __m256), a: Self, b: Self) -> Self {
        both!(|m, a, b| _mm256_blendv_ps(b, a, m))
    }
}
