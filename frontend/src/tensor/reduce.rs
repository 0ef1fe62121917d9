//! Reductions, scans, and matrix products.

use super::layout::IntoDims;
use super::{Tensor, apply};
use sinter_runtime::op::{Act, ArgKind, ReduceKind, ScanKind};
use sinter_runtime::{DType, Op};

/// Dimensions to reduce: one number or several; negative counts from the end.
pub trait IntoAxes: IntoDims {}
impl<T: IntoDims> IntoAxes for T {}

impl Tensor {
    #[track_caller]
    fn reduce(&self, op: &str, kind: ReduceKind, dims: impl IntoAxes, keep: bool) -> Tensor {
        let axes = self.axes(op, dims);
        apply(Op::Reduce { kind, axes, keep }, &[self])
    }

    #[track_caller]
    fn reduce_all(&self, kind: ReduceKind) -> Tensor {
        apply(Op::Reduce { kind, axes: (0..self.rank()).collect(), keep: false }, &[self])
    }

    /// Sum of all elements. Integers and bool add up in i64; f32 sums are
    /// pairwise: the error grows with the logarithm of their number.
    #[track_caller]
    pub fn sum(&self) -> Tensor {
        self.reduce_all(ReduceKind::Sum)
    }

    /// Sum over dimensions, which stay as ones when `keep`.
    #[track_caller]
    pub fn sum_dim(&self, dims: impl IntoAxes, keep: bool) -> Tensor {
        self.reduce("sum", ReduceKind::Sum, dims, keep)
    }

    /// Product of all elements.
    #[track_caller]
    pub fn prod(&self) -> Tensor {
        self.reduce_all(ReduceKind::Prod)
    }

    /// Product over dimensions.
    #[track_caller]
    pub fn prod_dim(&self, dims: impl IntoAxes, keep: bool) -> Tensor {
        self.reduce("prod", ReduceKind::Prod, dims, keep)
    }

    /// Mean of all elements.
    #[track_caller]
    pub fn mean(&self) -> Tensor {
        self.mean_dim(self.all_axes(), false)
    }

    /// Mean over dimensions.
    #[track_caller]
    pub fn mean_dim(&self, dims: impl IntoAxes, keep: bool) -> Tensor {
        let axes = self.axes("mean", dims);
        let n: usize = axes.iter().map(|&a| self.extent(a)).product();
        let sum = self.as_float("mean").wide().sum_dim(axes.as_slice(), keep);
        (sum * (1.0 / n as f64)).to_dtype(self.dtype())
    }

    /// The extent of an axis; 1 where a number stands for a vector.
    pub(super) fn extent(&self, axis: usize) -> usize {
        self.shape().get(axis).copied().unwrap_or(1)
    }

    #[track_caller]
    fn as_float(&self, op: &str) -> Tensor {
        if !self.dtype().is_differentiable() {
            panic!(
                "{op}: needs a floating-point tensor, this is {}; convert it with `to_dtype`",
                self.dtype()
            );
        }
        self.clone()
    }

    /// Variance over dimensions; the divisor is the count less `correction` (1
    /// for the unbiased estimate). Of complex numbers it is that of the distance from
    /// their mean, which is real.
    #[track_caller]
    pub fn var_dim(&self, dims: impl IntoAxes, correction: usize, keep: bool) -> Tensor {
        let axes = self.axes("var", dims);
        self.wide_var("var", &axes, correction, keep).to_dtype(self.dtype().real())
    }

    /// The variance before it is rounded to half precision.
    #[track_caller]
    fn wide_var(&self, op: &str, axes: &[usize], correction: usize, keep: bool) -> Tensor {
        let n: usize = axes.iter().map(|&a| self.extent(a)).product();
        let x = self.as_float(op).wide();
        let d = &x - x.mean_dim(axes, true);
        let d = if x.is_complex() { d.abs() } else { d };
        d.square().sum_dim(axes, keep) * (1.0 / (n as f64 - correction as f64).max(0.0))
    }

