//! The images: the committed MNIST, or any data set in its format.

use anyhow::{Context, bail};
use sinter::data::{Dataset, Mnist};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A data set in its two parts.
pub struct Data {
    /// What is learned from.
    pub train: Arc<Mnist>,
    /// What the result is tested on.
    pub test: Mnist,
    /// Where it came from.
    pub dir: PathBuf,
}

/// The committed files, relative to this crate's sources.
const COMMITTED: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../data/mnist");

/// Smallest height and width: two 3×3 convolutions and a 2×2 pooling leave one pixel.
const SMALLEST: usize = 6;

impl Data {
    /// Reads the data set in `dir`, or the committed one, whose files must be
    /// exactly MNIST's. With a `limit`, only so many images of each part are kept.
    pub fn load(dir: Option<&Path>, limit: Option<usize>) -> anyhow::Result<Data> {
        let part = |train: bool| match dir {
            Some(d) => Mnist::load_any(d, train).context("reading the data set"),
            None => Mnist::load(COMMITTED, train)
                .context("reading the MNIST files of the source tree (`--data DIR` takes others)"),
        };
        let (mut train, mut test) = (part(true)?, part(false)?);
        if let Some(n) = limit {
            train.truncate(n);
            test.truncate(n);
        }
        let dir = dir.unwrap_or(Path::new(COMMITTED));
        let dir = dir.canonicalize().unwrap_or_else(|_| dir.to_path_buf());
        let (a, b) = (train.size(), test.size());
        if a != b {
            bail!("{}: training images are {a:?} pixels, test images {b:?}", dir.display());
        }
        if a.iter().any(|&n| n < SMALLEST) {
            bail!(
                "{}: images are {a:?} pixels, the network needs at least {SMALLEST} each way",
                dir.display()
            );
        }
        if train.is_empty() || test.is_empty() {
            bail!("{}: there are no images", dir.display());
        }
        Ok(Data { train: Arc::new(train), test, dir })
    }

    /// Number of classes.
    pub fn classes(&self) -> usize {
        self.train.classes().max(self.test.classes())
    }

    /// Height and width of the images.
    pub fn size(&self) -> [usize; 2] {
        self.train.size()
    }

    /// Tells one data set from another: a checkpoint goes on with the one it began
    /// with.
    pub fn fingerprint(&self) -> u32 {
        let mut h = crc32fast::Hasher::new();
        for part in [&*self.train, &self.test] {
            h.update(&(part.len() as u64).to_le_bytes());
            for i in 0..part.len() {
                h.update(part.pixels(i));
                h.update(&[part.label(i)]);
            }
        }
        h.finalize()
    }
}
