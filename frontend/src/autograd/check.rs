//! Checking derivatives against differences.

use super::{Backward, enable_grad, no_grad};
use crate::tensor::{Tensor, from_slice};
use sinter_runtime::DType;
use thiserror::Error;

/// How derivatives are checked. The defaults are PyTorch's, for f64.
///
/// ```
/// use sinter::{autograd::GradCheck, randn, DType};
/// let x = randn([30, 40]).to_dtype(DType::F64).requires_grad_(true);
/// let check = GradCheck { fast: true, ..GradCheck::default() };
/// check.first(|x| vec![x[0].matmul(&x[0].t()).tanh()], &[x]).unwrap();
/// ```
#[derive(Clone, Copy, Debug)]
pub struct GradCheck {
    /// Step of the central difference.
    pub eps: f64,
    /// Absolute tolerance.
    pub atol: f64,
    /// Relative tolerance.
    pub rtol: f64,
    /// How much two backward passes over the same graph may differ.
    pub nondet_tol: f64,
    /// Whether the Jacobian is compared in one random direction of the inputs and one
    /// of the outputs only, instead of element by element.
    pub fast: bool,
}

impl Default for GradCheck {
    fn default() -> GradCheck {
        GradCheck { eps: 1e-6, atol: 1e-5, rtol: 1e-3, nondet_tol: 0.0, fast: false }
    }
}

/// What a derivative check found.
#[derive(Debug, Clone, PartialEq, Error)]
#[non_exhaustive]
pub enum GradCheckError {
    /// The derivative by one element differs.
    #[error(
        "derivative of output {output} (element {row}) by input {input} (element {column}): \
         analytical {analytical}, numerical {numerical}"
    )]
    Mismatch {
        /// Which output.
        output: usize,
        /// Which element of it, in row-major order.
        row: usize,
        /// Which input.
        input: usize,
        /// Which element of it, in row-major order.
        column: usize,
        /// By the backward pass.
        analytical: f64,
        /// By differences.
        numerical: f64,
    },
    /// The derivative in a random direction differs.
    #[error(
        "derivative of output {output} by input {input} in a random direction: analytical \
         {analytical}, numerical {numerical}; without `fast` the element is named"
    )]
    Direction {
        /// Which output.
        output: usize,
        /// Which input.
        input: usize,
        /// By the backward pass.
        analytical: f64,
        /// By differences.
        numerical: f64,
    },
    /// Two passes over one graph gave different gradients.
    #[error(
        "two backward passes from output {output} gave gradients of input {input} that differ by \
         {difference}"
    )]
    Nondeterministic {
        /// Which output.
        output: usize,
        /// Which input.
        input: usize,
        /// The largest difference.
        difference: f64,
    },
    /// A gradient of zeros became something else.
    #[error("a gradient of zeros for output {output} gave input {input} a gradient of {value}")]
    NotLinear {
        /// Which output.
        output: usize,
        /// Which input.
        input: usize,
        /// An element of it.
        value: f64,
    },
    /// No input requires a gradient, so nothing was checked.
    #[error("no input requires a gradient: nothing to check")]
    NothingToCheck,
    /// An input is not f64.
    #[error("input {0} is {1}; differences need f64")]
    NotDouble(usize, DType),
    /// An output has no history although an input requires a gradient.
    #[error("output {0} does not depend on any input through recorded ops")]
    NoHistory(usize),
}

impl GradCheck {
    /// Compares the derivatives of `f` at `inputs` with central differences.
    /// Inputs that require a gradient must be f64.
    ///
    /// # Errors
    /// The first derivative that differs, or why nothing could be checked.
    pub fn first(
        &self,
        f: impl Fn(&[Tensor]) -> Vec<Tensor>,
        inputs: &[Tensor],
    ) -> Result<(), GradCheckError> {
        self.check(f, inputs, false)
    }

