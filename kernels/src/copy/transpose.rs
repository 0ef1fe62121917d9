//! Copies between layouts that disagree about which axis is dense.

use super::{GRAIN_BYTES, Layout};
use crate::par;
use crate::simd::prefetch;
use crate::view::Ends;
use smallvec::SmallVec;
use std::ops::Range;

/// Extent of both axes from which copying through tiles pays.
pub(super) const WORTH_IT: usize = 2;
/// Bytes of a cache line, and so the side of a tile: it reads and writes whole
/// lines.
const LINE: usize = 64;
/// Bytes of an output row that a panel of tiles covers.
const PANEL: usize = 1024;

/// Bytes by which reading a row is announced: its next pieces are wanted only when
/// all other rows have had their turn, so the hardware sees no stream.
const AHEAD: usize = 256;

/// Copies through square tiles: axis `d` is dense in the operand, the last one in the
/// result.
///
/// # Safety
/// The layout lies within what `ends` point into, elements being of type `T`.
pub(super) unsafe fn copy<T: Copy>(l: &Layout, d: usize, ends: Ends) {
    let last = l.shape.len() - 1;
    let others: SmallVec<[usize; 6]> = (0..last).filter(|&i| i != d).collect();
    let matrices: usize = others.iter().map(|&i| l.shape[i]).product();
    let shape = Tile { na: l.shape[last], nb: l.shape[d], step_x: l.x[last], step_out: l.out[d] };
    let (a, b) = (PANEL / size_of::<T>(), LINE / size_of::<T>());
    let (pa, pb) = (shape.na.div_ceil(a), shape.nb.div_ceil(b));
    let grain = GRAIN_BYTES / (2 * size_of::<T>() * a.min(shape.na) * b.min(shape.nb));
    par::for_range(matrices * pa * pb, grain, |panels| {
        for p in panels {
            // Down the input's dense axis first: neighbouring panels share what
            // the prefetcher brings.
            let (m, a0, b0) = (p / (pa * pb), p / pb % pa * a, p % pb * b);
            let (mut ox, mut oo) = (l.x_first, l.out_first);
            let mut rest = m;
            for &i in others.iter().rev() {
                let at = (rest % l.shape[i]) as isize;
                rest /= l.shape[i];
                ox += at * l.x[i];
                oo += at * l.out[i];
            }
            ox += a0 as isize * shape.step_x + b0 as isize;
            oo += b0 as isize * shape.step_out + a0 as isize;
            let (na, nb) = (a.min(shape.na - a0), b.min(shape.nb - b0));
            // SAFETY: the panel lies within both views.
            unsafe {
                let (x, out) = ({ ends }.x.cast::<T>(), { ends }.out.cast::<T>());
                transpose(x.offset(ox), out.offset(oo), Tile { na, nb, ..shape });
            }
        }
    });
}

/// A matrix to transpose: element `(a, b)` is read at `a * step_x + b` and written
/// at `b * step_out + a`.
#[derive(Clone, Copy)]
pub(crate) struct Tile {
    pub(crate) na: usize,
    pub(crate) nb: usize,
    pub(crate) step_x: isize,
    pub(crate) step_out: isize,
}

/// Copies a transposed matrix.
///
/// # Safety
/// All its elements are there to read and to write.
pub(crate) unsafe fn transpose<T: Copy>(x: *const T, out: *mut T, t: Tile) {
    let side = LINE / size_of::<T>();
    let (whole_a, whole_b) = (t.na - t.na % side, t.nb - t.nb % side);
    // SAFETY: indices stay below the tile's extents.
    unsafe {
        for b in (0..whole_b).step_by(side) {
            for a in (0..whole_a).step_by(side) {
                let x = x.offset(a as isize * t.step_x + b as isize);
                let out = out.offset(b as isize * t.step_out + a as isize);
                lines(x, t.step_x, out, t.step_out);
            }
        }
        let rest = |a: Range<usize>, b: Range<usize>| {
            let x = x.offset(a.start as isize * t.step_x + b.start as isize);
            let out = out.offset(b.start as isize * t.step_out + a.start as isize);
            ragged(x, out, Tile { na: a.len(), nb: b.len(), ..t });
        };
        rest(whole_a..t.na, 0..whole_b);
        rest(0..t.na, whole_b..t.nb);
    }
}

#[derive(Clone, Copy)]
#[repr(C, align(64))]
struct CacheLine([u8; LINE]);

