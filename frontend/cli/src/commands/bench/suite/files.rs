//! What a suite holds: folders with a description, weights, inputs, expected outputs.

use serde::Deserialize;
use serde::de::DeserializeOwned;
use sinter::io::{IoError, npy};
use sinter::nn::StateError;
use sinter::{DType, Tensor};
use sinter_models::{ANY, CASES, Port, Task};
use std::io;
use std::path::{Path, PathBuf};
use thiserror::Error;

/// Why a suite, or a case of it, cannot be measured.
#[derive(Debug, Error)]
pub enum SuiteError {
    /// The operating system's complaint.
    #[error("{}: {source}", path.display())]
    System {
        /// The file or folder.
        path: PathBuf,
        /// The complaint.
        source: io::Error,
    },
    /// There is nothing to measure.
    #[error("{}: no folder in it has a meta.json", .0.display())]
    Empty(PathBuf),
    /// A case that the suite does not have.
    #[error("the suite has no case `{name}`; it has {known}")]
    NoCase {
        /// What was asked for.
        name: String,
        /// What there is.
        known: String,
    },
    /// A case of a model that nobody wrote.
    #[error("`{case}` is a case of no model known here; known are {known}")]
    NoModel {
        /// The case.
        case: String,
        /// The models.
        known: String,
    },
    /// A description that cannot be understood.
    #[error("{}: {source}", path.display())]
    Meta {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: serde_json::Error,
    },
    /// A case with other inputs or outputs than the model.
    #[error("{}: the model's {what} are {want}, the case's are {got}", path.display())]
    Names {
        /// The description.
        path: PathBuf,
        /// Inputs or outputs.
        what: &'static str,
        /// The model's.
        want: String,
        /// The case's.
        got: String,
    },
    /// A tensor in a file.
    #[error(transparent)]
    Io(#[from] IoError),
    /// A tensor that is not what the description or the model says.
    #[error("{}: holds {got_dtype} {got:?}, {by} {want}", path.display())]
    Tensor {
        /// The file.
        path: PathBuf,
        /// Its shape.
        got: Vec<usize>,
        /// Its type.
        got_dtype: DType,
        /// Who says something else.
        by: &'static str,
        /// What.
        want: String,
    },
    /// Weights of something else.
    #[error("{}: {source}", path.display())]
    Weights {
        /// The file.
        path: PathBuf,
        /// What does not fit.
        source: StateError,
    },
    /// A precision that the form of a model does not have.
    #[error(
        "--precision {name} is of compiled inference, where weights are constants: eager \
         products and those of training steps are computed in f32"
    )]
    Precision {
        /// The precision.
        name: &'static str,
    },
    /// A training step that is no program.
    #[error("the step runs with --eager alone: {why}")]
    Training {
        /// What could not be traced or compiled.
        why: String,
    },
    /// A wrong result.
    #[error(
        "`{output}` is wrong: it differs from the reference by {error:.1e} of its largest \
         element, where {precision} allows {allowed:.0e}"
    )]
    Wrong {
        /// The output.
        output: String,
        /// By how much.
        error: f64,
        /// How much may be.
        allowed: f64,
        /// The precision asked for.
        precision: &'static str,
    },
}

/// A case in its folder.
#[derive(Debug)]
pub struct Entry {
    /// Its name.
    pub name: String,
    /// Its folder.
    pub dir: PathBuf,
    /// Whether it is a training task.
    pub training: bool,
}

/// Before the name of a training task.
const TRAINING: &str = "train_";

/// The cases of a suite, by name; those asked for, or all.
///
/// # Errors
/// When there are none, or not those.
pub fn entries(dir: &Path, asked: &[String]) -> Result<Vec<Entry>, SuiteError> {
    let system = |source| SuiteError::System { path: dir.to_path_buf(), source };
    let mut all = vec![];
    for found in std::fs::read_dir(dir).map_err(system)? {
        let found = found.map_err(system)?;
        let (name, dir) = (found.file_name().to_string_lossy().into_owned(), found.path());
        if dir.join("meta.json").is_file() {
            all.push(Entry { training: name.starts_with(TRAINING), name, dir });
        }
    }
    // In the order of the models, a model's cases by size.
    let order = |e: &Entry| {
        let model = CASES.iter().position(|c| e.name.starts_with(c.model));
        (e.training, model.unwrap_or(CASES.len()), e.name.len(), e.name.clone())
    };
    all.sort_by_key(order);
    if all.is_empty() {
        return Err(SuiteError::Empty(dir.to_path_buf()));
    }
    let known = || all.iter().map(|e| e.name.as_str()).collect::<Vec<_>>().join(", ");
    if let Some(name) = asked.iter().find(|n| all.iter().all(|e| e.name != **n)) {
        return Err(SuiteError::NoCase { name: name.clone(), known: known() });
    }
    if !asked.is_empty() {
        all.retain(|e| asked.contains(&e.name));
    }
    Ok(all)
}

