//! Every op of the vocabulary that devices have code for gives the processor's results;
//! the others are a list.

use super::{caught, device, same, sample};
use sinter::op::*;
use sinter::{DType, Op, Scalar, Tensor, apply_op};
use std::collections::BTreeSet;

/// Sums are added up in another order where rows are not short and dense.
const SUMS: f64 = 1e-5;

#[derive(Default)]
struct Outcome {
    ran: usize,
    wrong: Vec<String>,
    refused: BTreeSet<String>,
}

impl Outcome {
    /// Runs an op here and there; what it refuses there is noted.
    fn check(&mut self, op: &Op, inputs: &[&Tensor], tolerance: f64) {
        let Ok(want) = caught(|| apply_op(op.clone(), inputs)) else { return };
        let moved: Vec<Tensor> = inputs.iter().map(|x| there(x)).collect();
        let refs: Vec<&Tensor> = moved.iter().collect();
        let types: Vec<String> =
            inputs.iter().map(|x| format!("{} {:?}", x.dtype(), x.shape())).collect();
        let what = format!("{op} of {}", types.join(", "));
        match caught(|| apply_op(op.clone(), &refs)) {
            Err(e) => {
                let Some((reason, _)) = e.split_once(" (operand 0") else {
                    return self.wrong.push(format!("{what}: {e}"));
                };
                match reason.split_once("not supported: no code for cuda:0: ") {
                    Some((name, why)) => drop(self.refused.insert(format!("{name}{why}"))),
                    None => self.wrong.push(format!("{what}: {e}")),
                }
            }
            Ok(got) => {
                self.ran += 1;
                for (g, w) in got.iter().zip(&want) {
                    assert_eq!(g.device(), device(), "{what}");
                    if let Err(e) = same(g, w, tolerance) {
                        self.wrong.push(format!("{what}: {e}"));
                    }
                }
            }
        }
    }

    fn finish(self, name: &str, least: usize) {
        assert!(self.wrong.is_empty(), "{} wrong:\n{}", self.wrong.len(), self.wrong.join("\n"));
        assert!(self.ran >= least, "{} ran", self.ran);
        let refused: Vec<String> = self.refused.into_iter().collect();
        insta::assert_snapshot!(name, refused.join("\n"));
    }
}

/// The tensor on the device, with the strides that it has here.
fn there(x: &Tensor) -> Tensor {
    let dense: Vec<i64> = {
        let mut order: Vec<usize> = (0..x.rank()).collect();
        order.sort_by_key(|&d| std::cmp::Reverse(x.strides()[d]));
        order.iter().map(|&d| d as i64).collect()
    };
    let mut back = vec![0i64; dense.len()];
    for (place, &d) in dense.iter().enumerate() {
        back[d as usize] = place as i64;
    }
    x.permute(dense).to(device()).permute(back)
}

/// Empty, a number, one element, a prime number of them, more than a block; and of other
/// types, not in order.
fn awkward(dtype: DType, seed: usize) -> Vec<Tensor> {
    let x = |shape: &[usize]| sample(shape, dtype, seed);
    match dtype {
        DType::F32 => vec![x(&[0, 3]), x(&[]), x(&[1]), x(&[7]), x(&[257])],
        _ => vec![x(&[0, 3]).t(), x(&[3, 5]).t(), x(&[2, 3, 4]).permute([2, 0, 1]).narrow(0, 1, 1)],
    }
}

#[test]
fn element_by_element() {
    let mut o = Outcome::default();
    for d in [DType::F32, DType::I64] {
        let (xs, ys) = (awkward(d, 1), awkward(d, 2));
        for &u in UnaryOp::ALL {
            xs.iter().for_each(|x| o.check(&Op::Unary(u), &[x], 0.0));
        }
        for (x, y) in xs.iter().zip(&ys) {
            BinaryOp::ALL.iter().for_each(|&b| o.check(&Op::Binary(b), &[x, y], 0.0));
            CompareOp::ALL.iter().for_each(|&c| o.check(&Op::Compare(c), &[x, y], 0.0));
        }
    }
    for x in
        [sample(&[3, 5], DType::F32, 1).t(), sample(&[2, 3, 4], DType::F32, 1).permute([2, 0, 1])]
    {
        o.check(&Op::Binary(BinaryOp::Mul), &[&x, &x.flip([0])], 0.0);
    }
    o.finish("element_by_element", 300);
}

