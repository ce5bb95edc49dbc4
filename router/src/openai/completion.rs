//! `POST /v1/completions`: the request; knows no tokenizer and no answer.

use sched::TokenId;
use serde_json::Value;

use super::fields::{self, Fields};
use super::generation::{LOGPROBS_MAX, token};
use super::known::note_unknown;
use super::refused::refuse_for_completion;
use super::{Amount, ApiError, Delivery, Generation, Limits, PromptReport};
use crate::text::AddSpecials;

/// Answer tokens where a client sets no number.
const MAX_TOKENS_DEFAULT: u32 = 16;

/// A parsed and checked completion request.
#[derive(Debug, Clone, PartialEq)]
pub struct CompletionRequest {
    /// Fields that both kinds of completion share.
    pub generation: Generation,
    /// The prompts, at least one; prompt `p` has choices `p * n ..`.
    pub prompts: Vec<Prompt>,
    /// Whether the answer begins with the prompt.
    pub echo: Echo,
    /// Whether the tokenizer adds the tokens that begin a text.
    pub add_specials: AddSpecials,
}

/// A prompt as a client sends it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Prompt {
    /// Text.
    Text(String),
    /// Token ids, all within the vocabulary, at least one.
    Tokens(Vec<TokenId>),
}

/// Whether an answer begins with its prompt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Echo {
    /// Begins with the prompt.
    Prompt,
    /// Begins with the answer.
    Nothing,
}

impl CompletionRequest {
    /// Answer tokens where a client sets no number.
    pub const MAX_TOKENS_DEFAULT: u32 = MAX_TOKENS_DEFAULT;

    /// Parses and checks a body.
    ///
    /// # Errors
    /// When anything in it is wrong or asks for a missing feature; the error names the field.
    pub fn parse(body: &[u8], limits: &Limits) -> Result<CompletionRequest, ApiError> {
        let (request, rest) = CompletionRequest::parse_fields(body, limits)?;
        note_unknown("", &rest);
        Ok(request)
    }

    /// Parses a body; also returns the fields that were not used.
    pub(super) fn parse_fields(body: &[u8], limits: &Limits) -> Result<(CompletionRequest, Fields), ApiError> {
        let mut fields = Fields::parse(body)?;
        refuse_for_completion(&mut fields)?;
        let prompts = take_prompts(&mut fields, limits)?;
        let mut generation = Generation::take(&mut fields, limits)?;
        let max_tokens = fields.count("max_tokens", 0..=u32::MAX)?;
        let logprobs = fields.count("logprobs", 0..=LOGPROBS_MAX)?;
        generation.logprobs = logprobs.and_then(|top| u8::try_from(top).ok());
        let echo = match fields.flag("echo")? {
            Some(true) => Echo::Prompt,
            Some(false) | None => Echo::Nothing,
        };
        (generation.max_tokens, generation.amount) = match (max_tokens, echo) {
            (Some(0), Echo::Prompt) => (Some(1), Amount::Nothing),
            (Some(0), Echo::Nothing) => {
                return Err(ApiError::invalid("max_tokens", "max_tokens must be at least 1 unless echo is true"));
            }
            (tokens, _) => (tokens, Amount::Tokens),
        };
        if echo == Echo::Prompt {
            generation.prompt_report = PromptReport { echoed: generation.logprobs, ..generation.prompt_report };
        }
        generation.candidates = take_candidates(&mut fields, &generation, limits)?;
        let add_specials = match fields.flag("add_special_tokens")? {
            Some(false) => AddSpecials::No,
            Some(true) | None => AddSpecials::Yes,
        };
        Ok((CompletionRequest { generation, prompts, echo, add_specials }, fields))
    }
}

/// Takes `best_of`. Which candidates are the likeliest is known at their end, so they cannot be streamed.
fn take_candidates(fields: &mut Fields, generation: &Generation, limits: &Limits) -> Result<u32, ApiError> {
    const NAME: &str = "best_of";
    let n = generation.n;
    match (fields.count(NAME, 1..=limits.n_max)?, generation.delivery) {
        (None, _) => Ok(n),
        (Some(best_of), _) if best_of == n => Ok(n),
        (Some(best_of), _) if best_of < n => {
            Err(ApiError::invalid(NAME, format!("{NAME} ({best_of}) must not be below n ({n})")))
        }
        (Some(_), Delivery::Stream(_)) => {
            Err(ApiError::unsupported_use(NAME, "a best_of above n together with stream"))
        }
        (Some(best_of), Delivery::Whole) => Ok(best_of),
    }
}

/// Takes a string, a list of strings, a list of token ids, or a list of such lists.
fn take_prompts(fields: &mut Fields, limits: &Limits) -> Result<Vec<Prompt>, ApiError> {
    let list = match fields.take("prompt") {
        None => return Err(ApiError::invalid("prompt", "prompt is missing")),
        Some(Value::String(text)) => return Ok(vec![Prompt::Text(text)]),
        Some(Value::Array(list)) => list,
        Some(other) => return Err(fields::wrong("prompt", "a string or a list", &other)),
    };
    if list.first().is_some_and(Value::is_number) {
        return Ok(vec![Prompt::Tokens(tokens("prompt", &list, limits)?)]);
    }
    if list.is_empty() {
        return Err(ApiError::invalid("prompt", "prompt must not be empty"));
    }
    if list.len() > limits.prompts_max {
        let message = format!("prompt may have {} prompts at most, but has {}", limits.prompts_max, list.len());
        return Err(ApiError::invalid("prompt", message));
    }
    list.into_iter()
        .enumerate()
        .map(|(index, value)| {
            let name = format!("prompt[{index}]");
            match value {
                Value::String(text) => Ok(Prompt::Text(text)),
                Value::Array(list) => tokens(&name, &list, limits).map(Prompt::Tokens),
                other => Err(fields::wrong(&name, "a string or a list of token ids", &other)),
            }
        })
        .collect()
}

fn tokens(name: &str, list: &[Value], limits: &Limits) -> Result<Vec<TokenId>, ApiError> {
    if list.is_empty() {
        return Err(ApiError::invalid(name, format!("{name} must not be empty")));
    }
    list.iter().enumerate().map(|(index, value)| token(&format!("{name}[{index}]"), value, limits.vocab_size)).collect()
}
