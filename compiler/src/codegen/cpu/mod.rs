//! Native code.
//!
//! Cranelift compiles the program's entry, the loop nests around rows, calls, and
//! whole kernels where types or strides rule out wide vectors ([`scalar`]). The
//! inner loops of the others are emitted at full vector width ([`wide`]) and stand
//! in the same module as plain bytes. The in-process path (JIT) and the file path
//! (object) share everything up to the module, so they run the same code.

mod disassemble;
mod func;
mod jit;
mod object;
mod scalar;
mod wide;

pub use disassemble::{Function, disassemble};
pub use jit::jit;
pub use object::object;
pub use scalar::supports;

use super::micro;
use crate::kernel::{Inst, Kernel};
use crate::plan::{Generated, Plan};
use cranelift::codegen::ir::StackSlotData;
use cranelift::codegen::isa::{CallConv, OwnedTargetIsa};
use cranelift::codegen::{self, Context};
use cranelift::module::{FuncId, Linkage, Module};
use cranelift::prelude::*;
use func::{Func, plain};
use sinter_kernels::isa::Isa;
use sinter_kernels::par::SHARE_NS;
use sinter_runtime::program::Step;
use sinter_runtime::{Dim, Extent};
use thiserror::Error;

/// Name of a program's entry in object files.
pub const ENTRY: &str = "sinter_main";

/// Why no code could be generated.
#[derive(Debug, Clone, PartialEq, Error)]
#[non_exhaustive]
pub enum CodegenError {
    /// There is no code generator for this machine.
    #[error("no code generator for {0}")]
    Target(String),
    /// Cranelift refused a function: a mistake in the compiler.
    #[error("generating {function}: {message}")]
    Function {
        /// The function.
        function: String,
        /// Cranelift's words.
        message: String,
    },
}

/// What became of one kernel.
#[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
pub struct Listing {
    /// Its name.
    pub name: String,
    /// The step it belongs to.
    pub step: usize,
    /// How it was compiled, and why so.
    pub how: String,
    /// The kernel IR.
    pub ir: String,
}

/// The Cranelift target of an instruction-set level, the same on every machine.
fn target(isa: Isa) -> Result<OwnedTargetIsa, CodegenError> {
    let mut flags = settings::builder();
    let mut set = |k: &str, v: &str| {
        flags.set(k, v).expect("these settings exist");
    };
    set("opt_level", "speed");
    set("is_pic", "false");
    set("use_colocated_libcalls", "false");
    set("unwind_info", "false");
    set("enable_verifier", if cfg!(debug_assertions) { "true" } else { "false" });
    let triple = cranelift::native::builder()
        .map_err(|e| CodegenError::Target(e.to_string()))?
        .triple()
        .clone();
    let mut builder = codegen::isa::lookup(triple.clone())
        .map_err(|e| CodegenError::Target(format!("{triple}: {e}")))?;
    if cfg!(target_arch = "x86_64") && isa >= Isa::Avx2 {
        for f in [
            "has_sse3",
            "has_ssse3",
            "has_sse41",
            "has_sse42",
            "has_popcnt",
            "has_avx",
            "has_avx2",
            "has_fma",
            "has_bmi1",
            "has_bmi2",
            "has_lzcnt",
        ] {
            builder.enable(f).expect("these features exist");
        }
    }
    builder
        .finish(settings::Flags::new(flags))
        .map_err(|e| CodegenError::Target(format!("{triple}: {e}")))
}

/// Whether some kernel of a plan cannot be compiled for wide vectors that the machine has.
pub(crate) fn element_by_element(plan: &Plan, isa: Isa) -> bool {
    isa >= Isa::Avx2
        && plan.generated.iter().any(|g| {
            let k = with_row(&g.kernel);
            let blocks = micro::expand(&k);
            blocks.and_then(|blocks| wide::emit(&k, &blocks, isa)).is_err()
        })
}

