//! Kernels for CUDA devices.
//!
//! A kernel becomes one function of an MLIR module: the walk over the iteration
//! space in [`lower`], what happens to single values in [`scalar`], the text in
//! [`writer`]. MLIR's passes and LLVM's NVPTX generator turn the module into PTX
//! ([`ptx`]), which the driver compiles for the device at hand.
//!
//! How the iteration space lies on the device:
//!
//! * without row axes, a thread for each element;
//! * with row axes, a *team* of threads for each row: a warp, or for long rows a
//!   block of 256 threads. Thread `t` of a team of `T` takes the elements `t`,
//!   `t + T`, `t + 2T`, …, so that neighbours read neighbouring memory, and keeps two
//!   partial results of each reduction, in turn. With a warp these are the 64 virtual
//!   lanes of the CPU's kernels, and they are joined in the same tree: sums are the
//!   same bits on both.
//!
//! Nothing is fused or approximated on the way: multiplications and additions round
//! one by one, division and square root round correctly, subnormal numbers are kept.

mod lower;
mod ptx;
mod scalar;
mod writer;

use crate::kernel::Kernel;
use sinter_runtime::{DType, Dim};
use std::fmt;
use std::str::FromStr;
use thiserror::Error;

/// Threads of a block.
const BLOCK: u32 = 256;
/// Most blocks of a launch.
const MAX_BLOCKS: u64 = i32::MAX as u64;

/// Why there is no code for a kernel, or no way to start it.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum CudaError {
    /// An op has no code for devices.
    #[error("`{op}` on {dtype} has no code for CUDA devices: {reason}")]
    Op {
        /// The op.
        op: &'static str,
        /// Type of its operands.
        dtype: DType,
        /// Why.
        reason: &'static str,
    },
    /// A kernel has no code for devices.
    #[error("kernel `{kernel}` has no code for CUDA devices: {reason}")]
    Kernel {
        /// The kernel.
        kernel: String,
        /// Why.
        reason: String,
    },
    /// The text names no architecture that there is code for.
    #[error("`{0}` is not one of the architectures there is code for: {list}", list = Arch::list())]
    Arch(String),
    /// The device is older than every architecture that there is code for.
    #[error("compute capability {0}.{1} is below 8.0, the lowest there is code for")]
    Capability(u32, u32),
    /// MLIR refused a module: a mistake in the compiler.
    #[error("compiling kernel `{kernel}`: {message}")]
    Mlir {
        /// The kernel.
        kernel: String,
        /// MLIR's words.
        message: String,
    },
    /// The sizes of a run fit no launch.
    #[error("kernel `{kernel}` cannot be launched: {extent} is {value}")]
    Launch {
        /// The kernel.
        kernel: String,
        /// What is out of range.
        extent: String,
        /// Its value, or why there is none.
        value: String,
    },
}

/// An architecture that code is generated for. Code for one runs on devices of the
/// same and of later ones.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Arch {
    capability: (u32, u32),
    /// The first version of PTX that knows it: what a driver has to understand.
    ptx: u32,
}

impl Arch {
    const fn new(major: u32, minor: u32, ptx: u32) -> Arch {
        Arch { capability: (major, minor), ptx }
    }

    /// Every architecture, oldest first.
    pub const ALL: [Arch; 7] = [
        Arch::new(8, 0, 70),
        Arch::new(8, 6, 71),
        Arch::new(8, 7, 74),
        Arch::new(8, 9, 78),
        Arch::new(9, 0, 78),
        Arch::new(10, 0, 86),
        Arch::new(12, 0, 87),
    ];

    /// The newest architecture whose code runs on a device of that compute
    /// capability.
    ///
    /// # Errors
    /// When the device is older than all of them.
    pub fn for_device(capability: (u32, u32)) -> Result<Arch, CudaError> {
        let fits = |a: &&Arch| a.capability <= capability;
        let best = Arch::ALL.iter().rfind(fits);
        best.copied().ok_or(CudaError::Capability(capability.0, capability.1))
    }

    fn list() -> String {
        Arch::ALL.map(|a| a.to_string()).join(", ")
    }
}

/// `sm_90`
impl fmt::Display for Arch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sm_{}{}", self.capability.0, self.capability.1)
    }
}

impl FromStr for Arch {
    type Err = CudaError;

    fn from_str(s: &str) -> Result<Arch, CudaError> {
        let named = Arch::ALL.into_iter().find(|a| a.to_string() == s);
        named.ok_or_else(|| CudaError::Arch(s.to_string()))
    }
}

/// Who works on one row of a kernel.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Team {
    /// One thread: rows have one element.
    Thread,
    /// The 32 threads of a warp.
    Warp,
    /// The 256 threads of a block.
    Block,
}

/// Rows longer than this, and rows of unknown length, get a block each.
const WARP_ROW: usize = 1024;

impl Team {
    /// Who works on rows of that length, if it is known.
    pub fn of_row(length: Option<usize>) -> Team {
        match length {
            Some(n) if n <= WARP_ROW => Team::Warp,
            _ => Team::Block,
        }
    }

    /// Threads in it.
    pub fn threads(self) -> u32 {
        match self {
            Team::Thread => 1,
            Team::Warp => 32,
            Team::Block => BLOCK,
        }
    }
}

/// A parameter of a kernel's function, 64 bits wide.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Param {
    /// The address of the program's buffer of that number.
    Buffer(u32),
    /// The size of the program's symbol of that number.
    Size(usize),
}

/// The geometry of a launch.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Launch {
    /// Number of blocks, along x. Where it is 0 there is nothing to do, and nothing
    /// may be launched.
    pub blocks: u32,
    /// Threads of each, along x.
    pub threads: u32,
}

