//! The models that are measured, with the peers' names for their weights.

use sinter::nn::{Conv2d, Layer, Linear, Module, functional as F};
use sinter::{Tensor, randn};

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

/// PyTorch's MNIST example, without its dropout when it is not training.
#[derive(Debug, Module)]
pub struct MnistCnn {
    conv1: Conv2d,
    conv2: Conv2d,
    fc1: Linear,
    fc2: Linear,
    #[module(skip)]
    training: bool,
}

impl MnistCnn {
    /// With random weights.
    pub fn new(training: bool) -> MnistCnn {
        MnistCnn {
            conv1: Conv2d::new(1, 32, 3),
            conv2: Conv2d::new(32, 64, 3),
            fc1: Linear::new(9216, 128),
            fc2: Linear::new(128, 10),
            training,
        }
    }
}

impl Layer for MnistCnn {
    fn forward(&self, x: &Tensor) -> Tensor {
        let x = self.conv1.forward(x).relu();
        let x = self.conv2.forward(&x).relu();
        let x = F::dropout(&F::max_pool2d(&x, [2, 2]), 0.25, self.training);
        let x = self.fc1.forward(&x.flatten(1, -1)).relu();
        let x = F::dropout(&x, 0.5, self.training);
        self.fc2.forward(&x).log_softmax(1)
    }
}

/// A model by name and an input for it at this batch size.
pub fn by_name(name: &str, batch: usize) -> Option<(Box<dyn Layer + Send + Sync>, Tensor)> {
    Some(match name {
        "mlp" => (Box::new(Mlp::new()), randn([batch, 784])),
        "mnist_cnn" => (Box::new(MnistCnn::new(false)), randn([batch, 1, 28, 28])),
        _ => return None,
    })
}