/// Compiles a plan into a module; returns the entry and what became of each kernel.
fn generate<M: Module>(
    module: &mut M,
    plan: &Plan,
    isa: Isa,
) -> Result<(FuncId, Vec<Listing>), CodegenError> {
    let mut g = Generator {
        context: module.make_context(),
        builder: FunctionBuilderContext::new(),
        module,
        isa,
        symbols: plan.graph.symbol_names(),
    };
    let mut listings = Vec::new();
    let mut functions: Vec<(usize, FuncId)> = Vec::new();
    for k in &plan.generated {
        let (f, listing) = g.kernel(k)?;
        functions.push((k.step, f));
        listings.push(listing);
    }
    let entry = g.entry(plan, &functions)?;
    Ok((entry, listings))
}

struct Generator<'m, M: Module> {
    module: &'m mut M,
    context: Context,
    builder: FunctionBuilderContext,
    isa: Isa,
    symbols: Vec<String>,
}

/// Offsets in [`sinter_runtime::program::Table`].
const PARALLEL: i32 = 0;
const CALL: i32 = 8;
const DONE: i32 = 40;
/// Offset in [`sinter_runtime::program::Frame`].
const PROFILED: i32 = 32;

impl<M: Module> Generator<'_, M> {
    fn failed(name: &str, e: impl std::fmt::Display) -> CodegenError {
        CodegenError::Function { function: name.to_string(), message: e.to_string() }
    }

    fn call_conv(&self) -> CallConv {
        self.module.isa().default_call_conv()
    }

    /// `fn(params…) -> returns`, all of them 64-bit integers but the i32 results.
    fn signature(&self, params: usize, returns: &[Type]) -> Signature {
        let mut s = Signature::new(self.call_conv());
        s.params = vec![AbiParam::new(types::I64); params];
        s.returns = returns.iter().map(|t| AbiParam::new(*t)).collect();
        s
    }

    fn define(
        &mut self,
        name: &str,
        linkage: Linkage,
        signature: Signature,
        body: impl FnOnce(&mut M, &mut Func<'_>, Vec<Value>),
    ) -> Result<FuncId, CodegenError> {
        let fail = |e: &dyn std::fmt::Display| Self::failed(name, e);
        let id = self.module.declare_function(name, linkage, &signature).map_err(|e| fail(&e))?;
        self.module.clear_context(&mut self.context);
        self.context.func.signature = signature;
        let config = self.module.target_config();
        {
            let b = FunctionBuilder::new(&mut self.context.func, &mut self.builder);
            let (mut f, params) = Func::enter(b);
            body(self.module, &mut f, params);
            f.b.finalize(config);
        }
        self.module.define_function(id, &mut self.context).map_err(|e| {
            // Cranelift's error shows the function; its message alone does not.
            Self::failed(name, format!("{e:?}"))
        })?;
        Ok(id)
    }

    /// Compiles one kernel: wide rows inside Cranelift loops where possible.
    fn kernel(&mut self, gen_: &Generated) -> Result<(FuncId, Listing), CodegenError> {
        let k = &with_row(&gen_.kernel);
        let attempt = if self.isa >= Isa::Avx2 {
            micro::expand(k).and_then(|blocks| wide::emit(k, &blocks, self.isa))
        } else {
            Err(micro::Scalarised(format!("no wide vectors at level {}", self.isa.name())))
        };
        let params = if k.hook { 6 } else { 3 };
        let signature = self.signature(params, &[]);
        let (id, how) = match attempt {
            Ok(w) => {
                let row_name = format!("{}.rows", k.name);
                let row_sig = self.signature(1, &[]);
                let rows = self
                    .module
                    .declare_function(&row_name, Linkage::Local, &row_sig)
                    .map_err(|e| Self::failed(&row_name, e))?;
                self.module
                    .define_function_bytes(rows, 64, &w.code, &[])
                    .map_err(|e| Self::failed(&row_name, e))?;
                let id = self.define(&k.name, Linkage::Local, signature, |m, f, p| {
                    let rows = m.declare_func_in_func(rows, f.b.func);
                    let call = |f: &mut Func<'_>, slot: Value| {
                        f.b.ins().call(rows, &[slot]);
                    };
                    if k.hook {
                        wide_hook(f, k, &p, call)
                    } else {
                        wide_loops(f, k, &p, call)
                    }
                    f.b.ins().return_(&[]);
                })?;
                let how = format!(
                    "{}-bit vectors, {} at a time",
                    self.isa.lanes_f32() * 32,
                    w.unroll.iter().map(usize::to_string).collect::<Vec<_>>().join("/")
                );
                (id, how)
            }
            Err(why) => {
                let id = self.define(&k.name, Linkage::Local, signature, |_, f, p| {
                    if k.hook {
                        scalar_hook(f, k, &p)
                    } else {
                        scalar_loops(f, k, &p)
                    }
                    f.b.ins().return_(&[]);
                })?;
                (id, format!("element by element: {}", why.0))
            }
        };
        let listing = Listing {
            name: k.name.clone(),
            step: gen_.step,
            how,
            ir: gen_.kernel.text(&self.symbols),
        };
        Ok((id, listing))
    }

    /// The program's entry: every step in order.
    fn entry(
        &mut self,
        plan: &Plan,
        functions: &[(usize, FuncId)],
    ) -> Result<FuncId, CodegenError> {
        let signature = self.signature(1, &[types::I32]);
        let parallel_sig = self.signature(4, &[]);
        let call_sig = self.signature(3, &[types::I32]);
        let done_sig = self.signature(1, &[]);
        let id = self.define(ENTRY, Linkage::Export, signature, |m, f, _| {
            let table = f.b.ins().load(types::I64, plain(), f.frame, 16);
            let profiled = f.b.ins().load(types::I64, plain(), f.frame, PROFILED);
            let done_sig = f.b.import_signature(done_sig);
            let parallel_sig = f.b.import_signature(parallel_sig);
            let call_sig = f.b.import_signature(call_sig);
            for (i, step) in plan.program.steps.iter().enumerate() {
                let kernel = plan.generated.iter().position(|k| k.step == i);
                let function = kernel.map(|k| m.declare_func_in_func(functions[k].1, f.b.func));
                match (step, kernel, function) {
                    (Step::Generated { .. }, Some(k), Some(function)) => {
                        let k = &plan.generated[k].kernel;
                        launch(f, k, function, table, parallel_sig);
                    }
                    _ => {
                        let hook = match function {
                            Some(h) => f.b.ins().func_addr(types::I64, h),
                            None => f.int(0),
                        };
                        let number = f.int(i as i64);
                        let callee = f.b.ins().load(types::I64, plain(), table, CALL);
                        let call =
                            f.b.ins().call_indirect(call_sig, callee, &[f.frame, number, hook]);
                        let status = f.b.inst_results(call)[0];
                        f.when_return(status);
                    }
                }
                note_done(f, profiled, table, done_sig);
            }
            let ok = f.b.ins().iconst(types::I32, 0);
            f.b.ins().return_(&[ok]);
        })?;
        Ok(id)
    }
}

