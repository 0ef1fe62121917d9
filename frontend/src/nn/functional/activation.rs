//! Activations beyond those that are methods of [`Tensor`]. All act element by element
//! and keep shape and type, but for [`glu`]. Formulas are PyTorch's.

use crate::tensor::{Tensor, rand_like};
use sinter_runtime::Scalar;

/// The part of `x` that is not positive, for functions that differ there: where
/// `e^x` of the other part overflowed, its derivative would be NaN.
#[track_caller]
fn negative_part(x: &Tensor) -> Tensor {
    x.minimum(0.0)
}

/// `x` where positive, else `alpha (e^x - 1)` (Clevert et al. 2016).
///
/// ```
/// use sinter::nn::functional as F;
/// use sinter::tensor;
/// let x = tensor([-1.0f64, 2.0]);
/// assert_eq!(F::elu(&x, 1.0).to_vec::<f64>(), [(-1.0f64).exp_m1(), 2.0]);
/// assert_eq!(F::hardtanh(&x, -0.5, 0.5).to_vec::<f64>(), [-0.5, 0.5]);
/// assert_eq!(F::softsign(&x).to_vec::<f64>(), [-0.5, 2.0 / 3.0]);
/// ```
#[track_caller]
pub fn elu(x: &Tensor, alpha: f64) -> Tensor {
    x.gt(0.0).where_(x, negative_part(x).expm1() * alpha)
}

/// `x` where positive, else `alpha (e^(x / alpha) - 1)` (Barron 2017).
#[track_caller]
pub fn celu(x: &Tensor, alpha: f64) -> Tensor {
    x.gt(0.0).where_(x, (negative_part(x) / alpha).expm1() * alpha)
}

/// ELU with the two constants that keep activations normalised (Klambauer et al. 2017).
#[track_caller]
pub fn selu(x: &Tensor) -> Tensor {
    elu(x, 1.673_263_242_354_377_2) * 1.050_700_987_355_480_5
}

/// One half of `x` along `dim`, gated by the sigmoid of the other (Dauphin et al. 2017).
///
/// # Panics
/// If the dimension's extent is odd.
#[track_caller]
pub fn glu(x: &Tensor, dim: i64) -> Tensor {
    let n = x.size(dim);
    if !n.is_multiple_of(2) {
        panic!("glu: dimension {dim} of {:?} is odd; it is cut in halves", x.shape());
    }
    x.narrow(dim, 0, n / 2) * x.narrow(dim, n / 2, n / 2).sigmoid()
}

/// Zero within `lambda` of zero, else `x`.
#[track_caller]
pub fn hardshrink(x: &Tensor, lambda: f64) -> Tensor {
    x.masked_fill(&x.abs().le(lambda), 0.0)
}

/// `x` moved towards zero by `lambda`, but not across.
#[track_caller]
pub fn softshrink(x: &Tensor, lambda: f64) -> Tensor {
    x - x.clamp(-lambda, lambda)
}

/// `min(max(x + 3, 0), 6) / 6`
#[track_caller]
pub fn hardsigmoid(x: &Tensor) -> Tensor {
    relu6(&(x + 3.0)) / 6.0
}

/// `x min(max(x + 3, 0), 6) / 6` (Howard et al. 2019).
#[track_caller]
pub fn hardswish(x: &Tensor) -> Tensor {
    x * relu6(&(x + 3.0)) / 6.0
}

/// `x` cut to `[min, max]`.
#[track_caller]
pub fn hardtanh(x: &Tensor, min: f64, max: f64) -> Tensor {
    x.clamp(min, max)
}

/// `min(max(x, 0), 6)`
#[track_caller]
pub fn relu6(x: &Tensor) -> Tensor {
    x.clamp(0.0, 6.0)
}

/// `x` where positive, else `slope x`.
#[track_caller]
pub fn leaky_relu(x: &Tensor, slope: f64) -> Tensor {
    x.gt(0.0).where_(x, x * slope)
}

/// `x` where positive, else `weight x`: one learned slope, or one for each index of
/// dimension 1 (He et al. 2015).
///
/// # Panics
/// If there are several slopes, but not one for each channel.
#[track_caller]
pub fn prelu(x: &Tensor, weight: &Tensor) -> Tensor {
    let slope = if weight.numel() == 1 {
        weight.reshape([1; 0])
    } else {
        if x.rank() < 2 || weight.numel() != x.shape()[1] {
            panic!(
                "prelu: {} slopes for the channels of {:?}; there has to be one, or one each",
                weight.numel(),
                x.shape()
            );
        }
        let mut shape = vec![1; x.rank() - 1];
        shape[0] = weight.numel();
        weight.reshape(shape)
    };
    x.gt(0.0).where_(x, slope * x)
}

/// Leaky ReLU with slopes drawn from `[lower, upper)` where training, else with their
/// mean (Xu et al. 2015).
#[track_caller]
pub fn rrelu(x: &Tensor, lower: f64, upper: f64, training: bool) -> Tensor {
    if !training {
        return leaky_relu(x, (lower + upper) / 2.0);
    }
    let slopes = rand_like(x) * (upper - lower) + lower;
    x.ge(0.0).where_(x, x * slopes)
}

/// `ln(1 / (1 + e^-x))`
#[track_caller]
pub fn logsigmoid(x: &Tensor) -> Tensor {
    -(-x).softplus()
}

/// `x tanh(ln(1 + e^x))` (Misra 2019).
#[track_caller]
pub fn mish(x: &Tensor) -> Tensor {
    x * x.softplus().tanh()
}

/// `ln(1 + e^(beta x)) / beta`; `x` itself where `beta x` is above `threshold`.
#[track_caller]
pub fn softplus(x: &Tensor, beta: f64, threshold: f64) -> Tensor {
    let scaled = x * beta;
    scaled.gt(threshold).where_(x, scaled.softplus() / beta)
}

/// `x / (1 + |x|)`
#[track_caller]
pub fn softsign(x: &Tensor) -> Tensor {
    x / (x.abs() + 1.0)
}

/// `x - tanh(x)`
#[track_caller]
pub fn tanhshrink(x: &Tensor) -> Tensor {
    x - x.tanh()
}

/// `x` where above `threshold`, else `value`.
#[track_caller]
pub fn threshold(x: &Tensor, threshold: impl Into<Scalar>, value: impl Into<Scalar>) -> Tensor {
    x.masked_fill(&x.le(threshold.into()), value)
}

/// Softmax of `-x` along `dim`.
#[track_caller]
pub fn softmin(x: &Tensor, dim: i64) -> Tensor {
    x.softmin(dim)
}
