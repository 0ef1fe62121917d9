//! `sinter bench --suite`. The cases of a suite in files, one after the other, each in a
//! process of its own: compiled, compared with what it is to give, measured.

mod files;
mod measure;

use super::machine::Machine;
use super::{StepResult, peers, show, write_json};
use crate::commands::{align, precision, table, tune};
use anyhow::{Context, bail};
use comfy_table::{CellAlignment, Table};
use files::{Entry, SuiteError};
use indicatif::{ProgressBar, ProgressStyle};
use serde::{Deserialize, Serialize};
use sinter_compiler::Precision;
use sinter_kernels::par;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// Options of the suite.
#[derive(Debug, clap::Args)]
#[group(skip)]
pub struct Args {
    /// A folder of cases, each a folder with meta.json, weights, inputs and the outputs
    /// that are expected.
    #[arg(long, id = "suite", value_name = "DIR", conflicts_with = "model")]
    suite: Option<PathBuf>,
    /// Cases to measure, such as mlp_b1,train_mlp_adam_b64; all if not given.
    #[arg(long, value_name = "NAMES", value_delimiter = ',', requires = "suite")]
    case: Vec<String>,
    /// How exactly compiled models multiply f32 matrices by weights: highest, in f32; high,
    /// in three products of bf16 where this machine is faster at that (with AMX), else in
    /// f32; medium, with operands rounded to bf16.
    #[arg(long, value_name = "PRECISION", default_value = "highest", value_parser = precision)]
    #[arg(requires = "suite")]
    precision: Precision,
    #[command(flatten)]
    tune: tune::Choice,
    /// Run models op by op.
    #[arg(long, requires = "suite", conflicts_with_all = ["unfused", "fused"])]
    eager: bool,
    /// Compile without fusion.
    #[arg(long, requires = "suite", conflicts_with = "fused")]
    unfused: bool,
    /// Compile with fusion; what is measured if nothing else is asked for.
    #[arg(long, requires = "suite")]
    fused: bool,
    /// Seconds to measure each case for.
    #[arg(long, value_name = "SECONDS", default_value_t = 1.5, requires = "suite")]
    budget: f64,
    /// Measure the passes of the compiler and the steps of compiled cases, too.
    #[arg(long, requires = "suite", conflicts_with = "eager")]
    steps: bool,
    #[command(flatten)]
    peers: peers::Choice,
    /// The machine's limits, where they have been measured.
    #[arg(long, hide = true, requires = "suite")]
    machine: Option<String>,
    /// Prepare a case, say so, and measure it whenever a line asks for it: what a
    /// comparison starts.
    #[arg(long, hide = true, requires = "suite")]
    serve: bool,
}

/// How a model runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Mode {
    Eager,
    Unfused,
    Fused,
}

impl Mode {
    fn name(self) -> &'static str {
        match self {
            Mode::Eager => "eager",
            Mode::Unfused => "unfused",
            Mode::Fused => "fused",
        }
    }
}

/// What was measured of a case.
#[derive(Debug, Serialize, Deserialize)]
struct Record {
    case: String,
    threads: usize,
    precision: Precision,
    mode: Mode,
    min_ms: f64,
    median_ms: f64,
    /// CPU time of all threads, of the sample that took least.
    cpu_min_ms: f64,
    /// Tracing and compiling.
    compile_ms: Option<f64>,
    /// What the process held at its peak while measuring, beyond what it held before it
    /// loaded the case, but for mapped files.
    peak_bytes: u64,
    /// Weights as the program has them, working memory, inputs and outputs.
    planned_bytes: Option<u64>,
    /// Largest difference from the reference, of the reference's largest element; of
    /// training, from the losses.
    max_error: Option<f64>,
    /// The least time that this machine could take, of the time taken.
    of_limit: f64,
    /// With `--steps`, milliseconds of tracing and of the compiler's passes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    passes: Vec<(String, f64)>,
    /// With `--steps`, the program's steps.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    steps: Vec<StepResult>,
}

impl Args {
    /// How cases are to run, where that was said.
    fn mode(&self) -> Option<Mode> {
        let modes =
            [(self.eager, Mode::Eager), (self.unfused, Mode::Unfused), (self.fused, Mode::Fused)];
        modes.into_iter().find(|m| m.0).map(|m| m.1)
    }
}

/// Does it. `json` is where lines go instead of or beside tables.
pub fn run(args: &Args, json: Option<Option<&Path>>) -> anyhow::Result<()> {
    let dir = args.suite.as_deref().context("no suite is named")?;
    if args.eager && args.precision != Precision::Highest {
        return Err(SuiteError::Precision { name: args.precision.name() }.into());
    }
    args.tune.tuning()?;
    if !(args.budget > 0.0 && args.budget < 1e5) {
        bail!("{} is no number of seconds to measure for", args.budget);
    }
    let entries = files::entries(dir, &args.case)?;
    let machine: Machine = match &args.machine {
        Some(text) => serde_json::from_str(text).context("--machine is malformed")?,
        None => Machine::measure(),
    };
    if args.peers.peers {
        let text = serde_json::to_string(&machine)?;
        let cases: Vec<Case> = entries.iter().map(|e| Case::new(e, args, &text)).collect();
        let how = (args.precision.name(), args.budget);
        return peers::run(&args.peers, &cases, machine, how, json);
    }
    if args.serve {
        let [entry] = &entries[..] else { bail!("one case at a time is served") };
        measure::case(entry, args, &machine)?;
        return Ok(());
    }
    let printed = matches!(json, Some(None));
    if !printed {
        show::machine(&machine);
    }
    let records = match &entries[..] {
        [entry] => {
            let record = measure::case(entry, args, &machine)?.context("it was not measured")?;
            if printed {
                println!("{}", serde_json::to_string(&record)?);
            }
            vec![record]
        }
        _ => each(&entries, args, &machine, printed)?,
    };
    if !printed {
        println!("{}", summary(&records));
        for r in records.iter().filter(|r| !r.steps.is_empty()) {
            let pass = |(name, ms): &(String, f64)| format!("{name} {ms:.2} ms");
            let passes: Vec<String> = r.passes.iter().map(pass).collect();
            println!("\n{}, {}, compiled: {}", r.case, r.mode.name(), passes.join(", "));
            println!("step by step");
            println!("{}", show::step_table(&r.steps));
        }
        show::of_limit();
    }
    if let Some(Some(file)) = json {
        let lines = records.iter().map(serde_json::to_string).collect::<Result<Vec<_>, _>>()?;
        write_json(Some(file), &(lines.join("\n") + "\n"))?;
    }
    match entries.len() - records.len() {
        0 => Ok(()),
        n => bail!("{n} of {} cases could not be measured", entries.len()),
    }
}

