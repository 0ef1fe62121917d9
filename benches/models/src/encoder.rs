//! A transformer encoder that normalises after each part, as BERT does
//! (Devlin et al., 2019).

use sinter::Tensor;
use sinter::nn::{Embedding, Layer, LayerNorm, Linear, Module, functional as F};

const EPS: f64 = 1e-12;

/// Sizes of an [`Encoder`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EncoderConfig {
    /// Layers.
    pub layers: usize,
    /// Features of a token.
    pub size: usize,
    /// Heads that share them.
    pub heads: usize,
    /// Features inside the network of a layer.
    pub hidden: usize,
    /// Tokens there are.
    pub vocabulary: usize,
    /// The longest sequence.
    pub positions: usize,
}

impl EncoderConfig {
    /// The sizes of all-MiniLM-L6.
    pub const MINI_LM: EncoderConfig = EncoderConfig {
        layers: 6,
        size: 384,
        heads: 12,
        hidden: 1536,
        vocabulary: 30522,
        positions: 512,
    };

    /// The sizes of the encoder that is trained.
    pub const SMALL: EncoderConfig = EncoderConfig {
        layers: 4,
        size: 256,
        heads: 4,
        hidden: 1024,
        vocabulary: 1000,
        positions: 128,
    };
}

#[derive(Debug, Module)]
struct EncoderLayer {
    q: Linear,
    k: Linear,
    v: Linear,
    o: Linear,
    ln1: LayerNorm,
    ln2: LayerNorm,
    ff1: Linear,
    ff2: Linear,
    heads: usize,
}

impl EncoderLayer {
    fn new(c: &EncoderConfig) -> EncoderLayer {
        let projection = || Linear::new(c.size, c.size);
        EncoderLayer {
            q: projection(),
            k: projection(),
            v: projection(),
            o: projection(),
            ln1: LayerNorm::with_shape(&[c.size], EPS),
            ln2: LayerNorm::with_shape(&[c.size], EPS),
            ff1: Linear::new(c.size, c.hidden),
            ff2: Linear::new(c.hidden, c.size),
            heads: c.heads,
        }
    }
}

impl Layer for EncoderLayer {
    #[track_caller]
    fn forward(&self, x: &Tensor) -> Tensor {
        let shape @ [n, t, size] = [x.size(0), x.size(1), x.size(2)];
        let heads = |y: Tensor| y.reshape([n, t, self.heads, size / self.heads]).transpose(1, 2);
        let (q, k, v) = (self.q.forward(x), self.k.forward(x), self.v.forward(x));
        let a = F::scaled_dot_product_attention(&heads(q), &heads(k), &heads(v), None, false);
        let a = self.o.forward(&a.transpose(1, 2).reshape(shape));
        let x = self.ln1.forward(&(x + a));
        let h = self.ff2.forward(&self.ff1.forward(&x).gelu());
        self.ln2.forward(&(x + h))
    }
}

/// Tokens [N, T], i64, to features [N, T, size].
#[derive(Debug, Module)]
pub struct Encoder {
    tok_emb: Embedding,
    pos_emb: Embedding,
    ln: LayerNorm,
    layers: Vec<EncoderLayer>,
}

impl Encoder {
    /// With random weights.
    pub fn new(c: &EncoderConfig) -> Encoder {
        Encoder {
            tok_emb: Embedding::new(c.vocabulary, c.size),
            pos_emb: Embedding::new(c.positions, c.size),
            ln: LayerNorm::with_shape(&[c.size], EPS),
            layers: (0..c.layers).map(|_| EncoderLayer::new(c)).collect(),
        }
    }
}

impl Layer for Encoder {
    #[track_caller]
    fn forward(&self, ids: &Tensor) -> Tensor {
        let positions = self.pos_emb.weight.narrow(0, 0, ids.size(1));
        let x = self.ln.forward(&(self.tok_emb.forward(ids) + positions));
        self.layers.iter().fold(x, |x, l| l.forward(&x))
    }
}

/// An encoder that tells the token at each place: [N, T] to scores
/// [N, T, vocabulary].
#[derive(Debug, Module)]
pub struct EncoderLm {
    enc: Encoder,
    head: Linear,
}

impl EncoderLm {
    /// With random weights.
    pub fn new(c: &EncoderConfig) -> EncoderLm {
        EncoderLm { enc: Encoder::new(c), head: Linear::new(c.size, c.vocabulary) }
    }
}

impl Layer for EncoderLm {
    #[track_caller]
    fn forward(&self, ids: &Tensor) -> Tensor {
        self.head.forward(&self.enc.forward(ids))
    }
}
