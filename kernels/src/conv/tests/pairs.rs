use super::*;

/// In pairs of channels: nearly the convolution of rounded images and kernels.
fn check_pairs(c: &Case, style: u64) {
    let Some(y_shape) = c.y() else { return };
    let (x_shape, w_shape, p) = (c.x(), c.w(), c.params);
    let [x, w] = [(x_shape, 1), (w_shape, 2)].map(|(s, seed)| noise32(numel(&s), seed + style));
    let rounded = |v: &[f32]| v.iter().map(|&v| half::bf16::from_f32(v).to_f64()).collect();
    let (rx, rw): (Vec<f64>, Vec<f64>) = (rounded(&x), rounded(&w));
    let [want, ..] = plain(c, &rx, &rw, &vec![0.0; numel(&y_shape)]);
    let bias = noise32(w_shape[0], 4);
    let want = finished(&want, y_shape, &bias, f64::INFINITY);
    let ep = Epilogue { bias_row: Some(&bias), act: Act::Relu, ..Epilogue::NONE };
    let (ox, ow) = (Operand::new(&x_shape, style, &x), Operand::new(&w_shape, style, &w));
    for kernel in [ConvKernel::Pairs, ConvKernel::PixelRowPairs] {
        if !kernel.fits(w_shape, p) {
            continue;
        }
        let packed = packed(kernel, c, &ow);
        let got = same_everywhere(|| {
            let out = Operand::zeros(&y_shape, style);
            kernel.run_packed(ox.src(), &packed, &w_shape, out.dst(), p, &ep);
            out.values()
        });
        assert_near(&got, &want, 4e-6, "output");
    }
}

#[test]
fn pairs_of_channels() {
    let same = [[1; 2], [1; 2], [1; 2]];
    for c in [
        case([2, 1, 33, 64], [14, 13], [3; 2], same),
        case([2, 1, 19, 50], [7, 11], [1; 2], UNIT),
        case([2, 1, 40, 9], [30, 31], [1; 2], UNIT),
        case([1, 1, 3, 20], [37, 41], [7; 2], [[2; 2], [3; 2], [1; 2]]),
        case([2, 5, 1, 2], [14; 2], [5; 2], [[2; 2], [2; 2], [1; 2]]),
        case([2, 1, 0, 3], [6, 6], [3, 3], UNIT),
        case([0, 1, 3, 4], [6, 6], [3, 3], UNIT),
    ] {
        for style in [0, 7] {
            check_pairs(&c, style);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]
    #[test]
    fn any_pairs_of_channels(
        n in 1usize..3, groups in 1usize..4, inner in 1usize..8, outer in 1usize..12,
        size in [1usize..20, 1usize..24], kernel in [1usize..5, 1usize..5],
        stride in [1usize..4, 1usize..4], padding in [0usize..3, 0usize..3],
        dilation in [1usize..3, 1usize..3], style in 0u64..16,
    ) {
        let sizes = [stride, padding, dilation];
        check_pairs(&case([n, groups, inner, outer], size, kernel, sizes), style);
    }
}
