//! Kernels as the planner makes them, of one step and of several, at sizes that
//! divide nothing.

use super::{arch, assemble, check, compile, launch};
use crate::common::{compare, inputs, sample, tolerance};
use sinter_compiler::codegen::cuda::{Arch, CudaError, Param, Team};
use sinter_compiler::graph::{Graph, text};
use sinter_compiler::kernel::{Arg, Inst, Kernel, Level, Manner, Stage};
use sinter_compiler::plan::Plan;
use sinter_compiler::{Options, compile as plan};
use sinter_ptx::Memory;
use sinter_runtime::op::{BinaryOp, ReduceKind};
use sinter_runtime::{Array, DType, Dim, Extent, Op, eager};

fn graph(body: &str) -> Graph {
    let source = format!("graph \"g\" {{\n  symbol N in 0..=4096 hint 16\n{body}\n}}");
    text::parse(&source).unwrap_or_else(|e| panic!("{source}: {e}"))
}

fn planned(body: &str) -> Plan {
    plan(&graph(body), &Options::default()).expect("the graph compiles").plan
}

fn only_kernel(body: &str) -> Kernel {
    let plan = planned(body);
    assert_eq!(plan.generated.len(), 1, "{body}");
    plan.generated[0].kernel.clone()
}

/// Fused and unfused, on the device as on the processor.
fn same_as_processor(body: &str, sizes: &[usize]) {
    let g = graph(body);
    for fusion in [true, false] {
        let mut compiled = plan(&g, &Options { fusion, ..Options::default() }).expect(body);
        let model = compiled.load().expect(body);
        for k in &compiled.plan.generated {
            let code = compile(&k.kernel, arch()).unwrap_or_else(|e| panic!("{body}: {e}"));
            assemble(&code, arch()).unwrap_or_else(|e| panic!("{body}: {e}"));
        }
        for (i, &n) in sizes.iter().enumerate() {
            let xs = inputs(&g, &[n], i as u64);
            let refs: Vec<_> = xs.iter().collect();
            let want = model.run(&refs).expect(body);
            match check(&compiled.plan, &xs, &want) {
                Ok(ran) => assert!(ran, "not all of it is device code: {body}"),
                Err(e) => panic!("{body}, {n}: {e}"),
            }
        }
    }
}

const RAGGED: &[usize] = &[0, 1, 3, 32, 33, 257, 300];

#[test]
fn elements() {
    // Several results, operands repeated along rows, columns and altogether.
    same_as_processor(
        "  %0 = input \"x\": f32[N, 5]
  %1 = input \"row\": f32[5]
  %2 = input \"column\": f32[N, 1]
  %3 = input \"one\": f32[]
  %4 = add(%0, %1): f32[N, 5]
  %5 = mul(%4, %2): f32[N, 5]
  %6 = gelu(%5): f32[N, 5]
  %7 = sub(%6, %3): f32[N, 5]
  %8 = gt(%7, %3): bool[N, 5]
  %9 = select(%8, %6, %0): f32[N, 5]
  return %9, %7, %8",
        RAGGED,
    );
}

#[test]
fn strides() {
    same_as_processor(
        "  %0 = input \"x\": f32[7, N, 3]
  %1 = input \"y\": f32[3, 14, N]
  %2 = permute[perm=(2, 0, 1)](%0): f32[3, 7, N]
  %3 = slice[axis=1, step=2, start=1, len=7](%1): f32[3, 7, N]
  %4 = flip[axes=(0, 2)](%3): f32[3, 7, N]
  %5 = add(%2, %4): f32[3, 7, N]
  %6 = iota[dtype=f32, axis=2, shape=(3, 7, N)](): f32[3, 7, N]
  %7 = mul(%5, %6): f32[3, 7, N]
  return %7",
        &[0, 1, 5, 37],
    );
}

