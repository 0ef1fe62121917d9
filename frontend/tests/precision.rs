//! Compiled programs that multiply less exactly than f32: near to eager execution, in bf16
//! where they say so, and the same from a file.

use sinter::nn::{
    Activation, BatchNorm2d, Conv2d, Conv2dOptions, Gru, Layer, Linear, Lstm, Module, Rnn,
    Sequential,
};
use sinter::{CompiledModel, Compiler, Precision, Tensor, no_grad, randn};
use sinter_kernels::conv::ConvKernel;
use sinter_kernels::par;
use sinter_runtime::program::{Packing, Step};

/// Largest error, relative to the largest result.
fn error(got: &[Tensor], want: &[Tensor]) -> f64 {
    let largest = |f: &dyn Fn(&Tensor, &Tensor) -> Tensor| {
        let each = got.iter().zip(want).map(|(g, w)| f(g, w).abs().max().item::<f32>());
        f64::from(each.fold(0.0, f32::max))
    };
    largest(&|g, w| g - w) / largest(&|_, w| w.clone())
}

fn packings(m: &CompiledModel) -> Vec<Packing> {
    let steps = m.compiled().plan.program.steps.iter();
    let of = |s: &Step| match s {
        Step::Contract { packing, .. } | Step::Sequence { packing, .. } => Some(*packing),
        _ => None,
    };
    steps.filter_map(of).collect()
}

fn reasons(m: &CompiledModel) -> String {
    m.report().decisions.iter().map(|d| d.reason.as_str()).collect::<Vec<_>>().join("\n")
}

type Run<'a> = &'a dyn Fn(&[Tensor]) -> Vec<Tensor>;

/// Compiles in that precision and compares with eager execution: within its bounds, but not
/// nearer than `least`; the same for any number of threads.
#[track_caller]
fn check(precision: Precision, unit: bool, run: Run, x: &Tensor, least: f64) -> CompiledModel {
    let want = no_grad(|| run(std::slice::from_ref(x)));
    let mut last = None;
    for fusion in [false, true] {
        let m = Compiler::new()
            .fusion(fusion)
            .precision(precision)
            .matrix_unit(unit)
            .compile_fn(run, &[x])
            .expect("it compiles");
        let got = m.run(&[x]).expect("it runs");
        let e = error(&got, &want);
        assert!(least <= e && e <= precision.tolerance(), "off by {e:e}, fused: {fusion}");
        let threads = par::threads();
        par::set_threads(if threads == 1 { 2 } else { 1 });
        let again = m.run(&[x]).expect("it runs");
        par::set_threads(threads);
        assert!(got.iter().zip(&again).all(|(a, b)| a.to_vec::<f32>() == b.to_vec::<f32>()));
        last = Some(m);
    }
    last.expect("two were compiled")
}

fn perceptron() -> Sequential {
    Sequential::new().add(Linear::new(131, 200)).add(Activation::Relu).add(Linear::new(200, 67))
}

#[test]
fn perceptrons() {
    let net = perceptron();
    let run = |x: &[Tensor]| vec![net.forward(&x[0])];
    for rows in [1, 33, 64] {
        let x = randn([rows, 131]);
        let m = check(Precision::Medium, false, &run, &x, 1e-4);
        assert_eq!(packings(&m), [Packing::Bf16Panels; 2]);
        assert!(reasons(&m).contains("; in bf16"));
        // For a processor that has use for it, and where the rows are many.
        let m = check(Precision::High, true, &run, &x, 0.0);
        let split = if rows < 32 { Packing::Panels } else { Packing::Bf16x3Panels };
        assert_eq!(packings(&m), [split; 2]);
        // Else in f32, said so.
        let m = check(Precision::High, false, &run, &x, 0.0);
        assert_eq!(packings(&m), [Packing::Panels; 2]);
        assert!(reasons(&m).contains("in f32, which is more exact than asked"));
        let exact = Compiler::new().compile(&net, &x).expect("it compiles");
        let same = |m: &CompiledModel| m.call(&x).unwrap().to_vec::<f32>();
        assert_eq!(same(&m), same(&exact));
        assert!(!reasons(&exact).contains("in f32"));
    }
}

