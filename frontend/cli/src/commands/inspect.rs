//! `sinter inspect`. Looking inside artifacts.

/// Show what is inside an artifact.
#[derive(Debug, clap::Args)]
pub struct Args {}

/// Does it.
pub fn run(_args: &Args) -> anyhow::Result<()> {
    anyhow::bail!("to come")
}
