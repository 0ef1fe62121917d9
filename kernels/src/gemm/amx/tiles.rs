//! The tile registers of AMX: what can be done with them, by the processor or, in tests,
//! by a model of it.

use std::arch::asm;

/// Rows of a tile.
pub(super) const ROWS: usize = 16;
/// Numbers of 32 bits in a row.
pub(super) const WIDE: usize = 16;
/// Numbers of 32 bits in a tile.
#[cfg(test)]
pub(super) const TILE: usize = ROWS * WIDE;

/// What `ldtilecfg` reads: all eight registers have 16 rows of 64 bytes.
#[repr(C, align(64))]
struct Config {
    palette: u8,
    start: u8,
    reserved: [u8; 14],
    row_bytes: [u16; 16],
    rows: [u8; 16],
}

static WHOLE: Config = {
    let mut c =
        Config { palette: 1, start: 0, reserved: [0; 14], row_bytes: [0; 16], rows: [0; 16] };
    let mut i = 0;
    while i < 8 {
        (c.row_bytes[i], c.rows[i]) = (4 * WIDE as u16, ROWS as u8);
        i += 1;
    }
    c
};

/// Eight registers of 16 rows of 16 numbers of 32 bits, by their numbers.
///
/// # Safety
/// Everything but [`Tiles::configure`] is called between that and [`Tiles::release`], on
/// the same thread; addresses are valid for 16 rows of 64 bytes, `ld` bytes apart.
pub(super) trait Tiles {
    /// Takes hold of the registers.
    unsafe fn configure(&mut self);
    /// Gives them back.
    unsafe fn release(&mut self);
    /// Sets a register to zero.
    unsafe fn zero<const T: u8>(&mut self);
    /// Loads a register.
    unsafe fn load<const T: u8>(&mut self, p: *const f32, ld: usize);
    /// Stores a register.
    unsafe fn store<const T: u8>(&mut self, p: *mut f32, ld: usize);
    /// Adds to numbers `C` the products of pairs of bf16: rows of `A` by columns of `B`,
    /// whose rows are pairs of steps.
    unsafe fn pairs<const C: u8, const A: u8, const B: u8>(&mut self);
    /// Adds to integers `C` the products of quads of bytes: rows of `A`, unsigned, by columns
    /// of `B`, signed, whose rows are four steps.
    unsafe fn quads<const C: u8, const A: u8, const B: u8>(&mut self);
}

/// The processor's.
pub(super) struct Amx;

impl Tiles for Amx {
    #[inline(always)]
    unsafe fn configure(&mut self) {
        // SAFETY: here and below, the caller knows that the processor has the instruction
        // and that the process may use it. Nothing but these functions touches the
        // registers, and blocks that are not pure keep their order.
        unsafe { asm!("ldtilecfg [{}]", in(reg) &raw const WHOLE, options(nostack, readonly)) }
    }
    #[inline(always)]
    unsafe fn release(&mut self) {
        // SAFETY: as above.
        unsafe { asm!("tilerelease", options(nostack, nomem)) }
    }
    #[inline(always)]
    unsafe fn zero<const T: u8>(&mut self) {
        // SAFETY: as above.
        unsafe { asm!("tilezero tmm{t}", t = const T, options(nostack, nomem, preserves_flags)) }
    }
    #[inline(always)]
    unsafe fn load<const T: u8>(&mut self, p: *const f32, ld: usize) {
        // SAFETY: as above; the caller has the memory.
        unsafe {
            asm!("tileloadd tmm{t}, [{p} + 1*{ld}]", t = const T, p = in(reg) p, ld = in(reg) ld,
                options(nostack, readonly, preserves_flags))
        }
    }
    #[inline(always)]
    unsafe fn store<const T: u8>(&mut self, p: *mut f32, ld: usize) {
        // SAFETY: as above; the caller has the memory.
        unsafe {
            asm!("tilestored [{p} + 1*{ld}], tmm{t}", t = const T, p = in(reg) p, ld = in(reg) ld,
                options(nostack, preserves_flags))
        }
    }
    #[inline(always)]
    unsafe fn pairs<const C: u8, const A: u8, const B: u8>(&mut self) {
        // SAFETY: as above.
        unsafe {
            asm!("tdpbf16ps tmm{c}, tmm{a}, tmm{b}", c = const C, a = const A, b = const B,
                options(nostack, nomem, preserves_flags))
        }
    }
    #[inline(always)]
    unsafe fn quads<const C: u8, const A: u8, const B: u8>(&mut self) {
        // SAFETY: as above.
        unsafe {
            asm!("tdpbusd tmm{c}, tmm{a}, tmm{b}", c = const C, a = const A, b = const B,
                options(nostack, nomem, preserves_flags))
        }
    }
}

