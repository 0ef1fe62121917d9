//! Kernels element by element, in Cranelift: any type, any stride.
//!
//! The path for what [`super::wide`] does not take. Where f32 functions have a
//! vector definition, this path translates the same operations, so results agree.

use super::func::{Func, held, plain};
use super::micro::{Cmp, Micro, combine, expand_one};
use crate::kernel::{Inst, Kernel, Level, Reg, Stage};
use cranelift::codegen::ir::Endianness;
use cranelift::prelude::*;
use sinter_runtime::op::{BinaryOp, CompareOp, ReduceKind, UnaryOp};
use sinter_runtime::{DType, Scalar};

/// Whether this path can hold values of these types and compute the op on them; if
/// not, a library kernel does.
pub fn supports(inst: &Inst, dtype: DType, operand: DType) -> bool {
    if dtype.is_half() || operand.is_half() {
        return false;
    }
    match inst {
        // Division by zero must be reported.
        // What f32 rounds away again.
        Inst::Binary(BinaryOp::NextAfter, ..) => operand == DType::F64,
        Inst::Binary(op, ..) => operand.is_float() || !op.divides_integers(),
        _ => true,
    }
}

/// Emits the rows of one point of the parallel axes. `index` holds the parallel
/// axes' indices, `at` the arguments' addresses there.
pub(super) fn rows(f: &mut Func<'_>, k: &Kernel, index: &[Value], at: &[Value]) {
    let mut e = Scalars { k, rows: vec![] };
    for stage in k.stages.iter().filter(|s| !s.is_idle()) {
        e.stage(f, stage, index, at);
    }
}

struct Scalars<'a> {
    k: &'a Kernel,
    /// Row values so far.
    rows: Vec<(Variable, DType)>,
}

impl Scalars<'_> {
    fn stage(&mut self, f: &mut Func<'_>, stage: &Stage, index: &[Value], at: &[Value]) {
        match stage.level {
            Level::Row => {
                let values = self.insts(f, stage, index, at);
                self.stores(f, stage, &values, at);
                for &r in &stage.results {
                    let dtype = stage.insts[r as usize].1;
                    self.define(f, dtype, values[r as usize]);
                }
            }
            Level::Element => {
                let acc: Vec<Variable> = stage
                    .reductions
                    .iter()
                    .map(|&(kind, r)| {
                        let dtype = stage.insts[r as usize].1;
                        let v = f.b.declare_var(held(dtype));
                        let start = identity(f, kind, dtype);
                        f.b.def_var(v, start);
                        v
                    })
                    .collect();
                self.nest(f, stage, &acc, index.to_vec(), at.to_vec());
                for (&(_, r), v) in stage.reductions.iter().zip(acc) {
                    self.rows.push((v, stage.insts[r as usize].1));
                }
            }
        }
    }

    fn define(&mut self, f: &mut Func<'_>, dtype: DType, value: Value) {
        let v = f.b.declare_var(held(dtype));
        f.b.def_var(v, value);
        self.rows.push((v, dtype));
    }

    /// The loops over the remaining row axes around the stage's body.
    fn nest(
        &self,
        f: &mut Func<'_>,
        stage: &Stage,
        acc: &[Variable],
        index: Vec<Value>,
        at: Vec<Value>,
    ) {
        let axis = index.len();
        if axis < self.k.extents.len() {
            let (zero, n) = (f.int(0), f.dim(&self.k.extents[axis]));
            f.count(zero, n, |f, i| {
                let at = f.advance(self.k, axis, i, &at);
                let mut index = index;
                index.push(i);
                self.nest(f, stage, acc, index, at);
            });
            return;
        }
        let values = self.insts(f, stage, &index, &at);
        self.stores(f, stage, &values, &at);
        for (&(kind, r), &v) in stage.reductions.iter().zip(acc) {
            let dtype = stage.insts[r as usize].1;
            let old = f.b.use_var(v);
            let new = reduce(f, kind, dtype, old, values[r as usize]);
            f.b.def_var(v, new);
        }
    }

    fn stores(&self, f: &mut Func<'_>, stage: &Stage, values: &[Value], at: &[Value]) {
        for &(arg, r) in &stage.stores {
            f.b.ins().store(plain(), values[r as usize], at[arg as usize], 0);
        }
    }

    fn insts(&self, f: &mut Func<'_>, stage: &Stage, index: &[Value], at: &[Value]) -> Vec<Value> {
        let mut values: Vec<Value> = Vec::with_capacity(stage.insts.len());
        for (inst, dtype) in &stage.insts {
            let v = |r: Reg| values[r as usize];
            let ty = |r: Reg| stage.insts[r as usize].1;
            let value = match *inst {
                Inst::Load(a) => f.b.ins().load(held(*dtype), plain(), at[a as usize], 0),
                Inst::Far(..) => unreachable!("library kernels look elements up by index"),
                Inst::Const(s) => constant(f, s, *dtype),
                Inst::Row(r) => f.b.use_var(self.rows[r as usize].0),
                Inst::Index(a) => convert(f, index[a as usize], DType::I64, *dtype),
                Inst::Unary(op, x) => unary(f, op, ty(x), v(x)),
                Inst::Binary(op, x, y) => binary(f, op, *dtype, v(x), v(y)),
                Inst::Compare(op, x, y) => compare(f, op, ty(x), v(x), v(y)),
                Inst::Select(c, x, y) => {
                    let c = f.b.ins().icmp_imm_u(IntCC::NotEqual, v(c), 0);
                    f.b.ins().select(c, v(x), v(y))
                }
                Inst::Cast(x) => convert(f, v(x), ty(x), *dtype),
            };
            values.push(value);
        }
        values
    }
}

