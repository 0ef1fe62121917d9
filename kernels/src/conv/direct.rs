//! Convolution as a matrix product that never builds its right operand.
//!
//! The register tile of the matrix product runs over channels and taps by a table
//! of where outputs find them ([`Patches`]). Columns between the end of an output
//! row and the pitch are computed and dropped. Any stride, dilation and number of
//! groups is the same loop; so is the gradient of the input, one phase of its pixels
//! at a time.

use super::patches::Patches;
use super::quads::Quads;
use crate::gemm::kernel::{Kernel, LANES, MR, Micro, NR, Rows, Scales, row_tiles, width};
use crate::gemm::pack::pack_rows;
use crate::gemm::pairs::{self, join};
use crate::gemm::simd::{Simd, levels};
use crate::gemm::{Act, Epilogue, HOOKED, JOB, Tile};
use crate::isa;
use crate::par;
use crate::scratch::Scratch;
use std::ops::Range;

/// Floats of staged planes at a time, about: 4 MiB.
const STAGED: usize = 1 << 20;

/// A convolution as the tiles see it.
pub(super) struct Sweep<'a> {
    pub(super) batch: usize,
    pub(super) groups: usize,
    /// Channels of the output in a group.
    pub(super) outer: usize,
    pub(super) patches: Patches,
    /// Weights packed by [`pack`].
    pub(super) weights: *const f32,
    /// First output, and distance of images, channels, rows and columns.
    pub(super) y: *mut f32,
    pub(super) y_strides: [usize; 4],
    pub(super) ep: &'a Epilogue<'a>,
    /// For sums of integers: what makes quads of the input, and numbers of the sums.
    pub(super) quads: Option<&'a Quads>,
}

// SAFETY: jobs write disjoint parts of the output and only read what the maker of
// the sweep vouches for.
unsafe impl Sync for Sweep<'_> {}

/// Packs the dense weights of one group, `rows` x `k`, as tiles read them.
///
/// # Safety
/// `w` is readable at these extents, `out` writable for `rows * k` floats.
pub(super) unsafe fn pack(w: *const f32, rows: usize, k: usize, out: *mut f32) {
    // SAFETY: the caller's contract.
    unsafe { pack_rows(w, (k as isize, 1), (rows, k), k, out) }
}

/// Packs the dense weights of one group, `rows` x `inner` x `taps`, in pairs of
/// channels.
///
/// # Safety
/// `w` is readable at these extents, `out` writable for `rows` times half the channels,
/// rounded up, times `taps` floats.
pub(super) unsafe fn pack_pairs(w: *const f32, [rows, inner, taps]: [usize; 3], out: *mut f32) {
    let k = inner.div_ceil(2) * taps;
    let paired = Scratch::new(rows * k);
    // SAFETY: the caller's contract; the scratch has room for all rows.
    unsafe {
        for row in 0..rows {
            for c in (0..inner).step_by(2) {
                let low = w.add((row * inner + c) * taps);
                let high = if c + 1 < inner { low.add(taps) } else { std::ptr::null() };
                join(low, high, taps, paired.ptr().add(row * k + c / 2 * taps));
            }
        }
        pack(paired.ptr(), rows, k, out);
    }
}