#[test]
fn types_and_broadcasting() {
    let mut o = Outcome::default();
    let real: Vec<DType> = DType::ALL.into_iter().filter(|d| !d.is_complex()).collect();
    for &d in &real {
        let (x, row, column) = (sample(&[4, 5], d, 1), sample(&[5], d, 2), sample(&[4, 1], d, 3));
        let number = sample(&[], d, 4);
        for b in [BinaryOp::Add, BinaryOp::Mul, BinaryOp::Max] {
            o.check(&Op::Binary(b), &[&x, &x], 0.0);
            for y in [&row, &column, &number] {
                o.check(&Op::Binary(b), &[if d == DType::F32 { y } else { &x }, y], 0.0);
            }
        }
        o.check(&Op::Compare(CompareOp::Lt), &[&x, &row], 0.0);
        o.check(&Op::Unary(UnaryOp::Square), &[&x], 0.0);
        o.check(&Op::Select {}, &[&sample(&[4, 1], DType::Bool, 5), &x, &number], 0.0);
        for dtype in [DType::F32, DType::I64, DType::U8, DType::Bool, DType::BF16] {
            o.check(&Op::Cast { dtype }, &[&x], 0.0);
        }
    }
    for d in [DType::C64, DType::C128] {
        let (x, y) = (sample(&[4, 5], d, 1), sample(&[5], d, 2));
        for b in [BinaryOp::Add, BinaryOp::Mul] {
            o.check(&Op::Binary(b), &[&x, &y], 1e-6);
        }
        o.check(&Op::Cast { dtype: DType::F32 }, &[&x], 0.0);
    }
    o.finish("types_and_broadcasting", 150);
}

#[test]
fn along_axes() {
    let mut o = Outcome::default();
    let mut both = |d: DType, shapes: &[&[usize]]| {
        let tolerance = if d == DType::F16 { 1e-2 } else { SUMS };
        for (i, shape) in shapes.iter().enumerate() {
            let x = sample(shape, d, 1);
            let last = x.rank() - 1;
            let x = if i % 2 == 0 { x } else { x.transpose(0, last as i64) };
            for &kind in ReduceKind::ALL {
                for axes in [&[0][..], &[last], &(0..=last).collect::<Vec<_>>()] {
                    let (keep, axes) = (axes[0] == 0, axes.iter().copied().collect());
                    o.check(&Op::Reduce { kind, axes, keep }, &[&x], tolerance);
                }
            }
            for &kind in ArgKind::ALL {
                for axis in [0, last] {
                    o.check(&Op::ArgReduce { kind, axis, keep: axis == 0 }, &[&x], 0.0);
                }
            }
        }
    };
    both(DType::F32, &[&[3, 7], &[5, 3], &[2, 3, 5], &[1, 1], &[0, 3], &[3, 0], &[2, 1100]]);
    for d in [DType::F16, DType::I64, DType::U8, DType::U64, DType::Bool] {
        both(d, &[&[3, 7], &[5, 3]]);
    }
    // Shared memory for values of two sizes.
    let (x, axis) = (sample(&[2, 1100], DType::U8, 1), 1);
    o.check(&Op::ArgReduce { kind: ArgKind::Max, axis, keep: false }, &[&x], 0.0);
    let none = Axes::new();
    let sum = Op::Reduce { kind: ReduceKind::Sum, axes: none, keep: false };
    o.check(&sum, &[&sample(&[3, 2], DType::U8, 1)], 0.0);
    o.finish("along_axes", 200);
}

#[test]
fn composites() {
    let mut o = Outcome::default();
    let x = super::finite(&[3, 4, 5], 1);
    let (y, g) = (super::finite(&[3, 4, 5], 2), super::finite(&[5], 3));
    for axis in 0..3 {
        for log in [false, true] {
            o.check(&Op::Softmax { axis, log }, &[&x], SUMS);
            o.check(&Op::SoftmaxGrad { axis, log }, &[&x, &y], SUMS);
        }
    }
    for dims in [1, 2] {
        let eps = Real::new(1e-5);
        o.check(&Op::LayerNorm { dims, eps }, &[&x], SUMS);
        o.check(&Op::LayerNormGrad { dims, eps }, &[&x, &y], SUMS);
    }
    let eps = Real::new(1e-5);
    o.check(&Op::LayerNorm { dims: 1, eps }, &[&x, &g, &g], SUMS);
    for causal in [false, true] {
        let scale = Real::new(0.5);
        o.check(&Op::Attention { scale, causal }, &[&x, &y, &x], SUMS);
        o.check(&Op::AttentionGrad { scale, causal }, &[&x, &y, &x, &y], SUMS);
    }
    let drop = Op::Dropout { p: Real::new(0.25), seed: 3, offset: 8 };
    o.check(&drop, &[&x], 1e-6);
    o.finish("composites", 17);
}

