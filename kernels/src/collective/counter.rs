//! A number in shared memory that one rank raises and others wait for; knows no meaning of the number.

use std::time::Duration;

use crate::sync::atomic::{AtomicU32, Ordering};
use crate::sync::{Instant, sleep_while, spin_until, wake_all};

/// Longest sleep before a rank checks again whether the group still exists.
const SLEEP_MAX: Duration = Duration::from_millis(50);

/// Duration of a wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Patience {
    /// Time to spin before sleeping; zero where ranks share cores.
    pub spin: Duration,
    /// Time after which the wait fails.
    pub limit: Duration,
}

/// A cache line with a number that only grows (and wraps), and some notes.
#[derive(Default)]
#[repr(C, align(64))]
pub(super) struct Counter {
    value: AtomicU32,
    sleepers: AtomicU32,
    /// Words that belong to the value: written before the value is raised, read after it was seen.
    pub(super) notes: [AtomicU32; 14],
}

/// Reason why a wait ended without its value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unmet {
    /// The group has ended.
    Over,
    /// The limit has passed.
    Late(Duration),
}

impl Counter {
    pub(super) fn value(&self) -> u32 {
        self.value.load(Ordering::Acquire)
    }

    /// Publishes `value` and all earlier writes, and wakes the ranks that wait for it.
    pub(super) fn raise(&self, value: u32) {
        // The value is stored before the sleepers are read, and a sleeper counts itself before it reads the value for
        // the last time: one of the two always sees the other.
        self.value.store(value, Ordering::SeqCst);
        if self.sleepers.load(Ordering::SeqCst) != 0 {
            wake_all(&self.value);
        }
    }

    /// Sets the value if it is still 0.
    pub(super) fn set_once(&self, value: u32) {
        let _an_earlier_one_stays = self.value.compare_exchange(0, value, Ordering::SeqCst, Ordering::SeqCst);
    }

    /// Waits until the value has reached `target`, `over` has any value, or the limit has passed.
    pub(super) fn wait_for(&self, target: u32, over: &Counter, patience: Patience) -> Result<(), Unmet> {
        let began = Instant::now();
        if spin_until(began, patience.spin, || has_reached(self.value(), target)) {
            return Ok(());
        }
        loop {
            if has_reached(self.value(), target) {
                return Ok(());
            }
            if over.value() != 0 {
                return Err(Unmet::Over);
            }
            let waited = began.elapsed();
            if waited >= patience.limit {
                return Err(Unmet::Late(waited));
            }
            self.sleep_unless(target, SLEEP_MAX.min(patience.limit - waited));
        }
    }

    fn sleep_unless(&self, target: u32, at_most: Duration) {
        self.sleepers.fetch_add(1, Ordering::SeqCst);
        let seen = self.value.load(Ordering::SeqCst);
        if !has_reached(seen, target) {
            sleep_while(&self.value, seen, at_most);
        }
        self.sleepers.fetch_sub(1, Ordering::SeqCst);
    }
}

/// Compares wrapping values, which are never further apart than half the range.
fn has_reached(value: u32, target: u32) -> bool {
    value.wrapping_sub(target) <= u32::MAX / 2
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHORT: Patience = Patience { spin: Duration::ZERO, limit: Duration::from_millis(20) };
    const LONG: Patience = Patience { spin: Duration::ZERO, limit: Duration::from_secs(20) };

    #[test]
    fn values_wrap() {
        assert!(has_reached(5, 5) && has_reached(6, 5) && !has_reached(4, 5));
        assert!(has_reached(1, u32::MAX) && !has_reached(u32::MAX, 1));
    }

    #[test]
    fn a_wait_ends_with_its_value_at_its_limit_or_with_the_group() {
        let (number, over) = (Counter::default(), Counter::default());
        assert!(matches!(number.wait_for(1, &over, SHORT), Err(Unmet::Late(_))));
        number.raise(1);
        assert_eq!(number.wait_for(1, &over, SHORT), Ok(()));
        over.set_once(7);
        over.set_once(8);
        assert_eq!(over.value(), 7);
        assert_eq!(number.wait_for(1, &over, SHORT), Ok(()), "what has come counts, even at the end");
        assert_eq!(number.wait_for(2, &over, LONG), Err(Unmet::Over));
    }

    #[test]
    fn no_wake_is_lost_between_two_sleepers() {
        let (ping, pong, over): (Counter, Counter, Counter) = Default::default();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for round in 1..=2000 {
                    ping.wait_for(round, &over, LONG).unwrap();
                    pong.raise(round);
                }
            });
            for round in 1..=2000 {
                ping.raise(round);
                pong.wait_for(round, &over, LONG).unwrap();
            }
        });
        assert_eq!((ping.sleepers.into_inner(), pong.sleepers.into_inner()), (0, 0));
    }
}
