//! What each composite is made of.
//!
//! A decomposition is written once over [`Build`]: the eager runtime executes
//! it, autograd records it, the compiler expands graphs with it.

use super::*;
use crate::OpError;

/// Something ops can be applied in: an eager runtime, a tape, a graph.
pub trait Build {
    /// Its kind of extent.
    type Dim: Extent;
    /// Its values.
    type Value: Clone;

    /// Applies a one-result op.
    fn op(&mut self, op: Op<Self::Dim>, inputs: &[Self::Value]) -> Result<Self::Value, OpError>;
    /// The type of a value.
    fn type_of(&self, v: &Self::Value) -> TensorType<Self::Dim>;

    /// Applies a unary op.
    fn unary(&mut self, op: UnaryOp, x: &Self::Value) -> Result<Self::Value, OpError> {
        self.op(Op::Unary(op), std::slice::from_ref(x))
    }
    /// Applies a binary op.
    fn binary(
        &mut self,
        op: BinaryOp,
        a: &Self::Value,
        b: &Self::Value,
    ) -> Result<Self::Value, OpError> {
        self.op(Op::Binary(op), &[a.clone(), b.clone()])
    }
    /// A 0-d constant of the type of `like`.
    fn constant(&mut self, value: f64, like: &Self::Value) -> Result<Self::Value, OpError> {
        let dtype = self.type_of(like).dtype;
        self.op(Op::Full { value: Scalar::Float(value), dtype, shape: Dims::new() }, &[])
    }
    /// Reduces axes, keeping them as ones.
    fn reduce(
        &mut self,
        kind: ReduceKind,
        axes: &[usize],
        x: &Self::Value,
    ) -> Result<Self::Value, OpError> {
        let op = Op::Reduce { kind, axes: axes.into(), keep: true };
        self.op(op, std::slice::from_ref(x))
    }
}

/// Expands a composite over `b`; `None` for a primitive.
///
/// # Errors
/// Those of the ops it is made of.
pub fn decompose<B: Build>(
    b: &mut B,
    op: &Op<B::Dim>,
    xs: &[B::Value],
) -> Option<Result<B::Value, OpError>> {
    if complex::concerns(op, xs.iter().map(|x| b.type_of(x).dtype)) {
        return Some(complex::expand(b, op, xs));
    }
    Some(match op {
        Op::MatMul { act } if *act != Act::None || xs.len() == 3 => matmul(b, *act, xs),
        Op::Conv { act, .. } if *act != Act::None || xs.len() == 3 => conv(b, op, *act, xs),
        Op::Softmax { axis, log } => softmax(b, *axis, *log, &xs[0]),
        Op::SoftmaxGrad { axis, log } => softmax_grad(b, *axis, *log, &xs[0], &xs[1]),
        Op::LayerNorm { dims, eps } => layer_norm(b, *dims, eps.get(), xs),
        Op::LayerNormGrad { dims, eps } => layer_norm_grad(b, *dims, eps.get(), xs),
        Op::Attention { scale, causal } => attention(b, scale.get(), *causal, xs),
        Op::Dropout { p, seed, offset } => dropout(b, p.get(), *seed, *offset, xs),
        _ => return None,
    })
}

impl<D> Op<D> {
    /// Whether the op, on that many operands, has a decomposition.
    pub fn is_composite(&self, operands: usize) -> bool {
        match self {
            Op::MatMul { act } | Op::Conv { act, .. } => *act != Act::None || operands == 3,
            _ => matches!(
                self,
                Op::Softmax { .. }
                    | Op::SoftmaxGrad { .. }
                    | Op::LayerNorm { .. }
                    | Op::LayerNormGrad { .. }
                    | Op::Attention { .. }
                    | Op::Dropout { .. }
            ),
        }
    }
}

type R<B> = Result<<B as Build>::Value, OpError>;

fn activate<B: Build>(b: &mut B, act: Act, y: B::Value) -> R<B> {
    match act.unary() {
        Some(u) => b.unary(u, &y),
        None => Ok(y),
    }
}

fn matmul<B: Build>(b: &mut B, act: Act, xs: &[B::Value]) -> R<B> {
    let mut y = b.op(Op::MatMul { act: Act::None }, &xs[..2])?;
    if let Some(bias) = xs.get(2) {
        y = b.binary(BinaryOp::Add, &y, bias)?;
    }
    activate(b, act, y)
}

fn conv<B: Build>(b: &mut B, op: &Op<B::Dim>, act: Act, xs: &[B::Value]) -> R<B> {
    let mut plain = op.clone();
    if let Op::Conv { act, .. } = &mut plain {
        *act = Act::None;
    }
    let mut y = b.op(plain, &xs[..2])?;
    if let Some(bias) = xs.get(2) {
        let o = b.type_of(bias).shape[0].clone();
        let one = || B::Dim::of(1);
        let shape = [o, one(), one()].into_iter().collect();
        let bias = b.op(Op::Reshape { shape }, std::slice::from_ref(bias))?;
        y = b.binary(BinaryOp::Add, &y, &bias)?;
    }
    activate(b, act, y)
}

