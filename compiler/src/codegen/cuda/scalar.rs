//! Element-wise functions on one thread's values.
//!
//! Functions of f32 are the lists of [`Micro`] operations that all code generators
//! share; half precision is computed in f32 and rounded once. What has no such list
//! and no direct counterpart on the device is refused.

use super::super::micro::{self, Cmp, Micro};
use super::CudaError;
use super::writer::{Value, Writer, held, op};
use sinter_runtime::op::{BinaryOp, CompareOp, ReduceKind, UnaryOp};
use sinter_runtime::{Category, DType, Scalar};

type Result<T = Value> = std::result::Result<T, CudaError>;

const NO_LANE: &str = "the processor calls a library function; there is no definition to compile";
const NO_DOUBLE: &str = "its definition is for f32";
const NO_POWER: &str = "powers of integers take a loop, which is not generated";
const NO_DIVISOR: &str = "common divisors take a loop, which is not generated";
const DIVIDES: &str = "division by zero has to be reported, which a kernel on a device cannot";
const NOT_HERE: &str = "the op does not take this type";

fn refused(op: &'static str, dtype: DType, reason: &'static str) -> CudaError {
    CudaError::Op { op, dtype, reason }
}

fn signed(d: DType) -> bool {
    d.category() == Category::Int && !d.is_unsigned()
}

impl Writer {
    fn select(&mut self, c: Value, a: Value, b: Value, ty: &str) -> Value {
        op!(self, "arith.select {c}, {a}, {b} : {ty}")
    }

    fn cmpf(&mut self, how: &str, a: Value, b: Value, ty: &str) -> Value {
        op!(self, "arith.cmpf {how}, {a}, {b} : {ty}")
    }

    fn two(&mut self, op: &str, a: Value, b: Value, ty: &str) -> Value {
        op!(self, "{op} {a}, {b} : {ty}")
    }

    /// A half as f32; anything else as it is.
    fn widen(&mut self, x: Value, d: DType) -> Value {
        if d.is_half() { self.convert(x, d, DType::F32) } else { x }
    }

    /// Translates vector operations; `args` stand for the loads.
    fn micro(&mut self, ops: &[Micro], args: &[Value], result: micro::Id) -> Value {
        let mut v: Vec<Value> = Vec::with_capacity(ops.len());
        for m in ops {
            let g = |id: u32| v[id as usize];
            use Micro::*;
            let r = match *m {
                Load(a) => args[a as usize],
                Const(bits) => self.float(bits),
                Row(_) => unreachable!("single ops have no row values"),
                Add(a, b) => self.two("arith.addf", g(a), g(b), "f32"),
                Sub(a, b) => self.two("arith.subf", g(a), g(b), "f32"),
                Mul(a, b) => self.two("arith.mulf", g(a), g(b), "f32"),
                Div(a, b) => self.two("arith.divf", g(a), g(b), "f32"),
                Fma(a, b, c) => self.intrinsic("fma", &[g(a), g(b), g(c)], "f32"),
                Fnma(a, b, c) => {
                    let n = op!(self, "arith.negf {} : f32", g(a));
                    self.intrinsic("fma", &[n, g(b), g(c)], "f32")
                }
                Min(a, b) => {
                    let c = self.cmpf("olt", g(a), g(b), "f32");
                    self.select(c, g(a), g(b), "f32")
                }
                Max(a, b) => {
                    let c = self.cmpf("ogt", g(a), g(b), "f32");
                    self.select(c, g(a), g(b), "f32")
                }
                Neg(a) => op!(self, "arith.negf {} : f32", g(a)),
                Abs(a) => self.intrinsic("fabs", &[g(a)], "f32"),
                CopySign(a, b) => self.intrinsic("copysign", &[g(a), g(b)], "f32"),
                Round(a) => self.intrinsic("roundeven", &[g(a)], "f32"),
                Floor(a) => self.intrinsic("floor", &[g(a)], "f32"),
                Ceil(a) => self.intrinsic("ceil", &[g(a)], "f32"),
                Trunc(a) => self.intrinsic("trunc", &[g(a)], "f32"),
                Sqrt(a) => self.intrinsic("sqrt", &[g(a)], "f32"),
                Ldexp(a, n) => self.ldexp(g(a), g(n)),
                Mantissa(a) => {
                    let (bits, e) = self.split(g(a));
                    let c = self.int32(23);
                    let e = self.two("arith.shli", e, c, "i32");
                    let m = self.two("arith.subi", bits, e, "i32");
                    op!(self, "arith.bitcast {m} : i32 to f32")
                }
                Exponent(a) => {
                    let (_, e) = self.split(g(a));
                    op!(self, "arith.sitofp {e} : i32 to f32")
                }
                Select(cmp, a, b, x, y) => {
                    let how = match cmp {
                        Cmp::Eq => "oeq",
                        Cmp::Ne => "une",
                        Cmp::Lt => "olt",
                        Cmp::Le => "ole",
                    };
                    let c = self.cmpf(how, g(a), g(b), "f32");
                    self.select(c, g(x), g(y), "f32")
                }
            };
            v.push(r);
        }
        v[result as usize]
    }

