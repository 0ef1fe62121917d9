//! Vector mathematics: one definition of each f32 function, for every width.
//!
//! A function here is written once over [`Lane`], the few operations that every
//! target has. With `f32` as the lane, the compiler's vectoriser turns it into
//! the eager kernels of [`crate::pointwise`]; with the code generator's
//! expression builder as the lane, the same lines become the body of a fused
//! kernel. Both therefore give the same numbers, bit for bit.
//!
//! The polynomials are minimax fits made for these intervals with the Remez
//! exchange algorithm in 40-digit arithmetic. Error bounds, in units in the last
//! place against the exactly rounded result, are stated with each function and
//! held by this module's tests.

/// What a target must offer to evaluate the functions of this module.
///
/// All operations act on each element alone and round once, as IEEE 754 says.
pub trait Lane: Copy {
    /// The truth values of a comparison.
    type Mask: Copy;

    /// The constant `v` (in every lane).
    fn lit(self, v: f32) -> Self;
    /// `self + o`.
    fn add(self, o: Self) -> Self;
    /// `self - o`.
    fn sub(self, o: Self) -> Self;
    /// `self * o`.
    fn mul(self, o: Self) -> Self;
    /// `self / o`.
    fn div(self, o: Self) -> Self;
    /// `self * m + a`, rounded once.
    fn fma(self, m: Self, a: Self) -> Self;
    /// The smaller; where either is NaN, `o`.
    fn min(self, o: Self) -> Self;
    /// The larger; where either is NaN, `o`.
    fn max(self, o: Self) -> Self;
    /// `-self`.
    fn neg(self) -> Self;
    /// `|self|`.
    fn abs(self) -> Self;
    /// The magnitude of `self` with the sign of `s`.
    fn copysign(self, s: Self) -> Self;
    /// The nearest integer, halves to even.
    fn round(self) -> Self;
    /// The largest integer not above.
    fn floor(self) -> Self;
    /// The smallest integer not below.
    fn ceil(self) -> Self;
    /// The integer next towards zero.
    fn trunc(self) -> Self;
    /// The square root.
    fn sqrt(self) -> Self;
    /// `self * 2^n` for an integral `n` in [-300, 300], rounded once.
    fn ldexp(self, n: Self) -> Self;
    /// `(m, e)` with `self = m * 2^e` and `m` in [2/3, 4/3), for a normal positive
    /// `self`; anything otherwise.
    fn split(self) -> (Self, Self);
    /// `self < o`.
    fn lt(self, o: Self) -> Self::Mask;
    /// `self == o`.
    fn eq(self, o: Self) -> Self::Mask;
    /// `a` where the mask is true, else `b`.
    fn select(m: Self::Mask, a: Self, b: Self) -> Self;

    /// `a - self * m`, rounded once.
    #[inline(always)]
    fn fnma(self, m: Self, a: Self) -> Self {
        self.neg().fma(m, a)
    }
}