#[test]
fn products() {
    let mut o = Outcome::default();
    for d in [DType::F32, DType::F64, DType::F16, DType::I64] {
        let tolerance = if d == DType::F16 { 1e-2 } else { SUMS };
        let x = |shape: &[usize], seed: usize| super::finite(shape, seed).to_dtype(d);
        let plain = Op::MatMul { act: Act::None };
        for (m, k, n) in [(3, 5, 7), (1, 1, 1), (0, 3, 2), (2, 0, 3), (33, 40, 17)] {
            let (a, b) = (x(&[m, k], 1), x(&[k, n], 2));
            o.check(&plain, &[&a, &b], tolerance);
            o.check(&plain, &[&x(&[k, m], 1).t(), &x(&[n, k], 2).t()], tolerance);
        }
        let (a, b) = (x(&[2, 1, 3, 4], 1), x(&[5, 4, 6], 2));
        o.check(&plain, &[&a, &b], tolerance);
    }
    let x = |shape: &[usize], seed: usize| super::finite(shape, seed);
    let relu = Op::MatMul { act: Act::Relu };
    o.check(&relu, &[&x(&[4, 5], 1), &x(&[5, 3], 2), &x(&[3], 3)], SUMS);
    o.finish("products", 40);
}

#[test]
fn what_moves_elements() {
    let mut o = Outcome::default();
    for d in [DType::F32, DType::U8, DType::F64, DType::C64] {
        let x = sample(&[4, 6], d, 1);
        let views: Vec<Op> = vec![
            Op::Reshape { shape: [3, 8].as_slice().into() },
            Op::Permute { perm: [1, 0].into_iter().collect() },
            Op::Broadcast { shape: [2, 4, 6].as_slice().into() },
            Op::Slice { axis: 1, step: 2, start: 1, len: 3 },
            Op::Diagonal { axis1: 0, axis2: 1, row: 0, col: 1, len: 3 },
            Op::Unfold { axis: 1, size: 3, step: 2, count: 2 },
            Op::AsStrided {
                shape: [2, 2].as_slice().into(),
                strides: [3, 2].as_slice().into(),
                offset: 1,
            },
            Op::Flip { axes: [0, 1].into_iter().collect() },
        ];
        for v in &views {
            for x in [&x, &x.slice(1, 0, 6, 2)] {
                o.check(v, &[x], 0.0);
            }
        }
        o.check(&Op::Reshape { shape: [24].as_slice().into() }, &[&x.t()], 0.0);
        let base = sample(&[4, 9], d, 2);
        o.check(&Op::SliceAssign { axis: 1, step: 1, start: 2 }, &[&base, &x], 0.0);
        let (low, high) = ([1, 0].into_iter().collect(), [0, 2].into_iter().collect());
        o.check(&Op::Pad { low, high, value: Scalar::Float(2.0) }, &[&x.t()], 0.0);
        o.check(&Op::Concat { axis: 1 }, &[&x, &base, &x.flip([0])], 0.0);
    }
    let parts = sample(&[3, 2], DType::F32, 3);
    o.check(&Op::ViewAsComplex {}, &[&parts], 0.0);
    o.check(&Op::ViewAsReal {}, &[&sample(&[3], DType::C64, 3)], 0.0);
    o.finish("what_moves_elements", 60);
}

#[test]
fn by_index() {
    let mut o = Outcome::default();
    for d in [DType::F32, DType::F16, DType::I64, DType::U8] {
        let (x, v) = (sample(&[4, 6], d, 1), sample(&[3, 6], d, 2));
        let index = sinter::tensor([[0i64, 3, 1, 3], [2, 2, 0, 1]]);
        for x in [x.clone(), x.t().contiguous().t()] {
            o.check(&Op::Gather { axis: 0 }, &[&x, &index], 0.0);
            o.check(&Op::Gather { axis: 1 }, &[&x, &index], 0.0);
            for axis in [0, 1] {
                let line = sinter::tensor([2i64, 0, 2]);
                o.check(&Op::IndexSelect { axis }, &[&x, &line], 0.0);
                let slabs = if axis == 0 { v.narrow(1, 0, 6) } else { v.narrow(1, 0, 4).t() };
                let slabs = slabs.narrow(axis as i64, 0, 3);
                o.check(&Op::IndexAdd { axis }, &[&x, &line, &slabs], 1e-2);
                for &kind in ScatterKind::ALL {
                    let tolerance = if kind == ScatterKind::Set { 0.0 } else { 1e-2 };
                    let v = v.narrow(0, 1, 2).narrow(1, 2, 4);
                    o.check(&Op::Scatter { axis, kind }, &[&x, &index, &v], tolerance);
                }
            }
        }
    }
    let x = super::finite(&[3, 2], 1);
    let none = sinter::from_slice::<i64>(&[], [0]);
    o.check(&Op::IndexSelect { axis: 0 }, &[&x, &none], 0.0);
    o.check(&Op::IndexAdd { axis: 0 }, &[&x, &none, &super::finite(&[0, 2], 1)], 0.0);
    let bad = sinter::tensor([1i64, 0, 7, -1]).to(device());
    let e = caught(|| x.to(device()).index_select(0, &bad)).unwrap_err();
    assert!(e.contains("index 7 at position 2 is out of range for dimension 0 of size 3"), "{e}");
    o.finish("by_index", 100);
}

