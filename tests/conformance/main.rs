//! Sinter against PyTorch's own operator tests, name by name.
//!
//! `make.py` writes what PyTorch 2.15 computes from the sample inputs of its list of
//! operators; the modules here say how each is computed with Sinter. Every case must
//! give PyTorch's values, again where the inputs' memory is not dense, and PyTorch's
//! gradients. `opinfo.tsv` goes through the whole list: what is supported, what is a
//! composite, what is not there and why. With `CONFORMANCE=update` in the environment
//! the table's first two kinds are written anew; with another text only the operators
//! with that text in their names run.

mod args;
mod cases;
mod registry;

mod contract;
mod fft;
mod index;
mod linalg;
mod masked;
mod nn;
mod pointwise;
mod random;
mod reduce;
mod shape;
mod spatial;
mod special;

use args::{Args, Skipped};
use cases::{Case, Expected};
use registry::{Entry, Registry};
use sinter::autograd::gradgradcheck;
use sinter::{DType, Tensor, from_slice};
use sinter_tests::{Tolerance, compare, scattered};
use std::any::Any;
use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::OnceLock;

const AREAS: [&str; 9] =
    ["pointwise", "special", "reduce", "tensor", "linalg", "fft", "nn", "random", "masked"];

fn registry() -> Registry {
    let mut r = Registry::default();
    pointwise::register(&mut r);
    special::register(&mut r);
    reduce::register(&mut r);
    shape::register(&mut r);
    index::register(&mut r);
    contract::register(&mut r);
    linalg::register(&mut r);
    fft::register(&mut r);
    nn::register(&mut r);
    spatial::register(&mut r);
    random::register(&mut r);
    masked::register(&mut r);
    r
}

/// What became of the cases.
#[derive(Default)]
struct Report {
    /// Cases that ran, by operator.
    ran: BTreeMap<String, usize>,
    /// Cases that were not run, by operator and reason.
    skipped: BTreeMap<(String, String), usize>,
    /// What was wrong, by operator.
    wrong: BTreeMap<String, Vec<String>>,
    /// Every operator that has a case.
    names: BTreeSet<String>,
}

/// How near results have to be. PyTorch's values have errors of their own.
fn tolerance(entry: &Entry, d: DType) -> Tolerance {
    if d.is_half() {
        return entry.half.unwrap_or(Tolerance { largest: 1.0, ..Tolerance::units(2.0) });
    }
    if d.is_complex() {
        // Errors of either part are relative to the number.
        return Tolerance { own: 256.0, largest: 64.0, one: 0.0 };
    }
    if let (DType::F64, Some(t)) = (d, entry.double) {
        return t;
    }
    entry.tolerance.unwrap_or(Tolerance { own: 8.0, largest: 4.0, one: 0.0 })
}

thread_local! {
    static PANIC: RefCell<String> = const { RefCell::new(String::new()) };
    static CATCHING: Cell<bool> = const { Cell::new(false) };
}

/// Keeps what panics say while something runs that may.
fn quiet() {
    static ONCE: OnceLock<()> = OnceLock::new();
    ONCE.get_or_init(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if !CATCHING.get() {
                return before(info);
            }
            let text = info.payload_as_str().unwrap_or("?").to_string();
            let place = info.location().map_or(String::new(), |l| format!(" ({l})"));
            PANIC.with(|p| p.replace(text + &place));
        }));
    });
}

/// Runs something that may panic.
fn caught<R>(f: impl FnOnce() -> R) -> Result<R, Failure> {
    quiet();
    CATCHING.set(true);
    let result = catch_unwind(AssertUnwindSafe(f));
    CATCHING.set(false);
    result.map_err(|e: Box<dyn Any + Send>| match e.downcast::<Skipped>() {
        Ok(s) => Failure::Skipped(s.0.to_string()),
        Err(_) => Failure::Wrong(format!("panics: {}", PANIC.with(|p| p.take()))),
    })
}

enum Failure {
    Skipped(String),
    Wrong(String),
}