fn constant(f: &mut Func<'_>, s: Scalar, dtype: DType) -> Value {
    match dtype {
        DType::F32 => f.b.ins().f32const(s.as_f64() as f32),
        DType::F64 => f.b.ins().f64const(s.as_f64()),
        d => {
            let v = match s.cast(d) {
                Scalar::Bool(b) => i64::from(b),
                s => s.as_i64(),
            };
            // Immediates of narrow types are given zero-extended.
            let bits = 8 * d.size() as u32;
            let v = if bits < 64 { v & ((1i64 << bits) - 1) } else { v };
            f.b.ins().iconst(held(d), v)
        }
    }
}

fn identity(f: &mut Func<'_>, kind: ReduceKind, dtype: DType) -> Value {
    let s = match (kind, dtype.is_float()) {
        (ReduceKind::Max, true) => Scalar::Float(f64::NEG_INFINITY),
        (ReduceKind::Min, true) => Scalar::Float(f64::INFINITY),
        (ReduceKind::Max, false) if dtype == DType::I32 => Scalar::Int(i32::MIN.into()),
        (ReduceKind::Max, false) if dtype == DType::I64 => Scalar::Int(i64::MIN),
        (ReduceKind::Min, false) if dtype == DType::I32 => Scalar::Int(i32::MAX.into()),
        (ReduceKind::Min, false) if dtype == DType::I64 => Scalar::Int(i64::MAX),
        (ReduceKind::Min, false) => Scalar::Int(255),
        (ReduceKind::Prod, _) => Scalar::Int(1),
        _ => Scalar::Int(0),
    };
    constant(f, s, dtype)
}

fn reduce(f: &mut Func<'_>, kind: ReduceKind, dtype: DType, a: Value, b: Value) -> Value {
    if dtype == DType::F32 {
        let mut ops = vec![Micro::Load(0), Micro::Load(1)];
        let r = combine(&mut ops, kind, 0, 1);
        return micro(f, &ops, &[a, b])[r as usize];
    }
    let op = match kind {
        ReduceKind::Max => BinaryOp::Max,
        ReduceKind::Min => BinaryOp::Min,
        ReduceKind::Prod => BinaryOp::Mul,
        _ => BinaryOp::Add,
    };
    binary(f, op, dtype, a, b)
}

/// A value read as another type of the same size.
fn bits(f: &mut Func<'_>, to: Type, v: Value) -> Value {
    f.b.ins().bitcast(
        to,
        cranelift::codegen::ir::MemFlagsData::new().with_endianness(Endianness::Little),
        v,
    )
}

