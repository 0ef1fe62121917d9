//! Compiled programs: what they are made of, and how they run.
//!
//! A [`Program`] is the plan a compiler made: buffers, the steps that fill them,
//! and what the inputs must look like. Together with generated [`Code`] and the
//! constants it becomes a [`Model`], which any number of threads may run at once.
//! A program compiled in this process and one loaded from a file are the same
//! thing here.

mod abi;
mod bind;
mod check;
mod memory;
mod model;
mod steps;

pub use abi::{ABI_VERSION, Code, Frame, HookFn, LoopFn, MainFn, Table};
pub use bind::{RunError, bind_sizes};
pub use memory::{Lifetime, MemoryPlan, plan_memory};
pub use model::{Model, ModelError};

use crate::op::{Act, TensorType};
use crate::{DType, Dim, Op};
use serde::{Deserialize, Serialize};

/// A named size that is known only when the program runs.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Symbol {
    /// Its name.
    pub name: String,
    /// Smallest size allowed.
    pub min: usize,
    /// Largest size allowed.
    pub max: usize,
    /// The size for which costs are estimated.
    pub hint: usize,
}

/// An input or output.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Port {
    /// Its name.
    pub name: String,
    /// Its type.
    pub ty: TensorType<Dim>,
}

/// Where a buffer's memory comes from.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Place {
    /// The caller's input of that number.
    Input(u32),
    /// The caller's output of that number.
    Output(u32),
    /// The constants, at that byte.
    Constant(u64),
    /// The arena, from one step to another (both included).
    Temp {
        /// The first step that writes it.
        first: u32,
        /// The last step that reads it.
        last: u32,
    },
}

/// A piece of memory that steps read and write.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Buffer {
    /// Type of its elements.
    pub dtype: DType,
    /// Number of elements.
    pub len: Dim,
    /// Where its memory comes from.
    pub place: Place,
}

/// A strided view of a buffer, in elements.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct View {
    /// The buffer.
    pub buffer: u32,
    /// Where the first element lies.
    pub offset: Dim,
    /// Extent of each dimension.
    pub shape: Vec<Dim>,
    /// Distance between neighbours in each dimension.
    pub strides: Vec<Dim>,
}

/// How a contraction's constant operand is stored.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Packing {
    /// As an ordinary matrix.
    None,
    /// In the panels of [`sinter_kernels::gemm`].
    Panels,
    /// Rounded to bf16, in the panels of pairs of [`sinter_kernels::gemm`].
    Bf16Panels,
    /// As integers of eight bits, in panels of quads, with what makes numbers of their sums:
    /// see [`sinter_kernels::gemm::pack_b_int8`].
    Int8,
    /// As two numbers of bf16 each, in panels of pairs.
    Bf16x3Panels,
    /// As [`sinter_kernels::conv`] packs weights for that kernel.
    Conv(u32),
}

/// How a contraction's product is cut: [`sinter_kernels::gemm::Cut`]. Whatever the
/// numbers, the result has the same bits.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash, Serialize, Deserialize)]
pub struct Cut {
    /// Steps of `k` in one pass over a tile.
    pub steps: u32,
    /// Numbers of the left operand in a block of rows.
    pub rows: u32,
    /// Numbers of the right operand packed at a time.
    pub panels: u32,
    /// Multiply-adds worth a thread's attention.
    pub job: u32,
    /// Rows up to which the right operand is read where it lies.
    pub in_place: u32,
}

impl From<Cut> for sinter_kernels::gemm::Cut {
    fn from(c: Cut) -> Self {
        let [steps, rows, panels, job, in_place] =
            [c.steps, c.rows, c.panels, c.job, c.in_place].map(|n| n as usize);
        Self { steps, rows, panels, job, in_place }
    }
}

impl Default for Cut {
    fn default() -> Cut {
        let c = sinter_kernels::gemm::Cut::RULE;
        let [steps, rows, panels, job, in_place] =
            [c.steps, c.rows, c.panels, c.job, c.in_place].map(|n| n as u32);
        Cut { steps, rows, panels, job, in_place }
    }
}

