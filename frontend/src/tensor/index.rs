//! Indexing that reads like NumPy's: integers, ranges, new axes and dots, and tensors
//! of indices or truth values among them.

use super::shape::broadcast_shapes;
use super::{Operand, Tensor, apply, from_slice};
use sinter_runtime::op::{Axes, ScatterKind};
use sinter_runtime::{DType, Op, Shape};
use smallvec::SmallVec;
use std::ops::{Range, RangeFrom, RangeFull, RangeInclusive, RangeTo, RangeToInclusive};

/// A new dimension of extent 1, in an index.
#[derive(Clone, Copy, Debug)]
pub struct NewAxis;

/// As many full ranges as are missing, in an index: NumPy's `...`.
#[derive(Clone, Copy, Debug)]
pub struct Ellipsis;

/// One item of an index.
#[derive(Clone, Debug)]
pub enum IndexItem {
    /// One element; the dimension goes away. Negative counts from the end.
    At(i64),
    /// Elements from start to end (excluded), cut to what exists, `step` apart.
    Range {
        /// First element; negative counts from the end.
        start: Option<i64>,
        /// One past the last element; negative counts from the end.
        end: Option<i64>,
        /// Distance between elements, at least 1.
        step: usize,
    },
    /// A new dimension of extent 1.
    NewAxis,
    /// As many full ranges as are missing.
    Ellipsis,
    /// The elements that a tensor of integers names, or those for which a tensor of bool,
    /// of the extents of as many dimensions as it has, is true.
    Tensor(Tensor),
}

/// Every `step`-th element from `start` up to `end` (excluded), in an index: Python's
/// `start:end:step`. Bounds may be absent; negative ones count from the end.
///
/// ```
/// use sinter::{arange, s};
/// let x = arange(0, 10, 1);
/// assert_eq!(x.i(s(1, 8, 3)).to_vec::<i64>(), [1, 4, 7]);
/// assert_eq!(x.i(s(None, None, 4)).to_vec::<i64>(), [0, 4, 8]);
/// ```
///
/// # Panics
/// If the step is 0.
#[track_caller]
pub fn s(start: impl Into<Option<i64>>, end: impl Into<Option<i64>>, step: usize) -> IndexItem {
    if step == 0 {
        panic!("index: the step of a range is 0");
    }
    IndexItem::Range { start: start.into(), end: end.into(), step }
}

macro_rules! index_numbers {
    ($($t:ty),*) => {$(
        impl From<$t> for IndexItem {
            fn from(i: $t) -> IndexItem {
                IndexItem::At(i64::try_from(i).unwrap_or(i64::MAX))
            }
        }
        impl From<Range<$t>> for IndexItem {
            fn from(r: Range<$t>) -> IndexItem {
                range(Some(n(r.start)), Some(n(r.end)))
            }
        }
        impl From<RangeFrom<$t>> for IndexItem {
            fn from(r: RangeFrom<$t>) -> IndexItem {
                range(Some(n(r.start)), None)
            }
        }
        impl From<RangeTo<$t>> for IndexItem {
            fn from(r: RangeTo<$t>) -> IndexItem {
                range(None, Some(n(r.end)))
            }
        }
        impl From<RangeInclusive<$t>> for IndexItem {
            fn from(r: RangeInclusive<$t>) -> IndexItem {
                range(Some(n(*r.start())), past(n(*r.end())))
            }
        }
        impl From<RangeToInclusive<$t>> for IndexItem {
            fn from(r: RangeToInclusive<$t>) -> IndexItem {
                range(None, past(n(r.end)))
            }
        }
    )*};
}
index_numbers!(i32, i64, usize);

fn n(v: impl TryInto<i64>) -> i64 {
    v.try_into().unwrap_or(i64::MAX)
}

/// One past an included end; past the last element there is no end.
fn past(end: i64) -> Option<i64> {
    if end == -1 { None } else { end.checked_add(1) }
}

fn range(start: Option<i64>, end: Option<i64>) -> IndexItem {
    IndexItem::Range { start, end, step: 1 }
}

impl From<RangeFull> for IndexItem {
    fn from(_: RangeFull) -> IndexItem {
        range(None, None)
    }
}
impl From<NewAxis> for IndexItem {
    fn from(_: NewAxis) -> IndexItem {
        IndexItem::NewAxis
    }
}
impl From<Ellipsis> for IndexItem {
    fn from(_: Ellipsis) -> IndexItem {
        IndexItem::Ellipsis
    }
}

