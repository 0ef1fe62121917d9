//! The protocol of modules.

use crate::tensor::{Destination, Tensor};
use sinter_runtime::DType;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use thiserror::Error;

/// A tensor that is learned. Dereferences to the tensor.
#[derive(Clone, Debug)]
pub struct Param(Tensor);

impl Param {
    /// Makes a tensor a parameter: a leaf that requires a gradient.
    ///
    /// # Panics
    /// If it is not floating point, or the result of a recorded op.
    #[track_caller]
    pub fn new(t: Tensor) -> Param {
        Param(t.requires_grad_(true))
    }

    /// The tensor.
    pub fn tensor(&self) -> &Tensor {
        &self.0
    }
}

impl std::ops::Deref for Param {
    type Target = Tensor;
    fn deref(&self) -> &Tensor {
        &self.0
    }
}

/// A tensor that belongs to a model's state but is not learned, such as running
/// statistics. Dereferences to the tensor.
#[derive(Clone, Debug)]
pub struct Buffer(Tensor);

impl Buffer {
    /// Makes a tensor a buffer.
    pub fn new(t: Tensor) -> Buffer {
        Buffer(t)
    }
}

impl std::ops::Deref for Buffer {
    type Target = Tensor;
    fn deref(&self) -> &Tensor {
        &self.0
    }
}

/// Whether a layer that behaves differently in training is training.
#[derive(Debug)]
pub struct TrainFlag(AtomicBool);

impl Default for TrainFlag {
    fn default() -> TrainFlag {
        TrainFlag(AtomicBool::new(true))
    }
}

impl TrainFlag {
    /// Whether it is training.
    pub fn get(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// What walks a module.
pub trait Visit {
    /// Called before and after the fields of the part called `name`.
    fn enter(&mut self, name: &str);
    /// See [`Visit::enter`].
    fn leave(&mut self);
    /// A parameter of the current part.
    fn param(&mut self, p: &Param) {
        let _ = p;
    }
    /// A buffer of the current part.
    fn buffer(&mut self, b: &Buffer) {
        let _ = b;
    }
    /// A training switch of the current part.
    fn train_flag(&mut self, f: &TrainFlag) {
        let _ = f;
    }
}

/// What changes the tensors of a module for others.
pub trait VisitMut {
    /// A parameter.
    fn param(&mut self, p: &mut Param);
    /// A buffer.
    fn buffer(&mut self, b: &mut Buffer);
}

/// Puts tensors in the place of tensors; those that are one stay one.
struct Moved<F> {
    f: F,
    /// What was there, and what is now.
    done: Vec<(Tensor, Tensor)>,
}

impl<F: Fn(&Tensor) -> Tensor> Moved<F> {
    #[track_caller]
    fn tensor(&mut self, t: &Tensor) -> Tensor {
        if let Some((_, new)) = self.done.iter().find(|(old, _)| old.is_same(t)) {
            return new.clone();
        }
        let new = (self.f)(t);
        self.done.push((t.clone(), new.clone()));
        new
    }
}

impl<F: Fn(&Tensor) -> Tensor> VisitMut for Moved<F> {
    fn param(&mut self, p: &mut Param) {
        p.0 = self.tensor(&p.0);
    }
    fn buffer(&mut self, b: &mut Buffer) {
        b.0 = self.tensor(&b.0);
    }
}

/// A tensor by its path: `encoder.0.fc1.weight`.
pub type StateDict = BTreeMap<String, Tensor>;

/// What loading a state did not find or use.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LoadReport {
    /// Names the module has and the state lacks.
    pub missing: Vec<String>,
    /// Names the state has and the module lacks.
    pub unexpected: Vec<String>,
}

/// Why a state does not fit a module.
#[derive(Debug, Clone, PartialEq, Error)]
#[non_exhaustive]
pub enum StateError {
    /// A tensor of another shape.
    #[error("`{name}` has shape {got:?} in the state, the module expects {want:?}")]
    Shape {
        /// Its name.
        name: String,
        /// Shape in the state.
        got: Vec<usize>,
        /// Shape in the module.
        want: Vec<usize>,
    },
    /// A tensor of another kind of type (floats convert into each other).
    #[error("`{name}` is {got} in the state, the module expects {want}")]
    DType {
        /// Its name.
        name: String,
        /// Type in the state.
        got: DType,
        /// Type in the module.
        want: DType,
    },
    /// Names that do not match, where all must.
    #[error("the state does not match the module: missing {missing:?}, unexpected {unexpected:?}")]
    Names {
        /// Names the module has and the state lacks.
        missing: Vec<String>,
        /// Names the state has and the module lacks.
        unexpected: Vec<String>,
    },
}

/// Something made of parameters, buffers and other modules.
///
/// Derive it; [`Module::visit`] is then written for you. Fields of plain types are
/// passed over.
pub trait Module {
    /// Walks the parts, in the order of the fields.
    fn visit(&self, v: &mut dyn Visit);

