//! The global random stream.
//!
//! Numbers come from the counter-based generator Philox: number `i` of a stream
//! depends on the seed and on `i` alone, so the same program gives the same
//! numbers on any number of threads.

use std::sync::Mutex;

static STATE: Mutex<State> = Mutex::new(State { seed: 0, offset: 0 });

/// Where the random stream stands; see [`state`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct State {
    /// The stream.
    pub seed: u64,
    /// How far it has been used.
    pub offset: u64,
}

/// Starts the random stream `seed` from its beginning.
///
/// ```
/// sinter::manual_seed(7);
/// let a = sinter::rand([3]).to_vec::<f32>();
/// sinter::manual_seed(7);
/// assert_eq!(sinter::rand([3]).to_vec::<f32>(), a);
/// ```
pub fn manual_seed(seed: u64) {
    set_state(State { seed, offset: 0 });
}

/// Where the random stream stands, to come back to with [`set_state`].
pub fn state() -> State {
    *STATE.lock().unwrap_or_else(|e| e.into_inner())
}

/// Continues the random stream from a state taken before.
pub fn set_state(state: State) {
    *STATE.lock().unwrap_or_else(|e| e.into_inner()) = state;
}

/// Takes the next part of the stream, long enough for `n` numbers: its seed and
/// where it begins.
#[track_caller]
pub(crate) fn reserve(n: usize) -> (u64, u64) {
    crate::trace::forbid_random();
    let mut s = STATE.lock().unwrap_or_else(|e| e.into_inner());
    let at = s.offset;
    // A number needs at most one 128-bit draw.
    s.offset += n.max(1) as u64;
    (s.seed, at)
}
