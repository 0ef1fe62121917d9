//! The contract between generated code and the runtime.
//!
//! Generated code has no undefined symbols: it reaches memory and the runtime's
//! services through the [`Frame`] it is given. The layout of these structures is
//! fixed by [`ABI_VERSION`]; any change to it, or to the numbering of
//! [`crate::op::UnaryOp`] and [`crate::op::BinaryOp`], raises that number.

use std::any::Any;
use std::ffi::c_void;

/// Version of this contract.
pub const ABI_VERSION: u32 = 2;

/// What generated code is given.
#[repr(C)]
pub struct Frame {
    /// Address of each buffer.
    pub buffers: *const *mut u8,
    /// Size of each symbol.
    pub sizes: *const i64,
    /// The runtime's services.
    pub table: *const Table,
    /// The runtime's own.
    pub context: *const c_void,
    /// Not 0 where [`Table::done`] is to be called after every step.
    pub profiled: u64,
}

/// The entry of a program: runs every step. Returns 0, or not 0 when a step failed.
pub type MainFn = unsafe extern "C" fn(frame: *const Frame) -> i32;

/// A generated step: iterations `begin..end` of its outer loop.
pub type LoopFn = unsafe extern "C" fn(frame: *const Frame, begin: u64, end: u64);

/// Generated code that finishes a region of a contraction's result: rows
/// `row..row + rows` and columns `col..col + cols` of matrix `batch`.
pub type HookFn =
    unsafe extern "C" fn(frame: *const Frame, batch: u64, row: u64, col: u64, rows: u64, cols: u64);

/// The runtime's services, for generated code.
#[repr(C)]
pub struct Table {
    /// Runs `f` over `0..n` in pieces of at least `grain`, on several threads
    /// when that many iterations are worth it.
    pub parallel: unsafe extern "C" fn(frame: *const Frame, f: LoopFn, n: u64, grain: u64),
    /// Runs step `step` by a library kernel, with `hook` for its tiles. Returns 0,
    /// or not 0 when it failed.
    pub call: unsafe extern "C" fn(frame: *const Frame, step: u64, hook: Option<HookFn>) -> i32,
    /// A scalar function: [`crate::op::UnaryOp::ALL`]`[op]` in f64.
    pub unary: unsafe extern "C" fn(op: u64, x: f64) -> f64,
    /// A scalar function: [`crate::op::BinaryOp::ALL`]`[op]` in f64.
    pub binary: unsafe extern "C" fn(op: u64, a: f64, b: f64) -> f64,
    /// A scalar function: [`crate::op::BinaryOp::ALL`]`[op]` on integers.
    pub binary_int: unsafe extern "C" fn(op: u64, a: i64, b: i64) -> i64,
    /// Takes note of the time: a step is done.
    pub done: unsafe extern "C" fn(frame: *const Frame),
}

/// Executable code and whatever keeps it alive.
pub struct Code {
    pub(super) main: MainFn,
    _memory: Box<dyn Any + Send + Sync>,
}

impl Code {
    /// Wraps an entry point; `memory` is dropped after the last call.
    ///
    /// # Safety
    /// `main` must be code generated for the program it will run, under this
    /// version of the contract and for instructions this machine has, and must
    /// stay valid as long as `memory` lives.
    #[allow(unsafe_code)]
    pub unsafe fn new(main: MainFn, memory: Box<dyn Any + Send + Sync>) -> Code {
        Code { main, _memory: memory }
    }
}

impl std::fmt::Debug for Code {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Code({:p})", self.main as *const ())
    }
}
