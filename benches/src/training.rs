//! A step of training, with everything it takes.

use crate::models::Net;
use serde::Serialize;
use sinter::nn::functional::{self as F, Reduction};
use sinter::nn::{Layer, StateDict, StateError};
use sinter::optim::{Adadelta, Adam, Optimizer, Sgd};
use sinter::{CompiledStep, Tensor, compile_step, randint, zeros};
use sinter_runtime::Array;
use sinter_runtime::program::{Port, Step};

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

type Model = Box<dyn Layer + Send + Sync>;

/// A model in training on one batch.
pub struct Training {
    net: Net,
    model: Model,
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

    fn of(net: Net, model: Model, method: Method, x: Tensor, target: Tensor) -> Training {
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
        let loss = loss(self.net, &y, &self.target);
        loss.backward();
        self.optimizer.step();
        loss.detach()
    }

    /// The model's weights.
    pub fn weights(&self) -> StateDict {
        self.model.state_dict()
    }

    /// Calls `f` with the same step as a compiled program.
    pub fn compiled<R>(&mut self, f: impl FnOnce(&mut dyn Compiled) -> R) -> R {
        let net = self.net;
        let step = compile_step(&self.model, &mut *self.optimizer, move |m: &Model, batch| {
            loss(net, &m.forward(&batch[0]), &batch[1])
        });
        f(&mut OnBatch { step, batch: [self.x.clone(), self.target.clone()] })
    }
}

fn loss(net: Net, y: &Tensor, target: &Tensor) -> Tensor {
    match net {
        Net::Mlp => F::cross_entropy(y, target, Reduction::Mean),
        Net::MnistCnn => F::nll_loss(y, target, Reduction::Mean),
    }
}

/// A compiled step of training on one batch.
pub trait Compiled {
    /// Runs it. Returns the loss.
    ///
    /// # Panics
    /// If the step is not compiled.
    fn step(&mut self) -> Tensor;

    /// Nanoseconds of each step of the program, the longest first, with what it does.
    fn profile(&mut self) -> Vec<(f64, String)>;
}

struct OnBatch<'a, F> {
    step: CompiledStep<'a, Model, dyn Optimizer, F>,
    batch: [Tensor; 2],
}

impl<F: Fn(&Model, &[Tensor]) -> Tensor> Compiled for OnBatch<'_, F> {
    fn step(&mut self) -> Tensor {
        let loss = self.step.run(&self.batch).unwrap_or_else(|e| panic!("{e}"));
        assert_eq!(self.step.why_eager(), None);
        loss
    }

    fn profile(&mut self) -> Vec<(f64, String)> {
        self.step();
        let program = self.step.program().expect("a step was made");
        let array = |p: &Port| {
            let t = p.ty.eval(&[]).expect("batches have a size");
            zeros(t.shape.as_slice()).to_dtype(t.dtype).array().clone()
        };
        let inputs: Vec<Array> = program.program().inputs.iter().map(array).collect();
        let outputs: Vec<Array> = program.program().outputs.iter().map(array).collect();
        let (x, y): (Vec<&Array>, Vec<&Array>) =
            (inputs.iter().collect(), outputs.iter().collect());
        let mut best: Vec<f64> = vec![];
        for _ in 0..10 {
            let times = program.profile(&x, &y).expect("the program runs");
            best.resize(times.len(), f64::INFINITY);
            best.iter_mut().zip(times).for_each(|(b, t)| *b = b.min(t.as_secs_f64() * 1e9));
        }
        let name = |s: &Step| match s {
            Step::Generated { name } => name.clone(),
            Step::Contract { op, result, hook, .. } => {
                format!("{} {:?}{}", op.name(), result.shape, if *hook { " + code" } else { "" })
            }
            Step::Library { op, results, .. } | Step::Sequence { op, results, .. } => {
                format!("{} {:?}", op.name(), results[0].shape)
            }
        };
        let names = program.program().steps.iter().map(name);
        let mut out: Vec<(f64, String)> = best.into_iter().zip(names).collect();
        out.sort_by(|a, b| b.0.total_cmp(&a.0));
        out
    }
}
