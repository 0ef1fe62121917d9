//! Derivatives of recurrent sequences.
//!
//! The first is an op with a kernel. Its own derivative is that of the same sweep written
//! in ops, step by step: what differentiates twice pays for it.

use super::{Context, Grads, differentiated, sum, zeros_of};
use crate::tensor::{Tensor, apply, apply_all, cat, stack, zeros_like};
use sinter_runtime::Op;
use sinter_runtime::op::{Act, CellKind};
use smallvec::{SmallVec, smallvec};

/// What the rule of a sequence needs of its operands: the weight and the state before
/// the first step; all of them where the gates' values were not kept.
pub(super) fn inputs(kind: CellKind, keep: bool) -> u32 {
    match kind {
        CellKind::Tanh | CellKind::Relu => 0b0110,
        CellKind::Gru | CellKind::Lstm if !keep => 0b1111,
        CellKind::Gru => 0b0110,
        CellKind::Lstm => 0b1110,
    }
}

fn mm(a: &Tensor, b: &Tensor) -> Tensor {
    apply(Op::MatMul { act: Act::None }, &[a, b])
}

/// The derivative of a sequence by gates, weight, state, and cells or bias.
pub(super) fn sequence(op: &Op, c: &Context, grads: &[Option<Tensor>]) -> Grads {
    let &Op::Recurrent { kind, reverse, keep } = op else { unreachable!("a sequence") };
    let lstm = kind == CellKind::Lstm;
    if grads.iter().all(Option::is_none) {
        return smallvec![None; c.needs.len()];
    }
    let (w, h0) = (c.x(1), c.x(2));
    let outs: SmallVec<[Tensor; 3]> = if keep || !kind.is_gated() {
        c.outputs.iter().cloned().collect()
    } else {
        let operands: SmallVec<[&Tensor; 4]> = (0..c.needs.len()).map(|i| c.x(i)).collect();
        apply_all(Op::Recurrent { kind, reverse, keep: true }, &operands).into_iter().collect()
    };
    let y = &outs[0];
    let gy = grads[0].clone().unwrap_or_else(|| zeros_like(y));
    let gc = grads.get(1).and_then(|g| g.clone()).filter(|_| lstm);
    let gkept = grads.get(if lstm { 2 } else { 1 }).and_then(|g| g.clone());
    let zeros = (lstm && gc.is_none() && gkept.is_some()).then(|| zeros_like(y));
    let mut operands: SmallVec<[&Tensor; 7]> = smallvec![w, if lstm { &outs[1] } else { y }, &gy];
    if kind.is_gated() {
        operands.push(if lstm { c.x(3) } else { h0 });
        operands.push(&outs[if lstm { 2 } else { 1 }]);
        operands.extend(gc.as_ref().or(zeros.as_ref()));
        operands.extend(&gkept);
    }
    let by = apply_all(Op::RecurrentGrad { kind, reverse }, &operands);
    // By what the states contribute.
    let hidden = if kind == CellKind::Gru { &by[1] } else { &by[0] };
    let steps = y.shape()[0];
    let weight = || {
        let h0 = h0.unsqueeze(0);
        let before = match steps {
            0 | 1 => h0,
            _ if reverse => cat(&[&y.narrow(0, 1, steps - 1), &h0], 0),
            _ => cat(&[&h0, &y.narrow(0, 0, steps - 1)], 0),
        };
        let before = if steps == 0 { y.clone() } else { before };
        mm(&hidden.flatten(0, 1).transpose(0, 1), &before.flatten(0, 1))
    };
    let mut out: Grads = smallvec![
        c.needs[0].then(|| by[0].clone()),
        c.needs[1].then(weight),
        c.needs[2].then(|| by[if kind == CellKind::Gru { 2 } else { 1 }].clone()),
    ];
    if c.needs.len() == 4 {
        out.push(c.needs[3].then(|| match kind {
            CellKind::Lstm => by[2].clone(),
            _ => {
                let units = w.shape()[1];
                sum(&hidden.narrow(2, 2 * units, units), &[0, 1], false)
            }
        }));
    }
    out
}

