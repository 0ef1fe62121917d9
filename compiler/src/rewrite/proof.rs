//! Proof by running: each rule on its examples, both sides, many inputs.

use super::*;
use crate::graph::{interpret, text, verify};
use sinter_runtime::op::RandomKind;
use sinter_runtime::{Array, DType, Op, eager};

fn random(shape: &[usize], positive: bool, seed: u64) -> Array {
    let normal = Op::Random {
        kind: RandomKind::Normal,
        dtype: DType::F32,
        seed,
        offset: 0,
        shape: shape.into(),
    };
    let x = eager::run1(&normal, &[]).unwrap();
    if positive {
        eager::run1(&Op::Unary(sinter_runtime::op::UnaryOp::Abs), &[&x]).unwrap()
    } else {
        x
    }
}

/// The example with random constants.
fn filled(example: &str, seed: u64) -> Graph {
    let mut g = text::parse(example).unwrap_or_else(|e| panic!("{e}\n{example}"));
    for (i, c) in g.constants.iter_mut().enumerate() {
        c.data = Some(random(&c.ty.shape, false, seed * 100 + i as u64).into());
    }
    verify(&g).unwrap();
    g
}

fn close(a: &Array, b: &Array, preserves: Preserves) -> Result<(), String> {
    if a.shape() != b.shape() || a.dtype() != b.dtype() {
        return Err("types differ".into());
    }
    let (x, y) = (a.to_vec::<f32>(), b.to_vec::<f32>());
    let scale = x.iter().fold(0f32, |m, v| m.max(v.abs()));
    for (p, q) in x.iter().zip(&y) {
        let same = p == q || (p.is_nan() && q.is_nan());
        let near = match preserves {
            Preserves::Exact => false,
            Preserves::Reassociating => (p - q).abs() <= 1e-6 * scale,
            Preserves::Approximating => (p - q).abs() <= 2e-6 * scale,
        };
        if !same && !near {
            return Err(format!("{p:e} and {q:e}"));
        }
    }
    Ok(())
}

#[test]
fn every_rule_fires_on_its_examples_and_keeps_what_it_says() {
    for rule in RULES {
        assert!(!rule.examples.is_empty(), "{} has no example", rule.name);
        for example in rule.examples {
            for seed in 1..6u64 {
                let g = filled(example, seed);
                let only = Options {
                    disabled: RULES
                        .iter()
                        .filter(|r| r.name != rule.name && !helps(rule.name, r.name))
                        .map(|r| r.name.to_string())
                        .collect(),
                    ..Options::default()
                };
                let (out, report) = rewrite(&g, &only);
                assert!(
                    report.applied.iter().any(|(n, k)| n == rule.name && *k > 0),
                    "{} does not fire on\n{g}{report:?}",
                    rule.name
                );
                verify(&out).unwrap_or_else(|e| panic!("{}: {e}", rule.name));
                // The choice must show the rule, or nothing was compared.
                assert_ne!(g.to_string(), out.to_string(), "{} is never chosen", rule.name);
                let sizes: Vec<usize> = g.symbols.iter().map(|s| s.hint).collect();
                let inputs: Vec<Array> = g
                    .inputs()
                    .iter()
                    .enumerate()
                    .map(|(i, n)| {
                        let ty = g.node(*n).types[0].eval(&sizes).unwrap();
                        let Kind::Input { name } = &g.node(*n).kind else { unreachable!() };
                        random(&ty.shape, name.contains("positive"), seed * 1000 + i as u64)
                    })
                    .collect();
                let a = interpret(&g, &inputs).unwrap();
                let b = interpret(&out, &inputs).unwrap();
                for (x, y) in a.iter().zip(&b) {
                    if let Err(e) = close(x, y, rule.preserves) {
                        panic!("{} is not {}: {e}\n{g}{out}", rule.name, rule.preserves.name());
                    }
                }
            }
        }
    }
}

/// A rule that only pays together with another.
fn helps(rule: &str, other: &str) -> bool {
    rule == "relu-pool" && other == "matmul-act"
}

#[test]
fn names_are_unique() {
    let mut names: Vec<_> = RULES.iter().map(|r| r.name).collect();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), RULES.len());
}
