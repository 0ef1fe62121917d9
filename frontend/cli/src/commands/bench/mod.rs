//! `sinter bench`. Measuring artifacts: fused, unfused, eager; end to end and step
//! by step. Measuring the cases of a suite.

mod machine;
mod peers;
mod show;
mod stats;
mod suite;
mod work;

use anyhow::{Context, bail};
use machine::Machine;
use sinter_compiler::artifact::source_graph;
use sinter_compiler::graph::{Graph, interpret};
use sinter_compiler::plan::Plan;
use sinter_compiler::{Options, compile};
use sinter_kernels::par;
use sinter_runtime::Array;
use sinter_runtime::artifact::{Artifact, Sample};
use sinter_runtime::program::{Model, Port};
use stats::{Estimate, estimate, ratio};
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use work::Work;

/// Measure an artifact, or the cases of a suite: fused, unfused, eager.
///
/// The graph an artifact came from is compiled anew for this machine, with and without
/// fusion, and run by the eager kernels, op by op. Of a suite, each case is compiled,
/// compared with the outputs it is to have, and measured in one of these forms.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The artifact.
    #[arg(required_unless_present = "suite")]
    model: Option<PathBuf>,
    #[command(flatten)]
    suite: suite::Args,
    /// Sizes of its open dimensions to measure, such as 1,64; those of its sample if
    /// not given.
    #[arg(long, value_name = "N", value_delimiter = ',', conflicts_with = "suite")]
    batch: Vec<NonZeroUsize>,
    /// Threads of the kernels; as many as there are processors if not given.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    threads: Option<u16>,
    /// Rounds; in each, every form has its turn.
    #[arg(long, value_name = "N", default_value_t = 25, conflicts_with = "suite",
          value_parser = clap::value_parser!(u16).range(2..))]
    repeat: u16,
    /// Write everything measured to this file, too; print it instead of tables if none
    /// is named. Of a suite, a line for each case.
    #[arg(long, value_name = "FILE", num_args = 0..=1)]
    json: Option<Option<PathBuf>>,
}

/// A turn lasts about as long, so that the clock's grain does not count.
const TURN: Duration = Duration::from_millis(3);

/// Everything measured.
#[derive(Debug, serde::Serialize)]
struct Results {
    program: String,
    machine: Machine,
    sizes: Vec<AtSize>,
}

