//! Distributions of counts and classes.

use super::{
    Distribution, Param, draw, drawn, lgamma, no_rsample, one, positive, require, supported, two,
    uniform, xlogy,
};
use crate::tensor::Tensor;
use sinter_runtime::op::SampleKind;
use sinter_runtime::{DType, Shape};

#[track_caller]
fn probability(op: &str, p: &Tensor) {
    require(op, "probs", "between 0 and 1", p, |p| p.ge(0.0).logical_and(&p.le(1.0)));
}

/// The two ways to say how probable something is.
#[track_caller]
fn logits_of(probs: &Tensor) -> Tensor {
    // Kept from 0 and 1 by half the precision, as PyTorch does.
    let eps = if probs.dtype() == DType::F64 { f64::EPSILON } else { f32::EPSILON.into() };
    let p = probs.clamp(eps, 1.0 - eps);
    p.ln() - p.neg().log1p()
}

/// 1 with a probability, else 0.
#[derive(Clone)]
pub struct Bernoulli {
    /// The probability of 1.
    pub probs: Tensor,
    /// `ln (p / (1 - p))`
    pub logits: Tensor,
}

impl Bernoulli {
    /// The distribution of a probability.
    ///
    /// # Panics
    /// If it is none.
    #[track_caller]
    pub fn new(probs: impl Param) -> Bernoulli {
        let probs = one(probs);
        probability("Bernoulli", &probs);
        let logits = logits_of(&probs);
        Bernoulli { probs, logits }
    }

    /// The distribution of `ln (p / (1 - p))`.
    #[track_caller]
    pub fn from_logits(logits: impl Param) -> Bernoulli {
        let logits = one(logits);
        let probs = logits.sigmoid();
        Bernoulli { probs, logits }
    }
}

impl Distribution for Bernoulli {
    fn batch_shape(&self) -> &[usize] {
        self.probs.shape()
    }
    #[track_caller]
    fn sample(&self, shape: &[usize]) -> Tensor {
        crate::no_grad(|| uniform(shape, &self.probs).lt(&self.probs).to_dtype(self.probs.dtype()))
    }
    #[track_caller]
    fn rsample(&self, _: &[usize]) -> Tensor {
        no_rsample("Bernoulli")
    }
    fn has_rsample(&self) -> bool {
        false
    }
    #[track_caller]
    fn log_prob(&self, value: &Tensor) -> Tensor {
        value * &self.logits - self.logits.softplus()
    }
    fn mean(&self) -> Tensor {
        self.probs.clone()
    }
    fn variance(&self) -> Tensor {
        &self.probs * (1.0 - &self.probs)
    }
    fn entropy(&self) -> Tensor {
        self.logits.softplus() - &self.logits * &self.probs
    }
}

/// How often something failed before it succeeded.
#[derive(Clone)]
pub struct Geometric(Bernoulli);

impl Geometric {
    /// The distribution of a probability of success.
    ///
    /// # Panics
    /// If it is not in (0, 1].
    #[track_caller]
    pub fn new(probs: impl Param) -> Geometric {
        let probs = one(probs);
        positive("Geometric", "probs", &probs);
        Geometric(Bernoulli::new(probs))
    }

    pub(super) fn trial(&self) -> &Bernoulli {
        &self.0
    }
}

impl Distribution for Geometric {
    fn batch_shape(&self) -> &[usize] {
        self.0.batch_shape()
    }
    #[track_caller]
    fn sample(&self, shape: &[usize]) -> Tensor {
        crate::no_grad(|| {
            let p = &self.0.probs;
            (uniform(shape, p).ln() / p.neg().log1p()).floor()
        })
    }
    #[track_caller]
    fn rsample(&self, _: &[usize]) -> Tensor {
        no_rsample("Geometric")
    }
    fn has_rsample(&self) -> bool {
        false
    }
    #[track_caller]
    fn log_prob(&self, value: &Tensor) -> Tensor {
        let p = &self.0.probs;
        supported(&value.ge(0.0), &(xlogy(value, &(1.0 - p)) + p.ln()))
    }
    fn mean(&self) -> Tensor {
        self.0.probs.reciprocal() - 1.0
    }
    fn variance(&self) -> Tensor {
        let p = &self.0.probs;
        (p.reciprocal() - 1.0) / p
    }
    fn entropy(&self) -> Tensor {
        self.0.entropy() / &self.0.probs
    }
}

