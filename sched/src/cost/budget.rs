//! L_m, the prompt tokens that a step takes on: as many as saturate the device, no more than targets allow.

use super::{CostModel, Fitted, Latency, StepWork};
use crate::Span;
use crate::layout::TILE_TOKENS;

/// How much of prompts a step takes on, within the rows that it may have.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub enum StepBudget {
    /// As many tokens as there are rows.
    #[default]
    Constant,
    /// As many as this latency model says, and as with `Constant` until it is known. Beside running sequences a step
    /// ends within the strictest of their targets for the time between two tokens, or takes twice as long as their
    /// decodes alone. Where nobody sets a target, prompts join a step until it saturates the device.
    Auto(Latency),
}

/// Part of the highest rate at which a device counts as saturated.
const SATURATED: f64 = 0.9;

/// Time of a step that targets must allow, as a multiple of that of its decodes: where the decodes are nearly late or late
/// by themselves, prompts would otherwise wait for ever so that a lost target is missed by less.
const STEP_PER_DECODES: u64 = 2;

/// Chunks of one step in the making.
#[derive(Debug, Clone, Copy)]
pub struct ChunkBudget {
    latency: Fitted,
    limit: Limit,
    work: StepWork,
}

#[derive(Debug, Clone, Copy)]
enum Limit {
    /// The step ends within this time.
    Target(Span),
    /// Prompt tokens at which the device is saturated.
    Saturation(u32),
}

impl ChunkBudget {
    /// Budget beside these decodes, whose strictest target is `target`, in a step of at most `rows_max` rows.
    #[must_use]
    pub fn new(latency: Fitted, decodes: StepWork, target: Option<Span>, rows_max: u32) -> ChunkBudget {
        let least = Span(STEP_PER_DECODES * latency.span_alone(&decodes).us());
        let limit = match target {
            Some(target) => Limit::Target(target.max(least)),
            None => Limit::Saturation(saturating_tokens(&latency, rows_max)),
        };
        ChunkBudget { latency, limit, work: decodes }
    }

    /// Takes on the next chunk of a prompt from position `start`, of at most `tokens`; returns its length.
    ///
    /// The first prompt always goes on by a tile, or it would wait for ever where no chunk meets the target. Without a
    /// target it is not cut at saturation, as in DistServe, where long prompts run alone: cutting would gain nothing.
    pub fn take(&mut self, start: u32, tokens: u32) -> u32 {
        let begun = self.work.prefill_tokens > 0.0;
        let least = if begun { 0 } else { tokens.min(TILE_TOKENS) };
        let chunk = match self.limit {
            Limit::Target(target) => tokens_within(&self.latency, target, &self.work, start, tokens).max(least),
            Limit::Saturation(_) if !begun => tokens,
            Limit::Saturation(saturation) => tokens.min(saturation.saturating_sub(self.work.prefill_tokens as u32)),
        };
        if chunk > 0 {
            self.work = self.work.with_chunk(start..start.saturating_add(chunk));
        }
        chunk
    }
}

/// L_m of DistServe (Zhong et al., OSDI 2024, section 4.3): the shortest prompt that saturates the device, which is the
/// one that reaches 90 % of the highest rate of tokens among prompts of up to `tokens_max`. At least 1.
#[must_use]
pub fn saturating_tokens(model: &Fitted, tokens_max: u32) -> u32 {
    let tokens_max = tokens_max.max(1);
    let rate = |tokens: u32| f64::from(tokens) / model.work(&StepWork::default().with_chunk(0..tokens)).0;
    // n / (a + b·n + c·n²) rises up to n = sqrt(a / c) and falls from there.
    let summit = (model.prefill.step_us / model.prefill.token_squared_us).sqrt().min(f64::from(tokens_max));
    let highest = (summit as u32).max(1);
    let peak = rate(highest).max(rate(highest.saturating_add(1).min(tokens_max)));
    first_without(1, highest, |tokens| rate(tokens) < SATURATED * peak) as u32
}

/// L_m: the most prompt tokens that a step may take on beside `decodes` so that it still ends within `budget`.
///
/// With the TTFT target as budget and no decodes it bounds a prefill worker's batch; with the TPOT target and a full
/// batch of decodes it bounds the chunk of an aggregated worker. 0 when not even one token fits; at most `tokens_max`.
#[must_use]
pub fn step_tokens_max(model: &dyn CostModel, budget: Span, decodes: &StepWork, tokens_max: u32) -> u32 {
    tokens_within(model, budget, decodes, 0, tokens_max)
}

/// The longest chunk from position `start` that a step with `work` can take on and still end within `budget`.
fn tokens_within(model: &dyn CostModel, budget: Span, work: &StepWork, start: u32, tokens_max: u32) -> u32 {
    let fits = |tokens: u32| model.span_alone(&work.with_chunk(start..start.saturating_add(tokens))) <= budget;
    (first_without(1, tokens_max, fits) - 1) as u32
}

