//! What measuring decided. Where it decided nothing, rules do.

use crate::graph::NodeId;
use sinter_kernels::conv::ConvKernel;
use sinter_runtime::program::Cut;
use std::collections::BTreeMap;

/// What is chosen for an op and the kernel it is part of.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Choice {
    /// Its kernel takes in none of its operands' kernels.
    pub apart: bool,
    /// Whether a composite goes to the library whole.
    pub whole: Option<bool>,
    /// How a product is cut.
    pub cut: Option<Cut>,
    /// The kernel of a convolution.
    pub filter: Option<ConvKernel>,
    /// Vectors that go through a generated loop together, at most.
    pub at_once: Option<usize>,
    /// Whether a generated loop writes past the caches.
    pub stream: Option<bool>,
}

/// The choices for a graph's ops.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Choices(BTreeMap<NodeId, Choice>);

impl Choices {
    /// Whether nothing is chosen.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// What is chosen for an op.
    pub fn of(&self, n: NodeId) -> Option<&Choice> {
        self.0.get(&n)
    }

    /// Chooses for an op.
    pub fn set(&mut self, n: NodeId, choice: Choice) {
        self.0.insert(n, choice);
    }

    /// Whether some op is to be apart from its operands.
    pub(super) fn any_apart(&self) -> bool {
        self.0.values().any(|c| c.apart)
    }

    pub(super) fn apart(&self, n: NodeId) -> bool {
        self.of(n).is_some_and(|c| c.apart)
    }

    /// The first answer that an op of a kernel gives.
    pub(super) fn first<T>(
        &self,
        nodes: &[NodeId],
        ask: impl Fn(&Choice) -> Option<T>,
    ) -> Option<T> {
        nodes.iter().filter_map(|n| self.of(*n)).find_map(ask)
    }
}
