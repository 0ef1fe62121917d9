//! Drawings of graphs: DOT for Graphviz ([`dot`]), SVG for pages ([`svg`]).
//!
//! Both show the same [picture](Picture): ops as lines in boxes, one box for each
//! op, or one for each step of a plan, so that it is seen what was fused. Constants
//! are named where they are used instead of having boxes of their own. Arrows carry
//! the types of the tensors that flow.

mod dot;
mod svg;

pub use dot::dot;
pub use svg::{DrawError, svg};

use crate::graph::{Graph, Kind, NodeId, Value, text};
use crate::pipeline::Report;
use rustc_hash::FxHashMap;
use sinter_runtime::op::Act;
use sinter_runtime::{Dim, Op};

/// Which ops became one step, for [`dot`] and [`svg`].
#[derive(Clone, Debug, Default)]
pub struct Steps {
    step_of: FxHashMap<NodeId, usize>,
    titles: FxHashMap<usize, String>,
}

impl Steps {
    /// The steps that the compiler made of its final graph, from its report.
    pub fn of(g: &Graph, report: &Report) -> Steps {
        let nodes: FxHashMap<usize, NodeId> =
            text::number(g).into_iter().map(|(n, i)| (i, n)).collect();
        let step_of =
            report.decisions.iter().filter_map(|d| Some((*nodes.get(&d.node)?, d.step))).collect();
        let titles = report.kernels.iter().map(|k| (k.step, k.how.clone())).collect();
        Steps { step_of, titles }
    }
}

/// What sort of work an op is, for its colour.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Sort {
    Port,
    Contraction,
    Pointwise,
    Reduction,
    Layout,
    Other,
}

impl Sort {
    fn of<D>(op: &Op<D>) -> Sort {
        match op {
            Op::MatMul { .. }
            | Op::Conv { .. }
            | Op::ConvInputGrad { .. }
            | Op::ConvWeightGrad { .. }
            | Op::Recurrent { .. }
            | Op::RecurrentGrad { .. }
            | Op::Attention { .. }
            | Op::AttentionGrad { .. } => Sort::Contraction,
            Op::Reduce { .. }
            | Op::ArgReduce { .. }
            | Op::Scan { .. }
            | Op::Pool { .. }
            | Op::PoolGrad { .. }
            | Op::Softmax { .. }
            | Op::SoftmaxGrad { .. }
            | Op::LayerNorm { .. }
            | Op::LayerNormGrad { .. } => Sort::Reduction,
            op if op.is_pointwise() => Sort::Pointwise,
            op if op.is_view() => Sort::Layout,
            Op::Concat { .. } | Op::Pad { .. } | Op::SliceAssign { .. } => Sort::Layout,
            _ => Sort::Other,
        }
    }

    /// Fill and edge.
    fn colours(self) -> (&'static str, &'static str) {
        match self {
            Sort::Port => ("#ffffff", "#64748b"),
            Sort::Contraction => ("#dbeafe", "#2563eb"),
            Sort::Pointwise => ("#dcfce7", "#16a34a"),
            Sort::Reduction => ("#ffedd5", "#ea580c"),
            Sort::Layout => ("#f1f5f9", "#94a3b8"),
            Sort::Other => ("#f3e8ff", "#9333ea"),
        }
    }
}

/// An op in a box.
struct Line {
    sort: Sort,
    name: String,
    /// Its constants, one each.
    notes: Vec<String>,
    /// The whole truth, shown on demand.
    tooltip: String,
}

/// One or more ops.
struct Part {
    /// The step, where there are steps.
    title: Option<String>,
    lines: Vec<Line>,
}

/// What is drawn.
struct Picture {
    parts: Vec<Part>,
    /// From, to, what flows.
    arrows: Vec<(usize, usize, String)>,
}

/// A value that needs no box: its users name it.
fn is_inline(g: &Graph, v: Value) -> bool {
    match &g.node(v.node).kind {
        Kind::Constant(_) => true,
        Kind::Op(_) if g.is_output(v) => false,
        Kind::Op(Op::Full { .. }) => true,
        Kind::Op(op) => op.is_view() && is_inline(g, g.operands(v.node)[0]),
        Kind::Input { .. } => false,
    }
}

