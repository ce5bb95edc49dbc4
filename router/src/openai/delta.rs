//! What a choice brings next, in the terms of the API but not yet in JSON; knows neither endpoint.

use sched::{FinishReason, TokenId};
use serde::Serialize;

use super::TokenLogprob;

/// Something new of one choice.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Delta {
    /// Index of the choice as the client sees it.
    pub index: u32,
    /// Text that is now certain; may be empty.
    pub text: String,
    /// Tokens behind it, where the client wants their ids.
    pub tokens: Vec<TokenId>,
    /// Their log-probabilities, where the client wants them.
    pub logprobs: Vec<TokenLogprob>,
    /// Set on the last delta of the choice.
    pub finish: Option<FinishReason>,
}

impl Delta {
    /// About how many bytes of JSON this is.
    #[must_use]
    pub fn json_bytes(&self) -> usize {
        /// A token id and its comma.
        const TOKEN_ID: usize = 7;
        let logprobs: usize = self.logprobs.iter().map(TokenLogprob::json_bytes).sum();
        self.text.len() + TOKEN_ID * self.tokens.len() + logprobs
    }

    /// Whether there is nothing to tell a client.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.text.is_empty() && self.tokens.is_empty() && self.logprobs.is_empty() && self.finish.is_none()
    }
}

/// A whole choice: all its deltas in one.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Choice {
    /// Its text.
    pub text: String,
    /// Its tokens.
    pub tokens: Vec<TokenId>,
    /// Their log-probabilities.
    pub logprobs: Vec<TokenLogprob>,
    /// Why it ended.
    pub finish: Option<FinishReason>,
}

impl Choice {
    /// Adds the next delta.
    pub fn extend(&mut self, delta: Delta) {
        self.text.push_str(&delta.text);
        self.tokens.extend(delta.tokens);
        self.logprobs.extend(delta.logprobs);
        self.finish = delta.finish.or(self.finish);
    }
}

/// What all chunks of one answer share.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head {
    /// The answer's name.
    pub id: String,
    /// When it began, in seconds since 1970.
    pub created: u64,
    /// The model, as the client named it.
    pub model: String,
}

/// Token counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Usage {
    /// Tokens of all prompts.
    pub prompt_tokens: u64,
    /// Tokens of all choices.
    pub completion_tokens: u64,
}

impl Serialize for Usage {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct Wire {
            prompt_tokens: u64,
            completion_tokens: u64,
            total_tokens: u64,
        }
        Wire {
            prompt_tokens: self.prompt_tokens,
            completion_tokens: self.completion_tokens,
            total_tokens: self.prompt_tokens + self.completion_tokens,
        }
        .serialize(serializer)
    }
}

/// The API's word for why a choice ended.
pub(super) const fn finish_name(finish: Option<FinishReason>) -> Option<&'static str> {
    match finish {
        Some(FinishReason::Stop) => Some("stop"),
        Some(FinishReason::Length) => Some("length"),
        None => None,
    }
}

/// Token ids as the wire has them; absent when the client does not want them.
pub(super) fn token_ids(tokens: &[TokenId]) -> Option<Vec<u32>> {
    (!tokens.is_empty()).then(|| tokens.iter().map(|token| token.0).collect())
}
