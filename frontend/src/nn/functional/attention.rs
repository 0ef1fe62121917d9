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

/// Choices of [`multi_head_attention`].
#[derive(Clone, Copy, Debug, Default)]
pub struct MultiHead<'a> {
    /// Bias of queries, keys and values, [3 E].
    pub in_bias: Option<&'a Tensor>,
    /// Bias of the result, `[E]`.
    pub out_bias: Option<&'a Tensor>,
    /// A further key and value, each [1, 1, E], for every sequence.
    pub extra: Option<(&'a Tensor, &'a Tensor)>,
    /// Whether a key and value of zeros are added.
    pub zero: bool,
    /// Keys that are not looked at: true, or an addend, [N, S].
    pub key_padding: Option<&'a Tensor>,
    /// Places that are not looked at: true, or an addend, [T, S] or [N H, T, S].
    pub mask: Option<&'a Tensor>,
}

/// Attention of several heads (Vaswani et al. 2017): `query` [T, N, E], `key` [S, N, ..]
/// and `value` [S, N, ..] are projected by three weights, compared head by head, and the
/// result is projected by `out` [E, E]. Gives it, [T, N, E], and the weights of each
/// head, [N, H, T, S].
///
/// # Panics
/// If shapes do not fit, or the heads do not divide E.
#[track_caller]
pub fn multi_head_attention(
    [query, key, value]: [&Tensor; 3],
    weights: [&Tensor; 3],
    out: &Tensor,
    heads: usize,
    options: &MultiHead,
) -> (Tensor, Tensor) {
    let [t, n, _] = query.shape()[..] else {
        panic!("multi_head_attention: queries {:?} are not [T, N, E]", query.shape())
    };
    let e = weights[0].size(0);
    if heads == 0 || !e.is_multiple_of(heads) {
        panic!("multi_head_attention: {heads} heads do not divide {e} features");
    }
    let mut parts = Vec::with_capacity(3);
    for (i, (x, w)) in [query, key, value].into_iter().zip(weights).enumerate() {
        let bias = options.in_bias.map(|b| b.narrow(0, i * e, e));
        parts.push(super::linear(x, w, bias.as_ref()));
    }
    let mut added = 0;
    let mut append = |parts: &mut Vec<Tensor>, k: &Tensor, v: &Tensor| {
        for (i, x) in [(1, k), (2, v)] {
            parts[i] = crate::tensor::cat(&[&parts[i], &x.broadcast_to([1, n, e])], 0);
        }
        added += 1;
    };
    if let Some((k, v)) = options.extra {
        append(&mut parts, k, v);
    }
    if options.zero {
        let none = crate::tensor::full([1, 1, 1], 0, parts[1].dtype());
        append(&mut parts, &none, &none);
    }
    let size = e / heads;
    // [N, H, length, size]
    let mut split = Vec::with_capacity(3);
    for x in &parts {
        split.push(x.reshape([x.size(0), n, heads, size]).permute([1, 2, 0, 3]));
    }
    let s = split[1].size(2);
    let mut scores = split[0].matmul(&split[1].transpose(-1, -2)) * (1.0 / (size as f64).sqrt());
    let masks = [
        options.mask.map(|m| {
            (m, if m.rank() == 3 { [n, heads, t, s - added] } else { [1, 1, t, s - added] })
        }),
        options.key_padding.map(|m| (m, [n, 1, 1, s - added])),
    ];
    for (mask, shape) in masks.into_iter().flatten() {
        let add = if mask.dtype() == DType::Bool {
            let none = crate::tensor::full(mask.shape(), 0, scores.dtype());
            none.masked_fill(mask, f64::NEG_INFINITY)
        } else {
            mask.clone()
        };
        let add = add.reshape(shape).pad(&[(0, 0), (0, 0), (0, 0), (0, added)], 0.0);
        scores = &scores + add;
    }
    let weights = scores.softmax(-1);
    let y = weights.matmul(&split[2]).permute([2, 0, 1, 3]).reshape([t, n, e]);
    (super::linear(&y, out, options.out_bias), weights)
}
