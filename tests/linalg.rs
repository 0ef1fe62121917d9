//! Linear algebra: what holds of factors and solutions, whatever their signs.

use sinter::autograd::{gradcheck, gradgradcheck};
use sinter::fft;
use sinter::linalg::{self, Norm};
use sinter::trace::{TraceError, trace};
use sinter::{DType, Tensor, eye, from_slice, manual_seed, ones, randn, set_default_dtype, tensor};
use std::panic::{AssertUnwindSafe, catch_unwind};

fn t(x: &Tensor) -> Tensor {
    x.transpose(-1, -2)
}

fn matrix(shape: &[usize]) -> Tensor {
    let n: usize = shape.iter().product();
    let mut s = 88172645463325252u64;
    let mut next = || {
        s ^= s << 13;
        s ^= s >> 7;
        s ^= s << 17;
        (s >> 11) as f64 / (1u64 << 52) as f64 - 1.0
    };
    let values: Vec<f64> = (0..n).map(|_| next()).collect();
    from_slice(&values, shape)
}

fn leaf(shape: &[usize]) -> Tensor {
    matrix(shape).requires_grad_(true)
}

#[track_caller]
fn same(a: &Tensor, b: &Tensor) {
    assert_eq!(a.shape(), b.shape());
    assert!(a.allclose(b, 1e-9, 1e-9), "{a} is not {b}");
}

fn message(f: impl FnOnce()) -> String {
    let e = catch_unwind(AssertUnwindSafe(f)).expect_err("it panics");
    e.downcast_ref::<String>().expect("a message").clone()
}

fn check(what: &str, f: impl Fn(&[Tensor]) -> Tensor, inputs: &[Tensor]) {
    let f = |x: &[Tensor]| vec![f(x)];
    gradcheck(f, inputs).unwrap_or_else(|e| panic!("{what}: {e}"));
    gradgradcheck(f, inputs).unwrap_or_else(|e| panic!("{what}, second derivative: {e}"));
}

#[test]
fn factors_multiply_back() {
    for shape in [&[4, 4][..], &[2, 5, 3], &[3, 5], &[0, 3, 3], &[2, 0, 3], &[40, 40]] {
        let a = matrix(shape);
        // Also where memory is not dense.
        for a in [a.clone(), t(&a), a.flip([-1])] {
            let (q, r) = linalg::qr(&a, false);
            same(&q.matmul(&r), &a);
            same(&r.triu(0), &r);
            let (q, r) = linalg::qr(&a, true);
            same(&q.matmul(&r), &a);
            same(&t(&q).matmul(&q), &eye(q.size(-1)).to_dtype(DType::F64).broadcast_to(q.shape()));
            let (p, l, u) = linalg::lu(&a);
            same(&p.matmul(&l).matmul(&u), &a);
            let (u, s, vh) = linalg::svd(&a, false);
            same(&(&u * s.unsqueeze(-2)).matmul(&vh), &a);
            same(
                &linalg::pinv(&a, None, None, false)
                    .matmul(&a)
                    .matmul(&linalg::pinv(&a, None, None, false)),
                &linalg::pinv(&a, None, None, false),
            );
            let (u, s, vh) = linalg::svd(&a, true);
            let k = s.size(-1);
            same(&(u.narrow(-1, 0, k) * s.unsqueeze(-2)).matmul(&vh.narrow(-2, 0, k)), &a);
            assert_eq!((u.size(-1), vh.size(-1)), (a.size(-2), a.size(-1)));
        }
    }
}

