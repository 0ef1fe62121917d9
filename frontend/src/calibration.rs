//! Examples for programs with integers.

use crate::tensor::Tensor;
use sinter_compiler as compiler;
use sinter_compiler::CalibrationMethod;
use sinter_runtime::Array;

/// Inputs of the kind a program will see, from which the ranges of its layers are taken
/// that integers then stand for: some hundred typical ones do.
///
/// For [`Precision::Int8`](crate::Precision::Int8), as of Jacob et al., "Quantization and
/// Training of Neural Networks for Efficient Integer-Arithmetic-Only Inference" (2018,
/// arXiv:1712.05877): products and convolutions by constants are computed with integers
/// of eight bits and summed up exactly, weights with a scale for each output channel,
/// what is multiplied with them with one for all. Between layers everything is f32.
/// Depthwise convolutions, recurrent layers and products of two computed tensors stay as
/// they are.
///
/// ```
/// use sinter::nn::{Layer, Linear};
/// use sinter::{Calibration, Compiler, Precision, manual_seed, randn};
///
/// manual_seed(0);
/// let (model, x) = (Linear::new(64, 32), randn([8, 64]));
/// let data = Calibration::new([&randn([8, 64]), &randn([8, 64])]).held_out([&x]);
/// let int8 = Compiler::new().precision(Precision::Int8).calibration(data);
/// let compiled = int8.compile(&model, &x).unwrap();
/// let (y, want) = (compiled.call(&x).unwrap(), model.forward(&x));
/// assert!((&y - &want).abs().max().item::<f32>() < 0.05 * want.abs().max().item::<f32>());
/// let accuracy = compiled.report().accuracy.as_ref().unwrap();
/// assert!(accuracy.outputs[1].held_out && accuracy.outputs[1].difference.sqnr_db() > 25.0);
/// println!("{}", accuracy.text());
/// ```
#[derive(Clone, Debug, Default)]
pub struct Calibration(pub(crate) compiler::Calibration);

fn runs<'a, I: AsRef<[&'a Tensor]>>(inputs: impl IntoIterator<Item = I>) -> Vec<Vec<Array>> {
    let run = |i: I| i.as_ref().iter().map(|t| t.array().clone()).collect();
    inputs.into_iter().map(run).collect()
}

impl Calibration {
    /// Examples for a model with one input.
    pub fn new<'a>(inputs: impl IntoIterator<Item = &'a Tensor>) -> Calibration {
        Calibration::with(inputs.into_iter().map(|x| [x]))
    }

    /// Examples for a model with several: those of a run together.
    pub fn with<'a, I: AsRef<[&'a Tensor]>>(inputs: impl IntoIterator<Item = I>) -> Calibration {
        Calibration(compiler::Calibration { inputs: runs(inputs), ..Default::default() })
    }

    /// Examples of a model with one input that ranges are not taken from: the report says
    /// how accurate the program is on them, too.
    pub fn held_out<'a>(self, inputs: impl IntoIterator<Item = &'a Tensor>) -> Calibration {
        self.held_out_with(inputs.into_iter().map(|x| [x]))
    }

    /// [`Calibration::held_out`] for a model with several inputs.
    pub fn held_out_with<'a, I: AsRef<[&'a Tensor]>>(
        mut self,
        inputs: impl IntoIterator<Item = I>,
    ) -> Calibration {
        self.0.held_out = runs(inputs);
        self
    }

    /// How ranges come from what is seen: from the extremes, if not said.
    pub fn method(mut self, method: CalibrationMethod) -> Calibration {
        self.0.method = method;
        self
    }

    /// Layers that stay in f32: by the names of modules, which may hold several (those of
    /// [`Module::named_parameters`](crate::nn::Module::named_parameters), without the
    /// parameter's own).
    pub fn keep_f32<S: Into<String>>(mut self, names: impl IntoIterator<Item = S>) -> Calibration {
        self.0.keep = names.into_iter().map(Into::into).collect();
        self
    }
}
