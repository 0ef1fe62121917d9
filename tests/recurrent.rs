//! Recurrent layers: their results and gradients against PyTorch, by themselves, and the
//! same in every other way of running them.

use sinter::nn::utils::rnn::{
    PackedSequence, pack_padded_sequence, pack_sequence, pad_packed_sequence, pad_sequence,
};
use sinter::nn::{
    Gru, GruCell, Lstm, LstmCell, Module, Nonlinearity, RecurrentOptions, Rnn, RnnCell,
};
use sinter::{Compiler, Tensor, Vmap, grad, no_grad, ones, randn, stack, zeros};
use sinter_kernels::par;
use sinter_runtime::program::Step;
use sinter_tests::{Case, Table, Tolerance, compare};

const NEAR: Tolerance = Tolerance { largest: 32.0, one: 4.0, ..Tolerance::units(16.0) };

/// Any of the networks.
enum Net {
    Lstm(Lstm),
    Gru(Gru),
    Rnn(Rnn),
    LstmCell(LstmCell),
    GruCell(GruCell),
    RnnCell(RnnCell),
}

impl Net {
    fn module(&self) -> &dyn Module {
        match self {
            Net::Lstm(m) => m,
            Net::Gru(m) => m,
            Net::Rnn(m) => m,
            Net::LstmCell(m) => m,
            Net::GruCell(m) => m,
            Net::RnnCell(m) => m,
        }
    }

    /// How many states there are.
    fn states(&self) -> usize {
        if matches!(self, Net::Lstm(_) | Net::LstmCell(_)) { 2 } else { 1 }
    }

    /// Results and last states.
    fn run(&self, x: &Tensor, s: &[Tensor], lengths: Option<&[usize]>, first: bool) -> Vec<Tensor> {
        let both = s.first().map(|h| (h, s.last().expect("there is one")));
        let one = s.first();
        let packed = lengths.map(|l| pack_padded_sequence(x, l, first, false));
        let padded = |y: &PackedSequence| pad_packed_sequence(y, first, 0.0, None).0;
        match (self, &packed) {
            (Net::Lstm(m), None) => {
                let (y, (h, c)) = m.forward(x, both);
                vec![y, h, c]
            }
            (Net::Lstm(m), Some(x)) => {
                let (y, (h, c)) = m.forward_packed(x, both);
                vec![padded(&y), h, c]
            }
            (Net::Gru(m), None) => <[Tensor; 2]>::from(m.forward(x, one)).to_vec(),
            (Net::Rnn(m), None) => <[Tensor; 2]>::from(m.forward(x, one)).to_vec(),
            (Net::Gru(m), Some(x)) => {
                let (y, h) = m.forward_packed(x, one);
                vec![padded(&y), h]
            }
            (Net::Rnn(m), Some(x)) => {
                let (y, h) = m.forward_packed(x, one);
                vec![padded(&y), h]
            }
            (Net::LstmCell(m), _) => <[Tensor; 2]>::from(m.forward(x, both)).to_vec(),
            (Net::GruCell(m), _) => vec![m.forward(x, one)],
            (Net::RnnCell(m), _) => vec![m.forward(x, one)],
        }
    }
}

/// The network a case names, of these sizes.
fn net(case: &Case) -> (Net, Option<Vec<usize>>, bool) {
    let words: Vec<&str> = case.what.split(' ').collect();
    let has = |w: &str| words.contains(&w);
    let number = |key: &str| {
        let of = |w: &&str| w.strip_prefix(key).map(|v| v.parse().expect("a number"));
        words.iter().find_map(of)
    };
    let states = usize::from(has("state") || words[0].ends_with("cell"))
        * (1 + usize::from(words[0].starts_with("lstm")));
    let inputs = *case.inputs[0].shape().last().unwrap();
    let w = &case.inputs[1 + states];
    let gates = match words[0].split('_').next() {
        Some("lstm") => 4,
        Some("gru") => 3,
        _ => 1,
    };
    let hidden = w.shape()[0] / gates;
    let relu = words[0] == "rnn_relu";
    let o = RecurrentOptions {
        num_layers: number("layers=").unwrap_or(1),
        bias: !has("plain"),
        batch_first: has("first"),
        bidirectional: has("both"),
        proj_size: number("proj=").unwrap_or(0),
        nonlinearity: if relu { Nonlinearity::Relu } else { Nonlinearity::Tanh },
        ..Default::default()
    };
    let net = match words[0] {
        "lstm" => Net::Lstm(Lstm::with_options(inputs, hidden, o)),
        "gru" => Net::Gru(Gru::with_options(inputs, hidden, o)),
        "lstm_cell" => Net::LstmCell(LstmCell::with_options(inputs, hidden, o)),
        "gru_cell" => Net::GruCell(GruCell::with_options(inputs, hidden, o)),
        "rnn_cell" => Net::RnnCell(RnnCell::with_options(inputs, hidden, o)),
        _ => Net::Rnn(Rnn::with_options(inputs, hidden, o)),
    };
    let lengths = words.iter().find_map(|w| w.strip_prefix("lengths="));
    let lengths = lengths.map(|l| l.split(',').map(|n| n.parse().unwrap()).collect());
    (net, lengths, o.batch_first)
}

