//! Eager execution: from an op and arrays to kernel calls, on the processor and, by
//! `on_device`, on devices.
//!
//! [`run`] infers the results' types, takes memory from the pool and calls
//! [`run_into`], which writes results into arrays that exist: the way of in-place
//! ops and of compiled programs that call a library kernel.

mod attention;
mod contract;
mod index;
mod layout;
mod linalg;
mod normalize;
#[cfg(feature = "cuda")]
mod on_device;
mod pointwise;
pub(crate) mod recurrent;
mod reduce;
mod source;

use crate::dim::Dims;
use crate::op::{
    BinaryOp, Build, ReduceKind, ScanKind, ScatterKind, TensorType, TypeRef, UnaryOp,
    attention_grad, check_view, complex, decompose, infer, infer_first, view_dtype,
};
use crate::{Array, DType, Device, Extent, Op, OpError};
use smallvec::SmallVec;

pub use attention::axis_order;
pub use recurrent::cell;
pub use reduce::adds_in;

/// The results of an op.
pub type Outputs = SmallVec<[Array; 1]>;

/// Runs an op on arrays.
///
/// # Errors
/// When the operands break the op's rule, an index or value is bad, or memory
/// runs out.
pub fn run(op: &Op, inputs: &[&Array]) -> Result<Outputs, OpError> {
    if op.outputs() == 1 {
        return Ok(smallvec::smallvec![run1(op, inputs)?]);
    }
    let device = device_of(op, inputs)?;
    if device != Device::Cpu {
        return run_on(device, op, inputs);
    }
    let outs = infer(op, &types(inputs))?
        .iter()
        .enumerate()
        .map(|(i, t)| match op {
            Op::AttentionGrad { .. } => attention::result(inputs[i], &t.shape, t.dtype),
            _ => Array::empty(&t.shape, t.dtype),
        })
        .collect::<Result<Outputs, OpError>>()
        .map_err(|e| rename(e, op))?;
    {
        let refs: SmallVec<[&Array; 2]> = outs.iter().collect();
        exec(op, inputs, &refs)?;
    }
    Ok(outs)
}

/// Runs an op with one result.
///
/// # Errors
/// As [`run`].
#[inline]
pub fn run1(op: &Op, inputs: &[&Array]) -> Result<Array, OpError> {
    match pointwise::fast_binary(op, inputs)? {
        Some(out) => Ok(out),
        None => run1_checked(op, inputs),
    }
}

/// Runs an op on a device: one without operands makes its results there.
///
/// # Errors
/// As [`run`], when the device fails, and where it has no code for the op.
pub fn run_on(device: Device, op: &Op, inputs: &[&Array]) -> Result<Outputs, OpError> {
    let found = device_of(op, inputs)?;
    if found != device && !inputs.iter().all(|x| is_number(x)) {
        let op = op.name().to_string();
        return Err(OpError::Device { op, left: found, right: device });
    }
    match device {
        Device::Cpu => run(op, inputs),
        #[cfg(feature = "cuda")]
        Device::Cuda(_) => {
            if let Some(inputs) = on_device::gathered(device, op, inputs)? {
                return run_on(device, op, &inputs.iter().collect::<SmallVec<[&Array; 4]>>());
            }
            if let ([x], true) = (inputs, op.is_view()) {
                return Ok(smallvec::smallvec![view(op, x)?]);
            }
            let make = |t: &TensorType| Array::empty_on(device, &t.shape, t.dtype);
            let results = infer(op, &types(inputs))?;
            let outs = results.iter().map(make).collect::<Result<Outputs, OpError>>();
            let outs = outs.map_err(|e| rename(e, op))?;
            exec(op, inputs, &outs.iter().collect::<SmallVec<[&Array; 2]>>())?;
            Ok(outs)
        }
        #[cfg(not(feature = "cuda"))]
        Device::Cuda(i) => Err(OpError::device(op.name(), crate::DeviceError::NotBuilt(i))),
    }
}

