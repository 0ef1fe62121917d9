//! The models: their parameters, shapes, and what tracing makes of them.

use sinter::nn::{Activation, Module, StateDict};
use sinter::{Compiler, Tensor, cat, manual_seed, no_grad, rand, randint, randn};
use sinter_models::{
    ANY, CASES, Elementwise, Encoder, EncoderConfig, Gpt2, Gpt2Config, LayerNormSoftmax, LstmNet,
    MatMul, Method, Mlp, MnistCnn, MobileNetV2, Model, Net, ResNet18, Task, Training, case,
};

/// Names and shapes of the tensors of PyTorch's models, as `name 64x3x7x7`.
fn structure(text: &str) -> Vec<(String, Vec<usize>)> {
    let line = |l: &str| {
        let (name, shape) = l.split_once(' ').unwrap();
        (name.to_string(), shape.split('x').map(|n| n.parse().unwrap()).collect())
    };
    text.lines().map(line).collect()
}

#[track_caller]
fn assert_structure(state: &StateDict, text: &str) {
    let own: Vec<_> = state.iter().map(|(n, t)| (n.clone(), t.shape().to_vec())).collect();
    let mut want = structure(text);
    want.sort();
    assert_eq!(own, want);
}

#[test]
fn parameters_have_pytorchs_names_and_shapes() {
    for (name, text) in [
        ("mlp", include_str!("structure/mlp.txt")),
        ("mnist_cnn", include_str!("structure/mnist_cnn.txt")),
        ("resnet18", include_str!("structure/resnet18.txt")),
        ("mobilenet_v2", include_str!("structure/mobilenet_v2.txt")),
        ("minilm", include_str!("structure/minilm.txt")),
        ("gpt2_decode", include_str!("structure/gpt2.txt")),
        ("lstm", include_str!("structure/lstm.txt")),
    ] {
        assert_structure(&(case(name).unwrap().build)().state_dict(), text);
    }
    let encoder = Net::Encoder.build(false).state_dict();
    assert_structure(&encoder, include_str!("structure/train_encoder.txt"));
    let lstm = Net::Lstm.build(false).state_dict();
    assert_structure(&lstm, include_str!("structure/train_lstm.txt"));
}

#[test]
fn cases_are_found_by_their_beginning() {
    assert_eq!(case("mlp_b64").unwrap().model, "mlp");
    assert_eq!(case("gpt2_prefill128").unwrap().model, "gpt2_prefill");
    assert_eq!(case("ln_softmax_4096x1024").unwrap().model, "ln_softmax");
    assert!(case("gpt3").is_none());
    // No model takes the cases of another.
    for a in CASES {
        assert_eq!(case(a.model).unwrap().model, a.model);
        assert!(a.inputs.iter().all(|p| p.fits(&p.shape.map_any(3), p.dtype)));
    }
}

trait MapAny {
    /// With this size where any may stand.
    fn map_any(&self, n: usize) -> Vec<usize>;
}

impl MapAny for &[usize] {
    fn map_any(&self, n: usize) -> Vec<usize> {
        self.iter().map(|&s| if s == ANY { n } else { s }).collect()
    }
}

/// Weights for which each layer counts, and evaluation.
fn prepare(model: &dyn Model) {
    manual_seed(7);
    let random = |(name, t): (String, Tensor)| {
        let fresh = match () {
            _ if name.ends_with("running_var") => rand(t.shape()) + 0.5,
            _ if t.rank() < 2 => rand(t.shape()) * 0.4 + 0.8,
            _ => randn(t.shape()) * (1.0 / (t.numel() as f64 / t.size(0) as f64).sqrt()),
        };
        (name, fresh)
    };
    let state = model.state_dict().into_iter().map(random).collect();
    model.load_state_dict(&state, true).unwrap();
    model.eval();
}

/// Compiled, fused and not, it gives what it gives eagerly, in these shapes.
#[track_caller]
fn assert_compiles(model: &dyn Model, inputs: &[Tensor], shapes: &[&[usize]]) {
    prepare(model);
    let want = no_grad(|| model.run(inputs));
    let got: Vec<&[usize]> = want.iter().map(|t| t.shape()).collect();
    assert_eq!(got, shapes);
    let refs: Vec<&Tensor> = inputs.iter().collect();
    for fusion in [true, false] {
        let compiled = Compiler::new().fusion(fusion).compile_fn(|x| model.run(x), &refs).unwrap();
        for (i, (got, want)) in compiled.run(&refs).unwrap().iter().zip(&want).enumerate() {
            assert_eq!(got.shape(), want.shape());
            let scale = want.abs().max().item::<f32>();
            let error = (got - want).abs().max().item::<f32>() / scale;
            assert!(error < 2e-5, "output {i}, fusion {fusion}: {error:e}");
        }
    }
}

