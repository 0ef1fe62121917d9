use super::super::tests::{Case, any_case, masked, typical};
use super::*;
use crate::testing::{Operand, noise32, same_everywhere};
use proptest::prelude::*;

/// In double precision.
fn plain(c: &Case, [q, k, v, gy]: [&[f32]; 4], mask: &[f32], scale: f32) -> [Vec<f64>; 3] {
    let items: usize = c.lead.iter().product();
    let (t, s, e, f) = (c.t, c.s, c.e, c.f);
    let mut gq = vec![0.0; items * t * e];
    let (mut gk, mut gv) = (vec![0.0; items * s * e], vec![0.0; items * s * f]);
    let scale = f64::from(scale);
    for (item, i) in (0..items).flat_map(|n| (0..t).map(move |i| (n, i))) {
        let seen = if c.causal { s.min(i + 1) } else { s };
        let (row, key, value) = (item * t + i, item * s, item * s);
        let at = |x: &[f32], row: usize, n: usize, j: usize| f64::from(x[row * n + j]);
        let scores: Vec<f64> = (0..seen)
            .map(|j| {
                let dot: f64 = (0..e).map(|x| at(q, row, e, x) * at(k, key + j, e, x)).sum();
                scale * dot + f64::from(mask.get(row * s + j).copied().unwrap_or(0.0))
            })
            .collect();
        let most = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let weights: Vec<f64> = scores.iter().map(|s| (s - most).exp()).collect();
        let sum: f64 = weights.iter().sum();
        let weights: Vec<f64> = weights.iter().map(|w| w / sum).collect();
        let d: Vec<f64> = (0..seen)
            .map(|j| (0..f).map(|x| at(gy, row, f, x) * at(v, value + j, f, x)).sum())
            .collect();
        let mean: f64 = weights.iter().zip(&d).map(|(w, d)| w * d).sum();
        for j in 0..seen {
            let slope = weights[j] * (d[j] - mean) * scale;
            for x in 0..e {
                gq[row * e + x] += slope * at(k, key + j, e, x);
                gk[(key + j) * e + x] += slope * at(q, row, e, x);
            }
            for x in 0..f {
                gv[(value + j) * f + x] += weights[j] * at(gy, row, f, x);
            }
        }
    }
    [gq, gk, gv]
}

fn check(c: &Case, style: u64) {
    let shapes = [(c.t, c.e), (c.s, c.e), (c.s, c.f), (c.t, c.f)].map(|(r, n)| c.shape(r, n));
    let values = [1, 2, 3, 4].map(|i| noise32(numel(&shapes[i - 1]), style + i as u64));
    let operands = [0, 1, 2, 3].map(|i| Operand::new(&shapes[i], style + i as u64, &values[i]));
    let scale = 1.0 / (c.e.max(1) as f32).sqrt();
    let (mask, strides, dense) = masked(c, style);
    let full = c.shape(c.t, c.s);
    let want = plain(c, [0, 1, 2, 3].map(|i| &values[i][..]), &dense, scale);
    let wide = mask.as_ref().map(|m| m.wide(&full, strides.as_ref().unwrap()));
    let got = same_everywhere(|| {
        let outs = [0, 1, 2].map(|i| Operand::zeros(&shapes[i], style + 1 + i as u64));
        // What is not written stays.
        let scores = Scores { scale, causal: c.causal, mask: wide };
        attention_grad(
            [0, 1, 2, 3].map(|i| operands[i].src()),
            &scores,
            [outs[0].dst(), outs[1].dst(), outs[2].dst()],
        );
        outs.iter().flat_map(Operand::values).collect()
    });
    let want: Vec<f64> = want.into_iter().flatten().collect();
    let largest = want.iter().fold(1.0f64, |m, w| m.max(w.abs()));
    for (i, (g, w)) in got.iter().zip(&want).enumerate() {
        assert!((f64::from(*g) - w).abs() <= 1e-5 * largest, "{c:?}: {g} for {w} at {i}");
    }
}

#[test]
fn typical_derivatives() {
    typical().for_each(|(c, style)| check(&c, style));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]
    #[test]
    fn any_derivative((c, style) in any_case()) {
        check(&c, style);
    }
}

#[test]
fn a_query_that_sees_nothing_has_no_derivative() {
    let inf = f32::INFINITY;
    let x = [1.0, 2.0, 3.0, 4.0];
    let [q, k, v, gy] = [[2, 2]; 4].map(|s| Operand::new(&s, 0, &x));
    let mask = Operand::new(&[2, 2], 0, &[-inf, -inf, 0.0, -inf]);
    let outs = [[2, 2]; 3].map(|s| Operand::zeros(&s, 0));
    let scores = Scores { scale: 1.0, causal: false, mask: Some(mask.src()) };
    let dst = [outs[0].dst(), outs[1].dst(), outs[2].dst()];
    attention_grad([q.src(), k.src(), v.src(), gy.src()], &scores, dst);
    let gq = outs[0].values();
    assert!(gq[..2].iter().all(|g| g.is_nan()) && gq[2..] == [0.0, 0.0], "{gq:?}");
}
