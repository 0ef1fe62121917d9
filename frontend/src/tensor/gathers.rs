//! Reading and writing by tensors of indices.

use super::layout::IntoDims;
use super::{Tensor, apply, from_slice};
use sinter_runtime::op::ScatterKind;
use sinter_runtime::{DType, Op, Scalar, Shape};

/// How values join what is there, in [`scatter_reduce`](Tensor::scatter_reduce) and
/// [`index_reduce`](Tensor::index_reduce).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ScatterReduce {
    /// Their sum.
    Sum,
    /// Their product.
    Prod,
    /// Their mean; of integers rounded down.
    Mean,
    /// The largest.
    Amax,
    /// The smallest.
    Amin,
}

impl ScatterReduce {
    fn kind(self) -> ScatterKind {
        match self {
            ScatterReduce::Sum | ScatterReduce::Mean => ScatterKind::Add,
            ScatterReduce::Prod => ScatterKind::Prod,
            ScatterReduce::Amax => ScatterKind::Max,
            ScatterReduce::Amin => ScatterKind::Min,
        }
    }
}

/// Indices below `n` as i64, negative ones counted from the end.
///
/// # Panics
/// If one is out of range; while tracing, the program that reads by it finds out.
#[track_caller]
pub(super) fn wrapped(op: &str, index: &Tensor, n: usize) -> Tensor {
    if index.dtype().is_differentiable() || index.dtype() == DType::Bool {
        panic!("{op}: indices are integers, not {}", index.dtype());
    }
    let index = index.to_dtype(DType::I64);
    if !index.has_data() {
        return index.lt(0).where_(&(&index + n as i64), &index);
    }
    let mut values = index.to_vec::<i64>();
    for (at, i) in values.iter_mut().enumerate() {
        if *i < -(n as i64) || *i >= n as i64 {
            panic!("{op}: index {i} (element {at} of the indices) is out of range for size {n}");
        }
        if *i < 0 {
            *i += n as i64;
        }
    }
    from_slice(&values, index.shape())
}

impl Tensor {
    /// A 1-d index along `axis` as one for each element of `shape`.
    #[track_caller]
    fn across(op: &str, index: &Tensor, axis: usize, shape: &[usize]) -> Tensor {
        let n = shape.get(axis).copied().unwrap_or(1);
        if index.rank() > 1 || index.numel() != n {
            panic!("{op}: index {:?} does not fit values {shape:?}", index.shape());
        }
        let index = index.to_dtype(DType::I64);
        if shape.is_empty() {
            return index.reshape(());
        }
        let mut line: Shape = shape.iter().map(|_| 1).collect();
        line[axis] = index.numel();
        index.reshape(line).broadcast_to(shape)
    }

    /// `values`, as far as `index` reaches.
    #[track_caller]
    fn within(op: &str, values: &Tensor, index: &Tensor) -> Tensor {
        let fits = values.rank() == index.rank()
            && values.shape().iter().zip(index.shape()).all(|(v, i)| v >= i);
        if !fits {
            panic!("{op}: values {:?} are fewer than indices {:?}", values.shape(), index.shape());
        }
        let mut v = values.clone();
        for (d, &n) in index.shape().iter().enumerate() {
            if v.shape()[d] != n {
                v = v.narrow(d as i64, 0, n);
            }
        }
        v
    }

