//! Tracing: the same user code, run on tensors without data, becomes a graph.
//!
//! While a trace runs on this thread, an op with a traced operand computes nothing
//! and appends a node, and so does making a filled tensor. Ops on other tensors
//! compute as always: what depends on weights alone is known. What a graph cannot hold is an error that names the
//! line and the remedy, never a constant baked in silently: reading a value of a
//! traced tensor, drawing random numbers, writing to a tensor from outside.
//!
//! # Sizes known only when the program runs
//!
//! Shapes in user code are plain numbers. A model with a symbolic dimension is
//! therefore traced at several sizes, large primes, and the traces are compared:
//! where an extent differs, it must be the same polynomial in the size, found from
//! two traces and checked on a third. Code that behaves differently for different
//! sizes is an error that names the line where the traces part.

use crate::tensor::Tensor;
use sinter_compiler::graph::{Graph, Origin, Symbol, Value};
use sinter_runtime::op::{TensorType, TypeRef, infer};
use sinter_runtime::{Array, Dim, Dims, Op, OpError};
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
}

/// A value of the graph being traced.
#[derive(Clone, Debug)]
pub(crate) struct Traced {
    /// Which trace.
    trace: u64,
    /// Which value of it.
    node: usize,
    output: u8,
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
    Input(usize),
    Step(usize, u8),
    Captured(usize),
}

