//! Pauses of a link before it tries to meet a giver again; knows no address.

use std::time::Duration;

use node::backoff::Backoff;

/// First pause; each further one is twice as long.
const FIRST: Duration = Duration::from_millis(50);
/// Longest pause where a process answers and cannot be read from: another may replace it.
const TROUBLE_MAX: Duration = Duration::from_secs(2);
/// Time up after which earlier trouble is forgotten, so a giver that keeps ending costs at most one try in this time.
const LIFE_MIN: Duration = Duration::from_secs(1);
/// Longest pause where no process answers: a giver that starts there must not wait long for its readers.
const ABSENCE_MAX: Duration = Duration::from_millis(500);
/// Pause while it is open whether a giver that has fallen silent is lost.
const SILENCE: Duration = Duration::from_millis(50);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum After {
    /// A giver that was up a moment ago does not answer.
    Silence,
    /// No process answers.
    Absence,
    /// A process answers, or did until now, but cannot be read from.
    Trouble,
}

#[derive(Debug)]
pub(super) struct Pauses {
    backoff: Backoff,
}

impl Pauses {
    pub(super) fn new() -> Pauses {
        Pauses { backoff: Backoff::from(FIRST) }
    }

    pub(super) fn next(&mut self, after: After) -> Duration {
        let max = match after {
            After::Silence => return SILENCE,
            After::Absence => ABSENCE_MAX,
            After::Trouble => TROUBLE_MAX,
        };
        // Bounded by `max`, so that a long absence does not make the first trouble after it wait long.
        self.backoff.next_up_to(max)
    }

    pub(super) fn lived(&mut self, life: Duration) {
        if life >= LIFE_MIN {
            self.backoff.reset();
        }
    }

    pub(super) fn is_fresh(&self) -> bool {
        self.backoff.is_fresh()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Found by trying: frequent tries for a giver that had fallen silent made the pauses after its loss 10 s long.
    #[test]
    fn a_giver_that_is_started_again_is_not_waited_for_long() {
        let mut pauses = Pauses::new();
        assert!((0..100).all(|_| pauses.next(After::Silence) == SILENCE) && pauses.is_fresh());
        assert_eq!(pauses.next(After::Absence), FIRST);
        assert!((0..100).all(|_| pauses.next(After::Absence) <= ABSENCE_MAX));
        assert!(pauses.next(After::Trouble) <= ABSENCE_MAX, "it was started before its reader, and killed at once");
    }

    #[test]
    fn trouble_makes_pauses_grow_until_all_is_well() {
        let mut pauses = Pauses::new();
        let grown: Vec<u128> = (0..10).map(|_| pauses.next(After::Trouble).as_millis()).collect();
        assert_eq!(grown, [50, 100, 200, 400, 800, 1600, 2_000, 2_000, 2_000, 2_000]);
    }

    /// Found by trying: a reader that had seen five restarts of a giver was slow to meet it again for good.
    #[test]
    fn a_giver_that_was_up_is_met_again_at_once_however_often_it_ends() {
        let mut pauses = Pauses::new();
        for _ in 0..20 {
            assert_eq!(pauses.next(After::Trouble), FIRST);
            pauses.next(After::Absence);
            pauses.lived(LIFE_MIN);
        }
        let ends_at_once: Vec<Duration> = (0..8)
            .map(|_| {
                pauses.lived(LIFE_MIN / 2);
                pauses.next(After::Trouble)
            })
            .collect();
        assert_eq!(ends_at_once.last(), Some(&TROUBLE_MAX));
    }
}
