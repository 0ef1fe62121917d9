//! From eager code to compiled programs and files: the same numbers, or an error
//! that says what is wrong.

use sinter::nn::{
    Activation, BatchNorm2d, Conv2d, Conv2dOptions, Dropout, Embedding, Layer, LayerNorm, Linear,
    Module, Sequential, TransformerEncoderLayer, functional as F,
};
use sinter::trace::{DynamicDim, TraceError};
use sinter::{
    CompileError, Compiler, DType, RunError, Tensor, no_grad, ones, rand, randint, randn,
};
use sinter_runtime::program::Step;

#[track_caller]
fn assert_close(got: &Tensor, want: &Tensor) {
    assert_eq!(got.shape(), want.shape());
    let scale = want.abs().max().item::<f32>().max(1e-30);
    let error = (got - want).abs().max().item::<f32>() / scale;
    assert!(error <= 1e-5, "off by {error:e} of the largest output");
}

/// Compiled fused and unfused, the model gives what it gives eagerly, at every
/// batch size.
#[track_caller]
fn agrees(model: &dyn Layer, example: &Tensor, others: &[Tensor]) {
    for fusion in [true, false] {
        let compiled = Compiler::new()
            .fusion(fusion)
            .dynamic_batch("N", 1..=64)
            .compile(model, example)
            .expect("the model compiles");
        for x in others.iter().chain([example]) {
            let want = no_grad(|| model.forward(x));
            assert_close(&compiled.call(x).expect("it runs"), &want);
        }
    }
}

#[derive(Module)]
struct Cnn {
    conv1: Conv2d,
    norm: BatchNorm2d,
    conv2: Conv2d,
    fc: Linear,
}

impl Layer for Cnn {
    fn forward(&self, x: &Tensor) -> Tensor {
        let x = self.norm.forward(&self.conv1.forward(x)).relu();
        let x = F::max_pool2d(&self.conv2.forward(&x).relu(), [2, 2]);
        self.fc.forward(&x.flatten(1, -1)).log_softmax(1)
    }
}

#[test]
fn convolutional_network() {
    let net = Cnn {
        conv1: Conv2d::new(1, 8, 3),
        norm: BatchNorm2d::new(8),
        conv2: Conv2d::new(8, 16, 3),
        fc: Linear::new(16 * 4 * 4, 10),
    };
    // Running statistics that are not the initial ones.
    for _ in 0..3 {
        net.forward(&(randn([16, 1, 12, 12]) * 2.0 + 1.0));
    }
    net.eval();
    agrees(&net, &randn([4, 1, 12, 12]), &[randn([1, 1, 12, 12]), randn([33, 1, 12, 12])]);
}

#[test]
fn multilayer_perceptron_with_every_activation() {
    for act in [
        Activation::Relu,
        Activation::Gelu,
        Activation::Silu,
        Activation::Tanh,
        Activation::Sigmoid,
    ] {
        let net = Sequential::new()
            .add(Linear::new(20, 31))
            .add(act)
            .add(LayerNorm::new(31))
            .add(Linear::new(31, 7));
        agrees(&net, &randn([5, 20]), &[randn([1, 20]), randn([64, 20])]);
    }
}

#[test]
fn transformer_block() {
    let block = TransformerEncoderLayer::new(32, 4, 64);
    block.eval();
    agrees(&block, &randn([2, 9, 32]), &[randn([1, 9, 32]), randn([5, 9, 32])]);

    // Batch and sequence length both open.
    let x = randn([2, 9, 32]);
    let dims = |name: &str, dim| (name.to_string(), vec![(0usize, dim)]);
    let (batch, sequence) = (dims("B", 0), dims("S", 1));
    let compiled = Compiler::new()
        .dynamic(&batch.0, &batch.1, 1..=16)
        .dynamic(&sequence.0, &sequence.1, 1..=128)
        .compile(&block, &x)
        .expect("the block compiles");
    for x in [randn([1, 1, 32]), randn([3, 17, 32]), x] {
        assert_close(&compiled.call(&x).expect("it runs"), &no_grad(|| block.forward(&x)));
    }
}

