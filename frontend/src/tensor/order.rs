//! What sorting gives: medians, quantiles, modes, places among sorted numbers, distinct
//! values.

use super::{Tensor, apply, apply_all, cat, from_slice, full, full_like};
use sinter_runtime::{DType, Op};

/// How [`quantile`](Tensor::quantile) picks a value between two elements.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Interpolation {
    /// On the line between them.
    #[default]
    Linear,
    /// The lower one.
    Lower,
    /// The higher one.
    Higher,
    /// The nearer one; of halves the one at an even place.
    Nearest,
    /// Their mean.
    Midpoint,
}

/// The results of [`unique`](Tensor::unique) and its relatives.
#[derive(Clone, Debug)]
pub struct Unique {
    /// Each value once.
    pub values: Tensor,
    /// For each element the number of its value: of the tensor's shape, or a vector where
    /// slabs are compared.
    pub inverse: Tensor,
    /// How often each value is there.
    pub counts: Tensor,
}

/// The place among the `sorted` numbers at which each of `values` could be inserted: the
/// first such place, or the last when `right`. `sorted` is one line, or has the
/// dimensions of the values but for the last.
///
/// ```
/// use sinter::{searchsorted, tensor};
/// let edges = tensor([1i64, 3, 5]);
/// let x = tensor([[0i64, 3], [4, 9]]);
/// assert_eq!(searchsorted(&edges, &x, false).to_vec::<i64>(), [0, 1, 2, 3]);
/// assert_eq!(searchsorted(&edges, &x, true).to_vec::<i64>(), [0, 2, 2, 3]);
/// ```
///
/// # Panics
/// If the shapes do not fit.
#[track_caller]
pub fn searchsorted(sorted: &Tensor, values: &Tensor, right: bool) -> Tensor {
    let dtype = sorted.dtype().promote(values.dtype());
    let (sorted, values) = (sorted.to_dtype(dtype), values.to_dtype(dtype));
    if values.rank() == 0 {
        let one = apply(Op::SearchSorted { right }, &[&sorted, &values.unsqueeze(0)]);
        return one.squeeze(0);
    }
    apply(Op::SearchSorted { right }, &[&sorted, &values])
}

impl Tensor {
    /// The number of the bucket between `boundaries`, which are sorted, that each element
    /// belongs to; a boundary belongs to the bucket before it, or the one after it when
    /// `right`.
    ///
    /// # Panics
    /// If the boundaries are not a vector.
    #[track_caller]
    pub fn bucketize(&self, boundaries: &Tensor, right: bool) -> Tensor {
        if boundaries.rank() != 1 {
            panic!("bucketize: boundaries have shape {:?}, not one dimension", boundaries.shape());
        }
        searchsorted(boundaries, self, right)
    }

    /// Sorted along the first dimension.
    #[track_caller]
    pub fn msort(&self) -> Tensor {
        if self.rank() == 0 { self.clone() } else { self.sort(0, false).0 }
    }

    /// The `k`-th smallest along `dim`, counted from 1, and its index.
    ///
    /// # Panics
    /// If there are fewer than `k`, or `k` is 0.
    #[track_caller]
    pub fn kthvalue(&self, k: usize, dim: i64, keep: bool) -> (Tensor, Tensor) {
        if self.rank() == 0 {
            let (v, i) = self.unsqueeze(0).kthvalue(k, 0, false);
            return (v, i);
        }
        let n = self.size(dim);
        if k == 0 || k > n {
            panic!("kthvalue: there is no number {k} of {n} along dimension {dim}");
        }
        let axis = self.axis("kthvalue", dim);
        let mut found = apply_all(Op::TopK { k, axis, largest: false }, &[self]).into_iter();
        let mut last = || {
            let all = found.next().expect("values and indices");
            let one = all.narrow(dim, k - 1, 1);
            if keep { one } else { one.squeeze(dim) }
        };
        (last(), last())
    }

    /// The median of all elements, of an even number the lower one; NaN if any is NaN.
    ///
    /// # Panics
    /// If there are none.
    #[track_caller]
    pub fn median(&self) -> Tensor {
        self.reshape([-1]).median_dim(0, false).0
    }