#[test]
fn equations_are_solved() {
    let a = matrix(&[3, 1, 4, 4]) + eye(4).to_dtype(DType::F64) * 2.0;
    let b = matrix(&[2, 4, 3]);
    same(&a.matmul(&linalg::solve(&a, &b)), &b.broadcast_to([3, 2, 4, 3]));
    let v = matrix(&[4]);
    same(&a.matmul(&linalg::solve(&a, &v).unsqueeze(-1)).squeeze(-1), &v.broadcast_to([3, 1, 4]));
    let one = eye(4).to_dtype(DType::F64).broadcast_to(a.shape());
    same(&linalg::inv(&a).matmul(&a), &one);
    let (f, p) = linalg::lu_factor(&a);
    same(&t(&a).matmul(&linalg::lu_solve(&f, &p, &b, true, true)), &b.broadcast_to([3, 2, 4, 3]));
    let c = t(&b);
    same(&linalg::lu_solve(&f, &p, &c, false, false).matmul(&a), &c.broadcast_to([3, 2, 3, 4]));
    let s = a.matmul(&t(&a));
    let l = linalg::cholesky(&s, false);
    same(&s.matmul(&linalg::cholesky_solve(&b, &l, false)), &b.broadcast_to([3, 2, 4, 3]));
    same(&linalg::cholesky_inverse(&linalg::cholesky(&s, true), true).matmul(&s), &one);
    same(
        &linalg::solve_triangular(&l, &c, false, false, false).matmul(&l),
        &c.broadcast_to([3, 2, 3, 4]),
    );
    let e = matrix(&[4, 6, 8, 3]);
    let i = linalg::tensorinv(&e, 2);
    assert_eq!(i.shape(), [8, 3, 4, 6]);
    same(&i.reshape([24, 24]).matmul(&e.reshape([24, 24])), &eye(24).to_dtype(DType::F64));
    assert_eq!(linalg::tensorsolve(&e, &matrix(&[4, 6]), &[]).shape(), [8, 3]);
}

#[test]
fn least_squares() {
    for (m, n) in [(5, 3), (3, 5), (4, 4)] {
        let (a, b) = (matrix(&[2, m, n]), matrix(&[2, m, 2]));
        let r = linalg::lstsq(&a, &b, None);
        same(&r.solution, &linalg::pinv(&a, None, None, false).matmul(&b));
        assert_eq!(r.rank.to_vec::<i64>(), [m.min(n) as i64; 2]);
        assert_eq!(r.residuals.numel(), if m > n { 4 } else { 0 });
    }
    let a = tensor([[1.0, 2.0], [2.0, 4.0], [3.0, 6.0]]);
    let r = linalg::lstsq(&a, &ones([3, 1]).to_dtype(DType::F64), None);
    assert_eq!(r.rank.item::<i64>(), 1);
    assert!((r.solution.to_vec::<f64>()[0] - 6.0 / 70.0).abs() < 1e-12);
}

#[test]
fn numbers_of_matrices() {
    // Values from PyTorch 2.15.
    let a = tensor([[2.0, -1.0, 0.5], [1.0, 3.0, -2.0], [0.0, 1.5, 1.0]]);
    let close =
        |x: &Tensor, want: f64| assert!((x.item::<f64>() - want).abs() < 1e-12, "{x} {want}");
    close(&linalg::det(&a), 13.75);
    close(&linalg::logdet(&a), 13.75f64.ln());
    assert!(linalg::logdet(&tensor([[-1.0]])).item::<f64>().is_nan());
    let (sign, log) = linalg::slogdet(&tensor([[0.0, 2.0], [3.0, 0.0]]));
    assert_eq!(sign.item::<f64>(), -1.0);
    close(&log, 6f64.ln());
    close(&linalg::det(&tensor([[1.0, 2.0], [2.0, 4.0]])), 0.0);
    assert_eq!(linalg::det(&matrix(&[2, 0, 0])).to_vec::<f64>(), [1.0, 1.0]);
    let norm = |o: Norm| linalg::matrix_norm(&a, o, [-2, -1], false);
    close(&norm(Norm::Fro), 22.5f64.sqrt());
    close(&norm(1.0.into()), 5.5);
    close(&norm((-1.0).into()), 3.0);
    close(&norm(f64::INFINITY.into()), 6.0);
    close(&norm(f64::NEG_INFINITY.into()), 2.5);
    let s = linalg::svdvals(&a);
    close(&norm(Norm::Nuc), s.sum().item());
    close(&linalg::cond(&a, None), (s.max() / s.min()).item());
    close(
        &linalg::cond(&a, Norm::P(1.0)),
        (norm(1.0.into()) * linalg::matrix_norm(&linalg::inv(&a), 1.0, [-2, -1], false)).item(),
    );
    assert_eq!(linalg::cond(&ones([2, 2]), Norm::Fro).item::<f32>(), f32::INFINITY);
    assert_eq!(linalg::matrix_norm(&matrix(&[2, 3, 4]), 2.0, [0, 2], true).shape(), [1, 3, 1]);
    assert_eq!(linalg::matrix_rank(&ones([3, 4, 5]), None, None, false).to_vec::<i64>(), [1, 1, 1]);
    assert_eq!(linalg::matrix_rank(&matrix(&[0, 3]), None, None, false).item::<i64>(), 0);
    same(&linalg::matrix_power(&a, -2).matmul(&a).matmul(&a), &eye(3).to_dtype(DType::F64));
    same(&linalg::matrix_power(&a, 5), &a.matmul(&a).matmul(&a).matmul(&a).matmul(&a));
    let (x, y, z) = (matrix(&[3, 7]), matrix(&[7, 2]), matrix(&[2, 5]));
    same(&linalg::multi_dot(&[&x, &y, &z]), &x.matmul(&y).matmul(&z));
    let v = tensor([1.0, 2.0, 3.0]);
    assert_eq!(
        linalg::vander(&v, None).to_vec::<f64>(),
        [1.0, 1.0, 1.0, 1.0, 2.0, 4.0, 1.0, 3.0, 9.0]
    );
    let w = tensor([4.0, 5.0, 6.0]);
    assert_eq!(linalg::cross(&v, &w, 0).to_vec::<f64>(), [-3.0, 6.0, -3.0]);
    close(&linalg::vecdot(&v, &w, -1), 32.0);
    let s = a.matmul(&t(&a));
    let r = linalg::matrix_sqrth(&s);
    same(&r.matmul(&r), &s);
}

