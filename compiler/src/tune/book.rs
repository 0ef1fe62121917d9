//! What was measured, kept on disk: one file for each machine and version of the
//! kernels. Any number of processes may use it at once. What is in the files only says
//! which of several right ways is taken, so a file that cannot be used is a pity and no
//! more: it is reported and measured anew.

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use sinter_runtime::file::write_atomic;
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use thiserror::Error;

/// The environment variable that names the folder of everything Sinter keeps.
pub const CACHE_VARIABLE: &str = "SINTER_CACHE_DIR";

/// Version of the files.
const FORMAT: u32 = 1;
/// A file longer than this many bytes is none of ours.
const LONGEST: u64 = 16 << 20;
/// More entries than this are not kept.
const MOST: usize = 20_000;
/// How long to wait for other processes that write the file.
const PATIENCE: Duration = Duration::from_secs(5);

/// The folder of measurements where nothing else is said: `tune` in
/// `$SINTER_CACHE_DIR`, else `sinter/tune` in the user's folder of caches. `None` where
/// the system names no such folder.
pub fn folder() -> Option<PathBuf> {
    Some(caches()?.join("tune"))
}

/// The folder of everything that Sinter keeps on disk.
pub(crate) fn caches() -> Option<PathBuf> {
    let set = |name: &str| std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
    if let Some(dir) = set(CACHE_VARIABLE) {
        return Some(dir);
    }
    let caches = match std::env::consts::OS {
        "windows" => set("LOCALAPPDATA"),
        "macos" => std::env::home_dir().map(|h| h.join("Library/Caches")),
        // The XDG base directories; a relative path counts as not set.
        _ => set("XDG_CACHE_HOME")
            .filter(|d| d.is_absolute())
            .or_else(|| std::env::home_dir().map(|h| h.join(".cache"))),
    };
    Some(caches?.join("sinter"))
}

/// One thing that was measured.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    /// What it computes, for people.
    pub what: String,
    /// The label of the form that won; empty where the rule stays.
    pub choice: String,
    /// Nanoseconds by rule.
    pub rule_ns: f64,
    /// Nanoseconds of the form that won.
    pub best_ns: f64,
}

/// A file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Page {
    format: u32,
    /// Where the times were taken.
    pub machine: String,
    /// What was measured, by key.
    pub entries: BTreeMap<String, Entry>,
}

/// Why a file is not used, or not written.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum BookError {
    /// The system refused.
    #[error("{path}: {source}")]
    System {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file is none, or damaged.
    #[error("{path}: no measurements of Sinter's: {reason}")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// Another process holds the file and does not let go.
    #[error("{path}: another process has been writing it for {}s", PATIENCE.as_secs())]
    Busy {
        /// The file that says so.
        path: PathBuf,
    },
}

/// A short name for a long text.
pub(crate) fn digest(text: &str) -> String {
    let hash = Sha256::digest(text.as_bytes());
    hash.iter().take(16).map(|b| format!("{b:02x}")).collect()
}

/// Reads a file; `None` where there is none.
///
/// # Errors
/// When it cannot be read, or is no file of measurements.
pub fn read(path: &Path) -> Result<Option<Page>, BookError> {
    let system = |source| BookError::System { path: path.to_path_buf(), source };
    let damaged = |reason: String| BookError::Damaged { path: path.to_path_buf(), reason };
    let file = match File::open(path) {
        Ok(f) => f,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(system(e)),
    };
    let mut bytes = Vec::new();
    file.take(LONGEST + 1).read_to_end(&mut bytes).map_err(system)?;
    if bytes.len() as u64 > LONGEST {
        return Err(damaged(format!("it is longer than {LONGEST} bytes")));
    }
    let page: Page = serde_json::from_slice(&bytes).map_err(|e| damaged(e.to_string()))?;
    match page.format {
        FORMAT => Ok(Some(page)),
        other => Err(damaged(format!("it has format {other}, known is {FORMAT}"))),
    }
}

