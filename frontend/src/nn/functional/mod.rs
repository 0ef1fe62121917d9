//! Layers without state, and losses.

mod activation;
mod attention;
mod class_loss;
mod conv;
mod distance;
mod dropout;
mod embedding;
mod loss;
mod norm;
mod pad;
mod pool;
mod resample;

pub use activation::*;
pub use attention::*;
pub use class_loss::*;
pub use conv::*;
pub use distance::*;
pub use dropout::*;
pub use embedding::*;
pub use loss::*;
pub use norm::*;
pub use pad::*;
pub use pool::*;
pub use resample::*;

use crate::no_grad;
use crate::tensor::Tensor;
use sinter_runtime::DType;

/// How the losses of a batch become one number.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Reduction {
    /// Their mean.
    #[default]
    Mean,
    /// Their sum.
    Sum,
    /// They stay apart.
    None,
}

impl Reduction {
    #[track_caller]
    fn apply(self, loss: Tensor) -> Tensor {
        match self {
            Reduction::Mean => loss.mean(),
            Reduction::Sum => loss.sum(),
            Reduction::None => loss,
        }
    }
}

/// The fraction of rows of `scores` [N, C] whose largest element is at the class
/// in `target` `[N]`.
#[track_caller]
pub fn accuracy(scores: &Tensor, target: &Tensor) -> f64 {
    no_grad(|| {
        let hit = scores.detach().argmax_dim(-1, false).eq(target.to_dtype(DType::I64));
        hit.sum().item::<i64>() as f64 / target.numel().max(1) as f64
    })
}
