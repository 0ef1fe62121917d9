//! Batches: one op in place of many that differ in their data alone.
//!
//! [`rules`] says for every op of the vocabulary what it is on operands with a further
//! first dimension. [`vmap`](fn@vmap) runs a function written for one element on
//! tensors that stand for a whole batch. [`autobatch`](fn@autobatch) finds batches in
//! code that runs on one instance after the other.

mod auto;
mod rules;
mod vmap;

pub(crate) use auto::{Deferred, before_write, defer, resolved, value};
pub use auto::{Resolve, autobatch};
pub use vmap::{Randomness, Vmap, vmap};
pub(crate) use vmap::{apply_batched, draw, expand, in_place_batched, no_data, unwrap, wrap};
