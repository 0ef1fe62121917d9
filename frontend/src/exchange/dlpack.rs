//! DLPack, the common description of a tensor in memory
//! (<https://dmlc.github.io/dlpack/latest/>).

use super::ExchangeError;
use crate::tensor::Tensor;
use dlpark::ffi::{DLDataType, DLDevice, DLDeviceType};
use dlpark::metadata::Dynamic;
use dlpark::{DlpackFlags, Managed, ManagedTensorBase, legacy, versioned};
use sinter_kernels::mem::Block;
use sinter_runtime::{Array, DType, Device};

/// Each element type and its description.
const TYPES: &[(DType, DLDataType)] = &[
    (DType::F32, DLDataType::F32),
    (DType::F64, DLDataType::F64),
    (DType::F16, DLDataType::F16),
    (DType::BF16, DLDataType::BF16),
    (DType::I64, DLDataType::I64),
    (DType::I32, DLDataType::I32),
    (DType::U8, DLDataType::U8),
    (DType::Bool, DLDataType::BOOL),
];

fn malformed(e: impl std::fmt::Display) -> ExchangeError {
    ExchangeError::Malformed(e.to_string())
}

/// The tensor for another library, sharing its memory. The result owns a part in the
/// memory; `into_raw` gives the pointer that travels.
///
/// ```
/// use sinter::{exchange, tensor};
/// let x = tensor([[1.0f32, 2.0], [3.0, 4.0]]);
/// let sent = exchange::to_dlpack(&x.t())?;
/// // SAFETY: it was made here, of a tensor that nobody else writes to.
/// let y = unsafe { exchange::from_dlpack(sent) }?;
/// assert_eq!(y.to_vec::<f32>(), [1.0, 3.0, 2.0, 4.0]);
/// # Ok::<(), exchange::ExchangeError>(())
/// ```
///
/// # Errors
/// If the tensor requires a gradient, has no data, does not lie on the processor, or its
/// element type has no counterpart.
pub fn to_dlpack(x: &Tensor) -> Result<versioned::Dlpack, ExchangeError> {
    export(x, |i, read_only| {
        if read_only {
            i.set_flags(DlpackFlags::READ_ONLY).map_err(malformed)?;
        }
        Ok(())
    })
}

/// [`to_dlpack`] in the form of before version 1.0, which cannot say that memory must not
/// be written.
///
/// # Errors
/// As [`to_dlpack`], and if the memory must not be written.
pub fn to_dlpack_legacy(x: &Tensor) -> Result<legacy::Dlpack, ExchangeError> {
    export(x, |_, read_only| match read_only {
        true => Err(malformed("the memory must not be written, which only version 1 can say")),
        false => Ok(()),
    })
}

type Initialized<M> = dlpark::allocation::dynamic::Initialized<M>;

fn export<M: ManagedTensorBase>(
    x: &Tensor,
    flag: impl FnOnce(&mut Initialized<M>, bool) -> Result<(), ExchangeError>,
) -> Result<Managed<M>, ExchangeError> {
    if x.is_traced() {
        return Err(ExchangeError::Traced);
    }
    if x.requires_grad() {
        return Err(ExchangeError::RequiresGrad);
    }
    let a = x.array().clone();
    if a.device() != Device::Cpu {
        return Err(ExchangeError::NotCpu(a.device()));
    }
    let dtype = TYPES.iter().find(|t| t.0 == a.dtype());
    let dtype = dtype.ok_or(ExchangeError::NoCounterpart(a.dtype()))?.1;
    let strides: Vec<i64> = a.strides().iter().map(|&s| s as i64).collect();
    let read_only = a.block().is_read_only();
    // An empty tensor's elements lie nowhere.
    let data = match a.numel() {
        0 => std::ptr::null_mut(),
        _ => a.block().as_ptr().wrapping_add(a.offset() * a.dtype().size()),
    };
    let prepared = Dynamic::new(a.shape(), strides).prepare_as::<M>().map_err(malformed)?;
    let mut initialized = prepared.initialize(Box::new(a));
    initialized.set_data(data.cast()).set_dtype(dtype).set_device(DLDevice::CPU);
    flag(&mut initialized, read_only)?;
    // SAFETY: the array that is the context keeps the memory, and its shape and strides
    // were checked against that memory when it was made.
    Ok(unsafe { initialized.finish() })
}