/// How many events happen in a unit of time.
#[derive(Clone)]
pub struct Poisson {
    /// Their mean number.
    pub rate: Tensor,
}

impl Poisson {
    /// The distribution of a rate that is not negative.
    ///
    /// # Panics
    /// If it is negative.
    #[track_caller]
    pub fn new(rate: impl Param) -> Poisson {
        let rate = one(rate);
        require("Poisson", "rate", "not negative", &rate, |r| r.ge(0.0));
        Poisson { rate }
    }
}

impl Distribution for Poisson {
    fn batch_shape(&self) -> &[usize] {
        self.rate.shape()
    }
    #[track_caller]
    fn sample(&self, shape: &[usize]) -> Tensor {
        let full = self.rate.detach().broadcast_to(drawn(shape, self.rate.shape()));
        draw(SampleKind::Poisson, &[&full])
    }
    #[track_caller]
    fn rsample(&self, _: &[usize]) -> Tensor {
        no_rsample("Poisson")
    }
    fn has_rsample(&self) -> bool {
        false
    }
    #[track_caller]
    fn log_prob(&self, value: &Tensor) -> Tensor {
        xlogy(value, &self.rate) - &self.rate - lgamma(&(value + 1.0))
    }
    fn mean(&self) -> Tensor {
        self.rate.clone()
    }
    fn variance(&self) -> Tensor {
        self.rate.clone()
    }
    #[track_caller]
    fn entropy(&self) -> Tensor {
        panic!("Poisson: the entropy has no closed form");
    }
}

/// How often something happens in `total_count` trials.
#[derive(Clone)]
pub struct Binomial {
    /// The number of trials.
    pub total_count: Tensor,
    /// The probability that it happens.
    pub probs: Tensor,
}

impl Binomial {
    /// The distribution of a number of trials and a probability.
    ///
    /// # Panics
    /// If the number is negative or the probability none, or the shapes do not broadcast.
    #[track_caller]
    pub fn new(total_count: impl Param, probs: impl Param) -> Binomial {
        let (total_count, probs) = two("Binomial", total_count, probs);
        require("Binomial", "total_count", "not negative", &total_count, |n| n.ge(0.0));
        probability("Binomial", &probs);
        Binomial { total_count, probs }
    }
}

impl Distribution for Binomial {
    fn batch_shape(&self) -> &[usize] {
        self.probs.shape()
    }
    #[track_caller]
    fn sample(&self, shape: &[usize]) -> Tensor {
        let full = drawn(shape, self.probs.shape());
        let fit = |t: &Tensor| t.detach().broadcast_to(full.as_slice());
        draw(SampleKind::Binomial, &[&fit(&self.total_count), &fit(&self.probs)])
    }
    #[track_caller]
    fn rsample(&self, _: &[usize]) -> Tensor {
        no_rsample("Binomial")
    }
    fn has_rsample(&self) -> bool {
        false
    }
    #[track_caller]
    fn log_prob(&self, value: &Tensor) -> Tensor {
        let (n, p) = (&self.total_count, &self.probs);
        let rest = n - value;
        lgamma(&(n + 1.0)) - lgamma(&(value + 1.0)) - lgamma(&(&rest + 1.0))
            + xlogy(value, p)
            + xlogy(&rest, &(1.0 - p))
    }
    fn mean(&self) -> Tensor {
        &self.total_count * &self.probs
    }
    fn variance(&self) -> Tensor {
        self.mean() * (1.0 - &self.probs)
    }
    /// A sum over all numbers of successes.
    ///
    /// # Panics
    /// If the numbers of trials differ.
    #[track_caller]
    fn entropy(&self) -> Tensor {
        let n = self.total_count.detach();
        let most = n.max().item::<f64>();
        if n.min().item::<f64>() != most {
            panic!("Binomial: the entropy of different numbers of trials, {most} at most");
        }
        let k = crate::tensor::arange(0.0, most + 1.0, 1.0).to_dtype(n.dtype());
        let mut shape: Shape = [most as usize + 1].as_slice().into();
        shape.extend(n.shape().iter().map(|_| 1));
        let log = self.log_prob(&k.reshape(shape));
        (log.exp() * log).sum_dim(0, false).neg()
    }
}

