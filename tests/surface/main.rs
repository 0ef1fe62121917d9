//! Tensor functions that are made of ops: values of PyTorch, derivatives by differences.

use sinter::autograd::{gradcheck, gradgradcheck};
use sinter::trace::TraceError;
use sinter::{
    CompileError, Compiler, DType, Indexing, Interpolation, NewAxis, Rounding, ScatterReduce,
    Tensor, arange, block_diag, cartesian_prod, cat, chain_matmul, column_stack, dstack, einsum,
    hstack, masked, s, searchsorted, special, stack, tensordot, vstack,
};
use sinter_tests::{Table, Tolerance, compare};
use std::collections::BTreeSet;

mod functions;

use functions::{function, pair};

/// Units that the result of a function may be off: sums are added in another order, and
/// special functions are good to a few units.
fn tolerance(name: &str) -> Tolerance {
    match name {
        n if n.starts_with("einsum") => Tolerance { largest: 16.0, ..Tolerance::units(16.0) },
        "zeta" | "igamma" | "polygamma 2" => Tolerance { one: 4.0, ..Tolerance::units(256.0) },
        _ => Tolerance { one: 8.0, largest: 8.0, ..Tolerance::units(32.0) },
    }
}

/// The same elements with gaps between them, the first dimension innermost.
fn spread(tensors: &[Tensor]) -> Vec<Tensor> {
    let one = |t: &Tensor| match t.rank() {
        0 => stack(&[t, t], 0).select(0, 1),
        r => {
            let t = t.movedim(0, r as i64 - 1);
            stack(&[&t, &t], -1).select(-1, 1).movedim(r as i64 - 1, 0)
        }
    };
    tensors.iter().map(one).collect()
}

#[test]
fn values_are_those_of_pytorch() {
    let mut wrong = Vec::new();
    for case in Table::load("tensors").cases {
        let Some(f) = function(&case.what) else {
            wrong.push(format!("{}: not implemented", case.what));
            continue;
        };
        for (layout, x) in [("dense", case.tensors()), ("gaps", spread(&case.tensors()))] {
            if layout == "gaps" && case.what == "as_strided" {
                continue; // Of other memory it is something else.
            }
            let got = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| f(&x)));
            let Ok(got) = got else {
                wrong.push(format!("{} ({layout}): panicked", case.describe()));
                continue;
            };
            if got.len() != case.outputs.len() {
                wrong.push(format!("{} ({layout}): {} results", case.describe(), got.len()));
                continue;
            }
            for (i, (g, w)) in got.iter().zip(&case.outputs).enumerate() {
                if let Some(e) = compare(g.array(), w, tolerance(&case.what)) {
                    wrong.push(format!("{} result {i} ({layout}): {e}", case.describe()));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{} cases differ:\n{}", wrong.len(), wrong.join("\n"));
}

/// Which operands have no derivative: steps at the points of the table, or none at all.
fn constant_operands(name: &str) -> &'static [usize] {
    match name {
        "igamma" | "zeta" => &[0],
        n if n.contains("quantile") => &[1],
        "histogram density" | "histogramdd" | "histogram" | "histc" | "histc own" => &[0, 1, 2, 3],
        "bucketize" | "searchsorted" | "norm 0" | "cov weighted" | "isin" => &[0, 1, 2],
        // A row of one element has none: NaN.
        "masked var" | "masked std" => &[0],
        "heaviside" | "round_decimals" | "round_decimals negative" => &[0, 1],
        _ => &[],
    }
}

#[test]
fn derivatives_are_those_of_differences() {
    let mut wrong = Vec::new();
    let mut checked = BTreeSet::new();
    for case in Table::load("tensors").cases {
        let Some(f) = function(&case.what) else { continue };
        let finite = |t: &Tensor| t.isfinite().all().item_scalar().as_bool();
        let mut x = case.tensors();
        let floats = case.outputs.first().is_some_and(|o| o.dtype() == DType::F64);
        let small = x.iter().all(|t| t.numel() <= 64 && finite(t));
        if !floats || !small {
            continue;
        }
        let constants = constant_operands(&case.what);
        for (i, t) in x.iter_mut().enumerate() {
            if t.dtype() == DType::F64 && !constants.contains(&i) && t.numel() > 0 {
                *t = t.copy().requires_grad_(true);
            }
        }
        if !x.iter().any(Tensor::requires_grad) {
            continue;
        }
        // Results that are indices, or whole numbers, have no derivative.
        let with: Vec<usize> =
            f(&x).iter().enumerate().filter(|(_, y)| y.requires_grad()).map(|(i, _)| i).collect();
        if with.is_empty() {
            continue;
        }
        let g = |x: &[Tensor]| -> Vec<Tensor> {
            let y = f(x);
            with.iter().map(|&i| y[i].clone()).collect()
        };
        checked.insert(case.what.clone());
        let first = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| gradcheck(g, &x)));
        match first {
            Ok(Ok(())) => {}
            Ok(Err(e)) => wrong.push(format!("{}: {e}", case.describe())),
            Err(_) => wrong.push(format!("{}: panicked", case.describe())),
        }
        let second =
            std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| gradgradcheck(g, &x)));
        match second {
            Ok(Ok(())) => {}
            Ok(Err(e)) => wrong.push(format!("second of {}: {e}", case.describe())),
            Err(_) => wrong.push(format!("second of {}: panicked", case.describe())),
        }
    }
    assert!(wrong.is_empty(), "{} wrong:\n{}", wrong.len(), wrong.join("\n"));
    assert!(checked.len() > 100, "only {} functions were differentiated", checked.len());
}

