//! Gives every request a name that its response, its log line and the client's logs share.

use axum::body::Body;
use axum::http::{HeaderValue, Request};
use axum::response::Response;
use sched::RequestId;

use super::App;

const HEADER: &str = "x-request-id";
/// Longest name that is accepted from a client.
const NAME_BYTES_MAX: usize = 128;

/// Returns the name of the request, the client's or one made from its number, and its number at the workers.
pub(super) fn name_of(app: &App, request: &Request<Body>) -> (String, RequestId) {
    let id = app.dispatcher.draw();
    let given = request.headers().get(HEADER).filter(|name| is_name(name));
    (given.and_then(|name| name.to_str().ok()).map_or_else(|| id.to_string(), str::to_owned), id)
}

/// Writes the name into the response.
pub(super) fn write(response: &mut Response, name: &str) {
    let header = HeaderValue::try_from(name).unwrap_or(HeaderValue::from_static("req"));
    response.headers_mut().insert(HEADER, header);
}

fn is_name(header: &HeaderValue) -> bool {
    !header.is_empty() && header.len() <= NAME_BYTES_MAX && header.as_bytes().iter().all(u8::is_ascii_graphic)
}
