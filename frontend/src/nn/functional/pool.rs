//! Pooling. Inputs are [N, C, ..] or [C, ..] with one to three inner dimensions.
//!
//! Largest elements and means of boxes are those of their sides, taken one after the
//! other: everything but [`adaptive_max_pool2d`] and its like, and the indices, is made
//! of the two-dimensional op.

use crate::tensor::{Tensor, apply, cat, from_slice, tensor, zeros_like};
use sinter_runtime::op::PoolKind;
use sinter_runtime::{DType, Op};

/// Choices of the pooling functions.
#[derive(Clone, Copy, Debug)]
pub struct PoolOptions<const N: usize> {
    /// Distance of windows; the window itself if not said.
    pub stride: Option<[usize; N]>,
    /// Elements added on each side: lower than all where the largest is taken, else 0.
    pub padding: [usize; N],
    /// Distance of elements of a window; of the largest alone.
    pub dilation: [usize; N],
    /// Whether windows that start inside and end outside count.
    pub ceil: bool,
    /// Whether padding counts in means.
    pub count_include_pad: bool,
    /// What sums are divided by, in place of the number of elements.
    pub divisor: Option<i64>,
}

impl<const N: usize> Default for PoolOptions<N> {
    fn default() -> Self {
        PoolOptions {
            stride: None,
            padding: [0; N],
            dilation: [1; N],
            ceil: false,
            count_include_pad: true,
            divisor: None,
        }
    }
}

/// `x` with a batch dimension, and whether it had one.
#[track_caller]
pub(super) fn batched(op: &str, x: &Tensor, inner: usize) -> (Tensor, bool) {
    if x.rank() == inner + 1 {
        return (x.unsqueeze(0), false);
    }
    if x.rank() != inner + 2 {
        panic!(
            "{op}: needs {} or {} dimensions, the shape is {:?}",
            inner + 1,
            inner + 2,
            x.shape()
        );
    }
    (x.clone(), true)
}

#[track_caller]
pub(super) fn unbatched(y: Tensor, had: bool) -> Tensor {
    if had { y } else { y.squeeze(0) }
}

/// Largest element of each window of [N, C, H, W]; the stride is the window.
#[track_caller]
pub fn max_pool2d(x: &Tensor, window: [usize; 2]) -> Tensor {
    pool2d(x, PoolKind::Max, window, window, [0, 0])
}

/// Mean of each window of [N, C, H, W]; the stride is the window.
#[track_caller]
pub fn avg_pool2d(x: &Tensor, window: [usize; 2]) -> Tensor {
    pool2d(x, PoolKind::Avg, window, window, [0, 0])
}

/// Pooling with kind, stride and padding.
#[track_caller]
pub fn pool2d(
    x: &Tensor,
    kind: PoolKind,
    window: [usize; 2],
    stride: [usize; 2],
    padding: [usize; 2],
) -> Tensor {
    apply(Op::Pool { kind, window, stride, padding, dilation: [1, 1], ceil: false }, &[x])
}

/// Pools the inner dimensions of [N, C, ..]: the last two at once, then those before.
#[track_caller]
fn pool<const N: usize>(
    op: &str,
    x: &Tensor,
    kind: PoolKind,
    window: [usize; N],
    o: &PoolOptions<N>,
) -> Tensor {
    let (x, had) = batched(op, x, N);
    let stride = o.stride.unwrap_or(window);
    let (n, c) = (x.shape()[0], x.shape()[1]);
    let last = N.saturating_sub(2);
    let side = |i: usize| (window[i], stride[i], o.padding[i], o.dilation[i]);
    let along = |x: &Tensor, a: (usize, usize, usize, usize), b: (usize, usize, usize, usize)| {
        let op = Op::Pool {
            kind,
            window: [a.0, b.0],
            stride: [a.1, b.1],
            padding: [a.2, b.2],
            dilation: [a.3, b.3],
            ceil: o.ceil,
        };
        apply(op, &[x])
    };
    let one = (1, 1, 0, 1);
    let y = match N {
        1 => {
            let y = along(&x.unsqueeze(2), one, side(0));
            y.squeeze(2)
        }
        2 => along(&x, side(0), side(1)),
        _ => {
            let [_, _, d, h, w] = x.shape()[..] else { unreachable!("the rank was checked") };
            let y = along(&x.reshape([n, c * d, h, w]), side(last), side(last + 1));
            let (h, w) = (y.shape()[2], y.shape()[3]);
            let y = along(&y.reshape([n, c, d, h * w]), side(0), one);
            let d = y.shape()[2];
            y.reshape([n, c, d, h, w])
        }
    };
    unbatched(y, had)
}

