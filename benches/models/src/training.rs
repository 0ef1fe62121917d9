//! A step of training, with everything it takes.

use crate::{EncoderConfig, EncoderLm, LstmClassifier, Mlp, MnistCnn};
use serde::{Deserialize, Serialize};
use sinter::nn::functional::{self as F, Reduction};
use sinter::nn::{Layer, Module, StateDict, StateError};
use sinter::optim::{Adadelta, Adam, AdamW, Optimizer, Sgd};
use sinter::{CompiledStep, RunError, Tensor, compile_step, randint, randn};
use std::fmt;
use std::str::FromStr;
use thiserror::Error;

/// A name that means nothing here, and those that do.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("`{name}` is none of {known}")]
pub struct UnknownName {
    /// The name.
    pub name: String,
    /// Names there are.
    pub known: String,
}

/// Names of the variants of an enum: `Display`, `FromStr`, and the list.
macro_rules! named {
    ($t:ident { $($variant:ident = $name:literal,)* }) => {
        impl fmt::Display for $t {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(match self { $($t::$variant => $name,)* })
            }
        }
        impl FromStr for $t {
            type Err = UnknownName;
            fn from_str(name: &str) -> Result<$t, UnknownName> {
                match name {
                    $($name => Ok($t::$variant),)*
                    _ => {
                        let known = [$($name),*].join(", ");
                        Err(UnknownName { name: name.to_string(), known })
                    }
                }
            }
        }
    };
}

/// A model that is trained, by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Net {
    /// [`Mlp`]
    Mlp,
    /// [`MnistCnn`]
    #[serde(alias = "mnist")]
    MnistCnn,
    /// [`EncoderLm`]
    #[serde(alias = "enc")]
    Encoder,
    /// [`LstmClassifier`]
    Lstm,
}

named!(Net { Mlp = "mlp", MnistCnn = "mnist_cnn", Encoder = "encoder", Lstm = "lstm", });

impl Net {
    /// The model with random weights; `dropout` where it has any.
    pub fn build(self, dropout: bool) -> Box<dyn Layer + Send + Sync> {
        match self {
            Net::Mlp => Box::new(Mlp::new()),
            Net::MnistCnn => Box::new(MnistCnn::new(dropout)),
            Net::Encoder => Box::new(EncoderLm::new(&EncoderConfig::SMALL)),
            Net::Lstm => Box::new(LstmClassifier::new(256, 256, 10)),
        }
    }

    /// A random input.
    pub fn input(self, batch: usize) -> Tensor {
        match self {
            Net::Mlp => randn([batch, 784]),
            Net::MnistCnn => randn([batch, 1, 28, 28]),
            Net::Encoder => randint(0, 1000, [batch, 128]),
            Net::Lstm => randn([batch, 64, 256]),
        }
    }

    /// Random classes to learn.
    fn target(self, batch: usize) -> Tensor {
        match self {
            Net::Encoder => randint(0, 1000, [batch, 128]),
            _ => randint(0, 10, [batch]),
        }
    }

    /// How far `y` is from `target`.
    fn loss(self, y: &Tensor, target: &Tensor) -> Tensor {
        match self {
            Net::MnistCnn => F::nll_loss(y, target, Reduction::Mean),
            Net::Encoder => {
                F::cross_entropy(&y.flatten(0, 1), &target.flatten(0, 1), Reduction::Mean)
            }
            _ => F::cross_entropy(y, target, Reduction::Mean),
        }
    }
}

/// An optimizer by name, with PyTorch's defaults.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Method {
    /// Plain gradient descent.
    Sgd,
    /// Adadelta.
    Adadelta,
    /// Adam.
    Adam,
    /// Adam with weight decay taken off the parameters.
    AdamW,
}

named!(Method { Sgd = "sgd", Adadelta = "adadelta", Adam = "adam", AdamW = "adamw", });

impl Method {
    /// The learning rate that is measured with where none is given.
    pub fn rate(self) -> f64 {
        match self {
            Method::Sgd => 0.01,
            Method::Adadelta => 1.0,
            Method::Adam | Method::AdamW => 1e-3,
        }
    }
}

