//! Functions of one element, run on batches.

use super::rules::{self, Operands};
use crate::tensor::{Tensor, apply, cat, decomposed, fail, in_place, random_tensor};
use crate::{autograd, random as stream};
use sinter_runtime::op::{RandomKind, TensorType, infer};
use sinter_runtime::{DType, Op, Shape};
use smallvec::SmallVec;
use std::cell::RefCell;
use std::panic::Location;

/// What random numbers are inside [`vmap`](fn@vmap).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Randomness {
    /// Refused: which of the other two is meant has to be said.
    #[default]
    Error,
    /// The same for every element of the batch.
    Same,
    /// Other ones for every element of the batch.
    Different,
}

#[derive(Clone, Copy)]
struct Level {
    n: usize,
    randomness: Randomness,
}

thread_local! {
    /// The batches that run on this thread, outermost first. A batched tensor knows
    /// its level: the place of its batch in this list, counted from one.
    static LEVELS: RefCell<Vec<Level>> = const { RefCell::new(Vec::new()) };
}

/// Puts the list of batches back.
struct Restore(Vec<Level>);

impl Drop for Restore {
    fn drop(&mut self) {
        LEVELS.set(std::mem::take(&mut self.0));
    }
}

fn with_levels<R>(levels: Vec<Level>, f: impl FnOnce() -> R) -> R {
    let _restore = Restore(LEVELS.replace(levels));
    f()
}

fn active() -> Vec<Level> {
    LEVELS.with_borrow(|l| l.clone())
}

/// Runs a function that is written for one element on whole batches: PyTorch's
/// `torch.vmap` with its options. Ops inside see tensors without the batch dimension;
/// each runs once, by its batching rule.
///
/// ```
/// use sinter::{Vmap, arange, tensor};
/// let a = arange(0.0, 6.0, 1.0).reshape([3, 2]);
/// let b = tensor([10.0f32, 1.0]);
/// // The dot product of every row of `a` with `b`.
/// let dots = Vmap::new().in_dims(&[Some(0), None]).call(|x| vec![x[0].dot(&x[1])], &[&a, &b]);
/// assert_eq!(dots[0].to_vec::<f32>(), [1.0, 23.0, 45.0]);
/// ```
#[derive(Clone, Debug, Default)]
pub struct Vmap {
    in_dims: Option<Vec<Option<i64>>>,
    out_dims: Option<Vec<i64>>,
    randomness: Randomness,
    chunk_size: Option<usize>,
}

impl Vmap {
    /// Every argument and every result has its batch along dimension 0.
    pub fn new() -> Vmap {
        Vmap::default()
    }

    /// Along which dimension the batch of each argument lies; `None` for an argument
    /// that all elements share.
    pub fn in_dims(mut self, dims: &[Option<i64>]) -> Vmap {
        self.in_dims = Some(dims.to_vec());
        self
    }

    /// Where the batch dimension of each result goes.
    pub fn out_dims(mut self, dims: &[i64]) -> Vmap {
        self.out_dims = Some(dims.to_vec());
        self
    }

    /// What random numbers are: refused unless this is set.
    pub fn randomness(mut self, randomness: Randomness) -> Vmap {
        self.randomness = randomness;
        self
    }

    /// Runs at most so many elements at a time, for less memory.
    pub fn chunk_size(mut self, n: usize) -> Vmap {
        self.chunk_size = Some(n.max(1));
        self
    }

