//! Ops on complex numbers, in terms of their real and imaginary parts.
//!
//! Complex numbers have no kernels. Ops that only move elements ([`Op::moves`]) take
//! them as they are; every other op that [`takes`] them is made of real ops on views
//! of the parts. So the tape records real ops, and gradients come out as PyTorch's:
//! the derivative by the real part plus `i` times that by the imaginary part.
//!
//! Formulas of the functions: DLMF 4.15, 4.21, 4.23, 4.35, 4.37; quotients are scaled
//! as by R. L. Smith (1962), so that only results overflow.

use super::*;
use crate::OpError;

type R<B> = Result<<B as Build>::Value, OpError>;

/// Whether the op is one of real ops on complex numbers, given the types of its
/// operands. Libraries have kernels of their own for complex matrices.
pub fn concerns<D>(op: &Op<D>, mut operands: impl Iterator<Item = DType>) -> bool {
    let makes = match op {
        Op::Cast { dtype } | Op::Iota { dtype, .. } | Op::Random { dtype, .. } => {
            dtype.is_complex()
        }
        _ => false,
    };
    makes || (operands.any(DType::is_complex) && !op.moves() && !op.is_linalg())
}

/// Whether an op that computes takes complex operands.
pub fn takes<D>(op: &Op<D>) -> bool {
    use UnaryOp::*;
    match op {
        Op::Unary(u) => matches!(
            u,
            Neg | Abs
                | Reciprocal
                | Sqrt
                | Rsqrt
                | Square
                | Exp
                | Exp2
                | Expm1
                | Log
                | Log2
                | Log10
                | Log1p
                | Sin
                | Cos
                | Tan
                | Asin
                | Acos
                | Atan
                | Sinh
                | Cosh
                | Tanh
                | Asinh
                | Acosh
                | Atanh
                | Sigmoid
                | Silu
                | IsNan
                | IsInf
                | IsFinite
                | LogicalNot
        ),
        Op::Binary(b) => matches!(
            b,
            BinaryOp::Add | BinaryOp::Sub | BinaryOp::Mul | BinaryOp::Div | BinaryOp::Pow
        ),
        Op::Compare(c) => matches!(c, CompareOp::Eq | CompareOp::Ne),
        Op::Reduce { kind, .. } => !matches!(kind, ReduceKind::Max | ReduceKind::Min),
        Op::Scan { kind, .. } => *kind == ScanKind::Sum,
        Op::Scatter { kind, .. } => *kind == ScatterKind::Add,
        Op::MatMul { act } | Op::Conv { act, .. } => *act == Act::None,
        Op::Cast { .. }
        | Op::Iota { .. }
        | Op::IndexAdd { .. }
        | Op::ConvInputGrad { .. }
        | Op::ConvWeightGrad { .. } => true,
        _ => false,
    }
}

/// A complex value by its parts.
struct Parts<V> {
    re: V,
    im: V,
}

