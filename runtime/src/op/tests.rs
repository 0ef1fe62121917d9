use super::*;
use crate::OpError;

fn t(dtype: DType, shape: &[usize]) -> TensorType {
    TensorType::new(dtype, shape)
}

fn shape_of(op: &Op, xs: &[TensorType]) -> Result<Vec<usize>, OpError> {
    let refs: Vec<_> = xs.iter().map(TensorType::as_ref).collect();
    Ok(infer(op, &refs)?[0].shape.to_vec())
}

/// One op of every kind with attributes that are not the defaults.
pub(crate) fn samples() -> Vec<Op<Dim>> {
    let n = Dim::symbol(0);
    let nk = |k: usize| n.times(&Dim::of(k));
    let dims = |d: &[Dim]| d.iter().cloned().collect::<Dims<Dim>>();
    let mut ops = vec![
        Op::Full {
            value: Scalar::Float(-0.5),
            dtype: DType::F32,
            shape: dims(std::slice::from_ref(&n)),
        },
        Op::Full { value: Scalar::Bool(true), dtype: DType::Bool, shape: dims(&[]) },
        Op::Iota { dtype: DType::I64, shape: dims(&[nk(2), Dim::of(3)]), axis: 1 },
        Op::Random {
            kind: RandomKind::Normal,
            dtype: DType::F64,
            shape: dims(&[Dim::of(4)]),
            seed: u64::MAX,
            offset: 9,
        },
        Op::Select {},
        Op::Cast { dtype: DType::BF16 },
        Op::Reduce { kind: ReduceKind::Prod, axes: [0, 2].into_iter().collect(), keep: true },
        Op::ArgReduce { kind: ArgKind::Min, axis: 1, keep: false },
        Op::Scan { kind: ScanKind::Sum, axis: 0, reverse: true },
        Op::Sort { axis: 1, descending: true },
        Op::TopK { k: 3, axis: 0, largest: false },
        Op::Reshape { shape: dims(&[nk(28), Dim::of(28)]) },
        Op::Permute { perm: [2, 0, 1].into_iter().collect() },
        Op::Broadcast { shape: dims(&[n.clone(), Dim::of(2)]) },
        Op::Slice { axis: 1, start: Dim::of(1), len: n.clone(), step: 2 },
        Op::SliceAssign { axis: 0, start: nk(1), step: 1 },
        Op::Flip { axes: [1].into_iter().collect() },
        Op::Pad {
            low: [1, 0].into_iter().collect(),
            high: [0, 2].into_iter().collect(),
            value: Scalar::Int(7),
        },
        Op::Concat { axis: 2 },
        Op::Gather { axis: 0 },
        Op::Scatter { axis: 0, kind: ScatterKind::Add },
        Op::IndexSelect { axis: 1 },
        Op::IndexAdd { axis: 1 },
        Op::MatMul { act: Act::Gelu },
        Op::Conv { stride: [1, 2], padding: [0, 1], dilation: [1, 1], groups: 2, act: Act::Relu },
        Op::ConvInputGrad {
            stride: [1, 1],
            padding: [1, 1],
            dilation: [1, 1],
            groups: 1,
            height: Dim::of(5),
            width: n.clone(),
        },
        Op::ConvWeightGrad {
            stride: [2, 2],
            padding: [0, 0],
            dilation: [1, 1],
            groups: 1,
            kernel: [3, 3],
        },
        Op::Pool {
            kind: PoolKind::Max,
            window: [2, 2],
            stride: [2, 2],
            padding: [0, 0],
            dilation: [1, 1],
            ceil: true,
        },
        Op::PoolGrad {
            kind: PoolKind::AvgInside,
            window: [3, 3],
            stride: [1, 1],
            padding: [1, 1],
            dilation: [1, 1],
            ceil: false,
        },
        Op::Softmax { axis: 1, log: true },
        Op::SoftmaxGrad { axis: 0, log: false },
        Op::LayerNorm { dims: 2, eps: Real::new(1e-5) },
        Op::LayerNormGrad { dims: 1, eps: Real::new(1e-12) },
        Op::Attention { scale: Real::new(0.125), causal: true },
        Op::AttentionGrad { scale: Real::new(0.125), causal: false },
        Op::Dropout { p: Real::new(0.25), seed: 1, offset: 2 },
        Op::Recurrent { kind: CellKind::Gru, reverse: true, keep: false },
        Op::RecurrentGrad { kind: CellKind::Lstm, reverse: false },
    ];
    ops.extend(UnaryOp::ALL.iter().map(|&u| Op::Unary(u)));
    ops.extend(BinaryOp::ALL.iter().map(|&b| Op::Binary(b)));
    ops.extend(CompareOp::ALL.iter().map(|&c| Op::Compare(c)));
    ops
}

#[test]
fn every_op_prints_and_parses_back() {
    let names = ["N".to_string()];
    for op in samples() {
        let text = op.text(&names);
        assert_eq!(Op::parse(&text, &names).unwrap_or_else(|e| panic!("{text}: {e}")), op);
    }
}

#[test]
fn names_are_unique() {
    let mut names: Vec<_> = samples().iter().map(|o| o.name()).collect();
    names.dedup(); // the two samples of `full` stand together
    let n = names.len();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), n);
}

