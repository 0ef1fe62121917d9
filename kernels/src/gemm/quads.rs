//! Products of integers of eight bits, summed up exactly.
//!
//! Numbers `x` of the left operand are taken for `scale (q - zero)` with `q` in 0..=255,
//! those of a column of the right one for `scale q` with `q` in -127..=127, as of Jacob
//! et al., "Quantization and Training of Neural Networks for Efficient
//! Integer-Arithmetic-Only Inference" (2018, arXiv:1712.05877). Then
//!
//! `Σ x w = scale_x scale_w (Σ q_x q_w - zero Σ q_w)`
//!
//! where the last sum is known when weights are packed. Four neighbouring steps of `k`
//! are a quad: four integers in the place of one f32, so that the tiles, blocking and
//! packing of single precision serve, with a quarter of the steps; a tile's multiply-add
//! is that of quads (`vpdpbusd`), and its sums become numbers at last. No sum is
//! saturated: all instruction sets have the same integers.

use super::kernel::{Fun, Kernel, Micro, NR, Rows, SLOTS, Scales, asked, kernel, slot};
use super::of::{Lanes, Of};
use super::pack::panel_width;
use super::simd::{Quad, Simd, levels};
#[cfg(target_arch = "x86_64")]
use super::simd::{Ymm, Zmm};
use super::units::{self, Units};
use super::{Epilogue, packed_len, tile};
use crate::isa;
use crate::par;
use crate::scratch::At;
use crate::view::{Dst, Src};
use std::ops::Range;

/// Longest sums of products: longer ones might leave 32 bits.
pub const LONGEST_INT8: usize = (i32::MAX / (255 * 127)) as usize;

/// Which numbers eight bits stand for: `scale (q - zero)`.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Affine {
    /// Distance of neighbours.
    pub scale: f32,
    /// What stands for zero.
    pub zero: u8,
}

impl Affine {
    /// That covers the numbers from `low` to `high`, and zero, which is met exactly.
    ///
    /// # Panics
    /// If one is not finite.
    pub fn covering(low: f32, high: f32) -> Affine {
        assert!(low.is_finite() && high.is_finite(), "numbers from {low} to {high} have no scale");
        let (low, high) = (f64::from(low.min(0.0)), f64::from(high.max(0.0)));
        let scale = ((high - low) / 255.0) as f32;
        // Of nothing but zeros, or numbers that vanish, any scale is right.
        let scale = if scale.is_normal() { scale } else { 1.0 };
        let zero = (-low / f64::from(scale)).round_ties_even().clamp(0.0, 255.0) as u8;
        Affine { scale, zero }
    }

    /// The integer that stands for `x`: the nearest, ties to even; NaN counts as the
    /// smallest number.
    pub fn quantize(self, x: f32) -> u8 {
        Rounding::new(1.0 / self.scale, f32::from(self.zero)).bits(x) as u8
    }

    /// The number that `q` stands for.
    pub fn dequantize(self, q: u8) -> f32 {
        self.scale * (f32::from(q) - f32::from(self.zero))
    }
}

/// [`Affine::quantize`] as loops want it.
#[derive(Clone, Copy)]
pub(crate) struct Rounding {
    inverse: f32,
    low: f32,
    high: f32,
    shift: f32,
}

impl Rounding {
    /// Numbers this large have a distance of one: adding one rounds.
    const WHOLE: f32 = 12_582_912.0;

    pub(crate) fn new(inverse: f32, zero: f32) -> Rounding {
        Rounding { inverse, low: -zero, high: 255.0 - zero, shift: Rounding::WHOLE + zero }
    }

    /// The integer, in the low eight bits.
    #[inline(always)]
    pub(crate) fn bits(self, x: f32) -> u32 {
        let x = x * self.inverse;
        let x = if x > self.low { x } else { self.low };
        let x = if x < self.high { x } else { self.high };
        (x + self.shift).to_bits() & 0xff
    }
}

/// Lanes of four integers of eight bits, multiplied and added to integers. `LEFT` says
/// that the left factor is the unsigned one, `FAST` that the instruction set has an
/// instruction for it.
struct Quads<const LEFT: bool, const FAST: bool>;

