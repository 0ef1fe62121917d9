//! Counts of numbers, and of numbers between bounds.

use super::{Tensor, full, full_like, ones_like, searchsorted, zeros_like};
use sinter_runtime::DType;

impl Tensor {
    /// How often each number from 0 on is there, for at least `least` numbers; with
    /// `weights`, the sum of the weights of its places.
    ///
    /// # Panics
    /// If this is not a vector of integers that are not negative, or the weights have
    /// another length; and while tracing: the size of the result depends on values.
    #[track_caller]
    pub fn bincount(&self, weights: Option<&Tensor>, least: usize) -> Tensor {
        if self.rank() != 1 || self.dtype().is_float() {
            panic!("bincount: needs a vector of integers, got {} {:?}", self.dtype(), self.shape());
        }
        let index = self.to_dtype(DType::I64);
        let values = index.to_vec::<i64>();
        if let Some(bad) = values.iter().find(|&&v| v < 0) {
            panic!("bincount: {bad} is negative");
        }
        let n = values.iter().max().map_or(0, |&m| m as usize + 1).max(least);
        let weights = match weights {
            None => ones_like(&index),
            Some(w) if w.shape() != self.shape() => {
                panic!("bincount: weights {:?} for numbers {:?}", w.shape(), self.shape())
            }
            Some(w) if w.dtype().is_float() => w.clone(),
            Some(w) => w.to_dtype(DType::F64),
        };
        full([n], 0, weights.dtype()).index_add(0, &index, &weights)
    }

    /// How many elements lie in each of `bins` intervals of equal width from `min` to
    /// `max` (included), in the tensor's type; where both are 0, from the smallest to the
    /// largest element. Others, and NaN, are not counted.
    ///
    /// # Panics
    /// If the range is not finite or upside down, or there are no bins.
    #[track_caller]
    pub fn histc(&self, bins: usize, min: f64, max: f64) -> Tensor {
        let (counts, _) = self.histogram_of("histc", bins, (min, max), None);
        counts
    }

    /// How many elements lie between each two neighbours of `edges`, which are sorted (the
    /// last interval includes its end), or the sum of their weights; divided by the sum
    /// and the widths when `density`.
    ///
    /// # Panics
    /// If the edges are fewer than two, or the weights have another shape.
    #[track_caller]
    pub fn histogram(&self, edges: &Tensor, weights: Option<&Tensor>, density: bool) -> Tensor {
        if edges.rank() != 1 || edges.numel() < 2 {
            panic!("histogram: edges have shape {:?}; at least two are needed", edges.shape());
        }
        let n = edges.numel() - 1;
        let x = self.detach().reshape([-1]).to_dtype(edges.dtype());
        let bin = searchsorted(edges, &x, true) - 1;
        // The last edge belongs to the last interval.
        let bin = x.eq(edges.select(0, -1)).where_(&full_like(&bin, n as i64 - 1), &bin);
        counted(&bin, n, weights.map(|w| w.reshape([-1])), edges.dtype(), edges, density)
    }

    /// [`histogram`](Tensor::histogram) over `bins` intervals of equal width between
    /// `range`, by default the smallest and the largest element: counts and edges.
    ///
    /// # Panics
    /// If the range is not finite or upside down, there are no bins, or this is not of a
    /// float type.
    #[track_caller]
    pub fn histogram_bins(
        &self,
        bins: usize,
        range: impl Into<Option<(f64, f64)>>,
        weights: Option<&Tensor>,
        density: bool,
    ) -> (Tensor, Tensor) {
        let (low, high) = range.into().unwrap_or((0.0, 0.0));
        let (_, edges) = self.histogram_of("histogram", bins, (low, high), None);
        (self.histogram(&edges, weights, density), edges)
    }

