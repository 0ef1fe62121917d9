//! Where values lie: views of buffers with symbolic extents.

use sinter_runtime::op::Axes;
use sinter_runtime::program::View;
use sinter_runtime::{DType, Dim, Extent, eager};

/// A value in memory: a strided view of a buffer.
#[derive(Clone, PartialEq, Debug)]
pub(super) struct Located {
    pub(super) buffer: u32,
    pub(super) dtype: DType,
    pub(super) offset: Dim,
    pub(super) shape: Vec<Dim>,
    pub(super) strides: Vec<Dim>,
}

/// Strides of a dense row-major layout.
pub(super) fn dense(shape: &[Dim]) -> Vec<Dim> {
    let mut step = Dim::of(1);
    let mut strides = vec![Dim::of(1); shape.len()];
    for (s, d) in strides.iter_mut().zip(shape).rev() {
        *s = step.clone();
        step = step.times(d);
    }
    strides
}

fn negated(d: &Dim) -> Dim {
    d.times(&Dim::constant(-1))
}

/// The fewest leading dimensions of both shapes that hold as many elements; only the
/// listed ones count.
fn matching(a: &[Dim], long_a: &[usize], b: &[Dim], long_b: &[usize]) -> Option<(usize, usize)> {
    let products = |shape: &[Dim], of: &[usize]| -> Vec<Dim> {
        let grow = |n: &mut Dim, &d: &usize| {
            *n = n.times(&shape[d]);
            Some(n.clone())
        };
        of.iter().scan(Dim::of(1), grow).collect()
    };
    let (pa, pb) = (products(a, long_a), products(b, long_b));
    let pairs = (0..pa.len()).flat_map(|i| (0..pb.len()).map(move |j| (i, j)));
    pairs.filter(|&(i, j)| pa[i] == pb[j]).min_by_key(|(i, j)| i + j).map(|(i, j)| (i + 1, j + 1))
}

impl Located {
    pub(super) fn new(buffer: u32, dtype: DType, shape: &[Dim]) -> Located {
        Located { buffer, dtype, offset: Dim::of(0), shape: shape.to_vec(), strides: dense(shape) }
    }

    /// Whether elements lie densely in row-major order, for all sizes.
    pub(super) fn is_dense(&self) -> bool {
        let want = dense(&self.shape);
        self.shape.iter().zip(&self.strides).zip(&want).all(|((n, s), w)| n.is(1) || s == w)
    }

    /// The same elements in another shape, when these strides can express it for
    /// all sizes: dense layouts, and ones in which dimensions are only split or, where
    /// they follow each other without gaps, joined.
    pub(super) fn reshape(&self, shape: &[Dim]) -> Option<Located> {
        if self.is_dense() {
            return Some(Located { shape: shape.to_vec(), strides: dense(shape), ..self.clone() });
        }
        if self.shape.iter().chain(shape).any(|d| d.is(0)) {
            return None;
        }
        let long = |shape: &[Dim]| -> Vec<usize> {
            (0..shape.len()).filter(|&i| !shape[i].is(1)).collect()
        };
        let (old, new) = (long(&self.shape), long(shape));
        let mut strides = vec![Dim::of(0); shape.len()];
        let (mut from, mut to) = (0, 0);
        while from < old.len() && to < new.len() {
            let (a, b) = matching(&self.shape, &old[from..], shape, &new[to..])?;
            // The old dimensions of the group as one.
            let group = &old[from..from + a];
            let inside = |w: &[usize]| self.strides[w[1]].times(&self.shape[w[1]]);
            if !group.windows(2).all(|w| self.strides[w[0]] == inside(w)) {
                return None;
            }
            let mut step = self.strides[group[a - 1]].clone();
            for &d in new[to..to + b].iter().rev() {
                strides[d] = step.clone();
                step = step.times(&shape[d]);
            }
            (from, to) = (from + a, to + b);
        }
        (from == old.len() && to == new.len()).then(|| Located {
            shape: shape.to_vec(),
            strides,
            ..self.clone()
        })
    }

    /// These axes' order from the outermost in memory to the innermost, as attention
    /// takes it over: see [`eager::axis_order`].
    pub(super) fn order(&self, hints: &[usize]) -> Axes {
        let far = |(s, n): (&Dim, &Dim)| match s.eval_signed(hints) {
            Some(s) if !n.is(1) => s.unsigned_abs() as usize,
            _ => usize::MAX,
        };
        let far: Vec<usize> = self.strides.iter().zip(&self.shape).map(far).collect();
        eager::axis_order(&far)
    }

