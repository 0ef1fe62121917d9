//! The tables that `reference/make.py` writes.

use flate2::read::GzDecoder;
use safetensors::SafeTensors;
use sinter::Tensor;
use sinter_runtime::{Array, DType};
use std::collections::HashMap;
use std::fs::File;
use std::io::Read;
use std::path::PathBuf;

/// One reference case.
pub struct Case {
    /// What is computed; of the op tables, the op as graphs print it.
    pub what: String,
    /// Operands.
    pub inputs: Vec<Array>,
    /// Results.
    pub outputs: Vec<Array>,
}

impl Case {
    /// The operands as tensors.
    pub fn tensors(&self) -> Vec<Tensor> {
        self.inputs.iter().cloned().map(Tensor::from_array).collect()
    }

    /// What is computed and of which types, for messages.
    pub fn describe(&self) -> String {
        let types: Vec<String> =
            self.inputs.iter().map(|a| format!("{}{:?}", a.dtype(), a.shape())).collect();
        format!("{} ({})", self.what, types.join(", "))
    }
}

/// A table of reference cases.
pub struct Table {
    /// Its cases, in the order of the script.
    pub cases: Vec<Case>,
}

impl Table {
    /// Reads `reference/<name>.safetensors.gz`.
    ///
    /// # Panics
    /// If the table is not there or not in order.
    pub fn load(name: &str) -> Table {
        let path = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
            .join("reference")
            .join(format!("{name}.safetensors.gz"));
        let file = File::open(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        let mut bytes = Vec::new();
        GzDecoder::new(file).read_to_end(&mut bytes).expect("a table is gzipped");
        let (_, header) =
            SafeTensors::read_metadata(&bytes).expect("a table is a safetensors file");
        let file = SafeTensors::deserialize(&bytes).expect("a table is a safetensors file");
        let arrays: HashMap<String, Array> = file
            .tensors()
            .into_iter()
            .map(|(name, view)| {
                // Names end in the type: `12:f32[2,3]`.
                let dtype = name.split([':', '[']).nth(1).and_then(DType::from_name);
                let dtype = dtype.unwrap_or_else(|| panic!("tensor `{name}` names no type"));
                let a = Array::from_bytes(view.data(), view.shape(), dtype);
                (name, a.expect("the table holds all bytes"))
            })
            .collect();
        let named = |list: &str| -> Vec<Array> {
            list.split_whitespace().map(|n| arrays[n].clone()).collect()
        };
        let lines = header.metadata().as_ref().and_then(|m| m.get("cases"));
        let cases = lines
            .expect("the metadata lists the cases")
            .lines()
            .map(|line| {
                let [what, inputs, outputs] = line.split('\t').collect::<Vec<_>>()[..] else {
                    panic!("`{line}` is no case")
                };
                Case { what: what.to_string(), inputs: named(inputs), outputs: named(outputs) }
            })
            .collect();
        Table { cases }
    }
}
