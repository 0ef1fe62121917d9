//! The batching rule of every op: what it is on operands of which some have a further
//! first dimension, along which everything happens separately.

use crate::tensor::{Tensor, apply, apply_all, stack};
use sinter_runtime::Op;
use sinter_runtime::op::{Act, Axes, BinaryOp, CellKind, ScatterKind};
use smallvec::{SmallVec, smallvec};

type Outputs = SmallVec<[Tensor; 1]>;
type Dims = SmallVec<[usize; 8]>;

/// Operands of a batched op.
pub(super) struct Operands<'a> {
    pub(super) values: &'a [Tensor],
    /// Which have the further dimension.
    pub(super) batched: &'a [bool],
    /// Its extent.
    pub(super) n: usize,
}

impl Operands<'_> {
    /// The shape without the further dimension.
    fn shape(&self, i: usize) -> &[usize] {
        &self.values[i].shape()[usize::from(self.batched[i])..]
    }

    fn rank(&self, i: usize) -> usize {
        self.shape(i).len()
    }

    fn most_dims(&self) -> usize {
        (0..self.values.len()).map(|i| self.rank(i)).max().unwrap_or(0)
    }

    /// The operand with the further dimension.
    fn full(&self, i: usize) -> Tensor {
        if self.batched[i] {
            return self.values[i].clone();
        }
        let shape: Dims = std::iter::once(self.n).chain(self.shape(i).iter().copied()).collect();
        self.values[i].broadcast_to(&shape[..])
    }

    /// An operand as it broadcasts among others of `rank` dimensions: ones follow the
    /// further dimension.
    fn aligned(&self, i: usize, rank: usize) -> Tensor {
        let x = &self.values[i];
        if self.batched[i] { with_ones(x, rank - self.rank(i)) } else { x.clone() }
    }

    fn all_full(&self) -> SmallVec<[Tensor; 4]> {
        (0..self.values.len()).map(|i| self.full(i)).collect()
    }

    fn all_aligned(&self) -> SmallVec<[Tensor; 4]> {
        let rank = self.most_dims();
        (0..self.values.len()).map(|i| self.aligned(i, rank)).collect()
    }
}

/// `count` ones after the first dimension.
fn with_ones(x: &Tensor, count: usize) -> Tensor {
    if count == 0 {
        return x.clone();
    }
    let (first, rest) = x.shape().split_at(1);
    let ones = std::iter::repeat_n(&1, count);
    let shape: Dims = first.iter().chain(ones).chain(rest).copied().collect();
    x.reshape(&shape[..])
}

/// The first two dimensions as one.
fn merged(x: &Tensor) -> Tensor {
    x.flatten(0, 1)
}

/// The first dimension as `n` times another.
fn parted(x: &Tensor, n: usize) -> Tensor {
    let first = x.shape()[0] / n.max(1);
    let shape: Dims = [n, first].into_iter().chain(x.shape()[1..].iter().copied()).collect();
    x.reshape(&shape[..])
}

/// `[n, N, C, …]` as `[N, n C, …]`: what belongs to the batch becomes channels.
fn to_channels(x: &Tensor) -> Tensor {
    x.transpose(0, 1).flatten(1, 2)
}

/// `[N, n C, …]` as `[n, N, C, …]`.
fn from_channels(x: &Tensor, n: usize) -> Tensor {
    let (s, c) = (x.shape(), x.shape()[1] / n.max(1));
    let shape: Dims = [s[0], n, c].into_iter().chain(s[2..].iter().copied()).collect();
    x.reshape(&shape[..]).transpose(0, 1)
}

fn activate(act: Act, y: Tensor) -> Tensor {
    match act.unary() {
        Some(u) => apply(Op::Unary(u), &[&y]),
        None => y,
    }
}

fn run(op: Op, xs: &[Tensor]) -> Outputs {
    let refs: SmallVec<[&Tensor; 4]> = xs.iter().collect();
    apply_all(op, &refs)
}

fn shifted(axes: &[usize]) -> Axes {
    axes.iter().map(|a| a + 1).collect()
}

