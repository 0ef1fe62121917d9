//! Writing one device function as MLIR text.
//!
//! Values are in single assignment, each with its type at every use, as MLIR's
//! syntax has it. Constants, and extents computed from the sizes of a run, are
//! written once, at the head of the function, whatever loop asks for them.

use rustc_hash::FxHashMap;
use sinter_runtime::{DType, Dim, Extent, Scalar};
use std::collections::BTreeSet;
use std::fmt::{self, Display, Write};

/// A value of the function.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Value {
    /// The result of an operation.
    Local(u32),
    /// The address of a buffer.
    Buffer(u32),
    /// The size of a symbol.
    Size(usize),
}

impl Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Value::Local(i) => write!(f, "%{i}"),
            Value::Buffer(i) => write!(f, "%b{i}"),
            Value::Size(i) => write!(f, "%s{i}"),
        }
    }
}

/// The MLIR type in which a value is computed with.
pub(super) fn held(d: DType) -> &'static str {
    match d {
        DType::Bool => "i1",
        DType::U8 | DType::I8 => "i8",
        DType::U16 | DType::I16 => "i16",
        DType::U32 | DType::I32 => "i32",
        DType::U64 | DType::I64 => "i64",
        DType::F16 => "f16",
        DType::BF16 => "bf16",
        DType::F32 => "f32",
        DType::F64 => "f64",
        DType::C64 | DType::C128 => unreachable!("refused when the program is planned"),
    }
}

/// The MLIR type of an element in memory.
pub(super) fn stored(d: DType) -> &'static str {
    if d == DType::Bool { "i8" } else { held(d) }
}

/// Appends one operation with a result: `op!(w, "arith.addi {a}, {b} : i64")`.
macro_rules! op {
    ($w:expr, $($text:tt)*) => { $w.push(format_args!($($text)*)) };
}
/// Appends one line without a result.
macro_rules! line {
    ($w:expr, $($text:tt)*) => { $w.put(format_args!($($text)*)) };
}
pub(super) use {line, op};

/// The text of a function so far.
#[derive(Default)]
pub(super) struct Writer {
    head: String,
    body: String,
    depth: usize,
    values: u32,
    constants: FxHashMap<String, Value>,
    extents: FxHashMap<Dim, Value>,
    /// Symbols whose sizes it uses.
    pub(super) symbols: BTreeSet<usize>,
}

const INDENT: &str = "    ";

fn indented(to: &mut String, depth: usize, text: fmt::Arguments<'_>) {
    to.push_str(INDENT);
    for _ in 0..depth {
        to.push_str("  ");
    }
    writeln!(to, "{text}").expect("writing to a string does not fail");
}

impl Writer {
    /// A name for a value that is about to be written.
    pub(super) fn fresh(&mut self) -> Value {
        self.values += 1;
        Value::Local(self.values - 1)
    }

    pub(super) fn push(&mut self, text: fmt::Arguments<'_>) -> Value {
        let v = self.fresh();
        self.put(format_args!("{v} = {text}"));
        v
    }

    pub(super) fn put(&mut self, text: fmt::Arguments<'_>) {
        indented(&mut self.body, self.depth, text);
    }

    /// Opens a region; `header` ends in a brace.
    pub(super) fn open(&mut self, header: fmt::Arguments<'_>) {
        self.put(header);
        self.depth += 1;
    }

    pub(super) fn close(&mut self) {
        self.depth -= 1;
        self.put(format_args!("}}"));
    }

    fn head(&mut self, text: fmt::Arguments<'_>) -> Value {
        let v = self.fresh();
        indented(&mut self.head, 0, format_args!("{v} = {text}"));
        v
    }

    fn literal(&mut self, text: String) -> Value {
        if let Some(&v) = self.constants.get(&text) {
            return v;
        }
        let v = self.head(format_args!("arith.constant {text}"));
        self.constants.insert(text, v);
        v
    }

