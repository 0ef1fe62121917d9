//! From clusters to a program: buffers, steps, kernels, constants.

mod operands;

use super::channels::{self, Layouts};
use super::fuse::{Cluster, Sort};
use super::layout::{Located, dense};
use super::loops::{self, Body, Operands};
use super::pack::{Exactness, How, Packed};
use super::tiles::{as_tile, viewed};
use super::{Choices, Generated, PlanError};
use crate::graph::{Data, Graph, Kind, NodeId, Value};
use crate::kernel::Kernel;
use crate::quantize::{Quantized, params};
use rustc_hash::{FxHashMap, FxHashSet};
use sinter_kernels::conv::{CHANNELS_LAST, ConvKernel, ConvParams};
use sinter_runtime::op::{Act, BinaryOp};
use sinter_runtime::program::{Buffer, Packing, Place, Step, View};
use sinter_runtime::{Array, DType, Dim, Extent, Op, Scalar, eager};
use std::sync::Arc;

/// A constant as it will lie in the program's constants.
#[derive(Clone, Debug)]
pub(super) enum Stored {
    /// An array, densely.
    Array(Data),
    /// A weight as a kernel packs it.
    Packed(Packed),
    /// One that is packed.
    Ready(Arc<[f32]>),
}

pub(super) struct Lowering<'a> {
    g: &'a Graph,
    layouts: &'a Layouts,
    choices: &'a Choices,
    exactness: Exactness,
    /// What is computed with integers.
    quantized: Option<&'a Quantized>,
    /// What is to be said of ops besides the reason for their step.
    pub(super) notes: FxHashMap<NodeId, &'static str>,
    located: FxHashMap<Value, Located>,
    pub(super) buffers: Vec<Buffer>,
    pub(super) steps: Vec<Step>,
    pub(super) generated: Vec<Generated>,
    /// Constants by the buffer they fill.
    pub(super) stored: Vec<(u32, Stored)>,
    /// Buffers of packed weights.
    packed: FxHashMap<(Value, How), u32>,
    /// Copies of values whose axes lie in another order, by the buffers of the values.
    copies: FxHashMap<u32, Vec<(Located, Located)>>,
    /// Where a value is computed straight into: an output, or an input it updates.
    targets: FxHashMap<Value, Place>,
    /// Number of the step each op became part of.
    pub(super) step_of: FxHashMap<NodeId, usize>,
}

