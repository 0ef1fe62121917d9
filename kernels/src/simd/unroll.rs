//! Loops that are written out, at any level of optimisation.
//!
//! What a tile of sums holds stays in registers only if every index into it is
//! known, that is, if the loops over its rows and columns are unrolled. The
//! compiler does so where it optimises for speed. Where it optimises for size, as in
//! programs that are handed to others, it keeps the loops, sums go through memory,
//! and a product takes three times as long. So tiles do not leave it to the compiler.

use std::mem::MaybeUninit;

/// The longest loop that can be written out.
const MOST: usize = 16;

/// `f(0)`, …, `f(N - 1)`: what [`unroll!`] becomes.
#[inline(always)]
pub(crate) fn each<const N: usize>(mut f: impl FnMut(usize)) {
    const { assert!(N <= MOST) };
    macro_rules! each {
        ($($i:literal)*) => {$(
            if $i < N {
                f($i);
            }
        )*};
    }
    each!(0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15);
}

/// A loop, written out: `unroll!(for i in 0..N { … })` for a constant `N` of at most
/// 16. Its body can be left by nothing but its end.
macro_rules! unroll {
    (for $i:ident in 0..$n:tt $body:block) => {
        // Not inlined, the closure would lack the instruction set: see `Task::run`.
        $crate::simd::unroll::each::<$n>(
            #[inline(always)]
            |$i| $body,
        )
    };
}
pub(crate) use unroll;

/// `[x; N]`, which would be a loop, too.
#[inline(always)]
pub(crate) fn copies<const N: usize, T: Copy>(x: T) -> [T; N] {
    let mut all = MaybeUninit::<[T; N]>::uninit();
    let first = all.as_mut_ptr().cast::<T>();
    // SAFETY: the array has room for `N` values, and all of them are written.
    unsafe {
        unroll!(for i in 0..N {
            first.add(i).write(x)
        });
        all.assume_init()
    }
}
