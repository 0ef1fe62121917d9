//! Random numbers of distributions: in place, or of parameters that are tensors.
//! [`distributions`](crate::distributions) has families with densities and gradients.

use super::{Tensor, apply, arange, full_like, rand_like, randn_like, searchsorted};
use crate::random;
use sinter_runtime::op::SampleKind;
use sinter_runtime::{DType, Op, Shape};

/// Uniform numbers on (0, 1) in the shape and type of another tensor.
#[track_caller]
fn open_uniform(like: &Tensor) -> Tensor {
    let tiny = if like.dtype() == DType::F64 { 2f64.powi(-54) } else { 2f64.powi(-25) };
    rand_like(&like.detach()).maximum(tiny)
}

#[track_caller]
fn check_float(op: &str, x: &Tensor) {
    if !x.dtype().is_float() {
        panic!(
            "{op}: needs a floating-point tensor, got {}; convert it with `to_dtype`",
            x.dtype()
        );
    }
}

impl Tensor {
    /// Fills with waiting times of a rate: `-ln(u) / rate`.
    ///
    /// # Panics
    /// If the rate is not positive, or the tensor not floating point.
    #[track_caller]
    pub fn exponential_(&self, rate: f64) -> &Tensor {
        check_float("exponential_", self);
        if rate.is_nan() || rate <= 0.0 {
            panic!("exponential_: the rate {rate} must be positive");
        }
        self.copy_(&(open_uniform(self).ln() * (-1.0 / rate)))
    }

    /// Fills with numbers of the Cauchy distribution.
    ///
    /// # Panics
    /// If `sigma` is not positive, or the tensor not floating point.
    #[track_caller]
    pub fn cauchy_(&self, median: f64, sigma: f64) -> &Tensor {
        check_float("cauchy_", self);
        if sigma.is_nan() || sigma <= 0.0 {
            panic!("cauchy_: sigma = {sigma} must be positive");
        }
        let turn = (open_uniform(self) - 0.5) * std::f64::consts::PI;
        self.copy_(&(turn.tan() * sigma + median))
    }

    /// Fills with how many trials a success takes, 1, 2, …, of probability `p`.
    ///
    /// # Panics
    /// If `p` is not in (0, 1).
    #[track_caller]
    pub fn geometric_(&self, p: f64) -> &Tensor {
        if p.is_nan() || p <= 0.0 || p >= 1.0 {
            panic!("geometric_: p = {p} must be between 0 and 1");
        }
        let like = if self.dtype().is_float() { self.clone() } else { self.to_dtype(DType::F64) };
        self.copy_(&(open_uniform(&like).ln() * (1.0 / (-p).ln_1p())).ceil())
    }

    /// Fills with exponentials of normal numbers of that mean and standard deviation.
    ///
    /// # Panics
    /// If `std` is not positive, or the tensor not floating point.
    #[track_caller]
    pub fn log_normal_(&self, mean: f64, std: f64) -> &Tensor {
        check_float("log_normal_", self);
        if std.is_nan() || std <= 0.0 {
            panic!("log_normal_: std = {std} must be positive");
        }
        self.copy_(&(randn_like(&self.detach()) * std + mean).exp())
    }

    /// For each element a number of the Poisson distribution of this rate.
    ///
    /// ```
    /// let n = sinter::full([1000], 4.0, sinter::DType::F32).poisson();
    /// assert!((n.mean().item::<f32>() - 4.0).abs() < 0.5);
    /// ```
    ///
    /// # Panics
    /// If the tensor is not floating point.
    #[track_caller]
    pub fn poisson(&self) -> Tensor {
        check_float("poisson", self);
        self.drawn(SampleKind::Poisson, &[])
    }

    /// For each element a number of the gamma distribution of rate one and this shape. Without
    /// gradient; see [`Gamma`](crate::distributions::Gamma).
    ///
    /// # Panics
    /// If the tensor is not floating point.
    #[track_caller]
    pub fn standard_gamma(&self) -> Tensor {
        check_float("standard_gamma", self);
        self.drawn(SampleKind::Gamma, &[])
    }

    /// For each element, a number of trials, how many of them succeed with the probability in
    /// `p`, which has the same shape and type.
    ///
    /// # Panics
    /// If the tensors differ in shape or type, or are not floating point.
    #[track_caller]
    pub fn binomial(&self, p: &Tensor) -> Tensor {
        check_float("binomial", self);
        self.drawn(SampleKind::Binomial, &[p])
    }

    #[track_caller]
    fn drawn(&self, kind: SampleKind, more: &[&Tensor]) -> Tensor {
        let (seed, offset) = random::reserve(self.numel());
        let first = self.detach();
        let more: Vec<Tensor> = more.iter().map(|t| t.detach()).collect();
        let params: Vec<&Tensor> = std::iter::once(&first).chain(&more).collect();
        apply(Op::Sample { kind, seed, offset }, &params)
    }

    /// Indices drawn by weight: of weights [.., k], which need not sum to one, `n` indices
    /// [.., n], as i64. Without `replacement` no index comes twice; they are drawn one after
    /// the other by the remaining weights (Efraimidis & Spirakis 2006).
    ///
    /// # Panics
    /// If a weight is negative or not finite, all are zero, or there are fewer than `n`
    /// positive ones to draw without replacement.
    #[track_caller]
    pub fn multinomial(&self, n: usize, replacement: bool) -> Tensor {
        check_float("multinomial", self);
        if self.rank() == 0 {
            panic!("multinomial: needs weights, the shape is []");
        }
        let w = self.detach().to_dtype(DType::F64);
        let mut shape: Shape = w.shape().into();
        let k = w.size(-1);
        *shape.last_mut().expect("there is a dimension") = n;
        if w.numel() == 0 && k > 0 || n == 0 {
            return super::full(shape, 0, DType::I64);
        }
        let good = w.ge(0.0).logical_and(&w.isfinite());
        if !good.all().item_scalar().as_bool() {
            panic!("multinomial: a weight is negative, infinite or NaN");
        }
        let positive = w.gt(0.0).sum_dim(-1, false).min().item::<i64>();
        if positive < if replacement { 1 } else { n as i64 } {
            panic!(
                "multinomial: {n} draws from {positive} positive weight(s) of {k} {} replacement",
                if replacement { "with" } else { "without" }
            );
        }
        if !replacement {
            // The first to ring of bells that ring at these rates.
            let rates = &w / open_uniform(&w).ln().neg();
            return rates.topk(n, -1, true).1;
        }
        let sums = w.cumsum(-1);
        let total = sums.narrow(-1, k - 1, 1);
        let at = rand_like(&full_like(&total, 0.0).broadcast_to(shape)) * &total;
        // Rounding must not lead beyond the last positive weight.
        let last = w.gt(0.0).to_dtype(DType::I64) * arange(0i64, k as i64, 1i64);
        searchsorted(&sums, &at, true).minimum(last.amax(-1, true))
    }
}

/// Normal numbers of means and standard deviations that are tensors and broadcast.
#[track_caller]
pub fn normal(mean: &Tensor, std: &Tensor) -> Tensor {
    check_float("normal", mean);
    let spread = (mean + std).detach();
    mean + std * randn_like(&spread)
}
