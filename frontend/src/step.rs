//! A step of training as one compiled program.
//!
//! The step is traced as it would run eagerly: the user's loss, the backward pass over the
//! tape, what the user does to gradients, the optimizer. Parameters, buffers and the
//! optimizer's running tensors are inputs that the program also writes; learning rates and
//! what else changes from step to step are inputs, too, and so is the place of the random
//! stream where the step begins to draw.

use crate::autograd::{enable_grad_guard, note_write, with_replaced};
use crate::nn::{Buffer, Module, Param, TrainFlag, Visit};
use crate::optim::{Counted, Optimizer};
use crate::random;
use crate::tensor::Tensor;
use crate::trace::{DynamicDim, Session, Source, TraceError, TracedStep};
use sinter_compiler as compiler;
use sinter_kernels::mem::Block;
use sinter_runtime::op::TensorType;
use sinter_runtime::program::{Model, RunError};
use sinter_runtime::{Array, DType, Dim};
use std::panic::Location;

/// How many programs a step keeps, one for each combination of batch shapes that no
/// program for every size serves.
const PROGRAMS: usize = 8;
/// The largest size of batches that a program for every size takes.
const LARGEST: usize = 1 << 24;
/// How often a program is made anew because something that it was made from changed.
const RENEWALS: usize = 4;

/// Makes a step of training that is compiled when it first runs: forward pass, loss,
/// backward pass and optimizer in one program, which changes parameters, buffers and the
/// optimizer's state in place. `loss` gives the loss of a batch, a tensor of one element.
///
/// A step that cannot be traced runs eagerly, and [`CompiledStep::why_eager`] says which
/// line prevented it.
///
/// ```
/// use sinter::nn::{Layer, Linear, functional as F};
/// use sinter::nn::Module;
/// use sinter::optim::{Adam, Optimizer};
/// use sinter::{Tensor, compile_step, ones, zeros};
///
/// let model = Linear::new(3, 1);
/// let mut adam = Adam::new(model.parameters(), 0.1);
/// let mut step = compile_step(&model, &mut adam, |model, batch: &[Tensor]| {
///     F::mse_loss(&model.forward(&batch[0]), &batch[1], F::Reduction::Mean)
/// });
/// let batch = [ones([4, 3]), zeros([4, 1])];
/// let first = step.run(&batch).unwrap().item::<f32>();
/// for _ in 0..50 {
///     step.run(&batch).unwrap();
/// }
/// step.optimizer().set_lrs(&[0.01]); // nothing is compiled again
/// assert!(step.is_compiled(), "{:?}", step.why_eager());
/// assert!(step.run(&batch).unwrap().item::<f32>() < first * 0.1);
/// ```
pub fn compile_step<'a, M, O, F>(
    model: &'a M,
    optimizer: &'a mut O,
    loss: F,
) -> CompiledStep<'a, M, O, F>
where
    M: Module + ?Sized,
    O: Optimizer + ?Sized,
    F: Fn(&M, &[Tensor]) -> Tensor,
{
    CompiledStep {
        model,
        optimizer,
        loss,
        gradients: None,
        options: compiler::Options::default(),
        open: false,
        closed: None,
        programs: Vec::new(),
        compilations: 0,
        renewals: 0,
        crowded: false,
        eager: None,
    }
}

type Gradients<'a> = Box<dyn Fn(&[Param]) + 'a>;

/// A step of training; see [`compile_step`].
pub struct CompiledStep<'a, M: ?Sized, O: ?Sized, F> {
    model: &'a M,
    optimizer: &'a mut O,
    loss: F,
    gradients: Option<Gradients<'a>>,
    options: compiler::Options,
    /// Whether the first program is for batches of every size already.
    open: bool,
    /// Why there is no program for batches of every size, where one was tried.
    closed: Option<String>,
    programs: Vec<Prepared>,
    compilations: usize,
    renewals: usize,
    /// Whether the last step found no room for a program of its shapes.
    crowded: bool,
    /// Why steps run eagerly.
    eager: Option<String>,
}

