//! Basic indexing that reads like NumPy's.

use super::{Tensor, apply};
use sinter_runtime::{Op, Shape};
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

impl Tensor {
    /// A view by basic indexing: integers, ranges, [`NewAxis`] and [`Ellipsis`].
    /// Ranges are cut to what exists, as in Python; integers must exist.
    ///
    /// ```
    /// use sinter::{Ellipsis, NewAxis, arange};
    /// let x = arange(0, 24, 1).reshape([2, 3, 4]);
    /// assert_eq!(x.i((.., 1..3, NewAxis, -1)).shape(), [2, 2, 1]);
    /// assert_eq!(x.i((Ellipsis, 0)).to_vec::<i64>(), [0, 4, 8, 12, 16, 20]);
    /// ```
    ///
    /// # Panics
    /// If there are more items than dimensions, or an integer is out of range.
    #[track_caller]
    pub fn i(&self, index: impl Index) -> Tensor {
        let items = index.items();
        let used = items
            .iter()
            .filter(|i| matches!(i, IndexItem::At(_) | IndexItem::Range { .. }))
            .count();
        let dots = items.iter().filter(|i| matches!(i, IndexItem::Ellipsis)).count();
        if used > self.rank() || dots > 1 {
            panic!("index: {items:?} does not fit a tensor of shape {:?}", self.shape());
        }
        let mut x = self.clone();
        let mut shape = Shape::new();
        let mut axis = 0;
        for item in &items {
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
            }
        }
        shape.extend_from_slice(&x.shape()[axis..]);
        if shape.as_slice() == x.shape() { x } else { apply(Op::Reshape { shape }, &[&x]) }
    }
}