impl Lane for f32 {
    type Mask = bool;
    #[inline(always)]
    fn lit(self, v: f32) -> f32 {
        v
    }
    #[inline(always)]
    fn add(self, o: f32) -> f32 {
        self + o
    }
    #[inline(always)]
    fn sub(self, o: f32) -> f32 {
        self - o
    }
    #[inline(always)]
    fn mul(self, o: f32) -> f32 {
        self * o
    }
    #[inline(always)]
    fn div(self, o: f32) -> f32 {
        self / o
    }
    #[inline(always)]
    fn fma(self, m: f32, a: f32) -> f32 {
        self.mul_add(m, a)
    }
    #[inline(always)]
    fn min(self, o: f32) -> f32 {
        if self < o { self } else { o }
    }
    #[inline(always)]
    fn max(self, o: f32) -> f32 {
        if self > o { self } else { o }
    }
    #[inline(always)]
    fn neg(self) -> f32 {
        -self
    }
    #[inline(always)]
    fn abs(self) -> f32 {
        f32::abs(self)
    }
    #[inline(always)]
    fn copysign(self, s: f32) -> f32 {
        f32::copysign(self, s)
    }
    #[inline(always)]
    fn round(self) -> f32 {
        self.round_ties_even()
    }
    #[inline(always)]
    fn floor(self) -> f32 {
        f32::floor(self)
    }
    #[inline(always)]
    fn ceil(self) -> f32 {
        f32::ceil(self)
    }
    #[inline(always)]
    fn trunc(self) -> f32 {
        f32::trunc(self)
    }
    #[inline(always)]
    fn sqrt(self) -> f32 {
        f32::sqrt(self)
    }
    #[inline(always)]
    fn ldexp(self, n: f32) -> f32 {
        // Adding 1.5 * 2^23 leaves the integer in the low bits: one vector add
        // where a conversion would have to mind NaN. Two factors keep the first
        // product normal, so only the second rounds.
        let n = (n + 12_582_912.0).to_bits() as i32;
        let n = n.wrapping_sub(0x4b40_0000);
        let h = n >> 1;
        let pow2 = |e: i32| f32::from_bits((e.wrapping_add(127) << 23) as u32);
        self * pow2(h) * pow2(n.wrapping_sub(h))
    }
    #[inline(always)]
    fn split(self) -> (f32, f32) {
        let bits = self.to_bits() as i32;
        let e = bits.wrapping_sub(0x3f2a_aaab) >> 23;
        (f32::from_bits(bits.wrapping_sub(e << 23) as u32), e as f32)
    }
    #[inline(always)]
    fn lt(self, o: f32) -> bool {
        self < o
    }
    #[inline(always)]
    fn eq(self, o: f32) -> bool {
        self == o
    }
    #[inline(always)]
    fn select(m: bool, a: f32, b: f32) -> f32 {
        if m { a } else { b }
    }
}

const LOG2E: f32 = std::f32::consts::LOG2_E;
// ln 2 in two parts; the first has 9 trailing zero bits, so n * HI is exact.
const LN2_HI: f32 = 0.693_359_4;
const LN2_LO: f32 = -2.121_944_4e-4;
// e^r = 1 + r + r^2 P(r) on |r| <= ln2 / 2, relative error 3.1e-9.
const EXP: [f32; 5] = [0.5, 0.166_665_18, 0.041_666_206, 0.008_368_918, 0.001_395_054_2];
// ln(1+z) = z - z^2/2 + z^3 P(z) on [-1/3, 1/3], relative error 4.6e-9.
const LOG: [f32; 8] = [
    0.333_332_15,
    -0.249_997_97,
    0.200_104_06,
    -0.166_804_88,
    0.140_058_68,
    -0.121_842_47,
    0.139_844_43,
    -0.128_917_49,
];
// erf(x) = x + x P(x^2) on [0, 0.93], relative error 4.6e-10.
const ERF_SMALL: [f32; 7] = [
    0.128_379_17,
    -0.376_126_32,
    0.112_836_875,
    -0.026_858_94,
    0.005_199_907,
    -8.130_013e-4,
    8.316_776e-5,
];
const ERF_SPLIT: f32 = 0.925;
// -ln(1 - erf(x)) on [0.92, 4], error relative to erf 1.5e-9.
const ERF_LARGE: [f32; 7] = [
    1.956_818e-4,
    1.127_675_7,
    0.637_182_3,
    0.103_931_546,
    -0.022_226_894,
    0.003_043_210_6,
    -1.959_364_6e-4,
];

#[inline(always)]
fn horner<V: Lane>(x: V, c: &[f32]) -> V {
    let (last, rest) = c.split_last().expect("a polynomial has a coefficient");
    let mut p = x.lit(*last);
    for &k in rest.iter().rev() {
        p = p.fma(x, x.lit(k));
    }
    p
}

/// The larger; NaN where either is NaN.
#[inline(always)]
pub fn maximum<V: Lane>(a: V, b: V) -> V {
    // `max` gives its second operand for NaN: right when b is NaN.
    V::select(a.eq(a), a.max(b), a)
}

/// The smaller; NaN where either is NaN.
#[inline(always)]
pub fn minimum<V: Lane>(a: V, b: V) -> V {
    V::select(a.eq(a), a.min(b), a)
}