/// A program and what it was made for.
struct Prepared {
    batch: Vec<TensorType>,
    /// Extents of the batch, by tensor and dimension, that may be any one number.
    open: Vec<(usize, usize)>,
    module: Vec<usize>,
    model: Model,
    compiled: compiler::Compiled,
    sources: Vec<Source>,
    updated: Vec<usize>,
    counted: Vec<Counted>,
    drawn: Dim,
    read: Vec<(Block, u64)>,
}

/// The extents in which two batches differ, if in each the one is the same number, and the
/// other another: by tensor and dimension.
fn apart(a: &[TensorType], b: &[TensorType]) -> Option<Vec<(usize, usize)>> {
    let mut places = Vec::new();
    let mut sizes = None;
    if a.len() != b.len() {
        return None;
    }
    for (i, (x, y)) in a.iter().zip(b).enumerate() {
        if x.dtype != y.dtype || x.shape.len() != y.shape.len() {
            return None;
        }
        for (d, (&m, &n)) in x.shape.iter().zip(&y.shape).enumerate().filter(|(_, (m, n))| m != n) {
            if n == 0 || *sizes.get_or_insert((m, n)) != (m, n) {
                return None;
            }
            places.push((i, d));
        }
    }
    Some(places)
}

impl<'a, M, O, F> CompiledStep<'a, M, O, F>
where
    M: Module + ?Sized,
    O: Optimizer + ?Sized,
    F: Fn(&M, &[Tensor]) -> Tensor,
{
    /// Has `f` change the gradients of the optimizer's parameters before they are used: to
    /// clip them, for example. It is traced as well.
    ///
    /// ```
    /// use sinter::nn::{Layer, Linear, Module, clip_grad_norm_};
    /// use sinter::optim::Sgd;
    /// use sinter::{compile_step, ones};
    /// let model = Linear::new(3, 1);
    /// let mut sgd = Sgd::new(model.parameters(), 0.1);
    /// let mut step = compile_step(&model, &mut sgd, |m, batch| m.forward(&batch[0]).sum())
    ///     .gradients(|params| {
    ///         clip_grad_norm_(params, 1.0);
    ///     });
    /// step.run(&[ones([2, 3])]).unwrap();
    /// assert!(step.is_compiled());
    /// ```
    pub fn gradients(mut self, f: impl Fn(&[Param]) + 'a) -> Self {
        self.gradients = Some(Box::new(f));
        self.programs.clear();
        self
    }

    /// Whether the first program is one for batches of every size: for the first extents
    /// of the batch's tensors that are that of its first tensor. Otherwise the first is
    /// for the batch as it is, and only when another size comes, one for every other is
    /// compiled. Where that cannot be, [`CompiledStep::why_closed`] says so, and
    /// each shape has a program of its own.
    ///
    /// ```
    /// use sinter::nn::{Layer, Linear, Module, functional as F};
    /// use sinter::optim::Sgd;
    /// use sinter::{compile_step, ones, zeros};
    /// let model = Linear::new(3, 1);
    /// let mut sgd = Sgd::new(model.parameters(), 0.1);
    /// let mut step = compile_step(&model, &mut sgd, |m, batch| {
    ///     F::mse_loss(&m.forward(&batch[0]), &batch[1], F::Reduction::Mean)
    /// })
    /// .open_batch(true);
    /// for n in [4, 7, 1] {
    ///     step.run(&[ones([n, 3]), zeros([n, 1])]).unwrap();
    /// }
    /// assert_eq!((step.compilations(), step.why_closed()), (1, None));
    /// ```
    pub fn open_batch(mut self, on: bool) -> Self {
        self.open = on;
        self.closed = None;
        self.programs.clear();
        self
    }

    /// Whether ops are rewritten and fused; off, each op is one kernel.
    pub fn fusion(mut self, on: bool) -> Self {
        self.options.fusion = on;
        self.programs.clear();
        self
    }

    /// Whether values that are cheap to compute and large to keep are computed again for the
    /// backward pass, as they are unless this turns it off: less memory, the same results.
    pub fn recompute(mut self, on: bool) -> Self {
        self.options.recompute = on;
        self.programs.clear();
        self
    }

    /// Makes a step on a batch: changes the parameters, and gives the loss before. For a
    /// batch of another size than the first, a program is compiled that takes every size;
    /// for other shapes, and where the model was switched to training or evaluation,
    /// another one ([`CompiledStep::compilations`]).
    ///
    /// Gradients are forgotten; those of a compiled step are never kept.
    ///
    /// # Errors
    /// When the program fails, for example because memory runs out.
    ///
    /// # Panics
    /// Where the loss does, and if it has more than one element.
    #[track_caller]
    pub fn run(&mut self, batch: &[Tensor]) -> Result<Tensor, RunError> {
        crate::batch::before_write();
        let at = Location::caller();
        if self.eager.is_some() {
            return Ok(self.run_eagerly(batch));
        }
        let types: Vec<TensorType> = batch
            .iter()
            .map(|t| TensorType { dtype: t.dtype(), shape: t.shape().into() })
            .collect();
        let module = fingerprint(self.model);
        self.crowded = false;
        // The program for this very shape, or one that takes it as well.
        let takes = |exact: bool| {
            self.programs.iter().position(|p| p.module == module && p.takes(&types, exact))
        };
        let mut found = takes(true).or_else(|| takes(false));
        if let Some(i) = found
            && self.programs[i].read.iter().any(|(b, v)| b.version() != *v)
        {
            found = self.renew(i, "a tensor that is neither parameter nor buffer changes");
        }
        for _ in 0..2 {
            let i = match found {
                Some(i) => i,
                None if self.eager.is_some() => return Ok(self.run_eagerly(batch)),
                None if self.programs.len() == PROGRAMS => {
                    // The programs there are stay in use.
                    self.crowded = true;
                    return Ok(self.run_eagerly(batch));
                }
                None => {
                    let open = self.openings(&types, &module);
                    let mut made = self.prepare(batch, &types, &module, open.as_deref());
                    if let (Some(_), Err(why)) = (&open, &made) {
                        self.closed = Some(why.clone());
                        made = self.prepare(batch, &types, &module, None);
                    }
                    match made {
                        Ok(p) => {
                            self.compilations += 1;
                            self.programs.push(p);
                            self.programs.len() - 1
                        }
                        Err(why) => {
                            self.eager = Some(why);
                            return Ok(self.run_eagerly(batch));
                        }
                    }
                }
            };
            match self.optimizer.count(&self.programs[i].counted) {
                Some(numbers) => {
                    for p in self.optimizer.params() {
                        p.tensor().zero_grad();
                    }
                    return self.programs[i].run(batch, &numbers, at);
                }
                None => found = self.renew(i, "parameters of one group take different steps"),
            }
        }
        Ok(self.run_eagerly(batch))
    }

    /// The extents for which a program for this batch should take any size, if it should.
    fn openings(&self, types: &[TensorType], module: &[usize]) -> Option<Vec<(usize, usize)>> {
        if self.closed.is_some() {
            return None;
        }
        if self.open {
            let n = *types.first()?.shape.first().filter(|n| **n > 0)?;
            let first =
                |(i, t): (usize, &TensorType)| (t.shape.first() == Some(&n)).then_some((i, 0));
            return Some(types.iter().enumerate().filter_map(first).collect());
        }
        let like = self.programs.iter().filter(|p| p.module == module);
        like.filter_map(|p| apart(&p.batch, types)).find(|places| !places.is_empty())
    }

    /// Forgets a program that does not fit any more.
    fn renew(&mut self, i: usize, why: &str) -> Option<usize> {
        self.programs.remove(i);
        self.renewals += 1;
        if self.renewals > RENEWALS {
            self.eager = Some(format!("{why} again and again; a program holds what it was then"));
        }
        None
    }

    #[track_caller]
    fn run_eagerly(&mut self, batch: &[Tensor]) -> Tensor {
        let _recording = enable_grad_guard();
        self.optimizer.zero_grad();
        let loss = (self.loss)(self.model, batch);
        loss.backward();
        if let Some(f) = &self.gradients {
            f(&self.optimizer.params());
        }
        self.optimizer.step();
        loss.detach()
    }

    fn prepare(
        &mut self,
        batch: &[Tensor],
        types: &[TensorType],
        module: &[usize],
        open: Option<&[(usize, usize)]>,
    ) -> Result<Prepared, String> {
        let open = open.unwrap_or_default();
        let dynamic = (!open.is_empty()).then(|| DynamicDim {
            name: "N".to_string(),
            places: open.to_vec(),
            range: 1..=LARGEST,
        });
        let mut counted = None;
        let (model, optimizer) = (self.model, &mut *self.optimizer);
        let (loss, gradients) = (&self.loss, &self.gradients);
        let traced = Session::trace("step", dynamic.as_ref(), |s| {
            let _recording = enable_grad_guard();
            let x: Vec<Tensor> = batch.iter().enumerate().map(|(i, t)| s.batch(i, t)).collect();
            for (name, p) in model.named_parameters() {
                s.state(name, &p);
            }
            for (i, p) in optimizer.params().iter().enumerate() {
                let name = p.name().map_or_else(|| format!("parameter{i}"), |n| n.to_string());
                s.state(name, p);
            }
            for (name, b) in model.named_buffers() {
                s.state(name, &b);
            }
            let result = with_replaced(s.pairs(), || {
                let result = loss(model, &x);
                result.backward();
                if let Some(f) = gradients {
                    f(&optimizer.params());
                }
                result.detach()
            });
            crate::no_grad(|| counted = optimizer.trace_update(s));
            vec![result]
        })
        .map_err(|e: TraceError| e.to_string())?;
        let Some(counted) = counted else {
            return Err("the optimizer has no form that can be part of a program".to_string());
        };
        let TracedStep { mut graph, sources, updated, drawn, read } = traced;
        if let (Some(s), Some(&(i, d))) = (graph.symbols.first_mut(), open.first()) {
            s.hint = types[i].shape[d].min(LARGEST);
        }
        check_memory(&sources, &updated, &graph.input_ports())?;
        let mut compiled = compiler::compile(&graph, &self.options).map_err(|e| e.to_string())?;
        let model = compiled.load().map_err(|e| e.to_string())?;
        Ok(Prepared {
            batch: types.to_vec(),
            open: open.to_vec(),
            module: module.to_vec(),
            model,
            compiled,
            sources,
            updated,
            counted,
            drawn,
            read,
        })
    }

    /// Whether steps run as programs. Before the first it is not known, and `true`.
    pub fn is_compiled(&self) -> bool {
        self.why_eager().is_none()
    }

    /// Why steps run eagerly: what could not be traced or compiled, with the line; or why
    /// the last one did.
    pub fn why_eager(&self) -> Option<&str> {
        let crowded = "there are programs for as many other shapes of batches as are kept";
        self.eager.as_deref().or(self.crowded.then_some(crowded))
    }

    /// Why each shape of a batch has a program of its own: what prevented one for batches
    /// of every size, where that was tried.
    pub fn why_closed(&self) -> Option<&str> {
        self.closed.as_deref()
    }

    /// How many programs were compiled: one for the first batch, one for batches of all
    /// other sizes, one for each combination of other shapes, up to eight, beyond which
    /// batches of yet other shapes run eagerly.
    pub fn compilations(&self) -> usize {
        self.compilations
    }

    /// The optimizer: for schedules, and to save its state.
    pub fn optimizer(&mut self) -> &mut O {
        self.optimizer
    }

    /// The program compiled last, with its graphs and the compiler's report.
    pub fn compiled(&self) -> Option<&compiler::Compiled> {
        self.programs.last().map(|p| &p.compiled)
    }

    /// The program compiled last, to run or profile it by hand.
    pub fn program(&self) -> Option<&Model> {
        self.programs.last().map(|p| &p.model)
    }
}

