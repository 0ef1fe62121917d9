use super::*;
use crate::gemm::{Act, Tile};
use crate::testing::{FAR, Operand, assert_close, noise, noise32, same_everywhere};
use crate::view::numel;
use proptest::prelude::*;
use std::sync::Mutex;

/// A convolution's sizes.
#[derive(Clone, Copy, Debug)]
struct Case {
    n: usize,
    inner: usize,
    outer: usize,
    size: [usize; 2],
    kernel: [usize; 2],
    params: ConvParams,
}

impl Case {
    fn x(&self) -> [usize; 4] {
        [self.n, self.params.groups * self.inner, self.size[0], self.size[1]]
    }

    fn w(&self) -> [usize; 4] {
        [self.params.groups * self.outer, self.inner, self.kernel[0], self.kernel[1]]
    }

    fn y(&self) -> Option<[usize; 4]> {
        let [h, w] = self.params.output_size(self.size, self.kernel)?;
        Some([self.n, self.params.groups * self.outer, h, w])
    }
}

/// Calls `f` with the positions, in row-major order, of an input, a kernel element and
/// the output to which their product belongs.
fn products(c: &Case, mut f: impl FnMut(usize, usize, usize)) {
    let ([_, channels, h, w], [_, inner, kh, kw], [n, outputs, oh, ow]) =
        (c.x(), c.w(), c.y().unwrap());
    let p = c.params;
    let pixel = |d: usize, out: usize, tap: usize| {
        let at = out * p.stride[d] + tap * p.dilation[d];
        at.checked_sub(p.padding[d]).filter(|&v| v < c.size[d])
    };
    let pairs = |a: usize, b: usize| (0..a).flat_map(move |i| (0..b).map(move |j| (i, j)));
    for (image, o) in pairs(n, outputs) {
        for (oi, ki) in pairs(oh, kh) {
            let Some(i) = pixel(0, oi, ki) else { continue };
            for (oj, kj) in pairs(ow, kw) {
                let Some(j) = pixel(1, oj, kj) else { continue };
                for channel in 0..inner {
                    let x = image * channels + o / c.outer * inner + channel;
                    let k = ((o * inner + channel) * kh + ki) * kw + kj;
                    f((x * h + i) * w + j, k, ((image * outputs + o) * oh + oi) * ow + oj);
                }
            }
        }
    }
}

/// Output, input gradient and kernel gradient in double precision.
fn plain(c: &Case, x: &[f64], w: &[f64], gy: &[f64]) -> [Vec<f64>; 3] {
    let (mut y, mut gx, mut gw) = (vec![0.0; gy.len()], vec![0.0; x.len()], vec![0.0; w.len()]);
    products(c, |i, k, o| {
        y[o] += x[i] * w[k];
        gx[i] += gy[o] * w[k];
        gw[k] += gy[o] * x[i];
    });
    [y, gx, gw]
}

fn wide(v: &[f32]) -> Vec<f64> {
    v.iter().map(|&v| v.into()).collect()
}

/// Within `tolerance` of the largest value of `want`, element by element.
#[track_caller]
fn assert_near(got: &[f32], want: &[f64], tolerance: f64, what: &str) {
    let scale = want.iter().fold(1.0f64, |m, v| m.max(v.abs()));
    for (i, (&g, w)) in got.iter().zip(want).enumerate() {
        assert!((f64::from(g) - w).abs() <= tolerance * scale, "{what}: {g} for {w} at {i}");
    }
}

/// A kernel's weights as it wants them.
fn packed(kernel: ConvKernel, c: &Case, w: &Operand<f32>) -> Vec<f32> {
    let mut packed = vec![0.0; kernel.packed_len(c.w())];
    kernel.pack_weights(w.src(), c.params, &mut packed);
    packed
}

/// Sums with what an epilogue does: a bias for each channel, nothing below zero, and nothing
/// above `most`.
fn finished(sums: &[f64], y_shape: [usize; 4], bias: &[f32], most: f64) -> Vec<f64> {
    let pixels = y_shape[2] * y_shape[3];
    let of = |i: usize| f64::from(bias[i / pixels % y_shape[1]]);
    sums.iter().enumerate().map(|(i, v)| (v + of(i)).clamp(0.0, most)).collect()
}

