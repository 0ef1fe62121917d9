//! Rules of products, windows, normalisation and attention.

use super::*;
use crate::error::describe;

/// Output extent of a window that slides: floor((n + 2p - d(k-1) - 1) / s) + 1,
/// or with `ceil` the number of windows that begin inside the padded input.
fn window_extent<D: Extent>(
    n: &D,
    kernel: usize,
    stride: usize,
    padding: usize,
    dilation: usize,
    ceil: bool,
) -> Option<D> {
    let reach = dilation.checked_mul(kernel.checked_sub(1)?)?.checked_add(1)?;
    let free = n.plus(&D::of(padding.saturating_mul(2))).minus(&D::of(reach))?;
    let full = free.floor_div(stride)?.plus(&D::of(1));
    if !ceil {
        return Some(full);
    }
    let (free, n) = (free.known()?, n.known()?);
    let out = free.div_ceil(stride) + 1;
    // The last window must start inside the input or its leading padding.
    Some(D::of(if (out - 1) * stride >= n + padding { out - 1 } else { out }))
}

pub(super) fn window<D: Extent>(
    op: &str,
    hw: &[D],
    kernel: [usize; 2],
    stride: [usize; 2],
    padding: [usize; 2],
    dilation: [usize; 2],
    ceil: bool,
) -> Result<[D; 2], OpError> {
    if stride.contains(&0) || dilation.contains(&0) || kernel.contains(&0) {
        return Err(OpError::shape(op, "stride, dilation and window must be at least 1"));
    }
    let dim = |i: usize| {
        window_extent(&hw[i], kernel[i], stride[i], padding[i], dilation[i], ceil).ok_or_else(|| {
            OpError::shape(
                op,
                format!(
                    "a window of {} (dilation {}, stride {}) does not fit extent {} with padding {}",
                    kernel[i], dilation[i], stride[i], hw[i], padding[i]
                ),
            )
        })
    };
    Ok([dim(0)?, dim(1)?])
}

