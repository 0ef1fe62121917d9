//! Sixteen numbers at a time, on every instruction set.
//!
//! Kernels that the compiler's vectoriser does not do justice to — reductions,
//! rows in several fused passes, ragged ends — are written over [`Vector`],
//! which has sixteen lanes everywhere: one AVX-512 register of `f32`, two AVX2
//! registers, or an array left to the compiler. A width that never changes is
//! what keeps the order of every sum the same on every machine.
//!
//! A kernel is a [`Task`] (or [`RealTask`]); [`run`] (or [`run_real`]) executes
//! it with the vector type, and compiled for the instruction set, of the active
//! level. Nothing else may create vectors.

use crate::isa::{self, Isa};
use crate::view::Element;

mod array;
pub(crate) mod row;
pub(crate) mod unroll;
#[cfg(target_arch = "x86_64")]
mod x86;

use array::Array;

/// Lanes of a [`Vector`].
pub(crate) const LANES: usize = 16;

/// Sixteen numbers.
pub trait Vector: Copy {
    /// What a lane holds.
    type Elem: Number;
    /// Registers that one takes, where that is known: arrays take several.
    const REGISTERS: usize = 4;

    /// `v` in every lane.
    fn splat(v: Self::Elem) -> Self;
    /// The sixteen numbers at `p`.
    ///
    /// # Safety
    /// They are there to read.
    unsafe fn load(p: *const Self::Elem) -> Self;
    /// The `n` < 16 numbers at `p`, then `rest`.
    ///
    /// # Safety
    /// `n` numbers are there to read.
    unsafe fn load_part(p: *const Self::Elem, n: usize, rest: Self::Elem) -> Self;
    /// Writes all sixteen numbers.
    ///
    /// # Safety
    /// There is room for them.
    unsafe fn store(self, p: *mut Self::Elem);
    /// Writes the first `n` < 16 numbers.
    ///
    /// # Safety
    /// There is room for them.
    unsafe fn store_part(self, p: *mut Self::Elem, n: usize);
    /// Lane `i` gets lane `i + K`, for `K` of 8, 4, 2 or 1. Only lanes below `K`
    /// are specified.
    fn down<const K: usize>(self) -> Self;
    /// Lane zero.
    fn first(self) -> Self::Elem;

    /// `self + o`; of integers, wrapping.
    fn add(self, o: Self) -> Self;
    /// `self * o`; of integers, wrapping.
    fn mul(self, o: Self) -> Self;
    /// The larger; NaN where either is NaN.
    fn max(self, o: Self) -> Self;
    /// The smaller; NaN where either is NaN.
    fn min(self, o: Self) -> Self;
    /// Every other one of the 32 numbers in `self` and `o`, from the first on.
    fn even(self, o: Self) -> Self;
    /// The first lanes of `self` and `o`, the second, …, as 32 numbers.
    fn interleave(self, o: Self) -> (Self, Self);
    /// Lanes of `a` where `self` is NaN or larger than `o`, else of `b`.
    fn if_above(self, o: Self, a: Self, b: Self) -> Self;
    /// Lanes of `a` where `self` equals `o`, else of `b`.
    fn if_equal(self, o: Self, a: Self, b: Self) -> Self;

    /// One number from sixteen: lane `i` joins lane `i + 8`, then `i + 4`, 2, 1.
    #[inline(always)]
    fn fold(self, join: impl Fn(Self, Self) -> Self) -> Self::Elem {
        let v = join(self, self.down::<8>());
        let v = join(v, v.down::<4>());
        let v = join(v, v.down::<2>());
        join(v, v.down::<1>()).first()
    }
}

/// Sixteen floating-point numbers.
pub trait RealVector: Vector {
    /// `self - o`.
    fn sub(self, o: Self) -> Self;
    /// `self / o`.
    fn div(self, o: Self) -> Self;
    /// `self * m + a`, rounded once.
    fn fma(self, m: Self, a: Self) -> Self;
    /// The square root.
    fn sqrt(self) -> Self;
    /// `e^self`.
    fn exp(self) -> Self;
    /// The hyperbolic tangent.
    fn tanh(self) -> Self;
    /// `1 / (1 + e^-self)`.
    fn sigmoid(self) -> Self;
}