/// Attention of heads that are views of one product, by the op or by hand.
#[test]
fn heads_are_split_and_joined_without_copies() {
    let (qkv, join) = (Linear::new(24, 72), Linear::new(24, 24));
    let by_hand = |q: &Tensor, k: &Tensor, v: &Tensor| {
        let scores = q.matmul(&k.transpose(-1, -2)) / 6f64.sqrt();
        scores.softmax(-1).matmul(v)
    };
    let by_op =
        |q: &Tensor, k: &Tensor, v: &Tensor| F::scaled_dot_product_attention(q, k, v, None, false);
    type Attend<'a> = &'a dyn Fn(&Tensor, &Tensor, &Tensor) -> Tensor;
    let forms: [Attend; 2] = [&by_hand, &by_op];
    for form in forms {
        let f = |x: &[Tensor]| {
            let [n, t, _] = x[0].shape()[..] else { panic!("three dimensions") };
            let parts = qkv.forward(&x[0]);
            let head = |i: usize| parts.narrow(2, 24 * i, 24).reshape([n, t, 4, 6]).transpose(1, 2);
            let y = form(&head(0), &head(1), &head(2));
            vec![join.forward(&y.transpose(1, 2).reshape([n, t, 24]))]
        };
        let x = randn([2, 9, 24]);
        let compiled = Compiler::new()
            .dynamic("N", &[(0, 0)], 1..=16)
            .dynamic("T", &[(0, 1)], 1..=64)
            .compile_fn(f, &[&x])
            .expect("it compiles");
        let steps = compiled.model().program().steps.len();
        assert_eq!(steps, 3, "two products with attention between them");
        for x in [randn([1, 1, 24]), randn([3, 17, 24]), x] {
            let want = no_grad(|| f(std::slice::from_ref(&x)).remove(0));
            assert_close(&compiled.run(&[&x]).expect("it runs")[0], &want);
        }
    }
}

/// What bounds a contraction from both sides happens in its registers.
#[test]
fn bounded_convolutions() {
    let conv = Conv2d::new(3, 18, 1);
    let options = Conv2dOptions { groups: 18, ..Conv2dOptions::default() };
    let depthwise = Conv2d::with_options(18, 18, [3, 3], options);
    let f = |x: &[Tensor]| {
        let y = depthwise.forward(&conv.forward(&x[0]).clamp(0.0, 0.5)).clamp(0.0, 0.1);
        vec![(&y * 2.0).tanh()]
    };
    let x = randn([2, 3, 9, 7]);
    let compiled = Compiler::new().compile_fn(f, &[&x]).expect("it compiles");
    let bounded = |s: &&Step| matches!(s, Step::Contract { most: Some(_), .. });
    assert_eq!(compiled.model().program().steps.iter().filter(bounded).count(), 2);
    let want = no_grad(|| f(std::slice::from_ref(&x)).remove(0));
    assert_close(&compiled.run(&[&x]).expect("it runs")[0], &want);
}

/// Three projections of one input are one product.
#[test]
fn projections_are_joined() {
    let parts = [Linear::new(24, 24), Linear::new(24, 24), Linear::new(24, 24)];
    let f = |x: &[Tensor]| {
        let [n, t, _] = x[0].shape()[..] else { panic!("three dimensions") };
        let head = |i: usize| parts[i].forward(&x[0]).reshape([n, t, 3, 8]).transpose(1, 2);
        let y = F::scaled_dot_product_attention(&head(0), &head(1), &head(2), None, true);
        vec![y.transpose(1, 2).reshape([n, t, 24]) + &x[0]]
    };
    let x = randn([2, 9, 24]);
    let compiled =
        Compiler::new().dynamic("N", &[(0, 0)], 1..=16).compile_fn(f, &[&x]).expect("it compiles");
    assert_eq!(compiled.model().program().steps.len(), 3, "a product, attention, a sum");
    for x in [randn([1, 9, 24]), x] {
        let want = no_grad(|| f(std::slice::from_ref(&x)).remove(0));
        assert_close(&compiled.run(&[&x]).expect("it runs")[0], &want);
    }
}

