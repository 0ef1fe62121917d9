//! `sinter compile`. Graphs to artifacts.

/// Compile a graph, or a saved artifact again, to an artifact.
#[derive(Debug, clap::Args)]
pub struct Args {}

/// Does it.
pub fn run(_args: &Args) -> anyhow::Result<()> {
    anyhow::bail!("to come")
}