/// All passes in both precisions against the plain sums, with layouts of this style.
fn check(c: &Case, style: u64) {
    let Some(y_shape) = c.y() else { return };
    let (x_shape, w_shape, p) = (c.x(), c.w(), c.params);
    let [x, w, gy] = [(x_shape, 1), (w_shape, 2), (y_shape, 3)]
        .map(|(shape, seed)| noise32(numel(&shape), seed + style));
    let [y, gx, gw] = plain(c, &wide(&x), &wide(&w), &wide(&gy));

    let bias = noise32(w_shape[0], 4);
    // Some results are larger, but errors still small beside the largest.
    let most = 0.8 * y.iter().fold(1.0f64, |m, v| m.max(*v)) as f32;
    let y = finished(&y, y_shape, &bias, most.into());
    let ep = Epilogue { bias_row: Some(&bias), act: Act::Relu, most: Some(most), ..Epilogue::NONE };
    let [ox, ow, ogy] = [(&x, x_shape), (&w, w_shape), (&gy, y_shape)]
        .map(|(v, shape)| Operand::new(&shape, style, v));
    let got = same_everywhere(|| {
        let out = Operand::zeros(&y_shape, style);
        conv2d_f32(ox.src(), ow.src(), out.dst(), p, &ep);
        out.values()
    });
    assert_near(&got, &y, 4e-6, "output");
    let last = |shape: [usize; 4]| match style {
        0 => Operand::ordered(&shape, &CHANNELS_LAST),
        _ => Operand::zeros(&shape, style),
    };
    if let Some(kernel) = ConvKernel::choose_last(w_shape, p) {
        let ox = last(x_shape);
        ox.set(&x);
        let got = same_everywhere(|| {
            let packed = packed(kernel, c, &ow);
            let out = last(y_shape);
            kernel.run_packed(ox.src(), &packed, &w_shape, out.dst(), p, &ep);
            out.values()
        });
        assert_near(&got, &y, 4e-6, "output, channels last");
    }
    let got = same_everywhere(|| {
        let out = Operand::zeros(&x_shape, style);
        conv2d_input_grad_f32(ogy.src(), ow.src(), out.dst(), p);
        out.values()
    });
    assert_near(&got, &gx, 4e-6, "input gradient");
    let got = same_everywhere(|| {
        let out = Operand::zeros(&w_shape, style);
        conv2d_weight_grad_f32(ox.src(), ogy.src(), out.dst(), p);
        out.values()
    });
    assert_near(&got, &gw, 4e-6, "kernel gradient");
}

fn case(
    [n, groups, inner, outer]: [usize; 4],
    size: [usize; 2],
    kernel: [usize; 2],
    [stride, padding, dilation]: [[usize; 2]; 3],
) -> Case {
    let params = ConvParams { stride, padding, dilation, groups };
    Case { n, inner, outer, size, kernel, params }
}

const UNIT: [[usize; 2]; 3] = [[1; 2], [0; 2], [1; 2]];