    /// The median along `dim`, of an even number the lower one, and its index; NaN if any
    /// is NaN.
    ///
    /// # Panics
    /// If the dimension is empty.
    #[track_caller]
    pub fn median_dim(&self, dim: i64, keep: bool) -> (Tensor, Tensor) {
        if self.rank() == 0 {
            return self.unsqueeze(0).median_dim(0, false);
        }
        let n = self.size(dim);
        if n == 0 {
            panic!("median: dimension {dim} of {:?} is empty", self.shape());
        }
        let (values, index) = self.sort(dim, false);
        let middle = full(pick_shape(self, dim), ((n - 1) / 2) as i64, DType::I64);
        // NaN sorts last: where there is one, the first of them is the result.
        let middle = if self.dtype().is_float() {
            let nans = values.isnan().sum_dim(dim, true);
            nans.gt(0).where_(&(n as i64 - &nans), &middle)
        } else {
            middle
        };
        self.at_place(&values, &index, &middle, dim, keep)
    }

    /// The median of the elements that are not NaN.
    ///
    /// # Panics
    /// If there are none.
    #[track_caller]
    pub fn nanmedian(&self) -> Tensor {
        self.reshape([-1]).nanmedian_dim(0, false).0
    }

    /// The median along `dim` of the elements that are not NaN, and its index.
    ///
    /// # Panics
    /// If the dimension is empty.
    #[track_caller]
    pub fn nanmedian_dim(&self, dim: i64, keep: bool) -> (Tensor, Tensor) {
        if !self.dtype().is_float() {
            return self.median_dim(dim, keep);
        }
        if self.rank() == 0 {
            return self.unsqueeze(0).nanmedian_dim(0, false);
        }
        if self.size(dim) == 0 {
            panic!("nanmedian: dimension {dim} of {:?} is empty", self.shape());
        }
        let (values, index) = self.sort(dim, false);
        let count = values.isnan().logical_not().sum_dim(dim, true);
        let middle = (count - 1).maximum(0).floor_divide(2);
        self.at_place(&values, &index, &middle, dim, keep)
    }

    /// The sorted values and indices at a place along `dim`.
    #[track_caller]
    fn at_place(
        &self,
        values: &Tensor,
        index: &Tensor,
        place: &Tensor,
        dim: i64,
        keep: bool,
    ) -> (Tensor, Tensor) {
        let (v, i) = (values.gather(dim, place), index.gather(dim, place));
        if keep { (v, i) } else { (v.squeeze(dim), i.squeeze(dim)) }
    }

    /// The value that is there most often along `dim`, the smallest of several, and the
    /// last index at which it is.
    ///
    /// # Panics
    /// If the dimension is empty.
    #[track_caller]
    pub fn mode(&self, dim: i64, keep: bool) -> (Tensor, Tensor) {
        if self.rank() == 0 {
            return self.unsqueeze(0).mode(0, false);
        }
        let n = self.size(dim);
        if n == 0 {
            panic!("mode: dimension {dim} of {:?} is empty", self.shape());
        }
        let (values, index) = self.sort(dim, false);
        // In sorted order equals are neighbours: how long a run is at each place.
        let sorted = values.detach().movedim(dim, -1).contiguous();
        let first = searchsorted(&sorted, &sorted, false);
        let place = apply(
            Op::Iota { dtype: DType::I64, axis: sorted.rank() - 1, shape: sorted.shape().into() },
            &[],
        );
        let run = place - first;
        // The first of the longest is at the end of its run.
        let longest = run.argmax_dim(-1, true).movedim(-1, dim);
        self.at_place(&values, &index, &longest, dim, keep)
    }

    /// Quantiles along `dim` of a vector `q` of probabilities (or one, as a number): the
    /// result has the probabilities as its first dimension, if `q` has one. NaN where any
    /// element is.
    ///
    /// ```
    /// use sinter::{Interpolation, tensor};
    /// let x = tensor([4.0f32, 1.0, 3.0, 2.0]);
    /// let q = x.quantile(&tensor([0.25f32, 0.5]), 0, false, Interpolation::Linear);
    /// assert_eq!(q.to_vec::<f32>(), [1.75, 2.5]);
    /// ```
    ///
    /// # Panics
    /// If types differ, a probability is outside [0, 1], or the dimension is empty.
    #[track_caller]
    pub fn quantile(
        &self,
        q: &Tensor,
        dim: i64,
        keep: bool,
        interpolation: Interpolation,
    ) -> Tensor {
        self.quantiles("quantile", q, dim, keep, interpolation, false)
    }

