//! Recurrent sequences: LSTM (Hochreiter and Schmidhuber, 1997, with forget gates), GRU
//! (Cho et al., 2014, with the reset gate behind the product, as cuDNN has it) and
//! Elman's network with `tanh` or ReLU.
//!
//! What the inputs contribute to the gates of all steps is one product, which somebody
//! has made; here is what depends on the step before. The recurrent weight is packed
//! once for the whole sequence, so that the columns which belong to sixteen units stand
//! together: the gates of some units are finished while their sums are in the nearest
//! cache.
//!
//! Rows of a batch depend on each other nowhere: threads take rows, each for the whole
//! sequence, and a row's results do not depend on the rows beside it.

mod cells;
mod grad;
mod panels;

pub use grad::{Saved, Wanted, backward};

use crate::par;
use crate::scratch::Scratch;
use crate::simd::{LANES, run_single};
use crate::view::{Dst, Src};
use cells::Step;
pub use panels::Panels;
use panels::Product;

/// What a unit computes.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Cell {
    /// `h' = tanh(g + w h)`.
    Tanh,
    /// `h' = max(g + w h, 0)`.
    Relu,
    /// Gates reset, update and new: `h' = (1 - z) n + z h` with
    /// `n = tanh(g + r (w h + b))`.
    Gru,
    /// Gates in, forget, cell and out: `c' = f c + i g`, `h' = o tanh(c')`.
    Lstm,
}

impl Cell {
    /// Rows of the weights for each unit.
    pub fn gates(self) -> usize {
        match self {
            Cell::Tanh | Cell::Relu => 1,
            Cell::Gru => 3,
            Cell::Lstm => 4,
        }
    }

    /// Numbers that are kept of each unit for the derivative: the gates' values and, of a
    /// GRU, what the reset gate is a factor of.
    pub fn kept(self) -> usize {
        match self {
            Cell::Tanh | Cell::Relu => 0,
            Cell::Gru | Cell::Lstm => 4,
        }
    }
}

/// Extents of a sequence, and what is computed.
#[derive(Clone, Copy, Debug)]
pub struct Sequence {
    /// What a unit computes.
    pub cell: Cell,
    /// From the last step to the first.
    pub reverse: bool,
    /// Number of steps.
    pub steps: usize,
    /// Number of rows.
    pub rows: usize,
    /// Number of units.
    pub units: usize,
}

impl Sequence {
    /// The steps in order: each with the one before it, unless it is the first.
    fn order(&self) -> impl DoubleEndedIterator<Item = (usize, Option<usize>)> + use<> {
        let (steps, reverse) = (self.steps, self.reverse);
        (0..steps).map(move |s| {
            let at = |s: usize| if reverse { steps - 1 - s } else { s };
            (at(s), s.checked_sub(1).map(at))
        })
    }

    /// How many rows a thread takes at least: fewer would wait for the weights.
    fn pieces(&self) -> usize {
        let row = (self.steps * self.cell.gates()).saturating_mul(self.units * self.units);
        let least = (crate::gemm::JOB * 4 / row.max(1)).max(LEAST_ROWS);
        (self.rows / least).clamp(1, par::threads())
    }
}

/// Rows for which weights are read at the pace of arithmetic.
const LEAST_ROWS: usize = 4;
/// Rows whose sums are in the scratch at a time.
const BLOCK_ROWS: usize = 32;
/// Columns of the weight whose sums are in the scratch at a time: four panels, whole
/// groups of sixteen units with one, three or four gates.
const CHUNK: usize = 192;

