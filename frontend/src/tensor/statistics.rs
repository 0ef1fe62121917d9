//! Reductions and running results that are made of others.

use super::layout::IntoDims;
use super::reduce::IntoAxes;
use super::{Tensor, apply, apply_all, cat, ones_like};
use sinter_runtime::op::ScanKind;
use sinter_runtime::{DType, Op};

impl Tensor {
    /// All dimensions.
    pub(super) fn all_axes(&self) -> Vec<i64> {
        (0..self.rank() as i64).collect()
    }

    /// NaN as `value`, through which no gradient flows.
    #[track_caller]
    fn without_nan(&self, value: f64) -> Tensor {
        if self.dtype().is_float() { self.masked_fill(&self.isnan(), value) } else { self.clone() }
    }

    /// Sum of all elements that are not NaN.
    #[track_caller]
    pub fn nansum(&self) -> Tensor {
        self.without_nan(0.0).sum()
    }

    /// Sum over dimensions of the elements that are not NaN.
    #[track_caller]
    pub fn nansum_dim(&self, dims: impl IntoAxes, keep: bool) -> Tensor {
        self.without_nan(0.0).sum_dim(dims, keep)
    }

    /// Mean of all elements that are not NaN.
    #[track_caller]
    pub fn nanmean(&self) -> Tensor {
        self.nanmean_dim(self.all_axes(), false)
    }

    /// Mean over dimensions of the elements that are not NaN.
    #[track_caller]
    pub fn nanmean_dim(&self, dims: impl IntoAxes, keep: bool) -> Tensor {
        let axes = self.axes("nanmean", dims);
        let x = self.wide();
        let count = x.isnan().logical_not().sum_dim(axes.as_slice(), keep);
        let mean = x.nansum_dim(axes.as_slice(), keep) / count.to_dtype(x.dtype());
        mean.to_dtype(self.float_dtype())
    }

    /// How many elements are not zero.
    #[track_caller]
    pub fn count_nonzero(&self) -> Tensor {
        self.detach().to_bool().sum()
    }

    /// How many elements over dimensions are not zero.
    #[track_caller]
    pub fn count_nonzero_dim(&self, dims: impl IntoAxes) -> Tensor {
        self.detach().to_bool().sum_dim(dims, false)
    }

    /// The smallest and the largest element.
    #[track_caller]
    pub fn aminmax(&self) -> (Tensor, Tensor) {
        (self.min(), self.max())
    }

    /// The smallest and the largest element over dimensions.
    #[track_caller]
    pub fn aminmax_dim(&self, dims: impl IntoAxes, keep: bool) -> (Tensor, Tensor) {
        let axes = self.axes("aminmax", dims);
        (self.amin(axes.as_slice(), keep), self.amax(axes.as_slice(), keep))
    }

    /// Variance and mean over dimensions, as [`var_dim`](Tensor::var_dim).
    #[track_caller]
    pub fn var_mean_dim(
        &self,
        dims: impl IntoAxes,
        correction: usize,
        keep: bool,
    ) -> (Tensor, Tensor) {
        let axes = self.axes("var_mean", dims);
        let dims = axes.as_slice();
        (self.var_dim(dims, correction, keep), self.mean_dim(dims, keep))
    }

    /// Standard deviation and mean over dimensions, as [`std_dim`](Tensor::std_dim).
    #[track_caller]
    pub fn std_mean_dim(
        &self,
        dims: impl IntoAxes,
        correction: usize,
        keep: bool,
    ) -> (Tensor, Tensor) {
        let axes = self.axes("std_mean", dims);
        let dims = axes.as_slice();
        (self.std_dim(dims, correction, keep), self.mean_dim(dims, keep))
    }

    /// Unbiased variance and mean of all elements.
    #[track_caller]
    pub fn var_mean(&self) -> (Tensor, Tensor) {
        self.var_mean_dim(self.all_axes(), 1, false)
    }

    /// Unbiased standard deviation and mean of all elements.
    #[track_caller]
    pub fn std_mean(&self) -> (Tensor, Tensor) {
        self.std_mean_dim(self.all_axes(), 1, false)
    }

