//! naive
#![allow(missing_docs, clippy::undocumented_unsafe_blocks)]
use crate::gemm::{Act, Epilogue, Tile};
use crate::view::{Dst, Element, Src};
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConvParams {
    pub stride: [usize; 2],
    pub padding: [usize; 2],
    pub dilation: [usize; 2],
    pub groups: usize,
}
trait F: Element + std::ops::Add<Output = Self> + std::ops::Mul<Output = Self> {}
impl F for f32 {}
impl F for f64 {}
fn each(
    xs: &[usize],
    ws: &[usize],
    ys: &[usize],
    p: ConvParams,
    mut f: impl FnMut([usize; 4], [usize; 4], [usize; 4]),
) {
    let og = ws[0] / p.groups;
    for n in 0..ys[0] {
        for o in 0..ys[1] {
            for h in 0..ys[2] {
                for w in 0..ys[3] {
                    for c in 0..ws[1] {
                        for i in 0..ws[2] {
                            for j in 0..ws[3] {
                                let y = h * p.stride[0] + i * p.dilation[0];
                                let x = w * p.stride[1] + j * p.dilation[1];
                                if y < p.padding[0] || x < p.padding[1] {
                                    continue;
                                }
                                let (y, x) = (y - p.padding[0], x - p.padding[1]);
                                if y >= xs[2] || x >= xs[3] {
                                    continue;
                                }
                                f([n, (o / og) * ws[1] + c, y, x], [o, c, i, j], [n, o, h, w]);
                            }
                        }
                    }
                }
            }
        }
    }
}
fn idx(s: &[isize], i: [usize; 4]) -> isize {
    (0..4).map(|k| s[k] * i[k] as isize).sum()
}
fn fwd<T: F>(x: Src<T>, w: Src<T>, y: Dst<T>, p: ConvParams) {
    crate::copy::fill(y, T::ZERO);
    each(x.shape, w.shape, y.shape, p, |a, b, c| unsafe {
        let q = y.ptr().offset(idx(y.strides, c));
        *q = *q + *x.ptr().offset(idx(x.strides, a)) * *w.ptr().offset(idx(w.strides, b));
    });
}
fn ig<T: F>(gy: Src<T>, w: Src<T>, gx: Dst<T>, p: ConvParams) {
    crate::copy::fill(gx, T::ZERO);
    each(gx.shape, w.shape, gy.shape, p, |a, b, c| unsafe {
        let q = gx.ptr().offset(idx(gx.strides, a));
        *q = *q + *gy.ptr().offset(idx(gy.strides, c)) * *w.ptr().offset(idx(w.strides, b));
    });
}
fn wg<T: F>(x: Src<T>, gy: Src<T>, gw: Dst<T>, p: ConvParams) {
    crate::copy::fill(gw, T::ZERO);
    each(x.shape, gw.shape, gy.shape, p, |a, b, c| unsafe {
        let q = gw.ptr().offset(idx(gw.strides, b));
        *q = *q + *x.ptr().offset(idx(x.strides, a)) * *gy.ptr().offset(idx(gy.strides, c));
    });
}
pub fn conv2d_f64(x: Src<f64>, w: Src<f64>, y: Dst<f64>, p: ConvParams) {
    fwd(x, w, y, p)
}
pub fn conv2d_input_grad_f32(gy: Src<f32>, w: Src<f32>, gx: Dst<f32>, p: ConvParams) {
    ig(gy, w, gx, p)
}
pub fn conv2d_input_grad_f64(gy: Src<f64>, w: Src<f64>, gx: Dst<f64>, p: ConvParams) {
    ig(gy, w, gx, p)
}
pub fn conv2d_weight_grad_f32(x: Src<f32>, gy: Src<f32>, gw: Dst<f32>, p: ConvParams) {
    wg(x, gy, gw, p)
}
pub fn conv2d_weight_grad_f64(x: Src<f64>, gy: Src<f64>, gw: Dst<f64>, p: ConvParams) {
    wg(x, gy, gw, p)
}
pub fn conv2d_f32(x: Src<f32>, w: Src<f32>, y: Dst<f32>, p: ConvParams, ep: &Epilogue) {
    fwd(x, w, y, p);
    let (n, o, hw) = (y.shape[0], y.shape[1], y.shape[2] * y.shape[3]);
    for b in 0..n {
        for c in 0..o {
            for i in 0..hw {
                unsafe {
                    let q = y.ptr().add((b * o + c) * hw + i);
                    if let Some(v) = ep.bias_row {
                        *q += v[c];
                    }
                    if ep.act == Act::Relu {
                        *q = if *q < 0.0 { 0.0 } else { *q };
                    }
                }
            }
        }
        if let Some(h) = ep.hook {
            if o > 0 && hw > 0 {
                h(Tile {
                    batch: b,
                    row: 0,
                    col: 0,
                    rows: o,
                    cols: hw,
                    ptr: y.ptr().wrapping_add(b * o * hw),
                    ld: hw as isize,
                })
            }
        }
    }
}
#[derive(Clone, Copy, Debug)]
pub struct ConvKernel;
impl ConvKernel {
    pub fn from_number(_: u32) -> Option<ConvKernel> {
        Some(ConvKernel)
    }
    pub fn number(self) -> u32 {
        0
    }
    pub fn choose(_x: [usize; 3], _w: [usize; 4], _p: ConvParams) -> ConvKernel {
        ConvKernel
    }
    pub fn packed_len(self, w: [usize; 4]) -> usize {
        w.iter().product()
    }
    pub fn pack_weights(self, w: Src<f32>, _p: ConvParams, out: &mut [f32]) {
        out.copy_from_slice(&w.to_vec());
    }
    pub fn run_packed(
        self,
        x: Src<f32>,
        packed: &[f32],
        wshape: &[usize],
        y: Dst<f32>,
        p: ConvParams,
        ep: &Epilogue,
    ) {
        let s = [
            (wshape[1] * wshape[2] * wshape[3]) as isize,
            (wshape[2] * wshape[3]) as isize,
            wshape[3] as isize,
            1,
        ];
        conv2d_f32(x, Src::of(packed, wshape, &s), y, p, ep)
    }
}
