//! `GET /v1/models` and `GET /v1/models/{id}`.

use std::sync::Arc;

use axum::extract::rejection::PathRejection;
use axum::extract::{Extension, Path, State};
use axum::response::Response;

use super::{App, reply};
use crate::keys::Visitor;
use crate::openai::{ApiError, model_list, model_object};

pub(super) async fn list(State(app): State<Arc<App>>, Extension(visitor): Extension<Visitor>) -> Response {
    reply::json(model_list(&app.models_for(&visitor), app.started, app.context_tokens()))
}

pub(super) async fn one(
    State(app): State<Arc<App>>,
    Extension(visitor): Extension<Visitor>,
    id: Result<Path<String>, PathRejection>,
) -> Result<Response, ApiError> {
    let Path(id) = id.map_err(|error| ApiError::invalid("model", error.body_text()))?;
    let name = app.model_named(Some(&id), &visitor)?;
    Ok(reply::json(model_object(&name, app.started, app.context_tokens())))
}