#[test]
fn networks_for_images_compile() {
    assert_compiles(&Mlp::new(), &[randn([3, 784])], &[&[3, 10]]);
    assert_compiles(&MnistCnn::with_size([11, 13], 7, true), &[randn([2, 1, 11, 13])], &[&[2, 7]]);
}

#[test]
fn resnet_compiles() {
    assert_compiles(&ResNet18::new(5), &[randn([2, 3, 32, 40])], &[&[2, 5]]);
}

#[test]
fn mobilenet_compiles() {
    assert_compiles(&MobileNetV2::new(5), &[randn([2, 3, 32, 40])], &[&[2, 5]]);
}

#[test]
fn encoders_compile() {
    let config =
        EncoderConfig { layers: 1, size: 24, heads: 3, hidden: 40, vocabulary: 50, positions: 16 };
    assert_compiles(&Encoder::new(&config), &[randint(0, 50, [2, 7])], &[&[2, 7, 24]]);
}

const SMALL: Gpt2Config =
    Gpt2Config { layers: 2, size: 24, heads: 3, vocabulary: 50, positions: 16 };

#[test]
fn gpt2_compiles_with_and_without_a_cache() {
    let model = Gpt2::new(&SMALL);
    let (n, cache) = (2, |t| randn([2usize, 2, 3, t, 8]));
    let new: &[usize] = &[2, n, 3, 7, 8];
    assert_compiles(&model, &[randint(0, 50, [n, 7])], &[&[n, 50], new, new]);
    let one: &[usize] = &[2, n, 3, 1, 8];
    let inputs = [randint(0, 50, [n, 1]), cache(5), cache(5)];
    assert_compiles(&model, &inputs, &[&[n, 50], one, one]);
}

#[test]
fn a_cache_takes_the_place_of_the_tokens_before() {
    let model = Gpt2::new(&SMALL);
    prepare(&model);
    let ids = randint(0, 50, [1, 6]);
    let (whole, k, _) = model.forward(&ids, None);
    let (_, past_k, past_v) = model.forward(&ids.narrow(1, 0, 5), None);
    let (last, new, _) = model.forward(&ids.narrow(1, 5, 1), Some((&past_k, &past_v)));
    let apart = |a: &Tensor, b: &Tensor| (a - b).abs().max().item::<f32>();
    assert!(apart(&whole, &last) < 1e-5, "{whole} {last}");
    assert!(apart(&k, &cat(&[&past_k, &new], 3)) < 1e-5);
}

#[test]
fn lstms_compile() {
    let shapes: [&[usize]; 3] = [&[3, 5, 9], &[2, 3, 9], &[2, 3, 9]];
    assert_compiles(&LstmNet::new(7, 9), &[randn([3, 5, 7])], &shapes);
}

#[test]
fn functions_compile() {
    assert_compiles(&Elementwise, &[randn([1009])], &[&[1009]]);
    assert_compiles(&Activation::Softmax(-1), &[randn([5, 33])], &[&[5, 33]]);
    assert_compiles(&LayerNormSoftmax::new(33, false), &[randn([5, 33])], &[&[5, 33]]);
    assert_compiles(&LayerNormSoftmax::new(33, true), &[randn([5, 33])], &[&[5, 33]]);
    assert_compiles(&MatMul, &[randn([5, 33]), randn([33, 7])], &[&[5, 7]]);
}

#[test]
fn training_lowers_the_loss() {
    for (net, method) in [(Net::Mlp, Method::Adam), (Net::Encoder, Method::AdamW)] {
        manual_seed(3);
        let mut training = Training::random(&Task::new(net, method, false), 2);
        let losses: Vec<f32> = (0..4).map(|_| training.step().item()).collect();
        assert!(losses[3] < losses[0], "{net}: {losses:?}");
    }
}

#[test]
fn names_are_read_as_they_are_written() {
    for net in [Net::Mlp, Net::MnistCnn, Net::Encoder, Net::Lstm] {
        assert_eq!(net.to_string().parse(), Ok(net));
    }
    for method in [Method::Sgd, Method::Adadelta, Method::Adam, Method::AdamW] {
        assert_eq!(method.to_string().parse(), Ok(method));
    }
    let e = "adagrad".parse::<Method>().unwrap_err();
    assert_eq!(e.to_string(), "`adagrad` is none of sgd, adadelta, adam, adamw");
}