#[test]
fn embeddings_and_integer_inputs() {
    let table = Embedding::new(50, 16);
    let head = Linear::new(16, 3);
    let f = |x: &[Tensor]| vec![head.forward(&table.forward(&x[0])).softmax(-1)];
    let index = randint(0, 50, [4, 6]);
    let compiled = Compiler::new().compile_fn(f, &[&index]).expect("it compiles");
    let got = compiled.run(&[&index]).expect("it runs");
    assert_close(&got[0], &no_grad(|| f(std::slice::from_ref(&index)).remove(0)));
}

#[test]
fn several_inputs_and_outputs() {
    let f = |x: &[Tensor]| vec![&x[0] + &x[1], (&x[0] * &x[1]).sum_dim([1], false), x[0].clone()];
    let (a, b) = (randn([3, 5]), randn([5]));
    let compiled = Compiler::new().compile_fn(f, &[&a, &b]).expect("it compiles");
    let got = compiled.run(&[&a, &b]).expect("it runs");
    for (g, w) in got.iter().zip(f(&[a, b])) {
        assert_close(g, &w);
    }
}

#[test]
fn saved_and_loaded() {
    let net =
        Sequential::new().add(Linear::new(12, 9)).add(Activation::Gelu).add(Linear::new(9, 4));
    let x = randn([6, 12]);
    let mut compiled =
        Compiler::new().dynamic_batch("N", 1..=32).compile(&net, &x).expect("it compiles");
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("net.sinter");
    compiled.save(&path).expect("it is saved");
    let program = sinter::load(&path).expect("it loads");
    for x in [x, randn([1, 12]), randn([32, 12])] {
        assert_close(&program.call(&x).expect("it runs"), &net.forward(&x));
    }
}

#[test]
fn wrong_inputs_are_errors_that_name_them() {
    let net = Linear::new(4, 2);
    let compiled =
        Compiler::new().dynamic_batch("N", 2..=8).compile(&net, &randn([3, 4])).expect("compiles");
    let e = compiled.call(&randn([3, 5])).expect_err("the shape is wrong");
    assert!(matches!(e, RunError::Shape { .. }), "{e}");
    assert!(e.to_string().contains("[3, 5]") && e.to_string().contains("[N, 4]"), "{e}");
    let e = compiled.call(&randn([9, 4])).expect_err("the batch is too large");
    assert!(e.to_string().contains("2..=8"), "{e}");
    let e = compiled.call(&randn([3, 4]).to_dtype(DType::F64)).expect_err("the type is wrong");
    assert!(e.to_string().contains("f64") && e.to_string().contains("f32"), "{e}");
    assert!(compiled.run(&[]).expect_err("nothing is given").to_string().contains("1 inputs"));
}

fn trace_error(f: impl Fn(&Tensor) -> Tensor) -> TraceError {
    let e = Compiler::new()
        .dynamic_batch("N", 1..=64)
        .compile_fn(|x| vec![f(&x[0])], &[&ones([4, 6])])
        .expect_err("this cannot be traced");
    match e {
        CompileError::Trace(e) => e,
        other => panic!("{other}"),
    }
}

#[test]
fn what_a_graph_cannot_hold_is_an_error_with_the_line() {
    let here = |e: &TraceError, code: &str, line: u32| {
        let text = e.to_string();
        assert!(text.starts_with(code), "{text}");
        assert!(text.contains(&format!("compile.rs:{line}:")), "{text} is not about line {line}");
    };
    let e = trace_error(|x| if x.sum().item::<f32>() > 0.0 { x.neg() } else { x.clone() });
    here(&e, "T001", line!() - 1);
    let e = trace_error(|x| x + rand([6]));
    here(&e, "T002", line!() - 1);
    let outside = ones([6]);
    let e = trace_error(|x| {
        outside.add_(x.sum_dim([0], false));
        x.clone()
    });
    here(&e, "T003", line!() - 3);
    let e = trace_error(|x| {
        let y = x.exp();
        let _row = y.narrow(0, 0, 1);
        y.add_(1.0);
        y
    });
    here(&e, "T004", line!() - 3);
    let e = trace_error(|x| if x.size(0) > 2000 { x.exp() } else { x.neg() });
    here(&e, "T005", line!() - 1);
    assert!(e.to_string().contains("exp") && e.to_string().contains("neg"), "{e}");

    let dropout = Dropout::new(0.5);
    let e = trace_error(|x| dropout.forward(x));
    assert!(e.to_string().starts_with("T002") && e.to_string().contains("eval"), "{e}");
    dropout.eval();
    let f = |x: &[Tensor]| vec![dropout.forward(&x[0])];
    assert!(Compiler::new().compile_fn(f, &[&ones([2])]).is_ok());
}

