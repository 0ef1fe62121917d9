//! Modified Bessel functions of orders zero and one. (The others are those of `libm`.)

use std::f64::consts::PI;

/// Where the power series, all of whose terms are positive, gives way to the
/// asymptotic expansion.
const LARGE: f64 = 20.0;

/// `I_n(x)` for `n` 0 or 1 and `0 <= x <= LARGE` (DLMF 10.25.2).
fn series(n: u8, x: f64) -> f64 {
    let y = 0.25 * x * x;
    let start = if n == 0 { 1.0 } else { 0.5 * x };
    let (mut term, mut sum, mut k) = (start, start, 1.0);
    while term > sum * (f64::EPSILON / 8.0) {
        term *= y / (k * (k + f64::from(n)));
        sum += term;
        k += 1.0;
    }
    sum
}

/// `sqrt(2 π x) e^-x I_n(x)`, or `sqrt(2 x / π) e^x K_n(x)` with `sign` 1, for large
/// `x` (DLMF 10.40.1 and 10.40.2).
fn asymptotic(n: u8, x: f64, sign: f64) -> f64 {
    let mu = 4.0 * f64::from(n);
    let (mut term, mut sum, mut k) = (1.0f64, 1.0, 1.0);
    while term.abs() > f64::EPSILON / 8.0 && k < 30.0 {
        let odd: f64 = 2.0 * k - 1.0;
        term *= sign * (mu - odd * odd) / (8.0 * k * x);
        sum += term;
        k += 1.0;
    }
    sum
}

/// `e^-x I_n(x)` for `x >= 0`.
fn scaled(n: u8, x: f64) -> f64 {
    if x <= LARGE {
        series(n, x) * (-x).exp()
    } else if x.is_infinite() {
        0.0
    } else {
        asymptotic(n, x, -1.0) / (2.0 * PI * x).sqrt()
    }
}

fn unscaled(n: u8, x: f64) -> f64 {
    if x <= LARGE {
        return series(n, x);
    }
    if x.is_infinite() {
        return x;
    }
    // In halves: e^x overflows before the function does.
    let half = (0.5 * x).exp();
    asymptotic(n, x, -1.0) / (2.0 * PI * x).sqrt() * half * half
}

pub(crate) fn i0(x: f64) -> f64 {
    if x.is_nan() { x } else { unscaled(0, x.abs()) }
}
pub(crate) fn i0e(x: f64) -> f64 {
    if x.is_nan() { x } else { scaled(0, x.abs()) }
}
pub(crate) fn i1(x: f64) -> f64 {
    if x.is_nan() { x } else { unscaled(1, x.abs()).copysign(x) }
}
pub(crate) fn i1e(x: f64) -> f64 {
    if x.is_nan() { x } else { scaled(1, x.abs()).copysign(x) }
}

/// Euler's constant.
const GAMMA: f64 = 0.577_215_664_901_532_9;

/// `K_0(x)` for `0 < x <= 1` (DLMF 10.31.2).
fn k0_small(x: f64) -> f64 {
    let y = 0.25 * x * x;
    let (mut term, mut harmonic, mut sum, mut k) = (1.0, 0.0, 0.0, 1.0);
    while term > f64::EPSILON / 64.0 {
        term *= y / (k * k);
        harmonic += 1.0 / k;
        sum += term * harmonic;
        k += 1.0;
    }
    sum - ((0.5 * x).ln() + GAMMA) * series(0, x)
}

/// `e^x K_n(x)` for `x > 0`.
fn k_scaled(n: u8, x: f64) -> f64 {
    if x > LARGE {
        return (PI / (2.0 * x)).sqrt() * asymptotic(n, x, 1.0);
    }
    if x <= 1.0 {
        let k0 = k0_small(x);
        if n == 0 {
            return k0 * x.exp();
        }
        // I_0 K_1 + I_1 K_0 = 1 / x (DLMF 10.28.2)
        return (1.0 / x - series(1, x) * k0) / series(0, x) * x.exp();
    }
    // ∫ exp(-x (cosh t - 1)) cosh n t dt (DLMF 10.32.9) by the trapezoidal rule, whose
    // error falls exponentially with the number of points.
    const STEP: f64 = 0.125;
    let mut sum = 0.5;
    for i in 1.. {
        let c = (STEP * f64::from(i)).cosh();
        let term = (-x * (c - 1.0)).exp() * if n == 0 { 1.0 } else { c };
        sum += term;
        if term < sum * (f64::EPSILON / 16.0) {
            break;
        }
    }
    sum * STEP
}

fn k(n: u8, x: f64, scale: bool) -> f64 {
    if x.is_nan() || x < 0.0 {
        return f64::NAN;
    }
    if x == 0.0 {
        return f64::INFINITY;
    }
    if x.is_infinite() {
        return 0.0;
    }
    k_scaled(n, x) * if scale { 1.0 } else { (-x).exp() }
}

pub(crate) fn k0(x: f64) -> f64 {
    k(0, x, false)
}
pub(crate) fn k0e(x: f64) -> f64 {
    k(0, x, true)
}
pub(crate) fn k1(x: f64) -> f64 {
    k(1, x, false)
}
pub(crate) fn k1e(x: f64) -> f64 {
    k(1, x, true)
}
