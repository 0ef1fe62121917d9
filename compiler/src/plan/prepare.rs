//! Before fusion: values known now are computed, composites become what they are
//! made of.

use super::Choices;
use crate::graph::{Builder, Data, Graph, Kind, NodeId, Origin, Value};
use rustc_hash::FxHashMap;
use sinter_runtime::op::{Act, attention_grad, decompose};
use sinter_runtime::{Array, DType, Dim, Op, OpError, eager};
use smallvec::SmallVec;

/// Numbers every op of the user: what it is expanded into stays one group.
pub(super) fn number_groups(g: &mut Graph) {
    for (i, n) in g.topological().into_iter().enumerate() {
        g.node_mut(n).origin.group = Some(i as u32);
    }
}

/// Computes what depends on constants alone, or will where it is needed ([`Data`]). Views
/// of constants stay views: no weight is copied here.
///
/// # Errors
/// When an op fails on the constants, for example because memory runs out.
pub(super) fn fold_constants(g: &mut Graph) -> Result<(), OpError> {
    let mut known: FxHashMap<Value, Data> = FxHashMap::default();
    for n in g.topological() {
        match &g.node(n).kind {
            Kind::Input { .. } => {}
            Kind::Constant(i) => {
                if let Some(a) = &g.constants[*i].data {
                    known.insert(Value { node: n, output: 0 }, a.clone());
                }
            }
            Kind::Op(op) => {
                let operands = g.operands(n);
                // Scalars that fill an array stay ops: kernels hold them as immediates.
                let foldable = !operands.is_empty()
                    && !matches!(op, Op::Random { .. } | Op::Sample { .. } | Op::Dropout { .. })
                    && operands.iter().all(|v| known.contains_key(v) || is_fill(g, *v))
                    && operands.iter().any(|v| known.contains_key(v));
                let Some(op) = foldable.then(|| op.eval(&[])).flatten() else { continue };
                let args = operands
                    .iter()
                    .map(|v| match known.get(v) {
                        Some(a) => Ok(a.clone()),
                        None => Ok(fill(g, *v)?.into()),
                    })
                    .collect::<Result<SmallVec<[Data; 3]>, OpError>>()?;
                let types = g.node(n).types.iter().filter_map(|t| t.eval(&[])).collect();
                let shared = g.users(n).len() > 1;
                for (k, data) in Data::of(op, args, types, shared)?.into_iter().enumerate() {
                    known.insert(Value { node: n, output: k as u8 }, data);
                }
            }
        }
    }
    // Where a computed value meets one that is not, it becomes a constant.
    for n in g.topological() {
        let Kind::Op(_) = &g.node(n).kind else { continue };
        if known.contains_key(&Value { node: n, output: 0 }) {
            continue;
        }
        for v in g.operands(n) {
            if matches!(g.node(v.node).kind, Kind::Op(_))
                && let Some(a) = known.get(&v)
            {
                replace(g, v, a.clone(), &mut known);
            }
        }
    }
    for v in g.outputs().to_vec() {
        if matches!(g.node(v.node).kind, Kind::Op(_))
            && let Some(a) = known.get(&v)
        {
            replace(g, v, a.clone(), &mut known);
        }
    }
    g.remove_dead();
    Ok(())
}

fn replace(g: &mut Graph, v: Value, a: Data, known: &mut FxHashMap<Value, Data>) {
    let name = constant_name(g, v);
    let c = g.add_constant(name, a.clone());
    g.replace_uses(v, c);
    known.insert(c, a);
}

/// A name that says which weight the value was computed from.
fn constant_name(g: &Graph, v: Value) -> String {
    let mut at = v.node;
    loop {
        match &g.node(at).kind {
            Kind::Constant(i) => {
                let base = &g.constants[*i].name;
                return if base.ends_with(".folded") {
                    base.clone()
                } else {
                    format!("{base}.folded")
                };
            }
            Kind::Op(_) => match g.operands(at).first() {
                Some(o) => at = o.node,
                None => return "folded".to_string(),
            },
            Kind::Input { .. } => return "folded".to_string(),
        }
    }
}