/// How much of f32 is left in three products: a hundred times what bf16 leaves.
#[test]
fn three_products_are_nearly_f32() {
    let net = Linear::new(768, 256);
    let run = |x: &[Tensor]| vec![net.forward(&x[0])];
    let x = randn([64, 768]);
    let m = check(Precision::High, true, &run, &x, 1e-8);
    let e = error(&m.run(&[&x]).unwrap(), &[no_grad(|| net.forward(&x))]);
    assert!(e < 6e-6, "off by {e:e}");
}

/// What a residual network consists of, kernels of 3 x 3 and 1 x 1 with and without stride.
#[test]
fn residual_block() {
    let with = |i, o, kernel, stride, padding| {
        let options =
            Conv2dOptions { stride: [stride; 2], padding: [padding; 2], ..Default::default() };
        Conv2d::with_options(i, o, [kernel; 2], options)
    };
    let stem = with(3, 24, 7, 2, 3);
    let (down, first, second) =
        (with(24, 40, 1, 2, 0), with(24, 40, 3, 2, 1), with(40, 40, 3, 1, 1));
    let (norm, last) = (BatchNorm2d::new(40), with(40, 64, 1, 1, 0));
    norm.eval();
    let run = |x: &[Tensor]| {
        let x = stem.forward(&x[0]).relu();
        let y = second.forward(&norm.forward(&first.forward(&x)).relu());
        vec![last.forward(&(y + down.forward(&x)).relu())]
    };
    let x = randn([2, 3, 37, 45]);
    let m = check(Precision::Medium, false, &run, &x, 1e-4);
    let pairs = Packing::Conv(ConvKernel::Pairs.number());
    assert!(packings(&m).iter().filter(|p| **p == pairs).count() >= 4, "{:?}", packings(&m));
    // For a matrix unit, images have their channels side by side.
    for (precision, kernel, least) in [
        (Precision::Medium, ConvKernel::PixelRowPairs, 1e-4),
        (Precision::High, ConvKernel::PixelRowSplits, 1e-8),
    ] {
        let m = check(precision, true, &run, &x, least);
        let wanted = Packing::Conv(kernel.number());
        let found = packings(&m).iter().filter(|p| **p == wanted).count();
        assert!(found >= 4, "{:?}\n{}", packings(&m), reasons(&m));
    }
    let m = check(Precision::High, false, &run, &x, 0.0);
    assert!(reasons(&m).contains("in f32, which is more exact than asked"));
}

#[test]
fn sequences() {
    let (lstm, gru, rnn) = (Lstm::new(40, 70), Gru::new(40, 70), Rnn::new(40, 70));
    let run = |x: &[Tensor]| {
        let (y, (_, c)) = lstm.forward(&x[0], None);
        vec![y, c, gru.forward(&x[0], None).0, rnn.forward(&x[0], None).0]
    };
    for rows in [1, 19] {
        let x = randn([12, rows, 40]);
        let m = check(Precision::Medium, false, &run, &x, 1e-4);
        assert!(packings(&m).iter().all(|p| *p == Packing::Bf16Panels), "{:?}", packings(&m));
        check(Precision::High, true, &run, &x, 0.0);
        let m = check(Precision::Medium, true, &run, &x, 1e-4);
        let single = packings(&m).contains(&Packing::Panels);
        assert_eq!(single, rows > 4, "with AMX, many rows are faster in f32");
    }
}

/// A file holds the packed weights, and gives the same numbers.
#[test]
fn from_a_file() {
    let net = perceptron();
    let x = randn([48, 131]);
    let dir = tempfile::tempdir().expect("a folder");
    for precision in [Precision::Medium, Precision::High] {
        let path = dir.path().join(precision.name());
        let mut m = Compiler::new()
            .precision(precision)
            .matrix_unit(true)
            .compile(&net, &x)
            .expect("it compiles");
        m.save(&path).expect("it is written");
        let loaded = sinter::load(&path).expect("it loads");
        let numbers = |y: Tensor| y.to_vec::<f32>();
        assert_eq!(numbers(loaded.call(&x).unwrap()), numbers(m.call(&x).unwrap()));
    }
}
