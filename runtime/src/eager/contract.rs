//! Matrix products, convolutions and pooling.

use super::layout;
use crate::op::{Act, PoolKind};
use crate::{Array, DType, Op, OpError};
use sinter_kernels::conv::{self, ConvParams};
use sinter_kernels::gemm::{self, Epilogue};
use sinter_kernels::pool::{self, Window};

pub(super) fn exec(op: &Op, inputs: &[&Array], out: &Array) -> Result<(), OpError> {
    // Kernels write densely; a strided output is filled by a copy.
    if !out.is_contiguous() {
        let dense = out.empty_like()?;
        exec(op, inputs, &dense)?;
        layout::copy(&dense, out);
        return Ok(());
    }
    match op {
        Op::MatMul { act } => matmul(op, *act, inputs, out),
        Op::Conv { stride, padding, dilation, groups, act } => {
            let params = ConvParams {
                stride: *stride,
                padding: *padding,
                dilation: *dilation,
                groups: *groups,
            };
            convolution(op, params, *act, inputs, out)
        }
        Op::ConvInputGrad { stride, padding, dilation, groups, .. } => {
            let params = ConvParams {
                stride: *stride,
                padding: *padding,
                dilation: *dilation,
                groups: *groups,
            };
            let (gy, w) = (inputs[0], inputs[1]);
            if out.dtype() == DType::F32 {
                conv::conv2d_input_grad_f32(gy.src(), w.src(), out.dst(), params);
            } else {
                conv::conv2d_input_grad_f64(gy.src(), w.src(), out.dst(), params);
            }
            Ok(())
        }
        Op::ConvWeightGrad { stride, padding, dilation, groups, .. } => {
            let params = ConvParams {
                stride: *stride,
                padding: *padding,
                dilation: *dilation,
                groups: *groups,
            };
            let (x, gy) = (inputs[0], inputs[1]);
            if out.dtype() == DType::F32 {
                conv::conv2d_weight_grad_f32(x.src(), gy.src(), out.dst(), params);
            } else {
                conv::conv2d_weight_grad_f64(x.src(), gy.src(), out.dst(), params);
            }
            Ok(())
        }
        Op::Pool { kind, window, stride, padding, dilation, .. }
        | Op::PoolGrad { kind, window, stride, padding, dilation, .. } => {
            let w =
                Window { size: *window, stride: *stride, padding: *padding, dilation: *dilation };
            let grad = matches!(op, Op::PoolGrad { .. });
            if *kind != PoolKind::Max && *dilation != [1, 1] {
                return Err(OpError::unsupported(op.name(), "a dilated mean"));
            }
            macro_rules! run {
                ($t:ty) => {{
                    let x = inputs[0].src::<$t>();
                    match (kind, grad) {
                        (PoolKind::Max, false) => pool::max_pool2d(x, out.dst(), w),
                        (PoolKind::Max, true) => {
                            pool::max_pool2d_grad(x, inputs[1].src(), out.dst(), w);
                        }
                        (_, false) => {
                            pool::avg_pool2d(x, out.dst(), w, *kind == PoolKind::Avg);
                        }
                        (_, true) => {
                            let whole = *kind == PoolKind::Avg;
                            pool::avg_pool2d_grad(inputs[1].src::<$t>(), out.dst(), w, whole);
                        }
                    }
                }};
            }
            if out.dtype() == DType::F32 {
                run!(f32)
            } else {
                run!(f64)
            }
            Ok(())
        }
        _ => unreachable!("{} contracts nothing", op.name()),
    }
}

/// Whether a product or convolution with these results has a kernel that applies
/// what comes after it, too.
pub(super) fn has_kernel(act: Act, operands: usize, dtype: DType) -> bool {
    match dtype {
        DType::F32 => kernel_act(act).is_some(),
        _ => act == Act::None && operands == 2,
    }
}

fn kernel_act(act: Act) -> Option<gemm::Act> {
    match act {
        Act::None => Some(gemm::Act::None),
        Act::Relu => Some(gemm::Act::Relu),
        _ => None,
    }
}

