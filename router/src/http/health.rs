//! `GET /health`, `/ready` and `/version`.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use node::admin::{Readiness, Version};
use sched::{Failure, FailureKind};

use super::App;
use crate::openai::ApiError;

pub(super) async fn health() -> &'static str {
    "ok\n"
}

/// Answers 200 while requests can be served.
pub(super) async fn ready(State(app): State<Arc<App>>) -> Result<&'static str, ApiError> {
    let unavailable = |what: String| ApiError::from(Failure::new(FailureKind::Unavailable, what));
    match app.gate.readiness() {
        Readiness::Ready => Ok("ready\n"),
        Readiness::Starting(what) => Err(unavailable(format!("the router waits for {what}"))),
        Readiness::Draining => Err(unavailable("the router drains".to_owned())),
    }
}

pub(super) async fn version(State(app): State<Arc<App>>) -> Json<Version> {
    Json(app.version.clone())
}
