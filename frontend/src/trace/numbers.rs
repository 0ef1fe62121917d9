//! Numbers that depend on sizes: the divisor of a mean over an open dimension, say.
//!
//! Shapes in user code are plain numbers, and so is what is computed from them. A number
//! of the traced function that differs from size to size must be a multiple of such a
//! count, or of one divided by a count; then the program computes it, from as many ones as
//! there are, in f64, and rounds as the user's code did. Any other is an error.

use super::symbolic::Symbols;
use super::{Operand, Recording, Step, TraceError};
use sinter_compiler::graph::{Graph, Origin, Value};
use sinter_runtime::op::{Axes, BinaryOp, ReduceKind};
use sinter_runtime::{Array, DType, Dim, Dims, Extent, Op, OpError, Scalar};

/// A number as a function of the sizes.
struct Number {
    /// The count is this times the extent.
    factor: f64,
    extent: Dim,
    /// Whether it is one divided by the count.
    inverse: bool,
}

/// A number as an array of that type would hold it.
fn rounded(v: f64, dtype: DType) -> f64 {
    match dtype {
        DType::F32 => f64::from(v as f32),
        _ => v,
    }
}

fn value(s: Scalar) -> f64 {
    match s {
        Scalar::Float(v) => v,
        Scalar::Int(v) => v as f64,
        _ => f64::NAN,
    }
}

impl Number {
    fn at(&self, sizes: &[usize]) -> Option<f64> {
        let n = self.extent.eval(sizes)? as f64 * self.factor;
        Some(if self.inverse { 1.0 / n } else { n })
    }

    /// Whether it takes these values: `exact` but for the rounding to `dtype`, or but for
    /// that of a factor in f64.
    fn gives(&self, values: &[f64], symbols: &Symbols<'_>, dtype: DType, exact: bool) -> bool {
        let fits = |(v, s): (&f64, &Vec<usize>)| {
            self.at(s).is_some_and(|at| match exact {
                true => rounded(at, dtype) == rounded(*v, dtype),
                false => (at - v).abs() <= v.abs() * 1e-15,
            })
        };
        values.iter().zip(&symbols.sizes).all(fits)
    }
}

/// What function of the sizes takes these values, if it is one that a program can compute.
fn fit(values: &[f64], symbols: &Symbols<'_>, dtype: DType) -> Option<Number> {
    // The sizes it depends on, all multiplied: as far as rounding leaves it open, it is a
    // multiple of that.
    let all = 0..symbols.sizes.len() - 2;
    let product = all
        .filter(|&k| values[k + 1] != values[0])
        .fold(Dim::of(1), |p, k| p.times(&Dim::symbol(k)));
    let whole = product.eval(&symbols.sizes[0])? as f64;
    let counts = |inverse: bool| -> Vec<f64> {
        values.iter().map(|v| if inverse { 1.0 / v } else { *v }).collect()
    };
    let whole_numbers = [false, true].into_iter().find_map(|inverse| {
        let counts = counts(inverse);
        if !counts.iter().all(|c| (0.5..9e15).contains(c)) {
            return None;
        }
        let factor = (counts[0] / whole).round();
        let multiple = Number { factor, extent: product.clone(), inverse };
        if multiple.gives(values, symbols, dtype, true) {
            return Some(multiple);
        }
        let counts: Vec<usize> = counts.iter().map(|c| c.round() as usize).collect();
        let extent = symbols.solve(&counts, &String::new).ok()?;
        let n = Number { factor: 1.0, extent, inverse };
        n.gives(values, symbols, dtype, true).then_some(n)
    });
    // Any multiple, where the number is known to f64.
    let known = dtype.is_float() && values.iter().any(|v| f64::from(*v as f32) != *v);
    whole_numbers.or_else(|| {
        [false, true].into_iter().filter(|_| known).find_map(|inverse| {
            let factor = counts(inverse)[0] / whole;
            let n = Number { factor, extent: product.clone(), inverse };
            (factor.is_finite() && n.gives(values, symbols, dtype, false)).then_some(n)
        })
    })
}

/// Whether a number of that type may depend on the sizes.
fn counts(dtype: DType) -> bool {
    matches!(dtype, DType::F32 | DType::F64 | DType::I64)
}

/// Whether two captured arrays are numbers of one type, which may depend on the sizes.
pub(super) fn alike(a: &Array, b: &Array) -> bool {
    a.rank() == 0 && b.rank() == 0 && a.dtype() == b.dtype() && counts(a.dtype())
}