/// The unsigned factor, then the signed one.
#[inline(always)]
fn unsigned_first<S, const LEFT: bool>(x: S, m: S) -> (S, S) {
    if LEFT { (x, m) } else { (m, x) }
}

#[cfg(target_arch = "x86_64")]
impl<const LEFT: bool> Lanes<Zmm> for Quads<LEFT, true> {
    const INTEGERS: bool = true;

    #[inline(always)]
    unsafe fn dot(x: Zmm, m: Zmm, a: Zmm) -> Zmm {
        let (u, s) = unsigned_first::<_, LEFT>(x, m);
        // SAFETY: the caller has AVX-512 with VNNI.
        unsafe { Zmm::dot_quads(u, s, a) }
    }
    #[inline(always)]
    unsafe fn scaled(x: Zmm, offset: Zmm, scale: Zmm) -> Zmm {
        // SAFETY: the caller has AVX-512.
        unsafe { x.add_whole(offset).mul(scale) }
    }
}

#[cfg(target_arch = "x86_64")]
impl<const LEFT: bool, const FAST: bool> Lanes<Ymm> for Quads<LEFT, FAST> {
    const INTEGERS: bool = true;

    #[inline(always)]
    unsafe fn dot(x: Ymm, m: Ymm, a: Ymm) -> Ymm {
        let (u, s) = unsigned_first::<_, LEFT>(x, m);
        // SAFETY: the caller has AVX2, and AVX-VNNI where that is said.
        unsafe { if FAST { Ymm::dot_quads(u, s, a) } else { Ymm::dot_halves(u, s, a) } }
    }
    #[inline(always)]
    unsafe fn scaled(x: Ymm, offset: Ymm, scale: Ymm) -> Ymm {
        // SAFETY: the caller has AVX2.
        unsafe { x.add_whole(offset).mul(scale) }
    }
}

impl<const LEFT: bool> Lanes<Quad> for Quads<LEFT, false> {
    const INTEGERS: bool = true;

    #[inline(always)]
    unsafe fn dot(x: Quad, m: Quad, a: Quad) -> Quad {
        let (u, s) = unsigned_first::<_, LEFT>(x, m);
        Quad::dot_quads(u, s, a)
    }
    #[inline(always)]
    unsafe fn scaled(x: Quad, offset: Quad, scale: Quad) -> Quad {
        // SAFETY: lanes are plain numbers.
        unsafe { x.add_whole(offset).mul(scale) }
    }
}

// Products read weights in panels and have the numbers on the left; convolutions read
// numbers by table and have weights on the left. Where there is no instruction for
// quads, what serves with the least code.
kernel!(baseline, Of<Quad, Quads<true, false>>, rows 1, vectors 1, kinds Panels);
kernel!(filters, Of<Quad, Quads<false, false>>, rows 1, vectors 1, kinds Table);
#[cfg(target_arch = "x86_64")]
kernel!(v3, Of<Ymm, Quads<true, false>>, rows 4, vectors 3, kinds Panels, "avx2,fma,bmi2,f16c");
#[cfg(target_arch = "x86_64")]
kernel!(filters_v3, Of<Ymm, Quads<false, false>>, rows 4, vectors 3, kinds Table, "avx2,fma,bmi2,f16c");
#[cfg(target_arch = "x86_64")]
kernel!(
    v3_vnni, Of<Ymm, Quads<true, true>>, rows 4, vectors 3, kinds Panels,
    "avxvnni,avx2,fma,bmi2,f16c"
);
#[cfg(target_arch = "x86_64")]
kernel!(
    filters_v3_vnni, Of<Ymm, Quads<false, true>>, rows 4, vectors 3, kinds Table,
    "avxvnni,avx2,fma,bmi2,f16c"
);
#[cfg(target_arch = "x86_64")]
kernel!(
    v4, Of<Zmm, Quads<true, true>>, rows 8, vectors 12, kinds Panels,
    "avx512vnni,avx512f,avx512bw,avx512cd,avx512dq,avx512vl,avx2,fma,bmi2,f16c"
);
#[cfg(target_arch = "x86_64")]
kernel!(
    filters_v4, Of<Zmm, Quads<false, true>>, rows 8, vectors 12, kinds Table,
    "avx512vnni,avx512f,avx512bw,avx512cd,avx512dq,avx512vl,avx2,fma,bmi2,f16c"
);

