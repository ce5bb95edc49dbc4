//! The cost model of a device, fitted to steps that ran on it; knows no policy and no request.
//!
//! Nexus (arXiv 2507.06608) takes for every operator the larger of its time to compute, which falls with the share until
//! a saturation R_sat, and its time to read, which grows with what the other lane reads. It profiles both beforehand.
//! Here [`Fitted`] has one saturation for each phase and one contention for the pair, and both are learnt while serving:
//! once they are fixed the rest is linear, so a few values of each are tried and the smallest error wins. Steps under
//! one share only cannot tell them; then the model without saturation and contention stands.

use std::collections::BTreeMap;

use super::least_squares::{Row, Sums};
use super::{DecodeFit, Fitted, Phase, PrefillFit, StepWork};
use crate::Span;

/// What older steps of a share count when a new one is added: about the last 50 make the model. What was learnt at
/// another share stays as it is.
const KEEP: f64 = 0.98;
/// Steps of a phase below which there is no model of it.
const STEPS_MIN: f64 = 8.0;
/// Saturations and contentions that are tried, the simplest model first.
const SATURATIONS: [f64; 15] = [1.0, 0.95, 0.9, 0.85, 0.8, 0.75, 0.7, 0.65, 0.6, 0.55, 0.5, 0.45, 0.4, 0.35, 0.3];
const CONTENTIONS: [f64; 11] = [0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0];
/// Part by which a less simple model must have less error than a simpler one.
const BETTER: f64 = 0.05;
/// Mean squared relative error that is no reason to look for a better model.
const ERROR_ENOUGH: f64 = 1e-6;

/// Steps that were seen, by phase and by how the device was shared.
#[derive(Debug, Clone, Default)]
pub(crate) struct Learner {
    prefill: BTreeMap<Sharing, Sums>,
    decode: BTreeMap<Sharing, Sums>,
}

/// Thousandths of the device that a lane could use, and that its neighbour used meanwhile.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Sharing {
    pub(crate) own: u16,
    pub(crate) neighbour: u16,
}

/// Coefficients of one phase, with the saturation that suits them.
#[derive(Debug, Clone, Copy)]
struct PhaseFit {
    saturation: f64,
    coefficients: Row,
    error: f64,
}

impl Learner {
    /// Takes in a step of prompts or of decodes. Of one with both, what decodes take must have been subtracted.
    pub(crate) fn learn(&mut self, sharing: Sharing, work: &StepWork, span: Span) {
        if span == Span::ZERO {
            return;
        }
        let run = 1.0 - work.layers_skipped;
        let (steps, quantities) = match work.phase() {
            Phase::Prefill => (&mut self.prefill, [1.0, work.prefill_tokens, work.prefill_squares]),
            Phase::Decode => (&mut self.decode, [1.0, work.decode_context, work.decode_sequences]),
        };
        let row = quantities.map(|quantity| quantity * run / span.us() as f64);
        steps.entry(sharing).or_default().add(row, KEEP);
    }

    /// Fits the steps of prompts alone; `None` until a few have run.
    pub(super) fn prefill(&self) -> Option<PrefillFit> {
        fit(&self.prefill, 0.0).map(|fit| prefill_fit(&fit))
    }

    /// Fits the steps of decodes alone; `None` until a few have run.
    pub(super) fn decode(&self) -> Option<DecodeFit> {
        fit(&self.decode, 0.0).map(|fit| decode_fit(&fit))
    }

    /// Fits the model; `None` until either phase has run a few steps.
    pub(crate) fn model(&self) -> Option<Fitted> {
        let mut best: Option<(PhaseFit, PhaseFit, f64)> = None;
        for contention in CONTENTIONS {
            let (prefill, decode) = (fit(&self.prefill, contention)?, fit(&self.decode, contention)?);
            if best
                .is_none_or(|(former, latter, _)| is_better(prefill.error + decode.error, former.error + latter.error))
            {
                best = Some((prefill, decode, contention));
            }
        }
        best.map(|(prefill, decode, contention)| Fitted {
            prefill: prefill_fit(&prefill),
            decode: decode_fit(&decode),
            contention,
        })
    }
}

impl Sharing {
    /// The whole device, with no neighbour.
    pub(super) const ALONE: Sharing = Sharing { own: 1_000, neighbour: 0 };

    /// Time of a step beside its time on the whole device, alone: the inverse of [`Fitted`]'s speed.
    fn slowdown(self, saturation: f64, contention: f64) -> f64 {
        let [own, neighbour] = [self.own, self.neighbour].map(|thousandths| f64::from(thousandths) / 1_000.0);
        (saturation / own).max(1.0) * (1.0 + contention * neighbour)
    }
}

