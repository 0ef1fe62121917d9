//! Staging: copies of images with their zero padding, in the order in which the
//! kernels read them.

use crate::gemm::kernel::LANES;
use crate::gemm::pack::transpose;
use crate::gemm::simd::{Simd, levels};
use crate::isa;
use crate::simd::row::{for_vectors, read, write};
use crate::simd::{RealTask, RealVector, run_real};
use std::ops::Range;

/// One image (or some of its channels): base and strides of channels, rows and
/// columns.
#[derive(Clone, Copy)]
pub(super) struct Image {
    pub(super) ptr: *const f32,
    pub(super) strides: [isize; 3],
    /// Rows and columns.
    pub(super) size: [usize; 2],
}

/// Positions along one axis: `first`, `first + step`, … of an image whose pixels
/// outside are zero.
#[derive(Clone, Copy)]
pub(super) struct Steps {
    pub(super) first: isize,
    pub(super) step: usize,
    pub(super) count: usize,
}

impl Steps {
    pub(super) fn at(&self, i: usize) -> isize {
        self.first + (i * self.step) as isize
    }

    /// Which of the positions lie inside `0..n`.
    pub(super) fn inside(&self, n: usize) -> Range<usize> {
        let reach = |to: isize| (to.max(0) as usize).div_ceil(self.step).min(self.count);
        let hi = reach(n as isize - self.first);
        reach(-self.first).min(hi)..hi
    }
}

/// Some rows of one image of a batch.
pub(super) struct Strip {
    pub(super) image: usize,
    pub(super) rows: Range<usize>,
}

/// Cuts rows numbered through a batch, `each` of them to an image, where images end.
pub(super) fn strips(rows: Range<usize>, each: usize) -> impl Iterator<Item = Strip> {
    let mut next = rows.start;
    std::iter::from_fn(move || {
        let (image, row) = (next / each, next % each);
        let count = (each - row).min(rows.end - next);
        next += count;
        (count > 0).then_some(Strip { image, rows: row..row + count })
    })
}

/// Copies the pixels at `rows` x `cols` of one channel to `out`, densely.
///
/// # Safety
/// The image is readable, `out` writable for all positions.
pub(super) unsafe fn plane(x: Image, rows: Steps, cols: Steps, out: *mut f32) {
    let [_, sh, sw] = x.strides;
    let inside = cols.inside(x.size[1]);
    let valid = rows.inside(x.size[0]);
    // SAFETY: only positions inside the image are read; each row of `out` is
    // `cols.count` floats.
    unsafe {
        if valid.is_empty() || inside.is_empty() {
            out.write_bytes(0, rows.count * cols.count);
            return;
        }
        out.write_bytes(0, valid.start * cols.count);
        let below = out.add(valid.end * cols.count);
        below.write_bytes(0, (rows.count - valid.end) * cols.count);
        let from = x.ptr.offset(rows.at(valid.start) * sh + cols.at(inside.start) * sw);
        let (to, sh) = (out.add(valid.start * cols.count), sh * rows.step as isize);
        match sw * cols.step as isize {
            1 => {
                let widths = [inside.start, inside.len(), cols.count - inside.end];
                ROWS[isa::active() as usize](from, sh, valid.len(), widths, to);
            }
            2 => {
                let widths = [inside.start, inside.len(), cols.count - inside.end];
                run_real(EveryOther { from, ld: sh, count: valid.len(), widths, to });
            }
            step => {
                for i in 0..valid.len() {
                    let from = from.offset(i as isize * sh);
                    let to = to.add(i * cols.count);
                    to.write_bytes(0, inside.start);
                    to.add(inside.end).write_bytes(0, cols.count - inside.end);
                    for j in 0..inside.len() {
                        *to.add(inside.start + j) = *from.offset(j as isize * step);
                    }
                }
            }
        }
    }
}

/// Copies every other element of `count` rows, `ld` apart, to rows that follow each
/// other: as many zeros, elements and zeros as the widths say.
struct EveryOther {
    from: *const f32,
    ld: isize,
    count: usize,
    widths: [usize; 3],
    to: *mut f32,
}

impl RealTask<f32> for EveryOther {
    type Out = ();

