//! Activation checkpointing: values for derivatives are computed again when they are
//! needed, instead of being kept.
//!
//! A region runs as always, but what its ops would keep is dropped (through the hooks
//! of [`saved_tensors_hooks`](super::saved_tensors_hooks)); the first value that a
//! backward pass asks for makes the region run once more, up to the last value it
//! keeps (Chen et al., 2016, arXiv:1604.06174; the way of PyTorch's
//! `use_reentrant=False`).

use super::replace::stand_ins;
use super::{GradGuard, enable_grad_guard, mode, saved_tensors_hooks, with_replaced};
use crate::random;
use crate::tensor::Tensor;
use sinter_runtime::op::TensorType;
use sinter_runtime::{Array, Op};
use std::cell::{Cell, RefCell};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::rc::Rc;
use std::sync::{Arc, Mutex};

/// One of the functions of [`checkpoint_sequential`].
pub type Stage = Arc<dyn Fn(&Tensor) -> Tensor + Send + Sync>;

type Region = dyn Fn(&[Tensor]) -> Vec<Tensor> + Send + Sync;

/// What becomes of an op's result inside a checkpointed region.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum CheckpointPolicy {
    /// It is kept, and the op does not run again.
    MustSave,
    /// The op runs again if its result is needed.
    PreferRecompute,
}

type Policy = Arc<dyn Fn(&Op) -> CheckpointPolicy + Send + Sync>;

/// A checkpointed region and its options.
///
/// ```
/// use sinter::autograd::{Checkpoint, CheckpointPolicy};
/// use sinter::{Op, tensor};
/// let x = tensor([[0.5f32, 1.0], [1.5, 2.0]]).requires_grad_(true);
/// // Products are kept, everything else is computed again.
/// let y = Checkpoint::new()
///     .policy(|op| match op {
///         Op::MatMul { .. } => CheckpointPolicy::MustSave,
///         _ => CheckpointPolicy::PreferRecompute,
///     })
///     .run(|x| vec![x[0].matmul(&x[0]).tanh().exp()], &[&x]);
/// y[0].sum().backward();
/// ```
#[derive(Clone)]
pub struct Checkpoint {
    preserve_rng_state: bool,
    check: bool,
    early_stop: bool,
    policy: Option<Policy>,
}

impl Default for Checkpoint {
    fn default() -> Checkpoint {
        Checkpoint { preserve_rng_state: true, check: true, early_stop: true, policy: None }
    }
}

impl Checkpoint {
    /// With the defaults: random numbers are the same, the second run is compared with
    /// the first, it stops early, and nothing is kept.
    pub fn new() -> Checkpoint {
        Checkpoint::default()
    }

    /// Whether the second run draws the same random numbers as the first.
    pub fn preserve_rng_state(mut self, on: bool) -> Checkpoint {
        self.preserve_rng_state = on;
        self
    }

    /// Whether types and shapes of the values of both runs are compared.
    pub fn determinism_check(mut self, on: bool) -> Checkpoint {
        self.check = on;
        self
    }

    /// Whether the second run ends with the last value it is needed for.
    pub fn early_stop(mut self, on: bool) -> Checkpoint {
        self.early_stop = on;
        self
    }

    /// Which ops' results are kept (of ops with one result, not in place).
    pub fn policy(
        mut self,
        policy: impl Fn(&Op) -> CheckpointPolicy + Send + Sync + 'static,
    ) -> Checkpoint {
        self.policy = Some(Arc::new(policy));
        self
    }

    /// Runs `f` on `inputs`; what it keeps for a backward pass is computed again
    /// there. Tensors that `f` uses besides its inputs get gradients, too. Regions may
    /// lie inside each other.
    ///
    /// # Panics
    /// The backward pass, if an input was changed in place since, or the second run
    /// kept other values than the first.
    #[track_caller]
    pub fn run(
        &self,
        f: impl Fn(&[Tensor]) -> Vec<Tensor> + Send + Sync + 'static,
        inputs: &[&Tensor],
    ) -> Vec<Tensor> {
        let inputs: Vec<Tensor> = inputs.iter().map(|t| (*t).clone()).collect();
        if !super::grad_enabled() || crate::trace::is_active() {
            return f(&inputs);
        }
        let frame = Arc::new(Frame {
            versions: inputs.iter().map(|t| t.array().block().version()).collect(),
            inputs: inputs.clone(),
            draws: Mutex::default(),
            stand_ins: stand_ins(),
            options: self.clone(),
            f: Box::new(f),
            types: Mutex::default(),
            again: Mutex::default(),
            kept: Mutex::default(),
        });
        let packer = frame.clone();
        let pack = move |t: &Tensor| {
            let mut types = lock(&packer.types);
            types.push(TensorType { dtype: t.dtype(), shape: t.shape().into() });
            Slot { frame: packer.clone(), index: types.len() - 1 }
        };
        let _hooks = saved_tensors_hooks(pack, Slot::value);
        let _select = self.policy.as_ref().map(|_| select(&frame, false));
        let (results, draws) = random::noted(|| (frame.f)(&inputs));
        *lock(&frame.draws) = draws;
        results
    }
}

