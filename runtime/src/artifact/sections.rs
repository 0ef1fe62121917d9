//! The file itself: sections, checksums, reading and writing.

use super::{ArtifactError, FORMAT_VERSION};
use crate::program::{ABI_VERSION, Program};
use crate::{Array, npy};
use serde::{Deserialize, Serialize};
use sinter_kernels::isa::Isa;
use sinter_kernels::mem::Block;
use std::path::Path;
use std::sync::{Arc, OnceLock};

const MAGIC: &[u8; 8] = b"SINTER\r\n";
const HEADER: usize = 32;
const ENTRY: usize = 32;
/// Sections start on such a boundary; constants on a page.
const ALIGN: usize = 64;
const PAGE: usize = 4096;
/// More sections than any artifact has.
const MOST_SECTIONS: usize = 64;

/// What a section holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u32)]
pub enum SectionKind {
    /// The plan and the machine's architecture.
    Program = 1,
    /// An object file; the detail is its instruction-set level.
    Code = 2,
    /// Weights and other constants.
    Constants = 3,
    /// Inputs with the outputs they must give.
    Sample = 4,
    /// The graph before fusion, as text.
    Source = 5,
    /// The graph after fusion, as text.
    Graph = 6,
    /// The compiler's report, as JSON.
    Report = 7,
}

impl SectionKind {
    fn from_number(n: u32) -> Option<SectionKind> {
        use SectionKind::*;
        [Program, Code, Constants, Sample, Source, Graph, Report]
            .into_iter()
            .find(|k| *k as u32 == n)
    }

    /// The name in listings.
    pub fn name(self) -> &'static str {
        match self {
            SectionKind::Program => "program",
            SectionKind::Code => "code",
            SectionKind::Constants => "constants",
            SectionKind::Sample => "sample",
            SectionKind::Source => "source graph",
            SectionKind::Graph => "graph",
            SectionKind::Report => "report",
        }
    }
}

/// One section of a file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Section {
    /// What it holds.
    pub kind: SectionKind,
    /// More about it: of code, the instruction-set level.
    pub detail: u64,
    /// First byte.
    pub offset: usize,
    /// Number of bytes.
    pub len: usize,
}

/// Inputs, the outputs that eager execution gave for them, and how far a machine
/// may be off, relative to the largest output.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Sample {
    inputs: Vec<Vec<u8>>,
    outputs: Vec<Vec<u8>>,
    /// Largest allowed error, relative to the outputs' largest magnitude.
    pub tolerance: f64,
}

impl Sample {
    /// A sample of these arrays.
    pub fn new(inputs: &[Array], outputs: &[Array], tolerance: f64) -> Sample {
        let files = |a: &[Array]| a.iter().map(npy::encode).collect();
        Sample { inputs: files(inputs), outputs: files(outputs), tolerance }
    }

    /// The inputs.
    ///
    /// # Errors
    /// When they are damaged.
    pub fn inputs(&self) -> Result<Vec<Array>, ArtifactError> {
        self.inputs.iter().map(|f| npy::decode(f).map_err(ArtifactError::Format)).collect()
    }

    /// The outputs.
    ///
    /// # Errors
    /// When they are damaged.
    pub fn outputs(&self) -> Result<Vec<Array>, ArtifactError> {
        self.outputs.iter().map(|f| npy::decode(f).map_err(ArtifactError::Format)).collect()
    }
}

#[derive(Serialize, Deserialize)]
struct ProgramSection {
    architecture: String,
    program: Program,
}

/// A validated artifact file.
pub struct Artifact {
    bytes: Arc<dyn AsRef<[u8]> + Send + Sync>,
    sections: Vec<Section>,
    program: OnceLock<ProgramSection>,
}

impl std::fmt::Debug for Artifact {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Artifact({} sections)", self.sections.len())
    }
}

/// Part of a file's memory, as the owner of a block.
struct Part {
    whole: Arc<dyn AsRef<[u8]> + Send + Sync>,
    range: std::ops::Range<usize>,
}

impl AsRef<[u8]> for Part {
    fn as_ref(&self) -> &[u8] {
        &(*self.whole).as_ref()[self.range.clone()]
    }
}

fn u32_at(b: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(b[at..at + 4].try_into().expect("four bytes"))
}

fn u64_at(b: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(b[at..at + 8].try_into().expect("eight bytes"))
}

fn header_crc(b: &[u8], end: usize) -> u32 {
    let mut h = crc32fast::Hasher::new();
    h.update(&b[..28]);
    h.update(&[0; 4]);
    h.update(&b[HEADER..end]);
    h.finalize()
}

