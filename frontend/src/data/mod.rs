//! Data sets and loading them in batches.

mod loader;
mod mnist;
mod sampler;

pub use loader::{DataLoader, LoaderOptions};
pub use mnist::{Mnist, MnistError};
pub use sampler::{random_split, shuffled};

use crate::tensor::{Tensor, stack};

/// A collection of samples found by number.
pub trait Dataset: Send + Sync {
    /// One sample.
    type Sample: Send;

    /// Number of samples.
    fn len(&self) -> usize;

    /// Sample `i`, below [`len`](Dataset::len).
    fn get(&self, i: usize) -> Self::Sample;

    /// Whether there are no samples.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Samples that can be joined to a batch.
pub trait Collate: Sized {
    /// A batch of samples.
    type Batch: Send;

    /// Joins samples, in order.
    fn collate(samples: Vec<Self>) -> Self::Batch;
}

impl Collate for Tensor {
    type Batch = Tensor;
    fn collate(samples: Vec<Tensor>) -> Tensor {
        stack(&samples.iter().collect::<Vec<_>>(), 0)
    }
}

impl<A: Collate, B: Collate> Collate for (A, B) {
    type Batch = (A::Batch, B::Batch);
    fn collate(samples: Vec<(A, B)>) -> Self::Batch {
        let (a, b) = samples.into_iter().unzip();
        (A::collate(a), B::collate(b))
    }
}

macro_rules! collate_numbers {
    ($($t:ty),*) => {$(
        impl Collate for $t {
            type Batch = Tensor;
            fn collate(samples: Vec<$t>) -> Tensor {
                crate::tensor::tensor(samples)
            }
        }
    )*};
}
collate_numbers!(f32, f64, i32, i64, bool);

/// Tensors whose first dimension counts samples.
#[derive(Clone, Debug)]
pub struct TensorDataset {
    x: Tensor,
    y: Tensor,
}

impl TensorDataset {
    /// Inputs and targets.
    ///
    /// # Panics
    /// If their numbers differ.
    #[track_caller]
    pub fn new(x: Tensor, y: Tensor) -> TensorDataset {
        if x.rank() == 0 || y.rank() == 0 || x.size(0) != y.size(0) {
            panic!(
                "TensorDataset: {:?} and {:?} do not count the same samples",
                x.shape(),
                y.shape()
            );
        }
        TensorDataset { x, y }
    }
}

impl Dataset for TensorDataset {
    type Sample = (Tensor, Tensor);
    fn len(&self) -> usize {
        self.x.size(0)
    }
    fn get(&self, i: usize) -> (Tensor, Tensor) {
        (self.x.select(0, i as i64), self.y.select(0, i as i64))
    }
}

/// Some samples of another data set.
#[derive(Clone, Debug)]
pub struct Subset<D> {
    data: D,
    indices: Vec<usize>,
}

impl<D: Dataset> Subset<D> {
    /// The samples with these numbers.
    ///
    /// # Panics
    /// If one does not exist.
    #[track_caller]
    pub fn new(data: D, indices: Vec<usize>) -> Subset<D> {
        if let Some(i) = indices.iter().find(|&&i| i >= data.len()) {
            panic!("Subset: sample {i} of {} does not exist", data.len());
        }
        Subset { data, indices }
    }
}

impl<D: Dataset> Dataset for Subset<D> {
    type Sample = D::Sample;
    fn len(&self) -> usize {
        self.indices.len()
    }
    fn get(&self, i: usize) -> D::Sample {
        self.data.get(self.indices[i])
    }
}

impl<D: Dataset + ?Sized> Dataset for std::sync::Arc<D> {
    type Sample = D::Sample;
    fn len(&self) -> usize {
        (**self).len()
    }
    fn get(&self, i: usize) -> D::Sample {
        (**self).get(i)
    }
}
