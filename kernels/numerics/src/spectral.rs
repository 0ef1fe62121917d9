//! Factorisations by iteration: singular values, eigenvalues.

use crate::stack::{count, is_finite, read, try_each, write, write_vector};
use crate::{Cause, Failure, Field};
use faer::linalg::solvers::{Eigen, SelfAdjointEigen, Svd};
use faer::traits::{ComplexField, RealField};
use faer::{Mat, Side};
use num_complex::Complex;
use sinter_kernels::view::{Dst, Element, Src};

/// `a = u diag(s) vᴴ` for each matrix of [.., m, n]: `u` and `vᴴ` are unitary, `s`
/// [.., min(m, n)] falls. By their extents, `u` [.., m, k] and `vh` [.., k', n] hold
/// all or the first min(m, n) singular vectors.
///
/// # Errors
/// Where a matrix is not finite, or the iteration fails.
pub fn svd<T: Field>(a: Src<T>, u: Dst<T>, s: Dst<T::Real>, vh: Dst<T>) -> Result<(), Failure> {
    let r = a.shape.len();
    let (m, n) = (a.shape[r - 2], a.shape[r - 1]);
    let thin = u.shape[r - 1] == m.min(n) && vh.shape[r - 2] == m.min(n);
    try_each(count(a.shape, 2), 20 * m * n * m.min(n), |b| {
        let x = read(&a, b);
        if !is_finite(&x) {
            return Err(Cause::NotFinite);
        }
        if m.min(n) == 0 {
            let identity = |i, j| if i == j { T::one_impl() } else { T::ZERO };
            write(&u, b, identity);
            write(&vh, b, identity);
            return Ok(());
        }
        let f = if thin { Svd::new_thin(x.as_ref()) } else { Svd::new(x.as_ref()) };
        let f = f.map_err(|_| Cause::NoConvergence)?;
        let (left, right, values) = (f.U(), f.V(), f.S().column_vector());
        write(&u, b, |i, j| left[(i, j)]);
        write(&vh, b, |i, j| T::conj_impl(&right[(j, i)]));
        write_vector(&s, b, |i| T::real_part_impl(&values[i]));
        Ok(())
    })
}

/// `a = v diag(w) vᴴ` for each matrix of [.., n, n], from its lower triangle: `w`
/// [.., n] rises, `v` is unitary.
///
/// # Errors
/// As [`svd`].
pub fn eigh<T: Field>(a: Src<T>, w: Dst<T::Real>, v: Dst<T>) -> Result<(), Failure> {
    let n = a.shape[a.shape.len() - 1];
    try_each(count(a.shape, 2), 10 * n * n * n, |b| {
        let mut x = read(&a, b);
        for j in 0..n {
            // The other triangle is nobody's business.
            for i in 0..j {
                x[(i, j)] = T::conj_impl(&x[(j, i)]);
            }
            x[(j, j)] = T::from_real_impl(&T::real_part_impl(&x[(j, j)]));
        }
        if !is_finite(&x) {
            return Err(Cause::NotFinite);
        }
        if n == 0 {
            return Ok(());
        }
        let f = SelfAdjointEigen::new(x.as_ref(), Side::Lower);
        let f = f.map_err(|_| Cause::NoConvergence)?;
        let (vectors, values) = (f.U(), f.S().column_vector());
        write(&v, b, |i, j| vectors[(i, j)]);
        write_vector(&w, b, |i| T::real_part_impl(&values[i]));
        Ok(())
    })
}

/// A number whose matrices have eigenvalues.
pub trait General: Field<Real = Self::Part> {
    /// The real numbers it is made of.
    type Part: RealField + Element + Into<f64>;
    /// The factorisation of one matrix.
    #[doc(hidden)]
    fn eigen(x: &Mat<Self>) -> Result<Eigen<Self::Part>, Cause>;
}

macro_rules! general {
    ($($t:ty, $part:ty, $f:ident;)*) => {$(
        impl General for $t {
            type Part = $part;
            fn eigen(x: &Mat<$t>) -> Result<Eigen<$part>, Cause> {
                Eigen::$f(x.as_ref()).map_err(|_| Cause::NoConvergence)
            }
        }
    )*};
}
general! {
    f32, f32, new_from_real;
    f64, f64, new_from_real;
    Complex<f32>, f32, new;
    Complex<f64>, f64, new;
}

