//! The command `sinter-run`: loads, runs and verifies artifacts.

use std::process::ExitCode;

fn main() -> ExitCode {
    // A mistake of ours ends the program, whichever thread it is on, as any other
    // error does: one line, and a status that says so.
    std::panic::set_hook(Box::new(|why| {
        eprintln!("error: internal error: {}", why.to_string().replace('\n', " "));
        std::process::exit(1);
    }));
    sinter_run::main(std::env::args_os().skip(1))
}
