//! Losses that compare element by element or vector by vector.

use super::distance::pairwise_distance;
use super::{Reduction, logsigmoid};
use crate::no_grad;
use crate::tensor::{Tensor, zeros_like};

/// # Panics
/// If the shapes differ.
#[track_caller]
fn same_shape(op: &str, x: &Tensor, target: &Tensor) {
    if x.shape() != target.shape() {
        panic!("{op}: shapes {:?} and {:?} differ", x.shape(), target.shape());
    }
}

/// `weight x`, if there is a weight.
#[track_caller]
fn weighted(loss: Tensor, weight: Option<&Tensor>) -> Tensor {
    match weight {
        Some(w) => loss * w,
        None => loss,
    }
}

/// Squared difference.
#[track_caller]
pub fn mse_loss(x: &Tensor, target: &Tensor, reduction: Reduction) -> Tensor {
    same_shape("mse_loss", x, target);
    reduction.apply((x - target).square())
}

/// Absolute difference.
#[track_caller]
pub fn l1_loss(x: &Tensor, target: &Tensor, reduction: Reduction) -> Tensor {
    same_shape("l1_loss", x, target);
    reduction.apply((x - target).abs())
}

/// `d² / (2 beta)` where the absolute difference `d` is below `beta`, else `d - beta / 2`.
#[track_caller]
pub fn smooth_l1_loss(x: &Tensor, target: &Tensor, beta: f64, reduction: Reduction) -> Tensor {
    same_shape("smooth_l1_loss", x, target);
    let d = (x - target).abs();
    if beta == 0.0 {
        return reduction.apply(d);
    }
    reduction.apply(d.lt(beta).where_(&(d.square() * (0.5 / beta)), &d - 0.5 * beta))
}

/// `d² / 2` where the absolute difference `d` is at most `delta`, else
/// `delta (d - delta / 2)` (Huber 1964).
#[track_caller]
pub fn huber_loss(x: &Tensor, target: &Tensor, delta: f64, reduction: Reduction) -> Tensor {
    same_shape("huber_loss", x, target);
    let d = (x - target).abs();
    reduction.apply(d.le(delta).where_(&(d.square() * 0.5), (&d - 0.5 * delta) * delta))
}

/// Binary cross-entropy of probabilities `x`; logarithms are at least -100.
#[track_caller]
pub fn binary_cross_entropy(
    x: &Tensor,
    target: &Tensor,
    weight: Option<&Tensor>,
    reduction: Reduction,
) -> Tensor {
    same_shape("binary_cross_entropy", x, target);
    let log = |p: &Tensor| p.ln().maximum(-100.0);
    let loss = (target - 1.0) * log(&(1.0 - x)) - target * log(x);
    reduction.apply(weighted(loss, weight))
}

/// Binary cross-entropy of logits, without overflow.
#[track_caller]
pub fn binary_cross_entropy_with_logits(
    x: &Tensor,
    target: &Tensor,
    reduction: Reduction,
) -> Tensor {
    same_shape("binary_cross_entropy_with_logits", x, target);
    // softplus(x) - x t
    reduction.apply(x.softplus() - x * target)
}

/// Binary cross-entropy of logits with weights of the losses, and of the positive
/// class.
#[track_caller]
pub fn weighted_binary_cross_entropy_with_logits(
    x: &Tensor,
    target: &Tensor,
    weight: Option<&Tensor>,
    pos_weight: Option<&Tensor>,
    reduction: Reduction,
) -> Tensor {
    same_shape("binary_cross_entropy_with_logits", x, target);
    let loss = match pos_weight {
        None => x.softplus() - x * target,
        Some(p) => (1.0 - target) * x + ((p - 1.0) * target + 1.0) * (-x).softplus(),
    };
    reduction.apply(weighted(loss, weight))
}

/// Negative log-likelihood of counts `target` under a Poisson distribution of mean `x`,
/// or `e^x` with `log_input`. `full` adds Stirling's approximation of the constant.
#[track_caller]
pub fn poisson_nll_loss(
    x: &Tensor,
    target: &Tensor,
    log_input: bool,
    full: bool,
    eps: f64,
    reduction: Reduction,
) -> Tensor {
    let loss = if log_input { x.exp() - target * x } else { x - target * (x + eps).ln() };
    if !full {
        return reduction.apply(loss);
    }
    let few = no_grad(|| target.le(1.0));
    let n = target.masked_fill(&few, 1.0);
    let constant = &n * n.ln() - &n + (&n * std::f64::consts::TAU).ln() * 0.5;
    reduction.apply(loss + constant.masked_fill(&few, 0.0))
}

