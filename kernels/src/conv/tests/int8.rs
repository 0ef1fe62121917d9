use super::*;
use crate::gemm::Affine;
use crate::gemm::quads::Tiles;

/// By integers of 64 bits, from the definition.
fn plain(c: &Case, x: &[f32], w: &[f32], q: Affine, bias: &[f32], relu: bool) -> Vec<f32> {
    let (w_shape, y_shape) = (c.w(), c.y().unwrap());
    let len: usize = w_shape[1..].iter().product();
    let distance = |filter: &[f32]| {
        let most = filter.iter().fold(0.0f32, |m, w| m.max(w.abs()));
        if most > 0.0 { most / 127.0 } else { 1.0 }
    };
    let scales: Vec<f32> = w.chunks(len).map(distance).collect();
    let mut sums = vec![0i64; numel(&y_shape)];
    products(c, |at, k, to| {
        let v = (w[k] * (1.0 / scales[k / len])).round_ties_even() as i64;
        sums[to] += (i64::from(q.quantize(x[at])) - i64::from(q.zero)) * v;
    });
    let number = |(i, sum): (usize, &i64)| {
        let f = i / (y_shape[2] * y_shape[3]) % y_shape[1];
        let y = *sum as f32 * (q.scale * scales[f]) + bias[f];
        if relu && y < 0.0 { 0.0 } else { y }
    };
    sums.iter().enumerate().map(number).collect()
}

fn check(c: &Case, style: u64, q: Affine) {
    let Some(y_shape) = c.y() else { return };
    let (x_shape, w_shape) = (c.x(), c.w());
    let (x, w) = (noise32(numel(&x_shape), style ^ 5), noise32(numel(&w_shape), style ^ 6));
    let bias = noise32(w_shape[0], style ^ 7);
    let (ox, ow) = (Operand::new(&x_shape, style, &x), Operand::new(&w_shape, style ^ 1, &w));
    let act = if style % 2 == 1 { Act::Relu } else { Act::None };
    let ep = Epilogue { bias_row: Some(&bias), act, ..Epilogue::NONE };
    let want = plain(c, &x, &w, q, &bias, act == Act::Relu);
    for i in 0..3 {
        let got = same_everywhere(|| {
            let mut packed = vec![f32::NAN; packed_filters_len_int8(w_shape)];
            pack_filters_int8(ow.src(), q, c.params, &mut packed);
            let out = Operand::zeros(&y_shape, style ^ 2);
            // Forms that a level has no more of are as good as its best.
            let tiles = Tiles::all().nth(i).unwrap_or_else(Tiles::active);
            super::super::quads::run(ox.src(), &packed, &w_shape, out.dst(), c.params, &ep, tiles);
            out.values()
        });
        assert!(got == want, "{c:?}, form {i}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]
    #[test]
    fn integers_are_summed_exactly(
        n in 0usize..3, groups in 1usize..3, inner in 1usize..11, outer in 1usize..12,
        size in [1usize..20, 1usize..24], kernel in [1usize..5, 1usize..5],
        stride in [1usize..4, 1usize..4], padding in [0usize..3, 0usize..3],
        dilation in [1usize..3, 1usize..3], style in 0u64..16, low in 0..3,
    ) {
        let c = case([n, groups, inner, outer], size, kernel, [stride, padding, dilation]);
        check(&c, style, Affine::covering(-0.6 * low as f32, 1.9));
    }
}

#[test]
fn large_ones_are_shared_among_threads() {
    let unit = [[1; 2], [1; 2], [1; 2]];
    check(&case([1, 1, 37, 65], [31, 29], [3; 2], unit), 0, Affine::covering(-1.0, 1.0));
    check(&case([2, 1, 129, 40], [14; 2], [1; 2], UNIT), 1, Affine::covering(-1.0, 2.0));
}
