//! Discrete Fourier transforms, by the names of `torch.fft`.
//!
//! The one primitive transforms complex numbers along one axis; transforms of real and of
//! Hermitian signals, over several dimensions, and short-time ones are composed of it and
//! differentiable. Real operands become complex ones of the same precision. Transforms are
//! not part of compiled programs.
//!
//! ```
//! use sinter::fft::{self, Norm};
//! use sinter::tensor;
//! let x = tensor([1.0f64, 2.0, 0.0, -1.0]);
//! let y = fft::rfft(&x, None, -1, Norm::Backward);
//! assert_eq!(y.real().to_vec::<f64>(), [2.0, 1.0, 0.0]);
//! assert_eq!(y.imag().to_vec::<f64>(), [0.0, -3.0, 0.0]);
//! let back = fft::irfft(&y, 4, -1, Norm::Backward);
//! assert!(back.allclose(&x, 1e-12, 1e-12));
//! ```

mod short_time;

pub use short_time::{PadMode, Stft, istft, stft};

use crate::tensor::{IntoAxes, Tensor, apply, arange, default_dtype};
use sinter_runtime::op::Axes;
use sinter_runtime::{DType, Op};

/// Where the factor 1/n goes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Norm {
    /// To the inverse transform.
    #[default]
    Backward,
    /// Its root to both: they are unitary.
    Ortho,
    /// To the forward transform.
    Forward,
}

impl Norm {
    fn factor(self, n: usize, inverse: bool) -> f64 {
        match (self, inverse) {
            (Norm::Ortho, _) => 1.0 / (n as f64).sqrt(),
            (Norm::Backward, true) | (Norm::Forward, false) => 1.0 / n as f64,
            _ => 1.0,
        }
    }
}

/// The operand in a floating-point or complex type that transforms take.
#[track_caller]
fn floating(op: &str, x: &Tensor) -> Tensor {
    let d = x.dtype();
    if d.is_half() {
        panic!("{op}: needs f32 or f64 (or complex numbers), got {d}; convert it with `to_dtype`");
    }
    if d.is_float() || d.is_complex() { x.clone() } else { x.to_dtype(default_dtype()) }
}

#[track_caller]
fn complex(op: &str, x: &Tensor) -> Tensor {
    let x = floating(op, x);
    let d = x.dtype().complex();
    x.to_dtype(d)
}

/// Cut, or filled up with zeros at the end, to `n` elements along an axis.
#[track_caller]
fn resized(op: &str, x: &Tensor, axis: usize, n: usize) -> Tensor {
    if n == 0 {
        panic!("{op}: a transform of no elements; dimension {axis} of {:?}", x.shape());
    }
    let have = x.shape()[axis];
    if have > n {
        return x.narrow(axis as i64, 0, n);
    }
    if have == n {
        return x.clone();
    }
    let mut high: Axes = (0..x.rank()).map(|_| 0).collect();
    let low = high.clone();
    high[axis] = n - have;
    apply(Op::Pad { low, high, value: sinter_runtime::Scalar::Float(0.0) }, &[x])
}

/// A real factor, without changing the type.
fn scaled(x: &Tensor, by: f64) -> Tensor {
    if by == 1.0 { x.clone() } else { x * by }
}

/// The transform of complex numbers along an axis.
#[track_caller]
fn transform(op: &str, x: &Tensor, axis: usize, n: usize, inverse: bool, norm: Norm) -> Tensor {
    let x = resized(op, x, axis, n);
    scaled(&apply(Op::Fft { axis, inverse }, &[&x]), norm.factor(n, inverse))
}

/// The transform along `dim`, cut or filled up with zeros to `n` elements:
/// `y[k] = Σ x[j] e^(-2πi jk/n)`.
///
/// # Panics
/// If the dimension does not exist or is empty.
#[track_caller]
pub fn fft(x: &Tensor, n: impl Into<Option<usize>>, dim: i64, norm: Norm) -> Tensor {
    let axis = x.axis("fft.fft", dim);
    let n = n.into().unwrap_or(x.shape()[axis]);
    transform("fft.fft", &complex("fft.fft", x), axis, n, false, norm)
}

