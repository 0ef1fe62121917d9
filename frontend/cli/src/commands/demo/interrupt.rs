//! Ctrl-C: asks training to stop at the next step, ends anything else at once.

use anyhow::Context;
use std::sync::atomic::{AtomicU8, Ordering};

/// Nothing would be lost: end.
const IDLE: u8 = 0;
/// Something would be lost: ask.
const GUARDED: u8 = 1;
/// Asked.
const ASKED: u8 = 2;

static STATE: AtomicU8 = AtomicU8::new(IDLE);

/// What a shell expects of a program that SIGINT ended.
pub const EXIT_CODE: u8 = 130;

/// Listens to Ctrl-C (and termination) from now on.
pub fn listen() -> anyhow::Result<()> {
    ctrlc::set_handler(|| {
        let asked =
            STATE.compare_exchange(GUARDED, ASKED, Ordering::Relaxed, Ordering::Relaxed).is_ok();
        if !asked {
            std::process::exit(EXIT_CODE.into());
        }
    })
    .context("listening to Ctrl-C")
}

/// While it lives, Ctrl-C only asks; a second one ends the program.
pub struct Guard(());

impl Guard {
    /// Begins.
    pub fn new() -> Guard {
        STATE.store(GUARDED, Ordering::Relaxed);
        Guard(())
    }

    /// Whether Ctrl-C was pressed.
    pub fn asked(&self) -> bool {
        STATE.load(Ordering::Relaxed) == ASKED
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        STATE.store(IDLE, Ordering::Relaxed);
    }
}

/// The work was broken off on the user's wish; says how to go on.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Interrupted(pub String);
