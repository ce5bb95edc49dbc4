//! Silent workers, by when each was last heard; knows nothing else of them.

use std::collections::{BTreeMap, BTreeSet};

use crate::{Span, Time, WorkerId};

/// Beats without a word after which a worker gets no new work once another is lost.
const BEATS_DOUBTED: u64 = 1;
/// Beats without a word after which a worker gets no new work.
const BEATS_QUIET: u64 = 3;
/// Beats without a word after which a worker is given up.
const BEATS_LOST: u64 = 6;

/// Time at which each worker was last heard. Every worker owes a word per beat.
#[derive(Debug, Clone)]
pub struct Silences {
    beat: Span,
    workers: BTreeMap<WorkerId, Heard>,
    /// Time at which the silence of each worker has its next consequence.
    dues: BTreeSet<(Time, WorkerId)>,
}

#[derive(Debug, Clone, Copy)]
struct Heard {
    at: Time,
    quiet: Quiet,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Quiet {
    No,
    Noticed,
}

/// Consequence of a worker's silence.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Silence {
    /// No new work goes to the worker until it is heard again.
    Quiet(WorkerId),
    /// The worker is given up and has to join anew.
    Lost(WorkerId),
}

/// Meaning of a worker's word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Word {
    /// The worker was not quiet.
    Expected,
    /// The worker had been quiet; it may get new work again.
    Returned,
}

impl Silences {
    /// Begins without workers; each will owe a word per `beat`.
    #[must_use]
    pub fn new(beat: Span) -> Silences {
        Silences { beat, workers: BTreeMap::new(), dues: BTreeSet::new() }
    }

    /// Records a word of a worker; its joining is its first word.
    pub fn heard(&mut self, now: Time, id: WorkerId) -> Word {
        let before = self.note(id, Heard { at: now, quiet: Quiet::No });
        match before.map(|heard| heard.quiet) {
            Some(Quiet::Noticed) => Word::Returned,
            Some(Quiet::No) | None => Word::Expected,
        }
    }

    /// Forgets a worker that is gone.
    pub fn forget(&mut self, id: WorkerId) {
        if let Some(heard) = self.workers.remove(&id) {
            self.dues.remove(&(self.due(heard), id));
        }
    }

    /// Returns the workers that owe a word when another is lost; they are quiet from now on. Workers of one host fall
    /// silent together, as when it is suspended: legs must not go from one to the next until all attempts are lost.
    pub fn doubt(&mut self, now: Time) -> Vec<WorkerId> {
        let patience = Span(self.beat.us().saturating_mul(BEATS_DOUBTED));
        let owes = |heard: &Heard| heard.quiet == Quiet::No && now.since(heard.at) > patience;
        let owing = self.workers.iter().filter(|(_, heard)| owes(heard));
        let owing: Vec<(WorkerId, Heard)> = owing.map(|(id, heard)| (*id, *heard)).collect();
        for (id, heard) in &owing {
            self.note(*id, Heard { quiet: Quiet::Noticed, ..*heard });
        }
        owing.into_iter().map(|(id, _)| id).collect()
    }

    /// Time by which `poll` must be called.
    #[must_use]
    pub fn next_timeout(&self) -> Option<Time> {
        self.dues.first().map(|(due, _)| *due)
    }

    /// Returns the next consequence that is due. After a call more than a beat late the caller was held up itself and
    /// words of workers wait to be read, so every worker gets its time anew.
    pub fn poll(&mut self, now: Time) -> Option<Silence> {
        let (due, id) = self.dues.first().copied().filter(|(due, _)| *due <= now)?;
        if now.since(due) > self.beat {
            let all: Vec<(WorkerId, Heard)> = self.workers.iter().map(|(id, heard)| (*id, *heard)).collect();
            for (id, heard) in all {
                self.note(id, Heard { at: now, ..heard });
            }
            return None;
        }
        let heard = *self.workers.get(&id)?;
        match heard.quiet {
            Quiet::No => {
                self.note(id, Heard { quiet: Quiet::Noticed, ..heard });
                Some(Silence::Quiet(id))
            }
            Quiet::Noticed => {
                self.forget(id);
                Some(Silence::Lost(id))
            }
        }
    }

    /// Sets when a worker was heard and whether it is quiet; returns what was known before.
    fn note(&mut self, id: WorkerId, heard: Heard) -> Option<Heard> {
        let before = self.workers.insert(id, heard);
        if let Some(before) = before {
            self.dues.remove(&(self.due(before), id));
        }
        self.dues.insert((self.due(heard), id));
        before
    }

    fn due(&self, heard: Heard) -> Time {
        let beats = match heard.quiet {
            Quiet::No => BEATS_QUIET,
            Quiet::Noticed => BEATS_LOST,
        };
        heard.at + Span(self.beat.us().saturating_mul(beats))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: WorkerId = WorkerId(1);
    const TWO: WorkerId = WorkerId(2);

    fn at(ms: u64) -> Time {
        Time(ms * 1_000)
    }

    /// Beats of 10 ms; both are heard at 0.
    fn both() -> Silences {
        let mut silences = Silences::new(Span::from_ms(10));
        assert_eq!(silences.heard(at(0), ONE), Word::Expected);
        assert_eq!(silences.heard(at(0), TWO), Word::Expected);
        silences
    }

    #[test]
    fn three_beats_make_a_worker_quiet_and_six_lose_it() {
        let mut silences = both();
        assert_eq!(silences.next_timeout(), Some(at(30)));
        assert_eq!(silences.poll(at(29)), None);
        assert_eq!(silences.heard(at(29), TWO), Word::Expected);
        assert_eq!(silences.poll(at(30)), Some(Silence::Quiet(ONE)));
        assert_eq!(silences.poll(at(30)), None);
        assert_eq!(silences.heard(at(50), TWO), Word::Expected);
        assert_eq!(silences.poll(at(60)), Some(Silence::Lost(ONE)));
        assert_eq!(silences.next_timeout(), Some(at(80)));
        silences.forget(TWO);
        assert_eq!(silences.next_timeout(), None);
    }

    #[test]
    fn a_word_ends_the_silence() {
        let mut silences = both();
        assert_eq!(silences.poll(at(31)), Some(Silence::Quiet(ONE)));
        assert_eq!(silences.poll(at(31)), Some(Silence::Quiet(TWO)));
        assert_eq!(silences.heard(at(40), ONE), Word::Returned);
        assert_eq!(silences.poll(at(61)), Some(Silence::Lost(TWO)));
        assert_eq!(silences.poll(at(71)), Some(Silence::Quiet(ONE)));
    }

    #[test]
    fn a_loss_makes_those_quiet_who_owe_a_word() {
        let mut silences = both();
        assert_eq!(silences.heard(at(9), TWO), Word::Expected);
        silences.forget(ONE);
        assert_eq!(silences.doubt(at(19)), [], "a beat has not passed");
        assert_eq!(silences.doubt(at(20)), [TWO]);
        assert_eq!(silences.doubt(at(20)), [], "it is quiet by now");
        assert_eq!(silences.next_timeout(), Some(at(69)), "it is given up no earlier");
        assert_eq!(silences.heard(at(21), TWO), Word::Returned);
    }

    #[test]
    fn who_looks_late_blames_nobody() {
        let mut silences = both();
        assert_eq!(silences.poll(at(500)), None);
        assert_eq!(silences.next_timeout(), Some(at(530)));
        assert_eq!(silences.poll(at(530)), Some(Silence::Quiet(ONE)));
    }
}
