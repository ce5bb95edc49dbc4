//! Workers that fail what they are given, one leg after another: each is avoided for a pause that grows, then tried with
//! one leg at a time until one succeeds. Knows no request.

use std::collections::BTreeMap;

use super::strain::{PairPause, Strains};
use crate::{InstanceId, Time};

/// Most workers whose failures are counted; beyond it counting begins anew.
const COUNTED_MAX: usize = 1_024;

/// When a worker is avoided, and for how long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BreakerConfig {
    /// Failures in a row after which a worker is avoided; 0 never avoids one.
    pub failures_max: u32,
    /// Pause before it is tried again.
    pub pause: PairPause,
}

impl Default for BreakerConfig {
    fn default() -> Self {
        BreakerConfig { failures_max: 3, pause: PairPause::default() }
    }
}

/// What a worker has done with a leg. Refusals and lost hand-offs are neither: the worker may be well.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Conduct {
    /// It has done its part.
    Served,
    /// It failed, or was lost.
    Failed,
}

/// Change in how a worker is treated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Treatment {
    /// It gets legs only if there is no other worker, and one for a try after each pause.
    Avoided,
    /// It gets legs as before.
    Trusted,
}

/// Circuit breakers of all workers.
#[derive(Debug, Clone, Default)]
pub(super) struct Breakers {
    /// Failures in a row, of workers that are trusted.
    failures: BTreeMap<InstanceId, u32>,
    avoided: Strains<InstanceId>,
}

impl Breakers {
    pub(super) fn learn(
        &mut self,
        now: Time,
        worker: InstanceId,
        conduct: Conduct,
        config: BreakerConfig,
    ) -> Option<Treatment> {
        match conduct {
            Conduct::Served => {
                self.failures.remove(&worker);
                self.avoided.arrived(worker).then_some(Treatment::Trusted)
            }
            Conduct::Failed if self.avoided.knows(worker) => {
                self.avoided.lost(now, worker, config.pause);
                None
            }
            Conduct::Failed => self.failed(now, worker, config),
        }
    }

    fn failed(&mut self, now: Time, worker: InstanceId, config: BreakerConfig) -> Option<Treatment> {
        if self.failures.len() >= COUNTED_MAX {
            self.failures.clear();
        }
        let failures = self.failures.entry(worker).or_insert(0);
        *failures += 1;
        if config.failures_max == 0 || *failures < config.failures_max {
            return None;
        }
        self.failures.remove(&worker);
        self.avoided.lost(now, worker, config.pause);
        Some(Treatment::Avoided)
    }

    /// Records that a leg goes to a worker: after its pause, the one that tries it.
    pub(super) fn tried(&mut self, now: Time, worker: InstanceId) {
        self.avoided.tried(now, worker);
    }

    pub(super) fn avoids(&self, now: Time, worker: InstanceId) -> bool {
        self.avoided.avoids(now, worker)
    }

    /// True if no worker is avoided.
    pub(super) fn is_empty(&self) -> bool {
        self.avoided.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Span;

    const ONE: InstanceId = InstanceId(1);
    const CONFIG: BreakerConfig =
        BreakerConfig { failures_max: 3, pause: PairPause { first: Span::from_ms(100), max: Span::from_ms(400) } };

    fn at(ms: u64) -> Time {
        Time(ms * 1_000)
    }

    fn fails(breakers: &mut Breakers, ms: u64, times: u32) -> Option<Treatment> {
        (0..times).filter_map(|_| breakers.learn(at(ms), ONE, Conduct::Failed, CONFIG)).last()
    }

    #[test]
    fn only_failures_in_a_row_open_it() {
        let mut breakers = Breakers::default();
        assert_eq!(fails(&mut breakers, 0, 2), None);
        assert_eq!(breakers.learn(at(0), ONE, Conduct::Served, CONFIG), None, "it was trusted all the time");
        assert_eq!(fails(&mut breakers, 0, 2), None);
        assert!(!breakers.avoids(at(0), ONE) && breakers.is_empty());
        assert_eq!(fails(&mut breakers, 0, 1), Some(Treatment::Avoided));
        assert!(breakers.avoids(at(99), ONE) && !breakers.avoids(at(99), InstanceId(2)));
    }

    #[test]
    fn after_the_pause_one_leg_tries_it() {
        let mut breakers = Breakers::default();
        fails(&mut breakers, 0, 3);
        assert!(!breakers.avoids(at(100), ONE));
        breakers.tried(at(100), ONE);
        assert!(breakers.avoids(at(101), ONE), "the others wait for the outcome");
        assert_eq!(fails(&mut breakers, 110, 1), None, "it is avoided already");
        assert!(breakers.avoids(at(309), ONE) && !breakers.avoids(at(310), ONE), "for twice as long");
        breakers.tried(at(310), ONE);
        assert_eq!(breakers.learn(at(320), ONE, Conduct::Served, CONFIG), Some(Treatment::Trusted));
        assert!(breakers.is_empty());
        assert_eq!(fails(&mut breakers, 330, 2), None, "it counts from the beginning");
    }

    #[test]
    fn it_can_be_switched_off_and_what_it_counts_is_bounded() {
        let mut breakers = Breakers::default();
        let off = BreakerConfig { failures_max: 0, ..CONFIG };
        assert!((0..100).all(|_| breakers.learn(at(0), ONE, Conduct::Failed, off).is_none()));
        for worker in 0..5_000 {
            breakers.learn(at(0), InstanceId(worker), Conduct::Failed, CONFIG);
        }
        assert!(breakers.failures.len() <= COUNTED_MAX);
    }
}
