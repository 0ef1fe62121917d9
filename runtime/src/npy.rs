//! NumPy's npy format, versions 1 to 3 ("A simple file format for NumPy arrays",
//! NEP 1): enough to hand arrays to a program and take them back.

use crate::{Array, DType};
use sinter_kernels::mem::Block;
use std::path::Path;

const MAGIC: &[u8] = b"\x93NUMPY";

fn descr(d: DType) -> Option<&'static str> {
    Some(match d {
        DType::Bool => "|b1",
        DType::U8 => "|u1",
        DType::I8 => "|i1",
        DType::U16 => "<u2",
        DType::I16 => "<i2",
        DType::U32 => "<u4",
        DType::U64 => "<u8",
        DType::C64 => "<c8",
        DType::C128 => "<c16",
        DType::I32 => "<i4",
        DType::I64 => "<i8",
        DType::F16 => "<f2",
        DType::F32 => "<f4",
        DType::F64 => "<f8",
        DType::BF16 => return None,
    })
}

/// The file of an array, version 1.0. NumPy lacks bf16, which is written as f32.
///
/// ```
/// use sinter_runtime::{Array, npy};
///
/// let a = Array::from_slice(&[1i64, 2, 3], &[3])?;
/// let file = npy::encode(&a);
/// assert_eq!(npy::decode(&file)?.to_vec::<i64>(), [1, 2, 3]);
/// assert!(npy::decode(&file[..100]).is_err());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn encode(a: &Array) -> Vec<u8> {
    let (descr, bytes) = match descr(a.dtype()) {
        Some(d) => (d, a.to_bytes()),
        None => {
            let wide: Vec<u8> = a
                .to_vec::<half::bf16>()
                .into_iter()
                .flat_map(|v| f32::from(v).to_le_bytes())
                .collect();
            ("<f4", wide)
        }
    };
    let dims: Vec<String> = a.shape().iter().map(usize::to_string).collect();
    let shape = match dims.as_slice() {
        [one] => format!("({one},)"),
        many => format!("({})", many.join(", ")),
    };
    let mut header = format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}");
    // The whole preamble is a multiple of 64 bytes and ends in a newline.
    let total = (MAGIC.len() + 4 + header.len() + 1).next_multiple_of(64);
    while MAGIC.len() + 4 + header.len() + 1 < total {
        header.push(' ');
    }
    header.push('\n');
    let mut out = MAGIC.to_vec();
    out.extend([1, 0]);
    out.extend((header.len() as u16).to_le_bytes());
    out.extend(header.as_bytes());
    out.extend(bytes);
    out
}

/// The array of an npy file's bytes.
///
/// # Errors
/// What was found and what was expected; nothing is allocated before sizes are
/// checked.
pub fn decode(bytes: &[u8]) -> Result<Array, String> {
    let layout = Layout::parse(bytes)?;
    let (data, dtype) = (&bytes[layout.data..], layout.dtype);
    let mut swapped;
    let data = if layout.swap {
        swapped = data.to_vec();
        for e in swapped.chunks_exact_mut(dtype.real().size()) {
            e.reverse();
        }
        &swapped
    } else {
        data
    };
    Ok(layout.order(Array::from_bytes(data, &layout.stored_shape(), dtype).map_err(text)?))
}

/// The array of an npy file, mapped: elements are read when they are used, and the
/// file must not be changed or cut until then. Files in big-endian order or with
/// misaligned elements are copied.
///
/// # Errors
/// When the file cannot be read, with what was found and what was expected.
#[allow(unsafe_code)]
pub fn map(path: &Path) -> Result<Array, String> {
    // Asked before opening: opening a pipe would wait for somebody to write.
    if !std::fs::metadata(path).map_err(text)?.is_file() {
        return Err("not a regular file".to_string());
    }
    let file = std::fs::File::open(path).map_err(text)?;
    // SAFETY: the mapping is read-only and private; the documentation asks that the
    // file stays as it is while it is used.
    let map = unsafe { memmap2::Mmap::map(&file) }.map_err(text)?;
    let layout = Layout::parse(&map)?;
    let usable = cfg!(target_endian = "little")
        && !layout.swap
        && layout.data.is_multiple_of(layout.dtype.size())
        // A byte that is no truth value must become one.
        && layout.dtype != DType::Bool;
    if !usable {
        return decode(&map);
    }
    let shape = layout.stored_shape();
    let block = Block::from_owner(map);
    let a = Array::from_block(block, layout.data, &shape, layout.dtype).map_err(text)?;
    Ok(layout.order(a))
}

fn text(e: impl std::fmt::Display) -> String {
    e.to_string()
}

