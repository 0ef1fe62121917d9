//! Normalisation of rows: layer norm (Ba, Kiros and Hinton, 2016) and RMS norm
//! (Zhang and Sennrich, 2019).
//!
//! With `x̂ = (x - mean) r`, `y = x̂ w + b` and `g = gy w`, the gradient is
//! `gx = r (g - mean(g) - x̂ mean(g x̂))`. RMS norm is the same without the means of
//! `x` and `g`.

use super::vector;
use crate::copy::fill;
use crate::lines::{Group, Lines, Rows};
use crate::par;
use crate::scratch::Scratch;
use crate::simd::row::{Pairwise, for_vectors, read, sum_row, write};
use crate::simd::{self, Real, RealTask, RealVector};
use crate::view::{Dst, Element, Src};
use std::ops::Range;

/// Cost of an element in tenths of a nanosecond.
const COST: usize = 2;
/// Rows over which gradients of parameters are summed one after another.
const ROWS: usize = 64;
crate::instances::instances!(LayerNormKernels for f32, f64 => {
    fn layer_norm_kernel(x: Src<Self>, weight: Option<Src<Self>>, bias: Option<Src<Self>>, eps: f64, y: Dst<Self>, mean: Dst<Self>, rstd: Dst<Self>) = layer_norm_of;
    fn layer_norm_grad_kernel(gy: Src<Self>, x: Src<Self>, mean: Src<Self>, rstd: Src<Self>, weight: Option<Src<Self>>, gx: Option<Dst<Self>>, gweight: Option<Dst<Self>>, gbias: Option<Dst<Self>>) = layer_norm_grad_of;
});

/// `y = (x - mean) / sqrt(variance + eps) * weight + bias` for each row of
/// `x: [rows, d]`, without factors or summands that are absent. Also gives the
/// `mean: [rows]` and the reciprocal root `rstd: [rows]`, which the gradient needs.
/// `y` may be `x`.
///
/// # Panics
/// If shapes do not match.
pub fn layer_norm<T: Real>(
    x: Src<T>,
    weight: Option<Src<T>>,
    bias: Option<Src<T>>,
    eps: f64,
    y: Dst<T>,
    mean: Dst<T>,
    rstd: Dst<T>,
) {
    T::layer_norm_kernel(x, weight, bias, eps, y, mean, rstd)
}

fn layer_norm_of<T: Real>(
    x: Src<T>,
    weight: Option<Src<T>>,
    bias: Option<Src<T>>,
    eps: f64,
    y: Dst<T>,
    mean: Dst<T>,
    rstd: Dst<T>,
) {
    forward(x, weight, bias, eps, y, Some(mean), rstd);
}

/// `y = x / sqrt(mean of x² + eps) * weight` for each row of `x: [rows, d]`. Also
/// gives the reciprocal root `rstd: [rows]`, which the gradient needs. `y` may be `x`.
///
/// # Panics
/// If shapes do not match.
pub fn rms_norm<T: Real>(x: Src<T>, weight: Option<Src<T>>, eps: f64, y: Dst<T>, rstd: Dst<T>) {
    forward(x, weight, None, eps, y, None, rstd);
}

/// Gradients of [`layer_norm`] with respect to `x`, the weight and the bias, each
/// computed if wanted. `gx` may be `gy`.
///
/// # Panics
/// If shapes do not match.
pub fn layer_norm_grad<T: Real>(
    gy: Src<T>,
    x: Src<T>,
    mean: Src<T>,
    rstd: Src<T>,
    weight: Option<Src<T>>,
    gx: Option<Dst<T>>,
    gweight: Option<Dst<T>>,
    gbias: Option<Dst<T>>,
) {
    T::layer_norm_grad_kernel(gy, x, mean, rstd, weight, gx, gweight, gbias)
}

fn layer_norm_grad_of<T: Real>(
    gy: Src<T>,
    x: Src<T>,
    mean: Src<T>,
    rstd: Src<T>,
    weight: Option<Src<T>>,
    gx: Option<Dst<T>>,
    gweight: Option<Dst<T>>,
    gbias: Option<Dst<T>>,
) {
    backward(gy, x, Some(mean), rstd, weight, gx, gweight, gbias);
}

