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
//! Numbers are little endian; padding between sections is zero. Every byte of the
//! file is covered by a checksum or known, so damage is always found. Constants
//! start on a page, so that a mapped file is used in place.
//!
//! An artifact holds machine code. The checksums find accidents, not malice: run
//! only artifacts you would run as programs.

mod elf;
mod sections;

pub use sections::{Artifact, Sample, Section, SectionKind};

use crate::program::{Model, ModelError};
use sinter_kernels::isa::{self, Isa};
use std::path::{Path, PathBuf};
use thiserror::Error;

/// Version of the file format.
pub const FORMAT_VERSION: u32 = 1;

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
    #[error("not a valid artifact: {0}")]
    Format(String),
    /// Made by a newer version.
    #[error("the artifact has {what} version {got}, this program understands up to {known}; update it")]
    Version {
        /// `format` or `ABI`.
        what: &'static str,
        /// The artifact's version.
        got: u32,
        /// The newest version known.
        known: u32,
    },
    /// No code for this machine.
    #[error("the artifact has code for {available}, this machine has {machine}")]
    Machine {
        /// Levels in the artifact.
        available: String,
        /// This machine's level.
        machine: String,
    },
    /// The parts do not fit each other.
    #[error(transparent)]
    Model(#[from] ModelError),
}

impl ArtifactError {
    fn format(why: impl Into<String>) -> ArtifactError {
        ArtifactError::Format(why.into())
    }
}

/// Opens an artifact, validates all of it and makes it ready to run.
///
/// The file is mapped, not copied: it must not be changed or cut while the model
/// is in use.
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
    /// When there is no code for this machine, or the parts do not fit.
    pub fn model(&self) -> Result<Model, ArtifactError> {
        let here = isa::active();
        let mut levels: Vec<(Isa, &Section)> = self
            .sections()
            .iter()
            .filter(|s| s.kind == SectionKind::Code)
            .filter_map(|s| Some((level(s.detail)?, s)))
            .collect();
        levels.sort_by_key(|l| l.0);
        let best = levels.iter().rev().find(|l| l.0 <= here);
        let Some((_, section)) = best.filter(|_| self.architecture_fits()) else {
            let names: Vec<&str> = levels.iter().map(|l| l.0.name()).collect();
            return Err(ArtifactError::Machine {
                available: format!("{} ({})", self.architecture(), names.join(", ")),
                machine: format!("{} ({})", std::env::consts::ARCH, here.name()),
            });
        };
        let code = elf::load(self.bytes(section), &self.program()?.name)?;
        Ok(Model::new(self.program()?.clone(), code, self.constants()?)?)
    }
}

/// The instruction-set level a code section is for.
fn level(detail: u64) -> Option<Isa> {
    [Isa::Baseline, Isa::Avx2, Isa::Avx512].into_iter().find(|i| *i as u64 == detail)
}
