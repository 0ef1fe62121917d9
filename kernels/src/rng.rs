//! Random numbers by counting: Philox 4x32-10 (Salmon, Moraes, Dror and Shaw,
//! "Parallel random numbers: as easy as 1, 2, 3", 2011).
//!
//! A generator is a pure function of a seed and a counter to 128 random bits. A
//! fill says how many numbers it makes of each counter, begins with the counter
//! `offset` and uses the following ones; so any thread, or any device, can make any
//! part of it, and nothing depends on how the work was split. Each fill returns how
//! many counters it has used, which is by how much the caller moves its offset on.

use crate::copy::copy;
use crate::copy::transpose::{Tile, transpose};
use crate::math;
use crate::par;
use crate::scratch::Dense;
use crate::simd::{Real, vectorize};
use crate::view::{Dst, Element, Src, numel};

/// The generator.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Philox {
    /// Selects one of 2^64 independent sequences.
    pub seed: u64,
}

const M0: u32 = 0xd251_1f53;
const M1: u32 = 0xcd9e_8d57;
const W0: u32 = 0x9e37_79b9;
const W1: u32 = 0xbb67_ae85;
const ROUNDS: usize = 10;

/// The ten rounds.
#[inline(always)]
fn philox(mut c: [u32; 4], mut key: [u32; 2]) -> [u32; 4] {
    for _ in 0..ROUNDS {
        let a = u64::from(c[0]) * u64::from(M0);
        let b = u64::from(c[2]) * u64::from(M1);
        c = [
            (b >> 32) as u32 ^ c[1] ^ key[0],
            b as u32,
            (a >> 32) as u32 ^ c[3] ^ key[1],
            a as u32,
        ];
        key = [key[0].wrapping_add(W0), key[1].wrapping_add(W1)];
    }
    c
}

/// Counters whose numbers are made together.
const BATCH: usize = 256;
/// The four words of each counter of a batch, those of one kind together.
type Words = [[u32; BATCH]; 4];

/// A floating-point number that can be drawn.
pub trait Random: Real {
    /// How many numbers come from one counter.
    const PER_COUNTER: usize;
    /// Uniform numbers of a batch, evenly spaced in [0, 1), in the order of words.
    #[doc(hidden)]
    fn uniform(words: &Words, scale: Self, shift: Self, out: &mut [Self]);
    /// Normal numbers of a batch, in the order of words.
    #[doc(hidden)]
    fn normal(words: &Words, scale: Self, shift: Self, out: &mut [Self]);
}

impl Philox {
    /// The generator of a seed.
    pub fn new(seed: u64) -> Philox {
        Philox { seed }
    }

    fn key(self) -> [u32; 2] {
        [self.seed as u32, (self.seed >> 32) as u32]
    }

    /// The 128 bits of a counter.
    pub fn words(self, counter: u64) -> [u32; 4] {
        philox([counter as u32, (counter >> 32) as u32, 0, 0], self.key())
    }

    /// The 128 bits of a counter whose upper half is `upper`; the upper half of all other
    /// counters is 0.
    pub fn words_at(self, counter: u64, upper: u64) -> [u32; 4] {
        let c = [counter as u32, (counter >> 32) as u32, upper as u32, (upper >> 32) as u32];
        philox(c, self.key())
    }

    fn batch(self, first: u64, words: &mut Words) {
        let key = self.key();
        vectorize(
            #[inline(always)]
            move || {
                let [w0, w1, w2, w3] = words;
                for i in 0..BATCH {
                    let counter = first.wrapping_add(i as u64);
                    let c = philox([counter as u32, (counter >> 32) as u32, 0, 0], key);
                    (w0[i], w1[i], w2[i], w3[i]) = (c[0], c[1], c[2], c[3]);
                }
            },
        );
    }

    /// Uniform numbers in [`low`, `high`), each a multiple of 2^-24 (`f64`: 2^-53)
    /// scaled and shifted. Four `f32` or two `f64` of each counter.
    pub fn uniform<T: Random>(self, offset: u64, low: f64, high: f64, out: Dst<T>) -> u64 {
        let (scale, shift) = (T::of(high - low), T::of(low));
        self.fill(offset, T::PER_COUNTER, 20, out, |w, _, to| T::uniform(w, scale, shift, to))
    }

