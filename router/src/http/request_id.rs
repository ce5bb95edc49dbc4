//! Gives every request a name that its response, its log line and the client's logs share, and counts the responses.

use std::sync::Arc;

use axum::extract::{MatchedPath, Request, State};
use axum::http::HeaderValue;
use axum::middleware::Next;
use axum::response::Response;

use super::App;
use crate::metrics::count_response;

const HEADER: &str = "x-request-id";
/// Longest name that is taken over from a client.
const NAME_BYTES_MAX: usize = 128;

/// The name of a request, as an extension of it.
#[derive(Debug, Clone)]
pub(super) struct RequestName(pub(super) String);

/// Takes the client's name over or makes one.
pub(super) async fn label(State(app): State<Arc<App>>, mut request: Request, next: Next) -> Response {
    let given = request.headers().get(HEADER).filter(|name| is_name(name)).cloned();
    let header = given.unwrap_or_else(|| made(&app));
    let name = header.to_str().unwrap_or_default().to_owned();
    request.extensions_mut().insert(RequestName(name));
    // Only paths that exist become label values, or any client could make series.
    let path = request.extensions().get::<MatchedPath>().map_or("other", MatchedPath::as_str).to_owned();
    let mut response = next.run(request).await;
    response.headers_mut().insert(HEADER, header);
    count_response(path, response.status().as_u16());
    response
}

fn is_name(header: &HeaderValue) -> bool {
    !header.is_empty() && header.len() <= NAME_BYTES_MAX && header.as_bytes().iter().all(u8::is_ascii_graphic)
}

fn made(app: &App) -> HeaderValue {
    HeaderValue::try_from(app.answer_id("req")).unwrap_or(HeaderValue::from_static("req"))
}
