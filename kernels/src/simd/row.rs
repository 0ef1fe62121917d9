//! Running over a row of numbers, sixteen at a time.

use super::unroll::{copies, unroll};
use super::{LANES, Number, Vector};
use crate::view::Element;
use std::mem::ManuallyDrop;

/// Calls `f(i, k)` for each vector of a row of `n`: elements `i..i + k`, `k`
/// being [`LANES`] for all but a ragged last one.
#[inline(always)]
pub(crate) fn for_vectors(n: usize, mut f: impl FnMut(usize, usize)) {
    let whole = n - n % LANES;
    let mut i = 0;
    while i < whole {
        f(i, LANES);
        i += LANES;
    }
    if i < n {
        f(i, n - i);
    }
}

/// Joins what `f(i, k)` gives for each vector of a row of `n`, as
/// [`for_vectors`] enumerates them; in a ragged vector, `f` fills the lanes from
/// `k` on with the identity of `join`. `S` results are computed at once.
///
/// The order is that of 64 lanes, element `i` going to lane `i % 64`; then lane
/// `j` joins lane `j + 32`, `j + 16`, and so on down to one.
#[inline(always)]
pub(crate) fn join_row<V: Vector, const S: usize>(
    n: usize,
    identity: V::Elem,
    join: impl Fn(V, V) -> V + Copy,
    f: impl FnMut(usize, usize) -> [V; S],
) -> [V::Elem; S] {
    let mut lanes = Lanes64::new(identity);
    lanes.row(n, join, f);
    lanes.finish(join)
}

/// Most elements that go through 64 lanes before the result joins others in pairs.
pub(crate) const BLOCK: usize = 4096;

/// [`join_row`] for sums over rows of any length: in blocks of [`BLOCK`], the
/// blocks in pairs.
#[inline(always)]
pub(crate) fn sum_row<V: Vector, const S: usize>(
    n: usize,
    mut f: impl FnMut(usize, usize) -> [V; S],
) -> [V::Elem; S] {
    let zero = V::Elem::ZERO;
    let plus = |mut a: [V::Elem; S], b: [V::Elem; S]| {
        for s in 0..S {
            a[s] = a[s].plus(b[s]);
        }
        a
    };
    // Not dropped where nothing was pushed: to ask takes longer than a short row.
    let mut total = ManuallyDrop::new(Pairwise::new());
    let mut start = 0;
    // One loop for short rows, too: what `f` does is in the program once.
    loop {
        let part = join_row(
            BLOCK.min(n - start),
            zero,
            V::add,
            #[inline(always)]
            |i, k| f(start + i, k),
        );
        if n <= BLOCK {
            return part;
        }
        total.push(part, plus);
        start += BLOCK;
        if start >= n {
            return ManuallyDrop::into_inner(total).finish(plus).unwrap_or([zero; S]);
        }
    }
}

/// `S` accumulators of 64 lanes, to take several rows one after another.
pub(crate) struct Lanes64<V, const S: usize>([[V; S]; 4]);

impl<V: Vector, const S: usize> Lanes64<V, S> {
    #[inline(always)]
    pub(crate) fn new(identity: V::Elem) -> Self {
        Lanes64(copies(copies(V::splat(identity))))
    }

    /// Goes on with lanes that were stored.
    ///
    /// # Safety
    /// There are `64 * S` numbers to read.
    #[inline(always)]
    pub(crate) unsafe fn load(p: *const V::Elem) -> Self {
        // SAFETY: the caller's contract.
        let at = |q, s| unsafe { V::load(p.add((q * S + s) * LANES)) };
        Lanes64(std::array::from_fn(
            #[inline(always)]
            |q| {
                std::array::from_fn(
                    #[inline(always)]
                    |s| at(q, s),
                )
            },
        ))
    }