#[test]
fn bad_op_text_is_an_error() {
    for text in [
        "",
        "nope",
        "softmax",
        "softmax[axis=1]",
        "softmax[axis=x, log=true]",
        "add[axis=1]",
        "softmax[axis=1, log=true",
        "reduce[kind=sum, axes=(0, keep=true]",
        "permute[perm=1, 0]",
    ] {
        assert!(Op::parse(text, &[]).is_err(), "{text}");
    }
}

#[test]
fn shapes() {
    let f = DType::F32;
    let add = Op::Binary(BinaryOp::Add);
    assert_eq!(shape_of(&add, &[t(f, &[2, 1]), t(f, &[3])]).unwrap(), [2, 3]);
    let e = shape_of(&add, &[t(f, &[2, 3]), t(f, &[4])]).unwrap_err().to_string();
    assert!(e.contains("add") && e.contains("[2, 3]") && e.contains("[4]"), "{e}");
    assert!(shape_of(&add, &[t(f, &[2]), t(DType::I64, &[2])]).is_err());

    let mm = Op::MatMul { act: Act::None };
    assert_eq!(shape_of(&mm, &[t(f, &[5, 1, 2, 3]), t(f, &[4, 3, 6])]).unwrap(), [5, 4, 2, 6]);
    let e = shape_of(&mm, &[t(f, &[2, 3]), t(f, &[2, 3])]).unwrap_err().to_string();
    assert!(e.contains("3 columns meet 2 rows"), "{e}");

    let conv = |stride, padding, dilation, groups| Op::Conv {
        stride,
        padding,
        dilation,
        groups,
        act: Act::None,
    };
    let op = conv([2, 2], [3, 3], [1, 1], 1);
    assert_eq!(
        shape_of(&op, &[t(f, &[1, 3, 224, 224]), t(f, &[64, 3, 7, 7])]).unwrap(),
        [1, 64, 112, 112]
    );
    assert!(shape_of(&op, &[t(f, &[1, 4, 224, 224]), t(f, &[64, 3, 7, 7])]).is_err());
    assert!(
        shape_of(&conv([1, 1], [0, 0], [1, 1], 1), &[t(f, &[1, 3, 2, 2]), t(f, &[8, 3, 3, 3])])
            .is_err()
    );
    assert!(
        shape_of(&conv([0, 1], [0, 0], [1, 1], 1), &[t(f, &[1, 3, 9, 9]), t(f, &[8, 3, 3, 3])])
            .is_err()
    );

    let pool = |ceil| Op::Pool {
        kind: PoolKind::Max,
        window: [3, 3],
        stride: [2, 2],
        padding: [1, 1],
        dilation: [1, 1],
        ceil,
    };
    assert_eq!(shape_of(&pool(false), &[t(f, &[1, 1, 6, 7])]).unwrap(), [1, 1, 3, 4]);
    assert_eq!(shape_of(&pool(true), &[t(f, &[1, 1, 6, 7])]).unwrap(), [1, 1, 4, 4]);

    let slice = |start, len, step| Op::Slice { axis: 0, start, len, step };
    assert_eq!(shape_of(&slice(1, 3, 2), &[t(f, &[6])]).unwrap(), [3]);
    assert!(shape_of(&slice(1, 4, 2), &[t(f, &[6])]).is_err());
    assert_eq!(shape_of(&slice(6, 0, 1), &[t(f, &[6])]).unwrap(), [0]);
    assert!(shape_of(&slice(usize::MAX, 2, usize::MAX), &[t(f, &[6])]).is_err());

    let max = Op::Reduce { kind: ReduceKind::Max, axes: [0].into_iter().collect(), keep: false };
    assert!(shape_of(&max, &[t(f, &[0, 3])]).is_err());
    let sum = Op::Reduce { kind: ReduceKind::Sum, axes: [0].into_iter().collect(), keep: false };
    assert_eq!(infer(&sum, &[t(DType::U8, &[2, 3]).as_ref()]).unwrap()[0], t(DType::I64, &[3]));
}

#[test]
fn symbolic_shapes_follow_the_same_rules() {
    let n = Dim::symbol(0);
    let x =
        TensorType::new(DType::F32, [n.clone(), Dim::of(1), Dim::of(28), Dim::of(28)].as_slice());
    let w = TensorType::new(DType::F32, [32, 1, 3, 3].map(Dim::of).as_slice());
    let op =
        Op::Conv { stride: [1, 1], padding: [0, 0], dilation: [1, 1], groups: 1, act: Act::None };
    let y = infer(&op, &[x.as_ref(), w.as_ref()]).unwrap().remove(0);
    assert_eq!(y.text(&["N".into()]), "f32[N, 32, 26, 26]");
    let flat = Op::Reshape { shape: [n.clone(), Dim::of(32 * 26 * 26)].into_iter().collect() };
    assert!(infer(&flat, &[y.as_ref()]).is_ok());
    let wrong = Op::Reshape { shape: [n, Dim::of(32 * 26)].into_iter().collect() };
    assert!(infer(&wrong, &[y.as_ref()]).is_err());
}
