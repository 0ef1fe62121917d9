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
use sinter_runtime::op::{TensorType, infer_first};
use sinter_runtime::{DType, Op, Shape};
use smallvec::SmallVec;
use std::cell::RefCell;
use std::panic::Location;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

/// What a result of a noted op is, and where it will be.
pub(crate) struct Deferred {
    pub(crate) dtype: DType,
    pub(crate) shape: Shape,
    requires_grad: bool,
    /// Whether it is made of parameters alone, and so the same for all instances.
    shared: bool,
    /// The region that noted the op, and its number there.
    region: u64,
    note: usize,
    place: OnceLock<Place>,
    value: OnceLock<Tensor>,
}

/// Where a value lies.
#[derive(Clone)]
enum Place {
    /// A row of a batch.
    Row(Tensor, usize),
    Whole(Tensor),
}

/// An op to run.
struct Note {
    op: Op,
    inputs: SmallVec<[Tensor; 3]>,
    result: Arc<Deferred>,
    depth: u32,
    records: bool,
    at: &'static Location<'static>,
}

/// An op, whether it is recorded, and its operands.
type Same = (Op, bool, SmallVec<[usize; 3]>);

#[derive(Default)]
struct Region {
    id: u64,
    notes: Vec<Option<Note>>,
    /// How many notes have been run: all those before have.
    done: usize,
    /// What is made of parameters alone is noted once, however often it is written: a
    /// transposed weight is one operand, not one for each use.
    shared: FxHashMap<Same, Arc<Deferred>>,
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
    let waits = |t: &&Tensor| t.as_deferred().is_some_and(|d| d.place.get().is_none());
    if !inputs.iter().any(|t| waits(t) || t.requires_grad()) {
        return None;
    }
    let types: SmallVec<[TensorType; 4]> =
        inputs.iter().map(|t| TensorType { dtype: t.dtype(), shape: t.shape().into() }).collect();
    let refs: SmallVec<[_; 4]> = types.iter().map(TensorType::as_ref).collect();
    let ty = match infer_first(op, &refs) {
        Ok(ty) => ty,
        Err(e) => fail(&e, inputs),
    };
    let records = autograd::grad_enabled();
    let at = autograd::line(Location::caller());
    REGION.with_borrow_mut(|r| {
        let r = r.as_mut().expect("ops are noted inside a region alone");
        let depth = |t: &&Tensor| {
            let d = t.as_deferred().filter(|d| d.place.get().is_none())?;
            Some(r.notes[d.note].as_ref().expect("it waits").depth + 1)
        };
        let depth = inputs.iter().filter_map(depth).max().unwrap_or(0);
        let shared = inputs.iter().all(|t| is_shared(t));
        let same = || -> Same { (op.clone(), records, inputs.iter().map(|t| key(t)).collect()) };
        if shared && let Some(d) = r.shared.get(&same()) {
            return Some(Tensor::deferred(d.clone(), d.requires_grad));
        }
        let result = Arc::new(Deferred {
            shared,
            dtype: ty.dtype,
            shape: ty.shape,
            requires_grad: records
                && ty.dtype.is_differentiable()
                && inputs.iter().any(|t| t.requires_grad()),
            region: r.id,
            note: r.notes.len(),
            place: OnceLock::new(),
            value: OnceLock::new(),
        });
        if shared {
            r.shared.insert(same(), result.clone());
        }
        r.notes.push(Some(Note {
            op: op.clone(),
            inputs: inputs.iter().map(|t| (*t).clone()).collect(),
            result: result.clone(),
            depth,
            records,
            at,
        }));
        Some(Tensor::deferred(result.clone(), result.requires_grad))
    })
}

/// The operands with what has been computed in the place of notes; runs what waits.
pub(crate) fn resolved(inputs: &[&Tensor]) -> SmallVec<[Tensor; 4]> {
    inputs.iter().map(|t| t.as_deferred().map_or(*t, |d| value(d)).clone()).collect()
}

