//! Steps of training as compiled programs: what they leave behind is what eager steps
//! leave behind.

use sinter::autograd::{Function, FunctionCtx};
use sinter::nn::{
    Activation, BatchNorm2d, Buffer, Conv2d, Dropout, Embedding, Layer, LayerNorm, Linear, Lstm,
    Module, Param, RecurrentOptions, Sequential, TransformerEncoderLayer, clip_grad_norm_,
    clip_grad_value_, functional as F,
};
use sinter::optim::{
    Adadelta, Adagrad, Adam, AdamW, LrScheduler, Optim, Optimizer, RmsProp, Rule, Sgd, StepLr,
};
use sinter::{Tensor, compile_step, manual_seed, ones, rand, randint, randn, random, zeros};
use std::sync::{Mutex, MutexGuard};

/// The random stream is the process's: one test at a time.
fn alone() -> MutexGuard<'static, ()> {
    static ONE: Mutex<()> = Mutex::new(());
    ONE.lock().unwrap_or_else(|e| e.into_inner())
}

/// The largest difference between two tensors, by the largest element.
fn off(a: &Tensor, b: &Tensor) -> f64 {
    let scale = b.abs().max().item::<f64>().max(1e-3);
    (a - b).abs().max().item::<f64>() / scale
}

#[track_caller]
fn same_state(a: &dyn Module, b: &dyn Module, tolerance: f64) {
    for ((name, a), b) in a.state_dict().iter().zip(b.state_dict().values()) {
        let error = off(a, b);
        assert!(error <= tolerance, "`{name}` is off by {error:e}");
    }
}

/// Five steps, compiled and eager, on two models with the same weights and batches: the
/// losses, the models and the optimizers' states agree.
#[track_caller]
fn agrees<M: Module, O: Rule>(
    make: impl Fn() -> M,
    optimizer: impl Fn(Vec<Param>) -> Optim<O>,
    loss: impl Fn(&M, &[Tensor]) -> Tensor + Copy,
    gradients: Option<fn(&[Param])>,
    batches: &[Vec<Tensor>],
) {
    let (a, b) = (make(), make());
    a.load_state_dict(&b.state_dict(), true).unwrap();
    let (mut ours, mut theirs) = (optimizer(a.parameters()), optimizer(b.parameters()));
    let start = random::state();
    let mut eager = Vec::new();
    for batch in batches.iter().cycle().take(5) {
        theirs.zero_grad();
        let l = loss(&b, batch);
        l.backward();
        if let Some(f) = gradients {
            f(&b.parameters());
        }
        theirs.step();
        eager.push(l.item::<f64>());
    }
    let end = random::state();
    random::set_state(start);
    let mut step = compile_step(&a, &mut ours, loss);
    if let Some(f) = gradients {
        step = step.gradients(f);
    }
    for (i, batch) in batches.iter().cycle().take(5).enumerate() {
        let l = step.run(batch).unwrap().item::<f64>();
        assert!((l - eager[i]).abs() <= 1e-5 * eager[i].abs().max(1.0), "{i}: {l} {}", eager[i]);
    }
    assert_eq!((step.why_eager(), step.why_closed()), (None, None));
    assert!(step.compilations() <= 2);
    drop(step);
    assert_eq!(random::state(), end);
    same_state(&a, &b, 2e-5);
    let (ours, theirs) = (ours.state_dict(), theirs.state_dict());
    assert_eq!(ours.keys().collect::<Vec<_>>(), theirs.keys().collect::<Vec<_>>());
    for (name, t) in &theirs {
        assert!(off(&ours[name], t) <= 1e-4, "`{name}`");
    }
}

fn mlp() -> Sequential {
    Sequential::new().add(Linear::new(7, 13)).add(Activation::Relu).add(Linear::new(13, 5))
}

fn batch(n: usize) -> Vec<Tensor> {
    vec![randn([n, 7]), randint(0, 5, [n])]
}

fn classify<M: Layer>(m: &M, x: &[Tensor]) -> Tensor {
    F::cross_entropy(&m.forward(&x[0]), &x[1], F::Reduction::Mean)
}

