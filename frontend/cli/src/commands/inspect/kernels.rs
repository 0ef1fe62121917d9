//! Generated kernels: how they were compiled, their IR, their code.

use anyhow::{Context, anyhow};
use comfy_table::CellAlignment;
use sinter_compiler::artifact::{ReadError, report};
use sinter_compiler::codegen::cpu::{Function, disassemble};
use sinter_runtime::artifact::Artifact;

/// The functions of each code section.
pub fn functions(artifact: &Artifact) -> anyhow::Result<Vec<(&'static str, Vec<Function>)>> {
    let mut out = Vec::new();
    for (level, section) in artifact.levels() {
        let code = artifact.bytes(section)?;
        let functions = disassemble(code).map_err(|e| anyhow!("code for {}: {e}", level.name()))?;
        out.push((level.name(), functions));
    }
    Ok(out)
}

/// One line a kernel.
pub fn table(artifact: &Artifact) -> anyhow::Result<String> {
    let mut t = super::super::table(["function", "bytes", "code for"]);
    for (level, functions) in functions(artifact)? {
        for f in functions {
            t.add_row([f.name, f.bytes.to_string(), level.to_string()]);
        }
    }
    super::super::align(&mut t, 1, CellAlignment::Right);
    Ok(format!("{t}\n"))
}

/// The kernel IR with the remarks of the code generator, and the machine code.
pub fn listing(artifact: &Artifact, asm: bool) -> anyhow::Result<String> {
    let mut out = String::new();
    match report(artifact) {
        Ok(r) => {
            for k in &r.kernels {
                out += &format!("; step {}: {}\n{}\n", k.step, k.how, k.ir);
            }
        }
        Err(ReadError::Missing(_)) => {}
        Err(e) => return Err(e).context("reading the report"),
    }
    for (level, functions) in functions(artifact)? {
        for f in functions {
            out += &format!("{} ({level}): {} bytes\n", f.name, f.bytes);
            if asm {
                for (at, text) in &f.instructions {
                    out += &format!("  {at:5x}  {text}\n");
                }
                out.push('\n');
            }
        }
    }
    Ok(out)
}
