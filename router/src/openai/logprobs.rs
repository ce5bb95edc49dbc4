//! Log-probabilities in the two forms of the API; knows no sampler.

use sched::{SampledToken, Score, TokenId};
use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};

use crate::text::Tokenizer;

/// Log-probability of an impossible token, as JSON has no infinities.
const LOWEST: f64 = -9999.0;

/// Names of tokens in log-probabilities.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum TokenNames {
    /// Their texts.
    #[default]
    Texts,
    /// `token_id:` and the id (`return_tokens_as_token_ids`).
    Ids,
}

/// Generated token with its log-probability and the alternatives.
#[derive(Debug, Clone, PartialEq)]
pub struct TokenLogprob {
    chosen: Named,
    top: Vec<Named>,
    /// Offset of the token in its choice's text, in characters.
    text_offset: usize,
    names: TokenNames,
}

#[derive(Debug, Clone, PartialEq)]
struct Named {
    token: TokenId,
    bytes: Vec<u8>,
    /// `None` for the first token of a prompt, which nothing precedes.
    logprob: Option<f32>,
}

impl TokenLogprob {
    /// Looks up the tokens' bytes. A missing log-probability is a defect of a worker and is shown as impossible.
    #[must_use]
    pub fn of(sampled: &SampledToken, tokenizer: &Tokenizer, text_offset: usize, names: TokenNames) -> TokenLogprob {
        let pieces = tokenizer.pieces();
        let named = |token, logprob| Named { token, bytes: pieces.bytes(token).to_vec(), logprob: Some(logprob) };
        TokenLogprob {
            chosen: named(sampled.token, sampled.logprob.unwrap_or(f32::NEG_INFINITY)),
            top: sampled.top.iter().map(|&(token, logprob)| named(token, logprob)).collect(),
            text_offset,
            names,
        }
    }

    /// Looks up the bytes of a prompt token, which has a score unless it is the first, and of `top` alternatives.
    #[must_use]
    pub fn of_prompt(
        (token, score): (TokenId, Option<&Score>),
        top: u8,
        tokenizer: &Tokenizer,
        (text_offset, names): (usize, TokenNames),
    ) -> TokenLogprob {
        let pieces = tokenizer.pieces();
        let named = |token, logprob| Named { token, bytes: pieces.bytes(token).to_vec(), logprob };
        let alternatives = score.into_iter().flat_map(|score| &score.top).take(top.into());
        TokenLogprob {
            chosen: named(token, score.map(|score| score.logprob)),
            top: alternatives.map(|&(token, logprob)| named(token, Some(logprob))).collect(),
            text_offset,
            names,
        }
    }

    /// Estimates the bytes of JSON in the larger of the two forms.
    #[must_use]
    pub fn json_bytes(&self) -> usize {
        /// A byte is written as text and as a number.
        const PER_BYTE: usize = 5;
        let named = std::iter::once(&self.chosen).chain(&self.top);
        named.map(|one| ENTRY_BYTES + PER_BYTE * one.bytes.len()).sum()
    }
}

/// Field names, punctuation and a number of twenty digits.
const ENTRY_BYTES: usize = 64;

/// Estimates the bytes of JSON of a token with so many log-probabilities, its own included, without its text.
pub(super) const fn score_json_bytes(entries: usize) -> usize {
    ENTRY_BYTES * entries
}

impl Named {
    fn text(&self, names: TokenNames) -> String {
        match names {
            TokenNames::Texts => String::from_utf8_lossy(&self.bytes).into_owned(),
            TokenNames::Ids => format!("token_id:{}", self.token.0),
        }
    }

    /// Returns the text; or the bytes in hexadecimal, so that parts of characters are distinct keys.
    fn key(&self, names: TokenNames) -> String {
        use std::fmt::Write;
        if names == TokenNames::Ids {
            return self.text(names);
        }
        match std::str::from_utf8(&self.bytes) {
            Ok(text) => text.to_owned(),
            Err(_) => self.bytes.iter().fold("bytes:".to_owned(), |mut key, byte| {
                // Writing to a string does not fail.
                let _ = write!(key, "\\x{byte:02x}");
                key
            }),
        }
    }
}