fn view(op: &Op, x: &Array) -> Result<Array, OpError> {
    check_view(op, x.shape())?;
    view_dtype(op, x.dtype())?;
    layout::view(op, x)
}

fn run1_checked(op: &Op, inputs: &[&Array]) -> Result<Array, OpError> {
    let device = device_of(op, inputs)?;
    if device != Device::Cpu {
        return Ok(run_on(device, op, inputs)?.swap_remove(0));
    }
    if let ([x], true) = (inputs, op.is_view()) {
        return view(op, x);
    }
    let result = match inputs {
        [x] => infer_first(op, &[type_of(x)]),
        [x, y] => infer_first(op, &[type_of(x), type_of(y)]),
        _ => infer_first(op, &types(inputs)),
    }?;
    let out = match op {
        Op::Attention { .. } => attention::result(inputs[0], &result.shape, result.dtype),
        _ => Array::empty(&result.shape, result.dtype),
    };
    let out = out.map_err(|e| rename(e, op))?;
    exec(op, inputs, &[&out])?;
    Ok(out)
}

#[inline]
fn type_of(a: &Array) -> TypeRef<'_> {
    TypeRef { dtype: a.dtype(), shape: a.shape() }
}

fn types<'a>(inputs: &[&'a Array]) -> SmallVec<[TypeRef<'a>; 4]> {
    inputs.iter().map(|a| type_of(a)).collect()
}

/// Runs an op, writing its results into `outs`, whose types must be exactly the
/// inferred ones. For element-wise ops an output may be the very view of an
/// operand, for those that change a part of their first operand, of that one; any
/// other overlap is copied out of the way first.
///
/// # Errors
/// As [`run`], and when an output has the wrong type, overlaps itself or is
/// read-only.
pub fn run_into(op: &Op, inputs: &[&Array], outs: &[&Array]) -> Result<(), OpError> {
    write_into(op, inputs, outs, exec)
}

/// [`run_into`] for ops that [`is_library`] admits, and views, which are copied.
///
/// # Errors
/// As [`run_into`], and for any other op.
pub fn run_library(op: &Op, inputs: &[&Array], outs: &[&Array]) -> Result<(), OpError> {
    if !op.is_view() {
        let operands: SmallVec<[DType; 4]> = inputs.iter().map(|a| a.dtype()).collect();
        let admitted = outs.first().is_some_and(|o| is_library(op, &operands, o.dtype()));
        if !admitted {
            return Err(OpError::unsupported(op.name(), "a compiled program generates its code"));
        }
    }
    write_into(op, inputs, outs, library)
}

/// How an op is executed once its types are known to fit.
type Exec = fn(&Op, &[&Array], &[&Array]) -> Result<(), OpError>;

