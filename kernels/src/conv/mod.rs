//! Two-dimensional convolution, as deep learning means it (cross-correlation):
//! images `x` of shape `[n, c, h, w]`, kernels `w` of `[o, c / groups, kh, kw]`,
//! output `y` of `[n, o, oh, ow]`, and
//!
//! `y[n, o, i, j] = Σ x[n, c, i s + a d - p, j s + b d - p] w[o, c, a, b]`
//!
//! over the channels of `o`'s group and the kernel's elements, with stride `s`,
//! dilation `d` and padding `p` per axis; pixels outside an image are zero.
//!
//! Sums are chains of fused multiply-adds over (channel, kernel row, kernel column),
//! whatever the strides, number of threads or instruction set; except that 3 x 3
//! kernels with enough channels go through the minimal filtering algorithm, which
//! has an order of its own.
//!
//! Images may also lie with their channels side by side ("channels last", NHWC): more
//! kernels read and write them so, [`ConvKernel::PixelRows`] with its forms of less exact
//! numbers and [`ConvKernel::DepthwiseLanes`], whose chains go over (kernel row, kernel
//! column, channel). The compiler chooses between the layouts.

mod depthwise;
mod direct;
mod exact;
mod grad;
mod lanes;
mod patches;
mod quads;
mod rows;
mod stage;
mod transform;
mod units;
mod weight;
mod winograd;

pub use exact::{conv2d_f64, conv2d_input_grad_f64, conv2d_weight_grad_f64};
pub use grad::{conv2d_input_grad_f32, conv2d_weight_grad_f32};

use crate::copy::copy;
use crate::gemm::driver::{Lhs, Out, Product, Rhs};
use crate::gemm::kernel::{Kernel, Scales};
use crate::gemm::quads::{Tail, Tiles};
use crate::gemm::units::Units;
use crate::gemm::{self, Affine, Epilogue, LONGEST_INT8};
use crate::scratch::{Dense, Scratch};
use crate::view::{Dst, Src, is_contiguous};
use depthwise::Depthwise;
use direct::Sweep;
use patches::{Axis, Patches};
use transform::{Kernels, OUT};

/// Stride, zero padding (on both sides) and dilation along rows and columns, and
/// number of groups.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub struct ConvParams {
    /// Distance of outputs in the input.
    pub stride: [usize; 2],
    /// Zeros on each side of the input.
    pub padding: [usize; 2],
    /// Distance of the kernel's elements in the input.
    pub dilation: [usize; 2],
    /// Groups that channels of input and output are divided into.
    pub groups: usize,
}

impl Default for ConvParams {
    fn default() -> ConvParams {
        ConvParams { stride: [1; 2], padding: [0; 2], dilation: [1; 2], groups: 1 }
    }
}

impl ConvParams {
    /// Rows and columns of the output, `(size + 2 p - d (k - 1) - 1) / s + 1` rounded
    /// down; `None` if the kernel does not fit or is empty.
    pub fn output_size(&self, input: [usize; 2], kernel: [usize; 2]) -> Option<[usize; 2]> {
        let axis = |i: usize| {
            let span = kernel[i].checked_sub(1)?.checked_mul(self.dilation[i])?;
            let room = input[i].checked_add(self.padding[i].checked_mul(2)?)?;
            Some(room.checked_sub(span)?.checked_sub(1)? / self.stride[i] + 1)
        };
        Some([axis(0)?, axis(1)?])
    }
}

