//! NumPy's npy and npz files.

use super::{IoError, read, write};
use crate::tensor::Tensor;
use sinter_runtime::npy::{decode, encode};
use std::collections::BTreeMap;
use std::io::{Cursor, Read, Write};
use std::path::Path;

/// The array of an npy file.
///
/// # Errors
/// When the file cannot be read, is damaged, or holds something else than numbers.
pub fn load(path: impl AsRef<Path>) -> Result<Tensor, IoError> {
    let path = path.as_ref();
    let a = decode(&read(path)?).map_err(|e| IoError::format(path, e))?;
    Ok(Tensor::from_array(a))
}

/// Writes an npy file. The file is complete or not there.
///
/// # Errors
/// When it cannot be written.
pub fn save(path: impl AsRef<Path>, t: &Tensor) -> Result<(), IoError> {
    write(path.as_ref(), &encode(t.array()))
}

/// What one array in an npz may unpack to, as a multiple of its packed size: far
/// above what honest data reaches, far below a bomb.
const RATIO: u64 = 1100;

/// The arrays of an npz file, by name.
///
/// # Errors
/// As [`load`]; and for archives that unpack to absurd sizes.
pub fn load_npz(path: impl AsRef<Path>) -> Result<BTreeMap<String, Tensor>, IoError> {
    let path = path.as_ref();
    let bad = |e: String| IoError::format(path, e);
    let bytes = read(path)?;
    let mut zip = zip::ZipArchive::new(Cursor::new(&bytes))
        .map_err(|e| bad(format!("not a zip archive: {e}")))?;
    let mut out = BTreeMap::new();
    for i in 0..zip.len() {
        let mut entry = zip.by_index(i).map_err(|e| bad(format!("entry {i}: {e}")))?;
        let name = entry.name().map_err(|e| bad(format!("entry {i}: {e}")))?.to_string();
        let limit = entry.compressed_size().saturating_mul(RATIO).saturating_add(1 << 16);
        if entry.size() > limit {
            return Err(bad(format!(
                "`{name}` claims {} bytes packed into {}: refused",
                entry.size(),
                entry.compressed_size()
            )));
        }
        let mut data = Vec::new();
        (&mut entry)
            .take(limit + 1)
            .read_to_end(&mut data)
            .map_err(|e| bad(format!("`{name}`: {e}")))?;
        if data.len() as u64 > limit {
            return Err(bad(format!("`{name}` unpacks to more than it claims: refused")));
        }
        let a = decode(&data).map_err(|e| bad(format!("`{name}`: {e}")))?;
        let key = name.strip_suffix(".npy").unwrap_or(&name).to_string();
        if out.insert(key.clone(), Tensor::from_array(a)).is_some() {
            return Err(bad(format!("`{key}` is there twice")));
        }
    }
    Ok(out)
}

/// Writes arrays by name to an npz file, uncompressed.
///
/// # Errors
/// When it cannot be written.
pub fn save_npz(path: impl AsRef<Path>, tensors: &BTreeMap<String, Tensor>) -> Result<(), IoError> {
    let path = path.as_ref();
    let mut zip = zip::ZipWriter::new(Cursor::new(Vec::new()));
    let options =
        zip::write::SimpleFileOptions::default().compression_method(zip::CompressionMethod::Stored);
    let mut fill = || -> Result<Vec<u8>, zip::result::ZipError> {
        for (name, t) in tensors {
            zip.start_file(format!("{name}.npy"), options)?;
            zip.write_all(&encode(t.array()))?;
        }
        Ok(std::mem::replace(&mut zip, zip::ZipWriter::new(Cursor::new(Vec::new())))
            .finish()?
            .into_inner())
    };
    let bytes = fill().map_err(|e| IoError::format(path, e.to_string()))?;
    write(path, &bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{DType, tensor};

    #[test]
    fn arrays_survive() {
        let dir = tempfile::tempdir().unwrap();
        for d in DType::ALL {
            if d == DType::BF16 {
                continue; // NumPy has no such type
            }
            let t = tensor([[0.0f32, 1.0, 2.0], [3.0, 4.0, 5.0]]).to_dtype(d).t();
            let p = dir.path().join("a.npy");
            save(&p, &t).unwrap();
            let u = load(&p).unwrap();
            assert_eq!((u.shape(), u.dtype()), (t.shape(), t.dtype()));
            assert_eq!(u.to_vec::<f64>(), t.to_vec::<f64>());
        }
        let all = BTreeMap::from([
            ("x".to_string(), tensor([1i64, 2])),
            ("y".to_string(), tensor(0.5f64)),
        ]);
        let p = dir.path().join("a.npz");
        save_npz(&p, &all).unwrap();
        let back = load_npz(&p).unwrap();
        assert_eq!(back.keys().collect::<Vec<_>>(), ["x", "y"]);
        assert_eq!(back["x"].to_vec::<i64>(), [1, 2]);
    }

    #[test]
    fn missing_and_damaged_files_are_named() {
        let e = load("/nonexistent/x.npy").unwrap_err().to_string();
        assert!(e.starts_with("/nonexistent/x.npy"), "{e}");
        let dir = tempfile::tempdir().unwrap();
        let p = dir.path().join("a.npz");
        std::fs::write(&p, b"PK\x03\x04 nonsense").unwrap();
        assert!(load_npz(&p).unwrap_err().to_string().contains("a.npz"));
    }
}
