//! Every op of the vocabulary against PyTorch, on memory laid out in every way.

use sinter_runtime::op::{
    Act, ArgKind, BinaryOp, CellKind, CompareOp, Domain, PoolKind, RandomKind, ReduceKind,
    ScanKind, ScatterKind, TypeRef, UnaryOp, infer,
};
use sinter_runtime::{Array, DType, Op, eager};
use sinter_tests::{Case, Table, Tolerance, compare, scattered};
use std::collections::BTreeSet;

const TABLES: &[&str] = &[
    "unary",
    "binary",
    "sources",
    "reductions",
    "layout",
    "matmul",
    "convolution",
    "pooling",
    "normalisation",
    "linalg",
    "recurrent",
    "attention",
    "surface",
];

fn cases() -> Vec<(Op, Case)> {
    TABLES
        .iter()
        .flat_map(|name| Table::load(name).cases)
        .map(|case| {
            let op = Op::parse(&case.what, &[]).unwrap_or_else(|e| panic!("{}: {e}", case.what));
            (op.eval(&[]).expect("extents are numbers"), case)
        })
        .collect()
}

/// The accuracy an op promises on a type.
fn tolerance(op: &Op, dtype: DType) -> Tolerance {
    if dtype.is_half() {
        // Computed in f32 and rounded once; where that falls near the middle of two
        // numbers, to the other one.
        return match op {
            Op::Select {} | Op::Cast { .. } | Op::Gather { .. } => Tolerance::EXACT,
            Op::Unary(_) | Op::Binary(_) => Tolerance::units(1.0),
            _ => Tolerance { largest: 0.01, ..Tolerance::units(1.0) },
        };
    }
    if dtype.is_complex() && !op.moves() {
        return Tolerance { one: 4.0, ..Tolerance::units(16.0) };
    }
    match op {
        // 1 + erf(x / √2) cancels for negative x, as it does in PyTorch.
        Op::Unary(UnaryOp::Gelu | UnaryOp::GeluTanh) => {
            Tolerance { one: 1.0, ..Tolerance::units(4.0) }
        }
        // Ours and PyTorch's f64 differ by a few units; near a zero, by a few of one.
        Op::Unary(u) if u.is_special() => match dtype {
            DType::F64 => Tolerance { one: 8.0, ..Tolerance::units(128.0) },
            _ => Tolerance { one: 0.25, ..Tolerance::units(4.0) },
        },
        Op::Binary(BinaryOp::Igamma | BinaryOp::Igammac | BinaryOp::Zeta) => match dtype {
            DType::F64 => Tolerance { one: 8.0, ..Tolerance::units(1024.0) },
            _ => Tolerance { one: 0.25, ..Tolerance::units(4.0) },
        },
        Op::Binary(BinaryOp::Hypot) => Tolerance::units(1.0),
        Op::Unary(u) if u.domain() == Domain::Float => Tolerance::units(4.0),
        Op::Unary(_) => Tolerance::EXACT,
        Op::Binary(BinaryOp::Pow | BinaryOp::Atan2) => Tolerance::units(4.0),
        Op::Binary(_) => Tolerance::EQUAL,
        Op::Random { kind: RandomKind::Normal, .. } => Tolerance::of_largest(8.0),
        Op::Dropout { .. } => Tolerance::units(1.0),
        Op::Scan { kind: ScanKind::Max | ScanKind::Min, .. } => Tolerance::EXACT,
        Op::Reduce { .. }
        | Op::Scan { .. }
        | Op::Scatter { kind: ScatterKind::Add | ScatterKind::Prod, .. }
        | Op::IndexAdd { .. } => Tolerance { largest: 2.0, ..Tolerance::units(8.0) },
        Op::MatMul { .. }
        | Op::Conv { .. }
        | Op::ConvInputGrad { .. }
        | Op::ConvWeightGrad { .. }
        | Op::Pool { .. }
        | Op::PoolGrad { .. }
        | Op::Softmax { .. }
        | Op::SoftmaxGrad { .. }
        | Op::LayerNorm { .. }
        | Op::LayerNormGrad { .. }
        | Op::Recurrent { .. }
        | Op::RecurrentGrad { .. }
        | Op::Attention { .. }
        | Op::AttentionGrad { .. } => Tolerance { largest: 16.0, ..Tolerance::units(8.0) },
        _ if op.is_linalg() && dtype.is_float() => Tolerance { largest: 500.0, ..Tolerance::EXACT },
        _ => Tolerance::EXACT,
    }
}

