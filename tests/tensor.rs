//! Tensors as a user of NumPy or PyTorch expects them.

use sinter::{
    DType, Ellipsis, NewAxis, Op, Scalar, Tensor, apply_op_into, arange, cat, eye, from_slice,
    full, linspace, ones, op::BinaryOp, scalar, stack, tensor, zeros,
};
use std::fmt::Write;

fn ints(n: i64, shape: &[usize]) -> Tensor {
    arange(0, n, 1).reshape(shape)
}

#[test]
fn printing() {
    let pi = std::f64::consts::PI;
    let cases: Vec<(&str, Tensor)> = vec![
        ("scalar", tensor(1.5f32)),
        ("whole numbers", tensor([1.0f32, -20.0, 300.0])),
        ("fractions", tensor([[1.5f32, -2.25], [0.125, 100.0]])),
        ("large and small", tensor([1e-8f32, 1.0, 12345.678])),
        ("whole and large", tensor([1e9f32, 1.0])),
        ("not numbers", tensor([f32::NAN, f32::INFINITY, f32::NEG_INFINITY, -0.0, 1.5])),
        ("only not numbers", tensor([f32::NAN, f32::NEG_INFINITY])),
        ("doubles", tensor([pi, -pi])),
        ("halves", tensor([0.1f32, 2.0]).to_dtype(DType::F16)),
        ("brain floats", tensor([0.1f32, 2.0]).to_dtype(DType::BF16)),
        ("integers", ints(6, &[2, 3]) * 7 - 9),
        ("large integers", tensor([i64::MAX, i64::MIN, 0])),
        ("small integers", tensor([1i32, -2])),
        ("bytes", tensor([255u8, 0])),
        ("truth", tensor([[true, false], [false, false]])),
        ("three dimensions", ints(12, &[2, 3, 2])),
        ("empty", zeros([0, 3])),
        ("long", arange(0, 2000, 1)),
        ("large", ints(4000, &[40, 100])),
        ("wraps", linspace(0.0, 1.0, 17)),
        ("transposed", ints(6, &[2, 3]).t()),
        ("leaf", ones([2]).requires_grad_(true)),
        ("recorded", ones([2]).requires_grad_(true) * 2.0),
    ];
    let mut text = String::new();
    for (name, t) in cases {
        writeln!(text, "{name}\n{t}\n").unwrap();
    }
    insta::assert_snapshot!(text);
}

#[test]
fn basic_indexing() {
    let x = ints(24, &[2, 3, 4]);
    let v = |t: Tensor| t.to_vec::<i64>();
    assert_eq!(v(x.i(1)), (12..24).collect::<Vec<_>>());
    assert_eq!(v(x.i((1, 2, 3))), [23]);
    assert_eq!(x.i((1, 2, 3)).rank(), 0);
    assert_eq!(v(x.i((-1, -1, -1))), [23]);
    assert_eq!(v(x.i((.., 1, ..2))), [4, 5, 16, 17]);
    assert_eq!(v(x.i((0, 1.., -2..))), [6, 7, 10, 11]);
    assert_eq!(v(x.i((0, 0, 1..=2))), [1, 2]);
    assert_eq!(v(x.i((0, 0, ..=-2))), [0, 1, 2]);
    assert_eq!(v(x.i((0, 0, -3..-1))), [1, 2]);
    // Cut to what exists, as in Python.
    assert_eq!(x.i((0, 0, 2..99)).shape(), [2]);
    let from = 3;
    assert_eq!(x.i((0, 0, from..1)).shape(), [0]);
    assert_eq!(x.i((0, 0, 9..)).shape(), [0]);
    assert_eq!(x.i((Ellipsis, 1)).shape(), [2, 3]);
    assert_eq!(x.i((0, Ellipsis, 1)).shape(), [3]);
    assert_eq!(x.i((NewAxis, Ellipsis, NewAxis)).shape(), [1, 2, 3, 4, 1]);
    assert_eq!(x.i((0, NewAxis, 1, NewAxis)).shape(), [1, 1, 4]);
    let odd = sinter::IndexItem::Range { start: Some(1), end: None, step: 2 };
    assert_eq!(v(x.i(&[0.into(), 0.into(), odd][..])), [1, 3]);
    // Views, all of them.
    let y = x.copy();
    y.i((.., 0, 1..3)).fill_(-1);
    assert_eq!(y.eq(-1).sum().item::<i64>(), 4);
    assert_eq!(v(y.i((1, 0))), [12, -1, -1, 15]);
}