impl From<Tensor> for IndexItem {
    fn from(t: Tensor) -> IndexItem {
        IndexItem::Tensor(t)
    }
}
impl From<&Tensor> for IndexItem {
    fn from(t: &Tensor) -> IndexItem {
        IndexItem::Tensor(t.clone())
    }
}
impl<const N: usize> From<[i64; N]> for IndexItem {
    fn from(list: [i64; N]) -> IndexItem {
        IndexItem::Tensor(from_slice(&list, [N]))
    }
}
impl From<Vec<i64>> for IndexItem {
    fn from(list: Vec<i64>) -> IndexItem {
        IndexItem::Tensor(from_slice(&list, [list.len()]))
    }
}
impl<const N: usize> From<[bool; N]> for IndexItem {
    fn from(list: [bool; N]) -> IndexItem {
        IndexItem::Tensor(super::tensor(list))
    }
}

/// An index: one item, or a tuple or slice of them.
pub trait Index {
    #[doc(hidden)]
    fn items(self) -> SmallVec<[IndexItem; 6]>;
}

impl<T: Into<IndexItem>> Index for T {
    fn items(self) -> SmallVec<[IndexItem; 6]> {
        smallvec::smallvec![self.into()]
    }
}
impl Index for &[IndexItem] {
    fn items(self) -> SmallVec<[IndexItem; 6]> {
        self.iter().cloned().collect()
    }
}

macro_rules! index_tuples {
    ($(($($t:ident $i:tt),*))*) => {$(
        impl<$($t: Into<IndexItem>),*> Index for ($($t,)*) {
            fn items(self) -> SmallVec<[IndexItem; 6]> {
                smallvec::smallvec![$(self.$i.into()),*]
            }
        }
    )*};
}
index_tuples! {
    (A 0) (A 0, B 1) (A 0, B 1, C 2) (A 0, B 1, C 2, D 3) (A 0, B 1, C 2, D 3, E 4)
    (A 0, B 1, C 2, D 3, E 4, F 5)
}

/// Index tensors for dimensions of a tensor; `None` where all elements are meant.
type Picks = Vec<Option<Tensor>>;

impl Tensor {
    /// Part of the tensor: integers, ranges ([`s`] with a step), [`NewAxis`] and
    /// [`Ellipsis`] give a view. Ranges are cut to what exists, as in Python; integers
    /// must exist.
    ///
    /// Tensors (or arrays) of integers or of bool pick elements, which are copied. They
    /// broadcast with each other, and their dimensions stand where the first of them was
    /// if they are neighbours, else in front. Integers are applied first, as in PyTorch.
    ///
    /// ```
    /// use sinter::{Ellipsis, NewAxis, arange, tensor};
    /// let x = arange(0, 24, 1).reshape([2, 3, 4]);
    /// assert_eq!(x.i((.., 1..3, NewAxis, -1)).shape(), [2, 2, 1]);
    /// assert_eq!(x.i((Ellipsis, 0)).to_vec::<i64>(), [0, 4, 8, 12, 16, 20]);
    /// let rows = tensor([2i64, 0]);
    /// assert_eq!(x.i((1, &rows, 1..3)).to_vec::<i64>(), [21, 22, 13, 14]);
    /// assert_eq!(x.i(x.gt(21)).to_vec::<i64>(), [22, 23]);
    /// ```
    ///
    /// # Panics
    /// If there are more items than dimensions, an index is out of range, or the shapes
    /// of index tensors do not fit; and while tracing, if a tensor of bool is traced: how
    /// many elements it picks depends on values.
    #[track_caller]
    pub fn i(&self, index: impl Index) -> Tensor {
        let (view, picks) = self.basic(&index.items());
        if picks.iter().all(Option::is_none) { view } else { view.picked_by(&picks) }
    }