/// How a convolution with constant kernels is computed. Depends on sizes alone, so
/// that kernels packed on one machine serve another.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
#[repr(u32)]
pub enum ConvKernel {
    /// A matrix product for each image: 1 x 1 kernels, stride 1, no padding.
    Pointwise = 0,
    /// A matrix product over channels and taps, read from the image where they lie.
    Direct = 1,
    /// Minimal filtering F(4 x 4, 3 x 3).
    Winograd = 2,
    /// Each channel by itself: groups of one channel of the input.
    Depthwise = 3,
    /// Channels last: a matrix product with a row for each pixel.
    PixelRows = 4,
    /// Channels last: each channel by itself, sixteen at a time.
    DepthwiseLanes = 5,
    /// [`ConvKernel::Direct`] over pairs of channels, both factors rounded to bf16.
    Pairs = 6,
    /// [`ConvKernel::PixelRows`], both factors rounded to bf16.
    PixelRowPairs = 7,
    /// [`ConvKernel::PixelRows`], both factors split in two of bf16.
    PixelRowSplits = 8,
    /// [`ConvKernel::Direct`] over quads of channels, both factors integers of eight bits.
    Quads = 9,
    /// [`ConvKernel::PixelRows`], both factors integers of eight bits.
    PixelRowQuads = 10,
}

/// All of them, by their numbers.
const KERNELS: [ConvKernel; 11] = {
    use ConvKernel::*;
    [
        Pointwise,
        Direct,
        Winograd,
        Depthwise,
        PixelRows,
        DepthwiseLanes,
        Pairs,
        PixelRowPairs,
        PixelRowSplits,
        Quads,
        PixelRowQuads,
    ]
};

/// The axes of images from the outermost in memory to the innermost where channels lie
/// side by side.
pub const CHANNELS_LAST: [usize; 4] = [0, 2, 3, 1];

impl ConvKernel {
    /// Chooses for images of shape `[c, h, w]` and kernels of `[o, c / groups, kh, kw]`.
    pub fn choose(x: [usize; 3], w: [usize; 4], p: ConvParams) -> ConvKernel {
        match p.output_size([x[1], x[2]], [w[2], w[3]]) {
            Some(_) if ConvKernel::Pointwise.fits(w, p) => ConvKernel::Pointwise,
            Some(_) if ConvKernel::Depthwise.fits(w, p) && depthwise_pays(w, p) => {
                ConvKernel::Depthwise
            }
            Some(out) if ConvKernel::Winograd.fits(w, p) && winograd_pays(w[1], w[0], out) => {
                ConvKernel::Winograd
            }
            _ => ConvKernel::Direct,
        }
    }

    /// Chooses for images whose channels lie side by side; `None` where there is no
    /// kernel for them.
    pub fn choose_last(w: [usize; 4], p: ConvParams) -> Option<ConvKernel> {
        use ConvKernel::*;
        [DepthwiseLanes, PixelRows].into_iter().find(|k| k.fits(w, p))
    }

    /// Whether input and output have their channels side by side.
    pub fn channels_last(self) -> bool {
        use ConvKernel::*;
        matches!(self, PixelRows | PixelRowPairs | PixelRowSplits | PixelRowQuads | DepthwiseLanes)
    }

    /// Whether it computes with integers of eight bits: its kernels are packed by
    /// [`ConvKernel::pack_integers`].
    pub fn integers(self) -> bool {
        matches!(self, ConvKernel::Quads | ConvKernel::PixelRowQuads)
    }

    /// Whether the input may have any layout, for kernels of that shape, and still
    /// cost no copy.
    pub fn any_input(self, w: [usize; 4]) -> bool {
        match self {
            ConvKernel::PixelRows => rows::takes_planes(w[1]),
            // What is converted is turned on the way.
            _ => self != ConvKernel::DepthwiseLanes,
        }
    }

    /// [`ConvKernel::choose`] where both factors may be rounded to bf16. Minimal
    /// filtering stays in f32: its sums cancel, and would lose what rounding left. Where
    /// it is of most use it is the faster one still.
    pub fn choose_bf16(x: [usize; 3], w: [usize; 4], p: ConvParams) -> ConvKernel {
        let kernel = ConvKernel::choose(x, w, p);
        let pays = match kernel {
            ConvKernel::Pointwise | ConvKernel::Direct => true,
            ConvKernel::Winograd => {
                let out = p.output_size([x[1], x[2]], [w[2], w[3]]);
                let tiles = out.map_or(0, |[h, w]| h.div_ceil(OUT) * w.div_ceil(OUT));
                // Transforms cost as much as the products, or kernels are read once for
                // a few tiles.
                w[0].min(w[1]) < 32 || tiles < 8
            }
            _ => false,
        };
        // A lone channel would be paired with nothing.
        if pays && w[1] >= 2 { ConvKernel::Pairs } else { kernel }
    }

