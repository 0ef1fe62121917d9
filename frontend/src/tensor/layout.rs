//! Shapes and views.

use super::{Tensor, apply, apply_all};
use sinter_runtime::op::Axes;
use sinter_runtime::{Op, Scalar, Shape};
use smallvec::SmallVec;

/// Extents as a person writes them: one number, an array, a slice or a vector;
/// where it says so, one of them may be -1.
pub trait IntoDims {
    #[doc(hidden)]
    fn into_dims(self) -> SmallVec<[i64; 5]>;
}

macro_rules! into_dims {
    ($($t:ty),*) => {$(
        impl IntoDims for $t {
            fn into_dims(self) -> SmallVec<[i64; 5]> {
                [self].as_slice().into_dims()
            }
        }
        impl IntoDims for &[$t] {
            fn into_dims(self) -> SmallVec<[i64; 5]> {
                self.iter().map(|&d| i64::try_from(d).unwrap_or(i64::MAX)).collect()
            }
        }
        impl<const N: usize> IntoDims for [$t; N] {
            fn into_dims(self) -> SmallVec<[i64; 5]> {
                self.as_slice().into_dims()
            }
        }
        impl IntoDims for Vec<$t> {
            fn into_dims(self) -> SmallVec<[i64; 5]> {
                self.as_slice().into_dims()
            }
        }
        impl IntoDims for &Vec<$t> {
            fn into_dims(self) -> SmallVec<[i64; 5]> {
                self.as_slice().into_dims()
            }
        }
    )*};
}
into_dims!(usize, i64, i32);

impl IntoDims for () {
    fn into_dims(self) -> SmallVec<[i64; 5]> {
        SmallVec::new()
    }
}

impl IntoDims for Shape {
    fn into_dims(self) -> SmallVec<[i64; 5]> {
        self.as_slice().into_dims()
    }
}

/// Extents without -1.
#[track_caller]
pub(crate) fn sizes(op: &str, dims: impl IntoDims) -> Shape {
    let dims = dims.into_dims();
    // A loop: a panic in a closure would name its line, not the caller's.
    if let Some(d) = dims.iter().find(|d| **d < 0) {
        panic!("{op}: extent {d} of {dims:?} is negative");
    }
    dims.iter().map(|&d| d as usize).collect()
}

/// Methods that take a tensor without dimensions as one of one element, as PyTorch's
/// do; [`apply`] does the rest.
const ALONG: &[&str] = &[
    "sum",
    "prod",
    "mean",
    "var",
    "amax",
    "amin",
    "any",
    "all",
    "argmax",
    "argmin",
    "cumsum",
    "cumprod",
    "cummax",
    "cummin",
    "logcumsumexp",
    "softmax",
    "log_softmax",
    "sort",
    "topk",
    "gather",
    "scatter",
    "scatter_add",
    "index_add",
    "index_select",
    "std",
    "var_mean",
    "std_mean",
    "aminmax",
    "logsumexp",
    "nanmean",
    "norm",
    "scatter_reduce",
    "index_copy",
    "index_fill",
];

/// The axis that `dim` names in `rank` dimensions, if there is one.
pub(crate) fn find_axis(op: &str, dim: i64, rank: usize) -> Option<usize> {
    let r = rank as i64;
    if dim >= -r && dim < r {
        return Some((if dim < 0 { dim + r } else { dim }) as usize);
    }
    // Where an op works along a dimension, a number is a vector of one element.
    (rank == 0 && (dim == 0 || dim == -1) && ALONG.contains(&op)).then_some(0)
}

/// The axis that `dim` names in `rank` dimensions.
#[track_caller]
pub(crate) fn resolve(op: &str, dim: i64, rank: usize) -> usize {
    match find_axis(op, dim, rank) {
        Some(axis) => axis,
        None => panic!("{op}: dimension {dim} does not exist in a tensor of {rank} dimension(s)"),
    }
}

impl Tensor {
    /// The axes that `dims` name.
    #[track_caller]
    pub(crate) fn axes(&self, op: &str, dims: impl IntoDims) -> Axes {
        let mut axes = Axes::new();
        for d in dims.into_dims() {
            axes.push(self.axis(op, d));
        }
        axes
    }

