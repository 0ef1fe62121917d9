use super::*;
use crate::testing::{FAR, Operand, assert_close, index_of, noise, noise32, same_everywhere};
use crate::view::numel;
use proptest::prelude::*;

// The tables come from PyTorch 2.15.
const X: [f32; 12] = [0.5, -1.25, 2.0, 0.0, 3.5, -0.75, 1.0, 1.0, -2.0, 0.25, 4.0, -3.0];
const GY: [f32; 12] = [1.0, -0.5, 0.25, 2.0, -1.0, 0.5, 0.75, -0.25, 1.5, -2.0, 0.125, 0.5];

#[rustfmt::skip]
const TABLE: [(usize, bool, [f64; 12], [f64; 12]); 4] = [
    (0, false,
        [0.0472419634, 0.14024438, 0.114195198, 0.265387952, 0.948880255, 0.231223896, 0.0420100652, 0.721399188, 0.00387785677, 0.628531694, 0.843794703, 0.0132128876],
        [0.0895623341, 0.0997942016, 0.0096459901, 0.436023772, -0.0988529101, 0.395756721, 0.0245535932, -0.437912792, 0.00929065328, -0.49555099, -0.0341995731, 0.00188901299]),
    (0, true,
        [-3.05247259, -1.96436882, -2.16984606, -1.32656264, -0.0524726883, -1.46436882, -3.16984606, -0.326562643, -5.55247259, -0.46436879, -0.169846043, -4.32656288],
        [0.929137051, -0.219511241, 0.121530399, 1.40287721, -2.42332029, 0.962447762, 0.702738702, -1.8731482, 1.49418318, -0.742936611, -0.824269056, 0.470271021]),
    (1, false,
        [0.159693554, 0.0277505759, 0.715696812, 0.0968590304, 0.848583639, 0.0121043948, 0.0696559846, 0.0696559846, 0.00241380092, 0.0229015052, 0.973796785, 0.000887987728],
        [0.0768987536, -0.0282628667, -0.192136332, 0.143500477, -0.163179725, 0.0158289596, 0.108503371, 0.0388473831, 0.00342763029, -0.0476348177, 0.0438342057, 0.000372967042]),
    (1, true,
        [-1.83449864, -3.58449864, -0.334498644, -2.33449864, -0.164186656, -4.41418648, -2.66418672, -2.66418672, -6.02655268, -3.77655268, -0.0265526175, -7.02655268],
        [0.560842752, -0.576314092, -1.71816623, 1.73363769, -1.0, 0.5, 0.75, -0.25, 1.49969828, -2.00286269, 0.00327540189, 0.499889016]),
];
const LOG_SUM: [&[f64]; 2] =
    [&[3.55247259, 0.71436882, 4.16984606, 1.32656264], &[2.33449864, 3.66418672, 4.02655268]];

