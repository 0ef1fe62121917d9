//! The derivative of every op: its vector-Jacobian product, written in ops.
//!
//! [`saves`] says what a rule needs, [`vjp`] is the rule. Composites without a
//! rule are recorded by their decomposition. Gradients of operands that were
//! broadcast are summed down by the engine, so rules need not mind.

mod attention;
mod contract;
mod index;
mod linalg;
mod pointwise;
mod recurrent;
mod reduce;

use super::{Backward, enable_grad, grad_enabled};
use crate::device::made_on;
use crate::tensor::{Tensor, apply, zeros_like};
use sinter_runtime::op::{
    Act, Axes, BinaryOp, ReduceKind, ScanKind, ScatterKind, TensorType, UnaryOp,
};
use sinter_runtime::{Op, Scalar};
use smallvec::{SmallVec, smallvec};

/// What a rule needs from the forward pass.
pub(super) struct Saves {
    /// Values of operands, one bit each.
    pub(super) inputs: u32,
    /// The values of the results.
    pub(super) output: bool,
    /// Types of the operands.
    pub(super) types: bool,
}

/// What was saved, handed to the rule.
pub(super) struct Context {
    pub(super) inputs: SmallVec<[Option<Tensor>; 3]>,
    pub(super) outputs: SmallVec<[Tensor; 1]>,
    pub(super) types: Option<Box<[TensorType]>>,
    /// Which operands want a gradient.
    pub(super) needs: SmallVec<[bool; 3]>,
}

impl Context {
    pub(super) fn x(&self, i: usize) -> &Tensor {
        self.inputs[i].as_ref().expect("`saves` names every operand its rule uses")
    }
    fn y(&self) -> &Tensor {
        self.result(0)
    }
    fn result(&self, i: usize) -> &Tensor {
        self.outputs.get(i).expect("`saves` asks for the results where its rule uses them")
    }
    fn ty(&self, i: usize) -> &TensorType {
        &self.types.as_ref().expect("`saves` asks for types where its rule uses them")[i]
    }
    pub(super) fn shape(&self, i: usize) -> &[usize] {
        &self.ty(i).shape
    }
}

type Grads = SmallVec<[Option<Tensor>; 3]>;

/// Whether the op has a rule of its own; composites without one are recorded by
/// their decomposition.
pub(crate) fn has_rule(op: &Op, inputs: &[&Tensor]) -> bool {
    match op {
        Op::MatMul { act } | Op::Conv { act, .. } => *act == Act::None,
        Op::SoftmaxGrad { .. } | Op::LayerNormGrad { .. } => false,
        // The kernel has no derivative by the mask.
        Op::Attention { .. } => inputs.get(3).is_none_or(|m| !m.requires_grad()),
        _ => true,
    }
}

/// Which operands want a gradient. The ops that take more than 32 keep no operand.
pub(super) fn wanted(inputs: &[&Tensor]) -> u32 {
    let bit = |(i, t): (usize, &&Tensor)| u32::from(t.requires_grad()) << i;
    inputs.iter().take(32).enumerate().map(bit).sum()
}

