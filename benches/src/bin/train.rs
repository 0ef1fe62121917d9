//! A step of training: time, CPU time, memory.

use clap::Parser;
use comfy_table::Table;
use sinter_benches::memory::Watch;
use sinter_benches::{Candidate, interleaved};
use sinter_models::{Method, Net, Task, Training};
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
    let mut training = Training::random(&Task::new(args.model, args.optimizer, true), args.batch);
    let watch = Watch::start()?;
    let budget = Duration::from_secs_f64(args.budget);
    let stats = interleaved(budget, vec![Candidate::new("step", || drop(training.step()))]);
    let memory = watch.read()?;
    let mut table = Table::new();
    table.set_header(["median ms", "min ms", "CPU ms", "samples", "growth MB", "peak MB"]);
    for s in stats {
        let time = [s.median, s.min, s.cpu].map(|t| format!("{:.2}", t / 1e6));
        let bytes = [memory.growth, memory.peak].map(|b| format!("{:.1}", b as f64 / 1e6));
        table.add_row(time.into_iter().chain([s.samples.to_string()]).chain(bytes));
    }
    println!("{table}");
    Ok(())
}
