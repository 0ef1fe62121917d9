//! Padding, and moving elements between channels and places.

use crate::tensor::{Tensor, cat};

/// What is around a tensor.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum PadMode {
    /// One number.
    Constant(f64),
    /// The tensor mirrored; the edge itself is not repeated.
    Reflect,
    /// Its edge.
    Replicate,
    /// Its other end.
    Circular,
}

/// Adds around dimensions: `widths` has two numbers for each, before and after, and
/// begins with the last dimension. Negative ones cut off.
///
/// ```
/// use sinter::nn::functional::{self as F, PadMode};
/// use sinter::tensor;
/// let x = tensor([1i64, 2, 3]);
/// assert_eq!(F::pad(&x, &[2, 1], PadMode::Reflect).to_vec::<i64>(), [3, 2, 1, 2, 3, 2]);
/// assert_eq!(F::pad(&x, &[1, -1], PadMode::Constant(0.0)).to_vec::<i64>(), [0, 1, 2]);
/// ```
///
/// # Panics
/// If there are too many widths or an odd number of them, more is cut off than there
/// is, or more is mirrored or repeated than there is.
#[track_caller]
pub fn pad(x: &Tensor, widths: &[i64], mode: PadMode) -> Tensor {
    if !widths.len().is_multiple_of(2) || widths.len() > 2 * x.rank() {
        panic!(
            "pad: {widths:?} are not two widths for each of the last dimensions of {:?}",
            x.shape()
        );
    }
    let mut y = x.clone();
    for (i, w) in widths.chunks_exact(2).enumerate() {
        let dim = x.rank() - 1 - i;
        let (low, high) = (w[0].max(0) as usize, w[1].max(0) as usize);
        // An edge that is cut off is still what is repeated.
        if mode == PadMode::Replicate {
            y = cut(&side(&y, dim, low, high, mode), dim, w);
        } else {
            y = side(&cut(&y, dim, w), dim, low, high, mode);
        }
    }
    y
}

/// Cuts off what widths that are negative say.
#[track_caller]
fn cut(x: &Tensor, axis: usize, widths: &[i64]) -> Tensor {
    let (low, high) = ((-widths[0]).max(0), (-widths[1]).max(0));
    let n = x.shape()[axis] as i64;
    if low + high > n {
        panic!("pad: {widths:?} cuts more off dimension {axis} of {:?} than there is", x.shape());
    }
    if low + high == 0 {
        return x.clone();
    }
    x.narrow(axis as i64, low as usize, (n - low - high) as usize)
}

/// Adds `low` and `high` elements to dimension `axis`.
#[track_caller]
fn side(x: &Tensor, axis: usize, low: usize, high: usize, mode: PadMode) -> Tensor {
    if low + high == 0 {
        return x.clone();
    }
    let (dim, n) = (axis as i64, x.shape()[axis]);
    let most = match mode {
        PadMode::Constant(value) => {
            let mut all = vec![(0, 0); x.rank()];
            all[axis] = (low, high);
            return if x.dtype().is_float() {
                x.pad(&all, value)
            } else {
                x.pad(&all, value as i64)
            };
        }
        PadMode::Reflect => n.saturating_sub(1),
        PadMode::Replicate => {
            if n == 0 {
                0
            } else {
                usize::MAX
            }
        }
        PadMode::Circular => n,
    };
    if low.max(high) > most {
        panic!(
            "pad: {low} and {high} elements of {n} of dimension {axis} of {:?} in mode {mode:?}",
            x.shape()
        );
    }
    let repeated = |at: usize, times: usize| {
        let mut shape = x.shape().to_vec();
        shape[axis] = times;
        x.narrow(dim, at, 1).broadcast_to(shape)
    };
    let (before, after) = match mode {
        PadMode::Reflect => {
            (x.narrow(dim, 1, low).flip([dim]), x.narrow(dim, n - 1 - high, high).flip([dim]))
        }
        PadMode::Replicate => (repeated(0, low), repeated(n - 1, high)),
        _ => (x.narrow(dim, n - low, low), x.narrow(dim, 0, high)),
    };
    cat(&[&before, x, &after], dim)
}

/// [.., C r², H, W] as [.., C, H r, W r] (Shi et al. 2016).
///
/// # Panics
/// If the channels do not form such groups.
#[track_caller]
pub fn pixel_shuffle(x: &Tensor, r: usize) -> Tensor {
    let n = x.rank();
    if n < 3 || r == 0 || !x.shape()[n - 3].is_multiple_of(r * r) {
        panic!("pixel_shuffle: the channels of {:?} are not groups of {r} × {r}", x.shape());
    }
    let [c, h, w] = x.shape()[n - 3..] else { unreachable!("there are three") };
    let batch: usize = x.shape()[..n - 3].iter().product();
    let c = c / (r * r);
    let y = x.reshape([batch, c, r, r, h, w]).permute([0, 1, 4, 2, 5, 3]);
    let mut shape = x.shape()[..n - 3].to_vec();
    shape.extend([c, h * r, w * r]);
    y.reshape(shape)
}

/// [.., C, H r, W r] as [.., C r², H, W]: the converse of [`pixel_shuffle`].
///
/// # Panics
/// If height or width are no multiples of `r`.
#[track_caller]
pub fn pixel_unshuffle(x: &Tensor, r: usize) -> Tensor {
    let n = x.rank();
    if n < 3 || r == 0 || !x.shape()[n - 2..].iter().all(|d| d.is_multiple_of(r)) {
        panic!("pixel_unshuffle: {:?} is not made of squares of {r} × {r}", x.shape());
    }
    let [c, h, w] = x.shape()[n - 3..] else { unreachable!("there are three") };
    let batch: usize = x.shape()[..n - 3].iter().product();
    let y = x.reshape([batch, c, h / r, r, w / r, r]).permute([0, 1, 3, 5, 2, 4]);
    let mut shape = x.shape()[..n - 3].to_vec();
    shape.extend([c * r * r, h / r, w / r]);
    y.reshape(shape)
}

/// Channels of [N, C, ..] dealt out to `groups` in turn (Zhang et al. 2018).
///
/// # Panics
/// If the channels do not form so many groups.
#[track_caller]
pub fn channel_shuffle(x: &Tensor, groups: usize) -> Tensor {
    if x.rank() < 3 || groups == 0 || !x.shape()[1].is_multiple_of(groups) {
        panic!("channel_shuffle: the channels of {:?} do not form {groups} groups", x.shape());
    }
    let (n, c) = (x.shape()[0], x.shape()[1]);
    let rest: usize = x.shape()[2..].iter().product();
    x.reshape([n, groups, c / groups, rest]).transpose(1, 2).reshape(x.shape())
}
