//! Convolution and pooling layers.

use super::{Layer, Module, Param, functional as F, init};
use crate::tensor::{Tensor, default_dtype, empty};
use sinter_runtime::op::PoolKind;

/// What a [`Conv2d`] may differ in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Conv2dOptions {
    /// Distance between windows.
    pub stride: [usize; 2],
    /// Zeros around the input.
    pub padding: [usize; 2],
    /// Distance between taps.
    pub dilation: [usize; 2],
    /// Channels are divided into that many independent groups.
    pub groups: usize,
    /// Whether a bias is added.
    pub bias: bool,
}

impl Default for Conv2dOptions {
    fn default() -> Conv2dOptions {
        Conv2dOptions { stride: [1, 1], padding: [0, 0], dilation: [1, 1], groups: 1, bias: true }
    }
}

/// 2-d convolution: `x` [N, in, H, W], `weight` [out, in / groups, KH, KW].
#[derive(Debug, Module)]
pub struct Conv2d {
    /// [out, in / groups, KH, KW]
    pub weight: Param,
    /// `[out]`
    pub bias: Option<Param>,
    #[module(skip)]
    options: Conv2dOptions,
}

impl Conv2d {
    /// A square kernel, stride 1, no padding, with a bias; initialised as PyTorch
    /// does.
    pub fn new(inputs: usize, outputs: usize, kernel: usize) -> Conv2d {
        Conv2d::with_options(inputs, outputs, [kernel, kernel], Conv2dOptions::default())
    }

    /// With every choice open.
    ///
    /// # Panics
    /// If channels do not divide into the groups.
    #[track_caller]
    pub fn with_options(
        inputs: usize,
        outputs: usize,
        kernel: [usize; 2],
        options: Conv2dOptions,
    ) -> Conv2d {
        let g = options.groups;
        if g == 0 || !inputs.is_multiple_of(g) || !outputs.is_multiple_of(g) {
            panic!("Conv2d: {inputs} and {outputs} channels do not divide into {g} groups");
        }
        let weight = empty([outputs, inputs / g, kernel[0], kernel[1]], default_dtype());
        init::kaiming_uniform_(&weight, 5f64.sqrt());
        let bound = 1.0 / ((inputs / g * kernel[0] * kernel[1]).max(1) as f64).sqrt();
        let bias = options.bias.then(|| {
            let b = empty([outputs], default_dtype());
            init::uniform_(&b, -bound, bound);
            Param::new(b)
        });
        Conv2d { weight: Param::new(weight), bias, options }
    }
}

impl Layer for Conv2d {
    #[track_caller]
    fn forward(&self, x: &Tensor) -> Tensor {
        let o = &self.options;
        F::conv2d(x, &self.weight, self.bias.as_deref(), o.stride, o.padding, o.dilation, o.groups)
    }
}

macro_rules! pool_layer {
    ($(#[$doc:meta])* $name:ident, $kind:expr) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Module)]
        pub struct $name {
            window: [usize; 2],
            stride: [usize; 2],
            padding: [usize; 2],
        }

        impl $name {
            /// A square window that moves by its own size.
            pub fn new(window: usize) -> $name {
                $name::with_options([window, window], [window, window], [0, 0])
            }

            /// With every choice open.
            pub fn with_options(
                window: [usize; 2],
                stride: [usize; 2],
                padding: [usize; 2],
            ) -> $name {
                $name { window, stride, padding }
            }
        }

        impl Layer for $name {
            #[track_caller]
            fn forward(&self, x: &Tensor) -> Tensor {
                F::pool2d(x, $kind, self.window, self.stride, self.padding)
            }
        }
    };
}
pool_layer! {
    /// Largest element of each window.
    MaxPool2d, PoolKind::Max
}
pool_layer! {
    /// Mean of each window, padding counted as zeros.
    AvgPool2d, PoolKind::Avg
}

/// Means over windows that cover [N, C, H, W], as many as the output has elements.
///
/// ```
/// use sinter::nn::{AdaptiveAvgPool2d, Layer};
/// let x = sinter::ones([2, 3, 7, 5]);
/// assert_eq!(AdaptiveAvgPool2d::new([1, 1]).forward(&x).shape(), [2, 3, 1, 1]);
/// ```
#[derive(Clone, Copy, Debug, Module)]
pub struct AdaptiveAvgPool2d {
    output: [usize; 2],
}

impl AdaptiveAvgPool2d {
    /// To this height and width.
    pub fn new(output: [usize; 2]) -> AdaptiveAvgPool2d {
        AdaptiveAvgPool2d { output }
    }
}

impl Layer for AdaptiveAvgPool2d {
    #[track_caller]
    fn forward(&self, x: &Tensor) -> Tensor {
        F::adaptive_avg_pool2d(x, self.output)
    }
}
