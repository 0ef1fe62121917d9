//! What the tests share: reading reference tables, comparing numbers.

mod close;
mod layout;
mod table;

pub use close::{Tolerance, assert_close, compare};
pub use layout::scattered;
pub use table::{Case, Table};
