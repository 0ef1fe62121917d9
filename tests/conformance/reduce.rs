//! Reductions and scans, sorting and what is made of it.

use crate::args::{Args, Either, Value, skip};
use crate::registry::Registry;
use sinter::{DType, Interpolation, Tensor};
use sinter_tests::Tolerance;

/// The dimensions that a reduction is over: those named, else all.
pub fn dims(a: &Args, x: &Tensor) -> Vec<i64> {
    let named = a.opt_ints((1, "dim"));
    named.filter(|d| !d.is_empty()).unwrap_or_else(|| (0..x.rank() as i64).collect())
}

const WRAPS: &str = "numbers of 8 bits, which PyTorch lets wrap around";

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
        .without(&[DType::U8], "PyTorch gives u8 for u8, from before it had bool");
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
    r.op("cumprod", |a| typed(a).cumprod(a.i64(1))).real();
    r.op("softmax", |a| typed(a).softmax(a.i64(1)));
    r.op("softmax.with_dtype", |a| typed(a).softmax(a.i64(1)));
    r.op("log_softmax", |a| typed(a).log_softmax(a.i64(1)));
    r.op("log_softmax.with_dtype", |a| typed(a).log_softmax(a.i64(1)));
    r.composite("_softmax_backward_data", "`(g - Σ g y) y`", |a| {
        let (g, y, d) = (a.t(0), a.t(1), a.i64(2));
        a.ignore(3);
        if y.rank() == 0 { (&g - &g * &y) * &y } else { (&g - (&g * &y).sum_dim(d, true)) * &y }
    })
    .within(Tolerance { one: 16.0, ..Tolerance::units(8.0) }) // a difference
    .half(8.0);
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
    statistics(r);
    order(r);
    segments(r);
}

