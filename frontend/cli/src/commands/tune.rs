//! `sinter tune`. What was measured on this machine; and the options and the progress of
//! commands that tune.

use super::{align, table};
use anyhow::{Context, bail};
use comfy_table::CellAlignment;
use indicatif::{ProgressBar, ProgressStyle};
use sinter_compiler::Report;
use sinter_compiler::tune::{
    self, CACHE_VARIABLE, Clock, Finding, Form, Measure, Problem, Tuned, Tuning, machine,
};
use sinter_runtime::program::RunError;
use std::io::ErrorKind;
use std::time::Duration;

/// Show or forget what tuning has measured.
///
/// Measurements are kept in $SINTER_CACHE_DIR/tune, or in the user's folder of caches.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// What was measured, kernel by kernel; else a line for each machine.
    #[arg(long)]
    list: bool,
    /// Forget everything.
    #[arg(long, conflicts_with = "list")]
    clear: bool,
}

/// Options of commands that may tune.
#[derive(Debug, clap::Args)]
#[group(skip)]
pub struct Choice {
    /// Measure which kernels are faster where rules only guess, for so many seconds at
    /// most (10 if not said); what was measured before is not measured again.
    #[arg(long, value_name = "SECONDS", num_args = 0..=1, require_equals = true,
          default_missing_value = "10")]
    tune: Option<f64>,
    /// With --tune: consider kernels that add in another order, too; last bits of results
    /// may differ.
    #[arg(long, requires = "tune")]
    any_order: bool,
}

impl Choice {
    /// How to tune, if so.
    ///
    /// # Errors
    /// When the limit is no time.
    pub fn tuning(&self) -> anyhow::Result<Option<Tuning>> {
        let Some(seconds) = self.tune else { return Ok(None) };
        if !(seconds > 0.0 && seconds < 1e6) {
            bail!("{seconds} is no number of seconds to tune for");
        }
        let limit = Duration::from_secs_f64(seconds);
        Ok(Some(Tuning { limit, any_order: self.any_order, ..Tuning::default() }))
    }

    /// The same options for another process.
    pub fn arguments(&self) -> Vec<String> {
        let tune = self.tune.map(|s| format!("--tune={s}"));
        tune.into_iter().chain(self.any_order.then(|| "--any-order".to_string())).collect()
    }
}

/// Does it.
pub fn run(args: &Args) -> anyhow::Result<()> {
    let folder = tune::folder()
        .with_context(|| format!("the system names no folder of caches; set {CACHE_VARIABLE}"))?;
    if args.clear {
        match std::fs::remove_dir_all(&folder) {
            Err(e) if e.kind() != ErrorKind::NotFound => {
                return Err(e).context(folder.display().to_string());
            }
            _ => println!("{}: nothing is kept", folder.display()),
        }
        return Ok(());
    }
    println!("{}", folder.display());
    let here = machine();
    for (_, page) in tune::pages(&folder) {
        let page = match page {
            Ok(p) => p,
            Err(e) => {
                eprintln!("warning: {e}");
                continue;
            }
        };
        let mark = if page.machine == here { " (here, now)" } else { "" };
        println!("\n{}{mark}\n{} measurements", page.machine, page.entries.len());
        if args.list {
            let mut t = table(["what", "by rule", "best", "choice"]);
            for e in page.entries.values() {
                let choice = if e.choice.is_empty() { "the rule's" } else { &e.choice };
                let (rule, best) = (time(e.rule_ns * 1e-9), time(e.best_ns * 1e-9));
                t.add_row([e.what.as_str(), &rule, &best, choice]);
            }
            (1..3).for_each(|c| align(&mut t, c, CellAlignment::Right));
            println!("{t}");
        }
    }
    Ok(())
}

fn time(seconds: f64) -> String {
    format!("{:.1} µs", seconds * 1e6)
}

/// Prints what went wrong while tuning.
pub fn complain(report: &Report) {
    for c in report.tuned.iter().flat_map(|t| &t.complaints) {
        eprintln!("warning: {c}");
    }
}

/// What was measured, as a table.
pub fn findings(tuned: &Tuned) -> String {
    let mut t = table(["measured", "times", "forms", "by rule", "best", "", "choice"]);
    let row = |f: &Finding, stays: &str| {
        let mut choice = if f.choice.is_empty() { stays.to_string() } else { f.choice.clone() };
        if let Some(why) = &f.uncertain {
            choice += &format!(" (measured whether apart is faster, because {why})");
        }
        let gain = format!("{:+.1} %", (f.best / f.rule - 1.0) * 100.0);
        let gain = if f.best < f.rule { gain } else { String::new() };
        let (times, forms) = (f.times.to_string(), f.forms.to_string());
        [f.what.clone(), times, forms, time(f.rule), time(f.best), gain, choice]
    };
    for f in &tuned.kernels {
        t.add_row(row(f, "the rule's"));
    }
    if let Some(f) = &tuned.program {
        t.add_row(row(f, "as by rule: tuned, it is slower"));
    }
    (1..6).for_each(|c| align(&mut t, c, CellAlignment::Right));
    let known = tuned.kernels.iter().filter(|f| f.known).count();
    let mut out = format!("{t}\n{known} of {} measured earlier", tuned.kernels.len());
    if tuned.unmeasured > 0 {
        out += &format!("; for {} there was no time", tuned.unmeasured);
    }
    for c in &tuned.complaints {
        out += &format!("\n{c}");
    }
    out
}

/// The machine's clock, with a bar that shows how much of its time has passed.
pub struct Progress {
    clock: Clock,
    bar: ProgressBar,
}

impl Progress {
    /// Shows the bar from the first measurement on.
    pub fn new() -> Progress {
        let bar = ProgressBar::new(0);
        let style = ProgressStyle::with_template("{bar:30.cyan/blue} tuning {msg}")
            .expect("the template is valid")
            .progress_chars("━╸─");
        bar.set_style(style);
        Progress { clock: Clock::new(), bar }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

impl Measure for Progress {
    fn rounds(
        &mut self,
        problem: Problem<'_>,
        forms: &mut [Form<'_>],
    ) -> Result<Vec<Vec<f64>>, RunError> {
        self.clock.rounds(problem, forms)
    }

    fn progress(&mut self, done: Duration, all: Duration, what: &str) {
        self.bar.set_length(all.as_millis() as u64);
        self.bar.set_position(done.as_millis() as u64);
        self.bar.set_message(what.to_string());
    }
}
