//! First and second derivatives of every op, layer and loss against differences.

use sinter::autograd::{GradCheckError, gradcheck, gradgradcheck};
use sinter::nn::functional::{self as F, Reduction};
use sinter::nn::{
    BatchNorm2d, Gru, Layer, LayerNorm, Linear, Lstm, Module, MultiHeadAttention, RecurrentOptions,
    Rnn, TransformerEncoderLayer, Visit, VisitMut,
};
use sinter::{DType, Op, Tensor, Vmap, apply_op, cat, eye, from_slice, stack, tensor};
use sinter_runtime::op::{
    Act, BinaryOp, CompareOp, PoolKind, ReduceKind, ScanKind, ScatterKind, TypeRef, UnaryOp, infer,
};
use std::collections::BTreeSet;

/// Distinct numbers from `low` to `high` in a mixed order, far enough apart that the
/// steps of differences swap none.
fn spread(shape: &[usize], low: f64, high: f64) -> Tensor {
    let n: usize = shape.iter().product();
    let stride = [7, 5, 3, 2, 1].into_iter().find(|s| !n.is_multiple_of(*s)).unwrap_or(1);
    let at = |i: usize| (i * stride % n) as f64 + 0.37;
    let values: Vec<f64> = (0..n).map(|i| low + (high - low) * at(i) / n as f64).collect();
    from_slice(&values, shape).requires_grad_(true)
}

/// Where the function and its derivatives are smooth.
fn domain(u: UnaryOp) -> (f64, f64) {
    use UnaryOp::*;
    match u {
        Log | Log2 | Log10 | Sqrt | Rsqrt | Reciprocal => (0.3, 2.5),
        Log1p => (-0.7, 2.0),
        Asin | Acos | Atanh => (-0.8, 0.8),
        Acosh => (1.2, 3.0),
        Tan => (-1.2, 1.2),
        Erfinv => (-0.8, 0.8),
        Ndtri => (0.1, 0.9),
        Lgamma | Digamma | K0 | K0e | K1 | K1e | Y0 | Y1 => (0.6, 3.1),
        _ => (-1.9, 2.1),
    }
}

/// An op with operands; indices are not differentiated.
struct Example {
    op: Op,
    inputs: Vec<Tensor>,
}

fn example(op: &str, inputs: Vec<Tensor>) -> Example {
    let op = Op::parse(op, &[]).unwrap_or_else(|e| panic!("{op}: {e}"));
    Example { op: op.eval(&[]).expect("extents are numbers"), inputs }
}

fn x(shape: &[usize]) -> Tensor {
    spread(shape, -1.7, 1.9)
}

