//! The controller of Nexus: moves the share by predicted times of steps; knows no target and no request.
//!
//! Nexus (arXiv 2507.06608): while less than 70 % of the KV pool is in use, make prefill as fast as possible while a
//! decode step takes at most beta times its shortest time; above, make decode as fast as possible while a prefill step
//! takes at most alpha times its shortest time. A change of the share that is too small is not made.
//!
//! Where requests have a target of TPOT, or one is configured, a decode step may take nearly as long as the strictest in
//! any case, and prefill gets what the prompts that come need. The paper has neither; on a device whose decodes
//! slow down with their share, beta alone would starve prefill for tokens that nobody needs so fast.

use super::config::PredictiveConfig;
use super::search::{Objective, search};
use super::split::{Divisions, Parts};
use super::verdict::{Outlook, Verdict};
use super::window::LOAD_MAX;
use super::{Latencies, Reason, Split, WindowReport, WorkerState};
use crate::Span;
use crate::cost::{CostModel, Fitted, LaneUse, Learner, Phase, StepWork};

/// Part of the pool by which its use must fall below the switch before prefill is favoured again. The paper has one
/// threshold, at which requests that end and begin would turn the share upside down each time.
const KV_SWITCH_BAND: f64 = 0.05;
/// Part of the target of TPOT that a decode step may take: an answer of a few tokens also waits for the steps in flight when
/// it joins, and the mean of all steps hides the long ones.
const ENOUGH: f64 = 0.5;

/// The controller.
#[derive(Debug, Clone)]
pub(super) struct Predictive {
    device: Divisions,
    config: PredictiveConfig,
    /// Target of TPOT where no request has one of its own.
    tpot: Option<Span>,
    /// Parts that a move has at least: more than the hysteresis.
    move_min: u16,
    learner: Learner,
    model: Option<Fitted>,
    /// Share below which prompts would wait ever longer: measured in the last window.
    needed: f64,
    favoured: Phase,
    prefill: MeanStep,
    decode: MeanStep,
}

/// Mean of the steps of a lane since the last decision.
#[derive(Debug, Clone, Copy, Default)]
struct MeanStep {
    steps: u32,
    sum: StepWork,
    sum_us: f64,
}

impl Predictive {
    pub(super) fn new(config: &PredictiveConfig, tpot: Option<Span>, device: Divisions) -> Predictive {
        Predictive {
            device,
            config: config.clone(),
            tpot,
            move_min: device.parts_in_percent(config.hysteresis_percent) + 1,
            learner: Learner::default(),
            model: None,
            needed: 0.0,
            favoured: Phase::Prefill,
            prefill: MeanStep::default(),
            decode: MeanStep::default(),
        }
    }

    pub(super) fn interval(&self) -> Span {
        Span::from_ms(self.config.interval_ms)
    }

    pub(super) fn step_done(&mut self, split: Split, work: &StepWork, span: Span, beside: f64) {
        if let Some(sharing) = self.device.sharing(split, work.phase(), beside) {
            self.learner.learn(sharing, work, span);
        }
        match work.phase() {
            Phase::Prefill => self.prefill.add(work, span),
            Phase::Decode => self.decode.add(work, span),
        }
    }

    /// Takes in a window in which prefill had the parts `here`, and fits the model anew: that costs more than a decision,
    /// and devices do not change that often.
    pub(super) fn window(&mut self, here: Parts, window: &WindowReport) {
        self.model = self.learner.model();
        if let Some(load) = window.prefill_load {
            self.needed = load * self.device.fraction(Phase::Prefill, here) / LOAD_MAX;
        }
    }

    /// Decides for steps like those since the last decision. Without steps of both lanes it waits for more.
    pub(super) fn decide(&mut self, here: Parts, state: &WorkerState) -> Verdict {
        let measured = Latencies { prefill: self.prefill.span(), decode: self.decode.span() };
        if self.model.is_none() {
            self.model = self.learner.model();
        }
        let (Some(model), Some(prefill), Some(decode)) = (self.model, self.prefill.work(), self.decode.work()) else {
            let outlook = Outlook { measured, ..Outlook::default() };
            return Verdict { parts: here, reason: Reason::TooFewSamples, outlook };
        };
        (self.prefill, self.decode) = (MeanStep::default(), MeanStep::default());
        self.favoured = favoured(self.favoured, &self.config, state);
        let mut model_calls = 0;
        let mut time_us = |phase, parts| {
            model_calls += 1;
            let step = if phase == Phase::Prefill { &prefill } else { &decode };
            time_us(&model, self.device, step, phase, parts)
        };
        let target = state.strictest_tpot.or(self.tpot);
        let best = search(self.device, here, self.objective(target), &mut time_us);
        let (parts, reason) = self.unless_too_near(here, self.raised(best.parts, target, &mut time_us));
        let favoured_us = time_us(self.favoured, parts);
        let other_us = match parts {
            _ if parts == here => best.other_here_us,
            _ if parts == best.parts => best.other_us,
            _ => time_us(self.favoured.other(), parts),
        };
        let predicted = self.latencies(favoured_us, other_us);
        Verdict { parts, reason, outlook: Outlook { measured, predicted, model_calls } }
    }