/// Where and how a file holds its elements.
struct Layout {
    dtype: DType,
    shape: Vec<usize>,
    /// Whether elements are big endian.
    swap: bool,
    /// Whether the first dimension is the innermost.
    fortran: bool,
    /// Where elements begin.
    data: usize,
}

impl Layout {
    fn stored_shape(&self) -> Vec<usize> {
        if self.fortran { self.shape.iter().rev().copied().collect() } else { self.shape.clone() }
    }

    /// The array as the file means it, from one in the order of the file.
    fn order(&self, stored: Array) -> Array {
        let perm: Vec<usize> = (0..self.shape.len()).rev().collect();
        if self.fortran { stored.permute(&perm) } else { stored }
    }

    /// Reads the preamble and checks that the elements are there.
    fn parse(bytes: &[u8]) -> Result<Layout, String> {
        let rest =
            bytes.strip_prefix(MAGIC).ok_or("not an npy file: the magic bytes are missing")?;
        let (version, rest) = rest.split_at_checked(2).ok_or("the file ends in its version")?;
        let (len, rest) = match version[0] {
            1 => {
                let (n, r) =
                    rest.split_first_chunk::<2>().ok_or("the file ends in its header length")?;
                (u16::from_le_bytes(*n) as usize, r)
            }
            2 | 3 => {
                let (n, r) =
                    rest.split_first_chunk::<4>().ok_or("the file ends in its header length")?;
                (u32::from_le_bytes(*n) as usize, r)
            }
            v => return Err(format!("npy version {v}, expected 1, 2 or 3")),
        };
        let (header, data) = rest
            .split_at_checked(len)
            .ok_or_else(|| format!("the header claims {len} bytes, {} are there", rest.len()))?;
        let header = std::str::from_utf8(header).map_err(|_| "the header is no text")?;
        let Header { descr, fortran, shape } = parse_header(header)?;
        let (dtype, swap) = element_type(&descr)?;
        let n = shape
            .iter()
            .try_fold(1usize, |n, &d| n.checked_mul(d))
            .and_then(|n| n.checked_mul(dtype.size()))
            .ok_or_else(|| format!("shape {shape:?} is larger than memory"))?;
        if n != data.len() {
            return Err(format!(
                "shape {shape:?} of {dtype} needs {n} bytes, {} are there",
                data.len()
            ));
        }
        Ok(Layout { dtype, shape, swap, fortran, data: bytes.len() - data.len() })
    }
}

/// The element type, and whether its bytes are big endian.
fn element_type(descr: &str) -> Result<(DType, bool), String> {
    let (order, kind) = descr.split_at_checked(1).ok_or("the element type is empty")?;
    let dtype = match kind {
        "b1" => DType::Bool,
        "u1" => DType::U8,
        "i1" => DType::I8,
        "u2" => DType::U16,
        "i2" => DType::I16,
        "u4" => DType::U32,
        "u8" => DType::U64,
        "c8" => DType::C64,
        "c16" => DType::C128,
        "i4" => DType::I32,
        "i8" => DType::I64,
        "f2" => DType::F16,
        "f4" => DType::F32,
        "f8" => DType::F64,
        _ => return Err(format!("element type '{descr}' is not supported")),
    };
    match order {
        "<" | "|" | "=" => Ok((dtype, false)),
        ">" => Ok((dtype, true)),
        _ => Err(format!("element type '{descr}' is not supported")),
    }
}

struct Header {
    descr: String,
    fortran: bool,
    shape: Vec<usize>,
}

/// The dictionary literal with exactly three keys.
fn parse_header(text: &str) -> Result<Header, String> {
    let bad = |what: &str| format!("header `{}`: {what}", text.trim_end());
    let inner = text
        .trim()
        .strip_prefix('{')
        .and_then(|t| t.strip_suffix('}'))
        .ok_or_else(|| bad("not a dictionary"))?;
    let (mut descr, mut fortran, mut shape) = (None, None, None);
    let mut rest = inner.trim();
    while !rest.is_empty() {
        let (key, after) = quoted(rest).ok_or_else(|| bad("expected a quoted key"))?;
        let after = after.trim_start().strip_prefix(':').ok_or_else(|| bad("expected `:`"))?;
        let value = after.trim_start();
        let used = match key {
            "descr" => {
                let (v, r) =
                    quoted(value).ok_or_else(|| bad("structured types are not supported"))?;
                descr = Some(v.to_string());
                r
            }
            "fortran_order" => {
                let (v, n) = if value.starts_with("True") {
                    (true, 4)
                } else if value.starts_with("False") {
                    (false, 5)
                } else {
                    return Err(bad("fortran_order is neither True nor False"));
                };
                fortran = Some(v);
                &value[n..]
            }
            "shape" => {
                let close = value.find(')').ok_or_else(|| bad("the shape does not end"))?;
                let dims = value
                    .strip_prefix('(')
                    .map(|_| &value[1..close])
                    .ok_or_else(|| bad("the shape is no tuple"))?;
                let dims = dims
                    .split(',')
                    .map(str::trim)
                    .filter(|d| !d.is_empty())
                    .map(|d| d.trim_end_matches('L').parse::<usize>())
                    .collect::<Result<Vec<_>, _>>()
                    .map_err(|_| bad("an extent is no natural number"))?;
                shape = Some(dims);
                &value[close + 1..]
            }
            k => return Err(bad(&format!("unknown key '{k}'"))),
        };
        rest = used.trim_start();
        rest = rest.strip_prefix(',').unwrap_or(rest).trim_start();
    }
    match (descr, fortran, shape) {
        (Some(descr), Some(fortran), Some(shape)) => Ok(Header { descr, fortran, shape }),
        _ => Err(bad("a key is missing")),
    }
}