fn examples() -> Vec<Example> {
    let mut out = Vec::new();
    for &u in UnaryOp::ALL {
        let (low, high) = domain(u);
        out.push(Example { op: Op::Unary(u), inputs: vec![spread(&[7], low, high)] });
    }
    for &b in BinaryOp::ALL {
        let (l, r) = match b {
            BinaryOp::Pow => (spread(&[2, 3], 0.3, 2.0), spread(&[3], -1.5, 2.5)),
            BinaryOp::Igamma | BinaryOp::Igammac | BinaryOp::Zeta => {
                (spread(&[2, 3], 1.6, 4.0).detach(), spread(&[3], 0.7, 3.0))
            }
            BinaryOp::Div | BinaryOp::Rem | BinaryOp::FloorDiv | BinaryOp::Fmod => {
                (spread(&[2, 3], 0.2, 7.0), spread(&[3], 1.1, 2.4))
            }
            _ => (x(&[2, 3]), spread(&[3], -1.2, 1.3)),
        };
        out.push(Example { op: Op::Binary(b), inputs: vec![l, r] });
    }
    let index = || tensor([[[2i64, 0, 2]], [[1, 1, 0]]]);
    let rows = || tensor([2i64, 0, 2, 1]);
    let cond = tensor([[true], [false]]);
    out.extend([
        example("select", vec![cond, x(&[2, 3]), x(&[3])]),
        example("cast[dtype=f64]", vec![x(&[3])]),
        example("reduce[kind=sum, axes=(0, 2), keep=false]", vec![x(&[2, 3, 2])]),
        example("reduce[kind=prod, axes=(1), keep=false]", vec![x(&[2, 3])]),
        example("reduce[kind=prod, axes=(0, 2), keep=true]", vec![x(&[2, 3, 2])]),
        example("reduce[kind=prod, axes=(0), keep=false]", vec![zeros_among()]),
        example("reduce[kind=max, axes=(0, 1), keep=false]", vec![x(&[2, 3])]),
        example("reduce[kind=min, axes=(1), keep=true]", vec![x(&[2, 3])]),
        example("scan[kind=sum, axis=1, reverse=false]", vec![x(&[2, 3])]),
        example("scan[kind=sum, axis=0, reverse=true]", vec![x(&[2, 3])]),
        example("scan[kind=prod, axis=1, reverse=false]", vec![x(&[2, 3])]),
        example("scan[kind=prod, axis=0, reverse=true]", vec![x(&[3, 2])]),
        example("scan[kind=prod, axis=0, reverse=false]", vec![zeros_among()]),
        example("scan[kind=prod, axis=0, reverse=true]", vec![zeros_among()]),
        example("scan[kind=max, axis=1, reverse=false]", vec![x(&[2, 5])]),
        example("scan[kind=min, axis=0, reverse=false]", vec![x(&[4, 2])]),
        example("scan[kind=logsumexp, axis=1, reverse=false]", vec![x(&[2, 4])]),
        example("scan[kind=logsumexp, axis=0, reverse=true]", vec![x(&[3, 2])]),
        example("diagonal[axis1=0, axis2=2, row=1, col=0, len=2]", vec![x(&[3, 2, 2])]),
        example("diagonal[axis1=1, axis2=0, row=0, col=1, len=2]", vec![x(&[3, 2])]),
        example("unfold[axis=0, size=3, step=1, count=3]", vec![x(&[5, 2])]),
        example("unfold[axis=1, size=2, step=3, count=2]", vec![x(&[2, 6, 2])]),
        example("as_strided[shape=(2, 3), strides=(2, 1), offset=1]", vec![x(&[3, 2])]),
        example("sort[axis=1, descending=true]", vec![x(&[2, 5])]),
        example("topk[k=2, axis=0, largest=true]", vec![x(&[4, 2])]),
        example("reshape[shape=(3, 2)]", vec![x(&[2, 3])]),
        example("permute[perm=(1, 2, 0)]", vec![x(&[2, 3, 2])]),
        example("broadcast[shape=(2, 3, 2)]", vec![x(&[3, 1])]),
        example("slice[axis=1, step=2, start=1, len=2]", vec![x(&[2, 5])]),
        example(
            "slice_assign[axis=1, step=2, start=1]",
            vec![x(&[2, 5]), spread(&[2, 2], 3.0, 4.0)],
        ),
        example("flip[axes=(0, 1)]", vec![x(&[2, 3])]),
        example("pad[low=(1, 0), high=(0, 2), value=0.5]", vec![x(&[2, 3])]),
        example("concat[axis=1]", vec![x(&[2, 3]), spread(&[2, 1], 2.0, 3.0)]),
        example("gather[axis=2]", vec![x(&[2, 1, 3]), index()]),
        example(
            "scatter[axis=2, kind=set]",
            vec![x(&[2, 1, 3]), tensor([[[2i64, 0]], [[1, 0]]]), x(&[2, 1, 2])],
        ),
        example("scatter[axis=2, kind=add]", vec![x(&[2, 1, 3]), index(), x(&[2, 1, 3])]),
        example("scatter[axis=2, kind=prod]", vec![x(&[2, 1, 3]), index(), x(&[2, 1, 3])]),
        example(
            "scatter[axis=2, kind=max]",
            vec![x(&[2, 1, 3]), index(), spread(&[2, 1, 3], -1.2, 1.0)],
        ),
        example(
            "scatter[axis=2, kind=min]",
            vec![x(&[2, 1, 3]), index(), spread(&[2, 1, 3], -1.2, 1.0)],
        ),
        example("index_select[axis=0]", vec![x(&[3, 2]), rows()]),
        example("index_add[axis=0]", vec![x(&[3, 2]), rows(), x(&[4, 2])]),
        example("matmul[act=none]", vec![x(&[2, 3, 2]), x(&[2, 3])]),
        example("matmul[act=none]", vec![x(&[2, 1, 2, 3]), x(&[3, 3, 2])]),
        example("matmul[act=none]", vec![x(&[3, 2]), x(&[2, 2]), x(&[2])]),
        example(
            "recurrent[kind=tanh, reverse=false, keep=false]",
            vec![x(&[2, 1, 2]), x(&[2, 2]), x(&[1, 2])],
        ),
        example(
            "recurrent[kind=relu, reverse=true, keep=false]",
            vec![x(&[2, 2, 2]), x(&[2, 2]), x(&[2, 2])],
        ),
        example(
            "recurrent[kind=gru, reverse=true, keep=true]",
            vec![x(&[2, 1, 6]), x(&[6, 2]), x(&[1, 2]), x(&[2])],
        ),
        example(
            "recurrent[kind=gru, reverse=false, keep=false]",
            vec![x(&[3, 2, 3]), x(&[3, 1]), x(&[2, 1])],
        ),
        example(
            "recurrent[kind=lstm, reverse=false, keep=true]",
            vec![x(&[2, 1, 8]), x(&[8, 2]), x(&[1, 2]), x(&[1, 2])],
        ),
        example(
            "recurrent[kind=lstm, reverse=true, keep=false]",
            vec![x(&[2, 2, 4]), x(&[4, 1]), x(&[2, 1]), x(&[2, 1])],
        ),
        example(
            "recurrent_grad[kind=tanh, reverse=true]",
            vec![x(&[2, 2]), x(&[2, 1, 2]), x(&[2, 1, 2])],
        ),
        example(
            "recurrent_grad[kind=gru, reverse=false]",
            vec![x(&[3, 1]), x(&[2, 1, 1]), x(&[2, 1, 1]), x(&[1, 1]), x(&[2, 1, 4])],
        ),
        example(
            "recurrent_grad[kind=lstm, reverse=false]",
            vec![
                x(&[4, 1]),
                x(&[2, 1, 1]),
                x(&[2, 1, 1]),
                x(&[1, 1]),
                x(&[2, 1, 4]),
                x(&[2, 1, 1]),
                x(&[2, 1, 4]),
            ],
        ),
        example("softmax[axis=1, log=false]", vec![x(&[2, 3])]),
        example("softmax[axis=0, log=true]", vec![x(&[3, 2])]),
        example("softmax_grad[axis=1, log=false]", vec![spread(&[2, 3], 0.1, 0.9), x(&[2, 3])]),
        example("softmax_grad[axis=1, log=true]", vec![x(&[2, 3]), x(&[2, 3])]),
        example("layer_norm[dims=1, eps=0.1]", vec![x(&[2, 3])]),
        example("layer_norm[dims=1, eps=0.1]", vec![x(&[2, 3]), x(&[3])]),
        example(
            "layer_norm[dims=2, eps=0.1]",
            vec![x(&[2, 2, 2]), x(&[2, 2]), spread(&[2, 2], 0.0, 1.0)],
        ),
        example("layer_norm_grad[dims=1, eps=0.1]", vec![x(&[2, 3]), spread(&[2, 3], -1.0, 1.0)]),
        example(
            "layer_norm_grad[dims=1, eps=0.1]",
            vec![x(&[2, 3]), spread(&[2, 3], -1.0, 1.0), x(&[3])],
        ),
        example(
            "attention[scale=0.5, causal=true]",
            vec![x(&[3, 2]), spread(&[4, 2], -1.0, 1.0), x(&[4, 2])],
        ),
        example(
            "attention[scale=0.5, causal=false]",
            vec![
                x(&[1, 2, 2]),
                spread(&[1, 3, 2], -1.0, 1.0),
                x(&[1, 3, 2]),
                spread(&[2, 3], -1.0, 0.5),
            ],
        ),
        example(
            "attention_grad[scale=0.5, causal=true]",
            vec![x(&[3, 2]), spread(&[4, 2], -1.0, 1.0), x(&[4, 2]), spread(&[3, 2], -0.5, 1.0)],
        ),
        example(
            "attention_grad[scale=0.5, causal=false]",
            vec![
                x(&[1, 2, 2]),
                spread(&[1, 3, 2], -1.0, 1.0),
                x(&[1, 3, 2]),
                spread(&[1, 2, 2], -0.5, 1.0),
                spread(&[2, 3], -1.0, 0.5),
            ],
        ),
        example("dropout[p=0.4, seed=3, offset=1]", vec![x(&[9])]),
        example("cholesky", vec![x(&[2, 3, 3])]),
        example("eigh", vec![x(&[2, 3, 3])]),
        example("lu", vec![x(&[2, 3, 3])]),
        example("lu", vec![x(&[2, 4])]),
        example("lu", vec![x(&[4, 2])]),
        example("qr[full=false]", vec![x(&[2, 3, 2])]),
        example("qr[full=false]", vec![x(&[2, 4])]),
        example("qr[full=true]", vec![x(&[3, 3])]),
        example("svd[full=false]", vec![x(&[2, 3, 3])]),
        example("svd[full=false]", vec![x(&[4, 2])]),
        example("svd[full=false]", vec![x(&[2, 4])]),
        example("triangular_solve[upper=false, unit=false]", vec![x(&[2, 3, 3]), x(&[2, 3, 2])]),
        example("triangular_solve[upper=true, unit=true]", vec![x(&[3, 3]), x(&[3, 2])]),
    ]);
    for act in Act::ALL {
        let op = format!("matmul[act={}]", act.name());
        out.push(example(
            &op,
            vec![x(&[2, 3]), spread(&[3, 2], -1.0, 1.1), spread(&[2], -0.3, 0.4)],
        ));
    }
    for (attrs, h, w) in [
        ("stride=(1, 1), padding=(0, 0), dilation=(1, 1), groups=1", 4, 3),
        ("stride=(2, 1), padding=(1, 1), dilation=(1, 2), groups=2", 4, 4),
    ] {
        let groups = if attrs.ends_with('2') { 2 } else { 1 };
        let (image, kernel) = (x(&[1, 2, h, w]), spread(&[2, 2 / groups, 2, 2], -1.0, 1.1));
        let conv =
            example(&format!("conv2d[{attrs}, act=none]"), vec![image.clone(), kernel.clone()]);
        let shape = apply_op(conv.op.clone(), &[&image, &kernel])[0].shape().to_vec();
        let gy = spread(&shape, -1.3, 1.2);
        out.push(conv);
        let bias = spread(&[2], -0.3, 0.4);
        out.push(example(
            &format!("conv2d[{attrs}, act=tanh]"),
            vec![image.clone(), kernel.clone(), bias],
        ));
        let op = format!("conv2d_input_grad[{attrs}, height={h}, width={w}]");
        out.push(example(&op, vec![gy.clone(), kernel]));
        out.push(example(&format!("conv2d_weight_grad[{attrs}, kernel=(2, 2)]"), vec![image, gy]));
    }
    for kind in PoolKind::ALL {
        for attrs in [
            "window=(2, 2), stride=(2, 2), padding=(0, 0), dilation=(1, 1), ceil=false",
            "window=(3, 2), stride=(2, 1), padding=(1, 1), dilation=(1, 1), ceil=true",
        ] {
            let image = x(&[1, 2, 4, 3]);
            let pool =
                example(&format!("pool2d[kind={}, {attrs}]", kind.name()), vec![image.clone()]);
            let shape = apply_op(pool.op.clone(), &[&image])[0].shape().to_vec();
            out.push(pool);
            let gy = spread(&shape, -1.3, 1.2);
            out.push(example(
                &format!("pool2d_grad[kind={}, {attrs}]", kind.name()),
                vec![image, gy],
            ));
        }
    }
    out
}