/// `a v = v diag(w)` for each matrix of [.., n, n]: eigenvalues `w` [.., n] and, in the
/// columns of `v`, eigenvectors of length one whose largest element is real (LAPACK's
/// choice).
///
/// # Errors
/// As [`svd`].
pub fn eig<T: General>(
    a: Src<T>,
    w: Dst<Complex<T::Part>>,
    v: Dst<Complex<T::Part>>,
) -> Result<(), Failure>
where
    Complex<T::Part>: Field<Real = T::Part>,
{
    let n = a.shape[a.shape.len() - 1];
    try_each(count(a.shape, 2), 30 * n * n * n, |b| {
        let x = read(&a, b);
        if !is_finite(&x) {
            return Err(Cause::NotFinite);
        }
        if n == 0 {
            return Ok(());
        }
        let f = T::eigen(&x)?;
        let (vectors, values) = (f.U(), f.S().column_vector());
        let size = |z: Complex<T::Part>| -> f64 {
            let (re, im): (f64, f64) = (z.re.into(), z.im.into());
            re.hypot(im)
        };
        // What each column is multiplied by.
        let scale: Vec<Complex<T::Part>> = (0..n)
            .map(|j| {
                let length = (0..n).map(|i| size(vectors[(i, j)]).powi(2)).sum::<f64>().sqrt();
                let mut largest = vectors[(0, j)];
                for i in 1..n {
                    if size(vectors[(i, j)]) > size(largest) {
                        largest = vectors[(i, j)];
                    }
                }
                let inverse = Complex::<T::Part>::from_f64_impl(1.0 / length);
                let real = T::Part::zero_impl() == Complex::imag_part_impl(&values[j])
                    && (0..n)
                        .all(|i| T::Part::zero_impl() == Complex::imag_part_impl(&vectors[(i, j)]));
                if real {
                    return inverse;
                }
                let phase = Complex::from_f64_impl(1.0 / size(largest));
                Complex::conj_impl(&largest) * phase * inverse
            })
            .collect();
        write(&v, b, |i, j| vectors[(i, j)] * scale[j]);
        write_vector(&w, b, |i| values[i]);
        Ok(())
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{dense, matrix};

    #[test]
    fn singular_values_multiply_back() {
        for (m, n) in [(1, 1), (5, 3), (3, 5), (40, 40)] {
            let k = m.min(n);
            let a = matrix(m, n, 5);
            let (mut u, mut s, mut vh) = (vec![0.0; m * k], vec![0.0; k], vec![0.0; k * n]);
            svd(
                dense(&a, &[m, n], &[n as isize, 1]),
                Dst::of(&mut u, &[m, k], &[k as isize, 1]),
                Dst::of(&mut s, &[k], &[1]),
                Dst::of(&mut vh, &[k, n], &[n as isize, 1]),
            )
            .unwrap();
            assert!(s.windows(2).all(|w| w[0] >= w[1] && w[1] >= 0.0));
            for i in 0..m {
                for j in 0..n {
                    let sum: f64 = (0..k).map(|l| u[i * k + l] * s[l] * vh[l * n + j]).sum();
                    assert!((sum - a[i * n + j]).abs() < 1e-12);
                }
            }
        }
    }

    #[test]
    fn what_is_not_finite_is_refused_and_named() {
        let a = [1.0, 0.0, 0.0, 1.0, 1.0, f64::NAN, f64::INFINITY, 1.0];
        let (mut w, mut v) = ([0.0; 4], [0.0; 8]);
        let e = eigh(
            dense(&a, &[2, 2, 2], &[4, 2, 1]),
            Dst::of(&mut w, &[2, 2], &[2, 1]),
            Dst::of(&mut v, &[2, 2, 2], &[4, 2, 1]),
        )
        .unwrap_err();
        assert_eq!(e.to_string(), "batch item 1 contains NaN or infinity");
    }

    #[test]
    fn eigenvalues_of_a_symmetric_matrix_rise() {
        let n = 30;
        let a = matrix(n, n, 7);
        let (mut w, mut v) = (vec![0.0; n], vec![0.0; n * n]);
        let (square, row) = ([n, n], [n as isize, 1]);
        eigh(dense(&a, &square, &row), Dst::of(&mut w, &[n], &[1]), Dst::of(&mut v, &square, &row))
            .unwrap();
        assert!(w.windows(2).all(|p| p[0] <= p[1]));
        for i in 0..n {
            for j in 0..=i {
                let sum: f64 = (0..n).map(|l| v[i * n + l] * w[l] * v[j * n + l]).sum();
                assert!((sum - a[i * n + j]).abs() < 1e-12);
            }
        }
    }
}