/// A string in single or double quotes, and what follows it.
fn quoted(text: &str) -> Option<(&str, &str)> {
    let quote = text.chars().next().filter(|c| matches!(c, '\'' | '"'))?;
    let end = text[1..].find(quote)?;
    Some((&text[1..=end], &text[end + 2..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(header: &str, data: &[u8]) -> Vec<u8> {
        let mut f = b"\x93NUMPY\x01\x00".to_vec();
        f.extend((header.len() as u16).to_le_bytes());
        f.extend(header.as_bytes());
        f.extend(data);
        f
    }

    #[test]
    fn round_trip() {
        for shape in [&[][..], &[3], &[2, 0], &[2, 3]] {
            let n: usize = shape.iter().product();
            let v: Vec<i32> = (0..n as i32).collect();
            let a = Array::from_slice(&v, shape).unwrap();
            let f = encode(&a);
            assert_eq!((f.len() - 4 * n) % 64, 0);
            let b = decode(&f).unwrap();
            assert_eq!((b.shape(), b.to_vec::<i32>()), (shape, v));
        }
    }

    #[test]
    fn mapped_files_are_what_was_written() {
        let path = std::env::temp_dir().join(format!("sinter-map-{}.npy", std::process::id()));
        let a = Array::from_slice(&[1.5f32, -2.0, 3.0, 4.0, 5.0, 6.0], &[2, 3]).unwrap();
        std::fs::write(&path, encode(&a)).unwrap();
        let b = map(&path).unwrap();
        assert!(b.block().is_read_only());
        assert_eq!((b.shape(), b.to_vec::<f32>()), (a.shape(), a.to_vec()));
        let h = "{'descr': '>i4', 'fortran_order': True, 'shape': (2, 1), }";
        std::fs::write(&path, file(h, &[0, 0, 0, 1, 0, 0, 0, 2])).unwrap();
        assert_eq!(map(&path).unwrap().to_vec::<i32>(), [1, 2]);
        std::fs::write(&path, "").unwrap();
        assert!(map(&path).is_err());
        std::fs::remove_file(&path).unwrap();
        assert!(map(&path).unwrap_err().contains("No such file"));
        assert!(map(&std::env::temp_dir()).unwrap_err().contains("regular file"));
    }

    #[test]
    fn orders_and_endians() {
        let h = "{'descr': '>i4', 'fortran_order': True, 'shape': (2, 3), }";
        let data: Vec<u8> = (0..6i32).flat_map(i32::to_be_bytes).collect();
        let a = decode(&file(h, &data)).unwrap();
        assert_eq!((a.shape(), a.to_vec::<i32>()), (&[2, 3][..], vec![0, 2, 4, 1, 3, 5]));
    }

    #[test]
    fn bad_files_are_errors() {
        let good = "{'descr': '<i4', 'fortran_order': False, 'shape': (2,), }";
        assert!(decode(&file(good, &[0; 8])).is_ok());
        for h in [
            "",
            "{",
            "{'descr': '<i4'}",
            "{'descr': [('a', '<i4')], 'fortran_order': False, 'shape': (2,)}",
            "{'descr': '|O', 'fortran_order': False, 'shape': (2,)}",
            "{'descr': '<i4', 'fortran_order': Maybe, 'shape': (2,)}",
            "{'descr': '<i4', 'fortran_order': False, 'shape': (-2,)}",
            "{'descr': '<i4', 'fortran_order': False, 'shape': (18446744073709551615, 2)}",
            "{'descr': '<i4', 'fortran_order': False, 'shape': (2, 'x': 1}",
            "{'descr': '<i4', 'fortran_order': False, 'shape': (3,)}",
        ] {
            assert!(decode(&file(h, &[0; 8])).is_err(), "{h}");
        }
        let f = file(good, &[0; 8]);
        for n in 0..f.len() {
            assert!(decode(&f[..n]).is_err());
        }
    }
}
