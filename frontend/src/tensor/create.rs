//! Making tensors.

use super::layout::{IntoDims, sizes};
use super::{Tensor, apply, fail};
use crate::device::made_on;
use crate::random;
use num_complex::Complex;
use sinter_runtime::op::RandomKind;
use sinter_runtime::{Array, DType, Number, Op, Scalar, Shape};
use std::sync::atomic::{AtomicU8, Ordering};

static DEFAULT_FLOAT: AtomicU8 = AtomicU8::new(DType::F32 as u8);

/// The floating-point type of tensors whose type is not said.
pub fn default_dtype() -> DType {
    let d = DEFAULT_FLOAT.load(Ordering::Relaxed);
    DType::ALL.into_iter().find(|x| *x as u8 == d).unwrap_or(DType::F32)
}

/// Sets the floating-point type of tensors whose type is not said.
///
/// # Panics
/// If it is not a floating-point type.
#[track_caller]
pub fn set_default_dtype(dtype: DType) {
    if !dtype.is_float() {
        panic!("set_default_dtype: {dtype} is not a floating-point type");
    }
    DEFAULT_FLOAT.store(dtype as u8, Ordering::Relaxed);
}

/// A Rust number (or bool) that nested arrays for [`tensor`] are made of.
pub trait Elem: Copy {
    /// Its element type.
    const DTYPE: DType;
    /// How it is stored.
    type Stored: Number;
    /// The stored number.
    fn stored(self) -> Self::Stored;
}

macro_rules! elem {
    ($($t:ty),*) => {$(
        impl Elem for $t {
            const DTYPE: DType = <$t as Number>::DTYPE;
            type Stored = $t;
            fn stored(self) -> $t {
                self
            }
        }
        impl IntoTensor for $t {
            type Elem = $t;
            fn extents(&self, _: &mut Shape) {}
            fn flatten(&self, out: &mut Vec<$t>) {
                out.push(*self);
            }
        }
    )*};
}
elem!(f32, f64, half::f16, half::bf16, i64, i32, i16, i8, u64, u32, u16, u8);
elem!(Complex<f32>, Complex<f64>);

impl Elem for bool {
    const DTYPE: DType = DType::Bool;
    type Stored = u8;
    fn stored(self) -> u8 {
        u8::from(self)
    }
}
impl IntoTensor for bool {
    type Elem = bool;
    fn extents(&self, _: &mut Shape) {}
    fn flatten(&self, out: &mut Vec<u8>) {
        out.push(u8::from(*self));
    }
}

/// Numbers and nested arrays, vectors and slices of them.
pub trait IntoTensor {
    /// The number at the bottom.
    type Elem: Elem;
    #[doc(hidden)]
    fn extents(&self, shape: &mut Shape);
    #[doc(hidden)]
    fn flatten(&self, out: &mut Vec<<Self::Elem as Elem>::Stored>);
}

impl<T: IntoTensor> IntoTensor for [T] {
    type Elem = T::Elem;
    fn extents(&self, shape: &mut Shape) {
        shape.push(self.len());
        if let Some(first) = self.first() {
            first.extents(shape);
        }
    }
    fn flatten(&self, out: &mut Vec<<Self::Elem as Elem>::Stored>) {
        for x in self {
            x.flatten(out);
        }
    }
}

macro_rules! nested {
    ($([$($g:tt)*] $t:ty),*) => {$(
        impl<$($g)*> IntoTensor for $t {
            type Elem = T::Elem;
            fn extents(&self, shape: &mut Shape) {
                self[..].extents(shape);
            }
            fn flatten(&self, out: &mut Vec<<Self::Elem as Elem>::Stored>) {
                self[..].flatten(out);
            }
        }
    )*};
}
nested!([T: IntoTensor, const N: usize] [T; N], [T: IntoTensor] Vec<T>, [T: IntoTensor] &[T]);

