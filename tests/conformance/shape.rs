//! Making tensors, shapes and views.

use crate::args::{Args, Value, skip};
use crate::registry::Registry;
use sinter::{
    DType, Indexing, Tensor, TensorOptions, cat, full, full_like, ones_like, stack, zeros_like,
};
use sinter_runtime::Category;

pub fn register(r: &mut Registry) {
    r.op("reshape", |a| a.t(0).reshape(a.rest_ints(1)));
    r.op("reshape_as", |a| a.t(0).reshape_as(&a.t(1)));
    r.op("view", |a| a.t(0).view(a.rest_ints(1))).dense();
    r.composite("view_copy", "reshape and copy", |a| a.t(0).reshape(a.rest_ints(1)).copy());
    r.op("view_as", |a| a.t(0).view_as(&a.t(1))).dense();
    r.op("ravel", |a| a.t(0).ravel());
    r.op("flatten", |a| {
        a.t(0).flatten(a.i64_or((1, "start_dim"), 0), a.i64_or((2, "end_dim"), -1))
    });
    r.op("permute", |a| a.t(0).permute(a.rest_ints(1)));
    r.composite("permute_copy", "permute and copy", |a| a.t(0).permute(a.rest_ints(1)).copy());
    r.op("transpose", |a| a.t(0).transpose(a.i64(1), a.i64(2)));
    r.composite("transpose_copy", "transpose and copy", |a| {
        a.t(0).transpose(a.i64(1), a.i64(2)).copy()
    });
    r.op("unsqueeze", |a| a.t(0).unsqueeze(a.i64(1)));
    r.composite("unsqueeze_copy", "unsqueeze and copy", |a| a.t(0).unsqueeze(a.i64(1)).copy());
    r.op("broadcast_to", |a| a.t(0).broadcast_to(a.rest_ints(1)));
    r.op("expand", |a| a.t(0).expand(a.rest_ints(1)));
    r.composite("expand_copy", "expand and copy", |a| a.t(0).expand(a.rest_ints(1)).copy());
    r.op("expand_as", |a| a.t(0).expand_as(&a.t(1)));
    r.op("narrow", |a| {
        let x = a.t(0);
        let (d, start) = (a.i64(1), a.i64(2));
        let start = if start < 0 { start + x.size(d) as i64 } else { start };
        x.narrow(d, start as usize, a.usize(3))
    });
    r.composite("narrow_copy", "narrow and copy", |a| {
        let x = a.t(0);
        let (d, start) = (a.i64(1), a.i64(2));
        let start = if start < 0 { start + x.size(d) as i64 } else { start };
        x.narrow(d, start as usize, a.usize(3)).copy()
    });
    r.op("select", |a| a.t(0).select(a.i64(1), a.i64(2)));
    r.op("flip", |a| a.t(0).flip(a.ints((1, "dims"))));
    r.op("split", |a| a.t(0).split(a.usize(1), a.i64_or((2, "dim"), 0)));
    r.composite("unsafe_split", "split", |a| a.t(0).split(a.usize(1), a.i64_or((2, "dim"), 0)));
    r.op("chunk", |a| a.t(0).chunk(a.usize(1), a.i64_or((2, "dim"), 0)));
    r.composite("unsafe_chunk", "chunk", |a| a.t(0).chunk(a.usize(1), a.i64_or((2, "dim"), 0)));
    r.op("unbind", |a| a.t(0).unbind(a.i64_or((1, "dim"), 0)));
    r.composite("unbind_copy", "unbind and copy", |a| {
        let parts = a.t(0).unbind(a.i64_or((1, "dim"), 0));
        parts.iter().map(|t| t.copy()).collect::<Vec<_>>()
    });
    r.op("repeat", |a| a.t(0).repeat(a.rest_ints(1)));
    r.op("contiguous", |a| a.t(0).contiguous());
    r.op("clone", |a| a.t(0).copy());
    r.composite("alias_copy", "copy", |a| a.t(0).copy());
    r.op("t", |a| if a.t(0).rank() < 2 { a.t(0) } else { a.t(0).t() });
    r.composite("t_copy", "t and copy", |a| {
        if a.t(0).rank() < 2 { a.t(0).copy() } else { a.t(0).t().copy() }
    });
    r.op("cat", |a| {
        let ts = a.ts((0, "tensors"));
        cat(&ts.iter().collect::<Vec<_>>(), a.i64_or((1, "dim"), 0))
    })
    .skip("an empty vector among tensors of other dimensions", |a| {
        let ts = a.ts((0, "tensors"));
        ts.iter().any(|t| t.rank() != ts[0].rank())
    });
    r.op("stack", |a| {
        let ts = a.ts(0);
        stack(&ts.iter().collect::<Vec<_>>(), a.i64_or((1, "dim"), 0))
    });
    r.op("tril", |a| a.t(0).tril(a.i64_or((1, "diagonal"), 0)));
    r.op("triu", |a| a.t(0).triu(a.i64_or((1, "diagonal"), 0)));
    r.op("zeros_like", |a| zeros_like(&a.t(0)).to_dtype(a.opt_dtype("dtype").unwrap_or(a.dtype())));
    r.op("ones_like", |a| ones_like(&a.t(0)).to_dtype(a.opt_dtype("dtype").unwrap_or(a.dtype())));
    r.op("full_like", |a| {
        full_like(&a.t(0).to_dtype(a.opt_dtype("dtype").unwrap_or(a.dtype())), a.scalar(1))
    });
    let dtype = |a: &Args| a.opt_dtype("dtype").unwrap_or(a.dtype());
    r.op("full", move |a| full(a.sizes(0), a.scalar(1), dtype(a)));
    r.op("zeros", move |a| full(a.sizes(0), 0, dtype(a)));
    r.op("ones", move |a| full(a.sizes(0), 1, dtype(a)));
    r.op("new_zeros", move |a| a.t(0).new_zeros(a.sizes(1)).to_dtype(dtype(a)));
    r.op("new_ones", move |a| a.t(0).new_ones(a.sizes(1)).to_dtype(dtype(a)));
    r.op("new_full", move |a| a.t(0).to_dtype(dtype(a)).new_full(a.sizes(1), a.scalar(2)));
    r.op("scalar_tensor", move |a| sinter::scalar(a.scalar(0), dtype(a)));
    r.op("zero_", |a| a.t(0).copy().zero_().clone());
    r.op("fill", |a| a.t(0).copy().fill_(a.scalar((1, "value"))).clone());
    views(r);
    parts(r);
    joins(r);
    sources(r);
}

