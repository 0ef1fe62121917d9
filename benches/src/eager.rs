//! Eager ops on next to no data: what is measured is what an op costs beside its
//! arithmetic.

use crate::Candidate;
use sinter::{DType, Tensor, full, no_grad, randn};
use std::hint::black_box;

/// Multiplications in a chain.
const CHAIN: usize = 100;

fn chain(x: &Tensor, y: &Tensor) -> Tensor {
    (0..CHAIN).fold(x.clone(), |z, _| &z * y)
}

/// The ops, and how many nanoseconds each may take where we set a limit.
pub fn cases() -> Vec<(Candidate<'static>, Option<u32>)> {
    let (a, b) = (randn([4]), randn([4]));
    let (ag, bg) = (randn([4]).requires_grad_(true), randn([4]).requires_grad_(true));
    let y = full([4], 1.0, DType::F32);
    let m = randn([8, 8]);
    let (n, z, zg, w) = (m.clone(), a.clone(), ag.clone(), y.clone());
    vec![
        (Candidate::new("add, 4 elements", move || drop(black_box(&a + &b))), Some(100)),
        (Candidate::new("add, 4 elements, on tape", move || drop(black_box(&ag + &bg))), Some(150)),
        (Candidate::new("view", move || drop(black_box(m.reshape([64])))), Some(50)),
        (Candidate::new("transpose", move || drop(black_box(n.t()))), Some(50)),
        (
            Candidate::new("100 multiplications, forward", move || {
                drop(black_box(no_grad(|| chain(&z, &y))))
            }),
            None,
        ),
        (
            Candidate::new("100 multiplications, forward and backward", move || {
                chain(&zg, &w).sum().backward();
                zg.zero_grad();
            }),
            Some(40_000),
        ),
    ]
}