fn statistics(r: &mut Registry) {
    r.op("nansum", |a| {
        let x = typed(a);
        x.nansum_dim(dims(a, &x), keep(a))
    });
    r.op("nanmean", |a| {
        let x = typed(a);
        x.nanmean_dim(dims(a, &x), keep(a))
    });
    r.op("count_nonzero", |a| {
        let x = a.t(0);
        x.count_nonzero_dim(dims(a, &x))
    });
    r.op("aminmax", |a| match a.opt_i64("dim") {
        None if a.bool_or("keepdim", false) => {
            let x = a.t(0);
            x.aminmax_dim(dims(a, &x), true)
        }
        None => a.t(0).aminmax(),
        Some(d) => a.t(0).aminmax_dim(d, keep(a)),
    });
    for name in ["var", "std", "var.unbiased", "std.unbiased"] {
        r.op(name, move |a| {
            let (x, dims, c) = spread(a);
            if name.starts_with("var") {
                x.var_dim(dims, c, keep(a))
            } else {
                x.std_dim(dims, c, keep(a))
            }
        })
        .half(4.0);
    }
    for name in ["var_mean", "std_mean", "var_mean.unbiased", "std_mean.unbiased"] {
        r.op(name, move |a| {
            let (x, dims, c) = spread(a);
            if name.starts_with("var") {
                x.var_mean_dim(dims, c, keep(a))
            } else {
                x.std_mean_dim(dims, c, keep(a))
            }
        })
        .half(4.0);
    }
    r.op("logsumexp", |a| {
        let x = a.t(0);
        x.logsumexp(dims(a, &x), keep(a))
    })
    .real();
    r.op("norm", |a| {
        let x = a.t(0);
        x.norm_dim(a.f64_or((1, "p"), 2.0), axes(a, 2, &x), a.bool_or((3, "keepdim"), false))
    });
    r.op("norm.inf", |a| {
        let x = a.t(0);
        x.norm_dim(a.f64_or((1, "p"), 2.0), axes(a, 2, &x), a.bool_or((3, "keepdim"), false))
    });
    r.composite("norm.fro", "norm", |a| {
        let x = a.t(0);
        assert_eq!(a.str_or((1, "p"), "fro"), "fro");
        x.norm_dim(2.0, axes(a, 2, &x), a.bool_or((3, "keepdim"), false))
    });
    r.op("dist", |a| a.t(0).dist(&a.t(1), a.f64_or((2, "p"), 2.0)));
    r.op("renorm", |a| a.t(0).renorm(a.f64(1), a.i64(2), a.f64(3)));
    r.op("cummax", |a| a.t(0).cummax(a.i64(1)));
    r.op("cummin", |a| a.t(0).cummin(a.i64(1)));
    r.op("logcumsumexp", |a| a.t(0).logcumsumexp(a.i64(1))).real();
    r.op("diff", |a| {
        let (before, after) = (a.opt_t((3, "prepend")), a.opt_t((4, "append")));
        let (n, d) = (a.i64_or((1, "n"), 1) as usize, a.i64_or((2, "dim"), -1));
        a.t(0).diff_with(n, d, before.as_ref(), after.as_ref())
    });
    for name in ["trapezoid", "trapz"] {
        r.op(name, |a| match a.opt_t((1, "x")) {
            None => a.t(0).trapezoid(a.f64_or("dx", 1.0), a.i64_or("dim", -1)),
            Some(x) => a.t(0).trapezoid_at(&x, a.i64_or("dim", -1)),
        })
        .without(&[DType::U8, DType::I8], WRAPS)
        .half(4.0);
    }
    r.op("cumulative_trapezoid", |a| match a.opt_t((1, "x")) {
        None => a.t(0).cumulative_trapezoid(a.f64_or("dx", 1.0), a.i64_or("dim", -1)),
        Some(x) => a.t(0).cumulative_trapezoid_at(&x, a.i64_or("dim", -1)),
    })
    .without(&[DType::U8, DType::I8], WRAPS)
    .half(4.0);
    r.op("gradient", |a| {
        let x = a.t(0);
        let dims = a.opt_ints("dim").unwrap_or_else(|| (0..x.rank() as i64).collect());
        let order = a.i64_or("edge_order", 1) as usize;
        match a.get("spacing") {
            Value::None => x.gradient(1.0, dims, order),
            Value::Int(_) | Value::Float(_) => x.gradient(a.f64("spacing"), dims, order),
            Value::List(l) if l.iter().all(|v| matches!(v, Value::Tensor(_))) => {
                let at = a.ts("spacing");
                x.gradient_at(&at.iter().collect::<Vec<_>>(), dims, order)
            }
            _ => {
                let widths = a.opt_floats("spacing").expect("numbers");
                let mut all = Vec::new();
                for (w, d) in widths.iter().zip(&dims) {
                    all.extend(x.gradient(*w, *d, order));
                }
                all
            }
        }
    })
    .half(4.0);
    r.op("cov", |a| {
        let (f, w) = (a.opt_t("fweights"), a.opt_t("aweights"));
        let c = a.t(0).cov_weighted(a.i64_or("correction", 1), f.as_ref(), w.as_ref());
        // PyTorch drops the dimensions of a single variable.
        if c.numel() == 1 { c.reshape(()) } else { c }
    })
    .skip("weights in f32 beside another type, which PyTorch takes as they are", |a| {
        a.dtype() != DType::F32 && a.tensors.iter().any(|t| t.dtype() == DType::F32)
    })
    .half(8.0);
    r.op("corrcoef", |a| {
        let c = a.t(0).corrcoef();
        if c.numel() == 1 { c.reshape(()) } else { c }
    })
    .half(8.0);
}

/// Operand, dimensions and correction of a variance.
fn spread(a: &Args) -> (Tensor, Vec<i64>, usize) {
    let x = a.t(0);
    let c = match (a.get(1), a.get(2)) {
        // (x, unbiased) and (x, dims, unbiased)
        (Value::Bool(u), _) | (_, Value::Bool(u)) => f64::from(u8::from(*u)),
        _ => match a.get("unbiased") {
            Value::Bool(u) => f64::from(u8::from(*u)),
            _ => a.f64_or("correction", 1.0),
        },
    };
    if c.fract() != 0.0 || c < 0.0 {
        skip("corrections that are fractions or negative");
    }
    let named = match a.get((1, "dim")) {
        Value::Bool(_) => None,
        _ => a.opt_ints((1, "dim")),
    };
    let all = || (0..x.rank() as i64).collect();
    (x.clone(), named.filter(|d| !d.is_empty()).unwrap_or_else(all), c as usize)
}

/// The dimensions at a place, else all.
fn axes(a: &Args, at: usize, x: &Tensor) -> Vec<i64> {
    let named = a.opt_ints((at, "dim"));
    named.filter(|d| !d.is_empty()).unwrap_or_else(|| (0..x.rank() as i64).collect())
}

