//! Functions of functions: derivatives as values.
//!
//! Everything is built on the tape, so transforms nest, and differentiate through
//! tensors that the function only refers to.
//!
//! There is one rule for each op, that of the backward pass. Forward derivatives come
//! from it, too: the product `Jᵀ v` is linear in `v`, and the derivative of `(Jᵀ v) · u`
//! by `v` is `J u` (the "double backward trick", J. Townsend, 2017).

use crate::autograd::{Backward, depends_on_others, enable_grad, grad_enabled, with_replaced};
use crate::batch;
use crate::nn::{Module, StateDict};
use crate::tensor::{Tensor, apply, eye, stack, zeros, zeros_like};
use sinter_runtime::Op;

/// The tensor as an argument of its own: what is differentiated by.
#[track_caller]
fn lift(x: &Tensor) -> Tensor {
    if !x.dtype().is_differentiable() {
        panic!("func: only floating-point arguments have derivatives, this is {}", x.dtype());
    }
    // Inside `vmap`, a derivative for each element of the batch.
    let x = &batch::expand(x);
    if x.requires_grad() {
        return enable_grad(|| apply(Op::Reshape { shape: x.shape().into() }, &[x]));
    }
    x.detach().requires_grad_(true)
}

/// The derivatives of `outputs` by lifted arguments, recorded if they depend on
/// anything besides.
#[track_caller]
fn pull(
    outputs: &[&Tensor],
    cotangents: &[Option<&Tensor>],
    lifted: &[&Tensor],
    retain: bool,
) -> Vec<Tensor> {
    let outer = grad_enabled()
        && (depends_on_others(outputs, lifted)
            || cotangents.iter().flatten().any(|t| t.requires_grad()));
    let pass = Backward::new().create_graph(outer).retain_graph(outer || retain);
    // A constant function.
    let used: Vec<usize> = (0..outputs.len()).filter(|&i| outputs[i].requires_grad()).collect();
    if used.is_empty() {
        return lifted.iter().map(|x| zeros_like(&x.detach())).collect();
    }
    let outputs: Vec<&Tensor> = used.iter().map(|&i| outputs[i]).collect();
    let cotangents: Vec<Option<&Tensor>> = used.iter().map(|&i| cotangents[i]).collect();
    let grads = pass.gradients(&cotangents).materialize_grads(true).grad(&outputs, lifted);
    grads.into_iter().flatten().collect()
}

/// The function that gives the gradient of `f`, whose result is a scalar.
///
/// ```
/// use sinter::{Tensor, func, tensor};
/// let f = |x: &Tensor| (x * x * x).sum();
/// let x = tensor([1.0f64, 2.0]);
/// assert_eq!(func::grad(f)(&x).to_vec::<f64>(), [3.0, 12.0]);
/// let second = func::grad(move |x: &Tensor| func::grad(f)(x).sum());
/// assert_eq!(second(&x).to_vec::<f64>(), [6.0, 12.0]);
/// ```
pub fn grad(f: impl Fn(&Tensor) -> Tensor) -> impl Fn(&Tensor) -> Tensor {
    let both = grad_and_value(f);
    move |x| both(x).0
}

/// The function that gives the gradient and the value of `f`, whose result is a scalar.
///
/// The returned function panics if the value has more than one element.
pub fn grad_and_value(f: impl Fn(&Tensor) -> Tensor) -> impl Fn(&Tensor) -> (Tensor, Tensor) {
    move |x| {
        let x = lift(x);
        let y = enable_grad(|| f(&x));
        let g = pull(&[&y], &[None], &[&x], false).swap_remove(0);
        (g, outside(y, &[&x]))
    }
}

/// The function that gives the value of `f` and its gradient: [`grad_and_value`] the
/// other way around.
pub fn value_and_grad(f: impl Fn(&Tensor) -> Tensor) -> impl Fn(&Tensor) -> (Tensor, Tensor) {
    let both = grad_and_value(f);
    move |x| {
        let (g, y) = both(x);
        (y, g)
    }
}