#[test]
fn rows() {
    for (shape, body) in [
        ("[N, 10]", "softmax[axis=1, log=false](%0): f32[N, 10]"),
        ("[N, 33]", "softmax[axis=1, log=true](%0): f32[N, 33]"),
        ("[N, 1000]", "softmax[axis=1, log=false](%0): f32[N, 1000]"),
        ("[N, 1]", "softmax[axis=1, log=false](%0): f32[N, 1]"),
        ("[N, 40]", "layer_norm[dims=1, eps=1e-5](%0): f32[N, 40]"),
        ("[N, 4, 5]", "layer_norm[dims=2, eps=1e-5](%0): f32[N, 4, 5]"),
    ] {
        let body = format!("  %0 = input \"x\": f32{shape}\n  %1 = {body}\n  return %1");
        same_as_processor(&body, &[0, 1, 9, 17]);
    }
}

#[test]
fn long_rows_and_rows_of_any_length_take_a_block() {
    for (from, to) in [("[3, N]", "[3, N]"), ("[N, 1500]", "[N, 1500]")] {
        let body = format!(
            "  %0 = input \"x\": f32{from}\n  %1 = softmax[axis=1, log=false](%0): f32{to}\n  return %1"
        );
        let code = compile(&only_kernel(&body), arch()).expect("device code");
        assert_eq!(code.team, Team::Block, "{body}");
        same_as_processor(&body, &[1, 2, 5]);
    }
    let body = "  %0 = input \"x\": f32[3, N]
  %1 = reduce[kind=max, axes=(1), keep=true](%0): f32[3, 1]
  %2 = sub(%0, %1): f32[3, N]
  return %2";
    same_as_processor(body, &[1, 31, 255, 256, 257, 700]);
}

/// The 64 virtual lanes of the processor's vector code are those of a warp.
#[test]
fn sums_of_rows_are_the_same_bits() {
    if sinter_kernels::isa::active() < sinter_kernels::isa::Isa::Avx2 {
        eprintln!("without vectors, the processor adds one after the other: not compared");
        return;
    }
    for width in [1, 31, 64, 65, 127, 300, 1024] {
        let g = graph(&format!(
            "  %0 = input \"x\": f32[N, {width}]
  %1 = exp(%0): f32[N, {width}]
  %2 = reduce[kind=sum, axes=(1), keep=true](%1): f32[N, 1]
  return %2"
        ));
        let mut compiled = plan(&g, &Options::default()).expect("it compiles");
        let model = compiled.load().expect("it loads");
        let xs = inputs(&g, &[11], width);
        let want = model.run(&[&xs[0]]).expect("it runs");
        let got = super::run(&compiled.plan, &xs).expect("it runs").expect("device code");
        assert_eq!(got[0], want[0].to_bytes(), "{width}");
    }
}

/// `y[i] = reduce(x[i, ..])` in the type that eager execution gives, over rows that
/// lie in order or across memory.
fn reduction(kind: ReduceKind, from: DType, to: DType, width: usize, across: bool) -> Kernel {
    let x = if across { [Dim::of(1), Dim::symbol(0)] } else { [Dim::of(width), Dim::of(1)] };
    let y = [Dim::of(1), Dim::of(0)];
    let arg = |buffer, dtype, strides: [Dim; 2], written| Arg {
        buffer,
        dtype,
        offset: Dim::of(0),
        strides: strides.to_vec(),
        written,
    };
    let mut element = Stage::new(Level::Element);
    element.insts = vec![(Inst::Load(0), from), (Inst::Cast(0), to)];
    element.reductions = vec![(kind, 1)];
    let mut row = Stage::new(Level::Row);
    row.insts = vec![(Inst::Row(0), to)];
    row.stores = vec![(1, 0)];
    Kernel {
        name: format!("{}_{from}", kind.name()),
        extents: vec![Dim::symbol(0), Dim::of(width)],
        parallel: 1,
        args: vec![arg(0, from, x, false), arg(1, to, y, true)],
        stages: vec![element, row],
        hook: false,
        manner: Manner::RULE,
    }
}

