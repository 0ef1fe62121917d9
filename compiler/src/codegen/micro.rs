//! Stages expanded to what a vector unit does.
//!
//! A stage of f32 arithmetic becomes a list of [`Micro`] operations by running the
//! very definitions of [`sinter_kernels::math`] over a lane that records instead
//! of computing. Every code generator translates this list, so all of them give the
//! numbers of the eager kernels.

use crate::kernel::{Inst, Kernel, Level, Stage};
use rustc_hash::FxHashMap;
use sinter_kernels::math::{self, Lane};
use sinter_runtime::op::{BinaryOp, CompareOp, ReduceKind, UnaryOp};
use sinter_runtime::{DType, Scalar};
use std::cell::RefCell;

/// A value: its place in [`Block::ops`].
pub(super) type Id = u32;

/// A comparison that a selection makes.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) enum Cmp {
    /// Ordered and equal.
    Eq,
    /// Unordered or different.
    Ne,
    /// Ordered and less.
    Lt,
    /// Ordered and less or equal.
    Le,
}

/// One vector operation on f32.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) enum Micro {
    /// The elements of an argument; a bool becomes 0 or 1.
    Load(u32),
    /// A constant, by its bits.
    Const(u32),
    /// A row value.
    Row(u32),
    Add(Id, Id),
    Sub(Id, Id),
    Mul(Id, Id),
    Div(Id, Id),
    /// `a * b + c`, rounded once.
    Fma(Id, Id, Id),
    /// `c - a * b`, rounded once.
    Fnma(Id, Id, Id),
    /// The smaller; where either is NaN, the second.
    Min(Id, Id),
    /// The larger; where either is NaN, the second.
    Max(Id, Id),
    Neg(Id),
    Abs(Id),
    /// Magnitude of the first, sign of the second.
    CopySign(Id, Id),
    /// To the nearest integer, halves to even.
    Round(Id),
    Floor(Id),
    Ceil(Id),
    Trunc(Id),
    Sqrt(Id),
    /// The first times two to the second.
    Ldexp(Id, Id),
    /// The mantissa of [`Lane::split`].
    Mantissa(Id),
    /// The exponent of [`Lane::split`].
    Exponent(Id),
    /// `cmp(a, b) ? x : y`
    Select(Cmp, Id, Id, Id, Id),
}

impl Micro {
    pub(super) fn uses(&self) -> impl Iterator<Item = Id> + use<> {
        use Micro::*;
        let ids: [Option<Id>; 4] = match *self {
            Load(_) | Const(_) | Row(_) => [None; 4],
            Neg(a) | Abs(a) | Round(a) | Floor(a) | Ceil(a) | Trunc(a) | Sqrt(a) | Mantissa(a)
            | Exponent(a) => [Some(a), None, None, None],
            Add(a, b)
            | Sub(a, b)
            | Mul(a, b)
            | Div(a, b)
            | Min(a, b)
            | Max(a, b)
            | CopySign(a, b)
            | Ldexp(a, b) => [Some(a), Some(b), None, None],
            Fma(a, b, c) | Fnma(a, b, c) => [Some(a), Some(b), Some(c), None],
            Select(_, a, b, x, y) => [Some(a), Some(b), Some(x), Some(y)],
        };
        ids.into_iter().flatten()
    }
}

/// A stage as vector operations.
#[derive(Debug, Default)]
pub(super) struct Block {
    pub(super) ops: Vec<Micro>,
    /// `(argument, value)`
    pub(super) stores: Vec<(u32, Id)>,
    pub(super) reductions: Vec<(ReduceKind, Id)>,
    pub(super) results: Vec<Id>,
}

/// Why a kernel cannot be vectorised; it is compiled element by element instead.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Scalarised(pub(super) String);

struct Recorder {
    ops: Vec<Micro>,
    seen: FxHashMap<Micro, Id>,
}

impl Recorder {
    fn add(&mut self, m: Micro) -> Id {
        if let Some(&id) = self.seen.get(&m) {
            return id;
        }
        self.ops.push(m);
        let id = self.ops.len() as Id - 1;
        self.seen.insert(m, id);
        id
    }
}