/// A value without its dependence on lifted arguments, where it has no other.
fn outside(y: Tensor, lifted: &[&Tensor]) -> Tensor {
    if depends_on_others(&[&y], lifted) { y } else { y.detach() }
}

/// The values of `f` at `primals`, and the function that gives `Jᵀ v` for cotangents
/// `v`, one for each value.
///
/// ```
/// use sinter::{Tensor, func, tensor};
/// let f = |x: &[Tensor]| vec![&x[0] * &x[1]];
/// let (y, pull) = func::vjp(f, &[&tensor([2.0f64]), &tensor([3.0f64])]);
/// let g = pull(&[&tensor([10.0f64])]);
/// assert_eq!((y[0].item::<f64>(), g[0].item::<f64>(), g[1].item::<f64>()), (6.0, 30.0, 20.0));
/// ```
///
/// # Panics
/// If an argument is not floating point; the function it returns, if a cotangent does
/// not have its value's shape and type.
#[track_caller]
pub fn vjp<F: Fn(&[Tensor]) -> Vec<Tensor>>(
    f: F,
    primals: &[&Tensor],
) -> (Vec<Tensor>, impl Fn(&[&Tensor]) -> Vec<Tensor> + use<F>) {
    let xs = lift_all(primals);
    let ys = enable_grad(|| f(&xs));
    let refs: Vec<&Tensor> = xs.iter().collect();
    let values = ys.iter().map(|y| outside(y.clone(), &refs)).collect();
    let pull_back = move |cotangents: &[&Tensor]| {
        let ys: Vec<&Tensor> = ys.iter().collect();
        let xs: Vec<&Tensor> = xs.iter().collect();
        let cotangents: Vec<Option<&Tensor>> = cotangents.iter().copied().map(Some).collect();
        if cotangents.len() != ys.len() {
            panic!("vjp: {} cotangents for {} values", cotangents.len(), ys.len());
        }
        pull(&ys, &cotangents, &xs, true)
    };
    (values, pull_back)
}

#[track_caller]
fn lift_all(primals: &[&Tensor]) -> Vec<Tensor> {
    let mut xs = Vec::with_capacity(primals.len());
    for p in primals {
        xs.push(lift(p));
    }
    xs
}

/// The values of `f` at `primals`, and its linear approximation there: the function
/// that gives `J u` for tangents `u`, one for each argument.
///
/// # Panics
/// If an argument is not floating point; the function it returns, if a tangent does
/// not have its argument's shape and type.
#[track_caller]
pub fn linearize<F: Fn(&[Tensor]) -> Vec<Tensor>>(
    f: F,
    primals: &[&Tensor],
) -> (Vec<Tensor>, impl Fn(&[&Tensor]) -> Vec<Tensor> + use<F>) {
    let xs = lift_all(primals);
    let ys = enable_grad(|| f(&xs));
    let refs: Vec<&Tensor> = xs.iter().collect();
    let values: Vec<Tensor> = ys.iter().map(|y| outside(y.clone(), &refs)).collect();
    // Jᵀ v, as a function of v.
    let (mut vs, mut used): (Vec<Tensor>, Vec<&Tensor>) = (Vec::new(), Vec::new());
    for y in ys.iter().filter(|y| y.requires_grad()) {
        vs.push(zeros_like(&y.detach()).requires_grad_(true));
        used.push(y);
    }
    let rows: Vec<Option<Tensor>> = if used.is_empty() {
        vec![None; xs.len()]
    } else {
        let seeds: Vec<Option<&Tensor>> = vs.iter().map(Some).collect();
        enable_grad(|| Backward::new().create_graph(true).gradients(&seeds).grad(&used, &refs))
    };
    let follows: Vec<bool> = ys.iter().map(Tensor::requires_grad).collect();
    let shapes: Vec<Tensor> = values.iter().map(Tensor::detach).collect();
    let push = move |tangents: &[&Tensor]| {
        if tangents.len() != rows.len() {
            panic!("jvp: {} tangents for {} arguments", tangents.len(), rows.len());
        }
        let (mut outs, mut seeds) = (Vec::new(), Vec::new());
        for (r, t) in rows.iter().zip(tangents) {
            if let Some(r) = r.as_ref().filter(|r| r.requires_grad()) {
                outs.push(r);
                seeds.push(Some(*t));
            }
        }
        let by: Vec<&Tensor> = vs.iter().collect();
        let mut products = if outs.is_empty() {
            by.iter().map(|v| zeros_like(&v.detach())).collect()
        } else {
            pull(&outs, &seeds, &by, true)
        }
        .into_iter();
        let one = |(follows, y): (&bool, &Tensor)| match follows {
            true => products.next().expect("one for each value with a history"),
            false => zeros(y.shape()).to_dtype(y.dtype()),
        };
        follows.iter().zip(&shapes).map(one).collect()
    };
    (values, push)
}

