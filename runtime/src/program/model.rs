//! A program ready to run.

use super::abi::{Code, Frame};
use super::bind::{RunError, bind_sizes, check_port};
use super::check;
use super::steps::{Run, TABLE};
use super::{Place, Port, Program};
use crate::{Array, DType, Device, OpError};
use sinter_kernels::mem::Block;
use smallvec::SmallVec;
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};
use thiserror::Error;

/// A plan that contradicts itself or its constants.
#[derive(Debug, Clone, PartialEq, Error)]
#[error("invalid program: {0}")]
pub struct ModelError(pub String);

/// A program, its code and its constants, from [`crate::artifact::load`] or from
/// the compiler. Any number of threads may run it at
/// once; each run takes working memory from a pool, which after the first run of
/// a size allocates nothing.
///
/// ```no_run
/// use sinter_runtime::{Array, DType, artifact};
///
/// let model = artifact::load("mlp.sinter")?;
/// let x = Array::from_slice(&[0f32; 64 * 784], &[64, 784])?;
/// let y = Array::empty(&[64, 10], DType::F32)?;
/// for _ in 0..1000 {
///     model.run_into(&[&x], &[&y])?; // nothing is allocated after the first time
/// }
/// println!("{} bytes of working memory", model.arena_bytes(&[64])?);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Model {
    program: Program,
    code: Code,
    constants: Block,
    idle: Mutex<Vec<Workspace>>,
}

/// What one run works with.
pub(super) struct Workspace {
    sizes: Vec<usize>,
    sizes_i64: Vec<i64>,
    arena: Block,
    /// Start of each temporary in the arena, else 0.
    offsets: Vec<usize>,
    addresses: Vec<*mut u8>,
}

// SAFETY: the addresses point into the arena, the constants, and the arrays of
// the run in progress; a workspace belongs to one run at a time.
#[allow(unsafe_code)]
unsafe impl Send for Workspace {}

impl Model {
    /// Puts a program, its code and its constants together.
    ///
    /// # Errors
    /// When the plan refers to something that does not exist.
    pub fn new(program: Program, code: Code, constants: Block) -> Result<Model, ModelError> {
        check::structure(&program, &constants)?;
        Ok(Model { program, code, constants, idle: Mutex::new(Vec::new()) })
    }

    /// The plan.
    pub fn program(&self) -> &Program {
        &self.program
    }

    /// The constants' memory.
    pub fn constants(&self) -> &Block {
        &self.constants
    }

