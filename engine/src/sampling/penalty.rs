//! Changes to logits that depend on the tokens of a sequence: bias, masked stop tokens, penalties. Overflow saturates,
//! so a finite logit stays finite unless it is masked.
//!
//! Order: bias, stop tokens masked, repetition penalty (Keskar et al., "CTRL", 2019), frequency and presence penalty.

use std::collections::BTreeMap;

use sched::{SamplingParams, TokenId};

/// Tokens of one sequence that penalties need; empty if no penalty is on.
#[derive(Debug, Clone, Default)]
pub(super) struct Seen {
    /// Count of each generated token.
    generated: BTreeMap<TokenId, u32>,
    /// Distinct tokens of the prompt, for the repetition penalty.
    prompt: Vec<TokenId>,
}

impl Seen {
    pub(super) fn new(params: &SamplingParams, prompt: &[TokenId], generated: &[TokenId]) -> Seen {
        let mut seen = Seen::default();
        if params.repetition_penalty != 1.0 {
            seen.prompt = prompt.to_vec();
            seen.prompt.sort_unstable();
            seen.prompt.dedup();
        }
        for token in generated {
            seen.note(params, *token);
        }
        seen
    }

    /// Counts a generated token.
    pub(super) fn note(&mut self, params: &SamplingParams, token: TokenId) {
        if has_penalty(params) {
            *self.generated.entry(token).or_insert(0) += 1;
        }
    }

    /// Changes the `logits` of a choice that has generated `generated` tokens.
    pub(super) fn adjust(&self, params: &SamplingParams, generated: u32, logits: &mut [f32]) {
        for (token, bias) in &params.logit_bias {
            if let Some(logit) = logits.get_mut(token.0 as usize) {
                *logit = saturate(*logit, *logit + bias);
            }
        }
        if generated < params.min_tokens {
            for token in &params.stop_tokens {
                if let Some(logit) = logits.get_mut(token.0 as usize) {
                    *logit = f32::NEG_INFINITY;
                }
            }
        }
        self.repetition(params.repetition_penalty, logits);
        for (token, count) in &self.generated {
            if let Some(logit) = logits.get_mut(token.0 as usize) {
                let changed = *logit - params.frequency_penalty * *count as f32 - params.presence_penalty;
                *logit = saturate(*logit, changed);
            }
        }
    }

    fn repetition(&self, penalty: f32, logits: &mut [f32]) {
        if penalty == 1.0 {
            return;
        }
        let only_generated = self.generated.keys().filter(|token| self.prompt.binary_search(token).is_err());
        for token in self.prompt.iter().chain(only_generated) {
            if let Some(logit) = logits.get_mut(token.0 as usize) {
                *logit = saturate(*logit, if *logit > 0.0 { *logit / penalty } else { *logit * penalty });
            }
        }
    }
}

/// Keeps a changed logit finite if it was finite before; masked logits stay masked.
fn saturate(before: f32, changed: f32) -> f32 {
    if before.is_finite() { changed.clamp(f32::MIN, f32::MAX) } else { before }
}

/// True if `Seen::adjust` would change anything.
pub(super) fn changes_logits(params: &SamplingParams, generated: u32) -> bool {
    let masks = generated < params.min_tokens && !params.stop_tokens.is_empty();
    masks || !params.logit_bias.is_empty() || has_penalty(params)
}

fn has_penalty(params: &SamplingParams) -> bool {
    params.repetition_penalty != 1.0 || params.presence_penalty != 0.0 || params.frequency_penalty != 0.0
}
