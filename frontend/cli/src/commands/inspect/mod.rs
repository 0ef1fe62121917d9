//! `sinter inspect`. Looking inside artifacts.

mod json;
mod kernels;
mod memory;
mod plan;
mod ptx;

use super::compile::{details, milliseconds};
use anyhow::{Context, bail};
use comfy_table::CellAlignment;
use sinter_compiler::artifact::{ReadError, compiled_graph, report, source_graph};
use sinter_compiler::draw::{Steps, dot, svg};
use sinter_compiler::graph::Graph;
use sinter_compiler::{Precision, Report};
use sinter_runtime::artifact::Artifact;
use std::io::Write;
use std::path::{Path, PathBuf};

/// Show what is inside an artifact.
///
/// Without options: a summary of everything.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The artifact.
    model: PathBuf,
    /// The graph after rewriting, as text.
    #[arg(long)]
    graph: bool,
    /// With --graph, --dot or --svg: the graph as it was traced.
    #[arg(long)]
    source: bool,
    /// Write the graph in DOT to a file, or to the standard output (-).
    #[arg(long, value_name = "FILE")]
    dot: Option<PathBuf>,
    /// Write a drawing of the graph as SVG to a file, or to the standard output (-).
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
    /// The steps of the program.
    #[arg(long)]
    plan: bool,
    /// Which rules applied, and why each op is in the step it is in.
    #[arg(long)]
    decisions: bool,
    /// Where temporaries lie and how long they live.
    #[arg(long)]
    memory: bool,
    /// The generated kernels.
    #[arg(long)]
    kernels: bool,
    /// With --kernels: their machine code.
    #[arg(long, requires = "kernels")]
    asm: bool,
    /// The kernels as PTX for CUDA devices of an architecture, such as sm_90.
    #[arg(long, value_name = "ARCH")]
    ptx: Option<String>,
    /// Everything, as JSON.
    #[arg(long)]
    json: bool,
}

/// Does it.
pub fn run(args: &Args) -> anyhow::Result<()> {
    let artifact = Artifact::open(&args.model)?;
    let at = || args.model.display().to_string();
    if args.json {
        print(&json::of(&artifact).with_context(at)?)?;
        return Ok(());
    }
    let ptx = args.ptx.is_some();
    let parts = [args.graph, args.plan, args.decisions, args.memory, args.kernels, ptx];
    let drawn = args.dot.is_some() || args.svg.is_some();
    if args.source && !(args.graph || drawn) {
        bail!("--source goes with --graph, --dot or --svg");
    }
    if !drawn && !parts.contains(&true) {
        return print(&summary(&artifact).with_context(at)?);
    }
    if args.graph || drawn {
        let (graph, steps) = graph(&artifact, args.source).with_context(at)?;
        if args.graph {
            print(&graph.to_string())?;
        }
        if let Some(path) = &args.dot {
            write(path, &dot(&graph, &steps))?;
        }
        if let Some(path) = &args.svg {
            write(path, &svg(&graph, &steps).with_context(at)?)?;
        }
    }
    let program = artifact.program()?;
    if args.plan {
        print(&plan::listing(program))?;
    }
    if args.decisions {
        print(&format!("{}\n", details(&report(&artifact).with_context(at)?)))?;
    }
    if args.memory {
        print(&memory::drawing(program)?)?;
    }
    if args.kernels {
        print(&kernels::listing(&artifact, args.asm).with_context(at)?)?;
    }
    if let Some(arch) = &args.ptx {
        print(&ptx::listing(&artifact, arch).with_context(at)?)?;
    }
    Ok(())
}

/// The graph to show, and which of its ops became one step.
fn graph(artifact: &Artifact, source: bool) -> Result<(Graph, Steps), ReadError> {
    if source {
        return Ok((source_graph(artifact)?, Steps::default()));
    }
    let graph = compiled_graph(artifact)?;
    let steps = Steps::of(&graph, &report(artifact)?);
    Ok((graph, steps))
}

/// Prints; whoever reads may leave early.
fn print(text: &str) -> anyhow::Result<()> {
    match std::io::stdout().write_all(text.as_bytes()) {
        Err(e) if e.kind() != std::io::ErrorKind::BrokenPipe => Err(e.into()),
        _ => Ok(()),
    }
}

fn write(path: &Path, text: &str) -> anyhow::Result<()> {
    if path == Path::new("-") {
        return print(text);
    }
    sinter_runtime::file::write_atomic(path, |f| f.write_all(text.as_bytes()))
        .with_context(|| path.display().to_string())
}

fn summary(artifact: &Artifact) -> anyhow::Result<String> {
    let program = artifact.program()?;
    let mut out = format!("{}\n", program.signature());
    for s in &program.symbols {
        out += &format!("{} in {}..={}, planned for {}\n", s.name, s.min, s.max, s.hint);
    }
    out += &format!("\n{} for {}\n", artifact.path().display(), artifact.architecture()?);
    let mut sections = super::table(["section", "bytes", ""]);
    for s in artifact.sections() {
        let level = s.level().map_or("", |l| l.name());
        sections.add_row([s.kind.name(), &s.len.to_string(), level]);
    }
    sections.add_row(["file", &artifact.len().to_string(), ""]);
    super::align(&mut sections, 1, CellAlignment::Right);
    out += &format!("{sections}\n");
    match report(artifact) {
        Ok(r) => {
            out += &compilation(&r);
            out += &r.accuracy.map_or(String::new(), |a| format!("\nAccuracy\n{}", a.text()));
        }
        Err(ReadError::Missing(_)) => {}
        Err(e) => return Err(e.into()),
    }
    out += &format!("\nSteps\n{}", plan::listing(program));
    out += &format!("\nMemory\n{}", memory::drawing(program)?);
    out += &format!("\nKernels\n{}", kernels::table(artifact)?);
    Ok(out + "\nMore: --graph --dot --svg --decisions --kernels --asm --json (see --help)\n")
}

fn compilation(r: &Report) -> String {
    let passes: Vec<String> =
        r.passes.iter().map(|(p, t)| format!("{p} {}", milliseconds(*t))).collect();
    let applied: usize = r.rewrite.applied.iter().map(|a| a.1).sum();
    let in_effect = match (r.precision, r.matrix_unit) {
        (Precision::High, false) => " (in f32: compiled for processors without AMX)",
        _ => "",
    };
    format!(
        "\ncompiled in {}: {}\nprecision of products {}{in_effect}, {applied} rewrites, {} ops placed, {} kernels generated\n",
        milliseconds(r.total()),
        passes.join(", "),
        r.precision.name(),
        r.decisions.len(),
        r.kernels.len()
    )
}
