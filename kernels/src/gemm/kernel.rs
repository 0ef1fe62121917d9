//! The f32 kernel: one call computes a few rows of `A B` in tiles of registers.

use super::simd::{Quad, Simd};
#[cfg(target_arch = "x86_64")]
use super::simd::{Ymm, Zmm};
use super::tile;
use crate::isa;

/// Rows of a tile at most; also the row blocking of packed left operands.
pub(crate) const MR: usize = 8;
/// Columns of a panel of a packed right operand.
pub(crate) const NR: usize = 48;
/// The last panel's width is a multiple of this: the widest vector.
pub(crate) const LANES: usize = 16;
/// Rows of a tile that keeps a panel, at least: it is the first of more than two,
/// nearly equal ones.
const KEPT: usize = 6;

/// How the rows of `B` follow each other.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Rows {
    /// Panels of [`NR`] columns, zero-padded to whole vectors.
    Panels,
    /// Equal steps; memory right of the last column is not touched.
    Even,
    /// At offsets from a table; memory right of the last column is not touched.
    Table,
    /// Equal steps, kept as a panel on the way: packing costs three stores a step
    /// while the tile's products hide the wait for memory. At most one panel, and
    /// [`KEPT`] rows or more.
    Keep,
    /// Each column's steps lie side by side, the columns `b_k` apart.
    Columns,
    /// [`Rows::Panels`], and `A`'s steps at offsets from a table.
    Spread,
}

/// What makes numbers of a tile's integers: `scale (sum + offset)` for each column (for
/// [`Rows::Table`] for each row). Null as long as they stay integers, and for tiles of
/// numbers. Offsets are integers by their bits.
#[derive(Clone, Copy)]
pub(crate) struct Scales {
    pub(crate) scale: *const f32,
    pub(crate) offset: *const f32,
}

impl Scales {
    pub(crate) const NONE: Scales = Scales { scale: std::ptr::null(), offset: std::ptr::null() };

    /// Those of later columns or rows.
    pub(crate) fn after(self, n: usize) -> Scales {
        Scales { scale: shifted(self.scale, n), offset: shifted(self.offset, n) }
    }
}

/// One call of a tile: `C = act([C +] A B + bias)`.
#[derive(Clone, Copy)]
pub(crate) struct Micro {
    /// Rows, at most [`MR`].
    pub(crate) rows: usize,
    /// Columns, at most [`width`]`(rows)`.
    pub(crate) cols: usize,
    /// Length of the chains.
    pub(crate) k: usize,
    /// `A`, with its strides along rows and `k`.
    pub(crate) a: *const f32,
    pub(crate) a_row: isize,
    pub(crate) a_k: isize,
    /// `B`; its columns lie side by side within a panel.
    pub(crate) b: *const f32,
    /// Distance of `B`'s rows, unless they go by table (of its columns, for
    /// [`Rows::Columns`]).
    pub(crate) b_k: isize,
    /// Distance of neighbouring panels ([`NR`] columns) of `B`.
    pub(crate) b_panel: isize,
    /// `k` offsets: of `B`'s rows for [`Rows::Table`], of `A`'s steps for [`Rows::Spread`].
    pub(crate) table: *const u32,
    /// Where [`Rows::Keep`] puts the panel, rows [`NR`] apart.
    pub(crate) keep: *mut f32,
    /// `C`, its columns side by side.
    pub(crate) c: *mut f32,
    /// Distance of `C`'s rows.
    pub(crate) ldc: isize,
    /// Start the chains with what `C` holds, else with zero.
    pub(crate) load_c: bool,
    /// Added to each row at the end, unless null.
    pub(crate) bias_row: *const f32,
    /// Added to each column at the end, unless null.
    pub(crate) bias_col: *const f32,
    /// Replace negative results by zero.
    pub(crate) relu: bool,
    /// No result is larger, after that.
    pub(crate) most: f32,
    /// Applied before the biases.
    pub(crate) scales: Scales,
}

impl Micro {
    /// An empty product with no epilogue, to be filled in.
    pub(crate) const NONE: Micro = Micro {
        rows: 0,
        cols: 0,
        k: 0,
        a: std::ptr::null(),
        a_row: 0,
        a_k: 0,
        b: std::ptr::null(),
        b_k: 0,
        b_panel: 0,
        table: std::ptr::null(),
        keep: std::ptr::null_mut(),
        c: std::ptr::null_mut(),
        ldc: 0,
        load_c: false,
        bias_row: std::ptr::null(),
        bias_col: std::ptr::null(),
        relu: false,
        most: f32::INFINITY,
        scales: Scales::NONE,
    };
}

