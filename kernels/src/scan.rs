//! Running results along an axis: sums, products, extremes.
//!
//! A running sum is a chain of dependent additions, so several chains run side by
//! side: neighbouring lines, or the blocks of a long line, which are first reduced
//! and then scanned from where the blocks before them end.
//!
//! A kernel that takes an axis wants at least one dimension; a single number is a
//! line of one.

use crate::lines::{Lines, Rows};
use crate::par;
use crate::scratch::Scratch;
use crate::simd::{Number, Real};
use crate::view::{Dst, Element, Raw, Src};
use std::ops::Range;

/// Cost of an element in tenths of a nanosecond.
const COST: usize = 4;
/// Chains that run side by side.
const CHAINS: usize = 8;
/// Length up to which a line is one chain, whatever its neighbours.
const LONG: usize = 16384;
/// Elements of a block of a longer line: an odd number of cache lines, so that the
/// same element of all blocks does not fall into one set of the cache.
const BLOCK: usize = 4080;

/// A number with the type in which its running sums are kept: `f64` for `f32`, as in
/// PyTorch, else its own.
pub trait Running: Number + ScanKernels {
    /// That type.
    type Sum: Number;
    /// The number, exactly.
    fn widen(self) -> Self::Sum;
    /// The nearest number.
    fn narrow(sum: Self::Sum) -> Self;
}

macro_rules! running {
    ($($t:ty => $sum:ty),*) => {$(
        impl Running for $t {
            type Sum = $sum;
            #[inline(always)]
            fn widen(self) -> $sum {
                self as $sum
            }
            #[inline(always)]
            fn narrow(sum: $sum) -> $t {
                sum as $t
            }
        }
    )*};
}
running!(f32 => f64, f64 => f64, i64 => i64, i32 => i32, u8 => u8);
crate::instances::instances!(ScanKernels for f32, f64, i64, i32, u8 => {
    fn cumsum_kernel(x: Src<Self>, axis: usize, out: Dst<Self>) = cumsum_of;
    fn cumprod_kernel(x: Src<Self>, axis: usize, out: Dst<Self>) = cumprod_of;
});

/// `out[i] = x[0] + … + x[i]` along `axis`. Integers wrap. `out` may be `x`.
///
/// # Panics
/// If the shapes differ or there is no such axis.
pub fn cumsum<T: Running>(x: Src<T>, axis: usize, out: Dst<T>) {
    T::cumsum_kernel(x, axis, out)
}

fn cumsum_of<T: Running>(x: Src<T>, axis: usize, out: Dst<T>) {
    scan::<T, Sums>(x, axis, out, None);
}

/// `out[i] = x[0] * … * x[i]` along `axis`. Integers wrap. `out` may be `x`.
///
/// # Panics
/// As [`cumsum`].
pub fn cumprod<T: Running>(x: Src<T>, axis: usize, out: Dst<T>) {
    T::cumprod_kernel(x, axis, out)
}

fn cumprod_of<T: Running>(x: Src<T>, axis: usize, out: Dst<T>) {
    scan::<T, Products>(x, axis, out, None);
}

/// `out[i] = max(x[0], …, x[i])` along `axis`, and where it is: the last of equals.
/// From the first NaN on, the result is NaN and the place that of the latest NaN.
/// `out` may be `x`.
///
/// # Panics
/// As [`cumsum`].
pub fn cummax<T: Number>(x: Src<T>, axis: usize, out: Dst<T>, index: Dst<i64>) {
    scan::<T, Extremes<true>>(x, axis, out, Some(index));
}

/// `out[i] = min(x[0], …, x[i])` along `axis`, and where it is, as for [`cummax`].
///
/// # Panics
/// As [`cumsum`].
pub fn cummin<T: Number>(x: Src<T>, axis: usize, out: Dst<T>, index: Dst<i64>) {
    scan::<T, Extremes<false>>(x, axis, out, Some(index));
}

/// `out[i] = ln(e^x[0] + … + e^x[i])` along `axis`, computed in `f64`. `out` may be `x`.
///
/// # Panics
/// As [`cumsum`].
pub fn logcumsumexp<T: Real>(x: Src<T>, axis: usize, out: Dst<T>) {
    scan::<T, LogSums>(x, axis, out, None);
}

