//! Several threads, one tape.

use crate::{grad_of, leaf};
use sinter::{Backward, grad, no_grad, randn, tensor};
use std::sync::Barrier;

#[test]
fn threads_have_tapes_of_their_own() {
    let w = leaf(&[2.0]);
    let threads: Vec<_> = (1..5)
        .map(|k| {
            let w = w.clone();
            std::thread::spawn(move || {
                for _ in 0..100 {
                    let g = grad(&[&(&w * &w * k as f64)], &[&w], false);
                    assert_eq!(g[0].as_ref().unwrap().item::<f64>(), 4.0 * k as f64);
                }
            })
        })
        .collect();
    threads.into_iter().for_each(|t| t.join().unwrap());
}

#[test]
fn leaves_get_every_gradient() {
    let (threads, rounds) = (6, 300);
    let w = leaf(&[1.0, 2.0, 3.0]);
    let start = Barrier::new(threads);
    std::thread::scope(|s| {
        for _ in 0..threads {
            s.spawn(|| {
                start.wait();
                for _ in 0..rounds {
                    // Two uses each, of a broadcast and a dense gradient.
                    ((&w * 2.0).sum() + (&w * &tensor([1.0, 0.0, 1.0])).sum()).backward();
                }
            });
        }
    });
    let n = (threads * rounds) as f64;
    assert_eq!(grad_of(&w), [3.0 * n, 2.0 * n, 3.0 * n]);
}

#[test]
fn passes_share_a_graph() {
    let w = leaf(&[0.5, -1.0]);
    let shared = (&w * &w).exp();
    let roots: Vec<_> = (1..5).map(|k| (&shared * f64::from(k)).sum()).collect();
    let start = Barrier::new(roots.len());
    std::thread::scope(|s| {
        for r in &roots {
            s.spawn(|| {
                start.wait();
                for _ in 0..50 {
                    Backward::new().retain_graph(true).run(r);
                }
            });
        }
    });
    let want: Vec<f64> = [0.5f64, -1.0].iter().map(|x| 500.0 * 2.0 * x * (x * x).exp()).collect();
    let got = grad_of(&w);
    assert!(got.iter().zip(&want).all(|(a, b)| (a - b).abs() < 1e-9 * b.abs()), "{got:?} {want:?}");
}

#[test]
fn a_pass_inside_a_pass() {
    let x = leaf(&[3.0]);
    let inner = leaf(&[2.0]);
    let other = inner.clone();
    let _handle = x.register_hook(move |g| {
        sinter::enable_grad(|| (&other * &other).backward());
        Some(g * &no_grad(|| other.grad().expect("the inner pass left it")))
    });
    (&x * 5.0).backward();
    assert_eq!((grad_of(&x), grad_of(&inner)), (vec![20.0], vec![4.0]));
}

#[test]
fn views_are_refreshed_from_any_thread() {
    let x = leaf(&[1.0, 2.0, 3.0, 4.0]);
    let y = &x * 1.0;
    let views: Vec<_> = (0..4).map(|i| y.narrow(0, i, 1)).collect();
    y.mul_(3.0);
    let start = Barrier::new(4);
    std::thread::scope(|s| {
        for v in &views {
            s.spawn(|| {
                start.wait();
                Backward::new().retain_graph(true).run(&v.sum());
            });
        }
    });
    assert_eq!(grad_of(&x), [3.0; 4]);
}

#[test]
fn the_same_bits_every_time() {
    sinter::manual_seed(5);
    let w = randn([64]).requires_grad_(true);
    let run = || {
        w.zero_grad();
        let mut y = w.clone();
        for k in 0..20 {
            y = (&y * &w + (&y * 0.1 * f64::from(k)).tanh()) * 0.5;
        }
        y.sum().backward();
        w.grad().unwrap().to_vec::<f32>()
    };
    let first = run();
    assert!((0..5).all(|_| run() == first));
}
