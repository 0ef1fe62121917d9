//! Splitting work over threads.
//!
//! The number of pieces depends on the problem and never on the number of
//! threads, so a kernel that combines partial results combines the same ones in
//! the same order on any machine. With one thread nothing is ever queued.

use std::ops::Range;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};

static THREADS: AtomicUsize = AtomicUsize::new(0);
static POOL: OnceLock<rayon::ThreadPool> = OnceLock::new();

/// Work below this many nanoseconds is never shared: waking a sleeping worker
/// takes 5–10 µs.
pub const SHARE_NS: usize = 20_000;

/// How many threads kernels may use: what [`set_threads`] said, else the number
/// of processors this process may run on.
pub fn threads() -> usize {
    match THREADS.load(Ordering::Relaxed) {
        0 => {
            let n = std::thread::available_parallelism().map_or(1, |n| n.get());
            THREADS.store(n, Ordering::Relaxed);
            n
        }
        n => n,
    }
}

/// Sets how many threads kernels may use (at least one). The pool grows to the
/// number in force when it is first needed and keeps that size; a smaller number
/// set later leaves the surplus workers asleep.
pub fn set_threads(n: usize) {
    THREADS.store(n.max(1), Ordering::Relaxed);
}

fn pool() -> &'static rayon::ThreadPool {
    POOL.get_or_init(|| {
        let n = threads().max(std::thread::available_parallelism().map_or(1, |n| n.get()));
        rayon::ThreadPoolBuilder::new()
            .num_threads(n)
            .thread_name(|i| format!("sinter-worker-{i}"))
            .build()
            .expect("the operating system refused to start worker threads")
    })
}

/// Runs `f` on `0..n` cut into pieces of at least `grain` items, in parallel
/// when more than one thread may be used and there is more than one piece.
///
/// `f` must write each item's result independently of how the range was cut.
pub fn for_range(n: usize, grain: usize, f: impl Fn(Range<usize>) + Sync) {
    let grain = grain.max(1);
    let threads = threads();
    if threads == 1 || n <= grain {
        if n > 0 {
            f(0..n);
        }
        return;
    }
    // A few pieces per thread even out unequal speed; items are independent, so
    // the cut does not show in the result.
    let pieces = (n / grain).clamp(1, threads * 4);
    let run = |p: usize| f(n * p / pieces..n * (p + 1) / pieces);
    for_each(pieces, &run);
}

/// Runs `f(0)`, …, `f(n - 1)`, in parallel when more than one thread may be used.
pub fn for_each(n: usize, f: &(impl Fn(usize) + Sync)) {
    let threads = threads().min(n);
    if threads <= 1 {
        (0..n).for_each(f);
        return;
    }
    let next = AtomicUsize::new(0);
    let work = || {
        loop {
            let i = next.fetch_add(1, Ordering::Relaxed);
            if i >= n {
                break;
            }
            f(i);
        }
    };
    // One shared counter and `threads` takers: a worker that wakes late finds
    // less left to do, and nobody waits for a piece that nobody has begun.
    pool().in_place_scope(|s| {
        for _ in 1..threads {
            s.spawn(|_| work());
        }
        work();
    });
}

/// Cuts `0..n` into blocks of exactly `block` items (the last may be shorter),
/// maps each block to a value, in parallel, and returns the values in order.
/// Because the cut depends on `n` and `block` alone, so does the result.
pub fn map_blocks<R: Send + Default + Clone>(
    n: usize,
    block: usize,
    parallel: bool,
    f: impl Fn(Range<usize>) -> R + Sync,
) -> Vec<R> {
    let blocks = n.div_ceil(block);
    let mut out = vec![R::default(); blocks];
    let range = |b: usize| b * block..((b + 1) * block).min(n);
    if !parallel || threads() == 1 || blocks <= 1 {
        for (b, r) in out.iter_mut().enumerate() {
            *r = f(range(b));
        }
    } else {
        let slots: Vec<_> = out.iter_mut().map(std::sync::Mutex::new).collect();
        for_each(blocks, &|b| {
            let r = f(range(b));
            **slots[b].lock().expect("each slot is locked once") = r;
        });
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicU32;

    #[test]
    fn every_item_is_visited_once() {
        for n in [0, 1, 7, 64, 1001] {
            for grain in [1, 5, 2000] {
                let seen: Vec<AtomicU32> = (0..n).map(|_| AtomicU32::new(0)).collect();
                for_range(n, grain, |r| {
                    for i in r {
                        seen[i].fetch_add(1, Ordering::Relaxed);
                    }
                });
                assert!(seen.iter().all(|s| s.load(Ordering::Relaxed) == 1));
            }
        }
    }

    #[test]
    fn blocks_do_not_depend_on_threads() {
        let f = |r: Range<usize>| (r.start, r.end);
        assert_eq!(map_blocks(10, 4, true, f), vec![(0, 4), (4, 8), (8, 10)]);
        assert_eq!(map_blocks(10, 4, false, f), map_blocks(10, 4, true, f));
    }

    #[test]
    fn a_panic_in_a_piece_reaches_the_caller_and_the_pool_survives() {
        let r = std::panic::catch_unwind(|| {
            for_each(8, &|i| assert!(i != 5, "piece five"));
        });
        assert!(r.is_err());
        let sum = AtomicU32::new(0);
        for_each(8, &|i| {
            sum.fetch_add(i as u32, Ordering::Relaxed);
        });
        assert_eq!(sum.load(Ordering::Relaxed), 28);
    }
}