#[test]
fn every_optimizer() {
    let _one = alone();
    let batches = [batch(6), batch(6)];
    let check = |f: &dyn Fn(&[Vec<Tensor>])| f(&batches);
    check(&|b| agrees(mlp, |p| Sgd::new(p, 0.1), classify, None, b));
    check(&|b| {
        let sgd = |p| Sgd::new(p, 0.1).momentum(0.9).dampening(0.1).weight_decay(0.01);
        agrees(mlp, sgd, classify, None, b);
    });
    check(&|b| {
        let sgd = |p| Sgd::new(p, 0.05).momentum(0.9).nesterov(true).maximize(true);
        agrees(mlp, sgd, classify, None, b);
    });
    check(&|b| agrees(mlp, |p| Adam::new(p, 0.01).weight_decay(0.1), classify, None, b));
    check(&|b| agrees(mlp, |p| AdamW::new(p, 0.01), classify, None, b));
    check(&|b| agrees(mlp, |p| Adadelta::new(p, 1.0), classify, None, b));
    check(&|b| agrees(mlp, |p| RmsProp::new(p, 0.01), classify, None, b));
    check(&|b| agrees(mlp, |p| RmsProp::new(p, 0.01).momentum(0.5), classify, None, b));
    check(&|b| agrees(mlp, |p| Adagrad::new(p, 0.1).lr_decay(0.1), classify, None, b));
}

#[test]
fn clipped_gradients() {
    let _one = alone();
    let batches = [batch(4)];
    let by_norm = |p: &[Param]| {
        clip_grad_norm_(p, 0.05);
    };
    agrees(mlp, |p| Adam::new(p, 0.01), classify, Some(by_norm), &batches);
    let by_value = |p: &[Param]| clip_grad_value_(p, 0.01);
    agrees(mlp, |p| Sgd::new(p, 0.5), classify, Some(by_value), &batches);
}

#[derive(Module)]
struct Cnn {
    conv1: Conv2d,
    norm: BatchNorm2d,
    conv2: Conv2d,
    drop: Dropout,
    fc: Linear,
}

impl Cnn {
    fn new() -> Cnn {
        Cnn {
            conv1: Conv2d::new(1, 4, 3),
            norm: BatchNorm2d::new(4),
            conv2: Conv2d::new(4, 6, 3),
            drop: Dropout::new(0.3),
            fc: Linear::new(6 * 4 * 4, 10),
        }
    }
}

impl Layer for Cnn {
    fn forward(&self, x: &Tensor) -> Tensor {
        let x = self.norm.forward(&self.conv1.forward(x)).relu();
        let x = F::max_pool2d(&self.conv2.forward(&x).relu(), [2, 2]);
        self.fc.forward(&self.drop.forward(&x.flatten(1, -1))).log_softmax(1)
    }
}

fn images(n: usize) -> Vec<Tensor> {
    vec![randn([n, 1, 12, 12]), randint(0, 10, [n])]
}

fn likelihood(m: &Cnn, x: &[Tensor]) -> Tensor {
    F::nll_loss(&m.forward(&x[0]), &x[1], F::Reduction::Mean)
}

/// Convolution, pooling, running statistics, and masks that differ from step to step and
/// are those of eager steps.
#[test]
fn convolutional_network() {
    let _one = alone();
    manual_seed(3);
    agrees(Cnn::new, |p| Sgd::new(p, 0.05).momentum(0.9), likelihood, None, &[images(5)]);
    agrees(Cnn::new, |p| Adadelta::new(p, 1.0), likelihood, None, &[images(3), images(3)]);
}

#[derive(Module)]
struct Encoder {
    words: Embedding,
    layer: TransformerEncoderLayer,
    norm: LayerNorm,
    head: Linear,
}

#[test]
fn transformer() {
    let _one = alone();
    let make = || Encoder {
        words: Embedding::new(11, 8),
        layer: TransformerEncoderLayer::new(8, 2, 16),
        norm: LayerNorm::new(8),
        head: Linear::new(8, 11),
    };
    let loss = |m: &Encoder, x: &[Tensor]| {
        let h = m.norm.forward(&m.layer.forward(&m.words.forward(&x[0])));
        let y = m.head.forward(&h).reshape([-1, 11]);
        F::cross_entropy(&y, &x[1].reshape([-1]), F::Reduction::Mean)
    };
    let words = |n: usize| vec![randint(0, 11, [n, 5]), randint(0, 11, [n, 5])];
    let batches = [words(3), words(2), words(4)];
    // (Gradients of a bias of keys are zero but for rounding, which Adam would make steps of.)
    agrees(make, |p| Sgd::new(p, 0.1).momentum(0.9), loss, None, &batches);
}