    /// Normally distributed numbers, by the method of Box and Muller (1958): the radius
    /// from one word (`f64`: two), the angle from the next. Four `f32` or two `f64` of
    /// each counter.
    pub fn normal<T: Random>(self, offset: u64, mean: f64, std: f64, out: Dst<T>) -> u64 {
        let (scale, shift) = (T::of(std), T::of(mean));
        self.fill(offset, T::PER_COUNTER, 50, out, |w, _, to| T::normal(w, scale, shift, to))
    }

    /// Uniform 64-bit numbers, two of each counter.
    pub fn bits(self, offset: u64, out: Dst<u64>) -> u64 {
        self.fill(offset, 2, 20, out, |words, _, to| each_pair(words, to, |v| v))
    }

    /// Uniform integers in [`low`, `high`), two of each counter: the upper half of the
    /// product of the range and 64 random bits (Lemire, "Fast random integer generation
    /// in an interval", 2019, without the rejection), so that the probability of a value
    /// is off by at most 2^-64.
    ///
    /// # Panics
    /// If `low` is not below `high`.
    pub fn integers(self, offset: u64, low: i64, high: i64, out: Dst<i64>) -> u64 {
        assert!(low < high, "no integers from {low} up to {high}");
        let range = high.wrapping_sub(low) as u64;
        self.fill(offset, 2, 20, out, |words, _, to| {
            each_pair(words, to, |v| low.wrapping_add(below(v, range) as i64));
        })
    }

    /// One with probability `p`, else zero: four of each counter.
    pub fn bernoulli(self, offset: u64, p: f64, out: Dst<u8>) -> u64 {
        let limit = threshold(p);
        self.fill(offset, 4, 20, out, |words, _, to| {
            each_word(words, to, |w| u8::from(u64::from(w) < limit));
        })
    }

    /// `out = x / (1 - p)`, but zero with probability `p` (Srivastava et al., "Dropout",
    /// 2014): four of each counter. The gradient is the same function of the gradient,
    /// with the same offset. `out` may be `x`.
    ///
    /// # Panics
    /// If the shapes differ.
    pub fn dropout<T: Random>(self, offset: u64, p: f64, x: Src<T>, out: Dst<T>) -> u64 {
        assert_eq!(x.shape, out.shape, "the output has the input's shape");
        let limit = threshold(p);
        let scale = if p < 1.0 { T::of(1.0 / (1.0 - p)) } else { T::ZERO };
        let dense = Dense::copy_of(x);
        let x = dense.as_ref().map_or(x, |d| d.src());
        self.fill(offset, 4, 20, out, |words, first, to| {
            let mut from = [T::ZERO; 4 * BATCH];
            let from = &mut from[..to.len()];
            // SAFETY: the view is dense and holds as many numbers as the output.
            unsafe { from.as_mut_ptr().copy_from_nonoverlapping(x.ptr().add(first), from.len()) };
            let (flat, from) = (&flat(words), &*from);
            vectorize(
                #[inline(always)]
                move || {
                    for ((v, &w), &x) in to.iter_mut().zip(flat).zip(from) {
                        let scaled = x.times(scale);
                        *v = if u64::from(w) < limit { T::ZERO } else { scaled };
                    }
                },
            );
        })
    }

    /// The integers below the extent of the vector `out`, shuffled (Fisher and Yates;
    /// Knuth, "The Art of Computer Programming" 3.4.2P): two draws of each counter.
    ///
    /// # Panics
    /// If `out` is not a vector.
    pub fn permutation(self, offset: u64, out: Dst<i64>) -> u64 {
        let &[n] = out.shape else { panic!("a permutation is a vector") };
        let mut order: Vec<i64> = (0..n as i64).collect();
        let mut draws = vec![0u64; n];
        let used = self.bits(offset, Dst::of(&mut draws, &[n], &[1]));
        for i in (1..n).rev() {
            order.swap(i, below(draws[i], i as u64 + 1) as usize);
        }
        copy(Src::of(&order, &[n], &[1]), out);
        used
    }

