//! MNIST and data sets in its format.

use super::Dataset;
use crate::io::{IoError, idx};
use crate::tensor::{Tensor, from_slice};
use sha2::{Digest, Sha256};
use sinter_runtime::DType;
use std::path::{Path, PathBuf};
use thiserror::Error;

/// Why a data set could not be loaded.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum MnistError {
    /// A file is missing, unreadable or not IDX.
    #[error(transparent)]
    File(#[from] IoError),
    /// A file is not the one it should be.
    #[error("{}: SHA-256 of the unpacked file is {got}, expected {want}: the file is damaged or not MNIST", path.display())]
    Checksum {
        /// The file.
        path: PathBuf,
        /// Its sum.
        got: String,
        /// The sum of MNIST's file.
        want: &'static str,
    },
    /// Images and labels do not belong together, or a label is no class.
    #[error("{}: {reason}", path.display())]
    Content {
        /// The folder or file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
}

/// File names without `.gz`, and the sums of MNIST's unpacked files.
const FILES: [[(&str, &str); 2]; 2] = [
    [
        (
            "train-images-idx3-ubyte",
            "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
        ),
        (
            "train-labels-idx1-ubyte",
            "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
        ),
    ],
    [
        (
            "t10k-images-idx3-ubyte",
            "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
        ),
        (
            "t10k-labels-idx1-ubyte",
            "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
        ),
    ],
];

/// Images of one channel with class labels, from IDX files.
///
/// A sample is the image [1, H, W] in f32, standardised with MNIST's mean 0.1307
/// and standard deviation 0.3081, and its label.
#[derive(Debug, Clone)]
pub struct Mnist {
    /// [N, H, W]
    images: Vec<u8>,
    size: [usize; 2],
    labels: Vec<u8>,
}

/// Mean and standard deviation of MNIST's training pixels, from 0 to 1.
const MEAN: f32 = 0.1307;
const STD: f32 = 0.3081;

impl Mnist {
    /// The training or test part of MNIST in a folder, verified by SHA-256.
    ///
    /// # Errors
    /// When a file is missing, damaged or not MNIST's.
    pub fn load(dir: impl AsRef<Path>, train: bool) -> Result<Mnist, MnistError> {
        Mnist::from_folder(dir.as_ref(), train, true)
    }

    /// The training or test part of any data set in MNIST's files and format (such
    /// as Fashion-MNIST).
    ///
    /// # Errors
    /// When a file is missing or damaged, or images and labels do not belong
    /// together.
    pub fn load_any(dir: impl AsRef<Path>, train: bool) -> Result<Mnist, MnistError> {
        Mnist::from_folder(dir.as_ref(), train, false)
    }

    fn from_folder(dir: &Path, train: bool, verify: bool) -> Result<Mnist, MnistError> {
        let [images, labels] = FILES[usize::from(!train)];
        let read = |(name, want): (&str, &'static str)| -> Result<(PathBuf, idx::Idx), MnistError> {
            let zipped = dir.join(format!("{name}.gz"));
            let path = if zipped.exists() { zipped } else { dir.join(name) };
            let bytes = idx::read_unpacked(&path)?;
            if verify {
                let got: String =
                    Sha256::digest(&bytes).iter().map(|b| format!("{b:02x}")).collect();
                if got != want {
                    return Err(MnistError::Checksum { path, got, want });
                }
            }
            let data = idx::parse(&bytes).map_err(|e| IoError::format(&path, e))?;
            Ok((path, data))
        };
        let (image_path, images) = read(images)?;
        let (label_path, labels) = read(labels)?;
        let content =
            |path: &Path, reason: String| MnistError::Content { path: path.to_path_buf(), reason };
        let &[n, h, w] = images.shape.as_slice() else {
            let reason =
                format!("images have shape {:?}, expected [number, height, width]", images.shape);
            return Err(content(&image_path, reason));
        };
        if labels.shape != [n] {
            let reason = format!("labels have shape {:?}, but there are {n} images", labels.shape);
            return Err(content(&label_path, reason));
        }
        Ok(Mnist { images: images.data, size: [h, w], labels: labels.data })
    }

    /// Keeps the first `n` images.
    pub fn truncate(&mut self, n: usize) {
        self.images.truncate(n.saturating_mul(self.size[0] * self.size[1]));
        self.labels.truncate(n);
    }

    /// Height and width of the images.
    pub fn size(&self) -> [usize; 2] {
        self.size
    }

    /// Number of classes: one more than the largest label.
    pub fn classes(&self) -> usize {
        self.labels.iter().max().map_or(0, |&m| m as usize + 1)
    }

    /// The pixels of image `i`, 0 to 255.
    pub fn pixels(&self, i: usize) -> &[u8] {
        let n = self.size[0] * self.size[1];
        &self.images[i * n..(i + 1) * n]
    }

    /// The label of image `i`.
    pub fn label(&self, i: usize) -> u8 {
        self.labels[i]
    }

    /// Standardised images [n, 1, H, W] with numbers `range`, as a model takes them.
    pub fn images(&self, range: std::ops::Range<usize>) -> Tensor {
        let n = self.size[0] * self.size[1];
        standardised(&self.images[range.start * n..range.end * n], range.len(), self.size)
    }

    /// Labels `[n]` with numbers `range`, as i64.
    pub fn labels(&self, range: std::ops::Range<usize>) -> Tensor {
        let l = &self.labels[range];
        from_slice(l, [l.len()]).to_dtype(DType::I64)
    }
}

/// Bytes 0..255 as standardised f32 images [n, 1, H, W].
pub(crate) fn standardised(pixels: &[u8], n: usize, [h, w]: [usize; 2]) -> Tensor {
    let values: Vec<f32> = pixels.iter().map(|&p| (f32::from(p) / 255.0 - MEAN) / STD).collect();
    from_slice(&values, [n, 1, h, w])
}

impl Dataset for Mnist {
    type Sample = (Tensor, i64);

    fn len(&self) -> usize {
        self.labels.len()
    }

    fn get(&self, i: usize) -> (Tensor, i64) {
        (self.images(i..i + 1).squeeze(0), i64::from(self.labels[i]))
    }
}
