//! Derivatives of recurrent sequences: a sweep from the last step to the first. The
//! weight's is a product over all steps, which somebody makes of what is found here.

use super::panels::{Panels, Product};
use super::{BLOCK_ROWS, Cell, Sequence};
use crate::par;
use crate::scratch::Scratch;
use crate::simd::row::{for_vectors, read, write};
use crate::simd::{LANES, Real, RealTask, RealVector, run_single};
use crate::view::{Dst, Src};

/// Operands and results of a sequence, and gradients of its results. All are dense.
pub struct Saved<'a, T> {
    /// The recurrent weight, `[gates * units, units]`.
    pub weight: Src<'a, T>,
    /// Of a GRU, the states before the first step; of an LSTM, the cells: `[rows, units]`.
    pub start: Option<Src<'a, T>>,
    /// Of an LSTM, its cells; of others, the result: `[steps, rows, units]`.
    pub states: Src<'a, T>,
    /// What was kept, `[steps, rows, kept * units]`.
    pub kept: Option<Src<'a, T>>,
    /// Gradient of the result, `[steps, rows, units]`.
    pub gy: Src<'a, T>,
    /// Of the cells.
    pub gc: Option<Src<'a, T>>,
    /// Of what was kept.
    pub gkept: Option<Src<'a, T>>,
}

/// What is computed; all of it is dense.
pub struct Wanted<'a, T> {
    /// Gradient of what the inputs contribute, `[steps, rows, gates * units]`.
    pub gates: Dst<'a, T>,
    /// Of a GRU, the gradient of what the states contribute.
    pub hidden: Option<Dst<'a, T>>,
    /// Gradient of the states before the first step, `[rows, units]`.
    pub h0: Dst<'a, T>,
    /// Of an LSTM, that of the cells.
    pub c0: Option<Dst<'a, T>>,
}

/// The derivative of [`super::forward`].
///
/// # Panics
/// If shapes do not fit, or something is not dense.
pub fn backward<T: Panels>(s: &Sequence, x: &Saved<T>, out: &Wanted<T>) {
    let &Sequence { cell, steps, rows, units, .. } = s;
    let (wide, lstm, gru) = (cell.gates() * units, cell == Cell::Lstm, cell == Cell::Gru);
    let dense = |v: &Src<T>, shape: &[usize]| {
        assert_eq!(v.shape, shape, "what belongs to a sequence has its shape");
        assert!(v.is_contiguous(), "what a derivative reads and writes is dense");
    };
    dense(&x.weight, &[wide, units]);
    dense(&x.states, &[steps, rows, units]);
    dense(&x.gy, &[steps, rows, units]);
    assert_eq!(x.start.is_some(), lstm || gru, "the start is that of gated cells");
    assert_eq!(x.kept.is_some(), cell.kept() > 0, "gated cells keep their gates");
    x.start.iter().for_each(|v| dense(v, &[rows, units]));
    x.gc.iter().for_each(|v| dense(v, &[steps, rows, units]));
    x.kept.iter().chain(&x.gkept).for_each(|v| dense(v, &[steps, rows, cell.kept() * units]));
    dense(&out.gates.as_src(), &[steps, rows, wide]);
    dense(&out.h0.as_src(), &[rows, units]);
    assert_eq!((out.hidden.is_some(), out.c0.is_some()), (gru, lstm), "results of the cell");
    out.hidden.iter().for_each(|v| dense(&v.as_src(), &[steps, rows, wide]));
    out.c0.iter().for_each(|v| dense(&v.as_src(), &[rows, units]));
    if rows == 0 || units == 0 {
        return;
    }
    let mut packed = Scratch::default();
    let to = packed.room::<T>(wide * units.next_multiple_of(LANES));
    // SAFETY: the weight is dense, and the scratch has room for its panels.
    unsafe { T::pack_plain(x.weight.ptr(), wide, units, to) };
    let read = |v: &Option<Src<T>>| v.map_or(std::ptr::null(), |v| v.ptr());
    let written = |v: &Option<Dst<T>>| v.map_or(std::ptr::null_mut(), |v| v.ptr());
    let run = Run {
        s: *s,
        packed: to,
        start: read(&x.start),
        states: x.states.ptr(),
        kept: read(&x.kept),
        gy: x.gy.ptr(),
        gc: read(&x.gc),
        gkept: read(&x.gkept),
        gates: out.gates.ptr(),
        hidden: written(&out.hidden),
        gh: out.h0.ptr(),
        gcell: written(&out.c0),
    };
    let pieces = s.pieces();
    par::for_each(pieces, &|i| {
        // SAFETY: extents were checked; pieces write rows of their own.
        unsafe { run.rows(rows * i / pieces, rows * (i + 1) / pieces) };
    });
}

