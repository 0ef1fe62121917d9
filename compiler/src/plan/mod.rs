//! From a graph to a program: what is fused, what runs in which order, where
//! everything lies.

mod channels;
mod choices;
mod fuse;
mod join;
mod layout;
mod legalize;
mod loops;
mod lower;
mod pack;
mod prepare;
mod recompute;
mod tiles;

pub use choices::{Choice, Choices};
pub use fuse::Decision;
pub(crate) use fuse::{Cluster, Sort};

use crate::graph::text::number;
use crate::graph::{Data, Graph, Value, VerifyError, verify};
use crate::kernel::Kernel;
use crate::pipeline::{Options, Precision};
use crate::quantize::{CalibrationError, Quantized, quantize};
use channels::Layouts;
use lower::{Lowering, Stored};
use pack::Exactness;
use recompute::Again;
use sinter_kernels::mem::Block;
use sinter_runtime::program::{Place, Program, Step, View};
use sinter_runtime::{Array, DType, OpError, eager};
use std::sync::Arc;
use thiserror::Error;

/// A generated kernel and the step it belongs to.
#[derive(Clone, Debug)]
pub struct Generated {
    /// Number of the step.
    pub step: usize,
    /// The kernel.
    pub kernel: Kernel,
}

/// A program without its code.
#[derive(Clone, Debug)]
pub struct Plan {
    /// What the runtime executes.
    pub program: Program,
    /// Kernels to generate.
    pub generated: Vec<Generated>,
    /// The constants' bytes.
    pub constants: Block,
    /// What was fused and what was not.
    pub decisions: Vec<Decision>,
    /// The graph the plan was made from, after rewriting and expansion.
    pub graph: Graph,
    /// What is computed with integers.
    pub(crate) quantized: Option<Arc<Quantized>>,
}

