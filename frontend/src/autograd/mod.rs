//! The tape: each recorded op is a node that points to the nodes of its
//! operands and keeps what its derivative needs.
//!
//! Derivatives are written in the same ops ([`vjp`]), so a backward pass run
//! with `create_graph` is recorded like anything else, and can be
//! differentiated again.
//!
//! Nothing recurses on the depth of the tape: not [`backward`](Tensor::backward),
//! and not dropping it.

mod backward;
mod check;
mod checkpoint;
mod engine;
mod function;
mod graph;
mod hooks;
pub(crate) mod mode;
mod node;
mod parts;
mod replace;
mod saved;
mod views;
mod vjp;
mod writes;

pub use backward::{Backward, grad};
pub use check::{GradCheck, GradCheckError, gradcheck, gradgradcheck};
pub use checkpoint::{Checkpoint, CheckpointPolicy, Stage, checkpoint, checkpoint_sequential};
pub(crate) use checkpoint::{keep_selected, selected};
pub(crate) use engine::depends_on_others;
pub(crate) use engine::has_nan;
pub use engine::queue_callback;
pub use function::{Function, FunctionCtx};
pub use graph::{GradFn, NextFunction};
pub(crate) use hooks::move_keeper;
pub use hooks::{HookHandle, MultiGrad, register_multi_grad_hook};
pub use mode::{
    GradGuard, detect_anomaly, detect_forward_nan, enable_grad, enable_grad_guard, grad_enabled,
    inference_mode, inference_mode_enabled, inference_mode_guard, no_grad, no_grad_guard,
    set_detect_anomaly, set_grad_enabled,
};
pub(crate) use node::{Node, at, line, node_for, node_in_place, record_all, record_traced};
pub(crate) use replace::{replaced, with_replaced};
pub use saved::{SavedHooksGuard, disable_saved_tensors_hooks, save_on_cpu, saved_tensors_hooks};
pub(crate) use views::{lies_within, read as view_history, write as base_history};
pub(crate) use vjp::has_rule;
pub(crate) use writes::{note_write, written_at};

use crate::tensor::Tensor;
use hooks::Hooks;
use sinter_runtime::{Op, Shape};
use std::panic::Location;
use std::sync::Arc;

/// What a tensor knows of autograd.
#[derive(Default)]
pub(crate) struct Meta {
    /// The node that made the tensor, and which of its results it is.
    pub(crate) grad_fn: Option<(Arc<Node>, u16)>,
    pub(crate) grad: Option<Tensor>,
    pub(crate) hooks: Option<Box<Hooks>>,
    pub(crate) name: Option<Arc<str>>,
}

/// Where the gradient of an operand goes.
#[derive(Clone)]
pub(crate) enum Edge {
    /// Nowhere: the operand is a constant.
    None,
    /// To the node whose result it is.
    Node(Arc<Node>, u16),
    /// Into the gradient of a leaf.
    Leaf(Tensor),
}

/// A view that autograd does not follow (made without recording, or by a function
/// of the user's) and whose memory was changed by a recorded op since has no history
/// that tells how its values came about: an error, never a wrong gradient.
#[track_caller]
#[cold]
pub(crate) fn check_views(inputs: &[&Tensor], op: &Op) {
    for t in inputs.iter().filter(|t| t.is_untracked_view()) {
        let block = t.array().block();
        let taken = t.view_version();
        let stale =
            block.version() > taken && (t.requires_grad() || block.recorded_version() > taken);
        if stale {
            panic!(
                "{}: an operand of shape {:?} is a view that was made without recording, and its \
                 memory was modified in place by a recorded op since{}; take the view again after \
                 the modification, or make both where ops are recorded (used at {})",
                op.name(),
                t.shape(),
                written_at(block),
                Location::caller(),
            );
        }
    }
}

/// Refuses to record an op that would keep a tensor made in inference mode.
#[track_caller]
#[cold]
pub(crate) fn check_inference(inputs: &[&Tensor], op: &Op) {
    let kept = vjp::saves(op, inputs.len(), vjp::wanted(inputs)).inputs;
    for (i, t) in inputs.iter().enumerate().take(32) {
        if t.is_inference() && kept >> i & 1 == 1 {
            panic!(
                "{}: operand {i}, {} {:?}, was made in inference mode and cannot be kept for a \
                 derivative; use a `copy` of it, or `no_grad` where it is made",
                op.name(),
                t.dtype(),
                t.shape(),
            );
        }
    }
}

/// Sums a gradient down to the shape of an operand that was broadcast.
pub(crate) fn sum_to(g: &Tensor, shape: &[usize]) -> Tensor {
    if g.shape() == shape {
        return g.clone();
    }
    let lead = g.rank() - shape.len();
    let axes: Shape = (0..g.rank())
        .filter(|&i| i < lead || (shape[i - lead] == 1 && g.shape()[i] != 1))
        .collect();
    let op = Op::Reduce { kind: sinter_runtime::op::ReduceKind::Sum, axes, keep: true };
    let summed = crate::tensor::apply(op, &[g]);
    if lead == 0 { summed } else { summed.reshape(shape) }
}