/// Functions whose results depend on values in their shape or their course.
fn depends_on_values(name: &str) -> bool {
    let by_shape = ["unique", "mask", "bincount", "repeat_interleave each", "histc own"];
    by_shape.iter().any(|p| name.starts_with(p)) && !name.starts_with("masked ")
        || name.contains("_polynomial_")
}

/// Traced and compiled, a function gives what it gives eagerly; where its course depends
/// on values, tracing says so.
#[test]
fn compiled_functions_agree_with_eager_ones() {
    let mut wrong = Vec::new();
    for case in Table::load("tensors").cases {
        let Some(f) = function(&case.what) else { continue };
        let x = case.tensors();
        let refs: Vec<&Tensor> = x.iter().collect();
        let compiled = match Compiler::new().compile_fn(&f, &refs) {
            Ok(c) => c,
            Err(CompileError::Trace(TraceError::ValueRead { .. }))
                if depends_on_values(&case.what) =>
            {
                continue;
            }
            Err(e) => {
                wrong.push(format!("{}: {e}", case.describe()));
                continue;
            }
        };
        if depends_on_values(&case.what) {
            wrong.push(format!("{}: was traced", case.describe()));
            continue;
        }
        let got = match compiled.run(&refs) {
            Ok(got) => got,
            Err(e) => {
                wrong.push(format!("{}: {e}", case.describe()));
                continue;
            }
        };
        for (i, (g, w)) in got.iter().zip(&case.outputs).enumerate() {
            if let Some(e) = compare(g.array(), w, tolerance(&case.what)) {
                wrong.push(format!("{} result {i}, compiled: {e}", case.describe()));
            }
        }
    }
    assert!(wrong.is_empty(), "{} cases differ:\n{}", wrong.len(), wrong.join("\n"));
}

