//! Initialisation of parameters, in place.

use crate::no_grad;
use crate::tensor::Tensor;

/// Inputs and outputs of a weight [out, in, …]: its fan-in and fan-out.
///
/// # Panics
/// If the weight has fewer than two dimensions.
#[track_caller]
pub fn fans(w: &Tensor) -> (usize, usize) {
    if w.rank() < 2 {
        panic!("fans: a weight of shape {:?} has fewer than two dimensions", w.shape());
    }
    let taps: usize = w.shape()[2..].iter().product();
    (w.shape()[1] * taps, w.shape()[0] * taps)
}

/// Uniform on [low, high).
#[track_caller]
pub fn uniform_(t: &Tensor, low: f64, high: f64) {
    no_grad(|| {
        t.uniform_(low, high);
    });
}

/// Normal with that mean and standard deviation.
#[track_caller]
pub fn normal_(t: &Tensor, mean: f64, std: f64) {
    no_grad(|| {
        t.normal_(mean, std);
    });
}

/// All elements `value`.
#[track_caller]
pub fn constant_(t: &Tensor, value: f64) {
    no_grad(|| {
        t.fill_(value);
    });
}

/// He et al. (2015), uniform: within `sqrt(6 / ((1 + a²) fan_in))`.
#[track_caller]
pub fn kaiming_uniform_(w: &Tensor, a: f64) {
    let bound = (6.0 / ((1.0 + a * a) * fans(w).0.max(1) as f64)).sqrt();
    uniform_(w, -bound, bound);
}

/// He et al. (2015), normal, for ReLU: standard deviation `sqrt(2 / fan_in)`.
#[track_caller]
pub fn kaiming_normal_(w: &Tensor) {
    normal_(w, 0.0, (2.0 / fans(w).0.max(1) as f64).sqrt());
}

/// Glorot and Bengio (2010), uniform: within `sqrt(6 / (fan_in + fan_out))`.
#[track_caller]
pub fn xavier_uniform_(w: &Tensor) {
    let (i, o) = fans(w);
    let bound = (6.0 / (i + o).max(1) as f64).sqrt();
    uniform_(w, -bound, bound);
}

/// Glorot and Bengio (2010), normal: standard deviation `sqrt(2 / (fan_in + fan_out))`.
#[track_caller]
pub fn xavier_normal_(w: &Tensor) {
    let (i, o) = fans(w);
    normal_(w, 0.0, (2.0 / (i + o).max(1) as f64).sqrt());
}
