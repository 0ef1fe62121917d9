//! Convolution of images whose channels lie side by side, with several numbers in the place
//! of one f32: pairs of bf16, or quads of integers ([`crate::gemm::units`]).
//!
//! As in [`super::rows`] pixels are the rows of a matrix product. Images are converted first,
//! every number once, with what is outside of them around them; the numbers under a kernel
//! are then runs of bytes, which are gathered for some rows of outputs at a time. A row of
//! numbers needs no whole units for a channel or an element of the kernel: the last unit of a
//! row alone is filled with zeros. Kernels of one element are products of converted pixels.
//!
//! Sums run over rows and columns of the kernel, then channels.

use super::stage::{self, Image, Steps};
use super::{Shape, rows};
use crate::gemm::simd::{Simd, levels};
use crate::gemm::units::Units;
use crate::gemm::{self, Affine, Epilogue, JOB, Tile};
use crate::isa;
use crate::par;
use crate::scratch::{At, Scratch};
use crate::view::{Dst, Src};
use std::ops::Range;

/// Bytes gathered at a time, about: a part of the second-level cache.
const GATHERED: usize = 128 << 10;
/// Bytes of images converted at a time, about.
const CONVERTED: usize = 1 << 20;
/// Numbers worth a thread's attention.
const NUMBERS: usize = 1 << 15;

/// Number of units of packed kernels of shape `[o, c, kh, kw]`.
pub(super) fn packed_len_pairs([o, c, kh, kw]: [usize; 4]) -> usize {
    gemm::packed_len_bf16(c * kh * kw, o)
}

/// [`packed_len_pairs`] for kernels split in two.
pub(super) fn packed_len_split([o, c, kh, kw]: [usize; 4]) -> usize {
    gemm::packed_len_bf16x3(c * kh * kw, o)
}

/// [`packed_len_pairs`] for integers, with what makes numbers of their sums.
pub(super) fn packed_len_quads([o, c, kh, kw]: [usize; 4]) -> usize {
    gemm::packed_len_int8(c * kh * kw, o)
}

/// Packs kernels of shape `[o, c, kh, kw]` as `panels` packs matrices.
pub(super) fn pack(w: Src<f32>, out: &mut [f32], panels: impl Fn(Src<f32>, &mut [f32])) {
    rows::pack(w, false, out, panels);
}

/// Packs them as integers, for images whose numbers `x` covers.
pub(super) fn pack_quads(w: Src<f32>, x: Affine, out: &mut [f32]) {
    pack(w, out, |w, out| gemm::pack_b_int8(w, x, out));
}

/// A convolution with one group.
pub(super) struct Conv<'a> {
    pub(super) s: &'a Shape,
    /// Base and strides of batch, channels, rows and columns of the input, in any order.
    pub(super) x: *const f32,
    pub(super) x_strides: [isize; 4],
    /// Kernels packed for the units.
    pub(super) packed: &'a [f32],
    pub(super) units: Units,
    /// Dense pixels with their channels side by side.
    pub(super) y: *mut f32,
    pub(super) ep: &'a Epilogue<'a>,
}

// SAFETY: jobs write disjoint parts of the output and only read what the maker
// vouches for.
unsafe impl Sync for Conv<'_> {}

/// Converted images.
#[derive(Clone, Copy)]
struct Images {
    at: At,
    /// The first of them, and how many they are.
    first: usize,
    count: usize,
    /// Rows and columns that the outputs of one read, and bytes of such a row.
    size: [usize; 2],
    line: usize,
}

impl Images {
    /// Row `i` of one image, in one of the ways numbers are converted.
    fn line(&self, way: usize, image: usize, i: usize) -> *mut u8 {
        let line = (way * self.count + image - self.first) * self.size[0] + i;
        self.at.after(0).cast::<u8>().wrapping_add(line * self.line)
    }
}

