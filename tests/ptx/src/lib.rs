//! A strict machine for PTX, to test code for CUDA devices without one.
//!
//! [`read`] takes in the text that LLVM's generator writes, [`launch`] runs it on a
//! [`Memory`]. With the feature `device`, `SimulatedDevice` is the machine as a device
//! that arrays can lie on.

#[cfg(feature = "device")]
mod device;
mod machine;
mod text;

#[cfg(feature = "device")]
pub use device::SimulatedDevice;
pub use machine::{Memory, launch};
pub use text::{Function, Inst, Operand, Ty, read};
