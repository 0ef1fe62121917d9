//! What the compiler adds to an artifact beside the program: the graph it came
//! from with its constants, the graph after fusion, the report. With these an
//! artifact can be looked into and compiled again.

use crate::codegen::cpu;
use crate::graph::text::{self, ParseError};
use crate::graph::{Graph, NodeId, VerifyError, interpret, verify};
use crate::pipeline::{CompileError, Compiled, Report};
use crate::plan::PlanError;
use sinter_kernels::isa::Isa;
use sinter_runtime::artifact::{Artifact, ArtifactError, Sample, SectionKind, relative_error};
use sinter_runtime::op::RandomKind;
use sinter_runtime::{Array, DType, Op, OpError, Scalar, eager};
use thiserror::Error;

/// Constants of the source graph start at multiples of this many bytes.
const ALIGN: usize = 64;

/// Why what the compiler left in an artifact cannot be read.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ReadError {
    /// The file is damaged.
    #[error(transparent)]
    Artifact(#[from] ArtifactError),
    /// A part is missing: it was left out when the artifact was made.
    #[error("the artifact holds no {0}")]
    Missing(&'static str),
    /// A graph that is none.
    #[error("{section}: {source}")]
    Parse {
        /// The section.
        section: &'static str,
        /// What is wrong with it.
        source: ParseError,
    },
    /// A graph that breaks an invariant.
    #[error(transparent)]
    Graph(#[from] VerifyError),
    /// Constants that do not fit the graph.
    #[error("source constants: {0}")]
    Constants(String),
    /// A report of another version.
    #[error("report: {0}")]
    Report(String),
}

impl Compiled {
    /// The artifact: code for the given levels, constants, the graph it came from,
    /// and a sample of these inputs with the outputs that eager execution gives for
    /// them. (With integers: and how far the program is from those here.)
    ///
    /// # Errors
    /// When code cannot be generated, or the sample cannot be run.
    pub fn artifact(&mut self, levels: &[Isa], inputs: &[Array]) -> Result<Vec<u8>, CompileError> {
        if let Some(&k) = self.plan.program.written.first() {
            let name = self.plan.program.inputs[k as usize].name.clone();
            return Err(CompileError::Updates { name });
        }
        let outputs = interpret(&self.source, inputs)?;
        let sample = self
            .sample_tolerance(inputs, &outputs)?
            .map(|tolerance| Sample::new(inputs, &outputs, tolerance));
        let mut code = Vec::new();
        for &isa in levels {
            let plan = &self.plan;
            let (bytes, kernels) = self.report.time("object", || cpu::object(plan, isa))?;
            self.report.kernels = kernels;
            code.push((isa, bytes));
        }
        let report = serde_json::to_string(&self.report).expect("reports are plain data");
        let c = &self.plan.constants;
        let constants = Array::from_block(c.clone(), 0, &[c.len()], DType::U8)
            .expect("a block holds its own bytes")
            .to_bytes();
        Ok(Artifact::assemble(
            &self.plan.program,
            &code,
            &constants,
            sample.as_ref(),
            &[
                (SectionKind::Source, self.source.to_string().as_bytes()),
                (SectionKind::Graph, self.plan.graph.to_string().as_bytes()),
                (SectionKind::Report, report.as_bytes()),
                (SectionKind::SourceConstants, &constant_bytes(&self.source)?),
            ],
        ))
    }
}

impl Compiled {
    /// How far the program's outputs may be from these, which eager execution gave. With
    /// integers they may be as far as they are when computed here, by the library alone,
    /// and by what [`FLIPS`] says; where outputs are integers that differ, or not finite,
    /// nothing can be said.
    fn sample_tolerance(
        &self,
        inputs: &[Array],
        outputs: &[Array],
    ) -> Result<Option<f64>, CompileError> {
        let Some(q) = &self.plan.quantized else {
            return Ok(Some(self.options.precision.tolerance()));
        };
        let got = q.interpret(&self.plan.graph, inputs)?;
        let error = got.iter().zip(outputs).map(|(g, w)| relative_error(g, w)).fold(0.0, f64::max);
        Ok(error.is_finite().then_some(error + FLIPS))
    }
}

/// A difference in the last bit of a number may become one of a whole step of integers.
const FLIPS: f64 = 2e-2;

/// The constants of a graph, in the order of its text.
fn constant_bytes(g: &Graph) -> Result<Vec<u8>, CompileError> {
    let mut out = Vec::new();
    for c in text::constants(g).into_iter().map(|i| &g.constants[i]) {
        let data = c.data.as_ref().ok_or_else(|| PlanError::NoData(c.name.clone()))?;
        out.resize(out.len().next_multiple_of(ALIGN), 0);
        out.extend(data.array().map_err(PlanError::from)?.to_bytes());
    }
    Ok(out)
}

/// Inputs of the types a graph takes, for a sample: normally distributed numbers,
/// and zeros where they are not real. Symbols have the sizes of their hints.
///
/// # Errors
/// When an extent has no value or memory runs out.
pub fn example_inputs(g: &Graph) -> Result<Vec<Array>, OpError> {
    let one = |(i, n): (usize, &NodeId)| {
        let ty = &g.node(*n).types[0];
        let ty = ty.eval(&g.hints()).ok_or_else(|| OpError::Shape {
            op: g.name.clone(),
            reason: format!("input {i} has no size"),
        })?;
        let (dtype, shape) = (ty.dtype, ty.shape);
        let op = if dtype.is_float() {
            Op::Random { kind: RandomKind::Normal, dtype, seed: i as u64, offset: 0, shape }
        } else {
            Op::Full { value: Scalar::Int(0), dtype, shape }
        };
        eager::run1(&op, &[])
    };
    g.inputs().iter().enumerate().map(one).collect()
}

fn read_graph(a: &Artifact, kind: SectionKind) -> Result<Graph, ReadError> {
    let section = kind.name();
    let text = a.text(kind)?.ok_or(ReadError::Missing(section))?;
    let g = text::parse(text).map_err(|source| ReadError::Parse { section, source })?;
    verify(&g)?;
    Ok(g)
}

/// The graph an artifact was compiled from, with its constants, whose memory is
/// shared with the file.
///
/// # Errors
/// When it was left out, or is damaged.
pub fn source_graph(a: &Artifact) -> Result<Graph, ReadError> {
    let mut g = read_graph(a, SectionKind::Source)?;
    let section =
        a.find(SectionKind::SourceConstants).ok_or(ReadError::Missing("source constants"))?;
    let block = a.block(section)?;
    let mut at = 0usize;
    for c in &mut g.constants {
        at = at.next_multiple_of(ALIGN);
        let data = Array::from_block(block.clone(), at, &c.ty.shape, c.ty.dtype)
            .map_err(|e| ReadError::Constants(format!("`{}`: {e}", c.name)))?;
        at += data.numel() * c.ty.dtype.size();
        c.data = Some(data.into());
    }
    if at != block.len() {
        let why = format!("{} bytes are there, the graph has {at}", block.len());
        return Err(ReadError::Constants(why));
    }
    Ok(g)
}

/// The graph the program was made from, after rewriting, without the elements of
/// its constants.
///
/// # Errors
/// When it was left out, or is damaged.
pub fn compiled_graph(a: &Artifact) -> Result<Graph, ReadError> {
    read_graph(a, SectionKind::Graph)
}

/// What the compiler did.
///
/// # Errors
/// When it was left out, or is damaged.
pub fn report(a: &Artifact) -> Result<Report, ReadError> {
    let text = a.text(SectionKind::Report)?.ok_or(ReadError::Missing("report"))?;
    serde_json::from_str(text).map_err(|e| ReadError::Report(e.to_string()))
}