impl Conv<'_> {
    /// Computes the convolution.
    ///
    /// # Safety
    /// Everything is readable and the output writable at the stated extents; the output
    /// overlaps nothing.
    pub(super) unsafe fn run(&self) {
        let (s, p, units) = (self.s, &self.s.params, self.units);
        let [oh, ow] = s.out;
        if s.n * s.o * oh * ow == 0 {
            return;
        }
        if s.kernel == [1; 2] && p.padding == [0; 2] {
            // SAFETY: the caller's contract.
            return unsafe { self.pointwise() };
        }
        let reach = |d: usize| (s.out[d] - 1) * p.stride[d] + (s.kernel[d] - 1) * p.dilation[d] + 1;
        let size = [reach(0), reach(1)];
        let line = size[1] * s.c * units.size();
        let bytes = units.ways() * size[0] * line;
        let threads = par::threads();
        let each = (CONVERTED / bytes.max(1)).max(threads).clamp(1, s.n);
        let scratch = Scratch::new((each * bytes).div_ceil(size_of::<f32>()));
        let rows = units.rows(s.c * s.kernel[0] * s.kernel[1]);
        for first in (0..s.n).step_by(each) {
            let count = each.min(s.n - first);
            let images = Images { at: At(scratch.ptr()), first, count, size, line };
            par::for_range(count * size[0], NUMBERS / (size[1] * s.c).max(1) + 1, |lines| {
                for l in lines {
                    let (image, i) = (first + l / size[0], l % size[0]);
                    let at = i as isize - p.padding[0] as isize;
                    let cols = Steps { first: -(p.padding[1] as isize), step: 1, count: size[1] };
                    for way in 0..units.ways() {
                        let to = images.line(way, image, i);
                        // SAFETY: the scratch has room for the line.
                        unsafe { self.line(image, at, cols, way, to, s.c * units.size()) };
                    }
                }
            });
            let lines = count * oh;
            let work = (lines * ow).saturating_mul(s.o).saturating_mul(rows.units.max(8));
            let shared = threads > 1 && work >= 2 * JOB;
            let fit = (GATHERED / (rows.pitch * size_of::<f32>() * ow).max(1)).max(1);
            let wanted = if shared { (4 * threads).min(work.div_ceil(JOB)) } else { 1 };
            let pieces = lines.div_ceil(fit).max(wanted).min(lines);
            let job = |i: usize| {
                let part = lines * i / pieces..lines * (i + 1) / pieces;
                // SAFETY: the caller's contract; the images are converted.
                unsafe { self.gathered(&images, first * oh + part.start..first * oh + part.end) };
            };
            if shared {
                par::for_each(pieces, &job);
            } else {
                (0..pieces).for_each(job);
            }
        }
    }

    /// Kernels of one element, and no padding.
    unsafe fn pointwise(&self) {
        let (s, p, units) = (self.s, &self.s.params, self.units);
        let [oh, ow] = s.out;
        let (m, rows) = (s.n * oh * ow, units.rows(s.c));
        let left = Scratch::new(rows.len(m));
        let to = At(left.ptr());
        let pitch = rows.pitch * size_of::<f32>();
        let whole = s.c * units.size() == rows.part * size_of::<f32>();
        par::for_range(s.n * oh, NUMBERS / (s.c * ow).max(1) + 1, |lines| {
            for l in lines {
                let cols = Steps { first: 0, step: p.stride[1], count: ow };
                let (image, row) = (l / oh, (l % oh * p.stride[0]) as isize);
                let to = to.after(l * ow * rows.pitch);
                // SAFETY: rows of the scratch.
                unsafe {
                    for (part, &way) in units.parts().iter().enumerate() {
                        let to = to.add(part * rows.part).cast();
                        self.line(image, row, cols, way, to, pitch);
                    }
                    if !whole {
                        (0..ow).for_each(|j| units.end(s.c, to.add(j * rows.pitch), &rows));
                    }
                }
            }
        });
        // SAFETY: the scratch holds the rows.
        unsafe { self.product(left.ptr(), 0..m, s.c, true) }
    }

    /// Converts the pixels of a line to places `pitch` bytes apart. Where some are outside of
    /// the image, these follow each other without gaps.
    unsafe fn line(
        &self,
        image: usize,
        row: isize,
        cols: Steps,
        way: usize,
        to: *mut u8,
        pitch: usize,
    ) {
        let (s, units) = (self.s, self.units);
        let [batch, channel, down, right] = self.x_strides;
        // SAFETY: pixels inside the image are read; the caller has room for all of the line.
        unsafe {
            let blank = |r: Range<usize>| {
                if !r.is_empty() {
                    to.add(r.start * pitch).write_bytes(units.zero(), r.len() * pitch);
                }
            };
            let inside = cols.inside(s.size[1]);
            if row < 0 || row >= s.size[0] as isize || inside.is_empty() {
                return blank(0..cols.count);
            }
            blank(0..inside.start);
            blank(inside.end..cols.count);
            let to = to.add(inside.start * pitch);
            let from = self.x.wrapping_offset(image as isize * batch + row * down);
            let side_by_side = channel == 1 || s.c == 1;
            let room;
            let (from, step) = if side_by_side {
                (from.wrapping_offset(cols.at(inside.start) * right), cols.step as isize * right)
            } else {
                room = Scratch::new(inside.len() * s.c);
                let x = Image { ptr: from, strides: [channel, down, right], size: [1, s.size[1]] };
                let rows = Steps { first: 0, step: 1, count: 1 };
                let first = cols.at(inside.start);
                let cols = Steps { first, step: cols.step, count: inside.len() };
                stage::pixels(x, s.c, rows, cols, room.ptr(), s.c);
                (room.ptr().cast_const(), s.c as isize)
            };
            if step == s.c as isize && pitch == s.c * units.size() {
                return units.convert(way, from, 1, inside.len() * s.c, to);
            }
            for j in 0..inside.len() {
                let from = from.wrapping_offset(j as isize * step);
                units.convert(way, from, 1, s.c, to.add(j * pitch));
            }
        }
    }

    /// Computes some rows of outputs, numbered through the batch.
    unsafe fn gathered(&self, images: &Images, lines: Range<usize>) {
        let (s, p, units) = (self.s, &self.s.params, self.units);
        let ([oh, ow], [kh, kw]) = (s.out, s.kernel);
        let k = s.c * kh * kw;
        let rows = units.rows(k);
        let left = Scratch::new(rows.len(lines.len() * ow));
        let pixel = s.c * units.size();
        let copy = RUNS[isa::active() as usize];
        for (at, l) in lines.clone().enumerate() {
            let to = left.ptr().wrapping_add(at * ow * rows.pitch);
            let (apart, next) = (rows.pitch * size_of::<f32>(), p.stride[1] * pixel);
            for (part, &way) in units.parts().iter().enumerate() {
                let from = images.line(way, l / oh, l % oh * p.stride[0]).cast_const();
                let to = to.wrapping_add(part * rows.part).cast::<u8>();
                // SAFETY: rows and columns that outputs read, and rows of the scratch.
                unsafe {
                    if p.dilation[1] == 1 {
                        let down = p.dilation[0] * images.line;
                        copy(from, [next, down], [ow, kh], kw * pixel, to, apart);
                        continue;
                    }
                    for a in 0..kh {
                        let from = from.add(a * p.dilation[0] * images.line);
                        let to = to.add(a * kw * pixel);
                        copy(from, [next, p.dilation[1] * pixel], [ow, kw], pixel, to, apart);
                    }
                }
            }
            if k * units.size() < rows.part * size_of::<f32>() {
                // SAFETY: rows of the scratch.
                (0..ow).for_each(|j| unsafe { units.end(k, to.add(j * rows.pitch), &rows) });
            }
        }
        // SAFETY: the scratch holds the rows.
        unsafe { self.product(left.ptr(), lines.start * ow..lines.end * ow, k, false) }
    }

    /// Outputs `rows`, of so many numbers each.
    unsafe fn product(&self, left: *const f32, rows: Range<usize>, k: usize, shared: bool) {
        let n = self.s.o;
        let show = |t: Tile| {
            if let Some(hook) = self.ep.hook {
                hook(Tile { row: rows.start + t.row, ..t });
            }
        };
        let ep = Epilogue {
            bias_row: None,
            bias_col: self.ep.bias_row,
            hook: self.ep.hook.is_some().then_some(&show),
            ..*self.ep
        };
        let (shape, strides) = ([rows.len(), n], [n as isize, 1]);
        // SAFETY: the caller's contract.
        unsafe {
            let c = Dst::from_ptr(self.y.add(rows.start * n), &shape, &strides);
            self.units.multiply(left, [rows.len(), k, n], self.packed.as_ptr(), c, &ep, shared);
        }
    }
}

