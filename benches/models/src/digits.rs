//! The network of PyTorch's MNIST example.

use sinter::Tensor;
use sinter::nn::{Conv2d, Dropout, Layer, Linear, Module, functional as F};

/// Two convolutions, pooling, two linear layers: images [N, 1, H, W] to
/// log-probabilities [N, classes].
#[derive(Debug, Module)]
pub struct MnistCnn {
    conv1: Conv2d,
    conv2: Conv2d,
    dropout1: Dropout,
    dropout2: Dropout,
    fc1: Linear,
    fc2: Linear,
}

impl MnistCnn {
    /// For MNIST's images and digits. Without `dropout`, training is deterministic.
    pub fn new(dropout: bool) -> MnistCnn {
        MnistCnn::with_size([28, 28], 10, dropout)
    }

    /// For images of a height and width of at least 6.
    pub fn with_size([height, width]: [usize; 2], classes: usize, dropout: bool) -> MnistCnn {
        // Each convolution takes off a border of one pixel, pooling halves.
        let pooled = 64 * ((height - 4) / 2) * ((width - 4) / 2);
        let p = |p| Dropout::new(if dropout { p } else { 0.0 });
        MnistCnn {
            conv1: Conv2d::new(1, 32, 3),
            conv2: Conv2d::new(32, 64, 3),
            dropout1: p(0.25),
            dropout2: p(0.5),
            fc1: Linear::new(pooled, 128),
            fc2: Linear::new(128, classes),
        }
    }
}

impl Layer for MnistCnn {
    #[track_caller]
    fn forward(&self, x: &Tensor) -> Tensor {
        let x = self.conv1.forward(x).relu();
        let x = self.conv2.forward(&x).relu();
        let x = F::max_pool2d(&x, [2, 2]);
        let x = self.dropout1.forward(&x).flatten(1, -1);
        let x = self.fc1.forward(&x).relu();
        let x = self.dropout2.forward(&x);
        self.fc2.forward(&x).log_softmax(-1)
    }
}
