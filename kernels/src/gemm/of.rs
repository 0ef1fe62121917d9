//! Vectors whose lanes hold several small numbers each.

use super::simd::Simd;
use std::marker::PhantomData;

/// What the lanes of a vector hold, and how they are multiplied.
pub(super) trait Lanes<S: Simd> {
    /// As [`Simd::INTEGERS`].
    const INTEGERS: bool = false;

    /// `a` and the products of what the lanes of `x` and `m` hold.
    ///
    /// # Safety
    /// The caller has the instruction set of `S`, and what else an implementation asks.
    unsafe fn dot(x: S, m: S, a: S) -> S;

    /// As [`Simd::scaled`].
    ///
    /// # Safety
    /// As [`Lanes::dot`].
    #[inline(always)]
    unsafe fn scaled(x: S, _offset: S, _scale: S) -> S {
        x
    }
}

/// A vector whose lanes hold what `L` says: [`Simd::fma`] multiplies that. All else is as
/// of plain numbers.
pub(super) struct Of<S, L>(S, PhantomData<L>);

impl<S: Copy, L> Clone for Of<S, L> {
    #[inline(always)]
    fn clone(&self) -> Self {
        *self
    }
}

impl<S: Copy, L> Copy for Of<S, L> {}

impl<S, L> Of<S, L> {
    #[inline(always)]
    fn new(s: S) -> Self {
        Of(s, PhantomData)
    }
}

impl<S: Simd, L: Lanes<S>> Simd for Of<S, L> {
    const LANES: usize = S::LANES;
    const INTEGERS: bool = L::INTEGERS;
    type Mask = S::Mask;

    #[inline(always)]
    unsafe fn zero() -> Self {
        // SAFETY: here and below, the caller's contract.
        Of::new(unsafe { S::zero() })
    }
    #[inline(always)]
    unsafe fn splat(x: f32) -> Self {
        // SAFETY: as above.
        Of::new(unsafe { S::splat(x) })
    }
    #[inline(always)]
    unsafe fn load(p: *const f32) -> Self {
        // SAFETY: as above.
        Of::new(unsafe { S::load(p) })
    }
    #[inline(always)]
    unsafe fn store(self, p: *mut f32) {
        // SAFETY: as above.
        unsafe { self.0.store(p) }
    }
    #[inline(always)]
    unsafe fn mask(n: usize) -> S::Mask {
        // SAFETY: as above.
        unsafe { S::mask(n) }
    }
    #[inline(always)]
    unsafe fn load_mask(p: *const f32, m: S::Mask) -> Self {
        // SAFETY: as above.
        Of::new(unsafe { S::load_mask(p, m) })
    }
    #[inline(always)]
    unsafe fn store_mask(self, p: *mut f32, m: S::Mask) {
        // SAFETY: as above.
        unsafe { self.0.store_mask(p, m) }
    }
    #[inline(always)]
    unsafe fn add(self, o: Self) -> Self {
        // SAFETY: as above.
        Of::new(unsafe { self.0.add(o.0) })
    }
    #[inline(always)]
    unsafe fn sub(self, o: Self) -> Self {
        // SAFETY: as above.
        Of::new(unsafe { self.0.sub(o.0) })
    }
    #[inline(always)]
    unsafe fn mul(self, o: Self) -> Self {
        // SAFETY: as above.
        Of::new(unsafe { self.0.mul(o.0) })
    }
    #[inline(always)]
    unsafe fn fma(self, m: Self, a: Self) -> Self {
        // SAFETY: as above.
        Of::new(unsafe { L::dot(self.0, m.0, a.0) })
    }
    #[inline(always)]
    unsafe fn relu(self) -> Self {
        // SAFETY: as above.
        Of::new(unsafe { self.0.relu() })
    }
    #[inline(always)]
    unsafe fn at_most(self, o: Self) -> Self {
        // SAFETY: as above.
        Of::new(unsafe { self.0.at_most(o.0) })
    }
    #[inline(always)]
    unsafe fn prefetch(p: *const f32) {
        // SAFETY: as above.
        unsafe { S::prefetch(p) }
    }
    #[inline(always)]
    unsafe fn columns(p: *const f32, ld: isize, top: usize) -> [Self; 8] {
        // SAFETY: as above.
        unsafe { S::columns(p, ld, top).map(Of::new) }
    }
    #[inline(always)]
    unsafe fn scaled(self, offset: Self, scale: Self) -> Self {
        // SAFETY: as above.
        Of::new(unsafe { L::scaled(self.0, offset.0, scale.0) })
    }
}
