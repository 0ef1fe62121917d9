//! The derivative of attention by queries, keys and values.
//!
//! Nothing is kept from the forward pass: some rows of scores at a time are made
//! again (Dao et al., "FlashAttention", 2022), as whole rows, so that their softmax and
//! the sum that its derivative needs are there without a second look at the keys. With
//! `P` the weights, `D = gy vᵀ` and `S = P (D - Σ P D)`:
//!
//! * `gq = scale S k`,
//! * `gk = Sᵀ scale q`,
//! * `gv = Pᵀ gy`.
//!
//! How many rows are taken at a time depends on the number of keys alone. A matrix
//! behind leading dimensions is the work of one thread: sums over queries are added up
//! in one order whatever the number of threads.

use super::*;

/// Floats of the weights that are made at a time, and again of their derivative, about:
/// 256 KiB.
const WEIGHTS: usize = 64 << 10;

/// The derivatives `[gq, gk, gv]` of [`attention`], from `gy`, that by its result.
///
/// # Panics
/// If the shapes are not those of [`attention`] and its operands.
pub fn attention_grad([q, k, v, gy]: [Src<f32>; 4], scores: &Scores, [gq, gk, gv]: [Dst<f32>; 3]) {
    let r = q.shape.len();
    assert!(
        r >= 2 && [k.shape.len(), v.shape.len(), gy.shape.len()] == [r; 3],
        "attention has matrices"
    );
    let [(t, e), (s, ke), (vs, f), (gt, gf)] =
        [q.shape, k.shape, v.shape, gy.shape].map(|x| (x[r - 2], x[r - 1]));
    let lead = &q.shape[..r - 2];
    assert!((ke, vs, gt, gf) == (e, s, t, f), "shapes of queries, keys and values must fit");
    assert!(
        [k.shape, v.shape, gy.shape].iter().all(|x| &x[..r - 2] == lead),
        "leading dimensions of attention must be the same"
    );
    assert!(
        [gq.shape, gk.shape, gv.shape] == [q.shape, k.shape, v.shape],
        "derivatives have the shapes of what they are by"
    );
    if let Some(m) = scores.mask {
        assert!(
            &m.shape[..r - 2] == lead && m.shape[r - 2..] == [t, s],
            "a mask has scores' shape"
        );
    }
    for (i, out) in [gq, gk, gv].into_iter().enumerate() {
        if out.strides[r - 1] != 1 && out.shape[r - 1] > 1 {
            let dense = Dense::new::<f32>(out.shape);
            let mut outs = [gq, gk, gv];
            outs[i] = dense.dst();
            attention_grad([q, k, v, gy], scores, outs);
            return copy(dense.src::<f32>(), out);
        }
    }
    if t == 0 || s == 0 {
        return [gq, gk, gv].into_iter().for_each(|out| fill(out, 0.0));
    }
    let read = |x: Src<f32>| x.ptr().cast_mut();
    let all = All {
        lead,
        sizes: [t, s, e, f],
        q: Matrix::of(read(q), q.strides),
        k: Matrix::of(read(k), k.strides),
        v: Matrix::of(read(v), v.strides),
        gy: Matrix::of(read(gy), gy.strides),
        mask: scores.mask.map(|m| Matrix::of(read(m), m.strides)),
        gq: Matrix::of(gq.ptr(), gq.strides),
        gk: Matrix::of(gk.ptr(), gk.strides),
        gv: Matrix::of(gv.ptr(), gv.strides),
        scale: scores.scale,
        causal: scores.causal,
    };
    let items: usize = lead.iter().product();
    let work = items.saturating_mul(t).saturating_mul(s).saturating_mul(3 * e + 2 * f);
    // SAFETY: the views were checked at construction and their shapes just now; items
    // write matrices of their own.
    let run = |item: usize| unsafe { all.item(item) };
    if par::threads() > 1 && items > 1 && work >= 2 * JOB {
        par::for_each(items, &run);
    } else {
        (0..items).for_each(run);
    }
}

/// The derivative, checked.
struct All<'a> {
    lead: &'a [usize],
    /// Queries, keys, features of both, features of values.
    sizes: [usize; 4],
    q: Matrix<'a>,
    k: Matrix<'a>,
    v: Matrix<'a>,
    gy: Matrix<'a>,
    mask: Option<Matrix<'a>>,
    gq: Matrix<'a>,
    gk: Matrix<'a>,
    gv: Matrix<'a>,
    scale: f32,
    causal: bool,
}

// SAFETY: items write matrices of their own and only read the rest.
unsafe impl Sync for All<'_> {}

/// Memory of an item, each part beginning with a cache line.
struct Room {
    /// Rows of queries, scaled, and of the result's derivative.
    q: *mut f32,
    gy: *mut f32,
    /// The same as right operands.
    packed_q: *mut f32,
    packed_gy: *mut f32,
    /// Weights, then `D`, then `S`: rows `ld` apart.
    weights: *mut f32,
    grads: *mut f32,
    ld: usize,
    mask: *mut f32,
    /// `kᵀ`, `vᵀ` and `k` as right operands.
    kt: *mut f32,
    vt: *mut f32,
    k: *mut f32,
    largest: *mut f32,
    sum: *mut f32,
}

