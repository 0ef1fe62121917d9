//! Kernels for CUDA devices, on machines that need not have one: every PTX goes
//! through NVIDIA's assembler where that is found, and through a machine of our own.

mod kernels;
mod ops;

use sinter_compiler::codegen::cuda::{Arch, Compiler, CudaError, CudaKernel, Launch, Param};
use sinter_compiler::kernel::Kernel;
use sinter_compiler::plan::Plan;
use sinter_ptx::Memory;
use sinter_runtime::cuda::Driver;
use sinter_runtime::op::ReduceKind;
use sinter_runtime::program::{Place, Step, bind_sizes};
use sinter_runtime::{Array, DeviceError, cuda};
use std::io::Write;
use std::path::PathBuf;
use std::process::Command;
use std::sync::OnceLock;

/// What the tests compile for.
fn arch() -> Arch {
    "sm_80".parse().expect("an architecture")
}

/// Compiles for an architecture, with one compiler for each thread.
fn compile(k: &Kernel, arch: Arch) -> Result<CudaKernel, CudaError> {
    thread_local! {
        static COMPILER: Compiler = Compiler::new();
    }
    COMPILER.with(|c| c.compile(k, arch))
}

/// NVIDIA's assembler: what `PTXAS` names, or on the path.
fn assembler() -> Option<&'static PathBuf> {
    static FOUND: OnceLock<Option<PathBuf>> = OnceLock::new();
    let find = || {
        let named = std::env::var_os("PTXAS").map_or_else(|| "ptxas".into(), PathBuf::from);
        let works =
            Command::new(&named).arg("--version").output().is_ok_and(|o| o.status.success());
        if !works {
            // Past the harness, which shows nothing of tests that pass.
            let _ = writeln!(
                std::io::stderr(),
                "PTX is not assembled: no ptxas on the path, nor named by PTXAS"
            );
        }
        works.then_some(named)
    };
    FOUND.get_or_init(find).as_ref()
}

/// Assembles, where there is an assembler.
fn assemble(k: &CudaKernel, arch: Arch) -> Result<(), String> {
    let Some(ptxas) = assembler() else { return Ok(()) };
    let fail = |e: std::io::Error| format!("{}: {e}", ptxas.display());
    let mut file = tempfile::NamedTempFile::new().map_err(fail)?;
    file.write_all(k.ptx.as_bytes()).map_err(fail)?;
    let arch = format!("-arch={arch}");
    let mut command = Command::new(ptxas);
    let run = command.args([&arch, "-o", "/dev/null"]).arg(file.path()).output().map_err(fail)?;
    if run.status.success() {
        return Ok(());
    }
    Err(format!("{}\n{}", String::from_utf8_lossy(&run.stderr), k.ptx))
}

/// Runs a compiled kernel with its threads in one order, and in the other, and where
/// there is a device, there; returns the memory.
fn launch(
    k: &CudaKernel,
    memory: &Memory,
    addresses: &[u64],
    sizes: &[usize],
) -> Result<Memory, String> {
    let function = sinter_ptx::read(&k.ptx).map_err(|e| format!("{e}\n{}", k.ptx))?;
    let geometry = k.launch(sizes).map_err(|e| e.to_string())?;
    let params: Vec<u64> = k
        .params
        .iter()
        .map(|p| match *p {
            Param::Buffer(b) => addresses[b as usize],
            Param::Size(s) => sizes[s] as u64,
        })
        .collect();
    let run = |reverse: bool| {
        let mut memory = memory.clone();
        let (blocks, threads) = (geometry.blocks, geometry.threads);
        sinter_ptx::launch(&function, &mut memory, blocks, threads, &params, reverse)
            .map_err(|e| format!("{e}\n{}", k.ptx))?;
        Ok::<_, String>(memory)
    };
    let (forward, backward) = (run(false)?, run(true)?);
    let same = addresses.iter().all(|&a| forward.bytes(a) == backward.bytes(a));
    if !same {
        return Err(format!("the order of threads matters\n{}", k.ptx));
    }
    let driver = match cuda::driver(0) {
        Ok(d) => d,
        Err(DeviceError::NoDriver(_) | DeviceError::NoSuchDevice { .. }) => return Ok(forward),
        Err(e) => return Err(e.to_string()),
    };
    on_device(&*driver, k, memory, addresses, sizes, geometry)
        .map_err(|e| format!("{e}\n{}", k.ptx))
}

