//! The runtime's services for generated code: library steps, threads, scalar
//! functions.

use super::abi::{Frame, HookFn, LoopFn, Table};
use super::bind::RunError;
use super::{Packing, Place, Program, Step, View};
use crate::array::Strides;
use crate::dim::Shape;
use crate::op::{Act, BinaryOp, UnaryOp};
use crate::{Array, DType, Op, OpError, eager};
use sinter_kernels::conv::{self, ConvKernel, ConvParams};
use sinter_kernels::gemm::{self, Epilogue, Tile};
use sinter_kernels::mem::Block;
use sinter_kernels::par;
use sinter_kernels::recurrent::Weight;
use sinter_kernels::view::{Dst, Src};
use smallvec::SmallVec;
use std::borrow::Cow;
use std::panic::AssertUnwindSafe;
use std::sync::Mutex;
use std::time::Instant;

/// One run in progress: what [`Frame::context`] points to.
pub(super) struct Run<'a> {
    pub(super) program: &'a Program,
    pub(super) constants: &'a Block,
    pub(super) sizes: &'a [usize],
    pub(super) arena: &'a Block,
    pub(super) offsets: &'a [usize],
    pub(super) inputs: &'a [Cow<'a, Array>],
    pub(super) outputs: &'a [&'a Array],
    pub(super) error: Mutex<Option<RunError>>,
    /// When each step was done, where somebody asked.
    pub(super) done: Mutex<Vec<Instant>>,
}

pub(super) static TABLE: Table = Table { parallel, call, unary, binary, binary_int, done };

/// A frame that several threads read.
#[derive(Clone, Copy)]
struct Shared(*const Frame);
// SAFETY: threads only read the frame; what it points to outlives the call.
#[allow(unsafe_code)]
unsafe impl Send for Shared {}
// SAFETY: as above.
#[allow(unsafe_code)]
unsafe impl Sync for Shared {}

impl Shared {
    fn get(self) -> *const Frame {
        self.0
    }
}

#[allow(unsafe_code)]
unsafe extern "C" fn parallel(frame: *const Frame, f: LoopFn, n: u64, grain: u64) {
    let frame = Shared(frame);
    par::for_range(n as usize, grain as usize, |r| {
        // SAFETY: generated code calls this with its own frame and a loop of its
        // own, whose iterations are independent.
        unsafe { f(frame.get(), r.start as u64, r.end as u64) }
    });
}

#[allow(unsafe_code)]
unsafe extern "C" fn call(frame: *const Frame, step: u64, hook: Option<HookFn>) -> i32 {
    // SAFETY: `Model` made the frame; its context is the run in progress.
    let run = unsafe { &*(*frame).context.cast::<Run<'_>>() };
    let step = step as usize;
    // Nothing may unwind into generated code.
    let done = std::panic::catch_unwind(AssertUnwindSafe(|| run.step(step, frame, hook)));
    let error = match done {
        Ok(Ok(())) => return 0,
        Ok(Err(source)) => RunError::Step { step, source },
        Err(payload) => {
            let message = payload
                .downcast_ref::<String>()
                .cloned()
                .or_else(|| payload.downcast_ref::<&str>().map(|s| (*s).to_string()))
                .unwrap_or_default();
            RunError::Panic { step, message }
        }
    };
    *run.error.lock().unwrap_or_else(|e| e.into_inner()) = Some(error);
    1
}

#[allow(unsafe_code)]
unsafe extern "C" fn unary(op: u64, x: f64) -> f64 {
    UnaryOp::ALL.get(op as usize).map_or(f64::NAN, |o| o.eval64(x))
}

#[allow(unsafe_code)]
unsafe extern "C" fn binary(op: u64, a: f64, b: f64) -> f64 {
    BinaryOp::ALL.get(op as usize).map_or(f64::NAN, |o| o.eval64(a, b))
}

#[allow(unsafe_code)]
unsafe extern "C" fn binary_int(op: u64, a: i64, b: i64) -> i64 {
    BinaryOp::ALL.get(op as usize).map_or(0, |o| o.eval_int(a, b))
}

#[allow(unsafe_code)]
unsafe extern "C" fn done(frame: *const Frame) {
    // SAFETY: as in `call`.
    let run = unsafe { &*(*frame).context.cast::<Run<'_>>() };
    run.done.lock().unwrap_or_else(|e| e.into_inner()).push(Instant::now());
}

/// A view with the sizes of this run.
struct Resolved<'a> {
    block: &'a Block,
    dtype: DType,
    offset: usize,
    shape: Shape,
    strides: Strides,
}

impl Resolved<'_> {
    fn array(&self) -> Result<Array, OpError> {
        let whole = Array::from_block(
            self.block.clone(),
            0,
            &[self.block.len() / self.dtype.size()],
            self.dtype,
        )?;
        whole.as_strided(&self.shape, &self.strides, self.offset)
    }
    fn src(&self) -> Src<'_, f32> {
        self.block.src(self.offset, &self.shape, &self.strides)
    }
    fn dst(&self) -> Dst<'_, f32> {
        self.block.dst(self.offset, &self.shape, &self.strides)
    }
}