#[test]
fn reductions_of_every_kind_and_type() {
    const ROWS: usize = 9;
    use ReduceKind::{All, Any, Max, Min, Prod, Sum};
    for (kind, dtype) in [Sum, Prod, Max, Min, Any, All]
        .into_iter()
        .flat_map(|k| DType::ALL.map(|d| (k, d)))
        .filter(|(_, d)| d.computed_in() == *d && !d.is_complex() || d.is_half())
    {
        for (width, across) in [(37, false), (37, true), (1500, false), (1500, true)] {
            let x = sample(&[ROWS, width], dtype, None, 5);
            let op = Op::Reduce { kind, axes: [1].into_iter().collect(), keep: false };
            let Ok(want) = eager::run1(&op, &[&x]) else { continue };
            let what = format!("{} of {dtype}, rows of {width}, across: {across}", kind.name());
            // Eager execution takes any type as truth values; a kernel is given them.
            if matches!(kind, Any | All) && dtype != DType::Bool {
                continue;
            }
            let k = reduction(kind, dtype, want.dtype(), width, across);
            let code = compile(&k, arch()).unwrap_or_else(|e| panic!("{what}: {e}"));
            assemble(&code, arch()).unwrap_or_else(|e| panic!("{what}: {e}"));
            let mut memory = Memory::default();
            let rows = if across { x.permute(&[1, 0]) } else { x };
            let from = memory.add(rows.to_bytes());
            let to = memory.add(vec![0xaa; ROWS * want.dtype().size()]);
            let after = launch(&code, &memory, &[from, to], &[ROWS]);
            let after = after.unwrap_or_else(|e| panic!("{what}: {e}"));
            let got = Array::from_bytes(after.bytes(to), &[ROWS], want.dtype()).expect("an array");
            compare(&got, &want, tolerance(want.dtype())).unwrap_or_else(|e| panic!("{what}: {e}"));
        }
    }
}

/// `t[i] += sum(x[i, ..])`, then `y[i, j] = x[i, j] - t[i]` three times over, with `t`
/// as it was computed, as a row stage reads it and as each element reads it: what one
/// thread has written, all read, and not before.
fn through_memory(width: usize) -> Kernel {
    let arg = |buffer, strides: [usize; 2], written| Arg {
        buffer,
        dtype: DType::F32,
        offset: Dim::of(0),
        strides: strides.map(Dim::of).to_vec(),
        written,
    };
    let stage = |level, insts: &[Inst]| {
        let mut s = Stage::new(level);
        s.insts = insts.iter().map(|&i| (i, DType::F32)).collect();
        s
    };
    let minus = |a, b| Inst::Binary(BinaryOp::Sub, a, b);
    let mut sum = stage(Level::Element, &[Inst::Load(0)]);
    sum.reductions = vec![(ReduceKind::Sum, 0)];
    let plus = Inst::Binary(BinaryOp::Add, 0, 1);
    let mut add = stage(Level::Row, &[Inst::Row(0), Inst::Load(1), plus]);
    add.stores = vec![(1, 2)];
    add.results = vec![2];
    let mut read = stage(Level::Row, &[Inst::Load(1)]);
    read.results = vec![0];
    let values = [Inst::Load(0), Inst::Load(1), Inst::Row(1), Inst::Row(2)];
    let mut subtract = stage(
        Level::Element,
        &[values.as_slice(), &[minus(0, 1), minus(4, 2), minus(5, 3)]].concat(),
    );
    subtract.stores = vec![(2, 6)];
    Kernel {
        name: "through_memory".into(),
        extents: vec![Dim::symbol(0), Dim::of(width)],
        parallel: 1,
        args: vec![arg(0, [width, 1], false), arg(1, [1, 0], true), arg(2, [width, 1], true)],
        stages: vec![sum, add, read, subtract],
        hook: false,
        manner: Manner::RULE,
    }
}

