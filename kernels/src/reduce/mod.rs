//! Reductions over any set of axes.
//!
//! The output has the input's shape without the reduced axes. Over no elements
//! a reduction gives its identity: 0, 1, the lowest or the highest number.
//!
//! The order in which numbers are joined follows from the shape and the strides
//! alone. Numbers that lie next to each other are joined in 64 lanes in blocks
//! of at most 4096, the blocks in pairs, so the error of a sum grows with
//! the logarithm of the count (Higham, "The accuracy of floating point
//! summation", 1993).

mod arg;
mod columns;
mod rows;

pub use arg::{ArgKernels, argmax, argmin};

use crate::isa::Isa;
use crate::par;
use crate::simd::row::BLOCK;
use crate::simd::{Number, Vector};
use crate::view::{Dst, Ends, Src, numel};
use smallvec::SmallVec;

/// Blocks that one thread joins when a single result is shared among threads: a
/// power of two, so that they are a subtree of the pairwise tree.
const SHARED: usize = 64;
/// Elements below which a reduction is not shared, at a tenth of a nanosecond each.
const GRAIN: usize = par::SHARE_NS * 10;
crate::instances::instances!(SumKernels for f32, f64, i64 => {
    fn sum_kernel(x: Src<Self>, axes: &[bool], out: Dst<Self>) = sum_of;
    fn prod_kernel(x: Src<Self>, axes: &[bool], out: Dst<Self>) = prod_of;
});
crate::instances::instances!(ReduceKernels for f32, f64, i64, i32, u8 => {
    fn max_kernel(x: Src<Self>, axes: &[bool], out: Dst<Self>) = max_of;
    fn min_kernel(x: Src<Self>, axes: &[bool], out: Dst<Self>) = min_of;
});

/// `out = sum of x` over the axes that `axes` marks. Integers wrap.
///
/// # Panics
/// If `out` has not the shape of `x` without the marked axes.
pub fn sum<T: SumKernels>(x: Src<T>, axes: &[bool], out: Dst<T>) {
    T::sum_kernel(x, axes, out)
}

fn sum_of<T: Number>(x: Src<T>, axes: &[bool], out: Dst<T>) {
    reduce::<T, Sum>(x, axes, out);
}

/// `out = product of x` over the axes that `axes` marks. Integers wrap.
///
/// # Panics
/// As [`sum`].
pub fn prod<T: SumKernels>(x: Src<T>, axes: &[bool], out: Dst<T>) {
    T::prod_kernel(x, axes, out)
}

fn prod_of<T: Number>(x: Src<T>, axes: &[bool], out: Dst<T>) {
    reduce::<T, Product>(x, axes, out);
}

/// `out = largest of x` over the axes that `axes` marks; NaN where one is NaN.
///
/// # Panics
/// As [`sum`].
pub fn max<T: ReduceKernels>(x: Src<T>, axes: &[bool], out: Dst<T>) {
    T::max_kernel(x, axes, out)
}

fn max_of<T: Number>(x: Src<T>, axes: &[bool], out: Dst<T>) {
    reduce::<T, Max>(x, axes, out);
}

/// `out = smallest of x` over the axes that `axes` marks; NaN where one is NaN.
///
/// # Panics
/// As [`sum`].
pub fn min<T: ReduceKernels>(x: Src<T>, axes: &[bool], out: Dst<T>) {
    T::min_kernel(x, axes, out)
}

fn min_of<T: Number>(x: Src<T>, axes: &[bool], out: Dst<T>) {
    reduce::<T, Min>(x, axes, out);
}

/// `out = 1` where any of `x` over the axes that `axes` marks is not zero, else 0.
///
/// # Panics
/// As [`sum`].
pub fn any(x: Src<u8>, axes: &[bool], out: Dst<u8>) {
    max(x, axes, out);
    crate::pointwise::map1_with(1, out.as_src(), out, |v| u8::from(v != 0));
}

