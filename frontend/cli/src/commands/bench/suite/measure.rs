//! Measuring one case in this process.

use super::files::{Entry, Meta, SuiteError, TaskMeta};
use super::{Args, Mode, Record};
use crate::commands::bench::machine::Machine;
use crate::commands::bench::{StepResult, step_results, work};
use crate::commands::tune;
use anyhow::Context;
use sinter::io::{npy, safetensors};
use sinter::nn::StateDict;
use sinter::{Calibration, Compiler, RunError, Tensor, manual_seed, no_grad, randn};
use sinter_benches::memory::Watch;
use sinter_benches::{Candidate, Stats, interleaved};
use sinter_compiler::Precision;
use sinter_compiler::Report;
use sinter_compiler::plan::Plan;
use sinter_kernels::{mem, par};
use sinter_models::Training;
use sinter_runtime::Array;
use sinter_runtime::program::{Model, Port};
use std::time::{Duration, Instant};

/// Runs whose steps are looked at.
const PROFILES: usize = 25;
/// How far losses may be from those expected, of a loss, or absolutely below 1.
const LOSS: f64 = 1e-3;

/// Measures a case, or serves it and gives nothing.
///
/// # Errors
/// When its files are not what they should be, it cannot be compiled, or gives
/// something else than it is to give.
pub fn case(entry: &Entry, args: &Args, machine: &Machine) -> anyhow::Result<Option<Record>> {
    if entry.training { training(entry, args, machine) } else { inference(entry, args, machine) }
}

fn weights(entry: &Entry) -> Result<StateDict, SuiteError> {
    Ok(safetensors::load(entry.dir.join("weights.safetensors"))?)
}

fn wrong_weights(entry: &Entry) -> impl Fn(sinter::nn::StateError) -> SuiteError {
    let path = entry.dir.join("weights.safetensors");
    move |source| SuiteError::Weights { path: path.clone(), source }
}

fn inference(entry: &Entry, args: &Args, machine: &Machine) -> anyhow::Result<Option<Record>> {
    let case = sinter_models::case(&entry.name).ok_or_else(|| entry.no_model())?;
    let meta: Meta = entry.meta()?;
    let memory = Watch::start()?;
    let inputs = entry.tensors(&meta, case.inputs, false)?;
    let expected = entry.tensors(&meta, case.outputs, true)?;
    let names: Vec<&str> = case.outputs.iter().map(|p| p.name).collect();
    let model = (case.build)();
    model.load_state_dict(&weights(entry)?, true).map_err(wrong_weights(entry))?;
    model.eval();
    let refs: Vec<&Tensor> = inputs.iter().collect();
    let mut compiler = Compiler::new().name(&entry.name).precision(args.precision);
    if args.precision == Precision::Int8 {
        compiler = compiler.calibration(calibration(&refs));
    }
    if let Some(tuning) = args.tune.tuning()? {
        compiler = compiler.tune(tuning);
    }
    let mode = args.mode().unwrap_or(Mode::Fused);
    // Names are given to the parameters, for what is said of the program.
    model.named_parameters();
    let check = |got: &[Tensor]| compare(&names, got, &expected, args.precision);
    let timed = Timed { entry, args, mode, memory };
    if mode == Mode::Eager {
        let run = || no_grad(|| model.run(&inputs));
        let max_error = check(&run())?;
        let graph = compiler.trace(|x| model.run(x), &refs)?;
        let limit = least_time(machine, &meta, work::graph(&graph));
        drop((graph, expected));
        return timed.measure(
            limit,
            Found { max_error: Some(max_error), ..Found::default() },
            || {
                drop(run());
            },
        );
    }
    let start = Instant::now();
    let compiled = compiler.fusion(mode == Mode::Fused).compile_fn(|x| model.run(x), &refs)?;
    let compile = start.elapsed();
    tune::complain(compiled.report());
    let outputs = compiled.run(&refs)?;
    let max_error = check(&outputs)?;
    let limit = least_time(machine, &meta, work::graph(&compiled.compiled().source));
    let mut detail = Detail::default();
    if args.steps {
        let arrays = |t: &[Tensor]| t.iter().map(|t| t.array().clone()).collect::<Vec<_>>();
        let (x, y) = (arrays(&inputs), arrays(&outputs));
        detail.passes = passes(compiled.report(), compile);
        detail.steps = profile(&compiled.compiled().plan, compiled.model(), machine, &x, &y)?;
    }
    let program = compiled.into_program();
    drop((model, expected));
    let bytes = |t: &Tensor| (t.numel() * t.dtype().size()) as u64;
    let planned = program.model().constants().len() + program.model().arena_bytes(&[])?;
    let planned = planned as u64 + inputs.iter().chain(&outputs).map(bytes).sum::<u64>();
    let outs: Vec<&Tensor> = outputs.iter().collect();
    let (compile, planned) = (Some(compile), Some(planned));
    let found = Found { compile, planned, max_error: Some(max_error), detail };
    timed.measure(limit, found, || {
        program.run_into(&refs, &outs).expect("the same inputs and outputs as before");
    })
}

