use super::*;
use crate::testing::{Operand, noise, same_everywhere};
use half::{bf16, f16};
use proptest::prelude::*;

/// Shapes with a few axes, now and then a long one.
fn shapes() -> impl Strategy<Value = Vec<usize>> {
    prop_oneof![
        proptest::collection::vec(0usize..6, 0..5),
        (0usize..3, proptest::collection::vec(1usize..90, 2..3)).prop_map(|(n, mut s)| {
            s.insert(n, 2);
            s
        }),
    ]
}

fn copies<T: Element>(shape: &[usize], styles: [u64; 2], make: impl Fn(usize) -> T) {
    let values: Vec<T> = (0..numel(shape)).map(make).collect();
    let x = Operand::new(shape, styles[0], &values);
    let out = Operand::zeros(shape, styles[1]);
    copy(x.src(), out.dst());
    assert_eq!(out.values(), values);
}

proptest! {
    #[test]
    fn copies_between_any_layouts(shape in shapes(), a: u64, b: u64) {
        for styles in [[a, b], [0, b], [a, 0], [a, a]] {
            copies(&shape, styles, |i| i as u8);
            copies(&shape, styles, |i| f16::from_bits(i as u16 & 0x3fff));
            copies(&shape, styles, |i| i as f32);
            copies(&shape, styles, |i| i as i64);
        }
    }

    #[test]
    fn fills_nothing_but_the_view(shape in proptest::collection::vec(0usize..6, 0..4), style: u64) {
        let x = Operand::<i32>::zeros(&shape, style);
        fill(x.dst(), 7);
        prop_assert!(x.values().iter().all(|&v| v == 7));
    }

    #[test]
    fn casts_any_layout(shape in shapes(), a: u64, b: u64) {
        let values: Vec<f32> = noise(numel(&shape), a).iter().map(|v| *v as f32 * 100.0).collect();
        let x = Operand::new(&shape, a, &values);
        let out = Operand::<i32>::zeros(&shape, b);
        cast(x.src(), out.dst());
        let want: Vec<i32> = values.iter().map(|v| *v as i32).collect();
        prop_assert_eq!(out.values(), want);
    }
}

#[test]
fn large_transposes() {
    for (a, b) in [(1024, 129), (3, 1000), (1000, 2), (257, 511)] {
        let x: Vec<u16> = (0..a * b).map(|i| i as u16).collect();
        let x: Vec<bf16> = x.into_iter().map(|v| bf16::from_bits(v & 0x7f7f)).collect();
        let mut y = vec![bf16::ZERO; a * b];
        let strides = ([b as isize, 1], [1, a as isize]);
        copy(Src::of(&x, &[a, b], &strides.0), Dst::of(&mut y, &[a, b], &strides.1));
        for i in 0..a {
            for j in 0..b {
                assert_eq!(x[i * b + j], y[j * a + i], "{i} {j} of {a} {b}");
            }
        }
    }
}

#[test]
fn repeated_elements_and_a_copy_to_itself() {
    let mut out = vec![0f32; 12];
    copy(Src::of(&[1.0, 2.0, 3.0], &[4, 3], &[0, 1]), Dst::of(&mut out, &[4, 3], &[3, 1]));
    assert_eq!(out, [1.0, 2.0, 3.0].repeat(4));
    copy(Src::of(&[5.0, 6.0], &[2, 6], &[1, 0]), Dst::of(&mut out, &[2, 6], &[6, 1]));
    assert_eq!(out[5..7], [5.0, 6.0]);
    let d = Dst::of(&mut out, &[12], &[1]);
    copy(d.as_src(), d);
    assert_eq!(out[5..7], [5.0, 6.0]);
}

fn cast_all<T: Cast<U>, U: Element>(x: &[T]) -> Vec<U> {
    same_everywhere(|| {
        let mut out = vec![U::ZERO; x.len()];
        let shape = [x.len()];
        cast(Src::of(x, &shape, &[1]), Dst::of(&mut out, &shape, &[1]));
        out
    })
}

/// Singles that matter: all exponents, the neighbourhood of every tie of `f16` and
/// `bf16`, the edges of the integers.
fn singles() -> Vec<f32> {
    let mut bits: Vec<u32> = Vec::new();
    for high in 0..=0xffffu32 {
        // Ties of bf16 lie at 0x8000, those of f16 at 0x1000 and odd multiples.
        let low = [0, 1, 0x0fff, 0x1000, 0x1001, 0x3000, 0x7fff, 0x8000, 0x8001, 0xffff];
        bits.extend(low[high as usize % 2 * 5..].iter().take(5).map(|l| high << 16 | l));
    }
    let mut v: Vec<f32> = bits.into_iter().map(f32::from_bits).collect();
    for edge in [255.0, 256.0, 2147483648.0f32, 9.223372e18, 65504.0, 65520.0, 0.5, 1.0] {
        for x in [edge, -edge] {
            v.extend([x, x.next_up(), x.next_down()]);
        }
    }
    v
}

