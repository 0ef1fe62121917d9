//! `sinter demo`. The main job: train, compile, ship, compare.

/// Train the MNIST network eagerly, compile it, ship it, compare.
#[derive(Debug, clap::Args)]
pub struct Args {}

/// Does it.
pub fn run(_args: &Args) -> anyhow::Result<()> {
    anyhow::bail!("to come")
}
