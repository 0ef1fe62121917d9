//! The command `sinter`: train, compile, run, look inside, measure.

mod commands;

use clap::{Parser, Subcommand};
use commands::{bench, compile, demo, inspect, run, tune, verify};
use std::path::Path;
use std::process::ExitCode;

/// Experiment eagerly, ship compiled.
#[derive(Debug, Parser)]
#[command(name = "sinter", version, args_conflicts_with_subcommands = true)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    /// Without a command, the demo runs.
    #[command(flatten)]
    demo: demo::Args,
}

#[derive(Debug, Subcommand)]
enum Command {
    Demo(demo::Args),
    Compile(compile::Args),
    Run(run::Args),
    Inspect(inspect::Args),
    Verify(verify::Args),
    Bench(bench::Args),
    Tune(tune::Args),
    #[command(hide = true)]
    TimeEager(demo::measure::Args),
}

fn main() -> ExitCode {
    // Under that name this is the small program, which runs artifacts on the runtime
    // alone.
    let mut args = std::env::args_os();
    let name = args.next().unwrap_or_default();
    if Path::new(&name).file_stem().is_some_and(|n| n == "sinter-run") {
        return sinter_run::main(args);
    }
    let cli = Cli::parse();
    let done = match cli.command.unwrap_or(Command::Demo(cli.demo)) {
        Command::Demo(args) => demo::run(&args),
        Command::Compile(args) => compile::run(&args),
        Command::Run(args) => run::run(&args),
        Command::Inspect(args) => inspect::run(&args),
        Command::Verify(args) => verify::run(&args),
        Command::Bench(args) => bench::run(&args),
        Command::Tune(args) => tune::run(&args),
        Command::TimeEager(args) => demo::measure::run(&args),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("error: {}", message(&e));
            let code = if e.is::<demo::Interrupted>() { demo::EXIT_CODE } else { 1 };
            ExitCode::from(code)
        }
    }
}

/// An error and its causes in one line, each once: some errors name their cause.
fn message(e: &anyhow::Error) -> String {
    let mut out = String::new();
    for cause in e.chain().map(ToString::to_string) {
        if out.is_empty() {
            out = cause;
        } else if !out.ends_with(&cause) {
            out = format!("{out}: {cause}");
        }
    }
    out
}