/// What is trained, and how.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Task {
    /// The model.
    pub net: Net,
    /// Whether it drops out what it can.
    #[serde(rename = "drop")]
    pub dropout: bool,
    /// The optimizer.
    #[serde(rename = "opt")]
    pub method: Method,
    /// Its learning rate.
    pub lr: f64,
}

impl Task {
    /// With the rate of the method.
    pub fn new(net: Net, method: Method, dropout: bool) -> Task {
        Task { net, method, dropout, lr: method.rate() }
    }
}

type Trained = Box<dyn Layer + Send + Sync>;

/// A model in training on one batch.
pub struct Training {
    net: Net,
    model: Trained,
    optimizer: Box<dyn Optimizer>,
    x: Tensor,
    target: Tensor,
}

impl Training {
    /// Random weights and a random batch.
    pub fn random(task: &Task, batch: usize) -> Training {
        let model = task.net.build(task.dropout);
        Training::of(task, model, task.net.input(batch), task.net.target(batch))
    }

    /// These weights, this batch.
    ///
    /// # Errors
    /// When the weights are not those of the model.
    pub fn with(
        task: &Task,
        weights: &StateDict,
        (x, target): (Tensor, Tensor),
    ) -> Result<Training, StateError> {
        let model = task.net.build(task.dropout);
        model.load_state_dict(weights, true)?;
        Ok(Training::of(task, model, x, target))
    }

    fn of(task: &Task, model: Trained, x: Tensor, target: Tensor) -> Training {
        let (params, lr) = (model.parameters(), task.lr);
        let optimizer: Box<dyn Optimizer> = match task.method {
            Method::Sgd => Box::new(Sgd::new(params, lr)),
            Method::Adadelta => Box::new(Adadelta::new(params, lr)),
            Method::Adam => Box::new(Adam::new(params, lr)),
            Method::AdamW => Box::new(AdamW::new(params, lr)),
        };
        Training { net: task.net, model, optimizer, x, target }
    }

    /// Forward, loss, backward, optimizer. Returns the loss.
    #[track_caller]
    pub fn step(&mut self) -> Tensor {
        self.optimizer.zero_grad();
        let loss = self.net.loss(&self.model.forward(&self.x), &self.target);
        loss.backward();
        self.optimizer.step();
        loss.detach()
    }

    /// The model's weights.
    pub fn weights(&self) -> StateDict {
        self.model.state_dict()
    }

    /// Calls `f` with the same step as a compiled program, fused or one kernel an op.
    pub fn compiled<R>(&mut self, fusion: bool, f: impl FnOnce(&mut dyn Compiled) -> R) -> R {
        let net = self.net;
        let step = compile_step(&self.model, &mut *self.optimizer, move |m: &Trained, batch| {
            net.loss(&m.forward(&batch[0]), &batch[1])
        });
        let batch = [self.x.clone(), self.target.clone()];
        f(&mut OnBatch { step: step.fusion(fusion), batch })
    }
}

/// A compiled step of training on one batch.
pub trait Compiled {
    /// Runs it, and compiles it before if it has not run yet. Returns the loss.
    ///
    /// # Errors
    /// When the program fails.
    fn step(&mut self) -> Result<Tensor, RunError>;

    /// Why it runs eagerly, if it does.
    fn why_eager(&self) -> Option<&str>;

    /// The program, and what compiling did; nothing before the first step.
    fn program(&self) -> Option<(&sinter_runtime::program::Model, &sinter_compiler::Compiled)>;
}

struct OnBatch<'a, F> {
    step: CompiledStep<'a, Trained, dyn Optimizer, F>,
    batch: [Tensor; 2],
}

impl<F: Fn(&Trained, &[Tensor]) -> Tensor> Compiled for OnBatch<'_, F> {
    #[track_caller]
    fn step(&mut self) -> Result<Tensor, RunError> {
        self.step.run(&self.batch)
    }

    fn why_eager(&self) -> Option<&str> {
        self.step.why_eager()
    }

    fn program(&self) -> Option<(&sinter_runtime::program::Model, &sinter_compiler::Compiled)> {
        self.step.program().zip(self.step.compiled())
    }
}
