//! The formulas, once: over vectors in the kernels, over whatever else has arithmetic
//! where an update becomes part of a compiled program.

use super::{Adadelta, Adagrad, Adam, RmsProp, Sgd};
use crate::simd::{Real, RealVector};

/// What a formula is written in.
pub trait Arith: Clone {
    /// The number `v`, for arithmetic with `self`.
    fn lit(&self, v: f64) -> Self;
    /// `self + o`.
    fn add(self, o: Self) -> Self;
    /// `self - o`.
    fn sub(self, o: Self) -> Self;
    /// `self * o`.
    fn mul(self, o: Self) -> Self;
    /// `self / o`.
    fn div(self, o: Self) -> Self;
    /// The larger.
    fn max(self, o: Self) -> Self;
    /// `self * m + a`.
    fn fma(self, m: Self, a: Self) -> Self;
    /// The square root.
    fn sqrt(self) -> Self;
}

/// How a parameter and its running arrays, `K` in all and the parameter first, follow
/// the gradient. `N` numbers differ from step to step; everything else is fixed.
pub trait Formula<const K: usize, const N: usize>: Copy + Sync {
    /// The numbers of step `step`, counted from one.
    fn numbers(&self, step: u64) -> [f64; N];
    /// The new values.
    fn step<A: Arith>(&self, numbers: &[A; N], g: A, state: [A; K]) -> [A; K];
}

/// A vector as something with arithmetic.
#[derive(Clone, Copy)]
pub(super) struct Lanes<V>(pub(super) V);

impl<V: RealVector<Elem: Real>> Arith for Lanes<V> {
    #[inline(always)]
    fn lit(&self, v: f64) -> Self {
        Lanes(V::splat(V::Elem::of(v)))
    }
    #[inline(always)]
    fn add(self, o: Self) -> Self {
        Lanes(self.0.add(o.0))
    }
    #[inline(always)]
    fn sub(self, o: Self) -> Self {
        Lanes(self.0.sub(o.0))
    }
    #[inline(always)]
    fn mul(self, o: Self) -> Self {
        Lanes(self.0.mul(o.0))
    }
    #[inline(always)]
    fn div(self, o: Self) -> Self {
        Lanes(self.0.div(o.0))
    }
    #[inline(always)]
    fn max(self, o: Self) -> Self {
        Lanes(self.0.max(o.0))
    }
    #[inline(always)]
    fn fma(self, m: Self, a: Self) -> Self {
        Lanes(self.0.fma(m.0, a.0))
    }
    #[inline(always)]
    fn sqrt(self) -> Self {
        Lanes(self.0.sqrt())
    }
}

/// What is done to a gradient first: turned round to ascend, and weight decay added.
#[inline(always)]
fn decayed<A: Arith>(g: A, p: &A, decay: f64, maximize: bool) -> A {
    let g = if maximize { g.lit(0.0).sub(g) } else { g };
    if decay == 0.0 { g } else { p.clone().fma(g.lit(decay), g) }
}

/// From `a` to `b` by `weight`, exact at both ends.
#[inline(always)]
fn lerp<A: Arith>(a: A, b: A, weight: f64) -> A {
    let d = b.clone().sub(a.clone());
    if weight < 0.5 { d.fma(a.lit(weight), a) } else { d.fma(a.lit(weight - 1.0), b) }
}

/// `decay s + (1 - decay) v²`.
#[inline(always)]
fn mean_square<A: Arith>(s: A, v: &A, decay: f64) -> A {
    v.clone().mul(v.clone()).fma(v.lit(1.0 - decay), s.mul(v.lit(decay)))
}

impl Formula<1, 1> for Sgd {
    fn numbers(&self, _: u64) -> [f64; 1] {
        [-self.lr]
    }
    #[inline(always)]
    fn step<A: Arith>(&self, [rate]: &[A; 1], g: A, [p]: [A; 1]) -> [A; 1] {
        [decayed(g, &p, self.weight_decay, self.maximize).fma(rate.clone(), p)]
    }
}

/// With momentum: the state is the running gradient, which the first becomes.
impl Formula<2, 3> for Sgd {
    fn numbers(&self, step: u64) -> [f64; 3] {
        match step {
            1 => [-self.lr, 0.0, 1.0],
            _ => [-self.lr, self.momentum, 1.0 - self.dampening],
        }
    }
    #[inline(always)]
    fn step<A: Arith>(&self, [rate, keep, enter]: &[A; 3], g: A, [p, buffer]: [A; 2]) -> [A; 2] {
        let g = decayed(g, &p, self.weight_decay, self.maximize);
        let buffer = g.clone().fma(enter.clone(), buffer.mul(keep.clone()));
        let g = match self.nesterov {
            true => buffer.clone().fma(g.lit(self.momentum), g),
            false => buffer.clone(),
        };
        [g.fma(rate.clone(), p), buffer]
    }
}

impl Adam {
    /// The new parameter, mean, mean square and largest mean square.
    #[inline(always)]
    fn all<A: Arith>(
        &self,
        [rate, root, keep]: &[A; 3],
        g: A,
        [p, m, v]: [A; 3],
        max: Option<A>,
    ) -> [A; 4] {
        let decay = if self.decoupled { 0.0 } else { self.weight_decay };
        let g = decayed(g, &p, decay, self.maximize);
        let p = if self.decoupled { p.mul(keep.clone()) } else { p };
        let m = lerp(m, g.clone(), 1.0 - self.betas[0]);
        let v = mean_square(v, &g, self.betas[1]);
        let max = match max {
            Some(max) => max.max(v.clone()),
            None => v.clone(),
        };
        let denominator = max.clone().sqrt().div(root.clone()).add(g.lit(self.eps));
        [m.clone().div(denominator).fma(rate.clone(), p), m, v, max]
    }