/// Expands an op that computes with complex numbers over `b`.
///
/// # Errors
/// Those of the ops it is made of, and where the op does not take complex numbers.
pub fn expand<B: Build>(b: &mut B, op: &Op<B::Dim>, xs: &[B::Value]) -> R<B> {
    if !takes(op) {
        return Err(OpError::dtype(op.name(), "does not take complex numbers"));
    }
    match op {
        Op::Unary(u) => unary(b, *u, &xs[0]),
        Op::Binary(BinaryOp::Add | BinaryOp::Sub) | Op::IndexAdd { .. } => on_parts(b, op, xs),
        Op::Binary(o) => {
            let (x, y) = (split(b, &xs[0])?, split(b, &xs[1])?);
            let z = match o {
                BinaryOp::Mul => mul(b, &x, &y)?,
                BinaryOp::Div => div(b, &x, &y)?,
                _ => pow(b, &x, &y)?,
            };
            join(b, z)
        }
        Op::Compare(c) => {
            let both = if *c == CompareOp::Eq { BinaryOp::And } else { BinaryOp::Or };
            let (x, y) = (split(b, &xs[0])?, split(b, &xs[1])?);
            let re = b.op(op.clone(), &[x.re, y.re])?;
            let im = b.op(op.clone(), &[x.im, y.im])?;
            b.binary(both, &re, &im)
        }
        Op::Cast { dtype } => cast(b, *dtype, &xs[0]),
        Op::Iota { dtype, axis, shape } => {
            let real = Op::Iota { dtype: dtype.real(), axis: *axis, shape: shape.clone() };
            let x = b.op(real, &[])?;
            cast(b, *dtype, &x)
        }
        Op::Reduce { kind: ReduceKind::Prod, axes, keep } => product(b, axes, *keep, &xs[0]),
        Op::Reduce { kind: ReduceKind::Any | ReduceKind::All, .. } => {
            let truth = cast(b, DType::Bool, &xs[0])?;
            b.op(op.clone(), &[truth])
        }
        Op::Reduce { .. } | Op::Scan { .. } => on_parts(b, op, xs),
        Op::Scatter { .. } => {
            // The index of either part.
            let mut shape = b.type_of(&xs[1]).shape;
            shape.push(Extent::of(1));
            let index = b.op(Op::Reshape { shape: shape.clone() }, &xs[1..2])?;
            *shape.last_mut().expect("just pushed") = Extent::of(2);
            let index = b.op(Op::Broadcast { shape }, &[index])?;
            let (base, values) = (as_real(b, &xs[0])?, as_real(b, &xs[2])?);
            let y = b.op(op.clone(), &[base, index, values])?;
            b.op(Op::ViewAsComplex {}, &[y])
        }
        _ => {
            // Bilinear; a bias is added.
            let (x, y) = (split(b, &xs[0])?, split(b, &xs[1])?);
            let z = bilinear(b, &x, &y, &mut |b, x, y| b.op(op.clone(), &[x.clone(), y.clone()]))?;
            let z = join(b, z)?;
            let Some(bias) = xs.get(2) else { return Ok(z) };
            let mut bias = bias.clone();
            if matches!(op, Op::Conv { .. }) {
                let mut shape = b.type_of(&bias).shape;
                shape.extend([Extent::of(1), Extent::of(1)]);
                bias = b.op(Op::Reshape { shape }, &[bias])?;
            }
            b.binary(BinaryOp::Add, &z, &bias)
        }
    }
}

fn as_real<B: Build>(b: &mut B, x: &B::Value) -> R<B> {
    b.op(Op::ViewAsReal {}, std::slice::from_ref(x))
}

/// An op that is linear over the reals, on both parts at once: axes are counted from
/// the front, and the parts lie along a further last one.
fn on_parts<B: Build>(b: &mut B, op: &Op<B::Dim>, xs: &[B::Value]) -> R<B> {
    let mut parts = Vec::with_capacity(xs.len());
    for x in xs {
        let complex = b.type_of(x).dtype.is_complex();
        parts.push(if complex { as_real(b, x)? } else { x.clone() });
    }
    let y = b.op(op.clone(), &parts)?;
    b.op(Op::ViewAsComplex {}, &[y])
}

fn split<B: Build>(b: &mut B, x: &B::Value) -> Result<Parts<B::Value>, OpError> {
    let shape = b.type_of(x).shape;
    let both = as_real(b, x)?;
    let mut part = |at: usize| {
        let (start, len) = (Extent::of(at), Extent::of(1));
        let one = Op::Slice { axis: shape.len(), start, len, step: 1 };
        let one = b.op(one, std::slice::from_ref(&both))?;
        b.op(Op::Reshape { shape: shape.clone() }, &[one])
    };
    Ok(Parts { re: part(0)?, im: part(1)? })
}

fn join<B: Build>(b: &mut B, z: Parts<B::Value>) -> R<B> {
    let mut shape = b.type_of(&z.re).shape;
    let axis = shape.len();
    shape.push(Extent::of(1));
    let re = b.op(Op::Reshape { shape: shape.clone() }, &[z.re])?;
    let im = b.op(Op::Reshape { shape }, &[z.im])?;
    let both = b.op(Op::Concat { axis }, &[re, im])?;
    b.op(Op::ViewAsComplex {}, &[both])
}

