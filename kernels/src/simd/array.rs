//! The portable vector: an array, element by element.

use super::{LANES, Number, Real, RealVector, Vector};

/// Sixteen numbers in an array. Aligned so that the compiler keeps it in whole
/// registers.
#[derive(Clone, Copy)]
#[repr(align(64))]
pub struct Array<T>([T; LANES]);

impl<T: Number> Array<T> {
    #[inline(always)]
    fn map(mut self, f: impl Fn(T) -> T) -> Self {
        for v in &mut self.0 {
            *v = f(*v);
        }
        self
    }

    #[inline(always)]
    fn zip(mut self, o: Self, f: impl Fn(T, T) -> T) -> Self {
        for i in 0..LANES {
            self.0[i] = f(self.0[i], o.0[i]);
        }
        self
    }
}

impl<T: Number> Vector for Array<T> {
    type Elem = T;

    #[inline(always)]
    fn splat(v: T) -> Self {
        Array([v; LANES])
    }
    #[inline(always)]
    unsafe fn load(p: *const T) -> Self {
        // SAFETY: the caller vouches for sixteen numbers.
        Array(unsafe { p.cast::<[T; LANES]>().read_unaligned() })
    }
    #[inline(always)]
    unsafe fn load_part(p: *const T, n: usize, rest: T) -> Self {
        let mut v = [rest; LANES];
        // SAFETY: the caller vouches for `n` numbers, fewer than an array holds.
        unsafe { std::ptr::copy_nonoverlapping(p, v.as_mut_ptr(), n) };
        Array(v)
    }
    #[inline(always)]
    unsafe fn store(self, p: *mut T) {
        // SAFETY: the caller vouches for the room.
        unsafe { p.cast::<[T; LANES]>().write_unaligned(self.0) }
    }
    #[inline(always)]
    unsafe fn store_part(self, p: *mut T, n: usize) {
        // SAFETY: the caller vouches for the room.
        unsafe { std::ptr::copy_nonoverlapping(self.0.as_ptr(), p, n) };
    }
    #[inline(always)]
    fn down<const K: usize>(mut self) -> Self {
        for i in 0..K {
            self.0[i] = self.0[i + K];
        }
        self
    }
    #[inline(always)]
    fn first(self) -> T {
        self.0[0]
    }
    #[inline(always)]
    fn fold(self, join: impl Fn(Self, Self) -> Self) -> T {
        // Through memory: the compiler knows that integers may be added in any
        // order, and its rearrangement of this tree would undo the vectors of the
        // loop that fills it.
        let v = std::hint::black_box(self);
        let v = join(v, v.down::<8>());
        let v = join(v, v.down::<4>());
        let v = join(v, v.down::<2>());
        join(v, v.down::<1>()).first()
    }
    #[inline(always)]
    fn add(self, o: Self) -> Self {
        self.zip(o, T::plus)
    }
    #[inline(always)]
    fn mul(self, o: Self) -> Self {
        self.zip(o, T::times)
    }
    #[inline(always)]
    fn max(self, o: Self) -> Self {
        self.zip(o, T::larger)
    }
    #[inline(always)]
    fn min(self, o: Self) -> Self {
        self.zip(o, T::smaller)
    }
    #[inline(always)]
    fn even(mut self, o: Self) -> Self {
        const HALF: usize = LANES / 2;
        for i in 0..HALF {
            self.0[i] = self.0[2 * i];
        }
        for i in 0..HALF {
            self.0[HALF + i] = o.0[2 * i];
        }
        self
    }
    #[inline(always)]
    fn interleave(self, o: Self) -> (Self, Self) {
        let from = |first: usize| {
            let pick = |i: usize| if i.is_multiple_of(2) { self.0 } else { o.0 }[first + i / 2];
            Array(std::array::from_fn(pick))
        };
        (from(0), from(LANES / 2))
    }
    #[inline(always)]
    fn if_above(self, o: Self, a: Self, mut b: Self) -> Self {
        for i in 0..LANES {
            if self.0[i].is_nan() || o.0[i].less(self.0[i]) {
                b.0[i] = a.0[i];
            }
        }
        b
    }
    #[inline(always)]
    fn if_equal(self, o: Self, a: Self, mut b: Self) -> Self {
        for i in 0..LANES {
            if self.0[i] == o.0[i] {
                b.0[i] = a.0[i];
            }
        }
        b
    }
}

impl<T: Real> RealVector for Array<T> {
    #[inline(always)]
    fn sub(self, o: Self) -> Self {
        self.zip(o, T::minus)
    }
    #[inline(always)]
    fn div(self, o: Self) -> Self {
        self.zip(o, T::over)
    }
    #[inline(always)]
    fn fma(mut self, m: Self, a: Self) -> Self {
        for i in 0..LANES {
            self.0[i] = self.0[i].fused(m.0[i], a.0[i]);
        }
        self
    }
    #[inline(always)]
    fn sqrt(self) -> Self {
        self.map(T::root)
    }
    // A call is little beside sixteen functions, and less code than they are.
    #[inline(never)]
    fn exp(self) -> Self {
        self.map(T::exponential)
    }
    #[inline(always)]
    fn tanh(self) -> Self {
        self.map(T::hyperbolic_tangent)
    }
    #[inline(always)]
    fn sigmoid(self) -> Self {
        self.map(T::logistic)
    }
}
