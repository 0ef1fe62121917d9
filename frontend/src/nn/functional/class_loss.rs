//! Losses for classes. Predictions have their classes along dimension 1, or along
//! dimension 0 where that is the only one, as in PyTorch.

use super::Reduction;
use crate::no_grad;
use crate::tensor::{Tensor, full_like, stack};
use sinter_runtime::DType;

/// The target that counts nothing where no other is named. Where targets have no
/// data, in tracing, it is not looked for: there it is an index out of range, and an error.
const IGNORED: i64 = -100;

/// Choices of [`nll_loss_with`] and [`cross_entropy_with`].
#[derive(Clone, Copy, Debug)]
pub struct ClassLoss<'a> {
    /// A weight for each class.
    pub weight: Option<&'a Tensor>,
    /// A target that counts nothing.
    pub ignore_index: i64,
    /// How much of the target is spread over all classes (Szegedy et al. 2016).
    pub label_smoothing: f64,
    /// How the losses become one.
    pub reduction: Reduction,
}

impl Default for ClassLoss<'_> {
    fn default() -> Self {
        ClassLoss {
            weight: None,
            ignore_index: IGNORED,
            label_smoothing: 0.0,
            reduction: Reduction::Mean,
        }
    }
}

/// The dimension of the classes.
fn class_dim(x: &Tensor) -> usize {
    usize::from(x.rank() > 1)
}

/// Targets as i64, checked against the number of classes, and where they count.
#[track_caller]
fn classes(op: &str, x: &Tensor, target: &Tensor, ignore: i64) -> (Tensor, Tensor) {
    let dim = class_dim(x);
    let n = x.shape().get(dim).copied().unwrap_or(0);
    let mut shape = x.shape().to_vec();
    if !shape.is_empty() {
        shape.remove(dim);
    }
    let t = target.to_dtype(DType::I64);
    if x.rank() == 0 || t.shape() != shape {
        panic!("{op}: target {:?} does not match predictions {:?}", target.shape(), x.shape());
    }
    let counts = no_grad(|| t.ne(ignore));
    if !t.has_data() && ignore == IGNORED {
        return (t, counts);
    }
    if t.has_data() {
        let bad = no_grad(|| t.lt(0).logical_or(&t.ge(n as i64)).logical_and(&counts));
        if bad.any().item_scalar().as_bool() {
            let values = t.to_vec::<i64>();
            let (i, c) = values
                .iter()
                .enumerate()
                .find(|(_, c)| **c != ignore && (**c < 0 || **c >= n as i64))
                .expect("one is out of range");
            panic!("{op}: target {c} at position {i} is not one of {n} classes");
        }
    }
    (counts.where_(&t, 0i64), counts)
}

/// The weights of targets, zero where they do not count.
#[track_caller]
fn target_weights(x: &Tensor, t: &Tensor, counts: &Tensor, weight: Option<&Tensor>) -> Tensor {
    let counts = counts.to_dtype(x.dtype());
    match weight {
        None => counts,
        Some(w) => w.index_select(0, &t.reshape([-1])).reshape(t.shape()) * counts,
    }
}

/// Negative log-likelihood of `log_probs` for class indices: `[N, C, ..]` and `[N, ..]`.
///
/// # Panics
/// If a target is not a class.
#[track_caller]
pub fn nll_loss(log_probs: &Tensor, target: &Tensor, reduction: Reduction) -> Tensor {
    nll_loss_with(log_probs, target, &ClassLoss { reduction, ..ClassLoss::default() })
}

/// [`nll_loss`] with every choice open; the mean is over the weights of the targets.
///
/// # Panics
/// If a target is neither a class nor the one that is ignored.
#[track_caller]
pub fn nll_loss_with(log_probs: &Tensor, target: &Tensor, options: &ClassLoss) -> Tensor {
    negative_log("nll_loss", log_probs, target, options)
}

/// [`nll_loss_with`] in the name of `op`.
#[track_caller]
fn negative_log(op: &str, log_probs: &Tensor, target: &Tensor, options: &ClassLoss) -> Tensor {
    let (t, counts) = classes(op, log_probs, target, options.ignore_index);
    let dim = class_dim(log_probs) as i64;
    let loss = -log_probs.gather(dim, &t.unsqueeze(dim)).squeeze(dim);
    let all = if t.has_data() {
        counts.all().item_scalar().as_bool()
    } else {
        options.ignore_index == IGNORED
    };
    if options.weight.is_none() && all {
        return options.reduction.apply(loss);
    }
    let w = target_weights(log_probs, &t, &counts, options.weight);
    // What does not count may be infinite.
    let loss = loss.masked_fill(&counts.logical_not(), 0.0) * &w;
    match options.reduction {
        Reduction::Mean => loss.sum() / w.sum(),
        r => r.apply(loss),
    }
}

/// Cross-entropy of unnormalised `logits` for class indices: `[N, C, ..]` and `[N, ..]`.
///
/// # Panics
/// If a target is not a class.
#[track_caller]
pub fn cross_entropy(logits: &Tensor, target: &Tensor, reduction: Reduction) -> Tensor {
    cross_entropy_with(logits, target, &ClassLoss { reduction, ..ClassLoss::default() })
}

