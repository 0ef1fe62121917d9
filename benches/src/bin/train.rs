//! A step of training: time, CPU time, memory.

use anyhow::Result;
use clap::Parser;
use comfy_table::Table;
use sinter::io::{npy, safetensors};
use sinter::{Tensor, zeros};
use sinter_benches::memory::Watch;
use sinter_benches::{Candidate, interleaved};
use sinter_models::{Compiled, Method, Net, Task, Training};
use sinter_runtime::Array;
use sinter_runtime::program::{Port, Step};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Measures a step of training: forward with dropout, loss, backward, optimizer.
///
/// Memory is what the process grew by over what it held before the first step
/// (weights, batch). It is that of the first model and optimizer of a run.
#[derive(Parser)]
struct Args {
    /// The model.
    #[arg(long, default_value = "mnist_cnn")]
    model: Net,
    /// The optimizer.
    #[arg(long, default_value = "adadelta")]
    optimizer: Method,
    /// Whether the step is compiled, too.
    #[arg(long)]
    compiled: bool,
    /// Lists what the compiled step spends its time on.
    #[arg(long)]
    profile: bool,
    /// Without dropout.
    #[arg(long)]
    no_dropout: bool,
    /// A folder of the suite: compares losses and weights after five steps with those of
    /// PyTorch there, and measures nothing.
    #[arg(long)]
    check: Option<PathBuf>,
    /// Batch size.
    #[arg(long, default_value_t = 64)]
    batch: usize,
    /// Threads.
    #[arg(long, default_value_t = 1)]
    threads: usize,
    /// Seconds.
    #[arg(long, default_value_t = 3.0)]
    budget: f64,
}

/// Runs a step that is compiled.
fn run(step: &mut dyn Compiled) -> Tensor {
    let loss = step.step().unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(step.why_eager(), None);
    loss
}

/// Nanoseconds of each step of the program, the longest first, with what it does.
fn profile(step: &mut dyn Compiled) -> Vec<(f64, String)> {
    run(step);
    let (program, _) = step.program().expect("a step was made");
    let array = |p: &Port| {
        let t = p.ty.eval(&[]).expect("batches have a size");
        zeros(t.shape.as_slice()).to_dtype(t.dtype).array().clone()
    };
    let inputs: Vec<Array> = program.program().inputs.iter().map(array).collect();
    let outputs: Vec<Array> = program.program().outputs.iter().map(array).collect();
    let (x, y): (Vec<&Array>, Vec<&Array>) = (inputs.iter().collect(), outputs.iter().collect());
    let mut best: Vec<f64> = vec![];
    for _ in 0..10 {
        let times = program.profile(&x, &y).expect("the program runs");
        best.resize(times.len(), f64::INFINITY);
        best.iter_mut().zip(times).for_each(|(b, t)| *b = b.min(t.as_secs_f64() * 1e9));
    }
    let name = |s: &Step| match s {
        Step::Generated { name } => name.clone(),
        Step::Contract { op, result, hook, .. } => {
            format!("{} {:?}{}", op.name(), result.shape, if *hook { " + code" } else { "" })
        }
        Step::Library { op, results, .. } | Step::Sequence { op, results, .. } => {
            format!("{} {:?}", op.name(), results[0].shape)
        }
    };
    let names = program.program().steps.iter().map(name);
    let mut out: Vec<(f64, String)> = best.into_iter().zip(names).collect();
    out.sort_by(|a, b| b.0.total_cmp(&a.0));
    out
}

/// Losses, and weights after five steps, beside those of the suite.
fn check(args: &Args, dir: &Path) -> Result<()> {
    let tensors = |name: &str| safetensors::load(dir.join(name));
    let (weights, after) =
        (tensors("weights.safetensors")?, tensors("weights_after5.safetensors")?);
    let batch = (npy::load(dir.join("input.npy"))?, npy::load(dir.join("target.npy"))?);
    let meta: serde_json::Value =
        serde_json::from_str(&std::fs::read_to_string(dir.join("meta.json"))?)?;
    let want: Vec<f64> = serde_json::from_value(meta["losses_f64"].clone())?;
    for compiled in [false, true] {
        let task = Task::new(args.model, args.optimizer, false);
        let mut t = Training::with(&task, &weights, batch.clone())?;
        let got: Vec<f64> = match compiled {
            false => (0..5).map(|_| t.step().item()).collect(),
            true => t.compiled(true, |s| (0..5).map(|_| run(s).item()).collect()),
        };
        let losses = got.iter().zip(&want).map(|(a, b)| (a - b).abs() / b.abs());
        let weights = t.weights();
        let off = |(name, a): (&String, &Tensor)| {
            let b = &weights[name];
            (a - b).abs().max().item::<f64>() / a.abs().max().item::<f64>()
        };
        println!(
            "{}: losses within {:.1e}, weights within {:.1e}",
            if compiled { "compiled" } else { "eager" },
            losses.fold(0.0, f64::max),
            after.iter().map(off).fold(0.0, f64::max),
        );
    }
    Ok(())
}

fn main() -> Result<()> {
    let args = Args::parse();
    sinter_kernels::par::set_threads(args.threads);
    if let Some(dir) = &args.check {
        return check(&args, dir);
    }
    let task = Task::new(args.model, args.optimizer, !args.no_dropout);
    let make = || Training::random(&task, args.batch);
    let (mut training, mut other) = (make(), make());
    let watch = Watch::start()?;
    let budget = Duration::from_secs_f64(args.budget);
    let eager = Candidate::new("eager", || drop(training.step()));
    let stats = match args.compiled || args.profile {
        true => other.compiled(true, |step| {
            if args.profile {
                for (ns, what) in profile(step) {
                    println!("{:9.1} us  {what}", ns / 1e3);
                }
            }
            let compiled = Candidate::new("compiled", || drop(run(step)));
            interleaved(budget, vec![eager, compiled])
        }),
        false => interleaved(budget, vec![eager]),
    };
    let memory = watch.read()?;
    let mut table = Table::new();
    let header = ["step", "median ms", "min ms", "CPU ms", "samples", "growth MB", "peak MB"];
    table.set_header(header);
    for s in stats {
        let time = [s.median, s.min, s.cpu].map(|t| format!("{:.2}", t / 1e6));
        let bytes = [memory.growth, memory.peak].map(|b| format!("{:.1}", b as f64 / 1e6));
        table.add_row([s.name].into_iter().chain(time).chain([s.samples.to_string()]).chain(bytes));
    }
    println!("{table}");
    Ok(())
}
