//! One draw from a row of logits: temperature, top-k, top-p, min-p; knows no sequence.
//!
//! Filters act in this order, each on what the previous one kept: top-k, top-p (Holtzman et al., 2020; the token that
//! crosses the mass is kept), min-p (Nguyen et al., 2024). Everything runs in one fixed order, so a draw depends only
//! on row, parameters and random number.

use sched::SamplingParams;

use super::elementary::exp;
use super::order::{Entry, entry, greedy, most_likely, sort_first, sum_in_lanes};

/// Buffers that draws reuse.
#[derive(Debug, Default)]
pub(super) struct Scratch {
    pub(super) entries: Vec<u64>,
    weights: Vec<f32>,
    blocks: Vec<f64>,
}

/// Weights of logits: `exp((logit - maximum) / temperature)`, 1 for the most likely token.
#[derive(Clone, Copy)]
struct Weigher {
    maximum: f32,
    inverse_temperature: f32,
}

impl Weigher {
    fn weight(self, logit: f32) -> f32 {
        exp((logit - self.maximum) * self.inverse_temperature)
    }
}

/// Draws a token; `uniform` lies in [0, 1). `maximum` is the row's largest logit.
pub(super) fn draw(logits: &[f32], maximum: f32, params: &SamplingParams, uniform: f64, scratch: &mut Scratch) -> u32 {
    let inverse_temperature = params.temperature.recip();
    // Below about 1e-38 the reciprocal overflows: such a temperature is greedy in effect.
    if params.temperature == 0.0 || !inverse_temperature.is_finite() {
        return greedy(logits, maximum);
    }
    let weigher = Weigher { maximum, inverse_temperature };
    let top_k = if params.top_k == 0 { logits.len() } else { (params.top_k as usize).min(logits.len()) };
    if top_k == logits.len() && params.top_p >= 1.0 {
        return draw_by_id(logits, weigher, params.min_p, uniform, scratch);
    }
    let candidates = if top_k < logits.len() {
        let kept = most_likely(logits, top_k, &mut scratch.entries);
        weigh(kept.into_iter(), logits, weigher)
    } else {
        nucleus_candidates(logits, weigher, params.top_p, scratch)
    };
    let total = if top_k < logits.len() {
        candidates.iter().map(|(_, weight)| f64::from(*weight)).sum()
    } else {
        sum_in_lanes(logits, |logit| weigher.weight(logit))
    };
    let nucleus = nucleus_len(&candidates, f64::from(params.top_p) * total);
    let kept = &candidates[..nucleus];
    let likely = kept.partition_point(|(_, weight)| *weight >= params.min_p).max(1);
    match kept.get(..likely) {
        Some(likely) => pick(likely, uniform),
        // Nothing is kept only if a parameter is NaN.
        None => greedy(logits, maximum),
    }
}

/// Draws from the whole vocabulary in token order, without sorting.
fn draw_by_id(logits: &[f32], weigher: Weigher, min_p: f32, uniform: f64, scratch: &mut Scratch) -> u32 {
    const BLOCK: usize = 256;
    let Scratch { weights, blocks, .. } = scratch;
    weights.clear();
    weights.extend(logits.iter().map(|logit| weigher.weight(*logit)));
    if min_p > 0.0 {
        weights.iter_mut().for_each(|weight| *weight = if *weight >= min_p { *weight } else { 0.0 });
    }
    blocks.clear();
    blocks.extend(weights.chunks(BLOCK).map(|block| sum_in_lanes(block, |weight| weight)));
    let total: f64 = blocks.iter().sum();
    let (block, mut rest) = descend(blocks, uniform * total);
    let first = block * BLOCK;
    let inside = &weights[first..weights.len().min(first + BLOCK)];
    let mut last = 0;
    for (offset, weight) in inside.iter().enumerate().filter(|(_, weight)| **weight > 0.0) {
        last = offset;
        rest -= f64::from(*weight);
        if rest < 0.0 {
            break;
        }
    }
    (first + last) as u32
}

/// Finds the block in which `target` falls and the rest of it there; rounding never leads to an empty block.
fn descend(blocks: &[f64], target: f64) -> (usize, f64) {
    let mut rest = target;
    let mut last = (0, 0.0);
    for (index, mass) in blocks.iter().enumerate().filter(|(_, mass)| **mass > 0.0) {
        last = (index, rest);
        if rest < *mass {
            break;
        }
        rest -= mass;
    }
    last
}

/// Returns the most likely tokens in order, at least as many as the nucleus needs.
fn nucleus_candidates(logits: &[f32], weigher: Weigher, top_p: f32, scratch: &mut Scratch) -> Vec<(u32, f32)> {
    const FIRST: usize = 64;
    const GROWTH: usize = 8;
    let total = sum_in_lanes(logits, |logit| weigher.weight(logit));
    // Tokens at or below this weight hold at most 1 - top_p of the mass together, so the nucleus lies above.
    let floor = ((1.0 - f64::from(top_p)) * total / logits.len() as f64) as f32;
    // The most likely token is never below that, even if all are equally likely.
    let likely = |logit: &f32| weigher.weight(*logit) >= floor;
    let entries = &mut scratch.entries;
    entries.clear();
    entries
        .extend((0..).zip(logits).filter(|(_, logit)| likely(logit)).map(|(id, logit)| Entry::new(id, *logit).raw()));
    let mut count = FIRST;
    loop {
        sort_first(entries, count);
        let sorted = entries.iter().take(count).map(|raw| entry(*raw));
        let candidates = weigh(sorted, logits, weigher);
        let mass: f64 = candidates.iter().map(|(_, weight)| f64::from(*weight)).sum();
        if mass >= f64::from(top_p) * total || count >= entries.len() {
            return candidates;
        }
        count *= GROWTH;
    }
}

fn weigh(entries: impl Iterator<Item = Entry>, logits: &[f32], weigher: Weigher) -> Vec<(u32, f32)> {
    entries.map(|entry| (entry.token(), weigher.weight(logits[entry.index()]))).collect()
}

/// Number of sorted candidates that reach `mass`; at least one.
fn nucleus_len(candidates: &[(u32, f32)], mass: f64) -> usize {
    let mut sum = 0.0;
    for (index, (_, weight)) in candidates.iter().enumerate() {
        sum += f64::from(*weight);
        if sum >= mass {
            return index + 1;
        }
    }
    candidates.len()
}

fn pick(kept: &[(u32, f32)], uniform: f64) -> u32 {
    let total: f64 = kept.iter().map(|(_, weight)| f64::from(*weight)).sum();
    let mut rest = uniform * total;
    let mut last = 0;
    for (token, weight) in kept.iter().filter(|(_, weight)| *weight > 0.0) {
        last = *token;
        rest -= f64::from(*weight);
        if rest < 0.0 {
            break;
        }
    }
    last
}