fn cast<B: Build>(b: &mut B, dtype: DType, x: &B::Value) -> R<B> {
    let from = b.type_of(x).dtype;
    let to = |b: &mut B, dtype, x: &B::Value| b.op(Op::Cast { dtype }, std::slice::from_ref(x));
    match (from.is_complex(), dtype.is_complex()) {
        (true, true) => {
            let parts = as_real(b, x)?;
            let parts = to(b, dtype.real(), &parts)?;
            b.op(Op::ViewAsComplex {}, &[parts])
        }
        (true, false) if dtype == DType::Bool => {
            let x = split(b, x)?;
            let (re, im) = (to(b, dtype, &x.re)?, to(b, dtype, &x.im)?);
            b.binary(BinaryOp::Or, &re, &im)
        }
        (true, false) => {
            let x = split(b, x)?;
            to(b, dtype, &x.re)
        }
        (false, true) => {
            let re = to(b, dtype.real(), x)?;
            let im = zeros(b, &re)?;
            join(b, Parts { re, im })
        }
        (false, false) => to(b, dtype, x),
    }
}

fn zeros<B: Build>(b: &mut B, like: &B::Value) -> R<B> {
    let t = b.type_of(like);
    b.op(Op::Full { value: Scalar::Float(0.0), dtype: t.dtype, shape: t.shape }, &[])
}

/// Real arithmetic, shorter to read.
fn bin<B: Build>(b: &mut B, op: BinaryOp, x: &B::Value, y: &B::Value) -> R<B> {
    b.binary(op, x, y)
}

fn scaled<B: Build>(b: &mut B, x: &B::Value, k: f64) -> R<B> {
    let k = b.constant(k, x)?;
    b.binary(BinaryOp::Mul, x, &k)
}

fn plus<B: Build>(b: &mut B, x: &B::Value, k: f64) -> R<B> {
    let k = b.constant(k, x)?;
    b.binary(BinaryOp::Add, x, &k)
}

/// `z (0 + i)`
fn times_i<B: Build>(b: &mut B, z: Parts<B::Value>) -> Result<Parts<B::Value>, OpError> {
    Ok(Parts { re: b.unary(UnaryOp::Neg, &z.im)?, im: z.re })
}

/// `z (0 - i)`
fn times_minus_i<B: Build>(b: &mut B, z: Parts<B::Value>) -> Result<Parts<B::Value>, OpError> {
    Ok(Parts { im: b.unary(UnaryOp::Neg, &z.re)?, re: z.im })
}

/// A real product of some kind.
type Product<'a, B> = dyn FnMut(&mut B, &<B as Build>::Value, &<B as Build>::Value) -> R<B> + 'a;

fn bilinear<B: Build>(
    b: &mut B,
    x: &Parts<B::Value>,
    y: &Parts<B::Value>,
    f: &mut Product<B>,
) -> Result<Parts<B::Value>, OpError> {
    let (rr, ii) = (f(b, &x.re, &y.re)?, f(b, &x.im, &y.im)?);
    let (ri, ir) = (f(b, &x.re, &y.im)?, f(b, &x.im, &y.re)?);
    Ok(Parts { re: bin(b, BinaryOp::Sub, &rr, &ii)?, im: bin(b, BinaryOp::Add, &ri, &ir)? })
}

fn mul<B: Build>(
    b: &mut B,
    x: &Parts<B::Value>,
    y: &Parts<B::Value>,
) -> Result<Parts<B::Value>, OpError> {
    bilinear(b, x, y, &mut |b, x, y| b.binary(BinaryOp::Mul, x, y))
}

