//! Files: tensors in safetensors, NumPy and IDX form.
//!
//! Every reader checks sizes against the file before it allocates, returns a typed
//! error that names the file, and executes nothing. Every writer leaves either the
//! whole file or none.

mod checkpoint;
pub mod idx;
pub mod npy;
pub mod safetensors;

pub use checkpoint::Checkpoint;

use std::path::PathBuf;
use thiserror::Error;

/// Why a file could not be read or written.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum IoError {
    /// The operating system's complaint.
    #[error("{}: {source}", path.display())]
    System {
        /// The file.
        path: PathBuf,
        /// The complaint.
        source: std::io::Error,
    },
    /// The file is not what it should be.
    #[error("{}: {reason}", path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// What was found and what was expected.
        reason: String,
    },
}

impl IoError {
    pub(crate) fn system(path: &std::path::Path, source: std::io::Error) -> IoError {
        IoError::System { path: path.to_path_buf(), source }
    }
    pub(crate) fn format(path: &std::path::Path, reason: impl Into<String>) -> IoError {
        IoError::Format { path: path.to_path_buf(), reason: reason.into() }
    }
}

/// Reads a whole file.
pub(crate) fn read(path: &std::path::Path) -> Result<Vec<u8>, IoError> {
    std::fs::read(path).map_err(|e| IoError::system(path, e))
}

/// Writes a whole file, or leaves what was there.
pub(crate) fn write(path: &std::path::Path, bytes: &[u8]) -> Result<(), IoError> {
    sinter_runtime::file::write_atomic(path, |f| std::io::Write::write_all(f, bytes))
        .map_err(|e| IoError::system(path, e))
}
