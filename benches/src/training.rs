//! A step of training, with everything it takes.

use crate::models::Net;
use serde::Serialize;
use sinter::nn::functional::{self as F, Reduction};
use sinter::nn::{Layer, StateDict, StateError};
use sinter::optim::{Adadelta, Adam, Optimizer, Sgd};
use sinter::{Tensor, randint};

/// An optimizer by name, with PyTorch's defaults except for the learning rate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
#[value(rename_all = "lowercase")]
pub enum Method {
    /// Plain gradient descent, rate 0.01.
    Sgd,
    /// Adadelta, rate 1.
    Adadelta,
    /// Adam, rate 0.001.
    Adam,
}

/// A model in training on one batch.
pub struct Training {
    net: Net,
    model: Box<dyn Layer + Send + Sync>,
    optimizer: Box<dyn Optimizer>,
    x: Tensor,
    target: Tensor,
}

impl Training {
    /// Random weights and a random batch.
    pub fn random(net: Net, method: Method, batch: usize, dropout: bool) -> Training {
        let model = net.build(dropout);
        let (x, target) = (net.input(batch), randint(0, 10, [batch]));
        Training::of(net, model, method, x, target)
    }

    /// These weights, this batch.
    ///
    /// # Errors
    /// When the weights are not those of the model.
    pub fn with(
        net: Net,
        method: Method,
        dropout: bool,
        weights: &StateDict,
        (x, target): (Tensor, Tensor),
    ) -> Result<Training, StateError> {
        let model = net.build(dropout);
        model.load_state_dict(weights, true)?;
        Ok(Training::of(net, model, method, x, target))
    }

    fn of(
        net: Net,
        model: Box<dyn Layer + Send + Sync>,
        method: Method,
        x: Tensor,
        target: Tensor,
    ) -> Training {
        let params = model.parameters();
        let optimizer: Box<dyn Optimizer> = match method {
            Method::Sgd => Box::new(Sgd::new(params, 0.01)),
            Method::Adadelta => Box::new(Adadelta::new(params, 1.0)),
            Method::Adam => Box::new(Adam::new(params, 1e-3)),
        };
        Training { net, model, optimizer, x, target }
    }

    /// Forward, loss, backward, optimizer. Returns the loss.
    pub fn step(&mut self) -> Tensor {
        self.optimizer.zero_grad();
        let y = self.model.forward(&self.x);
        let loss = match self.net {
            Net::Mlp => F::cross_entropy(&y, &self.target, Reduction::Mean),
            Net::MnistCnn => F::nll_loss(&y, &self.target, Reduction::Mean),
        };
        loss.backward();
        self.optimizer.step();
        loss.detach()
    }
}
