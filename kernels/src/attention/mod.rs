//! Attention: `softmax(scale q kᵀ + mask) v`, without the matrix of scores.
//!
//! Queries `q` are `[.., t, e]`, keys `k` `[.., s, e]`, values `v` `[.., s, f]`, an
//! addend `mask` `[.., t, s]`, the output `[.., t, f]`, all with the same leading
//! dimensions and any strides.
//!
//! A few rows of scores at a time are made by the register tiles of the matrix
//! product, go through the softmax while they are in the first-level cache, and are
//! the left operand of the second product at once (Dao et al., "FlashAttention",
//! 2022). Keys are taken in blocks that stay in the second-level cache; with more
//! than one block, the largest score and the sum so far are carried from block to
//! block and what was added up is scaled (Milakov and Gimelshein, "Online normalizer
//! calculation for softmax", 2018). Blocks depend on the sizes alone, and a row's
//! result on nothing but its own scores and the blocks: not on the rows beside it,
//! the number of threads or the instruction set.
//!
//! Keys and values that `causal` hides from a query are not looked at. A row of which
//! every score is negative infinity, or one positive infinity, is NaN.

use crate::copy::{copy, fill};
use crate::gemm::JOB;
use crate::gemm::kernel::{Kernel, LANES, MR, Micro, NR, Rows, row_tiles, width};
use crate::gemm::pack::{pack_panel, panel_width};
use crate::par;
use crate::scratch::{Dense, Scratch};
use crate::simd::row::{for_vectors, join_row, read, write};
use crate::simd::{self, Number, Real, RealTask, RealVector};
use crate::view::{Dst, Src, numel};
use smallvec::SmallVec;
use std::ops::Range;

mod grad;

pub use grad::attention_grad;

/// Keys in a block, at most: a row of their scores is 2 KiB.
const KEYS: usize = 11 * NR;
/// Floats of a block's packed keys and values, about: 512 KiB.
const PACKED: usize = 128 << 10;
/// Queries that use a block of keys once it is packed, at most.
const QUERIES: usize = 128;
/// With fewer queries packing does not pay.
const FEW: usize = MR;

/// What is known of scores besides queries and keys.
#[derive(Clone, Copy)]
pub struct Scores<'a> {
    /// Factor of every product of a query and a key.
    pub scale: f32,
    /// Query `i` sees keys `0..=i` alone.
    pub causal: bool,
    /// Added to the scores.
    pub mask: Option<Src<'a, f32>>,
}

/// `out = softmax(scale q kᵀ + mask) v`.
///
/// # Panics
/// If the shapes are not those the module states.
pub fn attention(q: Src<f32>, k: Src<f32>, v: Src<f32>, scores: &Scores, out: Dst<f32>) {
    let r = q.shape.len();
    assert!(
        r >= 2 && [k.shape.len(), v.shape.len(), out.shape.len()] == [r; 3],
        "attention has matrices"
    );
    let [(t, e), (s, ke), (vs, f), (ot, of)] =
        [q.shape, k.shape, v.shape, out.shape].map(|x| (x[r - 2], x[r - 1]));
    let lead = &q.shape[..r - 2];
    assert!((ke, vs, ot, of) == (e, s, t, f), "shapes of queries, keys and values must fit");
    assert!(
        [k.shape, v.shape, out.shape].iter().all(|x| &x[..r - 2] == lead),
        "leading dimensions of attention must be the same"
    );
    if let Some(m) = scores.mask {
        assert!(
            &m.shape[..r - 2] == lead && m.shape[r - 2..] == [t, s],
            "a mask has scores' shape"
        );
    }
    if numel(out.shape) == 0 {
        return;
    }
    if s == 0 {
        return fill(out, 0.0);
    }
    if out.strides[r - 1] != 1 && f > 1 {
        let dense = Dense::new::<f32>(out.shape);
        attention(q, k, v, scores, dense.dst());
        return copy(dense.src::<f32>(), out);
    }
    let all = All {
        lead,
        s,
        e,
        f,
        q: Matrix::of(q.ptr().cast_mut(), q.strides),
        k: Matrix::of(k.ptr().cast_mut(), k.strides),
        v: Matrix::of(v.ptr().cast_mut(), v.strides),
        mask: scores.mask.map(|m| Matrix::of(m.ptr().cast_mut(), m.strides)),
        out: Matrix::of(out.ptr(), out.strides),
        scale: scores.scale,
        causal: scores.causal,
    };
    let items: usize = lead.iter().product();
    let work = items.saturating_mul(t).saturating_mul(s).saturating_mul(e + f);
    let shared = par::threads() > 1 && work >= 2 * JOB;
    let wanted = if shared { (2 * par::threads()).div_ceil(items) } else { 1 };
    // How queries are cut shows in no result.
    let blocks = t.div_ceil(QUERIES).max(wanted.min(t.div_ceil(4 * MR)));
    let run = |job: usize| {
        let (item, block) = (job / blocks, job % blocks);
        // SAFETY: the views were checked at construction and their shapes just now;
        // jobs write rows of their own.
        unsafe { all.part(item, t * block / blocks..t * (block + 1) / blocks) };
    };
    if shared {
        par::for_each(items * blocks, &run);
    } else {
        (0..items * blocks).for_each(run);
    }
}

