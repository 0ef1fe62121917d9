//! Examples from files, for programs with integers.

use super::files::{Scale, inputs_of};
use anyhow::{bail, ensure};
use sinter_compiler::graph::{Graph, Symbol};
use sinter_compiler::{Calibration, CalibrationMethod, Precision};
use sinter_runtime::program::Port;
use sinter_runtime::{Array, Extent};

/// Rows of a run where the program takes any number of them.
const ROWS: usize = 32;

/// Where ranges come from.
#[derive(Debug, clap::Args)]
pub struct Examples {
    /// Examples of the program's inputs, from which the ranges are taken that integers
    /// stand for (--precision int8): files as `sinter run` takes them, for a program with
    /// one input any number of them. More rows than the program takes make several runs.
    #[arg(long, value_name = "FILE", num_args = 1.., value_delimiter = ',')]
    calibrate: Vec<String>,
    /// Examples that ranges are not taken from: the accuracy is measured on them, too.
    #[arg(long, value_name = "FILE", num_args = 1.., value_delimiter = ',', requires = "calibrate")]
    held_out: Vec<String>,
    /// How ranges are chosen: minmax, mse (least squared error), or the percentage of
    /// numbers that lie within, 99.99 say.
    #[arg(long, value_name = "METHOD", default_value = "minmax", value_parser = method)]
    calibration_method: CalibrationMethod,
    /// A layer, or a module with several, that stays in f32; may be given several times.
    #[arg(long, value_name = "NAME", requires = "calibrate")]
    keep_f32: Vec<String>,
    /// Subtracted from each pixel of images and IDX files, after division by 255.
    #[arg(long, default_value_t = 0.0, requires = "calibrate")]
    mean: f32,
    /// What such pixels are divided by then.
    #[arg(long, default_value_t = 1.0, requires = "calibrate")]
    std: f32,
}

fn method(name: &str) -> Result<CalibrationMethod, String> {
    match name {
        "minmax" => Ok(CalibrationMethod::MinMax),
        "mse" => Ok(CalibrationMethod::Mse),
        p => match p.trim_end_matches('%').parse::<f64>() {
            Ok(p) if 0.0 < p && p <= 100.0 => Ok(CalibrationMethod::Percentile(p)),
            _ => Err("the methods are minmax, mse, and percentages above 0 and up to 100".into()),
        },
    }
}

impl Examples {
    /// The examples, where there are any.
    ///
    /// # Errors
    /// When files are not what the graph takes, or are of no use.
    pub fn read(&self, graph: &Graph, precision: Precision) -> anyhow::Result<Option<Calibration>> {
        if self.calibrate.is_empty() {
            return Ok(None);
        }
        if precision != Precision::Int8 {
            bail!("--calibrate is for --precision int8, not {}", precision.name());
        }
        ensure!(
            self.std.is_finite() && self.std != 0.0,
            "pixels cannot be divided by {}",
            self.std
        );
        Ok(Some(Calibration {
            inputs: self.runs(graph, &self.calibrate)?,
            held_out: self.runs(graph, &self.held_out)?,
            method: self.calibration_method,
            keep: self.keep_f32.clone(),
        }))
    }

    fn runs(&self, graph: &Graph, files: &[String]) -> anyhow::Result<Vec<Vec<Array>>> {
        let ports = graph.input_ports();
        let names: Vec<String> = ports.iter().map(|p| p.name.clone()).collect();
        let signature = format!("{}({})", graph.name, names.join(", "));
        let scale = Scale { mean: self.mean, std: self.std };
        let mut out = vec![];
        // Of a single input, each file holds examples of its own.
        let sets =
            if ports.len() == 1 { files.chunks(1) } else { files.chunks(files.len().max(1)) };
        for set in sets {
            let inputs = inputs_of(&ports, &signature, set, scale)?;
            out.extend(cut(&ports, &graph.symbols, &inputs)?);
        }
        Ok(out)
    }
}

/// Rows of the first dimension as runs of so many as the program takes.
fn cut(ports: &[Port], symbols: &[Symbol], inputs: &[Array]) -> anyhow::Result<Vec<Vec<Array>>> {
    let takes = |p: &Port, a: &Array| {
        let have = *a.shape().first()?;
        let dim = p.ty.shape.first()?;
        let rows = match dim.known() {
            Some(n) => n,
            None => {
                let hints: Vec<usize> = symbols.iter().map(|s| ROWS.clamp(s.min, s.max)).collect();
                dim.eval(&hints)?.min(have)
            }
        };
        (rows > 0 && have > rows).then_some((rows, have / rows))
    };
    let pieces: Vec<_> = ports.iter().zip(inputs).map(|(p, a)| takes(p, a)).collect();
    let Some(&Some((_, count))) = pieces.iter().find(|p| p.is_some()) else {
        return Ok(vec![inputs.to_vec()]);
    };
    // All inputs have as many; what the program checks itself is left to it.
    ensure!(
        pieces.iter().all(|p| p.is_some_and(|p| p.1 == count)),
        "the inputs have rows for different numbers of runs"
    );
    let run = |i: usize| {
        let one = |(a, p): (&Array, &Option<(usize, usize)>)| match p {
            Some((rows, _)) => a.slice(0, i * rows, *rows, 1),
            None => a.clone(),
        };
        inputs.iter().zip(&pieces).map(one).collect()
    };
    Ok((0..count).map(run).collect())
}