/// Vectors across a tile of so many rows: with few rows, more columns keep
/// enough independent chains (8 at least) in flight.
const fn vectors(kind: Rows, rows: usize) -> usize {
    match (kind, rows) {
        // Turning columns takes registers too.
        (Rows::Columns, 1 | 2) => 2,
        (Rows::Columns, _) => 1,
        (_, 1) => 12,
        (_, 2) => 6,
        _ => 3,
    }
}

/// Columns a tile of so many rows takes in one call.
pub(crate) const fn width(rows: usize) -> usize {
    vectors(Rows::Panels, rows) * LANES
}

/// Rows of the pieces that `m` rows are cut into: nearly equal ones, because a
/// short tile costs more than its share.
#[inline]
pub(crate) fn row_tiles(m: usize, max: usize) -> impl Iterator<Item = (usize, usize)> {
    let tiles = m.div_ceil(max);
    let (size, longer) = (m / tiles.max(1), m % tiles.max(1));
    (0..tiles).map(move |t| (t * size + t.min(longer), size + usize::from(t < longer)))
}

pub(super) type Fun = unsafe fn(&Micro);

/// Tiles of one instruction set.
pub(crate) struct Kernel {
    pub(super) lanes: usize,
    /// Rows and vectors of a tile, at most.
    pub(super) rows: usize,
    pub(super) vectors: usize,
    /// By [`Rows`], then by rows and vectors: see [`slot`]. Only what is asked for.
    pub(super) tiles: [[Option<Fun>; SLOTS]; 6],
}

pub(super) const SLOTS: usize = 12 + 6 + 6 * 3;

/// Place of a tile in the table: 12 of one row, 6 of two, 3 of each more.
pub(super) const fn slot(rows: usize, vectors: usize) -> usize {
    vectors - 1
        + match rows {
            1 => 0,
            2 => 12,
            _ => 18 + (rows - 3) * 3,
        }
}

/// [`vectors`] where a tile has at most `most` of them.
const fn across(kind: Rows, rows: usize, most: usize) -> usize {
    let wanted = vectors(kind, rows);
    if wanted < most { wanted } else { most }
}

/// Whether tiles of that kind are ever asked for so many rows and vectors, where
/// there are at most `max` rows. (What is larger has a place in the table, too.)
pub(super) const fn asked(kind: Rows, rows: usize, vectors: usize, max: [usize; 2]) -> bool {
    let fewest = match kind {
        // Fewer than these are cut into pieces.
        Rows::Keep => KEPT / KEPT.div_ceil(max[0]),
        _ => 1,
    };
    fewest <= rows && rows <= max[0] && vectors <= across(kind, rows, max[1])
}