#[test]
fn contradictory_requests_are_errors() {
    let f = |x: &[Tensor]| vec![x[0].exp()];
    let compile =
        |c: Compiler| c.trace(f, &[&ones([2, 3])]).expect_err("contradictory").to_string();
    let four = 4;
    for (name, place, range, why) in [
        ("N", (1, 0), 1..=4, "no input 1"),
        ("N", (0, 2), 1..=4, "no dimension 2"),
        ("N", (0, 0), four..=1, "range is empty"),
        ("2N", (0, 0), 1..=4, "a name is"),
    ] {
        let e = compile(Compiler::new().dynamic(name, &[place], range));
        assert!(e.starts_with("T009") && e.contains(why), "{e}");
    }
    let twice = Compiler::new().dynamic("N", &[(0, 0)], 1..=2).dynamic("N", &[(0, 1)], 1..=2);
    assert!(compile(twice).contains("given twice"));
    let _ = DynamicDim { name: "N".into(), places: vec![(0, 0)], range: 1..=2 };
}

#[test]
fn in_place_ops_on_traced_tensors_are_traced() {
    let f = |x: &[Tensor]| {
        let y = &x[0] * 2.0;
        y.add_(1.0);
        y.mul_(&x[0]);
        vec![y]
    };
    let x = randn([3, 4]);
    let compiled = Compiler::new().compile_fn(f, &[&x]).expect("it compiles");
    assert_close(&compiled.call(&x).expect("it runs"), &((&x * 2.0 + 1.0) * &x));
}

#[test]
fn runs_allocate_nothing_after_the_first() {
    let net =
        Sequential::new().add(Linear::new(64, 48)).add(Activation::Relu).add(Linear::new(48, 8));
    let x = randn([16, 64]);
    let compiled = sinter::compile(&net, &x).expect("it compiles");
    let y = ones([16, 8]);
    compiled.run_into(&[&x], &[&y]).expect("it runs");
    let used = allocation_counter::measure(|| {
        for _ in 0..100 {
            compiled.run_into(&[&x], &[&y]).expect("it runs");
        }
    });
    assert_eq!(used.count_total, 0, "{used:?}");
}

/// Means and variances over an open size, and other numbers that code makes of sizes.
#[test]
fn numbers_that_depend_on_sizes() {
    type Case = (&'static str, fn(&Tensor) -> Tensor);
    let functions: [Case; 6] = [
        ("mean", |x| x.mean()),
        ("mean of columns", |x| x.mean_dim(0, false)),
        ("variance", |x| x.var()),
        ("a part of the mean", |x| x.sum() * (0.3 / x.size(0) as f64)),
        ("a count", |x| x.sum() + (3 * x.size(0)) as f64),
        ("loss", |x| F::mse_loss(x, &x.sin(), F::Reduction::Mean)),
    ];
    for (name, f) in functions {
        for fusion in [true, false] {
            let compiler = Compiler::new().dynamic_batch("N", 2..=64).fusion(fusion);
            let compiled = compiler.compile_fn(|x| vec![f(&x[0])], &[&randn([4, 6])]);
            let compiled = compiled.unwrap_or_else(|e| panic!("{name}: {e}"));
            for n in [2, 3, 17] {
                let x = randn([n, 6]);
                assert_close(&compiled.run(&[&x]).expect("it runs")[0], &f(&x));
            }
        }
    }
    let e = trace_error(|x| x * (x.size(0) as f64).ln());
    let (text, line) = (e.to_string(), format!("compile.rs:{}:", line!() - 1));
    assert!(text.starts_with("T006") && text.contains(&line), "{text}");
}
