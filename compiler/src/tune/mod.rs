//! Tuning: where rules only guess, times decide.
//!
//! Rules plan a program; tuning asks of each of its larger kernels whether another way
//! is faster: a product cut otherwise, another kernel for a convolution, other widths of
//! a generated loop, ops apart that rules fuse. Each kernel is taken out of the program
//! as a graph of its own ([`region`]), planned in each way ([`forms`]) and measured
//! ([`measure`]), the forms taking turns. Another form takes the rule's place where it is
//! faster by more than noise; and what all of that makes of the program is at last
//! measured beside the program by rule, which stays if it is not slower. So a tuned program
//! is never slower than an untuned one, as far as can be measured.
//!
//! Kernels that read or write images with channels last are left to rules: how images lie
//! is decided for a whole graph, and a part of it would be planned in planes.
//!
//! Every form gives the same bits, as is checked on one set of numbers before it is
//! measured. Forms that add in another order (minimal filtering, attention as products)
//! are considered where [`Tuning::any_order`] says so.
//!
//! What was found is kept on disk ([`book`]). What a program was tuned to is part of it,
//! as [`Choices`] say; a file runs the same kernels everywhere.

mod book;
mod forms;
mod machine;
mod measure;
mod region;

pub use book::{Book, BookError, CACHE_VARIABLE, Entry, Page, folder, pages, read};
#[cfg(feature = "mlir")]
pub(crate) use book::{caches, digest};
pub use machine::machine;
pub use measure::{Clock, Form, Measure, Problem};

use crate::artifact::example_inputs;
use crate::codegen::cpu;
use crate::graph::{Graph, NodeId};
use crate::pipeline::{CompileError, Options};
use crate::plan::{self, Choices, Plan, Sort};
use forms::Way;
use measure::{beats, median};
use region::Region;
use sinter_kernels::par;
use sinter_runtime::Array;
use sinter_runtime::program::{Model, RunError, Step};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// How to tune.
#[derive(Clone, Debug, PartialEq)]
pub struct Tuning {
    /// The longest that measuring may take.
    pub limit: Duration,
    /// Whether forms are considered that add in another order, so that the last bits of
    /// results differ from those of an untuned program.
    pub any_order: bool,
    /// The folder that keeps what was measured; nothing is kept without one.
    pub folder: Option<PathBuf>,
}

impl Default for Tuning {
    /// Ten seconds, the same bits, the user's folder of caches.
    fn default() -> Tuning {
        Tuning { limit: Duration::from_secs(10), any_order: false, folder: folder() }
    }
}

/// What was found of a kernel, or of the whole program.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Finding {
    /// What is computed.
    pub what: String,
    /// How often it is in the program.
    pub times: usize,
    /// Why it is uncertain that its ops are faster in one kernel, where it is.
    pub uncertain: Option<String>,
    /// How many forms there are.
    pub forms: usize,
    /// What won: the form's label, or nothing where the rule stays.
    pub choice: String,
    /// Seconds of a run by rule.
    pub rule: f64,
    /// Seconds of a run of what won.
    pub best: f64,
    /// Whether it was known from an earlier measurement.
    pub known: bool,
}

/// What tuning did.
#[derive(Clone, Debug, Default, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Tuned {
    /// Kernels, the most expensive first.
    pub kernels: Vec<Finding>,
    /// The program: `choice` is empty where the untuned one stays.
    pub program: Option<Finding>,
    /// Kernels for which time was too short.
    pub unmeasured: usize,
    /// What went wrong beside it, for people.
    pub complaints: Vec<String>,
}

/// Kernels that take less than this part of the program are left to rules.
const SMALL: f64 = 0.003;
/// Bytes of constants and results from which a kernel finds its operands far away.
const COLD: f64 = (1 << 20) as f64;
/// Of the time for a kernel, what goes to finding the best form; the rest to its duel
/// with the rule.
const SEARCH: f64 = 0.6;
/// Of the time left, what goes to kernels; the rest to the whole program.
const KERNELS: f64 = 0.75;

/// Kernels of one kind in a program.
struct Task {
    region: Region,
    sort: Option<Sort>,
    ways: Vec<Way>,
    uncertain: Option<&'static str>,
    /// The ops of each of them, by their places in the region.
    uses: Vec<Vec<NodeId>>,
}

