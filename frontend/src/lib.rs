#![doc = include_str!("../../README.md")]

// The derive macro names this crate from outside.
extern crate self as sinter;

pub mod autograd;
mod batch;
mod calibration;
mod compile;
pub mod data;
mod device;
pub mod distributions;
pub mod exchange;
pub mod fft;
pub mod func;
pub mod io;
pub mod linalg;
pub mod masked;
pub mod nn;
pub mod optim;
pub mod random;
pub mod signal;
pub mod special;
mod step;
mod tensor;
pub mod trace;

pub use autograd::{Backward, enable_grad, grad, no_grad};
pub use batch::{Randomness, Resolve, Vmap, autobatch, vmap};
pub use calibration::Calibration;
pub use compile::{CompileError, CompiledModel, Compiler, Program, compile, load};
pub use exchange::from_vec;
pub use random::manual_seed;
pub use sinter_compiler::{CalibrationMethod, Precision, Tuning};
pub use sinter_runtime::artifact::ArtifactError;
#[cfg(feature = "cuda")]
pub use sinter_runtime::cuda;
pub use sinter_runtime::program::RunError;
pub use sinter_runtime::{DType, Device, DeviceError, Op, OpError, Scalar, op};
pub use step::{CompiledStep, compile_step};
pub use tensor::*;