fn div<B: Build>(
    b: &mut B,
    x: &Parts<B::Value>,
    y: &Parts<B::Value>,
) -> Result<Parts<B::Value>, OpError> {
    let (ar, ai) = (b.unary(UnaryOp::Abs, &y.re)?, b.unary(UnaryOp::Abs, &y.im)?);
    let s = bin(b, BinaryOp::Max, &ar, &ai)?;
    let (re, im) = (bin(b, BinaryOp::Div, &y.re, &s)?, bin(b, BinaryOp::Div, &y.im, &s)?);
    // Not less than 1, where `y` is neither zero nor infinite.
    let (rr, ii) = (b.unary(UnaryOp::Square, &re)?, b.unary(UnaryOp::Square, &im)?);
    let norm = bin(b, BinaryOp::Add, &rr, &ii)?;
    let norm = bin(b, BinaryOp::Mul, &norm, &s)?;
    let im = b.unary(UnaryOp::Neg, &im)?;
    let z = mul(b, x, &Parts { re, im })?;
    Ok(Parts { re: bin(b, BinaryOp::Div, &z.re, &norm)?, im: bin(b, BinaryOp::Div, &z.im, &norm)? })
}

/// `|z|`, with the derivative 0 at 0.
fn modulus<B: Build>(b: &mut B, z: &Parts<B::Value>) -> R<B> {
    let (zero, one) = (b.constant(0.0, &z.re)?, b.constant(1.0, &z.re)?);
    let eq = Op::Compare(CompareOp::Eq);
    let re = b.op(eq.clone(), &[z.re.clone(), zero.clone()])?;
    let im = b.op(eq, &[z.im.clone(), zero.clone()])?;
    let none = b.binary(BinaryOp::And, &re, &im)?;
    let re = b.op(Op::Select {}, &[none.clone(), one, z.re.clone()])?;
    let y = b.binary(BinaryOp::Hypot, &re, &z.im)?;
    b.op(Op::Select {}, &[none, zero, y])
}

fn exp<B: Build>(b: &mut B, z: &Parts<B::Value>) -> Result<Parts<B::Value>, OpError> {
    let e = b.unary(UnaryOp::Exp, &z.re)?;
    let (c, s) = (b.unary(UnaryOp::Cos, &z.im)?, b.unary(UnaryOp::Sin, &z.im)?);
    Ok(Parts { re: bin(b, BinaryOp::Mul, &e, &c)?, im: bin(b, BinaryOp::Mul, &e, &s)? })
}

fn log<B: Build>(b: &mut B, z: &Parts<B::Value>) -> Result<Parts<B::Value>, OpError> {
    let m = modulus(b, z)?;
    Ok(Parts { re: b.unary(UnaryOp::Log, &m)?, im: bin(b, BinaryOp::Atan2, &z.im, &z.re)? })
}

fn log1p<B: Build>(b: &mut B, z: &Parts<B::Value>) -> Result<Parts<B::Value>, OpError> {
    // |1 + z|² = 1 + (x (2 + x) + y²)
    let x = plus(b, &z.re, 2.0)?;
    let x = bin(b, BinaryOp::Mul, &x, &z.re)?;
    let y = b.unary(UnaryOp::Square, &z.im)?;
    let m = bin(b, BinaryOp::Add, &x, &y)?;
    let l = b.unary(UnaryOp::Log1p, &m)?;
    let one = plus(b, &z.re, 1.0)?;
    Ok(Parts { re: scaled(b, &l, 0.5)?, im: bin(b, BinaryOp::Atan2, &z.im, &one)? })
}

/// The root with a real part that is not negative: with `t = sqrt((|x| + |z|) / 2)`,
/// `t + i y / 2t` to the right of the imaginary axis, `|y| / 2t ± i t` to the left.
fn sqrt<B: Build>(b: &mut B, z: &Parts<B::Value>) -> Result<Parts<B::Value>, OpError> {
    let m = modulus(b, z)?;
    let ax = b.unary(UnaryOp::Abs, &z.re)?;
    // Halved before they are added, so that the sum does not overflow.
    let (hx, hm) = (scaled(b, &ax, 0.5)?, scaled(b, &m, 0.5)?);
    let h = bin(b, BinaryOp::Add, &hx, &hm)?;
    let t = b.unary(UnaryOp::Sqrt, &h)?;
    let zero = b.constant(0.0, &t)?;
    let none = b.op(Op::Compare(CompareOp::Eq), &[t.clone(), zero.clone()])?;
    let two = scaled(b, &t, 2.0)?;
    let one = b.constant(1.0, &t)?;
    let safe = b.op(Op::Select {}, &[none, one, two])?;
    let u = bin(b, BinaryOp::Div, &z.im, &safe)?;
    let au = b.unary(UnaryOp::Abs, &u)?;
    let nt = b.unary(UnaryOp::Neg, &t)?;
    let below = b.op(Op::Compare(CompareOp::Lt), &[z.im.clone(), zero.clone()])?;
    let signed = b.op(Op::Select {}, &[below, nt, t.clone()])?;
    let right = b.op(Op::Compare(CompareOp::Ge), &[z.re.clone(), zero])?;
    Ok(Parts {
        re: b.op(Op::Select {}, &[right.clone(), t, au])?,
        im: b.op(Op::Select {}, &[right, u, signed])?,
    })
}

