//! PTX on disk, by the module it was made from. A file that is missing or damaged is made
//! again.

use crate::codegen::cuda::Arch;
use crate::tune::digest;
use sinter_runtime::file::write_atomic;
use std::fs;
use std::io::Write;
use std::path::PathBuf;

/// Version of what turns a module into PTX: part of the names.
const VERSION: &str = "MLIR 22, 1";
/// A file longer than this many bytes is none of ours.
const LONGEST: u64 = 4 << 20;

pub(super) struct Keep(Option<PathBuf>);

impl Keep {
    pub(super) fn new(folder: Option<PathBuf>) -> Keep {
        Keep(folder)
    }

    fn path(&self, mlir: &str, arch: Arch) -> Option<PathBuf> {
        let name = digest(&format!("{VERSION}\n{arch}\n{mlir}"));
        Some(self.0.as_ref()?.join(format!("{name}.ptx")))
    }

    /// What was kept; the first line says what the others have to be.
    pub(super) fn get(&self, mlir: &str, arch: Arch) -> Option<String> {
        let path = self.path(mlir, arch)?;
        if fs::metadata(&path).ok()?.len() > LONGEST {
            return None;
        }
        let text = fs::read_to_string(path).ok()?;
        let (first, ptx) = text.split_once('\n')?;
        (first == seal(ptx)).then(|| ptx.to_string())
    }

    /// Keeps code. Where the system refuses, it will be generated again next time.
    pub(super) fn put(&self, mlir: &str, arch: Arch, ptx: &str) {
        let Some(path) = self.path(mlir, arch) else { return };
        if let Some(folder) = path.parent() {
            let _ = fs::create_dir_all(folder);
        }
        let _ = write_atomic(&path, |f| write!(f, "{}\n{ptx}", seal(ptx)));
    }
}

fn seal(ptx: &str) -> String {
    format!("// {}", digest(ptx))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_damaged_is_not_there() {
        let folder = tempfile::tempdir().unwrap();
        let keep = Keep::new(Some(folder.path().join("device")));
        let (a, b) = (Arch::ALL[0], Arch::ALL[1]);
        assert_eq!(keep.get("m", a), None);
        keep.put("m", a, "code\nmore\n");
        assert_eq!(keep.get("m", a).as_deref(), Some("code\nmore\n"));
        assert_eq!((keep.get("m", b), keep.get("n", a)), (None, None));
        let path = keep.path("m", a).unwrap();
        let text = fs::read_to_string(&path).unwrap();
        fs::write(&path, &text[..text.len() - 3]).unwrap();
        assert_eq!(keep.get("m", a), None);
        assert_eq!(Keep::new(None).get("m", a), None);
    }
}
