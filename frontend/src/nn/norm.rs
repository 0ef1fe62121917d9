//! Normalisation layers.

use super::{Buffer, Layer, Module, Param, TrainFlag, functional as F};
use crate::no_grad;
use crate::tensor::{Tensor, ones, zeros};

/// Normalises over the last dimensions, then scales and shifts each element
/// (Ba et al., 2016).
#[derive(Debug, Module)]
pub struct LayerNorm {
    /// Scale, of the normalised shape.
    pub weight: Param,
    /// Shift, of the normalised shape.
    pub bias: Param,
    eps: f64,
}

impl LayerNorm {
    /// Over a last dimension of `size`, `eps` 1e-5.
    pub fn new(size: usize) -> LayerNorm {
        LayerNorm::with_shape(&[size], 1e-5)
    }

    /// Over several last dimensions.
    pub fn with_shape(shape: &[usize], eps: f64) -> LayerNorm {
        LayerNorm { weight: Param::new(ones(shape)), bias: Param::new(zeros(shape)), eps }
    }
}

impl Layer for LayerNorm {
    #[track_caller]
    fn forward(&self, x: &Tensor) -> Tensor {
        F::layer_norm(x, self.weight.rank(), Some(&self.weight), Some(&self.bias), self.eps)
    }
}

/// Normalises each channel of [N, C, H, W] by the statistics of the batch while
/// training, by running averages of them in evaluation; then scales and shifts
/// each channel (Ioffe and Szegedy, 2015).
#[derive(Debug, Module)]
pub struct BatchNorm2d {
    /// Scale `[C]`.
    pub weight: Param,
    /// Shift `[C]`.
    pub bias: Param,
    /// Running mean `[C]`.
    pub running_mean: Buffer,
    /// Running unbiased variance `[C]`.
    pub running_var: Buffer,
    momentum: f64,
    eps: f64,
    training: TrainFlag,
}

impl BatchNorm2d {
    /// For `channels`; momentum 0.1, `eps` 1e-5.
    pub fn new(channels: usize) -> BatchNorm2d {
        BatchNorm2d {
            weight: Param::new(ones([channels])),
            bias: Param::new(zeros([channels])),
            running_mean: Buffer::new(zeros([channels])),
            running_var: Buffer::new(ones([channels])),
            momentum: 0.1,
            eps: 1e-5,
            training: TrainFlag::default(),
        }
    }
}

impl Layer for BatchNorm2d {
    #[track_caller]
    fn forward(&self, x: &Tensor) -> Tensor {
        if x.rank() != 4 || x.size(1) != self.weight.numel() {
            panic!("BatchNorm2d: input {:?} is not [N, {}, H, W]", x.shape(), self.weight.numel());
        }
        let channels = |t: &Tensor| t.reshape([-1, 1, 1]);
        if !self.training.get() {
            // One factor and one shift per channel: a convolution before absorbs them.
            let scale = &*self.weight * (&*self.running_var + self.eps).rsqrt();
            let shift = &*self.bias - &*self.running_mean * &scale;
            return x * channels(&scale) + channels(&shift);
        }
        let axes = [0, 2, 3];
        let mean = x.mean_dim(axes, true);
        let d = x - &mean;
        let var = d.square().mean_dim(axes, true);
        no_grad(|| {
            let n = (x.numel() / self.weight.numel().max(1)) as f64;
            // In two steps: each number is one that is computed where sizes are open.
            let unbiased = var.reshape([-1]) * n * (1.0 / (n - 1.0).max(1.0));
            let keep = 1.0 - self.momentum;
            self.running_mean.mul_(keep).add_(mean.reshape([-1]) * self.momentum);
            self.running_var.mul_(keep).add_(unbiased * self.momentum);
        });
        d * (var + self.eps).rsqrt() * channels(&self.weight) + channels(&self.bias)
    }
}
