//! Products of matrices and vectors.

use crate::registry::Registry;

pub fn register(r: &mut Registry) {
    r.op("matmul", |a| a.t(0).matmul(&a.t(1)));
    r.composite("__rmatmul__", "matmul, operands exchanged", |a| a.t(1).matmul(&a.t(0)));
    r.composite("mm", "matmul", |a| a.t(0).matmul(&a.t(1)));
    r.composite("bmm", "matmul", |a| a.t(0).matmul(&a.t(1)));
    r.composite("mv", "matmul", |a| a.t(0).matmul(&a.t(1)));
    r.op("dot", |a| a.t(0).dot(&a.t(1)));
    r.op("outer", |a| a.t(0).outer(&a.t(1)));
}
