//! Probability distributions, by the names of `torch.distributions`.
//!
//! Parameters are tensors or numbers and broadcast to the *batch shape*: that many
//! independent distributions. Each draws values of the *event shape*: `[]` of numbers, `[k]`
//! of vectors. [`Distribution::sample`] draws; [`Distribution::rsample`] draws so that
//! gradients reach the parameters, where that is possible. Numbers come from the global
//! stream ([`manual_seed`](crate::manual_seed)) and do not depend on the number of threads.
//!
//! ```
//! use sinter::distributions::{Distribution, Normal, kl_divergence};
//! use sinter::tensor;
//! let p = Normal::new(tensor([0.0, 1.0]), 2.0);
//! assert_eq!(p.sample(&[3]).shape(), [3, 2]);
//! let at_mean = p.log_prob(&p.mean()).to_vec::<f64>();
//! assert!((at_mean[0] + (2.0 * (2.0 * std::f64::consts::PI).sqrt()).ln()).abs() < 1e-12);
//! assert_eq!(kl_divergence(&p, &p).to_vec::<f64>(), [0.0, 0.0]);
//! ```

mod continuous;
mod discrete;
mod gamma;
mod kl;
mod multivariate;

pub use continuous::{
    Cauchy, Exponential, Gumbel, HalfCauchy, HalfNormal, Laplace, LogNormal, Logistic, Normal,
    Pareto, Uniform, Weibull,
};
pub use discrete::{
    Bernoulli, Binomial, Categorical, Geometric, Multinomial, OneHotCategorical, Poisson,
};
pub use gamma::{Beta, Chi2, Dirichlet, Gamma, InverseGamma, StudentT};
pub use kl::{KlDivergence, kl_divergence};
pub use multivariate::{Independent, MultivariateNormal};

use crate::random;
use crate::tensor::{Tensor, apply, default_dtype, scalar};
use sinter_runtime::op::{SampleKind, UnaryOp, broadcast_shapes};
use sinter_runtime::{DType, Op, Shape};

/// A family of distributions with given parameters.
pub trait Distribution {
    /// How many independent distributions there are.
    fn batch_shape(&self) -> &[usize];

    /// The shape of one value.
    fn event_shape(&self) -> &[usize] {
        &[]
    }

    /// `shape` values of each distribution, [shape.., batch.., event..], without gradients.
    #[track_caller]
    fn sample(&self, shape: &[usize]) -> Tensor {
        crate::no_grad(|| self.rsample(shape))
    }

    /// As [`sample`](Distribution::sample), with gradients to the parameters.
    ///
    /// # Panics
    /// If the distribution has none: its values are discrete.
    #[track_caller]
    fn rsample(&self, shape: &[usize]) -> Tensor;

    /// Whether [`rsample`](Distribution::rsample) exists.
    fn has_rsample(&self) -> bool {
        true
    }

    /// The logarithm of the density, or of the probability, of each value [.., event..].
    #[track_caller]
    fn log_prob(&self, value: &Tensor) -> Tensor;

    /// The mean, [batch.., event..]; NaN or infinite where it does not exist.
    #[track_caller]
    fn mean(&self) -> Tensor;

    /// The variance, [batch.., event..].
    #[track_caller]
    fn variance(&self) -> Tensor;

    /// The standard deviation.
    #[track_caller]
    fn stddev(&self) -> Tensor {
        self.variance().sqrt()
    }

    /// The entropy, in nats, [batch..].
    ///
    /// # Panics
    /// If the family has no closed form.
    #[track_caller]
    fn entropy(&self) -> Tensor;
}

/// A parameter: a tensor, or a number in the default type.
pub trait Param {
    /// The parameter as a tensor.
    fn param(self) -> Tensor;
}

impl Param for Tensor {
    fn param(self) -> Tensor {
        self
    }
}
impl Param for &Tensor {
    fn param(self) -> Tensor {
        self.clone()
    }
}
impl Param for f64 {
    fn param(self) -> Tensor {
        scalar(self, default_dtype())
    }
}

