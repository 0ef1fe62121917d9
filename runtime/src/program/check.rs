//! Whether a plan makes sense: what running it relies on.
//!
//! A plan may come from a file, so nothing in it is believed. [`structure`] checks
//! once what does not depend on sizes; [`extents`] checks, for each new set of
//! sizes, that every view stays inside its buffer and every contraction's operands
//! go together. Generated code is trusted: it is the compiler's word for word.

use super::model::ModelError;
use super::{Buffer, Packing, Place, Program, Step, View};
use crate::array::Strides;
use crate::dim::Shape;
use crate::eager::cell;
use crate::op::{TypeRef, infer};
use crate::{DType, Dim, Op};
use sinter_kernels::conv::{ConvKernel, ConvParams};
use sinter_kernels::gemm;
use sinter_kernels::mem::Block;
use sinter_kernels::recurrent;
use sinter_kernels::view::reach;

/// What a step reads and what it writes.
fn views(s: &Step) -> (Vec<&View>, Vec<&View>) {
    match s {
        Step::Generated { .. } => (vec![], vec![]),
        Step::Contract { operands, bias, result, .. } => {
            (operands.iter().chain(bias).collect(), vec![result])
        }
        Step::Library { operands, results, .. } | Step::Sequence { operands, results, .. } => {
            (operands.iter().collect(), results.iter().collect())
        }
    }
}

fn bad<T>(why: String) -> Result<T, ModelError> {
    Err(ModelError(why))
}

/// Every reference of the plan leads somewhere, nothing is written that must not
/// be, and temporaries are used only while they live.
pub(super) fn structure(p: &Program, constants: &Block) -> Result<(), ModelError> {
    for s in &p.symbols {
        if s.min > s.max {
            return bad(format!("symbol `{}` has range {}..={}", s.name, s.min, s.max));
        }
    }
    if let Some(k) = p.written.iter().find(|k| **k as usize >= p.inputs.len()) {
        return bad(format!("input {k} is written, which is none"));
    }
    for (i, b) in p.buffers.iter().enumerate() {
        let port = match b.place {
            Place::Input(k) => Some((p.inputs.get(k as usize), "input", k)),
            Place::Output(k) => Some((p.outputs.get(k as usize), "output", k)),
            _ => None,
        };
        match port {
            Some((None, what, k)) => {
                return bad(format!("buffer {i} is {what} {k}, which is none"));
            }
            Some((Some(port), what, k)) if port.ty.dtype != b.dtype => {
                return bad(format!("buffer {i} and {what} {k} differ in type"));
            }
            _ => {}
        }
        match b.place {
            Place::Constant(at) => {
                let bytes = b.len.eval(&[]).and_then(|n| n.checked_mul(b.dtype.size()));
                let end = bytes.and_then(|n| n.checked_add(usize::try_from(at).ok()?));
                if end.is_none_or(|e| e > constants.len()) || at % b.dtype.size() as u64 != 0 {
                    return bad(format!("buffer {i} leaves the constants"));
                }
            }
            Place::Temp { first, last } if first > last || last as usize >= p.steps.len() => {
                return bad(format!("buffer {i} lives from step {first} to {last}"));
            }
            _ => {}
        }
    }
    for (i, s) in p.steps.iter().enumerate() {
        let (reads, writes) = views(s);
        for v in reads.iter().chain(&writes) {
            let Some(b) = p.buffers.get(v.buffer as usize) else {
                return bad(format!("step {i} uses buffer {}, which is none", v.buffer));
            };
            if v.shape.len() != v.strides.len() {
                return bad(format!("step {i} uses a view with {} strides", v.strides.len()));
            }
            if let Place::Temp { first, last } = b.place
                && !(first as usize..=last as usize).contains(&i)
            {
                return bad(format!("step {i} uses buffer {} outside its life", v.buffer));
            }
        }
        for v in writes {
            let read_only = match p.buffers[v.buffer as usize].place {
                Place::Input(k) => !p.written.contains(&k),
                place => matches!(place, Place::Constant(_)),
            };
            if read_only {
                return bad(format!("step {i} writes buffer {}, which is read-only", v.buffer));
            }
        }
        if let Step::Sequence { op, packing, operands, results } = s {
            if !matches!(packing, Packing::Panels | Packing::Bf16Panels) {
                return bad(format!("step {i}: no sequence has a weight packed as {packing:?}"));
            }
            let used = || operands.iter().chain(results);
            if used().any(|v| p.buffers[v.buffer as usize].dtype != DType::F32) {
                return bad(format!("step {i} is a sequence of something else than f32"));
            }
            if results.iter().any(|r| operands.iter().any(|v| v.buffer == r.buffer)) {
                return bad(format!("step {i} writes what it reads"));
            }
            let constant =
                |v: &View| matches!(p.buffers[v.buffer as usize].place, Place::Constant(_));
            let weight = operands.get(1).filter(|v| constant(v));
            if !matches!(op, Op::Recurrent { .. }) || weight.is_none() {
                return bad(format!("step {i} is no sequence with a packed weight"));
            }
        }
        if let Step::Contract { operands, packing, bias, result, .. } = s {
            let [x, w] = operands;
            let dtype = |v: &View| p.buffers[v.buffer as usize].dtype;
            if [x, w, result].into_iter().chain(bias).any(|v| dtype(v) != DType::F32) {
                return bad(format!("step {i} contracts something else than f32"));
            }
            if [x, w].into_iter().chain(bias).any(|v| v.buffer == result.buffer) {
                return bad(format!("step {i} writes buffer {} while it reads it", result.buffer));
            }
            let weight = &p.buffers[w.buffer as usize];
            if *packing != Packing::None && !matches!(weight.place, Place::Constant(_)) {
                return bad(format!("step {i} has a packed operand that is no constant"));
            }
        }
    }
    Ok(())
}

