//! Softmax and its relatives along an axis.
//!
//! The largest element of a line is subtracted before exponentials are taken, so
//! nothing overflows; a line of which all elements are negative infinity, or one
//! positive infinity, gives NaN, as in PyTorch. A kernel that takes an axis wants
//! at least one dimension; a single number is a line of one.

use crate::copy::fill;
use crate::lines::{Group, Lines, Rows, without};
use crate::scratch::Scratch;
use crate::simd::row::{for_vectors, join_row, read, sum_row, write};
use crate::simd::{self, Number, Real, RealTask, RealVector, Vector};
use crate::view::{Dst, Element, Src};
use smallvec::SmallVec;
use std::marker::PhantomData;

/// Cost of an element in tenths of a nanosecond.
const COST: usize = 3;
crate::instances::instances!(SoftmaxKernels for f32, f64 => {
    fn softmax_kernel(x: Src<Self>, axis: usize, out: Dst<Self>) = softmax_of;
    fn log_softmax_kernel(x: Src<Self>, axis: usize, out: Dst<Self>) = log_softmax_of;
    fn softmax_grad_kernel(y: Src<Self>, gy: Src<Self>, axis: usize, gx: Dst<Self>) = softmax_grad_of;
    fn log_softmax_grad_kernel(y: Src<Self>, gy: Src<Self>, axis: usize, gx: Dst<Self>) = log_softmax_grad_of;
});

/// `out = e^x / sum of e^x` along `axis`. `out` may be `x`.
///
/// # Panics
/// If the shapes differ or there is no such axis.
pub fn softmax<T: Real>(x: Src<T>, axis: usize, out: Dst<T>) {
    T::softmax_kernel(x, axis, out)
}

fn softmax_of<T: Real>(x: Src<T>, axis: usize, out: Dst<T>) {
    map_rows(Softmax, [x], axis, out);
}

/// `out = x - ln(sum of e^x)` along `axis`. `out` may be `x`.
///
/// # Panics
/// As [`softmax`].
pub fn log_softmax<T: Real>(x: Src<T>, axis: usize, out: Dst<T>) {
    T::log_softmax_kernel(x, axis, out)
}

fn log_softmax_of<T: Real>(x: Src<T>, axis: usize, out: Dst<T>) {
    map_rows(LogSoftmax, [x], axis, out);
}

/// Gradient of [`softmax`] from its result `y` and the gradient `gy` of that:
/// `gx = y (gy - sum of y gy)`. `gx` may be `gy`.
///
/// # Panics
/// As [`softmax`].
pub fn softmax_grad<T: Real>(y: Src<T>, gy: Src<T>, axis: usize, gx: Dst<T>) {
    T::softmax_grad_kernel(y, gy, axis, gx)
}

fn softmax_grad_of<T: Real>(y: Src<T>, gy: Src<T>, axis: usize, gx: Dst<T>) {
    map_rows(SoftmaxGrad, [y, gy], axis, gx);
}

/// Gradient of [`log_softmax`] from its result `y` and the gradient `gy` of that:
/// `gx = gy - e^y sum of gy`. `gx` may be `gy`.
///
/// # Panics
/// As [`softmax`].
pub fn log_softmax_grad<T: Real>(y: Src<T>, gy: Src<T>, axis: usize, gx: Dst<T>) {
    T::log_softmax_grad_kernel(y, gy, axis, gx)
}

fn log_softmax_grad_of<T: Real>(y: Src<T>, gy: Src<T>, axis: usize, gx: Dst<T>) {
    map_rows(LogSoftmaxGrad, [y, gy], axis, gx);
}