    /// Whether it can compute convolutions with kernels of this shape.
    pub fn fits(self, w: [usize; 4], p: ConvParams) -> bool {
        let unit = p.stride == [1; 2] && p.dilation == [1; 2] && p.groups == 1;
        match self {
            ConvKernel::Pointwise => unit && [w[2], w[3]] == [1; 2] && p.padding == [0; 2],
            ConvKernel::Direct | ConvKernel::Pairs => true,
            ConvKernel::Winograd => unit && [w[2], w[3]] == [3; 2],
            ConvKernel::Depthwise => w[1] == 1 && p.stride[1] <= depthwise::STRIDE,
            ConvKernel::PixelRows | ConvKernel::PixelRowPairs | ConvKernel::PixelRowSplits => {
                p.groups == 1
            }
            ConvKernel::Quads | ConvKernel::PixelRowQuads => {
                // Sums of more may leave 32 bits.
                let fits = w[1..].iter().try_fold(1usize, |n, &d| n.checked_mul(d));
                (self == ConvKernel::Quads || p.groups == 1)
                    && fits.is_some_and(|n| n <= LONGEST_INT8)
            }
            // One channel that is its own group is an ordinary image.
            ConvKernel::DepthwiseLanes => w[1] == 1 && p.groups == w[0] && w[0] > 1,
        }
    }

    /// A number for files.
    pub fn number(self) -> u32 {
        self as u32
    }

    /// The kernel of that number.
    pub fn from_number(number: u32) -> Option<ConvKernel> {
        KERNELS.into_iter().find(|k| k.number() == number)
    }

    /// Number of floats of packed kernels of shape `[o, c / groups, kh, kw]`.
    pub fn packed_len(self, w: [usize; 4]) -> usize {
        match self {
            ConvKernel::Pointwise | ConvKernel::Direct | ConvKernel::Depthwise => {
                w.iter().product()
            }
            ConvKernel::Winograd => winograd::kernels_len(w[0], w[1]),
            ConvKernel::PixelRows => rows::packed_len(w),
            ConvKernel::DepthwiseLanes => lanes::packed_len(w),
            ConvKernel::PixelRowPairs => units::packed_len_pairs(w),
            ConvKernel::PixelRowSplits => units::packed_len_split(w),
            ConvKernel::PixelRowQuads => units::packed_len_quads(w),
            ConvKernel::Quads => quads::packed_len(w),
            ConvKernel::Pairs => w[0] * w[1].div_ceil(2) * w[2] * w[3],
        }
    }

