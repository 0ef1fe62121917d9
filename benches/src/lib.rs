//! What Sinter claims about its speed, measured.
//!
//! Times on shared machines are noisy: candidates are timed in turns within one
//! run, and medians are compared. Beside wall time stands CPU time, which for one
//! thread does not count what somebody else did on the core.

pub mod eager;
pub mod memory;
pub mod race;
mod timing;

pub use timing::{Candidate, Stats, cpu_time, interleaved};