/// Runs `f` on `inputs` and keeps nothing for a backward pass but the inputs: what it
/// needs is computed again there. See [`Checkpoint`] for options.
///
/// ```
/// use sinter::{autograd::checkpoint, tensor};
/// let x = tensor([1.0f64, 2.0]).requires_grad_(true);
/// let y = checkpoint(|x| vec![x[0].sin().exp().sin()], &[&x]);
/// assert_eq!(y[0].grad_fn().unwrap().saved_bytes(), 0);
/// y[0].sum().backward();
/// ```
///
/// # Panics
/// As [`Checkpoint::run`].
#[track_caller]
pub fn checkpoint(
    f: impl Fn(&[Tensor]) -> Vec<Tensor> + Send + Sync + 'static,
    inputs: &[&Tensor],
) -> Vec<Tensor> {
    Checkpoint::new().run(f, inputs)
}

/// Runs functions one after the other in `segments` pieces of about equal length, all
/// of which but the last are checkpointed.
///
/// # Panics
/// If `segments` is 0 or more than there are functions; and as [`Checkpoint::run`].
#[track_caller]
pub fn checkpoint_sequential(functions: &[Stage], segments: usize, input: &Tensor) -> Tensor {
    if segments == 0 || segments > functions.len() {
        panic!(
            "checkpoint_sequential: {} functions do not make {segments} segments",
            functions.len()
        );
    }
    let size = functions.len() / segments;
    let mut x = input.clone();
    for k in 0..segments - 1 {
        let piece = functions[k * size..(k + 1) * size].to_vec();
        let run = move |x: &[Tensor]| vec![piece.iter().fold(x[0].clone(), |x, f| f(&x))];
        x = checkpoint(run, &[&x]).swap_remove(0);
    }
    functions[(segments - 1) * size..].iter().fold(x, |x, f| f(&x))
}

fn lock<T>(m: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    m.lock().unwrap_or_else(|e| e.into_inner())
}

/// One run of a region.
struct Frame {
    f: Box<Region>,
    inputs: Vec<Tensor>,
    versions: Vec<u64>,
    /// The parts of the random stream that the first run took.
    draws: Mutex<Vec<random::State>>,
    /// Tensors that stood for others, as in `func::functional_call`.
    stand_ins: Vec<(Tensor, Tensor)>,
    options: Checkpoint,
    /// Of the values that would have been kept, in order.
    types: Mutex<Vec<TensorType>>,
    /// The values, once they were computed again.
    again: Mutex<Option<Vec<Option<Tensor>>>>,
    /// Results that the policy keeps, with the version of their memory.
    kept: Mutex<Vec<(Array, u64)>>,
}

/// The place of a value that was not kept.
struct Slot {
    frame: Arc<Frame>,
    index: usize,
}

impl Slot {
    fn value(&self) -> Tensor {
        if let Some(values) = &*lock(&self.frame.again) {
            return values[self.index].clone().expect("dropped with its slot only");
        }
        let values = self.frame.run_again();
        let value = values[self.index].clone();
        *lock(&self.frame.again) = Some(values);
        value.expect("each place was filled")
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let value = lock(&self.frame.again).as_mut().and_then(|v| v[self.index].take());
        drop(value);
    }
}

/// Ends a second run where it is not needed further.
struct Enough;

