//! Recurrent networks over sequences, in layers one above the other and in both
//! directions.
//!
//! What the inputs contribute to the gates of all steps is one product; what depends on
//! the step before is the op `recurrent`.

mod cells;
mod layers;

pub use cells::{GruCell, LstmCell, RnnCell};
pub use layers::{Gru, Lstm, Rnn};

use super::utils::rnn::PackedSequence;
use super::{Module, Param, TrainFlag, Visit, VisitMut, functional as F, init};
use crate::autograd::grad_enabled;
use crate::tensor::{Tensor, apply_all, cat, default_dtype, empty, full, stack};
use sinter_runtime::Op;
use sinter_runtime::op::CellKind;
use smallvec::SmallVec;

/// What an [`Rnn`] applies to its sums.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Nonlinearity {
    /// Hyperbolic tangent.
    #[default]
    Tanh,
    /// `max(x, 0)`.
    Relu,
}

/// What an [`Lstm`], [`Gru`] or [`Rnn`] may differ in.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RecurrentOptions {
    /// Layers, each over the results of the one below.
    pub num_layers: usize,
    /// Whether biases are added.
    pub bias: bool,
    /// Whether sequences are [N, T, ..] rather than [T, N, ..]. States stay
    /// [layers, N, ..].
    pub batch_first: bool,
    /// Probability of zeroing what goes from layer to layer in training.
    pub dropout: f64,
    /// Whether each layer also goes from the last step to the first; results are joined.
    pub bidirectional: bool,
    /// Of an [`Lstm`], the size that its states are projected to; 0 for no projection.
    pub proj_size: usize,
    /// Of an [`Rnn`].
    pub nonlinearity: Nonlinearity,
}

impl Default for RecurrentOptions {
    fn default() -> RecurrentOptions {
        RecurrentOptions {
            num_layers: 1,
            bias: true,
            batch_first: false,
            dropout: 0.0,
            bidirectional: false,
            proj_size: 0,
            nonlinearity: Nonlinearity::Tanh,
        }
    }
}

/// Parameters of one direction of one layer.
#[derive(Debug)]
struct Weights {
    /// `l0`, `l0_reverse`.
    suffix: String,
    /// [gates * hidden, inputs]
    ih: Param,
    /// [gates * hidden, states]
    hh: Param,
    /// `[gates * hidden]`, of the inputs and of the states.
    bias: Option<(Param, Param)>,
    /// [projected, hidden]
    hr: Option<Param>,
}

impl Weights {
    /// Uniform within `1 / sqrt(hidden)`, as PyTorch's.
    fn new(
        suffix: String,
        gates: usize,
        inputs: usize,
        hidden: usize,
        o: &RecurrentOptions,
    ) -> Weights {
        let bound = 1.0 / (hidden.max(1) as f64).sqrt();
        let param = |shape: &[usize]| {
            let w = empty(shape, default_dtype());
            init::uniform_(&w, -bound, bound);
            Param::new(w)
        };
        let states = if o.proj_size > 0 { o.proj_size } else { hidden };
        let wide = gates * hidden;
        Weights {
            suffix,
            ih: param(&[wide, inputs]),
            hh: param(&[wide, states]),
            bias: o.bias.then(|| (param(&[wide]), param(&[wide]))),
            hr: (o.proj_size > 0).then(|| param(&[o.proj_size, hidden])),
        }
    }

    /// What is added to the gates for all steps; a GRU's second bias of the last gate is
    /// within the reset gate.
    fn bias(&self, kind: CellKind) -> Option<Tensor> {
        let (ih, hh) = self.bias.as_ref()?;
        if kind != CellKind::Gru {
            return Some(ih.tensor() + hh.tensor());
        }
        let units = hh.numel() / 3;
        let zero = full([units], 0.0, hh.dtype());
        Some(ih.tensor() + cat(&[&hh.narrow(0, 0, 2 * units), &zero], 0))
    }

    /// The bias within the reset gate of a GRU.
    fn inner_bias(&self, kind: CellKind) -> Option<Tensor> {
        let (_, hh) = self.bias.as_ref().filter(|_| kind == CellKind::Gru)?;
        let units = hh.numel() / 3;
        Some(hh.narrow(0, 2 * units, units))
    }
}

