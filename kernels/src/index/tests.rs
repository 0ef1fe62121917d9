use super::*;
use crate::testing::{Operand, index_of, noise, noise32, same_everywhere};
use proptest::prelude::*;

fn flat(index: &[usize], shape: &[usize]) -> usize {
    index.iter().zip(shape).fold(0, |at, (i, n)| at * n + i)
}

/// Indices into `size` elements, some negative.
fn indices(n: usize, size: usize, seed: u64) -> Vec<i64> {
    noise(n, seed).iter().map(|v| (v * size as f64 / 2.000_001).trunc() as i64).collect()
}

fn meant(i: i64, size: usize) -> usize {
    (if i < 0 { i + size as i64 } else { i }) as usize
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]
    #[test]
    fn gathers_and_scatters(
        shape in proptest::collection::vec(1usize..6, 1..4),
        more in proptest::collection::vec(0usize..3, 3),
        axis in 0usize..3,
        count in 0usize..9,
        a: u64,
        b: u64,
    ) {
        prop_assume!(axis < shape.len());
        // `big` is what is indexed: at least as large in the other axes.
        let mut index_shape = shape.clone();
        index_shape[axis] = count;
        let big: Vec<usize> = shape.iter().zip(&more).map(|(n, m)| n + m).collect();
        let (n, size) = (numel(&index_shape), big[axis]);
        let values = noise32(numel(&big), a);
        let i = indices(n, size, b);
        let there = |p: usize| {
            let mut at = index_of(p, &index_shape);
            at[axis] = meant(i[p], size);
            flat(&at, &big)
        };
        let (x, index) = (Operand::new(&big, a, &values), Operand::new(&index_shape, b, &i));
        let out = Operand::<f32>::zeros(&index_shape, a ^ b);
        gather(x.src(), axis, index.src(), Negative::FromEnd, out.dst()).unwrap();
        let want: Vec<f32> = (0..n).map(|p| values[there(p)]).collect();
        prop_assert_eq!(out.values(), want);

        let new = noise32(n, a ^ b);
        let src = Operand::new(&index_shape, a, &new);
        let mut want = values.clone();
        (0..n).for_each(|p| want[there(p)] = new[p]);
        scatter(x.dst(), axis, index.src(), Negative::FromEnd, src.src()).unwrap();
        prop_assert_eq!(x.values(), want);
        type Plain = fn(f32, f32) -> f32;
        let ways: [(Combine, Plain); 4] = [
            (Combine::Add, |a, b| a + b),
            (Combine::Multiply, |a, b| a * b),
            (Combine::Max, f32::max),
            (Combine::Min, f32::min),
        ];
        for (how, f) in ways {
            let x = Operand::new(&big, a, &values);
            let mut want = values.clone();
            (0..n).for_each(|p| want[there(p)] = f(want[there(p)], new[p]));
            scatter_combine(x.dst(), axis, index.src(), Negative::FromEnd, src.src(), how).unwrap();
            prop_assert_eq!(x.values(), want);
        }
    }

    #[test]
    fn selects_and_adds_slices(
        shape in proptest::collection::vec(1usize..6, 1..4),
        axis in 0usize..3,
        count in 0usize..9,
        a: u64,
        b: u64,
    ) {
        prop_assume!(axis < shape.len());
        let size = shape[axis];
        let i = indices(count, size, b);
        let mut out_shape = shape.clone();
        out_shape[axis] = count;
        let n = numel(&out_shape);
        let there = |p: usize| {
            let mut at = index_of(p, &out_shape);
            at[axis] = meant(i[at[axis]], size);
            flat(&at, &shape)
        };
        let values = noise32(numel(&shape), a);
        let (x, index) = (Operand::new(&shape, a, &values), Operand::new(&[count], b, &i));
        let out = Operand::<f32>::zeros(&out_shape, b);
        index_select(x.src(), axis, index.src(), Negative::FromEnd, out.dst()).unwrap();
        let want: Vec<f32> = (0..n).map(|p| values[there(p)]).collect();
        prop_assert_eq!(out.values(), want);

        let new = noise32(n, b);
        let src = Operand::new(&out_shape, b, &new);
        let mut want = values.clone();
        (0..n).for_each(|p| want[there(p)] += new[p]);
        let how = Combine::Add;
        index_combine(x.dst(), axis, index.src(), Negative::FromEnd, src.src(), how).unwrap();
        prop_assert_eq!(x.values(), want);
        let mut want = x.values();
        (0..n).for_each(|p| want[there(p)] = new[p]);
        index_copy(x.dst(), axis, index.src(), Negative::FromEnd, src.src()).unwrap();
        prop_assert_eq!(x.values(), want);
    }

    #[test]
    fn masks(shape in proptest::collection::vec(0usize..7, 0..4), a: u64, b: u64) {
        let n = numel(&shape);
        let bits: Vec<u8> = noise(n, a).iter().map(|v| u8::from(*v > 0.5)).collect();
        let (mask, x) = (Operand::new(&shape, a, &bits), Operand::new(&shape, b, &noise32(n, b)));
        let places: Vec<usize> = (0..n).filter(|&p| bits[p] != 0).collect();
        let count = count_nonzero(mask.src());
        prop_assert_eq!(count, places.len());
        let out = Operand::<i64>::zeros(&[count, shape.len()], b);
        nonzero(mask.src(), out.dst());
        let want: Vec<i64> =
            places.iter().flat_map(|&p| index_of(p, &shape)).map(|i| i as i64).collect();
        prop_assert_eq!(out.values(), want);
        let out = Operand::<f32>::zeros(&[count], b);
        masked_select(x.src(), mask.src(), out.dst());
        let want: Vec<f32> = places.iter().map(|&p| x.values()[p]).collect();
        prop_assert_eq!(out.values(), want);
        let new = noise32(count + 2, a);
        let mut want = x.values();
        places.iter().zip(&new).for_each(|(&p, v)| want[p] = *v);
        masked_scatter(x.dst(), mask.src(), Operand::new(&[count + 2], a, &new).src());
        prop_assert_eq!(x.values(), want);
    }
}