/// Gradients of [`rms_norm`] with respect to `x` and the weight, each computed if
/// wanted. `gx` may be `gy`.
///
/// # Panics
/// If shapes do not match.
pub fn rms_norm_grad<T: Real>(
    gy: Src<T>,
    x: Src<T>,
    rstd: Src<T>,
    weight: Option<Src<T>>,
    gx: Option<Dst<T>>,
    gweight: Option<Dst<T>>,
) {
    backward(gy, x, None, rstd, weight, gx, gweight, None);
}

fn extents<T>(x: &Src<T>) -> (usize, usize) {
    let &[rows, n] = x.shape else { panic!("rows to normalise form a matrix") };
    (rows, n)
}

fn forward<T: Real>(
    x: Src<T>,
    weight: Option<Src<T>>,
    bias: Option<Src<T>>,
    eps: f64,
    y: Dst<T>,
    mean: Option<Dst<T>>,
    rstd: Dst<T>,
) {
    let (rows, n) = extents(&x);
    assert_eq!(x.shape, y.shape, "the output has the input's shape");
    for v in mean.iter().chain([&rstd]) {
        assert_eq!(*v.shape, [rows], "statistics have one number for each row");
    }
    if n == 0 {
        // The mean of nothing.
        return mean.iter().chain([&rstd]).for_each(|v| fill(*v, T::of(f64::NAN)));
    }
    // SAFETY: outputs are distinct from parameters.
    let (weight, bias) = unsafe { (weight.map(|w| vector(&w, n)), bias.map(|b| vector(&b, n))) };
    let statistics = mean.unwrap_or(rstd);
    let strides: [&[isize]; 4] =
        [x.strides, y.strides, &[statistics.strides[0], 0], &[rstd.strides[0], 0]];
    let lines = Lines::new(x.shape, 1, strides, [true, true, false, false]);
    lines.for_groups(n * COST, |g, rooms: &mut [Scratch; 2]| {
        // SAFETY: lines lie within the views.
        unsafe {
            let to = g.room(1, y.ptr(), n, &mut rooms[1]);
            simd::run_real(Forward {
                n,
                eps: T::of(eps),
                g: &g,
                x: g.read(0, x.ptr(), n, &mut rooms[0]),
                y: to,
                weight: weight.as_ref().map(|w| w.as_ptr()),
                bias: bias.as_ref().map(|b| b.as_ptr()),
                mean: mean.map(|m| m.ptr()),
                rstd: rstd.ptr(),
            });
            g.put(1, y.ptr(), n, to);
        }
    });
}

/// A group of rows; the operands 2 and 3 of the lines are the statistics.
struct Forward<'a, T> {
    n: usize,
    eps: T,
    g: &'a Group<4>,
    x: Rows<*const T>,
    y: Rows<*mut T>,
    weight: Option<*const T>,
    bias: Option<*const T>,
    mean: Option<*mut T>,
    rstd: *mut T,
}

impl<T: Real> RealTask<T> for Forward<'_, T> {
    type Out = ();
    #[inline(always)]
    fn run<V: RealVector<Elem = T>>(self) {
        let Forward { n, g, weight, bias, .. } = self;
        let per = T::ONE.over(T::of(n as f64));
        for l in 0..g.lines {
            // SAFETY: rows and parameters have `n` elements; the group has offsets
            // for all of its lines.
            unsafe {
                let (x, y) = (self.x.row(l), self.y.row(l));
                let mut mean = T::ZERO;
                if let Some(to) = self.mean {
                    let [sum] = sum_row::<V, 1>(
                        n,
                        #[inline(always)]
                        |i, k| [read(x, i, k, T::ZERO)],
                    );
                    mean = sum.times(per);
                    *to.offset(g.line(2, l)) = mean;
                }
                let m = V::splat(mean);
                let [squares] = sum_row::<V, 1>(
                    n,
                    #[inline(always)]
                    |i, k| {
                        let d = read::<V>(x, i, k, mean).sub(m);
                        [d.mul(d)]
                    },
                );
                let r = T::ONE.over(squares.fused(per, self.eps).root());
                *self.rstd.offset(g.line(3, l)) = r;
                let r = V::splat(r);
                for_vectors(
                    n,
                    #[inline(always)]
                    |i, k| {
                        let mut v = read::<V>(x, i, k, T::ZERO).sub(m).mul(r);
                        if let Some(w) = weight {
                            v = v.mul(read(w, i, k, T::ZERO));
                        }
                        if let Some(b) = bias {
                            v = v.add(read(b, i, k, T::ZERO));
                        }
                        write(v, y, i, k);
                    },
                );
            }
        }
    }
}

