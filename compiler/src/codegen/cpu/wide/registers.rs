//! Which values of a stage stay in registers, and how many registers go through
//! its loop together.

use super::VIRTUAL;
use super::asm::Src;
use crate::codegen::cpu::micro::{Block, Id, Micro, Scalarised};

/// Where a value is while a stage is emitted.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(super) enum Place {
    /// One register for each of the registers processed together.
    Regs([u8; 4]),
    /// The same in all.
    Pinned(u8),
    /// A constant in memory.
    Memory(u32),
    Nowhere,
}

/// The registers of a stage.
pub(super) struct Plan {
    /// Registers processed together in the main loop.
    pub(super) unroll: usize,
    /// Values loaded before the loop.
    pub(super) fixed: Vec<Id>,
    /// Constants kept in registers.
    pub(super) pinned: Vec<Id>,
    /// The operation after which each value is not needed; what is stored, reduced
    /// or a result is needed to the end.
    pub(super) last: Vec<usize>,
}

impl Plan {
    /// Plans a block on a machine of `registers` registers of `lanes` lanes, when
    /// `accumulators` of them are taken. `moves` says which arguments move along the
    /// row; in a row stage none does. At most `most` registers go together.
    pub(super) fn new(
        b: &Block,
        (registers, lanes): (usize, usize),
        accumulators: usize,
        moves: Option<&[bool]>,
        most: usize,
    ) -> Result<Plan, Scalarised> {
        // Row values and operands that do not move are the same all along a row.
        let fixed: Vec<Id> = (0..b.ops.len() as Id)
            .filter(|&i| match b.ops[i as usize] {
                Micro::Row(_) => true,
                Micro::Load(a) => moves.is_none_or(|m| !m[a as usize]),
                _ => false,
            })
            .collect();
        let last = last_uses(b);
        let temps = peak(b, &fixed, &last);
        let widths: &[usize] = if moves.is_none() { &[1] } else { &[4, 2, 1] };
        let unroll = widths
            .iter()
            .copied()
            .filter(|u| *u <= (VIRTUAL / lanes).min(most.max(1)))
            .find(|u| temps * u + fixed.len() + accumulators <= registers)
            .ok_or_else(|| {
                Scalarised(format!(
                    "it needs {} registers of {registers}",
                    temps + fixed.len() + accumulators
                ))
            })?;
        let spare = registers - temps * unroll - fixed.len() - accumulators;
        let pinned = constants_by_use(b).into_iter().take(spare).collect();
        Ok(Plan { unroll, fixed, pinned, last })
    }
}

/// Constants, the most used first.
fn constants_by_use(b: &Block) -> Vec<Id> {
    let mut uses = vec![0usize; b.ops.len()];
    for u in b.ops.iter().flat_map(Micro::uses) {
        uses[u as usize] += 1;
    }
    let mut constants: Vec<Id> =
        (0..b.ops.len() as Id).filter(|&i| matches!(b.ops[i as usize], Micro::Const(_))).collect();
    constants.sort_by_key(|&c| (std::cmp::Reverse(uses[c as usize]), c));
    constants
}

fn last_uses(b: &Block) -> Vec<usize> {
    let mut last = vec![0; b.ops.len()];
    for (i, op) in b.ops.iter().enumerate() {
        for u in op.uses() {
            last[u as usize] = i;
        }
    }
    let sinks = (b.stores.iter().map(|s| s.1))
        .chain(b.reductions.iter().map(|r| r.1))
        .chain(b.results.iter().copied());
    for v in sinks {
        last[v as usize] = usize::MAX;
    }
    last
}

/// The most registers alive at once, counted as [`Emitter::body`](super::Emitter) allocates: a
/// result takes a register before its operands give theirs back.
fn peak(b: &Block, fixed: &[Id], last: &[usize]) -> usize {
    let temporary = |i: Id| {
        !fixed.contains(&i) && !matches!(b.ops[i as usize], Micro::Const(_) | Micro::Row(_))
    };
    let (mut live, mut peak) = (0usize, 0usize);
    for (i, op) in b.ops.iter().enumerate() {
        if !temporary(i as Id) {
            continue;
        }
        live += 1;
        peak = peak.max(live);
        let mut used: Vec<Id> = op.uses().filter(|&u| temporary(u)).collect();
        used.sort_unstable();
        used.dedup();
        live -= used.iter().filter(|&&u| last[u as usize] == i).count();
    }
    peak
}

/// A value as the operand of an instruction, in the `q`-th of the registers that
/// go through together.
pub(super) fn src(places: &[Place], id: Id, q: usize) -> Src {
    match places[id as usize] {
        Place::Regs(r) => Src::Reg(r[q]),
        Place::Pinned(r) => Src::Reg(r),
        Place::Memory(bits) => Src::Const(bits),
        Place::Nowhere => unreachable!("operands come before their users"),
    }
}