    /// The `p`-norm of all elements: `(Σ |x|^p)^(1/p)`.
    #[track_caller]
    pub fn norm_p(&self, p: f64) -> Tensor {
        self.norm_dim(p, self.all_axes(), false)
    }

    /// The `p`-norm over dimensions: `(Σ |x|^p)^(1/p)`; of infinite `p` the extreme
    /// modulus, of 0 the number of elements that are not zero. Its derivative at zero is
    /// taken to be zero.
    ///
    /// ```
    /// use sinter::tensor;
    /// let x = tensor([[3.0f32, -4.0], [0.0, 2.0]]);
    /// assert_eq!(x.norm_dim(2.0, 1, false).to_vec::<f32>(), [5.0, 2.0]);
    /// assert_eq!(x.norm_dim(f64::INFINITY, 1, false).to_vec::<f32>(), [4.0, 2.0]);
    /// ```
    ///
    /// # Panics
    /// If the tensor is not of a float type, or an extreme of nothing is asked for.
    #[track_caller]
    pub fn norm_dim(&self, p: f64, dims: impl IntoAxes, keep: bool) -> Tensor {
        if self.is_complex() {
            return self.abs().norm_dim(p, dims, keep);
        }
        if !self.dtype().is_float() {
            panic!("norm: needs a floating-point tensor, this is {}", self.dtype());
        }
        let axes = self.axes("norm", dims);
        let dims = axes.as_slice();
        if self.dtype().is_half() {
            return self.wide().norm_dim(p, dims, keep).to_dtype(self.dtype());
        }
        if axes.is_empty() {
            return if p == 0.0 { self.ne(0.0).to_dtype(self.dtype()) } else { self.abs() };
        }
        if p == f64::INFINITY {
            self.abs().amax(dims, keep)
        } else if p == f64::NEG_INFINITY {
            self.abs().amin(dims, keep)
        } else if p == 0.0 {
            self.ne(0.0).sum_dim(dims, keep).to_dtype(self.dtype())
        } else if p == 1.0 {
            self.abs().sum_dim(dims, keep)
        } else if p == 2.0 {
            self.square().sum_dim(dims, keep).root(0.5)
        } else if p < 0.0 {
            // 0 to a negative power is infinite, and so is the sum: no zeros to mind.
            self.abs().powf(p).sum_dim(dims, keep).powf(1.0 / p)
        } else {
            let x = self.abs();
            let zero = x.eq(0.0);
            let powers = zero.where_(&ones_like(&x), &x).powf(p).kept_where(&zero.logical_not());
            powers.sum_dim(dims, keep).root(1.0 / p)
        }
    }

    /// To a power below one, with derivative zero at zero.
    #[track_caller]
    fn root(&self, power: f64) -> Tensor {
        let zero = self.eq(0.0);
        if !self.requires_grad() {
            return self.powf(power);
        }
        let root = zero.where_(&ones_like(self), self).powf(power);
        root.kept_where(&zero.logical_not())
    }

    /// The `p`-norm of the difference.
    #[track_caller]
    pub fn dist(&self, other: &Tensor, p: f64) -> Tensor {
        (self - other).norm_p(p)
    }

    /// The slabs of `dim` whose `p`-norm exceeds `max`, scaled down to it.
    #[track_caller]
    pub fn renorm(&self, p: f64, dim: i64, max: f64) -> Tensor {
        let axis = self.axis("renorm", dim) as i64;
        let others: Vec<i64> = self.all_axes().into_iter().filter(|&d| d != axis).collect();
        let norm = self.norm_dim(p, others, true);
        // The small number is PyTorch's.
        let factor = norm.gt(max).where_(&(max / (&norm + 1e-7)), ones_like(&norm));
        self * factor
    }

