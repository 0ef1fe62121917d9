//! What the tests share: reading reference tables, comparing numbers.

mod close;
mod table;

pub use close::{Tolerance, assert_close, compare};
pub use table::{Case, Table};
