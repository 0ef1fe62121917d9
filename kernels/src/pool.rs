//! naive
#![allow(missing_docs, clippy::undocumented_unsafe_blocks)]
use crate::view::{Dst, Element, Src};
#[derive(Clone, Copy, Debug)]
pub struct Window {
    pub size: [usize; 2],
    pub stride: [usize; 2],
    pub padding: [usize; 2],
    pub dilation: [usize; 2],
}
pub trait Fl:
    Element + PartialOrd + std::ops::Add<Output = Self> + std::ops::Div<Output = Self>
{
    fn of(v: f64) -> Self;
}
impl Fl for f32 {
    fn of(v: f64) -> f32 {
        v as f32
    }
}
impl Fl for f64 {
    fn of(v: f64) -> f64 {
        v
    }
}
fn idx(s: &[isize], i: [usize; 4]) -> isize {
    (0..4).map(|k| s[k] * i[k] as isize).sum()
}
fn taps(w: Window, xs: &[usize], h: usize, x: usize) -> Vec<[usize; 2]> {
    let mut v = vec![];
    for i in 0..w.size[0] {
        for j in 0..w.size[1] {
            let a = h * w.stride[0] + i * w.dilation[0];
            let b = x * w.stride[1] + j * w.dilation[1];
            if a < w.padding[0] || b < w.padding[1] {
                continue;
            }
            let (a, b) = (a - w.padding[0], b - w.padding[1]);
            if a < xs[2] && b < xs[3] {
                v.push([a, b])
            }
        }
    }
    v
}
pub fn max_pool2d<T: Fl>(x: Src<T>, y: Dst<T>, w: Window) {
    let s = y.shape;
    for n in 0..s[0] {
        for c in 0..s[1] {
            for h in 0..s[2] {
                for q in 0..s[3] {
                    let mut m = T::of(f64::NEG_INFINITY);
                    for [a, b] in taps(w, x.shape, h, q) {
                        let v = unsafe { *x.ptr().offset(idx(x.strides, [n, c, a, b])) };
                        if v > m || v != v {
                            m = v
                        }
                    }
                    unsafe { *y.ptr().offset(idx(y.strides, [n, c, h, q])) = m }
                }
            }
        }
    }
}
pub fn max_pool2d_grad<T: Fl>(x: Src<T>, gy: Src<T>, gx: Dst<T>, w: Window) {
    crate::copy::fill(gx, T::ZERO);
    let s = gy.shape;
    for n in 0..s[0] {
        for c in 0..s[1] {
            for h in 0..s[2] {
                for q in 0..s[3] {
                    let mut m = T::of(f64::NEG_INFINITY);
                    let mut at = None;
                    for [a, b] in taps(w, x.shape, h, q) {
                        let v = unsafe { *x.ptr().offset(idx(x.strides, [n, c, a, b])) };
                        if v > m || v != v || at.is_none() {
                            m = v;
                            at = Some([a, b])
                        }
                    }
                    if let Some([a, b]) = at {
                        unsafe {
                            let p = gx.ptr().offset(idx(gx.strides, [n, c, a, b]));
                            *p = *p + *gy.ptr().offset(idx(gy.strides, [n, c, h, q]));
                        }
                    }
                }
            }
        }
    }
}
pub fn avg_pool2d<T: Fl>(x: Src<T>, y: Dst<T>, w: Window, whole: bool) {
    let s = y.shape;
    for n in 0..s[0] {
        for c in 0..s[1] {
            for h in 0..s[2] {
                for q in 0..s[3] {
                    let t = taps(w, x.shape, h, q);
                    let d = if whole { w.size[0] * w.size[1] } else { t.len() };
                    let mut m = T::ZERO;
                    for [a, b] in t {
                        m = m + unsafe { *x.ptr().offset(idx(x.strides, [n, c, a, b])) };
                    }
                    unsafe { *y.ptr().offset(idx(y.strides, [n, c, h, q])) = m / T::of(d as f64) }
                }
            }
        }
    }
}
pub fn avg_pool2d_grad<T: Fl>(gy: Src<T>, gx: Dst<T>, w: Window, whole: bool) {
    crate::copy::fill(gx, T::ZERO);
    let s = gy.shape;
    for n in 0..s[0] {
        for c in 0..s[1] {
            for h in 0..s[2] {
                for q in 0..s[3] {
                    let t = taps(w, gx.shape, h, q);
                    let d = if whole { w.size[0] * w.size[1] } else { t.len() };
                    for [a, b] in t {
                        unsafe {
                            let p = gx.ptr().offset(idx(gx.strides, [n, c, a, b]));
                            *p = *p
                                + *gy.ptr().offset(idx(gy.strides, [n, c, h, q])) / T::of(d as f64);
                        }
                    }
                }
            }
        }
    }
}
