//! The models that Sinter is measured on, as its users would write them: parameters
//! have PyTorch's names, so that the weights of its models load as they are.
//!
//! [`CASES`] says what a suite of cases in files may hold, and how each is built:
//!
//! ```
//! use sinter::{no_grad, ones};
//!
//! let case = sinter_models::case("mlp_b2").unwrap();
//! let model = (case.build)();
//! let y = no_grad(|| model.run(&[ones([2, 784])]));
//! assert_eq!(y[0].shape(), [2, 10]);
//! ```

mod cases;
mod digits;
mod encoder;
mod functions;
mod gpt2;
mod lstm;
mod mobilenet;
mod perceptron;
mod resnet;
mod training;

pub use cases::{ANY, CASES, Case, Port, case};
pub use digits::MnistCnn;
pub use encoder::{Encoder, EncoderConfig, EncoderLm};
pub use functions::{Elementwise, LayerNormSoftmax, MatMul};
pub use gpt2::{Gpt2, Gpt2Config};
pub use lstm::{LstmClassifier, LstmNet};
pub use mobilenet::MobileNetV2;
pub use perceptron::Mlp;
pub use resnet::ResNet18;
pub use training::{Compiled, Method, Net, Task, Training, UnknownName};

use sinter::Tensor;
use sinter::nn::{Layer, Module};

/// A model by the tensors it takes and gives, however many.
pub trait Model: Module + Send + Sync {
    /// What the model computes.
    ///
    /// # Panics
    /// If the inputs are not as many as it takes, or do not fit.
    fn run(&self, inputs: &[Tensor]) -> Vec<Tensor>;
}

impl<L: Layer + Send + Sync> Model for L {
    #[track_caller]
    fn run(&self, inputs: &[Tensor]) -> Vec<Tensor> {
        let [x] = inputs else { panic!("the model takes one tensor, not {}", inputs.len()) };
        vec![self.forward(x)]
    }
}