/// `(n, r)` with `x = n ln 2 + r`, n integral, |r| <= ln 2 / 2.
#[inline(always)]
fn reduce_ln2<V: Lane>(x: V) -> (V, V) {
    let n = x.mul(x.lit(LOG2E)).round();
    let r = n.fnma(x.lit(LN2_HI), x);
    (n, n.fnma(x.lit(LN2_LO), r))
}

/// `e^x`, within 1.1 ulp.
#[inline(always)]
pub fn exp<V: Lane>(x: V) -> V {
    // Outside these bounds the result is 0 or infinity; the clamp keeps n small.
    // The bound stands first so that NaN, the second operand, survives.
    let x = x.lit(89.0).min(x.lit(-104.0).max(x));
    let (n, r) = reduce_ln2(x);
    let p = horner(r, &EXP);
    let p = p.mul(r).fma(r, r);
    p.add(x.lit(1.0)).ldexp(n)
}

/// `2^x`, within 1.5 ulp.
#[inline(always)]
pub fn exp2<V: Lane>(x: V) -> V {
    let x = x.lit(129.0).min(x.lit(-151.0).max(x));
    let n = x.round();
    let r = x.sub(n).mul(x.lit(std::f32::consts::LN_2));
    let p = horner(r, &EXP);
    let p = p.mul(r).fma(r, r);
    p.add(x.lit(1.0)).ldexp(n)
}

/// `e^x - 1`, without cancellation near zero, within 2 ulp.
#[inline(always)]
pub fn expm1<V: Lane>(x: V) -> V {
    let y = x.lit(89.0).min(x.lit(-20.0).max(x));
    let (n, r) = reduce_ln2(y);
    let p = horner(r, &EXP);
    let p = p.mul(r).fma(r, r);
    // 2^n (e^r - 1) + (2^n - 1); 2^128 does not exist, so work with halves.
    let half = x.lit(0.5).ldexp(n);
    let m = p.fma(half, half.sub(x.lit(0.5)));
    let m = m.add(m);
    // Tiny arguments (and -0) are their own result.
    V::select(x.abs().lt(x.lit(1e-10)), x, m)
}

/// `ln x`, within 1 ulp; NaN below zero, -inf at zero.
#[inline(always)]
pub fn log<V: Lane>(x: V) -> V {
    let tiny = x.lt(x.lit(f32::MIN_POSITIVE));
    let y = V::select(tiny, x.mul(x.lit(8_388_608.0)), x);
    let (m, e) = y.split();
    let e = V::select(tiny, e.sub(x.lit(23.0)), e);
    let z = m.sub(x.lit(1.0));
    let p = horner(z, &LOG);
    let zz = z.mul(z);
    // Small terms first: e LO, z^3 P, -z^2/2, z, e HI.
    let t = p.mul(z).mul(zz);
    let t = e.fma(x.lit(LN2_LO), t);
    let t = zz.fma(x.lit(-0.5), t);
    let t = t.add(z);
    let t = e.fma(x.lit(LN2_HI), t);
    log_edges(x, t)
}

#[inline(always)]
fn log_edges<V: Lane>(x: V, t: V) -> V {
    let inf = x.lit(f32::INFINITY);
    let t = V::select(x.lt(inf), t, x); // +inf and NaN are their own result
    let t = V::select(x.eq(x.lit(0.0)), inf.neg(), t);
    V::select(x.lt(x.lit(0.0)), x.lit(f32::NAN), t)
}

/// Base-two logarithm, within 2 ulp.
#[inline(always)]
pub fn log2<V: Lane>(x: V) -> V {
    let tiny = x.lt(x.lit(f32::MIN_POSITIVE));
    let y = V::select(tiny, x.mul(x.lit(8_388_608.0)), x);
    let (m, e) = y.split();
    let e = V::select(tiny, e.sub(x.lit(23.0)), e);
    let z = m.sub(x.lit(1.0));
    let zz = z.mul(z);
    let t = horner(z, &LOG).mul(z).mul(zz);
    let t = zz.fma(x.lit(-0.5), t);
    // log2(m) = (z + t) log2(e), the factor in two parts.
    let hi = z.mul(x.lit(LOG2E));
    let lo = z.fma(x.lit(LOG2E), hi.neg()).add(z.mul(x.lit(1.925_963e-8)));
    let u = t.fma(x.lit(LOG2E), lo).add(hi);
    log_edges(x, u.add(e))
}