/// What the rule of `op`, on that many operands, needs to give gradients to those
/// whose bits are set in `wanted`.
pub(super) fn saves(op: &Op, operands: usize, wanted: u32) -> Saves {
    let none = Saves { inputs: 0, output: false, types: false };
    let inputs = |bits| Saves { inputs: bits, ..none };
    let output = Saves { output: true, ..none };
    let types = Saves { types: true, ..none };
    use UnaryOp as U;
    match op {
        Op::Unary(u) => match u {
            U::Neg
            | U::Sign
            | U::Floor
            | U::Ceil
            | U::Round
            | U::Trunc
            | U::IsNan
            | U::IsInf
            | U::IsFinite
            | U::LogicalNot
            | U::BitNot
            | U::Exponent => none,
            U::Reciprocal
            | U::Sqrt
            | U::Rsqrt
            | U::Exp
            | U::Exp2
            | U::Expm1
            | U::Tan
            | U::Tanh
            | U::Sigmoid
            | U::Relu
            | U::Erfinv
            | U::Ndtri => output,
            _ => inputs(1),
        },
        Op::Binary(b) => match b {
            BinaryOp::Add | BinaryOp::Sub => none,
            BinaryOp::Gate => inputs(2),
            // The factor of a constant need not be kept.
            BinaryOp::Mul => inputs((wanted & 1) << 1 | (wanted >> 1 & 1)),
            BinaryOp::Div => inputs(2 | (wanted >> 1 & 1)),
            BinaryOp::Pow | BinaryOp::Hypot => Saves { output: true, ..inputs(3) },
            _ => inputs(3),
        },
        Op::Select {} => inputs(1),
        Op::Cast { .. } => types,
        Op::Reduce { kind, .. } => match kind {
            ReduceKind::Sum => types,
            ReduceKind::Prod => Saves { types: true, ..inputs(1) },
            _ => Saves { output: true, ..inputs(1) },
        },
        Op::Scan { kind: ScanKind::Sum, .. } => none,
        Op::Scan { kind: ScanKind::LogSumExp, .. } => Saves { output: true, ..inputs(1) },
        Op::Scan { .. } => inputs(1),
        // The indices are recomputed: sorting the saved operand again gives them.
        Op::Sort { .. } | Op::TopK { .. } => inputs(1),
        Op::Reshape { .. }
        | Op::Broadcast { .. }
        | Op::Slice { .. }
        | Op::Diagonal { .. }
        | Op::Unfold { .. }
        | Op::AsStrided { .. }
        | Op::SliceAssign { .. }
        | Op::Pad { .. }
        | Op::Concat { .. } => types,
        Op::Permute { .. } | Op::Flip { .. } | Op::ViewAsReal {} | Op::ViewAsComplex {} => none,
        Op::Gather { .. } | Op::IndexSelect { .. } => Saves { types: true, ..inputs(2) },
        Op::Scatter { kind: ScatterKind::Max | ScatterKind::Min, .. } => {
            Saves { output: true, ..inputs(7) }
        }
        Op::Scatter { kind: ScatterKind::Prod, .. } => inputs(7),
        Op::Scatter { .. } | Op::IndexAdd { .. } => inputs(2),
        Op::MatMul { .. } | Op::Conv { .. } => Saves { types: operands == 3, ..inputs(3) },
        Op::ConvInputGrad { .. } | Op::ConvWeightGrad { .. } => Saves { types: true, ..inputs(3) },
        Op::Pool { .. } | Op::PoolGrad { .. } => inputs(1),
        Op::Softmax { .. } => output,
        Op::LayerNorm { .. } => inputs(if operands > 1 { 3 } else { 1 }),
        Op::Recurrent { kind, keep, .. } => {
            Saves { output: true, ..inputs(recurrent::inputs(*kind, *keep)) }
        }
        Op::RecurrentGrad { .. } | Op::Attention { .. } | Op::AttentionGrad { .. } => inputs(!0),
        // The place in the random stream.
        Op::Dropout { .. } => inputs(if operands > 1 { 2 } else { 0 }),
        Op::TriangularSolve { .. } => Saves { output: true, ..inputs(1) },
        Op::Fft { .. } => none,
        Op::Eig {} => Saves { types: true, ..output },
        Op::Cholesky {} | Op::Lu {} | Op::Qr { .. } | Op::Svd { .. } | Op::Eigh {} => output,
        // No gradient, or recorded by the decomposition.
        Op::Full { .. }
        | Op::Iota { .. }
        | Op::Random { .. }
        | Op::Sample { .. }
        | Op::Compare(_)
        | Op::ArgReduce { .. }
        | Op::SearchSorted { .. }
        | Op::SoftmaxGrad { .. }
        | Op::LayerNormGrad { .. } => none,
    }
}

