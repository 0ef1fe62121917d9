//! Derivatives of matrix products and of pooling's derivative.

use super::super::sum_to;
use super::{Context, Grads, sum};
use crate::tensor::{Tensor, apply, zeros_like};
use crate::trace::is_transposed;
use sinter_runtime::op::{Act, Axes, PoolKind, TensorType};
use sinter_runtime::{Op, Scalar};
use smallvec::smallvec;

fn transposed(x: &Tensor) -> Tensor {
    x.transpose(-1, -2)
}

pub(super) fn matmul(c: &Context, g: &Tensor) -> Grads {
    let (a, b) = (c.x(0), c.x(1));
    let mm = |x: &Tensor, y: &Tensor| apply(Op::MatMul { act: Act::None }, &[x, y]);
    let rows = |t: &Tensor| t.reshape([t.numel() / t.size(-1).max(1), t.size(-1)]);
    let mut out: Grads = smallvec![
        c.needs[0].then(|| sum_to(&mm(g, &transposed(b)), a.shape())),
        c.needs[1].then(|| {
            if b.rank() == 2 && a.numel() > 0 && g.numel() > 0 {
                // One product over all rows of all batches, instead of a sum of products.
                let (a, g) = (rows(a), rows(g));
                // The gradient lies in memory as the operand does: that of a transposed
                // weight is the transpose of what its owner will keep.
                let turned = if b.has_data() { b.strides()[0] == 1 } else { is_transposed(b) };
                if turned { transposed(&mm(&transposed(&g), &a)) } else { mm(&transposed(&a), &g) }
            } else {
                sum_to(&mm(&transposed(a), g), b.shape())
            }
        }),
    ];
    if c.needs.len() == 3 {
        let lead: Axes = (0..g.rank() - 1).collect();
        out.push(c.needs[2].then(|| sum(g, &lead, false)));
    }
    out
}

/// The derivative of pooling's derivative: pooling is linear in the gradient, and
/// constant in its operand almost everywhere.
pub(super) fn pool_grad(op: &Op, c: &Context, g: &Tensor) -> Grads {
    let Op::PoolGrad { kind, window, stride, padding, dilation, ceil } = op else {
        unreachable!("called for pool2d_grad only")
    };
    let x = c.x(0);
    let gx = c.needs[0].then(|| zeros_like(x));
    if *kind != PoolKind::Max {
        let pool = Op::Pool {
            kind: *kind,
            window: *window,
            stride: *stride,
            padding: *padding,
            dilation: *dilation,
            ceil: *ceil,
        };
        return smallvec![gx, c.needs[1].then(|| apply(pool, &[g]))];
    }
    // Pick, out of each window of g, the element where x has its maximum.
    let ty = TensorType { dtype: x.dtype(), shape: x.shape().into() };
    let pool = Op::Pool {
        kind: *kind,
        window: *window,
        stride: *stride,
        padding: *padding,
        dilation: *dilation,
        ceil: *ceil,
    };
    let out = sinter_runtime::op::infer(&pool, &[ty.as_ref()])
        .map(|t| t[0].shape.clone())
        .unwrap_or_else(|e| crate::tensor::fail(&e, &[x]));
    let patches = |t: &Tensor, value: f64| {
        // Padded far enough that every window lies inside.
        let reach = |i: usize| (out[2 + i] - 1) * stride[i] + dilation[i] * (window[i] - 1) + 1;
        let high = |i: usize| reach(i).saturating_sub(t.shape()[2 + i] + padding[i]);
        let pad = Op::Pad {
            low: smallvec![0, 0, padding[0], padding[1]],
            high: smallvec![0, 0, high(0), high(1)],
            value: Scalar::Float(value),
        };
        let padded = apply(pad, &[t]);
        let mut parts = Vec::new();
        for i in 0..window[0] {
            for j in 0..window[1] {
                let rows =
                    Op::Slice { axis: 2, start: i * dilation[0], len: out[2], step: stride[0] };
                let cols =
                    Op::Slice { axis: 3, start: j * dilation[1], len: out[3], step: stride[1] };
                let part = apply(cols, &[&apply(rows, &[&padded])]);
                parts.push(part.unsqueeze(-1));
            }
        }
        let refs: Vec<&Tensor> = parts.iter().collect();
        apply(Op::Concat { axis: 4 }, &refs)
    };
    smallvec![
        gx,
        c.needs[1].then(|| {
            let at = patches(&x.detach(), f64::NEG_INFINITY).argmax_dim(-1, true);
            let picked = apply(Op::Gather { axis: 4 }, &[&patches(g, 0.0), &at]);
            picked.squeeze(-1)
        }),
    ]
}
