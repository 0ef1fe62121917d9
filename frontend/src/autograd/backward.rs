//! What a backward pass can be asked for.

use super::Edge;
use super::engine::{Goal, Pass, accumulate_into};
use crate::batch;
use crate::tensor::{Tensor, zeros_like};

/// A backward pass and its options.
///
/// ```
/// use sinter::{Backward, tensor};
/// let x = tensor([3.0f64]).requires_grad_(true);
/// let y = (&x * &x * &x).sum();
/// Backward::new().create_graph(true).run(&y);
/// let g = x.grad().unwrap(); // 3x², itself on the tape
/// x.zero_grad();
/// g.sum().backward();
/// assert_eq!(x.grad().unwrap().item::<f64>(), 18.0); // 6x
/// ```
///
/// Several threads may run passes over graphs that share leaves, or nodes that keep
/// what they saved: every gradient is added whole. Within a pass gradients are added
/// in an order that depends on the graph alone.
#[derive(Default)]
pub struct Backward {
    retain: Option<bool>,
    create: bool,
    gradients: Option<Vec<Option<Tensor>>>,
    inputs: Option<Vec<Tensor>>,
    refuse_unused: bool,
    materialize: bool,
}

impl Backward {
    /// The pass that [`Tensor::backward`] makes.
    pub fn new() -> Backward {
        Backward::default()
    }

    /// Keeps what the graph saved, for another pass. Default: as `create_graph`.
    pub fn retain_graph(mut self, on: bool) -> Backward {
        self.retain = Some(on);
        self
    }

    /// Records the pass itself, so that gradients can be differentiated.
    pub fn create_graph(mut self, on: bool) -> Backward {
        self.create = on;
        self
    }

    /// The gradient of the result; needed where it has more than one element.
    pub fn gradient(self, g: &Tensor) -> Backward {
        self.gradients(&[Some(g)])
    }

    /// The gradients of several results, one for each; `None` stands for one, of a
    /// scalar.
    pub fn gradients(mut self, grads: &[Option<&Tensor>]) -> Backward {
        self.gradients = Some(grads.iter().map(|g| g.cloned()).collect());
        self
    }

    /// Has [`run`](Backward::run) add gradients into the `grad` of these tensors
    /// alone, leaves or not.
    pub fn inputs(mut self, inputs: &[&Tensor]) -> Backward {
        self.inputs = Some(inputs.iter().map(|t| (*t).clone()).collect());
        self
    }

    /// Whether [`grad`](Backward::grad) gives `None` for an input that played no part
    /// (the default), or panics.
    pub fn allow_unused(mut self, on: bool) -> Backward {
        self.refuse_unused = !on;
        self
    }

    /// Has [`grad`](Backward::grad) give zeros for an input that played no part.
    pub fn materialize_grads(mut self, on: bool) -> Backward {
        self.materialize = on;
        self
    }

    /// Adds the gradients of `root` into the `grad` of every leaf it came from.
    ///
    /// # Panics
    /// If `root` has no history, has several elements and no gradient is given,
    /// or a saved value was freed or changed in place since.
    #[track_caller]
    pub fn run(self, root: &Tensor) {
        self.run_all(&[root]);
    }

    /// Adds the gradients of several results, in one pass.
    ///
    /// # Panics
    /// As [`Backward::run`].
    #[track_caller]
    pub fn run_all(self, roots: &[&Tensor]) {
        if let Some((inner, values, _)) = self.in_batch("backward", roots) {
            return inner.run_all(&values.iter().collect::<Vec<_>>());
        }
        let roots = self.seeds("backward", roots);
        let goal = match &self.inputs {
            None => Goal::Leaves,
            Some(inputs) => {
                let inputs: Vec<&Tensor> = inputs.iter().collect();
                Goal::some("backward", &roots, &inputs, true)
            }
        };
        let mut out = vec![None; self.inputs.as_ref().map_or(0, Vec::len)];
        self.pass(goal).run(roots, &mut out);
        for (t, g) in self.inputs.iter().flatten().zip(out) {
            if let Some(g) = g {
                accumulate_into(t, g);
            }
        }
    }

