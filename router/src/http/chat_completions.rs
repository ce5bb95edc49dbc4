//! `POST /v1/chat/completions`.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::response::Response;
use sched::{Failure, FailureKind};

use super::App;
use super::form::Form;
use super::generate::{Endpoint, Tokenized, answer};
use super::room::Room;
use crate::jinja::Rendered;
use crate::openai::{ApiError, ChatAnswer, ChatRequest, Conversation, Generation, Head, Limits, UnnamedLength};
use crate::text::{AddSpecials, ModelText, TemplateError};

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
        let tokens = room.prompt(model, &model.chat(&prompt), specials, "messages")?;
        if tokens.is_empty() {
            return Err(ApiError::invalid("messages", "the messages make a prompt of no tokens"));
        }
        Ok(vec![Tokenized { tokens: tokens.into(), echo: String::new() }])
    }

    fn unnamed_length(app: &App, share: u32) -> UnnamedLength {
        let configured = Some(app.config.limits.chat_max_tokens_default).filter(|&tokens| tokens > 0);
        UnnamedLength { configured, default: None, share }
    }

    fn form(&self, head: Head, prompts: Vec<Tokenized>) -> Form {
        Form::chat(ChatAnswer::new(head), prompts, &self.generation)
    }
}

/// Renders a conversation with the model's own template.
pub(super) fn conversation_text(
    conversation: &Conversation,
    model: &ModelText,
    room: &Room<'_>,
) -> Result<(Rendered, AddSpecials), ApiError> {
    let Some(template) = &model.template else {
        let message = "this model has no chat template: use /v1/completions instead";
        return Err(ApiError::invalid("messages", message));
    };
    let (messages, variables) = (&conversation.messages, &conversation.template_variables);
    let prompt =
        template.render_within(messages, conversation.generation_prompt, variables, room.effort).map_err(|error| {
            match error {
                TemplateError::Lack(_) => ApiError::from(Failure::new(FailureKind::Unavailable, error.to_string())),
                error => ApiError::invalid("messages", error.to_string()),
            }
        })?;
    Ok((prompt, conversation.add_specials))
}