/// The derivative of the derivative, by its operands.
pub(super) fn sweep_grad(op: &Op, c: &Context, grads: &[Option<Tensor>]) -> Grads {
    let &Op::RecurrentGrad { kind, reverse } = op else { unreachable!("a derivative") };
    differentiated(c, grads, |xs| sweep(kind, reverse, xs))
}

/// What [`Op::RecurrentGrad`] computes, in ops: see the kernel for the formulas.
fn sweep(kind: CellKind, reverse: bool, xs: &[Tensor]) -> SmallVec<[Tensor; 3]> {
    let (w, states, gy) = (&xs[0], &xs[1], &xs[2]);
    let &[steps, rows, units] = states.shape() else { unreachable!("checked by the op's rule") };
    let lstm = kind == CellKind::Lstm;
    let gkept = xs.get(if lstm { 6 } else { 5 });
    let gcells = xs.get(5).filter(|_| lstm);
    let mut gh = zeros_of(&[rows, units], w);
    let mut gcell = gh.clone();
    let (mut by_gates, mut by_states) = (vec![], vec![]);
    let at = |x: &Tensor, t: usize| x.select(0, t as i64);
    let parts = |x: &Tensor, t: usize| at(x, t).chunk(4, 1);
    for s in (0..steps).rev() {
        let of = |s: usize| if reverse { steps - 1 - s } else { s };
        let t = of(s);
        let g = at(gy, t) + &gh;
        let before = || if s == 0 { xs[3].clone() } else { at(states, of(s - 1)) };
        let extra = gkept.map(|x| parts(x, t));
        let with = |g: Tensor, i: usize| match &extra {
            Some(e) => g + &e[i],
            None => g,
        };
        match kind {
            CellKind::Tanh | CellKind::Relu => {
                let y = at(states, t);
                let g = match kind {
                    CellKind::Tanh => g * (1.0 - y.square()),
                    _ => y.gt(0.0).where_(&g, zeros_like(&g)),
                };
                gh = mm(&g, w);
                by_gates.push(g);
            }
            CellKind::Gru => {
                let kept = parts(&xs[4], t);
                let (r, z, n, q) = (&kept[0], &kept[1], &kept[2], &kept[3]);
                let gz = with(&g * (before() - n), 1) * z * (1.0 - z);
                let gn = with(&g * (1.0 - z), 2) * (1.0 - n.square());
                let gq = with(&gn * r, 3);
                let gr = with(&gn * q, 0) * r * (1.0 - r);
                let hidden = cat(&[&gr, &gz, &gq], 1);
                gh = mm(&hidden, w) + &g * z;
                by_gates.push(cat(&[&gr, &gz, &gn], 1));
                by_states.push(hidden);
            }
            CellKind::Lstm => {
                let kept = parts(&xs[4], t);
                let (i, f, c, o) = (&kept[0], &kept[1], &kept[2], &kept[3]);
                let tc = at(states, t).tanh();
                let later = match gcells {
                    Some(x) => at(x, t) + &gcell,
                    None => gcell.clone(),
                };
                let go = with(&g * &tc, 3);
                let gc = &g * o * (1.0 - tc.square()) + later;
                let gi = with(&gc * c, 0) * i * (1.0 - i);
                let gf = with(&gc * before(), 1) * f * (1.0 - f);
                let gg = with(&gc * i, 2) * (1.0 - c.square());
                let go = go * o * (1.0 - o);
                gcell = &gc * f;
                let all = cat(&[&gi, &gf, &gg, &go], 1);
                gh = mm(&all, w);
                by_gates.push(all);
            }
        }
    }
    let together = |mut all: Vec<Tensor>| {
        if all.is_empty() {
            return zeros_of(&[0, rows, kind.gates() * units], w);
        }
        if !reverse {
            all.reverse();
        }
        stack(&all.iter().collect::<Vec<_>>(), 0)
    };
    match kind {
        CellKind::Tanh | CellKind::Relu => smallvec![together(by_gates), gh],
        CellKind::Gru => smallvec![together(by_gates), together(by_states), gh],
        CellKind::Lstm => smallvec![together(by_gates), gh, gcell],
    }
}