fn bad_view() -> OpError {
    OpError::shape("program", "a view leaves its buffer for these sizes")
}

impl<'a> Run<'a> {
    fn resolve(&self, v: &View) -> Result<Resolved<'a>, OpError> {
        let buffer = &self.program.buffers[v.buffer as usize];
        let size = buffer.dtype.size();
        let (block, base): (&Block, usize) = match buffer.place {
            Place::Input(k) => {
                let a = &self.inputs[k as usize];
                (a.block(), a.offset())
            }
            Place::Output(k) => {
                let a = self.outputs[k as usize];
                (a.block(), a.offset())
            }
            Place::Constant(at) => (self.constants, at as usize / size),
            Place::Temp { .. } => (self.arena, self.offsets[v.buffer as usize] / size),
        };
        let number = |d: &crate::Dim| d.eval_signed(self.sizes).ok_or_else(bad_view);
        let shape = v
            .shape
            .iter()
            .map(|d| d.eval(self.sizes).ok_or_else(bad_view))
            .collect::<Result<Shape, _>>()?;
        // Of an empty view that runs backwards, the first element is before the buffer.
        let offset = match shape.contains(&0) {
            true => 0,
            false => usize::try_from(number(&v.offset)?).map_err(|_| bad_view())?,
        };
        let strides = v
            .strides
            .iter()
            .map(|d| number(d).map(|s| s as isize))
            .collect::<Result<Strides, _>>()?;
        Ok(Resolved { block, dtype: buffer.dtype, offset: base + offset, shape, strides })
    }

    fn step(&self, i: usize, frame: *const Frame, hook: Option<HookFn>) -> Result<(), OpError> {
        let Some(step) = self.program.steps.get(i) else {
            return Err(OpError::shape("program", format!("there is no step {i}")));
        };
        match step {
            Step::Generated { name } => {
                Err(OpError::unsupported(name.as_str(), "a generated step is no library step"))
            }
            Step::Library { op, operands, results } => {
                let op = op.eval(self.sizes).ok_or_else(bad_view)?;
                let args = operands
                    .iter()
                    .map(|v| self.resolve(v)?.array())
                    .collect::<Result<SmallVec<[Array; 4]>, _>>()?;
                let outs = results
                    .iter()
                    .map(|v| self.resolve(v)?.array())
                    .collect::<Result<SmallVec<[Array; 2]>, _>>()?;
                let args: SmallVec<[&Array; 4]> = args.iter().collect();
                let outs: SmallVec<[&Array; 2]> = outs.iter().collect();
                eager::run_library(&op, &args, &outs)
            }
            Step::Sequence { op, packing, operands, results } => {
                let op = op.eval(self.sizes).ok_or_else(bad_view)?;
                let array = |v: &View| self.resolve(v)?.array();
                let gates = array(&operands[0])?;
                let packed = self.packed(&operands[1])?;
                let weight = match packing {
                    Packing::Bf16Panels => Weight::Bf16(packed),
                    _ => Weight::Packed(packed),
                };
                let rest =
                    operands[2..].iter().map(array).collect::<Result<SmallVec<[Array; 2]>, _>>()?;
                let outs =
                    results.iter().map(array).collect::<Result<SmallVec<[Array; 3]>, _>>()?;
                let rest: SmallVec<[&Array; 2]> = rest.iter().collect();
                let outs: SmallVec<[&Array; 3]> = outs.iter().collect();
                eager::recurrent::run_packed(&op, &gates, weight, &rest, &outs)
            }
            Step::Contract { .. } => self.contract(step, frame, hook),
        }
    }

    #[allow(unsafe_code)]
    fn contract(
        &self,
        step: &Step,
        frame: *const Frame,
        hook: Option<HookFn>,
    ) -> Result<(), OpError> {
        let Step::Contract { op, operands, packing, bias, act, most, hook: hooked, cut, result } =
            step
        else {
            unreachable!("called for contractions")
        };
        let x = self.resolve(&operands[0])?;
        let w = self.resolve(&operands[1])?;
        let y = self.resolve(result)?;
        let bias = bias.as_ref().map(|b| self.resolve(b)).transpose()?;
        let bias = match &bias {
            // SAFETY: nothing writes a bias while the step runs.
            Some(b) => Some(unsafe { b.src().as_slice() }.ok_or_else(bad_view)?),
            None => None,
        };
        let shared = Shared(frame);
        let tile = move |t: Tile| {
            if let Some(h) = hook {
                // SAFETY: generated for this step; regions of different calls are
                // disjoint.
                unsafe {
                    h(
                        shared.get(),
                        t.batch as u64,
                        t.row as u64,
                        t.col as u64,
                        t.rows as u64,
                        t.cols as u64,
                    )
                }
            }
        };
        let act = match act {
            Act::None => gemm::Act::None,
            Act::Relu => gemm::Act::Relu,
            a => {
                return Err(OpError::unsupported(op.name(), format!("activation {}", a.name())));
            }
        };
        let hook: Option<&(dyn Fn(Tile) + Sync)> = if *hooked { Some(&tile) } else { None };
        let cut = cut.map_or(gemm::Cut::RULE, gemm::Cut::from);
        match op {
            Op::Conv { stride, padding, dilation, groups, .. } => {
                let params = ConvParams {
                    stride: *stride,
                    padding: *padding,
                    dilation: *dilation,
                    groups: *groups,
                };
                let ep = Epilogue { bias_row: bias, act, most: *most, hook, cut, ..Epilogue::NONE };
                match packing {
                    Packing::Conv(kind) => {
                        let kernel = ConvKernel::from_number(*kind).ok_or_else(|| {
                            OpError::unsupported(op.name(), format!("convolution kernel {kind}"))
                        })?;
                        let packed = self.packed(&operands[1])?;
                        kernel.run_packed(x.src(), packed, &w.shape, y.dst(), params, &ep);
                    }
                    _ => conv::conv2d_f32(x.src(), w.src(), y.dst(), params, &ep),
                }
            }
            _ => {
                let ep = Epilogue { bias_col: bias, act, most: *most, hook, cut, ..Epilogue::NONE };
                if x.shape.len() == 3 {
                    gemm::gemm_batch_f32(x.src(), w.src(), y.dst(), false, &ep);
                    return Ok(());
                }
                // The result is one matrix of a batch of one.
                let c = y.block.dst::<f32>(y.offset, &y.shape[1..], &y.strides[1..]);
                match packing {
                    Packing::Panels => {
                        let packed = self.packed(&operands[1])?;
                        gemm::gemm_packed_f32(x.src(), packed, w.shape[1], c, &ep);
                    }
                    Packing::Bf16Panels => {
                        let packed = self.packed(&operands[1])?;
                        gemm::gemm_packed_bf16(x.src(), packed, w.shape[1], c, &ep);
                    }
                    Packing::Int8 => {
                        let packed = self.packed(&operands[1])?;
                        gemm::gemm_packed_int8(x.src(), packed, w.shape[1], c, &ep);
                    }
                    Packing::Bf16x3Panels => {
                        let packed = self.packed(&operands[1])?;
                        gemm::gemm_packed_bf16x3(x.src(), packed, w.shape[1], c, &ep);
                    }
                    _ => gemm::gemm_f32(x.src(), w.src(), c, false, &ep),
                }
            }
        }
        Ok(())
    }

    /// The whole of a packed weight's buffer.
    #[allow(unsafe_code)]
    fn packed(&self, v: &View) -> Result<&'a [f32], OpError> {
        let b = &self.program.buffers[v.buffer as usize];
        let (Place::Constant(at), Some(n)) = (b.place, b.len.eval(&[])) else {
            return Err(bad_view());
        };
        // SAFETY: constants are never written.
        Ok(unsafe { self.constants.slice(at as usize / 4, n) })
    }
}