    /// Packs kernels for [`ConvKernel::run_packed`]; the layout is the same for every
    /// instruction set.
    ///
    /// # Panics
    /// If `out` does not hold [`ConvKernel::packed_len`] floats, the kernels do not fit the
    /// parameters, or they are to be [`integers`](ConvKernel::integers).
    pub fn pack_weights(self, w: Src<f32>, p: ConvParams, out: &mut [f32]) {
        assert!(!self.integers(), "integers are packed with what they stand for");
        let shape = self.check_packed(w.shape, p, out.len());
        let [o, inner, kh, kw] = shape;
        if out.is_empty() {
            return;
        }
        match self {
            ConvKernel::PixelRows => {
                return rows::pack(w, rows::takes_planes(inner), out, gemm::pack_b);
            }
            ConvKernel::PixelRowPairs => return units::pack(w, out, gemm::pack_b_bf16),
            ConvKernel::PixelRowSplits => return units::pack(w, out, gemm::pack_b_bf16x3),
            ConvKernel::DepthwiseLanes => return lanes::pack(w, out),
            _ => {}
        }
        let plain = Dense::copy_of(w);
        let plain = plain.as_ref().map_or(w, Dense::src);
        // SAFETY: the view was checked at construction, `out` just now; groups follow
        // each other in both.
        unsafe {
            match self {
                ConvKernel::Pointwise | ConvKernel::Depthwise => {
                    std::ptr::copy_nonoverlapping(plain.ptr(), out.as_mut_ptr(), out.len());
                }
                ConvKernel::Direct => {
                    let (outer, k) = (o / p.groups, inner * kh * kw);
                    for at in (0..o).step_by(outer).map(|row| row * k) {
                        direct::pack(plain.ptr().add(at), outer, k, out.as_mut_ptr().add(at));
                    }
                }
                ConvKernel::Pairs => {
                    let (outer, taps) = (o / p.groups, kh * kw);
                    let (from, to) = (inner * taps, inner.div_ceil(2) * taps);
                    for first in (0..o).step_by(outer) {
                        let to = out.as_mut_ptr().add(first * to);
                        direct::pack_pairs(plain.ptr().add(first * from), [outer, inner, taps], to);
                    }
                }
                ConvKernel::Winograd => {
                    let strides = std::array::from_fn(|d| w.strides[d]);
                    winograd::pack(Kernels { ptr: w.ptr(), strides }, o, inner, out.as_mut_ptr());
                }
                _ => unreachable!("packed above"),
            }
        }
    }

    /// [`ConvKernel::pack_weights`] for [integers](ConvKernel::integers), of images whose
    /// numbers `x` covers. Each output channel has a scale of its own: see
    /// [`gemm_packed_int8`](crate::gemm::gemm_packed_int8).
    ///
    /// # Panics
    /// As there, or if it computes with other numbers.
    pub fn pack_integers(self, w: Src<f32>, x: Affine, p: ConvParams, out: &mut [f32]) {
        self.check_packed(w.shape, p, out.len());
        match self {
            ConvKernel::Quads => quads::pack(w, x, p, out),
            ConvKernel::PixelRowQuads => units::pack_quads(w, x, out),
            _ => panic!("{self:?} does not compute with integers"),
        }
    }

    /// The shape of kernels that are packed to so many floats.
    fn check_packed(self, w: &[usize], p: ConvParams, len: usize) -> [usize; 4] {
        let shape = kernel_shape(w);
        assert_eq!(len, self.packed_len(shape), "packed kernels have a size");
        assert!(self.fits(shape, p), "{self:?} does not compute {p:?}");
        let groups = p.groups > 0 && shape[0].is_multiple_of(p.groups);
        assert!(groups, "groups divide the output channels");
        shape
    }

    /// `y = act(conv(x, w) + bias)` with kernels of shape `w_shape` packed for this
    /// `ConvKernel`. Integers are summed up exactly; biases and results are f32 always. Seen by the epilogue, an image of `y` is a matrix of channels by
    /// pixels: a bias per channel is `bias_row`. With channels last, a hook sees the
    /// whole of `y` as one matrix of pixels by channels.
    ///
    /// # Panics
    /// If shapes do not fit, if there is a column bias, or if there is a hook and
    /// images of `y` (with channels last, `y` as a whole) are not dense.
    pub fn run_packed(
        self,
        x: Src<f32>,
        packed: &[f32],
        w_shape: &[usize],
        y: Dst<f32>,
        p: ConvParams,
        ep: &Epilogue,
    ) {
        let s = Shape::new(x.shape, w_shape, y.shape, p);
        let w_shape = kernel_shape(w_shape);
        assert_eq!(packed.len(), self.packed_len(w_shape), "packed kernels have a size");
        assert!(self.fits(w_shape, p), "{self:?} does not compute {p:?}");
        assert!(ep.bias_col.is_none(), "a convolution has no bias per pixel");
        ep.check(s.o, s.out[0] * s.out[1]);
        if self.channels_last() {
            return self.run_last(&s, x, packed, y, ep, None);
        }
        assert!(ep.hook.is_none() || dense_images(y.shape, y.strides), "a hook needs dense images");
        if self == ConvKernel::Quads {
            return quads::run(&s, x, packed, y, ep, Tiles::active());
        }
        // A product takes pixels that are equally far apart.
        let flat = x.strides[2] == s.size[1] as isize * x.strides[3] || s.size[0] == 1;
        let dense = if self == ConvKernel::Pointwise && !flat { Dense::copy_of(x) } else { None };
        let x = dense.as_ref().map_or(x, Dense::src);
        dense_output(y, |y, batch| {
            let strides = std::array::from_fn(|d| x.strides[d]);
            // SAFETY: the views were checked at construction, their shapes and the
            // length of the packed kernels just now.
            unsafe { self.run(&s, x.ptr(), strides, packed.as_ptr(), y, batch, ep) }
        });
    }