/// [`cross_entropy`] with every choice open. A floating-point target of the shape of
/// the logits holds the probabilities of all classes.
///
/// ```
/// use sinter::nn::functional::{self as F, ClassLoss};
/// use sinter::tensor;
/// let x = tensor([[2.0f64, 0.0], [0.0, 1.0]]);
/// let only_first = ClassLoss { ignore_index: 1, ..ClassLoss::default() };
/// let loss = F::cross_entropy_with(&x, &tensor([0i64, 1]), &only_first);
/// assert!((loss.item::<f64>() - (-2.0f64).exp().ln_1p()).abs() < 1e-12);
/// ```
///
/// # Panics
/// If a target is neither a class nor the one that is ignored.
#[track_caller]
pub fn cross_entropy_with(logits: &Tensor, target: &Tensor, options: &ClassLoss) -> Tensor {
    let dim = class_dim(logits) as i64;
    let n = logits.size(dim);
    let log_probs = logits.log_softmax(dim);
    let smooth = options.label_smoothing;
    let class_weight = match options.weight {
        None => None,
        Some(w) => {
            let mut shape = vec![1; logits.rank() - dim as usize];
            shape[0] = n;
            Some(w.reshape(shape))
        }
    };
    if target.dtype().is_float() {
        if target.shape() != logits.shape() {
            panic!(
                "cross_entropy: probabilities {:?} do not match logits {:?}",
                target.shape(),
                logits.shape()
            );
        }
        let t =
            if smooth > 0.0 { target * (1.0 - smooth) + smooth / n as f64 } else { target.clone() };
        let mut loss = log_probs * t;
        if let Some(w) = class_weight {
            loss = &loss * w;
        }
        let loss = -loss.sum_dim(dim, false);
        return match options.reduction {
            Reduction::Mean => loss.sum() / (logits.numel() as f64 / n as f64),
            r => r.apply(loss),
        };
    }
    let hard = negative_log("cross_entropy", &log_probs, target, options);
    if smooth == 0.0 {
        return hard;
    }
    let (t, counts) = classes("cross_entropy", logits, target, options.ignore_index);
    let spread = match class_weight {
        None => log_probs,
        Some(w) => log_probs * w,
    };
    let spread = -spread.sum_dim(dim, false).masked_fill(&counts.logical_not(), 0.0);
    let spread = match options.reduction {
        Reduction::Mean => spread.sum() / target_weights(logits, &t, &counts, options.weight).sum(),
        r => r.apply(spread),
    };
    hard * (1.0 - smooth) + spread * (smooth / n as f64)
}

/// `Σ max(0, margin - x_y + x_i)^p / C` over the classes `i` beside the target `y`, by
/// the weight of `y`, for `x` [N, C] or `[C]`.
///
/// # Panics
/// If a target is not a class.
#[track_caller]
pub fn multi_margin_loss(
    x: &Tensor,
    target: &Tensor,
    p: i32,
    margin: f64,
    weight: Option<&Tensor>,
    reduction: Reduction,
) -> Tensor {
    if x.rank() == 0 || (x.rank() == 1 && target.rank() == 1) {
        let x = x.reshape([1, x.numel()]);
        let loss = multi_margin_loss(&x, &target.reshape([1]), p, margin, weight, Reduction::Sum);
        return if target.rank() == 1 && reduction == Reduction::None {
            loss.reshape([1])
        } else {
            loss
        };
    }
    let (t, _) = classes("multi_margin_loss", x, target, i64::MIN);
    let dim = class_dim(x) as i64;
    let at = t.unsqueeze(dim);
    let mut loss = (x - x.gather(dim, &at) + margin).relu();
    if p == 2 {
        loss = loss.square();
    } else if p != 1 {
        panic!("multi_margin_loss: the power is {p}, it may be 1 or 2");
    }
    if let Some(w) = weight {
        loss = &loss * w.index_select(0, &t.reshape([-1])).reshape(at.shape());
    }
    let own = full_like(&at, 0).to_dtype(x.dtype());
    reduction.apply(loss.scatter(dim, &at, &own).mean_dim(dim, false))
}

/// `Σ max(0, 1 - x_y + x_i) / C` over the targets `y` and all classes `i` that are not
/// targets, for `x` [N, C] or `[C]`. A row of targets of shape of `x` ends at the first
/// that is negative.
#[track_caller]
pub fn multilabel_margin_loss(x: &Tensor, target: &Tensor, reduction: Reduction) -> Tensor {
    if x.shape() != target.shape() {
        panic!("multilabel_margin_loss: shapes {:?} and {:?} differ", x.shape(), target.shape());
    }
    if x.rank() < 2 {
        let row = |t: &Tensor| t.reshape([1, t.numel()]);
        let loss = multilabel_margin_loss(&row(x), &row(target), Reduction::None);
        return loss.squeeze(0);
    }
    let t = target.to_dtype(DType::I64);
    let counts = t.ge(0).to_dtype(DType::I64).cumprod(1).ne(0);
    let t = counts.where_(&t, 0i64);
    let class = crate::tensor::arange(0, x.size(1) as i64, 1);
    let is_target = t.unsqueeze(2).eq(class).logical_and(&counts.unsqueeze(2)).any_dim(1, true);
    let loss = (x.unsqueeze(1) - x.gather(1, &t).unsqueeze(2) + 1.0).relu();
    let pairs = counts.unsqueeze(2).logical_and(&is_target.logical_not());
    let loss = loss.masked_fill(&pairs.logical_not(), 0.0).sum_dim([1, 2], false);
    reduction.apply(loss * (1.0 / x.size(1) as f64))
}