    /// The view that the basic items of an index make, and the tensors for its
    /// dimensions.
    #[track_caller]
    fn basic(&self, items: &[IndexItem]) -> (Tensor, Picks) {
        // A tensor of bool takes up as many dimensions as it has.
        let taken = |item: &IndexItem| match item {
            IndexItem::At(_) | IndexItem::Range { .. } => 1,
            IndexItem::Tensor(t) if t.dtype() == DType::Bool => t.rank(),
            IndexItem::Tensor(_) => 1,
            IndexItem::NewAxis | IndexItem::Ellipsis => 0,
        };
        let used: usize = items.iter().map(taken).sum();
        let dots = items.iter().filter(|i| matches!(i, IndexItem::Ellipsis)).count();
        if used > self.rank() || dots > 1 {
            panic!("index: {items:?} does not fit a tensor of shape {:?}", self.shape());
        }
        let mut x = self.clone();
        let mut shape = Shape::new();
        let mut picks = Picks::new();
        let mut axis = 0;
        for item in items {
            match item {
                IndexItem::NewAxis => shape.push(1),
                IndexItem::Ellipsis => {
                    for _ in 0..self.rank() - used {
                        shape.push(x.shape()[axis]);
                        axis += 1;
                    }
                }
                IndexItem::At(i) => {
                    let n = x.shape()[axis] as i64;
                    if *i < -n || *i >= n {
                        panic!(
                            "index: {i} is out of range for dimension {axis} of shape {:?}",
                            self.shape()
                        );
                    }
                    let start = (if *i < 0 { i + n } else { *i }) as usize;
                    x = apply(Op::Slice { axis, start, len: 1, step: 1 }, &[&x]);
                    axis += 1;
                }
                IndexItem::Range { start, end, step } => {
                    let n = x.shape()[axis] as i64;
                    let clip = |v: i64| (if v < 0 { v + n } else { v }).clamp(0, n) as usize;
                    let (s, e) = (start.map_or(0, clip), end.map_or(n as usize, clip));
                    let len = e.saturating_sub(s).div_ceil((*step).max(1));
                    if (s, len, *step) != (0, n as usize, 1) {
                        let op = Op::Slice { axis, start: s, len, step: (*step).max(1) };
                        x = apply(op, &[&x]);
                    }
                    shape.push(len);
                    axis += 1;
                }
                IndexItem::Tensor(t) if t.dtype() == DType::Bool => {
                    let own = &x.shape()[axis..axis + t.rank()];
                    if t.shape() != own {
                        panic!(
                            "index: a mask of shape {:?} does not fit dimensions {axis}.. of {:?}",
                            t.shape(),
                            self.shape()
                        );
                    }
                    if t.rank() == 0 {
                        // One element or none of a new dimension.
                        let n = t.nonzero().size(0);
                        picks.resize(shape.len(), None);
                        picks.push(Some(super::full([n], 0, DType::I64)));
                        shape.push(1);
                    }
                    for coordinate in t.nonzero().unbind(1) {
                        picks.resize(shape.len(), None);
                        picks.push(Some(coordinate));
                        shape.push(x.shape()[axis]);
                        axis += 1;
                    }
                }
                IndexItem::Tensor(t) => {
                    picks.resize(shape.len(), None);
                    picks.push(Some(t.clone()));
                    shape.push(x.shape()[axis]);
                    axis += 1;
                }
            }
        }
        shape.extend_from_slice(&x.shape()[axis..]);
        let view =
            if shape.as_slice() == x.shape() { x } else { apply(Op::Reshape { shape }, &[&x]) };
        picks.resize(view.rank(), None);
        (view, picks)
    }

    /// The elements that tensors of integers pick: all indexed dimensions become one, of
    /// which the index tensors, joined into one number, select.
    #[track_caller]
    fn picked_by(&self, picks: &Picks) -> Tensor {
        let axes: Axes = (0..self.rank()).filter(|&d| picks[d].is_some()).collect();
        let neighbours = axes.windows(2).all(|w| w[1] == w[0] + 1);
        let first = if neighbours { axes[0] } else { 0 };
        // The indexed dimensions side by side, at `first`.
        let rest: Axes = (0..self.rank()).filter(|d| !axes.contains(d)).collect();
        let perm: Axes = rest[..first].iter().chain(&axes).chain(&rest[first..]).copied().collect();
        let sorted = perm.windows(2).all(|w| w[0] < w[1]);
        let x = if sorted { self.clone() } else { apply(Op::Permute { perm }, &[self]) };
        let sizes: Shape = axes.iter().map(|&a| self.shape()[a]).collect();
        let tensors: Vec<&Tensor> = axes.iter().filter_map(|&a| picks[a].as_ref()).collect();
        let shapes: Vec<&[usize]> = tensors.iter().map(|t| t.shape()).collect();
        let picked = broadcast_shapes(&shapes);
        let index = joined(&axes, &sizes, &tensors, &picked);
        let mut flat: Shape = x.shape()[..first].into();
        flat.push(sizes.iter().product());
        flat.extend_from_slice(&x.shape()[first + axes.len()..]);
        let mut out: Shape = x.shape()[..first].into();
        out.extend_from_slice(&picked);
        out.extend_from_slice(&x.shape()[first + axes.len()..]);
        let slabs = x.reshape(flat).index_select(first as i64, &index.reshape([-1]));
        slabs.reshape(out)
    }