    /// Minus the rate with the mean's correction, the root of that of the mean square,
    /// and what decay that is decoupled leaves of the parameter.
    fn corrected(&self, step: u64) -> [f64; 3] {
        let [mean, square] = self.betas.map(|b| 1.0 - b.powf(step as f64));
        [-(self.lr / mean), square.sqrt(), 1.0 - self.lr * self.weight_decay]
    }
}

impl Formula<3, 3> for Adam {
    fn numbers(&self, step: u64) -> [f64; 3] {
        self.corrected(step)
    }
    #[inline(always)]
    fn step<A: Arith>(&self, numbers: &[A; 3], g: A, state: [A; 3]) -> [A; 3] {
        let [p, m, v, _] = self.all(numbers, g, state, None);
        [p, m, v]
    }
}

/// AMSGrad: the last of the state is the largest mean square so far.
impl Formula<4, 3> for Adam {
    fn numbers(&self, step: u64) -> [f64; 3] {
        self.corrected(step)
    }
    #[inline(always)]
    fn step<A: Arith>(&self, numbers: &[A; 3], g: A, [p, m, v, max]: [A; 4]) -> [A; 4] {
        self.all(numbers, g, [p, m, v], Some(max))
    }
}

impl Formula<3, 1> for Adadelta {
    fn numbers(&self, _: u64) -> [f64; 1] {
        [-self.lr]
    }
    #[inline(always)]
    fn step<A: Arith>(&self, [rate]: &[A; 1], g: A, [p, square, delta]: [A; 3]) -> [A; 3] {
        let g = decayed(g, &p, self.weight_decay, self.maximize);
        let square = mean_square(square, &g, self.rho);
        let root = |v: &A| v.clone().add(v.lit(self.eps)).sqrt();
        let d = root(&delta).div(root(&square)).mul(g);
        [d.clone().fma(rate.clone(), p), square, mean_square(delta, &d, self.rho)]
    }
}

impl RmsProp {
    /// The new parameter, mean square, mean (wanted if centred) and buffer (wanted if
    /// there is momentum).
    #[inline(always)]
    fn all<A: Arith>(
        &self,
        [rate]: &[A; 1],
        g: A,
        [p, square]: [A; 2],
        mean: Option<A>,
        buffer: Option<A>,
    ) -> [A; 4] {
        let g = decayed(g, &p, self.weight_decay, self.maximize);
        let square = mean_square(square, &g, self.alpha);
        let (mean, variance) = match mean {
            Some(mean) => {
                let mean = lerp(mean, g.clone(), 1.0 - self.alpha);
                let minus = mean.clone().mul(mean.lit(-1.0));
                (mean.clone(), minus.fma(mean, square.clone()))
            }
            None => (g.clone(), square.clone()),
        };
        let scaled = g.clone().div(variance.sqrt().add(g.lit(self.eps)));
        let moved = match buffer {
            Some(buffer) => buffer.fma(g.lit(self.momentum), scaled),
            None => scaled,
        };
        [moved.clone().fma(rate.clone(), p), square, mean, moved]
    }
}

impl Formula<2, 1> for RmsProp {
    fn numbers(&self, _: u64) -> [f64; 1] {
        [-self.lr]
    }
    #[inline(always)]
    fn step<A: Arith>(&self, numbers: &[A; 1], g: A, state: [A; 2]) -> [A; 2] {
        let [p, square, ..] = self.all(numbers, g, state, None, None);
        [p, square]
    }
}

/// With momentum.
impl Formula<3, 1> for RmsProp {
    fn numbers(&self, _: u64) -> [f64; 1] {
        [-self.lr]
    }
    #[inline(always)]
    fn step<A: Arith>(&self, numbers: &[A; 1], g: A, [p, square, buffer]: [A; 3]) -> [A; 3] {
        let [p, square, _, buffer] = self.all(numbers, g, [p, square], None, Some(buffer));
        [p, square, buffer]
    }
}

/// [`RmsProp`] of the gradient's variance in place of its mean square.
#[derive(Clone, Copy)]
pub(super) struct Centred(pub(super) RmsProp);

impl Formula<3, 1> for Centred {
    fn numbers(&self, _: u64) -> [f64; 1] {
        [-self.0.lr]
    }
    #[inline(always)]
    fn step<A: Arith>(&self, numbers: &[A; 1], g: A, [p, square, mean]: [A; 3]) -> [A; 3] {
        let [p, square, mean, _] = self.0.all(numbers, g, [p, square], Some(mean), None);
        [p, square, mean]
    }
}

impl Formula<4, 1> for Centred {
    fn numbers(&self, _: u64) -> [f64; 1] {
        [-self.0.lr]
    }
    #[inline(always)]
    fn step<A: Arith>(&self, numbers: &[A; 1], g: A, [p, s, mean, buffer]: [A; 4]) -> [A; 4] {
        self.0.all(numbers, g, [p, s], Some(mean), Some(buffer))
    }
}

impl Formula<2, 1> for Adagrad {
    fn numbers(&self, step: u64) -> [f64; 1] {
        [-(self.lr / (1.0 + (step as f64 - 1.0) * self.lr_decay))]
    }
    #[inline(always)]
    fn step<A: Arith>(&self, [rate]: &[A; 1], g: A, [p, sum]: [A; 2]) -> [A; 2] {
        let g = decayed(g, &p, self.weight_decay, self.maximize);
        let sum = g.clone().fma(g.clone(), sum);
        let scaled = g.clone().div(sum.clone().sqrt().add(g.lit(self.eps)));
        [scaled.fma(rate.clone(), p), sum]
    }
}
