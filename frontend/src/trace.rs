//! Tracing: the same user code, run on tensors without data, becomes a graph.
//!
//! While a trace runs on this thread, an op with a traced operand computes nothing
//! and appends a node, and so does making a filled tensor. Ops on other tensors
//! compute as always: what depends on weights alone is known. What a graph cannot
//! hold is an error that names the line and the remedy, never a constant baked in
//! silently: reading a value of a traced tensor, drawing random numbers, writing to
//! a tensor from outside.
//!
//! A [`session`] traces more: parameters and buffers are inputs, too, what is written to
//! them becomes their new value, ops are recorded on the tape, whose backward pass is
//! traced like anything else, and random numbers are drawn from a place that is an input.

mod numbers;
mod session;
mod symbolic;

#[doc(hidden)]
pub use session::Session;
pub(crate) use session::{Source, TracedStep, draw, reads_outside};

pub use symbolic::{DynamicDim, trace};

use crate::tensor::Tensor;
use sinter_runtime::op::{TensorType, TypeRef, infer};
use sinter_runtime::{Array, Device, Op};
use smallvec::SmallVec;
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, Location};
use std::sync::Arc;
use thiserror::Error;

/// Why a function could not be traced.
#[derive(Debug, Clone, PartialEq, Error)]
#[non_exhaustive]
pub enum TraceError {
    /// A value was read that does not exist while tracing.
    #[error(
        "T001: a value of a traced tensor was read at {at}: while tracing tensors have no data; \
         compute the decision with tensor ops (`where_`), or move it out of the traced function"
    )]
    ValueRead {
        /// The line.
        at: String,
    },
    /// Random numbers were drawn.
    #[error(
        "T002: random numbers were drawn at {at} while tracing: they would be the same in every run; \
         call `model.eval()` first, or pass them in as an input"
    )]
    Random {
        /// The line.
        at: String,
    },
    /// A tensor from outside the trace was changed in place.
    #[error(
        "T003: `{op}` at {at} writes to a tensor from outside the traced function: the compiled \
         program would not; return the new value instead"
    )]
    Write {
        /// The op.
        op: String,
        /// The line.
        at: String,
    },
    /// A view was changed in place, or a tensor that has views.
    #[error(
        "T004: `{op}` at {at} changes a tensor in place that shares memory with a view; \
         use the out-of-place op while tracing"
    )]
    View {
        /// The op.
        op: String,
        /// The line.
        at: String,
    },
    /// The code did something else for another size.
    #[error(
        "T005: tracing with {symbol} = {first} and with {symbol} = {second} gave different programs: {what}; \
         fix the size (trace without a symbolic dimension) or make the code independent of it"
    )]
    Diverges {
        /// The symbol.
        symbol: String,
        /// One size.
        first: usize,
        /// The other size.
        second: usize,
        /// Where and how they part.
        what: String,
    },
    /// An extent is no polynomial of the sizes.
    #[error("T006: {0}")]
    Extent(String),
    /// The function returned a tensor that does not depend on its inputs, or took
    /// part in another trace.
    #[error("T007: {0}")]
    Output(String),
    /// Nested tracing.
    #[error("T008: a function is being traced on this thread already")]
    Nested,
    /// The request contradicts itself.
    #[error("T009: {0}")]
    Request(String),
    /// A parameter or buffer was read in a way that tracing does not see.
    #[error(
        "T011: an op at {at} reads the memory of a parameter or buffer that the step changes through a \
         tensor made outside of the traced function; make the view, or read the parameter, inside of it"
    )]
    Outside {
        /// The line.
        at: String,
    },
    /// The op exists in eager execution alone.
    #[error(
        "T010: `{op}` at {at} cannot be part of a compiled program: {reason}; \
         compute it outside of the traced function and pass the result in, or keep this part eager"
    )]
    EagerOnly {
        /// The op.
        op: String,
        /// The line.
        at: String,
        /// Why.
        reason: String,
    },
}

/// A value of the graph being traced.
#[derive(Clone, Debug)]
pub(crate) struct Traced {
    /// Which trace.
    trace: u64,
    /// Which value of it.
    place: Operand,
    /// Whether it shares memory with another value: made by a view op.
    view: bool,
}

/// One recorded op.
struct Step {
    op: Op,
    operands: SmallVec<[Operand; 3]>,
    types: SmallVec<[TensorType; 1]>,
    at: &'static Location<'static>,
    /// Name of the module whose parameter is an operand.
    module: Option<Arc<str>>,
}

#[derive(Clone, Copy, PartialEq, Debug)]
enum Operand {
    /// That input.
    Input(usize),
    /// That result of that op.
    Step(usize, u8),
    /// That tensor from outside.
    Captured(usize),
}

