//! The kernel IR: what one generated kernel computes, before it is code.
//!
//! A kernel walks an iteration space. Its leading axes are *parallel*: iterations
//! do not depend on each other. The others, if any, are *row* axes, over which
//! values are reduced. Work on a row is a list of stages, executed one after the
//! other: an *element* stage runs once for every element of the row, a *row*
//! stage once for the row. A reduction in an element stage, and every result of a
//! row stage, is a row value that later stages may use. A softmax, for example, is
//!
//! ```text
//! element:  m = max(x)
//! element:  e = exp(x - m); y := e; s = sum(e)
//! element:  y := y / s
//! ```
//!
//! Both code generators consume this, and nothing else, for loops.

use sinter_runtime::op::{BinaryOp, CompareOp, ReduceKind, UnaryOp};
use sinter_runtime::{DType, Dim, Extent, Scalar};
use std::fmt::{self, Write};

/// A value within a stage: its place in [`Stage::insts`].
pub type Reg = u32;

/// A memory operand.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Arg {
    /// The buffer.
    pub buffer: u32,
    /// Type of its elements.
    pub dtype: DType,
    /// Where the element of the first iteration lies, in elements.
    pub offset: Dim,
    /// Distance, in elements, between neighbouring iterations of each axis.
    pub strides: Vec<Dim>,
    /// Whether the kernel writes it (it may read it too).
    pub written: bool,
}

/// What an instruction computes.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Inst {
    /// The element of an argument.
    Load(u32),
    /// The element of an argument so many steps from where the iteration is; the
    /// argument's last stride, behind those of the axes, is the length of a step. There
    /// is an element for every number that comes up.
    Far(u32, Reg),
    /// A number.
    Const(Scalar),
    /// A row value.
    Row(u32),
    /// The index along an axis.
    Index(u32),
    /// An element-wise function.
    Unary(UnaryOp, Reg),
    /// An element-wise function.
    Binary(BinaryOp, Reg, Reg),
    /// A comparison.
    Compare(CompareOp, Reg, Reg),
    /// `a` where the condition, else `b`.
    Select(Reg, Reg, Reg),
    /// A conversion.
    Cast(Reg),
}

impl Inst {
    /// The registers it reads.
    pub fn uses(&self) -> impl Iterator<Item = Reg> + use<> {
        let r: [Option<Reg>; 3] = match *self {
            Inst::Load(_) | Inst::Const(_) | Inst::Row(_) | Inst::Index(_) => [None; 3],
            Inst::Unary(_, a) | Inst::Cast(a) | Inst::Far(_, a) => [Some(a), None, None],
            Inst::Binary(_, a, b) | Inst::Compare(_, a, b) => [Some(a), Some(b), None],
            Inst::Select(c, a, b) => [Some(c), Some(a), Some(b)],
        };
        r.into_iter().flatten()
    }
}

/// How often a stage runs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Level {
    /// For every element of the row.
    Element,
    /// Once for the row.
    Row,
}

/// One pass over a row.
#[derive(Clone, PartialEq, Debug)]
pub struct Stage {
    /// How often it runs.
    pub level: Level,
    /// Instructions with the types of their results.
    pub insts: Vec<(Inst, DType)>,
    /// `(argument, value)`: stores.
    pub stores: Vec<(u32, Reg)>,
    /// In an element stage: values reduced over the row, each a new row value.
    pub reductions: Vec<(ReduceKind, Reg)>,
    /// In a row stage: values that become row values.
    pub results: Vec<Reg>,
}

impl Stage {
    /// An empty stage.
    pub fn new(level: Level) -> Stage {
        Stage { level, insts: vec![], stores: vec![], reductions: vec![], results: vec![] }
    }

    /// Whether it does nothing.
    pub fn is_idle(&self) -> bool {
        self.stores.is_empty() && self.reductions.is_empty() && self.results.is_empty()
    }
}

/// A generated kernel.
#[derive(Clone, PartialEq, Debug)]
pub struct Kernel {
    /// Its name in listings.
    pub name: String,
    /// Extent of each axis.
    pub extents: Vec<Dim>,
    /// How many leading axes are parallel.
    pub parallel: usize,
    /// Memory operands.
    pub args: Vec<Arg>,
    /// What happens to each row, in order.
    pub stages: Vec<Stage>,
    /// Whether a library kernel calls it on each tile it has finished, with the
    /// region of the iteration space; otherwise it walks the whole space.
    pub hook: bool,
    /// How its code goes about it.
    pub manner: Manner,
}

/// How the code of a kernel goes about it; the results are the same bits.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Manner {
    /// Vectors of a row that go through its loop together, at most.
    pub at_once: usize,
    /// Whether results that nothing reads soon are written past the caches.
    pub stream: bool,
}

impl Manner {
    /// As many vectors as registers allow, into the caches.
    pub const RULE: Manner = Manner { at_once: 4, stream: false };
}

