//! Sinter's side of the comparison with its peers: prepares one thing, then does
//! what it is told, line by line.
//!
//! It prints a line of JSON when it is ready, and one for each line it reads:
//! `measure SECONDS` gives times, `compile` the seconds that compiling took,
//! `memory` the peak so far. It ends with its input.

use anyhow::{Context, Result, bail};
use clap::{Parser, Subcommand};
use serde_json::{Value, json};
use sinter::io::{npy, safetensors};
use sinter::nn::Layer;
use sinter::{CompiledModel, Compiler, Tensor, no_grad, zeros};
use sinter_benches::memory::Watch;
use sinter_benches::{Candidate, Stats, eager, interleaved};
use sinter_models::{Method, Net, Task, Training};
use std::io::{BufRead, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Sinter's side of the comparison with its peers.
#[derive(Parser)]
struct Args {
    /// Threads.
    #[arg(long, default_value_t = 1)]
    threads: usize,
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// A model's outputs.
    Infer {
        #[command(flatten)]
        model: Model,
        /// Where its output goes, to be compared.
        #[arg(long)]
        output: PathBuf,
        /// Runs the model op by op.
        #[arg(long)]
        eager: bool,
        /// Where the artifact goes.
        #[arg(long, conflicts_with = "eager")]
        artifact: Option<PathBuf>,
    },
    /// A step of training.
    Train {
        #[command(flatten)]
        model: Model,
        /// Classes to learn.
        #[arg(long)]
        target: PathBuf,
        /// The optimizer.
        #[arg(long)]
        optimizer: Method,
        /// Leaves dropout out, takes this many steps first, and tells their losses.
        #[arg(long, default_value_t = 0)]
        losses: usize,
    },
    /// Eager ops on next to no data.
    Eager,
}

#[derive(clap::Args)]
struct Model {
    /// Its name.
    #[arg(long)]
    model: Net,
    /// Its weights, by PyTorch's names.
    #[arg(long)]
    weights: PathBuf,
    /// Its input.
    #[arg(long)]
    input: PathBuf,
}

impl Model {
    fn load(&self) -> Result<(Box<dyn Layer + Send + Sync>, Tensor)> {
        let model = self.model.build(false);
        model.load_state_dict(&safetensors::load(&self.weights)?, true)?;
        Ok((model, npy::load(&self.input)?))
    }
}

fn main() -> Result<()> {
    let args = Args::parse();
    sinter_kernels::par::set_threads(args.threads);
    match args.what {
        What::Infer { model, output, eager: true, .. } => infer_eagerly(&model, &output),
        What::Infer { model, output, artifact, .. } => infer(&model, &output, artifact.as_deref()),
        What::Train { model, target, optimizer, losses } => {
            train(&model, &target, optimizer, losses)
        }
        What::Eager => {
            let measure =
                |budget| interleaved(budget, eager::cases().into_iter().map(|(c, _)| c).collect());
            serve(json!({}), &Watch::start()?, measure, None)
        }
    }
}

fn infer(model: &Model, output: &Path, artifact: Option<&Path>) -> Result<()> {
    let watch = Watch::start()?;
    let (net, x) = model.load()?;
    let compile = || -> Result<(CompiledModel, f64)> {
        let start = Instant::now();
        let compiled = Compiler::new().name(model.model.to_string()).compile(&*net, &x)?;
        Ok((compiled, start.elapsed().as_secs_f64()))
    };
    let (mut compiled, seconds) = compile()?;
    if let Some(path) = artifact {
        compiled.save(path)?;
    }
    let y = compiled.call(&x)?;
    npy::save(output, &y)?;
    let out = zeros(y.shape());
    let run = || compiled.run_into(&[&x], &[&out]).expect("the model ran before");
    let ready = json!({ "compile": seconds });
    let again = || Ok(compile()?.1);
    let measure = |budget| interleaved(budget, vec![Candidate::new("run", run)]);
    serve(ready, &watch, measure, Some(&again))
}

fn infer_eagerly(model: &Model, output: &Path) -> Result<()> {
    let watch = Watch::start()?;
    let (net, x) = model.load()?;
    npy::save(output, &no_grad(|| net.forward(&x)))?;
    let run = || drop(no_grad(|| net.forward(&x)));
    let measure = |budget| interleaved(budget, vec![Candidate::new("run", run)]);
    serve(json!({}), &watch, measure, None)
}

fn train(model: &Model, target: &Path, method: Method, losses: usize) -> Result<()> {
    let weights = safetensors::load(&model.weights)?;
    let batch = (npy::load(&model.input)?, npy::load(target)?);
    let task = Task::new(model.model, method, losses == 0);
    let mut training = Training::with(&task, &weights, batch)?;
    let watch = Watch::start()?;
    let losses: Vec<f32> = (0..losses).map(|_| training.step().item()).collect();
    let measure =
        |budget| interleaved(budget, vec![Candidate::new("step", || drop(training.step()))]);
    serve(json!({ "losses": losses }), &watch, measure, None)
}

/// Says that it is ready, then obeys until its input ends.
fn serve(
    ready: Value,
    watch: &Watch,
    mut measure: impl FnMut(Duration) -> Vec<Stats>,
    compile: Option<&dyn Fn() -> Result<f64>>,
) -> Result<()> {
    let mut out = std::io::stdout();
    writeln!(out, "{ready}")?;
    for line in std::io::stdin().lock().lines() {
        let line = line?;
        let answer = match line.split_once(' ').unwrap_or((&line, "")) {
            ("measure", seconds) => {
                let seconds: f64 = seconds.parse().with_context(|| format!("`{line}`"))?;
                json!(measure(Duration::from_secs_f64(seconds)))
            }
            ("compile", "") => match compile {
                Some(compile) => json!(compile()?),
                None => bail!("nothing is compiled here"),
            },
            ("memory", "") => json!(watch.read()?),
            _ => bail!("`{line}` is no order"),
        };
        writeln!(out, "{answer}")?;
    }
    Ok(())
}
