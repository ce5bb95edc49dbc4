//! Answers and errors as HTTP responses.

use std::pin::Pin;
use std::task::{Context, Poll};

use axum::body::{Body, Bytes};
use axum::http::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use hyper::body::{Frame, SizeHint};

use crate::openai::{Advice, ApiError};

pub(super) fn json(body: Vec<u8>) -> Response {
    ([(CONTENT_TYPE, "application/json")], body).into_response()
}

/// Makes a JSON answer that keeps `kept` until the client has taken it.
pub(super) fn json_keeping<K: Send + 'static>(body: Vec<u8>, kept: K) -> Response {
    struct Keeping<K> {
        body: Vec<u8>,
        _kept: K,
    }
    impl<K> AsRef<[u8]> for Keeping<K> {
        fn as_ref(&self) -> &[u8] {
            &self.body
        }
    }
    let body = Body::from(Bytes::from_owner(Keeping { body, _kept: kept }));
    ([(CONTENT_TYPE, "application/json")], body).into_response()
}

/// Keeps `kept` until the client has taken the answer, or has left.
pub(super) fn keeping<K: Send + Unpin + 'static>(response: Response, kept: K) -> Response {
    response.map(|body| Body::new(Kept { body, _kept: kept }))
}

/// Body of an answer with what is given back at its end.
struct Kept<K> {
    body: Body,
    _kept: K,
}

impl<K: Unpin> hyper::body::Body for Kept<K> {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

pub(super) fn events(body: Body) -> Response {
    ([(CONTENT_TYPE, "text/event-stream; charset=utf-8"), (CACHE_CONTROL, "no-cache")], body).into_response()
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut response = json(self.body());
        *response.status_mut() = status;
        let advice = self.advice;
        // For paths where errors have another form.
        response.extensions_mut().insert(self);
        match advice {
            Some(Advice::RetryAfter(span)) => {
                // The standard header has whole seconds; OpenAI's clients read the finer header first.
                let (seconds, ms) = (span.us().div_ceil(1_000_000).max(1), span.us().div_ceil(1_000));
                response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(seconds));
                response.headers_mut().insert("retry-after-ms", HeaderValue::from(ms));
            }
            Some(Advice::Allow(method)) => {
                response.headers_mut().insert(ALLOW, HeaderValue::from_static(method));
            }
            Some(Advice::Authenticate) => {
                response.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
            }
            None => {}
        }
        response
    }
}
