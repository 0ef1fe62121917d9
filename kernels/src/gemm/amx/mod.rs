//! Products of pairs of bf16 numbers by AMX, the processor's matrix unit: 16 by 16 sums
//! advance by 32 steps of `k` with one instruction.
//!
//! The right operand is what every processor takes ([`super::pairs`], [`super::split`]):
//! sixteen columns of sixteen steps of a panel are a register's worth. The left one is
//! rounded and laid out in registers' worths, padded with zeros. Sums are computed in
//! blocks of 32 rows by 48 columns and finished while they are in the nearest cache.
//!
//! The instruction adds up 32 steps apart from what was there, even and odd ones apart from
//! each other, and takes subnormal numbers for zero. An element's sum is a chain of such
//! blocks in the order of `k`, whatever the shape and the number of threads; it is not the
//! chain that other instructions compute.

mod tiles;

use super::kernel::NR;
use super::pack::panel_width;
use super::pairs::{residual, round};
use super::{Act, Epilogue, JOB, Tile};
use crate::isa::{self, Isa};
use crate::par;
use crate::scratch::{At, Scratch};
use crate::simd::vectorize;
use crate::view::{Dst, Src};
use std::ops::Range;
use std::sync::OnceLock;
use tiles::{Amx, ROWS, TILE, Tiles, WIDE};

/// Whether the processor multiplies matrices of bf16, and the operating system lets this
/// process use that.
pub fn available() -> bool {
    static FOUND: OnceLock<bool> = OnceLock::new();
    isa::active() == Isa::Avx512 && *FOUND.get_or_init(found)
}

#[cfg(not(target_os = "linux"))]
fn found() -> bool {
    false
}

/// Asks the processor, then whether the system saves the registers, then the system for
/// permission, which Linux gives to the whole process.
#[cfg(target_os = "linux")]
fn found() -> bool {
    use std::arch::x86_64::{__cpuid, __cpuid_count, _xgetbv};
    #[target_feature(enable = "xsave")]
    fn enabled() -> u64 {
        // SAFETY: the features of the function.
        unsafe { _xgetbv(0) }
    }
    const OSXSAVE: u32 = 3 << 26;
    const BF16_AND_TILES: u32 = 1 << 22 | 1 << 24;
    const TILE_STATE: u64 = 3 << 17;
    const ARCH_REQ_XCOMP_PERM: libc::c_long = 0x1023;
    const TILE_DATA: libc::c_long = 18;
    if __cpuid(0).eax < 0x1d
        || __cpuid(1).ecx & OSXSAVE != OSXSAVE
        || __cpuid_count(7, 0).edx & BF16_AND_TILES != BF16_AND_TILES
    {
        return false;
    }
    let palette = __cpuid_count(0x1d, 1);
    let registers =
        [palette.eax >> 16, palette.ebx & 0xffff, palette.ebx >> 16, palette.ecx & 0xffff];
    // SAFETY: the processor has the instruction, and the system has enabled it. The call
    // asks for permission and does nothing else.
    unsafe {
        registers == [1024, 64, 8, 16]
            && enabled() & TILE_STATE == TILE_STATE
            && libc::syscall(libc::SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, TILE_DATA) == 0
    }
}

/// Rows of a block of sums.
const BLOCK: usize = 2 * ROWS;
/// Panels whose sums are finished together: 30 KiB of output, the size of a hook's work.
const GROUP: usize = 5;
/// Multiply-adds worth a thread's attention.
const WORTH: usize = 8 * JOB;

/// `c = act(a b + bias)` with `a` rounded to `parts` numbers of bf16 each, and `packed`
/// likewise: one, or two for products of three.
///
/// # Panics
/// If shapes do not fit, or AMX is not [`available`].
pub(super) fn product(
    a: Src<f32>,
    packed: &[f32],
    n: usize,
    c: Dst<f32>,
    ep: &Epilogue,
    parts: usize,
) {
    assert!(available(), "the processor has matrix registers");
    by(|| Amx, a, packed, n, c, ep, parts);
}