    /// Fills `out`, `per` elements of each counter: `f(words, position, elements)` makes
    /// up to a batch of elements, the first being the `position`-th in row-major order.
    fn fill<T: Element>(
        self,
        offset: u64,
        per: usize,
        cost: usize,
        out: Dst<T>,
        f: impl Fn(&Words, usize, &mut [T]) + Sync,
    ) -> u64 {
        let n = numel(out.shape);
        if n > 0 && !out.is_contiguous() {
            let dense = Dense::new::<T>(out.shape);
            let used = self.fill(offset, per, cost, dense.dst(), f);
            copy(dense.src(), out);
            return used;
        }
        let batch = BATCH * per;
        let grain = (par::SHARE_NS * 10).div_ceil(batch * cost);
        par::for_range(n.div_ceil(batch), grain, |batches| {
            let mut words = [[0; BATCH]; 4];
            for b in batches {
                let start = b * batch;
                let len = batch.min(n - start);
                self.batch(offset.wrapping_add((b * BATCH) as u64), &mut words);
                // SAFETY: within the dense view; no other thread has this batch.
                let to = unsafe { std::slice::from_raw_parts_mut(out.ptr().add(start), len) };
                f(&words, start, to);
            }
        });
        n.div_ceil(per) as u64
    }
}

/// `v range / 2^64`.
#[inline(always)]
fn below(v: u64, range: u64) -> u64 {
    ((u128::from(v) * u128::from(range)) >> 64) as u64
}

/// A 32-bit word is below this with probability `p`, and exactly where the uniform
/// `f32` of that word is below `p`.
fn threshold(p: f64) -> u64 {
    let p = p.clamp(0.0, 1.0) as f32;
    (p * 16_777_216.0).ceil() as u64 * 256
}

/// `rows` rows of a batch, turned so that the numbers of one counter lie together.
#[inline(always)]
fn turned<T: Element, const ROWS: usize>(rows: &[[T; BATCH]; ROWS], out: &mut [T]) {
    let t = Tile { na: ROWS, nb: BATCH, step_x: BATCH as isize, step_out: ROWS as isize };
    if out.len() == ROWS * BATCH {
        // SAFETY: both hold `ROWS * BATCH` numbers.
        unsafe { transpose(rows.as_ptr().cast::<T>(), out.as_mut_ptr(), t) };
    } else {
        for (i, v) in out.iter_mut().enumerate() {
            *v = rows[i % ROWS][i / ROWS];
        }
    }
}

/// The words of a batch, counter by counter.
#[inline(always)]
fn flat(words: &Words) -> [u32; 4 * BATCH] {
    let mut flat = [0; 4 * BATCH];
    turned(words, &mut flat);
    flat
}

/// `out[i] = f(word i)`.
#[inline(always)]
fn each_word<T: Element>(words: &Words, out: &mut [T], f: impl Fn(u32) -> T) {
    let flat = &flat(words);
    vectorize(
        #[inline(always)]
        move || {
            for (v, &w) in out.iter_mut().zip(flat) {
                *v = f(w);
            }
        },
    );
}

/// `out[i] = f(words 2 i and 2 i + 1)`, the first being the lower half.
#[inline(always)]
fn each_pair<T: Element>(words: &Words, out: &mut [T], f: impl Fn(u64) -> T) {
    let flat = flat(words);
    let (flat, _) = flat.as_chunks::<2>();
    vectorize(
        #[inline(always)]
        move || {
            for (v, &[low, high]) in out.iter_mut().zip(flat) {
                *v = f(u64::from(low) | u64::from(high) << 32);
            }
        },
    );
}

/// Words `w` and `w + 1` of counter `c` of a batch, the first being the lower half.
#[inline(always)]
fn joined(words: &Words, c: usize, w: usize) -> u64 {
    u64::from(words[w][c]) | u64::from(words[w + 1][c]) << 32
}

impl Random for f32 {
    const PER_COUNTER: usize = 4;

    fn uniform(words: &Words, scale: f32, shift: f32, out: &mut [f32]) {
        each_word(words, out, |w| {
            ((w >> 8) as i32 as f32 * (1.0 / 16_777_216.0)).mul_add(scale, shift)
        });
    }

    fn normal(words: &Words, scale: f32, shift: f32, out: &mut [f32]) {
        let mut z = [[0f32; BATCH]; 4];
        let [a, b, c, d] = &mut z;
        for (pair, x, y) in [(&words[..2], a, b), (&words[2..], c, d)] {
            let (first, second) = (&pair[0], &pair[1]);
            vectorize(
                #[inline(always)]
                move || {
                    for i in 0..BATCH {
                        let (u, v) = box_muller(first[i], second[i]);
                        x[i] = u.mul_add(scale, shift);
                        y[i] = v.mul_add(scale, shift);
                    }
                },
            );
        }
        turned(&z, out);
    }
}

