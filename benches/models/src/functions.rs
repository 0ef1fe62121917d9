//! Functions and single layers that are measured by themselves.

use crate::Model;
use sinter::Tensor;
use sinter::nn::{Layer, LayerNorm, Module};

/// A chain of element-wise functions.
#[derive(Clone, Copy, Debug, Module)]
pub struct Elementwise;

impl Layer for Elementwise {
    #[track_caller]
    fn forward(&self, x: &Tensor) -> Tensor {
        let y = (x * 1.1 + 0.1).gelu() * x.sigmoid() + (x - 0.1).tanh() * 0.7;
        y.relu() + (-x.abs()).exp()
    }
}

/// Normalisation over the last dimension, and what becomes of it: a softmax, where one
/// follows.
#[derive(Debug, Module)]
pub struct LayerNormSoftmax {
    ln: LayerNorm,
    softmax: bool,
}

impl LayerNormSoftmax {
    /// Over a last dimension of `size`.
    pub fn new(size: usize, softmax: bool) -> LayerNormSoftmax {
        LayerNormSoftmax { ln: LayerNorm::new(size), softmax }
    }
}

impl Layer for LayerNormSoftmax {
    #[track_caller]
    fn forward(&self, x: &Tensor) -> Tensor {
        let y = self.ln.forward(x);
        if self.softmax { y.softmax(-1) } else { y }
    }
}

/// The product of two matrices.
#[derive(Clone, Copy, Debug, Module)]
pub struct MatMul;

impl Model for MatMul {
    #[track_caller]
    fn run(&self, inputs: &[Tensor]) -> Vec<Tensor> {
        let [a, b] = inputs else { panic!("MatMul takes two tensors, not {}", inputs.len()) };
        vec![a.matmul(b)]
    }
}