/// The inverse of [`fft`].
///
/// # Panics
/// If the dimension does not exist or is empty.
#[track_caller]
pub fn ifft(x: &Tensor, n: impl Into<Option<usize>>, dim: i64, norm: Norm) -> Tensor {
    let axis = x.axis("fft.ifft", dim);
    let n = n.into().unwrap_or(x.shape()[axis]);
    transform("fft.ifft", &complex("fft.ifft", x), axis, n, true, norm)
}

#[track_caller]
fn check_real(op: &str, x: &Tensor) -> Tensor {
    if x.is_complex() {
        panic!("{op}: needs real numbers, got {}", x.dtype());
    }
    floating(op, x)
}

/// The transform of real numbers: the first n/2 + 1 elements, since the others are their
/// conjugates.
///
/// # Panics
/// If the operand is complex, or the dimension does not exist or is empty.
#[track_caller]
pub fn rfft(x: &Tensor, n: impl Into<Option<usize>>, dim: i64, norm: Norm) -> Tensor {
    let op = "fft.rfft";
    let axis = x.axis(op, dim);
    let n = n.into().unwrap_or(x.shape()[axis]);
    real_to_complex(op, &check_real(op, x), axis, n, false, norm)
}

#[track_caller]
fn real_to_complex(
    op: &str,
    x: &Tensor,
    axis: usize,
    n: usize,
    inverse: bool,
    norm: Norm,
) -> Tensor {
    transform(op, &complex(op, x), axis, n, inverse, norm).narrow(axis as i64, 0, n / 2 + 1)
}

/// The real signal of `n` elements (2 (m - 1) by default, of m) whose transform begins with
/// `x`: the inverse of [`rfft`]. Imaginary parts that cannot be, of the mean and of the
/// highest frequency of an even `n`, are ignored.
///
/// # Panics
/// If the dimension does not exist or is empty.
#[track_caller]
pub fn irfft(x: &Tensor, n: impl Into<Option<usize>>, dim: i64, norm: Norm) -> Tensor {
    let op = "fft.irfft";
    let axis = x.axis(op, dim);
    let n = n.into().unwrap_or(2 * x.shape()[axis].saturating_sub(1));
    complex_to_real(op, &complex(op, x), axis, n, true, norm)
}

#[track_caller]
fn complex_to_real(
    op: &str,
    x: &Tensor,
    axis: usize,
    n: usize,
    inverse: bool,
    norm: Norm,
) -> Tensor {
    if n == 0 {
        panic!("{op}: a transform of no elements; dimension {axis} of {:?}", x.shape());
    }
    // Σ over all frequencies is the real part of the sum over the first half, where those
    // that have a partner count twice.
    let half = n / 2 + 1;
    let x = resized(op, x, axis, half);
    let alone = |k: usize| k == 0 || 2 * k == n;
    let weights: Vec<f64> = (0..half).map(|k| if alone(k) { 1.0 } else { 2.0 }).collect();
    let mut shape: Axes = (0..x.rank()).map(|_| 1).collect();
    shape[axis] = half;
    let weights = crate::tensor::from_slice(&weights, shape).to_dtype(x.dtype().real());
    transform(op, &(x * weights), axis, n, inverse, norm).real()
}

/// The real transform, of `n` elements (2 (m - 1) by default, of m), of a signal with
/// `x[-j] = conj(x[j])` of which the first half is given.
///
/// # Panics
/// If the dimension does not exist or is empty.
#[track_caller]
pub fn hfft(x: &Tensor, n: impl Into<Option<usize>>, dim: i64, norm: Norm) -> Tensor {
    let op = "fft.hfft";
    let axis = x.axis(op, dim);
    let n = n.into().unwrap_or(2 * x.shape()[axis].saturating_sub(1));
    complex_to_real(op, &complex(op, x), axis, n, false, norm)
}

