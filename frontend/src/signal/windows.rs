//! Windows: weights for the samples of a frame, in a type that may be said or the default
//! one.
//!
//! A symmetric window (`sym`) begins and ends with the same value; otherwise it is one period
//! of a periodic one, for [spectral analysis](crate::fft::stft). The windows of one element
//! are one. Formulas are those of Harris 1978, "On the use of windows for harmonic analysis
//! with the discrete Fourier transform"; all are evaluated in f64.
//!
//! ```
//! use sinter::signal::windows::{bartlett, hann, kaiser};
//! assert_eq!(bartlett(5, true, None).to_vec::<f32>(), [0.0, 0.5, 1.0, 0.5, 0.0]);
//! assert_eq!(hann(4, false, None).to_vec::<f32>(), [0.0, 0.5, 1.0, 0.5]);
//! assert!((kaiser(5, 12.0, true, None).to_vec::<f32>()[1] - 0.2156733).abs() < 1e-6);
//! ```

use crate::tensor::{Tensor, default_dtype, from_slice};
use sinter_runtime::DType;
use std::f64::consts::PI;

/// `m` values of a function of the sample and of the index of the last sample of a symmetric
/// window.
#[track_caller]
fn window(
    m: usize,
    sym: bool,
    dtype: impl Into<Option<DType>>,
    f: impl Fn(f64, f64) -> f64,
) -> Tensor {
    let last = if sym { m.saturating_sub(1) } else { m } as f64;
    let values: Vec<f64> = (0..m).map(|i| if m == 1 { 1.0 } else { f(i as f64, last) }).collect();
    from_slice(&values, [m]).to_dtype(dtype.into().unwrap_or_else(default_dtype))
}

/// `Σ (-1)ⁱ aᵢ cos(2πi k / last)`
#[track_caller]
pub fn general_cosine(m: usize, a: &[f64], sym: bool, dtype: impl Into<Option<DType>>) -> Tensor {
    window(m, sym, dtype, |k, last| {
        let term = |(i, a): (usize, &f64)| {
            let sign = if i % 2 == 0 { 1.0 } else { -1.0 };
            sign * a * (2.0 * PI * i as f64 * k / last).cos()
        };
        a.iter().enumerate().map(term).sum()
    })
}

/// `alpha - (1 - alpha) cos(2π k / last)`
#[track_caller]
pub fn general_hamming(m: usize, alpha: f64, sym: bool, dtype: impl Into<Option<DType>>) -> Tensor {
    general_cosine(m, &[alpha, 1.0 - alpha], sym, dtype)
}

/// `0.54 - 0.46 cos(2π k / last)`
#[track_caller]
pub fn hamming(m: usize, sym: bool, dtype: impl Into<Option<DType>>) -> Tensor {
    general_hamming(m, 0.54, sym, dtype)
}

/// `(1 - cos(2π k / last)) / 2`
#[track_caller]
pub fn hann(m: usize, sym: bool, dtype: impl Into<Option<DType>>) -> Tensor {
    general_hamming(m, 0.5, sym, dtype)
}

/// Blackman's three cosines.
#[track_caller]
pub fn blackman(m: usize, sym: bool, dtype: impl Into<Option<DType>>) -> Tensor {
    general_cosine(m, &[0.42, 0.5, 0.08], sym, dtype)
}

/// Nuttall's four cosines of least side lobes.
#[track_caller]
pub fn nuttall(m: usize, sym: bool, dtype: impl Into<Option<DType>>) -> Tensor {
    general_cosine(m, &[0.3635819, 0.4891775, 0.1365995, 0.0106411], sym, dtype)
}

/// A triangle that begins at zero.
#[track_caller]
pub fn bartlett(m: usize, sym: bool, dtype: impl Into<Option<DType>>) -> Tensor {
    window(m, sym, dtype, |k, last| 1.0 - (2.0 * k / last - 1.0).abs())
}