/// The number of elements of a buffer.
fn len(b: &Buffer, sizes: &[usize]) -> Option<usize> {
    let n = b.len.eval(sizes)?;
    n.checked_mul(b.dtype.size()).filter(|&bytes| bytes <= isize::MAX as usize / 2)?;
    Some(n)
}

/// The shape of a view, if it stays inside its buffer. A packed operand's view is
/// that of the matrix it was.
fn inside(p: &Program, v: &View, sizes: &[usize], packed: bool) -> Option<Shape> {
    let shape = v.shape.iter().map(|d| d.eval(sizes)).collect::<Option<Shape>>()?;
    let strides = v
        .strides
        .iter()
        .map(|d| isize::try_from(d.eval_signed(sizes)?).ok())
        .collect::<Option<Strides>>()?;
    if shape.contains(&0) {
        // Of an empty view that runs backwards, the first element is before the buffer.
        return Some(shape);
    }
    let offset = v.offset.eval(sizes)?;
    let limit = len(&p.buffers[v.buffer as usize], sizes)?;
    let fits = packed
        || reach(&shape, &strides, offset).is_some_and(|(lo, hi)| lo >= 0 && hi < limit as isize);
    fits.then_some(shape)
}

/// With these sizes every extent has a value, buffers of inputs and outputs are as
/// large as these, every view stays inside its buffer, and every contraction's
/// operands go together.
pub(super) fn extents(p: &Program, sizes: &[usize]) -> Result<(), ModelError> {
    for (i, b) in p.buffers.iter().enumerate() {
        let Some(n) = len(b, sizes) else {
            return bad(format!("buffer {i} has no size, or one beyond memory, for {sizes:?}"));
        };
        let port = match b.place {
            Place::Input(k) => &p.inputs[k as usize],
            Place::Output(k) => &p.outputs[k as usize],
            _ => continue,
        };
        let shape = port.ty.eval(sizes).map(|t| t.shape);
        let numel = shape.and_then(|s| s.iter().try_fold(1usize, |n, &d| n.checked_mul(d)));
        if numel != Some(n) {
            return bad(format!("buffer {i} and `{}` differ in size for {sizes:?}", port.name));
        }
    }
    for (i, s) in p.steps.iter().enumerate() {
        let packed = |v: &View| match s {
            Step::Contract { operands, packing, .. } => {
                *packing != Packing::None && std::ptr::eq(v, &operands[1])
            }
            Step::Sequence { operands, .. } => std::ptr::eq(v, &operands[1]),
            _ => false,
        };
        let (reads, writes) = views(s);
        for v in reads.into_iter().chain(writes) {
            if inside(p, v, sizes, packed(v)).is_none() {
                return bad(format!("step {i}: a view leaves buffer {} for {sizes:?}", v.buffer));
            }
        }
        if let Step::Sequence { op, packing, operands, results } = s {
            let fits = sequence(op, operands, results, sizes);
            fits.or_else(|why| bad(format!("step {i}: {why}")))?;
            let units = operands[1].shape.last().and_then(|d| d.eval(sizes));
            let weight = len(&p.buffers[operands[1].buffer as usize], sizes);
            let wanted = match (op, units) {
                // Larger ones would not be counted.
                (Op::Recurrent { kind, .. }, Some(n)) if n < 1 << 20 => Some(match packing {
                    Packing::Bf16Panels => recurrent::packed_len_bf16(cell(*kind), n),
                    _ => recurrent::packed_len(cell(*kind), n),
                }),
                _ => None,
            };
            if wanted.is_none() || wanted != weight {
                return bad(format!("step {i}: the weight is not packed as a sequence's is"));
            }
        }
        if let Step::Contract { op, operands: [x, w], packing, bias, result, .. } = s {
            let fits = contraction(op, [x, w, result], bias.as_ref(), sizes);
            fits.or_else(|why| bad(format!("step {i}: {why}")))?;
            let weight = len(&p.buffers[w.buffer as usize], sizes);
            let shape = w.shape.iter().map(|d| d.eval(sizes)).collect::<Option<Shape>>();
            let fits = weight.zip(shape).is_some_and(|(n, s)| packed_fits(*packing, op, &s, n));
            if !fits {
                return bad(format!("step {i}: the weight is not packed as {packing:?} is"));
            }
        }
    }
    Ok(())
}

