//! `sinter bench --suite DIR --peers`: the cases of a suite beside what people would use
//! instead, as a table and a page.
//!
//! Each engine has a process of its own, which compares its results with those expected
//! before anything is timed. In every round every engine has its turn, and those that wait
//! are stopped, so that no thread of theirs spins. A ratio is the median over rounds, with
//! the interval that noise leaves.

mod markdown;
mod page;
mod process;

use super::machine::Machine;
use super::show;
use super::stats::{Estimate, estimate, ratio};
use super::suite::Case;
use crate::commands::{align, table};
use anyhow::{Context, bail};
use comfy_table::{CellAlignment, Table};
use indicatif::{ProgressBar, ProgressStyle};
use process::{Answer, Python, Worker};
use serde::Serialize;
use sinter_kernels::par;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Options of the comparison.
#[derive(Debug, clap::Args)]
#[group(skip)]
pub struct Choice {
    /// Compare with the engines that a Python environment has: ONNX Runtime, OpenVINO (in
    /// f32 and in bf16), PyTorch, torch.compile and JAX. The last three need the suite's own
    /// definitions, models_torch.py, jaxmodels.py and train_specs.py, beside its cases.
    #[arg(long, requires = "suite", conflicts_with_all = ["steps", "eager", "unfused"])]
    pub peers: bool,
    /// Engines to compare with, of those that are installed; all if not given.
    #[arg(long, value_name = "NAMES", value_delimiter = ',', requires = "peers")]
    engines: Vec<String>,
    /// The Python whose packages are compared with.
    #[arg(long, value_name = "FILE", default_value = "python3", requires = "peers")]
    python: PathBuf,
    /// Rounds; in each, every engine has its turn.
    #[arg(long, value_name = "N", default_value_t = 7, requires = "peers",
          value_parser = clap::value_parser!(u16).range(5..=1000))]
    rounds: u16,
    /// Write the comparison as a page with bars to this file.
    #[arg(long, value_name = "FILE", requires = "peers")]
    html: Option<PathBuf>,
    /// Write the comparison as a table in Markdown to this file.
    #[arg(long, value_name = "FILE", requires = "peers")]
    markdown: Option<PathBuf>,
}

/// Everything measured.
#[derive(Debug, Serialize)]
pub struct Comparison {
    machine: Machine,
    /// The Python, and the version of each engine.
    python: String,
    engines: BTreeMap<String, String>,
    precision: &'static str,
    rounds: u16,
    cases: Vec<Compared>,
}

/// A case, by every engine that ran it.
#[derive(Debug, Serialize)]
struct Compared {
    case: String,
    runs: Vec<Run>,
    /// Engines without a figure, and why.
    without: Vec<(String, String)>,
}

/// An engine with a case.
#[derive(Debug, Serialize)]
struct Run {
    engine: String,
    /// Milliseconds of compiling, where there is such a thing.
    compile_ms: Option<f64>,
    max_error: Option<f64>,
    /// Milliseconds a call: the time of one thread, or by the clock of several.
    time: Estimate,
    /// How many times as long as Sinter it takes.
    ratio: Option<Estimate>,
    #[serde(skip)]
    turns: Vec<f64>,
}

/// Ourselves.
const SINTER: &str = "sinter";

