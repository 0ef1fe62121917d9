//! Equations and inverses.

use super::factor::{first_zero, lu_factor_quiet};
use super::{
    adjoint, check_info, check_matrix, check_square, epsilon, identity, rows_of_pivots, same_batch,
    solve_triangle,
};
use crate::autograd::{Function, FunctionCtx};
use crate::tensor::Tensor;
use sinter_runtime::Shape;

/// The solution of `a x = b` for triangular `a` [.., n, n], of which only the `upper` or
/// the lower triangle is read; of `x a = b` unless `left`. With `unitriangular`, ones
/// stand on the diagonal. Batches broadcast.
///
/// # Panics
/// If the shapes do not fit.
#[track_caller]
pub fn solve_triangular(
    a: &Tensor,
    b: &Tensor,
    upper: bool,
    left: bool,
    unitriangular: bool,
) -> Tensor {
    let op = "linalg.solve_triangular";
    check_square(op, a);
    check_matrix(op, b);
    let rows = b.size(if left { -2 } else { -1 });
    if rows != a.size(-1) {
        panic!("{op}: matrices {:?} and right-hand sides {:?} do not fit", a.shape(), b.shape());
    }
    let (a, b) = same_batch(op, a, b);
    if left {
        return solve_triangle(&a, &b, upper, unitriangular);
    }
    let t = |x: &Tensor| x.transpose(-1, -2);
    t(&solve_triangle(&t(&a), &t(&b), !upper, unitriangular))
}

/// The solution of `a x = b`: `a` [.., n, n], `b` [.., n, k] or a vector `[n]` (of a batch,
/// [.., n] with exactly the batch of `a`). Batches broadcast.
///
/// # Panics
/// If a matrix is singular, or the shapes do not fit.
#[track_caller]
pub fn solve(a: &Tensor, b: &Tensor) -> Tensor {
    let (x, info) = solve_ex(a, b);
    check_info("linalg.solve", &info, |_| "the matrix is singular".to_string());
    x
}

/// [`solve`] without a panic for singular matrices: the solution and, as i32 [..], 0 or the
/// place, counting from 1, of the first zero pivot.
#[track_caller]
pub fn solve_ex(a: &Tensor, b: &Tensor) -> (Tensor, Tensor) {
    let op = "linalg.solve";
    check_square(op, a);
    let vector = b.rank() == 1 || b.rank() + 1 == a.rank() && b.shape() == &a.shape()[..b.rank()];
    let b = if vector { b.unsqueeze(-1) } else { b.clone() };
    check_matrix(op, &b);
    if b.size(-2) != a.size(-1) {
        panic!("{op}: matrices {:?} and right-hand sides {:?} do not fit", a.shape(), b.shape());
    }
    let (x, info) = solve_matrices(a, &b);
    (if vector { x.squeeze(-1) } else { x }, info)
}

#[track_caller]
fn solve_matrices(a: &Tensor, b: &Tensor) -> (Tensor, Tensor) {
    let (f, pivots) = lu_factor_quiet(a);
    let info = first_zero(&f);
    (solve_factors(&f, &pivots, b), info)
}

/// `x` with `p l u x = b`; batches broadcast.
#[track_caller]
fn solve_factors(f: &Tensor, pivots: &Tensor, b: &Tensor) -> Tensor {
    let op = "linalg.solve";
    let rows = rows_of_pivots(pivots, f.size(-1)).unsqueeze(-1);
    let (f, b) = same_batch(op, f, b);
    let y = b.gather(-2, &rows.broadcast_to(b.shape()));
    solve_triangle(&f, &solve_triangle(&f, &y, false, true), true, false)
}