impl Sweep<'_> {
    /// Computes the convolution.
    ///
    /// # Safety
    /// Everything is readable and the output writable at the stated extents; the
    /// output overlaps nothing.
    pub(super) unsafe fn run(&self) {
        let [rows, cols] = self.patches.out;
        let jobs = self.batch * self.groups;
        if jobs * self.outer * rows * cols == 0 {
            return;
        }
        let work = self.outer.saturating_mul(rows * cols).saturating_mul(self.patches.len().max(8));
        let threads = par::threads();
        let shared = threads > 1 && work.saturating_mul(jobs) >= 2 * JOB;
        let wanted = if shared { (4 * threads).div_ceil(jobs).min(work.div_ceil(JOB)) } else { 1 };
        let staged = self.patches.staged(rows);
        let pieces = wanted.max(staged.div_ceil(STAGED)).min(rows);
        let run = |job: usize| {
            let (item, piece) = (job / pieces, job % pieces);
            let part = rows * piece / pieces..rows * (piece + 1) / pieces;
            // SAFETY: the caller's contract; parts are disjoint in the output.
            unsafe { self.part(item / self.groups, item % self.groups, part) };
        };
        if shared {
            par::for_each(jobs * pieces, &run);
        } else {
            (0..jobs * pieces).for_each(run);
        }
    }

    /// Computes some rows of one image's group.
    unsafe fn part(&self, image: usize, group: usize, rows: Range<usize>) {
        let p = &self.patches;
        let (k, pitch, [_, cols]) = (p.len(), p.pitch(), p.out);
        let [y_batch, ld, y_row, y_col] = self.y_strides;
        let staged = p.staged(rows.len());
        let scratch = Scratch::new(staged + k + MR * width(1));
        let table = scratch.ptr().wrapping_add(staged).cast::<u32>();
        // SAFETY: the scratch has room for the planes, a number for each step and the
        // largest tile; everything else lies within the caller's extents.
        unsafe {
            match self.quads {
                None => p.stage(image, group, &rows, scratch.ptr()),
                Some(q) => q.stage(p, image, group, &rows, scratch.ptr()),
            }
            p.tabulate(rows.len(), table);
            let y = self.y.add(image * y_batch + group * self.outer * ld + rows.start * y_row);
            let mut part = Part {
                sweep: self,
                image,
                group,
                planes: scratch.ptr(),
                table,
                buffer: scratch.ptr().add(staged + k),
                y,
                first: rows.start * cols,
                shown: 0,
            };
            // Outputs are computed row by row or, where that leaves fewer lanes idle,
            // across the ends of rows, and then copied. In steps of the tile:
            let vectors = |n: usize| n.div_ceil(LANES);
            let by_row = rows.len() * vectors(cols) * (k + 6);
            // Tiles of one vector wait for the weights of quads.
            let narrow = self.quads.is_some() && cols <= LANES;
            let by_row = if narrow { by_row * 4 / 3 } else { by_row };
            let across = vectors(rows.len() * pitch) * (k + 22);
            if y_col == 1 && y_row == pitch && pitch == cols {
                part.strip(0, rows.len() * pitch, true);
            } else if y_col == 1 && by_row <= across {
                for row in 0..rows.len() {
                    part.strip(row * pitch, cols, true);
                }
            } else {
                part.strip(0, (rows.len() - 1) * pitch + cols, false);
            }
            part.show(rows.len() * cols, 1);
        }
    }
}

/// Some rows of one image's group, staged.
struct Part<'a> {
    sweep: &'a Sweep<'a>,
    image: usize,
    group: usize,
    planes: *const f32,
    table: *const u32,
    buffer: *mut f32,
    /// The first of these outputs, and its number in its image.
    y: *mut f32,
    first: usize,
    /// Outputs that the hook has seen.
    shown: usize,
}