/// What was measured with one size of the open dimensions.
#[derive(Debug, serde::Serialize)]
struct AtSize {
    /// Size of each open dimension.
    sizes: Vec<(String, usize)>,
    /// Seconds of a run in each form.
    forms: Vec<(&'static str, Estimate)>,
    /// How many times as long the second form takes as the first.
    ratios: Vec<Ratio>,
    /// Steps of the fused and of the unfused program.
    steps: Vec<(&'static str, Vec<StepResult>)>,
}

#[derive(Debug, serde::Serialize)]
struct Ratio {
    fast: &'static str,
    slow: &'static str,
    ratio: Estimate,
    /// Whether it is more than noise.
    certain: bool,
}

#[derive(Debug, serde::Serialize, serde::Deserialize)]
struct StepResult {
    name: String,
    /// Seconds.
    time: Estimate,
    work: Work,
    /// The least time this machine could take, of the time taken.
    of_limit: f64,
}

/// Does it.
pub fn run(args: &Args) -> anyhow::Result<()> {
    if let Some(n) = args.threads {
        par::set_threads(n.into());
    }
    let Some(model) = &args.model else {
        return suite::run(&args.suite, args.json.as_ref().map(Option::as_deref));
    };
    let printed = matches!(args.json, Some(None));
    let artifact = Artifact::open(model)?;
    let graph = source_graph(&artifact).with_context(|| model.display().to_string())?;
    let sample = artifact.sample()?;
    let forms = Forms::new(graph)?;
    let machine = Machine::measure();
    if !printed {
        show::machine(&machine);
    }
    let symbols = &forms.fused.plan.program.symbols;
    let choices: Vec<Vec<usize>> = if symbols.is_empty() {
        vec![vec![]]
    } else if args.batch.is_empty() {
        vec![symbols.iter().map(|s| s.hint).collect()]
    } else {
        args.batch.iter().map(|n| vec![n.get(); symbols.len()]).collect()
    };
    let mut results =
        Results { program: forms.fused.plan.program.signature(), machine, sizes: vec![] };
    if !printed {
        println!("{}", results.program);
    }
    for sizes in choices {
        for (s, &n) in symbols.iter().zip(&sizes) {
            if !(s.min..=s.max).contains(&n) {
                bail!("{} = {n} is outside {}..={}", s.name, s.min, s.max);
            }
        }
        let inputs = inputs(&forms.fused.plan.program.inputs, &sizes, sample.as_ref())?;
        let measured = forms.measure(&results.machine, &sizes, &inputs, args.repeat.into())?;
        if !printed {
            show::at_size(&measured);
        }
        results.sizes.push(measured);
    }
    if let Some(to) = &args.json {
        write_json(to.as_deref(), &serde_json::to_string_pretty(&results)?)?;
    }
    Ok(())
}

/// Writes text to a file, or prints it where none is named.
fn write_json(to: Option<&Path>, text: &str) -> anyhow::Result<()> {
    let Some(file) = to else {
        println!("{text}");
        return Ok(());
    };
    sinter_runtime::file::write_atomic(file, |f| std::io::Write::write_all(f, text.as_bytes()))
        .with_context(|| format!("writing {}", file.display()))
}

/// A compiled form.
struct Form {
    plan: Plan,
    model: Model,
}

/// The three forms of a graph.
struct Forms {
    graph: Graph,
    fused: Form,
    unfused: Form,
}

impl Forms {
    fn new(graph: Graph) -> anyhow::Result<Forms> {
        let form = |fusion: bool| -> anyhow::Result<Form> {
            let mut compiled = compile(&graph, &Options { fusion, ..Options::default() })?;
            let model = compiled.load()?;
            Ok(Form { plan: compiled.plan, model })
        };
        let (fused, unfused) = (form(true)?, form(false)?);
        Ok(Forms { graph, fused, unfused })
    }

    fn measure(
        &self,
        machine: &Machine,
        sizes: &[usize],
        inputs: &[Array],
        rounds: usize,
    ) -> anyhow::Result<AtSize> {
        let refs: Vec<&Array> = inputs.iter().collect();
        let outputs = self.fused.model.run(&refs)?;
        let outputs: Vec<&Array> = outputs.iter().collect();
        let compiled = |f: &Form| -> anyhow::Result<()> { Ok(f.model.run_into(&refs, &outputs)?) };
        let once: [(&'static str, &dyn Fn() -> anyhow::Result<()>); 3] = [
            ("fused", &|| compiled(&self.fused)),
            ("unfused", &|| compiled(&self.unfused)),
            ("eager", &|| {
                std::hint::black_box(interpret(&self.graph, inputs)?);
                Ok(())
            }),
        ];
        let turns = once.map(|(_, f)| turn(f));
        let mut times: [Vec<f64>; 3] = Default::default();
        let both = [("fused", &self.fused), ("unfused", &self.unfused)];
        let mut steps = both.map(|(_, f)| vec![vec![]; f.plan.program.steps.len()]);
        for _ in 0..rounds {
            for (((_, f), n), times) in once.iter().zip(&turns).zip(&mut times) {
                let n = *n.as_ref().map_err(|e| anyhow::anyhow!("{e:#}"))?;
                let start = Instant::now();
                for _ in 0..n {
                    f()?;
                }
                times.push(start.elapsed().as_secs_f64() / f64::from(n));
            }
            for ((_, form), steps) in both.iter().zip(&mut steps) {
                let done = form.model.profile(&refs, &outputs)?;
                for (times, t) in steps.iter_mut().zip(done) {
                    times.push(t.as_secs_f64());
                }
            }
        }
        let names = once.map(|o| o.0);
        let ratios = [(0, 1), (0, 2), (1, 2)]
            .map(|(fast, slow)| {
                let ratio = ratio(&times[slow], &times[fast]);
                let (fast, slow) = (names[fast], names[slow]);
                Ratio { fast, slow, ratio, certain: ratio.differs() }
            })
            .into();
        let steps = both
            .iter()
            .zip(&steps)
            .map(|((name, form), times)| (*name, step_results(&form.plan, machine, sizes, times)))
            .collect();
        let symbols = &self.fused.plan.program.symbols;
        Ok(AtSize {
            sizes: symbols.iter().map(|s| s.name.clone()).zip(sizes.iter().copied()).collect(),
            forms: names.into_iter().zip(times.each_ref().map(|t| estimate(t))).collect(),
            ratios,
            steps,
        })
    }
}

/// How often `f` runs in a turn; found by running it, which warms it up.
fn turn(f: &dyn Fn() -> anyhow::Result<()>) -> anyhow::Result<u32> {
    f()?;
    let start = Instant::now();
    f()?;
    let each = start.elapsed().as_secs_f64().max(1e-9);
    Ok((TURN.as_secs_f64() / each).clamp(1.0, 1e5) as u32)
}

fn step_results(
    plan: &Plan,
    machine: &Machine,
    sizes: &[usize],
    times: &[Vec<f64>],
) -> Vec<StepResult> {
    let work = work::steps(plan, sizes);
    let steps = plan.program.steps.iter().zip(work).zip(times);
    steps
        .map(|((step, work), times)| {
            let time = estimate(times);
            let of_limit = machine.least_time(work.bytes, work.flops) / time.value;
            StepResult { name: work::name(step).to_string(), time, work, of_limit }
        })
        .collect()
}

/// Inputs of these sizes, with the elements of the sample over and over: values
/// that the program can be expected to take.
fn inputs(ports: &[Port], sizes: &[usize], sample: Option<&Sample>) -> anyhow::Result<Vec<Array>> {
    let sample = sample.context("the artifact holds no sample to take inputs from")?.inputs()?;
    if sample.len() != ports.len() {
        bail!("the sample has {} inputs, the program {}", sample.len(), ports.len());
    }
    let input = |(port, from): (&Port, Array)| -> anyhow::Result<Array> {
        let ty = port.ty.eval(sizes).with_context(|| format!("`{}` has no size", port.name))?;
        let bytes = from.to_bytes();
        let n = ty.shape.iter().product::<usize>() * ty.dtype.size();
        if from.dtype() != ty.dtype || (bytes.is_empty() && n > 0) {
            bail!("the sample has no elements for `{}`", port.name);
        }
        let bytes: Vec<u8> = bytes.into_iter().cycle().take(n).collect();
        Ok(Array::from_bytes(&bytes, &ty.shape, ty.dtype)?)
    };
    ports.iter().zip(sample).map(input).collect()
}
