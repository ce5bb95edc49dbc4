//! Failed accepts: how long to pause after one and how often to log them; knows no socket.

use std::io;
use std::time::{Duration, Instant};

/// Pause after a failed accept; then the oldest waiting connection is closed if descriptors or memory ran out.
pub(crate) const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// Time for the task or thread of a closed connection to release its descriptor.
pub(crate) const LEAVE_PAUSE: Duration = Duration::from_millis(2);
/// Shortest time between two log lines: without free descriptors every accept fails at once.
const LOG_EVERY: Duration = Duration::from_secs(60);

/// Whether an accept failed because this process or the system is out of descriptors or memory.
pub(crate) fn is_for_want_of_room(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM))
}

#[derive(Debug, Default)]
pub(crate) struct Failures {
    logged: Option<Instant>,
    unlogged: u64,
}

impl Failures {
    /// Logs the first failure; counts the following ones and logs them together.
    pub(crate) fn log(&mut self, error: &io::Error) {
        if let Some(more) = self.note(Instant::now()) {
            tracing::warn!(%error, more_since_the_last_line = more, "could not accept a reader");
        }
    }

    /// Counts a failure; when a log line is due, returns the failures that were not logged since the last line.
    fn note(&mut self, now: Instant) -> Option<u64> {
        if self.logged.is_some_and(|at| now.saturating_duration_since(at) < LOG_EVERY) {
            self.unlogged += 1;
            return None;
        }
        self.logged = Some(now);
        Some(std::mem::take(&mut self.unlogged))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_failure_is_logged_and_the_next_thousand_are_counted() {
        let (begun, mut failures) = (Instant::now(), Failures::default());
        assert_eq!(failures.note(begun), Some(0));
        assert!((0..1_000).all(|_| failures.note(begun + LOG_EVERY / 2).is_none()));
        assert_eq!(failures.note(begun + LOG_EVERY), Some(1_000));
        assert_eq!(failures.note(begun + LOG_EVERY * 2), Some(0));
    }

    #[test]
    fn only_want_of_room_turns_anybody_out() {
        assert!(is_for_want_of_room(&io::Error::from_raw_os_error(libc::EMFILE)));
        assert!(is_for_want_of_room(&io::Error::from_raw_os_error(libc::ENFILE)));
        assert!(!is_for_want_of_room(&io::Error::from_raw_os_error(libc::ECONNABORTED)));
    }
}
