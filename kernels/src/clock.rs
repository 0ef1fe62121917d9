//! Taking times.

/// Seconds that this thread has computed for, on a clock that stands still while others
/// have its processor; `None` where the system has none.
pub fn thread_seconds() -> Option<f64> {
    #[cfg(unix)]
    {
        let mut t = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        // SAFETY: the system writes one `timespec`.
        let done = unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &mut t) };
        (done == 0).then_some(t.tv_sec as f64 + t.tv_nsec as f64 * 1e-9)
    }
    #[cfg(not(unix))]
    {
        None
    }
}

#[cfg(test)]
mod tests {
    #[test]
    #[cfg(unix)]
    fn it_runs_while_the_thread_does() {
        let start = super::thread_seconds().unwrap();
        while super::thread_seconds().unwrap() == start {}
        assert!(super::thread_seconds().unwrap() > start);
    }
}
