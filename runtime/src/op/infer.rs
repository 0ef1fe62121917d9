//! The shape-and-type rule of every op, over any kind of extent.

mod contract;
mod linalg;
mod recurrent;
mod types;
mod views;

pub use types::{TensorType, TypeRef};

use super::*;
use crate::dim::count;
use crate::{Category, OpError};
use contract::{affine_tail, attention, conv, known_kernel, matmul, pool, window};

type Types<D> = SmallVec<[TensorType<D>; 1]>;

#[inline]
fn one<D: Extent>(dtype: DType, shape: impl Into<Dims<D>>) -> Result<TensorType<D>, OpError> {
    Ok(TensorType::new(dtype, shape))
}

/// The shape two operands broadcast to, NumPy's rule: aligned at the last
/// dimension, extents are equal or one of them is 1.
pub fn broadcast_shapes<D: Extent>(op: &str, a: &[D], b: &[D]) -> Result<Dims<D>, OpError> {
    let (long, short) = if a.len() >= b.len() { (a, b) } else { (b, a) };
    let lead = long.len() - short.len();
    let mut out: Dims<D> = long.into();
    for (i, d) in short.iter().enumerate() {
        let o = &mut out[lead + i];
        if o == d || d.is(1) {
            continue;
        }
        if !o.is(1) {
            let (l, r) =
                if a.len() >= b.len() { (&long[lead + i], d) } else { (d, &long[lead + i]) };
            return Err(OpError::shape(
                op,
                format!(
                    "shapes {a:?} and {b:?} do not broadcast: dimension {} from the right is {l} and {r}; they must be equal or one of them 1",
                    short.len() - i
                ),
            ));
        }
        *o = d.clone();
    }
    Ok(out)
}