/// Runs a kernel on a device.
fn on_device(
    driver: &dyn Driver,
    k: &CudaKernel,
    memory: &Memory,
    addresses: &[u64],
    sizes: &[usize],
    geometry: Launch,
) -> Result<Memory, String> {
    let entry = driver.load(&k.ptx, &k.entry)?;
    let mut places = vec![];
    for &a in addresses {
        let bytes = memory.bytes(a);
        let place = driver.allocate(bytes.len().max(1))?.ok_or("out of memory")?;
        // SAFETY: the memory was just allocated, of that size.
        unsafe { driver.upload(bytes, place)? };
        places.push(place);
    }
    let param = |p: &Param| match *p {
        Param::Buffer(b) => places[b as usize],
        Param::Size(s) => sizes[s] as u64,
    };
    let params: Vec<u64> = k.params.iter().map(param).collect();
    if geometry.blocks > 0 {
        // SAFETY: compiled from this kernel, which stayed inside these buffers on our own
        // machine.
        unsafe { entry.launch(geometry.blocks, geometry.threads, &params)? };
    }
    let mut after = Memory::default();
    for (&a, &place) in addresses.iter().zip(&places) {
        let mut bytes = vec![0; memory.bytes(a).len()];
        // SAFETY: allocated above, of that size; given back, and forgotten.
        unsafe {
            driver.download(place, &mut bytes)?;
            driver.free(place)?;
        }
        after.add(bytes);
    }
    Ok(after)
}

/// Whether results may differ from the processor's in the order of additions.
fn reorders(plan: &Plan) -> bool {
    plan.generated.iter().flat_map(|g| &g.kernel.stages).any(|s| {
        s.reductions.iter().any(|&(kind, r)| {
            let float = s.insts[r as usize].1.is_float();
            float && matches!(kind, ReduceKind::Sum | ReduceKind::Prod)
        })
    })
}

/// Compiles all kernels of a plan, and where they are the whole plan, runs it;
/// returns the bytes of its outputs.
fn run(plan: &Plan, inputs: &[Array]) -> Result<Option<Vec<Vec<u8>>>, String> {
    let mut kernels = vec![];
    for g in &plan.generated {
        match compile(&g.kernel, arch()) {
            Ok(k) => kernels.push(k),
            Err(CudaError::Op { .. } | CudaError::Kernel { .. }) => {}
            Err(e) => return Err(e.to_string()),
        }
    }
    let generated = plan.program.steps.iter().all(|s| matches!(s, Step::Generated { .. }));
    if !generated || kernels.len() != plan.generated.len() {
        return Ok(None);
    }
    let types: Vec<_> = inputs.iter().map(|x| (x.dtype(), x.shape())).collect();
    let sizes = bind_sizes(&plan.program.inputs, &plan.program.symbols, &types)
        .map_err(|e| e.to_string())?;
    let mut memory = Memory::default();
    let mut addresses = vec![];
    for b in &plan.program.buffers {
        let len = b.len.eval(&sizes).ok_or("a buffer without size")?;
        addresses.push(
            memory.add(match b.place {
                Place::Input(i) => inputs[i as usize].to_bytes(),
                Place::Constant(at) => {
                    Array::from_block(plan.constants.clone(), at as usize, &[len], b.dtype)
                        .map_err(|e| e.to_string())?
                        .to_bytes()
                }
                Place::Output(_) | Place::Temp { .. } => vec![0xaa; len * b.dtype.size()],
            }),
        );
    }
    for k in &kernels {
        memory = launch(k, &memory, &addresses, &sizes)?;
    }
    let mut outputs = vec![vec![]; plan.program.outputs.len()];
    for (b, &address) in plan.program.buffers.iter().zip(&addresses) {
        if let Place::Output(i) = b.place {
            outputs[i as usize] = memory.bytes(address).to_vec();
        }
    }
    Ok(Some(outputs))
}

/// Runs a plan, where it is all device code, and compares with the results of the
/// processor. Says whether it ran.
pub fn check(plan: &Plan, inputs: &[Array], want: &[Array]) -> Result<bool, String> {
    let Some(outputs) = run(plan, inputs)? else { return Ok(false) };
    for (i, (got, want)) in outputs.iter().zip(want).enumerate() {
        let got = Array::from_bytes(got, want.shape(), want.dtype()).map_err(|e| e.to_string())?;
        let tolerance = if reorders(plan) { crate::common::tolerance(want.dtype()) } else { 0.0 };
        crate::common::compare(&got, want, tolerance)
            .map_err(|e| format!("on the device, output {i}: {e}"))?;
    }
    Ok(true)
}
