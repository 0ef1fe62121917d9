//! Views beyond the common ones: diagonals, windows, any strides; and the writes that
//! are their counterparts.

use super::layout::{IntoDims, resolve, sizes};
use super::{Tensor, apply};
use crate::autograd::mode;
use sinter_runtime::op::Axes;
use sinter_runtime::{DType, Op, Scalar, Shape};
use smallvec::SmallVec;

/// Where the diagonal `offset` above the main one (below, if negative) of an `n` by `m`
/// matrix begins, and how long it is.
fn diagonal_of(n: usize, m: usize, offset: i64) -> (usize, usize, usize) {
    let row = usize::try_from(-offset).unwrap_or(0);
    let col = usize::try_from(offset).unwrap_or(0);
    let len = n.saturating_sub(row).min(m.saturating_sub(col));
    if len == 0 { (0, 0, 0) } else { (row, col, len) }
}

impl Tensor {
    /// The diagonal of two dimensions as a new last dimension: a view. `offset` moves it
    /// to the right, or down if negative.
    ///
    /// ```
    /// use sinter::arange;
    /// let x = arange(0, 9, 1).reshape([3, 3]);
    /// assert_eq!(x.diagonal(0, 0, 1).to_vec::<i64>(), [0, 4, 8]);
    /// assert_eq!(x.diagonal(-1, 0, 1).to_vec::<i64>(), [3, 7]);
    /// ```
    ///
    /// # Panics
    /// If the dimensions do not exist or are the same.
    #[track_caller]
    pub fn diagonal(&self, offset: i64, dim1: i64, dim2: i64) -> Tensor {
        let (axis1, axis2) = (self.axis("diagonal", dim1), self.axis("diagonal", dim2));
        if axis1 == axis2 {
            panic!("diagonal: dimensions {dim1} and {dim2} of {:?} are the same", self.shape());
        }
        let (row, col, len) = diagonal_of(self.shape()[axis1], self.shape()[axis2], offset);
        apply(Op::Diagonal { axis1, axis2, row, col, len }, &[self])
    }

    /// A matrix's diagonal, as a copy, or the matrix with a vector as its diagonal.
    ///
    /// # Panics
    /// If this is neither a vector nor a matrix.
    #[track_caller]
    pub fn diag(&self, offset: i64) -> Tensor {
        match self.rank() {
            1 => self.diag_embed(offset, 0, 1),
            2 => self.diagonal(offset, 0, 1).copy(),
            _ => panic!("diag: needs a vector or a matrix, the shape is {:?}", self.shape()),
        }
    }

    /// The last dimension as the diagonal of matrices in dimensions `dim1` and `dim2` of
    /// the result, zeros elsewhere.
    ///
    /// # Panics
    /// If this is a number, or the dimensions do not exist or are the same.
    #[track_caller]
    pub fn diag_embed(&self, offset: i64, dim1: i64, dim2: i64) -> Tensor {
        if self.rank() == 0 {
            panic!("diag_embed: needs at least one dimension");
        }
        let rank = self.rank() + 1;
        let (a, b) = (resolve("diag_embed", dim1, rank), resolve("diag_embed", dim2, rank));
        if a == b {
            panic!("diag_embed: dimensions {dim1} and {dim2} are the same");
        }
        let n = self.size(-1) + usize::try_from(offset.unsigned_abs()).unwrap_or(usize::MAX);
        let mut shape: Shape = self.shape()[..rank - 2].into();
        for d in [a.min(b), a.max(b)] {
            shape.insert(d, n);
        }
        let zero = Scalar::Float(0.0);
        let base = apply(Op::Full { value: zero, dtype: self.dtype(), shape }, &[]);
        base.diagonal_scatter(self, offset, a as i64, b as i64)
    }

    /// The matrix with the elements, in row-major order, as its diagonal.
    #[track_caller]
    pub fn diagflat(&self, offset: i64) -> Tensor {
        self.reshape([-1]).diag_embed(offset, 0, 1)
    }

    /// Sum of the main diagonal of a matrix.
    ///
    /// # Panics
    /// If this is no matrix.
    #[track_caller]
    pub fn trace(&self) -> Tensor {
        if self.rank() != 2 {
            panic!("trace: needs a matrix, the shape is {:?}", self.shape());
        }
        self.diagonal(0, 0, 1).sum()
    }

