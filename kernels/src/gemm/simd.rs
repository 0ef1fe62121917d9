//! The few vector operations that contraction kernels are written in.
//!
//! A kernel body is written once over [`Simd`] and built for every instruction
//! set by [`levels!`]. Unlike element-wise loops, a register tile cannot be left
//! to the vectoriser: what stays in registers is the whole point of it.

use crate::simd::unroll::unroll;
#[cfg(target_arch = "x86_64")]
use std::arch::x86_64::*;

/// A vector of f32.
///
/// Methods are `#[inline(always)]` so that they take on the target features of
/// the function they end up in.
///
/// # Safety
/// All methods require the instruction set of the type; those that take a
/// pointer require that the lanes they touch are valid memory.
pub(crate) trait Simd: Copy {
    /// Number of lanes.
    const LANES: usize;
    /// Whether [`Simd::fma`] sums up integers, of which [`Simd::scaled`] makes numbers.
    const INTEGERS: bool = false;
    /// The first so many lanes.
    type Mask: Copy;

    /// Zero in every lane.
    unsafe fn zero() -> Self;
    /// `x` in every lane.
    unsafe fn splat(x: f32) -> Self;
    /// Any alignment.
    unsafe fn load(p: *const f32) -> Self;
    /// Any alignment.
    unsafe fn store(self, p: *mut f32);
    /// The first `n` lanes; `n >= LANES` means all.
    unsafe fn mask(n: usize) -> Self::Mask;
    /// Zero where the mask is off; memory there is not touched.
    unsafe fn load_mask(p: *const f32, m: Self::Mask) -> Self;
    /// Memory where the mask is off is not touched.
    unsafe fn store_mask(self, p: *mut f32, m: Self::Mask);
    /// `self + o`.
    unsafe fn add(self, o: Self) -> Self;
    /// `self - o`.
    unsafe fn sub(self, o: Self) -> Self;
    /// `self * o`.
    unsafe fn mul(self, o: Self) -> Self;
    /// `self * m + a`, rounded once.
    unsafe fn fma(self, m: Self, a: Self) -> Self;
    /// `self` where it is positive or NaN, else zero (or `self` when it is -0).
    unsafe fn relu(self) -> Self;
    /// `self` where it is smaller than `o` or NaN, else `o`, which is not.
    unsafe fn at_most(self, o: Self) -> Self;
    /// Asks for the cache line at `p`; any address is allowed.
    unsafe fn prefetch(p: *const f32);
    /// Eight columns of a matrix whose rows are `ld` apart: lane `i` of vector `j`
    /// is element `j` of row `min(i, top)`.
    unsafe fn columns(p: *const f32, ld: isize, top: usize) -> [Self; 8];
    /// `scale (self + offset)` of integers; of numbers, nothing.
    #[inline(always)]
    unsafe fn scaled(self, _offset: Self, _scale: Self) -> Self {
        self
    }
}

/// 16 lanes of AVX-512.
#[cfg(target_arch = "x86_64")]
#[derive(Clone, Copy)]
pub(crate) struct Zmm(__m512);

#[cfg(target_arch = "x86_64")]
impl Simd for Zmm {
    const LANES: usize = 16;
    type Mask = __mmask16;

