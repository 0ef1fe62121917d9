//! Normalisations. Statistics are those of the formulas; variances are biased.

use super::pool2d;
use crate::no_grad;
use crate::tensor::{Tensor, apply};
use sinter_runtime::op::{PoolKind, Real};
use sinter_runtime::{DType, Op};

/// Normalises over the last dimensions, those of `weight`, and scales and shifts.
#[track_caller]
pub fn layer_norm(
    x: &Tensor,
    dims: usize,
    weight: Option<&Tensor>,
    bias: Option<&Tensor>,
    eps: f64,
) -> Tensor {
    let op = Op::LayerNorm { dims, eps: Real::new(eps) };
    match (weight, bias) {
        (None, None) => apply(op, &[x]),
        (None, Some(b)) => apply(op, &[x]) + b,
        (Some(w), None) => apply(op, &[x, w]),
        (Some(w), Some(b)) => apply(op, &[x, w, b]),
    }
}

/// Half precision as f32: squares of it overflow.
#[track_caller]
fn wide(x: &Tensor) -> Tensor {
    if x.dtype().is_half() { x.to_dtype(DType::F32) } else { x.clone() }
}

/// Divided by the root of the mean square over the last `dims` dimensions, and scaled
/// (Zhang and Sennrich 2019).
///
/// ```
/// use sinter::nn::functional as F;
/// use sinter::tensor;
/// let y = F::rms_norm(&tensor([[3.0f32, 4.0]]), 1, None, 0.0);
/// assert!((y.to_vec::<f32>()[0] - 3.0 / 12.5f32.sqrt()).abs() < 1e-6);
/// ```
#[track_caller]
pub fn rms_norm(x: &Tensor, dims: usize, weight: Option<&Tensor>, eps: f64) -> Tensor {
    let axes: Vec<i64> = (1..=dims as i64).map(|d| -d).collect();
    let wide = wide(x);
    let y = &wide * (wide.square().mean_dim(axes, true) + eps).rsqrt();
    match weight {
        Some(w) => y * w,
        None => y,
    }
    .to_dtype(x.dtype())
}

/// `t` [C] beside `x` [N, C, ..].
#[track_caller]
fn per_channel(op: &str, x: &Tensor, t: &Tensor) -> Tensor {
    if t.rank() != 1 || t.numel() != x.shape()[1] {
        panic!(
            "{op}: {:?} numbers for the channels of {:?}; there has to be one each",
            t.shape(),
            x.shape()
        );
    }
    let mut shape = vec![1; x.rank() - 1];
    shape[0] = t.numel();
    t.reshape(shape)
}

#[track_caller]
fn channels_of(op: &str, x: &Tensor, least: usize) {
    if x.rank() < least {
        panic!("{op}: needs at least {least} dimensions, [N, C, ..]; the shape is {:?}", x.shape());
    }
}

#[track_caller]
fn scaled(op: &str, y: Tensor, weight: Option<&Tensor>, bias: Option<&Tensor>) -> Tensor {
    let y = match weight {
        Some(w) => {
            let w = per_channel(op, &y, w);
            y * w
        }
        None => y,
    };
    match bias {
        Some(b) => {
            let b = per_channel(op, &y, b);
            y + b
        }
        None => y,
    }
}

/// Mean and biased variance over `axes`, which stay as ones.
#[track_caller]
fn moments(x: &Tensor, axes: &[i64]) -> (Tensor, Tensor) {
    let mean = x.mean_dim(axes, true);
    let var = (x - &mean).square().mean_dim(axes, true);
    (mean, var)
}

/// What batch normalisation remembers of the batches it saw: tensors `[C]` that are
/// updated in place.
#[derive(Clone, Copy, Debug)]
pub struct RunningStats<'a> {
    /// Mean of each channel.
    pub mean: &'a Tensor,
    /// Variance of each channel, unbiased.
    pub var: &'a Tensor,
}

impl RunningStats<'_> {
    /// Moves towards the statistics of `n` elements a channel.
    #[track_caller]
    fn update(&self, mean: &Tensor, var: &Tensor, n: usize, momentum: f64) {
        no_grad(|| {
            let n = n as f64;
            let toward = |old: &Tensor, new: Tensor| {
                let new = new.to_dtype(old.dtype()).reshape(old.shape());
                old.copy_(&(old * (1.0 - momentum) + new * momentum));
            };
            toward(self.mean, mean.detach());
            // In two steps: each number is one that is computed where sizes are open.
            toward(self.var, var.detach() * n * (1.0 / (n - 1.0)));
        });
    }
}

