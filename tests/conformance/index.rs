//! By index.

use crate::args::{Args, Either, Value, skip};
use crate::registry::Registry;
use sinter::{DType, Ellipsis, IndexItem, NewAxis, ScatterReduce, Tensor};

const NUMBER: &str = "complex numbers without dimensions, along one";
const TRUTH: &str = "truth values are no numbers";

fn reduce(name: &str) -> ScatterReduce {
    match name {
        "sum" | "add" => ScatterReduce::Sum,
        "prod" | "multiply" => ScatterReduce::Prod,
        "mean" => ScatterReduce::Mean,
        "amax" => ScatterReduce::Amax,
        "amin" => ScatterReduce::Amin,
        other => panic!("reduce by {other}"),
    }
}

/// An item of an index as Sinter writes it.
fn item(a: &Args, v: &Value) -> IndexItem {
    match v {
        Value::None => NewAxis.into(),
        Value::Ellipsis => Ellipsis.into(),
        Value::Int(i) => (*i).into(),
        Value::Tensor(i) => (&a.tensors[*i]).into(),
        Value::Slice(s) => {
            let part = |v: &Value| match v {
                Value::Int(i) => Some(*i),
                _ => None,
            };
            sinter::s(part(&s[0]), part(&s[1]), part(&s[2]).unwrap_or(1) as usize)
        }
        Value::List(l) if l.iter().all(|v| matches!(v, Value::Int(_))) => {
            let at = |v: &Value| if let Value::Int(i) = v { *i } else { 0 };
            l.iter().map(at).collect::<Vec<i64>>().into()
        }
        other => panic!("{other:?} is no index"),
    }
}

fn items(a: &Args, v: &Value) -> Vec<IndexItem> {
    match v {
        Value::List(l) => l.iter().map(|v| item(a, v)).collect(),
        v => vec![item(a, v)],
    }
}

