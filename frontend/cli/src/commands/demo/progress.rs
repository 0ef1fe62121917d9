//! Progress of training: a bar on a terminal, lines elsewhere.

use indicatif::{HumanDuration, ProgressBar, ProgressStyle};
use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// The numbers shown are means over so many steps.
const WINDOW: usize = 50;
/// Lines in an epoch where there is no terminal.
const LINES: u64 = 10;

/// Shows loss, accuracy, speed and the time left.
pub struct Progress {
    bar: ProgressBar,
    epochs: u64,
    steps_per_epoch: u64,
    start: Instant,
    done: u64,
    images: usize,
    recent: VecDeque<(f32, f32)>,
}

impl Progress {
    /// Starts at `step` of `epochs * steps_per_epoch`.
    pub fn new(epochs: u64, steps_per_epoch: u64, step: u64) -> Progress {
        let bar = ProgressBar::new(epochs * steps_per_epoch);
        let style = ProgressStyle::with_template(
            "{prefix} {bar:30.cyan/blue} {pos:>5}/{len} {msg}, {eta} left",
        )
        .expect("the template is valid")
        .progress_chars("━╸─");
        bar.set_style(style);
        bar.set_position(step);
        bar.reset_eta();
        Progress {
            bar,
            epochs,
            steps_per_epoch,
            start: Instant::now(),
            done: 0,
            images: 0,
            recent: VecDeque::new(),
        }
    }

    /// Takes note of a step that is done: its number from 1, and what it gave.
    pub fn step(&mut self, step: u64, images: usize, loss: f32, accuracy: f32) {
        self.done += 1;
        self.images += images;
        if self.recent.len() == WINDOW {
            self.recent.pop_front();
        }
        self.recent.push_back((loss, accuracy));
        let n = self.recent.len() as f32;
        let loss: f32 = self.recent.iter().map(|r| r.0).sum::<f32>() / n;
        let accuracy: f32 = self.recent.iter().map(|r| r.1).sum::<f32>() / n;
        let seconds = self.start.elapsed().as_secs_f64();
        let rate = self.images as f64 / seconds.max(1e-9);
        let message =
            format!("loss {loss:.4}, accuracy {:.2} %, {rate:.0} images/s", accuracy * 100.0);
        let epoch = (step - 1) / self.steps_per_epoch + 1;
        let prefix = format!("epoch {epoch}/{}", self.epochs);
        if self.bar.is_hidden() {
            let at = (step - 1) % self.steps_per_epoch + 1;
            let line = |s: u64| s * LINES / self.steps_per_epoch;
            if line(at) > line(at - 1) {
                let total = self.epochs * self.steps_per_epoch;
                let left = seconds / self.done as f64 * (total - step) as f64;
                let left = HumanDuration(Duration::from_secs_f64(left));
                println!("{prefix}, step {at}/{}: {message}, {left} left", self.steps_per_epoch);
            }
        } else {
            self.bar.set_prefix(prefix);
            self.bar.set_message(message);
            self.bar.set_position(step);
        }
    }

    /// Prints a line above the bar.
    pub fn line(&self, text: &str) {
        self.bar.suspend(|| println!("{text}"));
    }

    /// Takes the bar away.
    pub fn finish(&self) {
        self.bar.finish_and_clear();
    }
}
