//! Time and memory of the network in its three forms, each in fresh processes.

use super::runner::{Runner, Timing, timing};
use anyhow::{Context, bail};
use sinter::io::{npy, safetensors};
use sinter::nn::{Layer, Module};
use sinter::no_grad;
use sinter_kernels::{mem, par};
use sinter_models::MnistCnn;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

/// The batch sizes compared.
pub const BATCHES: [usize; 2] = [1, 64];
/// Runs in a process, for each batch size.
const REPEAT: [usize; 2] = [200, 30];
/// Processes for each form and batch size; forms take turns, so that what slows
/// the machine for a while slows them alike.
const ROUNDS: usize = 3;

/// A form of the network.
pub enum Form<'a> {
    /// As it is written, from its weights.
    Eager(&'a Path),
    /// Compiled.
    Artifact(&'a Path),
}

/// What was measured of a form.
#[derive(Clone, Copy, Debug)]
pub struct Figures {
    /// Median time of a run, for each of [`BATCHES`].
    pub latency: [Duration; 2],
    /// Peak of resident memory in bytes, at the larger batch.
    pub peak: u64,
}

impl Figures {
    /// Images a second at the larger batch.
    pub fn rate(&self) -> f64 {
        BATCHES[1] as f64 / self.latency[1].as_secs_f64()
    }
}

/// Measures all forms on inputs of the sizes [`BATCHES`].
pub fn measure<const N: usize>(
    forms: [Form<'_>; N],
    inputs: [&Path; 2],
    runner: &Runner,
    threads: usize,
) -> anyhow::Result<[Figures; N]> {
    let scratch = inputs[0].with_extension("timed.npy");
    let mut all: [[Vec<Timing>; 2]; N] = std::array::from_fn(|_| [vec![], vec![]]);
    for _ in 0..ROUNDS {
        for (form, timings) in forms.iter().zip(&mut all) {
            for b in 0..BATCHES.len() {
                timings[b].push(match form {
                    Form::Eager(weights) => eager(weights, inputs[b], REPEAT[b], threads)?,
                    Form::Artifact(file) => {
                        runner.time(file, inputs[b], &scratch, REPEAT[b], threads)?
                    }
                });
            }
        }
    }
    std::fs::remove_file(&scratch).with_context(|| scratch.display().to_string())?;
    Ok(all.map(|[one, many]| Figures {
        peak: many.iter().map(|t| t.peak).min().unwrap_or(0),
        latency: [one, many].map(|mut ts| {
            ts.sort_by_key(|t| t.median);
            ts[ts.len() / 2].median
        }),
    }))
}

/// This program again, as [`run`].
fn eager(weights: &Path, input: &Path, repeat: usize, threads: usize) -> anyhow::Result<Timing> {
    let own = std::env::current_exe().context("finding this program's own file")?;
    let mut c = Command::new(own);
    c.arg("time-eager").arg(weights).arg(input);
    c.args(["--repeat", &repeat.to_string(), "--threads", &threads.to_string()]);
    timing(c)
}

/// Time the network as it is written.
#[derive(Debug, clap::Args)]
pub struct Args {
    weights: PathBuf,
    input: PathBuf,
    #[arg(long)]
    repeat: usize,
    #[arg(long)]
    threads: usize,
}

/// Does it.
pub fn run(args: &Args) -> anyhow::Result<()> {
    par::set_threads(args.threads);
    let state = safetensors::load(&args.weights)?;
    let x = npy::load(&args.input)?;
    let classes = state.get("fc2.bias").map(|b| b.numel());
    let (&[_, _, height, width], Some(classes)) = (x.shape(), classes) else {
        bail!("{} and {} do not go together", args.weights.display(), args.input.display());
    };
    let net = MnistCnn::with_size([height, width], classes, true);
    net.load_state_dict(&state, true)?;
    net.eval();
    let mut times: Vec<Duration> = no_grad(|| {
        let once = || {
            let start = Instant::now();
            std::hint::black_box(net.forward(&x));
            start.elapsed()
        };
        once();
        (0..args.repeat.max(1)).map(|_| once()).collect()
    });
    times.sort_unstable();
    let median = times[times.len() / 2].as_secs_f64() * 1e3;
    println!("median {median:.4} ms");
    let peak = mem::peak_resident().context("this system does not tell the peak of memory")?;
    println!("peak   {peak} bytes");
    Ok(())
}