/// For each of some places, `apart` bytes from each other, copies runs of `len` bytes, one
/// after the other. `step` says how far apart places and runs are read, `count` how many
/// there are. (Left to the compiler: the vectors only say for which instruction set.)
#[inline(always)]
unsafe fn runs<S: Simd>(
    from: *const u8,
    step: [usize; 2],
    count: [usize; 2],
    len: usize,
    to: *mut u8,
    apart: usize,
) {
    // SAFETY: the caller has all runs on both sides.
    unsafe {
        match len {
            0..4 => all(from, step, count, len, to, apart, |from, to| {
                (0..len).for_each(|i| *to.add(i) = *from.add(i));
            }),
            4..8 => all(from, step, count, len, to, apart, |from, to| {
                whole_and_rest::<4>(from, len, to);
            }),
            8..16 => all(from, step, count, len, to, apart, |from, to| {
                whole_and_rest::<8>(from, len, to);
            }),
            16..64 => all(from, step, count, len, to, apart, |from, to| {
                whole_and_rest::<16>(from, len, to);
            }),
            _ => all(from, step, count, len, to, apart, |from, to| {
                whole_and_rest::<64>(from, len, to);
            }),
        }
    }
}

#[inline(always)]
unsafe fn all(
    from: *const u8,
    step: [usize; 2],
    count: [usize; 2],
    len: usize,
    to: *mut u8,
    apart: usize,
    copy: impl Fn(*const u8, *mut u8),
) {
    for j in 0..count[0] {
        for a in 0..count[1] {
            let from = from.wrapping_add(j * step[0] + a * step[1]);
            copy(from, to.wrapping_add(j * apart + a * len));
        }
    }
}

/// Copies `len` bytes, `N` or more: the last of them may be copied twice.
#[inline(always)]
unsafe fn whole_and_rest<const N: usize>(from: *const u8, len: usize, to: *mut u8) {
    // SAFETY: within the caller's extents.
    let copy = |i: usize| unsafe {
        to.add(i).cast::<[u8; N]>().write_unaligned(from.add(i).cast::<[u8; N]>().read_unaligned());
    };
    let mut at = 0;
    while at + N < len {
        copy(at);
        at += N;
    }
    copy(len - N);
}

type Runs = unsafe fn(*const u8, [usize; 2], [usize; 2], usize, *mut u8, usize);
static RUNS: [Runs; 3] = levels!(
    fn(
        from: *const u8,
        step: [usize; 2],
        count: [usize; 2],
        len: usize,
        to: *mut u8,
        apart: usize,
    ) runs
);
