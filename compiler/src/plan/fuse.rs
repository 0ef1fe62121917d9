//! Which ops become one kernel.
//!
//! Ops are taken in topological order, each into the kernel of one of its
//! operands where it fits, else into a kernel of its own. A kernel is one of
//!
//! * *loops*: element-wise ops of one shape, with reductions of that shape's last
//!   axes between them;
//! * a *contraction* with element-wise ops on its result as epilogue;
//! * one op by an eager kernel.
//!
//! Views join no kernel: they become strides of whoever reads them.

use super::Choices;
use super::channels::Layouts;
use super::recompute::Again;
use crate::codegen::cpu::supports;
use crate::graph::{Graph, Kind, NodeId, Value};
use crate::kernel::Inst;
use rustc_hash::{FxHashMap, FxHashSet};
use sinter_runtime::op::{Axes, ReduceKind};
use sinter_runtime::{DType, Dim, Extent, Op};
use smallvec::SmallVec;

/// A row longer than this is reduced by the eager kernel when there are few rows:
/// it uses all threads.
const LONG_ROW: usize = 1 << 16;

/// What a cluster is.
#[derive(Clone, PartialEq, Debug)]
pub(crate) enum Sort {
    /// Generated loops over `shape`, reducing `axes` (none: element-wise only).
    Loops { shape: Vec<Dim>, axes: Axes },
    /// A product or convolution, and what follows it.
    Contract { anchor: NodeId },
    /// An eager kernel.
    Library,
}

/// Ops that become one kernel, in topological order.
#[derive(Clone, Debug)]
pub(crate) struct Cluster {
    pub(crate) sort: Sort,
    pub(crate) nodes: Vec<NodeId>,
}

/// A fusion made or refused, for people.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Decision {
    /// The op's number in the text of [`super::Plan::graph`].
    pub node: usize,
    /// The op, as `name` and where it comes from.
    pub op: String,
    /// Number of the step it became part of.
    pub step: usize,
    /// Why there.
    pub reason: String,
}

pub(super) struct Fusion {
    /// In an order in which every cluster comes after those it reads.
    pub(super) clusters: Vec<Cluster>,
    /// Why each op is where it is.
    pub(super) reasons: FxHashMap<NodeId, String>,
    /// Outputs that are written into the inputs they update, while others are read.
    pub(super) in_place: FxHashSet<usize>,
}

struct Fuser<'a> {
    g: &'a Graph,
    layouts: &'a Layouts,
    fuse: bool,
    again: &'a Again,
    choices: &'a Choices,
    order: FxHashMap<NodeId, usize>,
    clusters: Vec<Option<Cluster>>,
    of: FxHashMap<NodeId, usize>,
    reasons: FxHashMap<NodeId, String>,
    /// By cluster: the last place in the order of what it waits for, itself included, and
    /// the clusters that wait for it.
    waits: Vec<usize>,
    waiting: Vec<Vec<usize>>,
}

/// Forms clusters. Without `fuse`, only ops of one group (one op of the user)
/// share a kernel.
pub(super) fn fuse(
    g: &Graph,
    layouts: &Layouts,
    fuse: bool,
    choices: &Choices,
    again: &Again,
) -> Fusion {
    let topological = &again.order;
    let mut f = Fuser {
        g,
        layouts,
        fuse,
        again,
        choices,
        order: topological.iter().enumerate().map(|(i, n)| (*n, i)).collect(),
        clusters: vec![],
        of: FxHashMap::default(),
        reasons: FxHashMap::default(),
        waits: vec![],
        waiting: vec![],
    };
    for &n in topological {
        if f.makes_kernel(n) {
            f.place(n);
        }
    }
    let (clusters, in_place) = f.sorted();
    Fusion { clusters, reasons: f.reasons, in_place }
}

