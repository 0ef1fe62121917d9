//! Convolution of each channel by itself.
//!
//! There is no product of matrices in it: an output reads a few pixels of one plane,
//! and memory is what it waits for. Some rows of a plane are staged with their padding
//! and stay in the first-level cache; a vector of pixels is then read once for all
//! outputs of four rows that it is part of. Sums are the chains over the kernel's
//! elements that [`super::direct`] computes.

use crate::gemm::{Act, Epilogue, HOOKED, JOB, Tile};
use crate::par;
use crate::scratch::Scratch;
use crate::simd::row::{read, write};
use crate::simd::unroll::{copies, unroll};
use crate::simd::{LANES, RealTask, RealVector, run_real};
use std::ops::Range;

/// Floats of staged rows, about: 24 KiB.
const STAGED: usize = 6 << 10;
/// A vector of every other pixel begins so far before the end of what it reads.
const BEYOND: usize = 2 * LANES;

/// The largest distance of outputs in a row of the input.
pub(super) const STRIDE: usize = 2;

/// A convolution of which every channel of the output reads one of the input.
pub(super) struct Depthwise<'a> {
    pub(super) batch: usize,
    /// Channels of the input, and of the output for each.
    pub(super) channels: usize,
    pub(super) outer: usize,
    /// Rows and columns of input, kernel and output.
    pub(super) size: [usize; 2],
    pub(super) kernel: [usize; 2],
    pub(super) out: [usize; 2],
    pub(super) stride: [usize; 2],
    pub(super) dilation: [usize; 2],
    pub(super) padding: [usize; 2],
    /// Base and strides of batch, channels, rows and columns of the input.
    pub(super) x: *const f32,
    pub(super) x_strides: [isize; 4],
    /// Dense kernels, one for each channel of the output.
    pub(super) weights: *const f32,
    /// Dense images, and their distance.
    pub(super) y: *mut f32,
    pub(super) y_batch: usize,
    pub(super) ep: &'a Epilogue<'a>,
}

// SAFETY: jobs write disjoint parts of the output and only read what the maker
// vouches for.
unsafe impl Sync for Depthwise<'_> {}

impl Depthwise<'_> {
    /// Computes the convolution.
    ///
    /// # Safety
    /// Everything is readable and the output writable at the stated extents; the
    /// output overlaps nothing.
    pub(super) unsafe fn run(&self) {
        let pixels = self.out[0] * self.out[1];
        let planes = self.batch * self.channels;
        if pixels * self.outer * planes == 0 {
            return;
        }
        // A plane costs at least as much as it takes to read it.
        let taps = self.kernel[0] * self.kernel[1];
        let work = (self.outer * pixels * taps.max(8)).max(self.size[0] * self.size[1]).max(256);
        let grain = (JOB / 2).div_ceil(work);
        par::for_range(planes, grain, |planes| {
            // SAFETY: the caller's contract; planes are disjoint in the output.
            unsafe { self.planes(planes) };
        });
    }

    /// Computes what some planes of the input make, images after each other.
    unsafe fn planes(&self, planes: Range<usize>) {
        let [down, right] = [0, 1].map(|d| (self.kernel[d] - 1) * self.dilation[d] + 1);
        let pitch =
            ((self.out[1] - 1) * self.stride[1] + right).max(self.size[1] + self.padding[1]);
        // Rows of the output that staged rows are enough for.
        let fit = (STAGED / pitch).saturating_sub(down) / self.stride[0] + 1;
        let strip = self.out[0].div_ceil(self.out[0].div_ceil(fit.max(4)));
        let staged = (strip - 1) * self.stride[0] + down;
        let scratch = Scratch::new(staged * pitch + BEYOND + right);
        // SAFETY: the scratch has room for the staged rows and what is read beyond them;
        // everything else lies within the caller's extents.
        unsafe {
            scratch.ptr().write_bytes(0, staged * pitch + BEYOND + right);
            let pixels = self.out[0] * self.out[1];
            // Channels of the output that the hook has not seen.
            let mut unseen = planes.start * self.outer;
            for plane in planes.clone() {
                let (image, channel) = (plane / self.channels, plane % self.channels);
                let y = self.y.add(image * self.y_batch);
                let at = image as isize * self.x_strides[0] + channel as isize * self.x_strides[1];
                for start in (0..self.out[0]).step_by(strip) {
                    let rows = start..(start + strip).min(self.out[0]);
                    run_real(Strip {
                        of: self,
                        x: self.x.offset(at),
                        first: (start * self.stride[0]) as isize - self.padding[0] as isize,
                        again: strip < self.out[0],
                        staged: scratch.ptr(),
                        count: (rows.len() - 1) * self.stride[0] + down,
                        pitch,
                        rows: rows.len(),
                        channel: channel * self.outer,
                        y: y.add(channel * self.outer * pixels + start * self.out[1]),
                    });
                }
                let Some(hook) = self.ep.hook else { continue };
                let done = (plane + 1) * self.outer;
                let ends = channel + 1 == self.channels || plane + 1 == planes.end;
                if ends || (done - unseen) * pixels >= HOOKED {
                    let row = unseen - image * self.channels * self.outer;
                    let rows = done - unseen;
                    let ptr = y.add(row * pixels);
                    let ld = pixels as isize;
                    hook(Tile { batch: image, row, col: 0, rows, cols: pixels, ptr, ld });
                    unseen = done;
                }
            }
        }
    }
}

