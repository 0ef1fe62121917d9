//! Element-wise kernels: inner loops built for each instruction set, and the
//! drivers that run them over strided operands.
//!
//! Any operand of a driver may be the output itself (the same view): an element
//! is read before it is written. Other overlaps are the caller's to avoid.

use crate::isa;
use crate::math;
use crate::par;
use crate::strided::Walk;
use crate::view::{Dst, Element, Src};

/// An inner loop of one operand: count, operand, its stride, output, its stride.
pub type Fn1<T, U> = unsafe fn(usize, *const T, isize, *mut U, isize);
/// An inner loop of two operands.
pub type Fn2<A, B, U> = unsafe fn(usize, *const A, isize, *const B, isize, *mut U, isize);

/// An element-wise loop of one operand, built for each instruction set.
pub struct Loop1<T: 'static, U: 'static> {
    by_isa: [Fn1<T, U>; 3],
    /// Cost of an element in tenths of a nanosecond, for deciding on threads.
    cost: usize,
}

/// An element-wise loop of two operands, built for each instruction set.
pub struct Loop2<A: 'static, B: 'static, U: 'static> {
    by_isa: [Fn2<A, B, U>; 3],
    cost: usize,
}

#[inline(always)]
unsafe fn run1<T: Copy, U: Copy>(
    n: usize,
    x: *const T,
    sx: isize,
    o: *mut U,
    so: isize,
    f: impl Fn(T) -> U,
) {
    // SAFETY: the caller vouches for `n` elements at these strides.
    unsafe {
        if sx == 1 && so == 1 {
            if x.cast::<u8>() == o.cast_const().cast::<u8>() && size_of::<T>() == size_of::<U>() {
                // In place: one pointer, so that the vectoriser needs no overlap check.
                let p = o;
                for i in 0..n {
                    let v = p.add(i);
                    *v = f(*v.cast::<T>());
                }
            } else {
                for i in 0..n {
                    *o.add(i) = f(*x.add(i));
                }
            }
        } else {
            for i in 0..n as isize {
                *o.offset(i * so) = f(*x.offset(i * sx));
            }
        }
    }
}

#[inline(always)]
unsafe fn run2<A: Copy, B: Copy, U: Copy>(
    n: usize,
    a: *const A,
    sa: isize,
    b: *const B,
    sb: isize,
    o: *mut U,
    so: isize,
    f: impl Fn(A, B) -> U,
) {
    // SAFETY: the caller vouches for `n` elements at these strides.
    unsafe {
        let in_place =
            a.cast::<u8>() == o.cast_const().cast::<u8>() && size_of::<A>() == size_of::<U>();
        match (sa, sb, so) {
            (1, 1, 1) if in_place => {
                for i in 0..n {
                    let v = o.add(i);
                    *v = f(*v.cast::<A>(), *b.add(i));
                }
            }
            (1, 1, 1) => {
                for i in 0..n {
                    *o.add(i) = f(*a.add(i), *b.add(i));
                }
            }
            (1, 0, 1) if n > 0 => {
                let y = *b;
                if in_place {
                    for i in 0..n {
                        let v = o.add(i);
                        *v = f(*v.cast::<A>(), y);
                    }
                } else {
                    for i in 0..n {
                        *o.add(i) = f(*a.add(i), y);
                    }
                }
            }
            (0, 1, 1) if n > 0 => {
                let x = *a;
                for i in 0..n {
                    *o.add(i) = f(x, *b.add(i));
                }
            }
            _ => {
                for i in 0..n as isize {
                    *o.offset(i * so) = f(*a.offset(i * sa), *b.offset(i * sb));
                }
            }
        }
    }
}

/// Builds a function for each instruction set from one always-inlined body.
#[macro_export]
#[doc(hidden)]
macro_rules! for_each_isa {
    (fn($($arg:ident: $ty:ty),* $(,)?) $body:block) => {{
        unsafe fn baseline($($arg: $ty),*) $body
        #[cfg(target_arch = "x86_64")]
        #[target_feature(enable = "avx2,fma,bmi2,f16c")]
        unsafe fn v3($($arg: $ty),*) $body
        #[cfg(target_arch = "x86_64")]
        #[target_feature(enable = "avx512f,avx512bw,avx512cd,avx512dq,avx512vl,avx2,fma,bmi2,f16c")]
        unsafe fn v4($($arg: $ty),*) $body
        #[cfg(target_arch = "x86_64")]
        { [baseline, v3, v4] }
        #[cfg(not(target_arch = "x86_64"))]
        { [baseline, baseline, baseline] }
    }};
}

