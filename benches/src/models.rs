//! The models that are measured, with the peers' names for their weights.

use serde::Serialize;
use sinter::nn::{Conv2d, Layer, Linear, Module, functional as F};
use sinter::{Tensor, randn};

/// A model by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
#[value(rename_all = "snake_case")]
pub enum Net {
    /// Three linear layers.
    Mlp,
    /// PyTorch's MNIST example.
    MnistCnn,
}

impl std::fmt::Display for Net {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Net::Mlp => "mlp",
            Net::MnistCnn => "mnist_cnn",
        })
    }
}

impl Net {
    /// The model with random weights; `dropout` where it has any.
    pub fn build(self, dropout: bool) -> Box<dyn Layer + Send + Sync> {
        match self {
            Net::Mlp => Box::new(Mlp::new()),
            Net::MnistCnn => Box::new(MnistCnn::new(dropout)),
        }
    }

    /// A random input.
    pub fn input(self, batch: usize) -> Tensor {
        match self {
            Net::Mlp => randn([batch, 784]),
            Net::MnistCnn => randn([batch, 1, 28, 28]),
        }
    }
}

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
    fn forward(&self, x: &Tensor) -> Tensor {
        let x = self.fc1.forward(x).relu();
        let x = self.fc2.forward(&x).relu();
        self.fc3.forward(&x)
    }
}

/// PyTorch's MNIST example.
#[derive(Debug, Module)]
pub struct MnistCnn {
    conv1: Conv2d,
    conv2: Conv2d,
    fc1: Linear,
    fc2: Linear,
    #[module(skip)]
    dropout: bool,
}

impl MnistCnn {
    /// With random weights.
    pub fn new(dropout: bool) -> MnistCnn {
        MnistCnn {
            conv1: Conv2d::new(1, 32, 3),
            conv2: Conv2d::new(32, 64, 3),
            fc1: Linear::new(9216, 128),
            fc2: Linear::new(128, 10),
            dropout,
        }
    }
}

impl Layer for MnistCnn {
    fn forward(&self, x: &Tensor) -> Tensor {
        let x = self.conv1.forward(x).relu();
        let x = self.conv2.forward(&x).relu();
        let x = F::dropout(&F::max_pool2d(&x, [2, 2]), 0.25, self.dropout);
        let x = self.fc1.forward(&x.flatten(1, -1)).relu();
        let x = F::dropout(&x, 0.5, self.dropout);
        self.fc2.forward(&x).log_softmax(1)
    }
}
