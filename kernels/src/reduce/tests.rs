use super::*;
use crate::testing::{Operand, index_of, noise, noise32, same_everywhere};
use proptest::prelude::*;

fn kept<T: Copy>(values: &[T], axes: &[bool]) -> Vec<T> {
    values.iter().zip(axes).filter(|(_, r)| !**r).map(|(v, _)| *v).collect()
}

/// What joins, element after element, in `f64`.
fn reference<A: Copy>(
    x: &[f64],
    shape: &[usize],
    axes: &[bool],
    start: A,
    f: impl Fn(A, f64) -> A,
) -> Vec<A> {
    let out_shape = kept(shape, axes);
    let mut out = vec![start; numel(&out_shape)];
    for (p, &v) in x.iter().enumerate() {
        let index = kept(&index_of(p, shape), axes);
        let at = index.iter().zip(&out_shape).fold(0, |at, (i, n)| at * n + i);
        out[at] = f(out[at], v);
    }
    out
}

type Kernel<T> = fn(Src<T>, &[bool], Dst<T>);

fn reduced<T: Number>(f: Kernel<T>, x: &Operand<T>, axes: &[bool], style: u64) -> Vec<T> {
    let out = Operand::<T>::zeros(&kept(&x.shape, axes), style);
    f(x.src(), axes, out.dst());
    out.values()
}

