//! Gradients of the convolution.

use super::depthwise::Depthwise;
use super::direct::{self, Sweep};
use super::patches::{Axis, Patches};
use super::transform::{IN, Kernels, OUT};
use super::winograd::{self, Tiles};
use super::{ConvParams, PIXELS_TO_PACK, Shape, dense_output, weight, winograd_pays};
use crate::copy::fill;
use crate::gemm::Epilogue;
use crate::scratch::Scratch;
use crate::view::{Dst, Src};

fn four(strides: &[isize]) -> [isize; 4] {
    std::array::from_fn(|d| strides[d])
}

impl Shape {
    /// Whether minimal filtering can compute gradients.
    fn minimal(&self) -> bool {
        let p = &self.params;
        p.stride == [1; 2] && p.dilation == [1; 2] && p.groups == 1 && self.kernel == [3; 2]
    }

    /// Where the gradient of the input is a convolution of each channel by itself, its
    /// padding.
    fn depthwise(&self) -> Option<[usize; 2]> {
        let p = &self.params;
        let axis = |d: usize| ((self.kernel[d] - 1) * p.dilation[d]).checked_sub(p.padding[d]);
        let plain = p.stride == [1; 2] && (self.inner, self.outer) == (1, 1);
        if plain { Some([axis(0)?, axis(1)?]) } else { None }
    }
}

/// The gradient of the input: `gx` of the input's shape from `gy` of the output's
/// and the kernels `w`.
///
/// # Panics
/// If shapes do not fit.
pub fn conv2d_input_grad_f32(gy: Src<f32>, w: Src<f32>, gx: Dst<f32>, p: ConvParams) {
    let s = Shape::new(gx.shape, w.shape, gy.shape, p);
    let pixels = s.n * s.size[0] * s.size[1];
    if pixels * s.c == 0 {
        return;
    }
    dense_output(gx, |gx, batch| {
        // SAFETY: the views were checked at construction, their shapes just now.
        unsafe {
            if s.minimal() && winograd_pays(s.o, s.c, s.size) && pixels >= PIXELS_TO_PACK {
                input_winograd(&s, gy, w, gx, batch);
            } else if let Some(padding) = s.depthwise() {
                input_depthwise(&s, padding, gy, w, gx, batch);
            } else {
                input_direct(&s, gy, w, gx, batch);
            }
        }
    });
}

/// A convolution of `gy` with the kernels turned around and their channels swapped.
///
/// # Safety
/// The views fit `s`; `gx` is writable for dense images `batch` apart.
unsafe fn input_winograd(s: &Shape, gy: Src<f32>, w: Src<f32>, gx: *mut f32, batch: usize) {
    let [so, sc, sh, sw] = four(w.strides);
    let last = w.ptr().wrapping_offset(2 * sh + 2 * sw);
    let kernels = Kernels { ptr: last, strides: [sc, so, -sh, -sw] };
    let u = Scratch::new(winograd::kernels_len(s.c, s.o));
    // SAFETY: the caller's contract; the scratch has room for the kernels.
    unsafe {
        winograd::pack(kernels, s.c, s.o, u.ptr());
        let conv = winograd::Conv {
            n: s.n,
            c: s.o,
            o: s.c,
            input: s.out,
            output: s.size,
            padding: s.params.padding.map(|p| 2 - p as isize),
            x: gy.ptr(),
            x_strides: four(gy.strides),
            u: u.ptr(),
            y: gx,
            y_batch: batch as isize,
            ep: &Epilogue::NONE,
        };
        conv.run();
    }
}

/// A convolution of `gy` with the kernels turned around.
///
/// # Safety
/// As for [`input_winograd`].
unsafe fn input_depthwise(
    s: &Shape,
    padding: [usize; 2],
    gy: Src<f32>,
    w: Src<f32>,
    gx: *mut f32,
    batch: usize,
) {
    let [so, _, sh, sw] = four(w.strides);
    let [kh, kw] = s.kernel;
    let turned = Scratch::new(w.numel());
    // SAFETY: elements of the kernels, and room for all of them; the caller's contract.
    unsafe {
        let mut next = turned.ptr();
        for o in 0..s.o {
            let first = w.ptr().offset(o as isize * so);
            for (i, j) in (0..kh).rev().flat_map(|i| (0..kw).rev().map(move |j| (i, j))) {
                *next = *first.offset(i as isize * sh + j as isize * sw);
                next = next.add(1);
            }
        }
        let conv = Depthwise {
            batch: s.n,
            channels: s.c,
            outer: 1,
            size: s.out,
            kernel: s.kernel,
            out: s.size,
            stride: [1; 2],
            dilation: s.params.dilation,
            padding,
            x: gy.ptr(),
            x_strides: four(gy.strides),
            weights: turned.ptr(),
            y: gx,
            y_batch: batch,
            ep: &Epilogue::NONE,
        };
        conv.run();
    }
}

