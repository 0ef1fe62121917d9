//! Attention in one pass, in f32.

use crate::op::{Axes, Real};
use crate::{Array, DType, OpError, Shape};
use sinter_kernels::attention::{Scores, attention, attention_grad};
use smallvec::SmallVec;

/// The mask as large as the scores of queries and keys.
fn wide(q: &Array, k: &Array, mask: Option<&&Array>) -> Option<Array> {
    mask.map(|m| {
        let mut shape: Shape = q.shape().into();
        *shape.last_mut().expect("queries are matrices") = k.shape()[k.rank() - 2];
        m.broadcast_to(&shape).expect("checked by the op's rule")
    })
}

/// Computes it. Types and shapes are checked already.
pub(super) fn exec(
    scale: Real,
    causal: bool,
    inputs: &[&Array],
    out: &Array,
) -> Result<(), OpError> {
    let (q, k, v) = (inputs[0], inputs[1], inputs[2]);
    let mask = wide(q, k, inputs.get(3));
    let mask = mask.as_ref().map(Array::src);
    let scores = Scores { scale: scale.get() as f32, causal, mask };
    attention(q.src(), k.src(), v.src(), &scores, out.dst());
    Ok(())
}

/// Computes its derivatives. Types and shapes are checked already.
pub(super) fn exec_grad(scale: Real, causal: bool, inputs: &[&Array], outs: &[&Array]) {
    let (q, k, v, gy) = (inputs[0], inputs[1], inputs[2], inputs[3]);
    let mask = wide(q, k, inputs.get(4));
    let mask = mask.as_ref().map(Array::src);
    let scores = Scores { scale: scale.get() as f32, causal, mask };
    let outs = [outs[0].dst(), outs[1].dst(), outs[2].dst()];
    attention_grad([q.src(), k.src(), v.src(), gy.src()], &scores, outs);
}

/// Memory for a result of this shape, whose axes lie in the order of the queries':
/// heads that were split off features are then joined again without a copy.
pub(super) fn result(q: &Array, shape: &[usize], dtype: DType) -> Result<Array, OpError> {
    if q.is_contiguous() {
        return Array::empty(shape, dtype);
    }
    let strides = q.strides().iter().zip(q.shape());
    let far: SmallVec<[usize; 6]> =
        strides.map(|(s, &n)| if n == 1 { usize::MAX } else { s.unsigned_abs() }).collect();
    let order = axis_order(&far);
    let lying: Shape = order.iter().map(|&d| shape[d]).collect();
    let mut back: Axes = smallvec::smallvec![0; order.len()];
    for (i, &d) in order.iter().enumerate() {
        back[d] = i;
    }
    Ok(Array::empty(&lying, dtype)?.permute(&back))
}

/// The axes of attention's result from the outermost in memory to the last, which
/// stays the last, by how far apart the queries' elements are along each.
pub fn axis_order(far: &[usize]) -> Axes {
    let mut order: Axes = (0..far.len() - 1).collect();
    order.sort_by_key(|&d| std::cmp::Reverse(far[d]));
    order.push(far.len() - 1);
    order
}
