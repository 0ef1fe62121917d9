//! Distributions of vectors.

use super::continuous::LN_SQRT_2PI;
use super::{Distribution, Param, normal, one};
use crate::linalg;
use crate::tensor::Tensor;
use sinter_runtime::Shape;
use sinter_runtime::op::broadcast_shapes;

/// Normal vectors of `k` elements.
#[derive(Clone)]
pub struct MultivariateNormal {
    /// The mean, [.., k].
    pub loc: Tensor,
    /// The Cholesky factor of the covariance, [.., k, k].
    pub scale_tril: Tensor,
}

impl MultivariateNormal {
    /// The distribution of a mean [.., k] and a covariance [.., k, k].
    ///
    /// # Panics
    /// If the covariance is not positive definite, or the shapes do not fit.
    #[track_caller]
    pub fn new(loc: impl Param, covariance: &Tensor) -> MultivariateNormal {
        MultivariateNormal::from_scale_tril(loc, &linalg::cholesky(covariance, false))
    }

    /// The distribution of a mean and the inverse of the covariance.
    ///
    /// # Panics
    /// As [`MultivariateNormal::new`].
    #[track_caller]
    pub fn from_precision(loc: impl Param, precision: &Tensor) -> MultivariateNormal {
        MultivariateNormal::new(
            loc,
            &linalg::cholesky_inverse(&linalg::cholesky(precision, false), false),
        )
    }

    /// The distribution of a mean and a lower triangular factor of the covariance.
    ///
    /// # Panics
    /// If the shapes do not fit.
    #[track_caller]
    pub fn from_scale_tril(loc: impl Param, scale_tril: &Tensor) -> MultivariateNormal {
        let loc = one(loc).to_dtype(scale_tril.dtype());
        let k = scale_tril.shape().last().copied().unwrap_or(0);
        let fits = loc.rank() > 0
            && scale_tril.rank() > 1
            && loc.size(-1) == k
            && scale_tril.size(-2) == k;
        if !fits {
            panic!(
                "MultivariateNormal: mean {:?} and covariance {:?} do not fit",
                loc.shape(),
                scale_tril.shape()
            );
        }
        let lead = broadcast_shapes(
            "MultivariateNormal",
            &loc.shape()[..loc.rank() - 1],
            &scale_tril.shape()[..scale_tril.rank() - 2],
        );
        let lead = match lead {
            Ok(l) => l,
            Err(e) => panic!("{e}"),
        };
        let with = |tail: &[usize]| -> Shape { lead.iter().chain(tail).copied().collect() };
        MultivariateNormal {
            loc: loc.broadcast_to(with(&[k])),
            scale_tril: scale_tril.broadcast_to(with(&[k, k])),
        }
    }

    /// The covariance, [.., k, k].
    pub fn covariance(&self) -> Tensor {
        self.scale_tril.matmul(&self.scale_tril.transpose(-1, -2))
    }

    /// The logarithm of the root of the covariance's determinant.
    pub(super) fn half_logdet(&self) -> Tensor {
        self.scale_tril.diagonal(0, -2, -1).ln().sum_dim(-1, false)
    }

    /// The squared length of `x` in units of the standard deviations.
    #[track_caller]
    pub(super) fn mahalanobis(&self, x: &Tensor) -> Tensor {
        linalg::solve_triangular(&self.scale_tril, &x.unsqueeze(-1), false, true, false)
            .squeeze(-1)
            .square()
            .sum_dim(-1, false)
    }
}

impl Distribution for MultivariateNormal {
    fn batch_shape(&self) -> &[usize] {
        &self.loc.shape()[..self.loc.rank() - 1]
    }
    fn event_shape(&self) -> &[usize] {
        &self.loc.shape()[self.loc.rank() - 1..]
    }
    #[track_caller]
    fn rsample(&self, shape: &[usize]) -> Tensor {
        let z = normal(shape, &self.loc).unsqueeze(-1);
        &self.loc + self.scale_tril.matmul(&z).squeeze(-1)
    }
    #[track_caller]
    fn log_prob(&self, value: &Tensor) -> Tensor {
        let k = self.loc.size(-1) as f64;
        self.mahalanobis(&(value - &self.loc)) * -0.5 - self.half_logdet() - k * LN_SQRT_2PI
    }
    fn mean(&self) -> Tensor {
        self.loc.clone()
    }
    fn variance(&self) -> Tensor {
        self.scale_tril.square().sum_dim(-1, false)
    }
    fn entropy(&self) -> Tensor {
        self.half_logdet() + self.loc.size(-1) as f64 * (0.5 + LN_SQRT_2PI)
    }
}

/// A distribution whose last batch dimensions are taken for dimensions of one value.
#[derive(Clone)]
pub struct Independent<D> {
    base: D,
    dims: usize,
    event: Shape,
}

impl<D: Distribution> Independent<D> {
    /// Takes the last `dims` batch dimensions of `base` for one value's.
    ///
    /// # Panics
    /// If there are not so many.
    #[track_caller]
    pub fn new(base: D, dims: usize) -> Independent<D> {
        let batch = base.batch_shape();
        if dims > batch.len() {
            panic!("Independent: {dims} dimensions of a batch {batch:?}");
        }
        let event = batch[batch.len() - dims..].iter().chain(base.event_shape()).copied().collect();
        Independent { base, dims, event }
    }

    fn summed(&self, x: Tensor) -> Tensor {
        let last: Vec<i64> = (1..=self.dims as i64).map(|d| -d).collect();
        if last.is_empty() { x } else { x.sum_dim(last, false) }
    }
}

impl<D: Distribution> Distribution for Independent<D> {
    fn batch_shape(&self) -> &[usize] {
        let batch = self.base.batch_shape();
        &batch[..batch.len() - self.dims]
    }
    fn event_shape(&self) -> &[usize] {
        &self.event
    }
    #[track_caller]
    fn sample(&self, shape: &[usize]) -> Tensor {
        self.base.sample(shape)
    }
    #[track_caller]
    fn rsample(&self, shape: &[usize]) -> Tensor {
        self.base.rsample(shape)
    }
    fn has_rsample(&self) -> bool {
        self.base.has_rsample()
    }
    #[track_caller]
    fn log_prob(&self, value: &Tensor) -> Tensor {
        self.summed(self.base.log_prob(value))
    }
    fn mean(&self) -> Tensor {
        self.base.mean()
    }
    fn variance(&self) -> Tensor {
        self.base.variance()
    }
    #[track_caller]
    fn entropy(&self) -> Tensor {
        self.summed(self.base.entropy())
    }
}
