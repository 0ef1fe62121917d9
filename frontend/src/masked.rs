//! Reductions and normalisations over the elements that a mask keeps, as PyTorch's
//! `torch.masked`. A mask is bool, broadcasts to the tensor, and is true where elements
//! count; those that do not count pass no gradient. Where none counts, a sum is 0, a
//! product 1, an extreme infinite, a mean NaN.
//!
//! ```
//! use sinter::{masked, tensor};
//! let x = tensor([1.0f32, 2.0, 9.0]);
//! let mask = tensor([true, true, false]);
//! assert_eq!(masked::mean(&x, &mask, 0, false).item::<f32>(), 1.5);
//! assert_eq!(masked::argmax(&x, &mask, 0, false).item::<i64>(), 1);
//! ```

use crate::tensor::{IntoAxes, Tensor, full_like, highest, lowest};
use sinter_runtime::{DType, Scalar};

/// The tensor with what the mask hides replaced.
#[track_caller]
fn hidden(op: &str, x: &Tensor, mask: &Tensor, fill: impl Into<Scalar>) -> Tensor {
    if mask.dtype() != DType::Bool {
        panic!("masked::{op}: the mask is {}, not bool", mask.dtype());
    }
    if crate::broadcast_shapes(&[x.shape(), mask.shape()]) != x.shape() {
        panic!(
            "masked::{op}: a mask of shape {:?} does not broadcast to {:?}",
            mask.shape(),
            x.shape()
        );
    }
    mask.where_(x, full_like(&x.detach(), fill))
}

/// How many elements count.
#[track_caller]
fn count(x: &Tensor, mask: &Tensor, axes: &[usize], keep: bool) -> Tensor {
    mask.broadcast_to(x.shape()).sum_dim(axes, keep).to_dtype(x.dtype())
}

/// Sum over dimensions.
#[track_caller]
pub fn sum(x: &Tensor, mask: &Tensor, dims: impl IntoAxes, keep: bool) -> Tensor {
    hidden("sum", x, mask, 0).sum_dim(dims, keep)
}

/// Product over dimensions.
#[track_caller]
pub fn prod(x: &Tensor, mask: &Tensor, dims: impl IntoAxes, keep: bool) -> Tensor {
    hidden("prod", x, mask, 1).prod_dim(dims, keep)
}

/// Mean over dimensions.
#[track_caller]
pub fn mean(x: &Tensor, mask: &Tensor, dims: impl IntoAxes, keep: bool) -> Tensor {
    let axes = x.axes("masked::mean", dims);
    hidden("mean", x, mask, 0).sum_dim(axes.as_slice(), keep) / count(x, mask, &axes, keep)
}

/// Largest over dimensions.
#[track_caller]
pub fn amax(x: &Tensor, mask: &Tensor, dims: impl IntoAxes, keep: bool) -> Tensor {
    hidden("amax", x, mask, lowest(x.dtype())).amax(dims, keep)
}

/// Smallest over dimensions.
#[track_caller]
pub fn amin(x: &Tensor, mask: &Tensor, dims: impl IntoAxes, keep: bool) -> Tensor {
    hidden("amin", x, mask, highest(x.dtype())).amin(dims, keep)
}

/// Index of the largest along a dimension.
#[track_caller]
pub fn argmax(x: &Tensor, mask: &Tensor, dim: i64, keep: bool) -> Tensor {
    hidden("argmax", x, mask, lowest(x.dtype())).argmax_dim(dim, keep)
}

/// Index of the smallest along a dimension.
#[track_caller]
pub fn argmin(x: &Tensor, mask: &Tensor, dim: i64, keep: bool) -> Tensor {
    hidden("argmin", x, mask, highest(x.dtype())).argmin_dim(dim, keep)
}

/// Running sum along a dimension.
#[track_caller]
pub fn cumsum(x: &Tensor, mask: &Tensor, dim: i64) -> Tensor {
    hidden("cumsum", x, mask, 0).cumsum(dim)
}

/// Running product along a dimension.
#[track_caller]
pub fn cumprod(x: &Tensor, mask: &Tensor, dim: i64) -> Tensor {
    hidden("cumprod", x, mask, 1).cumprod(dim)
}

/// `ln Σ e^x` over dimensions.
#[track_caller]
pub fn logsumexp(x: &Tensor, mask: &Tensor, dims: impl IntoAxes, keep: bool) -> Tensor {
    hidden("logsumexp", x, mask, f64::NEG_INFINITY).logsumexp(dims, keep)
}

/// `ln(e^a + e^b)` of the elements that count.
#[track_caller]
pub fn logaddexp(a: &Tensor, b: &Tensor, mask_a: &Tensor, mask_b: &Tensor) -> Tensor {
    let (a, b) = (
        hidden("logaddexp", a, mask_a, f64::NEG_INFINITY),
        hidden("logaddexp", b, mask_b, f64::NEG_INFINITY),
    );
    a.logaddexp(&b)
}

/// `e^x / Σ e^x` along a dimension; 0 where hidden.
#[track_caller]
pub fn softmax(x: &Tensor, mask: &Tensor, dim: i64) -> Tensor {
    hidden("softmax", x, mask, f64::NEG_INFINITY).softmax(dim)
}

/// The logarithm of [`softmax`].
#[track_caller]
pub fn log_softmax(x: &Tensor, mask: &Tensor, dim: i64) -> Tensor {
    hidden("log_softmax", x, mask, f64::NEG_INFINITY).log_softmax(dim)
}

/// `e^-x / Σ e^-x` along a dimension; 0 where hidden.
#[track_caller]
pub fn softmin(x: &Tensor, mask: &Tensor, dim: i64) -> Tensor {
    hidden("softmin", x, mask, f64::INFINITY).softmin(dim)
}

/// Median along a dimension, of an even number the lower one.
#[track_caller]
pub fn median(x: &Tensor, mask: &Tensor, dim: i64, keep: bool) -> Tensor {
    hidden("median", x, mask, f64::NAN).nanmedian_dim(dim, keep).0
}

/// The `p`-norm over dimensions.
#[track_caller]
pub fn norm(x: &Tensor, mask: &Tensor, p: f64, dims: impl IntoAxes, keep: bool) -> Tensor {
    let fill = if p < 0.0 { f64::INFINITY } else { 0.0 };
    hidden("norm", x, mask, fill).norm_dim(p, dims, keep)
}

/// Divided by the `p`-norm along a dimension, or by `eps` if that is larger.
#[track_caller]
pub fn normalize(x: &Tensor, mask: &Tensor, p: f64, dim: i64, eps: f64) -> Tensor {
    let norm = norm(x, mask, p, dim, true).clamp(eps, None);
    hidden("normalize", x, mask, 0) / norm
}

/// Variance over dimensions; the divisor is the count less `correction`.
#[track_caller]
pub fn var(
    x: &Tensor,
    mask: &Tensor,
    dims: impl IntoAxes,
    correction: usize,
    keep: bool,
) -> Tensor {
    let axes = x.axes("masked::var", dims);
    let d = x - mean(x, mask, axes.as_slice(), true);
    let squares = hidden("var", &d, mask, 0).square().sum_dim(axes.as_slice(), keep);
    squares / (count(x, mask, &axes, keep) - correction as f64).maximum(0.0)
}

/// Standard deviation over dimensions, the root of [`var`].
#[track_caller]
pub fn std(
    x: &Tensor,
    mask: &Tensor,
    dims: impl IntoAxes,
    correction: usize,
    keep: bool,
) -> Tensor {
    var(x, mask, dims, correction, keep).sqrt()
}
