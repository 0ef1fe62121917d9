//! Products of matrices and vectors.

use crate::args::{Args, Value};
use crate::registry::Registry;
use sinter::{DType, Tensor};
use sinter_tests::Tolerance;

type Added = fn(&Tensor, &Tensor, &Tensor, f64, f64) -> Tensor;

pub fn register(r: &mut Registry) {
    r.op("matmul", |a| a.t(0).matmul(&a.t(1)));
    r.composite("__rmatmul__", "matmul, operands exchanged", |a| a.t(1).matmul(&a.t(0)));
    r.op("mm", |a| a.t(0).mm(&a.t(1)));
    r.op("bmm", |a| a.t(0).bmm(&a.t(1)));
    r.op("mv", |a| a.t(0).mv(&a.t(1)));
    r.op("dot", |a| a.t(0).dot(&a.t(1)));
    r.op("vdot", |a| a.t(0).vdot(&a.t(1)));
    r.op("inner", |a| a.t(0).inner(&a.t(1)));
    r.op("outer", |a| a.t(0).outer(&a.t(1)));
    let added: [(&'static str, Added); 6] = [
        ("addmm", Tensor::addmm),
        ("addmm.decomposed", Tensor::addmm),
        ("addmv", Tensor::addmv),
        ("addr", Tensor::addr),
        ("addbmm", Tensor::addbmm),
        ("baddbmm", Tensor::baddbmm),
    ];
    for (name, f) in added {
        r.op(name, move |a| {
            f(&a.t(0), &a.t(1), &a.t(2), a.f64_or("beta", 1.0), a.f64_or("alpha", 1.0))
        })
        .half(8.0)
        .without(&[DType::Bool], "truth values are no numbers")
        .skip("fractions of integers", |a| {
            let whole = |k: &'static str| a.f64_or(k, 1.0).fract() == 0.0;
            !(a.dtype().is_float() || whole("alpha") && whole("beta"))
        })
        .skip("complex factors", |a| {
            let complex = |k: &'static str| matches!(a.get(k), Value::Complex(..));
            complex("alpha") || complex("beta")
        });
    }
    r.op("kron", |a| a.t(0).kron(&a.t(1)));
    r.op("cross", |a| {
        let (x, y) = (a.t(0), a.t(1));
        // Without a dimension, the first of three elements.
        let first = || x.shape().iter().position(|&n| n == 3).expect("three elements") as i64;
        x.cross(&y, a.opt_i64("dim").unwrap_or_else(first))
    });
    r.op("linalg.cross", |a| a.t(0).cross(&a.t(1), a.i64_or("dim", -1)));
    r.op("linalg.vecdot", |a| a.t(0).vecdot(&a.t(1), a.i64_or("dim", -1)));
    r.op("cdist", |a| {
        a.ignore(3);
        a.t(0).cdist(&a.t(1), a.f64_or((2, "p"), 2.0))
    })
    // PyTorch finds Euclidean distances from products of matrices, where rows are many.
    .within(Tolerance { own: 64.0, largest: 16.0, one: 0.0 });
    r.op("tensordot", |a| {
        let (x, y) = (a.t(0), a.t(1));
        match a.get((2, "dims")) {
            Value::Int(n) => {
                let left: Vec<i64> = (x.rank() as i64 - n..x.rank() as i64).collect();
                let right: Vec<i64> = (0..*n).collect();
                sinter::tensordot(&x, &y, &left, &right)
            }
            Value::List(l) => {
                let axes = |v: &Value| -> Vec<i64> {
                    let Value::List(l) = v else { panic!("two lists") };
                    l.iter().map(|v| if let Value::Int(i) = v { *i } else { 0 }).collect()
                };
                sinter::tensordot(&x, &y, &axes(&l[0]), &axes(&l[1]))
            }
            v => panic!("{v:?} are no dimensions"),
        }
    });
    r.op("einsum", |a: &Args| {
        let ts = a.ts(0);
        sinter::einsum(a.str_or(1, ""), &ts.iter().collect::<Vec<_>>())
    })
    .without(
        &[DType::I32, DType::U8, DType::I8],
        "PyTorch widens integers where there is one operand",
    );
}
