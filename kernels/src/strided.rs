//! Walking several strided operands of one shape together.

use smallvec::SmallVec;
use std::ops::Range;

#[derive(Clone, Copy)]
struct Axis<const K: usize> {
    n: usize,
    strides: [isize; K],
}

/// The walk: axes with size one dropped and neighbours merged where every
/// operand allows it; the last axis is the inner row.
pub struct Walk<const K: usize> {
    outer: SmallVec<[Axis<K>; 6]>,
    inner: Axis<K>,
}

impl<const K: usize> Walk<K> {
    /// Plans the walk over `shape` with the strides of each operand.
    pub fn new(shape: &[usize], strides: [&[isize]; K]) -> Walk<K> {
        let mut outer: SmallVec<[Axis<K>; 6]> = SmallVec::new();
        for (d, &n) in shape.iter().enumerate() {
            if n == 1 {
                continue;
            }
            let axis = Axis { n, strides: std::array::from_fn(|k| strides[k][d]) };
            if let Some(last) = outer.last_mut() {
                let joins = (0..K).all(|k| last.strides[k] == axis.strides[k] * n as isize);
                if joins {
                    last.n *= n;
                    last.strides = axis.strides;
                    continue;
                }
            }
            outer.push(axis);
        }
        let inner = outer.pop().unwrap_or(Axis { n: 1, strides: [1; K] });
        Walk { outer, inner }
    }

    /// Makes the longest axis the inner row when the present one is short: a row
    /// costs a call.
    pub fn prefer_long_rows(mut self) -> Self {
        if self.inner.n < 8
            && let Some(longest) = (0..self.outer.len()).max_by_key(|&i| self.outer[i].n)
            && self.outer[longest].n >= 4 * self.inner.n
        {
            std::mem::swap(&mut self.inner, &mut self.outer[longest]);
        }
        self
    }

    /// Elements in a row.
    #[inline]
    pub fn row_len(&self) -> usize {
        self.inner.n
    }

    /// Stride of each operand along a row.
    #[inline]
    pub fn row_strides(&self) -> [isize; K] {
        self.inner.strides
    }

    /// Number of rows.
    #[inline]
    pub fn rows(&self) -> usize {
        self.outer.iter().map(|a| a.n).product()
    }

    /// Calls `f` with each operand's offset at the start of each row in `rows`.
    #[inline]
    pub fn for_rows(&self, rows: Range<usize>, mut f: impl FnMut([isize; K])) {
        if rows.is_empty() {
            return;
        }
        if self.outer.is_empty() {
            f([0; K]);
            return;
        }
        self.for_outer(rows, &mut f);
    }

    /// [`Walk::for_rows`] where there are several: one form for all callers.
    fn for_outer(&self, rows: Range<usize>, f: &mut dyn FnMut([isize; K])) {
        let mut index: SmallVec<[usize; 6]> = SmallVec::from_elem(0, self.outer.len());
        let mut at = [0isize; K];
        let mut rest = rows.start;
        for (d, axis) in self.outer.iter().enumerate().rev() {
            index[d] = rest % axis.n;
            rest /= axis.n;
            for k in 0..K {
                at[k] += index[d] as isize * axis.strides[k];
            }
        }
        for _ in rows {
            f(at);
            for (d, axis) in self.outer.iter().enumerate().rev() {
                index[d] += 1;
                if index[d] < axis.n {
                    for k in 0..K {
                        at[k] += axis.strides[k];
                    }
                    break;
                }
                index[d] = 0;
                for k in 0..K {
                    at[k] -= (axis.n - 1) as isize * axis.strides[k];
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn visits_every_element_once(
            shape in proptest::collection::vec(0usize..5, 0..5),
            perm_seed in 0usize..24,
            long in any::<bool>(),
        ) {
            // Row-major strides of a permuted copy of the shape.
            let mut order: Vec<usize> = (0..shape.len()).collect();
            order.rotate_left(if shape.is_empty() { 0 } else { perm_seed % shape.len() });
            let mut strides = vec![0isize; shape.len()];
            let mut step = 1isize;
            for &d in order.iter().rev() {
                strides[d] = step;
                step *= shape[d] as isize;
            }
            let n: usize = shape.iter().product();
            let zero = vec![0isize; shape.len()];
            let mut walk = Walk::new(&shape, [&strides, &zero]);
            if long {
                walk = walk.prefer_long_rows();
            }
            let mut seen = vec![0; n];
            if n > 0 {
                let rows = walk.rows();
                for half in [0..rows / 2, rows / 2..rows] {
                    walk.for_rows(half, |at| {
                        prop_assert_eq_ok(at[1]);
                        for i in 0..walk.row_len() as isize {
                            seen[(at[0] + i * walk.row_strides()[0]) as usize] += 1;
                        }
                    });
                }
            }
            prop_assert!(seen.iter().all(|&s| s == 1));
        }
    }

    fn prop_assert_eq_ok(zero: isize) {
        assert_eq!(zero, 0, "a broadcast operand never moves");
    }
}
