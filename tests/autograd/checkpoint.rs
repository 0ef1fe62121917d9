//! Values that are computed again.

use crate::{grad_of, leaf, message_of};
use sinter::autograd::{
    Checkpoint, CheckpointPolicy, Stage, checkpoint, checkpoint_sequential, gradgradcheck,
};
use sinter::nn::functional::dropout;
use sinter::{Backward, Op, Tensor, ones, randn};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

fn counted() -> (Arc<AtomicUsize>, impl Fn(&[Tensor]) -> Vec<Tensor> + Clone) {
    let runs = Arc::new(AtomicUsize::new(0));
    let count = runs.clone();
    let f = move |x: &[Tensor]| {
        count.fetch_add(1, Relaxed);
        vec![(x[0].tanh() * &x[1]).exp().sin()]
    };
    (runs, f)
}

#[test]
fn the_same_gradients_with_less_kept() {
    let (x, w) = (leaf(&[0.3, -0.5]), leaf(&[1.5, 0.7]));
    let (runs, f) = counted();
    f(&[x.clone(), w.clone()])[0].sum().backward();
    let want = (grad_of(&x), grad_of(&w));
    x.zero_grad();
    w.zero_grad();
    let y = checkpoint(f.clone(), &[&x, &w]);
    assert_eq!((runs.load(Relaxed), y[0].grad_fn().unwrap().saved_bytes()), (2, 0));
    let loss = y[0].sum();
    Backward::new().retain_graph(true).run(&loss);
    assert_eq!((grad_of(&x), grad_of(&w)), want);
    // What was computed again is there for the next pass.
    loss.backward();
    assert_eq!(runs.load(Relaxed), 3);
    let g = f.clone();
    gradgradcheck(move |t| checkpoint(g.clone(), &[&t[0], &t[1]]), &[x.clone(), w]).unwrap();
    // Not recorded: just run.
    assert!(!sinter::no_grad(|| checkpoint(f, &[&x, &x]))[0].requires_grad());
}

#[test]
fn random_numbers_are_the_same() {
    let x = ones([1000]).requires_grad_(true);
    let y = checkpoint(|x| vec![dropout(&x[0], 0.5, true) * &x[0]], &[&x]);
    // Other tests draw numbers meanwhile, as other threads do.
    let noise = std::thread::spawn(|| (0..100).for_each(|_| drop(sinter::rand([7]))));
    let kept = y[0].to_vec::<f32>();
    y[0].sum().backward();
    noise.join().unwrap();
    // y = m x², so its derivative is 2 m x where m is y.
    let g = x.grad().unwrap().to_vec::<f32>();
    assert!(kept.iter().zip(&g).all(|(y, g)| *g == 2.0 * y));
    // A region inside a region takes its own numbers again, and the outer one all.
    x.zero_grad();
    let inner = |x: &[Tensor]| vec![dropout(&x[0], 0.5, true) * &x[0]];
    let y = checkpoint(
        move |x| {
            let y = checkpoint(inner, &[&dropout(&x[0], 0.3, true)]);
            vec![dropout(&y[0], 0.2, true) * &x[0]]
        },
        &[&x],
    );
    // y = m x³
    let kept = y[0].to_vec::<f32>();
    y[0].sum().backward();
    let g = x.grad().unwrap().to_vec::<f32>();
    assert!(kept.iter().zip(&g).all(|(y, g)| (g - 3.0 * y).abs() <= 1e-5 * y.abs()));
}

#[test]
fn regions_inside_regions_and_in_a_row() {
    let x = leaf(&[0.2, 0.4]);
    let inner = |x: &[Tensor]| vec![x[0].exp().sin()];
    let outer = move |x: &[Tensor]| vec![checkpoint(inner, &[&x[0].tanh()])[0].square()];
    checkpoint(outer, &[&x])[0].sum().backward();
    let got = grad_of(&x);
    x.zero_grad();
    x.tanh().exp().sin().square().sum().backward();
    assert_eq!(grad_of(&x), got);
    let fs: Vec<Stage> = vec![
        Arc::new(|x| x.sin()),
        Arc::new(|x| x.exp()),
        Arc::new(|x| x.tanh()),
        Arc::new(|x| x.square()),
        Arc::new(|x| x.sigmoid()),
    ];
    let run = |segments: Option<usize>| {
        x.zero_grad();
        match segments {
            Some(n) => checkpoint_sequential(&fs, n, &x).sum().backward(),
            None => x.sin().exp().tanh().square().sigmoid().sum().backward(),
        }
        grad_of(&x)
    };
    let want = run(None);
    assert!((1..=5).all(|n| run(Some(n)) == want));
}

#[test]
fn chosen_results_are_kept() {
    let x = randn([3, 3]).requires_grad_(true);
    let asked = Arc::new(AtomicUsize::new(0));
    let count = asked.clone();
    let region = |x: &[Tensor]| vec![x[0].matmul(&x[0]).tanh().matmul(&x[0]).exp()];
    let y = Checkpoint::new()
        .policy(move |op| match op {
            Op::MatMul { .. } => {
                count.fetch_add(1, Relaxed);
                CheckpointPolicy::MustSave
            }
            _ => CheckpointPolicy::PreferRecompute,
        })
        .run(region, &[&x]);
    y[0].sum().backward();
    let got = x.grad().unwrap().to_vec::<f32>();
    x.zero_grad();
    region(std::slice::from_ref(&x))[0].sum().backward();
    assert_eq!(x.grad().unwrap().to_vec::<f32>(), got);
    assert!(asked.load(Relaxed) >= 4);
}

#[test]
fn differences_are_found() {
    let x = leaf(&[0.3, -0.5, 0.1]);
    let runs = AtomicUsize::new(0);
    let y = checkpoint(
        move |x| {
            let n = 3 - runs.fetch_add(1, Relaxed);
            vec![x[0].narrow(0, 0, n).exp().sum() * x[0].sin()]
        },
        &[&x],
    );
    let text = message_of(|| y[0].sum().backward());
    assert!(text.contains("value 0: f64 [3] then, f64 [2] now"), "{text}");
    let m = &x * 1.0;
    let y = checkpoint(|x| vec![x[0].exp()], &[&m]);
    m.add_(1.0);
    let text = message_of(|| y[0].sum().backward());
    assert!(text.contains("input 0") && text.contains("add_"), "{text}");
}