/// A kernel with at least the row axis that the generators expect.
fn with_row(k: &Kernel) -> Kernel {
    let mut k = k.clone();
    if k.extents.is_empty() {
        k.extents.push(Dim::of(1));
        k.parallel = 1;
        for a in &mut k.args {
            a.strides.push(Dim::of(0));
        }
    }
    k
}

/// The axis that `begin..end` of a kernel's function counts, if any: the outermost
/// parallel one.
fn outer_axis(k: &Kernel) -> Option<usize> {
    (k.parallel > 0).then_some(0)
}

/// Estimated picoseconds of one element of the iteration space.
fn element_ps(k: &Kernel) -> i64 {
    let mut ns = 0.0;
    for s in &k.stages {
        for (inst, _) in &s.insts {
            ns += match inst {
                Inst::Load(_) => 0.05,
                Inst::Unary(u, _) => crate::cost::unary_ns(*u),
                _ => 0.02,
            };
        }
        ns += 0.05 * s.stores.len() as f64;
    }
    ((ns * 1000.0) as i64).max(1)
}

/// Calls a kernel's function over its whole outer axis: directly, or through the
/// runtime where several threads pay.
fn launch(
    f: &mut Func<'_>,
    k: &Kernel,
    function: codegen::ir::FuncRef,
    table: Value,
    parallel_sig: codegen::ir::SigRef,
) {
    let zero = f.int(0);
    let Some(axis) = outer_axis(k) else {
        let one = f.int(1);
        f.b.ins().call(function, &[f.frame, zero, one]);
        return;
    };
    let n = f.dim(&k.extents[axis]);
    let ps = element_ps(k);
    let known: Option<usize> = k.extents.iter().map(Extent::known).product();
    // Small for certain: no question at run time.
    let share_ps = SHARE_NS as i64 * 1000;
    let small = known.is_some_and(|e| (e as i64).saturating_mul(ps) < 2 * share_ps);
    if small {
        f.b.ins().call(function, &[f.frame, zero, n]);
        return;
    }
    let mut total = f.int(ps);
    for d in &k.extents {
        let d = f.dim(d);
        total = f.b.ins().imul(total, d);
    }
    let worth = f.b.ins().icmp_imm_s(IntCC::SignedGreaterThan, total, 2 * share_ps);
    let shared = f.b.create_block();
    let alone = f.b.create_block();
    let after = f.b.create_block();
    f.b.ins().brif(worth, shared, &[], alone, &[]);
    f.b.switch_to_block(shared);
    f.b.seal_block(shared);
    // grain = n * share / total, at least 1; the runtime rounds.
    let share = f.int(share_ps);
    let scaled = f.b.ins().imul(n, share);
    let grain = f.b.ins().udiv(scaled, total);
    let grain = f.b.ins().iadd_imm_s(grain, 1);
    let pointer = f.b.ins().func_addr(types::I64, function);
    let callee = f.b.ins().load(types::I64, plain(), table, PARALLEL);
    f.b.ins().call_indirect(parallel_sig, callee, &[f.frame, pointer, n, grain]);
    f.b.ins().jump(after, &[]);
    f.b.switch_to_block(alone);
    f.b.seal_block(alone);
    f.b.ins().call(function, &[f.frame, zero, n]);
    f.b.ins().jump(after, &[]);
    f.b.switch_to_block(after);
    f.b.seal_block(after);
}

