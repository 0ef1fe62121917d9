use super::*;
use crate::simd::Real;
use crate::testing::{FAR, Operand, assert_close, noise, noise32, same_everywhere};
use crate::view::Dst;

// The tables come from PyTorch 2.15.
const X: [f64; 12] = [0.5, -1.25, 2.0, 0.0, 3.5, -0.75, 1.0, 1.0, -2.0, 0.25, 4.0, -3.0];
const GY: [f64; 12] = [1.0, -0.5, 0.25, 2.0, -1.0, 0.5, 0.75, -0.25, 1.5, -2.0, 0.125, 0.5];
const W: [f64; 4] = [1.5, -0.5, 0.75, 2.0];
const B: [f64; 4] = [0.1, -0.2, 0.3, 0.0];

fn of<T: Real>(shape: &[usize], style: u64, v: &[f64]) -> Operand<T> {
    Operand::new(shape, style, &v.iter().map(|v| T::of(*v)).collect::<Vec<_>>())
}

#[rustfmt::skip]
#[test]
fn rows_agree_with_pytorch() {
    let tolerance = 5e-7;
    for style in (0..4).chain([FAR]) {
        let (x, gy) = (of::<f32>(&[3, 4], style, &X), of::<f32>(&[3, 4], style + 1, &GY));
        let (w, b) = (of::<f32>(&[4], style, &W), of::<f32>(&[4], style + 1, &B));
        let zeros = |shape: &[usize]| Operand::<f32>::zeros(shape, style + 2);
        let (y, mean, rstd, gx) = (zeros(&[3, 4]), zeros(&[3]), zeros(&[3]), zeros(&[3, 4]));
        let (gw, gb) = (zeros(&[4]), zeros(&[4]));
        layer_norm(x.src(), Some(w.src()), Some(b.src()), 1e-5, y.dst(), mean.dst(), rstd.dst());
        assert_close(&y.values(), &[0.341571778, 0.471032739, 1.38707304, -0.536826193, 2.39072514, 0.439752102, 0.207132772, -0.247645974, -0.91108048, -0.281351298, 1.46797228, -2.09189057], tolerance);
        layer_norm_grad(gy.src(), x.src(), mean.src(), rstd.src(), Some(w.src()), Some(gx.dst()), Some(gw.dst()), Some(gb.dst()));
        assert_close(&gx.values(), &[0.0443999767, -1.31839371, -0.835099339, 2.10909295, -0.213123947, -0.304457933, 0.609622717, -0.0920408815, 0.291658103, 0.00213465095, -0.0426570177, -0.251135826], tolerance);
        assert_close(&gw.values(), &[-2.37718296, -0.294124573, 0.464152455, -1.02884316], tolerance);
        assert_close(&gb.values(), &[1.5, -2.0, 1.125, 2.25], tolerance);
        rms_norm(x.src(), Some(w.src()), 1e-5, y.dst(), rstd.dst());
        assert_close(&y.values(), &[0.622168899, 0.518474042, 1.2443378, 0.0, 2.72818947, 0.194870681, 0.389741361, 1.03931034, -1.11297262, -0.046373859, 1.11297262, -2.22594523], tolerance);
        rms_norm_grad(gy.src(), x.src(), rstd.src(), Some(w.src()), Some(gx.dst()), Some(gw.dst()));
        assert_close(&gx.values(), &[1.18635833, 0.352338344, -0.0763757378, 3.31823397, -0.165545702, -0.261471719, 0.467716604, -0.0844170153, 0.659207106, 0.392931163, 0.385825068, 0.107707351], tolerance);
        assert_close(&gw.values(), &[-2.51698637, 0.138107926, 0.990016043, -0.686400115], tolerance);
    }
}