    /// `a * 2^n` as [`sinter_kernels::math::Lane::ldexp`] of f32 does it.
    fn ldexp(&mut self, a: Value, n: Value) -> Value {
        let magic = self.float(12_582_912f32.to_bits());
        let t = self.two("arith.addf", n, magic, "f32");
        let t = op!(self, "arith.bitcast {t} : f32 to i32");
        let low = self.int32(0x4b40_0000);
        let n = self.two("arith.subi", t, low, "i32");
        let one = self.int32(1);
        let h = self.two("arith.shrsi", n, one, "i32");
        let rest = self.two("arith.subi", n, h, "i32");
        let mut pow2 = |e: Value| {
            let (bias, shift) = (self.int32(127), self.int32(23));
            let e = self.two("arith.addi", e, bias, "i32");
            let e = self.two("arith.shli", e, shift, "i32");
            op!(self, "arith.bitcast {e} : i32 to f32")
        };
        let (p, q) = (pow2(h), pow2(rest));
        let r = self.two("arith.mulf", a, p, "f32");
        self.two("arith.mulf", r, q, "f32")
    }

    /// The bits and the exponent of [`sinter_kernels::math::Lane::split`].
    fn split(&mut self, a: Value) -> (Value, Value) {
        let bits = op!(self, "arith.bitcast {a} : f32 to i32");
        let (origin, shift) = (self.int32(0x3f2a_aaab), self.int32(23));
        let t = self.two("arith.subi", bits, origin, "i32");
        (bits, self.two("arith.shrsi", t, shift, "i32"))
    }

    /// An element-wise function of an operand of type `d`.
    pub(super) fn unary(&mut self, op: UnaryOp, d: DType, x: Value) -> Result {
        let ty = held(d);
        if d.is_half() {
            let wide = self.widen(x, d);
            let y = self.unary(op, DType::F32, wide)?;
            let truth = op.domain() == sinter_runtime::op::Domain::ToBool;
            return Ok(if truth { y } else { self.convert(y, DType::F32, d) });
        }
        match op {
            UnaryOp::LogicalNot => {
                let zero = self.constant(Scalar::Int(0), d);
                return Ok(self.compare(CompareOp::Eq, d, x, zero));
            }
            UnaryOp::BitNot if !d.is_float() => {
                let ones = match d {
                    DType::Bool => self.constant(Scalar::Bool(true), d),
                    _ => self.constant(Scalar::Int(-1), d),
                };
                return Ok(self.two("arith.xori", x, ones, ty));
            }
            UnaryOp::IsNan if d.is_float() => return Ok(self.cmpf("uno", x, x, ty)),
            UnaryOp::IsInf | UnaryOp::IsFinite if d.is_float() => {
                let a = self.intrinsic("fabs", &[x], ty);
                let inf = self.constant(Scalar::Float(f64::INFINITY), d);
                let how = if op == UnaryOp::IsInf { "oeq" } else { "olt" };
                return Ok(self.cmpf(how, a, inf, ty));
            }
            UnaryOp::IsNan | UnaryOp::IsInf | UnaryOp::IsFinite => {
                return Ok(self.constant(Scalar::Bool(op == UnaryOp::IsFinite), DType::Bool));
            }
            _ => {}
        }
        match d {
            DType::F32 => match micro::expand_one(op) {
                Some((ops, r)) => Ok(self.micro(&ops, &[x], r)),
                None => Err(refused(op.name(), d, NO_LANE)),
            },
            DType::F64 => self.unary_f64(op, x),
            _ => self.unary_int(op, d, x),
        }
    }