fn write_into(op: &Op, inputs: &[&Array], outs: &[&Array], exec: Exec) -> Result<(), OpError> {
    let device = device_of(op, inputs)?;
    #[cfg(feature = "cuda")]
    if let Some(to) = outs.first().map(|o| o.device()).filter(|d| *d != Device::Cpu)
        && let Some(inputs) = on_device::gathered(to, op, numbers_only(op, device, to, inputs)?)?
    {
        let refs: SmallVec<[&Array; 4]> = inputs.iter().collect();
        return write_into(op, &refs, outs, exec);
    }
    if let Some(o) = outs.iter().find(|o| o.device() != device && !inputs.is_empty()) {
        let op = op.name().to_string();
        return Err(OpError::Device { op, left: device, right: o.device() });
    }
    let results = infer(op, &types(inputs))?;
    let fits = results.len() == outs.len()
        && results
            .iter()
            .zip(outs)
            .all(|(t, o)| t.dtype == o.dtype() && t.shape.as_slice() == o.shape());
    if !fits {
        let have: Vec<String> =
            outs.iter().map(|o| crate::error::describe(o.dtype(), o.shape())).collect();
        let want: Vec<String> =
            results.iter().map(|t| crate::error::describe(t.dtype, &t.shape)).collect();
        return Err(OpError::shape(
            op.name(),
            format!("results are {}, not {}", want.join(", "), have.join(", ")),
        ));
    }
    for o in outs {
        if o.block().is_read_only() {
            return Err(OpError::value(op.name(), "the output's memory is read-only"));
        }
        if o.overlaps_itself() {
            return Err(OpError::value(
                op.name(),
                "several elements of the output share one place in memory (a broadcast view?); copy it first",
            ));
        }
    }
    // An operand that shares memory with an output in any other way than being
    // the same view would be overwritten before it is read.
    let unsafe_overlap = |(i, a): (usize, &&Array)| {
        let stays = op.is_pointwise() || i == 0 && op.changes_first();
        outs.iter().any(|o| o.may_overlap(a) && !(stays && o.is_same_view(a)))
    };
    if inputs.iter().enumerate().any(unsafe_overlap) {
        let safe = inputs
            .iter()
            .enumerate()
            .map(|x| if unsafe_overlap(x) { layout::copy_of(x.1) } else { Ok((*x.1).clone()) })
            .collect::<Result<SmallVec<[Array; 4]>, _>>()?;
        let refs: SmallVec<[&Array; 4]> = safe.iter().collect();
        return exec_or_copy(op, &refs, outs, exec);
    }
    exec_or_copy(op, inputs, outs, exec)
}

fn exec_or_copy(op: &Op, inputs: &[&Array], outs: &[&Array], exec: Exec) -> Result<(), OpError> {
    if op.is_view() {
        let v = layout::view(op, inputs[0])?;
        return layout::put(&v, outs[0]);
    }
    exec(op, inputs, outs)
}

fn rename(e: OpError, op: &Op) -> OpError {
    match e {
        OpError::Memory { source, .. } => OpError::memory(op.name(), source),
        OpError::Shape { reason, .. } => OpError::shape(op.name(), reason),
        OpError::OnDevice { source, .. } => OpError::device(op.name(), source),
        e => e,
    }
}

/// The device that all operands lie on; numbers (without dimensions) of the processor's go
/// with any.
#[inline]
fn device_of(op: &Op, inputs: &[&Array]) -> Result<Device, OpError> {
    match inputs.iter().all(|x| x.device() == Device::Cpu) {
        true => Ok(Device::Cpu),
        false => common_device(op, inputs),
    }
}

#[cold]
fn common_device(op: &Op, inputs: &[&Array]) -> Result<Device, OpError> {
    let others = || inputs.iter().filter(|x| x.device() != Device::Cpu || !is_number(x));
    let first = others().next().map_or(Device::Cpu, |x| x.device());
    match others().find(|x| x.device() != first) {
        Some(x) => {
            Err(OpError::Device { op: op.name().to_string(), left: first, right: x.device() })
        }
        None => Ok(first),
    }
}

fn is_number(x: &Array) -> bool {
    x.rank() == 0
}

/// The operands of an op whose results lie on `to`, where all are there or numbers.
#[cfg(feature = "cuda")]
fn numbers_only<'a, 'b>(
    op: &Op,
    device: Device,
    to: Device,
    inputs: &'a [&'b Array],
) -> Result<&'a [&'b Array], OpError> {
    if device == to || inputs.iter().all(|x| is_number(x)) {
        return Ok(inputs);
    }
    Err(OpError::Device { op: op.name().to_string(), left: device, right: to })
}