    #[inline(always)]
    unsafe fn zero() -> Self {
        // SAFETY: the caller has AVX-512.
        unsafe { Zmm(_mm512_setzero_ps()) }
    }
    #[inline(always)]
    unsafe fn splat(x: f32) -> Self {
        // SAFETY: the caller has AVX-512.
        unsafe { Zmm(_mm512_set1_ps(x)) }
    }
    #[inline(always)]
    unsafe fn load(p: *const f32) -> Self {
        // SAFETY: the caller has AVX-512 and 16 readable floats.
        unsafe { Zmm(_mm512_loadu_ps(p)) }
    }
    #[inline(always)]
    unsafe fn store(self, p: *mut f32) {
        // SAFETY: the caller has AVX-512 and 16 writable floats.
        unsafe { _mm512_storeu_ps(p, self.0) }
    }
    #[inline(always)]
    unsafe fn mask(n: usize) -> __mmask16 {
        if n >= 16 { !0 } else { (1 << n) - 1 }
    }
    #[inline(always)]
    unsafe fn load_mask(p: *const f32, m: __mmask16) -> Self {
        // SAFETY: the caller has AVX-512; lanes that are off are not read.
        unsafe { Zmm(_mm512_maskz_loadu_ps(m, p)) }
    }
    #[inline(always)]
    unsafe fn store_mask(self, p: *mut f32, m: __mmask16) {
        // SAFETY: the caller has AVX-512; lanes that are off are not written.
        unsafe { _mm512_mask_storeu_ps(p, m, self.0) }
    }
    #[inline(always)]
    unsafe fn add(self, o: Self) -> Self {
        // SAFETY: the caller has AVX-512.
        unsafe { Zmm(_mm512_add_ps(self.0, o.0)) }
    }
    #[inline(always)]
    unsafe fn sub(self, o: Self) -> Self {
        // SAFETY: the caller has AVX-512.
        unsafe { Zmm(_mm512_sub_ps(self.0, o.0)) }
    }
    #[inline(always)]
    unsafe fn mul(self, o: Self) -> Self {
        // SAFETY: the caller has AVX-512.
        unsafe { Zmm(_mm512_mul_ps(self.0, o.0)) }
    }
    #[inline(always)]
    unsafe fn fma(self, m: Self, a: Self) -> Self {
        // SAFETY: the caller has AVX-512.
        unsafe { Zmm(_mm512_fmadd_ps(self.0, m.0, a.0)) }
    }
    #[inline(always)]
    unsafe fn relu(self) -> Self {
        // SAFETY: the caller has AVX-512. The second operand wins for NaN and -0.
        unsafe { Zmm(_mm512_max_ps(_mm512_setzero_ps(), self.0)) }
    }
    #[inline(always)]
    unsafe fn at_most(self, o: Self) -> Self {
        // SAFETY: the caller has AVX-512. The second operand wins for NaN.
        unsafe { Zmm(_mm512_min_ps(o.0, self.0)) }
    }
    #[inline(always)]
    unsafe fn prefetch(p: *const f32) {
        // SAFETY: a prefetch never faults.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(p.cast()) }
    }
    #[inline(always)]
    unsafe fn columns(p: *const f32, ld: isize, top: usize) -> [Self; 8] {
        // SAFETY: the caller has AVX-512 and eight readable floats in each row.
        unsafe {
            let (lo, hi) = (Zmm::four(p, ld, top, 0), Zmm::four(p, ld, top, 8));
            [
                Zmm(_mm512_shuffle_f32x4::<0x88>(lo[0], hi[0])),
                Zmm(_mm512_shuffle_f32x4::<0x88>(lo[1], hi[1])),
                Zmm(_mm512_shuffle_f32x4::<0x88>(lo[2], hi[2])),
                Zmm(_mm512_shuffle_f32x4::<0x88>(lo[3], hi[3])),
                Zmm(_mm512_shuffle_f32x4::<0xdd>(lo[0], hi[0])),
                Zmm(_mm512_shuffle_f32x4::<0xdd>(lo[1], hi[1])),
                Zmm(_mm512_shuffle_f32x4::<0xdd>(lo[2], hi[2])),
                Zmm(_mm512_shuffle_f32x4::<0xdd>(lo[3], hi[3])),
            ]
        }
    }
}

// Closures would not take on the target features of where they end up.
#[cfg(target_arch = "x86_64")]
impl Zmm {
    /// `a` and the products of pairs of bf16 numbers.
    #[inline(always)]
    pub(super) unsafe fn dot_pairs(self, m: Self, a: Self) -> Self {
        // SAFETY: the caller has AVX-512 with bf16; the types are the same bits.
        unsafe {
            let x = std::mem::transmute::<__m512, __m512bh>(self.0);
            let m = std::mem::transmute::<__m512, __m512bh>(m.0);
            Zmm(_mm512_dpbf16_ps(a.0, x, m))
        }
    }

    /// `a` and the products of quads of bytes, `u` unsigned and `s` signed.
    #[inline(always)]
    pub(super) unsafe fn dot_quads(u: Self, s: Self, a: Self) -> Self {
        // SAFETY: the caller has AVX-512 with VNNI.
        unsafe {
            let [u, s, a] =
                [_mm512_castps_si512(u.0), _mm512_castps_si512(s.0), _mm512_castps_si512(a.0)];
            Zmm(_mm512_castsi512_ps(_mm512_dpbusd_epi32(a, u, s)))
        }
    }

