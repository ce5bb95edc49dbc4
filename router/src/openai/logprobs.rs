//! Log-probabilities in the two forms of the API; knows no sampler.

use sched::SampledToken;
use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};

use crate::text::Tokenizer;

/// Log-probability of an impossible token, as JSON has no infinities.
const LOWEST: f64 = -9999.0;

/// Generated token with its log-probability and the alternatives.
#[derive(Debug, Clone, PartialEq)]
pub struct TokenLogprob {
    chosen: Named,
    top: Vec<Named>,
    /// Offset of the token in its choice's text, in characters.
    text_offset: usize,
}

#[derive(Debug, Clone, PartialEq)]
struct Named {
    bytes: Vec<u8>,
    logprob: f32,
}

impl TokenLogprob {
    /// Looks up the tokens' bytes. A missing log-probability is a defect of a worker and is shown as impossible.
    #[must_use]
    pub fn of(sampled: &SampledToken, tokenizer: &Tokenizer, text_offset: usize) -> TokenLogprob {
        let pieces = tokenizer.pieces();
        let named = |token, logprob| Named { bytes: pieces.bytes(token).to_vec(), logprob };
        TokenLogprob {
            chosen: named(sampled.token, sampled.logprob.unwrap_or(f32::NEG_INFINITY)),
            top: sampled.top.iter().map(|&(token, logprob)| named(token, logprob)).collect(),
            text_offset,
        }
    }
}

impl TokenLogprob {
    /// Estimates the bytes of JSON in the larger of the two forms.
    #[must_use]
    pub fn json_bytes(&self) -> usize {
        /// Field names, punctuation and a number of twenty digits.
        const EACH: usize = 64;
        /// A byte is written as text and as a number.
        const PER_BYTE: usize = 5;
        let named = std::iter::once(&self.chosen).chain(&self.top);
        named.map(|one| EACH + PER_BYTE * one.bytes.len()).sum()
    }
}

impl Named {
    fn text(&self) -> String {
        String::from_utf8_lossy(&self.bytes).into_owned()
    }

    /// Returns the text; or the bytes in hexadecimal, so that parts of characters are distinct keys.
    fn key(&self) -> String {
        use std::fmt::Write;
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
struct Exact(f32);

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

#[derive(Serialize)]
struct ChatToken {
    token: String,
    logprob: Exact,
    bytes: Vec<u8>,
    top_logprobs: Vec<ChatAlternative>,
}

#[derive(Serialize)]
struct ChatAlternative {
    token: String,
    logprob: Exact,
    bytes: Vec<u8>,
}

impl ChatLogprobs {
    pub(super) fn of(tokens: &[TokenLogprob]) -> Option<ChatLogprobs> {
        let content = tokens
            .iter()
            .map(|token| ChatToken {
                token: token.chosen.text(),
                logprob: Exact(token.chosen.logprob),
                bytes: token.chosen.bytes.clone(),
                top_logprobs: token
                    .top
                    .iter()
                    .map(|one| ChatAlternative {
                        token: one.text(),
                        logprob: Exact(one.logprob),
                        bytes: one.bytes.clone(),
                    })
                    .collect(),
            })
            .collect();
        (!tokens.is_empty()).then_some(ChatLogprobs { content })
    }
}

/// Older form of text completions: parallel lists.
#[derive(Serialize)]
pub(super) struct CompletionLogprobs {
    text_offset: Vec<usize>,
    token_logprobs: Vec<Exact>,
    tokens: Vec<String>,
    top_logprobs: Vec<Alternatives>,
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
            token_logprobs: tokens.iter().map(|token| Exact(token.chosen.logprob)).collect(),
            tokens: tokens.iter().map(|token| token.chosen.key()).collect(),
            top_logprobs: tokens.iter().map(alternatives).collect(),
        })
    }
}

fn alternatives(token: &TokenLogprob) -> Alternatives {
    let mut entries = vec![(token.chosen.key(), Exact(token.chosen.logprob))];
    for one in &token.top {
        let key = one.key();
        if entries.iter().all(|(known, _)| *known != key) {
            entries.push((key, Exact(one.logprob)));
        }
    }
    Alternatives(entries)
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
