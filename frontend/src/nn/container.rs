//! Modules made of a list of modules.

use super::{Layer, Module, Visit, VisitMut};
use crate::tensor::Tensor;

/// Layers one after the other.
///
/// ```
/// use sinter::nn::{Activation, Layer, Linear, Sequential};
/// let m = Sequential::new().add(Linear::new(4, 8)).add(Activation::Relu).add(Linear::new(8, 2));
/// assert_eq!(m.forward(&sinter::ones([1, 4])).shape(), [1, 2]);
/// ```
#[derive(Default)]
pub struct Sequential {
    layers: Vec<Box<dyn Layer + Send + Sync>>,
}

impl Sequential {
    /// Without layers it passes its input on.
    pub fn new() -> Sequential {
        Sequential::default()
    }

    /// Appends a layer.
    #[allow(clippy::should_implement_trait)]
    pub fn add(mut self, layer: impl Layer + Send + Sync + 'static) -> Sequential {
        self.layers.push(Box::new(layer));
        self
    }

    /// Number of layers.
    pub fn len(&self) -> usize {
        self.layers.len()
    }

    /// Whether there are no layers.
    pub fn is_empty(&self) -> bool {
        self.layers.is_empty()
    }
}

// Paths are `0.weight`, as in PyTorch, without the name of the list.
impl Module for Sequential {
    fn visit(&self, v: &mut dyn Visit) {
        self.layers.visit(v);
    }
    fn visit_mut(&mut self, v: &mut dyn VisitMut) {
        self.layers.visit_mut(v);
    }
}

impl Layer for Sequential {
    #[track_caller]
    fn forward(&self, x: &Tensor) -> Tensor {
        self.layers.iter().fold(x.clone(), |x, l| l.forward(&x))
    }
}
