//! New text and tokens of a choice, in the terms of the API but not yet in JSON; knows neither endpoint.

use sched::{FinishReason, TokenId};
use serde::{Serialize, Serializer};

use super::{PromptLogprobs, TokenLogprob};
use crate::model_output::{CallPiece, CallStart, NextSpeaker};

/// JSON bytes of a token id and its comma.
const TOKEN_ID_BYTES: usize = 7;

/// New text and tokens of one choice.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Delta {
    /// Index of the choice as the client sees it.
    pub index: u32,
    /// Text that is now certain; may be empty.
    pub text: String,
    /// Thoughts that are now certain; before the text.
    pub reasoning: String,
    /// Parts of tool calls that are now certain; behind the text.
    pub calls: Vec<CallPiece>,
    /// Tokens of the text, where the client wants their ids.
    pub tokens: Vec<TokenId>,
    /// Log-probabilities of the tokens, where the client wants them.
    pub logprobs: Vec<TokenLogprob>,
    /// Tokens of the choice so far.
    pub completed: u64,
    /// Sum of the log-probabilities of the new tokens, where workers report them.
    pub logprob_sum: f64,
    /// Set on the last delta of the choice.
    pub finish: Option<FinishReason>,
    /// Who is to speak after the choice.
    pub next: NextSpeaker,
    /// What the client had set to end the choice, and did.
    pub stop_reason: Option<StopReason>,
}

/// A stop string or token of the client.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum StopReason {
    /// The string.
    Text(String),
    /// The id of the token.
    Token(u32),
}

impl Delta {
    /// Estimates the bytes of JSON.
    #[must_use]
    pub fn json_bytes(&self) -> usize {
        let logprobs: usize = self.logprobs.iter().map(TokenLogprob::json_bytes).sum();
        // Thoughts are sent under two names.
        let said = text_json_bytes(&self.text) + 2 * text_json_bytes(&self.reasoning);
        let calls: usize = self.calls.iter().map(call_json_bytes).sum();
        said + calls + TOKEN_ID_BYTES * self.tokens.len() + logprobs
    }

    /// Returns true if there is nothing to send to the client.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        let says_nothing = self.text.is_empty() && self.reasoning.is_empty() && self.calls.is_empty();
        says_nothing && self.tokens.is_empty() && self.logprobs.is_empty() && self.finish.is_none()
    }

    /// Returns true if there is nothing besides text.
    pub(super) fn is_plain(&self) -> bool {
        self.reasoning.is_empty() && self.calls.is_empty()
    }
}

/// Parts of a prompt that an answer repeats.
#[derive(Debug, Clone, Copy)]
pub struct Repeated<'a> {
    /// Text with which the answer begins; empty unless the client wants it.
    pub echo: &'a str,
    /// Tokens of the prompt; empty unless the client wants their ids.
    pub tokens: &'a [TokenId],
    /// Log-probabilities of the prompt's tokens, where the client wants a list of them.
    pub logprobs: Option<&'a PromptLogprobs>,
}

impl Repeated<'_> {
    /// Repeats nothing.
    pub const NOTHING: Repeated<'static> = Repeated { echo: "", tokens: &[], logprobs: None };

    /// Returns true if it has neither text nor token ids.
    #[must_use]
    pub fn is_nothing(&self) -> bool {
        self.echo.is_empty() && self.tokens.is_empty()
    }

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
    /// Thoughts before the text.
    pub reasoning: String,
    /// Tool calls.
    pub calls: Vec<WholeCall>,
    /// Tokens.
    pub tokens: Vec<TokenId>,
    /// Log-probabilities of the tokens.
    pub logprobs: Vec<TokenLogprob>,
    /// Number of tokens.
    pub completed: u64,
    /// Sum of their log-probabilities, where workers report them.
    pub logprob_sum: f64,
    /// Reason why the choice ended.
    pub finish: Option<FinishReason>,
    /// Who is to speak after the choice.
    pub next: NextSpeaker,
    /// What the client had set to end the choice, and did.
    pub stop_reason: Option<StopReason>,
}