fn arguments(case: &Case, tensors: Vec<Tensor>) -> Args {
    Args {
        list: case.list.clone(),
        named: case.named.clone(),
        tensors,
        dtype: case.dtype,
        read: RefCell::default(),
    }
}

fn check(entry: &Entry, got: &[Tensor], want: &[Expected]) -> Result<(), Failure> {
    if got.len() != want.len() {
        return Err(Failure::Wrong(format!("{} results, expected {}", got.len(), want.len())));
    }
    for (i, (g, w)) in got.iter().zip(want).enumerate() {
        let error = match w {
            Expected::Values(w) => compare(g.array(), w, tolerance(entry, w.dtype())),
            Expected::Kind(d, s) => (g.dtype() != *d || g.shape() != s)
                .then(|| format!("{} {:?}, expected {d} {s:?}", g.dtype(), g.shape())),
        };
        if let Some(e) = error {
            return Err(Failure::Wrong(format!("result {i}: {e}")));
        }
    }
    Ok(())
}

/// The weights that `make.py` sums results with.
fn weights(like: &Tensor) -> Tensor {
    let w: Vec<f64> = (0..like.numel()).map(|k| (((k * 7 + 3) % 11) as f64 - 5.0) / 4.0).collect();
    from_slice(&w, like.shape())
}

/// The sum that `make.py` differentiates.
fn weighted(x: &Tensor) -> Tensor {
    let w = weights(x);
    if !x.is_complex() {
        return (x * w).sum();
    }
    let all: Vec<i64> = (0..x.rank() as i64).collect();
    (x.real() * &w).sum() + (x.imag() * w.flip(all)).sum()
}

fn gradients(entry: &Entry, case: &Case) -> Result<(), Failure> {
    let tensors: Vec<Tensor> = (case.tensors.iter().enumerate())
        .map(|(i, a)| {
            let wanted = case.grads.iter().any(|(j, _)| *j == i);
            Tensor::from_array(a.clone()).requires_grad_(wanted)
        })
        .collect();
    let leaves: Vec<&Tensor> = case.grads.iter().map(|(i, _)| &tensors[*i]).collect();
    let got = caught(|| {
        let out = (entry.run)(&arguments(case, tensors.clone()));
        let parts = case.diff.iter().map(|&i| weighted(&out[i]));
        let loss = parts.reduce(|a, b| a + b).expect("a result is differentiable");
        sinter::grad(&[&loss], &leaves, false)
    })?;
    for ((i, want), got) in case.grads.iter().zip(got) {
        let got = got.unwrap_or_else(|| sinter::zeros_like(&tensors[*i]));
        let near = Tolerance { own: 1e6, largest: 1e5, one: 1e4 };
        if let Some(e) = compare(got.array(), want, near) {
            return Err(Failure::Wrong(format!("gradient by tensor {i}: {e}")));
        }
    }
    Ok(())
}

/// Runs a case in every way.
fn run(entry: &Entry, case: &Case) -> Result<(), Failure> {
    let Some(want) = &case.out else {
        return Err(Failure::Skipped("an element type that Sinter lacks".to_string()));
    };
    let dense: Vec<Tensor> = case.tensors.iter().cloned().map(Tensor::from_array).collect();
    let args = arguments(case, dense);
    if let Some((reason, _)) = entry.skips.iter().find(|(_, which)| which(&args)) {
        return Err(Failure::Skipped((*reason).to_string()));
    }
    check(entry, &caught(|| (entry.run)(&args))?, want)?;
    let unread = args.unread();
    if !unread.is_empty() {
        return Err(Failure::Wrong(format!("ignores {}", unread.join(", "))));
    }
    if !entry.dense {
        let tensors = case.tensors.iter().map(|a| Tensor::from_array(scattered(a))).collect();
        let args = arguments(case, tensors);
        caught(|| (entry.run)(&args)).and_then(|got| check(entry, &got, want)).map_err(
            |e| match e {
                Failure::Wrong(e) => Failure::Wrong(format!("not dense: {e}")),
                skipped => skipped,
            },
        )?;
    }
    if !case.grads.is_empty() && entry.no_gradient.is_none() {
        gradients(entry, case)?;
    }
    Ok(())
}