#[test]
fn the_exponential() {
    // A large norm, to be scaled; the inverse of the exponential is that of the negative.
    let a = matrix(&[2, 5, 5]) * 4.0;
    let one = eye(5).to_dtype(DType::F64).broadcast_to(a.shape());
    assert!(linalg::matrix_exp(&a).matmul(&linalg::matrix_exp(&a.neg())).allclose(&one, 0.0, 1e-7));
    let d = tensor([[1.0, 0.0], [0.0, -20.0]]);
    let e = linalg::matrix_exp(&d).to_vec::<f64>();
    assert!((e[0] / 1f64.exp() - 1.0).abs() < 1e-13 && (e[3] / (-20f64).exp() - 1.0).abs() < 1e-11);
    assert_eq!(linalg::matrix_exp(&matrix(&[0, 2, 2])).shape(), [0, 2, 2]);
}

#[test]
fn derivatives() {
    let a = leaf(&[2, 3, 3]);
    let shifted = |x: &Tensor| x + eye(3).to_dtype(DType::F64) * 3.0;
    check("solve", |x| linalg::solve(&shifted(&x[0]), &x[1]), &[a.clone(), leaf(&[3, 2])]);
    check("inv", |x| linalg::inv(&shifted(&x[0])), std::slice::from_ref(&a));
    check("det", |x| linalg::det(&x[0]), std::slice::from_ref(&a));
    check("slogdet", |x| linalg::slogdet(&x[0]).1, std::slice::from_ref(&a));
    check("pinv", |x| linalg::pinv(&x[0], None, None, false), &[leaf(&[3, 2])]);
    check("lstsq", |x| linalg::lstsq(&x[0], &x[1], None).solution, &[leaf(&[4, 2]), leaf(&[4, 1])]);
    check(
        "lstsq, wide",
        |x| linalg::lstsq(&x[0], &x[1], None).solution,
        &[leaf(&[2, 3]), leaf(&[2, 1])],
    );
    check(
        "cholesky_solve",
        |x| linalg::cholesky_solve(&x[1], &shifted(&x[0]).tril(0), false),
        &[a.clone(), leaf(&[3, 1])],
    );
    check("matrix_exp", |x| linalg::matrix_exp(&x[0]), &[leaf(&[2, 2])]);
    check("matrix_power", |x| linalg::matrix_power(&shifted(&x[0]), -2), &[leaf(&[3, 3])]);
    check("eigvalsh", |x| linalg::eigvalsh(&(&x[0] + t(&x[0])), true), std::slice::from_ref(&a));
    check("cond", |x| linalg::cond(&x[0], None), &[leaf(&[3, 3])]);
    for ord in [
        Norm::Fro,
        Norm::Nuc,
        1.0.into(),
        (-1.0).into(),
        2.0.into(),
        (-2.0).into(),
        f64::INFINITY.into(),
    ] {
        check(
            "matrix_norm",
            |x| linalg::matrix_norm(&x[0], ord, [-2, -1], false),
            &[leaf(&[2, 3, 2])],
        );
    }
    for ord in [2.0, 1.0, 3.0, 0.5, -1.0, f64::INFINITY] {
        check("vector_norm", |x| linalg::vector_norm(&x[0], ord, [-1], false), &[leaf(&[2, 3])]);
    }
    check(
        "householder_product",
        |x| linalg::householder_product(&x[0], &x[1]),
        &[leaf(&[3, 2]), leaf(&[2])],
    );
    check(
        "multi_dot",
        |x| linalg::multi_dot(&[&x[0], &x[1], &x[2]]),
        &[leaf(&[2]), leaf(&[2, 3]), leaf(&[3, 2])],
    );
    check("cross", |x| linalg::cross(&x[0], &x[1], 1), &[leaf(&[2, 3]), leaf(&[2, 3])]);
    check("vander", |x| linalg::vander(&x[0], 4), &[leaf(&[3])]);
    // The derivative of a norm at zero is taken to be zero.
    let zero = tensor([0.0, 0.0]).requires_grad_(true);
    linalg::vector_norm(&zero, 2.0, (), false).backward();
    assert_eq!(zero.grad().unwrap().to_vec::<f64>(), [0.0, 0.0]);
}