/// Base-ten logarithm, within 2 ulp.
#[inline(always)]
pub fn log10<V: Lane>(x: V) -> V {
    log(x).mul(x.lit(std::f32::consts::LOG10_E))
}

/// `ln(1 + x)`, without cancellation near zero, within 2 ulp.
#[inline(always)]
pub fn log1p<V: Lane>(x: V) -> V {
    let one = x.lit(1.0);
    let u = x.add(one);
    // What rounding 1 + x lost, as a correction to the logarithm.
    let lost = x.sub(u.sub(one)).div(u);
    let big = x.abs().lt(x.lit(1e10));
    let t = log(u).add(V::select(big, lost, x.lit(0.0)));
    let t = V::select(x.abs().lt(x.lit(1e-10)), x, t);
    let t = V::select(x.eq(x.lit(-1.0)), x.lit(f32::NEG_INFINITY), t);
    V::select(x.lt(x.lit(-1.0)), x.lit(f32::NAN), t)
}

/// Hyperbolic tangent, within 3 ulp.
#[inline(always)]
pub fn tanh<V: Lane>(x: V) -> V {
    // tanh x = m / (m + 2) with m = e^{2x} - 1; beyond 9.1 it rounds to one.
    let a = x.lit(9.1).min(x.abs());
    let m = expm1(a.add(a));
    let t = m.div(m.add(x.lit(2.0)));
    t.copysign(x)
}

/// `1 / (1 + e^-x)`, within 2.5 ulp.
#[inline(always)]
pub fn sigmoid<V: Lane>(x: V) -> V {
    let one = x.lit(1.0);
    one.div(exp(x.neg()).add(one))
}

/// The error function, within 1.5 ulp.
#[inline(always)]
pub fn erf<V: Lane>(x: V) -> V {
    let a = x.lit(4.0).min(x.abs());
    let q = horner(a, &ERF_LARGE);
    let large = x.lit(1.0).sub(exp(q.neg()));
    let p = horner(x.mul(x), &ERF_SMALL);
    let small = p.fma(x, x);
    let is_small = x.abs().lt(x.lit(ERF_SPLIT));
    V::select(is_small, small, large.copysign(x))
}

/// `x Φ(x)`, Φ the standard normal distribution function (Hendrycks and Gimpel,
/// 2016). Absolute error below 2e-7 times max(1, |x|).
#[inline(always)]
pub fn gelu<V: Lane>(x: V) -> V {
    let half = x.mul(x.lit(0.5));
    half.fma(erf(x.mul(x.lit(std::f32::consts::FRAC_1_SQRT_2))), half)
}

/// The tanh approximation of [`gelu`].
#[inline(always)]
pub fn gelu_tanh<V: Lane>(x: V) -> V {
    let u = x.mul(x).fma(x.lit(0.044_715 * 0.797_884_6), x.lit(0.797_884_6)).mul(x);
    let half = x.mul(x.lit(0.5));
    half.fma(tanh(u), half)
}

/// `x sigmoid(x)`.
#[inline(always)]
pub fn silu<V: Lane>(x: V) -> V {
    x.div(exp(x.neg()).add(x.lit(1.0)))
}

/// `ln(1 + e^x)`.
#[inline(always)]
pub fn softplus<V: Lane>(x: V) -> V {
    // max(x, 0) + ln(1 + e^-|x|) neither overflows nor cancels.
    maximum(x, x.lit(0.0)).add(log1p(exp(x.abs().neg())))
}

/// `max(x, 0)`, NaN staying NaN.
#[inline(always)]
pub fn relu<V: Lane>(x: V) -> V {
    x.lit(0.0).max(x)
}

/// `1 / sqrt(x)`.
#[inline(always)]
pub fn rsqrt<V: Lane>(x: V) -> V {
    x.lit(1.0).div(x.sqrt())
}

/// -1, 0 or 1 by sign; NaN stays NaN.
#[inline(always)]
pub fn sign<V: Lane>(x: V) -> V {
    let one = x.lit(1.0).copysign(x);
    let z = V::select(x.eq(x.lit(0.0)), x.lit(0.0), one);
    V::select(x.eq(x), z, x)
}