    /// Stores all lanes.
    ///
    /// # Safety
    /// There is room for `64 * S` numbers.
    #[inline(always)]
    pub(crate) unsafe fn store(self, p: *mut V::Elem) {
        for q in 0..4 {
            for s in 0..S {
                // SAFETY: the caller's contract.
                unsafe { self.0[q][s].store(p.add((q * S + s) * LANES)) };
            }
        }
    }

    /// Joins a row: its element `i` to lane `i % 64`.
    #[inline(always)]
    pub(crate) fn row(
        &mut self,
        n: usize,
        join: impl Fn(V, V) -> V,
        mut f: impl FnMut(usize, usize) -> [V; S],
    ) {
        let mut acc = self.0;
        let whole = n - n % (4 * LANES);
        let mut i = 0;
        while i < whole {
            unroll!(for q in 0..4 {
                let v = f(i + q * LANES, LANES);
                unroll!(for s in 0..S {
                    acc[q][s] = join(acc[q][s], v[s]);
                });
            });
            i += 4 * LANES;
        }
        unroll!(for q in 0..4 {
            let at = i + q * LANES;
            if at < n {
                let v = f(at, LANES.min(n - at));
                unroll!(for s in 0..S {
                    acc[q][s] = join(acc[q][s], v[s]);
                });
            }
        });
        self.0 = acc;
    }

    /// One number from the 64 lanes.
    #[inline(always)]
    pub(crate) fn finish(self, join: impl Fn(V, V) -> V + Copy) -> [V::Elem; S] {
        let [a, b, c, d] = self.0;
        let mut out: [V::Elem; S] = copies(a[0].first());
        unroll!(for s in 0..S {
            out[s] = join(join(a[s], c[s]), join(b[s], d[s])).fold(join);
        });
        out
    }
}

/// Elements `i..i + k` of a row at `p`, the lanes from `k` on being `rest`.
///
/// # Safety
/// They are there to read, and `k` is at most [`LANES`].
#[inline(always)]
pub(crate) unsafe fn read<V: Vector>(p: *const V::Elem, i: usize, k: usize, rest: V::Elem) -> V {
    // SAFETY: as the caller vouches.
    unsafe { if k == LANES { V::load(p.add(i)) } else { V::load_part(p.add(i), k, rest) } }
}

/// Writes elements `i..i + k` of a row at `p`.
///
/// # Safety
/// There is room for them, and `k` is at most [`LANES`].
#[inline(always)]
pub(crate) unsafe fn write<V: Vector>(v: V, p: *mut V::Elem, i: usize, k: usize) {
    // SAFETY: as the caller vouches.
    unsafe { if k == LANES { v.store(p.add(i)) } else { v.store_part(p.add(i), k) } }
}

/// Partial results joined in pairs, like the carries of a binary counter: the
/// tree depends on how many there are and nothing else, and a run of `2^k`
/// aligned results forms a subtree of its own.
pub(crate) struct Pairwise<A> {
    /// The latest result, of `count` in all. The first needs no memory.
    last: Option<A>,
    waiting: Vec<A>,
    count: usize,
}

impl<A> Pairwise<A> {
    #[inline(always)]
    pub(crate) fn new() -> Self {
        Pairwise { last: None, waiting: Vec::new(), count: 0 }
    }

    /// Adds the next result.
    #[inline(always)]
    pub(crate) fn push(&mut self, mut a: A, join: impl Fn(A, A) -> A) {
        self.waiting.extend(self.last.take());
        self.count += 1;
        let mut c = self.count;
        while c.is_multiple_of(2) {
            let before = self.waiting.pop().expect("an even count has a partner waiting");
            a = join(before, a);
            c /= 2;
        }
        self.last = Some(a);
    }

    /// The total, or `None` when nothing was pushed.
    #[inline(always)]
    pub(crate) fn finish(mut self, join: impl Fn(A, A) -> A) -> Option<A> {
        let mut a = self.last?;
        while let Some(before) = self.waiting.pop() {
            a = join(before, a);
        }
        Some(a)
    }
}
