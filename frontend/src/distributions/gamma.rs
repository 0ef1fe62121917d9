//! The gamma distribution and those that are made of it.

use super::{
    Distribution, Param, digamma, draw, drawn, inside, lgamma, normal, one, positive, supported,
    two, xlogy,
};
use crate::tensor::{Tensor, from_slice, stack};
use sinter_runtime::DType;
use sinter_runtime::op::SampleKind;
use std::f64::consts::PI;

/// Values of the gamma distribution of rate one, with gradients to the concentration by
/// implicit reparameterisation (Figurnov, Mohamed & Mnih 2018): at a value z drawn with the
/// distribution function F, `dz/dα = -(∂F/∂α) / (∂F/∂z)`. That derivative is itself not
/// differentiable (as in PyTorch).
#[track_caller]
fn standard(shape: &[usize], concentration: &Tensor) -> Tensor {
    let full = concentration.broadcast_to(drawn(shape, concentration.shape()));
    let z = draw(SampleKind::Gamma, &[&full]);
    if !full.requires_grad() || !crate::autograd::grad_enabled() {
        return z;
    }
    let slope = crate::no_grad(|| {
        let a = full.detach();
        let psi = digamma(&(a.to_dtype(DType::F64) + 1.0)).to_vec::<f64>();
        let (a, z) = (a.to_vec::<f64>(), z.to_vec::<f64>());
        let d: Vec<f64> = (0..a.len()).map(|i| slope_at(a[i], psi[i], z[i])).collect();
        from_slice(&d, full.shape()).to_dtype(full.dtype())
    });
    // The value of z, the derivative of `slope · α`.
    z + (&full - full.detach()) * slope
}

/// `dz/dα` for a value of the gamma distribution; `psi` is `digamma(α + 1)`. With the series
/// `F = z^α e^-z / Γ(α + 1) · S`, `S = Σ zⁿ / ((α + 1) … (α + n))` (DLMF 8.7.1), everything
/// but S and its derivative cancels.
fn slope_at(a: f64, psi: f64, z: f64) -> f64 {
    let (mut term, mut change) = (1.0, 0.0);
    let (mut sum, mut changes) = (1.0, 0.0);
    let mut n = 1.0;
    while n < 1e6 {
        let k = a + n;
        change = change * z / k - term * z / (k * k);
        term *= z / k;
        sum += term;
        changes += change;
        if k > z && term < 1e-17 * sum && change.abs() < 1e-17 * changes.abs() {
            break;
        }
        n += 1.0;
    }
    -(z / a) * (sum * (z.ln() - psi) + changes)
}

/// The gamma distribution: the sum of `concentration` waiting times of a rate.
#[derive(Clone)]
pub struct Gamma {
    /// The shape of the distribution, often α.
    pub concentration: Tensor,
    /// One over the scale, often β.
    pub rate: Tensor,
}

impl Gamma {
    /// The distribution of a positive concentration and rate.
    ///
    /// # Panics
    /// If one is not positive, or the shapes do not broadcast.
    #[track_caller]
    pub fn new(concentration: impl Param, rate: impl Param) -> Gamma {
        let (concentration, rate) = two("Gamma", concentration, rate);
        positive("Gamma", "concentration", &concentration);
        positive("Gamma", "rate", &rate);
        Gamma { concentration, rate }
    }
}

impl Distribution for Gamma {
    fn batch_shape(&self) -> &[usize] {
        self.rate.shape()
    }
    #[track_caller]
    fn rsample(&self, shape: &[usize]) -> Tensor {
        standard(shape, &self.concentration) / &self.rate
    }
    #[track_caller]
    fn log_prob(&self, value: &Tensor) -> Tensor {
        let (a, b) = (&self.concentration, &self.rate);
        let d = xlogy(a, b) + xlogy(&(a - 1.0), value) - b * value - lgamma(a);
        supported(&value.ge(0.0), &d)
    }
    fn mean(&self) -> Tensor {
        &self.concentration / &self.rate
    }
    fn variance(&self) -> Tensor {
        &self.concentration / self.rate.square()
    }
    fn entropy(&self) -> Tensor {
        let a = &self.concentration;
        a - self.rate.ln() + lgamma(a) + (1.0 - a) * digamma(a)
    }
}

/// The sum of the squares of `df` normal numbers.
#[derive(Clone)]
pub struct Chi2(pub(super) Gamma);