    /// Standard deviation over dimensions, the root of [`var_dim`](Tensor::var_dim).
    #[track_caller]
    pub fn std_dim(&self, dims: impl IntoAxes, correction: usize, keep: bool) -> Tensor {
        let axes = self.axes("std", dims);
        self.wide_var("std", &axes, correction, keep).sqrt().to_dtype(self.dtype().real())
    }

    /// Unbiased variance of all elements.
    #[track_caller]
    pub fn var(&self) -> Tensor {
        let all: Vec<i64> = (0..self.rank() as i64).collect();
        self.var_dim(all, 1, false)
    }

    /// Unbiased standard deviation of all elements.
    #[track_caller]
    pub fn std(&self) -> Tensor {
        self.std_dim(self.all_axes(), 1, false)
    }

    /// Largest element.
    #[track_caller]
    pub fn max(&self) -> Tensor {
        self.reduce_all(ReduceKind::Max)
    }

    /// Smallest element.
    #[track_caller]
    pub fn min(&self) -> Tensor {
        self.reduce_all(ReduceKind::Min)
    }

    /// Largest over dimensions; equal ones share the gradient.
    #[track_caller]
    pub fn amax(&self, dims: impl IntoAxes, keep: bool) -> Tensor {
        self.reduce("amax", ReduceKind::Max, dims, keep)
    }

    /// Smallest over dimensions; equal ones share the gradient.
    #[track_caller]
    pub fn amin(&self, dims: impl IntoAxes, keep: bool) -> Tensor {
        self.reduce("amin", ReduceKind::Min, dims, keep)
    }

    /// Whether any element is true (not zero).
    #[track_caller]
    pub fn any(&self) -> Tensor {
        self.reduce_all(ReduceKind::Any)
    }

    /// Whether all elements are true (not zero).
    #[track_caller]
    pub fn all(&self) -> Tensor {
        self.reduce_all(ReduceKind::All)
    }

    /// Whether any is true, over dimensions.
    #[track_caller]
    pub fn any_dim(&self, dims: impl IntoAxes, keep: bool) -> Tensor {
        self.reduce("any", ReduceKind::Any, dims, keep)
    }

    /// Whether all are true, over dimensions.
    #[track_caller]
    pub fn all_dim(&self, dims: impl IntoAxes, keep: bool) -> Tensor {
        self.reduce("all", ReduceKind::All, dims, keep)
    }

    /// Index of the largest element in row-major order.
    #[track_caller]
    pub fn argmax(&self) -> Tensor {
        self.reshape([-1]).argmax_dim(0, false)
    }

    /// Index of the smallest element in row-major order.
    #[track_caller]
    pub fn argmin(&self) -> Tensor {
        self.reshape([-1]).argmin_dim(0, false)
    }

    /// Index of the largest along `dim`, the first of equals.
    #[track_caller]
    pub fn argmax_dim(&self, dim: i64, keep: bool) -> Tensor {
        let axis = self.axis("argmax", dim);
        apply(Op::ArgReduce { kind: ArgKind::Max, axis, keep }, &[self])
    }

    /// Index of the smallest along `dim`, the first of equals.
    #[track_caller]
    pub fn argmin_dim(&self, dim: i64, keep: bool) -> Tensor {
        let axis = self.axis("argmin", dim);
        apply(Op::ArgReduce { kind: ArgKind::Min, axis, keep }, &[self])
    }

    /// Largest along `dim`, and its i64 index: the first of equals, to which the
    /// gradient goes.
    #[track_caller]
    pub fn max_dim(&self, dim: i64, keep: bool) -> (Tensor, Tensor) {
        self.picked(dim, keep, self.argmax_dim(dim, true))
    }

    /// Smallest along `dim`, and its i64 index: the first of equals, to which the
    /// gradient goes.
    #[track_caller]
    pub fn min_dim(&self, dim: i64, keep: bool) -> (Tensor, Tensor) {
        self.picked(dim, keep, self.argmin_dim(dim, true))
    }

    #[track_caller]
    fn picked(&self, dim: i64, keep: bool, index: Tensor) -> (Tensor, Tensor) {
        let value = self.gather(dim, &index);
        let whole = keep || self.rank() == 0;
        if whole { (value, index) } else { (value.squeeze(dim), index.squeeze(dim)) }
    }