/// The left operand of a product.
#[derive(Clone, Copy)]
struct Left {
    rows: usize,
    k: usize,
    at: *const f32,
    row: isize,
    step: isize,
}

/// Packs `k` rows of `n` columns as a right operand.
///
/// # Safety
/// They are readable, and there is room for whole panels.
unsafe fn pack(from: *const f32, strides: (isize, isize), (k, n): (usize, usize), to: *mut f32) {
    // Memory of nothing may be anywhere.
    let n = if k == 0 { 0 } else { n };
    for col in (0..n).step_by(NR) {
        let size = (k, (n - col).min(NR), panel_width(n, col));
        // SAFETY: the caller's contract.
        unsafe {
            pack_panel(from.offset(col as isize * strides.1), strides, size, to.add(col * k))
        };
    }
}

/// A right operand of `k` rows and `n` columns, as [`pack`] wrote it.
#[derive(Clone, Copy)]
struct Right {
    at: *const f32,
    k: usize,
    n: usize,
}

/// `c = a b`, or `c += a b`, for the first columns of a right operand, and as many of its
/// rows as the left one has columns.
///
/// # Safety
/// Operands are readable and `c` is writable.
unsafe fn product(a: Left, b: Right, cols: usize, c: *mut f32, ldc: isize, add: bool) {
    let kernel = Kernel::active();
    for (at, rows) in row_tiles(a.rows, MR) {
        for col in (0..cols).step_by(NR) {
            // SAFETY: the caller's contract.
            unsafe {
                let t = Micro {
                    rows,
                    cols: (cols - col).min(NR),
                    k: a.k,
                    a: a.at.offset(at as isize * a.row),
                    a_row: a.row,
                    a_k: a.step,
                    b: b.at.add(col * b.k),
                    b_k: panel_width(b.n, col) as isize,
                    c: c.offset(at as isize * ldc).add(col),
                    ldc,
                    load_c: add,
                    ..Micro::NONE
                };
                kernel.tile(Rows::Panels, &t);
            }
        }
    }
}

