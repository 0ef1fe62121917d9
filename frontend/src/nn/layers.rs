//! Layers with little or no state.

use super::{Layer, Module, Param, TrainFlag, functional as F};
use crate::tensor::{Tensor, randn};

/// Zeroes elements at random while training.
#[derive(Debug, Module)]
pub struct Dropout {
    p: f64,
    training: TrainFlag,
}

impl Dropout {
    /// Elements are zeroed with probability `p`.
    ///
    /// # Panics
    /// If `p` is not a probability.
    #[track_caller]
    pub fn new(p: f64) -> Dropout {
        if !(0.0..=1.0).contains(&p) {
            panic!("Dropout: {p} is not a probability");
        }
        Dropout { p, training: TrainFlag::default() }
    }
}

impl Layer for Dropout {
    #[track_caller]
    fn forward(&self, x: &Tensor) -> Tensor {
        F::dropout(x, self.p, self.training.get())
    }
}

/// A vector for each index.
#[derive(Debug, Module)]
pub struct Embedding {
    /// [number, size]
    pub weight: Param,
}

impl Embedding {
    /// `number` vectors of `size`, from the standard normal distribution.
    pub fn new(number: usize, size: usize) -> Embedding {
        Embedding { weight: Param::new(randn([number, size])) }
    }
}

impl Layer for Embedding {
    /// Takes i64 indices of any shape; adds the vectors as the last dimension.
    #[track_caller]
    fn forward(&self, index: &Tensor) -> Tensor {
        F::embedding(index, &self.weight)
    }
}

/// All dimensions but the first made one.
#[derive(Clone, Copy, Debug, Default, Module)]
pub struct Flatten;

impl Layer for Flatten {
    #[track_caller]
    fn forward(&self, x: &Tensor) -> Tensor {
        x.flatten(1, -1)
    }
}

/// An element-wise function as a layer.
#[derive(Clone, Copy, Debug, PartialEq, Module)]
pub enum Activation {
    /// `max(x, 0)`
    Relu,
    /// `min(max(x, 0), 6)`
    Relu6,
    /// Exact GELU.
    Gelu,
    /// GELU by its tanh approximation.
    GeluTanh,
    /// `x sigmoid(x)`
    Silu,
    /// Logistic function.
    Sigmoid,
    /// Hyperbolic tangent.
    Tanh,
    /// `x` where positive, else the slope times `x`.
    LeakyRelu(f64),
    /// Softmax along a dimension.
    Softmax(i64),
    /// Log-softmax along a dimension.
    LogSoftmax(i64),
}

impl Layer for Activation {
    #[track_caller]
    fn forward(&self, x: &Tensor) -> Tensor {
        match *self {
            Activation::Relu => x.relu(),
            Activation::Relu6 => F::relu6(x),
            Activation::Gelu => x.gelu(),
            Activation::GeluTanh => x.gelu_tanh(),
            Activation::Silu => x.silu(),
            Activation::Sigmoid => x.sigmoid(),
            Activation::Tanh => x.tanh(),
            Activation::LeakyRelu(slope) => x.gt(0.0).where_(x, &(x * slope)),
            Activation::Softmax(dim) => x.softmax(dim),
            Activation::LogSoftmax(dim) => x.log_softmax(dim),
        }
    }
}
