//! The family of matrix products.

use super::Tensor;
use sinter_runtime::Shape;
use sinter_runtime::op::Axes;

impl Tensor {
    #[track_caller]
    fn needs_rank(&self, op: &str, rank: usize, other: &Tensor, other_rank: usize) {
        if self.rank() != rank || other.rank() != other_rank {
            panic!(
                "{op}: needs tensors of {rank} and {other_rank} dimension(s), got {:?} and {:?}",
                self.shape(),
                other.shape()
            );
        }
    }

    /// Product of two matrices.
    ///
    /// # Panics
    /// If they are none, or do not fit.
    #[track_caller]
    pub fn mm(&self, other: &Tensor) -> Tensor {
        self.needs_rank("mm", 2, other, 2);
        self.matmul(other)
    }

    /// Products of two batches of matrices, [b, n, m] and [b, m, p].
    ///
    /// # Panics
    /// If they are none, or do not fit.
    #[track_caller]
    pub fn bmm(&self, other: &Tensor) -> Tensor {
        self.needs_rank("bmm", 3, other, 3);
        if self.shape()[0] != other.shape()[0] {
            panic!("bmm: batches of {:?} and {:?} differ", self.shape(), other.shape());
        }
        self.matmul(other)
    }

    /// Product of a matrix and a vector.
    ///
    /// # Panics
    /// If they are none, or do not fit.
    #[track_caller]
    pub fn mv(&self, vector: &Tensor) -> Tensor {
        self.needs_rank("mv", 2, vector, 1);
        self.matmul(vector)
    }

    /// [`dot`](Tensor::dot) with this vector conjugated.
    #[track_caller]
    pub fn vdot(&self, other: &Tensor) -> Tensor {
        self.conj().dot(other)
    }

    /// Sums of products along the last dimensions: of vectors their dot product.
    ///
    /// # Panics
    /// If the last dimensions differ.
    #[track_caller]
    pub fn inner(&self, other: &Tensor) -> Tensor {
        if self.rank() == 0 || other.rank() == 0 {
            return self * other;
        }
        if self.size(-1) != other.size(-1) {
            panic!("inner: last dimensions of {:?} and {:?} differ", self.shape(), other.shape());
        }
        tensordot(self, other, &[-1], &[-1])
    }

    /// `beta self + alpha x`; what is multiplied by zero does not count at all.
    #[track_caller]
    fn plus(&self, x: Tensor, beta: f64, alpha: f64) -> Tensor {
        let x = x.scaled(alpha);
        if beta == 0.0 {
            let shape = super::broadcast_shapes(&[self.shape(), x.shape()]);
            return x.broadcast_to(shape);
        }
        self.scaled(beta) + x
    }

    /// `beta self + alpha a b` with matrices `a` and `b`.
    ///
    /// # Panics
    /// If shapes do not fit.
    #[track_caller]
    pub fn addmm(&self, a: &Tensor, b: &Tensor, beta: f64, alpha: f64) -> Tensor {
        self.plus(a.mm(b), beta, alpha)
    }

    /// `beta self + alpha a v` with a matrix `a` and a vector `v`.
    ///
    /// # Panics
    /// If shapes do not fit.
    #[track_caller]
    pub fn addmv(&self, a: &Tensor, v: &Tensor, beta: f64, alpha: f64) -> Tensor {
        self.plus(a.mv(v), beta, alpha)
    }

    /// `beta self + alpha u vᵀ` with vectors `u` and `v`.
    ///
    /// # Panics
    /// If shapes do not fit.
    #[track_caller]
    pub fn addr(&self, u: &Tensor, v: &Tensor, beta: f64, alpha: f64) -> Tensor {
        self.plus(u.outer(v), beta, alpha)
    }

