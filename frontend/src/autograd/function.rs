//! Functions with derivatives of the user's own.

use super::node::{Kept, Node, Operand, Rule, Saved, line, once};
use super::{Edge, grad_enabled, mode, no_grad_guard, note_write, replaced, sum_to};
use crate::device::made_on;
use crate::tensor::Tensor;
use sinter_runtime::op::TensorType;
use sinter_runtime::{Op, Scalar};
use smallvec::SmallVec;
use std::any::Any;
use std::panic::Location;
use std::sync::Arc;

/// A function whose derivative is written by hand.
///
/// What it is made of besides tensors are the fields of the type that implements it.
/// `forward` is not recorded; in a backward pass `backward` gets the gradients of its
/// results and returns those of its inputs. Written in recorded ops, it can be
/// differentiated again. While tracing, the ops of `forward` are what is traced, and in
/// a step of training those of `backward`.
///
/// ```
/// use sinter::autograd::{Function, FunctionCtx};
/// use sinter::{Tensor, tensor};
///
/// /// `e^(scale x)`
/// struct ScaledExp {
///     scale: f64,
/// }
///
/// impl Function for ScaledExp {
///     fn forward(&self, ctx: &mut FunctionCtx, x: &[&Tensor]) -> Vec<Tensor> {
///         let y = (x[0] * self.scale).exp();
///         ctx.save_for_backward(&[&y]);
///         vec![y]
///     }
///     fn backward(&self, ctx: &FunctionCtx, g: &[Option<Tensor>]) -> Vec<Option<Tensor>> {
///         let y = &ctx.saved_tensors()[0];
///         vec![g[0].as_ref().map(|g| g * y * self.scale)]
///     }
/// }
///
/// let x = tensor([0.0f64]).requires_grad_(true);
/// let y = ScaledExp { scale: 3.0 }.apply(&[&x]);
/// y[0].backward();
/// assert_eq!(x.grad().unwrap().item::<f64>(), 3.0);
/// ```
pub trait Function: Send + Sync + 'static {
    /// Computes the results. Runs without recording.
    fn forward(&self, ctx: &mut FunctionCtx, inputs: &[&Tensor]) -> Vec<Tensor>;

    /// Computes the gradients of the inputs, one for each (`None`: none), from those
    /// of the results. These are all there, zeros where a result played no part,
    /// unless [`FunctionCtx::set_materialize_grads`] said otherwise.
    fn backward(&self, ctx: &FunctionCtx, grads: &[Option<Tensor>]) -> Vec<Option<Tensor>>;

    /// Whether `backward` is itself constant to autograd: a second derivative through
    /// it is an error then, instead of a wrong number.
    fn once_differentiable(&self) -> bool {
        false
    }

    /// Name in messages; by default that of the type.
    fn name(&self) -> &'static str {
        let full = std::any::type_name::<Self>();
        full.rsplit("::").next().unwrap_or(full)
    }

    /// Runs the function, recorded if any input requires a gradient.
    ///
    /// # Panics
    /// If a tensor marked dirty is a leaf that requires a gradient, or is not
    /// returned; and where `forward` does.
    #[track_caller]
    fn apply(self, inputs: &[&Tensor]) -> Vec<Tensor>
    where
        Self: Sized,
    {
        apply(Arc::new(self), inputs, Location::caller())
    }
}

/// What a [`Function`] hands from its forward to its backward pass.
#[derive(Default)]
pub struct FunctionCtx {
    saved: Vec<Tensor>,
    dirty: Vec<Tensor>,
    constant: Vec<Tensor>,
    bare: bool,
    needs: SmallVec<[bool; 3]>,
    data: Option<Data>,
}

type Data = Arc<dyn Any + Send + Sync>;

impl FunctionCtx {
    /// Keeps tensors for the backward pass: inputs, results or others. A change in
    /// place meanwhile is found out.
    pub fn save_for_backward(&mut self, tensors: &[&Tensor]) {
        self.saved = tensors.iter().map(|t| (*t).clone()).collect();
    }

    /// What [`save_for_backward`](FunctionCtx::save_for_backward) kept, in its order.
    pub fn saved_tensors(&self) -> &[Tensor] {
        &self.saved
    }

    /// Keeps something other than tensors for the backward pass.
    pub fn save_data<T: Any + Send + Sync>(&mut self, data: T) {
        self.data = Some(Arc::new(data));
    }

