//! The derivative of every op: its vector-Jacobian product, written in ops.
//!
//! [`saves`] says what a rule needs, [`vjp`] is the rule. Composites without a
//! rule are recorded by their decomposition. Gradients of operands that were
//! broadcast are summed down by the engine, so rules need not mind.

use crate::tensor::{Tensor, apply, full_like, ones_like, zeros_like};
use sinter_runtime::op::{
    Act, Axes, BinaryOp, PoolKind, ReduceKind, ScanKind, ScatterKind, TensorType, UnaryOp,
};
use sinter_runtime::{Op, Scalar};
use smallvec::{SmallVec, smallvec};

/// What a rule needs from the forward pass.
pub(super) struct Saves {
    /// Values of operands, one bit each.
    pub(super) inputs: u32,
    /// The value of the (only) result.
    pub(super) output: bool,
    /// Types of the operands.
    pub(super) types: bool,
}

/// What was saved, handed to the rule.
pub(super) struct Context {
    pub(super) inputs: SmallVec<[Option<Tensor>; 3]>,
    pub(super) output: Option<Tensor>,
    pub(super) types: Option<Box<[TensorType]>>,
    /// Which operands want a gradient.
    pub(super) needs: SmallVec<[bool; 3]>,
}

impl Context {
    fn x(&self, i: usize) -> &Tensor {
        self.inputs[i].as_ref().expect("`saves` names every operand its rule uses")
    }
    fn y(&self) -> &Tensor {
        self.output.as_ref().expect("`saves` asks for the result where its rule uses it")
    }
    fn ty(&self, i: usize) -> &TensorType {
        &self.types.as_ref().expect("`saves` asks for types where its rule uses them")[i]
    }
    fn shape(&self, i: usize) -> &[usize] {
        &self.ty(i).shape
    }
}

type Grads = SmallVec<[Option<Tensor>; 3]>;

/// Whether the op has a rule of its own; composites without one are recorded by
/// their decomposition.
pub(crate) fn has_rule(op: &Op) -> bool {
    match op {
        Op::MatMul { act } | Op::Conv { act, .. } => *act == Act::None,
        Op::SoftmaxGrad { .. } | Op::LayerNormGrad { .. } | Op::Attention { .. } => false,
        _ => true,
    }
}

/// What the rule of `op`, on that many operands, needs.
pub(super) fn saves(op: &Op, operands: usize) -> Saves {
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
            | U::BitNot => none,
            U::Reciprocal
            | U::Sqrt
            | U::Rsqrt
            | U::Exp
            | U::Exp2
            | U::Expm1
            | U::Tan
            | U::Tanh
            | U::Sigmoid
            | U::Relu => output,
            _ => inputs(1),
        },
        Op::Binary(b) => match b {
            BinaryOp::Add | BinaryOp::Sub => none,
            BinaryOp::Gate => inputs(2),
            BinaryOp::Pow => Saves { output: true, ..inputs(3) },
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
        Op::Scan { .. } => inputs(1),
        // The indices are recomputed: sorting the saved operand again gives them.
        Op::Sort { .. } | Op::TopK { .. } => inputs(1),
        Op::Reshape { .. }
        | Op::Broadcast { .. }
        | Op::Slice { .. }
        | Op::SliceAssign { .. }
        | Op::Pad { .. }
        | Op::Concat { .. } => types,
        Op::Permute { .. } | Op::Flip { .. } => none,
        Op::Gather { .. } | Op::IndexSelect { .. } => Saves { types: true, ..inputs(2) },
        Op::Scatter { .. } | Op::IndexAdd { .. } => inputs(2),
        Op::MatMul { .. } | Op::Conv { .. } => Saves { types: operands == 3, ..inputs(3) },
        Op::ConvInputGrad { .. } | Op::ConvWeightGrad { .. } => Saves { types: true, ..inputs(3) },
        Op::Pool { .. } | Op::PoolGrad { .. } => inputs(1),
        Op::Softmax { .. } => output,
        Op::LayerNorm { .. } => inputs(if operands > 1 { 3 } else { 1 }),
        _ => none,
    }
}

