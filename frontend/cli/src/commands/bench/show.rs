//! Results as tables.

use super::machine::Machine;
use super::stats::Estimate;
use super::{AtSize, Ratio, StepResult};
use crate::commands::{align, table};
use comfy_table::{CellAlignment, Table};

/// The machine's limits.
pub fn machine(m: &Machine) {
    println!("this machine: {} thread(s), {}, {:.0} GFLOP/s", m.threads, m.isa, m.flops / 1e9);
    for b in &m.bandwidth {
        println!(
            "  {:>7.1} MB read again and again: {:.1} GB/s",
            b.bytes as f64 / 1e6,
            b.rate / 1e9
        );
    }
}

/// What was measured with one size.
pub fn at_size(r: &AtSize) {
    let sizes: Vec<String> = r.sizes.iter().map(|(s, n)| format!("{s} = {n}")).collect();
    println!("\n{}", if sizes.is_empty() { "fixed sizes".to_string() } else { sizes.join(", ") });
    let mut t = table(["", "median", "between (95 %)"]);
    for (name, e) in &r.forms {
        t.add_row([(*name).to_string(), time(e.value), between(e)]);
    }
    println!("{t}");
    for ratio in &r.ratios {
        println!("{}", sentence(ratio));
    }
    for (name, steps) in &r.steps {
        println!("\n{name}, step by step");
        println!("{}", step_table(steps));
    }
    of_limit();
}

/// What that column means.
pub fn of_limit() {
    println!(
        "of limit: the least time this machine could take for the bytes and operations, of the time\n\
         taken; above 100 % where an algorithm needs fewer operations than the op's definition"
    );
}

fn sentence(r: &Ratio) -> String {
    let Ratio { fast, slow, ratio: e, certain } = r;
    if !certain {
        return format!(
            "can't tell {fast} from {slow}: the ratio is between {:.2} and {:.2}",
            e.low, e.high
        );
    }
    let (fast, slow, e) = if e.value >= 1.0 {
        (fast, slow, *e)
    } else {
        (slow, fast, Estimate { value: 1.0 / e.value, low: 1.0 / e.high, high: 1.0 / e.low })
    };
    format!(
        "{fast} is {:.2} times as fast as {slow} (between {:.2} and {:.2})",
        e.value, e.low, e.high
    )
}

/// Of the table of steps.
const COLUMNS: usize = 10;

/// The steps of a program.
pub fn step_table(steps: &[StepResult]) -> Table {
    let mut t = table::<COLUMNS>([
        "step",
        "",
        "time",
        "between (95 %)",
        "share",
        "MB",
        "MFLOP",
        "GB/s",
        "GFLOP/s",
        "of limit",
    ]);
    let total: f64 = steps.iter().map(|s| s.time.value).sum();
    for (i, s) in steps.iter().enumerate() {
        let rate =
            |n: f64| if n > 0.0 { format!("{:.1}", n / s.time.value / 1e9) } else { "–".into() };
        t.add_row([
            i.to_string(),
            s.name.clone(),
            time(s.time.value),
            between(&s.time),
            format!("{:.0} %", s.time.value / total * 100.0),
            format!("{:.2}", s.work.bytes / 1e6),
            format!("{:.2}", s.work.flops / 1e6),
            rate(s.work.bytes),
            rate(s.work.flops),
            format!("{:.0} %", s.of_limit * 100.0),
        ]);
    }
    for column in 2..COLUMNS {
        align(&mut t, column, CellAlignment::Right);
    }
    t
}

fn time(seconds: f64) -> String {
    if seconds < 1e-3 {
        format!("{:.2} µs", seconds * 1e6)
    } else {
        format!("{:.3} ms", seconds * 1e3)
    }
}

fn between(e: &Estimate) -> String {
    format!("{} – {}", time(e.low), time(e.high))
}
