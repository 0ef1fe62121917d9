//! The linear layer.

use super::{Layer, Module, Param, functional as F, init};
use crate::tensor::{Tensor, default_dtype, empty};

/// `x wᵀ + b`: `x` `[.., in]`, `weight` `[out, in]`, `bias` `[out]`.
#[derive(Debug, Module)]
pub struct Linear {
    /// [out, in]
    pub weight: Param,
    /// `[out]`
    pub bias: Option<Param>,
}

impl Linear {
    /// With a bias; initialised as PyTorch does, uniform within `1 / sqrt(in)`.
    pub fn new(inputs: usize, outputs: usize) -> Linear {
        Linear::with_bias(inputs, outputs, true)
    }

    /// With or without a bias.
    pub fn with_bias(inputs: usize, outputs: usize, bias: bool) -> Linear {
        let weight = empty([outputs, inputs], default_dtype());
        init::kaiming_uniform_(&weight, 5f64.sqrt());
        let bound = 1.0 / (inputs.max(1) as f64).sqrt();
        let bias = bias.then(|| {
            let b = empty([outputs], default_dtype());
            init::uniform_(&b, -bound, bound);
            Param::new(b)
        });
        Linear { weight: Param::new(weight), bias }
    }
}

impl Layer for Linear {
    #[track_caller]
    fn forward(&self, x: &Tensor) -> Tensor {
        F::linear(x, &self.weight, self.bias.as_deref())
    }
}
