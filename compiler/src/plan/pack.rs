//! Weights as the library kernels want them.

use super::channels::Image;
use crate::graph::Data;
use crate::pipeline::Precision;
use sinter_kernels::conv::{ConvKernel, ConvParams};
use sinter_kernels::recurrent::Cell;
use sinter_kernels::{gemm, recurrent};
use sinter_runtime::OpError;
use sinter_runtime::program::Packing;

/// A weight and how a kernel wants it. It is computed and packed where it will lie: a
/// large one costs as much to copy as to pack.
#[derive(Clone, Debug)]
pub(super) struct Packed {
    weight: Data,
    pub(super) how: How,
}

/// In which order, and as what, a weight's numbers lie.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) enum How {
    /// A [k, n] matrix in panels.
    Panels,
    /// In panels, rounded to bf16.
    Bf16Panels,
    /// In panels, as two numbers of bf16 each.
    Bf16x3Panels,
    /// A recurrent weight of [gates * units, units].
    Recurrent(Cell),
    /// One that is rounded to bf16.
    Bf16Recurrent(Cell),
    /// A convolution's.
    Filter(ConvKernel, ConvParams),
}

/// How exactly weights are multiplied, on which processors.
#[derive(Clone, Copy, Debug)]
pub(super) struct Exactness {
    pub(super) precision: Precision,
    /// Whether they multiply matrices of bf16.
    pub(super) matrix_unit: bool,
}

/// Rows of a product from which three products of bf16 beat one of f32: the weights are of
/// the same size, so that only arithmetic is saved.
const ROWS: usize = 32;

/// Rows up to which a sequence waits for its weights.
const FEW_ROWS: usize = 4;

impl Exactness {
    /// For products of so many rows, if that is known, and why so.
    pub(super) fn matrix(self, rows: Option<usize>) -> (How, &'static str) {
        match self.precision {
            // What is not computed with integers, for reasons that are told there.
            Precision::Highest | Precision::Int8 => (How::Panels, ""),
            Precision::High if !self.matrix_unit => (How::Panels, NO_UNIT),
            Precision::High if rows.is_some_and(|n| n < ROWS) => {
                (How::Panels, "in f32: with few rows, reading the weights takes the time")
            }
            Precision::High => (How::Bf16x3Panels, "in three products of bf16"),
            Precision::Medium => (How::Bf16Panels, "in bf16"),
        }
    }

    /// For a recurrent sequence of so many rows, if that is known, and why so.
    pub(super) fn recurrent(self, cell: Cell, rows: Option<usize>) -> (How, &'static str) {
        match self.precision {
            // Processors with AMX multiply pairs no faster than single numbers otherwise.
            Precision::Medium if self.matrix_unit && rows.is_none_or(|n| n > FEW_ROWS) => {
                (How::Recurrent(cell), "in f32: sequences of many rows have no kernel for AMX")
            }
            Precision::Highest => (How::Recurrent(cell), ""),
            Precision::Int8 => (How::Recurrent(cell), "f32: sequences have no kernel for integers"),
            Precision::High if !self.matrix_unit => (How::Recurrent(cell), NO_UNIT),
            Precision::High => (How::Recurrent(cell), "in f32: steps have too few rows"),
            Precision::Medium => (How::Bf16Recurrent(cell), "in bf16"),
        }
    }

    /// For a convolution, whose result has its channels side by side or not, and why so,
    /// unless a kernel was chosen.
    pub(super) fn filter(
        self,
        conv: &Image,
        last: bool,
        chosen: Option<ConvKernel>,
    ) -> (How, &'static str) {
        // What was chosen for an image in planes says nothing of the other layout.
        if let Some(kernel) = chosen.filter(|k| k.channels_last() == last) {
            return (How::Filter(kernel, conv.params), "by the kernel that was fastest");
        }
        let (kernel, why) = self.convolution(conv, last);
        (How::Filter(kernel, conv.params), why)
    }

