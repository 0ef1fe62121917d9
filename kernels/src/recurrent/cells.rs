//! What units make of their sums.

use super::{CHUNK, Cell};
use crate::simd::row::{read, write};
use crate::simd::unroll::unroll;
use crate::simd::{LANES, Real, RealTask, RealVector};

/// A step of some units of some rows.
pub(super) struct Step<T> {
    pub(super) cell: Cell,
    pub(super) rows: usize,
    /// All units.
    pub(super) units: usize,
    /// The first of the units.
    pub(super) first: usize,
    /// How many times sixteen they are; the last may not exist.
    pub(super) groups: usize,
    /// The products with the recurrent weight, sixteen units of each gate together, rows
    /// [`CHUNK`] apart.
    pub(super) sums: *const T,
    /// What the inputs contribute: all gates of the first row.
    pub(super) gates: *const T,
    pub(super) gates_row: isize,
    /// Null for none.
    pub(super) bias: *const T,
    /// States and cells before, and those to be written: of the first row.
    pub(super) h: *const T,
    pub(super) c: *const T,
    pub(super) y: *mut T,
    pub(super) c_next: *mut T,
    /// Null where nothing is kept.
    pub(super) kept: *mut T,
}

impl<T: Real> RealTask<T> for Step<T> {
    type Out = ();
    #[inline(always)]
    fn run<V: RealVector<Elem = T>>(self) {
        for row in 0..self.rows {
            for group in 0..self.groups {
                let unit = self.first + group * LANES;
                let k = (self.units - unit).min(LANES);
                // SAFETY: the caller has checked all extents; `k` units exist.
                unsafe {
                    match self.cell {
                        Cell::Lstm => self.lstm::<V>(row, group, unit, k),
                        Cell::Gru => self.gru::<V>(row, group, unit, k),
                        Cell::Tanh => {
                            let (a, x) = self.sum::<V>(row, group, unit, k, 0);
                            write(a.add(x).tanh(), self.y.add(row * self.units), unit, k);
                        }
                        Cell::Relu => {
                            let (a, x) = self.sum::<V>(row, group, unit, k, 0);
                            let y = a.add(x).max(V::splat(T::ZERO));
                            write(y, self.y.add(row * self.units), unit, k);
                        }
                    }
                }
            }
        }
    }
}

impl<T: Real> Step<T> {
    /// The product of a gate, and what the input contributes.
    #[inline(always)]
    unsafe fn sum<V: RealVector<Elem = T>>(
        &self,
        row: usize,
        group: usize,
        unit: usize,
        k: usize,
        gate: usize,
    ) -> (V, V) {
        // SAFETY: the caller's contract; sums have all sixteen columns.
        unsafe {
            let at = (group * self.cell.gates() + gate) * LANES;
            let sums = V::load(self.sums.add(row * CHUNK + at));
            let gates = self.gates.offset(row as isize * self.gates_row);
            (sums, read(gates, gate * self.units + unit, k, T::ZERO))
        }
    }

    #[inline(always)]
    unsafe fn keep<V: RealVector<Elem = T>>(&self, row: usize, unit: usize, k: usize, all: [V; 4]) {
        if self.kept.is_null() {
            return;
        }
        unroll!(for i in 0..4 {
            // SAFETY: the caller's contract.
            unsafe { write(all[i], self.kept.add((row * 4 + i) * self.units), unit, k) };
        });
    }

    #[inline(always)]
    unsafe fn lstm<V: RealVector<Elem = T>>(
        &self,
        row: usize,
        group: usize,
        unit: usize,
        k: usize,
    ) {
        // SAFETY: the caller's contract.
        unsafe {
            let (a, x) = self.sum::<V>(row, group, unit, k, 0);
            let i = a.add(x).sigmoid();
            let (a, x) = self.sum::<V>(row, group, unit, k, 1);
            let f = a.add(x).sigmoid();
            let (a, x) = self.sum::<V>(row, group, unit, k, 2);
            let g = a.add(x).tanh();
            let (a, x) = self.sum::<V>(row, group, unit, k, 3);
            let o = a.add(x).sigmoid();
            let c = read::<V>(self.c.add(row * self.units), unit, k, T::ZERO);
            let c = f.fma(c, i.mul(g));
            write(c, self.c_next.add(row * self.units), unit, k);
            write(o.mul(c.tanh()), self.y.add(row * self.units), unit, k);
            self.keep(row, unit, k, [i, f, g, o]);
        }
    }

    #[inline(always)]
    unsafe fn gru<V: RealVector<Elem = T>>(&self, row: usize, group: usize, unit: usize, k: usize) {
        // SAFETY: the caller's contract.
        unsafe {
            let (a, x) = self.sum::<V>(row, group, unit, k, 0);
            let r = a.add(x).sigmoid();
            let (a, x) = self.sum::<V>(row, group, unit, k, 1);
            let z = a.add(x).sigmoid();
            let (a, x) = self.sum::<V>(row, group, unit, k, 2);
            let q = if self.bias.is_null() { a } else { a.add(read(self.bias, unit, k, T::ZERO)) };
            let n = r.fma(q, x).tanh();
            let h = read::<V>(self.h.add(row * self.units), unit, k, T::ZERO);
            write(z.fma(h.sub(n), n), self.y.add(row * self.units), unit, k);
            self.keep(row, unit, k, [r, z, n, q]);
        }
    }
}