fn interpolation(name: &str) -> Interpolation {
    match name {
        "linear" => Interpolation::Linear,
        "lower" => Interpolation::Lower,
        "higher" => Interpolation::Higher,
        "midpoint" => Interpolation::Midpoint,
        _ => Interpolation::Nearest,
    }
}

/// The values of a search, and what its indices point at.
fn pointed(x: &Tensor, d: i64, keep: bool, (values, at): (Tensor, Tensor)) -> Vec<Tensor> {
    let x = x.detach();
    if x.rank() == 0 {
        return vec![values, x];
    }
    let at = if keep { at } else { at.unsqueeze(d) };
    let found = x.gather(d, &at);
    vec![values, if keep { found } else { found.squeeze(d) }]
}

/// Reductions of pieces of the first dimension.
fn segments(r: &mut Registry) {
    for name in ["_segment_reduce.lengths", "_segment_reduce.offsets"] {
        r.composite(name, "split_sizes and reductions", |a| {
            a.ignore("unsafe");
            let (x, axis) = (a.t(0), a.i64_or("axis", 0));
            let lengths = match a.opt_t("lengths") {
                Some(l) => l,
                None => {
                    let o = a.t("offsets");
                    let n = o.size(-1);
                    o.narrow(-1, 1, n - 1) - o.narrow(-1, 0, n - 1)
                }
            };
            if lengths.rank() != 1 || axis != 0 {
                skip("pieces of several rows");
            }
            let sizes: Vec<usize> =
                lengths.to_vec::<i64>().into_iter().map(|n| n as usize).collect();
            // What is left over belongs to no piece.
            let x = x.narrow(0, 0, sizes.iter().sum());
            let initial = a.opt_f64("initial");
            let kind = a.str_or(1, "sum");
            let mut all = Vec::new();
            for piece in x.split_sizes(&sizes, 0) {
                let with = |or: f64| initial.unwrap_or(or);
                let empty = piece.size(0) == 0;
                let start = |v: f64| sinter::full(&piece.shape()[1..], v, piece.dtype());
                all.push(match kind {
                    "sum" => piece.sum_dim(0, false) + with(0.0),
                    "prod" => piece.prod_dim(0, false) * with(1.0),
                    "mean" if empty => start(with(f64::NAN)),
                    "mean" => (piece.sum_dim(0, false) + with(0.0)) / sizes[all.len()] as f64,
                    "max" if empty => start(with(f64::NEG_INFINITY)),
                    "max" => piece.amax(0, false).maximum(with(f64::NEG_INFINITY)),
                    "min" if empty => start(with(f64::INFINITY)),
                    _ => piece.amin(0, false).minimum(with(f64::INFINITY)),
                });
            }
            sinter::stack(&all.iter().collect::<Vec<_>>(), 0)
        })
        .half(8.0);
    }
}

