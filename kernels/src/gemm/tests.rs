use super::*;
use crate::testing::{FAR, noise32, same_everywhere};
use proptest::prelude::*;

/// A matrix of a batch: memory, offset of the first element, shape and strides.
/// Memory is no larger than needed, so that a sanitizer or a guard page sees a
/// read outside.
#[derive(Clone, Debug)]
struct Operand {
    block: Vec<f32>,
    offset: usize,
    shape: [usize; 3],
    strides: [isize; 3],
}

#[derive(Clone, Copy, Debug)]
enum Layout {
    Rows,
    Columns,
    Gaps,
    Reversed,
    OneBatch,
}

fn operand(shape: [usize; 3], layout: Layout, seed: u64) -> Operand {
    let [b, r, c] = shape.map(|n| n as isize);
    let strides = match layout {
        Layout::Rows => [r * c, c, 1],
        Layout::Columns => [r * c, 1, r],
        Layout::Gaps => [r * (2 * c + 1), 2 * c + 1, 2],
        Layout::Reversed => [r * c, -c, -1],
        Layout::OneBatch => [0, c, 1],
    };
    let reach = |s: isize, n: isize| s * (n - 1).max(0);
    let ends = [reach(strides[0], b), reach(strides[1], r), reach(strides[2], c)];
    let low: isize = ends.iter().filter(|e| **e < 0).sum();
    let high: isize = ends.iter().filter(|e| **e > 0).sum();
    let len = (high - low + 1) as usize;
    Operand { block: noise32(len, seed), offset: -low as usize, shape, strides }
}

impl Operand {
    fn at(&self, i: [usize; 3]) -> usize {
        let o: isize = i.iter().zip(&self.strides).map(|(&i, &s)| i as isize * s).sum();
        self.offset.wrapping_add_signed(o)
    }

    fn src<'a>(&'a self, block: &'a crate::mem::Block) -> Src<'a, f32> {
        block.write(&self.block);
        block.src(self.offset, &self.shape, &self.strides)
    }
}

fn block(o: &Operand) -> crate::mem::Block {
    crate::mem::Block::from_owner_mut(vec![0u8; o.block.len() * 4])
}

/// One chain of multiply-adds an element, then the epilogue.
fn plain(a: &Operand, b: &Operand, c: &Operand, accumulate: bool, ep: &Epilogue) -> Vec<f32> {
    let mut out = c.block.clone();
    let [batch, m, k] = a.shape;
    for i in 0..batch {
        for r in 0..m {
            for j in 0..b.shape[2] {
                let at = c.at([i, r, j]);
                let mut sum = if accumulate { c.block[at] } else { 0.0 };
                for l in 0..k {
                    sum = a.block[a.at([i, r, l])].mul_add(b.block[b.at([i, l, j])], sum);
                }
                sum += ep.bias_col.map_or(0.0, |b| b[j]);
                sum += ep.bias_row.map_or(0.0, |b| b[r]);
                let sum = if ep.act == Act::Relu && sum < 0.0 { 0.0 } else { sum };
                out[at] = ep.most.filter(|&m| m < sum).unwrap_or(sum);
            }
        }
    }
    out
}

fn run(a: &Operand, b: &Operand, c: &Operand, accumulate: bool, ep: &Epilogue) -> Vec<f32> {
    let (ba, bb, bc) = (block(a), block(b), block(c));
    bc.write(&c.block);
    let dst = bc.dst(c.offset, &c.shape, &c.strides);
    gemm_batch_f32(a.src(&ba), b.src(&bb), dst, accumulate, ep);
    bc.src::<f32>(0, &[c.block.len()], &[1]).to_vec()
}

fn layout() -> impl Strategy<Value = Layout> {
    prop_oneof![
        3 => Just(Layout::Rows),
        2 => Just(Layout::Columns),
        1 => Just(Layout::Gaps),
        1 => Just(Layout::Reversed),
        1 => Just(Layout::OneBatch),
    ]
}

