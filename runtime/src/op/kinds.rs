//! Attributes of ops that are one of a few names, and numbers that can be keys.

use super::UnaryOp;
use serde::{Deserialize, Serialize};

/// An f64 attribute that can be a key: equality, order and hash go by bits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Real(u64);

impl Real {
    /// Wraps a number.
    pub fn new(v: f64) -> Real {
        Real(v.to_bits())
    }
    /// The number.
    pub fn get(self) -> f64 {
        f64::from_bits(self.0)
    }
}

impl std::fmt::Debug for Real {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?}", self.get())
    }
}

macro_rules! named_enum {
    ($(#[$meta:meta])* $name:ident { $($(#[$doc:meta])* $v:ident = $text:literal,)* }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
        pub enum $name {
            $($(#[$doc])* $v,)*
        }
        impl $name {
            /// Every member.
            pub const ALL: &[$name] = &[$($name::$v),*];
            /// The name in text.
            pub const fn name(self) -> &'static str {
                match self { $($name::$v => $text),* }
            }
        }
    };
}

named_enum! {
    /// What a reduction computes.
    ReduceKind {
        /// Sum; 0 of nothing. Integers and bool add up in i64.
        Sum = "sum",
        /// Product; 1 of nothing.
        Prod = "prod",
        /// Largest; NaN if any is NaN; an error of nothing.
        Max = "max",
        /// Smallest; NaN if any is NaN; an error of nothing.
        Min = "min",
        /// Whether any is true.
        Any = "any",
        /// Whether all are true.
        All = "all",
    }
}
named_enum! {
    /// Which index a search along an axis finds: the first of equals.
    ArgKind {
        /// Of the largest.
        Max = "max",
        /// Of the smallest.
        Min = "min",
    }
}
named_enum! {
    /// What a scan accumulates along an axis.
    ScanKind {
        /// Running sum.
        Sum = "sum",
        /// Running product.
        Prod = "prod",
        /// Largest so far, and its i64 index: the last of equals. From the first NaN on,
        /// NaN. Forwards only.
        Max = "max",
        /// Smallest so far, and its i64 index, as for the largest.
        Min = "min",
        /// Logarithm of the running sum of exponentials.
        LogSumExp = "logsumexp",
    }
}
named_enum! {
    /// What happens where a scatter meets an element.
    ScatterKind {
        /// It is replaced.
        Set = "set",
        /// The source is added.
        Add = "add",
        /// It is multiplied by the source.
        Prod = "prod",
        /// The larger stays; NaN where either is NaN.
        Max = "max",
        /// The smaller stays; NaN where either is NaN.
        Min = "min",
    }
}
named_enum! {
    /// What a pooling window computes.
    PoolKind {
        /// Largest; padding never wins.
        Max = "max",
        /// Mean over the window, padding counted as zeros; what hangs out beyond the
        /// padding is not counted.
        Avg = "avg",
        /// Mean over the part of the window inside the input.
        AvgInside = "avg_inside",
    }
}
named_enum! {
    /// A distribution.
    RandomKind {
        /// Uniform on [0, 1).
        Uniform = "uniform",
        /// Standard normal.
        Normal = "normal",
    }
}
named_enum! {
    /// A distribution that is drawn by rejection, and its parameters.
    SampleKind {
        /// Gamma, of rate one and a shape.
        Gamma = "gamma",
        /// Poisson, of a rate.
        Poisson = "poisson",
        /// Binomial, of a number of trials and a probability.
        Binomial = "binomial",
    }
}
named_enum! {
    /// What a unit of a recurrent sequence computes from `g`, what the input contributes
    /// to its gates, and the state `h` before.
    CellKind {
        /// `tanh(g + w h)`.
        Tanh = "tanh",
        /// `max(g + w h, 0)`.
        Relu = "relu",
        /// Gates reset, update and new: `(1 - z) n + z h`, `n = tanh(g + r (w h + b))`.
        Gru = "gru",
        /// Gates in, forget, cell and out: `o tanh(c)` with `c = f c + i g`.
        Lstm = "lstm",
    }
}

impl CellKind {
    /// Rows of the weights for each unit.
    pub fn gates(self) -> usize {
        match self {
            CellKind::Tanh | CellKind::Relu => 1,
            CellKind::Gru => 3,
            CellKind::Lstm => 4,
        }
    }

    /// Whether the derivative needs values of gates, beside the results.
    pub fn is_gated(self) -> bool {
        matches!(self, CellKind::Gru | CellKind::Lstm)
    }
}

named_enum! {
    /// The activation that a contraction applies to its result.
    Act {
        /// None.
        None = "none",
        /// `max(x, 0)`.
        Relu = "relu",
        /// Exact GELU.
        Gelu = "gelu",
        /// GELU, tanh form.
        GeluTanh = "gelu_tanh",
        /// `x sigmoid(x)`.
        Silu = "silu",
        /// Logistic function.
        Sigmoid = "sigmoid",
        /// Hyperbolic tangent.
        Tanh = "tanh",
    }
}

impl Act {
    /// The unary op it is; `None` for [`Act::None`].
    pub fn unary(self) -> Option<UnaryOp> {
        Some(match self {
            Act::None => return None,
            Act::Relu => UnaryOp::Relu,
            Act::Gelu => UnaryOp::Gelu,
            Act::GeluTanh => UnaryOp::GeluTanh,
            Act::Silu => UnaryOp::Silu,
            Act::Sigmoid => UnaryOp::Sigmoid,
            Act::Tanh => UnaryOp::Tanh,
        })
    }

    /// The activation that a unary op is, if it is one.
    pub fn from_unary(op: UnaryOp) -> Option<Act> {
        Act::ALL.iter().copied().find(|a| a.unary() == Some(op))
    }
}
