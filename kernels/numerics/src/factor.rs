//! Factorisations that take a fixed number of steps: Cholesky, LU, QR.

use crate::Field;
use crate::stack::{count, each, read, write, write_one, write_vector};
use faer::linalg::cholesky::llt::factor::LltError;
use faer::linalg::solvers::{Llt, Qr};
use faer::linalg::{matmul::matmul, triangular_solve::solve_unit_lower_triangular_in_place};
use faer::traits::{ComplexField, math_utils::zero};
use faer::{Accum, Mat, Par, Side};
use sinter_kernels::view::{Dst, Src};

/// The lower triangular `l` with `a = l lᴴ`, for each matrix of [.., n, n], from its
/// lower triangle. `info` [..] is 0, or the order of the first leading minor that is
/// not positive, and then `l` is NaN.
pub fn cholesky<T: Field>(a: Src<T>, l: Dst<T>, info: Dst<i32>) {
    let n = a.shape[a.shape.len() - 1];
    each(count(a.shape, 2), n * n * n / 3, |b| {
        let mut x = read(&a, b);
        for k in 0..n {
            x[(k, k)] = T::from_real_impl(&T::real_part_impl(&x[(k, k)]));
        }
        // A NaN on the diagonal passes for positive in some of the library's loops.
        let bad = |k: usize| -> bool { !ComplexField::is_finite_impl(&x[(k, k)]) };
        match Llt::new(x.as_ref(), Side::Lower) {
            Ok(f) if !(0..n).any(bad) => {
                let f = f.L();
                write(&l, b, |i, j| if i >= j { f[(i, j)] } else { T::ZERO });
                write_one(&info, b, 0);
            }
            outcome => {
                let minor = match outcome {
                    Err(LltError::NonPositivePivot { index }) => index,
                    Ok(_) => (0..n).find(|&k| bad(k)).unwrap_or(0),
                };
                write(&l, b, |i, j| if i >= j { T::nan_impl() } else { T::ZERO });
                write_one(&info, b, minor as i32 + 1);
            }
        }
    });
}

/// `a = p l u` for each matrix of [.., m, n], with rows exchanged so that the largest
/// element of a column stands on the diagonal. `factors` [.., m, n] has `u` on and
/// above its diagonal and `l`, whose diagonal is one, below. `pivots`
/// [.., min(m, n)] says, counting from 1, with which row each row was exchanged, in
/// order. A column without a pivot is left as it is, and `u` has a zero there.
pub fn lu<T: Field>(a: Src<T>, factors: Dst<T>, pivots: Dst<i32>) {
    let r = a.shape.len();
    let (m, n) = (a.shape[r - 2], a.shape[r - 1]);
    each(count(a.shape, 2), m * n * m.min(n), |b| {
        let mut x = read(&a, b);
        let exchanged = factorise(&mut x);
        write(&factors, b, |i, j| x[(i, j)]);
        write_vector(&pivots, b, |k| exchanged[k] as i32 + 1);
    });
}

/// Columns that are eliminated before the rest of the matrix is brought up to date.
const PANEL: usize = 32;

/// LU in place, panel by panel (Golub & Van Loan 2013, algorithm 3.4.1 within the
/// blocks of section 3.2.11); with which row each was exchanged. Ours, because a zero
/// pivot must not turn the factors into NaN: determinants of singular matrices exist.
fn factorise<T: Field>(x: &mut Mat<T>) -> Vec<usize> {
    let (m, n) = (x.nrows(), x.ncols());
    let steps = m.min(n);
    let mut exchanged = Vec::with_capacity(steps);
    for start in (0..steps).step_by(PANEL) {
        let end = (start + PANEL).min(steps);
        for k in start..end {
            let mut best = k;
            let mut most = T::abs1_impl(&x[(k, k)]);
            for i in k + 1..m {
                let size = T::abs1_impl(&x[(i, k)]);
                if size > most {
                    (best, most) = (i, size);
                }
            }
            exchanged.push(best);
            if best != k {
                for j in 0..n {
                    let row = x[(k, j)];
                    x[(k, j)] = x[(best, j)];
                    x[(best, j)] = row;
                }
            }
            let pivot = x[(k, k)];
            if pivot == zero::<T>() {
                continue;
            }
            for i in k + 1..m {
                let factor = x[(i, k)] / pivot;
                x[(i, k)] = factor;
            }
            for j in k + 1..end {
                let top = x[(k, j)];
                for i in k + 1..m {
                    let less = x[(i, k)] * top;
                    x[(i, j)] -= less;
                }
            }
        }
        if end < n {
            let (left, right) = x.as_mut().split_at_col_mut(end);
            let left = left.as_ref();
            let (mut top, mut rest) = right.split_at_row_mut(start).1.split_at_row_mut(end - start);
            let corner = left.submatrix(start, start, end - start, end - start);
            let below = left.submatrix(end, start, m - end, end - start);
            solve_unit_lower_triangular_in_place(corner, top.as_mut(), Par::Seq);
            matmul(rest.as_mut(), Accum::Add, below, top.as_ref(), -T::one_impl(), Par::Seq);
        }
    }
    exchanged
}

