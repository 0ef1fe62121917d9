//! Convolutions. Inputs are [N, C, ..] or [C, ..]. What is not two-dimensional is made
//! of the two-dimensional op: lines are images of one row, volumes sums over slices.

use super::pool::{batched, unbatched};
use crate::tensor::{Tensor, apply, stack};
use sinter_runtime::Op;
use sinter_runtime::op::Act;

/// `x wᵀ + b` for `x` `[.., in]`, `w` `[out, in]` and `b` `[out]`.
#[track_caller]
pub fn linear(x: &Tensor, w: &Tensor, b: Option<&Tensor>) -> Tensor {
    if x.rank() == 1 {
        return linear(&x.unsqueeze(0), w, b).squeeze(0);
    }
    let wt = w.t();
    match b {
        Some(b) => apply(Op::MatMul { act: Act::None }, &[x, &wt, b]),
        None => apply(Op::MatMul { act: Act::None }, &[x, &wt]),
    }
}

/// `aᵢ wₖᵢⱼ bⱼ + biasₖ` for `a` `[.., I]`, `b` `[.., J]` and `w` [K, I, J].
///
/// # Panics
/// If the shapes do not fit.
#[track_caller]
pub fn bilinear(a: &Tensor, b: &Tensor, w: &Tensor, bias: Option<&Tensor>) -> Tensor {
    let [k, i, j] = w.shape()[..] else {
        panic!("bilinear: the weight {:?} is not [out, in1, in2]", w.shape())
    };
    if a.rank() == 0 || a.rank() != b.rank() || a.size(-1) != i || b.size(-1) != j {
        panic!(
            "bilinear: operands {:?} and {:?} do not fit the weight {:?}",
            a.shape(),
            b.shape(),
            w.shape()
        );
    }
    let mut shape = a.shape().to_vec();
    shape.pop();
    let lead = shape.clone();
    shape.extend([k, j]);
    let rows: usize = lead.iter().product();
    let half = a.reshape([rows, i]).matmul(&w.permute([1, 0, 2]).reshape([i, k * j]));
    let y = (half.reshape(shape) * b.unsqueeze(-2)).sum_dim(-1, false);
    match bias {
        Some(c) => y + c,
        None => y,
    }
}

/// 2-d cross-correlation of `x` [N, C, H, W] with `w` [O, C / groups, KH, KW].
#[track_caller]
pub fn conv2d(
    x: &Tensor,
    w: &Tensor,
    b: Option<&Tensor>,
    stride: [usize; 2],
    padding: [usize; 2],
    dilation: [usize; 2],
    groups: usize,
) -> Tensor {
    let op = Op::Conv { stride, padding, dilation, groups, act: Act::None };
    if x.rank() == 3 {
        let x = x.unsqueeze(0);
        return conv2d(&x, w, b, stride, padding, dilation, groups).squeeze(0);
    }
    match b {
        Some(b) => apply(op, &[x, w, b]),
        None => apply(op, &[x, w]),
    }
}

/// 1-d cross-correlation of `x` [N, C, L] with `w` [O, C / groups, K].
///
/// ```
/// use sinter::nn::functional as F;
/// use sinter::tensor;
/// let x = tensor([[[1.0f32, 2.0, 4.0]]]);
/// let w = tensor([[[1.0f32, -1.0]]]);
/// assert_eq!(F::conv1d(&x, &w, None, 1, 0, 1, 1).to_vec::<f32>(), [-1.0, -2.0]);
/// ```
#[track_caller]
pub fn conv1d(
    x: &Tensor,
    w: &Tensor,
    b: Option<&Tensor>,
    stride: usize,
    padding: usize,
    dilation: usize,
    groups: usize,
) -> Tensor {
    let (x, had) = batched("conv1d", x, 1);
    weight_rank("conv1d", w, 3);
    let (x, w) = (x.unsqueeze(2), w.unsqueeze(2));
    let y = conv2d(&x, &w, b, [1, stride], [0, padding], [1, dilation], groups);
    unbatched(y.squeeze(2), had)
}

#[track_caller]
fn weight_rank(op: &str, w: &Tensor, rank: usize) {
    if w.rank() != rank {
        panic!("{op}: the weight {:?} has to have {rank} dimensions", w.shape());
    }
}

