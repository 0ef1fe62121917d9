//! Weights as the library kernels want them.

use crate::pipeline::Precision;
use sinter_kernels::conv::{ConvKernel, ConvParams};
use sinter_kernels::recurrent::Cell;
use sinter_kernels::{gemm, recurrent};
use sinter_runtime::program::Packing;
use sinter_runtime::{Array, Dim, Op};

/// A weight and how a kernel wants it. It is packed where it will lie: a large one
/// costs as much to copy as to pack.
#[derive(Clone, Debug)]
pub(super) struct Packed {
    weight: Array,
    pub(super) how: How,
}

/// In which order, and as what, a weight's numbers lie.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) enum How {
    /// A [k, n] matrix in panels.
    Panels,
    /// In panels, rounded to bf16.
    Bf16Panels,
    /// A recurrent weight of [gates * units, units].
    Recurrent(Cell),
    /// A convolution's.
    Filter(ConvKernel, ConvParams),
}

impl How {
    /// For products of that precision.
    pub(super) fn matrix(precision: Precision) -> How {
        match precision {
            // What is not computed with integers.
            Precision::Highest | Precision::Int8 => How::Panels,
            Precision::Medium => How::Bf16Panels,
        }
    }

    /// For a convolution of inputs of `[C, H, W]`.
    pub(super) fn filter(w: &Array, input: [usize; 3], op: &Op<Dim>) -> How {
        let &Op::Conv { stride, padding, dilation, groups, .. } = op else {
            unreachable!("only convolutions have filters")
        };
        let params = ConvParams { stride, padding, dilation, groups };
        How::Filter(ConvKernel::choose(input, filter_shape(w), params), params)
    }

    /// What a contraction says of it.
    pub(super) fn packing(self) -> Packing {
        match self {
            How::Panels => Packing::Panels,
            How::Bf16Panels => Packing::Bf16Panels,
            How::Filter(kernel, _) => Packing::Conv(kernel.number()),
            How::Recurrent(_) => unreachable!("sequences are no contractions"),
        }
    }
}

fn filter_shape(w: &Array) -> [usize; 4] {
    w.shape().try_into().expect("checked by the op's rule")
}

impl Packed {
    /// `weight`, which lies densely where the kernel wants it recurrent.
    pub(super) fn new(weight: Array, how: How) -> Packed {
        Packed { weight, how }
    }

    /// Number of floats.
    pub(super) fn len(&self) -> usize {
        let shape = self.weight.shape();
        match self.how {
            How::Panels => gemm::packed_len(shape[0], shape[1]),
            How::Bf16Panels => gemm::packed_len_bf16(shape[0], shape[1]),
            How::Recurrent(cell) => recurrent::packed_len(cell, shape[1]),
            How::Filter(kernel, _) => kernel.packed_len(filter_shape(&self.weight)),
        }
    }

    /// Packs the weight.
    pub(super) fn write(&self, out: &mut [f32]) {
        let w = self.weight.src();
        match self.how {
            How::Panels => gemm::pack_b(w, out),
            How::Bf16Panels => gemm::pack_b_bf16(w, out),
            // What pads the last panel of these is not written.
            How::Recurrent(cell) => {
                out.fill(0.0);
                recurrent::pack(cell, w, out);
            }
            How::Filter(kernel, params) => {
                out.fill(0.0);
                kernel.pack_weights(w, params, out);
            }
        }
    }
}
