//! The formulas.

use super::traced::by;
use super::{Optim, Rule, State};
use crate::nn::Param;
use crate::tensor::Tensor;
use sinter_runtime::update::Formula;
use sinter_runtime::{OpError, update};

macro_rules! lr_field {
    () => {
        fn lr(&self) -> f64 {
            self.0.lr
        }
        fn set_lr(&mut self, lr: f64) {
            self.0.lr = lr;
        }
    };
}

/// Methods that set an option of every group.
macro_rules! options {
    ($optimizer:ident { $($(#[$doc:meta])* $option:ident: $t:ty,)* }) => {
        impl $optimizer {
            $($(#[$doc])*
            pub fn $option(mut self, $option: $t) -> Self {
                for g in &mut self.groups {
                    g.options.0.$option = $option;
                }
                self
            })*
        }
    };
}

/// Options of stochastic gradient descent.
#[derive(Clone, Debug, PartialEq)]
pub struct SgdRule(pub update::Sgd);

/// Stochastic gradient descent, with momentum and weight decay where asked for.
pub type Sgd = Optim<SgdRule>;

impl Sgd {
    /// Plain descent.
    pub fn new(params: Vec<Param>, lr: f64) -> Sgd {
        Optim::with_options(
            params,
            SgdRule(update::Sgd {
                lr,
                momentum: 0.0,
                dampening: 0.0,
                weight_decay: 0.0,
                nesterov: false,
                maximize: false,
            }),
        )
    }

    /// With momentum.
    pub fn with_momentum(params: Vec<Param>, lr: f64, momentum: f64) -> Sgd {
        Sgd::new(params, lr).momentum(momentum)
    }
}

options!(Sgd {
    /// How much of the running gradient is kept.
    momentum: f64,
    /// How much of the new gradient the running one leaves out.
    dampening: f64,
    /// Adds this times the parameter to the gradient.
    weight_decay: f64,
    /// Looks ahead along the running gradient (Nesterov, 1983).
    nesterov: bool,
    /// Goes up instead of down.
    maximize: bool,
});

impl Rule for SgdRule {
    const NAME: &'static str = "sgd";
    fn state(&self) -> &'static [&'static str] {
        if self.0.momentum == 0.0 { &[] } else { &["momentum_buffer"] }
    }
    lr_field!();
    fn update(&self, param: &Tensor, grad: &Tensor, state: &State) -> Result<(), OpError> {
        let buffer = state.tensors.first().map(Tensor::array);
        update::sgd(&self.0, grad.array(), param.array(), buffer, state.step == 1)
    }
    fn numbers(&self, step: u64) -> Vec<f64> {
        if self.0.momentum == 0.0 {
            Formula::<1, 1>::numbers(&self.0, step).into()
        } else {
            Formula::<2, 3>::numbers(&self.0, step).into()
        }
    }
    fn traced(&self, numbers: &[Tensor], grad: &Tensor, values: &[Tensor]) -> Vec<Tensor> {
        if self.0.momentum == 0.0 {
            by::<_, 1, 1>(&self.0, numbers, grad, values)
        } else {
            by::<_, 2, 3>(&self.0, numbers, grad, values)
        }
    }
}

/// Options of Adam and AdamW.
#[derive(Clone, Debug, PartialEq)]
pub struct AdamRule(pub update::Adam);

/// Adam (Kingma and Ba, 2015).
pub type Adam = Optim<AdamRule>;

fn adam(lr: f64, weight_decay: f64, decoupled: bool) -> AdamRule {
    AdamRule(update::Adam {
        lr,
        betas: [0.9, 0.999],
        eps: 1e-8,
        weight_decay,
        decoupled,
        maximize: false,
    })
}

impl Adam {
    /// Betas 0.9 and 0.999, eps 1e-8, no weight decay.
    pub fn new(params: Vec<Param>, lr: f64) -> Adam {
        Optim::with_options(params, adam(lr, 0.0, false))
    }
}

options!(Adam {
    /// How much of the running means of the gradient and of its square is kept.
    betas: [f64; 2],
    /// Added to the root of the mean square.
    eps: f64,
    /// Adds this times the parameter to the gradient; of AdamW, takes this times the
    /// learning rate off the parameter itself.
    weight_decay: f64,
    /// Goes up instead of down.
    maximize: bool,
});

/// Makes AdamW optimizers (Loshchilov and Hutter, 2019): [`Adam`] with weight decay
/// taken off the parameter itself.
pub struct AdamW;

impl AdamW {
    /// Betas 0.9 and 0.999, eps 1e-8, weight decay 0.01.
    #[allow(clippy::new_ret_no_self)]
    pub fn new(params: Vec<Param>, lr: f64) -> Adam {
        Optim::with_options(params, adam(lr, 0.01, true))
    }
}

impl Rule for AdamRule {
    const NAME: &'static str = "adam";
    fn state(&self) -> &'static [&'static str] {
        &["exp_avg", "exp_avg_sq"]
    }
    lr_field!();
    fn update(&self, param: &Tensor, grad: &Tensor, state: &State) -> Result<(), OpError> {
        update::adam(
            &self.0,
            state.step,
            grad.array(),
            param.array(),
            state.tensors[0].array(),
            state.tensors[1].array(),
        )
    }
    fn numbers(&self, step: u64) -> Vec<f64> {
        Formula::<3, 3>::numbers(&self.0, step).into()
    }
    fn traced(&self, numbers: &[Tensor], grad: &Tensor, values: &[Tensor]) -> Vec<Tensor> {
        by::<_, 3, 3>(&self.0, numbers, grad, values)
    }
}

/// Options of Adadelta.
#[derive(Clone, Debug, PartialEq)]
pub struct AdadeltaRule(pub update::Adadelta);

/// Adadelta (Zeiler, 2012).
pub type Adadelta = Optim<AdadeltaRule>;

impl Adadelta {
    /// Rho 0.9, eps 1e-6, no weight decay.
    pub fn new(params: Vec<Param>, lr: f64) -> Adadelta {
        Optim::with_options(
            params,
            AdadeltaRule(update::Adadelta {
                lr,
                rho: 0.9,
                eps: 1e-6,
                weight_decay: 0.0,
                maximize: false,
            }),
        )
    }
}

options!(Adadelta {
    /// How much of the running mean squares is kept.
    rho: f64,
    /// Added to the mean squares.
    eps: f64,
    /// Adds this times the parameter to the gradient.
    weight_decay: f64,
    /// Goes up instead of down.
    maximize: bool,
});

impl Rule for AdadeltaRule {
    const NAME: &'static str = "adadelta";
    fn state(&self) -> &'static [&'static str] {
        &["square_avg", "acc_delta"]
    }
    lr_field!();
    fn update(&self, param: &Tensor, grad: &Tensor, state: &State) -> Result<(), OpError> {
        update::adadelta(
            &self.0,
            grad.array(),
            param.array(),
            state.tensors[0].array(),
            state.tensors[1].array(),
        )
    }
    fn numbers(&self, step: u64) -> Vec<f64> {
        self.0.numbers(step).into()
    }
    fn traced(&self, numbers: &[Tensor], grad: &Tensor, values: &[Tensor]) -> Vec<Tensor> {
        by(&self.0, numbers, grad, values)
    }
}

/// Options of RMSprop.
#[derive(Clone, Debug, PartialEq)]
pub struct RmsPropRule(pub update::RmsProp);

/// RMSprop (Hinton, lecture 6e).
pub type RmsProp = Optim<RmsPropRule>;

impl RmsProp {
    /// Alpha 0.99, eps 1e-8, no momentum, no weight decay.
    pub fn new(params: Vec<Param>, lr: f64) -> RmsProp {
        Optim::with_options(
            params,
            RmsPropRule(update::RmsProp {
                lr,
                alpha: 0.99,
                eps: 1e-8,
                weight_decay: 0.0,
                momentum: 0.0,
                maximize: false,
            }),
        )
    }
}

options!(RmsProp {
    /// How much of the running mean square is kept.
    alpha: f64,
    /// Added to the root of the mean square.
    eps: f64,
    /// How much of the running step is kept.
    momentum: f64,
    /// Adds this times the parameter to the gradient.
    weight_decay: f64,
    /// Goes up instead of down.
    maximize: bool,
});

impl Rule for RmsPropRule {
    const NAME: &'static str = "rms_prop";
    fn state(&self) -> &'static [&'static str] {
        if self.0.momentum == 0.0 { &["square_avg"] } else { &["square_avg", "momentum_buffer"] }
    }
    lr_field!();
    fn update(&self, param: &Tensor, grad: &Tensor, state: &State) -> Result<(), OpError> {
        let buffer = state.tensors.get(1).map(Tensor::array);
        let square = state.tensors[0].array();
        update::rms_prop(&self.0, grad.array(), param.array(), square, buffer)
    }
    fn numbers(&self, step: u64) -> Vec<f64> {
        Formula::<2, 1>::numbers(&self.0, step).into()
    }
    fn traced(&self, numbers: &[Tensor], grad: &Tensor, values: &[Tensor]) -> Vec<Tensor> {
        if self.0.momentum == 0.0 {
            by::<_, 2, 1>(&self.0, numbers, grad, values)
        } else {
            by::<_, 3, 1>(&self.0, numbers, grad, values)
        }
    }
}