struct Tuner<'a> {
    options: &'a Options,
    tuning: &'a Tuning,
    measure: &'a mut dyn Measure,
    book: Book,
    start: Instant,
    report: Tuned,
}

/// Plans a rewritten graph, by rule and by what is faster.
///
/// # Errors
/// When the graph cannot be planned or code cannot be generated.
pub(crate) fn tune(
    graph: &Graph,
    options: &Options,
    tuning: &Tuning,
    measure: &mut dyn Measure,
) -> Result<(Plan, Tuned), CompileError> {
    let (book, complaint) = Book::open(tuning.folder.as_deref(), &machine());
    let mut report = Tuned::default();
    report.complaints.extend(complaint.map(|e| e.to_string()));
    let start = Instant::now();
    let mut t = Tuner { options, tuning, measure, book, start, report };
    let rules = Choices::default();
    let mut choices = Choices::default();
    let legal = plan::legal(graph)?;
    if tuning.any_order && options.fusion {
        t.composites(&legal, &mut choices)?;
    }
    let g = plan::prepare(legal.clone(), options, &choices)?;
    t.clusters(&g, &mut choices)?;
    let plan = if choices.is_empty() {
        plan::lower(g, options, &rules)?
    } else {
        let by_rule = plan::lower(plan::prepare(legal, options, &rules)?, options, &rules)?;
        let tuned = plan::lower(g, options, &choices)?;
        if t.program(graph, &by_rule, &tuned)? { tuned } else { by_rule }
    };
    if let Err(e) = t.book.save() {
        t.report.complaints.push(e.to_string());
    }
    Ok((plan, t.report))
}