#[derive(Module)]
struct Reader {
    lstm: Lstm,
    fc: Linear,
}

#[test]
fn recurrent_network() {
    let _one = alone();
    let options = RecurrentOptions { num_layers: 2, ..RecurrentOptions::default() };
    let make = || Reader { lstm: Lstm::with_options(4, 6, options), fc: Linear::new(6, 3) };
    let loss = |m: &Reader, x: &[Tensor]| {
        let (y, _) = m.lstm.forward(&x[0], None);
        F::cross_entropy(&m.fc.forward(&y.select(0, -1)), &x[1], F::Reduction::Mean)
    };
    let words = |n: usize| vec![randn([5, n, 4]), randint(0, 3, [n])];
    let batches = [words(3), words(2), words(4)];
    agrees(make, |p| Sgd::new(p, 0.5).momentum(0.9), loss, None, &batches);
}

/// Rounds, and passes gradients through unchanged.
struct StraightThrough;

impl Function for StraightThrough {
    fn forward(&self, _: &mut FunctionCtx, x: &[&Tensor]) -> Vec<Tensor> {
        vec![(x[0] * 4.0).round() * 0.25]
    }
    fn backward(&self, _: &FunctionCtx, g: &[Option<Tensor>]) -> Vec<Option<Tensor>> {
        vec![g[0].clone()]
    }
}

/// Functions with derivatives of their own, changes in place, constants, and hooks.
#[test]
fn what_a_tape_can_hold() {
    let _one = alone();
    let loss = |m: &Sequential, x: &[Tensor]| {
        let y = StraightThrough.apply(&[&m.forward(&x[0])]).swap_remove(0);
        let h = &y * 2.0;
        h.mul_(0.5);
        h.add_(y.detach());
        let scaled = &h + 1.0;
        let _hook = scaled.register_hook(|g| Some(g * 0.5));
        F::cross_entropy(&scaled, &x[1], F::Reduction::Mean)
    };
    agrees(mlp, |p| Sgd::new(p, 0.1), loss, None, &[batch(6)]);
}

/// The last batch is smaller: another program, for every size, and the same numbers.
#[test]
fn batches_of_several_sizes() {
    let _one = alone();
    let batches = [batch(6), batch(6), batch(1)];
    agrees(mlp, |p| Adam::new(p, 0.01), classify, None, &batches);
    let net = mlp();
    let mut sgd = Sgd::new(net.parameters(), 0.1);
    let mut step = compile_step(&net, &mut sgd, classify);
    for n in [6, 6, 2, 6, 2, 3, 4, 5, 7, 8, 9, 10, 11, 12] {
        step.run(&batch(n)).unwrap();
    }
    assert_eq!((step.compilations(), step.why_eager(), step.why_closed()), (2, None, None));
}

/// What depends on the size in another way than counts do has a program for each shape,
/// and the reason is said; there is an end to the programs that are kept.
#[test]
fn sizes_that_cannot_be_open() {
    let _one = alone();
    let net = mlp();
    let mut sgd = Sgd::new(net.parameters(), 0.1);
    let loss = |m: &Sequential, x: &[Tensor]| classify(m, x) * (x[0].size(0) as f64).sqrt();
    let mut step = compile_step(&net, &mut sgd, loss);
    for n in [6, 6, 2, 6, 2] {
        step.run(&batch(n)).unwrap();
    }
    assert_eq!((step.compilations(), step.why_eager()), (2, None));
    let why = step.why_closed().unwrap_or_default();
    assert!(why.contains("step.rs") && why.contains("depends on the size"), "{why}");
    for n in 3..12 {
        step.run(&batch(n)).unwrap();
    }
    assert!(step.why_eager().unwrap_or_default().contains("as many"));
    step.run(&batch(6)).unwrap();
    assert_eq!((step.compilations(), step.why_eager()), (8, None));
    drop(step);
    // Code for some sizes alone.
    let loss = |m: &Sequential, x: &[Tensor]| {
        assert!(x[0].size(0) < 100, "few at a time");
        classify(m, x)
    };
    let mut step = compile_step(&net, &mut sgd, loss);
    step.run(&batch(6)).unwrap();
    step.run(&batch(2)).unwrap();
    assert_eq!((step.compilations(), step.why_eager()), (2, None));
    assert!(step.why_closed().unwrap_or_default().contains("few at a time"));
}