/// Refuses what the program could not write in place.
fn check_memory(
    sources: &[Source],
    updated: &[usize],
    ports: &[sinter_runtime::program::Port],
) -> Result<(), String> {
    for &i in updated {
        let Source::State(t) = &sources[i] else {
            return Err(format!("`{}` of the batch is changed in place", ports[i].name));
        };
        let (name, a) = (&ports[i].name, t.array());
        if !a.is_contiguous() || a.block().is_read_only() {
            return Err(format!("`{name}` does not lie densely in memory that can be written"));
        }
        let shared = sources
            .iter()
            .enumerate()
            .find(|(j, s)| matches!(s, Source::State(u) if *j != i && u.array().may_overlap(a)));
        if let Some((j, _)) = shared {
            return Err(format!("`{name}` and `{}` share memory", ports[j].name));
        }
    }
    Ok(())
}

impl Prepared {
    /// Whether the program is for batches of these types; unless `exact`, for others, too.
    fn takes(&self, types: &[TensorType], exact: bool) -> bool {
        if exact {
            return self.batch == types;
        }
        let opened = |places: Vec<(usize, usize)>| {
            // All of them have the new size, or none.
            places.is_empty() || places == self.open
        };
        let fits = |&(i, d): &(usize, usize)| types[i].shape[d] <= LARGEST;
        !self.open.is_empty()
            && apart(&self.batch, types).is_some_and(opened)
            && self.open.iter().all(fits)
    }

