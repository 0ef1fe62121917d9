//! The file itself: sections, checksums, reading and writing.

use super::{ArtifactError, FORMAT_VERSION};
use crate::program::{ABI_VERSION, Program};
use crate::{Array, DType, OpError};
use serde::{Deserialize, Serialize};
use sinter_kernels::isa::Isa;
use sinter_kernels::mem::Block;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
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
    /// The constants of the source graph, in the order of its text, each at a
    /// multiple of 64 bytes.
    SourceConstants = 8,
}

impl SectionKind {
    fn from_number(n: u32) -> Option<SectionKind> {
        use SectionKind::*;
        [Program, Code, Constants, Sample, Source, Graph, Report, SourceConstants]
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
            SectionKind::SourceConstants => "source constants",
        }
    }

    /// Where its sections may start.
    fn align(self) -> usize {
        match self {
            SectionKind::Constants | SectionKind::SourceConstants => PAGE,
            _ => ALIGN,
        }
    }
}

/// One section of a file.
#[derive(Debug)]
pub struct Section {
    /// What it holds.
    pub kind: SectionKind,
    /// More about it: of code, the instruction-set level.
    pub detail: u64,
    /// First byte.
    pub offset: usize,
    /// Number of bytes.
    pub len: usize,
    crc: u32,
    /// Where the padding before it begins.
    padding: usize,
    /// Whether the padding and the checksum were found to be right.
    intact: AtomicBool,
}

/// An array in a file.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Stored {
    dtype: DType,
    shape: Vec<usize>,
    bytes: Vec<u8>,
}

/// Inputs, the outputs that eager execution gave for them, and how far a machine
/// may be off, relative to the largest output.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Sample {
    inputs: Vec<Stored>,
    outputs: Vec<Stored>,
    /// Largest allowed error, relative to the outputs' largest magnitude.
    pub tolerance: f64,
}

impl Sample {
    /// A sample of these arrays.
    pub fn new(inputs: &[Array], outputs: &[Array], tolerance: f64) -> Sample {
        let stored = |arrays: &[Array]| {
            let one = |a: &Array| Stored {
                dtype: a.dtype(),
                shape: a.shape().to_vec(),
                bytes: a.to_bytes(),
            };
            arrays.iter().map(one).collect()
        };
        Sample { inputs: stored(inputs), outputs: stored(outputs), tolerance }
    }

    /// The inputs.
    ///
    /// # Errors
    /// When one has another size than its shape says.
    pub fn inputs(&self) -> Result<Vec<Array>, OpError> {
        self.inputs.iter().map(|s| Array::from_bytes(&s.bytes, &s.shape, s.dtype)).collect()
    }

    /// The outputs.
    ///
    /// # Errors
    /// When one has another size than its shape says.
    pub fn outputs(&self) -> Result<Vec<Array>, OpError> {
        self.outputs.iter().map(|s| Array::from_bytes(&s.bytes, &s.shape, s.dtype)).collect()
    }
}

#[derive(Serialize, Deserialize)]
struct ProgramSection {
    architecture: String,
    program: Program,
}

/// An artifact file: its header is valid, its sections are checked when they are
/// first used.
///
/// ```no_run
/// use sinter_runtime::artifact::Artifact;
///
/// let artifact = Artifact::open("mlp.sinter")?;
/// println!("{}", artifact.program()?.signature());
/// for s in artifact.sections() {
///     println!("{:>10} bytes of {}", s.len, s.kind.name());
/// }
/// artifact.verify()?;
/// # Ok::<(), sinter_runtime::artifact::ArtifactError>(())
/// ```
pub struct Artifact {
    path: PathBuf,
    bytes: Arc<dyn AsRef<[u8]> + Send + Sync>,
    sections: Vec<Section>,
    program: OnceLock<ProgramSection>,
}

