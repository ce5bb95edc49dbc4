//! Permissions for web pages of origins that the operator has named; knows no route.

use axum::body::Body;
use axum::http::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_HEADERS, ORIGIN, VARY,
};
use axum::http::{HeaderMap, HeaderValue, Method, Request, StatusCode};
use axum::response::{IntoResponse, Response};

/// Headers that pages may send if they do not say which they want to.
const PAGE_SENDS: &str = "anthropic-beta, anthropic-version, authorization, content-type, traceparent, x-api-key, \
                          x-baton-slo-class, x-request-id";
/// Headers that pages may read.
const PAGE_READS: &str = "request-id, retry-after, retry-after-ms, x-request-id, x-ratelimit-limit-requests, \
                          x-ratelimit-remaining-requests, x-ratelimit-reset-requests, x-ratelimit-limit-tokens, \
                          x-ratelimit-remaining-tokens, x-ratelimit-reset-tokens";
/// Seconds for which a browser may remember these permissions.
const PAGE_REMEMBERS_S: &str = "600";

/// Returns true if a browser asks what a page may do; the guard has refused other origins by then.
pub(super) fn is_preflight(request: &Request<Body>) -> bool {
    request.method() == Method::OPTIONS && request.headers().contains_key(ORIGIN)
}

/// Allows what the page asks for. Clients in pages send headers that nobody can list (`x-stainless-*`), and the word `*`
/// would not cover `authorization`. Browsers send preflights without a key, so they need none.
pub(super) fn preflight(asked: &HeaderMap) -> Response {
    let sends = asked.get(ACCESS_CONTROL_REQUEST_HEADERS).cloned().unwrap_or(HeaderValue::from_static(PAGE_SENDS));
    let headers = [
        (ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static("GET, POST")),
        (ACCESS_CONTROL_ALLOW_HEADERS, sends),
        (ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static(PAGE_REMEMBERS_S)),
        (VARY, HeaderValue::from_static("access-control-request-headers")),
    ];
    (StatusCode::NO_CONTENT, headers).into_response()
}

/// Lets pages of `origin` read an answer.
pub(super) fn let_page_read(response: &mut Response, origin: &str) {
    let headers = response.headers_mut();
    if let Ok(origin) = HeaderValue::try_from(origin) {
        headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin);
        headers.insert(ACCESS_CONTROL_EXPOSE_HEADERS, HeaderValue::from_static(PAGE_READS));
        headers.append(VARY, HeaderValue::from_static("origin"));
    }
}