    /// What the best units of this machine are.
    fn units(self, packed: &[f32], o: usize) -> Units {
        match self {
            ConvKernel::PixelRowPairs => Units::pairs(),
            ConvKernel::PixelRowSplits => Units::split(),
            _ => Units::quads(Tail::read(packed, o)),
        }
    }

    /// [`ConvKernel::run_packed`] for images whose channels lie side by side, by the best
    /// units, unless others are given.
    fn run_last(
        self,
        s: &Shape,
        x: Src<f32>,
        packed: &[f32],
        y: Dst<f32>,
        ep: &Epilogue,
        units: Option<Units>,
    ) {
        let [yn, yo, yh, yw] = [0, 1, 2, 3].map(|d| y.shape[d]);
        let (shape, strides) = ([yn, yh, yw, yo], CHANNELS_LAST.map(|d| y.strides[d]));
        let dense = is_contiguous(&shape, &strides);
        assert!(ep.hook.is_none() || dense, "a hook needs a dense output");
        let room = (!dense).then(|| Dense::new::<f32>(&shape));
        let to = room.as_ref().map_or(y.ptr(), |d| d.dst::<f32>().ptr());
        let side_by_side = x.strides[1] == 1 || s.c == 1;
        let x_shape = [s.n, s.size[0], s.size[1], s.c];
        let turned = (!side_by_side && !self.any_input([s.o, s.inner, s.kernel[0], s.kernel[1]]))
            .then(|| {
                let turned = Dense::new::<f32>(&x_shape);
                let from = CHANNELS_LAST.map(|d| x.strides[d]);
                copy(x.seen(&x_shape, &from), turned.dst());
                turned
            });
        let (x_ptr, x_strides) = match &turned {
            Some(t) => {
                let [n, h, w, c] = [0, 1, 2, 3].map(|d| t.src::<f32>().strides[d]);
                (t.src::<f32>().ptr(), [n, c, h, w])
            }
            None => (x.ptr(), std::array::from_fn(|d| x.strides[d])),
        };
        let y_ptr = to;
        // SAFETY: the views were checked at construction, their shapes and the length of
        // the packed kernels by the caller.
        unsafe {
            match self {
                ConvKernel::PixelRows => {
                    rows::Conv { s, x: x_ptr, x_strides, packed, y: y_ptr, ep }.run()
                }
                ConvKernel::PixelRowPairs
                | ConvKernel::PixelRowSplits
                | ConvKernel::PixelRowQuads => {
                    let units = units.unwrap_or_else(|| self.units(packed, s.o));
                    units::Conv { s, x: x_ptr, x_strides, packed, units, y: y_ptr, ep }.run()
                }
                _ => {
                    let [n, _, h, w] = x_strides;
                    let packed = packed.as_ptr();
                    lanes::Conv { s, x: x_ptr, x_strides: [n, h, w], packed, y: y_ptr, ep }.run()
                }
            }
        }
        if let Some(room) = &room {
            copy(room.src::<f32>(), y.seen(&shape, &strides));
        }
    }

