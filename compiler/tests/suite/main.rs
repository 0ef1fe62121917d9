//! The compiler, tested as a whole: every op and random graphs, compiled every way
//! there is, and what becomes of small graphs, for people to read.

mod artifacts;
mod common;
#[cfg(feature = "mlir")]
mod cuda;
mod every_op;
mod images;
mod int8;
mod random_graphs;
mod snapshots;
mod tuning;
mod updates;