/// [N, C, D, H, W] as [N D, C, H, W].
#[track_caller]
fn slices(x: &Tensor) -> Tensor {
    let [n, c, d, h, w] = x.shape()[..] else { unreachable!("the rank was checked") };
    x.permute([0, 2, 1, 3, 4]).reshape([n * d, c, h, w])
}

/// The converse of [`slices`], of `n` volumes.
#[track_caller]
fn volumes(y: &Tensor, n: usize, d: usize) -> Tensor {
    let [_, c, h, w] = y.shape()[..] else { unreachable!("slices have four dimensions") };
    y.reshape([n, d, c, h, w]).permute([0, 2, 1, 3, 4])
}

/// 3-d cross-correlation of `x` [N, C, D, H, W] with `w` [O, C / groups, KD, KH, KW].
///
/// # Panics
/// If shapes do not fit.
#[track_caller]
pub fn conv3d(
    x: &Tensor,
    w: &Tensor,
    b: Option<&Tensor>,
    stride: [usize; 3],
    padding: [usize; 3],
    dilation: [usize; 3],
    groups: usize,
) -> Tensor {
    let (x, had) = batched("conv3d", x, 3);
    weight_rank("conv3d", w, 5);
    let p = padding[0];
    let x = x.pad(&[(0, 0), (0, 0), (p, p), (0, 0), (0, 0)], 0.0);
    let (n, depth, kernel) = (x.shape()[0], x.shape()[2], w.shape()[2]);
    let span = dilation[0] * (kernel.max(1) - 1) + 1;
    if kernel == 0 || stride[0] == 0 || depth < span {
        panic!("conv3d: a kernel of depth {kernel} does not fit {depth} slices");
    }
    let out = (depth - span) / stride[0] + 1;
    let mut sum: Option<Tensor> = None;
    for k in 0..kernel {
        let start = k * dilation[0];
        let part = x.slice(2, start, start + (out - 1) * stride[0] + 1, stride[0]);
        let y = conv2d(
            &slices(&part),
            &w.select(2, k as i64),
            // Added once.
            b.filter(|_| k == 0),
            [stride[1], stride[2]],
            [padding[1], padding[2]],
            [dilation[1], dilation[2]],
            groups,
        );
        sum = Some(match sum {
            None => y,
            Some(s) => s + y,
        });
    }
    let y = sum.expect("a kernel has a slice");
    unbatched(volumes(&y, n, out), had)
}

/// Choices of transposed convolutions.
#[derive(Clone, Copy, Debug)]
pub struct TransposeOptions<const N: usize> {
    /// Stride of the convolution that this is the transpose of.
    pub stride: [usize; N],
    /// Its padding: what is cut off here.
    pub padding: [usize; N],
    /// What is added to the result on the far sides.
    pub output_padding: [usize; N],
    /// Distance of elements of the kernel.
    pub dilation: [usize; N],
    /// Groups of channels that do not mix.
    pub groups: usize,
}

impl<const N: usize> Default for TransposeOptions<N> {
    fn default() -> Self {
        TransposeOptions {
            stride: [1; N],
            padding: [0; N],
            output_padding: [0; N],
            dilation: [1; N],
            groups: 1,
        }
    }
}

impl<const N: usize> TransposeOptions<N> {
    /// The extent of dimension `i` of a result, from those of input and kernel.
    #[track_caller]
    fn extent(&self, op: &str, i: usize, length: usize, kernel: usize) -> usize {
        if length == 0 || kernel == 0 {
            panic!(
                "{op}: input and kernel have to have elements, their extents are {length} and {kernel}"
            );
        }
        let full = (length - 1) * self.stride[i]
            + self.dilation[i] * (kernel - 1)
            + 1
            + self.output_padding[i];
        match full.checked_sub(2 * self.padding[i]) {
            Some(n) if n > 0 => n,
            _ => panic!("{op}: a padding of {} leaves nothing of {full} elements", self.padding[i]),
        }
    }
}

#[track_caller]
fn plus_channels(y: Tensor, b: Option<&Tensor>) -> Tensor {
    match b {
        None => y,
        Some(b) => {
            let mut shape = vec![1; y.rank() - 1];
            shape[0] = b.numel();
            y + b.reshape(shape)
        }
    }
}