/// `conv1.weight [32, 1, 3, 3]`, a view of it, or the number of a filled array.
fn inline_text(g: &Graph, v: Value) -> String {
    match &g.node(v.node).kind {
        Kind::Constant(i) => {
            let c = &g.constants[*i];
            format!("{} {:?}", c.name, c.ty.shape.as_slice())
        }
        Kind::Op(Op::Full { value, .. }) => value.to_string(),
        Kind::Op(op) => {
            let of = g.operands(v.node).first().map(|x| inline_text(g, *x));
            format!("{} {}", op.name(), of.unwrap_or_default())
        }
        Kind::Input { name } => name.clone(),
    }
}

fn line(g: &Graph, n: NodeId, op: &Op<Dim>) -> Line {
    let name = match op {
        Op::Reduce { kind, .. } => kind.name().to_string(),
        Op::MatMul { act } | Op::Conv { act, .. } if *act != Act::None => {
            format!("{} + {}", op.name(), act.name())
        }
        op => op.name().to_string(),
    };
    let notes =
        g.operands(n).into_iter().filter(|v| is_inline(g, *v)).map(|v| inline_text(g, v)).collect();
    let origin = g.node(n).origin.to_string();
    let mut tooltip = op.text(&g.symbol_names());
    if !origin.is_empty() {
        tooltip += &format!("\n{origin}");
    }
    Line { sort: Sort::of(op), name, notes, tooltip }
}

impl Picture {
    fn of(g: &Graph, steps: &Steps) -> Picture {
        let names = g.symbol_names();
        let mut parts: Vec<Part> = vec![];
        let mut part_of: FxHashMap<NodeId, usize> = FxHashMap::default();
        let mut part_of_step: FxHashMap<usize, usize> = FxHashMap::default();
        let mut arrows: Vec<(usize, usize, String)> = vec![];
        let flow = |v: Value| g.type_of(v).text(&names);
        let mut connect = |from: usize, to: usize, what: String| {
            let known = arrows.iter_mut().find(|a| (a.0, a.1) == (from, to));
            match known {
                Some(a) if a.2.split('\n').any(|l| l == what) => {}
                Some(a) => a.2 += &format!("\n{what}"),
                None if from != to => arrows.push((from, to, what)),
                None => {}
            }
        };
        let port = |name: &str, what: &str| Part {
            title: None,
            lines: vec![Line {
                sort: Sort::Port,
                name: name.to_string(),
                notes: vec![],
                tooltip: what.to_string(),
            }],
        };
        for n in g.topological() {
            let node = g.node(n);
            match &node.kind {
                Kind::Constant(_) if !g.is_output(Value { node: n, output: 0 }) => continue,
                Kind::Op(_) if is_inline(g, Value { node: n, output: 0 }) => continue,
                Kind::Input { name } => {
                    part_of.insert(n, parts.len());
                    parts.push(port(&format!("input {name}"), &node.types[0].text(&names)));
                }
                Kind::Constant(i) => {
                    part_of.insert(n, parts.len());
                    parts.push(port(&g.constants[*i].name, &node.types[0].text(&names)));
                }
                Kind::Op(op) => {
                    let step = steps.step_of.get(&n).copied();
                    let part = match step {
                        Some(s) => *part_of_step.entry(s).or_insert_with(|| {
                            let how = steps.titles.get(&s).map(|t| format!(": {t}"));
                            let title = format!("step {s}{}", how.unwrap_or_default());
                            parts.push(Part { title: Some(title), lines: vec![] });
                            parts.len() - 1
                        }),
                        None => {
                            parts.push(Part { title: None, lines: vec![] });
                            parts.len() - 1
                        }
                    };
                    parts[part].lines.push(line(g, n, op));
                    part_of.insert(n, part);
                    for v in g.operands(n) {
                        if let (false, Some(&from)) = (is_inline(g, v), part_of.get(&v.node)) {
                            connect(from, part, flow(v));
                        }
                    }
                }
            }
        }
        for (i, v) in g.outputs().iter().enumerate() {
            let name = if g.outputs().len() == 1 { "output".into() } else { format!("output {i}") };
            if let Some(&from) = part_of.get(&v.node) {
                connect(from, parts.len(), flow(*v));
            }
            parts.push(port(&name, &flow(*v)));
        }
        Picture { parts, arrows }
    }
}
