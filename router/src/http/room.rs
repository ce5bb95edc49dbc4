//! Limits on the size and cost of a request's texts, as its endpoint sees them; knows no endpoint.

use sched::TokenId;

use crate::openai::{ApiError, Generation};
use crate::text::{AddSpecials, Effort, EncodeError, ModelText, Source, Stopped};

/// Tokens of a text of which only the end is kept.
const TRUNCATED_TOKENS_MAX: usize = 1 << 20;

pub(super) struct Room<'a> {
    /// Tokens of prompt and answer together.
    pub(super) context_tokens: u32,
    /// Bytes of an answer that is held until it is whole.
    pub(super) answer_bytes_max: usize,
    /// Bounds on the work.
    pub(super) effort: &'a Effort,
}

impl Room<'_> {
    /// Encodes the text of a prompt from the field `field`, and truncates it if the client wants that. Otherwise fails if
    /// it cannot fit the context (if the tokenizer allows, this is seen before any work). Fails if it takes too long.
    pub(super) fn prompt(
        &self,
        model: &ModelText,
        source: &Source<'_>,
        specials: AddSpecials,
        (field, generation): (&str, &Generation),
    ) -> Result<Vec<TokenId>, ApiError> {
        if let Some(truncation) = generation.truncation {
            self.effort.may_have(TRUNCATED_TOKENS_MAX);
            let mut tokens =
                model.encode_within(source, specials, self.effort).map_err(|error| wrong(field, &error))?;
            let frame = model.encode_within(&model.raw(""), specials, self.effort);
            let frame = frame.map_err(|error| wrong(field, &error))?;
            let head = if tokens.starts_with(&frame) { frame.len() } else { 0 };
            truncation.cut(&mut tokens, head, self.context_tokens, generation);
            return Ok(tokens);
        }
        self.fits(model, source.text)?;
        let room = self.context_tokens as usize;
        self.effort.may_have(room);
        model.encode_within(source, specials, self.effort).map_err(|error| match error {
            EncodeError::Stopped(Stopped::TooMany { tokens }) => self.overflow(&format!("more than {tokens}")),
            error => wrong(field, &error),
        })
    }

    /// Fails if the work has taken too long or nobody waits for it.
    pub(super) fn look(&self) -> Result<(), ApiError> {
        self.effort.look().map_err(|stopped| wrong("messages", &EncodeError::Stopped(stopped)))
    }

    /// Fails if even the longest tokens could not fit the text into the context; costs no work.
    pub(super) fn fits(&self, model: &ModelText, text: &str) -> Result<(), ApiError> {
        let least = model.tokenizer.tokens_min(text.len());
        if least > self.context_tokens as usize { Err(self.overflow(&format!("at least {least}"))) } else { Ok(()) }
    }

    /// Encodes a text that is only counted or shown. Fails if it has more than `tokens_max` tokens, has none or takes
    /// too long.
    pub(super) fn text(
        &self,
        model: &ModelText,
        source: &Source<'_>,
        specials: AddSpecials,
        tokens_max: usize,
    ) -> Result<Vec<TokenId>, ApiError> {
        self.effort.may_have(tokens_max);
        model.encode_within(source, specials, self.effort).map_err(|error| wrong("prompt", &error))
    }

    /// Returns the tokens of words that must not be generated: each as it is written alone, and after a space where it
    /// begins with another token then. As vLLM reads `bad_words`.
    pub(super) fn bad_words(&self, model: &ModelText, words: &[String]) -> Result<Vec<Vec<TokenId>>, ApiError> {
        let mut sequences = Vec::new();
        for word in words {
            let word = word.trim_start();
            let (bare, spaced) = (self.word(model, word)?, self.word(model, &format!(" {word}"))?);
            let differs = spaced.len() == bare.len() && spaced.first() != bare.first();
            sequences.extend([bare].into_iter().chain(differs.then_some(spaced)).filter(|tokens| !tokens.is_empty()));
        }
        Ok(sequences)
    }

    fn word(&self, model: &ModelText, word: &str) -> Result<Vec<TokenId>, ApiError> {
        self.effort.may_have(self.context_tokens as usize);
        let tokens = model.encode_within(&model.raw(word), AddSpecials::No, self.effort);
        tokens.map_err(|error| wrong("bad_words", &error))
    }

    /// Fails if so many tokens leave no room for an answer.
    pub(super) fn has(&self, tokens: usize) -> Result<(), ApiError> {
        if tokens < self.context_tokens as usize { Ok(()) } else { Err(self.overflow(&tokens.to_string())) }
    }

    /// Fails if an answer may not have so many bytes.
    pub(super) fn answer(&self, bytes: usize) -> Result<(), ApiError> {
        let max = self.answer_bytes_max;
        if bytes > max { Err(ApiError::answer_too_large(max)) } else { Ok(()) }
    }

    fn overflow(&self, tokens: &str) -> ApiError {
        let message = format!(
            "This model's maximum context length is {} tokens. However, your request has {tokens} input tokens. Please \
             reduce the length of the input.",
            self.context_tokens
        );
        ApiError::context_overflow("input_tokens", message)
    }
}

fn wrong(field: &str, error: &EncodeError) -> ApiError {
    ApiError::invalid(field, error.to_string())
}