/// The values of `f` at `primals`, and its derivative in the direction of `tangents`,
/// one for each argument.
///
/// ```
/// use sinter::{Tensor, func, tensor};
/// let f = |x: &[Tensor]| vec![x[0].square()];
/// let (y, dy) = func::jvp(f, &[&tensor([3.0f64])], &[&tensor([10.0f64])]);
/// assert_eq!((y[0].item::<f64>(), dy[0].item::<f64>()), (9.0, 60.0));
/// ```
///
/// # Panics
/// As [`linearize`] and the function it returns.
#[track_caller]
pub fn jvp(
    f: impl Fn(&[Tensor]) -> Vec<Tensor>,
    primals: &[&Tensor],
    tangents: &[&Tensor],
) -> (Vec<Tensor>, Vec<Tensor>) {
    let (y, push) = linearize(f, primals);
    let dy = push(tangents);
    (y, dy)
}

/// Unit vectors in the shape of `like`, one after the other.
fn units(like: &Tensor) -> Tensor {
    let n = like.numel();
    let shape: Vec<usize> = std::iter::once(n).chain(like.shape().iter().copied()).collect();
    eye(n).to_dtype(like.dtype()).reshape(shape)
}

/// `f` of each vector: in one pass for all, or, where `x` already stands for a batch, one
/// after the other.
#[track_caller]
fn for_each(vectors: &Tensor, x: &Tensor, f: impl Fn(&Tensor) -> Tensor) -> Tensor {
    if batch::expand(x).as_batched().is_none() {
        return batch::vmap(f)(vectors);
    }
    let results: Vec<Tensor> = vectors.unbind(0).iter().map(f).collect();
    stack(&results.iter().collect::<Vec<_>>(), 0)
}

/// The function that gives the Jacobian of `f`, of shape `[..value, ..argument]`, by
/// one backward pass for all its rows.
///
/// ```
/// use sinter::{Tensor, func, tensor};
/// let f = |x: &Tensor| x * x;
/// let j = func::jacrev(f)(&tensor([1.0f64, 2.0]));
/// assert_eq!(j.to_vec::<f64>(), [2.0, 0.0, 0.0, 4.0]);
/// let h = func::hessian(|x: &Tensor| (x * x * x).sum())(&tensor([1.0f64, 2.0]));
/// assert_eq!(h.to_vec::<f64>(), [6.0, 0.0, 0.0, 12.0]);
/// ```
pub fn jacrev(f: impl Fn(&Tensor) -> Tensor) -> impl Fn(&Tensor) -> Tensor {
    move |x| {
        let x = lift(x);
        let y = enable_grad(|| f(&x));
        let rows = |u: &Tensor| pull(&[&y], &[Some(u)], &[&x], true).swap_remove(0);
        let shape: Vec<usize> = y.shape().iter().chain(x.shape()).copied().collect();
        if y.numel() == 0 {
            return zeros(shape).to_dtype(x.dtype());
        }
        for_each(&units(&y), &x, rows).reshape(shape)
    }
}

