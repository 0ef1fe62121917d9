//! Continuous distributions of numbers, drawn by transforming uniform or normal ones.

use super::{
    Distribution, EULER, Param, inside, lgamma, normal, one, positive, require, supported, two,
    uniform,
};
use crate::tensor::Tensor;
use std::f64::consts::{LN_2, PI};

/// `ln √(2π)`
pub(super) const LN_SQRT_2PI: f64 = 0.918_938_533_204_672_8;

macro_rules! location_scale {
    ($($(#[$doc:meta])* $name:ident;)*) => {$(
        $(#[$doc])*
        #[derive(Clone)]
        pub struct $name {
            /// The location.
            pub loc: Tensor,
            /// The scale.
            pub scale: Tensor,
        }

        impl $name {
            #[doc = concat!("The distribution `", stringify!($name), "` of a location and a positive scale.")]
            ///
            /// # Panics
            /// If a scale is not positive, or the shapes do not broadcast.
            #[track_caller]
            pub fn new(loc: impl Param, scale: impl Param) -> $name {
                let (loc, scale) = two(stringify!($name), loc, scale);
                positive(stringify!($name), "scale", &scale);
                $name { loc, scale }
            }
        }
    )*};
}
location_scale! {
    /// The normal distribution.
    Normal;
    /// Two exponentials, back to back.
    Laplace;
    /// The ratio of two normal numbers; it has neither mean nor variance.
    Cauchy;
    /// The largest of many.
    Gumbel;
    /// `loc + scale · logit(u)` of uniform `u`.
    Logistic;
    /// The exponential of a normal number with mean `loc` and standard deviation `scale`.
    LogNormal;
}

fn nan_like(x: &Tensor) -> Tensor {
    crate::tensor::full_like(x, f64::NAN)
}

impl Distribution for Normal {
    fn batch_shape(&self) -> &[usize] {
        self.loc.shape()
    }
    #[track_caller]
    fn rsample(&self, shape: &[usize]) -> Tensor {
        &self.loc + &self.scale * normal(shape, &self.loc)
    }
    #[track_caller]
    fn log_prob(&self, value: &Tensor) -> Tensor {
        let z = (value - &self.loc) / &self.scale;
        z.square() * -0.5 - self.scale.ln() - LN_SQRT_2PI
    }
    fn mean(&self) -> Tensor {
        self.loc.clone()
    }
    fn variance(&self) -> Tensor {
        self.scale.square()
    }
    fn entropy(&self) -> Tensor {
        self.scale.ln() + (0.5 + LN_SQRT_2PI)
    }
}

impl Normal {
    /// The probability of a value at most this one.
    #[track_caller]
    pub fn cdf(&self, value: &Tensor) -> Tensor {
        let z = (value - &self.loc) / &self.scale * std::f64::consts::FRAC_1_SQRT_2;
        (z.erf() + 1.0) * 0.5
    }
}

impl Distribution for LogNormal {
    fn batch_shape(&self) -> &[usize] {
        self.loc.shape()
    }
    #[track_caller]
    fn rsample(&self, shape: &[usize]) -> Tensor {
        (&self.loc + &self.scale * normal(shape, &self.loc)).exp()
    }
    #[track_caller]
    fn log_prob(&self, value: &Tensor) -> Tensor {
        let log = value.ln();
        let z = (&log - &self.loc) / &self.scale;
        z.square() * -0.5 - self.scale.ln() - LN_SQRT_2PI - log
    }
    fn mean(&self) -> Tensor {
        (&self.loc + self.scale.square() * 0.5).exp()
    }
    fn variance(&self) -> Tensor {
        let s = self.scale.square();
        s.expm1() * (&self.loc * 2.0 + &s).exp()
    }
    fn entropy(&self) -> Tensor {
        self.scale.ln() + &self.loc + (0.5 + LN_SQRT_2PI)
    }
}

impl Distribution for Laplace {
    fn batch_shape(&self) -> &[usize] {
        self.loc.shape()
    }
    #[track_caller]
    fn rsample(&self, shape: &[usize]) -> Tensor {
        let u = uniform(shape, &self.loc) - 0.5;
        &self.loc - &self.scale * u.sign() * (u.abs() * -2.0).clamp(-1.0 + 1e-16, None).log1p()
    }
    #[track_caller]
    fn log_prob(&self, value: &Tensor) -> Tensor {
        (value - &self.loc).abs().neg() / &self.scale - (&self.scale * 2.0).ln()
    }
    fn mean(&self) -> Tensor {
        self.loc.clone()
    }
    fn variance(&self) -> Tensor {
        self.scale.square() * 2.0
    }
    fn entropy(&self) -> Tensor {
        self.scale.ln() + (1.0 + LN_2)
    }
}

impl Distribution for Cauchy {
    fn batch_shape(&self) -> &[usize] {
        self.loc.shape()
    }
    #[track_caller]
    fn rsample(&self, shape: &[usize]) -> Tensor {
        let u = uniform(shape, &self.loc);
        &self.loc + &self.scale * ((u - 0.5) * PI).tan()
    }
    #[track_caller]
    fn log_prob(&self, value: &Tensor) -> Tensor {
        let z = (value - &self.loc) / &self.scale;
        z.square().log1p().neg() - self.scale.ln() - PI.ln()
    }
    fn mean(&self) -> Tensor {
        nan_like(&self.loc)
    }
    fn variance(&self) -> Tensor {
        crate::tensor::full_like(&self.loc, f64::INFINITY)
    }
    fn entropy(&self) -> Tensor {
        self.scale.ln() + (4.0 * PI).ln()
    }
}

impl Distribution for Gumbel {
    fn batch_shape(&self) -> &[usize] {
        self.loc.shape()
    }
    #[track_caller]
    fn rsample(&self, shape: &[usize]) -> Tensor {
        &self.loc - &self.scale * uniform(shape, &self.loc).ln().neg().ln()
    }
    #[track_caller]
    fn log_prob(&self, value: &Tensor) -> Tensor {
        let y = (&self.loc - value) / &self.scale;
        &y - y.exp() - self.scale.ln()
    }
    fn mean(&self) -> Tensor {
        &self.loc + &self.scale * EULER
    }
    fn variance(&self) -> Tensor {
        self.scale.square() * (PI * PI / 6.0)
    }
    fn entropy(&self) -> Tensor {
        self.scale.ln() + (1.0 + EULER)
    }
}

impl Distribution for Logistic {
    fn batch_shape(&self) -> &[usize] {
        self.loc.shape()
    }
    #[track_caller]
    fn rsample(&self, shape: &[usize]) -> Tensor {
        let u = uniform(shape, &self.loc);
        &self.loc + &self.scale * (u.ln() - u.neg().log1p())
    }
    #[track_caller]
    fn log_prob(&self, value: &Tensor) -> Tensor {
        let z = (value - &self.loc) / &self.scale;
        z.neg() - z.neg().softplus() * 2.0 - self.scale.ln()
    }
    fn mean(&self) -> Tensor {
        self.loc.clone()
    }
    fn variance(&self) -> Tensor {
        self.scale.square() * (PI * PI / 3.0)
    }
    fn entropy(&self) -> Tensor {
        self.scale.ln() + 2.0
    }
}

/// The uniform distribution on `[low, high)`.
#[derive(Clone)]
pub struct Uniform {
    /// The least value.
    pub low: Tensor,
    /// Above the largest value.
    pub high: Tensor,
}

impl Uniform {
    /// The distribution between two bounds.
    ///
    /// # Panics
    /// If `low` is not below `high`, or the shapes do not broadcast.
    #[track_caller]
    pub fn new(low: impl Param, high: impl Param) -> Uniform {
        let (low, high) = two("Uniform", low, high);
        require("Uniform", "high - low", "positive", &(&high - &low), |x| x.gt(0.0));
        Uniform { low, high }
    }
}

impl Distribution for Uniform {
    fn batch_shape(&self) -> &[usize] {
        self.low.shape()
    }
    #[track_caller]
    fn rsample(&self, shape: &[usize]) -> Tensor {
        &self.low + (&self.high - &self.low) * uniform(shape, &self.low)
    }
    #[track_caller]
    fn log_prob(&self, value: &Tensor) -> Tensor {
        let there = value.ge(&self.low).logical_and(&value.lt(&self.high));
        let density = (&self.high - &self.low).ln().neg();
        supported(&there, &density.broadcast_to(there.shape()))
    }
    fn mean(&self) -> Tensor {
        (&self.low + &self.high) * 0.5
    }
    fn variance(&self) -> Tensor {
        (&self.high - &self.low).square() * (1.0 / 12.0)
    }
    fn entropy(&self) -> Tensor {
        (&self.high - &self.low).ln()
    }
}

/// The exponential distribution: waiting times of a rate.
#[derive(Clone)]
pub struct Exponential {
    /// Events in a unit of time.
    pub rate: Tensor,
}

impl Exponential {
    /// The distribution of a positive rate.
    ///
    /// # Panics
    /// If a rate is not positive.
    #[track_caller]
    pub fn new(rate: impl Param) -> Exponential {
        let rate = one(rate);
        positive("Exponential", "rate", &rate);
        Exponential { rate }
    }
}

impl Distribution for Exponential {
    fn batch_shape(&self) -> &[usize] {
        self.rate.shape()
    }
    #[track_caller]
    fn rsample(&self, shape: &[usize]) -> Tensor {
        uniform(shape, &self.rate).ln().neg() / &self.rate
    }
    #[track_caller]
    fn log_prob(&self, value: &Tensor) -> Tensor {
        supported(&value.ge(0.0), &(self.rate.ln() - &self.rate * value))
    }
    fn mean(&self) -> Tensor {
        self.rate.reciprocal()
    }
    fn variance(&self) -> Tensor {
        self.rate.square().reciprocal()
    }
    fn entropy(&self) -> Tensor {
        1.0 - self.rate.ln()
    }
}

macro_rules! of_scale {
    ($($(#[$doc:meta])* $name:ident;)*) => {$(
        $(#[$doc])*
        #[derive(Clone)]
        pub struct $name {
            /// The scale of the whole distribution.
            pub scale: Tensor,
        }

        impl $name {
            #[doc = concat!("The distribution `", stringify!($name), "` of a positive scale.")]
            ///
            /// # Panics
            /// If a scale is not positive.
            #[track_caller]
            pub fn new(scale: impl Param) -> $name {
                let scale = one(scale);
                positive(stringify!($name), "scale", &scale);
                $name { scale }
            }
        }
    )*};
}
of_scale! {
    /// The magnitude of a normal number of mean zero.
    HalfNormal;
    /// The magnitude of a Cauchy number of location zero.
    HalfCauchy;
}

impl Distribution for HalfNormal {
    fn batch_shape(&self) -> &[usize] {
        self.scale.shape()
    }
    #[track_caller]
    fn rsample(&self, shape: &[usize]) -> Tensor {
        (&self.scale * normal(shape, &self.scale)).abs()
    }
    #[track_caller]
    fn log_prob(&self, value: &Tensor) -> Tensor {
        let z = value / &self.scale;
        let d = z.square() * -0.5 - self.scale.ln() + (LN_2 - LN_SQRT_2PI);
        supported(&value.ge(0.0), &d)
    }
    fn mean(&self) -> Tensor {
        &self.scale * (2.0 / PI).sqrt()
    }
    fn variance(&self) -> Tensor {
        self.scale.square() * (1.0 - 2.0 / PI)
    }
    fn entropy(&self) -> Tensor {
        self.scale.ln() + (0.5 + LN_SQRT_2PI - LN_2)
    }
}

impl Distribution for HalfCauchy {
    fn batch_shape(&self) -> &[usize] {
        self.scale.shape()
    }
    #[track_caller]
    fn rsample(&self, shape: &[usize]) -> Tensor {
        &self.scale * (uniform(shape, &self.scale) * (PI / 2.0)).tan()
    }
    #[track_caller]
    fn log_prob(&self, value: &Tensor) -> Tensor {
        let z = value / &self.scale;
        let d = z.square().log1p().neg() - self.scale.ln() + (2.0 / PI).ln();
        supported(&value.ge(0.0), &d)
    }
    fn mean(&self) -> Tensor {
        crate::tensor::full_like(&self.scale, f64::INFINITY)
    }
    fn variance(&self) -> Tensor {
        crate::tensor::full_like(&self.scale, f64::INFINITY)
    }
    fn entropy(&self) -> Tensor {
        self.scale.ln() + (2.0 * PI).ln()
    }
}

/// A power of an exponential number: `scale · e^(1 / concentration)`.
#[derive(Clone)]
pub struct Weibull {
    /// The scale.
    pub scale: Tensor,
    /// The shape of the distribution.
    pub concentration: Tensor,
}

impl Weibull {
    /// The distribution of a positive scale and concentration.
    ///
    /// # Panics
    /// If one is not positive, or the shapes do not broadcast.
    #[track_caller]
    pub fn new(scale: impl Param, concentration: impl Param) -> Weibull {
        let (scale, concentration) = two("Weibull", scale, concentration);
        positive("Weibull", "scale", &scale);
        positive("Weibull", "concentration", &concentration);
        Weibull { scale, concentration }
    }

    /// `E[(x / scale)ⁿ]`
    fn moment(&self, n: f64) -> Tensor {
        lgamma(&(self.concentration.reciprocal() * n + 1.0)).exp()
    }
}

impl Distribution for Weibull {
    fn batch_shape(&self) -> &[usize] {
        self.scale.shape()
    }
    #[track_caller]
    fn rsample(&self, shape: &[usize]) -> Tensor {
        &self.scale * uniform(shape, &self.scale).ln().neg().pow(self.concentration.reciprocal())
    }
    #[track_caller]
    fn log_prob(&self, value: &Tensor) -> Tensor {
        let k = &self.concentration;
        let z = value / &self.scale;
        let d = (k / &self.scale).ln() + (k - 1.0) * z.ln() - z.pow(k);
        supported(&value.gt(0.0), &d)
    }
    fn mean(&self) -> Tensor {
        &self.scale * self.moment(1.0)
    }
    fn variance(&self) -> Tensor {
        self.scale.square() * (self.moment(2.0) - self.moment(1.0).square())
    }
    fn entropy(&self) -> Tensor {
        let k = &self.concentration;
        (1.0 - k.reciprocal()) * EULER + (&self.scale / k).ln() + 1.0
    }
}

/// Values above a least one that fall by a power.
#[derive(Clone)]
pub struct Pareto {
    /// The least value.
    pub scale: Tensor,
    /// The power.
    pub alpha: Tensor,
}

impl Pareto {
    /// The distribution of a positive least value and power.
    ///
    /// # Panics
    /// If one is not positive, or the shapes do not broadcast.
    #[track_caller]
    pub fn new(scale: impl Param, alpha: impl Param) -> Pareto {
        let (scale, alpha) = two("Pareto", scale, alpha);
        positive("Pareto", "scale", &scale);
        positive("Pareto", "alpha", &alpha);
        Pareto { scale, alpha }
    }
}

impl Distribution for Pareto {
    fn batch_shape(&self) -> &[usize] {
        self.scale.shape()
    }
    #[track_caller]
    fn rsample(&self, shape: &[usize]) -> Tensor {
        &self.scale * (uniform(shape, &self.scale).ln().neg() / &self.alpha).exp()
    }
    #[track_caller]
    fn log_prob(&self, value: &Tensor) -> Tensor {
        let a = &self.alpha;
        let d = a.ln() + a * self.scale.ln() - (a + 1.0) * value.ln();
        supported(&value.ge(&self.scale), &d)
    }
    fn mean(&self) -> Tensor {
        let a = &self.alpha;
        inside(&a.gt(1.0), &(a * &self.scale / (a - 1.0)), f64::INFINITY)
    }
    fn variance(&self) -> Tensor {
        let a = &self.alpha;
        let v = self.scale.square() * a / ((a - 1.0).square() * (a - 2.0));
        inside(&a.gt(2.0), &v, f64::INFINITY)
    }
    fn entropy(&self) -> Tensor {
        (&self.scale / &self.alpha).ln() + self.alpha.reciprocal() + 1.0
    }
}