    fn unary_f64(&mut self, op: UnaryOp, x: Value) -> Result {
        let ty = "f64";
        let number = |w: &mut Self, v: f64| w.constant(Scalar::Float(v), DType::F64);
        Ok(match op {
            UnaryOp::Neg => op!(self, "arith.negf {x} : f64"),
            UnaryOp::Abs => self.intrinsic("fabs", &[x], ty),
            UnaryOp::Sqrt => self.intrinsic("sqrt", &[x], ty),
            UnaryOp::Floor => self.intrinsic("floor", &[x], ty),
            UnaryOp::Ceil => self.intrinsic("ceil", &[x], ty),
            UnaryOp::Trunc => self.intrinsic("trunc", &[x], ty),
            UnaryOp::Round => self.intrinsic("roundeven", &[x], ty),
            UnaryOp::Square => self.two("arith.mulf", x, x, ty),
            UnaryOp::Reciprocal => {
                let one = number(self, 1.0);
                self.two("arith.divf", one, x, ty)
            }
            UnaryOp::Rsqrt => {
                let (one, root) = (number(self, 1.0), self.intrinsic("sqrt", &[x], ty));
                self.two("arith.divf", one, root, ty)
            }
            UnaryOp::Relu => {
                let zero = number(self, 0.0);
                let below = self.cmpf("olt", x, zero, ty);
                self.select(below, zero, x, ty)
            }
            UnaryOp::Sign => {
                let (zero, one) = (number(self, 0.0), number(self, 1.0));
                let unit = self.intrinsic("copysign", &[one, x], ty);
                // Neither zero nor NaN.
                let signed = self.cmpf("one", x, zero, ty);
                let rest = self.intrinsic("fabs", &[x], ty);
                self.select(signed, unit, rest, ty)
            }
            _ => return Err(refused(op.name(), DType::F64, NO_DOUBLE)),
        })
    }

    fn unary_int(&mut self, op: UnaryOp, d: DType, x: Value) -> Result {
        let ty = held(d);
        let zero = self.constant(Scalar::Int(0), d);
        Ok(match op {
            _ if d == DType::Bool => return Err(refused(op.name(), d, NOT_HERE)),
            UnaryOp::Neg => self.two("arith.subi", zero, x, ty),
            UnaryOp::Square => self.two("arith.muli", x, x, ty),
            UnaryOp::Abs | UnaryOp::Relu if !signed(d) => x,
            UnaryOp::Abs => {
                let n = self.two("arith.subi", zero, x, ty);
                self.two("arith.maxsi", x, n, ty)
            }
            UnaryOp::Relu => self.two("arith.maxsi", x, zero, ty),
            UnaryOp::Sign => {
                let one = self.constant(Scalar::Int(1), d);
                if !signed(d) {
                    return Ok(self.two("arith.minui", x, one, ty));
                }
                let minus = self.constant(Scalar::Int(-1), d);
                let low = self.two("arith.minsi", x, one, ty);
                self.two("arith.maxsi", low, minus, ty)
            }
            _ => return Err(refused(op.name(), d, NOT_HERE)),
        })
    }

    /// An element-wise function of two operands of type `d`.
    pub(super) fn binary(&mut self, op: BinaryOp, d: DType, a: Value, b: Value) -> Result {
        match d {
            DType::F16 | DType::BF16 => {
                let (x, y) = (self.widen(a, d), self.widen(b, d));
                let r = self.binary(op, DType::F32, x, y)?;
                Ok(self.convert(r, DType::F32, d))
            }
            DType::F32 => match micro::expand_two(op) {
                Some((ops, r)) => Ok(self.micro(&ops, &[a, b], r)),
                None => Err(refused(op.name(), d, NO_LANE)),
            },
            DType::F64 => self.binary_f64(op, a, b),
            DType::Bool => {
                use BinaryOp::*;
                let name = match op {
                    Add | Max | Or => "arith.ori",
                    Mul | Min | And => "arith.andi",
                    Xor => "arith.xori",
                    _ => return Err(refused(op.name(), d, NOT_HERE)),
                };
                Ok(self.two(name, a, b, "i1"))
            }
            _ => self.binary_int(op, d, a, b),
        }
    }

