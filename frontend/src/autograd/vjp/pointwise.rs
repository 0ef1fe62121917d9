//! Derivatives of element-wise functions.

use super::{Context, Grads};
use crate::tensor::{Tensor, apply, full_like, ones_like, zeros_like};
use sinter_runtime::Op;
use sinter_runtime::op::{BinaryOp, UnaryOp};
use smallvec::smallvec;

#[rustfmt::skip]
pub(super) fn unary(u: UnaryOp, c: &Context, g: &Tensor) -> Tensor {
    use UnaryOp::*;
    const SQRT_PI: f64 = 1.772_453_850_905_516;
    const SQRT_TAU: f64 = 2.506_628_274_631_000_7;
    let unary_op = |u, x: &Tensor| apply(Op::Unary(u), &[x]);
    match u {
        Neg => -g,
        Abs => g * c.x(0).sign(),
        Sign | Floor | Ceil | Round | Trunc => zeros_like(g),
        Reciprocal => -(g * c.y().square()),
        Sqrt => g * 0.5 / c.y(),
        Rsqrt => g * -0.5 * c.y() * c.y().square(),
        Square => g * c.x(0) * 2.0,
        Exp => g * c.y(),
        Exp2 => g * c.y() * std::f64::consts::LN_2,
        Expm1 => g * (c.y() + 1.0),
        Log => g / c.x(0),
        Log2 => g / (c.x(0) * std::f64::consts::LN_2),
        Log10 => g / (c.x(0) * std::f64::consts::LN_10),
        Log1p => g / (c.x(0) + 1.0),
        Sin => g * c.x(0).cos(),
        Cos => -(g * c.x(0).sin()),
        Tan => g * (c.y().square() + 1.0),
        Asin => g * (1.0 - c.x(0).square()).rsqrt(),
        Acos => -(g * (1.0 - c.x(0).square()).rsqrt()),
        Atan => g / (c.x(0).square() + 1.0),
        Sinh => g * c.x(0).cosh(),
        Cosh => g * c.x(0).sinh(),
        Tanh => g * (1.0 - c.y().square()),
        Asinh => g * (c.x(0).square() + 1.0).rsqrt(),
        Acosh => g * (c.x(0).square() - 1.0).rsqrt(),
        Atanh => g / (1.0 - c.x(0).square()),
        Sigmoid => g * c.y() * (1.0 - c.y()),
        Erf => g * (-c.x(0).square()).exp() * (2.0 / SQRT_PI),
        Relu => apply(Op::Binary(BinaryOp::Gate), &[g, c.y()]),
        Silu => {
            let (x, s) = (c.x(0), c.x(0).sigmoid());
            g * &s * (1.0 + x * (1.0 - &s))
        }
        Gelu => {
            // Φ(x) + x φ(x)
            let x = c.x(0);
            let cdf = ((x * std::f64::consts::FRAC_1_SQRT_2).erf() + 1.0) * 0.5;
            let pdf = (x.square() * -0.5).exp() * (std::f64::consts::FRAC_1_SQRT_2 / SQRT_PI);
            g * (cdf + x * pdf)
        }
        GeluTanh => {
            const K: f64 = 0.797_884_560_802_865_4; // sqrt(2/π)
            let x = c.x(0);
            let t = ((x + x * x.square() * 0.044_715) * K).tanh();
            let du = (x.square() * (3.0 * 0.044_715) + 1.0) * K;
            g * (0.5 * (&t + 1.0) + 0.5 * x * (1.0 - t.square()) * du)
        }
        Softplus => g * c.x(0).sigmoid(),
        IsNan | IsInf | IsFinite | LogicalNot | BitNot | Exponent => zeros_like(g),
        Erfc => g * (-c.x(0).square()).exp() * (-2.0 / SQRT_PI),
        Erfinv => g * c.y().square().exp() * (SQRT_PI / 2.0),
        Erfcx => {
            let x = c.x(0);
            g * (x * unary_op(Erfcx, x) * 2.0 - 2.0 / SQRT_PI)
        }
        Ndtri => g * (c.y().square() * 0.5).exp() * SQRT_TAU,
        LogNdtr => {
            let tail = unary_op(Erfcx, &(c.x(0) * -std::f64::consts::FRAC_1_SQRT_2));
            g / tail * (2.0 / SQRT_TAU)
        }
        Lgamma => g * unary_op(Digamma, c.x(0)),
        Digamma => {
            let x = c.x(0);
            g * apply(Op::Binary(BinaryOp::Zeta), &[&full_like(x, 2.0), x])
        }
        I0 => g * unary_op(I1, c.x(0)),
        I0e => {
            let x = c.x(0);
            g * (unary_op(I1e, x) - x.sign() * unary_op(I0e, x))
        }
        I1 => {
            // I_1(x) / x is 1/2 at zero.
            let x = c.x(0);
            let zero = x.eq(0.0);
            let ratio = unary_op(I1, x) / zero.where_(&ones_like(x), x);
            g * (unary_op(I0, x) - zero.where_(&full_like(x, 0.5), &ratio))
        }
        I1e => {
            let x = c.x(0);
            let zero = x.eq(0.0);
            let y = unary_op(I1e, x);
            let ratio = &y / zero.where_(&ones_like(x), x);
            let ratio = zero.where_(&full_like(x, 0.5), &ratio);
            g * (unary_op(I0e, x) - x.sign() * y - ratio)
        }
        K0 => -(g * unary_op(K1, c.x(0))),
        K0e => g * (unary_op(K0e, c.x(0)) - unary_op(K1e, c.x(0))),
        K1 => -(g * (unary_op(K0, c.x(0)) + unary_op(K1, c.x(0)) / c.x(0))),
        K1e => {
            let x = c.x(0);
            let y = unary_op(K1e, x);
            g * (&y - unary_op(K0e, x) - &y / x)
        }
        J0 => -(g * unary_op(J1, c.x(0))),
        J1 => {
            // J_1(x) / x is 1/2 at zero.
            let x = c.x(0);
            let zero = x.eq(0.0);
            let ratio = unary_op(J1, x) / zero.where_(&ones_like(x), x);
            g * (unary_op(J0, x) - zero.where_(&full_like(x, 0.5), &ratio))
        }
        Y0 => -(g * unary_op(Y1, c.x(0))),
        Y1 => g * (unary_op(Y0, c.x(0)) - unary_op(Y1, c.x(0)) / c.x(0)),
    }
}