#[test]
fn agrees_with_pytorch() {
    let operand = |v: &[f32], style| Operand::new(&[3, 4], style, v);
    let tolerance = 5e-7;
    for style in (0..4).chain([FAR]) {
        let (x, gy) = (operand(&X, style), operand(&GY, style + 1));
        for (axis, log, y_want, gx_want) in TABLE {
            let (y, gx) = (operand(&X, style + 2), operand(&X, style + 3));
            if log {
                log_softmax(x.src(), axis, y.dst());
                log_softmax_grad(y.src(), gy.src(), axis, gx.dst());
            } else {
                softmax(x.src(), axis, y.dst());
                softmax_grad(y.src(), gy.src(), axis, gx.dst());
            }
            assert_close(&y.values(), &y_want, tolerance);
            assert_close(&gx.values(), &gx_want, tolerance);
        }
        for axis in 0..2 {
            let out = Operand::<f32>::zeros(&[4 - axis], style);
            logsumexp(x.src(), axis, out.dst());
            assert_close(&out.values(), LOG_SUM[axis], tolerance);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn agrees_with_the_definition(
        shape in proptest::collection::vec(prop_oneof![0usize..6, 14usize..40], 1..4),
        axis in 0usize..3,
        a: u64,
        b: u64,
        log: bool,
    ) {
        prop_assume!(axis < shape.len());
        let n = numel(&shape);
        let values = noise32(n, a);
        let out = Operand::<f32>::zeros(&shape, b);
        let x = Operand::new(&shape, a, &values);
        let kernel = if log { log_softmax } else { softmax };
        kernel(x.src(), axis, out.dst());
        // In place, and dense, gives the same bits.
        let same = Operand::new(&shape, 0, &values);
        kernel(same.src(), axis, same.dst());
        prop_assert_eq!(out.values(), same.values());
        let line = |p: usize| {
            let mut i = index_of(p, &shape);
            i[axis] = 0;
            i
        };
        let mut sums = std::collections::HashMap::new();
        for (p, v) in values.iter().enumerate() {
            *sums.entry(line(p)).or_insert(0.0) += f64::from(*v).exp();
        }
        let want: Vec<f64> = values
            .iter()
            .enumerate()
            .map(|(p, v)| {
                let y = f64::from(*v) - f64::ln(sums[&line(p)]);
                if log { y } else { y.exp() }
            })
            .collect();
        assert_close(&out.values(), &want, 1e-6);
    }
}

#[test]
fn infinities_and_nan() {
    let (inf, nan) = (f32::INFINITY, f32::NAN);
    let run = |x: &[f32]| {
        let mut out = vec![0f32; x.len()];
        let shape = [x.len()];
        softmax(Src::of(x, &shape, &[1]), 0, Dst::of(&mut out, &shape, &[1]));
        let mut sum = [0f32];
        logsumexp(Src::of(x, &shape, &[1]), 0, Dst::of(&mut sum, &[], &[]));
        (out, sum[0])
    };
    for n in [2, 20, 130] {
        let mut x = vec![-inf; n];
        let (y, sum) = run(&x);
        assert!(y.iter().all(|v| v.is_nan()) && sum == -inf);
        x[n / 2] = 1.0;
        let (y, sum) = run(&x);
        assert!(y.iter().sum::<f32>() == 1.0 && y[n / 2] == 1.0 && sum == 1.0);
        x[1] = inf;
        let (y, sum) = run(&x);
        assert!(y.iter().any(|v| v.is_nan()) && sum == inf);
        x[1] = nan;
        let (y, sum) = run(&x);
        assert!(y.iter().all(|v| v.is_nan()) && sum.is_nan());
    }
    assert_eq!(run(&[]).1, -inf);
    assert_eq!(run(&[1e30, -1e30]), (vec![1.0, 0.0], 1e30));
}

#[test]
fn nothing_depends_on_threads_or_level() {
    for (shape, axis) in [([70, 1003], 1), ([1003, 70], 0), ([1, 9001], 1)] {
        let n = numel(&shape);
        let (x, gy) =
            (Operand::new(&shape, 0, &noise32(n, 7)), Operand::new(&shape, 0, &noise32(n, 8)));
        for (forward, backward) in [
            (
                softmax as fn(Src<f32>, usize, Dst<f32>),
                softmax_grad as fn(Src<f32>, Src<f32>, usize, Dst<f32>),
            ),
            (log_softmax, log_softmax_grad),
        ] {
            same_everywhere(|| {
                let (y, gx) = (Operand::<f32>::zeros(&shape, 0), Operand::zeros(&shape, 0));
                forward(x.src(), axis, y.dst());
                backward(y.src(), gy.src(), axis, gx.dst());
                [y.values(), gx.values()].concat()
            });
        }
        same_everywhere(|| {
            let out = Operand::<f32>::zeros(&[shape[1 - axis]], 0);
            logsumexp(x.src(), axis, out.dst());
            out.values()
        });
    }
    // Long rows stay accurate.
    let x: Vec<f64> = noise(50_000, 9);
    let mut out = [0f32];
    let single: Vec<f32> = x.iter().map(|v| *v as f32).collect();
    logsumexp(Src::of(&single, &[50_000], &[1]), 0, Dst::of(&mut out, &[], &[]));
    let want = x.iter().map(|v| v.exp()).sum::<f64>().ln();
    assert!((f64::from(out[0]) - want).abs() < 2e-6 * want);
}
