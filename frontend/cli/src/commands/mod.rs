//! One module for each command.

pub mod bench;
pub mod compile;
pub mod demo;
pub mod inspect;
pub mod run;
pub mod verify;