/// A tensor from a number or nested arrays; its type is that of the Rust numbers.
///
/// ```
/// use sinter::{DType, tensor};
/// let m = tensor([[1i64, 2, 3], [4, 5, 6]]);
/// assert_eq!((m.shape(), m.dtype()), (&[2, 3][..], DType::I64));
/// assert_eq!(tensor(0.5f32).rank(), 0);
/// ```
///
/// # Panics
/// If nested arrays are ragged.
#[track_caller]
pub fn tensor<T: IntoTensor>(values: T) -> Tensor {
    let mut shape = Shape::new();
    values.extents(&mut shape);
    let mut flat = Vec::new();
    values.flatten(&mut flat);
    if flat.len() != shape.iter().product::<usize>() {
        panic!("tensor: nested arrays are ragged: {} numbers do not fill {shape:?}", flat.len());
    }
    let a = or_fail(Array::from_slice(&flat, &shape));
    Tensor::from_array(if T::Elem::DTYPE == DType::Bool { as_bool(&a) } else { a })
}

#[track_caller]
fn as_bool(a: &Array) -> Array {
    or_fail(sinter_runtime::eager::run1(&Op::Cast { dtype: DType::Bool }, &[a]))
}

#[track_caller]
fn or_fail(r: Result<Array, sinter_runtime::OpError>) -> Array {
    match r {
        Ok(a) => a,
        Err(e) => fail(&e, &[]),
    }
}

/// A tensor of `shape` from numbers in row-major order.
///
/// # Panics
/// If their number is not that of the shape.
#[track_caller]
pub fn from_slice<T: Number>(values: &[T], shape: impl IntoDims) -> Tensor {
    let shape = sizes("from_slice", shape);
    Tensor::from_array(or_fail(Array::from_slice(values, &shape)))
}

/// A 0-d tensor.
#[track_caller]
pub fn scalar(value: impl Into<Scalar>, dtype: DType) -> Tensor {
    Tensor::from_array(or_fail(Array::scalar(value.into(), dtype)))
}

/// A tensor whose contents are unspecified.
#[track_caller]
pub fn empty(shape: impl IntoDims, dtype: DType) -> Tensor {
    Tensor::from_array(or_fail(Array::empty(&sizes("empty", shape), dtype)))
}

/// A tensor filled with `value`.
#[track_caller]
pub fn full(shape: impl IntoDims, value: impl Into<Scalar>, dtype: DType) -> Tensor {
    filled(sizes("full", shape), value.into(), dtype)
}

#[track_caller]
fn filled(shape: Shape, value: Scalar, dtype: DType) -> Tensor {
    apply(Op::Full { value, dtype, shape }, &[])
}

/// Zeros of the default type.
#[track_caller]
pub fn zeros(shape: impl IntoDims) -> Tensor {
    filled(sizes("zeros", shape), 0.0.into(), default_dtype())
}

/// Ones of the default type.
#[track_caller]
pub fn ones(shape: impl IntoDims) -> Tensor {
    filled(sizes("ones", shape), 1.0.into(), default_dtype())
}

/// `value` in the shape and type of another tensor.
#[track_caller]
pub fn full_like(like: &Tensor, value: impl Into<Scalar>) -> Tensor {
    let (value, dtype, shape) = (value.into(), like.dtype(), like.shape().into());
    made_on(like.device(), Op::Full { value, dtype, shape })
}

/// Zeros in the shape and type of another tensor.
#[track_caller]
pub fn zeros_like(like: &Tensor) -> Tensor {
    full_like(like, 0.0)
}

/// Ones in the shape and type of another tensor.
#[track_caller]
pub fn ones_like(like: &Tensor) -> Tensor {
    full_like(like, 1.0)
}

/// The identity matrix of `n` rows, in the default type.
#[track_caller]
pub fn eye(n: usize) -> Tensor {
    let iota = |axis| Op::Iota { dtype: DType::I64, axis, shape: [n, n].as_slice().into() };
    apply(iota(0), &[]).eq(apply(iota(1), &[])).to_dtype(default_dtype())
}

