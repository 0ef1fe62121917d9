//! Composites in place: the value is computed, then stored.

use super::{binary_in_place, original, store};
use crate::tensor::{Operand, Tensor};
use sinter_runtime::op::BinaryOp;
use smallvec::SmallVec;

/// Composites in place.
impl Tensor {
    /// `self += other * alpha`
    #[track_caller]
    pub fn add_scaled_(&self, other: &Tensor, alpha: f64) -> &Tensor {
        self.add_(other * alpha)
    }

    /// Limits to `[min, max]`, either of which may be `None`.
    #[track_caller]
    pub fn clamp_(&self, min: impl Into<Option<f64>>, max: impl Into<Option<f64>>) -> &Tensor {
        let x = original(self, &[]);
        store("clamp_", self, &x.clamp(min, max))
    }

    /// Limits to tensors that broadcast, either of which may be absent.
    #[track_caller]
    pub fn clamp_tensor_(&self, min: Option<&Tensor>, max: Option<&Tensor>) -> &Tensor {
        let bounds: SmallVec<[&Tensor; 2]> = min.into_iter().chain(max).collect();
        let x = original(self, &bounds);
        store("clamp_tensor_", self, &x.clamp_tensor(min, max))
    }

    /// `self += weight * (end - self)`
    #[track_caller]
    pub fn lerp_(&self, end: &Tensor, weight: impl Operand) -> &Tensor {
        let weight = weight.as_tensor(self.dtype());
        let x = original(self, &[end, &weight]);
        store("lerp_", self, &x.lerp(end, &*weight))
    }

    /// `self += value * a * b`
    #[track_caller]
    pub fn addcmul_(&self, a: &Tensor, b: &Tensor, value: f64) -> &Tensor {
        binary_in_place("addcmul_", BinaryOp::Add, self, &(a * b * value));
        self
    }

    /// `self += value * a / b`
    #[track_caller]
    pub fn addcdiv_(&self, a: &Tensor, b: &Tensor, value: f64) -> &Tensor {
        binary_in_place("addcdiv_", BinaryOp::Add, self, &(a / b * value));
        self
    }

    /// 0 where negative, 1 where positive, else `values`.
    #[track_caller]
    pub fn heaviside_(&self, values: &Tensor) -> &Tensor {
        let x = original(self, &[values]);
        store("heaviside_", self, &x.heaviside(values))
    }
}

macro_rules! stored {
    ($($method:ident = $of:ident($($arg:ident: $t:ty),*);)*) => {
        /// Composites in place.
        impl Tensor {
            $(#[doc = concat!("[`", stringify!($of), "`](Tensor::", stringify!($of), ") in place.")]
            #[track_caller]
            pub fn $method(&self, $($arg: $t),*) -> &Tensor {
                let x = original(self, &[]);
                store(stringify!($method), self, &x.$of($($arg),*))
            })*
        }
    };
}
stored! {
    tril_ = tril(diagonal: i64);
    triu_ = triu(diagonal: i64);
    cumsum_ = cumsum(dim: i64);
    cumprod_ = cumprod(dim: i64);
    softplus_ = softplus();
    gelu_ = gelu();
    sgn_ = sgn();
    frac_ = frac();
    sinc_ = sinc();
    logit_ = logit(eps: impl Into<Option<f64>>);
    deg2rad_ = deg2rad();
    rad2deg_ = rad2deg();
    logical_not_ = logical_not();
    round_decimals_ = round_decimals(decimals: i32);
    nan_to_num_ = nan_to_num(
        nan: f64, posinf: impl Into<Option<f64>>, neginf: impl Into<Option<f64>>
    );
}

macro_rules! stored_binary {
    ($($method:ident = $of:ident;)*) => {
        /// Composites of two operands in place.
        impl Tensor {
            $(#[doc = concat!("[`", stringify!($of), "`](Tensor::", stringify!($of), ") in place.")]
            #[track_caller]
            pub fn $method(&self, other: impl Operand) -> &Tensor {
                let other = other.as_tensor(other.meet(self));
                let x = original(self, &[&other]);
                store(stringify!($method), self, &x.$of(&*other))
            })*
        }
    };
}
stored_binary! {
    clamp_min_ = clamp_min;
    clamp_max_ = clamp_max;
    true_divide_ = true_divide;
    float_power_ = float_power;
    xlogy_ = xlogy;
    ldexp_ = ldexp;
    lcm_ = lcm;
    fmax_ = fmax;
    fmin_ = fmin;
    logaddexp_ = logaddexp;
    logaddexp2_ = logaddexp2;
}

/// Truth values in place, stored as the tensor's type.
impl Tensor {
    /// Where both are true (not zero).
    #[track_caller]
    pub fn logical_and_(&self, other: &Tensor) -> &Tensor {
        store("logical_and_", self, &self.logical_and(other))
    }

    /// Where either is true (not zero).
    #[track_caller]
    pub fn logical_or_(&self, other: &Tensor) -> &Tensor {
        store("logical_or_", self, &self.logical_or(other))
    }

    /// Where exactly one is true (not zero).
    #[track_caller]
    pub fn logical_xor_(&self, other: &Tensor) -> &Tensor {
        store("logical_xor_", self, &self.logical_xor(other))
    }
}