/// One of `k` classes, by its number.
#[derive(Clone)]
pub struct Categorical {
    /// The probabilities [.., k], which sum to one.
    pub probs: Tensor,
    /// Their logarithms.
    pub logits: Tensor,
}

impl Categorical {
    /// The distribution of weights [.., k] that are not negative; they are divided by their
    /// sum.
    ///
    /// # Panics
    /// If a weight is negative, or there is no dimension.
    #[track_caller]
    pub fn new(probs: impl Param) -> Categorical {
        let probs = one(probs);
        if probs.rank() == 0 {
            panic!("Categorical: `probs` must have a dimension of classes");
        }
        require("Categorical", "probs", "not negative", &probs, |p| p.ge(0.0));
        let probs = &probs / probs.sum_dim(-1, true);
        let eps = if probs.dtype() == DType::F64 { f64::EPSILON } else { f32::EPSILON.into() };
        let logits = probs.clamp(eps, 1.0 - eps).ln();
        Categorical { probs, logits }
    }

    /// The distribution of logarithms of weights [.., k].
    ///
    /// # Panics
    /// If there is no dimension.
    #[track_caller]
    pub fn from_logits(logits: impl Param) -> Categorical {
        let logits = one(logits);
        if logits.rank() == 0 {
            panic!("Categorical: `logits` must have a dimension of classes");
        }
        let logits = logits.log_softmax(-1);
        Categorical { probs: logits.exp(), logits }
    }

    fn classes(&self) -> usize {
        self.probs.size(-1)
    }
}

impl Distribution for Categorical {
    fn batch_shape(&self) -> &[usize] {
        &self.probs.shape()[..self.probs.rank() - 1]
    }
    #[track_caller]
    fn sample(&self, shape: &[usize]) -> Tensor {
        crate::no_grad(|| {
            let n: usize = shape.iter().product();
            let draws = self.probs.detach().multinomial(n, true);
            let batch = self.batch_shape();
            // [batch.., n] becomes [shape.., batch..].
            let front = draws.movedim(-1, 0);
            front.reshape(drawn(shape, batch))
        })
    }
    #[track_caller]
    fn rsample(&self, _: &[usize]) -> Tensor {
        no_rsample("Categorical")
    }
    fn has_rsample(&self) -> bool {
        false
    }
    #[track_caller]
    fn log_prob(&self, value: &Tensor) -> Tensor {
        let value = value.to_dtype(DType::I64).unsqueeze(-1);
        let shape = match sinter_runtime::op::broadcast_shapes(
            "Categorical",
            value.shape(),
            self.logits.narrow(-1, 0, 1).shape(),
        ) {
            Ok(s) => s,
            Err(e) => panic!("{e}"),
        };
        let mut full: Shape = shape.as_slice().into();
        *full.last_mut().expect("classes are a dimension") = self.classes();
        self.logits.broadcast_to(full).gather(-1, &value.broadcast_to(shape)).squeeze(-1)
    }
    /// NaN: classes have no mean.
    fn mean(&self) -> Tensor {
        crate::tensor::full_like(&self.probs.select(-1, 0), f64::NAN)
    }
    /// NaN: classes have no variance.
    fn variance(&self) -> Tensor {
        self.mean()
    }
    fn entropy(&self) -> Tensor {
        (xlogy(&self.probs, &self.logits.exp())).sum_dim(-1, false).neg()
    }
}