#[derive(Default)]
struct Recording {
    id: u64,
    inputs: Vec<TensorType>,
    steps: Vec<Step>,
    captured: Vec<(Array, Option<Arc<str>>)>,
    captured_index: HashMap<(usize, usize), Vec<usize>>,
    /// Values that a view was taken of.
    viewed: Vec<(usize, u8)>,
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

#[track_caller]
pub(crate) fn forbid_random() {
    if is_active() {
        stop(TraceError::Random { at: Location::caller().to_string() });
    }
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
    let made = RECORDING.with_borrow_mut(|r| {
        let r = r.as_mut().expect("a trace is active");
        let mut module = None;
        let mut operands: SmallVec<[Operand; 3]> = SmallVec::new();
        for t in inputs {
            let o = match t.as_traced() {
                Some(v) if v.trace == r.id => {
                    if op.is_view() {
                        r.viewed.push((v.node, v.output));
                    }
                    r.operand(&v)
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
        let node = r.inputs.len() + r.steps.len();
        r.steps.push(Step { op: op.clone(), operands, types: results.clone(), at, module });
        Ok((r.id, node))
    });
    let (id, node) = made.unwrap_or_else(|e| stop(e));
    results
        .into_iter()
        .enumerate()
        .map(|(k, t)| {
            let v = Traced { trace: id, node, output: k as u8, view: op.is_view() };
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
    let viewed = RECORDING
        .with_borrow(|r| r.as_ref().is_some_and(|r| r.viewed.contains(&(v.node, v.output))));
    if v.view || viewed {
        stop(TraceError::View { op: name.to_string(), at: at.to_string() });
    }
    let new = record(op, inputs, at).swap_remove(0);
    if let Some(n) = new.as_traced() {
        target.rebind_traced(Traced { view: false, ..n });
    }
}

impl Recording {
    fn operand(&self, v: &Traced) -> Operand {
        if v.node < self.inputs.len() {
            Operand::Input(v.node)
        } else {
            Operand::Step(v.node - self.inputs.len(), v.output)
        }
    }

    /// The number of a tensor from outside; the same view of the same memory gets
    /// the same number.
    fn capture(&mut self, t: &Tensor) -> usize {
        let a = t.array();
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

/// A size known only when the compiled program runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DynamicDim {
    /// Its name in graphs and messages.
    pub name: String,
    /// The extents that have this size: input number and dimension.
    pub places: Vec<(usize, usize)>,
    /// Sizes the program must accept.
    pub range: std::ops::RangeInclusive<usize>,
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
            let v = Traced { trace: id, node: i, output: 0, view: false };
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
            Some(v) if v.trace == id => Ok(rec.operand(&v)),
            Some(_) => Err(TraceError::Output("a result belongs to another trace".into())),
            None => Ok(Operand::Captured(rec.capture(t))),
        })
        .collect::<Result<Vec<Operand>, _>>()?;
    Ok((rec, outs))
}

/// Sizes for tracing a symbolic dimension: primes beyond what models are made of,
/// so that no extent is such a size by chance.
const PROBES: [usize; 3] = [1009, 2003, 3001];

/// Traces a function of tensors into a graph.
///
/// # Errors
/// When the function does something a graph cannot hold; see [`TraceError`].
pub fn trace(
    name: &str,
    f: impl Fn(&[Tensor]) -> Vec<Tensor>,
    examples: &[&Tensor],
    dynamic: &[DynamicDim],
) -> Result<Graph, TraceError> {
    let base: Vec<TensorType> =
        examples.iter().map(|t| TensorType { dtype: t.dtype(), shape: t.shape().into() }).collect();
    check_request(&base, dynamic)?;
    let at = |sizes: &[usize]| {
        let mut types = base.clone();
        for (d, &n) in dynamic.iter().zip(sizes) {
            for &(input, dim) in &d.places {
                types[input].shape[dim] = n;
            }
        }
        run(&f, &types)
    };
    // One size at a time differs from the base, and all together once more.
    let sizes = |k: usize| -> Vec<usize> {
        (0..dynamic.len()).map(|i| PROBES[0] + 2 * i * 13 + if i == k { 994 } else { 0 }).collect()
    };
    let main_sizes = sizes(usize::MAX);
    let (main, outs) = at(&main_sizes)?;
    let mut others = Vec::new();
    for (k, d) in dynamic.iter().enumerate() {
        let s = sizes(k);
        let other = at(&s)?;
        same_program(d, &main_sizes, &s, k, &main, &outs, &other)?;
        others.push((s, other.0));
    }
    let mut symbols = Symbols { dynamic, sizes: vec![main_sizes], recordings: vec![&main] };
    if !dynamic.is_empty() {
        // A last point away from all others checks what was concluded.
        let s: Vec<usize> = (0..dynamic.len()).map(|i| PROBES[2] + 2 * i * 17).collect();
        let other = at(&s)?;
        let d = &dynamic[0];
        same_program(d, &symbols.sizes[0], &s, 0, &main, &outs, &other)?;
        others.push((s, other.0));
    }
    for (s, r) in &others {
        symbols.sizes.push(s.clone());
        symbols.recordings.push(r);
    }
    build(name, &symbols, &main, &outs)
}

fn check_request(base: &[TensorType], dynamic: &[DynamicDim]) -> Result<(), TraceError> {
    for (i, d) in dynamic.iter().enumerate() {
        let bad =
            |why: String| Err(TraceError::Request(format!("symbolic size `{}`: {why}", d.name)));
        if d.places.is_empty() {
            return bad("it names no dimension".into());
        }
        for &(input, dim) in &d.places {
            match base.get(input) {
                None => return bad(format!("there is no input {input}")),
                Some(t) if dim >= t.shape.len() => {
                    return bad(format!("input {input} has no dimension {dim}"));
                }
                _ => {}
            }
        }
        if d.range.is_empty() {
            return bad("its range is empty".into());
        }
        if !d.name.starts_with(|c: char| c.is_ascii_alphabetic())
            || !d.name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
        {
            return bad("a name is letters, digits and underscores".into());
        }
        if dynamic[..i].iter().any(|e| e.name == d.name) {
            return bad("it is given twice".into());
        }
    }
    if dynamic.len() > sinter_runtime::dim::MAX_SYMBOLS {
        return Err(TraceError::Request(format!(
            "at most {} symbolic sizes are possible",
            sinter_runtime::dim::MAX_SYMBOLS
        )));
    }
    Ok(())
}

/// Whether two traces are one program up to extents.
fn same_program(
    d: &DynamicDim,
    a_sizes: &[usize],
    b_sizes: &[usize],
    k: usize,
    a: &Recording,
    a_outs: &[Operand],
    (b, b_outs): &(Recording, Vec<Operand>),
) -> Result<(), TraceError> {
    let part = |what: String| {
        Err(TraceError::Diverges {
            symbol: d.name.clone(),
            first: a_sizes[k],
            second: b_sizes[k],
            what,
        })
    };
    for (i, (x, y)) in a.steps.iter().zip(&b.steps).enumerate() {
        let like = skeleton(&x.op) == skeleton(&y.op)
            && x.operands == y.operands
            && x.types
                .iter()
                .zip(&y.types)
                .all(|(s, t)| s.dtype == t.dtype && s.shape.len() == t.shape.len());
        if !like {
            return part(format!(
                "op {i} is `{}` at {} in one and `{}` at {} in the other",
                x.op, x.at, y.op, y.at
            ));
        }
    }
    if a.steps.len() != b.steps.len() {
        return part(format!("one has {} ops, the other {}", a.steps.len(), b.steps.len()));
    }
    if a_outs != b_outs.as_slice() {
        return part("they return different values".into());
    }
    let captured_alike = a.captured.len() == b.captured.len()
        && a.captured
            .iter()
            .zip(&b.captured)
            .all(|(x, y)| x.0.is_same_view(&y.0) || same_elements(&x.0, &y.0));
    if !captured_alike {
        return part("a number or tensor from outside depends on the size".into());
    }
    Ok(())
}

fn same_elements(a: &Array, b: &Array) -> bool {
    a.dtype() == b.dtype() && a.shape() == b.shape() && a.to_bytes() == b.to_bytes()
}

/// An op with its extents taken out.
fn skeleton(op: &Op) -> Op {
    op.map_dims(&mut |_| Some(0usize)).expect("zero is an extent")
}

/// The traces, and the sizes each was made at.
struct Symbols<'a> {
    dynamic: &'a [DynamicDim],
    sizes: Vec<Vec<usize>>,
    recordings: Vec<&'a Recording>,
}

impl Symbols<'_> {
    /// The polynomial that takes these values at the traced sizes: affine in each
    /// size, from one trace a symbol, checked on the last.
    fn solve(&self, values: &[usize], what: &dyn Fn() -> String) -> Result<Dim, TraceError> {
        if values.iter().all(|v| *v == values[0]) {
            return Ok(Dim::from(values[0]));
        }
        let err = |why: &str| {
            Err(TraceError::Extent(format!(
                "{}: extents {values:?} at sizes {:?} {why}",
                what(),
                self.sizes
            )))
        };
        let base = &self.sizes[0];
        let mut d = Dim::constant(values[0] as i64);
        // The sizes the extent depends on.
        let mut factors: Vec<usize> = Vec::new();
        for k in 0..self.dynamic.len() {
            let dn = self.sizes[k + 1][k] as i64 - base[k] as i64;
            let dv = values[k + 1] as i64 - values[0] as i64;
            if dv % dn != 0 {
                return err("are not a whole multiple of the size");
            }
            if dv != 0 {
                let slope = dv / dn;
                let term = Dim::affine(-slope * base[k] as i64, slope, k);
                d = sinter_runtime::Extent::plus(&d, &term);
                factors.push(k);
            }
        }
        let last = self.sizes.last().expect("there are traces");
        if d.eval(last) == values.last().copied() {
            return Ok(d);
        }
        // Not affine: perhaps a product of several sizes, as when batch and
        // sequence are flattened together.
        let whole: usize = factors.iter().map(|&k| base[k]).product();
        if factors.len() > 1 && values[0].is_multiple_of(whole) {
            let m = factors.iter().fold(Dim::from(values[0] / whole), |m, &k| {
                sinter_runtime::Extent::times(&m, &Dim::symbol(k))
            });
            if m.eval(last) == values.last().copied() {
                return Ok(m);
            }
        }
        err("are neither a sum nor a product of the sizes")
    }
}

/// The graph of the main trace, its extents generalised.
fn build(
    name: &str,
    symbols: &Symbols<'_>,
    main: &Recording,
    outs: &[Operand],
) -> Result<Graph, TraceError> {
    let mut g = Graph::new(name);
    g.symbols = symbols
        .dynamic
        .iter()
        .map(|d| Symbol {
            name: d.name.clone(),
            min: *d.range.start(),
            max: *d.range.end(),
            hint: 64.clamp(*d.range.start(), *d.range.end()),
        })
        .collect();
    let shape = |pick: &dyn Fn(&Recording) -> &[usize], what: &dyn Fn() -> String| {
        let all: Vec<&[usize]> = symbols.recordings.iter().map(|r| pick(r)).collect();
        (0..all[0].len())
            .map(|i| symbols.solve(&all.iter().map(|s| s[i]).collect::<Vec<_>>(), what))
            .collect::<Result<Dims<Dim>, TraceError>>()
    };
    let inputs: Vec<Value> = (0..main.inputs.len())
        .map(|i| {
            let dims = shape(&|r| &r.inputs[i].shape, &|| format!("input {i}"))?;
            let ty = TensorType { dtype: main.inputs[i].dtype, shape: dims };
            let label = if main.inputs.len() == 1 { "x".to_string() } else { format!("x{i}") };
            Ok(g.add_input(label, ty))
        })
        .collect::<Result<_, TraceError>>()?;
    let captured: Vec<Value> = main
        .captured
        .iter()
        .enumerate()
        .map(|(i, (a, name))| {
            if a.rank() == 0 {
                // A single number: kernels hold it as an immediate.
                let op = Op::Full { value: a.item(), dtype: a.dtype(), shape: Dims::new() };
                let n = g.add_op(op, &[], Origin::default()).expect("a number has no operands");
                return Value { node: n, output: 0 };
            }
            let name = name.as_ref().map_or_else(|| format!("constant{i}"), |n| n.to_string());
            g.add_constant(name, a.clone())
        })
        .collect();
    let mut steps: Vec<sinter_compiler::graph::NodeId> = Vec::new();
    let value = |o: &Operand, steps: &[sinter_compiler::graph::NodeId]| match *o {
        Operand::Input(i) => inputs[i],
        Operand::Captured(i) => captured[i],
        Operand::Step(i, k) => Value { node: steps[i], output: k },
    };
    for (i, s) in main.steps.iter().enumerate() {
        // Extents of the op, in the order in which `map_dims` visits them.
        let mut rows: Vec<Vec<usize>> = Vec::new();
        for r in &symbols.recordings {
            let mut row = Vec::new();
            r.steps[i].op.map_dims(&mut |&d| {
                row.push(d);
                Some(d)
            });
            rows.push(row);
        }
        let mut next = 0;
        let mut failed = None;
        let what = || format!("`{}` at {}", s.op.name(), s.at);
        let op = s.op.map_dims(&mut |_| {
            let values: Vec<usize> = rows.iter().map(|r| r[next]).collect();
            next += 1;
            match symbols.solve(&values, &what) {
                Ok(d) => Some(d),
                Err(e) => {
                    failed.get_or_insert(e);
                    None
                }
            }
        });
        let Some(op) = op else {
            return Err(failed.expect("an extent failed"));
        };
        let operands: SmallVec<[Value; 3]> = s.operands.iter().map(|o| value(o, &steps)).collect();
        let origin = Origin {
            line: Some(s.at.to_string().into()),
            module: s.module.clone(),
            ..Origin::default()
        };
        let node = g
            .add_op(op, &operands, origin)
            .map_err(|e: OpError| TraceError::Extent(format!("at {}: for all sizes, {e}", s.at)))?;
        steps.push(node);
    }
    for o in outs {
        g.add_output(value(o, &steps));
    }
    g.remove_dead();
    Ok(g)
}
