//! Reductions, scans, sorting, softmax and normalisation.

use crate::dim::Shape;
use crate::op::{ArgKind, ReduceKind, ScanKind};
use crate::{Array, DType, Op, OpError};
use sinter_kernels::{norm, reduce as k, scan, softmax, sort};
use smallvec::SmallVec;

pub(super) fn exec(op: &Op, inputs: &[&Array], outs: &[&Array]) -> Result<(), OpError> {
    let (x, out) = (inputs[0], outs[0]);
    match op {
        Op::Reduce { kind, axes, .. } => reduce(*kind, axes, x, out)?,
        Op::ArgReduce { kind, axis, .. } => {
            let flat = without(out, x, &[*axis])?;
            numbers(x.dtype(), |n| {
                macro_rules! run {
                    ($t:ty) => {
                        match kind {
                            ArgKind::Max => k::argmax::<$t>(x.src(), *axis, flat.dst()),
                            ArgKind::Min => k::argmin::<$t>(x.src(), *axis, flat.dst()),
                        }
                    };
                }
                for_number!(n, run)
            });
        }
        Op::Scan { kind, axis, reverse } => {
            let wide = super::pointwise::in_type(x, out.dtype())?;
            let (from, to) = if *reverse {
                (wide.flip(&[*axis]), out.flip(&[*axis]))
            } else {
                (wide, out.clone())
            };
            macro_rules! run {
                ($t:ty) => {
                    match kind {
                        ScanKind::Sum => scan::cumsum::<$t>(from.src(), *axis, to.dst()),
                        ScanKind::Prod => scan::cumprod::<$t>(from.src(), *axis, to.dst()),
                    }
                };
            }
            match out.dtype() {
                DType::F32 => run!(f32),
                DType::F64 => run!(f64),
                _ => run!(i64),
            }
        }
        Op::Sort { axis, descending } => {
            numbers(x.dtype(), |n| {
                macro_rules! run {
                    ($t:ty) => {
                        sort::sort::<$t>(
                            x.src(),
                            *axis,
                            *descending,
                            Some(outs[0].dst()),
                            Some(outs[1].dst()),
                        )
                    };
                }
                for_number!(n, run)
            });
        }
        Op::TopK { axis, largest, .. } => {
            numbers(x.dtype(), |n| {
                macro_rules! run {
                    ($t:ty) => {
                        sort::topk::<$t>(x.src(), *axis, *largest, outs[0].dst(), outs[1].dst())
                    };
                }
                for_number!(n, run)
            });
        }
        Op::Softmax { axis, log } => {
            let f = if *log { softmax::log_softmax } else { softmax::softmax };
            f(x.src(), *axis, out.dst());
        }
        Op::SoftmaxGrad { axis, log } => {
            let f = if *log { softmax::log_softmax_grad } else { softmax::softmax_grad };
            f(x.src(), inputs[1].src(), *axis, out.dst());
        }
        Op::LayerNorm { dims, eps } => layer_norm(*dims, eps.get(), inputs, out)?,
        Op::LayerNormGrad { dims, eps } => layer_norm_grad(*dims, eps.get(), inputs, out)?,
        _ => unreachable!("{} reduces nothing", op.name()),
    }
    Ok(())
}

/// The element types kernels of this family are built for.
#[derive(Clone, Copy)]
enum N {
    F32,
    F64,
    I64,
    I32,
    U8,
}

macro_rules! for_number {
    ($n:expr, $run:ident) => {
        match $n {
            N::F32 => $run!(f32),
            N::F64 => $run!(f64),
            N::I64 => $run!(i64),
            N::I32 => $run!(i32),
            N::U8 => $run!(u8),
        }
    };
}
use for_number;

fn numbers<R>(d: DType, f: impl FnOnce(N) -> R) -> R {
    f(match d {
        DType::F32 => N::F32,
        DType::F64 => N::F64,
        DType::I64 => N::I64,
        DType::I32 => N::I32,
        DType::U8 | DType::Bool => N::U8,
        DType::F16 | DType::BF16 => unreachable!("half precision is widened before"),
    })
}

/// The output without the reduced axes, which it may keep as ones.
fn without(out: &Array, x: &Array, axes: &[usize]) -> Result<Array, OpError> {
    if out.rank() + axes.len() == x.rank() {
        return Ok(out.clone());
    }
    let pick = |i: &usize| !axes.contains(i);
    let shape: Shape = (0..x.rank()).filter(pick).map(|i| out.shape()[i]).collect();
    let strides: SmallVec<[isize; 5]> =
        (0..x.rank()).filter(pick).map(|i| out.strides()[i]).collect();
    out.as_strided(&shape, &strides, out.offset())
}

