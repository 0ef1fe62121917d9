//! The whole way: graph in, runnable program or file out, with a report of what
//! each pass did and how long it took.

use crate::codegen::cpu::{self, CodegenError, Listing};
use crate::graph::{Graph, InterpretError, VerifyError, verify};
use crate::plan::{self, Plan, PlanError};
use crate::quantize::{Accuracy, Calibration};
use crate::rewrite;
use crate::tune::{self, Clock, Measure, Tuned, Tuning};
use sinter_kernels::isa::Isa;
use sinter_runtime::program::{Model, ModelError};
use std::sync::Arc;
use std::time::{Duration, Instant};
use thiserror::Error;

/// How exactly products and convolutions of f32 numbers by constant weights are computed:
/// PyTorch's `float32_matmul_precision`, and integers beside it. Everything else is f32
/// always.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    /// In f32.
    #[default]
    Highest,
    /// Products of matrices, and convolutions of images with channels last, as three
    /// products of bf16, where that is faster: on processors with AMX, and with many rows. Operands keep 16 bits, weights take as much memory as
    /// before. Elsewhere, and for all else, as [`Precision::Highest`]; the decisions say
    /// so.
    High,
    /// As products of bf16: operands keep 8 bits, weights take half the memory.
    Medium,
    /// As products of eight-bit integers, of convolutions, too; weights take a quarter of
    /// the memory. Needs a [`Calibration`].
    Int8,
}

impl Precision {
    /// Every precision, the most exact first.
    pub const ALL: [Precision; 4] =
        [Precision::Highest, Precision::High, Precision::Medium, Precision::Int8];

    /// The name in text.
    pub fn name(self) -> &'static str {
        match self {
            Precision::Highest => "highest",
            Precision::High => "high",
            Precision::Medium => "medium",
            Precision::Int8 => "int8",
        }
    }

    /// How far a compiled program may be off from eager execution, relative to the
    /// largest magnitude of its outputs. With integers that depends on the model: what is
    /// said of them is what a sound one does not exceed, and the report has the rest.
    pub fn tolerance(self) -> f64 {
        match self {
            Precision::Highest => 1e-5,
            Precision::High => 1e-4,
            Precision::Medium => 2e-2,
            Precision::Int8 => 0.2,
        }
    }
}

/// How to compile.
#[derive(Clone, Debug, PartialEq)]
pub struct Options {
    /// Whether ops are rewritten and fused. Off, each op of the user is one
    /// kernel; the kernels are otherwise the same.
    pub fusion: bool,
    /// Whether a step of training computes again, for its backward pass, what is cheap to
    /// compute and large to keep. The results are the same.
    pub recompute: bool,
    /// Which rewrite rules run.
    pub rewrite: rewrite::Options,
    /// The instruction-set level of the code.
    pub isa: Isa,
    /// How exactly matrices are multiplied.
    pub precision: Precision,
    /// For [`Precision::Int8`], and of no use otherwise.
    pub calibration: Option<Arc<Calibration>>,
    /// How rules are checked by measuring, if they are.
    pub tuning: Option<Tuning>,
    /// Whether the program is for processors that multiply matrices of bf16 (AMX), on which
    /// [`Precision::High`] pays. If not said, those like this one. It runs on others as
    /// well, more slowly than a program for them.
    pub matrix_unit: bool,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            fusion: true,
            recompute: true,
            rewrite: rewrite::Options::default(),
            isa: sinter_kernels::isa::active(),
            precision: Precision::default(),
            calibration: None,
            tuning: None,
            matrix_unit: sinter_kernels::gemm::tiles_available(),
        }
    }
}