/// The recurrent weight, of `[gates * units, units]`.
#[derive(Clone, Copy)]
pub enum Weight<'a, T> {
    /// As it is; rows lie densely one after the other.
    Plain(Src<'a, T>),
    /// As [`pack`] left it.
    Packed(&'a [T]),
    /// As [`pack_bf16`] left it: states are rounded to bf16 as well before they are
    /// multiplied by it. Sums and cells stay f32.
    Bf16(&'a [T]),
}

/// Columns of the packed weight.
fn columns(cell: Cell, units: usize) -> usize {
    cell.gates() * units.next_multiple_of(LANES)
}

/// How many numbers [`pack`] writes.
pub fn packed_len(cell: Cell, units: usize) -> usize {
    units * columns(cell, units)
}

/// Packs a recurrent weight of `[gates * units, units]` for [`forward`]. The layout is
/// the same for every instruction set.
///
/// # Panics
/// If shapes do not fit, or the weight is not dense.
pub fn pack<T: Panels>(cell: Cell, w: Src<T>, out: &mut [T]) {
    let &[rows, units] = w.shape else { panic!("a weight is a matrix") };
    assert_eq!(rows, cell.gates() * units, "a weight has a row for each gate of a unit");
    assert!(w.is_contiguous(), "a weight to be packed is dense");
    assert_eq!(out.len(), packed_len(cell, units), "the packed weight has its own size");
    // SAFETY: the weight is dense, and `out` has room for all panels.
    unsafe { T::pack_gates(w.ptr(), [cell.gates(), units], units, out.as_mut_ptr()) };
}

/// How many numbers [`pack_bf16`] writes.
pub fn packed_len_bf16(cell: Cell, units: usize) -> usize {
    units.div_ceil(2) * columns(cell, units)
}

/// Rounds a recurrent weight to bf16 and packs it as [`pack`] does, two steps in the
/// place of one.
///
/// # Panics
/// As [`pack`].
pub fn pack_bf16(cell: Cell, w: Src<f32>, out: &mut [f32]) {
    let &[rows, units] = w.shape else { panic!("a weight is a matrix") };
    assert_eq!(rows, cell.gates() * units, "a weight has a row for each gate of a unit");
    assert!(w.is_contiguous(), "a weight to be packed is dense");
    assert_eq!(out.len(), packed_len_bf16(cell, units), "the packed weight has its own size");
    let pairs = units.div_ceil(2);
    let rounded = Scratch::new(rows * pairs);
    // SAFETY: the weight is dense, the scratch has room for its rows and `out` for all
    // panels.
    unsafe {
        f32::round_rows(w.ptr(), rows, units, rounded.ptr());
        f32::pack_gates(rounded.ptr(), [cell.gates(), units], pairs, out.as_mut_ptr());
    }
}

/// States and results of [`forward`]; all but the operands' gates are dense.
pub struct Forward<'a, T> {
    /// What the inputs contribute, `[steps, rows, gates * units]`; gates lie side by side.
    pub gates: Src<'a, T>,
    /// The recurrent weight.
    pub weight: Weight<'a, T>,
    /// `[rows, units]`, before the first step.
    pub h0: Src<'a, T>,
    /// Of an LSTM, the cells before the first step, `[rows, units]`.
    pub c0: Option<Src<'a, T>>,
    /// Of a GRU, what is added within the reset gate, `[units]`; none is zero.
    pub bias: Option<Src<'a, T>>,
    /// `[steps, rows, units]`.
    pub y: Dst<'a, T>,
    /// Of an LSTM, the cells, `[steps, rows, units]`.
    pub c: Option<Dst<'a, T>>,
    /// What the derivative needs, if wanted: `[steps, rows, kept * units]`.
    pub kept: Option<Dst<'a, T>>,
}

/// Runs a sequence.
///
/// # Panics
/// If shapes do not fit, or something is not dense that has to be.
pub fn forward<T: Panels>(s: &Sequence, f: &Forward<T>) {
    let &Sequence { cell, steps, rows, units, .. } = s;
    let (wide, lstm) = (cell.gates() * units, cell == Cell::Lstm);
    assert_eq!(f.gates.shape, [steps, rows, wide], "gates have their own shape");
    assert!(f.gates.strides[2] == 1 || wide <= 1, "the gates of a row lie side by side");
    let dense = |x: &Src<T>, shape: &[usize]| {
        assert_eq!(x.shape, shape, "states have the shape of a step");
        assert!(x.is_contiguous(), "states are dense");
    };
    dense(&f.h0, &[rows, units]);
    dense(&f.y.as_src(), &[steps, rows, units]);
    assert_eq!((f.c0.is_some(), f.c.is_some()), (lstm, lstm), "an LSTM has cells");
    f.c0.iter().for_each(|c| dense(c, &[rows, units]));
    f.c.iter().for_each(|c| dense(&c.as_src(), &[steps, rows, units]));
    f.bias.iter().for_each(|b| dense(b, &[units]));
    f.kept.iter().for_each(|k| dense(&k.as_src(), &[steps, rows, cell.kept() * units]));
    if rows == 0 || steps == 0 || units == 0 {
        return;
    }
    let mut own = Scratch::default();
    let bf16 = matches!(f.weight, Weight::Bf16(_));
    let packed = match f.weight {
        Weight::Bf16(p) => {
            assert_eq!(p.len(), packed_len_bf16(cell, units), "the packed weight has its own size");
            p.as_ptr()
        }
        Weight::Packed(p) => {
            assert_eq!(p.len(), packed_len(cell, units), "the packed weight has its own size");
            p.as_ptr()
        }
        Weight::Plain(w) => {
            assert_eq!(w.shape, [wide, units], "a weight has a row for each gate of a unit");
            assert!(w.is_contiguous(), "a weight to be packed is dense");
            let to = own.room::<T>(packed_len(cell, units));
            // SAFETY: the weight is dense, and the scratch has room for all panels.
            unsafe { T::pack_gates(w.ptr(), [cell.gates(), units], units, to) };
            to.cast_const()
        }
    };
    let run = Run {
        s: *s,
        packed,
        bf16,
        gates: f.gates.ptr(),
        gate_strides: [f.gates.strides[0], f.gates.strides[1]],
        h0: f.h0.ptr(),
        c0: f.c0.map_or(std::ptr::null(), |c| c.ptr()),
        bias: f.bias.map_or(std::ptr::null(), |b| b.ptr()),
        y: f.y.ptr(),
        c: f.c.map_or(std::ptr::null_mut(), |c| c.ptr()),
        kept: f.kept.map_or(std::ptr::null_mut(), |k| k.ptr()),
    };
    let pieces = s.pieces();
    par::for_each(pieces, &|i| {
        let (first, end) = (rows * i / pieces, rows * (i + 1) / pieces);
        let mut sums = Scratch::default();
        let sums = sums.room::<T>((end - first).min(BLOCK_ROWS) * CHUNK);
        let mut rounded = Scratch::default();
        let rounded = match bf16 {
            true => rounded.room::<T>((end - first).min(BLOCK_ROWS) * units.div_ceil(2)),
            false => std::ptr::null_mut(),
        };
        // SAFETY: extents were checked; pieces write rows of their own.
        unsafe { run.rows(first, end, sums, rounded) };
    });
}

/// A sequence by its addresses.
struct Run<T> {
    s: Sequence,
    packed: *const T,
    bf16: bool,
    gates: *const T,
    gate_strides: [isize; 2],
    h0: *const T,
    c0: *const T,
    bias: *const T,
    y: *mut T,
    c: *mut T,
    kept: *mut T,
}

// SAFETY: threads write rows of their own and read what nobody writes.
unsafe impl<T> Sync for Run<T> {}

impl<T: Panels> Run<T> {
    /// All steps of some rows.
    ///
    /// # Safety
    /// The addresses are those of checked views; `sums` has room for a chunk of a block
    /// of the rows, and so has `rounded` for its states, if they are to be rounded.
    unsafe fn rows(&self, first: usize, end: usize, sums: *mut T, rounded: *mut T) {
        let Sequence { cell, rows, units, .. } = self.s;
        let n = columns(cell, units);
        for (t, before) in self.s.order() {
            for row in (first..end).step_by(BLOCK_ROWS) {
                let count = (end - row).min(BLOCK_ROWS);
                let at = (t * rows + row) * units;
                // SAFETY: rows of a step; a null address stays unused.
                unsafe {
                    let then = before.map(|b| (b * rows + row) * units);
                    let state = |start: *const T, all: *mut T| match then {
                        Some(at) => all.add(at).cast_const(),
                        None => start.wrapping_add(row * units),
                    };
                    let h = state(self.h0, self.y);
                    let (mut a, mut k) = (h, units);
                    if self.bf16 {
                        T::round_rows(h, count, units, rounded);
                        (a, k) = (rounded.cast_const(), units.div_ceil(2));
                    }
                    for col in (0..n).step_by(CHUNK) {
                        let cols = col..(col + CHUNK).min(n);
                        T::product(&Product {
                            rows: count,
                            k,
                            n,
                            a,
                            a_row: k,
                            packed: self.packed,
                            cols: cols.clone(),
                            out: sums,
                            ld: CHUNK,
                            accumulate: false,
                            pairs: self.bf16,
                        });
                        run_single(Step {
                            cell,
                            rows: count,
                            units,
                            first: col / cell.gates(),
                            groups: cols.len() / (LANES * cell.gates()),
                            sums,
                            gates: self.gates.offset(
                                t as isize * self.gate_strides[0]
                                    + row as isize * self.gate_strides[1],
                            ),
                            gates_row: self.gate_strides[1],
                            bias: self.bias,
                            h,
                            c: if self.c.is_null() { h } else { state(self.c0, self.c) },
                            y: self.y.add(at),
                            c_next: self.c.wrapping_add(at),
                            kept: match self.kept.is_null() {
                                true => self.kept,
                                false => self.kept.add(at * cell.kept()),
                            },
                        });
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
