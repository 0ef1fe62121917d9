//! Functions of matrices and vectors.

use super::{adjoint, check_matrix, check_square, identity};
use crate::tensor::{Tensor, cat, chain_matmul, ones_like};
use sinter_runtime::{Category, DType};

/// `a` multiplied by itself `n` times; its inverse for negative `n`, the identity for 0.
///
/// # Panics
/// If the matrices are not square; for negative `n`, if one is singular.
#[track_caller]
pub fn matrix_power(a: &Tensor, n: i64) -> Tensor {
    check_square("linalg.matrix_power", a);
    let mut base = if n < 0 { super::inv(a) } else { a.clone() };
    let mut result: Option<Tensor> = None;
    let mut left = n.unsigned_abs();
    while left > 0 {
        if left & 1 == 1 {
            result = Some(match result {
                Some(r) => r.matmul(&base),
                None => base.clone(),
            });
        }
        left >>= 1;
        if left > 0 {
            base = base.matmul(&base);
        }
    }
    // Made of `a`, so that it has a derivative: zero.
    result.unwrap_or_else(|| {
        let zero = a.masked_fill(&crate::tensor::scalar(true, DType::Bool), 0.0);
        super::fill_diagonal(&zero, 1.0)
    })
}

/// The largest 1-norm for which the Taylor polynomial of degree 15 is exact to the
/// precision of f64 (Al-Mohy & Higham 2011, "Computing the action of the matrix
/// exponential", table 3.1).
const TAYLOR_15: f64 = 0.641;

/// The exponential `Σ aᵏ / k!` of square matrices, by scaling and squaring (Moler & Van
/// Loan 2003): the Taylor polynomial of degree 16 of `a / 2ˢ` in six products (Paterson &
/// Stockmeyer 1973), squared s times. One s serves the whole batch.
///
/// ```
/// use sinter::{linalg::matrix_exp, tensor};
/// let turn = matrix_exp(&tensor([[0.0, -1.0], [1.0, 0.0]])).to_vec::<f64>();
/// assert!((turn[0] - 1f64.cos()).abs() < 1e-15 && (turn[2] - 1f64.sin()).abs() < 1e-15);
/// ```
#[track_caller]
pub fn matrix_exp(a: &Tensor) -> Tensor {
    if a.dtype().is_half() {
        return matrix_exp(&a.to_dtype(DType::F32)).to_dtype(a.dtype());
    }
    check_square("linalg.matrix_exp", a);
    if a.numel() == 0 {
        return a.copy();
    }
    let norm = crate::no_grad(|| {
        super::everything(&a.detach()).abs().sum_dim(-2, false).max().item::<f64>()
    });
    let doublings = if norm.is_finite() && norm > TAYLOR_15 {
        (norm / TAYLOR_15).log2().ceil() as i32
    } else {
        0
    };
    let a = a * 0.5f64.powi(doublings);
    let a2 = a.matmul(&a);
    let a3 = a2.matmul(&a);
    let a4 = a2.matmul(&a2);
    let one = identity(a.size(-1), &a);
    let inverse_factorial = |k: usize| 1.0 / (1..=k).map(|i| i as f64).product::<f64>();
    // Σ over four powers from `k` on, without a⁴.
    let four = |k: usize| {
        &one * inverse_factorial(k)
            + &a * inverse_factorial(k + 1)
            + &a2 * inverse_factorial(k + 2)
            + &a3 * inverse_factorial(k + 3)
    };
    let mut x = four(12) + &a4 * inverse_factorial(16);
    for k in [8, 4, 0] {
        x = x.matmul(&a4) + four(k);
    }
    for _ in 0..doublings {
        x = x.matmul(&x);
    }
    x
}

/// The Hermitian square root of Hermitian positive semidefinite matrices; eigenvalues
/// below zero count as zero.
#[track_caller]
pub fn matrix_sqrth(a: &Tensor) -> Tensor {
    let (w, v) = super::eigh(a, false);
    let roots = w.clamp(0.0, None).sqrt().to_dtype(v.dtype());
    (&v * roots.unsqueeze(-2)).matmul(&adjoint(&v))
}

/// The polar decomposition of matrices [.., m, n], m ≥ n: `(u, p)` with `a = u p`, the
/// columns of `u` [.., m, n] orthonormal and `p` [.., n, n] Hermitian and positive
/// semidefinite (Higham 1986), through the singular values.
///
/// # Panics
/// If there are fewer rows than columns.
#[track_caller]
pub fn polar(a: &Tensor) -> (Tensor, Tensor) {
    if a.rank() < 2 || a.size(-2) < a.size(-1) {
        panic!(
            "linalg.polar: needs matrices with at least as many rows as columns, the shape is {:?}",
            a.shape()
        );
    }
    let (u, s, vh) = super::svd(a, false);
    let scaled = adjoint(&vh) * s.unsqueeze(-2).to_dtype(vh.dtype());
    (u.matmul(&vh), scaled.matmul(&vh))
}

/// The diagonal `offset` above (below, if negative) the main one of the matrices that two
/// dimensions make up; it becomes the last dimension. A view.
#[track_caller]
pub fn diagonal(a: &Tensor, offset: i64, dim1: i64, dim2: i64) -> Tensor {
    a.diagonal(offset, dim1, dim2)
}

