//! Softmax and its relatives along an axis.
//!
//! The largest element of a line is subtracted before exponentials are taken, so
//! nothing overflows; a line of which all elements are negative infinity, or one
//! positive infinity, gives NaN, as in PyTorch. A kernel that takes an axis wants
//! at least one dimension; a single number is a line of one.
//!
//! There are kernels for `f32` alone: in other types, these functions are composed of
//! others by whoever needs them.

use crate::copy::fill;
use crate::lines::{Group, Lines, Rows, without};
use crate::scratch::Scratch;
use crate::simd::row::{for_vectors, join_row, read, sum_row, write};
use crate::simd::{self, Number, Real, RealTask, RealVector};
use crate::view::{Dst, Element, Src};
use smallvec::SmallVec;
use std::marker::PhantomData;

/// Cost of an element in tenths of a nanosecond.
const COST: usize = 3;

/// `out = e^x / sum of e^x` along `axis`. `out` may be `x`.
///
/// # Panics
/// If the shapes differ or there is no such axis.
pub fn softmax(x: Src<f32>, axis: usize, out: Dst<f32>) {
    map_rows(rows_of::<Softmax>, &[x], axis, out);
}

/// `out = x - ln(sum of e^x)` along `axis`. `out` may be `x`.
///
/// # Panics
/// As [`softmax`].
pub fn log_softmax(x: Src<f32>, axis: usize, out: Dst<f32>) {
    map_rows(rows_of::<LogSoftmax>, &[x], axis, out);
}

/// Gradient of [`softmax`] from its result `y` and the gradient `gy` of that:
/// `gx = y (gy - sum of y gy)`. `gx` may be `gy`.
///
/// # Panics
/// As [`softmax`].
pub fn softmax_grad(y: Src<f32>, gy: Src<f32>, axis: usize, gx: Dst<f32>) {
    map_rows(rows_of::<SoftmaxGrad>, &[y, gy], axis, gx);
}

/// Gradient of [`log_softmax`] from its result `y` and the gradient `gy` of that:
/// `gx = gy - e^y sum of gy`. `gx` may be `gy`.
///
/// # Panics
/// As [`softmax`].
pub fn log_softmax_grad(y: Src<f32>, gy: Src<f32>, axis: usize, gx: Dst<f32>) {
    map_rows(rows_of::<LogSoftmaxGrad>, &[y, gy], axis, gx);
}