/// The value of a noted op.
#[cold]
pub(crate) fn value(d: &Arc<Deferred>) -> &Tensor {
    // Not inside the initialisation below: other notes may need this value.
    if d.place.get().is_none() {
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
                apply(Op::Reshape { shape: d.shape.clone() }, &[&apply(one, &[batch])])
            }
        }
    })
}

/// What makes an operand of noted ops alike.
#[derive(PartialEq, Eq, Hash)]
enum Alike {
    /// A parameter is shared by the whole batch.
    Same(usize),
    Type(DType, Shape),
}

#[derive(PartialEq, Eq, Hash)]
struct Signature {
    op: Op,
    records: bool,
    operands: SmallVec<[Alike; 3]>,
}

fn alike(t: &Tensor) -> Alike {
    if is_shared(t) { Alike::Same(key(t)) } else { Alike::Type(t.dtype(), t.shape().into()) }
}

/// Whether it is a parameter, or made of parameters alone.
fn is_shared(t: &Tensor) -> bool {
    match t.as_deferred() {
        Some(d) => d.shared,
        None => t.requires_grad() && t.is_leaf(),
    }
}

/// The same number for handles to one value.
fn key(t: &Tensor) -> usize {
    t.as_deferred().map_or(t.id(), |d| Arc::as_ptr(d) as usize)
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
    let notes: Vec<Note> = REGION.with_borrow_mut(|r| {
        let Some(r) = r else { return vec![] };
        // Parameters may change now.
        r.shared.clear();
        let from = r.done;
        r.done = r.notes.len();
        r.notes[from..].iter_mut().filter_map(Option::take).collect()
    });
    let _plain = mode::set(mode::DEFER, 0);
    let notes = needed(notes);
    // By depth, then in the order in which signatures were first met.
    let deepest = notes.iter().map(|n| n.depth).max().unwrap_or(0) as usize;
    let mut levels: Vec<Vec<Note>> = (0..=deepest).map(|_| Vec::new()).collect();
    for n in notes {
        levels[n.depth as usize].push(n);
    }
    for level in levels {
        let mut groups: Vec<Vec<Note>> = Vec::new();
        let mut found: FxHashMap<Signature, usize> = FxHashMap::default();
        for n in level {
            let signature = Signature {
                op: n.op.clone(),
                records: n.records,
                operands: n.inputs.iter().map(alike).collect(),
            };
            let group = *found.entry(signature).or_insert_with(|| {
                groups.push(Vec::new());
                groups.len() - 1
            });
            groups[group].push(n);
        }
        for group in groups {
            run(group);
        }
    }
}

/// Without notes whose result nobody has or needs.
fn needed(notes: Vec<Note>) -> Vec<Note> {
    let mut wanted: rustc_hash::FxHashSet<usize> = Default::default();
    let mut kept: Vec<Note> = Vec::with_capacity(notes.len());
    // Dropping a note drops its hold on what it takes: users are gone before it is asked.
    for n in notes.into_iter().rev() {
        let key = Arc::as_ptr(&n.result) as usize;
        if Arc::strong_count(&n.result) > 1 || wanted.contains(&key) {
            wanted.extend(
                n.inputs.iter().filter_map(|t| Some(Arc::as_ptr(t.as_deferred()?) as usize)),
            );
            kept.push(n);
        }
    }
    kept.reverse();
    kept
}

