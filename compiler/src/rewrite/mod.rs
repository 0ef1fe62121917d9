//! Rewriting a graph by equality saturation with [`egg`].
//!
//! The graph goes into an e-graph whose language is the op vocabulary
//! ([`lang`]), the rules ([`rules`]) add equal expressions until nothing new
//! appears or a limit is reached, and [`extract`] chooses the cheapest.

mod attention;
mod examples;
mod extract;
mod lang;
#[cfg(test)]
mod proof;
mod rules;

pub use rules::{Preserves, RULES, Right, Rule};

use crate::graph::{Graph, Kind, NodeId, Origin, Value};
use egg::{Id, Pattern, Rewrite, Runner, Searcher, StopReason, Subst, Var};
use lang::{ENode, Head, Known};
use rules::Rewriter;
use rustc_hash::FxHashMap;
use smallvec::SmallVec;
use std::sync::LazyLock;
use std::time::Duration;

/// Limits of one saturation.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Limits {
    /// Rounds over all rules.
    pub iterations: usize,
    /// E-nodes.
    pub nodes: usize,
    /// Time; reached only by graphs the other limits do not hold.
    pub time: Duration,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits { iterations: 12, nodes: 200_000, time: Duration::from_secs(10) }
    }
}

/// Which rules run, and how far.
#[derive(Clone, Debug, PartialEq)]
pub struct Options {
    /// Rules that preserve less are left out.
    pub preserves: Preserves,
    /// Rules switched off by name.
    pub disabled: Vec<String>,
    /// Limits.
    pub limits: Limits,
}

impl Default for Options {
    fn default() -> Options {
        Options { preserves: Preserves::Approximating, disabled: vec![], limits: Limits::default() }
    }
}

/// What a saturation did.
#[derive(Clone, Debug, Default, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Report {
    /// Why it stopped.
    pub stopped: String,
    /// Rounds over all rules.
    pub iterations: usize,
    /// E-nodes at the end.
    pub nodes: usize,
    /// E-classes at the end.
    pub classes: usize,
    /// How often each rule added something, in the order of the rules.
    pub applied: Vec<(String, usize)>,
    /// Estimated cost before and after, in nanoseconds.
    pub cost: (f64, f64),
}

/// A rule of ours as egg applies it.
struct Applier {
    rule: &'static Rule,
    pattern: Option<Pattern<ENode>>,
    /// Variables that must stand for the same class.
    same: Vec<(Var, Var)>,
}

impl egg::Applier<ENode, Known> for Applier {
    fn apply_one(
        &self,
        g: &mut lang::Graph,
        root: Id,
        subst: &Subst,
        _: Option<&egg::PatternAst<ENode>>,
        _: egg::Symbol,
    ) -> Vec<Id> {
        if self.same.iter().any(|(a, b)| g.find(subst[*a]) != g.find(subst[*b])) {
            return vec![];
        }
        g.analysis.rule = Some(self.rule.name);
        let made = match (&self.pattern, self.rule.right) {
            (Some(p), _) => instantiate(g, p, subst),
            (None, Right::Make(make)) => make(&mut Rewriter { graph: g, subst, root }),
            (None, Right::Pattern(_)) => unreachable!("patterns are compiled"),
        };
        g.analysis.rule = None;
        let Some(id) = made else { return vec![] };
        // The equal of a value has its type: broadcasting may make it smaller.
        if g[id].data.types != g[root].data.types {
            return vec![];
        }
        if g.union(id, root) { vec![root] } else { vec![] }
    }

    fn vars(&self) -> Vec<Var> {
        self.pattern.as_ref().map(Searcher::<ENode, Known>::vars).unwrap_or_default()
    }
}

/// Builds a pattern's term; `None` when an op's rule refuses its operands.
fn instantiate(g: &mut lang::Graph, p: &Pattern<ENode>, subst: &Subst) -> Option<Id> {
    let mut ids: Vec<Id> = Vec::with_capacity(p.ast.len());
    for n in p.ast.iter() {
        let id = match n {
            egg::ENodeOrVar::Var(v) => subst[*v],
            egg::ENodeOrVar::ENode(n) => {
                let Head::Op(op) = &n.head else { return None };
                let children: SmallVec<[Id; 3]> =
                    n.children.iter().map(|c| ids[usize::from(*c)]).collect();
                let mut r = Rewriter { graph: g, subst, root: Id::from(0) };
                r.add(op.clone(), &children)?
            }
        };
        ids.push(id);
    }
    ids.last().copied()
}

static COMPILED: LazyLock<Vec<(&'static Rule, Rewrite<ENode, Known>)>> = LazyLock::new(|| {
    RULES
        .iter()
        .map(|rule| {
            let (left, same) = linear(rule.left);
            let left: Pattern<ENode> = parse(&left);
            let pattern = match rule.right {
                Right::Pattern(text) => Some(parse(text)),
                Right::Make(_) => None,
            };
            let rewrite = Rewrite::new(rule.name, left, Applier { rule, pattern, same });
            (rule, rewrite.expect("a right side uses only variables of the left"))
        })
        .collect()
});