/// The case's own inputs, and others like them.
fn calibration(inputs: &[&Tensor]) -> Calibration {
    manual_seed(0);
    let noisy = |t: &&Tensor| match t.dtype().is_float() && t.numel() > 1 {
        true => no_grad(|| *t + randn(t.shape()) * (t.std() * 0.1)),
        false => (*t).clone(),
    };
    let others: Vec<Tensor> = inputs.iter().map(noisy).collect();
    Calibration::with([inputs.to_vec(), others.iter().collect()])
}

fn training(entry: &Entry, args: &Args, machine: &Machine) -> anyhow::Result<Option<Record>> {
    if args.precision != Precision::Highest {
        return Err(SuiteError::Precision { name: args.precision.name() }.into());
    }
    let meta: TaskMeta = entry.meta()?;
    let memory = Watch::start()?;
    let batch = (npy::load(entry.dir.join("input.npy"))?, npy::load(entry.dir.join("target.npy"))?);
    let mut training =
        Training::with(&meta.task, &weights(entry)?, batch).map_err(wrong_weights(entry))?;
    let mode = args.mode().unwrap_or(Mode::Fused);
    let timed = Timed { entry, args, mode, memory };
    let limit = meta.gflop_step.unwrap_or(0.0) * 1e9 / machine.flops;
    if mode == Mode::Eager {
        let max_error = losses(&meta, args.precision, || Ok(training.step()))?;
        return timed
            .measure(limit, Found { max_error, ..Found::default() }, || drop(training.step()));
    }
    training.compiled(mode == Mode::Fused, |step| {
        // The first step compiles.
        let start = Instant::now();
        let mut first = Some(step.step()?);
        let taken = start.elapsed();
        if let Some(why) = step.why_eager() {
            return Err(SuiteError::Training { why: why.to_string() }.into());
        }
        let max_error =
            losses(&meta, args.precision, || first.take().map_or_else(|| step.step(), Ok))?;
        let start = Instant::now();
        step.step()?;
        let compile = taken.saturating_sub(start.elapsed());
        let (model, compiled) = step.program().expect("a step ran as a program");
        let array = |p: &Port| -> anyhow::Result<Array> {
            let ty = p.ty.eval(&[]).expect("a step has no open sizes");
            let n = ty.shape.iter().product::<usize>() * ty.dtype.size();
            Ok(Array::from_bytes(&vec![0; n], &ty.shape, ty.dtype)?)
        };
        let arrays = |ports: &[Port]| ports.iter().map(array).collect::<Result<Vec<_>, _>>();
        // Weights, the optimizer's state and the batch are inputs.
        let inputs = arrays(&model.program().inputs)?;
        let bytes: usize = inputs.iter().map(|a| a.numel() * a.dtype().size()).sum();
        let planned = (model.constants().len() + model.arena_bytes(&[])? + bytes) as u64;
        let mut detail = Detail::default();
        if args.steps {
            detail.passes = passes(&compiled.report, compile);
            let outputs = arrays(&model.program().outputs)?;
            detail.steps = profile(&compiled.plan, model, machine, &inputs, &outputs)?;
        }
        drop(inputs);
        let (compile, planned) = (Some(compile), Some(planned));
        timed.measure(limit, Found { compile, planned, max_error, detail }, || {
            step.step().expect("the same step as before");
        })
    })
}

/// Compares losses with those expected.
fn losses(
    meta: &TaskMeta,
    precision: Precision,
    mut step: impl FnMut() -> Result<Tensor, RunError>,
) -> anyhow::Result<Option<f64>> {
    let mut worst = None;
    for &want in &meta.losses_f64 {
        let error = (f64::from(step()?.item::<f32>()) - want).abs() / want.abs().max(1.0);
        // A NaN is no small number.
        if error.is_nan() || error > LOSS {
            let (output, precision) = ("loss".to_string(), precision.name());
            return Err(SuiteError::Wrong { output, error, allowed: LOSS, precision }.into());
        }
        worst = Some(worst.map_or(error, |w: f64| w.max(error)));
    }
    Ok(worst)
}

/// The least time in seconds that a case can take: what its products need, where the
/// description says, else what the graph's do.
fn least_time(machine: &Machine, meta: &Meta, work: work::Work) -> f64 {
    machine.least_time(work.bytes, meta.gflop.map_or(work.flops, |g| g * 1e9))
}

