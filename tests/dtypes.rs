//! Element types that are stored as they are and computed in another one, and complex
//! numbers.

use num_complex::Complex;
use sinter::autograd::{gradcheck, gradgradcheck};
use sinter::{DType, Tensor, complex, full, polar, tensor};

type C = Complex<f64>;

#[test]
fn integers_keep_their_low_bits() {
    let a = tensor([100i8, -128, 127, 5]);
    let b = tensor([100i8, -1, 1, -7]);
    assert_eq!((&a + &b).to_vec::<i8>(), [-56, 127, -128, -2]);
    assert_eq!((&a * &b).to_vec::<i8>(), [16, -128, 127, -35]);
    assert_eq!(a.floor_divide(&b).to_vec::<i8>(), [1, -128, 127, -1]);
    assert_eq!((&a + &b).dtype(), DType::I8);
    assert_eq!(a.sum().dtype(), DType::I64);
    assert_eq!(a.sum().item::<i64>(), 104);
    let u = tensor([65535u16, 2]);
    assert_eq!((&u + 1).to_vec::<u16>(), [0, 3]);
    assert_eq!(u.matmul(&tensor([1u16, 1])).item::<u16>(), 1);
    let w = tensor([4_294_967_295u32, 7]);
    assert_eq!((&w + &w).to_vec::<u32>(), [4_294_967_294, 14]);
    assert_eq!(w.to_dtype(DType::F64).to_vec::<f64>(), [4_294_967_295.0, 7.0]);
    assert_eq!(tensor([-1.0f32, 300.0, f32::NAN]).to_dtype(DType::I8).to_vec::<i8>(), [-1, 127, 0]);
    assert_eq!(tensor([-1i64, 300]).to_dtype(DType::U16).to_vec::<u16>(), [65535, 300]);
}

#[test]
fn u64_is_ordered_as_it_should_be() {
    let big = u64::MAX;
    let a = tensor([big, 1, 1 << 63]);
    let b = tensor([2u64, 3, 5]);
    assert_eq!((&a + &b).to_vec::<u64>(), [1, 4, (1 << 63) + 5]);
    assert_eq!(a.gt(&b).to_vec::<u8>(), [1, 0, 1]);
    assert_eq!(a.maximum(&b).to_vec::<u64>(), [big, 3, 1 << 63]);
    assert_eq!(a.max().to_vec::<u64>(), [big]);
    assert_eq!(a.argmin().item::<i64>(), 1);
    assert_eq!(a.sort(0, false).0.to_vec::<u64>(), [1, 1 << 63, big]);
    assert_eq!(a.to_dtype(DType::F64).to_vec::<f64>(), [big as f64, 1.0, (1u64 << 63) as f64]);
    assert_eq!(
        tensor([1.8e19f64]).to_dtype(DType::U64).to_vec::<u64>(),
        [18_000_000_000_000_000_000]
    );
}

#[test]
#[should_panic(
    expected = "remainder: not supported: no kernel for u64; convert it with `to_dtype`"
)]
fn u64_does_not_divide() {
    let _ = tensor([7u64]).remainder(2);
}

fn numbers() -> Vec<C> {
    let parts = [-2.5, -1.0, -0.3, 0.0, 0.4, 1.0, 3.1];
    parts.iter().flat_map(|&re| parts.iter().map(move |&im| C::new(re, im))).collect()
}

fn close(got: &Tensor, want: impl Iterator<Item = C>, what: &str) {
    for (i, (g, w)) in got.to_vec::<C>().into_iter().zip(want).enumerate() {
        let same = |a: f64, b: f64| a == b || (a.is_nan() && b.is_nan());
        let ok =
            (g - w).norm() <= 1e-12 * w.norm().max(1.0) || (same(g.re, w.re) && same(g.im, w.im));
        assert!(ok, "{what} of {}: {g}, not {w}", numbers()[i % numbers().len()]);
    }
}