/// A bias as a slice: dense, one number a channel.
fn bias_values(b: Option<&&Array>) -> Result<Option<Vec<f32>>, OpError> {
    Ok(b.map(|b| b.to_vec::<f32>()))
}

fn matmul(op: &Op, act: Act, inputs: &[&Array], out: &Array) -> Result<(), OpError> {
    let act = kernel_act(act);
    let (a, b) = (inputs[0], inputs[1]);
    let rank = out.rank();
    let (m, n) = (out.shape()[rank - 2], out.shape()[rank - 1]);
    let k = a.shape()[a.rank() - 1];
    let lead: usize = out.shape()[..rank - 2].iter().product();
    // A matrix on the right: all rows of all batches are one product.
    let (a3, b3, c_shape) = if b.rank() == 2 {
        let rows = match a.view(&[1, lead * m, k]) {
            Some(v) => v,
            None => super::dense(a)?.view(&[1, lead * m, k]).ok_or_else(|| stuck(op))?,
        };
        let b = b.view(&[1, k, n]).ok_or_else(|| stuck(op))?;
        (rows, b, [1, lead * m, n])
    } else {
        (batched(op, a, out, lead)?, batched(op, b, out, lead)?, [lead, m, n])
    };
    let c = out.view(&c_shape).ok_or_else(|| stuck(op))?;
    match out.dtype() {
        DType::F32 => {
            let bias = bias_values(inputs.get(2))?;
            let ep = Epilogue {
                bias_col: bias.as_deref(),
                act: act.unwrap_or_default(),
                ..Epilogue::NONE
            };
            gemm::gemm_batch_f32(a3.src(), b3.src(), c.dst(), false, &ep);
        }
        DType::F64 => gemm::gemm_batch_f64(a3.src(), b3.src(), c.dst(), false),
        DType::I64 => gemm::gemm_batch_int::<i64>(a3.src(), b3.src(), c.dst(), false),
        DType::I32 => gemm::gemm_batch_int::<i32>(a3.src(), b3.src(), c.dst(), false),
        DType::U8 => gemm::gemm_batch_int::<u8>(a3.src(), b3.src(), c.dst(), false),
        d => return Err(OpError::unsupported(op.name(), format!("operands of type {d}"))),
    }
    Ok(())
}

fn stuck(op: &Op) -> OpError {
    OpError::shape(op.name(), "operands cannot be arranged as matrices")
}

/// An operand repeated to the result's batch, as [batch, rows, columns].
fn batched(op: &Op, x: &Array, out: &Array, lead: usize) -> Result<Array, OpError> {
    let r = x.rank();
    let tail = [x.shape()[r - 2], x.shape()[r - 1]];
    let mut shape: crate::Shape = out.shape()[..out.rank() - 2].into();
    shape.extend(tail);
    let wide = x.broadcast_to(&shape).ok_or_else(|| stuck(op))?;
    let flat = [lead, tail[0], tail[1]];
    match wide.view(&flat) {
        Some(v) => Ok(v),
        // Batches repeated in a pattern that no single stride describes.
        None => layout::copy_of(&wide)?.view(&flat).ok_or_else(|| stuck(op)),
    }
}

fn convolution(
    op: &Op,
    params: ConvParams,
    act: Act,
    inputs: &[&Array],
    out: &Array,
) -> Result<(), OpError> {
    let (x, w) = (inputs[0], inputs[1]);
    match (out.dtype(), kernel_act(act)) {
        (DType::F32, Some(act)) => {
            let bias = bias_values(inputs.get(2))?;
            let ep = Epilogue { bias_row: bias.as_deref(), act, ..Epilogue::NONE };
            conv::conv2d_f32(x.src(), w.src(), out.dst(), params, &ep);
            Ok(())
        }
        (DType::F64, _) => {
            conv::conv2d_f64(x.src(), w.src(), out.dst(), params);
            Ok(())
        }
        (d, _) => Err(OpError::unsupported(op.name(), format!("operands of type {d}"))),
    }
}
