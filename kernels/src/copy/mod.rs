//! Copies between layouts and between types of number, and fills.

mod cast;
pub(crate) mod transpose;

pub use cast::{Cast, CastKernels, cast, to_bool};

use crate::par;
use crate::strided::Walk;
use crate::view::{Dst, Element, Ends, Src, numel};
use smallvec::SmallVec;

/// Bytes below which a copy is not shared, at 20 bytes a nanosecond.
const GRAIN_BYTES: usize = par::SHARE_NS * 20;

/// The axes of a copy in the order of the output's memory, outermost first, so
/// that the output is written front to back; neighbours that step evenly in both
/// operands are merged.
struct Layout {
    shape: SmallVec<[usize; 6]>,
    x: SmallVec<[isize; 6]>,
    out: SmallVec<[isize; 6]>,
    /// Where the first element now lies.
    x_first: isize,
    out_first: isize,
}

impl Layout {
    /// # Panics
    /// If the shapes differ.
    fn of<T, U>(x: &Src<T>, out: &Dst<U>) -> Layout {
        assert_eq!(x.shape, out.shape, "a copy keeps the shape");
        Layout::new(x.shape, x.strides, out.strides)
    }

    /// The halves of elements as elements of their own, along a further last axis.
    fn of_pairs<T, U>(x: &Src<T>, out: &Dst<U>) -> Layout {
        assert_eq!(x.shape, out.shape, "a copy keeps the shape");
        let halves = |strides: &[isize]| -> SmallVec<[isize; 6]> {
            strides.iter().map(|s| 2 * s).chain([1]).collect()
        };
        let shape: SmallVec<[usize; 6]> = x.shape.iter().copied().chain([2]).collect();
        Layout::new(&shape, &halves(x.strides), &halves(out.strides))
    }

    fn new(shape: &[usize], x: &[isize], out: &[isize]) -> Layout {
        let (mut x_first, mut out_first) = (0, 0);
        let mut axes: SmallVec<[(usize, isize, isize); 6]> = SmallVec::new();
        for ((&n, &sx), &so) in shape.iter().zip(x).zip(out) {
            if n == 1 {
                continue;
            }
            if so < 0 && n > 0 {
                let last = (n - 1) as isize;
                (x_first, out_first) = (x_first + last * sx, out_first + last * so);
                axes.push((n, -sx, -so));
            } else {
                axes.push((n, sx, so));
            }
        }
        axes.sort_by_key(|&(_, sx, so)| std::cmp::Reverse((so, sx.unsigned_abs())));
        let mut l = Layout {
            shape: SmallVec::new(),
            x: SmallVec::new(),
            out: SmallVec::new(),
            x_first,
            out_first,
        };
        for (n, sx, so) in axes {
            let m = n as isize;
            match (l.shape.last_mut(), l.x.last_mut(), l.out.last_mut()) {
                (Some(shape), Some(x), Some(out)) if *x == sx * m && *out == so * m => {
                    (*shape, *x, *out) = (*shape * n, sx, so);
                }
                _ => {
                    l.shape.push(n);
                    l.x.push(sx);
                    l.out.push(so);
                }
            }
        }
        l
    }

    /// Calls `f` for pieces of rows that together are everything, in parallel.
    /// `sizes` are the bytes of an element of either operand.
    fn for_pieces(&self, sizes: [usize; 2], ends: Ends, f: &(dyn Fn(Piece) + Sync)) {
        let walk = Walk::new(&self.shape, [&self.x, &self.out]);
        let (len, [step_x, step_out]) = (walk.row_len(), walk.row_strides());
        let grain = GRAIN_BYTES / (sizes[0] + sizes[1]);
        let size = sizes.map(|s| s as isize);
        let piece = |[ox, oo]: [isize; 2], start: usize, len: usize| {
            let i = start as isize;
            let x = (self.x_first + ox + i * step_x) * size[0];
            let out = (self.out_first + oo + i * step_out) * size[1];
            // SAFETY: offsets of the walk lie within both views.
            f(Piece { at: unsafe { { ends }.offset(x, out) }, step_x, step_out, len });
        };
        if walk.rows() == 1 {
            par::for_range(len, grain, |r| piece([0, 0], r.start, r.len()));
        } else {
            par::for_range(walk.rows(), grain.div_ceil(len), |rows| {
                walk.for_rows(rows, |at| piece(at, 0, len));
            });
        }
    }

