//! Eager execution on CUDA devices.
//!
//! Views are views, as everywhere. What moves elements is copies, composites are what
//! they are made of, numbers are uploaded once; for everything else a
//! [`KernelSource`](crate::cuda::KernelSource) has code.

use super::{Eager, by_decomposition, layout, run1};
use crate::op::{attention_grad, complex};
use crate::{Array, DType, Device, DeviceError, Op, OpError, Scalar, cuda};
use smallvec::SmallVec;

/// Runs an op into results that exist, on their device. Types and shapes are checked
/// already, and operands lie there, too.
pub(super) fn exec(op: &Op, inputs: &[&Array], outs: &[&Array]) -> Result<(), OpError> {
    if complex::concerns(op, inputs.iter().map(|a| a.dtype())) {
        return by_decomposition(op, inputs, outs[0]);
    }
    match op {
        Op::Full { value, dtype, .. } => {
            let Device::Cuda(index) = outs[0].device() else { unreachable!("called on devices") };
            fill(index, *value, *dtype, outs[0])
        }
        Op::SliceAssign { .. } | Op::Pad { .. } | Op::Concat { .. } => {
            layout::exec(op, inputs, outs[0])
        }
        Op::Random { .. } | Op::Sample { .. } => drawn(op, inputs, outs[0]),
        // The numbers are the processor's; a mask of ones comes out as what they multiply.
        Op::Dropout { .. } => {
            let ones = run1(&filled(1.0, inputs[0]), &[])?;
            let place = inputs[1..].iter().map(|p| p.to_device(Device::Cpu));
            let place = place.collect::<Result<SmallVec<[Array; 1]>, _>>()?;
            let operands: SmallVec<[&Array; 2]> = std::iter::once(&ones).chain(&place).collect();
            let mask = run1(op, &operands)?.to_device(outs[0].device())?;
            exec(&Op::Binary(crate::op::BinaryOp::Mul), &[inputs[0], &mask], outs)
        }
        Op::AttentionGrad { scale, causal } => {
            let owned: SmallVec<[Array; 5]> = inputs.iter().map(|a| (*a).clone()).collect();
            let mut on = Eager(outs[0].device());
            let made = attention_grad(&mut on, scale.get(), *causal, &owned)?;
            made.iter().zip(outs).try_for_each(|(r, o)| layout::put(r, o))
        }
        _ if op.is_composite(inputs.len()) => by_decomposition(op, inputs, outs[0]),
        _ => launch(op, inputs, outs),
    }
}

/// Ones or zeros, on the processor, of an array's type and shape.
fn filled(value: f64, like: &Array) -> Op {
    let (dtype, shape) = (like.dtype(), like.shape().into());
    Op::Full { value: Scalar::Float(value), dtype, shape }
}

/// Random numbers are drawn on the processor, which makes them the same everywhere.
fn drawn(op: &Op, inputs: &[&Array], out: &Array) -> Result<(), OpError> {
    let here = inputs.iter().map(|x| x.to_device(Device::Cpu));
    let here = here.collect::<Result<SmallVec<[Array; 2]>, _>>()?;
    let refs: SmallVec<[&Array; 2]> = here.iter().collect();
    layout::put(&run1(op, &refs)?.to_device(out.device())?, out)
}

/// Fills an array.
pub(super) fn fill(index: u16, value: Scalar, dtype: DType, out: &Array) -> Result<(), OpError> {
    let one = cuda::number(index, value, dtype)?;
    put(&one.broadcast_to(out.shape()).expect("a number repeats to any shape"), out)
}

/// Copies elements on a device, between arrays of one type and shape.
pub(super) fn put(x: &Array, out: &Array) -> Result<(), OpError> {
    if x.numel() == 0 || x.is_same_view(out) {
        return Ok(());
    }
    if x.is_contiguous() && out.is_contiguous() && !x.block().same(out.block()) {
        let (from, to) = (x.byte_range(), out.byte_range());
        let places = ((x.block(), from.start), (out.block(), to.start));
        return cuda::copy(places.0, places.1, from.len()).map_err(|e| OpError::device("copy", e));
    }
    // Parts of complex numbers are numbers.
    let (a, b);
    let (x, out) = if x.dtype().is_complex() {
        (a, b) = (x.view_as_real(), out.view_as_real());
        (&a, &b)
    } else {
        (x, out)
    };
    launch(&Op::Cast { dtype: x.dtype() }, &[x], &[out])
}

/// Has the op run by code of its own.
fn launch(op: &Op, inputs: &[&Array], outs: &[&Array]) -> Result<(), OpError> {
    let device = outs[0].device();
    let Device::Cuda(index) = device else { unreachable!("called on devices") };
    let failed = |e: DeviceError| OpError::device(op.name(), e);
    let on = cuda::context(index).map_err(failed)?;
    let missing =
        |why: &str| OpError::unsupported(op.name(), format!("no code for {device}: {why}"));
    let source = cuda::kernel_source().ok_or_else(|| {
        missing("this program has no code generator for devices; build with `--features mlir`")
    })?;
    let l = source.launch(on.capability(), op, inputs, outs).map_err(|why| missing(&why))?;
    cuda::launch(&on, &l, inputs, outs).map_err(failed)
}

/// The operands with numbers of the processor's brought to the device; `None` where there
/// are none.
pub(super) fn gathered(
    device: Device,
    op: &Op,
    inputs: &[&Array],
) -> Result<Option<SmallVec<[Array; 4]>>, OpError> {
    let Device::Cuda(index) = device else { return Ok(None) };
    if inputs.iter().all(|x| x.device() == device) {
        return Ok(None);
    }
    let on = cuda::context(index).map_err(|e| OpError::device(op.name(), e))?;
    let bring = |x: &&Array| match x.device() {
        Device::Cpu => on.number(x).map_err(|e| OpError::device(op.name(), e)),
        _ => Ok((*x).clone()),
    };
    inputs.iter().map(bring).collect::<Result<_, _>>().map(Some)
}
