//! Greedy search for the share at which a favoured lane is fastest while the other stays near its best; knows no model.

use super::split::{Divisions, Parts};
use crate::cost::Phase;

/// Lane that is made fast, and what the other one puts up with.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Objective {
    /// The lane that gets as much as it can.
    pub(super) favoured: Phase,
    /// The longest step of the other lane, as a multiple of its step when it has as much as it can.
    pub(super) slowdown_max: f64,
    /// Time of its step up to which the other lane is fast enough, whatever its shortest one; 0 if nobody says.
    pub(super) enough_us: f64,
    /// Parts that a move has at least. The favoured lane's gain is sought from there on, as less is not taken.
    pub(super) move_min: u16,
}

/// What the search has found.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Found {
    /// The share.
    pub(super) parts: Parts,
    /// Time of the other lane's step there.
    pub(super) other_us: f64,
    /// Time of the other lane's step at the present share.
    pub(super) other_here_us: f64,
}

/// Searches from the present share, by the greedy search of Nexus (arXiv 2507.06608): takes parts from the favoured lane
/// until the other one is within its bound, then gives parts back as long as it stays there.
///
/// `time_us` is asked for the time of a lane's step at a share; it must not rise with the lane's own share. At rest the
/// search asks three times: for the other lane's shortest time, for its present one, and for that after the least move. A
/// share within the bound always exists: the other lane's best.
pub(super) fn search(
    device: Divisions,
    here: Parts,
    objective: Objective,
    mut time_us: impl FnMut(Phase, Parts) -> f64,
) -> Found {
    let favoured = objective.favoured;
    let other = favoured.other();
    let bound_us = (objective.slowdown_max * time_us(other, device.most(other))).max(objective.enough_us);
    let other_here_us = time_us(other, here);
    let mut at = |parts| Found { parts, other_us: time_us(other, parts), other_here_us };
    let mut found = Found { parts: here, other_us: other_here_us, other_here_us };
    if found.other_us > bound_us {
        while found.other_us > bound_us
            && let Some(fewer) = device.moved(found.parts, 1, other)
        {
            found = at(fewer);
        }
        return found;
    }
    let mut step = objective.move_min;
    while let Some(more) =
        device.moved(found.parts, step, favoured).map(&mut at).filter(|more| more.other_us <= bound_us)
    {
        (found, step) = (more, 1);
    }
    found
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::IdleShare;
    use super::*;
    use crate::cost::{CostModel, Fitted, LaneUse};

    proptest! {
        /// Times as steps that only ever rise; equal neighbours are frequent, as with a saturated lane.
        #[test]
        fn greedy_search_equals_brute_force_on_monotone_models(
            rises in prop::collection::vec((0_u32..4, 0_u32..4), 2..100), here in 0.0_f64..1.0,
            favoured in prop::sample::select(vec![Phase::Prefill, Phase::Decode]), slowdown_max in 1.0_f64..3.0,
        ) {
            let device = Divisions::new(rises.len() as u16 + 1, IdleShare::Lent).unwrap();
            let time_us = |phase: Phase, parts: Parts| {
                let own = match phase {
                    Phase::Prefill => usize::from(parts.0),
                    Phase::Decode => rises.len() + 1 - usize::from(parts.0),
                };
                let rise: u32 = rises.iter().skip(own).map(|(prefill, decode)| if phase == Phase::Prefill { prefill } else { decode }).sum();
                f64::from(10 + rise)
            };
            let here = Parts(1 + (here * (rises.len() as f64 - 1.0)) as u16);
            let other = favoured.other();
            let found = search(device, here, Objective { favoured, slowdown_max, enough_us: 0.0, move_min: 1 }, time_us).parts;
            let bound = slowdown_max * time_us(other, device.most(other));
            let allowed = (1..=rises.len() as u16).map(Parts).filter(|parts| time_us(other, *parts) <= bound);
            let fastest = allowed.map(|parts| time_us(favoured, parts)).fold(f64::INFINITY, f64::min);
            prop_assert!(time_us(other, found) <= bound);
            prop_assert_eq!(time_us(favoured, found), fastest);
            let mut calls = 0;
            let again = search(device, found, Objective { favoured, slowdown_max, enough_us: 0.0, move_min: 1 }, |phase, parts| {
                calls += 1;
                time_us(phase, parts)
            });
            prop_assert!(again.parts == found && again.other_us == time_us(other, found) && calls <= 3, "{calls}");
        }

        /// The model that serves is monotone in the sense of the search, whatever its coefficients.
        #[test]
        fn the_cost_model_is_monotone(
            saturation in (0.05_f64..1.0, 0.05_f64..1.0), contention in 0.0_f64..2.0, parts_total in 3_u16..200,
        ) {
            let mut model = Fitted { contention, ..Fitted::example() };
            (model.prefill.saturation_share, model.decode.saturation_share) = saturation;
            let device = Divisions::new(parts_total, IdleShare::Lent).unwrap();
            for phase in [Phase::Prefill, Phase::Decode] {
                let speed = |parts| {
                    let lane = |phase| LaneUse { share: device.fraction(phase, Parts(parts)), phase };
                    model.speed(lane(phase), &[lane(phase.other())])
                };
                let speeds: Vec<f64> = (1..parts_total).map(speed).collect();
                let is_monotone = match phase {
                    Phase::Prefill => speeds.is_sorted(),
                    Phase::Decode => speeds.iter().rev().is_sorted(),
                };
                prop_assert!(is_monotone, "{speeds:?}");
            }
        }
    }
}
