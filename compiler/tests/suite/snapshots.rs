//! What the compiler makes of small graphs, for people to read: the graph after
//! rewriting, which ops share a kernel and why, the kernels, and their code.

use sinter_compiler::codegen::cpu::disassemble;
use sinter_compiler::graph::{Graph, text};
use sinter_compiler::{Compiled, Options, compile};
use sinter_kernels::isa::Isa;
use std::fmt::Write;

const MLP: &str = r#"graph "mlp" {
  symbol N in 1..=64 hint 16
  %0 = input "x": f32[N, 8]
  %1 = constant "fc1.weight": f32[16, 8]
  %2 = constant "fc1.bias": f32[16]
  %3 = constant "fc2.weight": f32[3, 16]
  %4 = constant "fc2.bias": f32[3]
  %5 = permute[perm=(1, 0)](%1): f32[8, 16]
  %6 = matmul[act=none](%0, %5): f32[N, 16]
  %7 = add(%6, %2): f32[N, 16]
  %8 = relu(%7): f32[N, 16]
  %9 = permute[perm=(1, 0)](%3): f32[16, 3]
  %10 = matmul[act=none](%8, %9): f32[N, 3]
  %11 = add(%10, %4): f32[N, 3]
  %12 = softmax[axis=1, log=true](%11): f32[N, 3]
  return %12
}"#;

const RESIDUAL: &str = r#"graph "residual" {
  symbol N in 1..=64 hint 16
  %0 = input "x": f32[N, 24]
  %1 = constant "w": f32[24, 24]
  %2 = matmul[act=none](%0, %1): f32[N, 24]
  %3 = gelu(%2): f32[N, 24]
  %4 = add(%3, %0): f32[N, 24]
  %5 = layer_norm[dims=1, eps=1e-5](%4): f32[N, 24]
  return %5
}"#;

const POINTWISE: &str = r#"graph "pointwise" {
  symbol N in 1..=4096 hint 1024
  %0 = input "x": f32[N]
  %1 = input "y": f32[N]
  %2 = full[value=0.5, dtype=f32, shape=()](): f32[]
  %3 = mul(%0, %2): f32[N]
  %4 = add(%3, %1): f32[N]
  %5 = relu(%4): f32[N]
  %6 = reduce[kind=sum, axes=(0), keep=false](%5): f32[]
  return %5, %6
}"#;

fn parse(source: &str) -> Graph {
    let mut g = text::parse(source).expect("the graph parses");
    for (i, c) in g.constants.iter_mut().enumerate() {
        c.data = Some(crate::common::sample(&c.ty.shape, c.ty.dtype, None, i as u64).into());
    }
    g
}

fn compiled(source: &str, fusion: bool, isa: Isa) -> Compiled {
    let options = Options { fusion, isa, ..Options::default() };
    let mut c = compile(&parse(source), &options).expect("the graph compiles");
    c.object().expect("code is generated");
    c
}

/// The graph, the decisions and the kernels.
fn overview(c: &Compiled) -> String {
    let mut s = format!("{}\n", c.plan.graph);
    for d in &c.plan.decisions {
        writeln!(s, "step {}: {} - {}", d.step, d.op, d.reason).expect("strings take text");
    }
    for k in &c.report.kernels {
        write!(s, "\n{}: {}\n{}", k.name, k.how, k.ir).expect("strings take text");
    }
    s
}

#[test]
fn fused() {
    insta::assert_snapshot!("mlp_fused", overview(&compiled(MLP, true, Isa::Avx2)));
    insta::assert_snapshot!("residual_fused", overview(&compiled(RESIDUAL, true, Isa::Avx2)));
    insta::assert_snapshot!("pointwise_fused", overview(&compiled(POINTWISE, true, Isa::Avx2)));
}

#[test]
fn unfused() {
    insta::assert_snapshot!("residual_unfused", overview(&compiled(RESIDUAL, false, Isa::Avx2)));
}

#[test]
fn code() {
    for (isa, name) in [(Isa::Avx2, "pointwise_avx2"), (Isa::Avx512, "pointwise_avx512")] {
        let mut c = compiled(POINTWISE, false, isa);
        let functions = disassemble(&c.object().expect("code is generated")).expect("it is code");
        let mut text = String::new();
        for k in &c.report.kernels {
            writeln!(text, "{}", k.ir).expect("strings take text");
            let rows = format!("{}.rows", k.name);
            for f in functions.iter().filter(|f| f.name == rows) {
                for (at, i) in &f.instructions {
                    writeln!(text, "{at:4x}  {i}").expect("strings take text");
                }
            }
            text.push('\n');
        }
        insta::assert_snapshot!(name, text);
    }
}