    /// Euclidean norm of all elements.
    #[track_caller]
    pub fn norm(&self) -> Tensor {
        self.norm_p(2.0)
    }

    /// `ln Σ e^x` over dimensions, without overflow.
    #[track_caller]
    pub fn logsumexp(&self, dims: impl IntoAxes, keep: bool) -> Tensor {
        let axes = self.axes("logsumexp", dims);
        let dims = axes.as_slice();
        let x = self.wide();
        if axes.iter().any(|&a| x.extent(a) == 0) {
            return x.sum_dim(dims, keep).ln().to_dtype(self.float_dtype());
        }
        // Shifting by an infinite maximum would give NaN.
        let m = x.detach().amax(dims, true);
        let m = m.isfinite().where_(&m, 0.0);
        let s = (&x - &m).exp().sum_dim(dims, true).ln() + m;
        let s = s.to_dtype(self.float_dtype());
        if keep || self.rank() == 0 { s } else { s.squeeze_dims(dims) }
    }

    /// Running sum along `dim`.
    #[track_caller]
    pub fn cumsum(&self, dim: i64) -> Tensor {
        let axis = self.axis("cumsum", dim);
        apply(Op::Scan { kind: ScanKind::Sum, axis, reverse: false }, &[self])
    }

    /// Running product along `dim`.
    #[track_caller]
    pub fn cumprod(&self, dim: i64) -> Tensor {
        let axis = self.axis("cumprod", dim);
        apply(Op::Scan { kind: ScanKind::Prod, axis, reverse: false }, &[self])
    }

    /// Matrix product over the last two dimensions; leading ones broadcast. A
    /// vector stands for a row on the left and for a column on the right.
    ///
    /// ```
    /// use sinter::{ones, tensor};
    /// let m = tensor([[1.0f32, 2.0], [3.0, 4.0]]);
    /// assert_eq!(m.matmul(&ones([2])).to_vec::<f32>(), [3.0, 7.0]);
    /// ```
    #[track_caller]
    pub fn matmul(&self, other: &Tensor) -> Tensor {
        if self.rank() == 0 || other.rank() == 0 {
            panic!(
                "matmul: needs vectors or matrices, got {:?} and {:?}",
                self.shape(),
                other.shape()
            );
        }
        let dtype = self.dtype().promote(other.dtype());
        let (a, b) = (self.to_dtype(dtype), other.to_dtype(dtype));
        let (va, vb) = (a.rank() == 1, b.rank() == 1);
        let a = if va { a.unsqueeze(0) } else { a };
        let b = if vb { b.unsqueeze(1) } else { b };
        let c = apply(Op::MatMul { act: Act::None }, &[&a, &b]);
        let c = if vb { c.squeeze(-1) } else { c };
        if va { c.squeeze(if vb { -1 } else { -2 }) } else { c }
    }

    /// Product of two vectors.
    #[track_caller]
    pub fn dot(&self, other: &Tensor) -> Tensor {
        if self.rank() != 1 || other.rank() != 1 {
            panic!("dot: needs two vectors, got {:?} and {:?}", self.shape(), other.shape());
        }
        self.matmul(other)
    }

    /// Every product of an element of one vector and one of the other: [n, m].
    #[track_caller]
    pub fn outer(&self, other: &Tensor) -> Tensor {
        if self.rank() != 1 || other.rank() != 1 {
            panic!("outer: needs two vectors, got {:?} and {:?}", self.shape(), other.shape());
        }
        self.unsqueeze(1) * other.unsqueeze(0)
    }

