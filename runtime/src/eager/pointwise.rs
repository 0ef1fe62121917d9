//! Element-wise ops.

use crate::array::Strides;
use crate::op::{BinaryOp, CompareOp, Kernel32, UnaryOp};
use crate::{Array, DType, Device, Op, OpError, with_storage};
use sinter_kernels::copy as copies;
use sinter_kernels::pointwise::{
    self as k, Loop2, compare_f32, compare_f64, compare_i32, compare_i64, compare_u8, f32s, f64s,
    i32s, i64s, u8s,
};
use sinter_kernels::view::{Element, Src};
use smallvec::SmallVec;
use std::sync::atomic::{AtomicBool, Ordering};

/// An operand repeated to `shape`; `strides` is where its new strides live.
fn spread<'a, T: Element>(
    x: &'a Array,
    shape: &'a [usize],
    strides: &'a mut Strides,
) -> Src<'a, T> {
    if x.shape() == shape {
        return x.src();
    }
    *strides = SmallVec::from_elem(0, shape.len());
    let lead = shape.len() - x.rank();
    for (d, (&n, &s)) in x.shape().iter().zip(x.strides()).enumerate() {
        if n == shape[lead + d] {
            strides[lead + d] = s;
        }
    }
    x.block().src(x.offset(), shape, strides)
}

fn binary_f32(op: BinaryOp) -> Option<&'static Loop2<f32, f32, f32>> {
    Some(match op {
        BinaryOp::Add => &f32s::ADD,
        BinaryOp::Sub => &f32s::SUB,
        BinaryOp::Mul => &f32s::MUL,
        BinaryOp::Div => &f32s::DIV,
        BinaryOp::Max => &f32s::MAX,
        BinaryOp::Min => &f32s::MIN,
        BinaryOp::Gate => &f32s::GATE,
        _ => return None,
    })
}

fn binary_f64(op: BinaryOp) -> Option<&'static Loop2<f64, f64, f64>> {
    Some(match op {
        BinaryOp::Add => &f64s::ADD,
        BinaryOp::Sub => &f64s::SUB,
        BinaryOp::Mul => &f64s::MUL,
        BinaryOp::Div => &f64s::DIV,
        _ => return None,
    })
}

macro_rules! int_table {
    ($name:ident, $t:ty, $m:ident) => {
        fn $name(op: BinaryOp) -> Option<&'static Loop2<$t, $t, $t>> {
            Some(match op {
                BinaryOp::Add => &$m::ADD,
                BinaryOp::Sub => &$m::SUB,
                BinaryOp::Mul => &$m::MUL,
                BinaryOp::Max => &$m::MAX,
                BinaryOp::Min => &$m::MIN,
                BinaryOp::And => &$m::AND,
                BinaryOp::Or => &$m::OR,
                BinaryOp::Xor => &$m::XOR,
                _ => return None,
            })
        }
    };
}
int_table!(binary_i64, i64, i64s);
int_table!(binary_i32, i32, i32s);
int_table!(binary_u8, u8, u8s);

/// The commonest case without any detour: two dense f32 operands of one shape.
#[inline]
pub(super) fn fast_binary(op: &Op, inputs: &[&Array]) -> Result<Option<Array>, OpError> {
    let (Op::Binary(b), [x, y]) = (op, inputs) else { return Ok(None) };
    let fits = x.dtype() == DType::F32
        && y.dtype() == DType::F32
        && x.device() == Device::Cpu
        && y.device() == Device::Cpu
        && x.shape() == y.shape()
        && x.is_contiguous()
        && y.is_contiguous();
    let Some(f) = binary_f32(*b).filter(|_| fits) else { return Ok(None) };
    let out = x.empty_like().map_err(|e| super::rename(e, op))?;
    k::map2(f, x.src(), y.src(), out.dst());
    Ok(Some(out))
}

fn run2<T: Element, U: Element>(f: &Loop2<T, T, U>, a: &Array, b: &Array, out: &Array) {
    let (mut sa, mut sb) = (Strides::new(), Strides::new());
    k::map2(f, spread(a, out.shape(), &mut sa), spread(b, out.shape(), &mut sb), out.dst());
}

fn run2_with<T: Element>(
    cost: usize,
    a: &Array,
    b: &Array,
    out: &Array,
    f: impl Fn(T, T) -> T + Sync,
) {
    let (mut sa, mut sb) = (Strides::new(), Strides::new());
    let (a, b) = (spread(a, out.shape(), &mut sa), spread(b, out.shape(), &mut sb));
    k::map2_with(cost, a, b, out.dst(), f);
}

