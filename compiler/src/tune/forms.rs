//! The ways in which a region can be computed, beside the rule's.

use super::region::Region;
use crate::cost;
use crate::graph::{Kind, NodeId, Value};
use crate::kernel::{Inst, Level, Stage};
use crate::plan::{Choice, Plan, Sort};
use rustc_hash::FxHashSet;
use sinter_kernels::conv::{ConvKernel, ConvParams};
use sinter_kernels::{gemm, par};
use sinter_runtime::op::UnaryOp;
use sinter_runtime::program::{Cut, Packing, Step};
use sinter_runtime::{DType, Dim, Extent, Op};

/// One way, for the ops of a region by their places.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Way {
    /// What is special about it.
    pub(super) label: String,
    pub(super) choices: Vec<(usize, Choice)>,
}

impl Way {
    fn one(label: impl Into<String>, op: usize, choice: Choice) -> Way {
        Way { label: label.into(), choices: vec![(op, choice)] }
    }

    /// This and another way, where both say something else.
    pub(super) fn and(&self, other: &Way) -> Option<Way> {
        let ([(a, x)], [(b, y)]) = (&self.choices[..], &other.choices[..]) else { return None };
        let (Some(c), Some(d)) = (x.cut, y.cut) else { return None };
        if a != b {
            return None;
        }
        let rule = Cut::default();
        let pick = |f: fn(&Cut) -> u32| match f(&d) {
            v if v == f(&rule) => Some(f(&c)),
            v if f(&c) == f(&rule) => Some(v),
            _ => None,
        };
        let cut = Cut {
            steps: pick(|c| c.steps)?,
            rows: pick(|c| c.rows)?,
            panels: pick(|c| c.panels)?,
            job: pick(|c| c.job)?,
            in_place: pick(|c| c.in_place)?,
        };
        let label = format!("{}, {}", self.label, other.label);
        Some(Way::one(label, *a, Choice { cut: Some(cut), ..x.clone() }))
    }
}

/// Nanoseconds from which loops are worth being measured with other widths.
const WORTH: f64 = 20e3;
/// Bytes of results from which a loop may write past the caches.
const STREAM: f64 = (1 << 20) as f64;
/// Memory operands from which it is uncertain that ops share a loop with profit: more do
/// not fit into registers.
const OPERANDS: usize = 10;
/// Bytes of a row from which passes over it leave the second-level cache.
const ROW: f64 = (512 << 10) as f64;

/// The ways for a cluster, whose plan by rule is `plan`.
pub(super) fn ways(region: &Region, sort: &Sort, plan: &Plan, scalar: bool, any: bool) -> Vec<Way> {
    match sort {
        Sort::Contract { anchor } => {
            let at = region.from.iter().position(|n| n == anchor).unwrap_or(0);
            contraction(region, at, plan, any)
        }
        Sort::Loops { .. } => loops(region, plan, scalar),
        Sort::Library => vec![],
    }
}

fn contraction(region: &Region, at: usize, plan: &Plan, any_order: bool) -> Vec<Way> {
    let mut ways = vec![];
    let (g, n) = (&region.graph, region.ops[at]);
    let operands = g.operands(n);
    let size = |v: Value| -> Vec<usize> {
        g.type_of(v).shape.iter().map(|d| d.known().unwrap_or(1)).collect()
    };
    let (x, w) = (size(operands[0]), size(operands[1]));
    let constant = matches!(g.node(operands[1].node).kind, Kind::Constant(_));
    let mut product = None;
    match g.op(n) {
        Some(Op::MatMul { .. }) => {
            let (k, n) = (w[w.len() - 2], w[w.len() - 1]);
            let rows = x[..x.len() - 1].iter().product::<usize>();
            let m = if w.len() == 2 { rows } else { x[x.len() - 2] };
            product = Some(([m, k, n], constant));
        }
        Some(&Op::Conv { stride, padding, dilation, groups, .. }) if constant => {
            let p = ConvParams { stride, padding, dilation, groups };
            let shape = [w[0], w[1], w[2], w[3]];
            use ConvKernel::{Depthwise, Direct, Pointwise, Winograd};
            // Other kernels round, or want images in another layout.
            let like = [Pointwise, Direct, Winograd, Depthwise];
            let Some(rule) = filter(plan).filter(|k| like.contains(k)) else { return ways };
            for kernel in like {
                // Minimal filtering adds in another order.
                let allowed = any_order || (kernel == Winograd) == (rule == Winograd);
                if kernel != rule && kernel.fits(shape, p) && allowed {
                    let choice = Choice { filter: Some(kernel), ..Choice::default() };
                    ways.push(Way::one(format!("{kernel:?}").to_lowercase(), at, choice));
                }
            }
            if rule == Pointwise {
                product = Some(([w[0], w[1], x[2] * x[3]], false));
            }
        }
        _ => {}
    }
    if let Some((sizes, packed)) = product {
        ways.extend(cuts(at, sizes, packed));
    }
    // Generated code that finishes tiles, or loops of its own.
    if let Some(next) = (0..region.ops.len()).find(|&i| i != at) {
        let choice = Choice { apart: true, ..Choice::default() };
        ways.push(Way::one("what follows apart", next, choice));
    }
    ways
}