#[test]
fn functions_of_complex_numbers() {
    let z = numbers();
    let t = tensor(z.clone());
    macro_rules! check {
        ($($method:ident $reference:expr, $keep:expr;)*) => {$({
            // Elsewhere the sides of a cut differ by the sign of a zero.
            let keep: Vec<C> = z.iter().copied().filter($keep).collect();
            let f: fn(C) -> C = $reference;
            close(&tensor(keep.clone()).$method(), keep.into_iter().map(f), stringify!($method));
        })*};
    }
    let all = |_: &C| true;
    let off_axes = |z: &C| z.re != 0.0 && z.im != 0.0;
    let nonzero = |z: &C| z.norm() > 0.0;
    check! {
        exp |z| z.exp(), all;
        sqrt |z| z.sqrt(), all;
        ln |z| z.ln(), nonzero;
        sin |z| z.sin(), all;
        cos |z| z.cos(), all;
        tan |z| z.tan(), all;
        sinh |z| z.sinh(), all;
        cosh |z| z.cosh(), all;
        tanh |z| z.tanh(), all;
        asin |z| z.asin(), off_axes;
        acos |z| z.acos(), off_axes;
        atan |z| z.atan(), off_axes;
        asinh |z| z.asinh(), off_axes;
        acosh |z| z.acosh(), off_axes;
        atanh |z| z.atanh(), off_axes;
        reciprocal |z| z.inv(), nonzero;
        square |z| z * z, all;
        neg |z| -z, all;
        conj |z| z.conj(), all;
        log1p |z| (z + 1.0).ln(), off_axes;
        expm1 |z| z.exp() - 1.0, all;
    }
    let moduli: Vec<f64> = z.iter().map(|z| z.norm()).collect();
    for (a, b) in t.abs().to_vec::<f64>().into_iter().zip(moduli) {
        assert!((a - b).abs() <= 1e-14 * b.max(1.0));
    }
    let other = t.flip([0]);
    let pairs = || z.iter().zip(z.iter().rev());
    close(&(&t + &other), pairs().map(|(a, b)| a + b), "sum");
    close(&(&t * &other), pairs().map(|(a, b)| a * b), "product");
    let ok: Vec<usize> = (0..z.len()).filter(|&i| z[z.len() - 1 - i].norm() > 0.0).collect();
    let index = tensor(ok.iter().map(|&i| i as i64).collect::<Vec<_>>());
    let quotient = (&t / &other).index_select(0, &index);
    close(&quotient, ok.iter().map(|&i| z[i] / z[z.len() - 1 - i]), "quotient");
    close(&t.sum(), std::iter::once(z.iter().sum()), "sum of all");
    let few = t.narrow(0, 0, 7);
    close(&few.prod(), std::iter::once(z[..7].iter().product()), "product of all");
    close(&few.pow(C::new(0.5, 0.2)), z[..7].iter().map(|z| z.powc(C::new(0.5, 0.2))), "power");
}

#[test]
fn extremes_of_complex_numbers() {
    let inf = f64::INFINITY;
    let z = tensor([C::new(3e200, 4e200), C::new(inf, f64::NAN), C::new(0.0, 0.0)]);
    let abs = z.abs().to_vec::<f64>();
    assert!((abs[0] / 5e200 - 1.0).abs() < 1e-15 && abs[1..] == [inf, 0.0], "{abs:?}");
    assert_eq!(z.isfinite().to_vec::<u8>(), [1, 0, 1]);
    let q = tensor([C::new(1e300, 1e300)]) / tensor([C::new(1e300, -1e300)]);
    assert_eq!(q.to_vec::<C>(), [C::new(0.0, 1.0)]);
    let zero = tensor([C::new(0.0, 0.0)]).requires_grad_(true);
    zero.abs().sum().backward();
    assert_eq!(zero.grad().unwrap().to_vec::<C>(), [C::new(0.0, 0.0)]);
    let empty = full([0, 3], 1, DType::C64);
    assert_eq!((empty.sum().dtype(), (&empty * &empty).shape()), (DType::C64, &[0, 3][..]));
}

#[test]
fn complex_matrices() {
    let a = complex(&tensor([[1.0f64, 2.0]]), &tensor([[0.0f64, -1.0]]));
    let b = complex(&tensor([[3.0f64], [1.0]]), &tensor([[1.0f64], [2.0]]));
    assert_eq!(a.matmul(&b).to_vec::<C>(), [C::new(7.0, 4.0)]);
    let t = b.t();
    assert_eq!(t.matmul(&a.t()).to_vec::<C>(), [C::new(7.0, 4.0)]);
}

/// Derivatives by the parts of complex operands.
#[test]
fn derivatives() {
    let parts = tensor([[0.7f64, -0.4], [1.3, 0.9], [-0.6, 0.5]]).requires_grad_(true);
    let other = tensor([[0.2f64, 1.1], [-0.8, 0.3], [0.5, -1.4]]).requires_grad_(true);
    type F = fn(&Tensor, &Tensor) -> Tensor;
    let functions: [(&str, F); 12] = [
        ("mul", |x, y| x * y),
        ("div", |x, y| x / y),
        ("abs", |x, _| x.abs()),
        ("sqrt", |x, _| x.sqrt()),
        ("exp", |x, y| (x * y).exp()),
        ("ln", |x, _| x.ln()),
        ("pow", |x, y| x.pow(y)),
        ("tanh", |x, _| x.tanh()),
        ("angle", |x, _| x.angle()),
        ("sgn", |x, _| x.sgn()),
        ("prod", |x, y| (x + y).prod()),
        ("matmul", |x, y| x.reshape([1, 3]).matmul(&y.reshape([3, 1]))),
    ];
    for (name, f) in functions {
        let g = |t: &[Tensor]| {
            let y = f(&t[0].view_as_complex(), &t[1].view_as_complex());
            vec![if y.is_complex() { y.view_as_real() } else { y }]
        };
        let inputs = [parts.clone(), other.clone()];
        gradcheck(g, &inputs).unwrap_or_else(|e| panic!("{name}: {e}"));
        gradgradcheck(g, &inputs).unwrap_or_else(|e| panic!("{name}, second: {e}"));
    }
}

#[test]
fn a_gradient_is_that_of_the_parts() {
    let z = tensor([C::new(1.0, 2.0)]).requires_grad_(true);
    (&z * z.conj()).real().sum().backward();
    assert_eq!(z.grad().unwrap().to_vec::<C>(), [C::new(2.0, 4.0)]);
    let p = polar(&tensor([2.0f64]), &tensor([0.5f64]));
    assert!((p.angle().item::<f64>() - 0.5).abs() < 1e-15);
}
