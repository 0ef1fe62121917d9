//! The transforms of F(4 x 4, 3 x 3) with the points 0, ±√½, ±√2 and ∞: see
//! [`super::winograd`]. Channels are the lanes.

use crate::gemm::kernel::LANES;
use crate::gemm::simd::{Simd, levels};
use crate::isa;
use crate::simd::unroll::{copies, unroll};

/// Outputs along each side of a tile.
pub(super) const OUT: usize = 4;
/// Inputs along each side of a tile.
pub(super) const IN: usize = OUT + 2;
/// Numbers that a tile becomes.
pub(super) const POINTS: usize = IN * IN;
/// Output columns written at a time: a cache line.
pub(super) const SPAN: usize = 16;

// The points, and the weights that Lagrange interpolation gives them. For points
// ±a, ±b the transforms below only contain a² = 1/2 and b² = 2.
const A: f32 = std::f32::consts::FRAC_1_SQRT_2;
const B: f32 = std::f32::consts::SQRT_2;
const A2: f32 = 0.5;
const B2: f32 = 2.0;
const WEIGHT_A: f32 = -2.0 / 3.0;
const WEIGHT_B: f32 = 1.0 / 6.0;

/// Input transform, one dimension.
#[inline(always)]
unsafe fn input<S: Simd>(d: [S; 6]) -> [S; 6] {
    // SAFETY: the caller has the instruction set.
    unsafe {
        let (a, b) = (S::splat(A), S::splat(B));
        let (minus_a2, minus_b2, minus_sum) = (S::splat(-A2), S::splat(-B2), S::splat(-A2 - B2));
        let (even_a, odd_a) = (d[2].fma(minus_b2, d[4]), d[1].fma(minus_b2, d[3]));
        let (even_b, odd_b) = (d[2].fma(minus_a2, d[4]), d[1].fma(minus_a2, d[3]));
        [
            d[2].fma(minus_sum, d[0].add(d[4])),
            odd_a.fma(a, even_a),
            odd_a.fma(S::splat(-A), even_a),
            odd_b.fma(b, even_b),
            odd_b.fma(S::splat(-B), even_b),
            d[3].fma(minus_sum, d[1].add(d[5])),
        ]
    }
}

/// Output transform, one dimension.
#[inline(always)]
unsafe fn output<S: Simd>(m: [S; 6]) -> [S; 4] {
    // SAFETY: the caller has the instruction set.
    unsafe {
        let (even_a, odd_a) = (m[1].add(m[2]), m[1].sub(m[2]));
        let (even_b, odd_b) = (m[3].add(m[4]), m[3].sub(m[4]));
        [
            m[0].add(even_a).add(even_b),
            odd_a.fma(S::splat(A), odd_b.mul(S::splat(B))),
            even_a.fma(S::splat(A2), even_b.mul(S::splat(B2))),
            odd_a.fma(S::splat(A * A2), odd_b.fma(S::splat(B * B2), m[5])),
        ]
    }
}

/// Kernel transform, one dimension.
#[inline(always)]
unsafe fn kernel<S: Simd>(g: [S; 3]) -> [S; 6] {
    // SAFETY: the caller has the instruction set.
    unsafe {
        let (wa, wb) = (S::splat(WEIGHT_A), S::splat(WEIGHT_B));
        let (even_a, odd_a) = (g[2].fma(S::splat(A2), g[0]), g[1].mul(S::splat(A)));
        let (even_b, odd_b) = (g[2].fma(S::splat(B2), g[0]), g[1].mul(S::splat(B)));
        [
            g[0],
            even_a.add(odd_a).mul(wa),
            even_a.sub(odd_a).mul(wa),
            even_b.add(odd_b).mul(wb),
            even_b.sub(odd_b).mul(wb),
            g[2],
        ]
    }
}

/// Transform of the other factor when the result is a kernel: the transpose of
/// [`output`].
#[inline(always)]
unsafe fn spread<S: Simd>(z: [S; 4]) -> [S; 6] {
    // SAFETY: the caller has the instruction set.
    unsafe {
        let (a2, b2) = (S::splat(A2), S::splat(B2));
        let (even_a, odd_a) = (z[2].fma(a2, z[0]), z[3].fma(a2, z[1]));
        let (even_b, odd_b) = (z[2].fma(b2, z[0]), z[3].fma(b2, z[1]));
        [
            z[0],
            odd_a.fma(S::splat(A), even_a),
            odd_a.fma(S::splat(-A), even_a),
            odd_b.fma(S::splat(B), even_b),
            odd_b.fma(S::splat(-B), even_b),
            z[3],
        ]
    }
}

