//! Updates as ops, for steps that are compiled: the formulas of the kernels, over traced
//! tensors.

use super::{Group, Rule, State};
use crate::tensor::{Tensor, scalar, store};
use crate::trace::Session;
use sinter_runtime::update::{Arith, Formula};
use sinter_runtime::{Op, Scalar, eager};

/// Parameters of a group that have taken as many steps, and share the numbers of the next.
#[derive(Clone, Debug)]
pub struct Counted {
    group: usize,
    members: Vec<usize>,
}

/// A traced tensor as something with arithmetic.
#[derive(Clone)]
struct Expr(Tensor);

impl Arith for Expr {
    fn lit(&self, v: f64) -> Self {
        Expr(scalar(v, self.0.dtype()))
    }
    fn add(self, o: Self) -> Self {
        Expr(self.0 + o.0)
    }
    fn sub(self, o: Self) -> Self {
        Expr(self.0 - o.0)
    }
    fn mul(self, o: Self) -> Self {
        Expr(self.0 * o.0)
    }
    fn div(self, o: Self) -> Self {
        Expr(self.0 / o.0)
    }
    fn max(self, o: Self) -> Self {
        Expr(self.0.maximum(&o.0))
    }
    fn fma(self, m: Self, a: Self) -> Self {
        Expr(self.0 * m.0 + a.0)
    }
    fn sqrt(self) -> Self {
        Expr(self.0.sqrt())
    }
}

/// The new values by a formula.
pub(super) fn by<F: Formula<K, N>, const K: usize, const N: usize>(
    formula: &F,
    numbers: &[Tensor],
    grad: &Tensor,
    values: &[Tensor],
) -> Vec<Tensor> {
    let numbers: [Expr; N] = std::array::from_fn(|i| Expr(numbers[i].clone()));
    let values: [Expr; K] = std::array::from_fn(|i| Expr(values[i].clone()));
    formula.step(&numbers, Expr(grad.clone()), values).map(|e| e.0).into()
}

/// A step of one parameter by the formula in ops: on devices.
#[track_caller]
pub(super) fn update_by_ops<O: Rule>(options: &O, param: &Tensor, grad: &Tensor, state: &State) {
    let numbers = options.numbers(state.step);
    let numbers: Vec<Tensor> = numbers.iter().map(|&v| scalar(v, param.dtype())).collect();
    let values: Vec<Tensor> = std::iter::once(param).chain(&state.tensors).cloned().collect();
    for (old, new) in values.iter().zip(options.traced(&numbers, grad, &values)) {
        store(O::NAME, old, &new);
    }
}

/// Zeros that exist, although a trace is under way.
fn zeros(like: &Tensor) -> Tensor {
    let (dtype, shape) = (like.dtype(), like.shape().into());
    let made = eager::run1(&Op::Full { value: Scalar::Float(0.0), dtype, shape }, &[]);
    Tensor::from_array(made.unwrap_or_else(|e| panic!("{e}")))
}

/// Traces the update of every parameter that has a gradient.
pub(super) fn update<O: Rule>(
    groups: &[Group<O>],
    states: &mut [Vec<State>],
    session: &mut Session,
) -> Vec<Counted> {
    let mut out: Vec<Counted> = Vec::new();
    let mut numbers: Vec<Vec<Tensor>> = Vec::new();
    for (i, (g, states)) in groups.iter().zip(states).enumerate() {
        let first = out.len();
        for j in 0..g.params.len() {
            let p = &g.params[j];
            let Some(param) = session.stand_in(p).cloned() else { continue };
            let Some(grad) = param.grad() else { continue };
            let step = states[j].step + 1;
            let same = |c: &Counted| {
                let k = c.members[0];
                states[k].step + 1 == step && g.params[k].dtype() == p.dtype()
            };
            let at = match out[first..].iter().position(same) {
                Some(k) => first + k,
                None => {
                    out.push(Counted { group: i, members: vec![] });
                    let n = g.options.numbers(step).len();
                    numbers.push(session.numbers(n, p.dtype()));
                    out.len() - 1
                }
            };
            out[at].members.push(j);
            let s = &mut states[j];
            if s.tensors.is_empty() {
                s.tensors = g.options.state().iter().map(|_| zeros(p)).collect();
            }
            let name = p.name().unwrap_or_else(|| format!("{i}.{j}").into());
            let mut values = vec![param];
            for (kind, t) in g.options.state().iter().zip(&s.tensors) {
                values.push(session.state(format!("{name}.{kind}"), t));
            }
            let new = g.options.traced(&numbers[at], &grad, &values);
            for (old, new) in values.iter().zip(&new) {
                session.set(old, new);
            }
        }
    }
    out
}

/// Counts a step and gives its numbers.
pub(super) fn count<O: Rule>(
    groups: &[Group<O>],
    states: &mut [Vec<State>],
    counted: &[Counted],
) -> Option<Vec<Vec<f64>>> {
    let step = |c: &Counted, j: usize| states[c.group][j].step;
    let together = |c: &Counted| c.members.iter().all(|&j| step(c, j) == step(c, c.members[0]));
    let there = |c: &Counted| {
        c.members.iter().all(|&j| !states[c.group][j].tensors.is_empty())
            || groups[c.group].options.state().is_empty()
    };
    if !counted.iter().all(|c| together(c) && there(c)) {
        return None;
    }
    let numbers = |c: &Counted| {
        for &j in &c.members {
            states[c.group][j].step += 1;
        }
        groups[c.group].options.numbers(states[c.group][c.members[0]].step)
    };
    Some(counted.iter().map(numbers).collect())
}