/// The transpose of [`conv2d`], its derivative by the input: `x` [N, C, H, W], `w`
/// [C, O / groups, KH, KW].
///
/// # Panics
/// If shapes do not fit.
#[track_caller]
pub fn conv_transpose2d(
    x: &Tensor,
    w: &Tensor,
    b: Option<&Tensor>,
    o: &TransposeOptions<2>,
) -> Tensor {
    let (x, had) = batched("conv_transpose2d", x, 2);
    weight_rank("conv_transpose2d", w, 4);
    if (0..2).any(|i| o.output_padding[i] >= o.stride[i]) {
        // More than a convolution can leave over: the whole result, then cut and filled.
        let whole = TransposeOptions { padding: [0; 2], output_padding: [0; 2], ..*o };
        let y = conv_transpose2d(&x, w, None, &whole);
        let mut widths = Vec::with_capacity(4);
        for i in [1, 0] {
            let (cut, add) = (o.padding[i] as i64, o.output_padding[i] as i64);
            widths.extend([-cut, add - cut]);
        }
        let y = super::pad(&y, &widths, super::PadMode::Constant(0.0));
        return unbatched(plus_channels(y, b), had);
    }
    let extent = |i: usize| o.extent("conv_transpose2d", i, x.shape()[2 + i], w.shape()[2 + i]);
    let op = Op::ConvInputGrad {
        stride: o.stride,
        padding: o.padding,
        dilation: o.dilation,
        groups: o.groups,
        height: extent(0),
        width: extent(1),
    };
    unbatched(plus_channels(apply(op, &[&x, w]), b), had)
}

/// The transpose of [`conv1d`]: `x` [N, C, L], `w` [C, O / groups, K].
///
/// # Panics
/// If shapes do not fit.
#[track_caller]
pub fn conv_transpose1d(
    x: &Tensor,
    w: &Tensor,
    b: Option<&Tensor>,
    o: &TransposeOptions<1>,
) -> Tensor {
    let (x, had) = batched("conv_transpose1d", x, 1);
    weight_rank("conv_transpose1d", w, 3);
    let flat = TransposeOptions {
        stride: [1, o.stride[0]],
        padding: [0, o.padding[0]],
        output_padding: [0, o.output_padding[0]],
        dilation: [1, o.dilation[0]],
        groups: o.groups,
    };
    let y = conv_transpose2d(&x.unsqueeze(2), &w.unsqueeze(2), b, &flat);
    unbatched(y.squeeze(2), had)
}

/// The transpose of [`conv3d`]: `x` [N, C, D, H, W], `w` [C, O / groups, KD, KH, KW].
///
/// # Panics
/// If shapes do not fit.
#[track_caller]
pub fn conv_transpose3d(
    x: &Tensor,
    w: &Tensor,
    b: Option<&Tensor>,
    o: &TransposeOptions<3>,
) -> Tensor {
    let (x, had) = batched("conv_transpose3d", x, 3);
    weight_rank("conv_transpose3d", w, 5);
    let (n, d, kernel) = (x.shape()[0], x.shape()[2], w.shape()[2]);
    let out = o.extent("conv_transpose3d", 0, d, kernel);
    let flat = TransposeOptions {
        stride: [o.stride[1], o.stride[2]],
        padding: [o.padding[1], o.padding[2]],
        output_padding: [o.output_padding[1], o.output_padding[2]],
        dilation: [o.dilation[1], o.dilation[2]],
        groups: o.groups,
    };
    let flat_x = slices(&x);
    let full = out + 2 * o.padding[0];
    let mut sum: Option<Tensor> = None;
    for k in 0..kernel {
        let y = conv_transpose2d(&flat_x, &w.select(2, k as i64), None, &flat);
        // [N, O, D, H, W], slices a stride apart, from the kernel's slice on.
        let y = volumes(&y, n, d);
        let gap = o.stride[0] - 1;
        let (h, w) = (y.shape()[3], y.shape()[4]);
        let spread = y.unsqueeze(3).pad(&[(0, 0), (0, 0), (0, 0), (0, gap), (0, 0), (0, 0)], 0.0);
        let spread = spread.reshape([n, y.shape()[1], d * o.stride[0], h, w]);
        let length = (d - 1) * o.stride[0] + 1;
        let low = k * o.dilation[0];
        let placed = spread
            .narrow(2, 0, length)
            .pad(&[(0, 0), (0, 0), (low, full - low - length), (0, 0), (0, 0)], 0.0);
        sum = Some(match sum {
            None => placed,
            Some(s) => s + placed,
        });
    }
    let y = sum.expect("a kernel has a slice").narrow(2, o.padding[0], out);
    unbatched(plus_channels(y, b), had)
}

