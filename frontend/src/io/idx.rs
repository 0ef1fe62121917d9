//! The IDX format of the MNIST files, plain or gzipped.

use super::{IoError, read};
use flate2::read::GzDecoder;
use std::io::Read;
use std::path::Path;

/// An IDX array of bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Idx {
    /// Extent of each dimension.
    pub shape: Vec<usize>,
    /// Elements in row-major order.
    pub data: Vec<u8>,
}

/// An unpacked file may be at most this large: MNIST's largest is 47 MB.
const LIMIT: u64 = 4 << 30;

/// The bytes of a file, unpacked where it is gzipped.
///
/// # Errors
/// When the file cannot be read or unpacked.
pub fn read_unpacked(path: &Path) -> Result<Vec<u8>, IoError> {
    let bytes = read(path)?;
    if !bytes.starts_with(&[0x1f, 0x8b]) {
        return Ok(bytes);
    }
    let mut out = Vec::new();
    GzDecoder::new(bytes.as_slice())
        .take(LIMIT + 1)
        .read_to_end(&mut out)
        .map_err(|e| IoError::format(path, format!("damaged gzip data: {e}")))?;
    if out.len() as u64 > LIMIT {
        return Err(IoError::format(path, format!("unpacks to more than {LIMIT} bytes")));
    }
    Ok(out)
}

/// Reads an IDX file of unsigned bytes, plain or gzipped.
///
/// # Errors
/// When the file cannot be read or is not IDX of bytes.
pub fn load(path: impl AsRef<Path>) -> Result<Idx, IoError> {
    let path = path.as_ref();
    parse(&read_unpacked(path)?).map_err(|reason| IoError::format(path, reason))
}

/// Parses IDX bytes.
///
/// # Errors
/// What was found and what was expected.
pub fn parse(bytes: &[u8]) -> Result<Idx, String> {
    let [0, 0, kind, rank, rest @ ..] = bytes else {
        return Err(format!(
            "not an IDX file: starts with {:02x?}, expected 00 00",
            &bytes[..bytes.len().min(4)]
        ));
    };
    if *kind != 8 {
        return Err(format!(
            "IDX element type {kind:#04x}, only unsigned bytes (0x08) are supported"
        ));
    }
    let rank = *rank as usize;
    let Some((head, data)) = rest.split_at_checked(4 * rank) else {
        return Err(format!("the file ends inside the {rank} extents of its header"));
    };
    let shape: Vec<usize> =
        head.as_chunks::<4>().0.iter().map(|c| u32::from_be_bytes(*c) as usize).collect();
    let n = shape.iter().try_fold(1usize, |n, &d| n.checked_mul(d));
    match n {
        Some(n) if n == data.len() => Ok(Idx { shape, data: data.to_vec() }),
        _ => Err(format!("shape {shape:?} does not match the {} bytes that follow", data.len())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bad_files_are_errors() {
        let good = [0, 0, 8, 2, 0, 0, 0, 2, 0, 0, 0, 3, 1, 2, 3, 4, 5, 6];
        assert_eq!(parse(&good).unwrap().shape, [2, 3]);
        for n in 0..good.len() {
            assert!(parse(&good[..n]).is_err(), "{n}");
        }
        let mut long = good.to_vec();
        long.push(0);
        assert!(parse(&long).is_err());
        let huge = [0, 0, 8, 3, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255];
        assert!(parse(&huge).unwrap_err().contains("does not match"));
        assert!(parse(&[0, 0, 13, 0]).unwrap_err().contains("0x0d"));
    }
}