/// A number that comes in vectors.
pub trait Number:
    Element + crate::index::CombineKernels + crate::reduce::ReduceKernels + crate::reduce::ArgKernels
{
    /// The widest level that tasks on it are built for: f32 has AVX-512 vectors of its
    /// own, the compiler's of the others gain too little over AVX2 to build them twice.
    const WIDEST: Isa;
    /// The number one.
    const ONE: Self;
    /// Below every number: negative infinity, or the least integer.
    const LOWEST: Self;
    /// Above every number.
    const HIGHEST: Self;
    /// Its vector under AVX-512.
    type V4: Vector<Elem = Self>;
    /// Its vector under AVX2.
    type V3: Vector<Elem = Self>;

    /// Whether not a number.
    fn is_nan(self) -> bool;
    /// `self < o`.
    fn less(self, o: Self) -> bool;
    /// `self + o`; of integers, wrapping.
    fn plus(self, o: Self) -> Self;
    /// `self * o`; of integers, wrapping.
    fn times(self, o: Self) -> Self;
    /// The larger; NaN where either is NaN.
    #[inline(always)]
    fn larger(self, o: Self) -> Self {
        if self.is_nan() || o.less(self) { self } else { o }
    }
    /// The smaller; NaN where either is NaN.
    #[inline(always)]
    fn smaller(self, o: Self) -> Self {
        if self.is_nan() || self.less(o) { self } else { o }
    }
}

/// A floating-point number that comes in vectors.
pub trait Real:
    Number<V4: RealVector, V3: RealVector> + crate::optim::OptimKernels + crate::pool::PoolKernels
{
    /// The nearest number of this type.
    fn of(v: f64) -> Self;
    /// The number, exactly.
    fn f64(self) -> f64;
    /// `self - o`.
    fn minus(self, o: Self) -> Self;
    /// `self / o`.
    fn over(self, o: Self) -> Self;
    /// `self * m + a`, rounded once.
    fn fused(self, m: Self, a: Self) -> Self;
    /// The square root.
    fn root(self) -> Self;
    /// `e^self`.
    fn exponential(self) -> Self;
    /// The natural logarithm.
    fn logarithm(self) -> Self;
    /// The hyperbolic tangent.
    fn hyperbolic_tangent(self) -> Self;
    /// `1 / (1 + e^-self)`.
    fn logistic(self) -> Self;
}

macro_rules! number {
    ($($t:ty, $widest:ident, $v4:ty, $v3:ty, $lowest:expr, $highest:expr, $one:expr,
       $nan:expr, $plus:expr, $times:expr;)*) => {$(
        impl Number for $t {
            const WIDEST: Isa = Isa::$widest;
            const ONE: Self = $one;
            const LOWEST: Self = $lowest;
            const HIGHEST: Self = $highest;
            #[cfg(target_arch = "x86_64")]
            type V4 = $v4;
            #[cfg(target_arch = "x86_64")]
            type V3 = $v3;
            #[cfg(not(target_arch = "x86_64"))]
            type V4 = Array<$t>;
            #[cfg(not(target_arch = "x86_64"))]
            type V3 = Array<$t>;
            #[inline(always)]
            fn is_nan(self) -> bool {
                $nan(self)
            }
            #[inline(always)]
            fn less(self, o: Self) -> bool {
                self < o
            }
            #[inline(always)]
            fn plus(self, o: Self) -> Self {
                $plus(self, o)
            }
            #[inline(always)]
            fn times(self, o: Self) -> Self {
                $times(self, o)
            }
        }
    )*};
}
number! {
    f32, Avx512, x86::F32x16V4, x86::F32x16V3, f32::NEG_INFINITY, f32::INFINITY, 1.0,
        f32::is_nan, |a, b| a + b, |a, b| a * b;
    f64, Avx2, Array<f64>, Array<f64>, f64::NEG_INFINITY, f64::INFINITY, 1.0,
        f64::is_nan, |a, b| a + b, |a, b| a * b;
    i64, Avx2, Array<i64>, Array<i64>, i64::MIN, i64::MAX, 1,
        |_| false, i64::wrapping_add, i64::wrapping_mul;
    i32, Avx2, Array<i32>, Array<i32>, i32::MIN, i32::MAX, 1,
        |_| false, i32::wrapping_add, i32::wrapping_mul;
    u8, Avx2, Array<u8>, Array<u8>, u8::MIN, u8::MAX, 1,
        |_| false, u8::wrapping_add, u8::wrapping_mul;
}

macro_rules! real {
    ($($t:ty, $exp:expr, $log:expr, $tanh:expr, $logistic:expr;)*) => {$(
        impl Real for $t {
            #[inline(always)]
            fn of(v: f64) -> Self {
                v as $t
            }
            #[inline(always)]
            fn f64(self) -> f64 {
                f64::from(self)
            }
            #[inline(always)]
            fn minus(self, o: Self) -> Self {
                self - o
            }
            #[inline(always)]
            fn over(self, o: Self) -> Self {
                self / o
            }
            #[inline(always)]
            fn fused(self, m: Self, a: Self) -> Self {
                self.mul_add(m, a)
            }
            #[inline(always)]
            fn root(self) -> Self {
                self.sqrt()
            }
            #[inline(always)]
            fn exponential(self) -> Self {
                $exp(self)
            }
            #[inline(always)]
            fn logarithm(self) -> Self {
                $log(self)
            }
            #[inline(always)]
            fn hyperbolic_tangent(self) -> Self {
                $tanh(self)
            }
            #[inline(always)]
            fn logistic(self) -> Self {
                $logistic(self)
            }
        }
    )*};
}
real! {
    f32, crate::math::exp, crate::math::log, crate::math::tanh, crate::math::sigmoid;
    f64, f64::exp, f64::ln, f64::tanh, |x: f64| 1.0 / (1.0 + (-x).exp());
}