    /// The sums of integers as numbers.
    #[inline(always)]
    pub(super) unsafe fn add_whole(self, o: Self) -> Self {
        // SAFETY: the caller has AVX-512.
        unsafe {
            let sum = _mm512_add_epi32(_mm512_castps_si512(self.0), _mm512_castps_si512(o.0));
            Zmm(_mm512_cvtepi32_ps(sum))
        }
    }

    /// Rows `i` and `i + 4`, so that halves of rows end up in order.
    #[inline(always)]
    unsafe fn pair(p: *const f32, ld: isize, top: usize, i: usize) -> __m512 {
        // SAFETY: as for `columns`.
        unsafe {
            let low = _mm256_loadu_ps(p.offset(i.min(top) as isize * ld));
            let high = _mm256_loadu_ps(p.offset((i + 4).min(top) as isize * ld));
            let low = _mm512_castps_pd(_mm512_castps256_ps512(low));
            _mm512_castpd_ps(_mm512_insertf64x4::<1>(low, _mm256_castps_pd(high)))
        }
    }

    /// Of rows `i` to `i + 7`, columns 0 to 3 in quarters 0 and 2, columns 4 to 7
    /// in quarters 1 and 3.
    #[inline(always)]
    unsafe fn four(p: *const f32, ld: isize, top: usize, i: usize) -> [__m512; 4] {
        // SAFETY: as for `columns`.
        unsafe {
            let (w, x) = (Zmm::pair(p, ld, top, i), Zmm::pair(p, ld, top, i + 1));
            let (y, z) = (Zmm::pair(p, ld, top, i + 2), Zmm::pair(p, ld, top, i + 3));
            let (wx, xw) = (_mm512_unpacklo_ps(w, x), _mm512_unpackhi_ps(w, x));
            let (yz, zy) = (_mm512_unpacklo_ps(y, z), _mm512_unpackhi_ps(y, z));
            [
                _mm512_shuffle_ps::<0x44>(wx, yz),
                _mm512_shuffle_ps::<0xee>(wx, yz),
                _mm512_shuffle_ps::<0x44>(xw, zy),
                _mm512_shuffle_ps::<0xee>(xw, zy),
            ]
        }
    }
}

/// 8 lanes of AVX2 with FMA.
#[cfg(target_arch = "x86_64")]
#[derive(Clone, Copy)]
pub(crate) struct Ymm(__m256);

#[cfg(target_arch = "x86_64")]
impl Simd for Ymm {
    const LANES: usize = 8;
    type Mask = __m256i;