impl Module for Weights {
    fn visit(&self, v: &mut dyn Visit) {
        let mut one = |name: &str, p: &Param| {
            match self.suffix.as_str() {
                "" => v.enter(name),
                suffix => v.enter(&format!("{name}_{suffix}")),
            }
            v.param(p);
            v.leave();
        };
        one("weight_ih", &self.ih);
        one("weight_hh", &self.hh);
        if let Some((ih, hh)) = &self.bias {
            one("bias_ih", ih);
            one("bias_hh", hh);
        }
        if let Some(hr) = &self.hr {
            one("weight_hr", hr);
        }
    }
    fn visit_mut(&mut self, v: &mut dyn VisitMut) {
        v.param(&mut self.ih);
        v.param(&mut self.hh);
        if let Some((ih, hh)) = &mut self.bias {
            v.param(ih);
            v.param(hh);
        }
        if let Some(hr) = &mut self.hr {
            v.param(hr);
        }
    }
}

/// The layers of any kind of network.
#[derive(Debug)]
struct Stack {
    name: &'static str,
    kind: CellKind,
    inputs: usize,
    hidden: usize,
    options: RecurrentOptions,
    /// By layer, then direction.
    weights: Vec<Weights>,
    training: TrainFlag,
}

impl Module for Stack {
    fn visit(&self, v: &mut dyn Visit) {
        for w in &self.weights {
            w.visit(v);
        }
        v.train_flag(&self.training);
    }
    fn visit_mut(&mut self, v: &mut dyn VisitMut) {
        self.weights.iter_mut().for_each(|w| w.visit_mut(v));
    }
}

/// Results and states: h, and c of an LSTM.
type States = (Tensor, Option<Tensor>);

impl Stack {
    #[track_caller]
    fn new(
        name: &'static str,
        kind: CellKind,
        inputs: usize,
        hidden: usize,
        options: RecurrentOptions,
    ) -> Stack {
        let o = &options;
        if !(0.0..=1.0).contains(&o.dropout) {
            panic!("{name}: dropout {} is not a probability", o.dropout);
        }
        if o.num_layers == 0 || hidden == 0 {
            panic!("{name}: {} layers of {hidden} units; needs one of either", o.num_layers);
        }
        if o.proj_size > 0 && (kind != CellKind::Lstm || o.proj_size >= hidden) {
            panic!(
                "{name}: proj_size {} is for an LSTM with more units than that, not for {hidden}",
                o.proj_size
            );
        }
        if o.nonlinearity == Nonlinearity::Relu && kind.is_gated() {
            panic!("{name}: a nonlinearity is chosen for `Rnn` alone");
        }
        let directions = 1 + usize::from(o.bidirectional);
        let state = if o.proj_size > 0 { o.proj_size } else { hidden };
        let weights = (0..o.num_layers * directions)
            .map(|i| {
                let (layer, back) = (i / directions, i % directions == 1);
                let inputs = if layer == 0 { inputs } else { state * directions };
                let suffix = format!("l{layer}{}", if back { "_reverse" } else { "" });
                Weights::new(suffix, kind.gates(), inputs, hidden, o)
            })
            .collect();
        let training = TrainFlag::default();
        Stack { name, kind, inputs, hidden, options, weights, training }
    }

    fn directions(&self) -> usize {
        1 + usize::from(self.options.bidirectional)
    }

    /// Size of the states.
    fn state(&self) -> usize {
        if self.options.proj_size > 0 { self.options.proj_size } else { self.hidden }
    }

    /// A state before the first step, checked; zeros if none is given.
    #[track_caller]
    fn start(
        &self,
        given: Option<&Tensor>,
        what: &str,
        like: &Tensor,
        n: usize,
        size: usize,
    ) -> Tensor {
        let want = [self.weights.len(), n, size];
        match given {
            None => full(want, 0.0, like.dtype()),
            Some(h) if h.shape() == want => h.clone(),
            Some(h) => panic!(
                "{}: {what} is {:?}, not {want:?}: layers times directions, sequences, size",
                self.name,
                h.shape()
            ),
        }
    }