/// Cuts that make passes, blocks and groups of small products, too, and the rule's.
fn cut() -> impl Strategy<Value = Cut> {
    let small = (0usize..50, 0usize..800, 0usize..9000, 0usize..4000, 0usize..40).prop_map(
        |(steps, rows, panels, job, in_place)| Cut { steps, rows, panels, job, in_place },
    );
    prop_oneof![Just(Cut::RULE), small]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]
    #[test]
    fn every_shape_and_layout_gives_the_chain(
        batch in 0usize..3,
        m in prop_oneof![0usize..12, 12usize..70],
        k in 0usize..40,
        n in prop_oneof![0usize..20, 20usize..230],
        la in layout(), lb in layout(), lc in layout(),
        accumulate in any::<bool>(), bias in 0..4, relu in any::<bool>(), seed in any::<u64>(),
        cut in cut(),
    ) {
        let lc = if matches!(lc, Layout::OneBatch) { Layout::Rows } else { lc };
        let a = operand([batch, m, k], la, seed);
        let b = operand([batch, k, n], lb, seed ^ 1);
        let c = operand([batch, m, n], lc, seed ^ 2);
        let (rows, cols) = (noise32(m, seed ^ 3), noise32(n, seed ^ 4));
        let ep = Epilogue {
            bias_row: (bias & 1 != 0).then_some(&rows),
            bias_col: (bias & 2 != 0).then_some(&cols),
            act: if relu { Act::Relu } else { Act::None },
            most: (seed % 2 == 0).then_some(0.75),
            cut,
            ..Epilogue::NONE
        };
        let want = plain(&a, &b, &c, accumulate, &ep);
        let got = same_everywhere(|| run(&a, &b, &c, accumulate, &ep));
        assert!(got == want);
    }
}

/// Batches, rows, steps and columns at distances that 32 bits do not hold.
#[test]
fn operands_may_be_far_apart() {
    for [batch, m, k, n] in [[3, 5, 9, 70], [1, 3, 50, 33], [1, 40, 4, 100], [1, 70, 65, 2]] {
        let (x, y) = ([batch, m, k], [batch, k, n]);
        let (x_values, y_values) = (noise32(batch * m * k, 1), noise32(batch * k * n, 2));
        let product = |style: u64| {
            let a = crate::testing::Operand::new(&x, style, &x_values);
            let b = crate::testing::Operand::new(&y, style, &y_values);
            let c = crate::testing::Operand::zeros(&[batch, m, n], style);
            gemm_batch_f32(a.src(), b.src(), c.dst(), false, &Epilogue::NONE);
            c.values()
        };
        let want = product(0);
        assert_eq!(same_everywhere(|| product(FAR)), want);
    }
}

/// Large enough that several threads share the columns of a row or two.
#[test]
fn threads_share_a_packed_operand() {
    use std::sync::atomic::{AtomicU32, Ordering};
    let k = 5000;
    for (m, n) in [(1, 130), (2, 131), (1, 500), (3, 130)] {
        let a = operand([1, m, k], Layout::Rows, 5);
        let b = operand([1, k, n], Layout::Rows, 6);
        let c = operand([1, m, n], Layout::Rows, 7);
        let bias = noise32(n, 8);
        let ep = Epilogue { bias_col: Some(&bias), act: Act::Relu, ..Epilogue::NONE };
        let want = plain(&a, &b, &c, false, &ep);
        let (ba, bb) = (block(&a), block(&b));
        ba.write(&a.block);
        bb.write(&b.block);
        let mut packed = vec![0.0; packed_len(k, n)];
        pack_b(bb.src(b.offset, &b.shape[1..], &b.strides[1..]), &mut packed);
        let got = same_everywhere(|| {
            let bc = crate::mem::Block::try_new(m * n * 4).unwrap();
            let seen: Vec<AtomicU32> = (0..m * n).map(|_| AtomicU32::new(0)).collect();
            let hook = |t: Tile| {
                for i in t.row..t.row + t.rows {
                    for j in t.col..t.col + t.cols {
                        seen[i * n + j].fetch_add(1, Ordering::Relaxed);
                    }
                }
            };
            let ep = Epilogue { hook: Some(&hook), ..ep };
            let (shape, strides) = ([m, n], [n as isize, 1]);
            let dst = bc.dst(0, &shape, &strides);
            let a = ba.src(a.offset, &a.shape[1..], &a.strides[1..]);
            gemm_packed_f32(a, &packed, n, dst, &ep);
            assert!(seen.iter().all(|s| s.load(Ordering::Relaxed) == 1), "{m} x {n}");
            bc.src::<f32>(0, &[m * n], &[1]).to_vec()
        });
        assert!(got == want, "{m} x {n}");
    }
}

