use super::*;
use crate::testing::{Operand, assert_close, noise, same_everywhere};
use crate::view::numel;
use proptest::prelude::*;

/// The elements of window `(i, j)` within an image, by rows.
fn taps(w: Window, [h, wd]: [usize; 2], i: usize, j: usize) -> Vec<usize> {
    let place = |d: usize, out: usize, tap: usize, n: usize| {
        let at = out * w.stride[d] + tap * w.dilation[d];
        at.checked_sub(w.padding[d]).filter(|&v| v < n)
    };
    let mut all = Vec::new();
    for (a, b) in (0..w.size[0]).flat_map(|a| (0..w.size[1]).map(move |b| (a, b))) {
        if let (Some(r), Some(c)) = (place(0, i, a, h), place(1, j, b, wd)) {
            all.push(r * wd + c);
        }
    }
    all
}

/// What a mean divides by.
fn divisor(w: Window, size: [usize; 2], i: usize, j: usize, whole: bool) -> f64 {
    let count = |d: usize, out: usize| {
        let (start, end) = (out * w.stride[d], size[d] + 2 * w.padding[d]);
        (0..w.size[d]).filter(|a| start + a * w.dilation[d] < end).count()
    };
    let inside = taps(w, size, i, j).len();
    if whole { (count(0, i) * count(1, j)) as f64 } else { inside as f64 }
}

/// Pooled values and, of `gy`, the gradients: of the maximum, then of the mean.
fn plain(
    x: &[f64],
    gy: &[f64],
    shape: [usize; 4],
    out: [usize; 2],
    w: Window,
    whole: bool,
) -> [Vec<f64>; 4] {
    let [n, c, h, wd] = shape;
    let plane = out[0] * out[1];
    let mut results = [n * c * plane, x.len(), n * c * plane, x.len()].map(|n| vec![0.0; n]);
    for at in 0..n * c * plane {
        let (image, i, j) = (at / plane * h * wd, at % plane / out[1], at % out[1]);
        let taps: Vec<usize> = taps(w, [h, wd], i, j).into_iter().map(|t| image + t).collect();
        let mut best = None;
        for &t in &taps {
            if best.is_none_or(|b: usize| x[t] > x[b] || x[t].is_nan()) {
                best = Some(t);
            }
        }
        results[0][at] = best.map_or(f64::NEG_INFINITY, |b| x[b]);
        if let Some(b) = best {
            results[1][b] += gy[at];
        }
        let count = divisor(w, [h, wd], i, j, whole);
        results[2][at] = taps.iter().map(|&t| x[t]).sum::<f64>() / count;
        taps.iter().for_each(|&t| results[3][t] += gy[at] / count);
    }
    results
}

/// Everything against the plain loops in precision `T`.
fn check<T: Real>(
    values: &[f64],
    shape: [usize; 4],
    out: [usize; 2],
    (w, whole, style): (Window, bool, u64),
    tolerance: f64,
) {
    let y_shape = [shape[0], shape[1], out[0], out[1]];
    let gy = noise(numel(&y_shape), 5);
    let narrow = |v: &[f64]| -> Vec<T> { v.iter().map(|&v| T::of(v)).collect() };
    let wide = |v: &[T]| -> Vec<f64> { v.iter().map(|v| v.f64()).collect() };
    let (x, gy) = (narrow(values), narrow(&gy));
    let want = plain(&wide(&x), &wide(&gy), shape, out, w, whole);
    let (ox, ogy) = (Operand::new(&shape, style, &x), Operand::new(&y_shape, style, &gy));
    let run = |of: &[usize], f: &dyn Fn(Dst<T>)| {
        same_everywhere(|| {
            let result = Operand::<T>::zeros(of, style);
            f(result.dst());
            result.values()
        })
    };
    let got = [
        run(&y_shape, &|y| max_pool2d(ox.src(), y, w)),
        run(&shape, &|gx| max_pool2d_grad(ox.src(), ogy.src(), gx, w)),
        run(&y_shape, &|y| avg_pool2d(ox.src(), y, w, whole)),
        run(&shape, &|gx| avg_pool2d_grad(ogy.src(), gx, w, whole)),
    ];
    for (got, want) in got.iter().zip(&want) {
        assert_close(got, want, tolerance);
    }
    let ordered = |shape: &[usize]| Operand::<T>::ordered(shape, &[0, 2, 3, 1]);
    let last = ordered(&shape);
    last.set(&x);
    let run = |f: &dyn Fn(Dst<T>)| {
        same_everywhere(|| {
            let result = ordered(&y_shape);
            f(result.dst());
            result.values()
        })
    };
    assert_close(&run(&|y| max_pool2d(last.src(), y, w)), &want[0], tolerance);
    assert_close(&run(&|y| avg_pool2d(last.src(), y, w, whole)), &want[2], tolerance);
}

