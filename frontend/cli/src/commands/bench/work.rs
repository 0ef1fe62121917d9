//! What a step has to do: bytes and floating-point operations.

use sinter_compiler::cost;
use sinter_compiler::graph::{Graph, Kind};
use sinter_compiler::kernel::{Arg, Inst, Kernel, Level};
use sinter_compiler::plan::Plan;
use sinter_runtime::program::{Packing, Place, Step, View};
use sinter_runtime::{Dim, Extent, Op};
use std::collections::BTreeMap;

/// The work of a step, at the least: every value it needs is read once, every
/// value it gives is written once.
#[derive(Clone, Copy, Debug, Default, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Work {
    /// Bytes read and written.
    pub bytes: f64,
    /// Floating-point operations; a function counts one.
    pub flops: f64,
}

/// The work of a whole graph without open sizes, at the least: its inputs and constants
/// are read once, of tables the rows that are looked up; its outputs are written once;
/// products are counted, functions are not.
pub fn graph(g: &Graph) -> Work {
    let mut w = Work::default();
    let bytes =
        |ty: &sinter_runtime::op::TensorType<Dim>| cost::elements(ty, &[]) * ty.dtype.size() as f64;
    for id in g.topological() {
        let node = g.node(id);
        match &node.kind {
            Kind::Input { .. } => w.bytes += node.types.iter().map(bytes).sum::<f64>(),
            Kind::Constant(_) => {
                let looked_up = |u: &_| matches!(g.op(*u), Some(Op::IndexSelect { .. }));
                let (tables, others): (Vec<_>, Vec<_>) =
                    g.users(id).into_iter().partition(looked_up);
                w.bytes += match others.is_empty() {
                    true => tables.iter().map(|&u| bytes(&g.node(u).types[0])).sum::<f64>(),
                    false => bytes(&node.types[0]),
                };
            }
            Kind::Op(op) => {
                let operands = g.operands(id);
                let types: Vec<_> = operands.iter().map(|&v| g.type_of(v)).collect();
                w.flops += cost::flops(op, &types, &node.types[0], &[]);
            }
        }
    }
    w.bytes += g.outputs().iter().map(|&v| bytes(g.type_of(v))).sum::<f64>();
    w
}

/// Elements of memory that a walk over axes touches: axes that do not move touch
/// the same ones again.
fn touched<'a>(axes: impl Iterator<Item = (&'a Dim, &'a Dim)>, sizes: &[usize]) -> f64 {
    axes.filter(|(_, stride)| !stride.is(0)).map(|(n, _)| size(n, sizes)).product()
}

fn size(d: &Dim, sizes: &[usize]) -> f64 {
    d.eval(sizes).map_or(0.0, |n| n as f64)
}

/// The name of a step for people.
pub fn name(step: &Step) -> &str {
    match step {
        Step::Generated { name } => name,
        Step::Contract { op, .. } | Step::Sequence { op, .. } | Step::Library { op, .. } => {
            op.name()
        }
    }
}

/// The work of each step of a plan for these sizes of its symbols.
pub fn steps(plan: &Plan, sizes: &[usize]) -> Vec<Work> {
    let kernels: BTreeMap<usize, &Kernel> =
        plan.generated.iter().map(|g| (g.step, &g.kernel)).collect();
    let step = |(i, s): (usize, &Step)| {
        let mut w = step_work(plan, s, sizes);
        if let Some(k) = kernels.get(&i) {
            // A hook finds the contraction's result in the cache.
            let own = match s {
                Step::Contract { result, .. } => Some(result.buffer),
                _ => None,
            };
            let outside = |a: &&Arg| Some(a.buffer) != own;
            let axes = |a: &Arg| touched(k.extents.iter().zip(&a.strides), sizes);
            let bytes = |a: &Arg| axes(a) * a.dtype.size() as f64;
            w.bytes += k.args.iter().filter(outside).map(bytes).sum::<f64>();
            w.flops += kernel_flops(k, sizes);
        }
        w
    };
    plan.program.steps.iter().enumerate().map(step).collect()
}

fn step_work(plan: &Plan, step: &Step, sizes: &[usize]) -> Work {
    let view = |v: &View| {
        let dtype = plan.program.buffers[v.buffer as usize].dtype;
        touched(v.shape.iter().zip(&v.strides), sizes) * dtype.size() as f64
    };
    match step {
        Step::Generated { .. } => Work::default(),
        Step::Sequence { operands, results, .. } => {
            let elements = |v: &View| v.shape.iter().map(|d| size(d, sizes)).product::<f64>();
            let units = operands[1].shape.last().map_or(1.0, |d| size(d, sizes));
            Work {
                bytes: operands.iter().chain(results).map(view).sum(),
                flops: 2.0 * elements(&operands[0]) * units,
            }
        }
        // Of a table, rows are read that become rows of the result.
        Step::Library { op: Op::IndexSelect { .. }, operands, results } => {
            let rows: f64 = results.iter().map(view).sum();
            Work { bytes: 2.0 * rows + operands[1..].iter().map(view).sum::<f64>(), flops: 0.0 }
        }
        Step::Library { operands, results, .. } => {
            Work { bytes: operands.iter().chain(results).map(view).sum(), flops: 0.0 }
        }
        Step::Contract { op, operands: [x, w], packing, bias, result, .. } => {
            let weight = match packing {
                Packing::None => view(w),
                // Packed, it has another size than it looks.
                _ => {
                    let b = &plan.program.buffers[w.buffer as usize];
                    debug_assert!(matches!(b.place, Place::Constant(_)));
                    size(&b.len, sizes) * b.dtype.size() as f64
                }
            };
            let terms: f64 = match op {
                Op::Conv { .. } => w.shape[1..].iter().map(|d| size(d, sizes)).product(),
                _ => x.shape.last().map_or(1.0, |d| size(d, sizes)),
            };
            let elements: f64 = result.shape.iter().map(|d| size(d, sizes)).product();
            Work {
                bytes: view(x) + weight + bias.as_ref().map_or(0.0, view) + view(result),
                flops: 2.0 * elements * terms,
            }
        }
    }
}

fn kernel_flops(k: &Kernel, sizes: &[usize]) -> f64 {
    let rows: f64 = k.extents[..k.parallel].iter().map(|d| size(d, sizes)).product();
    let elements: f64 = k.extents.iter().map(|d| size(d, sizes)).product();
    k.stages
        .iter()
        .map(|s| {
            let computes = |i: &&(Inst, sinter_runtime::DType)| {
                matches!(
                    i.0,
                    Inst::Unary(..) | Inst::Binary(..) | Inst::Compare(..) | Inst::Select(..)
                ) && i.1.is_float()
            };
            let each = s.insts.iter().filter(computes).count() + s.reductions.len();
            each as f64 * if s.level == Level::Element { elements } else { rows }
        })
        .sum()
}
