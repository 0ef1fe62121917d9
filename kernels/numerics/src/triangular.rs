//! Equations with triangular matrices.

use crate::Field;
use crate::stack::{count, each, read, write};
use faer::Par;
use faer::linalg::triangular_solve::{
    solve_lower_triangular_in_place, solve_unit_lower_triangular_in_place,
    solve_unit_upper_triangular_in_place, solve_upper_triangular_in_place,
};
use sinter_kernels::view::{Dst, Src};

/// `x` with `a x = b` for each pair of matrices of [.., n, n] and [.., n, k], where
/// only one triangle of `a` counts, and with `unit` not even its diagonal, which is
/// one then. Division by zero gives infinities or NaN.
pub fn triangular_solve<T: Field>(a: Src<T>, b: Src<T>, upper: bool, unit: bool, x: Dst<T>) {
    let r = b.shape.len();
    let (n, k) = (b.shape[r - 2], b.shape[r - 1]);
    each(count(b.shape, 2), n * n * k, |item| {
        let (a, mut y) = (read(&a, item), read(&b, item));
        match (upper, unit) {
            (false, false) => solve_lower_triangular_in_place(a.as_ref(), y.as_mut(), Par::Seq),
            (false, true) => {
                solve_unit_lower_triangular_in_place(a.as_ref(), y.as_mut(), Par::Seq);
            }
            (true, false) => solve_upper_triangular_in_place(a.as_ref(), y.as_mut(), Par::Seq),
            (true, true) => {
                solve_unit_upper_triangular_in_place(a.as_ref(), y.as_mut(), Par::Seq);
            }
        }
        write(&x, item, |i, j| y[(i, j)]);
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{dense, matrix};

    #[test]
    fn solutions_multiply_back() {
        for (n, k) in [(1, 1), (7, 3), (65, 2), (4, 0), (0, 3)] {
            let (a, b) = (matrix(n, n, 1), matrix(n, k, 2));
            let shape = [n, k];
            let strides = [k as isize, 1];
            for (upper, unit) in [(false, false), (false, true), (true, false), (true, true)] {
                let at = |i: usize, j: usize| match i.cmp(&j) {
                    std::cmp::Ordering::Equal if unit => 1.0,
                    std::cmp::Ordering::Equal => a[i * n + i],
                    o => {
                        if o.is_lt() == upper {
                            a[i * n + j] * 0.1
                        } else {
                            0.0
                        }
                    }
                };
                let full: Vec<f64> =
                    (0..n * n).map(|e| if e / n == e % n { a[e] } else { a[e] * 0.1 }).collect();
                let mut x = vec![0.0; n * k];
                triangular_solve(
                    dense(&full, &[n, n], &[n as isize, 1]),
                    dense(&b, &shape, &strides),
                    upper,
                    unit,
                    Dst::of(&mut x, &shape, &strides),
                );
                for i in 0..n {
                    for j in 0..k {
                        let sum: f64 = (0..n).map(|l| at(i, l) * x[l * k + j]).sum();
                        let scale: f64 = (0..n).map(|l| (at(i, l) * x[l * k + j]).abs()).sum();
                        assert!((sum - b[i * k + j]).abs() <= 1e-12 * scale.max(1.0));
                    }
                }
            }
        }
    }
}
