//! Batching of define-by-run code by itself (Neubig, Goldberg and Dyer, "On-the-fly
//! operation batching in dynamic computation graphs", 2017).
//!
//! Inside [`autobatch`] ops on what requires a gradient are noted, not run. When a
//! value is asked for, or the function has ended, notes of equal depth, op and shapes
//! become one op by its batching rule. The results stay together; what uses them takes
//! its rows out of the batch in one op, so that the tape is as short as the batches
//! are few.

use super::rules::{self, Operands};
use crate::autograd::{self, mode};
use crate::tensor::{Tensor, apply, cat, fail};
use rustc_hash::FxHashMap;
use sinter_runtime::op::{TensorType, TypeRef, infer_first};
use sinter_runtime::{DType, Op, OpError, Shape};
use smallvec::SmallVec;
use std::cell::RefCell;
use std::hash::{Hash, Hasher};
use std::panic::Location;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

/// An op on operands of certain types: notes of one kind and depth become one op.
struct Kind {
    op: Op,
    records: bool,
    operands: SmallVec<[Alike; 3]>,
    result: TensorType,
    /// Whether its operands are parameters or made of parameters alone, so that its
    /// result is the same for all instances.
    shared: bool,
    /// In the order in which kinds were first met.
    number: u32,
}

/// What makes an operand of noted ops alike.
#[derive(PartialEq, Eq, Hash)]
enum Alike {
    /// A parameter is shared by the whole batch.
    Same(usize),
    Type(DType, Shape),
}

impl Alike {
    fn is(&self, t: &Tensor) -> bool {
        match self {
            Alike::Same(id) => is_shared(t) && t.id() == *id,
            Alike::Type(dtype, shape) => {
                t.dtype() == *dtype && t.shape() == &shape[..] && !is_shared(t)
            }
        }
    }
}

/// The result of a noted op.
pub(crate) struct Deferred {
    kind: Arc<Kind>,
    requires_grad: bool,
    /// How many ops that wait stand before it.
    depth: u32,
    region: u64,
    place: OnceLock<Place>,
    value: OnceLock<Tensor>,
}

impl Deferred {
    pub(crate) fn dtype(&self) -> DType {
        self.kind.result.dtype
    }

    pub(crate) fn shape(&self) -> &[usize] {
        &self.kind.result.shape
    }

    fn waits(&self) -> bool {
        self.place.get().is_none()
    }
}

/// Where a value lies.
enum Place {
    /// A row of a batch.
    Row(Tensor, usize),
    Whole(Tensor),
}

/// An op to run.
struct Note {
    result: Tensor,
    inputs: SmallVec<[Tensor; 3]>,
    at: &'static Location<'static>,
}

impl Note {
    fn result(&self) -> &Deferred {
        self.result.as_deferred().expect("the result of a note")
    }
}

#[derive(Default)]
struct Region {
    id: u64,
    notes: Vec<Note>,
    /// Those of the notes, by their hash.
    kinds: FxHashMap<u64, SmallVec<[Arc<Kind>; 1]>>,
    met: u32,
    /// What is made of parameters alone is noted once, however often it is written: a
    /// transposed weight is one operand, not one for each use. By kind.
    shared: FxHashMap<u32, Tensor>,
}

