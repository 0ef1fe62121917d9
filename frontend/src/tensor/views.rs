//! Views beyond the common ones: diagonals, windows, any strides; and the writes that
//! are their counterparts.

use super::layout::{IntoDims, resolve, sizes};
use super::{Tensor, apply, cat};
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
        if self.is_traced() {
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

/// Names of views that others know them by, and shapes that follow from other tensors.
impl Tensor {
    /// The same elements in another shape without a copy; one extent may be -1.
    ///
    /// # Panics
    /// Where strides cannot express it: see [`reshape`](Tensor::reshape).
    #[track_caller]
    pub fn view(&self, shape: impl IntoDims) -> Tensor {
        let out = self.reshape(shape);
        let copied = !self.is_traced() && !out.array().block().same(self.array().block());
        if copied && self.numel() > 0 {
            panic!(
                "view: {:?} with strides {:?} cannot be seen as {:?} without a copy; use `reshape`",
                self.shape(),
                self.strides(),
                out.shape()
            );
        }
        out
    }

    /// [`view`](Tensor::view) in the shape of another tensor.
    #[track_caller]
    pub fn view_as(&self, other: &Tensor) -> Tensor {
        self.view(other.shape())
    }

    /// [`reshape`](Tensor::reshape) to the shape of another tensor.
    #[track_caller]
    pub fn reshape_as(&self, other: &Tensor) -> Tensor {
        self.reshape(other.shape())
    }

    /// [`broadcast_to`](Tensor::broadcast_to), by PyTorch's other name.
    #[track_caller]
    pub fn expand(&self, shape: impl IntoDims) -> Tensor {
        self.broadcast_to(shape)
    }

    /// [`broadcast_to`](Tensor::broadcast_to) the shape of another tensor.
    #[track_caller]
    pub fn expand_as(&self, other: &Tensor) -> Tensor {
        self.broadcast_to(other.shape())
    }

    /// Summed down to `shape`, which broadcasts to the tensor's own.
    ///
    /// # Panics
    /// If it does not.
    #[track_caller]
    pub fn sum_to_size(&self, shape: impl IntoDims) -> Tensor {
        let shape = sizes("sum_to_size", shape);
        let lead = self.rank().checked_sub(shape.len());
        let fits = lead.is_some_and(|l| {
            shape.iter().zip(&self.shape()[l..]).all(|(&n, &own)| n == own || n == 1)
        });
        if !fits {
            panic!("sum_to_size: {shape:?} does not broadcast to {:?}", self.shape());
        }
        crate::autograd::sum_to(self, &shape)
    }

    /// The elements in row-major order as a vector.
    #[track_caller]
    pub fn ravel(&self) -> Tensor {
        self.reshape([-1])
    }

    /// Dimension `dim` as several of these extents, one of which may be -1.
    ///
    /// # Panics
    /// If their product is not the extent.
    #[track_caller]
    pub fn unflatten(&self, dim: i64, sizes: impl IntoDims) -> Tensor {
        let axis = self.axis("unflatten", dim);
        let mut new = sizes.into_dims();
        let n = self.shape()[axis] as i64;
        let known: i64 = new.iter().filter(|&&d| d != -1).product();
        for d in new.iter_mut().filter(|d| **d == -1) {
            *d = if known != 0 { n / known } else { 0 };
        }
        if new.iter().product::<i64>() != n || new.iter().any(|&d| d < 0) {
            panic!("unflatten: dimension {dim} of {:?} cannot become {new:?}", self.shape());
        }
        let mut shape: Shape = self.shape()[..axis].into();
        shape.extend(new.iter().map(|&d| d as usize));
        shape.extend_from_slice(&self.shape()[axis + 1..]);
        apply(Op::Reshape { shape }, &[self])
    }

    /// Without all dimensions of extent 1.
    #[track_caller]
    pub fn squeeze_all(&self) -> Tensor {
        let shape: Shape = self.shape().iter().copied().filter(|&n| n != 1).collect();
        apply(Op::Reshape { shape }, &[self])
    }

    /// Without those of the dimensions `dims` whose extent is 1.
    #[track_caller]
    pub fn squeeze_dims(&self, dims: impl IntoDims) -> Tensor {
        let axes = self.axes("squeeze", dims);
        let kept = |i: &usize| !axes.contains(i) || self.shape()[*i] != 1;
        let shape: Shape = (0..self.rank()).filter(kept).map(|i| self.shape()[i]).collect();
        apply(Op::Reshape { shape }, &[self])
    }

    /// Dimensions `from` moved to places `to`; the others keep their order.
    ///
    /// # Panics
    /// If the lists differ in length or name a dimension twice.
    #[track_caller]
    pub fn movedims(&self, from: impl IntoDims, to: impl IntoDims) -> Tensor {
        let (from, to) = (self.axes("movedim", from), self.axes("movedim", to));
        let twice = |axes: &Axes| axes.iter().enumerate().any(|(i, a)| axes[..i].contains(a));
        if from.len() != to.len() || twice(&from) || twice(&to) {
            panic!("movedim: dimensions {from:?} cannot move to places {to:?}");
        }
        let mut rest = (0..self.rank()).filter(|d| !from.contains(d));
        let perm: Axes = (0..self.rank())
            .map(|place| match to.iter().position(|&t| t == place) {
                Some(i) => from[i],
                None => rest.next().expect("as many places as dimensions"),
            })
            .collect();
        apply(Op::Permute { perm }, &[self])
    }

    /// Two dimensions exchanged: [`transpose`](Tensor::transpose) by NumPy's name.
    #[track_caller]
    pub fn swapaxes(&self, a: i64, b: i64) -> Tensor {
        self.transpose(a, b)
    }

    /// Matrices in the last two dimensions, transposed.
    ///
    /// # Panics
    /// If there are fewer than two dimensions.
    #[track_caller]
    pub fn mt(&self) -> Tensor {
        if self.rank() < 2 {
            panic!("mt: needs at least two dimensions, the shape is {:?}", self.shape());
        }
        self.transpose(-1, -2)
    }

    /// Reversed along the second dimension.
    ///
    /// # Panics
    /// If there are fewer than two dimensions.
    #[track_caller]
    pub fn fliplr(&self) -> Tensor {
        if self.rank() < 2 {
            panic!("fliplr: needs at least two dimensions, the shape is {:?}", self.shape());
        }
        self.flip([1])
    }

    /// Reversed along the first dimension.
    ///
    /// # Panics
    /// If this is a number.
    #[track_caller]
    pub fn flipud(&self) -> Tensor {
        if self.rank() == 0 {
            panic!("flipud: needs at least one dimension");
        }
        self.flip([0])
    }

    /// Turned `times` quarter turns in the plane of two dimensions, from the first
    /// towards the second.
    ///
    /// # Panics
    /// If the dimensions are the same.
    #[track_caller]
    pub fn rot90(&self, times: i64, dims: [i64; 2]) -> Tensor {
        let [a, b] = dims;
        if self.axis("rot90", a) == self.axis("rot90", b) {
            panic!("rot90: dimensions {a} and {b} are the same");
        }
        match times.rem_euclid(4) {
            0 => self.copy(),
            1 => self.flip([b]).transpose(a, b),
            2 => self.flip([a, b]),
            _ => self.flip([a]).transpose(a, b),
        }
    }

    /// Shifted by `shifts` along dimensions `dims`; what leaves at one end comes in at
    /// the other.
    ///
    /// # Panics
    /// If the lists differ in length.
    #[track_caller]
    pub fn roll(&self, shifts: impl IntoDims, dims: impl IntoDims) -> Tensor {
        let (shifts, dims) = (shifts.into_dims(), dims.into_dims());
        if shifts.len() != dims.len() {
            panic!("roll: shifts {shifts:?} for dimensions {dims:?}");
        }
        let mut x = self.clone();
        for (&shift, &dim) in shifts.iter().zip(&dims) {
            let n = x.size(dim);
            if n == 0 {
                continue;
            }
            let first = n - shift.rem_euclid(n as i64) as usize;
            if first == n {
                continue;
            }
            x = cat(&[&x.narrow(dim, first, n - first), &x.narrow(dim, 0, first)], dim);
        }
        x
    }

    /// [`roll`](Tensor::roll) of all elements in row-major order.
    #[track_caller]
    pub fn roll_all(&self, shift: i64) -> Tensor {
        self.reshape([-1]).roll(shift, 0).reshape(self.shape())
    }

    /// Zeros of the tensor's type in another shape.
    #[track_caller]
    pub fn new_zeros(&self, shape: impl IntoDims) -> Tensor {
        super::full(shape, 0.0, self.dtype())
    }

    /// Ones of the tensor's type in another shape.
    #[track_caller]
    pub fn new_ones(&self, shape: impl IntoDims) -> Tensor {
        super::full(shape, 1.0, self.dtype())
    }

    /// `value` of the tensor's type in another shape.
    #[track_caller]
    pub fn new_full(&self, shape: impl IntoDims, value: impl Into<Scalar>) -> Tensor {
        super::full(shape, value, self.dtype())
    }

    /// A tensor of this one's type whose contents are unspecified.
    #[track_caller]
    pub fn new_empty(&self, shape: impl IntoDims) -> Tensor {
        super::empty(shape, self.dtype())
    }

    /// Fills the main diagonal of a matrix (of all equal dimensions beyond) in place.
    ///
    /// # Panics
    /// If there are fewer than two dimensions, or more that are not all equal.
    #[track_caller]
    pub fn fill_diagonal_(&self, value: impl Into<Scalar>) -> &Tensor {
        let shape = self.shape();
        if shape.len() < 2 || (shape.len() > 2 && shape.iter().any(|&n| n != shape[0])) {
            panic!("fill_diagonal_: shape {shape:?} has no main diagonal");
        }
        let mut view = self.diagonal(0, 0, 1);
        for _ in 2..shape.len() {
            view = view.diagonal(0, 0, -1);
        }
        view.fill_(value);
        self
    }
}

/// The pieces of a tensor.
impl Tensor {
    /// Cut along `dim` into pieces of these sizes, which add up to its extent.
    ///
    /// # Panics
    /// If they do not.
    #[track_caller]
    pub fn split_sizes(&self, sizes: &[usize], dim: i64) -> Vec<Tensor> {
        if sizes.iter().sum::<usize>() != self.size(dim) {
            panic!("split: sizes {sizes:?} do not add up to dimension {dim} of {:?}", self.shape());
        }
        let mut start = 0;
        let mut parts = Vec::with_capacity(sizes.len());
        for &len in sizes {
            parts.push(self.narrow(dim, start, len));
            start += len;
        }
        parts
    }

    /// Cut along `dim` into `n` pieces, the first ones larger by one where needed.
    ///
    /// # Panics
    /// If `n` is 0.
    #[track_caller]
    pub fn tensor_split(&self, n: usize, dim: i64) -> Vec<Tensor> {
        if n == 0 {
            panic!("tensor_split: the number of pieces is 0");
        }
        let size = self.size(dim);
        let sizes: Vec<usize> = (0..n).map(|i| size / n + usize::from(i < size % n)).collect();
        self.split_sizes(&sizes, dim)
    }

    /// Cut along `dim` before each of the indices; negative ones count from the end, and
    /// they are cut to what exists.
    #[track_caller]
    pub fn tensor_split_at(&self, indices: &[i64], dim: i64) -> Vec<Tensor> {
        let n = self.size(dim) as i64;
        let clip = |v: i64| (if v < 0 { v + n } else { v }).clamp(0, n) as usize;
        let mut start = 0;
        let mut parts = Vec::with_capacity(indices.len() + 1);
        for end in indices.iter().map(|&i| clip(i)).chain([n as usize]) {
            parts.push(self.narrow(dim, start.min(end), end.saturating_sub(start)));
            start = end;
        }
        parts
    }

    /// Cut into `n` equal pieces side by side: along the second dimension, of a vector
    /// along its only one.
    ///
    /// # Panics
    /// If they are not equal, or this is a number.
    #[track_caller]
    pub fn hsplit(&self, n: usize) -> Vec<Tensor> {
        self.equal_parts("hsplit", n, if self.rank() == 1 { 0 } else { 1 }, 1)
    }

    /// Cut into `n` equal pieces along the first dimension.
    ///
    /// # Panics
    /// If they are not equal, or there are fewer than two dimensions.
    #[track_caller]
    pub fn vsplit(&self, n: usize) -> Vec<Tensor> {
        self.equal_parts("vsplit", n, 0, 2)
    }

    /// Cut into `n` equal pieces along the third dimension.
    ///
    /// # Panics
    /// If they are not equal, or there are fewer than three dimensions.
    #[track_caller]
    pub fn dsplit(&self, n: usize) -> Vec<Tensor> {
        self.equal_parts("dsplit", n, 2, 3)
    }

    #[track_caller]
    fn equal_parts(&self, op: &str, n: usize, axis: usize, least: usize) -> Vec<Tensor> {
        if self.rank() < least || n == 0 || !self.shape()[axis].is_multiple_of(n) {
            panic!("{op}: shape {:?} has no {n} equal pieces along dimension {axis}", self.shape());
        }
        self.tensor_split(n, axis as i64)
    }
}

/// The shape that all of the shapes broadcast to.
///
/// # Panics
/// If they do not broadcast.
#[track_caller]
pub fn broadcast_shapes(shapes: &[&[usize]]) -> Vec<usize> {
    let mut out = Shape::new();
    for s in shapes {
        out = match sinter_runtime::op::broadcast_shapes("broadcast_shapes", &out, s) {
            Ok(shape) => shape,
            Err(e) => panic!("{e}"),
        };
    }
    out.to_vec()
}

/// The tensors broadcast to one shape: views.
///
/// # Panics
/// If they do not broadcast.
#[track_caller]
pub fn broadcast_tensors(tensors: &[&Tensor]) -> Vec<Tensor> {
    let shapes: Vec<&[usize]> = tensors.iter().map(|t| t.shape()).collect();
    let shape = broadcast_shapes(&shapes);
    let mut out = Vec::with_capacity(tensors.len());
    for t in tensors {
        out.push(t.broadcast_to(shape.as_slice()));
    }
    out
}