/// `e^(y log x)`; `0^0 = 1`, `0^y = 0`.
fn pow<B: Build>(
    b: &mut B,
    x: &Parts<B::Value>,
    y: &Parts<B::Value>,
) -> Result<Parts<B::Value>, OpError> {
    let zero = b.constant(0.0, &x.re)?;
    let one = b.constant(1.0, &x.re)?;
    let is_zero = |b: &mut B, z: &Parts<B::Value>| {
        let eq = Op::Compare(CompareOp::Eq);
        let re = b.op(eq.clone(), &[z.re.clone(), zero.clone()])?;
        let im = b.op(eq, &[z.im.clone(), zero.clone()])?;
        b.binary(BinaryOp::And, &re, &im)
    };
    let (no_base, no_power) = (is_zero(b, x)?, is_zero(b, y)?);
    // The logarithm of another number where there is none.
    let base = Parts {
        re: b.op(Op::Select {}, &[no_base.clone(), one.clone(), x.re.clone()])?,
        im: x.im.clone(),
    };
    let l = log(b, &base)?;
    let l = mul(b, y, &l)?;
    let z = exp(b, &l)?;
    let of_zero = b.op(Op::Select {}, &[no_power, one, zero.clone()])?;
    Ok(Parts {
        re: b.op(Op::Select {}, &[no_base.clone(), of_zero, z.re])?,
        im: b.op(Op::Select {}, &[no_base, zero, z.im])?,
    })
}

/// `f(x) g(y) + i s h(x) k(y)`
fn crossed<B: Build>(
    b: &mut B,
    z: &Parts<B::Value>,
    [f, g, h, k]: [UnaryOp; 4],
    s: f64,
) -> Result<Parts<B::Value>, OpError> {
    let (fx, gy) = (b.unary(f, &z.re)?, b.unary(g, &z.im)?);
    let (hx, ky) = (b.unary(h, &z.re)?, b.unary(k, &z.im)?);
    let im = bin(b, BinaryOp::Mul, &hx, &ky)?;
    let im = if s < 0.0 { b.unary(UnaryOp::Neg, &im)? } else { im };
    Ok(Parts { re: bin(b, BinaryOp::Mul, &fx, &gy)?, im })
}

/// With `t = tanh x` and `u = tan y`: `(t (1 + u²) + i u (1 - t²)) / (1 + t² u²)`.
fn tanh<B: Build>(b: &mut B, z: &Parts<B::Value>) -> Result<Parts<B::Value>, OpError> {
    let (t, u) = (b.unary(UnaryOp::Tanh, &z.re)?, b.unary(UnaryOp::Tan, &z.im)?);
    let (tt, uu) = (b.unary(UnaryOp::Square, &t)?, b.unary(UnaryOp::Square, &u)?);
    let below = bin(b, BinaryOp::Mul, &tt, &uu)?;
    let below = plus(b, &below, 1.0)?;
    let re = plus(b, &uu, 1.0)?;
    let re = bin(b, BinaryOp::Mul, &re, &t)?;
    let im = b.unary(UnaryOp::Neg, &tt)?;
    let im = plus(b, &im, 1.0)?;
    let im = bin(b, BinaryOp::Mul, &im, &u)?;
    Ok(Parts { re: bin(b, BinaryOp::Div, &re, &below)?, im: bin(b, BinaryOp::Div, &im, &below)? })
}

