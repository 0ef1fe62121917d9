//! Views by other names, shapes that follow from other tensors, and the pieces of a tensor.

use super::layout::{IntoDims, sizes};
use super::{Tensor, apply, cat};
use sinter_runtime::op::Axes;
use sinter_runtime::{DType, Op, Scalar, Shape};

/// Names of views that others know them by, and shapes that follow from other tensors.
impl Tensor {
    /// The same elements in another shape without a copy; one extent may be -1.
    ///
    /// # Panics
    /// Where strides cannot express it: see [`reshape`](Tensor::reshape).
    #[track_caller]
    pub fn view(&self, shape: impl IntoDims) -> Tensor {
        let out = self.reshape(shape);
        let copied = self.has_data() && !out.array().block().same(self.array().block());
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
        // Integers add up in i64, also where there is nothing to add.
        let differentiable = self.dtype().is_differentiable();
        let x = if differentiable { self.clone() } else { self.to_dtype(DType::I64) };
        crate::autograd::sum_to(&x, &shape)
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

    /// Matrices in the last two dimensions, transposed and conjugated.
    ///
    /// # Panics
    /// If there are fewer than two dimensions.
    #[track_caller]
    pub fn mh(&self) -> Tensor {
        if self.rank() < 2 {
            panic!("mh: needs at least two dimensions, the shape is {:?}", self.shape());
        }
        self.transpose(-1, -2).conj()
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