impl Part<'_> {
    /// Computes `len` outputs from position `start` of the staged planes on. `whole`
    /// says that they lie side by side in one row.
    unsafe fn strip(&mut self, start: usize, len: usize, whole: bool) {
        let s = self.sweep;
        let (k, pitch) = (s.patches.len(), s.patches.pitch());
        let [_, ld, y_row, _] = s.y_strides;
        let (kernel, scales) = match s.quads {
            None if s.patches.paired => (pairs::active(), Scales::NONE),
            None => (Kernel::active(), Scales::NONE),
            Some(q) => (q.kernel, q.scales),
        };
        let most = width(s.outer.div_ceil(s.outer.div_ceil(MR))) / LANES;
        for (v, count) in row_tiles(len.div_ceil(LANES), most) {
            let (col, cols) = (v * LANES, (count * LANES).min(len - v * LANES));
            for (at, rows) in row_tiles(s.outer, MR) {
                let channel = self.group * s.outer + at;
                // SAFETY: the caller vouches for the staged planes, the weights and the
                // output; the buffer holds the largest tile.
                unsafe {
                    let y = self.y.add(at * ld);
                    let mut tile = Micro {
                        rows,
                        cols,
                        k,
                        a: s.weights.add(channel * k),
                        a_row: 1,
                        a_k: rows as isize,
                        b: self.planes.add(start + col),
                        b_panel: NR as isize,
                        table: self.table,
                        c: y.add(start / pitch * y_row + col),
                        ldc: ld as isize,
                        bias_row: s.ep.bias_row.map_or(std::ptr::null(), |b| b[channel..].as_ptr()),
                        relu: s.ep.act == Act::Relu,
                        most: s.ep.ceiling(),
                        scales: scales.after(channel),
                        ..Micro::NONE
                    };
                    if whole {
                        kernel.tile(Rows::Table, &tile);
                    } else {
                        (tile.c, tile.ldc) = (self.buffer, (count * LANES) as isize);
                        kernel.tile(Rows::Table, &tile);
                        self.deal(&tile, start + col, y);
                    }
                }
            }
            let done = start + col + cols;
            let outputs = done / pitch * s.patches.out[1] + (done % pitch).min(s.patches.out[1]);
            // SAFETY: these outputs are finished.
            unsafe { self.show(outputs, HOOKED) };
        }
    }
}

impl Part<'_> {
    /// Copies a tile's outputs from the buffer to their rows. `start` is the position
    /// of the first, `y` the first output of the tile's first channel.
    unsafe fn deal(&self, tile: &Micro, start: usize, y: *mut f32) {
        let s = self.sweep;
        let [_, ld, y_row, y_col] = s.y_strides;
        let (pitch, width) = (s.patches.pitch(), s.patches.out[1]);
        let mut at = start;
        while at < start + tile.cols {
            let (row, col) = (at / pitch, at % pitch);
            let run = (pitch - col).min(start + tile.cols - at);
            let len = run.min(width.saturating_sub(col));
            // SAFETY: the positions belong to the tile and its rows of the output.
            unsafe {
                let from = tile.c.add(at - start).cast_const();
                let to = y.add(row * y_row + col * y_col);
                if y_col == 1 {
                    let copy = COPY[isa::active() as usize];
                    copy(from, tile.ldc as usize, tile.rows, len, to, ld);
                } else {
                    for r in 0..tile.rows {
                        let (from, to) = (from.add(r * tile.ldc as usize), to.add(r * ld));
                        for j in 0..len {
                            *to.add(j * y_col) = *from.add(j);
                        }
                    }
                }
            }
            at += run;
        }
    }

    /// Shows outputs up to number `done` to the hook, once there are `enough`.
    unsafe fn show(&mut self, done: usize, enough: usize) {
        let s = self.sweep;
        let Some(hook) = s.ep.hook else { return };
        let cols = done - self.shown;
        if cols == 0 || cols * s.outer < enough {
            return;
        }
        // SAFETY: a hook goes with dense rows of outputs; these belong to this part.
        let ptr = unsafe { self.y.add(self.shown) };
        let (row, col) = (self.group * s.outer, self.first + self.shown);
        let ld = s.y_strides[1] as isize;
        hook(Tile { batch: self.image, row, col, rows: s.outer, cols, ptr, ld });
        self.shown = done;
    }
}

/// Copies `rows` rows of `len` floats.
#[inline(always)]
unsafe fn copy_body<S: Simd>(
    from: *const f32,
    ld: usize,
    rows: usize,
    len: usize,
    to: *mut f32,
    ldt: usize,
) {
    // SAFETY: the caller has these rows on both sides.
    unsafe {
        for col in (0..len).step_by(S::LANES) {
            let mask = S::mask(len - col);
            for r in 0..rows {
                let v = S::load_mask(from.add(r * ld + col), mask);
                v.store_mask(to.add(r * ldt + col), mask);
            }
        }
    }
}

type Copy = unsafe fn(*const f32, usize, usize, usize, *mut f32, usize);
static COPY: [Copy; 3] = levels!(
    fn(from: *const f32, ld: usize, rows: usize, len: usize, to: *mut f32, ldt: usize) copy_body
);
