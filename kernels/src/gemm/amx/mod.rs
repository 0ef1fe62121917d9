//! Products by AMX, the processor's matrix unit: 16 by 16 sums advance by 32 steps of `k` of
//! bf16, or by 64 of integers of eight bits, with one instruction.
//!
//! The right operand is what every processor takes ([`super::pairs`], [`super::split`],
//! [`super::quads`]): sixteen columns of sixteen units of a panel are a register's worth.
//! The left one are rows of [`super::units`], of which sixteen by sixteen are one. Sums are
//! computed in blocks of 32 rows by 48 columns and finished while they are in the nearest
//! cache.
//!
//! Integers are the same as everywhere. Of bf16, the instruction adds up 32 steps apart from
//! what was there, even and odd ones apart from each other, and takes subnormal numbers for
//! zero. An element's sum is a chain of such blocks in the order of `k`, whatever the shape
//! and the number of threads; it is not the chain that other instructions compute.

mod tiles;

use super::kernel::{NR, Scales};
use super::pack::panel_width;
use super::units::Rows;
use super::{Act, Epilogue, JOB, Tile};
use crate::isa::{self, Isa};
use crate::par;
use crate::scratch::Scratch;
use crate::simd::vectorize;
use crate::view::Dst;
use std::ops::Range;
use std::sync::OnceLock;
#[cfg(test)]
use tiles::Model;
use tiles::{Amx, ROWS, Tiles, WIDE};

/// What the processor multiplies matrices of, if the operating system lets this process
/// use that.
#[derive(Clone, Copy, Default)]
struct Found {
    bf16: bool,
    integers: bool,
}

fn of_this_process() -> Found {
    static FOUND: OnceLock<Found> = OnceLock::new();
    match isa::active() {
        Isa::Avx512 => *FOUND.get_or_init(found),
        _ => Found::default(),
    }
}

/// Whether matrices of bf16 can be multiplied here.
pub fn available() -> bool {
    of_this_process().bf16
}

/// Whether matrices of integers of eight bits can be multiplied here.
pub(super) fn multiplies_integers() -> bool {
    of_this_process().integers
}

#[cfg(not(target_os = "linux"))]
fn found() -> Found {
    Found::default()
}

/// Asks the processor, then whether the system saves the registers, then the system for
/// permission, which Linux gives to the whole process.
#[cfg(target_os = "linux")]
fn found() -> Found {
    use std::arch::x86_64::{__cpuid, __cpuid_count, _xgetbv};
    #[target_feature(enable = "xsave")]
    fn enabled() -> u64 {
        // SAFETY: the features of the function.
        unsafe { _xgetbv(0) }
    }
    const OSXSAVE: u32 = 3 << 26;
    const TILES: u32 = 1 << 24;
    const TILE_STATE: u64 = 3 << 17;
    const ARCH_REQ_XCOMP_PERM: libc::c_long = 0x1023;
    const TILE_DATA: libc::c_long = 18;
    if __cpuid(0).eax < 0x1d || __cpuid(1).ecx & OSXSAVE != OSXSAVE {
        return Found::default();
    }
    let features = __cpuid_count(7, 0).edx;
    if features & TILES == 0 {
        return Found::default();
    }
    let palette = __cpuid_count(0x1d, 1);
    let registers =
        [palette.eax >> 16, palette.ebx & 0xffff, palette.ebx >> 16, palette.ecx & 0xffff];
    // SAFETY: the processor has the instruction, and the system has enabled it. The call
    // asks for permission and does nothing else.
    let usable = unsafe {
        registers == [1024, 64, 8, 16]
            && enabled() & TILE_STATE == TILE_STATE
            && libc::syscall(libc::SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, TILE_DATA) == 0
    };
    Found { bf16: usable && features & 1 << 22 != 0, integers: usable && features & 1 << 25 != 0 }
}

/// Rows of a block of sums.
const BLOCK: usize = 2 * ROWS;
/// Panels whose sums are finished together: 30 KiB of output, the size of a hook's work.
const GROUP: usize = 5;
/// Multiply-adds worth a thread's attention.
const WORTH: usize = 8 * JOB;

/// The operands of a product.
#[derive(Clone, Copy)]
pub(super) struct Operands {
    pub(super) m: usize,
    pub(super) n: usize,
    /// How the rows of `a` lie, each with one part, or with two for products of three.
    pub(super) rows: Rows,
    pub(super) parts: usize,
    /// Whole blocks of rows of units.
    pub(super) a: *const f32,
    /// Panels with the units of all parts, one part after the other.
    pub(super) b: *const f32,
    /// Whether units are quads of integers, of whose sums `scales` make numbers.
    pub(super) integers: bool,
    pub(super) scales: Scales,
}

