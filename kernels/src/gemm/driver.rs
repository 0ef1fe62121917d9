//! Blocking: which part of the product is computed when, from which memory, by
//! which thread.
//!
//! Loops, from the outside: batch, groups of panels, blocks of `k`, blocks of
//! rows, panels, register tiles. A panel's block of `k` is reused by all tiles of
//! a block of rows, the block of rows by all panels of the group; both stay in
//! the second-level cache.

use super::cut::Blocks;
use super::kernel::{Kernel, LANES, MR, Micro, NR, Rows, Scales, row_tiles, width};
use super::pack::{pack_panel, pack_rows, panel_width};
use super::{Act, Epilogue, HOOKED, Tile, WAIT};
use crate::par;
use crate::scratch::Scratch;
use std::ops::Range;

/// A left operand: base and strides along batch, rows and `k`.
#[derive(Clone, Copy)]
pub(crate) struct Lhs {
    pub(crate) ptr: *const f32,
    pub(crate) strides: [isize; 3],
}

/// A right operand.
#[derive(Clone, Copy)]
pub(crate) enum Rhs {
    /// Packed by [`super::pack_b`], in panels of so many rows: those of `k`, or more.
    Packed(*const f32, usize),
    /// Base and strides along batch, `k` and columns.
    Strided(*const f32, [isize; 3]),
}

/// An output with unit column stride: base, distance of batch items and of rows.
#[derive(Clone, Copy)]
pub(crate) struct Out {
    pub(crate) ptr: *mut f32,
    pub(crate) batch: isize,
    pub(crate) ld: isize,
}

/// `C = act([C +] A B + bias)` for each item of a batch.
#[derive(Clone, Copy)]
pub(crate) struct Product<'a> {
    pub(crate) batch: usize,
    pub(crate) m: usize,
    pub(crate) k: usize,
    pub(crate) n: usize,
    pub(crate) a: Lhs,
    pub(crate) b: Rhs,
    pub(crate) c: Out,
    pub(crate) accumulate: bool,
    pub(crate) ep: &'a Epilogue<'a>,
    /// Whose tiles.
    pub(crate) kernel: &'static Kernel,
    /// For tiles of integers: of the columns of C.
    pub(crate) scales: Scales,
}

// SAFETY: jobs write disjoint parts of C and only read A and B, whose extents the
// maker of the product vouches for.
unsafe impl Sync for Product<'_> {}

/// Where tiles find B.
#[derive(Clone, Copy, PartialEq)]
enum Source {
    /// In panels, from the beginning.
    Packed,
    /// Where it lies: every element is used by one tile only.
    InPlace,
    /// The first tiles of a panel read it where it lies and keep it packed.
    Keep,
    /// Packed before the first tiles of a panel: its columns do not lie side by
    /// side.
    Pack,
    /// Where it lies, column by column: every element is used by one tile only.
    Columns,
}

/// Piece `i` of `0..n` cut into `of` nearly equal ones.
fn piece(n: usize, i: usize, of: usize) -> Range<usize> {
    n * i / of..n * (i + 1) / of
}

