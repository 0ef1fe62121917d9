//! Layers, losses and the protocol of modules.
//!
//! A model is a struct whose fields are layers, parameters, buffers and plain
//! values; `#[derive(Module)]` walks them, so that parameters are found and named
//! by their path, moved into and out of [`StateDict`]s, and switched between
//! training and evaluation. What a model computes is an ordinary method; those
//! that take one tensor to one tensor implement [`Layer`] and can be chained and
//! compiled.
//!
//! ```
//! use sinter::nn::{Layer, Linear, Module};
//! use sinter::{Tensor, randn};
//!
//! #[derive(Module)]
//! struct Mlp {
//!     fc1: Linear,
//!     fc2: Linear,
//! }
//!
//! impl Layer for Mlp {
//!     fn forward(&self, x: &Tensor) -> Tensor {
//!         self.fc2.forward(&self.fc1.forward(x).relu())
//!     }
//! }
//!
//! let m = Mlp { fc1: Linear::new(4, 8), fc2: Linear::new(8, 2) };
//! assert_eq!(m.forward(&randn([3, 4])).shape(), [3, 2]);
//! let names: Vec<String> = m.named_parameters().into_iter().map(|(n, _)| n).collect();
//! assert_eq!(names, ["fc1.weight", "fc1.bias", "fc2.weight", "fc2.bias"]);
//! ```

mod attention;
mod container;
mod conv;
pub mod functional;
pub mod init;
mod layers;
mod linear;
mod module;
mod norm;
mod recurrent;
pub mod utils;

pub use attention::{MultiHeadAttention, TransformerEncoderLayer};
pub use container::Sequential;
pub use conv::{AdaptiveAvgPool2d, AvgPool2d, Conv2d, Conv2dOptions, MaxPool2d};
pub use layers::{Activation, Dropout, Embedding, Flatten};
pub use linear::Linear;
pub use module::{
    Buffer, Layer, LoadReport, Module, Param, StateDict, StateError, TrainFlag, Visit, VisitMut,
};
pub use norm::{BatchNorm2d, LayerNorm};
pub use recurrent::{Gru, GruCell, Lstm, LstmCell, Nonlinearity, RecurrentOptions, Rnn, RnnCell};
pub use sinter_derive::Module;
pub use utils::{clip_grad_norm_, clip_grad_value_};