/// `out = ln(sum of e^x)` along `axis`, which `out` lacks. Infinities count as
/// limits: negative infinity of nothing, or of nothing else.
///
/// # Panics
/// If `out` has not the shape of `x` without `axis`.
pub fn logsumexp<T: Real>(x: Src<T>, axis: usize, out: Dst<T>) {
    let n = x.shape[axis];
    assert_eq!(without(x.shape, axis)[..], *out.shape, "the axis is reduced");
    if n == 0 {
        return fill(out, T::LOWEST);
    }
    let mut strides: SmallVec<[isize; 6]> = out.strides.into();
    strides.insert(axis, 0);
    let lines = Lines::new(x.shape, axis, [x.strides, &strides], [true, false]);
    lines.for_groups(n * COST, |g, room: &mut Scratch| {
        // SAFETY: lines lie within the views.
        unsafe {
            let rows = g.read(0, x.ptr(), n, room);
            simd::run_real(LogSumExp { n, rows, g: &g, out: out.ptr() });
        }
    });
}

/// What is computed for a row of a line's elements.
trait RowMap<const K: usize>: Copy + Sync {
    /// Computes `out` from `xs`.
    ///
    /// # Safety
    /// All are rows of `n` elements; `out` may be one of `xs`.
    unsafe fn row<V: RealVector<Elem: Real>>(n: usize, xs: [*const V::Elem; K], out: *mut V::Elem);
}

/// A group of rows.
struct MapRows<'a, T, R, const K: usize> {
    map: PhantomData<R>,
    n: usize,
    lines: usize,
    xs: &'a [Rows<*const T>; K],
    out: Rows<*mut T>,
}

impl<T: Real, R: RowMap<K>, const K: usize> RealTask<T> for MapRows<'_, T, R, K> {
    type Out = ();
    #[inline(always)]
    fn run<V: RealVector<Elem = T>>(self) {
        for l in 0..self.lines {
            // SAFETY: each group has rows for all of its lines.
            unsafe {
                let mut xs = [std::ptr::null(); K];
                for k in 0..K {
                    xs[k] = self.xs[k].row(l);
                }
                R::row::<V>(self.n, xs, self.out.row(l));
            }
        }
    }
}

fn map_rows<T: Real, R: RowMap<K>, const K: usize>(
    _: R,
    xs: [Src<T>; K],
    axis: usize,
    out: Dst<T>,
) {
    xs.iter().for_each(|x| assert_eq!(x.shape, out.shape, "operands have one shape"));
    let n = out.shape[axis];
    let strides: [&[isize]; 3] = std::array::from_fn(|k| match k {
        0 => out.strides,
        k => xs.get(k - 1).map_or(out.strides, |x| x.strides),
    });
    let lines = Lines::new(out.shape, axis, strides, [true; 3]);
    lines.for_groups(n * COST, |g, [room, rooms @ ..]: &mut [Scratch; 3]| {
        // SAFETY: lines lie within the views.
        unsafe {
            let to = g.room(0, out.ptr(), n, room);
            let from = std::array::from_fn(|k| g.read(k + 1, xs[k].ptr(), n, &mut rooms[k]));
            let map = PhantomData::<R>;
            simd::run_real(MapRows { map, n, lines: g.lines, xs: &from, out: to });
            g.put(0, out.ptr(), n, to);
        }
    });
}

/// The largest of `n` elements.
///
/// # Safety
/// They are there to read.
#[inline(always)]
unsafe fn largest<V: Vector>(n: usize, x: *const V::Elem) -> V::Elem {
    let lowest = V::Elem::LOWEST;
    let [m] = join_row::<V, 1>(
        n,
        lowest,
        V::max,
        #[inline(always)]
        |i, k| {
            // SAFETY: the caller vouches for `n` elements.
            [unsafe { read(x, i, k, lowest) }]
        },
    );
    m
}

#[derive(Clone, Copy)]
struct Softmax;

impl RowMap<1> for Softmax {
    #[inline(always)]
    unsafe fn row<V: RealVector<Elem: Real>>(
        n: usize,
        [x]: [*const V::Elem; 1],
        out: *mut V::Elem,
    ) {
        // SAFETY: rows of `n` elements.
        unsafe {
            let m = V::splat(largest::<V>(n, x));
            let [sum] = sum_row::<V, 1>(
                n,
                #[inline(always)]
                |i, k| {
                    let e = read::<V>(x, i, k, V::Elem::LOWEST).sub(m).exp();
                    write(e, out, i, k);
                    [e]
                },
            );
            let scale = V::splat(V::Elem::ONE.over(sum));
            for_vectors(
                n,
                #[inline(always)]
                |i, k| write(read::<V>(out, i, k, V::Elem::ZERO).mul(scale), out, i, k),
            );
        }
    }
}