#[test]
fn threads_wait_for_what_others_write() {
    const ROWS: usize = 9;
    for (width, team) in [(40, Team::Warp), (1500, Team::Block)] {
        let code = compile(&through_memory(width), arch()).expect("device code");
        assert_eq!(code.team, team);
        let all = |n: usize, v: f32| Array::from_slice(&vec![v; n], &[n]).expect("an array");
        let mut memory = Memory::default();
        let x = memory.add(all(ROWS * width, 1.0).to_bytes());
        let t = memory.add(all(ROWS, 5.0).to_bytes());
        let y = memory.add(vec![0xaa; 4 * ROWS * width]);
        let after = launch(&code, &memory, &[x, t, y], &[ROWS]).expect("it runs");
        let total = 5.0 + width as f32;
        assert_eq!(after.bytes(t), all(ROWS, total).to_bytes());
        assert_eq!(after.bytes(y), all(ROWS * width, 1.0 - 3.0 * total).to_bytes());
    }
}

#[test]
fn every_architecture() {
    let k = through_memory(1500);
    for a in Arch::ALL {
        let code = compile(&k, a).unwrap_or_else(|e| panic!("{a}: {e}"));
        assert!(code.ptx.contains(&format!(".target {a}")), "{}", code.ptx);
        assemble(&code, a).unwrap_or_else(|e| panic!("{a}: {e}"));
    }
}

#[test]
fn launches() {
    let body = "  %0 = input \"x\": f32[N, 10]
  %1 = relu(%0): f32[N, 10]
  return %1";
    let code = compile(&only_kernel(body), arch()).expect("device code");
    assert_eq!(code.params, [Param::Buffer(1), Param::Buffer(0), Param::Size(0)]);
    let blocks = |n: usize| code.launch(&[n]).map(|l| (l.blocks, l.threads));
    assert_eq!(blocks(0), Ok((0, 256)));
    assert_eq!(blocks(25), Ok((1, 256)));
    assert_eq!(blocks(26), Ok((2, 256)));
    let e = blocks(usize::MAX / 16).expect_err("too large").to_string();
    assert!(e.contains("cannot be launched"), "{e}");
    assert!(code.launch(&[]).is_err());
}

#[test]
fn what_has_no_device_code_says_why() {
    let body = "  %0 = input \"x\": f32[N, 10]
  %1 = relu(%0): f32[N, 10]
  return %1";
    let k = only_kernel(body);
    let reason = |change: &dyn Fn(&mut Kernel)| {
        let mut k = k.clone();
        change(&mut k);
        match compile(&k, arch()) {
            Err(CudaError::Kernel { reason, .. }) => reason,
            other => panic!("{other:?}"),
        }
    };
    assert!(reason(&|k| k.hook = true).contains("tiles of a contraction"));
    let still = reason(&|k| k.args[0].strides[0] = 0.into());
    assert_eq!(still, "argument 0 is written anew at every step of axis 0");
    let shared = reason(&|k| k.args[0].buffer = k.args[1].buffer);
    assert_eq!(shared, "argument 1 lies where it writes argument 0");
}

/// For people to read.
#[test]
fn text_of_a_softmax() {
    let k = only_kernel(
        "  %0 = input \"x\": f32[N, 100]
  %1 = softmax[axis=1, log=false](%0): f32[N, 100]
  return %1",
    );
    let code = compile(&k, arch()).expect("device code");
    insta::assert_snapshot!("softmax_mlir", format!("{}\n{}", k.text(&["N".into()]), code.mlir));
}

/// For people to read.
#[test]
fn text_of_elements() {
    let k = only_kernel(
        "  %0 = input \"x\": f32[N, 3]
  %1 = input \"scale\": f32[3]
  %2 = mul(%0, %1): f32[N, 3]
  %3 = add(%2, %0): f32[N, 3]
  %4 = relu(%3): f32[N, 3]
  return %4",
    );
    let code = compile(&k, arch()).expect("device code");
    // Multiplications and additions stay apart, and every operation rounds as IEEE says.
    assert!(code.ptx.contains("mul.rn.f32") && !code.ptx.contains("fma"), "{}", code.ptx);
    insta::assert_snapshot!("elements_ptx", format!("{}\n{}", k.text(&["N".into()]), code.ptx));
}