    /// # Safety
    /// Input and kernels are readable, and the output, dense images `batch` apart, is
    /// writable, at the extents of `s`; the output overlaps nothing.
    unsafe fn run(
        self,
        s: &Shape,
        x: *const f32,
        x_strides: [isize; 4],
        packed: *const f32,
        y: *mut f32,
        batch: usize,
        ep: &Epilogue,
    ) {
        let p = &s.params;
        let pixels = s.out[0] * s.out[1];
        match self {
            ConvKernel::Pointwise => {
                let product = Product {
                    batch: s.n,
                    m: s.o,
                    k: s.c,
                    n: pixels,
                    a: Lhs { ptr: packed, strides: [0, s.c as isize, 1] },
                    b: Rhs::Strided(x, [x_strides[0], x_strides[1], x_strides[3]]),
                    c: Out { ptr: y, batch: batch as isize, ld: pixels as isize },
                    accumulate: false,
                    ep,
                    kernel: Kernel::active(),
                    scales: Scales::NONE,
                };
                // SAFETY: the caller's contract.
                unsafe { product.run() }
            }
            ConvKernel::Direct | ConvKernel::Pairs => {
                let paired = self == ConvKernel::Pairs;
                let sweep = Sweep {
                    batch: s.n,
                    groups: p.groups,
                    outer: s.outer,
                    patches: Patches { paired, ..s.patches(x, x_strides) },
                    weights: packed,
                    y,
                    y_strides: [batch, pixels, s.out[1], 1],
                    ep,
                    quads: None,
                };
                // SAFETY: the caller's contract.
                unsafe { sweep.run() }
            }
            ConvKernel::Depthwise => {
                let conv = Depthwise {
                    batch: s.n,
                    channels: s.c,
                    outer: s.outer,
                    size: s.size,
                    kernel: s.kernel,
                    out: s.out,
                    stride: p.stride,
                    dilation: p.dilation,
                    padding: p.padding,
                    x,
                    x_strides,
                    weights: packed,
                    y,
                    y_batch: batch,
                    ep,
                };
                // SAFETY: the caller's contract.
                unsafe { conv.run() }
            }
            ConvKernel::Winograd => {
                let conv = winograd::Conv {
                    n: s.n,
                    c: s.c,
                    o: s.o,
                    input: s.size,
                    output: s.out,
                    padding: p.padding.map(|p| p as isize),
                    x,
                    x_strides,
                    u: packed,
                    y,
                    y_batch: batch as isize,
                    ep,
                };
                // SAFETY: the caller's contract.
                unsafe { conv.run() }
            }
            _ => unreachable!("channels last run elsewhere"),
        }
    }
}

/// `y = act(conv(x, w) + bias)` with what else the epilogue does: chooses the algorithm, packs the kernels and runs.
///
/// # Panics
/// As [`ConvKernel::run_packed`].
pub fn conv2d_f32(x: Src<f32>, w: Src<f32>, y: Dst<f32>, p: ConvParams, ep: &Epilogue) {
    let s = Shape::new(x.shape, w.shape, y.shape, p);
    let w_shape = kernel_shape(w.shape);
    let kernel = match ConvKernel::choose([s.c, s.size[0], s.size[1]], w_shape, p) {
        // Packing for a single use has to pay, too.
        ConvKernel::Winograd if s.n * s.out[0] * s.out[1] < PIXELS_TO_PACK => ConvKernel::Direct,
        kernel => kernel,
    };
    let len = kernel.packed_len(w_shape);
    let packed = Scratch::new(len);
    // SAFETY: the scratch holds so many floats, and nobody else has it.
    let packed = unsafe { std::slice::from_raw_parts_mut(packed.ptr(), len) };
    kernel.pack_weights(w, p, packed);
    kernel.run_packed(x, packed, w.shape, y, p, ep);
}