/// The files in a folder, and what is wrong with those that cannot be used.
pub fn pages(folder: &Path) -> Vec<(PathBuf, Result<Page, BookError>)> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let mut paths: Vec<PathBuf> = entries.map(|e| e.path()).collect();
    paths.retain(|p| p.extension().is_some_and(|e| e == "json"));
    paths.sort();
    let page = |p: PathBuf| Some((p.clone(), read(&p).transpose()?));
    paths.into_iter().filter_map(page).collect()
}

/// The measurements of this machine: those on disk, and new ones.
#[derive(Debug)]
pub struct Book {
    /// No file: nothing is kept.
    path: Option<PathBuf>,
    machine: String,
    known: BTreeMap<String, Entry>,
    fresh: BTreeMap<String, Entry>,
}

impl Book {
    /// Opens the book of a machine in a folder, and says what was wrong with the file.
    pub fn open(folder: Option<&Path>, machine: &str) -> (Book, Option<BookError>) {
        let name = format!("{}.json", digest(machine));
        let path = folder.map(|f| f.join(name));
        let mut book = Book {
            path,
            machine: machine.to_string(),
            known: BTreeMap::new(),
            fresh: BTreeMap::new(),
        };
        let complaint = match book.on_disk() {
            Ok(entries) => {
                book.known = entries;
                None
            }
            Err(e) => Some(e),
        };
        (book, complaint)
    }

    fn on_disk(&self) -> Result<BTreeMap<String, Entry>, BookError> {
        let Some(path) = &self.path else { return Ok(BTreeMap::new()) };
        match read(path)? {
            None => Ok(BTreeMap::new()),
            Some(page) if page.machine == self.machine => Ok(page.entries),
            Some(page) => Err(BookError::Damaged {
                path: path.clone(),
                reason: format!("it is of another machine ({})", page.machine),
            }),
        }
    }

    /// What was measured under a key.
    pub fn find(&self, key: &str) -> Option<&Entry> {
        self.fresh.get(key).or_else(|| self.known.get(key))
    }

    /// Takes note of a measurement.
    pub fn note(&mut self, key: String, entry: Entry) {
        self.fresh.insert(key, entry);
    }

    /// Adds what is new to the file, to what other processes have written by now.
    ///
    /// # Errors
    /// When the file cannot be written, or another process does not let go of it.
    pub fn save(&mut self) -> Result<(), BookError> {
        let Some(path) = self.path.clone() else { return Ok(()) };
        if self.fresh.is_empty() {
            return Ok(());
        }
        let system = |source| BookError::System { path: path.clone(), source };
        let folder = path.parent().expect("the file is in a folder");
        fs::create_dir_all(folder).map_err(system)?;
        let _held = lock(&path.with_extension("lock"))?;
        // What is damaged is replaced.
        let mut entries = self.on_disk().unwrap_or_default();
        entries.extend(self.fresh.clone());
        if entries.len() > MOST {
            entries = self.fresh.clone();
        }
        let page = Page { format: FORMAT, machine: self.machine.clone(), entries };
        let text = serde_json::to_string_pretty(&page).expect("pages are plain data");
        write_atomic(&path, |f| f.write_all(text.as_bytes())).map_err(system)?;
        self.known = page.entries;
        self.fresh.clear();
        Ok(())
    }
}