/// Tells the runtime that a step is done, where it asked.
fn note_done(f: &mut Func<'_>, asked: Value, table: Value, sig: codegen::ir::SigRef) {
    let tell = f.b.create_block();
    let on = f.b.create_block();
    f.b.set_cold_block(tell);
    f.b.ins().brif(asked, tell, &[], on, &[]);
    f.b.switch_to_block(tell);
    f.b.seal_block(tell);
    let callee = f.b.ins().load(types::I64, plain(), table, DONE);
    f.b.ins().call_indirect(sig, callee, &[f.frame]);
    f.b.ins().jump(on, &[]);
    f.b.switch_to_block(on);
    f.b.seal_block(on);
}

/// Fills the structure that wide rows read, and calls them: rows of `n` elements,
/// `rows` of them along `axis`.
fn call_rows(
    f: &mut Func<'_>,
    k: &Kernel,
    at: &[Value],
    n: Value,
    rows: Value,
    axis: Option<usize>,
    call: &impl Fn(&mut Func<'_>, Value),
) {
    let size = wide::ARGS as u32 + 16 * k.args.len() as u32;
    let slot =
        f.b.create_sized_stack_slot(StackSlotData::new(StackSlotKind::ExplicitSlot, size, 4));
    let base = f.b.ins().stack_addr(types::I64, slot, 0);
    f.b.ins().store(plain(), n, base, 0);
    f.b.ins().store(plain(), rows, base, 8);
    for (i, (a, &p)) in k.args.iter().zip(at).enumerate() {
        let o = wide::ARGS + 16 * i as i32;
        f.b.ins().store(plain(), p, base, o);
        let step = match axis {
            Some(axis) => f.dim_bytes(&a.strides[axis], a.dtype.size()),
            None => f.int(0),
        };
        f.b.ins().store(plain(), step, base, o + 8);
    }
    call(f, base);
}

/// The loop nest around wide rows, for iterations `p[0]..p[1]` of the outer axis.
fn wide_loops(f: &mut Func<'_>, k: &Kernel, p: &[Value], call: impl Fn(&mut Func<'_>, Value)) {
    let (begin, end) = (p[0], p[1]);
    let at: Vec<Value> = k.args.iter().map(|a| f.start(a)).collect();
    let row = k.extents.len() - 1;
    let one = f.int(1);
    match (k.parallel, row) {
        // One row, not to be cut: it is reduced.
        (0, _) => {
            let n = f.dim(&k.extents[row]);
            call_rows(f, k, &at, n, one, None, &call);
        }
        // One row that may be cut.
        (1, 0) => {
            let at = f.advance(k, 0, begin, &at);
            let n = f.b.ins().isub(end, begin);
            call_rows(f, k, &at, n, one, None, &call);
        }
        _ => {
            let n = f.dim(&k.extents[row]);
            nest(f, k, 0, begin, end, at, n, &call);
        }
    }
}

