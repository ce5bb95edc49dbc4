//! Rate limit of log lines that strangers can cause, with a count of those left out. Knows no log and no clock.

use std::time::{Duration, Instant};

#[derive(Debug)]
pub(crate) struct Seldom {
    every: Duration,
    said: Option<Instant>,
    unsaid: u64,
}

impl Seldom {
    pub(crate) fn once_in(every: Duration) -> Seldom {
        Seldom { every, said: None, unsaid: 0 }
    }

    /// Asks for a line: returns the number of lines suppressed since the last one, or `None` if it is too early.
    pub(crate) fn say(&mut self, now: Instant) -> Option<u64> {
        if self.said.is_some_and(|at| now.saturating_duration_since(at) < self.every) {
            self.unsaid += 1;
            return None;
        }
        self.said = Some(now);
        Some(std::mem::take(&mut self.unsaid))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_is_said_and_the_next_thousand_are_counted() {
        let every = Duration::from_secs(10);
        let (begun, mut seldom) = (Instant::now(), Seldom::once_in(every));
        assert_eq!(seldom.say(begun), Some(0));
        assert!((0..1_000).all(|_| seldom.say(begun + every / 2).is_none()));
        assert_eq!(seldom.say(begun + every), Some(1_000));
        assert_eq!(seldom.say(begun + every * 2), Some(0));
    }
}
