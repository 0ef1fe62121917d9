//! A residual network (He et al., 2016), with torchvision's names.

use sinter::Tensor;
use sinter::nn::{
    AdaptiveAvgPool2d, BatchNorm2d, Conv2d, Conv2dOptions, Layer, Linear, MaxPool2d, Module,
    Sequential,
};

/// A convolution without a bias, padded so that stride 1 keeps the size.
fn conv(inputs: usize, outputs: usize, kernel: usize, stride: usize) -> Conv2d {
    let options = Conv2dOptions {
        stride: [stride; 2],
        padding: [kernel / 2; 2],
        bias: false,
        ..Conv2dOptions::default()
    };
    Conv2d::with_options(inputs, outputs, [kernel; 2], options)
}

/// Two convolutions around which the input is added.
#[derive(Module)]
struct BasicBlock {
    conv1: Conv2d,
    bn1: BatchNorm2d,
    conv2: Conv2d,
    bn2: BatchNorm2d,
    downsample: Option<Sequential>,
}

impl BasicBlock {
    fn new(inputs: usize, outputs: usize, stride: usize) -> BasicBlock {
        let downsample = (stride != 1 || inputs != outputs).then(|| {
            Sequential::new().add(conv(inputs, outputs, 1, stride)).add(BatchNorm2d::new(outputs))
        });
        BasicBlock {
            conv1: conv(inputs, outputs, 3, stride),
            bn1: BatchNorm2d::new(outputs),
            conv2: conv(outputs, outputs, 3, 1),
            bn2: BatchNorm2d::new(outputs),
            downsample,
        }
    }
}

impl Layer for BasicBlock {
    #[track_caller]
    fn forward(&self, x: &Tensor) -> Tensor {
        let y = self.bn1.forward(&self.conv1.forward(x)).relu();
        let y = self.bn2.forward(&self.conv2.forward(&y));
        match &self.downsample {
            Some(d) => (y + d.forward(x)).relu(),
            None => (y + x).relu(),
        }
    }
}

/// Two blocks, of which the first may reduce the size.
fn stage(inputs: usize, outputs: usize, stride: usize) -> Sequential {
    Sequential::new()
        .add(BasicBlock::new(inputs, outputs, stride))
        .add(BasicBlock::new(outputs, outputs, 1))
}

/// ResNet-18: images [N, 3, H, W] to scores [N, classes].
#[derive(Module)]
pub struct ResNet18 {
    conv1: Conv2d,
    bn1: BatchNorm2d,
    maxpool: MaxPool2d,
    layer1: Sequential,
    layer2: Sequential,
    layer3: Sequential,
    layer4: Sequential,
    avgpool: AdaptiveAvgPool2d,
    fc: Linear,
}

impl ResNet18 {
    /// With random weights.
    pub fn new(classes: usize) -> ResNet18 {
        ResNet18 {
            conv1: conv(3, 64, 7, 2),
            bn1: BatchNorm2d::new(64),
            maxpool: MaxPool2d::with_options([3, 3], [2, 2], [1, 1]),
            layer1: stage(64, 64, 1),
            layer2: stage(64, 128, 2),
            layer3: stage(128, 256, 2),
            layer4: stage(256, 512, 2),
            avgpool: AdaptiveAvgPool2d::new([1, 1]),
            fc: Linear::new(512, classes),
        }
    }
}

impl Layer for ResNet18 {
    #[track_caller]
    fn forward(&self, x: &Tensor) -> Tensor {
        let x = self.bn1.forward(&self.conv1.forward(x)).relu();
        let x = self.maxpool.forward(&x);
        let x = self.layer1.forward(&x);
        let x = self.layer2.forward(&x);
        let x = self.layer3.forward(&x);
        let x = self.layer4.forward(&x);
        self.fc.forward(&self.avgpool.forward(&x).flatten(1, -1))
    }
}
