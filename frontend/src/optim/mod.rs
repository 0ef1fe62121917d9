//! Optimizers and learning-rate schedules.
//!
//! An optimizer holds the parameters in groups, each with options of its own, and
//! changes them in place, one fused pass over memory a parameter. Formulas,
//! defaults and the place of `eps` are PyTorch's.
//!
//! ```
//! use sinter::nn::{Layer, Linear, Module, functional as F};
//! use sinter::optim::{Optimizer, Sgd};
//! use sinter::{ones, zeros};
//!
//! let model = Linear::new(3, 1);
//! let mut opt = Sgd::new(model.parameters(), 0.1);
//! let mut last = f32::MAX;
//! for _ in 0..20 {
//!     opt.zero_grad();
//!     let loss = F::mse_loss(&model.forward(&ones([4, 3])), &zeros([4, 1]), F::Reduction::Mean);
//!     loss.backward();
//!     opt.step();
//!     last = loss.item();
//! }
//! assert!(last < 1e-3);
//! ```

mod rules;
mod schedule;
mod traced;

pub use rules::{Adadelta, Adagrad, Adam, AdamW, RmsProp, Sgd};
#[doc(hidden)]
pub use traced::Counted;

pub use schedule::{
    ConstantLr, CosineAnnealing, Exponential, LambdaLr, LrScheduler, MultiStep, OneCycle, Schedule,
    StepLr,
};

use crate::nn::{Param, StateDict};
use crate::no_grad;
use crate::tensor::{Tensor, scalar, zeros_like};
use crate::trace::Session;
use sinter_runtime::{DType, Device};
use thiserror::Error;

/// Parameters that share options.
#[derive(Clone, Debug)]
struct Group<O> {
    params: Vec<Param>,
    options: O,
}

/// What an optimizer keeps for each parameter.
#[derive(Clone, Debug, Default)]
pub struct State {
    /// Steps taken.
    pub step: u64,
    /// Running tensors, by the names of [`Rule::state`].
    pub tensors: Vec<Tensor>,
}

/// A formula by which a parameter follows its gradient.
pub trait Rule: Clone {
    /// Name, for errors.
    const NAME: &'static str;
    /// Names of the running tensors kept for a parameter.
    fn state(&self) -> &'static [&'static str];

    /// The learning rate.
    fn lr(&self) -> f64;
    /// Sets the learning rate.
    fn set_lr(&mut self, lr: f64);
    /// Changes a parameter in place. `state` holds the running tensors, and the
    /// number of this step, counted from 1.
    #[doc(hidden)]
    fn update(
        &self,
        param: &Tensor,
        grad: &Tensor,
        state: &State,
    ) -> Result<(), sinter_runtime::OpError>;
    /// The numbers of the formula that differ from step to step, counted from 1.
    #[doc(hidden)]
    fn numbers(&self, step: u64) -> Vec<f64>;
    /// The new values of a parameter and its running tensors, in ops.
    #[doc(hidden)]
    fn traced(&self, numbers: &[Tensor], grad: &Tensor, values: &[Tensor]) -> Vec<Tensor>;
}

/// An optimizer by the rule `O`.
#[derive(Clone, Debug)]
pub struct Optim<O> {
    groups: Vec<Group<O>>,
    state: Vec<Vec<State>>,
}

/// Why a state does not fit an optimizer.
#[derive(Debug, Clone, PartialEq, Error)]
#[error("the state does not belong to this optimizer: {0}")]
pub struct OptimStateError(String);

impl<O: Rule> Optim<O> {
    /// All parameters in one group.
    fn with_options(params: Vec<Param>, options: O) -> Optim<O> {
        let state = vec![vec![State::default(); params.len()]];
        Optim { groups: vec![Group { params, options }], state }
    }

    /// Takes over the parameter groups of another optimizer, with their options.
    ///
    /// ```
    /// use sinter::nn::{Linear, Module};
    /// use sinter::optim::{Optimizer, Sgd};
    /// let (body, head) = (Linear::new(4, 8), Linear::new(8, 2));
    /// let opt = Sgd::new(body.parameters(), 0.01)
    ///     .momentum(0.9)
    ///     .join(Sgd::new(head.parameters(), 0.1).weight_decay(1e-4));
    /// assert_eq!(opt.lrs(), [0.01, 0.1]);
    /// ```
    pub fn join(mut self, other: Optim<O>) -> Optim<O> {
        self.groups.extend(other.groups);
        self.state.extend(other.state);
        self
    }
}

/// What every optimizer does.
pub trait Optimizer {
    /// Changes every parameter that has a gradient.
    ///
    /// # Panics
    /// If a gradient does not fit its parameter.
    fn step(&mut self);

    /// Forgets all gradients.
    fn zero_grad(&self);

    /// Learning rate of each group.
    fn lrs(&self) -> Vec<f64>;

    /// Sets the learning rate of each group.
    fn set_lrs(&mut self, lrs: &[f64]);

    /// Steps and running tensors, to save; sharing memory with the optimizer.
    fn state_dict(&self) -> StateDict;

