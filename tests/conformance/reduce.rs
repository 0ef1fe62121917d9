//! Reductions and scans, sorting and what is made of it.

use crate::args::{Args, Value};
use crate::registry::Registry;
use sinter::Tensor;

/// The dimensions that a reduction is over: those named, else all.
pub fn dims(a: &Args, x: &Tensor) -> Vec<i64> {
    let named = a.opt_ints((1, "dim"));
    named.filter(|d| !d.is_empty()).unwrap_or_else(|| (0..x.rank() as i64).collect())
}

fn keep(a: &Args) -> bool {
    a.bool_or((2, "keepdim"), false)
}

/// The operand, in the type that the case asks for.
fn typed(a: &Args) -> Tensor {
    let x = a.t(0);
    match a.opt_dtype("dtype") {
        Some(d) => x.to_dtype(d),
        None => x,
    }
}

/// What is subtracted from the number of elements in a variance.
pub fn correction(a: &Args, dim_at: usize) -> f64 {
    if let Value::Bool(unbiased) = a.get((dim_at, "unbiased")) {
        return f64::from(u8::from(*unbiased));
    }
    a.f64_or("correction", 1.0)
}

macro_rules! over_dims {
    ($r:ident: $($name:literal $method:ident;)*) => {
        $($r.op($name, |a| {
            let x = typed(a);
            x.$method(dims(a, &x), keep(a))
        });)*
    };
}

pub fn register(r: &mut Registry) {
    over_dims! { r:
        "sum" sum_dim; "mean" mean_dim; "amax" amax; "amin" amin; "prod" prod_dim;
    }
    for (name, all) in [("all", true), ("any", false)] {
        r.op(name, move |a| {
            let x = a.t(0);
            let dims = dims(a, &x);
            if all { x.all_dim(dims, keep(a)) } else { x.any_dim(dims, keep(a)) }
        })
        .without(&[sinter::DType::U8], "PyTorch gives u8 for u8, from before it had bool");
    }
    r.op("argmax", |a| match a.opt_i64((1, "dim")) {
        Some(d) => a.t(0).argmax_dim(d, keep(a)),
        None => {
            a.ignore("keepdim");
            a.t(0).argmax()
        }
    });
    r.op("argmin", |a| match a.opt_i64((1, "dim")) {
        Some(d) => a.t(0).argmin_dim(d, keep(a)),
        None => {
            a.ignore("keepdim");
            a.t(0).argmin()
        }
    });
    r.op("max.reduction_no_dim", |a| a.t(0).max());
    r.op("min.reduction_no_dim", |a| a.t(0).min());
    r.op("max.reduction_with_dim", |a| a.t(0).max_dim(a.i64(1), keep(a)));
    r.op("min.reduction_with_dim", |a| a.t(0).min_dim(a.i64(1), keep(a)));
    r.op("cumsum", |a| typed(a).cumsum(a.i64(1)));
    r.op("cumprod", |a| typed(a).cumprod(a.i64(1)));
    r.op("softmax", |a| typed(a).softmax(a.i64(1)));
    r.op("softmax.with_dtype", |a| typed(a).softmax(a.i64(1)));
    r.op("log_softmax", |a| typed(a).log_softmax(a.i64(1)));
    r.op("log_softmax.with_dtype", |a| typed(a).log_softmax(a.i64(1)));
    r.op("sort", |a| {
        a.ignore("stable");
        a.t(0).sort(a.i64_or((1, "dim"), -1), a.bool_or((2, "descending"), false))
    });
    r.op("argsort", |a| {
        a.ignore("stable");
        a.t(0).argsort(a.i64_or((1, "dim"), -1), a.bool_or((2, "descending"), false))
    });
    r.op("topk", |a| {
        a.ignore((4, "sorted"));
        let (x, d) = (a.t(0), a.i64_or((2, "dim"), -1));
        let (values, at) = x.topk(a.usize(1), d, a.bool_or((3, "largest"), true));
        (values, x.detach().gather(d, &at))
    });
    r.op("allclose", |a| {
        let (rtol, atol) = (a.f64_or("rtol", 1e-5), a.f64_or("atol", 1e-8));
        a.t(0).allclose(&a.t(1), rtol, atol)
    });
}
