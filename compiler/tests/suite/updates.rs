//! Programs that change their inputs: whatever reads an input sees what it was, and
//! afterwards it is what it should be.

use crate::common::{compare, inputs, levels, tolerance};
use proptest::prelude::*;
use sinter_compiler::graph::{Graph, Value, interpret, text::parse, verify};
use sinter_compiler::{CompileError, Options, compile};
use sinter_runtime::op::{BinaryOp, ReduceKind, UnaryOp};
use sinter_runtime::program::{Place, RunError};
use sinter_runtime::{Array, DType, Op, eager};

fn copies(arrays: &[Array]) -> Vec<Array> {
    let copy = |a: &Array| Array::from_slice(&a.to_vec::<f32>(), a.shape()).expect("a copy");
    arrays.iter().map(copy).collect()
}

fn check(g: &Graph, seed: u64) -> Result<(), String> {
    verify(g).map_err(|e| format!("{e}\n{g}"))?;
    for isa in levels() {
        for fusion in [true, false] {
            let options = Options { fusion, isa, ..Options::default() };
            let mut compiled = compile(g, &options).map_err(|e| format!("{e}\n{g}"))?;
            let model = compiled.load().map_err(|e| format!("{e}\n{g}"))?;
            let mut xs = inputs(g, &[], seed);
            for _ in 0..3 {
                let want = interpret(g, &copies(&xs)).map_err(|e| format!("{e}\n{g}"))?;
                let refs: Vec<&Array> = xs.iter().collect();
                let given = model.run(&refs).map_err(|e| format!("{e}\n{g}"))?;
                let mut given = given.into_iter();
                let got: Vec<Array> = (0..want.len())
                    .map(|i| match g.updates(i) {
                        Some(k) => xs[k].clone(),
                        None => given.next().expect("one for each"),
                    })
                    .collect();
                for (i, (got, want)) in got.iter().zip(&want).enumerate() {
                    compare(got, want, tolerance(DType::F32)).map_err(|e| {
                        let plan = &compiled.plan.graph;
                        format!("{isa:?}, fused {fusion}, output {i}: {e}\n{g}planned as\n{plan}")
                    })?;
                }
                // Small again: repeated steps would only grow.
                xs = inputs(g, &[], seed + 1);
            }
        }
    }
    Ok(())
}

const CASES: &[&str] = &[
    // Read elsewhere, before and after in the order of the text.
    r#"graph "g" {
  %0 = input "w": f32[3, 5]
  %1 = input "x": f32[4, 3]
  %2 = matmul[act=none](%1, %0): f32[4, 5]
  %3 = exp(%0): f32[3, 5]
  %4 = add(%0, %3): f32[3, 5]
  %5 = reduce[kind=sum, axes=(0, 1), keep=false](%0): f32[]
  return %2, %5, %4 -> %0
}"#,
    // The new value and the old one in one op.
    r#"graph "g" {
  %0 = input "w": f32[6]
  %1 = exp(%0): f32[6]
  %2 = reduce[kind=sum, axes=(0), keep=true](%1): f32[1]
  %3 = mul(%0, %2): f32[6]
  return %3, %1 -> %0
}"#,
    // Two that change places, one that stays.
    r#"graph "g" {
  %0 = input "a": f32[6]
  %1 = input "b": f32[6]
  %2 = input "c": f32[6]
  return %2, %1 -> %0, %0 -> %1, %2 -> %2
}"#,
    // Views of what changes: turned round, repeated, returned.
    r#"graph "g" {
  %0 = input "w": f32[4, 4]
  %1 = permute[perm=(1, 0)](%0): f32[4, 4]
  %2 = add(%0, %1): f32[4, 4]
  %3 = flip[axes=(0)](%0): f32[4, 4]
  return %3, %2 -> %0
}"#,
    // What follows a product is the new value of something that it does not read, and
    // of something that it does.
    r#"graph "g" {
  %0 = input "w": f32[5, 5]
  %1 = input "x": f32[5, 5]
  %2 = matmul[act=none](%1, %1): f32[5, 5]
  %3 = add(%0, %2): f32[5, 5]
  %4 = mul(%2, %1): f32[5, 5]
  return %3 -> %0
}"#,
    r#"graph "g" {
  %0 = input "w": f32[5, 5]
  %1 = matmul[act=none](%0, %0): f32[5, 5]
  %2 = add(%0, %1): f32[5, 5]
  return %2 -> %0
}"#,
    // A running tensor: several results of one loop.
    r#"graph "g" {
  %0 = input "p": f32[40]
  %1 = input "m": f32[40]
  %2 = input "g": f32[40]
  %3 = full[value=0.9, dtype=f32, shape=()](): f32[]
  %4 = mul(%1, %3): f32[40]
  %5 = add(%4, %2): f32[40]
  %6 = sub(%0, %5): f32[40]
  return %6 -> %0, %5 -> %1
}"#,
];

#[test]
fn inputs_get_new_values() {
    for text in CASES {
        let g = parse(text).expect("a graph");
        check(&g, 1).unwrap_or_else(|e| panic!("{e}"));
    }
}