macro_rules! loops1 {
    ($($(#[$doc:meta])* $name:ident: $t:ty => $u:ty, $cost:expr, $f:expr;)*) => {$(
        $(#[$doc])*
        pub static $name: Loop1<$t, $u> = Loop1 {
            by_isa: for_each_isa!(fn(n: usize, x: *const $t, sx: isize, o: *mut $u, so: isize) {
                // SAFETY: the contract of `Fn1` is that of `run1`.
                unsafe { run1(n, x, sx, o, so, $f) }
            }),
            cost: $cost,
        };
    )*};
}

macro_rules! loops2 {
    ($($(#[$doc:meta])* $name:ident: $a:ty, $b:ty => $u:ty, $cost:expr, $f:expr;)*) => {$(
        $(#[$doc])*
        pub static $name: Loop2<$a, $b, $u> = Loop2 {
            by_isa: for_each_isa!(fn(
                n: usize, a: *const $a, sa: isize, b: *const $b, sb: isize, o: *mut $u, so: isize,
            ) {
                // SAFETY: the contract of `Fn2` is that of `run2`.
                unsafe { run2(n, a, sa, b, sb, o, so, $f) }
            }),
            cost: $cost,
        };
    )*};
}

/// Single precision.
pub mod f32s {
    use super::*;
    loops1! {
        /// Negation.
        NEG: f32 => f32, 1, |x: f32| -x;
        /// Magnitude.
        ABS: f32 => f32, 1, |x: f32| x.abs();
        /// Sign.
        SIGN: f32 => f32, 1, math::sign::<f32>;
        /// `1 / x`.
        RECIPROCAL: f32 => f32, 2, |x: f32| 1.0 / x;
        /// Square root.
        SQRT: f32 => f32, 2, |x: f32| x.sqrt();
        /// `1 / sqrt(x)`.
        RSQRT: f32 => f32, 4, math::rsqrt::<f32>;
        /// `x * x`.
        SQUARE: f32 => f32, 1, |x: f32| x * x;
        /// `e^x`.
        EXP: f32 => f32, 4, math::exp::<f32>;
        /// `2^x`.
        EXP2: f32 => f32, 4, math::exp2::<f32>;
        /// `e^x - 1`.
        EXPM1: f32 => f32, 5, math::expm1::<f32>;
        /// Natural logarithm.
        LOG: f32 => f32, 5, math::log::<f32>;
        /// Base-two logarithm.
        LOG2: f32 => f32, 5, math::log2::<f32>;
        /// Base-ten logarithm.
        LOG10: f32 => f32, 5, math::log10::<f32>;
        /// `ln(1 + x)`.
        LOG1P: f32 => f32, 8, math::log1p::<f32>;
        /// Hyperbolic tangent.
        TANH: f32 => f32, 6, math::tanh::<f32>;
        /// Hyperbolic sine.
        SINH: f32 => f32, 10, math::sinh::<f32>;
        /// Hyperbolic cosine.
        COSH: f32 => f32, 10, math::cosh::<f32>;
        /// Logistic function.
        SIGMOID: f32 => f32, 5, math::sigmoid::<f32>;
        /// Error function.
        ERF: f32 => f32, 7, math::erf::<f32>;
        /// Exact GELU.
        GELU: f32 => f32, 8, math::gelu::<f32>;
        /// GELU, tanh form.
        GELU_TANH: f32 => f32, 8, math::gelu_tanh::<f32>;
        /// `x sigmoid(x)`.
        SILU: f32 => f32, 6, math::silu::<f32>;
        /// `ln(1 + e^x)`.
        SOFTPLUS: f32 => f32, 12, math::softplus::<f32>;
        /// `max(x, 0)`.
        RELU: f32 => f32, 1, math::relu::<f32>;
        /// Largest integer not above.
        FLOOR: f32 => f32, 1, |x: f32| x.floor();
        /// Smallest integer not below.
        CEIL: f32 => f32, 1, |x: f32| x.ceil();
        /// Nearest integer, halves to even.
        ROUND: f32 => f32, 1, |x: f32| x.round_ties_even();
        /// Integer next towards zero.
        TRUNC: f32 => f32, 1, |x: f32| x.trunc();
        /// Whether NaN.
        IS_NAN: f32 => u8, 1, |x: f32| x.is_nan() as u8;
        /// Whether infinite.
        IS_INF: f32 => u8, 1, |x: f32| x.is_infinite() as u8;
        /// Whether finite.
        IS_FINITE: f32 => u8, 1, |x: f32| x.is_finite() as u8;
    }
    loops2! {
        /// Sum.
        ADD: f32, f32 => f32, 2, |a, b| a + b;
        /// Difference.
        SUB: f32, f32 => f32, 2, |a, b| a - b;
        /// Product.
        MUL: f32, f32 => f32, 2, |a, b| a * b;
        /// Quotient.
        DIV: f32, f32 => f32, 2, |a, b| a / b;
        /// Larger; NaN where either is NaN.
        MAX: f32, f32 => f32, 2, math::maximum::<f32>;
        /// Smaller; NaN where either is NaN.
        MIN: f32, f32 => f32, 2, math::minimum::<f32>;
        /// First where second is positive, else zero.
        GATE: f32, f32 => f32, 2, math::gate::<f32>;
    }
}

macro_rules! compare_loops {
    ($($module:ident: $t:ty),*) => {$(
        #[doc = concat!("Comparisons of `", stringify!($t), "`: 1 where true, else 0.")]
        pub mod $module {
            use super::*;
            loops2! {
                /// `a == b`.
                EQ: $t, $t => u8, 2, |a, b| (a == b) as u8;
                /// `a != b`.
                NE: $t, $t => u8, 2, |a, b| (a != b) as u8;
                /// `a < b`.
                LT: $t, $t => u8, 2, |a, b| (a < b) as u8;
                /// `a <= b`.
                LE: $t, $t => u8, 2, |a, b| (a <= b) as u8;
                /// `a > b`.
                GT: $t, $t => u8, 2, |a, b| (a > b) as u8;
                /// `a >= b`.
                GE: $t, $t => u8, 2, |a, b| (a >= b) as u8;
            }
        }
    )*};
}
compare_loops!(compare_f32: f32, compare_f64: f64, compare_i64: i64, compare_i32: i32, compare_u8: u8);

/// Double precision: the basic operations. Everything transcendental goes
/// through [`map1_with`] and the standard library.
pub mod f64s {
    use super::*;
    loops1! {
        /// Negation.
        NEG: f64 => f64, 1, |x: f64| -x;
        /// Magnitude.
        ABS: f64 => f64, 1, |x: f64| x.abs();
        /// Square root.
        SQRT: f64 => f64, 4, |x: f64| x.sqrt();
        /// `x * x`.
        SQUARE: f64 => f64, 1, |x: f64| x * x;
    }
    loops2! {
        /// Sum.
        ADD: f64, f64 => f64, 4, |a, b| a + b;
        /// Difference.
        SUB: f64, f64 => f64, 4, |a, b| a - b;
        /// Product.
        MUL: f64, f64 => f64, 4, |a, b| a * b;
        /// Quotient.
        DIV: f64, f64 => f64, 4, |a, b| a / b;
    }
}

macro_rules! integer_loops {
    ($($module:ident: $t:ty),*) => {$(
        #[doc = concat!("Integer arithmetic of `", stringify!($t), "`, wrapping as two's complement.")]
        pub mod $module {
            use super::*;
            loops1! {
                /// Negation.
                NEG: $t => $t, 2, |x: $t| x.wrapping_neg();
                /// Product with itself.
                SQUARE: $t => $t, 2, |x: $t| x.wrapping_mul(x);
                /// Bits inverted.
                NOT: $t => $t, 2, |x: $t| !x;
            }
            loops2! {
                /// Sum.
                ADD: $t, $t => $t, 2, |a, b| a.wrapping_add(b);
                /// Difference.
                SUB: $t, $t => $t, 2, |a, b| a.wrapping_sub(b);
                /// Product.
                MUL: $t, $t => $t, 2, |a, b| a.wrapping_mul(b);
                /// Larger.
                MAX: $t, $t => $t, 2, |a, b| if a > b { a } else { b };
                /// Smaller.
                MIN: $t, $t => $t, 2, |a, b| if a < b { a } else { b };
                /// Bitwise and.
                AND: $t, $t => $t, 2, |a, b| a & b;
                /// Bitwise or.
                OR: $t, $t => $t, 2, |a, b| a | b;
                /// Bitwise exclusive or.
                XOR: $t, $t => $t, 2, |a, b| a ^ b;
            }
        }
    )*};
}
integer_loops!(i64s: i64, i32s: i32, u8s: u8);

fn check_shapes(out: &[usize], operand: &[usize]) {
    assert_eq!(out, operand, "element-wise operands have the output's shape");
}

/// Items below which a loop of this cost is not shared among threads.
#[inline]
fn grain(cost: usize) -> usize {
    par::SHARE_NS * 10 / cost.max(1)
}

/// `out = f(x)`.
#[inline]
pub fn map1<T: Element, U: Element>(f: &Loop1<T, U>, x: Src<T>, out: Dst<U>) {
    check_shapes(out.shape, x.shape);
    let f1 = f.by_isa[isa::active() as usize];
    let n = out.numel();
    if n == 0 {
        return;
    }
    if x.is_contiguous() && out.is_contiguous() {
        if n <= grain(f.cost) {
            // SAFETY: the views hold `n` dense elements each.
            unsafe { f1(n, x.ptr(), 1, out.ptr(), 1) };
            return;
        }
        par::for_range(n, grain(f.cost), |r| {
            // SAFETY: `r` lies within the dense views.
            unsafe { f1(r.len(), x.ptr().add(r.start), 1, out.ptr().add(r.start), 1) };
        });
        return;
    }
    let walk = Walk::new(out.shape, [x.strides, out.strides]).prefer_long_rows();
    let (len, [sx, so]) = (walk.row_len(), walk.row_strides());
    par::for_range(walk.rows(), grain(f.cost).div_ceil(len), |rows| {
        walk.for_rows(rows, |[ox, oo]| {
            // SAFETY: the walk stays within both views' index space.
            unsafe { f1(len, x.ptr().offset(ox), sx, out.ptr().offset(oo), so) };
        });
    });
}

/// `out = f(a, b)`.
#[inline]
pub fn map2<A: Element, B: Element, U: Element>(
    f: &Loop2<A, B, U>,
    a: Src<A>,
    b: Src<B>,
    out: Dst<U>,
) {
    check_shapes(out.shape, a.shape);
    check_shapes(out.shape, b.shape);
    let f2 = f.by_isa[isa::active() as usize];
    let n = out.numel();
    if n == 0 {
        return;
    }
    if n <= grain(f.cost) && a.is_contiguous() && b.is_contiguous() && out.is_contiguous() {
        // SAFETY: the views hold `n` dense elements each.
        unsafe { f2(n, a.ptr(), 1, b.ptr(), 1, out.ptr(), 1) };
        return;
    }
    let walk = Walk::new(out.shape, [a.strides, b.strides, out.strides]).prefer_long_rows();
    let (len, [sa, sb, so]) = (walk.row_len(), walk.row_strides());
    if walk.rows() == 1 {
        par::for_range(len, grain(f.cost), |r| {
            let i = r.start as isize;
            // SAFETY: `r` lies within the only row.
            unsafe {
                f2(
                    r.len(),
                    a.ptr().offset(i * sa),
                    sa,
                    b.ptr().offset(i * sb),
                    sb,
                    out.ptr().offset(i * so),
                    so,
                )
            };
        });
        return;
    }
    par::for_range(walk.rows(), grain(f.cost).div_ceil(len), |rows| {
        walk.for_rows(rows, |[oa, ob, oo]| {
            // SAFETY: the walk stays within the views' index space.
            unsafe {
                f2(len, a.ptr().offset(oa), sa, b.ptr().offset(ob), sb, out.ptr().offset(oo), so)
            };
        });
    });
}

/// `out = f(x)` for a function the vectoriser cannot use, such as one from the
/// standard library. `cost` is in tenths of a nanosecond.
pub fn map1_with<T: Element, U: Element>(
    cost: usize,
    x: Src<T>,
    out: Dst<U>,
    f: impl Fn(T) -> U + Sync,
) {
    check_shapes(out.shape, x.shape);
    if out.numel() == 0 {
        return;
    }
    let walk = Walk::new(out.shape, [x.strides, out.strides]).prefer_long_rows();
    let (len, [sx, so]) = (walk.row_len(), walk.row_strides());
    each_piece(&walk, cost, |[ox, oo], r| {
        for i in r {
            let i = i as isize;
            // SAFETY: `i < len`, and the walk stays within both views.
            unsafe { *out.ptr().offset(oo + i * so) = f(*x.ptr().offset(ox + i * sx)) };
        }
        debug_assert!(len > 0);
    });
}

/// `out = f(a, b)` for a function the vectoriser cannot use.
pub fn map2_with<A: Element, B: Element, U: Element>(
    cost: usize,
    a: Src<A>,
    b: Src<B>,
    out: Dst<U>,
    f: impl Fn(A, B) -> U + Sync,
) {
    check_shapes(out.shape, a.shape);
    check_shapes(out.shape, b.shape);
    if out.numel() == 0 {
        return;
    }
    let walk = Walk::new(out.shape, [a.strides, b.strides, out.strides]).prefer_long_rows();
    let [sa, sb, so] = walk.row_strides();
    each_piece(&walk, cost, |[oa, ob, oo], r| {
        for i in r {
            let i = i as isize;
            // SAFETY: `i` is less than the row's length; the walk stays within the views.
            unsafe {
                *out.ptr().offset(oo + i * so) =
                    f(*a.ptr().offset(oa + i * sa), *b.ptr().offset(ob + i * sb));
            }
        }
    });
}
crate::instances::instances!(ChoiceKernels for u8, u16, u32, u64, [u64; 2] => {
    fn select_kernel(cond: Src<u8>, a: Src<Self>, b: Src<Self>, out: Dst<Self>) = select_of;
});

/// `out = cond ? a : b`; any non-zero condition is true. Elements are only moved: they
/// go by the unsigned integer of their size.
pub fn select<T: Element + ChoiceKernels>(cond: Src<u8>, a: Src<T>, b: Src<T>, out: Dst<T>) {
    T::select_kernel(cond, a, b, out)
}

fn select_of<T: Element>(cond: Src<u8>, a: Src<T>, b: Src<T>, out: Dst<T>) {
    check_shapes(out.shape, cond.shape);
    check_shapes(out.shape, a.shape);
    check_shapes(out.shape, b.shape);
    if out.numel() == 0 {
        return;
    }
    let walk =
        Walk::new(out.shape, [cond.strides, a.strides, b.strides, out.strides]).prefer_long_rows();
    let [sc, sa, sb, so] = walk.row_strides();
    each_piece(&walk, 3, |[oc, oa, ob, oo], r| {
        // SAFETY: `r` lies within a row; the walk stays within the views.
        unsafe {
            let (c, a, b, o) = (
                cond.ptr().offset(oc),
                a.ptr().offset(oa),
                b.ptr().offset(ob),
                out.ptr().offset(oo),
            );
            if (sc, so) == (1, 1) && (sa | sb) & !1 == 0 {
                for i in r {
                    let (x, y) = (*a.offset(i as isize * sa), *b.offset(i as isize * sb));
                    *o.add(i) = if *c.add(i) != 0 { x } else { y };
                }
            } else {
                for i in r {
                    let i = i as isize;
                    let (x, y) = (*a.offset(i * sa), *b.offset(i * sb));
                    *o.offset(i * so) = if *c.offset(i * sc) != 0 { x } else { y };
                }
            }
        }
    });
}

/// Runs `f` on pieces of rows: whole rows shared among threads, or a single long
/// row cut up.
fn each_piece<const K: usize>(
    walk: &Walk<K>,
    cost: usize,
    f: impl Fn([isize; K], std::ops::Range<usize>) + Sync,
) {
    let len = walk.row_len();
    if walk.rows() == 1 {
        par::for_range(len, grain(cost), |r| walk.for_rows(0..1, |at| f(at, r.clone())));
    } else {
        par::for_range(walk.rows(), grain(cost).div_ceil(len), |rows| {
            walk.for_rows(rows, |at| f(at, 0..len));
        });
    }
}

#[cfg(test)]
mod tests;
