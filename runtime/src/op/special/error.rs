//! Relatives of the error function.

use std::f64::consts::{FRAC_1_SQRT_2, LN_2, PI, SQRT_2};

const FRAC_2_SQRT_PI: f64 = std::f64::consts::FRAC_2_SQRT_PI;

/// `e^(x²) erfc(x)`.
pub(crate) fn erfcx(x: f64) -> f64 {
    if x < 0.0 {
        // Below -27 the square overflows.
        return 2.0 * (x * x).exp() - erfcx(-x);
    }
    if x < 8.0 {
        // e^(x²) with the rounding error of the square.
        let square = x * x;
        let e = square.exp();
        return (e + e * x.mul_add(x, -square)) * libm::erfc(x);
    }
    if x.is_infinite() {
        return 0.0;
    }
    // DLMF 7.12.1
    let y = 0.5 / x / x;
    let (mut term, mut sum, mut odd) = (1.0f64, 1.0, 1.0);
    while term.abs() > f64::EPSILON / 8.0 {
        term *= -odd * y;
        sum += term;
        odd += 2.0;
    }
    sum * 0.5 * FRAC_2_SQRT_PI / x
}

/// `x` with `erfc(x) = q`, for `0 < q <= 1`: Winitzki's estimate ("A handy approximation
/// for the error function and its inverse", 2008), then Halley's steps.
fn erfc_inverse(q: f64) -> f64 {
    const A: f64 = 0.147;
    let l = (q * (2.0 - q)).ln();
    let t = 2.0 / (PI * A) + 0.5 * l;
    let mut x = ((t * t - l / A).sqrt() - t).max(0.0).sqrt();
    for _ in 0..4 {
        // Near zero the complement has lost digits that the function has.
        let f = if x < 0.5 { (1.0 - q) - libm::erf(x) } else { libm::erfc(x) - q };
        let slope = FRAC_2_SQRT_PI * (-x * x).exp();
        let u = f / slope;
        let step = u / (1.0 - x * u);
        if !step.is_finite() {
            break;
        }
        x += step;
        if step.abs() <= f64::EPSILON * x {
            break;
        }
    }
    x
}

/// The inverse of the error function.
pub(crate) fn erfinv(y: f64) -> f64 {
    let a = y.abs();
    if a.is_nan() || a > 1.0 {
        return f64::NAN;
    }
    if a == 1.0 {
        return f64::INFINITY.copysign(y);
    }
    if a < 1e-8 {
        return y / FRAC_2_SQRT_PI;
    }
    let x = if a > 0.5 { erfc_inverse(1.0 - a) } else { central(a) };
    x.copysign(y)
}

/// `x` with `erf(x) = y`, for `0 < y <= 0.5`.
fn central(y: f64) -> f64 {
    // Two terms of the power series (DLMF 7.17.2), then Halley's steps.
    let t = y / FRAC_2_SQRT_PI;
    let mut x = t * (1.0 + t * t / 3.0);
    for _ in 0..3 {
        let u = (y - libm::erf(x)) / (FRAC_2_SQRT_PI * (-x * x).exp());
        x += u / (1.0 - x * u);
    }
    x
}

/// The inverse of the normal distribution function.
pub(crate) fn ndtri(p: f64) -> f64 {
    if p.is_nan() || !(0.0..=1.0).contains(&p) {
        return f64::NAN;
    }
    if p == 0.0 || p == 1.0 {
        return if p == 0.0 { f64::NEG_INFINITY } else { f64::INFINITY };
    }
    let tail = p.min(1.0 - p);
    let x = if tail < 0.25 { erfc_inverse(2.0 * tail) } else { erfinv(1.0 - 2.0 * tail) };
    (SQRT_2 * x).copysign(p - 0.5)
}

/// The logarithm of the normal distribution function.
pub(crate) fn log_ndtr(x: f64) -> f64 {
    let t = x * FRAC_1_SQRT_2;
    if x < -1.0 {
        if x.is_infinite() {
            return x;
        }
        erfcx(-t).ln() - LN_2 - t * t
    } else {
        (-0.5 * libm::erfc(t)).ln_1p()
    }
}
