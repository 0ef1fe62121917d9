//! Norms of differences, and angles.

use crate::tensor::Tensor;

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
    x / x.norm_dim(p, dim, true).maximum(eps)
}

/// The p-norm of `a - b + eps` over the last dimension, which stays as one with `keep`.
#[track_caller]
pub fn pairwise_distance(a: &Tensor, b: &Tensor, p: f64, eps: f64, keep: bool) -> Tensor {
    let d = (a - b + eps).norm_dim(p, -1, true);
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
    let unit = |x: &Tensor| x / x.norm_dim(2.0, dim, true).maximum(eps);
    (unit(&a) * unit(&b)).sum_dim(dim, false)
}

/// The p-norms of the differences of all pairs of rows of `x` [N, M], in the order of
/// the upper triangle: `[N (N - 1) / 2]`.
///
/// # Panics
/// If `x` is not a matrix.
#[track_caller]
pub fn pdist(x: &Tensor, p: f64) -> Tensor {
    x.pdist(p)
}
