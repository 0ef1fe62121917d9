//! Functions, layers and models with their gradients, against PyTorch.

use sinter::nn::functional::{self as F, Reduction};
use sinter::nn::{
    Activation, BatchNorm2d, Conv2d, Embedding, Flatten, Layer, LayerNorm, Linear, MaxPool2d,
    Module, Sequential, StateDict, StateError, TransformerEncoderLayer,
};
use sinter::{DType, Tensor, grad, ones, randn, tensor, zeros};
use sinter_runtime::Array;
use sinter_tests::{Table, Tolerance, compare};

/// Sums in another order, through several ops.
const NEAR: Tolerance = Tolerance { largest: 32.0, one: 2.0, ..Tolerance::units(16.0) };

/// The function a case names.
fn function(name: &str, x: &[Tensor]) -> Tensor {
    let (name, rest) = name.split_once(' ').unwrap_or((name, ""));
    let reduction = match rest {
        "sum" => Reduction::Sum,
        "none" => Reduction::None,
        _ => Reduction::Mean,
    };
    let sdpa = F::scaled_dot_product_attention;
    match name {
        "linear" => F::linear(&x[0], &x[1], x.get(2)),
        "conv2d" => F::conv2d(&x[0], &x[1], x.get(2), [2, 2], [1, 1], [1, 1], 2),
        "max_pool2d" => F::max_pool2d(&x[0], [2, 2]),
        "avg_pool2d" => F::avg_pool2d(&x[0], [2, 2]),
        "layer_norm" => F::layer_norm(&x[0], 2, Some(&x[1]), Some(&x[2]), 1e-5),
        "embedding" => F::embedding(&x[0], &x[1]),
        "attention" => sdpa(&x[0], &x[1], &x[2], x.get(3), rest == "causal"),
        "cross_entropy" => F::cross_entropy(&x[0], &x[1], reduction),
        "nll_loss" => F::nll_loss(&x[0], &x[1], reduction),
        "mse_loss" => F::mse_loss(&x[0], &x[1], reduction),
        "l1_loss" => F::l1_loss(&x[0], &x[1], reduction),
        "binary_cross_entropy_with_logits" => {
            F::binary_cross_entropy_with_logits(&x[0], &x[1], reduction)
        }
        "gelu" => x[0].gelu(),
        "silu" => x[0].silu(),
        "leaky_relu" => Activation::LeakyRelu(0.1).forward(&x[0]),
        "softmax" => x[0].softmax(-1),
        "log_softmax" => x[0].log_softmax(-1),
        "logsumexp" => x[0].logsumexp(1, false),
        "var" => x[0].var_dim(1, 1, false),
        "std" => x[0].std_dim(0, 1, true),
        "norm" => x[0].norm(),
        "cumsum" => x[0].cumsum(1),
        "cumprod" => x[0].cumprod(0),
        "prod" => x[0].prod_dim(1, false),
        "tril" => x[0].tril(-1),
        "triu" => x[0].triu(1),
        "clamp" => x[0].clamp(-0.5, 0.4),
        "max_dim" => x[0].max_dim(1, false).0,
        "amax" => x[0].amax(0, false),
        "sort" => x[0].sort(1, false).0,
        "topk" => x[0].topk(2, 0, true).0,
        "masked_select" => x[0].masked_select(&x[0].gt(0.0)),
        "pow" => x[0].square().pow(1.7),
        "flip" => x[0].flip([0, 1]),
        "index_select" => x[0].index_select(1, &tensor([2i64, 0, 2])),
        other => panic!("no function `{other}`"),
    }
}

fn check(wrong: &mut Vec<String>, what: &str, got: &Tensor, want: &Array) {
    if let Some(e) = compare(got.array(), want, NEAR) {
        wrong.push(format!("{what}: {e}"));
    }
}