    #[inline(always)]
    unsafe fn zero() -> Self {
        // SAFETY: the caller has AVX2.
        unsafe { Ymm(_mm256_setzero_ps()) }
    }
    #[inline(always)]
    unsafe fn splat(x: f32) -> Self {
        // SAFETY: the caller has AVX2.
        unsafe { Ymm(_mm256_set1_ps(x)) }
    }
    #[inline(always)]
    unsafe fn load(p: *const f32) -> Self {
        // SAFETY: the caller has AVX2 and 8 readable floats.
        unsafe { Ymm(_mm256_loadu_ps(p)) }
    }
    #[inline(always)]
    unsafe fn store(self, p: *mut f32) {
        // SAFETY: the caller has AVX2 and 8 writable floats.
        unsafe { _mm256_storeu_ps(p, self.0) }
    }
    #[inline(always)]
    unsafe fn mask(n: usize) -> __m256i {
        // SAFETY: the caller has AVX2.
        unsafe {
            let lane = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
            _mm256_cmpgt_epi32(_mm256_set1_epi32(n.min(8) as i32), lane)
        }
    }
    #[inline(always)]
    unsafe fn load_mask(p: *const f32, m: __m256i) -> Self {
        // SAFETY: the caller has AVX2; lanes that are off are not read.
        unsafe { Ymm(_mm256_maskload_ps(p, m)) }
    }
    #[inline(always)]
    unsafe fn store_mask(self, p: *mut f32, m: __m256i) {
        // SAFETY: the caller has AVX2; lanes that are off are not written.
        unsafe { _mm256_maskstore_ps(p, m, self.0) }
    }
    #[inline(always)]
    unsafe fn add(self, o: Self) -> Self {
        // SAFETY: the caller has AVX2.
        unsafe { Ymm(_mm256_add_ps(self.0, o.0)) }
    }
    #[inline(always)]
    unsafe fn sub(self, o: Self) -> Self {
        // SAFETY: the caller has AVX2.
        unsafe { Ymm(_mm256_sub_ps(self.0, o.0)) }
    }
    #[inline(always)]
    unsafe fn mul(self, o: Self) -> Self {
        // SAFETY: the caller has AVX2.
        unsafe { Ymm(_mm256_mul_ps(self.0, o.0)) }
    }
    #[inline(always)]
    unsafe fn fma(self, m: Self, a: Self) -> Self {
        // SAFETY: the caller has AVX2 and FMA.
        unsafe { Ymm(_mm256_fmadd_ps(self.0, m.0, a.0)) }
    }
    #[inline(always)]
    unsafe fn relu(self) -> Self {
        // SAFETY: the caller has AVX2. The second operand wins for NaN and -0.
        unsafe { Ymm(_mm256_max_ps(_mm256_setzero_ps(), self.0)) }
    }
    #[inline(always)]
    unsafe fn at_most(self, o: Self) -> Self {
        // SAFETY: the caller has AVX2. The second operand wins for NaN.
        unsafe { Ymm(_mm256_min_ps(o.0, self.0)) }
    }
    #[inline(always)]
    unsafe fn prefetch(p: *const f32) {
        // SAFETY: a prefetch never faults.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(p.cast()) }
    }
    #[inline(always)]
    unsafe fn columns(p: *const f32, ld: isize, top: usize) -> [Self; 8] {
        // SAFETY: the caller has AVX2 and eight readable floats in each row.
        unsafe {
            let [a, b, c, d] = Ymm::four(p, ld, top);
            let [e, f, g, h] = Ymm::four(p.add(4), ld, top);
            [a, b, c, d, e, f, g, h]
        }
    }
}

#[cfg(target_arch = "x86_64")]
impl Ymm {
    /// The numbers in the upper halves of pairs.
    #[inline(always)]
    pub(super) unsafe fn upper(self) -> Self {
        // SAFETY: the caller has AVX2.
        unsafe {
            let mask = _mm256_castsi256_ps(_mm256_set1_epi32(0xffff_0000_u32 as i32));
            Ymm(_mm256_and_ps(self.0, mask))
        }
    }

    /// The numbers in the lower halves of pairs.
    #[inline(always)]
    pub(super) unsafe fn lower(self) -> Self {
        // SAFETY: the caller has AVX2.
        unsafe { Ymm(_mm256_castsi256_ps(_mm256_slli_epi32::<16>(_mm256_castps_si256(self.0)))) }
    }

    /// `a` and the products of quads of bytes, `u` unsigned and `s` signed.
    #[inline(always)]
    pub(super) unsafe fn dot_quads(u: Self, s: Self, a: Self) -> Self {
        // SAFETY: the caller has AVX-VNNI.
        unsafe {
            let [u, s, a] =
                [_mm256_castps_si256(u.0), _mm256_castps_si256(s.0), _mm256_castps_si256(a.0)];
            Ymm(_mm256_castsi256_ps(_mm256_dpbusd_avx_epi32(a, u, s)))
        }
    }

    /// The same as [`Ymm::dot_quads`]: bytes of even and of odd places in halves of 16
    /// bits, where no sum of two products is saturated.
    #[inline(always)]
    pub(super) unsafe fn dot_halves(u: Self, s: Self, a: Self) -> Self {
        // SAFETY: the caller has AVX2.
        unsafe {
            let [u, s, a] =
                [_mm256_castps_si256(u.0), _mm256_castps_si256(s.0), _mm256_castps_si256(a.0)];
            let low = _mm256_and_si256(u, _mm256_set1_epi16(0xff));
            let even = _mm256_srai_epi16::<8>(_mm256_slli_epi16::<8>(s));
            let odd = _mm256_madd_epi16(_mm256_srli_epi16::<8>(u), _mm256_srai_epi16::<8>(s));
            let sum = _mm256_add_epi32(_mm256_madd_epi16(low, even), odd);
            Ymm(_mm256_castsi256_ps(_mm256_add_epi32(a, sum)))
        }
    }