    fn binary_f64(&mut self, op: BinaryOp, a: Value, b: Value) -> Result {
        let ty = "f64";
        Ok(match op {
            BinaryOp::Add => self.two("arith.addf", a, b, ty),
            BinaryOp::Sub => self.two("arith.subf", a, b, ty),
            BinaryOp::Mul => self.two("arith.mulf", a, b, ty),
            BinaryOp::Div => self.two("arith.divf", a, b, ty),
            BinaryOp::Max | BinaryOp::Min => {
                // Ordered comparison: where one is NaN it gives `b`, which is right
                // when `b` is the NaN.
                let how = if op == BinaryOp::Max { "ogt" } else { "olt" };
                let c = self.cmpf(how, a, b, ty);
                let m = self.select(c, a, b, ty);
                let a_is_number = self.cmpf("oeq", a, a, ty);
                self.select(a_is_number, m, a, ty)
            }
            BinaryOp::Gate => {
                let zero = self.constant(Scalar::Float(0.0), DType::F64);
                let c = self.cmpf("ogt", b, zero, ty);
                self.select(c, a, zero, ty)
            }
            _ => return Err(refused(op.name(), DType::F64, NO_LANE)),
        })
    }

    fn binary_int(&mut self, op: BinaryOp, d: DType, a: Value, b: Value) -> Result {
        use BinaryOp::*;
        let ty = held(d);
        let pick = |s: &'static str, u: &'static str| if signed(d) { s } else { u };
        let name = match op {
            Add => "arith.addi",
            Sub => "arith.subi",
            Mul => "arith.muli",
            Max => pick("arith.maxsi", "arith.maxui"),
            Min => pick("arith.minsi", "arith.minui"),
            And => "arith.andi",
            Or => "arith.ori",
            Xor => "arith.xori",
            Shl | Shr => return Ok(self.shift(op, d, a, b)),
            Gate => {
                let zero = self.constant(Scalar::Int(0), d);
                let c = self.compare(CompareOp::Gt, d, b, zero);
                return Ok(self.select(c, a, zero, ty));
            }
            Rem | FloorDiv | Fmod => return Err(refused(op.name(), d, DIVIDES)),
            Pow => return Err(refused(op.name(), d, NO_POWER)),
            Gcd => return Err(refused(op.name(), d, NO_DIVISOR)),
            Div | Atan2 | CopySign | Hypot | NextAfter | Igamma | Igammac | Zeta => {
                return Err(refused(op.name(), d, NOT_HERE));
            }
        };
        Ok(self.two(name, a, b, ty))
    }

    /// Shifts by any distance, as [`BinaryOp::eval_int`]: in 64 bits, and what goes
    /// beyond them is gone.
    fn shift(&mut self, op: BinaryOp, d: DType, a: Value, b: Value) -> Value {
        let (a, b) = (self.convert(a, d, DType::I64), self.convert(b, d, DType::I64));
        let (zero, most, width) = (self.int(0), self.int(63), self.int(64));
        let low = self.two("arith.maxsi", b, zero, "i64");
        let by = self.two("arith.minsi", low, most, "i64");
        let r = if op == BinaryOp::Shl {
            let inside = op!(self, "arith.cmpi ult, {b}, {width} : i64");
            let r = self.two("arith.shli", a, by, "i64");
            self.select(inside, r, zero, "i64")
        } else {
            self.two("arith.shrsi", a, by, "i64")
        };
        self.convert(r, DType::I64, d)
    }

    /// A comparison of operands of type `d`.
    pub(super) fn compare(&mut self, op: CompareOp, d: DType, a: Value, b: Value) -> Value {
        if d.is_half() {
            let (x, y) = (self.widen(a, d), self.widen(b, d));
            return self.compare(op, DType::F32, x, y);
        }
        let ty = held(d);
        if d.is_float() {
            let how = match op {
                CompareOp::Eq => "oeq",
                CompareOp::Ne => "une",
                CompareOp::Lt => "olt",
                CompareOp::Le => "ole",
                CompareOp::Gt => "ogt",
                CompareOp::Ge => "oge",
            };
            return self.cmpf(how, a, b, ty);
        }
        let how = match (op, signed(d)) {
            (CompareOp::Eq, _) => "eq",
            (CompareOp::Ne, _) => "ne",
            (CompareOp::Lt, true) => "slt",
            (CompareOp::Le, true) => "sle",
            (CompareOp::Gt, true) => "sgt",
            (CompareOp::Ge, true) => "sge",
            (CompareOp::Lt, false) => "ult",
            (CompareOp::Le, false) => "ule",
            (CompareOp::Gt, false) => "ugt",
            (CompareOp::Ge, false) => "uge",
        };
        op!(self, "arith.cmpi {how}, {a}, {b} : {ty}")
    }

