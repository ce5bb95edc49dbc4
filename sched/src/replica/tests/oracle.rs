//! A model small enough to recompute: the KV value of a position depends on every token up to it, the next token on
//! every value, and a choice's seed. Any block that is lost, stale, torn or mixed up changes what is generated.

use crate::rng::{choice_seed, token_hash};
use crate::{Choice, SamplingParams, Score, TokenId};

pub(super) const VOCABULARY: u64 = 50;

/// The KV value of the position after `below`, given its token.
pub(super) fn value(below: &[u64], token: TokenId) -> u64 {
    below.iter().fold(mix(0x9E37, u64::from(token.0)), |hash, value| mix(hash, *value))
}

pub(super) fn values(tokens: impl IntoIterator<Item = TokenId>) -> Vec<u64> {
    tokens.into_iter().fold(Vec::new(), |mut values, token| {
        values.push(value(&values, token));
        values
    })
}

/// Token that follows, as the `position`-th generated one.
pub(super) fn sample(values: &[u64], seed: u64, position: u64) -> TokenId {
    let state = values.last().copied().unwrap_or(0);
    TokenId((token_hash(seed ^ state, position) % VOCABULARY) as u32)
}

/// Score of the token that follows `values`.
pub(super) fn score(values: &[u64], token: TokenId) -> Score {
    let state = values.last().copied().unwrap_or(0);
    Score { logprob: -((mix(state, token.0.into()) >> 44) as f32), rank: 1, top: Vec::new() }
}

/// Whole answer of a choice, ending as its parameters and the context say.
pub(super) fn answer(prompt: &[TokenId], params: &SamplingParams, choice: Choice, context_max: u32) -> Vec<TokenId> {
    let seed = choice_seed(params.seed, choice);
    let mut known = values(prompt.iter().copied());
    let mut generated = Vec::new();
    loop {
        let token = sample(&known, seed, generated.len() as u64);
        generated.push(token);
        let count = generated.len();
        let stops = count > params.min_tokens as usize && params.stop_tokens.contains(&token);
        if stops || count >= params.max_tokens as usize || prompt.len() + count >= context_max as usize {
            return generated;
        }
        known.push(value(&known, token));
    }
}

pub(super) fn mix(hash: u64, value: u64) -> u64 {
    (hash.rotate_left(23) ^ value).wrapping_mul(0xD6E8_FEB8_6659_FD93)
}
