//! What has lost something, each avoided for a pause that grows with every loss in a row: pairs that have lost hand-offs,
//! workers that have failed legs. Knows no request.

use std::collections::BTreeMap;

use crate::{InstanceId, Span, Time};

/// Pause in which a pair that has lost a hand-off, or a worker that fails, is avoided.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PairPause {
    /// Pause after the first loss; doubled with each further one in a row.
    pub first: Span,
    /// Longest pause.
    pub max: Span,
}

impl Default for PairPause {
    fn default() -> Self {
        PairPause { first: Span::from_ms(500), max: Span::from_secs(30) }
    }
}

/// Giver and reader.
pub(super) type Pair = (InstanceId, InstanceId);

/// Pairs whose last hand-off was lost, or workers that have failed too often in a row.
#[derive(Debug, Clone)]
pub(super) struct Strains<K = Pair> {
    pauses: BTreeMap<K, Strain>,
}

impl<K> Default for Strains<K> {
    fn default() -> Self {
        Strains { pauses: BTreeMap::new() }
    }
}

#[derive(Debug, Clone, Copy)]
struct Strain {
    pause: Span,
    until: Time,
    stage: Stage,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// Used only by requests that have no other pair.
    Rests,
    /// One request tries it after a pause, and the others wait for the outcome.
    Tried,
}

impl<K: Ord + Copy> Strains<K> {
    /// Records a lost hand-off. One lost during a pause began before it, or had no other pair: it is no further loss.
    pub(super) fn lost(&mut self, now: Time, pair: K, config: PairPause) {
        // Forget pairs that nobody has tried for so long since their pause ended.
        self.pauses.retain(|_, strain| now < strain.until + config.max);
        let pause = match self.pauses.get(&pair) {
            Some(Strain { stage: Stage::Rests, until, .. }) if now < *until => return,
            Some(strain) => Span(strain.pause.us().saturating_mul(2)),
            None => config.first,
        };
        let pause = pause.min(config.max);
        self.pauses.insert(pair, Strain { pause, until: now + pause, stage: Stage::Rests });
    }

    /// Records a hand-off that has arrived: the pair is as good as any. Returns whether it was not.
    pub(super) fn arrived(&mut self, pair: K) -> bool {
        self.pauses.remove(&pair).is_some()
    }

    /// True while the pair is avoided, or tried.
    pub(super) fn knows(&self, pair: K) -> bool {
        self.pauses.contains_key(&pair)
    }

    /// Records that a hand-off begins. After a pause one request tries the pair; the others avoid it until the outcome
    /// is known, or for as long again.
    pub(super) fn tried(&mut self, now: Time, pair: K) {
        if let Some(strain) = self.pauses.get_mut(&pair).filter(|strain| strain.until <= now) {
            (strain.until, strain.stage) = (now + strain.pause, Stage::Tried);
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.pauses.is_empty()
    }

    pub(super) fn avoids(&self, now: Time, pair: K) -> bool {
        self.pauses.get(&pair).is_some_and(|strain| now < strain.until)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAIR: Pair = (InstanceId(1), InstanceId(2));
    const CONFIG: PairPause = PairPause { first: Span::from_ms(100), max: Span::from_ms(350) };

    fn at(ms: u64) -> Time {
        Time(ms * 1_000)
    }

    #[test]
    fn pauses_double_up_to_the_longest_and_end_with_a_hand_off_that_arrives() {
        let mut strains = Strains::default();
        assert!(!strains.avoids(at(0), PAIR));
        let mut now = 0;
        for pause in [100, 200, 350, 350] {
            strains.lost(at(now), PAIR, CONFIG);
            assert!(strains.avoids(at(now + pause - 1), PAIR) && !strains.avoids(at(now + pause), PAIR), "{pause}");
            now += pause;
        }
        strains.arrived(PAIR);
        strains.lost(at(now), PAIR, CONFIG);
        assert!(!strains.avoids(at(now + 100), PAIR), "it begins anew");
    }

    #[test]
    fn losses_of_one_moment_are_one_loss() {
        let mut strains = Strains::default();
        (0..50).for_each(|ms| strains.lost(at(ms), PAIR, CONFIG));
        assert!(strains.avoids(at(99), PAIR) && !strains.avoids(at(100), PAIR));
    }

    #[test]
    fn after_a_pause_one_request_tries_for_all() {
        let mut strains = Strains::default();
        strains.lost(at(0), PAIR, CONFIG);
        strains.tried(at(50), PAIR);
        assert!(!strains.avoids(at(100), PAIR), "a last resort prolongs nothing");
        strains.tried(at(120), PAIR);
        assert!(strains.avoids(at(121), PAIR) && !strains.avoids(at(220), PAIR));
        // What the try has lost is another loss, also while the others wait for it.
        strains.lost(at(130), PAIR, CONFIG);
        strains.lost(at(131), PAIR, CONFIG);
        assert!(strains.avoids(at(329), PAIR) && !strains.avoids(at(330), PAIR));
    }

    #[test]
    fn a_pair_that_nobody_tries_is_forgotten() {
        let mut strains = Strains::default();
        strains.lost(at(0), PAIR, CONFIG);
        strains.lost(at(10_000), (InstanceId(3), InstanceId(2)), CONFIG);
        assert_eq!(strains.pauses.len(), 1);
    }
}