/// The inverse of [`hfft`]: the first half of the signal whose transform is `x`.
///
/// # Panics
/// If the operand is complex, or the dimension does not exist or is empty.
#[track_caller]
pub fn ihfft(x: &Tensor, n: impl Into<Option<usize>>, dim: i64, norm: Norm) -> Tensor {
    let op = "fft.ihfft";
    let axis = x.axis(op, dim);
    let n = n.into().unwrap_or(x.shape()[axis]);
    real_to_complex(op, &check_real(op, x), axis, n, true, norm)
}

/// The axes and extents of a transform over several dimensions. Without `dims`, the last
/// ones for which there are extents, or all.
#[track_caller]
fn plan(op: &str, x: &Tensor, s: Option<&[usize]>, dims: Option<&[i64]>) -> Vec<(usize, usize)> {
    let axes: Axes = match (dims, s) {
        (Some(d), _) => x.axes(op, d),
        (None, Some(s)) if s.len() <= x.rank() => (x.rank() - s.len()..x.rank()).collect(),
        (None, Some(s)) => panic!("{op}: {} extents for a tensor {:?}", s.len(), x.shape()),
        (None, None) => (0..x.rank()).collect(),
    };
    for (i, a) in axes.iter().enumerate() {
        if axes[..i].contains(a) {
            panic!("{op}: dimension {a} is given twice");
        }
    }
    if let Some(s) = s
        && s.len() != axes.len()
    {
        panic!("{op}: {} extents for {} dimensions", s.len(), axes.len());
    }
    axes.iter().enumerate().map(|(i, &a)| (a, s.map_or(x.shape()[a], |s| s[i]))).collect()
}

#[track_caller]
fn over_all(op: &str, x: &Tensor, plan: &[(usize, usize)], inverse: bool, norm: Norm) -> Tensor {
    let mut y = x.clone();
    for &(axis, n) in plan {
        y = transform(op, &y, axis, n, inverse, norm);
    }
    y
}