/// Translates vector operations to scalar ones; `args` stand for the loads.
fn micro(f: &mut Func<'_>, ops: &[Micro], args: &[Value]) -> Vec<Value> {
    let mut v: Vec<Value> = Vec::with_capacity(ops.len());
    for op in ops {
        let g = |id: u32| v[id as usize];
        use Micro::*;
        let r = match *op {
            Load(a) => args[a as usize],
            Const(c) => f.b.ins().f32const(f32::from_bits(c)),
            Row(_) => unreachable!("single ops have no row values"),
            Add(a, b) => f.b.ins().fadd(g(a), g(b)),
            Sub(a, b) => f.b.ins().fsub(g(a), g(b)),
            Mul(a, b) => f.b.ins().fmul(g(a), g(b)),
            Div(a, b) => f.b.ins().fdiv(g(a), g(b)),
            Fma(a, b, c) => f.b.ins().fma(g(a), g(b), g(c)),
            Fnma(a, b, c) => {
                let n = f.b.ins().fneg(g(a));
                f.b.ins().fma(n, g(b), g(c))
            }
            Min(a, b) => {
                let c = f.b.ins().fcmp(FloatCC::LessThan, g(a), g(b));
                f.b.ins().select(c, g(a), g(b))
            }
            Max(a, b) => {
                let c = f.b.ins().fcmp(FloatCC::GreaterThan, g(a), g(b));
                f.b.ins().select(c, g(a), g(b))
            }
            Neg(a) => f.b.ins().fneg(g(a)),
            Abs(a) => f.b.ins().fabs(g(a)),
            CopySign(a, b) => f.b.ins().fcopysign(g(a), g(b)),
            Round(a) => f.b.ins().nearest(g(a)),
            Floor(a) => f.b.ins().floor(g(a)),
            Ceil(a) => f.b.ins().ceil(g(a)),
            Trunc(a) => f.b.ins().trunc(g(a)),
            Sqrt(a) => f.b.ins().sqrt(g(a)),
            Ldexp(a, n) => ldexp(f, g(a), g(n)),
            Mantissa(a) => {
                let (bits_, e) = split(f, g(a));
                let e = f.b.ins().ishl_imm_u(e, 23);
                let m = f.b.ins().isub(bits_, e);
                bits(f, types::F32, m)
            }
            Exponent(a) => {
                let (_, e) = split(f, g(a));
                f.b.ins().fcvt_from_sint(types::F32, e)
            }
            Select(cmp, a, b, x, y) => {
                let cc = match cmp {
                    Cmp::Eq => FloatCC::Equal,
                    Cmp::Ne => FloatCC::NotEqual,
                    Cmp::Lt => FloatCC::LessThan,
                    Cmp::Le => FloatCC::LessThanOrEqual,
                };
                let c = f.b.ins().fcmp(cc, g(a), g(b));
                f.b.ins().select(c, g(x), g(y))
            }
        };
        v.push(r);
    }
    v
}

/// `a * 2^n` as [`sinter_kernels::math::Lane::ldexp`] of f32 does it.
fn ldexp(f: &mut Func<'_>, a: Value, n: Value) -> Value {
    let magic = f.b.ins().f32const(12_582_912.0);
    let t = f.b.ins().fadd(n, magic);
    let t = bits(f, types::I32, t);
    let n = f.b.ins().iadd_imm_s(t, -0x4b40_0000);
    let h = f.b.ins().sshr_imm_u(n, 1);
    let rest = f.b.ins().isub(n, h);
    let mut pow2 = |e: Value| {
        let e = f.b.ins().iadd_imm_s(e, 127);
        let e = f.b.ins().ishl_imm_u(e, 23);
        bits(f, types::F32, e)
    };
    let (p, q) = (pow2(h), pow2(rest));
    let r = f.b.ins().fmul(a, p);
    f.b.ins().fmul(r, q)
}

fn split(f: &mut Func<'_>, a: Value) -> (Value, Value) {
    let x = bits(f, types::I32, a);
    let t = f.b.ins().iadd_imm_s(x, -0x3f2a_aaab);
    (x, f.b.ins().sshr_imm_u(t, 23))
}

/// Calls a scalar function of the runtime's table.
fn library(f: &mut Func<'_>, slot: i32, args: &[Value], ty: Type) -> Value {
    let conv = f.b.func.signature.call_conv;
    let mut sig = Signature::new(conv);
    for &a in args {
        let t = f.b.func.dfg.value_type(a);
        sig.params.push(AbiParam::new(t));
    }
    sig.returns.push(AbiParam::new(ty));
    let sig = f.b.import_signature(sig);
    let table = f.b.ins().load(types::I64, plain(), f.frame, 16);
    let callee = f.b.ins().load(types::I64, plain(), table, slot);
    let call = f.b.ins().call_indirect(sig, callee, args);
    f.b.inst_results(call)[0]
}

/// Offsets in [`sinter_runtime::program::Table`].
const UNARY: i32 = 16;
const BINARY: i32 = 24;
const BINARY_INT: i32 = 32;

/// An op's number in the functions of the table.
fn number<O: PartialEq>(all: &[O], op: O) -> i64 {
    all.iter().position(|o| *o == op).expect("every op is listed") as i64
}