/// Matrices behind leading dimensions.
#[derive(Clone, Copy)]
struct Matrix<'a> {
    ptr: *mut f32,
    lead: &'a [isize],
    row: isize,
    col: isize,
}

impl<'a> Matrix<'a> {
    fn of(ptr: *mut f32, strides: &'a [isize]) -> Matrix<'a> {
        let (lead, last) = strides.split_at(strides.len() - 2);
        Matrix { ptr, lead, row: last[0], col: last[1] }
    }

    fn at(&self, index: &[usize], row: usize, col: usize) -> *mut f32 {
        let lead: isize = index.iter().zip(self.lead).map(|(&i, &s)| i as isize * s).sum();
        self.ptr.wrapping_offset(lead + row as isize * self.row + col as isize * self.col)
    }
}

/// Attention, checked.
struct All<'a> {
    lead: &'a [usize],
    s: usize,
    e: usize,
    f: usize,
    q: Matrix<'a>,
    k: Matrix<'a>,
    v: Matrix<'a>,
    mask: Option<Matrix<'a>>,
    out: Matrix<'a>,
    scale: f32,
    causal: bool,
}

// SAFETY: jobs write rows of their own and only read the rest.
unsafe impl Sync for All<'_> {}

/// Memory of a job, each part beginning with a cache line.
struct Room {
    q: *mut f32,
    scores: *mut f32,
    /// Distance of rows of scores.
    ld: usize,
    mask: *mut f32,
    k: *mut f32,
    v: *mut f32,
    /// Largest score and sum of each row so far.
    largest: *mut f32,
    sum: *mut f32,
}

/// A block of keys and values as tiles read them.
struct Block {
    keys: Range<usize>,
    packed: bool,
    k: *const f32,
    v: *const f32,
}