/// The results of factorisations with every vector turned so that its largest element
/// is positive: its sign is free.
fn canonical(op: &Op, results: &[Array]) -> Vec<Array> {
    // Vectors are columns of one result and rows of the other; the values of `eigh`
    // stay, and so do those of `svd`.
    let (columns, rows) = match op {
        Op::Qr { .. } => (0, Some(1)),
        Op::Svd { .. } => (0, Some(2)),
        Op::Eigh {} => (1, None),
        _ => return results.to_vec(),
    };
    let dtype = results[columns].dtype();
    let numbers = |a: &Array| -> Vec<f64> {
        eager::run1(&Op::Cast { dtype: DType::F64 }, &[a]).unwrap().to_vec()
    };
    let array = |v: &[f64], shape: &[usize]| {
        let a = Array::from_slice(v, shape).unwrap();
        eager::run1(&Op::Cast { dtype }, &[&a]).unwrap()
    };
    let mut out = results.to_vec();
    let shape = results[columns].shape().to_vec();
    let (m, k) = (shape[shape.len() - 2], shape[shape.len() - 1]);
    let mut left = numbers(&results[columns]);
    let mut right = rows.map(|r| numbers(&results[r]));
    let n = rows.map_or(0, |r| *results[r].shape().last().unwrap());
    let batch = left.len().checked_div(m * k).unwrap_or(0);
    for b in 0..batch {
        for j in 0..k {
            let column = |i: usize| b * m * k + i * k + j;
            let largest = (0..m).map(|i| left[column(i)]).fold(0.0f64, |w, v| {
                // Of equals the first, also after rounding.
                if v.abs() > w.abs() * 1.001 { v } else { w }
            });
            if largest < 0.0 {
                (0..m).for_each(|i| left[column(i)] *= -1.0);
                if let Some(right) = &mut right {
                    right[(b * k + j) * n..(b * k + j + 1) * n].iter_mut().for_each(|v| *v *= -1.0);
                }
            }
        }
    }
    out[columns] = array(&left, &shape);
    if let (Some(r), Some(v)) = (rows, right) {
        out[r] = array(&v, results[r].shape());
    }
    out
}