    /// Largest so far along `dim`, and its index: the last of equals. From the first NaN
    /// on, NaN.
    ///
    /// ```
    /// use sinter::tensor;
    /// let (v, i) = tensor([1.0f32, 3.0, 2.0, 3.0]).cummax(0);
    /// assert_eq!((v.to_vec::<f32>(), i.to_vec::<i64>()), (vec![1.0, 3.0, 3.0, 3.0], vec![0, 1, 1, 3]));
    /// ```
    #[track_caller]
    pub fn cummax(&self, dim: i64) -> (Tensor, Tensor) {
        self.running("cummax", ScanKind::Max, dim)
    }

    /// Smallest so far along `dim`, and its index, as [`cummax`](Tensor::cummax).
    #[track_caller]
    pub fn cummin(&self, dim: i64) -> (Tensor, Tensor) {
        self.running("cummin", ScanKind::Min, dim)
    }

    #[track_caller]
    fn running(&self, op: &str, kind: ScanKind, dim: i64) -> (Tensor, Tensor) {
        if self.rank() == 0 {
            let (v, i) = self.unsqueeze(0).running(op, kind, dim);
            return (v.squeeze(0), i.squeeze(0));
        }
        let axis = self.axis(op, dim);
        let mut out = apply_all(Op::Scan { kind, axis, reverse: false }, &[self]).into_iter();
        match (out.next(), out.next()) {
            (Some(values), Some(index)) => (values, index),
            _ => unreachable!("a running extreme has values and indices"),
        }
    }

    /// `ln Σ e^x` up to each element along `dim`, without overflow.
    #[track_caller]
    pub fn logcumsumexp(&self, dim: i64) -> Tensor {
        if self.rank() == 0 {
            return self.unsqueeze(0).logcumsumexp(dim).squeeze(0);
        }
        let axis = self.axis("logcumsumexp", dim);
        apply(Op::Scan { kind: ScanKind::LogSumExp, axis, reverse: false }, &[self])
    }

    /// Differences of neighbours along `dim`, taken `n` times; of bool, whether they
    /// differ.
    #[track_caller]
    pub fn diff(&self, n: usize, dim: i64) -> Tensor {
        let mut x = self.clone();
        for _ in 0..n {
            let len = x.size(dim).saturating_sub(1);
            let start = x.size(dim).min(1);
            let (later, before) = (x.narrow(dim, start, len), x.narrow(dim, 0, len));
            x = if x.dtype() == DType::Bool { later.ne(before) } else { later - before };
        }
        x
    }

    /// [`diff`](Tensor::diff) of the tensor with others joined before and after it.
    #[track_caller]
    pub fn diff_with(
        &self,
        n: usize,
        dim: i64,
        prepend: Option<&Tensor>,
        append: Option<&Tensor>,
    ) -> Tensor {
        let parts: Vec<&Tensor> = prepend.into_iter().chain([self]).chain(append).collect();
        cat(&parts, dim).diff(n, dim)
    }

    /// The means of neighbours along `dim`, times a distance.
    #[track_caller]
    fn trapezia(&self, distance: &Distance<'_>, dim: i64) -> Tensor {
        let y = self.floating();
        let n = y.size(dim);
        let len = n.saturating_sub(1);
        let (start, axis) = (n.min(1), self.axis("trapezoid", dim));
        let sums = y.narrow(dim, start, len) + y.narrow(dim, 0, len);
        match distance {
            Distance::Constant(dx) => sums * (0.5 * dx),
            Distance::Points(x) => {
                let d = if x.rank() == 1 {
                    // One line of points for all lines.
                    let mut shape = vec![1i64; self.rank()];
                    shape[axis] = -1;
                    x.diff(1, 0).reshape(shape)
                } else {
                    x.diff(1, dim)
                };
                sums * d * 0.5
            }
        }
    }

    /// The integral along `dim` by trapezia, `dx` apart.
    #[track_caller]
    pub fn trapezoid(&self, dx: f64, dim: i64) -> Tensor {
        self.trapezia(&Distance::Constant(dx), dim).sum_dim(dim, false)
    }