    /// `beta self + alpha Σ a_i b_i` over batches of matrices.
    ///
    /// # Panics
    /// If shapes do not fit.
    #[track_caller]
    pub fn addbmm(&self, a: &Tensor, b: &Tensor, beta: f64, alpha: f64) -> Tensor {
        a.needs_rank("addbmm", 3, b, 3);
        // One product: the batch is part of the sum.
        let (n, m) = (a.size(1), b.size(2));
        let rows = a.transpose(0, 1).reshape([n, a.size(0) * a.size(2)]);
        let product = rows.matmul(&b.reshape([b.size(0) * b.size(1), m]));
        self.plus(product, beta, alpha)
    }

    /// `beta self + alpha a b` over batches of matrices.
    ///
    /// # Panics
    /// If shapes do not fit.
    #[track_caller]
    pub fn baddbmm(&self, a: &Tensor, b: &Tensor, beta: f64, alpha: f64) -> Tensor {
        self.plus(a.bmm(b), beta, alpha)
    }

    /// [`outer`](Tensor::outer) by its old name.
    #[track_caller]
    pub fn ger(&self, other: &Tensor) -> Tensor {
        self.outer(other)
    }

    /// Sum of products along `dim`, this tensor conjugated; the operands broadcast.
    #[track_caller]
    pub fn vecdot(&self, other: &Tensor, dim: i64) -> Tensor {
        (self.conj() * other).sum_dim(dim, false)
    }

    /// Kronecker's product: each element of this tensor times the whole other one.
    #[track_caller]
    pub fn kron(&self, other: &Tensor) -> Tensor {
        let rank = self.rank().max(other.rank());
        let full = |t: &Tensor| -> Shape {
            std::iter::repeat_n(1, rank - t.rank()).chain(t.shape().iter().copied()).collect()
        };
        let (a, b) = (full(self), full(other));
        let left: Shape = a.iter().flat_map(|&n| [n, 1]).collect();
        let right: Shape = b.iter().flat_map(|&n| [1, n]).collect();
        let out: Shape = a.iter().zip(&b).map(|(n, m)| n * m).collect();
        (self.reshape(left) * other.reshape(right)).reshape(out)
    }

    /// The vector product of vectors of three in dimension `dim`; the others broadcast.
    ///
    /// # Panics
    /// If the dimension has not three elements.
    #[track_caller]
    pub fn cross(&self, other: &Tensor, dim: i64) -> Tensor {
        for t in [self, other] {
            if t.size(dim) != 3 {
                panic!("cross: dimension {dim} of {:?} has not 3 elements", t.shape());
            }
        }
        self.roll(-1, dim) * other.roll(-2, dim) - self.roll(-2, dim) * other.roll(-1, dim)
    }

    /// The `p`-norms of the differences of each two rows, [.., n, m] and [.., k, m] to
    /// [.., n, k].
    ///
    /// # Panics
    /// If they are no matrices, or rows differ in length.
    #[track_caller]
    pub fn cdist(&self, other: &Tensor, p: f64) -> Tensor {
        if self.rank() < 2 || other.rank() < 2 || self.size(-1) != other.size(-1) {
            panic!(
                "cdist: needs matrices with rows of one length, got {:?} and {:?}",
                self.shape(),
                other.shape()
            );
        }
        let d = self.unsqueeze(-2) - other.unsqueeze(-3);
        if d.size(-1) == 0 {
            let shape = &d.shape()[..d.rank() - 1];
            return super::full(shape, 0.0, d.dtype());
        }
        d.norm_dim(p, -1, false)
    }

    /// The `p`-norms of the differences of each two different rows of a matrix, as a
    /// vector in row-major order.
    ///
    /// # Panics
    /// If this is no matrix.
    #[track_caller]
    pub fn pdist(&self, p: f64) -> Tensor {
        if self.rank() != 2 {
            panic!("pdist: needs a matrix, the shape is {:?}", self.shape());
        }
        let pairs = super::triu_indices(self.size(0), self.size(0), 1);
        let row = |i| self.index_select(0, &pairs.select(0, i));
        (row(0) - row(1)).norm_dim(p, 1, false)
    }
}