impl Chi2 {
    /// The distribution of positive degrees of freedom.
    ///
    /// # Panics
    /// If they are not positive.
    #[track_caller]
    pub fn new(df: impl Param) -> Chi2 {
        let df = one(df);
        positive("Chi2", "df", &df);
        Chi2(Gamma::new(df * 0.5, 0.5))
    }
}

/// One over a gamma number.
#[derive(Clone)]
pub struct InverseGamma(Gamma);

impl InverseGamma {
    /// The distribution of `1 / x` with `x` of [`Gamma`] with these parameters.
    ///
    /// # Panics
    /// If one is not positive, or the shapes do not broadcast.
    #[track_caller]
    pub fn new(concentration: impl Param, rate: impl Param) -> InverseGamma {
        InverseGamma(Gamma::new(concentration, rate))
    }
}

impl Distribution for Chi2 {
    fn batch_shape(&self) -> &[usize] {
        self.0.batch_shape()
    }
    #[track_caller]
    fn rsample(&self, shape: &[usize]) -> Tensor {
        self.0.rsample(shape)
    }
    #[track_caller]
    fn log_prob(&self, value: &Tensor) -> Tensor {
        self.0.log_prob(value)
    }
    fn mean(&self) -> Tensor {
        self.0.mean()
    }
    fn variance(&self) -> Tensor {
        self.0.variance()
    }
    fn entropy(&self) -> Tensor {
        self.0.entropy()
    }
}

impl Distribution for InverseGamma {
    fn batch_shape(&self) -> &[usize] {
        self.0.batch_shape()
    }
    #[track_caller]
    fn rsample(&self, shape: &[usize]) -> Tensor {
        self.0.rsample(shape).reciprocal()
    }
    #[track_caller]
    fn log_prob(&self, value: &Tensor) -> Tensor {
        self.0.log_prob(&value.reciprocal()) - value.ln() * 2.0
    }
    fn mean(&self) -> Tensor {
        let a = &self.0.concentration;
        inside(&a.gt(1.0), &(&self.0.rate / (a - 1.0)), f64::INFINITY)
    }
    fn variance(&self) -> Tensor {
        let a = &self.0.concentration;
        let v = self.0.rate.square() / ((a - 1.0).square() * (a - 2.0));
        inside(&a.gt(2.0), &v, f64::INFINITY)
    }
    fn entropy(&self) -> Tensor {
        let a = &self.0.concentration;
        a + self.0.rate.ln() + lgamma(a) - (a + 1.0) * digamma(a)
    }
}

/// Probabilities of `k` classes that sum to one, [.., k].
#[derive(Clone)]
pub struct Dirichlet {
    /// The concentrations, [.., k].
    pub concentration: Tensor,
}

impl Dirichlet {
    /// The distribution of positive concentrations [.., k].
    ///
    /// # Panics
    /// If one is not positive, or there is no dimension.
    #[track_caller]
    pub fn new(concentration: impl Param) -> Dirichlet {
        let concentration = one(concentration);
        if concentration.rank() == 0 {
            panic!("Dirichlet: `concentration` must have a dimension of classes");
        }
        positive("Dirichlet", "concentration", &concentration);
        Dirichlet { concentration }
    }

    fn total(&self) -> Tensor {
        self.concentration.sum_dim(-1, false)
    }
}

impl Distribution for Dirichlet {
    fn batch_shape(&self) -> &[usize] {
        &self.concentration.shape()[..self.concentration.rank() - 1]
    }
    fn event_shape(&self) -> &[usize] {
        &self.concentration.shape()[self.concentration.rank() - 1..]
    }
    #[track_caller]
    fn rsample(&self, shape: &[usize]) -> Tensor {
        let z = standard(shape, &self.concentration);
        &z / z.sum_dim(-1, true)
    }
    #[track_caller]
    fn log_prob(&self, value: &Tensor) -> Tensor {
        let a = &self.concentration;
        xlogy(&(a - 1.0), value).sum_dim(-1, false) + lgamma(&self.total())
            - lgamma(a).sum_dim(-1, false)
    }
    fn mean(&self) -> Tensor {
        &self.concentration / self.total().unsqueeze(-1)
    }
    fn variance(&self) -> Tensor {
        let (a, total) = (&self.concentration, self.total().unsqueeze(-1));
        a * (&total - a) / (total.square() * (&total + 1.0))
    }
    fn entropy(&self) -> Tensor {
        let (a, total) = (&self.concentration, self.total());
        let k = a.size(-1) as f64;
        lgamma(a).sum_dim(-1, false)
            - lgamma(&total)
            - (k - &total) * digamma(&total)
            - ((a - 1.0) * digamma(a)).sum_dim(-1, false)
    }
}

