//! Memory that a kernel needs for a while, from the pool.

use crate::copy::copy;
use crate::mem::Block;
use crate::view::{Dst, Element, Src, numel};
use smallvec::SmallVec;

/// A block for `n` numbers.
///
/// # Panics
/// If there is no memory.
pub(crate) fn block<T>(n: usize) -> Block {
    let bytes = n.checked_mul(size_of::<T>()).expect("no memory is that large");
    Block::try_new(bytes).unwrap_or_else(|e| panic!("{e}"))
}

/// Memory that a thread uses again and again.
#[derive(Default)]
pub(crate) struct Scratch(Option<Block>);

impl Scratch {
    /// Room for `n` numbers, which now hold anything.
    pub(crate) fn room<T>(&mut self, n: usize) -> *mut T {
        let enough = self.0.take().filter(|b| b.len() >= n * size_of::<T>());
        self.0.insert(enough.unwrap_or_else(|| block::<T>(n))).as_ptr().cast()
    }
}

/// Strides of a shape in row-major order without gaps.
pub(crate) fn row_major(shape: &[usize]) -> SmallVec<[isize; 6]> {
    let mut strides = SmallVec::from_elem(1, shape.len());
    for d in (1..shape.len()).rev() {
        strides[d - 1] = strides[d] * shape[d] as isize;
    }
    strides
}

/// Room for an operand without gaps.
pub(crate) struct Dense<'a> {
    room: Block,
    shape: &'a [usize],
    strides: SmallVec<[isize; 6]>,
}

impl<'a> Dense<'a> {
    /// Room for this shape.
    pub(crate) fn new<T: Element>(shape: &'a [usize]) -> Dense<'a> {
        Dense { room: block::<T>(numel(shape)), shape, strides: row_major(shape) }
    }

    /// A copy, unless the operand has no gaps as it is.
    pub(crate) fn copy_of<T: Element>(x: Src<'a, T>) -> Option<Dense<'a>> {
        (!x.is_contiguous()).then(|| {
            let d = Dense::new::<T>(x.shape);
            copy(x, d.dst());
            d
        })
    }

    pub(crate) fn src<T: Element>(&self) -> Src<'_, T> {
        self.room.src(0, self.shape, &self.strides)
    }

    pub(crate) fn dst<T: Element>(&self) -> Dst<'_, T> {
        self.room.dst(0, self.shape, &self.strides)
    }
}