macro_rules! several {
    ($($(#[$doc:meta])* $name:ident, $two:ident, |$x:ident, $s:ident, $dims:ident, $norm:ident| $body:expr;)*) => {$(
        $(#[$doc])*
        ///
        /// `s` are the extents to which the dimensions are cut or filled up; `dims` are the
        /// last dimensions for which there are extents, or all, by default.
        ///
        /// # Panics
        /// If a dimension does not exist, is given twice, or is empty.
        #[track_caller]
        pub fn $name($x: &Tensor, $s: Option<&[usize]>, $dims: Option<&[i64]>, $norm: Norm) -> Tensor {
            $body
        }

        #[doc = concat!("[`", stringify!($name), "`] over two dimensions.")]
        ///
        /// # Panics
        #[doc = concat!("As [`", stringify!($name), "`].")]
        #[track_caller]
        pub fn $two(x: &Tensor, s: Option<[usize; 2]>, dims: [i64; 2], norm: Norm) -> Tensor {
            $name(x, s.as_ref().map(|s| &s[..]), Some(&dims), norm)
        }
    )*};
}

several! {
    /// [`fft`] over several dimensions.
    fftn, fft2, |x, s, dims, norm| {
        let op = "fft.fftn";
        over_all(op, &complex(op, x), &plan(op, x, s, dims), false, norm)
    };
    /// [`ifft`] over several dimensions.
    ifftn, ifft2, |x, s, dims, norm| {
        let op = "fft.ifftn";
        over_all(op, &complex(op, x), &plan(op, x, s, dims), true, norm)
    };
    /// [`rfft`] over the last dimension, [`fft`] over the others.
    rfftn, rfft2, |x, s, dims, norm| {
        let op = "fft.rfftn";
        let plan = plan(op, x, s, dims);
        let Some((&(axis, n), rest)) = plan.split_last() else {
            panic!("{op}: needs at least one dimension")
        };
        let y = real_to_complex(op, &check_real(op, x), axis, n, false, norm);
        over_all(op, &y, rest, false, norm)
    };
    /// The inverse of [`rfftn`]: [`irfft`] over the last dimension, whose extent is that of
    /// the result, after [`ifft`] over the others.
    irfftn, irfft2, |x, s, dims, norm| {
        let op = "fft.irfftn";
        to_real(op, x, s, dims, true, norm)
    };
    /// [`hfft`] over the last dimension, whose extent is that of the result, after [`fft`]
    /// over the others.
    hfftn, hfft2, |x, s, dims, norm| {
        let op = "fft.hfftn";
        to_real(op, x, s, dims, false, norm)
    };
    /// The inverse of [`hfftn`].
    ihfftn, ihfft2, |x, s, dims, norm| {
        let op = "fft.ihfftn";
        let plan = plan(op, x, s, dims);
        let Some((&(axis, n), rest)) = plan.split_last() else {
            panic!("{op}: needs at least one dimension")
        };
        let y = real_to_complex(op, &check_real(op, x), axis, n, true, norm);
        over_all(op, &y, rest, true, norm)
    };
}

#[track_caller]
fn to_real(
    op: &str,
    x: &Tensor,
    s: Option<&[usize]>,
    dims: Option<&[i64]>,
    inverse: bool,
    norm: Norm,
) -> Tensor {
    let plan = plan(op, x, s, dims);
    let Some((&(axis, n), rest)) = plan.split_last() else {
        panic!("{op}: needs at least one dimension")
    };
    let n = if s.is_some() { n } else { 2 * n.saturating_sub(1) };
    let y = over_all(op, &complex(op, x), rest, inverse, norm);
    complex_to_real(op, &y, axis, n, inverse, norm)
}

/// The frequencies of [`fft`] of `n` samples `d` apart, in the default type: from 0 up, then
/// the negative ones.
///
/// ```
/// use sinter::fft::fftfreq;
/// assert_eq!(fftfreq(4, 1.0).to_vec::<f32>(), [0.0, 0.25, -0.5, -0.25]);
/// ```
#[track_caller]
pub fn fftfreq(n: usize, d: f64) -> Tensor {
    let k: Vec<f64> = (0..n)
        .map(|k| if k < n.div_ceil(2) { k as f64 } else { k as f64 - n as f64 })
        .map(|k| k / (n as f64 * d))
        .collect();
    crate::tensor::from_slice(&k, [n]).to_dtype(default_dtype())
}

/// The frequencies of [`rfft`] of `n` samples `d` apart, in the default type.
#[track_caller]
pub fn rfftfreq(n: usize, d: f64) -> Tensor {
    let count = arange(0i64, (n / 2 + 1) as i64, 1i64).to_dtype(DType::F64);
    (count * (1.0 / (n as f64 * d))).to_dtype(default_dtype())
}

/// Moves the frequency 0 to the middle of `dims`, of all dimensions when there are none.
#[track_caller]
pub fn fftshift(x: &Tensor, dims: impl IntoAxes) -> Tensor {
    shifted("fft.fftshift", x, dims, |n| n / 2)
}

/// The inverse of [`fftshift`].
#[track_caller]
pub fn ifftshift(x: &Tensor, dims: impl IntoAxes) -> Tensor {
    shifted("fft.ifftshift", x, dims, |n| n.div_ceil(2))
}

#[track_caller]
fn shifted(op: &str, x: &Tensor, dims: impl IntoAxes, by: impl Fn(usize) -> usize) -> Tensor {
    let mut axes = x.axes(op, dims);
    if axes.is_empty() {
        axes = (0..x.rank()).collect();
    }
    let by: Axes = axes.iter().map(|&a| by(x.shape()[a])).collect();
    x.roll(by.as_slice(), axes.as_slice())
}