/// An associative operation that runs along a line.
trait Scan<T>: 'static {
    type State: Copy + Send + Sync;
    /// The state before the first element.
    fn start() -> Self::State;
    /// The state after `x`, the element at `i`.
    fn step(s: Self::State, x: T, i: usize) -> Self::State;
    /// The state after what `s` has seen and then what `later` has.
    fn join(s: Self::State, later: Self::State) -> Self::State;
    /// The result.
    fn value(s: Self::State) -> T;
    /// Where it was found, for an operation that finds.
    fn place(_: Self::State) -> i64 {
        0
    }
}

struct Sums;

impl<T: Running> Scan<T> for Sums {
    type State = T::Sum;
    #[inline(always)]
    fn start() -> T::Sum {
        T::Sum::ZERO
    }
    #[inline(always)]
    fn step(s: T::Sum, x: T, _: usize) -> T::Sum {
        s.plus(x.widen())
    }
    #[inline(always)]
    fn join(s: T::Sum, later: T::Sum) -> T::Sum {
        s.plus(later)
    }
    #[inline(always)]
    fn value(s: T::Sum) -> T {
        T::narrow(s)
    }
}

struct Products;

impl<T: Running> Scan<T> for Products {
    type State = T::Sum;
    #[inline(always)]
    fn start() -> T::Sum {
        T::Sum::ONE
    }
    #[inline(always)]
    fn step(s: T::Sum, x: T, _: usize) -> T::Sum {
        s.times(x.widen())
    }
    #[inline(always)]
    fn join(s: T::Sum, later: T::Sum) -> T::Sum {
        s.times(later)
    }
    #[inline(always)]
    fn value(s: T::Sum) -> T {
        T::narrow(s)
    }
}

/// The largest (or smallest) so far.
struct Extremes<const LARGEST: bool>;

impl<const LARGEST: bool> Extremes<LARGEST> {
    #[inline(always)]
    fn later<T: Number>(s: (T, i64), v: (T, i64)) -> (T, i64) {
        let (x, best) = (v.0, s.0);
        let behind = if LARGEST { x.less(best) } else { best.less(x) };
        if x.is_nan() | (!best.is_nan() & !behind) { v } else { s }
    }
}

impl<T: Number, const LARGEST: bool> Scan<T> for Extremes<LARGEST> {
    type State = (T, i64);
    #[inline(always)]
    fn start() -> (T, i64) {
        (if LARGEST { T::LOWEST } else { T::HIGHEST }, 0)
    }
    #[inline(always)]
    fn step(s: (T, i64), x: T, i: usize) -> (T, i64) {
        Self::later(s, (x, i as i64))
    }
    #[inline(always)]
    fn join(s: (T, i64), later: (T, i64)) -> (T, i64) {
        Self::later(s, later)
    }
    #[inline(always)]
    fn value(s: (T, i64)) -> T {
        s.0
    }
    #[inline(always)]
    fn place(s: (T, i64)) -> i64 {
        s.1
    }
}

struct LogSums;

impl<T: Real> Scan<T> for LogSums {
    type State = f64;
    fn start() -> f64 {
        f64::NEG_INFINITY
    }
    fn step(s: f64, x: T, _: usize) -> f64 {
        <LogSums as Scan<T>>::join(s, x.f64())
    }
    fn join(s: f64, later: f64) -> f64 {
        let (high, low) = if s < later { (later, s) } else { (s, later) };
        if high == low && high.is_infinite() {
            return high;
        }
        high + (low - high).exp().ln_1p()
    }
    fn value(s: f64) -> T {
        T::of(s)
    }
}

/// Chains side by side, each `n` elements that begin with the `from`-th of a line.
struct Chains<T, const C: usize> {
    x: [*const T; C],
    out: [*mut T; C],
    place: Option<[*mut i64; C]>,
    from: [usize; C],
    n: usize,
}

