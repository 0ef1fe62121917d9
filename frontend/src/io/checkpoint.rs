//! Checkpoints: everything a training run needs to go on, in one file.
//!
//! A checkpoint is a safetensors file whose tensors stand in named parts and whose
//! metadata holds a checksum over all of them, which the format itself lacks. It is
//! written whole or not at all, so that a run never resumes from half of one step
//! and half of another.

use super::{IoError, safetensors};
use crate::nn::StateDict;
use std::collections::BTreeMap;
use std::path::Path;

/// The state of a training run.
///
/// ```
/// use sinter::io::Checkpoint;
/// use sinter::nn::{Linear, Module};
/// use sinter::optim::{Adam, Optimizer};
///
/// let dir = tempfile::tempdir()?;
/// let path = dir.path().join("run.safetensors");
/// let model = Linear::new(3, 2);
/// let mut opt = Adam::new(model.parameters(), 1e-3);
///
/// let mut c = Checkpoint::new();
/// c.put("model", model.state_dict());
/// c.put("optimizer", opt.state_dict());
/// c.set("epoch", 3);
/// c.save(&path)?;
///
/// let c = Checkpoint::load(&path)?;
/// model.load_state_dict(&c.part("model"), true)?;
/// opt.load_state_dict(&c.part("optimizer"))?;
/// assert_eq!(c.get("epoch"), Some("3"));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, Default)]
pub struct Checkpoint {
    tensors: StateDict,
    texts: BTreeMap<String, String>,
}

/// Where the metadata keeps the checksum.
const CHECKSUM: &str = "sinter.checksum";

impl Checkpoint {
    /// Without parts.
    pub fn new() -> Checkpoint {
        Checkpoint::default()
    }

    /// Puts in a part: its tensors become `part/name`. They are not copied; what is
    /// saved is what they hold then.
    pub fn put(&mut self, part: &str, state: StateDict) {
        self.tensors.extend(state.into_iter().map(|(name, t)| (format!("{part}/{name}"), t)));
    }

    /// The tensors of a part, by their names in it; none where there is no such part.
    pub fn part(&self, part: &str) -> StateDict {
        let of_part = |(name, t): (&String, &crate::Tensor)| {
            let name = name.strip_prefix(part)?.strip_prefix('/')?;
            Some((name.to_string(), t.clone()))
        };
        self.tensors.iter().filter_map(of_part).collect()
    }

    /// Notes something that is no tensor, as text.
    pub fn set(&mut self, key: &str, value: impl ToString) {
        self.texts.insert(key.to_string(), value.to_string());
    }

    /// What was noted.
    pub fn get(&self, key: &str) -> Option<&str> {
        self.texts.get(key).map(String::as_str)
    }

    fn checksum(&self) -> String {
        let mut h = crc32fast::Hasher::new();
        let mut add = |bytes: &[u8]| {
            h.update(&(bytes.len() as u64).to_le_bytes());
            h.update(bytes);
        };
        for (key, value) in &self.texts {
            add(key.as_bytes());
            add(value.as_bytes());
        }
        for (name, t) in &self.tensors {
            add(name.as_bytes());
            add(format!("{} {:?}", t.dtype(), t.shape()).as_bytes());
            add(&t.array().to_bytes());
        }
        format!("{:08x}", h.finalize())
    }

    /// Writes the file. What was there before stays until this is whole.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn save(&self, path: impl AsRef<Path>) -> Result<(), IoError> {
        let mut metadata = self.texts.clone();
        metadata.insert(CHECKSUM.to_string(), self.checksum());
        safetensors::save(path, &self.tensors, &metadata)
    }

    /// Reads a file.
    ///
    /// # Errors
    /// When it cannot be read, is damaged, or is no checkpoint.
    pub fn load(path: impl AsRef<Path>) -> Result<Checkpoint, IoError> {
        let path = path.as_ref();
        let (tensors, mut texts) = safetensors::load_with_metadata(path)?;
        let Some(want) = texts.remove(CHECKSUM) else {
            return Err(IoError::format(path, "not a checkpoint: it has no checksum"));
        };
        let c = Checkpoint { tensors, texts };
        let got = c.checksum();
        if got != want {
            return Err(IoError::format(
                path,
                format!("damaged checkpoint: its checksum is {got}, it says {want}"),
            ));
        }
        Ok(c)
    }
}