fn backward<T: Real>(
    gy: Src<T>,
    x: Src<T>,
    mean: Option<Src<T>>,
    rstd: Src<T>,
    weight: Option<Src<T>>,
    gx: Option<Dst<T>>,
    gweight: Option<Dst<T>>,
    gbias: Option<Dst<T>>,
) {
    let (rows, n) = extents(&x);
    assert_eq!(gy.shape, x.shape, "the gradient has the output's shape");
    gx.iter().for_each(|g| assert_eq!(g.shape, x.shape, "a gradient has its input's shape"));
    for v in mean.iter().chain([&rstd]) {
        assert_eq!(*v.shape, [rows], "statistics have one number for each row");
    }
    for v in gweight.iter().chain(&gbias) {
        assert_eq!(*v.shape, [n], "a gradient has its parameter's shape");
    }
    // SAFETY: outputs are distinct from parameters.
    let weight = unsafe { weight.map(|w| vector(&w, n)) };
    let statistics = mean.unwrap_or(rstd);
    let to = gx.map_or(gy.strides, |g| g.strides);
    let strides: [&[isize]; 5] =
        [gy.strides, x.strides, to, &[statistics.strides[0], 0], &[rstd.strides[0], 0]];
    let lines = Lines::new(x.shape, 1, strides, [true, true, gx.is_some(), false, false]);
    let (wants_weight, wants_bias) = (gweight.is_some(), gbias.is_some());
    let block = |range: Range<usize>| {
        let sums = |wanted| vec![T::ZERO; if wanted { n } else { 0 }];
        let (mut w, mut b) = (sums(wants_weight), sums(wants_bias));
        let mut rooms = [Scratch::default(), Scratch::default(), Scratch::default()];
        // SAFETY: lines lie within the views.
        lines.for_range(range, |g| unsafe {
            let to = gx.map(|gx| g.room(2, gx.ptr(), n, &mut rooms[2]));
            simd::run_real(Backward {
                n,
                g: &g,
                gy: g.read(0, gy.ptr(), n, &mut rooms[0]),
                x: g.read(1, x.ptr(), n, &mut rooms[1]),
                gx: to,
                mean: mean.map(|m| m.ptr()),
                rstd: rstd.ptr(),
                weight: weight.as_ref().map(|w| w.as_ptr()),
                gweight: wants_weight.then_some(w.as_mut_ptr()),
                gbias: wants_bias.then_some(b.as_mut_ptr()),
            });
            if let (Some(gx), Some(to)) = (gx, to) {
                g.put(2, gx.ptr(), n, to);
            }
        });
        [w, b]
    };
    // A partial sum for each block of rows; the partial sums join in pairs.
    let parallel = rows * n * COST >= par::SHARE_NS * 10;
    let parts = par::map_blocks(rows, ROWS, parallel, block);
    let plus = |mut a: Vec<T>, b: Vec<T>| {
        a.iter_mut().zip(b).for_each(|(a, b)| *a = a.plus(b));
        a
    };
    let mut totals = Pairwise::new();
    parts.into_iter().for_each(|p| totals.push(p, |[a, b], [c, d]| [plus(a, c), plus(b, d)]));
    let total = totals.finish(|[a, b], [c, d]| [plus(a, c), plus(b, d)]);
    for (to, sums) in [gweight, gbias].into_iter().zip(total.unwrap_or_default()) {
        for i in 0..to.map_or(0, |_| n) {
            let to = to.expect("not absent when there is something to write");
            let v = sums.get(i).copied().unwrap_or(T::ZERO);
            // SAFETY: `i` is less than the vector's extent.
            unsafe { *to.ptr().offset(i as isize * to.strides[0]) = v };
        }
    }
}

