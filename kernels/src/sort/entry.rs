//! Elements as integers to sort.

use crate::scratch::Scratch;
use crate::simd::{Number, vectorize};
use crate::view::with_size;

/// A number with an integer that has its order.
pub trait Sortable: Number + KeyKernels {
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

crate::instances::instances!(KeyKernels for f32, f64, i64, i32, u8 => {
    fn kind() -> Kind = kind_of;
});

/// What sorting has to know about the elements.
#[derive(Clone, Copy)]
pub struct Kind {
    pub(super) size: usize,
    key_bits: u32,
    /// Computes the keys under which elements are sorted, from the first on; whether
    /// one is below a limit.
    ///
    /// Unsafe: there are as many elements as keys.
    keys: unsafe fn(*const u8, bool, u64, &mut [u64]) -> bool,
}

impl Kind {
    /// Whether lines of `n` elements fit entries of 64 bits.
    pub(super) fn fits_narrow(self, n: usize) -> bool {
        self.key_bits <= 32 && u32::try_from(n).is_ok()
    }
}

fn kind_of<T: Sortable>() -> Kind {
    Kind { size: size_of::<T>(), key_bits: T::KEY_BITS, keys: keys_of::<T> }
}

/// # Safety
/// There are as many elements as keys.
unsafe fn keys_of<T: Sortable>(
    line: *const u8,
    descending: bool,
    limit: u64,
    keys: &mut [u64],
) -> bool {
    // SAFETY: as the caller vouches.
    let line = unsafe { std::slice::from_raw_parts(line.cast::<T>(), keys.len()) };
    let flip = if descending { u64::MAX >> (64 - T::KEY_BITS) } else { 0 };
    vectorize(
        #[inline(always)]
        move || {
            let mut any = false;
            for (k, &v) in keys.iter_mut().zip(line) {
                *k = v.key() ^ flip;
                any |= *k < limit;
            }
            any
        },
    )
}

/// The elements of a line.
#[derive(Clone, Copy)]
pub(super) struct Line {
    kind: Kind,
    ptr: *const u8,
    pub(super) len: usize,
}

impl Line {
    /// # Safety
    /// There are `len` elements of this kind at `ptr`, and stay while the line is used.
    pub(super) unsafe fn new(kind: Kind, ptr: *const u8, len: usize) -> Line {
        Line { kind, ptr, len }
    }

    /// The keys of elements from `start` on; whether one is below `limit`.
    pub(super) fn keys(
        &self,
        start: usize,
        descending: bool,
        limit: u64,
        keys: &mut [u64],
    ) -> bool {
        assert!(start + keys.len() <= self.len);
        // SAFETY: the elements lie within the line.
        unsafe { (self.kind.keys)(self.ptr.add(start * self.kind.size), descending, limit, keys) }
    }

    /// Writes the elements of `entries`, `step` of them apart.
    ///
    /// # Safety
    /// The entries are of this line, and there is room for them.
    pub(super) unsafe fn take<E: Entry>(&self, entries: &[E], to: *mut u8, step: isize) {
        with_size!(self.kind.size, T => {
            let (from, to) = (self.ptr.cast::<T>(), to.cast::<T>());
            for (i, e) in entries.iter().enumerate() {
                // SAFETY: as the caller vouches.
                unsafe { *to.offset(i as isize * step) = *from.add(e.place()) };
            }
        });
    }
}

/// A key and, below it, the place of its element.
///
/// # Safety
/// Every bit pattern is valid.
pub(super) unsafe trait Entry: Copy + Ord {
    fn new(key: u64, place: usize) -> Self;
    fn key(self) -> u64;
    fn place(self) -> usize;
    /// Fills `out` with the entries of a line.
    fn of_line(line: Line, descending: bool, out: &mut [Self]);
}

/// Elements whose keys are computed together.
const TOGETHER: usize = 256;

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
    fn of_line(line: Line, descending: bool, out: &mut [u64]) {
        for (b, out) in out.chunks_mut(TOGETHER).enumerate() {
            line.keys(b * TOGETHER, descending, 0, out);
            for (i, e) in out.iter_mut().enumerate() {
                *e = u64::new(*e, b * TOGETHER + i);
            }
        }
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
    fn of_line(line: Line, descending: bool, out: &mut [u128]) {
        let mut keys = [0; TOGETHER];
        for (b, out) in out.chunks_mut(TOGETHER).enumerate() {
            let keys = &mut keys[..out.len()];
            line.keys(b * TOGETHER, descending, 0, keys);
            for (i, (e, &mut key)) in out.iter_mut().zip(keys).enumerate() {
                *e = u128::new(key, b * TOGETHER + i);
            }
        }
    }
}

/// Room for `n` entries.
pub(super) fn room<E: Entry>(scratch: &mut Scratch, n: usize) -> &mut [E] {
    // SAFETY: the room is there, and every bit pattern is an entry.
    unsafe { std::slice::from_raw_parts_mut(scratch.room::<E>(n), n) }
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
pub(super) fn sort<'a, E: Entry>(
    kind: Kind,
    mut entries: &'a mut [E],
    mut spare: &'a mut [E],
) -> &'a [E] {
    let n = entries.len();
    let digits = (kind.key_bits / DIGIT) as usize;
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
