//! Updates of parameters by their gradients, in one pass over memory.
//!
//! Each follows the formulas that PyTorch documents for the optimizer of that name,
//! including the place of `eps`. Parameters and state are changed in place.

use crate::copy::copy;
use crate::par;
use crate::scratch::Dense;
use crate::simd::row::{for_vectors, read, write};
use crate::simd::{self, Real, RealTask, RealVector};
use crate::view::{Dst, Src, is_contiguous, numel};

/// Stochastic gradient descent (with momentum as Sutskever et al., 2013).
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sgd {
    /// Learning rate.
    pub lr: f64,
    /// Factor of the running gradient.
    pub momentum: f64,
    /// By how much less than fully a gradient enters the running one.
    pub dampening: f64,
    /// Factor of the parameter that is added to the gradient.
    pub weight_decay: f64,
    /// Looks ahead by one step of momentum.
    pub nesterov: bool,
    /// Ascends.
    pub maximize: bool,
}

/// Adam (Kingma and Ba, 2015), or AdamW (Loshchilov and Hutter, 2019).
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Adam {
    /// Learning rate.
    pub lr: f64,
    /// Decay of the running mean and of the running mean square.
    pub betas: [f64; 2],
    /// Added to the root of the mean square.
    pub eps: f64,
    /// Factor of the parameter that is added to the gradient or, if `decoupled`, times
    /// the learning rate, taken off the parameter.
    pub weight_decay: f64,
    /// AdamW.
    pub decoupled: bool,
    /// Ascends.
    pub maximize: bool,
}

/// Adadelta (Zeiler, 2012).
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Adadelta {
    /// Learning rate.
    pub lr: f64,
    /// Decay of both running mean squares.
    pub rho: f64,
    /// Added to mean squares before their roots are taken.
    pub eps: f64,
    /// Factor of the parameter that is added to the gradient.
    pub weight_decay: f64,
    /// Ascends.
    pub maximize: bool,
}

/// RMSprop (Hinton, lecture 6e; centred as Graves, 2013).
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RmsProp {
    /// Learning rate.
    pub lr: f64,
    /// Decay of the running means.
    pub alpha: f64,
    /// Added to the root of the mean square.
    pub eps: f64,
    /// Factor of the parameter that is added to the gradient.
    pub weight_decay: f64,
    /// Factor of the running update.
    pub momentum: f64,
    /// Ascends.
    pub maximize: bool,
}

/// Adagrad (Duchi, Hazan and Singer, 2011).
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Adagrad {
    /// Learning rate.
    pub lr: f64,
    /// Decay of the learning rate.
    pub lr_decay: f64,
    /// Added to the root of the sum of squares.
    pub eps: f64,
    /// Factor of the parameter that is added to the gradient.
    pub weight_decay: f64,
    /// Ascends.
    pub maximize: bool,
}
crate::instances::instances!(OptimKernels for f32, f64 => {
    fn sgd_kernel(o: &Sgd, grad: Src<Self>, param: Dst<Self>, buffer: Option<Dst<Self>>, first: bool) = sgd_of;
    fn adam_kernel(o: &Adam, step: u64, grad: Src<Self>, param: Dst<Self>, mean: Dst<Self>, square: Dst<Self>, max: Option<Dst<Self>>) = adam_of;
    fn adadelta_kernel(o: &Adadelta, grad: Src<Self>, param: Dst<Self>, square: Dst<Self>, delta: Dst<Self>) = adadelta_of;
    fn rms_prop_kernel(o: &RmsProp, grad: Src<Self>, param: Dst<Self>, square: Dst<Self>, mean: Option<Dst<Self>>, buffer: Option<Dst<Self>>) = rms_prop_of;
    fn adagrad_kernel(o: &Adagrad, step: u64, grad: Src<Self>, param: Dst<Self>, sum: Dst<Self>) = adagrad_of;
});

/// A step of [`Sgd`]. `buffer` is the running gradient, wanted if there is momentum;
/// on the `first` step it is overwritten.
///
/// # Panics
/// If shapes differ, or the buffer is missing.
pub fn sgd<T: Real>(o: &Sgd, grad: Src<T>, param: Dst<T>, buffer: Option<Dst<T>>, first: bool) {
    T::sgd_kernel(o, grad, param, buffer, first)
}

fn sgd_of<T: Real>(o: &Sgd, grad: Src<T>, param: Dst<T>, buffer: Option<Dst<T>>, first: bool) {
    let decay = Decay { factor: o.weight_decay, maximize: o.maximize };
    if o.momentum == 0.0 {
        return update(grad, [param], SgdStep { decay, o, first });
    }
    let buffer = buffer.expect("momentum wants a buffer");
    update(grad, [param, buffer], SgdStep { decay, o, first });
}