/// Tiles of quads: of products, and of convolutions.
#[derive(Clone, Copy)]
pub(crate) struct Tiles {
    pub(super) products: &'static Kernel,
    pub(crate) filters: &'static Kernel,
}

impl Tiles {
    /// Everything this machine has up to the level in use, the best first.
    pub(crate) fn all() -> impl Iterator<Item = Tiles> {
        let level = isa::active();
        let of = |found: bool, products, filters| found.then_some(Tiles { products, filters });
        #[cfg(target_arch = "x86_64")]
        let more = [
            of(
                level >= isa::Isa::Avx512 && is_x86_feature_detected!("avx512vnni"),
                &v4::KERNEL,
                &filters_v4::KERNEL,
            ),
            of(
                level >= isa::Isa::Avx2 && is_x86_feature_detected!("avxvnni"),
                &v3_vnni::KERNEL,
                &filters_v3_vnni::KERNEL,
            ),
            of(level >= isa::Isa::Avx2, &v3::KERNEL, &filters_v3::KERNEL),
        ];
        #[cfg(not(target_arch = "x86_64"))]
        let (more, _): ([Option<Tiles>; 0], _) = ([], level);
        more.into_iter().flatten().chain(of(true, &baseline::KERNEL, &filters::KERNEL))
    }

    /// The best of the level in use.
    pub(crate) fn active() -> Tiles {
        Tiles::all().next().expect("the last serves everywhere")
    }
}

/// A column of weights, or a filter, as integers: writes its quads, run after run of the
/// numbers, and gives the distance of neighbours and the sum.
pub(crate) fn quantize_weights(
    n: usize,
    at: impl Fn(usize) -> f32,
    runs: impl Iterator<Item = Range<usize>>,
    mut put: impl FnMut(usize, f32),
) -> (f32, i32) {
    let most = (0..n).fold(0.0f32, |m, i| m.max(at(i).abs()));
    // Weights that vanish are zero.
    let scale = if (most / 127.0).is_normal() { most / 127.0 } else { 1.0 };
    let inverse = 1.0 / scale;
    let (mut sum, mut quads) = (0, 0);
    for run in runs {
        for from in run.clone().step_by(4) {
            let mut quad = 0;
            for (byte, i) in (from..run.end.min(from + 4)).enumerate() {
                let q = (at(i) * inverse).round_ties_even().clamp(-127.0, 127.0) as i32;
                sum += q;
                quad |= (q as u32 & 0xff) << (8 * byte);
            }
            put(quads, f32::from_bits(quad));
            quads += 1;
        }
    }
    (scale, sum)
}

/// What lies behind packed weights: for each column (or filter) its scale, then what is
/// added to its sums, then how the left operand is rounded.
#[derive(Clone, Copy)]
pub(crate) struct Tail {
    pub(crate) scales: Scales,
    pub(crate) rounding: Rounding,
    /// What stands for zero.
    pub(crate) zero: u8,
}

impl Tail {
    /// Number of floats for `n` columns.
    pub(crate) const fn len(n: usize) -> usize {
        2 * n + 2
    }

    /// Of `n` columns.
    ///
    /// # Panics
    /// If `packed` is too short.
    pub(crate) fn read(packed: &[f32], n: usize) -> Tail {
        let tail = &packed[packed.len() - Tail::len(n)..];
        let scales = Scales { scale: tail.as_ptr(), offset: tail[n..].as_ptr() };
        let (inverse, zero) = (tail[2 * n], tail[2 * n + 1]);
        Tail { scales, rounding: Rounding::new(inverse, zero), zero: zero as u8 }
    }

    /// Writes what is not of a single column.
    pub(crate) fn begin(tail: &mut [f32], x: Affine) {
        let n = tail.len();
        (tail[n - 2], tail[n - 1]) = (1.0 / x.scale, f32::from(x.zero));
    }

