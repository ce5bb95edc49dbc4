//! `GET /v1/models` and `/v1/models/{id}`: the answers; knows no model file.

use serde::Serialize;

#[derive(Serialize)]
struct Model<'a> {
    id: &'a str,
    object: &'static str,
    created: u64,
    owned_by: &'static str,
    /// Tokens of prompt and answer together.
    max_model_len: u32,
}

fn model(id: &str, created: u64, context_tokens: u32) -> Model<'_> {
    Model { id, object: "model", created, owned_by: "baton", max_model_len: context_tokens }
}

/// Returns the object of one model.
#[must_use]
pub fn model_object(id: &str, created: u64, context_tokens: u32) -> Vec<u8> {
    super::sse::json(&model(id, created, context_tokens))
}

/// Returns the list of all names of the one model.
#[must_use]
pub fn model_list(ids: &[String], created: u64, context_tokens: u32) -> Vec<u8> {
    #[derive(Serialize)]
    struct List<'a> {
        object: &'static str,
        data: Vec<Model<'a>>,
    }
    let data = ids.iter().map(|id| model(id, created, context_tokens)).collect();
    super::sse::json(&List { object: "list", data })
}