/// From 6 sums to a kernel, one dimension: the transpose of [`kernel`].
#[inline(always)]
unsafe fn gather<S: Simd>(u: [S; 6]) -> [S; 3] {
    // SAFETY: the caller has the instruction set.
    unsafe {
        let (wa, wb) = (S::splat(WEIGHT_A), S::splat(WEIGHT_B));
        let (even_a, odd_a) = (u[1].add(u[2]).mul(wa), u[1].sub(u[2]).mul(wa));
        let (even_b, odd_b) = (u[3].add(u[4]).mul(wb), u[3].sub(u[4]).mul(wb));
        [
            u[0].add(even_a).add(even_b),
            odd_a.fma(S::splat(A), odd_b.mul(S::splat(B))),
            even_a.fma(S::splat(A2), even_b.fma(S::splat(B2), u[5])),
        ]
    }
}

#[inline(always)]
unsafe fn lift_body<S: Simd>(
    pixels: *const f32,
    row: usize,
    count: usize,
    pitch: usize,
    v: *mut f32,
    point: usize,
) {
    /// Tiles between whose columns the first half of the work is shared.
    const RUN: usize = 8;
    // SAFETY: the caller has that many pixels and tiles.
    unsafe {
        for c in (0..pitch).step_by(S::LANES) {
            for first in (0..count).step_by(RUN) {
                let run = (count - first).min(RUN);
                let mut columns = [[S::zero(); IN]; OUT * RUN + 2];
                for (i, column) in columns[..OUT * run + 2].iter_mut().enumerate() {
                    let p = pixels.add((first * OUT + i) * pitch + c);
                    let mut d: [S; IN] = copies(S::zero());
                    unroll!(for i in 0..IN {
                        d[i] = S::load(p.add(i * row));
                    });
                    *column = input(d);
                }
                for t in 0..run {
                    let v = v.add((first + t) * pitch + c);
                    unroll!(for i in 0..IN {
                        let mut d: [S; IN] = copies(S::zero());
                        unroll!(for j in 0..IN {
                            d[j] = columns[OUT * t + j][i];
                        });
                        let d = input(d);
                        unroll!(for j in 0..IN {
                            d[j].store(v.add((i * IN + j) * point));
                        });
                    });
                }
            }
        }
    }
}

#[inline(always)]
unsafe fn spread_body<S: Simd>(
    pixels: *const f32,
    row: usize,
    count: usize,
    pitch: usize,
    z: *mut f32,
    point: usize,
) {
    // SAFETY: the caller has that many pixels and tiles.
    unsafe {
        for c in (0..pitch).step_by(S::LANES) {
            for t in 0..count {
                let mut columns: [[S; IN]; OUT] = copies(copies(S::zero()));
                unroll!(for j in 0..OUT {
                    let p = pixels.add((t * OUT + j) * pitch + c);
                    let mut d: [S; OUT] = copies(S::zero());
                    unroll!(for i in 0..OUT {
                        d[i] = S::load(p.add(i * row));
                    });
                    columns[j] = spread(d);
                });
                let z = z.add(t * pitch + c);
                unroll!(for i in 0..IN {
                    let mut d: [S; OUT] = copies(S::zero());
                    unroll!(for j in 0..OUT {
                        d[j] = columns[j][i];
                    });
                    let d = spread(d);
                    unroll!(for j in 0..IN {
                        d[j].store(z.add((i * IN + j) * point));
                    });
                });
            }
        }
    }
}

type Lift = unsafe fn(*const f32, usize, usize, usize, *mut f32, usize);
static LIFT: [Lift; 3] = levels!(
    fn(p: *const f32, row: usize, count: usize, pitch: usize, v: *mut f32, point: usize) lift_body
);
static SPREAD: [Lift; 3] = levels!(
    fn(p: *const f32, row: usize, count: usize, pitch: usize, z: *mut f32, point: usize) spread_body
);

/// Rows of pixels with the channels side by side: `row` floats from row to row,
/// `pitch`, a whole number of vectors, from pixel to pixel.
#[derive(Clone, Copy)]
pub(super) struct Pixels {
    pub(super) ptr: *const f32,
    pub(super) row: usize,
    pub(super) pitch: usize,
}

