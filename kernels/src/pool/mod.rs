//! Pooling: the maximum or the mean of windows of images `[n, c, h, w]`.
//!
//! A window is reduced along its columns first, for a whole row of the image at a
//! time, and then along its rows. Gradients are spread in the same steps, backwards.

use crate::par;
use crate::scratch::Scratch;
use crate::simd::{LANES, Number, Real, RealTask, RealVector, Vector, run_real};
use crate::view::{Dst, Element, Src};
use std::ops::Range;

/// Windows that slide over images, by rows and columns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// Elements.
    pub size: [usize; 2],
    /// Distance of neighbouring windows.
    pub stride: [usize; 2],
    /// How far windows begin before the image; what lies outside does not count,
    /// except in means that say so.
    pub padding: [usize; 2],
    /// Distance of a window's elements.
    pub dilation: [usize; 2],
}

/// `y[n, c, i, j]` = the largest element of window `(i, j)` of `x[n, c]`; NaN where
/// the window holds one. The number of windows is the output's size.
///
/// # Panics
/// If batch or channels differ, or a size, stride or dilation is zero.
pub fn max_pool2d<T: Real>(x: Src<T>, y: Dst<T>, w: Window) {
    Pool::new(x, y.as_src(), w).forward::<true>(y.ptr(), &[]);
}

/// The gradient of [`max_pool2d`]: each window's `gy` goes to its first largest
/// element by rows, or to its last NaN.
///
/// # Panics
/// As [`max_pool2d`], or if `gx` has another shape than `x`.
pub fn max_pool2d_grad<T: Real>(x: Src<T>, gy: Src<T>, gx: Dst<T>, w: Window) {
    assert_eq!(x.shape, gx.shape, "a gradient has its input's shape");
    Pool::new(x, gy, w).backward::<true>(gx, &[]);
}

/// The mean of each window. `whole` counts elements in the padding, as zeros.
///
/// # Panics
/// As [`max_pool2d`].
pub fn avg_pool2d<T: Real>(x: Src<T>, y: Dst<T>, w: Window, whole: bool) {
    let pool = Pool::new(x, y.as_src(), w);
    pool.forward::<false>(y.ptr(), &pool.counts(whole));
}

/// The gradient of [`avg_pool2d`].
///
/// # Panics
/// As [`max_pool2d`].
pub fn avg_pool2d_grad<T: Real>(gy: Src<T>, gx: Dst<T>, w: Window, whole: bool) {
    let pool = Pool::new(gx.as_src(), gy, w);
    pool.backward::<false>(gx, &pool.counts(whole));
}

/// Windows along one axis of an image.
#[derive(Clone, Copy)]
struct Axis {
    size: usize,
    stride: usize,
    padding: usize,
    dilation: usize,
    /// Elements of the image, and number of windows.
    input: usize,
    output: usize,
}

impl Axis {
    /// Elements of window `i` that lie in the image or, with `edge`, in the padding
    /// after it.
    fn valid(&self, i: usize, edge: usize) -> Range<usize> {
        let start = i * self.stride;
        let before = |end: usize| end.saturating_sub(start).div_ceil(self.dilation).min(self.size);
        let from = if edge > 0 { 0 } else { before(self.padding) };
        from..before(self.padding + self.input + edge).max(from)
    }

    /// Windows, rounded up to whole vectors.
    fn lanes(&self) -> usize {
        self.output.next_multiple_of(LANES)
    }

    /// Floats of a row of the image with its padding: as many as vectors of windows
    /// touch.
    fn padded(&self) -> usize {
        self.lanes() * self.stride + (self.size - 1) * self.dilation
    }

    /// Elements of the image within a padded row.
    fn inside(&self) -> usize {
        self.input.min(self.padded().saturating_sub(self.padding))
    }
}

/// Images and their windows' results, whose views were checked.
struct Pool<T> {
    planes: usize,
    channels: usize,
    rows: Axis,
    cols: Axis,
    x: *const T,
    x_strides: [isize; 4],
    /// The results' gradient, when it goes backwards.
    y: *const T,
    y_strides: [isize; 4],
}

// SAFETY: jobs write disjoint planes and only read what the views vouch for.
unsafe impl<T: Real> Sync for Pool<T> {}

/// Where results go; threads write disjoint planes.
struct Out<T>(*mut T);

