//! Orders of samples.

use crate::random;
use sinter_runtime::op::RandomKind;
use sinter_runtime::{DType, Op, eager};

/// The numbers `0..n` in an order that depends on `seed` alone.
///
/// ```
/// use sinter::data::shuffled;
/// let order = shuffled(5, 1);
/// assert_eq!(order, shuffled(5, 1));
/// let mut sorted = order;
/// sorted.sort_unstable();
/// assert_eq!(sorted, [0, 1, 2, 3, 4]);
/// ```
pub fn shuffled(n: usize, seed: u64) -> Vec<usize> {
    let keys = Op::Random {
        kind: RandomKind::Uniform,
        dtype: DType::F64,
        seed,
        offset: 0,
        shape: [n].as_slice().into(),
    };
    let keys: Vec<f64> = eager::run1(&keys, &[]).expect("uniform numbers always exist").to_vec();
    let mut order: Vec<usize> = (0..n).collect();
    order.sort_by(|&a, &b| keys[a].total_cmp(&keys[b]));
    order
}

/// Divides `0..n` at random into parts of the given sizes.
///
/// # Panics
/// If the sizes do not add up to `n`.
#[track_caller]
pub fn random_split(n: usize, sizes: &[usize]) -> Vec<Vec<usize>> {
    if sizes.iter().sum::<usize>() != n {
        panic!("random_split: sizes {sizes:?} do not add up to {n}");
    }
    let (seed, offset) = random::reserve(n);
    let order = shuffled(n, seed ^ offset.rotate_left(32));
    let mut rest = order.as_slice();
    sizes
        .iter()
        .map(|&s| {
            let (part, r) = rest.split_at(s);
            rest = r;
            part.to_vec()
        })
        .collect()
}