impl Tuner<'_> {
    fn left(&self) -> Duration {
        self.tuning.limit.saturating_sub(self.start.elapsed())
    }

    /// Composites that have a kernel in the library and are loops by rule, or the other
    /// way round.
    fn composites(&mut self, g: &Graph, choices: &mut Choices) -> Result<(), CompileError> {
        let mut tasks: BTreeMap<String, Task> = BTreeMap::new();
        for n in g.topological() {
            let Some(op) = g.op(n) else { continue };
            let types = &g.node(n).types;
            let single = types.len() == 1 && types[0].dtype == sinter_runtime::DType::F32;
            let way = forms::composite(op, types[0].shape.len()).filter(|_| single);
            let Some((way, region)) = way.zip(Region::new(g, &[n])) else { continue };
            let task = |region| Task {
                region,
                sort: None,
                ways: vec![way],
                uncertain: None,
                uses: vec![],
            };
            let key = region.graph.to_string();
            tasks.entry(key).or_insert_with(|| task(region)).uses.push(vec![n]);
        }
        self.all(tasks.into_values().collect(), choices, KERNELS / 3.0)
    }

    /// The kernels of a prepared graph.
    fn clusters(&mut self, g: &Graph, choices: &mut Choices) -> Result<(), CompileError> {
        let mut tasks: BTreeMap<String, Task> = BTreeMap::new();
        for (c, channels_last) in plan::clusters(g, self.options, choices) {
            // Alone, a convolution would not find its images with channels last.
            if c.sort == Sort::Library || channels_last {
                continue;
            }
            let Some(region) = Region::new(g, &c.nodes) else { continue };
            let key = region.graph.to_string();
            let task = |region: Region| {
                let sort = Some(c.sort.clone());
                Task { region, sort, ways: vec![], uncertain: None, uses: vec![] }
            };
            tasks.entry(key).or_insert_with(|| task(region)).uses.push(c.nodes.clone());
        }
        self.all(tasks.into_values().collect(), choices, KERNELS)
    }

    /// Settles tasks, the most expensive first, in a part of the time left.
    fn all(
        &mut self,
        mut tasks: Vec<Task>,
        choices: &mut Choices,
        part: f64,
    ) -> Result<(), CompileError> {
        let cost = |t: &Task| t.region.cost * t.uses.len() as f64;
        tasks.sort_by(|a, b| cost(b).total_cmp(&cost(a)));
        let all: f64 = tasks.iter().map(cost).sum();
        tasks.retain(|t| cost(t) >= all * SMALL);
        let held: f64 = tasks.iter().map(|t| held(&t.region.graph) * t.uses.len() as f64).sum();
        let end = self.start.elapsed() + self.left().mul_f64(part);
        let count = tasks.len();
        for (i, task) in tasks.into_iter().enumerate() {
            let left = end.saturating_sub(self.start.elapsed());
            // Those that come early may take more: they matter more.
            let share = (left / (count - i) as u32 * 2).min(left);
            let what = task.region.describe();
            self.measure.progress(self.start.elapsed(), self.tuning.limit, &what);
            let uses = task.uses.clone();
            if let Some(way) = self.one(task, share, held > COLD)? {
                for nodes in uses {
                    for (at, choice) in &way.choices {
                        choices.set(nodes[*at], choice.clone());
                    }
                }
            }
        }
        Ok(())
    }

    /// Finds the best way for one task, if there is a better one than the rule's.
    fn one(
        &mut self,
        mut task: Task,
        share: Duration,
        cold: bool,
    ) -> Result<Option<Way>, CompileError> {
        let Some((rule, scalar)) = self.by_rule(&mut task)? else { return Ok(None) };
        if let Some(sort) = &task.sort {
            let any_order = self.tuning.any_order;
            task.ways = forms::ways(&task.region, sort, &rule, scalar, any_order);
            task.uncertain = forms::uncertain(&task.region, &rule, scalar);
            if !self.options.fusion {
                task.ways.retain(|w| w.choices.iter().all(|(_, c)| !c.apart));
            }
        }
        let ways = &task.ways;
        if ways.is_empty() {
            return Ok(None);
        }
        let key = self.key(&task.region.graph, ways, cold);
        let finding = |choice: &str, rule: f64, best: f64, known: bool| Finding {
            what: task.region.describe(),
            times: task.uses.len(),
            uncertain: task.uncertain.map(str::to_string),
            forms: ways.len() + 1,
            choice: choice.to_string(),
            rule,
            best,
            known,
        };
        if let Some(e) = self.book.find(&key)
            && let Some(way) = named(ways, &e.choice)
        {
            let f = finding(&e.choice, e.rule_ns * 1e-9, e.best_ns * 1e-9, true);
            self.report.kernels.push(f);
            return Ok(way);
        }
        let none = || Ok(None);
        let Ok(inputs) = example_inputs(&task.region.graph) else { return none() };
        // Every form, the rule's first.
        let no_way = Way { label: String::new(), choices: vec![] };
        let mut programs = vec![];
        for way in std::iter::once(&no_way).chain(ways) {
            if let Some(p) = self.program_of(&task.region, way, &rule, &inputs)? {
                programs.push((way.clone(), p));
            }
        }
        if programs.first().is_none_or(|p| p.0 != no_way) {
            return none();
        }
        if !self.tuning.any_order {
            let Some(want) = bits(&programs[0].1, &inputs) else { return none() };
            programs.retain(|(_, p)| bits(p, &inputs).as_ref() == Some(&want));
        }
        let search = share.mul_f64(SEARCH);
        let what = task.region.describe();
        let Some(times) = self.rounds(&what, search, cold, &programs, &inputs) else {
            self.report.unmeasured += 1;
            return none();
        };
        let medians: Vec<f64> = times.iter().map(|t| median(t).unwrap_or(f64::INFINITY)).collect();
        let mut order: Vec<usize> = (1..medians.len()).collect();
        order.sort_by(|a, b| medians[*a].total_cmp(&medians[*b]));
        let better: Vec<usize> = order.into_iter().filter(|i| medians[*i] < medians[0]).collect();
        // The best two together may be better still.
        let mut duel = vec![programs[0].0.clone()];
        duel.extend(better.first().map(|&i| programs[i].0.clone()));
        if let [a, b, ..] = better[..]
            && let Some(both) = programs[a].0.and(&programs[b].0)
        {
            duel.push(both);
        }
        let mut won: Option<(Way, f64)> = None;
        let mut by_rule = medians[0];
        if duel.len() > 1 {
            let mut rivals = vec![];
            for way in duel {
                if let Some(p) = self.program_of(&task.region, &way, &rule, &inputs)? {
                    rivals.push((way, p));
                }
            }
            let limit = share.mul_f64(1.0 - SEARCH);
            let Some(times) = self.rounds(&what, limit, cold, &rivals, &inputs) else {
                self.report.unmeasured += 1;
                return none();
            };
            by_rule = median(&times[0]).unwrap_or(by_rule);
            for ((way, _), t) in rivals.into_iter().zip(&times).skip(1) {
                let time = median(t).unwrap_or(f64::INFINITY);
                if beats(t, &times[0]) && won.as_ref().is_none_or(|w| time < w.1) {
                    won = Some((way, time));
                }
            }
        }
        let (label, best) = match &won {
            Some((way, time)) => (way.label.as_str(), *time),
            None => ("", by_rule),
        };
        let f = finding(label, by_rule, best, false);
        self.book.note(key, entry(&f));
        self.report.kernels.push(f);
        Ok(won.map(|w| w.0))
    }

    /// The plan of a region by rule, and whether its loops are compiled element by
    /// element. `None` where it is not one kernel, as it was in the program.
    fn by_rule(&self, task: &mut Task) -> Result<Option<(Plan, bool)>, CompileError> {
        let rules = Choices::default();
        let g = plan::prepare(task.region.graph.clone(), self.options, &rules)?;
        if task.sort.is_some() && plan::clusters(&g, self.options, &rules).len() != 1 {
            return Ok(None);
        }
        let plan = plan::lower(g, self.options, &rules)?;
        let scalar = cpu::element_by_element(&plan, self.options.isa);
        Ok(Some((plan, scalar)))
    }

    /// A region's program in some way, or nothing where it cannot be run.
    fn program_of(
        &self,
        region: &Region,
        way: &Way,
        rule: &Plan,
        inputs: &[Array],
    ) -> Result<Option<Runner>, CompileError> {
        let only_cut = way
            .choices
            .iter()
            .all(|(_, c)| *c == plan::Choice { cut: c.cut, ..plan::Choice::default() });
        let plan = if only_cut {
            // The same but for a number: weights are not packed again.
            let mut plan = rule.clone();
            for step in &mut plan.program.steps {
                if let Step::Contract { cut, .. } = step {
                    *cut = way.choices.iter().find_map(|(_, c)| c.cut);
                }
            }
            plan
        } else {
            let mut choices = Choices::default();
            for (at, choice) in &way.choices {
                choices.set(region.ops[*at], choice.clone());
            }
            let g = plan::prepare(region.graph.clone(), self.options, &choices)?;
            plan::lower(g, self.options, &choices)?
        };
        Runner::new(&plan, self.options, inputs)
    }

    /// Times of programs in turns, or nothing where there was no time.
    fn rounds(
        &mut self,
        what: &str,
        limit: Duration,
        cold: bool,
        programs: &[(Way, Runner)],
        inputs: &[Array],
    ) -> Option<Vec<Vec<f64>>> {
        let refs: Vec<&Array> = inputs.iter().collect();
        let mut runs: Vec<_> = programs.iter().map(|(_, p)| || p.run(&refs)).collect();
        let mut forms: Vec<Form<'_>> = programs
            .iter()
            .zip(&mut runs)
            .map(|((way, _), run)| Form { label: &way.label, run })
            .collect();
        let times = self.measure.rounds(Problem { what, limit, cold }, &mut forms).ok()?;
        times.first().is_some_and(|t| !t.is_empty()).then_some(times)
    }

    /// Whether the tuned program is to stay: it is not slower than the one by rule.
    fn program(&mut self, graph: &Graph, rule: &Plan, tuned: &Plan) -> Result<bool, CompileError> {
        let label = "tuned";
        let choices: Vec<&str> = self.report.kernels.iter().map(|f| f.choice.as_str()).collect();
        let key = digest_of(&[&tuned.graph.to_string(), &choices.join("; "), &self.setting()]);
        let what = format!("the program {}", graph.name);
        let finding = |choice: &str, rule: f64, best: f64, known: bool| Finding {
            what: what.clone(),
            times: 1,
            uncertain: None,
            forms: 2,
            choice: choice.to_string(),
            rule,
            best,
            known,
        };
        if let Some(e) = self.book.find(&key) {
            let f = finding(&e.choice, e.rule_ns * 1e-9, e.best_ns * 1e-9, true);
            let stays = e.choice == label;
            self.report.program = Some(f);
            return Ok(stays);
        }
        self.measure.progress(self.start.elapsed(), self.tuning.limit, &what);
        let Ok(inputs) = example_inputs(graph) else { return Ok(true) };
        let mut programs = vec![];
        for (label, plan) in [("", rule), (label, tuned)] {
            let way = Way { label: label.to_string(), choices: vec![] };
            match Runner::new(plan, self.options, &inputs)? {
                Some(p) => programs.push((way, p)),
                None => return Ok(true),
            }
        }
        let limit = self.left();
        let Some(times) = self.rounds(&what, limit, false, &programs, &inputs) else {
            let why = "there was no time left to measure the whole program".to_string();
            self.report.complaints.push(why);
            return Ok(true);
        };
        let ratios: Vec<f64> = times[1].iter().zip(&times[0]).map(|(a, b)| a / b).collect();
        let stays = median(&ratios).is_some_and(|r| r <= 1.0);
        let [by_rule, in_tune] = [0, 1].map(|i| median(&times[i]).unwrap_or(f64::INFINITY));
        let f = match stays {
            true => finding(label, by_rule, in_tune, false),
            false => finding("", by_rule, by_rule, false),
        };
        self.book.note(key, entry(&f));
        self.report.program = Some(f);
        Ok(stays)
    }

    /// What else times depend on.
    fn setting(&self) -> String {
        let o = self.options;
        let (isa, precision) = (o.isa.name(), o.precision.name());
        let any_order = self.tuning.any_order;
        let (fusion, unit, threads) = (o.fusion, o.matrix_unit, par::threads());
        format!("{isa} {precision} unit {unit} fusion {fusion} any order {any_order} {threads}")
    }

    fn key(&self, g: &Graph, ways: &[Way], cold: bool) -> String {
        let labels: Vec<&str> = ways.iter().map(|w| w.label.as_str()).collect();
        let cold = if cold { "cold" } else { "warm" };
        digest_of(&[&g.to_string(), &labels.join("; "), &self.setting(), cold])
    }
}

