//! Derivatives of attention. The first is an op with a kernel; its own derivative is that
//! of the same formula in ops.

use super::{Context, Grads, differentiated};
use crate::tensor::{Tensor, apply_all, decomposed_attention_grad};
use sinter_runtime::Op;
use sinter_runtime::op::Real;
use smallvec::SmallVec;

/// By queries, keys and values. A mask that wants a gradient makes attention be recorded
/// by its decomposition.
pub(super) fn once(scale: Real, causal: bool, c: &Context, g: &Tensor) -> Grads {
    let mut operands: SmallVec<[&Tensor; 5]> = (0..3).map(|i| c.x(i)).collect();
    operands.push(g);
    operands.extend((3..c.needs.len()).map(|i| c.x(i)));
    let by = apply_all(Op::AttentionGrad { scale, causal }, &operands);
    let mut out: Grads = by.into_iter().zip(&c.needs).map(|(g, n)| n.then_some(g)).collect();
    out.resize(c.needs.len(), None);
    out
}

/// The derivative of the derivative.
pub(super) fn twice(scale: f64, causal: bool, c: &Context, grads: &[Option<Tensor>]) -> Grads {
    differentiated(c, grads, |xs| {
        decomposed_attention_grad(scale, causal, xs).into_iter().collect()
    })
}
