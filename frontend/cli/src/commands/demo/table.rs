//! The comparison: eager, compiled unfused, compiled fused.

use super::measure::Figures;
use crate::commands::{align, table};
use comfy_table::CellAlignment;
use std::time::Duration;

/// A form of the network with everything known about it.
pub struct Row {
    /// What people call it.
    pub name: &'static str,
    /// Measured in fresh processes.
    pub figures: Figures,
    /// Compiled: from the network to code ready to run.
    pub compile_time: Option<Duration>,
    /// Compiled: size of the file in bytes.
    pub bytes: Option<u64>,
}

/// A column: a number of each row, and how it is written.
pub struct Column {
    /// Its title.
    pub name: &'static str,
    /// The number, where the row has one.
    pub value: fn(&Row) -> Option<f64>,
    /// The number as people read it.
    pub show: fn(f64) -> String,
    /// Whether more is better.
    pub more: bool,
}

fn time(seconds: f64) -> String {
    format!("{:.3} ms", seconds * 1e3)
}

fn megabytes(bytes: f64) -> String {
    format!("{:.1} MB", bytes / 1e6)
}

/// All columns.
pub const COLUMNS: [Column; 6] = [
    Column {
        name: "latency, batch 1",
        value: |r| Some(r.figures.latency[0].as_secs_f64()),
        show: time,
        more: false,
    },
    Column {
        name: "latency, batch 64",
        value: |r| Some(r.figures.latency[1].as_secs_f64()),
        show: time,
        more: false,
    },
    Column {
        name: "images/s",
        value: |r| Some(r.figures.rate()),
        show: |v| format!("{v:.0}"),
        more: true,
    },
    Column {
        name: "peak memory",
        value: |r| Some(r.figures.peak as f64),
        show: megabytes,
        more: false,
    },
    Column {
        name: "compile time",
        value: |r| r.compile_time.map(|t| t.as_secs_f64()),
        show: time,
        more: false,
    },
    Column { name: "artifact", value: |r| r.bytes.map(|b| b as f64), show: megabytes, more: false },
];

impl Column {
    /// The number of a row as people read it.
    pub fn text(&self, row: &Row) -> String {
        (self.value)(row).map_or("–".to_string(), self.show)
    }
}

/// The table for a terminal.
pub fn text(rows: &[Row]) -> String {
    let mut heads = [""; COLUMNS.len() + 1];
    for (head, c) in heads[1..].iter_mut().zip(&COLUMNS) {
        *head = c.name;
    }
    let mut t = table(heads);
    for r in rows {
        let numbers = COLUMNS.iter().map(|c| c.text(r));
        t.add_row(std::iter::once(r.name.to_string()).chain(numbers));
    }
    for column in 1..heads.len() {
        align(&mut t, column, CellAlignment::Right);
    }
    t.to_string()
}
