//! Gradients that wait to be put together.
//!
//! The derivative of reading a row of a table is that row in a table of zeros, and a
//! weight that is used for one example at a time gets a whole matrix for every use.
//! Such gradients are not made one by one: what they are made of is kept, and when all
//! uses have been met, one op makes their sum: slices that cover a tensor are joined,
//! rows are added into one table, products become one product.
//!
//! Only where the pass itself is not recorded: what is recorded is made of ops, each
//! at its place.

use super::engine::accumulate;
use super::node::{Node, Rule};
use super::vjp::Context;
use crate::device::made_on;
use crate::tensor::{Tensor, apply, cat};
use sinter_runtime::op::Act;
use sinter_runtime::{DType, Op, Scalar, Shape, eager};

/// A gradient in its parts.
pub(super) enum Part {
    /// `values` at a slice of one axis, zero elsewhere.
    Slice { shape: Shape, axis: usize, start: usize, step: usize, values: Tensor },
    /// `values` added to the slabs of an axis that a vector of indices names.
    Slabs { shape: Shape, axis: usize, index: Tensor, values: Tensor },
    /// `leftᵀ right`, both with one row for each use.
    Product { left: Tensor, right: Tensor },
}

impl Part {
    /// How many numbers are kept.
    fn kept(&self) -> usize {
        match self {
            Part::Slice { values, .. } => values.numel(),
            Part::Slabs { values, .. } => values.numel(),
            Part::Product { left, right } => left.numel() + right.numel(),
        }
    }

    /// How many numbers the gradient has.
    fn numel(&self) -> usize {
        match self {
            Part::Slice { shape, .. } | Part::Slabs { shape, .. } => shape.iter().product(),
            Part::Product { left, right } => left.size(1) * right.size(1),
        }
    }
}

/// The parts of one gradient.
#[derive(Default)]
pub(super) struct Parts {
    list: Vec<Part>,
    kept: usize,
}

/// A gradient of `op` that is better sent as a part, and its operand, which the rule is
/// told to need no gradient any more.
pub(super) fn split(op: &Op, c: &mut Context, grads: &[Option<Tensor>]) -> Option<(usize, Part)> {
    let [Some(g)] = grads else { return None };
    if !g.has_data() {
        return None;
    }
    let (operand, part) = match op {
        Op::Slice { axis, start, step, .. } => {
            let shape = Shape::from(c.shape(0));
            (0, Part::Slice { shape, axis: *axis, start: *start, step: *step, values: g.clone() })
        }
        Op::IndexSelect { axis } if c.x(1).has_data() => {
            let shape = Shape::from(c.shape(0));
            let (index, values) = (c.x(1).clone(), g.clone());
            (0, Part::Slabs { shape, axis: *axis, index, values })
        }
        Op::MatMul { .. } if c.needs[1] && c.x(1).rank() == 2 && c.x(0).has_data() => {
            let rows = |t: &Tensor| match t.rank() {
                2 => t.clone(),
                _ => t.reshape([t.numel() / t.size(-1).max(1), t.size(-1)]),
            };
            let floats = matches!(g.dtype(), DType::F32 | DType::F64);
            let (x, n) = (c.x(0), g.size(-1));
            // Before anything is reshaped: few rows.
            let kept = x.numel() + g.numel();
            if !floats || kept == 0 || kept > x.size(-1) * n / 4 {
                return None;
            }
            (1, Part::Product { left: rows(x), right: rows(g) })
        }
        _ => return None,
    };
    // A slice that comes back alone is no worse off for having waited.
    let pays = matches!(part, Part::Slice { .. }) || part.kept() <= part.numel() / 4;
    pays.then(|| {
        c.needs[operand] = false;
        (operand, part)
    })
}

impl Parts {
    pub(super) fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// Keeps a part; whether that is now as much as the gradient itself.
    pub(super) fn push(&mut self, part: Part) -> bool {
        self.kept += part.kept();
        let full = self.kept >= part.numel();
        self.list.push(part);
        full
    }

    /// Takes the parts as those of the transposed gradient, if they can be.
    pub(super) fn transposed(&mut self) -> Option<impl Iterator<Item = Part> + use<>> {
        if !self.list.iter().all(|p| matches!(p, Part::Product { .. })) {
            return None;
        }
        let list = std::mem::take(self).list;
        Some(list.into_iter().map(|p| match p {
            Part::Product { left, right } => Part::Product { left: right, right: left },
            _ => unreachable!("all are products"),
        }))
    }

