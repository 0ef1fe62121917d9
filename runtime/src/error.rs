//! What can be wrong with an op.

use crate::{DType, Device, DeviceError};
use sinter_kernels::mem::OutOfMemory;
use thiserror::Error;

/// Why an op cannot be carried out. The message names the op, the operands and
/// the rule that was broken.
#[derive(Debug, Clone, PartialEq, Error)]
#[non_exhaustive]
pub enum OpError {
    /// Shapes that do not go together, or attributes that do not fit them.
    #[error("{op}: {reason}")]
    Shape {
        /// Name of the op.
        op: String,
        /// The operands' shapes and the rule broken.
        reason: String,
    },
    /// Element types the op does not take.
    #[error("{op}: {reason}")]
    DType {
        /// Name of the op.
        op: String,
        /// The operands' types and the rule broken.
        reason: String,
    },
    /// Operands on different devices.
    #[error("{op}: operands lie on {left} and {right}; move one of them with `to`")]
    Device {
        /// Name of the op.
        op: String,
        /// Where the first operand lies.
        left: Device,
        /// Where the other lies.
        right: Device,
    },
    /// An index outside the range it selects from.
    #[error(
        "{op}: index {index} at position {position} is out of range for dimension {axis} of size {size}"
    )]
    Index {
        /// Name of the op.
        op: String,
        /// The offending index.
        index: i64,
        /// Where it stands among the indices, counted in row-major order.
        position: usize,
        /// The dimension it selects from.
        axis: usize,
        /// That dimension's size.
        size: usize,
    },
    /// A value the op cannot work on, such as an integer division by zero.
    #[error("{op}: {reason}")]
    Value {
        /// Name of the op.
        op: String,
        /// What is wrong with it.
        reason: String,
    },
    /// Memory ran out.
    #[error("{op}: {source}")]
    Memory {
        /// Name of the op.
        op: String,
        /// How much was asked for.
        source: OutOfMemory,
    },
    /// A device failed, or its memory ran out.
    #[error("{op}: {source}")]
    OnDevice {
        /// Name of the op.
        op: String,
        /// What went wrong.
        source: DeviceError,
    },
    /// Not implemented for this operand or device.
    #[error("{op}: not supported: {reason}")]
    Unsupported {
        /// Name of the op.
        op: String,
        /// What exactly is missing.
        reason: String,
    },
}

impl OpError {
    pub(crate) fn shape(op: impl ToString, reason: impl Into<String>) -> OpError {
        OpError::Shape { op: op.to_string(), reason: reason.into() }
    }
    pub(crate) fn dtype(op: impl ToString, reason: impl Into<String>) -> OpError {
        OpError::DType { op: op.to_string(), reason: reason.into() }
    }
    pub(crate) fn value(op: impl ToString, reason: impl Into<String>) -> OpError {
        OpError::Value { op: op.to_string(), reason: reason.into() }
    }
    /// An op without an implementation for its operands, and why.
    pub fn unsupported(op: impl ToString, reason: impl Into<String>) -> OpError {
        OpError::Unsupported { op: op.to_string(), reason: reason.into() }
    }
    pub(crate) fn device(op: impl ToString, source: DeviceError) -> OpError {
        OpError::OnDevice { op: op.to_string(), source }
    }
    pub(crate) fn memory(op: impl ToString, source: OutOfMemory) -> OpError {
        OpError::Memory { op: op.to_string(), source }
    }
}

/// `f32 [2, 3]`: how operands appear in messages.
pub(crate) fn describe<D: crate::Extent>(dtype: DType, shape: &[D]) -> String {
    format!("{dtype} {shape:?}")
}