/// For each phase of the stride, the pixels of `gx` of that phase are a convolution
/// of `gy` with the taps that reach them.
///
/// # Safety
/// As for [`input_winograd`].
unsafe fn input_direct(s: &Shape, gy: Src<f32>, w: Src<f32>, gx: *mut f32, batch: usize) {
    let p = &s.params;
    let [h, wd] = s.size;
    let [so, sc, sh, sw] = four(w.strides);
    // Elements of the kernel that reach phase `a` of axis `i`, and from where.
    let taps = |i: usize, a: usize| -> Vec<(usize, isize)> {
        let step = p.stride[i] as isize;
        (0..s.kernel[i])
            .map(|t| (t, (a + p.padding[i]) as isize - (t * p.dilation[i]) as isize))
            .filter(|(_, at)| at % step == 0)
            .map(|(t, at)| (t, at / step))
            .collect()
    };
    let axis =
        |taps: &[(usize, isize)]| Axis::new(&taps.iter().map(|t| t.1).collect::<Vec<_>>(), 1);
    let packed = Scratch::new(2 * w.numel());
    let (plain, packed) = (packed.ptr().wrapping_add(w.numel()), packed.ptr());
    for a in 0..p.stride[0].min(h) {
        for b in 0..p.stride[1].min(wd) {
            let (rows, cols) = (taps(0, a), taps(1, b));
            let k = s.outer * rows.len() * cols.len();
            for g in 0..p.groups {
                let mut next = plain;
                for (c, o) in (0..s.inner).flat_map(|c| (0..s.outer).map(move |o| (c, o))) {
                    let at = (g * s.outer + o) as isize * so + c as isize * sc;
                    let first = w.ptr().wrapping_offset(at);
                    for &(kh, _) in &rows {
                        let row = first.wrapping_offset(kh as isize * sh);
                        for &(kw, _) in &cols {
                            // SAFETY: `plain` holds `inner` rows of `k`; the view was
                            // checked at construction.
                            unsafe {
                                *next = *row.offset(kw as isize * sw);
                                next = next.add(1);
                            }
                        }
                    }
                }
                // SAFETY: as above, and all groups' rows fit into `packed`.
                unsafe { direct::pack(plain, s.inner, k, packed.add(g * s.inner * k)) };
            }
            let sweep = Sweep {
                batch: s.n,
                groups: p.groups,
                outer: s.inner,
                patches: Patches {
                    inner: s.outer,
                    paired: false,
                    x: gy.ptr(),
                    strides: four(gy.strides),
                    size: s.out,
                    out: [(h - a).div_ceil(p.stride[0]), (wd - b).div_ceil(p.stride[1])],
                    axes: [axis(&rows), axis(&cols)],
                },
                weights: packed,
                y: gx.wrapping_add(a * wd + b),
                y_strides: [batch, h * wd, p.stride[0] * wd, p.stride[1]],
                ep: &Epilogue::NONE,
                quads: None,
            };
            // SAFETY: the caller's contract; the phases' pixels lie inside `gx`.
            unsafe { sweep.run() };
        }
    }
}

/// The gradient of the kernels: `gw` of the kernels' shape from the input `x` and
/// `gy` of the output's shape.
///
/// # Panics
/// If shapes do not fit.
pub fn conv2d_weight_grad_f32(x: Src<f32>, gy: Src<f32>, gw: Dst<f32>, p: ConvParams) {
    let s = Shape::new(x.shape, gw.shape, gy.shape, p);
    if s.n * s.o * s.inner == 0 {
        return fill(gw, 0.0);
    }
    dense_output(gw, |gw, gw_row| {
        if s.minimal() && winograd_pays(s.c, s.o, s.out) {
            let tiles = |x: Src<f32>, channels, size, first, side| Tiles {
                x: x.ptr(),
                strides: four(x.strides),
                channels,
                size,
                first,
                side,
            };
            let grad = winograd::WeightGrad {
                n: s.n,
                x: tiles(x, s.c, s.size, p.padding.map(|p| -(p as isize)), IN),
                gy: tiles(gy, s.o, s.out, [0; 2], OUT),
                gw,
                gw_row,
            };
            // SAFETY: the views were checked at construction, their shapes just now.
            unsafe { grad.run() }
        } else {
            let grad = weight::WeightGrad {
                batch: s.n,
                groups: p.groups,
                outer: s.outer,
                patches: s.patches(x.ptr(), four(x.strides)),
                gy: gy.ptr(),
                gy_strides: four(gy.strides),
                gw,
                gw_row,
            };
            // SAFETY: as above.
            unsafe { grad.run() }
        }
    });
}