    /// A copy with `values` where the index shows, as [`i`](Tensor::i) does; they are
    /// broadcast to its shape. With `accumulate` they are added, each time that an
    /// element is named.
    ///
    /// ```
    /// use sinter::{tensor, zeros};
    /// let i = tensor([0i64, 2, 0]);
    /// let x = zeros([3]).index_put(&i, &tensor([1.0f32, 2.0, 3.0]), true);
    /// assert_eq!(x.to_vec::<f32>(), [4.0, 0.0, 2.0]);
    /// ```
    ///
    /// # Panics
    /// As [`i`](Tensor::i), and if the values do not broadcast.
    #[track_caller]
    pub fn index_put(&self, index: impl Index, values: impl Operand, accumulate: bool) -> Tensor {
        let places = self.places().i(index.items().as_slice());
        let values = values.as_tensor(self.dtype());
        let fits = broadcast_shapes(&[values.shape(), places.shape()]) == places.shape();
        if !fits {
            panic!(
                "index_put: values {:?} do not broadcast to {:?}",
                values.shape(),
                places.shape()
            );
        }
        let values = values.broadcast_to(places.shape()).reshape([-1]);
        let kind = if accumulate { ScatterKind::Add } else { ScatterKind::Set };
        let op = Op::Scatter { axis: 0, kind };
        let flat = self.reshape([-1]);
        apply(op, &[&flat, &places.reshape([-1]), &values]).reshape(self.shape())
    }

    /// [`index_put`](Tensor::index_put) in place.
    ///
    /// # Panics
    /// As [`index_put`](Tensor::index_put), and as every change in place.
    #[track_caller]
    pub fn index_put_(&self, index: impl Index, values: impl Operand, accumulate: bool) -> &Tensor {
        let items = index.items();
        if items.iter().any(|i| matches!(i, IndexItem::Tensor(_))) {
            return self.copy_(&self.index_put(items.as_slice(), values, accumulate));
        }
        let (view, _) = self.basic(&items);
        if accumulate {
            view.add_(values);
        } else {
            view.copy_(&values.as_tensor(self.dtype()));
        }
        self
    }

    /// `self[index] = values`: [`index_put_`](Tensor::index_put_) that replaces.
    ///
    /// ```
    /// use sinter::{tensor, zeros};
    /// let x = zeros([2, 3]);
    /// x.i_put((.., 1), 5.0);
    /// x.i_put((0, [0, 2]), &tensor([1.0f32, 2.0]));
    /// assert_eq!(x.to_vec::<f32>(), [1.0, 5.0, 2.0, 0.0, 5.0, 0.0]);
    /// ```
    ///
    /// # Panics
    /// As [`index_put_`](Tensor::index_put_).
    #[track_caller]
    pub fn i_put(&self, index: impl Index, values: impl Operand) -> &Tensor {
        self.index_put_(index, values, false)
    }
}

/// Index tensors for neighbouring dimensions of these sizes as one tensor of numbers in
/// row-major order, of shape `picked`.
#[track_caller]
fn joined(axes: &[usize], sizes: &[usize], tensors: &[&Tensor], picked: &[usize]) -> Tensor {
    for t in tensors {
        if t.dtype().is_float() || t.dtype() == DType::Bool {
            panic!("index: a tensor of {} is no index; use integers or bool", t.dtype());
        }
    }
    if tensors.iter().any(|t| !t.has_data()) {
        return joined_in_graph(sizes, tensors);
    }
    let mut numbers = vec![0i64; picked.iter().product()];
    for ((axis, &size), t) in axes.iter().zip(sizes).zip(tensors) {
        let n = size as i64;
        let index = t.to_dtype(DType::I64).broadcast_to(picked).to_vec::<i64>();
        for (at, (number, i)) in numbers.iter_mut().zip(index).enumerate() {
            if i < -n || i >= n {
                panic!(
                    "index: {i} (element {at} of the indices) is out of range for dimension {axis} of size {n}"
                );
            }
            *number = *number * n + if i < 0 { i + n } else { i };
        }
    }
    from_slice(&numbers, picked)
}

/// [`joined`] in ops. That each index is in range is found out where it is read: with
/// more than one, by a look at a list of all there are.
#[track_caller]
fn joined_in_graph(sizes: &[usize], tensors: &[&Tensor]) -> Tensor {
    let mut out: Option<Tensor> = None;
    for (&n, t) in sizes.iter().zip(tensors) {
        let t = t.to_dtype(DType::I64);
        let mut index = t.lt(0).where_(&(&t + n as i64), &t);
        if tensors.len() > 1 {
            let all = apply(Op::Iota { dtype: DType::I64, axis: 0, shape: [n][..].into() }, &[]);
            index = all.index_select(0, &index.reshape([-1])).reshape(t.shape());
        }
        out = Some(match out {
            None => index,
            Some(before) => before * n as i64 + index,
        });
    }
    out.expect("at least one dimension is indexed")
}