/// `c = act(a b + bias)`; what is not `shared` is computed by this thread.
///
/// # Safety
/// The operands are readable at these extents, and the processor has the instructions (in
/// tests, a model stands in for them).
///
/// # Panics
/// If biases do not fit, or there is a hook and `c`'s columns do not lie side by side.
pub(super) unsafe fn product(o: Operands, c: Dst<f32>, ep: &Epilogue, shared: bool) {
    #[cfg(test)]
    if tests::modelled() || !(if o.integers { multiplies_integers() } else { available() }) {
        // SAFETY: the caller's contract.
        return unsafe { by(Model::default, o, c, ep, shared) };
    }
    // SAFETY: the caller's contract.
    unsafe { by(|| Amx, o, c, ep, shared) }
}

/// [`product`] with any registers.
unsafe fn by<T: Tiles>(
    tiles: impl Fn() -> T + Sync,
    o: Operands,
    c: Dst<f32>,
    ep: &Epilogue,
    shared: bool,
) {
    let (m, n) = (o.m, o.n);
    ep.check(m, n);
    let beside = c.strides[1] == 1 || n <= 1;
    assert!(beside || ep.hook.is_none(), "a hook needs columns that lie side by side");
    if m == 0 || n == 0 {
        return;
    }
    let dense = Scratch::new(if beside { 0 } else { m * n });
    let (out, ld) = if beside { (c.ptr(), c.strides[0]) } else { (dense.ptr(), n as isize) };
    Product { o, c: out, ld, ep }.run(&tiles, shared);
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

/// A product and where it goes.
struct Product<'a> {
    o: Operands,
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
    fn run<T: Tiles>(&self, tiles: &(impl Fn() -> T + Sync), shared: bool) {
        let Operands { m, n, rows: Rows { units, .. }, .. } = self.o;
        let panels = n.div_ceil(NR);
        let threads = if shared { par::threads() } else { 1 };
        let work = m.max(ROWS).saturating_mul(n).saturating_mul(2 * units.max(8));
        let pieces = if threads == 1 { 1 } else { (work / WORTH).clamp(1, 8 * threads) };
        let group = panels.div_ceil(pieces).min(GROUP);
        let (groups, blocks) = (panels.div_ceil(group), m.div_ceil(BLOCK));
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
        let tail = self.o.parts * WIDE * NR;
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
                let row = block * BLOCK..((block + 1) * BLOCK).min(self.o.m);
                for (i, panel) in panels.clone().enumerate() {
                    self.block(tiles, panel, &row, room.sums, room.tails.add(i * tail));
                    self.finish(panel, &row, room.sums);
                }
                let Some(hook) = self.ep.hook else { continue };
                let (col, end) = (panels.start * NR, (panels.end * NR).min(self.o.n));
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

    /// Copies the units of a panel that do not fill a register, and zeros after them.
    unsafe fn tail(&self, panel: usize, to: *mut f32) {
        let Operands { n, rows: Rows { units, .. }, parts, b, .. } = self.o;
        let (width, left) = (panel_width(n, panel * NR), units % WIDE);
        for part in 0..if left == 0 { 0 } else { parts } {
            let row = (part + 1) * units - left;
            // SAFETY: steps of the panel, and room for a part.
            unsafe {
                let from = b.add(panel * NR * parts * units + row * width);
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
        let Operands { n, rows: Rows { units, part, pitch, .. }, parts, a, b, .. } = self.o;
        let width = panel_width(n, panel * NR);
        for col in (0..width).step_by(2 * WIDE) {
            // SAFETY: columns of the panel, rows of the left operand.
            unsafe {
                let strip = Strip {
                    a: a.add(rows.start * pitch),
                    pitch,
                    a_part: part,
                    blocks: units.div_ceil(WIDE),
                    b: b.add(panel * NR * parts * units + col),
                    width,
                    whole: units / WIDE,
                    b_part: units * width,
                    tail: tail.add(col),
                    to: sums.add(col),
                };
                let [below, beside] = [rows.len() > ROWS, width - col > WIDE];
                if self.o.integers {
                    strip.of::<T, Quads>(tiles, below, beside);
                } else if parts == 1 {
                    strip.of::<T, Pairs>(tiles, below, beside);
                } else {
                    strip.of::<T, Split>(tiles, below, beside);
                }
            }
        }
    }

    /// Biases, activation, and the way to the output.
    unsafe fn finish(&self, panel: usize, rows: &Range<usize>, sums: *const f32) {
        let (col, ep) = (panel * NR, self.ep);
        let cols = (self.o.n - col).min(NR);
        let Scales { scale, offset } = self.o.scales.after(col);
        let offset = offset.cast::<i32>();
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
                            let mut y = match scale.is_null() {
                                true => *from.add(j),
                                // A sum of integers.
                                false => {
                                    let sum = *from.add(j).cast::<i32>();
                                    sum.wrapping_add(*offset.add(j)) as f32 * *scale.add(j)
                                }
                            };
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

/// Of what units consist, and which products of parts are summed up.
trait Kind {
    /// Parts of the operands. Of two, the product of the rests is left out.
    const PARTS: usize = 1;

    /// Adds products to sums.
    ///
    /// # Safety
    /// As for [`Tiles`].
    #[inline(always)]
    unsafe fn dot<T: Tiles, const C: u8, const A: u8, const B: u8>(t: &mut T) {
        // SAFETY: the caller's contract.
        unsafe { t.pairs::<C, A, B>() }
    }
}

struct Pairs;
struct Split;
struct Quads;

impl Kind for Pairs {}

impl Kind for Split {
    const PARTS: usize = 2;
}

impl Kind for Quads {
    #[inline(always)]
    unsafe fn dot<T: Tiles, const C: u8, const A: u8, const B: u8>(t: &mut T) {
        // SAFETY: the caller's contract.
        unsafe { t.quads::<C, A, B>() }
    }
}

/// At most 32 rows by 32 columns.
struct Strip {
    a: *const f32,
    /// From one row of `a` to the next.
    pitch: usize,
    /// From one part of a row to the next.
    a_part: usize,
    /// Blocks of 16 units, the last of which may be the tail.
    blocks: usize,
    b: *const f32,
    width: usize,
    /// Blocks that lie in the panel.
    whole: usize,
    /// From one part of `b` to the next.
    b_part: usize,
    tail: *const f32,
    to: *mut f32,
}

impl Strip {
    /// Computes the sums of 16 rows, or 32 if there are rows `below`, and as many columns.
    ///
    /// # Safety
    /// Everything lies where the strip says, and the registers are configured.
    unsafe fn of<T: Tiles, K: Kind>(&self, t: &mut T, below: bool, beside: bool) {
        // SAFETY: the caller's contract.
        unsafe {
            match (below, beside) {
                (true, true) => self.sum::<T, K, 2, 2>(t),
                (true, false) => self.sum::<T, K, 2, 1>(t),
                (false, true) => self.sum::<T, K, 1, 2>(t),
                (false, false) => self.sum::<T, K, 1, 1>(t),
            }
        }
    }

    /// The sums of `R` times 16 rows and `V` times 16 columns: registers 0 to 3 hold them,
    /// 4 and 5 rows of A, 6 and 7 columns of B.
    #[inline(always)]
    unsafe fn sum<T: Tiles, K: Kind, const R: usize, const V: usize>(&self, t: &mut T) {
        // SAFETY: the caller's contract.
        unsafe {
            t.zero::<0>();
            t.zero::<1>();
            t.zero::<2>();
            t.zero::<3>();
            for block in 0..self.blocks {
                let a = self.a.add(block * WIDE);
                let (b, part) = match block < self.whole {
                    true => (self.b.add(block * WIDE * self.width), self.b_part),
                    false => (self.tail, WIDE * self.width),
                };
                self.dots::<T, K, R, V, true>(t, a, b);
                if K::PARTS == 2 {
                    self.dots::<T, K, R, V, false>(t, a.add(self.a_part), b);
                    self.dots::<T, K, R, V, true>(t, a, b.add(part));
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
    unsafe fn dots<T: Tiles, K: Kind, const R: usize, const V: usize, const LOAD: bool>(
        &self,
        t: &mut T,
        a: *const f32,
        b: *const f32,
    ) {
        let (row, ld) = (self.pitch * size_of::<f32>(), self.width * size_of::<f32>());
        // SAFETY: the caller's contract.
        unsafe {
            if LOAD {
                t.load::<6>(b, ld);
            }
            t.load::<4>(a, row);
            K::dot::<T, 0, 4, 6>(t);
            if V > 1 {
                if LOAD {
                    t.load::<7>(b.add(WIDE), ld);
                }
                K::dot::<T, 1, 4, 7>(t);
            }
            if R > 1 {
                t.load::<5>(a.add(ROWS * self.pitch), row);
                K::dot::<T, 2, 5, 6>(t);
                if V > 1 {
                    K::dot::<T, 3, 5, 7>(t);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
