//! Inner loops at the full width of the machine.
//!
//! Cranelift's x64 vectors end at 128 bits. The loops over rows are therefore
//! written here, from the vector operations of [`super::micro`], and placed in the
//! same Cranelift module as plain bytes. Constants lie behind the code and are
//! addressed relative to it, so nothing needs relocation.
//!
//! A kernel is called with the address of a structure in memory:
//!
//! ```text
//! u64 n          elements in a row
//! u64 rows       rows (counted down in place)
//! { *mut u8 start; i64 step }   for each argument: first row, bytes between rows
//! ```
//!
//! The order of additions in a reduction is that of the eager kernels: element
//! `i` goes to virtual lane `i % 64`, then lanes are halved.

mod asm;
mod registers;
mod select;

use super::micro::{Block, Id, Micro, Scalarised};
use crate::kernel::{Kernel, Level};
use asm::{Asm, Bin, R, Src};
use iced_x86::code_asm::*;
use registers::{Place, Plan, src};
use sinter_kernels::isa::Isa;
use sinter_runtime::op::ReduceKind;
use sinter_runtime::{DType, Extent};

/// Virtual lanes of a reduction.
const VIRTUAL: usize = 64;
/// Offset of the first argument in the call structure.
pub(super) const ARGS: i32 = 16;

const POINTERS: [AsmRegister64; 11] = [rsi, rdx, rcx, r8, r9, rbx, r12, r13, r14, r15, rbp];
/// Of those, what a caller expects back.
const SAVED: [AsmRegister64; 6] = [rbx, r12, r13, r14, r15, rbp];

/// What was emitted.
#[derive(Debug)]
pub(super) struct Wide {
    pub(super) code: Vec<u8>,
    /// Registers processed together in the main loop of each stage.
    pub(super) unroll: Vec<usize>,
}

/// Emits a kernel's rows, or says why it must be compiled element by element.
///
/// The kernel's last axis is the row: every argument moves along it by one element
/// or not at all.
pub(super) fn emit(k: &Kernel, blocks: &[Block], isa: Isa) -> Result<Wide, Scalarised> {
    if k.args.len() > POINTERS.len() {
        return Err(Scalarised(format!(
            "it has {} memory operands, at most {} are vectorised",
            k.args.len(),
            POINTERS.len()
        )));
    }
    if k.extents.len() - k.parallel > 1 {
        return Err(Scalarised("its rows have several axes".into()));
    }
    let moves: Vec<bool> = k
        .args
        .iter()
        .map(|a| match a.strides.last() {
            Some(s) if s.is(1) => Ok(true),
            None => Ok(false),
            Some(s) if s.is(0) => Ok(false),
            Some(s) => Err(Scalarised(format!("an operand moves by {s} along the row"))),
        })
        .collect::<Result<_, _>>()?;
    if isa != Isa::Avx512 && k.args.iter().any(|a| a.dtype == DType::Bool) {
        return Err(Scalarised("bool operands are vectorised with AVX-512 only".into()));
    }
    let mut e = Emitter {
        asm: Asm::new(isa).map_err(internal)?,
        kernel: k,
        moves,
        rows: 0,
        unroll: vec![],
    };
    e.kernel(blocks)?;
    Ok(Wide { unroll: e.unroll, code: e.asm.finish().map_err(internal)? })
}

/// An assembler's complaint: a mistake here, answered by the slower path.
fn internal(e: iced_x86::IcedError) -> Scalarised {
    Scalarised(format!("the assembler says: {e}"))
}

/// How results are stored.
#[derive(Clone, Copy)]
enum Store<'a> {
    Whole,
    /// As far as the tail's mask reaches.
    Masked,
    /// Of these arguments, past the caches.
    Past(&'a [u32]),
}

struct Emitter<'a> {
    asm: Asm,
    kernel: &'a Kernel,
    /// Whether each argument moves along the row.
    moves: Vec<bool>,
    /// Row values so far; each has four bytes of stack.
    rows: usize,
    unroll: Vec<usize>,
}