    /// A copy in which the elements of `values` have joined those that `index` names
    /// along `dim`. Without `include_self`, what is there counts only where nothing goes.
    ///
    /// ```
    /// use sinter::{ScatterReduce, tensor};
    /// let x = tensor([1.0f32, 2.0, 3.0]);
    /// let (i, v) = (tensor([0i64, 0, 2]), tensor([5.0f32, 7.0, 1.0]));
    /// let y = x.scatter_reduce(0, &i, &v, ScatterReduce::Amax, false);
    /// assert_eq!(y.to_vec::<f32>(), [7.0, 2.0, 1.0]);
    /// ```
    ///
    /// # Panics
    /// If shapes do not fit or an index is out of range.
    #[track_caller]
    pub fn scatter_reduce(
        &self,
        dim: i64,
        index: &Tensor,
        values: &Tensor,
        reduce: ScatterReduce,
        include_self: bool,
    ) -> Tensor {
        if self.rank() == 0 {
            let one = |t: &Tensor| t.reshape([t.numel()]);
            let (index, values) = (one(index), one(values));
            return one(self)
                .scatter_reduce(dim, &index, &values, reduce, include_self)
                .reshape(());
        }
        let axis = self.axis("scatter_reduce", dim);
        let index = &index.to_dtype(DType::I64);
        let values = Tensor::within("scatter_reduce", values, index);
        let dtype = self.dtype();
        // What changes nothing where something goes.
        let neutral = match reduce {
            ScatterReduce::Sum | ScatterReduce::Mean => Scalar::Int(0),
            ScatterReduce::Prod => Scalar::Int(1),
            ScatterReduce::Amax => lowest(dtype),
            ScatterReduce::Amin => highest(dtype),
        };
        let base = if include_self {
            self.clone()
        } else {
            let fill = super::full_like(&values.detach(), neutral);
            apply(Op::Scatter { axis, kind: ScatterKind::Set }, &[self, index, &fill])
        };
        let joined = apply(Op::Scatter { axis, kind: reduce.kind() }, &[&base, index, &values]);
        if reduce != ScatterReduce::Mean {
            return joined;
        }
        let start = super::full_like(&self.detach(), i64::from(include_self));
        let ones = super::ones_like(&values.detach());
        let count = apply(Op::Scatter { axis, kind: ScatterKind::Add }, &[&start, index, &ones]);
        let count = count.maximum(1);
        if dtype.is_differentiable() { joined / count } else { joined.floor_divide(&count) }
    }

    /// [`scatter_reduce`](Tensor::scatter_reduce) of whole slabs of `dim`, which a 1-d
    /// `index` names.
    ///
    /// # Panics
    /// As [`scatter_reduce`](Tensor::scatter_reduce).
    #[track_caller]
    pub fn index_reduce(
        &self,
        dim: i64,
        index: &Tensor,
        values: &Tensor,
        reduce: ScatterReduce,
        include_self: bool,
    ) -> Tensor {
        if self.rank() == 0 {
            return self.scatter_reduce(dim, index, values, reduce, include_self);
        }
        let axis = self.axis("index_reduce", dim);
        let index = Tensor::across("index_reduce", index, axis, values.shape());
        self.scatter_reduce(dim, &index, values, reduce, include_self)
    }

    /// A copy with the slabs of `dim` that a 1-d `index` names replaced by those of
    /// `values`.
    ///
    /// # Panics
    /// If shapes do not fit or an index is out of range.
    #[track_caller]
    pub fn index_copy(&self, dim: i64, index: &Tensor, values: &Tensor) -> Tensor {
        if self.rank() == 0 {
            return self.scatter(dim, &index.reshape([1]), &values.reshape([1]));
        }
        let axis = self.axis("index_copy", dim);
        let index = Tensor::across("index_copy", index, axis, values.shape());
        apply(Op::Scatter { axis, kind: ScatterKind::Set }, &[self, &index, values])
    }

    /// A copy with the slabs of `dim` that a 1-d `index` names filled with `value`.
    ///
    /// # Panics
    /// If an index is out of range.
    #[track_caller]
    pub fn index_fill(&self, dim: i64, index: &Tensor, value: impl Into<Scalar>) -> Tensor {
        if self.rank() == 0 {
            return self.reshape([1]).index_fill(dim, index, value).reshape(());
        }
        let axis = self.axis("index_fill", dim);
        let index = wrapped("index_fill", index, self.extent(axis));
        let mut shape: Shape = self.shape().into();
        if let Some(n) = shape.get_mut(axis) {
            *n = index.numel();
        }
        let op = Op::Full { value: value.into(), dtype: self.dtype(), shape };
        self.index_copy(dim, &index, &apply(op, &[]))
    }

