//! Inverted residuals (Sandler et al., 2018), with torchvision's names.

use sinter::Tensor;
use sinter::nn::{
    Activation, AdaptiveAvgPool2d, BatchNorm2d, Conv2d, Conv2dOptions, Dropout, Layer, Linear,
    Module, Sequential,
};

/// A convolution without a bias, its normalisation, and ReLU6.
fn conv_norm(
    inputs: usize,
    outputs: usize,
    kernel: usize,
    stride: usize,
    groups: usize,
) -> Sequential {
    Sequential::new()
        .add(conv(inputs, outputs, kernel, stride, groups))
        .add(BatchNorm2d::new(outputs))
        .add(Activation::Relu6)
}

fn conv(inputs: usize, outputs: usize, kernel: usize, stride: usize, groups: usize) -> Conv2d {
    let options = Conv2dOptions {
        stride: [stride; 2],
        padding: [kernel / 2; 2],
        groups,
        bias: false,
        ..Conv2dOptions::default()
    };
    Conv2d::with_options(inputs, outputs, [kernel; 2], options)
}

/// Channels are made more, looked at each by itself, and made few again.
#[derive(Module)]
struct InvertedResidual {
    conv: Sequential,
    residual: bool,
}

impl InvertedResidual {
    fn new(inputs: usize, outputs: usize, stride: usize, expand: usize) -> InvertedResidual {
        let hidden = inputs * expand;
        let mut layers = Sequential::new();
        if expand != 1 {
            layers = layers.add(conv_norm(inputs, hidden, 1, 1, 1));
        }
        let layers = layers
            .add(conv_norm(hidden, hidden, 3, stride, hidden))
            .add(conv(hidden, outputs, 1, 1, 1))
            .add(BatchNorm2d::new(outputs));
        InvertedResidual { conv: layers, residual: stride == 1 && inputs == outputs }
    }
}

impl Layer for InvertedResidual {
    #[track_caller]
    fn forward(&self, x: &Tensor) -> Tensor {
        let y = self.conv.forward(x);
        if self.residual { x + y } else { y }
    }
}

/// Expansion, channels, blocks and first stride of each stage.
const STAGES: [[usize; 4]; 7] = [
    [1, 16, 1, 1],
    [6, 24, 2, 2],
    [6, 32, 3, 2],
    [6, 64, 4, 2],
    [6, 96, 3, 1],
    [6, 160, 3, 2],
    [6, 320, 1, 1],
];

/// MobileNet-v2: images [N, 3, H, W] to scores [N, classes].
#[derive(Module)]
pub struct MobileNetV2 {
    features: Sequential,
    pool: AdaptiveAvgPool2d,
    classifier: Sequential,
}

impl MobileNetV2 {
    /// With random weights.
    pub fn new(classes: usize) -> MobileNetV2 {
        let mut inputs = 32;
        let mut features = Sequential::new().add(conv_norm(3, inputs, 3, 2, 1));
        for [expand, outputs, blocks, first] in STAGES {
            for block in 0..blocks {
                let stride = if block == 0 { first } else { 1 };
                features = features.add(InvertedResidual::new(inputs, outputs, stride, expand));
                inputs = outputs;
            }
        }
        MobileNetV2 {
            features: features.add(conv_norm(inputs, 1280, 1, 1, 1)),
            pool: AdaptiveAvgPool2d::new([1, 1]),
            classifier: Sequential::new().add(Dropout::new(0.2)).add(Linear::new(1280, classes)),
        }
    }
}

impl Layer for MobileNetV2 {
    #[track_caller]
    fn forward(&self, x: &Tensor) -> Tensor {
        let x = self.pool.forward(&self.features.forward(x));
        self.classifier.forward(&x.flatten(1, -1))
    }
}
