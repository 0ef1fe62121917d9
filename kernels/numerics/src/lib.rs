//! Kernels that stand on other libraries: factorisations of matrices by `faer`,
//! Fourier transforms by `rustfft`.
//!
//! They form a crate of their own because they compile slowly and change seldom, and
//! because programs that only run artifacts do not link them.
//!
//! Every kernel takes a stack of problems: matrices over the last two dimensions, or
//! lines along one axis. Threads share the problems of a stack, never one problem, so
//! results do not depend on how many there are. (They do depend on the instruction
//! set: the libraries choose their loops by it.)

mod factor;
mod fourier;
mod spectral;
mod stack;
mod triangular;

pub use factor::{cholesky, lu, qr};
pub use fourier::{FourierReal, fourier};
pub use spectral::{General, eig, eigh, svd};
pub use triangular::triangular_solve;

use faer::traits::ComplexField;
use sinter_kernels::view::Element;
use std::fmt;
use std::ops::{Add, Div, Mul, Neg, Sub};

/// A number, real or complex, that matrices can be made of.
pub trait Field:
    Element
    + ComplexField<Real: Element + Into<f64>>
    + Add<Output = Self>
    + Sub<Output = Self>
    + Mul<Output = Self>
    + Div<Output = Self>
    + Neg<Output = Self>
{
}

impl<T> Field for T where
    T: Element
        + ComplexField<Real: Element + Into<f64>>
        + Add<Output = T>
        + Sub<Output = T>
        + Mul<Output = T>
        + Div<Output = T>
        + Neg<Output = T>
{
}

/// Why an iterative factorisation has no result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Failure {
    /// Which matrix of the stack, counted in row-major order.
    pub item: usize,
    /// What is wrong with it.
    pub cause: Cause,
}

/// What can be wrong with a matrix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// It holds NaN or an infinity, and iterations would not end.
    NotFinite,
    /// The iterations did not converge.
    NoConvergence,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.cause {
            Cause::NotFinite => {
                write!(f, "batch item {} contains NaN or infinity", self.item)
            }
            Cause::NoConvergence => {
                write!(f, "the iteration did not converge on batch item {}", self.item)
            }
        }
    }
}

impl std::error::Error for Failure {}

#[cfg(test)]
mod testing {
    use sinter_kernels::view::Src;

    /// Numbers between -1 and 1, away from 0 on the diagonal.
    pub(crate) fn matrix(m: usize, n: usize, seed: u64) -> Vec<f64> {
        let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        let mut next = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 11) as f64 / (1u64 << 52) as f64 - 1.0
        };
        (0..m * n)
            .map(|e| {
                let v = next();
                if n > 0 && e / n == e % n { v + v.signum() } else { v }
            })
            .collect()
    }

    pub(crate) fn dense<'a>(
        x: &'a [f64],
        shape: &'a [usize],
        strides: &'a [isize],
    ) -> Src<'a, f64> {
        Src::of(x, shape, strides)
    }
}
