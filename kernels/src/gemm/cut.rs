//! How a product is cut into passes, blocks and pieces.

use super::JOB;
use super::kernel::{MR, NR};

/// How a product is cut. Every cut gives the same bits: each element is one chain in
/// the order of `k`, whoever computes it when.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub struct Cut {
    /// Steps of `k` in one pass over a tile, at most. Every pass loads and stores the
    /// tile of the output.
    pub steps: usize,
    /// Numbers of the left operand in a block of rows, which the second-level cache
    /// keeps.
    pub rows: usize,
    /// Numbers of the right operand packed at a time, where there are several blocks
    /// of rows.
    pub panels: usize,
    /// Multiply-adds worth a thread's attention.
    pub job: usize,
    /// With so many rows at most, a right operand is read where it lies, not packed; with
    /// two tiles of rows always.
    pub in_place: usize,
}

impl Cut {
    /// What serves most products on most machines: passes are long, a block of rows
    /// takes 256 KiB, packed panels take 2 MiB, a piece some 5 µs.
    pub const RULE: Cut =
        Cut { steps: 1024, rows: 64 << 10, panels: 512 << 10, job: JOB, in_place: 2 * MR };

    /// Rows up to which a right operand is read where it lies. What is packed is so by a
    /// tile of some height, which is the first of three or more.
    pub(crate) fn in_place(&self) -> usize {
        self.in_place.max(2 * MR)
    }

    /// The blocks of a product with so many rows, steps and panels.
    pub(crate) fn blocks(&self, rows: usize, k: usize, panels: usize) -> Blocks {
        let passes = k.div_ceil(self.steps.max(1)).max(1);
        let kc = k.div_ceil(passes);
        let blocks = rows.div_ceil((self.rows / kc.max(1)).max(MR)).max(1);
        let block = rows.div_ceil(blocks).next_multiple_of(MR);
        // One block of rows uses a packed panel once: there is no need to keep it.
        let group = match blocks {
            1 => panels,
            _ => (self.panels / (kc * NR).max(1)).clamp(1, panels.max(1)),
        };
        Blocks { passes, kc, block, group }
    }

    /// Whether both cut an `m × k` by `k × n` product alike; `packed` says that its
    /// right operand is packed, `threads` how many share it.
    pub fn same(&self, other: &Cut, [m, k, n]: [usize; 3], packed: bool, threads: usize) -> bool {
        let panels = n.div_ceil(NR);
        self.blocks(m, k, panels) == other.blocks(m, k, panels)
            && (packed || (m <= self.in_place()) == (m <= other.in_place()))
            && (threads == 1 || self.job == other.job)
    }
}

impl Default for Cut {
    fn default() -> Cut {
        Cut::RULE
    }
}

/// What a cut means for a part of a product.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Blocks {
    /// How often a tile is taken up.
    pub(crate) passes: usize,
    /// Steps of `k` in a pass, at most.
    pub(crate) kc: usize,
    /// Rows of a block.
    pub(crate) block: usize,
    /// Panels whose pass is done before that of others.
    pub(crate) group: usize,
}
