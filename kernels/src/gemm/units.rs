//! Products whose left operand is converted first: several numbers in the place of one f32.
//!
//! Such a place is a unit: two numbers of bf16 ([`super::pairs`], [`super::split`]), or four
//! integers of eight bits ([`super::quads`]). Rows of units are what tiles multiply, and what
//! the processor's matrix unit loads ([`super::amx`]), whichever of the two is there; whoever
//! gathers numbers from elsewhere, as convolutions do, writes rows of units as well.

#[cfg(target_arch = "x86_64")]
use super::amx;
use super::driver::{Lhs, Out, Product, Rhs};
use super::kernel::{Kernel, Scales};
use super::pairs::{self, residual, round, round_numbers};
use super::quads::{QUANTIZE, Tail, Tiles};
use super::{Epilogue, any_output};
use crate::isa;
use crate::par;
use crate::scratch::{At, Scratch};
use crate::simd::vectorize;
use crate::view::{Dst, Src};

/// Rows and units that a matrix unit takes at a time.
const BLOCK: usize = 16;

/// What a unit holds.
#[derive(Clone, Copy)]
enum What {
    /// Two numbers of bf16.
    Pairs,
    /// Two numbers of bf16; what they leave is in another part of the row.
    Split,
    /// Four integers of eight bits, and whose tiles multiply them.
    Quads(Tail, &'static Kernel),
}

/// How rows of a left operand are converted and multiplied.
#[derive(Clone, Copy)]
pub(crate) struct Units {
    what: What,
    /// By the matrix unit.
    matrix: bool,
}

// SAFETY: scales are only read, and who multiplies vouches for them.
unsafe impl Sync for Units {}

/// Where the units of rows lie.
#[derive(Clone, Copy)]
pub(crate) struct Rows {
    /// Units of the numbers of a row.
    pub(crate) units: usize,
    /// From one part of a row to the next, in units: see [`Units::end`].
    pub(crate) part: usize,
    /// From one row to the next.
    pub(crate) pitch: usize,
    /// Whether blocks of rows are read as a whole.
    blocks: bool,
}

impl Rows {
    /// Units of so many rows, with what is read beyond the last.
    pub(crate) fn len(&self, m: usize) -> usize {
        self.pitch * if self.blocks { m.next_multiple_of(BLOCK) } else { m }
    }
}

impl Units {
    /// Pairs of bf16.
    pub(crate) fn pairs() -> Units {
        Units { what: What::Pairs, matrix: super::tiles_available() }
    }

    /// Numbers split in two of bf16.
    pub(crate) fn split() -> Units {
        Units { what: What::Split, matrix: super::tiles_available() }
    }

    /// Integers, by what lies behind the packed weights.
    pub(crate) fn quads(tail: Tail) -> Units {
        #[cfg(target_arch = "x86_64")]
        let matrix = amx::multiplies_integers();
        #[cfg(not(target_arch = "x86_64"))]
        let matrix = false;
        Units { what: What::Quads(tail, Tiles::active().products), matrix }
    }

    /// By a matrix unit or not. In tests a model stands in for one that is not there.
    #[cfg(test)]
    pub(crate) fn by_matrix(self, matrix: bool) -> Units {
        Units { matrix, ..self }
    }

    /// Integers by these tiles.
    #[cfg(test)]
    pub(crate) fn by_tiles(self, tiles: Tiles) -> Units {
        match self.what {
            What::Quads(tail, _) => {
                Units { what: What::Quads(tail, tiles.products), matrix: false }
            }
            _ => self,
        }
    }

    /// Bytes of a number.
    pub(crate) fn size(self) -> usize {
        if let What::Quads(..) = self.what { 1 } else { 2 }
    }

    /// The byte that numbers of zero consist of.
    pub(crate) fn zero(self) -> u8 {
        if let What::Quads(tail, _) = self.what { tail.zero } else { 0 }
    }

    /// In how many ways a number is converted: to the nearest one, and to what that leaves.
    pub(crate) fn ways(self) -> usize {
        if let What::Split = self.what { 2 } else { 1 }
    }

    /// The ways in which the parts of a row are converted.
    pub(crate) fn parts(self) -> &'static [usize] {
        match self.what {
            What::Split if self.matrix => &[0, 1],
            // Tiles read the nearest numbers twice, once for each part of the weights.
            What::Split => &[0, 0, 1],
            _ => &[0],
        }
    }

    /// Where rows of `k` numbers lie.
    pub(crate) fn rows(self, k: usize) -> Rows {
        let units = (k * self.size()).div_ceil(size_of::<f32>());
        let part = if self.matrix { units.next_multiple_of(BLOCK) } else { units };
        let mut pitch = part * self.parts().len();
        // An odd number of cache lines: rows that are loaded together are not in the way
        // of each other.
        if self.matrix && (pitch / BLOCK).is_multiple_of(2) {
            pitch += BLOCK;
        }
        Rows { units, part, pitch, blocks: self.matrix }
    }