    /// The elements with these numbers in row-major order, in the shape of `index`;
    /// negative ones count from the end.
    ///
    /// # Panics
    /// If a number is out of range.
    #[track_caller]
    pub fn take(&self, index: &Tensor) -> Tensor {
        let flat = wrapped("take", &index.reshape([-1]), self.numel());
        self.reshape([-1]).index_select(0, &flat).reshape(index.shape())
    }

    /// [`gather`](Tensor::gather) with an index that broadcasts with the tensor in the
    /// other dimensions; negative indices count from the end.
    ///
    /// # Panics
    /// If the shapes do not broadcast or an index is out of range.
    #[track_caller]
    pub fn take_along_dim(&self, index: &Tensor, dim: i64) -> Tensor {
        let axis = self.axis("take_along_dim", dim);
        if index.rank() != self.rank() {
            panic!(
                "take_along_dim: index {:?} has not the rank of {:?}",
                index.shape(),
                self.shape()
            );
        }
        let index = wrapped("take_along_dim", index, self.shape()[axis]);
        let (mut own, mut other): (Shape, Shape) = (self.shape().into(), index.shape().into());
        (own[axis], other[axis]) = (1, 1);
        let mut shape: Shape = super::shape::broadcast_shapes(&[&own, &other])[..].into();
        shape[axis] = self.shape()[axis];
        let x = self.broadcast_to(shape.as_slice());
        shape[axis] = index.shape()[axis];
        x.gather(dim, &index.broadcast_to(shape.as_slice()))
    }

    /// [`take_along_dim`](Tensor::take_along_dim) of the elements in row-major order.
    ///
    /// # Panics
    /// As [`take`](Tensor::take).
    #[track_caller]
    pub fn take_along(&self, index: &Tensor) -> Tensor {
        self.take(&index.reshape([-1]))
    }

    /// A copy with the elements where `mask`, which broadcasts to the tensor, is true
    /// replaced, in row-major order, by the first ones of `values`.
    ///
    /// # Panics
    /// If there are fewer values than places; and while tracing: how many places there
    /// are depends on values.
    #[track_caller]
    pub fn masked_scatter(&self, mask: &Tensor, values: &Tensor) -> Tensor {
        if mask.dtype() != DType::Bool || values.dtype() != self.dtype() {
            panic!(
                "masked_scatter: the mask is {} and the values are {}, expected bool and {}",
                mask.dtype(),
                values.dtype(),
                self.dtype()
            );
        }
        let shape = super::shape::broadcast_shapes(&[self.shape(), mask.shape()]);
        let base = self.broadcast_to(shape.as_slice());
        let places = mask.broadcast_to(shape).reshape([-1]).nonzero().reshape([-1]);
        let n = places.numel();
        if n > values.numel() {
            panic!("masked_scatter: {} values for {n} places", values.numel());
        }
        base.put(&places, &values.reshape([-1]).narrow(0, 0, n), false)
    }

    /// The first `size` indices of elements that are not zero, [size, rank]; rows that
    /// are missing are filled with `fill`.
    ///
    /// # Panics
    /// While tracing: they depend on values.
    #[track_caller]
    pub fn nonzero_static(&self, size: usize, fill: i64) -> Tensor {
        let found = self.nonzero();
        let n = found.size(0);
        if n >= size {
            return found.narrow(0, 0, size);
        }
        found.pad(&[(0, size - n), (0, 0)], fill)
    }

    /// [`nonzero`](Tensor::nonzero) by NumPy's name.
    ///
    /// # Panics
    /// While tracing: how many there are depends on values.
    #[track_caller]
    pub fn argwhere(&self) -> Tensor {
        self.nonzero()
    }