/// The matrix of powers of the elements of vectors [.., m]: [.., m, n], columns rising from
/// power 0. `n` is m by default. Integers are multiplied in i64.
///
/// # Panics
/// If the tensor has no dimension and `n` is not given.
#[track_caller]
pub fn vander(x: &Tensor, n: impl Into<Option<usize>>) -> Tensor {
    let n = match n.into() {
        Some(n) => n,
        None if x.rank() == 0 => panic!("linalg.vander: needs a vector, the shape is []"),
        None => x.size(-1),
    };
    let column = if x.rank() == 0 { x.reshape([1, 1]) } else { x.unsqueeze(-1) };
    let exact = matches!(x.dtype().category(), Category::Bool | Category::Int);
    let column = if exact { column.to_dtype(DType::I64) } else { column };
    let mut powers = vec![ones_like(&column)];
    for _ in 1..n {
        powers.push(powers.last().expect("there is one") * &column);
    }
    let all = cat(&powers.iter().collect::<Vec<_>>(), -1);
    if n == 0 { all.narrow(-1, 0, 0) } else { all }
}

/// The product `Σ conj(x) y` of vectors along `dim`: [`Tensor::vecdot`].
#[track_caller]
pub fn vecdot(x: &Tensor, y: &Tensor, dim: i64) -> Tensor {
    x.vecdot(y, dim)
}

/// The cross product of vectors of three elements along `dim`: [`Tensor::cross`].
#[track_caller]
pub fn cross(x: &Tensor, y: &Tensor, dim: i64) -> Tensor {
    x.cross(y, dim)
}

/// The product of matrices in the order that multiplies least: [`chain_matmul`], where the
/// first and the last may be vectors.
///
/// # Panics
/// If there are fewer than two, or their shapes do not fit.
#[track_caller]
pub fn multi_dot(tensors: &[&Tensor]) -> Tensor {
    let n = tensors.len();
    if n < 2 {
        panic!("linalg.multi_dot: needs at least two matrices, got {n}");
    }
    let mut matrices: Vec<Tensor> = tensors.iter().map(|t| (*t).clone()).collect();
    let (row, column) = (matrices[0].rank() == 1, matrices[n - 1].rank() == 1);
    if row {
        matrices[0] = matrices[0].unsqueeze(0);
    }
    if column {
        matrices[n - 1] = matrices[n - 1].unsqueeze(-1);
    }
    let mut out = chain_matmul(&matrices.iter().collect::<Vec<_>>());
    if column {
        out = out.squeeze(-1);
    }
    if row { out.squeeze(0) } else { out }
}

/// The first n columns of the product of reflections `1 - tᵢ vᵢ vᵢᴴ`, in order: `vᵢ` is
/// column i of `a` [.., m, n] below the diagonal, with 1 on it and 0 above, `tᵢ` element i
/// of `tau` [.., k].
///
/// # Panics
/// If m < n or n < k.
#[track_caller]
pub fn householder_product(a: &Tensor, tau: &Tensor) -> Tensor {
    let (m, n) = check_reflections("linalg.householder_product", a, tau);
    if m < n {
        panic!("linalg.householder_product: {:?} has more columns than rows", a.shape());
    }
    let start = identity(m, a).narrow(-1, 0, n);
    reflect(a, tau, &start.broadcast_to(a.shape()), true, false)
}

/// Multiplies `c` [.., m, n] with the product of reflections that
/// [`householder_product`] describes, square: from the left or the right, its adjoint when
/// `transpose`.
#[track_caller]
pub fn ormqr(a: &Tensor, tau: &Tensor, c: &Tensor, left: bool, transpose: bool) -> Tensor {
    let (m, _) = check_reflections("ormqr", a, tau);
    if c.rank() != a.rank() || c.size(if left { -2 } else { -1 }) != m {
        panic!("ormqr: reflections {:?} and matrices {:?} do not fit", a.shape(), c.shape());
    }
    if left {
        return reflect(a, tau, c, !transpose, transpose);
    }
    // c q = (qᴴ cᴴ)ᴴ
    adjoint(&reflect(a, tau, &adjoint(c), transpose, !transpose))
}

#[track_caller]
fn check_reflections(op: &str, a: &Tensor, tau: &Tensor) -> (usize, usize) {
    check_matrix(op, a);
    let (m, n) = (a.size(-2), a.size(-1));
    let fits = tau.rank() + 1 == a.rank()
        && tau.shape()[..tau.rank() - 1] == a.shape()[..a.rank() - 2]
        && tau.size(-1) <= n.min(m);
    if !fits {
        panic!("{op}: reflections {:?} and factors {:?} do not fit", a.shape(), tau.shape());
    }
    (m, n)
}

/// Applies the reflections to `x` from the left, the last one first when `backwards`; their
/// adjoints when `adjoints`.
fn reflect(a: &Tensor, tau: &Tensor, x: &Tensor, backwards: bool, adjoints: bool) -> Tensor {
    let k = tau.size(-1);
    let v = super::fill_diagonal(&a.tril(-1), 1.0);
    let mut x = x.clone();
    for i in 0..k {
        let i = if backwards { k - 1 - i } else { i };
        let v = v.narrow(-1, i, 1);
        let t = tau.narrow(-1, i, 1).unsqueeze(-1);
        let t = if adjoints { t.conj() } else { t };
        x = &x - t * v.matmul(&adjoint(&v).matmul(&x));
    }
    x
}

impl Tensor {
    /// [`linalg::matrix_power`](crate::linalg::matrix_power).
    #[track_caller]
    pub fn matrix_power(&self, n: i64) -> Tensor {
        matrix_power(self, n)
    }

    /// [`linalg::matrix_exp`](crate::linalg::matrix_exp).
    #[track_caller]
    pub fn matrix_exp(&self) -> Tensor {
        matrix_exp(self)
    }
}