impl Emitter<'_> {
    fn kernel(&mut self, blocks: &[Block]) -> Result<(), Scalarised> {
        let stack = (self.row_values(blocks) * 4).next_multiple_of(16) as i32;
        self.enter(stack).map_err(internal)?;
        let mut row = self.asm.a.create_label();
        let mut done = self.asm.a.create_label();
        self.begin_rows(&mut row, done).map_err(internal)?;
        for (stage, block) in self.kernel.stages.iter().zip(blocks) {
            if stage.is_idle() {
                continue;
            }
            match stage.level {
                Level::Element => self.element_stage(block)?,
                Level::Row => self.row_stage(block)?,
            }
        }
        self.end_rows(row, &mut done, stack).map_err(internal)
    }

    fn row_values(&self, blocks: &[Block]) -> usize {
        blocks.iter().map(|b| b.reductions.len() + b.results.len()).sum()
    }

    fn enter(&mut self, stack: i32) -> R {
        for r in SAVED {
            self.asm.a.push(r)?;
        }
        if stack > 0 {
            self.asm.a.sub(rsp, stack)?;
        }
        self.asm.a.mov(r10, qword_ptr(rdi))?;
        for i in 0..self.kernel.args.len() {
            self.asm.a.mov(POINTERS[i], qword_ptr(rdi + (ARGS + 16 * i as i32)))?;
        }
        Ok(())
    }

    fn begin_rows(&mut self, row: &mut CodeLabel, done: CodeLabel) -> R {
        self.asm.a.cmp(qword_ptr(rdi + 8), 0)?;
        self.asm.a.je(done)?;
        self.asm.a.set_label(row)?;
        // A label needs an instruction of its own.
        self.asm.a.nop()
    }

    fn end_rows(&mut self, row: CodeLabel, done: &mut CodeLabel, stack: i32) -> R {
        for i in 0..self.kernel.args.len() {
            self.asm.a.add(POINTERS[i], qword_ptr(rdi + (ARGS + 16 * i as i32 + 8)))?;
        }
        self.asm.a.dec(qword_ptr(rdi + 8))?;
        self.asm.a.jne(row)?;
        self.asm.a.set_label(done)?;
        if self.kernel.manner.stream {
            // Other threads see what was written past the caches, too.
            self.asm.a.sfence()?;
        }
        self.asm.leave()?;
        if stack > 0 {
            self.asm.a.add(rsp, stack)?;
        }
        for r in SAVED.iter().rev() {
            self.asm.a.pop(*r)?;
        }
        self.asm.a.ret()
    }

    /// Registers and their lanes.
    fn machine(&self) -> (usize, usize) {
        (self.asm.registers() as usize, self.asm.lanes())
    }

    fn is_bool(&self, arg: u32) -> bool {
        self.kernel.args[arg as usize].dtype == DType::Bool
    }

    /// The element of an argument at the current index plus `disp`.
    fn element(&self, arg: u32, disp: usize) -> AsmMemoryOperand {
        let p = POINTERS[arg as usize];
        if self.is_bool(arg) { p + rax + disp as i32 } else { p + rax * 4 + (4 * disp) as i32 }
    }

    /// Loads what stays in registers through a stage; returns where values are and
    /// the registers left.
    fn prologue(&mut self, b: &Block, plan: &Plan) -> R<(Vec<Place>, Vec<u8>)> {
        let mut free: Vec<u8> = (0..self.asm.registers()).rev().collect();
        let mut places = vec![Place::Nowhere; b.ops.len()];
        for (i, op) in b.ops.iter().enumerate() {
            if let Micro::Const(bits) = op {
                places[i] = Place::Memory(*bits);
            }
        }
        for &i in plan.fixed.iter().chain(&plan.pinned) {
            let r = free.pop().expect("the plan counted registers");
            match b.ops[i as usize] {
                Micro::Const(bits) => self.asm.constant(r, bits)?,
                Micro::Row(v) => self.asm.broadcast(r, rsp + 4 * v as i32, false, r11d)?,
                Micro::Load(a) => {
                    let bytes = self.is_bool(a);
                    self.asm.broadcast(r, POINTERS[a as usize] + 0, bytes, r11d)?;
                }
                _ => unreachable!("only these are fixed"),
            }
            places[i as usize] = Place::Pinned(r);
        }
        Ok((places, free))
    }

    fn row_stage(&mut self, b: &Block) -> Result<(), Scalarised> {
        let plan = Plan::new(b, self.machine(), 0, None, 1)?;
        self.unroll.push(1);
        let emit = |e: &mut Self| -> R {
            let (places, free) = e.prologue(b, &plan)?;
            let places = e.body(b, &plan.last, places, free, 1, 0, false)?;
            for &(arg, v) in &b.stores {
                let bytes = e.is_bool(arg);
                e.asm.store_one(POINTERS[arg as usize] + 0, src(&places, v, 0), bytes, r11d)?;
            }
            for &v in &b.results {
                let at = rsp + 4 * e.rows as i32;
                e.asm.store_one(at, src(&places, v, 0), false, r11d)?;
                e.rows += 1;
            }
            Ok(())
        };
        emit(self).map_err(internal)
    }

    fn element_stage(&mut self, b: &Block) -> Result<(), Scalarised> {
        let lanes = self.asm.lanes();
        let per_block = VIRTUAL / lanes;
        let accumulators = b.reductions.len() * per_block;
        let most = self.kernel.manner.at_once;
        let plan = Plan::new(b, self.machine(), accumulators, Some(&self.moves), most)?;
        self.unroll.push(plan.unroll);
        self.element_loops(b, &plan, lanes, per_block).map_err(internal)
    }

    fn element_loops(&mut self, b: &Block, plan: &Plan, lanes: usize, per_block: usize) -> R {
        let (places, mut free) = self.prologue(b, plan)?;
        let acc: Vec<Vec<u8>> = b
            .reductions
            .iter()
            .map(|_| (0..per_block).map(|_| free.pop().expect("counted")).collect())
            .collect();
        for ((kind, _), regs) in b.reductions.iter().zip(&acc) {
            for &r in regs {
                self.asm.constant(r, identity(*kind))?;
            }
        }
        let reduces = !b.reductions.is_empty();
        // Reductions go block by block, so that lanes keep their meaning.
        let step = if reduces { VIRTUAL } else { plan.unroll * lanes };
        let groups = step / (plan.unroll * lanes);
        let mut tail = self.asm.a.create_label();
        let mut end = self.asm.a.create_label();
        let main = |e: &mut Self, store: Store<'_>| -> R {
            let mut again = e.asm.a.create_label();
            e.asm.a.xor(eax, eax)?;
            e.asm.a.mov(r11, r10)?;
            e.asm.a.and(r11, -(step as i32))?;
            e.asm.a.je(tail)?;
            e.asm.a.set_label(&mut again)?;
            for g in 0..groups {
                let first = g * plan.unroll;
                let (places, free) = (places.clone(), free.clone());
                let p = e.body(b, &plan.last, places, free, plan.unroll, first, false)?;
                e.sinks(b, &p, &acc, plan.unroll, first, store)?;
            }
            e.asm.a.add(rax, step as i32)?;
            e.asm.a.cmp(rax, r11)?;
            e.asm.a.jb(again)
        };
        let streams = self.streams(b);
        if let [first, rest @ ..] = &streams[..] {
            // Where every result lies on whole vectors.
            let mut plain = self.asm.a.create_label();
            self.asm.a.mov(rax, POINTERS[*first as usize])?;
            for &arg in rest {
                self.asm.a.or(rax, POINTERS[arg as usize])?;
            }
            self.asm.a.and(rax, 4 * lanes as i32 - 1)?;
            self.asm.a.jne(plain)?;
            main(self, Store::Past(&streams))?;
            self.asm.a.jmp(tail)?;
            self.asm.a.set_label(&mut plain)?;
        }
        main(self, Store::Whole)?;
        // What is left of the row, a masked register at a time.
        self.asm.a.set_label(&mut tail)?;
        self.asm.a.cmp(rax, r10)?;
        self.asm.a.jae(end)?;
        if reduces {
            for q in 0..per_block {
                self.masked(b, &plan.last, &places, &free, &acc, q)?;
                if q + 1 < per_block {
                    self.asm.a.add(rax, lanes as i32)?;
                    self.asm.a.cmp(rax, r10)?;
                    self.asm.a.jae(end)?;
                }
            }
        } else {
            let mut again = self.asm.a.create_label();
            self.asm.a.set_label(&mut again)?;
            self.masked(b, &plan.last, &places, &free, &acc, 0)?;
            self.asm.a.add(rax, lanes as i32)?;
            self.asm.a.cmp(rax, r10)?;
            self.asm.a.jb(again)?;
        }
        self.asm.a.set_label(&mut end)?;
        self.asm.a.nop()?;
        for ((kind, _), regs) in b.reductions.iter().zip(&acc) {
            let op = combiner(*kind);
            let mut n = per_block;
            while n > 1 {
                n /= 2;
                for j in 0..n {
                    self.asm.accumulate(op, regs[j], Src::Reg(regs[j + n]), false)?;
                }
            }
            self.asm.fold(op, regs[0])?;
            self.asm.store_one(rsp + 4 * self.rows as i32, Src::Reg(regs[0]), false, r11d)?;
            self.rows += 1;
        }
        Ok(())
    }

    /// Arguments that are written past the caches: f32 that the kernel does not read.
    fn streams(&self, b: &Block) -> Vec<u32> {
        let reads = |arg: u32| b.ops.iter().any(|op| matches!(op, Micro::Load(a) if *a == arg));
        let mut args: Vec<u32> = b.stores.iter().map(|s| s.0).collect();
        args.sort_unstable();
        args.dedup();
        let one_pass = self.kernel.stages.len() == 1 && !self.kernel.hook;
        args.retain(|&a| self.moves[a as usize] && !self.is_bool(a) && !reads(a));
        if one_pass && self.kernel.manner.stream { args } else { vec![] }
    }

    /// One masked register, counted as number `q` of its block.
    fn masked(
        &mut self,
        b: &Block,
        last: &[usize],
        places: &[Place],
        free: &[u8],
        acc: &[Vec<u8>],
        q: usize,
    ) -> R {
        self.asm.a.push(r10)?;
        self.asm.a.sub(r10, rax)?;
        self.asm.tail_mask(r10, r11)?;
        self.asm.a.pop(r10)?;
        let p = self.body(b, last, places.to_vec(), free.to_vec(), 1, 0, true)?;
        let acc: Vec<Vec<u8>> = acc.iter().map(|r| vec![r[q]]).collect();
        self.sinks(b, &p, &acc, 1, 0, Store::Masked)
    }

    /// Emits the operations for `unroll` registers, the first of which is number
    /// `first` after the current index.
    fn body(
        &mut self,
        b: &Block,
        last: &[usize],
        mut places: Vec<Place>,
        mut free: Vec<u8>,
        unroll: usize,
        first: usize,
        masked: bool,
    ) -> R<Vec<Place>> {
        let lanes = self.asm.lanes();
        for (i, op) in b.ops.iter().enumerate() {
            if places[i] != Place::Nowhere {
                continue;
            }
            let mut regs = [0u8; 4];
            for q in 0..unroll {
                let dies = |id: Id| {
                    last[id as usize] == i && matches!(places[id as usize], Place::Regs(_))
                };
                regs[q] = self.operation(op, &places, q, &mut free, &dies, |e, arg, d| {
                    let m = e.element(arg, (first + q) * lanes);
                    let bytes = e.is_bool(arg);
                    e.asm.load(d, m, bytes, masked)
                })?;
            }
            let mut used: Vec<Id> = op.uses().collect();
            used.sort_unstable();
            used.dedup();
            for u in used {
                if let Place::Regs(old) = places[u as usize]
                    && last[u as usize] == i
                {
                    free.extend(
                        (0..unroll).map(|q| old[q]).filter(|r| !regs[..unroll].contains(r)),
                    );
                }
            }
            places[i] = Place::Regs(regs);
        }
        Ok(places)
    }

    fn sinks(
        &mut self,
        b: &Block,
        places: &[Place],
        acc: &[Vec<u8>],
        unroll: usize,
        first: usize,
        how: Store<'_>,
    ) -> R {
        let masked = matches!(how, Store::Masked);
        for ((kind, v), regs) in b.reductions.iter().zip(acc) {
            for q in 0..unroll {
                let r = regs[if masked { 0 } else { first + q }];
                self.asm.accumulate(combiner(*kind), r, src(places, *v, q), masked)?;
            }
        }
        let lanes = self.asm.lanes();
        for &(arg, v) in &b.stores {
            for q in 0..unroll {
                let m = self.element(arg, (first + q) * lanes);
                let bytes = self.is_bool(arg);
                match how {
                    Store::Past(args) if args.contains(&arg) => {
                        self.asm.stream(m, src(places, v, q))?;
                    }
                    _ => self.asm.store(m, src(places, v, q), bytes, masked)?,
                }
            }
        }
        Ok(())
    }
}

fn identity(kind: ReduceKind) -> u32 {
    match kind {
        ReduceKind::Max => f32::NEG_INFINITY.to_bits(),
        ReduceKind::Min => f32::INFINITY.to_bits(),
        ReduceKind::Prod => 1.0f32.to_bits(),
        _ => 0,
    }
}

fn combiner(kind: ReduceKind) -> Bin {
    match kind {
        ReduceKind::Max => Bin::Max,
        ReduceKind::Min => Bin::Min,
        ReduceKind::Prod => Bin::Mul,
        _ => Bin::Add,
    }
}
