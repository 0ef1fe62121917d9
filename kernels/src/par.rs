//! Splitting work over threads.
//!
//! The number of pieces depends on the problem and never on the number of
//! threads, so a kernel that combines partial results combines the same ones in
//! the same order on any machine. With one thread nothing is ever queued.

use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock};

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
    let f: &(dyn Fn(usize) + Sync) = f;
    // SAFETY: only the lifetime changes. Helpers call `f` between `enter` and
    // `leave` alone, and `close` lets nobody enter and waits until all have left.
    let f = unsafe { std::mem::transmute::<&(dyn Fn(usize) + Sync), &'static _>(f) };
    let pieces = Arc::new(Pieces {
        f,
        n,
        next: AtomicUsize::new(0),
        inside: AtomicUsize::new(0),
        panic: Mutex::new(None),
        caller: std::thread::current(),
    });
    for _ in 1..threads {
        let pieces = pieces.clone();
        pool().spawn(move || {
            if pieces.enter() {
                pieces.take();
                pieces.leave();
            }
        });
    }
    pieces.take();
    pieces.close();
    let panic = pieces.panic.lock().unwrap_or_else(|e| e.into_inner()).take();
    if let Some(payload) = panic {
        std::panic::resume_unwind(payload);
    }
}

/// A loop whose pieces several threads take. The caller takes them, too, and when
/// none is left it waits for helpers at work, but for none that has yet to wake.
struct Pieces {
    f: &'static (dyn Fn(usize) + Sync),
    n: usize,
    next: AtomicUsize,
    /// Helpers at work, and [`CLOSED`].
    inside: AtomicUsize,
    panic: Mutex<Option<Box<dyn std::any::Any + Send>>>,
    caller: std::thread::Thread,
}

const CLOSED: usize = 1 << (usize::BITS - 1);
/// How often the caller looks for helpers to be done before it sleeps.
const LOOKS: usize = 10_000;

impl Pieces {
    /// Takes pieces until none is left. A panic ends the loop for everybody.
    fn take(&self) {
        let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            loop {
                let i = self.next.fetch_add(1, Ordering::Relaxed);
                if i >= self.n {
                    break;
                }
                (self.f)(i);
            }
        }));
        if let Err(payload) = done {
            self.next.store(self.n, Ordering::Relaxed);
            self.panic.lock().unwrap_or_else(|e| e.into_inner()).get_or_insert(payload);
        }
    }

    fn enter(&self) -> bool {
        let open = self.inside.fetch_add(1, Ordering::Acquire) & CLOSED == 0;
        if !open {
            self.leave();
        }
        open
    }

    fn leave(&self) {
        if self.inside.fetch_sub(1, Ordering::Release) == CLOSED | 1 {
            self.caller.unpark();
        }
    }

    fn close(&self) {
        self.inside.fetch_or(CLOSED, Ordering::Relaxed);
        let mut looks = 0;
        // Acquire: what helpers wrote is seen after this.
        while self.inside.load(Ordering::Acquire) != CLOSED {
            if looks < LOOKS {
                looks += 1;
                std::hint::spin_loop();
            } else {
                std::thread::park();
            }
        }
    }
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
        let slots: Vec<_> = out.iter_mut().map(Mutex::new).collect();
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
    fn loops_within_loops() {
        let sum = AtomicU32::new(0);
        for _ in 0..200 {
            for_each(5, &|i| {
                for_each(7, &|j| {
                    sum.fetch_add((i * j) as u32, Ordering::Relaxed);
                });
            });
        }
        assert_eq!(sum.load(Ordering::Relaxed), 200 * 10 * 21);
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