/// [`product`] with any registers.
fn by<T: Tiles>(
    tiles: impl Fn() -> T + Sync,
    a: Src<f32>,
    packed: &[f32],
    n: usize,
    c: Dst<f32>,
    ep: &Epilogue,
    parts: usize,
) {
    let (m, k) = (a.shape[0], a.shape[1]);
    ep.check(m, n);
    let beside = c.strides[1] == 1 || n <= 1;
    assert!(beside || ep.hook.is_none(), "a hook needs columns that lie side by side");
    if m == 0 || n == 0 {
        return;
    }
    let blocks = k.div_ceil(2).div_ceil(WIDE);
    let left = Scratch::new(m.next_multiple_of(ROWS) * blocks * WIDE * parts);
    let to = At(left.ptr());
    par::for_range(m.div_ceil(ROWS), (1 << 14) / (ROWS * k.max(1)) + 1, |rows| {
        for r in rows {
            let to = to.after(r * blocks * TILE * parts);
            // SAFETY: rows of the view, and their place in the scratch.
            unsafe { round_rows(a, r * ROWS..((r + 1) * ROWS).min(m), parts, to) };
        }
    });
    let dense = Scratch::new(if beside { 0 } else { m * n });
    let (out, ld) = if beside { (c.ptr(), c.strides[0]) } else { (dense.ptr(), n as isize) };
    let (a, b) = (left.ptr().cast_const(), packed.as_ptr());
    let p = Product { m, pairs: k.div_ceil(2), n, blocks, parts, a, b, c: out, ld, ep };
    p.run(&tiles);
    if !beside {
        for (i, j) in (0..m).flat_map(|i| (0..n).map(move |j| (i, j))) {
            // SAFETY: an element of the view, which was checked at construction.
            unsafe {
                let to =
                    c.ptr().wrapping_offset(i as isize * c.strides[0] + j as isize * c.strides[1]);
                *to = *out.add(i * n + j);
            }
        }
    }
}

/// Rounds at most 16 rows to registers' worths: for each 32 steps the rows' pairs, then
/// those of what rounding left, where there are two parts.
///
/// # Safety
/// The rows are the view's; `out` has room for a register a part and 32 steps.
unsafe fn round_rows(a: Src<f32>, rows: Range<usize>, parts: usize, out: *mut f32) {
    let (k, step) = (a.shape[1], a.strides[1]);
    let tile = 2 * TILE;
    for (i, r) in rows.clone().enumerate() {
        // SAFETY: a row of the view, and its rows of registers.
        unsafe {
            let row = a.ptr().wrapping_offset(r as isize * a.strides[0]);
            let to = out.cast::<u16>().add(i * 2 * WIDE);
            vectorize(
                #[inline(always)]
                move || {
                    for (block, first) in (0..k).step_by(2 * WIDE).enumerate() {
                        let mut x = [0.0f32; 2 * WIDE];
                        let (from, count) = (row.wrapping_offset(first as isize * step), k - first);
                        if step == 1 && count >= 2 * WIDE {
                            x = from.cast::<[f32; 2 * WIDE]>().read_unaligned();
                        } else {
                            for (j, x) in x.iter_mut().take(count).enumerate() {
                                *x = *from.offset(j as isize * step);
                            }
                        }
                        let to = to.add(block * parts * tile).cast::<[u16; 2 * WIDE]>();
                        *to = x.map(round);
                        if parts == 2 {
                            *to.cast::<u16>().add(tile).cast() = x.map(|x| round(residual(x)));
                        }
                    }
                },
            );
        }
    }
    for i in rows.len()..ROWS {
        for block in 0..k.div_ceil(2 * WIDE) * parts {
            // SAFETY: rows of registers that no row of the view fills.
            unsafe { out.add(block * TILE + i * WIDE).write_bytes(0, WIDE) };
        }
    }
}

/// A product of prepared operands.
struct Product<'a> {
    m: usize,
    /// Pairs of steps.
    pairs: usize,
    n: usize,
    /// Blocks of 16 pairs.
    blocks: usize,
    parts: usize,
    /// Registers' worths: 16 rows after the other, in these by blocks, then by parts.
    a: *const f32,
    /// Panels with the pairs of all parts, one part after the other.
    b: *const f32,
    c: *mut f32,
    ld: isize,
    ep: &'a Epilogue<'a>,
}

// SAFETY: jobs write disjoint parts of the output and only read the operands.
unsafe impl Sync for Product<'_> {}

/// What a job keeps: sums of a block, and the last steps of a group of panels, padded with
/// zeros.
struct Room {
    sums: *mut f32,
    tails: *mut f32,
}

