//! Memory that a kernel needs for a while, from the pool.

use crate::copy::copy;
use crate::mem::Block;
use crate::view::{Dst, Element, Src, numel};
use smallvec::SmallVec;
use std::cell::RefCell;

/// A block for `n` numbers.
///
/// # Panics
/// If there is no memory.
pub(crate) fn block<T>(n: usize) -> Block {
    let bytes = n.checked_mul(size_of::<T>()).expect("no memory is that large");
    Block::try_new(bytes).unwrap_or_else(|e| panic!("{e}"))
}

/// Blocks up to this size are kept by the thread that used them: the next call
/// finds its scratch still in the cache, and never waits for the system.
const KEPT: usize = 4 << 20;
/// Blocks a thread keeps. Kernels hold a few at a time.
const COUNT: usize = 4;

thread_local! {
    static FREE: RefCell<Vec<Block>> = const { RefCell::new(Vec::new()) };
}

/// Memory that a kernel uses again and again, 64-byte aligned. Contents are
/// unspecified but initialised.
#[derive(Default)]
pub(crate) struct Scratch(Option<Block>);

impl Scratch {
    /// Room for `n` floats.
    ///
    /// # Panics
    /// If there is no memory.
    pub(crate) fn new(n: usize) -> Scratch {
        let mut scratch = Scratch::default();
        scratch.room::<f32>(n);
        scratch
    }

    /// The memory asked for last.
    #[inline]
    pub(crate) fn ptr(&self) -> *mut f32 {
        self.0.as_ref().map_or(std::ptr::null_mut(), |b| b.as_ptr().cast())
    }

    /// Room for `n` numbers, which now hold anything.
    ///
    /// # Panics
    /// If there is no memory.
    pub(crate) fn room<T>(&mut self, n: usize) -> *mut T {
        let bytes = n.checked_mul(size_of::<T>()).expect("no memory is that large");
        if self.0.as_ref().is_none_or(|b| b.len() < bytes) {
            self.give_back();
            self.0 = Some(kept(bytes).unwrap_or_else(|| {
                // Sizes in powers of two: a slightly longer problem finds a block too.
                let bytes = if bytes <= KEPT { bytes.next_power_of_two() } else { bytes };
                block::<u8>(bytes)
            }));
        }
        self.ptr().cast()
    }

    fn give_back(&mut self) {
        let Some(block) = self.0.take().filter(|b| b.len() <= KEPT) else { return };
        // A thread that is ending keeps nothing: the block goes back to the pool.
        let _ = FREE.try_with(|free| {
            let mut free = free.borrow_mut();
            free.push(block);
            if free.len() > COUNT {
                let smallest = (0..free.len()).min_by_key(|&i| free[i].len());
                smallest.map(|i| free.swap_remove(i))
            } else {
                None
            }
        });
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        self.give_back();
    }
}

/// The smallest block of so many bytes that this thread has kept.
fn kept(bytes: usize) -> Option<Block> {
    let take = |free: &RefCell<Vec<Block>>| {
        let mut free = free.borrow_mut();
        let fits = |i: &usize| free[*i].len() >= bytes;
        let best = (0..free.len()).filter(fits).min_by_key(|&i| free[i].len());
        best.map(|i| free.swap_remove(i))
    };
    FREE.try_with(take).ok().flatten()
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

/// An address of scratch memory of which threads write disjoint parts.
#[derive(Clone, Copy)]
pub(crate) struct At(pub(crate) *mut f32);

// SAFETY: see above.
unsafe impl Send for At {}
// SAFETY: see above.
unsafe impl Sync for At {}

impl At {
    pub(crate) fn after(self, n: usize) -> *mut f32 {
        self.0.wrapping_add(n)
    }
}
