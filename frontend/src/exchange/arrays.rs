//! To and from `ndarray`.

use crate::tensor::Tensor;
use ndarray::{
    ArrayBase, ArrayD, ArrayView, ArrayViewD, Axis, Data, Dimension, OwnedRepr, ShapeBuilder,
};
use sinter_kernels::mem::Block;
use sinter_runtime::{Array, Number, OpError};

/// A vector as bytes.
struct Bytes<T>(Vec<T>);

impl<T: Number> AsMut<[u8]> for Bytes<T> {
    fn as_mut(&mut self) -> &mut [u8] {
        let len = std::mem::size_of_val(self.0.as_slice());
        // SAFETY: numbers have no padding, and any bytes are numbers.
        unsafe { std::slice::from_raw_parts_mut(self.0.as_mut_ptr().cast(), len) }
    }
}

/// The vector's memory as an array of one dimension.
fn adopt<T: Number + Sync>(values: Vec<T>) -> Result<Array, OpError> {
    let n = values.len();
    Array::from_block(Block::from_owner_mut(Bytes(values)), 0, &[n], T::DTYPE)
}

#[track_caller]
fn or_fail(r: Result<Array, OpError>) -> Array {
    match r {
        Ok(a) => a,
        Err(e) => panic!("{e}"),
    }
}

/// A vector of numbers as a tensor of one dimension over the same memory.
///
/// ```
/// use sinter::exchange::from_vec;
/// assert_eq!(from_vec(vec![1.0f64, 2.0]).sum().item::<f64>(), 3.0);
/// ```
#[track_caller]
pub fn from_vec<T: Number + Sync>(values: Vec<T>) -> Tensor {
    Tensor::from_array(or_fail(adopt(values)))
}

/// An array that is given away, as a tensor over the same memory, whatever its strides.
#[track_caller]
pub fn from_ndarray<T: Number + Sync, D: Dimension>(array: ArrayBase<OwnedRepr<T>, D>) -> Tensor {
    let shape = array.shape().to_vec();
    let strides = array.strides().to_vec();
    let (values, first) = array.into_raw_vec_and_offset();
    let whole = or_fail(adopt(values));
    Tensor::from_array(or_fail(whole.as_strided(&shape, &strides, first.unwrap_or(0))))
}

impl<T: Number + Sync, D: Dimension> From<ArrayBase<OwnedRepr<T>, D>> for Tensor {
    #[track_caller]
    fn from(array: ArrayBase<OwnedRepr<T>, D>) -> Tensor {
        from_ndarray(array)
    }
}

impl<T: Number, D: Dimension> From<ArrayView<'_, T, D>> for Tensor {
    /// A copy: the tensor may outlive what is lent.
    #[track_caller]
    fn from(view: ArrayView<'_, T, D>) -> Tensor {
        copied(&view)
    }
}

#[track_caller]
fn copied<T: Number, S: Data<Elem = T>, D: Dimension>(array: &ArrayBase<S, D>) -> Tensor {
    let values: Vec<T> = array.iter().copied().collect();
    Tensor::from_array(or_fail(Array::from_slice(&values, array.shape())))
}

/// A copy of the elements, converted to `T` where they are of another type.
///
/// # Panics
/// While tracing, when the tensor is a traced value.
#[track_caller]
pub fn to_ndarray<T: Number>(x: &Tensor) -> ArrayD<T> {
    let values = x.to_vec::<T>();
    match ArrayD::from_shape_vec(x.shape(), values) {
        Ok(a) => a,
        Err(e) => panic!("to_ndarray: {e}"),
    }
}

/// The tensor's elements where they lie, with its strides.
///
/// # Safety
/// As long as the view lives, nothing may write to the tensor's memory: neither this
/// tensor nor another that shares it.
///
/// # Panics
/// If the elements are not stored as `T` (bool is stored as `u8`); and while tracing,
/// when the tensor is a traced value.
#[track_caller]
pub unsafe fn view_ndarray<T: Number>(x: &Tensor) -> ArrayViewD<'_, T> {
    let a = x.array();
    let stored = sinter_runtime::with_number!(a.dtype(), N => std::any::TypeId::of::<N>());
    if stored != std::any::TypeId::of::<T>() {
        panic!("view_ndarray: elements of type {} are not stored as {}", a.dtype(), T::DTYPE);
    }
    // The view takes strides that are not negative: from the element that lies first.
    let backwards: Vec<bool> =
        a.strides().iter().zip(a.shape()).map(|(&s, &n)| s < 0 && n > 0).collect();
    let axes: Vec<usize> = (0..a.rank()).filter(|&d| backwards[d]).collect();
    let forwards = a.flip(&axes);
    let strides: Vec<usize> = forwards.strides().iter().map(|s| s.unsigned_abs()).collect();
    // SAFETY: an array's elements lie within its block, which the tensor keeps; that
    // nobody writes is the caller's promise.
    let mut view = unsafe {
        let first = a.block().as_ptr().cast::<T>().add(forwards.offset());
        ArrayViewD::from_shape_ptr(a.shape().strides(&strides), first)
    };
    for d in axes {
        view.invert_axis(Axis(d));
    }
    view
}
