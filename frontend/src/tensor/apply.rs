//! The one door through which every op goes: run it or trace it, record it or not.

use super::{BATCHED, DEFERRED, INFERENCE, REQUIRES_GRAD, Tensor, UNTRACKED};
use crate::autograd::{self, mode};
use crate::{batch, trace};
use sinter_runtime::op::{Build, TensorType, attention_grad, complex, decompose, infer};
use sinter_runtime::{Array, Op, OpError, eager};
use smallvec::SmallVec;
use std::panic::Location;

/// Panics at the user's line with an op's complaint.
#[track_caller]
#[cold]
pub(crate) fn fail(e: &OpError, inputs: &[&Tensor]) -> ! {
    panic!("{e}{}", operands(e, inputs));
}

/// What a complaint does not say of the operands: their types, unless it is about
/// shapes and names them itself, and whose parameters they are.
fn operands(e: &OpError, inputs: &[&Tensor]) -> String {
    let named = inputs.iter().any(|t| t.name().is_some());
    let told = matches!(e, OpError::Shape { .. } | OpError::Memory { .. });
    if inputs.is_empty() || told && !named {
        return String::new();
    }
    let one = |(i, t): (usize, &&Tensor)| {
        let ty = format!("operand {i} is {} {:?}", t.dtype(), t.shape());
        t.name().map_or(ty.clone(), |n| format!("{ty}, `{n}`"))
    };
    let list: Vec<String> = inputs.iter().enumerate().map(one).collect();
    format!(" ({})", list.join("; "))
}

/// [`fail`] of an op that was asked for by another name.
#[track_caller]
#[cold]
pub(crate) fn fail_as(name: &str, op: &Op, e: &OpError, inputs: &[&Tensor]) -> ! {
    let text = e.to_string();
    let reason = text.strip_prefix(op.name()).and_then(|t| t.strip_prefix(": ")).unwrap_or(&text);
    panic!("{name}: {reason}{}", operands(e, inputs));
}

/// How an op on these operands must be run.
#[inline]
fn flags(inputs: &[&Tensor]) -> u8 {
    inputs.iter().fold(0, |f, t| f | t.flags())
}

/// Applies an op with one result.
#[track_caller]
#[inline]
pub(crate) fn apply(op: Op, inputs: &[&Tensor]) -> Tensor {
    // Asked once: an op costs about as much as a dozen such questions.
    let mode = mode::get();
    if mode & mode::REPLACE != 0
        && let Some(others) = autograd::replaced(inputs)
    {
        let _off = mode::set(mode::REPLACE, 0);
        return apply(op, &others.iter().collect::<SmallVec<[&Tensor; 4]>>());
    }
    // Filled tensors made while tracing belong to the graph: their shape may
    // depend on a symbolic size.
    if trace::is_active() && (inputs.is_empty() || inputs.iter().any(|t| t.is_traced())) {
        if complex::concerns(&op, inputs.iter().map(|t| t.dtype())) {
            return decomposed(&op, inputs);
        }
        if is_number_along_axis(&op, inputs) {
            return lifted(op, inputs).swap_remove(0);
        }
        return apply_traced(&op, inputs).swap_remove(0);
    }
    if trace::is_active() {
        trace::reads_outside(inputs);
    }
    let flags = flags(inputs);
    if flags & BATCHED != 0 {
        if is_number_along_axis(&op, inputs) {
            return lifted(op, inputs).swap_remove(0);
        }
        return batch::apply_batched(op, inputs).swap_remove(0);
    }
    if mode & mode::DEFER != 0 {
        if is_number_along_axis(&op, inputs) {
            return lifted(op, inputs).swap_remove(0);
        }
        if let Some(t) = batch::defer(&op, inputs) {
            return t;
        }
    }
    if flags & DEFERRED != 0 {
        let values = batch::resolved(inputs);
        return apply(op, &values.iter().collect::<SmallVec<[&Tensor; 4]>>());
    }
    let grad = flags != 0 && mode::records(mode);
    if grad {
        if flags & (UNTRACKED | INFERENCE) != 0 {
            check(&op, inputs, flags);
        }
        let composite = || op.is_composite(inputs.len()) && !autograd::has_rule(&op, inputs);
        let in_parts = || complex::concerns(&op, inputs.iter().map(|t| t.dtype()));
        if flags & REQUIRES_GRAD != 0 && (composite() || in_parts()) {
            return decomposed(&op, inputs);
        }
    }
    let kept = if mode & mode::SELECT != 0 { autograd::selected(&op) } else { None };
    let ran = match inputs {
        _ if kept.is_some() => Ok(kept.expect("it is some")),
        [x] => eager::run1(&op, &[x.array()]),
        [x, y] => eager::run1(&op, &[x.array(), y.array()]),
        _ => eager::run1(&op, &inputs.iter().map(|t| t.array()).collect::<SmallVec<[_; 4]>>()),
    };
    let out = match ran {
        Ok(a) => a,
        Err(_) if is_number_along_axis(&op, inputs) => return lifted(op, inputs).swap_remove(0),
        Err(e) => fail(&e, inputs),
    };
    if mode & (mode::FORWARD_NAN | mode::SELECT) != 0 {
        look_at(&op, inputs, &out);
    }
    // A reshape that strides cannot express is a copy.
    let view = op.is_view() && out.block().same(inputs[0].array().block());
    if grad && flags & REQUIRES_GRAD != 0 && out.dtype().is_differentiable() {
        let node = autograd::node_for(op, inputs, &out, Location::caller());
        if view {
            Tensor::recorded_view(out, node, inputs[0])
        } else {
            Tensor::recorded(out, node, 0)
        }
    } else if view {
        Tensor::view_of(out, inputs[0], mode::records(mode))
    } else {
        Tensor::made(out, mode)
    }
}