    /// What [`save_data`](FunctionCtx::save_data) kept; `None` if it is of another type.
    pub fn data<T: Any + Send + Sync>(&self) -> Option<&T> {
        self.data.as_ref()?.downcast_ref()
    }

    /// Says that `forward` changed these inputs in place. They must be returned.
    pub fn mark_dirty(&mut self, inputs: &[&Tensor]) {
        self.dirty = inputs.iter().map(|t| (*t).clone()).collect();
    }

    /// Says that these results are constants.
    pub fn mark_non_differentiable(&mut self, results: &[&Tensor]) {
        self.constant = results.iter().map(|t| (*t).clone()).collect();
    }

    /// Whether missing gradients are handed to `backward` as zeros (the default) or
    /// as `None`.
    pub fn set_materialize_grads(&mut self, on: bool) {
        self.bare = !on;
    }

    /// Whether input `i` requires a gradient.
    pub fn needs_input_grad(&self, i: usize) -> bool {
        self.needs.get(i).copied().unwrap_or(false)
    }
}

/// A function that was recorded.
pub(super) struct Applied {
    function: Arc<dyn Function>,
    bare: bool,
    data: Option<Data>,
    results: Vec<TensorType>,
}

fn holds(list: &[Tensor], t: &Tensor) -> bool {
    list.iter().any(|x| x.is_same(t))
}

#[track_caller]
fn apply(
    function: Arc<dyn Function>,
    inputs: &[&Tensor],
    at: &'static Location<'static>,
) -> Vec<Tensor> {
    let others = if mode::get() & mode::REPLACE != 0 { replaced(inputs) } else { None };
    let others: Option<Vec<&Tensor>> = others.as_ref().map(|o| o.iter().collect());
    let inputs = others.as_deref().unwrap_or(inputs);
    let name = function.name();
    let needs: SmallVec<[bool; 3]> = inputs.iter().map(|t| t.requires_grad()).collect();
    let recording = grad_enabled() && needs.contains(&true);
    let mut ctx = FunctionCtx { needs, ..FunctionCtx::default() };
    let edges: Vec<Edge> = inputs.iter().map(|t| t.edge()).collect();
    let outs = {
        let _plain = no_grad_guard();
        function.forward(&mut ctx, inputs)
    };
    for d in &ctx.dirty {
        if !holds(&outs, d) {
            panic!("{name}: an input marked dirty is not among the results");
        }
        if !d.is_traced() {
            note_write(d.array().block(), name, at, recording);
        }
    }
    if !recording {
        return outs;
    }
    if let Some(d) = ctx.dirty.iter().find(|d| d.requires_grad() && d.anchor().is_leaf()) {
        panic!(
            "{name}: a leaf that requires a gradient (shape {:?}) was changed in place",
            d.shape()
        );
    }
    let keep = |t: &Tensor| {
        let result = outs.iter().position(|o| o.is_same(t));
        Some(match result {
            Some(i) if t.is_traced() => Kept::traced_output(t, i as u16),
            Some(i) => Kept::output(t.array(), i as u16, 0),
            None => Kept::input(t),
        })
    };
    let ty = |t: &Tensor| TensorType { dtype: t.dtype(), shape: t.shape().into() };
    let saved = Saved {
        inputs: ctx.saved.iter().map(keep).collect(),
        types: Some(inputs.iter().map(|t| ty(t)).collect()),
        ..Saved::default()
    };
    let applied = Applied {
        function,
        bare: ctx.bare,
        data: ctx.data.take(),
        results: outs.iter().map(ty).collect(),
    };
    let operands = edges.into_iter().map(|edge| Operand { edge, reduce_to: None }).collect();
    let rule = Rule::Function(Box::new(applied));
    let node = Arc::new(Node::new(rule, operands, outs.len() as u16, saved, line(at)));
    let wrap = |(i, out): (usize, Tensor)| {
        if holds(&ctx.constant, &out) || !out.dtype().is_differentiable() {
            return if out.requires_grad() { out.detach() } else { out };
        }
        if holds(&ctx.dirty, &out) {
            if out.is_traced() {
                crate::trace::not_followed(name, at);
            }
            out.rebase(Edge::Node(node.clone(), i as u16), line(at));
            return out;
        }
        if out.is_traced() {
            return Tensor::traced_recorded(&out, node.clone(), i as u16);
        }
        let array = out.array().clone();
        // A result in the memory of an input: its history is not that of a view.
        let shared = inputs.iter().any(|t| t.array().block().same(array.block()));
        if shared && !inputs.iter().any(|t| t.is_same(&out)) {
            Tensor::recorded_untracked(array, node.clone(), i as u16)
        } else {
            Tensor::recorded(array, node.clone(), i as u16)
        }
    };
    outs.into_iter().enumerate().map(wrap).collect()
}

