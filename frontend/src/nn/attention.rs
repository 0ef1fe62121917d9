//! Attention and the transformer block (Vaswani et al., 2017).

use super::{Dropout, Layer, LayerNorm, Linear, Module, functional as F};
use crate::tensor::Tensor;

/// Attention in several heads over [N, T, E].
#[derive(Debug, Module)]
pub struct MultiHeadAttention {
    /// Query projection.
    pub q: Linear,
    /// Key projection.
    pub k: Linear,
    /// Value projection.
    pub v: Linear,
    /// Output projection.
    pub out: Linear,
    heads: usize,
}

impl MultiHeadAttention {
    /// `size` is divided among `heads`.
    ///
    /// # Panics
    /// If it does not divide.
    #[track_caller]
    pub fn new(size: usize, heads: usize) -> MultiHeadAttention {
        if heads == 0 || !size.is_multiple_of(heads) {
            panic!("MultiHeadAttention: {size} does not divide into {heads} heads");
        }
        let projection = || Linear::new(size, size);
        MultiHeadAttention {
            q: projection(),
            k: projection(),
            v: projection(),
            out: projection(),
            heads,
        }
    }

    /// Attends from `x` [N, T, E] to `memory` [N, S, E].
    #[track_caller]
    pub fn attend(
        &self,
        x: &Tensor,
        memory: &Tensor,
        mask: Option<&Tensor>,
        causal: bool,
    ) -> Tensor {
        let heads = |t: Tensor| {
            let (n, s, e) = (t.size(0), t.size(1), t.size(2));
            t.reshape([n, s, self.heads, e / self.heads]).transpose(1, 2)
        };
        let q = heads(self.q.forward(x));
        let k = heads(self.k.forward(memory));
        let v = heads(self.v.forward(memory));
        let y = F::scaled_dot_product_attention(&q, &k, &v, mask, causal);
        let y = y.transpose(1, 2).reshape([x.size(0), x.size(1), x.size(2)]);
        self.out.forward(&y)
    }
}

impl Layer for MultiHeadAttention {
    #[track_caller]
    fn forward(&self, x: &Tensor) -> Tensor {
        self.attend(x, x, None, false)
    }
}

/// Attention and a two-layer network, each behind a normalisation and around a
/// residual path (the "pre-norm" order).
#[derive(Debug, Module)]
pub struct TransformerEncoderLayer {
    /// Before attention.
    pub norm1: LayerNorm,
    /// Attention.
    pub attention: MultiHeadAttention,
    /// Before the network.
    pub norm2: LayerNorm,
    /// Into the network.
    pub fc1: Linear,
    /// Out of the network.
    pub fc2: Linear,
    dropout: Dropout,
}

impl TransformerEncoderLayer {
    /// `size` in `heads`, a network of `hidden`, dropout 0.1.
    #[track_caller]
    pub fn new(size: usize, heads: usize, hidden: usize) -> TransformerEncoderLayer {
        TransformerEncoderLayer {
            norm1: LayerNorm::new(size),
            attention: MultiHeadAttention::new(size, heads),
            norm2: LayerNorm::new(size),
            fc1: Linear::new(size, hidden),
            fc2: Linear::new(hidden, size),
            dropout: Dropout::new(0.1),
        }
    }
}

impl Layer for TransformerEncoderLayer {
    #[track_caller]
    fn forward(&self, x: &Tensor) -> Tensor {
        let a = self.attention.forward(&self.norm1.forward(x));
        let x = x + self.dropout.forward(&a);
        let h = self.fc2.forward(&self.fc1.forward(&self.norm2.forward(&x)).gelu());
        &x + self.dropout.forward(&h)
    }
}
