//! `POST /v1/responses`.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::response::Response;

use super::App;
use super::conversation::tokenized;
use super::form::Form;
use super::generate::{Endpoint, Tokenized, answer};
use super::room::Room;
use crate::openai::{ApiError, ChatRequest, Generation, Head, Limits, ResponseAnswer, ResponsesRequest, UnnamedLength};
use crate::text::ModelText;

pub(super) async fn handle(State(app): State<Arc<App>>, request: Request) -> Response {
    answer::<ResponsesRequest>(app, request).await
}

impl Endpoint for ResponsesRequest {
    const ID_PREFIX: &'static str = ResponseAnswer::ID_PREFIX;

    fn parse(body: &[u8], limits: &Limits) -> Result<ResponsesRequest, ApiError> {
        ResponsesRequest::parse(body, limits)
    }

    fn generation(&self) -> &Generation {
        &self.generation
    }

    fn prompts_count(&self) -> usize {
        1
    }

    fn prompts(&self, model: &ModelText, room: &Room<'_>) -> Result<Vec<Tokenized>, ApiError> {
        Ok(vec![tokenized(&self.conversation, &self.generation, model, room)?])
    }

    fn unnamed_length(app: &App, share: u32) -> UnnamedLength {
        ChatRequest::unnamed_length(app, share)
    }

    fn form(&self, head: Head, prompts: Vec<Tokenized>) -> Form {
        Form::new(self.answer(head), prompts, &self.generation)
    }

    /// The conversation is `input` here, and the length `max_output_tokens`.
    fn reworded(error: ApiError) -> ApiError {
        match error.param.as_deref() {
            // A field that is refused keeps the name by which it came.
            Some(_) if error.code == Some("unsupported_parameter") => error,
            Some(place) if place.starts_with("messages") => {
                let message = error.message.strip_prefix(&format!("{place}: ")).unwrap_or(&error.message).to_owned();
                ApiError { param: Some("input".to_owned()), message, ..error }
            }
            Some("max_tokens") => {
                let message = error.message.replace("'max_tokens' or 'max_completion_tokens'", "'max_output_tokens'");
                let message = message.replace("max_tokens", "max_output_tokens");
                ApiError { param: Some("max_output_tokens".to_owned()), message, ..error }
            }
            Some(_) | None => error,
        }
    }
}