    /// The same elements in another shape; one extent may be -1 and is found out.
    /// Shares memory where strides can express it.
    ///
    /// ```
    /// use sinter::arange;
    /// assert_eq!(arange(0, 6, 1).reshape([2, -1]).shape(), [2, 3]);
    /// ```
    #[track_caller]
    pub fn reshape(&self, shape: impl IntoDims) -> Tensor {
        let dims = shape.into_dims();
        let known: i64 = dims.iter().filter(|&&d| d != -1).product();
        let unknown = dims.iter().filter(|&&d| d == -1).count();
        let n = self.numel() as i64;
        let fits = match unknown {
            0 => known == n,
            1 => known != 0 && n % known == 0,
            _ => false,
        };
        if !fits || dims.iter().any(|&d| d < -1) {
            panic!("reshape: shape {:?} cannot become {dims:?}", self.shape());
        }
        let shape: Shape =
            dims.iter().map(|&d| (if d == -1 { n / known } else { d }) as usize).collect();
        apply(Op::Reshape { shape }, &[self])
    }

    /// Dimensions `start` to `end` (included) made one.
    #[track_caller]
    pub fn flatten(&self, start: i64, end: i64) -> Tensor {
        if self.rank() == 0 {
            return self.reshape([1]);
        }
        let (s, e) = (self.axis("flatten", start), self.axis("flatten", end));
        if s > e {
            panic!("flatten: dimension {start} comes after {end}");
        }
        let mut shape: Shape = self.shape()[..s].into();
        shape.push(self.shape()[s..=e].iter().product());
        shape.extend_from_slice(&self.shape()[e + 1..]);
        apply(Op::Reshape { shape }, &[self])
    }

    /// Dimensions in another order.
    #[track_caller]
    pub fn permute(&self, dims: impl IntoDims) -> Tensor {
        let perm = self.axes("permute", dims);
        apply(Op::Permute { perm }, &[self])
    }

    /// Two dimensions exchanged.
    #[track_caller]
    pub fn transpose(&self, a: i64, b: i64) -> Tensor {
        if self.rank() == 0 && [a, b].iter().all(|d| [-1, 0].contains(d)) {
            return apply(Op::Permute { perm: Axes::new() }, &[self]);
        }
        let (a, b) = (self.axis("transpose", a), self.axis("transpose", b));
        let mut perm: Axes = (0..self.rank()).collect();
        perm.swap(a, b);
        apply(Op::Permute { perm }, &[self])
    }

    /// Dimension `from` moved to place `to`; the others keep their order.
    #[track_caller]
    pub fn movedim(&self, from: i64, to: i64) -> Tensor {
        let (from, to) = (self.axis("movedim", from), self.axis("movedim", to));
        let mut perm: Axes = (0..self.rank()).collect();
        perm.remove(from);
        perm.insert(to, from);
        apply(Op::Permute { perm }, &[self])
    }

    /// A matrix transposed.
    #[track_caller]
    pub fn t(&self) -> Tensor {
        if self.rank() != 2 {
            panic!("t: needs a matrix, the shape is {:?}; see `transpose`", self.shape());
        }
        self.transpose(0, 1)
    }

    /// Without dimension `dim`, whose extent must be 1.
    #[track_caller]
    pub fn squeeze(&self, dim: i64) -> Tensor {
        let axis = self.axis("squeeze", dim);
        if self.shape()[axis] != 1 {
            panic!("squeeze: dimension {dim} of {:?} is not 1", self.shape());
        }
        let mut shape: Shape = self.shape().into();
        shape.remove(axis);
        apply(Op::Reshape { shape }, &[self])
    }

    /// With a new dimension of extent 1 before `dim`; negative counts from the
    /// end of the result.
    #[track_caller]
    pub fn unsqueeze(&self, dim: i64) -> Tensor {
        let axis = resolve("unsqueeze", dim, self.rank() + 1);
        let mut shape: Shape = self.shape().into();
        shape.insert(axis, 1);
        apply(Op::Reshape { shape }, &[self])
    }