/// `log(z + sqrt(z² + 1))`
fn asinh<B: Build>(b: &mut B, z: &Parts<B::Value>) -> Result<Parts<B::Value>, OpError> {
    let mut s = mul(b, z, z)?;
    s.re = plus(b, &s.re, 1.0)?;
    let s = sqrt(b, &s)?;
    let re = bin(b, BinaryOp::Add, &z.re, &s.re)?;
    let im = bin(b, BinaryOp::Add, &z.im, &s.im)?;
    log(b, &Parts { re, im })
}

/// `log(z + sqrt(z + 1) sqrt(z - 1))`
fn acosh<B: Build>(b: &mut B, z: &Parts<B::Value>) -> Result<Parts<B::Value>, OpError> {
    let above = Parts { re: plus(b, &z.re, 1.0)?, im: z.im.clone() };
    let below = Parts { re: plus(b, &z.re, -1.0)?, im: z.im.clone() };
    let (above, below) = (sqrt(b, &above)?, sqrt(b, &below)?);
    let s = mul(b, &above, &below)?;
    let re = bin(b, BinaryOp::Add, &z.re, &s.re)?;
    let im = bin(b, BinaryOp::Add, &z.im, &s.im)?;
    log(b, &Parts { re, im })
}

/// `(log(1 + z) - log(1 - z)) / 2`
fn atanh<B: Build>(b: &mut B, z: &Parts<B::Value>) -> Result<Parts<B::Value>, OpError> {
    let minus = Parts { re: b.unary(UnaryOp::Neg, &z.re)?, im: b.unary(UnaryOp::Neg, &z.im)? };
    let (p, m) = (log1p(b, z)?, log1p(b, &minus)?);
    let re = bin(b, BinaryOp::Sub, &p.re, &m.re)?;
    let im = bin(b, BinaryOp::Sub, &p.im, &m.im)?;
    Ok(Parts { re: scaled(b, &re, 0.5)?, im: scaled(b, &im, 0.5)? })
}

