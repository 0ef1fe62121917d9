//! Batch normalisation (Ioffe and Szegedy, 2015) of `x: [n, c, l]`: channel by
//! channel, over `n` and `l`.
//!
//! With `m = n l` elements in a channel, `x̂ = (x - mean) r` and `y = x̂ w + b`, the
//! gradient in training, where mean and variance are those of `x`, is
//! `gx = w r (gy - sum(gy) / m - x̂ sum(gy x̂) / m)`; otherwise `gx = w r gy`.

use super::vector;
use crate::copy::copy;
use crate::mem::Block;
use crate::par;
use crate::scratch;
use crate::simd::row::{BLOCK, Lanes64, Pairwise, for_vectors, read, write};
use crate::simd::{self, Real, RealTask, RealVector};
use crate::strided::Walk;
use crate::view::{Dst, Src};
use std::ops::Range;

/// Cost of an element in tenths of a nanosecond.
const COST: usize = 2;
/// Rows shorter than this are laid out anew before they are summed.
const SHORT: usize = 16;
/// Blocks that one thread joins: a power of two, and so a subtree of the pairwise
/// tree.
const SHARED: usize = 64;

/// The mean and the (biased) variance of each channel of `x: [n, c, l]`; NaN of no
/// elements.
///
/// # Panics
/// If shapes do not match.
pub fn batch_norm_stats<T: Real>(x: Src<T>, mean: Dst<T>, var: Dst<T>) {
    let [_, c, _] = extents(&x);
    for v in [&mean, &var] {
        assert_eq!(*v.shape, [c], "statistics have one number for each channel");
    }
    let moments =
        per_channel([x], |planes, c, blocks| simd::run_real(Moments { planes, c, blocks }));
    for (c, m) in moments.into_iter().enumerate() {
        let (mu, variance) = m.map_or((f64::NAN, f64::NAN), |m| (m.mean, m.squares / m.count));
        put(&mean, c, T::of(mu));
        put(&var, c, T::of(variance));
    }
}

/// `y = (x - mean) rstd weight + bias` for each channel of `x: [n, c, l]`, without
/// factors or summands that are absent. `y` may be `x`.
///
/// # Panics
/// If shapes do not match.
pub fn batch_norm<T: Real>(
    x: Src<T>,
    mean: Src<T>,
    rstd: Src<T>,
    weight: Option<Src<T>>,
    bias: Option<Src<T>>,
    y: Dst<T>,
) {
    let [_, c, _] = extents(&x);
    // SAFETY: the output is distinct from statistics and parameters.
    let (mean, rstd, weight, bias) = unsafe {
        let [w, b] = [weight, bias].map(|v| v.map(|v| vector(&v, c)));
        (vector(&mean, c), vector(&rstd, c), w, b)
    };
    let scale: Vec<T> = match &weight {
        Some(w) => rstd.iter().zip(w.iter()).map(|(r, &w)| r.times(w)).collect(),
        None => rstd.to_vec(),
    };
    let bias = bias.map_or_else(|| vec![T::ZERO; c], |b| b.into_owned());
    let coefficients = Coefficients { mean: &mean, x: &scale, constant: &bias, gy: &bias };
    affine(x, None, coefficients, y);
}

/// Gradients of [`batch_norm`] with respect to `x`, the weight and the bias, each
/// computed if wanted. `training` says that `mean` and `rstd` were computed from
/// `x`, so that `x` counts through them too. `gx` may be `gy`.
///
/// # Panics
/// If shapes do not match.
pub fn batch_norm_grad<T: Real>(
    gy: Src<T>,
    x: Src<T>,
    mean: Src<T>,
    rstd: Src<T>,
    weight: Option<Src<T>>,
    training: bool,
    gx: Option<Dst<T>>,
    gweight: Option<Dst<T>>,
    gbias: Option<Dst<T>>,
) {
    let [n, c, l] = extents(&x);
    assert_eq!(gy.shape, x.shape, "the gradient has the output's shape");
    for v in gweight.iter().chain(&gbias) {
        assert_eq!(*v.shape, [c], "a gradient has its parameter's shape");
    }
    // SAFETY: outputs are distinct from statistics and parameters.
    let (mean, rstd, weight) =
        unsafe { (vector(&mean, c), vector(&rstd, c), weight.map(|w| vector(&w, c))) };
    let mut sums = vec![[T::ZERO; 2]; c];
    if gweight.is_some() || gbias.is_some() || (training && gx.is_some()) {
        let parts = per_channel([gy, x], |planes, c, blocks| {
            simd::run_real(Sums { planes, c, blocks, mean: mean[c] })
        });
        for (to, from) in sums.iter_mut().zip(parts) {
            *to = from.map_or(*to, |s| s.0);
        }
    }
    for (c, &[g, dot]) in sums.iter().enumerate() {
        gbias.iter().for_each(|to| put(to, c, g));
        gweight.iter().for_each(|to| put(to, c, dot.times(rstd[c])));
    }
    let Some(gx) = gx else { return };
    let per = T::ONE.over(T::of((n * l) as f64));
    let scale = |c: usize| weight.as_ref().map_or(rstd[c], |w| rstd[c].times(w[c]));
    let gy_factor: Vec<T> = (0..c).map(scale).collect();
    let (mut x_factor, mut constant) = (vec![T::ZERO; c], vec![T::ZERO; c]);
    if training {
        for c in 0..c {
            let minus = T::ZERO.minus(gy_factor[c]).times(per);
            constant[c] = sums[c][0].times(minus);
            x_factor[c] = sums[c][1].times(rstd[c]).times(rstd[c]).times(minus);
        }
    }
    let coefficients =
        Coefficients { mean: &mean, x: &x_factor, constant: &constant, gy: &gy_factor };
    affine(x, Some(gy), coefficients, gx);
}

