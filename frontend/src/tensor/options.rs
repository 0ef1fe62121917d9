//! Tensors made with type, device and gradient said.

use super::Tensor;
use super::create::{
    IntoTensor, default_dtype, empty, eye, full, powers, randint, random, randperm, spaced,
    stepped, tensor,
};
use super::layout::{IntoDims, sizes};
use sinter_runtime::op::RandomKind;
use sinter_runtime::{DType, Device, Scalar};

/// What a tensor is to be like: its type, its place, and whether gradients are wanted.
/// Tensors are made by it as by the functions of the same names.
///
/// ```
/// use sinter::{DType, TensorOptions};
/// let x = TensorOptions::new().dtype(DType::F64).requires_grad(true).ones([2, 3]);
/// assert!(x.dtype() == DType::F64 && x.requires_grad());
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct TensorOptions {
    dtype: Option<DType>,
    device: Device,
    requires_grad: bool,
}

impl TensorOptions {
    /// The default float type, on the processor, without gradients.
    pub fn new() -> TensorOptions {
        TensorOptions::default()
    }

    /// Of this element type.
    pub fn dtype(mut self, dtype: DType) -> TensorOptions {
        self.dtype = Some(dtype);
        self
    }

    /// On this device.
    pub fn device(mut self, device: Device) -> TensorOptions {
        self.device = device;
        self
    }

    /// With gradients.
    pub fn requires_grad(mut self, on: bool) -> TensorOptions {
        self.requires_grad = on;
        self
    }

    fn element(&self) -> DType {
        self.dtype.unwrap_or_else(default_dtype)
    }

    /// The tensor in the type asked for, on the device, as a leaf.
    #[track_caller]
    fn finish(&self, x: Tensor) -> Tensor {
        let x = match self.dtype {
            Some(dtype) => x.to_dtype(dtype),
            None => x,
        };
        let x = x.to(self.device);
        if self.requires_grad { x.requires_grad_(true) } else { x }
    }

    /// [`zeros`](crate::zeros) of these options.
    #[track_caller]
    pub fn zeros(&self, shape: impl IntoDims) -> Tensor {
        self.finish(full(shape, 0.0, self.element()))
    }

    /// [`ones`](crate::ones) of these options.
    #[track_caller]
    pub fn ones(&self, shape: impl IntoDims) -> Tensor {
        self.finish(full(shape, 1.0, self.element()))
    }

    /// [`full`](crate::full) of these options.
    #[track_caller]
    pub fn full(&self, shape: impl IntoDims, value: impl Into<Scalar>) -> Tensor {
        self.finish(full(shape, value, self.element()))
    }

    /// [`empty`](crate::empty) of these options.
    #[track_caller]
    pub fn empty(&self, shape: impl IntoDims) -> Tensor {
        self.finish(empty(shape, self.element()))
    }

    /// [`eye`](crate::eye) of these options.
    #[track_caller]
    pub fn eye(&self, n: usize) -> Tensor {
        self.finish(eye(n))
    }

    /// [`arange`](crate::arange) of these options.
    #[track_caller]
    pub fn arange<T: Into<Scalar>>(&self, start: T, end: T, step: T) -> Tensor {
        let values = stepped(start.into(), end.into(), step.into());
        let float = values.dtype().is_float();
        self.finish(if float { values.to_dtype(self.element()) } else { values })
    }

    /// [`linspace`](crate::linspace) of these options.
    #[track_caller]
    pub fn linspace(&self, start: f64, end: f64, n: usize) -> Tensor {
        self.finish(spaced(start, end, n).to_dtype(self.element()))
    }

    /// [`logspace`](crate::logspace) of these options.
    #[track_caller]
    pub fn logspace(&self, start: f64, end: f64, n: usize, base: f64) -> Tensor {
        self.finish(powers(start, end, n, base).to_dtype(self.element()))
    }

    /// [`rand`](crate::rand) of these options.
    #[track_caller]
    pub fn rand(&self, shape: impl IntoDims) -> Tensor {
        self.finish(random(RandomKind::Uniform, sizes("rand", shape), self.element()))
    }

    /// [`randn`](crate::randn) of these options.
    #[track_caller]
    pub fn randn(&self, shape: impl IntoDims) -> Tensor {
        self.finish(random(RandomKind::Normal, sizes("randn", shape), self.element()))
    }

    /// [`randint`](crate::randint) of these options.
    #[track_caller]
    pub fn randint(&self, low: i64, high: i64, shape: impl IntoDims) -> Tensor {
        self.finish(randint(low, high, shape))
    }

    /// [`randperm`](crate::randperm) of these options.
    #[track_caller]
    pub fn randperm(&self, n: usize) -> Tensor {
        self.finish(randperm(n))
    }

    /// [`tensor`](crate::tensor) of these options.
    #[track_caller]
    pub fn tensor<T: IntoTensor>(&self, values: T) -> Tensor {
        self.finish(tensor(values))
    }
}
