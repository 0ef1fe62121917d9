//! `sinter verify`. Checking artifacts.

use anyhow::{Context, bail};
use comfy_table::CellAlignment;
use sinter_compiler::artifact::{ReadError, compiled_graph, report, source_graph};
use sinter_compiler::graph::interpret;
use sinter_runtime::Array;
use sinter_runtime::artifact::{Artifact, relative_error};
use std::path::PathBuf;

/// Check an artifact and run its sample.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The artifact.
    model: PathBuf,
}

/// Does it.
pub fn run(args: &Args) -> anyhow::Result<()> {
    let artifact = Artifact::open(&args.model)?;
    let at = || args.model.display().to_string();
    let v = artifact.verify()?;
    println!("{}", artifact.program()?.signature());
    let mut sections = super::table(["section", "bytes", ""]);
    for s in artifact.sections() {
        let level = s.level().map_or("", |l| l.name());
        sections.add_row([s.kind.name(), &s.len.to_string(), level]);
    }
    super::align(&mut sections, 1, CellAlignment::Right);
    println!("{sections}");
    println!("checksums     all {} sections, every byte of {}", v.sections, v.bytes);
    println!("program       every reference and lifetime");

    let mut failed = false;
    for s in &v.samples {
        let verdict = verdict(s.error, s.tolerance, &mut failed);
        println!("compiled      {verdict}, {} elements, code for {}", s.elements, s.level.name());
    }
    match source_graph(&artifact) {
        Ok(graph) => {
            println!("source graph  {} nodes, invariants hold", graph.len());
            if let Some(sample) = artifact.sample()? {
                let got = interpret(&graph, &sample.inputs().with_context(at)?).with_context(at)?;
                let want = sample.outputs().with_context(at)?;
                let error = error(&got, &want).with_context(at)?;
                println!("eager         {}", verdict(error, sample.tolerance, &mut failed));
            }
        }
        Err(ReadError::Missing(_)) => println!("source graph  left out"),
        Err(e) => return Err(e).with_context(at),
    }
    match compiled_graph(&artifact).and_then(|g| Ok((g, report(&artifact)?))) {
        Ok((graph, _)) => println!("final graph   {} nodes, invariants hold", graph.len()),
        Err(ReadError::Missing(_)) => println!("final graph   left out"),
        Err(e) => return Err(e).with_context(at),
    }
    if v.samples.is_empty() {
        println!("there is no sample: outputs were not compared");
    }
    if failed {
        bail!("{}: outputs are not those of the sample", at());
    }
    Ok(())
}

fn error(got: &[Array], want: &[Array]) -> anyhow::Result<f64> {
    if got.len() != want.len() || got.iter().zip(want).any(|(g, w)| g.shape() != w.shape()) {
        bail!("the sample's outputs do not belong to the source graph");
    }
    Ok(got.iter().zip(want).map(|(g, w)| relative_error(g, w)).fold(0.0, f64::max))
}

fn verdict(error: f64, tolerance: f64, failed: &mut bool) -> String {
    let right = error <= tolerance;
    *failed |= !right;
    let word = if right { "right" } else { "WRONG" };
    format!("{word}, relative error {error:.1e} of {tolerance:.0e} allowed")
}
