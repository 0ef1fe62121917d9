//! Derivatives of factorisations. `<G, dX> = Re tr(Gᴴ dX)` is the derivative of the
//! loss; see Giles 2008, "Collected matrix derivative results for forward and reverse
//! mode algorithmic differentiation", for the way these formulas are found.

use super::{Context, Grads};
use crate::linalg::{
    adjoint, diag_embed, diagonal_of, fill_diagonal, rows_of_pivots, solve_triangle,
};
use crate::tensor::{Tensor, apply, cat, zeros_like};
use sinter_runtime::Op;
use sinter_runtime::op::Act;
use smallvec::smallvec;

fn mm(a: &Tensor, b: &Tensor) -> Tensor {
    apply(Op::MatMul { act: Act::None }, &[a, b])
}

/// `x a⁻¹` for triangular `a`.
fn divide_right(x: &Tensor, a: &Tensor, upper: bool, unit: bool) -> Tensor {
    adjoint(&solve_triangle(&adjoint(a), &adjoint(x), !upper, unit))
}

/// `x` with half its diagonal and nothing above.
fn half_lower(x: &Tensor) -> Tensor {
    (x.tril(0) + x.tril(-1)) * 0.5
}

/// `x + xᴴ` with the (real) diagonal of `x`.
fn both_triangles(x: &Tensor) -> Tensor {
    let lower = half_lower(&adjoint(x));
    &lower + adjoint(&lower)
}

pub(super) fn vjp(op: &Op, c: &Context, grads: &[Option<Tensor>]) -> Grads {
    let grad = |i: usize| grads.get(i).and_then(Option::as_ref);
    let g = match op {
        Op::TriangularSolve { upper, unit } => {
            return match grad(0) {
                Some(g) => triangular_solve(*upper, *unit, c, g),
                None => smallvec![None, None],
            };
        }
        Op::Fft { axis, inverse } => {
            // The matrix of the transform is symmetric: its adjoint is its conjugate.
            grad(0).map(|g| apply(Op::Fft { axis: *axis, inverse: !inverse }, &[g]))
        }
        Op::Eig {} => eig(c, grad(0), grad(1)),
        Op::Cholesky {} => grad(0).map(|g| cholesky(c.result(0), g)),
        Op::Lu {} => grad(0).map(|g| lu(c, g)),
        Op::Qr { .. } => qr(c, grad(0), grad(1)),
        Op::Svd { .. } => svd(c, grad(0), grad(1), grad(2)),
        Op::Eigh {} => eigh(c, grad(0), grad(1)),
        _ => unreachable!("{} is no factorisation", op.name()),
    };
    smallvec![g]
}

/// Murray 2016, "Differentiation of the Cholesky decomposition", equation 10. The
/// operand stands for a Hermitian matrix, and so does its gradient.
fn cholesky(l: &Tensor, g: &Tensor) -> Tensor {
    let phi = half_lower(&mm(&adjoint(l), &g.tril(0)));
    let s = divide_right(&solve_triangle(&adjoint(l), &phi, true, false), l, false, false);
    (&s + adjoint(&s)) * 0.5
}

fn triangular_solve(upper: bool, unit: bool, c: &Context, g: &Tensor) -> Grads {
    let (a, x) = (c.x(0), c.result(0));
    let gb = solve_triangle(&adjoint(a), g, !upper, unit);
    let ga = c.needs[0].then(|| {
        let full = mm(&gb, &adjoint(x)).neg();
        let edge = i64::from(unit);
        if upper { full.triu(edge) } else { full.tril(-edge) }
    });
    smallvec![ga, c.needs[1].then_some(gb)]
}