#[test]
fn halves_round_to_nearest_even() {
    let x = singles();
    for (v, h) in x.iter().zip(cast_all::<f32, f16>(&x)) {
        let want = f16::from_f32_const(*v);
        assert!(
            h == want && h.to_bits() >> 15 == want.to_bits() >> 15 || v.is_nan() && h.is_nan(),
            "{v} {h}"
        );
    }
    for (v, h) in x.iter().zip(cast_all::<f32, bf16>(&x)) {
        let want = bf16::from_f32(*v);
        assert!(h == want || v.is_nan() && h.is_nan(), "{v} {h}");
    }
    let all: Vec<f16> = (0..=u16::MAX).map(f16::from_bits).collect();
    for (h, v) in all.iter().zip(cast_all::<f16, f32>(&all)) {
        assert!(v.to_bits() == h.to_f32_const().to_bits() || h.is_nan() && v.is_nan(), "{h} {v}");
    }
    let all: Vec<bf16> = (0..=u16::MAX).map(bf16::from_bits).collect();
    for (h, v) in all.iter().zip(cast_all::<bf16, f32>(&all)) {
        assert!(v.to_bits() == h.to_f32().to_bits() || h.is_nan() && v.is_nan(), "{h} {v}");
    }
    assert_eq!(cast_all::<f64, f16>(&[1e300, -0.1]), [f16::INFINITY, f16::from_f32_const(-0.1)]);
    assert_eq!(
        cast_all::<i64, bf16>(&[257, -259]),
        [bf16::from_f32(256.0), bf16::from_f32(-260.0)]
    );
    assert_eq!(cast_all::<bf16, i32>(&[bf16::from_f32(-2.75), bf16::NAN]), [-2, 0]);
    assert_eq!(cast_all::<f16, bf16>(&[f16::from_f32_const(1.5)]), [bf16::from_f32(1.5)]);
}

#[test]
fn floats_become_integers_towards_zero_within_range() {
    let x = singles();
    let wide: Vec<f64> = x.iter().map(|&v| f64::from(v) * 1.000_000_1).collect();
    // Rust's `as` is defined just so.
    assert_eq!(cast_all::<f32, i64>(&x), x.iter().map(|&v| v as i64).collect::<Vec<_>>());
    assert_eq!(cast_all::<f32, i32>(&x), x.iter().map(|&v| v as i32).collect::<Vec<_>>());
    assert_eq!(cast_all::<f32, u8>(&x), x.iter().map(|&v| v as u8).collect::<Vec<_>>());
    assert_eq!(cast_all::<f64, i64>(&wide), wide.iter().map(|&v| v as i64).collect::<Vec<_>>());
    assert_eq!(cast_all::<f64, i32>(&wide), wide.iter().map(|&v| v as i32).collect::<Vec<_>>());
    assert_eq!(cast_all::<f64, u8>(&wide), wide.iter().map(|&v| v as u8).collect::<Vec<_>>());
    assert_eq!(cast_all::<f64, i64>(&[i64::MAX as f64, f64::NAN]), [i64::MAX, 0]);
    assert_eq!(cast_all::<i64, u8>(&[-1, 256, 7]), [255, 0, 7]);
    assert_eq!(cast_all::<i64, f32>(&[(1 << 24) + 1, -3]), [16_777_216.0, -3.0]);
}

#[test]
fn anything_but_zero_is_true() {
    let mut out = vec![9u8; 5];
    let x = [0.0, -0.0, f32::NAN, 1e-45, -2.0];
    to_bool(Src::of(&x, &[5], &[1]), Dst::of(&mut out, &[5], &[1]));
    assert_eq!(out, [0, 0, 1, 1, 1]);
}

#[test]
fn counting_up() {
    let mut out = vec![0f32; 3];
    arange(Dst::of(&mut out, &[3], &[1]), 0.1, 0.3);
    assert_eq!(out, [0.1, 0.4, 0.7]); // PyTorch 2.15: arange(0.1, 1.0, 0.3)
    let x = Operand::<i64>::zeros(&[2, 3, 2], 5);
    iota(x.dst(), 10, -3);
    assert_eq!(x.values(), (0..12).map(|i| 10 - 3 * i).collect::<Vec<_>>());
    let mut none: Vec<u8> = vec![];
    iota(Dst::of(&mut none, &[0], &[1]), 0, 1);
    let mut one = vec![0u8];
    iota(Dst::of(&mut one, &[], &[]), 300, 1);
    assert_eq!(one, [44]);
}

#[test]
fn large_copies_do_not_depend_on_threads() {
    let n = 710_001;
    let x: Vec<f32> = crate::testing::noise32(n, 4);
    let got = same_everywhere(|| {
        let mut out = vec![0f32; n];
        copy(Src::of(&x, &[n], &[1]), Dst::of(&mut out, &[n], &[1]));
        out
    });
    assert_eq!(got, x);
    let (a, b) = (1001, 701);
    let got = same_everywhere(|| {
        let mut out = vec![0f32; a * b];
        let strides = [b as isize, 1];
        copy(Src::of(&x, &[a, b], &strides), Dst::of(&mut out, &[a, b], &[1, a as isize]));
        out
    });
    assert!((0..a * b).all(|i| got[i % b * a + i / b] == x[i]));
}
