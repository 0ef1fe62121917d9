//! Linear algebra on stacks of matrices, by the names of `torch.linalg`.
//!
//! A matrix is the last two dimensions of a tensor; leading ones are a batch. The
//! primitives are factorisations ([`cholesky`], [`lu`], [`qr`], [`svd`], [`eigh`],
//! [`eig`]) and the triangular solution; everything else is composed of them and is
//! differentiable, twice, where they are. Operands are f32 or f64, or complex of these.
//!
//! Factorisations are not part of compiled programs: tracing one is an error that says
//! so.
//!
//! ```
//! use sinter::{linalg, tensor};
//! let a = tensor([[4.0, 2.0], [2.0, 3.0]]);
//! let b = tensor([2.0, 1.0]);
//! let x = linalg::solve(&a, &b);
//! assert!(a.matmul(&x).allclose(&b, 1e-12, 1e-12));
//! let l = linalg::cholesky(&a, false);
//! assert!(l.matmul(&l.t()).allclose(&a, 1e-12, 1e-12));
//! assert!((linalg::det(&a).item::<f64>() - 8.0).abs() < 1e-12);
//! ```

mod factor;
mod function;
mod measure;
mod solve;

pub use factor::{
    cholesky, cholesky_ex, eig, eigh, eigvals, eigvalsh, lu, lu_factor, lu_factor_ex, lu_unpack,
    qr, svd, svdvals,
};
pub use function::{
    cross, diagonal, householder_product, matrix_exp, matrix_power, matrix_sqrth, multi_dot, ormqr,
    polar, vander, vecdot,
};
pub use measure::{Norm, cond, det, logdet, matrix_norm, matrix_rank, norm, slogdet, vector_norm};
pub use solve::{
    Lstsq, cholesky_inverse, cholesky_solve, inv, inv_ex, lstsq, lu_solve, pinv, solve, solve_ex,
    solve_triangular, tensorinv, tensorsolve,
};

use crate::tensor::{Tensor, apply, from_slice};
use sinter_runtime::op::broadcast_shapes;
use sinter_runtime::{DType, Op, Shape};

/// The conjugate transpose of the last two dimensions.
#[track_caller]
pub(crate) fn adjoint(x: &Tensor) -> Tensor {
    x.transpose(-1, -2).conj()
}

/// Diagonal matrices of vectors: [.., n] to [.., n, n].
#[track_caller]
pub(crate) fn diag_embed(x: &Tensor) -> Tensor {
    x.diag_embed(0, -2, -1)
}

/// The diagonal of matrices: [.., m, n] to [.., min(m, n)].
#[track_caller]
pub(crate) fn diagonal_of(x: &Tensor) -> Tensor {
    x.diagonal(0, -2, -1)
}

/// Where row and column of an m × n matrix are equal.
fn diagonal_mask(m: usize, n: usize) -> Tensor {
    let iota = |axis| Op::Iota { dtype: DType::I64, axis, shape: [m, n].as_slice().into() };
    apply(iota(0), &[]).eq(apply(iota(1), &[]))
}

/// The matrices with `value` on their diagonal.
#[track_caller]
pub(crate) fn fill_diagonal(x: &Tensor, value: f64) -> Tensor {
    x.masked_fill(&diagonal_mask(x.size(-2), x.size(-1)), value)
}

/// The identity in the type of another tensor.
pub(crate) fn identity(n: usize, like: &Tensor) -> Tensor {
    diagonal_mask(n, n).to_dtype(like.dtype())
}

/// `a x = b` for triangular `a`; the batches are equal.
#[track_caller]
pub(crate) fn solve_triangle(a: &Tensor, b: &Tensor, upper: bool, unit: bool) -> Tensor {
    apply(Op::TriangularSolve { upper, unit }, &[a, b])
}

