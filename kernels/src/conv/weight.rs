//! The gradient of any convolution's kernels.
//!
//! It is the transpose of the direct sum: where an output is a product over the
//! numbers that it reads ([`Patches`]), an element of a kernel is one over all
//! outputs. Both factors are staged with outputs side by side, zeros where a
//! position belongs to no output, and a register tile runs along them: lane `l` of
//! a sum takes the outputs that are `l` modulo 16 away, and the lanes are added up
//! at the end. An infinite or NaN input may spoil kernel elements that do not read
//! it.

use super::patches::Patches;
use super::stage::{Image, Steps, plane};
use crate::gemm::JOB;
use crate::isa::{self, Isa};
use crate::par;
use crate::scratch::Scratch;
use crate::simd::unroll::{copies, unroll};
use crate::simd::{LANES, RealTask, RealVector, run_real};
use std::ops::Range;

/// Outputs that a tile takes at a time: its rows stay in the first-level cache.
const OUTPUTS: usize = 1024;
/// Floats staged at a time, about: 2 MiB.
const STAGED: usize = 512 << 10;
/// Multiply-adds of one partial sum, at least.
const PART: usize = 16 * JOB;
/// Partial sums, and floats of them, at most.
const PARTS: usize = 16;
const PART_FLOATS: usize = 8 << 20;

/// The gradient as the tiles see it.
pub(super) struct WeightGrad {
    pub(super) batch: usize,
    pub(super) groups: usize,
    /// Channels of the output in a group.
    pub(super) outer: usize,
    pub(super) patches: Patches,
    /// Base and strides of batch, channels, rows and columns of the output's gradient.
    pub(super) gy: *const f32,
    pub(super) gy_strides: [isize; 4],
    /// Dense kernels, and the distance from one output channel to the next.
    pub(super) gw: *mut f32,
    pub(super) gw_row: usize,
}

// SAFETY: jobs write disjoint parts of scratch and only read what the maker of the
// gradient vouches for.
unsafe impl Sync for WeightGrad {}

/// How outputs are divided: some images, or some rows of one image, at a time.
struct Units {
    images: usize,
    rows: usize,
    /// Units of an image, if there are several.
    pieces: usize,
    count: usize,
}

/// Where partial sums lie, one dense gradient after the other.
#[derive(Clone, Copy)]
struct Sums(*mut f32);

// SAFETY: jobs write disjoint parts of the sums.
unsafe impl Sync for Sums {}

impl Sums {
    fn after(&self, n: usize) -> *mut f32 {
        self.0.wrapping_add(n)
    }
}

impl WeightGrad {
    /// Vectors of positions that so many rows of outputs take.
    fn vectors(&self, rows: usize) -> usize {
        ((rows - 1) * self.patches.pitch() + self.patches.out[1]).div_ceil(LANES)
    }

    /// Floats of one staged plane of the output's gradient.
    fn plane(&self, rows: usize) -> usize {
        (rows * self.patches.pitch()).max(self.vectors(rows) * LANES)
    }

    /// Floats of an image's staged input: the last vector reads past its end.
    fn staged(&self, rows: usize) -> usize {
        self.patches.staged(rows) + LANES
    }

    fn units(&self) -> Units {
        let (p, [rows, _]) = (&self.patches, self.patches.out);
        let per_row = self.staged(rows).div_ceil(rows) + self.outer * p.pitch();
        let outputs = OUTPUTS.min(STAGED / per_row.max(1) * p.pitch());
        let whole = outputs / (rows * p.pitch());
        if whole > 0 {
            let images = whole.min(self.batch);
            return Units { images, rows, pieces: 1, count: self.batch.div_ceil(images) };
        }
        let pieces = rows.div_ceil((outputs / p.pitch()).max(1));
        Units { images: 1, rows: rows.div_ceil(pieces), pieces, count: self.batch * pieces }
    }

