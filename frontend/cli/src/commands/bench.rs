//! `sinter bench`. Measuring artifacts.

/// Measure an artifact: fused, unfused, eager.
#[derive(Debug, clap::Args)]
pub struct Args {}

/// Does it.
pub fn run(_args: &Args) -> anyhow::Result<()> {
    anyhow::bail!("to come")
}