    /// Runs `f`.
    ///
    /// # Panics
    /// If there is no batch, batches differ in extent, or `f` does what depends on the
    /// values of single elements: reading them, indexing by masks.
    #[track_caller]
    pub fn call(&self, f: impl Fn(&[Tensor]) -> Vec<Tensor>, inputs: &[&Tensor]) -> Vec<Tensor> {
        let all = vec![Some(0); inputs.len()];
        let in_dims = self.in_dims.as_deref().unwrap_or(&all);
        if in_dims.len() != inputs.len() {
            panic!("vmap: {} in_dims for {} arguments", in_dims.len(), inputs.len());
        }
        let mut n = None;
        let mut fronted: Vec<(Tensor, bool)> = Vec::with_capacity(inputs.len());
        for (i, (x, dim)) in inputs.iter().zip(in_dims).enumerate() {
            let Some(dim) = dim else {
                fronted.push(((*x).clone(), false));
                continue;
            };
            if x.rank() == 0 {
                panic!("vmap: argument {i} has no dimension to be a batch");
            }
            let x = x.movedim(*dim, 0);
            let here = x.shape()[0];
            match n {
                Some(n) if n != here => panic!(
                    "vmap: the batch of argument {i} has {here} elements, others have {n} (shape {:?})",
                    inputs[i].shape()
                ),
                _ => n = Some(here),
            }
            fronted.push((x, true));
        }
        let Some(n) = n else {
            panic!("vmap: no argument has a batch; give one a dimension in `in_dims`")
        };
        let size = self.chunk_size.unwrap_or(n).max(1);
        if n <= size {
            return self.run(&f, &fronted, n);
        }
        let mut chunks: Vec<Vec<Tensor>> = Vec::new();
        for start in (0..n).step_by(size) {
            let len = size.min(n - start);
            let mut part: Vec<(Tensor, bool)> = Vec::with_capacity(fronted.len());
            for (x, batched) in &fronted {
                let x = if *batched { x.narrow(0, start, len) } else { x.clone() };
                part.push((x, *batched));
            }
            chunks.push(self.run(&f, &part, len));
        }
        let results = chunks[0].len();
        let mut out = Vec::with_capacity(results);
        for i in 0..results {
            let parts: Vec<&Tensor> = chunks.iter().map(|c| &c[i]).collect();
            out.push(cat(&parts, self.out_dim(i, results)));
        }
        out
    }

    #[track_caller]
    fn out_dim(&self, i: usize, results: usize) -> i64 {
        match &self.out_dims {
            None => 0,
            Some(d) if d.len() == results => d[i],
            Some(d) => panic!("vmap: {} out_dims for {results} results", d.len()),
        }
    }

    #[track_caller]
    fn run(
        &self,
        f: &impl Fn(&[Tensor]) -> Vec<Tensor>,
        inputs: &[(Tensor, bool)],
        n: usize,
    ) -> Vec<Tensor> {
        let mut levels = active();
        levels.push(Level { n, randomness: self.randomness });
        let level = levels.len();
        let args: Vec<Tensor> = inputs
            .iter()
            .map(|(x, batched)| if *batched { wrap(x.clone(), level) } else { x.clone() })
            .collect();
        let outs = with_levels(levels, || f(&args));
        let mut moved = Vec::with_capacity(outs.len());
        for (i, y) in outs.iter().enumerate() {
            moved.push(full_value(y, level, n).movedim(0, self.out_dim(i, outs.len())));
        }
        moved
    }
}

/// The function that applies `f`, written for one element, to a batch along dimension
/// 0. Transforms nest: with [`func::grad`](crate::func::grad) it gives the gradient of
/// every element.
///
/// ```
/// use sinter::{Tensor, func, tensor, vmap};
/// let x = tensor([1.0f64, 2.0, 3.0]);
/// let slopes = vmap(func::grad(|x: &Tensor| x * x * x))(&x);
/// assert_eq!(slopes.to_vec::<f64>(), [3.0, 12.0, 27.0]);
/// ```
pub fn vmap(f: impl Fn(&Tensor) -> Tensor) -> impl Fn(&Tensor) -> Tensor {
    move |x| Vmap::new().call(|x| vec![f(&x[0])], &[x]).swap_remove(0)
}

/// A tensor that stands for the elements of `value` along its first dimension.
pub(crate) fn wrap(value: Tensor, level: usize) -> Tensor {
    Tensor::batched(value, level)
}

/// The batch that a tensor stands for at `level`, along a first dimension of `n`:
/// repeated where it is the same for all elements.
#[track_caller]
fn full_value(x: &Tensor, level: usize, n: usize) -> Tensor {
    match x.as_batched() {
        Some((value, l)) if l == level => value.clone(),
        _ => {
            let shape: Shape = std::iter::once(n).chain(x.shape().iter().copied()).collect();
            x.broadcast_to(&shape[..])
        }
    }
}

fn level_of(x: &Tensor) -> usize {
    x.as_batched().map_or(0, |(_, level)| level)
}

/// The extent of the batch of `level`.
#[track_caller]
fn extent(level: usize) -> usize {
    match LEVELS.with_borrow(|l| l.get(level - 1).map(|l| l.n)) {
        Some(n) => n,
        None => panic!("vmap: a tensor of a batch was used after its `vmap` had ended"),
    }
}

