//! What is measured: the models by the names of their cases.

use crate::{
    Elementwise, Encoder, EncoderConfig, Gpt2, Gpt2Config, LayerNormSoftmax, LstmNet, MatMul, Mlp,
    MnistCnn, MobileNetV2, Model, ResNet18,
};
use sinter::DType;
use sinter::nn::Activation;

/// A size that is another in each case.
pub const ANY: usize = usize::MAX;

/// A tensor that a model takes or gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Port {
    /// Its name.
    pub name: &'static str,
    /// The type of its elements.
    pub dtype: DType,
    /// Its sizes; [`ANY`] where cases differ.
    pub shape: &'static [usize],
}

impl Port {
    /// Whether a tensor of this shape and type may be here.
    pub fn fits(&self, shape: &[usize], dtype: DType) -> bool {
        let size = |(&want, &got): (&usize, &usize)| want == ANY || want == got;
        let shapes = self.shape.len() == shape.len() && self.shape.iter().zip(shape).all(size);
        shapes && dtype == self.dtype
    }
}

/// A model that cases are made of, with its inputs in different sizes.
#[derive(Debug)]
pub struct Case {
    /// Names of its cases begin with this.
    pub model: &'static str,
    /// The model with random weights, in training.
    pub build: fn() -> Box<dyn Model>,
    /// What it takes.
    pub inputs: &'static [Port],
    /// What it gives.
    pub outputs: &'static [Port],
}

const fn f32(name: &'static str, shape: &'static [usize]) -> Port {
    Port { name, dtype: DType::F32, shape }
}

const fn i64(name: &'static str, shape: &'static [usize]) -> Port {
    Port { name, dtype: DType::I64, shape }
}

/// Keys or values of GPT-2 small, of some tokens.
const CACHE: &[usize] = &[12, ANY, 12, ANY, 64];

/// States of the two layers of the LSTM.
const STATE: &[usize] = &[2, ANY, 256];

/// Every model.
pub const CASES: &[Case] = &[
    Case {
        model: "mlp",
        build: || Box::new(Mlp::new()),
        inputs: &[f32("x", &[ANY, 784])],
        outputs: &[f32("y", &[ANY, 10])],
    },
    Case {
        model: "mnist_cnn",
        build: || Box::new(MnistCnn::new(true)),
        inputs: &[f32("x", &[ANY, 1, 28, 28])],
        outputs: &[f32("y", &[ANY, 10])],
    },
    Case {
        model: "resnet18",
        build: || Box::new(ResNet18::new(1000)),
        inputs: &[f32("x", &[ANY, 3, ANY, ANY])],
        outputs: &[f32("y", &[ANY, 1000])],
    },
    Case {
        model: "mobilenet_v2",
        build: || Box::new(MobileNetV2::new(1000)),
        inputs: &[f32("x", &[ANY, 3, ANY, ANY])],
        outputs: &[f32("y", &[ANY, 1000])],
    },
    Case {
        model: "minilm",
        build: || Box::new(Encoder::new(&EncoderConfig::MINI_LM)),
        inputs: &[i64("ids", &[ANY, ANY])],
        outputs: &[f32("y", &[ANY, ANY, 384])],
    },
    Case {
        model: "gpt2_decode",
        build: || Box::new(Gpt2::new(&Gpt2Config::SMALL)),
        inputs: &[i64("ids", &[ANY, 1]), f32("past_k", CACHE), f32("past_v", CACHE)],
        outputs: &[f32("logits", &[ANY, 50257]), f32("k", CACHE), f32("v", CACHE)],
    },
    Case {
        model: "gpt2_prefill",
        build: || Box::new(Gpt2::new(&Gpt2Config::SMALL)),
        inputs: &[i64("ids", &[ANY, ANY])],
        outputs: &[f32("logits", &[ANY, 50257]), f32("k", CACHE), f32("v", CACHE)],
    },
    Case {
        model: "lstm",
        build: || Box::new(LstmNet::new(256, 256)),
        inputs: &[f32("x", &[ANY, ANY, 256])],
        outputs: &[f32("y", &[ANY, ANY, 256]), f32("h", STATE), f32("c", STATE)],
    },
    Case {
        model: "elementwise",
        build: || Box::new(Elementwise),
        inputs: &[f32("x", &[ANY])],
        outputs: &[f32("y", &[ANY])],
    },
    Case {
        model: "softmax",
        build: || Box::new(Activation::Softmax(-1)),
        inputs: &[f32("x", &[ANY, ANY])],
        outputs: &[f32("y", &[ANY, ANY])],
    },
    Case {
        model: "layernorm",
        build: || Box::new(LayerNormSoftmax::new(1024, false)),
        inputs: &[f32("x", &[ANY, 1024])],
        outputs: &[f32("y", &[ANY, 1024])],
    },
    Case {
        model: "ln_softmax",
        build: || Box::new(LayerNormSoftmax::new(1024, true)),
        inputs: &[f32("x", &[ANY, 1024])],
        outputs: &[f32("y", &[ANY, 1024])],
    },
    Case {
        model: "matmul",
        build: || Box::new(MatMul),
        inputs: &[f32("a", &[ANY, ANY]), f32("b", &[ANY, ANY])],
        outputs: &[f32("y", &[ANY, ANY])],
    },
];

/// The model of a case: `mlp_b64` is one of `mlp`.
pub fn case(name: &str) -> Option<&'static Case> {
    CASES.iter().filter(|c| name.starts_with(c.model)).max_by_key(|c| c.model.len())
}
