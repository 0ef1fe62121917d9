//! Tensors from other libraries, and for them: [`ndarray`] and DLPack.
//!
//! What can share memory does. An `ndarray` that is given away becomes a tensor over the
//! same memory, and so does a vector ([`from_vec`]); through DLPack tensors pass between
//! libraries and languages as they are.
//!
//! ```
//! use ndarray::arr2;
//! use sinter::{Tensor, exchange};
//! let x = Tensor::from(arr2(&[[1.0f32, 2.0], [3.0, 4.0]]));
//! assert_eq!(x.t().to_vec::<f32>(), [1.0, 3.0, 2.0, 4.0]);
//! let a = exchange::to_ndarray::<f32>(&x.t());
//! assert_eq!(a[[0, 1]], 3.0);
//! ```

mod arrays;
mod dlpack;

pub use arrays::{from_ndarray, from_vec, to_ndarray, view_ndarray};
pub use dlpack::{from_dlpack, to_dlpack, to_dlpack_legacy};

use sinter_runtime::{DType, Device, OpError};
use thiserror::Error;

/// Why a tensor could not be exchanged.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ExchangeError {
    /// The tensor has a history, which others do not keep.
    #[error("a tensor that requires a gradient cannot be handed over; `detach` it first")]
    RequiresGrad,
    /// The tensor exists only in a graph being traced.
    #[error("a traced tensor has no data to hand over")]
    Traced,
    /// The memory is not the processor's.
    #[error("the tensor lies on {0}, not on cpu")]
    Device(String),
    /// The tensor lies on a device that tensors cannot be handed over from.
    #[error("the tensor lies on {0}; only those on cpu can be handed over")]
    NotCpu(Device),
    /// There is no such element type here.
    #[error(
        "elements of DLPack type code {code} with {bits} bits and {lanes} lane(s) have no counterpart"
    )]
    DType {
        /// The kind of number.
        code: u8,
        /// Its size.
        bits: u8,
        /// How many stand together.
        lanes: u16,
    },
    /// There is no such element type there.
    #[error("elements of type {0} have no counterpart in DLPack")]
    NoCounterpart(DType),
    /// The description contradicts itself.
    #[error("the tensor's description is malformed: {0}")]
    Malformed(String),
    /// Shape, strides and memory do not go together.
    #[error(transparent)]
    Layout(#[from] OpError),
}