#[rustfmt::skip]
fn channels<T: Real>(tolerance: f64) {
    let shape = [2, 3, 2];
    for style in (0..6).chain([FAR]) {
        let (x, gy) = (of::<T>(&shape, style, &X), of::<T>(&shape, style + 1, &GY));
        let (w, b) = (of::<T>(&[3], style, &W[..3]), of::<T>(&[3], style + 1, &B[..3]));
        let zeros = |shape: &[usize]| Operand::<T>::zeros(shape, style + 2);
        let (mean, var) = (zeros(&[3]), zeros(&[3]));
        batch_norm_stats(x.src(), mean.dst(), var.dst());
        assert_close(&mean.values(), &[0.3125, 0.0625, 0.9375], tolerance);
        assert_close(&var.values(), &[0.85546875, 2.01171875, 8.57421875], tolerance);
        let fixed = ([0.5, -0.25, 1.0], [2.0, 0.5, 1.5]);
        for (training, want_y, want_gx, want_gw) in [
            (true,
             [0.404080063, -2.43400049, -0.883009911, -0.177967429, 0.956338108, -0.132222652, 1.21496022, 1.21496022, 0.527075052, -0.266097724, 1.08440411, -0.708519518],
             [1.09968805, -0.244386107, -0.197821274, -0.54230094, -0.168600857, 0.0571484119, 0.383229136, -1.23853123, -0.0936077759, 0.833729982, 0.138188601, -0.0267361626],
             [1.41904032, -2.19224143, -1.70487821]),
            (false,
             [0.099999994, -1.7561506, -1.79097426, -0.376774907, 1.83092594, -0.771648169, 0.630328774, 0.630328774, 1.03742445, -0.553549826, 2.13711119, -2.14948153],
             [1.0606575, -0.530328751, -0.176774934, -1.41419947, -0.612370372, 0.306185186, 0.795493126, -0.265164375, -1.06064963, 1.41419947, 0.0765462965, 0.306185186],
             [0.795493186, -3.62388611, -4.08246946]),
        ] {
            let (mean, var): (Vec<f64>, Vec<f64>) = if training {
                (mean.values().iter().map(|v| v.f64()).collect(), var.values().iter().map(|v| v.f64()).collect())
            } else {
                (fixed.0.to_vec(), fixed.1.to_vec())
            };
            let rstd: Vec<f64> = var.iter().map(|v| 1.0 / (v + 1e-5).sqrt()).collect();
            let (mean, rstd) = (of::<T>(&[3], style, &mean), of::<T>(&[3], style + 3, &rstd));
            let (y, gx, gw, gb) = (zeros(&shape), zeros(&shape), zeros(&[3]), zeros(&[3]));
            batch_norm(x.src(), mean.src(), rstd.src(), Some(w.src()), Some(b.src()), y.dst());
            assert_close(&y.values(), &want_y, tolerance);
            batch_norm_grad(gy.src(), x.src(), mean.src(), rstd.src(), Some(w.src()), training, Some(gx.dst()), Some(gw.dst()), Some(gb.dst()));
            assert_close(&gx.values(), &want_gx, tolerance);
            assert_close(&gw.values(), &want_gw, tolerance);
            assert_close(&gb.values(), &[1.0, 1.75, 0.125], tolerance);
        }
    }
}

#[test]
fn channels_agree_with_pytorch() {
    channels::<f32>(1e-6);
    channels::<f64>(1e-6); // the tables have single precision
}

#[test]
fn rows_of_any_length_agree_with_the_definition() {
    for (rows, d) in [(1, 1), (3, 17), (130, 33), (70, 100), (2, 5000), (0, 4), (65, 16)] {
        let (x, gy) = (noise(rows * d, 1), noise(rows * d, 2));
        let w = noise(d, 3);
        let mut want = (vec![], vec![], vec![0.0; d], vec![0.0; d]);
        for (x, g) in x.chunks(d).zip(gy.chunks(d)) {
            let n = d as f64;
            let mean = x.iter().sum::<f64>() / n;
            let var = x.iter().map(|v| (v - mean) * (v - mean)).sum::<f64>() / n;
            let r = 1.0 / (var + 1e-3).sqrt();
            let hat: Vec<f64> = x.iter().map(|v| (v - mean) * r).collect();
            let gw: Vec<f64> = g.iter().zip(&w).map(|(g, w)| g * w).collect();
            let a = gw.iter().sum::<f64>() / n;
            let b = gw.iter().zip(&hat).map(|(g, h)| g * h).sum::<f64>() / n;
            for i in 0..d {
                want.0.push(hat[i] * w[i]);
                want.1.push(r * (gw[i] - a - hat[i] * b));
                want.2[i] += g[i] * hat[i];
                want.3[i] += g[i];
            }
        }
        for style in [0, 1, 2, FAR] {
            let (x, gy) = (of::<f32>(&[rows, d], style, &x), of::<f32>(&[rows, d], 0, &gy));
            let w = of::<f32>(&[d], style, &w);
            let zeros = |shape: &[usize]| Operand::<f32>::zeros(shape, style);
            let (y, mean, rstd, gx) =
                (zeros(&[rows, d]), zeros(&[rows]), zeros(&[rows]), zeros(&[rows, d]));
            let (gw, gb) = (of::<f32>(&[d], style, &vec![9.0; d]), zeros(&[d]));
            layer_norm(x.src(), Some(w.src()), None, 1e-3, y.dst(), mean.dst(), rstd.dst());
            layer_norm_grad(
                gy.src(),
                x.src(),
                mean.src(),
                rstd.src(),
                Some(w.src()),
                Some(gx.dst()),
                Some(gw.dst()),
                Some(gb.dst()),
            );
            assert_close(&y.values(), &want.0, 2e-6);
            assert_close(&gx.values(), &want.1, if d == 1 { 1e-4 } else { 2e-6 });
            assert_close(&gw.values(), &want.2, 1e-5);
            assert_close(&gb.values(), &want.3, 1e-5);
            // Each gradient alone is the same.
            let (gx2, gw2) = (zeros(&[rows, d]), zeros(&[d]));
            layer_norm_grad(
                gy.src(),
                x.src(),
                mean.src(),
                rstd.src(),
                Some(w.src()),
                Some(gx2.dst()),
                None,
                None,
            );
            layer_norm_grad(
                gy.src(),
                x.src(),
                mean.src(),
                rstd.src(),
                None,
                None,
                Some(gw2.dst()),
                None,
            );
            assert_eq!(gx2.values(), gx.values());
            assert_eq!(gw2.values(), gw.values());
        }
    }
}