/// Dispatches to the kernels. Types and shapes are checked already.
fn exec(op: &Op, inputs: &[&Array], outs: &[&Array]) -> Result<(), OpError> {
    #[cfg(feature = "cuda")]
    if outs[0].device() != Device::Cpu {
        return on_device::exec(op, inputs, outs);
    }
    if op.is_linalg() {
        return linalg::exec(op, inputs, outs);
    }
    let indirect = |a: &&Array| a.dtype().computed_in() != a.dtype() || a.dtype().is_complex();
    if inputs.iter().chain(outs).any(indirect) {
        if complex::concerns(op, inputs.iter().map(|a| a.dtype())) {
            return by_decomposition(op, inputs, outs[0]);
        }
        if !op.moves() && !matches!(op, Op::Cast { .. }) {
            return widened(op, inputs, outs);
        }
    }
    match op {
        Op::Full { .. } | Op::Iota { .. } => source::count(op, outs[0]),
        Op::Sample { .. } => source::sample(op, inputs, outs[0]),
        Op::Unary(_) | Op::Binary(_) | Op::Compare(_) | Op::Select {} | Op::Cast { .. } => {
            pointwise::exec(op, inputs, outs[0])
        }
        Op::Reduce { .. } | Op::Scan { .. } => {
            let dtype = reduce::adds_in(op, inputs[0].dtype(), outs[0].dtype());
            library(op, &[&pointwise::in_type(inputs[0], dtype)?], outs)
        }
        Op::Softmax { .. }
        | Op::SoftmaxGrad { .. }
        | Op::LayerNorm { .. }
        | Op::LayerNormGrad { .. }
            if outs[0].dtype() == DType::F32 =>
        {
            normalize::exec(op, inputs, outs[0])
        }
        Op::Softmax { .. }
        | Op::SoftmaxGrad { .. }
        | Op::LayerNorm { .. }
        | Op::LayerNormGrad { .. } => by_decomposition(op, inputs, outs[0]),
        Op::Attention { .. } if outs[0].dtype() != DType::F32 => {
            by_decomposition(op, inputs, outs[0])
        }
        Op::AttentionGrad { scale, causal } if outs[0].dtype() != DType::F32 => {
            let owned: SmallVec<[Array; 5]> = inputs.iter().map(|a| (*a).clone()).collect();
            let made = attention_grad(&mut Eager(Device::Cpu), scale.get(), *causal, &owned)?;
            made.iter().zip(outs).for_each(|(r, o)| layout::copy(r, o));
            Ok(())
        }
        Op::MatMul { act } | Op::Conv { act, .. }
            if op.is_composite(inputs.len())
                && !contract::has_kernel(*act, inputs.len(), outs[0].dtype()) =>
        {
            by_decomposition(op, inputs, outs[0])
        }
        _ => library(op, inputs, outs),
    }
}

/// Whether a compiled program may leave the op to [`run_library`], for operands and
/// results of these types: ops whose loops are worth a kernel of their own, which
/// generated code calls. Everything else is generated, and not even linked into a
/// program that does nothing but run artifacts.
pub fn is_library<D: Extent>(op: &Op<D>, operands: &[DType], result: DType) -> bool {
    let indirect = |d: &DType| d.computed_in() != *d;
    let indirect = operands.iter().any(indirect) || indirect(&result);
    if let Op::Random { .. } = op {
        return !indirect;
    }
    let Some(&x) = operands.first() else { return false };
    match op {
        Op::Binary(b) if b.eval32().is_some() => x == DType::F32,
        Op::Binary(b) => b.divides_integers() && !x.is_float() && x != DType::Bool,
        Op::Cast { .. } => {
            (x.is_half() && result == DType::F32) || (x == DType::F32 && result.is_half())
        }
        Op::SliceAssign { .. }
        | Op::Pad { .. }
        | Op::Concat { .. }
        | Op::Gather { .. }
        | Op::IndexSelect { .. }
        | Op::Scatter { kind: ScatterKind::Set, .. } => true,
        _ if indirect => op.is_view(),
        Op::Reduce { kind: ReduceKind::Any | ReduceKind::All, .. } => x == DType::Bool,
        Op::Reduce { .. } | Op::Scan { .. } => x == result,
        Op::Softmax { .. } | Op::Attention { .. } | Op::AttentionGrad { .. } => x == DType::F32,
        Op::MatMul { act } | Op::Conv { act, .. } => {
            contract::has_kernel(*act, operands.len(), result)
        }
        Op::Unary(_)
        | Op::Compare(_)
        | Op::Select {}
        | Op::Full { .. }
        | Op::Iota { .. }
        | Op::SoftmaxGrad { .. }
        | Op::LayerNorm { .. }
        | Op::LayerNormGrad { .. } => false,
        _ => op.eager_only().is_none(),
    }
}