    /// `constants`: outputs may have no history; their derivative is zero.
    fn check(
        &self,
        f: impl Fn(&[Tensor]) -> Vec<Tensor>,
        inputs: &[Tensor],
        constants: bool,
    ) -> Result<(), GradCheckError> {
        let checked: Vec<usize> =
            (0..inputs.len()).filter(|&i| inputs[i].requires_grad()).collect();
        if checked.is_empty() {
            return Err(GradCheckError::NothingToCheck);
        }
        for &i in &checked {
            if inputs[i].dtype() != DType::F64 {
                return Err(GradCheckError::NotDouble(i, inputs[i].dtype()));
            }
        }
        let outs = enable_grad(|| f(inputs));
        for (k, out) in outs.iter().enumerate().filter(|(_, o)| o.dtype().is_float()) {
            if !out.requires_grad() && !constants {
                return Err(GradCheckError::NoHistory(k));
            }
            let wanted: Vec<&Tensor> = checked.iter().map(|&i| &inputs[i]).collect();
            let direction = direction(out.numel(), k as u64 + 1);
            if out.requires_grad() {
                self.steady(out, &direction, &wanted, &checked, k)?;
            }
            if self.fast {
                self.project(&f, inputs, (k, out), &direction, &checked)?;
                continue;
            }
            // One row of the Jacobian a backward pass.
            let rows: Vec<Vec<Option<Tensor>>> = (0..out.numel())
                .map(|r| {
                    if !out.requires_grad() {
                        return vec![None; wanted.len()];
                    }
                    let mut unit = vec![0.0f64; out.numel()];
                    unit[r] = 1.0;
                    let g = from_slice(&unit, out.shape()).to_dtype(out.dtype());
                    Backward::new().retain_graph(true).gradient(&g).grad(&[out], &wanted)
                })
                .collect();
            for (w, &i) in checked.iter().enumerate() {
                self.compare(&f, inputs, k, i, &rows, w)?;
            }
        }
        Ok(())
    }

    /// Whether passes over the same graph agree, and zeros stay zeros.
    fn steady(
        &self,
        out: &Tensor,
        direction: &[f64],
        wanted: &[&Tensor],
        checked: &[usize],
        output: usize,
    ) -> Result<(), GradCheckError> {
        let pass = |v: &[f64]| {
            let g = from_slice(v, out.shape()).to_dtype(out.dtype());
            let grads = Backward::new().retain_graph(true).gradient(&g).grad(&[out], wanted);
            grads.iter().map(|g| g.as_ref().map(Tensor::to_vec::<f64>)).collect::<Vec<_>>()
        };
        let (first, second) = (pass(direction), pass(direction));
        let zeros = pass(&vec![0.0; direction.len()]);
        for (w, &input) in checked.iter().enumerate() {
            let (a, b) = (first[w].iter().flatten(), second[w].iter().flatten());
            let difference = a.zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
            if difference > self.nondet_tol {
                return Err(GradCheckError::Nondeterministic { output, input, difference });
            }
            // NaN comes from values, not from a gradient that is not there.
            let other = zeros[w].iter().flatten().find(|v| **v != 0.0 && !v.is_nan());
            if let Some(&value) = other {
                return Err(GradCheckError::NotLinear { output, input, value });
            }
        }
        Ok(())
    }

    /// Compares the derivatives of one output in random directions.
    fn project(
        &self,
        f: &impl Fn(&[Tensor]) -> Vec<Tensor>,
        inputs: &[Tensor],
        (output, out): (usize, &Tensor),
        v: &[f64],
        checked: &[usize],
    ) -> Result<(), GradCheckError> {
        let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
        for &i in checked {
            let u = direction(inputs[i].numel(), 1000 + i as u64);
            let at = |step: f64| {
                let values = inputs[i].to_vec::<f64>();
                let moved: Vec<f64> = values.iter().zip(&u).map(|(x, u)| x + step * u).collect();
                let mut all = inputs.to_vec();
                all[i] = from_slice(&moved, inputs[i].shape());
                no_grad(|| f(&all)[output].to_vec::<f64>())
            };
            let (plus, minus) = (at(self.eps), at(-self.eps));
            let numerical = (dot(&plus, v) - dot(&minus, v)) / (2.0 * self.eps);
            let analytical = if out.requires_grad() {
                let g = from_slice(v, out.shape()).to_dtype(out.dtype());
                let pass = Backward::new().retain_graph(true).gradient(&g);
                let grad = pass.grad(&[out], &[&inputs[i]]).swap_remove(0);
                grad.map_or(0.0, |g| dot(&g.to_vec::<f64>(), &u))
            } else {
                0.0
            };
            let close = (analytical - numerical).abs() <= self.atol + self.rtol * numerical.abs();
            if !(close || analytical.is_nan() && numerical.is_nan()) {
                return Err(GradCheckError::Direction { output, input: i, analytical, numerical });
            }
        }
        Ok(())
    }