    /// Takes up a saved state.
    ///
    /// # Errors
    /// When it does not fit; the optimizer is unchanged then.
    fn load_state_dict(&mut self, state: &StateDict) -> Result<(), OptimStateError>;

    /// The parameters, of all groups.
    #[doc(hidden)]
    fn params(&self) -> Vec<Param> {
        Vec::new()
    }

    /// Traces the change of every parameter that has a gradient; `None` where the
    /// optimizer has no form in ops.
    #[doc(hidden)]
    fn trace_update(&mut self, _: &mut Session) -> Option<Vec<Counted>> {
        None
    }

    /// Counts a step that a compiled program makes and gives its numbers; `None`, and
    /// nothing is counted, where parameters that it takes together differ in their steps.
    #[doc(hidden)]
    fn count(&mut self, _: &[Counted]) -> Option<Vec<Vec<f64>>> {
        None
    }
}

impl<O: Rule> Optimizer for Optim<O> {
    #[track_caller]
    fn step(&mut self) {
        crate::batch::before_write();
        let _guard = crate::autograd::no_grad_guard();
        for (g, states) in self.groups.iter().zip(&mut self.state) {
            for (p, s) in g.params.iter().zip(states) {
                let Some(grad) = p.grad() else { continue };
                if s.tensors.is_empty() {
                    s.tensors = g.options.state().iter().map(|_| zeros_like(p)).collect();
                }
                s.step += 1;
                if p.device() != Device::Cpu {
                    traced::update_by_ops(&g.options, p, &grad, s);
                    continue;
                }
                if let Err(e) = g.options.update(p, &grad, s) {
                    let name = p.name().map_or(String::new(), |n| format!(" (parameter `{n}`)"));
                    panic!("{e}{name}");
                }
                crate::autograd::note_write(
                    p.array().block(),
                    O::NAME,
                    std::panic::Location::caller(),
                    false,
                );
            }
        }
    }

    fn params(&self) -> Vec<Param> {
        self.groups.iter().flat_map(|g| g.params.iter().cloned()).collect()
    }

    fn trace_update(&mut self, session: &mut Session) -> Option<Vec<Counted>> {
        Some(traced::update(&self.groups, &mut self.state, session))
    }

    fn count(&mut self, counted: &[Counted]) -> Option<Vec<Vec<f64>>> {
        traced::count(&self.groups, &mut self.state, counted)
    }

    fn zero_grad(&self) {
        for p in self.groups.iter().flat_map(|g| &g.params) {
            p.tensor().zero_grad();
        }
    }

    fn lrs(&self) -> Vec<f64> {
        self.groups.iter().map(|g| g.options.lr()).collect()
    }

    fn set_lrs(&mut self, lrs: &[f64]) {
        for (g, &lr) in self.groups.iter_mut().zip(lrs) {
            g.options.set_lr(lr);
        }
    }

    fn state_dict(&self) -> StateDict {
        let mut out = StateDict::new();
        for (i, states) in self.state.iter().enumerate() {
            out.insert(format!("{i}.lr"), scalar(self.groups[i].options.lr(), DType::F64));
            for (j, s) in states.iter().enumerate().filter(|(_, s)| s.step > 0) {
                out.insert(format!("{i}.{j}.step"), scalar(s.step as i64, DType::I64));
                for (name, t) in self.groups[i].options.state().iter().zip(&s.tensors) {
                    out.insert(format!("{i}.{j}.{name}"), t.detach());
                }
            }
        }
        out
    }

    fn load_state_dict(&mut self, state: &StateDict) -> Result<(), OptimStateError> {
        let bad = |why: String| OptimStateError(why);
        let number = |key: String| match state.get(&key) {
            Some(t) if t.numel() == 1 => Ok(t),
            Some(t) => Err(bad(format!("`{key}` has shape {:?}, expected one number", t.shape()))),
            None => Err(bad(format!("`{key}` is missing"))),
        };
        let mut used = 0;
        let mut lrs = Vec::new();
        let mut loaded = self.state.clone();
        for (i, g) in self.groups.iter().enumerate() {
            lrs.push(number(format!("{i}.lr"))?.item::<f64>());
            used += 1;
            for (j, p) in g.params.iter().enumerate() {
                let key = format!("{i}.{j}.step");
                if !state.contains_key(&key) {
                    loaded[i][j] = State::default();
                    continue;
                }
                let step = number(key)?;
                used += 1;
                let mut tensors = Vec::new();
                for name in g.options.state() {
                    let key = format!("{i}.{j}.{name}");
                    let t = state.get(&key).ok_or_else(|| bad(format!("`{key}` is missing")))?;
                    if t.shape() != p.shape() {
                        return Err(bad(format!(
                            "`{key}` has shape {:?}, the parameter {:?}",
                            t.shape(),
                            p.shape()
                        )));
                    }
                    tensors.push(no_grad(|| t.to_dtype(p.dtype()).copy()));
                    used += 1;
                }
                loaded[i][j] = State { step: step.item::<i64>().max(0) as u64, tensors };
            }
        }
        if used != state.len() {
            return Err(bad(format!("{} entries are not used", state.len() - used)));
        }
        self.state = loaded;
        self.set_lrs(&lrs);
        Ok(())
    }
}