    /// A 64-bit integer.
    pub(super) fn int(&mut self, v: i64) -> Value {
        self.literal(format!("{v} : i64"))
    }

    /// A 32-bit integer.
    pub(super) fn int32(&mut self, v: i32) -> Value {
        self.literal(format!("{v} : i32"))
    }

    /// An f32, by its bits.
    pub(super) fn float(&mut self, bits: u32) -> Value {
        // The comment is for people; decimals would have to be exact.
        self.literal(format!("0x{bits:08X} : f32 // {:?}", f32::from_bits(bits)))
    }

    /// A number of an element type.
    pub(super) fn constant(&mut self, s: Scalar, d: DType) -> Value {
        match (s.cast(d), d) {
            (Scalar::Bool(b), _) => self.literal(format!("{b}")),
            (s, DType::F32) => self.float((s.as_f64() as f32).to_bits()),
            (s, DType::F64) => {
                let v = s.as_f64();
                self.literal(format!("0x{:016X} : f64 // {v:?}", v.to_bits()))
            }
            (s, DType::F16 | DType::BF16) => {
                // Exact: the cast above has rounded already.
                let wide = self.float((s.as_f64() as f32).to_bits());
                op!(self, "arith.truncf {wide} : f32 to {}", held(d))
            }
            // MLIR's integers have no sign: the same bits, written as a signed number.
            (s, DType::U8) => self.literal(format!("{} : i8", s.as_i64() as u8 as i8)),
            (s, DType::U16) => self.literal(format!("{} : i16", s.as_i64() as u16 as i16)),
            (s, DType::U32) => self.literal(format!("{} : i32", s.as_i64() as u32 as i32)),
            (s, _) => self.literal(format!("{} : {}", s.as_i64(), held(d))),
        }
    }

    /// The value of an extent for the sizes of the run.
    pub(super) fn extent(&mut self, d: &Dim) -> Value {
        if let Some(&v) = self.extents.get(d) {
            return v;
        }
        let mut sum: Option<Value> = None;
        for (c, powers) in d.terms() {
            let mut product: Option<Value> = (c != 1).then(|| self.int(c));
            for (i, &p) in powers.iter().enumerate() {
                for _ in 0..p {
                    self.symbols.insert(i);
                    let size = Value::Size(i);
                    product = Some(match product {
                        Some(v) => self.head(format_args!("arith.muli {v}, {size} : i64")),
                        None => size,
                    });
                }
            }
            let term = product.unwrap_or_else(|| self.int(1));
            sum = Some(match sum {
                Some(v) => self.head(format_args!("arith.addi {v}, {term} : i64")),
                None => term,
            });
        }
        let v = sum.unwrap_or_else(|| self.int(0));
        self.extents.insert(d.clone(), v);
        v
    }

    /// `at + index * stride`.
    pub(super) fn advance(&mut self, at: Value, index: Value, stride: &Dim) -> Value {
        if stride.is(0) {
            return at;
        }
        let step = if stride.is(1) {
            index
        } else {
            let s = self.extent(stride);
            op!(self, "arith.muli {index}, {s} : i64")
        };
        if at == self.int(0) { step } else { op!(self, "arith.addi {at}, {step} : i64") }
    }

    /// An intrinsic of LLVM on values of one type, which it gives too.
    pub(super) fn intrinsic(&mut self, name: &str, args: &[Value], ty: &str) -> Value {
        let list = |items: Vec<String>| items.join(", ");
        let values = list(args.iter().map(Value::to_string).collect());
        let types = list(args.iter().map(|_| ty.to_string()).collect());
        op!(self, "llvm.call_intrinsic \"llvm.{name}.{ty}\"({values}) : ({types}) -> {ty}")
    }

    /// The body, without the function around it.
    pub(super) fn finish(self) -> String {
        debug_assert_eq!(self.depth, 0, "every region is closed");
        self.head + &self.body
    }
}
