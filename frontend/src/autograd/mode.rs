//! What this thread does with ops beside computing them: recording, checking,
//! replacing. One number, so that an op asks once.

use std::cell::Cell;
use std::marker::PhantomData;

/// Ops are recorded.
pub(crate) const GRAD: u16 = 1;
/// Results never take part in a recorded op.
pub(crate) const INFERENCE: u16 = 2;
/// Nodes remember their operands' types, for messages.
pub(crate) const ANOMALY: u16 = 4;
/// Gradients are searched for NaN as they are made.
pub(crate) const CHECK_NAN: u16 = 8;
/// Saved values are handed to a hook.
pub(crate) const PACK: u16 = 16;
/// Some tensors stand for others.
pub(crate) const REPLACE: u16 = 32;
/// A checkpointed region decides which results are kept.
pub(crate) const SELECT: u16 = 64;
/// Results are searched for NaN as they are made.
pub(crate) const FORWARD_NAN: u16 = 128;
/// Ops are noted, to be run in batches.
pub(crate) const DEFER: u16 = 256;

thread_local! {
    static MODE: Cell<u16> = const { Cell::new(GRAD) };
}

/// This thread's modes.
#[inline]
pub(crate) fn get() -> u16 {
    MODE.get()
}

/// Whether ops are recorded under `mode`.
#[inline]
pub(crate) fn records(mode: u16) -> bool {
    mode & (GRAD | INFERENCE) == GRAD
}

/// Whether ops on this thread are recorded.
#[inline]
pub fn grad_enabled() -> bool {
    records(get())
}

/// Whether this thread is inside [`inference_mode`].
#[inline]
pub fn inference_mode_enabled() -> bool {
    get() & INFERENCE != 0
}

/// Puts the mode back when it is dropped. Made by [`no_grad_guard`],
/// [`enable_grad_guard`], [`set_grad_enabled`], [`inference_mode_guard`],
/// [`detect_anomaly`], [`set_detect_anomaly`] and [`detect_forward_nan`].
#[must_use = "the mode lasts as long as the guard"]
pub struct GradGuard {
    before: u16,
    /// The bits it changed.
    mask: u16,
    // The mode is this thread's: the guard must not leave it.
    _here: PhantomData<*const ()>,
}

impl Drop for GradGuard {
    fn drop(&mut self) {
        MODE.set(MODE.get() & !self.mask | self.before & self.mask);
    }
}

/// Sets the bits of `mask` to those of `to`.
pub(crate) fn set(mask: u16, to: u16) -> GradGuard {
    let before = MODE.get();
    MODE.set(before & !mask | to & mask);
    GradGuard { before, mask, _here: PhantomData }
}

pub(crate) fn set_grad(on: bool) -> GradGuard {
    set(GRAD, if on { GRAD } else { 0 })
}

/// Stops recording on this thread until the guard is dropped.
pub fn no_grad_guard() -> GradGuard {
    set_grad(false)
}

/// Records on this thread until the guard is dropped.
pub fn enable_grad_guard() -> GradGuard {
    set_grad(true)
}

/// Records, or stops recording, on this thread until the guard is dropped.
///
/// ```
/// use sinter::autograd::{grad_enabled, set_grad_enabled};
/// let training = false;
/// let _guard = set_grad_enabled(training);
/// assert!(!grad_enabled());
/// ```
pub fn set_grad_enabled(on: bool) -> GradGuard {
    set_grad(on)
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

/// Runs `f` with recording, inside a [`no_grad`] region for example. Inside
/// [`inference_mode`] nothing is recorded all the same.
pub fn enable_grad<R>(f: impl FnOnce() -> R) -> R {
    let _guard = enable_grad_guard();
    f()
}

/// As [`inference_mode`], until the guard is dropped.
pub fn inference_mode_guard() -> GradGuard {
    set(INFERENCE, INFERENCE)
}

/// Runs `f` without recording, and makes tensors that autograd will never see:
/// their changes are not counted and their views not followed. Outside, such a
/// tensor can be read, but neither changed in place nor kept for a derivative; a
/// [`copy`](crate::Tensor::copy) of it can.
///
/// ```
/// use sinter::{autograd::inference_mode, tensor};
/// let w = tensor([1.0f32]).requires_grad_(true);
/// let y = inference_mode(|| &w * 2.0);
/// assert!(y.is_inference() && !y.requires_grad());
/// ```
pub fn inference_mode<R>(f: impl FnOnce() -> R) -> R {
    let _guard = inference_mode_guard();
    f()
}

/// Searches for NaN until the guard is dropped: a backward pass on this thread
/// panics at the first node that makes a gradient with a NaN, and names the op, the
/// line that recorded it and its operands. Ops recorded meanwhile remember their
/// operands' shapes for that message.
///
/// ```should_panic
/// use sinter::{autograd::detect_anomaly, tensor};
/// let _guard = detect_anomaly();
/// let x = tensor([0.0f32]).requires_grad_(true);
/// (x.sqrt() * 0.0).sum().backward(); // 0 / 0 in the derivative of the root
/// ```
pub fn detect_anomaly() -> GradGuard {
    set_detect_anomaly(true, true)
}

/// As [`detect_anomaly`], or its opposite. Without `check_nan` nothing is searched
/// for; ops only remember their operands' shapes.
pub fn set_detect_anomaly(on: bool, check_nan: bool) -> GradGuard {
    let to = if on { ANOMALY } else { 0 } | if on && check_nan { CHECK_NAN } else { 0 };
    set(ANOMALY | CHECK_NAN, to)
}

/// Searches the results of ops for NaN until the guard is dropped: an op on this
/// thread that makes one out of operands without any panics at its caller's line.
///
/// ```should_panic
/// use sinter::{autograd::detect_forward_nan, tensor};
/// let _guard = detect_forward_nan();
/// tensor([-1.0f32]).ln();
/// ```
pub fn detect_forward_nan() -> GradGuard {
    set(FORWARD_NAN, FORWARD_NAN)
}
