//! Training, define-by-run.

use super::checkpoint;
use super::data::Data;
use super::interrupt::{Guard, Interrupted};
use super::progress::Progress;
use anyhow::bail;
use serde::{Deserialize, Serialize};
use sinter::data::{DataLoader, Dataset, LoaderOptions, Mnist};
use sinter::nn::functional::{self as F, Reduction};
use sinter::nn::{Layer, Module};
use sinter::optim::{Adadelta, LrScheduler, OneCycle, Optimizer, Schedule};
use sinter::{Tensor, cat, no_grad};
use sinter_models::MnistCnn;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

/// What a run's numbers depend on, beside the data.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settings {
    /// Passes over the training images.
    pub epochs: u64,
    /// Images in a step.
    pub batch_size: usize,
    /// Initial weights, order of images, dropout.
    pub seed: u64,
}

/// What the test images gave.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Test {
    /// Mean negative log-likelihood.
    pub loss: f64,
    /// Fraction classified rightly.
    pub accuracy: f64,
}

/// How training went.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct History {
    /// Loss of each step.
    pub loss: Vec<f32>,
    /// Accuracy of each step, on its own batch, under dropout.
    pub accuracy: Vec<f32>,
    /// Test after each epoch.
    pub tests: Vec<Test>,
    /// Time spent.
    pub seconds: f64,
}

/// Images in a batch of an evaluation.
pub const EVAL_BATCH: usize = 250;

/// The highest learning rate. Up to it and down to 0 in one cycle, one epoch of MNIST
/// ends with 98.6 to 98.8 % of the test images right, by the seed; staying at
/// Adadelta's usual 1, with some tenths of a percent less.
const RATE: f64 = 4.0;

/// A training run: between steps, everything that the next depends on.
pub struct Trainer {
    pub settings: Settings,
    pub net: MnistCnn,
    pub optimizer: Adadelta,
    pub schedule: LrScheduler<OneCycle>,
    pub history: History,
    /// Steps done.
    pub step: u64,
    loader: DataLoader<Arc<Mnist>>,
}

impl Trainer {
    /// A new run.
    pub fn new(settings: Settings, data: &Data) -> Trainer {
        sinter::manual_seed(settings.seed);
        let net = MnistCnn::with_size(data.size(), data.classes(), true);
        let options = LoaderOptions {
            batch_size: settings.batch_size,
            shuffle: Some(settings.seed),
            workers: 1,
            ..Default::default()
        };
        let loader = DataLoader::new(data.train.clone(), options);
        let optimizer = Adadelta::new(net.parameters(), RATE);
        let steps = settings.epochs * loader.len() as u64;
        let schedule = OneCycle { steps, warmup: steps * 3 / 10 };
        let schedule = LrScheduler::new(&optimizer, schedule);
        Trainer { settings, net, optimizer, schedule, history: History::default(), step: 0, loader }
    }

    /// Steps in an epoch.
    pub fn steps_per_epoch(&self) -> u64 {
        self.loader.len() as u64
    }

    /// The learning rate of every step so far.
    pub fn rates(&self) -> Vec<f64> {
        (0..self.step).map(|n| RATE * self.schedule.schedule().factor(n)).collect()
    }

    /// Trains to the end. A checkpoint is written after every epoch, and when Ctrl-C
    /// breaks training off.
    pub fn run(&mut self, test: &Mnist, fingerprint: u32, file: &Path) -> anyhow::Result<()> {
        let guard = Guard::new();
        let per_epoch = self.steps_per_epoch();
        let mut progress = Progress::new(self.settings.epochs, per_epoch, self.step);
        for epoch in self.step / per_epoch..self.settings.epochs {
            let start = Instant::now();
            let before = self.history.seconds;
            self.net.train(true);
            let batches = self.loader.epoch_from(epoch, (self.step % per_epoch) as usize);
            for (x, y) in batches {
                if guard.asked() {
                    progress.finish();
                    checkpoint::save(self, fingerprint, file)?;
                    return Err(interrupted(file));
                }
                let (loss, accuracy) = self.train_step(&x, &y);
                if !loss.is_finite() {
                    bail!("training diverged: the loss at step {} is {loss}", self.step);
                }
                self.history.seconds = before + start.elapsed().as_secs_f64();
                self.history.loss.push(loss);
                self.history.accuracy.push(accuracy);
                progress.step(self.step, y.numel(), loss, accuracy);
            }
            let t = score(&classify(&self.net, test), test);
            self.history.tests.push(t);
            let done = self.history.loss.len();
            let last = &self.history.loss[done - (per_epoch as usize).min(done)..];
            progress.line(&format!(
                "epoch {}/{}: training loss {:.4}; test loss {:.4}, test accuracy {:.2} %; {:.1} s",
                epoch + 1,
                self.settings.epochs,
                last.iter().sum::<f32>() / last.len() as f32,
                t.loss,
                t.accuracy * 100.0,
                start.elapsed().as_secs_f64(),
            ));
            checkpoint::save(self, fingerprint, file)?;
            if guard.asked() {
                progress.finish();
                return Err(interrupted(file));
            }
        }
        progress.finish();
        Ok(())
    }

    /// One step: loss and accuracy of the batch, before the weights changed.
    fn train_step(&mut self, x: &Tensor, y: &Tensor) -> (f32, f32) {
        self.optimizer.zero_grad();
        let log_probs = self.net.forward(x);
        let loss = F::nll_loss(&log_probs, y, Reduction::Mean);
        loss.backward();
        self.optimizer.step();
        self.schedule.step(&mut self.optimizer);
        self.step += 1;
        (loss.item(), F::accuracy(&log_probs, y) as f32)
    }
}

fn interrupted(file: &Path) -> anyhow::Error {
    let text = format!(
        "interrupted; everything is in {}: the same command with --resume goes on from there",
        file.display()
    );
    Interrupted(text).into()
}

/// Ranges of at most `size` that make up `0..n`.
pub fn batches(n: usize, size: usize) -> impl Iterator<Item = Range<usize>> {
    (0..n).step_by(size).map(move |i| i..(i + size).min(n))
}

/// Log-probabilities [N, classes] of all images.
pub fn classify(net: &MnistCnn, images: &Mnist) -> Tensor {
    net.eval();
    no_grad(|| {
        let parts: Vec<Tensor> =
            batches(images.len(), EVAL_BATCH).map(|r| net.forward(&images.images(r))).collect();
        cat(&parts.iter().collect::<Vec<_>>(), 0)
    })
}

/// How good log-probabilities are.
pub fn score(log_probs: &Tensor, images: &Mnist) -> Test {
    no_grad(|| {
        let y = images.labels(0..images.len());
        Test {
            loss: F::nll_loss(log_probs, &y, Reduction::Mean).item(),
            accuracy: F::accuracy(log_probs, &y),
        }
    })
}
