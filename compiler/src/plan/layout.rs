//! Where values lie: views of buffers with symbolic extents.

use sinter_runtime::program::View;
use sinter_runtime::{DType, Dim, Extent};

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
    /// all sizes: dense layouts, and ones that come or go.
    pub(super) fn reshape(&self, shape: &[Dim]) -> Option<Located> {
        if self.is_dense() {
            return Some(Located { shape: shape.to_vec(), strides: dense(shape), ..self.clone() });
        }
        let kept: Vec<(&Dim, &Dim)> =
            self.shape.iter().zip(&self.strides).filter(|(n, _)| !n.is(1)).collect();
        let mut rest = kept.into_iter();
        let mut strides = Vec::new();
        for d in shape {
            if d.is(1) {
                strides.push(Dim::of(0));
                continue;
            }
            let (n, s) = rest.next()?;
            if n != d {
                return None;
            }
            strides.push(s.clone());
        }
        if rest.next().is_some() {
            return None;
        }
        Some(Located { shape: shape.to_vec(), strides, ..self.clone() })
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

    pub(super) fn view(&self) -> View {
        View {
            buffer: self.buffer,
            offset: self.offset.clone(),
            shape: self.shape.clone(),
            strides: self.strides.clone(),
        }
    }
}