    /// Repeated without copying to a larger shape; -1 keeps an extent.
    #[track_caller]
    pub fn broadcast_to(&self, shape: impl IntoDims) -> Tensor {
        let dims = shape.into_dims();
        let lead = dims.len().saturating_sub(self.rank());
        let keep = |i: usize| i.checked_sub(lead).map(|j| self.shape()[j]);
        let mut shape = Shape::new();
        for (i, &d) in dims.iter().enumerate() {
            shape.push(match (usize::try_from(d), keep(i)) {
                (Ok(d), _) => d,
                (Err(_), Some(own)) if d == -1 => own,
                _ => panic!("broadcast_to: bad extent {d} in {dims:?}"),
            });
        }
        if shape.as_slice() == self.shape() {
            return self.clone();
        }
        apply(Op::Broadcast { shape }, &[self])
    }

    /// `len` elements of dimension `dim` from `start` on.
    #[track_caller]
    pub fn narrow(&self, dim: i64, start: usize, len: usize) -> Tensor {
        let axis = self.axis("narrow", dim);
        apply(Op::Slice { axis, start, len, step: 1 }, &[self])
    }

    /// Every `step`-th element of dimension `dim` from `start` up to `end`
    /// (excluded).
    #[track_caller]
    pub fn slice(&self, dim: i64, start: usize, end: usize, step: usize) -> Tensor {
        let axis = self.axis("slice", dim);
        let len = end.saturating_sub(start).div_ceil(step.max(1));
        apply(Op::Slice { axis, start, len, step }, &[self])
    }

    /// Element `index` of dimension `dim`, which goes away; negative counts from
    /// the end.
    #[track_caller]
    pub fn select(&self, dim: i64, index: i64) -> Tensor {
        let axis = self.axis("select", dim);
        let n = self.shape()[axis] as i64;
        if index < -n || index >= n {
            panic!("select: index {index} is out of range for dimension {dim} of size {n}");
        }
        let start = (if index < 0 { index + n } else { index }) as usize;
        apply(Op::Slice { axis, start, len: 1, step: 1 }, &[self]).squeeze(axis as i64)
    }

    /// Reversed along dimensions.
    #[track_caller]
    pub fn flip(&self, dims: impl IntoDims) -> Tensor {
        let axes = self.axes("flip", dims);
        apply(Op::Flip { axes }, &[self])
    }

    /// Cut along `dim` into pieces of `size`, the last possibly smaller.
    #[track_caller]
    pub fn split(&self, size: usize, dim: i64) -> Vec<Tensor> {
        let n = self.size(dim);
        if size == 0 {
            panic!("split: the size of a piece is 0");
        }
        (0..n.div_ceil(size).max(1))
            .map(|i| self.narrow(dim, i * size, size.min(n - i * size)))
            .collect()
    }

    /// Cut along `dim` into `n` pieces of equal size, the last possibly smaller.
    #[track_caller]
    pub fn chunk(&self, n: usize, dim: i64) -> Vec<Tensor> {
        self.split(self.size(dim).div_ceil(n.max(1)).max(1), dim)
    }

    /// The slices along `dim`, without it.
    #[track_caller]
    pub fn unbind(&self, dim: i64) -> Vec<Tensor> {
        (0..self.size(dim)).map(|i| self.select(dim, i as i64)).collect()
    }

    /// `value` added around: `(before, after)` for each dimension.
    #[track_caller]
    pub fn pad(&self, widths: &[(usize, usize)], value: impl Into<Scalar>) -> Tensor {
        let low = widths.iter().map(|w| w.0).collect();
        let high = widths.iter().map(|w| w.1).collect();
        apply(Op::Pad { low, high, value: value.into() }, &[self])
    }

    /// Tiled `times` over; new dimensions come in front.
    #[track_caller]
    pub fn repeat(&self, times: impl IntoDims) -> Tensor {
        let times = sizes("repeat", times);
        if times.len() < self.rank() {
            panic!("repeat: {times:?} names fewer dimensions than {:?} has", self.shape());
        }
        let lead = times.len() - self.rank();
        let mut own: Shape = SmallVec::from_elem(1, lead);
        own.extend_from_slice(self.shape());
        // [t0, n0, t1, n1, …] by broadcasting, then merged pairwise.
        let spread: Shape = own.iter().flat_map(|&n| [1, n]).collect();
        let wide: Shape = times.iter().zip(&own).flat_map(|(&t, &n)| [t, n]).collect();
        let out: Shape = times.iter().zip(&own).map(|(&t, &n)| t * n).collect();
        self.reshape(spread).broadcast_to(wide).reshape(out)
    }