/// Appends an op to the trace, and to the tape where a gradient is wanted.
#[track_caller]
#[cold]
pub(crate) fn apply_traced(op: &Op, inputs: &[&Tensor]) -> SmallVec<[Tensor; 1]> {
    let at = autograd::line(Location::caller());
    let grad = autograd::grad_enabled() && inputs.iter().any(|t| t.requires_grad());
    if grad && op.is_composite(inputs.len()) && !autograd::has_rule(op, inputs) {
        return smallvec::smallvec![decomposed(op, inputs)];
    }
    let outs = trace::record(op, inputs, at);
    if grad { autograd::record_traced(op, inputs, outs, at) } else { outs }
}

/// What recording refuses of views that are not followed and of tensors made in
/// inference mode.
#[track_caller]
#[cold]
fn check(op: &Op, inputs: &[&Tensor], flags: u8) {
    if flags & UNTRACKED != 0 {
        autograd::check_views(inputs, op);
    }
    if flags & INFERENCE != 0 && flags & REQUIRES_GRAD != 0 {
        autograd::check_inference(inputs, op);
    }
}

/// Keeps a result for a checkpointed region that wants it; refuses a NaN that no
/// operand had.
#[track_caller]
#[cold]
fn look_at(op: &Op, inputs: &[&Tensor], out: &Array) {
    if mode::get() & mode::SELECT != 0 {
        autograd::keep_selected(op, out);
    }
    if mode::get() & mode::FORWARD_NAN == 0 {
        return;
    }
    let _off = mode::set(mode::FORWARD_NAN, 0);
    let made = autograd::has_nan(&Tensor::from_array(out.clone()))
        && !inputs.iter().any(|t| autograd::has_nan(t));
    if made {
        let shapes: Vec<String> =
            inputs.iter().map(|t| format!("{} {:?}", t.dtype(), t.shape())).collect();
        panic!("{}: made a NaN out of operands without any: {}", op.name(), shapes.join(", "));
    }
}

/// Applies any op of the vocabulary, as the methods of [`Tensor`] do: the way of
/// importers and other programs that hold ops as values.
///
/// ```
/// use sinter::{Op, apply_op, tensor};
/// let x = tensor([[3i64, 1, 2]]);
/// let sorted = apply_op(Op::Sort { axis: 1, descending: false }, &[&x]);
/// assert_eq!(sorted[0].to_vec::<i64>(), [1, 2, 3]);
/// assert_eq!(sorted[1].to_vec::<i64>(), [1, 2, 0]);
/// ```
///
/// # Panics
/// If the operands break the op's rule.
#[track_caller]
pub fn apply_op(op: Op, inputs: &[&Tensor]) -> Vec<Tensor> {
    apply_all(op, inputs).into_vec()
}

