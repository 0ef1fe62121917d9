//! Convolution of each channel by itself where the channels lie side by side.
//!
//! Sixteen channels are a vector, so that every lane computes whatever the size of the
//! images. A few neighbouring outputs, in two rows, are computed together for all
//! channels: what they read is then in the first-level cache, and both images are gone
//! through in the order in which they lie. Sums are chains over rows and columns of the
//! kernel, as [`super::depthwise`] computes them.

use super::Shape;
use crate::gemm::{Act, Epilogue, JOB, Tile};
use crate::par;
use crate::scratch::Scratch;
use crate::simd::row::{for_vectors, read, write};
use crate::simd::unroll::{copies, unroll};
use crate::simd::{LANES, RealTask, RealVector, run_real};
use crate::view::Src;
use std::ops::Range;

/// Number of floats of packed kernels of shape `[o, 1, kh, kw]`.
pub(super) fn packed_len([o, _, kh, kw]: [usize; 4]) -> usize {
    o.next_multiple_of(LANES) * kh * kw
}

/// Packs kernels of shape `[o, 1, kh, kw]`: the channels of each element side by side.
pub(super) fn pack(w: Src<f32>, out: &mut [f32]) {
    let &[o, _, kh, kw] = w.shape else { unreachable!("kernels have four dimensions") };
    out.fill(0.0);
    for (tap, row) in out.chunks_exact_mut(o.next_multiple_of(LANES)).enumerate() {
        for (channel, v) in row[..o].iter_mut().enumerate() {
            *v = w.at(&[channel, 0, tap / kw % kh, tap % kw]);
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

/// Rows of outputs computed together.
const ROWS: usize = 2;

impl Conv<'_> {
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
        let bands = oh.div_ceil(ROWS);
        let taps = s.kernel[0] * s.kernel[1];
        let work = ROWS * s.o * ow * taps.max(8);
        par::for_range(s.n * bands, (JOB / 2).div_ceil(work), |jobs| {
            // What is outside the image.
            let zeros = Scratch::new(s.o + taps * size_of::<*const f32>() / size_of::<f32>());
            // SAFETY: the scratch has room for them.
            unsafe { zeros.ptr().write_bytes(0, s.o) };
            for job in jobs {
                let (image, first) = (job / bands, job % bands * ROWS);
                let rows = first..(first + ROWS).min(oh);
                run_real(Band { of: self, image, rows: rows.clone(), zeros: zeros.ptr() });
                let Some(hook) = self.ep.hook else { continue };
                let row = (image * oh + rows.start) * ow;
                let ptr = self.y.wrapping_add(row * s.o);
                let (rows, ld) = (rows.len() * ow, s.o as isize);
                hook(Tile { batch: 0, row, col: 0, rows, cols: s.o, ptr, ld });
            }
        });
    }
}

/// One or two rows of outputs of an image.
struct Band<'a> {
    of: &'a Conv<'a>,
    image: usize,
    rows: Range<usize>,
    /// So many zeros as there are channels, then room for an address for each element of
    /// the kernel.
    zeros: *const f32,
}

/// What happens to sums on their way out.
#[derive(Clone, Copy)]
struct End<V> {
    bias: *const f32,
    relu: bool,
    most: V,
    bounded: bool,
}

impl<V: RealVector<Elem = f32>> End<V> {
    #[inline(always)]
    fn new(ep: &Epilogue) -> End<V> {
        End {
            bias: ep.bias_row.map_or(std::ptr::null(), <[f32]>::as_ptr),
            relu: ep.act == Act::Relu,
            most: V::splat(ep.ceiling()),
            bounded: ep.most.is_some(),
        }
    }

    /// Adds the bias and applies the bounds.
    #[inline(always)]
    fn of(&self, mut sum: V, bias: V) -> V {
        if !self.bias.is_null() {
            sum = sum.add(bias);
        }
        if self.relu {
            sum = sum.max(V::splat(0.0));
        }
        if self.bounded { sum.min(self.most) } else { sum }
    }

    /// The bias of `k` channels from `c` on.
    #[inline(always)]
    unsafe fn bias(&self, c: usize, k: usize) -> V {
        // SAFETY: the caller has these channels.
        if self.bias.is_null() { V::splat(0.0) } else { unsafe { read(self.bias, c, k, 0.0) } }
    }
}

impl RealTask<f32> for Band<'_> {
    type Out = ();

    #[inline(always)]
    fn run<V: RealVector<Elem = f32>>(self) {
        let (s, p) = (self.of.s, &self.of.s.params);
        // SAFETY: the maker vouches for the images and the outputs.
        unsafe {
            match (s.kernel, p.stride, p.dilation) {
                _ if s.o < LANES || s.out[1] < 2 || V::REGISTERS > 2 => self.any::<V>(),
                ([3, 3], [1, 1], [1, 1]) => self.square::<V, 3, 1>(),
                ([3, 3], [2, 2], [1, 1]) => self.square::<V, 3, 2>(),
                ([5, 5], [1, 1], [1, 1]) => self.square::<V, 5, 1>(),
                ([5, 5], [2, 2], [1, 1]) => self.square::<V, 5, 2>(),
                _ => self.any::<V>(),
            }
        }
    }
}

