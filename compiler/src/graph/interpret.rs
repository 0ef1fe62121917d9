//! Running a graph on the eager runtime: slow, obviously right.

use super::{Graph, Kind};
use rustc_hash::FxHashMap;
use sinter_runtime::{Array, Dim, OpError, eager};
use smallvec::SmallVec;
use thiserror::Error;

/// Why a graph cannot be interpreted.
#[derive(Debug, Clone, PartialEq, Error)]
#[non_exhaustive]
pub enum InterpretError {
    /// Too few or too many inputs.
    #[error("the graph takes {want} input(s), got {got}")]
    Inputs {
        /// How many it takes.
        want: usize,
        /// How many there were.
        got: usize,
    },
    /// An input of the wrong type, or sizes that contradict each other.
    #[error("input `{name}` is {got}, expected {want}")]
    Type {
        /// Its name.
        name: String,
        /// Its type.
        got: String,
        /// The type it should have.
        want: String,
    },
    /// A constant without elements.
    #[error("constant `{0}` has no data")]
    NoData(String),
    /// An op failed.
    #[error(transparent)]
    Op(#[from] OpError),
}

/// Finds the sizes of symbols from the extents of an input.
///
/// An extent that is a symbol alone fixes it; any other is only checked.
fn bind(dim: &Dim, n: usize, sizes: &mut [Option<usize>]) -> bool {
    for (i, s) in sizes.iter_mut().enumerate() {
        if *dim == Dim::symbol(i) && s.is_none() {
            *s = Some(n);
        }
    }
    true
}

/// Runs a graph on the eager runtime.
///
/// # Errors
/// When inputs do not fit, a constant has no data, or an op fails.
pub fn interpret(g: &Graph, inputs: &[Array]) -> Result<Vec<Array>, InterpretError> {
    if inputs.len() != g.inputs().len() {
        return Err(InterpretError::Inputs { want: g.inputs().len(), got: inputs.len() });
    }
    let mut sizes = vec![None; g.symbols.len()];
    for (n, a) in g.inputs().iter().zip(inputs) {
        for (d, &k) in g.node(*n).types[0].shape.iter().zip(a.shape()) {
            bind(d, k, &mut sizes);
        }
    }
    let sizes: Vec<usize> = sizes.into_iter().map(|s| s.unwrap_or(0)).collect();
    let mut values: FxHashMap<_, SmallVec<[Array; 1]>> = FxHashMap::default();
    for (n, a) in g.inputs().iter().zip(inputs) {
        let node = g.node(*n);
        let want = node.types[0].eval(&sizes);
        let fits =
            want.as_ref().is_some_and(|t| t.dtype == a.dtype() && t.shape.as_slice() == a.shape());
        if !fits {
            let Kind::Input { name } = &node.kind else { unreachable!("inputs are inputs") };
            return Err(InterpretError::Type {
                name: name.clone(),
                got: format!("{}{:?}", a.dtype(), a.shape()),
                want: node.types[0].text(&g.symbol_names()),
            });
        }
        values.insert(*n, smallvec::smallvec![a.clone()]);
    }
    for n in g.topological() {
        let out = match &g.node(n).kind {
            Kind::Input { .. } => continue,
            Kind::Constant(i) => {
                let c = &g.constants[*i];
                let data = c.data.clone().ok_or_else(|| InterpretError::NoData(c.name.clone()))?;
                smallvec::smallvec![data]
            }
            Kind::Op(op) => {
                let op = op.eval(&sizes).ok_or_else(|| OpError::Shape {
                    op: op.name().to_string(),
                    reason: "a symbolic extent has no size here".to_string(),
                })?;
                let operands = g.operands(n);
                let args: SmallVec<[&Array; 4]> =
                    operands.iter().map(|v| &values[&v.node][v.output as usize]).collect();
                eager::run(&op, &args)?
            }
        };
        values.insert(n, out);
    }
    Ok(g.outputs().iter().map(|v| values[&v.node][v.output as usize].clone()).collect())
}