/// The solution of `a x = b` from the factors of [`lu_factor`](super::lu_factor); of
/// `x a = b` unless `left`; of `aᴴ` in place of `a` with `adjoint`.
///
/// # Panics
/// If the shapes do not fit.
#[track_caller]
pub fn lu_solve(
    factors: &Tensor,
    pivots: &Tensor,
    b: &Tensor,
    left: bool,
    adjoint: bool,
) -> Tensor {
    let op = "linalg.lu_solve";
    check_square(op, factors);
    check_matrix(op, b);
    if b.size(if left { -2 } else { -1 }) != factors.size(-1) {
        panic!(
            "{op}: factors {:?} and right-hand sides {:?} do not fit",
            factors.shape(),
            b.shape()
        );
    }
    let h = super::adjoint;
    match (left, adjoint) {
        (true, false) => solve_factors(factors, pivots, b),
        (true, true) => solve_adjoint(factors, pivots, b),
        // x a = b is aᴴ xᴴ = bᴴ.
        (false, false) => h(&solve_adjoint(factors, pivots, &h(b))),
        (false, true) => h(&solve_factors(factors, pivots, &h(b))),
    }
}

/// `x` with `(p l u)ᴴ x = b`.
#[track_caller]
fn solve_adjoint(f: &Tensor, pivots: &Tensor, b: &Tensor) -> Tensor {
    let back = rows_of_pivots(pivots, f.size(-1)).argsort(-1, false).unsqueeze(-1);
    let (f, b) = same_batch("linalg.lu_solve", f, b);
    let f = adjoint(&f);
    let y = solve_triangle(&f, &solve_triangle(&f, &b, false, false), true, true);
    y.gather(-2, &back.broadcast_to(y.shape()))
}

/// The inverse of square matrices.
///
/// # Panics
/// If one is singular.
#[track_caller]
pub fn inv(a: &Tensor) -> Tensor {
    let (x, info) = inv_ex(a);
    check_info("linalg.inv", &info, |k| {
        format!("the matrix is singular: pivot {k}, counting from 1, is zero")
    });
    x
}

/// [`inv`] without a panic; the second result is that of [`solve_ex`].
#[track_caller]
pub fn inv_ex(a: &Tensor) -> (Tensor, Tensor) {
    check_square("linalg.inv", a);
    let one = identity(a.size(-1), a);
    solve_matrices(a, &one)
}

/// The solution of `a x = b` from the factor `l` (`upper`: its adjoint) that
/// [`cholesky`](super::cholesky) gives. `b` [.., n, k].
#[track_caller]
pub fn cholesky_solve(b: &Tensor, l: &Tensor, upper: bool) -> Tensor {
    let op = "cholesky_solve";
    check_square(op, l);
    check_matrix(op, b);
    if b.size(-2) != l.size(-1) {
        panic!("{op}: factors {:?} and right-hand sides {:?} do not fit", l.shape(), b.shape());
    }
    let (l, b) = same_batch(op, l, b);
    let l = if upper { adjoint(&l) } else { l };
    solve_triangle(&adjoint(&l), &solve_triangle(&l, &b, false, false), true, false)
}

/// The inverse of the matrix whose factor [`cholesky`](super::cholesky) gave.
#[track_caller]
pub fn cholesky_inverse(l: &Tensor, upper: bool) -> Tensor {
    check_square("cholesky_inverse", l);
    cholesky_solve(&identity(l.size(-1), l), l, upper)
}

/// The pseudoinverse (Moore, Penrose): singular values at most `max(atol, rtol · largest)`
/// count as zero. By default `atol` is 0 and `rtol` is max(m, n) times the type's precision
/// (0 where `atol` is given). Of `hermitian` matrices the lower triangle is read.
///
/// Its derivative is that among matrices of the same rank (Golub & Pereyra 1973).
#[track_caller]
pub fn pinv(
    a: &Tensor,
    atol: impl Into<Option<f64>>,
    rtol: impl Into<Option<f64>>,
    hermitian: bool,
) -> Tensor {
    if hermitian {
        check_square("linalg.pinv", a);
    }
    check_matrix("linalg.pinv", a);
    if a.numel() == 0 {
        return adjoint(a).copy();
    }
    let (atol, rtol) = tolerances(a, atol.into(), rtol.into());
    // What is read of a Hermitian matrix, as a matrix.
    let whole = if hermitian {
        let lower = a.tril(-1);
        &lower
            + adjoint(&lower)
            + super::diag_embed(&super::diagonal_of(a).real().to_dtype(a.dtype()))
    } else {
        a.clone()
    };
    Pinv { atol, rtol }.apply(&[&whole]).swap_remove(0)
}