// sin(f π/2) = f P(f²) and cos(f π/2) = 1 + f² Q(f²) on |f| <= 1/2, minimax, relative
// errors 3.2e-9 and 5.4e-11.
const SIN: [f32; 4] = [1.570_796_4, -0.645_963_5, 0.079_680_03, -0.004_601_658];
const COS: [f32; 4] = [-1.233_700_5, 0.253_669_23, -0.020_860_288, 0.000_904_021_67];

/// Two independent normal numbers of two words.
#[inline(always)]
fn box_muller(radius: u32, angle: u32) -> (f32, f32) {
    // In (0, 1], never zero: the largest radius is 6.8.
    let u = (radius as f32).mul_add(1.0 / 4_294_967_296.0, 0.5 / 4_294_967_296.0);
    let r = (-2.0 * math::log(u)).sqrt();
    // The angle in 2^24ths of a turn: whole quarters and what is left.
    let angle = (angle >> 8) as i32;
    let quarter = (angle + (1 << 21)) >> 22;
    let f = (angle - (quarter << 22)) as f32 * (1.0 / 4_194_304.0);
    let s = f * f;
    let horner = |c: &[f32; 4]| c[3].mul_add(s, c[2]).mul_add(s, c[1]).mul_add(s, c[0]);
    let (sin, cos) = (r * f * horner(&SIN), (r * s).mul_add(horner(&COS), r));
    let odd = quarter & 1 != 0;
    let (x, y) = if odd { (sin, cos) } else { (cos, sin) };
    let x = if (quarter + 1) & 2 != 0 { -x } else { x };
    let y = if quarter & 2 != 0 { -y } else { y };
    (x, y)
}

impl Random for f64 {
    const PER_COUNTER: usize = 2;

    fn uniform(words: &Words, scale: f64, shift: f64, out: &mut [f64]) {
        const STEP: f64 = 1.0 / (1u64 << 53) as f64;
        each_pair(words, out, |v| ((v >> 11) as f64 * STEP).mul_add(scale, shift));
    }

