//! Compiling models, saving and loading them.

use crate::calibration::Calibration;
use crate::nn::Layer;
use crate::tensor::Tensor;
use crate::trace::{DynamicDim, TraceError, trace};
use sinter_compiler as compiler;
use sinter_compiler::graph::Graph;
use sinter_compiler::{Precision, Tuning};
use sinter_kernels::isa::Isa;
use sinter_runtime::Array;
use sinter_runtime::artifact::ArtifactError;
use sinter_runtime::program::{Model, RunError};
use std::ops::RangeInclusive;
use std::path::Path;
use std::sync::Arc;
use thiserror::Error;

/// Why a model could not be compiled, saved or loaded.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum CompileError {
    /// It could not be traced.
    #[error(transparent)]
    Trace(#[from] TraceError),
    /// It could not be compiled.
    #[error(transparent)]
    Compile(#[from] compiler::CompileError),
    /// The artifact could not be written or read.
    #[error(transparent)]
    Artifact(#[from] ArtifactError),
}

/// Compiles models, with every choice open.
///
/// ```
/// use sinter::nn::{Layer, Linear};
/// use sinter::{Compiler, randn};
///
/// let model = Linear::new(4, 2);
/// let x = randn([3, 4]);
/// let compiled = Compiler::new().dynamic_batch("N", 1..=64).compile(&model, &x).unwrap();
/// let (y, want) = (compiled.call(&x).unwrap(), model.forward(&x));
/// assert!((y - want).abs().max().item::<f32>() < 1e-5);
/// assert_eq!(compiled.call(&randn([7, 4])).unwrap().shape(), [7, 2]);
/// ```
#[derive(Clone, Debug)]
pub struct Compiler {
    name: String,
    dynamic: Vec<DynamicDim>,
    batch: Option<(String, RangeInclusive<usize>)>,
    options: compiler::Options,
}

impl Default for Compiler {
    fn default() -> Compiler {
        Compiler::new()
    }
}

impl Compiler {
    /// Fusion on, all sizes those of the example.
    pub fn new() -> Compiler {
        Compiler {
            name: "model".to_string(),
            dynamic: vec![],
            batch: None,
            options: compiler::Options::default(),
        }
    }

    /// The program's name.
    pub fn name(mut self, name: impl Into<String>) -> Compiler {
        self.name = name.into();
        self
    }

    /// Whether ops are rewritten and fused; off, each op is one kernel.
    pub fn fusion(mut self, on: bool) -> Compiler {
        self.options.fusion = on;
        self
    }

    /// The instruction-set level of the code.
    pub fn isa(mut self, isa: Isa) -> Compiler {
        self.options.isa = isa;
        self.options.matrix_unit &= isa == Isa::Avx512;
        self
    }

    /// How exactly f32 numbers are multiplied by constant weights, in f32 if not said. In
    /// `High`, that is as PyTorch has it: with operands split in two numbers of bf16 where
    /// a processor is faster at that (one with AMX), else in f32, which is more exact.
    ///
    /// ```
    /// use sinter::nn::{Layer, Linear};
    /// use sinter::{Compiler, Precision, randn};
    /// let (model, x) = (Linear::new(64, 32), randn([8, 64]));
    /// let medium = Compiler::new().precision(Precision::Medium).compile(&model, &x).unwrap();
    /// let (y, want) = (medium.call(&x).unwrap(), model.forward(&x));
    /// assert!((&y - &want).abs().max().item::<f32>() < 0.02 * want.abs().max().item::<f32>());
    /// ```
    pub fn precision(mut self, precision: Precision) -> Compiler {
        self.options.precision = precision;
        self
    }

    /// What ranges are taken from, for [`Precision::Int8`], which is refused without.
    pub fn calibration(mut self, calibration: Calibration) -> Compiler {
        self.options.calibration = Some(Arc::new(calibration.0));
        self
    }

    /// Measures, where rules only guess, which kernels are faster, and takes those: how
    /// products are cut, which kernel computes a convolution, which ops are better apart.
    /// The results have the same bits, unless [`Tuning::any_order`] allows others. What
    /// was measured is kept on disk for the next time ([`Tuning::folder`]).
    ///
    /// ```
    /// use sinter::nn::{Layer, Linear};
    /// use sinter::{Compiler, Tuning, randn};
    /// use std::time::Duration;
    /// let (model, x) = (Linear::new(64, 32), randn([8, 64]));
    /// let tuning = Tuning { limit: Duration::from_millis(20), folder: None, ..Tuning::default() };
    /// let tuned = Compiler::new().tune(tuning).compile(&model, &x).unwrap();
    /// let (a, b) = (tuned.call(&x).unwrap(), sinter::compile(&model, &x).unwrap().call(&x).unwrap());
    /// assert_eq!(a.to_vec::<f32>(), b.to_vec::<f32>());
    /// ```
    pub fn tune(mut self, tuning: Tuning) -> Compiler {
        self.options.tuning = Some(tuning);
        self
    }

    /// Whether to compile for processors that multiply matrices of bf16 (AMX), where
    /// [`Precision::High`] differs from [`Precision::Highest`]; for those like this one, if
    /// not said. Programs run on either, with the same kind of products.
    pub fn matrix_unit(mut self, has: bool) -> Compiler {
        self.options.matrix_unit = has;
        self
    }

    /// Switches a rewrite rule off.
    pub fn disable_rule(mut self, name: impl Into<String>) -> Compiler {
        self.options.rewrite.disabled.push(name.into());
        self
    }

    /// Leaves the first dimension of every input open, the same for all of them.
    pub fn dynamic_batch(mut self, name: &str, range: RangeInclusive<usize>) -> Compiler {
        self.batch = Some((name.to_string(), range));
        self
    }

    /// Leaves dimensions open that share one size: `(input, dimension)`.
    pub fn dynamic(
        mut self,
        name: &str,
        places: &[(usize, usize)],
        range: RangeInclusive<usize>,
    ) -> Compiler {
        self.dynamic.push(DynamicDim { name: name.to_string(), places: places.to_vec(), range });
        self
    }

    fn dims(&self, inputs: usize) -> Vec<DynamicDim> {
        let batch = self.batch.iter().map(|(name, range)| DynamicDim {
            name: name.clone(),
            places: (0..inputs).map(|i| (i, 0)).collect(),
            range: range.clone(),
        });
        batch.chain(self.dynamic.iter().cloned()).collect()
    }

    /// Traces a function of tensors without compiling it.
    ///
    /// # Errors
    /// When it does something a graph cannot hold.
    pub fn trace(
        &self,
        f: impl Fn(&[Tensor]) -> Vec<Tensor>,
        examples: &[&Tensor],
    ) -> Result<Graph, TraceError> {
        trace(&self.name, f, examples, &self.dims(examples.len()))
    }

    /// Compiles a function of tensors.
    ///
    /// # Errors
    /// When it cannot be traced or compiled.
    pub fn compile_fn(
        &self,
        f: impl Fn(&[Tensor]) -> Vec<Tensor>,
        examples: &[&Tensor],
    ) -> Result<CompiledModel, CompileError> {
        let graph = self.trace(f, examples)?;
        let mut compiled = compiler::compile(&graph, &self.options)?;
        let model = compiled.load()?;
        let examples = examples.iter().map(|t| t.array().clone()).collect();
        Ok(CompiledModel { compiled, program: Program(model), examples })
    }

    /// Compiles a layer. Parameters keep the values they have now.
    ///
    /// # Errors
    /// When it cannot be traced or compiled.
    pub fn compile(
        &self,
        model: &(impl Layer + ?Sized),
        example: &Tensor,
    ) -> Result<CompiledModel, CompileError> {
        // Walking the parameters names them: the graph shows the names.
        model.named_parameters();
        self.compile_fn(|x| vec![model.forward(&x[0])], &[example])
    }
}

/// Compiles a layer for inputs like the example.
///
/// # Errors
/// When it cannot be traced or compiled.
pub fn compile(
    model: &(impl Layer + ?Sized),
    example: &Tensor,
) -> Result<CompiledModel, CompileError> {
    Compiler::new().compile(model, example)
}

/// Loads an artifact.
///
/// # Errors
/// When it is missing, damaged, newer, or not for this machine.
pub fn load(path: impl AsRef<Path>) -> Result<Program, ArtifactError> {
    sinter_runtime::artifact::load(path).map(Program)
}

/// A program ready to run; any number of threads may.
#[derive(Debug)]
pub struct Program(Model);

impl Program {
    /// Runs it.
    ///
    /// # Errors
    /// When inputs do not fit.
    pub fn run(&self, inputs: &[&Tensor]) -> Result<Vec<Tensor>, RunError> {
        let arrays: Vec<&Array> = inputs.iter().map(|t| t.array()).collect();
        Ok(self.0.run(&arrays)?.into_iter().map(Tensor::from_array).collect())
    }

    /// Runs it into tensors that exist; after the first run of a size nothing is
    /// allocated.
    ///
    /// # Errors
    /// When inputs or outputs do not fit.
    pub fn run_into(&self, inputs: &[&Tensor], outputs: &[&Tensor]) -> Result<(), RunError> {
        let arrays: smallvec::SmallVec<[&Array; 4]> = inputs.iter().map(|t| t.array()).collect();
        let outs: smallvec::SmallVec<[&Array; 4]> = outputs.iter().map(|t| t.array()).collect();
        self.0.run_into(&arrays, &outs)
    }

    /// Runs a program of one input and one output.
    ///
    /// # Errors
    /// When the input does not fit.
    pub fn call(&self, x: &Tensor) -> Result<Tensor, RunError> {
        let mut out = self.run(&[x])?;
        match out.len() {
            1 => Ok(out.swap_remove(0)),
            got => Err(RunError::Count { what: "outputs", want: 1, got }),
        }
    }

    /// The runtime's model.
    pub fn model(&self) -> &Model {
        &self.0
    }
}

/// A model compiled in this process.
#[derive(Debug)]
pub struct CompiledModel {
    compiled: compiler::Compiled,
    program: Program,
    examples: Vec<Array>,
}

impl std::ops::Deref for CompiledModel {
    type Target = Program;
    fn deref(&self) -> &Program {
        &self.program
    }
}

impl CompiledModel {
    /// What compiling did.
    pub fn report(&self) -> &compiler::Report {
        &self.compiled.report
    }

    /// The plan and graphs.
    pub fn compiled(&self) -> &compiler::Compiled {
        &self.compiled
    }

    /// The program alone. The graphs go, and with them the model's own weights where
    /// nothing else holds them: the program has copies in the layout it reads.
    pub fn into_program(self) -> Program {
        self.program
    }

    /// Saves the artifact, with code for this machine's instruction-set level. The
    /// file is complete or not there.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn save(&mut self, path: impl AsRef<Path>) -> Result<(), CompileError> {
        let isa = self.compiled.options.isa;
        self.save_for(path, &[isa])
    }

    /// Saves the artifact with code for several instruction-set levels; loading
    /// picks the best the machine has.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn save_for(&mut self, path: impl AsRef<Path>, levels: &[Isa]) -> Result<(), CompileError> {
        let path = path.as_ref();
        let bytes = self.compiled.artifact(levels, &self.examples)?;
        sinter_runtime::file::write_atomic(path, |f| std::io::Write::write_all(f, &bytes))
            .map_err(|source| ArtifactError::System { path: path.to_path_buf(), source }.into())
    }
}