impl Product<'_> {
    /// Computes the product.
    ///
    /// # Safety
    /// A and B are readable and C is writable at the stated extents; C overlaps
    /// neither.
    pub(crate) unsafe fn run(&self) {
        if self.batch == 0 || self.m == 0 || self.n == 0 {
            return;
        }
        let threads = par::threads();
        let work = self.batch.saturating_mul(self.m.max(WAIT)).saturating_mul(self.n);
        let pieces =
            (work.saturating_mul(self.k.max(8)) / self.ep.cut.job.max(1)).clamp(1, 8 * threads);
        if threads == 1 || pieces == 1 {
            // SAFETY: the caller's contract.
            return unsafe { self.run_here() };
        }
        // With a row or two, panels are read at the pace of memory, and few of them
        // would be shared unevenly: they are cut, too, but no finer than need be.
        let (unit, pieces) = match self.b {
            Rhs::Packed(..) if self.m <= 2 => (LANES, pieces.min(threads)),
            _ => (NR, pieces),
        };
        // Whole items first, then columns. Rows last and in large pieces: each
        // packs B for itself.
        let least = if let Rhs::Strided(..) = self.b { 8 * MR } else { 2 * MR };
        let tiles = self.m.div_ceil(MR);
        let units = self.n.div_ceil(unit);
        let cols = pieces.div_ceil(self.batch).min(units);
        let rows = pieces.div_ceil(self.batch * cols).min(self.m.div_ceil(least));
        par::for_each(self.batch * cols * rows, &|job| {
            let (item, rest) = (job / (cols * rows), job % (cols * rows));
            let r = piece(tiles, rest % rows, rows);
            let r = r.start * MR..(r.end * MR).min(self.m);
            let c = piece(units, rest / rows, cols);
            let c = c.start * unit..(c.end * unit).min(self.n);
            // SAFETY: the caller's contract; parts are disjoint in C.
            unsafe { self.part(item, r, c) };
        });
    }

    /// Computes the product on this thread.
    ///
    /// # Safety
    /// As for [`Product::run`].
    pub(crate) unsafe fn run_here(&self) {
        if self.m == 0 || self.n == 0 {
            return;
        }
        for item in 0..self.batch {
            // SAFETY: the caller's contract.
            unsafe { self.part(item, 0..self.m, 0..self.n) };
        }
    }

    /// How a part of so many rows reads B.
    fn source(&self, rows: usize) -> Source {
        match self.b {
            Rhs::Packed(..) => Source::Packed,
            Rhs::Strided(_, [_, k, n]) if n != 1 && self.n != 1 => {
                if rows <= MR && (k == 1 || self.k == 1) { Source::Columns } else { Source::Pack }
            }
            Rhs::Strided(..) if rows <= self.ep.cut.in_place() => Source::InPlace,
            Rhs::Strided(..) => Source::Keep,
        }
    }

    /// Computes some rows and columns of one batch item. Columns begin with a panel,
    /// or with a vector of a packed one.
    unsafe fn part(&self, item: usize, rows: Range<usize>, cols: Range<usize>) {
        let panels = cols.start / NR..cols.end.div_ceil(NR);
        let Blocks { passes, kc, block, group } =
            self.ep.cut.blocks(rows.len(), self.k, panels.len());
        let abreast = width(rows.len().min(MR)) / NR;
        let source = self.source(rows.len());
        // One block of rows uses a packed panel once: the next may take its place.
        let slots = if block >= rows.len() { abreast } else { group };
        let packs = matches!(source, Source::Keep | Source::Pack);
        // Rows of A are read well where they lie, unless each step of k goes to
        // another cache line.
        let gathers = self.a.strides[2] != 1 && self.k > 1 && panels.len() > abreast;
        let part = Part {
            p: self,
            item,
            cols,
            source,
            kc,
            abreast,
            slots,
            packed_a: gathers.then(|| Scratch::new(block * kc)),
            packed_b: packs.then(|| Scratch::new(slots * kc * NR)),
        };
        for first in panels.clone().step_by(group) {
            let group = first..(first + group).min(panels.end);
            for pass in 0..passes {
                let ks = piece(self.k, pass, passes);
                for start in rows.clone().step_by(block) {
                    let block = start..(start + block).min(rows.end);
                    // SAFETY: the caller's contract, for a part of C.
                    unsafe { part.block(block, group.clone(), ks.clone(), start == rows.start) };
                }
            }
        }
    }
}

/// Some rows and columns of one batch item, and how they are computed.
struct Part<'a> {
    p: &'a Product<'a>,
    item: usize,
    cols: Range<usize>,
    source: Source,
    /// Steps of `k` at a time, at most.
    kc: usize,
    /// Panels that a tile spans: several where it has one or two rows.
    abreast: usize,
    /// Panels that `packed_b` has room for.
    slots: usize,
    packed_a: Option<Scratch>,
    packed_b: Option<Scratch>,
}

/// What tiles need to know of a panel of B.
struct Panel {
    kind: Rows,
    b: *const f32,
    b_k: isize,
    b_panel: isize,
    keep: *mut f32,
}

