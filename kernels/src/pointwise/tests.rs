use super::*;
use crate::isa::Isa;

#[test]
fn every_level_gives_the_same_bits() {
    let x: Vec<f32> = (0..1003).map(|i| (i as f32 - 500.0) * 0.173).collect();
    let loops: [&Loop1<f32, f32>; 12] = [
        &f32s::EXP,
        &f32s::EXPM1,
        &f32s::LOG,
        &f32s::LOG1P,
        &f32s::TANH,
        &f32s::SIGMOID,
        &f32s::ERF,
        &f32s::GELU,
        &f32s::SOFTPLUS,
        &f32s::SINH,
        &f32s::RSQRT,
        &f32s::SIGN,
    ];
    for l in loops {
        let mut results = Vec::new();
        for level in 0..=crate::isa::detect() as usize {
            let mut out = vec![0f32; x.len()];
            // SAFETY: both vectors hold that many elements; the level exists.
            unsafe { l.by_isa[level](x.len(), x.as_ptr(), 1, out.as_mut_ptr(), 1) };
            results.push(out.iter().map(|v| v.to_bits()).collect::<Vec<_>>());
        }
        // NaN payloads may differ; values may not.
        for r in &results[1..] {
            for (a, b) in r.iter().zip(&results[0]) {
                let nan = f32::from_bits(*a).is_nan() && f32::from_bits(*b).is_nan();
                assert!(a == b || nan);
            }
        }
    }
    assert!(isa::active() >= Isa::Baseline);
}

#[test]
fn strides_and_in_place() {
    let x: Vec<f32> = (0..12).map(|i| i as f32).collect();
    let mut out = vec![0f32; 12];
    // Transposed operand, plain output.
    map2(
        &f32s::SUB,
        Src::of(&x, &[4, 3], &[1, 4]),
        Src::of(&[1.0], &[4, 3], &[0, 0]),
        Dst::of(&mut out, &[4, 3], &[3, 1]),
    );
    assert_eq!(out, [-1.0, 3.0, 7.0, 0.0, 4.0, 8.0, 1.0, 5.0, 9.0, 2.0, 6.0, 10.0]);
    let d = Dst::of(&mut out, &[12], &[1]);
    map2(&f32s::MUL, d.as_src(), d.as_src(), d);
    assert_eq!(out[..4], [1.0, 9.0, 49.0, 0.0]);
    let mut bits = vec![0u8; 3];
    map2(
        &compare_f32::LT,
        Src::of(&[1.0, f32::NAN, 3.0], &[3], &[1]),
        Src::of(&[2.0], &[3], &[0]),
        Dst::of(&mut bits, &[3], &[1]),
    );
    assert_eq!(bits, [1, 0, 0]);
    let mut picked = vec![0u64; 3];
    select(
        Src::of(&bits, &[3], &[1]),
        Src::of(&[7], &[3], &[0]),
        Src::of(&[1, 2, 3], &[3], &[1]),
        Dst::of(&mut picked, &[3], &[1]),
    );
    assert_eq!(picked, [7, 2, 3]);
}

#[test]
fn results_do_not_depend_on_threads() {
    let x: Vec<f32> = (0..500_000).map(|i| (i % 977) as f32 * 0.01 - 4.0).collect();
    let mut one = vec![0f32; x.len()];
    let mut two = one.clone();
    let shape = [x.len()];
    let before = par::threads();
    par::set_threads(1);
    map1(&f32s::TANH, Src::of(&x, &shape, &[1]), Dst::of(&mut one, &shape, &[1]));
    par::set_threads(2);
    map1(&f32s::TANH, Src::of(&x, &shape, &[1]), Dst::of(&mut two, &shape, &[1]));
    par::set_threads(before);
    assert_eq!(one, two);
}