/// 32-bit number written so that every reader gets the same bits: widened to 64 bits, whose shortest decimal form is
/// far from the midpoints between 32-bit numbers even for readers that round the last digit wrong.
pub(super) struct Exact(pub(super) f32);

impl Serialize for Exact {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_f64(if self.0.is_finite() { f64::from(self.0) } else { LOWEST })
    }
}

/// Form of chat completions.
#[derive(Serialize)]
pub(super) struct ChatLogprobs {
    content: Vec<ChatToken>,
}

/// Token in the form of chat completions and of responses.
#[derive(Serialize)]
pub(super) struct ChatToken {
    token: String,
    logprob: Option<Exact>,
    bytes: Vec<u8>,
    top_logprobs: Vec<ChatAlternative>,
}

#[derive(Serialize)]
struct ChatAlternative {
    token: String,
    logprob: Option<Exact>,
    bytes: Vec<u8>,
}

impl ChatLogprobs {
    pub(super) fn of(tokens: &[TokenLogprob]) -> Option<ChatLogprobs> {
        (!tokens.is_empty()).then(|| ChatLogprobs { content: chat_tokens(tokens) })
    }
}

pub(super) fn chat_tokens(tokens: &[TokenLogprob]) -> Vec<ChatToken> {
    let token = |token: &TokenLogprob| ChatToken {
        token: token.chosen.text(token.names),
        logprob: token.chosen.logprob.map(Exact),
        bytes: token.chosen.bytes.clone(),
        top_logprobs: token
            .top
            .iter()
            .map(|one| ChatAlternative {
                token: one.text(token.names),
                logprob: one.logprob.map(Exact),
                bytes: one.bytes.clone(),
            })
            .collect(),
    };
    tokens.iter().map(token).collect()
}

/// Older form of text completions: parallel lists.
#[derive(Serialize)]
pub(super) struct CompletionLogprobs {
    text_offset: Vec<usize>,
    token_logprobs: Vec<Option<Exact>>,
    tokens: Vec<String>,
    top_logprobs: Vec<Option<Alternatives>>,
}

/// Map from token to log-probability that always has the chosen token, first.
struct Alternatives(Vec<(String, Exact)>);

impl Serialize for Alternatives {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for (token, logprob) in &self.0 {
            map.serialize_entry(token, logprob)?;
        }
        map.end()
    }
}

impl CompletionLogprobs {
    pub(super) fn of(tokens: &[TokenLogprob]) -> Option<CompletionLogprobs> {
        (!tokens.is_empty()).then(|| CompletionLogprobs {
            text_offset: tokens.iter().map(|token| token.text_offset).collect(),
            token_logprobs: tokens.iter().map(|token| token.chosen.logprob.map(Exact)).collect(),
            tokens: tokens.iter().map(|token| token.chosen.key(token.names)).collect(),
            top_logprobs: tokens.iter().map(alternatives).collect(),
        })
    }
}

fn alternatives(token: &TokenLogprob) -> Option<Alternatives> {
    let mut entries = vec![(token.chosen.key(token.names), Exact(token.chosen.logprob?))];
    for (one, logprob) in token.top.iter().filter_map(|one| Some((one, one.logprob?))) {
        let key = one.key(token.names);
        if entries.iter().all(|(known, _)| *known != key) {
            entries.push((key, Exact(logprob)));
        }
    }
    Some(Alternatives(entries))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn every_number_comes_back_bit_for_bit(bits in any::<u32>()) {
            let number = f32::from_bits(bits);
            prop_assume!(number.is_finite());
            let text = serde_json::to_string(&Exact(number)).unwrap();
            let as_double: f64 = text.parse().unwrap();
            prop_assert_eq!((as_double as f32).to_bits(), bits);
            let lax: serde_json::Value = serde_json::from_str(&text).unwrap();
            prop_assert_eq!((lax.as_f64().unwrap() as f32).to_bits(), bits);
        }
    }

    #[test]
    fn infinities_are_numbers() {
        assert_eq!(serde_json::to_string(&Exact(f32::NEG_INFINITY)).unwrap(), "-9999.0");
    }
}