#[test]
fn the_first_bad_index_is_named_and_nothing_is_written() {
    let index = [0i64, 2, -1, 5, -4, 3];
    let at = |position, index| Err(IndexError { position, index, size: 3 });
    let view = Src::of(&index, &[2, 3], &[3, 1]);
    assert_eq!(check(view, 3, Negative::FromEnd), at(3, 5));
    assert_eq!(check(view, 3, Negative::Refused), at(2, -1));
    assert_eq!(check(Src::of(&index, &[3, 2], &[1, 3]), 3, Negative::FromEnd), at(1, 5));
    assert_eq!(check(Src::of(&index, &[2], &[1]), 3, Negative::Refused), Ok(()));
    assert_eq!(check(Src::of(&index, &[0], &[1]), 0, Negative::Refused), Ok(()));
    assert!(check(Src::of(&index, &[1], &[1]), 0, Negative::FromEnd).is_err());
    let mut out = [7f32; 6];
    let x = [1f32, 2.0, 3.0];
    let got = gather(
        Src::of(&x, &[3], &[1]),
        0,
        Src::of(&index, &[6], &[1]),
        Negative::FromEnd,
        Dst::of(&mut out, &[6], &[1]),
    );
    assert_eq!(got, at(3, 5));
    let src = [9f32; 6];
    let got = scatter_combine(
        Dst::of(&mut out[..3], &[3], &[1]),
        0,
        Src::of(&index, &[6], &[1]),
        Negative::FromEnd,
        Src::of(&src, &[6], &[1]),
        Combine::Add,
    );
    assert_eq!(got, at(3, 5));
    assert_eq!(out, [7.0; 6]);
    assert_eq!(got.unwrap_err().to_string(), "index 5 at position 3 is out of range for size 3");
    // Far into a large index, whoever finds it.
    let mut large = vec![1i64; 900_000];
    large[500_003] = 3;
    large[899_999] = -9;
    let got = check(Src::of(&large, &[900_000], &[1]), 3, Negative::FromEnd);
    assert_eq!(got, at(500_003, 3));
}

