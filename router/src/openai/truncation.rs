//! `truncate_prompt_tokens`: how much of a long prompt is kept; knows no text.

use sched::TokenId;

use super::fields::Fields;
use super::{ApiError, Generation};

/// Tokens left for an answer where the client sets no number.
const ANSWER_TOKENS: u32 = 16;

/// How much of the end of a prompt is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Truncation {
    /// This many tokens, at least one.
    Last(u32),
    /// As many as leave room for the answer.
    Fitting,
}

impl Truncation {
    pub(super) fn take(fields: &mut Fields) -> Result<Option<Truncation>, ApiError> {
        const NAME: &str = "truncate_prompt_tokens";
        match fields.integer(NAME, -1..=u32::MAX.into())? {
            None => Ok(None),
            Some(-1) => Ok(Some(Truncation::Fitting)),
            Some(0) => Err(ApiError::invalid(NAME, format!("{NAME} must be -1 or above 0"))),
            Some(tokens) => Ok(Some(Truncation::Last(u32::try_from(tokens).unwrap_or(u32::MAX)))),
        }
    }

    /// Cuts the middle out of a prompt of `tokens` that begins with `head` framing tokens: those and the end are kept.
    pub fn cut(self, tokens: &mut Vec<TokenId>, head: usize, context_tokens: u32, generation: &Generation) {
        let kept = match self {
            Truncation::Last(tokens) => tokens,
            Truncation::Fitting => {
                context_tokens.saturating_sub(generation.max_tokens.unwrap_or(ANSWER_TOKENS).max(1)).max(1)
            }
        };
        let kept = kept as usize;
        let excess = tokens.len().saturating_sub(kept);
        let head = if head < kept { head.min(tokens.len()) } else { 0 };
        tokens.drain(head..head + excess.min(tokens.len() - head));
    }
}
