//! Norms of differences, and angles.

use crate::no_grad;
use crate::tensor::{Tensor, from_slice};

/// `(Σ |x|^p)^(1/p)` over `dim`, which stays as one; the derivative at zero is zero.
#[track_caller]
pub(super) fn p_norm(x: &Tensor, p: f64, dim: i64) -> Tensor {
    if p == f64::INFINITY {
        return x.abs().amax(dim, true);
    }
    if p == 0.0 {
        return x.ne(0.0).to_dtype(x.dtype()).sum_dim(dim, true);
    }
    if p == 1.0 {
        return x.abs().sum_dim(dim, true);
    }
    // Powers and roots have no finite derivative at zero: there, one stands for it.
    let s = if p == 2.0 {
        x.square().sum_dim(dim, true)
    } else {
        let zero = no_grad(|| x.eq(0.0));
        x.abs().masked_fill(&zero, 1.0).pow(p).masked_fill(&zero, 0.0).sum_dim(dim, true)
    };
    let zero = no_grad(|| s.eq(0.0));
    let s = s.masked_fill(&zero, 1.0);
    let root = if p == 2.0 { s.sqrt() } else { s.pow(1.0 / p) };
    root.masked_fill(&zero, 0.0)
}

/// Divided by the norm along `dim`, or by `eps` where the norm is smaller.
///
/// ```
/// use sinter::nn::functional as F;
/// use sinter::tensor;
/// let x = tensor([[3.0f32, 4.0]]);
/// assert_eq!(F::normalize(&x, 2.0, 1, 1e-12).to_vec::<f32>(), [0.6, 0.8]);
/// ```
#[track_caller]
pub fn normalize(x: &Tensor, p: f64, dim: i64, eps: f64) -> Tensor {
    x / p_norm(x, p, dim).maximum(eps)
}

/// The p-norm of `a - b + eps` over the last dimension, which stays as one with `keep`.
#[track_caller]
pub fn pairwise_distance(a: &Tensor, b: &Tensor, p: f64, eps: f64, keep: bool) -> Tensor {
    let d = p_norm(&(a - b + eps), p, -1);
    if keep { d } else { d.squeeze(-1) }
}

/// The cosine of the angle between `a` and `b` along `dim`; norms are at least `eps`.
#[track_caller]
pub fn cosine_similarity(a: &Tensor, b: &Tensor, dim: i64, eps: f64) -> Tensor {
    let shape =
        match sinter_runtime::op::broadcast_shapes("cosine_similarity", a.shape(), b.shape()) {
            Ok(shape) => shape,
            Err(e) => crate::tensor::fail(&e, &[a, b]),
        };
    let (a, b) = (a.broadcast_to(shape.clone()), b.broadcast_to(shape));
    let unit = |x: &Tensor| x / p_norm(x, 2.0, dim).maximum(eps);
    (unit(&a) * unit(&b)).sum_dim(dim, false)
}

/// The p-norms of the differences of all pairs of rows of `x` [N, M], in the order of
/// the upper triangle: `[N (N - 1) / 2]`.
///
/// # Panics
/// If `x` is not a matrix.
#[track_caller]
pub fn pdist(x: &Tensor, p: f64) -> Tensor {
    if x.rank() != 2 {
        panic!("pdist: needs a matrix, the shape is {:?}", x.shape());
    }
    let n = x.shape()[0] as i64;
    let (mut i, mut j) = (Vec::new(), Vec::new());
    for a in 0..n {
        for b in a + 1..n {
            i.push(a);
            j.push(b);
        }
    }
    let rows = |at: &[i64]| x.index_select(0, &from_slice(at, [at.len()]));
    p_norm(&(rows(&i) - rows(&j)), p, 1).squeeze(1)
}