/// A tensor of a case.
#[derive(Debug, Deserialize)]
pub struct Described {
    name: String,
    shape: Vec<usize>,
    dtype: String,
}

/// The description of a case.
#[derive(Debug, Deserialize)]
pub struct Meta {
    inputs: Vec<Described>,
    outputs: Vec<Described>,
    /// 10⁹ floating-point operations that its products need.
    #[serde(default)]
    pub gflop: Option<f64>,
}

/// The description of a training task.
#[derive(Debug, Deserialize)]
pub struct TaskMeta {
    /// What is trained, and how.
    #[serde(flatten)]
    pub task: Task,
    /// 10⁹ floating-point operations of a step.
    #[serde(default)]
    pub gflop_step: Option<f64>,
    /// The losses of the first steps, where they are the same every time.
    #[serde(default)]
    pub losses_f64: Vec<f64>,
}

impl Entry {
    /// The description.
    ///
    /// # Errors
    /// When it cannot be read or understood.
    pub fn meta<T: DeserializeOwned>(&self) -> Result<T, SuiteError> {
        let path = self.dir.join("meta.json");
        let text = std::fs::read_to_string(&path)
            .map_err(|source| SuiteError::System { path: path.clone(), source })?;
        serde_json::from_str(&text).map_err(|source| SuiteError::Meta { path, source })
    }

    /// The error for a case of an unknown model.
    pub fn no_model(&self) -> SuiteError {
        let known = CASES.iter().map(|c| c.model).collect::<Vec<_>>().join(", ");
        SuiteError::NoModel { case: self.name.clone(), known }
    }

    /// The inputs, or the expected outputs: they have to be what both the description
    /// and the model say.
    ///
    /// # Errors
    /// When a file is missing or damaged, or holds something else.
    pub fn tensors(
        &self,
        meta: &Meta,
        ports: &[Port],
        outputs: bool,
    ) -> Result<Vec<Tensor>, SuiteError> {
        let (what, kind, described) = match outputs {
            false => ("inputs", "input", &meta.inputs),
            true => ("outputs", "output", &meta.outputs),
        };
        let names = |n: Vec<&str>| format!("[{}]", n.join(", "));
        let want = names(ports.iter().map(|p| p.name).collect());
        let got = names(described.iter().map(|d| d.name.as_str()).collect());
        if want != got {
            return Err(SuiteError::Names { path: self.dir.join("meta.json"), what, want, got });
        }
        let one = |(port, described): (&Port, &Described)| {
            let path = self.dir.join(format!("{kind}_{}.npy", port.name));
            let t = npy::load(&path)?;
            let wrong = |by, want| SuiteError::Tensor {
                path: path.clone(),
                got: t.shape().to_vec(),
                got_dtype: t.dtype(),
                by,
                want,
            };
            if described.shape != t.shape() || described.dtype != numpy_name(t.dtype()) {
                let want = format!("{} {:?}", described.dtype, described.shape);
                return Err(wrong("meta.json says", want));
            }
            if !port.fits(t.shape(), t.dtype()) {
                return Err(wrong("the model has", shown(port)));
            }
            Ok(t)
        };
        ports.iter().zip(described).map(one).collect()
    }
}

fn numpy_name(dtype: DType) -> &'static str {
    match dtype {
        DType::F32 => "float32",
        DType::I64 => "int64",
        _ => "another type",
    }
}

/// The type of a port for people.
fn shown(port: &Port) -> String {
    let size = |&n: &usize| if n == ANY { "_".to_string() } else { n.to_string() };
    let sizes: Vec<String> = port.shape.iter().map(size).collect();
    format!("{} [{}]", port.dtype, sizes.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_say_what_is_wrong() {
        let port = sinter_models::case("mlp_b1").unwrap().inputs[0];
        assert_eq!(shown(&port), "f32 [_, 784]");
        let e = SuiteError::Precision { name: "medium" };
        assert!(e.to_string().starts_with("--precision medium is of compiled inference"), "{e}");
        let e = entries(Path::new("/nowhere/at/all"), &[]).unwrap_err();
        assert!(e.to_string().starts_with("/nowhere/at/all: "), "{e}");
    }
}
