//! What an op costs: an estimate in nanoseconds on one thread, for choosing
//! between equal expressions and for deciding what is worth several threads.

use sinter_kernels::conv::{ConvKernel, ConvParams};
use sinter_runtime::op::{BinaryOp, TensorType, UnaryOp};
use sinter_runtime::{Dim, Op};

/// Starting a kernel.
const START: f64 = 30.0;
/// A byte read or written, from the second-level cache.
const BYTE: f64 = 0.02;
/// A multiply-add of a well-fed kernel.
const FLOP: f64 = 1.0 / 150.0;
/// An element through a transcendental function.
const FUNCTION: f64 = 0.35;
/// An element through a scalar library function.
const LIBRARY: f64 = 10.0;

/// Number of elements at the estimated sizes.
pub fn elements(ty: &TensorType<Dim>, hints: &[usize]) -> f64 {
    ty.shape.iter().map(|d| d.eval(hints).unwrap_or(1) as f64).product()
}

/// Number of bytes at the estimated sizes.
pub fn bytes(ty: &TensorType<Dim>, hints: &[usize]) -> f64 {
    elements(ty, hints) * ty.dtype.size() as f64
}

/// Multiplications and additions that a contraction needs; 0 for other ops.
pub fn flops(
    op: &Op<Dim>,
    operands: &[&TensorType<Dim>],
    result: &TensorType<Dim>,
    hints: &[usize],
) -> f64 {
    let n = elements(result, hints);
    match op {
        Op::MatMul { .. } => {
            let k = operands[0].shape.last().map_or(1, |d| d.eval(hints).unwrap_or(1));
            2.0 * n * k as f64
        }
        Op::Conv { .. } => {
            let w = operands[1];
            let taps: f64 =
                w.shape[1..].iter().map(|d| d.eval(hints).unwrap_or(1) as f64).product();
            2.0 * n * taps
        }
        Op::Attention { .. } => {
            let q = operands[0];
            let e = q.shape.last().map_or(1, |d| d.eval(hints).unwrap_or(1)) as f64;
            let s = operands[1].shape[q.shape.len() - 2].eval(hints).unwrap_or(1) as f64;
            4.0 * elements(q, hints) / e * s * e
        }
        // Five products of the forward pass's two.
        Op::AttentionGrad { .. } => {
            let q = operands[0];
            let s = operands[1].shape[q.shape.len() - 2].eval(hints).unwrap_or(1) as f64;
            10.0 * elements(q, hints) * s
        }
        Op::Recurrent { .. } | Op::RecurrentGrad { .. } => {
            // A row of the weight for each gate of each step.
            let (w, of) = match op {
                Op::Recurrent { .. } => (operands[1], operands[0]),
                _ => (operands[0], result),
            };
            let units = w.shape.last().map_or(1, |d| d.eval(hints).unwrap_or(1));
            2.0 * elements(of, hints) * units as f64
        }
        _ => 0.0,
    }
}

/// Nanoseconds per element of a unary function.
pub fn unary_ns(op: UnaryOp) -> f64 {
    use UnaryOp::*;
    match op {
        Neg | Abs | Sign | Square | Floor | Ceil | Round | Trunc | Relu | IsNan | IsInf
        | IsFinite | LogicalNot | BitNot => 0.03,
        // The divider takes several cycles a vector.
        Sqrt | Reciprocal | Rsqrt => 0.1,
        _ if op.lane(0.0f32).is_some() => FUNCTION,
        _ => LIBRARY,
    }
}

/// Nanoseconds per element of a binary function.
pub fn binary_ns(op: BinaryOp) -> f64 {
    use BinaryOp::*;
    match op {
        // The divider takes several cycles a vector.
        Div => 0.1,
        Pow | Rem | FloorDiv | Atan2 | Fmod | CopySign | Hypot | NextAfter | Gcd => 1.0,
        Igamma | Igammac | Zeta => LIBRARY * 5.0,
        _ => 0.03,
    }
}

/// Nanoseconds per element of an op that goes element by element, or draws.
pub fn element_wise_ns(op: &Op<Dim>) -> f64 {
    match op {
        Op::Unary(u) => unary_ns(*u),
        Op::Binary(b) => binary_ns(*b),
        Op::Random { .. } | Op::Dropout { .. } => 1.0,
        _ => 0.03,
    }
}

/// The estimate.
pub fn estimate(
    op: &Op<Dim>,
    operands: &[&TensorType<Dim>],
    results: &[TensorType<Dim>],
    hints: &[usize],
) -> f64 {
    if op.is_view() {
        // A reshape of a permuted value copies; counting a little steers away
        // from piling up views.
        return 1.0;
    }
    let n = elements(&results[0], hints);
    let moved: f64 = operands.iter().copied().chain(results).map(|t| bytes(t, hints)).sum();
    let work = match op {
        Op::Full { .. } if results[0].shape.is_empty() => return 0.0,
        Op::Unary(_) | Op::Binary(_) | Op::Compare(_) | Op::Select {} | Op::Cast { .. } => {
            n * element_wise_ns(op)
        }
        Op::Softmax { .. } | Op::SoftmaxGrad { .. } => n * FUNCTION,
        Op::LayerNorm { .. } | Op::LayerNormGrad { .. } => n * 0.2,
        // A function for each gate, and one of the cells.
        Op::Recurrent { .. } => {
            flops(op, operands, &results[0], hints) * FLOP
                + elements(operands[0], hints) * FUNCTION * 1.25
        }
        Op::Random { .. } | Op::Dropout { .. } => n * element_wise_ns(op),
        Op::Sort { .. } | Op::TopK { .. } | Op::SearchSorted { .. } => n * 30.0,
        Op::MatMul { act } | Op::Conv { act, .. } => {
            let epilogue = act.unary().map_or(0.0, |u| n * unary_ns(u) * 0.9);
            flops(op, operands, &results[0], hints) * FLOP + epilogue
        }
        _ => flops(op, operands, &results[0], hints) * FLOP,
    };
    START + moved * BYTE + work
}