/// The extent of one dimension in windows: first elements are `stride` apart.
fn windows(
    length: usize,
    kernel: usize,
    dilation: usize,
    padding: usize,
    stride: usize,
) -> Option<usize> {
    let span = dilation * kernel.checked_sub(1)? + 1;
    Some((length + 2 * padding).checked_sub(span)? / stride.max(1) + 1)
}

/// The windows of `x` [N, C, H, W] as columns: [N, C KH KW, windows].
///
/// # Panics
/// If `x` has other dimensions, or the kernel does not fit.
#[track_caller]
pub fn unfold(
    x: &Tensor,
    kernel: [usize; 2],
    dilation: [usize; 2],
    padding: [usize; 2],
    stride: [usize; 2],
) -> Tensor {
    let (x, had) = batched("unfold", x, 2);
    let (n, c) = (x.shape()[0], x.shape()[1]);
    let count = |i: usize| windows(x.shape()[2 + i], kernel[i], dilation[i], padding[i], stride[i]);
    let (Some(rows), Some(columns)) = (count(0), count(1)) else {
        panic!("unfold: a kernel {kernel:?} does not fit {:?} with padding {padding:?}", x.shape());
    };
    let wide = x.pad(&[(0, 0), (0, 0), (padding[0], padding[0]), (padding[1], padding[1])], 0.0);
    let mut parts = Vec::with_capacity(kernel[0] * kernel[1]);
    for i in 0..kernel[0] {
        for j in 0..kernel[1] {
            let (top, left) = (i * dilation[0], j * dilation[1]);
            let part = wide.slice(2, top, top + (rows - 1) * stride[0] + 1, stride[0]).slice(
                3,
                left,
                left + (columns - 1) * stride[1] + 1,
                stride[1],
            );
            parts.push(part.reshape([n, c, rows * columns]));
        }
    }
    let y = stack(&parts.iter().collect::<Vec<_>>(), 2);
    unbatched(y.reshape([n, c * kernel[0] * kernel[1], rows * columns]), had)
}

/// The transpose of [`unfold`]: columns [N, C KH KW, windows] summed to where they come
/// from in [N, C, H, W].
///
/// # Panics
/// If shapes do not fit.
#[track_caller]
pub fn fold(
    x: &Tensor,
    output: [usize; 2],
    kernel: [usize; 2],
    dilation: [usize; 2],
    padding: [usize; 2],
    stride: [usize; 2],
) -> Tensor {
    let (x, had) = batched("fold", x, 1);
    let taps = kernel[0] * kernel[1];
    let count = |i: usize| windows(output[i], kernel[i], dilation[i], padding[i], stride[i]);
    let [n, rows, length] = x.shape()[..] else { unreachable!("the rank was checked") };
    let (Some(h), Some(w)) = (count(0), count(1)) else {
        panic!("fold: a kernel {kernel:?} does not fit {output:?} with padding {padding:?}");
    };
    if !rows.is_multiple_of(taps.max(1)) || length != h * w {
        panic!("fold: columns {:?} are not [N, C {taps}, {}]", x.shape(), h * w);
    }
    let c = rows / taps;
    // Each row of columns goes to one place of the kernel.
    let places = crate::tensor::eye(taps).to_dtype(x.dtype());
    let places = places.reshape([taps, 1, kernel[0], kernel[1]]).repeat([c, 1, 1, 1]);
    let op = Op::ConvInputGrad {
        stride,
        padding,
        dilation,
        groups: c,
        height: output[0],
        width: output[1],
    };
    unbatched(apply(op, &[&x.reshape([n, rows, h, w]), &places]), had)
}
