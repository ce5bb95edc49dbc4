//! `POST /v1/embeddings`: says that there are none.

use axum::extract::Request;

use super::body;
use crate::openai::ApiError;

pub(super) async fn handle(request: Request) -> ApiError {
    body::discard(request).await;
    ApiError::unsupported_endpoint("This model makes text: it does not support embeddings.")
}