/// Derivatives by real and imaginary parts.
fn check_complex(what: &str, f: impl Fn(&Tensor) -> Tensor, shape: &[usize]) {
    let parts: Vec<usize> = shape.iter().copied().chain([2]).collect();
    let f = |x: &[Tensor]| {
        let y = f(&x[0].view_as_complex());
        if y.is_complex() { y.view_as_real() } else { y }
    };
    check(what, f, &[leaf(&parts)]);
}

#[test]
fn derivatives_of_complex_matrices() {
    let h = |x: &Tensor| x.transpose(-1, -2).conj();
    let one = |x: &Tensor| x + eye(3).to_dtype(DType::C128) * 3.0;
    let square = &[2, 3, 3][..];
    check_complex("fft", |x| fft::fft(x, 5, 1, fft::Norm::Ortho), &[2, 3]);
    check_complex("ifft", |x| fft::ifftn(x, None, None, fft::Norm::Backward), &[2, 3]);
    check_complex("irfft", |x| fft::irfft(x, 5, -1, fft::Norm::Forward), &[2, 3]);
    check_complex("hfft", |x| fft::hfft(x, None, -1, fft::Norm::Backward), &[2, 3]);
    check(
        "rfft",
        |x| fft::rfft(&x[0], None, -1, fft::Norm::Backward).view_as_real(),
        &[leaf(&[2, 5])],
    );
    check("ihfft", |x| fft::ihfft(&x[0], 4, 0, fft::Norm::Ortho).view_as_real(), &[leaf(&[5, 2])]);
    check_complex("cholesky", |x| linalg::cholesky(&one(&x.matmul(&h(x))), false), square);
    check_complex("eigh", |x| linalg::eigh(&(x + h(x)), true).0, square);
    check_complex("eigh, vectors", |x| linalg::eigh(&(x + h(x)), false).1.abs(), square);
    check_complex("eig", |x| linalg::eig(x).0, square);
    check_complex("eig, vectors", |x| linalg::eig(x).1.abs(), square);
    check("eig of real ones", |x| linalg::eig(&x[0]).0.view_as_real(), &[leaf(&[2, 3, 3])]);
    check("eig of real ones, vectors", |x| linalg::eig(&x[0]).1.abs(), &[leaf(&[3, 3])]);
    check_complex("lu", |x| linalg::lu_factor_ex(x).0, square);
    for shape in [&[3, 3][..], &[4, 2], &[2, 3]] {
        check_complex("qr, q", |x| linalg::qr(x, false).0, shape);
        check_complex("qr, r", |x| linalg::qr(x, false).1, shape);
        check_complex("svd, s", |x| linalg::svd(x, false).1, shape);
        check_complex("svd, u", |x| linalg::svd(x, false).0.abs(), shape);
        check_complex("svd, vh", |x| linalg::svd(x, false).2.abs(), shape);
        check_complex("pinv", |x| linalg::pinv(x, None, None, false), shape);
    }
    check_complex("inv", |x| linalg::inv(&one(x)), square);
    check_complex("det", linalg::det, square);
    check_complex("matrix_exp", linalg::matrix_exp, &[2, 2]);
    check_complex("norm", |x| linalg::matrix_norm(x, Norm::Nuc, [0, 1], false), &[3, 2]);
}

