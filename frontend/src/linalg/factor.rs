//! Factorisations.

use super::{
    adjoint, check_info, check_matrix, check_square, diagonal_of, fill_diagonal, rows_of_pivots,
};
use crate::tensor::{Tensor, apply_all};
use sinter_runtime::{DType, Op};

/// Applies an op with two results.
#[track_caller]
pub(super) fn two(op: Op, x: &Tensor) -> (Tensor, Tensor) {
    let mut it = apply_all(op, &[x]).into_iter();
    match (it.next(), it.next()) {
        (Some(a), Some(b)) => (a, b),
        _ => unreachable!("called for ops with two results"),
    }
}

/// The lower triangular `l` with `a = l lᴴ` (with `upper`, its adjoint), for Hermitian
/// positive definite matrices [.., n, n], of which the lower triangle is read (the
/// upper one with `upper`).
///
/// # Panics
/// If a matrix is not positive definite; [`cholesky_ex`] says so by a number instead.
#[track_caller]
pub fn cholesky(a: &Tensor, upper: bool) -> Tensor {
    let (l, info) = cholesky_ex(a, upper);
    check_info("linalg.cholesky", &info, |minor| {
        format!(
            "the matrix is not positive definite: its leading minor of order {minor} is not positive"
        )
    });
    l
}

/// [`cholesky`] without a panic: the factor and, as i32 [..], 0 or the order of the first
/// leading minor that is not positive. The factor is NaN there.
#[track_caller]
pub fn cholesky_ex(a: &Tensor, upper: bool) -> (Tensor, Tensor) {
    check_square("linalg.cholesky", a);
    let lower = if upper { adjoint(a) } else { a.clone() };
    let (l, info) = two(Op::Cholesky {}, &lower);
    (if upper { adjoint(&l) } else { l }, info)
}

/// `a = p l u` with partial pivoting: the permutation [.., m, m], the unit lower
/// triangular `l` [.., m, k] and the upper triangular `u` [.., k, n], k = min(m, n).
#[track_caller]
pub fn lu(a: &Tensor) -> (Tensor, Tensor, Tensor) {
    check_matrix("linalg.lu", a);
    let (f, pivots) = lu_factor_quiet(a);
    lu_unpack(&f, &pivots)
}

/// The factors of `a = p l u` in one matrix [.., m, n], `l` below its diagonal and `u` on
/// and above, and the pivots, i32 [.., min(m, n)]: with which row, counting from 1, each
/// row was exchanged.
///
/// # Panics
/// If a square matrix is singular: its `u` has a zero on the diagonal.
#[track_caller]
pub fn lu_factor(a: &Tensor) -> (Tensor, Tensor) {
    let (f, pivots, info) = lu_factor_ex(a);
    if a.size(-1) == a.size(-2) {
        check_info("linalg.lu_factor", &info, |k| {
            format!("the matrix is singular: U has a zero at ({k}, {k}), counting from 1")
        });
    }
    (f, pivots)
}

#[track_caller]
pub(super) fn lu_factor_quiet(a: &Tensor) -> (Tensor, Tensor) {
    two(Op::Lu {}, a)
}

/// [`lu_factor`] without a panic; the third result, i32 [..], is 0 or the place, counting
/// from 1, of the first zero on the diagonal of `u`.
#[track_caller]
pub fn lu_factor_ex(a: &Tensor) -> (Tensor, Tensor, Tensor) {
    check_matrix("linalg.lu_factor", a);
    let (f, pivots) = lu_factor_quiet(a);
    let info = first_zero(&f);
    (f, pivots, info)
}

/// 0, or the place of the first zero on the diagonal, counting from 1.
#[track_caller]
pub(super) fn first_zero(f: &Tensor) -> Tensor {
    let f = f.detach();
    let k = f.size(-1).min(f.size(-2));
    let batch = &f.shape()[..f.rank() - 2];
    if k == 0 {
        return crate::tensor::full(batch.to_vec(), 0, DType::I32);
    }
    let zero = diagonal_of(&f).eq(0.0);
    let first = zero.to_dtype(DType::I64).argmax_dim(-1, false) + 1;
    first.masked_fill(&zero.any_dim(-1, false).logical_not(), 0).to_dtype(DType::I32)
}