impl All<'_> {
    /// Keys of a block.
    fn block_keys(&self) -> usize {
        let fit = PACKED / (self.e + self.f).max(1) / NR * NR;
        fit.clamp(NR, KEYS).min(self.s)
    }

    /// Computes some rows of one item.
    ///
    /// # Safety
    /// Operands are readable and the rows writable.
    unsafe fn part(&self, item: usize, rows: Range<usize>) {
        let mut index: SmallVec<[usize; 4]> = SmallVec::from_elem(0, self.lead.len());
        let mut rest = item;
        for (i, &n) in index.iter_mut().zip(self.lead).rev() {
            (*i, rest) = (rest % n, rest / n);
        }
        let (e, f, block) = (self.e, self.f, self.block_keys());
        let packed = rows.len() > FEW || (self.k.col != 1 && e > 1) || (self.v.col != 1 && f > 1);
        // A little longer than need be: rows a power of two apart would compete for
        // the same sets of the cache.
        let ld = block.next_multiple_of(LANES) + LANES;
        let stretches = [
            rows.len() * e,
            MR * ld,
            if self.mask.is_some() { ld } else { 0 },
            if packed { block.next_multiple_of(NR) * e } else { 0 },
            if packed { block * f.next_multiple_of(LANES) } else { 0 },
            rows.len(),
            rows.len(),
        ]
        .map(|n| n.next_multiple_of(LANES));
        let scratch = Scratch::new(stretches.iter().sum());
        let mut next = scratch.ptr();
        let [q, scores, mask, k, v, largest, sum] = stretches.map(|n| {
            let this = next;
            next = next.wrapping_add(n);
            this
        });
        let room = Room { q, scores, ld, mask, k, v, largest, sum };
        // SAFETY: the stretches are large enough for what they are named after;
        // everything else lies within the caller's operands.
        unsafe {
            simd::run_real(Scaled {
                rows: rows.len(),
                n: e,
                by: self.scale,
                from: self.q.at(&index, rows.start, 0),
                strides: [self.q.row, self.q.col],
                to: room.q,
            });
            // The last key that any of these queries sees.
            let end = if self.causal { rows.end.min(self.s) } else { self.s };
            for start in (0..end).step_by(block) {
                let keys = start..(start + block).min(end);
                let block = self.block(&index, keys, packed, &room);
                for (at, count) in row_tiles(rows.len(), MR) {
                    let tile = rows.start + at..rows.start + at + count;
                    self.tile(&index, at, tile, &block, &room);
                }
            }
            let first = self.out.at(&index, rows.start, 0);
            simd::run_real(Finish {
                rows: rows.len(),
                f,
                sum: room.sum,
                out: first,
                ld: self.out.row,
            });
        }
    }

    /// The block of these keys, packed unless it is used but once.
    unsafe fn block(
        &self,
        index: &[usize],
        keys: Range<usize>,
        packed: bool,
        room: &Room,
    ) -> Block {
        let (n, e, f) = (keys.len(), self.e, self.f);
        let (k, v) = (self.k.at(index, keys.start, 0), self.v.at(index, keys.start, 0));
        if !packed {
            return Block { keys, packed, k, v };
        }
        // SAFETY: the rooms hold whole panels; keys and values are readable.
        unsafe {
            for col in (0..n).step_by(NR) {
                let from = k.offset(col as isize * self.k.row);
                let strides = (self.k.col, self.k.row);
                pack_panel(from, strides, (e, (n - col).min(NR), NR), room.k.add(col * e));
            }
            for col in (0..f).step_by(NR) {
                let from = v.offset(col as isize * self.v.col);
                let size = (n, (f - col).min(NR), panel_width(f, col));
                pack_panel(from, (self.v.row, self.v.col), size, room.v.add(col * n));
            }
        }
        Block { keys, packed, k: room.k, v: room.v }
    }

    /// Takes a few rows through a block of keys. `at` is the number of the first in
    /// the room.
    unsafe fn tile(
        &self,
        index: &[usize],
        at: usize,
        rows: Range<usize>,
        block: &Block,
        room: &Room,
    ) {
        let (e, f, first) = (self.e, self.f, block.keys.start == 0);
        let end = if self.causal { block.keys.end.min(rows.end) } else { block.keys.end };
        let Some(n) = end.checked_sub(block.keys.start).filter(|&n| n > 0) else { return };
        let kernel = Kernel::active();
        // SAFETY: rows of the room and of the output, and keys of the block.
        unsafe {
            let left = Micro {
                rows: rows.len(),
                k: e,
                a: room.q.add(at * e),
                a_row: e as isize,
                a_k: 1,
                ldc: room.ld as isize,
                ..Micro::NONE
            };
            let step = if block.packed { NR } else { width(rows.len()) };
            for col in (0..n).step_by(step) {
                let cols = (n - col).min(step);
                let t = Micro { cols, c: room.scores.add(col), ..left };
                if block.packed {
                    let b = block.k.add(col * e);
                    kernel.tile(Rows::Panels, &Micro { b, b_k: NR as isize, ..t });
                } else {
                    let b = block.k.offset(col as isize * self.k.row);
                    kernel.tile(Rows::Columns, &Micro { b, b_k: self.k.row, ..t });
                }
            }
            let out = self.out.at(index, rows.start, 0);
            simd::run_real(Softmax {
                rows: rows.clone(),
                n,
                scores: room.scores,
                ld: room.ld,
                mask: self.mask.map(|m| (m.at(index, rows.start, block.keys.start), m.row, m.col)),
                mask_row: room.mask,
                causal: self.causal.then_some(block.keys.start),
                first,
                largest: room.largest.add(at),
                sum: room.sum.add(at),
                f,
                out,
                out_ld: self.out.row,
            });
            let weights = Micro {
                rows: rows.len(),
                k: n,
                a: room.scores,
                a_row: room.ld as isize,
                a_k: 1,
                ldc: self.out.row,
                load_c: !first,
                ..Micro::NONE
            };
            for col in (0..f).step_by(step) {
                let cols = (f - col).min(step);
                let t = Micro { cols, c: out.add(col), ..weights };
                if block.packed {
                    let b = block.v.add(col * block.keys.len());
                    let b_k = panel_width(f, col) as isize;
                    kernel.tile(Rows::Panels, &Micro { b, b_k, ..t });
                } else {
                    let b = block.v.add(col);
                    let b_panel = NR as isize;
                    kernel.tile(Rows::Even, &Micro { b, b_k: self.v.row, b_panel, ..t });
                }
            }
        }
    }
}

