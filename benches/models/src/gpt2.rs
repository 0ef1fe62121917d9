//! A causal language model (Radford et al., 2019), with a cache of keys and values.

use crate::Model;
use sinter::nn::{Embedding, Layer, LayerNorm, Linear, Module, functional as F};
use sinter::{Tensor, cat, stack};

/// Sizes of a [`Gpt2`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gpt2Config {
    /// Blocks.
    pub layers: usize,
    /// Features of a token.
    pub size: usize,
    /// Heads that share them.
    pub heads: usize,
    /// Tokens there are.
    pub vocabulary: usize,
    /// The longest sequence.
    pub positions: usize,
}

impl Gpt2Config {
    /// The sizes of GPT-2 small.
    pub const SMALL: Gpt2Config =
        Gpt2Config { layers: 12, size: 768, heads: 12, vocabulary: 50257, positions: 1024 };
}

#[derive(Debug, Module)]
struct Block {
    ln_1: LayerNorm,
    attn_qkv: Linear,
    attn_proj: Linear,
    ln_2: LayerNorm,
    mlp_fc: Linear,
    mlp_proj: Linear,
    heads: usize,
}

impl Block {
    fn new(c: &Gpt2Config) -> Block {
        Block {
            ln_1: LayerNorm::new(c.size),
            attn_qkv: Linear::new(c.size, 3 * c.size),
            attn_proj: Linear::new(c.size, c.size),
            ln_2: LayerNorm::new(c.size),
            mlp_fc: Linear::new(c.size, 4 * c.size),
            mlp_proj: Linear::new(4 * c.size, c.size),
            heads: c.heads,
        }
    }

    /// The features, and the keys and values of the tokens at hand, [N, H, T, E / H].
    #[track_caller]
    fn forward(&self, x: &Tensor, past: Option<(Tensor, Tensor)>) -> (Tensor, Tensor, Tensor) {
        let shape @ [n, t, size] = [x.size(0), x.size(1), x.size(2)];
        let qkv = self.attn_qkv.forward(&self.ln_1.forward(x)).split(size, 2);
        let heads = |y: &Tensor| y.reshape([n, t, self.heads, size / self.heads]).transpose(1, 2);
        let (q, k, v) = (heads(&qkv[0]), heads(&qkv[1]), heads(&qkv[2]));
        let a = match past {
            None => F::scaled_dot_product_attention(&q, &k, &v, None, true),
            Some((past_k, past_v)) => {
                let (k, v) = (cat(&[&past_k, &k], 2), cat(&[&past_v, &v], 2));
                F::scaled_dot_product_attention(&q, &k, &v, None, false)
            }
        };
        let x = x + self.attn_proj.forward(&a.transpose(1, 2).reshape(shape));
        let h = self.mlp_fc.forward(&self.ln_2.forward(&x)).gelu_tanh();
        (x + self.mlp_proj.forward(&h), k, v)
    }
}

/// GPT-2: scores of the token that comes next. The matrix that embeds tokens scores
/// them, too.
#[derive(Debug, Module)]
pub struct Gpt2 {
    wte: Embedding,
    wpe: Embedding,
    blocks: Vec<Block>,
    ln_f: LayerNorm,
}

impl Gpt2 {
    /// With random weights.
    pub fn new(c: &Gpt2Config) -> Gpt2 {
        Gpt2 {
            wte: Embedding::new(c.vocabulary, c.size),
            wpe: Embedding::new(c.positions, c.size),
            blocks: (0..c.layers).map(|_| Block::new(c)).collect(),
            ln_f: LayerNorm::new(c.size),
        }
    }

    /// From tokens `ids` [N, T] and, where tokens went before them, one token and the
    /// keys and values of those, [layers, N, H, P, E / H] each: the scores [N, vocabulary]
    /// of the token that follows, and the keys and values of `ids`.
    ///
    /// # Panics
    /// If there is no room for so many positions, or shapes do not fit.
    #[track_caller]
    pub fn forward(
        &self,
        ids: &Tensor,
        past: Option<(&Tensor, &Tensor)>,
    ) -> (Tensor, Tensor, Tensor) {
        let before = past.map_or(0, |(k, _)| k.size(3));
        let mut x = self.wte.forward(ids) + self.wpe.weight.narrow(0, before, ids.size(1));
        let (mut keys, mut values) = (vec![], vec![]);
        for (i, block) in self.blocks.iter().enumerate() {
            let past = past.map(|(k, v)| (k.select(0, i as i64), v.select(0, i as i64)));
            let (y, k, v) = block.forward(&x, past);
            x = y;
            keys.push(k);
            values.push(v);
        }
        let x = self.ln_f.forward(&x.select(1, -1));
        let scores = F::linear(&x, &self.wte.weight, None);
        let all = |parts: &[Tensor]| stack(&parts.iter().collect::<Vec<_>>(), 0);
        (scores, all(&keys), all(&values))
    }
}

/// Takes tokens, or a token and the keys and values of those before it.
impl Model for Gpt2 {
    #[track_caller]
    fn run(&self, inputs: &[Tensor]) -> Vec<Tensor> {
        let (scores, k, v) = match inputs {
            [ids] => self.forward(ids, None),
            [ids, k, v] => self.forward(ids, Some((k, v))),
            _ => panic!("Gpt2 takes one tensor or three, not {}", inputs.len()),
        };
        vec![scores, k, v]
    }
}