    #[track_caller]
    fn check_inputs(&self, x: &Tensor) {
        if x.size(-1) != self.inputs {
            panic!(
                "{}: the input {:?} has {} features, the layer takes {}",
                self.name,
                x.shape(),
                x.size(-1),
                self.inputs
            );
        }
    }

    /// Sequences of one length: [T, N, in], [N, T, in], or [T, in].
    #[track_caller]
    fn run(&self, x: &Tensor, h0: Option<&Tensor>, c0: Option<&Tensor>) -> (Tensor, States) {
        if x.rank() != 2 && x.rank() != 3 {
            panic!("{}: needs two or three dimensions, the shape is {:?}", self.name, x.shape());
        }
        self.check_inputs(x);
        let alone = x.rank() == 2;
        let first = self.options.batch_first && !alone;
        let x = if alone { x.unsqueeze(1) } else { x.clone() };
        let n = x.shape()[usize::from(!first)];
        if x.shape()[usize::from(first)] == 0 {
            panic!("{}: a sequence of no steps, the shape is {:?}", self.name, x.shape());
        }
        let many = |s: Option<&Tensor>| s.map(|s| if alone { s.unsqueeze(1) } else { s.clone() });
        let (h0, c0) = (many(h0), many(c0));
        let (y, (h, c)) = self.layers(Input { x, first, order: None }, n, h0, c0);
        let one = |s: Tensor| if alone { s.squeeze(1) } else { s };
        let y = if first { y.transpose(0, 1) } else { y };
        (one(y), (one(h), c.map(one)))
    }

    /// Sequences of lengths of their own.
    #[track_caller]
    fn run_packed(
        &self,
        x: &PackedSequence,
        h0: Option<&Tensor>,
        c0: Option<&Tensor>,
    ) -> (PackedSequence, States) {
        self.check_inputs(x.data());
        let n = x.batch_sizes()[0];
        let sorted = |s: Option<&Tensor>| s.map(|s| x.sort(s, 1));
        let (h0, c0) = (sorted(h0), sorted(c0));
        let input = Input { x: x.data().clone(), first: false, order: Some(Order::of(x)) };
        let (y, (h, c)) = self.layers(input, n, h0, c0);
        (x.with_data(y), (x.unsort(&h, 1), c.map(|c| x.unsort(&c, 1))))
    }

    #[track_caller]
    fn layers(
        &self,
        mut input: Input,
        n: usize,
        h0: Option<Tensor>,
        c0: Option<Tensor>,
    ) -> (Tensor, States) {
        let lstm = self.kind == CellKind::Lstm;
        let h0 = self.start(h0.as_ref(), "the state", &input.x, n, self.state());
        let c0 = lstm.then(|| self.start(c0.as_ref(), "the cell state", &input.x, n, self.hidden));
        let (mut hs, mut cs) = (vec![], vec![]);
        let directions = self.directions();
        for layer in 0..self.options.num_layers {
            if layer > 0 {
                input.x = F::dropout(&input.x, self.options.dropout, self.training.get());
            }
            let ys: Vec<Tensor> = (0..directions)
                .map(|d| {
                    let i = layer * directions + d;
                    let at = |s: &Tensor| s.select(0, i as i64);
                    let cell = c0.as_ref().map(at);
                    let (y, h, c) = self.direction(&self.weights[i], &input, d == 1, at(&h0), cell);
                    hs.push(h);
                    cs.extend(c);
                    y
                })
                .collect();
            input.x = match &ys[..] {
                [y] => y.clone(),
                both => cat(&both.iter().collect::<Vec<_>>(), -1),
            };
            // Results of layers are [T, N, ..] in any case.
            input.first = false;
        }
        let all = |s: &[Tensor]| stack(&s.iter().collect::<Vec<_>>(), 0);
        (input.x, (all(&hs), lstm.then(|| all(&cs))))
    }