fn unary(f: &mut Func<'_>, op: UnaryOp, from: DType, x: Value) -> Value {
    match op {
        UnaryOp::LogicalNot => {
            let zero = constant(f, Scalar::Int(0), from);
            return compare(f, CompareOp::Eq, from, x, zero);
        }
        UnaryOp::BitNot if from == DType::Bool => {
            let c = f.b.ins().icmp_imm_u(IntCC::Equal, x, 0);
            return c;
        }
        UnaryOp::BitNot => return f.b.ins().bnot(x),
        UnaryOp::IsNan | UnaryOp::IsInf | UnaryOp::IsFinite if !from.is_float() => {
            return f.b.ins().iconst(types::I8, i64::from(op == UnaryOp::IsFinite));
        }
        UnaryOp::IsNan | UnaryOp::IsInf | UnaryOp::IsFinite => {
            let a = f.b.ins().fabs(x);
            let inf = constant(f, Scalar::Float(f64::INFINITY), from);
            return match op {
                UnaryOp::IsNan => f.b.ins().fcmp(FloatCC::Unordered, x, x),
                UnaryOp::IsInf => f.b.ins().fcmp(FloatCC::Equal, a, inf),
                _ => f.b.ins().fcmp(FloatCC::LessThan, a, inf),
            };
        }
        _ => {}
    }
    match from {
        DType::F32 => match expand_one(op) {
            Some((ops, r)) => micro(f, &ops, &[x])[r as usize],
            None => {
                let wide = f.b.ins().fpromote(types::F64, x);
                let y = unary(f, op, DType::F64, wide);
                f.b.ins().fdemote(types::F32, y)
            }
        },
        DType::F64 => match op {
            UnaryOp::Neg => f.b.ins().fneg(x),
            UnaryOp::Abs => f.b.ins().fabs(x),
            UnaryOp::Sqrt => f.b.ins().sqrt(x),
            UnaryOp::Square => f.b.ins().fmul(x, x),
            UnaryOp::Floor => f.b.ins().floor(x),
            UnaryOp::Ceil => f.b.ins().ceil(x),
            UnaryOp::Trunc => f.b.ins().trunc(x),
            UnaryOp::Round => f.b.ins().nearest(x),
            _ => {
                let i = f.int(number(UnaryOp::ALL, op));
                library(f, UNARY, &[i, x], types::F64)
            }
        },
        _ => match op {
            UnaryOp::Neg => f.b.ins().ineg(x),
            UnaryOp::Square => f.b.ins().imul(x, x),
            UnaryOp::Abs if from != DType::U8 => f.b.ins().iabs(x),
            UnaryOp::Relu if from != DType::U8 => {
                let zero = constant(f, Scalar::Int(0), from);
                f.b.ins().smax(x, zero)
            }
            UnaryOp::Sign => {
                let zero = constant(f, Scalar::Int(0), from);
                let above = compare(f, CompareOp::Gt, from, x, zero);
                let below = compare(f, CompareOp::Lt, from, x, zero);
                let (above, below) =
                    (convert(f, above, DType::Bool, from), convert(f, below, DType::Bool, from));
                f.b.ins().isub(above, below)
            }
            // Whole and, where it matters, unsigned already.
            _ => x,
        },
    }
}

fn binary(f: &mut Func<'_>, op: BinaryOp, dtype: DType, a: Value, b: Value) -> Value {
    use BinaryOp::*;
    match dtype {
        DType::F32 => match super::micro::expand_two(op) {
            Some((ops, r)) => micro(f, &ops, &[a, b])[r as usize],
            None => {
                let (x, y) = (f.b.ins().fpromote(types::F64, a), f.b.ins().fpromote(types::F64, b));
                let r = binary(f, op, DType::F64, x, y);
                f.b.ins().fdemote(types::F32, r)
            }
        },
        DType::F64 => match op {
            Add => f.b.ins().fadd(a, b),
            Sub => f.b.ins().fsub(a, b),
            Mul => f.b.ins().fmul(a, b),
            Div => f.b.ins().fdiv(a, b),
            _ => {
                let i = f.int(number(BinaryOp::ALL, op));
                library(f, BINARY, &[i, a, b], types::F64)
            }
        },
        DType::Bool => match op {
            Add | Max | Or => f.b.ins().bor(a, b),
            Mul | Min | And => f.b.ins().band(a, b),
            _ => f.b.ins().bxor(a, b),
        },
        _ => {
            let signed = dtype != DType::U8;
            match op {
                Add => f.b.ins().iadd(a, b),
                Sub => f.b.ins().isub(a, b),
                Mul => f.b.ins().imul(a, b),
                Max if signed => f.b.ins().smax(a, b),
                Max => f.b.ins().umax(a, b),
                Min if signed => f.b.ins().smin(a, b),
                Min => f.b.ins().umin(a, b),
                And => f.b.ins().band(a, b),
                Or => f.b.ins().bor(a, b),
                Xor => f.b.ins().bxor(a, b),
                Gate => {
                    let cc =
                        if signed { IntCC::SignedGreaterThan } else { IntCC::UnsignedGreaterThan };
                    let zero = constant(f, Scalar::Int(0), dtype);
                    let c = f.b.ins().icmp(cc, b, zero);
                    f.b.ins().select(c, a, zero)
                }
                _ => {
                    let i = f.int(number(BinaryOp::ALL, op));
                    let (a, b) =
                        (convert(f, a, dtype, DType::I64), convert(f, b, dtype, DType::I64));
                    let r = library(f, BINARY_INT, &[i, a, b], types::I64);
                    convert(f, r, DType::I64, dtype)
                }
            }
        }
    }
}

