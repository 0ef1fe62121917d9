//! Normalisation layers and their gradients.
//!
//! Means and variances are computed in two passes, the second over data that the
//! first has brought to the cache, with sums as in [`crate::reduce`]: they neither
//! cancel nor depend on the number of threads.

mod batch;
mod layer;

pub use batch::{batch_norm, batch_norm_grad, batch_norm_stats};
pub use layer::{layer_norm, layer_norm_grad, rms_norm, rms_norm_grad};

use crate::view::{Element, Src};
use std::borrow::Cow;

/// A vector of `n` parameters, dense.
///
/// # Safety
/// It is not written while the result lives.
unsafe fn vector<'a, T: Element>(v: &Src<'a, T>, n: usize) -> Cow<'a, [T]> {
    assert_eq!(*v.shape, [n], "a vector with the extent of what it belongs to");
    // SAFETY: as the caller vouches.
    match unsafe { v.as_slice() } {
        Some(dense) => Cow::Borrowed(dense),
        None => Cow::Owned(v.to_vec()),
    }
}

#[cfg(test)]
mod tests;
