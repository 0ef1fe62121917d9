//! The proof an artifact carries: every checksum, and its sample run again.

use super::{Artifact, ArtifactError, SectionKind};
use crate::program::Model;
use crate::{Array, Number, with_number};
use sinter_kernels::isa::{self, Isa};

/// What [`Artifact::verify`] checked.
#[derive(Clone, Debug, PartialEq)]
pub struct Verification {
    /// Number of sections whose checksums hold.
    pub sections: usize,
    /// Size of the file in bytes, each of which was checked.
    pub bytes: usize,
    /// The sample, run with the code of each level that this machine can execute;
    /// empty when the artifact has no sample.
    pub samples: Vec<SampleCheck>,
}

impl Verification {
    /// Whether every output of the sample was as close as it must be.
    pub fn passed(&self) -> bool {
        self.samples.iter().all(SampleCheck::passed)
    }
}

/// The sample's outputs from the code of one level, against those of eager
/// execution when the artifact was made.
#[derive(Clone, Debug, PartialEq)]
pub struct SampleCheck {
    /// The level of the code.
    pub level: Isa,
    /// Number of elements compared.
    pub elements: usize,
    /// The largest error, relative to the largest magnitude of its output.
    pub error: f64,
    /// What the error may be.
    pub tolerance: f64,
}

impl SampleCheck {
    /// Whether the error is within the tolerance.
    pub fn passed(&self) -> bool {
        self.error <= self.tolerance
    }
}

impl Artifact {
    /// Checks every byte of the file, the structure of the program and of each code
    /// section, and runs the sample with the code of every level that this machine
    /// can execute.
    ///
    /// # Errors
    /// What is damaged, or why the sample cannot be run. Outputs that are wrong are
    /// no error: see [`Verification::passed`].
    pub fn verify(&self) -> Result<Verification, ArtifactError> {
        for s in self.sections() {
            self.bytes(s)?;
        }
        for kind in [SectionKind::Source, SectionKind::Graph, SectionKind::Report] {
            self.text(kind)?;
        }
        let sample = self.sample()?;
        // Without code for this machine this fails, as loading would.
        self.model()?;
        let mut samples = Vec::new();
        for (level, _) in self.levels().into_iter().filter(|l| l.0 <= isa::detect()) {
            let model = self.model_at(level)?;
            if let Some(sample) = &sample {
                let bad = |e| self.damaged(format!("the sample cannot be read: {e}"));
                let (inputs, want) =
                    (sample.inputs().map_err(bad)?, sample.outputs().map_err(bad)?);
                let (elements, error) = self.run_sample(&model, &inputs, &want)?;
                let tolerance = sample.tolerance;
                samples.push(SampleCheck { level, elements, error, tolerance });
            }
        }
        Ok(Verification { sections: self.sections().len(), bytes: self.len(), samples })
    }

    /// Number of elements compared, and the largest relative error.
    fn run_sample(
        &self,
        model: &Model,
        inputs: &[Array],
        want: &[Array],
    ) -> Result<(usize, f64), ArtifactError> {
        let refs: Vec<&Array> = inputs.iter().collect();
        let got = model
            .run(&refs)
            .map_err(|source| ArtifactError::Sample { path: self.path().to_path_buf(), source })?;
        let fits = got.len() == want.len()
            && got.iter().zip(want).all(|(g, w)| g.dtype() == w.dtype() && g.shape() == w.shape());
        if !fits {
            return Err(self.damaged("the sample's outputs are not of the program's types"));
        }
        let error = got.iter().zip(want).map(|(g, w)| relative_error(g, w)).fold(0.0, f64::max);
        Ok((want.iter().map(Array::numel).sum(), error))
    }
}

/// The largest difference of two arrays of one type and shape, relative to the
/// largest finite magnitude of `want`. Integers and booleans, and whatever is not
/// finite, must be equal: otherwise the error is infinite.
pub fn relative_error(got: &Array, want: &Array) -> f64 {
    if want.dtype().is_complex() {
        return relative_error(&got.view_as_real(), &want.view_as_real());
    }
    if !want.dtype().is_float() {
        return if got.to_bytes() == want.to_bytes() { 0.0 } else { f64::INFINITY };
    }
    let numbers = |a: &Array| -> Vec<f64> {
        with_number!(a.dtype(), T => {
            a.to_vec::<T>().into_iter().map(|v| v.to_scalar().as_f64()).collect()
        })
    };
    let (got, want) = (numbers(got), numbers(want));
    let scale = want.iter().filter(|w| w.is_finite()).fold(0.0f64, |m, w| m.max(w.abs()));
    let worst = got.iter().zip(&want).fold(0.0f64, |worst, (&g, &w)| {
        let error = if g == w || (g.is_nan() && w.is_nan()) {
            0.0
        } else if g.is_finite() && w.is_finite() {
            (g - w).abs()
        } else {
            f64::INFINITY
        };
        worst.max(error)
    });
    if worst == 0.0 { 0.0 } else { worst / scale }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_are_relative_and_what_is_not_finite_must_be_equal() {
        let of = |v: &[f32]| Array::from_slice(v, &[v.len()]).unwrap();
        let (nan, inf) = (f32::NAN, f32::INFINITY);
        assert_eq!(relative_error(&of(&[1.0, 8.5]), &of(&[1.0, 8.0])), 0.5 / 8.0);
        assert_eq!(relative_error(&of(&[nan, inf, 2.0]), &of(&[nan, inf, 2.0])), 0.0);
        for wrong in [[nan, inf], [1.0, nan], [1.0, -inf], [1.0, 3.0]] {
            assert_eq!(relative_error(&of(&wrong), &of(&[1.0, inf])), f64::INFINITY);
        }
        assert_eq!(relative_error(&of(&[1.0]), &of(&[0.0])), f64::INFINITY);
        let int = |v: &[i64]| Array::from_slice(v, &[v.len()]).unwrap();
        let big = 1 << 53;
        assert_eq!(relative_error(&int(&[big]), &int(&[big])), 0.0);
        assert_eq!(relative_error(&int(&[big + 1]), &int(&[big])), f64::INFINITY);
    }
}
