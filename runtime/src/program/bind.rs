//! Checking what a caller hands to a program.

use super::{ModelError, Port};
use crate::op::TensorType;
use crate::{DType, Dim, Extent, OpError};
use thiserror::Error;

/// Why a program could not run.
#[derive(Debug, Clone, PartialEq, Error)]
#[non_exhaustive]
pub enum RunError {
    /// Too few or too many inputs or outputs.
    #[error("the program has {want} {what}, got {got}")]
    Count {
        /// `inputs` or `outputs`.
        what: &'static str,
        /// How many it has.
        want: usize,
        /// How many there were.
        got: usize,
    },
    /// An input or output of the wrong element type.
    #[error("`{name}` is {got}, expected {want}")]
    DType {
        /// Its name.
        name: String,
        /// Its type.
        got: DType,
        /// The type it should have.
        want: DType,
    },
    /// An input or output of the wrong shape.
    #[error("`{name}` has shape {got:?}, expected [{want}]{why}")]
    Shape {
        /// Its name.
        name: String,
        /// Its shape.
        got: Vec<usize>,
        /// The shape it should have.
        want: String,
        /// Which symbol stands in the way.
        why: String,
    },
    /// A size outside the range the program was compiled for.
    #[error(
        "size {size} of `{symbol}` is outside {min}..={max}, for which the program was compiled"
    )]
    Range {
        /// The symbol.
        symbol: String,
        /// Its size.
        size: usize,
        /// Smallest size allowed.
        min: usize,
        /// Largest size allowed.
        max: usize,
    },
    /// A step failed.
    #[error("step {step}: {source}")]
    Step {
        /// Number of the step.
        step: usize,
        /// Why.
        source: OpError,
    },
    /// Memory for results or temporaries ran out, or an output cannot be written.
    #[error(transparent)]
    Memory(OpError),
    /// What is written overlaps an input or something else that is written.
    #[error("`{0}` overlaps an input or output, and one of them is written")]
    Overlap(String),
    /// Inputs or outputs cannot be cut into rows.
    #[error("cannot run by rows: {0}")]
    Rows(&'static str),
    /// The plan contradicts itself for these sizes.
    #[error(transparent)]
    Plan(#[from] ModelError),
    /// A kernel panicked; the program is still usable.
    #[error("step {step}: a kernel panicked: {message}")]
    Panic {
        /// Number of the step.
        step: usize,
        /// What it said.
        message: String,
    },
}

/// Finds the size of every symbol from the inputs' shapes and checks all types.
///
/// A symbol gets its size from the first extent that is the symbol alone (or an
/// affine function of it alone); every other extent must agree.
///
/// # Errors
/// The first input that does not fit.
pub fn bind_sizes(
    inputs: &[Port],
    symbols: &[super::Symbol],
    given: &[(DType, &[usize])],
) -> Result<Vec<usize>, RunError> {
    if inputs.len() != given.len() {
        return Err(RunError::Count { what: "inputs", want: inputs.len(), got: given.len() });
    }
    let mut sizes: Vec<Option<usize>> = vec![None; symbols.len()];
    for (port, (_, shape)) in inputs.iter().zip(given) {
        if port.ty.shape.len() != shape.len() {
            return Err(misshapen(port, shape, symbols, String::new()));
        }
        for (d, &n) in port.ty.shape.iter().zip(*shape) {
            if let Some((i, size)) = solve(d, n)
                && i < sizes.len()
                && sizes[i].is_none()
            {
                sizes[i] = Some(size);
            }
        }
    }
    for (s, size) in symbols.iter().zip(&sizes) {
        let size = size.unwrap_or(s.min);
        if size < s.min || size > s.max {
            return Err(RunError::Range { symbol: s.name.clone(), size, min: s.min, max: s.max });
        }
    }
    let sizes: Vec<usize> = sizes.iter().zip(symbols).map(|(n, s)| n.unwrap_or(s.min)).collect();
    for (port, (dtype, shape)) in inputs.iter().zip(given) {
        check_port(port, *dtype, shape, &sizes, symbols)?;
    }
    Ok(sizes)
}

/// The symbol and its size, where an extent `n` settles it.
fn solve(d: &Dim, n: usize) -> Option<(usize, usize)> {
    let mut constant = 0i64;
    let mut found = None;
    for (c, powers) in d.terms() {
        match powers.iter().map(|&p| u32::from(p)).sum::<u32>() {
            0 => constant = c,
            1 if found.is_none() => found = Some((powers.iter().position(|&p| p == 1)?, c)),
            _ => return None,
        }
    }
    let (symbol, factor) = found?;
    let rest = i64::try_from(n).ok()?.checked_sub(constant)?;
    (factor != 0 && rest % factor == 0)
        .then(|| usize::try_from(rest / factor).ok())
        .flatten()
        .map(|size| (symbol, size))
}

/// Checks one input or output against its port.
pub(super) fn check_port(
    port: &Port,
    dtype: DType,
    shape: &[usize],
    sizes: &[usize],
    symbols: &[super::Symbol],
) -> Result<(), RunError> {
    if dtype != port.ty.dtype {
        return Err(RunError::DType { name: port.name.clone(), got: dtype, want: port.ty.dtype });
    }
    let want: Option<TensorType> = port.ty.eval(sizes);
    if want.is_some_and(|t| t.shape.as_slice() == shape) {
        return Ok(());
    }
    let known: Vec<String> =
        symbols.iter().zip(sizes).map(|(s, n)| format!("{} = {n}", s.name)).collect();
    let why = if known.is_empty() { String::new() } else { format!(" with {}", known.join(", ")) };
    Err(misshapen(port, shape, symbols, why))
}

fn misshapen(port: &Port, shape: &[usize], symbols: &[super::Symbol], why: String) -> RunError {
    let names: Vec<String> = symbols.iter().map(|s| s.name.clone()).collect();
    let dims: Vec<String> = port.ty.shape.iter().map(|d| d.show(&names)).collect();
    RunError::Shape { name: port.name.clone(), got: shape.to_vec(), want: dims.join(", "), why }
}