/// Half a sine.
#[track_caller]
pub fn cosine(m: usize, sym: bool, dtype: impl Into<Option<DType>>) -> Tensor {
    window(m, sym, dtype, |k, last| (PI * (k + 0.5) / (last + 1.0)).sin())
}

/// `e^(-|k - center| / tau)`; the center of a symmetric window is its middle.
///
/// # Panics
/// If `tau` is not positive, or a center is given for a symmetric window.
#[track_caller]
pub fn exponential(
    m: usize,
    center: impl Into<Option<f64>>,
    tau: f64,
    sym: bool,
    dtype: impl Into<Option<DType>>,
) -> Tensor {
    let center = center.into();
    if tau.is_nan() || tau <= 0.0 {
        panic!("signal.windows.exponential: tau = {tau} must be positive");
    }
    if sym && center.is_some() {
        panic!("signal.windows.exponential: the center of a symmetric window is its middle");
    }
    window(m, sym, dtype, |k, last| (-(k - center.unwrap_or(last / 2.0)).abs() / tau).exp())
}

/// `e^(-((k - middle) / std)² / 2)`
///
/// # Panics
/// If `std` is not positive.
#[track_caller]
pub fn gaussian(m: usize, std: f64, sym: bool, dtype: impl Into<Option<DType>>) -> Tensor {
    if std.is_nan() || std <= 0.0 {
        panic!("signal.windows.gaussian: std = {std} must be positive");
    }
    window(m, sym, dtype, |k, last| (-0.5 * ((k - last / 2.0) / std).powi(2)).exp())
}

/// `I₀(√(beta² - (2 beta k / last - beta)²)) / I₀(beta)`
///
/// # Panics
/// If `beta` is negative.
#[track_caller]
pub fn kaiser(m: usize, beta: f64, sym: bool, dtype: impl Into<Option<DType>>) -> Tensor {
    if beta.is_nan() || beta < 0.0 {
        panic!("signal.windows.kaiser: beta = {beta} must not be negative");
    }
    window(m, sym, dtype, |k, last| {
        let x = 2.0 * k / last - 1.0;
        let inside = beta * (1.0 - x * x).max(0.0).sqrt();
        // Both scaled, so that large ones do not overflow.
        i0e(inside) / i0e(beta) * (inside - beta).exp()
    })
}

/// `e^-x I₀(x)` for x >= 0: by its power series (Abramowitz & Stegun 9.6.12), and from 30 on
/// by the asymptotic one (9.7.1).
fn i0e(x: f64) -> f64 {
    if x < 30.0 {
        let q = x * x / 4.0;
        let (mut term, mut sum, mut k) = (1.0, 1.0, 0.0);
        while term > sum * 1e-17 {
            k += 1.0;
            term *= q / (k * k);
            sum += term;
        }
        return sum * (-x).exp();
    }
    let (mut term, mut sum) = (1.0, 1.0);
    for k in 1..30 {
        let odd = (2 * k - 1) as f64;
        let next = term * odd * odd / (8.0 * x * k as f64);
        // The series diverges in the end.
        if next > term || next < 1e-17 {
            break;
        }
        term = next;
        sum += term;
    }
    sum / (2.0 * PI * x).sqrt()
}

macro_rules! periodic {
    ($($(#[$doc:meta])* $name:ident = $of:ident;)*) => {$(
        $(#[$doc])*
        #[track_caller]
        pub fn $name(m: usize, periodic: bool) -> Tensor {
            $of(m, !periodic, None)
        }
    )*};
}
periodic! {
    /// [`bartlett`] by its older name.
    bartlett_window = bartlett;
    /// [`blackman`] by its older name.
    blackman_window = blackman;
    /// [`hamming`] by its older name.
    hamming_window = hamming;
    /// [`hann`] by its older name.
    hann_window = hann;
}

/// [`kaiser`] by its older name.
///
/// # Panics
/// If `beta` is negative.
#[track_caller]
pub fn kaiser_window(m: usize, periodic: bool, beta: f64) -> Tensor {
    kaiser(m, beta, !periodic, None)
}