fn filter() -> Option<String> {
    std::env::var("CONFORMANCE").ok().filter(|f| f != "update")
}

fn report() -> &'static Report {
    static REPORT: OnceLock<Report> = OnceLock::new();
    REPORT.get_or_init(|| {
        let registry = registry();
        let filter = filter();
        let mut report = Report::default();
        for area in AREAS {
            for case in cases::load(area) {
                if filter.as_ref().is_some_and(|f| !case.op.contains(f.as_str())) {
                    continue;
                }
                report.names.insert(case.op.clone());
                let Some(entry) = registry.entries.get(case.op.as_str()) else { continue };
                match run(entry, &case) {
                    Ok(()) => *report.ran.entry(case.op).or_default() += 1,
                    Err(Failure::Skipped(why)) => {
                        *report.skipped.entry((case.op, why)).or_default() += 1;
                    }
                    Err(Failure::Wrong(e)) => {
                        let text: String = case.text.chars().take(160).collect();
                        report
                            .wrong
                            .entry(case.op)
                            .or_default()
                            .push(format!("{e}\n        in {text}"));
                    }
                }
            }
        }
        report
    })
}

#[test]
fn values_and_gradients_are_those_of_pytorch() {
    let r = report();
    let skipped: usize = r.skipped.values().sum();
    let ran: usize = r.ran.values().sum();
    println!("{ran} cases of {} operators ran, {skipped} were skipped:", r.ran.len());
    for ((op, why), n) in &r.skipped {
        println!("    {op}: {n} ({why})");
    }
    let number: usize = r.wrong.values().map(Vec::len).sum();
    let list: Vec<String> = (r.wrong.iter())
        .map(|(op, all)| {
            let some: Vec<&str> = all.iter().map(String::as_str).take(4).collect();
            format!("{op}: {} cases\n    {}", all.len(), some.join("\n    "))
        })
        .collect();
    assert!(number == 0, "{number} cases of {} operators differ:\n{}", list.len(), list.join("\n"));
}

/// PyTorch's values end with first derivatives. Second ones are checked against
/// differences: of each operator its smallest case in f64.
#[test]
fn second_derivatives_are_those_of_differences() {
    let registry = registry();
    let filter = filter();
    let mut smallest: BTreeMap<String, Case> = BTreeMap::new();
    let size = |c: &Case| c.grads.iter().map(|(i, _)| c.tensors[*i].numel()).sum::<usize>();
    for case in AREAS.iter().flat_map(|area| cases::load(area)) {
        let wanted = filter.as_ref().is_none_or(|f| case.op.contains(f.as_str()));
        let n = size(&case);
        if !wanted || case.out.is_none() || case.dtype != Some(DType::F64) || !(2..=40).contains(&n)
        {
            continue;
        }
        let Some(entry) = registry.entries.get(case.op.as_str()) else { continue };
        let args = arguments(&case, case.tensors.iter().cloned().map(Tensor::from_array).collect());
        let complex = case.out.iter().flatten().any(|o| match o {
            Expected::Values(a) => a.dtype().is_complex(),
            Expected::Kind(d, _) => d.is_complex(),
        });
        let skipped =
            complex || entry.no_second.is_some() || entry.skips.iter().any(|(_, w)| w(&args));
        if skipped || smallest.get(&case.op).is_some_and(|c| size(c) <= n) {
            continue;
        }
        smallest.insert(case.op.clone(), case);
    }
    let mut wrong = Vec::new();
    let mut checked = 0;
    for (op, case) in &smallest {
        let entry = &registry.entries[op.as_str()];
        let tensors: Vec<Tensor> = case.tensors.iter().cloned().map(Tensor::from_array).collect();
        let f = |xs: &[Tensor]| {
            let mut all = tensors.clone();
            for ((i, _), x) in case.grads.iter().zip(xs) {
                all[*i] = x.clone();
            }
            let out = (entry.run)(&arguments(case, all));
            case.diff.iter().map(|&i| out[i].clone()).collect::<Vec<_>>()
        };
        let leaves: Vec<Tensor> =
            (case.grads.iter()).map(|(i, _)| tensors[*i].copy().requires_grad_(true)).collect();
        match caught(|| gradgradcheck(f, &leaves)) {
            Ok(Ok(())) => checked += 1,
            Ok(Err(e)) => wrong.push(format!("{op}: {e}\n    in {}", case.text)),
            Err(Failure::Skipped(_)) => {}
            Err(Failure::Wrong(e)) => wrong.push(format!("{op}: {e}\n    in {}", case.text)),
        }
    }
    println!("second derivatives of {checked} operators");
    assert!(wrong.is_empty(), "{} operators:\n{}", wrong.len(), wrong.join("\n"));
}