/// The loop of a running tensor writes both where they lie: no temporary, no copy.
#[test]
fn updates_are_in_place() {
    let g = parse(CASES.last().expect("there are cases")).expect("a graph");
    let plan = compile(&g, &Options::default()).expect("it compiles").plan;
    assert_eq!(plan.program.steps.len(), 1);
    assert!(plan.program.buffers.iter().all(|b| !matches!(b.place, Place::Temp { .. })));
}

#[test]
fn what_is_written_is_dense_and_apart() {
    let g = parse(CASES.last().expect("there are cases")).expect("a graph");
    let mut compiled = compile(&g, &Options::default()).expect("it compiles");
    let model = compiled.load().expect("it loads");
    let [a, b]: [Array; 2] =
        std::array::from_fn(|i| Array::from_slice(&[i as f32; 80], &[80]).expect("an array"));
    let part = |a: &Array, at| a.slice(0, at, 40, 1);
    let run = |p: &Array, m: &Array, g: &Array| model.run(&[p, m, g]).map(|_| ());
    run(&part(&a, 0), &part(&a, 40), &part(&b, 7)).expect("halves are apart");
    let clash = run(&part(&a, 0), &part(&a, 39), &part(&b, 0));
    assert!(matches!(clash, Err(RunError::Overlap(_))), "{clash:?}");
    let clash = run(&part(&a, 0), &part(&b, 0), &part(&b, 20));
    assert!(matches!(clash, Err(RunError::Overlap(_))), "{clash:?}");
    let strided = run(&a.slice(0, 0, 40, 2), &part(&b, 0), &part(&b, 40));
    assert!(strided.expect_err("every other").to_string().contains("dense"));
    let refused = compiled.artifact(&[sinter_kernels::isa::active()], &[]);
    assert!(matches!(refused, Err(CompileError::Updates { name }) if name == "p"));
}

/// A step of a random program: an op on values there are.
#[derive(Clone, Debug)]
enum Make {
    Unary(usize, UnaryOp),
    Binary(usize, usize, BinaryOp),
    Turned(usize),
    Flipped(usize),
    Product(usize, usize),
    Rows(usize),
}

fn make() -> impl Strategy<Value = Make> {
    let i = 0..1000usize;
    prop_oneof![
        (i.clone(), prop_oneof![Just(UnaryOp::Neg), Just(UnaryOp::Tanh)])
            .prop_map(|(a, u)| Make::Unary(a, u)),
        (i.clone(), i.clone(), prop_oneof![Just(BinaryOp::Add), Just(BinaryOp::Max)])
            .prop_map(|(a, b, o)| Make::Binary(a, b, o)),
        i.clone().prop_map(Make::Turned),
        i.clone().prop_map(Make::Flipped),
        (i.clone(), i.clone()).prop_map(|(a, b)| Make::Product(a, b)),
        i.prop_map(Make::Rows),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn random_programs(
        steps in prop::collection::vec(make(), 1..10),
        outs in prop::collection::vec(0..1000usize, 5),
        seed in 0..1000u64,
    ) {
        let mut g = Graph::new("random");
        let ty = Op::Full { value: 0.0.into(), dtype: DType::F32, shape: [4, 4][..].into() };
        let ty = eager::run1(&ty, &[]).expect("zeros");
        let ty = sinter_runtime::op::TensorType {
            dtype: ty.dtype(),
            shape: ty.shape().iter().map(|&d| d.into()).collect(),
        };
        let mut values: Vec<Value> =
            (0..3).map(|i| g.add_input(format!("x{i}"), ty.clone())).collect();
        for s in &steps {
            let pick = |i: usize| values[i % values.len()];
            let (op, of): (Op, Vec<Value>) = match *s {
                Make::Unary(a, u) => (Op::Unary(u), vec![pick(a)]),
                Make::Binary(a, b, o) => (Op::Binary(o), vec![pick(a), pick(b)]),
                Make::Turned(a) => (Op::Permute { perm: [1, 0][..].into() }, vec![pick(a)]),
                Make::Flipped(a) => (Op::Flip { axes: [1][..].into() }, vec![pick(a)]),
                Make::Product(a, b) => {
                    (Op::MatMul { act: sinter_runtime::op::Act::None }, vec![pick(a), pick(b)])
                }
                Make::Rows(a) => {
                    let axes = [1][..].into();
                    let sum = Op::Reduce { kind: ReduceKind::Sum, axes, keep: true };
                    let n = g.add_op(sum.to_graph(), &[pick(a)], Default::default()).unwrap();
                    (Op::Binary(BinaryOp::Sub), vec![pick(a), Value { node: n, output: 0 }])
                }
            };
            let node = g.add_op(op.to_graph(), &of, Default::default()).unwrap();
            values.push(Value { node, output: 0 });
        }
        for (k, o) in outs.iter().enumerate() {
            let v = values[o % values.len()];
            if k < 3 { g.add_update(k, v) } else { g.add_output(v) }
        }
        g.remove_dead();
        check(&g, seed).map_err(TestCaseError::fail)?;
    }
}