/// Means of windows, or sums over a divisor.
#[track_caller]
fn mean_pool<const N: usize>(
    op: &str,
    x: &Tensor,
    window: [usize; N],
    o: &PoolOptions<N>,
) -> Tensor {
    let Some(divisor) = o.divisor else {
        let kind = if o.count_include_pad { PoolKind::Avg } else { PoolKind::AvgInside };
        return pool(op, x, kind, window, o);
    };
    let mut y = pool(op, x, PoolKind::Avg, window, o);
    let stride = o.stride.unwrap_or(window);
    let inner = x.rank() - N;
    for i in 0..N {
        let (length, pad) = (x.shape()[inner + i], o.padding[i]);
        let count = |at: usize| {
            let start = at * stride[i];
            ((start + window[i]).min(length + 2 * pad) - start) as f64
        };
        let counts: Vec<f64> = (0..y.shape()[inner + i]).map(count).collect();
        let mut shape = vec![1; N - i];
        shape[0] = counts.len();
        y = &y * tensor(counts).to_dtype(x.dtype()).reshape(shape);
    }
    y / divisor as f64
}

macro_rules! pooling {
    ($($(#[$doc:meta])* $name:ident $inner:literal = $kind:ident;)*) => {$(
        $(#[$doc])*
        ///
        /// # Panics
        /// If `x` has other dimensions, or windows do not fit.
        #[track_caller]
        pub fn $name(x: &Tensor, window: [usize; $inner], options: &PoolOptions<$inner>) -> Tensor {
            pooling!(@$kind stringify!($name), x, window, options)
        }
    )*};
    (@max $name:expr, $x:ident, $window:ident, $o:ident) => {
        pool($name, $x, PoolKind::Max, $window, $o)
    };
    (@avg $name:expr, $x:ident, $window:ident, $o:ident) => {
        mean_pool($name, $x, $window, $o)
    };
}
pooling! {
    /// Largest element of each window of [N, C, L].
    max_pool1d 1 = max;
    /// Largest element of each window of [N, C, H, W]: [`max_pool2d`] with every choice.
    ///
    /// ```
    /// use sinter::nn::functional::{self as F, PoolOptions};
    /// use sinter::tensor;
    /// let x = tensor([[[[1.0f32, 5.0, 2.0], [3.0, 4.0, 6.0]]]]);
    /// let every = PoolOptions { stride: Some([1, 1]), ..PoolOptions::default() };
    /// assert_eq!(F::max_pool2d_with(&x, [2, 2], &every).to_vec::<f32>(), [5.0, 6.0]);
    /// assert_eq!(F::max_pool2d_with_indices(&x, [2, 2], &every).1.to_vec::<i64>(), [1, 5]);
    /// ```
    max_pool2d_with 2 = max;
    /// Largest element of each window of [N, C, D, H, W].
    max_pool3d 3 = max;
    /// Mean of each window of [N, C, L].
    avg_pool1d 1 = avg;
    /// Mean of each window of [N, C, H, W]: [`avg_pool2d`] with every choice.
    avg_pool2d_with 2 = avg;
    /// Mean of each window of [N, C, D, H, W].
    avg_pool3d 3 = avg;
}

/// The elements of each window along one dimension.
type Side = Vec<Vec<usize>>;

/// Windows of a fixed size over `length` elements.
#[track_caller]
fn fixed(op: &str, length: usize, w: usize, s: usize, p: usize, d: usize, ceil: bool) -> Side {
    let span = d * (w.max(1) - 1) + 1;
    if w == 0 || s == 0 || d == 0 || length + 2 * p < span || 2 * p > span {
        panic!(
            "{op}: a window of {w} ({d} apart, stride {s}, padding {p}) does not fit {length} elements"
        );
    }
    let mut n = (length + 2 * p - span) / s + 1;
    if ceil {
        n = (length + 2 * p - span).div_ceil(s) + 1;
        // The last window starts inside.
        if (n - 1) * s >= length + p {
            n -= 1;
        }
    }
    let inside = |at: usize| {
        let all = (0..w).map(|k| at * s + k * d);
        all.filter(|&i| i >= p && i < length + p).map(|i| i - p).collect()
    };
    (0..n).map(inside).collect()
}

/// `n` windows that cover `length` elements.
fn adaptive(length: usize, n: usize) -> Side {
    (0..n).map(|i| (i * length / n..((i + 1) * length).div_ceil(n)).collect()).collect()
}

/// The largest element of each window, and where it lies among the inner dimensions of
/// `x` [N, C, ..], counted in row-major order.
#[track_caller]
fn largest(x: &Tensor, sides: &[Side]) -> (Tensor, Tensor) {
    let inner = &x.shape()[2..];
    let taps: usize = sides.iter().map(|s| s.iter().map(Vec::len).max().unwrap_or(0)).product();
    let mut windows: Vec<Vec<i64>> = vec![vec![0]];
    for (side, &length) in sides.iter().zip(inner) {
        let mut next = Vec::with_capacity(windows.len() * side.len());
        for w in &windows {
            for at in side {
                let rows =
                    w.iter().flat_map(|&i| at.iter().map(move |&j| i * length as i64 + j as i64));
                next.push(rows.collect());
            }
        }
        windows = next;
    }
    // Windows are filled up with an element of their own.
    let table: Vec<i64> = windows
        .iter()
        .flat_map(|w| (0..taps).map(move |k| w.get(k).copied().unwrap_or(w[0])))
        .collect();
    let (n, c) = (x.shape()[0], x.shape()[1]);
    let table = from_slice(&table, [windows.len() * taps]);
    let total = inner.iter().product::<usize>();
    let all = x.reshape([n * c, total]).index_select(1, &table);
    let (values, at) = all.reshape([n * c, windows.len(), taps]).max_dim(2, true);
    let table = table.reshape([1, windows.len(), taps]);
    let at = table.broadcast_to([n * c, windows.len(), taps]).gather(2, &at);
    let mut shape = vec![n, c];
    shape.extend(sides.iter().map(Vec::len));
    (values.reshape(shape.as_slice()), at.reshape(shape))
}

#[track_caller]
fn largest_of<const N: usize>(
    op: &str,
    x: &Tensor,
    side: impl Fn(usize, usize) -> Side,
) -> (Tensor, Tensor) {
    let (x, had) = batched(op, x, N);
    let sides: Vec<Side> = (0..N).map(|i| side(i, x.shape()[2 + i])).collect();
    let (values, at) = largest(&x, &sides);
    (unbatched(values, had), unbatched(at, had))
}

#[track_caller]
fn with_indices<const N: usize>(
    op: &str,
    x: &Tensor,
    window: [usize; N],
    o: &PoolOptions<N>,
) -> (Tensor, Tensor) {
    let stride = o.stride.unwrap_or(window);
    largest_of::<N>(op, x, |i, length| {
        fixed(op, length, window[i], stride[i], o.padding[i], o.dilation[i], o.ceil)
    })
}

/// Means over the windows of each dimension in turn.
#[track_caller]
fn adaptive_mean<const N: usize>(op: &str, x: &Tensor, output: [usize; N]) -> Tensor {
    let (mut y, had) = batched(op, x, N);
    if output == [1; N] {
        // One window: one reduction.
        return unbatched(y.mean_dim((2..2 + N as i64).collect::<Vec<_>>(), true), had);
    }
    for (i, &n) in output.iter().enumerate() {
        let dim = 2 + i as i64;
        let length = y.shape()[2 + i];
        if length == n {
            continue;
        }
        let mut parts = Vec::with_capacity(n);
        for w in adaptive(length, n) {
            parts.push(y.narrow(dim, w[0], w.len()).mean_dim(dim, true));
        }
        y = cat(&parts.iter().collect::<Vec<_>>(), dim);
    }
    unbatched(y, had)
}

#[track_caller]
fn unpool<const N: usize>(op: &str, x: &Tensor, at: &Tensor, output: [usize; N]) -> Tensor {
    if x.shape() != at.shape() {
        panic!("{op}: values {:?} and indices {:?} differ in shape", x.shape(), at.shape());
    }
    let (x, had) = batched(op, x, N);
    let (n, c) = (x.shape()[0], x.shape()[1]);
    let total: usize = output.iter().product();
    let rows = n * c;
    let each = x.shape()[2..].iter().product::<usize>();
    let base = zeros_like(&x.reshape([rows, each]).narrow(1, 0, each.min(1)));
    let base = base.broadcast_to([rows, total]);
    let y = base.scatter(1, &at.reshape([rows, each]), &x.reshape([rows, each]));
    let mut shape = vec![n, c];
    shape.extend(output);
    unbatched(y.reshape(shape), had)
}

macro_rules! with_places {
    ($($inner:literal: $indices:ident $adaptive_max:ident $adaptive_avg:ident $unpool:ident $lp:ident $shape:literal;)*) => {$(
        #[doc = concat!("Largest element of each window of ", $shape, ", and its place among the inner dimensions.")]
        ///
        /// # Panics
        /// If `x` has other dimensions, or windows do not fit.
        #[track_caller]
        pub fn $indices(
            x: &Tensor,
            window: [usize; $inner],
            options: &PoolOptions<$inner>,
        ) -> (Tensor, Tensor) {
            with_indices(stringify!($indices), x, window, options)
        }

        #[doc = concat!("Largest elements of ", $shape, " in `output` windows that cover it, and their places.")]
        ///
        /// # Panics
        /// If `x` has other dimensions.
        #[track_caller]
        pub fn $adaptive_max(x: &Tensor, output: [usize; $inner]) -> (Tensor, Tensor) {
            largest_of::<$inner>(stringify!($adaptive_max), x, |i, length| adaptive(length, output[i]))
        }

        #[doc = concat!("Means of ", $shape, " in `output` windows that cover it.")]
        ///
        /// # Panics
        /// If `x` has other dimensions.
        #[track_caller]
        pub fn $adaptive_avg(x: &Tensor, output: [usize; $inner]) -> Tensor {
            adaptive_mean(stringify!($adaptive_avg), x, output)
        }

        #[doc = concat!("The converse of [`", stringify!($indices), "`]: values at their places, zeros elsewhere.")]
        ///
        /// # Panics
        /// If shapes do not fit, or an index is outside of `output`.
        #[track_caller]
        pub fn $unpool(x: &Tensor, indices: &Tensor, output: [usize; $inner]) -> Tensor {
            unpool(stringify!($unpool), x, indices, output)
        }

        #[doc = concat!("`(Σ x^p)^(1/p)` over each window of ", $shape, ".")]
        ///
        /// # Panics
        /// If `x` has other dimensions, or windows do not fit.
        #[track_caller]
        pub fn $lp(
            x: &Tensor,
            p: f64,
            window: [usize; $inner],
            options: &PoolOptions<$inner>,
        ) -> Tensor {
            let sums = PoolOptions { divisor: Some(1), ..*options };
            mean_pool(stringify!($lp), &x.pow(p), window, &sums).pow(1.0 / p)
        }
    )*};
}
with_places! {
    1: max_pool1d_with_indices adaptive_max_pool1d adaptive_avg_pool1d max_unpool1d lp_pool1d "[N, C, L]";
    2: max_pool2d_with_indices adaptive_max_pool2d adaptive_avg_pool2d max_unpool2d lp_pool2d "[N, C, H, W]";
    3: max_pool3d_with_indices adaptive_max_pool3d adaptive_avg_pool3d max_unpool3d lp_pool3d "[N, C, D, H, W]";
}

/// Windows whose places are drawn (Graham 2015): `n` of `w` elements over `length`, by
/// a number `u` from [0, 1).
fn fractional(length: usize, w: usize, n: usize, u: f64) -> Side {
    let alpha = if n > 1 { (length - w) as f64 / (n - 1) as f64 } else { 0.0 };
    let start = |i: usize| {
        if i + 1 == n {
            length - w
        } else {
            ((i as f64 + u) * alpha) as usize - (u * alpha) as usize
        }
    };
    (0..n).map(|i| (start(i)..start(i) + w).collect()).collect()
}

/// Largest elements of `x` [N, C, H, W] in windows at random places, `output` of them,
/// and where they lie (Graham 2015).
///
/// # Panics
/// If `x` has other dimensions, or windows do not fit.
#[track_caller]
pub fn fractional_max_pool2d(
    x: &Tensor,
    window: [usize; 2],
    output: [usize; 2],
) -> (Tensor, Tensor) {
    fractional_pool("fractional_max_pool2d", x, window, output)
}

/// Largest elements of `x` [N, C, D, H, W] in windows at random places, `output` of
/// them, and where they lie (Graham 2015).
///
/// # Panics
/// If `x` has other dimensions, or windows do not fit.
#[track_caller]
pub fn fractional_max_pool3d(
    x: &Tensor,
    window: [usize; 3],
    output: [usize; 3],
) -> (Tensor, Tensor) {
    fractional_pool("fractional_max_pool3d", x, window, output)
}

#[track_caller]
fn fractional_pool<const N: usize>(
    op: &str,
    x: &Tensor,
    window: [usize; N],
    output: [usize; N],
) -> (Tensor, Tensor) {
    let (x, had) = batched(op, x, N);
    for i in 0..N {
        let length = x.shape()[2 + i];
        if window[i] == 0 || output[i] == 0 || output[i] + window[i] > length + 1 {
            panic!("{op}: {} windows of {} do not fit {length} elements", output[i], window[i]);
        }
    }
    let (n, c) = (x.shape()[0], x.shape()[1]);
    if n * c == 0 {
        let mut shape = vec![n, c];
        shape.extend(output);
        let none = crate::tensor::full(shape.as_slice(), 0, DType::I64);
        return (unbatched(none.to_dtype(x.dtype()), had), unbatched(none, had));
    }
    // Each channel of each instance has windows of its own.
    let draws = crate::tensor::rand([n * c, N]).to_vec::<f64>();
    let mut parts = (Vec::new(), Vec::new());
    for i in 0..n * c {
        let mut sides = Vec::with_capacity(N);
        for d in 0..N {
            sides.push(fractional(x.shape()[2 + d], window[d], output[d], draws[i * N + d]));
        }
        let one = x.narrow(0, i / c, 1).narrow(1, i % c, 1);
        let (v, at) = largest(&one, &sides);
        parts.0.push(v);
        parts.1.push(at);
    }
    let mut shape = vec![n, c];
    shape.extend(output);
    let join = |p: &[Tensor]| cat(&p.iter().collect::<Vec<_>>(), 0).reshape(shape.as_slice());
    let (v, at) = (join(&parts.0), join(&parts.1));
    (unbatched(v, had), unbatched(at, had))
}