/// Shifted by the maximum, so that nothing overflows.
fn softmax<B: Build>(b: &mut B, axis: usize, log: bool, x: &B::Value) -> R<B> {
    // Nothing has no maximum; its softmax is nothing.
    if b.type_of(x).shape[axis].is(0) {
        return Ok(x.clone());
    }
    let max = b.reduce(ReduceKind::Max, &[axis], x)?;
    let d = b.binary(BinaryOp::Sub, x, &max)?;
    let e = b.unary(UnaryOp::Exp, &d)?;
    let sum = b.reduce(ReduceKind::Sum, &[axis], &e)?;
    if log {
        let l = b.unary(UnaryOp::Log, &sum)?;
        b.binary(BinaryOp::Sub, &d, &l)
    } else {
        b.binary(BinaryOp::Div, &e, &sum)
    }
}

/// softmax: y (g - Σ g y); log-softmax: g - e^y Σ g.
fn softmax_grad<B: Build>(b: &mut B, axis: usize, log: bool, y: &B::Value, g: &B::Value) -> R<B> {
    if log {
        let s = b.reduce(ReduceKind::Sum, &[axis], g)?;
        let e = b.unary(UnaryOp::Exp, y)?;
        let t = b.binary(BinaryOp::Mul, &e, &s)?;
        b.binary(BinaryOp::Sub, g, &t)
    } else {
        let gy = b.binary(BinaryOp::Mul, g, y)?;
        let s = b.reduce(ReduceKind::Sum, &[axis], &gy)?;
        let d = b.binary(BinaryOp::Sub, g, &s)?;
        b.binary(BinaryOp::Mul, y, &d)
    }
}

fn last_axes(rank: usize, dims: usize) -> Axes {
    (rank - dims..rank).collect()
}

/// Mean over `axes`, kept as ones.
fn mean<B: Build>(b: &mut B, axes: &[usize], x: &B::Value) -> R<B> {
    let shape = b.type_of(x).shape;
    let n = axes.iter().fold(B::Dim::of(1), |n, &a| n.times(&shape[a]));
    let s = b.reduce(ReduceKind::Sum, axes, x)?;
    let Some(n) = n.known() else {
        // The count is known when the program runs: ones, added up.
        let (value, dtype) = (Scalar::Float(1.0), b.type_of(x).dtype);
        let dims: Dims<B::Dim> = axes.iter().map(|&a| shape[a].clone()).collect();
        let all: Axes = (0..dims.len()).collect();
        let ones = b.op(Op::Full { value, dtype, shape: dims }, &[])?;
        let sum = Op::Reduce { kind: ReduceKind::Sum, axes: all, keep: false };
        let n = b.op(sum, &[ones])?;
        return b.binary(BinaryOp::Div, &s, &n);
    };
    let k = b.constant(1.0 / n as f64, x)?;
    b.binary(BinaryOp::Mul, &s, &k)
}

/// `(x - mean, 1 / sqrt(var + eps))` over `axes`.
fn standardise<B: Build>(
    b: &mut B,
    axes: &[usize],
    eps: f64,
    x: &B::Value,
) -> Result<(B::Value, B::Value), OpError> {
    let m = mean(b, axes, x)?;
    let d = b.binary(BinaryOp::Sub, x, &m)?;
    let sq = b.unary(UnaryOp::Square, &d)?;
    let var = mean(b, axes, &sq)?;
    let eps = b.constant(eps, x)?;
    let v = b.binary(BinaryOp::Add, &var, &eps)?;
    Ok((d, b.unary(UnaryOp::Rsqrt, &v)?))
}

fn layer_norm<B: Build>(b: &mut B, dims: usize, eps: f64, xs: &[B::Value]) -> R<B> {
    let axes = last_axes(b.type_of(&xs[0]).shape.len(), dims);
    let (d, rstd) = standardise(b, &axes, eps, &xs[0])?;
    let mut y = b.binary(BinaryOp::Mul, &d, &rstd)?;
    if let Some(w) = xs.get(1) {
        y = b.binary(BinaryOp::Mul, &y, w)?;
    }
    if let Some(bias) = xs.get(2) {
        y = b.binary(BinaryOp::Add, &y, bias)?;
    }
    Ok(y)
}

