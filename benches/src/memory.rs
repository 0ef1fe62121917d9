//! How much memory something takes at its peak, as the operating system counts it.

use serde::Serialize;
use std::io;

/// Bytes resident before something began, and at its peak.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Memory {
    /// Resident when it began.
    pub before: u64,
    /// The most that was resident since then.
    pub peak: u64,
    /// What it added at its peak; of files that are mapped, the program's own code among
    /// them, nothing.
    pub growth: u64,
}

/// Watches the peak of this process from when it was made.
pub struct Watch {
    before: u64,
    files: u64,
}

impl Watch {
    /// Begins at what is resident now: loading data and weights may have taken more
    /// for a moment.
    ///
    /// # Errors
    /// When the system does not let a process reset its peak (Linux does).
    pub fn start() -> io::Result<Watch> {
        reset()?;
        Ok(Watch { before: status("VmRSS:")?, files: status("RssFile:")? })
    }

    /// Forgets the peak so far, but not what there was before.
    ///
    /// # Errors
    /// As [`Watch::start`].
    pub fn restart(&self) -> io::Result<()> {
        reset()
    }

    /// The figures so far.
    ///
    /// # Errors
    /// When the system does not tell.
    pub fn read(&self) -> io::Result<Memory> {
        let peak = status("VmHWM:")?;
        let files = status("RssFile:")?.saturating_sub(self.files);
        let growth = peak.saturating_sub(self.before + files);
        Ok(Memory { before: self.before, peak, growth })
    }
}

fn reset() -> io::Result<()> {
    std::fs::write("/proc/self/clear_refs", "5")
}

/// A line of `/proc/self/status` that counts KiB, in bytes.
fn status(key: &str) -> io::Result<u64> {
    let text = std::fs::read_to_string("/proc/self/status")?;
    let line = text.lines().find_map(|l| l.strip_prefix(key));
    let kib = line.and_then(|l| l.trim().strip_suffix(" kB")?.parse::<u64>().ok());
    kib.map(|k| k * 1024).ok_or_else(|| io::Error::other(format!("/proc/self/status has no {key}")))
}