    fn latencies(&self, favoured_us: f64, other_us: f64) -> Latencies {
        let [favoured, other] = [favoured_us, other_us].map(|us| Some(Span(us.ceil() as u64)));
        match self.favoured {
            Phase::Prefill => Latencies { prefill: favoured, decode: other },
            Phase::Decode => Latencies { prefill: other, decode: favoured },
        }
    }

    fn objective(&self, target: Option<Span>) -> Objective {
        let (slowdown_max, enough_us) = match self.favoured {
            Phase::Prefill => (self.config.beta, target.map_or(0.0, |tpot| tpot.us() as f64 * ENOUGH)),
            Phase::Decode => (self.config.alpha, 0.0),
        };
        Objective { favoured: self.favoured, slowdown_max, enough_us, move_min: self.move_min }
    }

    /// Where prefill is favoured, it gets what the prompts that come need, as long as decode steps stay within the target.
    fn raised(&self, best: Parts, target: Option<Span>, time_us: &mut impl FnMut(Phase, Parts) -> f64) -> Parts {
        let target_us = target.map_or(f64::INFINITY, |tpot| tpot.us() as f64);
        let mut parts = best;
        while self.favoured == Phase::Prefill
            && self.device.fraction(Phase::Prefill, parts) < self.needed
            && let Some(more) = self.device.moved(parts, 1, Phase::Prefill)
            && time_us(Phase::Decode, more) <= target_us
        {
            parts = more;
        }
        parts
    }

    fn unless_too_near(&self, here: Parts, best: Parts) -> (Parts, Reason) {
        if best == here {
            return (here, Reason::Balanced);
        }
        if best.0.abs_diff(here.0) < self.move_min {
            return (here, Reason::HeldByHysteresis);
        }
        match self.favoured {
            Phase::Prefill => (best, Reason::Rebalanced),
            Phase::Decode => (best, Reason::KvPressure),
        }
    }
}

impl MeanStep {
    fn add(&mut self, work: &StepWork, span: Span) {
        self.steps += 1;
        self.sum_us += span.us() as f64;
        self.sum = StepWork {
            prefill_tokens: self.sum.prefill_tokens + work.prefill_tokens,
            prefill_squares: self.sum.prefill_squares + work.prefill_squares,
            decode_sequences: self.sum.decode_sequences + work.decode_sequences,
            decode_context: self.sum.decode_context + work.decode_context,
            layers_skipped: self.sum.layers_skipped + work.layers_skipped,
        };
    }

    fn work(&self) -> Option<StepWork> {
        let mean = |sum: f64| sum / f64::from(self.steps);
        (self.steps > 0).then(|| StepWork {
            prefill_tokens: mean(self.sum.prefill_tokens),
            prefill_squares: mean(self.sum.prefill_squares),
            decode_sequences: mean(self.sum.decode_sequences),
            decode_context: mean(self.sum.decode_context),
            layers_skipped: mean(self.sum.layers_skipped),
        })
    }

    fn span(&self) -> Option<Span> {
        (self.steps > 0).then(|| Span((self.sum_us / f64::from(self.steps)).round() as u64))
    }
}

fn favoured(before: Phase, config: &PredictiveConfig, state: &WorkerState) -> Phase {
    let used = f64::from(state.blocks_in_use) / f64::from(state.blocks_total.max(1));
    let switch = config.kv_switch_percent / 100.0;
    match before {
        _ if used >= switch => Phase::Decode,
        Phase::Decode if used >= switch - KV_SWITCH_BAND => Phase::Decode,
        Phase::Prefill | Phase::Decode => Phase::Prefill,
    }
}

/// Predicted time of a step while the other lane is busy.
fn time_us(model: &Fitted, device: Divisions, step: &StepWork, phase: Phase, parts: Parts) -> f64 {
    let lane = |phase| LaneUse { share: device.fraction(phase, parts), phase };
    model.work(step).0 / model.speed(lane(phase), &[lane(phase.other())])
}

#[cfg(test)]
mod tests {
    use super::super::IdleShare;
    use super::*;

    #[test]
    fn prefill_gets_what_prompts_need_while_decodes_keep_their_target() {
        let device = Divisions::new(20, IdleShare::Lent).unwrap();
        let raised = |needed, favoured, target| {
            let policy = Predictive { needed, favoured, ..Predictive::new(&PredictiveConfig::default(), None, device) };
            // A decode step takes 10 ms on the whole device.
            let mut time_us = |phase, parts| 10_000.0 / device.fraction(phase, parts);
            policy.raised(Parts(8), target, &mut time_us).0
        };
        let target = Some(Span::from_ms(41));
        assert_eq!(raised(0.0, Phase::Prefill, target), 8, "it has enough");
        assert_eq!(raised(0.7, Phase::Prefill, target), 14);
        assert_eq!(raised(0.9, Phase::Prefill, target), 15, "with less than 25 % decodes would be late");
        assert_eq!(raised(0.9, Phase::Prefill, None), 18);
        assert_eq!(raised(0.9, Phase::Decode, target), 8, "the pool is full");
    }
}