fn fit(steps: &BTreeMap<Sharing, Sums>, contention: f64) -> Option<PhaseFit> {
    let mut best: Option<PhaseFit> = None;
    // Steps under one share cannot tell saturations from each other.
    let tried = if steps.len() > 1 { SATURATIONS.len() } else { 1 };
    for saturation in SATURATIONS.into_iter().take(tried) {
        let mut all = Sums::default();
        for (sharing, sums) in steps {
            all.merge(sums, sharing.slowdown(saturation, contention));
        }
        if all.count() < STEPS_MIN {
            return None;
        }
        let coefficients = all.solve();
        let error = all.error(&coefficients) / all.count();
        if best.is_none_or(|best| is_better(error, best.error)) {
            best = Some(PhaseFit { saturation, coefficients, error });
        }
    }
    best
}

fn is_better(error: f64, than: f64) -> bool {
    than > ERROR_ENOUGH && error < than * (1.0 - BETTER)
}

/// A step that costs nothing by itself would make the time of an empty one zero.
const STEP_US_MIN: f64 = 1.0;

fn prefill_fit(fit: &PhaseFit) -> PrefillFit {
    let [step_us, token_us, token_squared_us] = fit.coefficients;
    PrefillFit { step_us: step_us.max(STEP_US_MIN), token_us, token_squared_us, saturation_share: fit.saturation }
}

fn decode_fit(fit: &PhaseFit) -> DecodeFit {
    let [step_us, context_token_us, sequence_us] = fit.coefficients;
    DecodeFit { step_us: step_us.max(STEP_US_MIN), context_token_us, sequence_us, saturation_share: fit.saturation }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cost::{CostModel, LaneUse};
    use crate::rng::uniform_f64;
    use crate::share::Split;

    fn truth() -> Fitted {
        let mut truth = Fitted { contention: 0.3, ..Fitted::example() };
        truth.decode.saturation_share = 0.7;
        truth
    }

    fn beside(split: Split, phase: Phase) -> Sharing {
        let own = (split.share_of(phase) * 1_000.0).round() as u16;
        Sharing { own, neighbour: 1_000 - own }
    }

    /// Steps of many sizes under these shares of prefill, with so much noise.
    fn taught(percents: &[u32], noise: f64) -> Learner {
        let mut learner = Learner::default();
        for (at, percent) in (0_u64..).zip(percents.iter().flat_map(|percent| [*percent; 60])) {
            let split = Split::prefill_percent(percent).unwrap();
            let draw = |number| uniform_f64(1, at, number);
            let chunk = StepWork::default().with_chunk(0..(16.0 + draw(0) * 1_000.0) as u32);
            let batch = (0..1 + (draw(1) * 30.0) as u32)
                .fold(StepWork::default(), |work, _| work.with_decode(200 + (draw(2) * 3_000.0) as u32));
            for work in [chunk, batch] {
                let lane = |phase| LaneUse { share: split.share_of(phase), phase };
                let us = truth().work(&work).0 / truth().speed(lane(work.phase()), &[lane(work.phase().other())]);
                let span = Span((us * (1.0 + noise * (2.0 * draw(3) - 1.0))) as u64);
                learner.learn(beside(split, work.phase()), &work, span);
            }
        }
        learner
    }

    /// Largest relative error of the predicted times of two usual steps, over all shares of 5 %.
    fn error(model: &Fitted) -> f64 {
        let works = [
            StepWork::default().with_chunk(0..500),
            (0..8).fold(StepWork::default(), |work, _| work.with_decode(1_000)),
        ];
        let errors = (1..20).map(|part| f64::from(part * 5)).flat_map(|percent| {
            works.map(|work| {
                let split = Split::prefill_percent(percent as u32).unwrap();
                let lane = |phase| LaneUse { share: split.share_of(phase), phase };
                let us = |model: &Fitted| {
                    model.work(&work).0 / model.speed(lane(work.phase()), &[lane(work.phase().other())])
                };
                (us(model) / us(&truth()) - 1.0).abs()
            })
        });
        errors.fold(0.0, f64::max)
    }

    #[test]
    fn saturation_and_contention_are_learnt_from_steps_under_several_shares() {
        let model = taught(&[20, 50, 80], 0.05).model().unwrap();
        assert!(error(&model) < 0.1, "{} {model:?}", error(&model));
        assert_eq!(model.checked(), Ok(model));
        let simple = Fitted { contention: 0.0, ..Fitted::example() };
        assert!(error(&simple) > 0.2, "the test can fail");
    }

    #[test]
    fn steps_under_one_share_give_the_simplest_model() {
        let model = taught(&[50], 0.05).model().unwrap();
        let simplest = (1.0, 1.0, 0.0);
        assert_eq!((model.prefill.saturation_share, model.decode.saturation_share, model.contention), simplest);
    }

    #[test]
    fn without_steps_of_both_phases_there_is_no_model() {
        let mut learner = Learner::default();
        let work = StepWork::default().with_chunk(0..100);
        (0..100).for_each(|_| learner.learn(Sharing::ALONE, &work, Span(1_000)));
        assert!(learner.model().is_none());
        assert!(learner.prefill().is_some() && learner.decode().is_none());
    }
}
