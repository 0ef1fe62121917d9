//! Numbers that describe a matrix: determinants, norms, rank, condition.

use super::factor::lu_factor_quiet;
use super::solve::{parity, tolerances};
use super::{check_matrix, check_square, diagonal_of, inv_ex, svdvals};
use crate::tensor::Tensor;
use sinter_runtime::op::Axes;
use sinter_runtime::{DType, Shape};

/// The determinant of square matrices [.., n, n]: [..].
///
/// Of a singular matrix it is zero, and so is its derivative where one pivot is zero.
#[track_caller]
pub fn det(a: &Tensor) -> Tensor {
    check_square("linalg.det", a);
    let (f, pivots) = lu_factor_quiet(a);
    let p = diagonal_of(&f).prod_dim(-1, false);
    &p * parity(&pivots).to_dtype(p.dtype())
}

/// The determinant as sign and logarithm of its magnitude: `det = sign · e^logabs`. Of a
/// singular matrix 0 and -∞.
#[track_caller]
pub fn slogdet(a: &Tensor) -> (Tensor, Tensor) {
    check_square("linalg.slogdet", a);
    let (f, pivots) = lu_factor_quiet(a);
    let d = diagonal_of(&f);
    let signs = d.sgn().prod_dim(-1, false);
    let signs = &signs * parity(&pivots).to_dtype(signs.dtype());
    (signs, d.abs().ln().sum_dim(-1, false))
}

/// The logarithm of the determinant; NaN where that is negative, -∞ where it is zero.
#[track_caller]
pub fn logdet(a: &Tensor) -> Tensor {
    let (signs, logabs) = slogdet(a);
    if a.is_complex() {
        return logabs.to_dtype(a.dtype()) + signs.ln();
    }
    let negative = signs.detach().lt(0.0);
    logabs.masked_fill(&negative, f64::NAN)
}

/// Which norm.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Norm {
    /// Of a matrix: the root of the sum of squares (Frobenius).
    Fro,
    /// Of a matrix: the sum of singular values.
    Nuc,
    /// Of a vector: `(Σ |x|^p)^(1/p)`, with its limits for 0 and ±∞. Of a matrix: ±1 is the
    /// largest (smallest) sum of a column, ±∞ that of a row, ±2 the largest (smallest)
    /// singular value.
    P(f64),
}

impl From<f64> for Norm {
    fn from(p: f64) -> Norm {
        Norm::P(p)
    }
}

/// Every dimension where none is named.
fn all_or(x: &Tensor, op: &str, dims: impl crate::tensor::IntoAxes) -> Axes {
    let axes = x.axes(op, dims);
    if axes.is_empty() { (0..x.rank()).collect() } else { axes }
}

#[track_caller]
fn check_float(op: &str, x: &Tensor) {
    if !x.dtype().is_differentiable() {
        panic!(
            "{op}: needs a floating-point tensor, got {}; convert it with `to_dtype`",
            x.dtype()
        );
    }
}

/// A root whose derivative at zero is zero, as that of a norm is taken to be.
fn root(sum: &Tensor, of: impl Fn(&Tensor) -> Tensor) -> Tensor {
    let zero = sum.detach().eq(0.0);
    of(&sum.masked_fill(&zero, 1.0)).masked_fill(&zero, 0.0)
}

