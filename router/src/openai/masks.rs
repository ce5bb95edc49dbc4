//! Tokens that an answer may have, and words that it must not: `allowed_token_ids`, `bad_words`; knows no tokenizer.

use sched::TokenId;
use serde_json::Value;

use super::fields::{self, Fields};
use super::generation::token;
use super::{ApiError, Limits};

/// Words that a request may forbid.
const BAD_WORDS_MAX: usize = 128;
/// Bytes of such a word.
const BAD_WORD_BYTES_MAX: usize = 256;

/// Takes the tokens that may be generated, sorted; empty allows all.
pub(super) fn take_allowed(fields: &mut Fields, limits: &Limits) -> Result<Vec<TokenId>, ApiError> {
    const NAME: &str = "allowed_token_ids";
    let Some(list) = fields.list(NAME)? else { return Ok(Vec::new()) };
    if list.is_empty() {
        return Err(ApiError::invalid(NAME, format!("{NAME} must not be empty")));
    }
    let tokens = list.iter().enumerate();
    let tokens = tokens.map(|(index, value)| token(&format!("{NAME}[{index}]"), value, limits.vocab_size));
    let mut tokens = tokens.collect::<Result<Vec<TokenId>, ApiError>>()?;
    tokens.sort_unstable();
    tokens.dedup();
    Ok(tokens)
}

/// Takes the words that must not be generated.
pub(super) fn take_bad_words(fields: &mut Fields) -> Result<Vec<String>, ApiError> {
    const NAME: &str = "bad_words";
    let list = fields.list(NAME)?.unwrap_or_default();
    if list.len() > BAD_WORDS_MAX {
        let message = format!("{NAME} may have {BAD_WORDS_MAX} words at most, but has {}", list.len());
        return Err(ApiError::invalid(NAME, message));
    }
    list.into_iter().enumerate().map(|(index, value)| bad_word(&format!("{NAME}[{index}]"), value)).collect()
}

fn bad_word(name: &str, value: Value) -> Result<String, ApiError> {
    let word = fields::string(name, value)?;
    match word.len() {
        0 => Err(ApiError::invalid(name, format!("{name} must not be empty"))),
        1..=BAD_WORD_BYTES_MAX => Ok(word),
        bytes => {
            let message = format!("{name} may have {BAD_WORD_BYTES_MAX} bytes at most, but has {bytes}");
            Err(ApiError::invalid(name, message))
        }
    }
}