impl<T: Number, const C: usize> Chains<T, C> {
    /// Runs the chains on from `state`, writing every result if `WRITE`.
    ///
    /// # Safety
    /// The elements are there to read and, if `WRITE`, to write.
    #[inline(always)]
    unsafe fn run<S: Scan<T>, const WRITE: bool>(&self, state: &mut [S::State; C]) {
        let mut s = *state;
        for i in 0..self.n {
            for c in 0..C {
                // SAFETY: as the caller vouches.
                unsafe {
                    s[c] = S::step(s[c], *self.x[c].add(i), self.from[c] + i);
                    if WRITE {
                        *self.out[c].add(i) = S::value(s[c]);
                        if let Some(place) = &self.place {
                            *place[c].add(i) = S::place(s[c]);
                        }
                    }
                }
            }
        }
        *state = s;
    }
}

/// A line to scan.
#[derive(Clone, Copy)]
struct Line<T> {
    x: *const T,
    out: *mut T,
    place: Option<*mut i64>,
}

// SAFETY: threads that share a line work on different blocks of it.
unsafe impl<T: Send> Send for Line<T> {}
// SAFETY: as above.
unsafe impl<T: Sync> Sync for Line<T> {}

impl<T: Number> Line<T> {
    /// `C` pieces of `n` elements, the `c`-th of `lines[c]` and from `from[c]` on.
    ///
    /// # Safety
    /// They are there.
    unsafe fn chains<const C: usize>(
        lines: [Line<T>; C],
        from: [usize; C],
        n: usize,
    ) -> Chains<T, C> {
        // SAFETY: as the caller vouches.
        unsafe {
            Chains {
                x: std::array::from_fn(|c| lines[c].x.add(from[c])),
                out: std::array::from_fn(|c| lines[c].out.add(from[c])),
                place: lines[0].place.map(|_| {
                    std::array::from_fn(|c| match lines[c].place {
                        Some(p) => p.add(from[c]),
                        None => std::ptr::null_mut(),
                    })
                }),
                from,
                n,
            }
        }
    }

    /// Scans a line of more than [`LONG`] elements.
    ///
    /// # Safety
    /// It has `n` elements.
    unsafe fn scan_blocks<S: Scan<T>>(self, n: usize) {
        let whole = n / BLOCK;
        let grain = (par::SHARE_NS * 10).div_ceil(BLOCK * CHAINS * COST);
        let states = |blocks: Range<usize>, write: bool, before: &[S::State]| {
            let mut states: Vec<S::State> = match before {
                [] => vec![S::start(); blocks.len()],
                _ => before[blocks.clone()].to_vec(),
            };
            let mut at = blocks.start;
            let (eight, rest) = states.as_chunks_mut::<CHAINS>();
            // SAFETY: whole blocks lie within the line.
            unsafe {
                for s in eight {
                    let from = std::array::from_fn(|c| (at + c) * BLOCK);
                    let chains = Line::chains([self; CHAINS], from, BLOCK);
                    match write {
                        true => chains.run::<S, true>(s),
                        false => chains.run::<S, false>(s),
                    }
                    at += CHAINS;
                }
                for s in rest {
                    let chains = Line::chains([self], [at * BLOCK], BLOCK);
                    match write {
                        true => chains.run::<S, true>(std::array::from_mut(s)),
                        false => chains.run::<S, false>(std::array::from_mut(s)),
                    }
                    at += 1;
                }
            }
            states
        };
        let parts = par::map_blocks(whole, grain * CHAINS, true, |b| states(b, false, &[]));
        let mut state = S::start();
        let mut before = Vec::with_capacity(whole);
        for part in parts.into_iter().flatten() {
            before.push(state);
            state = S::join(state, part);
        }
        par::map_blocks(whole, grain * CHAINS, true, |b| {
            states(b, true, &before);
        });
        // SAFETY: what is left of the line.
        unsafe {
            Line::chains([self], [whole * BLOCK], n - whole * BLOCK).run::<S, true>(&mut [state]);
        }
    }
}

fn scan<T: Number, S: Scan<T>>(x: Src<T>, axis: usize, out: Dst<T>, place: Option<Dst<i64>>) {
    scan_lines(x.raw(), axis, out.raw(), place, scan_group::<T, S>);
}

/// Lines side by side, `n` elements each, of a type that the kernel knows.
struct LineGroup {
    n: usize,
    lines: usize,
    x: Rows<*const u8>,
    out: Rows<*mut u8>,
    place: Option<Rows<*mut i64>>,
}

