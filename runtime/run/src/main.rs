//! The command `sinter-run`: loads, runs and verifies artifacts.

use std::process::ExitCode;

fn main() -> ExitCode {
    sinter_run::main(std::env::args_os().skip(1))
}
