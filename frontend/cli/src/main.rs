//! The command `sinter`: train, compile, run, look inside, measure.

mod commands;

use clap::{Parser, Subcommand};
use commands::{bench, compile, demo, inspect, run, verify};
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
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let done = match cli.command.unwrap_or(Command::Demo(cli.demo)) {
        Command::Demo(args) => demo::run(&args),
        Command::Compile(args) => compile::run(&args),
        Command::Run(args) => run::run(&args),
        Command::Inspect(args) => inspect::run(&args),
        Command::Verify(args) => verify::run(&args),
        Command::Bench(args) => bench::run(&args),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("error: {e:#}");
            ExitCode::FAILURE
        }
    }
}
