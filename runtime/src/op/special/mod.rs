//! Special functions in f64: what the element-wise vocabulary evaluates where no
//! vector definition exists.
//!
//! Series and continued fractions with all terms of one sign, quadrature and Newton
//! steps instead of tables of fitted coefficients: every constant here is a rational
//! number of a published expansion. DLMF is the NIST Digital Library of Mathematical
//! Functions, <https://dlmf.nist.gov>.

mod bessel;
mod error;
mod gamma;

pub(super) use bessel::{i0, i0e, i1, i1e, k0, k0e, k1, k1e};
pub(super) use error::{erfcx, erfinv, log_ndtr, ndtri};
pub(super) use gamma::{digamma, igamma, igammac, zeta};

/// The number after `a` in the direction of `b`.
pub(crate) fn nextafter(a: f64, b: f64) -> f64 {
    libm::nextafter(a, b)
}

/// The f32 after `a` in the direction of `b`.
pub(crate) fn nextafter32(a: f32, b: f32) -> f32 {
    libm::nextafterf(a, b)
}

/// `e` of `x = m 2^e` with `0.5 <= |m| < 1`; 0 for zero, infinities and NaN.
pub(super) fn exponent(x: f64) -> f64 {
    if x.is_finite() { f64::from(libm::frexp(x).1) } else { 0.0 }
}

/// The greatest common divisor, not negative; `gcd(0, 0)` is 0.
pub(super) fn gcd(a: i64, b: i64) -> i64 {
    let (mut a, mut b) = (a.unsigned_abs(), b.unsigned_abs());
    while b != 0 {
        (a, b) = (b, a % b);
    }
    a as i64
}

#[cfg(test)]
mod tests;
