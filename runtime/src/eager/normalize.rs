//! Softmax and layer norm, whose kernels are for f32 alone.

use crate::{Array, Op, OpError};
use sinter_kernels::{norm, softmax};
use smallvec::SmallVec;

pub(super) fn exec(op: &Op, inputs: &[&Array], out: &Array) -> Result<(), OpError> {
    let x = inputs[0];
    match op {
        Op::Softmax { axis, log } => softmax(*axis, *log, x, out),
        Op::SoftmaxGrad { axis, log } => {
            let f = if *log { softmax::log_softmax_grad } else { softmax::softmax_grad };
            f(x.src(), inputs[1].src(), *axis, out.dst());
        }
        Op::LayerNorm { dims, eps } => layer_norm(*dims, eps.get(), inputs, out)?,
        Op::LayerNormGrad { dims, eps } => layer_norm_grad(*dims, eps.get(), inputs, out)?,
        _ => unreachable!("{} normalises nothing", op.name()),
    }
    Ok(())
}

pub(super) fn softmax(axis: usize, log: bool, x: &Array, out: &Array) {
    let f = if log { softmax::log_softmax } else { softmax::softmax };
    f(x.src(), axis, out.dst());
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