    /// Writes what belongs to column `i`, whose weights have that distance and sum.
    ///
    /// # Safety
    /// `tail` is writable for the tail of `n` columns.
    pub(crate) unsafe fn put(tail: *mut f32, n: usize, i: usize, x: Affine, w: (f32, i32)) {
        let offset = -(i32::from(x.zero) * w.1);
        // SAFETY: the caller's contract.
        unsafe {
            *tail.add(i) = x.scale * w.0;
            *tail.add(n + i) = f32::from_bits(offset as u32);
        }
    }
}

/// Number of floats of a right operand packed in quads.
pub fn packed_len_int8(k: usize, n: usize) -> usize {
    packed_len(k.div_ceil(4), n) + Tail::len(n)
}

/// Packs `b` of shape `[k, n]`, any strides, for [`gemm_packed_int8`] by a left operand
/// whose numbers `x` covers: as [`pack_b`](super::pack_b), with four rows in one, and
/// what makes numbers of the sums.
///
/// # Panics
/// If `out` does not hold [`packed_len_int8`] floats, or `k` is above [`LONGEST_INT8`].
pub fn pack_b_int8(b: Src<f32>, x: Affine, out: &mut [f32]) {
    let &[k, n] = b.shape else { panic!("a matrix has two dimensions") };
    assert_eq!(out.len(), packed_len_int8(k, n), "the packed operand has its own size");
    assert!(k <= LONGEST_INT8, "sums of {k} products may leave 32 bits");
    let quads = k.div_ceil(4);
    let tail = out.len() - Tail::len(n);
    Tail::begin(&mut out[tail..], x);
    let out = At(out.as_mut_ptr());
    par::for_range(n.div_ceil(NR), (1 << 15) / (k * NR).max(1) + 1, |panels| {
        for col in panels.map(|p| p * NR) {
            let (cols, width) = ((n - col).min(NR), panel_width(n, col));
            // SAFETY: the panel's place, and its columns of the view and of the tail.
            unsafe {
                let to = out.after(col * quads);
                to.write_bytes(0, quads * width);
                for j in 0..cols {
                    let from = b.ptr().wrapping_offset((col + j) as isize * b.strides[1]);
                    let at = |i: usize| *from.offset(i as isize * b.strides[0]);
                    let put = |i: usize, q: f32| *to.add(i * width + j) = q;
                    let w = quantize_weights(k, at, std::iter::once(0..k), put);
                    Tail::put(out.after(tail), n, col + j, x, w);
                }
            }
        }
    });
}

/// Quantizes `n` numbers that are `step` apart to bytes. (Left to the vectoriser: the
/// vectors only say for which instruction set.)
///
/// # Safety
/// `x` is readable at `n` such places, `out` writable for `n` bytes.
#[inline(always)]
unsafe fn quantize_row<S: Simd>(x: *const f32, step: isize, n: usize, r: Rounding, out: *mut u8) {
    // SAFETY: within the caller's extents.
    unsafe {
        if step == 1 {
            for i in 0..n {
                *out.add(i) = r.bits(*x.add(i)) as u8;
            }
        } else {
            for i in 0..n {
                *out.add(i) = r.bits(*x.offset(i as isize * step)) as u8;
            }
        }
    }
}

type Quantize = unsafe fn(*const f32, isize, usize, Rounding, *mut u8);
pub(super) static QUANTIZE: [Quantize; 3] = levels!(
    fn(x: *const f32, step: isize, n: usize, r: Rounding, out: *mut u8) quantize_row
);

/// `c = act(a b + bias)` for `a` of shape `[m, k]`, quantized as was said when `b` of
/// `[k, n]` was packed by [`pack_b_int8`], and `c` of `[m, n]`. Sums are exact; biases
/// and results are f32.
///
/// # Panics
/// As [`gemm_f32`](super::gemm_f32).
pub fn gemm_packed_int8(a: Src<f32>, packed: &[f32], n: usize, c: Dst<f32>, ep: &Epilogue) {
    let &[_, k] = a.shape else { panic!("matrices have two dimensions") };
    assert_eq!(packed.len(), packed_len_int8(k, n), "the packed operand has its own size");
    units::product(Units::quads(Tail::read(packed, n)), a, packed, n, c, ep);
}