/// Shapes that reach every path: short and long rows, narrow and wide columns.
fn shapes() -> impl Strategy<Value = Vec<usize>> {
    prop_oneof![
        4 => proptest::collection::vec(0usize..7, 0..5),
        1 => proptest::collection::vec(prop_oneof![1usize..4, 60usize..200], 2..4),
        1 => (1usize..5, 3000usize..9000, proptest::bool::ANY)
            .prop_map(|(a, b, first)| if first { vec![b, a] } else { vec![a, b] }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn agrees_with_the_plain_loop(shape in shapes(), mask: u8, a: u64, b: u64) {
        let axes: Vec<bool> = (0..shape.len()).map(|d| mask >> d & 1 == 1).collect();
        let n = numel(&shape);
        let values = noise(n, a);
        let depth = shape.iter().zip(&axes).filter(|(_, r)| **r).map(|(n, _)| *n).product::<usize>();
        let singles: Vec<f32> = values.iter().map(|v| *v as f32).collect();
        let exact: Vec<f64> = singles.iter().map(|v| f64::from(*v)).collect();
        let ints: Vec<i64> = values.iter().map(|v| (v * 1e18) as i64).collect();
        for style in [0, a] {
            let x = Operand::new(&shape, style, &singles);
            let got = reduced(sum, &x, &axes, b);
            let want = reference(&exact, &shape, &axes, 0.0, |s, v| s + v);
            let size = reference(&exact, &shape, &axes, 0.0, |s, v| s + v.abs());
            // At most 64 additions in a lane, 12 halvings and 14 pairs.
            for ((g, w), s) in got.iter().zip(&want).zip(&size) {
                prop_assert!((f64::from(*g) - w).abs() <= 90.0 * 6e-8 * s, "{g} {w}");
            }
            let top = reference(&exact, &shape, &axes, f64::NEG_INFINITY, |s: f64, v| s.max(v));
            let got = reduced(max, &x, &axes, b);
            prop_assert!(got.iter().zip(&top).all(|(g, w)| f64::from(*g) == *w));
            let low = reference(&exact, &shape, &axes, f64::INFINITY, |s: f64, v| s.min(v));
            let got = reduced(min, &x, &axes, b);
            prop_assert!(got.iter().zip(&low).all(|(g, w)| f64::from(*g) == *w));

            let x = Operand::new(&shape, style, &values);
            let want = reference(&values, &shape, &axes, 1.0, |s, v| s * v);
            let got = reduced(prod, &x, &axes, b);
            let tolerance = 1e-15 * (depth + 1) as f64;
            prop_assert!(got.iter().zip(&want).all(|(g, w)| (g - w).abs() <= tolerance * w.abs() + 1e-300));

            let x = Operand::new(&shape, style, &ints);
            let got = reduced(sum, &x, &axes, b);
            let want = reference(&values, &shape, &axes, 0i64, |s, v| s.wrapping_add((v * 1e18) as i64));
            prop_assert_eq!(got, want);
            let x = Operand::new(&shape, style, &ints.iter().map(|v| *v as i32).collect::<Vec<_>>());
            let got = reduced(max, &x, &axes, b);
            let want = reference(&values, &shape, &axes, i32::MIN, |s, v| s.max((v * 1e18) as i64 as i32));
            prop_assert_eq!(got, want);

            let bits: Vec<u8> = values.iter().map(|v| u8::from(*v > 1.5) * 3).collect();
            let x = Operand::new(&shape, style, &bits);
            let want = reference(&values, &shape, &axes, 0, |s, v| s | u8::from(v > 1.5));
            prop_assert_eq!(reduced(super::any, &x, &axes, b), want);
            let want = reference(&values, &shape, &axes, 1, |s, v| s & u8::from(v > 1.5));
            prop_assert_eq!(reduced(all, &x, &axes, b), want);
        }
    }

    #[test]
    fn finds_the_first_of_the_best(shape in shapes(), axis in 0usize..4, a: u64, b: u64) {
        prop_assume!(axis < shape.len() && shape[axis] > 0);
        // Few different numbers, so that there are ties; now and then NaN.
        let values: Vec<f32> = noise(numel(&shape), a)
            .iter()
            .map(|v| if *v > 1.99 { f32::NAN } else { v.round() as f32 })
            .collect();
        let axes: Vec<bool> = (0..shape.len()).map(|d| d == axis).collect();
        let wide: Vec<f64> = values.iter().map(|v| f64::from(*v)).collect();
        for style in [0, a] {
            let x = Operand::new(&shape, style, &values);
            for largest in [true, false] {
                let out = Operand::<i64>::zeros(&kept(&shape, &axes), b);
                if largest { argmax(x.src(), axis, out.dst()) } else { argmin(x.src(), axis, out.dst()) }
                let want = reference(&wide, &shape, &axes, (f64::NAN, -1i64, 0i64), |(best, at, i), v| {
                    let better = if largest { v > best } else { v < best };
                    let take = at < 0 || better || v.is_nan() && !best.is_nan();
                    if take { (v, i, i + 1) } else { (best, at, i + 1) }
                });
                prop_assert_eq!(out.values(), want.iter().map(|w| w.1).collect::<Vec<_>>());
            }
        }
    }
}

#[test]
fn nothing_depends_on_threads_or_level() {
    let cases: [(&[usize], &[bool]); 9] = [
        (&[700_001], &[true]),
        (&[3, 300_007], &[false, true]),
        (&[20_000, 40], &[true, false]),
        (&[1_000_003, 1], &[true, true]),
        (&[100_003, 7], &[true, false]),
        (&[6000, 150], &[true, false]),
        (&[5, 1000, 129], &[false, true, false]),
        (&[17, 31, 400], &[true, false, true]),
        (&[300, 3000], &[true, false]),
    ];
    for (shape, axes) in cases {
        let n = numel(shape);
        let x = Operand::new(shape, 0, &noise32(n, 5));
        for f in [sum as Kernel<f32>, prod, max] {
            same_everywhere(|| reduced(f, &x, axes, 0));
        }
        let x = Operand::new(shape, 0, &noise(n, 5));
        same_everywhere(|| reduced(sum, &x, axes, 0));
    }
    let x = Operand::new(&[700_001], 0, &noise32(700_001, 6));
    same_everywhere(|| {
        let out = Operand::<i64>::zeros(&[], 0);
        argmax(x.src(), 0, out.dst());
        out.values()
    });
}

#[test]
fn large_sums_stay_accurate() {
    let n = 1 << 22;
    let x = vec![0.1f32; n];
    let mut out = [0f32];
    sum(Src::of(&x, &[n], &[1]), &[true], Dst::of(&mut out, &[], &[]));
    let want = f64::from(0.1f32) * n as f64;
    assert!((f64::from(out[0]) - want).abs() < 1e-6 * want, "{}", out[0]);
    // The same by columns.
    let mut out = [0f32; 4];
    sum(Src::of(&x, &[n / 4, 4], &[4, 1]), &[true, false], Dst::of(&mut out, &[4], &[1]));
    assert!(out.iter().all(|v| (f64::from(*v) - want / 4.0).abs() < 1e-6 * want));
}

#[test]
fn nan_spreads_and_nothing_gives_the_identity() {
    for at in [0, 5, 70, 4100] {
        let mut x = vec![1f32; 5000];
        x[at] = f32::NAN;
        for f in [max as Kernel<f32>, min, sum, prod] {
            for (shape, strides) in
                [([5000, 1], [1, 1]), ([100, 50], [50, 1]), ([50, 100], [1, 50])]
            {
                for axes in [[true, true], [true, false]] {
                    let out_shape = kept(&shape, &axes);
                    let mut out = vec![0f32; numel(&out_shape)];
                    let one = [1];
                    let out_strides = &one[..out_shape.len()];
                    f(
                        Src::of(&x, &shape, &strides),
                        &axes,
                        Dst::of(&mut out, &out_shape, out_strides),
                    );
                    assert_eq!(
                        out.iter().filter(|v| v.is_nan()).count(),
                        1,
                        "{at} {shape:?} {axes:?}"
                    );
                }
            }
        }
    }
    let mut out = [9f32; 3];
    let x = Src::of(&[], &[3, 0], &[0, 1]);
    sum(x, &[false, true], Dst::of(&mut out, &[3], &[1]));
    assert_eq!(out, [0.0; 3]);
    prod(x, &[false, true], Dst::of(&mut out, &[3], &[1]));
    assert_eq!(out, [1.0; 3]);
    max(x, &[false, true], Dst::of(&mut out, &[3], &[1]));
    assert_eq!(out, [f32::NEG_INFINITY; 3]);
    sum(Src::of(&[2.5], &[], &[]), &[], Dst::of(&mut out, &[], &[]));
    assert_eq!(out[0], 2.5);
    sum(Src::of(&[2.5], &[4, 1000], &[0, 0]), &[false, true], Dst::of(&mut out[..1], &[4], &[0]));
    assert_eq!(out[0], 2500.0);
}