/// One of `k` classes, as a vector with a one in its place.
#[derive(Clone)]
pub struct OneHotCategorical(pub(super) Categorical);

impl OneHotCategorical {
    /// As [`Categorical::new`].
    ///
    /// # Panics
    /// As [`Categorical::new`].
    #[track_caller]
    pub fn new(probs: impl Param) -> OneHotCategorical {
        OneHotCategorical(Categorical::new(probs))
    }

    /// As [`Categorical::from_logits`].
    ///
    /// # Panics
    /// As [`Categorical::from_logits`].
    #[track_caller]
    pub fn from_logits(logits: impl Param) -> OneHotCategorical {
        OneHotCategorical(Categorical::from_logits(logits))
    }
}

/// Vectors with a one at the place of each class.
fn one_hot(classes: &Tensor, k: usize, dtype: DType) -> Tensor {
    classes.unsqueeze(-1).eq(crate::tensor::arange(0i64, k as i64, 1i64)).to_dtype(dtype)
}

impl Distribution for OneHotCategorical {
    fn batch_shape(&self) -> &[usize] {
        self.0.batch_shape()
    }
    fn event_shape(&self) -> &[usize] {
        &self.0.probs.shape()[self.0.probs.rank() - 1..]
    }
    #[track_caller]
    fn sample(&self, shape: &[usize]) -> Tensor {
        one_hot(&self.0.sample(shape), self.0.classes(), self.0.probs.dtype())
    }
    #[track_caller]
    fn rsample(&self, _: &[usize]) -> Tensor {
        no_rsample("OneHotCategorical")
    }
    fn has_rsample(&self) -> bool {
        false
    }
    #[track_caller]
    fn log_prob(&self, value: &Tensor) -> Tensor {
        self.0.log_prob(&value.argmax_dim(-1, false))
    }
    fn mean(&self) -> Tensor {
        self.0.probs.clone()
    }
    fn variance(&self) -> Tensor {
        &self.0.probs * (1.0 - &self.0.probs)
    }
    fn entropy(&self) -> Tensor {
        self.0.entropy()
    }
}

/// How often each of `k` classes came in a number of trials.
#[derive(Clone)]
pub struct Multinomial {
    /// The number of trials.
    pub total_count: usize,
    classes: Categorical,
}

impl Multinomial {
    /// The distribution of a number of trials and of weights [.., k].
    ///
    /// # Panics
    /// As [`Categorical::new`].
    #[track_caller]
    pub fn new(total_count: usize, probs: impl Param) -> Multinomial {
        Multinomial { total_count, classes: Categorical::new(probs) }
    }
}

impl Distribution for Multinomial {
    fn batch_shape(&self) -> &[usize] {
        self.classes.batch_shape()
    }
    fn event_shape(&self) -> &[usize] {
        &self.classes.probs.shape()[self.classes.probs.rank() - 1..]
    }
    #[track_caller]
    fn sample(&self, shape: &[usize]) -> Tensor {
        let trials: Shape = [self.total_count].iter().chain(shape).copied().collect();
        let classes = self.classes.sample(&trials);
        one_hot(&classes, self.classes.classes(), self.classes.probs.dtype()).sum_dim(0, false)
    }
    #[track_caller]
    fn rsample(&self, _: &[usize]) -> Tensor {
        no_rsample("Multinomial")
    }
    fn has_rsample(&self) -> bool {
        false
    }
    #[track_caller]
    fn log_prob(&self, value: &Tensor) -> Tensor {
        let all = lgamma(&(value.sum_dim(-1, false) + 1.0));
        let each = lgamma(&(value + 1.0)).sum_dim(-1, false);
        all - each + xlogy(value, &self.classes.logits.exp()).sum_dim(-1, false)
    }
    fn mean(&self) -> Tensor {
        &self.classes.probs * self.total_count as f64
    }
    fn variance(&self) -> Tensor {
        self.mean() * (1.0 - &self.classes.probs)
    }
    #[track_caller]
    fn entropy(&self) -> Tensor {
        panic!("Multinomial: the entropy has no closed form");
    }
}