/// Announces a read at `p`, which need not be a valid address.
#[inline(always)]
pub(crate) fn prefetch<T>(p: *const T) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a prefetch never faults.
    unsafe {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        _mm_prefetch::<_MM_HINT_T0>(p.cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = p;
}

/// Work on vectors of `T`.
pub(crate) trait Task<T: Number> {
    /// The widest level it is built for, where [`Number::WIDEST`] allows.
    const WIDEST: Isa = Isa::Avx512;
    /// The result.
    type Out;
    /// Does it. Implementations are `#[inline(always)]`, and so is all they call
    /// with a vector. A closure cannot be: where the compiler does not inline it, it
    /// lacks the instruction set, and every operation on a vector becomes a call.
    fn run<V: Vector<Elem = T>>(self) -> Self::Out;
}

/// Work on vectors of the floating-point type `T`.
pub(crate) trait RealTask<T: Real> {
    /// As [`Task::WIDEST`].
    const WIDEST: Isa = Isa::Avx512;
    /// The result.
    type Out;
    /// As [`Task::run`].
    fn run<V: RealVector<Elem = T>>(self) -> Self::Out;
}

/// Runs `f` compiled for the active level, leaving vectors to the compiler.
/// Closures given to it are `#[inline(always)]`, and own what they use (`move`):
/// the compiler could not tell borrowed variables from the memory that is written.
#[inline(always)]
pub(crate) fn vectorize<R>(f: impl FnOnce() -> R) -> R {
    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx512f,avx512bw,avx512cd,avx512dq,avx512vl,avx2,fma,bmi2,f16c")]
    fn v4<R>(f: impl FnOnce() -> R) -> R {
        f()
    }
    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx2,fma,bmi2,f16c")]
    fn v3<R>(f: impl FnOnce() -> R) -> R {
        f()
    }
    match isa::active() {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: the active level is one the machine has.
        Isa::Avx512 => unsafe { v4(f) },
        #[cfg(target_arch = "x86_64")]
        // SAFETY: as above.
        Isa::Avx2 => unsafe { v3(f) },
        _ => f(),
    }
}

macro_rules! dispatcher {
    ($(#[$doc:meta])* $name:ident, $number:ident, $task:ident) => {
        $(#[$doc])*
        #[inline]
        pub(crate) fn $name<T: $number, K: $task<T>>(task: K) -> K::Out {
            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx512f,avx512bw,avx512cd,avx512dq,avx512vl,avx2,fma,bmi2,f16c")]
            fn v4<T: $number, K: $task<T>>(task: K) -> K::Out {
                task.run::<T::V4>()
            }
            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx2,fma,bmi2,f16c")]
            fn v3<T: $number, K: $task<T>>(task: K) -> K::Out {
                task.run::<T::V3>()
            }
            // In constants, so that no code is made for the others.
            let v4_pays = const { (K::WIDEST as u8) > 1 && (T::WIDEST as u8) > 1 };
            let v3_pays = const { (K::WIDEST as u8) > 0 && (T::WIDEST as u8) > 0 };
            match isa::active() {
                #[cfg(target_arch = "x86_64")]
                // SAFETY: the active level is one the machine has.
                Isa::Avx512 if v4_pays => unsafe { v4::<T, K>(task) },
                #[cfg(target_arch = "x86_64")]
                // SAFETY: as above; a level includes those below it.
                Isa::Avx2 | Isa::Avx512 if v3_pays => unsafe { v3::<T, K>(task) },
                _ => task.run::<Array<T>>(),
            }
        }
    };
}
dispatcher!(
    /// Runs `task` at the active level.
    run, Number, Task
);
dispatcher!(
    /// Runs `task` at the active level.
    run_real, Real, RealTask
);

/// As [`run_real`] for `f32`. Other numbers, for which speed matters less than the size
/// of the program, have code for the lowest level alone.
#[inline]
pub(crate) fn run_single<T: Real, K: RealTask<T>>(task: K) -> K::Out {
    if std::any::TypeId::of::<T>() == std::any::TypeId::of::<f32>() {
        run_real(task)
    } else {
        task.run::<Array<T>>()
    }
}

#[cfg(test)]
mod tests;