/// Runs alike ops as one.
fn run(mut group: Vec<Note>) {
    let _mode = mode::set(mode::GRAD, if group[0].records { mode::GRAD } else { 0 });
    let at = group[0].at;
    if let [note] = &group[..] {
        let joined = joined(note);
        let out = joined.unwrap_or_else(|| {
            let inputs = resolved(&note.inputs.iter().collect::<SmallVec<[&Tensor; 4]>>());
            let refs: SmallVec<[&Tensor; 4]> = inputs.iter().collect();
            autograd::at(at, || apply(note.op.clone(), &refs))
        });
        let _ = note.result.place.set(Place::Whole(out));
        return;
    }
    let operands = group[0].inputs.len();
    let shared = |k: usize| group.iter().all(|n| key(&n.inputs[k]) == key(&group[0].inputs[k]));
    let batched: SmallVec<[bool; 4]> = (0..operands).map(|k| !shared(k)).collect();
    let Some(first) = batched.iter().position(|&b| b) else {
        // Equal ops on equal operands have one result.
        let inputs = resolved(&group[0].inputs.iter().collect::<SmallVec<[&Tensor; 4]>>());
        let refs: SmallVec<[&Tensor; 4]> = inputs.iter().collect();
        let out = autograd::at(at, || apply(group[0].op.clone(), &refs));
        for n in &group {
            let _ = n.result.place.set(Place::Whole(out.clone()));
        }
        return;
    };
    // In the order of the rows of one operand, which can then be taken as they are.
    group.sort_by_cached_key(|n| match place(&n.inputs[first]) {
        Some(Place::Row(batch, row)) => (batch.id(), row),
        _ => (usize::MAX, 0),
    });
    let out = autograd::at(at, || {
        let values: SmallVec<[Tensor; 4]> = (0..operands)
            .map(|k| {
                if batched[k] {
                    gather(&group.iter().map(|n| &n.inputs[k]).collect::<Vec<_>>())
                } else {
                    group[0].inputs[k].clone().resolve()
                }
            })
            .collect();
        let operands = Operands { values: &values, batched: &batched, n: group.len() };
        rules::batched(&group[0].op, &operands).swap_remove(0)
    });
    for (row, n) in group.iter().enumerate() {
        let _ = n.result.place.set(Place::Row(out.clone(), row));
    }
}

/// Where an operand lies. A value that has hooks or was made a constant is taken as it
/// is: its gradient passes through it, or ends there.
fn place(t: &Tensor) -> Option<Place> {
    let d = t.as_deferred()?;
    match d.value.get() {
        Some(v) if v.has_hooks() || v.requires_grad() != d.requires_grad => {
            Some(Place::Whole(v.clone()))
        }
        _ => d.place.get().cloned(),
    }
}

/// Joining values of one shape takes them out of their batches at once.
fn joined(note: &Note) -> Option<Tensor> {
    let Op::Concat { axis } = note.op else { return None };
    let shape = note.inputs[0].shape();
    let rows = note.inputs.iter().all(|t| matches!(place(t), Some(Place::Row(..))));
    if note.inputs.len() < 3 || !rows || note.inputs.iter().any(|t| t.shape() != shape) {
        return None;
    }
    Some(autograd::at(note.at, || {
        let all = gather(&note.inputs.iter().collect::<Vec<_>>());
        let mut joined: Shape = shape.into();
        joined[axis] *= note.inputs.len();
        all.movedim(0, axis as i64).reshape(&joined[..])
    }))
}

/// Values of one shape, stacked.
fn gather(values: &[&Tensor]) -> Tensor {
    // Each source with the rows that are taken from it, and for each value which of
    // all rows taken it is.
    let mut sources: Vec<(Tensor, Vec<usize>)> = Vec::new();
    let mut index: FxHashMap<usize, usize> = FxHashMap::default();
    let mut single: Vec<Tensor> = Vec::new();
    let mut taken: Vec<(usize, usize)> = Vec::with_capacity(values.len());
    const SINGLE: usize = usize::MAX;
    for t in values {
        match place(t) {
            Some(Place::Row(batch, row)) => {
                let s = *index.entry(batch.id()).or_insert_with(|| {
                    sources.push((batch, Vec::new()));
                    sources.len() - 1
                });
                taken.push((s, sources[s].1.len()));
                sources[s].1.push(row);
            }
            _ => {
                taken.push((SINGLE, single.len()));
                single.push((*t).clone().resolve().unsqueeze(0));
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
