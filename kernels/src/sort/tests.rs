use super::*;
use crate::testing::{Operand, index_of, noise, same_everywhere};
use crate::view::numel;
use proptest::prelude::*;
use std::cmp::Ordering;

const NAN: f32 = f32::NAN;
const INF: f32 = f32::INFINITY;

/// The order of PyTorch: NaN above everything, the zeros equal.
fn order(a: f64, b: f64) -> Ordering {
    a.partial_cmp(&b).unwrap_or_else(|| a.is_nan().cmp(&b.is_nan()))
}

fn same(a: f64, b: f64) -> bool {
    a.to_bits() == b.to_bits() || a.is_nan() && b.is_nan()
}

#[test]
fn agrees_with_pytorch() {
    // From PyTorch 2.15.
    let x = [2.0, NAN, -1.0, 0.0, -0.0, INF, 2.0, -INF, NAN];
    let run = |descending| {
        let (mut v, mut i) = ([0f32; 9], [0i64; 9]);
        let shape = [9];
        sort(
            Src::of(&x, &shape, &[1]),
            0,
            descending,
            Some(Dst::of(&mut v, &shape, &[1])),
            Some(Dst::of(&mut i, &shape, &[1])),
        );
        (v, i)
    };
    let (v, i) = run(false);
    assert_eq!(i, [7, 2, 3, 4, 0, 6, 5, 1, 8]);
    let want = [-INF, -1.0, 0.0, -0.0, 2.0, 2.0, INF, NAN, NAN];
    assert!(v.iter().zip(want).all(|(a, b)| same(f64::from(*a), f64::from(b))));
    assert_eq!(run(true).1, [1, 8, 5, 0, 6, 3, 4, 2, 7]);
    let line = [1f32, 2.0, 2.0, 3.0];
    let values = [0f32, 1.0, 2.0, 2.5, 3.0, 9.0, NAN];
    let mut out = [0i64; 7];
    for (right, want) in [(false, [0, 0, 1, 3, 3, 4, 4]), (true, [0, 1, 3, 3, 4, 4, 4])] {
        let (line, values) = (Src::of(&line, &[4], &[1]), Src::of(&values, &[7], &[1]));
        searchsorted(line, values, right, Dst::of(&mut out, &[7], &[1]));
        assert_eq!(out, want);
    }
}

/// Checks sorting and selecting against the standard library's stable sort.
fn check<T: Sortable>(
    shape: &[usize],
    axis: usize,
    a: u64,
    b: u64,
    values: &[T],
    wide: impl Fn(T) -> f64,
) {
    let n = shape[axis];
    let x = Operand::new(shape, a, values);
    let (v, i) = (Operand::<T>::zeros(shape, b), Operand::<i64>::zeros(shape, a ^ b));
    // The places of each line's elements in the row-major list.
    let lines: Vec<Vec<usize>> = (0..numel(shape))
        .filter(|&p| index_of(p, shape)[axis] == 0)
        .map(|p| {
            let step: usize = shape[axis + 1..].iter().product();
            (0..n).map(|j| p + j * step).collect()
        })
        .collect();
    for descending in [false, true] {
        sort(x.src(), axis, descending, Some(v.dst()), Some(i.dst()));
        let (got_v, got_i) = (v.values(), i.values());
        let k = (n / 3).max(1);
        let mut top_shape = shape.to_vec();
        top_shape[axis] = k;
        let top = (Operand::<T>::zeros(&top_shape, b), Operand::<i64>::zeros(&top_shape, a));
        topk(x.src(), axis, descending, top.0.dst(), top.1.dst());
        let mut one_shape = shape.to_vec();
        one_shape[axis] = 1;
        let one = (Operand::<T>::zeros(&one_shape, a), Operand::<i64>::zeros(&one_shape, b));
        kthvalue(x.src(), axis, k, one.0.dst(), one.1.dst());
        let (top_i, one_i) = (top.1.values(), one.1.values());
        let (top_v, one_v) = (top.0.values(), one.0.values());
        for (l, line) in lines.iter().enumerate() {
            let mut want: Vec<usize> = (0..n).collect();
            let key = |j: usize| wide(values[line[j]]);
            want.sort_by(
                |&i, &j| {
                    if descending { order(key(j), key(i)) } else { order(key(i), key(j)) }
                },
            );
            // Row-major position of element `j` of this line in a shape of `m`.
            let step: usize = shape[axis + 1..].iter().product();
            let at = |j: usize, m: usize| (l / step * m + j) * step + l % step;
            for (j, &w) in want.iter().enumerate() {
                assert_eq!(got_i[at(j, n)] as usize, w);
                assert!(same(wide(got_v[at(j, n)]), key(w)));
                if j < k {
                    assert_eq!(top_i[at(j, k)] as usize, w);
                    assert!(same(wide(top_v[at(j, k)]), key(w)));
                }
            }
            if !descending {
                assert_eq!(one_i[at(0, 1)] as usize, want[k - 1]);
                assert!(same(wide(one_v[at(0, 1)]), key(want[k - 1])));
            }
        }
    }
    // In place.
    sort(x.src(), axis, false, Some(x.dst()), None);
    sort(v.src(), axis, false, Some(v.dst()), None);
    let (a, b) = (x.values(), v.values());
    assert!(a.iter().zip(&b).all(|(a, b)| order(wide(*a), wide(*b)).is_eq()));
}

