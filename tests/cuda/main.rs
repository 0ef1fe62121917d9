//! Tensors on CUDA devices, through the public interface. The device is simulated: its
//! kernels, as they are generated for real ones, run on the machine of `tests/ptx`.

mod gradients;
mod memory;
mod ops;
mod tensors;
mod training;

use sinter::{DType, Device, Tensor};
use sinter_compiler::device::Generator;
use sinter_ptx::SimulatedDevice;
use sinter_runtime::cuda;
use std::sync::{Arc, OnceLock};

/// Bytes of the simulated devices.
const MEMORY: usize = 64 << 20;

/// `cuda:0`, where every array is an allocation of its own, so that the machine sees each
/// access beyond its end.
fn device() -> Device {
    static DEVICE: OnceLock<Device> = OnceLock::new();
    *DEVICE.get_or_init(|| {
        sources();
        cuda::simulate(0, Arc::new(SimulatedDevice::new(MEMORY))).expect("it is simulated");
        cuda::set_caching(0, false).expect("it is there");
        Device::cuda(0).expect("it is there")
    })
}

/// Code is generated anew, and not kept.
fn sources() {
    static ONCE: OnceLock<()> = OnceLock::new();
    ONCE.get_or_init(|| cuda::set_kernel_source(Generator::new(None)));
}

/// What went wrong on the device, in words; panics are not shown.
fn caught<T>(f: impl FnOnce() -> T) -> Result<T, String> {
    std::panic::catch_unwind(std::panic::AssertUnwindSafe(f)).map_err(|e| {
        let text = e.downcast_ref::<String>().cloned();
        text.or_else(|| e.downcast_ref::<&str>().map(|s| s.to_string())).unwrap_or_default()
    })
}

/// Numbers of any type, with some that functions treat specially.
fn sample(shape: &[usize], dtype: DType, seed: usize) -> Tensor {
    let n: usize = shape.iter().product();
    let one = |i: usize| {
        let k = (i * 37 + seed * 11 + 5) % 101;
        match dtype {
            DType::Bool => f64::from(u8::from(k.is_multiple_of(3))),
            d if d.is_float() && k == 17 => f64::NAN,
            d if d.is_float() && k == 23 => f64::INFINITY,
            d if d.is_float() => (k as f64 - 50.0) / 16.0,
            DType::U8 => k as f64,
            _ => k as f64 - 50.0,
        }
    };
    let values: Vec<f64> = (0..n).map(one).collect();
    sinter::from_slice(&values, shape).to_dtype(dtype)
}

/// Finite numbers.
fn finite(shape: &[usize], seed: usize) -> Tensor {
    let n: usize = shape.iter().product();
    let one = |i: usize| ((i * 37 + seed * 11 + 5) % 101) as f32 / 33.0 - 1.5;
    sinter::from_slice(&(0..n).map(one).collect::<Vec<f32>>(), shape)
}

/// Whether both have the same type, shape and elements: bit for bit, or floats within a
/// tolerance relative to the largest.
fn same(got: &Tensor, want: &Tensor, tolerance: f64) -> Result<(), String> {
    if got.dtype() != want.dtype() || got.shape() != want.shape() {
        let ty = |t: &Tensor| format!("{} {:?}", t.dtype(), t.shape());
        return Err(format!("{} instead of {}", ty(got), ty(want)));
    }
    if got.array().to_bytes() == want.array().to_bytes() {
        return Ok(());
    }
    if got.dtype().is_complex() {
        return same(&got.view_as_real(), &want.view_as_real(), tolerance);
    }
    let (a, b): (Vec<f64>, Vec<f64>) = (got.to_vec(), want.to_vec());
    let scale = b.iter().filter(|v| v.is_finite()).fold(1.0, |m: f64, v| m.max(v.abs()));
    let close =
        |x: f64, y: f64| x == y || x.is_nan() && y.is_nan() || (x - y).abs() <= tolerance * scale;
    match a.iter().zip(&b).position(|(&x, &y)| !close(x, y)) {
        Some(i) => Err(format!("element {i} is {} instead of {}", a[i], b[i])),
        None => Ok(()),
    }
}
