//! Layers without state, and losses.

use crate::tensor::{Tensor, apply};
use crate::{no_grad, random};
use sinter_runtime::op::{Act, PoolKind, Real};
use sinter_runtime::{DType, Op};

/// How the losses of a batch become one number.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Reduction {
    /// Their mean.
    #[default]
    Mean,
    /// Their sum.
    Sum,
    /// They stay apart.
    None,
}

impl Reduction {
    #[track_caller]
    fn apply(self, loss: Tensor) -> Tensor {
        match self {
            Reduction::Mean => loss.mean(),
            Reduction::Sum => loss.sum(),
            Reduction::None => loss,
        }
    }
}

/// `x wᵀ + b` for `x` `[.., in]`, `w` `[out, in]` and `b` `[out]`.
#[track_caller]
pub fn linear(x: &Tensor, w: &Tensor, b: Option<&Tensor>) -> Tensor {
    if x.rank() == 1 {
        return linear(&x.unsqueeze(0), w, b).squeeze(0);
    }
    let wt = w.t();
    match b {
        Some(b) => apply(Op::MatMul { act: Act::None }, &[x, &wt, b]),
        None => apply(Op::MatMul { act: Act::None }, &[x, &wt]),
    }
}

/// 2-d cross-correlation of `x` [N, C, H, W] with `w` [O, C / groups, KH, KW].
#[track_caller]
pub fn conv2d(
    x: &Tensor,
    w: &Tensor,
    b: Option<&Tensor>,
    stride: [usize; 2],
    padding: [usize; 2],
    dilation: [usize; 2],
    groups: usize,
) -> Tensor {
    let op = Op::Conv { stride, padding, dilation, groups, act: Act::None };
    match b {
        Some(b) => apply(op, &[x, w, b]),
        None => apply(op, &[x, w]),
    }
}

/// Largest element of each window of [N, C, H, W]; the stride is the window.
#[track_caller]
pub fn max_pool2d(x: &Tensor, window: [usize; 2]) -> Tensor {
    pool2d(x, PoolKind::Max, window, window, [0, 0])
}

/// Mean of each window of [N, C, H, W]; the stride is the window.
#[track_caller]
pub fn avg_pool2d(x: &Tensor, window: [usize; 2]) -> Tensor {
    pool2d(x, PoolKind::Avg, window, window, [0, 0])
}

/// Pooling with every choice open.
#[track_caller]
pub fn pool2d(
    x: &Tensor,
    kind: PoolKind,
    window: [usize; 2],
    stride: [usize; 2],
    padding: [usize; 2],
) -> Tensor {
    apply(Op::Pool { kind, window, stride, padding, dilation: [1, 1], ceil: false }, &[x])
}

/// Zeroes elements with probability `p` and scales the others by `1 / (1 - p)`.
///
/// # Panics
/// If `p` is not a probability.
#[track_caller]
pub fn dropout(x: &Tensor, p: f64, training: bool) -> Tensor {
    if !training || p == 0.0 {
        return x.clone();
    }
    let (seed, offset) = random::reserve(x.numel());
    apply(Op::Dropout { p: Real::new(p), seed, offset }, &[x])
}

/// Normalises over the last dimensions, those of `weight`, and scales and shifts.
#[track_caller]
pub fn layer_norm(
    x: &Tensor,
    dims: usize,
    weight: Option<&Tensor>,
    bias: Option<&Tensor>,
    eps: f64,
) -> Tensor {
    let op = Op::LayerNorm { dims, eps: Real::new(eps) };
    match (weight, bias) {
        (None, _) => apply(op, &[x]),
        (Some(w), None) => apply(op, &[x, w]),
        (Some(w), Some(b)) => apply(op, &[x, w, b]),
    }
}

