//! Derivatives as values.

use crate::{grad_of, leaf};
use sinter::autograd::checkpoint;
use sinter::nn::{Layer, Linear, Module};
use sinter::{Tensor, func, ones, tensor};

fn close(a: &Tensor, b: &[f64]) {
    let a = a.to_vec::<f64>();
    assert!(
        a.len() == b.len() && a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-9),
        "{a:?} {b:?}"
    );
}

fn f(x: &Tensor) -> Tensor {
    (x.sin() * x.square()).sum()
}

/// f'' = 2 sin x + 4x cos x − x² sin x
fn second(x: f64) -> f64 {
    2.0 * x.sin() + 4.0 * x * x.cos() - x * x * x.sin()
}

#[test]
fn transforms_nest() {
    let x = tensor([0.5, -1.0]);
    let (y, g) = func::value_and_grad(f)(&x);
    assert!(!y.requires_grad() && !g.requires_grad() && !x.requires_grad());
    close(&g, &[0.5, -1.0].map(|x: f64| x.cos() * x * x + 2.0 * x * x.sin()));
    let h = [second(0.5), 0.0, 0.0, second(-1.0)];
    close(&func::hessian(f)(&x), &h);
    close(&func::jacfwd(func::grad(f))(&x), &h);
    close(&func::jacrev(func::jacrev(f))(&x), &h);
    close(&func::jacfwd(func::jacfwd(f))(&x), &h);
    let v = tensor([2.0, 3.0]);
    let want = [2.0 * h[0], 3.0 * h[3]];
    close(&func::hvp(f, &x, &v).1, &want);
    close(&func::vhp(f, &x, &v).1, &want);
    close(&func::hvp(f, &x, &v).0, &[y.item()]);
    // Third derivative.
    let third = func::grad(|x: &Tensor| func::grad(|x: &Tensor| func::grad(f)(x).sum())(x).sum());
    let d = |x: f64| 6.0 * x.cos() - 6.0 * x * x.sin() - x * x * x.cos();
    close(&third(&x), &[d(0.5), d(-1.0)]);
}

#[test]
fn products_with_jacobians() {
    let (a, b) = (tensor([1.0, 2.0]), tensor([3.0, 4.0]));
    let f = |x: &[Tensor]| vec![&x[0] * &x[1], x[1].sum(), ones([2])];
    let (y, push) = func::linearize(f, &[&a, &b]);
    assert_eq!(y[1].item::<f64>(), 7.0);
    let dy = push(&[&tensor([1.0, 0.0]), &tensor([0.0, 10.0])]);
    close(&dy[0], &[3.0, 20.0]);
    close(&dy[1], &[10.0]);
    close(&dy[2], &[0.0, 0.0]);
    let (_, pull) = func::vjp(|x| f(x)[..2].to_vec(), &[&a, &b]);
    for _ in 0..2 {
        let g = pull(&[&tensor([1.0, 1.0]), &sinter::scalar(5.0, sinter::DType::F64)]);
        close(&g[0], &[3.0, 4.0]);
        close(&g[1], &[6.0, 7.0]);
    }
    // Jacobians of functions between shapes.
    let m = tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]);
    let g = |x: &Tensor| m.matmul(x).square();
    let x = tensor([[1.0], [0.0], [-1.0]]);
    let (r, c) = (func::jacrev(g)(&x), func::jacfwd(g)(&x));
    assert_eq!(r.shape(), [2, 1, 3, 1]);
    close(&r, &c.to_vec::<f64>());
    close(&r, &[-4.0, -8.0, -12.0, -16.0, -20.0, -24.0]);
    close(&func::jacrev(|_: &Tensor| ones([1]).to_dtype(x.dtype()))(&x), &[0.0; 3]);
}

#[test]
fn gradients_flow_to_what_a_function_refers_to() {
    let w = leaf(&[2.0, 3.0]);
    let x = tensor([1.0, 1.0]);
    // d/dx sum(w x²) = 2 w x: depends on w.
    let g = func::grad(|x: &Tensor| (&w * x.square()).sum())(&x);
    g.sum().backward();
    assert_eq!(grad_of(&w), [2.0, 2.0]);
    // By an argument that is itself on the tape.
    let x = leaf(&[1.0, 2.0]);
    func::grad(|x: &Tensor| (x * x * x).sum())(&x).sum().backward();
    assert_eq!(grad_of(&x), [6.0, 12.0]);
}