fn check_all(shape: &[usize], axis: usize, a: u64, b: u64) {
    let n = numel(shape);
    // Coarse numbers, so that there are ties, and odd ones.
    let odd = [f64::NAN, f64::INFINITY, -f64::INFINITY, -0.0, 0.0, 1e-310];
    let x: Vec<f64> = noise(n, a)
        .iter()
        .enumerate()
        .map(|(i, v)| if *v > 1.7 { odd[i % 6] } else { (v * 50.0).round() / 8.0 })
        .collect();
    let singles: Vec<f32> = x.iter().map(|v| *v as f32).collect();
    let ints: Vec<i64> = x.iter().enumerate().map(|(i, v)| (*v as i64) << (i % 3 * 24)).collect();
    let small: Vec<i32> = x.iter().map(|v| (*v as i32).wrapping_mul(100_000_000)).collect();
    let bytes: Vec<u8> = x.iter().map(|v| (*v * 20.0) as i64 as u8).collect();
    check(shape, axis, a, b, &singles, f64::from);
    check(shape, axis, a, b, &x, |v| v);
    check(shape, axis, a, b, &ints, |v| v as f64);
    check(shape, axis, a, b, &small, f64::from);
    check(shape, axis, a, b, &bytes, f64::from);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]
    #[test]
    fn sorts_and_selects(
        shape in proptest::collection::vec(1usize..9, 1..4),
        long in 1usize..40,
        axis in 0usize..3,
        a: u64,
        b: u64,
    ) {
        prop_assume!(axis < shape.len());
        let mut shape = shape;
        shape[axis] = long;
        check_all(&shape, axis, a, b);
    }

    #[test]
    fn searches(lines in 0usize..5, n in 0usize..20, m in 0usize..9, a: u64, b: u64) {
        let mut sorted: Vec<f32> = noise(lines * n, a).iter().map(|v| (v * 3.0).round() as f32).collect();
        sorted.chunks_mut(n.max(1)).for_each(|c| c.sort_by(f32::total_cmp));
        let values: Vec<f32> = noise(lines * m, b).iter().map(|v| (v * 6.0).round() as f32 / 2.0).collect();
        let (s, v) = (Operand::new(&[lines, n], a, &sorted), Operand::new(&[lines, m], b, &values));
        let out = Operand::<i64>::zeros(&[lines, m], a);
        for right in [false, true] {
            searchsorted(s.src(), v.src(), right, out.dst());
            let want: Vec<i64> = (0..lines * m)
                .map(|p| {
                    let line = &sorted[p / m * n..][..n];
                    line.partition_point(|&e| if right { e <= values[p] } else { e < values[p] }) as i64
                })
                .collect();
            prop_assert_eq!(out.values(), want);
        }
    }
}

#[test]
fn long_lines_are_sorted_by_digits() {
    for n in [511, 513, 1100, 5000] {
        check_all(&[n], 0, 1, 2);
        check_all(&[n, 2], 0, 0, 0);
    }
}

#[test]
fn a_few_of_many() {
    let n = 100_000;
    let x: Vec<f32> = noise(n, 3).iter().map(|v| (v * 1000.0).round() as f32).collect();
    let mut want: Vec<usize> = (0..n).collect();
    want.sort_by(|&i, &j| x[j].total_cmp(&x[i]));
    for k in [1, 7, 300] {
        let got = same_everywhere(|| {
            let (mut v, mut i) = (vec![0f32; k], vec![0i64; k]);
            topk(
                Src::of(&x, &[n], &[1]),
                0,
                true,
                Dst::of(&mut v, &[k], &[1]),
                Dst::of(&mut i, &[k], &[1]),
            );
            assert!(v.iter().zip(&i).all(|(v, i)| *v == x[*i as usize]));
            i
        });
        assert!(got.iter().zip(&want).all(|(g, w)| *g as usize == *w));
    }
    // All equal, none a number.
    let x = vec![NAN; 5000];
    let (mut v, mut i) = (vec![0f32; 4], vec![0i64; 4]);
    for largest in [true, false] {
        topk(
            Src::of(&x, &[5000], &[1]),
            0,
            largest,
            Dst::of(&mut v, &[4], &[1]),
            Dst::of(&mut i, &[4], &[1]),
        );
        assert_eq!(i, [0, 1, 2, 3]);
    }
}