/// The op on batched operands; its results have the further dimension.
pub(super) fn batched(op: &Op, xs: &Operands) -> Outputs {
    let (values, n) = (xs.values, xs.n);
    let mut moved = op.clone();
    match &mut moved {
        Op::Unary(_) | Op::Cast { .. } | Op::ViewAsReal {} | Op::ViewAsComplex {} => {}
        Op::Binary(_) | Op::Compare(_) | Op::Select {} => return run(moved, &xs.all_aligned()),
        Op::Full { .. } | Op::Iota { .. } | Op::Random { .. } => {
            unreachable!("{} has no operands", op.name())
        }
        Op::Reduce { axes, .. } | Op::Flip { axes } => *axes = shifted(axes),
        Op::ArgReduce { axis, .. }
        | Op::Scan { axis, .. }
        | Op::Sort { axis, .. }
        | Op::TopK { axis, .. }
        | Op::Slice { axis, .. }
        | Op::Unfold { axis, .. }
        | Op::Fft { axis, .. }
        | Op::Softmax { axis, .. } => *axis += 1,
        Op::SliceAssign { axis, .. }
        | Op::Concat { axis }
        | Op::Gather { axis }
        | Op::Scatter { axis, .. }
        | Op::SoftmaxGrad { axis, .. } => {
            *axis += 1;
            return run(moved, &xs.all_full());
        }
        Op::Diagonal { axis1, axis2, .. } => (*axis1, *axis2) = (*axis1 + 1, *axis2 + 1),
        Op::Reshape { shape } => shape.insert(0, n),
        Op::Broadcast { shape } => {
            let x = xs.aligned(0, shape.len());
            shape.insert(0, n);
            return run(moved, &[x]);
        }
        Op::AsStrided { shape, strides, .. } => {
            shape.insert(0, n);
            strides.insert(0, xs.shape(0).iter().product());
        }
        Op::Permute { perm } => *perm = std::iter::once(0).chain(shifted(perm)).collect(),
        Op::Pad { low, high, .. } => {
            low.insert(0, 0);
            high.insert(0, 0);
        }
        Op::SearchSorted { .. } => return searchsorted(moved, xs),
        Op::IndexSelect { axis } => return smallvec![index_select(*axis, xs)],
        Op::IndexAdd { axis } => return smallvec![index_add(*axis, xs)],
        Op::MatMul { act } => return smallvec![matmul(*act, xs)],
        Op::Conv { .. } => return smallvec![conv(moved, xs)],
        Op::ConvInputGrad { .. } if !xs.batched[1] => {
            let y = run(moved, &[merged(&values[0]), values[1].clone()]).swap_remove(0);
            return smallvec![parted(&y, n)];
        }
        Op::ConvInputGrad { groups, .. } => {
            *groups *= n;
            let y = run(moved, &[to_channels(&xs.full(0)), merged(&values[1])]).swap_remove(0);
            return smallvec![from_channels(&y, n)];
        }
        Op::ConvWeightGrad { groups, .. } => {
            *groups *= n;
            let (x, gy) = (to_channels(&xs.full(0)), to_channels(&xs.full(1)));
            return smallvec![parted(&run(moved, &[x, gy]).swap_remove(0), n)];
        }
        Op::Pool { .. } | Op::PoolGrad { .. } => {
            let all: SmallVec<[Tensor; 2]> = xs.all_full().iter().map(merged).collect();
            return smallvec![parted(&run(moved, &all).swap_remove(0), n)];
        }
        Op::Cholesky {} | Op::Lu {} | Op::Qr { .. } | Op::Svd { .. } | Op::Eigh {} | Op::Eig {} => {
        }
        // A number for each.
        Op::Sample { .. } => return run(moved, &xs.all_full()),
        Op::TriangularSolve { .. } => {
            let rank = xs.most_dims();
            let all: SmallVec<[Tensor; 2]> =
                (0..2).map(|i| with_ones(&xs.full(i), rank - xs.rank(i))).collect();
            return run(moved, &all);
        }
        Op::Recurrent { .. } | Op::RecurrentGrad { .. } => return recurrent(moved, xs),
        Op::LayerNorm { .. } => return smallvec![layer_norm(moved, xs)],
        Op::LayerNormGrad { .. } => {
            let mut all = xs.all_full();
            // The weight is a factor of the gradient.
            if let Some(w) = values.get(2).filter(|_| xs.batched[2]) {
                let rank = xs.rank(0) - xs.rank(2);
                all[1] = &all[1] * with_ones(w, rank);
                all.truncate(2);
            } else {
                all.truncate(2);
                all.extend(values.get(2).cloned());
            }
            return run(moved, &all);
        }
        Op::Attention { .. } | Op::AttentionGrad { .. } => {
            let rank = xs.most_dims();
            let matrices = if let Op::Attention { .. } = moved { 3 } else { 4 };
            let mut all: SmallVec<[Tensor; 5]> =
                (0..matrices).map(|i| with_ones(&xs.full(i), rank - xs.rank(i))).collect();
            all.extend((matrices..values.len()).map(|i| xs.aligned(i, rank)));
            return run(moved, &all);
        }
        // A mask for each.
        Op::Dropout { .. } => {}
    }
    run(moved, &values[..1])
}

