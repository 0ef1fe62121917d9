//! Reading the tables that `make.py` writes.

use crate::args::Value;
use flate2::read::GzDecoder;
use safetensors::SafeTensors;
use serde_json::Value as Json;
use sinter_runtime::{Array, DType};
use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::Read;
use std::path::PathBuf;

/// What a result is compared with.
pub enum Expected {
    /// Values.
    Values(Array),
    /// Type and shape alone: the values are random.
    Kind(DType, Vec<usize>),
}

/// One case.
pub struct Case {
    /// PyTorch's name.
    pub op: String,
    /// The type that it is made for; `None` when Sinter lacks it.
    pub dtype: Option<DType>,
    /// Positional arguments.
    pub list: Vec<Value>,
    /// Arguments with names.
    pub named: BTreeMap<String, Value>,
    /// The tensors among the arguments.
    pub tensors: Vec<Array>,
    /// The results; `None` when Sinter lacks a type among arguments or results.
    pub out: Option<Vec<Expected>>,
    /// Which results the gradients come from.
    pub diff: Vec<usize>,
    /// Gradients by some tensors of the arguments.
    pub grads: Vec<(usize, Array)>,
    /// For messages.
    pub text: String,
}

/// `12:f32[2,3]` or `f32[2,3]`: type and shape.
fn kind(name: &str) -> (Option<DType>, Vec<usize>) {
    let kind = name.split_once(':').map_or(name, |(_, k)| k);
    let (dtype, shape) = kind.split_once('[').expect("a name has a shape");
    let shape = shape.trim_end_matches(']').split(',').filter(|s| !s.is_empty());
    (DType::from_name(dtype), shape.map(|d| d.parse().expect("an extent")).collect())
}

/// What is missing when a tensor's type is.
struct Missing;

struct Reader<'a> {
    file: SafeTensors<'a>,
    arrays: HashMap<String, Array>,
}

impl Reader<'_> {
    fn array(&mut self, name: &str) -> Result<Array, Missing> {
        if let Some(a) = self.arrays.get(name) {
            return Ok(a.clone());
        }
        let (dtype, shape) = kind(name);
        let dtype = dtype.ok_or(Missing)?;
        let bytes = self.file.tensor(name).expect("the table holds the tensor");
        let a = Array::from_bytes(bytes.data(), &shape, dtype).expect("the table holds all bytes");
        self.arrays.insert(name.to_string(), a.clone());
        Ok(a)
    }

    fn value(&mut self, v: &Json, tensors: &mut Vec<Array>) -> Result<Value, Missing> {
        let list = |r: &mut Self, l: &[Json], tensors: &mut Vec<Array>| {
            l.iter().map(|v| r.value(v, tensors)).collect::<Result<Vec<_>, _>>()
        };
        Ok(match v {
            Json::Null => Value::None,
            Json::Bool(b) => Value::Bool(*b),
            Json::Number(n) => match n.as_i64() {
                Some(i) => Value::Int(i),
                None => Value::Float(n.as_f64().expect("a number")),
            },
            Json::String(s) => Value::Str(s.clone()),
            Json::Array(l) => Value::List(list(self, l, tensors)?),
            Json::Object(o) => {
                let (key, v) = o.iter().next().expect("an object has a key");
                match (key.as_str(), v) {
                    ("tensor", Json::String(name)) => {
                        tensors.push(self.array(name)?);
                        Value::Tensor(tensors.len() - 1)
                    }
                    ("dtype", Json::String(name)) => Value::DType(DType::from_name(name)),
                    ("float", Json::String(f)) => Value::Float(f.parse().expect("a number")),
                    ("complex", Json::Array(l)) => {
                        let part = |i: usize| l[i].as_str().and_then(|s| s.parse().ok());
                        Value::Complex(part(0).expect("a number"), part(1).expect("a number"))
                    }
                    ("slice", Json::Array(l)) => Value::Slice(list(self, l, tensors)?),
                    ("ellipsis", _) => Value::Ellipsis,
                    (_, v) => Value::Other(v.to_string()),
                }
            }
        })
    }

    fn case(&mut self, line: &str) -> Case {
        let j: Json = serde_json::from_str(line).expect("a case is JSON");
        let text = |v: &Json| v.as_str().expect("text").to_string();
        let mut case = Case {
            op: text(&j["op"]),
            dtype: DType::from_name(&text(&j["dtype"])),
            list: Vec::new(),
            named: BTreeMap::new(),
            tensors: Vec::new(),
            out: None,
            diff: Vec::new(),
            grads: Vec::new(),
            text: format!("{} {} {}", text(&j["dtype"]), j["args"], j["kwargs"]),
        };
        // A case with a type that is missing keeps no results, and is not run.
        let _ = self.fill(&j, &mut case);
        case
    }

    fn fill(&mut self, j: &Json, case: &mut Case) -> Result<(), Missing> {
        for v in j["args"].as_array().expect("a list") {
            let v = self.value(v, &mut case.tensors)?;
            case.list.push(v);
        }
        for (k, v) in j["kwargs"].as_object().expect("an object") {
            let v = self.value(v, &mut case.tensors)?;
            case.named.insert(k.clone(), v);
        }
        let random = j.get("random").is_some();
        let mut out = Vec::new();
        for name in j["out"].as_array().expect("a list").iter().filter_map(Json::as_str) {
            out.push(if random {
                let (dtype, shape) = kind(name);
                Expected::Kind(dtype.ok_or(Missing)?, shape)
            } else {
                Expected::Values(self.array(name)?)
            });
        }
        if let Some(diff) = j.get("diff").and_then(Json::as_array) {
            case.diff = diff.iter().filter_map(Json::as_u64).map(|i| i as usize).collect();
            for pair in j["grad"].as_array().expect("a list") {
                let at = pair[0].as_u64().expect("a place") as usize;
                case.grads.push((at, self.array(pair[1].as_str().expect("a name"))?));
            }
        }
        case.out = Some(out);
        Ok(())
    }
}

/// The cases of `conformance/<area>.safetensors.gz`.
pub fn load(area: &str) -> Vec<Case> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("conformance")
        .join(format!("{area}.safetensors.gz"));
    let file = File::open(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let mut bytes = Vec::new();
    GzDecoder::new(file).read_to_end(&mut bytes).expect("a table is gzipped");
    let (_, header) = SafeTensors::read_metadata(&bytes).expect("a table is a safetensors file");
    let lines = header.metadata().as_ref().and_then(|m| m.get("cases")).expect("cases").clone();
    let file = SafeTensors::deserialize(&bytes).expect("a table is a safetensors file");
    let mut reader = Reader { file, arrays: HashMap::new() };
    lines.lines().map(|line| reader.case(line)).collect()
}