#[test]
fn functions_and_their_gradients() {
    let mut wrong = Vec::new();
    for case in Table::load("functions").cases {
        if case.what.starts_with("batch_norm") {
            continue;
        }
        let (gy, inputs) = case.inputs.split_last().expect("the gradient comes last");
        let gradients = case.outputs.len() - 1;
        let mut left = gradients;
        let xs: Vec<Tensor> = inputs
            .iter()
            .map(|a| {
                let t = Tensor::from_array(a.clone());
                let wants = a.dtype().is_float() && left > 0;
                left -= usize::from(wants);
                t.requires_grad_(wants)
            })
            .collect();
        let y = function(&case.what, &xs);
        check(&mut wrong, &case.describe(), &y, &case.outputs[0]);
        let wanted: Vec<&Tensor> = xs.iter().filter(|x| x.requires_grad()).collect();
        let gy = Tensor::from_array(gy.clone());
        let grads = sinter::Backward::new().gradient(&gy).grad(&[&y], &wanted);
        for (i, (g, want)) in grads.iter().zip(&case.outputs[1..]).enumerate() {
            let g = g.as_ref().unwrap_or_else(|| panic!("{}: gradient {i}", case.what));
            check(&mut wrong, &format!("{}, gradient {i}", case.describe()), g, want);
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn batch_norm() {
    let mut wrong = Vec::new();
    let table = Table::load("functions");
    for case in table.cases.iter().filter(|c| c.what.starts_with("batch_norm")) {
        let [x, weight, bias, mean, var, gy] = &case.tensors()[..] else { panic!("six operands") };
        let m = BatchNorm2d::new(3);
        let own =
            [("weight", weight), ("bias", bias), ("running_mean", mean), ("running_var", var)];
        let state = own.iter().map(|(n, t)| (n.to_string(), t.copy())).collect();
        m.load_state_dict(&state, true).unwrap();
        let train = case.what.ends_with("train");
        m.train(train);
        let x = x.clone().requires_grad_(true);
        let y = m.forward(&x);
        let grads = sinter::Backward::new().gradient(gy).grad(&[&y], &[&x, &m.weight, &m.bias]);
        let mut got: Vec<Tensor> = [Some(y)].into_iter().chain(grads).flatten().collect();
        if train {
            got.extend([m.running_mean.detach(), m.running_var.detach()]);
        }
        assert_eq!(got.len(), case.outputs.len());
        for (i, (g, want)) in got.iter().zip(&case.outputs).enumerate() {
            check(&mut wrong, &format!("{}, result {i}", case.what), g, want);
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

fn model(name: &str) -> Box<dyn Layer> {
    let act = Activation::Relu;
    match name {
        "mlp" => Box::new(
            Sequential::new()
                .add(Linear::new(7, 11))
                .add(act)
                .add(Linear::new(11, 5))
                .add(Activation::Tanh)
                .add(Linear::new(5, 3)),
        ),
        "cnn" => Box::new(
            Sequential::new()
                .add(Conv2d::new(1, 3, 3))
                .add(act)
                .add(Conv2d::new(3, 5, 3))
                .add(act)
                .add(MaxPool2d::new(2))
                .add(Flatten)
                .add(Linear::new(45, 6))
                .add(act)
                .add(Linear::new(6, 4))
                .add(Activation::LogSoftmax(-1)),
        ),
        "transformer" => Box::new(TransformerEncoderLayer::new(8, 2, 12)),
        other => panic!("no model `{other}`"),
    }
}

#[test]
fn models_and_the_gradients_of_their_parameters() {
    let mut wrong = Vec::new();
    for case in Table::load("models").cases {
        let mut names = case.what.split(' ');
        let m = model(names.next().expect("the name of the model"));
        m.eval();
        let names: Vec<String> = names.map(str::to_string).collect();
        let tensors = case.tensors();
        let state: StateDict = names.iter().cloned().zip(tensors[1..].iter().cloned()).collect();
        m.load_state_dict(&state, true).unwrap();
        let y = m.forward(&tensors[0]);
        let loss = y.square().mean();
        loss.backward();
        check(&mut wrong, &names[0], &y, &case.outputs[0]);
        check(&mut wrong, "loss", &loss, &case.outputs[1]);
        let params: std::collections::BTreeMap<_, _> = m.named_parameters().into_iter().collect();
        for (n, want) in names.iter().zip(&case.outputs[2..]) {
            check(&mut wrong, n, &params[n].grad().expect("a gradient"), want);
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

// ------------------------------------------------------------------ the protocol

#[derive(Module)]
struct Tower {
    r#type: Linear,
    layers: Vec<Linear>,
    norm: Option<LayerNorm>,
    none: Option<LayerNorm>,
    bn: BatchNorm2d,
    pair: (),
    size: usize,
    head: Head,
}

#[derive(Module)]
enum Head {
    Small(Linear),
    #[allow(dead_code)]
    Large {
        wide: Linear,
    },
}

#[derive(Module)]
struct Wrapper<M>(M, #[module(skip)] std::marker::PhantomData<u8>)
where
    M: Module;

fn tower() -> Tower {
    Tower {
        r#type: Linear::with_bias(2, 2, false),
        layers: vec![Linear::new(2, 2), Linear::new(2, 2)],
        norm: Some(LayerNorm::new(2)),
        none: None,
        bn: BatchNorm2d::new(2),
        pair: (),
        size: 3,
        head: Head::Small(Linear::with_bias(2, 2, false)),
    }
}

#[test]
fn derived_modules_name_their_parts() {
    let t = Wrapper(tower(), std::marker::PhantomData);
    assert_eq!(t.0.size, 3);
    let names = |v: Vec<(String, _)>| -> Vec<String> { v.into_iter().map(|p| p.0).collect() };
    assert_eq!(
        names(t.named_parameters()),
        [
            "0.type.weight",
            "0.layers.0.weight",
            "0.layers.0.bias",
            "0.layers.1.weight",
            "0.layers.1.bias",
            "0.norm.weight",
            "0.norm.bias",
            "0.bn.weight",
            "0.bn.bias",
            "0.head.0.weight",
        ]
    );
    let buffers: Vec<String> = t.named_buffers().into_iter().map(|b| b.0).collect();
    assert_eq!(buffers, ["0.bn.running_mean", "0.bn.running_var"]);
    assert_eq!(t.state_dict().len(), 12);
    assert_eq!(t.num_parameters(), 4 + 2 * 6 + 4 + 4 + 4);
}

#[test]
fn states_that_do_not_fit_change_nothing() {
    let m = tower();
    let before: Vec<Vec<f32>> = m.state_dict().values().map(Tensor::to_vec).collect();
    let unchanged = || {
        let now: Vec<Vec<f32>> = m.state_dict().values().map(Tensor::to_vec).collect();
        assert_eq!(now, before);
    };
    let mut state = tower().state_dict();
    state.insert("bn.bias".into(), zeros([3]));
    assert!(
        matches!(m.load_state_dict(&state, true), Err(StateError::Shape { name, .. }) if name == "bn.bias")
    );
    unchanged();
    state.insert("bn.bias".into(), zeros([2]).to_dtype(DType::I64));
    assert!(matches!(m.load_state_dict(&state, true), Err(StateError::DType { .. })));
    unchanged();
    state.remove("bn.bias");
    state.insert("more".into(), zeros([1]));
    let e = m.load_state_dict(&state, true).unwrap_err();
    assert_eq!(
        e,
        StateError::Names { missing: vec!["bn.bias".into()], unexpected: vec!["more".into()] }
    );
    unchanged();
    let report = m.load_state_dict(&state, false).unwrap();
    assert_eq!((report.missing.len(), report.unexpected.len()), (1, 1));
    // Halves convert.
    let half: StateDict =
        tower().state_dict().iter().map(|(n, t)| (n.clone(), t.to_dtype(DType::F16))).collect();
    m.load_state_dict(&half, true).unwrap();
    assert_eq!(m.layers[0].weight.dtype(), DType::F32);
}

#[test]
fn training_and_evaluation_differ() {
    sinter::manual_seed(3);
    let d = sinter::nn::Dropout::new(0.5);
    let x = ones([1000]);
    let y = d.forward(&x);
    let kept = y.to_vec::<f32>();
    assert!(kept.iter().all(|v| *v == 0.0 || *v == 2.0));
    let n = kept.iter().filter(|v| **v != 0.0).count();
    assert!((400..600).contains(&n), "{n}");
    // The gradient passes the same mask.
    let x = x.requires_grad_(true);
    let y = d.forward(&x);
    y.sum().backward();
    assert_eq!(x.grad().unwrap().to_vec::<f32>(), y.to_vec::<f32>());
    d.eval();
    assert!(d.forward(&x).is_same(&x));
}

#[test]
fn a_shared_parameter_is_one() {
    #[derive(Module)]
    struct Tied {
        a: Embedding,
        b: Linear,
    }
    let a = Embedding::new(3, 2);
    let b = Linear { weight: a.weight.clone(), bias: None };
    let m = Tied { a, b };
    assert_eq!(m.named_parameters().len(), 1);
    let y = m.b.forward(&m.a.forward(&tensor([0i64, 2])));
    y.sum().backward();
    assert!(m.parameters()[0].grad().is_some());
}

/// Two parameters with one incoming gradient must not share it.
#[test]
fn gradients_do_not_share_memory() {
    let (a, b) = (ones([2]).requires_grad_(true), ones([2]).requires_grad_(true));
    (&a + &b).sum().backward();
    sinter::no_grad(|| a.grad().unwrap().mul_(5.0).version());
    assert_eq!(b.grad().unwrap().to_vec::<f32>(), [1.0, 1.0]);
    let seed = ones([2]);
    sinter::Backward::new().gradient(&seed).run(&(&a * 1.0));
    sinter::no_grad(|| a.grad().unwrap().mul_(0.0).version());
    assert_eq!(seed.to_vec::<f32>(), [1.0, 1.0]);
}

#[test]
fn clipping() {
    let p = sinter::nn::Param::new(zeros([3]));
    p.set_grad(Some(tensor([3.0f32, 4.0, 0.0])));
    let norm = sinter::nn::clip_grad_norm_(std::slice::from_ref(&p), 1.0);
    assert_eq!(norm.item::<f64>(), 5.0);
    assert!(p.grad().unwrap().allclose(&tensor([0.6f32, 0.8, 0.0]), 1e-5, 0.0));
    sinter::nn::clip_grad_value_(std::slice::from_ref(&p), 0.7);
    assert!(p.grad().unwrap().allclose(&tensor([0.6f32, 0.7, 0.0]), 1e-5, 0.0));
}

#[test]
fn gradients_of_a_loss_by_its_input() {
    let x = randn([3, 4]).requires_grad_(true);
    let loss = F::cross_entropy(&x, &tensor([0i64, 3, 1]), Reduction::Mean);
    let g = grad(&[&loss], &[&x], false).remove(0).unwrap();
    assert!(g.sum_dim(1, false).abs().max().item::<f32>() < 1e-6);
}
