//! Random numbers: types and shapes here, distributions elsewhere.

use crate::args::{Args, Either};
use crate::registry::Registry;
use sinter::{DType, Tensor, TensorOptions};

fn dtype(a: &Args, or: DType) -> DType {
    a.opt_dtype("dtype").unwrap_or(or)
}

/// Whole numbers below the last bound, in the shape given.
fn integers(a: &Args, from: usize, shape: Vec<usize>, d: DType) -> Tensor {
    let (low, high) = match a.get(from + 1) {
        crate::args::Value::Int(high) => (a.i64(from), *high),
        _ => (0, a.i64(from)),
    };
    sinter::randint(low, high, shape).to_dtype(d)
}

pub fn register(r: &mut Registry) {
    r.op("uniform", |a| {
        a.t(0).detach().copy().uniform_(a.f64_or(1, 0.0), a.f64_or(2, 1.0)).clone()
    });
    r.op("normal.in_place", |a| {
        a.t(0).detach().copy().normal_(a.f64_or(1, 0.0), a.f64_or(2, 1.0)).clone()
    });
    r.op("bernoulli", |a| match a.opt_f64("p") {
        None => sinter::bernoulli(&a.t(0)),
        Some(p) => a.t(0).detach().copy().bernoulli_(p).clone(),
    });
    r.op("rand_like", |a| sinter::rand_like(&a.t(0).to_dtype(dtype(a, a.t(0).dtype()))));
    r.op("randn_like", |a| sinter::randn_like(&a.t(0).to_dtype(dtype(a, a.t(0).dtype()))));
    r.op("randn", |a| TensorOptions::new().dtype(dtype(a, DType::F32)).randn(a.sizes(0)));
    r.op("randint", |a| {
        let shape = a.sizes(a.len() - 1);
        integers(a, 0, shape, dtype(a, DType::I64))
    });
    r.composite("randint_like", "randint", |a| {
        let x = a.t(0);
        integers(a, 1, x.shape().to_vec(), dtype(a, x.dtype()))
    });
    r.op("empty", |a| sinter::empty(a.sizes(0), dtype(a, DType::F32)));
    r.composite("empty_like", "new_empty", |a| {
        let x = a.t(0);
        x.to_dtype(dtype(a, x.dtype())).new_empty(x.shape())
    });
    r.op("new_empty", |a| {
        let x = a.t(0);
        x.to_dtype(dtype(a, x.dtype())).new_empty(a.sizes(1))
    });
    r.op("empty_strided", |a| sinter::empty_strided(a.sizes(0), a.sizes(1), dtype(a, DType::F32)));
    r.composite("new_empty_strided", "empty_strided", |a| {
        sinter::empty_strided(a.sizes(1), a.sizes(2), dtype(a, a.t(0).dtype()))
    });
    r.op("empty_permuted", |a| {
        sinter::empty_permuted(a.sizes(0), &a.sizes(1), dtype(a, DType::F32))
    });
    for name in ["normal", "normal.number_mean"] {
        r.composite(name, "`randn_like(std) * std + mean`", |a| {
            let (mean, std) = (a.operand((0, "mean")), a.operand((1, "std")));
            let d = dtype(a, a.dtype());
            if a.len() > 2 {
                let z = TensorOptions::new().dtype(d).randn(a.sizes(2));
                return z * a.f64(1) + a.f64(0);
            }
            let like = match (&mean, &std) {
                (Either::Tensor(m), Either::Tensor(s)) => m + s,
                (Either::Tensor(t), _) | (_, Either::Tensor(t)) => t.clone(),
                _ => panic!("no shape"),
            };
            sinter::randn_like(&like.detach()) * std + mean
        });
    }
    let fresh = |a: &Args| a.t(0).detach().copy();
    r.op("cauchy", move |a| fresh(a).cauchy_(a.f64_or(1, 0.0), a.f64_or(2, 1.0)).clone());
    r.op("exponential", move |a| fresh(a).exponential_(a.f64_or(1, 1.0)).clone());
    r.op("geometric", move |a| fresh(a).geometric_(a.f64(1)).clone());
    r.op("log_normal", move |a| fresh(a).log_normal_(a.f64_or(1, 1.0), a.f64_or(2, 2.0)).clone());
    r.op("multinomial", |a| {
        a.t(0).multinomial(a.usize((1, "num_samples")), a.bool_or((2, "replacement"), false))
    });
}