    fn compare(
        &self,
        f: &impl Fn(&[Tensor]) -> Vec<Tensor>,
        inputs: &[Tensor],
        k: usize,
        i: usize,
        rows: &[Vec<Option<Tensor>>],
        w: usize,
    ) -> Result<(), GradCheckError> {
        let values = inputs[i].to_vec::<f64>();
        let at = |j: usize, step: f64| {
            let mut v = values.clone();
            v[j] += step;
            let mut moved = inputs.to_vec();
            moved[i] = from_slice(&v, inputs[i].shape());
            no_grad(|| f(&moved)[k].to_vec::<f64>())
        };
        let analytical: Vec<Option<Vec<f64>>> =
            rows.iter().map(|r| r[w].as_ref().map(Tensor::to_vec)).collect();
        for j in 0..values.len() {
            let (plus, minus) = (at(j, self.eps), at(j, -self.eps));
            for (r, a) in analytical.iter().enumerate() {
                let numerical = (plus[r] - minus[r]) / (2.0 * self.eps);
                let a = a.as_ref().map_or(0.0, |v| v[j]);
                let close = (a - numerical).abs() <= self.atol + self.rtol * numerical.abs();
                if !(close || a.is_nan() && numerical.is_nan()) {
                    return Err(GradCheckError::Mismatch {
                        output: k,
                        row: r,
                        input: i,
                        column: j,
                        analytical: a,
                        numerical,
                    });
                }
            }
        }
        Ok(())
    }

    /// Checks the derivatives of the derivatives of `f`: those of its gradient by
    /// its inputs and by the incoming gradient.
    ///
    /// # Errors
    /// As [`GradCheck::first`].
    pub fn second(
        &self,
        f: impl Fn(&[Tensor]) -> Vec<Tensor>,
        inputs: &[Tensor],
    ) -> Result<(), GradCheckError> {
        let n = inputs.len();
        let outs: Vec<Tensor> = f(inputs).into_iter().filter(|o| o.dtype().is_float()).collect();
        // Incoming gradients that are neither zero nor one.
        let seeds = outs.iter().enumerate().map(|(k, o)| {
            let v: Vec<f64> =
                (0..o.numel()).map(|i| 0.3 + ((i * 7 + k * 3) % 11) as f64 * 0.17).collect();
            from_slice(&v, o.shape()).requires_grad_(true)
        });
        let all: Vec<Tensor> = inputs.iter().cloned().chain(seeds).collect();
        let gradient = |xs: &[Tensor]| {
            enable_grad(|| {
                // Moved inputs come as constants: make them leaves again.
                let xs: Vec<Tensor> = xs
                    .iter()
                    .enumerate()
                    .map(|(i, x)| {
                        let wants = i >= n || inputs[i].requires_grad();
                        if wants && !x.requires_grad() {
                            x.detach().requires_grad_(true)
                        } else {
                            x.clone()
                        }
                    })
                    .collect();
                let outs: Vec<Tensor> =
                    f(&xs[..n]).into_iter().filter(|o| o.dtype().is_float()).collect();
                let wanted: Vec<&Tensor> = xs[..n].iter().filter(|x| x.requires_grad()).collect();
                let total = outs
                    .iter()
                    .zip(&xs[n..])
                    .map(|(o, g)| (o * g).sum())
                    .reduce(|a, b| a + b)
                    .expect("the function has an output");
                Backward::new()
                    .create_graph(true)
                    .grad(&[&total], &wanted)
                    .into_iter()
                    .flatten()
                    .collect::<Vec<_>>()
            })
        };
        // The gradient of a linear function is constant.
        self.check(gradient, &all, true)
    }
}

/// A vector of length one whose elements are neither zero nor alike (the fractional
/// parts of multiples of the golden ratio: nothing is drawn from the random stream).
fn direction(n: usize, seed: u64) -> Vec<f64> {
    const GOLDEN: f64 = 0.618_033_988_749_894_9;
    let v: Vec<f64> = (0..n)
        .map(|i| 1.1 - 2.0 * ((i as f64 + 1.0 + seed as f64 * 17.3) * GOLDEN).fract())
        .collect();
    let norm = v.iter().map(|x| x * x).sum::<f64>().sqrt().max(f64::MIN_POSITIVE);
    v.iter().map(|x| x / norm).collect()
}

/// Checks the derivatives of `f` with the default tolerances.
///
/// ```
/// use sinter::{autograd::gradcheck, tensor};
/// let x = tensor([0.3f64, -1.2]).requires_grad_(true);
/// gradcheck(|x| vec![x[0].tanh()], &[x]).unwrap();
/// ```
///
/// # Errors
/// As [`GradCheck::first`].
pub fn gradcheck(
    f: impl Fn(&[Tensor]) -> Vec<Tensor>,
    inputs: &[Tensor],
) -> Result<(), GradCheckError> {
    GradCheck::default().first(f, inputs)
}

/// Checks the second derivatives of `f` with the default tolerances.
///
/// # Errors
/// As [`GradCheck::first`].
pub fn gradgradcheck(
    f: impl Fn(&[Tensor]) -> Vec<Tensor>,
    inputs: &[Tensor],
) -> Result<(), GradCheckError> {
    GradCheck::default().second(f, inputs)
}
