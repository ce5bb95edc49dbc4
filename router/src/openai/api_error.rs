//! Errors that a client gets instead of an answer; knows no HTTP library.

use sched::{Failure, FailureKind, Span};
use serde::Serialize;

/// Longest message, and longest name of a field: it may quote the client or a template, and is held until it is read.
const MESSAGE_BYTES_MAX: usize = 4 << 10;

/// Error in the form of OpenAI's clients: a status and a body with `message`, `type`, `param` and `code`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiError {
    /// Class for metrics and logs.
    pub kind: FailureKind,
    /// HTTP status.
    pub status: u16,
    /// Sentence for a person.
    pub message: String,
    /// Field at fault.
    pub param: Option<String>,
    /// Word for a program; a string or null, as typed clients reject numbers.
    pub code: Option<&'static str>,
    /// Header that tells the client what to do.
    pub advice: Option<Advice>,
}

/// Header that goes with an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Advice {
    /// `Retry-After`: the time that clients wait before they retry.
    RetryAfter(Span),
    /// `Allow`: the method that the path takes.
    Allow(&'static str),
    /// `WWW-Authenticate`: a key is needed.
    Authenticate,
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

    /// Reports that the field `param` is wrong.
    pub fn invalid(param: &str, message: impl Into<String>) -> ApiError {
        ApiError { param: Some(shortened(param.to_owned())), ..ApiError::new(FailureKind::InvalidRequest, message) }
    }

    /// Reports that the body as a whole is wrong.
    pub fn malformed(message: impl Into<String>) -> ApiError {
        ApiError::new(FailureKind::InvalidRequest, message)
    }

    /// Reports that the feature behind `param` is missing; ignoring it would change the answer.
    #[must_use]
    pub fn unsupported(param: &str) -> ApiError {
        ApiError::unsupported_use(param, param)
    }

    /// Reports that a use of `param`, described by `what`, is missing.
    #[must_use]
    pub fn unsupported_use(param: &str, what: &str) -> ApiError {
        ApiError {
            code: Some("unsupported_parameter"),
            ..ApiError::invalid(param, format!("{what} is not supported by this server"))
        }
    }

    /// Reports that prompt and answer do not fit the context. Client libraries look for the words "This model's maximum
    /// context length is", so messages should have them.
    pub fn context_overflow(param: &str, message: impl Into<String>) -> ApiError {
        ApiError { param: Some(param.to_owned()), ..ApiError::new(FailureKind::TooLong, message) }
    }

    /// Reports that no model has this name.
    #[must_use]
    pub fn model_not_found(name: &str) -> ApiError {
        ApiError {
            param: Some("model".to_owned()),
            code: Some("model_not_found"),
            ..ApiError::new(FailureKind::NotFound, format!("The model `{name}` does not exist."))
        }
    }

    /// Reports that the key of a request that names no model may use none that is served here.
    #[must_use]
    pub fn no_model_for_key() -> ApiError {
        ApiError {
            param: Some("model".to_owned()),
            code: Some("model_not_found"),
            ..ApiError::new(FailureKind::NotFound, "This API key may use no model that is served here.")
        }
    }

    /// Reports that the path does not exist.
    #[must_use]
    pub fn path_not_found(method: &str, path: &str) -> ApiError {
        ApiError::new(FailureKind::NotFound, format!("There is nothing at {method} {path}."))
    }

    /// Reports that the path takes another method.
    #[must_use]
    pub fn method_not_allowed(method: &str, path: &str, allowed: &'static str) -> ApiError {
        ApiError {
            status: 405,
            code: Some("method_not_allowed"),
            advice: Some(Advice::Allow(allowed)),
            ..ApiError::new(FailureKind::InvalidRequest, format!("{path} understands {allowed}, not {method}."))
        }
    }

    /// Reports that the model does not do what the path is for.
    #[must_use]
    pub fn unsupported_endpoint(message: &str) -> ApiError {
        ApiError { code: Some("unsupported_endpoint"), ..ApiError::invalid("model", message) }
    }

    /// Reports that the body is above the limit.
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

    /// Reports that the body did not arrive in time.
    #[must_use]
    pub fn body_too_slow(time: std::time::Duration) -> ApiError {
        ApiError {
            status: 408,
            code: Some("body_too_slow"),
            ..ApiError::new(FailureKind::InvalidRequest, format!("The request body did not arrive within {time:?}."))
        }
    }

    /// Reports that the client has no key, or none of this server's.
    pub fn unauthorized(message: impl Into<String>) -> ApiError {
        ApiError {
            status: 401,
            code: Some("invalid_api_key"),
            advice: Some(Advice::Authenticate),
            ..ApiError::new(FailureKind::InvalidRequest, message)
        }
    }

    /// Reports that the client's key has reached a limit; the client should retry after `retry_after`.
    pub fn rate_limited(message: impl Into<String>, retry_after: Span) -> ApiError {
        ApiError { code: Some("rate_limit_exceeded"), ..ApiError::overloaded(message, retry_after) }
    }

    /// Reports that the client may not use this server.
    #[must_use]
    pub fn forbidden(code: &'static str, message: impl Into<String>) -> ApiError {
        ApiError { status: 403, code: Some(code), ..ApiError::new(FailureKind::InvalidRequest, message) }
    }

    /// Reports that the body is not declared as JSON.
    #[must_use]
    pub fn not_json(message: impl Into<String>) -> ApiError {
        ApiError { status: 415, code: Some("unsupported_media_type"), ..ApiError::malformed(message) }
    }

    /// Reports that the answer is larger than may be held until it is whole.
    #[must_use]
    pub fn answer_too_large(answer_bytes_max: usize) -> ApiError {
        ApiError {
            code: Some("answer_too_large"),
            ..ApiError::malformed(format!(
                "The answer is larger than the limit of {answer_bytes_max} bytes: ask for fewer tokens, choices or \
                 log-probabilities, or for a stream of /v1/chat/completions or /v1/completions, which is not held."
            ))
        }
    }

    /// Reports that admission refused the request; the client should retry after `retry_after`.
    pub fn overloaded(message: impl Into<String>, retry_after: Span) -> ApiError {
        ApiError { advice: Some(Advice::RetryAfter(retry_after)), ..ApiError::new(FailureKind::Overloaded, message) }
    }

    /// Returns the JSON body.
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

/// Cuts a message to `MESSAGE_BYTES_MAX`.
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
            ApiError::unauthorized("Incorrect API key provided."),
            ApiError::rate_limited("Rate limit reached", Span::from_ms(1500)),
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
            401 {"error":{"message":"Incorrect API key provided.","type":"invalid_request_error","param":null,"code":"invalid_api_key"}}
            429 {"error":{"message":"Rate limit reached","type":"rate_limit_error","param":null,"code":"rate_limit_exceeded"}}
            503 {"error":{"message":"decode worker 2 is gone","type":"server_error","param":null,"code":"worker_lost"}}
        "#]]
        .assert_eq(&shown);
    }
}