/// Whether the loops of generated kernels can compute the op.
fn in_loops(g: &Graph, n: NodeId) -> Result<(), String> {
    let op = g.op(n).expect("called on ops");
    let dtype = g.node(n).types[0].dtype;
    let operands = g.operands(n);
    let first = operands.first().map_or(dtype, |v| g.type_of(*v).dtype);
    let arg = match op {
        Op::Select {} => g.type_of(operands[1]).dtype,
        _ => first,
    };
    let inst = match op {
        Op::Unary(u) => Inst::Unary(*u, 0),
        Op::Binary(b) => Inst::Binary(*b, 0, 0),
        Op::Compare(c) => Inst::Compare(*c, 0, 0),
        Op::Select {} => Inst::Select(0, 0, 0),
        Op::Cast { .. } => Inst::Cast(0),
        Op::Iota { .. } => Inst::Index(0),
        Op::Full { value, .. } => Inst::Const(*value),
        _ => return Err(format!("`{}` has no loop form", op.name())),
    };
    if supports(&inst, dtype, arg) {
        Ok(())
    } else {
        Err(format!("`{}` on {arg} is left to the library", op.name()))
    }
}

impl Fuser<'_> {
    /// Views and scalars become part of their users.
    fn makes_kernel(&self, n: NodeId) -> bool {
        match &self.g.node(n).kind {
            Kind::Op(op) => !op.is_view() && !self.is_immediate(n),
            _ => false,
        }
    }

    /// A filled array that kernels hold as an immediate.
    fn is_immediate(&self, n: NodeId) -> bool {
        matches!(self.g.op(n), Some(Op::Full { .. }))
            && !self.g.is_output(Value { node: n, output: 0 })
            && self.g.users(n).iter().all(|&u| {
                self.g.op(u).is_some_and(|op| op.is_pointwise()) && in_loops(self.g, u).is_ok()
            })
    }

    fn sort_of(&self, n: NodeId) -> (Sort, String) {
        let op = self.g.op(n).expect("called on ops");
        let operands = self.g.operands(n);
        let shape = |v: Value| self.g.type_of(v).shape.to_vec();
        match op {
            Op::MatMul { .. } | Op::Conv { .. } if self.g.node(n).types[0].dtype == DType::F32 => {
                (Sort::Contract { anchor: n }, "a contraction has a kernel of its own".into())
            }
            Op::Reduce { kind, axes, keep } => {
                let x = shape(operands[0]);
                let dtype = self.g.type_of(operands[0]).dtype;
                let turned = self.layouts.is_last(operands[0]);
                match self.reducible(*kind, axes, *keep, &x, dtype) {
                    Ok(()) if turned => (
                        Sort::Library,
                        "the axes it reduces are not the innermost in memory".into(),
                    ),
                    Ok(()) => {
                        (Sort::Loops { shape: x, axes: axes.clone() }, "starts a row kernel".into())
                    }
                    Err(why) => (Sort::Library, why),
                }
            }
            _ if op.is_pointwise() || matches!(op, Op::Iota { .. } | Op::Full { .. }) => {
                match in_loops(self.g, n) {
                    Ok(()) => (
                        Sort::Loops {
                            shape: self.g.node(n).types[0].shape.to_vec(),
                            axes: Axes::new(),
                        },
                        "starts a loop kernel".into(),
                    ),
                    Err(why) => (Sort::Library, why),
                }
            }
            _ => (Sort::Library, format!("`{}` runs by a library kernel", op.name())),
        }
    }

    /// Whether a reduction can be part of a row kernel.
    fn reducible(
        &self,
        kind: ReduceKind,
        axes: &Axes,
        keep: bool,
        x: &[Dim],
        dtype: DType,
    ) -> Result<(), String> {
        if !keep {
            return Err("a reduction that drops its axes runs by a library kernel".into());
        }
        if !matches!(kind, ReduceKind::Sum | ReduceKind::Prod | ReduceKind::Max | ReduceKind::Min) {
            return Err(format!("`{}` runs by a library kernel", kind.name()));
        }
        if !dtype.is_float() || dtype.is_half() {
            return Err(format!("a reduction of {dtype} runs by a library kernel"));
        }
        let first = x.len() - axes.len();
        if axes.iter().any(|&a| a < first) || axes.is_empty() {
            return Err("only the last axes are reduced in loops".into());
        }
        let hints = self.g.hints();
        let size = |d: &[Dim]| d.iter().map(|d| d.eval(&hints).unwrap_or(1)).product::<usize>();
        if size(&x[first..]) > LONG_ROW && size(&x[..first]) < 8 {
            return Err("few long rows: the library kernel shares them among threads".into());
        }
        Ok(())
    }

    fn place(&mut self, n: NodeId) {
        let (sort, alone) = self.sort_of(n);
        if sort != Sort::Library {
            // The latest operand's kernel first: it is the likeliest to fit.
            let mut near: Vec<usize> =
                self.g.operands(n).iter().filter_map(|v| self.of.get(&v.node).copied()).collect();
            near.sort_unstable_by_key(|&c| std::cmp::Reverse(self.last(c)));
            near.dedup();
            let mut refused = String::new();
            for c in near {
                match self.fits(n, &sort, c) {
                    Ok(joined) => {
                        let with = self.describe(c);
                        self.join(n, c, joined);
                        self.reasons.insert(n, format!("joins {with}"));
                        self.merge_operands(n, c);
                        return;
                    }
                    Err(why) if refused.is_empty() => refused = why,
                    Err(_) => {}
                }
            }
            if !refused.is_empty() {
                self.reasons.insert(n, format!("{alone}; not with its operand: {refused}"));
            }
        }
        self.reasons.entry(n).or_insert(alone);
        let c = self.clusters.len();
        self.of.insert(n, c);
        self.clusters.push(Some(Cluster { sort, nodes: vec![n] }));
        self.waits.push(0);
        self.waiting.push(vec![]);
        self.placed(n, c);
    }

    /// Takes note of what a cluster waits for now that `n` is in it.
    fn placed(&mut self, n: NodeId, c: usize) {
        let mut until = self.order[&n];
        for m in self.sources(n) {
            if let Some(&d) = self.of.get(&m).filter(|d| **d != c) {
                until = until.max(self.waits[d]);
                self.waiting[d].push(c);
            }
        }
        self.wait(c, until);
    }

    /// Has a cluster, and what waits for it, wait for a place in the order.
    fn wait(&mut self, c: usize, until: usize) {
        let mut todo = vec![c];
        while let Some(c) = todo.pop() {
            if self.waits[c] < until {
                self.waits[c] = until;
                todo.extend(&self.waiting[c]);
            }
        }
    }

    fn cluster(&self, c: usize) -> &Cluster {
        self.clusters[c].as_ref().expect("merged clusters are not looked at")
    }

    fn last(&self, c: usize) -> usize {
        self.cluster(c).nodes.iter().map(|n| self.order[n]).max().unwrap_or(0)
    }

    fn describe(&self, c: usize) -> String {
        let first = self.cluster(c).nodes[0];
        format!("the kernel of `{}`", self.g.op(first).map_or("", |o| o.name()))
    }

    fn same_group(&self, n: NodeId, c: usize) -> bool {
        let group = |n: NodeId| self.g.node(n).origin.group;
        group(n).is_some() && self.cluster(c).nodes.iter().all(|&m| group(m) == group(n))
    }

    /// Whether `n` may join cluster `c`; the sort the cluster then has.
    fn fits(&self, n: NodeId, sort: &Sort, c: usize) -> Result<Sort, String> {
        if !self.fuse && !self.same_group(n, c) {
            return Err("fusion is off".into());
        }
        let joined = match (&self.cluster(c).sort, sort) {
            (Sort::Library, _) => return Err("that is a library kernel".into()),
            (_, Sort::Contract { .. }) => {
                return Err("a contraction reads its operands from memory".into());
            }
            (Sort::Contract { anchor }, Sort::Loops { shape, axes }) => {
                if !axes.is_empty() {
                    return Err("an epilogue does not reduce".into());
                }
                self.epilogue(n, *anchor, shape, c)?;
                Sort::Contract { anchor: *anchor }
            }
            (Sort::Loops { shape, axes }, Sort::Loops { shape: s, axes: a }) => {
                Sort::Loops { shape: shape.clone(), axes: loops_join(shape, axes, s, a)? }
            }
            (_, Sort::Library) => unreachable!("only loops and contractions look for company"),
        };
        if self.would_cycle(&[n], c) {
            return Err("it also needs something computed in between".into());
        }
        if self.apart(&[n], &self.cluster(c).nodes) {
            return Err("that is of the forward pass, and this is not".into());
        }
        if self.parts(&[n], c) {
            return Err("apart they are faster, as was measured".into());
        }
        Ok(joined)
    }

    /// Whether one is of the forward pass of a step of training and the other is not.
    fn apart(&self, a: &[NodeId], b: &[NodeId]) -> bool {
        let forward = |n: &NodeId| self.again.forward.contains(n);
        let (first, second) = (a.iter().chain(b).any(forward), a.iter().chain(b).all(forward));
        first && !second
    }

    /// Whether element-wise `n` can finish tiles of a contraction.
    fn epilogue(&self, n: NodeId, anchor: NodeId, shape: &[Dim], c: usize) -> Result<(), String> {
        let result = &self.g.node(anchor).types[0];
        if result.shape.as_slice() != shape {
            return Err("its shape is not that of the contraction's result".into());
        }
        if self.g.node(n).types[0].dtype != DType::F32 {
            return Err("tiles are f32".into());
        }
        let last = |node: NodeId| self.layouts.is_last(Value { node, output: 0 });
        if last(n) != last(anchor) {
            return Err("its result lies in another order".into());
        }
        // The tile is finished in place: nobody else may want it unfinished.
        for &m in &self.cluster(c).nodes {
            let v = Value { node: m, output: 0 };
            if self.g.is_output(v)
                || self.g.users(m).iter().any(|&u| u != n && self.of.get(&u) != Some(&c))
            {
                return Err("the contraction's result is needed elsewhere too".into());
            }
        }
        // A tile is a region of [batch, rows, columns]; other operands must be
        // addressable by the same three indices.
        for v in self.g.operands(n) {
            if self.of.get(&v.node) == Some(&c) {
                continue;
            }
            if !super::tiles::tile_addressable(self.g, self.layouts, anchor, v) {
                return Err("an operand cannot be addressed by tile".into());
            }
        }
        Ok(())
    }

    /// Whether an op that is to be apart from its operands would share a kernel with one
    /// of them, if `nodes` joined cluster `c`.
    fn parts(&self, nodes: &[NodeId], c: usize) -> bool {
        if !self.choices.any_apart() {
            return false;
        }
        let all: FxHashSet<NodeId> = self.cluster(c).nodes.iter().chain(nodes).copied().collect();
        let split = |n: &&NodeId| self.choices.apart(**n);
        all.iter().filter(split).any(|&n| self.sources(n).iter().any(|m| all.contains(m)))
    }

    /// Whether clusters would need each other if `nodes` joined cluster `c`: does
    /// any operand from outside depend on `c`?
    fn would_cycle(&self, nodes: &[NodeId], c: usize) -> bool {
        let floor = self.cluster(c).nodes.iter().map(|n| self.order[n]).min().unwrap_or(0);
        let mut seen: FxHashSet<usize> = FxHashSet::default();
        let mut todo: Vec<NodeId> = Vec::new();
        for &n in nodes {
            for v in self.g.operands(n) {
                if self.of.get(&v.node) != Some(&c) && !nodes.contains(&v.node) {
                    todo.push(v.node);
                }
            }
        }
        let mut visited: FxHashSet<NodeId> = FxHashSet::default();
        while let Some(m) = todo.pop() {
            if !visited.insert(m) {
                continue;
            }
            match self.of.get(&m) {
                Some(&d) if d == c => return true,
                // A kernel runs as a whole: it waits for all its operands.
                Some(&d) => {
                    if self.waits[d] > floor && seen.insert(d) {
                        for &k in &self.cluster(d).nodes {
                            todo.extend(self.g.operands(k).iter().map(|v| v.node));
                        }
                    }
                }
                // A view or input.
                None => todo.extend(self.g.operands(m).iter().map(|v| v.node)),
            }
        }
        false
    }

    fn join(&mut self, n: NodeId, c: usize, sort: Sort) {
        let cluster = self.clusters[c].as_mut().expect("live");
        cluster.nodes.push(n);
        cluster.sort = sort;
        self.of.insert(n, c);
        self.placed(n, c);
    }

    /// Draws the loop kernels of `n`'s other operands into the same kernel, where
    /// they walk the same space.
    fn merge_operands(&mut self, n: NodeId, c: usize) {
        let others: SmallVec<[usize; 3]> = self
            .g
            .operands(n)
            .iter()
            .filter_map(|v| self.of.get(&v.node).copied())
            .filter(|&d| d != c)
            .collect();
        for d in others {
            if self.clusters[d].is_none() || self.of[&n] == d {
                continue;
            }
            let (Sort::Loops { shape, axes }, Sort::Loops { shape: s, axes: a }) =
                (&self.cluster(c).sort, &self.cluster(d).sort)
            else {
                continue;
            };
            let Ok(axes) = loops_join(shape, axes, s, a) else { continue };
            if shape != s || (!self.fuse && !self.same_group(self.cluster(d).nodes[0], c)) {
                continue;
            }
            let shape = shape.clone();
            let nodes = self.cluster(d).nodes.clone();
            // Neither may depend on the other through a third.
            if self.would_cycle(&nodes, c) || self.would_cycle(&self.cluster(c).nodes.clone(), d) {
                continue;
            }
            if self.apart(&nodes, &self.cluster(c).nodes) || self.parts(&nodes, c) {
                continue;
            }
            self.clusters[d] = None;
            for &m in &nodes {
                self.of.insert(m, c);
                self.reasons.insert(m, "joins a kernel over the same space".into());
            }
            let order = &self.order;
            let cluster = self.clusters[c].as_mut().expect("live");
            cluster.nodes.extend(nodes);
            cluster.nodes.sort_unstable_by_key(|n| order[n]);
            cluster.sort = Sort::Loops { shape, axes };
            // Who waits for the one waits for both; and so does this one.
            let behind = self.waiting[d].clone();
            self.waiting[c].extend(behind.into_iter().filter(|e| *e != c));
            self.waiting[d].push(c);
            let until = self.waits[c].max(self.waits[d]);
            self.waits[c] = 0;
            self.wait(c, until);
        }
    }

    /// The clusters and inputs that a node's operands come from, through views.
    fn sources(&self, n: NodeId) -> Vec<NodeId> {
        let mut out = Vec::new();
        let mut todo: Vec<NodeId> = self.g.operands(n).iter().map(|v| v.node).collect();
        while let Some(m) = todo.pop() {
            let view = self.g.op(m).is_some() && !self.of.contains_key(&m);
            if view {
                todo.extend(self.g.operands(m).iter().map(|v| v.node));
            } else {
                out.push(m);
            }
        }
        out
    }

    /// Outputs that update an input and whose kernel may write it in place: loops, or what
    /// follows a contraction, that read of it what they write at the same time; and that
    /// kernel.
    fn updates(&self) -> Vec<(usize, NodeId, usize)> {
        let g = self.g;
        let mut out = Vec::new();
        for (o, v) in g.outputs().iter().enumerate() {
            let Some(input) = g.updates(o).map(|i| g.inputs()[i]) else { continue };
            let Some(&c) = self.of.get(&v.node) else { continue };
            let (shape, element_wise) = match &self.cluster(c).sort {
                Sort::Loops { shape, axes } => (shape.as_slice(), axes.is_empty()),
                Sort::Contract { anchor } => {
                    let free = *anchor != v.node && !self.sources(*anchor).contains(&input);
                    (g.node(*anchor).types[0].shape.as_slice(), free)
                }
                Sort::Library => continue,
            };
            let whole = shape == g.node(input).types[0].shape.as_slice();
            let mut reads = self.cluster(c).nodes.iter().flat_map(|&n| g.operands(n));
            let aligned = reads.all(|r| {
                r.node == input
                    || self.of.contains_key(&r.node)
                    || g.op(r.node).is_none()
                    || !self.sources(r.node).contains(&input)
            });
            let once = g.outputs().iter().filter(|w| *w == v).count() == 1;
            // An output that is a view of the input reads it after all else.
            let read_late = g.outputs().iter().any(|w| {
                w.node == input
                    || (!self.of.contains_key(&w.node)
                        && g.op(w.node).is_some()
                        && self.sources(w.node).contains(&input))
            });
            if element_wise && whole && aligned && once && !read_late {
                out.push((o, input, c));
            }
        }
        out
    }

    /// Clusters so that each comes after those it reads, and after those that read an
    /// input which it writes; the earliest first, updates as soon as they can.
    fn sorted(&mut self) -> (Vec<Cluster>, FxHashSet<usize>) {
        let live: Vec<usize> =
            (0..self.clusters.len()).filter(|&c| self.clusters[c].is_some()).collect();
        let mut needs: FxHashMap<usize, FxHashSet<usize>> = FxHashMap::default();
        for &c in &live {
            let mut set = FxHashSet::default();
            let mut todo: Vec<NodeId> = Vec::new();
            for &n in &self.cluster(c).nodes {
                todo.extend(self.g.operands(n).iter().map(|v| v.node));
            }
            while let Some(m) = todo.pop() {
                match self.of.get(&m) {
                    Some(&d) if d == c => {}
                    Some(&d) => {
                        set.insert(d);
                    }
                    None => todo.extend(self.g.operands(m).iter().map(|v| v.node)),
                }
            }
            needs.insert(c, set);
        }
        // Who reads an input before it is written.
        let mut updates = self.updates();
        let mut readers: FxHashMap<NodeId, Vec<usize>> = FxHashMap::default();
        if !updates.is_empty() {
            for &c in &live {
                for &n in &self.cluster(c).nodes {
                    for m in self.sources(n) {
                        if self.g.op(m).is_none() {
                            readers.entry(m).or_default().push(c);
                        }
                    }
                }
            }
        }
        let waits = |updates: &[(usize, NodeId, usize)]| {
            let mut waits: FxHashMap<usize, FxHashSet<usize>> = FxHashMap::default();
            for &(_, input, c) in updates {
                let before = readers.get(&input).into_iter().flatten().filter(|d| **d != c);
                waits.entry(c).or_default().extend(before);
            }
            waits
        };
        let mut waiting = waits(&updates);
        let mut out = Vec::new();
        let mut done: FxHashSet<usize> = FxHashSet::default();
        while out.len() < live.len() {
            let is_done = |d: &usize| done.contains(d);
            let ready = |c: &usize| {
                needs[c].iter().all(is_done) && waiting.get(c).is_none_or(|w| w.iter().all(is_done))
            };
            let next = live.iter().copied().filter(|c| !is_done(c) && ready(c)).min_by_key(|c| {
                let first = self.cluster(*c).nodes.iter().map(|n| self.order[n]).min();
                (!waiting.contains_key(c), first)
            });
            let Some(c) = next else {
                // A kernel that needs a new value and an old one: the new one is copied.
                let stuck = updates.iter().position(|(_, _, c)| !done.contains(c));
                updates.remove(stuck.expect("joining never makes a cycle"));
                waiting = waits(&updates);
                continue;
            };
            done.insert(c);
            out.push(self.cluster(c).clone());
        }
        (out, updates.into_iter().map(|u| u.0).collect())
    }
}

/// Whether two loop kernels walk one space; the axes reduced together.
fn loops_join(shape: &[Dim], axes: &Axes, s: &[Dim], a: &Axes) -> Result<Axes, String> {
    if s == shape {
        if axes.is_empty() {
            return Ok(a.clone());
        }
        if a.is_empty() || a == axes {
            return Ok(axes.clone());
        }
        return Err("it reduces other axes".into());
    }
    // Work on the rows' results.
    let rows = s.len() == shape.len()
        && !axes.is_empty()
        && a.is_empty()
        && (0..s.len()).all(|i| if axes.contains(&i) { s[i].is(1) } else { s[i] == shape[i] });
    if rows { Ok(axes.clone()) } else { Err("its shape differs".into()) }
}