/// The pattern with every variable used once, and which of them must agree.
///
/// Once its variables are bound, egg looks a subterm up instead of matching it;
/// subterms that stand for any attributes or for a number have no entry of their
/// own to be found.
fn linear(pattern: &str) -> (String, Vec<(Var, Var)>) {
    let (mut text, mut seen, mut same) = (String::new(), vec![], vec![]);
    let ends = |c: char| c == ' ' || c == '(' || c == ')';
    for token in pattern.split_inclusive(ends) {
        let name = token.trim_end_matches(ends);
        let again = seen.iter().filter(|n| **n == name).count();
        if name.starts_with('?') && again > 0 {
            let fresh = format!("{name}_{again}");
            let var = |n: &str| n.parse::<Var>().expect("variables start with a question mark");
            same.push((var(name), var(&fresh)));
            text.push_str(&fresh);
        } else {
            text.push_str(name);
        }
        text.push_str(&token[name.len()..]);
        seen.push(name);
    }
    (text, same)
}

fn parse(text: &str) -> Pattern<ENode> {
    text.parse().unwrap_or_else(|e| panic!("rule pattern `{text}`: {e}"))
}

/// Rewrites a graph; the result computes the same and costs no more.
pub fn rewrite(g: &Graph, options: &Options) -> (Graph, Report) {
    let enabled = |r: &Rule| {
        r.preserves <= options.preserves && !options.disabled.iter().any(|d| d == r.name)
    };
    let mut known = Known {
        inputs: g.inputs().iter().map(|n| g.node(*n).types[0].clone()).collect(),
        constants: (0..g.constants.len()).map(|i| constant_type(g, i)).collect(),
        hints: g.hints(),
        ..Known::default()
    };
    // The analysis must know types before the first node is added.
    let mut eg = lang::Graph::new(std::mem::take(&mut known));
    let (ids, roots) = insert(g, &mut eg);
    eg.rebuild();
    let before = extract::extract(&eg, &roots).cost;
    let rules: Vec<&Rewrite<ENode, Known>> =
        COMPILED.iter().filter(|(r, _)| enabled(r)).map(|(_, r)| r).collect();
    let runner = Runner::<ENode, Known, ()>::new(Known::default())
        .with_egraph(eg)
        .with_scheduler(egg::SimpleScheduler)
        .with_iter_limit(options.limits.iterations)
        .with_node_limit(options.limits.nodes)
        .with_time_limit(options.limits.time)
        .run(rules);
    let eg = &runner.egraph;
    let choice = extract::extract(eg, &roots);
    let mut applied: FxHashMap<&str, usize> = FxHashMap::default();
    for it in &runner.iterations {
        for (rule, n) in &it.applied {
            *applied.entry(rule.as_str()).or_default() += n;
        }
    }
    let mut report = Report {
        stopped: match runner.stop_reason {
            Some(StopReason::Saturated) => "saturated".to_string(),
            Some(StopReason::IterationLimit(n)) => format!("limit of {n} iterations"),
            Some(StopReason::NodeLimit(n)) => format!("limit of {n} nodes"),
            Some(StopReason::TimeLimit(t)) => format!("limit of {t:.1} s"),
            Some(StopReason::Other(why)) => why,
            None => "not run".to_string(),
        },
        iterations: runner.iterations.len(),
        nodes: eg.total_size(),
        classes: eg.number_of_classes(),
        applied: RULES
            .iter()
            .filter_map(|r| applied.get(r.name).map(|n| (r.name.to_string(), *n)))
            .collect(),
        cost: (before, choice.cost),
    };
    match rebuild(g, eg, &choice, &ids, &roots) {
        Some(out) => (out, report),
        None => {
            // Greedy choices of two classes may need each other; the graph as it
            // was is always a valid answer.
            report.stopped += "; no acyclic choice, graph left as it was";
            (g.clone(), report)
        }
    }
}

fn constant_type(g: &Graph, i: usize) -> sinter_runtime::op::TensorType<sinter_runtime::Dim> {
    let ty = &g.constants[i].ty;
    sinter_runtime::op::TensorType {
        dtype: ty.dtype,
        shape: ty.shape.iter().map(|&d| d.into()).collect(),
    }
}