    /// Dense elements whose axes lie in that order.
    pub(super) fn lying(mut self, order: &[usize]) -> Located {
        let mut step = Dim::of(1);
        for &d in order.iter().rev() {
            self.strides[d] = step.clone();
            step = step.times(&self.shape[d]);
        }
        self
    }

    pub(super) fn permute(&self, perm: &[usize]) -> Located {
        Located {
            shape: perm.iter().map(|&p| self.shape[p].clone()).collect(),
            strides: perm.iter().map(|&p| self.strides[p].clone()).collect(),
            ..self.clone()
        }
    }

    /// Strides for a larger shape, aligned at the last dimension.
    pub(super) fn broadcast(&self, shape: &[Dim]) -> Located {
        let lead = shape.len() - self.shape.len();
        let strides = (0..shape.len())
            .map(|i| match i.checked_sub(lead) {
                Some(j) if self.shape[j] == shape[i] && !shape[i].is(1) => self.strides[j].clone(),
                _ => Dim::of(0),
            })
            .collect();
        Located { shape: shape.to_vec(), strides, ..self.clone() }
    }

    pub(super) fn slice(&self, axis: usize, start: &Dim, len: &Dim, step: usize) -> Located {
        let mut out = self.clone();
        out.offset = self.offset.plus(&start.times(&self.strides[axis]));
        out.shape[axis] = len.clone();
        out.strides[axis] = self.strides[axis].times(&Dim::of(step));
        out
    }

    pub(super) fn diagonal(&self, axes: [usize; 2], start: [usize; 2], len: &Dim) -> Located {
        let [a, b] = axes;
        let mut out = self.slice(a, &Dim::of(start[0]), len, 1);
        out = out.slice(b, &Dim::of(start[1]), len, 1);
        let stride = out.strides[a].plus(&out.strides[b]);
        for axis in [a.max(b), a.min(b)] {
            out.shape.remove(axis);
            out.strides.remove(axis);
        }
        out.shape.push(len.clone());
        out.strides.push(stride);
        out
    }

    pub(super) fn unfold(&self, axis: usize, size: usize, step: usize, count: &Dim) -> Located {
        let mut out = self.slice(axis, &Dim::of(0), count, step);
        out.shape.push(Dim::of(size));
        out.strides.push(self.strides[axis].clone());
        out
    }

    /// Any strides over dense elements; `None` where these are not dense for all sizes.
    pub(super) fn as_strided(
        &self,
        shape: &[Dim],
        strides: &[Dim],
        offset: &Dim,
    ) -> Option<Located> {
        self.is_dense().then(|| Located {
            offset: self.offset.plus(offset),
            shape: shape.to_vec(),
            strides: strides.to_vec(),
            ..self.clone()
        })
    }

    pub(super) fn flip(&self, axes: &[usize]) -> Located {
        let mut out = self.clone();
        for &a in axes {
            let last = self.shape[a].plus(&Dim::constant(-1));
            out.offset = out.offset.plus(&last.times(&out.strides[a]));
            out.strides[a] = negated(&out.strides[a]);
        }
        out
    }

    /// Dimensions `from..to` as one, when their strides allow it for all sizes.
    pub(super) fn merge(&self, from: usize, to: usize) -> Option<Located> {
        let mut n = Dim::of(1);
        let mut stride: Option<Dim> = None;
        for i in (from..to).rev() {
            if self.shape[i].is(1) {
                continue;
            }
            match &stride {
                None => stride = Some(self.strides[i].clone()),
                // One step outside is the whole of what is inside.
                Some(s) if self.strides[i] == s.times(&n) => {}
                Some(_) => return None,
            }
            n = n.times(&self.shape[i]);
        }
        let mut out = self.clone();
        out.shape.splice(from..to, [n]);
        out.strides.splice(from..to, [stride.unwrap_or(Dim::of(0))]);
        Some(out)
    }

    /// With one more dimension of one element before the others.
    pub(super) fn outer(mut self) -> Located {
        self.shape.insert(0, Dim::of(1));
        self.strides.insert(0, Dim::of(0));
        self
    }

    pub(super) fn view(&self) -> View {
        View {
            buffer: self.buffer,
            offset: self.offset.clone(),
            shape: self.shape.clone(),
            strides: self.strides.clone(),
        }
    }
}
