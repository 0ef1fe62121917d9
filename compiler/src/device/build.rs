//! The kernel of an op.

use super::space::{Line, Space, Walk, repeated};
use crate::kernel::{self, Inst, Kernel, Level, Manner, Reg, Stage};
use sinter_runtime::cuda::Param;
use sinter_runtime::op::{Act, ArgKind, BinaryOp, CompareOp, ReduceKind, ScatterKind, UnaryOp};
use sinter_runtime::{Array, DType, Dim, Extent, Op, Scalar, eager};
use smallvec::{SmallVec, smallvec};

/// What is computed.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) enum Form {
    Unary(UnaryOp),
    Binary(BinaryOp),
    Compare(CompareOp),
    Select,
    /// To the result's type, or a copy.
    Cast,
    /// The index along the counted axis.
    Index,
    /// Of rows, in a type.
    Reduce(ReduceKind, DType),
    /// The first index of a row's extreme.
    ArgReduce(ArgKind),
    /// The sum of the products of two rows.
    Dot,
    /// The element of the first operand that the second one says.
    Gather,
    /// The first operand joined with those of the third that the second one sends there.
    Scatter(ScatterKind),
}

impl Form {
    fn name(self) -> &'static str {
        match self {
            Form::Unary(u) => u.name(),
            Form::Binary(b) => b.name(),
            Form::Compare(c) => c.name(),
            Form::Select => "select",
            Form::Cast => "cast",
            Form::Index => "index",
            Form::Reduce(kind, _) => kind.name(),
            Form::ArgReduce(ArgKind::Max) => "argmax",
            Form::ArgReduce(ArgKind::Min) => "argmin",
            Form::Dot => "dot",
            Form::Gather => "gather",
            Form::Scatter(_) => "scatter",
        }
    }
}

/// An operand or the result, which is the last.
pub(super) struct Arg {
    pub(super) dtype: DType,
    pub(super) buffer: u32,
}

/// An op on arrays, as one kernel walks through it.
pub(super) struct Work {
    pub(super) form: Form,
    pub(super) space: Space,
    pub(super) args: SmallVec<[Arg; 4]>,
    /// The axis whose index counts.
    pub(super) counted: Option<usize>,
    /// Whether the order of u64 is asked for: see [`eager::orders_u64`].
    shifted: bool,
    /// The operand of which elements are looked up, and how far apart these are.
    pub(super) far: Option<(usize, i64)>,
}