/// The kernel of a plan's convolution.
fn filter(plan: &Plan) -> Option<ConvKernel> {
    plan.program.steps.iter().find_map(|s| match s {
        Step::Contract { packing: Packing::Conv(number), .. } => ConvKernel::from_number(*number),
        _ => None,
    })
}

/// Products cut otherwise, one number at a time.
fn cuts(at: usize, sizes: [usize; 3], packed: bool) -> Vec<Way> {
    let rule = Cut::default();
    let mut all: Vec<(String, Cut)> = vec![];
    for steps in [256, 512, 2048, 1 << 20] {
        all.push((format!("{steps} steps a pass"), Cut { steps, ..rule }));
    }
    for rows in [rule.rows / 4, rule.rows / 2, rule.rows * 2, rule.rows * 4] {
        all.push((format!("{rows} numbers of rows"), Cut { rows, ..rule }));
    }
    for panels in [rule.panels / 8, rule.panels / 2, rule.panels * 4] {
        all.push((format!("{panels} numbers of panels"), Cut { panels, ..rule }));
    }
    for job in [rule.job / 4, rule.job * 4] {
        all.push((format!("{job} products a piece"), Cut { job, ..rule }));
    }
    for in_place in [64, u32::MAX] {
        let what = if in_place == u32::MAX { "all".to_string() } else { in_place.to_string() };
        all.push((format!("{what} rows in place"), Cut { in_place, ..rule }));
    }
    let threads = par::threads();
    let mut seen: Vec<gemm::Cut> = vec![rule.into()];
    all.retain(|(_, cut)| {
        let cut = gemm::Cut::from(*cut);
        let new = !seen.iter().any(|s| cut.same(s, sizes, packed, threads));
        seen.extend(new.then_some(cut));
        new
    });
    let way = |(label, cut)| Way::one(label, at, Choice { cut: Some(cut), ..Choice::default() });
    all.into_iter().map(way).collect()
}

fn loops(region: &Region, plan: &Plan, scalar: bool) -> Vec<Way> {
    let mut ways = vec![];
    let g = &region.graph;
    if region.cost >= WORTH && !scalar {
        for at_once in [1, 2] {
            let choice = Choice { at_once: Some(at_once), ..Choice::default() };
            ways.push(Way::one(format!("{at_once} vectors at once"), 0, choice));
        }
        let written: f64 = g.outputs().iter().map(|v| cost::bytes(g.type_of(*v), &[])).sum();
        if written >= STREAM {
            for stream in [true, false] {
                let label = if stream { "past the caches" } else { "into the caches" };
                let choice = Choice { stream: Some(stream), ..Choice::default() };
                ways.push(Way::one(label, 0, choice));
            }
        }
    }
    if region.ops.len() > 1 && uncertain(region, plan, scalar).is_some() {
        ways.extend(apart(region));
    }
    ways
}