/// Connectionist temporal classification (Graves et al. 2006): the negative
/// log-likelihood of label sequences that are not aligned with the predictions.
///
/// `log_probs` is [T, N, C], `targets` [N, S] (or all targets, one after the other),
/// with the lengths of predictions and targets. The mean divides by the targets'
/// lengths first. `zero_infinity` takes sequences that do not fit as zero.
///
/// # Panics
/// If lengths do not fit.
#[track_caller]
#[allow(clippy::too_many_arguments)] // they are PyTorch's
pub fn ctc_loss(
    log_probs: &Tensor,
    targets: &Tensor,
    input_lengths: &[usize],
    target_lengths: &[usize],
    blank: usize,
    zero_infinity: bool,
    reduction: Reduction,
) -> Tensor {
    let [steps, batch, labels] = log_probs.shape()[..] else {
        panic!("ctc_loss: predictions {:?} are not [T, N, C]", log_probs.shape())
    };
    if input_lengths.len() != batch || target_lengths.len() != batch {
        panic!(
            "ctc_loss: {} and {} lengths for a batch of {batch}",
            input_lengths.len(),
            target_lengths.len()
        );
    }
    let mut losses = Vec::with_capacity(batch);
    let mut start = 0;
    for (i, (&t, &s)) in input_lengths.iter().zip(target_lengths).enumerate() {
        let target = if targets.rank() == 2 {
            targets.select(0, i as i64).narrow(0, 0, s)
        } else {
            targets.narrow(0, start, s)
        };
        start += s;
        if t > steps {
            panic!("ctc_loss: {t} predictions of sequence {i}, there are {steps}");
        }
        let target = target.to_vec::<i64>();
        if let Some(c) = target.iter().find(|c| **c < 0 || **c >= labels as i64) {
            panic!("ctc_loss: target {c} of sequence {i} is not one of {labels} labels");
        }
        let own = log_probs.select(1, i as i64).narrow(0, 0, t);
        losses.push(sequence_loss(&own, &target, blank as i64));
    }
    let mut loss = stack(&losses.iter().collect::<Vec<_>>(), 0);
    if zero_infinity {
        loss = loss.masked_fill(&loss.isinf(), 0.0);
    }
    match reduction {
        Reduction::Mean => {
            let n: Vec<f64> = target_lengths.iter().map(|&s| s.max(1) as f64).collect();
            (loss / crate::tensor::tensor(n).to_dtype(log_probs.dtype())).mean()
        }
        r => r.apply(loss),
    }
}

/// The loss of one sequence, by the forward recursion over the targets with blanks
/// between them; `log_probs` [T, C].
#[track_caller]
fn sequence_loss(log_probs: &Tensor, target: &[i64], blank: i64) -> Tensor {
    let mut states = vec![blank];
    for &c in target {
        states.extend([c, blank]);
    }
    let n = states.len();
    // A state is also reached from the last but one, unless that is the same label.
    let skips: Vec<bool> =
        (0..n).map(|i| i >= 2 && states[i] != blank && states[i] != states[i - 2]).collect();
    let at = crate::tensor::tensor(states);
    let emit = log_probs.index_select(1, &at);
    // Far below every sum of logarithms, but not infinite: that has no derivative.
    const NEVER: f64 = -1e30;
    let steps = log_probs.size(0);
    let never = full_like(&emit.narrow(0, 0, 1).squeeze(0), NEVER);
    let first = crate::tensor::arange(0, n as i64, 1).lt(2);
    let blocked = crate::tensor::tensor(skips).logical_not();
    let mut alpha = first.where_(&emit.select(0, 0), &never);
    for t in 1..steps {
        let back = |k: usize| {
            let k = k.min(n);
            crate::tensor::cat(&[&never.narrow(0, 0, k), &alpha.narrow(0, 0, n - k)], 0)
        };
        let from = stack(&[&alpha, &back(1), &back(2).masked_fill(&blocked, NEVER)], 0);
        alpha = from.logsumexp(0, false).maximum(NEVER) + emit.select(0, t as i64);
    }
    let last = alpha.narrow(0, n.saturating_sub(2), n.min(2)).logsumexp(0, false);
    let impossible = no_grad(|| last.le(NEVER / 2.0));
    -last.masked_fill(&impossible, f64::NEG_INFINITY)
}
