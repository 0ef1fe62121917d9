//! The memory plan: where each temporary lies in one arena.

/// Alignment of every buffer in the arena, in bytes.
const ARENA_ALIGN: usize = 64;

/// A temporary: its size and the steps between which it is alive.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Lifetime {
    /// Size in bytes.
    pub bytes: usize,
    /// First step that writes it.
    pub first: u32,
    /// Last step that reads it.
    pub last: u32,
}

/// Where temporaries lie.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct MemoryPlan {
    /// Byte offset of each temporary.
    pub offsets: Vec<usize>,
    /// Size of the arena in bytes.
    pub total: usize,
    /// Size of all temporaries together, had they not shared.
    pub unshared: usize,
}

/// Places temporaries greedily, the largest first, each at the lowest offset
/// where nothing alive at the same time lies (Pisarchyk and Lee, 2020, "greedy by
/// size"). The same input gives the same plan.
///
/// ```
/// use sinter_runtime::program::{Lifetime, plan_memory};
///
/// // Ten buffers, each alive until the next one is written, need room for two.
/// let chain: Vec<Lifetime> =
///     (0..10).map(|i| Lifetime { bytes: 1000, first: i, last: i + 1 }).collect();
/// let plan = plan_memory(&chain);
/// assert_eq!((plan.total, plan.unshared), (2 * 1024, 10 * 1024));
/// ```
pub fn plan_memory(temps: &[Lifetime]) -> MemoryPlan {
    let size = |t: &Lifetime| t.bytes.next_multiple_of(ARENA_ALIGN);
    let mut order: Vec<usize> = (0..temps.len()).collect();
    order.sort_by_key(|&i| (std::cmp::Reverse(size(&temps[i])), i));
    let mut offsets = vec![0; temps.len()];
    let mut placed: Vec<usize> = Vec::new(); // by ascending offset
    let mut total = 0;
    for i in order {
        let t = &temps[i];
        let mut at = 0;
        for &p in &placed {
            let o = &temps[p];
            let together = t.first <= o.last && o.first <= t.last;
            if !together {
                continue;
            }
            if at + size(t) <= offsets[p] {
                break;
            }
            at = at.max(offsets[p] + size(o));
        }
        offsets[i] = at;
        total = total.max(at + size(t));
        let k = placed.partition_point(|&p| offsets[p] <= at);
        placed.insert(k, i);
    }
    MemoryPlan { offsets, total, unshared: temps.iter().map(size).sum() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_chain_needs_two_buffers() {
        let temps: Vec<Lifetime> =
            (0..10).map(|i| Lifetime { bytes: 1000, first: i, last: i + 1 }).collect();
        let plan = plan_memory(&temps);
        assert_eq!(plan.total, 2048);
        assert_eq!(plan.unshared, 10240);
    }

    proptest! {
        #[test]
        fn what_lives_together_does_not_overlap(
            raw in proptest::collection::vec((0usize..5000, 0u32..20, 0u32..10), 0..40)
        ) {
            let temps: Vec<Lifetime> = raw
                .iter()
                .map(|&(bytes, first, len)| Lifetime { bytes, first, last: first + len })
                .collect();
            let plan = plan_memory(&temps);
            for (i, a) in temps.iter().enumerate() {
                prop_assert!(plan.offsets[i].is_multiple_of(ARENA_ALIGN));
                prop_assert!(plan.offsets[i] + a.bytes <= plan.total);
                for (j, b) in temps.iter().enumerate().skip(i + 1) {
                    let together = a.first <= b.last && b.first <= a.last;
                    let apart = plan.offsets[i] + a.bytes <= plan.offsets[j]
                        || plan.offsets[j] + b.bytes <= plan.offsets[i];
                    prop_assert!(!together || apart);
                }
            }
        }
    }
}
