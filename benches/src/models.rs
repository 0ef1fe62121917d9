//! The models that are measured, with the peers' names for their weights.

use serde::Serialize;
use sinter::nn::{Conv2d, Embedding, Layer, LayerNorm, Linear, Module, functional as F};
use sinter::{Tensor, randint, randn};

/// A model by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
#[value(rename_all = "snake_case")]
pub enum Net {
    /// Three linear layers.
    Mlp,
    /// PyTorch's MNIST example.
    MnistCnn,
    /// Four layers of a transformer's encoder on 128 tokens, and a class for each.
    Encoder,
}

impl std::fmt::Display for Net {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Net::Mlp => "mlp",
            Net::MnistCnn => "mnist_cnn",
            Net::Encoder => "encoder",
        })
    }
}

impl Net {
    /// The model with random weights; `dropout` where it has any.
    pub fn build(self, dropout: bool) -> Box<dyn Layer + Send + Sync> {
        match self {
            Net::Mlp => Box::new(Mlp::new()),
            Net::MnistCnn => Box::new(MnistCnn::new(dropout)),
            Net::Encoder => Box::new(EncoderLm::new()),
        }
    }

    /// A random input.
    pub fn input(self, batch: usize) -> Tensor {
        match self {
            Net::Mlp => randn([batch, 784]),
            Net::MnistCnn => randn([batch, 1, 28, 28]),
            Net::Encoder => randint(0, WORDS as i64, [batch, TOKENS]),
        }
    }

    /// Random classes to learn.
    pub fn target(self, batch: usize) -> Tensor {
        match self {
            Net::Mlp | Net::MnistCnn => randint(0, 10, [batch]),
            Net::Encoder => randint(0, WORDS as i64, [batch, TOKENS]),
        }
    }
}

/// Three linear layers, 784-512-512-10.
#[derive(Debug, Module)]
pub struct Mlp {
    fc1: Linear,
    fc2: Linear,
    fc3: Linear,
}

impl Mlp {
    /// With random weights.
    #[allow(clippy::new_without_default)]
    pub fn new() -> Mlp {
        Mlp { fc1: Linear::new(784, 512), fc2: Linear::new(512, 512), fc3: Linear::new(512, 10) }
    }
}

impl Layer for Mlp {
    fn forward(&self, x: &Tensor) -> Tensor {
        let x = self.fc1.forward(x).relu();
        let x = self.fc2.forward(&x).relu();
        self.fc3.forward(&x)
    }
}

/// PyTorch's MNIST example.
#[derive(Debug, Module)]
pub struct MnistCnn {
    conv1: Conv2d,
    conv2: Conv2d,
    fc1: Linear,
    fc2: Linear,
    #[module(skip)]
    dropout: bool,
}

impl MnistCnn {
    /// With random weights.
    pub fn new(dropout: bool) -> MnistCnn {
        MnistCnn {
            conv1: Conv2d::new(1, 32, 3),
            conv2: Conv2d::new(32, 64, 3),
            fc1: Linear::new(9216, 128),
            fc2: Linear::new(128, 10),
            dropout,
        }
    }
}

impl Layer for MnistCnn {
    fn forward(&self, x: &Tensor) -> Tensor {
        let x = self.conv1.forward(x).relu();
        let x = self.conv2.forward(&x).relu();
        let x = F::dropout(&F::max_pool2d(&x, [2, 2]), 0.25, self.dropout);
        let x = self.fc1.forward(&x.flatten(1, -1)).relu();
        let x = F::dropout(&x, 0.5, self.dropout);
        self.fc2.forward(&x).log_softmax(1)
    }
}

/// Size of the encoder's vocabulary.
const WORDS: usize = 1000;
/// Length of its sequences.
const TOKENS: usize = 128;
/// Its width.
const WIDTH: usize = 256;

/// A layer of the encoder, normalised behind each residual path.
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
}

impl EncoderLayer {
    fn new() -> EncoderLayer {
        let square = || Linear::new(WIDTH, WIDTH);
        let norm = || LayerNorm::with_shape(&[WIDTH], 1e-12);
        EncoderLayer {
            q: square(),
            k: square(),
            v: square(),
            o: square(),
            ln1: norm(),
            ln2: norm(),
            ff1: Linear::new(WIDTH, 4 * WIDTH),
            ff2: Linear::new(4 * WIDTH, WIDTH),
        }
    }
}

impl Layer for EncoderLayer {
    fn forward(&self, x: &Tensor) -> Tensor {
        let heads = |t: Tensor| t.reshape([t.size(0), t.size(1), 4, WIDTH / 4]).transpose(1, 2);
        let (q, k, v) = (self.q.forward(x), self.k.forward(x), self.v.forward(x));
        let a = F::scaled_dot_product_attention(&heads(q), &heads(k), &heads(v), None, false);
        let a = self.o.forward(&a.transpose(1, 2).reshape(x.shape()));
        let x = self.ln1.forward(&(x + a));
        let h = self.ff2.forward(&self.ff1.forward(&x).gelu());
        self.ln2.forward(&(&x + h))
    }
}

#[derive(Debug, Module)]
struct Encoder {
    tok_emb: Embedding,
    pos_emb: Embedding,
    ln: LayerNorm,
    layers: Vec<EncoderLayer>,
}

/// An encoder and a class for each token.
#[derive(Debug, Module)]
pub struct EncoderLm {
    enc: Encoder,
    head: Linear,
}

impl EncoderLm {
    /// With random weights.
    #[allow(clippy::new_without_default)]
    pub fn new() -> EncoderLm {
        let enc = Encoder {
            tok_emb: Embedding::new(WORDS, WIDTH),
            pos_emb: Embedding::new(TOKENS, WIDTH),
            ln: LayerNorm::with_shape(&[WIDTH], 1e-12),
            layers: (0..4).map(|_| EncoderLayer::new()).collect(),
        };
        EncoderLm { enc, head: Linear::new(WIDTH, WORDS) }
    }
}

impl Layer for EncoderLm {
    fn forward(&self, ids: &Tensor) -> Tensor {
        let places = self.enc.pos_emb.weight.narrow(0, 0, ids.size(1));
        let mut x = self.enc.ln.forward(&(self.enc.tok_emb.forward(ids) + places));
        for layer in &self.enc.layers {
            x = layer.forward(&x);
        }
        self.head.forward(&x)
    }
}
