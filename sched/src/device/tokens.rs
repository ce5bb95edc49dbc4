//! Tokens and log-probabilities as hashes of (seed, position); knows no time.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::{
    SampleOutcome, SampledToken, SamplingParams, Score, ScoreOutcome, ScoreRow, SlotId, StepPlan, TokenId, rng,
};

pub(super) struct HashedTokens {
    vocab: u32,
    eos: Vec<u32>,
    output_tokens: Option<u32>,
    slots: BTreeMap<SlotId, Slot>,
}

struct Slot {
    params: Arc<SamplingParams>,
    seed: u64,
    generated: u32,
}

impl HashedTokens {
    pub(super) fn new(vocab: u32, eos: Vec<u32>, output_tokens: Option<u32>) -> HashedTokens {
        HashedTokens { vocab: vocab.max(1), eos, output_tokens, slots: BTreeMap::new() }
    }

    /// Begins the slots that a plan admits, before its first layer.
    pub(super) fn begin(&mut self, plan: &StepPlan) {
        for init in &plan.admit {
            let generated = init.generated.len() as u32;
            let slot = Slot { params: Arc::clone(&init.params), seed: init.seed, generated };
            self.slots.insert(init.slot, slot);
        }
    }

    pub(super) fn sample(&mut self, plan: &StepPlan) -> Result<Vec<SampleOutcome>, String> {
        plan.sample.iter().map(|sample| self.next(sample.slot).map(Ok)).collect()
    }

    /// Makes up scores that depend on the token only, which is always the most likely one.
    pub(super) fn score(&self, plan: &StepPlan) -> Vec<ScoreOutcome> {
        let score = |row: &ScoreRow| {
            let hash = rng::token_hash(u64::from(row.token.0), 0);
            let SampledToken { logprob, top, .. } = with_logprobs(row.token, hash, Some(row.top), self.vocab);
            Score { logprob: logprob.unwrap_or(0.0), rank: 1, top }
        };
        plan.score.iter().map(|row| Ok(score(row))).collect()
    }

    fn next(&mut self, id: SlotId) -> Result<SampledToken, String> {
        let HashedTokens { vocab, eos, output_tokens, slots } = self;
        let Some(slot) = slots.get_mut(&id) else {
            return Err(format!("the plan samples {id}, which was not admitted"));
        };
        let position = u64::from(slot.generated);
        slot.generated += 1;
        let hash = rng::token_hash(slot.seed, position);
        let stops = &slot.params.stop_tokens;
        let is_last = output_tokens.is_some_and(|length| slot.generated >= length.max(slot.params.min_tokens + 1));
        let token = match stops.first() {
            Some(stop) if is_last => *stop,
            _ => plain_token(hash, *vocab, |token| eos.contains(&token.0) || stops.contains(&token)),
        };
        Ok(with_logprobs(token, hash, slot.params.logprobs, *vocab))
    }
}

/// Turns a hash into a token that does not end a text, if the vocabulary has one near it.
fn plain_token(hash: u64, vocab: u32, ends: impl Fn(TokenId) -> bool) -> TokenId {
    const TRIES_MAX: u32 = 1024;
    let first = (hash % u64::from(vocab)) as u32;
    let near =
        (0..TRIES_MAX.min(vocab)).map(|step| TokenId(((u64::from(first) + u64::from(step)) % u64::from(vocab)) as u32));
    near.into_iter().find(|token| !ends(*token)).unwrap_or(TokenId(first))
}

/// Adds made-up log-probabilities: the chosen token first, its neighbours ever less likely.
fn with_logprobs(token: TokenId, hash: u64, logprobs: Option<u8>, vocab: u32) -> SampledToken {
    let Some(count) = logprobs else { return SampledToken { token, logprob: None, top: Vec::new() } };
    let chosen = -((hash >> 40) as f32) / (1 << 22) as f32;
    let neighbour = |rank: u8| {
        let id = (u64::from(token.0) + u64::from(rank)) % u64::from(vocab);
        (TokenId(id as u32), chosen - f32::from(rank) * 0.25)
    };
    let count = u32::from(count).min(vocab) as u8;
    SampledToken { token, logprob: Some(chosen), top: (0..count).map(neighbour).collect() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{SampleRow, SlotInit};

    fn tokens(output_tokens: Option<u32>, generated: usize, count: usize) -> Vec<u32> {
        let mut device = HashedTokens::new(8, vec![3], output_tokens);
        let params = SamplingParams { stop_tokens: vec![TokenId(3), TokenId(5)], ..SamplingParams::default() };
        let init = SlotInit {
            slot: SlotId(0),
            params: Arc::new(params),
            seed: 7,
            prompt: [TokenId(1)].into(),
            generated: vec![TokenId(0); generated],
        };
        let sample = vec![SampleRow { row: 0, slot: SlotId(0) }];
        device.begin(&StepPlan { admit: vec![init], ..StepPlan::default() });
        let plan = StepPlan { sample, ..StepPlan::default() };
        (0..count).map(|_| device.sample(&plan).unwrap()[0].clone().unwrap().token.0).collect()
    }

    #[test]
    fn tokens_depend_on_seed_and_position_only_and_never_stop() {
        let whole = tokens(None, 0, 64);
        assert_eq!(tokens(None, 20, 44), whole[20..]);
        assert!(whole.iter().all(|token| *token < 8 && *token != 3 && *token != 5));
    }

    #[test]
    fn a_configured_length_ends_with_a_stop_token() {
        let ended = tokens(Some(5), 0, 5);
        assert_eq!(ended[..4], tokens(None, 0, 4));
        assert_eq!(ended[4], 3);
        assert_eq!(tokens(Some(5), 3, 2)[1], 3);
    }

    #[test]
    fn defects_of_a_plan_are_errors() {
        let mut device = HashedTokens::new(8, Vec::new(), None);
        let sample = vec![SampleRow { row: 0, slot: SlotId(0) }];
        assert!(device.sample(&StepPlan { sample, ..StepPlan::default() }).is_err());
    }
}