pub(super) fn matmul<D: Extent>(
    op: &str,
    act: Act,
    xs: &[TypeRef<'_, D>],
) -> Result<TensorType<D>, OpError> {
    let d = same_dtype(op, xs)?;
    let (a, b) = (xs[0].shape, xs[1].shape);
    if d == DType::Bool || (act != Act::None && !d.is_float()) {
        return Err(OpError::dtype(op, format!("does not take {d}")));
    }
    if a.len() < 2 || b.len() < 2 {
        return Err(OpError::shape(
            op,
            format!("operands {a:?} and {b:?} must have two dimensions or more"),
        ));
    }
    let (ak, bk) = (&a[a.len() - 1], &b[b.len() - 2]);
    if ak != bk {
        return Err(OpError::shape(
            op,
            format!("shapes {a:?} and {b:?} cannot be multiplied: {ak} columns meet {bk} rows"),
        ));
    }
    let mut shape = broadcast_shapes(op, &a[..a.len() - 2], &b[..b.len() - 2])?;
    shape.push(a[a.len() - 2].clone());
    shape.push(b[b.len() - 1].clone());
    if let Some(bias) = xs.get(2)
        && (bias.shape.len() != 1 || bias.shape[0] != b[b.len() - 1])
    {
        return Err(OpError::shape(
            op,
            format!("bias {:?} does not match {} columns", bias.shape, b[b.len() - 1]),
        ));
    }
    one(d, shape)
}

pub(super) fn known_kernel<D: Extent>(op: &str, kernel: &[D]) -> Result<[usize; 2], OpError> {
    match (kernel[0].known(), kernel[1].known()) {
        (Some(h), Some(w)) => Ok([h, w]),
        _ => Err(OpError::shape(op, format!("the kernel's extent {kernel:?} must be known"))),
    }
}

pub(super) fn conv<D: Extent>(
    op: &str,
    xs: &[TypeRef<'_, D>],
    stride: [usize; 2],
    padding: [usize; 2],
    dilation: [usize; 2],
    groups: usize,
) -> Result<TensorType<D>, OpError> {
    let d = same_dtype(op, xs)?;
    float_only(op, d)?;
    let (x, w) = (xs[0].shape, xs[1].shape);
    if x.len() != 4 || w.len() != 4 {
        return Err(OpError::shape(
            op,
            format!("input {x:?} must be [N, C, H, W] and weight {w:?} [O, C / groups, KH, KW]"),
        ));
    }
    if groups == 0 || w[0].exact_div(&D::of(groups)).is_none() || x[1] != w[1].times(&D::of(groups))
    {
        return Err(OpError::shape(
            op,
            format!(
                "input {x:?} has {} channels, weight {w:?} with {groups} group(s) takes {}",
                x[1],
                w[1].times(&D::of(groups))
            ),
        ));
    }
    if let Some(bias) = xs.get(2)
        && (bias.shape.len() != 1 || bias.shape[0] != w[0])
    {
        return Err(OpError::shape(
            op,
            format!("bias {:?} does not match {} output channels", bias.shape, w[0]),
        ));
    }
    let kernel = known_kernel(op, &w[2..])?;
    let [h, wd] = window(op, &x[2..], kernel, stride, padding, dilation, false)?;
    one(d, [x[0].clone(), w[0].clone(), h, wd].as_slice())
}

pub(super) fn pool<D: Extent>(
    op: &str,
    x: TypeRef<'_, D>,
    w: [usize; 2],
    stride: [usize; 2],
    padding: [usize; 2],
    dilation: [usize; 2],
    ceil: bool,
) -> Result<Dims<D>, OpError> {
    float_only(op, x.dtype)?;
    if x.shape.len() != 4 {
        return Err(OpError::shape(op, format!("input {:?} must be [N, C, H, W]", x.shape)));
    }
    if (0..2).any(|i| padding[i] > w[i] / 2) {
        return Err(OpError::shape(
            op,
            format!("padding {padding:?} exceeds half the window {w:?}"),
        ));
    }
    let [h, wd] = window(op, &x.shape[2..], w, stride, padding, dilation, ceil)?;
    Ok([x.shape[0].clone(), x.shape[1].clone(), h, wd].into_iter().collect())
}

pub(super) fn affine_tail<D: Extent>(
    op: &str,
    dims: usize,
    x: &[D],
    affine: &[TypeRef<'_, D>],
) -> Result<(), OpError> {
    if dims == 0 || dims > x.len() {
        return Err(OpError::shape(
            op,
            format!("cannot normalise the last {dims} dimension(s) of {x:?}"),
        ));
    }
    let tail = &x[x.len() - dims..];
    match affine.iter().find(|a| a.shape != tail) {
        None => Ok(()),
        Some(a) => Err(OpError::shape(
            op,
            format!("weight or bias {:?} is not of shape {tail:?}", a.shape),
        )),
    }
}

pub(super) fn attention<D: Extent>(
    op: &str,
    xs: &[TypeRef<'_, D>],
) -> Result<TensorType<D>, OpError> {
    let d = same_dtype(op, xs)?;
    float_only(op, d)?;
    let (q, k, v) = (xs[0].shape, xs[1].shape, xs[2].shape);
    let r = q.len();
    let fits = r >= 2
        && k.len() == r
        && v.len() == r
        && q[..r - 2] == k[..r - 2]
        && k[..r - 2] == v[..r - 2]
        && q[r - 1] == k[r - 1]
        && k[r - 2] == v[r - 2];
    if !fits {
        return Err(OpError::shape(
            op,
            format!(
                "query {q:?}, key {k:?} and value {v:?} do not fit: [.., T, E], [.., S, E], [.., S, F]"
            ),
        ));
    }
    let mut scores: Dims<D> = q.into();
    scores[r - 1] = k[r - 2].clone();
    if let Some(mask) = xs.get(3)
        && broadcast_shapes(op, mask.shape, &scores)? != scores
    {
        return Err(OpError::shape(
            op,
            format!("mask {} does not broadcast to {scores:?}", describe(mask.dtype, mask.shape)),
        ));
    }
    let mut out: Dims<D> = q.into();
    out[r - 1] = v[r - 1].clone();
    one(d, out)
}