    /// The sums of integers as numbers.
    #[inline(always)]
    pub(super) unsafe fn add_whole(self, o: Self) -> Self {
        // SAFETY: the caller has AVX2.
        unsafe {
            let sum = _mm256_add_epi32(_mm256_castps_si256(self.0), _mm256_castps_si256(o.0));
            Ymm(_mm256_cvtepi32_ps(sum))
        }
    }

    /// Rows `i` and `i + 4`, so that nothing need cross the halves.
    #[inline(always)]
    unsafe fn pair(p: *const f32, ld: isize, top: usize, i: usize) -> __m256 {
        // SAFETY: as for `columns`.
        unsafe {
            let low = _mm_loadu_ps(p.offset(i.min(top) as isize * ld));
            let high = _mm_loadu_ps(p.offset((i + 4).min(top) as isize * ld));
            _mm256_insertf128_ps::<1>(_mm256_castps128_ps256(low), high)
        }
    }

    /// Columns 0 to 3 of eight rows.
    #[inline(always)]
    unsafe fn four(p: *const f32, ld: isize, top: usize) -> [Ymm; 4] {
        // SAFETY: as for `columns`.
        unsafe {
            let (w, x) = (Ymm::pair(p, ld, top, 0), Ymm::pair(p, ld, top, 1));
            let (y, z) = (Ymm::pair(p, ld, top, 2), Ymm::pair(p, ld, top, 3));
            let (wx, xw) = (_mm256_unpacklo_ps(w, x), _mm256_unpackhi_ps(w, x));
            let (yz, zy) = (_mm256_unpacklo_ps(y, z), _mm256_unpackhi_ps(y, z));
            [
                Ymm(_mm256_shuffle_ps::<0x44>(wx, yz)),
                Ymm(_mm256_shuffle_ps::<0xee>(wx, yz)),
                Ymm(_mm256_shuffle_ps::<0x44>(xw, zy)),
                Ymm(_mm256_shuffle_ps::<0xee>(xw, zy)),
            ]
        }
    }
}

/// Four lanes in plain Rust: one NEON register on AArch64. On x86-64 without
/// FMA each product-sum is a call into the mathematics library; the numbers are
/// the same, the speed is not.
#[derive(Clone, Copy)]
pub(crate) struct Quad([f32; 4]);

impl Quad {
    /// The numbers in the upper halves of pairs.
    #[inline(always)]
    pub(super) fn upper(self) -> Quad {
        Quad::lanes(|i| f32::from_bits(self.0[i].to_bits() & 0xffff_0000))
    }

    /// The numbers in the lower halves of pairs.
    #[inline(always)]
    pub(super) fn lower(self) -> Quad {
        Quad::lanes(|i| f32::from_bits(self.0[i].to_bits() << 16))
    }

    /// `a` and the products of quads of bytes, `u` unsigned and `s` signed.
    #[inline(always)]
    pub(super) fn dot_quads(u: Quad, s: Quad, a: Quad) -> Quad {
        Quad::lanes(|i| {
            let (u, s) = (u.0[i].to_bits().to_le_bytes(), s.0[i].to_bits().to_le_bytes());
            let product = |b: usize| i32::from(u[b]) * i32::from(s[b] as i8);
            let sum = product(0) + product(1) + product(2) + product(3);
            f32::from_bits(a.0[i].to_bits().wrapping_add(sum as u32))
        })
    }

    /// The sums of integers as numbers.
    #[inline(always)]
    pub(super) fn add_whole(self, o: Quad) -> Quad {
        Quad::lanes(|i| self.0[i].to_bits().wrapping_add(o.0[i].to_bits()) as i32 as f32)
    }

    #[inline(always)]
    fn lanes(f: impl Fn(usize) -> f32) -> Quad {
        Quad([f(0), f(1), f(2), f(3)])
    }

    // Four calls anyway on x86-64: written out in every tile and transform they would
    // be a third of all contractions' code.
    #[cfg_attr(target_arch = "x86_64", inline(never))]
    #[cfg_attr(not(target_arch = "x86_64"), inline(always))]
    fn fused(self, m: Quad, a: Quad) -> Quad {
        Quad::lanes(|i| self.0[i].mul_add(m.0[i], a.0[i]))
    }
}

impl Simd for Quad {
    const LANES: usize = 4;
    type Mask = usize;