fn same_dtype<D: Extent>(op: &str, xs: &[TypeRef<'_, D>]) -> Result<DType, OpError> {
    let first = xs[0].dtype;
    match xs.iter().find(|x| x.dtype != first) {
        None => Ok(first),
        Some(x) => Err(OpError::dtype(
            op,
            format!("operands of types {first} and {} (convert one with `to_dtype`)", x.dtype),
        )),
    }
}

fn float_only(op: &str, d: DType) -> Result<(), OpError> {
    // Ops that do not take complex numbers have refused them before.
    if d.is_differentiable() {
        return Ok(());
    }
    Err(OpError::dtype(op, format!("needs a floating-point operand, got {d}")))
}

fn axis_in(op: &str, axis: usize, rank: usize) -> Result<(), OpError> {
    if axis < rank {
        return Ok(());
    }
    Err(OpError::shape(op, format!("axis {axis} does not exist in {rank} dimension(s)")))
}

fn axes_in(op: &str, axes: &[usize], rank: usize) -> Result<(), OpError> {
    for (i, &a) in axes.iter().enumerate() {
        axis_in(op, a, rank)?;
        if axes[..i].contains(&a) {
            return Err(OpError::shape(op, format!("axis {a} is given twice")));
        }
    }
    Ok(())
}

/// The rule of a view op ([`Op::is_view`]) on an operand of this shape.
pub fn check_view<D: Extent>(op: &Op<D>, x: &[D]) -> Result<(), OpError> {
    let name = op.name();
    let fail = |reason: String| Err(OpError::shape(name, reason));
    match op {
        Op::Reshape { shape } if count(shape) != count(x) => {
            fail(format!("shape {x:?} does not have the elements of {shape:?}"))
        }
        Op::Permute { perm } if perm.len() != x.len() => {
            fail(format!("{perm:?} does not name every dimension of {x:?}"))
        }
        Op::Permute { perm } => axes_in(name, perm, x.len()),
        Op::Broadcast { shape } if broadcast_shapes(name, x, shape)? != *shape => {
            fail(format!("shape {x:?} does not broadcast to {shape:?}"))
        }
        Op::Slice { axis, start, len, step } => {
            axis_in(name, *axis, x.len())?;
            check_slice(name, &x[*axis], *axis, start, len, *step)
        }
        Op::Flip { axes } => axes_in(name, axes, x.len()),
        Op::ViewAsComplex {} if x.last().is_none_or(|n| !n.is(2)) => {
            fail(format!("the last dimension of {x:?} is not 2: real and imaginary part"))
        }
        _ => views::check(op, x),
    }
}

/// The element type of a view op's result.
pub fn view_dtype<D: Extent>(op: &Op<D>, x: DType) -> Result<DType, OpError> {
    match op {
        Op::ViewAsReal {} if !x.is_complex() => {
            Err(OpError::dtype(op.name(), format!("needs complex numbers, got {x}")))
        }
        Op::ViewAsReal {} => Ok(x.real()),
        Op::ViewAsComplex {} if x.complex().real() != x => {
            Err(OpError::dtype(op.name(), format!("needs parts of type f32 or f64, got {x}")))
        }
        Op::ViewAsComplex {} => Ok(x.complex()),
        _ => Ok(x),
    }
}

/// The shape of a view op's result, its rule being kept.
fn view_shape<D: Extent>(op: &Op<D>, x: &[D]) -> Dims<D> {
    match op {
        Op::Reshape { shape } | Op::Broadcast { shape } => shape.clone(),
        Op::Permute { perm } => perm.iter().map(|&p| x[p].clone()).collect(),
        Op::Slice { axis, len, .. } => {
            let mut shape: Dims<D> = x.into();
            shape[*axis] = len.clone();
            shape
        }
        Op::ViewAsReal {} => x.iter().cloned().chain([D::of(2)]).collect(),
        Op::ViewAsComplex {} => x[..x.len() - 1].into(),
        Op::Diagonal { .. } | Op::Unfold { .. } | Op::AsStrided { .. } => views::shape(op, x),
        _ => x.into(),
    }
}

/// The types of an op's results, or which rule the operands break.
pub fn infer<D: Extent>(op: &Op<D>, xs: &[TypeRef<'_, D>]) -> Result<Types<D>, OpError> {
    let first = infer_first(op, xs)?;
    if op.is_linalg() {
        return linalg::factors(op, xs);
    }
    if let Op::Recurrent { .. } | Op::RecurrentGrad { .. } = op {
        return recurrent::results(op, xs);
    }
    if let Op::AttentionGrad { .. } = op {
        return Ok(xs[..3].iter().map(|x| TensorType::new(first.dtype, x.shape)).collect());
    }
    let mut types = Types::new();
    if op.outputs() == 2 {
        // Of a search: where along the axis each value was.
        types.push(TensorType::new(DType::I64, first.shape.clone()));
    }
    types.insert(0, first);
    Ok(types)
}

/// The type of an op's first result, or which rule the operands break.
pub fn infer_first<D: Extent>(op: &Op<D>, xs: &[TypeRef<'_, D>]) -> Result<TensorType<D>, OpError> {
    let name = op.name();
    let (least, most) = op.arity();
    if xs.len() < least || xs.len() > most {
        return Err(OpError::shape(name, format!("takes {least} operand(s), got {}", xs.len())));
    }
    let shape_err = |reason: String| Err(OpError::shape(name, reason));
    if complex::concerns(op, xs.iter().map(|x| x.dtype)) && !complex::takes(op) {
        return Err(OpError::dtype(name, "does not take complex numbers"));
    }
    match op {
        Op::Full { dtype, shape, .. } => one(*dtype, shape.clone()),
        Op::Iota { dtype, shape, axis } => {
            axis_in(name, *axis, shape.len())?;
            one(*dtype, shape.clone())
        }
        Op::Random { dtype, shape, .. } => {
            float_only(name, *dtype)?;
            place(name, xs.first())?;
            one(*dtype, shape.clone())
        }
        Op::Sample { .. } => {
            let d = same_dtype(name, xs)?;
            float_only(name, d)?;
            if xs.iter().any(|x| x.shape != xs[0].shape) {
                return shape_err("the parameters differ in shape".to_string());
            }
            one(d, xs[0].shape)
        }
        Op::Unary(u) => {
            let d = xs[0].dtype;
            let ok = d.is_complex()
                || match u.domain() {
                    Domain::Float => d.is_float(),
                    Domain::Number => d != DType::Bool,
                    Domain::ToBool => true,
                    Domain::Bits => !d.is_float(),
                };
            if !ok {
                return Err(OpError::dtype(name, format!("does not take {d}")));
            }
            let result = match u.domain() {
                Domain::ToBool => DType::Bool,
                _ if *u == UnaryOp::Abs => d.real(),
                _ => d,
            };
            one(result, xs[0].shape)
        }
        Op::Binary(b) => {
            let d = same_dtype(name, xs)?;
            let ok = d.is_complex()
                || match b.domain() {
                    BinaryDomain::Any => true,
                    BinaryDomain::Number => d != DType::Bool,
                    BinaryDomain::Float => d.is_float(),
                    BinaryDomain::Bits => !d.is_float(),
                    BinaryDomain::Int => d.category() == Category::Int,
                    BinaryDomain::Full => matches!(d, DType::F32 | DType::F64),
                };
            if !ok {
                return Err(OpError::dtype(name, format!("does not take {d}")));
            }
            one(d, broadcast_shapes(name, xs[0].shape, xs[1].shape)?)
        }
        Op::Compare(_) => {
            same_dtype(name, xs)?;
            one(DType::Bool, broadcast_shapes(name, xs[0].shape, xs[1].shape)?)
        }
        Op::Select {} => {
            if xs[0].dtype != DType::Bool {
                return Err(OpError::dtype(
                    name,
                    format!("the condition is {}, not bool", xs[0].dtype),
                ));
            }
            let d = same_dtype(name, &xs[1..])?;
            let ab = broadcast_shapes(name, xs[1].shape, xs[2].shape)?;
            one(d, broadcast_shapes(name, xs[0].shape, &ab)?)
        }
        Op::Cast { dtype } => one(*dtype, xs[0].shape),

        Op::Reduce { kind, axes, keep } => {
            axes_in(name, axes, xs[0].shape.len())?;
            let d = match kind {
                ReduceKind::Any | ReduceKind::All => DType::Bool,
                ReduceKind::Sum | ReduceKind::Prod if !xs[0].dtype.is_differentiable() => {
                    DType::I64
                }
                _ => xs[0].dtype,
            };
            if matches!(kind, ReduceKind::Max | ReduceKind::Min) {
                for &a in axes {
                    if xs[0].shape[a].is(0) {
                        return shape_err(format!(
                            "the {} of an empty dimension ({a} of {:?}) does not exist",
                            kind.name(),
                            xs[0].shape
                        ));
                    }
                }
            }
            one(d, reduced(xs[0].shape, axes, *keep))
        }
        Op::ArgReduce { axis, keep, kind } => {
            axis_in(name, *axis, xs[0].shape.len())?;
            if xs[0].shape[*axis].is(0) {
                return shape_err(format!(
                    "the index of the {} of an empty dimension ({axis} of {:?}) does not exist",
                    kind.name(),
                    xs[0].shape
                ));
            }
            one(DType::I64, reduced(xs[0].shape, &[*axis], *keep))
        }
        Op::Scan { kind, axis, reverse } => {
            axis_in(name, *axis, xs[0].shape.len())?;
            let x = xs[0].dtype;
            let d = match kind {
                ScanKind::Max | ScanKind::Min if *reverse => {
                    return Err(OpError::value(name, "a running extreme goes forwards only"));
                }
                ScanKind::Max | ScanKind::Min => x,
                ScanKind::LogSumExp => {
                    float_only(name, x)?;
                    x
                }
                ScanKind::Sum | ScanKind::Prod if x.is_differentiable() => x,
                ScanKind::Sum | ScanKind::Prod => DType::I64,
            };
            one(d, xs[0].shape)
        }
        Op::SearchSorted { .. } => {
            same_dtype(name, xs)?;
            let (s, v) = (xs[0].shape, xs[1].shape);
            let fits = match s.len() {
                0 => false,
                1 => true,
                n => n == v.len() && s[..n - 1] == v[..n - 1],
            };
            if !fits {
                return shape_err(format!(
                    "sorted {s:?} must be one line, or have the dimensions of the values {v:?} but for the last"
                ));
            }
            one(DType::I64, v)
        }
        Op::Sort { axis, .. } => {
            axis_in(name, *axis, xs[0].shape.len())?;
            one(xs[0].dtype, xs[0].shape)
        }
        Op::TopK { k, axis, .. } => {
            axis_in(name, *axis, xs[0].shape.len())?;
            if xs[0].shape[*axis].known().is_some_and(|n| *k > n) {
                return shape_err(format!("k = {k} exceeds dimension {axis} of {:?}", xs[0].shape));
            }
            let mut shape: Dims<D> = xs[0].shape.into();
            shape[*axis] = D::of(*k);
            one(xs[0].dtype, shape)
        }

        Op::Reshape { .. }
        | Op::Permute { .. }
        | Op::Broadcast { .. }
        | Op::Slice { .. }
        | Op::Diagonal { .. }
        | Op::Unfold { .. }
        | Op::AsStrided { .. }
        | Op::Flip { .. }
        | Op::ViewAsReal {}
        | Op::ViewAsComplex {} => {
            check_view(op, xs[0].shape)?;
            one(view_dtype(op, xs[0].dtype)?, view_shape(op, xs[0].shape))
        }
        Op::SliceAssign { axis, start, step } => {
            let d = same_dtype(name, xs)?;
            axis_in(name, *axis, xs[0].shape.len())?;
            let fits = xs[0].shape.len() == xs[1].shape.len()
                && (0..xs[0].shape.len()).all(|i| i == *axis || xs[0].shape[i] == xs[1].shape[i]);
            if !fits {
                return shape_err(format!(
                    "values {:?} differ from the base {:?} beyond axis {axis}",
                    xs[1].shape, xs[0].shape
                ));
            }
            check_slice(name, &xs[0].shape[*axis], *axis, start, &xs[1].shape[*axis], *step)?;
            one(d, xs[0].shape)
        }
        Op::Pad { low, high, .. } => {
            let rank = xs[0].shape.len();
            if low.len() != rank || high.len() != rank {
                return shape_err(format!(
                    "widths {low:?} and {high:?} do not match {:?}",
                    xs[0].shape
                ));
            }
            let shape: Dims<D> = (0..rank)
                .map(|i| xs[0].shape[i].plus(&D::of(low[i].saturating_add(high[i]))))
                .collect();
            one(xs[0].dtype, shape)
        }
        Op::Concat { axis } => {
            let d = same_dtype(name, xs)?;
            let rank = xs[0].shape.len();
            axis_in(name, *axis, rank)?;
            let mut shape: Dims<D> = xs[0].shape.into();
            for x in &xs[1..] {
                let fits = x.shape.len() == rank
                    && (0..rank).all(|i| i == *axis || x.shape[i] == xs[0].shape[i]);
                if !fits {
                    return shape_err(format!(
                        "shapes {:?} and {:?} differ beyond axis {axis}",
                        xs[0].shape, x.shape
                    ));
                }
                shape[*axis] = shape[*axis].plus(&x.shape[*axis]);
            }
            one(d, shape)
        }

        Op::Gather { axis } => {
            index_type(name, xs[1].dtype)?;
            gather_shapes(name, *axis, xs[0].shape, xs[1].shape)?;
            one(xs[0].dtype, xs[1].shape)
        }
        Op::Scatter { axis, .. } => {
            index_type(name, xs[1].dtype)?;
            gather_shapes(name, *axis, xs[0].shape, xs[1].shape)?;
            if xs[1].shape != xs[2].shape {
                return shape_err(format!(
                    "index {:?} and values {:?} differ",
                    xs[1].shape, xs[2].shape
                ));
            }
            one(same_dtype(name, &[xs[0], xs[2]])?, xs[0].shape)
        }
        Op::IndexSelect { axis } => {
            index_type(name, xs[1].dtype)?;
            axis_in(name, *axis, xs[0].shape.len())?;
            if xs[1].shape.len() != 1 {
                return shape_err(format!("the index is {:?}, not one-dimensional", xs[1].shape));
            }
            let mut shape: Dims<D> = xs[0].shape.into();
            shape[*axis] = xs[1].shape[0].clone();
            one(xs[0].dtype, shape)
        }
        Op::IndexAdd { axis } => {
            index_type(name, xs[1].dtype)?;
            axis_in(name, *axis, xs[0].shape.len())?;
            let mut want: Dims<D> = xs[0].shape.into();
            if xs[1].shape.len() == 1 {
                want[*axis] = xs[1].shape[0].clone();
            }
            if xs[1].shape.len() != 1 || want.as_slice() != xs[2].shape {
                return shape_err(format!(
                    "base {:?}, index {:?} and values {:?} do not fit along axis {axis}",
                    xs[0].shape, xs[1].shape, xs[2].shape
                ));
            }
            one(same_dtype(name, &[xs[0], xs[2]])?, xs[0].shape)
        }

        Op::MatMul { act } => matmul(name, *act, xs),
        Op::Conv { stride, padding, dilation, groups, .. } => {
            conv(name, xs, *stride, *padding, *dilation, *groups)
        }
        Op::ConvInputGrad { stride, padding, dilation, groups, height, width } => {
            let d = same_dtype(name, xs)?;
            float_only(name, d)?;
            let (gy, w) = (xs[0].shape, xs[1].shape);
            let rank_ok = gy.len() == 4 && w.len() == 4;
            if !rank_ok || gy[1] != w[0] {
                return shape_err(format!("gradient {gy:?} does not belong to weight {w:?}"));
            }
            let kernel = known_kernel(name, &w[2..])?;
            let hw = [height.clone(), width.clone()];
            let out = window(name, &hw, kernel, *stride, *padding, *dilation, false)?;
            if out.as_slice() != &gy[2..] {
                return shape_err(format!(
                    "gradient {gy:?} is not that of an input of {height} × {width} (which gives {out:?})"
                ));
            }
            let c = w[1].times(&D::of(*groups));
            one(d, [gy[0].clone(), c, height.clone(), width.clone()].as_slice())
        }
        Op::ConvWeightGrad { stride, padding, dilation, groups, kernel } => {
            let d = same_dtype(name, xs)?;
            float_only(name, d)?;
            let (x, gy) = (xs[0].shape, xs[1].shape);
            if x.len() != 4 || gy.len() != 4 || x[0] != gy[0] || *groups == 0 {
                return shape_err(format!("input {x:?} and gradient {gy:?} do not fit"));
            }
            let out = window(name, &x[2..], *kernel, *stride, *padding, *dilation, false)?;
            if out.as_slice() != &gy[2..] {
                return shape_err(format!(
                    "gradient {gy:?} is not that of input {x:?} under this kernel"
                ));
            }
            let Some(c) = x[1].exact_div(&D::of(*groups)) else {
                return shape_err(format!("{} channels do not divide into {groups} groups", x[1]));
            };
            one(d, [gy[1].clone(), c, D::of(kernel[0]), D::of(kernel[1])].as_slice())
        }
        Op::Pool { window: w, stride, padding, dilation, ceil, .. } => {
            let out = pool(name, xs[0], *w, *stride, *padding, *dilation, *ceil)?;
            one(xs[0].dtype, out)
        }
        Op::PoolGrad { window: w, stride, padding, dilation, ceil, .. } => {
            same_dtype(name, xs)?;
            let out = pool(name, xs[0], *w, *stride, *padding, *dilation, *ceil)?;
            if out.as_slice() != xs[1].shape {
                return shape_err(format!("gradient {:?} is not of shape {out:?}", xs[1].shape));
            }
            one(xs[0].dtype, xs[0].shape)
        }

        Op::Recurrent { .. } | Op::RecurrentGrad { .. } => {
            Ok(recurrent::results(op, xs)?.swap_remove(0))
        }

        Op::Cholesky {}
        | Op::Lu {}
        | Op::Qr { .. }
        | Op::Svd { .. }
        | Op::Eigh {}
        | Op::Eig {}
        | Op::Fft { .. }
        | Op::TriangularSolve { .. } => Ok(linalg::factors(op, xs)?.swap_remove(0)),

        Op::Softmax { axis, .. } => {
            float_only(name, xs[0].dtype)?;
            axis_in(name, *axis, xs[0].shape.len())?;
            one(xs[0].dtype, xs[0].shape)
        }
        Op::SoftmaxGrad { axis, .. } => {
            float_only(name, same_dtype(name, xs)?)?;
            axis_in(name, *axis, xs[0].shape.len())?;
            if xs[0].shape != xs[1].shape {
                return shape_err(format!(
                    "result {:?} and gradient {:?} differ",
                    xs[0].shape, xs[1].shape
                ));
            }
            one(xs[0].dtype, xs[0].shape)
        }
        Op::LayerNorm { dims, .. } => {
            float_only(name, same_dtype(name, xs)?)?;
            affine_tail(name, *dims, xs[0].shape, &xs[1..])?;
            one(xs[0].dtype, xs[0].shape)
        }
        Op::LayerNormGrad { dims, .. } => {
            float_only(name, same_dtype(name, xs)?)?;
            if xs[0].shape != xs[1].shape {
                return shape_err(format!(
                    "operand {:?} and gradient {:?} differ",
                    xs[0].shape, xs[1].shape
                ));
            }
            affine_tail(name, *dims, xs[0].shape, &xs[2..])?;
            one(xs[0].dtype, xs[0].shape)
        }
        Op::Attention { .. } => attention(name, xs),
        Op::AttentionGrad { .. } => {
            let y = [&xs[..3], &xs[4..]].concat();
            let y = attention(name, &y)?;
            if same_dtype(name, xs)? != y.dtype || y.shape.as_slice() != xs[3].shape {
                return shape_err(format!(
                    "gradient {:?} is not of shape {:?}",
                    xs[3].shape, y.shape
                ));
            }
            one(xs[0].dtype, xs[0].shape)
        }
        Op::Dropout { p, .. } => {
            float_only(name, xs[0].dtype)?;
            if !(0.0..=1.0).contains(&p.get()) {
                return Err(OpError::value(name, format!("p = {:?} is not a probability", p)));
            }
            place(name, xs.get(1))?;
            one(xs[0].dtype, xs[0].shape)
        }
    }
}

/// Where in a random stream an op begins: seed and offset.
fn place<D: Extent>(op: &str, x: Option<&TypeRef<'_, D>>) -> Result<(), OpError> {
    match x {
        Some(x) if x.dtype != DType::I64 || x.shape.len() != 1 || !x.shape[0].is(2) => {
            Err(OpError::shape(op, format!("a place in a stream is i64 [2], not {:?}", x.shape)))
        }
        _ => Ok(()),
    }
}

fn reduced<D: Extent>(shape: &[D], axes: &[usize], keep: bool) -> Dims<D> {
    let mut out = Dims::new();
    for (i, d) in shape.iter().enumerate() {
        match (axes.contains(&i), keep) {
            (false, _) => out.push(d.clone()),
            (true, true) => out.push(D::of(1)),
            (true, false) => {}
        }
    }
    out
}

fn check_slice<D: Extent>(
    op: &str,
    n: &D,
    axis: usize,
    start: &D,
    len: &D,
    step: usize,
) -> Result<(), OpError> {
    let err = || {
        Err(OpError::shape(
            op,
            format!(
                "{len} element(s) from {start}, {step} apart, do not lie in dimension {axis} of size {n}"
            ),
        ))
    };
    if step == 0 {
        return err();
    }
    if len.is(0) {
        return if n.minus(start).is_some() { Ok(()) } else { err() };
    }
    // last = start + (len - 1) step < n
    let last = len.minus(&D::of(1)).map(|l| l.times(&D::of(step)).plus(start));
    match last.and_then(|l| n.minus(&l)) {
        Some(room) if !room.is(0) => Ok(()),
        _ => err(),
    }
}

fn index_type(op: &str, d: DType) -> Result<(), OpError> {
    if d == DType::I64 {
        return Ok(());
    }
    Err(OpError::dtype(op, format!("the index is {d}, not i64")))
}

fn gather_shapes<D: Extent>(op: &str, axis: usize, x: &[D], index: &[D]) -> Result<(), OpError> {
    axis_in(op, axis, x.len())?;
    let fits = x.len() == index.len()
        && (0..x.len()).all(|i| i == axis || index[i] == x[i] || x[i].minus(&index[i]).is_some());
    if fits {
        return Ok(());
    }
    Err(OpError::shape(
        op,
        format!("index {index:?} must have the rank of {x:?} and be no larger beyond axis {axis}"),
    ))
}