#[rustfmt::skip]
pub(super) fn vjp(op: &Op, c: &Context, grads: &[Option<Tensor>]) -> Grads {
    if let Op::Sort { axis, .. } | Op::TopK { axis, .. } = op {
        return sorted(op, *axis, c, grads);
    }
    let Some(g) = &grads[0] else { return smallvec![None; c.needs.len()] };
    match op {
        Op::Unary(u) => smallvec![Some(unary(*u, c, g))],
        Op::Binary(b) => binary(*b, c, g),
        Op::Select {} => {
            let zero = zeros_like(g);
            smallvec![
                None,
                c.needs[1].then(|| c.x(0).where_(g, &zero)),
                c.needs[2].then(|| c.x(0).where_(&zero, g)),
            ]
        }
        Op::Cast { .. } => smallvec![Some(g.to_dtype(c.ty(0).dtype))],
        Op::Reduce { kind, axes, keep } => smallvec![Some(reduce(*kind, axes, *keep, c, g))],
        Op::Scan { kind, axis, reverse } => smallvec![Some(scan(*kind, *axis, *reverse, c, g))],

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
        Op::Scatter { axis, kind } => {
            let index = c.x(1);
            smallvec![
                c.needs[0].then(|| match kind {
                    ScatterKind::Add => g.clone(),
                    ScatterKind::Set => {
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

        Op::MatMul { .. } => matmul(c, g),
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
        Op::PoolGrad { .. } => pool_grad(op, c, g),

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
        Op::Dropout { .. } => smallvec![Some(apply(op.clone(), &[g]))],
        _ => smallvec![None; c.needs.len()],
    }
}

fn zeros_of(shape: &[usize], like: &Tensor) -> Tensor {
    apply(Op::Full { value: Scalar::Float(0.0), dtype: like.dtype(), shape: shape.into() }, &[])
}

fn sum(x: &Tensor, axes: &[usize], keep: bool) -> Tensor {
    if axes.is_empty() {
        return x.clone();
    }
    apply(Op::Reduce { kind: ReduceKind::Sum, axes: axes.into(), keep }, &[x])
}

#[rustfmt::skip]
fn unary(u: UnaryOp, c: &Context, g: &Tensor) -> Tensor {
    use UnaryOp::*;
    const SQRT_PI: f64 = 1.772_453_850_905_516;
    match u {
        Neg => -g,
        Abs => g * c.x(0).sign(),
        Sign | Floor | Ceil | Round | Trunc => zeros_like(g),
        Reciprocal => -(g * c.y().square()),
        Sqrt => g * 0.5 / c.y(),
        Rsqrt => g * -0.5 * c.y() * c.y().square(),
        Square => g * c.x(0) * 2.0,
        Exp => g * c.y(),
        Exp2 => g * c.y() * std::f64::consts::LN_2,
        Expm1 => g * (c.y() + 1.0),
        Log => g / c.x(0),
        Log2 => g / (c.x(0) * std::f64::consts::LN_2),
        Log10 => g / (c.x(0) * std::f64::consts::LN_10),
        Log1p => g / (c.x(0) + 1.0),
        Sin => g * c.x(0).cos(),
        Cos => -(g * c.x(0).sin()),
        Tan => g * (c.y().square() + 1.0),
        Asin => g * (1.0 - c.x(0).square()).rsqrt(),
        Acos => -(g * (1.0 - c.x(0).square()).rsqrt()),
        Atan => g / (c.x(0).square() + 1.0),
        Sinh => g * c.x(0).cosh(),
        Cosh => g * c.x(0).sinh(),
        Tanh => g * (1.0 - c.y().square()),
        Asinh => g * (c.x(0).square() + 1.0).rsqrt(),
        Acosh => g * (c.x(0).square() - 1.0).rsqrt(),
        Atanh => g / (1.0 - c.x(0).square()),
        Sigmoid => g * c.y() * (1.0 - c.y()),
        Erf => g * (-c.x(0).square()).exp() * (2.0 / SQRT_PI),
        Relu => apply(Op::Binary(BinaryOp::Gate), &[g, c.y()]),
        Silu => {
            let (x, s) = (c.x(0), c.x(0).sigmoid());
            g * &s * (1.0 + x * (1.0 - &s))
        }
        Gelu => {
            // Φ(x) + x φ(x)
            let x = c.x(0);
            let cdf = ((x * std::f64::consts::FRAC_1_SQRT_2).erf() + 1.0) * 0.5;
            let pdf = (x.square() * -0.5).exp() * (std::f64::consts::FRAC_1_SQRT_2 / SQRT_PI);
            g * (cdf + x * pdf)
        }
        GeluTanh => {
            const K: f64 = 0.797_884_560_802_865_4; // sqrt(2/π)
            let x = c.x(0);
            let t = ((x + x * x.square() * 0.044_715) * K).tanh();
            let du = (x.square() * (3.0 * 0.044_715) + 1.0) * K;
            g * (0.5 * (&t + 1.0) + 0.5 * x * (1.0 - t.square()) * du)
        }
        Softplus => g * c.x(0).sigmoid(),
        IsNan | IsInf | IsFinite | LogicalNot | BitNot => zeros_like(g),
    }
}

#[rustfmt::skip]
fn binary(b: BinaryOp, c: &Context, g: &Tensor) -> Grads {
    let (na, nb) = (c.needs[0], c.needs[1]);
    match b {
        BinaryOp::Add => smallvec![na.then(|| g.clone()), nb.then(|| g.clone())],
        BinaryOp::Sub => smallvec![na.then(|| g.clone()), nb.then(|| -g)],
        BinaryOp::Mul => smallvec![na.then(|| g * c.x(1)), nb.then(|| g * c.x(0))],
        BinaryOp::Div => {
            let ga = g / c.x(1);
            let gb = nb.then(|| -(&ga * c.x(0) / c.x(1)));
            smallvec![na.then_some(ga), gb]
        }
        BinaryOp::Max | BinaryOp::Min => {
            // Equal operands share the gradient.
            let (a, b_) = (c.x(0), c.x(1));
            let wins = if b == BinaryOp::Max { a.gt(b_) } else { a.lt(b_) };
            let share = apply(Op::Select {}, &[&wins, &ones_like(g), &zeros_like(g)]);
            let share = a.eq(b_).where_(&full_like(g, 0.5), &share);
            smallvec![na.then(|| g * &share), nb.then(|| g * (1.0 - &share))]
        }
        BinaryOp::Pow => {
            let (a, b_, y) = (c.x(0), c.x(1), c.y());
            let zero = zeros_like(y);
            smallvec![
                na.then(|| {
                    // b a^(b-1), which is 0 where b is 0 even if a is.
                    let d = g * b_ * a.pow(b_ - 1.0);
                    b_.eq(0.0).where_(&zero, &d)
                }),
                nb.then(|| {
                    // y ln a, which is 0 where y is.
                    let d = g * y * a.ln();
                    a.eq(0.0).logical_and(&b_.ge(0.0)).where_(&zero, &d)
                }),
            ]
        }
        BinaryOp::Rem => smallvec![
            na.then(|| g.clone()),
            nb.then(|| -(g * (c.x(0) / c.x(1)).floor())),
        ],
        BinaryOp::Atan2 => {
            let r = g / (c.x(0).square() + c.x(1).square());
            smallvec![na.then(|| &r * c.x(1)), nb.then(|| -(&r * c.x(0)))]
        }
        BinaryOp::Gate => smallvec![
            na.then(|| apply(Op::Binary(BinaryOp::Gate), &[g, c.x(1)])),
            nb.then(|| zeros_like(g)),
        ],
        BinaryOp::FloorDiv | BinaryOp::And | BinaryOp::Or | BinaryOp::Xor | BinaryOp::Shl
        | BinaryOp::Shr => smallvec![na.then(|| zeros_like(g)), nb.then(|| zeros_like(g))],
    }
}

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

fn reduce(kind: ReduceKind, axes: &[usize], keep: bool, c: &Context, g: &Tensor) -> Tensor {
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

fn scan(kind: ScanKind, axis: usize, reverse: bool, c: &Context, g: &Tensor) -> Tensor {
    let run = |kind, reverse, x: &Tensor| apply(Op::Scan { kind, axis, reverse }, &[x]);
    match kind {
        ScanKind::Sum => run(ScanKind::Sum, !reverse, g),
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

fn sorted(op: &Op, axis: usize, c: &Context, grads: &[Option<Tensor>]) -> Grads {
    let Some(g) = &grads[0] else { return smallvec![None] };
    let x = c.x(0);
    let index = crate::no_grad(|| crate::tensor::apply_all(op.clone(), &[&x.detach()]))
        .pop()
        .expect("sorting gives values and indices");
    let scatter = Op::Scatter { axis, kind: ScatterKind::Add };
    smallvec![Some(apply(scatter, &[&zeros_of(x.shape(), g), &index, g]))]
}

fn transposed(x: &Tensor) -> Tensor {
    x.transpose(-1, -2)
}

fn matmul(c: &Context, g: &Tensor) -> Grads {
    let (a, b) = (c.x(0), c.x(1));
    let mm = |x: &Tensor, y: &Tensor| apply(Op::MatMul { act: Act::None }, &[x, y]);
    let rows = |t: &Tensor| t.reshape([t.numel() / t.size(-1).max(1), t.size(-1)]);
    let mut out: Grads = smallvec![
        c.needs[0].then(|| super::sum_to(&mm(g, &transposed(b)), a.shape())),
        c.needs[1].then(|| {
            if b.rank() == 2 && a.numel() > 0 && g.numel() > 0 {
                // One product over all rows of all batches, instead of a sum of products.
                let (a, g) = (rows(a), rows(g));
                // The gradient lies in memory as the operand does: that of a transposed
                // weight is the transpose of what its owner will keep.
                if !b.is_traced() && b.strides()[0] == 1 {
                    transposed(&mm(&transposed(&g), &a))
                } else {
                    mm(&transposed(&a), &g)
                }
            } else {
                super::sum_to(&mm(&transposed(a), g), b.shape())
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
fn pool_grad(op: &Op, c: &Context, g: &Tensor) -> Grads {
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
