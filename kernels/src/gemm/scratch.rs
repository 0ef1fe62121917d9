//! Memory for packed operands and other intermediates.

use crate::mem::Block;
use std::cell::RefCell;

/// Blocks up to this size are kept by the thread that used them: the next call
/// finds its scratch still in the cache, and never waits for the system.
const KEPT: usize = 4 << 20;
/// Blocks a thread keeps. Kernels hold a few at a time.
const COUNT: usize = 4;

thread_local! {
    static FREE: RefCell<Vec<Block>> = const { RefCell::new(Vec::new()) };
}

/// Scratch floats, 64-byte aligned. Contents are unspecified but initialised.
pub(crate) struct Scratch(Option<Block>);

impl Scratch {
    /// Room for `len` floats.
    ///
    /// # Panics
    /// If the system has no memory left.
    pub(crate) fn new(len: usize) -> Scratch {
        let bytes = len * size_of::<f32>();
        let kept = FREE.try_with(|free| {
            let mut free = free.borrow_mut();
            let fits = |i: &usize| free[*i].len() >= bytes;
            let best = (0..free.len()).filter(fits).min_by_key(|&i| free[i].len());
            best.map(|i| free.swap_remove(i))
        });
        let block = kept.ok().flatten().unwrap_or_else(|| {
            // Sizes in powers of two: a slightly longer problem finds a block too.
            let bytes = if bytes <= KEPT { bytes.next_power_of_two() } else { bytes };
            Block::try_new(bytes).unwrap_or_else(|e| panic!("{e}"))
        });
        Scratch(Some(block))
    }

    #[inline]
    pub(crate) fn ptr(&self) -> *mut f32 {
        self.0.as_ref().map_or(std::ptr::null_mut(), |b| b.as_ptr().cast())
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
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
