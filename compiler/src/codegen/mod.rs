//! Code generators: kernels and the program's entry, for each kind of device.

pub mod cpu;
#[cfg(feature = "mlir")]
pub mod cuda;
mod micro;
