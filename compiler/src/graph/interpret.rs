//! Running a graph on the eager runtime: slow, obviously right.

use super::{Graph, Kind, NodeId};
use rustc_hash::FxHashMap;
use sinter_runtime::program::{RunError, bind_sizes};
use sinter_runtime::{Array, Op, OpError, eager};
use smallvec::SmallVec;
use thiserror::Error;

/// Why a graph cannot be interpreted.
#[derive(Debug, Clone, PartialEq, Error)]
#[non_exhaustive]
pub enum InterpretError {
    /// The inputs do not fit.
    #[error(transparent)]
    Inputs(#[from] RunError),
    /// A constant without elements.
    #[error("constant `{0}` has no data")]
    NoData(String),
    /// An op failed.
    #[error(transparent)]
    Op(#[from] OpError),
}

/// Runs a graph on the eager runtime.
///
/// # Errors
/// When inputs do not fit, a constant has no data, or an op fails.
pub fn interpret(g: &Graph, inputs: &[Array]) -> Result<Vec<Array>, InterpretError> {
    interpret_with(g, inputs, &mut |_, op, args| eager::run(op, args))
}

/// What runs an op of a graph.
pub(crate) type RunOp<'a> =
    dyn FnMut(NodeId, &Op, &[&Array]) -> Result<SmallVec<[Array; 1]>, OpError> + 'a;

/// [`interpret`] with `run` in the place of the eager runtime.
///
/// # Errors
/// As [`interpret`]; whatever `run` gives.
pub(crate) fn interpret_with(
    g: &Graph,
    inputs: &[Array],
    run: &mut RunOp,
) -> Result<Vec<Array>, InterpretError> {
    let given: Vec<_> = inputs.iter().map(|a| (a.dtype(), a.shape())).collect();
    let sizes = bind_sizes(&g.input_ports(), &g.symbols, &given)?;
    let mut values: FxHashMap<_, SmallVec<[Array; 1]>> = FxHashMap::default();
    for (n, a) in g.inputs().iter().zip(inputs) {
        values.insert(*n, smallvec::smallvec![a.clone()]);
    }
    for n in g.topological() {
        let out = match &g.node(n).kind {
            Kind::Input { .. } => continue,
            Kind::Constant(i) => {
                let c = &g.constants[*i];
                let data = c.data.as_ref().ok_or_else(|| InterpretError::NoData(c.name.clone()))?;
                smallvec::smallvec![data.array()?]
            }
            Kind::Op(op) => {
                let op = op.eval(&sizes).ok_or_else(|| OpError::Shape {
                    op: op.name().to_string(),
                    reason: "a symbolic extent has no size here".to_string(),
                })?;
                let operands = g.operands(n);
                let args: SmallVec<[&Array; 4]> =
                    operands.iter().map(|v| &values[&v.node][v.output as usize]).collect();
                run(n, &op, &args)?
            }
        };
        values.insert(n, out);
    }
    Ok(g.outputs().iter().map(|v| values[&v.node][v.output as usize].clone()).collect())
}