/// Hyperbolic sine, within 3 ulp.
#[inline(always)]
pub fn sinh<V: Lane>(x: V) -> V {
    let a = x.abs();
    // Below 88: (m + m/(m+1)) / 2 with m = e^a - 1. Above, e^a would overflow
    // before sinh does: e^(a/2) twice.
    let m = expm1(a);
    let small = m.add(m.div(m.add(x.lit(1.0)))).mul(x.lit(0.5));
    let h = exp(a.mul(x.lit(0.5)));
    let large = h.mul(x.lit(0.5)).mul(h);
    let s = V::select(a.lt(x.lit(80.0)), small, large);
    s.copysign(x)
}

/// Hyperbolic cosine, within 3 ulp.
#[inline(always)]
pub fn cosh<V: Lane>(x: V) -> V {
    let a = x.abs();
    let e = exp(a);
    let small = e.add(x.lit(1.0).div(e)).mul(x.lit(0.5));
    let h = exp(a.mul(x.lit(0.5)));
    let large = h.mul(x.lit(0.5)).mul(h);
    V::select(a.lt(x.lit(80.0)), small, large)
}

/// The gradient of [`relu`] times `g`: `g` where `y > 0`, else 0.
#[inline(always)]
pub fn gate<V: Lane>(g: V, y: V) -> V {
    V::select(y.lit(0.0).lt(y), g, g.lit(0.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Distance in units in the last place of the f32 nearest to `want`.
    fn ulps(got: f32, want: f64) -> f64 {
        if got.is_nan() || want.is_nan() {
            return if got.is_nan() == want.is_nan() { 0.0 } else { f64::INFINITY };
        }
        let near = want as f32;
        if got == near {
            return 0.0;
        }
        if !near.is_finite() || !got.is_finite() {
            return f64::INFINITY;
        }
        let ulp = f64::from(f32::from_bits(near.abs().to_bits() + 1)) - f64::from(near.abs());
        (f64::from(got) - want).abs() / ulp
    }

    fn check(name: &str, f: fn(f32) -> f32, exact: fn(f64) -> f64, range: (f32, f32), bound: f64) {
        let mut worst = (0.0, 0.0f32);
        let mut see = |x: f32| {
            let u = ulps(f(x), exact(f64::from(x)));
            if u > worst.0 || u.is_nan() {
                worst = (u, x);
            }
        };
        // Even steps, and steps even in the exponent for the neighbourhood of zero.
        for i in 0..=200_000 {
            see(range.0 + (range.1 - range.0) * (i as f32 / 200_000.0));
        }
        for bits in (0..0x7f80_0000u32).step_by(7919) {
            for x in [f32::from_bits(bits), -f32::from_bits(bits)] {
                if x >= range.0 && x <= range.1 {
                    see(x);
                }
            }
        }
        assert!(worst.0 <= bound, "{name}: {} ulp at {}", worst.0, worst.1);
    }

    fn erf64(x: f64) -> f64 {
        // Maclaurin series below 3, the continued fraction of erfc above.
        let a = x.abs();
        let r = if a < 3.0 {
            let (mut term, mut sum, mut n) = (a, a, 0.0);
            while term.abs() > 1e-18 * sum.abs() {
                n += 1.0;
                term *= -a * a / n;
                sum += term / (2.0 * n + 1.0);
            }
            sum * 2.0 / std::f64::consts::PI.sqrt()
        } else {
            let mut k = 0.0;
            for i in (1..60).rev() {
                k = f64::from(i) / 2.0 / (a + k);
            }
            1.0 - (-a * a).exp() / ((a + k) * std::f64::consts::PI.sqrt())
        };
        r.copysign(x)
    }

    #[test]
    fn accuracy() {
        check("exp", exp, f64::exp, (-110.0, 90.0), 1.1);
        check("exp2", exp2, f64::exp2, (-152.0, 130.0), 1.5);
        check("expm1", expm1, f64::exp_m1, (-40.0, 88.8), 2.0);
        check("log", log, f64::ln, (0.0, f32::MAX), 1.0);
        check("log near one", log, f64::ln, (0.5, 2.0), 1.0);
        check("log2", log2, f64::log2, (0.0, f32::MAX), 2.0);
        check("log2 near one", log2, f64::log2, (0.5, 2.0), 2.0);
        check("log10", log10, f64::log10, (0.0, f32::MAX), 2.0);
        check("log1p", log1p, f64::ln_1p, (-0.999, 1e30), 2.0);
        check("log1p near zero", log1p, f64::ln_1p, (-0.9, 2.0), 2.0);
        check("tanh", tanh, f64::tanh, (-12.0, 12.0), 3.0);
        check("sigmoid", sigmoid, |x| 1.0 / (1.0 + (-x).exp()), (-87.0, 90.0), 2.5);
        check("erf", erf, erf64, (-6.0, 6.0), 1.5);
        check("sinh", sinh, f64::sinh, (-89.0, 89.0), 3.0);
        check("cosh", cosh, f64::cosh, (-89.0, 89.0), 3.0);
        check("rsqrt", rsqrt, |x| 1.0 / x.sqrt(), (1e-30, 1e30), 1.5);
    }

    #[test]
    fn gelu_and_friends_are_close_in_absolute_terms() {
        for i in -2000..=2000 {
            let x = i as f32 * 0.01;
            let d = f64::from(x);
            let scale = d.abs().max(1.0);
            let phi = 0.5 * (1.0 + erf64(d * std::f64::consts::FRAC_1_SQRT_2));
            assert!((f64::from(gelu(x)) - d * phi).abs() < 2e-7 * scale, "gelu {x}");
            let u = 0.797_884_560_802_865_4 * (d + 0.044_715 * d * d * d);
            let want = 0.5 * d * (1.0 + u.tanh());
            assert!((f64::from(gelu_tanh(x)) - want).abs() < 4e-7 * scale, "gelu_tanh {x}");
            let s = d / (1.0 + (-d).exp());
            assert!((f64::from(silu(x)) - s).abs() < 3e-7 * scale, "silu {x}");
            let p = d.max(0.0) + (-d.abs()).exp().ln_1p();
            assert!((f64::from(softplus(x)) - p).abs() < 3e-7 * scale, "softplus {x}");
        }
    }

    #[test]
    fn edges() {
        let inf = f32::INFINITY;
        assert_eq!(exp(inf), inf);
        assert_eq!(exp(-inf), 0.0);
        assert_eq!(expm1(-inf), -1.0);
        assert_eq!(expm1(inf), inf);
        assert!(expm1(-0.0).is_sign_negative());
        assert_eq!(log(0.0), -inf);
        assert_eq!(log(inf), inf);
        assert!(log(-1.0).is_nan());
        assert_eq!(log2(8.0), 3.0);
        assert_eq!(log2(2f32.powi(-140)), -140.0);
        assert_eq!(log1p(-1.0), -inf);
        assert_eq!(log1p(inf), inf);
        assert!(log1p(-2.0).is_nan());
        assert_eq!(tanh(inf), 1.0);
        assert_eq!(tanh(-inf), -1.0);
        assert!(tanh(-0.0).is_sign_negative());
        assert_eq!(sigmoid(inf), 1.0);
        assert_eq!(sigmoid(-inf), 0.0);
        assert_eq!(erf(inf), 1.0);
        assert_eq!(erf(-inf), -1.0);
        assert_eq!(relu(-1.0), 0.0);
        assert_eq!(sign(-0.0), 0.0);
        assert_eq!(softplus(inf), inf);
        assert_eq!(softplus(-inf), 0.0);
        assert_eq!(sinh(-inf), -inf);
        assert_eq!(cosh(-inf), inf);
        for f in [
            exp, exp2, expm1, log, log2, log10, log1p, tanh, sigmoid, erf, gelu, gelu_tanh, silu,
            softplus, relu, rsqrt, sign, sinh, cosh,
        ] as [fn(f32) -> f32; 19]
        {
            assert!(f(f32::NAN).is_nan());
        }
        assert!(maximum(f32::NAN, 1.0).is_nan() && maximum(1.0, f32::NAN).is_nan());
        assert!(minimum(f32::NAN, 1.0).is_nan() && minimum(1.0, f32::NAN).is_nan());
    }
}