/// Whether a sequence's results have the shapes its operands give.
fn sequence(
    op: &Op<Dim>,
    operands: &[View],
    results: &[View],
    sizes: &[usize],
) -> Result<(), String> {
    let shapes = |views: &[View]| -> Option<Vec<Shape>> {
        views.iter().map(|v| v.shape.iter().map(|d| d.eval(sizes)).collect()).collect()
    };
    let op = op.eval(sizes).ok_or("an attribute has no value")?;
    let given = shapes(operands).ok_or("a view has no shape")?;
    let got = shapes(results).ok_or("a view has no shape")?;
    let refs: Vec<_> = given.iter().map(|s| TypeRef { dtype: DType::F32, shape: s }).collect();
    let types = infer(&op, &refs).map_err(|e| e.to_string())?;
    match types.iter().map(|t| t.shape.as_slice()).eq(got.iter().map(|s| s.as_slice())) {
        true => Ok(()),
        false => Err(format!("operands {given:?} do not give {got:?}")),
    }
}

/// Whether a weight of that shape, packed in that way, has `len` numbers.
fn packed_fits(packing: Packing, op: &Op<Dim>, shape: &[usize], len: usize) -> bool {
    // What is padded is not larger than this many numbers beyond memory.
    let beyond = |&d: &usize| d > isize::MAX as usize >> 8;
    let numel = shape.iter().try_fold(1usize, |n, &d| n.checked_mul(d.max(1)));
    if packing != Packing::None && (numel.is_none_or(|n| beyond(&n)) || shape.iter().any(beyond)) {
        return false;
    }
    match (packing, op, shape) {
        (Packing::None, ..) => true,
        (Packing::Panels, Op::MatMul { .. }, &[k, n]) => len == gemm::packed_len(k, n),
        (Packing::Bf16Panels, Op::MatMul { .. }, &[k, n]) => len == gemm::packed_len_bf16(k, n),
        (Packing::Int8, Op::MatMul { .. }, &[k, n]) => {
            k <= gemm::LONGEST_INT8 && len == gemm::packed_len_int8(k, n)
        }
        (Packing::Bf16x3Panels, Op::MatMul { .. }, &[k, n]) => len == gemm::packed_len_bf16x3(k, n),
        (
            Packing::Conv(kind),
            &Op::Conv { stride, padding, dilation, groups, .. },
            &[o, c, height, width],
        ) => {
            let params = ConvParams { stride, padding, dilation, groups };
            let shape = [o, c, height, width];
            ConvKernel::from_number(kind)
                .is_some_and(|k| k.fits(shape, params) && len == k.packed_len(shape))
        }
        _ => false,
    }
}

/// Whether a contraction's result has the shape its operands give.
fn contraction(
    op: &Op<Dim>,
    [x, w, result]: [&View; 3],
    bias: Option<&View>,
    sizes: &[usize],
) -> Result<(), String> {
    let shape = |v: &View| -> Result<Shape, String> {
        let dims = v.shape.iter().map(|d| d.eval(sizes)).collect::<Option<Shape>>();
        dims.ok_or_else(|| "a view has no shape".to_string())
    };
    let op = op.eval(sizes).ok_or("an attribute has no value")?;
    let (x, w, y) = (shape(x)?, shape(w)?, shape(result)?);
    let refs = [&x, &w].map(|s| TypeRef { dtype: DType::F32, shape: s });
    let types = infer(&op, &refs).map_err(|e| e.to_string())?;
    // A product of plain matrices is written as a batch of one.
    let (got, channels) = match op {
        Op::Conv { .. } => (y.as_slice(), y.get(1)),
        _ if x.len() == 2 && y.first() == Some(&1) => (&y[1..], y.last()),
        _ => (y.as_slice(), y.last()),
    };
    if types[0].shape.as_slice() != got {
        return Err(format!("operands {x:?} and {w:?} do not give {got:?}"));
    }
    match bias {
        Some(b) if shape(b)?.iter().product::<usize>() != channels.copied().unwrap_or(0) => {
            Err("the bias does not fit".to_string())
        }
        _ => Ok(()),
    }
}