/// The error of a pairwise sum grows with the logarithm of the number of elements: that
/// of adding one after the other would be a thousand times as large here.
#[test]
fn sums_are_pairwise() {
    let mut last = 0.0;
    for power in [10, 16, 20] {
        let n = 1i64 << power;
        let x = (arange(0, n, 1).to_dtype(DType::F64) * 0.7391).sin() + 1.5;
        let x32 = x.to_dtype(DType::F32);
        let exact: f64 = x32.to_dtype(DType::F64).sum().item();
        let got: f64 = x32.sum().item();
        let error = (got - exact).abs() / exact;
        let log = f64::from(power);
        assert!(error <= log * f64::from(f32::EPSILON) / 2.0, "2^{power}: {error:e}");
        last = error.max(last);
        for axis in [0, 1] {
            let m = x32.reshape([1 << (power / 2), -1]);
            let exact = m.to_dtype(DType::F64).sum_dim(axis, false);
            let error = (m.sum_dim(axis, false).to_dtype(DType::F64) / exact - 1.0).abs().max();
            assert!(error.item::<f64>() <= log * f64::from(f32::EPSILON) / 2.0);
        }
    }
    assert!(last.is_finite());
}

#[test]
fn arrays_of_others() {
    use ndarray::{Array2, Array3, Axis, arr2, s as slice};
    use sinter::exchange::{self, from_ndarray, to_ndarray, view_ndarray};
    let a = Array2::from_shape_fn((3, 4), |(i, j)| (4 * i + j) as f32);
    let first = a.as_ptr() as usize;
    let x = Tensor::from(a.clone().reversed_axes());
    assert_eq!((x.shape(), x.strides()), (&[4, 3][..], &[1, 4][..]));
    assert_eq!(x.to_vec::<f32>()[..3], [0.0, 4.0, 8.0]);
    // The very memory of an array that is given away, which may be written.
    let x = from_ndarray(a);
    assert_eq!(x.array().block().as_ptr() as usize, first);
    x.add_(1.0);
    assert_eq!(x.select(0, 2).to_vec::<f32>(), [9.0, 10.0, 11.0, 12.0]);
    let mut b = Array3::from_shape_fn((2, 3, 2), |(i, j, k)| (6 * i + 2 * j + k) as i64);
    b.invert_axis(Axis(1));
    let b = b.slice_move(slice![.., 1.., ..]);
    let want: Vec<i64> = b.iter().copied().collect();
    let y = Tensor::from(b.view());
    let z = from_ndarray(b);
    assert_eq!((y.to_vec::<i64>(), z.to_vec::<i64>()), (want.clone(), want));
    assert_eq!(to_ndarray::<f64>(&z.flip([0])).shape(), [2, 2, 2]);
    // SAFETY: nobody writes.
    let v = unsafe { view_ndarray::<i64>(&z) };
    assert_eq!(v.iter().copied().collect::<Vec<_>>(), z.to_vec::<i64>());
    let t = x.t().flip([0, 1]);
    // SAFETY: nobody writes.
    let v = unsafe { view_ndarray::<f32>(&t) };
    assert_eq!(v.iter().copied().collect::<Vec<_>>(), t.to_vec::<f32>());
    assert_eq!(Tensor::from(arr2::<f64, 2>(&[])).shape(), [0, 2]);

    for t in [t, x.i((1.., s(0, None, 2))), x.narrow(0, 0, 0), x.select(0, 0).select(0, 0)] {
        let want = t.to_vec::<f32>();
        let sent = exchange::to_dlpack(&t).unwrap();
        let legacy = exchange::to_dlpack_legacy(&t).unwrap();
        let shape = t.shape().to_vec();
        drop(t);
        // SAFETY: made here, and nobody else writes.
        let (a, b) = unsafe {
            (exchange::from_dlpack(sent).unwrap(), exchange::from_dlpack(legacy).unwrap())
        };
        assert_eq!((a.shape(), a.to_vec::<f32>()), (&shape[..], want.clone()));
        assert_eq!(b.to_vec::<f32>(), want);
    }
    let grad = sinter::ones([2]).requires_grad_(true);
    assert!(matches!(exchange::to_dlpack(&grad), Err(exchange::ExchangeError::RequiresGrad)));
}

