//! Errors in the form of Anthropic's clients; knows no HTTP library.

use sched::FailureKind;
use serde::Serialize;

use crate::openai::{ApiError, sse};

#[derive(Debug, Serialize)]
pub(super) struct ErrorBody<'a> {
    r#type: &'static str,
    error: Described,
    #[serde(skip_serializing_if = "Option::is_none")]
    request_id: Option<&'a str>,
}

#[derive(Debug, Serialize)]
struct Described {
    r#type: &'static str,
    message: String,
}

/// Returns the JSON body of an error of the request named `request_id`.
#[must_use]
pub fn error_body(error: &ApiError, request_id: &str) -> Vec<u8> {
    sse::json(&ErrorBody::of(error, Some(request_id)))
}

impl<'a> ErrorBody<'a> {
    pub(super) fn of(error: &ApiError, request_id: Option<&'a str>) -> ErrorBody<'a> {
        let described = Described { r#type: type_of(error.status), message: message(error) };
        ErrorBody { r#type: "error", error: described, request_id }
    }
}

/// Returns the API's word for an error of this status. 503 is Anthropic's 529.
const fn type_of(status: u16) -> &'static str {
    match status {
        401 => "authentication_error",
        403 => "permission_error",
        404 => "not_found_error",
        413 => "request_too_large",
        429 => "rate_limit_error",
        503 | 529 => "overloaded_error",
        504 => "timeout_error",
        400..500 => "invalid_request_error",
        _ => "api_error",
    }
}

/// Returns the message, which names the field at fault: the form has no other place for it.
fn message(error: &ApiError) -> String {
    if error.kind == FailureKind::TooLong {
        // Coding agents look for these words, and then shorten the conversation.
        return format!("prompt is too long: {}", error.message);
    }
    match &error.param {
        Some(param) if !error.message.contains(param.as_str()) => format!("{param}: {}", error.message),
        Some(_) | None => error.message.clone(),
    }
}
