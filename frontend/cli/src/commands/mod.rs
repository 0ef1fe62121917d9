//! One module for each command, and what they share.

pub mod bench;
mod calibrate;
pub mod compile;
pub mod demo;
mod files;
pub mod inspect;
pub mod run;
pub mod tune;
pub mod verify;

use comfy_table::{CellAlignment, Table, TableComponent, presets};
use sinter_compiler::Precision;

/// A table with these column heads, borders only where they separate.
pub fn table<const N: usize>(heads: [&str; N]) -> Table {
    let mut t = Table::new();
    t.load_preset(presets::UTF8_HORIZONTAL_ONLY).set_header(heads);
    t.remove_style(TableComponent::HorizontalLines);
    t.remove_style(TableComponent::MiddleIntersections);
    t
}

/// Aligns a column.
pub fn align(t: &mut Table, column: usize, how: CellAlignment) {
    if let Some(c) = t.column_mut(column) {
        c.set_cell_alignment(how);
    }
}

/// The precision of that name, for command lines.
pub fn precision(name: &str) -> Result<Precision, String> {
    let names = || Precision::ALL.map(Precision::name).join(", ");
    Precision::ALL
        .into_iter()
        .find(|p| p.name() == name)
        .ok_or_else(|| format!("the precisions are {}", names()))
}