impl Product<'_> {
    fn run<T: Tiles>(&self, tiles: &(impl Fn() -> T + Sync)) {
        let panels = self.n.div_ceil(NR);
        let threads = par::threads();
        let work = self.m.max(ROWS).saturating_mul(self.n).saturating_mul(2 * self.pairs.max(8));
        let pieces = if threads == 1 { 1 } else { (work / WORTH).clamp(1, 8 * threads) };
        let group = panels.div_ceil(pieces).min(GROUP);
        let (groups, blocks) = (panels.div_ceil(group), self.m.div_ceil(BLOCK));
        let cuts = pieces.div_ceil(groups).min(blocks);
        let job = |i: usize| {
            let (g, cut) = (i / cuts, i % cuts);
            let columns = g * group..((g + 1) * group).min(panels);
            let rows = blocks * cut / cuts..blocks * (cut + 1) / cuts;
            // SAFETY: jobs have blocks of their own, and the operands are whole.
            unsafe { self.part(&mut tiles(), columns, rows) };
        };
        if pieces == 1 {
            (0..groups * cuts).for_each(job);
        } else {
            par::for_each(groups * cuts, &job);
        }
    }

    /// Computes some blocks of rows of a group of panels.
    unsafe fn part<T: Tiles>(&self, tiles: &mut T, panels: Range<usize>, rows: Range<usize>) {
        let tail = self.parts * WIDE * NR;
        let scratch = Scratch::new(BLOCK * NR + panels.len() * tail);
        let sums = scratch.ptr();
        let room = Room { sums, tails: sums.wrapping_add(BLOCK * NR) };
        // SAFETY: the scratch has room for a block and the tails; panels and rows are the
        // product's.
        unsafe {
            for (i, panel) in panels.clone().enumerate() {
                self.tail(panel, room.tails.add(i * tail));
            }
            tiles.configure();
            for block in rows {
                let row = block * BLOCK..((block + 1) * BLOCK).min(self.m);
                for (i, panel) in panels.clone().enumerate() {
                    self.block(tiles, panel, &row, room.sums, room.tails.add(i * tail));
                    self.finish(panel, &row, room.sums);
                }
                let Some(hook) = self.ep.hook else { continue };
                let (col, end) = (panels.start * NR, (panels.end * NR).min(self.n));
                let ptr = self.c.offset(row.start as isize * self.ld).add(col);
                let (rows, cols) = (row.len(), end - col);
                // A hook may be anybody's code: the registers are nobody's meanwhile.
                tiles.release();
                hook(Tile { batch: 0, row: row.start, col, rows, cols, ptr, ld: self.ld });
                tiles.configure();
            }
            tiles.release();
        }
    }

    /// Copies the steps of a panel that do not fill a register, and zeros after them.
    unsafe fn tail(&self, panel: usize, to: *mut f32) {
        let (width, left) = (panel_width(self.n, panel * NR), self.pairs % WIDE);
        for part in 0..if left == 0 { 0 } else { self.parts } {
            let row = (part + 1) * self.pairs - left;
            // SAFETY: steps of the panel, and room for a part.
            unsafe {
                let from = self.b.add(panel * NR * self.parts * self.pairs + row * width);
                let to = to.add(part * WIDE * width);
                std::ptr::copy_nonoverlapping(from, to, left * width);
                to.add(left * width).write_bytes(0, (WIDE - left) * width);
            }
        }
    }

    /// The sums of some rows and a panel.
    unsafe fn block<T: Tiles>(
        &self,
        tiles: &mut T,
        panel: usize,
        rows: &Range<usize>,
        sums: *mut f32,
        tail: *const f32,
    ) {
        let width = panel_width(self.n, panel * NR);
        for col in (0..width).step_by(2 * WIDE) {
            // SAFETY: columns of the panel, rows of the left operand.
            unsafe {
                let strip = Strip {
                    a: self.a.add(rows.start * self.blocks * WIDE * self.parts),
                    below: self.blocks * TILE * self.parts,
                    blocks: self.blocks,
                    b: self.b.add(panel * NR * self.parts * self.pairs + col),
                    width,
                    whole: self.pairs / WIDE,
                    part: self.pairs * width,
                    tail: tail.add(col),
                    to: sums.add(col),
                };
                match (rows.len() > ROWS, width - col > WIDE, self.parts) {
                    (true, true, 1) => strip.sum::<T, 2, 2, 1>(tiles),
                    (true, false, 1) => strip.sum::<T, 2, 1, 1>(tiles),
                    (false, true, 1) => strip.sum::<T, 1, 2, 1>(tiles),
                    (false, false, 1) => strip.sum::<T, 1, 1, 1>(tiles),
                    (true, true, _) => strip.sum::<T, 2, 2, 2>(tiles),
                    (true, false, _) => strip.sum::<T, 2, 1, 2>(tiles),
                    (false, true, _) => strip.sum::<T, 1, 2, 2>(tiles),
                    (false, false, _) => strip.sum::<T, 1, 1, 2>(tiles),
                }
            }
        }
    }

    /// Biases, activation, and the way to the output.
    unsafe fn finish(&self, panel: usize, rows: &Range<usize>, sums: *const f32) {
        let (col, ep) = (panel * NR, self.ep);
        let cols = (self.n - col).min(NR);
        let across = ep.bias_col.map_or(std::ptr::null(), |b| b[col..].as_ptr());
        let (relu, most) = (ep.act == Act::Relu, ep.ceiling());
        for (i, row) in rows.clone().enumerate() {
            let down = ep.bias_row.map(|b| b[row]);
            // SAFETY: a row of the sums, its place in the output, and the columns' biases.
            unsafe {
                let (from, to) = (sums.add(i * NR), self.c.offset(row as isize * self.ld).add(col));
                vectorize(
                    #[inline(always)]
                    move || {
                        for j in 0..cols {
                            let mut y = *from.add(j);
                            if !across.is_null() {
                                y += *across.add(j);
                            }
                            if let Some(down) = down {
                                y += down;
                            }
                            // NaN stays.
                            y = if relu && y < 0.0 { 0.0 } else { y };
                            *to.add(j) = if y > most { most } else { y };
                        }
                    },
                );
            }
        }
    }
}