/// The largest difference of any output from what is expected, of the largest element
/// expected of it.
fn compare(
    names: &[&str],
    got: &[Tensor],
    want: &[Tensor],
    precision: Precision,
) -> Result<f64, SuiteError> {
    let largest =
        |t: Tensor| if t.numel() == 0 { 0.0 } else { f64::from(t.abs().max().item::<f32>()) };
    let mut worst = 0.0f64;
    for ((name, got), want) in names.iter().zip(got).zip(want) {
        let scale = largest(want.clone());
        let scale = if scale > 0.0 { scale } else { 1.0 };
        let error = if got.shape() == want.shape() {
            largest(no_grad(|| got - want)) / scale
        } else {
            f64::INFINITY
        };
        let allowed = precision.tolerance();
        // A NaN is no small number.
        if error.is_nan() || error > allowed {
            let precision = precision.name();
            return Err(SuiteError::Wrong { output: name.to_string(), error, allowed, precision });
        }
        worst = worst.max(error);
    }
    Ok(worst)
}

fn profile(
    plan: &Plan,
    model: &Model,
    machine: &Machine,
    inputs: &[Array],
    outputs: &[Array],
) -> anyhow::Result<Vec<StepResult>> {
    let (inputs, outputs): (Vec<_>, Vec<_>) = (inputs.iter().collect(), outputs.iter().collect());
    let mut times = vec![vec![]; plan.program.steps.len()];
    for _ in 0..PROFILES {
        for (times, t) in times.iter_mut().zip(model.profile(&inputs, &outputs)?) {
            times.push(t.as_secs_f64());
        }
    }
    Ok(step_results(plan, machine, &[], &times))
}

/// What is looked at beside the whole.
#[derive(Default)]
struct Detail {
    passes: Vec<(String, f64)>,
    steps: Vec<StepResult>,
}

/// Milliseconds of the compiler's passes, and of what came before them.
fn passes(report: &Report, all: Duration) -> Vec<(String, f64)> {
    let ms = |d: Duration| d.as_secs_f64() * 1e3;
    let trace = ("trace".to_string(), ms(all.saturating_sub(report.total())));
    let passes = report.passes.iter().map(|(name, t)| (name.clone(), ms(*t)));
    std::iter::once(trace).chain(passes).collect()
}

/// A case about to be measured.
struct Timed<'a> {
    entry: &'a Entry,
    args: &'a Args,
    mode: Mode,
    /// From before the case was loaded.
    memory: Watch,
}

/// What is known of a case before it is measured.
#[derive(Default)]
struct Found {
    compile: Option<Duration>,
    planned: Option<u64>,
    max_error: Option<f64>,
    detail: Detail,
}

impl Timed<'_> {
    /// Times a run, and watches the most that is resident meanwhile.
    fn measure(
        &self,
        limit: f64,
        found: Found,
        mut run: impl FnMut(),
    ) -> anyhow::Result<Option<Record>> {
        if self.args.serve {
            self.serve(&found, run)?;
            return Ok(None);
        }
        // What was needed to come here does not count.
        mem::empty_cache();
        self.memory.restart()?;
        let stats = self.stats(self.args.budget, &mut run);
        let peak_bytes = self.memory.read()?.growth;
        // The time of one thread does not count what somebody else did on the core.
        let least = if par::threads() == 1 { stats.cpu_min.min(stats.min) } else { stats.min };
        Ok(Some(Record {
            case: self.entry.name.clone(),
            threads: par::threads(),
            precision: self.args.precision,
            mode: self.mode,
            min_ms: stats.min / 1e6,
            median_ms: stats.median / 1e6,
            cpu_min_ms: stats.cpu_min / 1e6,
            compile_ms: found.compile.map(|t| t.as_secs_f64() * 1e3),
            peak_bytes,
            planned_bytes: found.planned,
            max_error: found.max_error,
            of_limit: limit * 1e9 / least,
            passes: found.detail.passes,
            steps: found.detail.steps,
        }))
    }

    fn stats(&self, seconds: f64, run: &mut impl FnMut()) -> Stats {
        let budget = Duration::from_secs_f64(seconds);
        interleaved(budget, vec![Candidate::new(&self.entry.name, run)]).remove(0)
    }

    /// Measures whenever a line of the input asks for it: `measure SECONDS`.
    fn serve(&self, found: &Found, mut run: impl FnMut()) -> anyhow::Result<()> {
        let ready = serde_json::json!({
            "compile_ms": found.compile.map(|t| t.as_secs_f64() * 1e3),
            "max_error": found.max_error,
        });
        println!("{ready}");
        for line in std::io::stdin().lines() {
            let line = line?;
            let seconds = line.strip_prefix("measure ").and_then(|s| s.parse::<f64>().ok());
            let seconds = seconds.filter(|s| (0.0..1e5).contains(s));
            let seconds = seconds.with_context(|| format!("`{line}` is no order"))?;
            let s = self.stats(seconds, &mut run);
            let ms = |ns: f64| ns / 1e6;
            let answer = serde_json::json!({
                "min": ms(s.min), "median": ms(s.median), "cpu": ms(s.cpu),
            });
            println!("{answer}");
        }
        Ok(())
    }
}
