//! A step of training: time, CPU time, memory.

use clap::Parser;
use comfy_table::Table;
use sinter_benches::memory::Watch;
use sinter_benches::models::Net;
use sinter_benches::training::{Method, Training};
use sinter_benches::{Candidate, interleaved};
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

fn main() -> std::io::Result<()> {
    let args = Args::parse();
    sinter_kernels::par::set_threads(args.threads);
    let make = || Training::random(args.model, args.optimizer, args.batch, !args.no_dropout);
    let (mut training, mut other) = (make(), make());
    let watch = Watch::start()?;
    let budget = Duration::from_secs_f64(args.budget);
    let eager = Candidate::new("eager", || drop(training.step()));
    let stats = match args.compiled || args.profile {
        true => other.compiled(|step| {
            if args.profile {
                for (ns, what) in step.profile() {
                    println!("{:9.1} us  {what}", ns / 1e3);
                }
            }
            let compiled = Candidate::new("compiled", || drop(step.step()));
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
