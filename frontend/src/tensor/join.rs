//! Tensors put together, and grids made of them.

use super::layout::{IntoDims, sizes};
use super::{Tensor, apply, cat, stack};
use sinter_runtime::{Op, Scalar, Shape};

/// The order of dimensions in [`meshgrid`].
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Indexing {
    /// Dimension `i` belongs to tensor `i`.
    #[default]
    Ij,
    /// The first two are exchanged: rows and columns of a plot.
    Xy,
}

impl Tensor {
    /// With at least one dimension.
    #[track_caller]
    pub fn atleast_1d(&self) -> Tensor {
        if self.rank() == 0 { self.unsqueeze(0) } else { self.clone() }
    }

    /// With at least two dimensions: a vector is a row.
    #[track_caller]
    pub fn atleast_2d(&self) -> Tensor {
        let x = self.atleast_1d();
        if x.rank() == 1 { x.unsqueeze(0) } else { x }
    }

    /// With at least three dimensions; a matrix comes first.
    #[track_caller]
    pub fn atleast_3d(&self) -> Tensor {
        let x = self.atleast_2d();
        if x.rank() == 2 { x.unsqueeze(2) } else { x }
    }

    /// Repeated `times` over along the last dimensions, or new ones in front: NumPy's
    /// `tile`.
    #[track_caller]
    pub fn tile(&self, times: impl IntoDims) -> Tensor {
        let mut times = sizes("tile", times);
        while times.len() < self.rank() {
            times.insert(0, 1);
        }
        self.repeat(times)
    }
}

#[track_caller]
fn each(tensors: &[&Tensor], f: impl Fn(&Tensor) -> Tensor) -> Vec<Tensor> {
    let mut out = Vec::with_capacity(tensors.len());
    for t in tensors {
        out.push(f(t));
    }
    out
}

#[track_caller]
fn joined(op: &str, tensors: &[Tensor], dim: i64) -> Tensor {
    if tensors.is_empty() {
        panic!("{op}: there are no tensors to join");
    }
    cat(&tensors.iter().collect::<Vec<_>>(), dim)
}

/// Tensors joined side by side: along the second dimension, vectors along their only one.
///
/// # Panics
/// As [`cat`].
#[track_caller]
pub fn hstack(tensors: &[&Tensor]) -> Tensor {
    let parts = each(tensors, Tensor::atleast_1d);
    let dim = if parts.first().is_some_and(|p| p.rank() == 1) { 0 } else { 1 };
    joined("hstack", &parts, dim)
}

/// Tensors joined one below the other: along the first dimension, vectors as rows.
///
/// ```
/// use sinter::{hstack, tensor, vstack};
/// let (a, b) = (tensor([1i64, 2]), tensor([3i64, 4]));
/// assert_eq!(vstack(&[&a, &b]).shape(), [2, 2]);
/// assert_eq!(hstack(&[&a, &b]).shape(), [4]);
/// ```
///
/// # Panics
/// As [`cat`].
#[track_caller]
pub fn vstack(tensors: &[&Tensor]) -> Tensor {
    joined("vstack", &each(tensors, Tensor::atleast_2d), 0)
}

/// Tensors joined along the third dimension.
///
/// # Panics
/// As [`cat`].
#[track_caller]
pub fn dstack(tensors: &[&Tensor]) -> Tensor {
    joined("dstack", &each(tensors, Tensor::atleast_3d), 2)
}

/// Tensors joined along the second dimension, vectors (and numbers) as columns.
///
/// # Panics
/// As [`cat`].
#[track_caller]
pub fn column_stack(tensors: &[&Tensor]) -> Tensor {
    let columns = each(tensors, |t| if t.rank() <= 1 { t.reshape([-1, 1]) } else { t.clone() });
    joined("column_stack", &columns, 1)
}

/// The matrices as blocks along the diagonal of one, zeros elsewhere; vectors are rows.
///
/// # Panics
/// If one has more than two dimensions.
#[track_caller]
pub fn block_diag(tensors: &[&Tensor]) -> Tensor {
    let blocks = each(tensors, Tensor::atleast_2d);
    if let Some(bad) = blocks.iter().find(|b| b.rank() > 2) {
        panic!("block_diag: needs matrices, one has shape {:?}", bad.shape());
    }
    let width: usize = blocks.iter().map(|b| b.shape()[1]).sum();
    let mut before = 0;
    let mut rows = Vec::with_capacity(blocks.len());
    for b in &blocks {
        let n = b.shape()[1];
        rows.push(b.pad(&[(0, 0), (before, width - before - n)], Scalar::Int(0)));
        before += n;
    }
    joined("block_diag", &rows, 0)
}

/// Coordinates on the grid of the vectors: for each a tensor that varies along its own
/// dimension only. Views.
///
/// # Panics
/// If there are none, or one has more than one dimension.
#[track_caller]
pub fn meshgrid(tensors: &[&Tensor], indexing: Indexing) -> Vec<Tensor> {
    if tensors.is_empty() {
        panic!("meshgrid: there are no tensors");
    }
    if let Some(bad) = tensors.iter().find(|t| t.rank() > 1) {
        panic!("meshgrid: needs vectors, one has shape {:?}", bad.shape());
    }
    let shape: Shape = tensors.iter().map(|t| t.numel()).collect();
    let mut out = Vec::with_capacity(tensors.len());
    for (i, t) in tensors.iter().enumerate() {
        let mut line = vec![1; shape.len()];
        line[i] = t.numel();
        let grid = t.reshape(line).broadcast_to(shape.as_slice());
        let swap = indexing == Indexing::Xy && shape.len() > 1;
        out.push(if swap { grid.transpose(0, 1) } else { grid });
    }
    out
}

/// Every combination of an element of each vector, in order: [number, vectors].
///
/// # Panics
/// As [`meshgrid`].
#[track_caller]
pub fn cartesian_prod(tensors: &[&Tensor]) -> Tensor {
    if let [one] = tensors {
        return (*one).clone();
    }
    let grids = meshgrid(tensors, Indexing::Ij);
    let lines = each(&grids.iter().collect::<Vec<_>>(), |g| g.reshape([-1]));
    stack(&lines.iter().collect::<Vec<_>>(), 1)
}

impl Tensor {
    /// Every choice of `r` elements of a vector, in order: [number, r].
    ///
    /// # Panics
    /// If this is no vector.
    #[track_caller]
    pub fn combinations(&self, r: usize, with_replacement: bool) -> Tensor {
        if self.rank() != 1 {
            panic!("combinations: needs a vector, the shape is {:?}", self.shape());
        }
        let n = self.numel();
        let mut index: Vec<i64> = Vec::new();
        let mut number = 0;
        let mut pick: Vec<usize> = Vec::with_capacity(r);
        // Depth first: the next choice begins at, or after, the one before.
        let mut next = 0;
        loop {
            if r > 0 && pick.len() == r {
                index.extend(pick.iter().map(|&i| i as i64));
                number += 1;
            } else if r > 0 && next < n {
                pick.push(next);
                next += usize::from(!with_replacement);
                continue;
            }
            match pick.pop() {
                Some(last) => next = last + 1,
                None => break,
            }
        }
        let index = super::from_slice(&index, [number * r]);
        let picked = self.index_select(0, &index);
        apply(Op::Reshape { shape: [number, r][..].into() }, &[&picked])
    }
}