/// `out = 1` where all of `x` over the axes that `axes` marks are not zero, else 0.
///
/// # Panics
/// As [`sum`].
pub fn all(x: Src<u8>, axes: &[bool], out: Dst<u8>) {
    min(x, axes, out);
    crate::pointwise::map1_with(1, out.as_src(), out, |v| u8::from(v != 0));
}

/// An associative operation with an identity.
pub(crate) trait Join: Send + Sync + 'static {
    /// The widest level that its loops are built for.
    const WIDEST: Isa;
    /// What changes nothing when joined.
    fn identity<T: Number>() -> T;
    /// Joins lane by lane.
    fn many<V: Vector>(a: V, b: V) -> V;
}

macro_rules! join {
    ($($name:ident, $widest:ident, $identity:expr, $many:ident;)*) => {$(
        pub(crate) struct $name;
        impl Join for $name {
            const WIDEST: Isa = Isa::$widest;
            #[inline(always)]
            fn identity<T: Number>() -> T {
                $identity
            }
            #[inline(always)]
            fn many<V: Vector>(a: V, b: V) -> V {
                a.$many(b)
            }
        }
    )*};
}
join! {
    Sum, Avx512, T::ZERO, add;
    // Too rare to be built for AVX-512 too.
    Product, Avx2, T::ONE, mul;
    Max, Avx512, T::LOWEST, max;
    Min, Avx512, T::HIGHEST, min;
}

/// An axis of the input: its size and the distance between neighbours, in the
/// input and (if it is kept) in the output.
#[derive(Clone, Copy, Debug)]
struct Axis {
    n: usize,
    x: isize,
    out: isize,
}

type Axes = SmallVec<[Axis; 6]>;

/// The axes to keep and to reduce, each outermost in memory first, neighbours
/// merged; all strides of `x` non-negative.
struct Plan {
    kept: Axes,
    reduced: Axes,
    /// Where the first element now lies.
    x: isize,
    out: isize,
}

impl Plan {
    fn new(
        shape: &[usize],
        strides: &[isize],
        axes: &[bool],
        out_shape: &[usize],
        out_strides: &[isize],
    ) -> Plan {
        assert_eq!(axes.len(), shape.len(), "one mark for each axis");
        let mut plan = Plan { kept: Axes::new(), reduced: Axes::new(), x: 0, out: 0 };
        let mut to = out_shape.iter().zip(out_strides);
        for ((&n, &sx), &reduced) in shape.iter().zip(strides).zip(axes) {
            let mut axis = Axis { n, x: sx, out: 0 };
            if !reduced {
                let (&m, &so) = to.next().expect("the output has every axis that is kept");
                assert_eq!(n, m, "the output has the size of each axis that is kept");
                axis.out = so;
            }
            if n == 1 {
                continue;
            }
            if sx < 0 && n > 0 {
                plan.x += (n - 1) as isize * sx;
                plan.out += (n - 1) as isize * axis.out;
                (axis.x, axis.out) = (-axis.x, -axis.out);
            }
            if reduced { &mut plan.reduced } else { &mut plan.kept }.push(axis);
        }
        assert!(to.next().is_none(), "the output has only the axes that are kept");
        arrange(&mut plan.kept);
        arrange(&mut plan.reduced);
        plan
    }

    fn outputs(&self) -> usize {
        count(&self.kept)
    }

    fn depth(&self) -> usize {
        count(&self.reduced)
    }
}

fn count(axes: &[Axis]) -> usize {
    axes.iter().map(|a| a.n).product()
}

/// Sorts by distance, a repeated element (distance zero) being no reason to call
/// an axis near, and merges neighbours that step evenly.
fn arrange(axes: &mut Axes) {
    axes.sort_by_key(|a| std::cmp::Reverse((a.x as usize).wrapping_sub(1)));
    let mut merged = Axes::new();
    for &a in axes.iter() {
        match merged.last_mut() {
            Some(last) if last.x == a.x * a.n as isize && last.out == a.out * a.n as isize => {
                *last = Axis { n: last.n * a.n, ..a };
            }
            _ => merged.push(a),
        }
    }
    *axes = merged;
}