/// Outputs per kernel from which transforming a kernel for one use pays.
const PIXELS_TO_PACK: usize = 300;

/// Whether channels by themselves beat a product. With more outputs for a channel, a
/// product reads it once for all of them, which is worth its while where there are many
/// taps, or little else is to be gained as with strides (as measured with 2 to 64 outputs
/// for a channel of 28² to 224² pixels).
fn depthwise_pays(w: [usize; 4], p: ConvParams) -> bool {
    let small = w[2] * w[3] <= 9;
    w[0] <= p.groups || small && (p.stride == [1; 2] || w[0] <= 2 * p.groups)
}

/// Whether minimal filtering beats the direct sum for 3 x 3 kernels.
fn winograd_pays(c: usize, o: usize, out: [usize; 2]) -> bool {
    let tiles = out[0].div_ceil(OUT) * out[1].div_ceil(OUT);
    // Fewer channels than a vector waste its lanes; tiles over the edge are waste.
    c >= 16 && o >= 16 && tiles >= 4 && 16 * tiles <= 2 * out[0] * out[1]
}

/// The sizes of a convolution, checked.
#[derive(Clone, Copy, Debug)]
struct Shape {
    n: usize,
    c: usize,
    o: usize,
    /// Rows and columns of input, kernel and output.
    size: [usize; 2],
    kernel: [usize; 2],
    out: [usize; 2],
    /// Channels of input and output in a group.
    inner: usize,
    outer: usize,
    params: ConvParams,
}

impl Shape {
    fn new(x: &[usize], w: &[usize], y: &[usize], p: ConvParams) -> Shape {
        let (&[n, c, h, wd], &[o, inner, kh, kw], &[yn, yo, oh, ow]) = (x, w, y) else {
            panic!("images and kernels have four dimensions");
        };
        let g = p.groups;
        assert!(
            g > 0 && p.stride.iter().chain(&p.dilation).all(|&v| v > 0),
            "{p:?} is no convolution"
        );
        assert!(c == g * inner && o.is_multiple_of(g), "groups divide the channels");
        assert_eq!((yn, yo), (n, o), "the output has the batch and the kernels");
        let out = p.output_size([h, wd], [kh, kw]).expect("the kernel fits into the image");
        assert_eq!(out, [oh, ow], "the output has the size that the parameters give");
        let (size, kernel) = ([h, wd], [kh, kw]);
        Shape { n, c, o, size, kernel, out, inner, outer: o / g, params: p }
    }

    /// What the outputs read of an input.
    fn patches(&self, x: *const f32, strides: [isize; 4]) -> Patches {
        let p = &self.params;
        let axis = |i: usize| {
            let base = |t: usize| (t * p.dilation[i]) as isize - p.padding[i] as isize;
            Axis::new(&(0..self.kernel[i]).map(base).collect::<Vec<_>>(), p.stride[i])
        };
        let (inner, size, out) = (self.inner, self.size, self.out);
        let axes = [axis(0), axis(1)];
        Patches { inner, paired: false, x, strides, size, out, axes }
    }
}

fn kernel_shape(w: &[usize]) -> [usize; 4] {
    w.try_into().expect("kernels have four dimensions")
}

fn dense_images(shape: &[usize], strides: &[isize]) -> bool {
    is_contiguous(&shape[1..], &strides[1..]) && (shape[0] <= 1 || strides[0] >= 0)
}

/// Runs `f` with dense images to write, and the distance between them: the output
/// itself, or scratch that is then copied.
fn dense_output(y: Dst<f32>, f: impl FnOnce(*mut f32, usize)) {
    if dense_images(y.shape, y.strides) {
        return f(y.ptr(), if y.shape[0] > 1 { y.strides[0] as usize } else { 0 });
    }
    let dense = Dense::new::<f32>(y.shape);
    f(dense.dst::<f32>().ptr(), y.shape[1..].iter().product());
    copy(dense.src::<f32>(), y);
}

#[cfg(test)]
mod tests;
