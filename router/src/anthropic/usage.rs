//! Token counts as Anthropic's API has them; knows no event.

use serde::Serialize;

use crate::openai::Usage;

/// Token counts of an answer.
#[derive(Debug, Clone, Copy, Serialize)]
pub(super) struct MessageUsage {
    /// Tokens of the prompt without those that a prefix cache had.
    input_tokens: u64,
    /// Storing a prefix costs nothing here.
    cache_creation_input_tokens: u64,
    cache_read_input_tokens: u64,
    output_tokens: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    output_tokens_details: Option<OutputDetails>,
}

#[derive(Debug, Clone, Copy, Serialize)]
struct OutputDetails {
    thinking_tokens: u64,
}

impl MessageUsage {
    pub(super) fn of(usage: Usage) -> MessageUsage {
        let cached = usage.cached_tokens.unwrap_or(0).min(usage.prompt_tokens);
        MessageUsage {
            input_tokens: usage.prompt_tokens - cached,
            cache_creation_input_tokens: 0,
            cache_read_input_tokens: cached,
            output_tokens: usage.completion_tokens,
            output_tokens_details: usage.reasoning_tokens.map(|thinking_tokens| OutputDetails { thinking_tokens }),
        }
    }
}