/// Where the column less the row of a matrix element is at most `diagonal`.
#[track_caller]
fn below_diagonal(x: &Tensor, diagonal: i64) -> Tensor {
    if x.rank() < 2 {
        panic!("tril/triu: needs a matrix, the shape is {:?}", x.shape());
    }
    let shape: Shape = x.shape()[x.rank() - 2..].into();
    let iota =
        |axis| made_on(x.device(), Op::Iota { dtype: DType::I64, axis, shape: shape.clone() });
    iota(1).le(&(iota(0) + diagonal))
}

impl Tensor {
    /// The lower triangle of the last two dimensions, zeros elsewhere; `diagonal`
    /// moves its edge to the right.
    #[track_caller]
    pub fn tril(&self, diagonal: i64) -> Tensor {
        below_diagonal(self, diagonal).where_(self, zeros_like(self))
    }

    /// The upper triangle of the last two dimensions, zeros elsewhere; `diagonal`
    /// moves its edge to the right.
    #[track_caller]
    pub fn triu(&self, diagonal: i64) -> Tensor {
        below_diagonal(self, diagonal - 1).where_(&zeros_like(self), self)
    }
}

/// `start, start + step, …` below `end`, of type i64 for integers, else of the
/// default float type.
///
/// ```
/// use sinter::arange;
/// assert_eq!(arange(0, 6, 2).to_vec::<i64>(), [0, 2, 4]);
/// assert_eq!(arange(1.0, 2.0, 0.5).to_vec::<f32>(), [1.0, 1.5]);
/// ```
///
/// # Panics
/// If the step is zero or leads away from `end`.
#[track_caller]
pub fn arange<T: Into<Scalar>>(start: T, end: T, step: T) -> Tensor {
    let values = stepped(start.into(), end.into(), step.into());
    if values.dtype().is_float() { values.to_dtype(default_dtype()) } else { values }
}

/// [`arange`] in i64 or f64.
#[track_caller]
pub(super) fn stepped(start: Scalar, end: Scalar, step: Scalar) -> Tensor {
    let integral = [start, end, step].iter().all(|s| matches!(s, Scalar::Int(_)));
    let (s, e, d) = (start.as_f64(), end.as_f64(), step.as_f64());
    let n = ((e - s) / d).ceil();
    if d == 0.0 || n.is_nan() || n < 0.0 || n > isize::MAX as f64 {
        panic!("arange: from {start} to {end} by {step} leads nowhere");
    }
    let dtype = if integral { DType::I64 } else { DType::F64 };
    let count = apply(Op::Iota { dtype, axis: 0, shape: [n as usize].as_slice().into() }, &[]);
    count * step + start
}

/// `n` numbers evenly spaced from `start` to `end`, both included.
#[track_caller]
pub fn linspace(start: f64, end: f64, n: usize) -> Tensor {
    spaced(start, end, n).to_dtype(default_dtype())
}

/// [`linspace`] in f64.
#[track_caller]
pub(super) fn spaced(start: f64, end: f64, n: usize) -> Tensor {
    let i = apply(Op::Iota { dtype: DType::F64, axis: 0, shape: [n].as_slice().into() }, &[]);
    let step = if n > 1 { (end - start) / (n - 1) as f64 } else { 0.0 };
    // Exact at both ends: count from the nearer one.
    let from_start = &i * step + start;
    let from_end = end - ((n.max(1) - 1) as f64 - &i) * step;
    let near = i.lt(n as f64 / 2.0);
    near.where_(&from_start, &from_end)
}

/// `n` numbers from `base^start` to `base^end`, both included, whose exponents are evenly
/// spaced.
#[track_caller]
pub fn logspace(start: f64, end: f64, n: usize, base: f64) -> Tensor {
    powers(start, end, n, base).to_dtype(default_dtype())
}