/// Means, running statistics, masks of which each begins where the one before ends, and
/// windows, with one program for batches of every size.
#[test]
fn batches_of_any_size() {
    let _one = alone();
    manual_seed(4);
    let sizes = [images(5), images(3), images(4), images(2)];
    agrees(Cnn::new, |p| Sgd::new(p, 0.05).momentum(0.9), likelihood, None, &sizes);
    let twice = || {
        let net = Sequential::new().add(Linear::new(7, 13)).add(Dropout::new(0.5));
        net.add(Linear::new(13, 9)).add(Dropout::new(0.2)).add(Linear::new(9, 5))
    };
    let sizes = [batch(6), batch(9), batch(1), batch(2)];
    agrees(twice, |p| AdamW::new(p, 0.01), classify, None, &sizes);
    // The rows of a mean are those of a batch and of a sequence.
    let squares = |m: &Sequential, x: &[Tensor]| {
        F::mse_loss(&m.forward(&x[0]), &x[1], F::Reduction::Mean) + m.forward(&x[0]).var()
    };
    let at = |n: usize| vec![randn([n, 3, 7]), randn([n, 3, 5])];
    agrees(mlp, |p| Sgd::new(p, 0.1), squares, None, &[at(4), at(2), at(5)]);
}

/// An open size from the first batch on.
#[test]
fn one_program_for_every_size() {
    let _one = alone();
    let (a, b) = (mlp(), mlp());
    a.load_state_dict(&b.state_dict(), true).unwrap();
    let data: Vec<Vec<Tensor>> = [5, 8, 1, 5].map(batch).into();
    let (mut ours, mut theirs) = (Sgd::new(a.parameters(), 0.1), Sgd::new(b.parameters(), 0.1));
    let mut step = compile_step(&a, &mut ours, classify).open_batch(true);
    for x in &data {
        step.run(x).unwrap();
        theirs.zero_grad();
        classify(&b, x).backward();
        theirs.step();
    }
    assert_eq!((step.compilations(), step.why_closed(), step.why_eager()), (1, None, None));
    same_state(&a, &b, 1e-5);
}

#[test]
fn rates_follow_a_schedule() {
    let _one = alone();
    let (a, b) = (mlp(), mlp());
    a.load_state_dict(&b.state_dict(), true).unwrap();
    let data = batch(4);
    let mut sgd = Sgd::new(b.parameters(), 0.5);
    let mut schedule = LrScheduler::new(&sgd, StepLr { size: 2, gamma: 0.1 });
    for _ in 0..5 {
        sgd.zero_grad();
        classify(&b, &data).backward();
        sgd.step();
        schedule.step(&mut sgd);
    }
    let mut sgd = Sgd::new(a.parameters(), 0.5);
    let mut step = compile_step(&a, &mut sgd, classify);
    let mut schedule = LrScheduler::new(step.optimizer(), StepLr { size: 2, gamma: 0.1 });
    for _ in 0..5 {
        step.run(&data).unwrap();
        schedule.step(step.optimizer());
    }
    assert_eq!((step.compilations(), step.why_eager()), (1, None));
    same_state(&a, &b, 1e-5);
}

/// Compiled steps, eager steps and compiled ones again, on one model and optimizer.
#[test]
fn eager_steps_in_between() {
    let _one = alone();
    let (a, b) = (mlp(), mlp());
    a.load_state_dict(&b.state_dict(), true).unwrap();
    let data = batch(4);
    let (mut ours, mut theirs) = (Adam::new(a.parameters(), 0.01), Adam::new(b.parameters(), 0.01));
    let eager = |net: &Sequential, opt: &mut Adam| {
        opt.zero_grad();
        classify(net, &data).backward();
        opt.step();
    };
    (0..6).for_each(|_| eager(&b, &mut theirs));
    for compiled in [true, false, true] {
        if compiled {
            let mut step = compile_step(&a, &mut ours, classify);
            step.run(&data).unwrap();
            step.run(&data).unwrap();
            assert!(step.is_compiled());
        } else {
            eager(&a, &mut ours);
            eager(&a, &mut ours);
        }
    }
    same_state(&a, &b, 1e-5);
}

