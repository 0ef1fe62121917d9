//! Running a graph every way there is, and comparing.

use sinter_compiler::graph::{Graph, Kind, interpret, verify};
use sinter_compiler::{Options, compile};
use sinter_kernels::isa::Isa;
use sinter_runtime::op::{CompareOp, RandomKind, UnaryOp};
use sinter_runtime::{Array, DType, Number, Op, Scalar, eager, with_number};

/// Numbers of a standard normal distribution.
pub fn normal(shape: &[usize], seed: u64) -> Array {
    let op = Op::Random {
        kind: RandomKind::Normal,
        dtype: DType::F32,
        seed,
        offset: 0,
        shape: shape.into(),
    };
    eager::run1(&op, &[]).expect("random numbers")
}

/// Something of that type; integers from -4 to 4, or from 0 up to `below`.
pub fn sample(shape: &[usize], dtype: DType, below: Option<usize>, seed: u64) -> Array {
    let x = normal(shape, seed);
    let values = x.to_vec::<f32>();
    let ints = |v: &f32| match below {
        Some(n) => (v.abs() * 1e3) as i64 % n.max(1) as i64,
        None => (v * 2.0).round().clamp(-4.0, 4.0) as i64,
    };
    if dtype.is_float() {
        return eager::run1(&Op::Cast { dtype }, &[&x]).expect("a cast");
    }
    let ints: Vec<i64> = values.iter().map(ints).collect();
    let x = Array::from_slice(&ints, shape).expect("an array");
    // Casts from negative numbers to u8 differ between machines.
    let x = if dtype == DType::U8 {
        eager::run1(&Op::Unary(UnaryOp::Abs), &[&x]).expect("abs")
    } else {
        x
    };
    eager::run1(&Op::Cast { dtype }, &[&x]).expect("a cast")
}

/// An input called `index9` holds indices below nine, a `positive` one no
/// negative numbers, a `nonzero` one no integer zeros.
fn index_limit(name: &str) -> Option<usize> {
    name.strip_prefix("index")?.split('_').next()?.parse().ok()
}

/// Inputs that fit the graph at these sizes of its symbols.
pub fn inputs(g: &Graph, sizes: &[usize], seed: u64) -> Vec<Array> {
    let input = |(i, n): (usize, &sinter_compiler::graph::NodeId)| {
        let ty = g.node(*n).types[0].eval(sizes).expect("sizes fit");
        let Kind::Input { name } = &g.node(*n).kind else { unreachable!("inputs are inputs") };
        let x = sample(&ty.shape, ty.dtype, index_limit(name), seed * 31 + i as u64);
        match name.split('_').next() {
            Some("positive") => eager::run1(&Op::Unary(UnaryOp::Abs), &[&x]).expect("abs"),
            Some("nonzero") if !ty.dtype.is_float() => {
                let scalar = |v| Array::scalar(Scalar::Int(v), ty.dtype).expect("a scalar");
                let zero = eager::run1(&Op::Compare(CompareOp::Eq), &[&x, &scalar(0)]);
                let zero = zero.expect("integers compare");
                eager::run1(&Op::Select {}, &[&zero, &scalar(1), &x]).expect("a choice")
            }
            _ => x,
        }
    };
    g.inputs().iter().enumerate().map(input).collect()
}

fn scalars(a: &Array) -> Vec<Scalar> {
    match a.dtype() {
        DType::Bool => a.to_vec::<u8>().into_iter().map(|v| Scalar::Bool(v != 0)).collect(),
        d => with_number!(d, T => a.to_vec::<T>().into_iter().map(|v| v.to_scalar()).collect()),
    }
}

/// Compares two results: types and integers exactly, floats up to `tolerance` of
/// the largest finite magnitude, which counts as one if it is smaller.
pub fn compare(got: &Array, want: &Array, tolerance: f64) -> Result<(), String> {
    if got.shape() != want.shape() || got.dtype() != want.dtype() {
        return Err(format!(
            "{:?} {:?} instead of {:?} {:?}",
            got.dtype(),
            got.shape(),
            want.dtype(),
            want.shape()
        ));
    }
    let (a, b) = (scalars(got), scalars(want));
    let finite = |v: &Scalar| Some(v.as_f64().abs()).filter(|v| v.is_finite());
    let scale = b.iter().filter_map(finite).fold(1.0, f64::max);
    for (i, (x, y)) in a.iter().zip(&b).enumerate() {
        let same = match (x, y) {
            (Scalar::Float(x), Scalar::Float(y)) => {
                x == y || (x.is_nan() && y.is_nan()) || (x - y).abs() <= tolerance * scale
            }
            _ => x == y,
        };
        if !same {
            return Err(format!("element {i} is {x:?} instead of {y:?} (scale {scale:e})"));
        }
    }
    Ok(())
}

/// Instruction sets that this machine can run.
pub fn levels() -> Vec<Isa> {
    [Isa::Baseline, Isa::Avx2, Isa::Avx512]
        .into_iter()
        .filter(|&i| i <= sinter_kernels::isa::active())
        .collect()
}

/// How far results may be apart.
pub fn tolerance(dtype: DType) -> f64 {
    match dtype {
        DType::F16 => 2e-3,
        DType::BF16 => 1.6e-2,
        DType::F64 => 1e-12,
        _ => 1e-5,
    }
}

/// Compiles the graph fused and unfused, at every level, runs it at these sizes,
/// and compares with eager execution; and with the code for CUDA devices, where that
/// is built.
pub fn check(g: &Graph, sizes: &[&[usize]], seed: u64) -> Result<(), String> {
    verify(g).map_err(|e| format!("{e}\n{g}"))?;
    for isa in levels() {
        for fusion in [true, false] {
            let how = format!("{isa:?}, {}", if fusion { "fused" } else { "unfused" });
            let options = Options { fusion, isa, ..Options::default() };
            let mut compiled = compile(g, &options).map_err(|e| format!("{how}: {e}\n{g}"))?;
            let model = compiled.load().map_err(|e| format!("{how}: {e}\n{g}"))?;
            for (k, sizes) in sizes.iter().enumerate() {
                let xs = inputs(g, sizes, seed + k as u64);
                let refs: Vec<&Array> = xs.iter().collect();
                let want = interpret(g, &xs).map_err(|e| format!("interpreting: {e}\n{g}"))?;
                let got =
                    model.run(&refs).map_err(|e| format!("{how}, sizes {sizes:?}: {e}\n{g}"))?;
                #[cfg(feature = "mlir")]
                if isa == sinter_kernels::isa::active() {
                    crate::cuda::check(&compiled.plan, &xs, &got)
                        .map_err(|e| format!("{how}, sizes {sizes:?}: {e}\n{g}"))?;
                }
                for (i, (got, want)) in got.iter().zip(&want).enumerate() {
                    compare(got, want, tolerance(want.dtype())).map_err(|e| {
                        let plan = &compiled.plan.graph;
                        format!("{how}, sizes {sizes:?}, output {i}: {e}\n{g}planned as\n{plan}")
                    })?;
                }
            }
        }
    }
    Ok(())
}