macro_rules! kernel {
    (
        $name:ident, $simd:ty, rows $max:literal, vectors $most:literal,
        kinds $($kind:ident)* $(, $features:literal)?
    ) => {
        mod $name {
            use super::*;
            $(#[target_feature(enable = $features)])?
            unsafe fn tile<const R: usize, const V: usize, const KIND: u8>(t: &Micro) {
                // SAFETY: the caller keeps the contract of `tile`; the features are on.
                unsafe { tile::tile::<$simd, R, V, KIND>(t) }
            }
            const fn tiles<const KIND: u8>(kind: Rows) -> [Option<Fun>; SLOTS] {
                let mut all = [None; SLOTS];
                macro_rules! put {
                    ($r:literal, $v:literal) => {
                        if asked(kind, $r, $v, [$max, $most]) {
                            all[slot($r, $v)] = Some(tile::<$r, $v, KIND> as Fun);
                        }
                    };
                    ($r:literal: $a:literal $b:literal $c:literal) => {
                        put!($r, $a);
                        put!($r, $b);
                        put!($r, $c);
                    };
                }
                put!(1: 1 2 3);
                put!(1: 4 5 6);
                put!(1: 7 8 9);
                put!(1: 10 11 12);
                put!(2: 1 2 3);
                put!(2: 4 5 6);
                put!(3: 1 2 3);
                put!(4: 1 2 3);
                put!(5: 1 2 3);
                put!(6: 1 2 3);
                put!(7: 1 2 3);
                put!(8: 1 2 3);
                all
            }
            pub(in crate::gemm) static KERNEL: Kernel = Kernel {
                lanes: <$simd>::LANES,
                rows: $max,
                vectors: $most,
                tiles: {
                    let mut all = [[None; SLOTS]; 6];
                    $(all[Rows::$kind as usize] = tiles::<{ Rows::$kind as u8 }>(Rows::$kind);)*
                    all
                },
            };
        }
    };
}

pub(super) use kernel;

// Without FMA every product-sum is a call: no tile keeps anything in registers.
#[cfg(target_arch = "x86_64")]
kernel!(baseline, Quad, rows 1, vectors 1, kinds Panels Even Table Keep Columns Spread);
// NEON has 32 registers.
#[cfg(not(target_arch = "x86_64"))]
kernel!(baseline, Quad, rows 8, vectors 12, kinds Panels Even Table Keep Columns Spread);
// 16 registers: 4 x 3 sums, a row of B, and one element of A.
#[cfg(target_arch = "x86_64")]
kernel!(v3, Ymm, rows 4, vectors 12, kinds Panels Even Table Keep Columns Spread, "avx2,fma,bmi2,f16c");
// 32 registers: 8 x 3 sums.
#[cfg(target_arch = "x86_64")]
kernel!(
    v4, Zmm, rows 8, vectors 12, kinds Panels Even Table Keep Columns Spread,
    "avx512f,avx512bw,avx512cd,avx512dq,avx512vl,avx2,fma,bmi2,f16c"
);

impl Kernel {
    /// The tiles of the instruction set in use.
    #[inline]
    pub(crate) fn active() -> &'static Kernel {
        match isa::active() {
            #[cfg(target_arch = "x86_64")]
            isa::Isa::Avx512 => &v4::KERNEL,
            #[cfg(target_arch = "x86_64")]
            isa::Isa::Avx2 => &v3::KERNEL,
            _ => &baseline::KERNEL,
        }
    }

    /// Computes one tile.
    ///
    /// # Safety
    /// `A` is readable at `rows` x `k`, `B` at `k` x `cols` (panels: with each
    /// row's columns rounded up to [`LANES`]), the table and the biases where
    /// they are used, `C` writable at `rows` x `cols`. `rows` is 1..=[`MR`] and
    /// `cols` 1..=[`width`]`(rows)`. For [`Rows::Keep`], `keep` is writable at `k`
    /// rows of [`NR`].
    ///
    /// # Panics
    /// If [`Rows::Keep`] has fewer rows than [`KEPT`].
    #[inline]
    pub(crate) unsafe fn tile(&self, kind: Rows, t: &Micro) {
        debug_assert!((1..=MR).contains(&t.rows) && (1..=width(t.rows)).contains(&t.cols));
        if t.rows <= self.rows && t.cols <= across(kind, t.rows, self.vectors) * self.lanes {
            // SAFETY: the caller's contract; the tile fits.
            unsafe { self.fitting(kind, t) };
            return;
        }
        let most = t.rows.div_ceil(t.rows.div_ceil(self.rows));
        let step = across(kind, most, self.vectors) * self.lanes;
        let b_at = |col: usize| match kind {
            Rows::Columns => col as isize * t.b_k,
            _ => (col / NR) as isize * t.b_panel + (col % NR) as isize,
        };
        for col in (0..t.cols).step_by(step) {
            let cols = (t.cols - col).min(step);
            for (row, rows) in row_tiles(t.rows, self.rows) {
                // SAFETY: a part of the caller's tile.
                unsafe {
                    let mut part = Micro {
                        rows,
                        cols,
                        // An empty operand may lie anywhere.
                        a: t.a.wrapping_offset(row as isize * t.a_row),
                        b: t.b.wrapping_offset(b_at(col)),
                        keep: t.keep.wrapping_add(col),
                        c: t.c.wrapping_offset(row as isize * t.ldc).wrapping_add(col),
                        bias_row: shifted(t.bias_row, row),
                        bias_col: shifted(t.bias_col, col),
                        scales: t.scales.after(if kind == Rows::Table { row } else { col }),
                        ..*t
                    };
                    let mut kind = kind;
                    if kind == Rows::Keep && row > 0 {
                        // The first rows have packed the panel for the others.
                        (kind, part.b, part.b_k) = (Rows::Panels, part.keep, NR as isize);
                    }
                    self.fitting(kind, &part);
                }
            }
        }
    }

    /// Computes a tile that has rows and columns for one.
    ///
    /// # Safety
    /// As for [`Kernel::tile`].
    #[inline(always)]
    unsafe fn fitting(&self, kind: Rows, t: &Micro) {
        let run = self.tiles[kind as usize][slot(t.rows, t.cols.div_ceil(self.lanes))];
        // SAFETY: the caller's contract; the table was built for this machine.
        unsafe { run.expect("a tile for each shape")(t) }
    }
}

/// A pointer to later elements; null stays null.
fn shifted(p: *const f32, by: usize) -> *const f32 {
    if p.is_null() { p } else { p.wrapping_add(by) }
}
