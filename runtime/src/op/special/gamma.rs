//! Digamma, the Hurwitz zeta function, and the incomplete gamma functions.

use std::f64::consts::PI;

/// The derivative of `ln Γ`: recurrence up to 10 (DLMF 5.5.2), then the asymptotic
/// expansion (5.11.2); reflection (5.5.4) for negative numbers. NaN at the negative
/// integers, an infinity of the other sign at the zeros.
pub(crate) fn digamma(x: f64) -> f64 {
    if x == 0.0 {
        return f64::INFINITY.copysign(-x);
    }
    if x < 0.0 {
        if x == x.floor() {
            return f64::NAN;
        }
        // tan has period π: of the fraction nothing is lost.
        return digamma(1.0 - x) - PI / (PI * (x - x.round())).tan();
    }
    let (mut x, mut below) = (x, 0.0);
    while x < 10.0 {
        below += 1.0 / x;
        x += 1.0;
    }
    // B_2k / 2k.
    const TERMS: [f64; 7] = [
        1.0 / 12.0,
        -1.0 / 120.0,
        1.0 / 252.0,
        -1.0 / 240.0,
        1.0 / 132.0,
        -691.0 / 32760.0,
        1.0 / 12.0,
    ];
    let y = 1.0 / (x * x);
    let tail = TERMS.iter().rev().fold(0.0, |s, t| (s + t) * y);
    x.ln() - 0.5 / x - tail - below
}

/// `Σ (q + k)^-s` for `k >= 0` by Euler and Maclaurin's formula (DLMF 25.11.28).
pub(crate) fn zeta(s: f64, q: f64) -> f64 {
    if s == 1.0 {
        return f64::INFINITY;
    }
    if s.is_nan() || q.is_nan() || s < 1.0 {
        return f64::NAN;
    }
    if q <= 0.0 {
        if q == q.floor() {
            return f64::INFINITY;
        }
        if s != s.floor() {
            return f64::NAN;
        }
    }
    let (mut sum, mut at, mut n) = (0.0, q, 0);
    while n < 10 || at < 10.0 {
        let term = at.powf(-s);
        sum += term;
        if at > 0.0 && term <= sum.abs() * (f64::EPSILON / 8.0) {
            return sum;
        }
        (at, n) = (at + 1.0, n + 1);
    }
    // B_2k / (2k)!
    const TERMS: [f64; 10] = [
        1.0 / 12.0,
        -1.0 / 720.0,
        1.0 / 30_240.0,
        -1.0 / 1_209_600.0,
        1.0 / 47_900_160.0,
        -691.0 / 1_307_674_368_000.0,
        1.0 / 74_724_249_600.0,
        -3617.0 / 10_670_622_842_880_000.0,
        43_867.0 / 5_109_094_217_170_944_000.0,
        -174_611.0 / 802_857_662_698_291_200_000.0,
    ];
    let last = at.powf(-s);
    sum += last * at / (s - 1.0) + 0.5 * last;
    // s (s + 1) … (s + 2k - 2) / at^(s + 2k - 1)
    let mut factor = s * last / at;
    for (k, t) in TERMS.iter().enumerate() {
        let term = t * factor;
        sum += term;
        if term.abs() <= sum.abs() * (f64::EPSILON / 8.0) {
            break;
        }
        let j = 2.0 * k as f64;
        factor *= (s + j + 1.0) * (s + j + 2.0) / (at * at);
    }
    sum
}

/// `ln(1 + x) - x` without cancellation.
fn log1p_less(x: f64) -> f64 {
    if x.abs() > 0.5 {
        return x.ln_1p() - x;
    }
    // ln(1 + x) = 2 artanh(r)
    let r = x / (2.0 + x);
    let y = r * r;
    let (mut sum, mut power, mut k) = (0.0, 1.0, 3.0);
    while power / k > f64::EPSILON / 16.0 {
        sum += power / k;
        power *= y;
        k += 2.0;
    }
    r * (2.0 * y * sum - x)
}

/// `x^a e^-x / Γ(a + 1)`; for large `a` in the form of a saddle point, in which the
/// large parts of the logarithm have cancelled already (Loader 2000, "Fast and
/// accurate computation of binomial probabilities").
fn poisson(a: f64, x: f64) -> f64 {
    if a < 10.0 {
        return x.powf(a) * (-x).exp() / libm::tgamma(a + 1.0);
    }
    // Stirling's series (DLMF 5.11.1) after its leading terms.
    const TERMS: [f64; 6] =
        [1.0 / 12.0, -1.0 / 360.0, 1.0 / 1260.0, -1.0 / 1680.0, 1.0 / 1188.0, -691.0 / 360_360.0];
    let y = 1.0 / (a * a);
    let rest = TERMS.iter().rev().fold(0.0, |s, t| s * y + t) / a;
    (a * log1p_less((x - a) / a) - rest).exp() / (2.0 * PI * a).sqrt()
}

/// The lower function by its power series (DLMF 8.11.4), for `x < a + 1`.
fn series(a: f64, x: f64) -> f64 {
    let (mut term, mut sum, mut n) = (1.0, 1.0, a);
    while term > sum * (f64::EPSILON / 4.0) {
        n += 1.0;
        term *= x / n;
        sum += term;
    }
    poisson(a, x) * sum
}

/// The upper function by its continued fraction (DLMF 8.9.2) in Lentz's order, for
/// `x >= a + 1`.
fn fraction(a: f64, x: f64) -> f64 {
    let scale = poisson(a, x) * a;
    if scale == 0.0 {
        return 0.0;
    }
    let mut b = x + 1.0 - a;
    let (mut c, mut d) = (1e300, 1.0 / b);
    let mut h = d;
    let mut i = 1.0;
    loop {
        let numerator = -i * (i - a);
        b += 2.0;
        d = 1.0 / (numerator * d + b);
        c = b + numerator / c;
        h *= d * c;
        i += 1.0;
        if (d * c - 1.0).abs() < f64::EPSILON {
            return scale * h;
        }
    }
}

/// What the two functions share: the values at the edges, given that of the lower.
fn edge(a: f64, x: f64) -> Option<f64> {
    if a.is_nan() || x.is_nan() || a < 0.0 || x < 0.0 {
        return Some(f64::NAN);
    }
    if a == 0.0 {
        return Some(if x > 0.0 { 1.0 } else { f64::NAN });
    }
    match (x == 0.0, a.is_infinite(), x.is_infinite()) {
        (true, ..) => Some(0.0),
        (_, true, both) => Some(if both { f64::NAN } else { 0.0 }),
        (_, _, true) => Some(1.0),
        _ => None,
    }
}

/// The regularised lower incomplete gamma function `P(a, x)`.
pub(crate) fn igamma(a: f64, x: f64) -> f64 {
    match edge(a, x) {
        Some(v) => v,
        None if x < a + 1.0 => series(a, x),
        None => 1.0 - fraction(a, x),
    }
}

/// The regularised upper incomplete gamma function `Q(a, x) = 1 - P(a, x)`.
pub(crate) fn igammac(a: f64, x: f64) -> f64 {
    match edge(a, x) {
        Some(v) => 1.0 - v,
        None if x < a + 1.0 => 1.0 - series(a, x),
        None => fraction(a, x),
    }
}
