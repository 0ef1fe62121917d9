//! A cluster's element-wise ops and reductions as stages of a kernel.

use super::layout::Located;
use crate::graph::{Graph, NodeId, Value};
use crate::kernel::{Arg, Inst, Kernel, Level, Manner, Reg, Stage};
use rustc_hash::FxHashMap;
use sinter_runtime::{DType, Dim, Op};

/// What a kernel is made of: ops over one iteration space.
pub(super) struct Body<'a> {
    pub(super) g: &'a Graph,
    /// The ops, in topological order.
    pub(super) nodes: &'a [NodeId],
    /// Shape of the values of elements.
    pub(super) shape: &'a [Dim],
    /// Axes reduced: the last ones.
    pub(super) axes: &'a [usize],
}

/// Where values from outside and values needed outside lie, in the iteration space.
pub(super) struct Operands<'a> {
    /// A value from outside, with the shape of the iteration space.
    pub(super) read: &'a mut dyn FnMut(Value) -> Located,
    /// Values needed outside and where they go.
    pub(super) write: Vec<(NodeId, Located)>,
}

/// When a value exists: element stages have even times, row stages odd ones.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct When {
    time: usize,
    level: Level,
    reduction: bool,
}

struct Stager<'a, 'b, 'c> {
    body: &'a Body<'a>,
    operands: &'b mut Operands<'c>,
    when: FxHashMap<NodeId, When>,
    /// Row values by the node they come from.
    row_values: FxHashMap<NodeId, u32>,
    args: Vec<Arg>,
    /// Element values kept in an output's memory between stages.
    kept: FxHashMap<NodeId, u32>,
}

impl Body<'_> {
    fn inside(&self, n: NodeId) -> bool {
        self.nodes.contains(&n)
    }

    /// Whether a value has one element per row.
    fn is_row(&self, n: NodeId) -> bool {
        let s = &self.g.node(n).types[0].shape;
        !self.axes.is_empty() && s.as_slice() != self.shape
    }

    fn times(&self) -> FxHashMap<NodeId, When> {
        let mut when: FxHashMap<NodeId, When> = FxHashMap::default();
        for &n in self.nodes {
            let op = self.g.op(n).expect("clusters hold ops");
            let operands = self.g.operands(n);
            let times = operands.iter().filter_map(|v| when.get(&v.node));
            let reduction = matches!(op, Op::Reduce { .. });
            let w = if reduction {
                let t = times.map(|w| w.time).max().unwrap_or(0);
                // A row value reduced again waits for the next element stage.
                let t = t.next_multiple_of(2);
                When { time: t + 1, level: Level::Row, reduction }
            } else if self.is_row(n) {
                let t = times.map(|w| w.time).max().unwrap_or(1);
                When { time: if t % 2 == 0 { t + 1 } else { t }, level: Level::Row, reduction }
            } else {
                let t = times
                    .map(|w| if w.level == Level::Row { w.time + 1 } else { w.time })
                    .max()
                    .unwrap_or(0);
                When { time: t, level: Level::Element, reduction }
            };
            when.insert(n, w);
        }
        when
    }
}

/// Builds the kernel.
pub(super) fn build(body: &Body<'_>, operands: Operands<'_>, name: String) -> Kernel {
    let mut k = build_tile(body, operands, name);
    k.collapse();
    k
}

/// Builds the kernel with its axes as they are: for tiles, whose three axes are
/// the caller's.
pub(super) fn build_tile(body: &Body<'_>, mut operands: Operands<'_>, name: String) -> Kernel {
    let when = body.times();
    let last = when.values().map(|w| w.time).max().unwrap_or(0);
    let mut s = Stager {
        body,
        operands: &mut operands,
        when,
        row_values: FxHashMap::default(),
        args: vec![],
        kept: FxHashMap::default(),
    };
    // Writes come first in the list so that a value kept in one finds it.
    let writes: Vec<(NodeId, u32)> =
        s.operands.write.clone().into_iter().map(|(n, at)| (n, s.arg(at, true))).collect();
    let keep = s.choose_kept(&writes);
    let mut stages = Vec::new();
    let mut rows = 0u32;
    for time in 0..=last {
        let level = if time % 2 == 0 { Level::Element } else { Level::Row };
        let mut stage = Stage::new(level);
        let mut memo: FxHashMap<Value, Reg> = FxHashMap::default();
        if level == Level::Element {
            for &n in body.nodes {
                let w = s.when[&n];
                if w.reduction && w.time == time + 1 {
                    let Some(Op::Reduce { kind, .. }) = body.g.op(n) else { unreachable!() };
                    let x = body.g.operands(n)[0];
                    let r = s.emit(&mut stage, &mut memo, x, time);
                    stage.reductions.push((*kind, r));
                    s.row_values.insert(n, rows);
                    rows += 1;
                }
            }
        } else {
            for &n in body.nodes {
                let w = s.when[&n];
                let row_op = w.level == Level::Row && !w.reduction && w.time == time;
                if row_op && s.used_later(n, time) {
                    let r = s.emit(&mut stage, &mut memo, Value { node: n, output: 0 }, time);
                    stage.results.push(r);
                    s.row_values.insert(n, rows);
                    rows += 1;
                }
            }
        }
        for &(n, arg) in &writes {
            if s.when[&n].time == time {
                let r = s.emit(&mut stage, &mut memo, Value { node: n, output: 0 }, time);
                stage.stores.push((arg, r));
            }
        }
        s.remember(&writes, time);
        if let Some((n, arg)) = keep
            && s.when[&n].time == time
        {
            let r = s.emit(&mut stage, &mut memo, Value { node: n, output: 0 }, time);
            if !stage.stores.contains(&(arg, r)) {
                stage.stores.push((arg, r));
            }
            s.kept.insert(n, arg);
        }
        stages.push(stage);
    }
    let args = s.args;
    let parallel = body.shape.len() - body.axes.len();
    let (extents, manner) = (body.shape.to_vec(), Manner::RULE);
    Kernel { name, extents, parallel, args, stages, hook: false, manner }
}

