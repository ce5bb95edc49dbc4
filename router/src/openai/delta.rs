//! New text and tokens of a choice, in the terms of the API but not yet in JSON; knows neither endpoint.

use sched::{FinishReason, TokenId};
use serde::{Serialize, Serializer};

use super::TokenLogprob;

/// JSON bytes of a token id and its comma.
const TOKEN_ID_BYTES: usize = 7;

/// New text and tokens of one choice.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Delta {
    /// Index of the choice as the client sees it.
    pub index: u32,
    /// Text that is now certain; may be empty.
    pub text: String,
    /// Tokens of the text, where the client wants their ids.
    pub tokens: Vec<TokenId>,
    /// Log-probabilities of the tokens, where the client wants them.
    pub logprobs: Vec<TokenLogprob>,
    /// Set on the last delta of the choice.
    pub finish: Option<FinishReason>,
}

impl Delta {
    /// Estimates the bytes of JSON.
    #[must_use]
    pub fn json_bytes(&self) -> usize {
        let logprobs: usize = self.logprobs.iter().map(TokenLogprob::json_bytes).sum();
        text_json_bytes(&self.text) + TOKEN_ID_BYTES * self.tokens.len() + logprobs
    }

    /// Returns true if there is nothing to send to the client.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.text.is_empty() && self.tokens.is_empty() && self.logprobs.is_empty() && self.finish.is_none()
    }
}

/// Parts of a prompt that an answer repeats.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Repeated<'a> {
    /// Text with which the answer begins; empty unless the client wants it.
    pub echo: &'a str,
    /// Tokens of the prompt; empty unless the client wants their ids.
    pub tokens: &'a [TokenId],
}

impl Repeated<'_> {
    /// Repeats nothing.
    pub const NOTHING: Repeated<'static> = Repeated { echo: "", tokens: &[] };

    /// Estimates the bytes of JSON.
    #[must_use]
    pub fn json_bytes(&self) -> usize {
        text_json_bytes(self.echo) + TOKEN_ID_BYTES * self.tokens.len()
    }
}

/// Whole choice: all its deltas in one.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Choice {
    /// Text.
    pub text: String,
    /// Tokens.
    pub tokens: Vec<TokenId>,
    /// Log-probabilities of the tokens.
    pub logprobs: Vec<TokenLogprob>,
    /// Reason why the choice ended.
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

/// Fields that all chunks of one answer share.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head {
    /// Name of the answer.
    pub id: String,
    /// Start of the answer, in seconds since 1970.
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
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
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

/// Returns the API's word for why a choice ended.
pub(super) const fn finish_name(finish: Option<FinishReason>) -> Option<&'static str> {
    match finish {
        Some(FinishReason::Stop) => Some("stop"),
        Some(FinishReason::Length) => Some("length"),
        None => None,
    }
}

/// Returns token ids for the wire; `None` if the client does not want them.
pub(super) fn token_ids(tokens: &[TokenId]) -> Option<Ids<'_>> {
    (!tokens.is_empty()).then_some(Ids(tokens))
}

/// Token ids, written as numbers without a copy.
pub(super) struct Ids<'a>(pub(super) &'a [TokenId]);

impl Serialize for Ids<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.0.iter().map(|token| token.0))
    }
}

/// Bytes of a text in JSON, where control characters and quotation marks are longer.
fn text_json_bytes(text: &str) -> usize {
    let more = |byte: u8| match byte {
        b'"' | b'\\' | b'\n' | b'\r' | b'\t' | 0x08 | 0x0c => 1,
        0..0x20 => 5,
        _ => 0,
    };
    text.len() + text.bytes().map(more).sum::<usize>()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_those_of_the_json() {
        for text in ["", "plain", "\u{1}\u{1f}\u{8}\u{c}\n\t\r \"\\/", "☃ é \u{7f}"] {
            assert_eq!(text_json_bytes(text) + 2, serde_json::to_string(text).unwrap().len(), "{text:?}");
        }
    }
}
