//! Scores of one prompt on their way to its client; knows neither HTTP nor JSON.

use std::sync::Arc;

use sched::{Failure, FailureKind, Score, Scores, TokenId};

use crate::openai::{TokenLogprob, TokenNames};
use crate::text::{SpecialText, Tokenizer, offsets};

/// Prompt, what of it the answer repeats, and its scores so far.
#[derive(Debug, Clone)]
pub(crate) struct PromptScores {
    pub(crate) tokens: Arc<[TokenId]>,
    /// Text with which each choice begins.
    pub(crate) echo: String,
    pub(crate) scores: Vec<Score>,
}

impl PromptScores {
    pub(crate) fn new(tokens: Arc<[TokenId]>, echo: String) -> PromptScores {
        PromptScores { tokens, echo, scores: Vec::new() }
    }

    /// Takes more scores, which come again after a loss. Fails if some before them are missing.
    pub(crate) fn take(&mut self, scores: Scores) -> Result<(), Failure> {
        let start = (scores.first as usize).saturating_sub(1);
        if start > self.scores.len() {
            return Err(missing(self.scores.len() + 1));
        }
        let end = self.scores.len().min(start + scores.scores.len());
        self.scores.splice(start..end, scores.scores);
        Ok(())
    }

    /// Fails unless all tokens but the first have scores.
    pub(crate) fn check(&self) -> Result<(), Failure> {
        match self.scores.len() + 1 == self.tokens.len() {
            true => Ok(()),
            false => Err(missing(self.scores.len() + 1)),
        }
    }

    /// Returns the log-probabilities with which the list of a choice begins, with `top` alternatives per token.
    pub(crate) fn echoed(
        &self,
        top: u8,
        tokenizer: &Tokenizer,
        (special_text, names): (SpecialText, TokenNames),
    ) -> Vec<TokenLogprob> {
        let offsets = offsets(tokenizer, special_text, &self.tokens);
        let scores = std::iter::once(None).chain(self.scores.iter().map(Some));
        let tokens = self.tokens.iter().zip(scores).zip(offsets);
        let logprob = |((token, score), offset): ((&TokenId, Option<&Score>), usize)| {
            TokenLogprob::of_prompt((*token, score), top, tokenizer, (offset, names))
        };
        tokens.map(logprob).collect()
    }
}

fn missing(position: usize) -> Failure {
    Failure::new(FailureKind::Internal, format!("a worker has not scored the prompt's token {position}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scores(first: u32, logprobs: &[f32]) -> Scores {
        let score = |logprob: &f32| Score { logprob: *logprob, rank: 1, top: Vec::new() };
        Scores { first, scores: logprobs.iter().map(score).collect() }
    }

    #[test]
    fn scores_that_come_again_replace_the_first_ones() {
        let mut prompt = PromptScores::new(vec![TokenId(1); 5].into(), String::new());
        prompt.take(scores(1, &[-1.0, -2.0, -3.0])).unwrap();
        assert!(prompt.check().is_err());
        prompt.take(scores(1, &[-4.0, -5.0])).unwrap();
        prompt.take(scores(3, &[-6.0, -7.0])).unwrap();
        prompt.check().unwrap();
        let logprobs: Vec<f32> = prompt.scores.iter().map(|score| score.logprob).collect();
        assert_eq!(logprobs, [-4.0, -5.0, -6.0, -7.0]);
    }

    #[test]
    fn a_gap_is_a_failure() {
        let mut prompt = PromptScores::new(vec![TokenId(1); 5].into(), String::new());
        let failure = prompt.take(scores(2, &[-1.0])).unwrap_err();
        assert_eq!(failure.kind, FailureKind::Internal);
    }
}