/// A sequence, or its derivative: with one weight for all, the batch is among the rows;
/// otherwise every element has a sequence of its own.
fn recurrent(op: Op, xs: &Operands) -> Outputs {
    let n = xs.n;
    let (weight, bias) = match &op {
        Op::Recurrent { kind, .. } => (1, (*kind == CellKind::Gru).then_some(3)),
        _ => (0, None),
    };
    let shared = |i: usize| i == weight || Some(i) == bias;
    if (0..xs.values.len()).any(|i| shared(i) && xs.batched[i]) {
        let each: Vec<Outputs> = (0..n)
            .map(|e| {
                let one = |i: usize| match xs.batched[i] {
                    true => xs.values[i].select(0, e as i64),
                    false => xs.values[i].clone(),
                };
                run(op.clone(), &(0..xs.values.len()).map(one).collect::<Vec<_>>())
            })
            .collect();
        return (0..op.outputs())
            .map(|k| stack(&each.iter().map(|o| &o[k]).collect::<Vec<_>>(), 0))
            .collect();
    }
    // Rows are the dimension before the last.
    let all: SmallVec<[Tensor; 7]> = (0..xs.values.len())
        .map(|i| match xs.rank(i) {
            _ if shared(i) => xs.values[i].clone(),
            3 => to_channels(&xs.full(i)),
            _ => merged(&xs.full(i)),
        })
        .collect();
    run(op, &all)
        .iter()
        .map(|y| if y.rank() == 3 { from_channels(y, n) } else { parted(y, n) })
        .collect()
}

fn searchsorted(op: Op, xs: &Operands) -> Outputs {
    let line = xs.rank(0) == 1;
    if line && !xs.batched[0] {
        return run(op, xs.values);
    }
    let (mut sorted, values) = (xs.full(0), xs.full(1));
    if !line {
        return run(op, &[sorted, values]);
    }
    // The line, once for each line of values.
    let length = xs.shape(0)[0];
    let flat = if xs.rank(1) == 0 { values.unsqueeze(-1) } else { values.clone() };
    let lead = &flat.shape()[..flat.rank() - 1];
    sorted = with_ones(&sorted, lead.len() - 1);
    let shape: Dims = lead.iter().copied().chain([length]).collect();
    let found = run(op, &[sorted.broadcast_to(&shape[..]), flat]).swap_remove(0);
    smallvec![found.reshape(values.shape())]
}

/// An index along `axis` of a batch, repeated to `shape` (without the batch).
fn spread_index(index: &Tensor, axis: usize, shape: &[usize]) -> Tensor {
    let (n, k) = (index.shape()[0], index.shape()[1]);
    let mut one: Dims = std::iter::once(n).chain(shape.iter().map(|_| 1)).collect();
    one[axis + 1] = k;
    let mut all: Dims = std::iter::once(n).chain(shape.iter().copied()).collect();
    all[axis + 1] = k;
    index.reshape(&one[..]).broadcast_to(&all[..])
}

