//! What a request's texts may be and cost, as its endpoint sees it; knows no endpoint.

use sched::TokenId;

use crate::openai::ApiError;
use crate::text::{AddSpecials, Effort, EncodeError, ModelText, Source, Stopped};

/// The room that a request's prompts have.
pub(super) struct Room<'a> {
    /// Tokens of prompt and answer together.
    pub(super) context_tokens: u32,
    /// Bytes of an answer that is held.
    pub(super) answer_bytes_max: usize,
    /// The bounds of the work.
    pub(super) effort: &'a Effort,
}

impl Room<'_> {
    /// The tokens of a prompt's text, which came in the field `field`.
    ///
    /// # Errors
    /// When it cannot fit the context, which is seen before anything is worked out where the tokenizer allows, or when it
    /// has no tokens or takes too long.
    pub(super) fn prompt(
        &self,
        model: &ModelText,
        source: &Source<'_>,
        specials: AddSpecials,
        field: &str,
    ) -> Result<Vec<TokenId>, ApiError> {
        self.fits(model, source.text)?;
        let room = self.context_tokens as usize;
        self.effort.may_have(room);
        model.encode_within(source, specials, self.effort).map_err(|error| match error {
            EncodeError::Stopped(Stopped::TooMany { tokens }) => self.overflow(&format!("more than {tokens}")),
            error => wrong(field, &error),
        })
    }

    /// Whether a text can fit the context at all; this costs nothing.
    ///
    /// # Errors
    /// When even the longest tokens could not hold it.
    pub(super) fn fits(&self, model: &ModelText, text: &str) -> Result<(), ApiError> {
        let least = model.tokenizer.tokens_min(text.len());
        if least > self.context_tokens as usize { Err(self.overflow(&format!("at least {least}"))) } else { Ok(()) }
    }

    /// The tokens of a text that is only counted or shown, up to `tokens_max`.
    ///
    /// # Errors
    /// When it has more, has no tokens or takes too long.
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

    /// Whether so many tokens leave room for an answer.
    ///
    /// # Errors
    /// When they do not.
    pub(super) fn has(&self, tokens: usize) -> Result<(), ApiError> {
        if tokens < self.context_tokens as usize { Ok(()) } else { Err(self.overflow(&tokens.to_string())) }
    }

    /// Whether an answer may have so many bytes.
    ///
    /// # Errors
    /// When it may not.
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