#[test]
fn complex_factors_multiply_back() {
    let h = |x: &Tensor| x.transpose(-1, -2).conj();
    for (m, n) in [(4, 4), (5, 3), (3, 5), (40, 40), (0, 2)] {
        let a = matrix(&[2, m, n, 2]).view_as_complex();
        let near = |x: &Tensor| {
            let off = (x - &a).abs();
            assert!(off.numel() == 0 || off.max().item::<f64>() < 1e-12, "{m} {n}");
        };
        let (q, r) = linalg::qr(&a, false);
        near(&q.matmul(&r));
        assert!(r.diagonal(0, -2, -1).imag().eq(0.0).all().item_scalar().as_bool());
        let (p, l, u) = linalg::lu(&a);
        near(&p.matmul(&l).matmul(&u));
        let (u, s, vh) = linalg::svd(&a, false);
        near(&(&u * s.unsqueeze(-2).to_dtype(u.dtype())).matmul(&vh));
        if m == n {
            let (w, v) = linalg::eig(&a);
            assert!((a.matmul(&v) - &v * w.unsqueeze(-2)).abs().max().item::<f64>() < 1e-11);
            let (w, v) = linalg::eigh(&(&a + h(&a)), false);
            let back = (&v * w.unsqueeze(-2).to_dtype(v.dtype())).matmul(&h(&v));
            assert!((back - &a - h(&a)).abs().max().item::<f64>() < 1e-12);
        }
    }
}

#[test]
fn transforms_invert() {
    for n in [1, 2, 7, 64, 97, 100] {
        let x = matrix(&[3, n]);
        for norm in [fft::Norm::Backward, fft::Norm::Ortho, fft::Norm::Forward] {
            same(&fft::ifft(&fft::fft(&x, None, -1, norm), None, -1, norm).real(), &x);
            same(&fft::irfft(&fft::rfft(&x, None, -1, norm), n, -1, norm), &x);
            same(&fft::hfft(&fft::ihfft(&x, None, -1, norm), n, -1, norm), &x);
            same(&fft::irfftn(&fft::rfftn(&x, None, None, norm), Some(&[3, n]), None, norm), &x);
        }
        // By the definition.
        let y = fft::fft(&x, None, -1, fft::Norm::Backward);
        let k = n / 3;
        let (mut re, mut im) = (0.0, 0.0);
        for (j, v) in x.select(0, 1).to_vec::<f64>().iter().enumerate() {
            let turn = -2.0 * std::f64::consts::PI * (j * k % n) as f64 / n as f64;
            (re, im) = (re + v * turn.cos(), im + v * turn.sin());
        }
        let got = y.i((1, k as i64));
        assert!((got.real().item::<f64>() - re).abs() < 1e-11);
        assert!((got.imag().item::<f64>() - im).abs() < 1e-11);
        let s = fft::ifftshift(&fft::fftshift(&x, ()), ());
        same(&s, &x);
    }
    assert!(
        message(|| drop(fft::fft(&matrix(&[2, 0]), None, -1, fft::Norm::Backward))).contains("fft")
    );
    let e = trace(
        "f",
        |x: &[Tensor]| vec![fft::rfft(&x[0], None, -1, fft::Norm::Ortho).real()],
        &[&eye(3)],
        &[],
    );
    let e = e.expect_err("it is refused").to_string();
    assert!(e.starts_with("T010: `fft` at "), "{e}");
}