/// Why no plan could be made.
#[derive(Debug, Clone, PartialEq, Error)]
#[non_exhaustive]
pub enum PlanError {
    /// A constant without elements.
    #[error("constant `{0}` has no data")]
    NoData(String),
    /// Computing with constants failed.
    #[error("folding constants: {0}")]
    Fold(#[from] OpError),
    /// An op that compiled programs do not hold.
    #[error("`{op}` cannot be part of a compiled program: {reason}")]
    EagerOnly {
        /// The op.
        op: String,
        /// Why.
        reason: &'static str,
    },
    /// Integers were asked for, and it could not be said what they stand for.
    #[error(transparent)]
    Calibration(#[from] CalibrationError),
    /// A pass broke an invariant: a mistake in the compiler.
    #[error("after {pass}: {source}")]
    Invalid {
        /// The pass.
        pass: &'static str,
        /// The invariant.
        source: VerifyError,
    },
    /// A mistake in the compiler.
    #[error("internal error: {0}")]
    Internal(String),
}

fn check(g: &Graph, pass: &'static str) -> Result<(), PlanError> {
    verify(g).map_err(|source| PlanError::Invalid { pass, source })
}

/// Plans a graph. Without fusion, each op of the user is a kernel of its own.
///
/// # Errors
/// When a constant is missing or cannot be computed.
pub fn plan(graph: &Graph, options: &Options) -> Result<Plan, PlanError> {
    let rules = Choices::default();
    lower(prepare(legal(graph)?, options, &rules)?, options, &rules)
}

/// The graph in types that there are kernels for.
pub(crate) fn legal(graph: &Graph) -> Result<Graph, PlanError> {
    let mut g = graph.clone();
    prepare::number_groups(&mut g);
    legalize::legalize(&mut g)?;
    check(&g, "legalizing types")?;
    Ok(g)
}

/// The graph of ops that become kernels.
pub(crate) fn prepare(
    mut g: Graph,
    options: &Options,
    choices: &Choices,
) -> Result<Graph, PlanError> {
    prepare::expand(&mut g, choices)?;
    check(&g, "expanding composites")?;
    if options.fusion {
        join::join_products(&mut g)?;
        check(&g, "joining products")?;
    }
    prepare::fold_constants(&mut g)?;
    check(&g, "folding constants")?;
    for n in g.topological() {
        if let Some((op, reason)) = g.op(n).and_then(|op| Some((op, op.eager_only()?))) {
            return Err(PlanError::EagerOnly { op: op.name().to_string(), reason });
        }
    }
    Ok(g)
}

fn exactness(options: &Options) -> Exactness {
    Exactness { precision: options.precision, matrix_unit: options.matrix_unit }
}

/// How images lie. Unfused, every op stands for itself; convolutions of integers read
/// planes.
fn layouts(g: &Graph, options: &Options) -> Layouts {
    match options.fusion && options.precision != Precision::Int8 {
        true => channels::choose(g, exactness(options)),
        false => Layouts::default(),
    }
}

/// Which ops of a prepared graph share a kernel, and whether one reads or writes images
/// with channels last.
pub(crate) fn clusters(g: &Graph, options: &Options, choices: &Choices) -> Vec<(Cluster, bool)> {
    let layouts = layouts(g, options);
    let fusion = fuse::fuse(g, &layouts, options.fusion, choices, &Again::nothing(g));
    let last = |c: &Cluster| {
        let mut values = c.nodes.iter().flat_map(|&n| {
            let result = Value { node: n, output: 0 };
            g.operands(n).into_iter().chain([result])
        });
        values.any(|v| layouts.is_last(v))
    };
    fusion
        .clusters
        .into_iter()
        .map(|c| {
            let last = last(&c);
            (c, last)
        })
        .collect()
}

/// The plan of a prepared graph.
pub(crate) fn lower(mut g: Graph, options: &Options, choices: &Choices) -> Result<Plan, PlanError> {
    let trains = g.updated().next().is_some();
    let again = if options.fusion && options.recompute && trains {
        let again = recompute::recompute(&mut g)?;
        check(&g, "choosing what is computed again")?;
        again
    } else {
        Again::nothing(&g)
    };
    let quantized = match options.precision {
        // Tuning plans parts of the graph, which have other inputs.
        Precision::Int8 if options.tuning.is_some() => return Err(CalibrationError::Tuning.into()),
        Precision::Int8 => Some(quantize(&g, options.calibration.as_deref())?),
        _ => None,
    };
    let layouts = layouts(&g, options);
    let fusion = fuse::fuse(&g, &layouts, options.fusion, choices, &again);
    let exactness = exactness(options);
    let in_place = &fusion.in_place;
    let mut l = Lowering::new(&g, &layouts, in_place, exactness, quantized.as_ref(), choices);
    for c in &fusion.clusters {
        l.cluster(c)?;
    }
    l.outputs()?;
    let Lowering { mut buffers, steps, generated, stored, step_of, notes, .. } = l;
    let constants = place_constants(&mut buffers, &stored)?;
    let mut program = Program {
        name: g.name.clone(),
        symbols: g.symbols.clone(),
        inputs: g.input_ports(),
        outputs: g.output_ports(),
        buffers,
        steps,
        written: g.updated().map(|i| i as u32).collect(),
    };
    lifetimes(&mut program, &generated);
    let mut decisions: Vec<Decision> = Vec::new();
    let numbers = number(&g);
    for n in g.topological() {
        if let (Some(reason), Some(&step)) = (fusion.reasons.get(&n), step_of.get(&n)) {
            let op = g.op(n).map_or("", |o| o.name());
            let origin = g.node(n).origin.to_string();
            let op = if origin.is_empty() { op.to_string() } else { format!("{op} ({origin})") };
            let mut reason = match again.late.contains(&n) {
                true => format!("computed again for the backward pass; {reason}"),
                false => reason.clone(),
            };
            let layout = layouts.reason(n);
            for note in notes.get(&n).map(|n| n.to_string()).into_iter().chain(layout) {
                reason += &format!("; {note}");
            }
            if let Some(why) = quantized.as_ref().and_then(|q| q.reasons.get(&n)) {
                reason += &format!("; {why}");
            }
            decisions.push(Decision { node: numbers[&n], op, step, reason });
        }
    }
    let quantized = quantized.map(Arc::new);
    Ok(Plan { program, generated, constants, decisions, graph: g, quantized })
}

/// Alignment of each constant, in bytes.
const CONSTANT_ALIGN: usize = 64;

/// Lays the constants out one behind the other.
fn place_constants(
    buffers: &mut [sinter_runtime::program::Buffer],
    stored: &[(u32, Stored)],
) -> Result<Block, PlanError> {
    let bytes = |data: &Data| {
        let ty = data.ty();
        ty.shape.iter().product::<usize>() * ty.dtype.size()
    };
    let mut at = 0usize;
    let mut offsets = Vec::new();
    for (buffer, s) in stored {
        at = at.next_multiple_of(CONSTANT_ALIGN);
        offsets.push(at);
        buffers[*buffer as usize].place = Place::Constant(at as u64);
        at += match s {
            Stored::Array(a) => bytes(a),
            Stored::Packed(p) => p.len() * DType::F32.size(),
            Stored::Ready(p) => p.len() * DType::F32.size(),
        };
    }
    let size = DType::F32.size();
    let mut block = Block::try_new(at.next_multiple_of(size).max(size))
        .map_err(|source| OpError::Memory { op: "constants".to_string(), source })?;
    let floats: &mut [f32] = block.as_mut_slice().expect("nobody else has the block");
    let mut end = 0;
    for ((_, s), offset) in stored.iter().zip(&offsets) {
        // The same bytes every time, in between, too.
        let start = offset / size;
        floats[end..start].fill(0.0);
        end = start
            + match s {
                Stored::Packed(p) => {
                    p.write(&mut floats[start..][..p.len()])?;
                    p.len()
                }
                Stored::Ready(p) => {
                    floats[start..][..p.len()].copy_from_slice(p);
                    p.len()
                }
                // Copied below; the last elements may share their place with a gap.
                Stored::Array(a) => {
                    let len = bytes(a).div_ceil(size);
                    floats[start..][len.saturating_sub(1)..len].fill(0.0);
                    len
                }
            };
    }
    floats[end..].fill(0.0);
    for ((_, s), offset) in stored.iter().zip(offsets) {
        if let Stored::Array(a) = s {
            let a = a.array()?;
            let to = Array::from_block(block.clone(), offset, a.shape(), a.dtype())?;
            eager::copy_into(&a, &to);
        }
    }
    Ok(block)
}

/// The steps between which each temporary is alive, from who touches it.
fn lifetimes(p: &mut Program, generated: &[Generated]) {
    let mut spans: Vec<Option<(u32, u32)>> = vec![None; p.buffers.len()];
    let mut touch = |buffer: u32, step: usize| {
        let s = step as u32;
        let span = spans[buffer as usize].get_or_insert((s, s));
        *span = (span.0.min(s), span.1.max(s));
    };
    for (i, step) in p.steps.iter().enumerate() {
        let views: Vec<&View> = match step {
            Step::Generated { .. } => vec![],
            Step::Contract { operands, bias, result, .. } => {
                operands.iter().chain(bias).chain([result]).collect()
            }
            Step::Library { operands, results, .. } | Step::Sequence { operands, results, .. } => {
                operands.iter().chain(results).collect()
            }
        };
        for v in views {
            touch(v.buffer, i);
        }
    }
    for k in generated {
        for a in &k.kernel.args {
            touch(a.buffer, k.step);
        }
    }
    for (b, span) in p.buffers.iter_mut().zip(spans) {
        if let Place::Temp { first, last } = &mut b.place {
            (*first, *last) = span.unwrap_or((0, 0));
        }
    }
}
