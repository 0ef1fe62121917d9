//! Functions with derivatives of the user's own.

use crate::{grad_of, leaf, message_of};
use sinter::autograd::{Function, FunctionCtx, gradcheck, gradgradcheck};
use sinter::{Tensor, grad, tensor};

/// `(a b, a + b)`, with a number of the user's in between.
struct Pair;

impl Function for Pair {
    fn forward(&self, ctx: &mut FunctionCtx, x: &[&Tensor]) -> Vec<Tensor> {
        ctx.save_for_backward(&[x[0], x[1]]);
        ctx.save_data(7usize);
        vec![x[0] * x[1], x[0] + x[1]]
    }
    fn backward(&self, ctx: &FunctionCtx, g: &[Option<Tensor>]) -> Vec<Option<Tensor>> {
        assert_eq!(ctx.data::<usize>(), Some(&7));
        let [a, b] = ctx.saved_tensors() else { panic!("two were saved") };
        let (p, s) = (g[0].as_ref().unwrap(), g[1].as_ref().unwrap());
        let needed = |i: usize, g: Tensor| ctx.needs_input_grad(i).then_some(g);
        vec![needed(0, p * b + s), needed(1, p * a + s)]
    }
}

#[test]
fn derivatives_of_both_orders() {
    let (a, b) = (leaf(&[0.3, -1.2]), leaf(&[2.0, 0.7]));
    let f = |t: &[Tensor]| Pair.apply(&[&t[0].sin(), &t[1]]);
    gradcheck(f, &[a.clone(), b.clone()]).unwrap();
    gradgradcheck(f, &[a.clone(), b.clone()]).unwrap();
    // One result used, one input constant: the missing gradient is zeros.
    let y = Pair.apply(&[&a, &b.detach()]);
    y[0].sum().backward();
    assert_eq!(grad_of(&a), [2.0, 0.7]);
    assert_eq!(y[1].grad_fn_name(), Some("Pair"));
    // Without anything to record.
    assert!(!Pair.apply(&[&a.detach(), &b.detach()])[0].requires_grad());
}

struct DoubleInPlace;
impl Function for DoubleInPlace {
    fn forward(&self, ctx: &mut FunctionCtx, x: &[&Tensor]) -> Vec<Tensor> {
        x[0].mul_(2.0);
        ctx.mark_dirty(&[x[0]]);
        vec![x[0].clone()]
    }
    fn backward(&self, _: &FunctionCtx, g: &[Option<Tensor>]) -> Vec<Option<Tensor>> {
        vec![g[0].as_ref().map(|g| g * 2.0)]
    }
}

#[test]
fn dirty_inputs() {
    let x = leaf(&[1.0, 2.0, 3.0]);
    let y = &x * 1.0;
    let out = DoubleInPlace.apply(&[&y]);
    assert!(out[0].is_same(&y) && y.grad_fn_name() == Some("DoubleInPlace"));
    // Through a view.
    let part = y.narrow(0, 1, 2);
    DoubleInPlace.apply(&[&part]);
    y.sum().backward();
    assert_eq!(grad_of(&x), [2.0, 4.0, 4.0]);
    let text = message_of(|| drop(DoubleInPlace.apply(&[&x])));
    assert!(text.contains("DoubleInPlace") && text.contains("leaf"), "{text}");
}

struct Bare;
impl Function for Bare {
    fn forward(&self, ctx: &mut FunctionCtx, x: &[&Tensor]) -> Vec<Tensor> {
        ctx.set_materialize_grads(false);
        let sign = x[0].sign();
        ctx.mark_non_differentiable(&[&sign]);
        vec![x[0].abs(), sign, x[0].clone()]
    }
    fn backward(&self, _: &FunctionCtx, g: &[Option<Tensor>]) -> Vec<Option<Tensor>> {
        assert!(g[1].is_none());
        vec![g[0].clone().or(g[2].clone())]
    }
}

#[test]
fn constants_and_missing_gradients() {
    let x = leaf(&[-1.0, 2.0]);
    let y = Bare.apply(&[&x]);
    assert!(!y[1].requires_grad() && y[2].requires_grad() && !y[2].is_same(&x));
    y[2].sum().backward();
    assert_eq!(grad_of(&x), [1.0, 1.0]);
}

struct Once;
impl Function for Once {
    fn forward(&self, ctx: &mut FunctionCtx, x: &[&Tensor]) -> Vec<Tensor> {
        ctx.save_for_backward(x);
        vec![x[0] * x[0]]
    }
    fn backward(&self, ctx: &FunctionCtx, g: &[Option<Tensor>]) -> Vec<Option<Tensor>> {
        let x = tensor(ctx.saved_tensors()[0].to_vec::<f64>());
        vec![g[0].as_ref().map(|g| g * x * 2.0)]
    }
    fn once_differentiable(&self) -> bool {
        true
    }
}

#[test]
fn differentiable_once() {
    let x = leaf(&[3.0]);
    let y = Once.apply(&[&x]);
    let g = grad(&[&y[0]], &[&x], true)[0].clone().unwrap();
    assert_eq!(g.item::<f64>(), 6.0);
    let text = message_of(|| drop(grad(&[&g], &[&x], false)));
    assert!(text.contains("once-differentiable") && text.contains("Once"), "{text}");
}

struct Wrong(usize);
impl Function for Wrong {
    fn forward(&self, _: &mut FunctionCtx, x: &[&Tensor]) -> Vec<Tensor> {
        vec![x[0] * 1.0]
    }
    fn backward(&self, _: &FunctionCtx, g: &[Option<Tensor>]) -> Vec<Option<Tensor>> {
        match self.0 {
            0 => vec![],
            _ => vec![Some(g[0].as_ref().unwrap().narrow(0, 0, 1))],
        }
    }
}

#[test]
fn mistakes() {
    let x = leaf(&[1.0, 2.0]);
    for (kind, needle) in
        [(0, "0 gradients for 1 input"), (1, "shape [1] for an input of shape [2]")]
    {
        let y = Wrong(kind).apply(&[&x]).swap_remove(0);
        let text = message_of(|| y.sum().backward());
        assert!(text.contains(needle) && text.contains("function.rs:"), "{text}");
    }
    // What was saved was changed since.
    let y = Pair.apply(&[&(&x * 1.0), &x]);
    assert!(y[0].requires_grad());
    let a = &x * 1.0;
    let y = Pair.apply(&[&a, &x]);
    a.add_(1.0);
    let text = message_of(|| y[0].sum().backward());
    assert!(text.contains("Pair") && text.contains("add_"), "{text}");
}

#[test]
fn forward_is_what_is_traced() {
    let x = tensor([1.0f32, 2.0]);
    let f = |x: &[Tensor]| Pair.apply(&[&x[0], &x[0]]);
    let graph = sinter::trace::trace("pair", f, &[&x], &[]).unwrap().to_string();
    assert!(graph.contains("mul") && graph.contains("add"), "{graph}");
}