/// An op of which some operands are batched.
#[track_caller]
#[cold]
pub(crate) fn apply_batched(mut op: Op, inputs: &[&Tensor]) -> SmallVec<[Tensor; 1]> {
    // The rule for one element, in its own shapes.
    let types: SmallVec<[TensorType; 4]> =
        inputs.iter().map(|t| TensorType { dtype: t.dtype(), shape: t.shape().into() }).collect();
    let refs: SmallVec<[_; 4]> = types.iter().map(TensorType::as_ref).collect();
    if let Err(e) = infer(&op, &refs) {
        fail(&e, inputs);
    }
    let level = inputs.iter().map(|t| level_of(t)).max().unwrap_or(0);
    let n = extent(level);
    if let Op::Dropout { seed, offset, .. } = &mut op {
        match active()[level - 1].randomness {
            Randomness::Error => refuse_random("dropout"),
            Randomness::Same => return smallvec::smallvec![decomposed(&op, inputs)],
            Randomness::Different => {
                let count = inputs[0].numel().saturating_mul(n);
                (*seed, *offset) = stream::reserve(count);
            }
        }
    }
    let here = |t: &&Tensor| t.as_batched().filter(|(_, l)| *l == level).map(|(v, _)| v.clone());
    let batched: SmallVec<[bool; 4]> = inputs.iter().map(|t| level_of(t) == level).collect();
    let values: SmallVec<[Tensor; 4]> =
        inputs.iter().map(|t| here(t).unwrap_or_else(|| (*t).clone())).collect();
    let operands = Operands { values: &values, batched: &batched, n };
    let results = autograd::at(Location::caller(), || rules::batched(&op, &operands));
    results.into_iter().map(|y| wrap(y, level)).collect()
}

/// An op that changes a tensor in place, where it or an operand is batched.
#[track_caller]
#[cold]
pub(crate) fn in_place_batched(name: &'static str, op: Op, target: &Tensor, inputs: &[&Tensor]) {
    let level = inputs.iter().map(|t| level_of(t)).max().unwrap_or(0).max(level_of(target));
    let Some((value, _)) = target.as_batched().filter(|(_, l)| *l == level) else {
        panic!(
            "{name}: the tensor to be changed, {} {:?}, is the same for all elements of the batch, \
             but an operand is not; use the out-of-place op",
            target.dtype(),
            target.shape()
        );
    };
    let result = if inputs.is_empty() {
        apply(op, inputs)
    } else {
        apply_batched(op, inputs).swap_remove(0)
    };
    let result = full_value(&result, level, extent(level));
    in_place(name, Op::Broadcast { shape: value.shape().into() }, value, &[&result]);
}

/// The tensor with a batch of its own at every level, so that a derivative by it is one
/// for each element.
#[track_caller]
pub(crate) fn expand(x: &Tensor) -> Tensor {
    #[track_caller]
    fn at(x: &Tensor, levels: &[Level]) -> Tensor {
        let Some((last, lower)) = levels.split_last() else { return x.clone() };
        match x.as_batched() {
            Some((v, l)) if l == levels.len() => wrap(at(v, lower), l),
            _ => wrap(full_value(&at(x, lower), levels.len(), last.n), levels.len()),
        }
    }
    at(x, &active())
}

/// The values behind tensors some of which are batched, at the innermost level there
/// is, and that level; `None` where none is batched.
#[track_caller]
pub(crate) fn unwrap(tensors: &[&Tensor]) -> Option<(Vec<Tensor>, usize)> {
    let level = tensors.iter().map(|t| level_of(t)).max().filter(|&l| l > 0)?;
    let n = extent(level);
    let mut values = Vec::with_capacity(tensors.len());
    for t in tensors {
        values.push(full_value(t, level, n));
    }
    Some((values, level))
}

#[track_caller]
fn refuse_random(op: &str) -> ! {
    panic!(
        "{op}: random numbers inside `vmap`: are they the same for every element of the batch, \
         or different ones? Say so with `Vmap::randomness`"
    )
}

/// Random numbers inside a batch; `None` where they are drawn as ever.
#[track_caller]
pub(crate) fn draw(kind: RandomKind, shape: &[usize], dtype: DType) -> Option<Tensor> {
    let mut levels = active();
    let last = levels.pop()?;
    match last.randomness {
        Randomness::Error => refuse_random(kind.name()),
        Randomness::Same => None,
        Randomness::Different => {
            let level = levels.len() + 1;
            let shape: Shape = std::iter::once(last.n).chain(shape.iter().copied()).collect();
            Some(wrap(with_levels(levels, || random_tensor(kind, shape, dtype)), level))
        }
    }
}

/// A batched tensor was asked for its data.
#[track_caller]
pub(crate) fn no_data() -> ! {
    panic!(
        "vmap: the values of single elements of a batch cannot be read inside `vmap`: what depends \
         on them (`item`, `to_vec`, masks as indices) has to stand outside; choose with `where_`"
    )
}