    /// The integral along `dim` by trapezia at points `x`.
    #[track_caller]
    pub fn trapezoid_at(&self, x: &Tensor, dim: i64) -> Tensor {
        self.trapezia(&Distance::Points(x), dim).sum_dim(dim, false)
    }

    /// The integral up to each element but the first along `dim`, by trapezia `dx` apart.
    #[track_caller]
    pub fn cumulative_trapezoid(&self, dx: f64, dim: i64) -> Tensor {
        self.trapezia(&Distance::Constant(dx), dim).cumsum(dim)
    }

    /// [`cumulative_trapezoid`](Tensor::cumulative_trapezoid) at points `x`.
    #[track_caller]
    pub fn cumulative_trapezoid_at(&self, x: &Tensor, dim: i64) -> Tensor {
        self.trapezia(&Distance::Points(x), dim).cumsum(dim)
    }

    /// Estimates of the derivatives along dimensions, of elements `spacing` apart:
    /// central differences inside, one-sided ones of order `edge_order` (1 or 2) at the
    /// ends.
    ///
    /// # Panics
    /// If a dimension has too few elements, or the order is another.
    #[track_caller]
    pub fn gradient(&self, spacing: f64, dims: impl IntoDims, edge_order: usize) -> Vec<Tensor> {
        let mut out = Vec::new();
        for axis in self.axes("gradient", dims) {
            let n = self.shape()[axis];
            let points = super::arange(0, n as i64, 1).to_dtype(self.floating().dtype()) * spacing;
            out.push(self.derivative(&points, axis as i64, edge_order));
        }
        out
    }

    /// [`gradient`](Tensor::gradient) of elements at coordinates: a vector for each of
    /// the dimensions.
    ///
    /// # Panics
    /// As [`gradient`](Tensor::gradient), and if the coordinates do not fit.
    #[track_caller]
    pub fn gradient_at(
        &self,
        coordinates: &[&Tensor],
        dims: impl IntoDims,
        edge_order: usize,
    ) -> Vec<Tensor> {
        let axes = self.axes("gradient", dims);
        if axes.len() != coordinates.len() {
            panic!("gradient: {} coordinates for dimensions {axes:?}", coordinates.len());
        }
        let mut out = Vec::new();
        for (&axis, points) in axes.iter().zip(coordinates) {
            if points.shape() != [self.shape()[axis]] {
                panic!(
                    "gradient: coordinates {:?} for dimension {axis} of {:?}",
                    points.shape(),
                    self.shape()
                );
            }
            out.push(self.derivative(points, axis as i64, edge_order));
        }
        out
    }

    /// Second-order differences on points that need not be evenly spaced (Fornberg 1988).
    #[track_caller]
    fn derivative(&self, points: &Tensor, dim: i64, edge_order: usize) -> Tensor {
        let y = self.floating();
        let n = y.size(dim);
        if !(1..=2).contains(&edge_order) || n <= edge_order {
            panic!(
                "gradient: order {edge_order} at the ends needs more than {n} elements, and is 1 or 2"
            );
        }
        // Distances, along the dimension.
        let mut shape = vec![1i64; y.rank()];
        shape[y.axis("gradient", dim)] = -1;
        let h = points.to_dtype(y.dtype()).diff(1, 0).reshape(shape);
        let at = |i: usize, len: usize| y.narrow(dim, i, len);
        let gap = |i: usize, len: usize| h.narrow(dim, i, len);
        let mut parts = Vec::with_capacity(3);
        let slope = |i: usize| (at(i + 1, 1) - at(i, 1)) / gap(i, 1);
        // Through three points, at the outer one of the gaps `a` (outer) and `b`.
        let curve = |o: usize, m: usize, i: usize, a: Tensor, b: Tensor, sign: f64| {
            let sum = &a + &b;
            let d = at(m, 1) * (&sum / (&a * &b))
                - at(o, 1) * ((&sum + &a) / (&a * &sum))
                - at(i, 1) * (&a / (&b * &sum));
            d * sign
        };
        parts.push(if edge_order == 1 {
            slope(0)
        } else {
            curve(0, 1, 2, gap(0, 1), gap(1, 1), 1.0)
        });
        if n > 2 {
            let m = n - 2;
            let (s, d) = (gap(0, m), gap(1, m));
            let (s2, d2) = (s.square(), d.square());
            let inner =
                (&s2 * at(2, m) + (&d2 - &s2) * at(1, m) - &d2 * at(0, m)) / (&s * &d * (&s + &d));
            parts.push(inner);
        }
        parts.push(if edge_order == 1 {
            slope(n - 2)
        } else {
            curve(n - 1, n - 2, n - 3, gap(n - 2, 1), gap(n - 3, 1), -1.0)
        });
        cat(&parts.iter().collect::<Vec<_>>(), dim)
    }