/// The pseudoinverse, with a derivative that does not go through singular vectors: these
/// have none where singular values are equal, as those that are zero are.
struct Pinv {
    atol: f64,
    rtol: f64,
}

impl Function for Pinv {
    fn forward(&self, ctx: &mut FunctionCtx, inputs: &[&Tensor]) -> Vec<Tensor> {
        let a = inputs[0];
        let (u, s, vh) = super::svd(a, false);
        let limit = (s.amax(-1, true) * self.rtol).maximum(self.atol);
        let small = s.le(&limit);
        let inverse = s.masked_fill(&small, 1.0).reciprocal().masked_fill(&small, 0.0);
        let p = (adjoint(&vh) * inverse.to_dtype(a.dtype()).unsqueeze(-2)).matmul(&adjoint(&u));
        ctx.save_for_backward(&[a]);
        vec![p]
    }

    /// `dp = -p da p + (1 - p a) daᴴ pᴴ p + p pᴴ daᴴ (1 - a p)`, transposed.
    fn backward(&self, ctx: &FunctionCtx, grads: &[Option<Tensor>]) -> Vec<Option<Tensor>> {
        let Some(g) = &grads[0] else { return vec![None] };
        let a = &ctx.saved_tensors()[0];
        let p = Pinv { atol: self.atol, rtol: self.rtol }.apply(&[a]).swap_remove(0);
        let (ph, gh) = (adjoint(&p), adjoint(g));
        let (left, right) = (p.matmul(a), a.matmul(&p));
        let direct = ph.matmul(g).matmul(&ph);
        // ⟨g, (1 - p a) daᴴ pᴴ p⟩ = ⟨pᴴ p gᴴ (1 - p a), da⟩, and the like.
        let columns = gh.matmul(&p).matmul(&ph);
        let first = ph.matmul(&p).matmul(&gh);
        let first = &first - first.matmul(&left);
        let second = &columns - right.matmul(&columns);
        vec![Some(first + second - direct)]
    }

    fn name(&self) -> &'static str {
        "linalg.pinv"
    }
}

/// The tolerances for which singular values are zero.
pub(super) fn tolerances(a: &Tensor, atol: Option<f64>, rtol: Option<f64>) -> (f64, f64) {
    let default = if atol.is_some_and(|t| t > 0.0) {
        0.0
    } else {
        a.size(-1).max(a.size(-2)) as f64 * epsilon(a)
    };
    (atol.unwrap_or(0.0), rtol.unwrap_or(default))
}

/// What [`lstsq`] finds.
#[derive(Clone)]
pub struct Lstsq {
    /// The solution [.., n, k] of least norm.
    pub solution: Tensor,
    /// Sums of squared residuals [.., k]; empty unless m > n and all ranks are n.
    pub residuals: Tensor,
    /// The rank of each matrix, i64 [..].
    pub rank: Tensor,
    /// The singular values [.., min(m, n)].
    pub singular_values: Tensor,
}