    #[inline(always)]
    unsafe fn zero() -> Self {
        Quad([0.0; 4])
    }
    #[inline(always)]
    unsafe fn splat(x: f32) -> Self {
        Quad([x; 4])
    }
    #[inline(always)]
    unsafe fn load(p: *const f32) -> Self {
        // SAFETY: the caller has 4 readable floats.
        Quad(unsafe { p.cast::<[f32; 4]>().read_unaligned() })
    }
    #[inline(always)]
    unsafe fn store(self, p: *mut f32) {
        // SAFETY: the caller has 4 writable floats.
        unsafe { p.cast::<[f32; 4]>().write_unaligned(self.0) }
    }
    #[inline(always)]
    unsafe fn mask(n: usize) -> usize {
        n.min(4)
    }
    #[inline(always)]
    unsafe fn load_mask(p: *const f32, m: usize) -> Self {
        let mut v = [0.0; 4];
        for (i, x) in v.iter_mut().enumerate().take(m) {
            // SAFETY: the caller has `m` readable floats.
            *x = unsafe { *p.add(i) };
        }
        Quad(v)
    }
    #[inline(always)]
    unsafe fn store_mask(self, p: *mut f32, m: usize) {
        for (i, x) in self.0.iter().enumerate().take(m) {
            // SAFETY: the caller has `m` writable floats.
            unsafe { *p.add(i) = *x };
        }
    }
    #[inline(always)]
    unsafe fn add(self, o: Self) -> Self {
        Quad::lanes(|i| self.0[i] + o.0[i])
    }
    #[inline(always)]
    unsafe fn sub(self, o: Self) -> Self {
        Quad::lanes(|i| self.0[i] - o.0[i])
    }
    #[inline(always)]
    unsafe fn mul(self, o: Self) -> Self {
        Quad::lanes(|i| self.0[i] * o.0[i])
    }
    #[inline(always)]
    unsafe fn fma(self, m: Self, a: Self) -> Self {
        self.fused(m, a)
    }
    #[inline(always)]
    unsafe fn relu(self) -> Self {
        Quad::lanes(|i| if 0.0 > self.0[i] { 0.0 } else { self.0[i] })
    }
    #[inline(always)]
    unsafe fn at_most(self, o: Self) -> Self {
        Quad::lanes(|i| if o.0[i] < self.0[i] { o.0[i] } else { self.0[i] })
    }
    #[inline(always)]
    unsafe fn prefetch(_: *const f32) {}
    #[inline(always)]
    unsafe fn columns(p: *const f32, ld: isize, top: usize) -> [Self; 8] {
        // SAFETY: the caller has eight readable floats in each row.
        let at = |i: usize, j: usize| unsafe { *p.offset(i.min(top) as isize * ld).add(j) };
        let mut columns = [Quad([0.0; 4]); 8];
        unroll!(for j in 0..8 {
            columns[j] = Quad::lanes(|i| at(i, j));
        });
        columns
    }
}

/// Builds `body::<S, …>` for every instruction set: an array indexed by
/// [`Isa`](crate::isa::Isa).
macro_rules! levels {
    (fn($($arg:ident: $ty:ty),* $(,)?) $body:ident) => {{
        unsafe fn baseline($($arg: $ty),*) {
            // SAFETY: the caller keeps the body's contract.
            unsafe { $body::<$crate::gemm::simd::Quad>($($arg),*) }
        }
        #[cfg(target_arch = "x86_64")]
        #[target_feature(enable = "avx2,fma,bmi2,f16c")]
        unsafe fn v3($($arg: $ty),*) {
            // SAFETY: as above, and the features are on.
            unsafe { $body::<$crate::gemm::simd::Ymm>($($arg),*) }
        }
        #[cfg(target_arch = "x86_64")]
        #[target_feature(enable = "avx512f,avx512bw,avx512cd,avx512dq,avx512vl,avx2,fma,bmi2,f16c")]
        unsafe fn v4($($arg: $ty),*) {
            // SAFETY: as above, and the features are on.
            unsafe { $body::<$crate::gemm::simd::Zmm>($($arg),*) }
        }
        #[cfg(target_arch = "x86_64")]
        { [baseline, v3, v4] }
        #[cfg(not(target_arch = "x86_64"))]
        { [baseline, baseline, baseline] }
    }};
}
pub(crate) use levels;