/// Some rows of outputs of one plane.
struct Strip<'a> {
    of: &'a Depthwise<'a>,
    /// The plane of the input.
    x: *const f32,
    /// Its row that is staged first, perhaps one of the padding.
    first: isize,
    /// Whether rows of padding may hold pixels of another strip.
    again: bool,
    /// Room for so many rows, `pitch` apart, zero left and right of pixels.
    staged: *mut f32,
    count: usize,
    pitch: usize,
    rows: usize,
    /// First channel of the output, and its first output of the strip.
    channel: usize,
    y: *mut f32,
}

impl RealTask<f32> for Strip<'_> {
    type Out = ();

    #[inline(always)]
    fn run<V: RealVector<Elem = f32>>(self) {
        let c = self.of;
        // SAFETY: the maker vouches for the plane, the room and the outputs.
        unsafe {
            self.stage::<V>();
            for o in 0..c.outer {
                let taps = c.kernel[0] * c.kernel[1];
                let lines = Lines {
                    x: self.staged,
                    pitch: self.pitch,
                    down: c.dilation[0] * self.pitch,
                    right: c.dilation[1],
                    step: c.stride[0] * self.pitch,
                    weights: c.weights.add((self.channel + o) * taps),
                    bias: c.ep.bias_row.map_or(0.0, |b| b[self.channel + o]),
                    biased: c.ep.bias_row.is_some(),
                    relu: c.ep.act == Act::Relu,
                    rows: self.rows,
                    cols: c.out[1],
                    y: self.y.add(o * c.out[0] * c.out[1]),
                };
                match (c.kernel, c.stride, c.dilation) {
                    ([3, 3], [1, 1], [1, 1]) => lines.square::<V, 3, 1>(),
                    ([3, 3], [2, 2], [1, 1]) => lines.square::<V, 3, 2>(),
                    ([5, 5], [1, 1], [1, 1]) => lines.square::<V, 5, 1>(),
                    ([5, 5], [2, 2], [1, 1]) => lines.square::<V, 5, 2>(),
                    (kernel, [_, 1], _) => lines.any::<V, 1>(kernel),
                    (kernel, _, _) => lines.any::<V, 2>(kernel),
                }
            }
        }
    }
}

impl Strip<'_> {
    /// Copies the pixels that the strip reads; rows outside the image are zero.
    #[inline(always)]
    unsafe fn stage<V: RealVector<Elem = f32>>(&self) {
        let c = self.of;
        let ([_, _, row, col], [h, w]) = (c.x_strides, c.size);
        for i in 0..self.count {
            let at = self.first + i as isize;
            // SAFETY: the maker has room for all rows; the row is one of the image's.
            unsafe {
                let to = self.staged.add(i * self.pitch);
                if at < 0 || at >= h as isize {
                    if self.again {
                        to.write_bytes(0, self.pitch);
                    }
                    continue;
                }
                let (from, to) = (self.x.offset(at * row), to.add(c.padding[1]));
                if col != 1 {
                    for j in 0..w {
                        *to.add(j) = *from.offset(j as isize * col);
                    }
                    continue;
                }
                let mut j = 0;
                while j < w {
                    let k = (w - j).min(LANES);
                    write(read::<V>(from, j, k, 0.0), to, j, k);
                    j += LANES;
                }
            }
        }
    }
}

