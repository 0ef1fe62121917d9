//! Writing one Cranelift function: extents, buffers, loops.

use crate::kernel::{Arg, Kernel};
use cranelift::codegen::ir::{BlockArg, MemFlagsData};
use cranelift::prelude::*;
use sinter_runtime::{DType, Dim, Extent};

/// Memory that generated code may touch: aligned for its type, never trapping.
pub(super) fn plain() -> MemFlagsData {
    MemFlagsData::trusted()
}

/// A Cranelift function in the making, with what every generated function has: the
/// frame it was given.
pub(super) struct Func<'a> {
    pub(super) b: FunctionBuilder<'a>,
    pub(super) frame: Value,
    buffers: Value,
    sizes: Value,
}

impl<'a> Func<'a> {
    /// Opens the entry block; returns the parameters after the frame.
    pub(super) fn enter(mut b: FunctionBuilder<'a>) -> (Func<'a>, Vec<Value>) {
        let entry = b.create_block();
        b.append_block_params_for_function_params(entry);
        b.switch_to_block(entry);
        b.seal_block(entry);
        let params = b.block_params(entry).to_vec();
        let frame = params[0];
        let buffers = b.ins().load(types::I64, plain(), frame, 0);
        let sizes = b.ins().load(types::I64, plain(), frame, 8);
        (Func { b, frame, buffers, sizes }, params[1..].to_vec())
    }

    pub(super) fn int(&mut self, v: i64) -> Value {
        self.b.ins().iconst(types::I64, v)
    }

    /// The value of an extent for this run's sizes.
    pub(super) fn dim(&mut self, d: &Dim) -> Value {
        if let Some(n) = d.known() {
            return self.int(n as i64);
        }
        let mut sum: Option<Value> = None;
        for (c, powers) in d.terms() {
            let mut t = self.int(c);
            for (i, &p) in powers.iter().enumerate() {
                for _ in 0..p {
                    let s = self.b.ins().load(types::I64, plain(), self.sizes, 8 * i as i32);
                    t = self.b.ins().imul(t, s);
                }
            }
            sum = Some(match sum {
                Some(s) => self.b.ins().iadd(s, t),
                None => t,
            });
        }
        match sum {
            Some(s) => s,
            None => self.int(0),
        }
    }

    /// An extent times a number of bytes.
    pub(super) fn dim_bytes(&mut self, d: &Dim, size: usize) -> Value {
        self.dim(&d.times(&Dim::of(size)))
    }

    /// Address of an argument's element at the first iteration.
    pub(super) fn start(&mut self, a: &Arg) -> Value {
        let at = 8 * i32::try_from(a.buffer).expect("a program has fewer buffers");
        let p = self.b.ins().load(types::I64, plain(), self.buffers, at);
        if a.offset.is(0) {
            return p;
        }
        let o = self.dim_bytes(&a.offset, a.dtype.size());
        self.b.ins().iadd(p, o)
    }

    /// `for i in begin..end { body(i) }`, counting by one.
    pub(super) fn count(&mut self, begin: Value, end: Value, body: impl FnOnce(&mut Self, Value)) {
        let head = self.b.create_block();
        let inside = self.b.create_block();
        let after = self.b.create_block();
        let i = self.b.append_block_param(head, types::I64);
        self.b.ins().jump(head, &[BlockArg::Value(begin)]);
        self.b.switch_to_block(head);
        let more = self.b.ins().icmp(IntCC::SignedLessThan, i, end);
        self.b.ins().brif(more, inside, &[], after, &[]);
        self.b.switch_to_block(inside);
        self.b.seal_block(inside);
        body(self, i);
        let next = self.b.ins().iadd_imm_s(i, 1);
        self.b.ins().jump(head, &[BlockArg::Value(next)]);
        self.b.seal_block(head);
        self.b.switch_to_block(after);
        self.b.seal_block(after);
    }

    /// Returns `status` where it is not zero.
    pub(super) fn when_return(&mut self, status: Value) {
        let out = self.b.create_block();
        let on = self.b.create_block();
        self.b.set_cold_block(out);
        self.b.ins().brif(status, out, &[], on, &[]);
        self.b.switch_to_block(out);
        self.b.seal_block(out);
        self.b.ins().return_(&[status]);
        self.b.switch_to_block(on);
        self.b.seal_block(on);
    }

    /// Every argument's address moved by `index` along an axis.
    pub(super) fn advance(
        &mut self,
        k: &Kernel,
        axis: usize,
        index: Value,
        at: &[Value],
    ) -> Vec<Value> {
        k.args
            .iter()
            .zip(at)
            .map(|(a, &p)| {
                let s = &a.strides[axis];
                if s.is(0) {
                    return p;
                }
                let step = self.dim_bytes(s, a.dtype.size());
                let o = self.b.ins().imul(index, step);
                self.b.ins().iadd(p, o)
            })
            .collect()
    }
}

/// How an element is held in a register.
pub(super) fn held(d: DType) -> Type {
    match d {
        DType::Bool | DType::U8 | DType::I8 => types::I8,
        // Half precision is only moved.
        DType::U16 | DType::I16 | DType::F16 | DType::BF16 => types::I16,
        DType::U32 | DType::I32 => types::I32,
        DType::U64 | DType::I64 => types::I64,
        DType::F32 => types::F32,
        DType::F64 => types::F64,
        DType::C64 | DType::C128 => unreachable!("refused when the program is planned"),
    }
}