    /// The covariance matrix of variables in rows, observations in columns; the divisor
    /// is the count less `correction`.
    ///
    /// # Panics
    /// If there are more than two dimensions.
    #[track_caller]
    pub fn cov(&self, correction: i64) -> Tensor {
        self.cov_weighted(correction, None, None)
    }

    /// [`cov`](Tensor::cov) with how often each observation was made (integers), and how
    /// much each counts.
    ///
    /// # Panics
    /// As [`cov`](Tensor::cov), and if weights do not fit.
    #[track_caller]
    pub fn cov_weighted(
        &self,
        correction: i64,
        frequencies: Option<&Tensor>,
        weights: Option<&Tensor>,
    ) -> Tensor {
        if self.rank() > 2 {
            panic!("cov: needs at most two dimensions, the shape is {:?}", self.shape());
        }
        let x = if self.rank() < 2 { self.floating().reshape([1, -1]) } else { self.floating() };
        let n = x.size(1);
        for w in frequencies.into_iter().chain(weights) {
            if w.shape() != [n] {
                panic!("cov: weights {:?} for {n} observations", w.shape());
            }
        }
        let f = frequencies.map(|f| f.to_dtype(x.dtype()));
        let a = weights.map(|a| a.to_dtype(x.dtype()));
        let w = match (&f, &a) {
            (Some(f), Some(a)) => Some(f * a),
            (Some(w), None) | (None, Some(w)) => Some(w.clone()),
            (None, None) => None,
        };
        let (mean, total) = match &w {
            Some(w) => ((&x * w).sum_dim(1, true) / w.sum(), w.sum()),
            None => (x.mean_dim(1, true), super::scalar(n as f64, x.dtype())),
        };
        let norm = match (&w, &a) {
            (Some(w), Some(a)) if correction != 0 => {
                &total - (w * a).sum() / &total * correction as f64
            }
            _ => &total - correction as f64,
        };
        let d = x - mean;
        let left = match &w {
            Some(w) => &d * w,
            None => d.clone(),
        };
        let c = left.matmul(&d.t().conj()) / norm.real().maximum(0.0);
        if self.rank() < 2 { c.reshape(()) } else { c }
    }

    /// Pearson's correlation coefficients of variables in rows.
    ///
    /// # Panics
    /// As [`cov`](Tensor::cov).
    #[track_caller]
    pub fn corrcoef(&self) -> Tensor {
        let c = self.cov(1);
        if c.rank() == 0 {
            // One; NaN where the variance is zero.
            let same = c.clone();
            return c / same;
        }
        let d = c.diagonal(0, 0, 1).real().sqrt();
        let r = c / d.unsqueeze(1) / d.unsqueeze(0);
        if r.is_complex() { r } else { r.clamp(-1.0, 1.0) }
    }

    /// The logarithm of the sum of exponentials of all elements.
    #[track_caller]
    pub fn logsumexp_all(&self) -> Tensor {
        self.logsumexp(self.all_axes(), false)
    }

    /// `e^-x / Σ e^-x` along `dim`.
    #[track_caller]
    pub fn softmin(&self, dim: i64) -> Tensor {
        (-self).softmax(dim)
    }
}

/// How far apart points are.
enum Distance<'a> {
    Constant(f64),
    Points(&'a Tensor),
}