#[derive(Module)]
struct Tied {
    words: Embedding,
    scale: Param,
    unused: Linear,
    calls: Buffer,
}

/// A parameter used twice, a number as a parameter, parameters without gradients, one that
/// is frozen, and a buffer that counts.
#[test]
fn awkward_parameters() {
    let _one = alone();
    let make = || {
        let m = Tied {
            words: Embedding::new(6, 4),
            scale: Param::new(ones(())),
            unused: Linear::new(3, 2),
            calls: Buffer::new(zeros([1])),
        };
        let _ = m.unused.parameters()[0].tensor().clone().requires_grad_(false);
        m
    };
    let loss = |m: &Tied, x: &[Tensor]| {
        sinter::no_grad(|| {
            m.calls.add_(1.0);
        });
        let h = m.words.forward(&x[0]);
        let y = h.matmul(&m.words.parameters()[0].transpose(0, 1)) * &*m.scale;
        F::cross_entropy(&y, &x[0], F::Reduction::Mean)
    };
    let batches = [vec![randint(0, 6, [5])]];
    agrees(make, |p| Adam::new(p, 0.05), loss, None, &batches);
}

/// What a program cannot hold runs eagerly, and the line is named.
#[test]
fn a_value_that_is_read() {
    let _one = alone();
    let net = mlp();
    let mut sgd = Sgd::new(net.parameters(), 0.1);
    let before = net.parameters()[0].to_vec::<f32>();
    let mut step = compile_step(&net, &mut sgd, |m, x: &[Tensor]| {
        let y = m.forward(&x[0]);
        if y.sum().item::<f32>() > 1e9 { y.sum() } else { y.mean() }
    });
    step.run(&batch(3)).unwrap();
    let why = step.why_eager().unwrap().to_string();
    assert!(why.contains("T001") && why.contains("step.rs:"), "{why}");
    assert_ne!(net.parameters()[0].to_vec::<f32>(), before);
    assert!(net.parameters()[0].grad().is_some());
}

#[test]
fn a_parameter_that_is_read() {
    let _one = alone();
    let net = mlp();
    let weight = net.parameters()[0].clone();
    for kind in 0..3 {
        let mut sgd = Sgd::new(net.parameters(), 0.1);
        let outside = weight.detach().transpose(0, 1);
        let mut step = compile_step(&net, &mut sgd, |m, x: &[Tensor]| {
            let y = m.forward(&x[0]).mean();
            match kind {
                0 => y * weight.sum().item::<f32>(),
                1 => y + outside.sum(),
                _ => y + weight.detach().to_vec::<f32>()[0],
            }
        });
        step.run(&batch(3)).unwrap();
        let why = step.why_eager().unwrap_or_default();
        assert!(why.contains(if kind == 1 { "T011" } else { "T001" }), "{kind}: {why}");
    }
}

/// What is neither parameter nor buffer is a constant, until it changes.
#[test]
fn constants_that_change() {
    let _one = alone();
    let net = mlp();
    let weights = ones([5]);
    let mut sgd = Sgd::new(net.parameters(), 0.0);
    let mut step =
        compile_step(&net, &mut sgd, |m, x: &[Tensor]| (m.forward(&x[0]) * &weights).abs().sum());
    let data = batch(3);
    let first = step.run(&data).unwrap().item::<f32>();
    weights.mul_(2.0);
    let second = step.run(&data).unwrap().item::<f32>();
    assert!((second - 2.0 * first).abs() <= 1e-4 * first, "{first} {second}");
    assert_eq!((step.compilations(), step.why_eager()), (2, None));
}