// SAFETY: see above.
unsafe impl<T: Real> Sync for Out<T> {}

impl<T: Real> Pool<T> {
    fn new(x: Src<T>, y: Src<T>, w: Window) -> Pool<T> {
        let (&[n, c, ..], 4, 4) = (x.shape, x.shape.len(), y.shape.len()) else {
            panic!("images have four dimensions")
        };
        assert_eq!(&y.shape[..2], &[n, c], "pooling keeps batch and channels");
        let positive = [w.size, w.stride, w.dilation].as_flattened().iter().all(|&v| v > 0);
        assert!(positive, "{w:?} is no window");
        let axis = |d: usize| Axis {
            size: w.size[d],
            stride: w.stride[d],
            padding: w.padding[d],
            dilation: w.dilation[d],
            input: x.shape[2 + d],
            output: y.shape[2 + d],
        };
        let four = |s: &[isize]| std::array::from_fn(|d| s[d]);
        Pool {
            planes: n * c,
            channels: c,
            rows: axis(0),
            cols: axis(1),
            x: x.ptr(),
            x_strides: four(x.strides),
            y: y.ptr(),
            y_strides: four(y.strides),
        }
    }

    /// For each row of windows and then each column, padded to whole vectors, how
    /// many elements a mean divides by.
    fn counts(&self, whole: bool) -> Vec<T> {
        let count =
            |a: Axis, i: usize| T::of(a.valid(i, if whole { a.padding } else { 0 }).len() as f64);
        let rows = (0..self.rows.output).map(|i| count(self.rows, i));
        rows.chain((0..self.cols.lanes()).map(|j| count(self.cols, j))).collect()
    }

    /// How many planes are worth a thread's attention.
    fn grain(&self) -> usize {
        // Some four elements a nanosecond.
        let touched = self.rows.input * self.cols.input + self.rows.output * self.cols.padded();
        (4 * par::SHARE_NS).div_ceil(touched.max(1))
    }

    fn forward<const MAX: bool>(&self, y: *mut T, counts: &[T]) {
        let y = Out(y);
        let y = &y;
        par::for_range(self.planes, self.grain(), |planes| {
            run_real(Forward::<T, MAX> { pool: self, y: y.0, counts, planes });
        });
    }

    fn backward<const MAX: bool>(&self, gx: Dst<T>, counts: &[T]) {
        let (to, strides) = (Out(gx.ptr()), std::array::from_fn(|d| gx.strides[d]));
        let to = &to;
        par::for_range(self.planes, self.grain(), |planes| {
            run_real(Backward::<T, MAX> { pool: self, gx: to.0, strides, counts, planes });
        });
    }

    fn plane(&self, strides: &[isize; 4], plane: usize) -> isize {
        let (n, c) = (plane / self.channels, plane % self.channels);
        n as isize * strides[0] + c as isize * strides[1]
    }
}

struct Forward<'a, T, const MAX: bool> {
    pool: &'a Pool<T>,
    y: *mut T,
    counts: &'a [T],
    planes: Range<usize>,
}

struct Backward<'a, T, const MAX: bool> {
    pool: &'a Pool<T>,
    gx: *mut T,
    strides: [isize; 4],
    counts: &'a [T],
    planes: Range<usize>,
}

/// Up to sixteen numbers that are `step` apart.
#[inline(always)]
unsafe fn load<V: Vector>(p: *const V::Elem, step: isize, n: usize, rest: V::Elem) -> V {
    // SAFETY: the caller has these numbers to read.
    unsafe {
        match step {
            1 if n >= LANES => V::load(p),
            1 => V::load_part(p, n, rest),
            _ => {
                let mut lanes = [rest; LANES];
                for (i, lane) in lanes.iter_mut().enumerate().take(n) {
                    *lane = *p.offset(i as isize * step);
                }
                V::load(lanes.as_ptr())
            }
        }
    }
}

/// Writes up to sixteen numbers `step` apart.
#[inline(always)]
unsafe fn store<V: Vector>(v: V, p: *mut V::Elem, step: isize, n: usize) {
    // SAFETY: the caller has room for these numbers.
    unsafe {
        match step {
            1 if n >= LANES => v.store(p),
            1 => v.store_part(p, n),
            _ => {
                let lanes = lanes(v);
                for (i, &lane) in lanes.iter().enumerate().take(n) {
                    *p.offset(i as isize * step) = lane;
                }
            }
        }
    }
}

