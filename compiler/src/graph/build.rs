//! Building graphs by hand and by decomposition.

use super::{Graph, Origin, Value};
use sinter_runtime::op::{Build, TensorType};
use sinter_runtime::{Dim, Op, OpError};

/// Adds ops to a graph, all with one origin.
pub struct Builder<'a> {
    /// The graph.
    pub graph: &'a mut Graph,
    /// Where the new nodes come from.
    pub origin: Origin,
}

impl<'a> Builder<'a> {
    /// A builder whose nodes come from nowhere in particular.
    pub fn new(graph: &'a mut Graph) -> Builder<'a> {
        Builder { graph, origin: Origin::default() }
    }
}

impl Build for Builder<'_> {
    type Dim = Dim;
    type Value = Value;

    fn op(&mut self, op: Op<Dim>, inputs: &[Value]) -> Result<Value, OpError> {
        let node = self.graph.add_op(op, inputs, self.origin.clone())?;
        Ok(Value { node, output: 0 })
    }

    fn type_of(&self, v: &Value) -> TensorType<Dim> {
        self.graph.type_of(*v).clone()
    }
}
