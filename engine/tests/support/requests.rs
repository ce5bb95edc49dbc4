//! Requests of many kinds: lengths around block and chunk edges, every sampling parameter, choices, early ends.

use std::sync::Arc;

use sched::message::Work;
use sched::{Attempt, Choice, ChoiceState, Leg, Request, RequestId, SamplingParams, Slo, Span, TokenId};

/// A request over random tokens below `vocab`.
pub fn request(id: u64, prompt: Vec<TokenId>, choices: u32, params: SamplingParams) -> Request {
    Request {
        leg: Leg { request: RequestId(id), attempt: Attempt(0) },
        prompt: prompt.into(),
        choices: (0..choices).map(|choice| ChoiceState { choice: Choice(choice), generated: Vec::new() }).collect(),
        params: Arc::new(params),
        slo: Slo::default(),
        deadline_in: Span::from_secs(120),
    }
}

/// Random tokens; the same seed gives the same tokens.
pub fn tokens(seed: u64, count: usize, vocab: u32) -> Vec<TokenId> {
    let token = |index: usize| TokenId((sched::rng::token_hash(seed, index as u64) % u64::from(vocab)) as u32);
    (0..count).map(token).collect()
}

/// Work for a prefill worker, as a router would send it.
pub fn work(request: &Request) -> Work {
    if request.params.max_tokens == 1 { Work::Whole } else { Work::Give }
}

/// Requests of every kind, about 20 tokens each.
pub fn mix(vocab: u32) -> Vec<Request> {
    let base = SamplingParams { max_tokens: 12, logprobs: Some(3), ..SamplingParams::default() };
    let greedy = SamplingParams { temperature: 0.0, ..base.clone() };
    let penalised = SamplingParams {
        repetition_penalty: 1.2,
        presence_penalty: 0.3,
        frequency_penalty: 0.2,
        logit_bias: vec![(TokenId(5), 2.0), (TokenId(9), -100.0)],
        bad_words: (0..vocab).map(|token| vec![TokenId(token), TokenId(token / 2)]).collect(),
        ..base.clone()
    };
    let nucleus =
        SamplingParams { top_p: 0.8, min_p: 0.02, temperature: 0.9, prompt_logprobs: Some(2), ..base.clone() };
    let allowed_tokens = (0..vocab).step_by(3).map(TokenId).collect();
    let top_k = SamplingParams { top_k: 20, logprobs: Some(0), allowed_tokens, ..base.clone() };
    let stopping = SamplingParams { min_tokens: 3, stop_tokens: (0..vocab / 6).map(TokenId).collect(), ..base.clone() };
    let single = SamplingParams { max_tokens: 1, prompt_logprobs: Some(0), ..base.clone() };
    let kinds = [greedy, base, penalised, nucleus, top_k, stopping, single];
    let lengths = [1, 15, 16, 17, 31, 33, 63, 64, 65, 100, 129, 160, 200, 257, 2, 48];
    let shared = tokens(77, 70, vocab);
    let mut requests = Vec::new();
    for (index, length) in lengths.into_iter().enumerate() {
        let params = SamplingParams { seed: 1000 + index as u64, ..kinds[index % kinds.len()].clone() };
        let mut prompt = tokens(index as u64, length, vocab);
        if index % 3 == 0 {
            // Some begin alike, so that prefixes can be reused.
            prompt.splice(0..0, shared.iter().copied());
        }
        let choices = if index % 4 == 1 { 3 } else { 1 };
        requests.push(request(index as u64 + 1, prompt, choices, params));
    }
    requests
}
