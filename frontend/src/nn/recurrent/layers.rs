//! The layers.

use super::{Nonlinearity, RecurrentOptions, Stack};
use crate::nn::utils::rnn::PackedSequence;
use crate::nn::{Module, Visit, VisitMut};
use crate::tensor::Tensor;
use sinter_runtime::op::CellKind;

macro_rules! network {
    ($(#[$doc:meta])* $name:ident, $options:ident => $kind:expr) => {
        $(#[$doc])*
        #[derive(Debug)]
        pub struct $name {
            stack: Stack,
        }

        impl $name {
            /// One layer of `hidden` units over sequences [T, N, inputs], with biases,
            /// initialised as PyTorch does.
            ///
            /// # Panics
            /// If there are no units.
            #[track_caller]
            pub fn new(inputs: usize, hidden: usize) -> $name {
                $name::with_options(inputs, hidden, RecurrentOptions::default())
            }

            /// With every choice open.
            ///
            /// # Panics
            /// If there are no layers or units, the dropout is no probability, or an
            /// option is chosen that belongs to another kind of network.
            #[track_caller]
            pub fn with_options(
                inputs: usize,
                hidden: usize,
                $options: RecurrentOptions,
            ) -> $name {
                $name { stack: Stack::new(stringify!($name), $kind, inputs, hidden, $options) }
            }
        }

        impl Module for $name {
            fn visit(&self, v: &mut dyn Visit) {
                self.stack.visit(v);
            }
            fn visit_mut(&mut self, v: &mut dyn VisitMut) {
                self.stack.visit_mut(v);
            }
        }
    };
}

network! {
    /// Long short-term memory (Hochreiter and Schmidhuber, 1997):
    /// `c' = σ(f) c + σ(i) tanh(g)`, `h' = σ(o) tanh(c')`, the gates i, f, g, o being
    /// `w_ih x + b_ih + w_hh h + b_hh`. With `proj_size`, `h' = w_hr σ(o) tanh(c')` (Sak et
    /// al., 2014), which is computed step by step in ordinary ops.
    ///
    /// ```
    /// use sinter::nn::{Lstm, Module, RecurrentOptions};
    /// use sinter::randn;
    ///
    /// let options = RecurrentOptions { num_layers: 2, batch_first: true, ..Default::default() };
    /// let lstm = Lstm::with_options(3, 5, options);
    /// let (y, (h, c)) = lstm.forward(&randn([4, 7, 3]), None);
    /// assert_eq!(y.shape(), [4, 7, 5]);
    /// assert_eq!((h.shape(), c.shape()), (&[2, 4, 5][..], &[2, 4, 5][..]));
    /// assert_eq!(lstm.named_parameters()[1].0, "weight_hh_l0");
    /// ```
    Lstm, options => CellKind::Lstm
}
network! {
    /// Gated recurrent units (Cho et al., 2014): `h' = (1 - z) n + z h` with
    /// `r = σ(..)`, `z = σ(..)` and `n = tanh(w_in x + b_in + r (w_hn h + b_hn))`.
    Gru, options => CellKind::Gru
}
network! {
    /// Elman's network: `h' = tanh(w_ih x + b_ih + w_hh h + b_hh)`, or with ReLU.
    Rnn, options => match options.nonlinearity {
        Nonlinearity::Tanh => CellKind::Tanh,
        Nonlinearity::Relu => CellKind::Relu,
    }
}

impl Lstm {
    /// The states of all steps, and those of the last step: state and cells, both
    /// [layers * directions, N, ..]. `x` is [T, N, inputs], or [N, T, inputs] with
    /// `batch_first`, or one sequence, [T, inputs]. `state` is what the first step
    /// begins with; without it, zeros.
    ///
    /// # Panics
    /// If shapes do not fit, or there are no steps.
    #[track_caller]
    pub fn forward(
        &self,
        x: &Tensor,
        state: Option<(&Tensor, &Tensor)>,
    ) -> (Tensor, (Tensor, Tensor)) {
        let (y, (h, c)) = self.stack.run(x, state.map(|s| s.0), state.map(|s| s.1));
        (y, (h, c.expect("an LSTM has cells")))
    }

    /// [`forward`](Lstm::forward) for sequences of different lengths.
    ///
    /// # Panics
    /// If shapes do not fit.
    #[track_caller]
    pub fn forward_packed(
        &self,
        x: &PackedSequence,
        state: Option<(&Tensor, &Tensor)>,
    ) -> (PackedSequence, (Tensor, Tensor)) {
        let (y, (h, c)) = self.stack.run_packed(x, state.map(|s| s.0), state.map(|s| s.1));
        (y, (h, c.expect("an LSTM has cells")))
    }
}

macro_rules! forward {
    ($name:ident) => {
        impl $name {
            /// The states of all steps, and those of the last step,
            /// [layers * directions, N, hidden]. `x` is [T, N, inputs], or [N, T, inputs]
            /// with `batch_first`, or one sequence, [T, inputs]. `state` is what the first
            /// step begins with; without it, zeros.
            ///
            /// # Panics
            /// If shapes do not fit, or there are no steps.
            #[track_caller]
            pub fn forward(&self, x: &Tensor, state: Option<&Tensor>) -> (Tensor, Tensor) {
                let (y, (h, _)) = self.stack.run(x, state, None);
                (y, h)
            }

            /// As `forward`, for sequences of different lengths.
            ///
            /// # Panics
            /// If shapes do not fit.
            #[track_caller]
            pub fn forward_packed(
                &self,
                x: &PackedSequence,
                state: Option<&Tensor>,
            ) -> (PackedSequence, Tensor) {
                let (y, (h, _)) = self.stack.run_packed(x, state, None);
                (y, h)
            }
        }
    };
}
forward!(Gru);
forward!(Rnn);
