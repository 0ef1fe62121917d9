//! Where a tensor lies and its ops run.

use serde::{Deserialize, Serialize};
use std::fmt;
use thiserror::Error;

/// Where a tensor lies and its ops run.
#[derive(
    Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Serialize, Deserialize,
)]
pub enum Device {
    /// The processor, in main memory.
    #[default]
    Cpu,
    /// A CUDA device, by the driver's number. Made by [`Device::cuda`], which checks that it is there.
    Cuda(u16),
}

/// Why a device cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum DeviceError {
    /// The program was built without the `cuda` feature.
    #[error(
        "cuda:{0} is not available: this program was built without the `cuda` feature; build with `--features cuda`"
    )]
    NotBuilt(u16),
    /// There is no NVIDIA driver on this machine.
    #[error("cuda:{0} is not available: no NVIDIA driver (libcuda.so.1) was found on this machine")]
    NoDriver(u16),
    /// The driver knows no such device.
    #[error("cuda:{index} is not available: the driver reports {count} device(s)")]
    NoSuchDevice {
        /// The device asked for.
        index: u16,
        /// How many there are.
        count: usize,
    },
    /// The device's memory ran out.
    #[error(
        "cuda:{index}: out of memory: {requested} bytes requested; {allocated} bytes are in arrays, {reserved} reserved, of {total}"
    )]
    OutOfMemory {
        /// The device.
        index: u16,
        /// Bytes asked for.
        requested: usize,
        /// Bytes in arrays that are alive.
        allocated: usize,
        /// Bytes taken from the driver.
        reserved: usize,
        /// Bytes of the device.
        total: usize,
    },
    /// The driver reported an error.
    #[error("cuda:{index}: {message}")]
    Driver {
        /// The device asked for.
        index: u16,
        /// The driver's words.
        message: String,
    },
}

impl Device {
    /// The CUDA device with the driver's number `index`.
    ///
    /// # Errors
    /// When the program was built without CUDA, or driver or device is missing.
    pub fn cuda(index: u16) -> Result<Device, DeviceError> {
        #[cfg(feature = "cuda")]
        {
            crate::cuda::probe(index)?;
            Ok(Device::Cuda(index))
        }
        #[cfg(not(feature = "cuda"))]
        Err(DeviceError::NotBuilt(index))
    }
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Device::Cpu => write!(f, "cpu"),
            Device::Cuda(i) => write!(f, "cuda:{i}"),
        }
    }
}

#[cfg(all(test, not(feature = "cuda")))]
mod tests {
    use super::*;

    #[test]
    fn cuda_without_the_feature_is_a_clear_error() {
        let e = Device::cuda(3).unwrap_err();
        assert_eq!(e, DeviceError::NotBuilt(3));
        assert!(e.to_string().contains("--features cuda"));
    }
}