#[rustfmt::skip]
pub(super) fn vjp(op: &Op, c: &Context, grads: &[Option<Tensor>]) -> Grads {
    if let Op::Sort { axis, .. }
    | Op::TopK { axis, .. }
    | Op::Scan { kind: ScanKind::Max | ScanKind::Min, axis, .. } = op
    {
        return reduce::sorted(op, *axis, c, grads);
    }
    match op {
        Op::Recurrent { .. } => return recurrent::sequence(op, c, grads),
        Op::RecurrentGrad { .. } => return recurrent::sweep_grad(op, c, grads),
        Op::AttentionGrad { scale, causal } => {
            return attention::twice(scale.get(), *causal, c, grads);
        }
        _ if op.is_linalg() => return linalg::vjp(op, c, grads),
        _ => {}
    }
    let Some(g) = &grads[0] else { return smallvec![None; c.needs.len()] };
    if !c.needs.contains(&true) {
        return smallvec![None; c.needs.len()];
    }
    match op {
        Op::Unary(u) => smallvec![Some(pointwise::unary(*u, c, g))],
        Op::Binary(b) => pointwise::binary(*b, c, g),
        Op::Select {} => {
            let zero = zeros_like(g);
            smallvec![
                None,
                c.needs[1].then(|| c.x(0).where_(g, &zero)),
                c.needs[2].then(|| c.x(0).where_(&zero, g)),
            ]
        }
        Op::Cast { .. } => smallvec![Some(g.to_dtype(c.ty(0).dtype))],
        Op::Reduce { kind, axes, keep } => smallvec![Some(reduce::reduce(*kind, axes, *keep, c, g))],
        Op::Scan { kind, axis, reverse } => smallvec![Some(reduce::scan(*kind, *axis, *reverse, c, g))],

        Op::Reshape { .. } => smallvec![Some(g.reshape(c.shape(0)))],
        Op::Permute { perm } => {
            let mut inverse: Axes = smallvec![0; perm.len()];
            for (i, &p) in perm.iter().enumerate() {
                inverse[p] = i;
            }
            smallvec![Some(apply(Op::Permute { perm: inverse }, &[g]))]
        }
        Op::Broadcast { .. } => smallvec![Some(super::sum_to(g, c.shape(0)))],
        Op::Slice { axis, start, step, .. } => {
            let base = zeros_of(c.shape(0), g);
            let op = Op::SliceAssign { axis: *axis, start: *start, step: *step };
            smallvec![Some(apply(op, &[&base, g]))]
        }
        Op::SliceAssign { axis, start, step } => {
            let values = c.shape(1);
            smallvec![
                c.needs[0].then(|| apply(op.clone(), &[g, &zeros_of(values, g)])),
                c.needs[1].then(|| {
                    let len = values[*axis];
                    apply(Op::Slice { axis: *axis, start: *start, len, step: *step }, &[g])
                }),
            ]
        }
        Op::Flip { .. } => smallvec![Some(apply(op.clone(), &[g]))],
        Op::ViewAsReal {} => smallvec![Some(g.view_as_complex())],
        Op::ViewAsComplex {} => smallvec![Some(g.view_as_real())],
        Op::Diagonal { .. } | Op::Unfold { .. } | Op::AsStrided { .. } => {
            smallvec![Some(index::view(op, c.shape(0), g))]
        }
        Op::Pad { low, .. } => {
            let mut inner = g.clone();
            for (axis, &start) in low.iter().enumerate() {
                let len = c.shape(0)[axis];
                inner = apply(Op::Slice { axis, start, len, step: 1 }, &[&inner]);
            }
            smallvec![Some(inner)]
        }
        Op::Concat { axis } => {
            let mut start = 0;
            let mut out = Grads::new();
            for (i, t) in c.types.iter().flatten().enumerate() {
                let len = t.shape[*axis];
                let part = Op::Slice { axis: *axis, start, len, step: 1 };
                out.push(c.needs[i].then(|| apply(part, &[g])));
                start += len;
            }
            out
        }

        Op::Gather { axis } => {
            let base = zeros_of(c.shape(0), g);
            let op = Op::Scatter { axis: *axis, kind: ScatterKind::Add };
            smallvec![Some(apply(op, &[&base, c.x(1), g])), None]
        }
        Op::Scatter { axis, kind: kind @ (ScatterKind::Prod | ScatterKind::Max | ScatterKind::Min) } => {
            index::scatter(*axis, *kind, c, g)
        }
        Op::Scatter { axis, kind } => {
            let index = c.x(1);
            smallvec![
                c.needs[0].then(|| match kind {
                    ScatterKind::Add => g.clone(),
                    _ => {
                        apply(op.clone(), &[g, index, &zeros_of(index.shape(), g)])
                    }
                }),
                None,
                c.needs[2].then(|| apply(Op::Gather { axis: *axis }, &[g, index])),
            ]
        }
        Op::IndexSelect { axis } => {
            let base = zeros_of(c.shape(0), g);
            smallvec![Some(apply(Op::IndexAdd { axis: *axis }, &[&base, c.x(1), g])), None]
        }
        Op::IndexAdd { axis } => smallvec![
            c.needs[0].then(|| g.clone()),
            None,
            c.needs[2].then(|| apply(Op::IndexSelect { axis: *axis }, &[g, c.x(1)])),
        ],

        Op::MatMul { .. } => contract::matmul(c, g),
        Op::Conv { stride, padding, dilation, groups, .. } => {
            let (stride, padding, dilation, groups) = (*stride, *padding, *dilation, *groups);
            let (x, w) = (c.x(0), c.x(1));
            let mut out: Grads = smallvec![
                c.needs[0].then(|| {
                    let (height, width) = (x.shape()[2], x.shape()[3]);
                    let op = Op::ConvInputGrad { stride, padding, dilation, groups, height, width };
                    apply(op, &[g, w])
                }),
                c.needs[1].then(|| {
                    let kernel = [w.shape()[2], w.shape()[3]];
                    let op = Op::ConvWeightGrad { stride, padding, dilation, groups, kernel };
                    apply(op, &[x, g])
                }),
            ];
            if c.needs.len() == 3 {
                out.push(c.needs[2].then(|| sum(g, &[0, 2, 3], false)));
            }
            out
        }
        // Both are linear in either operand, as convolution itself.
        Op::ConvInputGrad { stride, padding, dilation, groups, .. } => {
            let (stride, padding, dilation, groups) = (*stride, *padding, *dilation, *groups);
            let (gy, w) = (c.x(0), c.x(1));
            smallvec![
                c.needs[0].then(|| {
                    apply(Op::Conv { stride, padding, dilation, groups, act: Act::None }, &[g, w])
                }),
                c.needs[1].then(|| {
                    let kernel = [w.shape()[2], w.shape()[3]];
                    let op = Op::ConvWeightGrad { stride, padding, dilation, groups, kernel };
                    apply(op, &[g, gy])
                }),
            ]
        }
        Op::ConvWeightGrad { stride, padding, dilation, groups, .. } => {
            let (stride, padding, dilation, groups) = (*stride, *padding, *dilation, *groups);
            let (x, gy) = (c.x(0), c.x(1));
            smallvec![
                c.needs[0].then(|| {
                    let (height, width) = (x.shape()[2], x.shape()[3]);
                    let op = Op::ConvInputGrad { stride, padding, dilation, groups, height, width };
                    apply(op, &[gy, g])
                }),
                c.needs[1].then(|| {
                    apply(Op::Conv { stride, padding, dilation, groups, act: Act::None }, &[x, g])
                }),
            ]
        }
        Op::Pool { kind, window, stride, padding, dilation, ceil } => {
            let op = Op::PoolGrad {
                kind: *kind, window: *window, stride: *stride, padding: *padding,
                dilation: *dilation, ceil: *ceil,
            };
            smallvec![Some(apply(op, &[c.x(0), g]))]
        }
        Op::PoolGrad { .. } => contract::pool_grad(op, c, g),

        Op::Softmax { axis, log } => {
            smallvec![Some(apply(Op::SoftmaxGrad { axis: *axis, log: *log }, &[c.y(), g]))]
        }
        Op::LayerNorm { dims, eps } => {
            let x = c.x(0);
            let grad = Op::LayerNormGrad { dims: *dims, eps: *eps };
            let lead: Axes = (0..x.rank() - dims).collect();
            let mut out: Grads = smallvec![c.needs[0].then(|| {
                if c.needs.len() > 1 { apply(grad, &[x, g, c.x(1)]) } else { apply(grad, &[x, g]) }
            })];
            if c.needs.len() > 1 {
                out.push(c.needs[1].then(|| {
                    let xhat = apply(Op::LayerNorm { dims: *dims, eps: *eps }, &[x]);
                    sum(&(g * &xhat), &lead, false)
                }));
            }
            if c.needs.len() > 2 {
                out.push(c.needs[2].then(|| sum(g, &lead, false)));
            }
            out
        }
        Op::Attention { scale, causal } => attention::once(*scale, *causal, c, g),
        Op::Dropout { .. } if c.needs.len() > 1 => {
            smallvec![Some(apply(op.clone(), &[g, c.x(1)])), None]
        }
        Op::Dropout { .. } => smallvec![Some(apply(op.clone(), &[g]))],

        Op::Full { .. } | Op::Iota { .. } | Op::Random { .. } | Op::Sample { .. } | Op::Compare(_)
        | Op::ArgReduce { .. } | Op::SearchSorted { .. } => smallvec![None; c.needs.len()],
        Op::Sort { .. } | Op::TopK { .. } | Op::Recurrent { .. } | Op::RecurrentGrad { .. } | Op::AttentionGrad { .. } | Op::Cholesky {} | Op::Lu {} | Op::Qr { .. }
        | Op::Svd { .. } | Op::Eigh {} | Op::Eig {} | Op::TriangularSolve { .. } | Op::Fft { .. } => unreachable!("done above"),
        Op::SoftmaxGrad { .. } | Op::LayerNormGrad { .. } => {
            unreachable!("{} is recorded by its decomposition", op.name())
        }
    }
}