/// Transforms a row of `count` tiles of 6 x 6 pixels, 4 pixels apart. Each channel
/// becomes 36 numbers, `point` floats apart; tiles are as far apart as pixels.
///
/// # Safety
/// The pixels are readable, `v` is writable at these extents.
pub(super) unsafe fn lift(p: Pixels, count: usize, v: *mut f32, point: usize) {
    // SAFETY: the caller's contract; the level was found on this machine.
    unsafe { LIFT[isa::active() as usize](p.ptr, p.row, count, p.pitch, v, point) }
}

/// As [`lift`] for the other factor of a kernel's gradient: tiles of 4 x 4 pixels.
///
/// # Safety
/// As for [`lift`].
pub(super) unsafe fn spread_tiles(p: Pixels, count: usize, z: *mut f32, point: usize) {
    // SAFETY: the caller's contract; the level was found on this machine.
    unsafe { SPREAD[isa::active() as usize](p.ptr, p.row, count, p.pitch, z, point) }
}

/// What is done to the sums of up to [`LANES`] channels on their way out.
pub(super) struct Finish {
    pub(super) channels: usize,
    /// One number a channel, or null.
    pub(super) bias: *const f32,
    pub(super) relu: bool,
    pub(super) most: f32,
}

// A function of its own: in a loop the compiler would keep 36 addresses on the
// stack.
#[inline(always)]
unsafe fn land_body<S: Simd>(m: *const f32, point: usize, end: &Finish, out: *mut f32) {
    // SAFETY: the caller has 36 sums for each channel, rounded up to whole vectors,
    // and room for the pixels.
    unsafe {
        for o in (0..end.channels).step_by(S::LANES) {
            let mut rows: [[S; IN]; OUT] = copies(copies(S::zero()));
            unroll!(for j in 0..IN {
                let mut column: [S; IN] = copies(S::zero());
                unroll!(for i in 0..IN {
                    column[i] = S::load(m.add((i * IN + j) * point + o));
                });
                let column = output(column);
                unroll!(for i in 0..OUT {
                    rows[i][j] = column[i];
                });
            });
            let bias = match end.bias.is_null() {
                true => S::zero(),
                false => S::load_mask(end.bias.add(o), S::mask(end.channels - o)),
            };
            let most = S::splat(end.most);
            unroll!(for i in 0..OUT {
                let row = output(rows[i]);
                unroll!(for j in 0..OUT {
                    let v = row[j].add(bias);
                    let v = if end.relu { v.relu() } else { v }.at_most(most);
                    v.store(out.add((i * SPAN + j) * LANES + o));
                });
            });
        }
    }
}

#[inline(always)]
unsafe fn part_body<S: Simd>(
    pixels: *const f32,
    channels: usize,
    width: usize,
    y: *mut f32,
    ld: usize,
) {
    // SAFETY: the caller has so many pixels, rounded up to whole vectors, and planes.
    unsafe {
        for px in (0..width).step_by(S::LANES) {
            let mask = S::mask(width - px);
            for first in (0..channels).step_by(8) {
                let from = pixels.add(px * LANES + first);
                let planes = S::columns(from, LANES as isize, S::LANES - 1);
                let y = y.add(first * ld + px);
                unroll!(for j in 0..8 {
                    if first + j < channels {
                        planes[j].store_mask(y.add(j * ld), mask);
                    }
                });
            }
        }
    }
}

type Land = unsafe fn(*const f32, usize, &Finish, *mut f32);
static LAND: [Land; 3] =
    levels!(fn(m: *const f32, point: usize, end: &Finish, out: *mut f32) land_body);
type Part = unsafe fn(*const f32, usize, usize, *mut f32, usize);
static PART: [Part; 3] = levels!(
    fn(pixels: *const f32, channels: usize, width: usize, y: *mut f32, ld: usize) part_body
);

/// Transforms the sums of a tile, `point` floats apart, to pixels with the channels
/// side by side: rows [`SPAN`] pixels apart, pixels [`LANES`] floats.
///
/// # Safety
/// The sums of the channels, rounded up to whole vectors of [`LANES`], are readable;
/// `out` has room for 4 rows.
pub(super) unsafe fn land(m: *const f32, point: usize, end: &Finish, out: *mut f32) {
    // SAFETY: the caller's contract; the level was found on this machine.
    unsafe { LAND[isa::active() as usize](m, point, end, out) }
}