/// Sums of products over pairs of dimensions: `left[i]` of `a` with `right[i]` of `b`. The
/// result has the other dimensions of `a`, then those of `b`.
///
/// ```
/// use sinter::{arange, tensordot};
/// let a = arange(0.0, 12.0, 1.0).reshape([3, 2, 2]);
/// let b = arange(0.0, 8.0, 1.0).reshape([2, 2, 2]);
/// assert_eq!(tensordot(&a, &b, &[1, 2], &[0, 1]).shape(), [3, 2]);
/// ```
///
/// # Panics
/// If dimensions do not exist, differ in extent or are named twice.
#[track_caller]
pub fn tensordot(a: &Tensor, b: &Tensor, left: &[i64], right: &[i64]) -> Tensor {
    let (l, r) = (a.axes("tensordot", left), b.axes("tensordot", right));
    let twice = |axes: &Axes| axes.iter().enumerate().any(|(i, x)| axes[..i].contains(x));
    let fits = l.len() == r.len() && l.iter().zip(&r).all(|(&i, &j)| a.shape()[i] == b.shape()[j]);
    if !fits || twice(&l) || twice(&r) {
        panic!(
            "tensordot: dimensions {left:?} of {:?} and {right:?} of {:?} do not pair",
            a.shape(),
            b.shape()
        );
    }
    let free =
        |t: &Tensor, used: &Axes| -> Axes { (0..t.rank()).filter(|d| !used.contains(d)).collect() };
    let (fa, fb) = (free(a, &l), free(b, &r));
    let size = |t: &Tensor, axes: &Axes| -> usize { axes.iter().map(|&d| t.shape()[d]).product() };
    let order = |x: &Axes, y: &Axes| -> Vec<i64> { x.iter().chain(y).map(|&d| d as i64).collect() };
    let k = size(a, &l);
    let rows = a.permute(order(&fa, &l)).reshape([size(a, &fa), k]);
    let cols = b.permute(order(&r, &fb)).reshape([k, size(b, &fb)]);
    let shape: Shape =
        fa.iter().map(|&d| a.shape()[d]).chain(fb.iter().map(|&d| b.shape()[d])).collect();
    rows.matmul(&cols).reshape(shape)
}

/// The product of matrices, in the order that takes the fewest multiplications.
///
/// # Panics
/// If there are none, or they do not fit.
#[track_caller]
pub fn chain_matmul(matrices: &[&Tensor]) -> Tensor {
    let Some((first, rest)) = matrices.split_first() else {
        panic!("chain_matmul: there are no matrices");
    };
    if rest.is_empty() {
        return (*first).clone();
    }
    for (i, m) in matrices.iter().enumerate() {
        if m.rank() != 2 {
            panic!("chain_matmul: needs matrices, one has shape {:?}", m.shape());
        }
        if i + 1 < matrices.len() && m.size(1) != matrices[i + 1].size(0) {
            panic!("chain_matmul: {:?} and {:?} do not fit", m.shape(), matrices[i + 1].shape());
        }
    }
    // The dynamic programme over where the last product splits the chain (Godbole 1973).
    let n = matrices.len();
    let size = |i: usize| if i < n { matrices[i].size(0) } else { matrices[n - 1].size(1) };
    let mut best = vec![vec![(0.0f64, 0usize); n]; n];
    for span in 1..n {
        for i in 0..n - span {
            let j = i + span;
            best[i][j] = (i..j)
                .map(|s| {
                    let cut = size(i) as f64 * size(s + 1) as f64 * size(j + 1) as f64;
                    (best[i][s].0 + best[s + 1][j].0 + cut, s)
                })
                .min_by(|x, y| x.0.total_cmp(&y.0))
                .expect("a chain of several has a split");
        }
    }
    fn product(m: &[&Tensor], best: &[Vec<(f64, usize)>], i: usize, j: usize) -> Tensor {
        if i == j {
            return m[i].clone();
        }
        let s = best[i][j].1;
        product(m, best, i, s).matmul(&product(m, best, s + 1, j))
    }
    product(matrices, &best, 0, n - 1)
}