/// The `x` that minimises `‖a x - b‖`, and of those the smallest: `a` [.., m, n], `b`
/// [.., m, k]. Singular values at most `rcond` times the largest count as zero; the
/// default is max(m, n) times the type's precision.
///
/// Matrices of full rank are solved by their QR factors, others by [`pinv`].
///
/// # Panics
/// If the shapes do not fit.
#[track_caller]
pub fn lstsq(a: &Tensor, b: &Tensor, rcond: impl Into<Option<f64>>) -> Lstsq {
    let op = "linalg.lstsq";
    check_matrix(op, a);
    let vector = b.rank() + 1 == a.rank() && b.shape() == &a.shape()[..b.rank()];
    let b = if vector { b.unsqueeze(-1) } else { b.clone() };
    check_matrix(op, &b);
    let (m, n) = (a.size(-2), a.size(-1));
    if b.size(-2) != m {
        panic!("{op}: matrices {:?} and right-hand sides {:?} do not fit", a.shape(), b.shape());
    }
    let rcond = rcond.into();
    let singular_values = crate::no_grad(|| super::svdvals(&a.detach()));
    let rank = super::measure::rank_of(a, &singular_values, None, rcond);
    let full = rank.to_vec::<i64>().iter().all(|&r| r == m.min(n) as i64);
    let (a, b) = same_batch(op, a, &b);
    let solution = if !full {
        pinv(&a, None, rcond, false).matmul(&b)
    } else if m >= n {
        let (q, r) = super::qr(&a, false);
        solve_triangle(&r, &adjoint(&q).matmul(&b), true, false)
    } else {
        let (q, r) = super::qr(&adjoint(&a), false);
        q.matmul(&solve_triangle(&adjoint(&r), &b, false, false))
    };
    let residuals = if full && m > n {
        let off = a.matmul(&solution) - &b;
        super::vector_norm(&off, 2.0, [-2], false).square()
    } else {
        crate::tensor::empty([0], a.dtype().real())
    };
    let solution = if vector { solution.squeeze(-1) } else { solution };
    Lstsq { solution, residuals, rank, singular_values }
}

/// The inverse of `a` as a map from its last dimensions to its first `ind` ones:
/// `tensordot(tensorinv(a, ind), a, ind)` is the identity.
///
/// # Panics
/// If the first and the last dimensions do not have equally many elements.
#[track_caller]
pub fn tensorinv(a: &Tensor, ind: usize) -> Tensor {
    let op = "linalg.tensorinv";
    if ind == 0 || ind > a.rank() {
        panic!("{op}: ind = {ind} must be between 1 and the rank of {:?}", a.shape());
    }
    let (first, last) = a.shape().split_at(ind);
    let (n, k): (usize, usize) = (first.iter().product(), last.iter().product());
    if n != k {
        panic!(
            "{op}: the first {ind} dimensions of {:?} hold {n} elements, the others {k}",
            a.shape()
        );
    }
    let shape: Shape = last.iter().chain(first).copied().collect();
    inv(&a.reshape([n, n])).reshape(shape)
}

/// `x` with `tensordot(a, x, x.rank()) = b`, after the dimensions `dims` of `a` have been
/// moved to its end.
///
/// # Panics
/// If the dimensions do not make up a square problem.
#[track_caller]
pub fn tensorsolve(a: &Tensor, b: &Tensor, dims: &[i64]) -> Tensor {
    let op = "linalg.tensorsolve";
    let moved = a.axes(op, dims);
    let order: Shape =
        (0..a.rank()).filter(|d| !moved.contains(d)).chain(moved.iter().copied()).collect();
    let a = a.permute(order);
    let Some(tail) = a.rank().checked_sub(b.rank()) else {
        panic!("{op}: `b` {:?} has more dimensions than `a` {:?}", b.shape(), a.shape());
    };
    let result: Shape = a.shape()[a.rank() - tail..].into();
    let n: usize = result.iter().product();
    if n != b.numel() || n * n != a.numel() {
        panic!("{op}: `a` {:?} and `b` {:?} do not make up a square problem", a.shape(), b.shape());
    }
    solve(&a.reshape([n, n]), &b.reshape([n])).reshape(result)
}

impl Tensor {
    /// [`linalg::inv`](crate::linalg::inv).
    #[track_caller]
    pub fn inverse(&self) -> Tensor {
        inv(self)
    }

    /// [`linalg::pinv`](crate::linalg::pinv); singular values at most `rcond` times the
    /// largest count as zero.
    #[track_caller]
    pub fn pinverse(&self, rcond: f64) -> Tensor {
        pinv(self, None, rcond, false)
    }
}

/// The product of the pivots' signs: -1 for an odd number of exchanges.
pub(super) fn parity(pivots: &Tensor) -> Tensor {
    let k = pivots.size(-1);
    let own = crate::tensor::arange(1i64, k as i64 + 1, 1i64);
    let exchanged = pivots.to_dtype(sinter_runtime::DType::I64).ne(&own);
    let odd = exchanged.sum_dim(-1, false).remainder(2);
    1 - odd * 2
}