fn window(
    size: [usize; 2],
    stride: [usize; 2],
    padding: [usize; 2],
    dilation: [usize; 2],
) -> Window {
    Window { size, stride, padding, dilation }
}

#[test]
fn typical_windows() {
    let square = |k: usize, s: usize, p: usize| window([k; 2], [s; 2], [p; 2], [1; 2]);
    for (shape, w) in [
        ([2, 3, 24, 24], square(2, 2, 0)),
        ([1, 2, 37, 70], square(3, 2, 1)),
        ([1, 2, 19, 40], square(3, 1, 1)),
        ([1, 5, 7, 7], square(7, 7, 0)),
        ([2, 2, 9, 36], square(3, 3, 0)),
        ([0, 2, 6, 6], square(2, 2, 0)),
    ] {
        let out = |d: usize| (shape[2 + d] + 2 * w.padding[d] - w.size[d]) / w.stride[d] + 1;
        let out = [out(0), out(1)];
        let values = noise(numel(&shape), 1);
        check::<f32>(&values, shape, out, (w, true, 0), 2e-6);
        check::<f64>(&values, shape, out, (w, false, 0), 1e-14);
    }
}

#[test]
fn the_last_nan_wins_and_infinities_count() {
    let (nan, low) = (f64::NAN, f64::NEG_INFINITY);
    let mut values = vec![low; 2 * 5 * 20];
    values[3] = nan;
    values[24] = nan;
    values[100..150].fill(1.0);
    check::<f32>(
        &values,
        [1, 2, 5, 20],
        [3, 10],
        (window([2; 2], [2; 2], [1, 0], [1; 2]), true, 0),
        1e-6,
    );
    check::<f64>(
        &values,
        [1, 2, 5, 20],
        [3, 18],
        (window([3; 2], [2, 1], [1, 0], [1; 2]), true, 3),
        1e-14,
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]
    #[test]
    fn any_window(
        n in 0usize..3, c in 1usize..4, size in [1usize..9, 1usize..40],
        kernel in [1usize..5, 1usize..5], stride in [1usize..5, 1usize..5],
        padding in [0usize..3, 0usize..3], dilation in [1usize..3, 1usize..3],
        more in [0usize..2, 0usize..2], whole in any::<bool>(), style in 0u64..16, few in 1u64..40,
    ) {
        let w = window(kernel, stride, padding, dilation);
        let out = |d: usize| {
            let room = (size[d] + 2 * padding[d]).checked_sub((kernel[d] - 1) * dilation[d] + 1)?;
            // Rounded up, the last window may begin in the image and end outside.
            let up = (room + more[d] * (stride[d] - 1)) / stride[d];
            Some(if up * stride[d] >= size[d] + padding[d] { up } else { up + 1 })
        };
        let (Some(h), Some(wd)) = (out(0), out(1)) else { return Ok(()) };
        let shape = [n, c, size[0], size[1]];
        // Few different values: ties.
        let values: Vec<f64> =
            noise(numel(&shape), few).iter().map(|v| (v * few as f64).round()).collect();
        // Means of windows outside the image are no numbers in either.
        check::<f32>(&values, shape, [h, wd], (w, whole, style), 4e-6);
        check::<f64>(&values, shape, [h, wd], (w, whole, style), 1e-12);
    }
}