/// Negative log-likelihood of `target` under a normal distribution of mean `x` and
/// variance `var`, at least `eps`. `var` broadcasts, or lacks the last dimension.
/// `full` adds the constant.
#[track_caller]
pub fn gaussian_nll_loss(
    x: &Tensor,
    target: &Tensor,
    var: &Tensor,
    full: bool,
    eps: f64,
    reduction: Reduction,
) -> Tensor {
    let lacks_last = x.rank() > 0 && var.shape() == &x.shape()[..x.rank() - 1];
    let var = if var.shape() != x.shape() && lacks_last { var.unsqueeze(-1) } else { var.clone() };
    // The bound does not stop the gradient.
    let bounded = &var + no_grad(|| var.maximum(eps) - &var);
    let loss = (bounded.ln() + (x - target).square() / &bounded) * 0.5;
    reduction.apply(if full { loss + 0.5 * std::f64::consts::TAU.ln() } else { loss })
}

/// The divergence of `target` from the distribution whose logarithm is `x`, element by
/// element: `t (ln t - x)`. With `log_target` the target is a logarithm, too.
#[track_caller]
pub fn kl_div(x: &Tensor, target: &Tensor, log_target: bool, reduction: Reduction) -> Tensor {
    if log_target {
        return reduction.apply(target.exp() * (target - x));
    }
    let zero = no_grad(|| target.eq(0.0));
    let own = (target * target.masked_fill(&zero, 1.0).ln()).masked_fill(&zero, 0.0);
    reduction.apply(own - target * x)
}

/// `ln(1 + e^(-t x))` for targets 1 and -1.
#[track_caller]
pub fn soft_margin_loss(x: &Tensor, target: &Tensor, reduction: Reduction) -> Tensor {
    same_shape("soft_margin_loss", x, target);
    reduction.apply((-(x * target)).softplus())
}

/// `max(0, margin - t (a - b))`: `a` is to be larger where `t` is 1, `b` where -1.
#[track_caller]
pub fn margin_ranking_loss(
    a: &Tensor,
    b: &Tensor,
    target: &Tensor,
    margin: f64,
    reduction: Reduction,
) -> Tensor {
    reduction.apply((-(a - b) * target + margin).relu())
}

/// `x` where the target is 1, `max(0, margin - x)` where it is -1.
#[track_caller]
pub fn hinge_embedding_loss(
    x: &Tensor,
    target: &Tensor,
    margin: f64,
    reduction: Reduction,
) -> Tensor {
    let beyond = (margin - x).relu();
    let zero = zeros_like(&beyond);
    let far = target.ne(1.0).where_(&beyond, &zero);
    let near = target.ne(-1.0).where_(x, &zero);
    reduction.apply(far + near)
}

/// `1 - cos` of the angle between the rows of `a` and `b` where the target is 1,
/// `max(0, cos - margin)` where it is -1. Rows are along dimension 1, or 0 where there
/// is one.
#[track_caller]
pub fn cosine_embedding_loss(
    a: &Tensor,
    b: &Tensor,
    target: &Tensor,
    margin: f64,
    reduction: Reduction,
) -> Tensor {
    let dim = i64::from(a.rank() > 1);
    let norm = |x: &Tensor| x.square().sum_dim(dim, false) + 1e-12;
    let cos = (a * b).sum_dim(dim, false) / (norm(a) * norm(b)).sqrt();
    let zero = zeros_like(&cos);
    let near = target.eq(1.0).where_(&(1.0 - &cos), &zero);
    let far = target.eq(-1.0).where_(&(&cos - margin).relu(), &zero);
    reduction.apply(near + far)
}

/// `max(0, d(anchor, positive) - d(anchor, negative) + margin)` with p-norms over the
/// last dimension. `swap` takes the positive's distance to the negative where that is
/// smaller (Balntas et al. 2016).
#[track_caller]
#[allow(clippy::too_many_arguments)] // they are PyTorch's
pub fn triplet_margin_loss(
    anchor: &Tensor,
    positive: &Tensor,
    negative: &Tensor,
    margin: f64,
    p: f64,
    eps: f64,
    swap: bool,
    reduction: Reduction,
) -> Tensor {
    let distance = |a: &Tensor, b: &Tensor| pairwise_distance(a, b, p, eps, false);
    triplet_margin_with_distance_loss(anchor, positive, negative, distance, margin, swap, reduction)
}

/// [`triplet_margin_loss`] with any distance.
#[track_caller]
pub fn triplet_margin_with_distance_loss(
    anchor: &Tensor,
    positive: &Tensor,
    negative: &Tensor,
    distance: impl Fn(&Tensor, &Tensor) -> Tensor,
    margin: f64,
    swap: bool,
    reduction: Reduction,
) -> Tensor {
    let near = distance(anchor, positive);
    let mut far = distance(anchor, negative);
    if swap {
        far = far.minimum(distance(positive, negative));
    }
    reduction.apply((near - far + margin).relu())
}

/// Mean over the last dimension of the binary cross-entropies of logits.
#[track_caller]
pub fn multilabel_soft_margin_loss(
    x: &Tensor,
    target: &Tensor,
    weight: Option<&Tensor>,
    reduction: Reduction,
) -> Tensor {
    same_shape("multilabel_soft_margin_loss", x, target);
    let loss = -(target * logsigmoid(x) + (1.0 - target) * logsigmoid(&-x));
    reduction.apply(weighted(loss, weight).mean_dim(-1, false))
}
