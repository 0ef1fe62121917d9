//! Convolution of each channel by itself where the channels lie side by side.
//!
//! Sixteen channels are a vector, so that every lane computes whatever the size of the
//! images. Their pixels are staged with the padding, some rows at a time that stay in
//! the first-level cache; sums are chains over rows and columns of the kernel, as
//! [`super::depthwise`] computes them.

use super::Shape;
use crate::gemm::{Act, Epilogue, JOB, Tile};
use crate::par;
use crate::scratch::Scratch;
use crate::simd::row::{read, write};
use crate::simd::unroll::{copies, unroll};
use crate::simd::{LANES, RealTask, RealVector, run_real};
use crate::view::Src;
use std::ops::Range;

/// Floats of staged pixels, about: 24 KiB.
const STAGED: usize = 6 << 10;

/// Number of floats of packed kernels of shape `[o, 1, kh, kw]`.
pub(super) fn packed_len([o, _, kh, kw]: [usize; 4]) -> usize {
    o.next_multiple_of(LANES) * kh * kw
}

/// Packs kernels of shape `[o, 1, kh, kw]`: sixteen channels of each element.
pub(super) fn pack(w: Src<f32>, out: &mut [f32]) {
    let &[o, _, kh, kw] = w.shape else { unreachable!("kernels have four dimensions") };
    let taps = kh * kw;
    out.fill(0.0);
    for channel in 0..o {
        for tap in 0..taps {
            let at = (channel / LANES * taps + tap) * LANES + channel % LANES;
            out[at] = w.at(&[channel, 0, tap / kw, tap % kw]);
        }
    }
}

/// A convolution of which every channel of the output reads the same of the input.
pub(super) struct Conv<'a> {
    pub(super) s: &'a Shape,
    /// Base and strides of batch, rows and columns of the input; channels lie side by
    /// side.
    pub(super) x: *const f32,
    pub(super) x_strides: [isize; 3],
    /// Kernels packed by [`pack`].
    pub(super) packed: *const f32,
    /// Dense pixels with their channels side by side.
    pub(super) y: *mut f32,
    pub(super) ep: &'a Epilogue<'a>,
}

// SAFETY: jobs write disjoint parts of the output and only read what the maker
// vouches for.
unsafe impl Sync for Conv<'_> {}

impl Conv<'_> {
    /// Columns of staged pixels.
    fn pitch(&self) -> usize {
        let p = &self.s.params;
        (self.s.out[1] - 1) * p.stride[1] + (self.s.kernel[1] - 1) * p.dilation[1] + 1
    }

    /// Rows of pixels that so many rows of outputs read.
    fn under(&self, rows: usize) -> usize {
        let p = &self.s.params;
        (rows - 1) * p.stride[0] + (self.s.kernel[0] - 1) * p.dilation[0] + 1
    }

    /// Computes the convolution.
    ///
    /// # Safety
    /// Everything is readable and the output writable at the stated extents; the
    /// output overlaps nothing.
    pub(super) unsafe fn run(&self) {
        let s = self.s;
        let [oh, ow] = s.out;
        if s.n * s.o * oh * ow == 0 {
            return;
        }
        // Rows of outputs for which staged pixels are enough.
        let fit = STAGED / (self.pitch() * LANES);
        let over = self.under(1) - s.params.stride[0].min(self.under(1));
        let fit = (fit.saturating_sub(over) / s.params.stride[0]).clamp(2, oh.max(2));
        let strips = oh.div_ceil(fit);
        let blocks = s.o.div_ceil(LANES);
        let taps = s.kernel[0] * s.kernel[1];
        let work = LANES * ow * oh.div_ceil(strips) * taps.max(8);
        // With a hook, a strip is shown when all of its channels are there.
        let (jobs, each) = match self.ep.hook {
            Some(_) => (s.n * strips, blocks),
            None => (s.n * strips * blocks, 1),
        };
        par::for_range(jobs, (JOB / 2).div_ceil(work * each), |jobs| {
            let mut staged = Scratch::default();
            let room = self.under(oh.div_ceil(strips)) * self.pitch() * LANES;
            staged.room::<f32>(room);
            for job in jobs {
                // Neighbouring channels after each other: they share cache lines.
                let (at, block) = (job / (blocks / each), job % (blocks / each));
                let (image, strip) = (at / strips, at % strips);
                let rows = oh * strip / strips..oh * (strip + 1) / strips;
                for b in block..block + each {
                    let part = Part { of: self, image, rows: rows.clone(), block: b };
                    // SAFETY: the caller's contract; parts are disjoint in the output,
                    // and the scratch has room for the pixels of one.
                    unsafe { part.stage_and_run(staged.ptr()) };
                }
                let Some(hook) = self.ep.hook else { continue };
                let row = (image * oh + rows.start) * ow;
                let ptr = self.y.wrapping_add(row * s.o);
                let (rows, ld) = (rows.len() * ow, s.o as isize);
                hook(Tile { batch: 0, row, col: 0, rows, cols: s.o, ptr, ld });
            }
        });
    }
}