/// A kernel compiled for a device.
#[derive(Clone, PartialEq, Debug)]
pub struct CudaKernel {
    /// Name of its function.
    pub entry: String,
    /// The code, as text for the driver or an assembler.
    pub ptx: String,
    /// The module it was made from.
    pub mlir: String,
    /// What its function takes, in order. Buffers must not overlap.
    pub params: Vec<Param>,
    /// Who works on a row.
    pub team: Team,
    /// Extents of the parallel axes.
    rows: Vec<Dim>,
}

impl CudaKernel {
    /// How to launch it for these sizes of the symbols.
    ///
    /// # Errors
    /// When an extent has no value for these sizes, or there are more rows than one
    /// launch takes.
    pub fn launch(&self, sizes: &[usize]) -> Result<Launch, CudaError> {
        let failed = |extent: String, value: String| CudaError::Launch {
            kernel: self.entry.clone(),
            extent,
            value,
        };
        let mut rows = 1u64;
        for d in &self.rows {
            let n = d.eval(sizes).ok_or_else(|| failed(d.to_string(), "not a size".into()))?;
            rows = u64::try_from(n)
                .ok()
                .and_then(|n| rows.checked_mul(n))
                .ok_or_else(|| failed("the number of rows".into(), "too large".into()))?;
        }
        let blocks = rows.div_ceil(u64::from(BLOCK / self.team.threads()));
        if blocks > MAX_BLOCKS {
            return Err(failed("the number of blocks".into(), blocks.to_string()));
        }
        Ok(Launch { blocks: blocks as u32, threads: BLOCK })
    }
}

/// Compiles kernels for devices. Making one costs some milliseconds; keep it for all
/// kernels of a program.
///
/// ```
/// use sinter_compiler::codegen::cuda::{Arch, Compiler};
/// use sinter_compiler::kernel::{Arg, Inst, Kernel, Level, Manner, Stage};
/// use sinter_runtime::op::UnaryOp;
/// use sinter_runtime::{DType, Dim, Extent};
///
/// // y[i] = gelu(x[i]) for all i below the first symbol's size.
/// let arg = |buffer, written| Arg {
///     buffer,
///     dtype: DType::F32,
///     offset: Dim::of(0),
///     strides: vec![Dim::of(1)],
///     written,
/// };
/// let mut stage = Stage::new(Level::Element);
/// stage.insts = vec![(Inst::Load(0), DType::F32), (Inst::Unary(UnaryOp::Gelu, 0), DType::F32)];
/// stage.stores = vec![(1, 1)];
/// let kernel = Kernel {
///     name: "gelu".into(),
///     extents: vec![Dim::symbol(0)],
///     parallel: 1,
///     args: vec![arg(0, false), arg(1, true)],
///     stages: vec![stage],
///     hook: false,
///     manner: Manner::RULE,
/// };
/// let code = Compiler::new().compile(&kernel, "sm_90".parse::<Arch>()?)?;
/// assert!(code.ptx.contains(".visible .entry gelu("));
/// assert_eq!(code.launch(&[1000])?.blocks, 4);
/// # Ok::<(), sinter_compiler::codegen::cuda::CudaError>(())
/// ```
pub struct Compiler {
    tools: ptx::Tools,
}

impl Default for Compiler {
    fn default() -> Compiler {
        Compiler::new()
    }
}

impl Compiler {
    /// Sets MLIR up.
    pub fn new() -> Compiler {
        Compiler { tools: ptx::Tools::new() }
    }

    /// Compiles a kernel.
    ///
    /// MLIR looks for a CUDA toolkit where `CUDA_ROOT`, `CUDA_HOME` or `CUDA_PATH`
    /// say. Nothing of it is used; but where one of them names a folder that holds
    /// none, MLIR refuses to work.
    ///
    /// # Errors
    /// When the kernel holds something that devices have no code for: see
    /// [`CudaError::Op`] and [`CudaError::Kernel`].
    pub fn compile(&self, kernel: &Kernel, arch: Arch) -> Result<CudaKernel, CudaError> {
        self.compile_kept(kernel, lower::team(kernel), arch, |_| None, |_, _| ())
    }

    /// Compiles a kernel whose rows, if it has any, are worked on by `team`. `kept` is
    /// asked for the PTX of a module before MLIR is, and `keep` told what MLIR made.
    pub(crate) fn compile_kept(
        &self,
        kernel: &Kernel,
        team: Team,
        arch: Arch,
        kept: impl FnOnce(&str) -> Option<String>,
        keep: impl FnOnce(&str, &str),
    ) -> Result<CudaKernel, CudaError> {
        let lowered = lower::lower(kernel, team)?;
        let ptx = match kept(&lowered.mlir) {
            Some(ptx) => ptx,
            None => {
                let ptx = self.tools.ptx(&lowered.entry, &lowered.mlir, arch)?;
                keep(&lowered.mlir, &ptx);
                ptx
            }
        };
        Ok(CudaKernel {
            ptx,
            entry: lowered.entry,
            mlir: lowered.mlir,
            params: lowered.params,
            team: lowered.team,
            rows: kernel.extents[..kernel.parallel].to_vec(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn architectures_by_name_and_by_device() {
        for a in Arch::ALL {
            assert_eq!(a.to_string().parse(), Ok(a));
        }
        assert_eq!(Arch::for_device((9, 0)).unwrap().to_string(), "sm_90");
        assert_eq!(Arch::for_device((9, 9)).unwrap().to_string(), "sm_90");
        assert_eq!(Arch::for_device((7, 5)), Err(CudaError::Capability(7, 5)));
        let e = "sm_75".parse::<Arch>().unwrap_err().to_string();
        assert!(e.contains("`sm_75`") && e.contains("sm_80, sm_86"), "{e}");
    }
}
