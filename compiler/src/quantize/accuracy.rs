//! How far a program with integers is from f32.

use super::{Calibration, CalibrationError, Quantized, result_shape, run_layer};
use crate::graph::{Graph, NodeId, interpret_with};
use rustc_hash::FxHashMap;
use sinter_runtime::{Array, DType, eager};

/// How far results with integers are from those in f32.
#[derive(Clone, Debug, Default, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Accuracy {
    /// How ranges were chosen.
    pub method: String,
    /// Number of calibration inputs, and of held-out ones.
    pub runs: [usize; 2],
    /// Each product and convolution that could be computed with integers, in order.
    pub layers: Vec<LayerAccuracy>,
    /// The outputs on the calibration inputs, then on the held-out ones.
    pub outputs: Vec<OutputAccuracy>,
}

/// A layer, by itself: both results are of the f32 program's input to it.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct LayerAccuracy {
    /// Its name.
    pub name: String,
    /// Its op.
    pub op: String,
    /// Why it is int8, or f32.
    pub why: String,
    /// What integers change; nothing where it is f32.
    pub difference: Option<Difference>,
}

/// An output of the whole program.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct OutputAccuracy {
    /// Its name.
    pub name: String,
    /// Whether on held-out inputs, not those of the calibration.
    pub held_out: bool,
    /// What integers change.
    pub difference: Difference,
    /// How many rows have their largest number in the same place, of all: for outputs of
    /// at least two numbers a row, as logits are.
    pub top1: Option<[u64; 2]>,
}

/// How far numbers are from others, all together.
#[derive(Clone, Copy, Debug, Default, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Difference {
    /// The largest difference.
    pub max_abs: f64,
    /// The largest magnitude there should be.
    pub largest: f64,
    /// Sum of the squares of what there should be.
    pub signal: f64,
    /// Sum of the squares of differences.
    pub noise: f64,
}

impl Difference {
    fn add(&mut self, got: &[f32], want: &[f32]) {
        for (&g, &w) in got.iter().zip(want) {
            // What is not a number in both is no difference.
            if g == w || (g.is_nan() && w.is_nan()) {
                if w.is_finite() {
                    self.largest = self.largest.max(f64::from(w.abs()));
                    self.signal += f64::from(w).powi(2);
                }
                continue;
            }
            // Numbers for files: nothing is infinite there.
            let d = (f64::from(g) - f64::from(w)).abs().min(f64::from(f32::MAX));
            let d = if d.is_nan() { f64::from(f32::MAX) } else { d };
            self.max_abs = self.max_abs.max(d);
            self.noise += d * d;
            if w.is_finite() {
                self.largest = self.largest.max(f64::from(w.abs()));
                self.signal += f64::from(w).powi(2);
            }
        }
    }

    /// The root of the mean squared difference, of that of the numbers.
    pub fn relative_rms(&self) -> f64 {
        if self.noise == 0.0 { 0.0 } else { (self.noise / self.signal).sqrt() }
    }

    /// The largest difference, of the largest magnitude.
    pub fn relative_max(&self) -> f64 {
        if self.max_abs == 0.0 { 0.0 } else { self.max_abs / self.largest }
    }

    /// Signal to quantization noise in decibels; infinite where there is no noise.
    pub fn sqnr_db(&self) -> f64 {
        if self.noise == 0.0 { f64::INFINITY } else { 10.0 * (self.signal / self.noise).log10() }
    }
}

/// Runs examples both ways.
pub(super) fn measure(
    g: &Graph,
    c: &Calibration,
    all: &[(NodeId, String)],
    out: &mut Quantized,
) -> Result<(), CalibrationError> {
    let mut layers: FxHashMap<NodeId, Difference> = FxHashMap::default();
    let ports = g.output_ports();
    let real = |i: &usize| ports[*i].ty.dtype == DType::F32;
    let new = |held_out| {
        move |p: &sinter_runtime::program::Port| OutputAccuracy {
            name: p.name.clone(),
            held_out,
            difference: Difference::default(),
            top1: None,
        }
    };
    let mut outputs: Vec<OutputAccuracy> = ports.iter().map(new(false)).collect();
    outputs.extend(ports.iter().map(new(true)));
    let runs = c.inputs.iter().map(|i| (0, i)).chain(c.held_out.iter().map(|i| (ports.len(), i)));
    for (index, (first, inputs)) in runs.enumerate() {
        let failed = |source| CalibrationError::Run { index, source };
        let want = interpret_with(g, inputs, &mut |n, op, args| {
            let results = eager::run(op, args)?;
            if let Some(layer) = out.layers.get(&n) {
                let got = run_layer(layer, op, args, &result_shape(op, args)?)?;
                let of = layers.entry(n).or_default();
                of.add(&got.to_vec::<f32>(), &results[0].to_vec::<f32>());
            }
            Ok(results)
        });
        let want = want.map_err(failed)?;
        let got = out.interpret(g, inputs).map_err(failed)?;
        for i in (0..ports.len()).filter(real) {
            let o = &mut outputs[first + i];
            o.difference.add(&got[i].to_vec::<f32>(), &want[i].to_vec::<f32>());
            if let Some([same, rows]) = agreement(&got[i], &want[i]) {
                let [s, r] = o.top1.get_or_insert([0, 0]);
                (*s, *r) = (*s + same, *r + rows);
            }
        }
    }
    outputs.truncate(if c.held_out.is_empty() { ports.len() } else { outputs.len() });
    for (l, (n, _)) in out.accuracy.layers.iter_mut().zip(all) {
        l.difference = layers.get(n).copied();
    }
    out.accuracy.outputs = outputs
        .into_iter()
        .enumerate()
        .filter(|(i, _)| real(&(i % ports.len())))
        .map(|o| o.1)
        .collect();
    out.accuracy.method = c.method.name();
    out.accuracy.runs = [c.inputs.len(), c.held_out.len()];
    Ok(())
}

