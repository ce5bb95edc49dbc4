//! Rows on their way through the layers: one step where it may run all of them, else several that follow each other.
//!
//! Nothing else of the lane comes in between. What the rows touch stays as it is until the last layer has run.

use super::draft::Draft;
use super::lane::{Flight, Holds, Part};
use super::leg::Stage;
use super::{Action, Compute, Progress, Replica};
use crate::{LaneId, StepPlan};

/// Rows whose next layers are in no step yet.
#[derive(Debug)]
pub(super) struct Course {
    /// What is left to be done for them.
    pub(super) plan: StepPlan,
    /// As they will be when the last layer has run.
    pub(super) parts: Vec<Part>,
    /// Parts whose sequence still lives.
    pub(super) living: usize,
    /// Held until the last layer has run.
    pub(super) holds: Holds,
    /// The first layer that is in no step yet.
    pub(super) next_layer: u32,
}

impl Course {
    /// What its step up to layer `end` does and holds, and what is left. Slots and copies come with the first layer, samples
    /// with the last one.
    fn split(mut self, end: u32, total: u32) -> (StepPlan, Vec<Part>, Holds, Option<Course>) {
        if end == total {
            return (self.plan, self.parts, self.holds, None);
        }
        let plan = StepPlan {
            admit: std::mem::take(&mut self.plan.admit),
            copies: std::mem::take(&mut self.plan.copies),
            sample: Vec::new(),
            ..self.plan.clone()
        };
        let passing = |part: &Part| Part { sampled: Vec::new(), ..part.clone() };
        let parts = self.parts.iter().map(passing).collect();
        (plan, parts, Holds::default(), Some(Course { next_layer: end, ..self }))
    }
}

impl Replica {
    /// Sends rows on their way.
    pub(super) fn begin_course(&mut self, lane: LaneId, draft: Draft) {
        let Draft { plan, parts, touched } = draft;
        let holds = Holds { touched, ..Holds::default() };
        self.submit_layers(lane, Course { plan, living: parts.len(), parts, holds, next_layer: 0 });
    }

    /// The next layers of a course.
    pub(super) fn submit_layers(&mut self, lane: LaneId, course: Course) {
        let (step, started, total) = (self.next_step(), self.now, self.config.layers);
        let layers_max = self.lane(lane).config.step_layers_max;
        let layers = course.next_layer..total.min(course.next_layer.saturating_add(layers_max));
        let living = course.living;
        let progress = self.progress_of(&course.parts);
        let (mut plan, parts, holds, rest) = course.split(layers.end, total);
        plan.layers = layers.clone();
        let to = self.lane_mut(lane);
        to.course = rest;
        let runs_at_once = to.flights.is_empty();
        to.flights.push_back(Flight { step, started, layers, living, parts, holds });
        if runs_at_once {
            self.front_starts(lane);
        }
        self.out.push_back(Action::Compute(Compute::Run { lane, step, plan, progress }));
    }

    /// A reader that follows a prompt takes its last chunk layer by layer.
    fn progress_of(&mut self, parts: &[Part]) -> Progress {
        if self.given.is_empty() {
            return Progress::Untold;
        }
        let followed = parts.iter().any(|part| {
            let Some(sequence) = self.sequences.find(part.key) else { return false };
            let (leg, last) = (sequence.leg, part.computed == sequence.len());
            match self.legs.get(&leg).map(|run| &run.stage) {
                Some(Stage::Give(Some(giving))) => last && giving.machine.follower().is_some(),
                Some(Stage::Give(None) | Stage::Whole | Stage::Take(_)) | None => false,
            }
        });
        if followed { Progress::ByLayer } else { Progress::Untold }
    }
}