fn order(r: &mut Registry) {
    r.op("msort", |a| a.t(0).msort());
    r.op("kthvalue", |a| {
        let (x, d, keep) = (a.t(0), a.i64_or((2, "dim"), -1), a.bool_or((3, "keepdim"), false));
        pointed(&x, d, keep, x.kthvalue(a.usize((1, "k")), d, keep))
    });
    r.op("mode", |a| {
        let (x, d, keep) = (a.t(0), a.i64_or((1, "dim"), -1), a.bool_or((2, "keepdim"), false));
        pointed(&x, d, keep, x.mode(d, keep))
    });
    for name in ["median", "nanmedian"] {
        r.op(name, move |a| {
            let (x, keep) = (a.t(0), a.bool_or((2, "keepdim"), false));
            match (a.opt_i64((1, "dim")), name == "median") {
                (None, true) => vec![x.median()],
                (None, false) => vec![x.nanmedian()],
                (Some(d), true) => pointed(&x, d, keep, x.median_dim(d, keep)),
                (Some(d), false) => pointed(&x, d, keep, x.nanmedian_dim(d, keep)),
            }
        });
    }
    for name in ["quantile", "nanquantile"] {
        r.op(name, move |a| {
            let x = a.t(0);
            let q = match a.operand((1, "q")) {
                Either::Tensor(t) => t,
                Either::Number(n) => sinter::scalar(n, x.dtype()),
            };
            let keep = a.bool_or("keepdim", false);
            let kind = interpolation(a.str_or("interpolation", "linear"));
            let (x, d) = match a.opt_i64("dim") {
                Some(d) => (x, d),
                None if keep => skip("all dimensions reduced and kept"),
                None => (x.reshape([-1]), 0),
            };
            let x = if x.rank() == 0 { x.reshape([1]) } else { x };
            if name == "quantile" {
                x.quantile(&q, d, keep && a.t(0).rank() > 0, kind)
            } else {
                x.nanquantile(&q, d, keep && a.t(0).rank() > 0, kind)
            }
        });
    }
    let unique = |a: &Args, u: sinter::Unique| {
        let mut all = vec![u.values];
        if a.bool_or("return_inverse", false) {
            all.push(u.inverse);
        }
        if a.bool_or("return_counts", false) {
            all.push(u.counts);
        }
        all
    };
    r.op("unique", move |a| {
        if !a.bool_or("sorted", true) {
            a.ignore("sorted"); // any order is right; PyTorch's is this one, too
        }
        let x = a.t(0);
        unique(a, a.opt_i64("dim").map_or_else(|| x.unique(), |d| x.unique_dim(d)))
    });
    r.op("unique_consecutive", move |a| {
        let x = a.t(0);
        let d = a.opt_i64("dim");
        unique(a, d.map_or_else(|| x.unique_consecutive(), |d| x.unique_consecutive_dim(d)))
    });
    r.op("bincount", |a| {
        let w = a.opt_t((1, "weights"));
        a.t(0).bincount(w.as_ref(), a.i64_or((2, "minlength"), 0) as usize)
    });
    r.op("histc", |a| {
        let (low, high) = (a.f64_or((2, "min"), 0.0), a.f64_or((3, "max"), 0.0));
        a.t(0).histc(a.i64_or((1, "bins"), 100) as usize, low, high)
    })
    .without(&[DType::BF16], "bins that are finer than the type");
    r.op("histogram", |a| {
        let (w, density) = (a.opt_t("weight"), a.bool_or("density", false));
        match a.get((1, "bins")) {
            Value::Tensor(_) => {
                let edges = a.t((1, "bins"));
                (a.t(0).histogram(&edges, w.as_ref(), density), edges)
            }
            _ => {
                let range = a.opt_floats("range").map(|r| (r[0], r[1]));
                a.t(0).histogram_bins(a.usize((1, "bins")), range, w.as_ref(), density)
            }
        }
    })
    // Sums of weights of either sign.
    .within(Tolerance { own: 64.0, largest: 64.0, one: 0.0 });
    r.op("histogramdd", |a| {
        let (x, w) = (a.t(0), a.opt_t("weight"));
        let edges: Vec<Tensor> = match a.get((1, "bins")) {
            Value::List(l) if l.iter().all(|v| matches!(v, Value::Tensor(_))) => a.ts((1, "bins")),
            _ => {
                let (bins, range) = (a.ints((1, "bins")), a.opt_floats("range"));
                let d = x.size(-1);
                let bins = if bins.len() == 1 { vec![bins[0]; d] } else { bins };
                (0..d)
                    .map(|i| {
                        let column = x.select(-1, i as i64).reshape([-1]);
                        let range = range.as_ref().map(|r| (r[2 * i], r[2 * i + 1]));
                        column.histogram_bins(bins[i] as usize, range, None, false).1
                    })
                    .collect()
            }
        };
        let refs: Vec<&Tensor> = edges.iter().collect();
        let n = sinter::histogramdd(&x, &refs, w.as_ref(), a.bool_or("density", false));
        [vec![n], edges].concat()
    })
    .within(Tolerance { own: 64.0, largest: 64.0, one: 0.0 });
    let placed = |a: &Args, at: Tensor| {
        if a.bool_or("out_int32", false) { at.to_dtype(DType::I32) } else { at }
    };
    r.op("bucketize", move |a| {
        placed(a, a.operand(0).tensor().bucketize(&a.t(1), a.bool_or("right", false)))
    });
    r.op("searchsorted", move |a| {
        if a.has("sorter") {
            skip("a sequence that is sorted by another");
        }
        let right = a.bool_or("right", false) || a.opt_str("side") == Some("right");
        let sorted = a.t(0);
        let values = match a.operand(1) {
            Either::Tensor(t) => t,
            Either::Number(n) => sinter::scalar(n, sorted.dtype()),
        };
        placed(a, sinter::searchsorted(&sorted, &values, right))
    });
}