/// The kernels of [`is_library`]. Types and shapes are checked already.
fn library(op: &Op, inputs: &[&Array], outs: &[&Array]) -> Result<(), OpError> {
    match op {
        Op::Binary(b) if b.divides_integers() && !outs[0].dtype().is_float() => {
            pointwise::by_integers(*b, inputs[0], inputs[1], outs[0])
        }
        Op::Binary(b) if b.eval32().is_some() && outs[0].dtype() == DType::F32 => {
            pointwise::by_bits(*b, inputs[0], inputs[1], outs[0]);
            Ok(())
        }
        Op::Cast { .. } if pointwise::cast_half(inputs[0], outs[0]) => Ok(()),
        Op::Random { .. } | Op::Dropout { .. } => {
            source::draw(op, inputs, outs[0]);
            Ok(())
        }
        Op::Reduce { .. }
        | Op::ArgReduce { .. }
        | Op::Scan { .. }
        | Op::Sort { .. }
        | Op::SearchSorted { .. }
        | Op::TopK { .. } => reduce::exec(op, inputs, outs),
        Op::Softmax { axis, log } if outs[0].dtype() == DType::F32 => {
            normalize::softmax(*axis, *log, inputs[0], outs[0]);
            Ok(())
        }
        Op::Attention { scale, causal } if outs[0].dtype() == DType::F32 => {
            attention::exec(*scale, *causal, inputs, outs[0])
        }
        Op::AttentionGrad { scale, causal } if outs[0].dtype() == DType::F32 => {
            attention::exec_grad(*scale, *causal, inputs, outs);
            Ok(())
        }
        Op::SliceAssign { .. } | Op::Pad { .. } | Op::Concat { .. } => {
            layout::exec(op, inputs, outs[0])
        }
        Op::Gather { .. } | Op::Scatter { .. } | Op::IndexSelect { .. } | Op::IndexAdd { .. } => {
            index::exec(op, inputs, outs[0])
        }
        Op::MatMul { .. }
        | Op::Conv { .. }
        | Op::ConvInputGrad { .. }
        | Op::ConvWeightGrad { .. }
        | Op::Pool { .. }
        | Op::PoolGrad { .. } => contract::exec(op, inputs, outs[0]),
        Op::Recurrent { .. } | Op::RecurrentGrad { .. } => recurrent::exec(op, inputs, outs),
        _ => Err(OpError::unsupported(op.name(), "a compiled program generates its code")),
    }
}

/// Runs an op in the types that its own are computed in, and converts the results: of
/// half precision they are rounded once, of integers the low bits are kept.
fn widened(op: &Op, inputs: &[&Array], outs: &[&Array]) -> Result<(), OpError> {
    let unsigned = inputs.iter().any(|a| a.dtype() == DType::U64);
    let order = unsigned && orders_u64(op)?;
    let wide = inputs
        .iter()
        .map(|a| {
            let wide = pointwise::in_type(a, a.dtype().computed_in())?;
            if order && a.dtype() == DType::U64 { shifted(&wide) } else { Ok(wide) }
        })
        .collect::<Result<SmallVec<[Array; 4]>, _>>()?;
    let refs: SmallVec<[&Array; 4]> = wide.iter().collect();
    let mut op = op.clone();
    // Ops without an operand to convert.
    if let Op::Random { dtype, .. } | Op::Iota { dtype, .. } = &mut op {
        *dtype = dtype.computed_in();
    }
    for (r, o) in run(&op, &refs)?.iter().zip(outs) {
        let r = if order && o.dtype() == DType::U64 { &shifted(r)? } else { r };
        pointwise::exec(&Op::Cast { dtype: o.dtype() }, &[r], o)?;
    }
    Ok(())
}