/// `x = p l u`; the first min(m, n) rows and columns make up a square problem, and
/// the rest of `l` or `u` is a triangular solution by its factors.
fn lu(c: &Context, g: &Tensor) -> Tensor {
    let f = c.result(0);
    let (m, n) = (f.size(-2), f.size(-1));
    let k = m.min(n);
    let corner = |x: &Tensor| x.narrow(-2, 0, k).narrow(-1, 0, k);
    let (f1, g1) = (corner(f), corner(g));
    // The diagonal of l is one: `f1` serves as l and as u.
    let l = fill_diagonal(&f1.tril(-1), 1.0);
    let u = f1.triu(0);
    let mut left = mm(&adjoint(&l), &g1.tril(-1));
    let mut right = mm(&g1.triu(0), &adjoint(&u));
    let mut rest = None;
    if n > k {
        // u₂ = l⁻¹ a₂
        let (u2, gu2) = (f.narrow(-1, k, n - k), g.narrow(-1, k, n - k));
        left = left - mm(&gu2, &adjoint(&u2));
        rest = Some((-1, solve_triangle(&adjoint(&l), &gu2, true, true)));
    } else if m > k {
        // l₂ = a₂ u⁻¹
        let (l2, gl2) = (f.narrow(-2, k, m - k), g.narrow(-2, k, m - k));
        right = right - mm(&adjoint(&l2), &gl2);
        rest = Some((-2, divide_right(&gl2, &adjoint(&u), false, false)));
    }
    let inner = left.tril(-1) + right.triu(0);
    let inner = divide_right(&inner, &adjoint(&u), false, false);
    let mut ga = solve_triangle(&adjoint(&l), &inner, true, true);
    if let Some((dim, more)) = rest {
        ga = cat(&[&ga, &more], dim);
    }
    // Row i of `ga` belongs to row `rows[i]` of the operand.
    let back = rows_of_pivots(c.result(1), m).argsort(-1, false);
    let index = back.unsqueeze(-1).broadcast_to(ga.shape());
    ga.gather(-2, &index)
}

/// Walter & Lehmann 2018, "Algorithmic differentiation of linear algebra functions
/// with application in optimum experimental design", section 3.3, and for wide
/// matrices `[a₁ a₂] = q [r₁ r₂]` with `r₂ = qᴴ a₂`.
fn qr(c: &Context, gq: Option<&Tensor>, gr: Option<&Tensor>) -> Option<Tensor> {
    let (q, r) = (c.result(0), c.result(1));
    let (m, k, n) = (q.size(-2), q.size(-1), r.size(-1));
    if gq.is_none() && gr.is_none() {
        return None;
    }
    if k == m && m > n {
        panic!(
            "backward: the complete `q` of the QR decomposition of {m} × {n} matrices has no derivative: \
             its last columns are any basis of the rest of space; use the reduced mode"
        );
    }
    let gq = gq.cloned().unwrap_or_else(|| zeros_like(q));
    let gr = gr.cloned().unwrap_or_else(|| zeros_like(r)).triu(0);
    let square = |gq: &Tensor, r: &Tensor, gr: &Tensor| {
        let inner = mm(gr, &adjoint(r)) - mm(&adjoint(q), gq);
        let x = gq + mm(q, &both_triangles(&inner.triu(0)));
        divide_right(&x, &adjoint(r), false, false)
    };
    if n == k {
        return Some(square(&gq, r, &gr));
    }
    let cut = |x: &Tensor| (x.narrow(-1, 0, k), x.narrow(-1, k, n - k));
    let ((r1, r2), (gr1, gr2)) = (cut(r), cut(&gr));
    let gq = gq + mm(q, &mm(&r2, &adjoint(&gr2)));
    Some(cat(&[&square(&gq, &r1, &gr1), &mm(q, &gr2)], -1))
}

/// The difference of two of `values`, at each pair; one on the diagonal. Where two are
/// equal it is zero, and the derivative does not exist.
fn gaps(values: &Tensor) -> Tensor {
    fill_diagonal(&(values.unsqueeze(-2) - values.unsqueeze(-1)), 1.0)
}

/// Giles 2008, section 3.1. The operand stands for a Hermitian matrix, and so does
/// its gradient.
fn eigh(c: &Context, gw: Option<&Tensor>, gv: Option<&Tensor>) -> Option<Tensor> {
    let (w, v) = (c.result(0), c.result(1));
    let mut inner = gw.map(|g| diag_embed(&g.to_dtype(v.dtype())));
    if let Some(gv) = gv {
        let vg = mm(&adjoint(v), gv);
        let skew = (&vg - adjoint(&vg)) * 0.5;
        let turned = skew / gaps(w).to_dtype(v.dtype());
        // A loss that depends on the phase of vectors is no function of the matrix;
        // the diagonal is left out.
        let turned = fill_diagonal(&turned, 0.0);
        inner = Some(match inner {
            Some(i) => i + turned,
            None => turned,
        });
    }
    Some(mm(&mm(v, &inner?), &adjoint(v)))
}

