//! Arrays: typed, strided views of shared memory. What the eager runtime works on.

use crate::dim::Shape;
use crate::dtype::{DType, Number, Scalar};
use crate::layout::Layout;
use crate::{Device, OpError, with_number, with_storage};
use sinter_kernels::mem::Block;
use sinter_kernels::view::{Dst, Element, Src, reach};
use smallvec::SmallVec;

/// Distances between neighbours in each dimension, in elements.
pub type Strides = SmallVec<[isize; 5]>;

/// The most dimensions an array may have (as PyTorch).
pub const MAX_RANK: usize = 64;

/// A typed, strided view of shared memory. Cloning and every view method share
/// the memory.
#[derive(Clone, Debug)]
pub struct Array {
    block: Block,
    layout: Layout,
    offset: usize,
    dtype: DType,
    device: Device,
}

/// Number of elements, or an error when that or the rank is beyond what a
/// machine can address.
fn checked_numel(op: &str, shape: &[usize], size: usize) -> Result<usize, OpError> {
    if shape.len() > MAX_RANK {
        return Err(OpError::shape(
            op,
            format!("{} dimensions; at most {MAX_RANK} are allowed", shape.len()),
        ));
    }
    // Empty tensors, too, must have strides that fit.
    let full = shape.iter().try_fold(size, |n, &d| n.checked_mul(d.max(1)));
    match full {
        Some(n) if n <= isize::MAX as usize => Ok(shape.iter().product()),
        _ => Err(OpError::shape(op, format!("shape {shape:?} has more elements than memory"))),
    }
}

#[cfg(feature = "cuda")]
use crate::cuda::{address as cuda_address, block as device_block};

#[cfg(not(feature = "cuda"))]
fn device_block(index: u16, _: usize) -> Result<Block, crate::DeviceError> {
    Err(crate::DeviceError::NotBuilt(index))
}

impl Array {
    /// An array in fresh memory whose contents are unspecified.
    ///
    /// # Errors
    /// When the shape is too large or memory runs out.
    pub fn empty(shape: &[usize], dtype: DType) -> Result<Array, OpError> {
        let n = checked_numel("empty", shape, dtype.size())?;
        let block = Block::try_new(n * dtype.size()).map_err(|e| OpError::memory("empty", e))?;
        Ok(Array { block, layout: Layout::dense(shape), offset: 0, dtype, device: Device::Cpu })
    }

    /// [`empty`](Array::empty) on a device.
    ///
    /// # Errors
    /// When the shape is too large, memory runs out, or the device is not there.
    pub fn empty_on(device: Device, shape: &[usize], dtype: DType) -> Result<Array, OpError> {
        let Device::Cuda(index) = device else { return Array::empty(shape, dtype) };
        let n = checked_numel("empty", shape, dtype.size())?;
        let block =
            device_block(index, n * dtype.size()).map_err(|e| OpError::device("empty", e))?;
        Ok(Array { block, layout: Layout::dense(shape), offset: 0, dtype, device })
    }

    /// A dense array over a whole block of a device.
    #[cfg(feature = "cuda")]
    pub(crate) fn on_device(block: Block, shape: &[usize], dtype: DType, device: Device) -> Array {
        Array { block, layout: Layout::dense(shape), offset: 0, dtype, device }
    }

    /// A dense array of this one's shape and type in fresh memory whose contents
    /// are unspecified.
    ///
    /// # Errors
    /// When memory runs out.
    #[inline]
    pub fn empty_like(&self) -> Result<Array, OpError> {
        if !self.is_contiguous() || self.device != Device::Cpu {
            return Array::empty_on(self.device, self.shape(), self.dtype);
        }
        let block = Block::try_new(self.numel() * self.dtype.size())
            .map_err(|e| OpError::memory("empty", e))?;
        Ok(Array { block, layout: self.layout.clone(), offset: 0, ..*self })
    }