/// Applies an op with any number of results.
#[track_caller]
pub(crate) fn apply_all(op: Op, inputs: &[&Tensor]) -> SmallVec<[Tensor; 1]> {
    if op.outputs() == 1 {
        return smallvec::smallvec![apply(op, inputs)];
    }
    if mode::get() & mode::REPLACE != 0
        && let Some(others) = autograd::replaced(inputs)
    {
        let _off = mode::set(mode::REPLACE, 0);
        return apply_all(op, &others.iter().collect::<SmallVec<[&Tensor; 4]>>());
    }
    if trace::is_active() && inputs.iter().any(|t| t.is_traced()) {
        if is_number_along_axis(&op, inputs) {
            return lifted(op, inputs);
        }
        return apply_traced(&op, inputs);
    }
    if trace::is_active() {
        trace::reads_outside(inputs);
    }
    let flags = flags(inputs);
    if flags & BATCHED != 0 {
        if is_number_along_axis(&op, inputs) {
            return lifted(op, inputs);
        }
        return batch::apply_batched(op, inputs);
    }
    if flags & DEFERRED != 0 {
        let values = batch::resolved(inputs);
        return apply_all(op, &values.iter().collect::<SmallVec<[&Tensor; 4]>>());
    }
    let grad = flags != 0 && mode::grad_enabled();
    if grad && flags & (UNTRACKED | INFERENCE) != 0 {
        check(&op, inputs, flags);
    }
    let arrays: SmallVec<[&Array; 4]> = inputs.iter().map(|t| t.array()).collect();
    let outs = match eager::run(&op, &arrays) {
        Ok(a) => a,
        Err(_) if is_number_along_axis(&op, inputs) => return lifted(op, inputs),
        Err(e) => fail(&e, inputs),
    };
    if grad && flags & REQUIRES_GRAD != 0 {
        return autograd::record_all(op, inputs, outs, Location::caller());
    }
    outs.into_iter().map(Tensor::from_array).collect()
}

/// Whether an op along dimension 0 is applied to a tensor without dimensions. Only
/// asked where nothing is lost by it: the vocabulary itself has no such ops.
#[cold]
fn is_number_along_axis(op: &Op, inputs: &[&Tensor]) -> bool {
    let along = match op {
        Op::Reduce { axes, .. } => axes.as_slice() == [0],
        Op::ArgReduce { axis, .. }
        | Op::Scan { axis, .. }
        | Op::Sort { axis, .. }
        | Op::TopK { axis, .. }
        | Op::Gather { axis }
        | Op::Scatter { axis, .. }
        | Op::IndexSelect { axis }
        | Op::IndexAdd { axis }
        | Op::Softmax { axis, .. } => *axis == 0,
        _ => false,
    };
    along && inputs.first().is_some_and(|t| t.rank() == 0)
}

/// The op on vectors of one element in place of numbers.
#[track_caller]
fn lifted(op: Op, inputs: &[&Tensor]) -> SmallVec<[Tensor; 1]> {
    let mut vectors: SmallVec<[Tensor; 3]> = SmallVec::new();
    for t in inputs {
        vectors.push(if t.rank() == 0 { t.reshape([1]) } else { (*t).clone() });
    }
    // What is gathered has the shape of its index.
    let stays = matches!(op, Op::Gather { .. }) && inputs[1].rank() > 0;
    let refs: SmallVec<[&Tensor; 3]> = vectors.iter().collect();
    let mut outs = apply_all(op, &refs);
    for t in outs.iter_mut().filter(|t| !stays && t.numel() == 1) {
        *t = t.reshape(());
    }
    outs
}

/// Applies ops as the user's own line would.
struct Recorder(&'static Location<'static>);
impl Build for Recorder {
    type Dim = usize;
    type Value = Tensor;
    fn op(&mut self, op: Op, inputs: &[Tensor]) -> Result<Tensor, OpError> {
        let refs: SmallVec<[&Tensor; 4]> = inputs.iter().collect();
        Ok(autograd::at(self.0, || apply(op, &refs)))
    }
    fn type_of(&self, v: &Tensor) -> TensorType {
        TensorType { dtype: v.dtype(), shape: v.shape().into() }
    }
}

/// The derivatives of attention in ops, which are recorded.
#[track_caller]
pub(crate) fn decomposed_attention_grad(scale: f64, causal: bool, xs: &[Tensor]) -> [Tensor; 3] {
    attention_grad(&mut Recorder(Location::caller()), scale, causal, xs)
        .unwrap_or_else(|e| unreachable!("the op's rule held: {e}"))
}

/// Records a composite, or an op on complex numbers, as the ops it is made of.
#[track_caller]
pub(crate) fn decomposed(op: &Op, inputs: &[&Tensor]) -> Tensor {
    // The composite's own rule first, for a message in its name.
    let types: SmallVec<[TensorType; 4]> =
        inputs.iter().map(|t| TensorType { dtype: t.dtype(), shape: t.shape().into() }).collect();
    let refs: SmallVec<[_; 4]> = types.iter().map(TensorType::as_ref).collect();
    if let Err(e) = infer(op, &refs) {
        fail(&e, inputs);
    }
    let owned: SmallVec<[Tensor; 4]> = inputs.iter().map(|t| (*t).clone()).collect();
    match decompose(&mut Recorder(Location::caller()), op, &owned) {
        Some(Ok(t)) => t,
        Some(Err(e)) => fail(&e, inputs),
        None => unreachable!("{} is composite", op.name()),
    }
}
