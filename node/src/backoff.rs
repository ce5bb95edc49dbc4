//! Pauses between tries that double up to a limit; knows not what is tried.

use std::time::Duration;

/// The pauses of one thing that is tried again and again.
#[derive(Debug, Clone)]
pub struct Backoff {
    first: Duration,
    next: Duration,
}

impl Backoff {
    /// Pauses that begin with `first`.
    #[must_use]
    pub fn from(first: Duration) -> Backoff {
        Backoff { first, next: first }
    }

    /// The next pause, at most `max` long; the one after it is twice as long. A shorter `max` takes nothing back of what
    /// has grown under a longer one.
    pub fn next_up_to(&mut self, max: Duration) -> Duration {
        let pause = self.next.min(max);
        self.next = self.next.max((self.next * 2).min(max));
        pause
    }

    /// All is well: the next pause is the first one again.
    pub fn reset(&mut self) {
        self.next = self.first;
    }

    /// Whether no try has failed since the last [`Backoff::reset`].
    #[must_use]
    pub fn is_fresh(&self) -> bool {
        self.next == self.first
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_a_limit_and_begin_anew() {
        let mut backoff = Backoff::from(Duration::from_millis(50));
        let mut pauses = |max_ms| backoff.next_up_to(Duration::from_millis(max_ms)).as_millis();
        assert_eq!([500, 500, 500, 120, 120, 500].map(&mut pauses), [50, 100, 200, 120, 120, 400]);
        assert!(!backoff.is_fresh());
        backoff.reset();
        assert!(backoff.is_fresh());
        assert_eq!(backoff.next_up_to(Duration::from_millis(20)).as_millis(), 20, "the limit holds from the first on");
    }
}