    /// Windows of `size` elements of dimension `dim`, `step` apart, whose elements are a
    /// new last dimension: a view.
    ///
    /// ```
    /// use sinter::arange;
    /// let x = arange(0, 7, 1);
    /// assert_eq!(x.unfold(0, 3, 2).to_vec::<i64>(), [0, 1, 2, 2, 3, 4, 4, 5, 6]);
    /// ```
    ///
    /// # Panics
    /// If a window does not fit, or `step` is 0.
    #[track_caller]
    pub fn unfold(&self, dim: i64, size: usize, step: usize) -> Tensor {
        if self.rank() == 0 {
            return self.unsqueeze(0).unfold(dim, size, step).select(0, 0);
        }
        let axis = self.axis("unfold", dim);
        let n = self.shape()[axis];
        if size > n || step == 0 {
            panic!(
                "unfold: windows of {size}, {step} apart, do not fit dimension {dim} of {:?}",
                self.shape()
            );
        }
        let count = (n - size) / step + 1;
        apply(Op::Unfold { axis, size, step, count }, &[self])
    }

    /// A view of the tensor's memory with any strides, in elements, and `offset` into the
    /// storage (that of this tensor by default). What leaves the storage is an error.
    ///
    /// With a gradient, and while tracing, the view is one of this tensor's elements, in
    /// the order in which they lie in memory.
    ///
    /// ```
    /// use sinter::arange;
    /// let x = arange(0, 5, 1);
    /// let v = x.as_strided([3, 2], [1, 2], None);
    /// assert_eq!(v.to_vec::<i64>(), [0, 2, 1, 3, 2, 4]);
    /// ```
    ///
    /// # Panics
    /// If the view leaves the storage; with a gradient, if it leaves the tensor's own
    /// elements, or these have gaps between them.
    #[track_caller]
    pub fn as_strided(
        &self,
        size: impl IntoDims,
        stride: impl IntoDims,
        offset: impl Into<Option<usize>>,
    ) -> Tensor {
        let (shape, strides) = (sizes("as_strided", size), sizes("as_strided", stride));
        let offset = offset.into();
        if !self.has_data() {
            let offset = offset.unwrap_or(0);
            return apply(Op::AsStrided { shape, strides, offset }, &[self]);
        }
        let own = self.array().offset();
        let recorded = mode::grad_enabled() && self.requires_grad();
        if recorded || (own == 0 && self.is_contiguous() && offset.is_none()) {
            let Some(offset) = offset.unwrap_or(own).checked_sub(own) else {
                panic!(
                    "as_strided: offset {offset:?} lies before the tensor's first element at {own}: \
                     no gradient can flow there; take the view of the whole tensor, or `detach` first"
                );
            };
            let dense = self.in_memory_order();
            return apply(Op::AsStrided { shape, strides, offset }, &[&dense]);
        }
        let strides: SmallVec<[isize; 5]> = strides.iter().map(|&s| s as isize).collect();
        match self.array().as_strided(&shape, &strides, offset.unwrap_or(own)) {
            Ok(a) => Tensor::view_from_array(a, self),
            Err(e) => super::fail(&e, &[self]),
        }
    }

    /// The dimensions ordered as they lie in memory, so that the tensor is dense.
    #[track_caller]
    fn in_memory_order(&self) -> Tensor {
        if self.is_contiguous() {
            return self.clone();
        }
        let mut perm: Axes = (0..self.rank()).collect();
        perm.sort_by_key(|&d| std::cmp::Reverse((self.strides()[d], self.shape()[d])));
        let dense = apply(Op::Permute { perm }, &[self]);
        if !dense.is_contiguous() {
            panic!(
                "as_strided: the elements of the tensor, {:?} with strides {:?}, do not lie densely; \
                 make it `contiguous` first",
                self.shape(),
                self.strides()
            );
        }
        dense
    }

    /// A copy with `values` on the diagonal that [`diagonal`](Tensor::diagonal) shows.
    ///
    /// # Panics
    /// If `values` has another shape than that diagonal.
    #[track_caller]
    pub fn diagonal_scatter(&self, values: &Tensor, offset: i64, dim1: i64, dim2: i64) -> Tensor {
        let places = self.places().diagonal(offset, dim1, dim2);
        self.put_at("diagonal_scatter", &places, values)
    }

