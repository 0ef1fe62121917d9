//! Rows of tables, and one-hot vectors.

use super::Reduction;
use crate::no_grad;
use crate::tensor::{Tensor, cat, from_slice, full};
use sinter_runtime::DType;

/// Rows of `weight` [V, E] picked by i64 indices of any shape.
#[track_caller]
pub fn embedding(index: &Tensor, weight: &Tensor) -> Tensor {
    let flat = index.to_dtype(DType::I64).reshape([-1]);
    let rows = weight.index_select(0, &flat);
    let mut shape: Vec<usize> = index.shape().to_vec();
    shape.push(weight.size(1));
    rows.reshape(shape)
}

/// [`embedding`] where the row `padding` gets no gradient.
#[track_caller]
pub fn padded_embedding(index: &Tensor, weight: &Tensor, padding: i64) -> Tensor {
    let padding = if padding < 0 { padding + weight.size(0) as i64 } else { padding };
    let rows = embedding(index, weight);
    let fixed = index.to_dtype(DType::I64).eq(padding).unsqueeze(-1);
    fixed.where_(&rows.detach(), &rows)
}

/// How the rows of a bag become one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum BagMode {
    /// Their sum.
    Sum,
    /// Their mean.
    Mean,
    /// Their largest elements.
    Max,
}

/// Rows of `weight` [V, E] picked by `index` `[M]`, joined by bags: bag `i` begins at
/// `offsets[i]` and ends where the next begins. `weights` `[M]` scales the rows of sums,
/// and the row `padding` does not count. A bag without rows is zero.
///
/// ```
/// use sinter::nn::functional::{self as F, BagMode};
/// use sinter::tensor;
/// let table = tensor([[1.0f32], [10.0], [100.0]]);
/// let y = F::embedding_bag(&tensor([0i64, 2, 1]), &table, &[0, 2], BagMode::Sum, None, None);
/// assert_eq!(y.to_vec::<f32>(), [101.0, 10.0]);
/// ```
///
/// # Panics
/// If shapes or offsets do not fit.
#[track_caller]
pub fn embedding_bag(
    index: &Tensor,
    weight: &Tensor,
    offsets: &[usize],
    mode: BagMode,
    weights: Option<&Tensor>,
    padding: Option<i64>,
) -> Tensor {
    let m = index.numel();
    if index.rank() != 1
        || offsets.windows(2).any(|w| w[0] > w[1])
        || offsets.last().is_some_and(|&o| o > m)
    {
        panic!(
            "embedding_bag: offsets {offsets:?} do not cut indices {:?} into bags",
            index.shape()
        );
    }
    if weights.is_some() && mode != BagMode::Sum {
        panic!("embedding_bag: weights are for sums, not for {mode:?}");
    }
    let (bags, e) = (offsets.len(), weight.size(1));
    let mut rows = embedding(index, weight);
    if let Some(w) = weights {
        rows = &rows * w.unsqueeze(1);
    }
    let counted = padding.map(|p| {
        let p = if p < 0 { p + weight.size(0) as i64 } else { p };
        no_grad(|| index.to_dtype(DType::I64).ne(p))
    });
    if mode == BagMode::Max {
        let mut all = Vec::with_capacity(bags);
        for (i, &start) in offsets.iter().enumerate() {
            let end = offsets.get(i + 1).copied().unwrap_or(m);
            let mut bag = rows.narrow(0, start, end - start);
            if let Some(c) = &counted {
                bag = bag.index_select(0, &c.narrow(0, start, end - start).nonzero().reshape([-1]));
            }
            let empty = bag.size(0) == 0;
            // Of equals the first gets the gradient.
            all.push(if empty { full([1, e], 0, rows.dtype()) } else { bag.max_dim(0, true).0 });
        }
        return cat(&all.iter().collect::<Vec<_>>(), 0);
    }
    let mut of = vec![0i64; m];
    for (i, &start) in offsets.iter().enumerate() {
        of[start..].fill(i as i64);
    }
    let first = offsets.first().copied().unwrap_or(m);
    let of = from_slice(&of, [m]).narrow(0, first, m - first);
    rows = rows.narrow(0, first, m - first);
    let ones = full([m - first, 1], 1, rows.dtype());
    let ones = match &counted {
        None => ones,
        Some(c) => {
            let c = c.narrow(0, first, m - first).unsqueeze(1);
            rows = rows.masked_fill(&c.logical_not(), 0.0);
            c.to_dtype(rows.dtype())
        }
    };
    let sum = full([bags, e], 0, rows.dtype()).index_add(0, &of, &rows);
    if mode == BagMode::Sum {
        return sum;
    }
    let number = full([bags, 1], 0, rows.dtype()).index_add(0, &of, &ones);
    sum / number.maximum(1.0)
}

/// i64 zeros with a one at each index along a new last dimension of `classes`; as many
/// as the largest index needs where not said.
///
/// # Panics
/// If an index is not a class.
#[track_caller]
pub fn one_hot(index: &Tensor, classes: impl Into<Option<usize>>) -> Tensor {
    let index = index.to_dtype(DType::I64);
    let n = match classes.into() {
        Some(n) => n,
        None if index.numel() == 0 => panic!("one_hot: no index tells how many classes there are"),
        None => index.max().item::<i64>().max(-1).wrapping_add(1) as usize,
    };
    if index.has_data() && index.numel() > 0 {
        let (low, high) = (index.min().item::<i64>(), index.max().item::<i64>());
        if low < 0 || high >= n as i64 {
            panic!("one_hot: indices from {low} to {high} for {n} classes");
        }
    }
    let class = crate::tensor::arange(0, n as i64, 1);
    index.unsqueeze(-1).eq(class).to_dtype(DType::I64)
}

/// Cross-entropy of `linear(x, w, b)`; see [`cross_entropy`](super::cross_entropy).
///
/// # Panics
/// If shapes do not fit.
#[track_caller]
pub fn linear_cross_entropy(
    x: &Tensor,
    w: &Tensor,
    b: Option<&Tensor>,
    target: &Tensor,
    reduction: Reduction,
) -> Tensor {
    super::cross_entropy(&super::linear(x, w, b), target, reduction)
}
