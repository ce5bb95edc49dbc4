//! Latency models of steps; knows quantities of work, not who asked for it.
//!
//! A model gives a step's *work* (microseconds on the whole device, alone) and its *speed* under given shares and
//! neighbours, so that a running step can be re-timed when either changes: see [`StepClock`].

mod clock;
mod fitted;
mod work;

pub use clock::StepClock;
pub use fitted::{CostError, DecodeFit, Fitted, PrefillFit};
pub use work::StepWork;

use crate::Span;

/// Microseconds that a step takes on the whole device with no neighbours.
#[derive(Debug, Clone, Copy, PartialEq, PartialOrd)]
pub struct Work(pub f64);

/// Use of the device by a lane that runs a step, as its neighbours feel it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LaneUse {
    /// Part of the device it may use, in (0, 1].
    pub share: f64,
    /// Phase of its step.
    pub phase: Phase,
}

/// Resource that bounds a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Compute: some of its rows are chunks of prompts.
    Prefill,
    /// Memory bandwidth: all of its rows are decodes.
    Decode,
}

/// A latency model of one kind of device.
pub trait CostModel {
    /// Returns the work of a step. More rows or longer contexts never take less.
    fn work(&self, step: &StepWork) -> Work;

    /// Returns the work done per microsecond, in (0, 1], by a lane beside these others.
    fn speed(&self, own: LaneUse, others: &[LaneUse]) -> f64;

    /// Returns the time that a step takes on the whole device, alone.
    fn span_alone(&self, step: &StepWork) -> Span {
        Span(self.work(step).0.ceil() as u64)
    }
}

/// L_m: the most prompt tokens that a step may take on beside `decodes` so that it still ends within `budget`.
///
/// With the TTFT target as budget and no decodes it bounds a prefill worker's batch; with the TPOT target and a full
/// batch of decodes it bounds the chunk of an aggregated worker. 0 when not even one token fits; at most `tokens_max`.
#[must_use]
pub fn step_tokens_max(model: &dyn CostModel, budget: Span, decodes: &StepWork, tokens_max: u32) -> u32 {
    let fits = |tokens: u32| model.span_alone(&decodes.with_chunk(0..tokens)) <= budget;
    let (mut fit, mut beyond) = (0, u64::from(tokens_max) + 1);
    while u64::from(fit) + 1 < beyond {
        let middle = (u64::from(fit) + beyond).div_ceil(2).min(beyond - 1);
        match fits(middle as u32) {
            true => fit = middle as u32,
            false => beyond = middle,
        }
    }
    fit
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_budget_is_used_but_never_passed() {
        let model = Fitted::example();
        let nothing = StepWork::default();
        for budget_ms in [1, 5, 20, 50, 400] {
            let budget = Span::from_ms(budget_ms);
            let tokens = step_tokens_max(&model, budget, &nothing, 100_000);
            assert!(tokens == 0 || model.span_alone(&nothing.with_chunk(0..tokens)) <= budget);
            assert!(model.span_alone(&nothing.with_chunk(0..tokens + 1)) > budget, "{budget_ms} ms: {tokens}");
        }
    }

    #[test]
    fn decodes_leave_less_room_and_the_cap_holds() {
        let model = Fitted::example();
        let busy = (0..64).fold(StepWork::default(), |work, _| work.with_decode(1_000));
        let budget = Span::from_ms(50);
        let alone = step_tokens_max(&model, budget, &StepWork::default(), 100_000);
        let beside = step_tokens_max(&model, budget, &busy, 100_000);
        assert!(0 < beside && beside < alone, "{beside} {alone}");
        assert_eq!(step_tokens_max(&model, budget, &busy, 10), 10);
        assert_eq!(step_tokens_max(&model, Span(1), &busy, 10), 0);
        assert_eq!(step_tokens_max(&model, Span(u64::MAX), &busy, u32::MAX), u32::MAX);
    }
}