fn extents<T>(x: &Src<T>) -> [usize; 3] {
    let &[n, c, l] = x.shape else { panic!("channels are the second of three dimensions") };
    [n, c, l]
}

fn put<T: Real>(to: &Dst<T>, c: usize, v: T) {
    assert!(c < to.shape[0]);
    // SAFETY: within the vector's extent.
    unsafe { *to.ptr().offset(c as isize * to.strides[0]) = v };
}

/// `K` operands as rows of `l` dense elements, `n` rows in each channel.
struct Planes<'a, T, const K: usize> {
    operands: [Src<'a, T>; K],
    n: usize,
    l: usize,
}

/// Which elements make up a block: whole rows, or a piece of one.
struct BlockOf {
    rows: Range<usize>,
    start: usize,
    len: usize,
}

impl<T: Real, const K: usize> Planes<'_, T, K> {
    fn blocks(&self) -> usize {
        match self.l {
            0 => 0,
            l => self.n.div_ceil((BLOCK / l).max(1)) * l.div_ceil(BLOCK),
        }
    }

    #[inline(always)]
    fn block(&self, b: usize) -> BlockOf {
        let (rows, pieces) = ((BLOCK / self.l).max(1), self.l.div_ceil(BLOCK));
        let (row, start) = (b / pieces * rows, b % pieces * BLOCK);
        BlockOf { rows: row..(row + rows).min(self.n), start, len: BLOCK.min(self.l - start) }
    }

    /// Address of the block's part of a row.
    #[inline(always)]
    fn at(&self, k: usize, row: usize, c: usize, start: usize) -> *const T {
        let o = &self.operands[k];
        let offset = row as isize * o.strides[0] + c as isize * o.strides[1];
        o.ptr().wrapping_offset(offset).wrapping_add(start)
    }
}

/// A partial result that joins others in pairs.
trait Part: Send + Clone {
    fn join(a: Self, b: Self) -> Self;
}

/// What `f(planes, channel, blocks)` gives for each channel, joined over its blocks;
/// `None` of channels without elements.
fn per_channel<T: Real, R: Part, const K: usize>(
    xs: [Src<T>; K],
    f: impl Fn(&Planes<T, K>, usize, Range<usize>) -> R + Sync,
) -> Vec<Option<R>> {
    let [n, c, l] = extents(&xs[0]);
    // Where rows are short or not dense, work on copies with a channel in one row.
    let direct = l >= SHORT && xs.iter().all(|x| x.strides[2] == 1);
    let blocks: [Option<Block>; K] =
        std::array::from_fn(|_| (!direct).then(|| scratch::block::<T>(n * c * l)));
    let row = (n * l) as isize;
    let to = [l as isize, row, 1];
    let planes = Planes {
        operands: std::array::from_fn(|k| match &blocks[k] {
            Some(b) => {
                copy(xs[k], b.dst(0, xs[k].shape, &to));
                b.src(0, xs[k].shape, &to)
            }
            None => xs[k],
        }),
        n: if direct { n } else { 1 },
        l: if direct { l } else { n * l },
    };
    let blocks = planes.blocks();
    let groups = blocks.div_ceil(SHARED);
    let parallel = n * c * l * COST >= par::SHARE_NS * 10;
    let parts = par::map_blocks(c * groups, 1, parallel, |t| {
        let (c, g) = (t.start / groups, t.start % groups);
        Some(f(&planes, c, g * SHARED..((g + 1) * SHARED).min(blocks)))
    });
    let mut parts = parts.into_iter();
    let mut join = |_| {
        let mut total = Pairwise::new();
        parts.by_ref().take(groups).flatten().for_each(|p| total.push(p, R::join));
        total.finish(R::join)
    };
    (0..c).map(&mut join).collect()
}

