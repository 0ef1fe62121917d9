//! From the numbers a layer saw to the range that integers cover.

use sinter_kernels::gemm::Affine;

/// How the range of a layer's input comes from the numbers it had on examples. The names
/// are those of ONNX Runtime's `CalibrationMethod`; [`Mse`](CalibrationMethod::Mse) is
/// what PyTorch's `HistogramObserver` minimises.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub enum CalibrationMethod {
    /// From the smallest number to the largest.
    #[default]
    MinMax,
    /// Without the rarest: so many percent of the numbers, 99.999 say, lie within, and of
    /// the others half on either side.
    Percentile(f64),
    /// Where the squared error is least, of what is cut off and what is rounded.
    Mse,
}

impl CalibrationMethod {
    /// The name in text.
    pub fn name(self) -> String {
        match self {
            CalibrationMethod::MinMax => "minmax".into(),
            CalibrationMethod::Percentile(p) => format!("percentile {p}"),
            CalibrationMethod::Mse => "mse".into(),
        }
    }

    pub(super) fn check(self) -> Result<(), String> {
        match self {
            CalibrationMethod::Percentile(p) if !(0.0 < p && p <= 100.0) => {
                Err(format!("{p} is no percentage of numbers to cover"))
            }
            _ => Ok(()),
        }
    }

    /// How often examples are run.
    pub(super) fn passes(self) -> usize {
        if self == CalibrationMethod::MinMax { 1 } else { 2 }
    }
}

/// Bins between the smallest number and the largest.
const BINS: usize = 2048;
/// Ranges that are tried for the least squared error.
const TRIED: usize = 100;

/// What a layer saw: its extremes in the first pass, how numbers are distributed in the
/// second.
#[derive(Clone, Debug)]
pub(super) struct Observer {
    low: f32,
    high: f32,
    finite: bool,
    bins: Vec<u64>,
}

impl Default for Observer {
    fn default() -> Observer {
        // Zero is in every range: it is what padding is made of.
        Observer { low: 0.0, high: 0.0, finite: true, bins: vec![] }
    }
}

impl Observer {
    pub(super) fn see(&mut self, pass: usize, x: &[f32]) {
        if pass == 0 {
            for &v in x {
                self.finite &= v.is_finite();
                self.low = self.low.min(v);
                self.high = self.high.max(v);
            }
            return;
        }
        self.bins.resize(BINS, 0);
        let width = f64::from(self.high) - f64::from(self.low);
        let scale = if width > 0.0 { BINS as f64 / width } else { 0.0 };
        for &v in x {
            let at = ((f64::from(v) - f64::from(self.low)) * scale) as usize;
            self.bins[at.min(BINS - 1)] += 1;
        }
    }

    /// The range, or why there is none.
    pub(super) fn range(&self, method: CalibrationMethod) -> Result<(f32, f32), String> {
        if !self.finite || !(self.high - self.low).is_finite() {
            return Err("on the calibration inputs its input is not finite".into());
        }
        let seen: u64 = self.bins.iter().sum();
        Ok(match method {
            CalibrationMethod::Percentile(p) if seen > 0 => {
                let cut = seen as f64 * (100.0 - p) / 200.0;
                let mut below = 0u64;
                let mut passed = |b: &u64| {
                    below += b;
                    below as f64 > cut
                };
                let first = self.bins.iter().position(&mut passed).unwrap_or(0);
                let mut above = 0u64;
                let mut passed = |b: &u64| {
                    above += b;
                    above as f64 > cut
                };
                let last = self.bins.iter().rposition(&mut passed).unwrap_or(BINS - 1);
                (self.edge(first).min(0.0), self.edge(last + 1).max(0.0))
            }
            CalibrationMethod::Mse if seen > 0 => self.least_error(),
            _ => (self.low, self.high),
        })
    }

    /// Where bin `i` begins.
    fn edge(&self, i: usize) -> f32 {
        let (low, high) = (f64::from(self.low), f64::from(self.high));
        (low + (high - low) * i as f64 / BINS as f64) as f32
    }

    /// One end after the other is drawn in as long as that makes the error less.
    fn least_error(&self) -> (f32, f32) {
        let step = |end: f32, i: usize| end * (TRIED - i) as f32 / TRIED as f32;
        let best = |of: &dyn Fn(usize) -> (f32, f32)| {
            let error = |i: usize| self.error(of(i));
            (0..TRIED).map(|i| (error(i), i)).min_by(|a, b| a.0.total_cmp(&b.0)).map_or(0, |b| b.1)
        };
        let high = step(self.high, best(&|i| (self.low, step(self.high, i))));
        let low = step(self.low, best(&|i| (step(self.low, i), high)));
        (low, high)
    }

    /// The sum of squared errors, as if numbers lay in the middle of their bins.
    fn error(&self, (low, high): (f32, f32)) -> f64 {
        let of = Affine::covering(low, high);
        let one = |(i, &count): (usize, &u64)| {
            let x = (self.edge(i) + self.edge(i + 1)) / 2.0;
            // Numbers of a bin lie everywhere between steps: rounding has its mean error.
            let cut = x - x.clamp(of.dequantize(0), of.dequantize(255));
            let rounding = f64::from(of.scale).powi(2) / 12.0;
            count as f64 * if cut == 0.0 { rounding } else { f64::from(cut).powi(2) }
        };
        self.bins.iter().enumerate().filter(|b| *b.1 > 0).map(one).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(x: &[f32], method: CalibrationMethod) -> Result<(f32, f32), String> {
        let mut o = Observer::default();
        for pass in 0..method.passes() {
            for part in x.chunks(100) {
                o.see(pass, part);
            }
        }
        o.range(method)
    }

    /// Evenly from -1 to 1, and one number far out.
    fn numbers() -> Vec<f32> {
        let mut x: Vec<f32> = (0..20_000).map(|i| i as f32 / 10_000.0 - 1.0).collect();
        x.push(100.0);
        x
    }

    #[test]
    fn outliers_are_kept_or_cut_off() {
        let x = numbers();
        assert_eq!(seen(&x, CalibrationMethod::MinMax), Ok((-1.0, 100.0)));
        let (low, high) = seen(&x, CalibrationMethod::Percentile(99.9)).unwrap();
        assert!((-1.0..-0.9).contains(&low) && (0.9..1.1).contains(&high), "{low} {high}");
        // Cutting the number off costs more than rounding the others coarsely gains.
        let many: Vec<f32> =
            (0..200).flat_map(|_| x[..x.len() - 1].to_vec()).chain([3.0]).collect();
        let (low, high) = seen(&many, CalibrationMethod::Mse).unwrap();
        assert!(low <= -0.97 && (0.97..1.6).contains(&high), "{low} {high}");
    }

    #[test]
    fn zero_is_always_covered_and_nothing_else_need_be_seen() {
        use CalibrationMethod::{MinMax, Mse, Percentile};
        for method in [MinMax, Percentile(99.0), Mse] {
            assert_eq!(seen(&[], method), Ok((0.0, 0.0)));
            assert_eq!(seen(&[0.0; 9], method), Ok((0.0, 0.0)));
            let (low, high) = seen(&[2.0, 3.0], method).unwrap();
            assert!(low == 0.0 && high > 1.9, "{method:?} {low} {high}");
            assert!(seen(&[1.0, f32::NAN], method).unwrap_err().contains("not finite"));
            assert!(seen(&[1.0, f32::INFINITY], method).is_err());
        }
        for p in [0.0, -1.0, 101.0, f64::NAN] {
            assert!(Percentile(p).check().is_err());
        }
    }
}