/// At most 32 rows by 32 columns.
struct Strip {
    a: *const f32,
    /// From sixteen rows of `a` to the next.
    below: usize,
    /// Blocks of 16 pairs, the last of which may be the tail.
    blocks: usize,
    b: *const f32,
    width: usize,
    /// Blocks that lie in the panel.
    whole: usize,
    /// From one part of `b` to the next.
    part: usize,
    tail: *const f32,
    to: *mut f32,
}

impl Strip {
    /// Computes the sums of `R` times 16 rows and `V` times 16 columns with `P` parts:
    /// registers 0 to 3 hold them, 4 and 5 rows of A, 6 and 7 columns of B. Of two parts,
    /// the product of the rests is left out.
    ///
    /// # Safety
    /// Everything lies where the strip says, and the registers are configured.
    #[inline(always)]
    unsafe fn sum<T: Tiles, const R: usize, const V: usize, const P: usize>(&self, t: &mut T) {
        // SAFETY: the caller's contract.
        unsafe {
            t.zero::<0>();
            t.zero::<1>();
            t.zero::<2>();
            t.zero::<3>();
            for block in 0..self.blocks {
                let a = self.a.add(block * TILE * P);
                let (b, part) = match block < self.whole {
                    true => (self.b.add(block * WIDE * self.width), self.part),
                    false => (self.tail, WIDE * self.width),
                };
                self.dots::<T, R, V, true>(t, a, b);
                if P == 2 {
                    self.dots::<T, R, V, false>(t, a.add(TILE), b);
                    self.dots::<T, R, V, true>(t, a, b.add(part));
                }
            }
            let ld = NR * size_of::<f32>();
            t.store::<0>(self.to, ld);
            if V > 1 {
                t.store::<1>(self.to.add(WIDE), ld);
            }
            if R > 1 {
                let below = self.to.add(ROWS * NR);
                t.store::<2>(below, ld);
                if V > 1 {
                    t.store::<3>(below.add(WIDE), ld);
                }
            }
        }
    }

    /// One block of steps; B's registers are loaded, if they do not hold it already.
    #[inline(always)]
    unsafe fn dots<T: Tiles, const R: usize, const V: usize, const LOAD: bool>(
        &self,
        t: &mut T,
        a: *const f32,
        b: *const f32,
    ) {
        let (row, ld) = (WIDE * size_of::<f32>(), self.width * size_of::<f32>());
        // SAFETY: the caller's contract.
        unsafe {
            if LOAD {
                t.load::<6>(b, ld);
            }
            t.load::<4>(a, row);
            t.dot::<0, 4, 6>();
            if V > 1 {
                if LOAD {
                    t.load::<7>(b.add(WIDE), ld);
                }
                t.dot::<1, 4, 7>();
            }
            if R > 1 {
                t.load::<5>(a.add(self.below), row);
                t.dot::<2, 5, 6>();
                if V > 1 {
                    t.dot::<3, 5, 7>();
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
