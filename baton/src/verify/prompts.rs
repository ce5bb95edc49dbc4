//! Requests that `verify` sends: seeded, and chosen to find what breaks exactness; knows no deployment.

use serde_json::{Value, json};
use xxhash_rust::xxh3::xxh3_64_with_seed;

/// Bounds on the requests.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// Token ids are smaller than this.
    pub vocab: u32,
    /// Most tokens of prompt and output together.
    pub context_max: u32,
}

const SEED: u64 = 0x00ba_7040;
const LENGTH_MAX: u32 = 1_500;
const OUTPUT_MAX: u32 = 48;

/// Returns `count` request bodies for `/v1/completions`: lengths from 1 to 1,500 tokens, shared prefixes, greedy and
/// sampled, penalties, log-probabilities of prompts, stop tokens, several choices, one-token answers.
#[must_use]
pub fn requests(count: usize, bounds: Bounds) -> Vec<Value> {
    let mut prompts: Vec<Vec<u32>> = Vec::with_capacity(count);
    for index in 0..count {
        let prompt = prompt(index as u64, &prompts, bounds);
        prompts.push(prompt);
    }
    prompts.iter().enumerate().map(|(index, prompt)| request(index as u64, prompt, bounds)).collect()
}

fn draw(index: u64, purpose: u32, below: u32) -> u32 {
    let drawn = [index.to_le_bytes(), u64::from(purpose).to_le_bytes()].concat();
    (xxh3_64_with_seed(&drawn, SEED) % u64::from(below)) as u32
}

fn prompt(index: u64, earlier: &[Vec<u32>], bounds: Bounds) -> Vec<u32> {
    let length_max = LENGTH_MAX.min(bounds.context_max.saturating_sub(OUTPUT_MAX)).max(1);
    // The first lengths are edge cases: around one token, the block sizes and the attention chunk of 128.
    const EDGES: [u32; 16] = [1, 2, 15, 16, 17, 31, 32, 33, 63, 64, 65, 127, 128, 129, 257, 1_500];
    let length = match EDGES.get(index as usize) {
        Some(edge) => *edge,
        // Most lengths are short, as the square favours small values.
        None => 1 + (draw(index, 0, 1_000) as f32 / 1_000.0).powi(2).mul_add(length_max as f32, 0.0) as u32,
    };
    let length = length.min(length_max) as usize;
    let mut tokens = Vec::with_capacity(length);
    // Every third prompt begins like an earlier one, so that the prefix cache has hits.
    if index % 3 == 2 {
        let donor = &earlier[draw(index, 1, earlier.len() as u32) as usize];
        tokens.extend(donor.iter().take(length.saturating_sub(1)));
    }
    while tokens.len() < length {
        tokens.push(draw(index * 4_096 + tokens.len() as u64, 2, bounds.vocab));
    }
    tokens
}

fn request(index: u64, prompt: &[u32], bounds: Bounds) -> Value {
    let room = bounds.context_max.saturating_sub(prompt.len() as u32).clamp(1, OUTPUT_MAX);
    let max_tokens = if index % 11 == 5 { 1 } else { 1 + draw(index, 3, room) };
    let mut body = json!({
        "prompt": prompt, "max_tokens": max_tokens, "seed": index, "logprobs": 3, "return_token_ids": true,
        "ignore_eos": !index.is_multiple_of(5),
    });
    match index % 6 {
        0 | 1 => body["temperature"] = json!(0.0),
        2 => {
            body["temperature"] = json!(0.8);
            body["prompt_logprobs"] = json!(2);
        }
        3 => {
            body["top_p"] = json!(0.9);
            body["top_k"] = json!(40);
        }
        4 => {
            body["min_p"] = json!(0.02);
            body["repetition_penalty"] = json!(1.2);
        }
        _ => {
            body["frequency_penalty"] = json!(0.4);
            body["presence_penalty"] = json!(0.3);
            body["logit_bias"] = json!({"7": 2.0});
        }
    }
    if index % 7 == 3 {
        body["n"] = json!(3);
        body["temperature"] = json!(1.0);
    }
    if index % 8 == 6 {
        let stop: Vec<u32> = (0..40).map(|i| draw(index * 64 + i, 4, bounds.vocab)).collect();
        body["stop_token_ids"] = json!(stop);
    }
    body
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUNDS: Bounds = Bounds { vocab: 512, context_max: 2_048 };

    #[test]
    fn the_requests_cover_what_they_are_for() {
        let all = requests(200, BOUNDS);
        let lengths: Vec<usize> = all.iter().filter_map(|r| r["prompt"].as_array()).map(Vec::len).collect();
        assert_eq!((lengths.iter().min(), lengths.iter().max()), (Some(&1), Some(&1_500)));
        let has = |key: &str| all.iter().any(|request| request.get(key).is_some());
        assert!(
            ["n", "stop_token_ids", "repetition_penalty", "logit_bias", "top_p", "min_p", "prompt_logprobs"]
                .into_iter()
                .all(has)
        );
        assert!(all.iter().any(|request| request["max_tokens"] == 1));
        assert_eq!(all, requests(200, BOUNDS), "the same seed gives the same requests");
    }

    #[test]
    fn every_request_fits_a_small_context() {
        for request in requests(200, Bounds { vocab: 300, context_max: 256 }) {
            let prompt = request["prompt"].as_array().map_or(0, Vec::len) as u64;
            assert!(prompt >= 1 && prompt + request["max_tokens"].as_u64().unwrap_or(999) <= 256);
        }
    }
}