/// Count, mean, and sum of squared deviations from the mean.
#[derive(Clone, Copy)]
struct Spread {
    count: f64,
    mean: f64,
    squares: f64,
}

impl Part for Spread {
    /// Chan, Golub and LeVeque, "Updating formulae and a pairwise algorithm for
    /// computing sample variances" (1979).
    #[inline(always)]
    fn join(a: Spread, b: Spread) -> Spread {
        let count = a.count + b.count;
        let d = b.mean - a.mean;
        Spread {
            count,
            mean: a.mean + d * (b.count / count),
            squares: a.squares + b.squares + d * d * (a.count * b.count / count),
        }
    }
}

struct Moments<'a, T> {
    planes: &'a Planes<'a, T, 1>,
    c: usize,
    blocks: Range<usize>,
}

impl<T: Real> RealTask<T> for Moments<'_, T> {
    type Out = Spread;
    #[inline(always)]
    fn run<V: RealVector<Elem = T>>(self) -> Spread {
        let Moments { planes, c, blocks } = self;
        let mut total = Pairwise::new();
        for b in blocks {
            let BlockOf { rows, start, len } = planes.block(b);
            let count = T::of((rows.len() * len) as f64);
            let mut lanes = Lanes64::<V, 1>::new(T::ZERO);
            for r in rows.clone() {
                let p = planes.at(0, r, c, start);
                lanes.row(
                    len,
                    V::add,
                    #[inline(always)]
                    |i, k| {
                        // SAFETY: within the block, which lies within the view.
                        [unsafe { read(p, i, k, T::ZERO) }]
                    },
                );
            }
            let mean = lanes.finish(V::add)[0].over(count);
            let m = V::splat(mean);
            let mut lanes = Lanes64::<V, 1>::new(T::ZERO);
            for r in rows {
                let p = planes.at(0, r, c, start);
                lanes.row(
                    len,
                    V::add,
                    #[inline(always)]
                    |i, k| {
                        // SAFETY: as above.
                        let d = unsafe { read::<V>(p, i, k, mean) }.sub(m);
                        [d.mul(d)]
                    },
                );
            }
            let squares = lanes.finish(V::add)[0].f64();
            let spread = Spread { count: count.f64(), mean: mean.f64(), squares };
            total.push(spread, Spread::join);
        }
        total.finish(Spread::join).unwrap_or(Spread { count: 0.0, mean: 0.0, squares: 0.0 })
    }
}

/// Sums of `gy` and of `gy (x - mean)`.
#[derive(Clone, Copy)]
struct TwoSums<T>([T; 2]);

impl<T: Real> Part for TwoSums<T> {
    #[inline(always)]
    fn join(a: Self, b: Self) -> Self {
        TwoSums([a.0[0].plus(b.0[0]), a.0[1].plus(b.0[1])])
    }
}

struct Sums<'a, T> {
    planes: &'a Planes<'a, T, 2>,
    c: usize,
    blocks: Range<usize>,
    mean: T,
}

impl<T: Real> RealTask<T> for Sums<'_, T> {
    type Out = TwoSums<T>;
    #[inline(always)]
    fn run<V: RealVector<Elem = T>>(self) -> TwoSums<T> {
        let Sums { planes, c, blocks, mean } = self;
        let m = V::splat(mean);
        let mut total = Pairwise::new();
        for b in blocks {
            let BlockOf { rows, start, len } = planes.block(b);
            let mut lanes = Lanes64::<V, 2>::new(T::ZERO);
            for r in rows {
                let (gy, x) = (planes.at(0, r, c, start), planes.at(1, r, c, start));
                lanes.row(
                    len,
                    V::add,
                    #[inline(always)]
                    |i, k| {
                        // SAFETY: within the block, which lies within the views.
                        unsafe {
                            let g = read::<V>(gy, i, k, T::ZERO);
                            [g, g.mul(read::<V>(x, i, k, T::ZERO).sub(m))]
                        }
                    },
                );
            }
            total.push(TwoSums(lanes.finish(V::add)), TwoSums::join);
        }
        total.finish(TwoSums::join).unwrap_or(TwoSums([T::ZERO; 2]))
    }
}

