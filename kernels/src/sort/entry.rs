//! Elements as integers to sort.

use crate::scratch::Scratch;
use crate::simd::{Number, vectorize};

/// A number with an integer that has its order.
pub trait Sortable: Number + super::SortKernels + super::SelectKernels {
    /// Bits of the key.
    const KEY_BITS: u32;
    /// The key: below `2^KEY_BITS`, in the order of the numbers, NaN above all of them,
    /// the zeros equal.
    fn key(self) -> u64;
}

macro_rules! float_keys {
    ($($t:ty, $bits:ty;)*) => {$(
        impl Sortable for $t {
            const KEY_BITS: u32 = <$bits>::BITS;
            #[inline(always)]
            fn key(self) -> u64 {
                // Adding zero makes the negative zero positive.
                let bits = (self + 0.0).to_bits();
                let sign = 1 << (Self::KEY_BITS - 1);
                let ordered = if bits & sign == 0 { bits | sign } else { !bits };
                u64::from(if self.is_nan() { <$bits>::MAX } else { ordered })
            }
        }
    )*};
}
float_keys! {
    f32, u32;
    f64, u64;
}

macro_rules! integer_keys {
    ($($t:ty, $bits:ty, $offset:expr;)*) => {$(
        impl Sortable for $t {
            const KEY_BITS: u32 = <$bits>::BITS;
            #[inline(always)]
            fn key(self) -> u64 {
                u64::from(self as $bits ^ $offset)
            }
        }
    )*};
}
integer_keys! {
    i64, u64, 1 << 63;
    i32, u32, 1 << 31;
    u8, u8, 0;
}

/// A key and, below it, the place of its element.
///
/// # Safety
/// Every bit pattern is valid.
pub(super) unsafe trait Entry: Copy + Ord {
    fn new(key: u64, place: usize) -> Self;
    fn key(self) -> u64;
    fn place(self) -> usize;
}

// SAFETY: an integer.
unsafe impl Entry for u64 {
    #[inline(always)]
    fn new(key: u64, place: usize) -> u64 {
        key << 32 | place as u64
    }
    #[inline(always)]
    fn key(self) -> u64 {
        self >> 32
    }
    #[inline(always)]
    fn place(self) -> usize {
        self as u32 as usize
    }
}

// SAFETY: an integer.
unsafe impl Entry for u128 {
    #[inline(always)]
    fn new(key: u64, place: usize) -> u128 {
        u128::from(key) << 64 | place as u128
    }
    #[inline(always)]
    fn key(self) -> u64 {
        (self >> 64) as u64
    }
    #[inline(always)]
    fn place(self) -> usize {
        self as u64 as usize
    }
}

/// Whether lines of `n` elements fit entries of 64 bits.
pub(super) fn fits_narrow<T: Sortable>(n: usize) -> bool {
    T::KEY_BITS <= 32 && u32::try_from(n).is_ok()
}

/// The key under which a number is sorted.
#[inline(always)]
pub(super) fn key<T: Sortable>(v: T, descending: bool) -> u64 {
    v.key() ^ if descending { u64::MAX >> (64 - T::KEY_BITS) } else { 0 }
}

/// Room for `n` entries.
pub(super) fn room<E: Entry>(scratch: &mut Scratch, n: usize) -> &mut [E] {
    // SAFETY: the room is there, and every bit pattern is an entry.
    unsafe { std::slice::from_raw_parts_mut(scratch.room::<E>(n), n) }
}

/// Fills `out` with the entries of a line.
pub(super) fn of_line<T: Sortable, E: Entry>(line: &[T], descending: bool, out: &mut [E]) {
    vectorize(
        #[inline(always)]
        move || {
            for (i, (e, &v)) in out.iter_mut().zip(line).enumerate() {
                *e = E::new(key(v, descending), i);
            }
        },
    );
}

/// Lines shorter than this are sorted by comparing.
const SHORT: usize = 512;
/// Bits by which entries are distributed at once: a cache line for each of the 256
/// places they go to is half the L1 cache.
const DIGIT: u32 = 8;
const DIGITS: usize = 8;

/// Sorts entries. Long lines digit by digit, the lowest first (Knuth, "The Art of
/// Computer Programming" 5.2.5), leaving out digits in which all agree; as each pass
/// keeps the order of equals, places need not be looked at. Uses as much `spare` room;
/// returns where the sorted entries are, one or the other.
pub(super) fn sort<'a, T: Sortable, E: Entry>(
    mut entries: &'a mut [E],
    mut spare: &'a mut [E],
) -> &'a [E] {
    let n = entries.len();
    let digits = (T::KEY_BITS / DIGIT) as usize;
    if n < SHORT * digits / 4 {
        entries.sort_unstable();
        return entries;
    }
    let digit = |e: E, d: usize| (e.key() >> (d as u32 * DIGIT)) as usize & 0xff;
    let mut counts = [[0usize; 256]; DIGITS];
    for &e in entries.iter() {
        for d in 0..digits {
            counts[d][digit(e, d)] += 1;
        }
    }
    for d in 0..digits {
        if counts[d].contains(&n) {
            continue;
        }
        let mut next = 0;
        for c in &mut counts[d] {
            (*c, next) = (next, next + *c);
        }
        for &e in entries.iter() {
            let to = &mut counts[d][digit(e, d)];
            spare[*to] = e;
            *to += 1;
        }
        std::mem::swap(&mut entries, &mut spare);
    }
    entries
}