    /// Walks the parameters and buffers to put others in their place.
    fn visit_mut(&mut self, v: &mut dyn VisitMut);

    /// The module with its parameters and buffers on another device, in another type
    /// (those that are floats), or both, as [`Tensor::to`]. Parameters that were elsewhere
    /// are new ones, without gradients: optimizers are made after the move.
    ///
    /// ```
    /// use sinter::nn::{Linear, Module};
    /// use sinter::{DType, Device};
    /// let layer = Linear::new(3, 2).to((Device::Cpu, DType::F64));
    /// assert!(layer.parameters().iter().all(|p| p.dtype() == DType::F64 && p.requires_grad()));
    /// ```
    ///
    /// # Panics
    /// If the device is not there, or its memory runs out.
    #[track_caller]
    fn to(mut self, destination: impl Destination) -> Self
    where
        Self: Sized,
    {
        let (dtype, device) = destination.place();
        let f = |t: &Tensor| {
            let dtype = dtype.filter(|_| t.dtype().is_float()).unwrap_or(t.dtype());
            let device = device.unwrap_or(t.device());
            if (device, dtype) == (t.device(), t.dtype()) {
                return t.clone();
            }
            let new = crate::no_grad(|| t.detach().to((device, dtype)));
            new.requires_grad_(t.requires_grad())
        };
        self.visit_mut(&mut Moved { f, done: vec![] });
        self
    }

    /// Parameters with their paths. Names them, too, for error messages.
    fn named_parameters(&self) -> Vec<(String, Param)> {
        struct Collect(Path, Vec<(String, Param)>);
        impl Visit for Collect {
            fn enter(&mut self, name: &str) {
                self.0.enter(name);
            }
            fn leave(&mut self) {
                self.0.leave();
            }
            fn param(&mut self, p: &Param) {
                // A tensor shared by two parts is one parameter.
                if !self.1.iter().any(|(_, q)| q.is_same(p)) {
                    let name = self.0.text();
                    p.set_name(&name);
                    self.1.push((name, p.clone()));
                }
            }
        }
        let mut c = Collect(Path::default(), vec![]);
        self.visit(&mut c);
        c.1
    }

    /// Parameters.
    fn parameters(&self) -> Vec<Param> {
        self.named_parameters().into_iter().map(|(_, p)| p).collect()
    }

    /// Buffers with their paths.
    fn named_buffers(&self) -> Vec<(String, Buffer)> {
        struct Collect(Path, Vec<(String, Buffer)>);
        impl Visit for Collect {
            fn enter(&mut self, name: &str) {
                self.0.enter(name);
            }
            fn leave(&mut self) {
                self.0.leave();
            }
            fn buffer(&mut self, b: &Buffer) {
                self.1.push((self.0.text(), b.clone()));
            }
        }
        let mut c = Collect(Path::default(), vec![]);
        self.visit(&mut c);
        c.1
    }

    /// Number of learned numbers.
    fn num_parameters(&self) -> usize {
        self.parameters().iter().map(|p| p.numel()).sum()
    }

    /// Forgets all gradients.
    fn zero_grad(&self) {
        for p in self.parameters() {
            p.tensor().zero_grad();
        }
    }

    /// Switches every part to training (or evaluation).
    fn train(&self, on: bool) {
        struct Set(bool);
        impl Visit for Set {
            fn enter(&mut self, _: &str) {}
            fn leave(&mut self) {}
            fn train_flag(&mut self, f: &TrainFlag) {
                f.0.store(self.0, Ordering::Relaxed);
            }
        }
        self.visit(&mut Set(on));
    }

    /// Switches every part to evaluation: dropout passes everything, batch
    /// normalisation uses its running statistics.
    fn eval(&self) {
        self.train(false);
    }

    /// Parameters and buffers by path, sharing memory with the module.
    fn state_dict(&self) -> StateDict {
        let params = self.named_parameters().into_iter().map(|(n, p)| (n, p.detach()));
        let buffers = self.named_buffers().into_iter().map(|(n, b)| (n, b.detach()));
        params.chain(buffers).collect()
    }