fn is_fill(g: &Graph, v: Value) -> bool {
    matches!(g.op(v.node), Some(Op::Full { .. }))
}

fn fill(g: &Graph, v: Value) -> Result<Array, OpError> {
    match g.op(v.node).and_then(|op| op.eval(&[])) {
        Some(op) => eager::run1(&op, &[]),
        None => Err(OpError::Shape {
            op: "full".to_string(),
            reason: "a symbolic extent meets a constant".to_string(),
        }),
    }
}

/// Expands composites that no kernel takes as they are. What stays whole: products
/// and convolutions with a bias or ReLU, attention, and softmax along an axis that the
/// generated row kernels do not reach.
///
/// # Errors
/// When a decomposition breaks a rule: a mistake in the vocabulary.
pub(super) fn expand(g: &mut Graph, choices: &Choices) -> Result<(), OpError> {
    loop {
        let expands = |n: NodeId| match choices.of(n).and_then(|c| c.whole) {
            Some(whole) => !whole,
            None => must_expand(g, n),
        };
        let next = g.topological().into_iter().find(|&n| expands(n));
        let Some(n) = next else { break };
        expand_one(g, n)?;
    }
    g.remove_dead();
    Ok(())
}

fn must_expand(g: &Graph, n: NodeId) -> bool {
    let Some(op) = g.op(n) else { return false };
    let operands = g.operands(n);
    if !op.is_composite(operands.len()) && !matches!(op, Op::AttentionGrad { .. }) {
        return false;
    }
    let x = g.type_of(operands[0]);
    let rank = x.shape.len();
    match op {
        // Kernels apply a bias and ReLU in registers; other activations are generated
        // code on the finished tile.
        Op::MatMul { act } | Op::Conv { act, .. } => {
            x.dtype != DType::F32 || !matches!(act, Act::None | Act::Relu)
        }
        // In one pass over memory, where row kernels would make several.
        Op::Softmax { axis, .. } => x.dtype != DType::F32 || *axis + 1 == rank,
        // The kernel makes no matrix of scores.
        Op::Attention { .. } | Op::AttentionGrad { .. } => x.dtype != DType::F32,
        Op::Dropout { .. } => false,
        _ => true,
    }
}

fn expand_one(g: &mut Graph, n: NodeId) -> Result<(), OpError> {
    let op = g.op(n).cloned().expect("called on ops");
    let operands = g.operands(n);
    let origin = g.node(n).origin.clone();
    let value = match &op {
        Op::AttentionGrad { scale, causal } => {
            let mut b = Builder { graph: g, origin };
            let made = attention_grad(&mut b, scale.get(), *causal, &operands)?;
            for (k, value) in made.into_iter().enumerate() {
                g.replace_uses(Value { node: n, output: k as u8 }, value);
            }
            g.remove_node(n);
            return Ok(());
        }
        // The activation alone comes off; the bias stays in the kernel.
        Op::MatMul { act } | Op::Conv { act, .. } if *act != Act::None => {
            let act = act.unary().expect("it is an activation");
            let bare = without_act(&op);
            let node = g.add_op(bare, &operands, origin.clone())?;
            let y = Value { node, output: 0 };
            let node = g.add_op(Op::Unary(act), &[y], origin)?;
            Value { node, output: 0 }
        }
        _ => {
            let mut b = Builder { graph: g, origin: Origin { ..origin } };
            decompose(&mut b, &op, &operands).expect("it is composite")?
        }
    };
    g.replace_uses(Value { node: n, output: 0 }, value);
    g.remove_node(n);
    Ok(())
}

fn without_act(op: &Op<Dim>) -> Op<Dim> {
    let mut op = op.clone();
    if let Op::MatMul { act } | Op::Conv { act, .. } = &mut op {
        *act = Act::None;
    }
    op
}