#[test]
fn modules_as_functions() {
    let m = Linear::new(3, 2);
    let x = ones([4, 3]);
    let state = m.state_dict();
    let loss = |w: &Tensor| {
        let mut s = state.clone();
        s.insert("weight".into(), w.clone());
        func::functional_call(&m, &s, || m.forward(&x).square().sum())
    };
    let g = func::grad(loss)(&state["weight"]);
    m.forward(&x).square().sum().backward();
    let params = m.named_parameters();
    let (_, weight) = params.iter().find(|p| p.0 == "weight").unwrap();
    assert!(g.allclose(&weight.grad().unwrap(), 1e-5, 1e-6));
    // A checkpointed region runs again with the same tensors, outside.
    let m = std::sync::Arc::new(m);
    let w = (state["weight"].copy() * 2.0).requires_grad_(true);
    let s = [("weight".to_string(), w.clone())].into();
    let n = m.clone();
    let y = func::functional_call(&*m, &s, || {
        checkpoint(move |x| vec![n.forward(&x[0]).tanh()], &[&x]).swap_remove(0)
    });
    y.sum().backward();
    let again = w.detach().requires_grad_(true);
    let s = [("weight".to_string(), again.clone())].into();
    func::functional_call(&*m, &s, || m.forward(&x).tanh().sum()).backward();
    assert_eq!(w.grad().unwrap().to_vec::<f32>(), again.grad().unwrap().to_vec::<f32>());
    let text = crate::message_of(|| {
        let s = [("wrong".to_string(), ones([1]))].into();
        func::functional_call(&*m, &s, || ());
    });
    assert!(text.contains("`wrong`"), "{text}");
}

#[test]
fn jacobians_of_many_ops() {
    sinter::manual_seed(2);
    let x = sinter::randn([2, 3]).to_dtype(sinter::DType::F64);
    let fs: [fn(&Tensor) -> Tensor; 10] = [
        |x| x.softmax(1).log_softmax(0),
        |x| x.matmul(&x.t()).tanh(),
        |x| x.cumsum(1) * x.flip([0]).sigmoid(),
        |x| x.index_select(1, &tensor([2i64, 0])).sum_dim(1, true) / x.exp(),
        |x| sinter::cat(&[x, &x.square()], 1).sort(1, false).0,
        |x| x.maximum(0.1).prod_dim(1, false) + x.select(1, 0),
        |x| x.unsqueeze(0).broadcast_to([2, 2, 3]).var_dim([0, 2], 1, false).sqrt(),
        |x| x.where_positive().cumprod(0),
        |x| {
            let y = x * 2.0;
            y.select(0, 1).mul_(y.select(0, 0).copy());
            y.sin()
        },
        |x| x.reshape([1, 1, 2, 3]).pad(&[(0, 0), (0, 0), (1, 0), (0, 1)], 0.0).square(),
    ];
    for (i, f) in fs.iter().enumerate() {
        let j = func::jacrev(f)(&x);
        assert_eq!(j.shape()[j.rank() - 2..], [2, 3]);
        close(&func::jacfwd(f)(&x), &j.to_vec::<f64>());
        // By one pass for each row.
        let leaf = x.detach().requires_grad_(true);
        let y = f(&leaf);
        let rows: Vec<f64> = (0..y.numel())
            .flat_map(|k| {
                let one = y.reshape([-1]).select(0, k as i64);
                let pass = sinter::Backward::new().retain_graph(true).materialize_grads(true);
                pass.grad(&[&one], &[&leaf])[0].as_ref().unwrap().to_vec::<f64>()
            })
            .collect();
        let got = j.to_vec::<f64>();
        let near = got.iter().zip(&rows).all(|(a, b)| (a - b).abs() < 1e-9);
        assert!(near && got.len() == rows.len(), "{i}: {got:?} {rows:?}");
    }
}

trait Positive {
    fn where_positive(&self) -> Tensor;
}
impl Positive for Tensor {
    fn where_positive(&self) -> Tensor {
        self.gt(0.0).where_(self, 0.5)
    }
}