impl Frame {
    fn run_again(&self) -> Vec<Option<Tensor>> {
        for (i, (t, version)) in self.inputs.iter().zip(&self.versions).enumerate() {
            let block = t.array().block();
            assert!(
                block.version() == *version,
                "checkpoint: input {i}, {} {:?}, was modified in place{} since the region ran",
                t.dtype(),
                t.shape(),
                super::written_at(block),
            );
        }
        let expected = lock(&self.types).clone();
        let made: Rc<RefCell<Vec<Tensor>>> = Rc::default();
        let (collect, total) = (made.clone(), expected.len());
        let early = self.options.early_stop;
        let pack = move |t: &Tensor| {
            let mut list = collect.borrow_mut();
            list.push(t.clone());
            if early && list.len() == total {
                drop(list);
                resume_unwind(Box::new(Enough));
            }
        };
        {
            let _grad = enable_grad_guard();
            let _plain = mode::set(mode::PACK | mode::REPLACE | mode::SELECT, 0);
            let _hooks = saved_tensors_hooks(pack, |_: &()| unreachable!("its graph is dropped"));
            let _select = self.options.policy.as_ref().map(|_| select(self, true));
            let inputs: Vec<Tensor> =
                self.inputs.iter().map(|t| t.detach().requires_grad_(t.requires_grad())).collect();
            let draws = lock(&self.draws).clone();
            let run = || match self.options.preserve_rng_state {
                true => drop(random::again(&draws, || (self.f)(&inputs))),
                false => drop((self.f)(&inputs)),
            };
            let ran = catch_unwind(AssertUnwindSafe(|| match self.stand_ins.is_empty() {
                true => run(),
                false => with_replaced(self.stand_ins.clone(), run),
            }));
            if let Err(e) = ran
                && !e.is::<Enough>()
            {
                resume_unwind(e);
            }
        }
        let made = made.take();
        if self.options.check {
            compare(&expected, &made);
        }
        assert!(made.len() >= total, "checkpoint: the second run kept fewer values than the first");
        made.into_iter().take(total).map(Some).collect()
    }
}

/// Compares what two runs of a region keep.
fn compare(first: &[TensorType], second: &[Tensor]) {
    let show = |dtype, shape: &[usize]| format!("{dtype} {shape:?}");
    let mut lines = Vec::new();
    for i in 0..first.len().max(second.len()) {
        let a = first.get(i).map_or("nothing".into(), |t| show(t.dtype, &t.shape));
        let b = second.get(i).map_or("nothing".into(), |t| show(t.dtype(), t.shape()));
        if a != b {
            lines.push(format!("value {i}: {a} then, {b} now"));
        }
    }
    assert!(
        lines.is_empty(),
        "checkpoint: the region kept other values when it ran again ({} of {} differ: {}); it must \
         do the same each time",
        lines.len(),
        first.len(),
        lines.iter().take(5).cloned().collect::<Vec<_>>().join("; "),
    );
}

// ---------------------------------------------------------------- selecting

/// The region whose policy counts on this thread.
struct Selecting {
    policy: Policy,
    /// Results of the first run; taken by the second.
    results: Vec<(Array, u64)>,
    again: bool,
    next: usize,
}

thread_local! {
    static SELECTING: RefCell<Vec<Selecting>> = const { RefCell::new(Vec::new()) };
    /// Whether the policy itself runs, whose ops do not count.
    static ASKING: Cell<bool> = const { Cell::new(false) };
}

/// Ends the region on this thread when it is dropped.
struct SelectGuard<'a> {
    frame: &'a Frame,
    _mode: GradGuard,
}

fn select(frame: &Frame, again: bool) -> SelectGuard<'_> {
    let policy = frame.options.policy.clone().expect("called where there is one");
    let results = if again { lock(&frame.kept).clone() } else { Vec::new() };
    SELECTING.with_borrow_mut(|s| s.push(Selecting { policy, results, again, next: 0 }));
    SelectGuard { frame, _mode: mode::set(mode::SELECT, mode::SELECT) }
}

impl Drop for SelectGuard<'_> {
    fn drop(&mut self) {
        let done = SELECTING.with_borrow_mut(Vec::pop);
        if let Some(s) = done
            && !s.again
        {
            *lock(&self.frame.kept) = s.results;
        }
    }
}

fn must_save(op: &Op) -> bool {
    let policy = SELECTING.with_borrow(|s| s.last().map(|s| s.policy.clone()));
    let Some(policy) = policy else { return false };
    if ASKING.replace(true) {
        return false;
    }
    let answer = policy(op);
    ASKING.set(false);
    answer == CheckpointPolicy::MustSave
}

/// The result that was kept of the op that is about to run.
#[cold]
pub(crate) fn selected(op: &Op) -> Option<Array> {
    if !must_save(op) {
        return None;
    }
    SELECTING.with_borrow_mut(|s| {
        let s = s.last_mut()?;
        if !s.again {
            return None;
        }
        let (a, version) = s.results.get(s.next).cloned()?;
        s.next += 1;
        assert!(
            a.block().version() == version,
            "checkpoint: the kept result of {} was modified in place{} since the region ran",
            op.name(),
            super::written_at(a.block()),
        );
        Some(a)
    })
}

/// Keeps the result of an op that ran, if the policy says so.
#[cold]
pub(crate) fn keep_selected(op: &Op, out: &Array) {
    if !must_save(op) {
        return;
    }
    SELECTING.with_borrow_mut(|s| {
        if let Some(s) = s.last_mut()
            && !s.again
        {
            s.results.push((out.clone(), out.block().version()));
        }
    });
}