#[test]
fn variance_does_not_cancel() {
    let (n, c, l) = (3, 2, 3001);
    let x: Vec<f32> = noise32(n * c * l, 5).iter().map(|v| 1000.0 + v).collect();
    let (mut mean, mut var) = ([0f32; 2], [0f32; 2]);
    batch_norm_stats(
        Src::of(&x, &[n, c, l], &[6002, 3001, 1]),
        Dst::of(&mut mean, &[2], &[1]),
        Dst::of(&mut var, &[2], &[1]),
    );
    for ch in 0..c {
        let all: Vec<f64> =
            (0..n).flat_map(|i| x[(i * c + ch) * l..][..l].iter().map(|v| f64::from(*v))).collect();
        let m = all.iter().sum::<f64>() / all.len() as f64;
        let v = all.iter().map(|x| (x - m) * (x - m)).sum::<f64>() / all.len() as f64;
        assert!(
            (f64::from(mean[ch]) - m).abs() < 1e-4 && (f64::from(var[ch]) - v).abs() < 1e-5 * v
        );
    }
    let none: [f32; 0] = [];
    batch_norm_stats(
        Src::of(&none, &[0, 2, 5], &[10, 5, 1]),
        Dst::of(&mut mean, &[2], &[1]),
        Dst::of(&mut var, &[2], &[1]),
    );
    assert!(mean[0].is_nan() && var[1].is_nan());
}

#[test]
fn nothing_depends_on_threads_or_level() {
    let (rows, d) = (700, 513);
    let (x, gy) = (noise32(rows * d, 1), noise32(rows * d, 2));
    let (x, gy) = (Operand::new(&[rows, d], 0, &x), Operand::new(&[rows, d], 0, &gy));
    let w = Operand::new(&[d], 0, &noise32(d, 3));
    same_everywhere(|| {
        let zeros = |shape: &[usize]| Operand::<f32>::zeros(shape, 0);
        let (y, mean, rstd, gx) =
            (zeros(&[rows, d]), zeros(&[rows]), zeros(&[rows]), zeros(&[rows, d]));
        let (gw, gb) = (zeros(&[d]), zeros(&[d]));
        layer_norm(x.src(), Some(w.src()), Some(w.src()), 1e-5, y.dst(), mean.dst(), rstd.dst());
        layer_norm_grad(
            gy.src(),
            x.src(),
            mean.src(),
            rstd.src(),
            Some(w.src()),
            Some(gx.dst()),
            Some(gw.dst()),
            Some(gb.dst()),
        );
        [y, mean, rstd, gx, gw, gb].map(|v| v.values()).concat()
    });
    for (shape, style) in [([20, 7, 2500], 0), ([900, 300, 1], 0), ([20, 30, 500], 4)] {
        let n = shape.iter().product();
        let c = shape[1];
        let (x, gy) = (
            Operand::new(&shape, style, &noise32(n, 1)),
            Operand::new(&shape, style, &noise32(n, 2)),
        );
        same_everywhere(|| {
            let zeros = |shape: &[usize]| Operand::<f32>::zeros(shape, style);
            let (mean, var, y, gx) = (zeros(&[c]), zeros(&[c]), zeros(&shape), zeros(&shape));
            let (gw, gb) = (zeros(&[c]), zeros(&[c]));
            batch_norm_stats(x.src(), mean.dst(), var.dst());
            batch_norm(x.src(), mean.src(), var.src(), None, None, y.dst());
            batch_norm_grad(
                gy.src(),
                x.src(),
                mean.src(),
                var.src(),
                None,
                true,
                Some(gx.dst()),
                Some(gw.dst()),
                Some(gb.dst()),
            );
            [mean, var, y, gx, gw, gb].map(|v| v.values()).concat()
        });
    }
}
