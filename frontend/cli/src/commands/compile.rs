//! `sinter compile`. Graphs to artifacts.

use super::{precision, tune};
use anyhow::{Context, bail};
use comfy_table::CellAlignment;
use sinter::io::safetensors;
use sinter_compiler::artifact::{example_inputs, source_graph};
use sinter_compiler::graph::{Graph, text};
use sinter_compiler::{Compiled, Options, Precision, Report};
use sinter_kernels::isa::{self, Isa};
use sinter_runtime::artifact::Artifact;
use sinter_runtime::{Array, file};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// Compile a graph, or a saved artifact again, to an artifact.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// A graph in Sinter's textual form, or an artifact.
    input: PathBuf,
    /// The artifact to write.
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
    /// One kernel for each op: no rewriting, no fusion.
    #[arg(long)]
    unfused: bool,
    /// Instruction-set levels to generate code for, the best of which is used
    /// where the artifact runs.
    #[arg(long, value_name = "LEVEL", value_delimiter = ',', value_parser = level)]
    isa: Vec<Isa>,
    /// How exactly f32 matrices are multiplied by weights: highest, in f32; high, in three
    /// products of bf16 where this machine is faster at that (with AMX), else in f32;
    /// medium, with operands rounded to bf16; int8, as integers of eight bits (with
    /// --calibrate).
    #[arg(long, value_name = "PRECISION", default_value = "highest", value_parser = precision)]
    precision: Precision,
    #[command(flatten)]
    calibration: super::calibrate::Examples,
    #[command(flatten)]
    tune: tune::Choice,
    /// Values of the graph's constants, by name.
    #[arg(long, value_name = "FILE.safetensors")]
    weights: Option<PathBuf>,
    /// A rewrite rule to leave out; may be given several times.
    #[arg(long, value_name = "RULE")]
    without: Vec<String>,
    /// Show which rules applied and what was fused, too.
    #[arg(long)]
    report: bool,
}

fn level(name: &str) -> Result<Isa, String> {
    let names = || Isa::ALL.map(Isa::name).join(", ");
    Isa::from_name(name).ok_or_else(|| format!("the levels are {}", names()))
}

/// Does it.
pub fn run(args: &Args) -> anyhow::Result<()> {
    let (graph, inputs) = read(args)?;
    let known = |r: &String| sinter_compiler::rewrite::RULES.iter().any(|k| k.name == *r);
    if let Some(r) = args.without.iter().find(|r| !known(r)) {
        bail!("there is no rewrite rule `{r}`");
    }
    let mut levels = if args.isa.is_empty() { vec![isa::active()] } else { args.isa.clone() };
    levels.sort_unstable();
    levels.dedup();
    let mut options = Options { fusion: !args.unfused, ..Options::default() };
    options.precision = args.precision;
    options.calibration = args.calibration.read(&graph, args.precision)?.map(Arc::new);
    options.isa = *levels.last().expect("at least one level");
    options.matrix_unit &= options.isa == Isa::Avx512;
    options.rewrite.disabled = args.without.clone();
    options.tuning = args.tune.tuning()?;
    let mut compiled = match options.tuning {
        Some(_) => sinter_compiler::compile_measured(&graph, &options, &mut tune::Progress::new())?,
        None => sinter_compiler::compile(&graph, &options)?,
    };
    tune::complain(&compiled.report);
    let bytes = compiled.artifact(&levels, &inputs)?;
    file::write_atomic(&args.output, |f| f.write_all(&bytes))
        .with_context(|| args.output.display().to_string())?;
    summary(&compiled, args, bytes.len());
    Ok(())
}

