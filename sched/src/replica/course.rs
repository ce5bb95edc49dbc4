//! Rows on their way through the layers: in one step if it may run all layers, else in several that follow each other.
//!
//! No other step of the lane comes in between. Blocks that the rows touch stay reserved until the last layer has run.

use super::draft::Draft;
use super::lane::{Flight, Holds, Part};
use super::leg::Stage;
use super::{Action, Compute, Progress, Replica};
use crate::cost::StepWork;
use crate::{LaneId, StepPlan};

/// Rows whose next layers are in no step yet.
#[derive(Debug)]
pub(super) struct Course {
    /// Plan of the remaining layers.
    pub(super) plan: StepPlan,
    /// Parts as they will be after the last layer.
    pub(super) parts: Vec<Part>,
    pub(super) living: usize,
    pub(super) holds: Holds,
    pub(super) next_layer: u32,
}

impl Course {
    /// Splits off the step up to layer `end`. Slots and copies go with the first layer, samples and scores with the last.
    fn split(mut self, end: u32, total: u32) -> (StepPlan, Vec<Part>, Holds, Option<Course>) {
        if end == total {
            return (self.plan, self.parts, self.holds, None);
        }
        let plan = StepPlan {
            admit: std::mem::take(&mut self.plan.admit),
            copies: std::mem::take(&mut self.plan.copies),
            sample: Vec::new(),
            score: Vec::new(),
            ..self.plan.clone()
        };
        let passing = |part: &Part| Part { sampled: Vec::new(), scored: 0..0, ..part.clone() };
        let parts = self.parts.iter().map(passing).collect();
        (plan, parts, Holds::default(), Some(Course { next_layer: end, ..self }))
    }
}

impl Replica {
    pub(super) fn begin_course(&mut self, lane: LaneId, draft: Draft) {
        let Draft { plan, parts, touched } = draft;
        let holds = Holds { touched, ..Holds::default() };
        self.submit_layers(lane, Course { plan, living: parts.len(), parts, holds, next_layer: 0 });
    }

    pub(super) fn submit_layers(&mut self, lane: LaneId, course: Course) {
        let (step, started, total) = (self.next_step(), self.now, self.config.layers);
        let layers_max = self.lane(lane).config.step_layers_max;
        let layers = course.next_layer..total.min(course.next_layer.saturating_add(layers_max));
        let living = course.living;
        let progress = self.progress_of(&course.parts);
        let (mut plan, parts, holds, rest) = course.split(layers.end, total);
        plan.layers = layers.clone();
        let work = StepWork::of_plan(&plan, total);
        let to = self.lane_mut(lane);
        to.course = rest;
        let runs_at_once = to.flights.is_empty();
        to.flights.push_back(Flight { step, started, work, runs_since: started, layers, living, parts, holds });
        if runs_at_once {
            self.front_starts(lane);
        }
        self.out.push_back(Action::Compute(Compute::Run { lane, step, plan, progress }));
    }

    /// Reports every layer if a reader follows a prompt whose last chunk is in these parts.
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
