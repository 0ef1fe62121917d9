//! The comparison as a table in Markdown, losses as plainly as wins.

use super::{Comparison, time, verdict};
use anyhow::Context;
use std::fmt::Write as _;
use std::io::Write as _;
use std::path::Path;

/// Writes the table.
pub fn write(all: &Comparison, path: &Path) -> anyhow::Result<()> {
    let text = text(all)?;
    sinter_runtime::file::write_atomic(path, |f| f.write_all(text.as_bytes()))
        .with_context(|| format!("writing {}", path.display()))
}

fn text(all: &Comparison) -> Result<String, std::fmt::Error> {
    let mut out = format!(
        "# The suite beside its peers\n\n{}\n\n{}\n\n\
         | case | engine | time | × Sinter (95 %) | compiled in | error |\n\
         |---|---|--:|---|--:|--:|\n",
        all.overall(),
        all.conditions(),
    );
    for c in &all.cases {
        for r in &c.runs {
            writeln!(
                out,
                "| {} | {} | {} | {} | {} | {} |",
                c.case,
                r.engine,
                time(r.time.value),
                r.ratio.as_ref().map_or(String::new(), verdict),
                r.compile_ms.map_or(String::new(), time),
                r.max_error.map_or(String::new(), |e| format!("{e:.1e}")),
            )?;
        }
        for (engine, why) in &c.without {
            writeln!(out, "| {} | {engine} | – | {} | | |", c.case, why.replace('|', "/"))?;
        }
    }
    Ok(out)
}