#[derive(Default)]
struct Recording {
    id: u64,
    inputs: Vec<TensorType>,
    /// Names of the inputs, where they have any.
    labels: Vec<String>,
    steps: Vec<Step>,
    captured: Vec<(Array, Option<Arc<str>>)>,
    captured_index: HashMap<(usize, usize), Vec<usize>>,
    /// Values that a view was taken of.
    viewed: Vec<Operand>,
    /// What a session records beside ops.
    session: Option<session::Notes>,
}

thread_local! {
    static ACTIVE: Cell<bool> = const { Cell::new(false) };
    static RECORDING: RefCell<Option<Recording>> = const { RefCell::new(None) };
    static NEXT: Cell<u64> = const { Cell::new(1) };
}

/// Whether a trace runs on this thread.
#[inline]
pub(crate) fn is_active() -> bool {
    ACTIVE.get()
}

/// Leaves the traced function; [`trace`] returns the error.
fn stop(e: TraceError) -> ! {
    // Not a panic: no message is printed, the stack is only unwound.
    std::panic::resume_unwind(Box::new(e))
}

#[track_caller]
#[cold]
pub(crate) fn no_data() -> ! {
    let at = Location::caller().to_string();
    if is_active() {
        stop(TraceError::ValueRead { at });
    }
    panic!("a traced tensor was used after its trace had ended");
}

/// Whether a session records a backward pass on this thread.
fn in_session() -> bool {
    is_active() && RECORDING.with_borrow(|r| r.as_ref().is_some_and(|r| r.session.is_some()))
}

#[track_caller]
pub(crate) fn forbid_random() {
    if is_active() {
        stop(TraceError::Random { at: Location::caller().to_string() });
    }
}

/// A change in place that tracing does not follow.
pub(crate) fn not_followed(op: &str, at: &'static Location<'static>) -> ! {
    stop(TraceError::View { op: op.to_string(), at: at.to_string() })
}

/// A write to memory that exists.
pub(crate) fn refuse_write(op: &str, at: &'static Location<'static>) -> ! {
    stop(TraceError::Write { op: op.to_string(), at: at.to_string() })
}

