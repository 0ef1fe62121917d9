//! Linear algebra.

use crate::args::{Args, Value, skip};
use crate::registry::Registry;
use sinter::linalg::{self, Norm};
use sinter::{DType, Tensor};
use sinter_tests::Tolerance;

/// Iterations and eliminations of other libraries round in another order: so many units of
/// the largest element.
const FACTORS: Tolerance = Tolerance { own: 64.0, largest: 2000.0, one: 64.0 };

fn adjoint(x: &Tensor) -> Tensor {
    x.transpose(-1, -2).conj()
}

/// The order of a norm: absent, a number or a name.
fn order(a: &Args, at: (usize, &'static str)) -> Option<Norm> {
    match a.get(at) {
        Value::None => None,
        Value::Str(s) if s == "fro" => Some(Norm::Fro),
        Value::Str(s) if s == "nuc" => Some(Norm::Nuc),
        _ => Some(Norm::P(a.f64(at))),
    }
}

fn dims(a: &Args, at: (usize, &'static str)) -> Vec<i64> {
    a.opt_ints(at).unwrap_or_default()
}

/// A tolerance that is a number; those of single matrices are not there.
fn tolerance(a: &Args, key: &'static str) -> Option<f64> {
    match a.get(key) {
        Value::Tensor(i) if a.tensors[*i].numel() != 1 => skip("a tolerance for each matrix"),
        Value::Tensor(i) => Some(a.tensors[*i].item::<f64>()),
        _ => a.opt_f64(key),
    }
}

fn upper(a: &Args) -> bool {
    a.str_or((1, "UPLO"), "L") == "U"
}

fn pivots(a: &Args) {
    if !a.bool_or((1, "pivot"), true) {
        skip("LU without pivoting");
    }
}

fn lstsq(a: &Args) -> linalg::Lstsq {
    linalg::lstsq(&a.t(0), &a.t(1), a.opt_f64((2, "rcond")))
}

fn none(dtype: DType) -> Tensor {
    sinter::empty([0], dtype)
}

/// Differences move one triangle of such a matrix alone.
const HERMITIAN: &str = "stands for a Hermitian matrix; see tests/gradients.rs";

pub fn register(r: &mut Registry) {
    let upper_first = |a: &Args| a.bool_or((1, "upper"), false);
    // Of complex matrices PyTorch gives a derivative by the imaginary parts of the diagonal,
    // too, which are not read.
    let upper_complex = |a: &Args| {
        a.dtype == Some(DType::C128)
            && *a.named.get("upper").unwrap_or(&Value::None) == Value::Bool(true)
    };
    let why = "a derivative by what is not read";
    r.op("linalg.cholesky", move |a| linalg::cholesky(&a.t(0), upper_first(a)))
        .skip(why, upper_complex)
        .no_second(HERMITIAN);
    r.op("linalg.cholesky_ex", move |a| {
        a.ignore("check_errors");
        linalg::cholesky_ex(&a.t(0), upper_first(a))
    })
    .skip(why, upper_complex)
    .no_second(HERMITIAN);
    let triangle = "PyTorch's has the other triangle of the factor, too, which is not read";
    r.op("cholesky_inverse", move |a| linalg::cholesky_inverse(&a.t(0), upper_first(a)))
        .within(FACTORS)
        .no_gradient(triangle);
    r.op("cholesky_solve", |a| {
        linalg::cholesky_solve(&a.t(0), &a.t(1), a.bool_or((2, "upper"), false))
    })
    .within(FACTORS)
    .no_gradient(triangle);
    r.op("linalg.lu", |a| {
        pivots(a);
        linalg::lu(&a.t(0))
    })
    .within(FACTORS);
    r.op("linalg.lu_factor", |a| {
        pivots(a);
        linalg::lu_factor(&a.t(0))
    })
    .within(FACTORS);
    r.op("linalg.lu_factor_ex", |a| {
        pivots(a);
        linalg::lu_factor_ex(&a.t(0))
    })
    .within(FACTORS);
    r.composite("lu", "linalg.lu_factor_ex", |a| {
        pivots(a);
        let (f, p, info) = linalg::lu_factor_ex(&a.t(0));
        if a.bool_or((2, "get_infos"), false) { vec![f, p, info] } else { vec![f, p] }
    })
    .within(FACTORS);
    r.op("lu_unpack", |a| {
        let (f, p) = (a.t(0), a.t(1));
        let (data, pivots) =
            (a.bool_or((2, "unpack_data"), true), a.bool_or((3, "unpack_pivots"), true));
        if !data || !pivots {
            skip("parts of the result");
        }
        linalg::lu_unpack(&f, &p)
    });
    r.composite("lu_solve", "linalg.lu_solve", |a| {
        linalg::lu_solve(&a.t(1), &a.t(2), &a.t(0), true, false)
    })
    .within(FACTORS);
    r.op("linalg.lu_solve", |a| {
        let (left, adjoint) = (a.bool_or("left", true), a.bool_or("adjoint", false));
        linalg::lu_solve(&a.t(0), &a.t(1), &a.t(2), left, adjoint)
    })
    .within(FACTORS);
    r.op("linalg.qr", |a| {
        let mode = a.str_or((1, "mode"), "reduced");
        let (q, r) = linalg::qr(&a.t(0), mode == "complete");
        if mode == "r" || q.numel() == 0 { vec![r.abs()] } else { vec![q.abs(), r.abs()] }
    })
    .within(FACTORS);
    r.op("linalg.svd", |a| {
        let (u, s, vh) = linalg::svd(&a.t(0), a.bool_or((1, "full_matrices"), true));
        let k = s.size(-1);
        let scale = s.unsqueeze(-2).to_dtype(u.dtype());
        let product = (u.narrow(-1, 0, k) * scale).matmul(&vh.narrow(-2, 0, k));
        (s, product)
    })
    .within(FACTORS);
    r.composite("svd", "linalg.svd", |a| {
        let (u, s, vh) = linalg::svd(&a.t(0), !a.bool_or((1, "some"), true));
        let k = s.size(-1);
        let scale = s.unsqueeze(-2).to_dtype(u.dtype());
        let product = (u.narrow(-1, 0, k) * scale).matmul(&vh.narrow(-2, 0, k));
        (s, product)
    })
    .within(FACTORS);
    r.op("linalg.polar", |a| linalg::polar(&a.t(0))).within(FACTORS);
    r.op("linalg.svdvals", |a| linalg::svdvals(&a.t(0))).within(FACTORS);
    r.op("linalg.eigh", |a| {
        let (w, v) = linalg::eigh(&a.t(0), upper(a));
        let product = (&v * w.unsqueeze(-2).to_dtype(v.dtype())).matmul(&adjoint(&v));
        (w, product)
    })
    .within(FACTORS)
    .no_second(HERMITIAN);
    r.op("linalg.eigvalsh", |a| linalg::eigvalsh(&a.t(0), upper(a)))
        .within(FACTORS)
        .no_second(HERMITIAN);

    r.op("linalg.eig", |a| {
        let (w, v) = linalg::eig(&a.t(0));
        (&v * w.unsqueeze(-2)).matmul(&linalg::inv(&v))
    })
    .within(FACTORS);
    r.op("linalg.eigvals", |a| {
        let w = linalg::eigvals(&a.t(0));
        (w.sum_dim(-1, false), (&w * &w).sum_dim(-1, false))
    })
    .within(FACTORS);

    r.op("linalg.solve", |a| {
        left_only(a);
        linalg::solve(&a.t(0), &a.t(1))
    })
    .within(FACTORS);
    r.op("linalg.solve_ex", |a| {
        left_only(a);
        linalg::solve_ex(&a.t(0), &a.t(1))
    })
    .within(FACTORS);
    r.op("linalg.inv", |a| linalg::inv(&a.t(0))).within(FACTORS);
    r.op("linalg.inv_ex", |a| linalg::inv_ex(&a.t(0))).within(FACTORS);
    r.op("linalg.solve_triangular", |a| {
        let (upper, left) = (a.bool_or("upper", false), a.bool_or("left", true));
        let unit = a.bool_or("unitriangular", false);
        linalg::solve_triangular(&a.t(0), &a.t(1), upper, left, unit)
    })
    .within(FACTORS);
    r.composite("triangular_solve", "linalg.solve_triangular", |a| {
        let (b, t) = (a.t(0), a.t(1));
        let (upper, unit) = (a.bool_or((2, "upper"), true), a.bool_or("unitriangular", false));
        let transpose = a.bool_or((3, "transpose"), false);
        let m = if transpose { adjoint(&t) } else { t.clone() };
        let x = linalg::solve_triangular(&m, &b, upper != transpose, true, unit);
        (x, t.copy())
    })
    .within(FACTORS);
    r.op("linalg.pinv", |a| {
        linalg::pinv(
            &a.t(0),
            tolerance(a, "atol"),
            tolerance(a, "rtol"),
            a.bool_or("hermitian", false),
        )
    })
    .within(FACTORS);
    r.composite("linalg.pinv.hermitian", "linalg.pinv", |a| {
        linalg::pinv(&a.t(0), None, None, a.bool_or("hermitian", false))
    })
    .within(FACTORS)
    .no_gradient("PyTorch's is that of a Hermitian matrix, which these are not");
    r.composite("linalg.pinv.singular", "linalg.pinv", |a| {
        linalg::pinv(&a.t(0).matmul(&a.t(1).transpose(-1, -2)), None, None, false)
    })
    .within(FACTORS);
    r.op("pinverse", |a| a.t(0).pinverse(a.f64_or((1, "rcond"), 1e-15))).within(FACTORS);
    r.op("linalg.lstsq", |a| {
        let s = lstsq(a);
        let driver = a.str_or("driver", "gelsy");
        let rank = if driver == "gels" { none(DType::I64) } else { s.rank };
        let values = match driver {
            "gels" | "gelsy" => none(s.singular_values.dtype()),
            _ => s.singular_values,
        };
        // One of LAPACK's solvers gives none.
        let residuals = if driver == "gelsy" { none(s.residuals.dtype()) } else { s.residuals };
        vec![s.solution, residuals, rank, values]
    })
    .within(FACTORS);
    r.composite("linalg.lstsq.grad_oriented", "linalg.lstsq", |a| {
        let s = lstsq(a);
        let quiet = a.str_or("driver", "gelsy") == "gelsy";
        let residuals = if quiet { none(s.residuals.dtype()) } else { s.residuals };
        (s.solution, residuals)
    })
    .within(FACTORS);
    r.op("linalg.tensorinv", |a| linalg::tensorinv(&a.t(0), a.i64_or((1, "ind"), 2) as usize))
        .within(FACTORS);
    r.op("linalg.tensorsolve", |a| linalg::tensorsolve(&a.t(0), &a.t(1), &dims(a, (2, "dims"))))
        .within(FACTORS);

    r.op("linalg.det", |a| linalg::det(&a.t(0)))
        .within(FACTORS)
        .skip("nothing was read: the result has no history", |a| {
            a.dtype == Some(DType::C128) && a.tensors[0].numel() == 0
        });
    r.op("logdet", |a| a.t(0).logdet()).within(FACTORS);
    r.op("linalg.slogdet", |a| linalg::slogdet(&a.t(0))).within(FACTORS);
    r.op("linalg.vector_norm", |a| {
        let x = converted(a, "dtype");
        let ord = a.f64_or((1, "ord"), 2.0);
        linalg::vector_norm(&x, ord, dims(a, (2, "dim")), a.bool_or((3, "keepdim"), false))
    })
    .within(FACTORS);
    r.op("linalg.matrix_norm", |a| {
        let x = converted(a, "dtype");
        let ord = order(a, (1, "ord")).unwrap_or(Norm::Fro);
        let d = a.opt_ints((2, "dim")).unwrap_or(vec![-2, -1]);
        linalg::matrix_norm(&x, ord, [d[0], d[1]], a.bool_or((3, "keepdim"), false))
    })
    .within(FACTORS);
    let norm = |a: &Args| {
        let x = converted(a, "dtype");
        let (ord, keep) = (order(a, (1, "ord")), a.bool_or((3, "keepdim"), false));
        linalg::norm(&x, ord, dims(a, (2, "dim")), keep)
    };
    r.op("linalg.norm", norm).within(FACTORS);
    r.composite("linalg.norm.subgradients_at_zero", "linalg.norm", norm)
        .within(FACTORS)
        .no_second("a norm is not smooth at zero");
    r.composite("norm.nuc", "linalg.matrix_norm", |a| {
        a.ignore((1, "p"));
        let d = a.opt_ints((2, "dim")).unwrap_or(vec![-2, -1]);
        linalg::matrix_norm(&a.t(0), Norm::Nuc, [d[0], d[1]], a.bool_or((3, "keepdim"), false))
    })
    .within(FACTORS);
    r.op("linalg.matrix_rank", |a| {
        linalg::matrix_rank(
            &a.t(0),
            tolerance(a, "atol"),
            tolerance(a, "rtol"),
            a.bool_or("hermitian", false),
        )
    });
    r.composite("linalg.matrix_rank.hermitian", "linalg.matrix_rank", |a| {
        linalg::matrix_rank(
            &a.t(0),
            tolerance(a, "atol"),
            tolerance(a, "rtol"),
            a.bool_or("hermitian", false),
        )
    });
    r.op("linalg.cond", |a| linalg::cond(&a.t(0), order(a, (1, "p")))).within(FACTORS);

    r.op("linalg.matrix_power", |a| linalg::matrix_power(&a.t(0), a.i64((1, "n")))).within(FACTORS);
    r.op("matrix_exp", |a| a.t(0).matrix_exp())
        .within(FACTORS)
        .without(&[DType::F16, DType::BF16], "PyTorch's own overflows");
    r.op("linalg.matrix_sqrth", |a| linalg::matrix_sqrth(&a.t(0)))
        .within(FACTORS)
        .no_second(HERMITIAN);
    r.op("linalg.multi_dot", |a| {
        let all = a.ts(0);
        linalg::multi_dot(&all.iter().collect::<Vec<_>>())
    });
    r.op("linalg.vander", |a| linalg::vander(&a.t(0), a.opt_i64((1, "N")).map(|n| n as usize)));
    r.op("linalg.householder_product", |a| linalg::householder_product(&a.t(0), &a.t(1)))
        .within(FACTORS);
    r.op("ormqr", |a| {
        let (left, transpose) = (a.bool_or((3, "left"), true), a.bool_or((4, "transpose"), false));
        linalg::ormqr(&a.t(0), &a.t(1), &a.t(2), left, transpose)
    })
    .within(FACTORS);
}

fn left_only(a: &Args) {
    if !a.bool_or("left", true) {
        skip("x a = b: transpose it");
    }
    a.ignore("check_errors");
}

fn converted(a: &Args, key: &'static str) -> Tensor {
    match a.opt_dtype(key) {
        Some(d) => a.t(0).to_dtype(d),
        None => a.t(0),
    }
}