/// A mistake panics at the line that makes it.
#[test]
fn mistakes_are_shown_where_they_are_made() {
    use std::sync::Mutex;
    static AT: Mutex<(String, String)> = Mutex::new((String::new(), String::new()));
    let x = arange(0.0, 12.0, 1.0).reshape([3, 4]);
    let v = arange(0.0, 5.0, 1.0);
    let i = sinter::tensor([0i64, 7]);
    let b = x.gt(1.0);
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(|info| {
        let file = info.location().map_or(String::new(), |l| l.to_string());
        let text = info.payload_as_str().unwrap_or("").to_string();
        if std::thread::current().name() == Some("mistakes_are_shown_where_they_are_made") {
            *AT.lock().unwrap() = (file, text);
        }
    }));
    let mut wrong = Vec::new();
    macro_rules! mistakes {
        ($($e:expr;)*) => {$(
            let f = std::panic::AssertUnwindSafe(|| {
                let _ = $e;
            });
            let failed = std::panic::catch_unwind(f).is_err();
            let (at, text) = AT.lock().unwrap().clone();
            if !failed || !at.starts_with("tests/surface/main.rs") || text.is_empty() {
                wrong.push(format!("{}: {failed} {at} {text}", stringify!($e)));
            }
        )*};
    }
    mistakes! {
        x.diagonal(0, 1, 1); x.diagonal(0, 0, 2); x.unfold(1, 5, 1); x.unfold(0, 1, 0);
        x.as_strided([4, 4], [4, 1], None); x.as_strided([2], [1, 1], None);
        x.diagonal_scatter(&v, 0, 0, 1); x.select_scatter(&v, 0, 3); x.select_scatter(&v, 0, 0);
        x.slice_scatter(&v, 0, 0, 2, 1); x.as_strided_scatter(&v, [5], [3], 0);
        x.put(&i, &v, false); x.put(&sinter::tensor([0i64, 12]), &v.narrow(0, 0, 2), true);
        x.t().view([12]); x.expand([2, 4]); x.sum_to_size([2, 4]); x.unflatten(1, [3, -1]);
        x.movedims([0, 0], [0, 1]); x.roll([1, 2], [0]); x.rot90(1, [0, 0]); x.split_sizes(&[1, 1], 0);
        x.tensor_split(0, 0); x.hsplit(3); x.vsplit(2); x.dsplit(1); x.diag(0).diag_embed(0, 1, 1);
        v.trace(); v.mt(); v.fliplr(); x.repeat_interleave_each(&i, 1);
        x.i((0, 0, 0)); x.i((3, 0)); x.i(&i); x.i((.., &i)); x.i(&v); x.i((&b, 0)); x.i(b.narrow(0, 0, 2));
        x.i((&i, &sinter::tensor([0i64, 1, 2]))); x.index_put(0, &v, false); x.index_put(&i, 1.0, true);
        x.index_select(0, &i); x.gather(0, &i); x.take(&sinter::tensor([12i64]));
        x.take_along_dim(&i, 0); x.index_copy(0, &i, &x.narrow(0, 0, 2)); x.index_fill(0, &i, 1.0);
        x.index_copy(0, &i, &x);
        x.scatter_reduce(0, &i, &v, ScatterReduce::Prod, true);
        x.scatter_reduce(0, &sinter::tensor([[0i64, 7]]), &x, ScatterReduce::Amax, true);
        x.scatter_reduce(0, &sinter::tensor([[0i64, 7]]), &x, ScatterReduce::Mean, false);
        x.index_reduce(0, &i, &x, ScatterReduce::Amin, true); x.masked_scatter(&b, &v);
        x.addcmul(&v, &v, 2.0); x.addcdiv(&x, &v, 1.0); x.lerp(&v, 0.5); x.clamp_tensor(None, None);
        x.clamp_tensor(Some(&v), None); x.fmax(&v); x.fmod(&v); x.gcd(&x); x.logaddexp(&v); x.xlogy(&v);
        x.isclose(&i, 0.0, 0.0, false); x.equal(&i); b.frexp(); x.nextafter(&v); x.lcm(&x);
        i.floor_divide(0); i.div_rounding(0, Rounding::Trunc); x.heaviside(&v); x.masked_fill_tensor(&b, &v);
        x.nansum_dim(2, false); x.nanmean_dim([0, 0], false); x.aminmax_dim(2, false); i.norm_dim(2.0, 0, false);
        x.norm_dim(3.0, 2, false); x.renorm(2.0, 2, 1.0); x.cummax(2); x.cummin(-3); x.logcumsumexp(2);
        i.logcumsumexp(0).logsumexp(1, false); x.diff(1, 2); x.diff_with(1, 0, Some(&v), None);
        x.trapezoid(1.0, 2); x.trapezoid_at(&v, 0); x.gradient(1.0, 2, 1); x.gradient(1.0, 0, 3);
        x.gradient_at(&[&v], 0, 1); x.cov_weighted(1, Some(&v), None); x.unsqueeze(0).cov(1); x.dist(&v, 2.0);
        x.kthvalue(0, 0, false); x.kthvalue(5, 1, false); x.kthvalue(1, 2, false); x.narrow(0, 0, 0).median();
        x.median_dim(2, false); x.mode(2, false); x.quantile(&i, 0, false, Interpolation::Linear);
        x.quantile(&(&v + 1.0), 0, false, Interpolation::Linear); searchsorted(&x, &v, false);
        x.bucketize(&x, false); x.bincount(None, 0); (&i - 1).bincount(None, 0); i.bincount(Some(&v), 0);
        x.histc(0, 0.0, 1.0); x.histc(3, 2.0, 1.0); x.histogram(&x, None, false);
        x.unique_dim(2); x.unique_consecutive_dim(2);
        hstack(&[]); hstack(&[&x, &v]); vstack(&[&x, &v]); dstack(&[&x, &v]); column_stack(&[&x, &v]);
        block_diag(&[&x.unsqueeze(0)]); sinter::meshgrid(&[&x], Indexing::Ij); cartesian_prod(&[&x, &v]);
        x.combinations(2, false); cat(&[&x, &v], 0); x.tile([-1]);
        x.mm(&x); x.mm(&v); x.bmm(&x); x.mv(&v); x.inner(&v); v.dot(&v.narrow(0, 0, 2)); x.addmm(&x, &x, 1.0, 1.0);
        x.addmm(&x, &x.t(), 1.0, 1.0).addmm(&v, &v, 1.0, 1.0); v.addr(&v, &i, 1.0, 1.0).addmv(&x, &v, 1.0, 1.0);
        x.baddbmm(&x, &x, 1.0, 1.0); x.cross(&x, 1); x.vecdot(&v, 0); x.cdist(&v, 2.0); v.pdist(2.0);
        tensordot(&x, &x, &[0], &[1]); chain_matmul(&[]); chain_matmul(&[&x, &x]);
        einsum("ij", &[]); einsum("ij,jk", &[&x, &x]); einsum("ijk", &[&x]); einsum("ij->ijk", &[&x]);
        einsum("i1", &[&x]); einsum("ij->ii", &[&x]); einsum("i..j", &[&x]);
        special::multigammaln(&x, 0); special::xlog1py(&x, &v); special::zeta(&x, &v);
        masked::sum(&x, &x, 0, false); masked::mean(&x, &b.narrow(0, 0, 2), 0, false);
        masked::norm(&x, &b, 2.0, 3, false); masked::var(&x, &b, 2, 1, false);
        s(0, 1, 0); sinter::frombuffer(&[1, 2, 3], DType::F32, None, 0); sinter::empty_strided([2], [1, 2], DType::F32);
        sinter::empty_permuted([2, 3], &[0, 0], DType::F32); x.contiguous_in(sinter::MemoryFormat::ChannelsLast);
        sinter::TensorOptions::new().dtype(DType::I64).requires_grad(true).zeros([2]);
        sinter::from_slice(&[1.0f32], [2]); sinter::broadcast_shapes(&[&[2], &[3]]);
        sinter::broadcast_tensors(&[&x, &v]); sinter::where_(&b, &x, &v); x.i_put((0, 9), 1.0);
    }
    std::panic::set_hook(hook);
    assert!(wrong.is_empty(), "{}:\n{}", wrong.len(), wrong.join("\n"));
}

