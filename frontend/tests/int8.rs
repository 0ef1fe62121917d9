//! Models with integers: what training made of them stays.

use sinter::nn::{BatchNorm2d, Conv2d, Layer, Linear, Module, functional as F};
use sinter::optim::{Adam, Optimizer};
use sinter::{
    Calibration, CalibrationMethod, CompileError, Compiler, DType, Precision, Tensor, from_vec,
    manual_seed, no_grad, rand, randint, randn,
};

#[derive(Module)]
struct Net {
    conv1: Conv2d,
    norm: BatchNorm2d,
    conv2: Conv2d,
    fc1: Linear,
    fc2: Linear,
}

impl Layer for Net {
    fn forward(&self, x: &Tensor) -> Tensor {
        let x = self.norm.forward(&self.conv1.forward(x)).relu();
        let x = F::max_pool2d(&self.conv2.forward(&x).relu(), [2, 2]);
        self.fc2.forward(&self.fc1.forward(&x.flatten(1, -1)).relu())
    }
}

/// Pictures of a bright patch in one of nine places, and which.
fn pictures(n: usize) -> (Tensor, Tensor) {
    let which = randint(0, 9, [n]);
    let mut x = (rand([n, 1, 12, 12]) * 0.6).to_vec::<f32>();
    for (i, w) in which.to_vec::<i64>().into_iter().enumerate() {
        let (row, col) = (w as usize / 3 * 4, w as usize % 3 * 4);
        for (r, c) in (0..4).flat_map(|r| (0..4).map(move |c| (r, c))) {
            x[i * 144 + (row + r) * 12 + col + c] += 0.25;
        }
    }
    (from_vec(x).reshape([n, 1, 12, 12]), which)
}

fn accuracy(y: &Tensor, which: &Tensor) -> f32 {
    y.argmax_dim(1, false).eq(which).to_dtype(DType::F32).mean().item::<f32>()
}

fn trained() -> Net {
    manual_seed(3);
    let net = Net {
        conv1: Conv2d::new(1, 8, 3),
        norm: BatchNorm2d::new(8),
        conv2: Conv2d::new(8, 16, 3),
        fc1: Linear::new(16 * 4 * 4, 32),
        fc2: Linear::new(32, 9),
    };
    let mut adam = Adam::new(net.parameters(), 5e-3);
    for _ in 0..60 {
        let (x, which) = pictures(64);
        adam.zero_grad();
        F::cross_entropy(&net.forward(&x), &which, F::Reduction::Mean).backward();
        adam.step();
    }
    net.eval();
    net
}

#[test]
fn a_trained_network_sees_the_same() {
    let net = trained();
    let (x, _) = pictures(64);
    let seen: Vec<Tensor> = (0..4).map(|_| pictures(64).0).collect();
    let (other, which) = pictures(512);
    let parts: Vec<Tensor> = (0..8).map(|i| other.narrow(0, i * 64, 64)).collect();
    let right = accuracy(&no_grad(|| net.forward(&other)), &which);
    assert!(right > 0.9, "f32 is right in {right}");
    let dir = tempfile::tempdir().unwrap();
    for method in [CalibrationMethod::MinMax, CalibrationMethod::Percentile(99.99)] {
        let data = Calibration::new(&seen).held_out(&parts).method(method);
        let mut compiled = Compiler::new()
            .dynamic_batch("N", 1..=512)
            .precision(Precision::Int8)
            .calibration(data)
            .compile(&net, &x)
            .unwrap();
        let report = compiled.report().accuracy.clone().unwrap();
        let names: Vec<&str> = report.layers.iter().map(|l| l.name.as_str()).collect();
        assert_eq!(names, ["conv2", "fc1", "fc2"], "{}", report.text());
        let held = &report.outputs[1];
        let [same, rows] = held.top1.unwrap();
        assert_eq!(rows, 512);
        assert!(same >= 502 && held.difference.sqnr_db() > 25.0, "{}", report.text());
        let int8 = accuracy(&compiled.call(&other).unwrap(), &which);
        assert!((int8 - right).abs() <= 0.02, "f32 is right in {right}, int8 in {int8}");
        let path = dir.path().join("net.sinter");
        compiled.save(&path).unwrap();
        let loaded = sinter::load(&path).unwrap();
        let (a, b) = (loaded.call(&other).unwrap(), compiled.call(&other).unwrap());
        assert_eq!(a.to_vec::<f32>(), b.to_vec::<f32>());
    }
}

#[test]
fn what_is_asked_for_is_possible_or_refused() {
    manual_seed(5);
    let (net, x) = (Linear::new(16, 8), randn([4, 16]));
    let int8 = Compiler::new().precision(Precision::Int8);
    let Err(e @ CompileError::Compile(_)) = int8.compile(&net, &x) else {
        panic!("it needs examples")
    };
    assert!(e.to_string().contains("int8 needs calibration"), "{e}");
    let kept = int8.clone().calibration(Calibration::new([&x]).keep_f32(["fc"]));
    let e = kept.compile(&net, &x).unwrap_err();
    assert!(e.to_string().contains("there is no layer `fc`"), "{e}");
    let several = Calibration::with([[&x, &x]]);
    let e = int8.calibration(several).compile(&net, &x).unwrap_err();
    assert!(e.to_string().starts_with("calibration input 0"), "{e}");
}