/// Where each row of the permuted matrix stood: the exchanges of [`lu_factor`], carried
/// out on 0, 1, …, m - 1. i64 [.., m].
#[track_caller]
pub(crate) fn rows_of_pivots(pivots: &Tensor, m: usize) -> Tensor {
    if let Some((all, level)) = pivots.as_batched() {
        return Tensor::batched(rows_of_pivots(all, m), level);
    }
    let k = pivots.size(-1);
    let mut shape: Shape = pivots.shape().into();
    shape.pop();
    let batch: usize = shape.iter().product();
    shape.push(m);
    let exchanged = pivots.to_vec::<i64>();
    let mut rows: Vec<i64> = (0..batch).flat_map(|_| 0..m as i64).collect();
    for b in 0..batch {
        let of_batch = &mut rows[b * m..(b + 1) * m];
        for (i, &p) in exchanged[b * k..(b + 1) * k].iter().enumerate() {
            if p < 1 || p > m as i64 {
                panic!("lu: pivot {p} names no row of a matrix of {m}; pivots count from 1");
            }
            of_batch.swap(i, p as usize - 1);
        }
    }
    from_slice(&rows, shape)
}

/// Panics unless the last two dimensions are matrices.
#[track_caller]
fn check_matrix(op: &str, x: &Tensor) {
    if x.rank() < 2 {
        panic!("{op}: needs a matrix, the shape is {:?}", x.shape());
    }
    if !x.dtype().is_differentiable() || x.dtype().is_half() {
        panic!(
            "{op}: needs f32, f64 or complex numbers, got {}; convert it with `to_dtype`",
            x.dtype()
        );
    }
}

#[track_caller]
fn check_square(op: &str, x: &Tensor) {
    check_matrix(op, x);
    if x.size(-1) != x.size(-2) {
        panic!("{op}: needs square matrices, the shape is {:?}", x.shape());
    }
}

/// Both stacks of matrices with the batch they broadcast to.
#[track_caller]
fn same_batch(op: &str, a: &Tensor, b: &Tensor) -> (Tensor, Tensor) {
    let lead = |x: &Tensor| -> Shape { x.shape()[..x.rank() - 2].into() };
    let batch = match broadcast_shapes(op, &lead(a), &lead(b)) {
        Ok(s) => s,
        Err(e) => panic!("{e}"),
    };
    (to_batch(a, &batch), to_batch(b, &batch))
}

#[track_caller]
fn to_batch(x: &Tensor, batch: &[usize]) -> Tensor {
    if x.shape()[..x.rank() - 2] == *batch {
        return x.clone();
    }
    let shape: Shape = batch.iter().chain(&x.shape()[x.rank() - 2..]).copied().collect();
    x.broadcast_to(shape)
}

/// `batch item (1, 0)` of a batch of several dimensions, nothing of none.
fn batch_item(batch: &[usize], mut at: usize) -> String {
    if batch.is_empty() {
        return String::new();
    }
    let mut index = Vec::new();
    for &n in batch.iter().rev() {
        index.push((at % n).to_string());
        at /= n;
    }
    index.reverse();
    format!(" (batch item {})", index.join(", "))
}

/// The tensor of all instances behind one of them, inside of [`vmap`](crate::vmap): what is
/// asked of each is asked of all.
fn everything(x: &Tensor) -> Tensor {
    let mut x = x.clone();
    while let Some(all) = x.as_batched().map(|(all, _)| all.clone()) {
        x = all;
    }
    x
}

/// Panics where the `info` of some matrix is not zero.
#[track_caller]
fn check_info(op: &str, info: &Tensor, what: impl Fn(i64) -> String) {
    let info = everything(info);
    let values = info.to_vec::<i64>();
    if let Some(at) = values.iter().position(|&i| i != 0) {
        panic!("{op}: {}{}", what(values[at]), batch_item(info.shape(), at));
    }
}

/// The precision of the elements' real type: the distance from 1 to the next number.
fn epsilon(x: &Tensor) -> f64 {
    if x.dtype().real() == DType::F32 { f32::EPSILON.into() } else { f64::EPSILON }
}