#[test]
fn layouts() {
    let x = ints(24, &[2, 3, 4]);
    let v = |t: &Tensor| t.to_vec::<i64>();
    let block = x.array().block();
    for view in [
        x.permute([2, 0, 1]),
        x.transpose(0, -1),
        x.movedim(0, 2),
        x.reshape([6, -1]),
        x.flatten(1, 2),
        x.unsqueeze(-1).squeeze(3),
        x.narrow(1, 1, 2),
        x.slice(2, 0, 4, 3),
        x.select(1, -1),
        x.flip([0, 2]),
        x.unsqueeze(0).broadcast_to([5, -1, -1, -1]),
    ] {
        assert!(view.array().block().same(block) && view.is_view(), "{:?}", view.shape());
    }
    assert_eq!(x.movedim(0, 2).shape(), [3, 4, 2]);
    assert_eq!(x.permute([2, 0, 1]).shape(), [4, 2, 3]);
    assert_eq!(v(&x.transpose(0, -1))[..4], [0, 12, 4, 16]);
    // What strides cannot express is copied.
    let flat = x.transpose(0, 2).reshape([24]);
    assert!(!flat.array().block().same(block));
    assert_eq!(v(&flat)[..3], [0, 12, 4]);
    assert_eq!(v(&x.slice(2, 1, 4, 2))[..4], [1, 3, 5, 7]);
    let parts = x.split(2, 1);
    assert_eq!(parts.iter().map(|p| p.size(1)).collect::<Vec<_>>(), [2, 1]);
    assert_eq!(v(&cat(&parts.iter().collect::<Vec<_>>(), 1)), v(&x));
    assert_eq!(x.chunk(3, 2).len(), 2);
    let planes = x.unbind(0);
    assert_eq!(v(&stack(&planes.iter().collect::<Vec<_>>(), 0)), v(&x));
    assert_eq!(stack(&[&planes[0], &planes[1]], -1).shape(), [3, 4, 2]);
    assert_eq!(v(&tensor([1i64, 2]).repeat([2, 2])), [1, 2, 1, 2, 1, 2, 1, 2]);
    assert_eq!(v(&tensor([[1i64]]).pad(&[(1, 0), (0, 2)], 5)), [5, 5, 5, 1, 5, 5]);
}

#[test]
fn making_tensors() {
    assert_eq!(zeros([2, 0]).numel(), 0);
    assert_eq!(full([2], 3, DType::U8).to_vec::<u8>(), [3, 3]);
    assert_eq!(eye(2).to_vec::<f32>(), [1.0, 0.0, 0.0, 1.0]);
    assert_eq!(arange(5, 0, -2).to_vec::<i64>(), [5, 3, 1]);
    assert_eq!(arange(0.0, 1.0, 0.3).numel(), 4);
    assert_eq!(linspace(-1.0, 1.0, 5).to_vec::<f32>(), [-1.0, -0.5, 0.0, 0.5, 1.0]);
    assert_eq!(linspace(2.0, 9.0, 1).to_vec::<f32>(), [2.0]);
    assert_eq!(from_slice(&[1i32, 2], [2, 1]).shape(), [2, 1]);
    assert_eq!(tensor(vec![vec![true], vec![false]]).shape(), [2, 1]);
    assert_eq!(scalar(7, DType::BF16).item::<f64>(), 7.0);
    assert_eq!(tensor([[0i64, 2], [0, 3]]).nonzero().to_vec::<i64>(), [0, 1, 1, 1]);
    assert_eq!(tensor(5i64).nonzero().shape(), [1, 0]);
    let x = ints(9, &[3, 3]);
    assert_eq!(x.tril(-1).sum().item::<i64>(), 3 + 6 + 7);
    assert_eq!(x.triu(1).sum().item::<i64>(), 1 + 2 + 5);
    assert_eq!(x.masked_select(&x.gt(6)).to_vec::<i64>(), [7, 8]);
    assert_eq!(tensor([1i64, 2]).outer(&tensor([3i64, 4])).to_vec::<i64>(), [3, 4, 6, 8]);
    let (values, at) = tensor([[3i64, 9, 9], [4, 1, 0]]).max_dim(1, false);
    assert_eq!((values.to_vec::<i64>(), at.to_vec::<i64>()), (vec![9, 4], vec![1, 0]));
    assert!(ones([2]).allclose(&(ones([2]) + 1e-7), 0.0, 1e-6));
    assert!(!ones([2]).allclose(&ones([1, 2]), 1.0, 1.0));
}