    /// `a` where the condition, else `b`.
    pub(super) fn choose(&mut self, c: Value, a: Value, b: Value, d: DType) -> Value {
        self.select(c, a, b, held(d))
    }

    /// The rules of [`Scalar::cast`]; halves are reached through f32.
    pub(super) fn convert(&mut self, x: Value, from: DType, to: DType) -> Value {
        let (f, t) = (held(from), held(to));
        if from == to {
            return x;
        }
        if from.is_half() {
            let wide = op!(self, "arith.extf {x} : {f} to f32");
            return self.convert(wide, DType::F32, to);
        }
        if to.is_half() {
            let wide = self.convert(x, from, DType::F32);
            // Not `arith.truncf`: MLIR would fuse it with a conversion from an integer
            // into one that rounds once.
            return op!(self, "llvm.fptrunc {wide} : f32 to {t}");
        }
        if to == DType::Bool {
            let zero = self.constant(Scalar::Int(0), from);
            return self.compare(CompareOp::Ne, from, x, zero);
        }
        let how = match (from.is_float(), to.is_float()) {
            (true, false) => {
                let how = if signed(to) { "fptosi" } else { "fptoui" };
                return op!(
                    self,
                    "llvm.call_intrinsic \"llvm.{how}.sat.{t}.{f}\"({x}) : ({f}) -> {t}"
                );
            }
            (true, true) if to == DType::F64 => "extf",
            (true, true) => "truncf",
            (false, true) if signed(from) => "sitofp",
            (false, true) => "uitofp",
            (false, false) if f == t => return x,
            (false, false) if from != DType::Bool && from.size() > to.size() => "trunci",
            (false, false) if signed(from) => "extsi",
            (false, false) => "extui",
        };
        op!(self, "arith.{how} {x} : {f} to {t}")
    }

    /// The type in which values of type `d` are reduced.
    pub(super) fn accumulator(d: DType) -> DType {
        if d.is_half() { DType::F32 } else { d }
    }

    /// What a reduction starts from.
    pub(super) fn identity(&mut self, kind: ReduceKind, d: DType) -> Value {
        let lowest = match d {
            DType::I32 => Scalar::Int(i32::MIN.into()),
            DType::I64 => Scalar::Int(i64::MIN),
            d if d.is_float() => Scalar::Float(f64::NEG_INFINITY),
            _ => Scalar::Int(0),
        };
        let highest = match d {
            DType::I32 => Scalar::Int(i32::MAX.into()),
            DType::I64 => Scalar::Int(i64::MAX),
            d if d.is_float() => Scalar::Float(f64::INFINITY),
            _ => Scalar::Int(255),
        };
        let s = match kind {
            ReduceKind::Sum | ReduceKind::Any => Scalar::Int(0),
            ReduceKind::Prod | ReduceKind::All => Scalar::Int(1),
            ReduceKind::Max => lowest,
            ReduceKind::Min => highest,
        };
        self.constant(s, d)
    }

    /// Two partial results of a reduction as one.
    pub(super) fn combine(&mut self, kind: ReduceKind, d: DType, a: Value, b: Value) -> Result {
        let op = match kind {
            ReduceKind::Any | ReduceKind::All if d != DType::Bool => {
                return Err(refused(kind.name(), d, NOT_HERE));
            }
            ReduceKind::Sum => BinaryOp::Add,
            ReduceKind::Prod => BinaryOp::Mul,
            ReduceKind::Max => BinaryOp::Max,
            ReduceKind::Min => BinaryOp::Min,
            ReduceKind::Any => BinaryOp::Or,
            ReduceKind::All => BinaryOp::And,
        };
        if d == DType::F32 {
            let mut ops = vec![Micro::Load(0), Micro::Load(1)];
            let r = micro::combine(&mut ops, kind, 0, 1);
            return Ok(self.micro(&ops, &[a, b], r));
        }
        self.binary(op, d, a, b)
    }
}