    fn idle(&self) -> MutexGuard<'_, Vec<Workspace>> {
        self.idle.lock().unwrap_or_else(|e| e.into_inner())
    }

    /// Bytes of working memory a run with these sizes of the symbols needs, beside
    /// inputs, outputs and constants.
    ///
    /// # Errors
    /// When a size does not evaluate.
    pub fn arena_bytes(&self, sizes: &[usize]) -> Result<usize, RunError> {
        Ok(self.program.memory(sizes)?.total)
    }

    /// Runs the program; results are in fresh memory.
    ///
    /// # Errors
    /// When inputs do not fit, or a step fails.
    pub fn run(&self, inputs: &[&Array]) -> Result<Vec<Array>, RunError> {
        let sizes = self.sizes(inputs)?;
        let outs = self
            .program
            .outputs
            .iter()
            .map(|p| {
                let t = p.ty.eval(&sizes).ok_or_else(|| unsized_extent(&p.name))?;
                Array::empty(&t.shape, t.dtype).map_err(RunError::Memory)
            })
            .collect::<Result<Vec<Array>, RunError>>()?;
        {
            let refs: SmallVec<[&Array; 4]> = outs.iter().collect();
            self.execute(sizes, inputs, &refs, None)?;
        }
        Ok(outs)
    }

    /// Runs the program on `rows` rows of the inputs (their first dimension) at a
    /// time, the last time on what is left: inputs of any length go through a
    /// program compiled for a range of lengths, in bounded working memory. The
    /// outputs' rows must belong to the inputs' rows.
    ///
    /// # Errors
    /// When inputs differ in their numbers of rows or outputs have other numbers of
    /// rows than inputs, and as [`Model::run`].
    pub fn run_rows(&self, inputs: &[&Array], rows: usize) -> Result<Vec<Array>, RunError> {
        let all = inputs.first().and_then(|a| a.shape().first().copied()).unwrap_or(0);
        let uneven = inputs.iter().any(|a| a.shape().first() != Some(&all));
        let rows = rows.min(all);
        if uneven || rows == 0 {
            return Err(RunError::Rows("inputs need one number of rows, at least one"));
        }
        let cut = |arrays: &[&Array], at: usize, n: usize| -> Vec<Array> {
            arrays.iter().map(|a| a.slice(0, at, n, 1)).collect()
        };
        let piece = cut(inputs, 0, rows);
        let sizes = self.sizes(&piece.iter().collect::<Vec<_>>())?;
        let output = |p: &Port| {
            let mut t = p.ty.eval(&sizes).ok_or_else(|| unsized_extent(&p.name))?;
            if t.shape.first() != Some(&rows) {
                return Err(RunError::Rows("outputs have other numbers of rows than inputs"));
            }
            t.shape[0] = all;
            Array::empty(&t.shape, t.dtype).map_err(RunError::Memory)
        };
        let outs = self.program.outputs.iter().map(output).collect::<Result<Vec<_>, _>>()?;
        let out_refs: Vec<&Array> = outs.iter().collect();
        for at in (0..all).step_by(rows) {
            let n = rows.min(all - at);
            let (x, y) = (cut(inputs, at, n), cut(&out_refs, at, n));
            self.run_into(&x.iter().collect::<Vec<_>>(), &y.iter().collect::<Vec<_>>())?;
        }
        Ok(outs)
    }

    /// Runs the program into arrays that exist, and says how long each step took.
    ///
    /// # Errors
    /// As [`Model::run_into`].
    pub fn profile(
        &self,
        inputs: &[&Array],
        outputs: &[&Array],
    ) -> Result<Vec<Duration>, RunError> {
        let mut times = Vec::with_capacity(self.program.steps.len());
        self.checked(inputs, outputs, Some(&mut times))?;
        Ok(times)
    }

    /// Runs the program into arrays that exist. After the first run of a size
    /// nothing is allocated, provided that inputs are dense.
    ///
    /// # Errors
    /// When inputs or outputs do not fit or overlap, or a step fails.
    pub fn run_into(&self, inputs: &[&Array], outputs: &[&Array]) -> Result<(), RunError> {
        self.checked(inputs, outputs, None)
    }

    fn checked(
        &self,
        inputs: &[&Array],
        outputs: &[&Array],
        times: Option<&mut Vec<Duration>>,
    ) -> Result<(), RunError> {
        let sizes = self.sizes(inputs)?;
        if outputs.len() != self.program.outputs.len() {
            return Err(RunError::Count {
                what: "outputs",
                want: self.program.outputs.len(),
                got: outputs.len(),
            });
        }
        for (i, (p, o)) in self.program.outputs.iter().zip(outputs).enumerate() {
            check_port(p, o.dtype(), o.shape(), &sizes, &self.program.symbols)?;
            writable(&p.name, o)?;
            let clash = inputs.iter().any(|x| x.may_overlap(o))
                || outputs[..i].iter().any(|x| x.may_overlap(o));
            if clash {
                return Err(RunError::Overlap(p.name.clone()));
            }
        }
        self.execute(sizes, inputs, outputs, times)
    }

    fn sizes(&self, inputs: &[&Array]) -> Result<SmallVec<[usize; 4]>, RunError> {
        let given: SmallVec<[(DType, &[usize]); 4]> =
            inputs.iter().map(|a| (a.dtype(), a.shape())).collect();
        for a in inputs {
            if a.device() != Device::Cpu {
                return Err(RunError::Memory(OpError::Device {
                    op: self.program.name.clone(),
                    left: Device::Cpu,
                    right: a.device(),
                }));
            }
        }
        Ok(bind_sizes(&self.program.inputs, &self.program.symbols, &given)?.into())
    }

    fn execute(
        &self,
        sizes: SmallVec<[usize; 4]>,
        inputs: &[&Array],
        outputs: &[&Array],
        times: Option<&mut Vec<Duration>>,
    ) -> Result<(), RunError> {
        if !self.program.written.is_empty() {
            self.apart(inputs, outputs)?;
        }
        // Generated code reads inputs densely.
        let dense: SmallVec<[std::borrow::Cow<'_, Array>; 4]> = inputs
            .iter()
            .map(|a| {
                if a.is_contiguous() {
                    Ok(std::borrow::Cow::Borrowed(*a))
                } else {
                    crate::eager::dense(a).map(std::borrow::Cow::Owned).map_err(RunError::Memory)
                }
            })
            .collect::<Result<_, _>>()?;
        let kept = {
            let mut idle = self.idle();
            let fit = idle.iter().position(|w| w.sizes.as_slice() == sizes.as_slice());
            fit.map(|i| idle.swap_remove(i)).or_else(|| idle.pop())
        };
        let mut space = match kept {
            Some(w) if w.sizes.as_slice() == sizes.as_slice() => w,
            // Memory of another size goes back to the pool before new is taken.
            other => {
                drop(other);
                self.workspace(&sizes)?
            }
        };
        for (i, b) in self.program.buffers.iter().enumerate() {
            let address = match b.place {
                Place::Input(k) => start(&dense[k as usize]),
                Place::Output(k) => start(outputs[k as usize]),
                _ => continue,
            };
            space.addresses[i] = address;
        }
        let result = self.call(&space, &dense, outputs, times);
        self.idle().push(space);
        result
    }

    /// Inputs that are written can be, and share memory with nothing else.
    fn apart(&self, inputs: &[&Array], outputs: &[&Array]) -> Result<(), RunError> {
        let mut written: SmallVec<[bool; 64]> = SmallVec::from_elem(false, inputs.len());
        for &k in &self.program.written {
            let k = k as usize;
            writable(&self.program.inputs[k].name, inputs[k])?;
            written[k] = true;
        }
        let ports = self.program.inputs.iter().chain(&self.program.outputs);
        let written = written.iter().copied().chain(outputs.iter().map(|_| true));
        let mut spans: SmallVec<[(usize, usize, bool, &str); 64]> = SmallVec::new();
        for ((a, port), written) in inputs.iter().chain(outputs).zip(ports).zip(written) {
            let (base, bytes) = (a.block().as_ptr() as usize, a.byte_range());
            if !bytes.is_empty() {
                spans.push((base + bytes.start, base + bytes.end, written, &port.name));
            }
        }
        spans.sort_unstable();
        // How far what came before reaches: all of it, and what is written.
        let (mut all, mut changed) = (0, 0);
        for (start, end, written, name) in spans {
            if start < changed || written && start < all {
                return Err(RunError::Overlap(name.to_string()));
            }
            all = all.max(end);
            changed = changed.max(if written { end } else { 0 });
        }
        Ok(())
    }

    fn workspace(&self, sizes: &[usize]) -> Result<Workspace, RunError> {
        check::extents(&self.program, sizes)?;
        let plan = self.program.memory(sizes)?;
        let memory = |source| OpError::Memory { op: self.program.name.clone(), source };
        let arena = Block::try_new(plan.total).map_err(|e| RunError::Memory(memory(e)))?;
        let mut temps = plan.offsets.iter();
        let mut offsets = Vec::new();
        let mut addresses = Vec::new();
        for b in &self.program.buffers {
            let (offset, address) = match b.place {
                Place::Temp { .. } => {
                    let o = *temps.next().expect("one offset per temporary");
                    (o, arena.as_ptr().wrapping_add(o))
                }
                Place::Constant(o) => (0, self.constants.as_ptr().wrapping_add(o as usize)),
                _ => (0, std::ptr::null_mut()),
            };
            offsets.push(offset);
            addresses.push(address);
        }
        Ok(Workspace {
            sizes: sizes.to_vec(),
            sizes_i64: sizes.iter().map(|&s| s as i64).collect(),
            arena,
            offsets,
            addresses,
        })
    }

    #[allow(unsafe_code)]
    fn call(
        &self,
        space: &Workspace,
        inputs: &[std::borrow::Cow<'_, Array>],
        outputs: &[&Array],
        times: Option<&mut Vec<Duration>>,
    ) -> Result<(), RunError> {
        // Room for every step: nothing is allocated between them.
        let steps = if times.is_some() { self.program.steps.len() } else { 0 };
        let run = Run {
            program: &self.program,
            constants: &self.constants,
            sizes: &space.sizes,
            arena: &space.arena,
            offsets: &space.offsets,
            inputs,
            outputs,
            error: Mutex::new(None),
            done: Mutex::new(Vec::with_capacity(steps)),
        };
        let frame = Frame {
            buffers: space.addresses.as_ptr(),
            sizes: space.sizes_i64.as_ptr(),
            table: &TABLE,
            context: std::ptr::from_ref(&run).cast(),
            profiled: times.is_some().into(),
        };
        let start = Instant::now();
        // SAFETY: the code was generated for this program (`Code::new`); every
        // buffer has the length the plan gives it for these sizes, as checked on
        // binding, and lives until this returns.
        let status = unsafe { (self.code.main)(&frame) };
        if let Some(times) = times {
            let done = run.done.into_inner().unwrap_or_else(|e| e.into_inner());
            let before = std::iter::once(&start).chain(&done);
            times.extend(before.zip(&done).map(|(a, b)| b.duration_since(*a)));
        }
        match (status, run.error.into_inner().unwrap_or_else(|e| e.into_inner())) {
            (0, None) => Ok(()),
            (_, Some(e)) => Err(e),
            (s, None) => Err(RunError::Panic {
                step: 0,
                message: format!("the program returned {s} without an error"),
            }),
        }
    }
}

/// What a program writes must be dense, and may be written.
fn writable(name: &str, a: &Array) -> Result<(), RunError> {
    if a.is_contiguous() && !a.block().is_read_only() {
        return Ok(());
    }
    let reason = "what a program writes must be dense and writable".to_string();
    Err(RunError::Memory(OpError::Value { op: name.to_string(), reason }))
}

/// Address of a dense array's first element.
fn start(a: &Array) -> *mut u8 {
    a.block().as_ptr().wrapping_add(a.offset() * a.dtype().size())
}

pub(super) fn unsized_extent(name: &str) -> RunError {
    RunError::Memory(OpError::Shape {
        op: name.to_string(),
        reason: "an extent is negative or too large for these sizes".to_string(),
    })
}

impl std::fmt::Debug for Model {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Model({})", self.program.signature())
    }
}