/// Offsets of the elements of an index space, in order, from the `start`-th on.
struct Steps<'a> {
    axes: &'a [Axis],
    index: SmallVec<[usize; 6]>,
    x: isize,
    out: isize,
}

impl<'a> Steps<'a> {
    fn new(axes: &'a [Axis], start: usize) -> Steps<'a> {
        let mut s = Steps { axes, index: SmallVec::from_elem(0, axes.len()), x: 0, out: 0 };
        let mut rest = start;
        for (i, a) in s.index.iter_mut().zip(axes).rev() {
            (*i, rest) = (rest % a.n, rest / a.n);
            s.x += *i as isize * a.x;
            s.out += *i as isize * a.out;
        }
        s
    }

    /// The present offsets in the input and the output; moves on to the next.
    #[inline]
    fn next(&mut self) -> (isize, isize) {
        let at = (self.x, self.out);
        for (i, a) in self.index.iter_mut().zip(self.axes).rev() {
            *i += 1;
            self.x += a.x;
            self.out += a.out;
            if *i < a.n {
                break;
            }
            *i = 0;
            self.x -= a.n as isize * a.x;
            self.out -= a.n as isize * a.out;
        }
        at
    }
}

/// The loops for one type of number and one operation. Everything else is the same
/// for all of them, and works with addresses alone.
struct Loops {
    /// Bytes of a number.
    size: usize,
    rows: unsafe fn(&mut rows::Rows<'_>),
    strip: unsafe fn(&columns::Strip<'_>),
}

/// Room for a number of any type.
type Cell = u64;

fn cells(bytes: usize) -> Vec<Cell> {
    vec![0; bytes.div_ceil(size_of::<Cell>())]
}

/// Numbers that lie apart.
#[derive(Clone, Copy)]
struct Apart<P> {
    at: P,
    /// Distance, in elements.
    step: isize,
}

/// Copies `n` numbers of `size` bytes.
///
/// # Safety
/// They are there to read and to write.
unsafe fn copy_apart(size: usize, n: usize, from: Apart<*const u8>, to: Apart<*mut u8>) {
    unsafe fn copy<B: Copy>(n: usize, from: Apart<*const u8>, to: Apart<*mut u8>) {
        let (p, q) = (from.at.cast::<B>(), to.at.cast::<B>());
        for i in 0..n as isize {
            // SAFETY: the caller's contract.
            unsafe { *q.offset(i * to.step) = *p.offset(i * from.step) };
        }
    }
    // SAFETY: the caller's contract.
    unsafe {
        match size {
            1 => copy::<u8>(n, from, to),
            4 => copy::<u32>(n, from, to),
            _ => copy::<u64>(n, from, to),
        }
    }
}

fn reduce<T: Number, J: Join>(x: Src<T>, axes: &[bool], out: Dst<T>) {
    let plan = Plan::new(x.shape, x.strides, axes, out.shape, out.strides);
    if numel(out.shape) == 0 {
        return;
    }
    if plan.depth() == 0 {
        return crate::copy::fill(out, J::identity());
    }
    let ends = Ends::of(&x, &out);
    const { assert!(matches!(size_of::<T>(), 1 | 4 | 8)) };
    let loops =
        Loops { size: size_of::<T>(), rows: rows::run::<T, J>, strip: columns::run::<T, J> };
    plan.execute(ends, &loops);
}

impl Plan {
    fn execute(&self, ends: Ends, loops: &Loops) {
        let near = |axes: &Axes| axes.last().map_or(usize::MAX, |a| (a.x as usize).wrapping_sub(1));
        // SAFETY: the plan's offsets of the first elements lie within the views.
        let ends = unsafe {
            let size = loops.size as isize;
            ends.offset(self.x * size, self.out * size)
        };
        if near(&self.kept) < near(&self.reduced) {
            columns::reduce(self, ends, loops);
        } else {
            rows::reduce(self, ends, loops);
        }
    }
}

#[cfg(test)]
mod tests;