/// Rows of outputs of one channel, and where they read.
struct Lines {
    x: *const f32,
    pitch: usize,
    /// Distance of the kernel's rows and columns, and of outputs' rows, in staged pixels.
    down: usize,
    right: usize,
    step: usize,
    weights: *const f32,
    bias: f32,
    biased: bool,
    relu: bool,
    rows: usize,
    cols: usize,
    y: *mut f32,
}

/// Sixteen pixels, or every other one of more.
///
/// # Safety
/// They are there to read.
#[inline(always)]
unsafe fn pixels<V: RealVector<Elem = f32>, const S: usize>(p: *const f32) -> V {
    // SAFETY: the caller's contract.
    unsafe {
        let v = V::load(p);
        if S == 1 { v } else { v.even(V::load(p.add(LANES))) }
    }
}

impl Lines {
    /// Kernels of `K` x `K` without dilation, outputs `S` apart.
    ///
    /// # Safety
    /// The pixels are readable, the outputs writable.
    #[inline(always)]
    unsafe fn square<V: RealVector<Elem = f32>, const K: usize, const S: usize>(&self) {
        // SAFETY: the caller's contract. The last rows may be computed twice.
        unsafe {
            if V::REGISTERS == 1 && self.rows >= 4 {
                for row in (0..self.rows).step_by(4) {
                    self.block::<V, K, S, 4>(row.min(self.rows - 4));
                }
            } else if self.rows >= 2 {
                for row in (0..self.rows).step_by(2) {
                    self.block::<V, K, S, 2>(row.min(self.rows - 2));
                }
            } else {
                self.any::<V, S>([K, K]);
            }
        }
    }

    /// `R` rows of outputs from `row` on.
    #[inline(always)]
    unsafe fn block<V, const K: usize, const S: usize, const R: usize>(&self, row: usize)
    where
        V: RealVector<Elem = f32>,
    {
        // SAFETY: the caller's contract.
        unsafe {
            let mut weights: [[V; K]; K] = copies(copies(V::splat(0.0)));
            unroll!(for i in 0..K {
                unroll!(for j in 0..K {
                    weights[i][j] = V::splat(*self.weights.add(i * K + j));
                });
            });
            let (x, y) = (self.x.add(row * self.step), self.y.add(row * self.cols));
            let mut col = 0;
            while col < self.cols {
                let mut sums: [V; R] = copies(V::splat(0.0));
                // Rows of pixels that any of these outputs reads: at most 11.
                unroll!(for i in 0..11 {
                    if i < (R - 1) * S + K {
                        let from = x.add(i * self.pitch + col * S);
                        unroll!(for j in 0..K {
                            let v = pixels::<V, S>(from.add(j));
                            unroll!(for r in 0..R {
                                if i >= r * S && i - r * S < K {
                                    sums[r] = v.fma(weights[i - r * S][j], sums[r]);
                                }
                            });
                        });
                    }
                });
                let k = (self.cols - col).min(LANES);
                unroll!(for r in 0..R {
                    write(self.finished(sums[r]), y.add(r * self.cols), col, k);
                });
                col += LANES;
            }
        }
    }

    /// Kernels of any size.
    ///
    /// # Safety
    /// As for [`Lines::square`].
    #[inline(always)]
    unsafe fn any<V: RealVector<Elem = f32>, const S: usize>(&self, [kh, kw]: [usize; 2]) {
        for row in 0..self.rows {
            let mut col = 0;
            while col < self.cols {
                let mut sum = V::splat(0.0);
                // SAFETY: the caller's contract.
                unsafe {
                    let from = self.x.add(row * self.step + col * S);
                    for i in 0..kh {
                        for j in 0..kw {
                            let v = pixels::<V, S>(from.add(i * self.down + j * self.right));
                            sum = v.fma(V::splat(*self.weights.add(i * kw + j)), sum);
                        }
                    }
                    let k = (self.cols - col).min(LANES);
                    write(self.finished(sum), self.y.add(row * self.cols), col, k);
                }
                col += LANES;
            }
        }
    }

    #[inline(always)]
    fn finished<V: RealVector<Elem = f32>>(&self, mut sum: V) -> V {
        if self.biased {
            sum = sum.add(V::splat(self.bias));
        }
        if self.relu { sum.max(V::splat(0.0)) } else { sum }
    }
}