/// Switched to evaluation and back, the model has a program for each.
#[test]
fn training_and_evaluation() {
    let _one = alone();
    let net = Cnn::new();
    let mut sgd = Sgd::new(net.parameters(), 0.0);
    let mut step = compile_step(&net, &mut sgd, likelihood);
    let data = images(4);
    let a = step.run(&data).unwrap().item::<f32>();
    assert_ne!(step.run(&data).unwrap().item::<f32>(), a, "other masks");
    net.eval();
    let a = step.run(&data).unwrap().item::<f32>();
    assert_eq!(step.run(&data).unwrap().item::<f32>(), a);
    net.train(true);
    step.run(&data).unwrap();
    assert_eq!((step.compilations(), step.why_eager()), (2, None));
}

/// Noise that the loss draws is that of eager steps, too.
#[test]
fn random_numbers() {
    let _one = alone();
    let loss = |m: &Sequential, x: &[Tensor]| {
        let noisy = &x[0] + rand([4, 7]) * 0.1 + randn([7]) * 0.01;
        F::mse_loss(&m.forward(&noisy), &zeros([4, 5]), F::Reduction::Mean)
    };
    agrees(mlp, |p| Sgd::new(p, 0.1), loss, None, &[batch(4)]);
}

/// A tape that was recorded before a step cannot be used after it.
#[test]
fn versions_count() {
    let _one = alone();
    let net = mlp();
    let data = batch(3);
    let weight = net.parameters()[2].clone();
    let stale = classify(&net, &data);
    let mut sgd = Sgd::new(net.parameters(), 0.1);
    let mut step = compile_step(&net, &mut sgd, classify);
    let before = weight.version();
    step.run(&data).unwrap();
    assert!(weight.version() > before);
    let e = std::panic::catch_unwind(|| stale.backward()).unwrap_err();
    let text = e.downcast_ref::<String>().cloned().unwrap_or_default();
    assert!(text.contains("a compiled step"), "{text}");
}

/// The graph of a small step.
#[test]
fn graph_of_a_step() {
    let _one = alone();
    let net = Linear::new(3, 2);
    let mut sgd = Sgd::new(net.parameters(), 0.1).momentum(0.9);
    let mut step = compile_step(&net, &mut sgd, |m, x: &[Tensor]| {
        F::mse_loss(&m.forward(&x[0]).relu(), &x[1], F::Reduction::Sum)
    });
    step.run(&[ones([4, 3]), zeros([4, 2])]).unwrap();
    let text = step.compiled().expect("it is compiled").plan.graph.to_string();
    let lines: Vec<&str> = text.lines().map(|l| l.split("  ;").next().unwrap_or(l)).collect();
    insta::assert_snapshot!(lines.join("\n"));
}

/// What is computed again takes the place of what was kept, and is the same bits.
#[test]
fn recomputing_changes_memory_alone() {
    let _one = alone();
    manual_seed(6);
    let make = || {
        let net = Sequential::new().add(Linear::new(8, 64)).add(Activation::Relu6);
        let net = net.add(Dropout::new(0.1)).add(Linear::new(64, 64)).add(Activation::Silu);
        net.add(Linear::new(64, 64)).add(Activation::Relu6).add(Linear::new(64, 5))
    };
    let data = vec![randn([512, 8]), randint(0, 5, [512])];
    let (a, b) = (make(), make());
    a.load_state_dict(&b.state_dict(), true).unwrap();
    let start = random::state();
    let run = |net: &Sequential, again: bool| {
        random::set_state(start);
        let mut adam = Adam::new(net.parameters(), 0.01);
        let mut step = compile_step(net, &mut adam, classify).recompute(again);
        let losses: Vec<f32> = (0..3).map(|_| step.run(&data).unwrap().item()).collect();
        assert_eq!(step.why_eager(), None);
        let decisions = &step.compiled().unwrap().report.decisions;
        let count = decisions.iter().filter(|d| d.reason.contains("computed again")).count();
        (losses, step.program().unwrap().arena_bytes(&[]).unwrap(), count)
    };
    let ((with, less, some), (without, more, none)) = (run(&a, true), run(&b, false));
    assert_eq!(with, without);
    assert!(less < more && some > 0 && none == 0, "{less} {more} {some} {none}");
    for (name, t) in a.state_dict() {
        assert_eq!(t.to_vec::<f32>(), b.state_dict()[&name].to_vec::<f32>(), "`{name}`");
    }
}
