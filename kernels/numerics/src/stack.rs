//! Stacks of matrices: the last two dimensions of a view, under any leading ones.

use crate::{Cause, Failure, Field};
use faer::Mat;
use faer::traits::ComplexField;
use sinter_kernels::par;
use sinter_kernels::view::{Dst, Element, Src};
use std::sync::atomic::{AtomicUsize, Ordering};

/// Elements from the first to the first of item `b` of the leading dimensions.
fn item(shape: &[usize], strides: &[isize], core: usize, mut b: usize) -> isize {
    let mut at = 0;
    for d in (0..shape.len() - core).rev() {
        at += (b % shape[d]) as isize * strides[d];
        b /= shape[d];
    }
    at
}

/// How many items the leading dimensions hold when the last `core` make up one.
pub(crate) fn count(shape: &[usize], core: usize) -> usize {
    shape[..shape.len() - core].iter().product()
}

/// A copy of matrix `b`.
pub(crate) fn read<T: Field>(x: &Src<T>, b: usize) -> Mat<T> {
    let r = x.shape.len();
    let (m, n) = (x.shape[r - 2], x.shape[r - 1]);
    let (rs, cs) = (x.strides[r - 2], x.strides[r - 1]);
    let at = item(x.shape, x.strides, 2, b);
    // SAFETY: every index lies within the view, which was checked when it was made.
    Mat::from_fn(m, n, |i, j| unsafe { *x.ptr().offset(at + i as isize * rs + j as isize * cs) })
}

/// Writes matrix `b`. Items are distinct elements of the view, so threads may write
/// different ones.
pub(crate) fn write<T: Element>(out: &Dst<T>, b: usize, f: impl Fn(usize, usize) -> T) {
    let r = out.shape.len();
    let (m, n) = (out.shape[r - 2], out.shape[r - 1]);
    let (rs, cs) = (out.strides[r - 2], out.strides[r - 1]);
    let at = item(out.shape, out.strides, 2, b);
    for i in 0..m {
        for j in 0..n {
            // SAFETY: every index lies within the view; nobody else writes item `b`.
            unsafe { *out.ptr().offset(at + i as isize * rs + j as isize * cs) = f(i, j) };
        }
    }
}

/// Writes vector `b`.
pub(crate) fn write_vector<T: Element>(out: &Dst<T>, b: usize, f: impl Fn(usize) -> T) {
    let r = out.shape.len();
    let (n, stride) = (out.shape[r - 1], out.strides[r - 1]);
    let at = item(out.shape, out.strides, 1, b);
    for i in 0..n {
        // SAFETY: as for `write`.
        unsafe { *out.ptr().offset(at + i as isize * stride) = f(i) };
    }
}

/// Writes number `b`.
pub(crate) fn write_one<T: Element>(out: &Dst<T>, b: usize, value: T) {
    // SAFETY: as for `write`.
    unsafe { *out.ptr().offset(item(out.shape, out.strides, 0, b)) = value };
}

/// Whether every element is a finite number.
pub(crate) fn is_finite<T: Field>(x: &Mat<T>) -> bool {
    (0..x.ncols()).all(|j| (0..x.nrows()).all(|i| ComplexField::is_finite_impl(&x[(i, j)])))
}

/// Runs `f` on each of `n` items of about `flops` operations, on several threads
/// where that pays.
pub(crate) fn each(n: usize, flops: usize, f: impl Fn(usize) + Sync) {
    // About one operation a nanosecond, and a few hundred to begin with.
    let grain = par::SHARE_NS / (flops + 300);
    par::for_range(n, grain.max(1), |items| items.for_each(&f));
}

/// As [`each`]; the failure of the first item that failed.
pub(crate) fn try_each(
    n: usize,
    flops: usize,
    f: impl Fn(usize) -> Result<(), Cause> + Sync,
) -> Result<(), Failure> {
    // The first item, not the first in time: the same for any number of threads.
    let first = AtomicUsize::new(usize::MAX);
    each(n, flops, |b| {
        if let Err(cause) = f(b) {
            let code = b * 2 + usize::from(cause == Cause::NoConvergence);
            first.fetch_min(code, Ordering::Relaxed);
        }
    });
    match first.into_inner() {
        usize::MAX => Ok(()),
        code => {
            let cause = if code % 2 == 1 { Cause::NoConvergence } else { Cause::NotFinite };
            Err(Failure { item: code / 2, cause })
        }
    }
}
