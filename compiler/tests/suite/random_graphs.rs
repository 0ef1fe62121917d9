//! Random small graphs: compiled fused, compiled unfused and eager agree.

use proptest::prelude::*;
use sinter_compiler::graph::{Graph, Origin, Symbol, Value, interpret, text, verify};
use sinter_runtime::{DType, Dim, Extent, Op};

/// One step of building: which op, and which of the values so far.
type Choice = (usize, usize, usize, usize);

/// Ops on f32, smooth and bounded enough that errors stay small: `{r}` is the last
/// axis, the letters after the colon say what the operands are.
const OPS: &[(&str, &str)] = &[
    ("add", "vv"),
    ("sub", "vv"),
    ("mul", "vv"),
    ("maximum", "vv"),
    ("tanh", "v"),
    ("sigmoid", "v"),
    ("relu", "v"),
    ("gelu", "v"),
    ("erf", "v"),
    ("neg", "v"),
    ("abs", "v"),
    ("square", "v"),
    ("reduce[kind=sum, axes=({r}), keep=true]", "v"),
    ("reduce[kind=max, axes=({r}), keep=true]", "v"),
    ("reduce[kind=sum, axes=({r}), keep=false]", "v"),
    ("reduce[kind=max, axes=(0), keep=true]", "v"),
    ("softmax[axis={r}, log=false]", "v"),
    ("layer_norm[dims=1, eps=1e-2]", "v"),
    ("matmul[act=none]", "vw"),
    ("matmul[act=tanh]", "vwb"),
    ("permute[perm=(1, 0)]", "v"),
    ("reshape[shape=(N, 2, 6)]", "v"),
    ("reshape[shape=(N, 12)]", "v"),
    ("slice[axis={r}, step=2, start=1, len=5]", "v"),
    ("slice[axis={r}, step=1, start=3, len=4]", "v"),
    ("flip[axes=({r})]", "v"),
    ("concat[axis={r}]", "vv"),
    ("broadcast[shape=(3, N, 12)]", "v"),
    ("scan[kind=sum, axis={r}, reverse=false]", "v"),
    ("select", "cvv"),
];

fn build(choices: &[Choice]) -> Graph {
    let mut g = Graph::new("random");
    g.symbols.push(Symbol { name: "N".into(), min: 1, max: 64, hint: 5 });
    let names = g.symbol_names();
    let f32s = |shape: &[Dim]| sinter_runtime::op::TensorType::new(DType::F32, shape);
    let n = Dim::symbol(0);
    let mut values = vec![
        g.add_input("x", f32s(&[n.clone(), Dim::from(12)])),
        g.add_input("y", f32s(&[n.clone(), Dim::from(1)])),
        g.add_input("z", f32s(&[Dim::from(12)])),
    ];
    let bools = sinter_runtime::op::TensorType::new(DType::Bool, &[n, Dim::from(12)][..]);
    let condition = g.add_input("c", bools);
    let last_extent = |g: &Graph, v: Value| {
        g.type_of(v).shape.last().and_then(|d| d.eval(&[])).filter(|&k| k > 0)
    };
    for &(op, a, b, c) in choices {
        let (template, takes) = OPS[op % OPS.len()];
        // Recent values more often than old ones.
        let pick = |k: usize| values[values.len() - 1 - k % values.len().min(5)];
        let x = pick(a);
        let Some(axis) = g.type_of(x).shape.len().checked_sub(1) else { continue };
        let op = Op::parse(&template.replace("{r}", &axis.to_string()), &names).expect(template);
        let columns = 4 + c % 9;
        let mut operands = vec![];
        let mut free = [a, b, c].into_iter();
        for kind in takes.chars() {
            operands.push(match kind {
                'v' => pick(free.next().expect("three choices")),
                'c' => condition,
                'w' => {
                    let Some(k) = last_extent(&g, x) else { break };
                    let w = crate::common::sample(&[k, columns], DType::F32, None, (a + b) as u64);
                    g.add_constant("w", w)
                }
                _ => {
                    let bias = crate::common::sample(&[columns], DType::F32, None, b as u64);
                    g.add_constant("b", bias)
                }
            });
        }
        // What does not fit together, for any size, is left out.
        if matches!(op, Op::Slice { .. }) && last_extent(&g, x).is_none() {
            continue;
        }
        if matches!(op, Op::LayerNorm { .. }) && !spreads(&g, x) {
            continue;
        }
        if let Ok(node) = g.add_op(op, &operands, Origin::default()) {
            values.push(Value { node, output: 0 });
        }
    }
    for v in values.iter().rev().take(2) {
        g.add_output(*v);
    }
    g.remove_dead();
    g
}

/// Whether every row of a value has different numbers. Of equal ones a normalisation
/// leaves their rounding errors alone, enlarged: no two ways of computing agree on it.
fn spreads(g: &Graph, v: Value) -> bool {
    let mut g = g.clone();
    let width = g.type_of(v).shape.last().and_then(|n| n.known());
    g.add_output(v);
    g.remove_dead();
    let out = interpret(&g, &crate::common::inputs(&g, &[5], 0)).expect("the ops fit");
    let wide = |row: &[f32]| {
        let (low, high) = row.iter().fold((f32::MAX, f32::MIN), |(l, h), &v| (l.min(v), h.max(v)));
        high - low > 1e-3 * high.abs().max(low.abs())
    };
    // One number is equal to itself, and normalised to nothing exactly.
    width == Some(1) || out[0].to_vec::<f32>().chunks(width.unwrap_or(1)).all(wide)
}

fn choices() -> impl Strategy<Value = Vec<Choice>> {
    let any = 0usize..1000;
    prop::collection::vec((any.clone(), any.clone(), any.clone(), any), 1..14)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_way_of_running_agrees(choices in choices()) {
        let g = build(&choices);
        if let Err(e) = crate::common::check(&g, &[&[5], &[1], &[33]], choices.len() as u64) {
            return Err(TestCaseError::fail(e));
        }
    }

    #[test]
    fn text_round_trips(choices in choices()) {
        let g = build(&choices);
        let again = text::parse(&g.to_string()).map_err(|e| TestCaseError::fail(e.to_string()))?;
        verify(&again).map_err(|e| TestCaseError::fail(e.to_string()))?;
        prop_assert_eq!(again.to_string(), g.to_string());
    }
}