#[test]
fn functions_of_one_matrix_take_batches() {
    let a = matrix(&[3, 4, 4]) + eye(4).to_dtype(DType::F64) * 2.0;
    let b = matrix(&[3, 4]);
    same(&sinter::vmap(linalg::inv)(&a), &linalg::inv(&a));
    same(&sinter::vmap(linalg::det)(&a), &linalg::det(&a));
    same(&sinter::vmap(linalg::matrix_exp)(&a), &linalg::matrix_exp(&a));
    same(&sinter::vmap(|x| linalg::svdvals(x))(&a), &linalg::svdvals(&a));
    let solved = sinter::Vmap::new().call(|t| vec![linalg::solve(&t[0], &t[1])], &[&a, &b]);
    same(&solved[0], &linalg::solve(&a, &b));
    let s = a.matmul(&t(&a));
    same(&sinter::vmap(|x| linalg::cholesky(x, false))(&s), &linalg::cholesky(&s, false));
}

#[test]
fn results_do_not_depend_on_threads() {
    set_default_dtype(DType::F64);
    manual_seed(3);
    let a = randn([64, 12, 12]);
    let run = || {
        let (q, r) = linalg::qr(&a, false);
        let (u, s, vh) = linalg::svd(&a, false);
        let x = linalg::solve(&a, &q);
        let (w, v) = linalg::eigh(&(&a + t(&a)), false);
        [q, r, u, s, vh, x, w, v]
            .map(|t| t.to_vec::<f64>().iter().map(|v| v.to_bits()).collect::<Vec<_>>())
    };
    let before = sinter_kernels::par::threads();
    sinter_kernels::par::set_threads(1);
    let one = run();
    sinter_kernels::par::set_threads(4);
    assert!(run() == one);
    sinter_kernels::par::set_threads(before);
}

#[test]
fn mistakes_are_named() {
    let bad = tensor([[[1.0, 0.0], [0.0, 1.0]], [[1.0, 2.0], [2.0, 1.0]]]);
    assert_eq!(
        message(|| drop(linalg::cholesky(&bad, false))),
        "linalg.cholesky: the matrix is not positive definite: its leading minor of order 2 is not positive (batch item 1)"
    );
    let (l, info) = linalg::cholesky_ex(&bad, false);
    assert_eq!((info.dtype(), info.to_vec::<i64>()), (DType::I32, vec![0, 2]));
    assert!(l.select(0, 1).i((0, 0)).item::<f64>().is_nan());
    assert_eq!(
        message(|| drop(linalg::solve(&ones([2, 2]), &ones([2])))),
        "linalg.solve: the matrix is singular"
    );
    assert_eq!(
        message(|| drop(linalg::inv(&ones([3, 2])))),
        "linalg.inv: needs square matrices, the shape is [3, 2]"
    );
    let nan = tensor([[1.0, f64::NAN], [f64::NAN, 1.0]]);
    for (name, text) in [
        ("svd", message(|| drop(linalg::svd(&nan, false)))),
        ("eigh", message(|| drop(linalg::eigh(&nan, false)))),
    ] {
        assert!(
            text.starts_with(&format!("{name}: batch item 0 contains NaN or infinity")),
            "{text}"
        );
    }
    assert!(
        message(|| drop(linalg::qr(&ones([2, 2]).to_dtype(DType::F16), false)))
            .contains("needs f32, f64 or complex numbers, got f16")
    );
    assert!(
        message(|| drop(linalg::matrix_norm(&ones([2, 2]), 3.0, [0, 1], false)))
            .contains("3 is no norm of a matrix")
    );
}

#[test]
fn tracing_refuses_factorisations() {
    let traced = |f: &dyn Fn(&Tensor) -> Tensor| {
        trace("f", |x: &[Tensor]| vec![f(&x[0])], &[&eye(3)], &[]).expect_err("it is refused")
    };
    let e = traced(&|x| linalg::qr(x, false).1);
    assert!(matches!(&e, TraceError::EagerOnly { op, .. } if op == "qr"), "{e}");
    let e = traced(&|x| linalg::inv(x)).to_string();
    assert!(
        e.starts_with("T010: `lu` at ") && e.contains("cannot be part of a compiled program"),
        "{e}"
    );
}