    /// An array over memory that exists, for example a mapped file. The elements
    /// start `offset_bytes` into the block and lie densely.
    ///
    /// # Errors
    /// When the block is too short or misaligned for them.
    pub fn from_block(
        block: Block,
        offset_bytes: usize,
        shape: &[usize],
        dtype: DType,
    ) -> Result<Array, OpError> {
        if block.is_on_device() {
            let reason = "the block lies on a device";
            return Err(OpError::unsupported("from_block", reason));
        }
        let n = checked_numel("from_block", shape, dtype.size())?;
        let end = (n * dtype.size()).checked_add(offset_bytes);
        let aligned = (block.as_ptr() as usize).is_multiple_of(dtype.size())
            && offset_bytes.is_multiple_of(dtype.size());
        if !aligned || end.is_none_or(|e| e > block.len()) {
            return Err(OpError::shape(
                "from_block",
                format!("{dtype} {shape:?} at byte {offset_bytes} of a block of {}", block.len()),
            ));
        }
        let offset = offset_bytes / dtype.size();
        Ok(Array { block, layout: Layout::dense(shape), offset, dtype, device: Device::Cpu })
    }

    /// An array holding `values` in row-major order.
    ///
    /// # Errors
    /// When their number is not that of the shape, or memory runs out.
    pub fn from_slice<T: Number>(values: &[T], shape: &[usize]) -> Result<Array, OpError> {
        let out = Array::empty(shape, T::DTYPE)?;
        if values.len() != out.numel() {
            return Err(OpError::shape(
                "from_slice",
                format!("{} values do not fill shape {shape:?}", values.len()),
            ));
        }
        out.block.write(values);
        Ok(out)
    }

    /// A 0-d array.
    ///
    /// # Errors
    /// When memory runs out.
    #[inline]
    pub fn scalar(value: Scalar, dtype: DType) -> Result<Array, OpError> {
        let out = Array::empty(&[], dtype)?;
        match dtype {
            DType::Bool => out.block.write(&[u8::from(value.as_bool())]),
            // The low bits are those of every integer type.
            DType::U8 | DType::I8 => out.block.write(&[value.cast(dtype).as_i64() as u8]),
            DType::U16 | DType::I16 => out.block.write(&[value.cast(dtype).as_i64() as u16]),
            DType::U32 | DType::I32 => out.block.write(&[value.cast(dtype).as_i64() as u32]),
            DType::U64 => out.block.write(&[match value {
                Scalar::Float(f) | Scalar::Complex(f, _) => f as u64,
                v => v.as_i64() as u64,
            }]),
            DType::I64 => out.block.write(&[value.as_i64()]),
            DType::F16 => out.block.write(&[half::f16::from_f64(value.as_f64())]),
            DType::BF16 => out.block.write(&[half::bf16::from_f64(value.as_f64())]),
            DType::F32 => out.block.write(&[value.as_f64() as f32]),
            DType::F64 => out.block.write(&[value.as_f64()]),
            DType::C64 => out.block.write(&[value.as_f64() as f32, value.imag() as f32]),
            DType::C128 => out.block.write(&[value.as_f64(), value.imag()]),
        }
        Ok(out)
    }

    /// The element type.
    #[inline]
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// Where the memory lies.
    #[inline]
    pub fn device(&self) -> Device {
        self.device
    }

    /// Extent of each dimension.
    #[inline]
    pub fn shape(&self) -> &[usize] {
        self.layout.shape()
    }

    /// Distance between neighbours in each dimension, in elements.
    #[inline]
    pub fn strides(&self) -> &[isize] {
        self.layout.strides()
    }

    /// Number of dimensions.
    #[inline]
    pub fn rank(&self) -> usize {
        self.layout.rank()
    }

    /// Number of elements.
    #[inline]
    pub fn numel(&self) -> usize {
        self.layout.numel()
    }

    /// Where the first element lies in the block, in elements.
    #[inline]
    pub fn offset(&self) -> usize {
        self.offset
    }