/// Options of Adagrad.
#[derive(Clone, Debug, PartialEq)]
pub struct AdagradRule(pub update::Adagrad);

/// Adagrad (Duchi et al., 2011).
pub type Adagrad = Optim<AdagradRule>;

impl Adagrad {
    /// No decay of the rate, eps 1e-10, no weight decay.
    pub fn new(params: Vec<Param>, lr: f64) -> Adagrad {
        Optim::with_options(
            params,
            AdagradRule(update::Adagrad {
                lr,
                lr_decay: 0.0,
                eps: 1e-10,
                weight_decay: 0.0,
                maximize: false,
            }),
        )
    }
}

options!(Adagrad {
    /// The rate falls as 1 / (1 + steps × this).
    lr_decay: f64,
    /// Added to the root of the sum of squares.
    eps: f64,
    /// Adds this times the parameter to the gradient.
    weight_decay: f64,
    /// Goes up instead of down.
    maximize: bool,
});

impl Rule for AdagradRule {
    const NAME: &'static str = "adagrad";
    fn state(&self) -> &'static [&'static str] {
        &["sum"]
    }
    lr_field!();
    fn update(&self, param: &Tensor, grad: &Tensor, state: &State) -> Result<(), OpError> {
        update::adagrad(&self.0, state.step, grad.array(), param.array(), state.tensors[0].array())
    }
    fn numbers(&self, step: u64) -> Vec<f64> {
        self.0.numbers(step).into()
    }
    fn traced(&self, numbers: &[Tensor], grad: &Tensor, values: &[Tensor]) -> Vec<Tensor> {
        by(&self.0, numbers, grad, values)
    }
}