/// The function that gives the Jacobian of `f`, as [`jacrev`], by forward
/// derivatives, one pass for all columns: less work for functions of few numbers.
pub fn jacfwd(f: impl Fn(&Tensor) -> Tensor) -> impl Fn(&Tensor) -> Tensor {
    move |x| {
        let (y, push) = linearize(|x| vec![f(&x[0])], &[x]);
        let (y, n) = (y[0].shape(), x.numel());
        let shape: Vec<usize> = y.iter().chain(x.shape()).copied().collect();
        if n == 0 {
            return zeros(shape).to_dtype(x.dtype());
        }
        let columns = for_each(&units(x), x, |u| push(&[u]).swap_remove(0));
        columns.movedim(0, -1).reshape(shape)
    }
}

/// The function that gives the Jacobian of `f`: [`jacrev`].
pub fn jacobian(f: impl Fn(&Tensor) -> Tensor) -> impl Fn(&Tensor) -> Tensor {
    jacrev(f)
}

/// The function that gives the matrix of second derivatives of `f`, whose result is a
/// scalar, of shape `[..argument, ..argument]`.
pub fn hessian(f: impl Fn(&Tensor) -> Tensor) -> impl Fn(&Tensor) -> Tensor {
    jacrev(grad(f))
}

/// The value of `f` at `x`, a scalar, and the product of its Hessian with `v`, without
/// the Hessian.
///
/// # Panics
/// If `v` does not have the shape and type of `x`.
#[track_caller]
pub fn hvp(f: impl Fn(&Tensor) -> Tensor, x: &Tensor, v: &Tensor) -> (Tensor, Tensor) {
    let value = f(x);
    let (_, mut product) = jvp(|x| vec![grad(&f)(&x[0])], &[x], &[v]);
    (value, product.swap_remove(0))
}

/// The value of `f` at `x`, a scalar, and the product of `v` with its Hessian, without
/// the Hessian. One pass less than [`hvp`].
///
/// # Panics
/// If `v` does not have the shape and type of `x`.
#[track_caller]
pub fn vhp(f: impl Fn(&Tensor) -> Tensor, x: &Tensor, v: &Tensor) -> (Tensor, Tensor) {
    let value = f(x);
    let (_, pull_back) = vjp(|x| vec![grad(&f)(&x[0])], &[x]);
    (value, pull_back(&[v]).swap_remove(0))
}

/// Runs `f` with the module's parameters and buffers replaced by the tensors of their
/// names in `state`: every op that is given one of the module's tensors takes the other
/// instead. Gradients flow to those.
///
/// ```
/// use sinter::nn::{Layer, Linear, Module};
/// use sinter::{func, ones};
/// let m = Linear::new(2, 1);
/// let w = ones([1, 2]).requires_grad_(true);
/// let state = [("weight".to_string(), w.clone()), ("bias".to_string(), ones([1]))].into();
/// let y = func::functional_call(&m, &state, || m.forward(&ones([3, 2])));
/// assert_eq!(y.to_vec::<f32>(), [3.0; 3]);
/// y.sum().backward();
/// assert!(w.grad().is_some() && m.parameters()[0].grad().is_none());
/// ```
///
/// # Panics
/// If the module has no tensor of one of the names, or one of another shape.
#[track_caller]
pub fn functional_call<M: Module + ?Sized, R>(
    module: &M,
    state: &StateDict,
    f: impl FnOnce() -> R,
) -> R {
    let params = module.named_parameters().into_iter().map(|(n, p)| (n, p.tensor().clone()));
    let buffers = module.named_buffers().into_iter().map(|(n, b)| (n, (*b).clone()));
    let own: StateDict = params.chain(buffers).collect();
    let mut pairs = Vec::with_capacity(state.len());
    for (name, t) in state {
        let Some(from) = own.get(name) else {
            panic!("functional_call: the module has no `{name}`");
        };
        if from.shape() != t.shape() {
            panic!(
                "functional_call: `{name}` has shape {:?} in the module, {:?} was given",
                from.shape(),
                t.shape()
            );
        }
        pairs.push((from.clone(), t.clone()));
    }
    with_replaced(pairs, f)
}