/// Appends an op.
pub(crate) fn record(
    op: &Op,
    inputs: &[&Tensor],
    at: &'static Location<'static>,
) -> SmallVec<[Tensor; 1]> {
    let types: SmallVec<[TensorType; 4]> =
        inputs.iter().map(|t| TensorType { dtype: t.dtype(), shape: t.shape().into() }).collect();
    let refs: SmallVec<[TypeRef<'_>; 4]> = types.iter().map(TensorType::as_ref).collect();
    let results = match infer(op, &refs) {
        Ok(r) => r,
        Err(e) => crate::tensor::fail(&e, inputs),
    };
    if let Some(reason) = op.eager_only() {
        let (op, at) = (op.name().to_string(), at.to_string());
        stop(TraceError::EagerOnly { op, at, reason: reason.to_string() });
    }
    let made = RECORDING.with_borrow_mut(|r| {
        let r = r.as_mut().expect("a trace is active");
        let mut module = None;
        let mut operands: SmallVec<[Operand; 3]> = SmallVec::new();
        for t in inputs {
            let o = match t.as_traced() {
                Some(v) if v.trace == r.id => {
                    if op.is_view() {
                        r.viewed.push(v.place);
                    }
                    v.place
                }
                Some(_) => {
                    return Err(TraceError::Output(format!(
                        "`{}` at {at} uses a tensor of another trace",
                        op.name()
                    )));
                }
                None => {
                    if module.is_none() {
                        module = t.name().and_then(|n| n.rsplit_once('.').map(|p| p.0.into()));
                    }
                    Operand::Captured(r.capture(t))
                }
            };
            operands.push(o);
        }
        let node = r.steps.len();
        r.steps.push(Step { op: op.clone(), operands, types: results.clone(), at, module });
        Ok((r.id, node))
    });
    let (id, node) = made.unwrap_or_else(|e| stop(e));
    results
        .into_iter()
        .enumerate()
        .map(|(k, t)| {
            let place = Operand::Step(node, k as u8);
            let v = Traced { trace: id, place, view: op.is_view() };
            Tensor::traced(v, t.dtype, t.shape)
        })
        .collect()
}

/// An op in place: on a traced tensor it makes the tensor stand for the new value.
pub(crate) fn in_place(
    name: &'static str,
    op: &Op,
    target: &Tensor,
    inputs: &[&Tensor],
    at: &'static Location<'static>,
) {
    let Some(v) = target.as_traced() else {
        stop(TraceError::Write { op: name.to_string(), at: at.to_string() });
    };
    let viewed = RECORDING.with_borrow(|r| r.as_ref().is_some_and(|r| r.viewed.contains(&v.place)));
    if v.view || viewed {
        stop(TraceError::View { op: name.to_string(), at: at.to_string() });
    }
    let recording = crate::autograd::grad_enabled()
        && (target.requires_grad() || inputs.iter().any(|t| t.requires_grad()));
    if recording && target.requires_grad() && target.is_leaf() {
        panic!(
            "{name}: a leaf that requires a gradient cannot change in place while ops are recorded \
             (shape {:?}); wrap the update in `no_grad`",
            target.shape()
        );
    }
    let new = crate::autograd::at(at, || crate::tensor::apply_traced(op, inputs)).swap_remove(0);
    if let Some(n) = new.as_traced() {
        target.rebind_traced(Traced { view: false, ..n });
    }
    if recording {
        target.take_history_of(&new);
    }
}

/// A detached handle on the value of a tensor with a history: as a view, since a change
/// through it would have to be seen by the tensor.
pub(crate) fn detached(v: &Traced) -> Traced {
    RECORDING.with_borrow_mut(|r| {
        if let Some(r) = r.as_mut().filter(|r| r.id == v.trace) {
            r.viewed.push(v.place);
        }
    });
    Traced { view: true, ..v.clone() }
}

/// Whether a traced matrix is the transpose of a value that lies densely.
pub(crate) fn is_transposed(t: &Tensor) -> bool {
    let Some(Traced { place: Operand::Step(i, _), .. }) = t.as_traced() else { return false };
    RECORDING.with_borrow(|r| {
        let step = r.as_ref().and_then(|r| r.steps.get(i));
        step.is_some_and(|s| matches!(&s.op, Op::Permute { perm } if perm.as_slice() == [1, 0]))
    })
}

impl Recording {
    /// The number of a tensor from outside; the same view of the same memory gets
    /// the same number.
    fn capture(&mut self, t: &Tensor) -> usize {
        let a = t.array();
        if t.device() != Device::Cpu {
            panic!(
                "tracing: a tensor on {} is used, {} {:?}; compiled programs run on the processor, \
                 move it with `to`",
                t.device(),
                t.dtype(),
                t.shape()
            );
        }
        if let Some(s) = &mut self.session {
            s.note(a);
        }
        let key = (a.block().as_ptr() as usize, a.offset());
        let same = self.captured_index.entry(key).or_default();
        if let Some(&i) = same.iter().find(|&&i| self.captured[i].0.is_same_view(a)) {
            return i;
        }
        self.captured.push((a.clone(), t.name()));
        let i = self.captured.len() - 1;
        same.push(i);
        i
    }
}

/// Ends the trace on this thread, also when the function panics.
struct Ending;

impl Drop for Ending {
    fn drop(&mut self) {
        ACTIVE.set(false);
        RECORDING.with_borrow_mut(|r| *r = None);
    }
}

/// Runs `f` on traced tensors of the given types.
fn run(
    f: &dyn Fn(&[Tensor]) -> Vec<Tensor>,
    inputs: &[TensorType],
) -> Result<(Recording, Vec<Operand>), TraceError> {
    if ACTIVE.replace(true) {
        return Err(TraceError::Nested);
    }
    let ending = Ending;
    let id = NEXT.replace(NEXT.get() + 1);
    RECORDING.with_borrow_mut(|r| {
        *r = Some(Recording { id, inputs: inputs.to_vec(), ..Recording::default() });
    });
    let tensors: Vec<Tensor> = inputs
        .iter()
        .enumerate()
        .map(|(i, t)| {
            let v = Traced { trace: id, place: Operand::Input(i), view: false };
            Tensor::traced(v, t.dtype, t.shape.clone())
        })
        .collect();
    let outs = crate::no_grad(|| {
        std::panic::catch_unwind(AssertUnwindSafe(|| f(&tensors))).map_err(|payload| {
            match payload.downcast::<TraceError>() {
                Ok(e) => *e,
                // A mistake in the user's code: it stays the panic it is.
                Err(other) => std::panic::resume_unwind(other),
            }
        })
    })?;
    let mut rec = RECORDING.with_borrow_mut(Option::take).expect("the trace is active");
    drop(ending);
    let outs = outs
        .iter()
        .map(|t| match t.as_traced() {
            Some(v) if v.trace == id => Ok(v.place),
            Some(_) => Err(TraceError::Output("a result belongs to another trace".into())),
            None => Ok(Operand::Captured(rec.capture(t))),
        })
        .collect::<Result<Vec<Operand>, _>>()?;
    Ok((rec, outs))
}
