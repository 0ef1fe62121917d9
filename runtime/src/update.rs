//! Optimizer steps: a parameter and its state changed in place in one pass.

use crate::{Array, DType, OpError};
use sinter_kernels::optim as k;
pub use sinter_kernels::optim::{Adadelta, Adagrad, Adam, Arith, Formula, RmsProp, Sgd};

/// All arrays have one float type, one shape, and dense memory of their own.
fn check(op: &str, grad: &Array, state: &[&Array]) -> Result<(), OpError> {
    let param = state[0];
    let d = param.dtype();
    if !matches!(d, DType::F32 | DType::F64) {
        return Err(OpError::unsupported(op, format!("parameters of type {d}")));
    }
    for a in state.iter().chain([&grad]) {
        if a.dtype() != d || a.shape() != param.shape() {
            return Err(OpError::shape(
                op,
                format!(
                    "parameter {d} {:?} does not go with {} {:?}",
                    param.shape(),
                    a.dtype(),
                    a.shape()
                ),
            ));
        }
    }
    for a in state {
        if a.overlaps_itself() || a.block().is_read_only() {
            return Err(OpError::value(op, "a parameter or its state cannot be written"));
        }
    }
    Ok(())
}

macro_rules! by_type {
    ($param:expr, $t:ident => $body:expr) => {
        if $param.dtype() == DType::F32 {
            type $t = f32;
            $body
        } else {
            type $t = f64;
            $body
        }
    };
}

/// A step of SGD; `buffer` is the running gradient, needed with momentum, and is
/// overwritten on the `first` step.
///
/// # Errors
/// When arrays do not go together.
pub fn sgd(
    o: &Sgd,
    grad: &Array,
    param: &Array,
    buffer: Option<&Array>,
    first: bool,
) -> Result<(), OpError> {
    match buffer {
        Some(b) => check("sgd", grad, &[param, b])?,
        None => check("sgd", grad, &[param])?,
    }
    by_type!(param, T => k::sgd::<T>(o, grad.src(), param.dst(), buffer.map(Array::dst), first));
    Ok(())
}

/// Step number `step`, from 1, of Adam or AdamW.
///
/// # Errors
/// When arrays do not go together.
pub fn adam(
    o: &Adam,
    step: u64,
    grad: &Array,
    param: &Array,
    mean: &Array,
    square: &Array,
) -> Result<(), OpError> {
    check("adam", grad, &[param, mean, square])?;
    by_type!(param, T => {
        k::adam::<T>(o, step, grad.src(), param.dst(), mean.dst(), square.dst(), None);
    });
    Ok(())
}

/// A step of Adadelta.
///
/// # Errors
/// When arrays do not go together.
pub fn adadelta(
    o: &Adadelta,
    grad: &Array,
    param: &Array,
    square: &Array,
    delta: &Array,
) -> Result<(), OpError> {
    check("adadelta", grad, &[param, square, delta])?;
    by_type!(param, T => k::adadelta::<T>(o, grad.src(), param.dst(), square.dst(), delta.dst()));
    Ok(())
}

/// A step of RMSprop, not centred; `buffer` is needed with momentum.
///
/// # Errors
/// When arrays do not go together.
pub fn rms_prop(
    o: &RmsProp,
    grad: &Array,
    param: &Array,
    square: &Array,
    buffer: Option<&Array>,
) -> Result<(), OpError> {
    match buffer {
        Some(b) => check("rms_prop", grad, &[param, square, b])?,
        None => check("rms_prop", grad, &[param, square])?,
    }
    by_type!(param, T => {
        k::rms_prop::<T>(o, grad.src(), param.dst(), square.dst(), None, buffer.map(Array::dst));
    });
    Ok(())
}

/// Step number `step`, from 1, of Adagrad.
///
/// # Errors
/// When arrays do not go together.
pub fn adagrad(
    o: &Adagrad,
    step: u64,
    grad: &Array,
    param: &Array,
    sum: &Array,
) -> Result<(), OpError> {
    check("adagrad", grad, &[param, sum])?;
    by_type!(param, T => k::adagrad::<T>(o, step, grad.src(), param.dst(), sum.dst()));
    Ok(())
}