/// A vector with one zero and a matrix column with two.
fn zeros_among() -> Tensor {
    tensor([[1.5, 2.0, 0.0], [0.0, -0.7, 1.2], [2.5, 0.4, 0.0]]).requires_grad_(true)
}

/// Whether the op makes something with a gradient of these operands.
fn differentiable(e: &Example) -> bool {
    let types: Vec<_> =
        e.inputs.iter().map(|t| TypeRef { dtype: t.dtype(), shape: t.shape() }).collect();
    infer(&e.op, &types).is_ok_and(|r| r[0].dtype.is_float())
}

#[test]
fn every_op() {
    let mut wrong = Vec::new();
    for e in examples().into_iter().filter(differentiable) {
        let shapes: Vec<_> = e.inputs.iter().map(Tensor::shape).collect();
        let what = format!("{} of {shapes:?}", e.op);
        let f = |x: &[Tensor]| match &e.op {
            // The operand stands for a Hermitian, or positive definite, matrix.
            Op::Cholesky {} => {
                apply_op(e.op.clone(), &[&(x[0].matmul(&x[0].transpose(-1, -2)) + eye(3))])
            }
            Op::Eigh {} => apply_op(e.op.clone(), &[&(&x[0] + x[0].transpose(-1, -2))]),
            // Of each pair of vectors the sign is free, and may change on the way.
            Op::Svd { .. } => {
                let [u, s, vh] = <[Tensor; 3]>::try_from(apply_op(e.op.clone(), &[&x[0]])).unwrap();
                let sign = u.narrow(-2, 0, 1).detach().sign();
                vec![u * &sign, s, vh * sign.transpose(-1, -2)]
            }
            op => apply_op(op.clone(), &x.iter().collect::<Vec<_>>()),
        };
        if let Err(error) = gradcheck(f, &e.inputs) {
            wrong.push(format!("{what}: {error}"));
        }
        if let Err(error) = gradgradcheck(f, &e.inputs) {
            wrong.push(format!("second derivative of {what}: {error}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Three elements of a batch: the operand and two like it.
fn three(x: &Tensor) -> [Tensor; 3] {
    let x = x.detach();
    match x.dtype() {
        DType::Bool => [x.clone(), x.logical_not(), x],
        DType::I64 => [x.clone(), x.flip([-1]), x],
        _ => [x.clone(), &x * 0.97, &x * 1.02],
    }
}

/// Every op on a batch, of any of its operands, is the op on each element.
#[test]
fn every_op_on_batches() {
    let mut wrong = Vec::new();
    let line = || spread(&[4], -1.0, 1.0);
    let mut all = examples();
    all.extend(CompareOp::ALL.iter().map(|&c| Example {
        op: Op::Compare(c),
        inputs: vec![x(&[2, 3]), spread(&[3], -1.2, 1.3)],
    }));
    all.extend([
        example("arg_reduce[kind=max, axis=1, keep=false]", vec![x(&[2, 3])]),
        example("searchsorted[right=false]", vec![line().sort(0, false).0, x(&[2, 3])]),
        example("searchsorted[right=true]", vec![line().sort(0, false).0, spread(&[], 0.0, 1.0)]),
        example(
            "searchsorted[right=true]",
            vec![x(&[2, 4]).sort(1, false).0, spread(&[2, 3], -1.0, 1.0)],
        ),
    ]);
    for e in &mut all {
        let types: Vec<_> =
            e.inputs.iter().map(|t| TypeRef { dtype: t.dtype(), shape: t.shape() }).collect();
        if infer(&e.op, &types).is_err() {
            e.inputs = e.inputs.iter().map(|t| t.detach().to_dtype(DType::I64)).collect();
        }
    }
    // Other masks for other elements: see tests/vmap.rs.
    for e in all.iter().filter(|e| !matches!(e.op, Op::Dropout { .. })) {
        for mask in 1..1usize << e.inputs.len() {
            let elements: Vec<[Tensor; 3]> = e.inputs.iter().map(three).collect();
            let batched = |i: usize| mask >> i & 1 == 1;
            let arguments: Vec<Tensor> = elements
                .iter()
                .enumerate()
                .map(|(i, t)| match batched(i) {
                    true => stack(&t.iter().collect::<Vec<_>>(), 0),
                    false => t[0].clone(),
                })
                .collect();
            let dims: Vec<Option<i64>> =
                (0..e.inputs.len()).map(|i| batched(i).then_some(0)).collect();
            let got = Vmap::new().in_dims(&dims).call(
                |t| apply_op(e.op.clone(), &t.iter().collect::<Vec<_>>()),
                &arguments.iter().collect::<Vec<_>>(),
            );
            for (output, got) in got.iter().enumerate() {
                let want: Vec<Tensor> = (0..3)
                    .map(|k| {
                        let one: Vec<&Tensor> = (0..elements.len())
                            .map(|i| &elements[i][if batched(i) { k } else { 0 }])
                            .collect();
                        apply_op(e.op.clone(), &one).swap_remove(output)
                    })
                    .collect();
                let want = stack(&want.iter().collect::<Vec<_>>(), 0);
                let (a, b) = (got.to_vec::<f64>(), want.to_vec::<f64>());
                let close = |(a, b): (&f64, &f64)| {
                    (a - b).abs() <= 1e-11 * b.abs().max(1.0) || a == b || a.is_nan() && b.is_nan()
                };
                if got.shape() != want.shape() || !a.iter().zip(&b).all(close) {
                    wrong.push(format!("{} on {dims:?}: {got} instead of {want}", e.op));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{} wrong:\n{}", wrong.len(), wrong.join("\n"));
}

/// An op without an example here makes nothing that has a gradient.
#[test]
fn every_op_has_an_example() {
    let all = examples();
    let mut have: BTreeSet<String> = all.iter().map(|e| e.op.name().to_string()).collect();
    have.extend(all.iter().map(|e| e.op.to_string()));
    // No float operands, or results that are truth values or indices; and what makes
    // complex numbers or takes them, which tests/dtypes.rs differentiates by the parts.
    let exempt = CompareOp::ALL.iter().map(|c| c.name());
    let exempt: BTreeSet<&str> = exempt
        .chain(["full", "iota", "random", "sample", "arg_reduce", "searchsorted"])
        .chain(["view_as_real", "view_as_complex", "eig", "fft"])
        .collect();
    for name in Op::<usize>::names() {
        assert!(have.contains(name) != exempt.contains(name), "{name}");
    }
    let kind = |op: &str, kind: &str| {
        let start = format!("{op}[kind={kind},");
        let named =
            |h: &String| h.starts_with(&start) || h.contains(&format!("{op}[axis=2, kind={kind}]"));
        assert!(have.iter().any(named), "{start}");
    };
    let truth = [ReduceKind::Any, ReduceKind::All];
    ReduceKind::ALL.iter().filter(|k| !truth.contains(k)).for_each(|k| kind("reduce", k.name()));
    ScanKind::ALL.iter().for_each(|k| kind("scan", k.name()));
    ScatterKind::ALL.iter().for_each(|k| kind("scatter", k.name()));
}

fn check(what: &str, f: impl Fn(&[Tensor]) -> Tensor, inputs: &[Tensor]) {
    let f = |x: &[Tensor]| vec![f(x)];
    gradcheck(f, inputs).unwrap_or_else(|e| panic!("{what}: {e}"));
    gradgradcheck(f, inputs).unwrap_or_else(|e| panic!("{what}, second derivative: {e}"));
}

#[test]
fn functions_and_losses() {
    let classes = tensor([2i64, 0]);
    for r in [Reduction::Mean, Reduction::Sum, Reduction::None] {
        check("cross_entropy", |x| F::cross_entropy(&x[0], &classes, r), &[x(&[2, 3])]);
        check("nll_loss", |x| F::nll_loss(&x[0], &classes, r), &[x(&[2, 3])]);
        let two = [x(&[2, 3]), spread(&[2, 3], 0.05, 0.95)];
        check("mse_loss", |x| F::mse_loss(&x[0], &x[1], r), &two);
        check("l1_loss", |x| F::l1_loss(&x[0], &x[1], r), &two);
        check("bce", |x| F::binary_cross_entropy_with_logits(&x[0], &x[1], r), &two);
    }
    check("linear", |x| F::linear(&x[0], &x[1], Some(&x[2])), &[x(&[2, 3]), x(&[2, 3]), x(&[2])]);
    check("embedding", |x| F::embedding(&tensor([[0i64, 2], [2, 1]]), &x[0]), &[x(&[3, 2])]);
    check("logsumexp", |x| x[0].logsumexp(0, false), &[x(&[3, 2])]);
    check("var", |x| x[0].var_dim([0, 1], 1, false), &[x(&[3, 2])]);
    check("norm", |x| x[0].norm(), &[x(&[3, 2])]);
    check("max_dim", |x| x[0].max_dim(1, false).0, &[x(&[3, 2])]);
    check("tril", |x| x[0].tril(0) + x[0].triu(1) * 2.0, &[x(&[3, 2])]);
    check("copy", |x| x[0].t().copy() * x[0].t().contiguous(), &[x(&[3, 2])]);
    check("repeat", |x| x[0].repeat([2, 1, 2]).square(), &[x(&[3, 2])]);
    check(
        "stack",
        |x| sinter::stack(&[&x[0], &x[1]], 1).tanh(),
        &[x(&[3]), spread(&[3], 0.0, 1.0)],
    );
    check("masked", |x| x[0].masked_select(&x[0].gt(0.0)).exp(), &[x(&[5])]);
    check("index", |x| x[0].i((1.., -1)).exp(), &[x(&[3, 2])]);
    check("clamp", |x| x[0].clamp(-0.5, 0.6), &[x(&[7])]);
}

/// A layer with its parameters in f64.
fn layer(what: &str, m: &dyn Layer, x: &Tensor) {
    m.eval();
    let mut inputs = vec![x.clone()];
    inputs.extend(m.parameters().iter().map(|p| p.tensor().clone()));
    // Differences move copies: they are written into the parameters.
    let f = |xs: &[Tensor]| {
        let mut state = m.state_dict();
        let names: Vec<String> = m.named_parameters().into_iter().map(|p| p.0).collect();
        let moved =
            names.iter().zip(&xs[1..]).any(|(n, t)| state[n].to_vec::<f64>() != t.to_vec::<f64>());
        if !moved {
            return vec![m.forward(&xs[0])];
        }
        let old: Vec<Tensor> = names.iter().map(|n| state[n].copy()).collect();
        for (n, t) in names.iter().zip(&xs[1..]) {
            state.insert(n.clone(), t.detach());
        }
        m.load_state_dict(&state, true).unwrap();
        let y = m.forward(&xs[0]);
        for (n, t) in names.iter().zip(old) {
            state.insert(n.clone(), t);
        }
        m.load_state_dict(&state, true).unwrap();
        vec![y]
    };
    gradcheck(f, &inputs).unwrap_or_else(|e| panic!("{what}: {e}"));
    let g = |xs: &[Tensor]| vec![m.forward(&xs[0])];
    gradgradcheck(g, &inputs[..1]).unwrap_or_else(|e| panic!("{what}, second derivative: {e}"));
}

/// The results and last states of a network, in one.
struct States<T>(T);

impl<T: Module> Module for States<T> {
    fn visit(&self, v: &mut dyn Visit) {
        self.0.visit(v);
    }
    fn visit_mut(&mut self, v: &mut dyn VisitMut) {
        self.0.visit_mut(v);
    }
}

impl Layer for States<Lstm> {
    fn forward(&self, x: &Tensor) -> Tensor {
        let (y, (h, c)) = self.0.forward(x, None);
        cat(&[&y.ravel(), &h.ravel(), &c.ravel()], 0)
    }
}

macro_rules! states {
    ($($t:ty),*) => {$(
        impl Layer for States<$t> {
            fn forward(&self, x: &Tensor) -> Tensor {
                let (y, h) = self.0.forward(x, None);
                cat(&[&y.ravel(), &h.ravel()], 0)
            }
        }
    )*};
}
states!(Gru, Rnn);

#[test]
fn layers() {
    sinter::set_default_dtype(DType::F64);
    sinter::manual_seed(5);
    layer("Linear", &Linear::new(3, 2), &x(&[2, 3]));
    layer("LayerNorm", &LayerNorm::new(4), &x(&[2, 4]));
    layer("BatchNorm2d, evaluation", &BatchNorm2d::new(2), &x(&[2, 2, 1, 2]));
    layer("MultiHeadAttention", &MultiHeadAttention::new(4, 2), &x(&[1, 3, 4]));
    layer("TransformerEncoderLayer", &TransformerEncoderLayer::new(4, 2, 3), &x(&[1, 2, 4]));
    let o = RecurrentOptions { num_layers: 2, bidirectional: true, ..Default::default() };
    layer("Lstm", &States(Lstm::with_options(2, 2, o)), &x(&[3, 1, 2]));
    layer(
        "Lstm, projected",
        &States(Lstm::with_options(2, 2, RecurrentOptions { proj_size: 1, ..o })),
        &x(&[2, 1, 2]),
    );
    layer("Gru", &States(Gru::with_options(2, 1, o)), &x(&[2, 2, 2]));
    layer("Rnn", &States(Rnn::with_options(2, 2, o)), &x(&[2, 1, 2]));
    let bn = BatchNorm2d::new(2);
    check("BatchNorm2d, training", |x| bn.forward(&x[0]), &[x(&[2, 2, 1, 2])]);
}

#[test]
fn wrong_derivatives_are_found() {
    // The derivative of the detached part is missing.
    let bad = |x: &[Tensor]| vec![&x[0] * x[0].detach()];
    let e = gradcheck(bad, &[x(&[3])]).unwrap_err();
    assert!(matches!(e, GradCheckError::Mismatch { output: 0, row: 0, input: 0, column: 0, .. }));
    assert_eq!(
        gradcheck(|x| vec![x[0].exp()], &[tensor([1.0])]),
        Err(GradCheckError::NothingToCheck)
    );
    let single = tensor([1.0f32]).requires_grad_(true);
    assert_eq!(
        gradcheck(|x| vec![x[0].exp()], &[single]),
        Err(GradCheckError::NotDouble(0, DType::F32))
    );
    assert_eq!(gradcheck(|x| vec![x[0].detach()], &[x(&[1])]), Err(GradCheckError::NoHistory(0)));
}
