//! Compiler of Sinter.
//!
//! A traced model arrives as a [`graph`] in petgraph, is rewritten by equality
//! saturation in egg ([`rewrite`]), divided into kernels and laid out in memory
//! ([`plan`], measured where rules are unsure: [`tune`]), and becomes native code
//! through Cranelift ([`codegen`]). The [`pipeline`] runs the passes. This crate knows no tensor and no autograd.

pub mod artifact;
pub mod codegen;
pub mod cost;
#[cfg(feature = "mlir")]
pub mod device;
pub mod draw;
pub mod graph;
pub mod kernel;
pub mod pipeline;
pub mod plan;
pub mod quantize;
pub mod rewrite;
pub mod tune;

pub use pipeline::{CompileError, Compiled, Options, Precision, Report, compile, compile_measured};
pub use quantize::{Calibration, CalibrationMethod};
pub use tune::Tuning;
