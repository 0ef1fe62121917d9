//! What the machine can do: the limits that kernels are measured against.

use crate::par;
use crate::simd::{LANES, RealTask, RealVector, Vector, run_real};
use std::hint::black_box;
use std::time::{Duration, Instant};

/// Each limit is the best of so many tries.
const TRIES: usize = 15;

/// Independent multiply-adds in flight: enough to hide their latency behind two
/// units, few enough to stay in registers where a vector is two of them.
const CHAINS: usize = 6;
/// The same where a vector is one of 32 registers.
const WIDE_CHAINS: usize = 12;

struct MultiplyAdd(usize);

impl RealTask<f32> for MultiplyAdd {
    type Out = ();
    #[inline(always)]
    fn run<V: RealVector<Elem = f32>>(self) {
        if crate::isa::active() == crate::isa::Isa::Avx512 {
            chains::<V, WIDE_CHAINS>(self.0);
        } else {
            chains::<V, CHAINS>(self.0);
        }
    }
}

#[inline(always)]
fn chains<V: RealVector<Elem = f32>, const N: usize>(rounds: usize) {
    let (m, a) = (V::splat(black_box(0.5)), V::splat(black_box(0.5)));
    let mut x = [V::splat(black_box(1.0)); N];
    for _ in 0..rounds {
        for x in &mut x {
            *x = x.fma(m, a);
        }
    }
    black_box(x.map(Vector::first));
}

fn chains_in_use() -> usize {
    if crate::isa::active() == crate::isa::Isa::Avx512 { WIDE_CHAINS } else { CHAINS }
}

struct Read<'a>(&'a [f32]);

impl RealTask<f32> for Read<'_> {
    type Out = f32;
    #[inline(always)]
    fn run<V: RealVector<Elem = f32>>(self) -> f32 {
        const STREAMS: usize = 4;
        let mut sums = [V::splat(0.0); STREAMS];
        for block in self.0.chunks_exact(STREAMS * LANES) {
            for (i, s) in sums.iter_mut().enumerate() {
                // SAFETY: the block has a vector for each stream.
                *s = s.add(unsafe { V::load(block.as_ptr().add(i * LANES)) });
            }
        }
        sums.map(|s| s.fold(V::add)).iter().sum()
    }
}

/// The shortest of several tries of `work` done by so many threads at once.
fn shortest(threads: usize, work: impl Fn(usize) + Sync) -> Duration {
    let once = || {
        let start = Instant::now();
        par::for_each(threads, &work);
        start.elapsed()
    };
    (0..TRIES).map(|_| once()).min().unwrap_or_default()
}

/// Floating-point operations in f32 a second, of all threads together: registers
/// only, a multiply-add counting two.
pub fn flops() -> f64 {
    const ROUNDS: usize = 200_000;
    let threads = par::threads();
    let time = shortest(threads, |_| run_real(MultiplyAdd(ROUNDS)));
    let each = 2 * ROUNDS * chains_in_use() * LANES;
    (each * threads) as f64 / time.as_secs_f64()
}

/// Bytes read a second, of all threads together, from `bytes` of memory divided
/// among them that is read again and again: the bandwidth of the smallest cache
/// that holds it.
pub fn read_bandwidth(bytes: usize) -> f64 {
    /// Long enough that starting the threads does not count.
    const LEAST: usize = 64 << 20;
    let threads = par::threads();
    let n = (bytes / size_of::<f32>() / threads).max(LANES * 4);
    let memory: Vec<Vec<f32>> = (0..threads).map(|_| vec![1.0; n]).collect();
    let again = (LEAST / threads).div_ceil(n * size_of::<f32>());
    let time = shortest(threads, |i| {
        for _ in 0..again {
            black_box(run_real(Read(black_box(&memory[i]))));
        }
    });
    (n * size_of::<f32>() * again * threads) as f64 / time.as_secs_f64()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_those_of_a_computer() {
        assert!((1e8..1e15).contains(&flops()));
        let (cache, memory) = (read_bandwidth(64 << 10), read_bandwidth(64 << 20));
        assert!((1e8..1e14).contains(&cache) && (1e8..1e14).contains(&memory));
    }
}
