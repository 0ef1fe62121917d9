//! Whether ops are recorded, per thread.

use std::cell::Cell;

thread_local! {
    static GRAD: Cell<bool> = const { Cell::new(true) };
}

/// Whether ops on this thread are recorded.
#[inline]
pub fn grad_enabled() -> bool {
    GRAD.get()
}

/// Puts the mode back when it is dropped. Made by [`no_grad_guard`] and
/// [`enable_grad_guard`].
#[must_use = "the mode lasts as long as the guard"]
pub struct GradGuard {
    before: bool,
    // The mode is this thread's: the guard must not leave it.
    _here: std::marker::PhantomData<*const ()>,
}

impl Drop for GradGuard {
    fn drop(&mut self) {
        GRAD.set(self.before);
    }
}

pub(crate) fn set_grad(on: bool) -> GradGuard {
    GradGuard { before: GRAD.replace(on), _here: std::marker::PhantomData }
}

/// Stops recording on this thread until the guard is dropped.
pub fn no_grad_guard() -> GradGuard {
    set_grad(false)
}

/// Records on this thread until the guard is dropped.
pub fn enable_grad_guard() -> GradGuard {
    set_grad(true)
}

/// Runs `f` without recording.
///
/// ```
/// use sinter::{no_grad, tensor};
/// let w = tensor([1.0f32]).requires_grad_(true);
/// let y = no_grad(|| &w * 2.0);
/// assert!(!y.requires_grad());
/// ```
pub fn no_grad<R>(f: impl FnOnce() -> R) -> R {
    let _guard = no_grad_guard();
    f()
}

/// Runs `f` with recording, inside a [`no_grad`] region for example.
pub fn enable_grad<R>(f: impl FnOnce() -> R) -> R {
    let _guard = enable_grad_guard();
    f()
}
