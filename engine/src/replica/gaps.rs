//! How long a lane's device stands still between two steps although there is work; knows neither plans nor scheduler.
//!
//! There was work if a step was handed over before the end of the one before it was heard of, or in answer to that: in
//! the same turn of the replica thread. Whatever comes later follows a time in which there was nothing to do.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use sched::LaneId;

use crate::backend::StepSpan;

/// The steps of all lanes, as far as gaps depend on them.
#[derive(Debug, Default)]
pub(super) struct Gaps {
    lanes: BTreeMap<LaneId, Lane>,
}

#[derive(Debug, Default)]
struct Lane {
    /// Steps with the backend, oldest first, each with what it follows.
    submitted: VecDeque<Follows>,
    last_ended: Option<Instant>,
    turn: Turn,
}

/// What a step comes after.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Follows {
    Work,
    Idleness,
}

/// Whether a step of the lane has ended in this turn of the replica thread.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Turn {
    SawEnd,
    #[default]
    SawNone,
}

impl Gaps {
    /// A step was handed over.
    pub(super) fn submitted(&mut self, lane: LaneId) {
        let lane = self.lanes.entry(lane).or_default();
        let busy = !lane.submitted.is_empty() || lane.turn == Turn::SawEnd;
        lane.submitted.push_back(if busy { Follows::Work } else { Follows::Idleness });
    }

    /// The oldest step has ended. Returns how long the device had waited for it, unless there was nothing to do before.
    pub(super) fn ended(&mut self, lane: LaneId, ran: StepSpan) -> Option<Duration> {
        let lane = self.lanes.entry(lane).or_default();
        lane.turn = Turn::SawEnd;
        let before = lane.last_ended.replace(ran.ended);
        match lane.submitted.pop_front()? {
            Follows::Work => before.map(|ended| ran.started.saturating_duration_since(ended)),
            Follows::Idleness => None,
        }
    }

    /// The replica thread has done what it could and looks for news.
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
        // In answer to that end.
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
        // An end of a step that nobody knows counts nothing.
        assert_eq!(gaps.ended(LANE, span(epoch, 1_000, 1_000)), None);
    }
}