    /// Copies a state into the module. With `strict`, names must match exactly.
    ///
    /// # Errors
    /// When a tensor does not fit, or names do not match under `strict`; the module
    /// is unchanged then.
    fn load_state_dict(&self, state: &StateDict, strict: bool) -> Result<LoadReport, StateError> {
        let own = self.state_dict();
        let report = LoadReport {
            missing: own.keys().filter(|k| !state.contains_key(*k)).cloned().collect(),
            unexpected: state.keys().filter(|k| !own.contains_key(*k)).cloned().collect(),
        };
        if strict && report != LoadReport::default() {
            return Err(StateError::Names {
                missing: report.missing,
                unexpected: report.unexpected,
            });
        }
        for (name, to) in &own {
            let Some(from) = state.get(name) else { continue };
            if from.shape() != to.shape() {
                return Err(StateError::Shape {
                    name: name.clone(),
                    got: from.shape().to_vec(),
                    want: to.shape().to_vec(),
                });
            }
            let floats = from.dtype().is_float() && to.dtype().is_float();
            if from.dtype() != to.dtype() && !floats {
                return Err(StateError::DType {
                    name: name.clone(),
                    got: from.dtype(),
                    want: to.dtype(),
                });
            }
        }
        crate::no_grad(|| {
            for (name, to) in &own {
                if let Some(from) = state.get(name) {
                    to.copy_(from);
                }
            }
        });
        Ok(report)
    }
}

/// The path of the part being visited.
#[derive(Default)]
struct Path(Vec<String>);

impl Path {
    fn enter(&mut self, name: &str) {
        self.0.push(name.to_string());
    }
    fn leave(&mut self) {
        self.0.pop();
    }
    fn text(&self) -> String {
        self.0.join(".")
    }
}

/// A module that takes one tensor to one tensor.
pub trait Layer: Module {
    /// What the layer computes.
    fn forward(&self, x: &Tensor) -> Tensor;
}

impl Module for Param {
    fn visit(&self, v: &mut dyn Visit) {
        v.param(self);
    }
    fn visit_mut(&mut self, v: &mut dyn VisitMut) {
        v.param(self);
    }
}
impl Module for Buffer {
    fn visit(&self, v: &mut dyn Visit) {
        v.buffer(self);
    }
    fn visit_mut(&mut self, v: &mut dyn VisitMut) {
        v.buffer(self);
    }
}
impl Module for TrainFlag {
    fn visit(&self, v: &mut dyn Visit) {
        v.train_flag(self);
    }
    fn visit_mut(&mut self, _: &mut dyn VisitMut) {}
}

macro_rules! plain {
    ($($t:ty),*) => {$(
        impl Module for $t {
            fn visit(&self, _: &mut dyn Visit) {}
            fn visit_mut(&mut self, _: &mut dyn VisitMut) {}
        }
    )*};
}
plain!(bool, u8, i32, i64, u32, u64, usize, f32, f64, String, &str, (), DType);

impl<T: Module + ?Sized> Module for Box<T> {
    fn visit(&self, v: &mut dyn Visit) {
        (**self).visit(v);
    }
    fn visit_mut(&mut self, v: &mut dyn VisitMut) {
        (**self).visit_mut(v);
    }
}
impl<T: Layer + ?Sized> Layer for Box<T> {
    fn forward(&self, x: &Tensor) -> Tensor {
        (**self).forward(x)
    }
}
impl<T: Module> Module for Option<T> {
    fn visit(&self, v: &mut dyn Visit) {
        if let Some(m) = self {
            m.visit(v);
        }
    }
    fn visit_mut(&mut self, v: &mut dyn VisitMut) {
        if let Some(m) = self {
            m.visit_mut(v);
        }
    }
}
impl<T: Module> Module for [T] {
    fn visit(&self, v: &mut dyn Visit) {
        for (i, m) in self.iter().enumerate() {
            v.enter(&i.to_string());
            m.visit(v);
            v.leave();
        }
    }
    fn visit_mut(&mut self, v: &mut dyn VisitMut) {
        self.iter_mut().for_each(|m| m.visit_mut(v));
    }
}
impl<T: Module> Module for Vec<T> {
    fn visit(&self, v: &mut dyn Visit) {
        self.as_slice().visit(v);
    }
    fn visit_mut(&mut self, v: &mut dyn VisitMut) {
        self.as_mut_slice().visit_mut(v);
    }
}
impl<T: Module, const N: usize> Module for [T; N] {
    fn visit(&self, v: &mut dyn Visit) {
        self.as_slice().visit(v);
    }
    fn visit_mut(&mut self, v: &mut dyn VisitMut) {
        self.as_mut_slice().visit_mut(v);
    }
}
