//! From the trained network to a program of its own: compile, save, run elsewhere,
//! compare.

use super::data::Data;
use super::runner::Runner;
use super::train::EVAL_BATCH;
use anyhow::{Context, bail};
use sinter::data::Dataset;
use sinter::io::npy;
use sinter::nn::Module;
use sinter::{CompiledModel, Compiler, Tensor};
use sinter_compiler::Precision;
use sinter_models::MnistCnn;
use sinter_runtime::artifact::relative_error;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Batch sizes the compiled network takes.
const BATCHES: std::ops::RangeInclusive<usize> = 1..=1024;

/// A compiled network in its file.
pub struct Shipped {
    /// The program and what compiling did.
    pub model: CompiledModel,
    /// The file.
    pub file: PathBuf,
    /// Its size in bytes.
    pub bytes: u64,
    /// From the network to code ready to run.
    pub compile_time: Duration,
}

impl Shipped {
    /// Compiles the network for any batch size and saves it.
    pub fn new(
        net: &MnistCnn,
        example: &Tensor,
        fusion: bool,
        file: &Path,
    ) -> anyhow::Result<Shipped> {
        net.eval();
        let compiler = Compiler::new().name("mnist_cnn").dynamic_batch("N", BATCHES).fusion(fusion);
        let start = Instant::now();
        let mut model = compiler.compile(net, example).context("compiling the network")?;
        let compile_time = start.elapsed();
        model.save(file).context("saving the artifact")?;
        let bytes = std::fs::metadata(file).with_context(|| file.display().to_string())?.len();
        Ok(Shipped { model, file: file.to_path_buf(), bytes, compile_time })
    }

    /// Classifies all images in a fresh process and compares every output with
    /// `eager`: the largest difference, relative to the largest output.
    pub fn check(
        &self,
        runner: &Runner,
        images: &Path,
        eager: &Tensor,
        threads: usize,
    ) -> anyhow::Result<f64> {
        let file = self.file.with_extension("outputs.npy");
        runner.run(&self.file, images, &file, EVAL_BATCH, threads)?;
        let got = npy::load(&file).context("reading the outputs")?;
        std::fs::remove_file(&file).with_context(|| file.display().to_string())?;
        if got.shape() != eager.shape() || got.dtype() != eager.dtype() {
            bail!(
                "{} gives {} {:?} for the test images, eager execution {} {:?}",
                self.file.display(),
                got.dtype(),
                got.shape(),
                eager.dtype(),
                eager.shape()
            );
        }
        let error = relative_error(got.array(), eager.array());
        let allowed = Precision::Highest.tolerance();
        if error > allowed {
            bail!(
                "{} and eager execution differ by {error:.1e} of the largest output; {allowed:.0e} is allowed",
                self.file.display()
            );
        }
        Ok(error)
    }
}

/// Writes the first `n` test images as the compiled network takes them.
pub fn write_images(data: &Data, n: usize, file: &Path) -> anyhow::Result<()> {
    let n = n.min(data.test.len());
    npy::save(file, &data.test.images(0..n)).context("writing the test images")
}