struct Run<T> {
    s: Sequence,
    packed: *const T,
    start: *const T,
    states: *const T,
    kept: *const T,
    gy: *const T,
    gc: *const T,
    gkept: *const T,
    gates: *mut T,
    hidden: *mut T,
    /// What later steps say of the states and cells; at last, the gradients.
    gh: *mut T,
    gcell: *mut T,
}

// SAFETY: threads write rows of their own and read what nobody writes.
unsafe impl<T> Sync for Run<T> {}

impl<T: Panels> Run<T> {
    /// All steps of some rows.
    ///
    /// # Safety
    /// The addresses are those of checked views.
    unsafe fn rows(&self, first: usize, end: usize) {
        let Sequence { cell, rows, units, .. } = self.s;
        let wide = cell.gates() * units;
        // SAFETY: rows of the gradients of the start.
        unsafe {
            self.gh.add(first * units).write_bytes(0, (end - first) * units);
            if !self.gcell.is_null() {
                self.gcell.add(first * units).write_bytes(0, (end - first) * units);
            }
        }
        for (t, before) in self.s.order().rev() {
            for row in (first..end).step_by(BLOCK_ROWS) {
                let count = (end - row).min(BLOCK_ROWS);
                let at = t * rows + row;
                let of = |p: *const T, by: usize| if p.is_null() { p } else { p.wrapping_add(by) };
                let to = |p: *mut T, by: usize| if p.is_null() { p } else { p.wrapping_add(by) };
                let gates = to(self.gates, at * wide);
                let hidden = to(self.hidden, at * wide);
                run_single(Step {
                    cell,
                    rows: count,
                    units,
                    before: match before {
                        Some(b) => of(self.states, (b * rows + row) * units),
                        None => of(self.start, row * units),
                    },
                    state: of(self.states, at * units),
                    kept: of(self.kept, at * cell.kept() * units),
                    gy: of(self.gy, at * units),
                    gc: of(self.gc, at * units),
                    gkept: of(self.gkept, at * cell.kept() * units),
                    gates,
                    hidden,
                    gh: to(self.gh, row * units),
                    gcell: to(self.gcell, row * units),
                });
                // SAFETY: rows of a step and of the gradients of the start.
                unsafe {
                    T::product(&Product {
                        rows: count,
                        k: wide,
                        n: units,
                        a: if hidden.is_null() { gates } else { hidden },
                        a_row: wide,
                        packed: self.packed,
                        cols: 0..units,
                        out: self.gh.add(row * units),
                        ld: units,
                        accumulate: cell == Cell::Gru,
                        pairs: false,
                    });
                }
            }
        }
    }
}

/// A step of some rows, by the addresses of the first.
struct Step<T> {
    cell: Cell,
    rows: usize,
    units: usize,
    before: *const T,
    state: *const T,
    kept: *const T,
    gy: *const T,
    gc: *const T,
    gkept: *const T,
    gates: *mut T,
    hidden: *mut T,
    gh: *mut T,
    gcell: *mut T,
}

impl<T: Real> RealTask<T> for Step<T> {
    type Out = ();
    #[inline(always)]
    fn run<V: RealVector<Elem = T>>(self) {
        for row in 0..self.rows {
            for_vectors(
                self.units,
                #[inline(always)]
                |i, k| {
                    // SAFETY: the caller has checked all extents; `k` units exist.
                    unsafe {
                        match self.cell {
                            Cell::Lstm => self.lstm::<V>(row, i, k),
                            Cell::Gru => self.gru::<V>(row, i, k),
                            Cell::Tanh | Cell::Relu => self.plain::<V>(row, i, k),
                        }
                    }
                },
            );
        }
    }
}

impl<T: Real> Step<T> {
    /// Elements of a row of single units; zero where there is no such array.
    #[inline(always)]
    unsafe fn unit<V: RealVector<Elem = T>>(
        &self,
        p: *const T,
        row: usize,
        i: usize,
        k: usize,
    ) -> V {
        if p.is_null() {
            return V::splat(T::ZERO);
        }
        // SAFETY: the caller's contract.
        unsafe { read(p.add(row * self.units), i, k, T::ZERO) }
    }

    /// Elements of part `j` of a row of `of` parts.
    #[inline(always)]
    unsafe fn part<V: RealVector<Elem = T>>(
        &self,
        p: *const T,
        (j, of): (usize, usize),
        row: usize,
        i: usize,
        k: usize,
    ) -> V {
        if p.is_null() {
            return V::splat(T::ZERO);
        }
        // SAFETY: the caller's contract.
        unsafe { read(p.add((row * of + j) * self.units), i, k, T::ZERO) }
    }