/// The rule of an op that has none but by what `f` makes of its operands in ops: the
/// backward pass through that.
fn differentiated(
    c: &Context,
    grads: &[Option<Tensor>],
    f: impl FnOnce(&[Tensor]) -> SmallVec<[Tensor; 3]>,
) -> Grads {
    if grads.iter().all(Option::is_none) {
        return smallvec![None; c.needs.len()];
    }
    let again = grad_enabled();
    // Operands that stand for themselves: none of them comes from another.
    let xs: SmallVec<[Tensor; 7]> = (0..c.needs.len())
        .map(|i| {
            let x = c.x(i);
            match again && x.requires_grad() {
                true => apply(Op::Reshape { shape: x.shape().into() }, &[x]),
                false if c.needs[i] => x.detach().requires_grad_(true),
                false => x.detach(),
            }
        })
        .collect();
    let outs = enable_grad(|| f(&xs));
    let wanted: Vec<&Tensor> =
        xs.iter().zip(&c.needs).filter(|(_, n)| **n).map(|(x, _)| x).collect();
    let (outs, grads): (Vec<&Tensor>, Vec<Option<&Tensor>>) = outs
        .iter()
        .zip(grads)
        .filter(|(o, g)| g.is_some() && o.requires_grad())
        .map(|(o, g)| (o, g.as_ref()))
        .unzip();
    if outs.is_empty() {
        return smallvec![None; c.needs.len()];
    }
    let mut found =
        Backward::new().create_graph(again).gradients(&grads).grad(&outs, &wanted).into_iter();
    c.needs.iter().map(|&n| if n { found.next().flatten() } else { None }).collect()
}

fn zeros_of(shape: &[usize], like: &Tensor) -> Tensor {
    let (value, dtype, shape) = (Scalar::Float(0.0), like.dtype(), shape.into());
    made_on(like.device(), Op::Full { value, dtype, shape })
}

fn sum(x: &Tensor, axes: &[usize], keep: bool) -> Tensor {
    if axes.is_empty() {
        return x.clone();
    }
    apply(Op::Reduce { kind: ReduceKind::Sum, axes: axes.into(), keep }, &[x])
}
