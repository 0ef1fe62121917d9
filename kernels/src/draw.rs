//! Random numbers of distributions that are drawn by rejection: how many uniform numbers a
//! value takes is not known beforehand.
//!
//! Each value has a counter of Philox to itself and counts its own draws in that counter's
//! upper half, so values do not depend on each other or on threads.

use crate::par;
use crate::rng::Philox;

/// A value's own stream.
struct Stream {
    g: Philox,
    counter: u64,
    draws: u64,
    words: [u32; 4],
}

impl Stream {
    fn new(g: Philox, counter: u64) -> Stream {
        Stream { g, counter, draws: 0, words: [0; 4] }
    }

    /// A uniform number on (0, 1), a multiple of 2^-53 and half of one.
    fn uniform(&mut self) -> f64 {
        let half = (self.draws % 2) as usize;
        if half == 0 {
            self.words = self.g.words_at(self.counter, self.draws / 2 + 1);
        }
        self.draws += 1;
        let bits = u64::from(self.words[2 * half]) << 32 | u64::from(self.words[2 * half + 1]);
        ((bits >> 11) as f64 + 0.5) * (1.0 / (1u64 << 53) as f64)
    }

    /// A standard normal number (Box & Muller 1958).
    fn normal(&mut self) -> f64 {
        let (u, v) = (self.uniform(), self.uniform());
        (-2.0 * u.ln()).sqrt() * (2.0 * std::f64::consts::PI * v).cos()
    }

    /// Marsaglia & Tsang 2000, "A simple method for generating gamma variables".
    fn gamma(&mut self, shape: f64) -> f64 {
        if shape.is_nan() || shape <= 0.0 {
            return if shape == 0.0 { 0.0 } else { f64::NAN };
        }
        if shape < 1.0 {
            // In logarithms: the power may be tiny.
            let boost = self.uniform().ln() / shape;
            return (self.gamma(shape + 1.0).ln() + boost).exp();
        }
        let d = shape - 1.0 / 3.0;
        let c = 1.0 / (9.0 * d).sqrt();
        loop {
            let x = self.normal();
            let v = 1.0 + c * x;
            if v <= 0.0 {
                continue;
            }
            let v = v * v * v;
            let u = self.uniform();
            if u.ln() < 0.5 * x * x + d * (1.0 - v + v.ln()) {
                return d * v;
            }
        }
    }

    /// Small rates by multiplying uniform numbers (Knuth, section 3.4.1), large ones by
    /// transformed rejection (Hörmann 1993, "The transformed rejection method for generating
    /// Poisson random variables", algorithm PTRS).
    fn poisson(&mut self, rate: f64) -> f64 {
        if rate.is_nan() || rate < 0.0 {
            return f64::NAN;
        }
        if rate < 10.0 {
            let end = (-rate).exp();
            let (mut k, mut product) = (0.0, self.uniform());
            while product > end {
                k += 1.0;
                product *= self.uniform();
            }
            return k;
        }
        let b = 0.931 + 2.53 * rate.sqrt();
        let a = -0.059 + 0.02483 * b;
        let inverse_alpha = 1.1239 + 1.1328 / (b - 3.4);
        let quick = 0.9277 - 3.6224 / (b - 2.0);
        loop {
            let (u, v) = (self.uniform() - 0.5, self.uniform());
            let us = 0.5 - u.abs();
            let k = ((2.0 * a / us + b) * u + rate + 0.43).floor();
            if us >= 0.07 && v <= quick {
                return k;
            }
            if k < 0.0 || us < 0.013 && v > us {
                continue;
            }
            let left = (v * inverse_alpha / (a / (us * us) + b)).ln();
            if left <= k * rate.ln() - rate - ln_factorial(k) {
                return k;
            }
        }
    }

    /// Few expected successes by waiting for each (Devroye 1986, section X.4.3), many by
    /// transformed rejection (Hörmann 1993, "The generation of binomial random variates",
    /// algorithm BTRS).
    fn binomial(&mut self, n: f64, p: f64) -> f64 {
        if n.is_nan() || n < 0.0 || p.is_nan() || !(0.0..=1.0).contains(&p) {
            return f64::NAN;
        }
        let n = n.floor();
        if p > 0.5 {
            return n - self.binomial(n, 1.0 - p);
        }
        if p == 0.0 || n == 0.0 {
            return 0.0;
        }
        if n * p < 10.0 {
            let (mut successes, mut trials) = (0.0, 0.0);
            let log_failure = (-p).ln_1p();
            loop {
                trials += (self.uniform().ln() / log_failure).ceil();
                if trials > n {
                    return successes;
                }
                successes += 1.0;
            }
        }
        let deviation = (n * p * (1.0 - p)).sqrt();
        let b = 1.15 + 2.53 * deviation;
        let a = -0.0873 + 0.0248 * b + 0.01 * p;
        let c = n * p + 0.5;
        let quick = 0.92 - 4.2 / b;
        let alpha = (2.83 + 5.1 / b) * deviation;
        let odds = (p / (1.0 - p)).ln();
        let mode = ((n + 1.0) * p).floor();
        let at_mode = ln_factorial(mode) + ln_factorial(n - mode);
        loop {
            let (u, v) = (self.uniform() - 0.5, self.uniform());
            let us = 0.5 - u.abs();
            let k = ((2.0 * a / us + b) * u + c).floor();
            if us >= 0.07 && v <= quick {
                return k;
            }
            if k < 0.0 || k > n {
                continue;
            }
            let left = (v * alpha / (a / (us * us) + b)).ln();
            let right = at_mode - ln_factorial(k) - ln_factorial(n - k) + (k - mode) * odds;
            if left <= right {
                return k;
            }
        }
    }
}

