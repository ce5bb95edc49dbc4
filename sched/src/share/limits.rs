//! Shares at which a target was missed: what keeps `feedback` from going back and forth; knows no latency curve.
//!
//! More of the device never makes a lane slower. So a share at which prefill was late is too small for it, as are all
//! smaller ones, and a share at which decode was slow is too large for decode, as are all larger ones. Where the two
//! limits meet, no share is left. Algorithm 1 of semi-PD remembers nothing: at the border it gives a step to one lane,
//! sees the other one miss, and takes it back, for ever.

use super::split::{Divisions, Parts};
use crate::cost::Phase;

/// Windows for which a limit holds after it was last seen. It doubles whenever the limit has ended and is found again,
/// so that a border is tried ever more rarely.
const TRUST_WINDOWS: u32 = 10;
const TRUST_WINDOWS_MAX: u32 = 16 * TRUST_WINDOWS;
/// A latency so far below its target belongs to a lighter load than the one at which the limit was found.
const LIGHT_LOAD_RATIO: f64 = 1.0 / 3.0;

/// The limits of both lanes.
#[derive(Debug, Clone, Default)]
pub(super) struct Limits {
    prefill: Option<Limit>,
    decode: Option<Limit>,
}

/// The best share at which a lane was seen to miss its target.
#[derive(Debug, Clone, Copy)]
struct Limit {
    parts: Parts,
    age: u32,
    trust: u32,
}

impl Limits {
    /// True if a lane is expected to miss its target at this share.
    pub(super) fn rule_out(&self, phase: Phase, parts: Parts) -> bool {
        self.of(phase).is_some_and(|limit| limit.holds() && limit.covers(phase, parts))
    }

    /// Takes in a window at this share: the latency of a lane as a multiple of its target, if it is known. A limit that
    /// was set above 1 is lifted below `clearly_met` only, or noise would set and lift it at the border.
    pub(super) fn learn(&mut self, device: Divisions, phase: Phase, here: Parts, ratio: Option<f64>, clearly_met: f64) {
        let former = self.of(phase).map(|limit| Limit { age: limit.age.saturating_add(1), ..limit });
        let limit = match ratio {
            Some(ratio) if ratio > 1.0 => Some(Limit::missed(former, phase, here)),
            Some(ratio) => former.filter(|limit| limit.ratio_max(device, phase, here, ratio) > clearly_met),
            None => former,
        };
        match phase {
            Phase::Prefill => self.prefill = limit,
            Phase::Decode => self.decode = limit,
        }
    }

    fn of(&self, phase: Phase) -> Option<Limit> {
        match phase {
            Phase::Prefill => self.prefill,
            Phase::Decode => self.decode,
        }
    }
}

impl Limit {
    fn missed(former: Option<Limit>, phase: Phase, here: Parts) -> Limit {
        match former {
            Some(limit) if limit.parts == here && limit.holds() => Limit { age: 0, ..limit },
            Some(limit) if limit.parts == here => {
                Limit { age: 0, trust: (2 * limit.trust).min(TRUST_WINDOWS_MAX), ..limit }
            }
            Some(limit) if limit.holds() && limit.covers(phase, here) => limit,
            Some(_) | None => Limit { parts: here, age: 0, trust: TRUST_WINDOWS },
        }
    }

    fn holds(&self) -> bool {
        self.age < self.trust
    }

    /// True if a lane has no more at these parts than at the limit.
    fn covers(&self, phase: Phase, parts: Parts) -> bool {
        match phase {
            Phase::Prefill => parts <= self.parts,
            Phase::Decode => parts >= self.parts,
        }
    }

