//! Artifacts: a compiled program in one file.
//!
//! ```text
//! offset 0   "SINTER\r\n"
//!        8   u32 format version        12  u32 ABI version
//!       16   u64 length of the file    24  u32 number of sections
//!       28   u32 CRC-32 of header and table, this field taken as 0
//!       32   table: { u32 kind, u32 CRC-32, u64 offset, u64 length, u64 detail }
//! ```
//!
//! Numbers are little endian; padding before a section is zero, behind the last
//! there is none. Every byte of the file is covered by a checksum or known, so
//! damage is always found: the header's and the table's when the file is opened, a
//! section's (with the padding before it) when it is first used. Loading uses the
//! program, its code and its constants; [`Artifact::verify`] checks everything.
//! Constants start on a page, so that a mapped file is used in place.
//!
//! An artifact holds machine code. The checksums find accidents, not malice: run
//! only artifacts you would run as programs.

mod elf;
mod sections;
mod verify;

pub use sections::{Artifact, Sample, Section, SectionKind};
pub use verify::{SampleCheck, Verification, relative_error};

use crate::program::{Model, ModelError, RunError};
use sinter_kernels::isa::{self, Isa};
use std::path::{Path, PathBuf};
use thiserror::Error;

/// Version of the file format.
pub const FORMAT_VERSION: u32 = 4;

/// Why an artifact cannot be used.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ArtifactError {
    /// The operating system's complaint.
    #[error("{}: {source}", path.display())]
    System {
        /// The file.
        path: PathBuf,
        /// The complaint.
        source: std::io::Error,
    },
    /// Not an artifact, or a damaged one.
    #[error("{} is not a valid artifact: {reason}", path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// What was found and what was expected.
        reason: String,
    },
    /// Made by a newer version.
    #[error(
        "{} has {what} version {got}, this program understands up to {known}; update it",
        path.display()
    )]
    Version {
        /// The file.
        path: PathBuf,
        /// `format` or `ABI`.
        what: &'static str,
        /// The artifact's version.
        got: u32,
        /// The newest version known.
        known: u32,
    },
    /// No code for this machine.
    #[error("{} has code for {available}, this machine has {machine}", path.display())]
    Machine {
        /// The file.
        path: PathBuf,
        /// Levels in the artifact.
        available: String,
        /// This machine's level.
        machine: String,
    },
    /// The parts do not fit each other.
    #[error("{}: {source}", path.display())]
    Model {
        /// The file.
        path: PathBuf,
        /// What contradicts what.
        source: ModelError,
    },
    /// The sample cannot be run.
    #[error("{}: running the sample: {source}", path.display())]
    Sample {
        /// The file.
        path: PathBuf,
        /// Why.
        source: RunError,
    },
}

/// Opens an artifact, validates what running it needs and makes it ready to run.
///
/// The file is mapped, not copied: it must not be changed or cut while the model
/// is in use.
///
/// ```no_run
/// use sinter_runtime::{Array, artifact};
///
/// let model = artifact::load("mlp.sinter")?;
/// let x = Array::from_slice(&[0f32; 784], &[1, 784])?;
/// let y = model.run(&[&x])?;
/// println!("{}: {:?}", model.program().signature(), y[0].to_vec::<f32>());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// When the file is missing, damaged, of a newer version, or has no code for this
/// machine.
pub fn load(path: impl AsRef<Path>) -> Result<Model, ArtifactError> {
    Artifact::open(path)?.model()
}

impl Artifact {
    /// Makes the program ready to run, with the best code this machine can execute.
    ///
    /// # Errors
    /// When a part is damaged, there is no code for this machine, or the parts do
    /// not fit.
    pub fn model(&self) -> Result<Model, ArtifactError> {
        self.model_at(isa::active())
    }

    /// Makes the program ready to run, with the best code up to `level`.
    ///
    /// # Errors
    /// As [`Artifact::model`].
    pub fn model_at(&self, level: Isa) -> Result<Model, ArtifactError> {
        let here = level.min(isa::detect());
        let best = self.levels().into_iter().rev().find(|l| l.0 <= here);
        let architecture = self.architecture()?;
        let Some((_, section)) = best.filter(|_| architecture == std::env::consts::ARCH) else {
            let names: Vec<&str> = self.levels().iter().map(|l| l.0.name()).collect();
            return Err(ArtifactError::Machine {
                path: self.path().to_path_buf(),
                available: format!("{architecture} ({})", names.join(", ")),
                machine: format!("{} ({})", std::env::consts::ARCH, here.name()),
            });
        };
        let code = elf::load(self.bytes(section)?)
            .map_err(|why| self.damaged(format!("code for {}: {why}", here.name())))?;
        Model::new(self.program()?.clone(), code, self.constants()?)
            .map_err(|source| ArtifactError::Model { path: self.path().to_path_buf(), source })
    }

    /// The instruction-set levels there is code for, lowest first.
    pub fn levels(&self) -> Vec<(Isa, &Section)> {
        let mut levels: Vec<(Isa, &Section)> =
            self.sections().iter().filter_map(|s| Some((s.level()?, s))).collect();
        levels.sort_by_key(|l| l.0);
        levels
    }
}

impl Section {
    /// Of code: the instruction-set level it is for.
    pub fn level(&self) -> Option<Isa> {
        let level = Isa::ALL.into_iter().find(|i| *i as u64 == self.detail)?;
        (self.kind == SectionKind::Code).then_some(level)
    }
}
