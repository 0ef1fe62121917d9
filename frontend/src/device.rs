//! Tensors on devices.

use crate::autograd::{Function, FunctionCtx, grad_enabled};
use crate::tensor::{Tensor, apply, fail};
use sinter_runtime::{Device, Op, eager};

/// A tensor made by an op without operands, on a device.
#[track_caller]
pub(crate) fn made_on(device: Device, op: Op) -> Tensor {
    if device == Device::Cpu {
        return apply(op, &[]);
    }
    match eager::run_on(device, &op, &[]) {
        Ok(mut outs) => Tensor::from_array(outs.swap_remove(0)),
        Err(e) => fail(&e, &[]),
    }
}

/// The tensor on another device.
#[track_caller]
pub(crate) fn moved(x: &Tensor, to: Device) -> Tensor {
    if !x.has_data() && x.as_deferred().is_none() {
        panic!(
            "to: {x:?} has no data to move to {to}: what is traced or batched stays on {}",
            x.device()
        );
    }
    // Whoever can generate code for it says so.
    #[cfg(feature = "mlir")]
    sinter_compiler::device::register();
    if grad_enabled() && x.requires_grad() {
        return Move { from: x.device(), to }.apply(&[x]).swap_remove(0);
    }
    copied(x, to)
}

#[track_caller]
fn copied(x: &Tensor, to: Device) -> Tensor {
    match x.array().to_device(to) {
        Ok(a) => Tensor::from_array(a),
        Err(e) => fail(&e, &[]),
    }
}

/// A copy on another device; the gradient goes back.
struct Move {
    from: Device,
    to: Device,
}

impl Function for Move {
    fn forward(&self, _: &mut FunctionCtx, x: &[&Tensor]) -> Vec<Tensor> {
        vec![copied(x[0], self.to)]
    }

    fn backward(&self, _: &FunctionCtx, g: &[Option<Tensor>]) -> Vec<Option<Tensor>> {
        vec![g[0].as_ref().map(|g| g.to(self.from))]
    }

    fn name(&self) -> &'static str {
        "to"
    }
}