/// The graph with its constants, and inputs for the sample.
fn read(args: &Args) -> anyhow::Result<(Graph, Vec<Array>)> {
    let path = &args.input;
    let at = || path.display().to_string();
    let text = match Artifact::open(path) {
        Ok(a) if args.weights.is_none() => {
            let graph = source_graph(&a).with_context(at)?;
            let inputs = match a.sample()? {
                Some(s) => s.inputs().with_context(at)?,
                None => example_inputs(&graph).with_context(at)?,
            };
            return Ok((graph, inputs));
        }
        Ok(_) => bail!("{}: an artifact holds its constants; --weights is for graphs", at()),
        Err(e) => match std::fs::read(path) {
            // Neither kind of file is the other by accident: say what is wrong with it.
            Ok(bytes) if !bytes.starts_with(b"SINTER") => {
                String::from_utf8(bytes).with_context(|| format!("{}: no graph", at()))?
            }
            _ => return Err(e.into()),
        },
    };
    let mut graph = text::parse(&text).with_context(at)?;
    attach(&mut graph, args.weights.as_deref())?;
    let inputs = example_inputs(&graph).with_context(at)?;
    Ok((graph, inputs))
}

/// Gives the graph's constants their values.
fn attach(graph: &mut Graph, weights: Option<&Path>) -> anyhow::Result<()> {
    if graph.constants.is_empty() {
        return Ok(());
    }
    let names: Vec<&str> = graph.constants.iter().map(|c| c.name.as_str()).collect();
    let Some(path) = weights else {
        bail!("the graph has constants ({}): --weights must name their file", names.join(", "));
    };
    let mut tensors = safetensors::load(path)?;
    for c in &mut graph.constants {
        let Some(t) = tensors.remove(&c.name) else {
            bail!("{}: there is no tensor `{}`", path.display(), c.name);
        };
        if t.dtype() != c.ty.dtype || t.shape() != c.ty.shape.as_slice() {
            bail!(
                "{}: `{}` is {} {:?}, the graph expects {} {:?}",
                path.display(),
                c.name,
                t.dtype(),
                t.shape(),
                c.ty.dtype,
                c.ty.shape
            );
        }
        c.data = Some(t.array().clone().into());
    }
    Ok(())
}

/// Writes a length of time so that it can be compared with others.
pub fn milliseconds(t: Duration) -> String {
    format!("{:.3} ms", t.as_secs_f64() * 1e3)
}

fn summary(compiled: &Compiled, args: &Args, bytes: usize) {
    let (plan, report) = (&compiled.plan, &compiled.report);
    println!("{}", plan.program.signature());
    println!(
        "{} ops became {} steps; {} kernels generated; {} bytes in {}",
        compiled.source.len() - compiled.source.inputs().len() - compiled.source.constants.len(),
        plan.program.steps.len(),
        plan.generated.len(),
        bytes,
        args.output.display()
    );
    let mut table = super::table(["pass", "time"]);
    for (pass, time) in &report.passes {
        table.add_row([pass.clone(), milliseconds(*time)]);
    }
    table.add_row(["all".to_string(), milliseconds(report.total())]);
    super::align(&mut table, 1, CellAlignment::Right);
    println!("{table}");
    if let Some(a) = &report.accuracy {
        print!("{}", a.text());
    }
    if args.report {
        println!("{}", details(report));
    }
}

/// What the rewriter did and why ops are in the steps they are in.
pub fn details(report: &Report) -> String {
    let r = &report.rewrite;
    let mut out = String::new();
    if !r.stopped.is_empty() {
        out += &format!(
            "rewriting: {} rounds, {} nodes in {} classes, stopped: {}; cost {:.1} µs → {:.1} µs\n",
            r.iterations,
            r.nodes,
            r.classes,
            r.stopped,
            r.cost.0 / 1e3,
            r.cost.1 / 1e3
        );
    }
    let mut rules = super::table(["rule", "applied"]);
    for (rule, times) in r.applied.iter().filter(|a| a.1 > 0) {
        rules.add_row([rule.clone(), times.to_string()]);
    }
    if !rules.is_empty() {
        super::align(&mut rules, 1, CellAlignment::Right);
        out += &format!("{rules}\n");
    }
    let mut table = super::table(["step", "op", "why"]);
    for d in &report.decisions {
        table.add_row([d.step.to_string(), d.op.clone(), d.reason.clone()]);
    }
    out += &table.to_string();
    match &report.tuned {
        Some(tuned) => format!("{out}\n{}", tune::findings(tuned)),
        None => out,
    }
}
