//! The state of a training run in one file.

use super::train::{History, Settings, Test, Trainer};
use anyhow::{Context, bail};
use serde::{Deserialize, Serialize};
use sinter::io::Checkpoint;
use sinter::nn::{Module, StateDict};
use sinter::optim::Optimizer;
use sinter::{DType, from_slice, random};
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
}

const META: &str = "sinter.demo";
const MODEL: &str = "model";
const OPTIMIZER: &str = "optimizer";
const HISTORY: &str = "history";
const LOSS: &str = "loss";
const ACCURACY: &str = "accuracy";

/// Writes the checkpoint; the one before stays until this one is whole.
pub fn save(run: &Trainer, data: u32, path: &Path) -> anyhow::Result<()> {
    let h = &run.history;
    let random = random::state();
    let meta = Meta {
        settings: run.settings.clone(),
        data,
        step: run.step,
        random_seed: random.seed,
        random_offset: random.offset,
        seconds: h.seconds,
        tests: h.tests.clone(),
    };
    let mut c = Checkpoint::new();
    c.put(MODEL, run.net.state_dict());
    c.put(OPTIMIZER, run.optimizer.state_dict());
    c.put(
        HISTORY,
        StateDict::from([
            (LOSS.to_string(), from_slice(&h.loss, [h.loss.len()])),
            (ACCURACY.to_string(), from_slice(&h.accuracy, [h.accuracy.len()])),
        ]),
    );
    c.set(META, serde_json::to_string(&meta)?);
    c.save(path).context("writing the checkpoint")
}

/// Takes up a checkpoint of the same run.
pub fn resume(run: &mut Trainer, data: u32, path: &Path) -> anyhow::Result<()> {
    let c = Checkpoint::load(path).context("reading the checkpoint")?;
    let damaged = |why: String| anyhow::anyhow!("{}: damaged checkpoint: {why}", path.display());
    let Some(meta) = c.get(META) else {
        bail!("{}: not a checkpoint of this command", path.display());
    };
    let meta: Meta = serde_json::from_str(meta).map_err(|e| damaged(e.to_string()))?;
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
    let kept = c.part(HISTORY);
    let history = |name: &str| -> anyhow::Result<Vec<f32>> {
        let t = kept.get(name).filter(|t| t.dtype() == DType::F32);
        let values = t.map(|t| t.to_vec::<f32>()).filter(|v| v.len() as u64 == meta.step);
        values.ok_or_else(|| damaged(format!("`{name}` does not cover {} steps", meta.step)))
    };
    let (loss, accuracy) = (history(LOSS)?, history(ACCURACY)?);
    let file = || path.display().to_string();
    run.net.load_state_dict(&c.part(MODEL), true).with_context(file)?;
    run.optimizer.load_state_dict(&c.part(OPTIMIZER)).with_context(file)?;
    run.step = meta.step;
    run.schedule.seek(meta.step, &mut run.optimizer);
    run.history = History { loss, accuracy, tests: meta.tests, seconds: meta.seconds };
    random::set_state(random::State { seed: meta.random_seed, offset: meta.random_offset });
    Ok(())
}
