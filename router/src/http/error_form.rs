//! Form of the errors of a path, wherever they come from: OpenAI's or Anthropic's; knows no endpoint.

use axum::body::Body;
use axum::http::header::CONTENT_LENGTH;
use axum::http::{HeaderValue, Request};
use axum::response::Response;

use crate::anthropic::error_body;
use crate::openai::ApiError;

/// Header that Anthropic's clients read, and show beside an error.
const REQUEST_ID: &str = "request-id";
/// Paths of Anthropic's API begin with it.
const MESSAGES: &str = "/v1/messages";

/// Form of the errors of a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ErrorForm {
    OpenAi,
    Anthropic,
}

impl ErrorForm {
    pub(super) fn of(request: &Request<Body>) -> ErrorForm {
        match request.uri().path().strip_prefix(MESSAGES) {
            Some(rest) if rest.is_empty() || rest.starts_with('/') => ErrorForm::Anthropic,
            Some(_) | None => ErrorForm::OpenAi,
        }
    }

    /// Writes the error of a response, if it is one, in this form; `name` is that of the request.
    pub(super) fn applied_to(self, mut response: Response, name: &str) -> Response {
        match self {
            ErrorForm::OpenAi => response,
            ErrorForm::Anthropic => {
                if let Some(error) = response.extensions_mut().remove::<ApiError>() {
                    response.headers_mut().remove(CONTENT_LENGTH);
                    *response.body_mut() = Body::from(error_body(&error, name));
                }
                let name = HeaderValue::try_from(name).unwrap_or(HeaderValue::from_static("req"));
                response.headers_mut().insert(REQUEST_ID, name);
                response
            }
        }
    }
}