impl All<'_> {
    /// Computes one item.
    ///
    /// # Safety
    /// Operands are readable and the item's derivatives writable.
    unsafe fn item(&self, item: usize) {
        let mut index: SmallVec<[usize; 4]> = SmallVec::from_elem(0, self.lead.len());
        let mut rest = item;
        for (i, &n) in index.iter_mut().zip(self.lead).rev() {
            (*i, rest) = (rest % n, rest / n);
        }
        let [t, s, e, f] = self.sizes;
        let ld = s.next_multiple_of(LANES) + LANES;
        let block = (WEIGHTS / ld).clamp(2 * MR, QUERIES).min(t);
        let wide = |n: usize| n.next_multiple_of(LANES);
        let stretches = [
            block * e,
            block * f,
            block * wide(e),
            block * wide(f),
            block * ld,
            block * ld,
            if self.mask.is_some() { ld } else { 0 },
            wide(s) * e,
            wide(s) * f,
            s * wide(e),
            MR,
            MR,
        ]
        .map(|n| n.next_multiple_of(LANES));
        let scratch = Scratch::new(stretches.iter().sum());
        let mut next = scratch.ptr();
        let [q, gy, packed_q, packed_gy, weights, grads, mask, kt, vt, k, largest, sum] = stretches
            .map(|n| {
                let this = next;
                next = next.wrapping_add(n);
                this
            });
        let room =
            Room { q, gy, packed_q, packed_gy, weights, grads, ld, mask, kt, vt, k, largest, sum };
        let (from_k, from_v) = (self.k.at(&index, 0, 0), self.v.at(&index, 0, 0));
        // SAFETY: the stretches are large enough for what they are named after;
        // everything else lies within the caller's operands.
        unsafe {
            pack(from_k, (self.k.col, self.k.row), (e, s), kt);
            pack(from_v, (self.v.col, self.v.row), (f, s), vt);
            pack(from_k, (self.k.row, self.k.col), (s, e), k);
            // The last queries see the most keys: what they contribute is written, what
            // the others do is added.
            let blocks = t.div_ceil(block);
            for b in (0..blocks).rev() {
                let rows = t * b / blocks..t * (b + 1) / blocks;
                self.block(&index, rows, &room, b + 1 < blocks);
            }
            // Keys that no query sees.
            let seen = if self.causal { s.min(t) } else { s };
            for j in seen..s {
                self.gk.at(&index, j, 0).write_bytes(0, e);
                self.gv.at(&index, j, 0).write_bytes(0, f);
            }
        }
    }

    /// Takes some queries into account.
    ///
    /// # Safety
    /// As [`All::item`].
    unsafe fn block(&self, index: &[usize], rows: Range<usize>, room: &Room, add: bool) {
        let [_, s, e, f] = self.sizes;
        let (count, ld) = (rows.len(), room.ld);
        let end = if self.causal { s.min(rows.end) } else { s };
        // SAFETY: rows of the room and of the operands.
        unsafe {
            for (m, n, by, to) in [(&self.q, e, self.scale, room.q), (&self.gy, f, 1.0, room.gy)] {
                let from = m.at(index, rows.start, 0).cast_const();
                let count = if n == 0 { 0 } else { count };
                simd::run_real(Scaled { rows: count, n, by, from, strides: [m.row, m.col], to });
            }
            pack(room.q, (e as isize, 1), (count, e), room.packed_q);
            pack(room.gy, (f as isize, 1), (count, f), room.packed_gy);
            for (at, tile) in row_tiles(count, MR) {
                let first = rows.start + at;
                let n = if self.causal { end.min(first + tile) } else { end };
                let (weights, grads) = (room.weights.add(at * ld), room.grads.add(at * ld));
                let left = |from: *mut f32, k: usize| Left {
                    rows: tile,
                    k,
                    at: from.add(at * k),
                    row: k as isize,
                    step: 1,
                };
                let keys = |at: *mut f32, k: usize| Right { at, k, n: s };
                product(left(room.q, e), keys(room.kt, e), n, weights, ld as isize, false);
                product(left(room.gy, f), keys(room.vt, f), n, grads, ld as isize, false);
                let mask = self.mask.as_ref().map(|m| (m.at(index, first, 0), m.row, m.col));
                simd::run_real(Softmax {
                    rows: first..first + tile,
                    n,
                    scores: weights,
                    ld,
                    mask,
                    mask_row: room.mask,
                    causal: self.causal.then_some(0),
                    first: true,
                    largest: room.largest,
                    sum: room.sum,
                    f: 0,
                    out: std::ptr::null_mut(),
                    out_ld: 0,
                });
                simd::run_real(Slopes {
                    rows: first..first + tile,
                    end,
                    causal: self.causal,
                    weights,
                    grads,
                    ld,
                    sum: room.sum,
                });
                let a = Left { rows: tile, k: n, at: grads, row: ld as isize, step: 1 };
                let gq = self.gq.at(index, first, 0);
                product(a, Right { at: room.k, k: s, n: e }, e, gq, self.gq.row, false);
                simd::run_real(Times { rows: tile, n: e, by: self.scale, at: gq, ld: self.gq.row });
            }
            let turned = |at: *mut f32| Left { rows: end, k: count, at, row: 1, step: ld as isize };
            let right = |at: *mut f32, n: usize| Right { at, k: count, n };
            let (gk, gv) = (self.gk.at(index, 0, 0), self.gv.at(index, 0, 0));
            product(turned(room.grads), right(room.packed_q, e), e, gk, self.gk.row, add);
            product(turned(room.weights), right(room.packed_gy, f), f, gv, self.gv.row, add);
        }
    }
}

/// Divides weights by their sums, and turns `D` into `S`.
struct Slopes {
    rows: Range<usize>,
    /// Keys that the block sees.
    end: usize,
    causal: bool,
    weights: *mut f32,
    grads: *mut f32,
    ld: usize,
    sum: *const f32,
}

impl RealTask<f32> for Slopes {
    type Out = ();

    #[inline(always)]
    fn run<V: RealVector<Elem = f32>>(self) {
        for r in 0..self.rows.len() {
            let n = if self.causal { self.end.min(self.rows.start + r + 1) } else { self.end };
            // SAFETY: the maker vouches for the rows.
            unsafe {
                let (w, g) = (self.weights.add(r * self.ld), self.grads.add(r * self.ld));
                let by = V::splat(1.0 / *self.sum.add(r));
                let [sum] = join_row::<V, 1>(
                    n,
                    0.0,
                    V::add,
                    #[inline(always)]
                    |i, k| {
                        let p = read::<V>(w, i, k, 0.0).mul(by);
                        write(p, w, i, k);
                        [p.mul(read(g, i, k, 0.0))]
                    },
                );
                let sum = V::splat(sum);
                for_vectors(
                    n,
                    #[inline(always)]
                    |i, k| {
                        let d = read::<V>(g, i, k, 0.0).sub(sum);
                        write(read::<V>(w, i, k, 0.0).mul(d), g, i, k);
                    },
                );
                for x in [w, g] {
                    x.add(n).write_bytes(0, self.end - n);
                }
            }
        }
    }
}

/// Multiplies rows by a number.
struct Times {
    rows: usize,
    n: usize,
    by: f32,
    at: *mut f32,
    ld: isize,
}

impl RealTask<f32> for Times {
    type Out = ();

    #[inline(always)]
    fn run<V: RealVector<Elem = f32>>(self) {
        for r in 0..if self.n == 0 { 0 } else { self.rows } {
            // SAFETY: the maker vouches for the rows.
            unsafe { scale::<V>(self.n, self.by, self.at.offset(r as isize * self.ld)) };
        }
    }
}

#[cfg(test)]
mod tests;