impl Work {
    /// What a kernel for the op does.
    ///
    /// # Errors
    /// Why there is none.
    pub(super) fn of(op: &Op, operands: &[&Array], results: &[&Array]) -> Result<Work, String> {
        let no_kernel = || "there is no kernel for it yet".to_string();
        let &[out] = results else { return Err(no_kernel()) };
        let arrays: SmallVec<[&Array; 4]> = operands.iter().copied().chain([out]).collect();
        if arrays.iter().any(|a| a.dtype().is_complex()) {
            return Err("of complex numbers there are only kernels for parts".into());
        }
        let shape = out.shape();
        let pointwise = |form: Form| {
            let strides = arrays.iter().map(|a| repeated(a, shape)).collect();
            (form, Space::new(shape, shape.len(), strides), None)
        };
        let mut far = None;
        let (form, mut space, counted) = match op {
            Op::Unary(u) => pointwise(Form::Unary(*u)),
            Op::Binary(b) => pointwise(Form::Binary(*b)),
            Op::Compare(c) => pointwise(Form::Compare(*c)),
            Op::Select {} => pointwise(Form::Select),
            Op::Cast { .. } => pointwise(Form::Cast),
            Op::Iota { axis, .. } => {
                let (form, space, _) = pointwise(Form::Index);
                (form, space, Some(*axis))
            }
            Op::Reduce { kind, axes, keep } => {
                let acc = eager::adds_in(op, operands[0].dtype(), out.dtype()).computed_in();
                (Form::Reduce(*kind, acc), rows(operands[0], out, axes, *keep), None)
            }
            Op::ArgReduce { kind, axis, keep } => {
                let space = rows(operands[0], out, &[*axis], *keep);
                let counted = space.parallel;
                (Form::ArgReduce(*kind), space, Some(counted))
            }
            Op::MatMul { act: Act::None } if operands.len() == 2 => {
                (Form::Dot, products(operands[0], operands[1], out), None)
            }
            Op::Conv { stride, padding: [0, 0], dilation, groups, act: Act::None } => {
                (Form::Dot, windows(&arrays, *stride, *dilation, *groups), None)
            }
            Op::ConvWeightGrad { stride, padding: [0, 0], dilation, groups, kernel } => {
                (Form::Dot, kernels(&arrays, *stride, *dilation, *groups, *kernel), None)
            }
            Op::Gather { axis } | Op::IndexSelect { axis } => {
                far = Some((0, arrays[0].strides()[*axis] as i64));
                let select = matches!(op, Op::IndexSelect { .. });
                (Form::Gather, looked_up(&arrays, *axis, select), None)
            }
            Op::Scatter { axis, kind } => {
                far = Some((2, arrays[2].strides()[*axis] as i64));
                (Form::Scatter(*kind), sent(&arrays, *axis, false), Some(*axis))
            }
            Op::IndexAdd { axis } => {
                (Form::Scatter(ScatterKind::Add), sent(&arrays, *axis, true), Some(*axis))
            }
            _ => return Err(no_kernel()),
        };
        let far = far.filter(|_| matches!(form, Form::Gather | Form::Scatter(ScatterKind::Set)));
        let counted = space.collapse(counted);
        let unsigned = operands.iter().any(|a| a.dtype() == DType::U64);
        let shifted = unsigned && eager::orders_u64(op).map_err(|_| "not on u64".to_string())?;
        let mut args: SmallVec<[Arg; 4]> = SmallVec::new();
        for (i, a) in arrays.iter().enumerate() {
            let result = i == operands.len();
            let same = !result && a.is_same_view(out);
            let buffer = if same { operands.len() } else { i } as u32;
            args.push(Arg { dtype: a.dtype(), buffer });
        }
        Ok(Work { form, space, args, counted, shifted, far })
    }

    /// The parameter that a buffer is.
    pub(super) fn place(&self, buffer: u32) -> Param {
        let last = self.args.len() - 1;
        if buffer as usize == last { Param::Result(0) } else { Param::Operand(buffer as usize) }
    }

    /// The kernel.
    pub(super) fn kernel(&self, walks: &[Walk]) -> Result<Kernel, String> {
        let mut s = self.space.symbolic(walks, self.far.is_some())?;
        if let (Some((i, _)), Some(step)) = (self.far, s.far) {
            s.strides[i].push(step);
        }
        let last = self.args.len() - 1;
        // An operand that is the result is its argument, too: the same view.
        let mut args: Vec<kernel::Arg> = vec![];
        let mut of: SmallVec<[u32; 4]> = SmallVec::new();
        for (i, a) in self.args.iter().enumerate() {
            let here = args.iter().position(|o| o.buffer == a.buffer);
            of.push(here.unwrap_or(args.len()) as u32);
            if let Some(at) = here {
                args[at].written |= i == last;
                continue;
            }
            args.push(kernel::Arg {
                buffer: a.buffer,
                dtype: a.dtype,
                offset: Dim::of(0),
                strides: s.strides[i].clone(),
                written: i == last,
            });
        }
        let stages = self.stages(&of);
        let types: Vec<&str> = self.args.iter().map(|a| a.dtype.name()).collect();
        Ok(Kernel {
            name: format!("{}_{}", self.form.name(), types.join("_")),
            extents: s.extents,
            parallel: self.space.parallel,
            args,
            stages,
            hook: false,
            manner: Manner::RULE,
        })
    }