#[test]
fn layers_and_their_gradients() {
    let mut wrong = Vec::new();
    let table = Table::load("recurrent_layers");
    assert!(table.cases.len() > 25);
    for case in &table.cases {
        let (net, lengths, first) = net(case);
        let xs = case.tensors();
        let params = net.module().parameters();
        let results = 1 + net.states() - usize::from(case.what.ends_with("cell"));
        let states = xs.len() - 1 - params.len() - results;
        let live: Vec<Tensor> =
            xs[..1 + states].iter().map(|t| t.clone().requires_grad_(true)).collect();
        no_grad(|| {
            for (p, v) in params.iter().zip(&xs[1 + states..]) {
                assert_eq!(p.shape(), v.shape(), "{}", case.what);
                p.copy_(v);
            }
        });
        let outs = net.run(&live[0], &live[1..], lengths.as_deref(), first);
        // The sum of products has the gradients that the case asks for.
        let loss = outs.iter().zip(&xs[1 + states + params.len()..]).map(|(o, g)| (o * g).sum());
        let loss = loss.reduce(|a, b| a + b).unwrap();
        let wanted: Vec<&Tensor> = live.iter().chain(params.iter().map(|p| p.tensor())).collect();
        let by = grad(&[&loss], &wanted, false).into_iter().map(|g| g.expect("all take part"));
        for (i, (got, want)) in outs.iter().cloned().chain(by).zip(&case.outputs).enumerate() {
            if let Some(e) = compare(got.detach().array(), want, NEAR) {
                wrong.push(format!("{} result {i}: {e}", case.what));
            }
        }
    }
    assert!(wrong.is_empty(), "{} differ:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn names_and_switches() {
    let o = RecurrentOptions {
        num_layers: 2,
        bidirectional: true,
        proj_size: 2,
        dropout: 0.5,
        ..Default::default()
    };
    let m = Lstm::with_options(3, 4, o);
    let names: Vec<String> = m.named_parameters().into_iter().map(|(n, _)| n).collect();
    let of = |s: &str| {
        ["weight_ih", "weight_hh", "bias_ih", "bias_hh", "weight_hr"].map(|n| format!("{n}_{s}"))
    };
    let want: Vec<String> = ["l0", "l0_reverse", "l1", "l1_reverse"].map(of).concat();
    assert_eq!(names, want);
    let cell: Vec<String> =
        GruCell::new(2, 3).named_parameters().into_iter().map(|(n, _)| n).collect();
    assert_eq!(cell, ["weight_ih", "weight_hh", "bias_ih", "bias_hh"]);
    // Dropout between layers, in training alone.
    let x = randn([5, 2, 3]);
    let run = || m.forward(&x, None).0.to_vec::<f32>();
    assert_ne!(run(), run());
    m.eval();
    assert_eq!(run(), run());
    let bound = 1.0 / 2.0;
    assert!(m.parameters().iter().all(|p| p.abs().max().item::<f32>() <= bound));
}

/// Padding changes nothing: each packed sequence is as if it were alone.
#[test]
fn packed_sequences_are_those_alone() {
    let o = RecurrentOptions { num_layers: 2, bidirectional: true, ..Default::default() };
    let m = Gru::with_options(3, 17, o);
    let all: Vec<Tensor> = [3, 1, 6, 3].map(|t| randn([t, 3])).to_vec();
    let refs: Vec<&Tensor> = all.iter().collect();
    let packed = pack_sequence(&refs, false);
    assert_eq!(packed.batch_sizes(), [4, 3, 3, 1, 1, 1]);
    assert_eq!(packed.sorted_indices(), Some(&[2, 0, 3, 1][..]));
    assert_eq!(packed.unsorted_indices(), Some(vec![1, 3, 0, 2]));
    assert_eq!(pad_sequence(&refs, true, -1.0).shape(), [4, 6, 3]);
    let (y, h) = m.forward_packed(&packed, None);
    let (y, lengths) = pad_packed_sequence(&y, true, 7.0, Some(8));
    assert_eq!(lengths, [3, 1, 6, 3]);
    for (i, x) in all.iter().enumerate() {
        let (alone, last) = m.forward(x, None);
        let mine = y.select(0, i as i64).narrow(0, 0, lengths[i]);
        let near = |a: &Tensor, b: &Tensor| (a - b).abs().max().item::<f32>() < 1e-6;
        assert!(near(&mine, &alone) && near(&h.select(1, i as i64), &last));
        let rest = y.select(0, i as i64).narrow(0, lengths[i], 8 - lengths[i]);
        assert!(rest.to_vec::<f32>().iter().all(|&v| v == 7.0));
    }
}

#[test]
fn awkward_sizes() {
    for (t, n, units) in [(1, 1, 1), (1, 3, 13), (2, 0, 4), (3, 1, 31), (4, 33, 7)] {
        let m = Lstm::new(3, units);
        let x = randn([t, n, 3]).requires_grad_(true);
        let (y, (h, c)) = m.forward(&x, None);
        assert_eq!(y.shape(), [t, n, units]);
        assert_eq!((h.shape(), c.shape()), (&[1, n, units][..], &[1, n, units][..]));
        (y.sum() + c.sum()).backward();
        assert_eq!(x.grad().unwrap().shape(), x.shape());
    }
    for (name, x) in [("no steps", zeros([0, 2, 3])), ("features", zeros([2, 2, 4]))] {
        let e = std::panic::catch_unwind(|| Gru::new(3, 2).forward(&x, None)).unwrap_err();
        let e = e.downcast_ref::<String>().unwrap();
        assert!(e.starts_with("Gru: ") && e.contains(name), "{e}");
    }
    // NaN and infinities stay where they are.
    let m = Lstm::new(3, 5);
    let mut x = vec![0.5f32; 2 * 3 * 3];
    x[3] = f32::NAN;
    x[6] = f32::INFINITY;
    let y = m.forward(&sinter::from_slice(&x, [2, 3, 3]), None).0;
    let nan: Vec<bool> = y.to_vec::<f32>().iter().map(|v| v.is_nan()).collect();
    let rows: Vec<bool> = nan.chunks(5).map(|r| r.iter().any(|&v| v)).collect();
    assert_eq!(rows[..3], [false, true, false]);
    assert_eq!(rows[3..], [false, true, false]);
}

/// Several threads give the bits that one gives, forwards and backwards.
#[test]
fn threads() {
    let o = RecurrentOptions { num_layers: 2, bidirectional: true, ..Default::default() };
    let m = Lstm::with_options(40, 70, o);
    let x = randn([9, 13, 40]);
    let all = |n: usize| {
        par::set_threads(n);
        m.zero_grad();
        let (y, (h, c)) = m.forward(&x, None);
        (y.square().sum() + h.sum() + c.sum()).backward();
        let grads = m.parameters().into_iter().map(|p| p.grad().unwrap().to_vec::<f32>());
        (y.to_vec::<f32>(), grads.collect::<Vec<_>>())
    };
    let one = all(1);
    assert!(one == all(2));
    assert!(one == all(5));
}

#[test]
fn batches_of_sequences() {
    let m = Gru::new(3, 4);
    let x = randn([5, 6, 2, 3]);
    let got = Vmap::new().call(|t| vec![m.forward(&t[0], None).0], &[&x]);
    let each: Vec<Tensor> = (0..5).map(|i| m.forward(&x.select(0, i), None).0).collect();
    let want = stack(&each.iter().collect::<Vec<_>>(), 0);
    assert!((&got[0] - want).abs().max().item::<f32>() < 1e-6);
}

/// Compiled, with any number of steps and sequences, a network gives what it gives eagerly.
#[test]
fn compiled() {
    for first in [false, true] {
        let o = RecurrentOptions {
            num_layers: 2,
            bidirectional: first,
            batch_first: first,
            ..Default::default()
        };
        let (lstm, gru) = (Lstm::with_options(5, 19, o), Gru::with_options(5, 19, o));
        let rnn = Rnn::with_options(5, 19, o);
        let run = |x: &[Tensor]| {
            let (y, (h, c)) = lstm.forward(&x[0], None);
            let (z, g) = gru.forward(&x[0], None);
            vec![y, h, c, z, g, rnn.forward(&x[0], None).0]
        };
        for fusion in [true, false] {
            let (t, n) = if first { (1, 0) } else { (0, 1) };
            let program = Compiler::new()
                .fusion(fusion)
                .dynamic("T", &[(0, t)], 1..=64)
                .dynamic("N", &[(0, n)], 1..=64)
                .compile_fn(run, &[&ones([4, 4, 5])])
                .expect("it compiles");
            // Every weight is packed once, when it is compiled.
            let steps = &program.compiled().plan.program.steps;
            let packed = steps.iter().filter(|s| matches!(s, Step::Sequence { .. })).count();
            assert_eq!(packed, if first { 12 } else { 6 });
            for (a, b) in [(4, 4), (1, 1), (7, 2), (2, 33)] {
                let x = randn([a, b, 5]);
                let want = no_grad(|| run(std::slice::from_ref(&x)));
                for (got, want) in program.run(&[&x]).expect("it runs").iter().zip(&want) {
                    assert_eq!(got.shape(), want.shape());
                    assert!((got - want).abs().max().item::<f32>() < 1e-5);
                }
            }
        }
    }
}
