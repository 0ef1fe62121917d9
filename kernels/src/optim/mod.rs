//! Updates of parameters by their gradients, in one pass over memory.
//!
//! Each follows the formulas that PyTorch documents for the optimizer of that name,
//! including the place of `eps`. Parameters and state are changed in place.

mod formula;

pub use formula::{Arith, Formula};

use crate::copy::copy;
use crate::par;
use crate::scratch::Dense;
use crate::simd::row::{for_vectors, read, write};
use crate::simd::{self, Real, RealTask, RealVector};
use crate::view::{Dst, Src, is_contiguous, numel};
use formula::{Centred, Lanes};

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
    let step = if first { 1 } else { 2 };
    if o.momentum == 0.0 {
        return update::<T, _, 1, 1>(grad, [param], o, step);
    }
    let buffer = buffer.expect("momentum wants a buffer");
    if first {
        // Whatever lies there counts nothing, not even NaN.
        crate::copy::fill(buffer, T::ZERO);
    }
    update::<T, _, 2, 3>(grad, [param, buffer], o, step);
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
    match max {
        None => update::<T, _, 3, 3>(grad, [param, mean, square], o, step),
        Some(max) => update::<T, _, 4, 3>(grad, [param, mean, square, max], o, step),
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
    update::<T, _, 3, 1>(grad, [param, square, delta], o, 1);
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
    let buffer = (o.momentum > 0.0).then(|| buffer.expect("momentum wants a buffer"));
    match (mean, buffer) {
        (None, None) => update::<T, _, 2, 1>(grad, [param, square], o, 1),
        (None, Some(b)) => update::<T, _, 3, 1>(grad, [param, square, b], o, 1),
        (Some(m), None) => update::<T, _, 3, 1>(grad, [param, square, m], &Centred(*o), 1),
        (Some(m), Some(b)) => update::<T, _, 4, 1>(grad, [param, square, m, b], &Centred(*o), 1),
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
    update::<T, _, 2, 1>(grad, [param, sum], o, step);
}

/// A stretch of dense operands.
struct Stretch<'a, T, R, const K: usize, const N: usize> {
    n: usize,
    grad: *const T,
    state: [*mut T; K],
    rule: &'a R,
    numbers: [f64; N],
}

impl<T: Real, R: Formula<K, N>, const K: usize, const N: usize> RealTask<T>
    for Stretch<'_, T, R, K, N>
{
    type Out = ();
    #[inline(always)]
    fn run<V: RealVector<Elem = T>>(self) {
        let Stretch { n, grad, state, rule, numbers } = self;
        // The rule's numbers in a place that the compiler knows not to change.
        let rule = *rule;
        let numbers = numbers.map(|v| Lanes(V::splat(T::of(v))));
        for_vectors(
            n,
            #[inline(always)]
            |i, k| {
                // SAFETY: `i..i + k` lies within the stretch.
                unsafe {
                    let g = Lanes(read::<V>(grad, i, k, T::ZERO));
                    let mut s = [g; K];
                    for j in 0..K {
                        s[j] = Lanes(read(state[j], i, k, T::ZERO));
                    }
                    let s = rule.step(&numbers, g, s);
                    for j in 0..K {
                        write(s[j].0, state[j], i, k);
                    }
                }
            },
        );
    }
}

/// Applies a formula to each element, for step number `step`.
fn update<T: Real, R: Formula<K, N>, const K: usize, const N: usize>(
    grad: Src<T>,
    state: [Dst<T>; K],
    rule: &R,
    step: u64,
) {
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
        update(grad, std::array::from_fn(|k| copies[k].dst()), rule, step);
        (0..K).for_each(|k| copy(copies[k].src(), state[k]));
        return;
    }
    let numbers = rule.numbers(step);
    par::for_range(n, par::SHARE_NS * 10 / (K + 1), |r| {
        // SAFETY: `r` lies within the dense views.
        unsafe {
            simd::run_real(Stretch {
                n: r.len(),
                grad: grad.ptr().add(r.start),
                state: state.map(|s| s.ptr().add(r.start)),
                rule,
                numbers,
            });
        }
    });
}

#[cfg(test)]
mod tests;
