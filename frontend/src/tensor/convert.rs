//! Where and how a tensor is kept: type, device, order in memory.

use super::{Tensor, default_dtype, set_default_dtype};
use crate::device::moved;
use sinter_runtime::{DType, Device};

/// What [`to`](Tensor::to) takes a tensor to: an element type, a device, both, or those
/// of another tensor.
pub trait Destination {
    #[doc(hidden)]
    fn place(self) -> (Option<DType>, Option<Device>);
}

impl Destination for DType {
    fn place(self) -> (Option<DType>, Option<Device>) {
        (Some(self), None)
    }
}
impl Destination for Device {
    fn place(self) -> (Option<DType>, Option<Device>) {
        (None, Some(self))
    }
}
impl Destination for (Device, DType) {
    fn place(self) -> (Option<DType>, Option<Device>) {
        (Some(self.1), Some(self.0))
    }
}
impl Destination for &Tensor {
    fn place(self) -> (Option<DType>, Option<Device>) {
        (Some(self.dtype()), Some(self.device()))
    }
}

/// In which order the elements of images lie in memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum MemoryFormat {
    /// In row-major order of the dimensions.
    #[default]
    Contiguous,
    /// [N, C, H, W] with the channels innermost.
    ChannelsLast,
    /// [N, C, D, H, W] with the channels innermost.
    ChannelsLast3d,
}

impl MemoryFormat {
    /// The dimensions from the outermost to the innermost in memory, for that rank.
    #[track_caller]
    fn order(self, op: &str, rank: usize) -> Vec<i64> {
        let needed = match self {
            MemoryFormat::Contiguous => return (0..rank as i64).collect(),
            MemoryFormat::ChannelsLast => 4,
            MemoryFormat::ChannelsLast3d => 5,
        };
        if rank != needed {
            panic!("{op}: {self:?} is an order of {needed} dimensions, the tensor has {rank}");
        }
        [0].into_iter().chain(2..rank as i64).chain([1]).collect()
    }
}

impl Tensor {
    /// The tensor in another element type or on another device; itself, memory and all,
    /// where it is there already.
    ///
    /// ```
    /// use sinter::{DType, Device, ones};
    /// let x = ones([2]);
    /// assert_eq!(x.to(DType::F64).dtype(), DType::F64);
    /// assert!(x.to(Device::Cpu).is_same(&x));
    /// ```
    ///
    /// Gradients go the way back.
    ///
    /// # Panics
    /// If the device is not there or its memory runs out, or for another device, the tensor
    /// is traced or stands for the elements of a batch.
    #[track_caller]
    pub fn to(&self, destination: impl Destination) -> Tensor {
        let (dtype, device) = destination.place();
        let converted = |x: &Tensor| dtype.map_or_else(|| x.clone(), |d| x.to_dtype(d));
        match device {
            // The processor converts.
            Some(Device::Cpu) if self.device() != Device::Cpu => {
                converted(&moved(self, Device::Cpu))
            }
            Some(device) if device != self.device() => moved(&converted(self), device),
            _ => converted(self),
        }
    }

    /// The tensor with its elements in that order in memory: itself where they are.
    ///
    /// ```
    /// use sinter::{MemoryFormat, zeros};
    /// let x = zeros([2, 3, 4, 5]).contiguous_in(MemoryFormat::ChannelsLast);
    /// assert_eq!((x.shape(), x.strides()), (&[2, 3, 4, 5][..], &[60, 1, 15, 3][..]));
    /// ```
    ///
    /// # Panics
    /// If the format is one of another number of dimensions.
    #[track_caller]
    pub fn contiguous_in(&self, format: MemoryFormat) -> Tensor {
        let order = format.order("contiguous", self.rank());
        let mut back = vec![0i64; order.len()];
        for (place, &d) in order.iter().enumerate() {
            back[d as usize] = place as i64;
        }
        self.permute(order).contiguous().permute(back)
    }

    /// Whether the elements lie densely in that order in memory.
    ///
    /// # Panics
    /// If the format is one of another number of dimensions.
    #[track_caller]
    pub fn is_contiguous_in(&self, format: MemoryFormat) -> bool {
        let order = format.order("is_contiguous", self.rank());
        crate::no_grad(|| self.detach().permute(order)).is_contiguous()
    }

    /// The address of the first element, on a device where the tensor lies on one.
    ///
    /// # Panics
    /// While tracing, when the tensor is a traced value.
    #[track_caller]
    pub fn data_ptr(&self) -> *const u8 {
        let a = self.array();
        #[cfg(feature = "cuda")]
        if let Some(address) = a.device_address() {
            return std::ptr::without_provenance(address as usize);
        }
        a.block().as_ptr().wrapping_add(a.offset() * a.dtype().size()).cast_const()
    }

    /// Where the first element lies in the storage, in elements.
    ///
    /// # Panics
    /// While tracing, when the tensor is a traced value.
    #[track_caller]
    pub fn storage_offset(&self) -> usize {
        self.array().offset()
    }

    /// Bytes of an element.
    pub fn element_size(&self) -> usize {
        self.dtype().size()
    }

    /// Bytes of all elements.
    pub fn nbytes(&self) -> usize {
        self.numel() * self.element_size()
    }

    /// Whether both share memory: one is a view of the other, or both are of a third.
    ///
    /// # Panics
    /// While tracing, when one is a traced value.
    #[track_caller]
    pub fn shares_storage(&self, other: &Tensor) -> bool {
        self.array().block().same(other.array().block())
    }
}

/// Runs `f` with another floating-point type for tensors whose type is not said, on all
/// threads.
///
/// ```
/// use sinter::{DType, with_default_dtype, zeros};
/// assert_eq!(with_default_dtype(DType::F64, || zeros([1]).dtype()), DType::F64);
/// ```
///
/// # Panics
/// If it is not a floating-point type.
#[track_caller]
pub fn with_default_dtype<R>(dtype: DType, f: impl FnOnce() -> R) -> R {
    /// Sets the type of before, also when `f` panics.
    struct Before(DType);
    impl Drop for Before {
        fn drop(&mut self) {
            set_default_dtype(self.0);
        }
    }
    let _before = Before(default_dtype());
    set_default_dtype(dtype);
    f()
}
