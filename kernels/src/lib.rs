//! CPU kernels of Sinter.
//!
//! This crate is the lowest floor of the house: it knows bare memory, sizes and
//! strides. It knows no tensor, no graph and no op name. Everything above it
//! reaches memory through [`mem::Block`] and the bounds-checked views
//! [`view::Src`] and [`view::Dst`], so that the floors above need no `unsafe`
//! to run a kernel.
//!
//! Three rules hold for every kernel here:
//!
//! * results do not depend on the number of threads ([`par`]): work is split
//!   into pieces whose size depends on the problem alone, and partial results
//!   are combined in a fixed order;
//! * results do not depend on the instruction set ([`isa`]): the same
//!   polynomial, the same order of summation at every vector width;
//! * any shape is legal: empty, one element, prime, strided, negative strides.

/// A number for the sources of this crate: figures measured with others say nothing.
pub const SOURCES: &str = env!("SINTER_KERNELS_SOURCES");

// Foundations.
pub mod clock;
mod instances;
pub mod isa;
mod lines;
pub mod math;
pub mod mem;
pub mod par;
pub mod peak;
mod scratch;
mod simd;
pub mod strided;
#[cfg(test)]
mod testing;
pub mod view;

pub use simd::{Number, Real};

// Element by element, and along axes.
pub mod copy;
pub mod norm;
pub mod optim;
pub mod pointwise;
pub mod reduce;
pub mod rng;
pub mod scan;
pub mod softmax;

// By index.
pub mod draw;
pub mod index;
pub mod sort;

// Contractions and windows.
pub mod attention;
pub mod conv;
pub mod gemm;
pub mod pool;
pub mod recurrent;