    fn stages(&self, args: &[u32]) -> Vec<Stage> {
        let last = args.len() - 1;
        let to = self.args[last].dtype;
        let mut b = Body { work: self, args, stage: Stage::new(Level::Element) };
        let value = match self.form {
            Form::Cast => {
                let x = b.load(0);
                let same = self.args[0].dtype == to;
                let x = if same { x } else { b.push(Inst::Cast(x), to) };
                return b.stored(x);
            }
            Form::Index => {
                let axis = self.counted.expect("indices are along an axis") as u32;
                let wide = to.computed_in();
                (b.push(Inst::Index(axis), wide), wide)
            }
            Form::Unary(u) => {
                let x = b.wide(0);
                let bit = to == DType::Bool && b.types(x) != DType::Bool;
                let r = if bit { DType::Bool } else { b.types(x) };
                (b.push(Inst::Unary(u, x), r), r)
            }
            Form::Binary(op) => {
                let (x, y) = (b.wide(0), b.wide(1));
                let r = b.types(x);
                (b.push(Inst::Binary(op, x, y), r), r)
            }
            Form::Compare(op) => {
                let (x, y) = (b.wide(0), b.wide(1));
                (b.push(Inst::Compare(op, x, y), DType::Bool), DType::Bool)
            }
            Form::Select => {
                let (c, x, y) = (b.load(0), b.load(1), b.load(2));
                let r = b.push(Inst::Select(c, x, y), to);
                return b.stored(r);
            }
            Form::Reduce(kind, acc) => {
                let x = b.wide(0);
                let x = b.cast(x, acc);
                b.stage.reductions.push((kind, x));
                let row = self.row(args, 0, acc, to);
                return vec![b.stage, row];
            }
            Form::ArgReduce(kind) => {
                let x = b.wide(0);
                let d = b.types(x);
                let kind = if kind == ArgKind::Max { ReduceKind::Max } else { ReduceKind::Min };
                b.stage.reductions.push((kind, x));
                let mut c = Body { work: self, args, stage: Stage::new(Level::Element) };
                let x = c.wide(0);
                let best = c.push(Inst::Row(0), d);
                let mut hit = c.push(Inst::Compare(CompareOp::Eq, x, best), DType::Bool);
                if d.is_float() {
                    // Where there is a NaN it is the extreme, which equals nothing.
                    let nan = c.push(Inst::Unary(UnaryOp::IsNan, x), DType::Bool);
                    hit = c.push(Inst::Binary(BinaryOp::Or, hit, nan), DType::Bool);
                }
                let axis = self.counted.expect("an extreme has an index") as u32;
                let at = c.push(Inst::Index(axis), DType::I64);
                let far = c.push(Inst::Const(Scalar::Int(i64::MAX)), DType::I64);
                let at = c.push(Inst::Select(hit, at, far), DType::I64);
                c.stage.reductions.push((ReduceKind::Min, at));
                let row = self.row(args, 1, DType::I64, to);
                return vec![b.stage, c.stage, row];
            }
            Form::Gather => {
                let i = b.wide(1);
                let i = b.cast(i, DType::I64);
                let x = b.push(Inst::Far(args[0], i), to);
                return b.stored(x);
            }
            Form::Scatter(kind) => return self.scatter(args, kind),
            Form::Dot => {
                let (x, y) = (b.wide(0), b.wide(1));
                let acc = if b.types(x).is_half() { DType::F32 } else { b.types(x) };
                let (x, y) = (b.cast(x, acc), b.cast(y, acc));
                let p = b.push(Inst::Binary(BinaryOp::Mul, x, y), acc);
                b.stage.reductions.push((ReduceKind::Sum, p));
                let row = self.row(args, 0, acc, to);
                return vec![b.stage, row];
            }
        };
        let (mut r, wide) = value;
        if self.shifted && to == DType::U64 {
            r = b.shift(r);
        }
        let r = if wide == to { r } else { b.push(Inst::Cast(r), to) };
        b.stored(r)
    }