/// `f` scans a group of lines of the operands' type.
fn scan_lines(x: Raw, axis: usize, out: Raw, place: Option<Dst<i64>>, f: unsafe fn(LineGroup)) {
    assert_eq!(x.shape, out.shape, "the output has the input's shape");
    place.iter().for_each(|p| assert_eq!(p.shape, x.shape, "places have the input's shape"));
    let (n, size) = (x.shape[axis], x.size);
    let strides = [x.strides, out.strides, place.map_or(out.strides, |p| p.strides)];
    let lines = Lines::new(x.shape, axis, strides, [true, true, place.is_some()]);
    lines.for_groups(n * COST, |g, rooms: &mut [Scratch; 3]| {
        // SAFETY: lines lie within the views.
        unsafe {
            let from = g.read_raw(0, x.ptr(), size, n, &mut rooms[0]);
            let to = g.room_raw(1, out.ptr(), size, n, &mut rooms[1]);
            let places = place.map(|p| g.room(2, p.ptr(), n, &mut rooms[2]));
            f(LineGroup { n, lines: g.lines, x: from, out: to, place: places });
            g.put_raw(1, out.ptr(), size, n, to);
            if let (Some(p), Some(rows)) = (place, places) {
                g.put(2, p.ptr(), n, rows);
            }
        }
    });
}

