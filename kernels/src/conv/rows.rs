//! Convolution of images whose channels lie side by side: pixels are the rows of a
//! matrix product, packed kernels its right operand.
//!
//! Images of 7 x 7 pixels leave vectors of pixels half empty; vectors of channels are
//! full. A kernel of one element reads its pixels where they lie. For a larger one the
//! numbers under the kernel are gathered for some pixels at a time, few enough to stay
//! in the second-level cache while all output channels use them.
//!
//! Sums run over rows and columns of the kernel, then channels; where there are fewer
//! than [`FEW`] channels, over channels first, and the input may lie in planes.

use super::Shape;
use super::stage::{Strip, strips};
use crate::gemm::driver::{Lhs, Out, Product, Rhs};
use crate::gemm::kernel::{Kernel, MR, Micro, NR, Rows, Scales, row_tiles};
use crate::gemm::pack::panel_width;
use crate::gemm::{self, Act, Epilogue, JOB, Tile};
use crate::par;
use crate::scratch::Scratch;
use crate::view::Src;
use std::ops::Range;

/// With fewer channels than these, neighbours in a row are gathered faster.
const FEW: usize = 8;
/// Floats staged or gathered at a time, about: 128 KiB (with large kernels up to 1 MiB).
const GATHERED: usize = 32 << 10;

/// Whether the input may lie in any order.
pub(super) fn takes_planes(channels: usize) -> bool {
    channels < FEW
}

/// Number of floats of packed kernels of shape `[o, c, kh, kw]`.
pub(super) fn packed_len([o, c, kh, kw]: [usize; 4]) -> usize {
    gemm::packed_len(c * kh * kw, o)
}

/// Packs kernels of shape `[o, c, kh, kw]` as `panels` packs matrices, of which the rows are
/// over channels first or last.
pub(super) fn pack(
    w: Src<f32>,
    channels_first: bool,
    out: &mut [f32],
    panels: impl Fn(Src<f32>, &mut [f32]),
) {
    let &[o, c, kh, kw] = w.shape else { unreachable!("kernels have four dimensions") };
    let k = c * kh * kw;
    let plain = Scratch::new(o * k);
    let [so, sc, sh, sw] = [0, 1, 2, 3].map(|d| w.strides[d]);
    // SAFETY: the view was checked at construction; the scratch has room for `k` rows of
    // `o` numbers.
    let matrix = unsafe {
        for i in 0..c {
            for (a, b) in (0..kh).flat_map(|a| (0..kw).map(move |b| (a, b))) {
                let row = match channels_first {
                    true => (i * kh + a) * kw + b,
                    false => (a * kw + b) * c + i,
                };
                let at = i as isize * sc + a as isize * sh + b as isize * sw;
                let (from, to) = (w.ptr().wrapping_offset(at), plain.ptr().add(row * o));
                for j in 0..o {
                    *to.add(j) = *from.wrapping_offset(j as isize * so);
                }
            }
        }
        std::slice::from_raw_parts(plain.ptr(), o * k)
    };
    panels(Src::of(matrix, &[k, o], &[o as isize, 1]), out);
}

/// A convolution with one group.
pub(super) struct Conv<'a> {
    pub(super) s: &'a Shape,
    /// Base and strides of batch, channels, rows and columns of the input. Channels lie
    /// side by side, unless [`takes_planes`].
    pub(super) x: *const f32,
    pub(super) x_strides: [isize; 4],
    /// Kernels packed by [`pack`], over channels first where the input [`takes_planes`].
    pub(super) packed: &'a [f32],
    /// Dense pixels with their channels side by side.
    pub(super) y: *mut f32,
    pub(super) ep: &'a Epilogue<'a>,
}

// SAFETY: jobs write disjoint parts of the output and only read what the maker
// vouches for.
unsafe impl Sync for Conv<'_> {}