/// [`logspace`] in f64.
#[track_caller]
pub(super) fn powers(start: f64, end: f64, n: usize, base: f64) -> Tensor {
    scalar(base, DType::F64).pow(spaced(start, end, n))
}

/// Rows and columns of an `n` by `m` matrix's elements that are kept, in row-major order:
/// [2, number].
#[track_caller]
fn triangle(n: usize, m: usize, keep: impl Fn(i64, i64) -> bool) -> Tensor {
    let all = (0..n as i64).flat_map(|i| (0..m as i64).map(move |j| (i, j)));
    let (mut index, columns): (Vec<i64>, Vec<i64>) = all.filter(|&(i, j)| keep(i, j)).unzip();
    let count = columns.len();
    index.extend(columns);
    from_slice(&index, [2, count])
}

/// Rows and columns of the lower triangle of an `n` by `m` matrix, whose edge `diagonal`
/// moves to the right: [2, number].
#[track_caller]
pub fn tril_indices(n: usize, m: usize, diagonal: i64) -> Tensor {
    triangle(n, m, |i, j| j - i <= diagonal)
}

/// Rows and columns of the upper triangle of an `n` by `m` matrix, whose edge `diagonal`
/// moves to the right: [2, number].
#[track_caller]
pub fn triu_indices(n: usize, m: usize, diagonal: i64) -> Tensor {
    triangle(n, m, |i, j| j - i >= diagonal)
}

/// A tensor with these strides, in elements, in memory of its own whose contents are
/// unspecified.
///
/// # Panics
/// If shape and strides differ in length.
#[track_caller]
pub fn empty_strided(shape: impl IntoDims, strides: impl IntoDims, dtype: DType) -> Tensor {
    let (shape, strides) = (sizes("empty_strided", shape), sizes("empty_strided", strides));
    if shape.len() != strides.len() {
        panic!("empty_strided: shape {shape:?} and strides {strides:?} differ in length");
    }
    let last = shape
        .iter()
        .zip(&strides)
        .try_fold(0usize, |last, (&n, &s)| last.checked_add(n.saturating_sub(1).checked_mul(s)?));
    let Some(last) = last.filter(|l| *l < isize::MAX as usize) else {
        panic!("empty_strided: shape {shape:?} with strides {strides:?} exceeds memory");
    };
    let storage = or_fail(Array::empty(&[last + 1], dtype));
    let strides: Vec<isize> = strides.iter().map(|&s| s as isize).collect();
    Tensor::from_array(or_fail(storage.as_strided(&shape, &strides, 0)))
}

/// A tensor whose contents are unspecified and whose dimensions lie in memory in the order
/// `physical`, the outermost first.
///
/// # Panics
/// If that is no order of the dimensions.
#[track_caller]
pub fn empty_permuted(shape: impl IntoDims, physical: &[usize], dtype: DType) -> Tensor {
    let shape = sizes("empty_permuted", shape);
    let mut strides = vec![0usize; shape.len()];
    let mut step = 1;
    for &d in physical.iter().rev() {
        if d >= shape.len() || strides[d] != 0 || physical.len() != shape.len() {
            panic!("empty_permuted: {physical:?} is no order of the dimensions of {shape:?}");
        }
        strides[d] = step;
        step *= shape[d].max(1);
    }
    empty_strided(shape, strides, dtype)
}

/// A vector of the numbers that the bytes are, in little-endian order, from byte `offset`
/// on; `count` of them, or all that are there. The bytes are copied.
///
/// # Panics
/// If the bytes end before, or in the middle of, a number.
#[track_caller]
pub fn frombuffer(
    bytes: &[u8],
    dtype: DType,
    count: impl Into<Option<usize>>,
    offset: usize,
) -> Tensor {
    let size = dtype.size();
    let rest = bytes.len().saturating_sub(offset);
    let n = count.into().unwrap_or(rest / size);
    let asked = n.checked_mul(size);
    let whole = offset <= bytes.len() && (n > 0 || rest.is_multiple_of(size));
    let Some(len) = asked.filter(|&len| len <= rest && whole) else {
        panic!(
            "frombuffer: {} byte(s) from {offset} on are not {n} number(s) of type {dtype}",
            bytes.len()
        );
    };
    Tensor::from_array(or_fail(Array::from_bytes(&bytes[offset..offset + len], &[n], dtype)))
}

