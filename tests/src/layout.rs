//! Memory that is laid out in other ways.

use sinter_runtime::{Array, eager};

/// The same elements on memory that is not dense: every dimension in reverse order,
/// backwards and with gaps.
///
/// # Panics
/// If memory runs out.
pub fn scattered(a: &Array) -> Array {
    let rank = a.rank();
    let back: Vec<usize> = (0..rank).rev().collect();
    let mut x = a.permute(&back);
    for axis in 0..rank {
        let n = x.shape()[axis];
        let mut wide = x.shape().to_vec();
        wide[axis] = 2 * n + 1;
        let gaps = Array::empty(&wide, a.dtype()).unwrap();
        let view = gaps.slice(axis, 1, n, 2);
        eager::copy_into(&x, &view);
        x = view;
    }
    let mut x = x.permute(&back);
    for axis in 0..rank {
        let flipped = x.flip(&[axis]);
        let dense = Array::empty(x.shape(), a.dtype()).unwrap();
        eager::copy_into(&x, &dense.flip(&[axis]));
        x = if axis % 2 == 0 { dense.flip(&[axis]) } else { flipped.flip(&[axis]) };
    }
    x
}
