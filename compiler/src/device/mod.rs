//! Code for single ops on devices: what eager execution there runs on.
//!
//! An op becomes one kernel of the kernel IR, for given types and as much of the layout
//! as its code depends on: how many axes there are once neighbours are joined, which of
//! them an operand is repeated along, and along which its elements are neighbours. Sizes
//! and all other distances are parameters, so that the kernel serves every size, and views
//! need no copies. Kernels are kept in memory, and their PTX on disk, in the folder that
//! measurements are kept in, too ([`crate::tune::folder`]): a file is named by the module
//! that it was made from.

mod build;
mod keep;
mod space;

use crate::codegen::cuda::{self, Arch, Compiler, CudaError, Team};
use build::{Form, Work};
use keep::Keep;
use rustc_hash::FxHashMap;
use sinter_runtime::cuda::{Code, KernelSource, Launch, Param};
use sinter_runtime::{Array, DType, Op};
use smallvec::SmallVec;
use space::Walk;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, Once};

/// Threads of a block.
const THREADS: u32 = 256;

/// What a kernel is made for.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
struct Key {
    capability: (u32, u32),
    form: Form,
    types: SmallVec<[DType; 4]>,
    /// How many axes, how many of them parallel, and which one is counted.
    axes: (usize, usize, Option<usize>),
    walks: SmallVec<[Walk; 4]>,
    /// The buffer of each argument: an operand may be the result.
    buffers: SmallVec<[u32; 4]>,
    team: Team,
}

/// A kernel that is ready, and what it takes.
struct Ready {
    code: Arc<Code>,
    params: Vec<cuda::Param>,
}

/// Generates code for ops on CUDA devices.
pub struct Generator {
    known: Mutex<FxHashMap<Key, Result<Arc<Ready>, String>>>,
    keep: Keep,
}

/// Has eager execution on devices take its code from a [`Generator`]; does nothing from the
/// second time on.
pub fn register() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let folder = crate::tune::caches().map(|dir| dir.join("device"));
        sinter_runtime::cuda::set_kernel_source(Generator::new(folder));
    });
}

impl Generator {
    /// One that keeps code in a folder, if there is one.
    pub fn new(folder: Option<PathBuf>) -> Generator {
        Generator { known: Mutex::default(), keep: Keep::new(folder) }
    }

    fn ready(&self, work: &Work, key: Key) -> Result<Arc<Ready>, String> {
        let known = || self.known.lock().unwrap_or_else(|e| e.into_inner());
        if let Some(r) = known().get(&key) {
            return r.clone();
        }
        let made = self.make(work, &key).map(Arc::new);
        known().entry(key).or_insert(made).clone()
    }

    fn make(&self, work: &Work, key: &Key) -> Result<Ready, String> {
        thread_local! {
            static COMPILER: Compiler = Compiler::new();
        }
        let arch = Arch::for_device(key.capability).map_err(|e| e.to_string())?;
        let kernel = work.kernel(&key.walks)?;
        let made = COMPILER.with(|c| {
            let get = |mlir: &str| self.keep.get(mlir, arch);
            let put = |mlir: &str, ptx: &str| self.keep.put(mlir, arch, ptx);
            c.compile_kept(&kernel, key.team, arch, get, put)
        });
        let k = made.map_err(|e| match e {
            CudaError::Op { dtype, reason, .. } => format!("on {dtype}, {reason}"),
            e => e.to_string(),
        })?;
        Ok(Ready { code: Arc::new(Code { entry: k.entry, ptx: k.ptx }), params: k.params })
    }
}

impl KernelSource for Generator {
    fn launch(
        &self,
        capability: (u32, u32),
        op: &Op,
        operands: &[&Array],
        results: &[&Array],
    ) -> Result<Launch, String> {
        let work = Work::of(op, operands, results)?;
        let extents = &work.space.extents;
        let (parallel, rows) = extents.split_at(work.space.parallel);
        let team = match rows {
            [] => Team::Thread,
            rows => Team::of_row(Some(rows.iter().product::<i64>() as usize)),
        };
        let walks = work.space.walks();
        let mut numbers = work.space.numbers(&walks);
        numbers.extend(work.far.map(|(_, step)| step));
        let buffers: SmallVec<[u32; 4]> = work.args.iter().map(|a| a.buffer).collect();
        let key = Key {
            capability,
            form: work.form,
            types: work.args.iter().map(|a| a.dtype).collect(),
            axes: (extents.len(), work.space.parallel, work.counted),
            walks,
            buffers,
            team,
        };
        let ready = self.ready(&work, key)?;
        let count = parallel.iter().product::<i64>() as u64;
        let blocks = count.div_ceil(u64::from(THREADS / team.threads()));
        let blocks = i32::try_from(blocks).map_err(|_| "too many elements for one launch")?;
        let param = |p: &cuda::Param| match *p {
            cuda::Param::Buffer(b) => work.place(b),
            cuda::Param::Size(s) => Param::Number(numbers[s]),
        };
        Ok(Launch {
            code: ready.code.clone(),
            params: ready.params.iter().map(param).collect(),
            blocks: blocks.unsigned_abs(),
            threads: THREADS,
        })
    }
}