impl Conv<'_> {
    /// Computes the convolution.
    ///
    /// # Safety
    /// Everything is readable and the output writable at the stated extents; the output
    /// overlaps nothing.
    pub(super) unsafe fn run(&self) {
        let s = self.s;
        let pixels = s.out[0] * s.out[1];
        let rows = s.n * pixels;
        if rows * s.o == 0 {
            return;
        }
        // SAFETY: the caller's contract.
        unsafe {
            let [batch, channel, row, col] = self.x_strides;
            let even = row == s.size[1] as isize * col || s.size[0] == 1;
            let whole = even && (batch == s.size[0] as isize * row || s.n == 1);
            if s.kernel == [1; 2] && s.params.stride == [1; 2] && s.params.padding == [0; 2] && even
            {
                let items = if whole { 1 } else { s.n };
                let a = Lhs { ptr: self.x, strides: [batch, col, channel] };
                return self.product(a, items, 0..rows / items, true);
            }
            let k = s.c * s.kernel[0] * s.kernel[1];
            let threads = par::threads();
            let work = rows.saturating_mul(s.o).saturating_mul(k.max(8));
            let shared = threads > 1 && work >= 2 * JOB;
            // Whole rows of outputs, as many as fit.
            let lines = s.n * s.out[0];
            let (room, line) = match takes_planes(s.c) {
                true => (GATHERED, s.c * s.params.stride[0] * s.size[1]),
                // Large kernels come from far away each time.
                false => ((k * s.o / 4).clamp(GATHERED, 8 * GATHERED), k * s.out[1]),
            };
            let fit = (room / line.max(1)).max(1);
            let wanted = if shared { (4 * threads).min(work.div_ceil(JOB)) } else { 1 };
            let pieces = lines.div_ceil(fit).max(wanted).min(lines);
            let job = |i: usize| {
                let part = lines * i / pieces..lines * (i + 1) / pieces;
                self.gathered(part);
            };
            if shared {
                par::for_each(pieces, &job);
            } else {
                (0..pieces).for_each(job);
            }
        }
    }

    /// Rows of the product, from the first row of `a` on; an item of several follows the
    /// one before.
    unsafe fn product(&self, a: Lhs, items: usize, rows: Range<usize>, shared: bool) {
        let s = self.s;
        let show = |t: Tile| {
            if let Some(hook) = self.ep.hook {
                hook(Tile { batch: 0, row: t.batch * rows.len() + rows.start + t.row, ..t });
            }
        };
        let ep = Epilogue {
            bias_row: None,
            bias_col: self.ep.bias_row,
            hook: self.ep.hook.is_some().then_some(&show),
            ..*self.ep
        };
        let (m, n, k) = (rows.len(), s.o, s.c * s.kernel[0] * s.kernel[1]);
        let c = self.y.wrapping_add(rows.start * n);
        let product = Product {
            batch: items,
            m,
            k,
            n,
            a,
            b: Rhs::Packed(self.packed.as_ptr(), k),
            c: Out { ptr: c, batch: (m * n) as isize, ld: n as isize },
            accumulate: false,
            ep: &ep,
            scales: Scales::NONE,
            kernel: Kernel::active(),
        };
        // SAFETY: the caller's contract.
        unsafe { if shared { product.run() } else { product.run_here() } }
    }

    /// Computes some rows of outputs, numbered through the batch.
    unsafe fn gathered(&self, lines: Range<usize>) {
        let s = self.s;
        let k = s.c * s.kernel[0] * s.kernel[1];
        let rows = lines.start * s.out[1]..lines.end * s.out[1];
        // SAFETY: the scratch has room for the rows; everything else is the caller's
        // contract.
        unsafe {
            if takes_planes(s.c) {
                for part in strips(lines, s.out[0]) {
                    self.across(part);
                }
                return;
            }
            let gathered = Scratch::new(k * rows.len());
            let mut to = gathered.ptr();
            for part in strips(lines, s.out[0]) {
                for i in part.rows {
                    self.line(part.image, i, to);
                    to = to.add(k * s.out[1]);
                }
            }
            let a = Lhs { ptr: gathered.ptr(), strides: [0, k as isize, 1] };
            self.product(a, 1, rows, false);
        }
    }

    /// Computes some rows of an image's outputs from staged planes, whose numbers are as
    /// far from each other under every tap of the kernel.
    unsafe fn across(&self, strip: Strip) {
        let (s, kernel) = (self.s, Kernel::active());
        let patches = s.patches(self.x, self.x_strides);
        let (k, cols, n) = (patches.len(), s.out[1], s.o);
        let most = patches.staged(strip.rows.len());
        let scratch = Scratch::new(most + k);
        let table = scratch.ptr().wrapping_add(most).cast::<u32>();
        let first = (strip.image * s.out[0] + strip.rows.start) * cols;
        let c = self.y.wrapping_add(first * n);
        // SAFETY: the scratch has room for the planes and a number for each step;
        // everything else is the caller's contract.
        unsafe {
            patches.stage(strip.image, 0, &strip.rows, scratch.ptr());
            patches.tabulate(strip.rows.len(), table);
            for line in 0..strip.rows.len() {
                for (at, rows) in row_tiles(cols, MR) {
                    for col in (0..n).step_by(NR) {
                        kernel.tile(
                            Rows::Spread,
                            &Micro {
                                rows,
                                cols: (n - col).min(NR),
                                k,
                                a: scratch.ptr().add(line * patches.pitch() + at),
                                a_row: 1,
                                b: self.packed.as_ptr().add(col * k),
                                b_k: panel_width(n, col) as isize,
                                b_panel: (k * NR) as isize,
                                table,
                                c: c.add((line * cols + at) * n + col),
                                ldc: n as isize,
                                bias_col: match self.ep.bias_row {
                                    Some(bias) => bias.as_ptr().add(col),
                                    None => std::ptr::null(),
                                },
                                relu: self.ep.act == Act::Relu,
                                most: self.ep.ceiling(),
                                ..Micro::NONE
                            },
                        );
                    }
                }
            }
        }
        if let Some(hook) = self.ep.hook {
            let (rows, ld) = (strip.rows.len() * cols, n as isize);
            hook(Tile { batch: 0, row: first, col: 0, rows, cols: n, ptr: c, ld });
        }
    }

    /// Gathers what row `i` of an image's outputs reads.
    unsafe fn line(&self, image: usize, i: usize, mut to: *mut f32) {
        let (s, p) = (self.s, &self.s.params);
        let [batch, _, row, col] = self.x_strides;
        let x = self.x.wrapping_offset(image as isize * batch);
        let ([h, w], [kh, kw], c) = (s.size, s.kernel, s.c);
        let side_by_side = col == c as isize && p.dilation[1] == 1;
        for j in 0..s.out[1] {
            let first = (j * p.stride[1]) as isize - p.padding[1] as isize;
            for a in 0..kh {
                let at = (i * p.stride[0] + a * p.dilation[0]) as isize - p.padding[0] as isize;
                // SAFETY: pixels inside the image are read; the caller has room for the
                // others, too.
                unsafe {
                    if at < 0 || at >= h as isize {
                        to.write_bytes(0, kw * c);
                        to = to.add(kw * c);
                        continue;
                    }
                    let line = x.offset(at * row);
                    if side_by_side && first >= 0 && first as usize + kw <= w {
                        std::ptr::copy_nonoverlapping(line.offset(first * col), to, kw * c);
                        to = to.add(kw * c);
                        continue;
                    }
                    for b in 0..kw {
                        let at = first + (b * p.dilation[1]) as isize;
                        if at < 0 || at >= w as isize {
                            to.write_bytes(0, c);
                        } else {
                            std::ptr::copy_nonoverlapping(line.offset(at * col), to, c);
                        }
                        to = to.add(c);
                    }
                }
            }
        }
    }
}
