//! Packing: operands rearranged into the order in which tiles read them.

use super::kernel::{LANES, MR, NR, row_tiles};
use super::simd::{Simd, levels};
use crate::isa;
use crate::simd::unroll::unroll;

/// Width, in memory, of a panel whose first column is `col` of `n`.
#[inline]
pub(crate) fn panel_width(n: usize, col: usize) -> usize {
    (n - col).min(NR).next_multiple_of(LANES)
}

/// Packs `k` rows of `cols` columns, 1 to [`NR`] of them, as a panel of `width`
/// columns. Rows of the panel are `width` apart.
///
/// # Safety
/// `b` is readable at `k` x `cols` with these strides, `out` writable for
/// `k * width` floats; `cols <= width`.
pub(crate) unsafe fn pack_panel(
    b: *const f32,
    (b_k, b_n): (isize, isize),
    (k, cols, width): (usize, usize, usize),
    out: *mut f32,
) {
    // SAFETY: every offset stays within the caller's extents.
    unsafe {
        if b_n == 1 {
            for i in 0..k {
                let (src, dst) = (b.offset(i as isize * b_k), out.add(i * width));
                if cols == NR {
                    // A known length becomes three vector moves.
                    std::ptr::copy_nonoverlapping(src, dst, NR);
                } else {
                    std::ptr::copy_nonoverlapping(src, dst, cols);
                }
            }
        } else if b_k == 1 {
            transpose(b, b_n, (cols, k), out, width);
        } else {
            for i in 0..k {
                for j in 0..cols {
                    *out.add(i * width + j) = *b.offset(i as isize * b_k + j as isize * b_n);
                }
            }
        }
        if cols < width {
            for i in 0..k {
                out.add(i * width + cols).write_bytes(0, width - cols);
            }
        }
    }
}

/// Packs rows of a left operand, cut into tiles as [`row_tiles`] does, so that
/// each step of `k` finds a tile's elements side by side. Tiles begin `kc` floats
/// a row into `out`.
///
/// # Safety
/// `a` is readable at `rows` x `k` with these strides, `out` writable for
/// `kc * rows` floats; `k <= kc`.
pub(crate) unsafe fn pack_rows(
    a: *const f32,
    (a_row, a_k): (isize, isize),
    (rows, k): (usize, usize),
    kc: usize,
    out: *mut f32,
) {
    // SAFETY: every offset stays within the caller's extents.
    unsafe {
        if a_k == 1 {
            for (at, r) in row_tiles(rows, MR) {
                transpose(a.offset(at as isize * a_row), a_row, (r, k), out.add(at * kc), r);
            }
            return;
        }
        // Rows of a step may lie side by side: take several tiles at a time, but
        // not so many that their places in `out` compete for one set of the cache.
        let whole = if a_row == 1 && rows.is_multiple_of(MR) { rows / MR } else { 0 };
        for first in (0..whole).step_by(8) {
            for i in 0..k {
                let step = a.offset(i as isize * a_k);
                for tile in first..(first + 8).min(whole) {
                    let src = step.add(tile * MR).cast::<[f32; MR]>();
                    let dst = out.add((tile * kc + i) * MR).cast::<[f32; MR]>();
                    dst.write_unaligned(src.read_unaligned());
                }
            }
        }
        for (at, r) in row_tiles(rows, MR).skip(whole) {
            for i in 0..k {
                let step = a.offset(i as isize * a_k + at as isize * a_row);
                for j in 0..r {
                    *out.add(at * kc + i * r + j) = *step.offset(j as isize * a_row);
                }
            }
        }
    }
}

/// `dst[c, r] = src[r, c]` for `rows` x `cols` elements: rows of `src` are `ld`
/// apart, rows of `dst` (its `cols`) `ldd`.
///
/// # Safety
/// `src` is readable and `dst` writable at these extents; they do not overlap.
pub(crate) unsafe fn transpose(
    src: *const f32,
    ld: isize,
    (rows, cols): (usize, usize),
    dst: *mut f32,
    ldd: usize,
) {
    type Fun = unsafe fn(*const f32, isize, usize, usize, *mut f32, usize);
    const BY_ISA: [Fun; 3] = levels!(
        fn(src: *const f32, ld: isize, rows: usize, cols: usize, dst: *mut f32, ldd: usize) turn
    );
    // SAFETY: the caller's contract; the level was found on this machine.
    unsafe { BY_ISA[isa::active() as usize](src, ld, rows, cols, dst, ldd) }
}

#[inline(always)]
unsafe fn turn<S: Simd>(
    src: *const f32,
    ld: isize,
    rows: usize,
    cols: usize,
    dst: *mut f32,
    ldd: usize,
) {
    // SAFETY: within the caller's extents; rows past the last are neither read nor
    // written.
    unsafe {
        for row in (0..rows).step_by(S::LANES) {
            let (src, dst) = (src.offset(row as isize * ld), dst.add(row));
            let count = (rows - row).min(S::LANES);
            let mask = S::mask(count);
            let mut col = 0;
            while col + 8 <= cols {
                if count == S::LANES {
                    let columns = S::columns(src.add(col), ld, S::LANES - 1);
                    unroll!(for j in 0..8 {
                        columns[j].store(dst.add((col + j) * ldd));
                    });
                } else {
                    let columns = S::columns(src.add(col), ld, count - 1);
                    unroll!(for j in 0..8 {
                        columns[j].store_mask(dst.add((col + j) * ldd), mask);
                    });
                }
                // The last eight columns may overlap those before.
                col = if col + 8 < cols && col + 16 > cols { cols - 8 } else { col + 8 };
            }
            for col in col..cols {
                for r in 0..count {
                    *dst.add(col * ldd + r) = *src.offset(r as isize * ld).add(col);
                }
            }
        }
    }
}