/// Transposes a square of whole cache lines. The turned square is put together in
/// a place of its own, so that each line of the output is touched once: where its
/// rows are a power of two apart, all of them compete for the same few places in
/// the cache.
///
/// # Safety
/// Its elements are there to read and to write.
#[inline(always)]
unsafe fn lines<T: Copy>(x: *const T, step_x: isize, out: *mut T, step_out: isize) {
    let side = LINE / size_of::<T>();
    let n = micro::side(size_of::<T>());
    let mut square = [std::mem::MaybeUninit::<CacheLine>::uninit(); LINE];
    let turned = square.as_mut_ptr().cast::<T>();
    // SAFETY: the square holds `side` rows of `side` elements, all of them written
    // before they are read; `T` is plain numbers.
    unsafe {
        for a in 0..side as isize {
            prefetch(x.wrapping_offset(a * step_x).wrapping_byte_add(AHEAD));
        }
        for a in (0..side).step_by(n) {
            for b in (0..side).step_by(n) {
                let from = x.offset(a as isize * step_x + b as isize);
                micro::transpose(from, step_x, turned.add(b * side + a), side as isize);
            }
        }
        for b in 0..side {
            let CacheLine(row) = turned.add(b * side).cast::<CacheLine>().read();
            out.offset(b as isize * step_out).cast::<[u8; LINE]>().write_unaligned(row);
        }
    }
}

/// Transposes what is less than a cache line wide or high.
///
/// # Safety
/// Its elements are there to read and to write.
unsafe fn ragged<T: Copy>(x: *const T, out: *mut T, t: Tile) {
    let n = micro::side(size_of::<T>());
    let (whole_a, whole_b) = (t.na - t.na % n, t.nb - t.nb % n);
    // SAFETY: indices stay below the tile's extents.
    unsafe {
        for a in (0..whole_a).step_by(n) {
            for b in (0..whole_b).step_by(n) {
                micro::transpose(
                    x.offset(a as isize * t.step_x + b as isize),
                    t.step_x,
                    out.offset(b as isize * t.step_out + a as isize),
                    t.step_out,
                );
            }
        }
        for a in 0..t.na {
            for b in (if a < whole_a { whole_b } else { 0 })..t.nb {
                let (a, b) = (a as isize, b as isize);
                *out.offset(b * t.step_out + a) = *x.offset(a * t.step_x + b);
            }
        }
    }
}

/// Squares that fit registers of 16 bytes.
#[cfg(target_arch = "x86_64")]
mod micro {
    use std::arch::x86_64::*;

    /// Side of the square for elements of `size` bytes.
    pub(super) const fn side(size: usize) -> usize {
        16 / size
    }

    /// Transposes a square. Interleaving row `i` with row `i + n / 2` moves the
    /// topmost bit of an element's row number to the bottom of its column number;
    /// after `log2 n` times, rows and columns have changed places.
    ///
    /// # Safety
    /// Its rows are there to read and to write.
    #[inline(always)]
    pub(super) unsafe fn transpose<T>(x: *const T, step_x: isize, out: *mut T, step_out: isize) {
        const { assert!(matches!(size_of::<T>(), 1 | 2 | 4 | 8)) };
        let n = side(size_of::<T>());
        // SAFETY: SSE2 is part of the target; the caller vouches for the memory.
        unsafe {
            let mut rows = [_mm_setzero_si128(); 16];
            for (i, r) in rows[..n].iter_mut().enumerate() {
                *r = _mm_loadu_si128(x.offset(i as isize * step_x).cast());
            }
            for _ in 0..n.ilog2() {
                let was = rows;
                for i in 0..n / 2 {
                    let (a, b) = (was[i], was[i + n / 2]);
                    (rows[2 * i], rows[2 * i + 1]) = match size_of::<T>() {
                        1 => (_mm_unpacklo_epi8(a, b), _mm_unpackhi_epi8(a, b)),
                        2 => (_mm_unpacklo_epi16(a, b), _mm_unpackhi_epi16(a, b)),
                        4 => (_mm_unpacklo_epi32(a, b), _mm_unpackhi_epi32(a, b)),
                        _ => (_mm_unpacklo_epi64(a, b), _mm_unpackhi_epi64(a, b)),
                    };
                }
            }
            for (i, &r) in rows[..n].iter().enumerate() {
                _mm_storeu_si128(out.offset(i as isize * step_out).cast(), r);
            }
        }
    }
}

/// Squares left to the compiler.
#[cfg(not(target_arch = "x86_64"))]
mod micro {
    /// Side of the square for elements of `size` bytes.
    pub(super) const fn side(size: usize) -> usize {
        16 / size
    }

    /// Transposes a square.
    ///
    /// # Safety
    /// Its rows are there to read and to write.
    #[inline(always)]
    pub(super) unsafe fn transpose<T: Copy>(
        x: *const T,
        step_x: isize,
        out: *mut T,
        step_out: isize,
    ) {
        let n = side(size_of::<T>()) as isize;
        for a in 0..n {
            for b in 0..n {
                // SAFETY: within the square, which the caller vouches for.
                unsafe { *out.offset(b * step_out + a) = *x.offset(a * step_x + b) };
            }
        }
    }
}