/// Of an op on u64, which is computed in i64: whether its result depends on the order
/// of the numbers. Sums and products have the same bits either way.
///
/// # Errors
/// Where the bits depend on the sign otherwise.
pub fn orders_u64<D>(op: &Op<D>) -> Result<bool, OpError> {
    use BinaryOp::{FloorDiv, Gate, Max, Min, Pow, Rem, Shr};
    use UnaryOp::{Abs, Relu, Sign};
    match op {
        Op::Binary(FloorDiv | Rem | Shr | Pow | Gate) | Op::Unary(Abs | Sign | Relu) => {
            Err(OpError::unsupported(op.name(), "no kernel for u64; convert it with `to_dtype`"))
        }
        Op::Binary(Max | Min)
        | Op::Compare(_)
        | Op::Reduce { kind: ReduceKind::Max | ReduceKind::Min, .. }
        | Op::Scan { kind: ScanKind::Max | ScanKind::Min, .. }
        | Op::Scatter { kind: ScatterKind::Max | ScatterKind::Min, .. }
        | Op::SearchSorted { .. }
        | Op::ArgReduce { .. }
        | Op::Sort { .. }
        | Op::TopK { .. } => Ok(true),
        _ => Ok(false),
    }
}

/// The order of u64 as that of i64, and back: with the highest bit inverted.
fn shifted(x: &Array) -> Result<Array, OpError> {
    let high = Array::scalar(crate::Scalar::Int(i64::MIN), DType::I64)?;
    run1(&Op::Binary(BinaryOp::Xor), &[x, &high])
}

/// A dense copy of a view; the array itself where it is dense.
///
/// # Errors
/// When memory runs out.
pub fn dense(x: &Array) -> Result<Array, OpError> {
    if x.is_contiguous() { Ok(x.clone()) } else { layout::copy_of(x) }
}

/// Copies elements between arrays of one type and shape on one device.
///
/// # Panics
/// If types, shapes or devices differ, or the device fails.
pub fn copy_into(x: &Array, out: &Array) {
    assert!(x.dtype() == out.dtype() && x.shape() == out.shape() && x.device() == out.device());
    layout::put(x, out).unwrap_or_else(|e| panic!("{e}"));
}

/// Executes a composite's decomposition on a device.
struct Eager(Device);

impl Build for Eager {
    type Dim = usize;
    type Value = Array;

    fn op(&mut self, op: Op, inputs: &[Array]) -> Result<Array, OpError> {
        let refs: SmallVec<[&Array; 4]> = inputs.iter().collect();
        match (self.0, inputs) {
            (Device::Cuda(_), []) => Ok(run_on(self.0, &op, &refs)?.swap_remove(0)),
            _ => run1(&op, &refs),
        }
    }
    fn type_of(&self, v: &Array) -> TensorType {
        TensorType { dtype: v.dtype(), shape: v.shape().into() }
    }
}

fn by_decomposition(op: &Op, inputs: &[&Array], out: &Array) -> Result<(), OpError> {
    let owned: SmallVec<[Array; 4]> = inputs.iter().map(|a| (*a).clone()).collect();
    let r = decompose(&mut Eager(out.device()), op, &owned).unwrap_or_else(|| {
        Err(OpError::unsupported(op.name(), "no kernel and no decomposition"))
    })?;
    layout::put(&r, out)
}

/// Runs a composite through its decomposition, whatever kernels it has: the
/// reference its kernels are tested against. `None` for a primitive.
pub fn run_decomposed(op: &Op, inputs: &[&Array]) -> Option<Result<Array, OpError>> {
    let owned: Dims<Array> = inputs.iter().map(|a| (*a).clone()).collect();
    let on = inputs.first().map_or(Device::Cpu, |x| x.device());
    decompose(&mut Eager(on), op, &owned)
}

#[cfg(test)]
mod tests;