/// A tensor from numbers or nested arrays; a tensor is itself, its memory shared.
#[track_caller]
pub fn asarray<T: AsArray>(values: T) -> Tensor {
    values.into_tensor()
}

/// What [`asarray`] takes.
pub trait AsArray {
    #[doc(hidden)]
    fn into_tensor(self) -> Tensor;
}

impl AsArray for Tensor {
    fn into_tensor(self) -> Tensor {
        self
    }
}
impl AsArray for &Tensor {
    fn into_tensor(self) -> Tensor {
        self.clone()
    }
}
impl<T: IntoTensor> AsArray for T {
    #[track_caller]
    fn into_tensor(self) -> Tensor {
        tensor(self)
    }
}

#[track_caller]
pub(crate) fn random(kind: RandomKind, shape: Shape, dtype: DType) -> Tensor {
    if let Some(t) = crate::batch::draw(kind, &shape, dtype) {
        return t;
    }
    if dtype.is_complex() {
        // The parts of standard normal numbers have the variance 1/2.
        let shape = shape.iter().copied().chain([2]).collect();
        let parts = random(kind, shape, dtype.real());
        let parts = if kind == RandomKind::Normal {
            parts * std::f64::consts::FRAC_1_SQRT_2
        } else {
            parts
        };
        return parts.view_as_complex();
    }
    let (seed, offset, place) = random::part(shape.iter().product());
    let op = Op::Random { kind, dtype, seed, offset, shape };
    match &place {
        Some(place) => apply(op, &[place]),
        None => apply(op, &[]),
    }
}

/// Uniform random numbers on [0, 1), in the default type.
#[track_caller]
pub fn rand(shape: impl IntoDims) -> Tensor {
    random(RandomKind::Uniform, sizes("rand", shape), default_dtype())
}

/// Standard normal random numbers, in the default type.
#[track_caller]
pub fn randn(shape: impl IntoDims) -> Tensor {
    random(RandomKind::Normal, sizes("randn", shape), default_dtype())
}

/// Uniform random numbers on [0, 1) in the shape and type of another tensor.
#[track_caller]
pub fn rand_like(like: &Tensor) -> Tensor {
    random(RandomKind::Uniform, like.shape().into(), like.dtype()).to(like.device())
}

/// Standard normal random numbers in the shape and type of another tensor.
#[track_caller]
pub fn randn_like(like: &Tensor) -> Tensor {
    random(RandomKind::Normal, like.shape().into(), like.dtype()).to(like.device())
}

/// Random i64 numbers on [low, high).
///
/// # Panics
/// If the range is empty or wider than 2^53.
#[track_caller]
pub fn randint(low: i64, high: i64, shape: impl IntoDims) -> Tensor {
    let range = high.checked_sub(low).filter(|&r| r > 0 && r <= 1 << 53);
    let Some(range) = range else { panic!("randint: bad range {low}..{high}") };
    let u = random(RandomKind::Uniform, sizes("randint", shape), DType::F64);
    (u * range as f64).to_dtype(DType::I64) + low
}

/// A random permutation of `0..n`, as i64.
#[track_caller]
pub fn randperm(n: usize) -> Tensor {
    random(RandomKind::Uniform, [n].as_slice().into(), DType::F64).argsort(0, false)
}

/// 1 with the probability given by each element, else 0.
#[track_caller]
pub fn bernoulli(p: &Tensor) -> Tensor {
    rand_like(p).lt(p).to_dtype(p.dtype())
}
