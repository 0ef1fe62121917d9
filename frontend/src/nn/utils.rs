//! What training loops do to gradients; sequences of different lengths.

pub mod rnn;

use super::Param;
use crate::no_grad;
use crate::tensor::{Tensor, zeros};

/// Scales all gradients so that their joint Euclidean norm is at most `max_norm`;
/// returns the norm before, a number that is read nowhere here.
#[track_caller]
pub fn clip_grad_norm_(params: &[Param], max_norm: f64) -> Tensor {
    no_grad(|| {
        let grads: Vec<Tensor> = params.iter().filter_map(|p| p.grad()).collect();
        let Some(first) = grads.first() else { return zeros(()) };
        let dtype = first.dtype();
        let squares = grads.iter().map(|g| g.square().sum().to_dtype(dtype));
        let total = squares.reduce(|a, b| a + b).expect("there is a gradient").sqrt();
        let factor = ((&total + 1e-6).reciprocal() * max_norm).clamp(None, 1.0);
        for p in params {
            let of = |g: &Tensor| factor.to_dtype(g.dtype());
            change(p, |g| g * of(g), |g| _ = g.mul_(of(g)));
        }
        total
    })
}

/// Changes a gradient in place. A traced one is replaced: it may be a view, and nobody
/// else holds it.
fn change(p: &Param, new: impl Fn(&Tensor) -> Tensor, in_place: impl Fn(&Tensor)) {
    match p.grad() {
        Some(g) if g.is_traced() => p.set_grad(Some(new(&g))),
        Some(g) => in_place(&g),
        None => {}
    }
}

/// Limits every element of all gradients to `[-value, value]`.
#[track_caller]
pub fn clip_grad_value_(params: &[Param], value: f64) {
    no_grad(|| {
        for p in params {
            change(p, |g| g.clamp(-value, value), |g| _ = g.clamp_(-value, value));
        }
    });
}