/// Memory that a description lends.
struct Lent<M: ManagedTensorBase> {
    first: *mut u8,
    len: usize,
    /// Gives it back when dropped.
    _managed: Managed<M>,
}

// SAFETY: plain bytes, and a managed tensor may be released by any thread.
unsafe impl<M: ManagedTensorBase> Send for Lent<M> {}
// SAFETY: as above.
unsafe impl<M: ManagedTensorBase> Sync for Lent<M> {}

impl<M: ManagedTensorBase> AsRef<[u8]> for Lent<M> {
    fn as_ref(&self) -> &[u8] {
        // SAFETY: whoever called `from_dlpack` vouched for the memory described.
        unsafe { std::slice::from_raw_parts(self.first, self.len) }
    }
}
impl<M: ManagedTensorBase> AsMut<[u8]> for Lent<M> {
    fn as_mut(&mut self) -> &mut [u8] {
        // SAFETY: as above.
        unsafe { std::slice::from_raw_parts_mut(self.first, self.len) }
    }
}

/// A tensor over the memory of another library's, which is released when no tensor needs
/// it any more.
///
/// # Safety
/// The description must be true: the elements that shape and strides reach are there, and
/// they stay until the tensor is released.
///
/// # Errors
/// If the tensor does not lie on the processor, its element type has no counterpart, the
/// memory is not aligned for it, or the description contradicts itself.
pub unsafe fn from_dlpack<M: ManagedTensorBase + 'static>(
    dlpack: Managed<M>,
) -> Result<Tensor, ExchangeError> {
    let t = dlpack.validate().map_err(malformed)?;
    if t.device().device_type != DLDeviceType::CPU {
        let d = t.device();
        return Err(ExchangeError::Device(format!(
            "device {} of type {}",
            d.device_id, d.device_type.0
        )));
    }
    let described = t.dtype();
    let found = TYPES.iter().find(|(_, d)| {
        (d.code, d.bits, d.lanes) == (described.code, described.bits, described.lanes)
    });
    let Some(&(dtype, _)) = found else {
        let DLDataType { code, bits, lanes } = described;
        return Err(ExchangeError::DType { code: code.0, bits, lanes });
    };
    let extent = |&n: &i64| usize::try_from(n).map_err(malformed);
    let shape: Vec<usize> = t.shape().iter().map(extent).collect::<Result<_, _>>()?;
    let strides = t.strides_or_compact().map_err(malformed)?;
    let strides: Vec<isize> = strides.iter().map(|&s| s as isize).collect();
    if shape.contains(&0) {
        return Ok(Tensor::from_array(Array::empty(&shape, dtype)?));
    }
    // The lowest and the highest element that are reached, from the first.
    let (mut low, mut high) = (0isize, 0isize);
    for (&n, &s) in shape.iter().zip(&strides) {
        let reach = isize::try_from(n - 1).ok().and_then(|n| n.checked_mul(s));
        let ends =
            reach.and_then(|r| Some((low.checked_add(r.min(0))?, high.checked_add(r.max(0))?)));
        (low, high) = ends.ok_or_else(|| malformed("shape and strides exceed memory"))?;
    }
    let size = dtype.size();
    let span = high.checked_sub(low).and_then(|n| n.checked_add(1)?.checked_mul(size as isize));
    let len = span.ok_or_else(|| malformed("shape and strides exceed memory"))? as usize;
    let base = t.data_ptr().cast::<u8>().cast_mut();
    if base.is_null() {
        return Err(malformed("there is no data"));
    }
    let first = base.wrapping_add(t.byte_offset() as usize).wrapping_offset(low * size as isize);
    let writable = !dlpack.flags().contains(DlpackFlags::READ_ONLY);
    let lent = Lent { first, len, _managed: dlpack };
    let block = if writable { Block::from_owner_mut(lent) } else { Block::from_owner(lent) };
    let whole = Array::from_block(block, 0, &[len / size], dtype)?;
    Ok(Tensor::from_array(whole.as_strided(&shape, &strides, low.unsigned_abs())?))
}