/// Cost of a scalar library function, in tenths of a nanosecond.
const LIBRARY: usize = 100;

pub(super) fn exec(op: &Op, inputs: &[&Array], out: &Array) -> Result<(), OpError> {
    match op {
        Op::Unary(u) => unary(*u, inputs[0], out),
        Op::Binary(b) => return binary(*b, inputs[0], inputs[1], out),
        Op::Compare(c) => compare(*c, inputs[0], inputs[1], out),
        Op::Select {} => {
            let (mut sc, mut sa, mut sb) = (Strides::new(), Strides::new(), Strides::new());
            let cond = spread::<u8>(inputs[0], out.shape(), &mut sc);
            with_storage!(out.dtype(), T => {
                let a = spread::<T>(inputs[1], out.shape(), &mut sa);
                let b = spread::<T>(inputs[2], out.shape(), &mut sb);
                k::select(cond, a, b, out.dst());
            });
        }
        Op::Cast { .. } => return cast(inputs[0], out),
        _ => unreachable!("{} is not element-wise", op.name()),
    }
    Ok(())
}

fn unary(op: UnaryOp, x: &Array, out: &Array) {
    use UnaryOp::{Abs, BitNot, IsFinite, IsInf, IsNan, LogicalNot, Neg, Relu, Sign, Square};
    match (op, x.dtype()) {
        (IsNan, DType::F32) => k::map1(&f32s::IS_NAN, x.src(), out.dst()),
        (IsInf, DType::F32) => k::map1(&f32s::IS_INF, x.src(), out.dst()),
        (IsFinite, DType::F32) => k::map1(&f32s::IS_FINITE, x.src(), out.dst()),
        (IsNan | IsInf, d) if !d.is_float() => copies::fill(out.dst(), 0u8),
        (IsFinite, d) if !d.is_float() => copies::fill(out.dst(), 1u8),
        (IsNan | IsInf | IsFinite, _) => {
            k::map1_with(5, x.src::<f64>(), out.dst(), |v| op.eval64(v) as u8);
        }
        (LogicalNot, d) if !d.is_float() => with_storage!(d, T => {
            let zero = <T as Element>::ZERO;
            k::map1_with(3, x.src::<T>(), out.dst(), |v| u8::from(v == zero));
        }),
        (LogicalNot, d) => with_core!(d, T => {
            let zero = <T as Element>::ZERO;
            k::map1_with(3, x.src::<T>(), out.dst(), |v| u8::from(v == zero));
        }),
        (BitNot, DType::Bool) => k::map1_with(3, x.src(), out.dst(), |v: u8| u8::from(v == 0)),
        (BitNot, DType::U8) => k::map1(&u8s::NOT, x.src(), out.dst()),
        (BitNot, DType::I32) => k::map1(&i32s::NOT, x.src(), out.dst()),
        (BitNot, _) => k::map1(&i64s::NOT, x.src(), out.dst()),
        (_, DType::F32) => match op.kernel32() {
            Kernel32::Loop(f) => k::map1(f, x.src(), out.dst()),
            Kernel32::Library => {
                k::map1_with(LIBRARY, x.src(), out.dst(), |v: f32| op.eval64(v.into()) as f32);
            }
        },
        (Neg, DType::F64) => k::map1(&f64s::NEG, x.src(), out.dst()),
        (Abs, DType::F64) => k::map1(&f64s::ABS, x.src(), out.dst()),
        (Square, DType::F64) => k::map1(&f64s::SQUARE, x.src(), out.dst()),
        (UnaryOp::Sqrt, DType::F64) => k::map1(&f64s::SQRT, x.src(), out.dst()),
        (_, DType::F64) => k::map1_with(LIBRARY, x.src(), out.dst(), |v| op.eval64(v)),
        (Neg, DType::I64) => k::map1(&i64s::NEG, x.src(), out.dst()),
        (Neg, DType::I32) => k::map1(&i32s::NEG, x.src(), out.dst()),
        (Neg, _) => k::map1(&u8s::NEG, x.src(), out.dst()),
        (Square, DType::I64) => k::map1(&i64s::SQUARE, x.src(), out.dst()),
        (Square, DType::I32) => k::map1(&i32s::SQUARE, x.src(), out.dst()),
        (Square, _) => k::map1(&u8s::SQUARE, x.src(), out.dst()),
        (Abs | Sign | Relu, DType::I64) => {
            k::map1_with(5, x.src(), out.dst(), |v: i64| match op {
                Abs => v.wrapping_abs(),
                Sign => v.signum(),
                _ => v.max(0),
            });
        }
        (Abs | Sign | Relu, DType::I32) => {
            k::map1_with(5, x.src(), out.dst(), |v: i32| match op {
                Abs => v.wrapping_abs(),
                Sign => v.signum(),
                _ => v.max(0),
            });
        }
        (Sign, _) => k::map1_with(5, x.src(), out.dst(), |v: u8| v.min(1)),
        (_, _) => copies::copy(x.src::<u8>(), out.dst()),
    }
}

