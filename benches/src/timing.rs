//! Timing candidates in turns.

use serde::Serialize;
use std::time::{Duration, Instant};

/// Something to be timed.
pub struct Candidate<'a> {
    /// Its name in tables.
    pub name: String,
    run: Box<dyn FnMut() + 'a>,
}

impl<'a> Candidate<'a> {
    /// A closure to be called again and again.
    pub fn new(name: impl Into<String>, run: impl FnMut() + 'a) -> Candidate<'a> {
        Candidate { name: name.into(), run: Box::new(run) }
    }
}

/// Nanoseconds per call.
#[derive(Clone, Debug, Serialize)]
pub struct Stats {
    /// The candidate.
    pub name: String,
    /// Fastest sample.
    pub min: f64,
    /// Middle sample.
    pub median: f64,
    /// Quartiles.
    pub quartiles: (f64, f64),
    /// CPU time of all threads, the mean over samples: the system counts what threads
    /// of other processors did when they are interrupted, long after a sample.
    pub cpu: f64,
    /// CPU time of the sample that took least of it; for one thread alone, see `cpu`.
    pub cpu_min: f64,
    /// Number of samples.
    pub samples: usize,
}

/// CPU time of this process, all threads.
pub fn cpu_time() -> Duration {
    let mut t = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the clock exists on Linux, and `t` is a timespec to be filled in.
    unsafe { libc::clock_gettime(libc::CLOCK_PROCESS_CPUTIME_ID, &mut t) };
    Duration::new(t.tv_sec as u64, t.tv_nsec as u32)
}

/// Times the candidates in turns for about `budget` in all. A sample is as many
/// calls as take 200 microseconds, at least one.
pub fn interleaved(budget: Duration, mut candidates: Vec<Candidate<'_>>) -> Vec<Stats> {
    let sample = Duration::from_micros(200);
    let calls: Vec<usize> = candidates
        .iter_mut()
        .map(|c| {
            (c.run)();
            let mut calls = 1;
            loop {
                let start = Instant::now();
                (0..calls).for_each(|_| (c.run)());
                let took = start.elapsed();
                if took >= sample / 2 || calls > 1 << 24 {
                    let wanted = sample.as_secs_f64() / (took.as_secs_f64() / calls as f64);
                    return (wanted.ceil() as usize).max(1);
                }
                calls *= 2;
            }
        })
        .collect();
    let mut times: Vec<Vec<f64>> = vec![vec![]; candidates.len()];
    // The sum over samples and the least of them.
    let mut cpu = vec![(0.0, f64::INFINITY); candidates.len()];
    let end = Instant::now() + budget;
    while Instant::now() < end || times.iter().any(|t| t.len() < 5) {
        for (i, c) in candidates.iter_mut().enumerate() {
            let (before, start) = (cpu_time(), Instant::now());
            (0..calls[i]).for_each(|_| (c.run)());
            let (wall, spent) = (start.elapsed(), cpu_time().saturating_sub(before));
            let each = |d: Duration| d.as_secs_f64() * 1e9 / calls[i] as f64;
            times[i].push(each(wall));
            cpu[i] = (cpu[i].0 + each(spent), each(spent).min(cpu[i].1));
        }
    }
    let stats = |((c, mut t), (cpu, cpu_min)): ((Candidate<'_>, Vec<f64>), (f64, f64))| {
        t.sort_by(f64::total_cmp);
        let at = |q: f64| t[((t.len() - 1) as f64 * q) as usize];
        Stats {
            name: c.name,
            min: t[0],
            median: at(0.5),
            quartiles: (at(0.25), at(0.75)),
            cpu: cpu / t.len() as f64,
            cpu_min,
            samples: t.len(),
        }
    };
    candidates.into_iter().zip(times).zip(cpu).map(stats).collect()
}
