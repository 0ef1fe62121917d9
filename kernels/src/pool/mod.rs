//! Pooling: the maximum or the mean of windows of images `[n, c, h, w]`.
//!
//! A window is reduced along its columns first, for a whole row of the image at a
//! time, and then along its rows. An element gathers its gradient from the windows
//! that meet it.

mod lanes;

use crate::par;
use crate::scratch::Scratch;
use crate::simd::{LANES, Number, Real, RealTask, RealVector, Vector, run_single};
use crate::view::{Dst, Src};
use lanes::Lanes;
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

crate::instances::instances!(PoolKernels for f32, f64 => {
    fn max_pool_kernel(x: Src<Self>, y: Dst<Self>, w: Window) = max_pool_of;
    fn max_pool_grad_kernel(x: Src<Self>, gy: Src<Self>, gx: Dst<Self>, w: Window) = max_pool_grad_of;
    fn avg_pool_kernel(x: Src<Self>, y: Dst<Self>, w: Window, whole: bool) = avg_pool_of;
    fn avg_pool_grad_kernel(gy: Src<Self>, gx: Dst<Self>, w: Window, whole: bool) = avg_pool_grad_of;
});

/// `y[n, c, i, j]` = the largest element of window `(i, j)` of `x[n, c]`; NaN where
/// the window holds one. The number of windows is the output's size.
///
/// # Panics
/// If batch or channels differ, or a size, stride or dilation is zero.
pub fn max_pool2d<T: Real>(x: Src<T>, y: Dst<T>, w: Window) {
    T::max_pool_kernel(x, y, w)
}

fn max_pool_of<T: Real>(x: Src<T>, y: Dst<T>, w: Window) {
    Pool::new(x, y.as_src(), w).forward::<true>(y.ptr(), &[]);
}

/// The gradient of [`max_pool2d`]: each window's `gy` goes to its first largest
/// element by rows, or to its last NaN.
///
/// # Panics
/// As [`max_pool2d`], or if `gx` has another shape than `x`.
pub fn max_pool2d_grad<T: Real>(x: Src<T>, gy: Src<T>, gx: Dst<T>, w: Window) {
    T::max_pool_grad_kernel(x, gy, gx, w)
}

fn max_pool_grad_of<T: Real>(x: Src<T>, gy: Src<T>, gx: Dst<T>, w: Window) {
    assert_eq!(x.shape, gx.shape, "a gradient has its input's shape");
    Pool::new(x, gy, w).backward::<true>(gx, &[]);
}

/// The mean of each window. `whole` counts elements in the padding, as zeros.
///
/// # Panics
/// As [`max_pool2d`].
pub fn avg_pool2d<T: Real>(x: Src<T>, y: Dst<T>, w: Window, whole: bool) {
    T::avg_pool_kernel(x, y, w, whole)
}

fn avg_pool_of<T: Real>(x: Src<T>, y: Dst<T>, w: Window, whole: bool) {
    let pool = Pool::new(x, y.as_src(), w);
    pool.forward::<false>(y.ptr(), &pool.counts(whole));
}

/// The gradient of [`avg_pool2d`].
///
/// # Panics
/// As [`max_pool2d`].
pub fn avg_pool2d_grad<T: Real>(gy: Src<T>, gx: Dst<T>, w: Window, whole: bool) {
    T::avg_pool_grad_kernel(gy, gx, w, whole)
}

