//! A multi-layer perceptron.

use sinter::Tensor;
use sinter::nn::{Layer, Linear, Module};

/// Three linear layers, 784-512-512-10.
#[derive(Debug, Module)]
pub struct Mlp {
    fc1: Linear,
    fc2: Linear,
    fc3: Linear,
}

impl Mlp {
    /// With random weights.
    #[allow(clippy::new_without_default)]
    pub fn new() -> Mlp {
        Mlp { fc1: Linear::new(784, 512), fc2: Linear::new(512, 512), fc3: Linear::new(512, 10) }
    }
}

impl Layer for Mlp {
    #[track_caller]
    fn forward(&self, x: &Tensor) -> Tensor {
        let x = self.fc1.forward(x).relu();
        let x = self.fc2.forward(&x).relu();
        self.fc3.forward(&x)
    }
}