/// Why a graph could not be compiled.
#[derive(Debug, Clone, PartialEq, Error)]
#[non_exhaustive]
pub enum CompileError {
    /// The graph breaks an invariant.
    #[error(transparent)]
    Graph(#[from] VerifyError),
    /// Planning failed.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// Code generation failed.
    #[error(transparent)]
    Codegen(#[from] CodegenError),
    /// The plan contradicts itself: a mistake in the compiler.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// A program that changes its inputs, as a training step does, is not for files.
    #[error(
        "the program changes its input `{name}` in place; artifacts hold programs that only read theirs"
    )]
    Updates {
        /// The first such input.
        name: String,
    },
    /// The sample for the artifact could not be run.
    #[error("running the sample: {0}")]
    Sample(#[from] InterpretError),
}

/// What compiling did.
#[derive(Clone, Debug, Default, serde::Serialize, serde::Deserialize)]
pub struct Report {
    /// How exactly matrices are multiplied.
    #[serde(default)]
    pub precision: Precision,
    /// Whether for processors that multiply matrices of bf16.
    #[serde(default)]
    pub matrix_unit: bool,
    /// Passes and their times.
    pub passes: Vec<(String, Duration)>,
    /// What the rewriter did.
    pub rewrite: rewrite::Report,
    /// Which ops went into which step, and why.
    pub decisions: Vec<plan::Decision>,
    /// What became of each generated kernel.
    pub kernels: Vec<Listing>,
    /// Where integers take the place of numbers: what that changes.
    #[serde(default)]
    pub accuracy: Option<Accuracy>,
    /// What was measured, and what came of it.
    #[serde(default)]
    pub tuned: Option<Tuned>,
}

impl Report {
    pub(crate) fn time<R>(&mut self, pass: &str, f: impl FnOnce() -> R) -> R {
        let start = Instant::now();
        let r = f();
        self.passes.push((pass.to_string(), start.elapsed()));
        r
    }

    /// Time of all passes together.
    pub fn total(&self) -> Duration {
        self.passes.iter().map(|p| p.1).sum()
    }
}

/// A graph, planned.
#[derive(Clone, Debug)]
pub struct Compiled {
    /// The plan.
    pub plan: Plan,
    /// The graph as it was traced.
    pub source: Graph,
    /// What was done.
    pub report: Report,
    /// How.
    pub options: Options,
}

/// Rewrites and plans a graph.
///
/// # Errors
/// When the graph is invalid or a constant is missing.
pub fn compile(graph: &Graph, options: &Options) -> Result<Compiled, CompileError> {
    compile_measured(graph, options, &mut Clock::new())
}

/// [`compile`], where tuning takes its times from `measure`.
///
/// # Errors
/// As [`compile`].
pub fn compile_measured(
    graph: &Graph,
    options: &Options,
    measure: &mut dyn Measure,
) -> Result<Compiled, CompileError> {
    let (precision, matrix_unit) = (options.precision, options.matrix_unit);
    let mut report = Report { precision, matrix_unit, ..Report::default() };
    report.time("verify", || verify(graph))?;
    let rewritten = if options.fusion {
        let (g, r) = report.time("rewrite", || rewrite::rewrite(graph, &options.rewrite));
        report.rewrite = r;
        report.time("verify", || verify(&g))?;
        g
    } else {
        graph.clone()
    };
    let plan = match &options.tuning {
        None => report.time("plan", || plan::plan(&rewritten, options))?,
        Some(tuning) => {
            let (plan, tuned) =
                report.time("tune", || tune::tune(&rewritten, options, tuning, measure))?;
            report.tuned = Some(tuned);
            plan
        }
    };
    report.decisions = plan.decisions.clone();
    report.accuracy = plan.quantized.as_ref().map(|q| q.accuracy.clone());
    Ok(Compiled { plan, source: graph.clone(), report, options: options.clone() })
}

impl Compiled {
    /// Generates code in this process and puts the program together.
    ///
    /// # Errors
    /// When the machine has no code generator.
    pub fn load(&mut self) -> Result<Model, CompileError> {
        let (plan, isa) = (&self.plan, self.options.isa);
        let (code, kernels) = self.report.time("codegen", || cpu::jit(plan, isa))?;
        self.report.kernels = kernels;
        Ok(Model::new(self.plan.program.clone(), code, self.plan.constants.clone())?)
    }

    /// Generates code as an object file.
    ///
    /// # Errors
    /// When the machine has no code generator.
    pub fn object(&mut self) -> Result<Vec<u8>, CompileError> {
        let (plan, isa) = (&self.plan, self.options.isa);
        let (bytes, kernels) = self.report.time("object", || cpu::object(plan, isa))?;
        self.report.kernels = kernels;
        Ok(bytes)
    }
}