fn index_select(axis: usize, xs: &Operands) -> Tensor {
    let (x, index) = (&xs.values[0], &xs.values[1]);
    if !xs.batched[1] {
        return apply(Op::IndexSelect { axis: axis + 1 }, &[x, index]);
    }
    if xs.batched[0] {
        let index = spread_index(index, axis, xs.shape(0));
        return apply(Op::Gather { axis: axis + 1 }, &[x, &index]);
    }
    // One selection by all indices, which are then parted.
    let k = index.shape()[1];
    let picked = apply(Op::IndexSelect { axis }, &[x, &index.reshape([-1])]);
    let mut shape: Dims = picked.shape().into();
    shape[axis] = xs.n;
    shape.insert(axis + 1, k);
    picked.reshape(&shape[..]).movedim(axis as i64, 0)
}

fn index_add(axis: usize, xs: &Operands) -> Tensor {
    let (base, values) = (xs.full(0), xs.full(2));
    if !xs.batched[1] {
        return apply(Op::IndexAdd { axis: axis + 1 }, &[&base, &xs.values[1], &values]);
    }
    let index = spread_index(&xs.values[1], axis, xs.shape(2));
    let op = Op::Scatter { axis: axis + 1, kind: ScatterKind::Add };
    apply(op, &[&base, &index, &values])
}

fn matmul(act: Act, xs: &Operands) -> Tensor {
    let rank = xs.rank(0).max(xs.rank(1));
    let (a, b) = (xs.aligned(0, rank), xs.aligned(1, rank));
    match xs.values.get(2) {
        Some(bias) if xs.batched[2] => {
            let y = apply(Op::MatMul { act: Act::None }, &[&a, &b]);
            activate(act, y + with_ones(bias, rank - 1))
        }
        Some(bias) => apply(Op::MatMul { act }, &[&a, &b, bias]),
        None => apply(Op::MatMul { act }, &[&a, &b]),
    }
}

fn conv(mut op: Op, xs: &Operands) -> Tensor {
    let (n, bias) = (xs.n, xs.values.get(2));
    let Op::Conv { groups, act, .. } = &mut op else { unreachable!("called for convolutions") };
    let bias_in_batch = xs.batched.get(2).copied().unwrap_or(false);
    let last = *act;
    if xs.batched[1] || bias_in_batch {
        *act = Act::None;
    }
    if !xs.batched[1] {
        let x = merged(&xs.full(0));
        let w = &xs.values[1];
        let Some(bias) = bias else { return parted(&apply(op, &[&x, w]), n) };
        if !bias_in_batch {
            return parted(&apply(op, &[&x, w, bias]), n);
        }
        let y = parted(&apply(op, &[&x, w]), n);
        return activate(last, y + bias.reshape([n, 1, bias.shape()[1], 1, 1]));
    }
    // Each weight meets its own input: groups of channels.
    let shared = !xs.batched[0] && *groups == 1;
    let x = if shared { xs.values[0].clone() } else { to_channels(&xs.full(0)) };
    if !shared {
        *groups *= n;
    }
    let mut y = from_channels(&apply(op, &[&x, &merged(&xs.values[1])]), n);
    if let Some(bias) = bias {
        let channels = xs.shape(2)[0];
        let first = if bias_in_batch { n } else { 1 };
        y = y + bias.reshape([first, 1, channels, 1, 1]);
    }
    activate(last, y)
}

fn layer_norm(op: Op, xs: &Operands) -> Tensor {
    let refs: SmallVec<[&Tensor; 3]> = xs.values.iter().collect();
    if xs.batched[0] && !xs.batched[1..].contains(&true) {
        return apply(op, &refs);
    }
    let x = xs.full(0);
    let mut y = apply(op, &[&x]);
    for (i, join) in [(1, BinaryOp::Mul), (2, BinaryOp::Add)] {
        if xs.values.len() > i {
            y = apply(Op::Binary(join), &[&y, &xs.aligned(i, xs.rank(0))]);
        }
    }
    y
}