    /// The indices of elements that are not zero, a vector for each dimension.
    ///
    /// # Panics
    /// While tracing: how many there are depends on values.
    #[track_caller]
    pub fn nonzero_tuple(&self) -> Vec<Tensor> {
        if self.rank() == 0 {
            self.unsqueeze(0).nonzero().unbind(1)
        } else {
            self.nonzero().unbind(1)
        }
    }

    /// The coordinates, in a tensor of this shape, of elements with these numbers in
    /// row-major order: a tensor for each dimension.
    #[track_caller]
    pub fn unravel_index(&self, shape: impl IntoDims) -> Vec<Tensor> {
        let shape = super::layout::sizes("unravel_index", shape);
        let mut rest = self.to_dtype(DType::I64);
        let mut out = Vec::with_capacity(shape.len());
        for &n in shape.iter().rev() {
            out.push(rest.remainder(n.max(1) as i64));
            rest = rest.floor_divide(n.max(1) as i64);
        }
        out.reverse();
        out
    }

    /// Slabs of this many repetitions of each slab of `dim`: those of the first one come
    /// first.
    #[track_caller]
    pub fn repeat_interleave(&self, times: usize, dim: i64) -> Tensor {
        let axis = self.axis("repeat_interleave", dim);
        let mut wide: Shape = self.shape().into();
        wide.insert(axis + 1, times);
        let mut out: Shape = self.shape().into();
        out[axis] *= times;
        self.unsqueeze(axis as i64 + 1).broadcast_to(wide).reshape(out)
    }

    /// [`repeat_interleave`](Tensor::repeat_interleave) with a number for each slab.
    ///
    /// # Panics
    /// If there are not as many numbers as slabs, or one is negative; and while tracing:
    /// the size of the result depends on values.
    #[track_caller]
    pub fn repeat_interleave_each(&self, times: &Tensor, dim: i64) -> Tensor {
        let axis = self.axis("repeat_interleave", dim);
        let counts = times.to_vec::<i64>();
        if counts.len() != self.shape()[axis] || counts.iter().any(|&c| c < 0) {
            panic!(
                "repeat_interleave: {counts:?} are no numbers of repetitions for dimension {dim} of {:?}",
                self.shape()
            );
        }
        let index: Vec<i64> = counts
            .iter()
            .enumerate()
            .flat_map(|(i, &c)| std::iter::repeat_n(i as i64, c as usize))
            .collect();
        self.index_select(dim, &from_slice(&index, [index.len()]))
    }
}

/// The least and the greatest number of an integer type.
fn range(dtype: DType) -> (Scalar, Scalar) {
    let bits = 8 * dtype.size() as u32;
    match dtype {
        DType::Bool => (Scalar::Bool(false), Scalar::Bool(true)),
        // Conversion from a float saturates.
        DType::U64 => (Scalar::Int(0), Scalar::Float(f64::MAX)),
        d if d.is_unsigned() => (Scalar::Int(0), Scalar::Int((1 << bits) - 1)),
        _ => (Scalar::Int(i64::MIN >> (64 - bits)), Scalar::Int(i64::MAX >> (64 - bits))),
    }
}

/// The least number of a type.
pub(crate) fn lowest(dtype: DType) -> Scalar {
    if dtype.is_float() { Scalar::Float(f64::NEG_INFINITY) } else { range(dtype).0 }
}

/// The greatest number of a type.
pub(crate) fn highest(dtype: DType) -> Scalar {
    if dtype.is_float() { Scalar::Float(f64::INFINITY) } else { range(dtype).1 }
}

/// The largest finite number of a float type.
pub(super) fn largest(dtype: DType) -> f64 {
    match dtype {
        DType::F16 => half::f16::MAX.to_f64(),
        DType::BF16 => half::bf16::MAX.to_f64(),
        DType::F32 => f32::MAX.into(),
        _ => f64::MAX,
    }
}
