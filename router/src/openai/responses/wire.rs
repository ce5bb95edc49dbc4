//! JSON of the Responses API: items, events and the response object; knows not when they are sent.

use serde::Serialize;

use super::super::logprobs::ChatToken;
use super::super::{ApiError, Usage};
use super::asked::Asked;

/// One event of a stream; which fields it has depends on its type.
#[derive(Serialize, Default)]
pub(super) struct Event<'a> {
    #[serde(rename = "type")]
    pub(super) kind: &'static str,
    pub(super) sequence_number: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) response: Option<Response<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) item_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) output_index: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) content_index: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) summary_index: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) item: Option<Item<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) part: Option<Part<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) delta: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) text: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) name: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) arguments: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) logprobs: Option<Vec<ChatToken>>,
}

/// Event of an error, flat as OpenAI documents it and with the object `error` as its servers send it: clients raise an
/// exception on the latter.
#[derive(Serialize)]
pub(super) struct ErrorEvent<'a> {
    #[serde(rename = "type")]
    pub(super) kind: &'static str,
    pub(super) sequence_number: u64,
    pub(super) code: Option<&'a str>,
    pub(super) message: &'a str,
    pub(super) param: Option<&'a str>,
    pub(super) error: ErrorObject<'a>,
}

#[derive(Serialize)]
pub(super) struct ErrorObject<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    code: Option<&'a str>,
    message: &'a str,
    param: Option<&'a str>,
}

impl<'a> ErrorEvent<'a> {
    pub(super) fn of(error: &'a ApiError, sequence_number: u64) -> ErrorEvent<'a> {
        let (code, message, param) = (error.code, error.message.as_str(), error.param.as_deref());
        let object = ErrorObject { kind: error.kind.openai_type(), code, message, param };
        ErrorEvent { kind: "error", sequence_number, code, message, param, error: object }
    }
}

/// Part of an item.
#[derive(Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(super) enum Part<'a> {
    #[serde(rename = "output_text")]
    Output { text: &'a str, annotations: [(); 0], logprobs: Vec<ChatToken> },
    #[serde(rename = "reasoning_text")]
    Reasoning { text: &'a str },
    #[serde(rename = "summary_text")]
    Summary { text: &'a str },
}

/// Item of an answer.
#[derive(Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(super) enum Item<'a> {
    Reasoning {
        id: &'a str,
        summary: Vec<Part<'a>>,
        #[serde(skip_serializing_if = "Option::is_none")]
        content: Option<Vec<Part<'a>>>,
        status: Status,
    },
    Message {
        id: &'a str,
        status: Status,
        role: &'static str,
        content: Vec<Part<'a>>,
    },
    FunctionCall {
        id: &'a str,
        status: Status,
        call_id: &'a str,
        name: &'a str,
        arguments: &'a str,
    },
}

/// State of an item, and of a whole answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Status {
    InProgress,
    Completed,
    /// Cut at its greatest length.
    Incomplete,
    Failed,
}

/// The response object.
#[derive(Serialize)]
pub(super) struct Response<'a> {
    pub(super) id: &'a str,
    pub(super) object: &'static str,
    pub(super) created_at: u64,
    pub(super) status: Status,
    pub(super) error: Option<Failed<'a>>,
    pub(super) incomplete_details: Option<Cut>,
    pub(super) model: &'a str,
    pub(super) output: Vec<Item<'a>>,
    pub(super) usage: Option<Tokens>,
    pub(super) service_tier: &'static str,
    #[serde(flatten)]
    pub(super) asked: &'a Asked,
}

/// Why an answer failed; typed clients know these codes only.
#[derive(Serialize)]
pub(super) struct Failed<'a> {
    code: &'static str,
    message: &'a str,
}

impl<'a> Failed<'a> {
    pub(super) fn of(error: &'a ApiError) -> Failed<'a> {
        let code = match error.status {
            429 => "rate_limit_exceeded",
            400..500 => "invalid_prompt",
            _ => "server_error",
        };
        Failed { code, message: &error.message }
    }
}

/// Why an answer is incomplete.
#[derive(Serialize)]
pub(super) struct Cut {
    pub(super) reason: &'static str,
}

/// Token counts.
#[derive(Serialize)]
pub(super) struct Tokens {
    input_tokens: u64,
    input_tokens_details: InputTokens,
    output_tokens: u64,
    output_tokens_details: OutputTokens,
    total_tokens: u64,
}

#[derive(Serialize)]
struct InputTokens {
    cached_tokens: u64,
    /// Tokens whose storing is billed.
    cache_write_tokens: u64,
}

#[derive(Serialize)]
struct OutputTokens {
    reasoning_tokens: u64,
}

impl From<Usage> for Tokens {
    fn from(usage: Usage) -> Tokens {
        Tokens {
            input_tokens: usage.prompt_tokens,
            input_tokens_details: InputTokens {
                cached_tokens: usage.cached_tokens.unwrap_or(0),
                cache_write_tokens: 0,
            },
            output_tokens: usage.completion_tokens,
            output_tokens_details: OutputTokens { reasoning_tokens: usage.reasoning_tokens.unwrap_or(0) },
            total_tokens: usage.prompt_tokens + usage.completion_tokens,
        }
    }
}