impl Stager<'_, '_, '_> {
    fn arg(&mut self, at: Located, written: bool) -> u32 {
        let same = |a: &Arg| {
            a.buffer == at.buffer
                && a.dtype == at.dtype
                && a.offset == at.offset
                && a.strides == at.strides
        };
        if let Some(i) = self.args.iter().position(same) {
            self.args[i].written |= written;
            return i as u32;
        }
        self.args.push(Arg {
            buffer: at.buffer,
            dtype: at.dtype,
            offset: at.offset,
            strides: at.strides,
            written,
        });
        self.args.len() as u32 - 1
    }

    /// Later stages read what was just written; what was kept there until now is gone.
    fn remember(&mut self, writes: &[(NodeId, u32)], time: usize) {
        for &(n, arg) in writes {
            let w = self.when[&n];
            if w.time == time && w.level == Level::Element {
                self.kept.retain(|_, kept| *kept != arg);
                if self.args[arg as usize].dtype == DType::F32 {
                    self.kept.insert(n, arg);
                }
            }
        }
    }

    /// Whether a row op's value is needed after its stage, or by elements.
    fn used_later(&self, n: NodeId, time: usize) -> bool {
        self.body.g.users(n).iter().any(|u| self.when.get(u).is_some_and(|w| w.time > time))
    }

    /// An element value that costs something and is needed in several stages is
    /// kept in the memory of an output that is written only later: rows stay in
    /// the first-level cache. Cheap values are computed again.
    fn choose_kept(&self, writes: &[(NodeId, u32)]) -> Option<(NodeId, u32)> {
        let needs_again = |n: NodeId| {
            let t = self.when[&n].time;
            self.body.g.users(n).iter().any(|u| match self.when.get(u) {
                // A reduction takes it in its own stage.
                Some(w) if w.reduction => w.time > t + 1,
                Some(w) => w.time > t,
                None => false,
            })
        };
        let dear = |n: NodeId| matches!(self.body.g.op(n), Some(Op::Unary(u)) if crate::cost::unary_ns(*u) > 0.1);
        let n = *self.body.nodes.iter().find(|&&n| {
            let w = self.when[&n];
            w.level == Level::Element
                && self.body.g.node(n).types[0].dtype == DType::F32
                && dear(n)
                && needs_again(n)
        })?;
        let t = self.when[&n].time;
        let (_, arg) = *writes.iter().find(|(m, arg)| {
            let w = self.when[m];
            let dense_rows = self.args[*arg as usize].dtype == DType::F32;
            w.level == Level::Element && w.time > t && dense_rows
        })?;
        Some((n, arg))
    }

    fn push(stage: &mut Stage, inst: Inst, dtype: DType) -> Reg {
        stage.insts.push((inst, dtype));
        stage.insts.len() as Reg - 1
    }

    /// Makes a value available in a stage.
    fn emit(
        &mut self,
        stage: &mut Stage,
        memo: &mut FxHashMap<Value, Reg>,
        v: Value,
        time: usize,
    ) -> Reg {
        if let Some(&r) = memo.get(&v) {
            return r;
        }
        let dtype = self.body.g.type_of(v).dtype;
        let inst = if !self.body.inside(v.node) {
            match self.body.g.op(v.node) {
                Some(Op::Full { value, .. }) => Inst::Const(*value),
                _ => {
                    let at = (self.operands.read)(v);
                    Inst::Load(self.arg(at, false))
                }
            }
        } else if let Some(&row) = self.row_values.get(&v.node) {
            Inst::Row(row)
        } else if let Some(&arg) = self.kept.get(&v.node).filter(|_| self.when[&v.node].time < time)
        {
            Inst::Load(arg)
        } else {
            self.compute(stage, memo, v.node, time)
        };
        let r = Self::push(stage, inst, dtype);
        memo.insert(v, r);
        r
    }

    fn compute(
        &mut self,
        stage: &mut Stage,
        memo: &mut FxHashMap<Value, Reg>,
        n: NodeId,
        time: usize,
    ) -> Inst {
        let op = self.body.g.op(n).expect("clusters hold ops").clone();
        let operands = self.body.g.operands(n);
        let r: Vec<Reg> = operands.iter().map(|&x| self.emit(stage, memo, x, time)).collect();
        match op {
            Op::Unary(u) => Inst::Unary(u, r[0]),
            Op::Binary(b) => Inst::Binary(b, r[0], r[1]),
            Op::Compare(c) => Inst::Compare(c, r[0], r[1]),
            Op::Select {} => Inst::Select(r[0], r[1], r[2]),
            Op::Cast { .. } => Inst::Cast(r[0]),
            Op::Iota { axis, .. } => Inst::Index(axis as u32),
            Op::Full { value, .. } => Inst::Const(value),
            _ => unreachable!("`{}` is not computed in loops", op.name()),
        }
    }
}
