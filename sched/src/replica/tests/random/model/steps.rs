//! The ends of steps, well and badly, in either lane.

use super::Model;
use crate::replica::Event;
use crate::{Failure, FailureKind, LaneId, Span};

impl Model {
    fn busy_lane(&self, pick: u16) -> LaneId {
        let busy = self.backend.busy();
        busy.get(usize::from(pick) % busy.len().max(1)).copied().unwrap_or(LaneId(0))
    }

    pub(super) fn finish_step(&mut self, pick: u16) {
        self.now = self.now + Span::from_ms(7);
        let lane = self.busy_lane(pick);
        if let Some((step, result)) = self.backend.finish(lane) {
            self.feed(Event::StepDone { lane, step, result });
        }
    }

    pub(super) fn progress(&mut self) {
        if let Some(step) = self.telling.first().copied() {
            let lane = self.backend.lane_of(step).unwrap_or(LaneId(0));
            self.feed(Event::StepProgress { lane, step, layers_done: 1 });
        }
    }

    pub(super) fn fail_step(&mut self, pick: u16) {
        let lane = self.busy_lane(pick);
        if let Some(step) = self.backend.abandon(lane) {
            let failure = Failure::new(FailureKind::Internal, "no device");
            self.feed(Event::StepFailed { lane, step, failure });
        }
    }
}
