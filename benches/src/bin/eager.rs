//! What an eager op costs beside its arithmetic.

use comfy_table::Table;
use sinter::{Tensor, full, no_grad, randn};
use sinter_benches::{Candidate, interleaved};
use std::hint::black_box;
use std::time::Duration;

fn chain(x: &Tensor, y: &Tensor) -> Tensor {
    (0..100).fold(x.clone(), |z, _| &z * y)
}

/// Measures eager ops: what they cost beside their arithmetic.
#[derive(clap::Parser)]
struct Args {
    /// Measures only what has this in its name.
    #[arg(default_value = "")]
    only: String,
    /// Seconds in all.
    #[arg(long, default_value_t = 4.0)]
    budget: f64,
}

fn main() {
    let args = <Args as clap::Parser>::parse();
    sinter_kernels::par::set_threads(1);
    let (a, b) = (randn([4]), randn([4]));
    let (ag, bg) = (randn([4]).requires_grad_(true), randn([4]).requires_grad_(true));
    let m = randn([8, 8]);
    let y = full([4], 1.0, sinter::DType::F32);
    let mut limits = vec!["100", "150", "50", "50", "", "40000"].into_iter();
    let mut candidates = vec![
        Candidate::new("add, 4 elements", || drop(black_box(&a + &b))),
        Candidate::new("add, 4 elements, on tape", || drop(black_box(&ag + &bg))),
        Candidate::new("view", || drop(black_box(m.reshape([64])))),
        Candidate::new("transpose", || drop(black_box(m.t()))),
        Candidate::new("100 multiplications, forward", || {
            drop(black_box(no_grad(|| chain(&a, &y))))
        }),
        Candidate::new("100 multiplications, forward and backward", || {
            chain(&ag, &y).sum().backward();
            ag.zero_grad();
        }),
    ];
    let mut shown = vec![];
    candidates.retain(|c| {
        let limit = limits.next().unwrap_or_default();
        let wanted = c.name.contains(&args.only);
        if wanted {
            shown.push(limit);
        }
        wanted
    });
    let stats = interleaved(Duration::from_secs_f64(args.budget), candidates);
    let mut table = Table::new();
    table.set_header(["what", "median ns", "min ns", "limit ns"]);
    for (s, limit) in stats.iter().zip(shown) {
        let row = [s.name.clone(), format!("{:.1}", s.median), format!("{:.1}", s.min)];
        table.add_row(row.into_iter().chain([limit.to_string()]));
    }
    println!("{table}");
}
