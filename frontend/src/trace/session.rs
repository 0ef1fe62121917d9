//! Tracing a step of training: parameters, buffers and running tensors are inputs that
//! get new values.

use super::symbolic::{DynamicDim, Pass, graph_of};
use super::{ACTIVE, Ending, NEXT, Operand, RECORDING, Recording, TraceError, Traced, stop};
use crate::autograd;
use crate::tensor::{Tensor, apply, tensor};
use sinter_compiler::graph::Graph;
use sinter_kernels::mem::Block;
use sinter_runtime::op::TensorType;
use sinter_runtime::{Array, DType, Dim, Op, Scalar, Shape};
use std::any::Any;
use std::panic::{AssertUnwindSafe, Location};

/// What a session records beside ops.
#[derive(Default)]
pub(super) struct Notes {
    /// Memory that the step changes.
    state: Vec<Block>,
    /// Other memory that was read, and its version then.
    read: Vec<(Block, u64)>,
    /// The input that says where random numbers begin, once there are any, and how many
    /// places of the stream were taken.
    place: Option<Traced>,
    drawn: u64,
    /// Whether the step is traced for an open size.
    open: bool,
}

impl Notes {
    /// Takes note of memory from outside that is read; `false` if the step changes it.
    fn reads(&mut self, a: &Array) -> bool {
        let block = a.block();
        if self.state.iter().any(|b| b.same(block)) {
            return false;
        }
        if !self.read.iter().any(|(b, _)| b.same(block)) {
            self.read.push((block.clone(), block.version()));
        }
        true
    }

    /// [`Notes::reads`] for a tensor that becomes a constant.
    #[track_caller]
    pub(super) fn note(&mut self, a: &Array) {
        if !self.reads(a) {
            stop(TraceError::Outside { at: autograd::line(Location::caller()).to_string() });
        }
    }
}

/// Looks at the operands of an op that is computed while tracing, since none of them is
/// traced.
#[track_caller]
pub(crate) fn reads_outside(inputs: &[&Tensor]) {
    let known = RECORDING.with_borrow_mut(|r| {
        let Some(notes) = r.as_mut().and_then(|r| r.session.as_mut()) else { return true };
        inputs.iter().filter(|t| t.has_data()).all(|t| notes.reads(t.array()))
    });
    if !known {
        stop(TraceError::Outside { at: autograd::line(Location::caller()).to_string() });
    }
}

/// In a session: how far from the place where the step's random numbers begin the next
/// `n` lie, and that place as an operand.
#[track_caller]
pub(crate) fn draw(n: usize) -> Option<(u64, Tensor)> {
    if !super::in_session() {
        return None;
    }
    let (offset, place, open) = RECORDING.with_borrow_mut(|r| {
        let r = r.as_mut().expect("a session is active");
        let ty = TensorType { dtype: DType::I64, shape: Shape::from_slice(&[2]) };
        let notes = r.session.as_mut().expect("it is a session");
        let place = notes.place.get_or_insert_with(|| {
            let place = Operand::Input(r.inputs.len());
            r.inputs.push(ty.clone());
            r.labels.push("random".to_string());
            Traced { trace: r.id, place, view: false }
        });
        let offset = notes.drawn;
        notes.drawn += n.max(1) as u64;
        (offset, Tensor::traced(place.clone(), ty.dtype, ty.shape), notes.open)
    });
    if !open || offset == 0 {
        return Some((offset, place));
    }
    // How many numbers came before depends on the size: seed and offset are moved by it.
    let number =
        Op::Full { value: Scalar::Int(offset as i64), dtype: DType::I64, shape: Shape::new() };
    Some((0, place + apply(number, &[]) * tensor([0i64, 1])))
}

/// Where an input of a traced step comes from.
#[derive(Clone, Debug)]
pub(crate) enum Source {
    /// The batch's tensor of that number.
    Batch(usize),
    /// A tensor that lives on: a parameter, a buffer, an optimizer's running tensor.
    State(Tensor),
    /// The numbers of an optimizer's step, of that number in the list.
    Numbers(usize),
    /// Where the random numbers begin.
    Random,
}

/// What a panic says.
fn message(payload: &dyn Any) -> &str {
    let text = payload.downcast_ref::<String>().map(String::as_str);
    text.or(payload.downcast_ref::<&str>().copied()).unwrap_or("it panics")
}

/// A traced step.
pub(crate) struct TracedStep {
    pub(crate) graph: Graph,
    pub(crate) sources: Vec<Source>,
    /// The inputs, by their places, that get new values.
    pub(crate) updated: Vec<usize>,
    /// How many places of the random stream it takes.
    pub(crate) drawn: Dim,
    /// Memory that it was made from and the versions that this had.
    pub(crate) read: Vec<(Block, u64)>,
}

/// A step being traced.
#[doc(hidden)]
pub struct Session {
    id: u64,
    sources: Vec<Source>,
    /// Tensors that live on, what stands for them, and the input each is.
    stand_ins: Vec<(Tensor, Tensor, usize)>,
    numbers: usize,
    /// Extents of the batch, by tensor and dimension, that have another size.
    open: Vec<(usize, usize)>,
    size: usize,
    _ending: Ending,
}

impl Session {
    /// Traces `f`, which gives what the step returns; for batches of any size, several
    /// times.
    pub(crate) fn trace(
        name: &str,
        open: Option<&DynamicDim>,
        mut f: impl FnMut(&mut Session) -> Vec<Tensor>,
    ) -> Result<TracedStep, TraceError> {
        let mut first = None;
        let (graph, drawn) = graph_of(name, open, |size| {
            let (pass, sources, read) = Session::pass(open.zip(size), &mut f)?;
            first.get_or_insert((sources, read));
            Ok(pass)
        })?;
        let (sources, read) = first.expect("it was traced");
        let updated = graph.updated().collect();
        Ok(TracedStep { graph, sources, updated, drawn, read })
    }