/// Some rows of outputs of one image, sixteen channels of them.
struct Part<'a> {
    of: &'a Conv<'a>,
    image: usize,
    rows: Range<usize>,
    block: usize,
}

impl Part<'_> {
    unsafe fn stage_and_run(self, staged: *mut f32) {
        run_real(Strip { part: self, staged });
    }
}

/// A part, and room for its pixels.
struct Strip<'a> {
    part: Part<'a>,
    staged: *mut f32,
}

impl RealTask<f32> for Strip<'_> {
    type Out = ();

    #[inline(always)]
    fn run<V: RealVector<Elem = f32>>(self) {
        let c = self.part.of;
        // SAFETY: the maker vouches for the images, the room and the outputs.
        unsafe {
            self.stage::<V>();
            let p = &c.s.params;
            match (c.s.kernel, p.stride, p.dilation) {
                ([3, 3], [1, 1], [1, 1]) => self.square::<V, 3, 1>(),
                ([3, 3], [2, 2], [1, 1]) => self.square::<V, 3, 2>(),
                ([5, 5], [1, 1], [1, 1]) => self.square::<V, 5, 1>(),
                ([5, 5], [2, 2], [1, 1]) => self.square::<V, 5, 2>(),
                _ => {
                    for row in 0..self.part.rows.len() {
                        self.any::<V>(row, 0..c.s.out[1]);
                    }
                }
            }
        }
    }
}