/// The `ord`-norm of the elements over `dims` (over all when there are none), which stay
/// as ones when `keep`: `(Σ |x|^ord)^(1/ord)`; the number of elements that are not zero
/// for 0, the largest and smallest magnitude for ±∞.
///
/// ```
/// use sinter::{linalg::vector_norm, tensor};
/// let x = tensor([3.0, -4.0, 0.0]);
/// let norm = |p| vector_norm(&x, p, (), false).item::<f64>();
/// assert_eq!([norm(2.0), norm(1.0), norm(0.0)], [5.0, 7.0, 2.0]);
/// assert_eq!(norm(f64::INFINITY), 4.0);
/// ```
///
/// # Panics
/// If the tensor is not floating point, or the largest of nothing is asked for.
#[track_caller]
pub fn vector_norm(x: &Tensor, ord: f64, dims: impl crate::tensor::IntoAxes, keep: bool) -> Tensor {
    check_float("linalg.vector_norm", x);
    // As PyTorch, a number has one dimension where one is named.
    let axes = if x.rank() == 0 { Axes::new() } else { all_or(x, "linalg.vector_norm", dims) };
    if axes.is_empty() {
        let a = x.abs();
        return if ord == 0.0 { a.ne(0.0).to_dtype(a.dtype()) } else { a };
    }
    let sum = |t: &Tensor| t.sum_dim(axes.as_slice(), keep);
    if ord == 2.0 {
        let squares = x.abs().square();
        return root(&sum(&squares), Tensor::sqrt);
    }
    let a = x.abs();
    match ord {
        1.0 => sum(&a),
        0.0 => sum(&a.ne(0.0).to_dtype(a.dtype())),
        f64::INFINITY => a.amax(axes.as_slice(), keep),
        f64::NEG_INFINITY => a.amin(axes.as_slice(), keep),
        // Powers below one are infinitely steep at zero; nothing flows there.
        p => {
            let zero = a.detach().eq(0.0);
            let powers = if p > 0.0 {
                a.masked_fill(&zero, 1.0).powf(p).masked_fill(&zero, 0.0)
            } else {
                a.powf(p)
            };
            if p > 0.0 {
                root(&sum(&powers), |s| s.powf(1.0 / p))
            } else {
                sum(&powers).powf(1.0 / p)
            }
        }
    }
}

/// The norm of matrices over two dimensions, which stay as ones when `keep`.
///
/// # Panics
/// If the tensor has no matrices, or the norm is none of a matrix.
#[track_caller]
pub fn matrix_norm(x: &Tensor, ord: impl Into<Norm>, dims: [i64; 2], keep: bool) -> Tensor {
    let op = "linalg.matrix_norm";
    check_matrix_of(op, x);
    let (r, c) = (x.axis(op, dims[0]), x.axis(op, dims[1]));
    if r == c {
        panic!("{op}: the dimensions {} and {} are the same", dims[0], dims[1]);
    }
    let ord = ord.into();
    // The columns' sums lie along the rows, and the other way round.
    let sums = |along: usize, rest: usize, largest: bool| {
        let sum = x.abs().sum_dim(along as i64, true);
        if largest && sum.shape()[rest] == 0 {
            // The largest of nothing is zero, as magnitudes go.
            return dropped(&sum.sum_dim(rest as i64, true), r, c, keep);
        }
        let best = if largest { sum.amax(rest as i64, true) } else { sum.amin(rest as i64, true) };
        dropped(&best, r, c, keep)
    };
    let singular = |pick: &dyn Fn(&Tensor) -> Tensor| {
        let order: Shape = (0..x.rank()).filter(|&d| d != r && d != c).chain([r, c]).collect();
        let value = pick(&svdvals(&x.permute(order)));
        if !keep {
            return value;
        }
        let mut shape: Shape = x.shape().into();
        (shape[r], shape[c]) = (1, 1);
        value.reshape(shape)
    };
    match ord {
        Norm::Fro => vector_norm(x, 2.0, [r, c], keep),
        Norm::Nuc => singular(&|s| s.sum_dim(-1, false)),
        Norm::P(2.0) => singular(&|s| {
            if s.size(-1) == 0 { s.sum_dim(-1, false) } else { s.amax(-1, false) }
        }),
        Norm::P(-2.0) => singular(&|s| s.amin(-1, false)),
        Norm::P(1.0) => sums(r, c, true),
        Norm::P(-1.0) => sums(r, c, false),
        Norm::P(f64::INFINITY) => sums(c, r, true),
        Norm::P(f64::NEG_INFINITY) => sums(c, r, false),
        Norm::P(p) => panic!("{op}: {p} is no norm of a matrix; there are fro, nuc, ±1, ±2, ±∞"),
    }
}

#[track_caller]
fn check_matrix_of(op: &str, x: &Tensor) {
    check_float(op, x);
    if x.rank() < 2 {
        panic!("{op}: needs a matrix, the shape is {:?}", x.shape());
    }
}

/// Without two dimensions of extent one, unless they are kept.
fn dropped(x: &Tensor, r: usize, c: usize, keep: bool) -> Tensor {
    if keep {
        return x.clone();
    }
    x.squeeze(r.max(c) as i64).squeeze(r.min(c) as i64)
}