/// Step number `step`, counted from one, of [`Adam`]. `max` is the largest mean square
/// so far, wanted for AMSGrad (Reddi, Kale and Kumar, 2018) only.
///
/// # Panics
/// If shapes differ.
pub fn adam<T: Real>(
    o: &Adam,
    step: u64,
    grad: Src<T>,
    param: Dst<T>,
    mean: Dst<T>,
    square: Dst<T>,
    max: Option<Dst<T>>,
) {
    T::adam_kernel(o, step, grad, param, mean, square, max)
}

fn adam_of<T: Real>(
    o: &Adam,
    step: u64,
    grad: Src<T>,
    param: Dst<T>,
    mean: Dst<T>,
    square: Dst<T>,
    max: Option<Dst<T>>,
) {
    let decay = if o.decoupled { 0.0 } else { o.weight_decay };
    let correction = o.betas.map(|b| 1.0 - b.powf(step as f64));
    let rule = AdamStep {
        decay: Decay { factor: decay, maximize: o.maximize },
        o,
        step_size: o.lr / correction[0],
        root: correction[1].sqrt(),
    };
    match max {
        None => update(grad, [param, mean, square], rule),
        Some(max) => update(grad, [param, mean, square, max], rule),
    }
}

/// A step of [`Adadelta`]; `square` and `delta` are the running mean squares of the
/// gradient and of the updates.
///
/// # Panics
/// If shapes differ.
pub fn adadelta<T: Real>(o: &Adadelta, grad: Src<T>, param: Dst<T>, square: Dst<T>, delta: Dst<T>) {
    T::adadelta_kernel(o, grad, param, square, delta)
}

fn adadelta_of<T: Real>(o: &Adadelta, grad: Src<T>, param: Dst<T>, square: Dst<T>, delta: Dst<T>) {
    let decay = Decay { factor: o.weight_decay, maximize: o.maximize };
    update(grad, [param, square, delta], AdadeltaStep { decay, o });
}

/// A step of [`RmsProp`]; `square` is the running mean square, `mean` the running mean,
/// wanted if centred only, `buffer` the running update, wanted if there is momentum.
///
/// # Panics
/// If shapes differ, or the buffer is missing.
pub fn rms_prop<T: Real>(
    o: &RmsProp,
    grad: Src<T>,
    param: Dst<T>,
    square: Dst<T>,
    mean: Option<Dst<T>>,
    buffer: Option<Dst<T>>,
) {
    T::rms_prop_kernel(o, grad, param, square, mean, buffer)
}

fn rms_prop_of<T: Real>(
    o: &RmsProp,
    grad: Src<T>,
    param: Dst<T>,
    square: Dst<T>,
    mean: Option<Dst<T>>,
    buffer: Option<Dst<T>>,
) {
    let decay = Decay { factor: o.weight_decay, maximize: o.maximize };
    let buffer = (o.momentum > 0.0).then(|| buffer.expect("momentum wants a buffer"));
    let rule = RmsPropStep { decay, o, centred: mean.is_some() };
    match (mean, buffer) {
        (None, None) => update(grad, [param, square], rule),
        (Some(v), None) | (None, Some(v)) => update(grad, [param, square, v], rule),
        (Some(m), Some(b)) => update(grad, [param, square, m, b], rule),
    }
}

/// Step number `step`, counted from one, of [`Adagrad`]; `sum` is the sum of squares.
///
/// # Panics
/// If shapes differ.
pub fn adagrad<T: Real>(o: &Adagrad, step: u64, grad: Src<T>, param: Dst<T>, sum: Dst<T>) {
    T::adagrad_kernel(o, step, grad, param, sum)
}

fn adagrad_of<T: Real>(o: &Adagrad, step: u64, grad: Src<T>, param: Dst<T>, sum: Dst<T>) {
    let decay = Decay { factor: o.weight_decay, maximize: o.maximize };
    let lr = o.lr / (1.0 + (step as f64 - 1.0) * o.lr_decay);
    update(grad, [param, sum], AdagradStep { decay, lr, eps: o.eps });
}

/// The new values of a parameter and its state, the parameter first.
trait Rule<const K: usize>: Copy + Sync {
    fn step<V: RealVector<Elem: Real>>(&self, g: V, state: [V; K]) -> [V; K];
}

#[inline(always)]
fn lit<V: RealVector<Elem: Real>>(v: f64) -> V {
    V::splat(V::Elem::of(v))
}

/// What is done to a gradient first.
#[derive(Clone, Copy)]
struct Decay {
    factor: f64,
    maximize: bool,
}

