//! Convolutions of integers of eight bits, summed up exactly: see
//! [`gemm_packed_int8`](crate::gemm::gemm_packed_int8) for what integers stand for.
//!
//! The sweep of [`direct`](super::direct) with four channels in the place of one:
//! staging an image quantizes it and puts four channels' pixels side by side, what lies
//! outside the image being what stands for zero. Filters are quads of channels, too.

use super::direct::{self, Sweep};
use super::patches::Patches;
use super::{ConvParams, Shape, dense_output, kernel_shape};
use crate::gemm::kernel::{Kernel, LANES, Scales};
use crate::gemm::quads::{Rounding, Tail, Tiles, quantize_weights};
use crate::gemm::simd::{Simd, levels};
use crate::gemm::{Affine, Epilogue};
use crate::isa;
use crate::par;
use crate::scratch::{At, Scratch};
use crate::view::{Dst, Src};
use std::ops::Range;

/// What makes quads of an input, and numbers of their sums.
pub(super) struct Quads {
    pub(super) kernel: &'static Kernel,
    pub(super) scales: Scales,
    rounding: Rounding,
    zero: u8,
    /// Channels of the input in a group.
    channels: usize,
}

impl Quads {
    /// [`Patches::stage`], four channels at a time.
    ///
    /// # Safety
    /// As there; `p` counts quads.
    pub(super) unsafe fn stage(
        &self,
        p: &Patches,
        image: usize,
        group: usize,
        rows: &Range<usize>,
        out: *mut f32,
    ) {
        let [batch, sc, sh, sw] = p.strides;
        let first = image as isize * batch + (group * self.channels) as isize * sc;
        let blank = u32::from_le_bytes([self.zero; 4]);
        let pixels = PIXELS[isa::active() as usize];
        let mut to = out.cast::<u32>();
        for quad in 0..p.inner {
            // Filters are zero where there is no channel: any other will do.
            let channel = |i: usize| (4 * quad + i).min(self.channels - 1);
            let from = [channel(0), channel(1), channel(2), channel(3)]
                .map(|c| p.x.wrapping_offset(first + c as isize * sc));
            for (i, j) in (0..p.axes[0].phases.len())
                .flat_map(|i| (0..p.axes[1].phases.len()).map(move |j| (i, j)))
            {
                let down = p.axes[0].steps(i, rows.start, rows.len());
                let right = p.axes[1].steps(j, 0, p.out[1]);
                let (valid, inside) = (down.inside(p.size[0]), right.inside(p.size[1]));
                for row in 0..down.count {
                    // SAFETY: only pixels inside the image are read; the caller has room
                    // for all planes.
                    unsafe {
                        let here = to;
                        to = to.add(right.count);
                        if !valid.contains(&row) || inside.is_empty() {
                            fill(here, right.count, blank);
                            continue;
                        }
                        fill(here, inside.start, blank);
                        fill(here.add(inside.end), right.count - inside.end, blank);
                        let at = down.at(row) * sh + right.at(inside.start) * sw;
                        let step = sw * right.step as isize;
                        let from = from.map(|p| p.wrapping_offset(at));
                        pixels(from, step, inside.len(), self.rounding, here.add(inside.start));
                    }
                }
            }
        }
    }
}

unsafe fn fill(to: *mut u32, n: usize, value: u32) {
    for i in 0..n {
        // SAFETY: the caller has room for `n` pixels.
        unsafe { *to.add(i) = value };
    }
}

/// The quads of four channels' pixels.
#[inline(always)]
fn quads<const N: usize>(x: [[f32; N]; 4], r: Rounding) -> [u32; N] {
    let mut q = [0; N];
    for (i, q) in q.iter_mut().enumerate() {
        let (low, high) =
            (r.bits(x[0][i]) | r.bits(x[1][i]) << 8, r.bits(x[2][i]) | r.bits(x[3][i]) << 8);
        *q = low | high << 16;
    }
    q
}