/// A norm of vectors or matrices, as `torch.linalg.norm`: without an order the 2-norm of
/// all elements of `dims` (of all where there are none); with one, that of a vector over
/// one dimension and of a matrix over two.
///
/// # Panics
/// If an order is given and there are neither one nor two dimensions.
#[track_caller]
pub fn norm(
    x: &Tensor,
    ord: impl Into<Option<Norm>>,
    dims: impl crate::tensor::IntoAxes,
    keep: bool,
) -> Tensor {
    let op = "linalg.norm";
    let axes = x.axes(op, dims);
    let Some(ord) = ord.into() else { return vector_norm(x, 2.0, axes, keep) };
    let all: Axes = (0..x.rank()).collect();
    let over = if axes.is_empty() { &all } else { &axes };
    match (over.as_slice(), ord) {
        ([r, c], ord) => matrix_norm(x, ord, [*r as i64, *c as i64], keep),
        ([d], Norm::P(p)) => vector_norm(x, p, [*d], keep),
        _ => panic!(
            "{op}: the norm {ord:?} needs {}, got {} of {:?}",
            if matches!(ord, Norm::P(_)) { "one or two dimensions" } else { "two dimensions" },
            over.len(),
            x.shape()
        ),
    }
}

/// The rank of matrices [.., m, n], as i64 [..]: how many singular values are above
/// `max(atol, rtol · largest)`. The defaults are those of [`pinv`](super::pinv). Of
/// `hermitian` matrices the lower triangle is read.
#[track_caller]
pub fn matrix_rank(
    a: &Tensor,
    atol: impl Into<Option<f64>>,
    rtol: impl Into<Option<f64>>,
    hermitian: bool,
) -> Tensor {
    check_matrix("linalg.matrix_rank", a);
    let s = crate::no_grad(|| {
        let a = a.detach();
        if hermitian { super::eigvalsh(&a, false).abs() } else { svdvals(&a) }
    });
    rank_of(a, &s, atol.into(), rtol.into())
}

/// How many of the singular values `s` of `a` are not zero.
pub(super) fn rank_of(a: &Tensor, s: &Tensor, atol: Option<f64>, rtol: Option<f64>) -> Tensor {
    if s.size(-1) == 0 {
        return s.sum_dim(-1, false).to_dtype(DType::I64);
    }
    let (atol, rtol) = tolerances(a, atol, rtol);
    let limit = (s.amax(-1, true) * rtol).maximum(atol);
    s.gt(&limit).sum_dim(-1, false)
}

/// The condition number `‖a‖ ‖a⁻¹‖` in a norm of matrices; by default the 2-norm, the
/// largest singular value over the smallest, which matrices that are not square have, too.
/// Infinite where the matrix is singular.
#[track_caller]
pub fn cond(a: &Tensor, ord: impl Into<Option<Norm>>) -> Tensor {
    let op = "linalg.cond";
    check_matrix(op, a);
    match ord.into().unwrap_or(Norm::P(2.0)) {
        Norm::P(2.0) => {
            let s = svdvals(a);
            s.amax(-1, false) / s.amin(-1, false)
        }
        Norm::P(-2.0) => {
            let s = svdvals(a);
            s.amin(-1, false) / s.amax(-1, false)
        }
        ord => {
            check_square(op, a);
            let (inverse, info) = inv_ex(a);
            let n =
                matrix_norm(a, ord, [-2, -1], false) * matrix_norm(&inverse, ord, [-2, -1], false);
            n.masked_fill(&info.ne(0), f64::INFINITY)
        }
    }
}

impl Tensor {
    /// [`linalg::det`](crate::linalg::det).
    #[track_caller]
    pub fn det(&self) -> Tensor {
        det(self)
    }

    /// [`linalg::logdet`](crate::linalg::logdet).
    #[track_caller]
    pub fn logdet(&self) -> Tensor {
        logdet(self)
    }

    /// [`linalg::slogdet`](crate::linalg::slogdet).
    #[track_caller]
    pub fn slogdet(&self) -> (Tensor, Tensor) {
        slogdet(self)
    }
}
