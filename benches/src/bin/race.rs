//! The define-by-run race; `benches/ancestors/race.py run` runs PyTorch beside it.

use anyhow::Context;
use clap::Parser;
use serde::Serialize;
use sinter_benches::cpu_time;
use sinter_benches::race::{Instances, LanguageModel, Perceptron, TreeLstm};
use std::path::PathBuf;

/// Measures training on one instance after the other: process CPU time, the least of
/// several repetitions. Prints one line of JSON.
#[derive(Parser)]
struct Args {
    /// Sentences and trees, as `benches/ancestors/race.py instances` prints them.
    #[arg(long)]
    instances: PathBuf,
    /// Threads.
    #[arg(long, default_value_t = 1)]
    threads: usize,
    /// Repetitions.
    #[arg(long, default_value_t = 5)]
    repetitions: usize,
}

#[derive(Serialize)]
struct Figures {
    name: &'static str,
    mlp_us: f64,
    words_per_second: f64,
    trees_per_second: f64,
    autobatched_trees_per_second: f64,
    trees_at_once_per_second: f64,
}

/// Seconds of CPU time, the least of the repetitions, after one that is not counted.
fn least(repetitions: usize, calls: usize, mut f: impl FnMut()) -> f64 {
    f();
    let mut best = f64::INFINITY;
    for _ in 0..repetitions {
        let start = cpu_time();
        (0..calls).for_each(|_| f());
        best = best.min((cpu_time() - start).as_secs_f64() / calls as f64);
    }
    best
}

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let text = std::fs::read_to_string(&args.instances)
        .with_context(|| format!("cannot read {}", args.instances.display()))?;
    let data: Instances = serde_json::from_str(&text).context("the instances are malformed")?;
    sinter_kernels::par::set_threads(args.threads);
    let n = args.repetitions;
    let words: usize = data.sentences.iter().map(|s| s.len() - 1).sum();
    let trees = data.trees.len() as f64;
    let mut mlp = Perceptron::default();
    let mut language = LanguageModel::default();
    let mut tree = TreeLstm::default();
    let figures = Figures {
        name: "sinter",
        mlp_us: least(n, 50, || drop(mlp.step())) * 1e6,
        words_per_second: words as f64 / least(n, 1, || language.epoch(&data.sentences)),
        trees_per_second: trees / least(n, 1, || tree.epoch(&data.trees)),
        autobatched_trees_per_second: trees / least(n, 1, || tree.epoch_autobatched(&data.trees)),
        trees_at_once_per_second: trees / least(n, 1, || tree.step_autobatched(&data.trees)),
    };
    println!("{}", serde_json::to_string(&figures)?);
    Ok(())
}