    /// Converts `n` numbers, `step` apart, in one of the [`Units::ways`].
    ///
    /// # Safety
    /// `x` is readable at `n` such places, `out` writable for `n` converted numbers.
    #[inline]
    pub(crate) unsafe fn convert(
        self,
        way: usize,
        x: *const f32,
        step: isize,
        n: usize,
        out: *mut u8,
    ) {
        // SAFETY: the caller's contract; the level was found on this machine.
        unsafe {
            match self.what {
                What::Quads(tail, _) => {
                    QUANTIZE[isa::active() as usize](x, step, n, tail.rounding, out);
                }
                _ => vectorize(
                    #[inline(always)]
                    move || {
                        let to = out.cast::<[u8; 2]>();
                        if way == 0 {
                            return round_numbers(x, step, n, to);
                        }
                        for i in 0..n {
                            let left = residual(*x.offset(i as isize * step));
                            *to.add(i) = round(left).to_ne_bytes();
                        }
                    },
                ),
            }
        }
    }

    /// Sets to zero what lies behind the `k` numbers of each part of a row. Integers need
    /// none: whatever they are, the weights there are zero.
    ///
    /// # Safety
    /// The row is writable.
    #[inline]
    pub(crate) unsafe fn end(self, k: usize, row: *mut f32, rows: &Rows) {
        let (from, to) = (k * self.size(), rows.part * size_of::<f32>());
        if from < to && self.size() > 1 {
            for part in 0..self.parts().len() {
                // SAFETY: the caller's contract.
                unsafe {
                    row.add(part * rows.part).cast::<u8>().add(from).write_bytes(0, to - from)
                }
            }
        }
    }

    /// `c = act(a b + bias)` for `m` rows of `k` numbers as [`Units::rows`] says, `b` packed
    /// for these units with `n` columns. What is not `shared` among threads has the columns
    /// of `c` side by side.
    ///
    /// # Safety
    /// `a` is readable for [`Rows::len`] units, `packed` as a whole, scales included; `c`
    /// is `m` by `n`.
    pub(crate) unsafe fn multiply(
        self,
        a: *const f32,
        [m, k, n]: [usize; 3],
        packed: *const f32,
        c: Dst<f32>,
        ep: &Epilogue,
        shared: bool,
    ) {
        let rows = self.rows(k);
        let scales = if let What::Quads(tail, _) = self.what { tail.scales } else { Scales::NONE };
        #[cfg(target_arch = "x86_64")]
        if self.matrix {
            let integers = matches!(self.what, What::Quads(..));
            let parts = self.parts().len();
            let p = amx::Operands { m, n, rows, parts, a, b: packed, integers, scales };
            // SAFETY: the caller's contract.
            return unsafe { amx::product(p, c, ep, shared) };
        }
        let left = |part: usize| Lhs {
            ptr: a.wrapping_add(part * rows.part),
            strides: [0, rows.pitch as isize, 1],
        };
        let p = Product {
            batch: 1,
            m,
            k: rows.units,
            n,
            a: left(0),
            b: Rhs::Packed(packed, rows.units),
            c: Out { ptr: c.ptr(), batch: 0, ld: c.strides[0] },
            accumulate: false,
            ep,
            kernel: if let What::Quads(_, tiles) = self.what { tiles } else { pairs::active() },
            scales,
        };
        // SAFETY: the caller's contract.
        let run =
            |p: Product| unsafe { if shared { any_output(p, c.strides[1]) } else { p.run_here() } };
        if let What::Split = self.what {
            let b = Rhs::Packed(packed, 2 * rows.units);
            run(Product { a: left(2), b, ep: &Epilogue::NONE, ..p });
            return run(Product { k: 2 * rows.units, b, accumulate: true, ..p });
        }
        run(p);
    }
}

/// `c = act(a b + bias)` for `a` of shape `[m, k]`, converted to these units, and `b` of
/// `[k, n]`, packed for them.
///
/// # Panics
/// If shapes do not fit, or if there is a hook and `c`'s columns do not lie side by side.
pub(super) fn product(
    units: Units,
    a: Src<f32>,
    packed: &[f32],
    n: usize,
    c: Dst<f32>,
    ep: &Epilogue,
) {
    let (&[m, k], &[mc, nc]) = (a.shape, c.shape) else { panic!("matrices have two dimensions") };
    assert!((mc, nc) == (m, n), "shapes of a matrix product must fit");
    let rows = units.rows(k);
    let left = Scratch::new(rows.len(m));
    let to = At(left.ptr());
    par::for_range(m, (1 << 15) / k.max(1) + 1, |range| {
        for r in range {
            let to = to.after(r * rows.pitch);
            for (part, &way) in units.parts().iter().enumerate() {
                // SAFETY: a row of the view and its place in the scratch.
                unsafe {
                    let row = a.ptr().wrapping_offset(r as isize * a.strides[0]);
                    units.convert(way, row, a.strides[1], k, to.add(part * rows.part).cast());
                }
            }
            // SAFETY: the row's place in the scratch.
            unsafe { units.end(k, to, &rows) };
        }
    });
    // SAFETY: the scratch holds the rows, `packed` has the length of such an operand, and the
    // output was checked at construction.
    unsafe { units.multiply(left.ptr(), [m, k, n], packed.as_ptr(), c, ep, true) }
}
