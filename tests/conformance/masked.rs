//! Reductions of what a mask lets through.

use crate::args::{Args, skip};
use crate::registry::Registry;
use sinter::{DType, Tensor, masked};

const NUMBER: &str = "complex numbers without dimensions, along one";

/// The operand and its mask; without one everything counts.
fn operands(a: &Args) -> (Tensor, Tensor) {
    let x = a.t(0);
    let x = x.to_dtype(a.opt_dtype("dtype").unwrap_or(x.dtype()));
    let mask = a.opt_t("mask").unwrap_or_else(|| sinter::full(x.shape(), true, DType::Bool));
    // A mask may have more dimensions than what it hides has elements to show.
    if mask.rank() > x.rank() {
        skip("masks of more dimensions");
    }
    (x, mask)
}

fn dims(a: &Args, at: usize, x: &Tensor) -> Vec<i64> {
    let named = a.opt_ints((at, "dim"));
    named.filter(|d| !d.is_empty()).unwrap_or_else(|| (0..x.rank() as i64).collect())
}

fn keep(a: &Args) -> bool {
    a.bool_or("keepdim", false)
}

type Reduction = fn(&Tensor, &Tensor, Vec<i64>, bool) -> Tensor;

pub fn register(r: &mut Registry) {
    let reductions: [(&'static str, Reduction); 6] = [
        ("masked.sum", |x, m, d, k| masked::sum(x, m, d, k)),
        ("masked.prod", |x, m, d, k| masked::prod(x, m, d, k)),
        ("masked.mean", |x, m, d, k| masked::mean(x, m, d, k)),
        ("masked.amax", |x, m, d, k| masked::amax(x, m, d, k)),
        ("masked.amin", |x, m, d, k| masked::amin(x, m, d, k)),
        ("masked.logsumexp", |x, m, d, k| masked::logsumexp(x, m, d, k)),
    ];
    for (name, f) in reductions {
        r.op(name, move |a| {
            let (x, mask) = operands(a);
            f(&x, &mask, dims(a, 1, &x), keep(a))
        })
        .skip("exponentials of integers, as integers", move |a| {
            name.contains("exp") && !a.dtype().is_float()
        })
        .half(8.0);
    }
    for name in ["masked.argmax", "masked.argmin"] {
        r.op(name, move |a| {
            let (x, mask) = operands(a);
            let (x, mask, d) = match a.opt_i64((1, "dim")) {
                Some(d) => (x, mask, d),
                None if keep(a) => skip("all dimensions searched and kept"),
                None => (x.reshape([-1]), mask.broadcast_to(x.shape()).reshape([-1]), 0),
            };
            let at = if name == "masked.argmax" {
                masked::argmax(&x, &mask, d, keep(a))
            } else {
                masked::argmin(&x, &mask, d, keep(a))
            };
            // PyTorch gives the index in the type of what was searched.
            at.to_dtype(x.dtype())
        });
    }
    type Along = fn(&Tensor, &Tensor, i64) -> Tensor;
    let along: [(&'static str, Along); 5] = [
        ("masked.cumsum", masked::cumsum),
        ("masked.cumprod", masked::cumprod),
        ("masked.softmax", masked::softmax),
        ("masked.log_softmax", masked::log_softmax),
        ("masked.softmin", masked::softmin),
    ];
    for (name, f) in along {
        r.op(name, move |a| {
            let (x, mask) = operands(a);
            // PyTorch does not widen integers here.
            let y = f(&x, &mask, a.i64((1, "dim")));
            if name.contains("cum") { y.to_dtype(x.dtype()) } else { y }
        })
        .skip("complex products", move |a| name == "masked.cumprod" && a.t(0).is_complex())
        .skip(NUMBER, |a| a.t(0).is_complex() && a.t(0).rank() == 0)
        .half(8.0);
    }
    r.op("masked.median", |a| {
        let (x, mask) = operands(a);
        masked::median(&x, &mask, a.i64((1, "dim")), keep(a))
    });
    r.op("masked.norm", |a| {
        let (x, mask) = operands(a);
        masked::norm(&x, &mask, a.f64((1, "ord")), dims(a, 2, &x), keep(a))
    })
    .half(8.0);
    r.op("masked.normalize", |a| {
        let (x, mask) = operands(a);
        let eps = a.f64_or("eps", 1e-12);
        masked::normalize(&x, &mask, a.f64((1, "ord")), a.i64((2, "dim")), eps)
    })
    .half(8.0);
    for name in ["masked.var", "masked.std"] {
        r.op(name, move |a| {
            let (x, mask) = operands(a);
            let c = match a.get("unbiased") {
                crate::args::Value::Bool(u) => f64::from(u8::from(*u)),
                _ => a.f64_or("correction", 1.0),
            };
            if c.fract() != 0.0 || c < 0.0 {
                skip("corrections that are fractions or negative");
            }
            let d = dims(a, 1, &x);
            if name == "masked.var" {
                masked::var(&x, &mask, d, c as usize, keep(a))
            } else {
                masked::std(&x, &mask, d, c as usize, keep(a))
            }
        })
        .real()
        .half(8.0);
    }
    r.op("masked.logaddexp", |a| {
        let (x, y) = (a.t(0), a.t(1));
        let all = |t: &Tensor| sinter::full(t.shape(), true, DType::Bool);
        let (m, n) = (a.opt_t("input_mask"), a.opt_t("other_mask"));
        masked::logaddexp(&x, &y, &m.unwrap_or(all(&x)), &n.unwrap_or(all(&y)))
    })
    .half(8.0);
}