    /// [`quantile`](Tensor::quantile) of the elements that are not NaN.
    ///
    /// # Panics
    /// As [`quantile`](Tensor::quantile).
    #[track_caller]
    pub fn nanquantile(
        &self,
        q: &Tensor,
        dim: i64,
        keep: bool,
        interpolation: Interpolation,
    ) -> Tensor {
        self.quantiles("nanquantile", q, dim, keep, interpolation, true)
    }

    #[track_caller]
    fn quantiles(
        &self,
        op: &str,
        q: &Tensor,
        dim: i64,
        keep: bool,
        interpolation: Interpolation,
        skip_nan: bool,
    ) -> Tensor {
        if !self.dtype().is_float() || q.dtype() != self.dtype() || q.rank() > 1 {
            panic!(
                "{op}: needs floats and a number or vector of probabilities of their type, got {} and {} {:?}",
                self.dtype(),
                q.dtype(),
                q.shape()
            );
        }
        if q.has_data() && q.to_vec::<f64>().iter().any(|p| !(0.0..=1.0).contains(p)) {
            panic!("{op}: a probability of {:?} is outside [0, 1]", q.to_vec::<f64>());
        }
        if self.rank() == 0 {
            return self.unsqueeze(0).quantiles(op, q, 0, false, interpolation, skip_nan);
        }
        if self.dtype().is_half() {
            // Places in a long line need more digits.
            let y = self.wide().quantiles(op, &q.wide(), dim, keep, interpolation, skip_nan);
            return y.to_dtype(self.dtype());
        }
        let n = self.size(dim);
        if n == 0 {
            panic!("{op}: dimension {dim} of {:?} is empty", self.shape());
        }
        // Lines last; probabilities are picked along them.
        let sorted = self.movedim(dim, -1).sort(-1, false).0;
        let nan = sorted.detach().isnan();
        let count = nan.logical_not().sum_dim(-1, true);
        let last = if skip_nan {
            (count.clone() - 1).maximum(0)
        } else {
            full_like(&count, (n - 1) as i64)
        };
        let rank = q.detach().reshape([-1]) * last.to_dtype(self.dtype());
        let at = |place: &Tensor| sorted.gather(-1, &place.to_dtype(DType::I64));
        let (low, high) = (rank.floor(), rank.ceil());
        let picked = match interpolation {
            Interpolation::Lower => at(&low),
            Interpolation::Higher => at(&high),
            Interpolation::Nearest => at(&rank.round()),
            Interpolation::Midpoint => at(&low).lerp(&at(&high), 0.5),
            Interpolation::Linear => {
                // Recorded: a gradient may flow to the probabilities.
                let rank = q.reshape([-1]) * last.to_dtype(self.dtype());
                at(&low).lerp(&at(&high), &(rank - &low))
            }
        };
        let whole = if skip_nan { count.gt(0) } else { count.eq(n as i64) };
        let picked = whole.where_(&picked, full_like(&picked.detach(), f64::NAN));
        // [.., probabilities] to [probabilities, ..].
        let mut out = picked.movedim(-1, 0);
        if keep {
            let axis = self.axis(op, dim) as i64;
            out = out.unsqueeze(axis + 1);
        }
        if q.rank() == 0 { out.squeeze(0) } else { out }
    }

    /// Where the slabs of `dim` differ from the ones before, and in which order.
    #[track_caller]
    fn runs_of_slabs(&self, op: &str, dim: i64, sort: bool) -> (Vec<i64>, Vec<bool>) {
        let axis = self.axis(op, dim);
        let n = self.shape()[axis];
        let width = self.numel() / n.max(1);
        let rows = self.detach().movedim(axis as i64, 0).reshape([n, width]);
        let mut order: Vec<i64> = (0..n as i64).collect();
        // Numbers stand for values, in their order: they compare in any type.
        let rank_of = if width == 0 || n == 0 {
            vec![0; n * width]
        } else {
            let flat = rows.reshape([-1]);
            let sorted = flat.sort(0, false).0;
            searchsorted(&sorted, &flat, false).to_vec::<i64>()
        };
        let row = |i: i64| &rank_of[i as usize * width..(i as usize + 1) * width];
        if sort {
            order.sort_by(|&a, &b| row(a).cmp(row(b)));
        }
        let starts = (0..n).map(|i| i == 0 || row(order[i]) != row(order[i - 1])).collect();
        (order, starts)
    }

