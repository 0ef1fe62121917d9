//! `sinter run`. Running artifacts.

/// Run an artifact on inputs from files.
#[derive(Debug, clap::Args)]
pub struct Args {}

/// Does it.
pub fn run(_args: &Args) -> anyhow::Result<()> {
    anyhow::bail!("to come")
}