    /// One direction of one layer: all states, the last, and the last cells.
    #[track_caller]
    fn direction(
        &self,
        w: &Weights,
        input: &Input,
        back: bool,
        h0: Tensor,
        c0: Option<Tensor>,
    ) -> (Tensor, Tensor, Option<Tensor>) {
        let gates = F::linear(&input.x, &w.ih, w.bias(self.kind).as_ref());
        let gates = match &input.order {
            Some(order) => order.spread(&gates, back),
            None if input.first => gates.transpose(0, 1),
            None => gates,
        };
        // Packed sequences are turned within their own lengths.
        let reverse = back && input.order.is_none();
        let (y, c) = match &w.hr {
            Some(hr) => cells::projected(&gates, w.hh.tensor(), hr, reverse, h0, c0),
            None => {
                let extra = c0.or_else(|| w.inner_bias(self.kind));
                let operands: SmallVec<[&Tensor; 4]> =
                    [&gates, w.hh.tensor(), &h0].into_iter().chain(&extra).collect();
                let keep = grad_enabled() && operands.iter().any(|t| t.requires_grad());
                let op = Op::Recurrent { kind: self.kind, reverse, keep };
                let mut outs = apply_all(op, &operands).into_iter();
                let y = outs.next().expect("a sequence has states");
                (y, outs.next().filter(|_| self.kind == CellKind::Lstm))
            }
        };
        match &input.order {
            Some(order) => {
                let last = |s: &Tensor| s.flatten(0, 1).index_select(0, &order.last);
                (order.gathered(&y, back), last(&y), c.as_ref().map(last))
            }
            None => {
                let last = |s: &Tensor| s.select(0, if reverse { 0 } else { -1 });
                let h = last(&y);
                (y, h, c.as_ref().map(last))
            }
        }
    }
}

/// What goes into a layer: [T, N, in]; [N, T, in] if the batch is `first`; or, in an
/// order, [total, in].
struct Input {
    x: Tensor,
    first: bool,
    order: Option<Order>,
}

/// Where the rows of packed sequences are among steps and sequences.
struct Order {
    steps: usize,
    count: usize,
    /// For each step of each sequence, forwards and backwards: the packed row, or one
    /// after the last.
    spread: [Tensor; 2],
    /// For each packed row, forwards and backwards: its place among steps and sequences.
    places: [Tensor; 2],
    /// Place of each sequence's last step.
    last: Tensor,
}

impl Order {
    fn of(x: &PackedSequence) -> Order {
        let sizes = x.batch_sizes();
        let (steps, count) = (sizes.len(), sizes[0]);
        let starts: Vec<usize> = sizes
            .iter()
            .scan(0, |at, n| {
                *at += n;
                Some(*at - n)
            })
            .collect();
        let total: usize = sizes.iter().sum();
        let lengths = x.sorted_lengths();
        let index = |v: Vec<usize>| {
            let v: Vec<i64> = v.into_iter().map(|i| i as i64).collect();
            crate::tensor::from_slice(&v, [v.len()])
        };
        let turned = |t: usize, n: usize, back: bool| if back { lengths[n] - 1 - t } else { t };
        let each = |back: bool| {
            let mut spread = vec![total; steps * count];
            let mut places = vec![0; total];
            for (t, &size) in sizes.iter().enumerate() {
                for n in 0..size {
                    let at = turned(t, n, back) * count + n;
                    spread[at] = starts[t] + n;
                    places[starts[t] + n] = at;
                }
            }
            (index(spread), index(places))
        };
        let (forwards, backwards) = (each(false), each(true));
        Order {
            steps,
            count,
            spread: [forwards.0, backwards.0],
            places: [forwards.1, backwards.1],
            last: index((0..count).map(|n| (lengths[n] - 1) * count + n).collect()),
        }
    }

    /// [total, ..] as [T, N, ..], zeros after the ends; each sequence turned if `back`.
    fn spread(&self, x: &Tensor, back: bool) -> Tensor {
        let wide = x.shape()[1];
        let x = cat(&[x, &full([1, wide], 0.0, x.dtype())], 0);
        let x = x.index_select(0, &self.spread[usize::from(back)]);
        x.reshape([self.steps, self.count, wide])
    }

    /// The converse.
    fn gathered(&self, y: &Tensor, back: bool) -> Tensor {
        y.flatten(0, 1).index_select(0, &self.places[usize::from(back)])
    }
}