    /// The most that a lane's latency can be at the limit, given what it is here.
    fn ratio_max(&self, device: Divisions, phase: Phase, here: Parts, ratio: f64) -> f64 {
        match phase {
            Phase::Prefill | Phase::Decode if self.covers(phase, here) => ratio,
            // TPOT(y) = a / y + b grows no faster than 1 / y.
            Phase::Decode => ratio * device.fraction(phase, here) / device.fraction(phase, self.parts),
            // TTFT has no such bound, as its queue may have no end.
            Phase::Prefill if ratio < LIGHT_LOAD_RATIO => 0.0,
            Phase::Prefill => f64::INFINITY,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::IdleShare;
    use super::*;

    const HALF: Parts = Parts(10);
    const CLEAR: f64 = 0.9;

    fn device() -> Divisions {
        Divisions::new(20, IdleShare::Lent).unwrap()
    }

    fn learnt(phase: Phase, ratio: f64) -> Limits {
        let mut limits = Limits::default();
        limits.learn(device(), phase, HALF, Some(ratio), CLEAR);
        limits
    }

    #[test]
    fn a_miss_rules_out_whatever_gives_the_lane_no_more() {
        let limits = learnt(Phase::Prefill, 1.01);
        let ruled_out = |phase| [9, 10, 11].map(|parts| limits.rule_out(phase, Parts(parts)));
        assert_eq!((ruled_out(Phase::Prefill), ruled_out(Phase::Decode)), ([true, true, false], [false; 3]));
        let limits = learnt(Phase::Decode, 1.01);
        let ruled_out = |phase| [9, 10, 11].map(|parts| limits.rule_out(phase, Parts(parts)));
        assert_eq!((ruled_out(Phase::Prefill), ruled_out(Phase::Decode)), ([false; 3], [false, true, true]));
        assert!(!learnt(Phase::Decode, 1.0).rule_out(Phase::Decode, HALF));
    }

    #[test]
    fn a_limit_ends_and_holds_longer_each_time_it_is_found_again() {
        let mut limits = learnt(Phase::Prefill, 2.0);
        for windows in [10, 20, 40] {
            for _ in 1..windows {
                limits.learn(device(), Phase::Prefill, Parts(11), None, CLEAR);
                assert!(limits.rule_out(Phase::Prefill, HALF), "{windows}");
            }
            limits.learn(device(), Phase::Prefill, Parts(11), None, CLEAR);
            assert!(!limits.rule_out(Phase::Prefill, HALF), "{windows}");
            limits.learn(device(), Phase::Prefill, HALF, Some(2.0), CLEAR);
        }
    }

    #[test]
    fn a_limit_is_lifted_when_its_target_is_clearly_met_there_or_the_load_is_light() {
        for (parts, ratio, is_lifted) in
            [(10, 0.91, false), (10, 0.9, true), (11, 0.9, false), (9, 0.9, true), (11, 0.3, true)]
        {
            let mut limits = learnt(Phase::Prefill, 2.0);
            limits.learn(device(), Phase::Prefill, Parts(parts), Some(ratio), CLEAR);
            assert_eq!(limits.rule_out(Phase::Prefill, HALF), !is_lifted, "{parts} {ratio}");
        }
        // With 10 parts of 20 instead of 11, TPOT grows by a tenth at most.
        for (parts, ratio, is_lifted) in [(9, 0.83, false), (9, 0.81, true), (10, 0.91, false), (10, 0.9, true)] {
            let mut limits = learnt(Phase::Decode, 2.0);
            limits.learn(device(), Phase::Decode, Parts(parts), Some(ratio), CLEAR);
            assert_eq!(limits.rule_out(Phase::Decode, HALF), !is_lifted, "{parts} {ratio}");
        }
    }

    #[test]
    fn a_better_share_that_misses_moves_the_limit() {
        let mut limits = learnt(Phase::Prefill, 2.0);
        limits.learn(device(), Phase::Prefill, Parts(12), Some(1.1), CLEAR);
        limits.learn(device(), Phase::Prefill, Parts(9), Some(3.0), CLEAR);
        assert!(limits.rule_out(Phase::Prefill, Parts(12)) && !limits.rule_out(Phase::Prefill, Parts(13)));
    }
}
