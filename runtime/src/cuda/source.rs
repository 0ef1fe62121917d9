//! Where code for devices comes from: somebody who can generate it registers.

use crate::op::Op;
use crate::{Array, DeviceError};
use smallvec::SmallVec;
use std::sync::{Arc, OnceLock};

/// Code for an op on a device. It is loaded once, and recognised by its place in memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Code {
    /// The name of its function.
    pub entry: String,
    /// The text for the driver.
    pub ptx: String,
}

/// A parameter of a function, 64 bits wide.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Param {
    /// The address of the first element of an operand.
    Operand(usize),
    /// The address of the first element of a result.
    Result(usize),
    /// A size or a distance.
    Number(i64),
}

/// How an op is run on given arrays.
#[derive(Debug, Clone)]
pub struct Launch {
    /// The code.
    pub code: Arc<Code>,
    /// What it takes.
    pub params: SmallVec<[Param; 16]>,
    /// Number of blocks; none where there is nothing to do.
    pub blocks: u32,
    /// Threads of each.
    pub threads: u32,
}

/// Generates code for ops, or has it.
pub trait KernelSource: Send + Sync {
    /// How to run an op on these operands, all on one device of that compute capability,
    /// into these results, which exist. Types and shapes fit. A result may be the very
    /// view of an operand of an element-wise op; nothing else that is written overlaps.
    ///
    /// # Errors
    /// Why there is no code for it.
    fn launch(
        &self,
        capability: (u32, u32),
        op: &Op,
        operands: &[&Array],
        results: &[&Array],
    ) -> Result<Launch, String>;
}

static SOURCE: OnceLock<Box<dyn KernelSource>> = OnceLock::new();

/// Has all ops on devices take their code from `source`. The first one stays.
pub fn set_kernel_source(source: impl KernelSource + 'static) {
    // Whoever comes second has the same to offer.
    let _ = SOURCE.set(Box::new(source));
}

/// The registered source.
pub(crate) fn kernel_source() -> Option<&'static dyn KernelSource> {
    SOURCE.get().map(AsRef::as_ref)
}

/// Runs code on a device.
pub(crate) fn launch(
    on: &super::Context,
    l: &Launch,
    operands: &[&Array],
    results: &[&Array],
) -> Result<(), DeviceError> {
    if l.blocks == 0 {
        return Ok(());
    }
    let address = |a: &Array| a.device_address().expect("its arrays lie on the device");
    let param = |p: &Param| match *p {
        Param::Operand(i) => address(operands[i]),
        Param::Result(i) => address(results[i]),
        Param::Number(n) => n as u64,
    };
    let params: SmallVec<[u64; 16]> = l.params.iter().map(param).collect();
    on.launch(&l.code, l.blocks, l.threads, &params)
}
