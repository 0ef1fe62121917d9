//! Derivatives of views along several axes, and of scatters that join.

use super::{Context, Grads, zeros_of};
use crate::autograd::mode;
use crate::tensor::{Tensor, apply, from_slice, full_like, ones_like, zeros_like};
use sinter_runtime::Op;
use sinter_runtime::op::{Axes, ScatterKind};
use smallvec::smallvec;

/// `values` added at the places `index` of the last dimension, of extent `n`.
fn added(values: &Tensor, index: &[i64], n: usize) -> Tensor {
    let axis = values.rank() - 1;
    let mut shape = values.shape().to_vec();
    shape[axis] = n;
    let index = from_slice(index, [index.len()]).to(values.device());
    apply(Op::IndexAdd { axis }, &[&zeros_of(&shape, values), &index, values])
}

/// The gradient of a view's operand, of that shape: each element gets what those that
/// show it got.
pub(super) fn view(op: &Op, shape: &[usize], g: &Tensor) -> Tensor {
    let rank = shape.len();
    match op {
        Op::Diagonal { axis1, axis2, row, col, len } => {
            let (n, m) = (shape[*axis1], shape[*axis2]);
            let index: Vec<i64> = (0..*len).map(|i| ((row + i) * m + col + i) as i64).collect();
            let mut whole = g.shape()[..rank - 2].to_vec();
            whole.extend([n, m]);
            let whole = added(g, &index, n * m).reshape(whole);
            // The two axes go back to their places.
            let mut rest = 0..rank - 2;
            let perm: Axes = (0..rank)
                .map(|d| match d {
                    d if d == *axis1 => rank - 2,
                    d if d == *axis2 => rank - 1,
                    _ => rest.next().expect("as many as there are"),
                })
                .collect();
            apply(Op::Permute { perm }, &[&whole])
        }
        Op::Unfold { axis, size, step, count } => {
            // Windows and their elements as one last dimension.
            let windows = g.movedim(*axis as i64, -2);
            let mut flat = windows.shape()[..rank - 1].to_vec();
            flat.push(count * size);
            let at = |i: usize| (i / size.max(&1) * step + i % size.max(&1)) as i64;
            let index: Vec<i64> = (0..count * size).map(at).collect();
            added(&windows.reshape(flat), &index, shape[*axis]).movedim(-1, *axis as i64)
        }
        Op::AsStrided { shape: seen, strides, offset } => {
            let numel: usize = seen.iter().product();
            let index: Vec<i64> = (0..numel)
                .map(|mut i| {
                    let mut at = *offset;
                    for (n, s) in seen.iter().zip(strides).rev() {
                        at += i % n * s;
                        i /= n;
                    }
                    at as i64
                })
                .collect();
            added(&g.reshape([numel]), &index, shape.iter().product()).reshape(shape)
        }
        _ => unreachable!("{} has a rule of its own", op.name()),
    }
}

/// The gradients of `(base, index, values)`.
pub(super) fn scatter(axis: usize, kind: ScatterKind, c: &Context, g: &Tensor) -> Grads {
    let (base, index, values) = (c.x(0), c.x(1), c.x(2));
    let gather = |x: &Tensor| apply(Op::Gather { axis }, &[x, index]);
    let joined = |kind, a: &Tensor, b: &Tensor| apply(Op::Scatter { axis, kind }, &[a, index, b]);
    let (gb, gv) = match kind {
        ScatterKind::Max | ScatterKind::Min => {
            // Equal ones share the gradient.
            let y = c.y();
            let kept = base.eq(y).to_dtype(g.dtype());
            let won = values.eq(gather(y)).to_dtype(g.dtype());
            let share = g / joined(ScatterKind::Add, &kept, &won);
            (&share * kept, gather(&share) * won)
        }
        _ => {
            // The product of the others: that of all but zeros, divided; with one zero
            // it is the zero's alone, with two nobody's.
            let (zb, zv) = (base.eq(0.0), values.eq(0.0));
            let (b1, v1) =
                (zb.where_(&ones_like(base), base), zv.where_(&ones_like(values), values));
            let product = g * joined(ScatterKind::Prod, &b1, &v1);
            let zeros = joined(ScatterKind::Add, &zb.to_dtype(g.dtype()), &zv.to_dtype(g.dtype()));
            if mode::grad_enabled() && zeros.gt(0.0).any().item_scalar().as_bool() {
                panic!(
                    "scatter: the second derivative of a product with zeros among its factors is not implemented"
                );
            }
            let rest = |product: &Tensor, zeros: &Tensor, is_zero: &Tensor, x: &Tensor| {
                let others = zeros - is_zero.to_dtype(g.dtype());
                let alone = others.eq(full_like(&others, 0.0));
                alone.where_(&(product / x), zeros_like(x))
            };
            (rest(&product, &zeros, &zb, &b1), rest(&gather(&product), &gather(&zeros), &zv, &v1))
        }
    };
    smallvec![c.needs[0].then_some(gb), None, c.needs[2].then_some(gv)]
}