    /// The results of runs: which begin a value, in an order of the slabs of `dim`.
    #[track_caller]
    fn unique_of(&self, order: &[i64], starts: &[bool], dim: i64) -> Unique {
        let (mut first, mut inverse, mut counts) = (vec![], vec![0i64; order.len()], vec![]);
        for (&at, &start) in order.iter().zip(starts) {
            if start {
                first.push(at);
                counts.push(0i64);
            }
            inverse[at as usize] = first.len() as i64 - 1;
            if let Some(c) = counts.last_mut() {
                *c += 1;
            }
        }
        Unique {
            values: self.index_select(dim, &from_slice(&first, [first.len()])),
            inverse: from_slice(&inverse, [inverse.len()]),
            counts: from_slice(&counts, [counts.len()]),
        }
    }

    /// The distinct elements, sorted; NaN equals nothing, not even itself.
    ///
    /// ```
    /// use sinter::tensor;
    /// let u = tensor([3i64, 1, 3, 2]).unique();
    /// assert_eq!(u.values.to_vec::<i64>(), [1, 2, 3]);
    /// assert_eq!(u.inverse.to_vec::<i64>(), [2, 0, 2, 1]);
    /// assert_eq!(u.counts.to_vec::<i64>(), [1, 1, 2]);
    /// ```
    ///
    /// # Panics
    /// While tracing: how many there are depends on values.
    #[track_caller]
    pub fn unique(&self) -> Unique {
        let flat = self.reshape([-1]);
        let (values, order) = crate::no_grad(|| flat.sort(0, false));
        let starts = starts_of(&values);
        let mut u = flat.unique_of(&order.to_vec::<i64>(), &starts, 0);
        u.inverse = u.inverse.reshape(self.shape());
        u
    }

    /// The distinct slabs of `dim`, sorted by their elements in order.
    ///
    /// # Panics
    /// While tracing: how many there are depends on values.
    #[track_caller]
    pub fn unique_dim(&self, dim: i64) -> Unique {
        let (order, starts) = self.runs_of_slabs("unique", dim, true);
        self.unique_of(&order, &starts, dim)
    }

    /// The elements that differ from the one before.
    ///
    /// # Panics
    /// While tracing: how many there are depends on values.
    #[track_caller]
    pub fn unique_consecutive(&self) -> Unique {
        let flat = self.reshape([-1]);
        let order: Vec<i64> = (0..flat.numel() as i64).collect();
        let mut u = flat.unique_of(&order, &starts_of(&flat.detach()), 0);
        u.inverse = u.inverse.reshape(self.shape());
        u
    }

    /// The slabs of `dim` that differ from the one before.
    ///
    /// # Panics
    /// While tracing: how many there are depends on values.
    #[track_caller]
    pub fn unique_consecutive_dim(&self, dim: i64) -> Unique {
        let (order, starts) = self.runs_of_slabs("unique_consecutive", dim, false);
        self.unique_of(&order, &starts, dim)
    }
}

/// The shape with one element along `dim`.
#[track_caller]
fn pick_shape(x: &Tensor, dim: i64) -> Vec<usize> {
    let mut shape = x.shape().to_vec();
    shape[x.axis("median", dim)] = 1;
    shape
}

/// Which elements of a vector differ from the one before.
#[track_caller]
fn starts_of(x: &Tensor) -> Vec<bool> {
    let n = x.numel();
    if n == 0 {
        return vec![];
    }
    let differs = x.narrow(0, 1, n - 1).ne(x.narrow(0, 0, n - 1));
    let first = full([1], true, DType::Bool);
    cat(&[&first, &differs], 0).to_vec::<u8>().into_iter().map(|b| b != 0).collect()
}