impl Decay {
    #[inline(always)]
    fn apply<V: RealVector<Elem: Real>>(self, g: V, p: V) -> V {
        let g = if self.maximize { lit::<V>(0.0).sub(g) } else { g };
        if self.factor == 0.0 { g } else { p.fma(lit(self.factor), g) }
    }
}

/// From `a` to `b` by `weight`, exact at both ends.
#[inline(always)]
fn lerp<V: RealVector<Elem: Real>>(a: V, b: V, weight: f64) -> V {
    if weight < 0.5 { b.sub(a).fma(lit(weight), a) } else { b.sub(a).fma(lit(weight - 1.0), b) }
}

/// `decay s + (1 - decay) v²`.
#[inline(always)]
fn mean_square<V: RealVector<Elem: Real>>(s: V, v: V, decay: f64) -> V {
    v.mul(v).fma(lit(1.0 - decay), s.mul(lit(decay)))
}

#[derive(Clone, Copy)]
struct SgdStep<'a> {
    decay: Decay,
    o: &'a Sgd,
    first: bool,
}

impl Rule<1> for SgdStep<'_> {
    #[inline(always)]
    fn step<V: RealVector<Elem: Real>>(&self, g: V, [p]: [V; 1]) -> [V; 1] {
        [self.decay.apply(g, p).fma(lit(-self.o.lr), p)]
    }
}

impl Rule<2> for SgdStep<'_> {
    #[inline(always)]
    fn step<V: RealVector<Elem: Real>>(&self, g: V, [p, buffer]: [V; 2]) -> [V; 2] {
        let o = self.o;
        let g = self.decay.apply(g, p);
        let buffer =
            if self.first { g } else { g.fma(lit(1.0 - o.dampening), buffer.mul(lit(o.momentum))) };
        let g = if o.nesterov { buffer.fma(lit(o.momentum), g) } else { buffer };
        [g.fma(lit(-o.lr), p), buffer]
    }
}

#[derive(Clone, Copy)]
struct AdamStep<'a> {
    decay: Decay,
    o: &'a Adam,
    step_size: f64,
    root: f64,
}

impl AdamStep<'_> {
    /// The new parameter, mean, mean square and largest mean square.
    #[inline(always)]
    fn all<V: RealVector<Elem: Real>>(&self, g: V, [p, m, v]: [V; 3], max: Option<V>) -> [V; 4] {
        let o = self.o;
        let g = self.decay.apply(g, p);
        let p = if o.decoupled { p.mul(lit(1.0 - o.lr * o.weight_decay)) } else { p };
        let m = lerp(m, g, 1.0 - o.betas[0]);
        let v = mean_square(v, g, o.betas[1]);
        let max = match max {
            Some(max) => max.max(v),
            None => v,
        };
        let denominator = max.sqrt().div(lit(self.root)).add(lit(o.eps));
        [m.div(denominator).fma(lit(-self.step_size), p), m, v, max]
    }
}

impl Rule<3> for AdamStep<'_> {
    #[inline(always)]
    fn step<V: RealVector<Elem: Real>>(&self, g: V, state: [V; 3]) -> [V; 3] {
        let [p, m, v, _] = self.all(g, state, None);
        [p, m, v]
    }
}

impl Rule<4> for AdamStep<'_> {
    #[inline(always)]
    fn step<V: RealVector<Elem: Real>>(&self, g: V, [p, m, v, max]: [V; 4]) -> [V; 4] {
        self.all(g, [p, m, v], Some(max))
    }
}

#[derive(Clone, Copy)]
struct AdadeltaStep<'a> {
    decay: Decay,
    o: &'a Adadelta,
}

impl Rule<3> for AdadeltaStep<'_> {
    #[inline(always)]
    fn step<V: RealVector<Elem: Real>>(&self, g: V, [p, square, delta]: [V; 3]) -> [V; 3] {
        let o = self.o;
        let g = self.decay.apply(g, p);
        let square = mean_square(square, g, o.rho);
        let root = |v: V| v.add(lit(o.eps)).sqrt();
        let d = root(delta).div(root(square)).mul(g);
        [d.fma(lit(-o.lr), p), square, mean_square(delta, d, o.rho)]
    }
}

#[derive(Clone, Copy)]
struct RmsPropStep<'a> {
    decay: Decay,
    o: &'a RmsProp,
    centred: bool,
}

