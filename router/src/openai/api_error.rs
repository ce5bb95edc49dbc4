//! What a client gets instead of an answer; knows no HTTP library.

use sched::{Failure, FailureKind, Span};
use serde::Serialize;

/// Bytes of a message: it may have words of the client or of a template in it, and is held until it was read.
const MESSAGE_BYTES_MAX: usize = 4 << 10;

/// An error as OpenAI's clients expect it: a status and a body with `message`, `type`, `param` and `code`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiError {
    /// Its class, for metrics and logs.
    pub kind: FailureKind,
    /// HTTP status.
    pub status: u16,
    /// A sentence for a person.
    pub message: String,
    /// The field at fault.
    pub param: Option<String>,
    /// A word for a program; always a string or null, typed clients reject numbers.
    pub code: Option<&'static str>,
    /// A header that tells the client what to do.
    pub advice: Option<Advice>,
}

/// A header that goes with an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Advice {
    /// `Retry-After`: clients that retry wait so long.
    RetryAfter(Span),
    /// `Allow`: the method that the path understands.
    Allow(&'static str),
}

impl ApiError {
    fn new(kind: FailureKind, message: impl Into<String>) -> ApiError {
        ApiError {
            kind,
            status: kind.http_status(),
            message: shortened(message.into()),
            param: None,
            code: kind.openai_code(),
            advice: None,
        }
    }

    /// The field `param` is wrong.
    pub fn invalid(param: &str, message: impl Into<String>) -> ApiError {
        ApiError { param: Some(param.to_owned()), ..ApiError::new(FailureKind::InvalidRequest, message) }
    }

    /// The body as a whole is wrong.
    pub fn malformed(message: impl Into<String>) -> ApiError {
        ApiError::new(FailureKind::InvalidRequest, message)
    }

    /// The feature behind `param` is not there; ignoring it would change the answer.
    #[must_use]
    pub fn unsupported(param: &str) -> ApiError {
        ApiError::unsupported_use(param, param)
    }

    /// A use of `param`, described by `what`, is not there.
    #[must_use]
    pub fn unsupported_use(param: &str, what: &str) -> ApiError {
        ApiError {
            code: Some("unsupported_parameter"),
            ..ApiError::invalid(param, format!("{what} is not supported by this server"))
        }
    }

    /// Prompt and answer do not fit the context. The words "This model's maximum context length is" are what client
    /// libraries look for, so every message must have them.
    pub fn context_overflow(param: &str, message: impl Into<String>) -> ApiError {
        ApiError { param: Some(param.to_owned()), ..ApiError::new(FailureKind::TooLong, message) }
    }

    /// There is no model of this name.
    #[must_use]
    pub fn model_not_found(name: &str) -> ApiError {
        ApiError {
            param: Some("model".to_owned()),
            code: Some("model_not_found"),
            ..ApiError::new(FailureKind::NotFound, format!("The model `{name}` does not exist."))
        }
    }

    /// There is nothing at this path.
    #[must_use]
    pub fn path_not_found(method: &str, path: &str) -> ApiError {
        ApiError::new(FailureKind::NotFound, format!("There is nothing at {method} {path}."))
    }

    /// The path understands another method.
    #[must_use]
    pub fn method_not_allowed(method: &str, path: &str, allowed: &'static str) -> ApiError {
        ApiError {
            status: 405,
            code: Some("method_not_allowed"),
            advice: Some(Advice::Allow(allowed)),
            ..ApiError::new(FailureKind::InvalidRequest, format!("{path} understands {allowed}, not {method}."))
        }
    }

    /// The body is above the limit.
    #[must_use]
    pub fn body_too_large(body_bytes_max: usize) -> ApiError {
        ApiError {
            status: 413,
            code: Some("body_too_large"),
            ..ApiError::new(
                FailureKind::InvalidRequest,
                format!("The request body is larger than the limit of {body_bytes_max} bytes."),
            )
        }
    }

    /// The body did not come in time.
    #[must_use]
    pub fn body_too_slow(time: std::time::Duration) -> ApiError {
        ApiError {
            status: 408,
            code: Some("body_too_slow"),
            ..ApiError::new(FailureKind::InvalidRequest, format!("The request body did not arrive within {time:?}."))
        }
    }

    /// Whoever sends this is not let in.
    #[must_use]
    pub fn forbidden(code: &'static str, message: impl Into<String>) -> ApiError {
        ApiError { status: 403, code: Some(code), ..ApiError::new(FailureKind::InvalidRequest, message) }
    }