/// The distribution of a probability.
#[derive(Clone)]
pub struct Beta {
    /// Often α.
    pub concentration1: Tensor,
    /// Often β.
    pub concentration0: Tensor,
    both: Dirichlet,
}

impl Beta {
    /// The distribution of two positive concentrations: for 1 and for 0.
    ///
    /// # Panics
    /// If one is not positive, or the shapes do not broadcast.
    #[track_caller]
    pub fn new(concentration1: impl Param, concentration0: impl Param) -> Beta {
        let (one, zero) = two("Beta", concentration1, concentration0);
        let both = Dirichlet::new(stack(&[&one, &zero], -1));
        Beta { concentration1: one, concentration0: zero, both }
    }
}

impl Distribution for Beta {
    fn batch_shape(&self) -> &[usize] {
        self.concentration1.shape()
    }
    #[track_caller]
    fn rsample(&self, shape: &[usize]) -> Tensor {
        self.both.rsample(shape).select(-1, 0)
    }
    #[track_caller]
    fn log_prob(&self, value: &Tensor) -> Tensor {
        self.both.log_prob(&stack(&[value, &(1.0 - value)], -1))
    }
    fn mean(&self) -> Tensor {
        self.both.mean().select(-1, 0)
    }
    fn variance(&self) -> Tensor {
        self.both.variance().select(-1, 0)
    }
    fn entropy(&self) -> Tensor {
        self.both.entropy()
    }
}

/// Student's t: a normal number over the root of a mean of squares of others.
#[derive(Clone)]
pub struct StudentT {
    /// Degrees of freedom.
    pub df: Tensor,
    /// The location.
    pub loc: Tensor,
    /// The scale.
    pub scale: Tensor,
}

impl StudentT {
    /// The distribution of positive degrees of freedom, a location and a positive scale.
    ///
    /// # Panics
    /// If one is not positive, or the shapes do not broadcast.
    #[track_caller]
    pub fn new(df: impl Param, loc: impl Param, scale: impl Param) -> StudentT {
        let (loc, scale) = two("StudentT", loc, scale);
        let (df, loc) = two("StudentT", df, loc);
        let (df, scale) = two("StudentT", df, scale);
        let loc = loc.to_dtype(df.dtype());
        positive("StudentT", "df", &df);
        positive("StudentT", "scale", &scale);
        StudentT { df, loc, scale }
    }
}

impl Distribution for StudentT {
    fn batch_shape(&self) -> &[usize] {
        self.df.shape()
    }
    #[track_caller]
    fn rsample(&self, shape: &[usize]) -> Tensor {
        let x = normal(shape, &self.df);
        let squares = standard(shape, &(&self.df * 0.5)) * 2.0;
        &self.loc + &self.scale * (x * (squares / &self.df).rsqrt())
    }
    #[track_caller]
    fn log_prob(&self, value: &Tensor) -> Tensor {
        let (n, y) = (&self.df, (value - &self.loc) / &self.scale);
        let z = self.scale.ln() + n.ln() * 0.5 + (0.5 * PI.ln()) + lgamma(&(n * 0.5))
            - lgamma(&((n + 1.0) * 0.5));
        (n + 1.0) * -0.5 * (y.square() / n).log1p() - z
    }
    fn mean(&self) -> Tensor {
        inside(&self.df.gt(1.0), &self.loc, f64::NAN)
    }
    fn variance(&self) -> Tensor {
        let n = &self.df;
        let v = self.scale.square() * n / (n - 2.0);
        let v = inside(&n.gt(2.0), &v, f64::INFINITY);
        inside(&n.gt(1.0), &v, f64::NAN)
    }
    fn entropy(&self) -> Tensor {
        let n = &self.df;
        let beta = lgamma(&(n * 0.5)) + (0.5 * PI.ln()) - lgamma(&((n + 1.0) * 0.5));
        self.scale.ln()
            + (n + 1.0) * 0.5 * (digamma(&((n + 1.0) * 0.5)) - digamma(&(n * 0.5)))
            + n.ln() * 0.5
            + beta
    }
}