/// What an arithmetic op means on truth values.
fn on_bool(op: BinaryOp) -> BinaryOp {
    match op {
        BinaryOp::Add | BinaryOp::Max => BinaryOp::Or,
        BinaryOp::Mul | BinaryOp::Min => BinaryOp::And,
        op => op,
    }
}

fn binary(op: BinaryOp, a: &Array, b: &Array, out: &Array) -> Result<(), OpError> {
    match a.dtype() {
        DType::F32 => match binary_f32(op) {
            Some(f) => run2(f, a, b, out),
            None if op.eval32().is_some() => by_bits(op, a, b, out),
            None => {
                run2_with(LIBRARY, a, b, out, |x: f32, y: f32| op.eval64(x.into(), y.into()) as f32)
            }
        },
        DType::F64 => match binary_f64(op) {
            Some(f) => run2(f, a, b, out),
            None => run2_with(LIBRARY, a, b, out, |x: f64, y: f64| op.eval64(x, y)),
        },
        DType::I64 => match binary_i64(op) {
            Some(f) => run2(f, a, b, out),
            None => return by_integers(op, a, b, out),
        },
        DType::I32 => match binary_i32(op) {
            Some(f) => run2(f, a, b, out),
            None => return by_integers(op, a, b, out),
        },
        DType::U8 => match binary_u8(op) {
            Some(f) => run2(f, a, b, out),
            None => return by_integers(op, a, b, out),
        },
        DType::Bool => match binary_u8(on_bool(op)) {
            Some(f) => run2(f, a, b, out),
            None => return Err(OpError::unsupported(op.name(), "no kernel for bool")),
        },
        d => unreachable!("{d} is computed in another type"),
    }
    Ok(())
}

/// Ops whose value in f32 is not that in f64, rounded.
pub(super) fn by_bits(op: BinaryOp, a: &Array, b: &Array, out: &Array) {
    let f = op.eval32().expect("called on ops that have a value in f32");
    run2_with(LIBRARY, a, b, out, f);
}

/// Ops on integers that have no loop of their own, and those that can fail.
pub(super) fn by_integers(op: BinaryOp, a: &Array, b: &Array, out: &Array) -> Result<(), OpError> {
    let divides = op.divides_integers();
    let by_zero = AtomicBool::new(false);
    let int = |x: i64, y: i64| {
        if divides && y == 0 {
            by_zero.store(true, Ordering::Relaxed);
            return 0;
        }
        op.eval_int(x, y)
    };
    match a.dtype() {
        DType::I64 => run2_with(20, a, b, out, int),
        DType::I32 => run2_with(20, a, b, out, |x: i32, y: i32| int(x.into(), y.into()) as i32),
        _ => run2_with(20, a, b, out, |x: u8, y: u8| int(x.into(), y.into()) as u8),
    }
    if by_zero.into_inner() {
        return Err(OpError::value(op.name(), "integer division by zero"));
    }
    Ok(())
}

fn compare(op: CompareOp, a: &Array, b: &Array, out: &Array) {
    macro_rules! pick {
        ($m:ident) => {{
            let f = match op {
                CompareOp::Eq => &$m::EQ,
                CompareOp::Ne => &$m::NE,
                CompareOp::Lt => &$m::LT,
                CompareOp::Le => &$m::LE,
                CompareOp::Gt => &$m::GT,
                CompareOp::Ge => &$m::GE,
            };
            run2(f, a, b, out)
        }};
    }
    match a.dtype() {
        DType::F32 => pick!(compare_f32),
        DType::F64 => pick!(compare_f64),
        DType::I64 => pick!(compare_i64),
        DType::I32 => pick!(compare_i32),
        DType::U8 | DType::Bool => pick!(compare_u8),
        d => unreachable!("{d} is computed in another type"),
    }
}