impl Artifact {
    /// Maps a file and validates it.
    ///
    /// # Errors
    /// When it is missing, damaged, or of a newer version.
    #[allow(unsafe_code)]
    pub fn open(path: impl AsRef<Path>) -> Result<Artifact, ArtifactError> {
        let path = path.as_ref();
        let system = |source| ArtifactError::System { path: path.to_path_buf(), source };
        let file = std::fs::File::open(path).map_err(system)?;
        let meta = file.metadata().map_err(system)?;
        if !meta.is_file() {
            return Err(ArtifactError::format(format!("{} is no regular file", path.display())));
        }
        if meta.len() < HEADER as u64 {
            return Err(ArtifactError::format(format!(
                "{} has {} bytes, a header has {HEADER}",
                path.display(),
                meta.len()
            )));
        }
        // SAFETY: the mapping is read-only and private; the documentation asks that
        // the file stays as it is while it is used.
        let map = unsafe { memmap2::Mmap::map(&file) }.map_err(system)?;
        Artifact::parse(Arc::new(map)).map_err(|e| match e {
            ArtifactError::Format(why) => {
                ArtifactError::Format(format!("{}: {why}", path.display()))
            }
            e => e,
        })
    }

    /// Validates an artifact in memory.
    ///
    /// # Errors
    /// As [`Artifact::open`].
    pub fn from_bytes(bytes: Vec<u8>) -> Result<Artifact, ArtifactError> {
        Artifact::parse(Arc::new(bytes))
    }

    fn parse(bytes: Arc<dyn AsRef<[u8]> + Send + Sync>) -> Result<Artifact, ArtifactError> {
        let b = (*bytes).as_ref();
        let fail = |why: String| Err(ArtifactError::Format(why));
        if b.len() < HEADER || &b[..8] != MAGIC {
            return fail("the magic bytes are missing".into());
        }
        let version = |what, at, known| match u32_at(b, at) {
            v if v > known => Err(ArtifactError::Version { what, got: v, known }),
            0 => Err(ArtifactError::format(format!("{what} version 0"))),
            _ => Ok(()),
        };
        let count = u32_at(b, 24) as usize;
        let end = HEADER + count.min(MOST_SECTIONS + 1) * ENTRY;
        // A newer version explains everything else, unless the bytes are damaged.
        let intact = count <= MOST_SECTIONS && b.len() >= end && header_crc(b, end) == u32_at(b, 28);
        if !intact {
            return fail("the header is damaged (its checksum does not match)".into());
        }
        version("format", 8, FORMAT_VERSION)?;
        version("ABI", 12, ABI_VERSION)?;
        if u64_at(b, 16) != b.len() as u64 {
            return fail(format!("it should have {} bytes and has {}", u64_at(b, 16), b.len()));
        }
        let mut sections: Vec<Section> = Vec::new();
        let mut at = end;
        for i in 0..count {
            let e = HEADER + i * ENTRY;
            let Some(kind) = SectionKind::from_number(u32_at(b, e)) else {
                return fail(format!("section {i} is of unknown kind {}", u32_at(b, e)));
            };
            let (offset, len) = (u64_at(b, e + 8), u64_at(b, e + 16));
            let inside = offset >= at as u64
                && offset.checked_add(len).is_some_and(|x| x <= b.len() as u64);
            if !inside {
                return fail(format!("section {i} lies at {offset} with {len} bytes: outside the file or out of order"));
            }
            let (offset, len) = (offset as usize, len as usize);
            if b[at..offset].iter().any(|&p| p != 0) {
                return fail(format!("the padding before section {i} is not zero"));
            }
            if crc32fast::hash(&b[offset..offset + len]) != u32_at(b, e + 4) {
                return fail(format!("section {i} ({}) is damaged", kind.name()));
            }
            sections.push(Section { kind, detail: u64_at(b, e + 24), offset, len });
            at = offset + len;
        }
        if b[at..].iter().any(|&p| p != 0) {
            return fail("there is something behind the last section".into());
        }
        Ok(Artifact { bytes, sections, program: OnceLock::new() })
    }

    /// The sections, in the order of the file.
    pub fn sections(&self) -> &[Section] {
        &self.sections
    }

    /// Size of the file in bytes.
    pub fn len(&self) -> usize {
        (*self.bytes).as_ref().len()
    }

    /// Whether the file is empty; a valid one never is.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The bytes of a section.
    pub fn bytes(&self, s: &Section) -> &[u8] {
        &(*self.bytes).as_ref()[s.offset..s.offset + s.len]
    }

    fn find(&self, kind: SectionKind) -> Option<&Section> {
        self.sections.iter().find(|s| s.kind == kind)
    }

    fn program_section(&self) -> Result<&ProgramSection, ArtifactError> {
        if let Some(p) = self.program.get() {
            return Ok(p);
        }
        let s = self
            .find(SectionKind::Program)
            .ok_or_else(|| ArtifactError::format("there is no program"))?;
        let p = postcard::from_bytes(self.bytes(s))
            .map_err(|e| ArtifactError::format(format!("the program cannot be read: {e}")))?;
        Ok(self.program.get_or_init(|| p))
    }

