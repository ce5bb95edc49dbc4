//! A device without maths: a latency model ends its steps, hashes are its tokens; knows no thread and no clock.
//!
//! The engine's modelled backend and the simulator drive the same one. It keeps slots, obeys cancels and shares, and a
//! running step is re-timed whenever shares or neighbours change. A token is a function of (seed of the choice,
//! position), so hand-overs and retries must give the same text here too.

mod steps;
mod tokens;

use crate::cost::CostModel;
use crate::replica::Progress;
use crate::{Failure, FailureKind, LaneId, StepId, StepPlan, StepResult, Time};
use steps::{Ended, Steps, planned_layers};
use tokens::HashedTokens;

/// Model that a device pretends to run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceSpec {
    /// Layers of the model.
    pub layers: u32,
    /// Entries of the vocabulary; every token is below it.
    pub vocab: u32,
    /// Tokens that end a text; never given out before `output_tokens`.
    pub eos: Vec<u32>,
    /// Length after which a choice ends with a stop token, if it has one; `None` runs to `max_tokens`.
    pub output_tokens: Option<u32>,
}

/// The device of one worker. Steps of a lane run one after the other, in the order of their submission.
pub struct Device {
    steps: Steps,
    tokens: HashedTokens,
}

/// Event of a step.
#[derive(Debug, Clone, PartialEq)]
pub enum DeviceEvent {
    /// Progress of a step that asked for it. The last layer is told by [`DeviceEvent::Done`].
    Progress {
        /// Lane.
        lane: LaneId,
        /// Step.
        step: StepId,
        /// Layers that have run.
        layers_done: u32,
    },
    /// The step has ended.
    Done {
        /// Lane.
        lane: LaneId,
        /// Step.
        step: StepId,
        /// Time at which it began.
        began: Time,
        /// Time at which it ended.
        at: Time,
        /// Samples, and layers that ran; a failure is a defect of the plan.
        result: Result<StepResult, Failure>,
    },
}

impl Device {
    /// Creates a device without steps.
    #[must_use]
    pub fn new(cost: Box<dyn CostModel + Send>, spec: DeviceSpec) -> Device {
        let DeviceSpec { layers, vocab, eos, output_tokens } = spec;
        Device { steps: Steps::new(cost, layers), tokens: HashedTokens::new(vocab, eos, output_tokens) }
    }

    /// Takes a step in; it begins when its lane is free.
    pub fn submit(&mut self, now: Time, (lane, step): (LaneId, StepId), plan: StepPlan, progress: Progress) {
        self.steps.submit(now, lane, step, (plan, progress));
    }

    /// Ends a step at its next layer boundary; one that has not begun will run no layer. Ignored if it has ended.
    pub fn cancel(&mut self, now: Time, step: StepId) {
        self.steps.cancel(now, step);
    }

    /// Gives a lane another share, in (0, 1]; running steps are re-timed.
    pub fn set_share(&mut self, now: Time, lane: LaneId, share: f32) {
        self.steps.set_share(now, lane, share);
    }

    /// Returns the next event that has happened by now: progress first, then ends in order of time.
    pub fn poll(&mut self, now: Time) -> Option<DeviceEvent> {
        if let Some((lane, step, layers_done)) = self.steps.pop_progress(now) {
            return Some(DeviceEvent::Progress { lane, step, layers_done });
        }
        let Ended { lane, step, plan, layers_done, began, at } = self.steps.pop_ended(now)?;
        let result = self.effects(&plan, layers_done).map_err(|defect| Failure::new(FailureKind::Internal, defect));
        Some(DeviceEvent::Done { lane, step, began, at, result })
    }

    /// Time of the next poll; `None` while nothing runs.
    #[must_use]
    pub fn next_timeout(&self, now: Time) -> Option<Time> {
        self.steps.next_due(now)
    }

    /// Applies a plan: slots begin anew even if the step was cancelled, samples come only after the last layer.
    fn effects(&mut self, plan: &StepPlan, layers_done: u32) -> Result<StepResult, String> {
        self.tokens.begin(plan);
        if layers_done < planned_layers(plan) {
            return Ok(StepResult { layers_done, ..StepResult::default() });
        }
        let samples = self.tokens.sample(plan)?;
        Ok(StepResult { samples, scores: self.tokens.score(plan), layers_done })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::cost::{Fitted, StepWork};
    use crate::{Input, SampleRow, SequenceRows, SlotId, SlotInit, Span, TokenId};

    fn device() -> Device {
        let spec = DeviceSpec { layers: 4, vocab: 1_000, eos: vec![], output_tokens: None };
        Device::new(Box::new(Fitted::example()), spec)
    }

    fn plan(rows: u32, admit: Vec<SlotInit>) -> StepPlan {
        StepPlan {
            admit,
            sequences: vec![SequenceRows { rows: 0..rows, blocks: 0..1, first_position: 0, input: Input::Given }],
            layers: 0..4,
            sample: vec![SampleRow { row: rows - 1, slot: SlotId(0) }],
            ..StepPlan::default()
        }
    }

    fn slot(seed: u64, generated: usize) -> SlotInit {
        let generated = vec![TokenId(0); generated];
        SlotInit { slot: SlotId(0), params: Arc::default(), seed, prompt: [TokenId(1)].into(), generated }
    }

    fn submit(device: &mut Device, now: Time, step: u64, plan: StepPlan) {
        device.submit(now, (LaneId(0), StepId(step)), plan, Progress::Untold);
    }

    fn end(device: &mut Device) -> (Time, StepResult) {
        let due = device.next_timeout(Time(0)).unwrap();
        match device.poll(due) {
            Some(DeviceEvent::Done { at, result, .. }) => (at, result.unwrap()),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn steps_take_what_the_model_says_and_tokens_depend_on_the_position_only() {
        let mut device = device();
        submit(&mut device, Time(10), 1, plan(8, vec![slot(5, 0)]));
        submit(&mut device, Time(11), 2, plan(8, vec![]));
        let span = Fitted::example().span_alone(&StepWork::default().with_chunk(0..8));
        assert_eq!(device.poll(Time(10) + Span(span.us() - 1)), None);
        let (first_ends, first) = end(&mut device);
        assert_eq!(first_ends, Time(10) + span);
        let (second_ends, second) = end(&mut device);
        assert_eq!(second_ends, first_ends + span);
        assert_ne!(first.samples, second.samples);
        assert_eq!(device.next_timeout(second_ends), None);

        let mut other = self::device();
        submit(&mut other, Time(0), 1, plan(8, vec![slot(5, 1)]));
        assert_eq!(end(&mut other).1.samples, second.samples);
    }

    #[test]
    fn a_defective_plan_is_a_failed_step() {
        let mut device = device();
        submit(&mut device, Time(0), 1, plan(8, vec![]));
        let due = device.next_timeout(Time(0)).unwrap();
        assert!(matches!(device.poll(due), Some(DeviceEvent::Done { result: Err(failure), .. })
            if failure.kind == FailureKind::Internal && failure.detail.contains("was not admitted")));
    }
}