#[rustfmt::skip]
pub(super) fn binary(b: BinaryOp, c: &Context, g: &Tensor) -> Grads {
    let (na, nb) = (c.needs[0], c.needs[1]);
    match b {
        BinaryOp::Add => smallvec![na.then(|| g.clone()), nb.then(|| g.clone())],
        BinaryOp::Sub => smallvec![na.then(|| g.clone()), nb.then(|| -g)],
        BinaryOp::Mul => smallvec![na.then(|| g * c.x(1)), nb.then(|| g * c.x(0))],
        BinaryOp::Div => {
            let ga = g / c.x(1);
            let gb = nb.then(|| -(&ga * c.x(0) / c.x(1)));
            smallvec![na.then_some(ga), gb]
        }
        BinaryOp::Max | BinaryOp::Min => {
            // Equal operands share the gradient.
            let (a, b_) = (c.x(0), c.x(1));
            let wins = if b == BinaryOp::Max { a.gt(b_) } else { a.lt(b_) };
            let share = apply(Op::Select {}, &[&wins, &ones_like(g), &zeros_like(g)]);
            let share = a.eq(b_).where_(&full_like(g, 0.5), &share);
            smallvec![na.then(|| g * &share), nb.then(|| g * (1.0 - &share))]
        }
        BinaryOp::Pow => {
            let (a, b_, y) = (c.x(0), c.x(1), c.y());
            let zero = zeros_like(y);
            smallvec![
                na.then(|| {
                    // b a^(b-1), which is 0 where b is 0 even if a is.
                    let d = g * b_ * a.pow(b_ - 1.0);
                    b_.eq(0.0).where_(&zero, &d)
                }),
                nb.then(|| {
                    // y ln a, which is 0 where y is.
                    let d = g * y * a.ln();
                    a.eq(0.0).logical_and(&b_.ge(0.0)).where_(&zero, &d)
                }),
            ]
        }
        BinaryOp::Rem => smallvec![
            na.then(|| g.clone()),
            nb.then(|| -(g * (c.x(0) / c.x(1)).floor())),
        ],
        BinaryOp::Atan2 => {
            let r = g / (c.x(0).square() + c.x(1).square());
            smallvec![na.then(|| &r * c.x(1)), nb.then(|| -(&r * c.x(0)))]
        }
        BinaryOp::Gate => smallvec![
            na.then(|| apply(Op::Binary(BinaryOp::Gate), &[g, c.x(1)])),
            nb.then(|| zeros_like(g)),
        ],
        BinaryOp::Fmod => smallvec![
            na.then(|| g.clone()),
            nb.then(|| -(g * (c.x(0) / c.x(1)).trunc())),
        ],
        BinaryOp::CopySign => smallvec![
            na.then(|| {
                let one = ones_like(g);
                g * c.x(0).sign() * apply(Op::Binary(b), &[&one, c.x(1)])
            }),
            nb.then(|| zeros_like(g)),
        ],
        BinaryOp::Hypot => {
            let r = g / c.y();
            smallvec![na.then(|| &r * c.x(0)), nb.then(|| &r * c.x(1))]
        }
        BinaryOp::Igamma | BinaryOp::Igammac | BinaryOp::Zeta if na => panic!(
            "{}: the derivative by the first operand has no form in these functions; `detach` it",
            b.name()
        ),
        BinaryOp::Igamma | BinaryOp::Igammac => {
            // x^(a-1) e^-x / Γ(a)
            let (a, x) = (c.x(0), c.x(1));
            let lgamma = apply(Op::Unary(UnaryOp::Lgamma), &[a]);
            let d = g * ((a - 1.0) * x.ln() - x - lgamma).exp();
            smallvec![None, Some(if b == BinaryOp::Igamma { d } else { -d })]
        }
        BinaryOp::Zeta => {
            let (s, q) = (c.x(0), c.x(1));
            smallvec![None, Some(-(g * s * apply(Op::Binary(b), &[&(s + 1.0), q])))]
        }
        BinaryOp::NextAfter => smallvec![na.then(|| g.clone()), nb.then(|| zeros_like(g))],
        BinaryOp::Gcd
        | BinaryOp::FloorDiv | BinaryOp::And | BinaryOp::Or | BinaryOp::Xor | BinaryOp::Shl
        | BinaryOp::Shr => smallvec![na.then(|| zeros_like(g)), nb.then(|| zeros_like(g))],
    }
}