    /// Each element looks for what is sent to it: sums do not depend on who comes first.
    fn scatter(&self, args: &[u32], kind: ScatterKind) -> Vec<Stage> {
        let to = self.args[args.len() - 1].dtype;
        let mut b = Body { work: self, args, stage: Stage::new(Level::Element) };
        let axis = self.counted.expect("indices are along an axis") as u32;
        let here = b.push(Inst::Index(axis), DType::I64);
        let i = b.wide(1);
        let i = b.cast(i, DType::I64);
        let hit = b.push(Inst::Compare(CompareOp::Eq, here, i), DType::Bool);
        let mut c = Body { work: self, args, stage: Stage::new(Level::Row) };
        let reduce = match kind {
            ScatterKind::Set => {
                // The last one that is sent stays.
                let row = b.push(Inst::Index(self.space.parallel as u32), DType::I64);
                let none = b.push(Inst::Const(Scalar::Int(-1)), DType::I64);
                let which = b.push(Inst::Select(hit, row, none), DType::I64);
                b.stage.reductions.push((ReduceKind::Max, which));
                let last = c.push(Inst::Row(0), DType::I64);
                let zero = c.push(Inst::Const(Scalar::Int(0)), DType::I64);
                let hit = c.push(Inst::Compare(CompareOp::Ge, last, zero), DType::Bool);
                let last = c.push(Inst::Binary(BinaryOp::Max, last, zero), DType::I64);
                let (new, old) = (c.push(Inst::Far(args[2], last), to), c.load(0));
                let x = c.push(Inst::Select(hit, new, old), to);
                return vec![b.stage, c.stored(x).swap_remove(0)];
            }
            ScatterKind::Add => ReduceKind::Sum,
            ScatterKind::Prod => ReduceKind::Prod,
            ScatterKind::Max => ReduceKind::Max,
            ScatterKind::Min => ReduceKind::Min,
        };
        let acc = if to.is_half() { DType::F32 } else { to.computed_in() };
        let v = b.wide(2);
        let v = b.cast(v, acc);
        let none = b.push(Inst::Const(nothing(reduce, acc)), acc);
        let v = b.push(Inst::Select(hit, v, none), acc);
        b.stage.reductions.push((reduce, v));
        let (sum, old) = (c.push(Inst::Row(0), acc), c.wide(0));
        let old = c.cast(old, acc);
        let join = match reduce {
            ReduceKind::Prod => BinaryOp::Mul,
            ReduceKind::Max => BinaryOp::Max,
            ReduceKind::Min => BinaryOp::Min,
            _ => BinaryOp::Add,
        };
        let x = c.push(Inst::Binary(join, old, sum), acc);
        let x = c.cast(x, to);
        vec![b.stage, c.stored(x).swap_remove(0)]
    }

    /// The last stage: stores row value `r` of type `acc`.
    fn row(&self, args: &[u32], r: u32, acc: DType, to: DType) -> Stage {
        let mut b = Body { work: self, args, stage: Stage::new(Level::Row) };
        let mut x = b.push(Inst::Row(r), acc);
        if self.shifted && to == DType::U64 {
            x = b.shift(x);
        }
        let x = b.cast(x, to);
        b.stored(x).swap_remove(0)
    }
}

/// A stage that is being written.
struct Body<'a> {
    work: &'a Work,
    args: &'a [u32],
    stage: Stage,
}

impl Body<'_> {
    fn push(&mut self, inst: Inst, dtype: DType) -> Reg {
        self.stage.insts.push((inst, dtype));
        self.stage.insts.len() as Reg - 1
    }

    fn types(&self, r: Reg) -> DType {
        self.stage.insts[r as usize].1
    }

    fn cast(&mut self, r: Reg, to: DType) -> Reg {
        if self.types(r) == to { r } else { self.push(Inst::Cast(r), to) }
    }

    fn load(&mut self, i: usize) -> Reg {
        self.push(Inst::Load(self.args[i]), self.work.args[i].dtype)
    }

    /// An operand in the type that its own is computed in; half precision is the code
    /// generator's business.
    fn wide(&mut self, i: usize) -> Reg {
        let x = self.load(i);
        let d = self.types(x);
        if d.is_half() {
            return x;
        }
        let x = self.cast(x, d.computed_in());
        if self.work.shifted && d == DType::U64 { self.shift(x) } else { x }
    }

    /// The order of u64 as that of i64, and back.
    fn shift(&mut self, x: Reg) -> Reg {
        let high = self.push(Inst::Const(Scalar::Int(i64::MIN)), DType::I64);
        self.push(Inst::Binary(BinaryOp::Xor, x, high), DType::I64)
    }

    fn stored(mut self, r: Reg) -> Vec<Stage> {
        let last = self.args.len() - 1;
        self.stage.stores.push((self.args[last], r));
        vec![self.stage]
    }
}