/// A model, after the operations in Intel's Software Developer's Manual.
#[cfg(test)]
#[derive(Default)]
pub(super) struct Model {
    /// None, unless configured.
    tiles: Option<Box<[[u32; TILE]; 8]>>,
}

#[cfg(test)]
impl Model {
    fn tiles(&mut self) -> &mut [[u32; TILE]; 8] {
        self.tiles.as_mut().expect("tiles are used while they are configured")
    }
}

/// Numbers too small to be normal are zero, in operands as in results.
#[cfg(test)]
fn flushed(x: f32) -> f32 {
    if x.is_subnormal() { 0.0f32.copysign(x) } else { x }
}

#[cfg(test)]
impl Tiles for Model {
    unsafe fn configure(&mut self) {
        self.tiles = Some(Box::new([[0; TILE]; 8]));
    }
    unsafe fn release(&mut self) {
        self.tiles = None;
    }
    unsafe fn zero<const T: u8>(&mut self) {
        self.tiles()[T as usize] = [0; TILE];
    }
    unsafe fn load<const T: u8>(&mut self, p: *const f32, ld: usize) {
        for row in 0..ROWS {
            let to = self.tiles()[T as usize][row * WIDE..].as_mut_ptr();
            // SAFETY: a row of the caller's memory and one of the tile.
            unsafe { p.byte_add(row * ld).cast::<u32>().copy_to(to, WIDE) }
        }
    }
    unsafe fn store<const T: u8>(&mut self, p: *mut f32, ld: usize) {
        for row in 0..ROWS {
            let from = self.tiles()[T as usize][row * WIDE..].as_ptr();
            // SAFETY: a row of the tile and one of the caller's memory.
            unsafe { from.copy_to(p.byte_add(row * ld).cast(), WIDE) }
        }
    }
    // TDPBF16PS: the even and the odd products are summed up apart, from zero, then added
    // to each other, then to what was there. Rounding is to nearest.
    unsafe fn pairs<const C: u8, const A: u8, const B: u8>(&mut self) {
        assert!(C != A && C != B && A != B, "the processor refuses the same register twice");
        let t = self.tiles();
        let number = |x: u32| flushed(f32::from_bits(x << 16));
        for (m, n) in (0..ROWS).flat_map(|m| (0..WIDE).map(move |n| (m, n))) {
            let mut sums = [0.0f32; 2];
            for k in 0..WIDE {
                let (a, b) = (t[A as usize][m * WIDE + k], t[B as usize][k * WIDE + n]);
                for (half, sum) in sums.iter_mut().enumerate() {
                    let (a, b) =
                        (number(a >> (16 * half) & 0xffff), number(b >> (16 * half) & 0xffff));
                    *sum = flushed(a.mul_add(b, *sum));
                }
            }
            let c = &mut t[C as usize][m * WIDE + n];
            let sum = flushed(sums[0] + sums[1]);
            *c = flushed(flushed(f32::from_bits(*c)) + sum).to_bits();
        }
    }
    // TDPBUSD: products of a quad are added to 32 bits one after the other, which wrap.
    unsafe fn quads<const C: u8, const A: u8, const B: u8>(&mut self) {
        assert!(C != A && C != B && A != B, "the processor refuses the same register twice");
        let t = self.tiles();
        for (m, n) in (0..ROWS).flat_map(|m| (0..WIDE).map(move |n| (m, n))) {
            let mut sum = t[C as usize][m * WIDE + n] as i32;
            for k in 0..WIDE {
                let a = t[A as usize][m * WIDE + k].to_le_bytes();
                let b = t[B as usize][k * WIDE + n].to_le_bytes();
                for (a, b) in a.into_iter().zip(b) {
                    sum = sum.wrapping_add(i32::from(a) * i32::from(b as i8));
                }
            }
            t[C as usize][m * WIDE + n] = sum as u32;
        }
    }
}
