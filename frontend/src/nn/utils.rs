//! What training loops do to gradients; sequences of different lengths.

pub mod rnn;

use super::Param;
use crate::no_grad;

/// Scales all gradients so that their joint Euclidean norm is at most `max_norm`;
/// returns the norm before.
#[track_caller]
pub fn clip_grad_norm_(params: &[Param], max_norm: f64) -> f64 {
    no_grad(|| {
        let grads: Vec<_> = params.iter().filter_map(|p| p.grad()).collect();
        let total = grads.iter().map(|g| g.square().sum().item::<f64>()).sum::<f64>().sqrt();
        let factor = max_norm / (total + 1e-6);
        if factor < 1.0 {
            for g in &grads {
                g.mul_(factor);
            }
        }
        total
    })
}

/// Limits every element of all gradients to `[-value, value]`.
#[track_caller]
pub fn clip_grad_value_(params: &[Param], value: f64) {
    no_grad(|| {
        for g in params.iter().filter_map(|p| p.grad()) {
            g.clamp_(-value, value);
        }
    });
}