/// Normalises each channel of [N, C, ..] over all else: where training by the batch's
/// statistics, which also move the running ones by `momentum`, else by the running
/// ones (Ioffe and Szegedy 2015).
///
/// # Panics
/// If not training and there are no running statistics.
#[track_caller]
pub fn batch_norm(
    x: &Tensor,
    running: Option<RunningStats>,
    weight: Option<&Tensor>,
    bias: Option<&Tensor>,
    training: bool,
    momentum: f64,
    eps: f64,
) -> Tensor {
    channels_of("batch_norm", x, 2);
    let dtype = x.dtype();
    let x = &wide(x);
    let (mean, var) = if training {
        let axes: Vec<i64> = (0..x.rank() as i64).filter(|&d| d != 1).collect();
        let (mean, var) = moments(x, &axes);
        if let Some(r) = running {
            r.update(&mean, &var, x.numel() / x.shape()[1].max(1), momentum);
        }
        (mean, var)
    } else {
        let Some(r) = running else {
            panic!("batch_norm: needs the running statistics where it is not training")
        };
        (per_channel("batch_norm", x, r.mean), per_channel("batch_norm", x, r.var))
    };
    scaled("batch_norm", (x - mean) * (var + eps).rsqrt(), weight, bias).to_dtype(dtype)
}

/// Normalises each channel of each instance of [N, C, ..] over the dimensions after it
/// (Ulyanov et al. 2016). Running statistics move by the mean over the batch; without
/// `use_input_stats` they take the place of the instance's own.
#[track_caller]
pub fn instance_norm(
    x: &Tensor,
    running: Option<RunningStats>,
    weight: Option<&Tensor>,
    bias: Option<&Tensor>,
    use_input_stats: bool,
    momentum: f64,
    eps: f64,
) -> Tensor {
    channels_of("instance_norm", x, 3);
    let dtype = x.dtype();
    let x = &wide(x);
    if !use_input_stats {
        return batch_norm(x, running, weight, bias, false, momentum, eps);
    }
    let axes: Vec<i64> = (2..x.rank() as i64).collect();
    let (mean, var) = moments(x, &axes);
    if let Some(r) = running {
        let n = x.shape()[2..].iter().product();
        r.update(&mean.mean_dim(0, true), &var.mean_dim(0, true), n, momentum);
    }
    scaled("instance_norm", (x - mean) * (var + eps).rsqrt(), weight, bias).to_dtype(dtype)
}

/// Normalises each of `groups` groups of channels of each instance of [N, C, ..] (Wu
/// and He 2018).
///
/// # Panics
/// If the channels do not form so many groups.
#[track_caller]
pub fn group_norm(
    x: &Tensor,
    groups: usize,
    weight: Option<&Tensor>,
    bias: Option<&Tensor>,
    eps: f64,
) -> Tensor {
    channels_of("group_norm", x, 2);
    let (n, c) = (x.shape()[0], x.shape()[1]);
    if groups == 0 || !c.is_multiple_of(groups) {
        panic!("group_norm: {c} channels do not form {groups} groups");
    }
    let per_group = x.shape()[1..].iter().product::<usize>() / groups;
    let y = wide(x).reshape([n, groups, per_group]);
    let (mean, var) = moments(&y, &[2]);
    let y = ((y - mean) * (var + eps).rsqrt()).reshape(x.shape());
    scaled("group_norm", y, weight, bias).to_dtype(x.dtype())
}

/// Divided by `(k + alpha m)^beta`, where `m` is the mean square of the `size` channels
/// around (Krizhevsky et al. 2012).
///
/// # Panics
/// If there are fewer than three dimensions, or `size` is 0.
#[track_caller]
pub fn local_response_norm(x: &Tensor, size: usize, alpha: f64, beta: f64, k: f64) -> Tensor {
    channels_of("local_response_norm", x, 3);
    if size == 0 {
        panic!("local_response_norm: a window of 0 channels");
    }
    if x.numel() == 0 {
        return x.clone();
    }
    let (n, c) = (x.shape()[0], x.shape()[1]);
    let rest: usize = x.shape()[2..].iter().product();
    let squares = x.square().reshape([n, 1, c, rest]);
    let padded = squares.pad(&[(0, 0), (0, 0), (size / 2, (size - 1) / 2), (0, 0)], 0.0);
    let mean = pool2d(&padded, PoolKind::Avg, [size, 1], [1, 1], [0, 0]).reshape(x.shape());
    x / (mean * alpha + k).pow(beta)
}