pub fn register(r: &mut Registry) {
    r.op("gather", |a| a.t(0).gather(a.i64(1), &a.t(2)))
        .skip("an empty index of another number of dimensions", |a| {
            a.t(2).numel() == 0 && a.t(2).rank() != a.t(0).rank()
        });
    r.op("index_select", |a| a.t(0).index_select(a.i64(1), &a.t(2)));
    r.op("masked_select", |a| a.t(0).masked_select(&a.t(1)));
    r.op("scatter_add", |a| a.t(0).scatter_add(a.i64(1), &a.t(2), &a.t(3)))
        .skip(NUMBER, |a| a.t(0).is_complex() && a.t(0).rank() == 0)
        .without(&[DType::Bool], TRUTH);
    r.op("where", |a| a.t(1).where_(&a.t(0), a.operand(2)));
    r.op("nonzero", |a| {
        if a.bool_or("as_tuple", false) { a.t(0).nonzero_tuple() } else { vec![a.t(0).nonzero()] }
    });
    r.op("argwhere", |a| a.t(0).argwhere());
    r.op("__getitem__", |a| a.t(0).i(items(a, a.get(1)).as_slice()));
    r.op("index_put", |a| {
        let accumulate = a.bool_or((3, "accumulate"), false);
        a.t(0).index_put(items(a, a.get(1)).as_slice(), a.t(2), accumulate)
    })
    .skip(TRUTH, |a| a.dtype() == DType::Bool && a.bool_or((3, "accumulate"), false));
    r.op("take", |a| a.t(0).take(&a.t(1)));
    r.op("take_along_dim", |a| match a.opt_i64((2, "dim")) {
        Some(d) => a.t(0).take_along_dim(&a.t(1), d),
        None => a.t(0).take_along(&a.t(1)),
    });
    r.op("put", |a| a.t(0).put(&a.t(1), &a.t(2), a.bool_or((3, "accumulate"), false)))
        .skip(TRUTH, |a| a.dtype() == DType::Bool && a.bool_or((3, "accumulate"), false));
    r.op("index_add", |a| {
        let values = a.t(3);
        let values = match a.opt_scalar("alpha") {
            Some(s) => (&values * s).to_dtype(values.dtype()),
            None => values,
        };
        a.t(0).index_add(a.i64(1), &a.t(2), &values)
    })
    .skip(NUMBER, |a| a.t(0).is_complex() && a.t(0).rank() == 0)
    .without(&[DType::Bool], TRUTH);
    r.op("index_copy", |a| a.t(0).index_copy(a.i64(1), &a.t(2), &a.t(3)));
    r.op("index_fill", |a| match a.operand(3) {
        Either::Number(n) => a.t(0).index_fill(a.i64(1), &a.t(2), n),
        Either::Tensor(t) if t.requires_grad() => skip("a fill that is itself differentiated"),
        Either::Tensor(t) => a.t(0).index_fill(a.i64(1), &a.t(2), t.item_scalar()),
    });
    for kind in ["mean", "prod", "amin", "amax"] {
        let name: &'static str = match kind {
            "mean" => "index_reduce.mean",
            "prod" => "index_reduce.prod",
            "amin" => "index_reduce.amin",
            _ => "index_reduce.amax",
        };
        r.op(name, |a| {
            let kind = reduce(a.str_or(4, ""));
            a.t(0).index_reduce(a.i64(1), &a.t(2), &a.t(3), kind, a.bool_or("include_self", true))
        });
    }
    for name in [
        "scatter_reduce.sum",
        "scatter_reduce.prod",
        "scatter_reduce.mean",
        "scatter_reduce.amin",
        "scatter_reduce.amax",
    ] {
        r.op(name, |a| {
            let kind = reduce(a.str_or(4, ""));
            a.t(0).scatter_reduce(a.i64(1), &a.t(2), &a.t(3), kind, a.bool_or("include_self", true))
        })
        .without(&[DType::Bool], TRUTH);
    }
    r.op("scatter", |a| {
        let (x, index) = (a.t(0), a.t(2));
        let values = match a.operand(3) {
            Either::Tensor(t) => t,
            Either::Number(n) => sinter::full(index.shape(), n, x.dtype()),
        };
        match a.opt_str("reduce") {
            None => x.scatter(a.i64(1), &index, &values),
            Some(kind) => x.scatter_reduce(a.i64(1), &index, &values, reduce(kind), true),
        }
    })
    .skip(TRUTH, |a| a.dtype() == DType::Bool && a.has("reduce"));
    r.op("masked_fill", |a| match a.operand(2) {
        Either::Number(n) => a.t(0).masked_fill(&a.t(1), n),
        Either::Tensor(t) => a.t(1).where_(&t.to_dtype(a.t(0).dtype()), a.t(0)),
    });
    r.op("masked_scatter", |a| a.t(0).masked_scatter(&a.t(1), &a.t(2)));
    r.op("nonzero_static", |a| a.t(0).nonzero_static(a.usize("size"), a.i64_or("fill_value", -1)));
    r.op("unravel_index", |a| a.t(0).unravel_index(a.ints(1))).without(
        &[DType::I32, DType::U8, DType::I8],
        "the indices have the type of what they come from",
    );
    // Where the mask is false an index may be anything.
    let masked = |a: &Args| -> Vec<IndexItem> {
        let hidden = a.t(1).logical_not();
        let one = |t: Tensor| {
            let all = sinter::broadcast_tensors(&[&t, &hidden]);
            (&all[0].masked_fill(&all[1], 0)).into()
        };
        a.ts(2).into_iter().map(one).collect()
    };
    r.composite("_unsafe_masked_index", "an index and where", move |a| {
        let found = a.t(0).i(masked(a).as_slice());
        found.masked_fill(&a.t(1).logical_not(), a.scalar(3))
    });
    r.composite("_unsafe_masked_index_put_accumulate", "where and index_put", move |a| {
        let values = a.t(3).masked_fill(&a.t(1).logical_not(), 0);
        a.t(0).index_put(masked(a).as_slice(), values, true)
    })
    .without(&[DType::Bool], TRUTH);
}