/// # Safety
/// The lines are there, of type `T`.
unsafe fn scan_group<T: Number, S: Scan<T>>(g: LineGroup) {
    // SAFETY: as the caller vouches.
    unsafe {
        let line = |l: usize| Line::<T> {
            x: g.x.row(l).cast(),
            out: g.out.row(l).cast(),
            place: g.place.map(|p| p.row(l)),
        };
        if g.n > LONG {
            return (0..g.lines).for_each(|l| line(l).scan_blocks::<S>(g.n));
        }
        let together = g.lines - g.lines % CHAINS;
        for l in (0..together).step_by(CHAINS) {
            let lines = std::array::from_fn(|c| line(l + c));
            Line::chains::<CHAINS>(lines, [0; CHAINS], g.n)
                .run::<S, true>(&mut [S::start(); CHAINS]);
        }
        for l in together..g.lines {
            Line::chains([line(l)], [0], g.n).run::<S, true>(&mut [S::start()]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Operand, assert_close, index_of, noise, noise32, same_everywhere};
    use crate::view::numel;
    use proptest::prelude::*;

    const NAN: f32 = f32::NAN;

    /// Bit patterns, all NaN being one.
    fn bits(v: &[f32]) -> Vec<u32> {
        v.iter().map(|v| if v.is_nan() { NAN } else { *v }.to_bits()).collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn agrees_with_the_plain_loop(
            shape in proptest::collection::vec(prop_oneof![3 => 0usize..6, 1 => 15usize..40], 1..4),
            axis in 0usize..3,
            a: u64,
            b: u64,
        ) {
            prop_assume!(axis < shape.len());
            let n = numel(&shape);
            let x = noise32(n, a);
            let at = |p: usize, i: usize| {
                let mut index = index_of(p, &shape);
                index[axis] = i;
                index.iter().zip(&shape).fold(0, |at, (i, n)| at * n + i)
            };
            let along = |p: usize| (0..=index_of(p, &shape)[axis]).map(move |i| at(p, i));
            let wide = |q: usize| f64::from(x[q]);
            let sums: Vec<f32> = (0..n).map(|p| along(p).map(wide).sum::<f64>() as f32).collect();
            let products: Vec<f32> =
                (0..n).map(|p| along(p).map(wide).product::<f64>() as f32).collect();
            let logs: Vec<f64> =
                (0..n).map(|p| along(p).map(|q| wide(q).exp()).sum::<f64>().ln()).collect();
            let operand = Operand::new(&shape, a, &x);
            let out = Operand::<f32>::zeros(&shape, b);
            cumsum(operand.src(), axis, out.dst());
            prop_assert_eq!(out.values(), sums);
            cumprod(operand.src(), axis, out.dst());
            prop_assert_eq!(out.values(), products);
            logcumsumexp(operand.src(), axis, out.dst());
            assert_close(&out.values(), &logs, 1e-6);
            let index = Operand::<i64>::zeros(&shape, a);
            cummax(operand.src(), axis, out.dst(), index.dst());
            for p in 0..n {
                let best = along(p).max_by(|&i, &j| x[i].total_cmp(&x[j])).unwrap();
                prop_assert_eq!(out.values()[p], x[best]);
                prop_assert_eq!(at(p, index.values()[p] as usize), best);
            }
            // In place.
            cumsum(operand.src(), axis, operand.dst());
            prop_assert_eq!(operand.values(), sums_of(&x, &shape, axis));
        }
    }

    fn sums_of(x: &[f32], shape: &[usize], axis: usize) -> Vec<f32> {
        let inner: usize = shape[axis + 1..].iter().product();
        let mut wide: Vec<f64> = x.iter().map(|v| f64::from(*v)).collect();
        for p in 0..x.len() {
            if index_of(p, shape)[axis] > 0 {
                wide[p] += wide[p - inner];
            }
        }
        wide.into_iter().map(|v| v as f32).collect()
    }

    #[test]
    fn extremes_and_logarithms_agree_with_pytorch() {
        // From PyTorch 2.15.
        let x = [1.0, 3.0, 3.0, NAN, 2.0, 5.0];
        let (mut v, mut i) = ([0f32; 6], [0i64; 6]);
        let shape = [6];
        cummax(
            Src::of(&x, &shape, &[1]),
            0,
            Dst::of(&mut v, &shape, &[1]),
            Dst::of(&mut i, &shape, &[1]),
        );
        assert_eq!(bits(&v), bits(&[1.0, 3.0, 3.0, NAN, NAN, NAN]));
        assert_eq!(i, [0, 1, 2, 3, 3, 3]);
        cummin(
            Src::of(&x, &shape, &[1]),
            0,
            Dst::of(&mut v, &shape, &[1]),
            Dst::of(&mut i, &shape, &[1]),
        );
        assert_eq!(bits(&v), bits(&[1.0, 1.0, 1.0, NAN, NAN, NAN]));
        assert_eq!(i, [0, 0, 0, 3, 3, 3]);
        let inf = f32::INFINITY;
        let log = |x: [f32; 5]| {
            let mut out = [0f32; 5];
            logcumsumexp(Src::of(&x, &[5], &[1]), 0, Dst::of(&mut out, &[5], &[1]));
            out
        };
        let got = log([0.5, -1.0, 2.0, -inf, 3.0]);
        assert_close(&got, &[0.5, 0.701413274, 2.24131131, 2.24131131, 3.38409162], 2e-7);
        assert_eq!(log([-inf, -inf, 0.0, inf, 1.0]), [-inf, -inf, 0.0, inf, inf]);
        assert!(log([0.0, NAN, 0.0, inf, 1.0])[1..].iter().all(|v| v.is_nan()));
    }

    #[test]
    fn long_lines_go_by_blocks() {
        for n in [LONG, LONG + 1, 20 * BLOCK + 77] {
            let x = noise(n, 3);
            let ints: Vec<i64> = x.iter().map(|v| (v * 1e18) as i64).collect();
            let got = same_everywhere(|| {
                let mut out = vec![0i64; n];
                cumsum(Src::of(&ints, &[n], &[1]), 0, Dst::of(&mut out, &[n], &[1]));
                out
            });
            let mut sum = 0i64;
            for (g, v) in got.iter().zip(&ints) {
                sum = sum.wrapping_add(*v);
                assert_eq!(*g, sum);
            }
            let (rows, total) = (2, 2 * n);
            let x: Vec<f32> = noise32(total, 4);
            let sums = same_everywhere(|| {
                let mut out = vec![0f32; total];
                let (shape, strides) = ([rows, n], [n as isize, 1]);
                cumsum(Src::of(&x, &shape, &strides), 1, Dst::of(&mut out, &shape, &strides));
                out
            });
            assert_eq!(sums, sums_of(&x, &[rows, n], 1));
            let (mut v, mut i) = (vec![0f32; n], vec![0i64; n]);
            cummin(
                Src::of(&x[..n], &[n], &[1]),
                0,
                Dst::of(&mut v, &[n], &[1]),
                Dst::of(&mut i, &[n], &[1]),
            );
            let mut best = 0;
            for p in 0..n {
                best = if x[p] <= x[best] { p } else { best };
                assert!(v[p] == x[best] && i[p] == best as i64, "{p}");
            }
        }
    }
}