    /// A convolution's kernel, and why so.
    pub(super) fn convolution(self, conv: &Image, last: bool) -> (ConvKernel, &'static str) {
        let &Image { input, weight, params } = conv;
        let last = last.then(|| ConvKernel::choose_last(weight, params)).flatten();
        let in_f32 = last.unwrap_or_else(|| ConvKernel::choose(input, weight, params));
        match self.precision {
            Precision::Highest | Precision::Int8 => (in_f32, ""),
            Precision::High if !self.matrix_unit => (in_f32, NO_UNIT),
            Precision::High => (in_f32, "in f32: convolutions have no kernel in bf16×3"),
            Precision::Medium => match last {
                Some(ConvKernel::PixelRows) => (ConvKernel::PixelRowPairs, "in bf16"),
                Some(kernel) => (kernel, ALONE),
                None => match ConvKernel::choose_bf16(input, weight, params) {
                    ConvKernel::Pairs => (ConvKernel::Pairs, "in bf16"),
                    ConvKernel::Winograd => {
                        (ConvKernel::Winograd, "in f32: minimal filtering is faster, and needs it")
                    }
                    kernel => (kernel, ALONE),
                },
            },
        }
    }

    /// Why a product of two operands that vary is in f32, if more was asked for.
    pub(super) fn varying(self) -> &'static str {
        match self.precision {
            Precision::Highest | Precision::Int8 => "",
            _ => "in f32: no operand is constant",
        }
    }
}

/// Why depthwise convolutions are computed as they are.
const ALONE: &str = "in f32: channels by themselves have nothing to pair";
/// Why `high` is not used.
const NO_UNIT: &str =
    "in f32, which is more exact than asked: bf16×3 pays on processors with AMX only";

impl How {
    /// What a step says of it.
    pub(super) fn packing(self) -> Packing {
        match self {
            How::Panels => Packing::Panels,
            How::Bf16Panels | How::Bf16Recurrent(_) => Packing::Bf16Panels,
            How::Bf16x3Panels => Packing::Bf16x3Panels,
            How::Filter(kernel, _) => Packing::Conv(kernel.number()),
            How::Recurrent(_) => Packing::Panels,
        }
    }
}

fn filter_shape(w: &[usize]) -> [usize; 4] {
    w.try_into().expect("checked by the op's rule")
}

impl Packed {
    /// `weight`, which lies densely where the kernel wants it recurrent.
    pub(super) fn new(weight: Data, how: How) -> Packed {
        Packed { weight, how }
    }

    /// Number of floats.
    pub(super) fn len(&self) -> usize {
        let shape = self.weight.ty().shape;
        match self.how {
            How::Panels => gemm::packed_len(shape[0], shape[1]),
            How::Bf16Panels => gemm::packed_len_bf16(shape[0], shape[1]),
            How::Bf16x3Panels => gemm::packed_len_bf16x3(shape[0], shape[1]),
            How::Recurrent(cell) => recurrent::packed_len(cell, shape[1]),
            How::Bf16Recurrent(cell) => recurrent::packed_len_bf16(cell, shape[1]),
            How::Filter(kernel, _) => kernel.packed_len(filter_shape(&shape)),
        }
    }

    /// Packs the weight.
    ///
    /// # Errors
    /// When it cannot be computed.
    pub(super) fn write(&self, out: &mut [f32]) -> Result<(), OpError> {
        let weight = self.weight.array()?;
        let w = weight.src();
        match self.how {
            How::Panels => gemm::pack_b(w, out),
            How::Bf16Panels => gemm::pack_b_bf16(w, out),
            How::Bf16x3Panels => gemm::pack_b_bf16x3(w, out),
            // What pads the last panel of these is not written.
            How::Recurrent(cell) => {
                out.fill(0.0);
                recurrent::pack(cell, w, out);
            }
            How::Bf16Recurrent(cell) => {
                out.fill(0.0);
                recurrent::pack_bf16(cell, w, out);
            }
            How::Filter(kernel, params) => {
                out.fill(0.0);
                kernel.pack_weights(w, params, out);
            }
        }
        Ok(())
    }
}
