//! The safetensors format, for weights and checkpoints.

use super::{IoError, read, write};
use crate::tensor::Tensor;
use safetensors::{Dtype, SafeTensors, View};
use sinter_runtime::{Array, DType};
use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::path::Path;

fn from_dtype(d: Dtype) -> Option<DType> {
    Some(match d {
        Dtype::BOOL => DType::Bool,
        Dtype::U8 => DType::U8,
        Dtype::I8 => DType::I8,
        Dtype::U16 => DType::U16,
        Dtype::I16 => DType::I16,
        Dtype::U32 => DType::U32,
        Dtype::I32 => DType::I32,
        Dtype::U64 => DType::U64,
        Dtype::C64 => DType::C64,
        Dtype::I64 => DType::I64,
        Dtype::F16 => DType::F16,
        Dtype::BF16 => DType::BF16,
        Dtype::F32 => DType::F32,
        Dtype::F64 => DType::F64,
        _ => return None,
    })
}

fn to_dtype(d: DType) -> Option<Dtype> {
    Some(match d {
        DType::Bool => Dtype::BOOL,
        DType::U8 => Dtype::U8,
        DType::I8 => Dtype::I8,
        DType::U16 => Dtype::U16,
        DType::I16 => Dtype::I16,
        DType::U32 => Dtype::U32,
        DType::I32 => Dtype::I32,
        DType::U64 => Dtype::U64,
        DType::I64 => Dtype::I64,
        DType::F16 => Dtype::F16,
        DType::BF16 => Dtype::BF16,
        DType::F32 => Dtype::F32,
        DType::F64 => Dtype::F64,
        DType::C64 => Dtype::C64,
        DType::C128 => return None,
    })
}

/// The tensors of a file, by name.
///
/// # Errors
/// When the file cannot be read, is damaged, or holds an unknown element type.
pub fn load(path: impl AsRef<Path>) -> Result<BTreeMap<String, Tensor>, IoError> {
    load_with_metadata(path).map(|(t, _)| t)
}

/// The tensors of a file, by name, and its metadata.
///
/// # Errors
/// As [`load`].
#[allow(clippy::type_complexity)]
pub fn load_with_metadata(
    path: impl AsRef<Path>,
) -> Result<(BTreeMap<String, Tensor>, BTreeMap<String, String>), IoError> {
    let path = path.as_ref();
    let bytes = read(path)?;
    let bad = |e: &dyn std::fmt::Display| {
        IoError::format(path, format!("not a valid safetensors file: {e}"))
    };
    let (_, header) = SafeTensors::read_metadata(&bytes).map_err(|e| bad(&e))?;
    let file = SafeTensors::deserialize(&bytes).map_err(|e| bad(&e))?;
    let tensors = file
        .tensors()
        .into_iter()
        .map(|(name, view)| {
            let dtype = from_dtype(view.dtype()).ok_or_else(|| {
                IoError::format(
                    path,
                    format!(
                        "tensor `{name}` has element type {:?}, which is not supported",
                        view.dtype()
                    ),
                )
            })?;
            let a = Array::from_bytes(view.data(), view.shape(), dtype)
                .map_err(|e| IoError::format(path, format!("tensor `{name}`: {e}")))?;
            Ok((name, Tensor::from_array(a)))
        })
        .collect::<Result<BTreeMap<_, _>, IoError>>()?;
    let metadata =
        header.metadata().iter().flatten().map(|(k, v)| (k.clone(), v.clone())).collect();
    Ok((tensors, metadata))
}

struct Out {
    dtype: Dtype,
    shape: Vec<usize>,
    bytes: Vec<u8>,
}

impl View for &Out {
    fn dtype(&self) -> Dtype {
        self.dtype
    }
    fn shape(&self) -> &[usize] {
        &self.shape
    }
    fn data(&self) -> Cow<'_, [u8]> {
        Cow::Borrowed(&self.bytes)
    }
    fn data_len(&self) -> usize {
        self.bytes.len()
    }
}

/// Writes tensors by name, with metadata. The file is complete or not there.
///
/// # Errors
/// When the file cannot be written; what was there before is untouched.
pub fn save<'a>(
    path: impl AsRef<Path>,
    tensors: impl IntoIterator<Item = (&'a String, &'a Tensor)>,
    metadata: &BTreeMap<String, String>,
) -> Result<(), IoError> {
    let path = path.as_ref();
    let outs: Vec<(String, Out)> = tensors
        .into_iter()
        .map(|(name, t)| {
            let a = t.array();
            let dtype = to_dtype(a.dtype()).ok_or_else(|| {
                let reason = format!(
                    "tensor `{name}` is {}, which the format does not have; save its `view_as_real`",
                    a.dtype()
                );
                IoError::format(path, reason)
            })?;
            let out = Out { dtype, shape: a.shape().to_vec(), bytes: a.to_bytes() };
            Ok((name.clone(), out))
        })
        .collect::<Result<_, IoError>>()?;
    let metadata: HashMap<String, String> =
        metadata.iter().map(|(k, v)| (k.clone(), v.clone())).collect();
    let metadata = (!metadata.is_empty()).then_some(metadata);
    let bytes = safetensors::serialize(outs.iter().map(|(n, o)| (n, o)), metadata)
        .map_err(|e| IoError::format(path, e.to_string()))?;
    write(path, &bytes)
}