/// `a = q r` for each matrix of [.., m, n]: `q` has orthonormal columns, `r` is upper
/// triangular with a real diagonal. By the extents of `q` [.., m, k] and `r`
/// [.., k, n], k is min(m, n) or m.
pub fn qr<T: Field>(a: Src<T>, q: Dst<T>, r: Dst<T>) {
    let rank = a.shape.len();
    let (m, n) = (a.shape[rank - 2], a.shape[rank - 1]);
    let k = q.shape[rank - 1];
    each(count(a.shape, 2), 4 * m * n * m.min(n), |b| {
        let x = read(&a, b);
        if m.min(n) == 0 {
            write(&q, b, |i, j| if i == j { T::one_impl() } else { T::ZERO });
            write(&r, b, |_, _| T::ZERO);
            return;
        }
        let f = Qr::new(x.as_ref());
        let (basis, upper) = (if k < m { f.compute_thin_Q() } else { f.compute_Q() }, f.R());
        // The library leaves the phase of its reflections on the diagonal.
        let phase = |i: usize| -> T {
            if T::IS_REAL || i >= m.min(n) {
                return T::one_impl();
            }
            let d = upper[(i, i)];
            let (re, im) = (T::real_part_impl(&d), T::imag_part_impl(&d));
            if im == T::Real::zero_impl() {
                return T::one_impl();
            }
            let size = T::from_real_impl(&T::abs_impl(&d));
            // Of the two real numbers of this size the one that LAPACK's reflection
            // gives; its last step, of one element, reflects to the other side.
            let negative = (re < T::Real::zero_impl()) != (i + 1 == m);
            d / if negative { -size } else { size }
        };
        let phases: Vec<T> = (0..k).map(phase).collect();
        write(&q, b, |i, j| basis[(i, j)] * phases[j]);
        write(&r, b, |i, j| {
            if i > j {
                return T::ZERO;
            }
            let x = upper[(i, j)] * T::conj_impl(&phases[i]);
            // Real but for rounding.
            if i == j { T::from_real_impl(&T::real_part_impl(&x)) } else { x }
        });
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{dense, matrix};

    #[test]
    fn lu_multiplies_back_whatever_the_blocks() {
        for (m, n) in [(1, 1), (5, 5), (33, 33), (70, 40), (40, 70), (100, 100), (3, 0)] {
            let a = matrix(m, n, 3);
            let (mut f, mut p) = (vec![0.0; m * n], vec![0i32; m.min(n)]);
            lu(
                dense(&a, &[m, n], &[n as isize, 1]),
                Dst::of(&mut f, &[m, n], &[n as isize, 1]),
                Dst::of(&mut p, &[m.min(n)], &[1]),
            );
            let mut rows: Vec<usize> = (0..m).collect();
            for (k, &e) in p.iter().enumerate() {
                rows.swap(k, e as usize - 1);
            }
            for i in 0..m {
                for j in 0..n {
                    let sum: f64 = (0..=i.min(j))
                        .map(|k| if k == i { 1.0 } else { f[i * n + k] } * f[k * n + j])
                        .sum();
                    assert!((sum - a[rows[i] * n + j]).abs() < 1e-12, "{m} {n} {i} {j}");
                }
            }
        }
    }

    #[test]
    fn singular_matrices_have_finite_factors() {
        let a = [1.0, 2.0, 2.0, 4.0];
        let (mut f, mut p) = ([0.0; 4], [0i32; 2]);
        lu(
            dense(&a, &[2, 2], &[2, 1]),
            Dst::of(&mut f, &[2, 2], &[2, 1]),
            Dst::of(&mut p, &[2], &[1]),
        );
        assert_eq!((f, p), ([2.0, 4.0, 0.5, 0.0], [2, 2]));
    }

    #[test]
    fn cholesky_names_the_minor() {
        let a = [4.0, 2.0, 2.0, 5.0, 1.0, 2.0, 2.0, 1.0, f64::NAN, 0.0, 0.0, 1.0];
        let (mut l, mut info) = ([9.0; 12], [9i32; 3]);
        cholesky(
            dense(&a, &[3, 2, 2], &[4, 2, 1]),
            Dst::of(&mut l, &[3, 2, 2], &[4, 2, 1]),
            Dst::of(&mut info, &[3], &[1]),
        );
        assert_eq!(l[..4], [2.0, 0.0, 1.0, 2.0]);
        assert_eq!(info, [0, 2, 1]);
        assert!(l[4].is_nan() && l[5] == 0.0);
    }

    #[test]
    fn qr_of_no_columns_is_the_identity() {
        let mut q = [9.0; 4];
        qr(
            dense(&[], &[2, 0], &[0, 1]),
            Dst::of(&mut q, &[2, 2], &[2, 1]),
            Dst::of(&mut [], &[2, 0], &[0, 1]),
        );
        assert_eq!(q, [1.0, 0.0, 0.0, 1.0]);
    }
}