impl Kernel {
    /// Merges neighbouring axes of one kind where every argument allows it, and
    /// drops axes of extent 1. A hook's axes are fixed by its caller.
    pub fn collapse(&mut self) {
        if self.hook {
            return;
        }
        let mut d = 0;
        while d < self.extents.len() {
            // A row stays a row even where it has one element.
            let only_row = d >= self.parallel && self.extents.len() - self.parallel == 1;
            if self.extents[d].is(1) && !only_row {
                self.remove_axis(d);
                continue;
            }
            let same_kind =
                d + 1 < self.extents.len() && (d + 1 < self.parallel || d >= self.parallel);
            let uses_index = self.uses_index(d) || self.uses_index(d + 1);
            if same_kind && !uses_index && self.joins(d) {
                let inner = self.extents[d + 1].clone();
                self.extents[d + 1] = self.extents[d].times(&inner);
                self.remove_axis(d);
                continue;
            }
            d += 1;
        }
    }

    fn uses_index(&self, axis: usize) -> bool {
        let hit = |i: &(Inst, DType)| matches!(i.0, Inst::Index(a) if a as usize == axis);
        self.stages.iter().any(|s| s.insts.iter().any(hit))
    }

    /// Whether a step along axis `d` is as long as the whole of axis `d + 1`.
    fn joins(&self, d: usize) -> bool {
        self.args.iter().all(|a| a.strides[d] == a.strides[d + 1].times(&self.extents[d + 1]))
    }

    fn remove_axis(&mut self, d: usize) {
        self.extents.remove(d);
        for a in &mut self.args {
            a.strides.remove(d);
        }
        if d < self.parallel {
            self.parallel -= 1;
        }
        for s in &mut self.stages {
            for (i, dtype) in &mut s.insts {
                match i {
                    Inst::Index(a) if *a as usize == d => {
                        *i = Inst::Const(Scalar::Int(0).cast(*dtype));
                    }
                    Inst::Index(a) if *a as usize > d => *a -= 1,
                    _ => {}
                }
            }
        }
    }

    /// Whether there is something to reduce.
    pub fn has_rows(&self) -> bool {
        self.parallel < self.extents.len()
            || self.stages.iter().any(|s| !s.reductions.is_empty() || s.level == Level::Row)
    }

    /// The textual form, with the program's names for symbols.
    pub fn text(&self, symbols: &[String]) -> String {
        let mut t = String::new();
        self.write(&mut t, symbols).expect("writing to a string does not fail");
        t
    }

    fn write(&self, f: &mut String, symbols: &[String]) -> fmt::Result {
        let axes: Vec<String> = self
            .extents
            .iter()
            .enumerate()
            .map(|(i, d)| {
                let kind = if i < self.parallel { "i" } else { "r" };
                format!("{kind}{i} < {}", d.show(symbols))
            })
            .collect();
        let what = if self.hook { "hook" } else { "kernel" };
        writeln!(f, "{what} {} [{}] {{", self.name, axes.join(", "))?;
        for (i, a) in self.args.iter().enumerate() {
            let mut place = vec![];
            if !a.offset.is(0) {
                place.push(a.offset.show(symbols));
            }
            for (d, s) in a.strides.iter().enumerate() {
                let kind = if d < self.parallel { "i" } else { "r" };
                if s.is(1) {
                    place.push(format!("{kind}{d}"));
                } else if !s.is(0) {
                    place.push(format!("{}*{kind}{d}", s.show(symbols)));
                }
            }
            let place = if place.is_empty() { "0".to_string() } else { place.join(" + ") };
            let mode = if a.written { "mut " } else { "" };
            writeln!(f, "  a{i}: {mode}{} = b{}[{place}]", a.dtype, a.buffer)?;
        }
        let mut rows = 0;
        for s in &self.stages {
            writeln!(f, "  {}:", if s.level == Level::Element { "element" } else { "row" })?;
            for (i, (inst, dtype)) in s.insts.iter().enumerate() {
                let text = match inst {
                    Inst::Load(a) => format!("load a{a}"),
                    Inst::Far(a, r) => format!("far a{a}, %{r}"),
                    Inst::Const(v) => format!("{v}"),
                    Inst::Row(r) => format!("row v{r}"),
                    Inst::Index(a) => format!("index {a}"),
                    Inst::Unary(op, x) => format!("{} %{x}", op.name()),
                    Inst::Binary(op, x, y) => format!("{} %{x}, %{y}", op.name()),
                    Inst::Compare(op, x, y) => format!("{} %{x}, %{y}", op.name()),
                    Inst::Select(c, x, y) => format!("select %{c}, %{x}, %{y}"),
                    Inst::Cast(x) => format!("cast %{x}"),
                };
                writeln!(f, "    %{i}: {dtype} = {text}")?;
            }
            for (a, r) in &s.stores {
                writeln!(f, "    store a{a}, %{r}")?;
            }
            for (kind, r) in &s.reductions {
                writeln!(f, "    v{rows} = {} %{r}", kind.name())?;
                rows += 1;
            }
            for r in &s.results {
                writeln!(f, "    v{rows} = %{r}")?;
                rows += 1;
            }
        }
        writeln!(f, "}}")
    }
}
