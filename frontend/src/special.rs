//! Special functions of mathematics, by PyTorch's names. Those that tensors have as
//! methods are methods: `erf`, `erfc`, `erfinv`, `lgamma`, `digamma`, `i0`, `logit`,
//! `sinc`, `xlogy`, `igamma`, `igammac` and others.
//!
//! Integers are converted to the default float type. Everything differentiates, unless
//! it says otherwise.
//!
//! ```
//! use sinter::{special, tensor};
//! let x = tensor([0.5f64, 2.0]);
//! assert!(special::ndtr(&tensor(0.0f64)).item::<f64>() == 0.5);
//! assert_eq!(special::legendre_polynomial_p(&x, 2).to_vec::<f64>(), [-0.125, 5.5]);
//! ```

use crate::tensor::{Operand, Tensor, full_like, ones_like, zeros_like};
use crate::tensor::{binary, unary};
use sinter_runtime::DType;
use sinter_runtime::op::{BinaryOp, UnaryOp};
use std::f64::consts::{FRAC_1_SQRT_2, PI};

macro_rules! functions {
    ($($(#[$doc:meta])* $name:ident = $op:ident;)*) => {$(
        $(#[$doc])*
        #[track_caller]
        pub fn $name(x: &Tensor) -> Tensor {
            unary(UnaryOp::$op, x)
        }
    )*};
}
functions! {
    /// `e^(x²) erfc(x)`.
    erfcx = Erfcx;
    /// Inverse of the normal distribution function.
    ndtri = Ndtri;
    /// Logarithm of the normal distribution function.
    log_ndtr = LogNdtr;
    /// Logarithm of `|Γ(x)|`: `lgamma` by SciPy's name.
    gammaln = Lgamma;
    /// Derivative of `ln Γ`: `digamma` by SciPy's name.
    psi = Digamma;
    /// Logistic function: `sigmoid` by SciPy's name.
    expit = Sigmoid;
    /// `e^-|x| I_0(x)`.
    i0e = I0e;
    /// Modified Bessel function of the first kind, order 1.
    i1 = I1;
    /// `e^-|x| I_1(x)`.
    i1e = I1e;
    /// Modified Bessel function of the first kind, order 0.
    modified_bessel_i0 = I0;
    /// Modified Bessel function of the first kind, order 1.
    modified_bessel_i1 = I1;
    /// Modified Bessel function of the second kind, order 0.
    modified_bessel_k0 = K0;
    /// Modified Bessel function of the second kind, order 1.
    modified_bessel_k1 = K1;
    /// `e^x K_0(x)`.
    scaled_modified_bessel_k0 = K0e;
    /// `e^x K_1(x)`.
    scaled_modified_bessel_k1 = K1e;
    /// Bessel function of the first kind, order 0.
    bessel_j0 = J0;
    /// Bessel function of the first kind, order 1.
    bessel_j1 = J1;
    /// Bessel function of the second kind, order 0.
    bessel_y0 = Y0;
    /// Bessel function of the second kind, order 1.
    bessel_y1 = Y1;
}

/// Spherical Bessel function of the first kind, order 0: `sin(x) / x`.
#[track_caller]
pub fn spherical_bessel_j0(x: &Tensor) -> Tensor {
    (x / PI).sinc()
}

/// Normal distribution function.
#[track_caller]
pub fn ndtr(x: &Tensor) -> Tensor {
    ((x.wide() * -FRAC_1_SQRT_2).erfc() * 0.5).to_dtype(x.float_dtype())
}

/// `-x ln x`; 0 at 0, `-∞` below.
#[track_caller]
pub fn entr(x: &Tensor) -> Tensor {
    let dtype = x.float_dtype();
    let x = x.wide();
    let positive = x.gt(0.0);
    let product = -(positive.where_(&x, ones_like(&x)).ln() * &x);
    let edge = x.lt(0.0).where_(&full_like(&x, f64::NEG_INFINITY), zeros_like(&x));
    let edge = x.isnan().where_(&x, &edge);
    positive.where_(&product, &edge).to_dtype(dtype)
}

/// `x ln(1 + y)`, 0 where `x` is 0 and `y` is not NaN.
#[track_caller]
pub fn xlog1py(x: &Tensor, y: impl Operand) -> Tensor {
    let dtype = match y.meet(x) {
        d if d.is_float() => d,
        _ => crate::default_dtype(),
    };
    let (x, y) = (x.to_dtype(dtype).wide(), y.as_tensor(dtype).wide());
    let edge = y.le(-1.0).logical_or(&y.isinf());
    let safe = x.eq(0.0).logical_and(&edge).where_(&zeros_like(&y), &y);
    (x * safe.log1p()).to_dtype(dtype)
}

/// Hurwitz' zeta function `Σ (q + k)^-s`; no derivative by `s`.
#[track_caller]
pub fn zeta(s: &Tensor, q: impl Operand) -> Tensor {
    binary(BinaryOp::Zeta, s, &q)
}

/// Derivative `n` of `digamma`.
#[track_caller]
pub fn polygamma(n: u32, x: &Tensor) -> Tensor {
    if n == 0 {
        return x.digamma();
    }
    // (-1)^(n+1) n! ζ(n + 1, x): DLMF 5.15.1
    let dtype = x.float_dtype();
    let x = x.wide();
    let factorial: f64 = (1..=n).map(f64::from).product();
    let sign = if n % 2 == 1 { 1.0 } else { -1.0 };
    let y = zeta(&full_like(&x.detach(), f64::from(n) + 1.0), &x) * (sign * factorial);
    y.to_dtype(dtype)
}

/// Logarithm of the multivariate gamma function of dimension `p`:
/// `p (p - 1) / 4 ln π + Σ ln Γ(x - i / 2)`.
///
/// # Panics
/// If `p` is 0.
#[track_caller]
pub fn multigammaln(x: &Tensor, p: usize) -> Tensor {
    if p == 0 {
        panic!("multigammaln: the dimension is 0");
    }
    let wide = x.wide();
    let sum = (1..p).fold(wide.lgamma(), |sum, i| sum + (&wide - 0.5 * i as f64).lgamma());
    (sum + (p * (p - 1)) as f64 * 0.25 * PI.ln()).to_dtype(x.float_dtype())
}

/// The polynomial of degree `n`, which broadcasts with `x`, by its recurrence: `step`
/// gives that of degree `k + 1` from those of `k` and `k - 1`.
#[track_caller]
fn recurrence(
    x: &Tensor,
    n: &impl Operand,
    first: impl Fn(&Tensor) -> Tensor,
    step: impl Fn(f64, &Tensor, &Tensor, &Tensor) -> Tensor,
) -> Tensor {
    let n = n.as_tensor(DType::I64);
    // Of a traced degree nothing is known: tracing ends here with its own error.
    let highest = n.to_vec::<i64>().into_iter().max().unwrap_or(0);
    if highest > 100_000 {
        panic!("polynomial: degree {highest}; the recurrence is for degrees up to 100000");
    }
    let (mut before, mut now) = (ones_like(x), first(x));
    if n.numel() == 1 && n.rank() == 0 {
        return match highest {
            i64::MIN..=-1 => zeros_like(x),
            0 => before,
            _ => {
                for k in 1..highest {
                    let next = step(k as f64, x, &now, &before);
                    (before, now) = (now, next);
                }
                now
            }
        };
    }
    let shape = crate::broadcast_shapes(&[x.shape(), n.shape()]);
    let mut out = n.eq(0).where_(&before, zeros_like(x)).broadcast_to(shape);
    for k in 1..=highest {
        out = n.eq(k).where_(&now, &out);
        let next = step(k as f64, x, &now, &before);
        (before, now) = (now, next);
    }
    out
}

macro_rules! polynomials {
    ($($(#[$doc:meta])* $name:ident: $at:expr, $first:expr, $step:expr;)*) => {$(
        $(#[$doc])*
        #[track_caller]
        pub fn $name(x: &Tensor, n: impl Operand) -> Tensor {
            let at: fn(&Tensor) -> Tensor = $at;
            recurrence(&at(&x.wide()), &n, $first, $step).to_dtype(x.float_dtype())
        }
    )*};
}

/// `2 x p - q`, which all of Chebyshev's polynomials share.
#[track_caller]
fn chebyshev(_: f64, x: &Tensor, p: &Tensor, q: &Tensor) -> Tensor {
    x * p * 2.0 - q
}

// Recurrences: DLMF 18.9. A degree below zero gives zero.
polynomials! {
    /// Chebyshev's polynomial of the first kind, of degree `n`.
    chebyshev_polynomial_t: |x| x.clone(), |x| x.clone(), chebyshev;
    /// Chebyshev's polynomial of the second kind, of degree `n`.
    chebyshev_polynomial_u: |x| x.clone(), |x| x * 2.0, chebyshev;
    /// Chebyshev's polynomial of the third kind, of degree `n`.
    chebyshev_polynomial_v: |x| x.clone(), |x| x * 2.0 - 1.0, chebyshev;
    /// Chebyshev's polynomial of the fourth kind, of degree `n`.
    chebyshev_polynomial_w: |x| x.clone(), |x| x * 2.0 + 1.0, chebyshev;
    /// Chebyshev's polynomial of the first kind, of degree `n`, at `2x - 1`.
    shifted_chebyshev_polynomial_t: |x| x * 2.0 - 1.0, |x| x.clone(), chebyshev;
    /// Chebyshev's polynomial of the second kind, of degree `n`, at `2x - 1`.
    shifted_chebyshev_polynomial_u: |x| x * 2.0 - 1.0, |x| x * 2.0, chebyshev;
    /// Chebyshev's polynomial of the third kind, of degree `n`, at `2x - 1`.
    shifted_chebyshev_polynomial_v: |x| x * 2.0 - 1.0, |x| x * 2.0 - 1.0, chebyshev;
    /// Chebyshev's polynomial of the fourth kind, of degree `n`, at `2x - 1`.
    shifted_chebyshev_polynomial_w: |x| x * 2.0 - 1.0, |x| x * 2.0 + 1.0, chebyshev;
    /// The physicists' Hermite polynomial of degree `n`.
    hermite_polynomial_h: |x| x.clone(), |x| x * 2.0, |k, x, p, q| x * p * 2.0 - q * (2.0 * k);
    /// The probabilists' Hermite polynomial of degree `n`.
    hermite_polynomial_he: |x| x.clone(), |x| x.clone(), |k, x, p, q| x * p - q * k;
    /// Laguerre's polynomial of degree `n`.
    laguerre_polynomial_l: |x| x.clone(), |x| 1.0 - x,
        |k, x, p, q| ((2.0 * k + 1.0 - x) * p - q * k) / (k + 1.0);
    /// Legendre's polynomial of degree `n`.
    legendre_polynomial_p: |x| x.clone(), |x| x.clone(),
        |k, x, p, q| (x * p * (2.0 * k + 1.0) - q * k) / (k + 1.0);
}