impl Strip<'_> {
    /// Channels of this part, of sixteen.
    #[inline(always)]
    fn channels(&self) -> usize {
        (self.part.of.s.o - self.part.block * LANES).min(LANES)
    }

    /// Copies the pixels that the part reads; those outside the image are zero.
    #[inline(always)]
    unsafe fn stage<V: RealVector<Elem = f32>>(&self) {
        let c = self.part.of;
        let (s, p) = (c.s, &c.s.params);
        let [batch, row, col] = c.x_strides;
        let (count, pitch, channels) = (c.under(self.part.rows.len()), c.pitch(), self.channels());
        let first = (self.part.rows.start * p.stride[0]) as isize - p.padding[0] as isize;
        let left = p.padding[1].min(pitch);
        let width = s.size[1].min(pitch - left);
        let x = c.x.wrapping_offset(self.part.image as isize * batch);
        let x = x.wrapping_add(self.part.block * LANES);
        let blank = |to: *mut f32, n: usize| {
            for j in 0..n {
                // SAFETY: the caller has room for the pixels.
                unsafe { V::splat(0.0).store(to.add(j * LANES)) };
            }
        };
        for i in 0..count {
            let at = first + i as isize;
            // SAFETY: the maker has room for all rows; the row is one of the image's.
            unsafe {
                let to = self.staged.add(i * pitch * LANES);
                if at < 0 || at >= s.size[0] as isize {
                    blank(to, pitch);
                    continue;
                }
                blank(to, left);
                let from = x.offset(at * row);
                let line = to.add(left * LANES);
                if channels == LANES {
                    for j in 0..width {
                        V::load(from.offset(j as isize * col)).store(line.add(j * LANES));
                    }
                } else {
                    for j in 0..width {
                        let v = V::load_part(from.offset(j as isize * col), channels, 0.0);
                        v.store(line.add(j * LANES));
                    }
                }
                blank(line.add(width * LANES), pitch - left - width);
            }
        }
    }

    /// Kernels of `K` x `K` without dilation, outputs `S` apart.
    #[inline(always)]
    unsafe fn square<V: RealVector<Elem = f32>, const K: usize, const S: usize>(&self) {
        let (rows, cols) = (self.part.rows.len(), self.part.of.s.out[1]);
        // SAFETY: the maker's. The last rows and columns may be computed twice.
        unsafe {
            // What is held in registers: sums, and a row of the kernel.
            if V::REGISTERS == 1 && K == 3 && rows >= 2 && cols >= 4 {
                for row in (0..rows).step_by(2) {
                    for col in (0..cols).step_by(4) {
                        self.block::<V, K, S, 2, 4>(row.min(rows - 2), col.min(cols - 4));
                    }
                }
            } else if cols >= 4 {
                for row in 0..rows {
                    for col in (0..cols).step_by(4) {
                        self.block::<V, K, S, 1, 4>(row, col.min(cols - 4));
                    }
                }
            } else {
                for row in 0..rows {
                    self.any::<V>(row, 0..cols);
                }
            }
        }
    }

    /// `R` x `C` outputs.
    #[inline(always)]
    unsafe fn block<V, const K: usize, const S: usize, const R: usize, const C: usize>(
        &self,
        row: usize,
        col: usize,
    ) where
        V: RealVector<Elem = f32>,
    {
        let c = self.part.of;
        let pitch = c.pitch() * LANES;
        // SAFETY: the maker's.
        unsafe {
            let weights = c.packed.add(self.part.block * K * K * LANES);
            let x = self.staged.add(row * S * pitch + col * S * LANES).cast_const();
            let mut sums: [[V; C]; R] = copies(copies(V::splat(0.0)));
            // Rows of the kernel for all rows of outputs: each sum takes its products in
            // the order of the kernel's elements.
            unroll!(for i in 0..K {
                unroll!(for j in 0..K {
                    let w = V::load(weights.add((i * K + j) * LANES));
                    unroll!(for r in 0..R {
                        let x = x.add((r * S + i) * pitch + j * LANES);
                        unroll!(for o in 0..C {
                            sums[r][o] = V::load(x.add(o * S * LANES)).fma(w, sums[r][o]);
                        });
                    });
                });
            });
            unroll!(for r in 0..R {
                unroll!(for o in 0..C {
                    self.finish(sums[r][o], row + r, col + o);
                });
            });
        }
    }

    /// Outputs of one row, for kernels of any size.
    #[inline(always)]
    unsafe fn any<V: RealVector<Elem = f32>>(&self, row: usize, cols: Range<usize>) {
        let c = self.part.of;
        let (p, [kh, kw], pitch) = (&c.s.params, c.s.kernel, c.pitch());
        // SAFETY: the maker's.
        unsafe {
            let weights = c.packed.add(self.part.block * kh * kw * LANES);
            for col in cols {
                let mut sum = V::splat(0.0);
                for i in 0..kh {
                    for j in 0..kw {
                        let at = (row * p.stride[0] + i * p.dilation[0]) * pitch;
                        let at = at + col * p.stride[1] + j * p.dilation[1];
                        let w = V::load(weights.add((i * kw + j) * LANES));
                        sum = V::load(self.staged.add(at * LANES)).fma(w, sum);
                    }
                }
                self.finish(sum, row, col);
            }
        }
    }

    /// Bias, activation, and the place in the output.
    #[inline(always)]
    unsafe fn finish<V: RealVector<Elem = f32>>(&self, mut sum: V, row: usize, col: usize) {
        let c = self.part.of;
        let (channel, channels) = (self.part.block * LANES, self.channels());
        // SAFETY: the maker's.
        unsafe {
            if let Some(bias) = c.ep.bias_row {
                sum = sum.add(read::<V>(bias.as_ptr().add(channel), 0, channels, 0.0));
            }
            if c.ep.act == Act::Relu {
                sum = sum.max(V::splat(0.0));
            }
            if let Some(most) = c.ep.most {
                sum = sum.min(V::splat(most));
            }
            let [oh, ow] = c.s.out;
            let pixel = (self.part.image * oh + self.part.rows.start + row) * ow + col;
            write(sum, c.y.add(pixel * c.s.o + channel), 0, channels);
        }
    }
}
