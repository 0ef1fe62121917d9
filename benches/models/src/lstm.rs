//! Long short-term memory over sequences.

use crate::Model;
use sinter::Tensor;
use sinter::nn::{Layer, Linear, Lstm, Module, RecurrentOptions};

/// Two layers over sequences [N, T, inputs].
fn two_layers(inputs: usize, hidden: usize) -> Lstm {
    let options =
        RecurrentOptions { num_layers: 2, batch_first: true, ..RecurrentOptions::default() };
    Lstm::with_options(inputs, hidden, options)
}

/// Sequences [N, T, inputs] to the states of all steps [N, T, hidden], and the last
/// states and cells of both layers, [2, N, hidden] each.
#[derive(Debug, Module)]
pub struct LstmNet {
    lstm: Lstm,
}

impl LstmNet {
    /// With random weights.
    pub fn new(inputs: usize, hidden: usize) -> LstmNet {
        LstmNet { lstm: two_layers(inputs, hidden) }
    }
}

impl Model for LstmNet {
    #[track_caller]
    fn run(&self, inputs: &[Tensor]) -> Vec<Tensor> {
        let [x] = inputs else { panic!("LstmNet takes one tensor, not {}", inputs.len()) };
        let (y, (h, c)) = self.lstm.forward(x, None);
        vec![y, h, c]
    }
}

/// The class of a sequence, from the state after its last step: [N, T, inputs] to scores
/// [N, classes].
#[derive(Debug, Module)]
pub struct LstmClassifier {
    lstm: Lstm,
    head: Linear,
}

impl LstmClassifier {
    /// With random weights.
    pub fn new(inputs: usize, hidden: usize, classes: usize) -> LstmClassifier {
        LstmClassifier { lstm: two_layers(inputs, hidden), head: Linear::new(hidden, classes) }
    }
}

impl Layer for LstmClassifier {
    #[track_caller]
    fn forward(&self, x: &Tensor) -> Tensor {
        let (y, _) = self.lstm.forward(x, None);
        self.head.forward(&y.select(1, -1))
    }
}