#[test]
fn operators_take_references_values_and_numbers() {
    let (a, b) = (tensor([6.0f32]), tensor([4.0f32]));
    let all = [&a + &b, a.clone() + &b, &a + b.clone(), a.clone() + b.clone()];
    assert!(all.iter().all(|t| t.item::<f32>() == 10.0));
    let all =
        [&a - 4.0, 10.0 - &b - 4.0 * 1.0, &a * 2.0 - 10.0, 8.0 / &b, &b % 6.0 - 2.0, -(&a) + 8];
    assert!(all.iter().all(|t| t.item::<f32>() == 2.0), "{all:?}");
    assert_eq!((-tensor([7i64]) % 4).item::<i64>(), 1);
    assert_eq!(tensor([7i64]).floor_divide(-2).item::<i64>(), -4);
    assert_eq!((tensor([1i64]) / 2).dtype(), DType::F32);
    assert_eq!(tensor([2i64]).pow(10).item::<i64>(), 1024);
    assert_eq!(tensor([true, false]).logical_not().to_vec::<u8>(), [0, 1]);
}

/// `a + b` and `a / b` of every pair of types, of tensors with dimensions, tensors
/// without, and numbers.
#[test]
fn types_promote_as_in_pytorch() {
    let table = include_str!("reference/promotion.txt");
    let one = |text: &str| -> Result<Tensor, Scalar> {
        let shaped = text.strip_suffix("[2]");
        let dtype = shaped.or(text.strip_suffix("[]")).and_then(DType::from_name);
        match (dtype, text) {
            (Some(d), _) if shaped.is_some() => Ok(full([2], 1, d)),
            (Some(d), _) => Ok(full((), 1, d)),
            (None, "bool") => Err(Scalar::Bool(true)),
            (None, "int") => Err(Scalar::Int(2)),
            (None, "float") => Err(Scalar::Float(2.5)),
            _ => panic!("`{text}` is no operand"),
        }
    };
    let mut wrong = Vec::new();
    for line in table.lines() {
        let [a, b, sum, quotient] = line.split(' ').collect::<Vec<_>>()[..] else {
            panic!("`{line}` is no case")
        };
        let x = one(a).expect("a tensor stands on the left");
        let (s, q) = match one(b) {
            Ok(y) => (&x + &y, &x / &y),
            Err(n) => (&x + n, &x / n),
        };
        if (s.dtype().name(), q.dtype().name()) != (sum, quotient) {
            wrong.push(format!("{line}: {} and {}", s.dtype(), q.dtype()));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert_eq!(table.lines().count(), 24 * 27);
}

#[test]
fn in_place_ops_keep_the_type_and_refuse_overlaps() {
    let x = tensor([1i64, 2]);
    x.add_(3);
    assert_eq!(x.to_vec::<i64>(), [4, 5]);
    x.mul_(tensor([true, false]));
    assert_eq!(x.to_vec::<i64>(), [4, 0]);
    let refused =
        |f: &dyn Fn() -> u64| std::panic::catch_unwind(std::panic::AssertUnwindSafe(f)).is_err();
    assert!(refused(&|| x.div_(2).version()));
    assert!(refused(&|| x.add_(tensor([[1i64], [2]])).version()));
    let wide = ones([1]).broadcast_to([3]);
    assert!(refused(&|| wide.add_(1.0).version()));
    let y = ints(5, &[5]);
    assert!(refused(&|| y.narrow(0, 1, 4).copy_(&y.narrow(0, 0, 4)).version()));
    let m = ints(4, &[2, 2]);
    assert!(refused(&|| m.add_(m.t()).version()));
    assert_eq!((y.to_vec::<i64>(), m.to_vec::<i64>()), (vec![0, 1, 2, 3, 4], vec![0, 1, 2, 3]));
    // An operand in between is read before it is written.
    y.narrow(0, 0, 4).slice(0, 0, 4, 2).copy_(&y.slice(0, 1, 5, 2));
    assert_eq!(y.to_vec::<i64>(), [1, 1, 3, 3, 4]);
}

#[test]
fn results_are_written_where_they_are_wanted() {
    let x = ints(6, &[2, 3]);
    let (values, indices) =
        (zeros([2, 2]).to_dtype(DType::I64), zeros([2, 4]).to_dtype(DType::I64));
    let top = Op::TopK { k: 2, axis: 1, largest: true };
    apply_op_into(top.clone(), &[&x], &[&values, &indices.slice(1, 0, 4, 2)]);
    assert_eq!(values.to_vec::<i64>(), [2, 1, 5, 4]);
    assert_eq!(indices.to_vec::<i64>(), [2, 0, 1, 0, 2, 0, 1, 0]);
    assert_eq!(values.version(), 1);
    let add = Op::Binary(BinaryOp::Add);
    let said = |f: &dyn Fn()| {
        let e = std::panic::catch_unwind(std::panic::AssertUnwindSafe(f)).unwrap_err();
        e.downcast_ref::<String>().unwrap().clone()
    };
    let cases: [(&dyn Fn(), &str); 5] = [
        (&|| apply_op_into(top.clone(), &[&x], &[&values, &values]), "share"),
        (&|| apply_op_into(add.clone(), &[&x, &x], &[&values]), "results are"),
        (&|| apply_op_into(add.clone(), &[&x, &x], &[&zeros([2, 3])]), "results are"),
        (
            &|| {
                apply_op_into(
                    add.clone(),
                    &[&x.t(), &x.t()],
                    &[&x.reshape([6]).as_strided([3, 2], [2, 1], None)],
                )
            },
            "share part",
        ),
        (
            &|| {
                let w = ones([2]).requires_grad_(true);
                apply_op_into(add.clone(), &[&w, &w], &[&zeros([2])]);
            },
            "requires a gradient",
        ),
    ];
    for (f, want) in cases {
        let got = said(f);
        assert!(got.contains(want), "{got}");
    }
}

#[test]
fn reductions_of_nothing() {
    let e = zeros([0, 3]);
    assert_eq!((e.sum().item::<f32>(), e.prod().item::<f32>()), (0.0, 1.0));
    assert_eq!(e.sum_dim(0, false).to_vec::<f32>(), [0.0; 3]);
    assert!(e.mean().item::<f32>().is_nan());
    assert!(!e.any().item_scalar().as_bool() && e.all().item_scalar().as_bool());
    assert_eq!(e.amax(1, true).shape(), [0, 1]);
    assert_eq!(e.softmax(0).shape(), [0, 3]);
    assert_eq!(e.matmul(&zeros([3, 2])).shape(), [0, 2]);
    assert_eq!(e.t().matmul(&zeros([0, 2])).to_vec::<f32>(), [0.0; 6]);
    assert_eq!(e.nonzero().shape(), [0, 2]);
}

#[test]
fn sums_are_accurate() {
    // A million tenths: adding one after the other is off by hundreds.
    let s = full([1 << 20], 0.1, DType::F32).sum().item::<f64>();
    assert!((s - 104857.6015625).abs() < 0.1, "{s}");
    let x = tensor([1e8f32, 1.0, -1e8]).to_dtype(DType::F64).sum();
    assert_eq!(x.item::<f64>(), 1.0);
}

#[test]
fn matmul_takes_vectors() {
    let (m, v) = (ints(6, &[2, 3]), tensor([1i64, 10, 100]));
    assert_eq!(m.matmul(&v).to_vec::<i64>(), [210, 543]);
    assert_eq!(tensor([1i64, 10]).matmul(&m).to_vec::<i64>(), [30, 41, 52]);
    assert_eq!((v.dot(&v).rank(), v.dot(&v).item::<i64>()), (0, 10101));
    assert_eq!(ones([4, 1, 2, 3]).matmul(&ones([5, 3, 2])).shape(), [4, 5, 2, 2]);
}