/// `ln k!`: below ten by multiplication, then by Stirling's series (Abramowitz & Stegun
/// 6.1.41).
fn ln_factorial(k: f64) -> f64 {
    if k < 10.0 {
        return (2..=k as u64).map(|i| i as f64).product::<f64>().ln();
    }
    let x = k + 1.0;
    let r = 1.0 / (x * x);
    let tail = (1.0 / 12.0 - r * (1.0 / 360.0 - r * (1.0 / 1260.0 - r / 1680.0))) / x;
    (x - 0.5) * x.ln() - x + 0.918_938_533_204_672_8 + tail
}

/// Values that a thread takes at a time.
const BLOCK: usize = 256;

impl Philox {
    /// `n` values, value `i` by `f` from a stream of its own, with counter `offset + i`.
    fn values(
        self,
        offset: u64,
        n: usize,
        f: impl Fn(&mut Stream, usize) -> f64 + Sync,
    ) -> Vec<f64> {
        par::map_blocks(n, BLOCK, n > BLOCK, |range| {
            range
                .map(|i| f(&mut Stream::new(self, offset.wrapping_add(i as u64)), i))
                .collect::<Vec<f64>>()
        })
        .concat()
    }

    /// Values of the gamma distribution of rate one and these shapes; NaN for negative ones.
    pub fn gamma(self, offset: u64, shapes: &[f64]) -> Vec<f64> {
        self.values(offset, shapes.len(), |s, i| s.gamma(shapes[i]))
    }

    /// Values of the Poisson distribution of these rates; NaN for negative ones.
    pub fn poisson(self, offset: u64, rates: &[f64]) -> Vec<f64> {
        self.values(offset, rates.len(), |s, i| s.poisson(rates[i]))
    }

    /// Values of the binomial distribution of these numbers of trials and probabilities; NaN
    /// where there are none.
    pub fn binomial(self, offset: u64, trials: &[f64], probabilities: &[f64]) -> Vec<f64> {
        assert_eq!(trials.len(), probabilities.len());
        self.values(offset, trials.len(), |s, i| s.binomial(trials[i], probabilities[i]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Mean and variance of 40,000 values are within five standard errors.
    fn moments(what: &str, values: &[f64], mean: f64, variance: f64, excess: f64) {
        let n = values.len() as f64;
        let m = values.iter().sum::<f64>() / n;
        let v = values.iter().map(|x| (x - m).powi(2)).sum::<f64>() / n;
        assert!((m - mean).abs() < 5.0 * (variance / n).sqrt(), "{what}: mean {m}, not {mean}");
        let error = variance * ((2.0 + excess) / n).sqrt();
        assert!((v - variance).abs() < 5.0 * error, "{what}: variance {v}, not {variance}");
    }

    const N: usize = 40_000;

    #[test]
    fn means_and_variances_are_those_of_the_distributions() {
        let g = Philox::new(11);
        for a in [0.1, 0.7, 1.0, 3.5, 60.0] {
            moments(&format!("gamma {a}"), &g.gamma(0, &vec![a; N]), a, a, 6.0 / a);
        }
        for r in [0.2, 4.0, 9.9, 10.0, 45.0, 1e4] {
            moments(&format!("poisson {r}"), &g.poisson(7, &vec![r; N]), r, r, 1.0 / r);
        }
        for (n, p) in [(5.0, 0.3), (40.0, 0.5), (1000.0, 0.02), (100.0, 0.9), (7.0, 0.99)] {
            let x = g.binomial(3, &vec![n; N], &vec![p; N]);
            assert!(x.iter().all(|&k| k >= 0.0 && k <= n && k == k.floor()));
            let v = n * p * (1.0 - p);
            moments(&format!("binomial {n} {p}"), &x, n * p, v, (1.0 - 6.0 * p * (1.0 - p)) / v);
        }
    }

    #[test]
    fn small_rates_have_the_probabilities_of_the_distribution() {
        let x = Philox::new(2).poisson(0, &vec![12.0; N]);
        let mut p = (-12f64).exp();
        for k in 0..30 {
            let seen = x.iter().filter(|&&v| v == k as f64).count() as f64;
            let want = p * N as f64;
            assert!((seen - want).abs() < 5.0 * want.sqrt() + 5.0, "{k}: {seen}, not {want}");
            p *= 12.0 / (k + 1) as f64;
        }
    }

    #[test]
    fn a_value_depends_on_its_counter_alone() {
        let g = Philox::new(5);
        let all = g.gamma(100, &vec![2.5; 1000]);
        assert_eq!(g.gamma(400, &[2.5; 3]), all[300..303]);
        let threads = par::threads();
        par::set_threads(1);
        assert_eq!(g.gamma(100, &vec![2.5; 1000]), all);
        par::set_threads(threads);
    }

    #[test]
    fn parameters_that_are_none_give_nan() {
        let g = Philox::new(1);
        assert!(g.gamma(0, &[-1.0, f64::NAN]).iter().all(|x| x.is_nan()));
        assert!(g.poisson(0, &[-1.0, f64::NAN]).iter().all(|x| x.is_nan()));
        assert!(g.binomial(0, &[-1.0, 2.0], &[0.5, 1.5]).iter().all(|x| x.is_nan()));
        assert_eq!((g.poisson(0, &[0.0]), g.binomial(0, &[9.0], &[1.0])), (vec![0.0], vec![9.0]));
    }
}