    /// The body is not said to be JSON.
    #[must_use]
    pub fn not_json(message: impl Into<String>) -> ApiError {
        ApiError { status: 415, code: Some("unsupported_media_type"), ..ApiError::malformed(message) }
    }

    /// The answer is larger than what may be held until it is whole.
    #[must_use]
    pub fn answer_too_large(answer_bytes_max: usize) -> ApiError {
        ApiError {
            code: Some("answer_too_large"),
            ..ApiError::malformed(format!(
                "The answer is larger than the limit of {answer_bytes_max} bytes: ask for fewer tokens, choices or \
                 log-probabilities, or stream it."
            ))
        }
    }

    /// Admission refuses; the client should come back after `retry_after`.
    pub fn overloaded(message: impl Into<String>, retry_after: Span) -> ApiError {
        ApiError { advice: Some(Advice::RetryAfter(retry_after)), ..ApiError::new(FailureKind::Overloaded, message) }
    }

    /// The JSON body.
    #[must_use]
    pub fn body(&self) -> Vec<u8> {
        let body = Body {
            error: Fields {
                message: &self.message,
                r#type: self.kind.openai_type(),
                param: self.param.as_deref(),
                code: self.code,
            },
        };
        super::sse::json(&body)
    }
}

/// A message of a size that a person reads.
fn shortened(mut message: String) -> String {
    if message.len() > MESSAGE_BYTES_MAX {
        let end = (0..=MESSAGE_BYTES_MAX).rev().find(|&end| message.is_char_boundary(end));
        message.truncate(end.unwrap_or(0));
        message.push_str("...");
        message.shrink_to_fit();
    }
    message
}

impl From<Failure> for ApiError {
    fn from(failure: Failure) -> ApiError {
        let retry = failure.kind.may_be_retried().then_some(Advice::RetryAfter(Span::from_secs(1)));
        ApiError { advice: retry, ..ApiError::new(failure.kind, failure.detail) }
    }
}

#[derive(Serialize)]
struct Body<'a> {
    error: Fields<'a>,
}

/// All four keys are always there.
#[derive(Serialize)]
struct Fields<'a> {
    message: &'a str,
    r#type: &'a str,
    param: Option<&'a str>,
    code: Option<&'a str>,
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;

    #[test]
    fn what_a_client_said_is_not_repeated_at_length() {
        let error = ApiError::model_not_found(&"é".repeat(1 << 20));
        assert!(error.message.len() <= MESSAGE_BYTES_MAX + 3 && error.message.ends_with("é..."), "{}", error.message);
    }

    #[test]
    fn bodies_have_all_four_keys_and_a_code_that_is_a_string_or_null() {
        let errors = [
            ApiError::invalid("top_p", "top_p must be a number"),
            ApiError::unsupported("tools"),
            ApiError::model_not_found("gpt-9"),
            ApiError::path_not_found("GET", "/v2"),
            ApiError::method_not_allowed("GET", "/v1/completions", "POST"),
            ApiError::body_too_large(1024),
            ApiError::overloaded("too many requests", Span::from_ms(1500)),
            ApiError::from(Failure::new(FailureKind::WorkerLost, "decode worker 2 is gone")),
        ];
        let shown: String = errors
            .iter()
            .map(|error| format!("{} {}\n", error.status, String::from_utf8(error.body()).unwrap()))
            .collect();
        expect![[r#"
            400 {"error":{"message":"top_p must be a number","type":"invalid_request_error","param":"top_p","code":null}}
            400 {"error":{"message":"tools is not supported by this server","type":"invalid_request_error","param":"tools","code":"unsupported_parameter"}}
            404 {"error":{"message":"The model `gpt-9` does not exist.","type":"invalid_request_error","param":"model","code":"model_not_found"}}
            404 {"error":{"message":"There is nothing at GET /v2.","type":"invalid_request_error","param":null,"code":"not_found"}}
            405 {"error":{"message":"/v1/completions understands POST, not GET.","type":"invalid_request_error","param":null,"code":"method_not_allowed"}}
            413 {"error":{"message":"The request body is larger than the limit of 1024 bytes.","type":"invalid_request_error","param":null,"code":"body_too_large"}}
            429 {"error":{"message":"too many requests","type":"rate_limit_error","param":null,"code":"overloaded"}}
            503 {"error":{"message":"decode worker 2 is gone","type":"server_error","param":null,"code":"worker_lost"}}
        "#]]
        .assert_eq(&shown);
    }
}