/// Two parameters in one type and shape. A number takes the type of the tensor beside it.
#[track_caller]
fn two(op: &str, a: impl Param, b: impl Param) -> (Tensor, Tensor) {
    let (a, b) = (a.param(), b.param());
    let dtype = match (a.rank(), b.rank()) {
        (0, n) if n > 0 => b.dtype(),
        (n, 0) if n > 0 => a.dtype(),
        _ => a.dtype().promote(b.dtype()),
    };
    let dtype = if dtype.is_float() { dtype } else { default_dtype() };
    let shape = match broadcast_shapes(op, a.shape(), b.shape()) {
        Ok(s) => s,
        Err(e) => panic!("{e}"),
    };
    let fit = |t: Tensor| t.to_dtype(dtype).broadcast_to(shape.as_slice());
    (fit(a), fit(b))
}

/// One parameter, in a floating-point type.
fn one(a: impl Param) -> Tensor {
    let a = a.param();
    if a.dtype().is_float() { a } else { a.to_dtype(default_dtype()) }
}

/// Panics unless the condition holds of every element.
#[track_caller]
fn require(op: &str, name: &str, what: &str, x: &Tensor, holds: impl Fn(&Tensor) -> Tensor) {
    if x.is_traced() {
        return;
    }
    let good = crate::no_grad(|| holds(&x.detach()).all().item_scalar().as_bool());
    if !good {
        panic!("{op}: `{name}` must be {what}");
    }
}

#[track_caller]
fn positive(op: &str, name: &str, x: &Tensor) {
    require(op, name, "positive", x, |x| x.gt(0.0));
}

/// The shape of `shape` values of a parameter's distributions.
fn drawn(shape: &[usize], batch: &[usize]) -> Shape {
    shape.iter().chain(batch).copied().collect()
}

/// Uniform numbers on (0, 1) in a parameter's type: their logarithms are finite.
#[track_caller]
fn uniform(shape: &[usize], like: &Tensor) -> Tensor {
    let x = crate::tensor::rand_like(&like.detach().broadcast_to(drawn(shape, like.shape())));
    // The numbers are multiples of 2^-24, or 2^-53: half of that stands for 0.
    x.maximum(if like.dtype() == DType::F64 { 2f64.powi(-54) } else { 2f64.powi(-25) })
}

#[track_caller]
fn normal(shape: &[usize], like: &Tensor) -> Tensor {
    crate::tensor::randn_like(&like.detach().broadcast_to(drawn(shape, like.shape())))
}

/// Draws by rejection: one value for each element of the parameters, which have one shape.
#[track_caller]
fn draw(kind: SampleKind, params: &[&Tensor]) -> Tensor {
    let (seed, offset) = random::reserve(params[0].numel());
    let params: Vec<Tensor> = params.iter().map(|p| p.detach()).collect();
    apply(Op::Sample { kind, seed, offset }, &params.iter().collect::<Vec<_>>())
}

fn lgamma(x: &Tensor) -> Tensor {
    apply(Op::Unary(UnaryOp::Lgamma), &[x])
}

fn digamma(x: &Tensor) -> Tensor {
    apply(Op::Unary(UnaryOp::Digamma), &[x])
}

/// `x ln y`, and 0 where x is 0.
fn xlogy(x: &Tensor, y: &Tensor) -> Tensor {
    let zero = x.detach().eq(0.0);
    let product = x * y.ln();
    product.masked_fill(&zero, 0.0)
}

/// A value where a condition holds, `otherwise` elsewhere.
fn inside(condition: &Tensor, value: &Tensor, otherwise: f64) -> Tensor {
    value.masked_fill(&condition.logical_not(), otherwise)
}

/// `-∞` where a value cannot be.
fn supported(condition: &Tensor, value: &Tensor) -> Tensor {
    inside(condition, value, f64::NEG_INFINITY)
}

#[track_caller]
fn no_rsample(name: &str) -> ! {
    panic!("{name}: values are discrete, gradients do not pass through them; use `sample`");
}

/// Euler's constant.
const EULER: f64 = 0.577_215_664_901_532_9;