/// One line of the table: name, status, note.
fn table() -> Vec<(String, String, String)> {
    let text = std::fs::read_to_string(table_path()).expect("the table is there");
    let part = |l: &str| -> (String, String, String) {
        let mut p = l.splitn(3, '\t').map(str::to_string);
        let mut next = || p.next().unwrap_or_default();
        (next(), next(), next())
    };
    text.lines().filter(|l| !l.starts_with('#')).map(part).collect()
}

fn table_path() -> std::path::PathBuf {
    std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("conformance/opinfo.tsv")
}

/// How much of PyTorch's list is there, at least. It only rises.
const SHARE: f64 = 0.96;

#[test]
fn the_table_agrees_with_the_registry() {
    if filter().is_some() {
        return;
    }
    let r = report();
    let registry = registry();
    let mut table = table();
    if std::env::var("CONFORMANCE").is_ok_and(|f| f == "update") {
        for (name, status, note) in &mut table {
            match registry.entries.get(name.as_str()) {
                Some(entry) if r.ran.contains_key(name) => {
                    *status = entry.composite.map_or("supported", |_| "composite").to_string();
                    *note = entry.composite.unwrap_or_default().to_string();
                }
                _ if status != "no" => {
                    *status = "no".to_string();
                    *note = "not there yet".to_string();
                }
                _ => {}
            }
        }
        let head = "# Every entry of PyTorch 2.15's `op_db`: name, whether it is there, of what or why not.\n";
        let lines: String = table
            .iter()
            .map(|(n, s, w)| format!("{n}\t{s}\t{w}").trim_end().to_string() + "\n")
            .collect();
        std::fs::write(table_path(), head.to_string() + &lines).expect("the table can be written");
    }
    let mut wrong = Vec::new();
    let mut there = 0;
    for (name, status, note) in &table {
        let entry = registry.entries.get(name.as_str());
        let expected = match entry {
            Some(_) if !r.ran.contains_key(name) => {
                wrong.push(format!("{name}: no case of it ran"));
                continue;
            }
            Some(e) => e.composite.map_or("supported", |_| "composite"),
            None => "no",
        };
        if status != expected {
            wrong.push(format!("{name} is `{status}` in the table, `{expected}` in the registry"));
        }
        if status != "supported" && note.is_empty() {
            wrong.push(format!("{name}: `{status}` needs a note"));
        }
        there += usize::from(expected != "no");
    }
    let listed: BTreeSet<&str> = table.iter().map(|(n, ..)| n.as_str()).collect();
    for name in registry.entries.keys().filter(|n| !listed.contains(*n)) {
        wrong.push(format!("{name} is in the registry, but not in the table"));
    }
    for name in r.names.iter().filter(|n| !listed.contains(n.as_str())) {
        wrong.push(format!("{name} has cases, but is not in the table"));
    }
    let share = there as f64 / table.len() as f64;
    println!("{there} of {} operators are there: {:.1} %", table.len(), 100.0 * share);
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert_eq!(table.len(), 703, "PyTorch's list has 703 entries");
    assert!(share >= SHARE, "{share} of the list is there, it was {SHARE}");
}