/// `out = ln(sum of e^x)` along `axis`, which `out` lacks. Infinities count as
/// limits: negative infinity of nothing, or of nothing else.
///
/// # Panics
/// If `out` has not the shape of `x` without `axis`.
pub fn logsumexp(x: Src<f32>, axis: usize, out: Dst<f32>) {
    let n = x.shape[axis];
    assert_eq!(without(x.shape, axis)[..], *out.shape, "the axis is reduced");
    if n == 0 {
        return fill(out, f32::LOWEST);
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
trait RowMap {
    /// Computes `out` from one or both of `xs`.
    ///
    /// # Safety
    /// Those that it uses and `out` are rows of `n` elements; `out` may be one of `xs`.
    unsafe fn row<V: RealVector<Elem = f32>>(n: usize, xs: [*const f32; 2], out: *mut f32);
}

/// A group of rows.
struct RowGroup {
    n: usize,
    lines: usize,
    xs: [Rows<*const f32>; 2],
    out: Rows<*mut f32>,
}

struct MapRows<R>(RowGroup, PhantomData<R>);

impl<R: RowMap> RealTask<f32> for MapRows<R> {
    type Out = ();
    #[inline(always)]
    fn run<V: RealVector<Elem = f32>>(self) {
        let RowGroup { n, lines, xs, out } = self.0;
        for l in 0..lines {
            // SAFETY: each group has rows for all of its lines.
            unsafe { R::row::<V>(n, [xs[0].row(l), xs[1].row(l)], out.row(l)) };
        }
    }
}

fn rows_of<R: RowMap>(g: RowGroup) {
    simd::run_real(MapRows(g, PhantomData::<R>));
}

/// Applies `f` to the lines of one or two operands.
fn map_rows(f: fn(RowGroup), xs: &[Src<f32>], axis: usize, out: Dst<f32>) {
    xs.iter().for_each(|x| assert_eq!(x.shape, out.shape, "operands have one shape"));
    let n = out.shape[axis];
    let (first, second) = (xs[0], xs.get(1));
    let strides = [out.strides, first.strides, second.map_or(out.strides, |x| x.strides)];
    let lines = Lines::new(out.shape, axis, strides, [true; 3]);
    lines.for_groups(n * COST, |g, [room, rooms @ ..]: &mut [Scratch; 3]| {
        // SAFETY: lines lie within the views.
        unsafe {
            let to = g.room(0, out.ptr(), n, room);
            let a = g.read(1, first.ptr(), n, &mut rooms[0]);
            let b = second.map_or(a, |x| g.read(2, x.ptr(), n, &mut rooms[1]));
            f(RowGroup { n, lines: g.lines, xs: [a, b], out: to });
            g.put(0, out.ptr(), n, to);
        }
    });
}

/// The largest of `n` elements.
///
/// # Safety
/// They are there to read.
#[inline(always)]
unsafe fn largest<V: RealVector<Elem = f32>>(n: usize, x: *const f32) -> f32 {
    let lowest = f32::LOWEST;
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

struct Softmax;

impl RowMap for Softmax {
    #[inline(always)]
    unsafe fn row<V: RealVector<Elem = f32>>(n: usize, [x, _]: [*const f32; 2], out: *mut f32) {
        // SAFETY: rows of `n` elements.
        unsafe {
            let m = V::splat(largest::<V>(n, x));
            let [sum] = sum_row::<V, 1>(
                n,
                #[inline(always)]
                |i, k| {
                    let e = read::<V>(x, i, k, f32::LOWEST).sub(m).exp();
                    write(e, out, i, k);
                    [e]
                },
            );
            let scale = V::splat(f32::ONE.over(sum));
            for_vectors(
                n,
                #[inline(always)]
                |i, k| write(read::<V>(out, i, k, f32::ZERO).mul(scale), out, i, k),
            );
        }
    }
}

struct LogSoftmax;

impl RowMap for LogSoftmax {
    #[inline(always)]
    unsafe fn row<V: RealVector<Elem = f32>>(n: usize, [x, _]: [*const f32; 2], out: *mut f32) {
        // SAFETY: rows of `n` elements.
        unsafe {
            let m = V::splat(largest::<V>(n, x));
            let [sum] = sum_row::<V, 1>(
                n,
                #[inline(always)]
                |i, k| [read::<V>(x, i, k, f32::LOWEST).sub(m).exp()],
            );
            let log = V::splat(sum.logarithm());
            for_vectors(
                n,
                #[inline(always)]
                |i, k| write(read::<V>(x, i, k, f32::ZERO).sub(m).sub(log), out, i, k),
            );
        }
    }
}

struct SoftmaxGrad;

impl RowMap for SoftmaxGrad {
    #[inline(always)]
    unsafe fn row<V: RealVector<Elem = f32>>(n: usize, [y, gy]: [*const f32; 2], gx: *mut f32) {
        let zero = f32::ZERO;
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

struct LogSoftmaxGrad;

impl RowMap for LogSoftmaxGrad {
    #[inline(always)]
    unsafe fn row<V: RealVector<Elem = f32>>(n: usize, [y, gy]: [*const f32; 2], gx: *mut f32) {
        let zero = f32::ZERO;
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

struct LogSumExp<'a> {
    n: usize,
    rows: Rows<*const f32>,
    g: &'a Group<2>,
    out: *mut f32,
}

impl RealTask<f32> for LogSumExp<'_> {
    type Out = ();
    #[inline(always)]
    fn run<V: RealVector<Elem = f32>>(self) {
        for l in 0..self.g.lines {
            // SAFETY: each group has rows of `n` elements for all of its lines.
            unsafe {
                let x = self.rows.row(l);
                let m = largest::<V>(self.n, x);
                // An infinite maximum would turn itself into NaN.
                let m = if m.is_infinite() { f32::ZERO } else { m };
                let shift = V::splat(m);
                let [sum] = sum_row::<V, 1>(
                    self.n,
                    #[inline(always)]
                    |i, k| [read::<V>(x, i, k, f32::LOWEST).sub(shift).exp()],
                );
                *self.out.offset(self.g.line(1, l)) = m.plus(sum.logarithm());
            }
        }
    }
}

#[cfg(test)]
mod tests;