/// As the numbers of a product of pairs are summed up: the second of a pair first.
fn plain_bf16(a: &Operand, b: &Operand, bias: &[f32], relu: bool) -> Vec<f32> {
    let ([_, m, k], n) = (a.shape, b.shape[2]);
    let round = |x: f32| half::bf16::from_f32(x).to_f32();
    let mut out = vec![];
    for (r, j) in (0..m).flat_map(|r| (0..n).map(move |j| (r, j))) {
        let mut sum = 0.0f32;
        for pair in (0..k).step_by(2) {
            for l in [pair + 1, pair].into_iter().filter(|&l| l < k) {
                sum = round(a.block[a.at([0, r, l])]).mul_add(round(b.block[b.at([0, l, j])]), sum);
            }
        }
        sum += bias[j];
        out.push(if relu && sum < 0.0 { 0.0 } else { sum });
    }
    out
}

fn run_bf16(a: &Operand, b: &Operand, bias: &[f32], relu: bool, cut: Cut) -> Vec<f32> {
    let ([_, m, k], n) = (a.shape, b.shape[2]);
    let (ba, bb) = (block(a), block(b));
    let mut packed = vec![0.0; packed_len_bf16(k, n)];
    bb.write(&b.block);
    pack_b_bf16(bb.src(b.offset, &b.shape[1..], &b.strides[1..]), &mut packed);
    ba.write(&a.block);
    let a = ba.src(a.offset, &a.shape[1..], &a.strides[1..]);
    let bc = crate::mem::Block::try_new(m * n * 4).unwrap();
    let act = if relu { Act::Relu } else { Act::None };
    let ep = Epilogue { bias_col: Some(bias), act, cut, ..Epilogue::NONE };
    pairs::by_pairs(a, &packed, n, bc.dst(0, &[m, n], &[n as isize, 1]), &ep);
    bc.src::<f32>(0, &[m * n], &[1]).to_vec()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]
    #[test]
    fn pairs_give_their_chain(
        m in prop_oneof![0usize..12, 12usize..70],
        k in prop_oneof![0usize..40, Just(2100usize)],
        n in prop_oneof![0usize..20, 20usize..230],
        la in layout(), lb in layout(), relu in any::<bool>(), seed in any::<u64>(), cut in cut(),
    ) {
        let (a, b) = (operand([1, m, k], la, seed), operand([1, k, n], lb, seed ^ 1));
        let bias = noise32(n, seed ^ 2);
        let want = plain_bf16(&a, &b, &bias, relu);
        let got = same_everywhere(|| run_bf16(&a, &b, &bias, relu, cut));
        assert!(got == want);
    }
}

#[test]
fn pairs_keep_what_is_no_number() {
    let mut a = operand([1, 9, 7], Layout::Rows, 1);
    let b = operand([1, 7, 50], Layout::Rows, 2);
    a.block[3] = f32::NAN;
    a.block[7] = f32::INFINITY;
    a.block[15] = f32::MAX;
    let y = run_bf16(&a, &b, &[0.0; 50], false, Cut::RULE);
    assert!(y[..50].iter().all(|x| x.is_nan()) && y[50..100].iter().all(|x| x.is_infinite()));
    // Rounding to nearest: the largest number becomes infinity.
    assert!(y[100..150].iter().all(|x| x.is_infinite()) && y[150..].iter().all(|x| x.is_finite()));
}

/// By integers of 64 bits, from the definition.
fn plain_int8(a: &Operand, b: &Operand, x: Affine, bias: &[f32], relu: bool) -> Vec<f32> {
    let ([_, m, k], n) = (a.shape, b.shape[2]);
    let mut out = vec![0.0; m * n];
    for j in 0..n {
        let column: Vec<f32> = (0..k).map(|l| b.block[b.at([0, l, j])]).collect();
        let most = column.iter().fold(0.0f32, |m, w| m.max(w.abs()));
        let scale = if most > 0.0 { most / 127.0 } else { 1.0 };
        let w: Vec<i64> =
            column.iter().map(|w| (w * (1.0 / scale)).round_ties_even() as i64).collect();
        for r in 0..m {
            let q = |l: usize| i64::from(x.quantize(a.block[a.at([0, r, l])]));
            let sum: i64 = (0..k).map(|l| (q(l) - i64::from(x.zero)) * w[l]).sum();
            let y = sum as f32 * (x.scale * scale) + bias[j];
            out[r * n + j] = if relu && y < 0.0 { 0.0 } else { y };
        }
    }
    out
}

