//! The state of a training run in one file, so that it is never half of one step
//! and half of another.

use super::train::{History, Settings, Test, Trainer};
use anyhow::{Context, bail};
use serde::{Deserialize, Serialize};
use sinter::io::safetensors;
use sinter::nn::{Module, StateDict};
use sinter::optim::Optimizer;
use sinter::{Tensor, from_slice, random};
use std::collections::BTreeMap;
use std::path::Path;

/// Everything but tensors.
#[derive(Serialize, Deserialize)]
struct Meta {
    settings: Settings,
    /// [`Data::fingerprint`](super::data::Data::fingerprint)
    data: u32,
    step: u64,
    random_seed: u64,
    random_offset: u64,
    seconds: f64,
    tests: Vec<Test>,
    /// The format has no checksum of its own.
    crc: u32,
}

const META: &str = "sinter.demo";
const MODEL: &str = "model.";
const OPTIMIZER: &str = "optimizer.";
const LOSS: &str = "history.loss";
const ACCURACY: &str = "history.accuracy";

fn crc(tensors: &StateDict) -> u32 {
    let mut h = crc32fast::Hasher::new();
    for (name, t) in tensors {
        h.update(name.as_bytes());
        h.update(&t.array().to_bytes());
    }
    h.finalize()
}

/// Writes the checkpoint; the one before stays until this one is whole.
pub fn save(run: &Trainer, data: u32, path: &Path) -> anyhow::Result<()> {
    let prefixed =
        |p: &'static str, s: StateDict| s.into_iter().map(move |(k, t)| (format!("{p}{k}"), t));
    let mut tensors: StateDict = prefixed(MODEL, run.net.state_dict())
        .chain(prefixed(OPTIMIZER, run.optimizer.state_dict()))
        .collect();
    let h = &run.history;
    tensors.insert(LOSS.into(), from_slice(&h.loss, [h.loss.len()]));
    tensors.insert(ACCURACY.into(), from_slice(&h.accuracy, [h.accuracy.len()]));
    let random = random::state();
    let meta = Meta {
        settings: run.settings.clone(),
        data,
        step: run.step,
        random_seed: random.seed,
        random_offset: random.offset,
        seconds: h.seconds,
        tests: h.tests.clone(),
        crc: crc(&tensors),
    };
    let meta = BTreeMap::from([(META.to_string(), serde_json::to_string(&meta)?)]);
    safetensors::save(path, &tensors, &meta).context("writing the checkpoint")
}

/// Takes up a checkpoint of the same run.
pub fn resume(run: &mut Trainer, data: u32, path: &Path) -> anyhow::Result<()> {
    let (mut tensors, meta) =
        safetensors::load_with_metadata(path).context("reading the checkpoint")?;
    let damaged = |why: String| anyhow::anyhow!("{}: damaged checkpoint: {why}", path.display());
    let Some(meta) = meta.get(META) else {
        bail!("{}: not a checkpoint of this command", path.display());
    };
    let meta: Meta = serde_json::from_str(meta).map_err(|e| damaged(e.to_string()))?;
    if meta.crc != crc(&tensors) {
        return Err(damaged("its checksum does not match".into()));
    }
    if meta.settings != run.settings {
        let Settings { epochs, batch_size, seed } = meta.settings;
        bail!(
            "{}: belongs to a run with --epochs {epochs} --batch-size {batch_size} --seed {seed}",
            path.display()
        );
    }
    if meta.data != data {
        bail!("{}: belongs to a run on other data", path.display());
    }
    let mut history = |name: &str| -> anyhow::Result<Vec<f32>> {
        let t: Option<Tensor> = tensors.remove(name);
        let values = t.map(|t| t.to_vec::<f32>()).filter(|v| v.len() as u64 == meta.step);
        values.ok_or_else(|| damaged(format!("`{name}` does not cover {} steps", meta.step)))
    };
    let (loss, accuracy) = (history(LOSS)?, history(ACCURACY)?);
    let part = |prefix: &str| -> StateDict {
        tensors
            .iter()
            .filter_map(|(k, t)| Some((k.strip_prefix(prefix)?.to_string(), t.clone())))
            .collect()
    };
    run.net.load_state_dict(&part(MODEL), true).with_context(|| path.display().to_string())?;
    run.optimizer.load_state_dict(&part(OPTIMIZER)).with_context(|| path.display().to_string())?;
    run.step = meta.step;
    run.schedule.seek(meta.step, &mut run.optimizer);
    run.history = History { loss, accuracy, tests: meta.tests, seconds: meta.seconds };
    random::set_state(random::State { seed: meta.random_seed, offset: meta.random_offset });
    Ok(())
}
