//! Chains of matrix products.

use crate::tensor::Tensor;

/// The product of matrices in the order that multiplies least, by dynamic programming
/// (Cormen et al., section 15.2). The first and the last may be vectors.
///
/// # Panics
/// If there are fewer than two, or their shapes do not fit.
#[track_caller]
pub fn multi_dot(tensors: &[&Tensor]) -> Tensor {
    let op = "linalg.multi_dot";
    let n = tensors.len();
    if n < 2 {
        panic!("{op}: needs at least two matrices, got {n}");
    }
    let mut matrices: Vec<Tensor> = tensors.iter().map(|t| (*t).clone()).collect();
    let (row, column) = (matrices[0].rank() == 1, matrices[n - 1].rank() == 1);
    if row {
        matrices[0] = matrices[0].unsqueeze(0);
    }
    if column {
        matrices[n - 1] = matrices[n - 1].unsqueeze(-1);
    }
    for (i, m) in matrices.iter().enumerate() {
        if m.rank() != 2 {
            panic!(
                "{op}: operand {i} is {:?}; only the first and the last may be vectors",
                tensors[i].shape()
            );
        }
        if i > 0 && matrices[i - 1].size(1) != m.size(0) {
            panic!(
                "{op}: operands {} {:?} and {i} {:?} do not fit",
                i - 1,
                tensors[i - 1].shape(),
                tensors[i].shape()
            );
        }
    }
    // Matrix i is sizes[i] × sizes[i + 1].
    let sizes: Vec<f64> = matrices
        .iter()
        .map(|m| m.size(0))
        .chain([matrices[n - 1].size(1)])
        .map(|d| d as f64)
        .collect();
    let mut cost = vec![vec![0.0f64; n]; n];
    let mut cut = vec![vec![0usize; n]; n];
    for len in 1..n {
        for i in 0..n - len {
            let j = i + len;
            cost[i][j] = f64::INFINITY;
            for k in i..j {
                let c = cost[i][k] + cost[k + 1][j] + sizes[i] * sizes[k + 1] * sizes[j + 1];
                if c < cost[i][j] {
                    (cost[i][j], cut[i][j]) = (c, k);
                }
            }
        }
    }
    let mut out = product(&matrices, &cut, 0, n - 1);
    if column {
        out = out.squeeze(-1);
    }
    if row { out.squeeze(0) } else { out }
}

#[track_caller]
fn product(matrices: &[Tensor], cut: &[Vec<usize>], i: usize, j: usize) -> Tensor {
    if i == j {
        return matrices[i].clone();
    }
    let k = cut[i][j];
    product(matrices, cut, i, k).matmul(&product(matrices, cut, k + 1, j))
}