/// The rows of `x` along `axes`, one for each element of `out`.
fn rows(x: &Array, out: &Array, axes: &[usize], keep: bool) -> Space {
    let stays: SmallVec<[usize; 6]> = (0..x.rank()).filter(|d| !axes.contains(d)).collect();
    let mut extents: SmallVec<[usize; 6]> = stays.iter().map(|&d| x.shape()[d]).collect();
    let mut from: Line = stays.iter().map(|&d| x.strides()[d] as i64).collect();
    let place = |(i, &d): (usize, &usize)| out.strides()[if keep { d } else { i }] as i64;
    let mut to: Line = stays.iter().enumerate().map(place).collect();
    for &d in axes {
        extents.push(x.shape()[d]);
        from.push(x.strides()[d] as i64);
        to.push(0);
    }
    if axes.is_empty() {
        extents.push(1);
        from.push(0);
        to.push(0);
    }
    Space::new(&extents, stays.len(), smallvec![from, to])
}

/// The rows and columns of `a` and `b` whose products are the elements of `out`.
fn products(a: &Array, b: &Array, out: &Array) -> Space {
    let (shape, rank) = (out.shape(), out.rank());
    let batch = &shape[..rank - 2];
    let (m, n, k) = (shape[rank - 2], shape[rank - 1], a.shape()[a.rank() - 1]);
    let extents: SmallVec<[usize; 6]> = batch.iter().copied().chain([m, n, k]).collect();
    let lead = |x: &Array| -> Line {
        let fewer = x.rank() - 2;
        let skip = batch.len() - fewer;
        let one = |d: usize| match d.checked_sub(skip) {
            Some(i) if x.shape()[i] == batch[d] => x.strides()[i] as i64,
            _ => 0,
        };
        (0..batch.len()).map(one).collect()
    };
    let stride = |x: &Array, back: usize| x.strides()[x.rank() - back] as i64;
    let (mut sa, mut sb, mut so) = (lead(a), lead(b), lead(out));
    sa.extend([stride(a, 2), 0, stride(a, 1)]);
    sb.extend([0, stride(b, 1), stride(b, 2)]);
    so.extend([stride(out, 2), stride(out, 1), 0]);
    Space::new(&extents, batch.len() + 2, smallvec![sa, sb, so])
}

/// What changes nothing that it is joined with.
fn nothing(kind: ReduceKind, d: DType) -> Scalar {
    let (low, high) = match d {
        DType::I32 => (i64::from(i32::MIN), i64::from(i32::MAX)),
        DType::U8 | DType::Bool => (0, 255),
        _ => (i64::MIN, i64::MAX),
    };
    match kind {
        ReduceKind::Prod | ReduceKind::All => Scalar::Int(1),
        ReduceKind::Max if d.is_float() => Scalar::Float(f64::NEG_INFINITY),
        ReduceKind::Min if d.is_float() => Scalar::Float(f64::INFINITY),
        ReduceKind::Max => Scalar::Int(low),
        ReduceKind::Min => Scalar::Int(high),
        ReduceKind::Sum | ReduceKind::Any => Scalar::Int(0),
    }
}

fn step(a: &Array, d: usize) -> i64 {
    a.strides()[d] as i64
}

