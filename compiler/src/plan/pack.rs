//! Weights as the library kernels want them.

use crate::pipeline::Precision;
use sinter_kernels::conv::{ConvKernel, ConvParams};
use sinter_kernels::{gemm, recurrent};
use sinter_runtime::op::CellKind;
use sinter_runtime::program::Packing;
use sinter_runtime::{Array, Dim, Op, eager};

/// A packed weight.
#[derive(Clone, Debug)]
pub(super) struct Packed {
    pub(super) data: Vec<f32>,
    /// For convolutions: the kernel it is packed for.
    pub(super) kernel: u32,
}

/// A [k, n] matrix in panels, of numbers as exact as the products are to be.
pub(super) fn matrix(w: &Array, precision: Precision) -> (Packed, Packing) {
    let (k, n) = (w.shape()[0], w.shape()[1]);
    let (data, packing) = match precision {
        Precision::Highest => {
            let mut data = vec![0.0; gemm::packed_len(k, n)];
            gemm::pack_b(w.src(), &mut data);
            (data, Packing::Panels)
        }
        Precision::Medium => {
            let mut data = vec![0.0; gemm::packed_len_bf16(k, n)];
            gemm::pack_b_bf16(w.src(), &mut data);
            (data, Packing::Bf16Panels)
        }
    };
    (Packed { data, kernel: 0 }, packing)
}

/// A recurrent weight of [gates * units, units].
pub(super) fn recurrent(w: &Array, kind: CellKind) -> Packed {
    let cell = eager::cell(kind);
    let mut data = vec![0.0; recurrent::packed_len(cell, w.shape()[1])];
    recurrent::pack(cell, w.src(), &mut data);
    Packed { data, kernel: 0 }
}

/// A convolution's weight, for inputs of `[C, H, W]`.
pub(super) fn filter(w: &Array, input: [usize; 3], op: &Op<Dim>) -> Packed {
    let Op::Conv { stride, padding, dilation, groups, .. } = op else {
        unreachable!("only convolutions have filters")
    };
    let params =
        ConvParams { stride: *stride, padding: *padding, dilation: *dilation, groups: *groups };
    let shape: [usize; 4] = w.shape().try_into().expect("checked by the op's rule");
    let kernel = ConvKernel::choose(input, shape, params);
    let mut data = vec![0.0; kernel.packed_len(shape)];
    kernel.pack_weights(w.src(), params, &mut data);
    Packed { data, kernel: kernel.number() }
}