/// Why it is uncertain that the ops of a loop kernel are faster together: it is compiled
/// element by element, where parts of it may not be; it has more memory operands than
/// registers hold well; it computes functions again in several passes over a row; or its
/// rows are so long that passes leave the cache.
pub(super) fn uncertain(region: &Region, plan: &Plan, scalar: bool) -> Option<&'static str> {
    let [only] = &plan.generated[..] else { return None };
    let k = &only.kernel;
    if scalar {
        return Some("it is compiled element by element");
    }
    if k.args.len() > OPERANDS {
        return Some("it has many memory operands");
    }
    let passes = k.stages.iter().filter(|s| s.level == Level::Element).count();
    if passes > 1 {
        let again = |i: &Inst| matches!(i, Inst::Unary(u, _) if cost::unary_ns(*u) > 0.1);
        let functions = |s: &Stage| s.insts.iter().filter(|(i, _)| again(i)).count();
        let computed: usize = k.stages.iter().map(functions).sum();
        let g = &region.graph;
        let dear =
            |n: &&NodeId| matches!(g.op(**n), Some(Op::Unary(u)) if cost::unary_ns(*u) > 0.1);
        if computed > region.ops.iter().filter(dear).count() {
            return Some("it computes functions again");
        }
        let row: usize = k.extents[k.parallel..].iter().map(|d| d.known().unwrap_or(1)).product();
        let moving = k.args.iter().filter(|a| a.strides.last().is_some_and(|s| !s.is(0)));
        let bytes: usize = moving.map(|a| row * a.dtype.size()).sum();
        if bytes as f64 > ROW {
            return Some("its rows are long");
        }
    }
    None
}

/// Ops that share a loop kernel by rule, in several: passes by themselves, kinds of
/// numbers by themselves, every op by itself.
fn apart(region: &Region) -> Vec<Way> {
    let g = &region.graph;
    let inside: FxHashSet<NodeId> = region.ops.iter().copied().collect();
    // Operands among the ops, through views.
    let sources = |n: NodeId| {
        let mut found: Vec<NodeId> = vec![];
        let mut todo: Vec<NodeId> = g.operands(n).iter().map(|v| v.node).collect();
        while let Some(m) = todo.pop() {
            match g.op(m) {
                _ if inside.contains(&m) => found.push(m),
                Some(op) if op.is_view() => todo.extend(g.operands(m).iter().map(|v| v.node)),
                _ => {}
            }
        }
        found
    };
    let reduces = |n: NodeId| matches!(g.op(n), Some(Op::Reduce { .. }));
    let vector = |n: NodeId| {
        let simple = |d: DType| matches!(d, DType::F32 | DType::Bool);
        let function = |u: UnaryOp| u.lane(0.0f32).is_some();
        simple(g.node(n).types[0].dtype)
            && g.operands(n).iter().all(|v| simple(g.type_of(*v).dtype))
            && !matches!(g.op(n), Some(Op::Unary(u)) if !function(*u))
            && !matches!(g.op(n), Some(Op::Iota { .. }))
    };
    let mut ways: Vec<Way> = vec![];
    let mut offer = |label: &str, splits: &dyn Fn(NodeId, NodeId) -> bool| {
        let split = |n: NodeId| sources(n).iter().any(|&m| splits(n, m));
        let choice = Choice { apart: true, ..Choice::default() };
        let choices: Vec<_> = (0..region.ops.len())
            .filter(|&i| split(region.ops[i]))
            .map(|i| (i, choice.clone()))
            .collect();
        if !choices.is_empty() && ways.iter().all(|w| w.choices != choices) {
            ways.push(Way { label: label.to_string(), choices });
        }
    };
    offer("each pass apart", &|n, m| reduces(m) && !reduces(n));
    offer("what vectors hold apart", &|n, m| vector(n) != vector(m));
    offer("each op apart", &|_, _| true);
    ways
}

/// The other way for a composite: whole by the library's kernel, or as loops.
pub(super) fn composite(op: &Op<Dim>, rank: usize) -> Option<Way> {
    let (label, whole) = match op {
        Op::Softmax { axis, .. } if axis + 1 == rank => ("by the library's kernel", true),
        Op::Attention { .. } => ("as products and a softmax", false),
        _ => return None,
    };
    Some(Way::one(label, 0, Choice { whole: Some(whole), ..Choice::default() }))
}
