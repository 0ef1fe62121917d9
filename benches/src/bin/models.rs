//! Compiled models: fused against unfused against eager, and how long compiling
//! takes.

use clap::Parser;
use comfy_table::Table;
use sinter::{Compiler, no_grad, zeros};
use sinter_benches::{Candidate, Stats, interleaved};
use sinter_models::Net;
use std::time::Duration;

/// Measures compiled models: fused, unfused, eager.
#[derive(Parser)]
struct Args {
    /// Models to measure.
    #[arg(long, value_delimiter = ',', default_value = "mlp,mnist_cnn")]
    models: Vec<Net>,
    /// Batch sizes.
    #[arg(long, value_delimiter = ',', default_value = "1,64")]
    batch: Vec<usize>,
    /// Threads.
    #[arg(long, default_value_t = 1)]
    threads: usize,
    /// Seconds for each model and batch size.
    #[arg(long, default_value_t = 3.0)]
    budget: f64,
    /// Writes the numbers here.
    #[arg(long)]
    json: Option<std::path::PathBuf>,
}

fn main() {
    let args = Args::parse();
    sinter_kernels::par::set_threads(args.threads);
    let mut table = Table::new();
    table.set_header(["model", "batch", "mode", "median µs", "min µs", "CPU µs", "compile ms"]);
    let mut all: Vec<(Net, usize, Stats)> = vec![];
    for &net in &args.models {
        for &batch in &args.batch {
            let (model, x) = (net.build(false), net.input(batch));
            let compile = |fusion| {
                let start = std::time::Instant::now();
                let compiled = Compiler::new().fusion(fusion).compile(&*model, &x);
                (compiled.expect("the model compiles"), start.elapsed())
            };
            let ((fused, fused_time), (unfused, unfused_time)) = (compile(true), compile(false));
            for (pass, time) in &fused.report().passes {
                eprintln!("{net} {batch}: {pass} {:.2} ms", time.as_secs_f64() * 1e3);
            }
            let want = no_grad(|| model.forward(&x));
            let got = fused.call(&x).expect("the model runs");
            let error = (&got - &want).abs().max().item::<f32>() / want.abs().max().item::<f32>();
            assert!(error <= 1e-5, "{net}: compiled and eager differ by {error:e}");
            let out = zeros(want.shape());
            let stats = interleaved(
                Duration::from_secs_f64(args.budget),
                vec![
                    Candidate::new("fused", || fused.run_into(&[&x], &[&out]).expect("runs")),
                    Candidate::new("unfused", || unfused.run_into(&[&x], &[&out]).expect("runs")),
                    Candidate::new("eager", || drop(no_grad(|| model.forward(&x)))),
                ],
            );
            for (s, compile) in stats.iter().zip([Some(fused_time), Some(unfused_time), None]) {
                table.add_row([
                    net.to_string(),
                    batch.to_string(),
                    s.name.clone(),
                    format!("{:.1}", s.median / 1e3),
                    format!("{:.1}", s.min / 1e3),
                    format!("{:.1}", s.cpu / 1e3),
                    compile.map_or(String::new(), |t| format!("{:.1}", t.as_secs_f64() * 1e3)),
                ]);
            }
            all.extend(stats.into_iter().map(|s| (net, batch, s)));
        }
    }
    println!("{table}");
    if let Some(path) = args.json {
        let text = serde_json::to_string_pretty(&all).expect("numbers are JSON");
        std::fs::write(&path, text).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    }
}
