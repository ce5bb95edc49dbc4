//! `POST /v1/chat/completions`.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::response::Response;

use super::App;
use super::conversation::tokenized;
use super::form::Form;
use super::generate::{Endpoint, Tokenized, answer};
use super::room::Room;
use crate::openai::{ApiError, ChatAnswer, ChatRequest, Generation, Head, Limits, UnnamedLength};
use crate::text::ModelText;

pub(super) async fn handle(State(app): State<Arc<App>>, request: Request) -> Response {
    answer::<ChatRequest>(app, request).await
}

impl Endpoint for ChatRequest {
    const ID_PREFIX: &'static str = "chatcmpl-";

    fn parse(body: &[u8], limits: &Limits) -> Result<ChatRequest, ApiError> {
        ChatRequest::parse(body, limits)
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
        let configured = Some(app.config.limits.chat_max_tokens_default).filter(|&tokens| tokens > 0);
        UnnamedLength { configured, default: None, share }
    }

    fn form(&self, head: Head, prompts: Vec<Tokenized>) -> Form {
        Form::new(ChatAnswer::new(head), prompts, &self.generation)
    }
}