    /// Copies elements of the size of `B`, whatever they are.
    ///
    /// # Safety
    /// The layout lies within what `ends` point into.
    unsafe fn copy<B: Copy>(&self, ends: Ends) {
        // The axis along which the input is dense, where it is not the output's.
        let across = self.x.iter().position(|&s| s == 1).filter(|&d| d + 1 < self.shape.len());
        if let Some(d) = across
            && self.out.last() == Some(&1)
            && self.shape[d] >= transpose::WORTH_IT
            && self.shape.last().is_some_and(|&n| n >= transpose::WORTH_IT)
        {
            // SAFETY: the caller's contract.
            return unsafe { transpose::copy::<B>(self, d, ends) };
        }
        self.for_pieces([size_of::<B>(); 2], ends, &|p: Piece| {
            let (x, out, n) = (p.at.x.cast::<B>(), p.at.out.cast::<B>(), p.len);
            // SAFETY: `n` elements at these strides lie within the views.
            unsafe {
                match (p.step_x, p.step_out) {
                    (1, 1) => std::ptr::copy_nonoverlapping(x, out, n),
                    (0, 1) => std::slice::from_raw_parts_mut(out, n).fill(*x),
                    (sx, so) => {
                        for i in 0..n as isize {
                            *out.offset(i * so) = *x.offset(i * sx);
                        }
                    }
                }
            }
        });
    }
}

/// A piece of a row: where it begins and how far apart, in elements, neighbours are.
struct Piece {
    at: Ends,
    step_x: isize,
    step_out: isize,
    len: usize,
}

/// `out = x`.
///
/// # Panics
/// If the shapes differ.
pub fn copy<T: Element>(x: Src<T>, out: Dst<T>) {
    assert_eq!(x.shape, out.shape, "a copy keeps the shape");
    if numel(out.shape) == 0 || (x.ptr() == out.ptr().cast_const() && x.strides == out.strides) {
        return;
    }
    let ends = Ends::of(&x, &out);
    let l = match size_of::<T>() {
        16 => Layout::of_pairs(&x, &out),
        _ => Layout::of(&x, &out),
    };
    // SAFETY: both views are whole. Their elements are moved as integers, of which
    // every bit pattern is one.
    unsafe {
        match size_of::<T>() {
            1 => l.copy::<u8>(ends),
            2 => l.copy::<u16>(ends),
            4 => l.copy::<u32>(ends),
            8 | 16 => l.copy::<u64>(ends),
            _ => unreachable!("there are no such numbers"),
        }
    }
}

/// `out = v` everywhere.
pub fn fill<T: Element>(out: Dst<T>, v: T) {
    let zeros: SmallVec<[isize; 6]> = SmallVec::from_elem(0, out.shape.len());
    copy(Src::of(&[v], out.shape, &zeros), out);
}

/// `out = start, start + step, start + 2 step, …` in row-major order, computed in
/// double precision and then converted.
pub fn arange<T: Element>(out: Dst<T>, start: f64, step: f64)
where
    f64: Cast<T>,
{
    count_up(out, |i| (start + step * i as f64).cast());
}

/// `out = start, start + step, start + 2 step, …` in row-major order, computed in
/// integers (wrapping) and then converted.
pub fn iota<T: Element>(out: Dst<T>, start: i64, step: i64)
where
    i64: Cast<T>,
{
    count_up(out, |i| start.wrapping_add(step.wrapping_mul(i as i64)).cast());
}

fn count_up<T: Element>(out: Dst<T>, f: impl Fn(usize) -> T + Sync) {
    if numel(out.shape) == 0 {
        return;
    }
    let walk = Walk::new(out.shape, [out.strides]);
    let (len, [step]) = (walk.row_len(), walk.row_strides());
    let row = |at: isize, row: usize, cols: std::ops::Range<usize>| {
        for c in cols {
            // SAFETY: the walk stays within the view.
            unsafe { *out.ptr().offset(at + c as isize * step) = f(row * len + c) };
        }
    };
    let grain = GRAIN_BYTES / size_of::<T>();
    if walk.rows() == 1 {
        par::for_range(len, grain, |r| row(0, 0, r));
    } else {
        par::for_range(walk.rows(), grain.div_ceil(len), |rows| {
            let mut r = rows.start;
            walk.for_rows(rows, |[at]| {
                row(at, r, 0..len);
                r += 1;
            });
        });
    }
}

#[cfg(test)]
mod tests;