/// Measures the cases, each engine for so many seconds a case.
pub fn run(
    choice: &Choice,
    cases: &[Case],
    machine: Machine,
    (precision, budget): (&'static str, f64),
    json: Option<Option<&Path>>,
) -> anyhow::Result<()> {
    let python = Python::new(&choice.python)?;
    let engines = chosen(&python, &choice.engines)?;
    let printed = matches!(json, Some(None));
    if !printed {
        show::machine(&machine);
        let versions: Vec<String> = engines.iter().map(|(e, v)| format!("{e} {v}")).collect();
        println!("beside {}, Python {}", versions.join(", "), python.version);
    }
    let bar = ProgressBar::new((cases.len() * (choice.rounds as usize + 1)) as u64);
    let style = ProgressStyle::with_template("{bar:30.cyan/blue} {percent:>3} % {msg}")
        .expect("the template is valid")
        .progress_chars("━╸─");
    bar.set_style(style);
    bar.enable_steady_tick(Duration::from_millis(200));
    let mut all = Comparison {
        machine,
        python: python.version.clone(),
        engines: engines.clone(),
        precision,
        rounds: choice.rounds,
        cases: vec![],
    };
    for case in cases {
        let compared = compare(case, &python, &engines, choice.rounds, budget, &bar)?;
        for (engine, why) in compared.without.iter().filter(|w| w.0 == SINTER) {
            bar.suspend(|| eprintln!("error: {}: {engine}: {why}", case.name));
        }
        all.cases.push(compared);
    }
    bar.finish_and_clear();
    if !printed {
        println!("{}", summary(&all));
        println!("{}", all.overall());
    }
    if let Some(file) = &choice.html {
        page::write(&all, file)?;
    }
    if let Some(file) = &choice.markdown {
        markdown::write(&all, file)?;
    }
    for file in choice.html.iter().chain(&choice.markdown).filter(|_| !printed) {
        println!("written: {}", file.display());
    }
    if let Some(file) = json {
        super::write_json(file, &(serde_json::to_string_pretty(&all)? + "\n"))?;
    }
    let failed = all.cases.iter().filter(|c| c.ours().is_none()).count();
    if failed > 0 {
        bail!("{failed} of {} cases could not be measured", all.cases.len());
    }
    Ok(())
}

/// The engines that are asked for, with their versions.
fn chosen(python: &Python, names: &[String]) -> anyhow::Result<BTreeMap<String, String>> {
    let known = || python.engines.keys().cloned().collect::<Vec<_>>().join(", ");
    if python.engines.is_empty() {
        bail!(
            "{} has none of the packages onnxruntime, openvino and torch; name another Python \
             with --python",
            python.program.display()
        );
    }
    if names.is_empty() {
        return Ok(python.engines.clone());
    }
    let one = |name: &String| -> anyhow::Result<(String, String)> {
        let version = python.engines.get(name);
        let version = version.with_context(|| format!("`{name}` is none of {}", known()))?;
        Ok((name.clone(), version.clone()))
    };
    names.iter().map(one).collect()
}

fn compare(
    case: &Case,
    python: &Python,
    engines: &BTreeMap<String, String>,
    rounds: u16,
    budget: f64,
    bar: &ProgressBar,
) -> anyhow::Result<Compared> {
    let mut compared = Compared { case: case.name.clone(), runs: vec![], without: vec![] };
    let mut workers = vec![];
    for engine in std::iter::once(SINTER).chain(engines.keys().map(String::as_str)) {
        bar.set_message(format!("{}: preparing {engine}", case.name));
        let command = match engine {
            SINTER => case.serving()?,
            _ => python.command(engine, &case.dir),
        };
        match Worker::start(command, par::threads()) {
            Ok((worker, ready)) => {
                compared.runs.push(Run {
                    engine: engine.to_string(),
                    compile_ms: ready.compile_ms,
                    max_error: ready.max_error,
                    time: estimate(&[]),
                    ratio: None,
                    turns: vec![],
                });
                workers.push(worker);
            }
            Err(why) => compared.without.push((engine.to_string(), format!("{why:#}"))),
        }
    }
    bar.inc(1);
    for round in 1..=rounds {
        bar.set_message(format!("{}: round {round}", case.name));
        for (run, worker) in compared.runs.iter_mut().zip(&mut workers) {
            let Answer { median, cpu, .. } = worker
                .measure(budget / f64::from(rounds))
                .with_context(|| format!("{}: {}", case.name, run.engine))?;
            run.turns.push(if par::threads() == 1 { cpu } else { median });
        }
        bar.inc(1);
    }
    let ours = compared.ours().map(|r| r.turns.clone());
    for run in &mut compared.runs {
        run.time = estimate(&run.turns);
        if let Some(ours) = ours.as_ref().filter(|_| run.engine != SINTER) {
            run.ratio = Some(ratio(&run.turns, ours));
        }
    }
    Ok(compared)
}

impl Compared {
    fn ours(&self) -> Option<&Run> {
        self.runs.iter().find(|r| r.engine == SINTER)
    }

    /// The peer that takes least time, of those as exact as was asked for.
    fn fastest(&self, precision: &str) -> Option<&Run> {
        let fair = |r: &&Run| precision == "medium" || !r.engine.ends_with("bf16");
        let peers = self.runs.iter().filter(|r| r.ratio.is_some()).filter(fair);
        peers.min_by(|a, b| a.time.value.total_cmp(&b.time.value))
    }
}

impl Comparison {
    /// In a sentence: how many cases are won and lost against the fastest peer of each.
    fn overall(&self) -> String {
        let ratios: Vec<Estimate> =
            self.cases.iter().filter_map(|c| c.fastest(self.precision)?.ratio).collect();
        if ratios.is_empty() {
            return "no case was run by a peer as well".to_string();
        }
        let won = ratios.iter().filter(|r| r.low > 1.0).count();
        let lost = ratios.iter().filter(|r| r.high < 1.0).count();
        let mean = ratios.iter().map(|r| r.value.ln()).sum::<f64>() / ratios.len() as f64;
        format!(
            "Against the fastest peer of each case: {won} won, {lost} lost, {} too close to tell; \
             in the geometric mean it takes {:.2} times as long as Sinter.",
            ratios.len() - won - lost,
            mean.exp(),
        )
    }
}

impl Comparison {
    /// How it was measured.
    fn conditions(&self) -> String {
        let engines: Vec<String> = self.engines.iter().map(|(e, v)| format!("{e} {v}")).collect();
        let threads = match self.machine.threads {
            1 => "One thread".to_string(),
            n => format!("{n} threads"),
        };
        let times = match self.machine.threads {
            1 => "times are CPU time",
            _ => "times are by the clock",
        };
        format!(
            "{threads}, {}, {:.0} GFLOP/s; precision {}; {}; Python {}. {} rounds, in each of \
             which every engine has its turn; {times}.",
            self.machine.isa,
            self.machine.flops / 1e9,
            self.precision,
            engines.join(", "),
            self.python,
            self.rounds,
        )
    }
}

/// Milliseconds, for people.
fn time(ms: f64) -> String {
    match ms {
        t if t >= 1000.0 => format!("{:.2} s", t / 1000.0),
        t if t >= 1.0 => format!("{t:.2} ms"),
        t => format!("{:.1} µs", t * 1000.0),
    }
}

/// `1.23 (1.20 – 1.26)`, and what it says.
fn verdict(r: &Estimate) -> String {
    let said = match r {
        r if r.high < 1.0 => ", Sinter loses",
        r if r.differs() => "",
        _ => ", can't tell",
    };
    format!("{:.2} ({:.2} – {:.2}){said}", r.value, r.low, r.high)
}

fn summary(all: &Comparison) -> Table {
    let mut t =
        table(["case", "engine", "ms", "between (95 %)", "× Sinter", "compile ms", "error"]);
    let or = |text: Option<String>| text.unwrap_or_else(|| "–".to_string());
    for c in &all.cases {
        for (i, r) in c.runs.iter().enumerate() {
            t.add_row([
                if i == 0 { c.case.clone() } else { String::new() },
                r.engine.clone(),
                format!("{:.4}", r.time.value),
                format!("{:.4} – {:.4}", r.time.low, r.time.high),
                or(r.ratio.as_ref().map(verdict)),
                or(r.compile_ms.map(|t| format!("{t:.1}"))),
                or(r.max_error.map(|e| format!("{e:.1e}"))),
            ]);
        }
        for (engine, why) in &c.without {
            t.add_row([String::new(), engine.clone(), why.clone()]);
        }
    }
    (2..7).for_each(|column| align(&mut t, column, CellAlignment::Right));
    t
}