fn compare(f: &mut Func<'_>, op: CompareOp, dtype: DType, a: Value, b: Value) -> Value {
    if dtype.is_float() {
        let cc = match op {
            CompareOp::Eq => FloatCC::Equal,
            CompareOp::Ne => FloatCC::NotEqual,
            CompareOp::Lt => FloatCC::LessThan,
            CompareOp::Le => FloatCC::LessThanOrEqual,
            CompareOp::Gt => FloatCC::GreaterThan,
            CompareOp::Ge => FloatCC::GreaterThanOrEqual,
        };
        return f.b.ins().fcmp(cc, a, b);
    }
    let signed = matches!(dtype, DType::I32 | DType::I64);
    let cc = match (op, signed) {
        (CompareOp::Eq, _) => IntCC::Equal,
        (CompareOp::Ne, _) => IntCC::NotEqual,
        (CompareOp::Lt, true) => IntCC::SignedLessThan,
        (CompareOp::Le, true) => IntCC::SignedLessThanOrEqual,
        (CompareOp::Gt, true) => IntCC::SignedGreaterThan,
        (CompareOp::Ge, true) => IntCC::SignedGreaterThanOrEqual,
        (CompareOp::Lt, false) => IntCC::UnsignedLessThan,
        (CompareOp::Le, false) => IntCC::UnsignedLessThanOrEqual,
        (CompareOp::Gt, false) => IntCC::UnsignedGreaterThan,
        (CompareOp::Ge, false) => IntCC::UnsignedGreaterThanOrEqual,
    };
    f.b.ins().icmp(cc, a, b)
}

/// The rules of [`Scalar::cast`].
fn convert(f: &mut Func<'_>, x: Value, from: DType, to: DType) -> Value {
    if from == to {
        return x;
    }
    if to == DType::Bool {
        let zero = constant(f, Scalar::Int(0), from);
        return compare(f, CompareOp::Ne, from, x, zero);
    }
    let unsigned = from == DType::Bool || from.is_unsigned();
    match (from.is_float(), to.is_float()) {
        (true, true) if to == DType::F64 => f.b.ins().fpromote(types::F64, x),
        (true, true) => f.b.ins().fdemote(types::F32, x),
        (true, false) => match to {
            DType::I32 | DType::I64 => f.b.ins().fcvt_to_sint_sat(held(to), x),
            DType::U32 | DType::U64 => f.b.ins().fcvt_to_uint_sat(held(to), x),
            _ => {
                let bits = 8 * to.size() as u32;
                let (low, high) = match to.is_unsigned() {
                    true => (0, (1 << bits) - 1),
                    false => (-(1 << (bits - 1)), (1 << (bits - 1)) - 1),
                };
                let v = f.b.ins().fcvt_to_sint_sat(types::I32, x);
                let (low, high) = (
                    constant(f, Scalar::Int(low), DType::I32),
                    constant(f, Scalar::Int(high), DType::I32),
                );
                let v = f.b.ins().smax(v, low);
                let v = f.b.ins().smin(v, high);
                f.b.ins().ireduce(held(to), v)
            }
        },
        (false, true) => {
            let wide = match from.size() {
                8 => x,
                _ if unsigned => f.b.ins().uextend(types::I64, x),
                _ => f.b.ins().sextend(types::I64, x),
            };
            if from == DType::U64 {
                return f.b.ins().fcvt_from_uint(held(to), wide);
            }
            f.b.ins().fcvt_from_sint(held(to), wide)
        }
        (false, false) if held(from) == held(to) => x,
        (false, false) if from.size() > to.size() => f.b.ins().ireduce(held(to), x),
        (false, false) if unsigned => f.b.ins().uextend(held(to), x),
        (false, false) => f.b.ins().sextend(held(to), x),
    }
}