    fn run(
        &self,
        batch: &[Tensor],
        numbers: &[Vec<f64>],
        at: &'static Location<'static>,
    ) -> Result<Tensor, RunError> {
        let size = self.open.first().map(|&(i, d)| batch[i].size(d as i64));
        let drawn = self.drawn.eval(size.as_slice()).expect("the size is in the program's range");
        let place = random::take(drawn as u64);
        let mut made: Vec<Array> = Vec::with_capacity(numbers.len() + 1);
        let from = |r: Result<Array, _>| r.map_err(RunError::Memory);
        for (i, s) in self.sources.iter().enumerate() {
            match s {
                Source::Numbers(k) => {
                    let n = &numbers[*k];
                    let a = if self.model.program().inputs[i].ty.dtype == DType::F32 {
                        let n: Vec<f32> = n.iter().map(|v| *v as f32).collect();
                        Array::from_slice(&n, &[n.len()])
                    } else {
                        Array::from_slice(n, &[n.len()])
                    };
                    made.push(from(a)?);
                }
                Source::Random => {
                    let place = [place.seed as i64, place.offset as i64];
                    made.push(from(Array::from_slice(&place, &[2]))?);
                }
                _ => {}
            }
        }
        let mut next = made.iter();
        let inputs: Vec<&Array> = self
            .sources
            .iter()
            .map(|s| match s {
                Source::Batch(i) => batch[*i].array(),
                Source::State(t) => t.array(),
                _ => next.next().expect("one was made for each"),
            })
            .collect();
        let mut out = self.model.run(&inputs)?;
        for &i in &self.updated {
            if let Source::State(t) = &self.sources[i] {
                note_write(t.array().block(), "a compiled step", at, false);
            }
        }
        Ok(Tensor::from_array(out.swap_remove(0)))
    }
}

/// What a program depends on besides shapes: which parameters and buffers there are, which
/// of them are learned, and which parts are in training.
fn fingerprint(model: &(impl Module + ?Sized)) -> Vec<usize> {
    struct Look(Vec<usize>);
    impl Visit for Look {
        fn enter(&mut self, _: &str) {}
        fn leave(&mut self) {}
        fn param(&mut self, p: &Param) {
            self.0.extend([p.id(), usize::from(p.requires_grad())]);
        }
        fn buffer(&mut self, b: &Buffer) {
            self.0.push(b.id());
        }
        fn train_flag(&mut self, f: &TrainFlag) {
            self.0.push(usize::from(f.get()));
        }
    }
    let mut look = Look(Vec::new());
    model.visit(&mut look);
    look.0
}
