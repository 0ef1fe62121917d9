//! The program `sinter-run`: the runtime alone, in a process of its own.

use anyhow::{Context, bail};
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// Where the program is.
pub struct Runner(PathBuf);

/// What a run of it, or of the eager network, showed.
#[derive(Clone, Copy, Debug)]
pub struct Timing {
    /// Median time of a run.
    pub median: Duration,
    /// Peak of the process's resident memory in bytes.
    pub peak: u64,
}

impl Runner {
    /// Finds it beside this program. Under `cargo run`, cargo builds it first, unless
    /// it is there and up to date.
    pub fn find() -> anyhow::Result<Runner> {
        let own = std::env::current_exe().context("finding this program's own file")?;
        let name = format!("sinter-run{}", std::env::consts::EXE_SUFFIX);
        let beside = own.with_file_name(&name);
        let Some(cargo) = std::env::var_os("CARGO") else {
            if beside.is_file() {
                return Ok(Runner(beside));
            }
            bail!(
                "{name} is missing: it belongs beside {} and is built by \
                 `cargo build --release -p sinter-run`",
                own.display()
            );
        };
        let folder = own.parent().context("this program lies in no folder")?;
        let profile = match folder.file_name().and_then(OsStr::to_str) {
            Some("debug") | None => "dev",
            Some(name) => name,
        };
        // With this program among the packages, dependencies keep the features they
        // were built with.
        let mut build = Command::new(cargo);
        build
            .args(["build", "--profile", profile, "-p", "sinter-cli", "-p", "sinter-run"])
            .arg("--manifest-path")
            .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/../../Cargo.toml"));
        if let Some(target) = folder.parent() {
            build.arg("--target-dir").arg(target);
        }
        let status = build.status().context("starting cargo")?;
        if !status.success() || !beside.is_file() {
            bail!("cargo could not build {}: {status}", beside.display());
        }
        Ok(Runner(beside))
    }

    /// Runs an artifact on a file of inputs, `batch` rows at a time.
    pub fn run(
        &self,
        artifact: &Path,
        input: &Path,
        output: &Path,
        batch: usize,
        threads: usize,
    ) -> anyhow::Result<()> {
        let mut c = Command::new(&self.0);
        c.arg(artifact).arg(input).arg("--output").arg(output);
        c.args(["--batch", &batch.to_string(), "--threads", &threads.to_string()]);
        finish(c).map(|_| ())
    }

    /// Runs an artifact again and again on the same input.
    pub fn time(
        &self,
        artifact: &Path,
        input: &Path,
        scratch: &Path,
        repeat: usize,
        threads: usize,
    ) -> anyhow::Result<Timing> {
        let mut c = Command::new(&self.0);
        c.arg(artifact).arg(input).arg("--output").arg(scratch).arg("--time");
        c.args(["--repeat", &repeat.to_string(), "--threads", &threads.to_string()]);
        timing(c)
    }
}

/// Runs a program that reports `median … ms` and `peak … bytes`.
pub fn timing(command: Command) -> anyhow::Result<Timing> {
    let text = finish(command)?;
    let field = |name: &str| -> Option<f64> {
        text.lines().find_map(|l| l.strip_prefix(name)?.split_whitespace().next()?.parse().ok())
    };
    match (field("median"), field("peak")) {
        (Some(ms), Some(peak)) => Ok(Timing {
            median: Duration::try_from_secs_f64(ms / 1e3).context("a time out of range")?,
            peak: peak as u64,
        }),
        _ => bail!("a run reported no times: {text:?}"),
    }
}

fn finish(mut c: Command) -> anyhow::Result<String> {
    let program = c.get_program().to_string_lossy().into_owned();
    let out = c.output().with_context(|| format!("starting {program}"))?;
    if !out.status.success() {
        let why = String::from_utf8_lossy(&out.stderr);
        bail!("{program} failed ({}): {}", out.status, why.trim());
    }
    Ok(String::from_utf8_lossy(&out.stdout).into_owned())
}
