//! What an answer says about the tokens of its prompt: which log-probabilities a client wants, and their JSON; knows no
//! sampler.

use sched::{Score, TokenId};
use serde::ser::{SerializeMap, SerializeSeq};
use serde::{Serialize, Serializer};

use super::fields::Fields;
use super::generation::LOGPROBS_MAX;
use super::logprobs::{Exact, score_json_bytes};
use super::{ApiError, Delivery};
use crate::text::Tokenizer;

/// Log-probabilities of prompt tokens that a client wants, each as a number of alternatives per token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PromptReport {
    /// In a list of their own (`prompt_logprobs`).
    pub listed: Option<u8>,
    /// Before those of the answer, with the echoed text (`echo` with `logprobs`).
    pub echoed: Option<u8>,
}

impl PromptReport {
    pub(super) fn take(fields: &mut Fields, delivery: Delivery) -> Result<PromptReport, ApiError> {
        const NAME: &str = "prompt_logprobs";
        let listed = fields.count(NAME, 0..=LOGPROBS_MAX)?.and_then(|top| u8::try_from(top).ok());
        match (listed, delivery) {
            (Some(_), Delivery::Stream(_)) => {
                Err(ApiError::unsupported_use(NAME, "prompt_logprobs together with stream"))
            }
            (Some(_), Delivery::Whole) | (None, _) => Ok(PromptReport { listed, echoed: None }),
        }
    }

    /// Alternatives per token that are needed for both; `None` if prompts are not scored.
    #[must_use]
    pub fn top(self) -> Option<u8> {
        self.listed.max(self.echoed)
    }

    /// Estimates the bytes of JSON for a prompt of `tokens` in an answer of `choices`.
    #[must_use]
    pub fn json_bytes(self, tokens: usize, choices: u32) -> usize {
        let each = of_entries(self.listed) + of_entries(self.echoed);
        each.saturating_mul(tokens).saturating_mul(choices as usize)
    }

    /// Estimates the part of it that is held before the choices begin.
    #[must_use]
    pub fn held_bytes(self, tokens: usize, choices: u32) -> usize {
        let each = of_entries(self.listed).saturating_mul(choices as usize) + of_entries(self.echoed);
        each.saturating_mul(tokens)
    }
}

fn of_entries(top: Option<u8>) -> usize {
    top.map_or(0, |top| score_json_bytes(1 + usize::from(top)))
}

/// Scores of one prompt, for `prompt_logprobs`.
#[derive(Debug, Clone)]
pub struct PromptLogprobs {
    /// The prompt.
    pub tokens: std::sync::Arc<[TokenId]>,
    /// Scores of all its tokens but the first.
    pub scores: Vec<Score>,
    /// Alternatives to show.
    pub top: u8,
    /// Names of tokens.
    pub tokenizer: Tokenizer,
}

/// A list: null for the first token, then per token a map from its id and those of the alternatives.
impl Serialize for PromptLogprobs {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut list = serializer.serialize_seq(Some(self.tokens.len()))?;
        list.serialize_element(&())?;
        for (token, score) in self.tokens.iter().skip(1).zip(&self.scores) {
            list.serialize_element(&Ranked { token: *token, score, of: self })?;
        }
        list.end()
    }
}

struct Ranked<'a> {
    token: TokenId,
    score: &'a Score,
    of: &'a PromptLogprobs,
}

impl Serialize for Ranked<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct One {
            logprob: Exact,
            rank: u32,
            decoded_token: String,
        }
        let one = |token: TokenId, logprob: f32, rank: u32| One {
            logprob: Exact(logprob),
            rank,
            decoded_token: String::from_utf8_lossy(self.of.tokenizer.pieces().bytes(token)).into_owned(),
        };
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry(&self.token.0, &one(self.token, self.score.logprob, self.score.rank))?;
        let top = self.score.top.iter().take(self.of.top.into());
        for (rank, (token, logprob)) in (1..).zip(top).filter(|(_, (token, _))| *token != self.token) {
            map.serialize_entry(&token.0, &one(*token, *logprob, rank))?;
        }
        map.end()
    }
}