fn reduce(kind: ReduceKind, axes: &[usize], x: &Array, out: &Array) -> Result<(), OpError> {
    let flat = without(out, x, axes)?;
    let mut marked: SmallVec<[bool; 8]> = SmallVec::from_elem(false, x.rank());
    for &a in axes {
        marked[a] = true;
    }
    if matches!(kind, ReduceKind::Any | ReduceKind::All) {
        let b = super::pointwise::in_type(x, DType::Bool)?;
        match kind {
            ReduceKind::Any => k::any(b.src(), &marked, flat.dst()),
            _ => k::all(b.src(), &marked, flat.dst()),
        }
        return Ok(());
    }
    let x = super::pointwise::in_type(x, out.dtype())?;
    macro_rules! total {
        ($t:ty) => {
            match kind {
                ReduceKind::Sum => k::sum::<$t>(x.src(), &marked, flat.dst()),
                _ => k::prod::<$t>(x.src(), &marked, flat.dst()),
            }
        };
    }
    macro_rules! extreme {
        ($t:ty) => {
            match kind {
                ReduceKind::Max => k::max::<$t>(x.src(), &marked, flat.dst()),
                _ => k::min::<$t>(x.src(), &marked, flat.dst()),
            }
        };
    }
    match (kind, out.dtype()) {
        (ReduceKind::Sum | ReduceKind::Prod, DType::F32) => total!(f32),
        (ReduceKind::Sum | ReduceKind::Prod, DType::F64) => total!(f64),
        // Integers are added up as i64.
        (ReduceKind::Sum | ReduceKind::Prod, _) => total!(i64),
        (_, d) => numbers(d, |n| for_number!(n, extreme)),
    }
    Ok(())
}

/// An array as rows of its last `dims` dimensions: [rows, d].
fn as_rows(x: &Array, dims: usize) -> Result<Array, OpError> {
    let lead = x.rank() - dims;
    let d: usize = x.shape()[lead..].iter().product();
    let rows: usize = x.shape()[..lead].iter().product();
    match x.view(&[rows, d]) {
        Some(v) => Ok(v),
        None => {
            Ok(super::layout::copy_of(x)?.view(&[rows, d]).expect("a dense array has any shape"))
        }
    }
}

fn flat(x: &Array) -> Result<Array, OpError> {
    let n = x.numel();
    match x.view(&[n]) {
        Some(v) => Ok(v),
        None => Ok(super::layout::copy_of(x)?.view(&[n]).expect("a dense array has any shape")),
    }
}

fn layer_norm(dims: usize, eps: f64, inputs: &[&Array], out: &Array) -> Result<(), OpError> {
    let x = as_rows(inputs[0], dims)?;
    let affine: SmallVec<[Array; 2]> =
        inputs[1..].iter().map(|a| flat(a)).collect::<Result<_, _>>()?;
    let mean = Array::empty(&x.shape()[..1], x.dtype())?;
    let rstd = mean.empty_like()?;
    let y = x.empty_like()?;
    // Written densely, and in place where the output is dense.
    let target = if out.is_contiguous() { out.view(x.shape()).unwrap_or(y) } else { y };
    norm::layer_norm(
        x.src(),
        affine.first().map(Array::src),
        affine.get(1).map(Array::src),
        eps,
        target.dst(),
        mean.dst(),
        rstd.dst(),
    );
    finish(&target, out)
}

fn layer_norm_grad(dims: usize, eps: f64, inputs: &[&Array], out: &Array) -> Result<(), OpError> {
    let x = as_rows(inputs[0], dims)?;
    let gy = as_rows(inputs[1], dims)?;
    let weight = inputs.get(2).map(|w| flat(w)).transpose()?;
    let mean = Array::empty(&x.shape()[..1], x.dtype())?;
    let rstd = mean.empty_like()?;
    let gx = x.empty_like()?;
    // The statistics again: cheaper than keeping them for every layer.
    norm::layer_norm(x.src(), None, None, eps, gx.dst(), mean.dst(), rstd.dst());
    norm::layer_norm_grad(
        gy.src(),
        x.src(),
        mean.src(),
        rstd.src(),
        weight.as_ref().map(Array::src),
        Some(gx.dst()),
        None,
        None,
    );
    finish(&gx, out)
}

/// Puts a dense result where it belongs, unless it was computed there.
fn finish(dense: &Array, out: &Array) -> Result<(), OpError> {
    if dense.block().same(out.block()) {
        return Ok(());
    }
    let shaped = dense.view(out.shape()).expect("a dense array has any shape");
    super::layout::copy(&shaped, out);
    Ok(())
}
