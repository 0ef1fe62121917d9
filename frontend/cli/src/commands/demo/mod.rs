//! `sinter demo`. The main job: train eagerly, compile, ship, compare.

mod checkpoint;
mod data;
mod interrupt;
pub mod measure;
mod progress;
mod report;
mod runner;
mod ship;
mod table;
mod train;

use anyhow::Context;
use data::Data;
pub use interrupt::{EXIT_CODE, Interrupted};
use measure::{BATCHES, Form, measure};
use report::Report;
use runner::Runner;
use ship::{Shipped, write_images};
use sinter::Tensor;
use sinter::data::Dataset;
use sinter::io::safetensors;
use sinter::nn::Module;
use sinter_compiler::draw;
use sinter_kernels::{isa, par};
use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use table::Row;
use train::{Settings, Test, Trainer, classify, score};

/// Train the MNIST network eagerly, compile it, ship it, compare.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Passes over the training images.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=100_000))]
    epochs: u64,
    /// Decides initial weights, order of images and dropout.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Where everything is written.
    #[arg(long, value_name = "DIR", default_value = "out")]
    out: PathBuf,
    /// A data set in MNIST's format, gzipped or not, instead of MNIST.
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Images in a training step.
    #[arg(long, value_name = "N", default_value = "64")]
    batch_size: NonZeroUsize,
    /// Use only the first N images of each part.
    #[arg(long, value_name = "N")]
    limit: Option<NonZeroUsize>,
    /// Go on with a run that was broken off.
    #[arg(long)]
    resume: bool,
    /// Threads of the kernels; as many as there are processors if not given.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    threads: Option<u16>,
}

/// Does it.
pub fn run(args: &Args) -> anyhow::Result<()> {
    interrupt::listen()?;
    if let Some(n) = args.threads {
        par::set_threads(n.into());
    }
    std::fs::create_dir_all(&args.out)
        .with_context(|| format!("creating {}", args.out.display()))?;
    let data = Data::load(args.data.as_deref(), args.limit.map(NonZeroUsize::get))?;
    // Before training, not after it: what is missing is said at once.
    let runner = Runner::find()?;
    let run = train(args, &data)?;
    let log_probs = classify(&run.net, &data.test);
    let Test { loss, accuracy } = score(&log_probs, &data.test);
    println!("{} test images: loss {loss:.4}, accuracy {:.2} %", data.test.len(), accuracy * 100.0);
    let weights = args.out.join("mnist-cnn.safetensors");
    safetensors::save(&weights, &run.net.state_dict(), &BTreeMap::new())
        .context("saving the weights")?;
    compare(args, &data, &run, &log_probs, &weights, &runner)
}

/// Trains, or goes on training.
fn train(args: &Args, data: &Data) -> anyhow::Result<Trainer> {
    let settings =
        Settings { epochs: args.epochs, batch_size: args.batch_size.get(), seed: args.seed };
    let fingerprint = data.fingerprint();
    let checkpoint = args.out.join("checkpoint.safetensors");
    let mut run = Trainer::new(settings, data);
    if args.resume {
        checkpoint::resume(&mut run, fingerprint, &checkpoint)?;
        println!("going on after step {}", run.step);
    }
    println!(
        "training {} parameters on {} images of {}",
        run.net.num_parameters(),
        data.train.len(),
        data.dir.display()
    );
    run.run(&data.test, fingerprint, &checkpoint)?;
    Ok(run)
}

/// Compiles the network with and without fusion, checks both in fresh processes
/// against eager execution, and measures all three.
fn compare(
    args: &Args,
    data: &Data,
    run: &Trainer,
    log_probs: &Tensor,
    weights: &Path,
    runner: &Runner,
) -> anyhow::Result<()> {
    let threads = par::threads();
    let example = data.test.images(0..BATCHES[1].min(data.test.len()));
    let fused = Shipped::new(&run.net, &example, true, &args.out.join("mnist-cnn.sinter"))?;
    let unfused =
        Shipped::new(&run.net, &example, false, &args.out.join("mnist-cnn-unfused.sinter"))?;
    let images = args.out.join("test-images.npy");
    write_images(data, data.test.len(), &images)?;
    let mut errors = vec![];
    for (name, shipped) in [("compiled, unfused", &unfused), ("compiled, fused", &fused)] {
        let error = shipped.check(runner, &images, log_probs, threads)?;
        println!("{}: all outputs match, relative error {error:.1e}", shipped.file.display());
        errors.push((name, error));
    }
    let inputs = BATCHES.map(|n| args.out.join(format!("batch-{n}.npy")));
    for (n, file) in BATCHES.into_iter().zip(&inputs) {
        write_images(data, n, file)?;
    }
    let forms = [Form::Eager(weights), Form::Artifact(&unfused.file), Form::Artifact(&fused.file)];
    let [a, b, c] = measure(forms, [&inputs[0], &inputs[1]], runner, threads)?;
    for file in inputs.iter().chain([&images]) {
        std::fs::remove_file(file).with_context(|| file.display().to_string())?;
    }
    let compiled = |name, figures, s: &Shipped| Row {
        name,
        figures,
        compile_time: Some(s.compile_time),
        bytes: Some(s.bytes),
    };
    let rows = [
        Row { name: "eager", figures: a, compile_time: None, bytes: None },
        compiled("compiled, unfused", b, &unfused),
        compiled("compiled, fused", c, &fused),
    ];
    println!("{}", table::text(&rows));
    let compiled = fused.model.compiled();
    let graph = &compiled.plan.graph;
    let before = draw::svg(&compiled.source, &draw::Steps::default())?;
    let after = draw::svg(graph, &draw::Steps::of(graph, &compiled.report))?;
    let report = args.out.join("report.html");
    Report {
        data,
        training: run,
        log_probs: &log_probs.to_vec::<f32>(),
        rows: &rows,
        errors: &errors,
        graphs: [&before, &after],
        settings: &settings(args, data, run, threads),
    }
    .write(&report)?;
    println!("the whole story is in {}", report.display());
    Ok(())
}

/// What the numbers depend on.
fn settings(
    args: &Args,
    data: &Data,
    run: &Trainer,
    threads: usize,
) -> Vec<(&'static str, String)> {
    let Settings { epochs, batch_size, seed } = run.settings;
    let processor = std::fs::read_to_string("/proc/cpuinfo")
        .ok()
        .and_then(|text| {
            let line = text.lines().find(|l| l.starts_with("model name"))?;
            Some(line.split_once(':')?.1.trim().to_string())
        })
        .unwrap_or_else(|| std::env::consts::ARCH.to_string());
    let [height, width] = data.size();
    vec![
        ("data", data.dir.display().to_string()),
        ("training images", data.train.len().to_string()),
        ("test images", data.test.len().to_string()),
        ("image", format!("{height} × {width}, {} classes", data.classes())),
        ("network", "conv 3×3×32, relu, conv 3×3×64, relu, max-pool 2, dropout 0.25, linear 128, relu, dropout 0.5, linear, log-softmax".into()),
        ("parameters", run.net.num_parameters().to_string()),
        ("optimizer", "Adadelta, learning rate up to 4 and down to 0 in one cycle".into()),
        ("epochs", epochs.to_string()),
        ("batch size", batch_size.to_string()),
        ("seed", seed.to_string()),
        ("threads", threads.to_string()),
        ("processor", processor),
        ("instruction set", isa::active().name().into()),
        ("system", format!("{} {}", std::env::consts::OS, std::env::consts::ARCH)),
        ("version", format!("sinter {}", env!("CARGO_PKG_VERSION"))),
        ("files", args.out.display().to_string()),
    ]
}
