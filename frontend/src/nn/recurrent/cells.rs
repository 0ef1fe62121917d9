//! Single steps, in ordinary ops.

use super::{Nonlinearity, RecurrentOptions, Weights};
use crate::nn::{Module, Visit, VisitMut, functional as F};
use crate::tensor::{Tensor, full, stack};

/// State and cells after a step whose gates are summed up.
fn lstm(gates: &Tensor, c: &Tensor) -> (Tensor, Tensor) {
    let g = gates.chunk(4, -1);
    let c = g[1].sigmoid() * c + g[0].sigmoid() * g[2].tanh();
    (g[3].sigmoid() * c.tanh(), c)
}

/// An LSTM whose states are projected: states of all steps, and cells.
#[track_caller]
pub(super) fn projected(
    gates: &Tensor,
    w: &Tensor,
    hr: &Tensor,
    reverse: bool,
    mut h: Tensor,
    c0: Option<Tensor>,
) -> (Tensor, Option<Tensor>) {
    let mut c = c0.expect("only an LSTM is projected");
    let steps = gates.shape()[0];
    let mut all: Vec<(Tensor, Tensor)> = Vec::with_capacity(steps);
    for s in 0..steps {
        let t = if reverse { steps - 1 - s } else { s };
        let sums = gates.select(0, t as i64) + F::linear(&h, w, None);
        (h, c) = lstm(&sums, &c);
        h = F::linear(&h, hr, None);
        all.push((h.clone(), c.clone()));
    }
    if reverse {
        all.reverse();
    }
    let join = |v: Vec<&Tensor>| stack(&v, 0);
    (join(all.iter().map(|s| &s.0).collect()), Some(join(all.iter().map(|s| &s.1).collect())))
}

/// Checks [N, inputs] or [inputs].
#[track_caller]
fn check(name: &str, x: &Tensor, inputs: usize) {
    if !(1..=2).contains(&x.rank()) || x.size(-1) != inputs {
        panic!("{name}: the input is {:?}, not [N, {inputs}] or [{inputs}]", x.shape());
    }
}

/// A state of the same leading dimensions; zeros if none is given.
#[track_caller]
fn state(name: &str, given: Option<&Tensor>, x: &Tensor, hidden: usize) -> Tensor {
    let mut shape = x.shape().to_vec();
    shape[x.rank() - 1] = hidden;
    match given {
        None => full(&shape[..], 0.0, x.dtype()),
        Some(h) if h.shape() == shape => h.clone(),
        Some(h) => panic!("{name}: the state is {:?}, not {shape:?}", h.shape()),
    }
}

macro_rules! cell {
    ($(#[$doc:meta])* $name:ident, $gates:literal) => {
        $(#[$doc])*
        #[derive(Debug)]
        pub struct $name {
            weights: Weights,
            inputs: usize,
            hidden: usize,
            #[allow(dead_code)] // of some
            nonlinearity: Nonlinearity,
        }

        impl $name {
            /// With biases; initialised as PyTorch does.
            pub fn new(inputs: usize, hidden: usize) -> $name {
                $name::with_options(inputs, hidden, RecurrentOptions::default())
            }

            /// With every choice open that a single step has: the bias and the
            /// nonlinearity.
            pub fn with_options(
                inputs: usize,
                hidden: usize,
                options: RecurrentOptions,
            ) -> $name {
                let options = RecurrentOptions { proj_size: 0, ..options };
                let nonlinearity = options.nonlinearity;
                let weights = Weights::new(String::new(), $gates, inputs, hidden, &options);
                $name { weights, inputs, hidden, nonlinearity }
            }

            /// What the input and the state contribute to the gates.
            #[track_caller]
            fn sums(&self, x: &Tensor, h: &Tensor) -> (Tensor, Tensor) {
                let w = &self.weights;
                let (ih, hh) = match &w.bias {
                    Some((ih, hh)) => (Some(ih.tensor()), Some(hh.tensor())),
                    None => (None, None),
                };
                (F::linear(x, &w.ih, ih), F::linear(h, &w.hh, hh))
            }
        }

        // The names are `weight_ih`, `weight_hh`, `bias_ih` and `bias_hh`.
        impl Module for $name {
            fn visit(&self, v: &mut dyn Visit) {
                self.weights.visit(v);
            }
            fn visit_mut(&mut self, v: &mut dyn VisitMut) {
                self.weights.visit_mut(v);
            }
        }
    };
}

cell! {
    /// One step of an LSTM: see [`Lstm`](super::Lstm).
    ///
    /// ```
    /// use sinter::nn::LstmCell;
    /// let (h, c) = LstmCell::new(3, 5).forward(&sinter::randn([4, 3]), None);
    /// assert_eq!((h.shape(), c.shape()), (&[4, 5][..], &[4, 5][..]));
    /// ```
    LstmCell, 4
}
cell! {
    /// One step of a GRU: see [`Gru`](super::Gru).
    GruCell, 3
}
cell! {
    /// One step of Elman's network: see [`Rnn`](super::Rnn).
    RnnCell, 1
}

impl LstmCell {
    /// State and cells [N, hidden] after the step with input [N, inputs], or without the
    /// first dimension; from zeros where no state is given.
    ///
    /// # Panics
    /// If shapes do not fit.
    #[track_caller]
    pub fn forward(&self, x: &Tensor, state_: Option<(&Tensor, &Tensor)>) -> (Tensor, Tensor) {
        check("LstmCell", x, self.inputs);
        let h = state("LstmCell", state_.map(|s| s.0), x, self.hidden);
        let c = state("LstmCell", state_.map(|s| s.1), x, self.hidden);
        let (a, b) = self.sums(x, &h);
        lstm(&(a + b), &c)
    }
}

impl GruCell {
    /// The state [N, hidden] after the step with input [N, inputs], or without the first
    /// dimension; from zeros where no state is given.
    ///
    /// # Panics
    /// If shapes do not fit.
    #[track_caller]
    pub fn forward(&self, x: &Tensor, h: Option<&Tensor>) -> Tensor {
        check("GruCell", x, self.inputs);
        let h = state("GruCell", h, x, self.hidden);
        let (a, b) = self.sums(x, &h);
        let (a, b) = (a.chunk(3, -1), b.chunk(3, -1));
        let r = (&a[0] + &b[0]).sigmoid();
        let z = (&a[1] + &b[1]).sigmoid();
        let n = (&a[2] + r * &b[2]).tanh();
        z * (h - &n) + n
    }
}

impl RnnCell {
    /// The state [N, hidden] after the step with input [N, inputs], or without the first
    /// dimension; from zeros where no state is given.
    ///
    /// # Panics
    /// If shapes do not fit.
    #[track_caller]
    pub fn forward(&self, x: &Tensor, h: Option<&Tensor>) -> Tensor {
        check("RnnCell", x, self.inputs);
        let h = state("RnnCell", h, x, self.hidden);
        let (a, b) = self.sums(x, &h);
        match self.nonlinearity {
            Nonlinearity::Tanh => (a + b).tanh(),
            Nonlinearity::Relu => (a + b).relu(),
        }
    }
}
