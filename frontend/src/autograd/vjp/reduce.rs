//! Derivatives of reductions, scans and sorting.

use super::{Context, Grads, sum, zeros_of};
use crate::tensor::{Tensor, apply, ones_like, zeros_like};
use sinter_runtime::op::{Axes, ReduceKind, ScanKind, ScatterKind};
use sinter_runtime::{Op, Scalar};
use smallvec::smallvec;

/// Gives reduced axes back as ones.
fn with_axes(g: &Tensor, axes: &[usize], keep: bool) -> Tensor {
    if keep {
        return g.clone();
    }
    let mut shape: Axes = g.shape().into();
    let mut sorted: Axes = axes.into();
    sorted.sort_unstable();
    for a in sorted {
        shape.insert(a, 1);
    }
    g.reshape(shape.as_slice())
}

pub(super) fn reduce(
    kind: ReduceKind,
    axes: &[usize],
    keep: bool,
    c: &Context,
    g: &Tensor,
) -> Tensor {
    match kind {
        ReduceKind::Sum => with_axes(g, axes, keep).broadcast_to(c.shape(0)),
        ReduceKind::Prod => prod(axes, c.x(0), &with_axes(g, axes, keep)),
        ReduceKind::Max | ReduceKind::Min => {
            // Equal extremes share the gradient.
            let (x, y) = (c.x(0), with_axes(c.y(), axes, keep));
            let hit = x.eq(&y).to_dtype(g.dtype());
            let count = sum(&hit, axes, true);
            hit * (with_axes(g, axes, keep) / count)
        }
        ReduceKind::Any | ReduceKind::All => zeros_like(c.x(0)),
    }
}

/// Each element's gradient is the product of the others: exclusive products from
/// the left and from the right, right also where elements are zero.
fn prod(axes: &[usize], x: &Tensor, g: &Tensor) -> Tensor {
    let rank = x.rank();
    let kept: Axes = (0..rank).filter(|a| !axes.contains(a)).collect();
    let perm: Axes = kept.iter().chain(axes).copied().collect();
    let front: Axes = kept.iter().map(|&a| x.shape()[a]).collect();
    let moved = apply(Op::Permute { perm: perm.clone() }, &[x]);
    let n: usize = axes.iter().map(|&a| x.shape()[a]).product();
    let flat_shape: Axes = front.iter().copied().chain([n]).collect();
    let flat = moved.reshape(flat_shape.as_slice());
    let last = kept.len();
    let exclusive = |reverse: bool| {
        let run = apply(Op::Scan { kind: ScanKind::Prod, axis: last, reverse }, &[&flat]);
        // Shifted by one, with a 1 in front.
        let (start, low, high) = if reverse { (1, 0, 1) } else { (0, 1, 0) };
        let part = Op::Slice { axis: last, start, len: n.saturating_sub(1), step: 1 };
        let at_last =
            |v: usize| -> Axes { (0..=last).map(|i| if i == last { v } else { 0 }).collect() };
        let pad = Op::Pad { low: at_last(low), high: at_last(high), value: Scalar::Float(1.0) };
        apply(pad, &[&apply(part, &[&run])])
    };
    let others = if n == 0 { flat.clone() } else { exclusive(false) * exclusive(true) };
    let mut inverse: Axes = smallvec![0; rank];
    for (i, &p) in perm.iter().enumerate() {
        inverse[p] = i;
    }
    let back = apply(Op::Permute { perm: inverse }, &[&others.reshape(moved.shape())]);
    g * back
}

pub(super) fn scan(kind: ScanKind, axis: usize, reverse: bool, c: &Context, g: &Tensor) -> Tensor {
    let run = |kind, reverse, x: &Tensor| apply(Op::Scan { kind, axis, reverse }, &[x]);
    match kind {
        ScanKind::Sum => run(ScanKind::Sum, !reverse, g),
        ScanKind::Max | ScanKind::Min => unreachable!("their derivative goes by index"),
        ScanKind::LogSumExp => {
            // Element i gets Σ g_j e^(x_i - y_j) over the results j that it is part of:
            // by logarithms, of the positive and the negative gradients in turn.
            let (x, y) = (c.x(0), c.y());
            let none = zeros_like(g) + f64::from(f32::MIN / 4.0);
            let part = |g: &Tensor| {
                let there = g.gt(0.0);
                let log = there.where_(g, 1.0).ln();
                let log = there.where_(&log, &none);
                (run(ScanKind::LogSumExp, !reverse, &(log - y)) + x).exp()
            };
            part(g) - part(&-g)
        }
        ScanKind::Prod => {
            let x = c.x(0);
            let zero_free = !x.eq(0.0).any().item_scalar().as_bool();
            if zero_free {
                let y = run(ScanKind::Prod, reverse, x);
                return run(ScanKind::Sum, !reverse, &(g * y)) / x;
            }
            // Row k: the products without element k, for every end j at or after k.
            let n = x.shape()[axis];
            let rows: Vec<Tensor> = (0..n)
                .map(|k| {
                    let one = ones_like(&x.narrow(axis as i64, k, 1));
                    let without = apply(Op::SliceAssign { axis, start: k, step: 1 }, &[x, &one]);
                    let p = run(ScanKind::Prod, reverse, &without) * g;
                    let (start, len) = if reverse { (0, k + 1) } else { (k, n - k) };
                    sum(&p.narrow(axis as i64, start, len), &[axis], true)
                })
                .collect();
            let refs: Vec<&Tensor> = rows.iter().collect();
            apply(Op::Concat { axis }, &refs)
        }
    }
}

pub(super) fn sorted(op: &Op, axis: usize, c: &Context, grads: &[Option<Tensor>]) -> Grads {
    let Some(g) = &grads[0] else { return smallvec![None] };
    let x = c.x(0);
    let index = crate::no_grad(|| crate::tensor::apply_all(op.clone(), &[&x.detach()]))
        .pop()
        .expect("sorting gives values and indices");
    let scatter = Op::Scatter { axis, kind: ScatterKind::Add };
    smallvec![Some(apply(scatter, &[&zeros_of(x.shape(), g), &index, g]))]
}