impl Part<'_> {
    /// Carries the chains of a block of rows and a group of panels through `ks`.
    /// The first block of rows packs the panels that are to be packed.
    unsafe fn block(&self, rows: Range<usize>, group: Range<usize>, ks: Range<usize>, first: bool) {
        let (p, ep) = (self.p, self.p.ep);
        let last = ks.end == p.k;
        let bias = |b: Option<&[f32]>, i| match b {
            Some(b) if last => b.as_ptr().wrapping_add(i),
            _ => std::ptr::null(),
        };
        // SAFETY: every address below belongs to the rows, columns and steps of
        // this block, which the caller vouches for.
        unsafe {
            self.pack_a(&rows, &ks);
            let c = p.c.ptr.offset(self.item as isize * p.c.batch);
            let mut unseen = (group.start * NR).max(self.cols.start);
            let mut panel = group.start;
            while panel < group.end {
                let (count, col, cols) = self.span(panel, group.end);
                let slot = (panel - group.start) % self.slots;
                if first && self.source == Source::Pack {
                    self.pack_b(panel..panel + count, slot, &ks);
                }
                for (at, r) in row_tiles(rows.len(), MR) {
                    let row = rows.start + at;
                    let (a, a_row, a_k) = self.left(&rows, at, r, &ks);
                    let Panel { kind, b, b_k, b_panel, keep } =
                        self.right(panel, slot, &ks, first && at == 0);
                    let tile = Micro {
                        rows: r,
                        cols,
                        k: ks.len(),
                        a,
                        a_row,
                        a_k,
                        b: b.wrapping_add(col - panel * NR),
                        b_k,
                        b_panel,
                        table: std::ptr::null(),
                        keep,
                        c: c.offset(row as isize * p.c.ld).add(col),
                        ldc: p.c.ld,
                        load_c: p.accumulate || ks.start > 0,
                        bias_row: bias(ep.bias_row, row),
                        bias_col: bias(ep.bias_col, col),
                        relu: last && ep.act == Act::Relu,
                        most: if last { ep.ceiling() } else { f32::INFINITY },
                        scales: if last { p.scales.after(col) } else { Scales::NONE },
                    };
                    p.kernel.tile(kind, &tile);
                }
                panel += count;
                let Some(hook) = ep.hook.filter(|_| last) else { continue };
                let cols = col + cols - unseen;
                if panel == group.end || cols * rows.len() >= HOOKED {
                    let ptr = c.offset(rows.start as isize * p.c.ld).add(unseen);
                    let (batch, row, rows, ld) = (self.item, rows.start, rows.len(), p.c.ld);
                    hook(Tile { batch, row, col: unseen, rows, cols, ptr, ld });
                    unseen += cols;
                }
            }
        }
    }

    /// How many panels the tiles at `panel` span, their first column, and how many
    /// columns they have.
    fn span(&self, panel: usize, end: usize) -> (usize, usize, usize) {
        let first = panel * NR;
        let from = first.max(self.cols.start);
        // A tile that begins within a panel ends with it.
        let mut count = if from > first { 1 } else { self.abreast.min(end - panel) };
        // A narrower last panel has rows of its own distance.
        if self.source == Source::Packed && count > 1 && self.p.n - first < count * NR {
            count -= 1;
        }
        (count, from, (first + count * NR).min(self.cols.end) - from)
    }

    /// The tile's rows of A and their strides.
    fn left(
        &self,
        rows: &Range<usize>,
        at: usize,
        r: usize,
        ks: &Range<usize>,
    ) -> (*const f32, isize, isize) {
        match &self.packed_a {
            Some(packed) => (packed.ptr().wrapping_add(at * self.kc), 1, r as isize),
            None => {
                let [_, a_row, a_k] = self.p.a.strides;
                (self.a(rows.start + at, ks.start), a_row, a_k)
            }
        }
    }

    /// The panels from `panel` on. `fresh` says that no tile has read them yet.
    fn right(&self, panel: usize, slot: usize, ks: &Range<usize>, fresh: bool) -> Panel {
        let keep = match &self.packed_b {
            Some(packed) => packed.ptr().wrapping_add(slot * self.kc * NR),
            None => std::ptr::null_mut(),
        };
        match self.p.b {
            Rhs::Packed(b, rows) => {
                let w = panel_width(self.p.n, panel * NR);
                let b = b.wrapping_add(panel * NR * rows + ks.start * w);
                let b_panel = (rows * NR) as isize;
                Panel { kind: Rows::Panels, b, b_k: w as isize, b_panel, keep }
            }
            Rhs::Strided(b, strides) => {
                let b = b.wrapping_offset(self.strided(strides, ks.start, panel * NR));
                let side = NR as isize;
                let (kind, b, b_k, b_panel) = match self.source {
                    Source::InPlace => (Rows::Even, b, strides[1], side),
                    Source::Keep if fresh => (Rows::Keep, b, strides[1], side),
                    Source::Columns => (Rows::Columns, b, strides[2], side * strides[2]),
                    _ => (Rows::Panels, keep.cast_const(), side, side * self.kc as isize),
                };
                Panel { kind, b, b_k, b_panel, keep }
            }
        }
    }

    fn strided(&self, [batch, b_k, b_n]: [isize; 3], k: usize, col: usize) -> isize {
        self.item as isize * batch + k as isize * b_k + col as isize * b_n
    }

    fn a(&self, row: usize, k: usize) -> *const f32 {
        let [batch, a_row, a_k] = self.p.a.strides;
        let at = self.item as isize * batch + row as isize * a_row + k as isize * a_k;
        self.p.a.ptr.wrapping_offset(at)
    }

    unsafe fn pack_a(&self, rows: &Range<usize>, ks: &Range<usize>) {
        let Some(to) = &self.packed_a else { return };
        let [_, a_row, a_k] = self.p.a.strides;
        // SAFETY: rows of the block; the scratch has room for them.
        unsafe {
            let a = self.a(rows.start, ks.start);
            pack_rows(a, (a_row, a_k), (rows.len(), ks.len()), self.kc, to.ptr());
        }
    }

    unsafe fn pack_b(&self, panels: Range<usize>, slot: usize, ks: &Range<usize>) {
        let (Some(to), Rhs::Strided(b, strides)) = (&self.packed_b, self.p.b) else { return };
        for (i, panel) in panels.enumerate() {
            let cols = (self.p.n - panel * NR).min(NR);
            // SAFETY: columns of the panel (an empty operand may lie anywhere), and its
            // place in the scratch.
            unsafe {
                let b = b.wrapping_offset(self.strided(strides, ks.start, panel * NR));
                let to = to.ptr().add((slot + i) * self.kc * NR);
                pack_panel(b, (strides[1], strides[2]), (ks.len(), cols, NR), to);
            }
        }
    }
}