impl std::fmt::Debug for Artifact {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Artifact({}, {} sections)", self.path.display(), self.sections.len())
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

/// The sections that a file's header describes.
fn read_table(path: &Path, b: &[u8]) -> Result<Vec<Section>, ArtifactError> {
    let fail = |reason: String| Err(ArtifactError::Format { path: path.to_path_buf(), reason });
    if !b.starts_with(MAGIC) {
        return fail("it does not start as one".into());
    }
    if b.len() < HEADER {
        return fail(format!("it has {} bytes, a header has {HEADER}", b.len()));
    }
    let count = u32_at(b, 24) as usize;
    let end = HEADER + count.min(MOST_SECTIONS) * ENTRY;
    let intact = count <= MOST_SECTIONS && b.len() >= end && header_crc(b, end) == u32_at(b, 28);
    if !intact {
        return fail("the header is damaged (its checksum does not match)".into());
    }
    for (what, at, known) in [("format", 8, FORMAT_VERSION), ("ABI", 12, ABI_VERSION)] {
        match u32_at(b, at) {
            got if got > known => {
                let path = path.to_path_buf();
                return Err(ArtifactError::Version { path, what, got, known });
            }
            got if got < known => {
                return fail(format!("{what} version {got} is no longer supported; compile again"));
            }
            _ => {}
        }
    }
    if u64_at(b, 16) != b.len() as u64 {
        return fail(format!("it should have {} bytes and has {}", u64_at(b, 16), b.len()));
    }
    let mut sections: Vec<Section> = Vec::with_capacity(count);
    let mut at = end;
    for i in 0..count {
        let e = HEADER + i * ENTRY;
        let Some(kind) = SectionKind::from_number(u32_at(b, e)) else {
            return fail(format!("section {i} is of unknown kind {}", u32_at(b, e)));
        };
        let (offset, len, detail) = (u64_at(b, e + 8), u64_at(b, e + 16), u64_at(b, e + 24));
        let inside =
            offset >= at as u64 && offset.checked_add(len).is_some_and(|x| x <= b.len() as u64);
        if !inside {
            return fail(format!(
                "section {i} lies at {offset} with {len} bytes: outside the file or out of order"
            ));
        }
        if sections.iter().any(|s| s.kind == kind && s.detail == detail) {
            return fail(format!("there are two sections with the {}", kind.name()));
        }
        let (offset, len) = (offset as usize, len as usize);
        let (crc, intact) = (u32_at(b, e + 4), AtomicBool::new(false));
        sections.push(Section { kind, detail, offset, len, crc, padding: at, intact });
        at = offset + len;
    }
    if at != b.len() {
        return fail("there is something behind the last section".into());
    }
    Ok(sections)
}

impl Artifact {
    /// Maps a file and validates its header.
    ///
    /// # Errors
    /// When it is missing, not an artifact, damaged, or of a newer version.
    #[allow(unsafe_code)]
    pub fn open(path: impl AsRef<Path>) -> Result<Artifact, ArtifactError> {
        let path = path.as_ref();
        let system = |source| ArtifactError::System { path: path.to_path_buf(), source };
        // Asked before opening: opening a pipe would wait for somebody to write.
        if !std::fs::metadata(path).map_err(system)?.is_file() {
            return Err(ArtifactError::Format {
                path: path.to_path_buf(),
                reason: "it is no regular file".to_string(),
            });
        }
        let file = std::fs::File::open(path).map_err(system)?;
        // SAFETY: the mapping is read-only and private; the documentation asks that
        // the file stays as it is while it is used.
        let map = unsafe { memmap2::Mmap::map(&file) }.map_err(system)?;
        Artifact::parse(path.to_path_buf(), Arc::new(map))
    }

    /// Validates the header of an artifact in memory.
    ///
    /// # Errors
    /// As [`Artifact::open`].
    pub fn from_bytes(bytes: Vec<u8>) -> Result<Artifact, ArtifactError> {
        Artifact::parse(PathBuf::from("(memory)"), Arc::new(bytes))
    }

    fn parse(
        path: PathBuf,
        bytes: Arc<dyn AsRef<[u8]> + Send + Sync>,
    ) -> Result<Artifact, ArtifactError> {
        let sections = read_table(&path, (*bytes).as_ref())?;
        Ok(Artifact { path, bytes, sections, program: OnceLock::new() })
    }

    pub(super) fn damaged(&self, reason: impl Into<String>) -> ArtifactError {
        ArtifactError::Format { path: self.path.clone(), reason: reason.into() }
    }