#[test]
fn results_are_those_of_pytorch() {
    let mut wrong = Vec::new();
    for (op, case) in cases() {
        let layouts = [
            ("dense", case.inputs.clone()),
            ("scattered", case.inputs.iter().map(scattered).collect()),
        ];
        for (layout, inputs) in layouts {
            let got = match eager::run(&op, &inputs.iter().collect::<Vec<_>>()) {
                Ok(got) => got,
                Err(e) => {
                    wrong.push(format!("{} ({layout}): {e}", case.describe()));
                    continue;
                }
            };
            assert_eq!(got.len(), case.outputs.len(), "{}", case.describe());
            let (got, want) = (canonical(&op, &got), canonical(&op, &case.outputs));
            for (i, (g, w)) in got.iter().zip(&want).enumerate() {
                if let Some(e) = compare(g, w, tolerance(&op, w.dtype())) {
                    wrong.push(format!("{} result {i} ({layout}): {e}", case.describe()));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{} cases differ:\n{}", wrong.len(), wrong.join("\n"));
}

/// A composite's kernel and its decomposition are two ways to one result. (In half
/// precision the parts round, one by one.)
#[test]
fn composites_equal_their_decomposition() {
    let mut wrong = Vec::new();
    for (op, case) in cases().into_iter().filter(|(_, c)| !c.outputs[0].dtype().is_half()) {
        let refs: Vec<&Array> = case.inputs.iter().collect();
        let Some(got) = eager::run_decomposed(&op, &refs) else { continue };
        let error = match &got {
            Ok(got) => compare(got, &case.outputs[0], tolerance(&op, got.dtype())),
            Err(e) => Some(e.to_string()),
        };
        if let Some(e) = error {
            wrong.push(format!("{}: {e}", case.describe()));
        }
    }
    assert!(wrong.is_empty(), "{} cases differ:\n{}", wrong.len(), wrong.join("\n"));
}

/// Every op, every kind of it, and every element type it takes has a case.
#[test]
fn the_tables_cover_the_vocabulary() {
    let mut seen = BTreeSet::new();
    for (op, case) in cases() {
        let parts: Vec<&str> = case.what.split(['[', ',', ']']).collect();
        let first = |n: usize| parts[..n.min(parts.len())].join(" ").replace("  ", " ");
        for name in [op.name().to_string(), first(2), first(3)] {
            for a in case.inputs.iter().chain(&case.outputs) {
                seen.insert(format!("{name} {}", a.dtype()));
            }
            seen.insert(name);
        }
    }
    let mut missing: Vec<String> = Vec::new();
    let mut need = |name: String| {
        if !seen.contains(&name) {
            missing.push(name);
        }
    };
    // Rejection has no numbers but its own; their distributions are tested with the kernel.
    // What makes complex numbers is compared in tests/linalg.rs and tests/conformance.
    Op::<usize>::names()
        .filter(|n| !["sample", "eig", "fft"].contains(n))
        .for_each(|n| need(n.to_string()));
    let kinds = |op: &str, names: Vec<&str>| -> Vec<String> {
        names.into_iter().map(|k| format!("{op} kind={k}")).collect()
    };
    macro_rules! every {
        ($op:literal, $kind:ty) => {
            kinds($op, <$kind>::ALL.iter().map(|k| k.name()).collect())
        };
    }
    for name in [
        every!("reduce", ReduceKind),
        every!("arg_reduce", ArgKind),
        every!("scan", ScanKind),
        every!("random", RandomKind),
        every!("pool2d", PoolKind),
        every!("pool2d_grad", PoolKind),
        every!("recurrent", CellKind),
        every!("recurrent_grad", CellKind),
    ]
    .concat()
    {
        need(name);
    }
    for k in ScatterKind::ALL {
        need(format!("scatter axis=2 kind={}", k.name()));
    }
    for k in Act::ALL {
        need(format!("matmul act={}", k.name()));
    }
    let takes = |op: Op, operands: usize, d: DType| {
        infer(&op, &vec![TypeRef { dtype: d, shape: &[2] }; operands]).is_ok()
    };
    // Complex numbers are computed in their parts, and few ops of PyTorch take the
    // other unsigned types: tests/dtypes.rs.
    let other = |d: &DType| d.is_complex() || matches!(d, DType::U16 | DType::U32 | DType::U64);
    for d in DType::ALL.into_iter().filter(|d| !other(d)) {
        for &u in UnaryOp::ALL.iter().filter(|&&u| takes(Op::Unary(u), 1, d)) {
            need(format!("{} {d}", u.name()));
        }
        for &b in BinaryOp::ALL.iter().filter(|&&b| takes(Op::Binary(b), 2, d)) {
            need(format!("{} {d}", b.name()));
        }
        for &c in CompareOp::ALL.iter().filter(|&&c| takes(Op::Compare(c), 2, d)) {
            need(format!("{} {d}", c.name()));
        }
        for op in ["full", "iota", "cast", "select", "reduce", "arg_reduce", "scan", "sort", "topk"]
        {
            need(format!("{op} {d}"));
        }
    }
    assert!(missing.is_empty(), "no reference case for: {}", missing.join(", "));
}
