//! Time that a lane's device stands still between two steps although there is work; knows no plan and no scheduler.
//!
//! There was work if a step was submitted before the end of the previous one was seen, or in the same turn of the
//! replica thread. A step submitted later follows a time without work.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use sched::LaneId;

use crate::backend::StepSpan;

/// Steps of all lanes, as far as gaps depend on them.
#[derive(Debug, Default)]
pub(super) struct Gaps {
    lanes: BTreeMap<LaneId, Lane>,
}

#[derive(Debug, Default)]
struct Lane {
    /// Steps with the backend, oldest first, each with what came before it.
    submitted: VecDeque<Follows>,
    last_ended: Option<Instant>,
    turn: Turn,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Follows {
    Work,
    Idleness,
}

/// Whether this turn of the replica thread saw a step of the lane end.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Turn {
    SawEnd,
    #[default]
    SawNone,
}

impl Gaps {
    pub(super) fn submitted(&mut self, lane: LaneId) {
        let lane = self.lanes.entry(lane).or_default();
        let busy = !lane.submitted.is_empty() || lane.turn == Turn::SawEnd;
        lane.submitted.push_back(if busy { Follows::Work } else { Follows::Idleness });
    }

    /// Ends the oldest step. Returns how long the device had waited for it, or `None` if there was no work before.
    pub(super) fn ended(&mut self, lane: LaneId, ran: StepSpan) -> Option<Duration> {
        let lane = self.lanes.entry(lane).or_default();
        lane.turn = Turn::SawEnd;
        let before = lane.last_ended.replace(ran.ended);
        match lane.submitted.pop_front()? {
            Follows::Work => before.map(|ended| ran.started.saturating_duration_since(ended)),
            Follows::Idleness => None,
        }
    }

    /// Ends a turn of the replica thread.
    pub(super) fn turn_over(&mut self) {
        self.lanes.values_mut().for_each(|lane| lane.turn = Turn::SawNone);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LANE: LaneId = LaneId(0);

    fn span(epoch: Instant, started_us: u64, ended_us: u64) -> StepSpan {
        let at = |us| epoch + Duration::from_micros(us);
        StepSpan { started: at(started_us), ended: at(ended_us) }
    }

    #[test]
    fn a_gap_is_the_time_between_steps_of_which_one_waited_for_the_other() {
        let (mut gaps, epoch) = (Gaps::default(), Instant::now());
        gaps.submitted(LANE);
        gaps.submitted(LANE);
        gaps.turn_over();
        assert_eq!(gaps.ended(LANE, span(epoch, 0, 100)), None);
        gaps.turn_over();
        assert_eq!(gaps.ended(LANE, span(epoch, 103, 200)), Some(Duration::from_micros(3)));
        // Submitted in answer to that end.
        gaps.submitted(LANE);
        gaps.turn_over();
        assert_eq!(gaps.ended(LANE, span(epoch, 250, 300)), Some(Duration::from_micros(50)));
    }

    #[test]
    fn time_without_work_is_no_gap() {
        let (mut gaps, epoch) = (Gaps::default(), Instant::now());
        gaps.submitted(LANE);
        gaps.submitted(LaneId(1));
        gaps.turn_over();
        assert_eq!(gaps.ended(LANE, span(epoch, 0, 100)), None);
        gaps.turn_over();
        gaps.submitted(LANE);
        assert_eq!(gaps.ended(LANE, span(epoch, 900, 1_000)), None);
        // The end of an unknown step counts nothing.
        assert_eq!(gaps.ended(LANE, span(epoch, 1_000, 1_000)), None);
    }
}