    /// Where the file lies.
    pub fn path(&self) -> &Path {
        &self.path
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

    /// The bytes of a section, which are checked when they are asked for the first
    /// time.
    ///
    /// # Errors
    /// When they are damaged.
    pub fn bytes(&self, s: &Section) -> Result<&[u8], ArtifactError> {
        let all = (*self.bytes).as_ref();
        let bytes = &all[s.offset..s.offset + s.len];
        if !s.intact.load(Ordering::Relaxed) {
            if all[s.padding..s.offset].iter().any(|&p| p != 0) {
                return Err(
                    self.damaged(format!("the padding before the {} is not zero", s.kind.name()))
                );
            }
            if crc32fast::hash(bytes) != s.crc {
                return Err(self.damaged(format!(
                    "the {} is damaged (its checksum does not match)",
                    s.kind.name()
                )));
            }
            s.intact.store(true, Ordering::Relaxed);
        }
        Ok(bytes)
    }

    /// The first section of a kind.
    pub fn find(&self, kind: SectionKind) -> Option<&Section> {
        self.sections.iter().find(|s| s.kind == kind)
    }

    fn program_section(&self) -> Result<&ProgramSection, ArtifactError> {
        if let Some(p) = self.program.get() {
            return Ok(p);
        }
        let s = self.find(SectionKind::Program);
        let s = s.ok_or_else(|| self.damaged("there is no program"))?;
        let p = postcard::from_bytes(self.bytes(s)?)
            .map_err(|e| self.damaged(format!("the program cannot be read: {e}")))?;
        Ok(self.program.get_or_init(|| p))
    }

    /// The plan.
    ///
    /// # Errors
    /// When there is none, or it cannot be read.
    pub fn program(&self) -> Result<&Program, ArtifactError> {
        Ok(&self.program_section()?.program)
    }

    /// The processor architecture of the code, as [`std::env::consts::ARCH`].
    ///
    /// # Errors
    /// When the program cannot be read.
    pub fn architecture(&self) -> Result<&str, ArtifactError> {
        Ok(&self.program_section()?.architecture)
    }

    /// The program's constants, shared with the file.
    ///
    /// # Errors
    /// When there are none, or they are damaged.
    pub fn constants(&self) -> Result<Block, ArtifactError> {
        let s = self.find(SectionKind::Constants);
        self.block(s.ok_or_else(|| self.damaged("there are no constants"))?)
    }

    /// A section as memory that is shared with the file.
    ///
    /// # Errors
    /// When it is damaged, or has to be copied and memory runs out.
    pub fn block(&self, s: &Section) -> Result<Block, ArtifactError> {
        self.bytes(s)?;
        let part = Part { whole: self.bytes.clone(), range: s.offset..s.offset + s.len };
        if !(part.as_ref().as_ptr() as usize).is_multiple_of(ALIGN) {
            // A file in ordinary memory need not start on a page.
            let copy = Block::try_new(s.len).map_err(|e| self.damaged(e.to_string()))?;
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
        postcard::from_bytes(self.bytes(s)?)
            .map(Some)
            .map_err(|e| self.damaged(format!("the sample cannot be read: {e}")))
    }

    /// A text section, if there is one.
    ///
    /// # Errors
    /// When it is damaged or no text.
    pub fn text(&self, kind: SectionKind) -> Result<Option<&str>, ArtifactError> {
        let Some(s) = self.find(kind) else { return Ok(None) };
        std::str::from_utf8(self.bytes(s)?)
            .map(Some)
            .map_err(|_| self.damaged(format!("the {} is no text", kind.name())))
    }

    /// Puts a file together; `others` are sections that running does not need.
    pub fn assemble(
        program: &Program,
        code: &[(Isa, Vec<u8>)],
        constants: &[u8],
        sample: Option<&Sample>,
        others: &[(SectionKind, &[u8])],
    ) -> Vec<u8> {
        // Serialising into memory fails for maps and unsized lists, which these lack.
        let written = "plans and samples can be written";
        let head = ProgramSection {
            architecture: std::env::consts::ARCH.to_string(),
            program: program.clone(),
        };
        let mut parts: Vec<(SectionKind, u64, std::borrow::Cow<'_, [u8]>)> =
            vec![(SectionKind::Program, 0, postcard::to_stdvec(&head).expect(written).into())];
        for (isa, object) in code {
            parts.push((SectionKind::Code, *isa as u64, object.as_slice().into()));
        }
        if let Some(s) = sample {
            parts.push((SectionKind::Sample, 0, postcard::to_stdvec(s).expect(written).into()));
        }
        parts.push((SectionKind::Constants, 0, constants.into()));
        for (kind, bytes) in others {
            parts.push((*kind, 0, (*bytes).into()));
        }
        let end = HEADER + parts.len() * ENTRY;
        let mut out = vec![0u8; end];
        for (i, (kind, detail, data)) in parts.iter().enumerate() {
            let align = kind.align();
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
        out
    }
}