/// Runs `$body` with `$t` standing for a type of number that has kernels, or half
/// precision (`u8` for bool).
macro_rules! with_core {
    ($dtype:expr, $t:ident => $body:expr) => {
        with_core!(@ $dtype, $t, $body;
            U8 u8, I32 i32, I64 i64, F16 half::f16, BF16 half::bf16, F32 f32, F64 f64)
    };
    (@ $dtype:expr, $t:ident, $body:expr; $($name:ident $rust:ty),*) => {
        match $dtype {
            $(DType::$name => {
                type $t = $rust;
                $body
            })*
            DType::Bool => {
                type $t = u8;
                $body
            }
            d => unreachable!("{d} is computed in another type"),
        }
    };
}
pub(super) use with_core;

/// Converts elements; the rules are those of [`crate::Scalar::cast`].
fn cast(x: &Array, out: &Array) -> Result<(), OpError> {
    let (from, to) = (x.dtype(), out.dtype());
    if to == DType::Bool {
        match (from, from.size()) {
            (DType::F16, _) => copies::to_bool(x.src::<half::f16>(), out.dst()),
            (DType::BF16, _) => copies::to_bool(x.src::<half::bf16>(), out.dst()),
            (DType::F32, _) => copies::to_bool(x.src::<f32>(), out.dst()),
            (DType::F64, _) => copies::to_bool(x.src::<f64>(), out.dst()),
            (_, 1) => copies::to_bool(x.src::<u8>(), out.dst()),
            (_, 2) => copies::to_bool(x.src::<u16>(), out.dst()),
            (_, 4) => copies::to_bool(x.src::<u32>(), out.dst()),
            _ => copies::to_bool(x.src::<u64>(), out.dst()),
        }
        return Ok(());
    }
    if stored_only(from) || stored_only(to) {
        return cast_stored(x, out);
    }
    with_core!(from, T => with_core!(to, U => copies::cast(x.src::<T>(), out.dst::<U>())));
    Ok(())
}

/// Integer types without kernels.
fn stored_only(d: DType) -> bool {
    d.computed_in() != d && !d.is_half()
}

/// Converts from or to integer types without kernels: directly where there is a
/// kernel, else by way of i64, or of f32 and f64.
fn cast_stored(x: &Array, out: &Array) -> Result<(), OpError> {
    let (from, to) = (x.dtype(), out.dtype());
    macro_rules! direct {
        ($($a:ident $from:ty => $($b:ident $to:ty),*;)*) => {
            match (from, to) {
                $($((DType::$a, DType::$b) => {
                    copies::cast(x.src::<$from>(), out.dst::<$to>());
                    return Ok(());
                })*)*
                _ => {}
            }
        };
    }
    direct! {
        I8 i8 => I64 i64, I32 i32;
        I16 i16 => I64 i64, I32 i32;
        U16 u16 => I64 i64, I32 i32;
        U32 u32 => I64 i64;
        U64 u64 => I64 i64, F64 f64;
        I32 i32 => I8 i8, I16 i16, U16 u16;
        I64 i64 => I8 i8, I16 i16, U16 u16, U32 u32, U64 u64;
        F32 f32 => I8 i8, I16 i16, U16 u16, U32 u32, U64 u64;
        F64 f64 => I8 i8, I16 i16, U16 u16, U32 u32, U64 u64;
    }
    let by = match (from, to) {
        (DType::U64, t) if t.is_float() => DType::F64,
        (f, _) if f.is_half() => DType::F32,
        _ => DType::I64,
    };
    cast(&in_type(x, by)?, out)
}

/// Converts between f32 and half precision; nothing else.
pub(super) fn cast_half(x: &Array, out: &Array) -> bool {
    use half::{bf16, f16};
    match (x.dtype(), out.dtype()) {
        (DType::F32, DType::F16) => copies::cast(x.src::<f32>(), out.dst::<f16>()),
        (DType::F32, DType::BF16) => copies::cast(x.src::<f32>(), out.dst::<bf16>()),
        (DType::F16, DType::F32) => copies::cast(x.src::<f16>(), out.dst::<f32>()),
        (DType::BF16, DType::F32) => copies::cast(x.src::<bf16>(), out.dst::<f32>()),
        _ => return false,
    }
    true
}

/// The values in another type; the array itself where it has that type.
pub(super) fn in_type(x: &Array, dtype: DType) -> Result<Array, OpError> {
    if x.dtype() == dtype {
        return Ok(x.clone());
    }
    let out = Array::empty(x.shape(), dtype)?;
    cast(x, &out)?;
    Ok(out)
}
