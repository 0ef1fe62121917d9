//! Functions of one element on batches, and with derivatives inside and outside.

use sinter::nn::functional as F;
use sinter::{Randomness, Tensor, Vmap, arange, func, rand, randn, stack, tensor, vmap, zeros};

fn numbers(shape: &[usize]) -> Tensor {
    let n: usize = shape.iter().product();
    (arange(0.0, n as f64, 1.0).to_dtype(sinter::DType::F64) * 0.37).sin().reshape(shape)
}

fn assert_close(a: &Tensor, b: &Tensor) {
    assert!(a.shape() == b.shape() && a.allclose(b, 1e-10, 1e-12), "{a}\n{b}");
}

#[test]
fn dimensions_go_where_they_are_sent() {
    let a = numbers(&[2, 5, 3]);
    let b = numbers(&[3, 2]);
    let got = Vmap::new()
        .in_dims(&[Some(1), None])
        .out_dims(&[-1, 0])
        .call(|t| vec![t[0].matmul(&t[1]), t[1].sum()], &[&a, &b]);
    assert_eq!(got[0].shape(), [2, 2, 5]);
    assert_eq!(got[1].shape(), [5]);
    assert_close(&got[0].select(2, 4), &a.select(1, 4).matmul(&b));
    let chunked = Vmap::new()
        .in_dims(&[Some(1), None])
        .out_dims(&[-1])
        .chunk_size(2)
        .call(|t| vec![t[0].matmul(&t[1])], &[&a, &b]);
    assert_close(&chunked[0], &got[0]);
}

#[test]
fn batches_nest() {
    let (a, b) = (numbers(&[3, 4]), numbers(&[5, 4]));
    let outer = |x: &Tensor, y: &Tensor| {
        Vmap::new().in_dims(&[None, Some(0)]).call(|t| vec![(&t[0] * &t[1]).sum()], &[x, y])
    };
    let got = Vmap::new().in_dims(&[Some(0), None]).call(|t| outer(&t[0], &t[1]), &[&a, &b]);
    assert_close(&got[0], &a.matmul(&b.t()));
}

/// The loss of a small network on one example.
fn loss(w: &Tensor, v: &Tensor, x: &Tensor, class: &Tensor) -> Tensor {
    let h = x.unsqueeze(0).matmul(w).tanh();
    let scores = h.matmul(v);
    F::cross_entropy(&scores, &class.unsqueeze(0), F::Reduction::Mean)
}

#[test]
fn a_gradient_for_each_example() {
    let (w, v) = (numbers(&[4, 6]), numbers(&[6, 3]));
    let (x, class) = (numbers(&[5, 4]), tensor([0i64, 2, 1, 1, 0]));
    let one =
        |w: &Tensor, x: &Tensor, class: &Tensor| func::grad(|w: &Tensor| loss(w, &v, x, class))(w);
    let got = Vmap::new()
        .in_dims(&[None, Some(0), Some(0)])
        .call(|t| vec![one(&t[0], &t[1], &t[2])], &[&w, &x, &class]);
    let want: Vec<Tensor> = (0..5).map(|i| one(&w, &x.select(0, i), &class.select(0, i))).collect();
    assert_close(&got[0], &stack(&want.iter().collect::<Vec<_>>(), 0));
}

#[test]
fn gradients_of_convolutions_for_each_example() {
    let w = numbers(&[2, 3, 2, 2]);
    let x = numbers(&[4, 3, 5, 4]);
    let one = |w: &Tensor, x: &Tensor| {
        func::grad(|w: &Tensor| {
            F::conv2d(&x.unsqueeze(0), w, None, [1, 1], [1, 0], [1, 1], 1).square().sum()
        })(w)
    };
    let got = Vmap::new().in_dims(&[None, Some(0)]).call(|t| vec![one(&t[0], &t[1])], &[&w, &x]);
    let want: Vec<Tensor> = (0..4).map(|i| one(&w, &x.select(0, i))).collect();
    assert_close(&got[0], &stack(&want.iter().collect::<Vec<_>>(), 0));
}

#[test]
fn derivatives_go_through_batches() {
    let x = numbers(&[3, 2]).requires_grad_(true);
    let y = vmap(|x: &Tensor| (x * x).sum().exp())(&x);
    y.sum().backward();
    let want = (&x.detach() * 2.0) * x.detach().square().sum_dim(1, true).exp();
    assert_close(&x.grad().unwrap(), &want);
    let f = |x: &Tensor| x.powf(3.0).sum();
    let second = vmap(func::hessian(f))(&x.detach());
    assert_eq!(second.shape(), [3, 2, 2]);
    assert_close(&second.select(0, 1), &func::hessian(f)(&x.detach().select(0, 1)));
}

#[test]
fn changes_in_place_inside_a_batch() {
    let x = numbers(&[3, 2]);
    let got = vmap(|x: &Tensor| {
        let y = x * 1.0;
        y.add_(1.0);
        y.mul_(x);
        y
    })(&x);
    assert_close(&got, &((&x + 1.0) * &x));
}

#[test]
fn random_numbers_have_to_be_asked_for() {
    let x = zeros([400]);
    let f = |t: &[Tensor]| vec![&t[0] + rand([2])];
    let run = |r| Vmap::new().randomness(r).call(f, &[&x]).swap_remove(0);
    let same = run(Randomness::Same);
    assert_eq!(same.shape(), [400, 2]);
    assert!(same.std_dim(0, 1, false).max().item::<f32>() < 1e-6);
    let different = run(Randomness::Different);
    assert!((different.std_dim(0, 1, false) - 0.2887).abs().max().item::<f32>() < 0.03);
    let ones = zeros([200, 10]) + 1.0;
    let drop = |r| {
        let f = |t: &[Tensor]| vec![F::dropout(&t[0], 0.5, true)];
        Vmap::new().randomness(r).call(f, &[&ones]).swap_remove(0)
    };
    let masks = drop(Randomness::Same);
    assert!(masks.std_dim(0, 1, false).max().item::<f32>() < 1e-6);
    assert!(drop(Randomness::Different).std_dim(0, 1, false).min().item::<f32>() > 0.5);
    assert!(randn([2]).shape() == [2]);
}

#[test]
#[should_panic(expected = "uniform: random numbers inside `vmap`")]
fn random_numbers_are_refused() {
    let _ = vmap(|x: &Tensor| x + rand(()))(&zeros([3]));
}

#[test]
#[should_panic(expected = "cannot be read inside `vmap`")]
fn elements_cannot_be_read() {
    let _ = vmap(|x: &Tensor| if x.item::<f32>() > 0.0 { x.clone() } else { -x })(&zeros([3]));
}

#[test]
#[should_panic(expected = "the batch of argument 1 has 4 elements, others have 3")]
fn batches_have_one_extent() {
    let _ = Vmap::new().call(|t| vec![&t[0] + &t[1]], &[&zeros([3]), &zeros([4])]);
}

#[test]
#[should_panic(expected = "matmul: shapes [2, 3] and [2, 3] cannot be multiplied")]
fn errors_speak_of_one_element() {
    let _ = vmap(|x: &Tensor| x.matmul(x))(&zeros([5, 2, 3]));
}

#[test]
#[should_panic(expected = "register_hook: the f32 [2] tensor stands for the elements of a batch")]
fn hooks_on_single_elements_are_refused() {
    let x = zeros([3, 2]).requires_grad_(true);
    let _ = vmap(|x: &Tensor| {
        x.register_hook(|_| None);
        x * 2.0
    })(&x);
}