    /// The memory this array is a view of.
    #[inline]
    pub fn block(&self) -> &Block {
        &self.block
    }

    /// Whether elements lie densely in row-major order.
    #[inline]
    pub fn is_contiguous(&self) -> bool {
        self.layout.is_contiguous()
    }

    /// Whether both are the same view of the same memory.
    pub fn is_same_view(&self, o: &Array) -> bool {
        self.block.same(&o.block)
            && self.offset == o.offset
            && self.dtype == o.dtype
            && self.shape() == o.shape()
            && self.strides() == o.strides()
    }

    /// The elements as kernels read them (bool as `u8`), or as the unsigned integers of
    /// their size.
    ///
    /// # Panics
    /// If `T` does not store this element type.
    #[inline]
    pub fn src<T: Element>(&self) -> Src<'_, T> {
        self.check_type::<T>();
        self.block.src(self.offset, self.shape(), self.strides())
    }

    /// The elements as kernels write them (bool as `u8`), or as the unsigned integers of
    /// their size.
    ///
    /// # Panics
    /// If `T` does not store this element type, or the memory is read-only.
    #[inline]
    pub fn dst<T: Element>(&self) -> Dst<'_, T> {
        self.check_type::<T>();
        self.block.dst(self.offset, self.shape(), self.strides())
    }

    #[inline]
    fn check_type<T: Element>(&self) {
        use std::any::TypeId;
        let fits = with_number!(self.dtype, N => TypeId::of::<N>() == TypeId::of::<T>())
            || with_storage!(self.dtype, N => TypeId::of::<N>() == TypeId::of::<T>());
        assert!(
            fits,
            "elements of type {} are not stored as {}",
            self.dtype,
            std::any::type_name::<T>()
        );
    }

    /// The elements in row-major order; of an array on a device, a copy.
    ///
    /// # Panics
    /// If `T` does not store this element type (bool is stored as `u8`), or the device
    /// fails.
    pub fn to_vec<T: Element>(&self) -> Vec<T> {
        self.here().src::<T>().to_vec()
    }

    /// The array itself where the processor can read it, else a copy.
    ///
    /// # Panics
    /// If the device fails.
    #[inline]
    pub fn here(&self) -> std::borrow::Cow<'_, Array> {
        match self.device {
            Device::Cpu => std::borrow::Cow::Borrowed(self),
            _ => std::borrow::Cow::Owned(
                self.to_device(Device::Cpu).unwrap_or_else(|e| panic!("{e}")),
            ),
        }
    }

    /// The bytes of the elements in row-major order, little endian.
    pub fn to_bytes(&self) -> Vec<u8> {
        fn bytes<T: Element, const N: usize>(a: &Array, f: impl Fn(T) -> [u8; N]) -> Vec<u8> {
            a.to_vec::<T>().into_iter().flat_map(f).collect()
        }
        if self.dtype.is_complex() {
            return self.view_as_real().to_bytes();
        }
        match self.dtype.size() {
            1 => self.to_vec::<u8>(),
            2 => bytes(self, u16::to_le_bytes),
            4 => bytes(self, u32::to_le_bytes),
            _ => bytes(self, u64::to_le_bytes),
        }
    }

    /// An array from little-endian bytes in row-major order.
    ///
    /// # Errors
    /// When their number does not fit the shape.
    pub fn from_bytes(bytes: &[u8], shape: &[usize], dtype: DType) -> Result<Array, OpError> {
        fn put<const N: usize, T: Element>(a: &Array, bytes: &[u8], f: impl Fn([u8; N]) -> T) {
            let chunks = bytes.as_chunks::<N>().0;
            a.block.write(&chunks.iter().map(|c| f(*c)).collect::<Vec<T>>());
        }
        // Before memory is taken: the shape may come from a file.
        if bytes.len() != checked_numel("from_bytes", shape, dtype.size())? * dtype.size() {
            return Err(OpError::shape(
                "from_bytes",
                format!("{} bytes do not fill {dtype} {shape:?}", bytes.len()),
            ));
        }
        let out = Array::empty(shape, dtype)?;
        if dtype == DType::Bool {
            out.block.write(&bytes.iter().map(|&b| u8::from(b != 0)).collect::<Vec<_>>());
            return Ok(out);
        }
        match dtype.real().size() {
            1 => out.block.write(bytes),
            2 => put(&out, bytes, u16::from_le_bytes),
            4 => put(&out, bytes, u32::from_le_bytes),
            _ => put(&out, bytes, u64::from_le_bytes),
        }
        Ok(out)
    }

    /// The only element.
    ///
    /// # Panics
    /// If there is not exactly one.
    pub fn item(&self) -> Scalar {
        assert_eq!(self.numel(), 1, "item needs one element, the shape is {:?}", self.shape());
        let zero: Shape = SmallVec::from_elem(0, self.rank());
        let x = self.here();
        match self.dtype {
            DType::Bool => Scalar::Bool(x.src::<u8>().at(&zero) != 0),
            d => with_number!(d, T => x.src::<T>().at(&zero).to_scalar()),
        }
    }

    // ------------------------------------------------------------ devices

    /// The elements on a device: the array itself where it lies there, else a copy.
    ///
    /// # Errors
    /// When the device is not there, fails, or has no memory left.
    pub fn to_device(&self, device: Device) -> Result<Array, OpError> {
        if device == self.device {
            return Ok(self.clone());
        }
        self.copy_to(device)
    }

    #[cfg(not(feature = "cuda"))]
    fn copy_to(&self, device: Device) -> Result<Array, OpError> {
        match device {
            // There are no arrays anywhere else.
            Device::Cpu => Ok(self.clone()),
            Device::Cuda(i) => Err(OpError::device("to", crate::DeviceError::NotBuilt(i))),
        }
    }

    #[cfg(feature = "cuda")]
    fn copy_to(&self, device: Device) -> Result<Array, OpError> {
        use crate::cuda;
        let failed = |e| OpError::device("to", e);
        match (self.device, device) {
            (Device::Cpu, Device::Cuda(i)) => {
                let on = cuda::context(i).map_err(failed)?;
                cuda::upload(&crate::eager::dense(self)?, &on).map_err(failed)
            }
            (_, Device::Cpu) => {
                let size = self.dtype.size();
                let range = self.byte_range();
                // A view that skips most of its memory is gathered first, if there is code.
                if range.len() > 2 * self.numel() * size && cuda::kernel_source().is_some() {
                    return crate::eager::dense(self)?.copy_to(device);
                }
                let out = Array::empty(&[range.len() / size], self.dtype)?;
                out.block.write(&cuda::download(&self.block, range.clone()).map_err(failed)?);
                let offset = self.offset - range.start / size;
                Ok(Array { offset, layout: self.layout.clone(), ..out })
            }
            (_, _) => self.copy_to(Device::Cpu)?.copy_to(device),
        }
    }

    /// The address of the first element on the device, of an array that lies on one.
    #[cfg(feature = "cuda")]
    pub fn device_address(&self) -> Option<u64> {
        Some(cuda_address(&self.block)? + (self.offset * self.dtype.size()) as u64)
    }

    // ------------------------------------------------------------ views

    #[inline]
    fn with_layout(&self, offset: usize, layout: Layout) -> Array {
        Array { block: self.block.clone(), layout, offset, ..*self }
    }

    /// The same elements in another shape, when strides can express it.
    #[inline]
    pub fn view(&self, shape: &[usize]) -> Option<Array> {
        if shape.len() > MAX_RANK {
            return None;
        }
        Some(self.with_layout(self.offset, self.layout.view(shape)?))
    }

    /// Dimensions reordered: dimension `i` of the result is dimension `perm[i]`.
    ///
    /// # Panics
    /// If `perm` is not a permutation of the dimensions.
    pub fn permute(&self, perm: &[usize]) -> Array {
        assert_eq!(perm.len(), self.rank());
        let (shape, strides) = (self.shape(), self.strides());
        let layout = Layout::build(perm.len(), |d| (shape[perm[d]], strides[perm[d]]));
        self.with_layout(self.offset, layout)
    }

    /// Repeated without copying to a larger shape, aligned at the last dimension.
    /// `None` where a dimension is neither equal nor one.
    pub fn broadcast_to(&self, shape: &[usize]) -> Option<Array> {
        let lead = shape.len().checked_sub(self.rank())?;
        let fits = |(&n, &m): (&usize, &usize)| n == m || n == 1;
        if shape.len() > MAX_RANK || !self.shape().iter().zip(&shape[lead..]).all(fits) {
            return None;
        }
        let repeated = |d: usize| d < lead || self.shape()[d - lead] != shape[d];
        let layout = Layout::build(shape.len(), |d| {
            (shape[d], if repeated(d) { 0 } else { self.strides()[d - lead] })
        });
        Some(self.with_layout(self.offset, layout))
    }

    /// The parts of complex numbers along a further last dimension of extent 2.
    ///
    /// # Panics
    /// If the type is not complex.
    pub fn view_as_real(&self) -> Array {
        assert!(self.dtype.is_complex(), "{} has no real and imaginary part", self.dtype);
        let (shape, strides, rank) = (self.shape(), self.strides(), self.rank());
        let layout =
            Layout::build(rank + 1, |d| if d < rank { (shape[d], 2 * strides[d]) } else { (2, 1) });
        Array {
            block: self.block.clone(),
            layout,
            offset: 2 * self.offset,
            dtype: self.dtype.real(),
            device: self.device,
        }
    }

    /// Pairs along a last dimension of extent 2 as complex numbers; `None` where the
    /// parts of a number are not neighbours in memory.
    ///
    /// # Panics
    /// If the type is not f32 or f64.
    pub fn view_as_complex(&self) -> Option<Array> {
        let dtype = self.dtype.complex();
        assert!(dtype.real() == self.dtype, "{} is not a part of a complex number", self.dtype);
        let ([shape @ .., 2], [strides @ .., 1]) = (self.shape(), self.strides()) else {
            return None;
        };
        if !self.offset.is_multiple_of(2) || strides.iter().any(|s| s % 2 != 0) {
            return None;
        }
        let layout = Layout::build(shape.len(), |d| (shape[d], strides[d] / 2));
        let (block, offset) = (self.block.clone(), self.offset / 2);
        Some(Array { block, layout, offset, dtype, device: self.device })
    }

    /// `len` elements of dimension `axis` from `start` on, `step` apart.
    ///
    /// # Panics
    /// If they do not all exist.
    pub fn slice(&self, axis: usize, start: usize, len: usize, step: usize) -> Array {
        let (n, stride) = (self.shape()[axis], self.strides()[axis]);
        let last = (len.max(1) - 1).saturating_mul(step).saturating_add(start);
        assert!(len == 0 || last < n, "slice leaves dimension {axis} of size {n}");
        // Offsets stay inside the block: without elements there is no first one.
        let skip = if len > 0 && self.numel() > 0 { start as isize * stride } else { 0 };
        let layout = self.layout.with_axis(axis, len, stride * step as isize);
        self.with_layout((self.offset as isize + skip) as usize, layout)
    }

    /// Dimensions of `axes` reversed.
    pub fn flip(&self, axes: &[usize]) -> Array {
        let mut out = self.clone();
        for &a in axes {
            let (n, stride) = (out.shape()[a], out.strides()[a]);
            if out.numel() > 0 {
                out.offset = (out.offset as isize + (n - 1) as isize * stride) as usize;
            }
            out.layout = out.layout.with_axis(a, n, -stride);
        }
        out
    }

    /// The `len` elements of two dimensions that begin at `start` and go on by one in
    /// both, as a new last dimension.
    ///
    /// # Panics
    /// If they do not all exist.
    pub fn diagonal(&self, axes: [usize; 2], start: [usize; 2], len: usize) -> Array {
        let [a, b] = axes;
        let corner = self.slice(a, start[0], len, 1).slice(b, start[1], len, 1);
        let (shape, strides) = (corner.shape(), corner.strides());
        let rest: SmallVec<[usize; 5]> = (0..self.rank()).filter(|&d| d != a && d != b).collect();
        let layout = Layout::build(rest.len() + 1, |d| match rest.get(d) {
            Some(&d) => (shape[d], strides[d]),
            None => (len, strides[a] + strides[b]),
        });
        corner.with_layout(corner.offset, layout)
    }

    /// `count` windows of `size` elements of a dimension, `step` apart; the elements of
    /// a window are a new last dimension.
    ///
    /// # Panics
    /// If they do not all exist.
    pub fn unfold(&self, axis: usize, size: usize, step: usize, count: usize) -> Array {
        let (n, stride) = (self.shape()[axis], self.strides()[axis]);
        let last = (count.max(1) - 1).saturating_mul(step).saturating_add(size);
        assert!(count == 0 || last <= n, "windows leave dimension {axis} of size {n}");
        let (shape, strides) = (self.shape(), self.strides());
        let layout = Layout::build(self.rank() + 1, |d| match d {
            d if d == self.rank() => (size, stride),
            d if d == axis => (count, stride * step as isize),
            d => (shape[d], strides[d]),
        });
        self.with_layout(self.offset, layout)
    }

    /// A view with any strides and offset.
    ///
    /// # Errors
    /// When it would leave the memory.
    pub fn as_strided(
        &self,
        shape: &[usize],
        strides: &[isize],
        offset: usize,
    ) -> Result<Array, OpError> {
        let size = self.dtype.size();
        let limit = self.block.len() / size;
        let inside = shape.contains(&0)
            || reach(shape, strides, offset)
                .is_some_and(|(lo, hi)| lo >= 0 && (hi as usize) < limit);
        if shape.len() != strides.len() || !inside {
            return Err(OpError::shape(
                "as_strided",
                format!(
                    "shape {shape:?} with strides {strides:?} at {offset} leaves a storage of {limit} elements"
                ),
            ));
        }
        checked_numel("as_strided", shape, size)?;
        let layout = Layout::build(shape.len(), |d| (shape[d], strides[d]));
        Ok(self.with_layout(offset, layout))
    }

    /// The bytes this view reaches in its block, as a range; empty views reach none.
    pub fn byte_range(&self) -> std::ops::Range<usize> {
        match self.layout.reach(self.offset) {
            Some((lo, hi)) => {
                let size = self.dtype.size();
                lo as usize * size..(hi as usize + 1) * size
            }
            None => 0..0,
        }
    }

    /// Whether the two may share an element. Never misses an overlap; may report
    /// one where interleaved views only share a range.
    pub fn may_overlap(&self, o: &Array) -> bool {
        let (a, b) = (self.byte_range(), o.byte_range());
        self.block.same(&o.block) && a.start < b.end && b.start < a.end
    }

    /// Whether two indices of this view may reach one element.
    pub fn overlaps_itself(&self) -> bool {
        // Sorted by stride, each dimension must step over all that smaller ones span.
        let mut axes: SmallVec<[(usize, usize); 5]> = self
            .shape()
            .iter()
            .zip(self.strides())
            .filter(|(n, _)| **n != 1)
            .map(|(&n, &s)| (s.unsigned_abs(), n))
            .collect();
        if axes.iter().any(|&(_, n)| n == 0) {
            return false;
        }
        axes.sort_unstable();
        let mut span = 0usize;
        for (stride, n) in axes {
            if stride <= span {
                return true;
            }
            span += stride * (n - 1);
        }
        false
    }
}

#[cfg(test)]
mod tests;