/// Quantizes `n` pixels, `step` apart, of four channels, sixteen at a time.
#[inline(always)]
unsafe fn pixels<S: Simd>(from: [*const f32; 4], step: isize, n: usize, r: Rounding, to: *mut u32) {
    for at in (0..n).step_by(LANES) {
        let count = (n - at).min(LANES);
        let mut x = [[0.0f32; LANES]; 4];
        // SAFETY: the caller has these pixels on both sides.
        unsafe {
            for (x, from) in x.iter_mut().zip(from) {
                if step == 1 {
                    for i in (0..count).step_by(S::LANES) {
                        let v = S::load_mask(from.add(at + i), S::mask(count - i));
                        v.store(x.as_mut_ptr().add(i));
                    }
                } else {
                    for (i, x) in x.iter_mut().enumerate().take(count) {
                        *x = *from.offset((at + i) as isize * step);
                    }
                }
            }
            let q = quads(x, r);
            for i in (0..count).step_by(S::LANES) {
                let v = S::load(q.as_ptr().add(i).cast());
                v.store_mask(to.add(at + i).cast(), S::mask(count - i));
            }
        }
    }
}

type Pixels = unsafe fn([*const f32; 4], isize, usize, Rounding, *mut u32);
static PIXELS: [Pixels; 3] = levels!(
    fn(from: [*const f32; 4], step: isize, n: usize, r: Rounding, to: *mut u32) pixels
);

/// Number of floats of filters of shape `[o, c / groups, kh, kw]` packed in quads.
pub(super) fn packed_len([o, c, kh, kw]: [usize; 4]) -> usize {
    o * c.div_ceil(4) * kh * kw + Tail::len(o)
}

/// Packs filters of images whose numbers `x` covers, `out` being as long as they take.
pub(super) fn pack(w: Src<f32>, x: Affine, p: ConvParams, out: &mut [f32]) {
    let [o, c, kh, kw] = kernel_shape(w.shape);
    let (taps, quads) = (kh * kw, c.div_ceil(4));
    let (k, outer) = (quads * taps, o / p.groups);
    let tail = out.len() - Tail::len(o);
    Tail::begin(&mut out[tail..], x);
    let plain = Scratch::new(o * k);
    let (out, rows) = (At(out.as_mut_ptr()), At(plain.ptr()));
    let [so, sc, sh, sw] = [0, 1, 2, 3].map(|d| w.strides[d]);
    par::for_range(o, (1 << 15) / (k * 4).max(1) + 1, |filters| {
        for f in filters {
            // Taken tap by tap, so that a run of channels becomes quads.
            let at = |i: usize| {
                let (tap, channel) = (i / c, i % c);
                let offset = f as isize * so
                    + channel as isize * sc
                    + (tap / kw) as isize * sh
                    + (tap % kw) as isize * sw;
                // SAFETY: an element of the view, which was checked at construction.
                unsafe { *w.ptr().offset(offset) }
            };
            // Sums run over quads, then taps.
            let put = |i: usize, q: f32| {
                let (tap, quad) = (i / quads, i % quads);
                // SAFETY: the filter's row of the scratch.
                unsafe { *rows.after(f * k + quad * taps + tap) = q }
            };
            let runs = (0..taps).map(|t| t * c..(t + 1) * c);
            let w = quantize_weights(c * taps, at, runs, put);
            // SAFETY: the filter's place in the tail.
            unsafe { Tail::put(out.after(tail), o, f, x, w) };
        }
    });
    for at in (0..o).step_by(outer.max(1)).map(|row| row * k) {
        // SAFETY: groups follow each other in the scratch and in `out`.
        unsafe { direct::pack(rows.after(at), outer, k, out.after(at)) }
    }
}

/// The convolution, of kernels packed by [`pack`], by these tiles.
pub(super) fn run(
    s: &Shape,
    x: Src<f32>,
    packed: &[f32],
    y: Dst<f32>,
    ep: &Epilogue,
    tiles: Tiles,
) {
    let tail = Tail::read(packed, s.o);
    let quads = Quads {
        kernel: tiles.filters,
        scales: tail.scales,
        rounding: tail.rounding,
        zero: tail.zero,
        channels: s.inner,
    };
    let strides = std::array::from_fn(|d| x.strides[d]);
    let patches = Patches { inner: s.inner.div_ceil(4), ..s.patches(x.ptr(), strides) };
    dense_output(y, |y, batch| {
        let sweep = Sweep {
            batch: s.n,
            groups: s.params.groups,
            outer: s.outer,
            patches,
            weights: packed.as_ptr(),
            y,
            y_strides: [batch, s.out[0] * s.out[1], s.out[1], 1],
            ep,
            quads: Some(&quads),
        };
        // SAFETY: the views were checked at construction, their shapes and the length of
        // the packed kernels just now.
        unsafe { sweep.run() }
    });
}