fn run_int8(a: &Operand, b: &Operand, x: Affine, bias: &[f32], relu: bool, i: usize) -> Vec<f32> {
    let ([_, m, k], n) = (a.shape, b.shape[2]);
    let (ba, bb) = (block(a), block(b));
    let mut packed = vec![f32::NAN; packed_len_int8(k, n)];
    bb.write(&b.block);
    pack_b_int8(bb.src(b.offset, &b.shape[1..], &b.strides[1..]), x, &mut packed);
    ba.write(&a.block);
    let a = ba.src(a.offset, &a.shape[1..], &a.strides[1..]);
    let bc = crate::mem::Block::try_new(m * n * 4).unwrap();
    let act = if relu { Act::Relu } else { Act::None };
    let ep = Epilogue { bias_col: Some(bias), act, ..Epilogue::NONE };
    // Forms that a level has no more of are as good as its best.
    let tiles = quads::Tiles::all().nth(i).unwrap_or_else(quads::Tiles::active);
    quads::product(a, &packed, n, bc.dst(0, &[m, n], &[n as isize, 1]), &ep, tiles);
    bc.src::<f32>(0, &[m * n], &[1]).to_vec()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]
    #[test]
    fn integers_are_summed_exactly(
        m in prop_oneof![0usize..12, 12usize..70],
        k in prop_oneof![9 => 0usize..40, 1 => Just(4099usize)],
        n in prop_oneof![0usize..20, 20usize..230],
        la in layout(), lb in layout(), relu in any::<bool>(), seed in any::<u64>(),
    ) {
        let (a, b) = (operand([1, m, k], la, seed), operand([1, k, n], lb, seed ^ 1));
        let bias = noise32(n, seed ^ 2);
        // Some numbers lie outside what is covered.
        let x = Affine::covering(-1.5 * (seed % 3) as f32 * 0.5, 1.9);
        let want = plain_int8(&a, &b, x, &bias, relu);
        for i in 0..3 {
            let got = same_everywhere(|| run_int8(&a, &b, x, &bias, relu, i));
            assert!(got == want, "form {i}");
        }
    }
}

#[test]
fn integers_stand_for_numbers() {
    let x = Affine::covering(-1.0, 3.0);
    assert_eq!((x.quantize(0.0), x.dequantize(x.zero)), (x.zero, 0.0));
    assert_eq!([x.quantize(-9.0), x.quantize(f32::NAN), x.quantize(f32::INFINITY)], [0, 0, 255]);
    for v in noise32(500, 3) {
        let v = v + 1.0;
        assert!((x.dequantize(x.quantize(v)) - v.clamp(-1.0, 3.0)).abs() <= 0.51 * x.scale, "{v}");
    }
    // Zero is always covered, and what has no extent has a scale.
    assert_eq!(Affine::covering(2.0, 5.1), Affine { scale: 0.02, zero: 0 });
    assert_eq!(Affine::covering(-5.1, -2.0), Affine { scale: 0.02, zero: 255 });
    assert_eq!(Affine::covering(0.0, 0.0), Affine { scale: 1.0, zero: 0 });
}

/// The largest sums there may be.
#[test]
fn integers_do_not_overflow() {
    let (k, n) = (LONGEST_INT8, 17);
    let all = |shape, v: f32| {
        let mut o = operand(shape, Layout::Rows, 1);
        o.block.fill(v);
        o
    };
    let (a, b) = (all([1, 2, k], 255.0), all([1, k, n], -127.0));
    let x = Affine { scale: 1.0, zero: 0 };
    let want = (-255.0 * 127.0 * k as f64) as f32;
    let got = same_everywhere(|| run_int8(&a, &b, x, &[0.0; 17], false, 0));
    assert!(got.iter().all(|&y| y == want), "{} {want}", got[0]);
}
