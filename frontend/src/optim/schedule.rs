//! Learning rates that change as training goes on.

use super::Optimizer;

/// A factor of the initial learning rate for each step.
pub trait Schedule {
    /// The factor at step `n`, counted from 0.
    fn factor(&self, n: u64) -> f64;
}

/// Always 1.
#[derive(Clone, Copy, Debug, Default)]
pub struct ConstantLr;

impl Schedule for ConstantLr {
    fn factor(&self, _: u64) -> f64 {
        1.0
    }
}

/// Multiplied by `gamma` every `size` steps.
#[derive(Clone, Copy, Debug)]
pub struct StepLr {
    /// Steps between changes.
    pub size: u64,
    /// The factor.
    pub gamma: f64,
}

impl Schedule for StepLr {
    fn factor(&self, n: u64) -> f64 {
        self.gamma.powf((n / self.size.max(1)) as f64)
    }
}

/// Multiplied by `gamma` at each milestone.
#[derive(Clone, Debug)]
pub struct MultiStep {
    /// Steps at which the rate changes.
    pub milestones: Vec<u64>,
    /// The factor.
    pub gamma: f64,
}

impl Schedule for MultiStep {
    fn factor(&self, n: u64) -> f64 {
        self.gamma.powf(self.milestones.iter().filter(|&&m| n >= m).count() as f64)
    }
}

/// Multiplied by `gamma` every step.
#[derive(Clone, Copy, Debug)]
pub struct Exponential {
    /// The factor.
    pub gamma: f64,
}

impl Schedule for Exponential {
    fn factor(&self, n: u64) -> f64 {
        self.gamma.powf(n as f64)
    }
}

/// Half a cosine from 1 down to `floor` over `steps` (Loshchilov and Hutter, 2017).
#[derive(Clone, Copy, Debug)]
pub struct CosineAnnealing {
    /// Steps to the bottom.
    pub steps: u64,
    /// The factor at the bottom.
    pub floor: f64,
}

impl Schedule for CosineAnnealing {
    fn factor(&self, n: u64) -> f64 {
        let t = n.min(self.steps) as f64 / self.steps.max(1) as f64;
        self.floor + (1.0 - self.floor) * 0.5 * (1.0 + (std::f64::consts::PI * t).cos())
    }
}

/// Up along a line from a tenth to 1 over the first `warmup` of `steps`, then half a
/// cosine down to 0 (after Smith and Topin, 2018).
#[derive(Clone, Copy, Debug)]
pub struct OneCycle {
    /// Steps to the end.
    pub steps: u64,
    /// Steps to the top.
    pub warmup: u64,
}

impl Schedule for OneCycle {
    fn factor(&self, n: u64) -> f64 {
        if n < self.warmup {
            return 0.1 + 0.9 * n as f64 / self.warmup as f64;
        }
        let steps = self.steps.saturating_sub(self.warmup);
        CosineAnnealing { steps, floor: 0.0 }.factor(n - self.warmup)
    }
}

/// Any function of the step.
pub struct LambdaLr<F: Fn(u64) -> f64>(pub F);

impl<F: Fn(u64) -> f64> Schedule for LambdaLr<F> {
    fn factor(&self, n: u64) -> f64 {
        (self.0)(n)
    }
}

/// Applies a schedule to an optimizer.
///
/// ```
/// use sinter::optim::{LrScheduler, Optimizer, Sgd, StepLr};
/// let mut opt = Sgd::new(vec![], 1.0);
/// let mut s = LrScheduler::new(&opt, StepLr { size: 2, gamma: 0.1 });
/// let mut seen = vec![];
/// for _ in 0..4 {
///     seen.push(opt.lrs()[0]);
///     s.step(&mut opt);
/// }
/// assert_eq!(seen, [1.0, 1.0, 0.1, 0.1]);
/// ```
#[derive(Clone, Debug)]
pub struct LrScheduler<S> {
    schedule: S,
    base: Vec<f64>,
    step: u64,
}

impl<S: Schedule> LrScheduler<S> {
    /// Starts from the optimizer's learning rates.
    pub fn new(optimizer: &dyn Optimizer, schedule: S) -> LrScheduler<S> {
        LrScheduler { schedule, base: optimizer.lrs(), step: 0 }
    }

    /// Steps taken.
    pub fn steps(&self) -> u64 {
        self.step
    }

    /// The schedule.
    pub fn schedule(&self) -> &S {
        &self.schedule
    }

    /// Takes one step: the optimizer's rates become those of the next.
    pub fn step(&mut self, optimizer: &mut dyn Optimizer) {
        self.seek(self.step + 1, optimizer);
    }

    /// Goes to a step: where training was broken off.
    pub fn seek(&mut self, step: u64, optimizer: &mut dyn Optimizer) {
        self.step = step;
        let f = self.schedule.factor(step);
        let lrs: Vec<f64> = self.base.iter().map(|b| b * f).collect();
        optimizer.set_lrs(&lrs);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shapes_of_schedules() {
        let c = CosineAnnealing { steps: 10, floor: 0.1 };
        assert_eq!(c.factor(0), 1.0);
        assert!((c.factor(5) - 0.55).abs() < 1e-12);
        assert!((c.factor(10) - 0.1).abs() < 1e-12);
        assert!((c.factor(99) - 0.1).abs() < 1e-12);
        let o = OneCycle { steps: 110, warmup: 10 };
        assert_eq!([0, 5, 10, 60, 110].map(|n| o.factor(n)), [0.1, 0.55, 1.0, 0.5, 0.0]);
        let m = MultiStep { milestones: vec![2, 4], gamma: 0.5 };
        assert_eq!([0, 2, 3, 4].map(|n| m.factor(n)), [1.0, 0.5, 0.5, 0.25]);
        assert_eq!(Exponential { gamma: 0.5 }.factor(3), 0.125);
        assert_eq!(LambdaLr(|n| n as f64).factor(7), 7.0);
    }
}