/// Writes `width` pixels whose channels lie side by side, [`LANES`] floats apart, to
/// planes `ld` apart.
///
/// # Safety
/// [`SPAN`] pixels are readable; the planes are writable.
pub(super) unsafe fn part(
    pixels: *const f32,
    channels: usize,
    width: usize,
    y: *mut f32,
    ld: usize,
) {
    // SAFETY: the caller's contract; the level was found on this machine.
    unsafe { PART[isa::active() as usize](pixels, channels, width, y, ld) }
}

/// Kernels of any strides: base, distance of output channels, of input channels,
/// and of rows and columns.
#[derive(Clone, Copy)]
pub(super) struct Kernels {
    pub(super) ptr: *const f32,
    pub(super) strides: [isize; 4],
}

#[inline(always)]
unsafe fn kernel_body<S: Simd>(w: Kernels, channels: usize, u: *mut f32, point: usize) {
    let [so, _, sh, sw] = w.strides;
    // SAFETY: the caller has that many kernels, and room for a whole vector at 36
    // points.
    unsafe {
        for o in (0..channels).step_by(S::LANES) {
            let mut columns: [[S; IN]; 3] = copies(copies(S::zero()));
            unroll!(for j in 0..3 {
                let mut g: [S; 3] = copies(S::zero());
                unroll!(for i in 0..3 {
                    let mut lanes = [0.0f32; LANES];
                    for l in 0..(channels - o).min(S::LANES) {
                        let at = (o + l) as isize * so + i as isize * sh + j as isize * sw;
                        lanes[l] = *w.ptr.offset(at);
                    }
                    g[i] = S::load(lanes.as_ptr());
                });
                columns[j] = kernel(g);
            });
            unroll!(for i in 0..IN {
                let row = kernel([columns[0][i], columns[1][i], columns[2][i]]);
                unroll!(for j in 0..IN {
                    row[j].store(u.add((i * IN + j) * point + o));
                });
            });
        }
    }
}

type Transform = unsafe fn(Kernels, usize, *mut f32, usize);
static KERNEL: [Transform; 3] =
    levels!(fn(w: Kernels, channels: usize, u: *mut f32, point: usize) kernel_body);

/// Transforms the kernels of up to [`LANES`] output channels for one input channel:
/// output channels side by side, the 36 numbers `point` floats apart.
///
/// # Safety
/// The kernels are readable; `u` has room for [`LANES`] floats at 36 points.
pub(super) unsafe fn kernels(w: Kernels, channels: usize, u: *mut f32, point: usize) {
    // SAFETY: the caller's contract; the level was found on this machine.
    unsafe { KERNEL[isa::active() as usize](w, channels, u, point) }
}

#[inline(always)]
unsafe fn fold_body<S: Simd>(u: *const f32, point: usize, channels: usize, w: *mut f32, ld: usize) {
    // SAFETY: the caller has 36 sums for each channel, rounded up to whole vectors,
    // and a kernel for each channel.
    unsafe {
        for o in (0..channels).step_by(S::LANES) {
            let mut rows: [[S; IN]; 3] = copies(copies(S::zero()));
            unroll!(for j in 0..IN {
                let mut column: [S; IN] = copies(S::zero());
                unroll!(for i in 0..IN {
                    column[i] = S::load(u.add((i * IN + j) * point + o));
                });
                let column = gather(column);
                unroll!(for i in 0..3 {
                    rows[i][j] = column[i];
                });
            });
            unroll!(for i in 0..3 {
                let row = gather(rows[i]);
                unroll!(for j in 0..3 {
                    let mut lanes = [0.0f32; LANES];
                    row[j].store(lanes.as_mut_ptr());
                    for l in 0..(channels - o).min(S::LANES) {
                        *w.add((o + l) * ld + 3 * i + j) = lanes[l];
                    }
                });
            });
        }
    }
}

type Fold = unsafe fn(*const f32, usize, usize, *mut f32, usize);
static FOLD: [Fold; 3] = levels!(
    fn(u: *const f32, point: usize, channels: usize, w: *mut f32, ld: usize) fold_body
);

/// Transforms sums, `point` floats apart with the output channels side by side, to a
/// dense 3 x 3 kernel for each of them, `ld` floats apart.
///
/// # Safety
/// The sums of the channels, rounded up to whole vectors of [`LANES`], are readable;
/// the kernels are writable.
pub(super) unsafe fn fold(u: *const f32, point: usize, channels: usize, w: *mut f32, ld: usize) {
    // SAFETY: the caller's contract; the level was found on this machine.
    unsafe { FOLD[isa::active() as usize](u, point, channels, w, ld) }
}
