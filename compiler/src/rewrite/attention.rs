//! Attention that was written by hand, as the op that makes no matrix of scores.
//!
//! `softmax(mask(scale q kᵀ)) v`: the scale may stand at the product or at the queries,
//! the mask may be added or selected, in any order that comes out the same.

use super::lang::dims;
use super::rules::Rewriter;
use egg::Id;
use sinter_runtime::op::{Act, Axes, BinaryOp, CompareOp, Real};
use sinter_runtime::{DType, Dim, Extent, Op, Scalar};
use smallvec::SmallVec;

/// Scores below this are as good as hidden when they are selected: added to any other
/// score, the number is still itself.
const HIDDEN: f64 = -1e9;

/// What is known of scores so far.
struct Scores {
    q: Id,
    /// The right operand of their product: the keys, turned.
    k: Id,
    scale: f64,
    mask: Option<Id>,
    causal: bool,
}

/// `(matmul (softmax ?s) ?v)` -> `attention(q, k, ?v, mask)`.
pub(super) fn raise(r: &mut Rewriter<'_>) -> Option<Id> {
    let (s, v) = (r.var("?s"), r.var("?v"));
    let (_, sides) = r.find(r.root, |op| plain(op))?;
    let axis = |op: &Op<Dim>| match op {
        Op::Softmax { axis, log: false } => Some(*axis),
        _ => None,
    };
    let (axis, _) = sides.first().and_then(|&p| r.find(p, axis))?;
    let rank = r.shape(s).len();
    if axis + 1 != rank || r.facts(s).types[0].dtype != DType::F32 {
        return None;
    }
    let scores = scores(r, s)?;
    let mut perm: Axes = (0..rank).collect();
    perm.swap(rank - 1, rank - 2);
    // Keys that were turned are turned back: these two vanish.
    let turned = |op: &Op<Dim>| matches!(op, Op::Permute { perm: p } if *p == perm).then_some(());
    let k = match r.find(scores.k, turned) {
        Some((_, x)) => x[0],
        None => r.add(Op::Permute { perm: perm.clone() }, &[scores.k])?,
    };
    let op = Op::Attention { scale: Real::new(scores.scale), causal: scores.causal };
    let mut operands: SmallVec<[Id; 4]> = smallvec::smallvec![scores.q, k, v];
    operands.extend(scores.mask);
    r.add(op, &operands)
}

fn plain(op: &Op<Dim>) -> Option<()> {
    matches!(op, Op::MatMul { act: Act::None }).then_some(())
}

/// The scores of a class: masked ones, or scaled products.
fn scores(r: &mut Rewriter<'_>, id: Id) -> Option<Scores> {
    if let Some(s) = scaled(r, id) {
        return Some(s);
    }
    let shape = dims(r.shape(id));
    if let Some((_, sides)) = r.find(id, |op| is(op, BinaryOp::Add)) {
        for (s, mask) in [(sides[0], sides[1]), (sides[1], sides[0])] {
            if r.shape(s) == shape.as_slice()
                && let Some(s) = scaled(r, s)
            {
                return Some(Scores { mask: Some(mask), ..s });
            }
        }
    }
    let (_, parts) = r.find(id, |op| matches!(op, Op::Select {}).then_some(()))?;
    let (seen, yes, no) = (parts[0], parts[1], parts[2]);
    for (s, fill, keeps) in [(yes, no, true), (no, yes, false)] {
        let Some(value) = number(r, fill).filter(|&v| v <= HIDDEN) else { continue };
        if r.shape(s) != shape.as_slice() {
            continue;
        }
        let Some(s) = scaled(r, s) else { continue };
        if keeps && value == f64::NEG_INFINITY && triangle(r, seen) {
            return Some(Scores { causal: true, ..s });
        }
        let full = |r: &mut Rewriter<'_>, v| {
            let value = Scalar::Float(v);
            r.add(Op::Full { value, dtype: DType::F32, shape: dims(&[]) }, &[])
        };
        let (zero, hidden) = (full(r, 0.0)?, full(r, value)?);
        let sides = if keeps { [seen, zero, hidden] } else { [seen, hidden, zero] };
        let mask = r.add(Op::Select {}, &sides)?;
        return Some(Scores { mask: Some(mask), ..s });
    }
    None
}

/// A product of queries and keys, perhaps times a number.
fn scaled(r: &Rewriter<'_>, id: Id) -> Option<Scores> {
    if let Some((_, ops)) = r.find(id, plain).filter(|(_, ops)| ops.len() == 2) {
        let (q, scale) = match factor(r, ops[0]) {
            Some((q, c)) if r.shape(q) == r.shape(ops[0]) => (q, c),
            _ => (ops[0], 1.0),
        };
        return Some(Scores { q, k: ops[1], scale, mask: None, causal: false });
    }
    let (product, c) = factor(r, id)?;
    if r.shape(product) != r.shape(id) {
        return None;
    }
    let (_, ops) = r.find(product, plain).filter(|(_, ops)| ops.len() == 2)?;
    Some(Scores { q: ops[0], k: ops[1], scale: c, mask: None, causal: false })
}

/// `x c` for a number c.
fn factor(r: &Rewriter<'_>, id: Id) -> Option<(Id, f64)> {
    let (_, sides) = r.find(id, |op| is(op, BinaryOp::Mul))?;
    let pairs = [(sides[0], sides[1]), (sides[1], sides[0])];
    pairs.into_iter().find_map(|(x, c)| Some((x, number(r, c)?)))
}

fn is(op: &Op<Dim>, binary: BinaryOp) -> Option<()> {
    (*op == Op::Binary(binary)).then_some(())
}

fn number(r: &Rewriter<'_>, id: Id) -> Option<f64> {
    match r.facts(id).value? {
        Scalar::Float(v) => Some(v),
        _ => None,
    }
}

/// Whether it is true where the row is not before the column.
fn triangle(r: &Rewriter<'_>, id: Id) -> bool {
    let compared = r.find(id, |op| match op {
        Op::Compare(CompareOp::Ge) => Some(false),
        Op::Compare(CompareOp::Le) => Some(true),
        _ => None,
    });
    let Some((turned, sides)) = compared else { return false };
    let shape = r.shape(id);
    let counts = |id: Id, back: usize| {
        r.find(id, |op| match op {
            Op::Iota { shape, axis, .. } => (shape.len() == axis + back).then_some(()),
            _ => None,
        })
        .is_some()
    };
    let (row, col) = if turned { (sides[1], sides[0]) } else { (sides[0], sides[1]) };
    shape.iter().rev().skip(2).all(|d| d.is(1)) && counts(row, 2) && counts(col, 1)
}