/// rstd (g - mean(g) - x̂ mean(g x̂)), with g already times the weight.
fn layer_norm_grad<B: Build>(b: &mut B, dims: usize, eps: f64, xs: &[B::Value]) -> R<B> {
    let axes = last_axes(b.type_of(&xs[0]).shape.len(), dims);
    let (d, rstd) = standardise(b, &axes, eps, &xs[0])?;
    let xhat = b.binary(BinaryOp::Mul, &d, &rstd)?;
    let g = match xs.get(2) {
        Some(w) => b.binary(BinaryOp::Mul, &xs[1], w)?,
        None => xs[1].clone(),
    };
    let mg = mean(b, &axes, &g)?;
    let gx = b.binary(BinaryOp::Mul, &g, &xhat)?;
    let mgx = mean(b, &axes, &gx)?;
    let t = b.binary(BinaryOp::Mul, &xhat, &mgx)?;
    let u = b.binary(BinaryOp::Sub, &g, &mg)?;
    let u = b.binary(BinaryOp::Sub, &u, &t)?;
    b.binary(BinaryOp::Mul, &u, &rstd)
}

/// The weights of attention.
fn attention_weights<B: Build>(
    b: &mut B,
    scale: f64,
    causal: bool,
    [q, k]: [&B::Value; 2],
    mask: Option<&B::Value>,
) -> R<B> {
    let rank = b.type_of(q).shape.len();
    let kt = turned(b, k)?;
    let scale = b.constant(scale, q)?;
    let q = b.binary(BinaryOp::Mul, q, &scale)?;
    let mut s = b.op(Op::MatMul { act: Act::None }, &[q, kt])?;
    if let Some(mask) = mask {
        s = b.binary(BinaryOp::Add, &s, mask)?;
    }
    if causal {
        let shape = b.type_of(&s).shape;
        let ts: Dims<B::Dim> = shape[rank - 2..].iter().cloned().collect();
        let iota = |axis| Op::Iota { dtype: DType::I64, shape: ts.clone(), axis };
        let row = b.op(iota(0), &[])?;
        let col = b.op(iota(1), &[])?;
        let seen = b.op(Op::Compare(CompareOp::Ge), &[row, col])?;
        let hidden = b.constant(f64::NEG_INFINITY, &s)?;
        s = b.op(Op::Select {}, &[seen, s, hidden])?;
    }
    b.op(Op::Softmax { axis: rank - 1, log: false }, &[s])
}

/// Matrices with rows and columns exchanged.
fn turned<B: Build>(b: &mut B, x: &B::Value) -> R<B> {
    let mut perm: Axes = (0..b.type_of(x).shape.len()).collect();
    let rank = perm.len();
    perm.swap(rank - 1, rank - 2);
    b.op(Op::Permute { perm }, std::slice::from_ref(x))
}

fn attention<B: Build>(b: &mut B, scale: f64, causal: bool, xs: &[B::Value]) -> R<B> {
    let p = attention_weights(b, scale, causal, [&xs[0], &xs[1]], xs.get(3))?;
    b.op(Op::MatMul { act: Act::None }, &[p, xs[2].clone()])
}

/// What [`Op::AttentionGrad`] is made of: its three results.
///
/// # Errors
/// Those of the ops it is made of.
pub fn attention_grad<B: Build>(
    b: &mut B,
    scale: f64,
    causal: bool,
    xs: &[B::Value],
) -> Result<[B::Value; 3], OpError> {
    let (q, k, v, gy) = (&xs[0], &xs[1], &xs[2], &xs[3]);
    let axis = b.type_of(q).shape.len() - 1;
    let p = attention_weights(b, scale, causal, [q, k], xs.get(4))?;
    let mm = |b: &mut B, x: &B::Value, y: &B::Value| {
        b.op(Op::MatMul { act: Act::None }, &[x.clone(), y.clone()])
    };
    let vt = turned(b, v)?;
    let d = mm(b, gy, &vt)?;
    let s = b.op(Op::SoftmaxGrad { axis, log: false }, &[p.clone(), d])?;
    let scale = b.constant(scale, q)?;
    let s = b.binary(BinaryOp::Mul, &s, &scale)?;
    let (st, pt) = (turned(b, &s)?, turned(b, &p)?);
    Ok([mm(b, &s, k)?, mm(b, &st, q)?, mm(b, &pt, gy)?])
}

/// The mask is drawn in f32 whatever the operand's type: its numbers are those the
/// kernel draws.
fn dropout<B: Build>(b: &mut B, p: f64, seed: u64, offset: u64, xs: &[B::Value]) -> R<B> {
    let x = &xs[0];
    let (kind, dtype, shape) = (RandomKind::Uniform, DType::F32, b.type_of(x).shape);
    let u = b.op(Op::Random { kind, dtype, shape, seed, offset }, &xs[1..])?;
    let limit = b.constant(p, &u)?;
    let keep = b.op(Op::Compare(CompareOp::Ge), &[u, limit])?;
    let scale = b.constant(if p < 1.0 { 1.0 / (1.0 - p) } else { 0.0 }, x)?;
    let y = b.binary(BinaryOp::Mul, x, &scale)?;
    let zero = b.constant(0.0, x)?;
    b.op(Op::Select {}, &[keep, y, zero])
}