impl RmsPropStep<'_> {
    #[inline(always)]
    fn all<V: RealVector<Elem: Real>>(
        &self,
        g: V,
        [p, square]: [V; 2],
        mean: V,
        buffer: V,
    ) -> [V; 4] {
        let o = self.o;
        let g = self.decay.apply(g, p);
        let square = mean_square(square, g, o.alpha);
        let (mean, variance) = if self.centred {
            let mean = lerp(mean, g, 1.0 - o.alpha);
            (mean, mean.mul(lit(-1.0)).fma(mean, square))
        } else {
            (mean, square)
        };
        let scaled = g.div(variance.sqrt().add(lit(o.eps)));
        if o.momentum > 0.0 {
            let buffer = buffer.fma(lit(o.momentum), scaled);
            return [buffer.fma(lit(-o.lr), p), square, mean, buffer];
        }
        [scaled.fma(lit(-o.lr), p), square, mean, buffer]
    }
}

impl Rule<2> for RmsPropStep<'_> {
    #[inline(always)]
    fn step<V: RealVector<Elem: Real>>(&self, g: V, [p, square]: [V; 2]) -> [V; 2] {
        let [p, square, ..] = self.all(g, [p, square], p, p);
        [p, square]
    }
}

impl Rule<3> for RmsPropStep<'_> {
    #[inline(always)]
    fn step<V: RealVector<Elem: Real>>(&self, g: V, [p, square, v]: [V; 3]) -> [V; 3] {
        let [p, square, mean, buffer] = self.all(g, [p, square], v, v);
        [p, square, if self.centred { mean } else { buffer }]
    }
}

impl Rule<4> for RmsPropStep<'_> {
    #[inline(always)]
    fn step<V: RealVector<Elem: Real>>(&self, g: V, [p, square, mean, buffer]: [V; 4]) -> [V; 4] {
        self.all(g, [p, square], mean, buffer)
    }
}

#[derive(Clone, Copy)]
struct AdagradStep {
    decay: Decay,
    lr: f64,
    eps: f64,
}

impl Rule<2> for AdagradStep {
    #[inline(always)]
    fn step<V: RealVector<Elem: Real>>(&self, g: V, [p, sum]: [V; 2]) -> [V; 2] {
        let g = self.decay.apply(g, p);
        let sum = g.fma(g, sum);
        [g.div(sum.sqrt().add(lit(self.eps))).fma(lit(-self.lr), p), sum]
    }
}

/// A stretch of dense operands.
struct Stretch<'a, T, R, const K: usize> {
    n: usize,
    grad: *const T,
    state: [*mut T; K],
    rule: &'a R,
}

impl<T: Real, R: Rule<K>, const K: usize> RealTask<T> for Stretch<'_, T, R, K> {
    type Out = ();
    #[inline(always)]
    fn run<V: RealVector<Elem = T>>(self) {
        let Stretch { n, grad, state, rule } = self;
        // The rule's numbers in a place that the compiler knows not to change.
        let rule = *rule;
        for_vectors(
            n,
            #[inline(always)]
            |i, k| {
                // SAFETY: `i..i + k` lies within the stretch.
                unsafe {
                    let g = read::<V>(grad, i, k, T::ZERO);
                    let mut s = [g; K];
                    for j in 0..K {
                        s[j] = read(state[j], i, k, T::ZERO);
                    }
                    let s = rule.step(g, s);
                    for j in 0..K {
                        write(s[j], state[j], i, k);
                    }
                }
            },
        );
    }
}

/// Applies a rule to each element.
fn update<T: Real, R: Rule<K>, const K: usize>(grad: Src<T>, state: [Dst<T>; K], rule: R) {
    for s in &state {
        assert_eq!(s.shape, grad.shape, "a parameter, its gradient and its state have one shape");
    }
    let n = numel(grad.shape);
    let dense = is_contiguous(grad.shape, grad.strides)
        && state.iter().all(|s| is_contiguous(s.shape, s.strides));
    if !dense {
        let copies: [Dense; K] = std::array::from_fn(|k| Dense::new::<T>(state[k].shape));
        (0..K).for_each(|k| copy(state[k].as_src(), copies[k].dst()));
        let grad_copy = Dense::copy_of(grad);
        let grad = grad_copy.as_ref().map_or(grad, |d| d.src());
        update(grad, std::array::from_fn(|k| copies[k].dst()), rule);
        (0..K).for_each(|k| copy(copies[k].src(), state[k]));
        return;
    }
    par::for_range(n, par::SHARE_NS * 10 / (K + 1), |r| {
        // SAFETY: `r` lies within the dense views.
        unsafe {
            simd::run_real(Stretch {
                n: r.len(),
                grad: grad.ptr().add(r.start),
                state: state.map(|s| s.ptr().add(r.start)),
                rule: &rule,
            });
        }
    });
}

#[cfg(test)]
mod tests;