impl Band<'_> {
    /// Where a pixel's channels are, or as many zeros.
    #[inline(always)]
    fn pixel(&self, row: isize, col: isize) -> *const f32 {
        let c = self.of;
        let [batch, down, right] = c.x_strides;
        let inside =
            row >= 0 && row < c.s.size[0] as isize && col >= 0 && col < c.s.size[1] as isize;
        let at = self.image as isize * batch + row * down + col * right;
        if inside { c.x.wrapping_offset(at) } else { self.zeros }
    }

    /// Where an output's channels go.
    #[inline(always)]
    fn place(&self, row: usize, col: usize) -> *mut f32 {
        let [oh, ow] = self.of.s.out;
        self.of.y.wrapping_add(((self.image * oh + row) * ow + col) * self.of.s.o)
    }

    /// Kernels of `K` x `K` without dilation, outputs `S` apart; sixteen channels or more
    /// and two columns or more.
    #[inline(always)]
    unsafe fn square<V: RealVector<Elem = f32>, const K: usize, const S: usize>(&self) {
        let cols = self.of.s.out[1];
        // SAFETY: the maker's. The last columns may be computed twice.
        unsafe {
            // Kernel, sums and a pixel stay in registers.
            if V::REGISTERS == 1 && K == 3 && self.rows.len() == 2 && cols >= 4 {
                for col in (0..cols).step_by(4) {
                    self.block::<V, K, S, 2, 4>(self.rows.start, col.min(cols - 4));
                }
                return;
            }
            for row in self.rows.clone() {
                if V::REGISTERS == 1 && cols >= 4 {
                    for col in (0..cols).step_by(4) {
                        self.block::<V, K, S, 1, 4>(row, col.min(cols - 4));
                    }
                } else {
                    for col in (0..cols).step_by(2) {
                        self.block::<V, K, S, 1, 2>(row, col.min(cols - 2));
                    }
                }
            }
        }
    }

    /// `R` x `C` outputs, all channels of them.
    #[inline(always)]
    unsafe fn block<V, const K: usize, const S: usize, const R: usize, const C: usize>(
        &self,
        row: usize,
        col: usize,
    ) where
        V: RealVector<Elem = f32>,
    {
        let (c, p) = (self.of, &self.of.s.params);
        let (channels, pitch) = (c.s.o, c.s.o.next_multiple_of(LANES));
        // At most 5 rows of 11 pixels.
        let mut pixels = [[self.zeros; 11]; 5];
        for i in 0..(R - 1) * S + K {
            for j in 0..(C - 1) * S + K {
                let at = [row * S + i, col * S + j];
                let [i_at, j_at] = [0, 1].map(|d| at[d] as isize - p.padding[d] as isize);
                pixels[i][j] = self.pixel(i_at, j_at);
            }
        }
        let end = End::<V>::new(c.ep);
        let y = self.place(row, col);
        let line = c.s.out[1] * channels;
        let mut from = 0;
        loop {
            // SAFETY: sixteen channels from `from` on, of pixels and kernels.
            unsafe {
                let mut sums: [[V; C]; R] = copies(copies(V::splat(0.0)));
                let weights = c.packed.add(from);
                let mut w: [[V; K]; K] = copies(copies(V::splat(0.0)));
                unroll!(for i in 0..K {
                    unroll!(for j in 0..K {
                        w[i][j] = V::load(weights.add((i * K + j) * pitch));
                    });
                });
                unroll!(for i in 0..5 {
                    if i < (R - 1) * S + K {
                        unroll!(for j in 0..11 {
                            if j < (C - 1) * S + K {
                                let v = V::load(pixels[i][j].add(from));
                                unroll!(for r in 0..R {
                                    unroll!(for o in 0..C {
                                        let inside = i >= r * S
                                            && i - r * S < K
                                            && j >= o * S
                                            && j - o * S < K;
                                        if inside {
                                            let w = w[i - r * S][j - o * S];
                                            sums[r][o] = v.fma(w, sums[r][o]);
                                        }
                                    });
                                });
                            }
                        });
                    }
                });
                let bias = end.bias(from, LANES);
                unroll!(for r in 0..R {
                    unroll!(for o in 0..C {
                        let y = y.add(r * line + o * channels + from);
                        end.of(sums[r][o], bias).store(y);
                    });
                });
            }
            if from + LANES >= channels {
                return;
            }
            // The last channels may be computed twice.
            from = (from + LANES).min(channels - LANES);
        }
    }

    /// Kernels of any size.
    #[inline(always)]
    unsafe fn any<V: RealVector<Elem = f32>>(&self) {
        let (c, p) = (self.of, &self.of.s.params);
        let ([kh, kw], channels) = (c.s.kernel, c.s.o);
        let pitch = channels.next_multiple_of(LANES);
        let end = End::<V>::new(c.ep);
        let pixels = self.zeros.wrapping_add(channels).cast_mut().cast::<*const f32>();
        for (row, col) in self.rows.clone().flat_map(|i| (0..c.s.out[1]).map(move |j| (i, j))) {
            for (i, j) in (0..kh).flat_map(|i| (0..kw).map(move |j| (i, j))) {
                let at = |d: usize, out: usize, tap: usize| {
                    (out * p.stride[d] + tap * p.dilation[d]) as isize - p.padding[d] as isize
                };
                let pixel = self.pixel(at(0, row, i), at(1, col, j));
                // SAFETY: behind the zeros is room for an address for each element.
                unsafe { pixels.add(i * kw + j).write_unaligned(pixel) };
            }
            let y = self.place(row, col);
            for_vectors(
                channels,
                #[inline(always)]
                |from, k| {
                    let mut sum = V::splat(0.0);
                    // SAFETY: these channels of pixels, kernels and output.
                    unsafe {
                        for tap in 0..kh * kw {
                            let w = V::load(c.packed.add(tap * pitch + from));
                            let pixel = pixels.add(tap).read_unaligned();
                            sum = read::<V>(pixel, from, k, 0.0).fma(w, sum);
                        }
                        write(end.of(sum, end.bias(from, k)), y, from, k);
                    }
                },
            );
        }
    }
}
