//! What an eager op costs beside its arithmetic.

use clap::Parser;
use comfy_table::Table;
use sinter_benches::{eager, interleaved};
use std::time::Duration;

/// Measures eager ops: what they cost beside their arithmetic.
#[derive(Parser)]
struct Args {
    /// Measures only what has this in its name.
    #[arg(default_value = "")]
    only: String,
    /// Seconds in all.
    #[arg(long, default_value_t = 4.0)]
    budget: f64,
}

fn main() {
    let args = Args::parse();
    sinter_kernels::par::set_threads(1);
    let cases = eager::cases().into_iter().filter(|(c, _)| c.name.contains(&args.only));
    let (candidates, limits): (Vec<_>, Vec<_>) = cases.unzip();
    let stats = interleaved(Duration::from_secs_f64(args.budget), candidates);
    let mut table = Table::new();
    table.set_header(["what", "median ns", "min ns", "limit ns"]);
    for (s, limit) in stats.iter().zip(limits) {
        table.add_row([
            s.name.clone(),
            format!("{:.1}", s.median),
            format!("{:.1}", s.min),
            limit.map_or(String::new(), |l| l.to_string()),
        ]);
    }
    println!("{table}");
}
