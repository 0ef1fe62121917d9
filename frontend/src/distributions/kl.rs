//! The Kullback–Leibler divergence of two distributions of one family, and of some others.

use super::{
    Bernoulli, Beta, Binomial, Categorical, Dirichlet, EULER, Exponential, Gamma, Geometric,
    Gumbel, HalfNormal, Laplace, LogNormal, MultivariateNormal, Normal, OneHotCategorical, Poisson,
    Uniform, digamma, inside, lgamma,
};
use crate::linalg;
use crate::tensor::{Tensor, stack};

/// A divergence from `Q` that has a closed form.
pub trait KlDivergence<Q> {
    /// `E_p[ln p - ln q]`, [batch..].
    #[track_caller]
    fn kl(&self, q: &Q) -> Tensor;
}

/// The Kullback–Leibler divergence `E_p[ln p - ln q]`, [batch..], in nats. Pairs without a
/// closed form do not compile.
#[track_caller]
pub fn kl_divergence<P: KlDivergence<Q>, Q>(p: &P, q: &Q) -> Tensor {
    p.kl(q)
}

impl KlDivergence<Normal> for Normal {
    #[track_caller]
    fn kl(&self, q: &Normal) -> Tensor {
        let ratio = (&self.scale / &q.scale).square();
        let off = ((&self.loc - &q.loc) / &q.scale).square();
        (&ratio + off - 1.0 - ratio.ln()) * 0.5
    }
}

impl KlDivergence<LogNormal> for LogNormal {
    #[track_caller]
    fn kl(&self, q: &LogNormal) -> Tensor {
        let normal = |d: &LogNormal| Normal { loc: d.loc.clone(), scale: d.scale.clone() };
        normal(self).kl(&normal(q))
    }
}

impl KlDivergence<HalfNormal> for HalfNormal {
    #[track_caller]
    fn kl(&self, q: &HalfNormal) -> Tensor {
        let ratio = (&self.scale / &q.scale).square();
        (&ratio - 1.0 - ratio.ln()) * 0.5
    }
}

impl KlDivergence<Laplace> for Laplace {
    #[track_caller]
    fn kl(&self, q: &Laplace) -> Tensor {
        let ratio = &self.scale / &q.scale;
        let off = (&self.loc - &q.loc).abs();
        ratio.ln().neg() + &off / &q.scale + ratio * (off.neg() / &self.scale).exp() - 1.0
    }
}

impl KlDivergence<Gumbel> for Gumbel {
    #[track_caller]
    fn kl(&self, q: &Gumbel) -> Tensor {
        let ratio = &self.scale / &q.scale;
        let off = (&q.loc - &self.loc) / &q.scale;
        let t = lgamma(&(&ratio + 1.0));
        ratio.ln().neg() - &off + &ratio * EULER + (off + t).exp() - (1.0 + EULER)
    }
}

impl KlDivergence<Uniform> for Uniform {
    #[track_caller]
    fn kl(&self, q: &Uniform) -> Tensor {
        let d = ((&q.high - &q.low) / (&self.high - &self.low)).ln();
        let within = q.low.le(&self.low).logical_and(&q.high.ge(&self.high));
        inside(&within, &d, f64::INFINITY)
    }
}

impl KlDivergence<Exponential> for Exponential {
    #[track_caller]
    fn kl(&self, q: &Exponential) -> Tensor {
        let ratio = &q.rate / &self.rate;
        &ratio - ratio.ln() - 1.0
    }
}

impl KlDivergence<Gamma> for Gamma {
    #[track_caller]
    fn kl(&self, q: &Gamma) -> Tensor {
        let (a, b) = (&self.concentration, &q.concentration);
        b * (&self.rate / &q.rate).ln() + lgamma(b) - lgamma(a)
            + (a - b) * digamma(a)
            + (&q.rate - &self.rate) * (a / &self.rate)
    }
}

impl KlDivergence<Dirichlet> for Dirichlet {
    #[track_caller]
    fn kl(&self, q: &Dirichlet) -> Tensor {
        let (a, b) = (&self.concentration, &q.concentration);
        let sum = |x: &Tensor| x.sum_dim(-1, false);
        let (ta, tb) = (sum(a), sum(b));
        let weights = digamma(a) - digamma(&ta).unsqueeze(-1);
        lgamma(&ta) - lgamma(&tb) - sum(&(lgamma(a) - lgamma(b))) + sum(&((a - b) * weights))
    }
}

impl KlDivergence<Beta> for Beta {
    #[track_caller]
    fn kl(&self, q: &Beta) -> Tensor {
        let both = |d: &Beta| Dirichlet {
            concentration: stack(&[&d.concentration1, &d.concentration0], -1),
        };
        both(self).kl(&both(q))
    }
}

impl KlDivergence<Bernoulli> for Bernoulli {
    #[track_caller]
    fn kl(&self, q: &Bernoulli) -> Tensor {
        let one = &self.probs * (&self.logits - &q.logits);
        one - self.logits.softplus() + q.logits.softplus()
    }
}

impl KlDivergence<Geometric> for Geometric {
    #[track_caller]
    fn kl(&self, q: &Geometric) -> Tensor {
        // One trial after the other: each is a Bernoulli trial.
        self.trial().kl(q.trial()) / &self.trial().probs
    }
}

impl KlDivergence<Binomial> for Binomial {
    /// Of one number of trials; infinite where `q` has fewer.
    #[track_caller]
    fn kl(&self, q: &Binomial) -> Tensor {
        let one = Bernoulli::new(&self.probs).kl(&Bernoulli::new(&q.probs));
        let d = &self.total_count * one;
        inside(&self.total_count.le(&q.total_count), &d, f64::INFINITY)
    }
}

impl KlDivergence<Poisson> for Poisson {
    #[track_caller]
    fn kl(&self, q: &Poisson) -> Tensor {
        super::xlogy(&self.rate, &(&self.rate / &q.rate)) - (&self.rate - &q.rate)
    }
}

impl KlDivergence<Categorical> for Categorical {
    #[track_caller]
    fn kl(&self, q: &Categorical) -> Tensor {
        let d = &self.probs * (&self.logits - &q.logits);
        // 0 ln 0 is 0; what q excludes and p does not is infinitely surprising.
        let d = d.masked_fill(&self.probs.eq(0.0), 0.0);
        let impossible = q.probs.eq(0.0).logical_and(&self.probs.gt(0.0));
        d.masked_fill(&impossible, f64::INFINITY).sum_dim(-1, false)
    }
}

impl KlDivergence<OneHotCategorical> for OneHotCategorical {
    #[track_caller]
    fn kl(&self, q: &OneHotCategorical) -> Tensor {
        self.0.kl(&q.0)
    }
}

impl KlDivergence<MultivariateNormal> for MultivariateNormal {
    #[track_caller]
    fn kl(&self, q: &MultivariateNormal) -> Tensor {
        let ratio = linalg::solve_triangular(&q.scale_tril, &self.scale_tril, false, true, false);
        let traces = ratio.square().sum_dim([-2, -1], false);
        let off = q.mahalanobis(&(&q.loc - &self.loc));
        let k = self.loc.size(-1) as f64;
        q.half_logdet() - self.half_logdet() + (traces + off - k) * 0.5
    }
}