    /// The indices of elements that are not zero: [number, rank], in row-major order.
    ///
    /// # Panics
    /// While tracing: how many there are depends on values.
    #[track_caller]
    pub fn nonzero(&self) -> Tensor {
        let truth = self.to_dtype(DType::Bool).to_vec::<u8>();
        let rank = self.rank();
        let mut found: Vec<i64> = Vec::new();
        for (mut at, _) in truth.iter().enumerate().filter(|(_, t)| **t != 0) {
            let start = found.len();
            found.resize(start + rank, 0);
            for (index, &n) in found[start..].iter_mut().zip(self.shape()).rev() {
                *index = (at % n) as i64;
                at /= n;
            }
        }
        let number = truth.iter().filter(|t| **t != 0).count();
        super::from_slice(&found, [number, rank])
    }

    /// The elements where `mask` is true, in row-major order, as a vector. The mask
    /// has the shape of the tensor.
    ///
    /// # Panics
    /// If the shapes differ; and while tracing: how many there are depends on values.
    #[track_caller]
    pub fn masked_select(&self, mask: &Tensor) -> Tensor {
        if mask.dtype() != DType::Bool {
            panic!("masked_select: the mask is {} {:?}, expected bool", mask.dtype(), mask.shape());
        }
        let [x, mask] = [0, 1].map(|i| super::broadcast_tensors(&[self, mask]).swap_remove(i));
        let at = mask.reshape([-1]).nonzero().reshape([-1]);
        x.reshape([-1]).index_select(0, &at)
    }

    /// Whether shapes are equal and elements within `atol + rtol |other|`; NaN is
    /// close to nothing.
    #[track_caller]
    pub fn allclose(&self, other: &Tensor, rtol: f64, atol: f64) -> bool {
        if self.shape() != other.shape() {
            return false;
        }
        let dtype = self.dtype().promote(other.dtype());
        let (a, b) = (self.to_dtype(dtype), other.to_dtype(dtype));
        a.isclose(&b, rtol, atol, false).all().item_scalar().as_bool()
    }

    /// Slabs of dimension `dim` picked by a 1-d i64 index.
    #[track_caller]
    pub fn index_select(&self, dim: i64, index: &Tensor) -> Tensor {
        let axis = self.axis("index_select", dim);
        apply(Op::IndexSelect { axis }, &[self, &index.to_dtype(DType::I64)])
    }

    /// For each element of `index`, the element of this tensor with that index
    /// along `dim` and the same other coordinates.
    #[track_caller]
    pub fn gather(&self, dim: i64, index: &Tensor) -> Tensor {
        apply(Op::Gather { axis: self.axis("gather", dim) }, &[self, &index.to_dtype(DType::I64)])
    }

    /// A copy with `values` put where `index` says along `dim`.
    #[track_caller]
    pub fn scatter(&self, dim: i64, index: &Tensor, values: &Tensor) -> Tensor {
        let op = Op::Scatter {
            axis: self.axis("scatter", dim),
            kind: sinter_runtime::op::ScatterKind::Set,
        };
        apply(op, &[self, &index.to_dtype(DType::I64), values])
    }

    /// A copy with `values` added where `index` says along `dim`.
    #[track_caller]
    pub fn scatter_add(&self, dim: i64, index: &Tensor, values: &Tensor) -> Tensor {
        let op = Op::Scatter {
            axis: self.axis("scatter_add", dim),
            kind: sinter_runtime::op::ScatterKind::Add,
        };
        apply(op, &[self, &index.to_dtype(DType::I64), values])
    }

    /// A copy with the slabs of `values` added to those that a 1-d `index` names.
    #[track_caller]
    pub fn index_add(&self, dim: i64, index: &Tensor, values: &Tensor) -> Tensor {
        apply(
            Op::IndexAdd { axis: self.axis("index_add", dim) },
            &[self, &index.to_dtype(DType::I64), values],
        )
    }

    /// `e^x / Σ e^x` along `dim`.
    #[track_caller]
    pub fn softmax(&self, dim: i64) -> Tensor {
        let axis = self.axis("softmax", dim);
        apply(Op::Softmax { axis, log: false }, &[self])
    }

    /// The logarithm of [`softmax`](Tensor::softmax), without losing small ones.
    #[track_caller]
    pub fn log_softmax(&self, dim: i64) -> Tensor {
        let axis = self.axis("log_softmax", dim);
        apply(Op::Softmax { axis, log: true }, &[self])
    }
}
