//! What an op costs: an estimate in nanoseconds on one thread, for choosing
//! between equal expressions and for deciding what is worth several threads.

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
        Op::Unary(u) => n * unary_ns(*u),
        Op::Binary(b) => n * binary_ns(*b),
        Op::Compare(_) | Op::Select {} | Op::Cast { .. } => n * 0.03,
        Op::Softmax { .. } | Op::SoftmaxGrad { .. } => n * FUNCTION,
        Op::LayerNorm { .. } | Op::LayerNormGrad { .. } => n * 0.2,
        // A function for each gate, and one of the cells.
        Op::Recurrent { .. } => {
            flops(op, operands, &results[0], hints) * FLOP
                + elements(operands[0], hints) * FUNCTION * 1.25
        }
        Op::Random { .. } | Op::Dropout { .. } => n,
        Op::Sort { .. } | Op::TopK { .. } | Op::SearchSorted { .. } => n * 30.0,
        Op::MatMul { act } | Op::Conv { act, .. } => {
            let epilogue = act.unary().map_or(0.0, |u| n * unary_ns(u) * 0.9);
            flops(op, operands, &results[0], hints) * FLOP + epilogue
        }
        _ => flops(op, operands, &results[0], hints) * FLOP,
    };
    START + moved * BYTE + work
}
