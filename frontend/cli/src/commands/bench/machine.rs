//! What the machine can do, measured.

use sinter_kernels::{isa, par, peak};

/// The limits, of all threads together.
#[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
pub struct Machine {
    /// Threads in use.
    pub threads: usize,
    /// Instruction-set level of the kernels.
    pub isa: String,
    /// Floating-point operations a second, in f32.
    pub flops: f64,
    /// Bandwidth in bytes a second by the bytes worked on, smallest first.
    pub bandwidth: Vec<Bandwidth>,
}

/// A bandwidth.
#[derive(Clone, Copy, Debug, serde::Serialize, serde::Deserialize)]
pub struct Bandwidth {
    /// Bytes that were read again and again.
    pub bytes: usize,
    /// Bytes a second.
    pub rate: f64,
}

/// What fits a second-level cache, a share of a third-level cache, and neither.
const SIZES: [usize; 3] = [256 << 10, 8 << 20, 128 << 20];

impl Machine {
    /// Measures them; takes about a second.
    pub fn measure() -> Machine {
        Machine {
            threads: par::threads(),
            isa: isa::active().name().to_string(),
            flops: peak::flops(),
            bandwidth: SIZES
                .iter()
                .map(|&n| {
                    let bytes = n * if n < SIZES[2] { par::threads() } else { 1 };
                    Bandwidth { bytes, rate: peak::read_bandwidth(bytes) }
                })
                .collect(),
        }
    }

    /// The least time in seconds that work can take here.
    pub fn least_time(&self, bytes: f64, flops: f64) -> f64 {
        let b = self.bandwidth.iter().find(|b| bytes <= b.bytes as f64);
        let b = b.or(self.bandwidth.last()).map_or(f64::INFINITY, |b| b.rate);
        (flops / self.flops).max(bytes / b)
    }
}
