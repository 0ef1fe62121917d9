//! The models on which define-by-run libraries have raced since DyNet's paper: small
//! networks whose structure is that of the sentence, one instance at a time.

use serde::Deserialize;
use sinter::nn::functional::{self as F, Reduction};
use sinter::nn::{Embedding, Layer, Linear, Module, Param};
use sinter::optim::{Optimizer, Sgd};
use sinter::{Tensor, autobatch, cat, from_slice, randn, stack, tensor, zeros};

/// Words in the vocabulary.
pub const WORDS: usize = 1000;
const EMBEDDED: usize = 64;
const HIDDEN: usize = 128;

/// A binary tree with words at its leaves.
#[derive(Deserialize)]
#[serde(untagged)]
pub enum Tree {
    /// A word.
    Word(i64),
    /// Two subtrees.
    Pair(Box<(Tree, Tree)>),
}

/// What the libraries run on.
#[derive(Deserialize)]
pub struct Instances {
    /// Sentences, as word numbers.
    pub sentences: Vec<Vec<i64>>,
    /// Trees over words.
    pub trees: Vec<Tree>,
}

fn all_params(parts: &[&dyn Module]) -> Vec<Param> {
    parts.iter().flat_map(|m| m.parameters()).collect()
}

/// A step of a perceptron, 784-128-10, on 64 examples.
pub struct Perceptron {
    layers: (Linear, Linear),
    optimizer: Sgd,
    x: Tensor,
    class: Tensor,
}

impl Default for Perceptron {
    fn default() -> Perceptron {
        let layers = (Linear::new(784, 128), Linear::new(128, 10));
        let optimizer = Sgd::new(all_params(&[&layers.0, &layers.1]), 0.01);
        let class: Vec<i64> = (0..64).map(|i| i * 7 % 10).collect();
        let (x, class) = (randn([64, 784]), from_slice(&class, [64]));
        Perceptron { layers, optimizer, x, class }
    }
}

impl Perceptron {
    /// Forward, backward, update.
    pub fn step(&mut self) -> Tensor {
        self.optimizer.zero_grad();
        let h = self.layers.0.forward(&self.x).relu();
        let loss = F::cross_entropy(&self.layers.1.forward(&h), &self.class, Reduction::Mean);
        loss.backward();
        self.optimizer.step();
        loss
    }
}

/// An LSTM that predicts the next word, one sentence an update.
pub struct LanguageModel {
    embedding: Embedding,
    cell: (Linear, Linear),
    out: Linear,
    optimizer: Sgd,
}

impl Default for LanguageModel {
    fn default() -> LanguageModel {
        let embedding = Embedding::new(WORDS, EMBEDDED);
        let cell = (Linear::new(EMBEDDED, 4 * HIDDEN), Linear::new(HIDDEN, 4 * HIDDEN));
        let out = Linear::new(HIDDEN, WORDS);
        let optimizer = Sgd::new(all_params(&[&embedding, &cell.0, &cell.1, &out]), 0.01);
        LanguageModel { embedding, cell, out, optimizer }
    }
}

impl LanguageModel {
    fn cell(&self, x: &Tensor, h: &Tensor, c: &Tensor) -> (Tensor, Tensor) {
        let gates = (self.cell.0.forward(x) + self.cell.1.forward(h)).chunk(4, 1);
        let [i, f, g, o] = &gates[..] else { unreachable!("four chunks") };
        let c = f.sigmoid() * c + i.sigmoid() * g.tanh();
        (o.sigmoid() * c.tanh(), c)
    }

    /// Forward, backward, update on each sentence.
    pub fn epoch(&mut self, sentences: &[Vec<i64>]) {
        for s in sentences {
            self.optimizer.zero_grad();
            let words = from_slice(s, [s.len()]);
            let embedded = self.embedding.forward(&words);
            let (mut h, mut c) = (zeros([1, HIDDEN]), zeros([1, HIDDEN]));
            let mut states = Vec::with_capacity(s.len());
            for t in 0..s.len() - 1 {
                (h, c) = self.cell(&embedded.narrow(0, t, 1), &h, &c);
                states.push(h.clone());
            }
            let scores = self.out.forward(&cat(&states.iter().collect::<Vec<_>>(), 0));
            let next = words.narrow(0, 1, s.len() - 1);
            F::cross_entropy(&scores, &next, Reduction::Sum).backward();
            self.optimizer.step();
        }
    }
}

/// A binary TreeLSTM that classifies trees, one tree an update; batched by itself, all
/// trees an update.
pub struct TreeLstm {
    embedding: Embedding,
    gates: Linear,
    classes: Linear,
    optimizer: Sgd,
}

impl Default for TreeLstm {
    fn default() -> TreeLstm {
        let embedding = Embedding::new(WORDS, HIDDEN);
        let gates = Linear::new(2 * HIDDEN, 5 * HIDDEN);
        let classes = Linear::new(HIDDEN, 5);
        let optimizer = Sgd::new(all_params(&[&embedding, &gates, &classes]), 0.01);
        TreeLstm { embedding, gates, classes, optimizer }
    }
}

impl TreeLstm {
    fn encode(&self, tree: &Tree) -> (Tensor, Tensor) {
        match tree {
            Tree::Word(w) => (self.embedding.forward(&tensor([*w])), zeros([1, HIDDEN])),
            Tree::Pair(p) => {
                let ((h1, c1), (h2, c2)) = (self.encode(&p.0), self.encode(&p.1));
                let gates = self.gates.forward(&cat(&[&h1, &h2], 1)).chunk(5, 1);
                let [i, f1, f2, o, u] = &gates[..] else { unreachable!("five chunks") };
                let c = i.sigmoid() * u.tanh() + f1.sigmoid() * c1 + f2.sigmoid() * c2;
                (o.sigmoid() * c.tanh(), c)
            }
        }
    }

    fn loss(&self, k: usize, tree: &Tree) -> Tensor {
        let scores = self.classes.forward(&self.encode(tree).0);
        F::cross_entropy(&scores, &tensor([k as i64 % 5]), Reduction::Mean)
    }

    /// Forward, backward, update on each tree.
    pub fn epoch(&mut self, trees: &[Tree]) {
        for (k, tree) in trees.iter().enumerate() {
            self.optimizer.zero_grad();
            self.loss(k, tree).backward();
            self.optimizer.step();
        }
    }

    /// The same with the ops of a tree batched by themselves.
    pub fn epoch_autobatched(&mut self, trees: &[Tree]) {
        for (k, tree) in trees.iter().enumerate() {
            self.optimizer.zero_grad();
            autobatch(|| self.loss(k, tree)).backward();
            self.optimizer.step();
        }
    }

    /// Forward, backward, update on all trees at once, batched by themselves.
    pub fn step_autobatched(&mut self, trees: &[Tree]) {
        self.optimizer.zero_grad();
        let loss = autobatch(|| {
            let losses: Vec<Tensor> =
                trees.iter().enumerate().map(|(k, t)| self.loss(k, t)).collect();
            stack(&losses.iter().collect::<Vec<_>>(), 0).sum()
        });
        loss.backward();
        self.optimizer.step();
    }
}