impl Region {
    /// The kind of an op, whose rule is asked when it is first met.
    fn kind(&mut self, op: &Op, records: bool, inputs: &[&Tensor]) -> Result<Arc<Kind>, OpError> {
        let mut hash = rustc_hash::FxHasher::default();
        (op, records).hash(&mut hash);
        for t in inputs {
            match is_shared(t) {
                true => t.id().hash(&mut hash),
                false => (t.dtype(), t.shape()).hash(&mut hash),
            }
        }
        let known = self.kinds.entry(hash.finish()).or_default();
        let same = |k: &&Arc<Kind>| {
            k.op == *op
                && k.records == records
                && k.operands.len() == inputs.len()
                && k.operands.iter().zip(inputs).all(|(a, t)| a.is(t))
        };
        if let Some(k) = known.iter().find(same) {
            return Ok(k.clone());
        }
        let types: SmallVec<[TypeRef<'_>; 4]> =
            inputs.iter().map(|t| TypeRef { dtype: t.dtype(), shape: t.shape() }).collect();
        let kind = Arc::new(Kind {
            op: op.clone(),
            records,
            operands: inputs.iter().map(|t| alike(t)).collect(),
            result: infer_first(op, &types)?,
            shared: inputs.iter().all(|t| is_shared(t)),
            number: self.met,
        });
        self.met += 1;
        known.push(kind.clone());
        Ok(kind)
    }
}

thread_local! {
    static REGION: RefCell<Option<Region>> = const { RefCell::new(None) };
}

/// Runs define-by-run code on many small instances, turning equal ops of equal depth
/// into one. The results are those of the code alone, up to the order of roundings.
///
/// What a value is asked for inside (by `item`, `backward`, an op in place) ends the
/// collecting so far: for one batch, build all losses first and add them up.
///
/// ```
/// use sinter::nn::{Layer, Linear};
/// use sinter::{autobatch, randn, stack};
/// let layer = Linear::new(4, 4);
/// let lengths = [3, 1, 2];
/// let total = autobatch(|| {
///     let mut ends = Vec::new();
///     for n in lengths {
///         let mut h = randn([1, 4]);
///         for _ in 0..n {
///             h = layer.forward(&h).tanh(); // at each depth, one op for all sequences
///         }
///         ends.push(h.sum());
///     }
///     stack(&ends.iter().collect::<Vec<_>>(), 0).sum()
/// });
/// total.backward();
/// ```
#[track_caller]
pub fn autobatch<T: Resolve>(f: impl FnOnce() -> T) -> T {
    static REGIONS: AtomicU64 = AtomicU64::new(1);
    // Inside another call the outer one collects.
    if REGION.with_borrow(Option::is_some) {
        return f();
    }
    struct End;
    impl Drop for End {
        fn drop(&mut self) {
            REGION.take();
        }
    }
    let id = REGIONS.fetch_add(1, Ordering::Relaxed);
    REGION.set(Some(Region { id, ..Region::default() }));
    let _end = End;
    let result = {
        let _mode = mode::set(mode::DEFER, mode::DEFER);
        f()
    };
    flush();
    result.resolve()
}

/// Results of [`autobatch`]: tensors, and what is made of them.
pub trait Resolve {
    /// With every tensor computed.
    fn resolve(self) -> Self;
}

impl Resolve for () {
    fn resolve(self) {}
}

impl Resolve for Tensor {
    fn resolve(self) -> Tensor {
        match self.as_deferred() {
            Some(d) => value(d).clone(),
            None => self,
        }
    }
}

impl<T: Resolve> Resolve for Vec<T> {
    fn resolve(self) -> Vec<T> {
        self.into_iter().map(T::resolve).collect()
    }
}

impl<A: Resolve, B: Resolve> Resolve for (A, B) {
    fn resolve(self) -> (A, B) {
        (self.0.resolve(), self.1.resolve())
    }
}

impl<A: Resolve, B: Resolve, C: Resolve> Resolve for (A, B, C) {
    fn resolve(self) -> (A, B, C) {
        (self.0.resolve(), self.1.resolve(), self.2.resolve())
    }
}

/// Notes an op instead of running it, or gives it back: only what requires a gradient,
/// or depends on a note, is worth it.
#[track_caller]
pub(crate) fn defer(op: &Op, inputs: &[&Tensor]) -> Option<Tensor> {
    let wanted = inputs.iter().any(|t| t.requires_grad());
    let waiting = inputs.iter().filter_map(|t| t.as_deferred()).filter(|d| d.waits());
    let depth = waiting.map(|d| d.depth + 1).max();
    if !wanted && depth.is_none() {
        return None;
    }
    let records = autograd::grad_enabled();
    let at = autograd::line(Location::caller());
    let noted = REGION.with_borrow_mut(|r| {
        let r = r.as_mut().expect("ops are noted inside a region alone");
        let kind = r.kind(op, records, inputs)?;
        if kind.shared
            && let Some(t) = r.shared.get(&kind.number)
        {
            return Ok(t.clone());
        }
        let number = kind.shared.then_some(kind.number);
        let requires_grad = records && wanted && kind.result.dtype.is_differentiable();
        let result = Tensor::deferred(
            Deferred {
                kind,
                requires_grad,
                depth: depth.unwrap_or(0),
                region: r.id,
                place: OnceLock::new(),
                value: OnceLock::new(),
            },
            requires_grad,
        );
        if let Some(n) = number {
            r.shared.insert(n, result.clone());
        }
        let inputs = inputs.iter().map(|t| (*t).clone()).collect();
        r.notes.push(Note { result: result.clone(), inputs, at });
        Ok(result)
    });
    match noted {
        Ok(t) => Some(t),
        Err(e) => fail(&e, inputs),
    }
}

/// The operands with what has been computed in the place of notes; runs what waits.
pub(crate) fn resolved(inputs: &[&Tensor]) -> SmallVec<[Tensor; 4]> {
    inputs.iter().map(|t| t.as_deferred().map_or(*t, value).clone()).collect()
}

/// The value of a noted op.
#[cold]
pub(crate) fn value(d: &Deferred) -> &Tensor {
    // Not inside the initialisation below: other notes may need this value.
    if d.waits() {
        let here = REGION.with_borrow(|r| r.as_ref().is_some_and(|r| r.id == d.region));
        if !here {
            panic!(
                "autobatch: a value of another thread's `autobatch`, or of one that panicked, \
                 was asked for before it was computed"
            );
        }
        flush();
    }
    d.value.get_or_init(|| {
        let place = d.place.get().expect("a flush runs every note");
        let _plain =
            mode::set(mode::DEFER | mode::GRAD, if d.requires_grad { mode::GRAD } else { 0 });
        match place {
            Place::Whole(t) => t.clone(),
            Place::Row(batch, row) => {
                let one = Op::Slice { axis: 0, start: *row, len: 1, step: 1 };
                let shape = d.shape().into();
                apply(Op::Reshape { shape }, &[&apply(one, &[batch])])
            }
        }
    })
}

fn alike(t: &Tensor) -> Alike {
    if is_shared(t) { Alike::Same(t.id()) } else { Alike::Type(t.dtype(), t.shape().into()) }
}

/// Whether it is a parameter, or made of parameters alone.
fn is_shared(t: &Tensor) -> bool {
    match t.as_deferred() {
        Some(d) => d.kind.shared,
        None => t.requires_grad() && t.is_leaf(),
    }
}

/// Runs what waits before memory is changed in place, which it may read.
#[inline]
pub(crate) fn before_write() {
    if mode::get() & mode::DEFER != 0 {
        flush();
    }
}

/// Runs all notes.
fn flush() {
    let mut notes = REGION.with_borrow_mut(|r| {
        let Some(r) = r else { return vec![] };
        // Parameters may change now, and others lie at their addresses.
        r.shared.clear();
        r.kinds.clear();
        std::mem::take(&mut r.notes)
    });
    let _plain = mode::set(mode::DEFER, 0);
    // By depth, then in the order in which kinds were first met. Notes whose result
    // nobody has or needs are left out: letting one go lets go of what it takes.
    let mut order: Vec<((u32, u32), u32)> = Vec::with_capacity(notes.len());
    for (i, n) in notes.iter_mut().enumerate().rev() {
        if n.result.is_unique() {
            n.inputs.clear();
        } else {
            let d = n.result();
            order.push(((d.depth, d.kind.number), i as u32));
        }
    }
    order.sort_unstable();
    let mut group: Vec<&Note> = Vec::new();
    for alike in order.chunk_by(|a, b| a.0 == b.0) {
        group.clear();
        group.extend(alike.iter().map(|&(_, i)| &notes[i as usize]));
        run(&mut group);
    }
}

fn put(note: &Note, place: Place) {
    let _ = note.result().place.set(place);
}

/// Runs alike ops as one.
fn run(group: &mut [&Note]) {
    let first = group[0];
    let kind = &first.result().kind;
    let _mode = mode::set(mode::GRAD, if kind.records { mode::GRAD } else { 0 });
    let once = |note: &Note| {
        let inputs = resolved(&note.inputs.iter().collect::<SmallVec<[&Tensor; 4]>>());
        let refs: SmallVec<[&Tensor; 4]> = inputs.iter().collect();
        autograd::at(note.at, || apply(kind.op.clone(), &refs))
    };
    if let [note] = group {
        return put(note, Place::Whole(joined(note, &kind.op).unwrap_or_else(|| once(note))));
    }
    let operands = first.inputs.len();
    let shared = |k: usize| group.iter().all(|n| n.inputs[k].is_same(&first.inputs[k]));
    let batched: SmallVec<[bool; 4]> = (0..operands).map(|k| !shared(k)).collect();
    let Some(lead) = batched.iter().position(|&b| b) else {
        // Equal ops on equal operands have one result.
        let out = once(first);
        return group.iter().for_each(|n| put(n, Place::Whole(out.clone())));
    };
    // In the order of the rows of one operand, which can then be taken as they are.
    group.sort_by_cached_key(|n| match place(&n.inputs[lead]) {
        Some(Place::Row(batch, row)) => (batch.id(), *row),
        _ => (usize::MAX, 0),
    });
    let out = autograd::at(first.at, || {
        let values: SmallVec<[Tensor; 4]> = (0..operands)
            .map(|k| match batched[k] {
                true => gather(group.iter().map(|n| &n.inputs[k])),
                false => first.inputs[k].clone().resolve(),
            })
            .collect();
        let operands = Operands { values: &values, batched: &batched, n: group.len() };
        rules::batched(&kind.op, &operands).swap_remove(0)
    });
    for (row, n) in group.iter().enumerate() {
        put(n, Place::Row(out.clone(), row));
    }
}

/// Where an operand lies, if that is not its own memory. A value that has hooks or was
/// made a constant is taken as it is: its gradient passes through it, or ends there.
fn place(t: &Tensor) -> Option<&Place> {
    let d = t.as_deferred()?;
    match d.value.get() {
        Some(v) if v.has_hooks() || v.requires_grad() != d.requires_grad => None,
        _ => d.place.get(),
    }
}

/// Joining values of one shape takes them out of their batches at once.
fn joined(note: &Note, op: &Op) -> Option<Tensor> {
    let Op::Concat { axis } = *op else { return None };
    let shape = note.inputs[0].shape();
    let rows = note.inputs.iter().all(|t| matches!(place(t), Some(Place::Row(..))));
    if note.inputs.len() < 3 || !rows || note.inputs.iter().any(|t| t.shape() != shape) {
        return None;
    }
    Some(autograd::at(note.at, || {
        let all = gather(note.inputs.iter());
        let mut joined: Shape = shape.into();
        joined[axis] *= note.inputs.len();
        all.movedim(0, axis as i64).reshape(&joined[..])
    }))
}

/// Values of one shape, stacked.
fn gather<'a>(values: impl Iterator<Item = &'a Tensor>) -> Tensor {
    // Each source with the rows that are taken from it, and for each value which of
    // all rows taken it is.
    let mut sources: Vec<(&Tensor, Vec<usize>)> = Vec::new();
    let mut index: FxHashMap<usize, usize> = FxHashMap::default();
    let mut single: Vec<Tensor> = Vec::new();
    let mut taken: Vec<(usize, usize)> = Vec::with_capacity(values.size_hint().0);
    const SINGLE: usize = usize::MAX;
    for t in values {
        match place(t) {
            Some(Place::Row(batch, row)) => {
                // Neighbours mostly come from one batch.
                let s = match sources.last() {
                    Some((last, _)) if last.is_same(batch) => sources.len() - 1,
                    _ => *index.entry(batch.id()).or_insert_with(|| {
                        sources.push((batch, Vec::new()));
                        sources.len() - 1
                    }),
                };
                taken.push((s, sources[s].1.len()));
                sources[s].1.push(*row);
            }
            _ => {
                taken.push((SINGLE, single.len()));
                single.push(t.clone().resolve().unsqueeze(0));
            }
        }
    }
    let mut parts: Vec<Tensor> = sources.iter().map(|(batch, rows)| take(batch, rows)).collect();
    let mut starts: Vec<usize> = Vec::with_capacity(parts.len());
    let mut start = 0;
    for (_, rows) in &sources {
        starts.push(start);
        start += rows.len();
    }
    parts.extend(single);
    let all = if parts.len() == 1 {
        parts.swap_remove(0)
    } else {
        cat(&parts.iter().collect::<Vec<_>>(), 0)
    };
    let at = |&(s, k): &(usize, usize)| k + if s == SINGLE { start } else { starts[s] };
    let order: Vec<usize> = taken.iter().map(at).collect();
    take(&all, &order)
}

/// Rows of a batch: the batch itself, part of it, or a selection.
fn take(batch: &Tensor, rows: &[usize]) -> Tensor {
    let consecutive = rows.windows(2).all(|w| w[1] == w[0] + 1);
    match (consecutive, rows.len() == batch.shape()[0]) {
        (true, true) => batch.clone(),
        (true, false) => {
            apply(Op::Slice { axis: 0, start: rows[0], len: rows.len(), step: 1 }, &[batch])
        }
        _ => {
            let index: Vec<i64> = rows.iter().map(|&r| r as i64).collect();
            let index = crate::tensor::from_slice(&index, [index.len()]);
            apply(Op::IndexSelect { axis: 0 }, &[batch, &index])
        }
    }
}
