//! Attention.

use crate::tensor::{Tensor, apply, zeros_like};
use sinter_runtime::op::Real;
use sinter_runtime::{DType, Op};

/// softmax(q kᵀ / sqrt(E) + mask) v over the last two dimensions: `q` [.., T, E],
/// `k` [.., S, E], `v` [.., S, F]. A bool mask is true where attention is allowed;
/// a float mask is added. `causal` hides keys later than the query.
#[track_caller]
pub fn scaled_dot_product_attention(
    q: &Tensor,
    k: &Tensor,
    v: &Tensor,
    mask: Option<&Tensor>,
    causal: bool,
) -> Tensor {
    let scale = 1.0 / (q.size(-1) as f64).sqrt();
    let op = Op::Attention { scale: Real::new(scale), causal };
    match mask {
        None => apply(op, &[q, k, v]),
        Some(m) if m.dtype() == DType::Bool => {
            let zero = zeros_like(&m.to_dtype(q.dtype()));
            let add = m.where_(&zero, f64::NEG_INFINITY);
            apply(op, &[q, k, v, &add])
        }
        Some(m) => apply(op, &[q, k, v, m]),
    }
}
