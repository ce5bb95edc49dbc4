//! `POST /v1/chat/completions`.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::response::Response;

use super::App;
use super::conversation::{conversation_text, reading, structure};
use super::form::Form;
use super::generate::{Endpoint, Tokenized, answer};
use super::room::Room;
use crate::openai::{ApiError, ChatAnswer, ChatRequest, Generation, Head, Limits, UnnamedLength};
use crate::text::ModelText;

pub(super) async fn handle(State(app): State<Arc<App>>, request: Request) -> Response {
    answer::<ChatRequest>(app, request).await
}

impl Endpoint for ChatRequest {
    const ID_PREFIX: &'static str = "chatcmpl";

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
        let (prompt, specials) = conversation_text(&self.conversation, model, room)?;
        let tokens = room.prompt(model, &model.chat(&prompt), specials, ("messages", &self.generation))?;
        if tokens.is_empty() {
            return Err(ApiError::invalid("messages", "the messages make a prompt of no tokens"));
        }
        let reading = reading(&self.conversation, model, &prompt).map(Arc::new);
        let wanted = self.generation.structure.as_ref();
        let structure = structure(&self.conversation, wanted, model, reading.as_deref());
        Ok(vec![Tokenized { tokens: tokens.into(), echo: String::new(), reading, structure }])
    }

    fn unnamed_length(app: &App, share: u32) -> UnnamedLength {
        let configured = Some(app.config.limits.chat_max_tokens_default).filter(|&tokens| tokens > 0);
        UnnamedLength { configured, default: None, share }
    }

    fn form(&self, head: Head, prompts: Vec<Tokenized>) -> Form {
        Form::new(ChatAnswer::new(head), prompts, &self.generation)
    }
}
