//! From recorded traces to a graph, with sizes known only when the program runs.
//!
//! Shapes in user code are plain numbers. A model with a symbolic dimension is
//! therefore traced at several sizes, large primes, and the traces are compared:
//! where an extent differs, it must be the same polynomial in the size, found from
//! two traces and checked on a third. Code that behaves differently for different
//! sizes is an error that names the line where the traces part.

use super::{Operand, Recording, TraceError, numbers, run};
use crate::tensor::Tensor;
use sinter_compiler::graph::{Graph, Origin, Symbol, Value};
use sinter_runtime::op::TensorType;
use sinter_runtime::{Array, Dim, Dims, Op, OpError};
use smallvec::SmallVec;

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
        same_program(d, &main_sizes, &s, k, &main, &outs, (&other.0, &other.1))?;
        others.push((s, other.0));
    }
    let mut symbols = Symbols { dynamic, sizes: vec![main_sizes], recordings: vec![&main] };
    if !dynamic.is_empty() {
        // A last point away from all others checks what was concluded.
        let s: Vec<usize> = (0..dynamic.len()).map(|i| PROBES[2] + 2 * i * 17).collect();
        let other = at(&s)?;
        let d = &dynamic[0];
        same_program(d, &symbols.sizes[0], &s, 0, &main, &outs, (&other.0, &other.1))?;
        others.push((s, other.0));
    }
    for (s, r) in &others {
        symbols.sizes.push(s.clone());
        symbols.recordings.push(r);
    }
    build(name, &symbols, &main, &outs, &[])
}

/// A step that was traced: what it gives, the new values that its inputs get, and how many
/// places of the random stream it takes.
pub(super) struct Pass {
    pub(super) recording: Recording,
    pub(super) outs: Vec<Operand>,
    pub(super) updates: Vec<(usize, Operand)>,
    pub(super) drawn: u64,
}

/// The graph of a step, from `f`, which traces it, and the places of the random stream.
/// With an open size it is traced at several.
pub(super) fn graph_of(
    name: &str,
    open: Option<&DynamicDim>,
    mut f: impl FnMut(Option<usize>) -> Result<Pass, TraceError>,
) -> Result<(Graph, Dim), TraceError> {
    let Some(d) = open else {
        let p = f(None)?;
        let recordings = vec![&p.recording];
        let symbols = Symbols { dynamic: &[], sizes: vec![vec![]], recordings };
        let graph = build(name, &symbols, &p.recording, &p.outs, &p.updates)?;
        return Ok((graph, Dim::constant(p.drawn as i64)));
    };
    let passes = PROBES.into_iter().map(|n| f(Some(n))).collect::<Result<Vec<Pass>, _>>()?;
    // Traces are compared with the first; new values are results like others.
    let results = |p: &Pass| -> Vec<Operand> {
        p.outs.iter().copied().chain(p.updates.iter().map(|u| u.1)).collect()
    };
    let (main, rest) = passes.split_first().expect("there are several sizes");
    let outs = results(main);
    for (p, n) in rest.iter().zip(&PROBES[1..]) {
        same_program(d, &PROBES, &[*n], 0, &main.recording, &outs, (&p.recording, &results(p)))?;
    }
    let symbols = Symbols {
        dynamic: std::slice::from_ref(d),
        sizes: PROBES.iter().map(|&n| vec![n]).collect(),
        recordings: passes.iter().map(|p| &p.recording).collect(),
    };
    let drawn: Vec<usize> = passes.iter().map(|p| p.drawn as usize).collect();
    let drawn = symbols.solve(&drawn, &|| "the random numbers".to_string())?;
    Ok((build(name, &symbols, &main.recording, &main.outs, &main.updates)?, drawn))
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
    (b, b_outs): (&Recording, &[Operand]),
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
        let like = (skeleton(&x.op) == skeleton(&y.op) || numbers::alike_ops(&x.op, &y.op))
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
    if a_outs != b_outs {
        return part("they return different values".into());
    }
    let captured_alike = a.captured.len() == b.captured.len()
        && a.captured.iter().zip(&b.captured).all(|(x, y)| {
            x.0.is_same_view(&y.0) || same_elements(&x.0, &y.0) || numbers::alike(&x.0, &y.0)
        });
    if !captured_alike {
        return part("a tensor from outside depends on the size".into());
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
pub(super) struct Symbols<'a> {
    dynamic: &'a [DynamicDim],
    pub(super) sizes: Vec<Vec<usize>>,
    pub(super) recordings: Vec<&'a Recording>,
}

impl Symbols<'_> {
    /// The polynomial that takes these values at the traced sizes: affine in each
    /// size, from one trace a symbol, checked on the last.
    pub(super) fn solve(
        &self,
        values: &[usize],
        what: &dyn Fn() -> String,
    ) -> Result<Dim, TraceError> {
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
    updates: &[(usize, Operand)],
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
            let label = match main.labels.get(i) {
                Some(label) => label.clone(),
                None if main.inputs.len() == 1 => "x".to_string(),
                None => format!("x{i}"),
            };
            Ok(g.add_input(label, ty))
        })
        .collect::<Result<_, TraceError>>()?;
    let captured: Vec<Value> = main
        .captured
        .iter()
        .enumerate()
        .map(|(i, (a, name))| {
            if let Some(open) = numbers::captured(&mut g, i, symbols)? {
                return Ok(open);
            }
            if a.rank() == 0 {
                // A single number: kernels hold it as an immediate.
                let op = Op::Full { value: a.item(), dtype: a.dtype(), shape: Dims::new() };
                let n = g.add_op(op, &[], Origin::default()).expect("a number has no operands");
                return Ok(Value { node: n, output: 0 });
            }
            let name = name.as_ref().map_or_else(|| format!("constant{i}"), |n| n.to_string());
            Ok(g.add_constant(name, a.clone()))
        })
        .collect::<Result<_, TraceError>>()?;
    let mut steps: Vec<Value> = Vec::new();
    let value = |o: &Operand, steps: &[Value]| match *o {
        Operand::Input(i) => inputs[i],
        Operand::Captured(i) => captured[i],
        Operand::Step(i, k) => Value { output: k, ..steps[i] },
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
        if let Some(open) = numbers::filled(&mut g, i, &op, symbols)? {
            steps.push(open);
            continue;
        }
        let operands: SmallVec<[Value; 3]> = s.operands.iter().map(|o| value(o, &steps)).collect();
        let origin = Origin {
            line: Some(s.at.to_string().into()),
            module: s.module.clone(),
            ..Origin::default()
        };
        let node = g
            .add_op(op, &operands, origin)
            .map_err(|e: OpError| TraceError::Extent(format!("at {}: for all sizes, {e}", s.at)))?;
        steps.push(Value { node, output: 0 });
    }
    for o in outs {
        g.add_output(value(o, &steps));
    }
    for (input, o) in updates {
        g.add_update(*input, value(o, &steps));
    }
    g.remove_dead();
    Ok(g)
}