    /// The plan.
    ///
    /// # Errors
    /// When there is none, or it cannot be read.
    pub fn program(&self) -> Result<&Program, ArtifactError> {
        Ok(&self.program_section()?.program)
    }

    /// The processor architecture of the code.
    pub fn architecture(&self) -> String {
        self.program_section().map_or_else(|_| "unknown".to_string(), |p| p.architecture.clone())
    }

    pub(super) fn architecture_fits(&self) -> bool {
        self.architecture() == std::env::consts::ARCH
    }

    /// The constants, shared with the file.
    ///
    /// # Errors
    /// When there are none.
    pub fn constants(&self) -> Result<Block, ArtifactError> {
        let s = self
            .find(SectionKind::Constants)
            .ok_or_else(|| ArtifactError::format("there are no constants"))?;
        let range = s.offset..s.offset + s.len;
        let part = Part { whole: self.bytes.clone(), range };
        if !part.as_ref().as_ptr().cast::<[u64; 8]>().cast::<u64>().is_aligned() {
            // A file in ordinary memory need not start on a page.
            let copy = Block::try_new(s.len).map_err(|e| ArtifactError::format(e.to_string()))?;
            copy.write(part.as_ref());
            return Ok(copy);
        }
        Ok(Block::from_owner(part))
    }

    /// The sample, if there is one.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn sample(&self) -> Result<Option<Sample>, ArtifactError> {
        let Some(s) = self.find(SectionKind::Sample) else { return Ok(None) };
        postcard::from_bytes(self.bytes(s))
            .map(Some)
            .map_err(|e| ArtifactError::format(format!("the sample cannot be read: {e}")))
    }

    /// A text section, if there is one.
    pub fn text(&self, kind: SectionKind) -> Option<&str> {
        std::str::from_utf8(self.bytes(self.find(kind)?)).ok()
    }

    /// Puts a file together.
    ///
    /// # Errors
    /// When the plan cannot be written.
    pub fn assemble(
        program: &Program,
        code: &[(Isa, Vec<u8>)],
        constants: &[u8],
        sample: Option<&Sample>,
        texts: &[(SectionKind, &str)],
    ) -> Result<Vec<u8>, ArtifactError> {
        let fail = |e: postcard::Error| ArtifactError::format(e.to_string());
        let head = ProgramSection {
            architecture: std::env::consts::ARCH.to_string(),
            program: program.clone(),
        };
        let mut parts: Vec<(SectionKind, u64, std::borrow::Cow<'_, [u8]>)> =
            vec![(SectionKind::Program, 0, postcard::to_stdvec(&head).map_err(fail)?.into())];
        for (isa, object) in code {
            parts.push((SectionKind::Code, *isa as u64, object.as_slice().into()));
        }
        if let Some(s) = sample {
            parts.push((SectionKind::Sample, 0, postcard::to_stdvec(s).map_err(fail)?.into()));
        }
        for (kind, text) in texts {
            parts.push((*kind, 0, text.as_bytes().into()));
        }
        parts.push((SectionKind::Constants, 0, constants.into()));
        let end = HEADER + parts.len() * ENTRY;
        let mut out = vec![0u8; end];
        for (i, (kind, detail, data)) in parts.iter().enumerate() {
            let align = if *kind == SectionKind::Constants { PAGE } else { ALIGN };
            out.resize(out.len().next_multiple_of(align), 0);
            let offset = out.len();
            out.extend_from_slice(data);
            let e = HEADER + i * ENTRY;
            out[e..e + 4].copy_from_slice(&(*kind as u32).to_le_bytes());
            out[e + 4..e + 8].copy_from_slice(&crc32fast::hash(data).to_le_bytes());
            out[e + 8..e + 16].copy_from_slice(&(offset as u64).to_le_bytes());
            out[e + 16..e + 24].copy_from_slice(&(data.len() as u64).to_le_bytes());
            out[e + 24..e + 32].copy_from_slice(&detail.to_le_bytes());
        }
        let len = out.len() as u64;
        out[..8].copy_from_slice(MAGIC);
        out[8..12].copy_from_slice(&FORMAT_VERSION.to_le_bytes());
        out[12..16].copy_from_slice(&ABI_VERSION.to_le_bytes());
        out[16..24].copy_from_slice(&len.to_le_bytes());
        out[24..28].copy_from_slice(&(parts.len() as u32).to_le_bytes());
        let crc = header_crc(&out, end);
        out[28..32].copy_from_slice(&crc.to_le_bytes());
        Ok(out)
    }
}