    /// Dense memory in row-major order: the tensor itself when it has it.
    #[track_caller]
    pub fn contiguous(&self) -> Tensor {
        if !self.has_data() || self.is_contiguous() { self.clone() } else { self.copy() }
    }

    /// A copy in memory of its own; gradients flow through.
    #[track_caller]
    pub fn copy(&self) -> Tensor {
        // Multiplying truth values or indices by one is no copy; concatenating is.
        if self.rank() == 0 {
            return apply(Op::Concat { axis: 0 }, &[&self.at_least_1d()]).reshape(());
        }
        apply(Op::Concat { axis: 0 }, &[self])
    }

    fn at_least_1d(&self) -> Tensor {
        if self.rank() == 0 { self.unsqueeze(0) } else { self.clone() }
    }

    /// Sorted along `dim`, equals in their old order: values and i64 indices.
    /// NaN counts as the largest.
    #[track_caller]
    pub fn sort(&self, dim: i64, descending: bool) -> (Tensor, Tensor) {
        let mut out =
            apply_all(Op::Sort { axis: self.axis("sort", dim), descending }, &[self]).into_iter();
        pair(&mut out)
    }

    /// The i64 indices that sort along `dim`.
    #[track_caller]
    pub fn argsort(&self, dim: i64, descending: bool) -> Tensor {
        crate::no_grad(|| self.sort(dim, descending)).1
    }

    /// The `k` largest (or smallest) along `dim`, in order: values and i64 indices.
    #[track_caller]
    pub fn topk(&self, k: usize, dim: i64, largest: bool) -> (Tensor, Tensor) {
        let axis = self.axis("topk", dim);
        let mut out = apply_all(Op::TopK { k, axis, largest }, &[self]).into_iter();
        pair(&mut out)
    }
}

fn pair(it: &mut impl Iterator<Item = Tensor>) -> (Tensor, Tensor) {
    match (it.next(), it.next()) {
        (Some(a), Some(b)) => (a, b),
        _ => unreachable!("sorting gives values and indices"),
    }
}

/// Tensors joined along an existing dimension, in the type they meet in.
///
/// # Panics
/// If there are none, or they differ in another dimension.
#[track_caller]
pub fn cat(tensors: &[&Tensor], dim: i64) -> Tensor {
    let Some(first) = tensors.first() else { panic!("cat: there are no tensors to join") };
    concat(first.axis("cat", dim), tensors)
}

#[track_caller]
fn concat(axis: usize, tensors: &[&Tensor]) -> Tensor {
    let first = tensors[0].dtype();
    if tensors.iter().all(|t| t.dtype() == first) {
        return apply(Op::Concat { axis }, tensors);
    }
    let dtype = tensors.iter().fold(first, |d, t| d.promote(t.dtype()));
    let mut parts = Vec::with_capacity(tensors.len());
    for t in tensors {
        parts.push(t.to_dtype(dtype));
    }
    apply(Op::Concat { axis }, &parts.iter().collect::<Vec<_>>())
}

/// Tensors of one shape joined along a new dimension, in the type they meet in.
///
/// # Panics
/// If there are none, or they differ in shape.
#[track_caller]
pub fn stack(tensors: &[&Tensor], dim: i64) -> Tensor {
    let Some(first) = tensors.first() else { panic!("stack: there are no tensors to join") };
    let axis = resolve("stack", dim, first.rank() + 1);
    if let Some(other) = tensors.iter().find(|t| t.shape() != first.shape()) {
        panic!("stack: shapes {:?} and {:?} differ", first.shape(), other.shape());
    }
    let parts: Vec<Tensor> = tensors.iter().map(|t| t.unsqueeze(axis as i64)).collect();
    concat(axis, &parts.iter().collect::<Vec<_>>())
}
