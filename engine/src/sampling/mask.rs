//! Tokens that must not come next: all but the allowed ones, and those that would end a forbidden word; knows no penalty.

use std::collections::VecDeque;

use sched::{SamplingParams, TokenId};

/// End of a choice's tokens, as far back as its forbidden words reach.
#[derive(Debug, Clone, Default)]
pub(super) struct Recent {
    tokens: VecDeque<TokenId>,
    reach: usize,
}

impl Recent {
    pub(super) fn new(params: &SamplingParams, generated: &[TokenId]) -> Recent {
        let reach = params.bad_words.iter().map(|word| word.len().saturating_sub(1)).max().unwrap_or(0);
        let seen = &generated[generated.len().saturating_sub(reach)..];
        Recent { tokens: seen.iter().copied().collect(), reach }
    }

    pub(super) fn note(&mut self, token: TokenId) {
        if self.reach == 0 {
            return;
        }
        if self.tokens.len() == self.reach {
            self.tokens.pop_front();
        }
        self.tokens.push_back(token);
    }

    /// Masks the `logits` of all tokens that must not come next.
    pub(super) fn mask(&self, params: &SamplingParams, logits: &mut [f32]) {
        keep_only(&params.allowed_tokens, logits);
        for word in &params.bad_words {
            if let Some((last, before)) = word.split_last()
                && self.ends_with(before)
                && let Some(logit) = logits.get_mut(last.0 as usize)
            {
                *logit = f32::NEG_INFINITY;
            }
        }
    }

    fn ends_with(&self, tokens: &[TokenId]) -> bool {
        self.tokens.len() >= tokens.len() && self.tokens.iter().rev().zip(tokens.iter().rev()).all(|(a, b)| a == b)
    }
}

/// Masks every token that is not among the sorted `allowed` ones, unless that list is empty.
fn keep_only(allowed: &[TokenId], logits: &mut [f32]) {
    if allowed.is_empty() {
        return;
    }
    let mut next = allowed.iter().map(|token| token.0 as usize).peekable();
    for (token, logit) in logits.iter_mut().enumerate() {
        while next.next_if(|allowed| *allowed < token).is_some() {}
        if next.peek() != Some(&token) {
            *logit = f32::NEG_INFINITY;
        }
    }
}

/// True if `Recent::mask` may change anything.
pub(super) fn has_masks(params: &SamplingParams) -> bool {
    !params.allowed_tokens.is_empty() || !params.bad_words.is_empty()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tokens(ids: &[u32]) -> Vec<TokenId> {
        ids.iter().map(|id| TokenId(*id)).collect()
    }

    /// Returns the tokens of a vocabulary of eight that may follow `generated`, of which the last `noted` were sampled.
    fn left(params: &SamplingParams, generated: &[u32], noted: usize) -> Vec<usize> {
        let (before, after) = generated.split_at(generated.len() - noted);
        let mut recent = Recent::new(params, &tokens(before));
        tokens(after).into_iter().for_each(|token| recent.note(token));
        let mut logits = [0.5; 8];
        recent.mask(params, &mut logits);
        (0..8).filter(|token| logits[*token] == 0.5).collect()
    }

    #[test]
    fn only_allowed_tokens_are_left() {
        let params = SamplingParams { allowed_tokens: tokens(&[1, 4, 7, 90]), ..SamplingParams::default() };
        assert_eq!(left(&params, &[], 0), [1, 4, 7]);
    }

    #[test]
    fn a_bad_word_is_cut_off_before_its_last_token_wherever_the_choice_was_resumed() {
        let words = vec![tokens(&[3]), tokens(&[1, 2, 5]), tokens(&[2, 6])];
        let params = SamplingParams { bad_words: words, ..SamplingParams::default() };
        for noted in 0..3 {
            assert_eq!(left(&params, &[7, 1, 2], noted), [0, 1, 2, 4, 7], "{noted}");
            assert_eq!(left(&params, &[1, 7, 2], noted), [0, 1, 2, 4, 5, 7], "{noted}");
        }
        assert_eq!(left(&params, &[], 0), [0, 1, 2, 4, 5, 6, 7]);
        assert!(has_masks(&params) && !has_masks(&SamplingParams::default()));
    }
}