/// Whole tool call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WholeCall {
    /// Name of the call and of its function.
    pub start: CallStart,
    /// Arguments as JSON.
    pub arguments: String,
}

impl Choice {
    /// Mean log-probability of its tokens.
    #[must_use]
    pub fn mean_logprob(&self) -> f64 {
        self.logprob_sum / self.completed.max(1) as f64
    }

    /// Adds the next delta.
    pub fn extend(&mut self, delta: Delta) {
        let text_before = self.text.len();
        self.text.push_str(&delta.text);
        self.reasoning.push_str(&delta.reasoning);
        for piece in delta.calls {
            match (piece.start, self.calls.last_mut()) {
                (Some(mut start), _) => {
                    start.content_before += text_before;
                    self.calls.push(WholeCall { start, arguments: piece.arguments });
                }
                (None, Some(call)) => call.arguments.push_str(&piece.arguments),
                (None, None) => {}
            }
        }
        self.next = delta.next;
        self.tokens.extend(delta.tokens);
        self.logprobs.extend(delta.logprobs);
        self.completed = self.completed.max(delta.completed);
        self.logprob_sum += delta.logprob_sum;
        self.finish = delta.finish.or(self.finish);
        self.stop_reason = delta.stop_reason.or(self.stop_reason.take());
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
    /// Tier in which the request was served, if the client asked for one.
    pub service_tier: Option<&'static str>,
}

/// Name of the software that answers.
pub(super) const SYSTEM_FINGERPRINT: &str = concat!("baton-", env!("CARGO_PKG_VERSION"));

/// Token counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Usage {
    /// Tokens of all prompts.
    pub prompt_tokens: u64,
    /// Tokens of all choices.
    pub completion_tokens: u64,
    /// Tokens of the prompts that a prefix cache had; `None` where that is not said.
    pub cached_tokens: Option<u64>,
    /// Tokens of thoughts among them; `None` where thoughts are not split off.
    pub reasoning_tokens: Option<u64>,
}

impl Serialize for Usage {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct PromptDetails {
            cached_tokens: u64,
        }
        #[derive(Serialize)]
        struct CompletionDetails {
            reasoning_tokens: u64,
        }
        #[derive(Serialize)]
        struct Wire {
            prompt_tokens: u64,
            completion_tokens: u64,
            total_tokens: u64,
            #[serde(skip_serializing_if = "Option::is_none")]
            prompt_tokens_details: Option<PromptDetails>,
            #[serde(skip_serializing_if = "Option::is_none")]
            completion_tokens_details: Option<CompletionDetails>,
        }
        Wire {
            prompt_tokens: self.prompt_tokens,
            completion_tokens: self.completion_tokens,
            total_tokens: self.prompt_tokens + self.completion_tokens,
            prompt_tokens_details: self.cached_tokens.map(|cached_tokens| PromptDetails { cached_tokens }),
            completion_tokens_details: self
                .reasoning_tokens
                .map(|reasoning_tokens| CompletionDetails { reasoning_tokens }),
        }
        .serialize(serializer)
    }
}

/// Returns the API's word for why a choice ended.
pub(super) const fn finish_name(finish: Option<FinishReason>, next: NextSpeaker) -> Option<&'static str> {
    match (finish, next) {
        (Some(FinishReason::Stop), NextSpeaker::User) => Some("stop"),
        (Some(FinishReason::Stop), NextSpeaker::Tools) => Some("tool_calls"),
        (Some(FinishReason::Length), _) => Some("length"),
        (None, _) => None,
    }
}

/// Returns the stop reason for the wire, null if the model ended the choice; `None` before the end of the choice.
pub(super) fn stop_reason(finish: Option<FinishReason>, reason: &Option<StopReason>) -> Option<Option<&StopReason>> {
    finish.map(|_| reason.as_ref())
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

fn call_json_bytes(piece: &CallPiece) -> usize {
    /// Field names and punctuation.
    const START: usize = 128;
    let start = piece.start.as_ref().map_or(0, |start| START + start.id.len() + text_json_bytes(&start.name));
    start + text_json_bytes(&piece.arguments)
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