/// The permutation, `l` and `u` of what [`lu_factor`] gives.
///
/// # Panics
/// If the pivots do not fit the factors.
#[track_caller]
pub fn lu_unpack(factors: &Tensor, pivots: &Tensor) -> (Tensor, Tensor, Tensor) {
    check_matrix("lu_unpack", factors);
    let (m, n) = (factors.size(-2), factors.size(-1));
    let k = m.min(n);
    if pivots.shape() != [&factors.shape()[..factors.rank() - 2], &[k]].concat() {
        panic!(
            "lu_unpack: pivots {:?} do not belong to factors {:?}",
            pivots.shape(),
            factors.shape()
        );
    }
    let rows = rows_of_pivots(pivots, m);
    // Column j of p has its one in row rows[j].
    let iota = crate::tensor::arange(0i64, m as i64, 1i64).unsqueeze(-1);
    let p = rows.unsqueeze(-2).eq(&iota).to_dtype(factors.dtype());
    let l = fill_diagonal(&factors.narrow(-1, 0, k).tril(-1), 1.0);
    let u = factors.narrow(-2, 0, k).triu(0);
    (p, l, u)
}

/// `a = q r`: `q` with orthonormal columns and `r` upper triangular. With `complete`, `q`
/// is square; otherwise `q` is [.., m, k] and `r` [.., k, n] with k = min(m, n).
#[track_caller]
pub fn qr(a: &Tensor, complete: bool) -> (Tensor, Tensor) {
    check_matrix("linalg.qr", a);
    two(Op::Qr { full: complete }, a)
}

/// `a = u diag(s) vh`, the singular values `s` falling: `u` [.., m, k], `s` [.., k], `vh`
/// [.., k, n] with k = min(m, n); with `full_matrices` all singular vectors.
///
/// Derivatives by `u` and `vh` exist where no two singular values are equal, and for
/// matrices that are not square where none is zero.
///
/// # Panics
/// If a matrix holds NaN or infinity.
#[track_caller]
pub fn svd(a: &Tensor, full_matrices: bool) -> (Tensor, Tensor, Tensor) {
    check_matrix("linalg.svd", a);
    let mut it = apply_all(Op::Svd { full: full_matrices }, &[a]).into_iter();
    match (it.next(), it.next(), it.next()) {
        (Some(u), Some(s), Some(vh)) => (u, s, vh),
        _ => unreachable!("the SVD has three results"),
    }
}

/// The singular values, falling.
#[track_caller]
pub fn svdvals(a: &Tensor) -> Tensor {
    svd(a, false).1
}

/// `a = v diag(w) vᴴ` for Hermitian matrices, of which the lower triangle is read (the
/// upper one with `upper`): eigenvalues `w` [.., n], rising, and eigenvectors in the
/// columns of `v`.
///
/// Derivatives by `v` exist where no two eigenvalues are equal.
///
/// # Panics
/// If a matrix holds NaN or infinity.
#[track_caller]
pub fn eigh(a: &Tensor, upper: bool) -> (Tensor, Tensor) {
    check_square("linalg.eigh", a);
    let lower = if upper { adjoint(a) } else { a.clone() };
    two(Op::Eigh {}, &lower)
}

/// `a v = v diag(w)` for any square matrices: complex eigenvalues `w` [.., n], in no particular
/// order, and eigenvectors of length one in the columns of `v`.
///
/// Derivatives by `v` exist where no two eigenvalues are equal, for losses that do not depend
/// on the phase of vectors.
///
/// # Panics
/// If a matrix holds NaN or infinity.
#[track_caller]
pub fn eig(a: &Tensor) -> (Tensor, Tensor) {
    check_square("linalg.eig", a);
    two(Op::Eig {}, a)
}

/// The eigenvalues of square matrices, complex, in no particular order.
#[track_caller]
pub fn eigvals(a: &Tensor) -> Tensor {
    eig(a).0
}

/// The eigenvalues of Hermitian matrices, rising.
#[track_caller]
pub fn eigvalsh(a: &Tensor, upper: bool) -> Tensor {
    eigh(a, upper).0
}

impl Tensor {
    /// [`linalg::qr`](crate::linalg::qr) in the reduced form.
    #[track_caller]
    pub fn qr(&self) -> (Tensor, Tensor) {
        qr(self, false)
    }

    /// [`linalg::cholesky`](crate::linalg::cholesky).
    #[track_caller]
    pub fn cholesky(&self, upper: bool) -> Tensor {
        cholesky(self, upper)
    }

    /// `u`, `s` and `v` with `x = u diag(s) vᴴ`, in the reduced form. (As PyTorch's
    /// method; [`linalg::svd`](crate::linalg::svd) gives `vᴴ`.)
    #[track_caller]
    pub fn svd(&self) -> (Tensor, Tensor, Tensor) {
        let (u, s, vh) = svd(self, false);
        let v = adjoint(&vh);
        (u, s, v)
    }
}
