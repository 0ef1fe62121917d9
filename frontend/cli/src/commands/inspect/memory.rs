//! The memory plan as a drawing in text.

use comfy_table::CellAlignment;
use sinter_runtime::program::{Place, Program, RunError};

/// Steps drawn side by side at most; longer programs are drawn coarser.
const WIDTH: usize = 64;

/// Temporaries with their places in the arena and the steps they live through, for
/// the sizes that costs were estimated for; the arena for the largest sizes.
pub fn drawing(p: &Program) -> Result<String, RunError> {
    let hints: Vec<usize> = p.symbols.iter().map(|s| s.hint).collect();
    let temporaries = p.temporaries(&hints)?;
    let plan = p.memory(&hints)?;
    let constants: usize = p
        .buffers
        .iter()
        .filter(|b| matches!(b.place, Place::Constant(_)))
        .filter_map(|b| Some(b.len.eval(&hints)? * b.dtype.size()))
        .sum();
    let at = |sizes: &[usize]| {
        let sizes: Vec<String> =
            p.symbols.iter().zip(sizes).map(|(s, n)| format!("{} = {n}", s.name)).collect();
        if sizes.is_empty() { String::new() } else { format!(" for {}", sizes.join(", ")) }
    };
    let mut out = format!(
        "constants {constants} bytes; arena {} bytes{} ({} without sharing)\n",
        plan.total,
        at(&hints),
        plan.unshared
    );
    let most: Vec<usize> = p.symbols.iter().map(|s| s.max).collect();
    if most != hints {
        let arena = match p.memory(&most) {
            Ok(m) => format!("arena {} bytes{}\n", m.total, at(&most)),
            Err(_) => format!("arena beyond memory{}\n", at(&most)),
        };
        out += &arena;
    }
    if temporaries.is_empty() {
        return Ok(out);
    }
    let steps = p.steps.len();
    let column = |step: usize| step * WIDTH.min(steps) / steps;
    let mut table = super::super::table(["buffer", "offset", "bytes", "steps"]);
    for ((buffer, life), offset) in temporaries.iter().zip(&plan.offsets) {
        let (first, last) = (column(life.first as usize), column(life.last as usize));
        let bar: String = (0..WIDTH.min(steps))
            .map(|c| if (first..=last).contains(&c) { '█' } else { '·' })
            .collect();
        table.add_row([format!("b{buffer}"), offset.to_string(), life.bytes.to_string(), bar]);
    }
    for c in [1, 2] {
        super::super::align(&mut table, c, CellAlignment::Right);
    }
    Ok(format!("{out}{table}\n"))
}