#[test]
fn typical_convolutions() {
    let same = [[1; 2], [1; 2], [1; 2]];
    for c in [
        // A digit classifier's two, then minimal filtering with ragged edges.
        case([5, 1, 1, 32], [28; 2], [3; 2], UNIT),
        case([2, 1, 32, 64], [26; 2], [3; 2], UNIT),
        case([3, 1, 17, 35], [13, 15], [3; 2], same),
        case([1, 1, 64, 16], [9, 30], [3; 2], [[1; 2], [2, 0], [1; 2]]),
        // Pointwise, with and without a stride; depthwise; a stem.
        case([2, 1, 19, 50], [7, 11], [1; 2], UNIT),
        case([2, 1, 9, 10], [8, 7], [1; 2], [[2; 2], [0; 2], [1; 2]]),
        case([2, 21, 1, 1], [14; 2], [3; 2], same),
        case([2, 5, 1, 2], [14; 2], [5; 2], [[2; 2], [2; 2], [1; 2]]),
        case([1, 3, 1, 1], [90, 101], [3; 2], same),
        case([1, 2, 1, 1], [112; 2], [3; 2], [[2; 2], [1; 2], [1; 2]]),
        case([3, 4, 1, 1], [7; 2], [5; 2], [[1; 2], [2; 2], [1; 2]]),
        case([1, 3, 1, 2], [33, 40], [5; 2], [[2; 2], [2; 2], [1; 2]]),
        case([2, 3, 1, 1], [9, 20], [3, 5], [[2, 1], [3, 4], [2, 3]]),
        case([2, 1, 3, 20], [37, 41], [7; 2], [[2; 2], [3; 2], [1; 2]]),
        // Groups, dilation, an image larger than a unit of the kernel gradient.
        case([3, 4, 6, 10], [12, 9], [3; 2], [[1; 2], [2; 2], [2; 2]]),
        case([1, 1, 2, 5], [60, 70], [3; 2], same),
        // A stride that leaves pixels out, and rows as long as a kernel's reach.
        case([1, 1, 3, 4], [11, 13], [2; 2], [[3, 4], [0; 2], [1; 2]]),
        case([2, 1, 2, 3], [6, 2], [3, 3], [[2, 1], [1, 1], [1; 2]]),
        case([0, 1, 3, 4], [6, 6], [3, 3], UNIT),
        case([2, 1, 0, 3], [6, 6], [3, 3], UNIT),
        case([2, 1, 3, 0], [6, 6], [3, 3], UNIT),
    ] {
        for style in [0, 7, FAR] {
            check(&c, style);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]
    #[test]
    fn any_convolution(
        n in 1usize..3, groups in 1usize..4, inner in 1usize..5, outer in 1usize..12,
        size in [1usize..20, 1usize..24], kernel in [1usize..5, 1usize..5],
        stride in [1usize..4, 1usize..4], padding in [0usize..3, 0usize..3],
        dilation in [1usize..3, 1usize..3], style in 0u64..16,
    ) {
        check(&case([n, groups, inner, outer], size, kernel, [stride, padding, dilation]), style);
    }

    #[test]
    fn double_precision_is_exact_enough(
        n in 0usize..3, groups in 1usize..4, inner in 1usize..4, outer in 1usize..4,
        size in [1usize..9, 1usize..9], kernel in [1usize..4, 1usize..4],
        stride in [1usize..4, 1usize..4], padding in [0usize..3, 0usize..3],
        dilation in [1usize..3, 1usize..3], style in 0u64..16,
    ) {
        let c = case([n, groups, inner, outer], size, kernel, [stride, padding, dilation]);
        let Some(y_shape) = c.y() else { return Ok(()) };
        let (x_shape, w_shape, p) = (c.x(), c.w(), c.params);
        let (x, w, gy) =
            (noise(numel(&x_shape), 1), noise(numel(&w_shape), 2), noise(numel(&y_shape), 3));
        let [y, gx, gw] = plain(&c, &x, &w, &gy);
        let [ox, ow, ogy] = [(&x, x_shape), (&w, w_shape), (&gy, y_shape)]
            .map(|(v, shape)| Operand::new(&shape, style, v));
        let [ry, rx, rw] = [y_shape, x_shape, w_shape].map(|shape| Operand::zeros(&shape, style));
        conv2d_f64(ox.src(), ow.src(), ry.dst(), p);
        conv2d_input_grad_f64(ogy.src(), ow.src(), rx.dst(), p);
        conv2d_weight_grad_f64(ox.src(), ogy.src(), rw.dst(), p);
        assert_close(&ry.values(), &y, 1e-12);
        assert_close(&rx.values(), &gx, 1e-12);
        assert_close(&rw.values(), &gw, 1e-12);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]
    #[test]
    fn any_minimal_filtering(
        n in 1usize..3, inner in 16usize..36, outer in 16usize..36,
        size in [6usize..14, 6usize..18], padding in [0usize..4, 0usize..4], style in 0u64..16,
    ) {
        check(&case([n, 1, inner, outer], size, [3; 2], [[1; 2], padding, [1; 2]]), style);
    }
}

/// With normal data, minimal filtering is as accurate as the error bound in
/// [`winograd`] says.
#[test]
fn minimal_filtering_is_accurate() {
    let c = case([1, 1, 256, 16], [18; 2], [3; 2], UNIT);
    let normal = |n: usize, seed: u64| -> Vec<f32> {
        let parts: Vec<Vec<f64>> = (0..6).map(|k| noise(n, seed + k)).collect();
        (0..n).map(|i| (parts.iter().map(|p| p[i]).sum::<f64>() / 8f64.sqrt()) as f32).collect()
    };
    let (x, w) = (normal(numel(&c.x()), 1), normal(numel(&c.w()), 9));
    let y_shape = c.y().unwrap();
    let [want, ..] = plain(&c, &wide(&x), &wide(&w), &vec![0.0; numel(&y_shape)]);
    let (ox, ow) = (Operand::new(&c.x(), 0, &x), Operand::new(&c.w(), 0, &w));
    let out = Operand::zeros(&y_shape, 0);
    assert_eq!(ConvKernel::choose([256, 18, 18], c.w(), c.params), ConvKernel::Winograd);
    conv2d_f32(ox.src(), ow.src(), out.dst(), c.params, &Epilogue::NONE);
    assert_near(&out.values(), &want, 3e-6, "output");
}

/// Runs a convolution without a hook and with one that adds one, and says where tiles lie:
/// of an output with rows `ld` apart, `at` says at which element a tile's begin.
fn check_hooks(
    [plain, hooked]: [Operand<f32>; 2],
    ld: usize,
    at: impl Fn(&Tile) -> usize + Sync,
    run: impl Fn(Dst<f32>, &Epilogue),
) {
    run(plain.dst(), &Epilogue::NONE);
    let start = hooked.dst().ptr() as usize;
    let seen = Mutex::new(vec![0; plain.values().len()]);
    let hook = |t: Tile| {
        let mut seen = seen.lock().unwrap();
        assert_eq!(t.ld, ld as isize);
        for (r, j) in (0..t.rows).flat_map(|r| (0..t.cols).map(move |j| (r, j))) {
            let (i, p) = (at(&t) + r * ld + j, t.ptr.wrapping_add(r * ld + j));
            assert_eq!(p as usize, start + i * size_of::<f32>());
            seen[i] += 1;
            // SAFETY: an element of the tile.
            unsafe { *p += 1.0 };
        }
    };
    run(hooked.dst(), &Epilogue { hook: Some(&hook), ..Epilogue::NONE });
    assert!(seen.into_inner().unwrap().iter().all(|&n| n == 1));
    let want: Vec<f32> = plain.values().iter().map(|v| v + 1.0).collect();
    assert_eq!(hooked.values(), want);
}

#[test]
fn hooks_see_each_finished_output_once() {
    for c in [
        case([3, 1, 32, 17], [30, 29], [3; 2], UNIT),
        case([2, 1, 5, 40], [31, 33], [1; 2], UNIT),
        case([2, 2, 3, 40], [31, 33], [5; 2], [[1, 2], [2; 2], [1; 2]]),
        case([2, 70, 1, 1], [14; 2], [3; 2], [[1; 2], [1; 2], [1; 2]]),
    ] {
        let (x_shape, w_shape, y_shape) = (c.x(), c.w(), c.y().unwrap());
        let x = Operand::new(&x_shape, 0, &noise32(numel(&x_shape), 1));
        let w = Operand::new(&w_shape, 0, &noise32(numel(&w_shape), 2));
        let pixels = y_shape[2] * y_shape[3];
        let at = |t: &Tile| (t.batch * y_shape[1] + t.row) * pixels + t.col;
        check_hooks([(), ()].map(|_| Operand::zeros(&y_shape, 0)), pixels, at, |y, ep| {
            conv2d_f32(x.src(), w.src(), y, c.params, ep)
        });
    }
}

#[test]
fn hooks_see_pixels_by_channels() {
    for c in [
        case([3, 1, 32, 17], [30, 29], [3; 2], [[2; 2], [1; 2], [1; 2]]),
        case([2, 1, 3, 40], [31, 33], [3; 2], UNIT),
        case([2, 1, 19, 50], [9, 11], [1; 2], UNIT),
        case([2, 70, 1, 1], [14; 2], [3; 2], [[1; 2], [1; 2], [1; 2]]),
    ] {
        let (x_shape, w_shape, y_shape) = (c.x(), c.w(), c.y().unwrap());
        let x = Operand::ordered(&x_shape, &CHANNELS_LAST);
        x.set(&noise32(numel(&x_shape), 1));
        let w = Operand::new(&w_shape, 0, &noise32(numel(&w_shape), 2));
        let kernel = ConvKernel::choose_last(w_shape, c.params).unwrap();
        let packed = packed(kernel, &c, &w);
        let channels = y_shape[1];
        let at = |t: &Tile| {
            assert_eq!(t.batch, 0);
            t.row * channels + t.col
        };
        let outputs = [(), ()].map(|_| Operand::ordered(&y_shape, &CHANNELS_LAST));
        check_hooks(outputs, channels, at, |y, ep| {
            kernel.run_packed(x.src(), &packed, &w_shape, y, c.params, ep)
        });
    }
}

#[test]
fn packed_kernels_give_the_same_numbers() {
    use ConvKernel::*;
    for kernel in
        [Pointwise, Direct, Winograd, Depthwise, PixelRows, DepthwiseLanes, Pairs, PixelRowPairs]
    {
        assert_eq!(ConvKernel::from_number(kernel.number()), Some(kernel));
    }
    assert_eq!(ConvKernel::from_number(u32::MAX), None);
    for c in [
        case([4, 1, 32, 20], [12, 14], [3; 2], UNIT),
        case([1, 3, 4, 5], [9, 8], [3, 2], [[2, 1], [1; 2], [1, 2]]),
        case([2, 1, 7, 9], [5, 6], [1; 2], UNIT),
    ] {
        let (x_shape, w_shape, y_shape) = (c.x(), c.w(), c.y().unwrap());
        let x = Operand::new(&x_shape, 3, &noise32(numel(&x_shape), 1));
        let w = Operand::new(&w_shape, 5, &noise32(numel(&w_shape), 2));
        let want = Operand::zeros(&y_shape, 0);
        conv2d_f32(x.src(), w.src(), want.dst(), c.params, &Epilogue::NONE);
        let kernel = ConvKernel::choose([x_shape[1], x_shape[2], x_shape[3]], w_shape, c.params);
        let got = same_everywhere(|| {
            let packed = packed(kernel, &c, &w);
            let y = Operand::zeros(&y_shape, 0);
            kernel.run_packed(x.src(), &packed, &w_shape, y.dst(), c.params, &Epilogue::NONE);
            y.values()
        });
        assert_eq!(got, want.values());
    }
}

mod int8;
mod pairs;
