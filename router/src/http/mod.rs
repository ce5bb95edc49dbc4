//! The HTTP surface: one file per endpoint; knows no worker and no tensor.

mod app;
mod arrival;
mod body;
mod chat_completions;
mod completions;
mod conversation;
mod cors;
mod embeddings;
mod error_form;
mod federation;
mod form;
mod generate;
mod health;
mod messages;
mod metrics;
mod models;
mod openapi;
mod reply;
mod request_id;
mod responses;
mod room;
mod tokenize;
mod work;

use std::sync::Arc;

use axum::extract::Request;
use axum::routing::{get, post};

pub(crate) use app::App;
pub(crate) use arrival::Reception;
pub(crate) use work::Lanes;

use crate::openai::ApiError;

pub(crate) fn routes(app: Arc<App>) -> axum::Router {
    axum::Router::new()
        .route("/v1/chat/completions", post(chat_completions::handle))
        .route("/v1/completions", post(completions::handle))
        .route("/v1/responses", post(responses::handle))
        .route("/v1/messages", post(messages::create))
        .route("/v1/messages/count_tokens", post(messages::count_tokens))
        .route("/v1/embeddings", post(embeddings::handle))
        .route("/v1/models", get(models::list))
        .route("/v1/models/{*id}", get(models::one))
        .route("/tokenize", post(tokenize::tokenize))
        .route("/detokenize", post(tokenize::detokenize))
        .route("/health", get(health::health))
        .route("/ready", get(health::ready))
        .route("/version", get(health::version))
        .route("/metrics", get(metrics::handle))
        .route("/openapi.json", get(openapi::handle))
        .fallback(no_such_path)
        .method_not_allowed_fallback(wrong_method)
        .with_state(app)
}

/// Routes of the admin port, whose metrics have those of the workers, too.
pub(crate) fn operators_routes(app: Arc<App>) -> axum::Router {
    axum::Router::new()
        .route("/health", get(health::health))
        .route("/ready", get(health::ready))
        .route("/version", get(health::version))
        .route("/metrics", get(metrics::handle))
        .with_state(app)
}

async fn no_such_path(request: Request) -> ApiError {
    ApiError::path_not_found(request.method().as_str(), request.uri().path())
}

async fn wrong_method(request: Request) -> ApiError {
    // Every path takes one method only.
    let allowed = if is_read_only(request.uri().path()) { "GET" } else { "POST" };
    ApiError::method_not_allowed(request.method().as_str(), request.uri().path(), allowed)
}

/// Returns true if a route reads the body of a POST to this path.
fn takes_body(path: &str) -> bool {
    arrival::path_of(path) != arrival::UNKNOWN && !is_read_only(path)
}

fn is_read_only(path: &str) -> bool {
    path.starts_with("/v1/models") || matches!(path, "/health" | "/ready" | "/version" | "/metrics" | "/openapi.json")
}