/// Whether two ops are the same but for a number that may depend on the sizes.
pub(super) fn alike_ops(a: &Op, b: &Op) -> bool {
    matches!((a, b), (Op::Full { dtype: d, .. }, Op::Full { dtype: e, .. }) if d == e && counts(*d))
}

/// Adds a number to the graph if it depends on the sizes: one that was captured, or that
/// an array was filled with.
///
/// # Errors
/// When it does in another way than a program can compute.
fn open(
    g: &mut Graph,
    symbols: &Symbols<'_>,
    dtype: DType,
    of: impl Fn(&Recording) -> Scalar,
    line: &dyn Fn() -> String,
) -> Result<Option<Value>, TraceError> {
    let values: Vec<f64> = symbols.recordings.iter().map(|r| value(of(r))).collect();
    if values.iter().all(|v| v.to_bits() == values[0].to_bits()) {
        return Ok(None);
    }
    let Some(n) = fit(&values, symbols, dtype) else {
        return Err(TraceError::Extent(format!(
            "{} uses a number that depends on the size: {values:?} at sizes {:?} is a multiple of \
             neither a count of elements nor one divided by a count",
            line(),
            symbols.sizes
        )));
    };
    compute(g, &n, dtype).map(Some).map_err(|e| TraceError::Extent(e.to_string()))
}

/// [`open`] for captured array `i`.
pub(super) fn captured(
    g: &mut Graph,
    i: usize,
    symbols: &Symbols<'_>,
) -> Result<Option<Value>, TraceError> {
    let main = symbols.recordings[0];
    let a = &main.captured[i].0;
    if a.rank() != 0 || !counts(a.dtype()) {
        return Ok(None);
    }
    let used = |s: &&Step| s.operands.contains(&Operand::Captured(i));
    let line = || match main.steps.iter().find(used) {
        Some(s) => format!("`{}` at {}", s.op.name(), s.at),
        None => "a result".to_string(),
    };
    open(g, symbols, a.dtype(), |r| r.captured[i].0.item(), &line)
}

/// [`open`] for the array that step `i` fills, whose extents in the graph `op` has.
pub(super) fn filled(
    g: &mut Graph,
    i: usize,
    op: &Op<Dim>,
    symbols: &Symbols<'_>,
) -> Result<Option<Value>, TraceError> {
    let Op::Full { dtype, shape, .. } = op else { return Ok(None) };
    if !counts(*dtype) {
        return Ok(None);
    }
    let of = |r: &Recording| match r.steps[i].op {
        Op::Full { value, .. } => value,
        _ => unreachable!("the traces are one program"),
    };
    let line = || format!("the code at {}", symbols.recordings[0].steps[i].at);
    let Some(n) = open(g, symbols, *dtype, of, &line)? else { return Ok(None) };
    if shape.is_empty() {
        return Ok(Some(n));
    }
    let wide = g.add_op(Op::Broadcast { shape: shape.clone() }, &[n], Origin::default());
    let wide = wide.map_err(|e| TraceError::Extent(e.to_string()))?;
    Ok(Some(Value { node: wide, output: 0 }))
}

fn compute(g: &mut Graph, n: &Number, dtype: DType) -> Result<Value, OpError> {
    let mut add = |op: Op<Dim>, operands: &[Value]| {
        Ok::<_, OpError>(Value { node: g.add_op(op, operands, Origin::default())?, output: 0 })
    };
    let full =
        |v: f64, shape: Dims<Dim>| Op::Full { value: Scalar::Float(v), dtype: DType::F64, shape };
    let ones = add(full(1.0, [n.extent.clone()].into_iter().collect()), &[])?;
    let axes: Axes = [0].into_iter().collect();
    let sum = add(Op::Reduce { kind: ReduceKind::Sum, axes, keep: true }, &[ones])?;
    let mut count = add(Op::Reshape { shape: Dims::new() }, &[sum])?;
    if n.factor != 1.0 {
        let factor = add(full(n.factor, Dims::new()), &[])?;
        count = add(Op::Binary(BinaryOp::Mul), &[count, factor])?;
    }
    if n.inverse {
        let one = add(full(1.0, Dims::new()), &[])?;
        count = add(Op::Binary(BinaryOp::Div), &[one, count])?;
    }
    if dtype == DType::F64 { Ok(count) } else { add(Op::Cast { dtype }, &[count]) }
}