impl<'a> Lowering<'a> {
    /// `in_place` are the outputs that may be written into the inputs they update.
    pub(super) fn new(
        g: &'a Graph,
        layouts: &'a Layouts,
        in_place: &FxHashSet<usize>,
        exactness: Exactness,
        quantized: Option<&'a Quantized>,
        choices: &'a Choices,
    ) -> Lowering<'a> {
        let mut l = Lowering {
            g,
            layouts,
            exactness,
            quantized,
            choices,
            notes: FxHashMap::default(),
            located: FxHashMap::default(),
            buffers: vec![],
            steps: vec![],
            generated: vec![],
            stored: vec![],
            packed: FxHashMap::default(),
            copies: FxHashMap::default(),
            targets: FxHashMap::default(),
            step_of: FxHashMap::default(),
        };
        for (i, &n) in g.inputs().iter().enumerate() {
            let at = l.buffer(Value { node: n, output: 0 }, Place::Input(i as u32));
            l.located.insert(Value { node: n, output: 0 }, at);
        }
        for (i, place) in destinations(g) {
            let v = g.outputs()[i];
            let computed = matches!(g.op(v.node), Some(op) if !op.is_view());
            if computed && (matches!(place, Place::Output(_)) || in_place.contains(&i)) {
                l.targets.entry(v).or_insert(place);
            }
        }
        l
    }

    fn buffer(&mut self, v: Value, place: Place) -> Located {
        let ty = self.g.type_of(v);
        self.buffer_of(ty.dtype, &ty.shape, place)
    }

    fn buffer_of(&mut self, dtype: DType, shape: &[Dim], place: Place) -> Located {
        let len = shape.iter().fold(Dim::of(1), |n, d| n.times(d));
        self.buffers.push(Buffer { dtype, len, place });
        Located::new(self.buffers.len() as u32 - 1, dtype, shape)
    }

    /// Memory for a computed value: an output's, or a temporary.
    fn result(&mut self, v: Value) -> Located {
        let place = match self.targets.get(&v) {
            // The input's own buffer.
            Some(Place::Input(i)) => {
                let input = Value { node: self.g.inputs()[*i as usize], output: 0 };
                let at = self.located[&input].clone();
                self.located.insert(v, at.clone());
                return at;
            }
            Some(&place) => place,
            None => Place::Temp { first: self.steps.len() as u32, last: self.steps.len() as u32 },
        };
        let mut at = self.buffer(v, place);
        if self.layouts.is_last(v) {
            at = at.lying(&CHANNELS_LAST);
        }
        self.located.insert(v, at.clone());
        at
    }

    fn push(&mut self, step: Step) -> usize {
        self.steps.push(step);
        self.steps.len() - 1
    }

    /// Where a value lies now; views are resolved, constants placed.
    fn locate(&mut self, v: Value) -> Result<Located, PlanError> {
        if let Some(at) = self.located.get(&v) {
            return Ok(at.clone());
        }
        let at = match &self.g.node(v.node).kind {
            Kind::Constant(i) => {
                let c = &self.g.constants[*i];
                let data = c.data.clone().ok_or_else(|| PlanError::NoData(c.name.clone()))?;
                self.store(Stored::Array(data))
            }
            Kind::Op(op) if op.is_view() => {
                let op = op.clone();
                let x = self.locate(self.g.operands(v.node)[0])?;
                let shape = self.g.type_of(v).shape.to_vec();
                match viewed(&op, &x, &shape) {
                    Some(at) => at,
                    None => {
                        let out = self.result(v);
                        self.library(op, &[x], std::slice::from_ref(&out));
                        out
                    }
                }
            }
            // One element in memory, however large the array.
            Kind::Op(Op::Full { value, dtype, shape }) => {
                let shape = shape.clone();
                let one = Array::scalar(*value, *dtype)?;
                self.store(Stored::Array(one.into())).broadcast(&shape)
            }
            _ => return Err(PlanError::Internal(format!("value {v:?} was not computed"))),
        };
        self.located.insert(v, at.clone());
        Ok(at)
    }

    fn store(&mut self, s: Stored) -> Located {
        let (dtype, shape) = match &s {
            Stored::Array(a) => {
                let ty = a.ty();
                (ty.dtype, ty.shape.iter().map(|&d| Dim::of(d)).collect())
            }
            Stored::Packed(p) => (DType::F32, vec![Dim::of(p.len())]),
            Stored::Ready(p) => (DType::F32, vec![Dim::of(p.len())]),
        };
        // The offset is settled when all constants are known.
        let at = self.buffer_of(dtype, &shape as &Vec<Dim>, Place::Constant(0));
        self.stored.push((at.buffer, s));
        at
    }

    fn library(&mut self, op: Op<Dim>, operands: &[Located], results: &[Located]) -> usize {
        self.push(Step::Library {
            op,
            operands: operands.iter().map(Located::view).collect(),
            results: results.iter().map(Located::view).collect(),
        })
    }

    /// Values of a cluster that something outside reads, in order.
    fn escaping(&self, nodes: &[NodeId]) -> Vec<NodeId> {
        let inside = |n: &NodeId| nodes.contains(n);
        nodes
            .iter()
            .copied()
            .filter(|&n| {
                self.g.is_output(Value { node: n, output: 0 })
                    || self.g.users(n).iter().any(|u| !inside(u))
            })
            .collect()
    }

    pub(super) fn cluster(&mut self, c: &Cluster) -> Result<(), PlanError> {
        match &c.sort {
            Sort::Library => {
                for &n in &c.nodes {
                    self.eager(n)?;
                }
            }
            Sort::Loops { shape, axes } => self.loops(&c.nodes, shape, axes)?,
            Sort::Contract { anchor } => self.contract(*anchor, &c.nodes)?,
        }
        for &n in &c.nodes {
            self.step_of.insert(n, self.steps.len().saturating_sub(1));
        }
        Ok(())
    }

    fn eager(&mut self, n: NodeId) -> Result<(), PlanError> {
        let op = self.g.op(n).expect("clusters hold ops").clone();
        if let Op::Recurrent { kind, .. } = op
            && let Some(w) = self.constant(self.g.operands(n)[1])
            && w.ty().dtype == DType::F32
            && !self.updates(n)
        {
            let rows = self.g.type_of(self.g.operands(n)[0]).shape[1].known();
            let (how, why) = self.exactness.recurrent(eager::cell(kind), rows);
            self.note(n, why);
            return self.sequence(n, op, eager::dense(&w.array()?)?.into(), how);
        }
        let operands =
            self.g.operands(n).iter().map(|v| self.locate(*v)).collect::<Result<Vec<_>, _>>()?;
        let mut results: Vec<Located> = (0..self.g.node(n).types.len())
            .map(|k| self.result(Value { node: n, output: k as u8 }))
            .collect();
        if matches!(op, Op::Attention { .. } | Op::AttentionGrad { .. }) {
            // Heads that were split off features are joined again without a copy.
            for (k, r) in results.iter_mut().enumerate() {
                let v = Value { node: n, output: k as u8 };
                if !self.g.is_output(v) {
                    *r = r.clone().lying(&operands[k].order(&self.g.hints()));
                    self.located.insert(v, r.clone());
                }
            }
        }
        let types: Vec<DType> = operands.iter().map(|o| o.dtype).collect();
        if !eager::is_library(&op, &types, results[0].dtype) {
            return Err(PlanError::Internal(format!("`{op}` has no form as code or kernel")));
        }
        self.library(op, &operands, &results);
        Ok(())
    }

    /// Has something said of an op.
    fn note(&mut self, n: NodeId, what: &'static str) {
        if !what.is_empty() {
            self.notes.insert(n, what);
        }
    }

    /// Whether a result takes the place of an input, which may be an operand.
    fn updates(&self, n: NodeId) -> bool {
        let value = |k: usize| Value { node: n, output: k as u8 };
        (0..self.g.node(n).types.len())
            .any(|k| matches!(self.targets.get(&value(k)), Some(Place::Input(_))))
    }

    /// A recurrent sequence whose weight is known.
    fn sequence(
        &mut self,
        n: NodeId,
        op: Op<Dim>,
        weight: Data,
        how: How,
    ) -> Result<(), PlanError> {
        let weight = self.packed(self.g.operands(n)[1], weight, how);
        let mut operands = vec![];
        for (i, v) in self.g.operands(n).into_iter().enumerate() {
            operands.push(if i == 1 { weight.clone() } else { self.locate(v)?.view() });
        }
        let results = (0..self.g.node(n).types.len())
            .map(|k| self.result(Value { node: n, output: k as u8 }).view())
            .collect();
        self.push(Step::Sequence { op, packing: how.packing(), operands, results });
        Ok(())
    }

    fn loops(&mut self, nodes: &[NodeId], shape: &[Dim], axes: &[usize]) -> Result<(), PlanError> {
        // Operands first: locating one may take a step of its own.
        self.locate_operands(nodes, None)?;
        let escaping = self.escaping(nodes);
        let last = |&n: &NodeId| self.layouts.is_last(Value { node: n, output: 0 });
        let counts = nodes.iter().any(|&n| matches!(self.g.op(n), Some(Op::Iota { .. })));
        // Loops go through memory in the order in which results lie.
        let turned = axes.is_empty() && !counts && escaping.iter().all(last);
        let walked = |at: Located| {
            let at = at.broadcast(shape);
            if turned { at.permute(&CHANNELS_LAST) } else { at }
        };
        let write: Vec<(NodeId, Located)> = escaping
            .into_iter()
            .map(|n| (n, walked(self.result(Value { node: n, output: 0 }))))
            .collect();
        let across = match axes.is_empty() {
            true => self.turned(nodes, turned),
            false => FxHashMap::default(),
        };
        let name = self.name(nodes);
        let located = &self.located;
        let extents = walked(Located::new(0, DType::F32, shape)).shape;
        let body = Body { g: self.g, nodes, shape: &extents, axes };
        let mut read = |v: Value| walked(across.get(&v).unwrap_or(&located[&v]).clone());
        let mut kernel = loops::build(&body, Operands { read: &mut read, write }, name.clone());
        self.settle(&mut kernel, nodes);
        let step = self.push(Step::Generated { name });
        self.generated.push(Generated { step, kernel });
        Ok(())
    }

    /// How a kernel's code goes about it, where that was chosen.
    fn settle(&self, kernel: &mut Kernel, nodes: &[NodeId]) {
        let manner = &mut kernel.manner;
        manner.at_once = self.choices.first(nodes, |c| c.at_once).unwrap_or(manner.at_once);
        manner.stream = self.choices.first(nodes, |c| c.stream).unwrap_or(manner.stream);
    }

    /// Operands from outside; `anchor`'s own result does not exist yet.
    fn locate_operands(
        &mut self,
        nodes: &[NodeId],
        anchor: Option<NodeId>,
    ) -> Result<(), PlanError> {
        for &n in nodes {
            for v in self.g.operands(n) {
                let immediate = matches!(self.g.op(v.node), Some(Op::Full { .. }));
                if !nodes.contains(&v.node) && Some(v.node) != anchor && !immediate {
                    self.locate(v)?;
                }
            }
        }
        Ok(())
    }

    /// `add_mul_relu`: the ops of a kernel, at most a few of them.
    fn name(&self, nodes: &[NodeId]) -> String {
        let names: Vec<&str> = nodes
            .iter()
            .map(|&n| match self.g.op(n) {
                Some(Op::Reduce { kind, .. }) => kind.name(),
                Some(op) => op.name(),
                None => "",
            })
            .collect();
        let shown = if names.len() > 6 {
            format!("{}_and_{}_more", names[..5].join("_"), names.len() - 5)
        } else {
            names.join("_")
        };
        format!("k{}_{shown}", self.steps.len())
    }

    fn contract(&mut self, anchor: NodeId, nodes: &[NodeId]) -> Result<(), PlanError> {
        let op = self.g.op(anchor).expect("clusters hold ops").clone();
        let operands = self.g.operands(anchor);
        let mut epilogue: Vec<NodeId> = nodes.iter().copied().filter(|&n| n != anchor).collect();
        self.locate_operands(&epilogue, Some(anchor))?;
        let x = self.locate(operands[0])?;
        let bias = match operands.get(2) {
            Some(&b) => {
                let b = self.locate(b)?;
                Some(self.densely(b))
            }
            None => None,
        };
        let act = match &op {
            Op::MatMul { act } | Op::Conv { act, .. } => *act,
            _ => Act::None,
        };
        let (sides, packing) = match &op {
            Op::Conv { .. } => self.conv_operands(anchor, x, operands[1])?,
            _ => match self.matmul_operands(anchor, x, operands[1])? {
                Some(s) => s,
                // Batches that no single stride describes: the eager kernel knows how.
                None => {
                    self.eager(anchor)?;
                    return self.loose_epilogue(anchor, &epilogue);
                }
            },
        };
        // The result: unfinished tiles live in the memory of the last value, unless that
        // holds something else until they are finished.
        let tail = Value { node: *nodes.last().unwrap_or(&anchor), output: 0 };
        let escaping = self.escaping(nodes);
        let taken = matches!(self.targets.get(&tail), Some(Place::Input(_)));
        let home = match escaping.contains(&tail.node) && !taken {
            true => tail,
            false => Value { node: anchor, output: 0 },
        };
        let out = self.result(home);
        let tile = as_tile(self.g, self.layouts, anchor, &out)
            .ok_or_else(|| PlanError::Internal("a dense result is not a tile".into()))?;
        // What kernels do in registers takes no generated code.
        let most = epilogue.first().and_then(|&n| ceiling(self.g, n, anchor));
        let bounded = most.map(|_| epilogue.remove(0));
        let hook = !epilogue.is_empty();
        // Products are [batch, row, column]; images keep their four dimensions.
        let result = match op {
            Op::Conv { .. } => out.view(),
            _ => tile.view(),
        };
        let across = match op {
            Op::Conv { .. } => {
                self.turned(&epilogue, self.layouts.is_last(Value { node: anchor, output: 0 }))
            }
            _ => FxHashMap::default(),
        };
        let name = self.name(&epilogue);
        let step = self.push(Step::Contract {
            op: bare(&op),
            operands: sides,
            packing,
            bias: bias.map(|b| b.view()),
            act,
            most,
            hook,
            cut: self.choices.of(anchor).and_then(|c| c.cut),
            result,
        });
        if hook {
            for n in bounded.into_iter().chain([anchor]) {
                self.located.insert(Value { node: n, output: 0 }, out.clone());
            }
            let write: Vec<(NodeId, Located)> = escaping
                .iter()
                .filter(|&&n| n != anchor)
                .map(|&n| {
                    let v = Value { node: n, output: 0 };
                    let at = match self.located.get(&v) {
                        Some(at) => at.clone(),
                        None => self.result(v),
                    };
                    let tile = as_tile(self.g, self.layouts, anchor, &at);
                    (n, tile.expect("dense results are tiles"))
                })
                .collect();
            let (g, layouts, located) = (self.g, self.layouts, &self.located);
            let mut read = |v: Value| {
                let tile = as_tile(g, layouts, anchor, across.get(&v).unwrap_or(&located[&v]));
                tile.expect("checked when the epilogue was chosen")
            };
            let body = Body { g, nodes: &epilogue, shape: &tile.shape, axes: &[] };
            let mut kernel = loops::build_tile(&body, Operands { read: &mut read, write }, name);
            kernel.hook = true;
            self.settle(&mut kernel, &epilogue);
            self.generated.push(Generated { step, kernel });
        }
        Ok(())
    }

    /// The epilogue of a contraction that had to go to the eager kernel, as loops.
    fn loose_epilogue(&mut self, anchor: NodeId, epilogue: &[NodeId]) -> Result<(), PlanError> {
        if epilogue.is_empty() {
            return Ok(());
        }
        let shape = self.g.node(anchor).types[0].shape.to_vec();
        self.loops(epilogue, &shape, &[])
    }

    /// Outputs that no kernel writes itself are copied at the end.
    pub(super) fn outputs(&mut self) -> Result<(), PlanError> {
        let mut copies: Vec<(Located, Place)> = Vec::new();
        for (i, place) in destinations(self.g) {
            let v = self.g.outputs()[i];
            if self.targets.get(&v) == Some(&place) {
                continue;
            }
            let mut at = self.locate(v)?;
            if let Place::Input(from) = self.buffers[at.buffer as usize].place {
                if place == Place::Input(from) && at.is_dense() && at.offset.is(0) {
                    continue; // the input as it was
                }
                // Another copy may write that input.
                if self.g.updated().any(|k| k == from as usize) {
                    at = self.copy(&at, Place::Temp { first: 0, last: 0 });
                }
            }
            copies.push((at, place));
        }
        for (at, place) in copies {
            self.copy(&at, place);
        }
        Ok(())
    }

    fn copy(&mut self, at: &Located, place: Place) -> Located {
        let out = self.buffer_of(at.dtype, &at.shape.clone(), place);
        let op = Op::Broadcast { shape: at.shape.iter().cloned().collect() };
        self.library(op, std::slice::from_ref(at), std::slice::from_ref(&out));
        out
    }
}

/// Where each output goes.
fn destinations(g: &Graph) -> Vec<(usize, Place)> {
    let mut given = 0;
    let place = |i: usize| match g.updates(i) {
        Some(input) => Place::Input(input as u32),
        None => {
            given += 1;
            Place::Output(given - 1)
        }
    };
    let places: Vec<Place> = (0..g.outputs().len()).map(place).collect();
    places.into_iter().enumerate().collect()
}

/// Of the smaller of a contraction's result and a number: the number.
fn ceiling(g: &Graph, n: NodeId, anchor: NodeId) -> Option<f32> {
    let Some(Op::Binary(BinaryOp::Min)) = g.op(n) else { return None };
    let operands = g.operands(n);
    let others: Vec<Value> = operands.iter().copied().filter(|v| v.node != anchor).collect();
    let [other] = others[..] else { return None };
    match g.op(other.node)? {
        Op::Full { value: Scalar::Float(v), .. } if !v.is_nan() => Some(*v as f32),
        _ => None,
    }
}

fn bare(op: &Op<Dim>) -> Op<Dim> {
    let mut op = op.clone();
    if let Op::MatMul { act } | Op::Conv { act, .. } = &mut op {
        *act = Act::None;
    }
    op
}