/// Copies rows of queries, times the scale.
struct Scaled {
    rows: usize,
    n: usize,
    by: f32,
    from: *const f32,
    strides: [isize; 2],
    to: *mut f32,
}

impl RealTask<f32> for Scaled {
    type Out = ();

    #[inline(always)]
    fn run<V: RealVector<Elem = f32>>(self) {
        let (n, [row, col], by) = (self.n, self.strides, V::splat(self.by));
        for r in 0..self.rows {
            // SAFETY: the maker vouches for both.
            unsafe {
                let (from, to) = (self.from.offset(r as isize * row), self.to.add(r * n));
                if col != 1 {
                    for j in 0..n {
                        *to.add(j) = *from.offset(j as isize * col) * self.by;
                    }
                    continue;
                }
                for_vectors(
                    n,
                    #[inline(always)]
                    |i, k| write(read::<V>(from, i, k, 0.0).mul(by), to, i, k),
                );
            }
        }
    }
}

/// Turns rows of scores into weights, and goes on with what is carried from block to
/// block.
struct Softmax {
    rows: Range<usize>,
    n: usize,
    scores: *mut f32,
    ld: usize,
    /// First element of the rows' mask, and its strides.
    mask: Option<(*mut f32, isize, isize)>,
    mask_row: *mut f32,
    /// The block's first key, where later keys than the query are hidden.
    causal: Option<usize>,
    first: bool,
    largest: *mut f32,
    sum: *mut f32,
    f: usize,
    out: *mut f32,
    out_ld: isize,
}

impl RealTask<f32> for Softmax {
    type Out = ();

    #[inline(always)]
    fn run<V: RealVector<Elem = f32>>(self) {
        // SAFETY: the maker vouches for the rows.
        unsafe {
            // In two loops: the processor then works at several rows at once, where each
            // row would wait for its own largest score.
            let mut before = [f32::LOWEST; MR];
            for r in 0..self.rows.len() {
                let m = self.masked::<V>(r);
                if !self.first {
                    before[r] = *self.largest.add(r);
                }
                *self.largest.add(r) = before[r].larger(m);
            }
            for r in 0..self.rows.len() {
                self.weights::<V>(r, before[r]);
            }
        }
    }
}