/// A group of rows; the operands 3 and 4 of the lines are the statistics.
struct Backward<'a, T> {
    n: usize,
    g: &'a Group<5>,
    gy: Rows<*const T>,
    x: Rows<*const T>,
    gx: Option<Rows<*mut T>>,
    mean: Option<*const T>,
    rstd: *const T,
    weight: Option<*const T>,
    gweight: Option<*mut T>,
    gbias: Option<*mut T>,
}

impl<T: Real> RealTask<T> for Backward<'_, T> {
    type Out = ();
    #[inline(always)]
    fn run<V: RealVector<Elem = T>>(self) {
        let Backward { n, g, weight, gweight, gbias, .. } = self;
        let per = T::ONE.over(T::of(n as f64));
        for l in 0..g.lines {
            // SAFETY: rows and vectors have `n` elements; the group has offsets for
            // all of its lines.
            unsafe {
                let (gy, x) = (self.gy.row(l), self.x.row(l));
                let rstd = *self.rstd.offset(g.line(4, l));
                let r = V::splat(rstd);
                let m = V::splat(self.mean.map_or(T::ZERO, |m| *m.offset(g.line(3, l))));
                if let Some(gx) = self.gx {
                    let gx = gx.row(l);
                    let [sum, dot] = sum_row::<V, 2>(
                        n,
                        #[inline(always)]
                        |i, k| {
                            let g = scaled::<V>(gy, weight, i, k);
                            [g, g.mul(read::<V>(x, i, k, T::ZERO).sub(m))]
                        },
                    );
                    // gx = r (g - c) - (x - mean) r³ mean(g (x - mean))
                    let c = if self.mean.is_some() { sum.times(per) } else { T::ZERO };
                    let slope = T::ZERO.minus(dot.times(per).times(rstd).times(rstd));
                    let (c, slope) = (V::splat(c), V::splat(slope));
                    parameters::<V>(n, gy, x, m, r, gweight, gbias);
                    for_vectors(
                        n,
                        #[inline(always)]
                        |i, k| {
                            let d = read::<V>(x, i, k, T::ZERO).sub(m);
                            let g: V = scaled(gy, weight, i, k);
                            write(d.fma(slope, g.sub(c)).mul(r), gx, i, k);
                        },
                    );
                } else {
                    parameters::<V>(n, gy, x, m, r, gweight, gbias);
                }
            }
        }
    }
}

/// Elements of `gy w`.
///
/// # Safety
/// They are there to read.
#[inline(always)]
unsafe fn scaled<V: RealVector>(
    gy: *const V::Elem,
    weight: Option<*const V::Elem>,
    i: usize,
    k: usize,
) -> V {
    // SAFETY: as the caller vouches.
    unsafe {
        let g = read::<V>(gy, i, k, V::Elem::ZERO);
        match weight {
            Some(w) => g.mul(read(w, i, k, V::Elem::ZERO)),
            None => g,
        }
    }
}

/// Adds a row's part to the gradients of the parameters.
///
/// # Safety
/// All are rows of `n` elements.
#[inline(always)]
unsafe fn parameters<V: RealVector>(
    n: usize,
    gy: *const V::Elem,
    x: *const V::Elem,
    m: V,
    r: V,
    gweight: Option<*mut V::Elem>,
    gbias: Option<*mut V::Elem>,
) {
    let zero = V::Elem::ZERO;
    // SAFETY: as the caller vouches.
    unsafe {
        if let Some(w) = gweight {
            for_vectors(
                n,
                #[inline(always)]
                |i, k| {
                    let x = read::<V>(x, i, k, zero).sub(m).mul(r);
                    write(x.fma(read(gy, i, k, zero), read(w, i, k, zero)), w, i, k);
                },
            );
        }
        if let Some(b) = gbias {
            for_vectors(
                n,
                #[inline(always)]
                |i, k| {
                    write(read::<V>(b, i, k, zero).add(read(gy, i, k, zero)), b, i, k);
                },
            );
        }
    }
}
