//! What the kernels of an artifact are on CUDA devices.

use sinter_runtime::artifact::Artifact;

/// The PTX of each kernel that the artifact's graph gives, or why there is none.
#[cfg(feature = "mlir")]
pub fn listing(artifact: &Artifact, arch: &str) -> anyhow::Result<String> {
    use sinter_compiler::artifact::source_graph;
    use sinter_compiler::codegen::cuda::{Compiler, CudaError};
    use sinter_compiler::{Options, compile};

    let arch = arch.parse()?;
    let plan = compile(&source_graph(artifact)?, &Options::default())?.plan;
    let compiler = Compiler::new();
    let mut out = String::new();
    for g in &plan.generated {
        out += &format!("// step {}: {}", g.step, g.kernel.name);
        match compiler.compile(&g.kernel, arch) {
            Ok(k) => {
                let threads = k.team.threads();
                out += &format!(", {threads} thread(s) a row\n{}\n", k.ptx.trim_end());
            }
            Err(e @ (CudaError::Op { .. } | CudaError::Kernel { .. })) => {
                out += &format!("\n// {e}\n");
            }
            Err(e) => return Err(e.into()),
        }
        out.push('\n');
    }
    Ok(out)
}

/// Says what is missing.
#[cfg(not(feature = "mlir"))]
pub fn listing(_: &Artifact, _: &str) -> anyhow::Result<String> {
    anyhow::bail!(
        "--ptx is not available: this program was built without the `mlir` feature; build with `--features mlir`"
    )
}
