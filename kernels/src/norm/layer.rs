//! Normalisation of rows: layer norm (Ba, Kiros and Hinton, 2016) and RMS norm
//! (Zhang and Sennrich, 2019).
//!
//! With `x̂ = (x - mean) r`, `y = x̂ w + b` and `g = gy w`, the gradient is
//! `gx = r (g - mean(g) - x̂ mean(g x̂))`. RMS norm is the same without the means of
//! `x` and `g`. There are kernels for `f32` alone.

use super::vector;
use crate::copy::fill;
use crate::lines::{Group, Lines, Rows};
use crate::par;
use crate::scratch::Scratch;
use crate::simd::row::{Pairwise, for_vectors, read, sum_row, write};
use crate::simd::{self, RealTask, RealVector};
use crate::view::{Dst, Src};
use std::ops::Range;

/// Cost of an element in tenths of a nanosecond.
const COST: usize = 2;
/// Rows over which gradients of parameters are summed one after another.
const ROWS: usize = 64;

/// `y = (x - mean) / sqrt(variance + eps) * weight + bias` for each row of
/// `x: [rows, d]`, without factors or summands that are absent. Also gives the
/// `mean: [rows]` and the reciprocal root `rstd: [rows]`, which the gradient needs.
/// `y` may be `x`.
///
/// # Panics
/// If shapes do not match.
pub fn layer_norm(
    x: Src<f32>,
    weight: Option<Src<f32>>,
    bias: Option<Src<f32>>,
    eps: f64,
    y: Dst<f32>,
    mean: Dst<f32>,
    rstd: Dst<f32>,
) {
    forward(x, weight, bias, eps, y, Some(mean), rstd);
}

/// `y = x / sqrt(mean of x² + eps) * weight` for each row of `x: [rows, d]`. Also
/// gives the reciprocal root `rstd: [rows]`, which the gradient needs. `y` may be `x`.
///
/// # Panics
/// If shapes do not match.
pub fn rms_norm(x: Src<f32>, weight: Option<Src<f32>>, eps: f64, y: Dst<f32>, rstd: Dst<f32>) {
    forward(x, weight, None, eps, y, None, rstd);
}

/// Gradients of [`layer_norm`] with respect to `x`, the weight and the bias, each
/// computed if wanted. `gx` may be `gy`.
///
/// # Panics
/// If shapes do not match.
pub fn layer_norm_grad(
    gy: Src<f32>,
    x: Src<f32>,
    mean: Src<f32>,
    rstd: Src<f32>,
    weight: Option<Src<f32>>,
    gx: Option<Dst<f32>>,
    gweight: Option<Dst<f32>>,
    gbias: Option<Dst<f32>>,
) {
    backward(gy, x, Some(mean), rstd, weight, gx, gweight, gbias);
}

/// Gradients of [`rms_norm`] with respect to `x` and the weight, each computed if
/// wanted. `gx` may be `gy`.
///
/// # Panics
/// If shapes do not match.
pub fn rms_norm_grad(
    gy: Src<f32>,
    x: Src<f32>,
    rstd: Src<f32>,
    weight: Option<Src<f32>>,
    gx: Option<Dst<f32>>,
    gweight: Option<Dst<f32>>,
) {
    backward(gy, x, None, rstd, weight, gx, gweight, None);
}

fn extents(x: &Src<f32>) -> (usize, usize) {
    let &[rows, n] = x.shape else { panic!("rows to normalise form a matrix") };
    (rows, n)
}