/// The first number from `first` on for which `holds` does not hold, at most `last` + 1; it must hold up to some number
/// and not beyond.
fn first_without(first: u32, last: u32, holds: impl Fn(u32) -> bool) -> u64 {
    let (mut low, mut high) = (u64::from(first), u64::from(last) + 1);
    while low < high {
        let middle = low + (high - low) / 2;
        match holds(middle as u32) {
            true => low = middle + 1,
            false => high = middle,
        }
    }
    low
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

    /// OPT-13B on A100-80G as DistServe published it, in microseconds: TP 1, 2 and 4.
    fn opt_13b(tp: usize) -> Fitted {
        let (step_us, token_us, token_squared_us) = [
            (18_102.546_474_863_72, 101.912_257_269_873_8, 7.122_264_314_252_114e-3),
            (14_742.973_695_171_262, 68.577_207_397_64, 2.449_572_740_024_358_6e-3),
            (12_062.297_033_449_054, 38.081_400_825_506_95, 5.226_249_731_787_869e-4),
        ][tp];
        let prefill = crate::cost::PrefillFit { step_us, token_us, token_squared_us, saturation_share: 1.0 };
        Fitted { prefill, ..Fitted::example() }
    }

    /// The paper says "about 512" for one GPU; the numbers follow from its coefficients and OPT's context.
    #[test]
    fn l_m_follows_from_the_published_coefficients() {
        assert_eq!([0, 1, 2].map(|tp| saturating_tokens(&opt_13b(tp), 2_048)), [556, 763, 1_057]);
        let mut straight = Fitted::example();
        straight.prefill.token_squared_us = 0.0;
        assert!(saturating_tokens(&straight, 512) < 512);
        assert_eq!([0, 1].map(|most| saturating_tokens(&Fitted::example(), most)), [1, 1]);
    }

    #[test]
    fn prompts_join_until_the_device_is_saturated_and_a_long_one_runs_alone() {
        let chunks = |lengths: &[u32]| {
            let mut budget = ChunkBudget::new(opt_13b(0), StepWork::default(), None, 2_048);
            lengths.iter().map(|tokens| budget.take(0, *tokens)).collect::<Vec<_>>()
        };
        assert_eq!(chunks(&[200, 200, 200, 200]), [200, 200, 156, 0]);
        assert_eq!(chunks(&[1_500, 200]), [1_500, 0]);
    }

    #[test]
    fn a_step_beside_decodes_keeps_their_target() {
        let (model, target) = (Fitted::example(), Span::from_ms(20));
        let decodes = (0..32).fold(StepWork::default(), |work, _| work.with_decode(900));
        let mut budget = ChunkBudget::new(model, decodes, Some(target), 2_048);
        let (first, second, third) = (budget.take(1_000, 100), budget.take(0, 1_000), budget.take(0, 1_000));
        assert_eq!((first, third), (100, 0));
        let with = |second: u32| decodes.with_chunk(1_000..1_100).with_chunk(0..second);
        assert!(
            second > 0 && model.span_alone(&with(second)) <= target && model.span_alone(&with(second + 1)) > target
        );
    }

    /// Squares make a later chunk of a long prompt dearer than its first.
    #[test]
    fn a_chunk_deep_in_a_prompt_is_shorter() {
        let chunk = |start| {
            let decodes = StepWork::default().with_decode(100);
            ChunkBudget::new(Fitted::example(), decodes, Some(Span::from_ms(20)), 2_048).take(start, 2_048)
        };
        assert!(chunk(10_000) < chunk(0));
    }

    #[test]
    fn where_decodes_miss_the_target_by_themselves_prompts_have_half_of_the_step() {
        let (model, decodes) = (Fitted::example(), StepWork::default().with_decode(9));
        let tokens = ChunkBudget::new(model, decodes, Some(Span(1)), 4_096).take(0, 4_096);
        let span = |tokens| model.span_alone(&decodes.with_chunk(0..tokens));
        let twice = Span(2 * model.span_alone(&decodes).us());
        assert!(span(tokens) <= twice && span(tokens + 1) > twice, "{tokens}");
        let nearly = twice.us() - 1;
        assert_eq!(ChunkBudget::new(model, decodes, Some(Span(nearly)), 4_096).take(0, 4_096), tokens);
    }

    #[test]
    fn where_no_chunk_fits_the_first_prompt_still_goes_on() {
        let mut slow = Fitted::example();
        slow.prefill.token_us = 1e6;
        let budget = || ChunkBudget::new(slow, StepWork::default().with_decode(9), Some(Span(1)), 64);
        let mut many = budget();
        assert_eq!([many.take(0, 40), many.take(0, 40)], [TILE_TOKENS, 0]);
        assert_eq!(budget().take(0, 3), 3);
    }
}