fn joins(r: &mut Registry) {
    r.op("atleast_1d", |a| a.all_ts().iter().map(Tensor::atleast_1d).collect::<Vec<_>>());
    r.op("atleast_2d", |a| a.all_ts().iter().map(Tensor::atleast_2d).collect::<Vec<_>>());
    r.op("atleast_3d", |a| a.all_ts().iter().map(Tensor::atleast_3d).collect::<Vec<_>>());
    r.op("tile", |a| a.t(0).tile(a.rest_ints(1)));
    type Join = fn(&[&Tensor]) -> Tensor;
    let lists: [(&'static str, Join); 6] = [
        ("hstack", sinter::hstack),
        ("vstack", sinter::vstack),
        ("dstack", sinter::dstack),
        ("column_stack", sinter::column_stack),
        ("block_diag", sinter::block_diag),
        ("cartesian_prod", sinter::cartesian_prod),
    ];
    for (name, f) in lists {
        r.op(name, move |a| f(&a.all_ts().iter().collect::<Vec<_>>()));
    }
    for name in ["meshgrid.variadic_tensors", "meshgrid.list_of_tensors"] {
        r.op(name, |a| {
            let indexing = match a.str_or("indexing", "ij") {
                "ij" => Indexing::Ij,
                _ => Indexing::Xy,
            };
            sinter::meshgrid(&a.all_ts().iter().collect::<Vec<_>>(), indexing)
        });
    }
    r.composite("_chunk_cat", "pad, reshape and cat", |a| {
        let (ts, dim, n) = (a.ts(0), a.i64(1), a.usize(2));
        let mut parts = Vec::new();
        for t in &ts {
            let axis = if dim < 0 { (dim + t.rank() as i64) as usize } else { dim as usize };
            let each = t.shape()[axis].div_ceil(n);
            let mut widths = vec![(0, 0); t.rank()];
            widths[axis].1 = each * n - t.shape()[axis];
            let mut shape = t.shape()[..axis].to_vec();
            shape.extend([n, each * t.shape()[axis + 1..].iter().product::<usize>()]);
            parts.push(t.pad(&widths, 0).reshape(shape));
        }
        cat(&parts.iter().collect::<Vec<_>>(), -1)
    });
    r.op("combinations", |a| {
        a.t(0).combinations(a.i64_or("r", 2) as usize, a.bool_or("with_replacement", false))
    });
}

/// A number that may be given as a tensor.
fn number(a: &Args, key: impl crate::args::Key) -> f64 {
    a.f64(key)
}

fn sources(r: &mut Registry) {
    let dtype = |a: &Args| a.opt_dtype("dtype").unwrap_or(a.dtype());
    r.op("eye", move |a| {
        let n = a.usize(0);
        match a.opt_i64((1, "m")) {
            Some(m) if m as usize != n => skip("an identity that is not square"),
            _ => TensorOptions::new().dtype(dtype(a)).eye(n),
        }
    });
    for name in ["linspace", "linspace.tensor_overload"] {
        r.op(name, move |a| {
            let n = a.usize((2, "steps"));
            let d = a.opt_dtype("dtype").unwrap_or(DType::F32);
            TensorOptions::new().dtype(d).linspace(number(a, 0), number(a, 1), n)
        })
        .without(&[DType::I64, DType::I32, DType::U8], "numbers that are cut to integers")
        .half(2.0);
    }
    for name in ["logspace", "logspace.tensor_overload"] {
        r.op(name, move |a| {
            let (n, base) = (a.usize((2, "steps")), a.f64_or((3, "base"), 10.0));
            let d = a.opt_dtype("dtype").unwrap_or(DType::F32);
            TensorOptions::new().dtype(d).logspace(number(a, 0), number(a, 1), n, base)
        })
        .without(&[DType::I64, DType::I32, DType::U8], "numbers that are cut to integers")
        .half(2.0);
    }
    r.op("arange", move |a| {
        let (start, end, step) = match a.len() + usize::from(a.has("end")) {
            1 => (0.0, a.f64(0), 1.0),
            _ => (a.f64(0), a.f64((1, "end")), a.f64_or((2, "step"), 1.0)),
        };
        let d = a.opt_dtype("dtype").unwrap_or(DType::I64);
        if d.category() == Category::Int && step.fract() != 0.0 {
            skip("integers by steps that are none");
        }
        if d == DType::U8 && start < 0.0 {
            skip("numbers that the type cannot hold");
        }
        TensorOptions::new().dtype(d).arange(start, end, step)
    });
    r.op("tril_indices", |a| {
        let at = sinter::tril_indices(a.usize(0), a.usize(1), a.i64_or((2, "offset"), 0));
        at.to_dtype(a.opt_dtype("dtype").unwrap_or(DType::I64))
    });
    r.op("triu_indices", |a| {
        let at = sinter::triu_indices(a.usize(0), a.usize(1), a.i64_or((2, "offset"), 0));
        at.to_dtype(a.opt_dtype("dtype").unwrap_or(DType::I64))
    });
}

/// `diagonal(offset, dim1, dim2)`, however they are given.
fn diagonal(a: &Args, from: usize) -> (i64, i64, i64) {
    let at = |i: usize, name: &'static str, or: i64| a.i64_or((from + i, name), or);
    (at(0, "offset", 0), at(1, "dim1", 0), at(2, "dim2", 1))
}

fn views(r: &mut Registry) {
    r.op("diagonal", |a| {
        let (o, d, e) = diagonal(a, 1);
        a.t(0).diagonal(o, d, e)
    });
    r.composite("diagonal_copy", "diagonal and copy", |a| {
        let (o, d, e) = diagonal(a, 1);
        a.t(0).diagonal(o, d, e).copy()
    });
    r.composite("linalg.diagonal", "diagonal", |a| {
        let o = a.i64_or("offset", 0);
        a.t(0).diagonal(o, a.i64_or("dim1", -2), a.i64_or("dim2", -1))
    });
    r.op("diagonal_scatter", |a| {
        let (o, d, e) = diagonal(a, 2);
        a.t(0).diagonal_scatter(&a.t(1), o, d, e)
    });
    r.op("diag", |a| a.t(0).diag(a.i64_or((1, "diagonal"), 0)));
    r.op("diag_embed", |a| {
        let (d, e) = (a.i64_or((2, "dim1"), -2), a.i64_or((3, "dim2"), -1));
        a.t(0).diag_embed(a.i64_or((1, "offset"), 0), d, e)
    });
    r.op("diagflat", |a| a.t(0).diagflat(a.i64_or((1, "offset"), 0)));
    r.op("trace", |a| a.t(0).trace());
    r.op("unfold", |a| a.t(0).unfold(a.i64(1), a.usize(2), a.usize(3)));
    r.composite("unfold_copy", "unfold and copy", |a| {
        a.t(0).unfold(a.i64(1), a.usize(2), a.usize(3)).copy()
    });
    for name in ["as_strided", "as_strided.partial_views", "as_strided_copy"] {
        r.op(name, |a| {
            let offset = a.opt_i64((3, "storage_offset")).map(|o| o as usize);
            a.t(0).as_strided(a.ints(1), a.ints(2), offset)
        })
        .dense();
    }
    r.op("as_strided_scatter", |a| {
        let offset = a.i64_or((4, "storage_offset"), 0) as usize;
        a.t(0).as_strided_scatter(&a.t(1), a.ints(2), a.ints(3), offset)
    })
    .dense()
    .no_gradient("PyTorch's does not pass its own gradcheck");
    r.op("select_scatter", |a| a.t(0).select_scatter(&a.t(1), a.i64(2), a.i64(3)));
    r.op("slice_scatter", |a| {
        let (from, to) = (a.opt_i64((3, "start")), a.opt_i64((4, "end")));
        let step = a.i64_or((5, "step"), 1) as usize;
        a.t(0).slice_scatter(&a.t(1), a.i64_or((2, "dim"), 0), from, to, step)
    });
    r.composite("slice", "an index", |a| {
        let x = a.t(0);
        let (dim, n) = (a.i64_or((1, "dim"), 0), x.size(a.i64_or((1, "dim"), 0)) as i64);
        let clip = |v: i64| (if v < 0 { v + n } else { v }).clamp(0, n) as usize;
        let from = clip(a.i64_or((2, "start"), 0));
        let to = clip(a.i64_or((3, "end"), n)).max(from);
        x.slice(dim, from, to, a.i64_or((4, "step"), 1) as usize)
    });
    r.op("unflatten", |a| a.t(0).unflatten(a.i64(1), a.ints(2)));
    let squeeze = |a: &Args| match a.opt_ints((1, "dim")) {
        None => a.t(0).squeeze_all(),
        Some(dims) if a.t(0).rank() == 0 => {
            assert!(dims.iter().all(|d| [-1, 0].contains(d)));
            a.t(0)
        }
        Some(dims) => a.t(0).squeeze_dims(dims),
    };
    r.op("squeeze", squeeze);
    r.op("squeeze.multiple", squeeze);
    r.composite("squeeze_copy", "squeeze and copy", move |a| squeeze(a).copy());
    r.op("movedim", |a| a.t(0).movedims(a.ints(1), a.ints(2)));
    r.op("mT", |a| a.t(0).mt());
    r.composite("mH", "mt and conj", |a| a.t(0).mt().conj());
    r.composite("H", "mt and conj", |a| {
        let x = a.t(0).conj();
        if x.rank() < 2 { x } else { x.mt() }
    });
    r.composite("T", "permute", |a| {
        let x = a.t(0);
        x.permute((0..x.rank() as i64).rev().collect::<Vec<_>>())
    });
    r.op("fliplr", |a| a.t(0).fliplr());
    r.op("flipud", |a| a.t(0).flipud());
    r.op("rot90", |a| {
        let dims = a.opt_ints((2, "dims")).unwrap_or(vec![0, 1]);
        a.t(0).rot90(a.i64_or((1, "k"), 1), [dims[0], dims[1]])
    });
    r.op("roll", |a| match a.opt_ints((2, "dims")) {
        None => a.t(0).roll_all(a.i64((1, "shifts"))),
        Some(dims) => a.t(0).roll(a.ints((1, "shifts")), dims),
    });
    r.op("sum_to_size", |a| a.t(0).sum_to_size(a.rest_ints(1)))
        .without(&[DType::I32, DType::U8, DType::I8, DType::Bool], "PyTorch widens integers here");
    r.op("broadcast_tensors", |a| {
        let ts = a.all_ts();
        sinter::broadcast_tensors(&ts.iter().collect::<Vec<_>>())
    });
    r.op("broadcast_shapes", |a| {
        let shapes: Vec<Vec<usize>> = (0..a.len()).map(|i| a.sizes(i)).collect();
        let shapes: Vec<&[usize]> = shapes.iter().map(Vec::as_slice).collect();
        let shape = sinter::broadcast_shapes(&shapes);
        sinter::tensor(shape.iter().map(|&n| n as i64).collect::<Vec<_>>())
    });
}

fn parts(r: &mut Registry) {
    for name in ["split.list_args", "split_with_sizes"] {
        r.op(name, |a| a.t(0).split_sizes(&a.sizes(1), a.i64_or((2, "dim"), 0)));
    }
    r.composite("split_with_sizes_copy", "split_sizes and copy", |a| {
        let parts = a.t(0).split_sizes(&a.sizes(1), a.i64_or((2, "dim"), 0));
        parts.iter().map(|t| t.copy()).collect::<Vec<_>>()
    });
    r.op("tensor_split", |a| {
        let (x, dim) = (a.t(0), a.i64_or((2, "dim"), 0));
        match a.get(1) {
            Value::Int(n) => x.tensor_split(*n as usize, dim),
            Value::Tensor(_) if a.t(1).rank() == 0 => x.tensor_split(a.usize(1), dim),
            Value::Tensor(_) => x.tensor_split_at(&a.t(1).to_vec::<i64>(), dim),
            _ => x.tensor_split_at(&a.ints(1), dim),
        }
    });
    type Split = fn(&Tensor, usize) -> Vec<Tensor>;
    let named: [(&'static str, Split, i64); 3] = [
        ("hsplit", Tensor::hsplit, 1),
        ("vsplit", Tensor::vsplit, 0),
        ("dsplit", Tensor::dsplit, 2),
    ];
    for (name, f, dim) in named {
        r.op(name, move |a| match a.get(1) {
            Value::Int(n) => f(&a.t(0), *n as usize),
            _ => a.t(0).tensor_split_at(&a.ints(1), if a.t(0).rank() == 1 { 0 } else { dim }),
        });
    }
    r.op("repeat_interleave", |a| {
        a.ignore("output_size");
        let (x, dim) = match a.opt_i64("dim") {
            Some(d) => (a.t(0), d),
            None => (a.t(0).reshape([-1]), 0),
        };
        let x = if x.rank() == 0 { x.reshape([1]) } else { x };
        match a.get((1, "repeats")) {
            Value::Int(n) => x.repeat_interleave(*n as usize, dim),
            _ => {
                let n = a.t((1, "repeats"));
                let n = if n.numel() == 1 { n.reshape([1]).expand([x.size(dim)]) } else { n };
                x.repeat_interleave_each(&n, dim)
            }
        }
    });
}