fn avg_pool_grad_of<T: Real>(gy: Src<T>, gx: Dst<T>, w: Window, whole: bool) {
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
        if self.channels > 1 && [self.x_strides, self.y_strides].iter().all(|s| s[1] == 1) {
            let lines = self.planes / self.channels * self.rows.output;
            let grain = self.grain().div_ceil(self.channels) * self.rows.output;
            par::for_range(lines, grain, |lines| {
                run_single(Lanes::<T, MAX> { pool: self, y: y.0, counts, lines });
            });
            return;
        }
        par::for_range(self.planes, self.grain(), |planes| {
            run_single(Forward::<T, MAX> { pool: self, y: y.0, counts, planes });
        });
    }

    fn backward<const MAX: bool>(&self, gx: Dst<T>, counts: &[T]) {
        let (to, strides) = (Out(gx.ptr()), std::array::from_fn(|d| gx.strides[d]));
        let (to, meetings) = (&to, [self.rows, self.cols].map(Meetings::new));
        par::for_range(self.planes, self.grain(), |planes| {
            let (pool, gx, meetings) = (self, to.0, &meetings);
            run_single(Backward::<T, MAX> { pool, gx, strides, counts, meetings, planes });
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
    meetings: &'a [Meetings; 2],
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

impl<T: Real, const MAX: bool> RealTask<T> for Forward<'_, T, MAX> {
    type Out = ();

    #[inline(always)]
    fn run<V: RealVector<Elem = T>>(self) {
        let (p, rows, cols) = (self.pool, self.pool.rows, self.pool.cols);
        let [_, _, sh, sw] = p.x_strides;
        let [_, _, oh, ow] = p.y_strides;
        let rest = if MAX { T::LOWEST } else { T::ZERO };
        let join = |a: V, b: V| if MAX { a.max(b) } else { a.add(b) };
        let (padded, inside) = (cols.padded(), cols.inside());
        let mut scratch = Scratch::default();
        let reduced = scratch.room::<T>(rows.output * padded);
        // SAFETY: valid rows and columns lie inside the images, which the views vouch
        // for; the scratch has room for the padded rows; jobs own their planes.
        unsafe {
            fill(reduced, rows.output * padded, rest);
            for plane in self.planes {
                let x = p.x.wrapping_offset(p.plane(&p.x_strides, plane));
                let y = self.y.wrapping_offset(p.plane(&p.y_strides, plane));
                for i in 0..rows.output {
                    let taps = rows.valid(i, 0);
                    let row = reduced.add(i * padded + cols.padding);
                    for col in (0..inside).step_by(LANES) {
                        let mut v = V::splat(rest);
                        for a in taps.clone() {
                            let from = i * rows.stride + a * rows.dilation - rows.padding;
                            let from = x.offset(from as isize * sh + col as isize * sw);
                            v = join(v, load(from, sw, inside - col, rest));
                        }
                        store(v, row.add(col), 1, inside - col);
                    }
                }
                for i in 0..rows.output {
                    for j in (0..cols.output).step_by(LANES) {
                        let first = reduced.add(i * padded + j * cols.stride).cast_const();
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

/// What the mean of window `(i, j)` divides by.
#[inline(always)]
fn count_of<T: Real>(counts: &[T], rows: usize, i: usize, j: usize) -> T {
    counts[i].times(counts[rows + j])
}

/// For each element along an axis of the image, by its phase in the stride, the
/// elements of windows that meet it: number `b` of the window so many places further on
/// than the element is in its phase.
struct Meetings {
    phases: Vec<Vec<(usize, usize)>>,
    /// How many places before the first window they are counted from.
    early: usize,
    /// Places that whole vectors of elements reach.
    width: usize,
}

impl Meetings {
    fn new(axis: Axis) -> Meetings {
        let early = (axis.size - 1) * axis.dilation / axis.stride + 1;
        let places = |phase: usize| {
            let place = |b: usize| {
                let at = (phase + axis.padding + early * axis.stride) - b * axis.dilation;
                at.is_multiple_of(axis.stride).then_some((b, at / axis.stride))
            };
            (0..axis.size).filter_map(place).collect()
        };
        let last = axis.input.div_ceil(axis.stride) + axis.padding + 1;
        Meetings {
            phases: (0..axis.stride).map(places).collect(),
            early,
            width: early + last.max(axis.output) + LANES,
        }
    }
}

impl<T: Real, const MAX: bool> RealTask<T> for Backward<'_, T, MAX> {
    type Out = ();

    #[inline(always)]
    fn run<V: RealVector<Elem = T>>(self) {
        let (p, rows, cols) = (self.pool, self.pool.rows, self.pool.cols);
        let Meetings { phases, early, width } = &self.meetings[1];
        let [_, _, gh, gw] = self.strides;
        let taps = rows.size * cols.size;
        let mut scratch = Scratch::default();
        let image = if MAX { rows.input * cols.padded() } else { 0 };
        let results = rows.output * width;
        let staged = scratch.room::<T>(image + 2 * results + taps + cols.lanes());
        let gradient = staged.wrapping_add(image);
        let chosen = gradient.wrapping_add(results);
        let numbers = chosen.wrapping_add(results);
        let starts = numbers.wrapping_add(taps);
        // The scratch has room for the image, two rows for each row of windows, the
        // numbers of a window's elements, and each window's first.
        // SAFETY: all that is room taken above; valid rows and columns lie inside the
        // images, which the views vouch for; jobs own their planes.
        unsafe {
            fill(staged, image, T::LOWEST);
            fill(gradient, 2 * results, T::ZERO);
            for t in 0..taps {
                *numbers.add(t) = T::of(t as f64);
            }
            for j in 0..cols.lanes() {
                *starts.add(j) = T::of(cols.valid(j, 0).start as f64);
            }
            for plane in self.planes.clone() {
                let gy = p.y.wrapping_offset(p.plane(&p.y_strides, plane));
                let gx = self.gx.wrapping_offset(p.plane(&self.strides, plane));
                self.share::<V>(gy, gradient.add(*early));
                if MAX {
                    let x = p.x.wrapping_offset(p.plane(&p.x_strides, plane));
                    self.stage::<V>(x, staged);
                    self.choose::<V>(staged, numbers, starts, chosen.add(*early));
                }
                for r in 0..rows.input {
                    for m in (0..cols.input.div_ceil(cols.stride)).step_by(LANES) {
                        let col = m * cols.stride;
                        let to = gx.offset(r as isize * gh + col as isize * gw);
                        let n = cols.input - col;
                        if let [even, odd] = &phases[..] {
                            let even: V = self.gather((r, even, m), gradient, chosen, numbers);
                            let odd = self.gather((r, odd, m), gradient, chosen, numbers);
                            let (low, high) = even.interleave(odd);
                            store(low, to, gw, n);
                            if n > LANES {
                                store(high, to.offset(LANES as isize * gw), gw, n - LANES);
                            }
                            continue;
                        }
                        for (i, phase) in phases.iter().enumerate().take(n) {
                            let to = to.offset(i as isize * gw);
                            let step = cols.stride as isize * gw;
                            let sum: V = self.gather((r, phase, m), gradient, chosen, numbers);
                            store(sum, to, step, (n - i).div_ceil(cols.stride));
                        }
                    }
                }
            }
        }
    }
}

impl<T: Real, const MAX: bool> Backward<'_, T, MAX> {
    /// What each window has to give: `gy`, or its share for an element of a mean.
    #[inline(always)]
    unsafe fn share<V: RealVector<Elem = T>>(&self, gy: *const T, to: *mut T) {
        let (rows, cols) = (self.pool.rows, self.pool.cols);
        let [_, _, sh, sw] = self.pool.y_strides;
        for (i, j) in vectors(rows.output, cols.output) {
            // SAFETY: the caller has the gradient, and room for rows of results.
            unsafe {
                let from = gy.offset(i as isize * sh + j as isize * sw);
                let mut g: V = load(from, sw, cols.output - j, T::ZERO);
                if !MAX {
                    g = g.div(count::<V>(self.counts, rows.output, i, j));
                }
                store(g, to.add(i * self.meetings[1].width + j), 1, cols.output - j);
            }
        }
    }

    /// Copies an image to padded rows.
    #[inline(always)]
    unsafe fn stage<V: RealVector<Elem = T>>(&self, x: *const T, to: *mut T) {
        let cols = self.pool.cols;
        let [_, _, sh, sw] = self.pool.x_strides;
        for (i, j) in vectors(self.pool.rows.input, cols.inside()) {
            // SAFETY: the caller has the image, and room for its padded rows.
            unsafe {
                let from = x.offset(i as isize * sh + j as isize * sw);
                let v: V = load(from, sw, cols.inside() - j, T::LOWEST);
                let to = to.add(i * cols.padded() + cols.padding + j);
                store(v, to, 1, cols.inside() - j);
            }
        }
    }

    /// The number of each window's first largest element or last NaN.
    #[inline(always)]
    unsafe fn choose<V: RealVector<Elem = T>>(
        &self,
        staged: *const T,
        numbers: *const T,
        starts: *const T,
        to: *mut T,
    ) {
        let (rows, cols) = (self.pool.rows, self.pool.cols);
        for (i, j) in vectors(rows.output, cols.output) {
            let taps = rows.valid(i, 0);
            // SAFETY: the caller has the padded rows, the numbers of the elements, the
            // first of each window, and room for rows of results.
            unsafe {
                let first = V::splat(*numbers.add(taps.start.min(rows.size - 1) * cols.size));
                let mut which = V::load(starts.add(j)).add(first);
                let mut best = V::splat(T::LOWEST);
                for a in taps {
                    let row = i * rows.stride + a * rows.dilation - rows.padding;
                    let row = staged.add(row * cols.padded() + j * cols.stride);
                    for b in 0..cols.size {
                        let v: V = windows(row.add(b * cols.dilation), cols.stride);
                        let number = V::splat(*numbers.add(a * cols.size + b));
                        which = v.if_above(best, number, which);
                        best = v.if_above(best, v, best);
                    }
                }
                store(which, to.add(i * self.meetings[1].width + j), 1, cols.output - j);
            }
        }
    }

    /// What sixteen elements of row `r` get, those of a phase from place `m` on: the
    /// sum over the windows that meet them.
    #[inline(always)]
    unsafe fn gather<V: RealVector<Elem = T>>(
        &self,
        (r, phase, m): (usize, &[(usize, usize)], usize),
        gradient: *const T,
        chosen: *const T,
        numbers: *const T,
    ) -> V {
        let (rows, cols) = (self.pool.rows, self.pool.cols);
        let [vertical, Meetings { width, .. }] = self.meetings;
        let mut sum = V::splat(T::ZERO);
        for &(a, place) in &vertical.phases[r % rows.stride] {
            let window = (place + r / rows.stride).checked_sub(vertical.early);
            let Some(i) = window.filter(|&i| i < rows.output) else { continue };
            for &(b, place) in phase {
                let at = i * width + place + m;
                // SAFETY: the caller has rows of results as wide as places reach, and the
                // numbers of a window's elements.
                unsafe {
                    let mut g = V::load(gradient.add(at));
                    if MAX {
                        let number = V::splat(*numbers.add(a * cols.size + b));
                        let which = V::load(chosen.add(at));
                        g = which.if_equal(number, g, V::splat(T::ZERO));
                    }
                    sum = sum.add(g);
                }
            }
        }
        sum
    }
}

/// The vectors of `rows` rows of `cols`.
#[inline(always)]
fn vectors(rows: usize, cols: usize) -> impl Iterator<Item = (usize, usize)> {
    (0..rows).flat_map(move |i| (0..cols).step_by(LANES).map(move |j| (i, j)))
}

/// Writes `v` to `n` places.
unsafe fn fill<T: Copy>(to: *mut T, n: usize, v: T) {
    // SAFETY: the caller has room for them.
    (0..n).for_each(|i| unsafe { *to.add(i) = v });
}

#[cfg(test)]
mod tests;