fn digest_of(parts: &[&str]) -> String {
    book::digest(&parts.join("\n"))
}

fn entry(f: &Finding) -> Entry {
    let (rule_ns, best_ns) = (f.rule * 1e9, f.best * 1e9);
    Entry { what: f.what.clone(), choice: f.choice.clone(), rule_ns, best_ns }
}

/// The way of a label: one, or two together; `Some(None)` for the rule's.
fn named(ways: &[Way], label: &str) -> Option<Option<Way>> {
    if label.is_empty() {
        return Some(None);
    }
    let pairs = || ways.iter().flat_map(|a| ways.iter().filter_map(|b| a.and(b)));
    ways.iter().cloned().chain(pairs()).find(|w| w.label == label).map(Some)
}

/// Bytes that a kernel's operands, constants among them, and results take.
fn held(g: &Graph) -> f64 {
    let nodes = g
        .topological()
        .into_iter()
        .filter(|n| g.op(*n).is_none() || g.is_output(crate::graph::Value { node: *n, output: 0 }));
    nodes.flat_map(|n| &g.node(n).types).map(|t| crate::cost::bytes(t, &[])).sum()
}

/// A program ready to run again and again.
struct Runner {
    model: Model,
    outputs: Vec<Array>,
}

impl Runner {
    fn new(
        plan: &Plan,
        options: &Options,
        inputs: &[Array],
    ) -> Result<Option<Runner>, CompileError> {
        let (code, _) = cpu::jit(plan, options.isa)?;
        let model = Model::new(plan.program.clone(), code, plan.constants.clone())?;
        // What these numbers do not suit is not measured.
        let refs: Vec<&Array> = inputs.iter().collect();
        Ok(model.run(&refs).ok().map(|outputs| Runner { model, outputs }))
    }

    fn run(&self, inputs: &[&Array]) -> Result<(), RunError> {
        let outputs: Vec<&Array> = self.outputs.iter().collect();
        self.model.run_into(inputs, &outputs)
    }
}

/// The results for these inputs, bit by bit.
fn bits(p: &Runner, inputs: &[Array]) -> Option<Vec<Vec<u8>>> {
    let refs: Vec<&Array> = inputs.iter().collect();
    p.run(&refs).ok()?;
    Some(p.outputs.iter().map(|a| a.to_bytes().to_vec()).collect())
}