    /// What was kept of a gate.
    #[inline(always)]
    unsafe fn gate<V: RealVector<Elem = T>>(&self, j: usize, at: (usize, usize, usize)) -> V {
        // SAFETY: the caller's contract.
        unsafe { self.part(self.kept, (j, 4), at.0, at.1, at.2) }
    }

    /// The gradient of what was kept of a gate.
    #[inline(always)]
    unsafe fn extra<V: RealVector<Elem = T>>(&self, j: usize, at: (usize, usize, usize)) -> V {
        // SAFETY: the caller's contract.
        unsafe { self.part(self.gkept, (j, 4), at.0, at.1, at.2) }
    }

    #[inline(always)]
    unsafe fn put<V: RealVector<Elem = T>>(
        &self,
        v: V,
        p: *mut T,
        (j, of): (usize, usize),
        row: usize,
        i: usize,
        k: usize,
    ) {
        // SAFETY: the caller's contract.
        unsafe { write(v, p.add((row * of + j) * self.units), i, k) };
    }

    #[inline(always)]
    unsafe fn lstm<V: RealVector<Elem = T>>(&self, row: usize, at: usize, k: usize) {
        // SAFETY: the caller's contract.
        unsafe {
            let one = V::splat(T::ONE);
            let part = (row, at, k);
            let (i, f, g, o) = (
                self.gate::<V>(0, part),
                self.gate::<V>(1, part),
                self.gate::<V>(2, part),
                self.gate::<V>(3, part),
            );
            let tc = self.unit::<V>(self.state, row, at, k).tanh();
            let before = self.unit::<V>(self.before, row, at, k);
            let gh = self.unit::<V>(self.gy, row, at, k).add(self.unit(self.gh, row, at, k));
            let gc = self.unit::<V>(self.gc, row, at, k).add(self.unit(self.gcell, row, at, k));
            let go = gh.fma(tc, self.extra(3, part));
            let gc = gh.mul(o).fma(one.sub(tc.mul(tc)), gc);
            let gi = gc.fma(g, self.extra(0, part));
            let gf = gc.fma(before, self.extra(1, part));
            let gg = gc.fma(i, self.extra(2, part));
            let p = self.gates;
            self.put(gi.mul(i).mul(one.sub(i)), p, (0, 4), row, at, k);
            self.put(gf.mul(f).mul(one.sub(f)), p, (1, 4), row, at, k);
            self.put(gg.mul(one.sub(g.mul(g))), p, (2, 4), row, at, k);
            self.put(go.mul(o).mul(one.sub(o)), p, (3, 4), row, at, k);
            self.put(gc.mul(f), self.gcell, (0, 1), row, at, k);
        }
    }

    #[inline(always)]
    unsafe fn gru<V: RealVector<Elem = T>>(&self, row: usize, at: usize, k: usize) {
        // SAFETY: the caller's contract.
        unsafe {
            let one = V::splat(T::ONE);
            let part = (row, at, k);
            let (r, z, n, q) = (
                self.gate::<V>(0, part),
                self.gate::<V>(1, part),
                self.gate::<V>(2, part),
                self.gate::<V>(3, part),
            );
            let before = self.unit::<V>(self.before, row, at, k);
            let gh = self.unit::<V>(self.gy, row, at, k).add(self.unit(self.gh, row, at, k));
            let gz = gh.fma(before.sub(n), self.extra(1, part));
            let gn = gh.fma(one.sub(z), self.extra(2, part)).mul(one.sub(n.mul(n)));
            let gq = gn.fma(r, self.extra(3, part));
            let gr = gn.fma(q, self.extra(0, part)).mul(r).mul(one.sub(r));
            let gz = gz.mul(z).mul(one.sub(z));
            let (p, hidden) = (self.gates, self.hidden);
            self.put(gr, p, (0, 3), row, at, k);
            self.put(gz, p, (1, 3), row, at, k);
            self.put(gn, p, (2, 3), row, at, k);
            self.put(gr, hidden, (0, 3), row, at, k);
            self.put(gz, hidden, (1, 3), row, at, k);
            self.put(gq, hidden, (2, 3), row, at, k);
            self.put(gh.mul(z), self.gh, (0, 1), row, at, k);
        }
    }

    #[inline(always)]
    unsafe fn plain<V: RealVector<Elem = T>>(&self, row: usize, at: usize, k: usize) {
        // SAFETY: the caller's contract.
        unsafe {
            let y = self.unit::<V>(self.state, row, at, k);
            let gh = self.unit::<V>(self.gy, row, at, k).add(self.unit(self.gh, row, at, k));
            let zero = V::splat(T::ZERO);
            let g = match self.cell {
                Cell::Relu => y.if_above(zero, gh, zero),
                _ => gh.mul(V::splat(T::ONE).sub(y.mul(y))),
            };
            self.put(g, self.gates, (0, 1), row, at, k);
        }
    }
}
