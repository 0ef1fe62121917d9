//! Everything as JSON, for other programs.

use super::kernels::functions;
use super::plan;
use serde_json::{Value, json};
use sinter_compiler::artifact::{ReadError, report};
use sinter_runtime::Extent;
use sinter_runtime::artifact::{Artifact, SectionKind};
use sinter_runtime::program::{Place, Port};

/// The artifact as one object.
pub fn of(artifact: &Artifact) -> anyhow::Result<String> {
    let p = artifact.program()?;
    let names = p.symbol_names();
    let dims = |d: &[sinter_runtime::Dim]| d.iter().map(|d| d.show(&names)).collect::<Vec<_>>();
    let ports = |ports: &[Port]| -> Vec<Value> {
        let one = |p: &Port| json!({"name": p.name, "dtype": p.ty.dtype.to_string(), "shape": dims(&p.ty.shape)});
        ports.iter().map(one).collect()
    };
    let buffers: Vec<Value> = p
        .buffers
        .iter()
        .map(|b| {
            let place = match b.place {
                Place::Input(k) => json!({"input": k}),
                Place::Output(k) => json!({"output": k}),
                Place::Constant(at) => json!({"constant": at}),
                Place::Temp { first, last } => json!({"first": first, "last": last}),
            };
            json!({"dtype": b.dtype.to_string(), "len": b.len.show(&names), "place": place})
        })
        .collect();
    let sections: Vec<Value> = artifact
        .sections()
        .iter()
        .map(|s| {
            json!({
                "kind": s.kind.name(),
                "level": s.level().map(|l| l.name()),
                "offset": s.offset,
                "bytes": s.len,
            })
        })
        .collect();
    let functions: Vec<Value> = functions(artifact)?
        .iter()
        .flat_map(|(level, fs)| {
            fs.iter().map(move |f| json!({"name": f.name, "level": level, "bytes": f.bytes}))
        })
        .collect();
    let report = match report(artifact) {
        Ok(r) => Some(r),
        Err(ReadError::Missing(_)) => None,
        Err(e) => return Err(e.into()),
    };
    let hints: Vec<usize> = p.symbols.iter().map(|s| s.hint).collect();
    let steps: Vec<String> = p.steps.iter().map(|s| plan::text(p, s, &names)).collect();
    let all = json!({
        "name": p.name,
        "architecture": artifact.architecture()?,
        "bytes": artifact.len(),
        "symbols": p.symbols,
        "inputs": ports(&p.inputs),
        "outputs": ports(&p.outputs),
        "buffers": buffers,
        "steps": steps,
        "arena_bytes": p.memory(&hints)?.total,
        "sections": sections,
        "functions": functions,
        "source_graph": artifact.text(SectionKind::Source)?,
        "graph": artifact.text(SectionKind::Graph)?,
        "report": report,
    });
    Ok(format!("{all:#}\n"))
}
