//! Convolutions in double precision, row by row: the reference for gradients.

use super::{ConvParams, Shape};
use crate::copy::fill;
use crate::par;
use crate::simd::vectorize;
use crate::view::{Dst, Src};
use std::ops::Range;

/// Multiply-adds worth a thread's attention.
const JOB: usize = 1 << 16;

/// A row of outputs under one element of the kernel: the pixels it meets.
struct Meeting {
    /// Row of the input and of the output.
    x: usize,
    y: usize,
    /// Columns of the output whose pixels lie inside the image, and the pixel of
    /// the first.
    cols: Range<usize>,
    first: usize,
}

impl Shape {
    /// Calls `f` for each row of outputs that meets the image under element
    /// `(i, j)` of the kernel.
    fn meetings(&self, [i, j]: [usize; 2], mut f: impl FnMut(Meeting)) {
        let p = &self.params;
        let (down, right) = (i * p.dilation[0], j * p.dilation[1]);
        let step = p.stride[1];
        let start = p.padding[1].saturating_sub(right).div_ceil(step);
        let end = (self.size[1] + p.padding[1]).saturating_sub(right).div_ceil(step);
        let cols = start..end.min(self.out[1]);
        if cols.is_empty() {
            return;
        }
        let first = start * step + right - p.padding[1];
        for y in 0..self.out[0] {
            let row = y * p.stride[0] + down;
            if (p.padding[0]..p.padding[0] + self.size[0]).contains(&row) {
                f(Meeting { x: row - p.padding[0], y, cols: cols.clone(), first });
            }
        }
    }

    fn taps(&self) -> impl Iterator<Item = [usize; 2]> {
        let [kh, kw] = self.kernel;
        (0..kh).flat_map(move |i| (0..kw).map(move |j| [i, j]))
    }
}

fn at(strides: &[isize], index: [usize; 4]) -> isize {
    index.iter().zip(strides).map(|(&i, &s)| i as isize * s).sum()
}

/// `y[j] += a x[j]` for `n` numbers with these strides.
///
/// # Safety
/// `y` is writable and `x` readable at these places.
unsafe fn axpy(n: usize, a: f64, x: *const f64, sx: isize, y: *mut f64, sy: isize) {
    vectorize(
        #[inline(always)]
        move || {
            for j in 0..n as isize {
                // SAFETY: the caller's contract.
                unsafe {
                    let y = y.offset(j * sy);
                    *y = a.mul_add(*x.offset(j * sx), *y);
                }
            }
        },
    );
}

/// `start + Σ x[j] y[j]` over `n` numbers with these strides.
///
/// # Safety
/// Both are readable at these places.
unsafe fn dot(n: usize, start: f64, x: *const f64, sx: isize, y: *const f64, sy: isize) -> f64 {
    vectorize(
        #[inline(always)]
        move || {
            let mut sum = start;
            for j in 0..n as isize {
                // SAFETY: the caller's contract.
                sum = unsafe { (*x.offset(j * sx)).mul_add(*y.offset(j * sy), sum) };
            }
            sum
        },
    )
}

/// `conv(x, w)`: shapes as for [`conv2d_f32`](super::conv2d_f32).
///
/// # Panics
/// If shapes do not fit.
pub fn conv2d_f64(x: Src<f64>, w: Src<f64>, y: Dst<f64>, p: ConvParams) {
    let s = Shape::new(x.shape, w.shape, y.shape, p);
    fill(y, 0.0);
    let cost = s.out[0] * s.out[1] * s.inner * s.kernel[0] * s.kernel[1];
    par::for_range(s.n * s.o, JOB.div_ceil(cost.max(1)), |jobs| {
        for (n, o) in jobs.map(|job| (job / s.o, job % s.o)) {
            for c in 0..s.inner {
                let channel = o / s.outer * s.inner + c;
                for tap in s.taps() {
                    let k = w.at(&[o, c, tap[0], tap[1]]);
                    s.meetings(tap, |m| {
                        // SAFETY: the views' extents were checked, and a meeting stays
                        // within them; each job owns its plane of the output.
                        unsafe {
                            let from = x.ptr().offset(at(x.strides, [n, channel, m.x, m.first]));
                            let to = y.ptr().offset(at(y.strides, [n, o, m.y, m.cols.start]));
                            let step = x.strides[3] * p.stride[1] as isize;
                            axpy(m.cols.len(), k, from, step, to, y.strides[3]);
                        }
                    });
                }
            }
        }
    });
}

/// The gradient of the input: shapes as for
/// [`conv2d_input_grad_f32`](super::conv2d_input_grad_f32).
///
/// # Panics
/// If shapes do not fit.
pub fn conv2d_input_grad_f64(gy: Src<f64>, w: Src<f64>, gx: Dst<f64>, p: ConvParams) {
    let s = Shape::new(gx.shape, w.shape, gy.shape, p);
    fill(gx, 0.0);
    let cost = s.out[0] * s.out[1] * s.outer * s.kernel[0] * s.kernel[1];
    par::for_range(s.n * s.c, JOB.div_ceil(cost.max(1)), |jobs| {
        for (n, channel) in jobs.map(|job| (job / s.c, job % s.c)) {
            let (group, c) = (channel / s.inner, channel % s.inner);
            for o in group * s.outer..(group + 1) * s.outer {
                for tap in s.taps() {
                    let k = w.at(&[o, c, tap[0], tap[1]]);
                    s.meetings(tap, |m| {
                        // SAFETY: as for the forward pass; each job owns its plane of
                        // the gradient.
                        unsafe {
                            let from = gy.ptr().offset(at(gy.strides, [n, o, m.y, m.cols.start]));
                            let to = gx.ptr().offset(at(gx.strides, [n, channel, m.x, m.first]));
                            let step = gx.strides[3] * p.stride[1] as isize;
                            axpy(m.cols.len(), k, from, gy.strides[3], to, step);
                        }
                    });
                }
            }
        }
    });
}

/// The gradient of the kernels: shapes as for
/// [`conv2d_weight_grad_f32`](super::conv2d_weight_grad_f32).
///
/// # Panics
/// If shapes do not fit.
pub fn conv2d_weight_grad_f64(x: Src<f64>, gy: Src<f64>, gw: Dst<f64>, p: ConvParams) {
    let s = Shape::new(x.shape, gw.shape, gy.shape, p);
    let cost = s.n * s.out[0] * s.out[1] * s.kernel[0] * s.kernel[1];
    par::for_range(s.o * s.inner, JOB.div_ceil(cost.max(1)), |jobs| {
        for (o, c) in jobs.map(|job| (job / s.inner, job % s.inner)) {
            let channel = o / s.outer * s.inner + c;
            for tap in s.taps() {
                let mut sum = 0.0f64;
                for n in 0..s.n {
                    s.meetings(tap, |m| {
                        let step = x.strides[3] * p.stride[1] as isize;
                        // SAFETY: as for the forward pass.
                        unsafe {
                            let a = x.ptr().offset(at(x.strides, [n, channel, m.x, m.first]));
                            let b = gy.ptr().offset(at(gy.strides, [n, o, m.y, m.cols.start]));
                            sum = dot(m.cols.len(), sum, a, step, b, gy.strides[3]);
                        }
                    });
                }
                // SAFETY: an element of the gradient, which this job owns.
                unsafe { *gw.ptr().offset(at(gw.strides, [o, c, tap[0], tap[1]])) = sum };
            }
        }
    });
}