/// Adds the graph to the e-graph: each node's class, and the outputs' classes.
fn insert(g: &Graph, eg: &mut lang::Graph) -> (FxHashMap<NodeId, Id>, Vec<Id>) {
    let mut ids: FxHashMap<NodeId, Id> = FxHashMap::default();
    for n in g.topological() {
        eg.analysis.adding = Some(n.index() as u32);
        let node = match &g.node(n).kind {
            Kind::Input { .. } => {
                let i = g.inputs().iter().position(|m| *m == n).unwrap_or(0);
                ENode { head: Head::Input(i as u32), children: SmallVec::new() }
            }
            Kind::Constant(i) => {
                ENode { head: Head::Constant(*i as u32), children: SmallVec::new() }
            }
            Kind::Op(op) => {
                let children: SmallVec<[Id; 3]> =
                    g.operands(n).iter().map(|v| class(g, eg, &ids, *v)).collect();
                ENode { head: Head::Op(op.clone()), children }
            }
        };
        let id = eg.add(node);
        ids.insert(n, id);
    }
    let roots = g.outputs().iter().map(|v| class(g, eg, &ids, *v)).collect();
    eg.analysis.adding = None;
    (ids, roots)
}

/// The class of a value: the node's, or that of one of its several results.
fn class(g: &Graph, eg: &mut lang::Graph, ids: &FxHashMap<NodeId, Id>, v: Value) -> Id {
    let node = ids[&v.node];
    if g.node(v.node).types.len() == 1 {
        return node;
    }
    eg.add(ENode { head: Head::Result(v.output), children: smallvec::smallvec![node] })
}

/// The graph of the chosen nodes.
fn rebuild(
    g: &Graph,
    eg: &lang::Graph,
    choice: &extract::Choice,
    ids: &FxHashMap<NodeId, Id>,
    roots: &[Id],
) -> Option<Graph> {
    // Which original node each chosen node still is.
    let mut originals: FxHashMap<(Id, ENode), NodeId> = FxHashMap::default();
    for n in g.topological() {
        if let Kind::Op(op) = &g.node(n).kind {
            let children = g
                .operands(n)
                .iter()
                .map(|v| {
                    let id = ids[&v.node];
                    if g.node(v.node).types.len() == 1 {
                        return Some(eg.find(id));
                    }
                    let r = ENode {
                        head: Head::Result(v.output),
                        children: smallvec::smallvec![eg.find(id)],
                    };
                    eg.lookup(r)
                })
                .collect::<Option<SmallVec<[Id; 3]>>>()?;
            let node = ENode { head: Head::Op(op.clone()), children };
            originals.entry((eg.find(ids[&n]), node)).or_insert(n);
        }
    }
    let mut out = g.like();
    let inputs: Vec<Value> = g
        .inputs()
        .iter()
        .map(|n| match &g.node(*n).kind {
            Kind::Input { name } => out.add_input(name.clone(), g.node(*n).types[0].clone()),
            _ => unreachable!("inputs are inputs"),
        })
        .collect();
    let mut built: FxHashMap<Id, Value> = FxHashMap::default();
    let mut busy: rustc_hash::FxHashSet<Id> = Default::default();
    let mut todo: Vec<Id> = roots.iter().rev().map(|r| eg.find(*r)).collect();
    while let Some(&id) = todo.last() {
        if built.contains_key(&id) {
            todo.pop();
            continue;
        }
        let node = choice.nodes.get(&id)?;
        let missing: Vec<Id> =
            node.children.iter().map(|c| eg.find(*c)).filter(|c| !built.contains_key(c)).collect();
        if !missing.is_empty() {
            if !busy.insert(id) {
                return None; // came back to itself
            }
            todo.extend(missing.into_iter().rev());
            continue;
        }
        let children: SmallVec<[Value; 3]> =
            node.children.iter().map(|c| built[&eg.find(*c)]).collect();
        let value = match &node.head {
            Head::Input(i) => inputs[*i as usize],
            Head::Constant(i) => out.constant_node(*i as usize),
            Head::Result(k) => Value { node: children[0].node, output: *k },
            Head::Op(op) => {
                let canonical = node.clone().map_children(|c| eg.find(c));
                let origin = origin(g, eg, id, originals.get(&(id, canonical)).copied());
                let n = out.add_op(op.clone(), &children, origin).ok()?;
                Value { node: n, output: 0 }
            }
            Head::Any(_) | Head::Number(_) => return None,
        };
        built.insert(id, value);
        todo.pop();
    }
    for (i, r) in roots.iter().enumerate() {
        let v = built[&eg.find(*r)];
        match g.updates(i) {
            Some(input) => out.add_update(input, v),
            None => out.add_output(v),
        }
    }
    Some(out)
}

/// Where a chosen node comes from: its original, or the rules that made it from
/// the original of its class.
fn origin(g: &Graph, eg: &lang::Graph, class: Id, original: Option<NodeId>) -> Origin {
    if let Some(n) = original {
        return g.node(n).origin.clone();
    }
    let facts = &eg[class].data;
    let mut o = match facts.node {
        Some(n) => g.node(NodeId::new(n as usize)).origin.clone(),
        None => Origin::default(),
    };
    o.made_by = Some(if facts.rules.is_empty() {
        "constant folding".into()
    } else {
        facts.rules.join(" + ").into()
    });
    o.group = None;
    o
}

use egg::Language as _;
