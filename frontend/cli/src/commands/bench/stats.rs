//! Medians, and how far they can be trusted.

/// Resamples of the bootstrap.
const RESAMPLES: usize = 1000;
/// Share of the resamples that an interval leaves out, half on each side.
const TAIL: f64 = 0.05;

/// The median of some numbers.
pub fn median(values: &[f64]) -> f64 {
    let mut v = values.to_vec();
    v.sort_by(f64::total_cmp);
    match v.len() {
        0 => f64::NAN,
        n if n % 2 == 1 => v[n / 2],
        n => (v[n / 2 - 1] + v[n / 2]) / 2.0,
    }
}

/// An estimate with the interval it lies in with 95 % confidence.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Estimate {
    /// The estimate.
    pub value: f64,
    /// Lower end.
    pub low: f64,
    /// Upper end.
    pub high: f64,
}

/// What a statistic of `n` rounds could have been: its values on rounds drawn
/// with replacement (Efron, 1979, the percentile bootstrap).
fn bootstrap(n: usize, statistic: impl Fn(&[usize]) -> f64) -> Estimate {
    let all: Vec<usize> = (0..n).collect();
    // SplitMix64: the same rounds for the same number of rounds.
    let mut state = n as u64;
    let mut draw = || {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) % n.max(1) as u64) as usize
    };
    let mut values: Vec<f64> = (0..RESAMPLES)
        .map(|_| {
            let rounds: Vec<usize> = (0..n).map(|_| draw()).collect();
            statistic(&rounds)
        })
        .collect();
    values.sort_by(f64::total_cmp);
    let at = |q: f64| values[((RESAMPLES - 1) as f64 * q).round() as usize];
    Estimate { value: statistic(&all), low: at(TAIL / 2.0), high: at(1.0 - TAIL / 2.0) }
}

/// The median.
pub fn estimate(values: &[f64]) -> Estimate {
    bootstrap(values.len(), |r| median(&r.iter().map(|&i| values[i]).collect::<Vec<_>>()))
}

/// How many times as long `a` takes as `b`, from times taken in the same rounds.
pub fn ratio(a: &[f64], b: &[f64]) -> Estimate {
    let n = a.len().min(b.len());
    bootstrap(n, |r| median(&r.iter().map(|&i| a[i] / b[i]).collect::<Vec<_>>()))
}

impl Estimate {
    /// Of a ratio: whether it certainly is not 1.
    pub fn differs(&self) -> bool {
        self.low > 1.0 || self.high < 1.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Numbers about 1, within a tenth.
    fn noisy(seed: u64) -> Vec<f64> {
        (0..25u64).map(|i| 1.0 + ((i * 7919 + seed * 104_729) % 101) as f64 / 505.0 - 0.1).collect()
    }

    #[test]
    fn the_median_lies_in_its_interval() {
        assert_eq!(median(&[3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), 2.5);
        let e = estimate(&noisy(1));
        assert!(e.low <= e.value && e.value <= e.high && e.low > 0.9 && e.high < 1.1, "{e:?}");
        let exact = estimate(&[2.0; 9]);
        assert_eq!((exact.low, exact.value, exact.high), (2.0, 2.0, 2.0));
    }

    #[test]
    fn a_difference_is_told_from_noise() {
        let slower: Vec<f64> = noisy(3).iter().map(|v| v * 1.5).collect();
        assert!(ratio(&slower, &noisy(2)).differs());
        let again: Vec<f64> = noisy(2).into_iter().rev().collect();
        assert!(!ratio(&again, &noisy(2)).differs());
    }
}