/// A lane that records.
#[derive(Clone, Copy)]
struct Rec<'a> {
    to: &'a RefCell<Recorder>,
    id: Id,
}

/// A comparison waiting for its selection.
#[derive(Clone, Copy)]
struct Pending {
    cmp: Cmp,
    a: Id,
    b: Id,
}

impl Rec<'_> {
    fn put(self, m: Micro) -> Self {
        Rec { to: self.to, id: self.to.borrow_mut().add(m) }
    }
}

impl Lane for Rec<'_> {
    type Mask = Pending;

    fn lit(self, v: f32) -> Self {
        self.put(Micro::Const(v.to_bits()))
    }
    fn add(self, o: Self) -> Self {
        self.put(Micro::Add(self.id, o.id))
    }
    fn sub(self, o: Self) -> Self {
        self.put(Micro::Sub(self.id, o.id))
    }
    fn mul(self, o: Self) -> Self {
        self.put(Micro::Mul(self.id, o.id))
    }
    fn div(self, o: Self) -> Self {
        self.put(Micro::Div(self.id, o.id))
    }
    fn fma(self, m: Self, a: Self) -> Self {
        self.put(Micro::Fma(self.id, m.id, a.id))
    }
    fn fnma(self, m: Self, a: Self) -> Self {
        self.put(Micro::Fnma(self.id, m.id, a.id))
    }
    fn min(self, o: Self) -> Self {
        self.put(Micro::Min(self.id, o.id))
    }
    fn max(self, o: Self) -> Self {
        self.put(Micro::Max(self.id, o.id))
    }
    fn neg(self) -> Self {
        self.put(Micro::Neg(self.id))
    }
    fn abs(self) -> Self {
        self.put(Micro::Abs(self.id))
    }
    fn copysign(self, s: Self) -> Self {
        self.put(Micro::CopySign(self.id, s.id))
    }
    fn round(self) -> Self {
        self.put(Micro::Round(self.id))
    }
    fn floor(self) -> Self {
        self.put(Micro::Floor(self.id))
    }
    fn ceil(self) -> Self {
        self.put(Micro::Ceil(self.id))
    }
    fn trunc(self) -> Self {
        self.put(Micro::Trunc(self.id))
    }
    fn sqrt(self) -> Self {
        self.put(Micro::Sqrt(self.id))
    }
    fn ldexp(self, n: Self) -> Self {
        self.put(Micro::Ldexp(self.id, n.id))
    }
    fn split(self) -> (Self, Self) {
        (self.put(Micro::Mantissa(self.id)), self.put(Micro::Exponent(self.id)))
    }
    fn lt(self, o: Self) -> Pending {
        Pending { cmp: Cmp::Lt, a: self.id, b: o.id }
    }
    fn eq(self, o: Self) -> Pending {
        Pending { cmp: Cmp::Eq, a: self.id, b: o.id }
    }
    fn select(m: Pending, a: Self, b: Self) -> Self {
        a.put(Micro::Select(m.cmp, m.a, m.b, a.id, b.id))
    }
}

/// Expands every stage, or says what stands in the way.
pub(super) fn expand(k: &Kernel) -> Result<Vec<Block>, Scalarised> {
    for (i, a) in k.args.iter().enumerate() {
        if !matches!(a.dtype, DType::F32 | DType::Bool) {
            return Err(Scalarised(format!(
                "argument {i} is {}, only f32 and bool are vectorised",
                a.dtype
            )));
        }
    }
    k.stages.iter().map(expand_stage).collect()
}