/// `out = (x - mean) x_factor + constant + gy gy_factor`, by channel.
#[derive(Clone, Copy)]
struct Coefficients<'a, T> {
    mean: &'a [T],
    x: &'a [T],
    constant: &'a [T],
    gy: &'a [T],
}

/// Applies [`Coefficients`]; without `gy`, its term is absent.
fn affine<T: Real>(x: Src<T>, gy: Option<Src<T>>, by: Coefficients<T>, out: Dst<T>) {
    assert_eq!(x.shape, out.shape, "the output has the input's shape");
    // Innermost what is nearest in the output's memory.
    let mut order = [0, 1, 2];
    order.sort_by_key(|&d| {
        let one = x.shape[d] == 1;
        std::cmp::Reverse(if one { usize::MAX } else { out.strides[d].unsigned_abs() })
    });
    let pick = |s: &[isize]| order.map(|d| s[d]);
    let gy_or_x = gy.unwrap_or(x);
    let shape = order.map(|d| x.shape[d]);
    let strides = [pick(x.strides), pick(gy_or_x.strides), pick(out.strides), pick(&[0, 1, 0])];
    let walk = Walk::new(&shape, std::array::from_fn(|k| &strides[k][..]));
    let (n, step) = (walk.row_len(), walk.row_strides());
    if n == 0 {
        return;
    }
    par::for_range(walk.rows(), (par::SHARE_NS * 10).div_ceil(n * COST), |rows| {
        walk.for_rows(rows, |[ox, og, oo, c]| {
            // SAFETY: the walk stays within the views; the coefficients have one
            // number for each channel.
            unsafe {
                simd::run_real(Affine {
                    n,
                    step,
                    c: c as usize,
                    by,
                    x: x.ptr().offset(ox),
                    gy: gy.map(|g| g.ptr().offset(og)),
                    out: out.ptr().offset(oo),
                });
            }
        });
    });
}

/// A row, along which the channel stays (`step[3]` is zero) or advances.
struct Affine<'a, T> {
    n: usize,
    step: [isize; 4],
    c: usize,
    by: Coefficients<'a, T>,
    x: *const T,
    gy: Option<*const T>,
    out: *mut T,
}

impl<T: Real> RealTask<T> for Affine<'_, T> {
    type Out = ();
    #[inline(always)]
    fn run<V: RealVector<Elem = T>>(self) {
        let Affine { n, step, c, by, x, gy, out } = self;
        let zero = T::ZERO;
        // SAFETY: rows of `n` elements at these steps.
        unsafe {
            match step {
                [1, 1, 1, 0] => {
                    let (mean, scale) = (V::splat(by.mean[c]), V::splat(by.x[c]));
                    let (constant, gy_scale) = (V::splat(by.constant[c]), V::splat(by.gy[c]));
                    for_vectors(
                        n,
                        #[inline(always)]
                        |i, k| {
                            let d = read::<V>(x, i, k, zero).sub(mean);
                            let v = d.fma(scale, constant);
                            let v = match gy {
                                Some(g) => read::<V>(g, i, k, zero).fma(gy_scale, v),
                                None => v,
                            };
                            write(v, out, i, k);
                        },
                    );
                }
                [1, 1, 1, 1] => {
                    let at = |v: &[T]| v[c..c + n].as_ptr();
                    let (mean, scale) = (at(by.mean), at(by.x));
                    let (constant, gy_scale) = (at(by.constant), at(by.gy));
                    for_vectors(
                        n,
                        #[inline(always)]
                        |i, k| {
                            let d = read::<V>(x, i, k, zero).sub(read(mean, i, k, zero));
                            let v = d.fma(read(scale, i, k, zero), read(constant, i, k, zero));
                            let v = match gy {
                                Some(g) => {
                                    read::<V>(g, i, k, zero).fma(read(gy_scale, i, k, zero), v)
                                }
                                None => v,
                            };
                            write(v, out, i, k);
                        },
                    );
                }
                [sx, sg, so, sc] => {
                    for i in 0..n as isize {
                        let c = (c as isize + i * sc) as usize;
                        let d = (*x.offset(i * sx)).minus(by.mean[c]);
                        let v = d.fused(by.x[c], by.constant[c]);
                        let v = gy.map_or(v, |g| (*g.offset(i * sg)).fused(by.gy[c], v));
                        *out.offset(i * so) = v;
                    }
                }
            }
        }
    }
}
