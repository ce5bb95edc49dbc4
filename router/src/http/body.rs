//! Reads a request body within its bounds of size and time.

use std::time::Duration;

use axum::body::{Body, Bytes, to_bytes};
use axum::http::HeaderMap;
use axum::http::header::CONTENT_LENGTH;

use crate::LimitsConfig;
use crate::openai::ApiError;

/// Bytes that a body may have: what its header says, else the most that is allowed.
///
/// # Errors
/// When the header says more than is allowed; nothing needs to be read then.
pub(super) fn announced(headers: &HeaderMap, limits: &LimitsConfig) -> Result<usize, ApiError> {
    let length = headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse::<usize>().ok());
    match length {
        Some(bytes) if bytes > limits.body_bytes_max => Err(ApiError::body_too_large(limits.body_bytes_max)),
        Some(bytes) => Ok(bytes),
        None => Ok(limits.body_bytes_max),
    }
}

/// The whole body.
///
/// # Errors
/// When it is larger than allowed, comes too slowly, or ends early.
pub(super) async fn read(body: Body, limits: &LimitsConfig) -> Result<Bytes, ApiError> {
    let time = Duration::from_millis(limits.body_ms_max);
    match tokio::time::timeout(time, to_bytes(body, limits.body_bytes_max)).await {
        Ok(Ok(bytes)) => Ok(bytes),
        Ok(Err(error)) if is_too_large(&error) => Err(ApiError::body_too_large(limits.body_bytes_max)),
        Ok(Err(error)) => Err(ApiError::malformed(format!("the request body cannot be read: {error}"))),
        Err(_) => Err(ApiError::body_too_slow(time)),
    }
}

fn is_too_large(error: &axum::Error) -> bool {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = cause {
        if error.is::<http_body_util::LengthLimitError>() {
            return true;
        }
        cause = error.source();
    }
    false
}