    /// Adds what the parts make to `slot`.
    pub(super) fn join(self, slot: &mut Option<Tensor>) {
        let mut slices: Vec<(usize, usize, Tensor)> = Vec::new();
        let mut slabs: Vec<(Tensor, Tensor)> = Vec::new();
        let mut products: Vec<(Tensor, Tensor)> = Vec::new();
        let mut of: Option<(Shape, usize)> = None;
        // Parts of another axis than those before end the joining of these.
        for p in self.list {
            match p {
                Part::Product { left, right } => products.push((left, right)),
                Part::Slice { shape, axis, start, step, values } => {
                    if !slabs.is_empty() || of.as_ref().is_some_and(|o| o.1 != axis) {
                        finish(slot, &of, &mut slices, &mut slabs);
                    }
                    of = Some((shape, axis));
                    slices.push((start, step, values));
                }
                Part::Slabs { shape, axis, index, values } => {
                    if !slices.is_empty() || of.as_ref().is_some_and(|o| o.1 != axis) {
                        finish(slot, &of, &mut slices, &mut slabs);
                    }
                    of = Some((shape, axis));
                    slabs.push((index, values));
                }
            }
        }
        finish(slot, &of, &mut slices, &mut slabs);
        if !products.is_empty() {
            accumulate(slot, product(&products));
        }
    }
}

fn finish(
    slot: &mut Option<Tensor>,
    of: &Option<(Shape, usize)>,
    slices: &mut Vec<(usize, usize, Tensor)>,
    slabs: &mut Vec<(Tensor, Tensor)>,
) {
    let Some((shape, axis)) = of else { return };
    if !slices.is_empty() {
        add_slices(slot, shape, *axis, std::mem::take(slices));
    }
    if !slabs.is_empty() {
        let (index, values): (Vec<Tensor>, Vec<Tensor>) = std::mem::take(slabs).into_iter().unzip();
        add_slabs(slot, shape, *axis, &joined(&index, 0), &joined(&values, *axis as i64));
    }
}

/// One after the other; in their order, so that sums are the same each time.
fn joined(parts: &[Tensor], axis: i64) -> Tensor {
    match parts {
        [one] => one.clone(),
        _ => cat(&parts.iter().collect::<Vec<_>>(), axis),
    }
}

fn product(parts: &[(Tensor, Tensor)]) -> Tensor {
    let (left, right): (Vec<Tensor>, Vec<Tensor>) = parts.iter().cloned().unzip();
    let (left, right) = (joined(&left, 0), joined(&right, 0));
    let mm = Op::MatMul { act: Act::None };
    apply(mm, &[&left.t(), &right])
}

fn zeros(shape: &[usize], like: &Tensor) -> Tensor {
    let (value, dtype, shape) = (Scalar::Float(0.0), like.dtype(), shape.into());
    made_on(like.device(), Op::Full { value, dtype, shape })
}

/// The gradient that is there, ready to be changed, or zeros like a part.
fn own(slot: &mut Option<Tensor>, shape: &[usize], part: &Tensor) -> Tensor {
    match slot.take() {
        Some(t) if t.owns_dense() && t.dtype() == part.dtype() => t,
        Some(t) => t.to_dtype(part.dtype()).copy(),
        None => zeros(shape, part),
    }
}

fn add_slices(
    slot: &mut Option<Tensor>,
    shape: &[usize],
    axis: usize,
    mut slices: Vec<(usize, usize, Tensor)>,
) {
    // Slices that cover the axis without a gap, as those of `chunk` and `split`, are
    // one behind the other.
    slices.sort_by_key(|s| s.0);
    let mut end = 0;
    let covers = slices.iter().all(|(start, step, values)| {
        let next = *start == end && *step == 1;
        end += values.size(axis as i64);
        next
    });
    if covers && end == shape[axis] {
        let values: Vec<Tensor> = slices.into_iter().map(|s| s.2).collect();
        return accumulate(slot, joined(&values, axis as i64));
    }
    let total = own(slot, shape, &slices[0].2);
    for (start, step, values) in slices {
        let len = values.size(axis as i64);
        let place = apply(Op::Slice { axis, start, len, step }, &[&total]);
        let (a, v) = (place.array(), values.array());
        let add = Op::Binary(sinter_runtime::op::BinaryOp::Add);
        eager::run_into(&add, &[a, v], &[a]).unwrap_or_else(|e| panic!("backward: {e}"));
    }
    *slot = Some(total);
}

fn add_slabs(
    slot: &mut Option<Tensor>,
    shape: &[usize],
    axis: usize,
    index: &Tensor,
    values: &Tensor,
) {
    let total = own(slot, shape, values);
    let add = Op::IndexAdd { axis };
    let inputs = [total.array(), index.array(), values.array()];
    eager::run_into(&add, &inputs, &[total.array()]).unwrap_or_else(|e| panic!("backward: {e}"));
    *slot = Some(total);
}

/// Whether the node only transposes a matrix.
pub(super) fn transposes(node: &Node) -> bool {
    matches!(&node.rule, Rule::Op(Op::Permute { perm }) if perm[..] == [1, 0])
}
