//! `sinter run`. Running artifacts.

use super::files::{self, Scale};
use anyhow::{Context, bail};
use comfy_table::{CellAlignment, Table};
use sinter_kernels::par;
use sinter_runtime::program::{Port, Program, RunError};
use sinter_runtime::{Array, DType, Op, artifact, eager};
use std::path::PathBuf;

/// Run an artifact on inputs from files.
///
/// Inputs are npy or npz files (arrays by name), PNG images, or IDX files, plain or
/// gzipped. Pixels and IDX bytes that meet a floating-point input become
/// `(byte / 255 - mean) / std`, one row an image; images become gray or coloured,
/// channels first, as the input's shape asks. Several images make a batch.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The artifact.
    model: PathBuf,
    /// Files, in the order of the inputs, or `NAME=FILE`.
    inputs: Vec<String>,
    /// Write the outputs: FILE.npy (of one output), FILE.npz, or a folder.
    /// Without it they are shown.
    #[arg(short, long)]
    output: Option<PathBuf>,
    /// Show the K largest scores of each row.
    #[arg(long, value_name = "K", value_parser = positive)]
    top: Option<usize>,
    /// Names of the classes, one a line.
    #[arg(long, value_name = "FILE", requires = "top")]
    labels: Option<PathBuf>,
    /// Feed the inputs N rows at a time.
    #[arg(short, long, value_name = "N", value_parser = positive)]
    batch: Option<usize>,
    /// Subtracted from each pixel, after division by 255.
    #[arg(long, default_value_t = 0.0)]
    mean: f32,
    /// What pixels are divided by then.
    #[arg(long, default_value_t = 1.0)]
    std: f32,
    /// Use at most N threads.
    #[arg(short, long, value_name = "N", value_parser = positive)]
    threads: Option<usize>,
}

fn positive(text: &str) -> Result<usize, String> {
    match text.parse::<usize>() {
        Ok(0) => Err("must be at least 1".to_string()),
        Ok(n) => Ok(n),
        Err(e) => Err(e.to_string()),
    }
}

/// Does it.
pub fn run(args: &Args) -> anyhow::Result<()> {
    if let Some(n) = args.threads {
        par::set_threads(n);
    }
    if !(args.std.is_finite() && args.std != 0.0 && args.mean.is_finite()) {
        bail!("--mean must be a number and --std one that is not zero");
    }
    let labels = args.labels.as_deref().map(files::lines).transpose()?;
    let model = artifact::load(&args.model)?;
    let program = model.program();
    let scale = Scale { mean: args.mean, std: args.std };
    let inputs = files::inputs(program, &args.inputs, scale)?;
    let refs: Vec<&Array> = inputs.iter().collect();
    let outputs = match args.batch {
        Some(rows) => model.run_rows(&refs, rows),
        None => model.run(&refs),
    };
    let outputs = outputs.map_err(|e| match e {
        RunError::Range { .. } => {
            anyhow::anyhow!("{e}; --batch N feeds the inputs N rows at a time")
        }
        e => e.into(),
    })?;
    if let Some(path) = &args.output {
        files::write_outputs(path, program, &outputs)?;
    }
    match args.top {
        Some(k) => show_top(program, &outputs, k, labels.as_deref()),
        None if args.output.is_none() => {
            show(program, &outputs);
            Ok(())
        }
        None => Ok(()),
    }
}

/// Rows of a table that are shown; more go to files.
const ROWS: usize = 20;
/// Columns of a table that are shown.
const COLUMNS: usize = 12;

/// Each output as a table, its first dimension downwards.
fn show(program: &Program, outputs: &[Array]) {
    for (port, a) in program.outputs.iter().zip(outputs) {
        println!("{}: {} {:?}", port.name, a.dtype(), a.shape());
        if a.numel() == 0 {
            continue;
        }
        let rows = if a.rank() > 1 { a.shape()[0] } else { 1 };
        let columns = a.numel() / rows;
        let flat = a.view(&[rows, columns]).expect("results are dense");
        let mut table = Table::new();
        table.load_preset(comfy_table::presets::NOTHING);
        for r in 0..rows.min(ROWS) {
            let row = flat.slice(0, r, 1, 1);
            let cell = |c: usize| number(&row.slice(1, c, 1, 1));
            let mut cells: Vec<String> = (0..columns.min(COLUMNS)).map(cell).collect();
            if columns > COLUMNS {
                cells.push("…".to_string());
            }
            table.add_row(cells);
        }
        for c in table.column_iter_mut() {
            c.set_cell_alignment(CellAlignment::Right);
        }
        println!("{table}");
        if rows > ROWS {
            println!("… and {} rows more", rows - ROWS);
        }
    }
}

/// An element as text.
fn number(a: &Array) -> String {
    match a.dtype() {
        d if d.is_float() => format!("{:.5}", a.item().as_f64()),
        _ => a.item().to_string(),
    }
}

/// The largest elements of each row of the first output.
fn show_top(
    program: &Program,
    outputs: &[Array],
    k: usize,
    labels: Option<&[String]>,
) -> anyhow::Result<()> {
    let Some((port, a)) = program.outputs.iter().zip(outputs).next() else {
        bail!("the program has no output");
    };
    let Port { name, .. } = port;
    let &[rows, classes] = a.shape() else {
        bail!("--top wants rows of scores: output `{name}` has shape {:?}", a.shape());
    };
    if a.dtype() == DType::Bool || classes == 0 {
        bail!("--top wants numbers: output `{name}` is {} {:?}", a.dtype(), a.shape());
    }
    if let Some(l) = labels
        && l.len() != classes
    {
        bail!("there are {} labels for {classes} classes", l.len());
    }
    let top = eager::run(&Op::TopK { k: k.min(classes), axis: 1, largest: true }, &[a])
        .context("finding the largest scores")?;
    let mut table = super::table(["row", "class", "score"]);
    for r in 0..rows {
        for i in 0..k.min(classes) {
            let at = |a: &Array| a.slice(0, r, 1, 1).slice(1, i, 1, 1);
            let class = at(&top[1]).item().as_i64();
            let name = labels.map_or(class.to_string(), |l| l[class as usize].clone());
            let row = if i == 0 { r.to_string() } else { String::new() };
            table.add_row([row, name, number(&at(&top[0]))]);
        }
    }
    super::align(&mut table, 2, CellAlignment::Right);
    println!("{table}");
    Ok(())
}
