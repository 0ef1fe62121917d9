//! Dropout in its kinds (Hinton et al. 2012).

use crate::random;
use crate::tensor::{Tensor, apply, full, rand};
use sinter_runtime::Op;
use sinter_runtime::op::Real;

#[track_caller]
fn probability(op: &str, p: f64) {
    if !(0.0..=1.0).contains(&p) {
        panic!("{op}: {p} is not a probability");
    }
}

/// Zeroes elements with probability `p` and scales the others by `1 / (1 - p)`.
///
/// # Panics
/// If `p` is not a probability.
#[track_caller]
pub fn dropout(x: &Tensor, p: f64, training: bool) -> Tensor {
    if !training || p == 0.0 {
        return x.clone();
    }
    let (seed, offset, place) = random::part(x.numel());
    let op = Op::Dropout { p: Real::new(p), seed, offset };
    match &place {
        Some(place) => apply(op, &[x, place]),
        None => apply(op, &[x]),
    }
}

/// The shape of a mask that holds one number for each channel.
#[track_caller]
fn channel_shape(op: &str, x: &Tensor, inner: usize) -> Vec<usize> {
    if x.rank() != inner + 1 && x.rank() != inner + 2 {
        panic!(
            "{op}: needs {} or {} dimensions, the shape is {:?}",
            inner + 1,
            inner + 2,
            x.shape()
        );
    }
    let mut shape = x.shape().to_vec();
    let lead = shape.len() - inner;
    shape[lead..].fill(1);
    shape
}

#[track_caller]
fn channel_dropout(op: &str, x: &Tensor, inner: usize, p: f64, training: bool) -> Tensor {
    probability(op, p);
    let shape = channel_shape(op, x, inner);
    if !training || p == 0.0 {
        return x.clone();
    }
    x * dropout(&full(shape, 1.0, x.dtype()), p, true)
}

/// [`dropout`] of whole channels of [N, C, L] or [C, L] (Tompson et al. 2015).
///
/// # Panics
/// If `p` is not a probability, or the dimensions are others.
#[track_caller]
pub fn dropout1d(x: &Tensor, p: f64, training: bool) -> Tensor {
    channel_dropout("dropout1d", x, 1, p, training)
}

/// [`dropout`] of whole channels of [N, C, H, W] or [C, H, W].
///
/// # Panics
/// If `p` is not a probability, or the dimensions are others.
#[track_caller]
pub fn dropout2d(x: &Tensor, p: f64, training: bool) -> Tensor {
    channel_dropout("dropout2d", x, 2, p, training)
}

/// [`dropout`] of whole channels of [N, C, D, H, W] or [C, D, H, W].
///
/// # Panics
/// If `p` is not a probability, or the dimensions are others.
#[track_caller]
pub fn dropout3d(x: &Tensor, p: f64, training: bool) -> Tensor {
    channel_dropout("dropout3d", x, 3, p, training)
}

/// Replaces elements by the value that SELU saturates at, with probability `p`, and
/// keeps mean and variance (Klambauer et al. 2017). `shape` is that of the mask.
#[track_caller]
fn alpha(op: &str, x: &Tensor, shape: &[usize], p: f64, training: bool) -> Tensor {
    probability(op, p);
    if !training || p == 0.0 {
        return x.clone();
    }
    const SATURATED: f64 = -1.758_099_340_847_376_6;
    let scale = ((1.0 - p) * (1.0 + p * SATURATED * SATURATED)).powf(-0.5);
    let shift = -scale * SATURATED * p;
    let keep = rand(shape).ge(p);
    keep.where_(x, SATURATED) * scale + shift
}

/// Dropout that keeps mean and variance of what SELU gives.
///
/// # Panics
/// If `p` is not a probability.
#[track_caller]
pub fn alpha_dropout(x: &Tensor, p: f64, training: bool) -> Tensor {
    alpha("alpha_dropout", x, x.shape(), p, training)
}

/// [`alpha_dropout`] of whole channels of [N, C, ..].
///
/// # Panics
/// If `p` is not a probability, or there are fewer than two dimensions.
#[track_caller]
pub fn feature_alpha_dropout(x: &Tensor, p: f64, training: bool) -> Tensor {
    if !training || p == 0.0 {
        return alpha("feature_alpha_dropout", x, &[], p, false);
    }
    if x.rank() < 2 {
        panic!("feature_alpha_dropout: needs [N, C, ..], the shape is {:?}", x.shape());
    }
    let mut shape = x.shape().to_vec();
    shape[2..].fill(1);
    alpha("feature_alpha_dropout", x, &shape, p, training)
}
