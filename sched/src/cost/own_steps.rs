//! The latency model that a worker learns from its own steps while it serves; knows no lane, share and request.

use super::learner::{Learner, Sharing};
use super::{DecodeFit, Fitted, Phase, PrefillFit, StepWork};
use crate::Span;

/// Steps after which the model is fitted anew: a fit costs a few microseconds, and devices do not change that often.
const STEPS_PER_FIT: u32 = 16;

/// What a device has taken for prompts and for decodes. Of each about the last 50 steps count, so where lanes share a
/// device the model says what a lane can do at the share that it has.
#[derive(Debug, Clone, Default)]
pub struct OwnSteps {
    learner: Learner,
    unfitted: u32,
    prefill: Option<PrefillFit>,
    decode: Option<DecodeFit>,
}

impl OwnSteps {
    /// Takes in a step that has ended.
    pub fn ended(&mut self, work: &StepWork, span: Span) {
        if let Some((work, span)) = self.of_one_phase(work, span) {
            self.learner.learn(Sharing::ALONE, &work, span);
        }
        self.unfitted += 1;
        if self.unfitted >= STEPS_PER_FIT {
            self.unfitted = 0;
            (self.prefill, self.decode) = (self.learner.prefill(), self.learner.decode());
        }
    }

    /// The model for steps without decodes; `None` until a few steps with prompts have run.
    #[must_use]
    pub fn of_prompts(&self) -> Option<Fitted> {
        // No decode will be asked for, so it does not matter what one costs.
        let decode = self.decode.unwrap_or(Fitted::example().decode);
        self.prefill.map(|prefill| Fitted { prefill, decode, contention: 0.0 })
    }

    /// The model for all steps; `None` until a few steps with prompts and a few without have run.
    #[must_use]
    pub fn of_all(&self) -> Option<Fitted> {
        self.decode.and_then(|_| self.of_prompts())
    }

    /// The part of a step that tells about one phase: of a step with prompts and decodes, what is left when the decodes
    /// are taken off. `None` if it is not known yet what they take, or if nothing is left.
    fn of_one_phase(&self, work: &StepWork, span: Span) -> Option<(StepWork, Span)> {
        match work.phase() {
            Phase::Decode => (work.decode_sequences > 0.0).then_some((*work, span)),
            Phase::Prefill if work.decode_sequences > 0.0 => {
                let DecodeFit { context_token_us, sequence_us, .. } = self.decode?;
                let decodes_us = context_token_us * work.decode_context + sequence_us * work.decode_sequences;
                let prompts = StepWork { decode_sequences: 0.0, decode_context: 0.0, ..*work };
                let left = span.us().saturating_sub((decodes_us * (1.0 - work.layers_skipped)) as u64);
                (left > 0).then_some((prompts, Span(left)))
            }
            Phase::Prefill => Some((*work, span)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cost::CostModel;

    fn decodes(sequences: u32, context: u32) -> StepWork {
        (0..sequences).fold(StepWork::default(), |work, _| work.with_decode(context))
    }

    fn ran(steps: &mut OwnSteps, work: StepWork) {
        steps.ended(&work, Fitted::example().span_alone(&work));
    }

    /// Relative error of the predicted time of a step.
    fn error(model: &Fitted, work: &StepWork) -> f64 {
        (model.work(work).0 / Fitted::example().work(work).0 - 1.0).abs()
    }

    #[test]
    fn prompts_alone_tell_about_prompts_only() {
        let mut steps = OwnSteps::default();
        (1..STEPS_PER_FIT).for_each(|at| ran(&mut steps, StepWork::default().with_chunk(0..40 * at)));
        assert!(steps.of_prompts().is_none(), "it is fitted every {STEPS_PER_FIT} steps, not at each");
        ran(&mut steps, StepWork::default().with_chunk(0..700));
        let model = steps.of_prompts().unwrap();
        assert!(error(&model, &StepWork::default().with_chunk(0..500)) < 0.01, "{model:?}");
        assert!(steps.of_all().is_none());
    }

    #[test]
    fn a_step_of_both_tells_about_prompts_once_decodes_are_known() {
        let mut steps = OwnSteps::default();
        let mixed = |at: u32| decodes(1 + at % 7, 100 * at).with_chunk(0..1 + 30 * (at % 11));
        (1..=64).for_each(|at| ran(&mut steps, mixed(at)));
        assert!(steps.of_prompts().is_none() && steps.of_all().is_none());
        (1..=64).for_each(|at| ran(&mut steps, decodes(1 + at % 7, 100 * at)));
        assert!(steps.of_prompts().is_none() && steps.decode.is_some());
        (1..=64).for_each(|at| ran(&mut steps, mixed(at)));
        let model = steps.of_all().unwrap();
        for work in [mixed(5), mixed(9), decodes(8, 2_000)] {
            assert!(error(&model, &work) < 0.01, "{} {model:?}", error(&model, &work));
        }
        assert_eq!(model.checked(), Ok(model));
    }

    #[test]
    fn a_device_that_becomes_slower_is_learnt_again() {
        let (mut steps, chunk) = (OwnSteps::default(), StepWork::default().with_chunk(0..300));
        let sizes = || (1..=200).map(|at: u32| StepWork::default().with_chunk(0..16 * (1 + at % 32)));
        sizes().for_each(|work| ran(&mut steps, work));
        sizes().for_each(|work| steps.ended(&work, Span(2 * Fitted::example().span_alone(&work).us())));
        let slower = steps.of_prompts().unwrap().work(&chunk).0 / Fitted::example().work(&chunk).0;
        assert!((slower - 2.0).abs() < 0.1, "{slower}");
    }
}