#[test]
fn convolutions() {
    let mut o = Outcome::default();
    for (stride, padding, dilation, groups) in [
        ([1, 1], [0, 0], [1, 1], 1),
        ([2, 1], [1, 1], [1, 1], 2),
        ([1, 2], [0, 3], [2, 1], 4),
        ([3, 3], [2, 0], [1, 1], 1),
    ] {
        let image = super::finite(&[2, 4, 7, 6], 2);
        let weight = super::finite(&[4, 4 / groups, 3, 2], 3);
        let conv = Op::Conv { stride, padding, dilation, groups, act: Act::None };
        o.check(&conv, &[&image, &weight], SUMS);
        let gy = apply_op(conv, &[&image, &weight]).swap_remove(0);
        let (height, width, kernel) = (7, 6, [3, 2]);
        let back = Op::ConvInputGrad { stride, padding, dilation, groups, height, width };
        o.check(&back, &[&gy, &weight], SUMS);
        let grad = Op::ConvWeightGrad { stride, padding, dilation, groups, kernel };
        o.check(&grad, &[&image, &gy], SUMS);
        let act = Act::Relu;
        let bias = super::finite(&[4], 5);
        let conv = Op::Conv { stride, padding, dilation, groups, act };
        o.check(&conv, &[&image, &weight, &bias], SUMS);
    }
    o.finish("convolutions", 16);
}

/// Ops that are left, on operands that fit them.
#[test]
fn the_rest() {
    let mut o = Outcome::default();
    let x = super::finite(&[4, 6], 1);
    let image = super::finite(&[2, 4, 6, 5], 2);
    let one: [usize; 2] = [1, 1];
    for &kind in ScanKind::ALL {
        o.check(&Op::Scan { kind, axis: 1, reverse: false }, &[&x], SUMS);
    }
    o.check(&Op::Sort { axis: 1, descending: true }, &[&x], 0.0);
    o.check(&Op::TopK { k: 2, axis: 1, largest: true }, &[&x], 0.0);
    o.check(&Op::SearchSorted { right: true }, &[&x, &x], 0.0);
    for &kind in PoolKind::ALL {
        let (window, stride, padding) = ([2, 2], [2, 2], [0, 0]);
        let pool = Op::Pool { kind, window, stride, padding, dilation: one, ceil: false };
        o.check(&pool, &[&image], SUMS);
        let gy = apply_op(pool, &[&image]).swap_remove(0);
        let back = Op::PoolGrad { kind, window, stride, padding, dilation: one, ceil: false };
        o.check(&back, &[&image, &gy], SUMS);
    }
    let (gates, w, h) =
        (super::finite(&[3, 2, 4], 5), super::finite(&[4, 4], 6), super::finite(&[2, 4], 7));
    let cell = Op::Recurrent { kind: CellKind::Tanh, reverse: false, keep: true };
    o.check(&cell, &[&gates, &w, &h], SUMS);
    o.check(&Op::Cholesky {}, &[&sinter::eye(3)], SUMS);
    o.check(&Op::Fft { axis: 1, inverse: false }, &[&sample(&[2, 3], DType::C64, 1)], SUMS);
    o.finish("the_rest", 0);
}

#[test]
fn from_nothing() {
    for d in [DType::F32, DType::I64, DType::U8, DType::F16, DType::Bool, DType::C64] {
        let like = sample(&[3, 4], d, 1);
        let moved = like.to(device());
        for (got, want) in [
            (sinter::zeros_like(&moved), sinter::zeros_like(&like)),
            (sinter::full_like(&moved, 2.0), sinter::full_like(&like, 2.0)),
        ] {
            assert_eq!(got.device(), device());
            same(&got, &want, 0.0).unwrap_or_else(|e| panic!("{d}: {e}"));
        }
    }
    let x = super::finite(&[5, 4], 1);
    for k in [-1, 0, 2] {
        same(&x.to(device()).tril(k), &x.tril(k), 0.0).expect("tril");
        same(&x.to(device()).triu(k), &x.triu(k), 0.0).expect("triu");
    }
}