    /// A copy with `values` where [`select`](Tensor::select) shows.
    ///
    /// # Panics
    /// If `values` has another shape than that slice.
    #[track_caller]
    pub fn select_scatter(&self, values: &Tensor, dim: i64, index: i64) -> Tensor {
        let axis = self.axis("select_scatter", dim);
        let n = self.shape()[axis] as i64;
        if index < -n || index >= n {
            panic!("select_scatter: index {index} is out of range for dimension {dim} of size {n}");
        }
        let mut shape: Shape = self.shape().into();
        shape.remove(axis);
        if values.shape() != shape.as_slice() {
            panic!("select_scatter: values {:?} are not of shape {shape:?}", values.shape());
        }
        let start = if index < 0 { index + n } else { index } as usize;
        let values = values.to_dtype(self.dtype()).unsqueeze(axis as i64);
        apply(Op::SliceAssign { axis, start, step: 1 }, &[self, &values])
    }

    /// A copy with `values` where every `step`-th element of `dim` from `start` up to
    /// `end` (excluded) is. Negative bounds count from the end; they are cut to what
    /// exists.
    ///
    /// # Panics
    /// If `values` has another shape than that slice, or `step` is 0.
    #[track_caller]
    pub fn slice_scatter(
        &self,
        values: &Tensor,
        dim: i64,
        start: impl Into<Option<i64>>,
        end: impl Into<Option<i64>>,
        step: usize,
    ) -> Tensor {
        let axis = self.axis("slice_scatter", dim);
        let n = self.shape()[axis] as i64;
        let clip = |v: i64| (if v < 0 { v + n } else { v }).clamp(0, n) as usize;
        let (start, end) = (clip(start.into().unwrap_or(0)), clip(end.into().unwrap_or(n)));
        if step == 0 {
            panic!("slice_scatter: the step is 0");
        }
        let mut shape: Shape = self.shape().into();
        shape[axis] = end.saturating_sub(start).div_ceil(step);
        if values.shape() != shape.as_slice() {
            panic!("slice_scatter: values {:?} are not of shape {shape:?}", values.shape());
        }
        let values = values.to_dtype(self.dtype());
        apply(Op::SliceAssign { axis, start, step }, &[self, &values])
    }

    /// A copy with `values` where [`as_strided`](Tensor::as_strided) shows, the tensor's
    /// elements being dense in row-major order. Where places coincide, one of the values
    /// stays.
    ///
    /// # Panics
    /// If the places are not among the elements, or `values` has another shape.
    #[track_caller]
    pub fn as_strided_scatter(
        &self,
        values: &Tensor,
        size: impl IntoDims,
        stride: impl IntoDims,
        offset: usize,
    ) -> Tensor {
        let shape = sizes("as_strided_scatter", size);
        let strides = sizes("as_strided_scatter", stride);
        let places = apply(Op::AsStrided { shape, strides, offset }, &[&self.places()]);
        self.put_at("as_strided_scatter", &places, values)
    }

    /// The number of each element in row-major order, in the tensor's shape.
    #[track_caller]
    pub(crate) fn places(&self) -> Tensor {
        let flat = Op::Iota { dtype: DType::I64, axis: 0, shape: [self.numel()][..].into() };
        apply(flat, &[]).reshape(self.shape())
    }

    /// A copy with `values`, which have the shape of `places`, at these numbers.
    #[track_caller]
    fn put_at(&self, op: &str, places: &Tensor, values: &Tensor) -> Tensor {
        if values.shape() != places.shape() {
            panic!("{op}: values {:?} are not of shape {:?}", values.shape(), places.shape());
        }
        self.put(places, &values.to_dtype(self.dtype()), false)
    }

    /// A copy with `values` (as many) at the numbers `index` of the elements in row-major
    /// order; added to what is there when `accumulate`. Negative numbers count from the
    /// end.
    ///
    /// # Panics
    /// If types or numbers of elements differ, or a number is out of range.
    #[track_caller]
    pub fn put(&self, index: &Tensor, values: &Tensor, accumulate: bool) -> Tensor {
        use sinter_runtime::op::ScatterKind::{Add, Set};
        if index.numel() != values.numel() {
            panic!("put: {:?} indices for values {:?}", index.shape(), values.shape());
        }
        let index = super::gathers::wrapped("put", &index.reshape([-1]), self.numel());
        let kind = if accumulate { Add } else { Set };
        let flat = self.reshape([-1]);
        let out = apply(Op::Scatter { axis: 0, kind }, &[&flat, &index, &values.reshape([-1])]);
        out.reshape(self.shape())
    }
}