/// Boeddeker, Hanebrink, Drude, Heymann & Haeb-Umbach 2017, "On the computation of
/// complex-valued gradients with application to statistically optimum beamforming", equation
/// 4.77, for vectors of length one.
fn eig(c: &Context, gw: Option<&Tensor>, gv: Option<&Tensor>) -> Option<Tensor> {
    let (w, v) = (c.result(0), c.result(1));
    let mut inner = gw.map(diag_embed);
    if let Some(gv) = gv {
        let vg = mm(&adjoint(v), gv);
        // Vectors keep their length.
        let along = diagonal_of(&vg).real().to_dtype(v.dtype());
        let free = &vg - mm(&adjoint(v), &(v * along.unsqueeze(-2)));
        let turned = fill_diagonal(&(free / gaps(w).conj()), 0.0);
        inner = Some(match inner {
            Some(i) => i + turned,
            None => turned,
        });
    }
    let (g, _) = crate::linalg::solve_ex(&adjoint(v), &mm(&inner?, &adjoint(v)));
    Some(if c.ty(0).dtype.is_complex() { g } else { g.real() })
}

/// Townsend 2016, "Differentiating the singular value decomposition", and for complex
/// numbers Wan & Zhang 2019, "Automatic differentiation for complex valued SVD".
fn svd(
    c: &Context,
    gu: Option<&Tensor>,
    gs: Option<&Tensor>,
    gvh: Option<&Tensor>,
) -> Option<Tensor> {
    let s = c.result(1);
    let k = s.size(-1);
    // Of a full decomposition only the first k vectors are functions of the matrix.
    let u = c.result(0).narrow(-1, 0, k);
    let vh = c.result(2).narrow(-2, 0, k);
    let gu = gu.map(|g| g.narrow(-1, 0, k));
    let gvh = gvh.map(|g| g.narrow(-2, 0, k));
    let (m, n) = (u.size(-2), vh.size(-1));
    let real = s.to_dtype(u.dtype());
    let (rows, columns) = (real.unsqueeze(-1), real.unsqueeze(-2));
    let skew = |x: &Tensor| x - adjoint(x);
    // s_j² - s_i², factored: the difference of squares cancels.
    let sums = fill_diagonal(&(s.unsqueeze(-2) + s.unsqueeze(-1)), 1.0);
    let e = (gaps(s) * sums).to_dtype(u.dtype());
    let mut inner = gs.map(|g| diag_embed(&g.to_dtype(u.dtype())));
    let mut add = |x: Tensor| {
        inner = Some(match inner.take() {
            Some(i) => i + x,
            None => x,
        });
    };
    if let Some(gu) = &gu {
        let ug = skew(&mm(&adjoint(&u), gu));
        add(&ug / &e * &columns);
        if u.is_complex() {
            // The phase of a pair of vectors; see equation 2.9 of Wan & Zhang.
            add(diag_embed(&(diagonal_of(&ug) / (&real * 2.0))));
        }
    }
    if let Some(gvh) = &gvh {
        let vg = skew(&mm(&vh, &adjoint(gvh)));
        add(&vg / &e * &rows);
    }
    let mut g = match &inner {
        Some(i) => mm(&mm(&u, i), &vh),
        None => return None,
    };
    if let Some(gu) = gu.filter(|_| m > k) {
        let x = &gu / &columns;
        g = g + mm(&(&x - mm(&u, &mm(&adjoint(&u), &x))), &vh);
    }
    if let Some(gvh) = gvh.filter(|_| n > k) {
        let x = &gvh / &rows;
        g = g + mm(&u, &(&x - mm(&mm(&x, &adjoint(&vh)), &vh)));
    }
    Some(g)
}