/// Open sizes: traced once, right for all of them.
#[test]
fn functions_compile_for_open_sizes() {
    type F = fn(&[Tensor]) -> Vec<Tensor>;
    let functions: &[(&str, F)] = &[
        ("einsum", |x| vec![einsum("ni,mi->nm", &[&x[0], &x[0]])]),
        ("diagonal", |x| vec![x[0].unsqueeze(1).expand([-1, 6, -1]).diagonal(1, 1, 2)]),
        ("unfold", |x| vec![x[0].unfold(1, 2, 2), x[0].unfold(0, 2, 1)]),
        ("index", |x| vec![x[0].i((.., [3, 0, -1])), x[0].i((.., [1, 2], NewAxis))]),
        ("index_put", |x| vec![x[0].index_put((.., [1, 1]), 2.0, true)]),
        ("logsumexp", |x| vec![x[0].logsumexp([0, 1], false)]),
        ("cummax", |x| pair(x[0].cummax(0))),
        ("logcumsumexp", |x| vec![x[0].logcumsumexp(0)]),
        ("norm", |x| vec![x[0].norm_dim(3.0, 0, false)]),
        ("cdist", |x| vec![x[0].cdist(&x[0], 1.0)]),
        ("kron", |x| vec![x[0].kron(&x[0].narrow(0, 0, 2))]),
        ("roll", |x| vec![x[0].roll([1, 2], [1, 0])]),
        ("hstack", |x| vec![hstack(&[&x[0], &x[0]]), vstack(&[&x[0], &x[0]])]),
        ("diff", |x| vec![x[0].diff(1, 0), x[0].trapezoid(0.5, 0)]),
        ("scatter_reduce", |x| {
            let index = x[0].gt(0.0).long();
            vec![x[0].scatter_reduce(1, &index, &x[0], ScatterReduce::Amax, true)]
        }),
        ("special", |x| vec![special::ndtr(&x[0]), x[0].square().digamma(), x[0].erfc()]),
        ("median", |x| pair(x[0].median_dim(1, false))),
        ("masked", |x| vec![masked::softmax(&x[0], &x[0].gt(-0.5), 1)]),
    ];
    let sizes = [2, 5, 17];
    let example = |n: i64| (arange(0, n * 4, 1).to_dtype(DType::F64) * 0.737).sin().reshape([n, 4]);
    let mut wrong = Vec::new();
    for (name, f) in functions {
        let compiled = Compiler::new().dynamic_batch("N", 2..=64).compile_fn(f, &[&example(5)]);
        let compiled = match compiled {
            Ok(c) => c,
            Err(e) => {
                wrong.push(format!("{name}: {e}"));
                continue;
            }
        };
        for n in sizes {
            let x = example(n);
            let want = f(std::slice::from_ref(&x));
            match compiled.run(&[&x]) {
                Err(e) => wrong.push(format!("{name} of {n}: {e}")),
                Ok(got) => {
                    for (g, w) in got.iter().zip(&want) {
                        if let Some(e) = compare(g.array(), w.array(), tolerance(name)) {
                            wrong.push(format!("{name} of {n}: {e}"));
                        }
                    }
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Complex numbers: real variances and norms, conjugates in products. From PyTorch 2.15.
#[test]
fn complex_numbers() {
    let z = sinter::complex(
        &sinter::tensor([[1.0f64, -2.0], [0.5, 3.0]]),
        &sinter::tensor([[0.5f64, 1.0], [-1.5, 0.0]]),
    );
    let close = |got: Tensor, want: &[f64]| {
        let got = if got.is_complex() { got.view_as_real() } else { got };
        let got = got.to_vec::<f64>();
        assert!(
            got.len() == want.len() && got.iter().zip(want).all(|(g, w)| (g - w).abs() < 1e-12),
            "{got:?} {want:?}"
        );
    };
    close(z.var_dim(1, 1, false), &[4.625, 4.25]);
    close(z.norm_dim(2.0, 1, false), &[2.5, 3.391164991562634]);
    close(z.mean(), &[0.625, 0.0]);
    close(z.select(0, 0).vdot(&z.select(0, 1)), &[-6.25, -4.75]);
    close(z.select(0, 0).vecdot(&z.select(0, 1), -1), &[-6.25, -4.75]);
    close(z.mh().select(0, 0), &[1.0, -0.5, 0.5, 1.5]);
    close(z.cov(1), &[4.625, 0.0, -3.375, 2.875, -3.375, -2.875, 4.25, 0.0]);
    close(z.isreal().long(), &[0.0, 0.0, 0.0, 1.0]);
    close(einsum("ij,kj->ik", &[&z, &z]).select(0, 1).select(0, 1), &[7.0, -1.5]);
}

/// Writing by index in place: what is replaced loses its gradient, what is put there gets
/// it, and memory is shared where the index is a view.
#[test]
fn writing_by_index() {
    let x = arange(0.0, 12.0, 1.0).to_dtype(DType::F64).reshape([3, 4]).requires_grad_(true);
    let v = sinter::tensor([10.0f64, 20.0]).requires_grad_(true);
    let y = &x * 2.0;
    y.index_put_((1, [0, 2]), &v, false);
    y.index_put_((.., 3), 1.0, true);
    assert_eq!(
        y.to_vec::<f64>(),
        [0.0, 2.0, 4.0, 7.0, 10.0, 10.0, 20.0, 15.0, 16.0, 18.0, 20.0, 23.0]
    );
    (&y * &y).sum().backward();
    let gx = x.grad().unwrap();
    assert_eq!(gx.i(1).to_vec::<f64>(), [0.0, 40.0, 0.0, 60.0]);
    assert_eq!(gx.i((0, 3)).item::<f64>(), 28.0);
    assert_eq!(v.grad().unwrap().to_vec::<f64>(), [20.0, 40.0]);

    let base = sinter::zeros([2, 3]);
    let row = base.select(0, 1);
    row.i_put(s(None, None, 2), 7.0);
    base.i_put(0, 1.0);
    assert_eq!(base.to_vec::<f32>(), [1.0, 1.0, 1.0, 7.0, 0.0, 7.0]);
    base.i_put(base.gt(1.0), -1.0);
    assert_eq!(base.to_vec::<f32>(), [1.0, 1.0, 1.0, -1.0, 0.0, -1.0]);
    let counts = sinter::full([3], 0, DType::I64);
    counts.index_put_([0, 2, 0, -1], 1, true);
    assert_eq!(counts.to_vec::<i64>(), [2, 0, 2]);
}

/// What a mistake in an index says.
#[test]
fn errors_name_the_index() {
    let text = |f: &dyn Fn()| {
        let e = std::panic::catch_unwind(std::panic::AssertUnwindSafe(f)).unwrap_err();
        e.downcast_ref::<String>().cloned().unwrap_or_default()
    };
    let x = sinter::zeros([3, 4]);
    let bad = sinter::tensor([0i64, -5]);
    let t = text(&|| drop(x.i((.., &bad))));
    assert!(t.contains("-5 (element 1") && t.contains("dimension 1 of size 4"), "{t}");
    let t = text(&|| drop(x.index_select(0, &sinter::tensor([3i64]))));
    assert!(t.contains("index 3 at position 0") && t.contains("size 3"), "{t}");
    let t = text(&|| drop(x.gather(1, &sinter::tensor([[1i64, 9]]))));
    assert!(t.contains("index 9 at position 1"), "{t}");
    let t = text(&|| drop(x.as_strided([3], [5], Some(3))));
    assert!(t.contains("storage of 12"), "{t}");
    let t = text(&|| drop(x.as_strided([usize::MAX / 2], [3], None)));
    assert!(t.contains("as_strided"), "{t}");
}