    /// Computes the gradient.
    ///
    /// # Safety
    /// Input and output gradient are readable, the kernels writable, and there are
    /// outputs and kernels.
    pub(super) unsafe fn run(&self) {
        let (k, o) = (self.patches.len(), self.groups * self.outer);
        let units = self.units();
        // Partial sums depend on the problem alone; sharing them out among threads by
        // groups and output channels does not show in them.
        let [rows, cols] = self.patches.out;
        let work = self.batch.saturating_mul(rows * cols).saturating_mul(o * k);
        let most = PARTS.min(PART_FLOATS.div_ceil(o * k)).min(units.count);
        let parts = (work / PART).clamp(1, most);
        let (shared, threads) = (work >= 2 * JOB && par::threads() > 1, par::threads());
        let wanted = if shared { (2 * threads).div_ceil(parts * self.groups) } else { 1 };
        let registers = if isa::active() == Isa::Avx512 { 1 } else { 2 };
        let splits = wanted.min(self.outer.div_ceil(tile_shape(registers, self.outer).0));
        let scratch = Scratch::new(parts * o * k);
        let sums = Sums(scratch.ptr());
        let job = |i: usize| {
            let (part, i) = (i / (self.groups * splits), i % (self.groups * splits));
            let (group, split) = (i / splits, i % splits);
            let channels = self.outer * split / splits..self.outer * (split + 1) / splits;
            let part_units = units.count * part / parts..units.count * (part + 1) / parts;
            let to = sums.after((part * o + group * self.outer) * k);
            // SAFETY: the caller's contract; jobs write their own channels' sums.
            unsafe { self.sum(&units, part_units, group, channels, to) };
        };
        let jobs = parts * self.groups * splits;
        if shared {
            par::for_each(jobs, &job)
        } else {
            (0..jobs).for_each(job)
        }
        for row in 0..o {
            for i in 0..k {
                let partial = |part: usize| sums.after((part * o + row) * k + i);
                // SAFETY: jobs have written all partial sums; the caller has the kernels.
                unsafe {
                    let sum = (1..parts).fold(*partial(0), |sum, part| sum + *partial(part));
                    *self.gw.add(row * self.gw_row + i) = sum;
                }
            }
        }
    }

    /// Sums over some units for some channels of a group; `to` is the group's first
    /// sum.
    unsafe fn sum(
        &self,
        units: &Units,
        range: Range<usize>,
        group: usize,
        channels: Range<usize>,
        to: *mut f32,
    ) {
        let k = self.patches.len();
        let (staged, side) = (self.staged(units.rows), self.plane(units.rows));
        let (x_len, gy_len) = (units.images * staged, units.images * channels.len() * side);
        let scratch = Scratch::new(x_len + gy_len + k);
        let (x, gy) = (scratch.ptr(), scratch.ptr().wrapping_add(x_len));
        let table = gy.wrapping_add(gy_len).cast::<u32>();
        let to = to.wrapping_add(channels.start * k);
        // SAFETY: the scratch has room for both factors and the table; everything else
        // lies within the caller's extents.
        unsafe {
            to.write_bytes(0, channels.len() * k);
            for unit in range {
                let (image, piece) = (unit / units.pieces, unit % units.pieces);
                let first = image * units.images;
                let images = units.images.min(self.batch - first);
                let all = self.patches.out[0];
                let rows = all * piece / units.pieces..all * (piece + 1) / units.pieces;
                for i in 0..images {
                    let x = x.add(i * staged);
                    self.patches.stage(first + i, group, &rows, x);
                    x.add(self.patches.staged(rows.len())).write_bytes(0, LANES);
                    let gy = gy.add(i * channels.len() * side);
                    self.stage_gy(first + i, group, &channels, &rows, gy);
                }
                self.patches.tabulate(rows.len(), table);
                let tile = Tile {
                    gy,
                    gy_row: self.plane(rows.len()),
                    gy_image: channels.len() * side,
                    rows: channels.len(),
                    x,
                    x_image: staged,
                    at: table,
                    cols: k,
                    images,
                    vectors: self.vectors(rows.len()),
                    to,
                    to_row: k,
                };
                run_real(Sweep(tile));
            }
        }
    }

    /// Stages the output's gradient of some rows, positions of no output being zero.
    unsafe fn stage_gy(
        &self,
        image: usize,
        group: usize,
        channels: &Range<usize>,
        rows: &Range<usize>,
        out: *mut f32,
    ) {
        let [batch, sc, sh, sw] = self.gy_strides;
        let (side, pitch) = (self.plane(rows.len()), self.patches.pitch());
        for (i, channel) in channels.clone().enumerate() {
            let at = (group * self.outer + channel) as isize * sc + image as isize * batch;
            let ptr = self.gy.wrapping_offset(at);
            let image = Image { ptr, strides: [sc, sh, sw], size: self.patches.out };
            let rows = Steps { first: rows.start as isize, step: 1, count: rows.len() };
            let cols = Steps { first: 0, step: 1, count: pitch };
            // SAFETY: the caller has room for a plane for each channel.
            unsafe {
                let out = out.add(i * side);
                plane(image, rows, cols, out);
                out.add(rows.count * pitch).write_bytes(0, side - rows.count * pitch);
            }
        }
    }
}