fn expand_stage(s: &Stage) -> Result<Block, Scalarised> {
    let rec = RefCell::new(Recorder { ops: vec![], seen: FxHashMap::default() });
    let add = |m: Micro| rec.borrow_mut().add(m);
    let mut ids: Vec<Id> = Vec::with_capacity(s.insts.len());
    for (inst, dtype) in &s.insts {
        if !matches!(dtype, DType::F32 | DType::Bool) {
            return Err(Scalarised(format!(
                "a value is {dtype}, only f32 and bool are vectorised"
            )));
        }
        let lane = |r: u32| Rec { to: &rec, id: ids[r as usize] };
        let truth = |cmp: Cmp, a: Id, b: Id| {
            let one = add(Micro::Const(1.0f32.to_bits()));
            let zero = add(Micro::Const(0));
            add(Micro::Select(cmp, a, b, one, zero))
        };
        let id = match *inst {
            Inst::Load(a) => add(Micro::Load(a)),
            Inst::Const(v) => {
                let v = match v {
                    Scalar::Bool(b) => f32::from(u8::from(b)),
                    v => v.as_f64() as f32,
                };
                add(Micro::Const(v.to_bits()))
            }
            Inst::Row(r) => add(Micro::Row(r)),
            Inst::Index(_) | Inst::Far(..) => {
                return Err(Scalarised("it uses an index".into()));
            }
            Inst::Unary(op, x) => match op {
                UnaryOp::LogicalNot | UnaryOp::BitNot => {
                    let zero = add(Micro::Const(0));
                    truth(Cmp::Eq, ids[x as usize], zero)
                }
                UnaryOp::IsNan => truth(Cmp::Ne, ids[x as usize], ids[x as usize]),
                UnaryOp::IsFinite | UnaryOp::IsInf => {
                    let inf = add(Micro::Const(f32::INFINITY.to_bits()));
                    let a = add(Micro::Abs(ids[x as usize]));
                    let cmp = if op == UnaryOp::IsInf { Cmp::Eq } else { Cmp::Lt };
                    truth(cmp, a, inf)
                }
                _ => match op.lane(lane(x)) {
                    Some(r) => r.id,
                    None => {
                        return Err(Scalarised(format!(
                            "`{}` has no vector definition",
                            op.name()
                        )));
                    }
                },
            },
            Inst::Binary(op, x, y) if *dtype == DType::Bool => {
                let (a, b) = (ids[x as usize], ids[y as usize]);
                match op {
                    BinaryOp::Add | BinaryOp::Max | BinaryOp::Or => add(Micro::Max(a, b)),
                    BinaryOp::Mul | BinaryOp::Min | BinaryOp::And => add(Micro::Min(a, b)),
                    BinaryOp::Xor => truth(Cmp::Ne, a, b),
                    _ => return Err(Scalarised(format!("`{}` on bool", op.name()))),
                }
            }
            Inst::Binary(op, x, y) => match op.lane(lane(x), lane(y)) {
                Some(r) => r.id,
                None => {
                    return Err(Scalarised(format!("`{}` has no vector definition", op.name())));
                }
            },
            Inst::Compare(op, x, y) => {
                let (a, b) = (ids[x as usize], ids[y as usize]);
                match op {
                    CompareOp::Eq => truth(Cmp::Eq, a, b),
                    CompareOp::Ne => truth(Cmp::Ne, a, b),
                    CompareOp::Lt => truth(Cmp::Lt, a, b),
                    CompareOp::Le => truth(Cmp::Le, a, b),
                    CompareOp::Gt => truth(Cmp::Lt, b, a),
                    CompareOp::Ge => truth(Cmp::Le, b, a),
                }
            }
            Inst::Select(c, x, y) => {
                let zero = add(Micro::Const(0));
                add(Micro::Select(Cmp::Ne, ids[c as usize], zero, ids[x as usize], ids[y as usize]))
            }
            Inst::Cast(x) => {
                let from = s.insts[x as usize].1;
                match (from, *dtype) {
                    (DType::F32, DType::Bool) => {
                        let zero = add(Micro::Const(0));
                        truth(Cmp::Ne, ids[x as usize], zero)
                    }
                    _ => ids[x as usize],
                }
            }
        };
        ids.push(id);
    }
    let reductions = s
        .reductions
        .iter()
        .map(|&(kind, r)| match kind {
            ReduceKind::Sum | ReduceKind::Max | ReduceKind::Min | ReduceKind::Prod => {
                Ok((kind, ids[r as usize]))
            }
            _ => Err(Scalarised(format!("the reduction `{}`", kind.name()))),
        })
        .collect::<Result<Vec<_>, _>>()?;
    let mut block = Block {
        stores: s.stores.iter().map(|&(a, r)| (a, ids[r as usize])).collect(),
        results: s.results.iter().map(|&r| ids[r as usize]).collect(),
        reductions,
        ops: rec.into_inner().ops,
    };
    block.remove_dead();
    debug_assert!(s.level == Level::Element || block.reductions.is_empty());
    Ok(block)
}