/// Rows of `weight` [V, E] picked by i64 indices of any shape.
#[track_caller]
pub fn embedding(index: &Tensor, weight: &Tensor) -> Tensor {
    let flat = index.to_dtype(DType::I64).reshape([-1]);
    let rows = weight.index_select(0, &flat);
    let mut shape: Vec<usize> = index.shape().to_vec();
    shape.push(weight.size(1));
    rows.reshape(shape)
}

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
            let zero = crate::tensor::zeros_like(&m.to_dtype(q.dtype()));
            let add = m.where_(&zero, f64::NEG_INFINITY);
            apply(op, &[q, k, v, &add])
        }
        Some(m) => apply(op, &[q, k, v, m]),
    }
}

/// Classes as i64, checked against their number.
#[track_caller]
fn classes(op: &str, target: &Tensor, n: usize, shape: &[usize]) -> Tensor {
    let t = target.to_dtype(DType::I64);
    if t.shape() != shape {
        panic!("{op}: target {:?} does not match predictions for {shape:?}", target.shape());
    }
    if !t.is_traced() {
        let bad = no_grad(|| t.lt(0.0).logical_or(&t.ge(n as i64)));
        if bad.any().item_scalar().as_bool() {
            let values = t.to_vec::<i64>();
            let (i, c) = values
                .iter()
                .enumerate()
                .find(|(_, c)| **c < 0 || **c >= n as i64)
                .expect("one is out of range");
            panic!("{op}: target {c} at position {i} is not one of {n} classes");
        }
    }
    t
}

/// Negative log-likelihood of `log_probs` [.., C] for class indices [..].
///
/// # Panics
/// If a target is not a class.
#[track_caller]
pub fn nll_loss(log_probs: &Tensor, target: &Tensor, reduction: Reduction) -> Tensor {
    let n = log_probs.size(-1);
    let t = classes("nll_loss", target, n, &log_probs.shape()[..log_probs.rank() - 1]);
    let picked = log_probs.gather(-1, &t.unsqueeze(-1)).squeeze(-1);
    reduction.apply(-picked)
}

/// Cross-entropy of unnormalised `logits` [.., C] for class indices [..].
///
/// # Panics
/// If a target is not a class.
#[track_caller]
pub fn cross_entropy(logits: &Tensor, target: &Tensor, reduction: Reduction) -> Tensor {
    nll_loss(&logits.log_softmax(-1), target, reduction)
}

/// Squared difference.
#[track_caller]
pub fn mse_loss(x: &Tensor, target: &Tensor, reduction: Reduction) -> Tensor {
    if x.shape() != target.shape() {
        panic!("mse_loss: shapes {:?} and {:?} differ", x.shape(), target.shape());
    }
    reduction.apply((x - target).square())
}

/// Absolute difference.
#[track_caller]
pub fn l1_loss(x: &Tensor, target: &Tensor, reduction: Reduction) -> Tensor {
    if x.shape() != target.shape() {
        panic!("l1_loss: shapes {:?} and {:?} differ", x.shape(), target.shape());
    }
    reduction.apply((x - target).abs())
}

/// Binary cross-entropy of logits, without overflow.
#[track_caller]
pub fn binary_cross_entropy_with_logits(
    x: &Tensor,
    target: &Tensor,
    reduction: Reduction,
) -> Tensor {
    if x.shape() != target.shape() {
        panic!(
            "binary_cross_entropy_with_logits: shapes {:?} and {:?} differ",
            x.shape(),
            target.shape()
        );
    }
    // softplus(x) - x t
    reduction.apply(x.softplus() - x * target)
}

/// The fraction of rows of `scores` [N, C] whose largest element is at the class
/// in `target` `[N]`.
#[track_caller]
pub fn accuracy(scores: &Tensor, target: &Tensor) -> f64 {
    no_grad(|| {
        let hit = scores.detach().argmax_dim(-1, false).eq(target.to_dtype(DType::I64));
        hit.sum().item::<i64>() as f64 / target.numel().max(1) as f64
    })
}