#[inline(always)]
fn lanes<V: Vector>(v: V) -> [V::Elem; LANES] {
    let mut lanes = [V::Elem::ONE; LANES];
    // SAFETY: room for a vector.
    unsafe { v.store(lanes.as_mut_ptr()) };
    lanes
}

/// Element `at` of sixteen neighbouring windows of a padded row.
#[inline(always)]
unsafe fn windows<V: Vector>(at: *const V::Elem, stride: usize) -> V {
    // SAFETY: the caller has so many numbers in the row.
    unsafe {
        match stride {
            2 => V::load(at).even(V::load(at.add(LANES))),
            _ => load(at, stride as isize, LANES, V::Elem::ONE),
        }
    }
}

/// Adds `v` to element `at` of sixteen neighbouring windows of a padded row.
#[inline(always)]
unsafe fn add_windows<V: Vector>(v: V, at: *mut V::Elem, stride: usize) {
    // SAFETY: the caller has so many numbers in the row.
    unsafe {
        match stride {
            1 => V::load(at).add(v).store(at),
            2 => {
                let (low, high) = v.interleave(V::splat(V::Elem::ZERO));
                V::load(at).add(low).store(at);
                V::load(at.add(LANES)).add(high).store(at.add(LANES));
            }
            _ => {
                for (i, &lane) in lanes(v).iter().enumerate() {
                    let at = at.add(i * stride);
                    *at = (*at).plus(lane);
                }
            }
        }
    }
}

impl<T: Real, const MAX: bool> RealTask<T> for Forward<'_, T, MAX> {
    type Out = ();

    #[inline(always)]
    fn run<V: RealVector<Elem = T>>(self) {
        let (p, rows, cols) = (self.pool, self.pool.rows, self.pool.cols);
        let [_, _, sh, sw] = p.x_strides;
        let [_, _, oh, ow] = p.y_strides;
        let rest = if MAX { T::LOWEST } else { T::ZERO };
        let join = |a: V, b: V| if MAX { a.max(b) } else { a.add(b) };
        let mut scratch = Scratch::default();
        let padded = cols.padded();
        let row = scratch.room::<T>(padded);
        // SAFETY: valid rows and columns lie inside the images, which the views vouch
        // for; the scratch has room for a padded row; jobs own their planes.
        unsafe {
            for i in 0..padded {
                *row.add(i) = rest;
            }
            for plane in self.planes {
                let x = p.x.wrapping_offset(p.plane(&p.x_strides, plane));
                let y = self.y.wrapping_offset(p.plane(&p.y_strides, plane));
                for i in 0..rows.output {
                    let taps = rows.valid(i, 0);
                    for col in (0..cols.inside()).step_by(LANES) {
                        let n = cols.inside() - col;
                        let mut v = V::splat(rest);
                        for a in taps.clone() {
                            let from = i * rows.stride + a * rows.dilation - rows.padding;
                            let from = x.offset(from as isize * sh + col as isize * sw);
                            v = join(v, load(from, sw, n, rest));
                        }
                        store(v, row.add(cols.padding + col), 1, n);
                    }
                    for j in (0..cols.output).step_by(LANES) {
                        let first = row.add(j * cols.stride).cast_const();
                        let mut v: V = windows(first, cols.stride);
                        for b in 1..cols.size {
                            v = join(v, windows(first.add(b * cols.dilation), cols.stride));
                        }
                        if !MAX {
                            v = v.div(count::<V>(self.counts, rows.output, i, j));
                        }
                        let to = y.offset(i as isize * oh + j as isize * ow);
                        store(v, to, ow, cols.output - j);
                    }
                }
            }
        }
    }
}

/// What the means of sixteen windows from `(i, j)` on divide by.
#[inline(always)]
fn count<V: Vector>(counts: &[V::Elem], rows: usize, i: usize, j: usize) -> V {
    // SAFETY: counts of columns come in whole vectors.
    unsafe { V::splat(counts[i]).mul(V::load(counts[rows + j..][..LANES].as_ptr())) }
}