/// The lane's rule for combining two values of a reduction: NaN wins over the
/// extremes.
pub(super) fn combine(ops: &mut Vec<Micro>, kind: ReduceKind, a: Id, b: Id) -> Id {
    let rec = RefCell::new(Recorder { ops: std::mem::take(ops), seen: FxHashMap::default() });
    let (x, y) = (Rec { to: &rec, id: a }, Rec { to: &rec, id: b });
    let r = match kind {
        ReduceKind::Max => math::maximum(x, y).id,
        ReduceKind::Min => math::minimum(x, y).id,
        ReduceKind::Prod => x.mul(y).id,
        _ => x.add(y).id,
    };
    *ops = rec.into_inner().ops;
    r
}

impl Block {
    /// Drops operations nothing needs, keeping order.
    fn remove_dead(&mut self) {
        let mut live = vec![false; self.ops.len()];
        let sinks = (self.stores.iter().map(|s| s.1))
            .chain(self.reductions.iter().map(|r| r.1))
            .chain(self.results.iter().copied());
        for s in sinks {
            live[s as usize] = true;
        }
        for i in (0..self.ops.len()).rev() {
            if live[i] {
                for u in self.ops[i].uses() {
                    live[u as usize] = true;
                }
            }
        }
        let mut map = vec![0 as Id; self.ops.len()];
        let mut kept = Vec::new();
        for (i, op) in self.ops.iter().enumerate() {
            if live[i] {
                map[i] = kept.len() as Id;
                kept.push(op.rename(|id| map[id as usize]));
            }
        }
        self.ops = kept;
        for s in &mut self.stores {
            s.1 = map[s.1 as usize];
        }
        for r in &mut self.reductions {
            r.1 = map[r.1 as usize];
        }
        for r in &mut self.results {
            *r = map[*r as usize];
        }
    }
}

impl Micro {
    pub(super) fn rename(self, f: impl Fn(Id) -> Id) -> Micro {
        use Micro::*;
        match self {
            Load(_) | Const(_) | Row(_) => self,
            Add(a, b) => Add(f(a), f(b)),
            Sub(a, b) => Sub(f(a), f(b)),
            Mul(a, b) => Mul(f(a), f(b)),
            Div(a, b) => Div(f(a), f(b)),
            Fma(a, b, c) => Fma(f(a), f(b), f(c)),
            Fnma(a, b, c) => Fnma(f(a), f(b), f(c)),
            Min(a, b) => Min(f(a), f(b)),
            Max(a, b) => Max(f(a), f(b)),
            Neg(a) => Neg(f(a)),
            Abs(a) => Abs(f(a)),
            CopySign(a, b) => CopySign(f(a), f(b)),
            Round(a) => Round(f(a)),
            Floor(a) => Floor(f(a)),
            Ceil(a) => Ceil(f(a)),
            Trunc(a) => Trunc(f(a)),
            Sqrt(a) => Sqrt(f(a)),
            Ldexp(a, b) => Ldexp(f(a), f(b)),
            Mantissa(a) => Mantissa(f(a)),
            Exponent(a) => Exponent(f(a)),
            Select(c, a, b, x, y) => Select(c, f(a), f(b), f(x), f(y)),
        }
    }
}

/// A unary op alone, on `Load(0)`; `None` where it has no vector definition.
pub(super) fn expand_one(op: UnaryOp) -> Option<(Vec<Micro>, Id)> {
    let rec = RefCell::new(Recorder { ops: vec![Micro::Load(0)], seen: FxHashMap::default() });
    let r = op.lane(Rec { to: &rec, id: 0 })?.id;
    Some((rec.into_inner().ops, r))
}

/// A binary op alone, on `Load(0)` and `Load(1)`.
pub(super) fn expand_two(op: BinaryOp) -> Option<(Vec<Micro>, Id)> {
    let ops = vec![Micro::Load(0), Micro::Load(1)];
    let rec = RefCell::new(Recorder { ops, seen: FxHashMap::default() });
    let r = op.lane(Rec { to: &rec, id: 0 }, Rec { to: &rec, id: 1 })?.id;
    Some((rec.into_inner().ops, r))
}