/// Nanoseconds per element that is written somewhere else in another order.
const TURN: f64 = 0.25;

/// Turning images between planes and channels last.
pub fn turning_ns(ty: &TensorType<Dim>, hints: &[usize]) -> f64 {
    START + elements(ty, hints) * TURN
}

/// Nanoseconds of a cycle, about.
const CYCLE: f64 = 0.25;

/// Cycles of a step of the register tile over so many columns, eight rows at a time. Full
/// tiles are three vectors wide; narrower ones wait for the elements of the other operand.
fn tile_cycles(columns: usize) -> f64 {
    let rest = [0.0, 8.0, 9.0, 12.0][(columns % 48).div_ceil(16)];
    (columns / 48) as f64 * 12.0 + rest
}

/// How many times as fast as a register tile the processor's matrix unit multiplies.
const MATRIX_UNIT: f64 = 6.0;

/// A convolution of `batch` images of `[c, h, w]` by a kernel for `[o, c / groups, kh, kw]`,
/// in the way `kernel` computes it, on a processor with a matrix unit or without.
pub fn conv_ns(
    kernel: ConvKernel,
    matrix_unit: bool,
    batch: usize,
    input: [usize; 3],
    weight: [usize; 4],
    p: ConvParams,
) -> f64 {
    let ([c, h, w], [o, inner, kh, kw]) = (input, weight);
    let Some([oh, ow]) = p.output_size([h, w], [kh, kw]) else { return START };
    let (taps, n) = ((kh * kw) as f64, batch as f64);
    let (pixels, k) = (oh * ow, inner as f64 * taps);
    let eights = |rows: usize| rows as f64 / 8.0;
    // Pairs and quads take the place of one number; of split ones there are three products.
    let part = match kernel {
        ConvKernel::Pairs | ConvKernel::PixelRowPairs => 0.5,
        ConvKernel::Quads | ConvKernel::PixelRowQuads => 0.25,
        ConvKernel::PixelRowSplits => 1.5,
        _ => 1.0,
    };
    let cycles = match kernel {
        ConvKernel::Pointwise => n * eights(o) * tile_cycles(pixels) * k,
        ConvKernel::Direct | ConvKernel::Pairs | ConvKernel::Quads => {
            let reach = (kw - 1) * p.dilation[1] / p.stride[1];
            let by_row = oh as f64 * tile_cycles(ow);
            let across = tile_cycles(oh * (ow + reach));
            let staged = (c * h * w) as f64;
            // Quads are many sums that become numbers, and are made of four planes.
            let (slower, staged) =
                if kernel == ConvKernel::Quads { (1.2, staged) } else { (1.0, staged * 0.5) };
            n * (eights(o) * by_row.min(across) * k * part * slower + staged)
        }
        // 36 products for 16 outputs, and the transforms, which have channels for lanes.
        ConvKernel::Winograd => {
            let tiles = oh.div_ceil(4) * ow.div_ceil(4);
            n * (eights(tiles) * 36.0 * tile_cycles(o) * inner as f64
                + (c * h * w) as f64 * 0.5
                + (o * pixels) as f64 * 0.5)
        }
        // Rows of pixels end within vectors, and are staged.
        ConvKernel::Depthwise => {
            let vectors = (oh * ow.div_ceil(16)) as f64;
            n * o as f64 * (vectors * taps * 1.5 + (h * w.div_ceil(16)) as f64 * 3.0 + 200.0)
        }
        ConvKernel::PixelRows => {
            let gathered = if taps > 1.0 || p.stride != [1; 2] { 0.15 } else { 0.0 };
            eights(batch * pixels) * (tile_cycles(o) * k + 8.0 * k * gathered)
        }
        // Every number is converted once; then runs of them are gathered.
        ConvKernel::PixelRowPairs | ConvKernel::PixelRowSplits | ConvKernel::PixelRowQuads => {
            let of_tiles = if matrix_unit { MATRIX_UNIT } else { 1.0 };
            let gathered = if taps > 1.0 { k * part * 0.2 + (kh * 6) as f64 } else { 0.0 };
            let converted = n * (c * pixels.min(h * w)) as f64 * 0.25;
            let rows = batch * pixels;
            eights(rows) * tile_cycles(o) * k * part / of_tiles + rows as f64 * gathered + converted
        }
        ConvKernel::DepthwiseLanes => {
            n * o.div_ceil(16) as f64 * (pixels as f64 * taps * 0.7 + (h * w) as f64 * 1.5)
        }
    };
    START + cycles * CYCLE + weights_ns(kernel.packed_len(weight) * size_of::<f32>())
}

/// Bytes of weights that stay near from one run to the next, and nanoseconds of reading a
/// byte of them and of the others.
const NEAR: usize = 2 << 20;
const NEAR_BYTE: f64 = 0.011;
const FAR_BYTE: f64 = 0.031;

/// Reading weights that a run uses once.
fn weights_ns(bytes: usize) -> f64 {
    let near = bytes.min(NEAR);
    near as f64 * NEAR_BYTE + (bytes - near) as f64 * FAR_BYTE
}