/// Of a convolution without padding: elements of the result, by group; and what each is
/// summed over: a group's channels, rows and columns of the kernel.
fn windows(a: &[&Array], stride: [usize; 2], dilation: [usize; 2], groups: usize) -> Space {
    let (x, w, y) = (a[0], a[1], a[2]);
    let (o, c) = (w.shape()[0] / groups, w.shape()[1]);
    let s = y.shape();
    let extents = [s[0], groups, o, s[2], s[3], c, w.shape()[2], w.shape()[3]];
    let by = |n: [usize; 2], i: usize| n[i] as i64 * step(x, 2 + i);
    let from = [
        step(x, 0),
        c as i64 * step(x, 1),
        0,
        by(stride, 0),
        by(stride, 1),
        step(x, 1),
        by(dilation, 0),
        by(dilation, 1),
    ];
    let weight = [0, o as i64 * step(w, 0), step(w, 0), 0, 0, step(w, 1), step(w, 2), step(w, 3)];
    let to = [step(y, 0), o as i64 * step(y, 1), step(y, 1), step(y, 2), step(y, 3), 0, 0, 0];
    Space::new(&extents, 5, [from, weight, to].iter().map(|l| Line::from_slice(l)).collect())
}

/// Of the derivative of a convolution by its weight: elements of the weight, by group, and
/// the images and their elements that each is summed over.
fn kernels(
    a: &[&Array],
    stride: [usize; 2],
    dilation: [usize; 2],
    groups: usize,
    kernel: [usize; 2],
) -> Space {
    let (x, gy, w) = (a[0], a[1], a[2]);
    let (o, c) = (w.shape()[0] / groups, w.shape()[1]);
    let s = gy.shape();
    let extents = [groups, o, c, kernel[0], kernel[1], s[0], s[2], s[3]];
    let by = |n: [usize; 2], i: usize| n[i] as i64 * step(x, 2 + i);
    let from = [
        c as i64 * step(x, 1),
        0,
        step(x, 1),
        by(dilation, 0),
        by(dilation, 1),
        step(x, 0),
        by(stride, 0),
        by(stride, 1),
    ];
    let grad =
        [o as i64 * step(gy, 1), step(gy, 1), 0, 0, 0, step(gy, 0), step(gy, 2), step(gy, 3)];
    let to = [o as i64 * step(w, 0), step(w, 0), step(w, 1), step(w, 2), step(w, 3), 0, 0, 0];
    Space::new(&extents, 5, [from, grad, to].iter().map(|l| Line::from_slice(l)).collect())
}

/// The strides of `a` along a result's dimensions, but for `axis`.
fn beside(a: &Array, axis: usize) -> Line {
    (0..a.rank()).map(|d| if d == axis { 0 } else { step(a, d) }).collect()
}

/// Elements that are looked up along `axis`; `slabs` of a 1-d index.
fn looked_up(a: &[&Array], axis: usize, slabs: bool) -> Space {
    let (x, index, out) = (a[0], a[1], a[2]);
    let all: Line = (0..out.rank()).map(|d| step(out, d)).collect();
    let mut along: Line = (0..out.rank()).map(|_| 0).collect();
    if slabs {
        along[axis] = step(index, 0);
    } else {
        along = (0..out.rank()).map(|d| step(index, d)).collect();
    }
    Space::new(out.shape(), out.rank(), smallvec![beside(x, axis), along, all])
}

/// Elements of a base, and along the row everything that may be sent to them; `slabs` by a
/// 1-d index. But for the axis, the shapes are the same.
fn sent(a: &[&Array], axis: usize, slabs: bool) -> Space {
    let (base, index, values, out) = (a[0], a[1], a[2], a[3]);
    let n = if slabs { index.shape()[0] } else { index.shape()[axis] };
    let extents: SmallVec<[usize; 6]> = out.shape().iter().copied().chain([n]).collect();
    let with = |mut l: Line, row: i64| {
        l.push(row);
        l
    };
    let all = |x: &Array| (0..x.rank()).map(|d| step(x, d)).collect::<Line>();
    let along = match slabs {
        true => with(out.shape().iter().map(|_| 0).collect(), step(index, 0)),
        false => with(beside(index, axis), step(index, axis)),
    };
    let from = with(beside(values, axis), step(values, axis));
    Space::new(&extents, out.rank(), smallvec![with(all(base), 0), along, from, with(all(out), 0)])
}
