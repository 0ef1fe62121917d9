//! Eager execution on CUDA devices.
//!
//! Views are views, as everywhere. What moves elements is copies, composites are what
//! they are made of, numbers are uploaded once; for everything else a
//! [`KernelSource`](crate::cuda::KernelSource) has code.

use super::{Eager, by_decomposition, layout, run1};
use crate::op::{ReduceKind, attention_grad, complex};
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
        // Kernels know no padding: the image has it.
        Op::Conv { padding, stride, dilation, groups, act } if *padding != [0, 0] => {
            let x = padded(inputs[0], *padding, *padding)?;
            let (stride, dilation, groups, act) = (*stride, *dilation, *groups, *act);
            let op = Op::Conv { stride, padding: [0, 0], dilation, groups, act };
            launch(&op, &[&x, inputs[1]], outs)
        }
        Op::ConvWeightGrad { padding, stride, dilation, groups, kernel } if *padding != [0, 0] => {
            let x = padded(inputs[0], *padding, *padding)?;
            let (stride, dilation, groups, kernel) = (*stride, *dilation, *groups, *kernel);
            let op = Op::ConvWeightGrad { stride, padding: [0, 0], dilation, groups, kernel };
            launch(&op, &[&x, inputs[1]], outs)
        }
        Op::ConvInputGrad { stride, padding, dilation, groups, .. } => {
            input_grad([*stride, *padding, *dilation], *groups, inputs, outs)
        }
        Op::Gather { axis } | Op::IndexSelect { axis } => {
            check_index(op, inputs[1], *axis, inputs[0].shape()[*axis])?;
            launch(op, inputs, outs)
        }
        Op::Scatter { axis, .. } | Op::IndexAdd { axis } => {
            layout::put(inputs[0], outs[0])?;
            let (index, mut values, mut part) = (inputs[1], inputs[2].clone(), outs[0].clone());
            check_index(op, index, *axis, part.shape()[*axis])?;
            if let Op::Scatter { .. } = op {
                for (d, &n) in index.shape().iter().enumerate() {
                    values = values.slice(d, 0, n, 1);
                    if d != *axis {
                        part = part.slice(d, 0, n, 1);
                    }
                }
            }
            match index.numel() {
                0 => Ok(()),
                _ => launch(op, &[&part, index, &values], &[&part]),
            }
        }
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

/// Zeros around the last two dimensions.
fn padded(x: &Array, low: [usize; 2], high: [usize; 2]) -> Result<Array, OpError> {
    let ends = |n: [usize; 2]| [0, 0, n[0], n[1]].into_iter().collect();
    run1(&Op::Pad { low: ends(low), high: ends(high), value: Scalar::Float(0.0) }, &[x])
}

/// The derivative of a convolution by its input is a convolution, too: of the gradient,
/// with zeros between its elements and around it, by the kernel turned round.
fn input_grad(
    [stride, padding, dilation]: [[usize; 2]; 3],
    groups: usize,
    inputs: &[&Array],
    outs: &[&Array],
) -> Result<(), OpError> {
    let (gy, w, out) = (inputs[0], inputs[1], outs[0]);
    let device = out.device();
    let (n, c) = (gy.shape()[0], gy.shape()[1]);
    let mut shape = [n, c, 0, 0];
    let mut first = [0; 2];
    let mut cut = [0; 2];
    for d in 0..2 {
        let reach = dilation[d] * (w.shape()[2 + d] - 1);
        // Where the padding is wider than the kernel reaches, elements fall off.
        (first[d], cut[d]) = (reach.saturating_sub(padding[d]), padding[d].saturating_sub(reach));
        let end = first[d] + gy.shape()[2 + d].saturating_sub(1) * stride[d] + 1;
        shape[2 + d] = (out.shape()[2 + d] + reach + cut[d]).max(end);
    }
    let zeros =
        Op::Full { value: Scalar::Float(0.0), dtype: gy.dtype(), shape: shape.as_slice().into() };
    let spread = super::run_on(device, &zeros, &[])?.swap_remove(0);
    let mut place = spread.clone();
    for d in 0..2 {
        place = place.slice(2 + d, first[d], gy.shape()[2 + d], stride[d]);
    }
    put(gy, &place)?;
    let mut x = spread;
    for d in 0..2 {
        let (reach, n) = (dilation[d] * (w.shape()[2 + d] - 1), out.shape()[2 + d]);
        x = x.slice(2 + d, cut[d], n + reach, 1);
    }
    let (o, c) = (w.shape()[0] / groups, w.shape()[1]);
    let split = [groups, o, c, w.shape()[2], w.shape()[3]];
    let turned = super::dense(w)?.view(&split).expect("a dense array has any shape");
    let turned = super::dense(&turned.permute(&[0, 2, 1, 3, 4]).flip(&[3, 4]))?;
    let turned = turned.view(&[groups * c, o, split[3], split[4]]);
    let turned = turned.expect("a dense array has any shape");
    let act = crate::op::Act::None;
    let op = Op::Conv { stride: [1, 1], padding: [0, 0], dilation, groups, act };
    launch(&op, &[&x, &turned], outs)
}

/// Refuses indices that name nothing. The device is waited for: an error that it would
/// report later could not be told from others.
fn check_index(op: &Op, index: &Array, axis: usize, size: usize) -> Result<(), OpError> {
    if index.numel() == 0 {
        return Ok(());
    }
    let bound = |kind| -> Result<i64, OpError> {
        let axes = (0..index.rank()).collect();
        let least = run1(&Op::Reduce { kind, axes, keep: false }, &[index])?;
        Ok(least.item().as_i64())
    };
    if bound(ReduceKind::Min)? >= 0 && bound(ReduceKind::Max)? < size as i64 {
        return Ok(());
    }
    let all = run1(&Op::Cast { dtype: DType::I64 }, &[&index.to_device(Device::Cpu)?])?;
    let all = all.to_vec::<i64>();
    let outside = |i: &i64| *i < 0 || *i >= size as i64;
    let position = all.iter().position(outside).expect("one of them is outside");
    Err(OpError::Index { op: op.name().to_string(), index: all[position], position, axis, size })
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