impl Softmax {
    /// Keys of the block that the query of a row sees.
    #[inline(always)]
    fn seen(&self, r: usize) -> usize {
        match self.causal {
            Some(start) => (self.rows.start + r + 1).saturating_sub(start).min(self.n),
            None => self.n,
        }
    }

    /// Adds the mask to a row of scores; gives the largest.
    ///
    /// # Safety
    /// The row is there.
    #[inline(always)]
    unsafe fn masked<V: RealVector<Elem = f32>>(&self, r: usize) -> f32 {
        let (n, lowest) = (self.seen(r), f32::LOWEST);
        // SAFETY: the caller's contract.
        unsafe {
            let row = self.scores.add(r * self.ld);
            let Some((mask, mask_ld, step)) = self.mask else {
                let [m] = join_row::<V, 1>(
                    n,
                    lowest,
                    V::max,
                    #[inline(always)]
                    |i, k| [read::<V>(row, i, k, lowest)],
                );
                return m;
            };
            let mut mask = mask.offset(r as isize * mask_ld).cast_const();
            if step != 1 {
                for j in 0..n {
                    *self.mask_row.add(j) = *mask.offset(j as isize * step);
                }
                mask = self.mask_row;
            }
            let [m] = join_row::<V, 1>(
                n,
                lowest,
                V::max,
                #[inline(always)]
                |i, k| {
                    let s = read::<V>(row, i, k, lowest).add(read(mask, i, k, 0.0));
                    write(s, row, i, k);
                    [s]
                },
            );
            m
        }
    }

    /// Makes weights of a row of scores; `before` was the largest score.
    ///
    /// # Safety
    /// The row is there.
    #[inline(always)]
    unsafe fn weights<V: RealVector<Elem = f32>>(&self, r: usize, before: f32) {
        let (n, lowest) = (self.seen(r), f32::LOWEST);
        // SAFETY: the caller's contract.
        unsafe {
            let row = self.scores.add(r * self.ld);
            let m = *self.largest.add(r);
            // Where there is nothing but negative infinity yet, its difference to
            // itself would be NaN.
            let shift = V::splat(if m == lowest { 0.0 } else { m });
            let [sum] = join_row::<V, 1>(
                n,
                0.0,
                V::add,
                #[inline(always)]
                |i, k| {
                    let e = read::<V>(row, i, k, lowest).sub(shift).exp();
                    write(e, row, i, k);
                    [e]
                },
            );
            for j in n..self.n {
                *row.add(j) = 0.0;
            }
            if self.first {
                *self.sum.add(r) = sum;
                return;
            }
            let less = if before == m { 1.0 } else { (before - m).exponential() };
            *self.sum.add(r) = (*self.sum.add(r)).fused(less, sum);
            scale::<V>(self.f, less, self.out.offset(r as isize * self.out_ld));
        }
    }
}

/// Divides rows by their sums.
struct Finish {
    rows: usize,
    f: usize,
    sum: *const f32,
    out: *mut f32,
    ld: isize,
}

impl RealTask<f32> for Finish {
    type Out = ();

    #[inline(always)]
    fn run<V: RealVector<Elem = f32>>(self) {
        for r in 0..self.rows {
            // SAFETY: the maker vouches for the rows.
            unsafe {
                let by = 1.0 / *self.sum.add(r);
                scale::<V>(self.f, by, self.out.offset(r as isize * self.ld));
            }
        }
    }
}

/// Multiplies a row.
///
/// # Safety
/// It has `n` numbers.
#[inline(always)]
unsafe fn scale<V: RealVector<Elem = f32>>(n: usize, by: f32, row: *mut f32) {
    let by = V::splat(by);
    for_vectors(
        n,
        #[inline(always)]
        |i, k| {
            // SAFETY: the caller's contract.
            unsafe { write(read::<V>(row, i, k, 0.0).mul(by), row, i, k) }
        },
    );
}

#[cfg(test)]
mod tests;
