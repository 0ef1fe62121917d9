//! Taking times.

use sinter_kernels::{clock, par};
use sinter_runtime::program::RunError;
use std::time::{Duration, Instant};

/// One way to compute something.
pub struct Form<'a> {
    /// What is special about it; the first form is the rule's.
    pub label: &'a str,
    /// Computes it once.
    pub run: &'a mut dyn FnMut() -> Result<(), RunError>,
}

/// What is measured, and for how long.
#[derive(Clone, Copy, Debug)]
pub struct Problem<'a> {
    /// What is computed.
    pub what: &'a str,
    /// The longest that measuring may take.
    pub limit: Duration,
    /// Whether it works with memory that other work has pushed out of the nearer caches.
    pub cold: bool,
}

/// Who takes the times of forms. There is [`Clock`]; tests and programs that show
/// progress have others.
pub trait Measure {
    /// Seconds of each form, round by round: in a round every form has its turn. A form
    /// without times is out of the question. There are no rounds where the limit allows
    /// too few to tell anything.
    ///
    /// # Errors
    /// When a form cannot be run.
    fn rounds(
        &mut self,
        problem: Problem<'_>,
        forms: &mut [Form<'_>],
    ) -> Result<Vec<Vec<f64>>, RunError>;

    /// Says how far tuning is: `done` of `all` seconds that it may take.
    fn progress(&mut self, _done: Duration, _all: Duration, _what: &str) {}
}

/// Rounds that tell something, at least, and rounds that suffice.
const ROUNDS: std::ops::Range<usize> = 7..31;
/// A turn of short runs.
const TURN: f64 = 200e-6;
/// How many times as long as the rule a form may take before it is dropped.
const HOPELESS: f64 = 1.5;

/// The clock of the machine. With one thread it stands still while other processes have
/// the processor.
#[derive(Debug)]
pub struct Clock {
    /// What is read to push other things out of the second-level cache.
    broom: Vec<u64>,
}

impl Default for Clock {
    fn default() -> Clock {
        Clock::new()
    }
}

impl Clock {
    /// A clock.
    pub fn new() -> Clock {
        Clock { broom: vec![] }
    }

    fn sweep(&mut self) {
        // Twice a large second-level cache.
        self.broom.resize(512 << 10, 1);
        let sum = self.broom.iter().step_by(8).fold(0u64, |a, b| a.wrapping_add(*b));
        std::hint::black_box(sum);
    }

    fn turn(&mut self, form: &mut Form<'_>, cold: bool, times: u32) -> Result<f64, RunError> {
        if cold {
            self.sweep();
        }
        let thread = || if par::threads() == 1 { clock::thread_seconds() } else { None };
        let (start, begun) = (Instant::now(), thread());
        for _ in 0..times {
            (form.run)()?;
        }
        let seconds = match begun.zip(thread()) {
            Some((begun, done)) => done - begun,
            None => start.elapsed().as_secs_f64(),
        };
        Ok(seconds / f64::from(times))
    }
}

impl Measure for Clock {
    fn rounds(
        &mut self,
        problem: Problem<'_>,
        forms: &mut [Form<'_>],
    ) -> Result<Vec<Vec<f64>>, RunError> {
        let (start, cold) = (Instant::now(), problem.cold);
        let late = || start.elapsed() >= problem.limit;
        // The first runs take memory and warm things up.
        let mut once = vec![f64::INFINITY; forms.len()];
        for (form, once) in forms.iter_mut().zip(&mut once) {
            self.turn(form, false, 1)?;
            *once = self.turn(form, cold, 1)?;
            if late() {
                return Ok(vec![vec![]; forms.len()]);
            }
        }
        let in_question: Vec<bool> = once.iter().map(|t| *t <= once[0] * HOPELESS).collect();
        let times = if cold { 1 } else { (TURN / once[0].max(1e-9)).clamp(1.0, 1e4) as u32 };
        let mut rounds = vec![vec![]; forms.len()];
        for round in 0..ROUNDS.end {
            if late() {
                break;
            }
            // Nobody is always the one after somebody else.
            let n = forms.len();
            for i in (0..n).map(|i| if round % 2 == 0 { i } else { n - 1 - i }) {
                if in_question[i] {
                    rounds[i].push(self.turn(&mut forms[i], cold, times)?);
                }
            }
        }
        if rounds[0].len() < ROUNDS.start {
            rounds.iter_mut().for_each(Vec::clear);
        }
        Ok(rounds)
    }
}

/// The middle of some numbers.
pub(super) fn median(times: &[f64]) -> Option<f64> {
    let mut t = times.to_vec();
    t.sort_unstable_by(f64::total_cmp);
    t.get(t.len() / 2).copied()
}

/// Of the rule's time, what a form that takes its place may need.
const MARGIN: f64 = 0.97;
/// In how many of ten rounds it has to be faster.
const OF_TEN: usize = 8;

/// Whether a form beats the rule by more than noise: in the median of the rounds by
/// [`MARGIN`], and in [`OF_TEN`] of ten rounds at all.
pub(super) fn beats(form: &[f64], rule: &[f64]) -> bool {
    if form.is_empty() || form.len() != rule.len() {
        return false;
    }
    let ratios: Vec<f64> = form.iter().zip(rule).map(|(a, b)| a / b).collect();
    let faster = ratios.iter().filter(|r| **r < 1.0).count();
    median(&ratios).is_some_and(|r| r < MARGIN) && faster * 10 >= ratios.len() * OF_TEN
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn noise_beats_nobody() {
        let rule = [10.0, 11.0, 10.0, 12.0, 10.0, 10.0, 11.0, 10.0, 13.0, 10.0];
        assert!(!beats(&rule, &rule));
        let closely = rule.map(|t| t * 0.98);
        assert!(!beats(&closely, &rule));
        let clearly = rule.map(|t| t * 0.9);
        assert!(beats(&clearly, &rule));
        let mut sometimes = clearly;
        sometimes[..3].copy_from_slice(&[20.0, 20.0, 20.0]);
        assert!(!beats(&sometimes, &rule));
        assert!(!beats(&[], &[]) && !beats(&[], &rule));
    }

    #[test]
    fn forms_take_turns_until_time_is_up() {
        let said = std::cell::RefCell::new(vec![]);
        let say = |who: char| -> Result<(), RunError> {
            said.borrow_mut().push(who);
            Ok(())
        };
        let (mut a, mut b) = (|| say('a'), || say('b'));
        let mut forms = [Form { label: "", run: &mut a }, Form { label: "b", run: &mut b }];
        let problem = Problem { what: "", limit: Duration::ZERO, cold: true };
        let rounds = Clock::new().rounds(problem, &mut forms).unwrap();
        assert!(rounds.iter().all(Vec::is_empty), "no time, nothing told");
        let problem = Problem { limit: Duration::from_secs(60), ..problem };
        let rounds = Clock::new().rounds(problem, &mut forms).unwrap();
        assert_eq!(rounds[0].len(), ROUNDS.end);
        assert!(said.borrow().contains(&'a') && said.borrow().contains(&'b'));
    }
}