impl<T: Real, const MAX: bool> RealTask<T> for Backward<'_, T, MAX> {
    type Out = ();

    #[inline(always)]
    fn run<V: RealVector<Elem = T>>(self) {
        let (p, rows, cols) = (self.pool, self.pool.rows, self.pool.cols);
        let [_, _, sh, sw] = p.x_strides;
        let [_, _, gh, gw] = self.strides;
        let [_, _, oh, ow] = p.y_strides;
        let (side, inside) = (cols.padded(), cols.inside());
        // Rows of the image and of its gradient that a row of windows touches (of a
        // mean's gradient, all are the same), and each window's first element.
        let height = if MAX { rows.size } else { 1 };
        let mut scratch = Scratch::default();
        let band = scratch.room::<T>(2 * height * side + cols.lanes());
        let sums = band.wrapping_add(height * side);
        let starts = sums.wrapping_add(height * side);
        let place =
            |i: usize, a: usize| (i * rows.stride + a * rows.dilation - rows.padding) as isize;
        // SAFETY: as for the forward pass; the scratch has room for all rows.
        unsafe {
            for i in 0..height * side {
                *band.add(i) = T::LOWEST;
            }
            for j in 0..cols.lanes() {
                *starts.add(j) = T::of(cols.valid(j, 0).start.min(cols.size - 1) as f64);
            }
            for plane in self.planes {
                let x = p.x.wrapping_offset(p.plane(&p.x_strides, plane));
                let gy = p.y.wrapping_offset(p.plane(&p.y_strides, plane));
                let gx = self.gx.wrapping_offset(p.plane(&self.strides, plane));
                for i in 0..rows.input {
                    for col in (0..cols.input).step_by(LANES) {
                        let to = gx.offset(i as isize * gh + col as isize * gw);
                        store(V::splat(T::ZERO), to, gw, cols.input - col);
                    }
                }
                for i in 0..rows.output {
                    let taps = rows.valid(i, 0);
                    if MAX {
                        for (a, col) in each(&taps, inside) {
                            let from = x.offset(place(i, a) * sh + col as isize * sw);
                            let v: V = load(from, sw, inside - col, T::LOWEST);
                            let to = band.add(a * side + cols.padding + col);
                            store(v, to, 1, inside - col);
                        }
                    }
                    for at in (0..height * side).step_by(LANES) {
                        store(V::splat(T::ZERO), sums.add(at), 1, height * side - at);
                    }
                    for j in (0..cols.output).step_by(LANES) {
                        let from = gy.offset(i as isize * oh + j as isize * ow);
                        let g: V = load(from, ow, cols.output - j, T::ZERO);
                        let first = j * cols.stride;
                        if MAX {
                            let tap = |a: usize, b: usize| (a * side + first) + b * cols.dilation;
                            let number =
                                |a: usize, b: usize| V::splat(T::of((a * cols.size + b) as f64));
                            let start = V::load(starts.add(j));
                            let mut which = start.add(number(taps.start, 0));
                            let mut best = V::splat(T::LOWEST);
                            for (a, b) in
                                taps.clone().flat_map(|a| (0..cols.size).map(move |b| (a, b)))
                            {
                                let v: V = windows(band.add(tap(a, b)), cols.stride);
                                which = v.if_above(best, number(a, b), which);
                                best = v.if_above(best, v, best);
                            }
                            for (a, b) in
                                taps.clone().flat_map(|a| (0..cols.size).map(move |b| (a, b)))
                            {
                                let g = which.if_equal(number(a, b), g, V::splat(T::ZERO));
                                add_windows(g, sums.add(tap(a, b)), cols.stride);
                            }
                        } else {
                            let g = g.div(count::<V>(self.counts, rows.output, i, j));
                            for b in 0..cols.size {
                                add_windows(g, sums.add(first + b * cols.dilation), cols.stride);
                            }
                        }
                    }
                    for (a, col) in each(&taps, inside) {
                        let n = inside - col;
                        let from = if MAX { a * side } else { 0 };
                        let v: V = load(sums.add(from + cols.padding + col), 1, n, T::ZERO);
                        let to = gx.offset(place(i, a) * gh + col as isize * gw);
                        store(v.add(load(to, gw, n, T::ZERO)), to, gw, n);
                    }
                }
            }
        }
    }
}

/// The elements of a window's columns with the vectors of a row of `n`.
#[inline(always)]
fn each(taps: &Range<usize>, n: usize) -> impl Iterator<Item = (usize, usize)> {
    taps.clone().flat_map(move |a| (0..n).step_by(LANES).map(move |col| (a, col)))
}

#[cfg(test)]
mod tests;