/// One step of a program.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub enum Step {
    /// Generated loops, called from generated code.
    Generated {
        /// Name of the function, for people.
        name: String,
    },
    /// A matrix product or convolution by a library kernel.
    Contract {
        /// The op, without its activation.
        op: Op<Dim>,
        /// Left and right operand; the right one may be packed.
        operands: [View; 2],
        /// How the weight is stored.
        packing: Packing,
        /// Added to each column (product) or output channel (convolution).
        bias: Option<View>,
        /// Applied after the bias, in registers.
        act: Act,
        /// No result is larger after that; NaN stays NaN.
        most: Option<f32>,
        /// Whether generated code finishes each tile.
        hook: bool,
        /// How the product is cut, where it was measured; else the kernel's rule says.
        cut: Option<Cut>,
        /// The result.
        result: View,
    },
    /// A recurrent sequence in f32 whose weight, the second operand, is a constant as
    /// [`sinter_kernels::recurrent`] packs it; its view is that of the matrix it was.
    Sequence {
        /// The op.
        op: Op<Dim>,
        /// How the weight is stored: in panels, which may be of bf16.
        packing: Packing,
        /// Its operands.
        operands: Vec<View>,
        /// Its results, densely.
        results: Vec<View>,
    },
    /// Any other op, by the eager kernels.
    Library {
        /// The op.
        op: Op<Dim>,
        /// Its operands.
        operands: Vec<View>,
        /// Its results.
        results: Vec<View>,
    },
}

/// The plan of a compiled program.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Program {
    /// Its name.
    pub name: String,
    /// Named sizes; [`Dim::symbol`] counts in this list.
    pub symbols: Vec<Symbol>,
    /// What it takes.
    pub inputs: Vec<Port>,
    /// What it gives.
    pub outputs: Vec<Port>,
    /// Its memory.
    pub buffers: Vec<Buffer>,
    /// What it does, in order.
    pub steps: Vec<Step>,
    /// Inputs that it writes, too: their memory holds new values afterwards. Programs
    /// in files have none.
    #[serde(skip)]
    pub written: Vec<u32>,
}

impl Program {
    /// Names of its symbols.
    pub fn symbol_names(&self) -> Vec<String> {
        self.symbols.iter().map(|s| s.name.clone()).collect()
    }

    /// The temporaries, by buffer, with their lifetimes for these sizes of the
    /// symbols.
    ///
    /// # Errors
    /// When one has no size, or one beyond memory.
    pub fn temporaries(&self, sizes: &[usize]) -> Result<Vec<(usize, Lifetime)>, RunError> {
        let temporary = |(i, b): (usize, &Buffer)| {
            let Place::Temp { first, last } = b.place else { return None };
            let bytes = b.len.eval(sizes).and_then(|n| n.checked_mul(b.dtype.size()));
            let bytes = bytes.filter(|&n| n <= isize::MAX as usize / 2);
            let lifetime = |bytes| (i, Lifetime { bytes, first, last });
            Some(bytes.map(lifetime).ok_or_else(|| model::unsized_extent(&self.name)))
        };
        self.buffers.iter().enumerate().filter_map(temporary).collect()
    }

    /// Where the temporaries lie for these sizes of the symbols.
    ///
    /// # Errors
    /// As [`Program::temporaries`].
    pub fn memory(&self, sizes: &[usize]) -> Result<MemoryPlan, RunError> {
        let temporaries: Vec<Lifetime> =
            self.temporaries(sizes)?.into_iter().map(|(_, l)| l).collect();
        Ok(plan_memory(&temporaries))
    }

    /// `name(x: f32[N, 784]) -> (y: f32[N, 10])`
    pub fn signature(&self) -> String {
        let names = self.symbol_names();
        let ports = |ps: &[Port]| {
            let ps: Vec<String> =
                ps.iter().map(|p| format!("{}: {}", p.name, p.ty.text(&names))).collect();
            ps.join(", ")
        };
        format!("{}({}) -> ({})", self.name, ports(&self.inputs), ports(&self.outputs))
    }
}

#[cfg(test)]
mod tests;