    fn normal(words: &Words, scale: f64, shift: f64, out: &mut [f64]) {
        const STEP: f64 = 1.0 / (1u64 << 53) as f64;
        for (c, pair) in out.chunks_mut(2).enumerate() {
            let u = ((joined(words, c, 0) >> 11) as f64 + 0.5) * STEP;
            let turn = (joined(words, c, 2) >> 11) as f64 * STEP;
            let r = (-2.0 * u.ln()).sqrt();
            let (sin, cos) = (turn * std::f64::consts::TAU).sin_cos();
            for (v, z) in pair.iter_mut().zip([r * cos, r * sin]) {
                *v = z.mul_add(scale, shift);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Operand, noise32, same_everywhere};

    #[test]
    fn known_answers() {
        // From the reference implementation's kat_vectors (Random123).
        let f = u32::MAX;
        for (counter, key, want) in [
            ([0; 4], [0; 2], [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8]),
            ([f; 4], [f; 2], [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd]),
            (
                [0x243f_6a88, 0x85a3_08d3, 0x1319_8a2e, 0x0370_7344],
                [0xa409_3822, 0x299f_31d0],
                [0xd16c_fe09, 0x94fd_cceb, 0x5001_e420, 0x2412_6ea1],
            ),
        ] {
            assert_eq!(philox(counter, key), want);
        }
        assert_eq!(Philox::new(0).words(0)[0], 0x6627_e8d5);
    }

    fn draw<T: Element>(n: usize, f: impl Fn(Dst<T>) -> u64 + Copy) -> (Vec<T>, u64) {
        let out = Operand::<T>::zeros(&[n], 0);
        let used = f(out.dst());
        (out.values(), used)
    }

    #[test]
    fn elements_come_from_the_counters_they_should() {
        let g = Philox::new(0x0123_4567_89ab_cdef);
        // Across the 32-bit boundary of the counter.
        let offset = (1u64 << 32) - 300;
        for n in [0usize, 1, 2, 3, 5, 511, 512, 1023, 1024, 1025, 5000] {
            let word = |e: usize| g.words(offset + e as u64 / 4)[e % 4];
            let double = |e: usize| {
                let w = g.words(offset + e as u64 / 2);
                u64::from(w[e % 2 * 2]) | u64::from(w[e % 2 * 2 + 1]) << 32
            };
            let (v, used) = draw(n, |o| g.uniform::<f32>(offset, 0.0, 1.0, o));
            assert_eq!(used, n.div_ceil(4) as u64);
            assert!(v.iter().enumerate().all(|(e, v)| *v == (word(e) >> 8) as f32 / 16_777_216.0));
            let (v, used) = draw(n, |o| g.uniform::<f64>(offset, -1.0, 3.0, o));
            assert_eq!(used, n.div_ceil(2) as u64);
            let unit = |e| (double(e) >> 11) as f64 / (1u64 << 53) as f64;
            assert!(v.iter().enumerate().all(|(e, v)| *v == unit(e) * 4.0 - 1.0));
            let (v, used) = draw(n, |o| g.bits(offset, o));
            assert_eq!(used, n.div_ceil(2) as u64);
            assert!(v.iter().enumerate().all(|(e, v)| *v == double(e)));
            let (v, _) = draw(n, |o| g.integers(offset, -7, 12, o));
            let want = |e| ((u128::from(double(e)) * 19) >> 64) as i64 - 7;
            assert!(v.iter().enumerate().all(|(e, v)| *v == want(e)));
            let (v, used) = draw(n, |o| g.bernoulli(offset, 0.25, o));
            assert_eq!(used, n.div_ceil(4) as u64);
            assert!(v.iter().enumerate().all(|(e, v)| *v == u8::from(word(e) < 1 << 30)));
            // Normal numbers: a pair from two words, against the library's functions.
            let (v, used) = draw(n, |o| g.normal::<f32>(offset, 0.0, 1.0, o));
            assert_eq!(used, n.div_ceil(4) as u64);
            for (e, v) in v.iter().enumerate() {
                let (a, b) = (word(e & !1), word(e | 1));
                let r = (-2.0 * ((f64::from(a) + 0.5) / 4_294_967_296.0).ln()).sqrt();
                let t = f64::from(b >> 8) / 16_777_216.0 * std::f64::consts::TAU;
                let want = r * if e % 2 == 0 { t.cos() } else { t.sin() };
                assert!((f64::from(*v) - want).abs() < 2e-6, "{v} {want}");
            }
            let (v, used) = draw(n, |o| g.normal::<f64>(offset, 2.0, 3.0, o));
            assert_eq!(used, n.div_ceil(2) as u64);
            assert!(v.iter().all(|v| (v - 2.0).abs() < 30.0));
        }
    }

    #[test]
    fn a_later_part_continues_an_earlier_one() {
        let g = Philox::new(7);
        let (whole, _) = draw(3000, |o| g.normal::<f32>(5, 0.0, 1.0, o));
        let (part, _) = draw(2000, |o| g.normal::<f32>(5 + 250, 0.0, 1.0, o));
        assert_eq!(whole[1000..], part);
    }

    #[test]
    fn moments() {
        let n = 1 << 20;
        let g = Philox::new(99);
        fn check(
            v: impl Iterator<Item = f64> + Clone,
            mean: f64,
            var: f64,
            skew: f64,
            kurtosis: f64,
        ) {
            let n = v.clone().count() as f64;
            let moment = |k| v.clone().map(|x| (x - mean).powi(k)).sum::<f64>() / n;
            let s = var.sqrt();
            assert!(moment(1).abs() < 5e-3 * s, "mean {}", moment(1));
            assert!((moment(2) / var - 1.0).abs() < 1e-2, "variance {}", moment(2));
            assert!((moment(3) / s.powi(3) - skew).abs() < 2e-2);
            assert!((moment(4) / var / var - kurtosis).abs() < 5e-2);
        }
        let (v, _) = draw(n, |o| g.normal::<f32>(0, 1.0, 2.0, o));
        check(v.iter().map(|v| f64::from(*v)), 1.0, 4.0, 0.0, 3.0);
        let (v, _) = draw(n, |o| g.normal::<f64>(0, 1.0, 2.0, o));
        check(v.iter().copied(), 1.0, 4.0, 0.0, 3.0);
        let (v, _) = draw(n, |o| g.uniform::<f32>(0, 0.0, 1.0, o));
        assert!(v.iter().all(|v| (0.0..1.0).contains(v)));
        check(v.iter().map(|v| f64::from(*v)), 0.5, 1.0 / 12.0, 0.0, 1.8);
        let (v, _) = draw(n, |o| g.bernoulli(0, 0.3, o));
        let ones = v.iter().filter(|v| **v == 1).count() as f64 / n as f64;
        assert!((ones - 0.3).abs() < 2e-3 && v.iter().all(|v| *v < 2));
        let (v, _) = draw(n, |o| g.integers(0, i64::MIN, i64::MAX, o));
        let below = v.iter().filter(|v| **v < 0).count() as f64 / n as f64;
        assert!((below - 0.5).abs() < 2e-3);
        for (p, want) in [(0.0, 0), (1.0, 1), (-3.0, 0), (f64::NAN, 0)] {
            assert!(draw(100, |o| g.bernoulli(0, p, o)).0.iter().all(|v| *v == want));
        }
    }

    #[test]
    fn permutations() {
        for n in [0usize, 1, 2, 5, 1000] {
            let (mut v, used) = draw(n, |o| Philox::new(3).permutation(11, o));
            assert_eq!(used, n.div_ceil(2) as u64);
            assert!(n < 100 || v.iter().enumerate().any(|(i, v)| i as i64 != *v));
            v.sort_unstable();
            assert!(v.iter().enumerate().all(|(i, v)| i as i64 == *v));
        }
        // All orders of three, about equally often.
        let mut seen = std::collections::HashMap::new();
        for seed in 0..6000 {
            let (v, _) = draw(3, |o| Philox::new(seed).permutation(0, o));
            *seen.entry(v).or_insert(0) += 1;
        }
        assert!(seen.len() == 6 && seen.values().all(|c| (850..1150).contains(c)), "{seen:?}");
    }

    #[test]
    fn dropout_and_its_gradient_drop_the_same() {
        let g = Philox::new(21);
        let shape = [37, 55];
        let x = noise32(37 * 55, 1);
        let mut first = None;
        for style in 0..4 {
            let operand = Operand::new(&shape, style, &x);
            let (y, gx) = (Operand::<f32>::zeros(&shape, style + 1), Operand::zeros(&shape, 0));
            let ones = Operand::new(&shape, style, &vec![1f32; x.len()]);
            let used = g.dropout(9, 0.4, operand.src(), y.dst());
            assert_eq!(used, x.len().div_ceil(4) as u64);
            g.dropout(9, 0.4, ones.src(), gx.dst());
            let (y, gx) = (y.values(), gx.values());
            let scale = (1.0f64 / 0.6) as f32;
            let kept = gx.iter().filter(|v| **v != 0.0).count();
            assert!((1100..1350).contains(&kept), "{kept}");
            for i in 0..x.len() {
                assert!(gx[i] == 0.0 || gx[i] == scale);
                assert_eq!(y[i], x[i] * gx[i]);
            }
            g.dropout(9, 0.4, operand.src(), operand.dst());
            assert_eq!(operand.values(), y);
            assert_eq!(*first.get_or_insert_with(|| y.clone()), y);
        }
        let infinite = [f32::INFINITY; 4];
        let mut out = [1f32; 4];
        g.dropout(0, 1.0, Src::of(&infinite, &[4], &[1]), Dst::of(&mut out, &[4], &[1]));
        assert_eq!(out, [0.0; 4]);
    }

    #[test]
    fn nothing_depends_on_threads_level_or_layout() {
        let g = Philox::new(5);
        let n = 300_001;
        same_everywhere(|| draw(n, |o| g.uniform::<f32>(1, -1.0, 2.0, o)).0);
        same_everywhere(|| draw(n, |o| g.normal::<f32>(1, -1.0, 2.0, o)).0);
        same_everywhere(|| draw(n, |o| g.uniform::<f64>(1, -1.0, 2.0, o)).0);
        same_everywhere(|| draw(n / 10, |o| g.normal::<f64>(1, -1.0, 2.0, o)).0);
        same_everywhere(|| draw(n, |o| g.bernoulli(1, 0.7, o)).0);
        let (flat, _) = draw(35, |o| g.normal::<f32>(1, 0.0, 1.0, o));
        for style in 1..5 {
            let out = Operand::<f32>::zeros(&[5, 7], style);
            g.normal(1, 0.0, 1.0, out.dst());
            assert_eq!(out.values(), flat);
        }
    }
}