    /// The gradients of `outputs` (each a scalar, unless gradients are given) with
    /// respect to `inputs`, leaving every `grad` alone. `None` where an input played
    /// no part.
    ///
    /// # Panics
    /// As [`Backward::run`]; where an input does not require a gradient; and where one
    /// played no part and [`allow_unused`](Backward::allow_unused) is off.
    #[track_caller]
    pub fn grad(self, outputs: &[&Tensor], inputs: &[&Tensor]) -> Vec<Option<Tensor>> {
        if let Some((inner, values, level)) = self.in_batch("grad", outputs) {
            let mut behind = Vec::with_capacity(inputs.len());
            for (i, x) in inputs.iter().enumerate() {
                match x.as_batched() {
                    Some((value, l)) if l == level => behind.push(value),
                    _ => panic!(
                        "grad: input {i}, {} {:?}, is shared by all elements of a batch, of which \
                         each has its own gradient; differentiate with `func::grad`, which gives \
                         each its own input",
                        x.dtype(),
                        x.shape()
                    ),
                }
            }
            let grads = inner.grad(&values.iter().collect::<Vec<_>>(), &behind);
            return grads.into_iter().map(|g| g.map(|g| batch::wrap(g, level))).collect();
        }
        let roots = self.seeds("grad", outputs);
        let goal = Goal::some("grad", &roots, inputs, false);
        let mut out = vec![None; inputs.len()];
        self.pass(goal).run(roots, &mut out);
        for (i, slot) in out.iter_mut().enumerate().filter(|(_, g)| g.is_none()) {
            if self.materialize {
                *slot = Some(zeros_like(&inputs[i].detach()));
            } else if self.refuse_unused {
                panic!(
                    "grad: input {i}, {} {:?}, played no part in the results; allow it with \
                     `allow_unused`, or ask for zeros with `materialize_grads`",
                    inputs[i].dtype(),
                    inputs[i].shape()
                );
            }
        }
        out
    }

    /// The pass that works on what batched results stand for, these, and the level;
    /// `None` where no result is batched.
    #[track_caller]
    fn in_batch(&self, op: &str, roots: &[&Tensor]) -> Option<(Backward, Vec<Tensor>, usize)> {
        roots.iter().find(|t| t.as_batched().is_some())?;
        let mut all: Vec<Tensor> = roots.iter().map(|t| (*t).clone()).collect();
        for (i, t) in roots.iter().enumerate() {
            let given = self.gradients.as_ref().and_then(|g| g.get(i)?.as_ref());
            all.push(seed(op, t, given));
        }
        let (mut values, level) = batch::unwrap(&all.iter().collect::<Vec<_>>())?;
        let seeds = values.split_off(roots.len()).into_iter().map(Some).collect();
        let inner = Backward {
            gradients: Some(seeds),
            inputs: self.inputs.as_ref().map(|all| {
                all.iter().map(|t| t.as_batched().map_or(t, |(v, _)| v).clone()).collect()
            }),
            ..*self
        };
        Some((inner, values, level))
    }

    fn pass(&self, goal: Goal) -> Pass {
        Pass { create: self.create, retain: self.retain.unwrap_or(self.create), goal }
    }

    /// Where the results came from, and the gradients to start from.
    #[track_caller]
    fn seeds(&self, op: &str, roots: &[&Tensor]) -> Vec<(Edge, Tensor)> {
        if let Some(g) = &self.gradients
            && g.len() != roots.len()
        {
            panic!("{op}: {} gradients for {} results", g.len(), roots.len());
        }
        let mut out = Vec::with_capacity(roots.len());
        for (i, t) in roots.iter().enumerate() {
            let given = self.gradients.as_ref().and_then(|g| g[i].as_ref());
            out.push((t.edge(), seed(op, t, given)));
        }
        out
    }
}

/// The gradients of `outputs` (each a scalar) with respect to `inputs`, as
/// [`Backward::grad`] gives them.
///
/// ```
/// use sinter::{grad, tensor};
/// let x = tensor([2.0f64]).requires_grad_(true);
/// let y = x.square().sum();
/// let dy = grad(&[&y], &[&x], true); // recorded: can be differentiated again
/// let d2y = grad(&[dy[0].as_ref().unwrap()], &[&x], false);
/// assert_eq!(d2y[0].as_ref().unwrap().item::<f64>(), 2.0);
/// ```
#[track_caller]
pub fn grad(outputs: &[&Tensor], inputs: &[&Tensor], create_graph: bool) -> Vec<Option<Tensor>> {
    Backward::new().create_graph(create_graph).grad(outputs, inputs)
}

impl Tensor {
    /// Adds the gradient of this scalar into the `grad` of every leaf it was
    /// computed from, and frees what the graph saved.
    ///
    /// # Panics
    /// As [`Backward::run`].
    #[track_caller]
    pub fn backward(&self) {
        Backward::new().run(self);
    }
}

#[track_caller]
fn seed(op: &str, root: &Tensor, gradient: Option<&Tensor>) -> Tensor {
    if !root.requires_grad() {
        panic!(
            "{op}: the tensor has no history: nothing that the {} {:?} was computed from requires a gradient",
            root.dtype(),
            root.shape()
        );
    }
    match gradient {
        Some(g) if g.shape() != root.shape() || g.dtype() != root.dtype() => panic!(
            "{op}: the gradient is {} {:?}, the tensor {} {:?}",
            g.dtype(),
            g.shape(),
            root.dtype(),
            root.shape()
        ),
        Some(g) => g.clone(),
        None if root.numel() == 1 => crate::tensor::ones_like(&root.detach()),
        None => panic!(
            "{op}: a tensor of shape {:?} needs a gradient to start from; only scalars have an obvious one",
            root.shape()
        ),
    }
}
