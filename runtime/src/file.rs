//! Writing files: complete or not there.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};

/// Removes an unfinished file when something went wrong.
struct Unfinished(Option<PathBuf>);

impl Drop for Unfinished {
    fn drop(&mut self) {
        if let Some(p) = &self.0 {
            let _ = fs::remove_file(p);
        }
    }
}

/// Writes a file through `fill`: into a new file beside it, flushed to the disk,
/// then renamed over it. Whatever goes wrong, the old file is whole and no debris
/// stays; after success the new one survives a power failure.
///
/// # Errors
/// The first system call that failed.
pub fn write_atomic(path: &Path, fill: impl FnOnce(&mut File) -> io::Result<()>) -> io::Result<()> {
    let name = path
        .file_name()
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "the path names no file"))?;
    let dir = match path.parent() {
        Some(d) if !d.as_os_str().is_empty() => d,
        _ => Path::new("."),
    };
    let (mut file, temp) = create_beside(dir, name)?;
    let mut guard = Unfinished(Some(temp.clone()));
    fill(&mut file)?;
    file.sync_all()?;
    drop(file);
    fs::rename(&temp, path)?;
    guard.0 = None;
    // The rename itself lasts once the folder is on the disk.
    #[cfg(unix)]
    File::open(dir)?.sync_all()?;
    Ok(())
}

/// A new file in `dir` that nobody else has open.
fn create_beside(dir: &Path, name: &std::ffi::OsStr) -> io::Result<(File, PathBuf)> {
    let mut attempt = 0u32;
    loop {
        let mut temp = std::ffi::OsString::from(".");
        temp.push(name);
        temp.push(format!(".{}.{attempt}.tmp", std::process::id()));
        let temp = dir.join(temp);
        match OpenOptions::new().write(true).create_new(true).open(&temp) {
            Ok(f) => return Ok((f, temp)),
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists && attempt < 1000 => attempt += 1,
            Err(e) => return Err(e),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn entries(dir: &Path) -> Vec<String> {
        let mut e: Vec<String> = fs::read_dir(dir)
            .unwrap()
            .map(|e| e.unwrap().file_name().into_string().unwrap())
            .collect();
        e.sort();
        e
    }

    #[test]
    fn a_failure_leaves_the_old_file_and_nothing_else() {
        let dir = std::env::temp_dir().join(format!("sinter-file-{}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        let path = dir.join("a");
        write_atomic(&path, |f| f.write_all(b"old")).unwrap();
        let e = write_atomic(&path, |f| {
            f.write_all(b"half of the n")?;
            Err(io::Error::other("disk full"))
        });
        assert_eq!(e.unwrap_err().to_string(), "disk full");
        assert_eq!(fs::read(&path).unwrap(), b"old");
        assert_eq!(entries(&dir), ["a"]);
        write_atomic(&path, |f| f.write_all(b"new")).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"new");
        assert!(write_atomic(&dir.join("missing").join("b"), |_| Ok(())).is_err());
        assert!(write_atomic(Path::new("/"), |_| Ok(())).is_err());
        fs::remove_dir_all(&dir).unwrap();
    }
}
