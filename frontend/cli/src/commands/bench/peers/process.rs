//! Engines in processes of their own, one order at a time.

use anyhow::{Context, bail};
use rustix::process::{Pid, Signal, kill_process};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Seek, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

/// What runs an engine of Python.
const SCRIPT: &str = include_str!("worker.py");

/// A Python and the engines that it has.
pub struct Python {
    pub program: PathBuf,
    pub version: String,
    /// The version of each.
    pub engines: BTreeMap<String, String>,
}

#[derive(Deserialize)]
struct Probe {
    python: String,
    engines: BTreeMap<String, String>,
}

impl Python {
    /// Asks it.
    pub fn new(program: &Path) -> anyhow::Result<Python> {
        let out = Command::new(program)
            .args(["-B", "-c", SCRIPT, "--probe"])
            .output()
            .with_context(|| format!("starting {}", program.display()))?;
        if !out.status.success() {
            let said = String::from_utf8_lossy(&out.stderr);
            bail!("{}: {}", program.display(), said.trim().lines().last().unwrap_or("it failed"));
        }
        let probe: Probe = serde_json::from_slice(&out.stdout)
            .with_context(|| format!("{} is no Python", program.display()))?;
        Ok(Python { program: program.into(), version: probe.python, engines: probe.engines })
    }

    /// What runs a case on one of its engines.
    pub fn command(&self, engine: &str, case: &Path) -> Command {
        let mut c = Command::new(&self.program);
        c.args(["-B", "-c", SCRIPT, "--engine", engine]).arg("--case").arg(case);
        c
    }
}

/// What a worker says when it is ready.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Ready {
    pub compile_ms: Option<f64>,
    pub max_error: Option<f64>,
    /// Why the engine does not take the case, or failed.
    unfit: Option<String>,
    failed: Option<String>,
}

/// Milliseconds a call.
#[derive(Debug, Deserialize)]
pub struct Answer {
    pub median: f64,
    pub cpu: f64,
}

/// A process that has prepared one case. While it has no order, it is stopped.
pub struct Worker {
    child: Child,
    orders: ChildStdin,
    answers: BufReader<ChildStdout>,
    log: std::fs::File,
}

impl Worker {
    /// Starts one and waits until it is ready.
    pub fn start(mut command: Command, threads: usize) -> anyhow::Result<(Worker, Ready)> {
        let log = tempfile::tempfile().context("a file for what an engine says")?;
        command.arg("--threads").arg(threads.to_string());
        for name in ["OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"] {
            command.env(name, threads.to_string());
        }
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(log.try_clone().context("a file for what an engine says")?)
            .spawn()
            .context("starting it")?;
        let orders = child.stdin.take().expect("it is piped");
        let answers = BufReader::new(child.stdout.take().expect("it is piped"));
        let mut worker = Worker { child, orders, answers, log };
        let ready: Ready = worker.answer()?;
        match ready.unfit.as_ref().or(ready.failed.as_ref()) {
            Some(why) => bail!("{why}"),
            None => Ok((worker, ready)),
        }
    }

    /// Has it measure for so many seconds.
    pub fn measure(&mut self, seconds: f64) -> anyhow::Result<Answer> {
        self.signal(Signal::CONT);
        writeln!(self.orders, "measure {seconds}").and_then(|()| self.orders.flush())?;
        self.answer()
    }

    fn answer<T: for<'a> Deserialize<'a>>(&mut self) -> anyhow::Result<T> {
        let mut line = String::new();
        self.answers.read_line(&mut line)?;
        if line.is_empty() {
            let status = self.child.wait()?;
            let mut said = String::new();
            self.log.rewind()?;
            self.log.read_to_string(&mut said)?;
            bail!("{}", said.trim().lines().last().map_or(status.to_string(), str::to_string));
        }
        self.signal(Signal::STOP);
        serde_json::from_str(&line).with_context(|| format!("it said {line:?}"))
    }

    fn signal(&self, signal: Signal) {
        if let Some(pid) = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw) {
            // One that has ended says so at the next answer.
            let _ = kill_process(pid, signal);
        }
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
