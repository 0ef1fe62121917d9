//! The global random stream.
//!
//! Numbers come from the counter-based generator Philox: number `i` of a stream
//! depends on the seed and on `i` alone, so the same program gives the same
//! numbers on any number of threads.

use crate::tensor::Tensor;
use std::cell::RefCell;
use std::collections::VecDeque;
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
    let State { seed, offset } = RUNS.with_borrow_mut(|runs| {
        let from = runs.iter().rposition(|r| matches!(r, Run::Again(..)));
        let again = from.and_then(|i| match &mut runs[i] {
            Run::Again(parts) => parts.pop_front(),
            Run::First(_) => None,
        });
        let part = again.unwrap_or_else(|| advance(n));
        for r in &mut runs[from.map_or(0, |i| i + 1)..] {
            if let Run::First(parts) = r {
                parts.push(part);
            }
        }
        part
    });
    (seed, offset)
}

/// Takes `n` places of the stream for a program that draws from them.
pub(crate) fn take(n: u64) -> State {
    let mut s = STATE.lock().unwrap_or_else(|e| e.into_inner());
    let part = *s;
    s.offset += n;
    part
}

/// The next part of the stream, long enough for `n` numbers, as an op takes it: seed,
/// offset, and while a step of training is traced the operand that is added to both.
#[track_caller]
pub(crate) fn part(n: usize) -> (u64, u64, Option<Tensor>) {
    match crate::trace::draw(n) {
        Some((offset, place)) => (0, offset, Some(place)),
        None => {
            let (seed, offset) = reserve(n);
            (seed, offset, None)
        }
    }
}

fn advance(n: usize) -> State {
    let mut s = STATE.lock().unwrap_or_else(|e| e.into_inner());
    let part = *s;
    // A number needs at most one 128-bit draw.
    s.offset += n.max(1) as u64;
    part
}

/// A piece of code that may run again with the same random numbers, whatever other
/// threads draw meanwhile.
enum Run {
    /// The parts of the stream that it takes.
    First(Vec<State>),
    /// Those that it takes again.
    Again(VecDeque<State>),
}

thread_local! {
    /// Pieces of code under way on this thread, one inside the other.
    static RUNS: RefCell<Vec<Run>> = const { RefCell::new(Vec::new()) };
}

/// Ends a run.
struct End;

impl Drop for End {
    fn drop(&mut self) {
        RUNS.with_borrow_mut(|r| r.pop());
    }
}

/// Runs `f`; gives its result and the parts of the stream that it took.
pub(crate) fn noted<R>(f: impl FnOnce() -> R) -> (R, Vec<State>) {
    RUNS.with_borrow_mut(|r| r.push(Run::First(Vec::new())));
    let _end = End;
    let result = f();
    let parts = RUNS.with_borrow_mut(|r| match r.last_mut() {
        Some(Run::First(parts)) => std::mem::take(parts),
        _ => unreachable!("runs end in order"),
    });
    (result, parts)
}

/// Runs `f` with the parts of the stream that it took before.
pub(crate) fn again<R>(parts: &[State], f: impl FnOnce() -> R) -> R {
    RUNS.with_borrow_mut(|r| r.push(Run::Again(parts.iter().copied().collect())));
    let _end = End;
    f()
}