#[test]
fn embeddings_and_one_hot() {
    let index = [2i64, 0, 2, 1];
    let gy: Vec<f32> = (1..=8).map(|v| v as f32).collect();
    let mut table = [9f32; 8];
    let run = |table: &mut [f32], padding| {
        embedding_grad(
            Src::of(&gy, &[4, 2], &[2, 1]),
            Src::of(&index, &[4], &[1]),
            padding,
            Dst::of(table, &[4, 2], &[2, 1]),
        )
    };
    run(&mut table, None).unwrap();
    assert_eq!(table, [3.0, 4.0, 7.0, 8.0, 6.0, 8.0, 0.0, 0.0]);
    run(&mut table, Some(0)).unwrap();
    assert_eq!(table, [0.0, 0.0, 7.0, 8.0, 6.0, 8.0, 0.0, 0.0]);
    let out = Operand::<i64>::zeros(&[2, 2, 3], 5);
    let mut shape_index = Operand::<i64>::new(&[2, 2], 3, &index);
    one_hot(shape_index.src(), out.dst()).unwrap();
    assert_eq!(out.values(), [0, 0, 1, 1, 0, 0, 0, 0, 1, 0, 1, 0]);
    shape_index = Operand::new(&[2, 2], 0, &[0, 1, -1, 3]);
    let bad = IndexError { position: 2, index: -1, size: 3 };
    assert_eq!(one_hot(shape_index.src(), out.dst()), Err(bad));
}

#[test]
fn several_indices_make_one() {
    let (i, j) = ([1i64, -1, 0], [3i64, 0, -2]);
    let mut out = [0i64; 3];
    let (i, j) = (Src::of(&i, &[3], &[1]), Src::of(&j, &[3], &[1]));
    flatten_index(&[i, j], &[2, 5], Negative::FromEnd, Dst::of(&mut out, &[3], &[1])).unwrap();
    assert_eq!(out, [8, 5, 3]);
    let got = flatten_index(&[i, j], &[2, 3], Negative::FromEnd, Dst::of(&mut out, &[3], &[1]));
    assert_eq!(got, Err((1, IndexError { position: 0, index: 3, size: 3 })));
}

#[test]
fn nothing_depends_on_threads_or_level() {
    // Many rows to few places: the order of addition shows.
    let (rows, d, m) = (13, 300, 4000);
    let i: Vec<i64> = (0..m as i64).map(|v| v * v % rows as i64).collect();
    let gy = noise32(m * d, 1);
    let got = same_everywhere(|| {
        let mut table = vec![1f32; rows * d];
        embedding_grad(
            Src::of(&gy, &[m, d], &[d as isize, 1]),
            Src::of(&i, &[m], &[1]),
            None,
            Dst::of(&mut table, &[rows, d], &[d as isize, 1]),
        )
        .unwrap();
        table
    });
    let mut want = vec![0f32; rows * d];
    for r in 0..m {
        for c in 0..d {
            want[i[r] as usize * d + c] += gy[r * d + c];
        }
    }
    assert_eq!(got, want);
    let n = 300_000;
    let mask: Vec<u8> = noise(n, 2).iter().map(|v| u8::from(*v > 0.0)).collect();
    let x = noise32(n, 3);
    let count = count_nonzero(Src::of(&mask, &[n], &[1]));
    let got = same_everywhere(|| {
        let mut out = vec![0f32; count];
        masked_select(
            Src::of(&x, &[n], &[1]),
            Src::of(&mask, &[n], &[1]),
            Dst::of(&mut out, &[count], &[1]),
        );
        out
    });
    let want: Vec<f32> = x.iter().zip(&mask).filter(|(_, m)| **m != 0).map(|(v, _)| *v).collect();
    assert_eq!(got, want);
}