    #[inline(always)]
    fn run<V: RealVector<Elem = f32>>(self) {
        let [before, len, after] = self.widths;
        let blank = |to: *mut f32, n: usize| {
            for_vectors(n, |i, k| {
                // SAFETY: the maker has room for the rows.
                unsafe { write(V::splat(0.0), to, i, k) }
            });
        };
        for i in 0..self.count {
            let from = self.from.wrapping_offset(i as isize * self.ld);
            let to = self.to.wrapping_add(i * (before + len + after));
            blank(to, before);
            for_vectors(
                len,
                #[inline(always)]
                |i, k| {
                    // What is read ends with the last element that is copied.
                    let there = 2 * k - 1;
                    // SAFETY: the maker has these elements to read, and room for the rows.
                    unsafe {
                        let at = from.add(2 * i);
                        let v = match there > LANES {
                            true => {
                                let rest = read::<V>(at, LANES, there - LANES, 0.0);
                                V::load(at).even(rest)
                            }
                            false => {
                                let v = read::<V>(at, 0, there, 0.0);
                                v.even(v)
                            }
                        };
                        write(v, to.wrapping_add(before), i, k);
                    }
                },
            );
            blank(to.wrapping_add(before + len), after);
        }
    }
}

/// Copies `count` rows, `ld` apart, to rows that follow each other and have zeros on
/// both sides. Rows are short, and their padding shorter: the system's functions take
/// longer to be called than to copy.
#[inline(always)]
unsafe fn rows_body<S: Simd>(
    from: *const f32,
    ld: isize,
    count: usize,
    [before, len, after]: [usize; 3],
    to: *mut f32,
) {
    // SAFETY: the caller has these rows on both sides.
    unsafe {
        for i in 0..count {
            let (from, to) = (from.offset(i as isize * ld), to.add(i * (before + len + after)));
            blank::<S>(to, before);
            let to = to.add(before);
            let whole = len / S::LANES * S::LANES;
            for i in (0..whole).step_by(S::LANES) {
                S::load(from.add(i)).store(to.add(i));
            }
            if whole < len {
                let mask = S::mask(len - whole);
                S::load_mask(from.add(whole), mask).store_mask(to.add(whole), mask);
            }
            blank::<S>(to.add(len), after);
        }
    }
}

#[inline(always)]
unsafe fn blank<S: Simd>(to: *mut f32, n: usize) {
    for i in (0..n).step_by(S::LANES) {
        // SAFETY: the caller has room for `n` floats.
        unsafe { S::zero().store_mask(to.add(i), S::mask(n - i)) }
    }
}

type Fun = unsafe fn(*const f32, isize, usize, [usize; 3], *mut f32);
static ROWS: [Fun; 3] = levels!(
    fn(from: *const f32, ld: isize, count: usize, widths: [usize; 3], to: *mut f32) rows_body
);

/// Copies the pixels at `rows` x `cols` of `channels` channels to `out` with the
/// channels side by side: pixel after pixel, `pitch` floats apart, zeros between the
/// last channel and the next pixel.
///
/// # Safety
/// The image is readable, `out` writable for all pixels; `channels <= pitch`.
pub(super) unsafe fn pixels(
    x: Image,
    channels: usize,
    rows: Steps,
    cols: Steps,
    out: *mut f32,
    pitch: usize,
) {
    let [sc, sh, sw] = x.strides;
    let (inside, valid) = (cols.inside(x.size[1]), rows.inside(x.size[0]));
    let row = cols.count * pitch;
    // SAFETY: only positions inside the image are read; each row of `out` is
    // `cols.count` pixels of `pitch` floats.
    unsafe {
        for i in 0..rows.count {
            let to = out.add(i * row);
            let blank = |r: Range<usize>| {
                if !r.is_empty() {
                    to.add(r.start * pitch).write_bytes(0, r.len() * pitch);
                }
            };
            if !valid.contains(&i) {
                blank(0..cols.count);
                continue;
            }
            blank(0..inside.start);
            blank(inside.end..cols.count);
            if channels < pitch {
                for j in inside.clone() {
                    to.add(j * pitch + channels).write_bytes(0, pitch - channels);
                }
            }
        }
        // A few channels at a time, all rows of each: few streams, read in order.
        for c in (0..channels).step_by(LANES) {
            let count = (channels - c).min(LANES);
            for i in valid.clone() {
                let at = c as isize * sc + rows.at(i) * sh + cols.at(inside.start) * sw;
                let from = x.ptr.wrapping_offset(at);
                let to = out.add(i * row + inside.start * pitch + c);
                match sw * cols.step as isize {
                    1 => transpose(from, sc, (count, inside.len()), to, pitch),
                    step => {
                        for j in 0..inside.len() {
                            let from = from.offset(j as isize * step);
                            for c in 0..count {
                                *to.add(j * pitch + c) = *from.offset(c as isize * sc);
                            }
                        }
                    }
                }
            }
        }
    }
}