    /// Traces once, perhaps at another size than the batch's.
    #[allow(clippy::type_complexity)]
    fn pass(
        open: Option<(&DynamicDim, usize)>,
        f: &mut dyn FnMut(&mut Session) -> Vec<Tensor>,
    ) -> Result<(Pass, Vec<Source>, Vec<(Block, u64)>), TraceError> {
        if ACTIVE.replace(true) {
            return Err(TraceError::Nested);
        }
        let id = NEXT.replace(NEXT.get() + 1);
        let session = Some(Notes { open: open.is_some(), ..Notes::default() });
        RECORDING.set(Some(Recording { id, session, ..Recording::default() }));
        let mut s = Session {
            id,
            sources: Vec::new(),
            stand_ins: Vec::new(),
            numbers: 0,
            open: open.map_or(vec![], |(d, _)| d.places.clone()),
            size: open.map_or(0, |(_, n)| n),
            _ending: Ending,
        };
        let outs = std::panic::catch_unwind(AssertUnwindSafe(|| f(&mut s))).map_err(|payload| {
            match payload.downcast::<TraceError>() {
                Ok(e) => *e,
                Err(other) => match open {
                    // Perhaps the code is for some sizes alone.
                    Some((d, n)) => TraceError::Extent(format!(
                        "the code fails for {} = {n}: {}",
                        d.name,
                        message(&*other)
                    )),
                    // A mistake in the user's code: it stays the panic it is.
                    None => std::panic::resume_unwind(other),
                },
            }
        })?;
        let mut rec = RECORDING.take().expect("the trace is active");
        let mut place = |t: &Tensor| match t.as_traced() {
            Some(v) if v.trace == id => Ok(v.place),
            Some(_) => Err(TraceError::Output("a result belongs to another trace".into())),
            None => Ok(Operand::Captured(rec.capture(t))),
        };
        let outs = outs.iter().map(&mut place).collect::<Result<Vec<Operand>, _>>()?;
        let mut updates = Vec::new();
        for (_, stand_in, input) in &s.stand_ins {
            let value = place(stand_in)?;
            if value != Operand::Input(*input) {
                updates.push((*input, value));
            }
        }
        let notes = rec.session.take().unwrap_or_default();
        let mut sources = std::mem::take(&mut s.sources);
        if let Some(Traced { place: Operand::Input(i), .. }) = notes.place {
            sources.insert(i, Source::Random);
        }
        let pass = Pass { recording: rec, outs, updates, drawn: notes.drawn };
        Ok((pass, sources, notes.read))
    }

    fn input(&mut self, label: String, dtype: DType, shape: &[usize]) -> (Tensor, usize) {
        let shape = Shape::from_slice(shape);
        let i = RECORDING.with_borrow_mut(|r| {
            let r = r.as_mut().expect("a trace is active");
            r.inputs.push(TensorType { dtype, shape: shape.clone() });
            r.labels.push(label);
            r.inputs.len() - 1
        });
        let v = Traced { trace: self.id, place: Operand::Input(i), view: false };
        (Tensor::traced(v, dtype, shape), i)
    }

    /// What stands for the batch's tensor `i`.
    pub(crate) fn batch(&mut self, i: usize, like: &Tensor) -> Tensor {
        self.sources.push(Source::Batch(i));
        let mut shape = Shape::from_slice(like.shape());
        for &(_, d) in self.open.iter().filter(|p| p.0 == i) {
            shape[d] = self.size;
        }
        self.input(format!("x{i}"), like.dtype(), &shape).0
    }

    /// What stands for a tensor that lives on, in ops that are given the tensor and in
    /// [`Session::stand_in`].
    pub(crate) fn state(&mut self, label: String, t: &Tensor) -> Tensor {
        if let Some(s) = self.stand_in(t) {
            return s.clone();
        }
        self.sources.push(Source::State(t.clone()));
        let (stand_in, i) = self.input(label, t.dtype(), t.shape());
        let stand_in = stand_in.requires_grad_(t.requires_grad());
        RECORDING.with_borrow_mut(|r| {
            let notes = r.as_mut().and_then(|r| r.session.as_mut());
            notes.expect("a session is active").state.push(t.array().block().clone());
        });
        self.stand_ins.push((t.clone(), stand_in.clone(), i));
        stand_in
    }

    /// What stands for a tensor.
    pub(crate) fn stand_in(&self, t: &Tensor) -> Option<&Tensor> {
        self.stand_ins.iter().find(|(of, ..)| of.is_same(t)).map(|(_, s, _)| s)
    }

    /// Tensors and what stands for them.
    pub(crate) fn pairs(&self) -> Vec<(Tensor, Tensor)> {
        self.stand_ins.iter().map(|(t, s, _)| (t.clone(), s.clone())).collect()
    }

    /// Gives what stands for a tensor a new value.
    pub(crate) fn set(&self, stand_in: &Tensor, value: &Tensor) {
        if let Some(v) = value.as_traced() {
            stand_in.rebind_traced(Traced { view: false, ..v });
        }
    }

    /// An input of `n` numbers that the step is given anew each time.
    pub(crate) fn numbers(&mut self, n: usize, dtype: DType) -> Vec<Tensor> {
        let k = self.numbers;
        self.numbers += 1;
        self.sources.push(Source::Numbers(k));
        let (all, _) = self.input(format!("numbers{k}"), dtype, &[n]);
        (0..n).map(|i| all.select(0, i as i64)).collect()
    }
}