/// How many rows have their largest number in the same place, and how many there are.
fn agreement(got: &Array, want: &Array) -> Option<[u64; 2]> {
    let &n = want.shape().last().filter(|&&n| n > 1 && want.rank() == 2)?;
    let largest = |row: &[f32]| {
        let mut best = 0;
        for (i, v) in row.iter().enumerate() {
            if *v > row[best] {
                best = i;
            }
        }
        best
    };
    let (got, want) = (got.to_vec::<f32>(), want.to_vec::<f32>());
    let same = got.chunks(n).zip(want.chunks(n)).filter(|(g, w)| largest(g) == largest(w)).count();
    Some([same as u64, (want.len() / n) as u64])
}

impl Accuracy {
    /// The report as text, the layers that integers change most first.
    pub fn text(&self) -> String {
        let [seen, held] = self.runs;
        let ints = self.layers.iter().filter(|l| l.difference.is_some()).count();
        let mut out = format!(
            "int8 in {ints} of {} layers; ranges by {} from {seen} calibration inputs{}\n",
            self.layers.len(),
            self.method,
            if held > 0 { format!(", {held} held out") } else { String::new() },
        );
        for o in &self.outputs {
            let d = &o.difference;
            out += &format!(
                "output {} on {} inputs: at most {:.2e} off, relative rms {:.2e}, {} of signal to noise",
                o.name,
                if o.held_out { "held-out" } else { "calibration" },
                d.max_abs,
                d.relative_rms(),
                decibels(d.sqnr_db()),
            );
            if let Some([same, rows]) = o.top1 {
                out += &format!(", largest in the same place in {same} of {rows} rows");
            }
            out.push('\n');
        }
        let mut layers: Vec<&LayerAccuracy> = self.layers.iter().collect();
        let noise = |l: &LayerAccuracy| l.difference.map_or(f64::INFINITY, |d| d.sqnr_db());
        layers.sort_by(|a, b| noise(a).total_cmp(&noise(b)));
        let width = layers.iter().map(|l| l.name.len()).max().unwrap_or(0);
        for l in layers {
            let db = l.difference.map_or(String::new(), |d| decibels(d.sqnr_db()));
            out += &format!("  {:width$}  {:>8}  {}\n", l.name, db, l.why);
        }
        out
    }
}

fn decibels(db: f64) -> String {
    if db == f64::INFINITY { "exact".into() } else { format!("{db:.1} dB") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn differences_are_of_the_whole() {
        let mut d = Difference::default();
        d.add(&[3.0, 4.5], &[3.0, 4.0]);
        d.add(&[f32::NAN, 0.0], &[f32::NAN, 0.0]);
        assert_eq!((d.max_abs, d.relative_max()), (0.5, 0.125));
        assert!((d.relative_rms() - 0.1).abs() < 1e-12 && (d.sqnr_db() - 20.0).abs() < 1e-9);
        let mut wrong = Difference::default();
        wrong.add(&[f32::NAN, f32::INFINITY], &[1.0, 1.0]);
        assert!(wrong.max_abs > 1e38 && wrong.noise.is_finite());
        assert_eq!(Difference::default().sqnr_db(), f64::INFINITY);
    }

    #[test]
    fn rows_agree_by_their_largest_number() {
        let of = |v: &[f32], s: &[usize]| Array::from_slice(v, s).unwrap();
        let (a, b) = (of(&[1.0, 2.0, 5.0, 4.0], &[2, 2]), of(&[1.0, 3.0, 4.0, 5.0], &[2, 2]));
        assert_eq!(agreement(&a, &b), Some([1, 2]));
        assert_eq!(agreement(&of(&[1.0], &[1, 1]), &of(&[1.0], &[1, 1])), None);
    }
}