/// Every case in a fresh process, so that each has its own peak of memory, and none
/// suffers from what another left. Those that fail are reported and left out.
fn each(
    entries: &[Entry],
    args: &Args,
    machine: &Machine,
    printed: bool,
) -> anyhow::Result<Vec<Record>> {
    let bar = ProgressBar::new(entries.len() as u64);
    let style = ProgressStyle::with_template("{bar:30.cyan/blue} {pos:>3}/{len} {msg}")
        .expect("the template is valid")
        .progress_chars("━╸─");
    bar.set_style(style);
    bar.enable_steady_tick(Duration::from_millis(200));
    let machine = serde_json::to_string(machine)?;
    let mut records = vec![];
    for entry in entries {
        bar.set_message(entry.name.clone());
        match alone(entry, args, &machine) {
            Ok(record) => {
                if printed {
                    let line = serde_json::to_string(&record)?;
                    bar.suspend(|| println!("{line}"));
                }
                records.push(record);
            }
            Err(e) => bar.suspend(|| eprintln!("error: {}: {e:#}", entry.name)),
        }
        bar.inc(1);
    }
    bar.finish_and_clear();
    Ok(records)
}

/// A case, and how this program measures it in a process of its own.
pub struct Case {
    pub name: String,
    pub dir: PathBuf,
    arguments: Vec<OsString>,
}

impl Case {
    fn new(entry: &Entry, args: &Args, machine: &str) -> Case {
        let suite = args.suite.as_deref().unwrap_or(Path::new(""));
        let budget = args.budget.to_string();
        let mut all: Vec<OsString> =
            vec!["bench".into(), "--suite".into(), suite.into(), "--case".into()];
        let given = [&entry.name, "--machine", machine, "--budget", &budget];
        all.extend(given.map(OsString::from));
        all.extend(["--precision", args.precision.name()].map(OsString::from));
        all.extend(args.mode().map(|m| format!("--{}", m.name()).into()));
        all.extend(args.tune.arguments().into_iter().map(OsString::from));
        Case { name: entry.name.clone(), dir: entry.dir.clone(), arguments: all }
    }

    /// This program, for this case alone.
    fn own(&self) -> anyhow::Result<Command> {
        let own = std::env::current_exe().context("finding this program's own file")?;
        let mut c = Command::new(own);
        c.args(&self.arguments);
        Ok(c)
    }

    /// This program, measuring the case when it is told to.
    pub fn serving(&self) -> anyhow::Result<Command> {
        let mut c = self.own()?;
        c.arg("--serve");
        Ok(c)
    }
}

/// This program again, for one case.
fn alone(entry: &Entry, args: &Args, machine: &str) -> anyhow::Result<Record> {
    let mut c = Case::new(entry, args, machine).own()?;
    c.args(["--json", "--threads", &par::threads().to_string()]);
    c.args(args.steps.then_some("--steps"));
    let out = c.output().context("starting this program again")?;
    let said = String::from_utf8_lossy(&out.stderr);
    if !out.status.success() {
        let line = said.trim().lines().last().unwrap_or_default();
        let line = line.strip_prefix("error: ").unwrap_or(line);
        bail!("{}", if line.is_empty() { out.status.to_string() } else { line.to_string() });
    }
    let text = String::from_utf8_lossy(&out.stdout);
    serde_json::from_str(text.trim()).with_context(|| format!("it printed {text:?}"))
}

fn summary(records: &[Record]) -> Table {
    let mut t = table([
        "case",
        "mode",
        "min ms",
        "median ms",
        "CPU ms",
        "compile ms",
        "peak MB",
        "planned MB",
        "error",
        "of limit",
    ]);
    let ms = |t: f64| format!("{t:.3}");
    let mb = |b: u64| format!("{:.1}", b as f64 / 1e6);
    let or = |text: Option<String>| text.unwrap_or_else(|| "–".to_string());
    for r in records {
        t.add_row([
            r.case.clone(),
            r.mode.name().to_string(),
            ms(r.min_ms),
            ms(r.median_ms),
            ms(r.cpu_min_ms),
            or(r.compile_ms.map(|t| format!("{t:.1}"))),
            mb(r.peak_bytes),
            or(r.planned_bytes.map(mb)),
            or(r.max_error.map(|e| format!("{e:.1e}"))),
            format!("{:.0} %", r.of_limit * 100.0),
        ]);
    }
    (2..10).for_each(|column| align(&mut t, column, CellAlignment::Right));
    t
}