/// Waits until no other process holds the file. Where the system knows no locks, there is
/// none: two that write at once then keep the measurements of one, in a whole file.
fn lock(path: &Path) -> Result<Option<File>, BookError> {
    let system = |source| BookError::System { path: path.to_path_buf(), source };
    let file =
        File::options().create(true).truncate(false).write(true).open(path).map_err(system)?;
    let start = Instant::now();
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(Some(file)),
            Err(fs::TryLockError::WouldBlock) if start.elapsed() < PATIENCE => {
                std::thread::sleep(Duration::from_millis(10));
            }
            Err(fs::TryLockError::WouldBlock) => {
                return Err(BookError::Busy { path: path.to_path_buf() });
            }
            Err(fs::TryLockError::Error(_)) => return Ok(None),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(choice: &str) -> Entry {
        Entry { what: "matmul".into(), choice: choice.into(), rule_ns: 2.0, best_ns: 1.0 }
    }

    #[test]
    fn what_is_noted_is_found_again() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("a").join("b");
        let (mut book, complaint) = Book::open(Some(&folder), "here");
        assert!(complaint.is_none());
        book.note("k".into(), entry("x"));
        assert_eq!(book.find("k"), Some(&entry("x")));
        book.save().unwrap();
        let (book, complaint) = Book::open(Some(&folder), "here");
        assert!(complaint.is_none() && book.find("k") == Some(&entry("x")));
        let (book, complaint) = Book::open(Some(&folder), "elsewhere");
        assert!(complaint.is_none() && book.find("k").is_none());
        assert_eq!(pages(&folder).len(), 1);
        // Without a folder, nothing is kept.
        let (mut book, _) = Book::open(None, "here");
        book.note("k".into(), entry("x"));
        book.save().unwrap();
    }

    #[test]
    fn several_that_write_at_once_lose_nothing() {
        let dir = tempfile::tempdir().unwrap();
        std::thread::scope(|s| {
            for t in 0..8 {
                let folder = dir.path();
                s.spawn(move || {
                    for i in 0..10 {
                        let (mut book, complaint) = Book::open(Some(folder), "here");
                        assert!(complaint.is_none(), "{complaint:?}");
                        book.note(format!("{t} {i}"), entry("x"));
                        book.save().unwrap();
                    }
                });
            }
        });
        let (book, _) = Book::open(Some(dir.path()), "here");
        assert_eq!(book.known.len(), 80);
        let left: Vec<_> = fs::read_dir(dir.path()).unwrap().collect();
        assert_eq!(left.len(), 2, "the file and its lock: {left:?}");
    }

    #[test]
    fn files_that_are_none_are_reported_and_replaced() {
        let whole = {
            let page = Page {
                format: FORMAT,
                machine: "here".into(),
                entries: [("k".to_string(), entry("x"))].into(),
            };
            serde_json::to_vec(&page).unwrap()
        };
        let mut bad: Vec<Vec<u8>> = vec![
            vec![],
            b"SINTER".to_vec(),
            vec![0xff; 4096],
            b"{\"format\":1}".to_vec(),
            String::from_utf8(whole.clone()).unwrap().replace("\"here\"", "\"there\"").into(),
            String::from_utf8(whole.clone()).unwrap().replace(":1,", ":2,").into(),
            // Deeply nested.
            vec![b'['; 100_000],
        ];
        bad.extend((1..whole.len()).step_by(7).map(|n| whole[..n].to_vec()));
        let dir = tempfile::tempdir().unwrap();
        let (book, _) = Book::open(Some(dir.path()), "here");
        let path = book.path.unwrap();
        for bytes in bad {
            fs::write(&path, &bytes).unwrap();
            let (mut book, complaint) = Book::open(Some(dir.path()), "here");
            let said = complaint.expect("the file is damaged").to_string();
            assert!(said.contains(".json"), "{said}");
            assert!(book.find("k").is_none());
            book.note("new".into(), entry("y"));
            book.save().unwrap();
            let (book, complaint) = Book::open(Some(dir.path()), "here");
            assert!(complaint.is_none() && book.find("new").is_some());
        }
        // Longer than any of ours; a hole takes no room on the disk.
        File::create(&path).unwrap().set_len(1 << 40).unwrap();
        assert!(Book::open(Some(dir.path()), "here").1.is_some());
        // A folder in its place.
        fs::remove_file(&path).unwrap();
        fs::create_dir(&path).unwrap();
        let (mut book, complaint) = Book::open(Some(dir.path()), "here");
        assert!(complaint.is_some());
        book.note("new".into(), entry("y"));
        assert!(book.save().is_err());
    }
}