fn unary<B: Build>(b: &mut B, op: UnaryOp, x: &B::Value) -> R<B> {
    use UnaryOp::*;
    if op == Neg {
        return on_parts(b, &Op::Unary(Neg), std::slice::from_ref(x));
    }
    let z = split(b, x)?;
    let both = |b: &mut B, join| {
        let (re, im) = (b.unary(op, &z.re)?, b.unary(op, &z.im)?);
        b.binary(join, &re, &im)
    };
    let times = |b: &mut B, z: Parts<B::Value>, k: f64| -> Result<_, OpError> {
        Ok(Parts { re: scaled(b, &z.re, k)?, im: scaled(b, &z.im, k)? })
    };
    let one = |b: &mut B| -> Result<_, OpError> {
        Ok(Parts { re: b.constant(1.0, &z.re)?, im: b.constant(0.0, &z.re)? })
    };
    let y = match op {
        Abs => return modulus(b, &z),
        IsNan | IsInf => return both(b, BinaryOp::Or),
        IsFinite | LogicalNot => return both(b, BinaryOp::And),
        Square => mul(b, &z, &z)?,
        Reciprocal => {
            let one = one(b)?;
            div(b, &one, &z)?
        }
        Sqrt => sqrt(b, &z)?,
        Rsqrt => {
            let (one, root) = (one(b)?, sqrt(b, &z)?);
            div(b, &one, &root)?
        }
        Exp => exp(b, &z)?,
        Exp2 => {
            let z = times(b, z, std::f64::consts::LN_2)?;
            exp(b, &z)?
        }
        Expm1 => {
            // e^x cos y - 1 = (e^x - 1) cos y - 2 sin²(y / 2)
            let (e, c) = (b.unary(Expm1, &z.re)?, b.unary(Cos, &z.im)?);
            let re = bin(b, BinaryOp::Mul, &e, &c)?;
            let half = scaled(b, &z.im, 0.5)?;
            let half = b.unary(Sin, &half)?;
            let half = b.unary(Square, &half)?;
            let half = scaled(b, &half, 2.0)?;
            let (e, s) = (b.unary(Exp, &z.re)?, b.unary(Sin, &z.im)?);
            Parts { re: bin(b, BinaryOp::Sub, &re, &half)?, im: bin(b, BinaryOp::Mul, &e, &s)? }
        }
        Log => log(b, &z)?,
        Log2 => {
            let l = log(b, &z)?;
            times(b, l, std::f64::consts::LOG2_E)?
        }
        Log10 => {
            let l = log(b, &z)?;
            times(b, l, std::f64::consts::LOG10_E)?
        }
        Log1p => log1p(b, &z)?,
        Sin => crossed(b, &z, [Sin, Cosh, Cos, Sinh], 1.0)?,
        Cos => crossed(b, &z, [Cos, Cosh, Sin, Sinh], -1.0)?,
        Sinh => crossed(b, &z, [Sinh, Cos, Cosh, Sin], 1.0)?,
        Cosh => crossed(b, &z, [Cosh, Cos, Sinh, Sin], 1.0)?,
        Tanh => tanh(b, &z)?,
        Tan => {
            let z = times_i(b, z)?;
            let t = tanh(b, &z)?;
            times_minus_i(b, t)?
        }
        Asinh => asinh(b, &z)?,
        Asin | Acos => {
            let z = times_i(b, z)?;
            let a = asinh(b, &z)?;
            let mut a = times_minus_i(b, a)?;
            if op == Acos {
                a = times(b, a, -1.0)?;
                a.re = plus(b, &a.re, std::f64::consts::FRAC_PI_2)?;
            }
            a
        }
        Acosh => acosh(b, &z)?,
        Atanh => atanh(b, &z)?,
        Atan => {
            let z = times_i(b, z)?;
            let a = atanh(b, &z)?;
            times_minus_i(b, a)?
        }
        Sigmoid | Silu => {
            let minus = Parts { re: b.unary(Neg, &z.re)?, im: b.unary(Neg, &z.im)? };
            let mut e = exp(b, &minus)?;
            e.re = plus(b, &e.re, 1.0)?;
            let one = if op == Silu { z } else { one(b)? };
            div(b, &one, &e)?
        }
        _ => return Err(OpError::dtype(op.name(), "does not take complex numbers")),
    };
    // A constant part is as large as the other.
    let shape = b.type_of(x).shape;
    if b.type_of(&y.im).shape != shape {
        let im = b.op(Op::Broadcast { shape }, &[y.im])?;
        return join(b, Parts { re: y.re, im });
    }
    join(b, y)
}

/// Products along axes, in halves: as many steps as the logarithm of their extent.
fn product<B: Build>(b: &mut B, axes: &[usize], keep: bool, x: &B::Value) -> R<B> {
    let mut x = x.clone();
    for &axis in axes {
        loop {
            let shape = b.type_of(&x).shape;
            let Some(n) = shape[axis].known() else {
                return Err(OpError::unsupported(
                    "prod",
                    "the product of complex numbers needs a known extent",
                ));
            };
            if n == 1 {
                break;
            }
            if n == 0 {
                let mut shape = shape;
                shape[axis] = Extent::of(1);
                let (value, dtype) = (Scalar::Float(1.0), b.type_of(&x).dtype);
                x = b.op(Op::Full { value, dtype, shape }, &[])?;
                break;
            }
            let half = n / 2;
            let part = |b: &mut B, start: usize, len: usize| {
                let (start, len) = (Extent::of(start), Extent::of(len));
                b.op(Op::Slice { axis, start, len, step: 1 }, std::slice::from_ref(&x))
            };
            let (l, r) = (part(b, 0, half)?, part(b, half, half)?);
            let mut y = b.binary(BinaryOp::Mul, &l, &r)?;
            if n % 2 == 1 {
                let last = part(b, n - 1, 1)?;
                y = b.op(Op::Concat { axis }, &[y, last])?;
            }
            x = y;
        }
    }
    if keep {
        return Ok(x);
    }
    let shape = b.type_of(&x).shape;
    let shape: Dims<B::Dim> =
        (0..shape.len()).filter(|d| !axes.contains(d)).map(|d| shape[d].clone()).collect();
    b.op(Op::Reshape { shape }, &[x])
}