#[derive(Clone, Copy)]
struct LogSoftmax;

impl RowMap<1> for LogSoftmax {
    #[inline(always)]
    unsafe fn row<V: RealVector<Elem: Real>>(
        n: usize,
        [x]: [*const V::Elem; 1],
        out: *mut V::Elem,
    ) {
        // SAFETY: rows of `n` elements.
        unsafe {
            let m = V::splat(largest::<V>(n, x));
            let [sum] = sum_row::<V, 1>(
                n,
                #[inline(always)]
                |i, k| [read::<V>(x, i, k, V::Elem::LOWEST).sub(m).exp()],
            );
            let log = V::splat(sum.logarithm());
            for_vectors(
                n,
                #[inline(always)]
                |i, k| write(read::<V>(x, i, k, V::Elem::ZERO).sub(m).sub(log), out, i, k),
            );
        }
    }
}

#[derive(Clone, Copy)]
struct SoftmaxGrad;

impl RowMap<2> for SoftmaxGrad {
    #[inline(always)]
    unsafe fn row<V: RealVector<Elem: Real>>(
        n: usize,
        [y, gy]: [*const V::Elem; 2],
        gx: *mut V::Elem,
    ) {
        let zero = V::Elem::ZERO;
        // SAFETY: rows of `n` elements.
        unsafe {
            let [dot] = sum_row::<V, 1>(
                n,
                #[inline(always)]
                |i, k| [read::<V>(y, i, k, zero).mul(read(gy, i, k, zero))],
            );
            let dot = V::splat(dot);
            for_vectors(
                n,
                #[inline(always)]
                |i, k| {
                    let (y, gy) = (read::<V>(y, i, k, zero), read::<V>(gy, i, k, zero));
                    write(y.mul(gy.sub(dot)), gx, i, k);
                },
            );
        }
    }
}

#[derive(Clone, Copy)]
struct LogSoftmaxGrad;

impl RowMap<2> for LogSoftmaxGrad {
    #[inline(always)]
    unsafe fn row<V: RealVector<Elem: Real>>(
        n: usize,
        [y, gy]: [*const V::Elem; 2],
        gx: *mut V::Elem,
    ) {
        let zero = V::Elem::ZERO;
        // SAFETY: rows of `n` elements.
        unsafe {
            let [sum] = sum_row::<V, 1>(
                n,
                #[inline(always)]
                |i, k| [read(gy, i, k, zero)],
            );
            let minus = V::splat(zero.minus(sum));
            for_vectors(
                n,
                #[inline(always)]
                |i, k| {
                    let (y, gy) = (read::<V>(y, i, k, zero), read::<V>(gy, i, k, zero));
                    write(y.exp().fma(minus, gy), gx, i, k);
                },
            );
        }
    }
}

struct LogSumExp<'a, T> {
    n: usize,
    rows: Rows<*const T>,
    g: &'a Group<2>,
    out: *mut T,
}

impl<T: Real> RealTask<T> for LogSumExp<'_, T> {
    type Out = ();
    #[inline(always)]
    fn run<V: RealVector<Elem = T>>(self) {
        for l in 0..self.g.lines {
            // SAFETY: each group has rows of `n` elements for all of its lines.
            unsafe {
                let x = self.rows.row(l);
                let m = largest::<V>(self.n, x);
                // An infinite maximum would turn itself into NaN.
                let m = if m.f64().is_infinite() { T::ZERO } else { m };
                let shift = V::splat(m);
                let [sum] = sum_row::<V, 1>(
                    self.n,
                    #[inline(always)]
                    |i, k| [read::<V>(x, i, k, T::LOWEST).sub(shift).exp()],
                );
                *self.out.offset(self.g.line(1, l)) = m.plus(sum.logarithm());
            }
        }
    }
}

#[cfg(test)]
mod tests;