impl Applied {
    pub(super) fn name(&self) -> &'static str {
        self.function.name()
    }

    /// The gradients of the inputs.
    #[track_caller]
    pub(super) fn backward(
        &self,
        node: &Arc<Node>,
        grads: &[Option<Tensor>],
        create: bool,
    ) -> SmallVec<[Option<Tensor>; 3]> {
        let name = self.name();
        let (needs, shapes) = (node.needs(), node.saved().types.clone());
        let once = create && self.function.once_differentiable();
        let ctx = FunctionCtx {
            saved: node.saved_tensors(create && !once),
            needs: needs.clone(),
            data: self.data.clone(),
            bare: self.bare,
            ..FunctionCtx::default()
        };
        let device = grads.iter().flatten().map(Tensor::device).next().unwrap_or_default();
        let grads: Vec<Option<Tensor>> = grads
            .iter()
            .zip(&self.results)
            .map(|(g, t)| match g {
                None if !self.bare && t.dtype.is_differentiable() => {
                    let value = Scalar::Float(0.0);
                    let (dtype, shape) = (t.dtype, t.shape.clone());
                    Some(made_on(device, Op::Full { value, dtype, shape }))
                }
                g => g.clone(),
            })
            .collect();
        let made = {
            let _plain = once.then(|| mode::set(mode::GRAD, 0));
            self.function.backward(&ctx, &grads)
        };
        if made.len() != needs.len() {
            panic!(
                "{name}: `backward` returned {} gradients for {} inputs; {}",
                made.len(),
                needs.len(),
                node.describe()
            );
        }
        let types = shapes.as_deref().unwrap_or_default();
        let mut out: SmallVec<[Option<Tensor>; 3]> = SmallVec::new();
        for ((g, wanted), ty) in made.into_iter().zip(needs).zip(types) {
            let g = g.filter(|_| wanted);
            out.push(match g {
                Some(g) if g.shape() == ty.shape.as_slice() => Some(g),
                Some(g) if broadcasts(&ty.shape, g.shape()) => Some(sum_to(&g, &ty.shape)),
                Some(g) => panic!(
                    "{name}: `backward` returned a gradient of shape {:?} for an input of shape {:?}; {}",
                    g.shape(),
                    ty.shape,
                    node.describe()
                ),
                None => None,
            });
        }
        if once {
            self.seal(node, &ctx, &grads, &mut out);
        }
        out
    }

    /// Makes gradients that cannot be differentiated lead to an error, not to nothing.
    fn seal(
        &self,
        node: &Arc<Node>,
        ctx: &FunctionCtx,
        grads: &[Option<Tensor>],
        out: &mut [Option<Tensor>],
    ) {
        let from_grads = grads.iter().flatten().map(Tensor::edge);
        let from_inputs = node.operands.iter().map(|o| o.edge.clone());
        let edges: Vec<Edge> = if ctx.saved.is_empty() {
            from_grads.collect()
        } else {
            from_grads.chain(from_inputs).collect()
        };
        if edges.iter().all(|e| matches!(e, Edge::None)) {
            return;
        }
        let sealed = once(self.name(), edges.into_iter(), out.len(), node.location);
        for (i, slot) in out.iter_mut().enumerate() {
            if let Some(g) = slot.take() {
                *slot = Some(Tensor::recorded(g.array().clone(), sealed.clone(), i as u16));
            }
        }
    }
}

/// Whether `shape` broadcasts to `wide`.
fn broadcasts(shape: &[usize], wide: &[usize]) -> bool {
    let Some(lead) = wide.len().checked_sub(shape.len()) else { return false };
    shape.iter().zip(&wide[lead..]).all(|(&n, &m)| n == m || n == 1)
}
