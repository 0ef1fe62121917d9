//! What an eager op costs beside its arithmetic.

use comfy_table::Table;
use sinter::{Tensor, full, no_grad, randn};
use sinter_benches::{Candidate, interleaved};
use std::hint::black_box;
use std::time::Duration;

fn chain(x: &Tensor, y: &Tensor) -> Tensor {
    (0..100).fold(x.clone(), |z, _| &z * y)
}

fn main() {
    sinter_kernels::par::set_threads(1);
    let (a, b) = (randn([4]), randn([4]));
    let (ag, bg) = (randn([4]).requires_grad_(true), randn([4]).requires_grad_(true));
    let m = randn([8, 8]);
    let y = full([4], 1.0, sinter::DType::F32);
    let stats = interleaved(
        Duration::from_secs(4),
        vec![
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
        ],
    );
    let mut table = Table::new();
    table.set_header(["what", "median ns", "min ns", "limit ns"]);
    let limits = ["100", "150", "50", "50", "", "40000"];
    for (s, limit) in stats.iter().zip(limits) {
        let row = [s.name.clone(), format!("{:.1}", s.median), format!("{:.1}", s.min)];
        table.add_row(row.into_iter().chain([limit.to_string()]));
    }
    println!("{table}");
}