    #[track_caller]
    fn histogram_of(
        &self,
        op: &str,
        bins: usize,
        (mut low, mut high): (f64, f64),
        weights: Option<&Tensor>,
    ) -> (Tensor, Tensor) {
        if !self.dtype().is_float() || bins == 0 {
            panic!("{op}: needs floats and at least one bin, got {} and {bins}", self.dtype());
        }
        let x = self.detach().reshape([-1]);
        if low == high && x.numel() > 0 {
            (low, high) = (x.min().item(), x.max().item());
        }
        if low == high {
            // PyTorch's choices.
            (low, high) = match op {
                "histc" => (low - 1.0, high + 1.0),
                _ if x.numel() == 0 => (low, high + 1.0),
                _ => (low - 0.5, high + 0.5),
            };
        }
        if !low.is_finite() || !high.is_finite() || low > high {
            panic!("{op}: the range from {low} to {high} is not finite or upside down");
        }
        let edges = super::create::spaced(low, high, bins + 1).to_dtype(self.dtype());
        // By arithmetic, as PyTorch does: at an edge, rounding decides.
        let place = ((&x - low) * (bins as f64 / (high - low))).floor();
        let inside = x.ge(low).logical_and(&x.le(high));
        let place = inside.where_(&place, full_like(&place, -1.0)).to_dtype(DType::I64);
        let place = place.minimum(bins as i64 - 1);
        (counted(&place, bins, weights.cloned(), self.dtype(), &edges, false), edges)
    }
}

/// How many points, in rows, lie in each box of a grid whose lines are given for each
/// coordinate (the last of each includes its end), or the sum of their weights; divided by
/// the sum and the volumes when `density`.
///
/// # Panics
/// If the shapes do not fit.
#[track_caller]
pub fn histogramdd(
    points: &Tensor,
    edges: &[&Tensor],
    weights: Option<&Tensor>,
    density: bool,
) -> Tensor {
    if points.rank() < 2 || points.size(-1) != edges.len() || edges.is_empty() {
        panic!("histogramdd: points {:?} for {} coordinates", points.shape(), edges.len());
    }
    let x = points.detach().reshape([-1, edges.len() as i64]);
    let mut place = full([x.size(0)], 0, DType::I64);
    let mut inside = full([x.size(0)], true, DType::Bool);
    let mut shape = Vec::with_capacity(edges.len());
    let mut volumes = full((), 1.0, DType::F64);
    for (d, line) in edges.iter().enumerate() {
        if line.rank() != 1 || line.numel() < 2 {
            panic!("histogramdd: edges have shape {:?}; at least two are needed", line.shape());
        }
        let n = line.numel() - 1;
        let v = x.select(1, d as i64).to_dtype(line.dtype());
        let bin = searchsorted(line, &v, true) - 1;
        let last = v.eq(line.select(0, -1));
        let bin = last.where_(&full_like(&bin, n as i64 - 1), &bin);
        inside = inside.logical_and(&bin.ge(0)).logical_and(&bin.lt(n as i64));
        place = place * n as i64 + bin;
        shape.push(n);
        volumes = volumes.unsqueeze(-1) * line.diff(1, 0).to_dtype(DType::F64);
    }
    let n: usize = shape.iter().product();
    let place = inside.where_(&place, full_like(&place, -1));
    let dtype = points.dtype();
    let weights = weights.map(|w| w.reshape([-1]));
    let counts = counted(&place, n, weights, DType::F64, edges[0], false).reshape(shape);
    if density {
        (&counts / (counts.sum() * volumes)).to_dtype(dtype)
    } else {
        counts.to_dtype(dtype)
    }
}

/// Sums of weights by numbers below `n`; others are left out.
#[track_caller]
fn counted(
    bin: &Tensor,
    n: usize,
    weights: Option<Tensor>,
    dtype: DType,
    edges: &Tensor,
    density: bool,
) -> Tensor {
    let inside = bin.ge(0).logical_and(&bin.lt(n as i64));
    let ones = match weights {
        Some(w) if w.shape() != bin.shape() => {
            panic!("histogram: weights {:?} for {:?} elements", w.shape(), bin.shape())
        }
        Some(w) => w.to_dtype(dtype),
        None => full(bin.shape(), 1, dtype),
    };
    let ones = inside.where_(&ones, zeros_like(&ones));
    let bin = inside.where_(bin, zeros_like(bin));
    // Counted in f64: whole numbers beyond f32's would stand still.
    let counts = full([n], 0, DType::F64).index_add(0, &bin, &ones.to_dtype(DType::F64));
    if !density {
        return counts.to_dtype(dtype);
    }
    let widths = (edges.narrow(0, 1, n) - edges.narrow(0, 0, n)).to_dtype(DType::F64);
    (&counts / (counts.sum() * widths)).to_dtype(dtype)
}