fn nest(
    f: &mut Func<'_>,
    k: &Kernel,
    axis: usize,
    begin: Value,
    end: Value,
    at: Vec<Value>,
    n: Value,
    call: &impl Fn(&mut Func<'_>, Value),
) {
    let row = k.extents.len() - 1;
    if axis + 1 == row {
        let at = f.advance(k, axis, begin, &at);
        let rows = f.b.ins().isub(end, begin);
        call_rows(f, k, &at, n, rows, Some(axis), call);
        return;
    }
    f.count(begin, end, |f, i| {
        let at = f.advance(k, axis, i, &at);
        let (zero, m) = (f.int(0), f.dim(&k.extents[axis + 1]));
        nest(f, k, axis + 1, zero, m, at, n, call);
    });
}

/// A tile's rows: batch, first row, first column, rows, columns.
fn wide_hook(f: &mut Func<'_>, k: &Kernel, p: &[Value], call: impl Fn(&mut Func<'_>, Value)) {
    let at: Vec<Value> = k.args.iter().map(|a| f.start(a)).collect();
    let at = f.advance(k, 0, p[0], &at);
    let at = f.advance(k, 1, p[1], &at);
    let at = f.advance(k, 2, p[2], &at);
    call_rows(f, k, &at, p[4], p[3], Some(1), &call);
}

fn scalar_loops(f: &mut Func<'_>, k: &Kernel, p: &[Value]) {
    let at: Vec<Value> = k.args.iter().map(|a| f.start(a)).collect();
    if k.parallel == 0 {
        scalar::rows(f, k, &[], &at);
        return;
    }
    scalar_nest(f, k, 0, p[0], p[1], vec![], at);
}

fn scalar_nest(
    f: &mut Func<'_>,
    k: &Kernel,
    axis: usize,
    begin: Value,
    end: Value,
    index: Vec<Value>,
    at: Vec<Value>,
) {
    f.count(begin, end, |f, i| {
        let at = f.advance(k, axis, i, &at);
        let mut index = index;
        index.push(i);
        if axis + 1 == k.parallel {
            scalar::rows(f, k, &index, &at);
        } else {
            let (zero, m) = (f.int(0), f.dim(&k.extents[axis + 1]));
            scalar_nest(f, k, axis + 1, zero, m, index, at);
        }
    });
}

fn scalar_hook(f: &mut Func<'_>, k: &Kernel, p: &[Value]) {
    let at: Vec<Value> = k.args.iter().map(|a| f.start(a)).collect();
    let at = f.advance(k, 0, p[0], &at);
    let (row_end, col_end) = (f.b.ins().iadd(p[1], p[3]), f.b.ins().iadd(p[2], p[4]));
    f.count(p[1], row_end, |f, row| {
        let at = f.advance(k, 1, row, &at);
        f.count(p[2], col_end, |f, col| {
            let at = f.advance(k, 2, col, &at);
            scalar::rows(f, k, &[p[0], row, col], &at);
        });
    });
}
