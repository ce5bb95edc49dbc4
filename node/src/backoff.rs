//! Pauses between attempts that double up to a limit; knows nothing of the attempts.

use std::time::Duration;

/// Pauses between the attempts at one thing.
#[derive(Debug, Clone)]
pub struct Backoff {
    first: Duration,
    next: Duration,
}

impl Backoff {
    /// Starts with a pause of `first`.
    #[must_use]
    pub fn from(first: Duration) -> Backoff {
        Backoff { first, next: first }
    }

    /// Returns the next pause, at most `max`, and doubles the one after it. A smaller `max` does not undo growth under
    /// a larger one.
    pub fn next_up_to(&mut self, max: Duration) -> Duration {
        let pause = self.next.min(max);
        self.next = self.next.max((self.next * 2).min(max));
        pause
    }

    /// Makes the next pause the first one again, after a success.
    pub fn reset(&mut self) {
        self.next = self.first;
    }

    /// Returns true if no attempt has failed since the last [`Backoff::reset`].
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