fn forward(
    x: Src<f32>,
    weight: Option<Src<f32>>,
    bias: Option<Src<f32>>,
    eps: f64,
    y: Dst<f32>,
    mean: Option<Dst<f32>>,
    rstd: Dst<f32>,
) {
    let (rows, n) = extents(&x);
    assert_eq!(x.shape, y.shape, "the output has the input's shape");
    for v in mean.iter().chain([&rstd]) {
        assert_eq!(*v.shape, [rows], "statistics have one number for each row");
    }
    if n == 0 {
        // The mean of nothing.
        return mean.iter().chain([&rstd]).for_each(|v| fill(*v, f32::NAN));
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
                eps: eps as f32,
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
struct Forward<'a> {
    n: usize,
    eps: f32,
    g: &'a Group<4>,
    x: Rows<*const f32>,
    y: Rows<*mut f32>,
    weight: Option<*const f32>,
    bias: Option<*const f32>,
    mean: Option<*mut f32>,
    rstd: *mut f32,
}

impl RealTask<f32> for Forward<'_> {
    type Out = ();
    #[inline(always)]
    fn run<V: RealVector<Elem = f32>>(self) {
        let Forward { n, g, weight, bias, .. } = self;
        let per = 1.0 / n as f32;
        for l in 0..g.lines {
            // SAFETY: rows and parameters have `n` elements; the group has offsets
            // for all of its lines.
            unsafe {
                let (x, y) = (self.x.row(l), self.y.row(l));
                let mut mean = 0.0;
                if let Some(to) = self.mean {
                    let [sum] = sum_row::<V, 1>(
                        n,
                        #[inline(always)]
                        |i, k| [read(x, i, k, 0.0)],
                    );
                    mean = sum * per;
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
                let r = 1.0 / squares.mul_add(per, self.eps).sqrt();
                *self.rstd.offset(g.line(3, l)) = r;
                let r = V::splat(r);
                for_vectors(
                    n,
                    #[inline(always)]
                    |i, k| {
                        let mut v = read::<V>(x, i, k, 0.0).sub(m).mul(r);
                        if let Some(w) = weight {
                            v = v.mul(read(w, i, k, 0.0));
                        }
                        if let Some(b) = bias {
                            v = v.add(read(b, i, k, 0.0));
                        }
                        write(v, y, i, k);
                    },
                );
            }
        }
    }
}

fn backward(
    gy: Src<f32>,
    x: Src<f32>,
    mean: Option<Src<f32>>,
    rstd: Src<f32>,
    weight: Option<Src<f32>>,
    gx: Option<Dst<f32>>,
    gweight: Option<Dst<f32>>,
    gbias: Option<Dst<f32>>,
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
        let sums = |wanted| vec![0.0; if wanted { n } else { 0 }];
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
    let plus = |mut a: Vec<f32>, b: Vec<f32>| {
        a.iter_mut().zip(b).for_each(|(a, b)| *a += b);
        a
    };
    let mut totals = Pairwise::new();
    parts.into_iter().for_each(|p| totals.push(p, |[a, b], [c, d]| [plus(a, c), plus(b, d)]));
    let total = totals.finish(|[a, b], [c, d]| [plus(a, c), plus(b, d)]);
    for (to, sums) in [gweight, gbias].into_iter().zip(total.unwrap_or_default()) {
        for i in 0..to.map_or(0, |_| n) {
            let to = to.expect("not absent when there is something to write");
            let v = sums.get(i).copied().unwrap_or(0.0);
            // SAFETY: `i` is less than the vector's extent.
            unsafe { *to.ptr().offset(i as isize * to.strides[0]) = v };
        }
    }
}

/// A group of rows; the operands 3 and 4 of the lines are the statistics.
struct Backward<'a> {
    n: usize,
    g: &'a Group<5>,
    gy: Rows<*const f32>,
    x: Rows<*const f32>,
    gx: Option<Rows<*mut f32>>,
    mean: Option<*const f32>,
    rstd: *const f32,
    weight: Option<*const f32>,
    gweight: Option<*mut f32>,
    gbias: Option<*mut f32>,
}

impl RealTask<f32> for Backward<'_> {
    type Out = ();
    #[inline(always)]
    fn run<V: RealVector<Elem = f32>>(self) {
        let Backward { n, g, weight, gweight, gbias, .. } = self;
        let per = 1.0 / n as f32;
        for l in 0..g.lines {
            // SAFETY: rows and vectors have `n` elements; the group has offsets for
            // all of its lines.
            unsafe {
                let (gy, x) = (self.gy.row(l), self.x.row(l));
                let rstd = *self.rstd.offset(g.line(4, l));
                let r = V::splat(rstd);
                let m = V::splat(self.mean.map_or(0.0, |m| *m.offset(g.line(3, l))));
                if let Some(gx) = self.gx {
                    let gx = gx.row(l);
                    let [sum, dot] = sum_row::<V, 2>(
                        n,
                        #[inline(always)]
                        |i, k| {
                            let g = scaled::<V>(gy, weight, i, k);
                            [g, g.mul(read::<V>(x, i, k, 0.0).sub(m))]
                        },
                    );
                    // gx = r (g - c) - (x - mean) r³ mean(g (x - mean))
                    let c = if self.mean.is_some() { sum * per } else { 0.0 };
                    let slope = -(dot * per * rstd * rstd);
                    let (c, slope) = (V::splat(c), V::splat(slope));
                    parameters::<V>(n, gy, x, m, r, gweight, gbias);
                    for_vectors(
                        n,
                        #[inline(always)]
                        |i, k| {
                            let d = read::<V>(x, i, k, 0.0).sub(m);
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
unsafe fn scaled<V: RealVector<Elem = f32>>(
    gy: *const f32,
    weight: Option<*const f32>,
    i: usize,
    k: usize,
) -> V {
    // SAFETY: as the caller vouches.
    unsafe {
        let g = read::<V>(gy, i, k, 0.0);
        match weight {
            Some(w) => g.mul(read(w, i, k, 0.0)),
            None => g,
        }
    }
}

/// Adds a row's part to the gradients of the parameters.
///
/// # Safety
/// All are rows of `n` elements.
#[inline(always)]
unsafe fn parameters<V: RealVector<Elem = f32>>(
    n: usize,
    gy: *const f32,
    x: *const f32,
    m: V,
    r: V,
    gweight: Option<*mut f32>,
    gbias: Option<*mut f32>,
) {
    let zero = 0.0;
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