/// `to[r, c] += Σ gy[r] x[at[c]]` over positions and images.
#[derive(Clone, Copy)]
struct Tile {
    gy: *const f32,
    gy_row: usize,
    gy_image: usize,
    rows: usize,
    x: *const f32,
    x_image: usize,
    at: *const u32,
    cols: usize,
    images: usize,
    vectors: usize,
    to: *mut f32,
    to_row: usize,
}

/// Rows and columns of sums that are kept in registers, a vector being one or more.
fn tile_shape(registers: usize, rows: usize) -> (usize, usize) {
    match (registers, rows > 2) {
        (1, true) => (8, 3),
        (1, false) => (2, 8),
        (_, true) => (2, 2),
        (_, false) => (1, 4),
    }
}

/// Computes all rows and columns of a tile. Both factors are readable at all positions
/// and images, the table at all columns; the sums are writable.
struct Sweep(Tile);

impl RealTask<f32> for Sweep {
    type Out = ();

    #[inline(always)]
    fn run<V: RealVector<Elem = f32>>(self) {
        let Sweep(all) = self;
        let (r, c) = tile_shape(V::REGISTERS, all.rows);
        for row in (0..all.rows).step_by(r) {
            for col in (0..all.cols).step_by(c) {
                let part = Tile {
                    gy: all.gy.wrapping_add(row * all.gy_row),
                    rows: (all.rows - row).min(r),
                    at: all.at.wrapping_add(col),
                    cols: (all.cols - col).min(c),
                    to: all.to.wrapping_add(row * all.to_row + col),
                    ..all
                };
                // SAFETY: the maker of the sweep vouches for its memory.
                unsafe {
                    // By a constant first: shapes of other levels are not compiled.
                    match (V::REGISTERS == 1, r) {
                        (true, 8) => part.sum::<V, 8, 3>(),
                        (true, _) => part.sum::<V, 2, 8>(),
                        (false, 2) => part.sum::<V, 2, 2>(),
                        (false, _) => part.sum::<V, 1, 4>(),
                    }
                }
            }
        }
    }
}

impl Tile {
    /// Computes at most `R` rows and `C` columns.
    ///
    /// # Safety
    /// As for [`Sweep`].
    #[inline(always)]
    unsafe fn sum<V: RealVector<Elem = f32>, const R: usize, const C: usize>(self) {
        let t = self;
        // SAFETY: the caller's contract. Rows and columns beyond the last repeat it
        // and are dropped.
        unsafe {
            let mut sums: [[V; C]; R] = copies(copies(V::splat(0.0)));
            for image in 0..t.images {
                let mut gy: [*const f32; R] = copies(t.gy.add(image * t.gy_image));
                unroll!(for r in 0..R {
                    gy[r] = gy[r].add(r.min(t.rows - 1) * t.gy_row);
                });
                let mut x: [*const f32; C] = copies(t.x.add(image * t.x_image));
                unroll!(for c in 0..C {
                    x[c] = x[c].add(*t.at.add(c.min(t.cols - 1)) as usize);
                });
                for i in 0..t.vectors {
                    let mut xs: [V; C] = copies(V::splat(0.0));
                    unroll!(for c in 0..C {
                        xs[c] = V::load(x[c].add(i * LANES));
                    });
                    unroll!(for r in 0..R {
                        let g = V::load(gy[r].add(i * LANES));
                        unroll!(for c in 0..C {
                            sums[r][c] = g.fma(xs[c], sums[r][c]);
                        });
                    });
                }
            }
            unroll!(for r in 0..R {
                unroll!(for c in 0..C {
                    if r < t.rows && c < t.cols {
                        *t.to.add(r * t.to_row + c) += sums[r][c].fold(V::add);
                    }
                });
            });
        }
    }
}
